#include "support.h"

#include <errno.h>
#include <sodium.h>

#include "crypto/cookie.h"
#include "crypto/noise.h"

TestSuite(noise, .init = support_init);

/* Two ends that know each other. */
struct end {
	struct noise_identity id;
	struct noise_handshake hs;
};

static struct end initiator, responder;
static struct wire_initiation initiation;
static struct wire_response response;
static uint64_t now_ns = 1000 * NS_PER_SEC;

#define INITIATOR_INDEX UINT32_C(0x11223344)
#define RESPONDER_INDEX UINT32_C(0xa1b2c3d4)

static void meet(const uint8_t psk[32])
{
	uint8_t private_key[32];

	memset(&initiator, 0, sizeof(initiator));
	memset(&responder, 0, sizeof(responder));
	randombytes_buf(private_key, sizeof(private_key));
	noise_identity_set(&initiator.id, private_key);
	randombytes_buf(private_key, sizeof(private_key));
	noise_identity_set(&responder.id, private_key);
	memcpy(initiator.hs.remote_static, responder.id.public_key, 32);
	memcpy(responder.hs.remote_static, initiator.id.public_key, 32);
	if (psk) {
		memcpy(initiator.hs.preshared, psk, 32);
		memcpy(responder.hs.preshared, psk, 32);
	}
}

static void create_initiation(uint64_t realtime_ns)
{
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES];

	noise_tai64n(tai64n, realtime_ns);
	cr_assert_eq(
		noise_initiation_create(&initiator.hs, &initiator.id, INITIATOR_INDEX, tai64n, &initiation),
		0);
	cr_assert_eq(initiator.hs.state, NOISE_CREATED_INITIATION);
}

static int consume_initiation(const struct wire_initiation *msg)
{
	struct noise_initiation_open open;
	int r = noise_initiation_open(&open, &responder.id, msg);

	if (r < 0)
		return r;
	cr_assert_arr_eq(open.remote_static, initiator.id.public_key, 32);
	return noise_initiation_accept(&responder.hs, &responder.id, &open, msg, now_ns);
}

static void create_response(void)
{
	cr_assert_eq(noise_response_create(&responder.hs, RESPONDER_INDEX, &response), 0);
	cr_assert_eq(responder.hs.state, NOISE_CREATED_RESPONSE);
}

static int consume_response(const struct wire_response *msg)
{
	return noise_response_consume(&initiator.hs, &initiator.id, msg);
}

static void finish(struct keypair **i, struct keypair **r)
{
	*i = keypair_new();
	*r = keypair_new();
	cr_assert_not_null(*i);
	cr_assert_not_null(*r);
	noise_session(&initiator.hs, *i, now_ns);
	noise_session(&responder.hs, *r, now_ns + 1);
}

static void assert_keys_match(const struct keypair *i, const struct keypair *r)
{
	cr_assert_arr_eq(i->send_key, r->receive_key, 32);
	cr_assert_arr_eq(i->receive_key, r->send_key, 32);
	cr_assert_arr_neq(i->send_key, i->receive_key, 32);
	cr_assert_not(sodium_is_zero(i->send_key, 32));
}

Test(noise, both_ends_derive_the_same_session)
{
	struct keypair *i, *r;

	meet(NULL);
	create_initiation(5 * NS_PER_SEC);
	cr_assert_eq(wire_classify(&initiation, sizeof(initiation)), WIRE_INITIATION);
	cr_assert_eq(load_le32(&initiation.sender), INITIATOR_INDEX);
	cr_assert_eq(consume_initiation(&initiation), 0);
	cr_assert_eq(responder.hs.state, NOISE_CONSUMED_INITIATION);
	create_response();
	cr_assert_eq(wire_classify(&response, sizeof(response)), WIRE_RESPONSE);
	cr_assert_eq(load_le32(&response.receiver), INITIATOR_INDEX);
	cr_assert_eq(load_le32(&response.sender), RESPONDER_INDEX);
	cr_assert_eq(consume_response(&response), 0);
	cr_assert_eq(initiator.hs.state, NOISE_CONSUMED_RESPONSE);
	finish(&i, &r);
	assert_keys_match(i, r);
	cr_assert(i->initiator);
	cr_assert_not(r->initiator);
	cr_assert_eq(i->local_index, INITIATOR_INDEX);
	cr_assert_eq(i->remote_index, RESPONDER_INDEX);
	cr_assert_eq(r->local_index, RESPONDER_INDEX);
	cr_assert_eq(r->remote_index, INITIATOR_INDEX);
	cr_assert_eq(i->created_ns, now_ns);
	cr_assert_eq(r->created_ns, now_ns + 1);
	keypair_free(i);
	keypair_free(r);
	cr_assert_eq(secret_in_use(), 0);
}

