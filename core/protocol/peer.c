#include "core/protocol/peer.h"

#include <limits.h>
#include <sodium.h>
#include <stdio.h>

#include "core/base/log.h"
#include "core/protocol/device.h"
#include "crypto/secret.h"

static struct endpoint without_barred(const struct peer *peer, const struct endpoint *endpoint);
static void void_told(struct peer *peer);
static bool discard_roamed(struct peer *peer);
static void retire(struct device *dev, struct peer *peer, struct session *session);

struct peer *peer_new(const uint8_t public_key[NOISE_KEY_BYTES], const uint8_t *preshared)
{
	struct peer *peer = secret_alloc(sizeof(*peer));

	if (!peer)
		return NULL;
	memcpy(peer->public_key, public_key, sizeof(peer->public_key));
	memcpy(peer->handshake.remote_static, public_key, sizeof(peer->handshake.remote_static));
	if (preshared)
		memcpy(peer->handshake.preshared, preshared, sizeof(peer->handshake.preshared));
	cookie_jar_init(&peer->cookie_jar, public_key);
	CDS_INIT_LIST_HEAD(&peer->link);
	CDS_INIT_LIST_HEAD(&peer->allowed_ips);
	peer->timer_slot = UINT_MAX;
	atomic_init(&peer->wants_rx_note, true);
	return peer;
}

void peer_free(struct peer *peer)
{
	secret_free(peer, sizeof(*peer));
}

const char *peer_name(const struct peer *peer, char *buf)
{
	return peer_key_name(peer->public_key, buf);
}

const char *peer_key_name(const uint8_t public_key[NOISE_KEY_BYTES], char *buf)
{
	char base64[sodium_base64_ENCODED_LEN(NOISE_KEY_BYTES, sodium_base64_VARIANT_ORIGINAL)];

	sodium_bin2base64(
		base64, sizeof(base64), public_key, NOISE_KEY_BYTES, sodium_base64_VARIANT_ORIGINAL);
	/* The last character is always '=': it names nobody. */
	snprintf(buf, PEER_NAME_BYTES, "peer(%.4s...%.4s)", base64, base64 + 39);
	return buf;
}

void peer_set_endpoint(struct peer *peer, const struct endpoint *endpoint)
{
	const struct endpoint to_use = without_barred(peer, endpoint);
	char name[PEER_NAME_BYTES], text[ENDPOINT_STRLEN];

	/* What is in the mailbox is older than this. If there was something, the owner's thread must learn
	 * that it was not taken, even when the endpoint stays as it is. */
	const bool discarded = discard_roamed(peer);

	if (endpoint_same_arrival(&peer->endpoint, &to_use) && !discarded)
		return;
	if (!endpoint_same_to(&peer->endpoint, endpoint))
		log_limited(LOG_LEVEL_DEBUG, LOG_PEER, "%s: endpoint is now %s", peer_name(peer, name),
			endpoint_format(endpoint, text));
	peer->endpoint = to_use;
	void_told(peer);
}

void peer_forget_source(struct peer *peer)
{
	/* Of the newest endpoint, which may still be in the mailbox. */
	peer_take_roamed(peer);
	struct endpoint endpoint = peer->endpoint;

	endpoint_clear_source(&endpoint);
	peer_set_endpoint(peer, &endpoint);
}

void peer_bar_source(struct peer *peer, const struct endpoint *endpoint)
{
	/* Of the newest endpoint, which may still be in the mailbox. */
	peer_take_roamed(peer);
	if (!endpoint_same_arrival(&peer->endpoint, endpoint))
		return;
	/* What the owner's thread has told stays true, so that packets which go on coming so tell nothing new. */
	peer->barred = *endpoint;
	endpoint_clear_source(&peer->endpoint);
}

void peer_unbar_source(struct peer *peer, const struct endpoint *endpoint)
{
	if (!endpoint_same_arrival(&peer->barred, endpoint))
		return;
	peer->barred = (struct endpoint){0};
	void_told(peer);
}

