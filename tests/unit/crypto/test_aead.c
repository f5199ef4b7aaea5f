#include "support.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "crypto/aead.h"
#include "crypto/blake2s.h"

TestSuite(aead, .init = support_init);

#define LEN_MAX 2048
#define GUARD 64

/* Every backend that works on this machine; runs_here tests skip, and so name, those that do not. */
static struct aead *usable[AEAD_BACKENDS_MAX];
static unsigned nr_usable;

static void open_backends(void)
{
	support_init();
	nr_usable = 0;
	for (unsigned i = 0; aead_backends[i]; i++) {
		int err = 0;
		struct aead *aead = aead_backends[i]->create(&err);

		if (!aead) {
			cr_assert_lt(err, 0);
			continue;
		}
		cr_assert_eq(aead->backend, aead_backends[i]);
		usable[nr_usable++] = aead;
	}
	cr_assert_geq(nr_usable, 1);
}

static void close_backends(void)
{
	for (unsigned i = 0; i < nr_usable; i++)
		aead_free(usable[i]);
}

/*
 * Skips when this build lacks the backend or this machine what the backend needs. A limit of SLUICE_CPU is no
 * reason: each backend has code for the least.
 */
static void runs_here(const char *name, bool must_run)
{
	const struct aead_backend *backend = aead_find(name);
	struct aead *aead;
	int err = 0;

	if (!backend)
		cr_skip_test("this build has no %s", name);
	aead = backend->create(&err);
	if (!aead) {
		cr_assert_eq(err, -ENOTSUP);
		cr_assert(!must_run, "%s refuses a CPU that has all it needs", name);
		cr_skip_test("%s does not run here", name);
	}
	aead_free(aead);
}

Test(aead, ipsec_mb_runs_here)
{
#if defined(__x86_64__)
	/* the least that the library asks for */
	runs_here("ipsec-mb", __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("aes") &&
				      __builtin_cpu_supports("pclmul"));
#else
	runs_here("ipsec-mb", false);
#endif
}

Test(aead, libcrypto_runs_here)
{
	runs_here("libcrypto", false); /* a FIPS configuration does without the cipher */
}

Test(aead, libsodium_runs_here)
{
	runs_here("libsodium", true);
}

TestSuite(aead_backends, .init = open_backends, .fini = close_backends);

#define FOR_EACH_USABLE(aead)                                                                                \
	for (unsigned u_ = 0; u_ < nr_usable; u_++)                                                          \
		for (struct aead *aead = usable[u_]; aead; aead = NULL)

/* A train that is an array of segments. */
struct array_source {
	struct aead_seal_source source;
	const struct aead_seal_seg *segs;
	unsigned nr, i;
};

static bool array_next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct array_source *a = CONTAINER_OF(source, struct array_source, source);

	if (a->i == a->nr)
		return false;
	*seg = a->segs[a->i++];
	return true;
}

static unsigned seal(struct aead *aead, const uint8_t *key, uint64_t counter,
	const struct aead_seal_seg *segs, unsigned nr)
{
	struct array_source a = {{array_next}, segs, nr, 0};

	return aead->seal_train(aead, key, counter, &a.source);
}

static void seal_one(
	struct aead *aead, const uint8_t *key, uint64_t counter, uint8_t *dst, const uint8_t *src, size_t len)
{
	struct aead_seal_seg seg = {dst, src, (uint32_t)len};

	cr_assert_eq(seal(aead, key, counter, &seg, 1), 1);
}

static bool open_one(struct aead *aead, const uint8_t *key, uint64_t counter, uint8_t *data, size_t len)
{
	struct aead_open_seg seg = {data, (uint32_t)len, counter, len % 2};
	unsigned nr_ok = aead->open_train(aead, key, &seg, 1);

	cr_assert_eq(nr_ok, seg.ok);
	return seg.ok;
}

