/* The handshake, message by message: not paid for by packets, but a gateway with many clients does many. */
#include "perf/micro.h"

#include <sodium.h>
#include <stdlib.h>

#include "crypto/cookie.h"
#include "crypto/noise.h"

#define INITIATOR_INDEX UINT32_C(0x11223344)
#define RESPONDER_INDEX UINT32_C(0xa1b2c3d4)
#define NOW_NS (1000 * NS_PER_SEC)

struct end {
	struct noise_identity id;
	struct noise_handshake hs;
	/* as it was before each step; what a peer's second handshake finds: the static DH is known */
	struct noise_handshake fresh, created, accepted, answered;
};

struct meeting {
	struct end initiator, responder;
	struct wire_initiation initiation, made_initiation;
	struct wire_response response, made_response;
	struct cookie_checker checker;
	struct cookie_jar jar;
	struct keypair *keys[2];
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES];
};

static unsigned create_initiation(struct meeting *m)
{
	return !noise_initiation_create(
		&m->initiator.hs, &m->initiator.id, INITIATOR_INDEX, m->tai64n, &m->made_initiation);
}

static unsigned consume_initiation(struct meeting *m)
{
	struct noise_initiation_open open;

	return !noise_initiation_open(&open, &m->responder.id, &m->initiation) &&
	       !noise_initiation_accept(&m->responder.hs, &m->responder.id, &open, &m->initiation, NOW_NS);
}

static unsigned create_response(struct meeting *m)
{
	return !noise_response_create(&m->responder.hs, RESPONDER_INDEX, &m->made_response);
}

static unsigned consume_response(struct meeting *m)
{
	return !noise_response_consume(&m->initiator.hs, &m->initiator.id, &m->response);
}

/* One whole handshake, leaving what each step starts from. */
static void *setup(const struct stage *s, const char **why)
{
	struct meeting *m = micro_alloc(sizeof(*m));
	struct end *i = &m->initiator, *r = &m->responder;
	uint8_t private_key[NOISE_KEY_BYTES], psk[NOISE_KEY_BYTES];

	randombytes_buf(private_key, sizeof(private_key));
	noise_identity_set(&i->id, private_key);
	randombytes_buf(private_key, sizeof(private_key));
	noise_identity_set(&r->id, private_key);
	randombytes_buf(psk, sizeof(psk));
	memcpy(i->hs.remote_static, r->id.public_key, NOISE_KEY_BYTES);
	memcpy(r->hs.remote_static, i->id.public_key, NOISE_KEY_BYTES);
	memcpy(i->hs.preshared, psk, sizeof(psk));
	memcpy(r->hs.preshared, psk, sizeof(psk));
	cookie_checker_set_key(&m->checker, r->id.public_key);
	cookie_jar_init(&m->jar, r->id.public_key);

	/* Twice: the first leaves the static DH behind. */
	for (unsigned round = 0; round < 2; round++) {
		noise_tai64n(m->tai64n, NOW_NS + round * NS_PER_SEC);
		noise_handshake_clear(&i->hs);
		noise_handshake_clear(&r->hs);
		r->hs.last_initiation_ns = 0;
		i->fresh = i->hs;
		r->fresh = r->hs;
		micro_require(create_initiation(m));
		cookie_jar_sign(&m->jar, &m->made_initiation, sizeof(m->made_initiation), NOW_NS);
		i->created = i->hs;
		m->initiation = m->made_initiation;
		micro_require(consume_initiation(m));
		r->accepted = r->hs;
		micro_require(create_response(m));
		r->answered = r->hs;
		m->response = m->made_response;
		micro_require(consume_response(m));
		i->answered = i->hs;
	}
	for (unsigned k = 0; k < 2; k++) {
		m->keys[k] = keypair_new();
		micro_require(m->keys[k]);
	}
	return m;
}

static void done(void *ctx)
{
	struct meeting *m = ctx;

	keypair_free(m->keys[0]);
	keypair_free(m->keys[1]);
	free(m);
}

