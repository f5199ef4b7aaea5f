/*
 * BLAKE2s (RFC 7693) over libb2, and what WireGuard builds on it: keyed MAC, HMAC and the KDF (WireGuard
 * paper, section 5.4, which writes them Hash, Mac, Hmac, Kdf_n). Pure functions, any thread; intermediate
 * states are zeroed. Outputs may overlap inputs.
 */
#pragma once

#include "ring/base.h"

#define BLAKE2S_BYTES 32

/* HASH(a || b). b may be NULL with b_len 0. */
void blake2s_hash(uint8_t out[BLAKE2S_BYTES], const void *a, size_t a_len, const void *b, size_t b_len);
/* MAC: keyed BLAKE2s. out_len 1..32, key_len 1..32. */
void blake2s_mac(
	uint8_t *out, size_t out_len, const uint8_t *key, size_t key_len, const void *in, size_t in_len);
/* HMAC-BLAKE2s (RFC 2104 with 64-byte blocks). key_len 0..64. */
void blake2s_hmac(
	uint8_t out[BLAKE2S_BYTES], const uint8_t *key, size_t key_len, const void *in, size_t in_len);
/*
 * Kdf1..3 of a chaining key and input (HKDF, RFC 5869): out2 and out3 are NULL when not wanted; out3 needs
 * out2.
 */
void blake2s_kdf(uint8_t out1[BLAKE2S_BYTES], uint8_t out2[BLAKE2S_BYTES], uint8_t out3[BLAKE2S_BYTES],
	const uint8_t chaining_key[BLAKE2S_BYTES], const void *in, size_t in_len);
