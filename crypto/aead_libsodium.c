/* The portable backend: every build has it, and it works on every CPU. */
#include "crypto/aead_backends.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

static unsigned seal_train(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], uint64_t counter,
	struct aead_seal_source *source)
{
	struct aead_seal_seg seg;
	uint8_t nonce[AEAD_NONCE_BYTES];
	unsigned nr = 0;

	while (source->next(source, &seg)) {
		aead_nonce(nonce, counter + nr);
		crypto_aead_chacha20poly1305_ietf_encrypt(
			seg.dst, NULL, seg.src, seg.len, NULL, 0, NULL, nonce, key);
		nr++;
	}
	return nr;
}

static unsigned open_train(
	struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], struct aead_open_seg *segs, unsigned nr)
{
	uint8_t nonce[AEAD_NONCE_BYTES];
	unsigned nr_ok = 0;

	for (unsigned i = 0; i < nr; i++) {
		struct aead_open_seg *seg = &segs[i];

		aead_nonce(nonce, seg->counter);
		/* libsodium refuses what is shorter than a tag. */
		seg->ok = crypto_aead_chacha20poly1305_ietf_decrypt(
				  seg->data, NULL, NULL, seg->data, seg->len, NULL, 0, nonce, key) == 0;
		nr_ok += seg->ok;
	}
	return nr_ok;
}

static void libsodium_free(struct aead *aead)
{
	free(aead);
}

static struct aead *libsodium_new(int *err)
{
	struct aead *aead = malloc(sizeof(*aead));

	if (!aead) {
		*err = -ENOMEM;
		return NULL;
	}
	*aead = (struct aead){
		.backend = &aead_libsodium,
		.seal_train = seal_train,
		.open_train = open_train,
		.free = libsodium_free,
	};
	return aead;
}

const struct aead_backend aead_libsodium = {.name = "libsodium", .create = libsodium_new};
