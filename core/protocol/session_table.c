#include "core/protocol/session_table.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

/*
 * Fixed, so that no resizing thread exists and a lookup never waits for one: a chain is 0.4 long for ten
 * thousand peers with a session each, and still only ten with the most peers and indices there can be.
 */
#define BUCKETS (1u << 14)

static int match_index(struct cds_lfht_node *node, const void *key);
static void entry_free(struct rcu_head *head);

int session_table_init(struct session_table *t)
{
	struct cds_lfht *table = cds_lfht_new(BUCKETS, BUCKETS, BUCKETS, 0, NULL);

	if (!table)
		return -ENOMEM;
	t->table = table;
	return 0;
}

void session_table_done(struct session_table *t)
{
	if (!t->table)
		return;
	const int err = cds_lfht_destroy(t->table, NULL);
	assert(!err); /* not empty: an index leaked */
	(void)err;
	t->table = NULL;
}

struct session *session_table_add(struct session_table *t, struct peer *peer, unsigned owner)
{
	struct session *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->peer = peer;
	entry->owner = owner;
	cds_lfht_node_init(&entry->node);
	/* Even with every peer present a random index is taken with a chance of one in sixteen thousand. */
	do {
		entry->index = randombytes_random();
	} while (cds_lfht_add_unique(t->table, entry->index, match_index, &entry->index, &entry->node) !=
		 &entry->node);
	return entry;
}

void session_table_set_keypair(struct session *entry, struct keypair *keypair)
{
	rcu_assign_pointer(entry->keypair, keypair);
}

void session_table_remove(struct session_table *t, struct session *entry)
{
	if (!entry)
		return;
	/* A tun-tx thread that has found the entry already stops at its next train. */
	if (entry->keypair)
		atomic_store_explicit(&entry->keypair->retired, true, memory_order_relaxed);
	cds_lfht_del(t->table, &entry->node);
	call_rcu(&entry->rcu, entry_free);
}

struct session *session_table_find(const struct session_table *t, uint32_t index)
{
	struct cds_lfht_iter iter;

	/* The index is random and ours, so it is its own hash: nobody else can choose collisions. */
	cds_lfht_lookup(t->table, index, match_index, &index, &iter);
	struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
	return node ? CONTAINER_OF(node, struct session, node) : NULL;
}

static int match_index(struct cds_lfht_node *node, const void *key)
{
	return CONTAINER_OF(node, struct session, node)->index == *(const uint32_t *)key;
}

static void entry_free(struct rcu_head *head)
{
	struct session *entry = CONTAINER_OF(head, struct session, rcu);

	keypair_free(entry->keypair);
	free(entry);
}
