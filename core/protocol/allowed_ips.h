/*
 * Cryptokey routing: longest-prefix match from IP address to peer, IPv4 and IPv6.
 *
 * A compressed binary trie: each node is a prefix, and its children are longer ones. A node without a peer is
 * only there to branch, so it has two children. What a lookup reads of a node lies in one cache line.
 *
 * Memory for an insertion is taken beforehand on the control thread (struct allowed_ips_spare), so that
 * applying a configuration cannot fail half way. Removed nodes are freed after a grace period.
 *
 *	                insert, remove, remove_peer   lookup                   walk
 *	thread          state holder                  any, in a read section   state holder
 *	excludes        each other, walk              nothing                  the three that change
 *
 *	field                        written by       read by           protected by
 *	root4, root6,                state holder     any RCU reader    RCU-published
 *	child and peer of a node
 *	a node's first cache line    state holder     any RCU reader    constant once it is published
 *	its second one, count,       state holder     state holder      state baton
 *	peer->allowed_ips
 *	struct allowed_ips_spare     who holds it     who holds it      handed over by the control thread
 */
#pragma once

#include "ring/base.h"

struct peer;
struct allowed_ips_node;

struct allowed_ips {
	struct allowed_ips_node *root4, *root6; /* RCU-published */
	unsigned count;                         /* of prefixes; the state holder's */
};

/* Family is AF_INET or AF_INET6, the address in network order. Bits past cidr are ignored. */
struct ip_prefix {
	uint8_t family;
	uint8_t cidr;
	uint8_t addr[16];
};

/* Up to the two nodes that one insertion can need. */
struct allowed_ips_spare {
	struct allowed_ips_node *node[2];
};

void allowed_ips_init(struct allowed_ips *t);
/* Control thread. Frees everything: no reader may be left, and no peer may be used with the table again. */
void allowed_ips_done(struct allowed_ips *t);

int allowed_ips_spare_alloc(struct allowed_ips_spare *spare) MUST_CHECK; /* control thread; -ENOMEM */
void allowed_ips_spare_free(struct allowed_ips_spare *spare);            /* what was not used */

/* State holder. Adds the prefix, or moves it to peer. Takes out of spare what it needs. */
void allowed_ips_insert(struct allowed_ips *t, const struct ip_prefix *prefix, struct peer *peer,
	struct allowed_ips_spare *spare);
/* State holder. Removes exactly this prefix if it belongs to peer. Returns whether it did. */
bool allowed_ips_remove(struct allowed_ips *t, const struct ip_prefix *prefix, struct peer *peer);
/* State holder. Removes all prefixes of peer, in time that depends on their number, not on that of all. */
void allowed_ips_remove_peer(struct allowed_ips *t, struct peer *peer);

/* The peer with the longest matching prefix, or NULL. addr in network order. Any thread, in an RCU read
 * section. */
struct peer *allowed_ips_lookup4(const struct allowed_ips *t, const uint8_t addr[4]);
struct peer *allowed_ips_lookup6(const struct allowed_ips *t, const uint8_t addr[16]);

/* State holder. Calls fn for each prefix of peer, in order of insertion, until it returns false. */
void allowed_ips_walk(const struct allowed_ips *t, const struct peer *peer,
	bool (*fn)(void *arg, const struct ip_prefix *prefix), void *arg);
