/*
 * The device: identity, peers, tables and clocks of one interface, and all that is done with them except the
 * data path (core/protocol/egress.h, dispatch.h, ingress.h). No thread, no file descriptor, no global: the
 * simulation runs two devices on a clock of its own. Times are boottime nanoseconds and never 0.
 *
 * The **state holder** is the thread that holds the state baton (ring/baton.h): mostly the state thread; on
 * few CPUs also tun-rx, while it seals inline. It is a registered QSBR reader, online, and one turn is one
 * read section, which a wait for a free batch ends: hold nothing that was unlinked across gso_queue_slot(). It alone may call the functions below, unless a comment says otherwise, and debug builds
 * check that (device_assert_held()). What one holder wrote the next one sees: the baton is passed on with
 * release and taken with acquire.
 *
 *	field                      written by          read by          protected by
 *	nr_tun_tx_threads, aead,   control thread,     any              start of the threads
 *	queue, drops, baton        before they start
 *	*aead, *queue              state holder        state holder     state baton
 *	now_ns to staged_bytes,    state holder        state holder     state baton
 *	without the counters
 *	*drops, counters,          state holder        any              single-writer atomics, relaxed
 *	egress_counters
 *	sessions, allowed_ips      state holder        any RCU reader   RCU; see their headers
 *	running                    state holder        udp-rx           single-writer atomic, release/acquire
 *	mtu                        control thread      state holder     single-writer atomic, relaxed
 *
 * What hangs on a peer: core/protocol/peer.h.
 */
#pragma once

#include <urcu-qsbr.h>
#include <urcu/list.h>
#include <urcu/rculfhash.h>

#include "core/base/drops.h"
#include "core/protocol/allowed_ips.h"
#include "core/protocol/notes.h"
#include "core/protocol/peer.h"
#include "core/protocol/ratelimiter.h"
#include "core/protocol/session_table.h"
#include "core/protocol/timers.h"
#include "crypto/aead.h"
#include "crypto/cookie.h"
#include "crypto/noise.h"
#include "ring/baton.h"
#include "ring/histogram.h"
#include "udp/gso_queue.h"

#define TUN_TX_THREADS_MAX 64
#define DEVICE_PEERS_MAX (1u << 16)
#define DEVICE_ALLOWED_IPS_MAX (1u << 20)

#define REKEY_AFTER_TIME_NS (120 * NS_PER_SEC)
#define REJECT_AFTER_TIME_NS (180 * NS_PER_SEC)
#define REKEY_TIMEOUT_NS (5 * NS_PER_SEC)
#define REKEY_TIMEOUT_JITTER_NS (333 * NS_PER_MS)
#define REKEY_ATTEMPTS_MAX 18 /* REKEY_ATTEMPT_TIME / REKEY_TIMEOUT */
#define KEEPALIVE_TIMEOUT_NS (10 * NS_PER_SEC)
#define NEW_HANDSHAKE_TIME_NS (KEEPALIVE_TIMEOUT_NS + REKEY_TIMEOUT_NS)
#define ZERO_KEYS_TIME_NS (3 * REJECT_AFTER_TIME_NS)
#define RECEIVE_REKEY_AGE_NS (REJECT_AFTER_TIME_NS - KEEPALIVE_TIMEOUT_NS - REKEY_TIMEOUT_NS)

#define TOS_HANDSHAKE 0x88 /* AF41 */

struct device_counters {
	counter_t initiations_sent, responses_sent, cookies_sent;
	counter_t initiations_received, responses_received, cookies_received;
	counter_t handshakes_completed, keepalives_sent, rekeys;
};

/* Sealing. segments and bytes are of what was sealed, as it is in datagrams: without UDP and IP headers. */
struct egress_counters {
	counter_t trains, packets, segments, bytes;
	counter_t staged, unreachables_sent;
	struct histogram train_segments; /* how many one train became */
};

struct device {
	/* Constant while threads run. All but the first are the caller's to fill in, and not owned. */
	unsigned nr_tun_tx_threads; /* peers are spread over them */
	const struct baton *baton;  /* the state baton; NULL where there are no threads: nothing is checked */
	struct aead *aead;          /* seals */
	struct gso_queue *queue;    /* where handshake messages and data go */
	struct drops *drops;

