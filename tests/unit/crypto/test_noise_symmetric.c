#include "support.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "crypto/noise_symmetric.h"

TestSuite(noise_symmetric, .init = support_init);

#define MESSAGE_MAX 256

struct blob {
	uint8_t bytes[MESSAGE_MAX];
	size_t len;
};

/*
 * One Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s vector: two handshake messages, then transport in both
 * directions.
 */
struct ikpsk2_vector {
	struct blob prologue;
	uint8_t psk[32];
	uint8_t init_static[32], init_ephemeral[32], resp_static[32], resp_ephemeral[32];
	uint8_t handshake_hash[32];
	unsigned nr_messages;
	struct {
		struct blob payload, ciphertext;
	} message[8];
};

static void public_of(uint8_t public_key[32], const uint8_t private_key[32])
{
	cr_assert_eq(crypto_scalarmult_base(public_key, private_key), 0);
}

/* -> e, es, s, ss: both ends do this together and must agree at each step. */
static void first_message(struct noise_symmetric *i, struct noise_symmetric *r, const struct ikpsk2_vector *v)
{
	const struct blob *payload = &v->message[0].payload, *want = &v->message[0].ciphertext;
	uint8_t wire[MESSAGE_MAX + 96], got[MESSAGE_MAX], init_public[32], resp_public[32];
	size_t len = 32 + 48 + payload->len + 16;

	public_of(init_public, v->init_static);
	public_of(resp_public, v->resp_static);
	public_of(wire, v->init_ephemeral);
	noise_symmetric_init(i, v->prologue.bytes, v->prologue.len);
	noise_symmetric_mix_hash(i, resp_public, 32);
	noise_symmetric_mix_ephemeral(i, wire);
	cr_assert_eq(noise_symmetric_mix_dh(i, v->init_ephemeral, resp_public), 0);
	noise_symmetric_seal(i, wire + 32, init_public, 32);
	cr_assert_eq(noise_symmetric_mix_dh(i, v->init_static, resp_public), 0);
	noise_symmetric_seal(i, wire + 80, payload->bytes, payload->len);
	cr_assert_eq(len, want->len);
	cr_assert_arr_eq(wire, want->bytes, len);

	noise_symmetric_init(r, v->prologue.bytes, v->prologue.len);
	noise_symmetric_mix_hash(r, resp_public, 32);
	noise_symmetric_mix_ephemeral(r, wire);
	cr_assert_eq(noise_symmetric_mix_dh(r, v->resp_static, wire), 0);
	cr_assert_eq(noise_symmetric_open(r, got, wire + 32, 48), 0);
	cr_assert_arr_eq(got, init_public, 32);
	cr_assert_eq(noise_symmetric_mix_dh(r, v->resp_static, got), 0);
	cr_assert_eq(noise_symmetric_open(r, got, wire + 80, payload->len + 16), 0);
	cr_assert_arr_eq(got, payload->bytes, payload->len);
}

/* <- e, ee, se, psk */
static void second_message(
	struct noise_symmetric *i, struct noise_symmetric *r, const struct ikpsk2_vector *v)
{
	const struct blob *payload = &v->message[1].payload, *want = &v->message[1].ciphertext;
	uint8_t wire[MESSAGE_MAX + 96], got[MESSAGE_MAX], init_public[32], init_ephemeral_public[32];
	size_t len = 32 + payload->len + 16;

	public_of(init_public, v->init_static);
	public_of(init_ephemeral_public, v->init_ephemeral);
	public_of(wire, v->resp_ephemeral);
	noise_symmetric_mix_ephemeral(r, wire);
	cr_assert_eq(noise_symmetric_mix_dh(r, v->resp_ephemeral, init_ephemeral_public), 0);
	cr_assert_eq(noise_symmetric_mix_dh(r, v->resp_ephemeral, init_public), 0);
	noise_symmetric_mix_psk(r, v->psk);
	noise_symmetric_seal(r, wire + 32, payload->bytes, payload->len);
	cr_assert_eq(len, want->len);
	cr_assert_arr_eq(wire, want->bytes, len);

