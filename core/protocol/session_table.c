#include "core/protocol/session_table.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

/*
 * A fixed number, so that no thread resizes the table and no lookup waits for that. With ten thousand peers
 * of one session each a chain holds 0.6 sessions on average, and with the most peers and sessions there can
 * be only sixteen.
 */
#define BUCKETS (1u << 14)

static int match_index(struct cds_lfht_node *node, const void *key);
static void session_free(struct rcu_head *head);

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
	assert(!err); /* not empty: a session leaked */
	(void)err;
	t->table = NULL;
}

struct session *session_table_add(struct session_table *t, struct peer *peer, unsigned owner)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	session->peer = peer;
	session->owner = owner;
	cds_lfht_node_init(&session->node);
	/* Seldom more than once: even with every peer there, an index is taken with a chance of one in
	 * sixteen thousand. */
	do {
		session->index = randombytes_random();
	} while (cds_lfht_add_unique(t->table, session->index, match_index, &session->index,
			 &session->node) != &session->node);
	return session;
}

void session_table_set_keypair(struct session *session, struct keypair *keypair)
{
	rcu_assign_pointer(session->keypair, keypair);
}

void session_table_remove(struct session_table *t, struct session *session)
{
	if (!session)
		return;
	/* A tun-tx thread that has found the session already stops at its next run of datagrams. */
	if (session->keypair)
		atomic_store_explicit(&session->keypair->retired, true, memory_order_relaxed);
	cds_lfht_del(t->table, &session->node);
	call_rcu(&session->rcu, session_free);
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

static void session_free(struct rcu_head *head)
{
	struct session *session = CONTAINER_OF(head, struct session, rcu);

	keypair_free(session->keypair);
	free(session);
}
