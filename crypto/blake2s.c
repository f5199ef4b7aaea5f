#include "crypto/blake2s.h"

#include <blake2.h>

#include "crypto/secret.h"

#define BLOCK_BYTES 64

static void update(blake2s_state *state, const void *in, size_t in_len);
static void final(blake2s_state *state, uint8_t *out, size_t out_len);
static void hmac_pass(uint8_t out[BLAKE2S_BYTES], const uint8_t block[BLOCK_BYTES], uint8_t pad,
	const void *in, size_t in_len);

void blake2s_hash(uint8_t out[BLAKE2S_BYTES], const void *a, size_t a_len, const void *b, size_t b_len)
{
	blake2s_state state;

	blake2s_init(&state, BLAKE2S_BYTES);
	update(&state, a, a_len);
	update(&state, b, b_len);
	final(&state, out, BLAKE2S_BYTES);
}

void blake2s_mac(
	uint8_t *out, size_t out_len, const uint8_t *key, size_t key_len, const void *in, size_t in_len)
{
	blake2s_state state;

	CHECK(out_len > 0 && out_len <= BLAKE2S_BYTES && key_len > 0 && key_len <= BLAKE2S_KEYBYTES);
	blake2s_init_key(&state, out_len, key, key_len);
	update(&state, in, in_len);
	final(&state, out, out_len);
}

void blake2s_hmac(
	uint8_t out[BLAKE2S_BYTES], const uint8_t *key, size_t key_len, const void *in, size_t in_len)
{
	uint8_t block[BLOCK_BYTES] = {0};
	uint8_t inner[BLAKE2S_BYTES];

	CHECK(key_len <= BLOCK_BYTES);
	if (key_len > 0)
		memcpy(block, key, key_len);
	hmac_pass(inner, block, 0x36, in, in_len);
	hmac_pass(out, block, 0x5c, inner, sizeof(inner));
	secret_zero(block, sizeof(block));
	secret_zero(inner, sizeof(inner));
}

void blake2s_kdf(uint8_t out1[BLAKE2S_BYTES], uint8_t out2[BLAKE2S_BYTES], uint8_t out3[BLAKE2S_BYTES],
	const uint8_t chaining_key[BLAKE2S_BYTES], const void *in, size_t in_len)
{
	uint8_t secret[BLAKE2S_BYTES];
	uint8_t expand[BLAKE2S_BYTES + 1]; /* RFC 5869: T(n - 1) || n */

	assert(out2 || !out3);
	blake2s_hmac(secret, chaining_key, BLAKE2S_BYTES, in, in_len);
	expand[0] = 1;
	blake2s_hmac(expand, secret, sizeof(secret), expand, 1);
	memcpy(out1, expand, BLAKE2S_BYTES);
	if (out2) {
		expand[BLAKE2S_BYTES] = 2;
		blake2s_hmac(expand, secret, sizeof(secret), expand, sizeof(expand));
		memcpy(out2, expand, BLAKE2S_BYTES);
	}
	if (out3) {
		expand[BLAKE2S_BYTES] = 3;
		blake2s_hmac(expand, secret, sizeof(secret), expand, sizeof(expand));
		memcpy(out3, expand, BLAKE2S_BYTES);
	}
	secret_zero(secret, sizeof(secret));
	secret_zero(expand, sizeof(expand));
}

/* libb2 takes no null pointer, even for no bytes. */
static void update(blake2s_state *state, const void *in, size_t in_len)
{
	if (in_len > 0)
		blake2s_update(state, in, in_len);
}

static void final(blake2s_state *state, uint8_t *out, size_t out_len)
{
	blake2s_final(state, out, out_len);
	secret_zero(state, sizeof(*state));
}

static void hmac_pass(uint8_t out[BLAKE2S_BYTES], const uint8_t block[BLOCK_BYTES], uint8_t pad,
	const void *in, size_t in_len)
{
	uint8_t padded[BLOCK_BYTES];

	for (size_t i = 0; i < BLOCK_BYTES; i++)
		padded[i] = block[i] ^ pad;
	blake2s_hash(out, padded, sizeof(padded), in, in_len);
	secret_zero(padded, sizeof(padded));
}
