/*
 * Receiver index -> session. A session begins as a handshake that has no keys yet, and keeps its index when
 * it gets them. Indices are random, 32 bits, and no two sessions have the same at one time; a retired one may
 * come again at once, for any peer.
 *
 * Over liburcu's lock-free hash table. Found by udp-rx (which thread owns it), tun-tx threads (its keys) and
 * the state holder.
 *
 *	                add, set_keypair, remove      find
 *	thread          state holder                  any, in an RCU read section
 *	excludes        each other                    nothing
 *
 *	field                        written by       read by           protected by
 *	index, owner, peer           state holder     any RCU reader    constant once it is in the table
 *	keypair                      state holder     any RCU reader    RCU-published
 *	*keypair                     see crypto/keypair.h: its maker is the state holder, its owner the
 *	                             owner's thread, who holds the baton of that tun-tx thread
 *
 * The state holder (core/protocol/device.h) is a registered QSBR reader, online.
 */
#pragma once

#include <urcu-qsbr.h>
#include <urcu/rculfhash.h>

#include "crypto/keypair.h"
#include "ring/base.h"

struct peer;

struct session {
	struct cds_lfht_node node;
	struct rcu_head rcu;
	uint32_t index;
	unsigned owner;          /* number of the peer's tun-tx thread, the only one to open what comes */
	struct peer *peer;       /* outlives the session: it is freed by a later call_rcu() */
	struct keypair *keypair; /* NULL while the handshake is in flight */
};

struct session_table {
	struct cds_lfht *table;
};

/* Control thread. -ENOMEM. */
int session_table_init(struct session_table *t) MUST_CHECK;
/* Control thread. No session and no reader may be left. Accepts a zeroed table. */
void session_table_done(struct session_table *t);

/* State holder. Makes and publishes a session of peer under a fresh random index. NULL without memory. */
struct session *session_table_add(struct session_table *t, struct peer *peer, unsigned owner);
/* State holder. The handshake is done: gives session its keys, which readers see whole or not at all. Takes
 * keypair over. */
void session_table_set_keypair(struct session *session, struct keypair *keypair);
/*
 * State holder. Retires session: its keypair is marked at once and its index is nobody's, and both are freed
 * after a grace period. NULL is accepted.
 */
void session_table_remove(struct session_table *t, struct session *session);
/* Any thread, in an RCU read section. NULL if there is none. */
struct session *session_table_find(const struct session_table *t, uint32_t index);