/* What WireGuard's transport writes, said once more without the code under test. */
static void expect(uint8_t *dst, const uint8_t *key, uint64_t counter, const uint8_t *src, size_t len)
{
	uint8_t nonce[12] = {0};

	for (unsigned i = 0; i < 8; i++)
		nonce[4 + i] = (uint8_t)(counter >> 8 * i);
	crypto_aead_chacha20poly1305_ietf_encrypt(dst, NULL, src, len, NULL, 0, NULL, nonce, key);
}

static uint64_t some_counter(struct random *r)
{
	uint64_t v = random_next(r);

	return v >> (random_next(r) % 64);
}

/* Tag and BLAKE2s of the whole ciphertext, from an independent implementation in Python. */
Test(aead_backends, match_an_independent_implementation)
{
	static const struct {
		size_t len;
		uint64_t counter;
		const char *tag, *hash;
	} known[] = {
		{0, 0, "3ae5d3f2a376d317eaea5aef0215ba54",
			"38575b0c4717a39ed39f0c444b2dc05fa55d2d83d438bb258b6e80b7077f7544"},
		{1, 1, "4df6c71bc8df0f57033a1a7289e52747",
			"524321ecbdf9422afffe4726da2d24e311556e9ba09f0970bd7370975e22a87b"},
		{64, UINT64_C(0x100000000), "211c4fde10e9ca40826e88bdbd64aab5",
			"c5149de5f2354d127b863410c58fdb156e8ac5e18f213c06833afd6988d3be9a"},
		{255, UINT64_C(0xffffffffffffdffe), "5b4fc2743eba1a1981ec9df0fac277c2",
			"8e33a69ddd74615c5434700e1b4f85815dc7dbe880838375fa67862d2ce9f9e8"},
		{1420, UINT64_C(0x123456789abcdef0), "997ec3138ce3ff8ae689cf77c4b7c56f",
			"b3a3743895a3ff08ebf4f944c964b78873aee6099c80ba769187c5c9cc7c0da7"},
	};
	uint8_t key[AEAD_KEY_BYTES], src[LEN_MAX], dst[LEN_MAX + AEAD_TAG_BYTES], hash[32];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(0x80 + i);
	FOR_EACH_USABLE(aead)
	{
		for (size_t k = 0; k < ARRAY_LEN(known); k++) {
			for (size_t i = 0; i < known[k].len; i++)
				src[i] = (uint8_t)(i * 7 + known[k].len);
			seal_one(aead, key, known[k].counter, dst, src, known[k].len);
			assert_hex(dst + known[k].len, AEAD_TAG_BYTES, known[k].tag, aead->backend->name);
			blake2s_hash(hash, dst, known[k].len + AEAD_TAG_BYTES, NULL, 0);
			assert_hex(hash, sizeof(hash), known[k].hash, aead->backend->name);
			cr_assert(open_one(aead, key, known[k].counter, dst, known[k].len + AEAD_TAG_BYTES));
			cr_assert_arr_eq(dst, src, known[k].len);
		}
	}
}

