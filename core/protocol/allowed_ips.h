/*
 * Cryptokey routing: longest-prefix match from IP address to peer, IPv4 and IPv6. Changed by the crypto
 * thread only, read by any RCU reader at the same time; replaced and removed nodes are freed after a grace
 * period.
 *
 * A compressed binary trie: each node is a prefix, its children are longer ones, and a node without a peer
 * only branches, so it has two children. What a lookup reads of a node lies in one cache line.
 *
 * Memory for an insertion is taken beforehand on the control thread (struct allowed_ips_spare), so that
 * applying a configuration cannot fail half way.
 *
 *	                insert   remove   remove_peer   lookup   walk
 *	thread          crypto   crypto   crypto        any*     crypto      *in an RCU read section
 */
#pragma once

#include "ring/base.h"

struct peer;
struct allowed_ips_node;

struct allowed_ips {
	struct allowed_ips_node *root4, *root6; /* RCU-published */
	unsigned count;                         /* prefixes; state thread */
};

/* Address family AF_INET or AF_INET6, address in network order, host bits masked by the functions below. */
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
/* Frees everything; no reader may be left, and no peer may be used with the table again. */
void allowed_ips_done(struct allowed_ips *t);

int allowed_ips_spare_alloc(struct allowed_ips_spare *spare) MUST_CHECK; /* control thread; -ENOMEM */
void allowed_ips_spare_free(struct allowed_ips_spare *spare);            /* what was not used */

/* Adds the prefix or moves it to peer. Takes what it needs out of spare. Cannot fail. */
void allowed_ips_insert(struct allowed_ips *t, const struct ip_prefix *prefix, struct peer *peer,
	struct allowed_ips_spare *spare);
/* Removes the exact prefix if it belongs to peer. Returns whether it did. */
bool allowed_ips_remove(struct allowed_ips *t, const struct ip_prefix *prefix, struct peer *peer);
/* Removes all prefixes of peer. Costs what the peer has, not what the table has. */
void allowed_ips_remove_peer(struct allowed_ips *t, struct peer *peer);

/* The peer with the longest matching prefix, or NULL. addr is 4 or 16 bytes in network order. RCU read
 * section. */
struct peer *allowed_ips_lookup4(const struct allowed_ips *t, const uint8_t addr[4]);
struct peer *allowed_ips_lookup6(const struct allowed_ips *t, const uint8_t addr[16]);

/* Calls fn for each prefix of peer, in the order of insertion, until it returns false. State thread. */
void allowed_ips_walk(const struct allowed_ips *t, const struct peer *peer,
	bool (*fn)(void *arg, const struct ip_prefix *prefix), void *arg);
