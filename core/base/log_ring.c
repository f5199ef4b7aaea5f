#include "core/base/log_ring.h"

_Static_assert((LOG_RING_LINES & (LOG_RING_LINES - 1)) == 0, "a power of two");

static struct log_slot *slot_at(struct log_ring *ring, uint64_t position);
static uint64_t lap(uint64_t position);

struct log_line *log_ring_reserve(struct log_ring *ring)
{
	uint64_t position = atomic_load_explicit(&ring->reserved, memory_order_relaxed);
	const bool losing = atomic_load_explicit(&ring->lost, memory_order_relaxed);
	const uint64_t room = losing ? LOG_RING_LINES - LOG_RING_LINES / 4 : LOG_RING_LINES;
	struct log_slot *slot;

	do {
		slot = slot_at(ring, position);
		/* A queue that is full in fact shows by its slot; the counts, read one by one, only roughly. */
		const uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
		const uint64_t released = atomic_load_explicit(&ring->released, memory_order_relaxed);

		if (state < 2 * lap(position) || (int64_t)(position - released) >= (int64_t)room) {
			atomic_fetch_add_explicit(&ring->lost, 1, memory_order_relaxed);
			return NULL;
		}
		/* A slot that others have had since we read the position makes the exchange fail. */
	} while (!atomic_compare_exchange_weak_explicit(
		&ring->reserved, &position, position + 1, memory_order_relaxed, memory_order_relaxed));

	slot->line.lost = losing ? log_ring_take_lost(ring) : 0;
	return &slot->line;
}

void log_ring_commit(struct log_line *line)
{
	struct log_slot *slot = CONTAINER_OF(line, struct log_slot, line);
	const uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);

	atomic_store_explicit(&slot->state, state + 1, memory_order_release);
}

const struct log_line *log_ring_peek(struct log_ring *ring)
{
	const uint64_t position = atomic_load_explicit(&ring->released, memory_order_relaxed);
	struct log_slot *slot = slot_at(ring, position);

	if (atomic_load_explicit(&slot->state, memory_order_acquire) != 2 * lap(position) + 1)
		return NULL;
	return &slot->line;
}

void log_ring_release(struct log_ring *ring)
{
	const uint64_t position = atomic_load_explicit(&ring->released, memory_order_relaxed);

	atomic_store_explicit(&slot_at(ring, position)->state, 2 * lap(position) + 2, memory_order_release);
	atomic_store_explicit(&ring->released, position + 1, memory_order_relaxed);
}

uint64_t log_ring_take_lost(struct log_ring *ring)
{
	/* Mostly none, and then no write to what other threads look at. */
	if (!atomic_load_explicit(&ring->lost, memory_order_relaxed))
		return 0;
	return atomic_exchange_explicit(&ring->lost, 0, memory_order_relaxed);
}

static struct log_slot *slot_at(struct log_ring *ring, uint64_t position)
{
	return &ring->slot[position % LOG_RING_LINES];
}

static uint64_t lap(uint64_t position)
{
	return position / LOG_RING_LINES;
}