Test(aead_backends, give_the_same_bytes_at_every_length)
{
	static uint8_t src[LEN_MAX], copy[LEN_MAX], want[LEN_MAX + AEAD_TAG_BYTES];
	static uint8_t dst[LEN_MAX + AEAD_TAG_BYTES + GUARD], guard[GUARD];
	uint8_t key[AEAD_KEY_BYTES];
	struct random random;

	random_init(&random, "aead lengths");
	memset(guard, 0x5a, sizeof(guard));
	for (size_t len = 0; len <= LEN_MAX; len++) {
		uint64_t counter = some_counter(&random);

		random_fill(&random, key, sizeof(key));
		random_fill(&random, src, len);
		memcpy(copy, src, len);
		expect(want, key, counter, src, len);
		FOR_EACH_USABLE(aead)
		{
			const char *name = aead->backend->name;
			size_t sealed = len + AEAD_TAG_BYTES;

			/* out of place */
			memset(dst, 0x5a, sizeof(dst));
			seal_one(aead, key, counter, dst, src, len);
			cr_assert_arr_eq(dst, want, sealed, "%s, %zu bytes, counter %lu", name, len, counter);
			cr_assert_arr_eq(
				dst + sealed, guard, GUARD, "%s, %zu bytes: wrote past the tag", name, len);
			cr_assert_arr_eq(src, copy, len, "%s, %zu bytes: changed its source", name, len);
			/* in place */
			memset(dst, 0x5a, sizeof(dst));
			memcpy(dst, src, len);
			seal_one(aead, key, counter, dst, dst, len);
			cr_assert_arr_eq(dst, want, sealed, "%s, %zu bytes in place", name, len);
			cr_assert_arr_eq(dst + sealed, guard, GUARD);
			/* and back */
			cr_assert(open_one(aead, key, counter, dst, sealed), "%s, %zu bytes", name, len);
			cr_assert_arr_eq(dst, src, len, "%s, %zu bytes opened", name, len);
			cr_assert_arr_eq(dst + sealed, guard, GUARD);
			/* a changed tag */
			memcpy(dst, want, sealed);
			dst[len + random_next(&random) % AEAD_TAG_BYTES] ^= 1u << random_next(&random) % 8;
			cr_assert_not(
				open_one(aead, key, counter, dst, sealed), "%s, %zu bytes forged", name, len);
			cr_assert_arr_eq(dst + sealed, guard, GUARD);
			/* a changed counter */
			memcpy(dst, want, sealed);
			cr_assert_not(open_one(
				aead, key, counter ^ UINT64_C(1) << random_next(&random) % 64, dst, sealed));
			/* a changed text */
			if (len > 0) {
				memcpy(dst, want, sealed);
				dst[random_next(&random) % len] ^= 1u << random_next(&random) % 8;
				cr_assert_not(open_one(aead, key, counter, dst, sealed));
			}
		}
	}
}

Test(aead_backends, take_any_alignment)
{
	static uint8_t src[LEN_MAX + GUARD], dst[LEN_MAX + AEAD_TAG_BYTES + GUARD],
		want[LEN_MAX + AEAD_TAG_BYTES];
	uint8_t key[AEAD_KEY_BYTES];
	struct random random;

	random_init(&random, "aead alignment");
	random_fill(&random, src, sizeof(src));
	random_fill(&random, key, sizeof(key));
	FOR_EACH_USABLE(aead)
	{
		for (unsigned step = 0; step < 2000; step++) {
			size_t len = random_next(&random) % 300, from = random_next(&random) % GUARD,
			       to = random_next(&random) % GUARD;

			expect(want, key, step, src + from, len);
			seal_one(aead, key, step, dst + to, src + from, len);
			cr_assert_arr_eq(dst + to, want, len + AEAD_TAG_BYTES);
			cr_assert(open_one(aead, key, step, dst + to, len + AEAD_TAG_BYTES));
			cr_assert_arr_eq(dst + to, src + from, len);
		}
	}
}

Test(aead_backends, count_nonces_across_32_bits)
{
	enum { NR = 8 };
	static uint8_t src[100], dst[NR][sizeof(src) + AEAD_TAG_BYTES], want[sizeof(src) + AEAD_TAG_BYTES];
	static const uint64_t starts[] = {0, UINT32_MAX - 3,
		UINT64_C(0xfffffffffffffff0) - (UINT64_C(1) << 13), UINT64_C(0x7ffffffffffffffd)};
	uint8_t key[AEAD_KEY_BYTES] = {9};
	struct aead_seal_seg segs[NR];

	for (unsigned i = 0; i < NR; i++)
		segs[i] = (struct aead_seal_seg){dst[i], src, sizeof(src)};
	FOR_EACH_USABLE(aead)
	{
		for (size_t s = 0; s < ARRAY_LEN(starts); s++) {
			cr_assert_eq(seal(aead, key, starts[s], segs, NR), NR);
			for (unsigned i = 0; i < NR; i++) {
				expect(want, key, starts[s] + i, src, sizeof(src));
				cr_assert_arr_eq(dst[i], want, sizeof(want), "%s, %lu + %u",
					aead->backend->name, starts[s], i);
			}
		}
	}
}

