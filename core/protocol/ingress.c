#include "core/protocol/ingress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/log.h"
#include "crypto/wire.h"
#include "tun/inner.h"

/* How long a frame waits for a TUN queue that has no room, before it is dropped. */
#define TUN_WAIT_STEP_NS (50 * 1000)
#define TUN_WAIT_STEPS_MAX 2000

static uint32_t receiver_of(const struct ingress_view *view, unsigned segment);
static void open_run(
	struct ingress *in, struct ingress_view *view, unsigned from, unsigned to, uint64_t now_ns);
static struct keypair *usable_keypair(
	struct ingress *in, const struct session *session, unsigned nr, uint64_t now_ns);
static void receive_run(struct ingress *in, struct ingress_view *view, unsigned from, unsigned nr,
	const struct session *session, struct keypair *k, uint64_t now_ns);
static void receive_packet(
	struct ingress *in, struct peer *peer, uint8_t *packet, uint32_t len, const struct udp_rx_msg *msg);
static bool source_allowed(struct ingress *in, const struct peer *peer, const uint8_t *packet);
static void log_bad_tag(const struct peer *peer, const struct endpoint *from);
static void log_not_allowed(const struct peer *peer, const struct endpoint *from, const uint8_t *packet);
static void note_roamed(struct ingress *in, struct peer *peer, uint32_t index, const struct endpoint *from);
static void note_confirmed(struct ingress *in, struct keypair *k);
static void note_received(
	struct ingress *in, struct peer *peer, struct keypair *k, bool data, uint64_t now_ns);
static void write_frame(void *arg, struct tun_frame *frame, unsigned packets);

int ingress_init(struct ingress *in, struct device *dev, unsigned owner, struct drops *drops,
	struct aead *aead, struct tun_queue *queue, struct mpsc_tx notes)
{
	*in = (struct ingress){
		.dev = dev, .owner = owner, .drops = drops, .aead = aead, .queue = queue, .notes = notes};
	in->segs = calloc(INGRESS_SEGS_MAX, sizeof(*in->segs));
	if (!in->segs) {
		*in = (struct ingress){0};
		return -ENOMEM;
	}
	const int err = coalesce_init(&in->coalesce, write_frame, in);
	if (err) {
		free(in->segs);
		*in = (struct ingress){0};
	}
	return err;
}

void ingress_done(struct ingress *in)
{
	coalesce_done(&in->coalesce);
	free(in->segs);
	in->segs = NULL;
}

void ingress_open(struct ingress *in, struct ingress_view *view, uint64_t now_ns)
{
	unsigned to;

	assert(!in->baton || baton_held_by_me(in->baton));
	counter_add(&in->counters.views, 1);
	counter_add(&in->counters.segments, view->nr);
	histogram_add(&in->counters.view_segments, view->nr);
	in->coalesce.offloads = atomic_load_explicit(&in->queue->offloads, memory_order_relaxed);
	in->allowed_peer = NULL;
	for (unsigned from = 0; from < view->nr; from = to) {
		const uint32_t index = receiver_of(view, from);

		to = from + 1;
		while (to < view->nr && receiver_of(view, to) == index)
			to++;
		open_run(in, view, from, to, now_ns);
	}
	coalesce_flush(&in->coalesce);
}

static inline uint32_t receiver_of(const struct ingress_view *view, unsigned segment)
{
	return wire_data_receiver(ingress_view_datagram(view, segment));
}

/* Opens segments [from, to), all of one receiver index. */
static void open_run(
	struct ingress *in, struct ingress_view *view, unsigned from, unsigned to, uint64_t now_ns)
{
	const unsigned nr = to - from;
	const struct session *session = session_table_find(&in->dev->sessions, receiver_of(view, from));
	struct keypair *k = usable_keypair(in, session, nr, now_ns);

