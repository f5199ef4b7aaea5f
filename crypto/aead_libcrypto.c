/*
 * OpenSSL's EVP. The cipher is fetched once per context and the key set once per train; a segment costs a new
 * IV, the update, and the tag. The EVP context keeps the key of the last train; freeing the context clears
 * it.
 */
#include "crypto/aead_backends.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>

struct libcrypto_aead {
	struct aead aead;
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx;
};

static bool seal_segment(EVP_CIPHER_CTX *ctx, const struct aead_seal_seg *seg, uint64_t counter)
{
	uint8_t nonce[AEAD_NONCE_BYTES];
	int len;

	aead_nonce(nonce, counter);
	return EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL) == 1 &&
	       EVP_EncryptUpdate(ctx, seg->dst, &len, seg->src, (int)seg->len) == 1 &&
	       EVP_EncryptFinal_ex(ctx, seg->dst + seg->len, &len) == 1 &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, seg->dst + seg->len) == 1;
}

static unsigned seal_train(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], uint64_t counter,
	struct aead_seal_source *source)
{
	struct libcrypto_aead *lc = CONTAINER_OF(aead, struct libcrypto_aead, aead);
	struct aead_seal_seg seg;
	unsigned nr = 0;

	/*
	 * None of these calls fails with these arguments. If one did, dst could hold plaintext, which must
	 * never be sent.
	 */
	if (EVP_EncryptInit_ex2(lc->ctx, NULL, key, NULL, NULL) != 1)
		abort();
	while (source->next(source, &seg)) {
		if (!seal_segment(lc->ctx, &seg, counter + nr))
			abort();
		nr++;
	}
	return nr;
}

/* EVP_DecryptFinal_ex() compares the tags in constant time. */
static bool open_segment(EVP_CIPHER_CTX *ctx, const struct aead_open_seg *seg)
{
	uint8_t nonce[AEAD_NONCE_BYTES];
	uint32_t text_len;
	int len;

	if (seg->len < AEAD_TAG_BYTES)
		return false;
	text_len = seg->len - AEAD_TAG_BYTES;
	aead_nonce(nonce, seg->counter);
	return EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce, NULL) == 1 &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_BYTES, seg->data + text_len) == 1 &&
	       EVP_DecryptUpdate(ctx, seg->data, &len, seg->data, (int)text_len) == 1 &&
	       EVP_DecryptFinal_ex(ctx, seg->data + text_len, &len) == 1;
}

static unsigned open_train(
	struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], struct aead_open_seg *segs, unsigned nr)
{
	struct libcrypto_aead *lc = CONTAINER_OF(aead, struct libcrypto_aead, aead);
	bool has_key = EVP_DecryptInit_ex2(lc->ctx, NULL, key, NULL, NULL) == 1;
	unsigned nr_ok = 0;

	for (unsigned i = 0; i < nr; i++) {
		segs[i].ok = has_key && open_segment(lc->ctx, &segs[i]);
		nr_ok += segs[i].ok;
	}
	return nr_ok;
}

static void libcrypto_free(struct aead *aead)
{
	struct libcrypto_aead *lc = CONTAINER_OF(aead, struct libcrypto_aead, aead);

	EVP_CIPHER_CTX_free(lc->ctx);
	EVP_CIPHER_free(lc->cipher);
	free(lc);
}

static struct aead *libcrypto_new(int *err)
{
	struct libcrypto_aead *lc = calloc(1, sizeof(*lc));

	if (!lc) {
		*err = -ENOMEM;
		return NULL;
	}
	lc->aead = (struct aead){
		.backend = &aead_libcrypto,
		.seal_train = seal_train,
		.open_train = open_train,
		.free = libcrypto_free,
	};
	lc->cipher = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
	if (!lc->cipher) {
		*err = -ENOTSUP; /* a provider configuration without it, FIPS for instance */
		goto err_free;
	}
	lc->ctx = EVP_CIPHER_CTX_new();
	if (!lc->ctx) {
		*err = -ENOMEM;
		goto err_free;
	}
	/* Sets the cipher; seal_train() and open_train() set direction, key and nonce. */
	if (EVP_EncryptInit_ex2(lc->ctx, lc->cipher, NULL, NULL, NULL) != 1) {
		*err = -ENOTSUP;
		goto err_free;
	}
	return &lc->aead;

err_free:
	libcrypto_free(&lc->aead);
	return NULL;
}

const struct aead_backend aead_libcrypto = {.name = "libcrypto", .create = libcrypto_new};
