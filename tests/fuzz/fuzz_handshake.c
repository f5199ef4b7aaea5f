/*
 * Initiations and responses between two fixed identities, three ways:
 * - the input as a datagram, as it came;
 * - the same with its mac1 repaired, which anyone who knows a public key can do, so that Noise sees it;
 * - the input as what a peer that holds its keys would say: index, timestamp, and a bit to flip on the way.
 */
#include <errno.h>
#include <stdlib.h>

#include "crypto/cookie.h"
#include "crypto/noise.h"
#include "crypto/secret.h"

#include "fixed_random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(condition)                                                                                    \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			abort();                                                                             \
	} while (0)

#define NOW_NS (1000 * NS_PER_SEC)
#define INITIATOR_INDEX 0x01020304
#define RESPONDER_INDEX 0x0a0b0c0d

struct end {
	struct noise_identity id;
	struct noise_handshake hs;
	struct cookie_checker checker;
	struct cookie_jar jar; /* towards the other one */
};

/*
 * As every input finds them. The initiator waits for the response to an initiation that the responder knows
 * not.
 */
static struct end first_initiator, first_responder;
static struct end initiator, responder;

static void receive(const void *datagram, size_t len);
static void receive_initiation(const struct wire_initiation *msg);
static void receive_response(const struct wire_response *msg);
static void speak(const uint8_t *data, size_t size);

static void introduce(struct end *self, const struct end *other)
{
	memcpy(self->hs.remote_static, other->id.public_key, NOISE_KEY_BYTES);
	memset(self->hs.preshared, 0x33, sizeof(self->hs.preshared));
	/* In the cache from the start, so that a refused message can be seen to change nothing at all. */
	EXPECT(crypto_scalarmult(self->hs.static_static, self->id.private_key, other->id.public_key) == 0);
	self->hs.has_static_static = true;
	cookie_checker_set_key(&self->checker, self->id.public_key);
	cookie_jar_init(&self->jar, other->id.public_key);
}

static void set_up(void)
{
	uint8_t private_key[NOISE_KEY_BYTES];
	uint8_t tai64n[WIRE_TIMESTAMP_BYTES];
	struct wire_initiation msg;

	EXPECT(secret_init() == 0);
	fixed_random_start(1);
	memset(private_key, 0x11, sizeof(private_key));
	noise_identity_set(&first_initiator.id, private_key);
	memset(private_key, 0x22, sizeof(private_key));
	noise_identity_set(&first_responder.id, private_key);
	introduce(&first_initiator, &first_responder);
	introduce(&first_responder, &first_initiator);
	noise_tai64n(tai64n, 100 * NS_PER_SEC);
	EXPECT(noise_initiation_create(
		       &first_initiator.hs, &first_initiator.id, INITIATOR_INDEX, tai64n, &msg) == 0);
}

static void start_over(void)
{
	fixed_random_start(2);
	initiator = first_initiator;
	responder = first_responder;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool is_set_up;
	uint8_t datagram[sizeof(struct wire_initiation)];

	if (!is_set_up)
		set_up();
	is_set_up = true;

	start_over();
	receive(data, size);

	if (size >= 2 * WIRE_MAC_BYTES && size <= sizeof(datagram)) {
		start_over();
		memcpy(datagram, data, size);
		cookie_jar_sign(&initiator.jar, datagram, size, NOW_NS);
		receive(datagram, size);
		cookie_jar_sign(&responder.jar, datagram, size, NOW_NS);
		receive(datagram, size);
	}

	start_over();
	speak(data, size);
	return 0;
}

static void receive(const void *datagram, size_t len)
{
	enum wire_type type = wire_classify(datagram, len);
	struct cookie_checker *checker = type == WIRE_INITIATION ? &responder.checker : &initiator.checker;

	if (type != WIRE_INITIATION && type != WIRE_RESPONSE)
		return;
	if (cookie_checker_verify(checker, datagram, len, NULL, 0, true, NOW_NS) == COOKIE_BAD_MAC1)
		return;
	if (type == WIRE_INITIATION)
		receive_initiation(datagram);
	else
		receive_response(datagram);
}