Test(noise, preshared_key_is_part_of_the_session)
{
	struct keypair *i, *r;
	uint8_t psk[32];

	randombytes_buf(psk, sizeof(psk));
	meet(psk);
	create_initiation(5 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	cr_assert_eq(consume_response(&response), 0);
	finish(&i, &r);
	assert_keys_match(i, r);
	keypair_free(i);
	keypair_free(r);
}

Test(noise, wrong_preshared_key_fails_at_the_response)
{
	struct noise_handshake before;
	uint8_t psk[32] = {1};

	meet(psk);
	responder.hs.preshared[31] ^= 1;
	create_initiation(5 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	before = initiator.hs;
	cr_assert_eq(consume_response(&response), -EBADMSG);
	cr_assert_arr_eq(&initiator.hs, &before, sizeof(before));
	/* Set right on one side, it is the other one's next response that works. */
	memcpy(initiator.hs.preshared, responder.hs.preshared, 32);
	cr_assert_eq(consume_response(&response), 0);
}

Test(noise, session_clears_the_handshake_and_keeps_the_acquaintance)
{
	struct noise_handshake before;
	struct keypair *i, *r;
	uint8_t psk[32] = {7};

	meet(psk);
	create_initiation(5 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	cr_assert_eq(consume_response(&response), 0);
	before = responder.hs;
	finish(&i, &r);
	for (unsigned e = 0; e < 2; e++) {
		const struct noise_handshake *hs = e ? &initiator.hs : &responder.hs;

		cr_assert_eq(hs->state, NOISE_ZEROED);
		cr_assert_eq(hs->local_index, 0);
		cr_assert_eq(hs->remote_index, 0);
		cr_assert(sodium_is_zero(hs->ephemeral_private, 32));
		cr_assert(sodium_is_zero(hs->remote_ephemeral, 32));
		cr_assert(sodium_is_zero(hs->hash, 32));
		cr_assert(sodium_is_zero(hs->chaining_key, 32));
		cr_assert_arr_eq(hs->preshared, psk, 32);
		cr_assert(hs->has_static_static);
		cr_assert_not(sodium_is_zero(hs->static_static, 32));
	}
	cr_assert_arr_eq(initiator.hs.static_static, responder.hs.static_static, 32);
	cr_assert_arr_eq(responder.hs.remote_static, before.remote_static, 32);
	cr_assert_arr_eq(responder.hs.latest_timestamp, before.latest_timestamp, WIRE_TIMESTAMP_BYTES);
	cr_assert_eq(responder.hs.last_initiation_ns, now_ns);
	cr_assert_eq(r->send_counter, 0);
	cr_assert_eq(r->replay.next, 0);
	keypair_free(i);
	keypair_free(r);
}

Test(noise, each_handshake_makes_other_keys)
{
	struct keypair *i[2], *r[2];

	meet(NULL);
	for (unsigned n = 0; n < 2; n++) {
		now_ns += NS_PER_SEC;
		create_initiation(now_ns);
		cr_assert_eq(consume_initiation(&initiation), 0);
		create_response();
		cr_assert_eq(consume_response(&response), 0);
		finish(&i[n], &r[n]);
		assert_keys_match(i[n], r[n]);
	}
	cr_assert_arr_neq(i[0]->send_key, i[1]->send_key, 32);
	cr_assert_arr_neq(i[0]->receive_key, i[1]->receive_key, 32);
}

Test(noise, initiation_with_the_same_or_an_older_timestamp_is_a_replay)
{
	struct wire_initiation first, older;
	struct noise_handshake before;

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	first = initiation;
	create_initiation(99 * NS_PER_SEC);
	older = initiation;
	cr_assert_eq(consume_initiation(&first), 0);
	now_ns += NS_PER_SEC;
	before = responder.hs;
	cr_assert_eq(consume_initiation(&first), -EALREADY);
	cr_assert_eq(consume_initiation(&older), -EALREADY);
	/* Another message with the same timestamp is one too. */
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), -EALREADY);
	cr_assert_arr_eq(&responder.hs, &before, sizeof(before));
	create_initiation(100 * NS_PER_SEC + (1 << 24));
	cr_assert_eq(consume_initiation(&initiation), 0);
}

Test(noise, replay_protection_outlives_sessions_and_clearing)
{
	struct wire_initiation first;
	struct keypair *r = keypair_new();

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	first = initiation;
	cr_assert_eq(consume_initiation(&first), 0);
	create_response();
	noise_session(&responder.hs, r, now_ns);
	noise_handshake_clear(&responder.hs);
	now_ns += 3600 * NS_PER_SEC;
	cr_assert_eq(consume_initiation(&first), -EALREADY);
	keypair_free(r);
}

Test(noise, initiations_are_accepted_20_ms_apart)
{
	struct noise_handshake before;

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	before = responder.hs;
	create_initiation(101 * NS_PER_SEC);
	now_ns += 20 * NS_PER_MS - 1;
	cr_assert_eq(consume_initiation(&initiation), -EBUSY);
	cr_assert_arr_eq(&responder.hs, &before, sizeof(before));
	now_ns += 1;
	cr_assert_eq(consume_initiation(&initiation), 0);
	cr_assert_eq(responder.hs.last_initiation_ns, now_ns);
}

Test(noise, initiation_is_accepted_at_the_start_of_the_clock)
{
	meet(NULL);
	now_ns = 0;
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_initiation(101 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), -EBUSY);
}

