/*
 * A peer: identity, handshake, up to three sessions, endpoint, timers, staged packets. Made by the control
 * thread (peer_new), the state holder's from device_add_peer() on, found by other threads only through RCU
 * (session table, allowed IPs), freed a grace period after device_remove_peer(). Lives in secret_alloc()
 * memory.
 *
 * State holder: who holds the state baton (core/protocol/device.h). Owner's thread: who holds the baton of
 * the one tun-tx thread that opens what this peer sends (core/protocol/ingress.h).
 *
 *	field                       written by             read by         protected by
 *	public_key                  control thread         any             published by device_add_peer()
 *	id, owner                   state holder           any             published by device_add_peer()
 *	link to staged_segments     state holder           state holder    state baton (sessions, endpoint,
 *	                                                                   timers, staged packets)
 *	last_tx_ns, tx_bytes,       state holder           any             single-writer atomics, relaxed
 *	rx_handshake_bytes
 *	endpoint_generation         state holder           owner's thread  atomic, release/acquire
 *	wants_rx_note               state holder raises,   both            atomic; order: note_received()
 *	                            owner's thread lowers,                 in ingress.c
 *	                            and raises if its note
 *	                            found no room
 *	last_rx_ns, rx_bytes,       owner's thread         any             single-writer atomics, relaxed
 *	first_unanswered_rx_ns
 *	rx_endpoint, roamed_noted,  owner's thread         owner's thread  the tun-tx thread's baton
 *	rx_endpoint_generation
 *	roamed_pending              owner's thread raises, both            atomic, release/acquire
 *	                            state holder lowers
 *	roamed, flag down           owner's thread         owner's thread  the flag, roamed_pending
 *	roamed, flag up             nobody                 both            the flag, roamed_pending
 *
 * Single-writer atomics order nothing else: who reads an old timestamp acts as if the packet behind the newer
 * one had come a little later, which the network could have done as well.
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

#define STAGED_SEGMENTS_MAX 128 /* segments; more only for a single packet */
#define PEER_NAME_BYTES 24

struct peer {
	/* constant */
	uint8_t public_key[NOISE_KEY_BYTES];
	uint64_t id;    /* counts up over the life of the device, for logs */
	unsigned owner; /* number of its tun-tx thread */
	struct rcu_head rcu;

	/* state: the state holder's */
	/*
	 * A list link is aligned as the head of its list is: a walk ends by taking the head for a link, and
	 * even what it would then be the link of must be an aligned structure.
	 */
	CACHE_ALIGNED struct cds_list_head link; /* device->peers, in order of insertion */
	struct cds_lfht_node by_key;             /* device->peers_by_key */
	CACHE_ALIGNED struct cds_list_head
		allowed_ips; /* its prefixes, in order of insertion; allowed_ips.c */
	struct noise_handshake handshake;
	struct session *handshake_session; /* whose handshake is in flight, without keys yet; NULL none */
	struct cookie_jar cookie_jar;
	/*
	 * The sessions that have keys, each NULL if there is none; how they move up: peer_add_session().
	 * current is the one to send under. next was made as responder, and the initiator has not used it
	 * yet. previous still opens what was on its way when current took its place.
	 */
	struct session *previous, *current, *next;
	struct endpoint endpoint;
	struct endpoint barred; /* whose source is not to be used, see peer_bar_source(); unset: none */
	uint16_t persistent_keepalive_s;
	uint64_t deadline_ns[PEER_TIMERS]; /* boottime; 0: not armed */
	unsigned timer_slot;               /* position in the device's timer heap, UINT_MAX: none */
	uint64_t timer_key_ns;             /* the deadline it is filed under */
	unsigned handshake_attempts;       /* retries of the handshake in flight */
	uint64_t initiation_held_until_ns; /* not before: REKEY_TIMEOUT after an own initiation or response */
	uint64_t last_handshake_rx_ns;     /* authenticated initiation or response; 0 none */
	uint64_t last_handshake_realtime_ns; /* of the last completed one, for `wg show`; 0 never */
	uint64_t last_timestamp_ns;          /* realtime in the last own initiation */
	uint64_t
		first_unanswered_tx_ns; /* first data sent after peer_last_rx_ns(); 0, or a time before that: none */
	bool removed;
	struct staged_packet *staged_first, *staged_last; /* wait for a session, oldest first */
	unsigned staged_segments;

