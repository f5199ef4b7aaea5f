/*
 * Cookie replies as they come to a jar that waits for one, handshake messages under load as they come to a
 * checker, and whole exchanges over a message that is the input, with a bit to flip on the way.
 */
#include <errno.h>
#include <stdlib.h>

#include "crypto/cookie.h"
#include "crypto/secret.h"

#include "fixed_random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(condition)                                                                                    \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			abort();                                                                             \
	} while (0)

#define NOW_NS (1000 * NS_PER_SEC)
#define MESSAGE_MAX 256

static const uint8_t public_key[32] = {0x42};
static const uint8_t source[18] = {0x20, 0x01, 0x0d, 0xb8};

static struct cookie_checker checker;
static struct cookie_jar jar;

static void start_over(void);
static void receive_reply(const void *datagram);
static void receive_message(const void *datagram, size_t len);
static void exchange(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	EXPECT(secret_init() == 0);
	start_over();
	switch (wire_classify(data, size)) {
	case WIRE_COOKIE:
		receive_reply(data);
		break;
	case WIRE_INITIATION:
	case WIRE_RESPONSE:
		receive_message(data, size);
		break;
	default:
		break;
	}
	start_over();
	exchange(data, size);
	return 0;
}

/* The checker has its secret, and the jar has signed an initiation of zeros. */
static void start_over(void)
{
	struct wire_initiation msg = {0};

	fixed_random_start(3);
	memset(&checker, 0, sizeof(checker));
	cookie_checker_set_key(&checker, public_key);
	memset(checker.secret, 0x55, sizeof(checker.secret));
	checker.secret_born_ns = NOW_NS;
	cookie_jar_init(&jar, public_key);
	store_le32(&msg.type, WIRE_INITIATION);
	cookie_jar_sign(&jar, &msg, sizeof(msg), NOW_NS);
}

static void receive_reply(const void *datagram)
{
	struct cookie_jar before = jar;
	int r = cookie_jar_consume(&jar, datagram, NOW_NS);

	if (r < 0) {
		EXPECT(r == -EBADMSG);
		EXPECT(memcmp(&before, &jar, sizeof(before)) == 0);
		return;
	}
	EXPECT(jar.cookie_born_ns == NOW_NS);
	EXPECT(cookie_jar_consume(&jar, datagram, NOW_NS) == -EINVAL);
}

static void receive_message(const void *datagram, size_t len)
{
	uint8_t repaired[sizeof(struct wire_initiation)];
	enum cookie_verdict verdict =
		cookie_checker_verify(&checker, datagram, len, source, sizeof(source), true, NOW_NS);

	memcpy(repaired, datagram, len);
	cookie_jar_sign(&jar, repaired, len, NOW_NS);
	EXPECT(cookie_checker_verify(&checker, repaired, len, source, sizeof(source), true, NOW_NS) ==
		COOKIE_MAC1_ONLY);
	/* mac1 is a function of what comes before it. */
	EXPECT((verdict == COOKIE_BAD_MAC1) == (memcmp(repaired, datagram, len - WIRE_MAC_BYTES) != 0));
}

static void exchange(const uint8_t *data, size_t size)
{
	uint8_t msg[MESSAGE_MAX];
	struct wire_cookie reply;
	uint8_t where, flip;
	bool spoil;

	if (size < 2 + 2 * WIRE_MAC_BYTES || size > 2 + sizeof(msg))
		return;
	where = data[0];
	flip = data[1];
	spoil = flip != 0;
	size -= 2;
	memcpy(msg, data + 2, size);

	cookie_jar_sign(&jar, msg, size, NOW_NS);
	cookie_reply_create(&checker, &reply, msg, size, 7, source, sizeof(source), NOW_NS);
	EXPECT(wire_classify(&reply, sizeof(reply)) == WIRE_COOKIE);
	((uint8_t *)&reply)[8 + where % (sizeof(reply) - 8)] ^= flip;
	EXPECT((cookie_jar_consume(&jar, &reply, NOW_NS) == 0) == !spoil);
	cookie_jar_sign(&jar, msg, size, NOW_NS);
	EXPECT(cookie_checker_verify(&checker, msg, size, source, sizeof(source), true, NOW_NS) ==
		(spoil ? COOKIE_MAC1_ONLY : COOKIE_MAC2_VALID));
}