Test(noise, timestamps_are_tai64n_with_whitened_nanoseconds)
{
	uint8_t out[WIRE_TIMESTAMP_BYTES], next[WIRE_TIMESTAMP_BYTES];

	noise_tai64n(out, 0);
	assert_hex(out, sizeof(out), "400000000000000a00000000", "1970");
	noise_tai64n(out, UINT64_C(1700000000) * NS_PER_SEC + 123456789);
	assert_hex(out, sizeof(out), "400000006553f10a07000000", "2023"); /* 123456789 = 0x075bcd15 */
	noise_tai64n(out, UINT64_C(1700000000) * NS_PER_SEC + 999999999);
	noise_tai64n(next, UINT64_C(1700000001) * NS_PER_SEC);
	cr_assert_lt(memcmp(out, next, sizeof(out)), 0);
	/* 20 ms later is always another timestamp. */
	for (uint64_t ns = 0; ns < NS_PER_SEC; ns += 1234567) {
		noise_tai64n(out, ns);
		noise_tai64n(next, ns + 20 * NS_PER_MS);
		cr_assert_lt(memcmp(out, next, sizeof(out)), 0);
	}
}

/* What stands between the wire and the handshake, as the driver calls it. */
static int receive_initiation(struct cookie_checker *checker, const struct wire_initiation *msg)
{
	if (wire_classify(msg, sizeof(*msg)) != WIRE_INITIATION)
		return -EPROTO;
	if (cookie_checker_verify(checker, msg, sizeof(*msg), NULL, 0, false, now_ns) == COOKIE_BAD_MAC1)
		return -EPROTO;
	return consume_initiation(msg);
}