Test(aead_backends, seal_no_segment_of_an_empty_train)
{
	uint8_t key[AEAD_KEY_BYTES] = {0};

	FOR_EACH_USABLE(aead)
	{
		cr_assert_eq(seal(aead, key, 0, NULL, 0), 0);
		cr_assert_eq(aead->open_train(aead, key, NULL, 0), 0);
	}
}

/*
 * The egress path's trick: the header of segment i + 1 goes over the tail of segment i, which is sealed by
 * then.
 */
#define HEADER 40
#define PAYLOAD 300
#define SEGMENTS 20

struct split_source {
	struct aead_seal_source source;
	uint8_t *packet; /* HEADER bytes, then SEGMENTS payloads */
	uint8_t (*dst)[HEADER + PAYLOAD + AEAD_TAG_BYTES];
	unsigned i;
};

static bool split_next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct split_source *s = CONTAINER_OF(source, struct split_source, source);

	if (s->i == SEGMENTS)
		return false;
	*seg = (struct aead_seal_seg){s->dst[s->i], s->packet + s->i * PAYLOAD, HEADER + PAYLOAD};
	memset(s->packet + s->i * PAYLOAD, (int)s->i, HEADER);
	s->i++;
	return true;
}

Test(aead_backends, finish_a_segment_before_asking_for_the_next)
{
	static uint8_t packet[HEADER + SEGMENTS * PAYLOAD], original[sizeof(packet)];
	static uint8_t dst[SEGMENTS][HEADER + PAYLOAD + AEAD_TAG_BYTES];
	uint8_t key[AEAD_KEY_BYTES], plain[HEADER + PAYLOAD], want[HEADER + PAYLOAD + AEAD_TAG_BYTES];
	struct random random;

	random_init(&random, "aead split");
	random_fill(&random, key, sizeof(key));
	random_fill(&random, original, sizeof(original));
	FOR_EACH_USABLE(aead)
	{
		struct split_source s = {{split_next}, packet, dst, 0};

		memcpy(packet, original, sizeof(packet));
		cr_assert_eq(aead->seal_train(aead, key, 77, &s.source), SEGMENTS);
		for (unsigned i = 0; i < SEGMENTS; i++) {
			memset(plain, (int)i, HEADER);
			memcpy(plain + HEADER, original + HEADER + i * PAYLOAD, PAYLOAD);
			expect(want, key, 77 + i, plain, sizeof(plain));
			cr_assert_arr_eq(dst[i], want, sizeof(want), "%s segment %u", aead->backend->name, i);
		}
	}
}

Test(aead_backends, judge_each_segment_of_a_train_by_itself)
{
	enum { NR = 64, LEN = 200 };
	static uint8_t data[NR][LEN + AEAD_TAG_BYTES], src[LEN];
	uint8_t key[AEAD_KEY_BYTES];
	struct aead_open_seg segs[NR];
	struct random random;

	random_init(&random, "aead train");
	random_fill(&random, key, sizeof(key));
	random_fill(&random, src, sizeof(src));
	FOR_EACH_USABLE(aead)
	{
		for (unsigned round = 0; round < 200; round++) {
			bool forged[NR];
			unsigned nr_good = 0;

			for (unsigned i = 0; i < NR; i++) {
				segs[i] = (struct aead_open_seg){
					data[i], sizeof(data[i]), some_counter(&random), false};
				expect(data[i], key, segs[i].counter, src, sizeof(src));
				forged[i] = random_next(&random) % 4 == 0;
				if (forged[i])
					data[i][random_next(&random) % sizeof(data[i])] ^=
						1u << random_next(&random) % 8;
				nr_good += !forged[i];
			}
			cr_assert_eq(aead->open_train(aead, key, segs, NR), nr_good);
			for (unsigned i = 0; i < NR; i++) {
				cr_assert_eq(segs[i].ok, !forged[i]);
				if (segs[i].ok)
					cr_assert_arr_eq(data[i], src, sizeof(src));
			}
		}
	}
}

