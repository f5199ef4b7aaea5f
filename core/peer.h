/*
 * A peer: identity, handshake, up to three sessions, endpoint, timers, staged packets. Made by the control thread
 * (peer_new), owned by the crypto thread from the moment a configuration is applied, found by other threads only through RCU (index table,
 * allowed IPs), freed after a grace period. Lives in secret_alloc() memory.
 *
 *	section          written by                        read by
 *	constant         control thread before publication any
 *	state            crypto thread                     crypto thread
 *	from_state       crypto thread (atomics)           any
 *	from_decrypt     the owner decrypt thread (atomics; roamed under its flag)   any
 */
#pragma once

#include <urcu-qsbr.h>
#include <urcu/list.h>
#include <urcu/rculfhash.h>

#include "core/index_table.h"
#include "crypto/cookie.h"
#include "crypto/noise.h"
#include "udp/endpoint.h"

struct device;
struct staged_packet;

enum peer_timer {
	TIMER_RETRANSMIT_HANDSHAKE, /* REKEY_TIMEOUT + jitter after an initiation */
	TIMER_SEND_KEEPALIVE,       /* KEEPALIVE_TIMEOUT after data came and nothing went */
	TIMER_NEW_HANDSHAKE,        /* KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter after data went and nothing came */
	TIMER_ZERO_KEYS,            /* 3 * REJECT_AFTER_TIME after the last session */
	TIMER_PERSISTENT_KEEPALIVE,
	PEER_TIMERS
};

#define STAGED_PACKETS_MAX 128 /* wire segments */

struct peer {
	/* constant */
	uint8_t public_key[NOISE_KEY_BYTES];
	uint64_t id;     /* counts up over the life of the device, for logs */
	unsigned owner;  /* decrypt thread */
	struct rcu_head rcu;

	/* state: crypto thread */
	struct cds_list_head link;      /* device->peers, in order of insertion */
	struct cds_lfht_node by_key;    /* device->peers_by_key */
	struct noise_handshake handshake;
	struct index_entry *handshake_index; /* of the handshake in flight, NULL none */
	struct cookie_jar cookie_jar;
	struct index_entry *previous, *current, *next; /* sessions; entry->keypair has the keys */
	struct endpoint endpoint;
	uint16_t persistent_keepalive_s;
	uint64_t deadline_ns[PEER_TIMERS]; /* boottime; 0: not armed */
	unsigned timer_slot;               /* position in the device's timer heap, UINT_MAX: none */
	uint64_t timer_key_ns;             /* the deadline it is filed under */
	unsigned handshake_attempts;
	uint64_t last_handshake_sent_ns;     /* own initiation or response; gates REKEY_TIMEOUT */
	uint64_t last_handshake_realtime_ns; /* of the last completed one, for `wg show`; 0 never */
	uint64_t first_unanswered_tx_ns;     /* see core/timers.h */
	bool sent_lastminute_handshake;
	bool removed;
	struct staged_packet *staged_first, *staged_last;
	unsigned staged_segments;

	/* from_state */
	CACHE_ALIGNED _Atomic uint64_t last_tx_ns;   /* any authenticated packet sent, keepalives included; boottime */
	_Atomic uint64_t tx_bytes;
	_Atomic uint32_t endpoint_generation; /* bumped when the crypto thread changes the endpoint by itself */
	_Atomic bool wants_rx_note;           /* crypto thread wants a NOTE_DATA_RECEIVED at the next data */

	/* from_decrypt */
	CACHE_ALIGNED _Atomic uint64_t last_rx_ns;   /* any authenticated packet received; boottime */
	_Atomic uint64_t last_rx_data_ns;            /* non-empty ones */
	_Atomic uint64_t first_unanswered_rx_ns;     /* first non-empty one after last_tx_ns */
	_Atomic uint64_t rx_bytes;                   /* data messages, as on the wire */
	_Atomic uint64_t rx_handshake_bytes;         /* written by the crypto thread, apart from the above */
	struct endpoint rx_endpoint;                 /* decrypt thread's copy of what it last saw or told */
	uint32_t rx_endpoint_generation;
	_Atomic bool roamed_pending;                 /* false: decrypt thread may write roamed; true: crypto thread may read it */
	struct endpoint roamed;
};

/* Control thread. preshared may be NULL. NULL without memory. */
struct peer *peer_new(const uint8_t public_key[NOISE_KEY_BYTES], const uint8_t *preshared);
/* A peer that was never published, or after its grace period. NULL is accepted. */
void peer_free(struct peer *peer);
/* "peer(abcd…wxyz)" for logs: the first and last four characters of the base64 key. buf holds 24. Returns buf. */
const char *peer_name(const struct peer *peer, char *buf);
