/*
 * The device: identity, peers, tables and clocks of one interface, and everything the state thread
 * does with them except the data path (core/protocol/egress.h, core/protocol/ingress.h). No thread, no file descriptor, no
 * global: the simulation runs two of them on a fake clock. All functions run on the state thread unless they
 * say otherwise; the state thread is a registered QSBR reader, online, and one drain is one read section.
 * "State thread", here and in the files around, means whoever holds its baton: core/threads/threads.h. Times are
 * boottime nanoseconds and never 0.
 */
#pragma once

#include <urcu-qsbr.h>
#include <urcu/list.h>
#include <urcu/rculfhash.h>

#include "core/protocol/allowed_ips.h"
#include "core/base/drops.h"
#include "core/protocol/session_table.h"
#include "core/protocol/notes.h"
#include "core/protocol/peer.h"
#include "core/protocol/ratelimiter.h"
#include "core/protocol/timers.h"
#include "crypto/aead.h"
#include "crypto/cookie.h"
#include "crypto/noise.h"
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

/* Sealing, by the state thread. segments and bytes as sealed: wire bytes without UDP and IP headers. */
struct egress_counters {
	counter_t trains, packets, segments, bytes;
	counter_t staged, unreachables_sent;
	struct histogram train_segments; /* sealed of a train */
};

struct device {
	/* constant after device_init() */
	unsigned nr_tun_tx_threads;

	/* state thread */
	uint64_t now_ns; /* boottime, set once per drain by device_set_time() */
	uint64_t realtime_ns;
	struct noise_identity identity;
	struct cookie_checker cookie_checker;
	struct ratelimiter ratelimiter;
	/* In order of insertion. Aligned as peer->link is, so that even the end of a walk names an aligned
	 * peer. */
	CACHE_ALIGNED struct cds_list_head peers;
	struct cds_lfht *peers_by_key;
	uint8_t by_key_secret[16]; /* of its hash, so that nobody can choose keys that collide */
	unsigned nr_peers;
	uint64_t next_peer_id;
	struct timer_heap timers;
	uint16_t listen_port; /* as reported by get */
	uint32_t fwmark;
	bool up;
	uint64_t under_load_until_ns;
	struct aead *aead;       /* state thread's own; not owned */
	struct gso_queue *queue; /* where handshake messages and data go; not owned */
	struct drops *drops;
	struct device_counters counters;
	struct egress_counters egress_counters;
	size_t staged_bytes; /* over all peers; see STAGED_BYTES_MAX */

	/* RCU-published, read by other threads */
	struct session_table sessions;
	struct allowed_ips allowed_ips;
	_Atomic uint32_t mtu;
	_Atomic bool running; /* mirror of up for other threads */
};

/* Control thread. aead, queue and drops are the caller's to fill in. -ENOMEM. */
int device_init(struct device *dev, unsigned nr_tun_tx_threads, uint32_t mtu) MUST_CHECK;
/*
 * All threads have ended, so no reader is left; the caller need not be one. Removes all peers, waits for the
 * RCU callbacks (also those of other devices), zeroes the identity. Not in an RCU read section that others
 * wait for.
 */
void device_done(struct device *dev);

/* Start of a drain. now_ns of boottime must not go back. */
void device_set_time(struct device *dev, uint64_t now_ns, uint64_t realtime_ns);
/* Interface up: persistent keepalives go out as timers_run() comes to them. Down: sessions, handshakes,
 * timers and staged packets are cleared. Both idempotent. */
void device_up(struct device *dev);
void device_down(struct device *dev);
/*
 * Changes the private key (all zero: none); the same key again changes nothing. Clears sessions and
 * handshakes, recomputes what depends on it, and removes a peer whose public key is now our own. Peers with a
 * persistent keepalive or with packets waiting start a new handshake, as timers_run() comes to them.
 */
void device_set_private_key(struct device *dev, const uint8_t private_key[NOISE_KEY_BYTES]);

/*
 * Publishes a peer made by peer_new(): takes it over. The caller has checked that the key is new and not our
 * own, and that there are fewer than DEVICE_PEERS_MAX.
 */
void device_add_peer(struct device *dev, struct peer *peer);
/* Unpublishes, clears and frees (after a grace period). */
void device_remove_peer(struct device *dev, struct peer *peer);
/* NULL if there is none. */
struct peer *device_find_peer(const struct device *dev, const uint8_t public_key[NOISE_KEY_BYTES]);
/* All zero: none. Takes effect with the next handshake. */
void device_set_preshared(struct device *dev, struct peer *peer, const uint8_t preshared[NOISE_KEY_BYTES]);
/* By configuration. Bumps the endpoint generation; what waited for an endpoint goes on. */
void device_set_endpoint(struct device *dev, struct peer *peer, const struct endpoint *endpoint);
/* 0: off. Switched on while the interface is up, the first one is due at once, for timers_run(). */
void device_set_persistent_keepalive(struct device *dev, struct peer *peer, uint16_t seconds);

/* Handles one note of a tun-tx thread. */
void device_note(struct device *dev, void *item);

/*
 * The session to send under: current, if it exists and is below REJECT_AFTER_TIME and REJECT_AFTER_MESSAGES
 * (with room for any one train); else NULL. Starts a handshake when there is none or when it is time to rekey
 * (REKEY_AFTER_MESSAGES, and for the initiator REKEY_AFTER_TIME). Asked once for each run of packets to a
 * peer.
 */
struct keypair *device_send_keypair(struct device *dev, struct peer *peer);
/* After segments were sealed for peer: their bytes on the wire, and whether they are data (false: keepalive).
 * Arms the timers. */
void device_sent(struct device *dev, struct peer *peer, uint64_t wire_bytes, bool data);