static int receive_response(struct cookie_checker *checker, const struct wire_response *msg)
{
	if (wire_classify(msg, sizeof(*msg)) != WIRE_RESPONSE)
		return -EPROTO;
	if (cookie_checker_verify(checker, msg, sizeof(*msg), NULL, 0, false, now_ns) == COOKIE_BAD_MAC1)
		return -EPROTO;
	return consume_response(msg);
}

Test(noise, initiation_tampered_anywhere_is_rejected_and_changes_nothing)
{
	struct cookie_checker checker = {0};
	struct cookie_jar jar;
	struct noise_handshake before;

	meet(NULL);
	cookie_checker_set_key(&checker, responder.id.public_key);
	cookie_jar_init(&jar, responder.id.public_key);
	create_initiation(100 * NS_PER_SEC);
	cookie_jar_sign(&jar, &initiation, sizeof(initiation), now_ns);
	/*
	 * The cached product of the static keys is not part of the handshake's state: have it there from the
	 * start.
	 */
	cr_assert_eq(crypto_scalarmult(
			     responder.hs.static_static, responder.id.private_key, initiator.id.public_key),
		0);
	responder.hs.has_static_static = true;
	before = responder.hs;
	for (size_t i = 0; i < offsetof(struct wire_initiation, mac2); i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			struct wire_initiation bad = initiation;
			int r;

			((uint8_t *)&bad)[i] ^= 1u << bit;
			cr_assert_eq(receive_initiation(&checker, &bad), -EPROTO, "byte %zu", i);
			/*
			 * mac1 needs public keys only: what a forger repairs, Noise must refuse. The index is
			 * not its.
			 */
			if (i < offsetof(struct wire_initiation, ephemeral) ||
				i >= offsetof(struct wire_initiation, mac1))
				continue;
			cookie_jar_sign(&jar, &bad, sizeof(bad), now_ns);
			r = receive_initiation(&checker, &bad);
			cr_assert(r == -EBADMSG || r == -EKEYREJECTED, "byte %zu: %d", i, r);
			cr_assert_arr_eq(&responder.hs, &before, sizeof(before));
		}
	}
	cr_assert_eq(receive_initiation(&checker, &initiation), 0);
}

Test(noise, response_tampered_anywhere_is_rejected_and_changes_nothing)
{
	struct cookie_checker checker = {0};
	struct cookie_jar jar;
	struct noise_handshake before;

	meet(NULL);
	cookie_checker_set_key(&checker, initiator.id.public_key);
	cookie_jar_init(&jar, initiator.id.public_key);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	cookie_jar_sign(&jar, &response, sizeof(response), now_ns);
	before = initiator.hs;
	for (size_t i = 0; i < offsetof(struct wire_response, mac2); i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			struct wire_response bad = response;
			int r;

			((uint8_t *)&bad)[i] ^= 1u << bit;
			cr_assert_eq(receive_response(&checker, &bad), -EPROTO, "byte %zu", i);
			if (i < offsetof(struct wire_response, receiver) ||
				i >= offsetof(struct wire_response, mac1))
				continue;
			cookie_jar_sign(&jar, &bad, sizeof(bad), now_ns);
			r = receive_response(&checker, &bad);
			if (i < offsetof(struct wire_response, ephemeral))
				cr_assert_eq(r, -EINVAL);
			else
				cr_assert(r == -EBADMSG || r == -EKEYREJECTED, "byte %zu: %d", i, r);
			cr_assert_arr_eq(&initiator.hs, &before, sizeof(before));
		}
	}
	cr_assert_eq(receive_response(&checker, &response), 0);
}

Test(noise, response_is_consumed_only_by_an_outstanding_initiation)
{
	static const enum noise_state others[] = {
		NOISE_ZEROED, NOISE_CONSUMED_INITIATION, NOISE_CREATED_RESPONSE, NOISE_CONSUMED_RESPONSE};
	struct noise_handshake before;

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		initiator.hs.state = others[i];
		before = initiator.hs;
		cr_assert_eq(consume_response(&response), -EINVAL);
		cr_assert_arr_eq(&initiator.hs, &before, sizeof(before));
	}
	initiator.hs.state = NOISE_CREATED_INITIATION;
	cr_assert_eq(consume_response(&response), 0);
	cr_assert_eq(consume_response(&response), -EINVAL);
}

