#include "crypto/noise.h"

#include <errno.h>
#include <sodium.h>

#include "crypto/noise_symmetric.h"
#include "crypto/secret.h"

static const char identifier[] = "WireGuard v1 zx2c4 Jason@zx2c4.com";

#define INITIATION_INTERVAL_NS (20 * NS_PER_MS)
#define TAI64_EPOCH UINT64_C(0x400000000000000a) /* of 1970-01-01: TAI was 10 s ahead then */
/*
 * The bits below the largest power of two that is less than the interval: without them two initiations that
 * far apart still have different timestamps.
 */
#define TIMESTAMP_WHITENED_NS UINT32_C(0xffffff)

static void begin(struct noise_symmetric *s, const uint8_t responder_public[NOISE_KEY_BYTES]);
static void resume(struct noise_symmetric *s, const uint8_t hash[NOISE_HASH_BYTES],
	const uint8_t chaining_key[NOISE_HASH_BYTES]);
static void store(struct noise_handshake *hs, const struct noise_symmetric *s, enum noise_state state);
static int mix_static_static(
	struct noise_symmetric *s, struct noise_handshake *hs, const struct noise_identity *id) MUST_CHECK;
static void ephemeral_generate(uint8_t private_key[NOISE_KEY_BYTES], uint8_t public_key[NOISE_KEY_BYTES]);
static void clamp(uint8_t private_key[NOISE_KEY_BYTES]);
static void key_zero(uint8_t (*key)[NOISE_KEY_BYTES]);

#define KEY_SCOPED __attribute__((cleanup(key_zero)))

void noise_identity_set(struct noise_identity *id, const uint8_t private_key[NOISE_KEY_BYTES])
{
	bool has = !sodium_is_zero(private_key, NOISE_KEY_BYTES);

	secret_zero(id, sizeof(*id));
	if (!has)
		return;
	memcpy(id->private_key, private_key, sizeof(id->private_key));
	clamp(id->private_key);
	crypto_scalarmult_base(id->public_key, id->private_key);
	id->has = true;
}

void noise_handshake_clear(struct noise_handshake *hs)
{
	hs->state = NOISE_ZEROED;
	hs->local_index = 0;
	hs->remote_index = 0;
	secret_zero(hs->ephemeral_private, sizeof(hs->ephemeral_private));
	secret_zero(hs->remote_ephemeral, sizeof(hs->remote_ephemeral));
	secret_zero(hs->hash, sizeof(hs->hash));
	secret_zero(hs->chaining_key, sizeof(hs->chaining_key));
}

void noise_tai64n(uint8_t out[WIRE_TIMESTAMP_BYTES], uint64_t realtime_ns)
{
	store_be64(out, TAI64_EPOCH + realtime_ns / NS_PER_SEC);
	store_be32(out + 8, (uint32_t)(realtime_ns % NS_PER_SEC) & ~TIMESTAMP_WHITENED_NS);
}

int noise_initiation_create(struct noise_handshake *hs, const struct noise_identity *id, uint32_t local_index,
	const uint8_t tai64n[WIRE_TIMESTAMP_BYTES], struct wire_initiation *msg)
{
	struct noise_symmetric s NOISE_SYMMETRIC_SCOPED;
	uint8_t ephemeral_private[NOISE_KEY_BYTES] KEY_SCOPED;
	struct wire_initiation m;
	int r;

	if (!id->has)
		return -ENOKEY;
	store_le32(&m.type, WIRE_INITIATION);
	store_le32(&m.sender, local_index);

	begin(&s, hs->remote_static);
	ephemeral_generate(ephemeral_private, m.ephemeral);
	noise_symmetric_mix_ephemeral(&s, m.ephemeral);
	r = noise_symmetric_mix_dh(&s, ephemeral_private, hs->remote_static);
	if (r < 0)
		return r;
	noise_symmetric_seal(&s, m.static_key, id->public_key, NOISE_KEY_BYTES);
	r = mix_static_static(&s, hs, id);
	if (r < 0)
		return r;
	noise_symmetric_seal(&s, m.timestamp, tai64n, WIRE_TIMESTAMP_BYTES);

	memcpy(msg, &m, offsetof(struct wire_initiation, mac1));
	memcpy(hs->ephemeral_private, ephemeral_private, sizeof(hs->ephemeral_private));
	memset(hs->remote_ephemeral, 0, sizeof(hs->remote_ephemeral));
	hs->local_index = local_index;
	hs->remote_index = 0;
	store(hs, &s, NOISE_CREATED_INITIATION);
	return 0;
}