/* The two ends, as they are now, agree on both keys. */
static void require_agreement(struct meeting *m)
{
	noise_session(&m->initiator.hs, m->keys[0], NOW_NS);
	noise_session(&m->responder.hs, m->keys[1], NOW_NS);
	micro_require(!memcmp(m->keys[0]->send_key, m->keys[1]->receive_key, AEAD_KEY_BYTES));
	micro_require(!memcmp(m->keys[0]->receive_key, m->keys[1]->send_key, AEAD_KEY_BYTES));
	micro_require(memcmp(m->keys[0]->send_key, m->keys[0]->receive_key, AEAD_KEY_BYTES));
	micro_require(
		m->keys[0]->remote_index == RESPONDER_INDEX && m->keys[1]->remote_index == INITIATOR_INDEX);
}

static void check(void *ctx)
{
	struct meeting *m = ctx;

	m->initiator.hs = m->initiator.answered;
	m->responder.hs = m->responder.answered;
	require_agreement(m);

	m->responder.hs = m->responder.fresh;
	m->initiation.ephemeral[0] ^= 1;
	micro_require(!consume_initiation(m));
	m->initiation.ephemeral[0] ^= 1;
	m->initiator.hs = m->initiator.created;
	m->response.empty[0] ^= 1;
	micro_require(!consume_response(m));
	m->response.empty[0] ^= 1;
}

static void prepare_create_initiation(void *ctx)
{
	struct meeting *m = ctx;

	m->initiator.hs = m->initiator.fresh;
}

static unsigned turn_create_initiation(void *ctx)
{
	return create_initiation(ctx);
}

static void prepare_consume_initiation(void *ctx)
{
	struct meeting *m = ctx;

	m->responder.hs = m->responder.fresh;
}

static unsigned turn_consume_initiation(void *ctx)
{
	return consume_initiation(ctx);
}

static void prepare_create_response(void *ctx)
{
	struct meeting *m = ctx;

	m->responder.hs = m->responder.accepted;
}

static unsigned turn_create_response(void *ctx)
{
	return create_response(ctx);
}

static void prepare_consume_response(void *ctx)
{
	struct meeting *m = ctx;

	m->initiator.hs = m->initiator.created;
}

static unsigned turn_consume_response(void *ctx)
{
	return consume_response(ctx);
}

static void prepare_session(void *ctx)
{
	struct meeting *m = ctx;

	m->initiator.hs = m->initiator.answered;
}

static unsigned turn_session(void *ctx)
{
	struct meeting *m = ctx;

	noise_session(&m->initiator.hs, m->keys[0], NOW_NS);
	return 1;
}

static unsigned turn_mac1(void *ctx)
{
	struct meeting *m = ctx;

	return cookie_checker_verify(&m->checker, &m->initiation, sizeof(m->initiation), NULL, 0, false,
		       NOW_NS) == COOKIE_MAC1_ONLY;
}

static void check_mac1(void *ctx)
{
	struct meeting *m = ctx;

	micro_require(turn_mac1(m));
	m->initiation.mac1[15] ^= 1;
	micro_require(!turn_mac1(m));
	m->initiation.mac1[15] ^= 1;
}

void micro_handshake_stages(void)
{
	static const struct stage_ops initiation_create = {
		setup, check, prepare_create_initiation, turn_create_initiation, done};
	static const struct stage_ops initiation_consume = {
		setup, check, prepare_consume_initiation, turn_consume_initiation, done};
	static const struct stage_ops response_create = {
		setup, check, prepare_create_response, turn_create_response, done};
	static const struct stage_ops response_consume = {
		setup, check, prepare_consume_response, turn_consume_response, done};
	static const struct stage_ops session = {setup, check, prepare_session, turn_session, done};
	static const struct stage_ops mac1 = {setup, check_mac1, NULL, turn_mac1, done};
	struct stage s = {.unit = "message", .units = 1};

	s.ops = &mac1;
	micro_add(&s, "handshake/mac1-verify");
	s.ops = &initiation_create;
	micro_add(&s, "handshake/initiation-create");
	s.ops = &initiation_consume;
	micro_add(&s, "handshake/initiation-consume");
	s.ops = &response_create;
	micro_add(&s, "handshake/response-create");
	s.ops = &response_consume;
	micro_add(&s, "handshake/response-consume");
	s.ops = &session;
	micro_add(&s, "handshake/session");
}
