#include "core/protocol/handshake.h"

#include <errno.h>

#include "core/base/log.h"
#include "core/protocol/egress.h"
#include "crypto/secret.h"

static void receive_initiation(struct device *dev, const struct handshake_message *msg);
static void receive_response(struct device *dev, const struct handshake_message *msg);
static void receive_cookie(struct device *dev, const struct handshake_message *msg);
static bool admit(struct device *dev, const struct handshake_message *msg, unsigned backlog);
static void send_cookie(
	struct device *dev, const struct handshake_message *msg, const uint8_t *source, size_t source_len);
static void send_response(struct device *dev, struct peer *peer);
static void sign_and_send(struct device *dev, struct peer *peer, void *msg, size_t len);
static int begin_session(struct device *dev, struct peer *peer);
static void completed(struct device *dev, struct peer *peer);
static void received_from(struct device *dev, struct peer *peer, const struct handshake_message *msg);
static void drop_handshake_session(struct device *dev, struct peer *peer);
static enum drop_reason reason_of(int err);
static void reject(struct device *dev, const struct handshake_message *msg, const struct peer *peer,
	enum drop_reason why);
static const char *message_name(const struct handshake_message *msg);
static void next_timestamp(const struct device *dev, struct peer *peer, uint8_t out[WIRE_TIMESTAMP_BYTES]);

void handshake_receive(struct device *dev, const struct handshake_message *msg, unsigned backlog)
{
	device_assert_held(dev);
	if (!dev->up || !dev->identity.has) {
		drop(dev->drops, DROP_HANDSHAKE_DOWN, 1);
		return;
	}
	switch (wire_classify(msg->data, msg->len)) {
	case WIRE_INITIATION:
		counter_add(&dev->counters.initiations_received, 1);
		if (admit(dev, msg, backlog))
			receive_initiation(dev, msg);
		break;
	case WIRE_RESPONSE:
		counter_add(&dev->counters.responses_received, 1);
		if (admit(dev, msg, backlog))
			receive_response(dev, msg);
		break;
	case WIRE_COOKIE:
		counter_add(&dev->counters.cookies_received, 1);
		receive_cookie(dev, msg);
		break;
	default:
		drop(dev->drops, DROP_INGRESS_UNKNOWN_TYPE, 1);
		break;
	}
}

void handshake_initiate(struct device *dev, struct peer *peer, bool is_retry)
{
	uint8_t timestamp[WIRE_TIMESTAMP_BYTES];
	struct wire_initiation msg;
	char name[PEER_NAME_BYTES];

	device_assert_held(dev);
	if (!dev->up || !dev->identity.has || peer->removed || !endpoint_is_set(&peer->endpoint))
		return;
	if (!is_retry)
		peer->handshake_attempts = 0;
	if (dev->now_ns < peer->initiation_held_until_ns)
		return;
	/* Before anything can fail: if it always fails, that must cost a key agreement every five seconds,
	 * not one a packet. */
	peer->initiation_held_until_ns = timers_jittered(dev, REKEY_TIMEOUT_NS);

	drop_handshake_session(dev, peer);
	peer->handshake_session = session_table_add(&dev->sessions, peer, peer->owner);
	if (!peer->handshake_session) {
		log_limited(LOG_LEVEL_ERROR, LOG_HANDSHAKE, "%s: no memory for a handshake",
			peer_name(peer, name));
		return;
	}
	next_timestamp(dev, peer, timestamp);
	const int err = noise_initiation_create(
		&peer->handshake, &dev->identity, peer->handshake_session->index, timestamp, &msg);
	if (err) {
		log_limited(LOG_LEVEL_WARN, LOG_HANDSHAKE,
			"%s: cannot make an initiation for this public key", peer_name(peer, name));
		drop_handshake_session(dev, peer);
		noise_handshake_clear(&peer->handshake);
		return;
	}
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: sending handshake initiation", peer_name(peer, name));
	if (peer->current)
		counter_add(&dev->counters.rekeys, 1);
	sign_and_send(dev, peer, &msg, sizeof(msg));
	counter_add(&dev->counters.initiations_sent, 1);
	timers_arm(dev, peer, TIMER_RETRANSMIT_HANDSHAKE, peer->initiation_held_until_ns);
	secret_zero(&msg, sizeof(msg));
}

