/*
 * intel-ipsec-mb's single-buffer ChaCha20-Poly1305 through the job API. A job of this cipher is complete when
 * its submission returns, so one manager with one job in flight serves a thread.
 *
 * Measured (AVX-512, 1420-byte and 64-byte segments, Gbit/s): unchecked jobs 24.6 and 4.4, checked jobs 24.1
 * and 4.1, the init/update/finalize functions 20.2 and 2.5: only the job API derives the Poly1305 key and the
 * first blocks of the keystream in one go. Below AVX-512 the three are equal.
 */
#include "crypto/aead_backends.h"

#include <errno.h>
#include <intel-ipsec-mb.h>
#include <sodium.h>
#include <stdlib.h>

#include "ring/cpu.h"

struct ipsec_mb_aead {
	struct aead aead;
	IMB_MGR *mgr;
};

/* Runs the cipher over len bytes and writes the tag of the ciphertext. dst == src or no overlap. */
static bool run_job(IMB_MGR *mgr, IMB_CIPHER_DIRECTION direction, const uint8_t key[AEAD_KEY_BYTES],
	uint64_t counter, uint8_t *dst, const uint8_t *src, uint32_t len, uint8_t tag[AEAD_TAG_BYTES])
{
	IMB_JOB *job = IMB_GET_NEXT_JOB(mgr);
	uint8_t nonce[AEAD_NONCE_BYTES];

	aead_nonce(nonce, counter);
	job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
	job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
	job->cipher_direction = direction;
	job->chain_order = direction == IMB_DIR_ENCRYPT ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
	job->enc_keys = key;
	job->dec_keys = key;
	job->key_len_in_bytes = AEAD_KEY_BYTES;
	job->src = src;
	job->dst = dst;
	job->cipher_start_src_offset_in_bytes = 0;
	job->msg_len_to_cipher_in_bytes = len;
	job->hash_start_src_offset_in_bytes = 0;
	job->msg_len_to_hash_in_bytes = len;
	job->iv = nonce;
	job->iv_len_in_bytes = sizeof(nonce);
	job->auth_tag_output = tag;
	job->auth_tag_output_len_in_bytes = AEAD_TAG_BYTES;
	job->u.CHACHA20_POLY1305.aad = NULL;
	job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
	job = IMB_SUBMIT_JOB_NOCHECK(mgr);
	return job && job->status == IMB_STATUS_COMPLETED;
}

static unsigned seal_train(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], uint64_t counter,
	struct aead_seal_source *source)
{
	struct ipsec_mb_aead *mb = CONTAINER_OF(aead, struct ipsec_mb_aead, aead);
	struct aead_seal_seg seg;
	unsigned nr = 0;

	while (source->next(source, &seg)) {
		/* If the job did not run, dst may hold plaintext, which must never be sent. */
		if (!run_job(mb->mgr, IMB_DIR_ENCRYPT, key, counter + nr, seg.dst, seg.src, seg.len,
			    seg.dst + seg.len))
			abort();
		nr++;
	}
	return nr;
}

static unsigned open_train(
	struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], struct aead_open_seg *segs, unsigned nr)
{
	struct ipsec_mb_aead *mb = CONTAINER_OF(aead, struct ipsec_mb_aead, aead);
	uint8_t tag[AEAD_TAG_BYTES];
	unsigned nr_ok = 0;

	for (unsigned i = 0; i < nr; i++) {
		struct aead_open_seg *seg = &segs[i];
		uint32_t text_len = seg->len - AEAD_TAG_BYTES;

		seg->ok = seg->len >= AEAD_TAG_BYTES &&
			  run_job(mb->mgr, IMB_DIR_DECRYPT, key, seg->counter, seg->data, seg->data, text_len,
				  tag) &&
			  crypto_verify_16(tag, seg->data + text_len) == 0;
		nr_ok += seg->ok;
	}
	return nr_ok;
}

/* A job holds the address of the key and no copy of it, so there is no key to clear. */
static void ipsec_mb_free(struct aead *aead)
{
	struct ipsec_mb_aead *mb = CONTAINER_OF(aead, struct ipsec_mb_aead, aead);

	free_mb_mgr(mb->mgr);
	free(mb);
}

/*
 * The library chooses its code by the features that it found, so those that may not be used are removed
 * first. False if it has nothing for this CPU, or chose more than may be used.
 */
static bool init_manager(IMB_MGR *mgr)
{
	static const struct {
		enum cpu_isa isa;
		uint64_t feature;
		IMB_ARCH most_without;
	} needs[] = {
		{CPU_AVX512, IMB_FEATURE_AVX512F, IMB_ARCH_AVX2},
		{CPU_AVX2, IMB_FEATURE_AVX2, IMB_ARCH_AVX2 - 1}, /* AVX; SSE from version 2 on */
		{CPU_AVX, IMB_FEATURE_AVX, IMB_ARCH_SSE},
	};
	IMB_ARCH chosen, most = IMB_ARCH_AVX512;

	for (unsigned i = 0; i < ARRAY_LEN(needs); i++)
		if (!cpu_may_use(needs[i].isa)) {
			mgr->features &= ~needs[i].feature;
			most = needs[i].most_without;
		}
	init_mb_mgr_auto(mgr, &chosen);
	return imb_get_errno(mgr) == 0 && chosen <= most;
}

static struct aead *ipsec_mb_new(int *err)
{
	struct ipsec_mb_aead *mb = malloc(sizeof(*mb));
	uint8_t probe[AEAD_KEY_BYTES] = {0};

	if (!mb) {
		*err = -ENOMEM;
		return NULL;
	}
	mb->aead = (struct aead){
		.backend = &aead_ipsec_mb,
		.seal_train = seal_train,
		.open_train = open_train,
		.free = ipsec_mb_free,
	};
	mb->mgr = alloc_mb_mgr(0);
	if (!mb->mgr) {
		free(mb);
		*err = -ENOMEM;
		return NULL;
	}
	/* A job must be complete when its submission returns; all else here relies on it. */
	if (!init_manager(mb->mgr) || !run_job(mb->mgr, IMB_DIR_ENCRYPT, probe, 0, probe, probe, 0, probe)) {
		ipsec_mb_free(&mb->aead);
		*err = -ENOTSUP;
		return NULL;
	}
	return &mb->aead;
}

const struct aead_backend aead_ipsec_mb = {.name = "ipsec-mb", .create = ipsec_mb_new};