	if (unlikely(!k))
		return;
	for (unsigned i = 0; i < nr; i++) {
		uint8_t *datagram = ingress_view_datagram(view, from + i);

		in->segs[i] = (struct aead_open_seg){
			.data = datagram + WIRE_DATA_HEADER_BYTES,
			.len = view->segment[from + i].len - WIRE_DATA_HEADER_BYTES,
			.counter = wire_data_counter(datagram),
		};
	}
	in->aead->open_train(in->aead, k->receive_key, in->segs, nr);
	receive_run(in, view, from, nr, session, k, now_ns);
}

/* NULL after counting the nr datagrams as dropped: session, which may be NULL, cannot open them. */
static struct keypair *usable_keypair(
	struct ingress *in, const struct session *session, unsigned nr, uint64_t now_ns)
{
	struct keypair *k = session ? rcu_dereference(session->keypair) : NULL;

	/*
	 * The session may have been retired since its datagrams were sorted, and its index may be that of a
	 * younger one now, whose owner is another thread. Nothing here can be meant for that one: all of it
	 * was received before that index was given away again.
	 */
	if (unlikely(!k || session->owner != in->owner)) {
		drop(in->drops, DROP_INGRESS_UNKNOWN_INDEX, nr);
		return NULL;
	}
	if (unlikely(atomic_load_explicit(&k->retired, memory_order_relaxed) ||
		     (now_ns > k->created_ns && now_ns - k->created_ns >= REJECT_AFTER_TIME_NS))) {
		drop(in->drops, DROP_INGRESS_EXPIRED, nr);
		return NULL;
	}
	return k;
}

/* in->segs holds what open_train() made of nr segments from from on: checks them, and takes what is good. */
static void receive_run(struct ingress *in, struct ingress_view *view, unsigned from, unsigned nr,
	const struct session *session, struct keypair *k, uint64_t now_ns)
{
	struct peer *peer = session->peer;
	uint64_t wire_bytes = 0;
	bool data = false, any = false;
	unsigned last_msg = UINT_MAX;

	for (unsigned i = 0; i < nr; i++) {
		const struct aead_open_seg *seg = &in->segs[i];
		const struct ingress_segment *s = &view->segment[from + i];
		const struct udp_rx_msg *msg = &view->batch->msg[s->msg];

		if (unlikely(!seg->ok)) {
			drop(in->drops, DROP_INGRESS_BAD_TAG, 1);
			log_bad_tag(peer, &msg->from);
			continue;
		}
		if (unlikely(!replay_accept(&k->replay, seg->counter))) {
			drop(in->drops, DROP_INGRESS_REPLAY, 1);
			continue;
		}
		wire_bytes += s->len;
		if (s->msg != last_msg) {
			note_roamed(in, peer, session->index, &msg->from);
			last_msg = s->msg;
		}
		if (!any)
			note_confirmed(in, k);
		any = true;
		const uint32_t len = seg->len - AEAD_TAG_BYTES;
		if (!len) {
			counter_add(&in->counters.keepalives, 1);
			continue;
		}
		data = true;
		receive_packet(in, peer, seg->data, len, msg);
	}
	if (any) {
		atomic_store_explicit(&peer->rx_bytes,
			atomic_load_explicit(&peer->rx_bytes, memory_order_relaxed) + wire_bytes,
			memory_order_relaxed);
		counter_add(&in->counters.bytes, wire_bytes);
		note_received(in, peer, k, data, now_ns);
	}
}

static void receive_packet(
	struct ingress *in, struct peer *peer, uint8_t *packet, uint32_t len, const struct udp_rx_msg *msg)
{
	uint32_t ip_len;

	if (unlikely(inner_check(packet, len, &ip_len))) {
		drop(in->drops, DROP_INGRESS_BAD_INNER, 1);
		return;
	}
	if (unlikely(!source_allowed(in, peer, packet))) {
		drop(in->drops, DROP_INGRESS_NOT_ALLOWED, 1);
		log_not_allowed(peer, &msg->from, packet);
		return;
	}
	if (unlikely(msg->ecn != 0) && inner_ecn_decapsulate(packet, msg->ecn)) {
		drop(in->drops, DROP_INGRESS_ECN, 1);
		return;
	}
	counter_add(&in->counters.packets, 1);
	coalesce_add(&in->coalesce, packet, ip_len);
}

