#include "ring/channel.h"

#include <errno.h>
#include <stdlib.h>

#include "ring/sanitize.h"

#define CAPACITY_MAX (1u << 20)
#define RING_SIZE_MIN 4 /* ck_ring's own lower limit */

static int init(struct channel *ch, unsigned capacity, struct park *consumer, bool many_producers);
static void publish(struct channel *ch, unsigned length);
static bool refuse(struct channel *ch);
static unsigned reserved(const struct channel *ch);

int spsc_init(
	struct channel *ch, unsigned capacity, struct park *consumer, struct spsc_tx *tx, struct spsc_rx *rx)
{
	int r = init(ch, capacity, consumer, false);

	if (r < 0)
		return r;
	tx->ch = ch;
	rx->ch = ch;
	return 0;
}

int mpsc_init(
	struct channel *ch, unsigned capacity, struct park *consumer, struct mpsc_tx *tx, struct mpsc_rx *rx)
{
	int r = init(ch, capacity, consumer, true);

	if (r < 0)
		return r;
	tx->ch = ch;
	rx->ch = ch;
	return 0;
}

void channel_done(struct channel *ch)
{
	free(ch->slots);
	ch->slots = NULL;
}

bool spsc_push(struct spsc_tx tx, void *item)
{
	struct channel *ch = tx.ch;
	unsigned length;
	struct ck_ring_buffer *slot = ck_ring_enqueue_reserve_spsc_size(&ch->ring, ch->slots, &length);

	/* With a single producer a reservation that is not committed has no effect. */
	if (!slot || length >= ch->capacity)
		return refuse(ch);
	TSAN_ACQUIRE(&ch->ring.c_head);
	slot->value = item;
	/*
	 * The producer's last reads of the item must come before the consumer's first writes to it, and ck
	 * orders only stores here. Pairs with the load fence in ck_ring_dequeue_spsc().
	 */
	ck_pr_fence_release();
	TSAN_RELEASE(&ch->ring.p_tail);
	ck_ring_enqueue_commit_spsc(&ch->ring);
	publish(ch, length + 1);
	return true;
}

/*
 * No producer waits for another: a slot that is not NULL is committed. The consumer takes a slot that is
 * still NULL for the end of the queue; whoever reserved that slot wakes the consumer after filling it.
 *
 * ck's own commit makes a producer spin until all who reserved before it have committed. With more producers
 * than CPUs, one that is preempted in between holds up the others for whole time slices, in which they spin:
 * four producers on two CPUs needed 48 s for a million items, which take one second this way.
 */
bool mpsc_push(struct mpsc_tx tx, void *item)
{
	struct channel *ch = tx.ch;
	struct ck_ring_buffer *slot;
	unsigned ticket, length;

	assert(item);
	/* With several producers a reservation cannot be taken back, so the capacity is checked before. */
	if (reserved(ch) >= ch->capacity)
		return refuse(ch);
	slot = ck_ring_enqueue_reserve_mpsc_size(&ch->ring, ch->slots, &ticket, &length);
	if (!slot)
		return refuse(ch);
	/* Pairs with the acquire in mpsc_pop(). */
	__atomic_store_n(&slot->value, item, __ATOMIC_RELEASE);
	publish(ch, length + 1);
	return true;
}

void *spsc_pop(struct spsc_rx rx)
{
	struct channel *ch = rx.ch;
	void *item;

	/*
	 * ck_ring checks this too. It is repeated so that the acquire stands between the load that saw the
	 * item and the load that reads its slot.
	 */
	if (ck_ring_size(&ch->ring) == 0)
		return NULL;
	TSAN_ACQUIRE(&ch->ring.p_tail);
	if (!ck_ring_dequeue_spsc(&ch->ring, ch->slots, &item))
		return NULL;
	/*
	 * This stands after the store that it describes, yet early enough: a full ring keeps one slot free,
	 * so this slot is written again only after the next pop.
	 */
	TSAN_RELEASE(&ch->ring.c_head);
	return item;
}

void *mpsc_pop(struct mpsc_rx rx)
{
	struct channel *ch = rx.ch;
	unsigned head = ch->ring.c_head;
	struct ck_ring_buffer *slot = &ch->slots[head & ch->ring.mask];
	/* Pairs with the release in mpsc_push(). */
	void *item = __atomic_load_n(&slot->value, __ATOMIC_ACQUIRE);

	if (!item)
		return NULL;
	__atomic_store_n(&slot->value, NULL, __ATOMIC_RELAXED);
	/* The slot must be empty before c_head tells the next producer that it may fill it. */
	ck_pr_fence_store();
	ck_pr_store_uint(&ch->ring.c_head, head + 1);
	return item;
}

unsigned channel_len(const struct channel *ch)
{
	return ch->many_producers ? reserved(ch) : ck_ring_size(&ch->ring);
}

static int init(struct channel *ch, unsigned capacity, struct park *consumer, bool many_producers)
{
	unsigned size = RING_SIZE_MIN;
	struct ck_ring_buffer *slots;
	size_t bytes;

	if (capacity == 0 || capacity > CAPACITY_MAX)
		return -EINVAL;
	/* ck_ring holds one item less than its size. */
	while (size < capacity + 1)
		size *= 2;
	bytes = ALIGN_UP(size * sizeof(*slots), (size_t)CACHE_LINE);
	slots = aligned_alloc(CACHE_LINE, bytes);
	if (!slots)
		return -ENOMEM;
	memset(slots, 0, bytes);
	memset(ch, 0, sizeof(*ch));
	ck_ring_init(&ch->ring, size);
	ch->slots = slots;
	ch->capacity = capacity;
	ch->consumer = consumer;
	ch->many_producers = many_producers;
	return 0;
}

static void publish(struct channel *ch, unsigned length)
{
	if (length > counter_read(&ch->counters.high_water))
		atomic_store_explicit(&ch->counters.high_water, length, memory_order_relaxed);
	if (ch->consumer)
		park_wake(ch->consumer);
}

static bool refuse(struct channel *ch)
{
	counter_add(&ch->counters.refused, 1);
	return false;
}

/*
 * Items in an mpsc ring and on their way into it. The producers' index is read first: a consumer that pops in
 * between makes the answer too small, never too large, so no producer is refused while there is room.
 */
static unsigned reserved(const struct channel *ch)
{
	unsigned producers = ck_pr_load_uint(&ch->ring.p_head);
	unsigned consumer;

	/* Keeps the two loads in that order. Pairs with nothing: both indices only grow. */
	ck_pr_fence_load();
	consumer = ck_pr_load_uint(&ch->ring.c_head);
	/* The consumer has passed the index that was read first: nothing of that time is left. */
	if ((int)(producers - consumer) < 0)
		return 0;
	return producers - consumer;
}
