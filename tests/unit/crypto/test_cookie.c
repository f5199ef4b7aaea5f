#include "support.h"

#include <errno.h>
#include <sodium.h>

#include "crypto/cookie.h"

/* 192.0.2.1:51820 and its neighbour's port. */
static const uint8_t source[6] = {192, 0, 2, 1, 0xca, 0x6c};
static const uint8_t other_port[6] = {192, 0, 2, 1, 0xca, 0x6d};
static const uint8_t other_address[6] = {192, 0, 2, 2, 0xca, 0x6c};

static struct cookie_checker checker;
static struct cookie_jar jar;
static struct wire_initiation msg;
static struct wire_cookie reply;

#define START_NS (UINT64_C(1000) * NS_PER_SEC)

static void set_up(void)
{
	uint8_t public_key[32];

	support_init();
	randombytes_buf(public_key, sizeof(public_key));
	memset(&checker, 0, sizeof(checker));
	cookie_checker_set_key(&checker, public_key);
	cookie_jar_init(&jar, public_key);
	randombytes_buf(&msg, sizeof(msg));
	store_le32(&msg.type, WIRE_INITIATION);
}

TestSuite(cookies, .init = set_up);

static enum cookie_verdict verify_from(const uint8_t from[6], uint64_t now_ns)
{
	return cookie_checker_verify(&checker, &msg, sizeof(msg), from, 6, true, now_ns);
}

/* One round: the jar's owner gets its cookie. */
static void exchange(uint64_t now_ns)
{
	cookie_jar_sign(&jar, &msg, sizeof(msg), now_ns);
	cookie_reply_create(
		&checker, &reply, &msg, sizeof(msg), load_le32(&msg.sender), source, sizeof(source), now_ns);
	cr_assert_eq(cookie_jar_consume(&jar, &reply, now_ns), 0);
	cookie_jar_sign(&jar, &msg, sizeof(msg), now_ns);
}

Test(cookies, mac1_is_checked_over_every_byte_before_it)
{
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cr_assert(sodium_is_zero(msg.mac2, sizeof(msg.mac2)));
	cr_assert_eq(verify_from(source, START_NS), COOKIE_MAC1_ONLY);
	for (size_t i = 0; i < offsetof(struct wire_initiation, mac2); i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			((uint8_t *)&msg)[i] ^= 1u << bit;
			cr_assert_eq(verify_from(source, START_NS), COOKIE_BAD_MAC1, "byte %zu", i);
			((uint8_t *)&msg)[i] ^= 1u << bit;
		}
	}
	cr_assert_eq(verify_from(source, START_NS), COOKIE_MAC1_ONLY);
}

Test(cookies, mac1_of_another_key_is_bad)
{
	uint8_t public_key[32] = {1};

	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cookie_checker_set_key(&checker, public_key);
	cr_assert_eq(verify_from(source, START_NS), COOKIE_BAD_MAC1);
}

Test(cookies, mac2_proves_address_and_port)
{
	exchange(START_NS);
	cr_assert_not(sodium_is_zero(msg.mac2, sizeof(msg.mac2)));
	cr_assert_eq(verify_from(source, START_NS), COOKIE_MAC2_VALID);
	cr_assert_eq(verify_from(other_port, START_NS), COOKIE_MAC1_ONLY);
	cr_assert_eq(verify_from(other_address, START_NS), COOKIE_MAC1_ONLY);
	/* Not under load nobody looks. */
	cr_assert_eq(
		cookie_checker_verify(&checker, &msg, sizeof(msg), source, sizeof(source), false, START_NS),
		COOKIE_MAC1_ONLY);
}

Test(cookies, mac2_is_checked_in_every_bit)
{
	exchange(START_NS);
	for (size_t i = 0; i < sizeof(msg.mac2); i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			msg.mac2[i] ^= 1u << bit;
			cr_assert_eq(verify_from(source, START_NS), COOKIE_MAC1_ONLY);
			msg.mac2[i] ^= 1u << bit;
		}
	}
	cr_assert_eq(verify_from(source, START_NS), COOKIE_MAC2_VALID);
}

