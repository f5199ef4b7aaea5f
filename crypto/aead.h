/*
 * ChaCha20-Poly1305 as the transport uses it (RFC 8439, empty associated data, nonce = 4 zero bytes and the
 * little-endian 64-bit counter), a train at a time, behind one table of backends: intel-ipsec-mb, libcrypto
 * and libsodium. All give the same bytes. An aead context is used by one thread at a time and lives as long
 * as the thread.
 */
#pragma once

#include "ring/base.h"

#define AEAD_KEY_BYTES 32
#define AEAD_TAG_BYTES 16

struct aead;

/*
 * One segment to seal: len plaintext bytes at src become len + AEAD_TAG_BYTES at dst. No overlap, or dst ==
 * src.
 */
struct aead_seal_seg {
	uint8_t *dst;
	const uint8_t *src;
	uint32_t len;
};

/*
 * The segments of a train, one after the other: next() fills in *seg, or returns false at the end. It is
 * called for segment i + 1 only when segment i is sealed, so it may write the header of segment i + 1 over
 * the tail of segment i's source.
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
	/*
	 * Makes a context; aead_free() ends it. Without memory, or where the CPU or the library lacks the
	 * cipher: NULL, and -errno in *err. Any thread.
	 */
	struct aead *(*create)(int *err);
};

struct aead {
	const struct aead_backend *backend;
	/*
	 * Seals every segment of source with consecutive counters from counter on; returns how many were
	 * sealed. Cannot fail.
	 */
	unsigned (*seal_train)(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], uint64_t counter,
		struct aead_seal_source *source);
	/*
	 * Opens nr segments in place, sets ok of each and returns how many are ok. The bytes of a segment
	 * that is not ok are unspecified.
	 */
	unsigned (*open_train)(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES],
		struct aead_open_seg *segs, unsigned nr);
	void (*free)(struct aead *aead);
};

#define AEAD_BACKENDS_MAX 3

/* NULL-terminated list of the backends in this build. */
extern const struct aead_backend *const aead_backends[AEAD_BACKENDS_MAX + 1];

/* By name; NULL if the build has none of that name. */
const struct aead_backend *aead_find(const char *name);

struct aead_result {
	const char *name;
	double bytes_per_sec; /* 0: unusable here */
};

/*
 * Measures every usable backend for a few milliseconds on 1280-byte segments and returns the fastest; never
 * NULL. If results is not NULL it has room for AEAD_BACKENDS_MAX: each backend's figure is written there, in
 * the order of aead_backends, and their number to *nr_results. Control thread, start-up.
 */
const struct aead_backend *aead_fastest(struct aead_result *results, unsigned *nr_results);

/* Clears the keys that the context holds and frees it. NULL is accepted. */
void aead_free(struct aead *aead);
