#include "core/protocol/timers.h"

#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdlib.h>

#include "core/base/log.h"
#include "core/protocol/device.h"
#include "core/protocol/egress.h"
#include "core/protocol/handshake.h"

static void retransmit_handshake_expired(struct device *dev, struct peer *peer);
static void send_keepalive_expired(struct device *dev, struct peer *peer);
static void new_handshake_expired(struct device *dev, struct peer *peer);
static void zero_keys_expired(struct device *dev, struct peer *peer);
static void persistent_keepalive_expired(struct device *dev, struct peer *peer);
static void start_expired(struct device *dev, struct peer *peer);
static void keepalive_idle(struct device *dev, struct peer *peer);

static uint64_t earliest(const struct peer *peer);
static void refile(struct timer_heap *h, struct peer *peer);
static void place(struct timer_heap *h, unsigned slot, struct peer *peer);
static void sift_up(struct timer_heap *h, unsigned slot);
static void sift_down(struct timer_heap *h, unsigned slot);
static void take_out(struct timer_heap *h, struct peer *peer);

static void (*const expired[PEER_TIMERS])(struct device *, struct peer *) = {
	[TIMER_RETRANSMIT_HANDSHAKE] = retransmit_handshake_expired,
	[TIMER_SEND_KEEPALIVE] = send_keepalive_expired,
	[TIMER_NEW_HANDSHAKE] = new_handshake_expired,
	[TIMER_ZERO_KEYS] = zero_keys_expired,
	[TIMER_PERSISTENT_KEEPALIVE] = persistent_keepalive_expired,
	[TIMER_START] = start_expired,
};

int timer_heap_init(struct timer_heap *h, unsigned capacity)
{
	struct peer **heap = calloc(capacity, sizeof(*heap));

	if (!heap)
		return -ENOMEM;
	*h = (struct timer_heap){.heap = heap, .capacity = capacity};
	return 0;
}

void timer_heap_done(struct timer_heap *h)
{
	free(h->heap);
	*h = (struct timer_heap){0};
}

void timers_arm(struct device *dev, struct peer *peer, enum peer_timer timer, uint64_t deadline_ns)
{
	struct timer_heap *h = &dev->timers;

	device_assert_held(dev);
	if (!dev->up || peer->removed)
		return;
	peer->deadline_ns[timer] = deadline_ns;
	if (peer->timer_slot == UINT_MAX) {
		CHECK(h->nr < h->capacity);
		peer->timer_key_ns = deadline_ns;
		place(h, h->nr++, peer);
		sift_up(h, peer->timer_slot);
	} else if (deadline_ns < peer->timer_key_ns) {
		peer->timer_key_ns = deadline_ns;
		sift_up(h, peer->timer_slot);
	}
}

void timers_cancel(struct peer *peer, enum peer_timer timer)
{
	peer->deadline_ns[timer] = 0;
}

void timers_cancel_all(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	for (unsigned i = 0; i < PEER_TIMERS; i++)
		peer->deadline_ns[i] = 0;
	if (peer->timer_slot != UINT_MAX)
		take_out(&dev->timers, peer);
}

bool timers_armed(const struct peer *peer, enum peer_timer timer)
{
	return peer->deadline_ns[timer] != 0;
}

uint64_t timers_run(struct device *dev, unsigned max_peers)
{
	struct timer_heap *h = &dev->timers;

	device_assert_held(dev);
	for (unsigned n = 0; n < max_peers && h->nr && h->heap[0]->timer_key_ns <= dev->now_ns; n++) {
		struct peer *peer = h->heap[0];

		for (unsigned i = 0; i < PEER_TIMERS; i++) {
			if (!peer->deadline_ns[i] || peer->deadline_ns[i] > dev->now_ns)
				continue;
			peer->deadline_ns[i] = 0;
			expired[i](dev, peer);
		}
		refile(h, peer);
	}
	return timers_next(dev);
}

uint64_t timers_next(const struct device *dev)
{
	const struct timer_heap *h = &dev->timers;

	device_assert_held(dev);
	return h->nr ? h->heap[0]->timer_key_ns : UINT64_MAX;
}

uint64_t timers_jittered(const struct device *dev, uint64_t interval_ns)
{
	return dev->now_ns + interval_ns + randombytes_uniform((uint32_t)REKEY_TIMEOUT_JITTER_NS + 1);
}