Test(aead_backends, reject_every_single_bit_of_a_tag)
{
	uint8_t key[AEAD_KEY_BYTES] = {3}, src[48] = {1}, sealed[sizeof(src) + AEAD_TAG_BYTES],
		data[sizeof(sealed)];

	expect(sealed, key, 5, src, sizeof(src));
	FOR_EACH_USABLE(aead)
	{
		for (unsigned bit = 0; bit < 8 * sizeof(sealed); bit++) {
			memcpy(data, sealed, sizeof(data));
			data[bit / 8] ^= 1u << bit % 8;
			cr_assert_not(open_one(aead, key, 5, data, sizeof(data)), "%s bit %u",
				aead->backend->name, bit);
		}
	}
}

Test(aead_backends, reject_what_is_shorter_than_a_tag)
{
	uint8_t key[AEAD_KEY_BYTES] = {3}, data[AEAD_TAG_BYTES + 1] = {0};

	FOR_EACH_USABLE(aead)
	for (size_t len = 0; len <= sizeof(data); len++)
		cr_assert_not(open_one(aead, key, 0, data, len));
}

Test(aead_backends, change_keys_and_direction_between_trains)
{
	uint8_t key[2][AEAD_KEY_BYTES] = {{1}, {2}}, src[99] = {7}, dst[sizeof(src) + AEAD_TAG_BYTES],
		want[sizeof(dst)];

	FOR_EACH_USABLE(aead)
	{
		for (unsigned i = 0; i < 100; i++) {
			expect(want, key[i % 2], i, src, sizeof(src));
			seal_one(aead, key[i % 2], i, dst, src, sizeof(src));
			cr_assert_arr_eq(dst, want, sizeof(want));
			cr_assert_not(open_one(aead, key[(i + 1) % 2], i, dst, sizeof(dst)));
			memcpy(dst, want, sizeof(dst));
			cr_assert(open_one(aead, key[i % 2], i, dst, sizeof(dst)));
		}
	}
}

Test(aead, backends_are_found_by_name)
{
	for (unsigned i = 0; aead_backends[i]; i++)
		cr_assert_eq(aead_find(aead_backends[i]->name), aead_backends[i]);
	cr_assert_not_null(aead_find("libsodium"));
	cr_assert_null(aead_find("rot13"));
	cr_assert_null(aead_find(""));
	aead_free(NULL);
}

Test(aead, fastest_is_the_best_of_the_reported)
{
	struct aead_result results[AEAD_BACKENDS_MAX];
	unsigned nr = 0;
	const struct aead_backend *fastest = aead_fastest(results, &nr);
	double best = 0;
	const char *name = NULL;

	cr_assert_geq(nr, 1);
	for (unsigned i = 0; i < nr; i++) {
		cr_assert_str_eq(results[i].name, aead_backends[i]->name);
		fprintf(stderr, "%s: %.2f Gbit/s\n", results[i].name, results[i].bytes_per_sec * 8 / 1e9);
		if (results[i].bytes_per_sec > best) {
			best = results[i].bytes_per_sec;
			name = results[i].name;
		}
	}
	cr_assert_null(aead_backends[nr]);
	cr_assert_not_null(name);
	cr_assert_str_eq(fastest->name, name);
	cr_assert_not_null(aead_fastest(NULL, NULL));
}

/*
 * The cipher that the handshake uses and that every backend was compared with above: libsodium's, by its
 * vectors.
 */