int noise_initiation_open(struct noise_initiation_open *open, const struct noise_identity *id,
	const struct wire_initiation *msg)
{
	struct noise_symmetric s NOISE_SYMMETRIC_SCOPED;
	uint8_t remote_static[NOISE_KEY_BYTES];
	int r;

	if (!id->has)
		return -ENOKEY;
	begin(&s, id->public_key);
	noise_symmetric_mix_ephemeral(&s, msg->ephemeral);
	r = noise_symmetric_mix_dh(&s, id->private_key, msg->ephemeral);
	if (r < 0)
		return r;
	r = noise_symmetric_open(&s, remote_static, msg->static_key, sizeof(msg->static_key));
	if (r < 0)
		return r;

	memcpy(open->hash, s.hash, sizeof(open->hash));
	memcpy(open->chaining_key, s.chaining_key, sizeof(open->chaining_key));
	memcpy(open->remote_static, remote_static, sizeof(open->remote_static));
	return 0;
}

int noise_initiation_accept(struct noise_handshake *hs, const struct noise_identity *id,
	const struct noise_initiation_open *open, const struct wire_initiation *msg, uint64_t now_ns)
{
	struct noise_symmetric s NOISE_SYMMETRIC_SCOPED;
	uint8_t timestamp[WIRE_TIMESTAMP_BYTES];
	int r;

	assert(sodium_memcmp(hs->remote_static, open->remote_static, NOISE_KEY_BYTES) == 0);
	if (!id->has)
		return -ENOKEY;
	resume(&s, open->hash, open->chaining_key);
	r = mix_static_static(&s, hs, id);
	if (r < 0)
		return r;
	r = noise_symmetric_open(&s, timestamp, msg->timestamp, sizeof(msg->timestamp));
	if (r < 0)
		return r;
	/* All of it is big-endian, so the order of the bytes is the order of time. */
	if (memcmp(timestamp, hs->latest_timestamp, sizeof(timestamp)) <= 0)
		return -EALREADY;
	if (hs->last_initiation_ns != 0 && now_ns < hs->last_initiation_ns + INITIATION_INTERVAL_NS)
		return -EBUSY;

	memcpy(hs->latest_timestamp, timestamp, sizeof(hs->latest_timestamp));
	hs->last_initiation_ns = MAX(now_ns, 1); /* 0 means never */
	memcpy(hs->remote_ephemeral, msg->ephemeral, sizeof(hs->remote_ephemeral));
	secret_zero(hs->ephemeral_private, sizeof(hs->ephemeral_private));
	hs->remote_index = load_le32(&msg->sender);
	store(hs, &s, NOISE_CONSUMED_INITIATION);
	return 0;
}

int noise_response_create(struct noise_handshake *hs, uint32_t local_index, struct wire_response *msg)
{
	struct noise_symmetric s NOISE_SYMMETRIC_SCOPED;
	uint8_t ephemeral_private[NOISE_KEY_BYTES] KEY_SCOPED;
	struct wire_response m;
	int r;

	if (hs->state != NOISE_CONSUMED_INITIATION)
		return -EINVAL;
	store_le32(&m.type, WIRE_RESPONSE);
	store_le32(&m.sender, local_index);
	store_le32(&m.receiver, hs->remote_index);

	resume(&s, hs->hash, hs->chaining_key);
	ephemeral_generate(ephemeral_private, m.ephemeral);
	noise_symmetric_mix_ephemeral(&s, m.ephemeral);
	r = noise_symmetric_mix_dh(&s, ephemeral_private, hs->remote_ephemeral);
	if (r < 0)
		return r;
	r = noise_symmetric_mix_dh(&s, ephemeral_private, hs->remote_static);
	if (r < 0)
		return r;
	noise_symmetric_mix_psk(&s, hs->preshared);
	noise_symmetric_seal(&s, m.empty, NULL, 0);

	memcpy(msg, &m, offsetof(struct wire_response, mac1));
	memcpy(hs->ephemeral_private, ephemeral_private, sizeof(hs->ephemeral_private));
	hs->local_index = local_index;
	store(hs, &s, NOISE_CREATED_RESPONSE);
	return 0;
}

