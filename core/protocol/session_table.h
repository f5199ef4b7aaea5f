/*
 * Receiver index -> handshake or session. Random 32-bit indices, unique over both kinds. Changed by the
 * state thread, read by any RCU reader (udp-rx to find the owning thread, tun-tx threads to find the keys).
 * Over liburcu's lock-free hash table.
 *
 *	                add      set_keypair   remove   find
 *	thread          crypto   crypto        crypto   any, in an RCU read section
 *
 * The state thread is a registered QSBR reader, online.
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
	unsigned owner;          /* tun-tx thread of the peer */
	struct peer *peer;       /* outlives the entry: peers are freed after a later grace period */
	struct keypair *keypair; /* RCU-published; NULL while it is only a handshake */
};

struct session_table {
	struct cds_lfht *table;
};

/* Control thread. -ENOMEM. */
int session_table_init(struct session_table *t) MUST_CHECK;
/* No entry and no reader may be left. Accepts a zeroed table. */
void session_table_done(struct session_table *t);

/* State thread. A fresh random index for a handshake of peer. NULL without memory. */
struct session *session_table_add(struct session_table *t, struct peer *peer, unsigned owner);
/* State thread. From now on the entry stands for this session (readers see it atomically) and owns its keys.
 */
void session_table_set_keypair(struct session *entry, struct keypair *keypair);
/*
 * State thread. Unpublishes the entry; it, and its keypair if it has one (marked retired at once), are freed
 * after a grace period. NULL is accepted.
 */
void session_table_remove(struct session_table *t, struct session *entry);
/* RCU read section. NULL if unknown. */
struct session *session_table_find(const struct session_table *t, uint32_t index);
