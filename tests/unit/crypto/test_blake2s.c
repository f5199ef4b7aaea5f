#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#include "crypto/blake2s.h"

TestSuite(blake2s, .init = support_init);

static void fill(uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)i;
}

Test(blake2s, hashes_abc_as_in_rfc_7693)
{
	uint8_t out[BLAKE2S_BYTES];

	blake2s_hash(out, "abc", 3, NULL, 0);
	assert_hex(
		out, sizeof(out), "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982", "abc");
	blake2s_hash(out, "a", 1, "bc", 2);
	assert_hex(out, sizeof(out), "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
		"a || bc");
	blake2s_hash(out, NULL, 0, NULL, 0);
	assert_hex(out, sizeof(out), "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9",
		"nothing");
}

/* Of the known-answer file of the BLAKE2 authors: key and input count up from 0. */
Test(blake2s, macs_the_published_answers)
{
	static const struct {
		size_t len;
		const char *hash;
	} known[] = {
		{0, "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"},
		{1, "40d15fee7c328830166ac3f918650f807e7e01e177258cdc0a39b11f598066f1"},
		{3, "1d220dbe2ee134661fdf6d9e74b41704710556f2f6e5a091b227697445dbea6b"},
		{64, "8975b0577fd35566d750b362b0897a26c399136df07bababbde6203ff2954ed4"},
		{255, "3fb735061abc519dfe979e54c1ee5bfad0a9d858b3315bad34bde999efd724dd"},
	};
	uint8_t key[32], in[256], out[BLAKE2S_BYTES];

	fill(key, sizeof(key));
	fill(in, sizeof(in));
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		blake2s_mac(out, sizeof(out), key, sizeof(key), in, known[i].len);
		assert_hex(out, sizeof(out), known[i].hash, "keyed");
	}
}

Test(blake2s, macs_the_whole_published_file)
{
	struct vector_file v;
	uint8_t in[256], key[32], out[BLAKE2S_BYTES];
	unsigned nr = 0;

	fill(key, sizeof(key));
	fill(in, sizeof(in));
	vector_open(&v, "blake2s.txt");
	while (vector_next(&v)) {
		cr_assert_eq(strtoul(vector_text(&v, 0), NULL, 10), nr);
		blake2s_mac(out, sizeof(out), key, sizeof(key), in, nr);
		assert_hex(out, sizeof(out), vector_text(&v, 1), "keyed, from the file");
		nr++;
	}
	cr_assert_eq(nr, 256);
}

/* The expected values below come from Python's hashlib and hmac. */
Test(blake2s, shortens_macs_by_parameter_not_by_cutting)
{
	uint8_t out[16], whole[BLAKE2S_BYTES];

	blake2s_mac(out, sizeof(out), (const uint8_t *)"k", 1, "abc", 3);
	assert_hex(out, sizeof(out), "f335237426ff5582d0c607ef240684b5", "16-byte mac");
	blake2s_mac(whole, sizeof(whole), (const uint8_t *)"k", 1, "abc", 3);
	cr_assert_arr_neq(out, whole, sizeof(out));
}

Test(blake2s, hmacs_like_an_independent_implementation)
{
	static const char fox[] = "The quick brown fox jumps over the lazy dog";
	uint8_t key[64], in[200], out[BLAKE2S_BYTES];

	blake2s_hmac(out, (const uint8_t *)"key", 3, fox, sizeof(fox) - 1);
	assert_hex(
		out, sizeof(out), "f93215bb90d4af4c3061cd932fb169fb8bb8a91d0b4022baea1271e1323cd9a0", "fox");
	blake2s_hmac(out, NULL, 0, NULL, 0);
	assert_hex(out, sizeof(out), "eaf4bb25938f4d20e72656bbbc7a9bf63c0c18537333c35bdb67db1402661acd",
		"empty");
	fill(key, sizeof(key));
	fill(in, sizeof(in));
	blake2s_hmac(out, key, sizeof(key), in, sizeof(in));
	assert_hex(out, sizeof(out), "690ee478866a3698f0ed2e87e8b25fcb63e56f6c2e6baa69acec75b6d645d1ae",
		"block");
}

Test(blake2s, derives_keys_like_an_independent_implementation)
{
	static const char input[] = "input key material";
	uint8_t ck[32], one[32], two[32], three[32], again[32];

	fill(ck, sizeof(ck));
	blake2s_kdf(one, two, three, ck, input, sizeof(input) - 1);
	assert_hex(one, 32, "93e2a65883e34ac95485f5d0aa4b09163a4e944dab8cf9406d3a138e362851c6", "first");
	assert_hex(two, 32, "dd6fae42afdb2a41170f44dc5b885ec4cfd17c8dd324d38b390c548630dd0a83", "second");
	assert_hex(three, 32, "4125e0adfa9b7e736615e99dde6f3f0b64b949d8b480e82cab2e685dc286e45d", "third");
	blake2s_kdf(again, NULL, NULL, ck, input, sizeof(input) - 1);
	cr_assert_arr_eq(again, one, 32);
	blake2s_kdf(one, two, three, ck, NULL, 0);
	assert_hex(one, 32, "7a38c34bf2b8738d7374ca77c44ecb309a11d2b2528304fa86052c365e722624",
		"first of nothing");
	assert_hex(two, 32, "1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd",
		"second of nothing");
	assert_hex(three, 32, "4eaf02809ac4b930ef63479de62275f1c55656e61f78a3cc653c18a2223d6c5f",
		"third of nothing");
}

Test(blake2s, writes_over_its_own_inputs)
{
	uint8_t ck[32], expected[32], second[32], buffer[64];

	fill(ck, sizeof(ck));
	blake2s_kdf(expected, second, NULL, ck, "x", 1);
	blake2s_kdf(ck, second, NULL, ck, "x", 1);
	cr_assert_arr_eq(ck, expected, 32);

	fill(buffer, sizeof(buffer));
	blake2s_hash(expected, buffer, 32, buffer + 32, 32);
	blake2s_hash(buffer, buffer, 32, buffer + 32, 32);
	cr_assert_arr_eq(buffer, expected, 32);
}