Test(cookies, responses_carry_macs_too)
{
	struct wire_response response;

	randombytes_buf(&response, sizeof(response));
	exchange(START_NS);
	cookie_jar_sign(&jar, &response, sizeof(response), START_NS);
	cr_assert_eq(cookie_checker_verify(
			     &checker, &response, sizeof(response), source, sizeof(source), true, START_NS),
		COOKIE_MAC2_VALID);
	response.empty[3] ^= 1;
	cr_assert_eq(cookie_checker_verify(
			     &checker, &response, sizeof(response), source, sizeof(source), true, START_NS),
		COOKIE_BAD_MAC1);
}

Test(cookies, ipv6_sources_are_told_apart)
{
	uint8_t from[18] = {0x20, 0x01, 0x0d, 0xb8};

	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cookie_reply_create(&checker, &reply, &msg, sizeof(msg), 1, from, sizeof(from), START_NS);
	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS), 0);
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	for (size_t i = 0; i < sizeof(from); i++) {
		cr_assert_eq(cookie_checker_verify(
				     &checker, &msg, sizeof(msg), from, sizeof(from), true, START_NS),
			COOKIE_MAC2_VALID);
		from[i] ^= 0x10;
		cr_assert_eq(cookie_checker_verify(
				     &checker, &msg, sizeof(msg), from, sizeof(from), true, START_NS),
			COOKIE_MAC1_ONLY);
		from[i] ^= 0x10;
	}
}

Test(cookies, secret_lives_120_seconds)
{
	uint8_t old_secret[32];

	exchange(START_NS);
	memcpy(old_secret, checker.secret, sizeof(old_secret));
	cr_assert_eq(verify_from(source, START_NS + 120 * NS_PER_SEC - 1), COOKIE_MAC2_VALID);
	cr_assert_eq(verify_from(source, START_NS + 120 * NS_PER_SEC), COOKIE_MAC1_ONLY);

	/* The next reply is made of a new secret, and a message with the old cookie stays worth nothing. */
	cookie_reply_create(
		&checker, &reply, &msg, sizeof(msg), 1, source, sizeof(source), START_NS + 120 * NS_PER_SEC);
	cr_assert_arr_neq(checker.secret, old_secret, sizeof(old_secret));
	cr_assert_eq(verify_from(source, START_NS + 120 * NS_PER_SEC), COOKIE_MAC1_ONLY);
	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS + 120 * NS_PER_SEC), 0);
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS + 120 * NS_PER_SEC);
	cr_assert_eq(verify_from(source, START_NS + 120 * NS_PER_SEC), COOKIE_MAC2_VALID);
}

Test(cookies, secret_is_kept_while_it_is_fresh)
{
	uint8_t secret[32];

	exchange(START_NS);
	memcpy(secret, checker.secret, sizeof(secret));
	exchange(START_NS + 119 * NS_PER_SEC);
	cr_assert_arr_eq(checker.secret, secret, sizeof(secret));
	cr_assert_eq(checker.secret_born_ns, START_NS);
}

Test(cookies, jar_uses_a_cookie_for_115_seconds)
{
	exchange(START_NS);
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS + 115 * NS_PER_SEC - 1);
	cr_assert_not(sodium_is_zero(msg.mac2, sizeof(msg.mac2)));
	cr_assert_eq(verify_from(source, START_NS + 115 * NS_PER_SEC - 1), COOKIE_MAC2_VALID);
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS + 115 * NS_PER_SEC);
	cr_assert(sodium_is_zero(msg.mac2, sizeof(msg.mac2)));
}

Test(cookies, work_from_the_first_nanosecond_of_the_clock)
{
	exchange(0);
	cr_assert_eq(verify_from(source, 0), COOKIE_MAC2_VALID);
}

Test(cookies, nothing_passes_before_a_secret_exists)
{
	memset(&msg.mac2, 0, sizeof(msg.mac2));
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cr_assert_eq(verify_from(source, START_NS), COOKIE_MAC1_ONLY);
	cr_assert_eq(checker.secret_born_ns, 0);
}