void timers_data_received(struct device *dev, struct peer *peer)
{
	const uint64_t first_rx_ns =
		atomic_load_explicit(&peer->first_unanswered_rx_ns, memory_order_relaxed);
	const uint64_t last_tx_ns = atomic_load_explicit(&peer->last_tx_ns, memory_order_relaxed);

	device_assert_held(dev);
	if (timers_armed(peer, TIMER_SEND_KEEPALIVE))
		return;
	/* Also when an answer has gone out meanwhile: wants_rx_note is down, and only this timer raises it
	 * again. */
	timers_arm(dev, peer, TIMER_SEND_KEEPALIVE,
		(first_rx_ns > last_tx_ns ? first_rx_ns : dev->now_ns) + KEEPALIVE_TIMEOUT_NS);
}

void timers_session_retired(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	if (!timers_armed(peer, TIMER_SEND_KEEPALIVE))
		timers_arm(dev, peer, TIMER_SEND_KEEPALIVE, dev->now_ns + KEEPALIVE_TIMEOUT_NS);
}

/* The initiation was not answered: try again, or give up and drop what is staged. */
static void retransmit_handshake_expired(struct device *dev, struct peer *peer)
{
	char name[PEER_NAME_BYTES];

	if (peer->handshake_attempts + 1 >= REKEY_ATTEMPTS_MAX) {
		log_limited(LOG_LEVEL_INFO, LOG_HANDSHAKE,
			"%s: handshake did not complete after %u attempts, giving up", peer_name(peer, name),
			REKEY_ATTEMPTS_MAX);
		egress_purge_staged(dev, peer);
		/* What the attempts left of keys must not stay for ever. An older session has armed this
		 * already. */
		if (!timers_armed(peer, TIMER_ZERO_KEYS))
			timers_arm(dev, peer, TIMER_ZERO_KEYS, dev->now_ns + ZERO_KEYS_TIME_NS);
		return;
	}
	peer->handshake_attempts++;
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: handshake did not complete after %u s, retrying (try %u)",
		peer_name(peer, name), (unsigned)(REKEY_TIMEOUT_NS / NS_PER_SEC),
		peer->handshake_attempts + 1);
	/* Perhaps nothing comes back because of the source address that we send from. */
	peer_forget_source(peer);
	handshake_initiate(dev, peer, true);
	/* If a response that we sent meanwhile holds initiations back, this one waits until they may go
	 * again. */
	if (!timers_armed(peer, TIMER_RETRANSMIT_HANDSHAKE) && dev->now_ns < peer->initiation_held_until_ns)
		timers_arm(dev, peer, TIMER_RETRANSMIT_HANDSHAKE, peer->initiation_held_until_ns);
}

/* Data came. If nothing has gone since, say that we are alive; otherwise go idle until more data comes. */
static void send_keepalive_expired(struct device *dev, struct peer *peer)
{
	const uint64_t first_rx_ns =
		atomic_load_explicit(&peer->first_unanswered_rx_ns, memory_order_relaxed);

	peer_take_roamed(peer);
	if (first_rx_ns > atomic_load_explicit(&peer->last_tx_ns, memory_order_relaxed)) {
		if (first_rx_ns + KEEPALIVE_TIMEOUT_NS > dev->now_ns) {
			timers_arm(dev, peer, TIMER_SEND_KEEPALIVE, first_rx_ns + KEEPALIVE_TIMEOUT_NS);
			return;
		}
		egress_keepalive(dev, peer);
		if (first_rx_ns > atomic_load_explicit(&peer->last_tx_ns, memory_order_relaxed)) {
			/* Nothing could be sent, not even an initiation: there is no endpoint or no private
			 * key. */
			timers_arm(dev, peer, TIMER_SEND_KEEPALIVE, dev->now_ns + KEEPALIVE_TIMEOUT_NS);
			return;
		}
	}
	keepalive_idle(dev, peer);
}

/* Data went and nothing has come since: the other end may have lost the session. */
static void new_handshake_expired(struct device *dev, struct peer *peer)
{
	const uint64_t first_tx_ns = peer->first_unanswered_tx_ns;
	char name[PEER_NAME_BYTES];

	if (!first_tx_ns || peer_last_rx_ns(peer) > first_tx_ns)
		return;
	if (first_tx_ns + NEW_HANDSHAKE_TIME_NS > dev->now_ns) {
		timers_arm(dev, peer, TIMER_NEW_HANDSHAKE,
			timers_jittered(dev, first_tx_ns + NEW_HANDSHAKE_TIME_NS - dev->now_ns));
		return;
	}
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: heard nothing for %u s, starting a new handshake",
		peer_name(peer, name), (unsigned)(NEW_HANDSHAKE_TIME_NS / NS_PER_SEC));
	/* The wait starts again with the next data sent. */
	peer->first_unanswered_tx_ns = 0;
	peer_forget_source(peer);
	handshake_initiate(dev, peer, false);
}

