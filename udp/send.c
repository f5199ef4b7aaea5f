#include "udp/send.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

/* Packet info of the larger family, traffic class, segment length. */
#define CONTROL_BYTES                                                                                        \
	(CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t)))
/* Slices of a wait, so that *stop is seen. */
#define WAIT_SLICE_MS 50
#define NO_BUFFER_TRIES 8
#define NO_BUFFER_PAUSE_NS (100 * 1000)
/*
 * Payload that fits every path: of IPv6 by its minimum MTU, of IPv4 by the least path MTU that the kernel
 * believes (net.ipv4.route.min_pmtu).
 */
#define EVERY_PATH_BYTES_V6 (1280 - 40 - 8)
#define EVERY_PATH_BYTES_V4 (552 - 20 - 8)
#define REFUSALS_LOG2 8
#define REFUSAL_PROBES 4 /* places of the table where a destination may be */

/* A destination to which segments of this length or longer had to be sent in pieces. */
struct refusal {
	struct endpoint to; /* not set: the place is free */
	uint16_t segment_len;
	uint64_t until_ns; /* kept longer than that: to be asked again does not make a destination new */
};

/* Of a family: how far the socket as a whole is suspected. */
struct suspicion {
	bool accepted;     /* one destination, since the flag was last cleared */
	unsigned nr;       /* destinations that have refused, for no reason of length, since one accepted */
	uint64_t retry_ns; /* when to set the socket's flag again; 0: it was not cleared here */
};

struct udp_tx {
	const struct udp_tx_sys *sys;
	const _Atomic bool *stop;
	struct udp_tx_counters counters;
	/* of the call to udp_tx_send() that is going on */
	int fd;
	_Atomic bool *gso;           /* the flag of the socket */
	struct suspicion *suspicion; /* of its family */
	unsigned waited_ms;          /* since it last made progress */
	/* learned */
	struct suspicion suspicion4, suspicion6;
	unsigned nr_refusals;
	struct refusal refusal[1 << REFUSALS_LOG2]; /* by endpoint_tag() */
	/* the messages of one sendmmsg: batches, or the pieces of one batch */
	struct mmsghdr header[MAX(UDP_TX_BATCHES_MAX, GSO_SEGMENTS_MAX)];
	struct iovec iov[MAX(UDP_TX_BATCHES_MAX, GSO_SEGMENTS_MAX)];
	struct {
		_Alignas(struct cmsghdr) uint8_t bytes[CONTROL_BYTES];
	} control[MAX(UDP_TX_BATCHES_MAX, GSO_SEGMENTS_MAX)];
};

static int kernel_sendmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags);
static int kernel_wait_writable(int fd, int timeout_ms);
static uint64_t kernel_now_ns(void);

const struct udp_tx_sys udp_tx_sys_kernel = {
	.sendmmsg = kernel_sendmmsg,
	.wait_writable = kernel_wait_writable,
	.now_ns = kernel_now_ns,
};

static bool use_socket(struct udp_tx *tx, struct udp_sockets *sockets, const struct udp_batch *batch);
static unsigned send_run(struct udp_tx *tx, struct udp_batch **batches, unsigned nr);
static unsigned fill_run(struct udp_tx *tx, struct udp_batch **batches, unsigned nr);
static void count_run(struct udp_tx *tx, struct udp_batch **batches, unsigned sent);
static bool has_destination(const struct udp_batch *batch);
static inline bool in_pieces(struct udp_tx *tx, const struct udp_batch *batch);
static bool is_refused(struct udp_tx *tx, const struct udp_batch *batch);
static bool retry_gso(struct udp_tx *tx);
static void send_pieces(struct udp_tx *tx, struct udp_batch *batch, int why);
static void fill_message(
	struct udp_tx *tx, unsigned i, struct udp_batch *batch, uint32_t offset, uint32_t len, bool gso);
static unsigned transmit(struct udp_tx *tx, unsigned nr, int *err);
static bool give_up_pin(struct udp_tx *tx, struct udp_batch *batch, int err);
static struct refusal *find_refusal(struct udp_tx *tx, const struct endpoint *to);
static struct refusal *oldest_refusal(struct udp_tx *tx, const struct endpoint *to);
static void learn_refusal(struct udp_tx *tx, const struct udp_batch *batch, int why);
static unsigned nr_to_believe(const struct udp_tx *tx);
static void learn_acceptance(struct udp_tx *tx, struct udp_batch **batches, unsigned sent);
static void count_sent(struct udp_tx *tx, uint64_t datagrams, uint64_t bytes);
static void drop(struct udp_tx *tx, uint64_t datagrams, int err);

