/*
 * The five timers of each peer (WireGuard paper, section 6) in one binary heap of peers keyed by earliest deadline. Crypto thread.
 *
 * Cancelling is lazy: traffic only moves timestamps (peer->last_tx_ns, last_rx_ns, first_unanswered_*), and a timer that fires looks at
 * them and re-arms itself for the real deadline or goes idle. So the data path never touches the heap while a timer is armed, and the
 * decrypt threads never touch it at all: NOTE_DATA_RECEIVED (at most one per armed keepalive timer, through wants_rx_note) arms it.
 */
#pragma once

#include "ring/base.h"

struct device;
struct peer;
enum peer_timer;

struct timer_heap {
	struct peer **heap;
	unsigned nr, capacity;
};

/* Control thread. -ENOMEM. capacity in peers. */
int timer_heap_init(struct timer_heap *h, unsigned capacity) MUST_CHECK;
void timer_heap_done(struct timer_heap *h);

/* Arms one timer of peer, replacing its deadline. */
void timers_arm(struct device *dev, struct peer *peer, enum peer_timer timer, uint64_t deadline_ns);
void timers_cancel(struct peer *peer, enum peer_timer timer);
void timers_cancel_all(struct device *dev, struct peer *peer);

/* Runs all that is due at dev->now_ns. Returns the next deadline (boottime), UINT64_MAX when none. */
uint64_t timers_run(struct device *dev);