/* Long after the last session: nothing that could open recorded traffic stays in memory. */
static void zero_keys_expired(struct device *dev, struct peer *peer)
{
	char name[PEER_NAME_BYTES];

	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: erasing all keys, no new ones for %u s",
		peer_name(peer, name), (unsigned)(ZERO_KEYS_TIME_NS / NS_PER_SEC));
	peer_clear_sessions(dev, peer);
	/* A handshake in flight is younger: it ends in a session, or gives up and arms this timer again. */
	if (!timers_armed(peer, TIMER_RETRANSMIT_HANDSHAKE))
		handshake_clear(dev, peer);
}

static void persistent_keepalive_expired(struct device *dev, struct peer *peer)
{
	const uint64_t interval_ns = peer->persistent_keepalive_s * NS_PER_SEC;

	if (!interval_ns)
		return;
	if (peer_last_traffic_ns(peer) + interval_ns <= dev->now_ns)
		egress_keepalive(dev, peer);
	const uint64_t next_ns = peer_last_traffic_ns(peer) + interval_ns;
	/* If nothing could be sent, next_ns has passed: try again in an interval, not at once. */
	timers_arm(dev, peer, TIMER_PERSISTENT_KEEPALIVE,
		next_ns > dev->now_ns ? next_ns : dev->now_ns + interval_ns);
}

/* The interface came up, the private key was changed, or a persistent keepalive was switched on. Sends even
 * if there was traffic a moment ago: that may have been under keys that are gone. */
static void start_expired(struct device *dev, struct peer *peer)
{
	/* Both may have gone since. */
	if (peer->persistent_keepalive_s || peer->staged_first)
		egress_keepalive(dev, peer);
}

/* Asks the owner's thread for a note of the next data, without missing what comes at this moment. */
static void keepalive_idle(struct device *dev, struct peer *peer)
{
	atomic_store_explicit(&peer->wants_rx_note, true, memory_order_relaxed);
	/*
	 * Pairs with the fence in note_received(), ingress.c, between the store to first_unanswered_rx_ns and
	 * the load of wants_rx_note: if that thread did not see the flag up, its store is seen here.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	const uint64_t first_rx_ns =
		atomic_load_explicit(&peer->first_unanswered_rx_ns, memory_order_relaxed);
	if (first_rx_ns > atomic_load_explicit(&peer->last_tx_ns, memory_order_relaxed))
		timers_arm(dev, peer, TIMER_SEND_KEEPALIVE, first_rx_ns + KEEPALIVE_TIMEOUT_NS);
}

/* ---- the heap ---- */

static uint64_t earliest(const struct peer *peer)
{
	uint64_t min_ns = UINT64_MAX;

	for (unsigned i = 0; i < PEER_TIMERS; i++)
		if (peer->deadline_ns[i])
			min_ns = MIN(min_ns, peer->deadline_ns[i]);
	return min_ns;
}

/* After peer's timers have expired: files it under the deadline that is next now, or takes it out. */
static void refile(struct timer_heap *h, struct peer *peer)
{
	if (peer->timer_slot == UINT_MAX)
		return;
	peer->timer_key_ns = earliest(peer);
	if (peer->timer_key_ns == UINT64_MAX) {
		take_out(h, peer);
		return;
	}
	sift_up(h, peer->timer_slot);
	sift_down(h, peer->timer_slot);
}

static void place(struct timer_heap *h, unsigned slot, struct peer *peer)
{
	h->heap[slot] = peer;
	peer->timer_slot = slot;
}

static void sift_up(struct timer_heap *h, unsigned slot)
{
	struct peer *peer = h->heap[slot];

	while (slot) {
		const unsigned parent = (slot - 1) / 2;

		if (h->heap[parent]->timer_key_ns <= peer->timer_key_ns)
			break;
		place(h, slot, h->heap[parent]);
		slot = parent;
	}
	place(h, slot, peer);
}

static void sift_down(struct timer_heap *h, unsigned slot)
{
	struct peer *peer = h->heap[slot];

	for (;;) {
		unsigned child = 2 * slot + 1;

		if (child >= h->nr)
			break;
		if (child + 1 < h->nr && h->heap[child + 1]->timer_key_ns < h->heap[child]->timer_key_ns)
			child++;
		if (h->heap[child]->timer_key_ns >= peer->timer_key_ns)
			break;
		place(h, slot, h->heap[child]);
		slot = child;
	}
	place(h, slot, peer);
}

static void take_out(struct timer_heap *h, struct peer *peer)
{
	const unsigned slot = peer->timer_slot;
	struct peer *last = h->heap[--h->nr];

	peer->timer_slot = UINT_MAX;
	if (last == peer)
		return;
	place(h, slot, last);
	sift_up(h, slot);
	sift_down(h, last->timer_slot);
}