int udp_tx_new(struct udp_tx **out, const struct udp_tx_sys *sys, const _Atomic bool *stop)
{
	struct udp_tx *tx = calloc(1, sizeof(*tx));

	if (!tx)
		return -ENOMEM;
	tx->sys = sys ? sys : &udp_tx_sys_kernel;
	tx->stop = stop;
	for (unsigned i = 0; i < ARRAY_LEN(tx->header); i++) {
		tx->header[i].msg_hdr.msg_iov = &tx->iov[i];
		tx->header[i].msg_hdr.msg_iovlen = 1;
	}
	*out = tx;
	return 0;
}

void udp_tx_free(struct udp_tx *tx)
{
	free(tx);
}

void udp_tx_send(struct udp_tx *tx, struct udp_sockets *sockets, struct udp_batch **batches, unsigned nr)
{
	tx->waited_ms = 0;
	for (unsigned i = 0; i < nr;) {
		struct udp_batch *batch = batches[i];

		if (!use_socket(tx, sockets, batch)) {
			counter_add(&tx->counters.drop_no_socket, batch->nr);
			i++;
		} else if (!has_destination(batch)) {
			counter_add(&tx->counters.drop_unreachable, batch->nr);
			i++;
		} else if (in_pieces(tx, batch)) {
			send_pieces(tx, batch, 0);
			i++;
		} else {
			i += send_run(tx, batches + i, nr - i);
		}
	}
}

unsigned udp_tx_try(struct udp_tx *tx, struct udp_sockets *sockets, struct udp_batch **batches, unsigned nr)
{
	unsigned done = 0;

	while (done < nr && use_socket(tx, sockets, batches[done])) {
		const unsigned ready = fill_run(tx, batches + done, nr - done);

		if (!ready)
			break;
		const int sent = tx->sys->sendmmsg(tx->fd, tx->header, ready, MSG_DONTWAIT | MSG_NOSIGNAL);
		counter_add(&tx->counters.calls, 1);
		if (sent <= 0)
			break;
		count_run(tx, batches + done, (unsigned)sent);
		done += (unsigned)sent;
	}
	return done;
}

const struct udp_tx_counters *udp_tx_counters(const struct udp_tx *tx)
{
	return &tx->counters;
}

/* Makes the socket of the batch's family the one that is sent by. false: there is none. */
static bool use_socket(struct udp_tx *tx, struct udp_sockets *sockets, const struct udp_batch *batch)
{
	const bool v6 = batch->endpoint.to.sa.sa_family == AF_INET6;

	tx->fd = !sockets ? -1 : v6 ? sockets->fd6 : sockets->fd4;
	if (tx->fd < 0)
		return false;
	tx->gso = v6 ? &sockets->gso6 : &sockets->gso4;
	tx->suspicion = v6 ? &tx->suspicion6 : &tx->suspicion4;
	return true;
}

/*
 * Sends the batches from the first on that can go as one message each by the same socket; returns how many of
 * them are dealt with. Less than all that could be tried when one failed: the caller comes back for the rest.
 */
static unsigned send_run(struct udp_tx *tx, struct udp_batch **batches, unsigned nr)
{
	const unsigned ready = fill_run(tx, batches, nr);
	int err = 0;

	const unsigned sent = transmit(tx, ready, &err);
	count_run(tx, batches, sent);
	if (sent == ready)
		return sent;

	/* Nothing of the batch at which it stopped has left: a message is sent whole or not at all. */
	if (give_up_pin(tx, batches[sent], err))
		return sent;
	if (batches[sent]->nr > 1 && (err == EIO || err == EINVAL || err == EMSGSIZE || err == EOPNOTSUPP))
		send_pieces(tx, batches[sent], err);
	else
		drop(tx, batches[sent]->nr, err);
	return sent + 1;
}

/* Makes a message each of the first batches that can go so by the socket in use; returns how many. */
static unsigned fill_run(struct udp_tx *tx, struct udp_batch **batches, unsigned nr)
{
	const sa_family_t family = batches[0]->endpoint.to.sa.sa_family;
	unsigned ready = 0;

	while (ready < nr && batches[ready]->endpoint.to.sa.sa_family == family &&
		has_destination(batches[ready]) && !in_pieces(tx, batches[ready])) {
		struct udp_batch *batch = batches[ready];

		fill_message(tx, ready, batch, 0, batch->len, batch->nr > 1);
		ready++;
	}
	return ready;
}