void handshake_confirmed(struct device *dev, struct peer *peer, struct session *session)
{
	device_assert_held(dev);
	if (!peer_confirm_session(dev, peer, session))
		return;
	completed(dev, peer);
	egress_staged(dev, peer);
}

void handshake_clear(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	drop_handshake_session(dev, peer);
	noise_handshake_clear(&peer->handshake);
	peer_clear_sessions(dev, peer);
	timers_cancel(peer, TIMER_RETRANSMIT_HANDSHAKE);
	peer->handshake_attempts = 0;
}

/* Responder: authenticates, answers, and keeps the new session as next until the initiator uses it. */
static void receive_initiation(struct device *dev, const struct handshake_message *msg)
{
	const struct wire_initiation *initiation = (const struct wire_initiation *)msg->data;
	char name[PEER_NAME_BYTES], from[ENDPOINT_STRLEN];
	struct noise_initiation_open open;
	struct peer *peer = NULL;

	int err = noise_initiation_open(&open, &dev->identity, initiation);
	if (err) {
		reject(dev, msg, NULL, reason_of(err));
		goto out;
	}
	peer = device_find_peer(dev, open.remote_static);
	if (!peer) {
		drop(dev->drops, DROP_HANDSHAKE_UNKNOWN_PEER, 1);
		log_limited(LOG_LEVEL_INFO, LOG_HANDSHAKE,
			"initiation from %s refused: %s is no peer of ours",
			endpoint_format(&msg->from, from), peer_key_name(open.remote_static, name));
		goto out;
	}
	err = noise_initiation_accept(&peer->handshake, &dev->identity, &open, initiation, dev->now_ns);
	if (err) {
		reject(dev, msg, peer, reason_of(err));
		goto out;
	}
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: received handshake initiation from %s",
		peer_name(peer, name), endpoint_format(&msg->from, from));
	received_from(dev, peer, msg);
	send_response(dev, peer);
out:
	secret_zero(&open, sizeof(open));
}

/* Initiator: the session is good at once, and the responder waits for us to use it. */
static void receive_response(struct device *dev, const struct handshake_message *msg)
{
	const struct wire_response *response = (const struct wire_response *)msg->data;
	char name[PEER_NAME_BYTES], from[ENDPOINT_STRLEN];
	struct session *session = session_table_find(&dev->sessions, le32toh(response->receiver));

	/* A late or repeated one finds the session retired, or with keys already. */
	if (!session || session->peer->handshake_session != session) {
		reject(dev, msg, NULL, DROP_HANDSHAKE_UNEXPECTED);
		return;
	}
	struct peer *peer = session->peer;
	const int err = noise_response_consume(&peer->handshake, &dev->identity, response);
	if (err) {
		reject(dev, msg, peer, reason_of(err));
		return;
	}
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: received handshake response from %s",
		peer_name(peer, name), endpoint_format(&msg->from, from));
	received_from(dev, peer, msg);
	if (begin_session(dev, peer))
		return;
	completed(dev, peer);
	/* The responder sends nothing under the new keys before we have: let it have something now. */
	if (!egress_staged(dev, peer))
		egress_keepalive(dev, peer);
}

static void receive_cookie(struct device *dev, const struct handshake_message *msg)
{
	const struct wire_cookie *cookie = (const struct wire_cookie *)msg->data;
	const struct session *session = session_table_find(&dev->sessions, le32toh(cookie->receiver));
	char name[PEER_NAME_BYTES];

	if (!session || cookie_jar_consume(&session->peer->cookie_jar, cookie, dev->now_ns)) {
		reject(dev, msg, NULL, DROP_HANDSHAKE_UNEXPECTED);
		return;
	}
	/* It goes into the initiation that the retransmit timer will send. Endpoint and timers stay: a cookie
	 * reply proves neither who sent it nor from where. */
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: received a cookie", peer_name(session->peer, name));
}

/* Whether the message is worth a key agreement: mac1 must be good, and under load mac2 and the rate limit,
 * too. If not, it has been dropped and counted, and perhaps answered with a cookie reply. */