	/* from_state: written by the state holder (wants_rx_note by the owner too), read by any thread */
	CACHE_ALIGNED _Atomic uint64_t last_tx_ns; /* anything authenticated sent, keepalives too; boottime */
	_Atomic uint64_t tx_bytes;                 /* as on the wire */
	_Atomic uint64_t
		rx_handshake_bytes; /* as on the wire; apart from rx_bytes, which has another writer */
	_Atomic uint32_t endpoint_generation; /* moves when what the owner last told no longer counts */
	_Atomic bool wants_rx_note;           /* a NOTE_DATA_RECEIVED is wanted at the next data */

	/* from_tun_tx: written by the owner (roamed_pending by the state holder too); the atomics are read by any */
	CACHE_ALIGNED _Atomic uint64_t last_rx_ns; /* any authenticated data message received; boottime */
	_Atomic uint64_t first_unanswered_rx_ns;   /* first non-empty one after last_tx_ns */
	_Atomic uint64_t rx_bytes;                 /* data messages, as on the wire */
	struct endpoint rx_endpoint;               /* what the state holder was last told; unset: unsure */
	uint32_t rx_endpoint_generation;           /* endpoint_generation at that time */
	bool roamed_noted;                         /* the note of what is in roamed was pushed */
	_Atomic bool roamed_pending; /* the mailbox is full: the state holder's until it lowers this */
	struct endpoint roamed;      /* the mailbox: where authenticated data last came from */
};

/* Control thread. preshared may be NULL. NULL without memory. */
struct peer *peer_new(const uint8_t public_key[NOISE_KEY_BYTES], const uint8_t *preshared);
/* A peer that was never published, or after its grace period. NULL is accepted. */
void peer_free(struct peer *peer);
/* "peer(abcd...wxyz)" for logs: the first and last four characters of the base64 key. buf holds
 * PEER_NAME_BYTES. Returns buf. */
const char *peer_name(const struct peer *peer, char *buf);
/* The same of a public key that may be no peer's. */
const char *peer_key_name(const uint8_t public_key[NOISE_KEY_BYTES], char *buf);

/* ---- state holder ---- */

/* A new endpoint by configuration or by an authenticated handshake message: it wins over what roamed
 * before. */
void peer_set_endpoint(struct peer *peer, const struct endpoint *endpoint);
/* Lets the system choose the source address again. */
void peer_forget_source(struct peer *peer);
/*
 * Packets that come as this endpoint says are not answered from the address that they come to, because the
 * route back leaves by another interface than they come in on: forgets the source now, and whenever the same
 * endpoint is learnt again. Until peer_unbar_source(), or until another one is barred: there is at most one.
 * Does nothing if the peer has another endpoint by now.
 */
void peer_bar_source(struct peer *peer, const struct endpoint *endpoint);
/* If it is the one that is barred, the next packet that comes so pins its source again. */
void peer_unbar_source(struct peer *peer, const struct endpoint *endpoint);
/* Empties the mailbox: what the owner's thread left in roamed is the endpoint from now on. */
void peer_take_roamed(struct peer *peer);

/* Takes session, which has its keys, over as the newest. What it replaces for good is retired. */
void peer_add_session(struct device *dev, struct peer *peer, struct session *session);
/* Data came under session: if it was next, it is current from now on. Returns whether it was. */
bool peer_confirm_session(struct device *dev, struct peer *peer, struct session *session);
/* Retires all sessions that have keys. */
void peer_clear_sessions(struct device *dev, struct peer *peer);

/* When anything authenticated, data or handshake, last came; and last came or went. Boottime, 0 never. */
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
