/*
 * ChaCha20-Poly1305 as the transport uses it (RFC 8439, empty associated data, nonce = 4 zero bytes and the
 * little-endian 64-bit counter), a train at a time, behind one table of backends: intel-ipsec-mb, libcrypto and
 * libsodium. All give the same bytes. An aead context belongs to one thread and lives as long as the thread.
 */
#pragma once

#include "ring/base.h"

#define AEAD_KEY_BYTES 32
#define AEAD_TAG_BYTES 16

struct aead;

/* One segment to seal: len plaintext bytes at src become len + AEAD_TAG_BYTES at dst. No overlap, or dst == src. */
struct aead_seal_seg {
	uint8_t *dst;
	const uint8_t *src;
	uint32_t len;
};

/*
 * Where the segments of a train come from. next() is called for segment i + 1 only after segment i is sealed,
 * so it may write the header of segment i + 1 over the tail of segment i's source. false ends the train.
 */
struct aead_seal_source {
	bool (*next)(struct aead_seal_source *source, struct aead_seal_seg *seg);
};

/* One segment to open in place: len ciphertext bytes, tag included, at data; ok tells the outcome. */
struct aead_open_seg {
	uint8_t *data;
	uint32_t len;
	uint64_t counter;
	bool ok;
};

struct aead_backend {
	const char *name; /* "ipsec-mb", "libcrypto", "libsodium" */
	/* NULL and -errno in *err when this CPU or library cannot. Any thread. */
	struct aead *(*new)(int *err);
};

struct aead {
	const struct aead_backend *backend;
	/*
	 * Seals every segment of source with consecutive counters from counter on; returns how many were sealed.
	 * Cannot fail.
	 */
	unsigned (*seal_train)(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], uint64_t counter,
		struct aead_seal_source *source);
	/* Opens nr segments in place; sets ok of each; the bytes of a failed one are unspecified. Returns how many are ok. */
	unsigned (*open_train)(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], struct aead_open_seg *segs,
		unsigned nr);
	void (*free)(struct aead *aead);
};

/* NULL-terminated list of the backends in this build. */
extern const struct aead_backend *const aead_backends[];

/* By name; NULL if the build has none of that name. */
const struct aead_backend *aead_find(const char *name);
/*
 * Measures every usable backend for a few milliseconds on 1280-byte segments, fastest first wins. Control thread,
 * start-up. nr_results results (name, bytes per second; 0 = unusable) are written for the log when not NULL.
 */
struct aead_result {
	const char *name;
	double bytes_per_sec;
};
const struct aead_backend *aead_fastest(struct aead_result *results, unsigned *nr_results);
void aead_free(struct aead *aead);