Test(noise, response_to_an_earlier_initiation_is_refused)
{
	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	create_initiation(101 * NS_PER_SEC); /* same index, another ephemeral key */
	cr_assert_eq(consume_response(&response), -EBADMSG);
	initiator.hs.local_index++;
	cr_assert_eq(consume_response(&response), -EINVAL);
}

Test(noise, response_needs_an_accepted_initiation)
{
	struct wire_response untouched;

	meet(NULL);
	memset(&response, 0xee, sizeof(response));
	untouched = response;
	cr_assert_eq(noise_response_create(&responder.hs, RESPONDER_INDEX, &response), -EINVAL);
	cr_assert_arr_eq(&response, &untouched, sizeof(response));
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(noise_response_create(&initiator.hs, RESPONDER_INDEX, &response), -EINVAL);
	cr_assert_eq(consume_initiation(&initiation), 0);
	create_response();
	cr_assert_eq(noise_response_create(&responder.hs, RESPONDER_INDEX, &response), -EINVAL);
}

/* Both sides initiate; the one who takes the other's initiation gives up its own. */
Test(noise, crossing_initiations_leave_one_handshake)
{
	struct wire_initiation theirs;
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES];
	struct keypair *i, *r;

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	noise_tai64n(tai64n, 100 * NS_PER_SEC);
	cr_assert_eq(noise_initiation_create(&responder.hs, &responder.id, 5, tai64n, &theirs), 0);
	cr_assert_eq(consume_initiation(&initiation), 0);
	cr_assert(sodium_is_zero(responder.hs.ephemeral_private, 32));
	create_response();
	cr_assert_eq(consume_response(&response), 0);
	finish(&i, &r);
	assert_keys_match(i, r);
	keypair_free(i);
	keypair_free(r);
}

Test(noise, initiation_for_another_identity_is_refused)
{
	struct noise_initiation_open open, untouched;
	uint8_t other[32] = {5};

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	noise_identity_set(&responder.id, other);
	memset(&open, 0xee, sizeof(open));
	untouched = open;
	cr_assert_eq(noise_initiation_open(&open, &responder.id, &initiation), -EBADMSG);
	cr_assert_arr_eq(&open, &untouched, sizeof(open));
}

/* A thief of the responder's key cannot claim to be the initiator: only the static-static secret can. */
Test(noise, initiation_with_a_claimed_static_key_is_refused)
{
	struct noise_initiation_open open;
	uint8_t thief[32] = {6};

	meet(NULL);
	memcpy(initiator.id.private_key, thief, 32);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(noise_initiation_open(&open, &responder.id, &initiation), 0);
	cr_assert_arr_eq(open.remote_static, responder.hs.remote_static, 32);
	cr_assert_eq(
		noise_initiation_accept(&responder.hs, &responder.id, &open, &initiation, now_ns), -EBADMSG);
	cr_assert_eq(responder.hs.state, NOISE_ZEROED);
}

Test(noise, nothing_works_without_a_private_key)
{
	static const uint8_t zero[32];
	struct noise_initiation_open open;
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES] = {0};
	struct noise_handshake before;
	struct wire_initiation untouched;

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(noise_initiation_open(&open, &responder.id, &initiation), 0);
	noise_identity_set(&responder.id, zero);
	cr_assert_not(responder.id.has);
	cr_assert(sodium_is_zero(responder.id.private_key, 32));
	cr_assert(sodium_is_zero(responder.id.public_key, 32));
	before = responder.hs;
	cr_assert_eq(
		noise_initiation_accept(&responder.hs, &responder.id, &open, &initiation, now_ns), -ENOKEY);
	cr_assert_eq(noise_initiation_open(&open, &responder.id, &initiation), -ENOKEY);
	untouched = initiation;
	cr_assert_eq(noise_initiation_create(&responder.hs, &responder.id, 1, tai64n, &initiation), -ENOKEY);
	cr_assert_arr_eq(&initiation, &untouched, sizeof(initiation));
	cr_assert_arr_eq(&responder.hs, &before, sizeof(before));
	noise_identity_set(&initiator.id, zero);
	cr_assert_eq(consume_response(&response), -EINVAL); /* index 0: before any key is looked at */
	store_le32(&response.receiver, INITIATOR_INDEX);
	cr_assert_eq(consume_response(&response), -ENOKEY);
}