/* Cryptokey routing: the longest prefix that holds the inner source must be the sender's. A view mostly
 * repeats one source, so the last one found allowed is remembered. */
static bool source_allowed(struct ingress *in, const struct peer *peer, const uint8_t *packet)
{
	const uint8_t version = inner_version(packet);
	const uint8_t *src = inner_src(packet);
	const size_t len = version == 4 ? 4 : 16;

	if (in->allowed_peer == peer && in->allowed_version == version && !memcmp(in->allowed_src, src, len))
		return true;
	const struct peer *owner = version == 4 ? allowed_ips_lookup4(&in->dev->allowed_ips, src)
						: allowed_ips_lookup6(&in->dev->allowed_ips, src);
	if (owner != peer)
		return false;
	in->allowed_peer = peer;
	in->allowed_version = version;
	memcpy(in->allowed_src, src, len);
	return true;
}

/* Not the peer's doing, as far as anybody can tell: the address is what the datagram says. */
static void log_bad_tag(const struct peer *peer, const struct endpoint *from)
{
	char name[PEER_NAME_BYTES], text[ENDPOINT_STRLEN];

	log_limited(LOG_LEVEL_DEBUG, LOG_PEER, "%s: data message from %s refused: it does not authenticate",
		peer_name(peer, name), endpoint_format(from, text));
}

/* Authenticated, so one of the two ends has the wrong addresses: the operator's to mend. */
static void log_not_allowed(const struct peer *peer, const struct endpoint *from, const uint8_t *packet)
{
	char name[PEER_NAME_BYTES], text[ENDPOINT_STRLEN], source[INET6_ADDRSTRLEN];

	log_limited(LOG_LEVEL_INFO, LOG_PEER,
		"%s: packet from %s refused: its inner source %s is not in the allowed IPs of this peer",
		peer_name(peer, name), endpoint_format(from, text),
		inet_ntop(inner_version(packet) == 4 ? AF_INET : AF_INET6, inner_src(packet), source,
			sizeof(source)));
}

/*
 * Roaming: tells the state holder when a peer's packets come from somewhere else than it was last told,
 * through the mailbox peer->roamed and a note.
 *
 * Once the flag is up the mailbox is the state holder's to read, at any moment and without a note too; so it
 * stays up and unwritten until the holder lowers it. If there was no room for the note, the note alone is
 * repeated, and what the mailbox does not hold yet follows after it. Until the note is given, what the holder
 * was told before does not count: it may have what is in the mailbox now, or not yet.
 */
static void note_roamed(struct ingress *in, struct peer *peer, uint32_t index, const struct endpoint *from)
{
	/* Acquire pairs with the release in peer_set_endpoint(): the holder changed the endpoint by
	 * itself. */
	const uint32_t generation = atomic_load_explicit(&peer->endpoint_generation, memory_order_acquire);

	if (likely(generation == peer->rx_endpoint_generation &&
		    endpoint_same_arrival(from, &peer->rx_endpoint)))
		return;
	/* Acquire pairs with the holder's release after reading the mailbox. */
	if (!atomic_load_explicit(&peer->roamed_pending, memory_order_acquire)) {
		peer->roamed = *from;
		peer->roamed_noted = false;
		peer->rx_endpoint = (struct endpoint){0};
		atomic_store_explicit(&peer->roamed_pending, true, memory_order_release);
	}
	if (peer->roamed_noted || unlikely(!mpsc_push(in->notes, note_encode(NOTE_ROAMED, index))))
		return;
	peer->roamed_noted = true;
	peer->rx_endpoint = peer->roamed;
	peer->rx_endpoint_generation = generation;
}

