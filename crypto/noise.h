/*
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it: pure functions over plain state, time and
 * indices as arguments. All called on the crypto thread. Structures that hold secrets live in secret_alloc()
 * memory or on a stack that is zeroed.
 */
#pragma once

#include "crypto/keypair.h"
#include "crypto/wire.h"

#define NOISE_KEY_BYTES 32
#define NOISE_HASH_BYTES 32

/* The interface's own static key. */
struct noise_identity {
	bool has;                             /* a private key is set */
	uint8_t private_key[NOISE_KEY_BYTES]; /* clamped */
	uint8_t public_key[NOISE_KEY_BYTES];
};

enum noise_state {
	NOISE_ZEROED,
	NOISE_CREATED_INITIATION,
	NOISE_CONSUMED_INITIATION,
	NOISE_CREATED_RESPONSE,
	NOISE_CONSUMED_RESPONSE,
};

/*
 * The handshake of one peer, in either role; at most one is in flight. "hs changes on success only" below
 * leaves aside the cached static_static.
 */
struct noise_handshake {
	enum noise_state state;
	uint32_t local_index, remote_index;
	uint8_t remote_static[NOISE_KEY_BYTES];
	uint8_t preshared[NOISE_KEY_BYTES];
	/*
	 * DH(own private, remote static), kept from its first use. Whoever changes either key clears the
	 * flag.
	 */
	uint8_t static_static[NOISE_KEY_BYTES];
	bool has_static_static;
	uint8_t ephemeral_private[NOISE_KEY_BYTES];
	uint8_t remote_ephemeral[NOISE_KEY_BYTES];
	uint8_t hash[NOISE_HASH_BYTES];
	uint8_t chaining_key[NOISE_HASH_BYTES];
	uint8_t latest_timestamp[WIRE_TIMESTAMP_BYTES]; /* of the last accepted initiation */
	uint64_t last_initiation_ns;                    /* boottime of the last accepted one; 0 none */
};

/* Clamps and derives the public key. All-zero private key: has = false. */
void noise_identity_set(struct noise_identity *id, const uint8_t private_key[NOISE_KEY_BYTES]);
/*
 * Ephemeral state, hashes and indices to zero, state ZEROED. Keeps remote_static, preshared, static_static,
 * latest_timestamp and last_initiation_ns.
 */
void noise_handshake_clear(struct noise_handshake *hs);

/* TAI64N of a realtime clock reading, with the low 24 bits of the nanoseconds whitened away. */
void noise_tai64n(uint8_t out[WIRE_TIMESTAMP_BYTES], uint64_t realtime_ns);

/*
 * Initiator. Fills msg except its macs. -EKEYREJECTED if the remote key is of low order, -ENOKEY without an
 * identity.
 */
int noise_initiation_create(struct noise_handshake *hs, const struct noise_identity *id, uint32_t local_index,
	const uint8_t tai64n[WIRE_TIMESTAMP_BYTES], struct wire_initiation *msg) MUST_CHECK;

/* Responder, first half: what must be known to find the peer. Secrets inside: zero after use. */
struct noise_initiation_open {
	uint8_t hash[NOISE_HASH_BYTES];
	uint8_t chaining_key[NOISE_HASH_BYTES];
	uint8_t remote_static[NOISE_KEY_BYTES];
};
/* Decrypts the sender's static key. -EBADMSG, -EKEYREJECTED, -ENOKEY. */
int noise_initiation_open(struct noise_initiation_open *open, const struct noise_identity *id,
	const struct wire_initiation *msg) MUST_CHECK;
/*
 * Responder, second half, with the handshake of the peer whose key it is. Checks the timestamp: -EALREADY for
 * a replay, -EBUSY within 20 ms of the last accepted one; -EBADMSG, -EKEYREJECTED, -ENOKEY. hs changes on
 * success only; local_index stays what it was until noise_response_create() sets it.
 */
int noise_initiation_accept(struct noise_handshake *hs, const struct noise_identity *id,
	const struct noise_initiation_open *open, const struct wire_initiation *msg,
	uint64_t now_ns) MUST_CHECK;
/*
 * Responder. Fills msg except its macs. -EKEYREJECTED, -EINVAL (no initiation was accepted). hs changes on
 * success only.
 */
int noise_response_create(
	struct noise_handshake *hs, uint32_t local_index, struct wire_response *msg) MUST_CHECK;
/*
 * Initiator. -EBADMSG, -EKEYREJECTED, -ENOKEY, -EINVAL (no initiation outstanding, or the response answers
 * another index). hs changes on success only.
 */
int noise_response_consume(struct noise_handshake *hs, const struct noise_identity *id,
	const struct wire_response *msg) MUST_CHECK;
/*
 * After a response was created or consumed: derives the session keys into k (a new keypair: local_index,
 * remote_index, initiator and created_ns too) and clears the handshake.
 */
void noise_session(struct noise_handshake *hs, struct keypair *k, uint64_t now_ns);
