/*
 * Receiver index -> handshake or session. Random 32-bit indices, unique over both kinds. Changed by the
 * crypto thread, read by any RCU reader (udp-rx to find the owning thread, decrypt threads to find the keys).
 * Over liburcu's lock-free hash table.
 *
 *	                add      set_keypair   remove   find
 *	thread          crypto   crypto        crypto   any, in an RCU read section
 *
 * The crypto thread is a registered QSBR reader, online.
 */
#pragma once

#include <urcu-qsbr.h>
#include <urcu/rculfhash.h>

#include "crypto/keypair.h"
#include "ring/base.h"

struct peer;

struct index_entry {
	struct cds_lfht_node node;
	struct rcu_head rcu;
	uint32_t index;
	unsigned owner;          /* decrypt thread of the peer */
	struct peer *peer;       /* outlives the entry: peers are freed after a later grace period */
	struct keypair *keypair; /* RCU-published; NULL while it is only a handshake */
};

struct index_table {
	struct cds_lfht *table;
};

/* Control thread. -ENOMEM. */
int index_table_init(struct index_table *t) MUST_CHECK;
/* No entry and no reader may be left. Accepts a zeroed table. */
void index_table_done(struct index_table *t);

/* Crypto thread. A fresh random index for a handshake of peer. NULL without memory. */
struct index_entry *index_table_add(struct index_table *t, struct peer *peer, unsigned owner);
/* Crypto thread. From now on the entry stands for this session (readers see it atomically) and owns its keys.
 */
void index_table_set_keypair(struct index_entry *entry, struct keypair *keypair);
/*
 * Crypto thread. Unpublishes the entry; it, and its keypair if it has one (marked retired at once), are freed
 * after a grace period. NULL is accepted.
 */
void index_table_remove(struct index_table *t, struct index_entry *entry);
/* RCU read section. NULL if unknown. */
struct index_entry *index_table_find(const struct index_table *t, uint32_t index);