/*
 * Key confirmation: the first data under a session that we made as responder.
 *
 * To be called before that data goes to TUN. Its answer, which comes as a train, must find this note in the
 * ring already: otherwise it would be sealed under the session before, which a peer that was restarted has
 * lost. And after note_roamed(): what is staged goes out with this note, to where the data came from.
 */
static void note_confirmed(struct ingress *in, struct keypair *k)
{
	if (unlikely(!k->initiator && !atomic_load_explicit(&k->confirmed, memory_order_relaxed)) &&
		mpsc_push(in->notes, note_encode(NOTE_CONFIRMED, k->local_index)))
		atomic_store_explicit(&k->confirmed, true, memory_order_relaxed);
}

/* After authenticated packets: the timestamps that timers look at, and the notes that are due. */
static void note_received(
	struct ingress *in, struct peer *peer, struct keypair *k, bool data, uint64_t now_ns)
{
	atomic_store_explicit(&peer->last_rx_ns, now_ns, memory_order_relaxed);
	if (unlikely(k->initiator && now_ns > k->created_ns &&
		     now_ns - k->created_ns >= RECEIVE_REKEY_AGE_NS &&
		     !atomic_load_explicit(&k->rekey_noted, memory_order_relaxed)) &&
		mpsc_push(in->notes, note_encode(NOTE_REKEY, k->local_index)))
		atomic_store_explicit(&k->rekey_noted, true, memory_order_relaxed);
	if (!data)
		return;

	if (atomic_load_explicit(&peer->first_unanswered_rx_ns, memory_order_relaxed) <=
		atomic_load_explicit(&peer->last_tx_ns, memory_order_relaxed))
		atomic_store_explicit(&peer->first_unanswered_rx_ns, now_ns, memory_order_relaxed);
	/*
	 * Pairs with the fence in keepalive_idle(), timers.c, between raising wants_rx_note and looking at
	 * first_unanswered_rx_ns: at least one of the two sides sees what the other has stored.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if (likely(!atomic_load_explicit(&peer->wants_rx_note, memory_order_relaxed)))
		return;
	/* Lowered before the push: from then on the state holder may raise it again at any time. */
	atomic_store_explicit(&peer->wants_rx_note, false, memory_order_relaxed);
	if (unlikely(!mpsc_push(in->notes, note_encode(NOTE_DATA_RECEIVED, k->local_index))))
		atomic_store_explicit(&peer->wants_rx_note, true, memory_order_relaxed);
}

/* The coalescer's output, in order. */
static void write_frame(void *arg, struct tun_frame *frame, unsigned packets)
{
	struct ingress *in = arg;
	int (*send)(struct tun_queue *, struct tun_frame *) = in->queue->ops->send;
	int err = send(in->queue, frame);

	for (unsigned step = 0; unlikely(err) && step < TUN_WAIT_STEPS_MAX; step++) {
		if (err == -EOPNOTSUPP) {
			/* The kernel refuses this super-packet: it goes in pieces. If the queue has given up
			 * its kind, no more are made. */
			in->coalesce.offloads =
				atomic_load_explicit(&in->queue->offloads, memory_order_relaxed);
			send = tun_frame_split_send;
		} else if (err != -EAGAIN) {
			break;
		} else if (!in->queue->ops->send_ready(in->queue)) {
			/* No room in the queue. What makes some is the kernel or another thread, so wait;
			 * what comes meanwhile stays in the channel to this thread. */
			nanosleep(&(struct timespec){.tv_nsec = TUN_WAIT_STEP_NS}, NULL);
		}
		err = send(in->queue, frame);
	}
	if (unlikely(err)) {
		drop(in->drops, err == -ENETDOWN ? DROP_INGRESS_DOWN : DROP_INGRESS_TUN_ERROR,
			packets - MIN(packets, frame->pieces_sent));
		return;
	}
	counter_add(&in->counters.frames, 1);
	histogram_add(&in->counters.frame_packets, packets);
}