	noise_symmetric_mix_ephemeral(i, wire);
	cr_assert_eq(noise_symmetric_mix_dh(i, v->init_ephemeral, wire), 0);
	cr_assert_eq(noise_symmetric_mix_dh(i, v->init_static, wire), 0);
	noise_symmetric_mix_psk(i, v->psk);
	cr_assert_eq(noise_symmetric_open(i, got, wire + 32, payload->len + 16), 0);
	cr_assert_arr_eq(got, payload->bytes, payload->len);
}

static void run_vector(const struct ikpsk2_vector *v)
{
	struct noise_symmetric i, r;
	uint8_t key[2][32], other[2][32];

	first_message(&i, &r, v);
	second_message(&i, &r, v);
	cr_assert_arr_eq(i.hash, v->handshake_hash, 32);
	cr_assert_arr_eq(r.hash, v->handshake_hash, 32);
	noise_symmetric_split(i.chaining_key, key[0], key[1]);
	noise_symmetric_split(r.chaining_key, other[0], other[1]);
	cr_assert_arr_eq(key, other, sizeof(key));
	/* Message 2 is the initiator's first, 3 the responder's, and so on. */
	for (unsigned m = 2; m < v->nr_messages; m++) {
		const struct blob *payload = &v->message[m].payload, *want = &v->message[m].ciphertext;
		uint8_t nonce[12] = {0}, got[MESSAGE_MAX + 16];

		nonce[4] = (uint8_t)((m - 2) / 2);
		crypto_aead_chacha20poly1305_ietf_encrypt(
			got, NULL, payload->bytes, payload->len, NULL, 0, NULL, nonce, key[m % 2]);
		cr_assert_eq(payload->len + 16, want->len);
		cr_assert_arr_eq(got, want->bytes, want->len, "message %u", m);
	}
}

static void blob_hex(struct blob *b, const char *text)
{
	b->len = hex(b->bytes, sizeof(b->bytes), text);
}

static void blob_read(struct blob *b, const struct vector_file *file, unsigned field)
{
	b->len = vector_bytes(file, field, b->bytes, sizeof(b->bytes));
}

/* The handshake of the cacophony project's vector. */
Test(noise_symmetric, completes_the_published_handshake)
{
	static struct ikpsk2_vector v = {.nr_messages = 4};

	blob_hex(&v.prologue, "4a6f686e2047616c74");
	HEX(v.psk, "54686973206973206d7920417573747269616e20706572737065637469766521");
	HEX(v.init_static, "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1");
	HEX(v.init_ephemeral, "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a");
	HEX(v.resp_static, "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893");
	HEX(v.resp_ephemeral, "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b");
	HEX(v.handshake_hash, "f5191b875290abcd41347ac3622d9679688a7e980229cb937ef748336cfde0e5");
	blob_hex(&v.message[0].payload, "4c756477696720766f6e204d69736573");
	blob_hex(&v.message[0].ciphertext, "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79440"
					   "01e21de9f98ddd8e2ad57527207feb5"
					   "6253c9c94a9e496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab500098"
					   "0c84831215f2441eba616548e832985"
					   "464cf17e51ee93109008399a21f7e13f");
	blob_hex(&v.message[1].payload, "4d757272617920526f746862617264");
	blob_hex(&v.message[1].ciphertext, "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843c"
					   "b765f2caef0751b8f007572dab03222"
					   "17755c0632f365717edbf34d33e87a");
	blob_hex(&v.message[2].payload, "462e20412e20486179656b");
	blob_hex(&v.message[2].ciphertext, "8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7");
	blob_hex(&v.message[3].payload, "4361726c204d656e676572");
	blob_hex(&v.message[3].ciphertext, "07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef");
	run_vector(&v);
}