	/* The state holder's. */
	uint64_t now_ns; /* set once per drain by device_set_time() */
	uint64_t realtime_ns;
	struct noise_identity identity;
	struct cookie_checker cookie_checker;
	struct ratelimiter ratelimiter;
	/* In order of insertion. Aligned as peer->link is: see there. */
	CACHE_ALIGNED struct cds_list_head peers;
	struct cds_lfht *peers_by_key;
	uint8_t by_key_secret[16]; /* keys its hash, so that nobody can choose public keys that collide */
	unsigned nr_peers;
	uint64_t next_peer_id;
	struct timer_heap timers;
	uint16_t listen_port; /* as reported by get */
	uint32_t fwmark;
	bool up;
	uint64_t under_load_until_ns;
	struct device_counters counters;
	struct egress_counters egress_counters;
	size_t staged_bytes; /* over all peers; see STAGED_BYTES_MAX */

	/* Read by other threads, too. */
	CACHE_ALIGNED struct session_table sessions;
	struct allowed_ips allowed_ips;
	_Atomic uint32_t mtu; /* written by the control thread */
	_Atomic bool running; /* what up is, for other threads */
};

/* Debug builds: the caller is the state holder. */
static inline void device_assert_held(const struct device *dev)
{
	assert(!dev->baton || baton_held_by_me(dev->baton));
}

/* Control thread, before any other uses dev. -ENOMEM; device_done() is harmless then. */
int device_init(struct device *dev, unsigned nr_tun_tx_threads, uint32_t mtu) MUST_CHECK;
/*
 * Control thread, after all others have ended: no reader is left, and the caller need not be one. Removes all
 * peers, waits for the RCU callbacks (also those of other devices), zeroes the identity. A caller that is a
 * registered reader is offline, or rcu_barrier() would never return. Accepts a zeroed device.
 */
void device_done(struct device *dev);

/* The start of a drain. Boottime must not go back. */
void device_set_time(struct device *dev, uint64_t now_ns, uint64_t realtime_ns);
/* Interface up: persistent keepalives go out as timers_run() comes to them. Down: sessions, handshakes,
 * timers and staged packets are cleared. Nothing happens where it is so already. */
void device_up(struct device *dev);
void device_down(struct device *dev);
/*
 * Changes the private key (all zero: none); the same key again changes nothing. Clears sessions and
 * handshakes, recomputes what depends on it, and removes a peer whose public key is now our own. Peers with a
 * persistent keepalive or with packets waiting start a new handshake, as timers_run() comes to them.
 */
void device_set_private_key(struct device *dev, const uint8_t private_key[NOISE_KEY_BYTES]);

/*
 * Takes over a peer made by peer_new(), and publishes it. The caller has checked that its key is new and not
 * our own, and that there are fewer than DEVICE_PEERS_MAX.
 */
void device_add_peer(struct device *dev, struct peer *peer);
/* Unpublishes and clears the peer; it is freed after a grace period. */
void device_remove_peer(struct device *dev, struct peer *peer);
/* NULL if there is none. */
struct peer *device_find_peer(const struct device *dev, const uint8_t public_key[NOISE_KEY_BYTES]);
/* All zero: none. Takes effect with the next handshake. */
void device_set_preshared(struct device *dev, struct peer *peer, const uint8_t preshared[NOISE_KEY_BYTES]);
/* By configuration: wins over where the peer roamed before. What waited for an endpoint goes on. */
void device_set_endpoint(struct device *dev, struct peer *peer, const struct endpoint *endpoint);
/* 0: off. Switched on while the interface is up, the first one is due at once, for timers_run(). */
void device_set_persistent_keepalive(struct device *dev, struct peer *peer, uint16_t seconds);

/* Acts on one note of a tun-tx thread: what a ring slot held, see core/protocol/notes.h. */
void device_note(struct device *dev, void *item);

/*
 * The session to send under: current, if it exists and is below REJECT_AFTER_TIME and REJECT_AFTER_MESSAGES
 * (with room for any one train); else NULL. Starts a handshake when there is none or when it is time to rekey
 * (REKEY_AFTER_MESSAGES, and for the initiator REKEY_AFTER_TIME). Asked once for each run of packets to a
 * peer.
 */
struct keypair *device_send_keypair(struct device *dev, struct peer *peer);
/* To be called after segments were sealed for peer. wire_bytes: their datagrams'; data: false for keepalives.
 * Arms the timers. */
void device_sent(struct device *dev, struct peer *peer, uint64_t wire_bytes, bool data);
