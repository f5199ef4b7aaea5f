/* Sealing and opening by backend and length, and the replay window. */
#include "perf/micro.h"

#include <sodium.h>
#include <stdlib.h>

#include "crypto/aead.h"
#include "crypto/keypair.h"
#include "crypto/replay.h"

#define SEGMENTS 45 /* as many as one GSO batch carries at an MTU of 1420 */
#define SLOT_BYTES 1536
#define WINDOW 256

struct cipher {
	struct aead_seal_source source; /* first: see next() */
	struct aead *aead;
	uint32_t len;
	unsigned i;
	uint64_t counter;
	uint8_t key[AEAD_KEY_BYTES];
	struct aead_open_seg segs[SEGMENTS];
	CACHE_ALIGNED uint8_t plain[SEGMENTS][SLOT_BYTES];
	uint8_t sealed[SEGMENTS][SLOT_BYTES]; /* what must come out */
	uint8_t work[SEGMENTS][SLOT_BYTES];
};

static bool next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct cipher *c = CONTAINER_OF(source, struct cipher, source);

	if (c->i == SEGMENTS)
		return false;
	*seg = (struct aead_seal_seg){.dst = c->work[c->i], .src = c->plain[c->i], .len = c->len};
	c->i++;
	return true;
}

/* RFC 8439, section 2.8, out of a cipher and a MAC: nothing of it is what the backends call. */
static void seal_by_parts(uint8_t *out, const uint8_t *in, uint32_t len, uint64_t counter, const uint8_t *key)
{
	static const uint8_t zeros[16];
	uint8_t nonce[12] = {0}, mac_key[32], lengths[16] = {0};
	crypto_onetimeauth_poly1305_state mac;

	store_le64(nonce + 4, counter);
	store_le64(lengths + 8, len);
	crypto_stream_chacha20_ietf(mac_key, sizeof(mac_key), nonce, key);
	crypto_stream_chacha20_ietf_xor_ic(out, in, len, nonce, 1, key);
	crypto_onetimeauth_poly1305_init(&mac, mac_key);
	crypto_onetimeauth_poly1305_update(&mac, out, len);
	crypto_onetimeauth_poly1305_update(&mac, zeros, ALIGN_UP(len, 16u) - len);
	crypto_onetimeauth_poly1305_update(&mac, lengths, sizeof(lengths));
	crypto_onetimeauth_poly1305_final(&mac, out + len);
}

static void *setup(const struct stage *s, const char **why)
{
	const struct aead_backend *backend = s->kind;
	int err;
	struct aead *aead = backend->create(&err);

	if (!aead) {
		*why = "the cipher is not to be had on this CPU or with this library";
		return NULL;
	}
	struct cipher *c = micro_alloc(sizeof(*c));
	c->source.next = next;
	c->aead = aead;
	c->len = s->n;
	randombytes_buf(c->key, sizeof(c->key));
	for (unsigned i = 0; i < SEGMENTS; i++) {
		randombytes_buf(c->plain[i], c->len);
		seal_by_parts(c->sealed[i], c->plain[i], c->len, i, c->key);
	}
	return c;
}

static void done(void *ctx)
{
	struct cipher *c = ctx;

	aead_free(c->aead);
	free(c);
}

/* Always under the same counters, so that the outcome can be compared. */
static unsigned turn_seal(void *ctx)
{
	struct cipher *c = ctx;

	c->i = 0;
	return c->aead->seal_train(c->aead, c->key, 0, &c->source);
}

static void check_seal(void *ctx)
{
	struct cipher *c = ctx;

	memset(c->work, 0, sizeof(c->work));
	micro_require(turn_seal(c) == SEGMENTS);
	for (unsigned i = 0; i < SEGMENTS; i++)
		micro_require(!memcmp(c->work[i], c->sealed[i], c->len + AEAD_TAG_BYTES));
}

static void prepare_open(void *ctx)
{
	struct cipher *c = ctx;

	for (unsigned i = 0; i < SEGMENTS; i++) {
		memcpy(c->work[i], c->sealed[i], c->len + AEAD_TAG_BYTES);
		c->segs[i] = (struct aead_open_seg){
			.data = c->work[i], .len = c->len + AEAD_TAG_BYTES, .counter = i};
	}
}

static unsigned turn_open(void *ctx)
{
	struct cipher *c = ctx;

	return c->aead->open_train(c->aead, c->key, c->segs, SEGMENTS);
}

static void check_open(void *ctx)
{
	struct cipher *c = ctx;

	prepare_open(c);
	micro_require(turn_open(c) == SEGMENTS);
	for (unsigned i = 0; i < SEGMENTS; i++)
		micro_require(c->segs[i].ok && !memcmp(c->work[i], c->plain[i], c->len));
	prepare_open(c);
	c->work[1][0] ^= 1;
	c->work[2][c->len] ^= 1;
	micro_require(turn_open(c) == SEGMENTS - 2 && !c->segs[1].ok && !c->segs[2].ok);
}

struct window {
	struct replay replay;
	uint64_t next;
	unsigned swap; /* 0: in order; else each so many counters in reverse order */
};

static void *setup_replay(const struct stage *s, const char **why)
{
	struct window *w = micro_alloc(sizeof(*w));

	replay_init(&w->replay);
	w->swap = s->n;
	return w;
}

static unsigned turn_replay(void *ctx)
{
	struct window *w = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < WINDOW; i++)
		good += replay_accept(&w->replay, w->next + (i ^ w->swap));
	w->next += WINDOW;
	return good;
}

static void check_replay(void *ctx)
{
	struct window *w = ctx;
	const uint64_t first = w->next;

	micro_require(turn_replay(w) == WINDOW);
	for (unsigned i = 0; i < WINDOW; i++)
		micro_require(!replay_accept(&w->replay, first + i));
	w->next += REPLAY_WINDOW;
	micro_require(turn_replay(w) == WINDOW);
	micro_require(!replay_accept(&w->replay, first + WINDOW) &&
		      !replay_accept(&w->replay, REJECT_AFTER_MESSAGES));
}

void micro_crypto_stages(void)
{
	static const unsigned lengths[] = {64, 256, 576, 1280, 1420};
	static const struct stage_ops seal = {setup, check_seal, NULL, turn_seal, done};
	static const struct stage_ops open = {setup, check_open, prepare_open, turn_open, done};
	static const struct stage_ops replay = {setup_replay, check_replay, NULL, turn_replay, free};
	struct stage s = {.unit = "packet", .units = SEGMENTS, .hot = true};

	for (unsigned b = 0; aead_backends[b]; b++) {
		s.kind = aead_backends[b];
		for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
			s.n = lengths[i];
			s.ops = &seal;
			micro_add(&s, "seal/%s/%u", aead_backends[b]->name, s.n);
		}
		for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
			s.n = lengths[i];
			s.ops = &open;
			micro_add(&s, "open/%s/%u", aead_backends[b]->name, s.n);
		}
	}
	s = (struct stage){.ops = &replay, .unit = "packet", .units = WINDOW, .hot = true};
	micro_add(&s, "replay/in-order");
	s.n = 7;
	micro_add(&s, "replay/reordered");
}