Test(cookies, reply_is_bound_to_the_last_mac1)
{
	struct cookie_jar before;
	struct wire_cookie late;

	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS), -EINVAL);
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cookie_reply_create(&checker, &late, &msg, sizeof(msg), 1, source, sizeof(source), START_NS);
	msg.sender ^= 1;
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	before = jar;
	cr_assert_eq(cookie_jar_consume(&jar, &late, START_NS), -EBADMSG);
	cr_assert_arr_eq(&jar, &before, sizeof(jar));

	cookie_reply_create(&checker, &reply, &msg, sizeof(msg), 1, source, sizeof(source), START_NS);
	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS), 0);
	/* A replay of it would keep the cookie young for ever. */
	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS + 60 * NS_PER_SEC), -EINVAL);
	cr_assert_eq(jar.cookie_born_ns, START_NS);
}

Test(cookies, tampered_reply_changes_nothing)
{
	struct cookie_jar before;

	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cookie_reply_create(&checker, &reply, &msg, sizeof(msg), 1, source, sizeof(source), START_NS);
	before = jar;
	for (size_t i = offsetof(struct wire_cookie, nonce); i < sizeof(reply); i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			((uint8_t *)&reply)[i] ^= 1u << bit;
			cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS), -EBADMSG, "byte %zu", i);
			cr_assert_arr_eq(&jar, &before, sizeof(jar));
			((uint8_t *)&reply)[i] ^= 1u << bit;
		}
	}
	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS), 0);
}

Test(cookies, reply_is_smaller_than_its_cause_and_addressed)
{
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	cookie_reply_create(
		&checker, &reply, &msg, sizeof(msg), UINT32_C(0xcafe0001), source, sizeof(source), START_NS);
	cr_assert_eq(wire_classify(&reply, sizeof(reply)), WIRE_COOKIE);
	cr_assert_eq(load_le32(&reply.receiver), UINT32_C(0xcafe0001));
	cr_assert_lt(sizeof(reply), sizeof(struct wire_response));
}

/*
 * Computed by an independent implementation in Python: the initiation of test_noise.c, its reply and its
 * mac2.
 */
static void fixed_nonce(void *const buf, const size_t size)
{
	cr_assert_eq(size, WIRE_COOKIE_NONCE_BYTES);
	for (size_t i = 0; i < size; i++)
		((uint8_t *)buf)[i] = (uint8_t)(0x50 + i);
}

static const char *fixed_name(void)
{
	return "fixed";
}

static uint32_t fixed_random(void)
{
	return 0;
}

Test(cookies, reply_and_mac2_match_an_independent_implementation)
{
	struct randombytes_implementation fixed = {
		.implementation_name = fixed_name, .random = fixed_random, .buf = fixed_nonce};
	uint8_t public_key[32];

	HEX(public_key, "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466");
	memset(&msg, 0, sizeof(msg));
	hex((uint8_t *)&msg, sizeof(msg),
		"0100000044332211883186b800b41d5cf0429695da9b3cc4f328ebcd184a6e482fa578c103f06c77fa6ff1a71203"
		"eaf3"
		"05dc6260f1911ba7d914db25d127ce39ef62f6c6467fb8a777377a28376c744882e58802dabbe0882d2440df1460"
		"a78f"
		"48929ae06174ac89b6c05bd8bc7550fbc5715ce7");
	cookie_checker_set_key(&checker, public_key);
	for (size_t i = 0; i < sizeof(checker.secret); i++)
		checker.secret[i] = (uint8_t)(0x20 + i);
	checker.secret_born_ns = START_NS;
	cookie_jar_init(&jar, public_key);
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	assert_hex(msg.mac1, sizeof(msg.mac1), "1e592d3d18843ce8fb6ab604b2fed579", "mac1");

	randombytes_set_implementation(&fixed);
	cookie_reply_create(
		&checker, &reply, &msg, sizeof(msg), UINT32_C(0x11223344), source, sizeof(source), START_NS);
	assert_hex(&reply, sizeof(reply),
		"0300000044332211505152535455565758595a5b5c5d5e5f6061626364656667b58d924deda581d6c65b8e1cf7e2"
		"bbc0"
		"332761687fbe5466306d58d1ea19d7ab",
		"reply");
	cr_assert_eq(cookie_jar_consume(&jar, &reply, START_NS), 0);
	assert_hex(jar.cookie, sizeof(jar.cookie), "43e8afc193b0a02280b8727a5c7e75b3", "cookie");
	cookie_jar_sign(&jar, &msg, sizeof(msg), START_NS);
	assert_hex(msg.mac2, sizeof(msg.mac2), "c848ba8936e1c4ef387cefba4c0fad01", "mac2");
}