int noise_response_consume(
	struct noise_handshake *hs, const struct noise_identity *id, const struct wire_response *msg)
{
	struct noise_symmetric s NOISE_SYMMETRIC_SCOPED;
	int r;

	if (hs->state != NOISE_CREATED_INITIATION || load_le32(&msg->receiver) != hs->local_index)
		return -EINVAL;
	if (!id->has)
		return -ENOKEY;
	resume(&s, hs->hash, hs->chaining_key);
	noise_symmetric_mix_ephemeral(&s, msg->ephemeral);
	r = noise_symmetric_mix_dh(&s, hs->ephemeral_private, msg->ephemeral);
	if (r < 0)
		return r;
	r = noise_symmetric_mix_dh(&s, id->private_key, msg->ephemeral);
	if (r < 0)
		return r;
	noise_symmetric_mix_psk(&s, hs->preshared);
	r = noise_symmetric_open(&s, NULL, msg->empty, sizeof(msg->empty));
	if (r < 0)
		return r;

	memcpy(hs->remote_ephemeral, msg->ephemeral, sizeof(hs->remote_ephemeral));
	hs->remote_index = load_le32(&msg->sender);
	store(hs, &s, NOISE_CONSUMED_RESPONSE);
	return 0;
}

void noise_session(struct noise_handshake *hs, struct keypair *k, uint64_t now_ns)
{
	assert(hs->state == NOISE_CREATED_RESPONSE || hs->state == NOISE_CONSUMED_RESPONSE);
	k->initiator = hs->state == NOISE_CONSUMED_RESPONSE;
	if (k->initiator)
		noise_symmetric_split(hs->chaining_key, k->send_key, k->receive_key);
	else
		noise_symmetric_split(hs->chaining_key, k->receive_key, k->send_key);
	k->send_counter = 0;
	replay_init(&k->replay);
	k->local_index = hs->local_index;
	k->remote_index = hs->remote_index;
	k->created_ns = now_ns;
	noise_handshake_clear(hs);
}

static void begin(struct noise_symmetric *s, const uint8_t responder_public[NOISE_KEY_BYTES])
{
	noise_symmetric_init(s, identifier, sizeof(identifier) - 1);
	noise_symmetric_mix_hash(s, responder_public, NOISE_KEY_BYTES);
}

static void resume(struct noise_symmetric *s, const uint8_t hash[NOISE_HASH_BYTES],
	const uint8_t chaining_key[NOISE_HASH_BYTES])
{
	memcpy(s->hash, hash, sizeof(s->hash));
	memcpy(s->chaining_key, chaining_key, sizeof(s->chaining_key));
}

static void store(struct noise_handshake *hs, const struct noise_symmetric *s, enum noise_state state)
{
	memcpy(hs->hash, s->hash, sizeof(hs->hash));
	memcpy(hs->chaining_key, s->chaining_key, sizeof(hs->chaining_key));
	hs->state = state;
}

/*
 * Token ss. The result depends on the two static keys only, so it is computed once: that halves the cost of a
 * flood of initiations that carry a known static key.
 */
static int mix_static_static(
	struct noise_symmetric *s, struct noise_handshake *hs, const struct noise_identity *id)
{
	if (!hs->has_static_static) {
		if (crypto_scalarmult(hs->static_static, id->private_key, hs->remote_static) != 0) {
			secret_zero(hs->static_static, sizeof(hs->static_static));
			return -EKEYREJECTED;
		}
		hs->has_static_static = true;
	}
	noise_symmetric_mix_key(s, hs->static_static);
	return 0;
}

static void ephemeral_generate(uint8_t private_key[NOISE_KEY_BYTES], uint8_t public_key[NOISE_KEY_BYTES])
{
	randombytes_buf(private_key, NOISE_KEY_BYTES);
	clamp(private_key);
	crypto_scalarmult_base(public_key, private_key);
}

static void clamp(uint8_t private_key[NOISE_KEY_BYTES])
{
	private_key[0] &= 0xf8;
	private_key[31] = (private_key[31] & 0x7f) | 0x40;
}

static void key_zero(uint8_t (*key)[NOISE_KEY_BYTES])
{
	secret_zero(key, sizeof(*key));
}
