/*
 * Data messages under a fixed key, through every AEAD backend at once: all must judge alike and give the same
 * bytes. Twice: the input as a datagram, and the input as what the peer that holds the key says under that
 * counter, after which the replay window must take it once. Then the whole input is read as a row of
 * counters.
 */
#include <stdlib.h>

#include "crypto/keypair.h"
#include "crypto/secret.h"
#include "crypto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(condition)                                                                                    \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			abort();                                                                             \
	} while (0)

#define MESSAGE_MAX 65535

static const uint8_t key[AEAD_KEY_BYTES] = {0x77, 1, 2, 3};
static struct aead *backend[AEAD_BACKENDS_MAX];
static unsigned nr_backends;
/* Of each backend: what it made of the message. */
static uint8_t text[AEAD_BACKENDS_MAX][MESSAGE_MAX + AEAD_TAG_BYTES];
static struct replay replay;

static bool open_all(const uint8_t *sealed, uint32_t len, uint64_t counter);
static void seal_all(const uint8_t *plain, uint32_t len, uint64_t counter);
static void accept_counters(const uint8_t *data, size_t size);

static void set_up(void)
{
	EXPECT(secret_init() == 0);
	for (unsigned i = 0; aead_backends[i] != NULL; i++) {
		int err;
		struct aead *aead = aead_backends[i]->create(&err);

		if (aead != NULL)
			backend[nr_backends++] = aead;
	}
	EXPECT(nr_backends > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (nr_backends == 0)
		set_up();
	replay_init(&replay);
	if (size <= MESSAGE_MAX && wire_classify(data, size) == WIRE_DATA) {
		uint32_t len = (uint32_t)(size - WIRE_DATA_HEADER_BYTES);
		uint64_t counter = load_le64(data + offsetof(struct wire_data, counter));
		uint8_t header[WIRE_DATA_HEADER_BYTES];

		/* The header has no byte that is not in one of its three fields. */
		wire_data_header(header, load_le32(data + offsetof(struct wire_data, receiver)), counter);
		EXPECT(memcmp(header, data, sizeof(header)) == 0);

		if (open_all(data + WIRE_DATA_HEADER_BYTES, len, counter))
			EXPECT(replay_accept(&replay, counter) == (counter < REJECT_AFTER_MESSAGES));
		replay_init(&replay);
		seal_all(data + WIRE_DATA_HEADER_BYTES, len, counter);
		EXPECT(replay_accept(&replay, counter) == (counter < REJECT_AFTER_MESSAGES));
		EXPECT(!replay_accept(&replay, counter));
	}
	replay_init(&replay);
	accept_counters(data, size);
	return 0;
}

/* Whether they all say it is genuine (they must all say the same). */
static bool open_all(const uint8_t *sealed, uint32_t len, uint64_t counter)
{
	bool ok = false;

	for (unsigned i = 0; i < nr_backends; i++) {
		struct aead_open_seg seg = {.data = text[i], .len = len, .counter = counter};

		memcpy(text[i], sealed, len);
		EXPECT(backend[i]->open_train(backend[i], key, &seg, 1) == seg.ok);
		EXPECT(i == 0 || seg.ok == ok);
		ok = seg.ok;
		EXPECT(!ok || memcmp(text[i], text[0], len - AEAD_TAG_BYTES) == 0);
	}
	return ok;
}

struct one_segment {
	struct aead_seal_source source;
	struct aead_seal_seg seg;
	bool done;
};

static bool next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct one_segment *one = CONTAINER_OF(source, struct one_segment, source);

	if (one->done)
		return false;
	*seg = one->seg;
	one->done = true;
	return true;
}

static void seal_all(const uint8_t *plain, uint32_t len, uint64_t counter)
{
	static uint8_t sealed[MESSAGE_MAX + AEAD_TAG_BYTES];

	for (unsigned i = 0; i < nr_backends; i++) {
		struct one_segment one = {{next}, {text[i], plain, len}, false};

		EXPECT(backend[i]->seal_train(backend[i], key, counter, &one.source) == 1);
		EXPECT(memcmp(text[i], text[0], len + AEAD_TAG_BYTES) == 0);
	}
	memcpy(sealed, text[0], len + AEAD_TAG_BYTES);
	EXPECT(open_all(sealed, len + AEAD_TAG_BYTES, counter));
	EXPECT(len == 0 || memcmp(text[0], plain, len) == 0);
	sealed[counter % (len + AEAD_TAG_BYTES)] ^= 1;
	EXPECT(!open_all(sealed, len + AEAD_TAG_BYTES, counter));
}

/* Steps of 3 bytes, forwards and backwards; nothing that was taken is taken again. */
static void accept_counters(const uint8_t *data, size_t size)
{
	uint64_t counter = 1u << 20, highest = 0;

	for (; size >= 3; data += 3, size -= 3) {
		int64_t step = (int16_t)load_be16(data) * (1 + data[2] % 4);

		counter += (uint64_t)step;
		if (replay_accept(&replay, counter)) {
			EXPECT(counter > highest || highest - counter <= REPLAY_WINDOW);
			highest = MAX(highest, counter);
		} else {
			EXPECT(counter <= highest || counter >= REJECT_AFTER_MESSAGES);
		}
		EXPECT(!replay_accept(&replay, counter));
	}
}
