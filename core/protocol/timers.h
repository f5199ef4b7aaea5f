/*
 * The timers of each peer, the five of the WireGuard paper (section 6) and one of our own, in one binary heap
 * of peers keyed by earliest deadline. All of it, heap and deadlines, is the state holder's.
 *
 * A peer's place in the heap may be too early, never too late. Traffic only moves timestamps
 * (peer->last_tx_ns, last_rx_ns, first_unanswered_*); a timer that fires looks at them, and arms itself again
 * for the real deadline or goes idle. So sending does not touch the heap while a timer is armed, and
 * receiving never does: a tun-tx thread sends NOTE_DATA_RECEIVED, once for each time that wants_rx_note was
 * raised, and the state holder arms the timer.
 */
#pragma once

#include "ring/base.h"

struct device;
struct peer;

/* What happens when one expires is in timers.c. */
enum peer_timer {
	TIMER_RETRANSMIT_HANDSHAKE, /* REKEY_TIMEOUT + jitter after an initiation */
	TIMER_SEND_KEEPALIVE,       /* KEEPALIVE_TIMEOUT after data came and nothing went */
	TIMER_NEW_HANDSHAKE, /* KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter after data went and nothing came */
	TIMER_ZERO_KEYS,     /* 3 * REJECT_AFTER_TIME after the last session */
	TIMER_PERSISTENT_KEEPALIVE,
	TIMER_START, /* at once, but in turn with other peers: see start_expired() */
	PEER_TIMERS
};

struct timer_heap {
	struct peer **heap;
	unsigned nr, capacity;
};

/* Control thread. -ENOMEM. capacity in peers. */
int timer_heap_init(struct timer_heap *h, unsigned capacity) MUST_CHECK;
/* Accepts a zeroed heap. */
void timer_heap_done(struct timer_heap *h);

/* Arms one timer of peer; a deadline that it had is replaced. Nothing happens while the interface is down or
 * once the peer is removed. */
void timers_arm(struct device *dev, struct peer *peer, enum peer_timer timer, uint64_t deadline_ns);
void timers_cancel(struct peer *peer, enum peer_timer timer);
void timers_cancel_all(struct device *dev, struct peer *peer);

/* Is it armed? */
bool timers_armed(const struct peer *peer, enum peer_timer timer);

/*
 * Runs what is due at dev->now_ns, of max_peers peers at most: each may cost a handshake. Returns the next
 * deadline (boottime), UINT64_MAX if none. It may be too early, and if it has passed there is more to run.
 */
uint64_t timers_run(struct device *dev, unsigned max_peers);

/* What timers_run() would return if it ran nothing. */
uint64_t timers_next(const struct device *dev);

/* A deadline of interval_ns from now plus 0..333 ms at random, so that two ends do not stay in step. */
uint64_t timers_jittered(const struct device *dev, uint64_t interval_ns);
/* After NOTE_DATA_RECEIVED: arms TIMER_SEND_KEEPALIVE for what came and was not answered. */
void timers_data_received(struct device *dev, struct peer *peer);
/* A session of peer was retired: its last notes may be lost; see core/protocol/notes.h. */
void timers_session_retired(struct device *dev, struct peer *peer);