/* The first sent of them have left, as one message each. */
static void count_run(struct udp_tx *tx, struct udp_batch **batches, unsigned sent)
{
	uint64_t datagrams = 0, bytes = 0;

	for (unsigned i = 0; i < sent; i++) {
		datagrams += batches[i]->nr;
		bytes += batches[i]->len;
		histogram_add(&tx->counters.gso_segments, batches[i]->nr);
	}
	count_sent(tx, datagrams, bytes);
	counter_add(&tx->counters.batches, sent);
	counter_add(&tx->counters.messages, sent);
	if (unlikely(tx->nr_refusals || tx->suspicion->nr || !tx->suspicion->accepted))
		learn_acceptance(tx, batches, sent);
}

/* Port 0 cannot be sent to. The kernel would say EINVAL, which would then be blamed on GSO. */
static bool has_destination(const struct udp_batch *batch)
{
	switch (batch->endpoint.to.sa.sa_family) {
	case AF_INET:
		return batch->endpoint.to.v4.sin_port != 0;
	case AF_INET6:
		return batch->endpoint.to.v6.sin6_port != 0;
	default:
		return false;
	}
}

/* Is it known already that this batch cannot go as one message? */
static inline bool in_pieces(struct udp_tx *tx, const struct udp_batch *batch)
{
	if (batch->nr == 1)
		return false;
	if (likely(atomic_load_explicit(tx->gso, memory_order_relaxed) && !tx->nr_refusals))
		return false;
	return is_refused(tx, batch);
}

/* What the socket or this destination has refused, is it still to be believed? */
static bool is_refused(struct udp_tx *tx, const struct udp_batch *batch)
{
	const struct refusal *refusal;

	if (!atomic_load_explicit(tx->gso, memory_order_relaxed) && !retry_gso(tx))
		return true;
	refusal = find_refusal(tx, &batch->endpoint);
	return refusal && batch->segment_len >= refusal->segment_len && tx->sys->now_ns() < refusal->until_ns;
}

/* The socket goes without UDP_SEGMENT. Is it time to try again? */
static bool retry_gso(struct udp_tx *tx)
{
	if (!tx->suspicion->retry_ns || tx->sys->now_ns() < tx->suspicion->retry_ns)
		return false;
	tx->suspicion->retry_ns = 0;
	atomic_store_explicit(tx->gso, true, memory_order_relaxed);
	return true;
}

/*
 * Sends a batch datagram by datagram, continuing behind each that fails. why: the error with which the kernel
 * refused it as one message, 0 if that was not tried. Only when a datagram leaves by itself was UDP_SEGMENT
 * the reason, and is remembered.
 */
static void send_pieces(struct udp_tx *tx, struct udp_batch *batch, int why)
{
	unsigned next = 0; /* the first datagram that has neither left nor been dropped */
	bool any_sent = false;

	counter_add(&tx->counters.gso_fallbacks, 1);
	while (next < batch->nr) {
		unsigned nr = batch->nr - next, sent;
		uint64_t bytes = 0;
		int err = 0;

		for (unsigned i = 0; i < nr; i++) {
			uint32_t offset = (next + i) * batch->segment_len;

			fill_message(
				tx, i, batch, offset, MIN(batch->segment_len, batch->len - offset), false);
		}
		sent = transmit(tx, nr, &err);
		for (unsigned i = 0; i < sent; i++)
			bytes += tx->iov[i].iov_len;
		count_sent(tx, sent, bytes);
		counter_add(&tx->counters.messages, sent);
		histogram_add_times(&tx->counters.gso_segments, 1, sent);
		any_sent |= sent > 0;
		next += sent;
		if (sent == nr || give_up_pin(tx, batch, err))
			continue;
		drop(tx, 1, err);
		next++;
	}
	if (any_sent)
		counter_add(&tx->counters.batches, 1);
	if (any_sent && why)
		learn_refusal(tx, batch, why);
}

/* Appends one control message; its padding is zero because the buffer is zeroed by the caller. */
static void put_control(struct msghdr *h, int level, int type, const void *data, size_t len)
{
	struct cmsghdr *c = (struct cmsghdr *)((uint8_t *)h->msg_control + h->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), data, len);
	h->msg_controllen += CMSG_SPACE(len);
}

/* Message number i: len bytes of the batch's data from offset on. */
static void fill_message(
	struct udp_tx *tx, unsigned i, struct udp_batch *batch, uint32_t offset, uint32_t len, bool gso)
{
	struct msghdr *h = &tx->header[i].msg_hdr;
	struct endpoint *e = &batch->endpoint;
	bool v6 = e->to.sa.sa_family == AF_INET6;