static bool admit(struct device *dev, const struct handshake_message *msg, unsigned backlog)
{
	const bool crowded = backlog >= HANDSHAKE_LOAD_MARK;
	const bool under_load = crowded || dev->now_ns < dev->under_load_until_ns;
	uint8_t source[18];
	const size_t source_len = endpoint_cookie_bytes(&msg->from, source);

	switch (cookie_checker_verify(
		&dev->cookie_checker, msg->data, msg->len, source, source_len, under_load, dev->now_ns)) {
	case COOKIE_BAD_MAC1:
		reject(dev, msg, NULL, DROP_HANDSHAKE_BAD_MAC1);
		return false;
	case COOKIE_MAC1_ONLY:
		if (crowded)
			dev->under_load_until_ns = dev->now_ns + HANDSHAKE_LOAD_STICKY_NS;
		if (!under_load)
			return true;
		reject(dev, msg, NULL, DROP_HANDSHAKE_UNDER_LOAD);
		send_cookie(dev, msg, source, source_len);
		return false;
	case COOKIE_MAC2_VALID:
		if (crowded)
			dev->under_load_until_ns = dev->now_ns + HANDSHAKE_LOAD_STICKY_NS;
		if (!under_load || ratelimiter_allow(&dev->ratelimiter, &msg->from, dev->now_ns))
			return true;
		reject(dev, msg, NULL, DROP_HANDSHAKE_RATE_LIMITED);
		return false;
	}
	return false;
}

/* The reply is smaller than the message and goes to where that came from, so nobody can amplify with it. */
static void send_cookie(
	struct device *dev, const struct handshake_message *msg, const uint8_t *source, size_t source_len)
{
	const uint32_t sender = wire_handshake_sender(msg->data);
	struct wire_cookie reply;

	uint8_t *slot = gso_queue_slot(dev->queue, &msg->from, TOS_HANDSHAKE, sizeof(reply));
	if (!slot)
		return;
	cookie_reply_create(
		&dev->cookie_checker, &reply, msg->data, msg->len, sender, source, source_len, dev->now_ns);
	memcpy(slot, &reply, sizeof(reply));
	counter_add(&dev->counters.cookies_sent, 1);
}

static void send_response(struct device *dev, struct peer *peer)
{
	struct wire_response msg;
	char name[PEER_NAME_BYTES];

	/* With jitter, or two ends whose initiations have crossed would cross again for ever. */
	peer->initiation_held_until_ns = timers_jittered(dev, REKEY_TIMEOUT_NS);
	/* An own initiation in flight is void: peer->handshake is that of the responder now. */
	drop_handshake_session(dev, peer);
	peer->handshake_session = session_table_add(&dev->sessions, peer, peer->owner);
	if (!peer->handshake_session ||
		noise_response_create(&peer->handshake, peer->handshake_session->index, &msg)) {
		log_limited(LOG_LEVEL_WARN, LOG_HANDSHAKE, "%s: cannot answer this initiation",
			peer_name(peer, name));
		drop_handshake_session(dev, peer);
		noise_handshake_clear(&peer->handshake);
		return;
	}
	if (begin_session(dev, peer))
		return;
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: sending handshake response", peer_name(peer, name));
	sign_and_send(dev, peer, &msg, sizeof(msg));
	counter_add(&dev->counters.responses_sent, 1);
}

static void sign_and_send(struct device *dev, struct peer *peer, void *msg, size_t len)
{
	uint8_t *slot = gso_queue_slot(dev->queue, &peer->endpoint, TOS_HANDSHAKE, (uint32_t)len);

	if (!slot)
		return;
	cookie_jar_sign(&peer->cookie_jar, msg, len, dev->now_ns);
	memcpy(slot, msg, len);
	atomic_store_explicit(&peer->last_tx_ns, dev->now_ns, memory_order_relaxed);
	counter_add(&peer->tx_bytes, len);
}

/* A response was made or accepted: derives the keys. The session whose handshake was in flight gets them and
 * joins those that have keys. */