Test(noise, private_keys_are_clamped)
{
	struct noise_identity id;
	uint8_t ones[32];

	memset(ones, 0xff, sizeof(ones));
	noise_identity_set(&id, ones);
	cr_assert(id.has);
	cr_assert_eq(id.private_key[0], 0xf8);
	cr_assert_eq(id.private_key[31], 0x7f);
	memset(ones, 0, sizeof(ones));
	ones[31] = 0x80; /* zero once clamped but for the bit that clamping sets: still a key */
	noise_identity_set(&id, ones);
	cr_assert(id.has);
	cr_assert_eq(id.private_key[31], 0x40);
}

/* All points of small order, canonical and not (section 7 of RFC 7748 asks for the check). */
static const char *const low_order[] = {
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
};

Test(noise, peers_of_low_order_get_no_message)
{
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES] = {0};

	for (size_t i = 0; i < ARRAY_LEN(low_order); i++) {
		struct noise_handshake before;
		struct wire_initiation untouched = initiation;

		meet(NULL);
		HEX(initiator.hs.remote_static, low_order[i]);
		before = initiator.hs;
		cr_assert_eq(noise_initiation_create(&initiator.hs, &initiator.id, 1, tai64n, &initiation),
			-EKEYREJECTED);
		cr_assert_arr_eq(&initiator.hs, &before, sizeof(before));
		cr_assert_arr_eq(&initiation, &untouched, sizeof(untouched));
	}
}

Test(noise, ephemeral_keys_of_low_order_are_rejected)
{
	for (size_t i = 0; i < ARRAY_LEN(low_order); i++) {
		struct noise_initiation_open open;
		struct noise_handshake before;

		meet(NULL);
		create_initiation(100 * NS_PER_SEC);
		cr_assert_eq(consume_initiation(&initiation), 0);
		create_response();
		HEX(initiation.ephemeral, low_order[i]);
		cr_assert_eq(noise_initiation_open(&open, &responder.id, &initiation), -EKEYREJECTED);
		HEX(response.ephemeral, low_order[i]);
		before = initiator.hs;
		cr_assert_eq(consume_response(&response), -EKEYREJECTED);
		cr_assert_arr_eq(&initiator.hs, &before, sizeof(before));
	}
}

Test(noise, low_order_found_only_at_the_response_leaves_the_handshake)
{
	struct noise_handshake before;

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	memset(responder.hs.remote_ephemeral, 0, 32);
	before = responder.hs;
	cr_assert_eq(noise_response_create(&responder.hs, RESPONDER_INDEX, &response), -EKEYREJECTED);
	cr_assert_arr_eq(&responder.hs, &before, sizeof(before));
}