void peer_take_roamed(struct peer *peer)
{
	char name[PEER_NAME_BYTES], text[ENDPOINT_STRLEN];

	/* Acquire pairs with the release in note_roamed() after it wrote roamed. */
	if (!atomic_load_explicit(&peer->roamed_pending, memory_order_acquire))
		return;
	if (!endpoint_same_to(&peer->endpoint, &peer->roamed))
		log_limited(LOG_LEVEL_DEBUG, LOG_PEER, "%s: roamed to %s", peer_name(peer, name),
			endpoint_format(&peer->roamed, text));
	peer->endpoint = without_barred(peer, &peer->roamed);
	/* Release pairs with the acquire in note_roamed() before it writes roamed again. */
	atomic_store_explicit(&peer->roamed_pending, false, memory_order_release);
}

void peer_add_session(struct device *dev, struct peer *peer, struct session *session)
{
	device_assert_held(dev);
	assert(session->keypair);
	if (!session->keypair->initiator) {
		/*
		 * We are the responder. The initiator does not have the keys before our response arrives, so
		 * we go on sending under current until it has used them; the new session waits as next. A
		 * next that was never used is superseded, and so is previous: two sessions are all that the
		 * initiator can still send under.
		 */
		retire(dev, peer, peer->next);
		retire(dev, peer, peer->previous);
		peer->previous = NULL;
		peer->next = session;
		return;
	}

	/*
	 * We are the initiator. The response has shown that the other end has the keys, so the new session is
	 * current at once. One more stays, to open what is on its way:
	 * - Without a next, that is current, which the other end has been sending under.
	 * - With a next, our handshakes have crossed. The other end has completed that one as initiator and
	 *   may be sending under it already, although nothing of that has come; so it is next that stays, and
	 *   current, which it superseded there, goes.
	 */
	retire(dev, peer, peer->previous);
	if (peer->next) {
		retire(dev, peer, peer->current);
		peer->previous = peer->next;
		peer->next = NULL;
	} else {
		peer->previous = peer->current;
	}
	peer->current = session;
}

bool peer_confirm_session(struct device *dev, struct peer *peer, struct session *session)
{
	device_assert_held(dev);
	if (!session || session != peer->next)
		return false;
	/* The initiator uses it, so it has the keys, and we may. What it sent before was under current. */
	retire(dev, peer, peer->previous);
	peer->previous = peer->current;
	peer->current = session;
	peer->next = NULL;
	return true;
}

void peer_clear_sessions(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	retire(dev, peer, peer->previous);
	retire(dev, peer, peer->current);
	retire(dev, peer, peer->next);
	peer->previous = peer->current = peer->next = NULL;
}

static struct endpoint without_barred(const struct peer *peer, const struct endpoint *endpoint)
{
	struct endpoint e = *endpoint;

	if (endpoint_is_pinned(&e) && endpoint_same_arrival(&e, &peer->barred))
		endpoint_clear_source(&e);
	return e;
}

/* The owner's thread is to tell where packets come from even if it has told so before. */
static void void_told(struct peer *peer)
{
	/* Release pairs with the acquire in note_roamed(), ingress.c. */
	atomic_fetch_add_explicit(&peer->endpoint_generation, 1, memory_order_release);
}

/* Empties the mailbox unread. Returns whether there was something in it. */
static bool discard_roamed(struct peer *peer)
{
	/* Acquire and release as in peer_take_roamed(). */
	if (!atomic_load_explicit(&peer->roamed_pending, memory_order_acquire))
		return false;
	atomic_store_explicit(&peer->roamed_pending, false, memory_order_release);
	return true;
}

static void retire(struct device *dev, struct peer *peer, struct session *session)
{
	if (!session)
		return;
	session_table_remove(&dev->sessions, session);
	timers_session_retired(dev, peer);
}