	h->msg_name = &e->to;
	h->msg_namelen = endpoint_socklen(e);
	tx->iov[i].iov_base = batch->data + offset;
	tx->iov[i].iov_len = len;
	h->msg_control = tx->control[i].bytes;
	h->msg_controllen = 0;
	memset(tx->control[i].bytes, 0, sizeof(tx->control[i].bytes));

	if (gso)
		put_control(h, IPPROTO_UDP, UDP_SEGMENT, &batch->segment_len, sizeof(batch->segment_len));
	if (batch->tos) {
		int tos = batch->tos;

		put_control(h, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, &tos, sizeof(tos));
	}
	if (endpoint_is_pinned(e) && v6) {
		struct in6_pktinfo info = {
			.ipi6_addr = e->from.v6, .ipi6_ifindex = (unsigned)e->from_ifindex};

		put_control(h, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	} else if (endpoint_is_pinned(e)) {
		struct in_pktinfo info = {.ipi_spec_dst = e->from.v4, .ipi_ifindex = e->from_ifindex};

		put_control(h, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
	if (!h->msg_controllen)
		h->msg_control = NULL;
}

static bool is_stopping(const struct udp_tx *tx)
{
	return tx->stop && atomic_load_explicit(tx->stop, memory_order_relaxed);
}

/*
 * Waits for room in the socket buffer. false when stopping, or when this call has waited long enough: a
 * device that never sends must not hold the thread, which has other peers and other sockets to see to. Once
 * out of patience, always false.
 */
static bool wait_for_room(struct udp_tx *tx)
{
	counter_add(&tx->counters.waits, 1);
	/* Should the socket claim room and yet refuse, that ends too. */
	tx->waited_ms++;
	while (!is_stopping(tx) && tx->waited_ms < UDP_TX_WAIT_MS) {
		int err = tx->sys->wait_writable(tx->fd, WAIT_SLICE_MS);

		if (!err)
			return true;
		if (err != -ETIMEDOUT && err != -EINTR)
			return false;
		tx->waited_ms += WAIT_SLICE_MS;
	}
	return false;
}

/* May be the error of a packet sent earlier, which the kernel reports to whoever uses the socket next. */
static bool may_be_stale(int err)
{
	return err == ECONNREFUSED || err == EHOSTUNREACH || err == ENETUNREACH || err == EHOSTDOWN ||
	       err == ENETDOWN || err == EPROTO || err == ENOPROTOOPT || err == ETIMEDOUT;
}

/*
 * Sends messages 0 to nr - 1 in order. Returns how many have left; if that is less than nr, *err is the
 * (positive) errno of the next, after every retry that its kind deserves.
 */
static unsigned transmit(struct udp_tx *tx, unsigned nr, int *err)
{
	unsigned sent = 0;
	unsigned tries = 0; /* of the message at which it stands */

	while (sent < nr) {
		int r = tx->sys->sendmmsg(tx->fd, tx->header + sent, nr - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		int e = r < 0 ? errno : ENOBUFS;

		counter_add(&tx->counters.calls, 1);
		if (r > 0) {
			sent += (unsigned)r;
			tries = 0;
			if (tx->waited_ms < UDP_TX_WAIT_MS)
				tx->waited_ms = 0;
			continue;
		}
		*err = e;
		if (e == EINTR)
			continue;
		if (e == EAGAIN) {
			if (!wait_for_room(tx))
				break;
		} else if (e == ENOBUFS || e == ENOMEM) {
			static const struct timespec pause = {.tv_nsec = NO_BUFFER_PAUSE_NS};

			if (is_stopping(tx) || tries++ == NO_BUFFER_TRIES)
				break;
			counter_add(&tx->counters.waits, 1);
			nanosleep(&pause, NULL);
		} else if (!may_be_stale(e) || tries++) {
			break;
		}
	}
	return sent;
}

/* true: there was a pin that may be the reason for err; it is gone, and the batch is worth another try. */
static bool give_up_pin(struct udp_tx *tx, struct udp_batch *batch, int err)
{
	/* To a source that is not of this host, IPv4 says ENETUNREACH or EINVAL by version, IPv6 EINVAL. */
	if (err != EINVAL && err != ENODEV && err != EADDRNOTAVAIL && err != ENETUNREACH &&
		err != EHOSTUNREACH)
		return false;
	if (!endpoint_is_pinned(&batch->endpoint))
		return false;
	endpoint_clear_source(&batch->endpoint);
	counter_add(&tx->counters.pin_dropped, 1);
	return true;
}

/* Place number i of those where a destination may be. */
static struct refusal *probe(struct udp_tx *tx, const struct endpoint *to, unsigned i)
{
	const uint32_t home = endpoint_tag(to) >> (32 - REFUSALS_LOG2);

	return &tx->refusal[(home + i) % ARRAY_LEN(tx->refusal)];
}

static struct refusal *find_refusal(struct udp_tx *tx, const struct endpoint *to)
{
	for (unsigned i = 0; i < REFUSAL_PROBES; i++)
		if (endpoint_same_to(&probe(tx, to, i)->to, to))
			return probe(tx, to, i);
	return NULL;
}

/* The place to give to a new destination: a free one is the oldest. */
static struct refusal *oldest_refusal(struct udp_tx *tx, const struct endpoint *to)
{
	struct refusal *oldest = probe(tx, to, 0);

	for (unsigned i = 1; i < REFUSAL_PROBES; i++)
		if (probe(tx, to, i)->until_ns < oldest->until_ns)
			oldest = probe(tx, to, i);
	return oldest;
}

/* The batch was refused as one message with why, and left in pieces. */
static void learn_refusal(struct udp_tx *tx, const struct udp_batch *batch, int why)
{
	const bool v6 = batch->endpoint.to.sa.sa_family == AF_INET6;
	const uint16_t every_path = v6 ? EVERY_PATH_BYTES_V6 : EVERY_PATH_BYTES_V4;
	const bool any_length = why == EIO || why == EOPNOTSUPP;
	const uint16_t refused_len = any_length ? 1 : batch->segment_len;
	const uint64_t now_ns = tx->sys->now_ns();
	struct refusal *refusal = find_refusal(tx, &batch->endpoint);
	const bool is_new = !refusal;

	if (is_new) {
		refusal = oldest_refusal(tx, &batch->endpoint);
		tx->nr_refusals += !endpoint_is_set(&refusal->to);
		refusal->to = batch->endpoint;
	}
	if (is_new || refusal->until_ns <= now_ns || refused_len < refusal->segment_len)
		refusal->segment_len = refused_len;
	refusal->until_ns = now_ns + UDP_GSO_RETRY_NS;

	if (why == EMSGSIZE || (!any_length && batch->segment_len > every_path))
		return;
	tx->suspicion->nr += is_new;
	if (tx->suspicion->nr < nr_to_believe(tx))
		return;
	tx->suspicion->accepted = false;
	atomic_store_explicit(tx->gso, false, memory_order_relaxed);
	tx->suspicion->retry_ns = now_ns + UDP_GSO_RETRY_NS;
}

/*
 * Where one destination takes what others refuse, it is for those to be remembered one by one, however busy
 * they are: until they are more than can be remembered, and still nobody else accepts.
 */
static unsigned nr_to_believe(const struct udp_tx *tx)
{
	return tx->suspicion->accepted ? ARRAY_LEN(tx->refusal) : UDP_GSO_BELIEVE;
}

/* The first sent of them were accepted as one message each. */
static void learn_acceptance(struct udp_tx *tx, struct udp_batch **batches, unsigned sent)
{
	for (unsigned i = 0; i < sent; i++) {
		struct refusal *refusal;

		if (batches[i]->nr == 1)
			continue;
		tx->suspicion->nr = 0;
		tx->suspicion->accepted = true;
		refusal = find_refusal(tx, &batches[i]->endpoint);
		if (!refusal || batches[i]->segment_len < refusal->segment_len)
			continue;
		memset(refusal, 0, sizeof(*refusal));
		tx->nr_refusals--;
	}
}

static void count_sent(struct udp_tx *tx, uint64_t datagrams, uint64_t bytes)
{
	counter_add(&tx->counters.datagrams, datagrams);
	counter_add(&tx->counters.bytes, bytes);
}

static void drop(struct udp_tx *tx, uint64_t datagrams, int err)
{
	struct udp_tx_counters *c = &tx->counters;

	switch (err) {
	case EMSGSIZE:
		counter_add(&c->drop_too_long, datagrams);
		break;
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		counter_add(&c->drop_no_buffer, datagrams);
		break;
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN:
	case EACCES:
		counter_add(&c->drop_unreachable, datagrams);
		break;
	default:
		counter_add(&c->drop_error, datagrams);
	}
}

/* Not the C library's function itself: the type of its flags is not the same in all of them. */
static int kernel_sendmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags)
{
	return sendmmsg(fd, msgs, nr, flags);
}

static int kernel_wait_writable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int r = poll(&p, 1, timeout_ms);

	if (r < 0)
		return -errno;
	/* An error on the socket counts as writable: the next send fetches it. */
	return r ? 0 : -ETIMEDOUT;
}

/* To some milliseconds: for waits of seconds. */
static uint64_t kernel_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}