Test(noise, static_product_follows_a_change_of_identity)
{
	uint8_t other[32] = {9};

	meet(NULL);
	create_initiation(100 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
	noise_identity_set(&initiator.id, other);
	initiator.hs.has_static_static = false;
	memcpy(responder.hs.remote_static, initiator.id.public_key, 32);
	responder.hs.has_static_static = false;
	now_ns += NS_PER_SEC;
	create_initiation(101 * NS_PER_SEC);
	cr_assert_eq(consume_initiation(&initiation), 0);
}

/*
 * The messages and keys below were computed by an independent implementation in Python, which was itself
 * checked with the published Noise_IKpsk2 vector. The generator of random bytes hands out the ephemeral keys.
 */
static uint8_t next_random;

static const char *fixed_name(void)
{
	return "fixed";
}

static uint32_t fixed_random(void)
{
	return 0;
}

static void fixed_buf(void *const buf, const size_t size)
{
	for (size_t i = 0; i < size; i++)
		((uint8_t *)buf)[i] = (uint8_t)(next_random + i);
}

static void run_fixed(const char *initiation_hex, const char *response_hex, const char *initiator_sends,
	const char *responder_sends, const uint8_t psk[32])
{
	static struct randombytes_implementation fixed = {
		.implementation_name = fixed_name, .random = fixed_random, .buf = fixed_buf};
	struct cookie_jar jar;
	struct keypair *i, *r;
	uint8_t private_key[2][32];

	for (unsigned b = 0; b < 32; b++) {
		private_key[0][b] = (uint8_t)(0x01 + b);
		private_key[1][b] = (uint8_t)(0x41 + b);
	}
	meet(psk);
	noise_identity_set(&initiator.id, private_key[0]);
	noise_identity_set(&responder.id, private_key[1]);
	memcpy(initiator.hs.remote_static, responder.id.public_key, 32);
	memcpy(responder.hs.remote_static, initiator.id.public_key, 32);
	randombytes_set_implementation(&fixed);

	next_random = 0x81;
	create_initiation(UINT64_C(1700000000) * NS_PER_SEC + 123456789);
	cookie_jar_init(&jar, responder.id.public_key);
	cookie_jar_sign(&jar, &initiation, sizeof(initiation), now_ns);
	assert_hex(&initiation, offsetof(struct wire_initiation, mac2), initiation_hex, "initiation");
	cr_assert_eq(consume_initiation(&initiation), 0);
	next_random = 0xc1;
	create_response();
	cookie_jar_init(&jar, initiator.id.public_key);
	cookie_jar_sign(&jar, &response, sizeof(response), now_ns);
	if (response_hex)
		assert_hex(&response, offsetof(struct wire_response, mac2), response_hex, "response");
	cr_assert_eq(consume_response(&response), 0);
	finish(&i, &r);
	assert_keys_match(i, r);
	assert_hex(i->send_key, 32, initiator_sends, "the initiator's sending key");
	assert_hex(r->send_key, 32, responder_sends, "the responder's sending key");
	keypair_free(i);
	keypair_free(r);
}

static const char fixed_initiation[] =
	"0100000044332211883186b800b41d5cf0429695da9b3cc4f328ebcd184a6e482fa578c103f06c77fa6ff1a71203eaf3"
	"05dc6260f1911ba7d914db25d127ce39ef62f6c6467fb8a777377a28376c744882e58802dabbe0882d2440df1460a78f"
	"48929ae06174ac89b6c05bd8bc7550fbc5715ce71e592d3d18843ce8fb6ab604b2fed579";

Test(noise, handshake_with_preshared_key_matches_an_independent_implementation)
{
	uint8_t psk[32];

	for (unsigned b = 0; b < 32; b++)
		psk[b] = (uint8_t)(0xe0 + b);
	run_fixed(fixed_initiation,
		"02000000d4c3b2a1443322113a553d74792d727efa9b9a4cde3da1ad93f1a2d0c09cb639b1a3c0fda14cbe24c8c7"
		"501c"
		"962f325a5bdeea849e0b249159491726e1bddf1791d42aa9c2ae1ff1",
		"af089bc049cf782a437c0a39ad1f2da961e5edb698c98b7a60ca9e03ed38782f",
		"66683a1403805d00d31abf0fe0a9871d13fecfe74fc1c201b1260cc2474dec90", psk);
}

Test(noise, handshake_without_preshared_key_matches_an_independent_implementation)
{
	run_fixed(fixed_initiation, NULL, "68d9a7877b387087ae50d6ba04dbd0f8063ef17104cbe181ae30407e32d83dee",
		"81faf15f4c7bafeeac93edf3a0746b1c15bd06bfca5ea911d3abcaf7c5b6362a", NULL);
	assert_hex(response.empty, sizeof(response.empty), "fca55a14a6066078ff5b8c8fd72bd077",
		"tag of the response");
}