static void receive_initiation(const struct wire_initiation *msg)
{
	struct noise_handshake before = responder.hs;
	struct noise_initiation_open open;
	struct wire_response response;
	int r = noise_initiation_open(&open, &responder.id, msg);

	if (r < 0) {
		EXPECT(r == -EBADMSG || r == -EKEYREJECTED);
		return;
	}
	if (sodium_memcmp(open.remote_static, responder.hs.remote_static, NOISE_KEY_BYTES) != 0)
		return; /* a peer that is not known here */
	r = noise_initiation_accept(&responder.hs, &responder.id, &open, msg, NOW_NS);
	if (r < 0) {
		EXPECT(r == -EBADMSG || r == -EALREADY || r == -EBUSY);
		EXPECT(memcmp(&before, &responder.hs, sizeof(before)) == 0);
		return;
	}
	EXPECT(memcmp(responder.hs.latest_timestamp, before.latest_timestamp, WIRE_TIMESTAMP_BYTES) > 0);
	EXPECT(responder.hs.state == NOISE_CONSUMED_INITIATION);
	EXPECT(noise_response_create(&responder.hs, RESPONDER_INDEX, &response) == 0);
	EXPECT(noise_initiation_accept(&responder.hs, &responder.id, &open, msg, NOW_NS + NS_PER_SEC) ==
		-EALREADY);
}

static void receive_response(const struct wire_response *msg)
{
	struct noise_handshake before = initiator.hs;
	int r = noise_response_consume(&initiator.hs, &initiator.id, msg);

	if (r < 0) {
		EXPECT(r == -EBADMSG || r == -EKEYREJECTED || r == -EINVAL);
		EXPECT(memcmp(&before, &initiator.hs, sizeof(before)) == 0);
		return;
	}
	EXPECT(initiator.hs.state == NOISE_CONSUMED_RESPONSE);
	EXPECT(initiator.hs.remote_index == load_le32(&msg->sender));
	EXPECT(noise_response_consume(&initiator.hs, &initiator.id, msg) == -EINVAL);
}

/* 4 bytes index, 12 bytes timestamp, 1 byte says whether to spoil, 1 byte where. */
static void speak(const uint8_t *data, size_t size)
{
	struct wire_initiation initiation;
	struct wire_response response;
	struct noise_initiation_open open;
	struct keypair *i, *r;
	bool spoil_initiation, spoil_response, is_new;
	uint8_t *byte;

	if (size < 18)
		return;
	spoil_initiation = data[16] & 1;
	spoil_response = data[16] & 2;
	is_new = !sodium_is_zero(data + 4, WIRE_TIMESTAMP_BYTES);

	EXPECT(noise_initiation_create(
		       &initiator.hs, &initiator.id, load_le32(data), data + 4, &initiation) == 0);
	if (spoil_initiation) {
		byte = (uint8_t *)&initiation;
		byte[8 + data[17] % (offsetof(struct wire_initiation, mac1) - 8)] ^= 1u << data[16] / 32;
	}
	if (noise_initiation_open(&open, &responder.id, &initiation) < 0) {
		EXPECT(spoil_initiation);
		return;
	}
	if (noise_initiation_accept(&responder.hs, &responder.id, &open, &initiation, NOW_NS) < 0) {
		EXPECT(spoil_initiation || !is_new);
		return;
	}
	EXPECT(!spoil_initiation && is_new);
	EXPECT(noise_response_create(&responder.hs, RESPONDER_INDEX, &response) == 0);
	if (spoil_response) {
		byte = (uint8_t *)&response;
		byte[8 + data[17] % (offsetof(struct wire_response, mac1) - 8)] ^= 1u << data[16] / 32;
	}
	EXPECT((noise_response_consume(&initiator.hs, &initiator.id, &response) == 0) == !spoil_response);
	if (spoil_response)
		return;

	i = keypair_new();
	r = keypair_new();
	EXPECT(i != NULL && r != NULL);
	noise_session(&initiator.hs, i, NOW_NS);
	noise_session(&responder.hs, r, NOW_NS);
	EXPECT(memcmp(i->send_key, r->receive_key, AEAD_KEY_BYTES) == 0);
	EXPECT(memcmp(i->receive_key, r->send_key, AEAD_KEY_BYTES) == 0);
	EXPECT(i->local_index == r->remote_index && i->remote_index == r->local_index);
	keypair_free(i);
	keypair_free(r);
	EXPECT(secret_in_use() == 0);
}
