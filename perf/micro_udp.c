/* The GSO queue, and what sending and receiving cost around their system calls, which are faked. */
#include "perf/micro.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>

#include "udp/gso_queue.h"
#include "udp/receive.h"
#include "udp/send.h"

#define CONNECTIONS_MAX 64
#define BATCHES 128
#define DATAGRAM_BYTES 1452
#define RUN 45

/* ---- the GSO queue ---- */

struct pattern {
	const char *name;
	unsigned connections; /* taking turns */
	unsigned nr;          /* datagrams in a turn */
	uint32_t len;
	unsigned batches; /* that come out */
};

static const struct pattern patterns[] = {
	{"run", 1, RUN, DATAGRAM_BYTES, 1},
	{"small", 1, 256, 128, 4},
	{"4-connections", 4, 4 * RUN, DATAGRAM_BYTES, 4},
	{"32-connections", 32, 256, 128, 32},
	{"64-connections", 64, 256, 128, 64},
};

struct queue {
	const struct pattern *pattern;
	struct gso_queue gso;
	struct pool pool;
	struct endpoint endpoint[CONNECTIONS_MAX];
	unsigned datagrams, batches;
	bool checking;
	uint32_t next[CONNECTIONS_MAX]; /* number of the datagram expected next */
};

static void deliver(void *arg, struct udp_batch *batch)
{
	struct queue *q = arg;

	q->datagrams += batch->nr;
	q->batches++;
	if (unlikely(q->checking)) {
		const unsigned c = ntohs(batch->endpoint.to.v4.sin_port) - 1000u;

		micro_require(
			c < q->pattern->connections && endpoint_equal(&batch->endpoint, &q->endpoint[c]));
		micro_require(
			batch->len == batch->nr * q->pattern->len && batch->segment_len == q->pattern->len);
		for (unsigned i = 0; i < batch->nr; i++) {
			const uint8_t *datagram = batch->data + i * q->pattern->len;

			micro_require(load_be32(datagram) == c && load_be32(datagram + 4) == q->next[c]++);
		}
	}
	pool_put(batch);
}

static struct udp_batch *no_batch(void *arg)
{
	return NULL;
}

static void *setup_queue(const struct stage *s, const char **why)
{
	struct queue *q = micro_alloc(sizeof(*q));

	q->pattern = s->kind;
	micro_require(!pool_init(&q->pool, BATCHES, sizeof(struct udp_batch), NULL));
	gso_queue_init(&q->gso, &q->pool, deliver, no_batch, q);
	for (unsigned i = 0; i < q->pattern->connections; i++) {
		q->endpoint[i].to.v4 = (struct sockaddr_in){.sin_family = AF_INET,
			.sin_port = htons((uint16_t)(1000 + i)),
			.sin_addr.s_addr = htonl(0xc0000201)};
		q->endpoint[i].from.v4.s_addr = htonl(0xc0000202);
	}
	return q;
}

static unsigned turn_queue(void *ctx)
{
	struct queue *q = ctx;
	const struct pattern *p = q->pattern;
	unsigned c = 0;

	q->datagrams = q->batches = 0;
	for (unsigned i = 0; i < p->nr; i++) {
		uint8_t *slot = gso_queue_slot(&q->gso, &q->endpoint[c], 0, p->len);

		if (unlikely(!slot))
			return 0;
		/* As the sealer does it: the counter is in the header. */
		store_be32(slot, c);
		store_be32(slot + 4, i / p->connections);
		c = c + 1 == p->connections ? 0 : c + 1;
	}
	gso_queue_flush(&q->gso);
	return q->batches == p->batches ? q->datagrams : 0;
}

static void check_queue(void *ctx)
{
	struct queue *q = ctx;

	q->checking = true;
	micro_require(turn_queue(q) == q->pattern->nr);
	q->checking = false;
	for (unsigned i = 0; i < q->pattern->connections; i++)
		micro_require(q->next[i] == q->pattern->nr / q->pattern->connections);
	micro_require(!pool_in_use(&q->pool));
}

