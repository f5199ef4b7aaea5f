#include "core/protocol/device.h"

#include <errno.h>
#include <sodium.h>

#include "core/base/log.h"
#include "core/protocol/egress.h"
#include "core/protocol/handshake.h"
#include "crypto/secret.h"
#include "ring/train.h"

/* A fixed number, as in session_table.c: the table is looked at for handshakes and configuration only. */
#define KEY_BUCKETS (1u << 13)
/* Below this a session can seal any train whole: a train has no more segments than bytes. */
#define SEND_COUNTER_MAX (REJECT_AFTER_MESSAGES - TRAIN_BYTES)

static void done_tables(struct device *dev);
static struct keypair *aged_keypair(
	struct device *dev, struct peer *peer, struct keypair *k, uint64_t age_ns);
static void start_persistent_keepalive(struct device *dev, struct peer *peer);
static void reset_peer(struct device *dev, struct peer *peer);
static unsigned long hash_key(const struct device *dev, const uint8_t public_key[NOISE_KEY_BYTES]);
static int match_key(struct cds_lfht_node *node, const void *key);
static void peer_free_rcu(struct rcu_head *head);

int device_init(struct device *dev, unsigned nr_tun_tx_threads, uint32_t mtu)
{
	int err;

	assert(nr_tun_tx_threads);
	memset(dev, 0, sizeof(*dev));
	dev->nr_tun_tx_threads = nr_tun_tx_threads;
	atomic_init(&dev->mtu, mtu);
	CDS_INIT_LIST_HEAD(&dev->peers);
	allowed_ips_init(&dev->allowed_ips);
	_Static_assert(sizeof(dev->by_key_secret) == crypto_shorthash_KEYBYTES, "siphash key");
	randombytes_buf(dev->by_key_secret, sizeof(dev->by_key_secret));

	err = ratelimiter_init(&dev->ratelimiter);
	if (!err)
		err = timer_heap_init(&dev->timers, DEVICE_PEERS_MAX);
	if (!err)
		err = session_table_init(&dev->sessions);
	if (err)
		goto err_tables;
	dev->peers_by_key = cds_lfht_new(KEY_BUCKETS, KEY_BUCKETS, KEY_BUCKETS, 0, NULL);
	if (!dev->peers_by_key) {
		err = -ENOMEM;
		goto err_tables;
	}
	return 0;

err_tables:
	done_tables(dev);
	return err;
}

void device_done(struct device *dev)
{
	struct peer *peer, *next;

	/* The last thing that device_init() makes: without it there is nothing to take down. */
	if (!dev->peers_by_key)
		return;
	/* All threads have ended: the baton is nobody's, and ours to do without. */
	dev->baton = NULL;
	device_down(dev);
	cds_list_for_each_entry_safe (peer, next, &dev->peers, link)
		device_remove_peer(dev, peer);
	/* No thread is left that could find a peer, session or prefix. What was left to RCU, by us too, is
	 * freed before the tables are. */
	rcu_barrier();
	allowed_ips_done(&dev->allowed_ips);
	const int err = cds_lfht_destroy(dev->peers_by_key, NULL);
	assert(!err);
	(void)err;
	dev->peers_by_key = NULL;
	done_tables(dev);
	secret_zero(&dev->identity, sizeof(dev->identity));
	secret_zero(&dev->cookie_checker, sizeof(dev->cookie_checker));
}

void device_set_time(struct device *dev, uint64_t now_ns, uint64_t realtime_ns)
{
	device_assert_held(dev);
	assert(now_ns && now_ns >= dev->now_ns);
	dev->now_ns = now_ns;
	dev->realtime_ns = realtime_ns;
}

void device_up(struct device *dev)
{
	struct peer *peer;

	device_assert_held(dev);
	if (dev->up)
		return;
	dev->up = true;
	/* Release pairs with the acquire in dispatch.c. */
	atomic_store_explicit(&dev->running, true, memory_order_release);
	log_at(LOG_LEVEL_INFO, LOG_CORE, "interface is up");
	cds_list_for_each_entry (peer, &dev->peers, link)
		start_persistent_keepalive(dev, peer);
}

void device_down(struct device *dev)
{
	struct peer *peer;

	device_assert_held(dev);
	if (!dev->up)
		return;
	atomic_store_explicit(&dev->running, false, memory_order_release);
	log_at(LOG_LEVEL_INFO, LOG_CORE, "interface is down");
	cds_list_for_each_entry (peer, &dev->peers, link)
		reset_peer(dev, peer);
	dev->under_load_until_ns = 0;
	dev->up = false;
}

