/*
 * The symmetric state of Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (Noise revision 34, section 5.2): hash,
 * chaining key and current cipher key. A cipher key encrypts at most once, so its nonce is always 0. noise.c
 * works on a copy on its stack and writes it back to the handshake only when the whole message was good.
 */
#pragma once

#include "ring/base.h"

#define NOISE_SYMMETRIC_BYTES 32
#define NOISE_SYMMETRIC_TAG_BYTES 16

struct noise_symmetric {
	uint8_t hash[NOISE_SYMMETRIC_BYTES];
	uint8_t chaining_key[NOISE_SYMMETRIC_BYTES];
	uint8_t key[NOISE_SYMMETRIC_BYTES];
};

/* Behind the name of a variable: zeroes it at the end of its scope. */
#define NOISE_SYMMETRIC_SCOPED __attribute__((cleanup(noise_symmetric_zero)))
void noise_symmetric_zero(struct noise_symmetric *s);

/* InitializeSymmetric() with the protocol's name and MixHash(prologue). */
void noise_symmetric_init(struct noise_symmetric *s, const void *prologue, size_t len);
/* MixHash(). */
void noise_symmetric_mix_hash(struct noise_symmetric *s, const void *data, size_t len);
/* Token e in a handshake with a preshared key: MixHash() and MixKey() of the public key. */
void noise_symmetric_mix_ephemeral(struct noise_symmetric *s, const uint8_t public_key[32]);
/* MixKey() of a shared secret that is known already. */
void noise_symmetric_mix_key(struct noise_symmetric *s, const uint8_t shared[32]);
/*
 * Tokens ee, es, se, ss: MixKey(DH()). -EKEYREJECTED if the public key is of low order; s is unchanged then.
 */
int noise_symmetric_mix_dh(
	struct noise_symmetric *s, const uint8_t private_key[32], const uint8_t public_key[32]) MUST_CHECK;
/* Token psk: MixKeyAndHash(). */
void noise_symmetric_mix_psk(struct noise_symmetric *s, const uint8_t preshared[32]);
/* EncryptAndHash(): len bytes of src become len + NOISE_SYMMETRIC_TAG_BYTES at dst. */
void noise_symmetric_seal(struct noise_symmetric *s, uint8_t *dst, const uint8_t *src, size_t len);
/*
 * DecryptAndHash(): len bytes of src, tag included. dst may be NULL if there is nothing but the tag.
 * -EBADMSG.
 */
int noise_symmetric_open(struct noise_symmetric *s, uint8_t *dst, const uint8_t *src, size_t len) MUST_CHECK;
/* Split(): the initiator's sending key and its receiving key. */
void noise_symmetric_split(
	const uint8_t chaining_key[32], uint8_t initiator_sends[32], uint8_t initiator_receives[32]);