static void done_queue(void *ctx)
{
	struct queue *q = ctx;

	pool_done(&q->pool);
	free(q);
}

/* ---- sending ---- */

#define SEND_BATCHES 8

struct sending {
	struct udp_tx *tx;
	struct udp_sockets sockets;
	struct udp_batch *batches[SEND_BATCHES];
};

/* What the fake kernel saw; it has no argument to find a context by. */
static unsigned sent_messages, sent_segments;

static int fake_sendmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags)
{
	for (unsigned i = 0; i < nr; i++) {
		const struct msghdr *h = &msgs[i].msg_hdr;
		const struct cmsghdr *c = CMSG_FIRSTHDR(h);
		size_t len = 0;

		for (size_t v = 0; v < h->msg_iovlen; v++)
			len += h->msg_iov[v].iov_len;
		msgs[i].msg_len = (unsigned)len;
		sent_messages++;
		sent_segments += c && len == RUN * DATAGRAM_BYTES ? RUN : 0;
	}
	return (int)nr;
}

static int fake_wait(int fd, int timeout_ms)
{
	return -ETIMEDOUT;
}

static uint64_t fake_now_ns(void)
{
	return 0;
}

static const struct udp_tx_sys fake_tx = {
	.sendmmsg = fake_sendmmsg, .wait_writable = fake_wait, .now_ns = fake_now_ns};

static void *setup_send(const struct stage *s, const char **why)
{
	struct sending *w = micro_alloc(sizeof(*w));

	micro_require(!udp_tx_new(&w->tx, &fake_tx, NULL));
	w->sockets.fd4 = 1000;
	w->sockets.fd6 = -1;
	atomic_init(&w->sockets.gso4, true);
	for (unsigned i = 0; i < SEND_BATCHES; i++) {
		struct udp_batch *b = micro_alloc(sizeof(*b));

		b->endpoint.to.v4 = (struct sockaddr_in){.sin_family = AF_INET,
			.sin_port = htons(51820),
			.sin_addr.s_addr = htonl(0xc0000201)};
		b->endpoint.from.v4.s_addr = htonl(0xc0000202);
		b->tos = 2;
		b->segment_len = DATAGRAM_BYTES;
		b->nr = RUN;
		b->len = RUN * DATAGRAM_BYTES;
		w->batches[i] = b;
	}
	return w;
}

static unsigned turn_send(void *ctx)
{
	struct sending *w = ctx;
	const unsigned before = sent_messages;

	udp_tx_send(w->tx, &w->sockets, w->batches, SEND_BATCHES);
	return sent_messages - before;
}

static void check_send(void *ctx)
{
	struct sending *w = ctx;
	const struct udp_tx_counters *c = udp_tx_counters(w->tx);

	sent_segments = 0;
	micro_require(turn_send(w) == SEND_BATCHES && sent_segments == SEND_BATCHES * RUN);
	micro_require(counter_read(&c->datagrams) == SEND_BATCHES * RUN && counter_read(&c->calls) == 1);
}

static void done_send(void *ctx)
{
	struct sending *w = ctx;

	udp_tx_free(w->tx);
	for (unsigned i = 0; i < SEND_BATCHES; i++)
		free(w->batches[i]);
	free(w);
}

/* ---- receiving ---- */

#define RECEIVE_MESSAGES 8

struct receiving {
	struct udp_rx *rx;
	struct udp_rx_batch *batch;
};