Test(aead, reference_matches_rfc_8439)
{
	static const char text[] =
		"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
		"future, sunscreen would be it.";
	uint8_t key[32], nonce[12], ad[12], out[sizeof(text) - 1 + 16];

	HEX(key, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
	HEX(nonce, "070000004041424344454647");
	HEX(ad, "50515253c0c1c2c3c4c5c6c7");
	crypto_aead_chacha20poly1305_ietf_encrypt(
		out, NULL, (const uint8_t *)text, sizeof(text) - 1, ad, sizeof(ad), NULL, nonce, key);
	assert_hex(out, sizeof(out),
		"d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92"
		"728b"
		"1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831"
		"d7bc"
		"3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
		"RFC 8439, section 2.8.2");
}

Test(aead, reference_matches_the_xchacha20_draft)
{
	static const char text[] =
		"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
		"future, sunscreen would be it.";
	uint8_t key[32], nonce[24], ad[12], out[sizeof(text) - 1 + 16];

	HEX(key, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
	HEX(nonce, "404142434445464748494a4b4c4d4e4f5051525354555657");
	HEX(ad, "50515253c0c1c2c3c4c5c6c7");
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		out, NULL, (const uint8_t *)text, sizeof(text) - 1, ad, sizeof(ad), NULL, nonce, key);
	assert_hex(out, sizeof(out),
		"bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda"
		"7e39"
		"ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3"
		"fff9"
		"21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49",
		"draft-irtf-cfrg-xchacha-03, A.3.1");
}

typedef int decrypt_fn(unsigned char *m, unsigned char *nsec, const unsigned char *c, unsigned long long clen,
	const unsigned char *mac, const unsigned char *ad, unsigned long long adlen,
	const unsigned char *npub, const unsigned char *k);

/* Nonces of another size than this cipher's cannot even be asked for here; such cases must be invalid ones. */
static void run_wycheproof(const char *file, size_t nonce_bytes, decrypt_fn *decrypt, unsigned nr_expected,
	unsigned nr_other_expected)
{
	enum { RESULT = 1, KEY, NONCE, AD, MSG, CT, TAG };
	uint8_t key[32], nonce[64], ad[1024], msg[1024], ct[1024], tag[AEAD_TAG_BYTES], out[1024];
	struct vector_file v;
	unsigned nr = 0, nr_other = 0;

	vector_open(&v, file);
	while (vector_next(&v)) {
		bool valid = strcmp(vector_text(&v, RESULT), "valid") == 0;
		size_t nonce_len = vector_bytes(&v, NONCE, nonce, sizeof(nonce));
		size_t ad_len = vector_bytes(&v, AD, ad, sizeof(ad));
		size_t msg_len = vector_bytes(&v, MSG, msg, sizeof(msg));
		size_t ct_len = vector_bytes(&v, CT, ct, sizeof(ct));

		if (nonce_len != nonce_bytes) {
			cr_assert_str_eq(vector_text(&v, RESULT), "invalid");
			nr_other++;
			continue;
		}
		VECTOR_BYTES(&v, KEY, key);
		VECTOR_BYTES(&v, TAG, tag);
		cr_assert_eq(decrypt(out, NULL, ct, ct_len, tag, ad, ad_len, nonce, key) == 0, valid,
			"%s: test case %s", file, vector_text(&v, 0));
		if (valid) {
			cr_assert_eq(ct_len, msg_len);
			cr_assert_arr_eq(out, msg, msg_len);
		}
		nr++;
	}
	cr_assert_eq(nr, nr_expected);
	cr_assert_eq(nr_other, nr_other_expected);
}

Test(aead, reference_passes_wycheproof_chacha20)
{
	run_wycheproof("wycheproof_chacha20_poly1305.txt", 12,
		crypto_aead_chacha20poly1305_ietf_decrypt_detached, 316, 9);
}

Test(aead, reference_passes_wycheproof_xchacha20)
{
	run_wycheproof("wycheproof_xchacha20_poly1305.txt", 24,
		crypto_aead_xchacha20poly1305_ietf_decrypt_detached, 306, 9);
}