static int begin_session(struct device *dev, struct peer *peer)
{
	struct session *session = peer->handshake_session;
	struct keypair *keypair = keypair_new();
	char name[PEER_NAME_BYTES];

	if (!keypair) {
		log_limited(
			LOG_LEVEL_ERROR, LOG_HANDSHAKE, "%s: no memory for a session", peer_name(peer, name));
		drop_handshake_session(dev, peer);
		noise_handshake_clear(&peer->handshake);
		return -ENOMEM;
	}
	noise_session(&peer->handshake, keypair, dev->now_ns);
	session_table_set_keypair(session, keypair);
	peer->handshake_session = NULL;
	peer_add_session(dev, peer, session);
	timers_arm(dev, peer, TIMER_ZERO_KEYS, dev->now_ns + ZERO_KEYS_TIME_NS);
	return 0;
}

/* Both ends have the keys, and peer->current is the new session. */
static void completed(struct device *dev, struct peer *peer)
{
	char name[PEER_NAME_BYTES];

	timers_cancel(peer, TIMER_RETRANSMIT_HANDSHAKE);
	peer->handshake_attempts = 0;
	peer->last_handshake_realtime_ns = dev->realtime_ns;
	counter_add(&dev->counters.handshakes_completed, 1);
	log_at(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s: new session as %s", peer_name(peer, name),
		peer->current->keypair->initiator ? "initiator" : "responder");
}

/* After an authenticated handshake message. */
static void received_from(struct device *dev, struct peer *peer, const struct handshake_message *msg)
{
	peer_set_endpoint(peer, &msg->from);
	peer->last_handshake_rx_ns = dev->now_ns;
	counter_add(&peer->rx_handshake_bytes, msg->len);
}

static void drop_handshake_session(struct device *dev, struct peer *peer)
{
	session_table_remove(&dev->sessions, peer->handshake_session);
	peer->handshake_session = NULL;
}

/* Of what crypto/noise.h returns for a message that it does not accept. */
static enum drop_reason reason_of(int err)
{
	switch (err) {
	case -EALREADY:
		return DROP_HANDSHAKE_REPLAY;
	case -EBUSY:
		return DROP_HANDSHAKE_FLOOD;
	case -EINVAL:
		return DROP_HANDSHAKE_UNEXPECTED;
	default:
		return DROP_HANDSHAKE_BAD_CRYPTO;
	}
}

/*
 * Drops msg and logs why; peer is NULL while it is not known. Wrong keys are the operator's to mend, so they
 * have a line of their own each, which a flood of the other kinds cannot suppress.
 */
static void reject(struct device *dev, const struct handshake_message *msg, const struct peer *peer,
	enum drop_reason why)
{
	char name[PEER_NAME_BYTES], from[ENDPOINT_STRLEN];

	drop(dev->drops, why, 1);
	if (why == DROP_HANDSHAKE_BAD_MAC1)
		log_limited(LOG_LEVEL_INFO, LOG_HANDSHAKE,
			"%s from %s refused: not made for our public key (bad mac1)", message_name(msg),
			endpoint_format(&msg->from, from));
	else if (why == DROP_HANDSHAKE_BAD_CRYPTO)
		log_limited(LOG_LEVEL_INFO, LOG_HANDSHAKE,
			"%s%s%s from %s refused: %s; compare keys and preshared keys of both ends",
			peer ? peer_name(peer, name) : "", peer ? ": " : "", message_name(msg),
			endpoint_format(&msg->from, from), drop_text(why));
	else
		log_limited(LOG_LEVEL_DEBUG, LOG_HANDSHAKE, "%s%s%s from %s refused: %s",
			peer ? peer_name(peer, name) : "", peer ? ": " : "", message_name(msg),
			endpoint_format(&msg->from, from), drop_text(why));
}

static const char *message_name(const struct handshake_message *msg)
{
	switch (wire_classify(msg->data, msg->len)) {
	case WIRE_INITIATION:
		return "initiation";
	case WIRE_RESPONSE:
		return "response";
	default:
		return "cookie reply";
	}
}

/*
 * The peer accepts only timestamps that grow. Ours follow the wall clock; when that is set back they grow
 * from the last one sent, by the smallest step that noise_tai64n() leaves visible.
 */
static void next_timestamp(const struct device *dev, struct peer *peer, uint8_t out[WIRE_TIMESTAMP_BYTES])
{
	const uint64_t step_ns = UINT64_C(1) << 24;

	peer->last_timestamp_ns = MAX(dev->realtime_ns, peer->last_timestamp_ns + step_ns);
	noise_tai64n(out, peer->last_timestamp_ns);
}
