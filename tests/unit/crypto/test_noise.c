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
	if (psk != NULL) {
		memcpy(initiator.hs.preshared, psk, 32);
		memcpy(responder.hs.preshared, psk, 32);
	}
}

static void create_initiation(uint64_t realtime_ns)
{
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES];

	noise_tai64n(tai64n, realtime_ns);
	cr_assert_eq(noise_initiation_create(&initiator.hs, &initiator.id, INITIATOR_INDEX, tai64n, &initiation), 0);
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