/* Runs of RUN datagrams from one sender, with every control message that the sockets ask for. */
static int fake_recvmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags, struct timespec *timeout)
{
	const struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_port = htons(51820), .sin_addr.s_addr = htonl(0xc0000201)};
	const struct in_pktinfo info = {
		.ipi_spec_dst.s_addr = htonl(0xc0000202), .ipi_addr.s_addr = htonl(0xc0000202)};
	const int segment_len = DATAGRAM_BYTES;

	for (unsigned i = 0; i < RECEIVE_MESSAGES; i++) {
		struct msghdr *h = &msgs[i].msg_hdr;
		struct cmsghdr *c = CMSG_FIRSTHDR(h);
		uint8_t *at = (uint8_t *)c;

		memcpy(h->msg_name, &from, sizeof(from));
		h->msg_namelen = sizeof(from);
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(info));
		memcpy(CMSG_DATA(c), &info, sizeof(info));
		c = (struct cmsghdr *)(at + CMSG_SPACE(sizeof(info)));
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_TOS;
		c->cmsg_len = CMSG_LEN(1);
		*CMSG_DATA(c) = 2;
		c = (struct cmsghdr *)(at + CMSG_SPACE(sizeof(info)) + CMSG_SPACE(1));
		c->cmsg_level = IPPROTO_UDP;
		c->cmsg_type = UDP_GRO;
		c->cmsg_len = CMSG_LEN(sizeof(segment_len));
		memcpy(CMSG_DATA(c), &segment_len, sizeof(segment_len));
		h->msg_controllen =
			CMSG_SPACE(sizeof(info)) + CMSG_SPACE(1) + CMSG_SPACE(sizeof(segment_len));
		h->msg_flags = 0;
		msgs[i].msg_len = RUN * DATAGRAM_BYTES;
	}
	return RECEIVE_MESSAGES;
}

static const struct udp_rx_sys fake_rx = {.recvmmsg = fake_recvmmsg};

static void *setup_receive(const struct stage *s, const char **why)
{
	struct receiving *w = micro_alloc(sizeof(*w));

	micro_require(!udp_rx_new(&w->rx, &fake_rx));
	w->batch = micro_alloc(sizeof(*w->batch));
	return w;
}

static unsigned turn_receive(void *ctx)
{
	struct receiving *w = ctx;
	const int nr = udp_receive(w->rx, 1000, w->batch);

	return nr > 0 ? (unsigned)nr : 0;
}

static void check_receive(void *ctx)
{
	struct receiving *w = ctx;

	micro_require(turn_receive(w) == RECEIVE_MESSAGES && w->batch->nr == RECEIVE_MESSAGES);
	for (unsigned i = 0; i < RECEIVE_MESSAGES; i++) {
		const struct udp_rx_msg *m = &w->batch->msg[i];

		micro_require(
			m->segment_len == DATAGRAM_BYTES && m->len == RUN * DATAGRAM_BYTES && m->ecn == 2);
		micro_require(m->from.to.v4.sin_port == htons(51820) &&
			      m->from.from.v4.s_addr == htonl(0xc0000202));
		micro_require(m->data == w->batch->data[i]);
	}
	micro_require(counter_read(&udp_rx_counters(w->rx)->datagrams) == RECEIVE_MESSAGES * RUN);
}

static void done_receive(void *ctx)
{
	struct receiving *w = ctx;

	udp_rx_free(w->rx);
	free(w->batch);
	free(w);
}

void micro_udp_stages(void)
{
	static const struct stage_ops queue = {setup_queue, check_queue, NULL, turn_queue, done_queue};
	static const struct stage_ops send = {setup_send, check_send, NULL, turn_send, done_send};
	static const struct stage_ops receive = {
		setup_receive, check_receive, NULL, turn_receive, done_receive};
	struct stage s = {.ops = &queue, .unit = "packet", .hot = true};

	for (unsigned i = 0; i < ARRAY_LEN(patterns); i++) {
		s.kind = &patterns[i];
		s.units = patterns[i].nr;
		micro_add(&s, "gso-queue/%s", patterns[i].name);
	}
	s = (struct stage){.ops = &send, .unit = "batch", .units = SEND_BATCHES, .hot = true};
	micro_add(&s, "udp/send");
	s = (struct stage){.ops = &receive, .unit = "message", .units = RECEIVE_MESSAGES, .hot = true};
	micro_add(&s, "udp/receive");
}