void device_set_private_key(struct device *dev, const uint8_t private_key[NOISE_KEY_BYTES])
{
	struct noise_identity identity;
	struct peer *peer;

	device_assert_held(dev);
	noise_identity_set(&identity, private_key);
	if (identity.has == dev->identity.has &&
		!sodium_memcmp(
			identity.private_key, dev->identity.private_key, sizeof(identity.private_key))) {
		secret_zero(&identity, sizeof(identity));
		return;
	}
	dev->identity = identity;
	secret_zero(&identity, sizeof(identity));
	cookie_checker_set_key(&dev->cookie_checker, dev->identity.public_key);

	if (dev->identity.has && (peer = device_find_peer(dev, dev->identity.public_key)))
		device_remove_peer(dev, peer);
	cds_list_for_each_entry (peer, &dev->peers, link) {
		handshake_clear(dev, peer);
		secret_zero(peer->handshake.static_static, sizeof(peer->handshake.static_static));
		peer->handshake.has_static_static = false;
		peer->initiation_held_until_ns = 0;
		if (peer->persistent_keepalive_s || peer->staged_first)
			timers_arm(dev, peer, TIMER_START, dev->now_ns);
	}
}

void device_add_peer(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	CHECK(dev->nr_peers < DEVICE_PEERS_MAX);
	peer->id = dev->next_peer_id++;
	peer->owner = (unsigned)(peer->id % dev->nr_tun_tx_threads);
	cds_list_add_tail(&peer->link, &dev->peers);
	cds_lfht_node_init(&peer->by_key);
	cds_lfht_add(dev->peers_by_key, hash_key(dev, peer->public_key), &peer->by_key);
	dev->nr_peers++;
	if (dev->up)
		start_persistent_keepalive(dev, peer);
}

void device_remove_peer(struct device *dev, struct peer *peer)
{
	char name[PEER_NAME_BYTES];

	device_assert_held(dev);
	log_at(LOG_LEVEL_DEBUG, LOG_PEER, "%s: removed", peer_name(peer, name));
	/*
	 * From here on no new reference can appear: the peer leaves every table, no timer is armed for a
	 * removed peer, and messages and notes carry indices only. Who has a reference already drops it
	 * before the grace period ends.
	 */
	peer->removed = true;
	cds_list_del(&peer->link);
	cds_lfht_del(dev->peers_by_key, &peer->by_key);
	allowed_ips_remove_peer(&dev->allowed_ips, peer);
	reset_peer(dev, peer);
	dev->nr_peers--;
	call_rcu(&peer->rcu, peer_free_rcu);
}

struct peer *device_find_peer(const struct device *dev, const uint8_t public_key[NOISE_KEY_BYTES])
{
	struct cds_lfht_iter iter;

	device_assert_held(dev);
	cds_lfht_lookup(dev->peers_by_key, hash_key(dev, public_key), match_key, public_key, &iter);
	struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
	return node ? CONTAINER_OF(node, struct peer, by_key) : NULL;
}

void device_set_preshared(struct device *dev, struct peer *peer, const uint8_t preshared[NOISE_KEY_BYTES])
{
	device_assert_held(dev);
	memcpy(peer->handshake.preshared, preshared, sizeof(peer->handshake.preshared));
}

void device_set_endpoint(struct device *dev, struct peer *peer, const struct endpoint *endpoint)
{
	device_assert_held(dev);
	peer_set_endpoint(peer, endpoint);
	if (peer->staged_first && !egress_staged(dev, peer))
		handshake_initiate(dev, peer, false);
}

void device_set_persistent_keepalive(struct device *dev, struct peer *peer, uint16_t seconds)
{
	const uint16_t before = peer->persistent_keepalive_s;

	device_assert_held(dev);
	peer->persistent_keepalive_s = seconds;
	if (!seconds)
		timers_cancel(peer, TIMER_PERSISTENT_KEEPALIVE);
	else if (dev->up && !before)
		start_persistent_keepalive(dev, peer);
	else if (before != seconds)
		timers_arm(dev, peer, TIMER_PERSISTENT_KEEPALIVE,
			MAX(dev->now_ns, peer_last_traffic_ns(peer) + seconds * NS_PER_SEC));
}