Test(noise_symmetric, completes_the_whole_published_file)
{
	static struct ikpsk2_vector v;
	const struct {
		const char *name;
		uint8_t *key;
	} keys[] = {
		{"psk", v.psk},
		{"init_static", v.init_static},
		{"init_ephemeral", v.init_ephemeral},
		{"resp_static", v.resp_static},
		{"resp_ephemeral", v.resp_ephemeral},
		{"handshake_hash", v.handshake_hash},
	};
	unsigned nr_keys = 0;
	struct vector_file file;

	vector_open(&file, "noise_ikpsk2.txt");
	while (vector_next(&file)) {
		const char *name = vector_text(&file, 0);

		if (strcmp(name, "prologue") == 0) {
			blob_read(&v.prologue, &file, 1);
		} else if (strcmp(name, "message") == 0) {
			cr_assert_lt(v.nr_messages, ARRAY_LEN(v.message));
			blob_read(&v.message[v.nr_messages].payload, &file, 1);
			blob_read(&v.message[v.nr_messages].ciphertext, &file, 2);
			v.nr_messages++;
		} else {
			cr_assert_lt(nr_keys, ARRAY_LEN(keys));
			cr_assert_str_eq(name, keys[nr_keys].name);
			cr_assert_eq(vector_bytes(&file, 1, keys[nr_keys].key, 32), 32, "%s", name);
			nr_keys++;
		}
	}
	cr_assert_eq(nr_keys, ARRAY_LEN(keys));
	cr_assert_eq(v.nr_messages, 6);
	run_vector(&v);
}

static void assert_dh(const uint8_t private_key[32], const uint8_t public_key[32], const uint8_t shared[32])
{
	struct noise_symmetric a, b, before;
	int r;

	noise_symmetric_init(&a, "x", 1);
	b = before = a;
	r = noise_symmetric_mix_dh(&a, private_key, public_key);
	if (sodium_is_zero(shared, 32)) {
		cr_assert_eq(r, -EKEYREJECTED);
		cr_assert_arr_eq(&a, &before, sizeof(a));
		return;
	}
	cr_assert_eq(r, 0);
	noise_symmetric_mix_key(&b, shared);
	cr_assert_arr_eq(&a, &b, sizeof(a));
	cr_assert_arr_neq(&a, &before, sizeof(a));
}

Test(noise_symmetric, exchanges_keys_as_in_rfc_7748)
{
	static const char *const vector[][3] = {
		/* section 5.2 */
		{"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
			"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
			"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
		{"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
			"e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
			"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
		/* its first iteration: base point times base point */
		{"0900000000000000000000000000000000000000000000000000000000000000",
			"0900000000000000000000000000000000000000000000000000000000000000",
			"422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"},
	};
	uint8_t private_key[32], public_key[32], shared[32];

	for (size_t i = 0; i < ARRAY_LEN(vector); i++) {
		HEX(private_key, vector[i][0]);
		HEX(public_key, vector[i][1]);
		HEX(shared, vector[i][2]);
		assert_dh(private_key, public_key, shared);
	}
}

Test(noise_symmetric, exchanges_keys_as_in_wycheproof)
{
	uint8_t private_key[32], public_key[32], shared[32];
	unsigned nr = 0, nr_rejected = 0;
	struct vector_file v;

	vector_open(&v, "wycheproof_x25519.txt");
	while (vector_next(&v)) {
		VECTOR_BYTES(&v, 1, private_key);
		VECTOR_BYTES(&v, 2, public_key);
		VECTOR_BYTES(&v, 3, shared);
		assert_dh(private_key, public_key, shared);
		nr++;
		nr_rejected += sodium_is_zero(shared, 32);
	}
	cr_assert_eq(nr, 518);
	cr_assert_eq(nr_rejected, 31);
}

Test(noise_symmetric, opens_only_what_was_sealed_in_the_same_state)
{
	struct noise_symmetric a, b;
	uint8_t text[20] = "some text", sealed[sizeof(text) + 16], got[sizeof(text)];
	uint8_t psk[32] = {1};

	noise_symmetric_init(&a, "p", 1);
	noise_symmetric_mix_psk(&a, psk);
	b = a;
	noise_symmetric_seal(&a, sealed, text, sizeof(text));
	for (size_t i = 0; i < sizeof(sealed); i++) {
		struct noise_symmetric before = b;

		sealed[i] ^= 0x40;
		cr_assert_eq(noise_symmetric_open(&b, got, sealed, sizeof(sealed)), -EBADMSG);
		cr_assert_arr_eq(&b, &before, sizeof(b));
		sealed[i] ^= 0x40;
	}
	cr_assert_eq(noise_symmetric_open(&b, got, sealed, sizeof(sealed)), 0);
	cr_assert_arr_eq(got, text, sizeof(text));
	cr_assert_arr_eq(&a, &b, sizeof(a));
	noise_symmetric_zero(&a);
	cr_assert(sodium_is_zero((const uint8_t *)&a, sizeof(a)));
}
