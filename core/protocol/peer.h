/*
 * A peer: identity, handshake, up to three sessions, endpoint, timers, staged packets. Made by the control
 * thread (peer_new), owned by the state thread from the moment a configuration is applied, found by other
 * threads only through RCU (index table, allowed IPs), freed after a grace period. Lives in secret_alloc()
 * memory.
 *
 *	section          written by                                                  read by
 *	constant         control thread before publication                           any
 *	state            state thread                                               state thread
 *	from_state       state thread (atomics)                                     any
 *	from_tun_tx     the owner tun-tx thread (atomics; roamed under its flag)   any
 */
#pragma once

#include <urcu-qsbr.h>
#include <urcu/list.h>
#include <urcu/rculfhash.h>

#include "core/protocol/session_table.h"
#include "core/protocol/timers.h"
#include "crypto/cookie.h"
#include "crypto/noise.h"
#include "udp/endpoint.h"

struct device;
struct staged_packet;

#define STAGED_PACKETS_MAX 128 /* wire segments */
#define PEER_NAME_BYTES 24

struct peer {
	/* constant */
	uint8_t public_key[NOISE_KEY_BYTES];
	uint64_t id;    /* counts up over the life of the device, for logs */
	unsigned owner; /* tun-tx thread */
	struct rcu_head rcu;

	/* state: state thread */
	/*
	 * Links and the heads of their lists are aligned alike, so that even the end of a walk, which takes
	 * the head for a link, names an aligned structure.
	 */
	CACHE_ALIGNED struct cds_list_head link; /* device->peers, in order of insertion */
	struct cds_lfht_node by_key;             /* device->peers_by_key */
	CACHE_ALIGNED struct cds_list_head
		allowed_ips; /* its prefixes, in order of insertion; allowed_ips.c */
	struct noise_handshake handshake;
	struct session *handshake_session; /* of the handshake in flight, NULL none */
	struct cookie_jar cookie_jar;
	/*
	 * Sessions; entry->keypair has the keys. current sends. next is a responder's that the initiator has
	 * not yet confirmed; previous still opens what was under way when current took its place.
	 */
	struct session *previous, *current, *next;
	struct endpoint endpoint;
	uint16_t persistent_keepalive_s;
	uint64_t deadline_ns[PEER_TIMERS]; /* boottime; 0: not armed */
	unsigned timer_slot;               /* position in the device's timer heap, UINT_MAX: none */
	uint64_t timer_key_ns;             /* the deadline it is filed under */
	unsigned handshake_attempts;       /* retries of the handshake under way */
	uint64_t initiation_held_until_ns; /* REKEY_TIMEOUT and jitter after an own initiation or response */
	uint64_t last_handshake_rx_ns;     /* authenticated initiation or response; 0 none */
	uint64_t last_handshake_realtime_ns; /* of the last completed one, for `wg show`; 0 never */
	uint64_t last_timestamp_ns;          /* realtime in the last own initiation */
	uint64_t first_unanswered_tx_ns; /* first data sent after last_rx_ns; 0 none since the last look */
	bool removed;
	struct staged_packet *staged_first, *staged_last;
	unsigned staged_segments;

	/*
	 * from_state. Relaxed loads and stores: a timestamp orders nothing else. Who reads an old one acts as
	 * if the packet behind the newer one had come a little later, which the network could have done as
	 * well.
	 */
	CACHE_ALIGNED _Atomic uint64_t
		last_tx_ns; /* any authenticated packet sent, keepalives included; boottime */
	_Atomic uint64_t tx_bytes;
	_Atomic uint32_t
		endpoint_generation; /* bumped when the state thread changes the endpoint by itself */
	_Atomic bool wants_rx_note;  /* state thread wants a NOTE_DATA_RECEIVED at the next data */

	/* from_tun_tx */
	CACHE_ALIGNED _Atomic uint64_t last_rx_ns; /* any authenticated data message received; boottime */
	_Atomic uint64_t first_unanswered_rx_ns;   /* first non-empty one after last_tx_ns */
	_Atomic uint64_t rx_bytes;                 /* data messages, as on the wire */
	_Atomic uint64_t rx_handshake_bytes;       /* written by the state thread, apart from the above */
	struct endpoint rx_endpoint;               /* tun-tx thread's copy of what it last saw or told */
	uint32_t rx_endpoint_generation;
	bool roamed_noted; /* tun-tx thread's: the note of what is in roamed was pushed */
	_Atomic bool
		roamed_pending; /* false: tun-tx thread may write roamed; true: state thread may read it */
	struct endpoint roamed;
};

/* Control thread. preshared may be NULL. NULL without memory. */
struct peer *peer_new(const uint8_t public_key[NOISE_KEY_BYTES], const uint8_t *preshared);
/* A peer that was never published, or after its grace period. NULL is accepted. */
void peer_free(struct peer *peer);
/* "peer(abcd...wxyz)" for logs: the first and last four characters of the base64 key. buf holds
 * PEER_NAME_BYTES. Returns buf. */
const char *peer_name(const struct peer *peer, char *buf);

/* ---- state thread ---- */

/* A new endpoint by configuration or by an authenticated handshake message. It wins over what roamed before
 * it. */
void peer_set_endpoint(struct peer *peer, const struct endpoint *endpoint);
/* Lets the system choose the source address again. */
void peer_forget_source(struct peer *peer);
/* Takes the endpoint that the tun-tx thread left in roamed, if there is one. */
void peer_take_roamed(struct peer *peer);

/*
 * Takes session over as the newest. The initiator's has been confirmed by the response and is current at
 * once; a responder's waits as next for its first data (as the kernel driver does). What falls out is
 * retired.
 */
void peer_add_session(struct device *dev, struct peer *peer, struct session *session);
/* Data came under session: if it was next, it is current from now on. Returns whether it was. */
bool peer_confirm_session(struct device *dev, struct peer *peer, struct session *session);
/* Retires all sessions. */
void peer_clear_sessions(struct device *dev, struct peer *peer);

/* When anything authenticated, data or handshake, last came; last came or went. Boottime, 0 never. */
static inline uint64_t peer_last_rx_ns(const struct peer *peer)
{
	const uint64_t data_ns = atomic_load_explicit(&peer->last_rx_ns, memory_order_relaxed);

	return MAX(data_ns, peer->last_handshake_rx_ns);
}

static inline uint64_t peer_last_traffic_ns(const struct peer *peer)
{
	const uint64_t rx_ns = peer_last_rx_ns(peer);
	const uint64_t tx_ns = atomic_load_explicit(&peer->last_tx_ns, memory_order_relaxed);

	return MAX(rx_ns, tx_ns);
}