void device_note(struct device *dev, void *item)
{
	uint32_t index;
	const enum note note = note_decode(item, &index);
	struct session *session = session_table_find(&dev->sessions, index);

	device_assert_held(dev);
	/* Retired since the note was given, and the index perhaps a handshake's already: see notes.h. */
	if (!session || !session->keypair)
		return;
	struct peer *peer = session->peer;
	switch (note) {
	case NOTE_CONFIRMED:
		/* The data came from that endpoint, and what is staged must go there: endpoint first. */
		peer_take_roamed(peer);
		handshake_confirmed(dev, peer, session);
		break;
	case NOTE_DATA_RECEIVED:
		timers_data_received(dev, peer);
		break;
	case NOTE_REKEY:
		/* One that has been replaced needs nothing. */
		if (session == peer->current)
			handshake_initiate(dev, peer, false);
		break;
	case NOTE_ROAMED:
		peer_take_roamed(peer);
		break;
	}
}

struct keypair *device_send_keypair(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	if (likely(peer->current)) {
		struct keypair *k = peer->current->keypair;
		const uint64_t age_ns = dev->now_ns - k->created_ns;

		if (likely(age_ns < REKEY_AFTER_TIME_NS && k->send_counter < REKEY_AFTER_MESSAGES))
			return k;
		return aged_keypair(dev, peer, k, age_ns);
	}
	handshake_initiate(dev, peer, false);
	return NULL;
}

void device_sent(struct device *dev, struct peer *peer, uint64_t wire_bytes, bool data)
{
	device_assert_held(dev);
	atomic_store_explicit(&peer->last_tx_ns, dev->now_ns, memory_order_relaxed);
	counter_add(&peer->tx_bytes, wire_bytes);
	if (!data)
		return;
	if (peer->first_unanswered_tx_ns <= peer_last_rx_ns(peer))
		peer->first_unanswered_tx_ns = dev->now_ns;
	if (unlikely(!timers_armed(peer, TIMER_NEW_HANDSHAKE)))
		timers_arm(dev, peer, TIMER_NEW_HANDSHAKE, timers_jittered(dev, NEW_HANDSHAKE_TIME_NS));
}

/* Those that accept to be zeroed. */
static void done_tables(struct device *dev)
{
	session_table_done(&dev->sessions);
	timer_heap_done(&dev->timers);
	ratelimiter_done(&dev->ratelimiter);
}

/* k is past the age or the number of messages at which it should be replaced: starts that, and returns k
 * while it may still be used. */
static struct keypair *aged_keypair(struct device *dev, struct peer *peer, struct keypair *k, uint64_t age_ns)
{
	const bool usable = age_ns < REJECT_AFTER_TIME_NS && k->send_counter < SEND_COUNTER_MAX;

	if (!usable || k->initiator || k->send_counter >= REKEY_AFTER_MESSAGES)
		handshake_initiate(dev, peer, false);
	return usable ? k : NULL;
}

/* By timer even though it is due at once: when the interface comes up it is due for every peer, each may cost
 * a handshake, and timers_run() takes a few peers a turn. */
static void start_persistent_keepalive(struct device *dev, struct peer *peer)
{
	if (!peer->persistent_keepalive_s)
		return;
	timers_arm(dev, peer, TIMER_START, dev->now_ns);
	timers_arm(dev, peer, TIMER_PERSISTENT_KEEPALIVE,
		dev->now_ns + peer->persistent_keepalive_s * NS_PER_SEC);
}

/* Back to what a fresh peer is, except for configuration, endpoint and counters. */
static void reset_peer(struct device *dev, struct peer *peer)
{
	egress_purge_staged(dev, peer);
	handshake_clear(dev, peer);
	timers_cancel_all(dev, peer);
	peer->initiation_held_until_ns = 0;
	peer->first_unanswered_tx_ns = 0;
	peer_take_roamed(peer);
	atomic_store_explicit(&peer->wants_rx_note, true, memory_order_relaxed);
}

static unsigned long hash_key(const struct device *dev, const uint8_t public_key[NOISE_KEY_BYTES])
{
	uint8_t out[crypto_shorthash_BYTES];

	crypto_shorthash(out, public_key, NOISE_KEY_BYTES, dev->by_key_secret);
	return (unsigned long)load_le64(out);
}

static int match_key(struct cds_lfht_node *node, const void *key)
{
	return !memcmp(CONTAINER_OF(node, struct peer, by_key)->public_key, key, NOISE_KEY_BYTES);
}

static void peer_free_rcu(struct rcu_head *head)
{
	peer_free(CONTAINER_OF(head, struct peer, rcu));
}
