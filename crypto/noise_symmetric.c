#include "crypto/noise_symmetric.h"

#include <errno.h>
#include <sodium.h>

#include "crypto/blake2s.h"
#include "crypto/secret.h"

static const uint8_t zero_nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

void noise_symmetric_zero(struct noise_symmetric *s)
{
	secret_zero(s, sizeof(*s));
}

void noise_symmetric_init(struct noise_symmetric *s, const void *prologue, size_t len)
{
	static const char name[] = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

	/* The name is longer than a hash, so the initial value is its hash. */
	blake2s_hash(s->chaining_key, name, sizeof(name) - 1, NULL, 0);
	memcpy(s->hash, s->chaining_key, sizeof(s->hash));
	memset(s->key, 0, sizeof(s->key));
	noise_symmetric_mix_hash(s, prologue, len);
}

void noise_symmetric_mix_hash(struct noise_symmetric *s, const void *data, size_t len)
{
	blake2s_hash(s->hash, s->hash, sizeof(s->hash), data, len);
}

void noise_symmetric_mix_ephemeral(struct noise_symmetric *s, const uint8_t public_key[32])
{
	noise_symmetric_mix_hash(s, public_key, 32);
	noise_symmetric_mix_key(s, public_key);
}

void noise_symmetric_mix_key(struct noise_symmetric *s, const uint8_t shared[32])
{
	blake2s_kdf(s->chaining_key, s->key, NULL, s->chaining_key, shared, 32);
}

int noise_symmetric_mix_dh(
	struct noise_symmetric *s, const uint8_t private_key[32], const uint8_t public_key[32])
{
	uint8_t shared[crypto_scalarmult_BYTES];
	int r = 0;

	if (crypto_scalarmult(shared, private_key, public_key) == 0)
		noise_symmetric_mix_key(s, shared);
	else
		r = -EKEYREJECTED;
	secret_zero(shared, sizeof(shared));
	return r;
}

void noise_symmetric_mix_psk(struct noise_symmetric *s, const uint8_t preshared[32])
{
	uint8_t tau[BLAKE2S_BYTES];

	blake2s_kdf(s->chaining_key, tau, s->key, s->chaining_key, preshared, 32);
	noise_symmetric_mix_hash(s, tau, sizeof(tau));
	secret_zero(tau, sizeof(tau));
}

void noise_symmetric_seal(struct noise_symmetric *s, uint8_t *dst, const uint8_t *src, size_t len)
{
	crypto_aead_chacha20poly1305_ietf_encrypt(
		dst, NULL, src, len, s->hash, sizeof(s->hash), NULL, zero_nonce, s->key);
	noise_symmetric_mix_hash(s, dst, len + NOISE_SYMMETRIC_TAG_BYTES);
}

int noise_symmetric_open(struct noise_symmetric *s, uint8_t *dst, const uint8_t *src, size_t len)
{
	uint8_t nothing;

	if (crypto_aead_chacha20poly1305_ietf_decrypt(dst ? dst : &nothing, NULL, NULL, src, len, s->hash,
		    sizeof(s->hash), zero_nonce, s->key) != 0)
		return -EBADMSG;
	noise_symmetric_mix_hash(s, src, len);
	return 0;
}

void noise_symmetric_split(
	const uint8_t chaining_key[32], uint8_t initiator_sends[32], uint8_t initiator_receives[32])
{
	blake2s_kdf(initiator_sends, initiator_receives, NULL, chaining_key, NULL, 0);
}
