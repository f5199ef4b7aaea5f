/*
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it: functions of the state they are given, with
 * time and indices as arguments. The state holder calls them. Structures that hold secrets live in
 * secret_alloc() memory or on a stack that is zeroed.
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
 * The handshake of one peer, in either role; at most one is in flight. Where a function says "hs changes on
 * success only", the cached static_static is excepted.
 */
struct noise_handshake {
	enum noise_state state;
	uint32_t local_index, remote_index;
	uint8_t remote_static[NOISE_KEY_BYTES];
	uint8_t preshared[NOISE_KEY_BYTES];
	/*
	 * DH(own private key, remote static key), computed at its first use and kept. Whoever changes either
	 * key clears the flag.
	 */
	uint8_t static_static[NOISE_KEY_BYTES];
	bool has_static_static;
	uint8_t ephemeral_private[NOISE_KEY_BYTES];
	uint8_t remote_ephemeral[NOISE_KEY_BYTES];
	uint8_t hash[NOISE_HASH_BYTES];
	uint8_t chaining_key[NOISE_HASH_BYTES];
	uint8_t latest_timestamp[WIRE_TIMESTAMP_BYTES]; /* of the last accepted initiation */
	uint64_t last_initiation_ns;                    /* boottime of the last accepted one; 0: none */
};

/* Clamps the private key and derives the public one. An all-zero key means none: has = false. */
void noise_identity_set(struct noise_identity *id, const uint8_t private_key[NOISE_KEY_BYTES]);
/*
 * Zeroes ephemeral keys, hashes and indices; the state becomes NOISE_ZEROED. Keeps remote_static, preshared,
 * static_static, latest_timestamp and last_initiation_ns.
 */
void noise_handshake_clear(struct noise_handshake *hs);

/*
 * TAI64N of a realtime clock reading. The low 24 bits of the nanoseconds are zero, so it tells no fine
 * timing.
 */
void noise_tai64n(uint8_t out[WIRE_TIMESTAMP_BYTES], uint64_t realtime_ns);

/*
 * Initiator. Fills msg except its macs. -EKEYREJECTED if the remote key is of low order, -ENOKEY without an
 * identity.
 */
int noise_initiation_create(struct noise_handshake *hs, const struct noise_identity *id, uint32_t local_index,
	const uint8_t tai64n[WIRE_TIMESTAMP_BYTES], struct wire_initiation *msg) MUST_CHECK;

/*
 * Responder, between the two halves: remote_static is the key to find the peer by. Holds secrets: zero it
 * after use.
 */
struct noise_initiation_open {
	uint8_t hash[NOISE_HASH_BYTES];
	uint8_t chaining_key[NOISE_HASH_BYTES];
	uint8_t remote_static[NOISE_KEY_BYTES];
};
/* Responder, first half: decrypts the sender's static key. -EBADMSG, -EKEYREJECTED, -ENOKEY. */
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
 * After a response was created or consumed: derives the session keys into k, a new keypair, sets its
 * local_index, remote_index, initiator and created_ns, and clears the handshake.
 */
void noise_session(struct noise_handshake *hs, struct keypair *k, uint64_t now_ns);
