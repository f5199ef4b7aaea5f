#include "udp/send.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <unistd.h>

#include "support.h"

#define LOG_MAX 8192

/* A kernel of our own: how it refuses, and what it has sent. */
static struct {
	int gso_errno;         /* to messages with UDP_SEGMENT */
	uint16_t gso_longest;  /* ... whose segments are longer than this */
	uint16_t gso_port;     /* ... and that go to this port; 0 any */
	int pin_errno;         /* to messages with a source address */
	int destination_errno; /* to messages to port 666 */
	uint32_t longest;      /* EMSGSIZE to datagrams above; 0 none */
	unsigned per_call;     /* messages taken by one call; 0 all */
	int once[16];          /* errors of the calls to come, one each */
	unsigned nr_once, next_once;
	unsigned random_errors; /* one call in this many fails with EINTR, EAGAIN or ENOBUFS; 0 none */
	bool always_full, never_writable; /* EAGAIN to everything; no room ever */

	uint64_t now_ns;

	unsigned calls, gso_messages, gso_refused, waits;
	unsigned nr;
	struct {
		uint32_t id, len;
		int fd, tos;
		bool pinned;
	} sent[LOG_MAX];
} k;

static struct udp_sockets sockets;
static struct udp_tx *tx;
static _Atomic bool stop;

#define FD4 1004
#define FD6 1006

/* What a message's control data asks for. */
struct asked {
	int tos;
	uint16_t segment_len;
	bool pinned;
};

static struct asked parse_control(struct msghdr *h, bool v6)
{
	struct asked asked = {0};
	size_t total = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);

		for (size_t i = len; i < CMSG_SPACE(len) - CMSG_LEN(0); i++)
			cr_assert_eq(CMSG_DATA(c)[i], 0, "padding is not zero");
		total += CMSG_SPACE(len);
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT) {
			cr_assert_eq(len, sizeof(uint16_t));
			memcpy(&asked.segment_len, CMSG_DATA(c), sizeof(uint16_t));
		} else if (c->cmsg_level == (v6 ? IPPROTO_IPV6 : IPPROTO_IP) &&
			   c->cmsg_type == (v6 ? IPV6_TCLASS : IP_TOS)) {
			cr_assert_eq(len, sizeof(int));
			memcpy(&asked.tos, CMSG_DATA(c), sizeof(int));
		} else if (c->cmsg_level == (v6 ? IPPROTO_IPV6 : IPPROTO_IP) &&
			   c->cmsg_type == (v6 ? IPV6_PKTINFO : IP_PKTINFO)) {
			cr_assert_eq(len, v6 ? sizeof(struct in6_pktinfo) : sizeof(struct in_pktinfo));
			asked.pinned = true;
		} else {
			cr_assert_fail("control message %d/%d", c->cmsg_level, c->cmsg_type);
		}
	}
	cr_assert_eq(total, h->msg_controllen);
	return asked;
}

/* 0, or the errno that refuses this message. */
static int take(int fd, struct msghdr *h)
{
	bool v6 = fd == FD6;
	const struct sockaddr_in6 *to = h->msg_name;
	struct asked asked = parse_control(h, v6);
	const uint8_t *data = h->msg_iov->iov_base;
	uint32_t len = (uint32_t)h->msg_iov->iov_len;

	cr_assert_eq(h->msg_iovlen, 1);
	cr_assert_eq(to->sin6_family, v6 ? AF_INET6 : AF_INET);
	cr_assert_eq(h->msg_namelen, v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
	if (asked.pinned && k.pin_errno)
		return k.pin_errno;
	if (asked.segment_len && k.gso_errno && asked.segment_len > k.gso_longest &&
		(!k.gso_port || ntohs(to->sin6_port) == k.gso_port)) {
		k.gso_refused++;
		return k.gso_errno;
	}
	if (k.destination_errno && ntohs(to->sin6_port) == 666)
		return k.destination_errno;
	if (k.longest && (asked.segment_len ? asked.segment_len : len) > k.longest)
		return EMSGSIZE;
	if (asked.segment_len) {
		cr_assert_leq(len, asked.segment_len * GSO_SEGMENTS_MAX);
		cr_assert_gt(len, asked.segment_len, "UDP_SEGMENT on a single datagram");
		k.gso_messages++;
	}
	for (uint32_t at = 0, segment; at < len; at += segment) {
		segment = asked.segment_len ? MIN(asked.segment_len, len - at) : len;
		cr_assert_lt(k.nr, LOG_MAX);
		k.sent[k.nr].id = datagram_check(data + at, segment);
		k.sent[k.nr].len = segment;
		k.sent[k.nr].fd = fd;
		k.sent[k.nr].tos = asked.tos;
		k.sent[k.nr++].pinned = asked.pinned;
	}
	return 0;
}

static int fake_sendmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags)
{
	static const int passing[] = {EINTR, EAGAIN, ENOBUFS};
	unsigned limit = k.per_call ? MIN(nr, k.per_call) : nr;

	k.calls++;
	cr_assert(fd == FD4 || fd == FD6);
	cr_assert(flags & MSG_DONTWAIT);
	cr_assert(nr >= 1 && nr <= UDP_TX_BATCHES_MAX);
	errno = 0;
	if (k.next_once < k.nr_once)
		errno = k.once[k.next_once++];
	else if (k.always_full)
		errno = EAGAIN;
	else if (k.random_errors && !random_below(k.random_errors))
		errno = passing[random_below(3)];
	if (errno)
		return -1;
	if (k.random_errors)
		limit = 1 + random_below(nr);
	for (unsigned i = 0; i < limit; i++) {
		int err = take(fd, &msgs[i].msg_hdr);

		if (err && i)
			return (int)i; /* as the kernel: the error is told when it is asked again */
		if (err) {
			errno = err;
			return -1;
		}
	}
	return (int)limit;
}

static int fake_wait_writable(int fd, int timeout_ms)
{
	k.waits++;
	return k.never_writable ? -ETIMEDOUT : 0;
}

static uint64_t fake_now_ns(void)
{
	return k.now_ns;
}

static const struct udp_tx_sys fake = {
	.sendmmsg = fake_sendmmsg, .wait_writable = fake_wait_writable, .now_ns = fake_now_ns};

static void setup(void)
{
	sockets.fd4 = FD4;
	sockets.fd6 = FD6;
	sockets.gso4 = sockets.gso6 = true;
	cr_assert_eq(udp_tx_new(&tx, &fake, &stop), 0);
}

static void teardown(void)
{
	udp_tx_free(tx);
	batches_free();
}

TestSuite(send, .init = setup, .fini = teardown, .timeout = 60);

static const struct udp_tx_counters *c(void)
{
	return udp_tx_counters(tx);
}

static uint64_t dropped(void)
{
	return counter_read(&c()->drop_unreachable) + counter_read(&c()->drop_too_long) +
	       counter_read(&c()->drop_no_buffer) + counter_read(&c()->drop_no_socket) +
	       counter_read(&c()->drop_error);
}

static void send_one(struct udp_batch *batch)
{
	udp_tx_send(tx, &sockets, &batch, 1);
}

static void once(int err)
{
	k.once[k.nr_once++] = err;
}

static struct udp_batch *pinned(struct udp_batch *batch)
{
	if (batch->endpoint.to.sa.sa_family == AF_INET6)
		batch->endpoint.from.v6 = in6addr_loopback;
	else
		batch->endpoint.from.v4.s_addr = htonl(INADDR_LOOPBACK);
	return batch;
}

/* Exactly the ids from..from + nr - 1 have been sent from place at of the log on, each once, in order. */
static void check_sent(unsigned at, uint32_t from, unsigned nr)
{
	cr_assert_leq(at + nr, k.nr, "%u of %u sent", k.nr - at, nr);
	for (unsigned i = 0; i < nr; i++)
		cr_assert_eq(k.sent[at + i].id, from + i, "place %u has %u, not %u", i, k.sent[at + i].id,
			from + i);
}

static void check_all_sent(uint32_t from, unsigned nr)
{
	cr_assert_eq(k.nr, nr);
	check_sent(0, from, nr);
	cr_assert_eq(counter_read(&c()->datagrams), nr);
	cr_assert_eq(dropped(), 0);
}

Test(send, sends_a_batch_as_one_message)
{
	send_one(batch_of("192.0.2.1:5", 45, 1452, 800, 1));
	check_all_sent(1, 45);
	cr_assert_eq(k.calls, 1);
	cr_assert_eq(k.gso_messages, 1);
	cr_assert_eq(counter_read(&c()->batches), 1);
	cr_assert_eq(counter_read(&c()->bytes), 44 * 1452 + 800);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 0);
}

Test(send, sends_many_batches_in_one_call)
{
	struct udp_batch *batches[UDP_TX_BATCHES_MAX];

	for (unsigned i = 0; i < UDP_TX_BATCHES_MAX; i++)
		batches[i] = batch_of("192.0.2.1:5", 2, 100, 50, 1 + 2 * i);
	udp_tx_send(tx, &sockets, batches, UDP_TX_BATCHES_MAX);
	check_all_sent(1, 2 * UDP_TX_BATCHES_MAX);
	cr_assert_eq(k.calls, 1);
}

Test(send, sets_traffic_class_and_pin_where_asked)
{
	static const char *const to[] = {"192.0.2.1:5", "[2001:db8::1]:5"};

	for (unsigned i = 0; i < 2; i++) {
		struct udp_batch *marked = pinned(batch_of(to[i], 3, 100, 50, 1));

		marked->tos = 0xb9;
		k.nr = 0;
		send_one(marked);
		send_one(batch_of(to[i], 1, 0, 50, 4));
		cr_assert_eq(k.nr, 4);
		cr_assert_eq(k.sent[0].fd, i ? FD6 : FD4);
		cr_assert_eq(k.sent[0].tos, 0xb9);
		cr_assert(k.sent[0].pinned);
		cr_assert_eq(k.sent[3].tos, 0);
		cr_assert_not(k.sent[3].pinned);
	}
}

Test(send, keeps_order_over_both_families)
{
	struct udp_batch *batches[6];

	for (unsigned i = 0; i < 6; i++)
		batches[i] = batch_of(
			i == 2 || i == 3 ? "[2001:db8::1]:5" : "192.0.2.1:5", 10, 100, 50, 1 + 10 * i);
	udp_tx_send(tx, &sockets, batches, 6);
	check_all_sent(1, 60);
	cr_assert_eq(k.calls, 3);
}

Test(send, continues_a_partial_send_from_the_first_unsent)
{
	struct udp_batch *batches[10];

	k.per_call = 3;
	for (unsigned i = 0; i < 10; i++)
		batches[i] = batch_of("192.0.2.1:5", 5, 100, 50, 1 + 5 * i);
	udp_tx_send(tx, &sockets, batches, 10);
	check_all_sent(1, 50);
	cr_assert_eq(k.calls, 4);
}

Test(send, try_sends_what_leaves_at_once)
{
	struct udp_batch *batches[6];

	k.per_call = 2;
	for (unsigned i = 0; i < 6; i++)
		batches[i] = batch_of(
			i == 2 || i == 3 ? "[2001:db8::1]:5" : "192.0.2.1:5", 10, 100, 50, 1 + 10 * i);
	cr_assert_eq(udp_tx_try(tx, &sockets, batches, 6), 6);
	check_all_sent(1, 60);
	cr_assert_eq(k.calls, 3);
	cr_assert_eq(counter_read(&c()->batches), 6);
}

/* Whatever the reason: not waited for, not counted, and left for udp_tx_send(), which completes the order. */
Test(send, try_stops_before_the_first_that_does_not_leave)
{
	static const int reasons[] = {EAGAIN, ENOBUFS, EINTR, ECONNREFUSED};

	for (unsigned i = 0; i < ARRAY_LEN(reasons); i++) {
		struct udp_batch *batches[] = {batch_of("192.0.2.1:5", 10, 100, 50, 1),
			batch_of("[2001:db8::1]:5", 10, 100, 50, 11),
			batch_of("192.0.2.1:5", 10, 100, 50, 21)};
		const uint64_t waits = counter_read(&c()->waits);

		k.nr = k.next_once = k.nr_once = 0;
		once(0);
		once(reasons[i]);
		cr_assert_eq(udp_tx_try(tx, &sockets, batches, 3), 1);
		cr_assert_eq(k.nr, 10);
		cr_assert_eq(counter_read(&c()->waits), waits);
		udp_tx_send(tx, &sockets, batches + 1, 2);
		cr_assert_eq(k.nr, 30);
		check_sent(0, 1, 30);
		cr_assert_eq(dropped(), 0);
	}
}

Test(send, try_leaves_to_send_what_needs_more_than_one_call)
{
	struct udp_batch *batch = batch_of("192.0.2.1:5", 10, 100, 50, 1);

	sockets.gso4 = false;
	cr_assert_eq(udp_tx_try(tx, &sockets, &batch, 1), 0);
	cr_assert_eq(udp_tx_try(tx, NULL, &batch, 1), 0);
	sockets.gso4 = true;
	k.gso_errno = EIO;
	cr_assert_eq(udp_tx_try(tx, &sockets, &batch, 1), 0);
	cr_assert(sockets.gso4);
	k.gso_errno = 0;
	k.pin_errno = EINVAL;
	pinned(batch);
	cr_assert_eq(udp_tx_try(tx, &sockets, &batch, 1), 0);
	cr_assert_eq(k.nr, 0);
	cr_assert_eq(dropped(), 0);
	cr_assert(endpoint_is_pinned(&batch->endpoint));
	send_one(batch);
	check_all_sent(1, 10);

	batch = batch_of("192.0.2.1:0", 1, 0, 50, 1);
	cr_assert_eq(udp_tx_try(tx, &sockets, &batch, 1), 0);
	cr_assert_eq(dropped(), 0);
}

Test(send, resends_in_pieces_after_eio_and_remembers_it_for_that_destination)
{
	k.gso_errno = EIO;
	k.per_call = 7;
	send_one(batch_of("192.0.2.1:5", 45, 1452, 800, 1));
	check_all_sent(1, 45);
	cr_assert(sockets.gso4);
	cr_assert(sockets.gso6);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 1);

	/* Not tried again, at any length. */
	k.per_call = k.calls = 0;
	k.gso_errno = 0;
	send_one(batch_of("192.0.2.1:5", 10, 100, 80, 46));
	check_all_sent(1, 55);
	cr_assert_eq(k.calls, 1);
	cr_assert_eq(k.gso_messages, 0);

	/* It says nothing about others, */
	send_one(batch_of("192.0.2.2:5", 10, 1452, 800, 56));
	cr_assert_eq(k.gso_messages, 1);
	/* nor for ever. */
	k.now_ns += UDP_GSO_RETRY_NS;
	send_one(batch_of("192.0.2.1:5", 10, 1452, 800, 66));
	cr_assert_eq(k.gso_messages, 2);
	check_all_sent(1, 75);
}

/* An IPv4 path MTU of 552, as kernels before 6.13 tell of it. */
Test(send, einval_at_a_short_segment_costs_only_that_destination_its_gso)
{
	k.gso_errno = EINVAL;
	k.gso_longest = 524;
	k.gso_port = 7;
	for (unsigned i = 0; i < 24; i++) {
		send_one(batch_of("192.0.2.1:7", 10, 525 + i, 400, 1 + 20 * i));
		send_one(batch_of("192.0.2.1:5", 10, 525 + i, 400, 11 + 20 * i));
	}
	check_all_sent(1, 480);
	cr_assert(sockets.gso4, "one narrow path cost all peers their GSO");
	cr_assert_eq(k.gso_messages, 24);
	cr_assert_eq(k.gso_refused, 1);
	/* What fits that path goes as one message. */
	send_one(batch_of("192.0.2.1:7", 10, 524, 400, 481));
	cr_assert_eq(k.gso_messages, 25);
	check_all_sent(1, 490);
}

/* Each destination asked once in each time span, and never the socket judged, as long as one accepts. */
Test(send, many_that_refuse_do_not_cost_the_one_that_accepts_its_gso)
{
	static const int why[] = {EIO, EINVAL};
	uint32_t id = 1;

	k.gso_port = 7;
	for (unsigned w = 0; w < ARRAY_LEN(why); w++) {
		k.gso_errno = why[w];
		k.gso_messages = k.gso_refused = 0;
		for (unsigned i = 0; i < 120; i++) {
			char to[32];

			snprintf(to, sizeof(to), "192.0.2.%u:7", i % 40);
			send_one(batch_of(to, 10, 500, 400, id));
			send_one(batch_of("192.0.2.1:5", 10, 500, 400, id + 10));
			id += 20;
		}
		cr_assert(sockets.gso4);
		cr_assert_eq(k.gso_messages, 120);
		cr_assert_eq(k.gso_refused, 40);
		k.now_ns += UDP_GSO_RETRY_NS;
	}
	check_all_sent(1, id - 1);
}

/* Two ways out: most peers lie behind a device without checksum offload, and send most. */
Test(send, those_who_refuse_gso_may_be_many_and_busy)
{
	uint32_t id = 1;

	k.gso_errno = EIO;
	k.gso_port = 7;
	send_one(batch_of("198.51.100.1:5", 2, 1452, 800, id));
	id += 2;
	for (unsigned span = 0; span < 4; span++) {
		for (unsigned i = 0; i < 100; i++) {
			char to[32];

			snprintf(to, sizeof(to), "192.0.2.%u:7", i);
			send_one(batch_of(to, 2, 1452, 800, id));
			id += 2;
		}
		send_one(batch_of("198.51.100.1:5", 2, 1452, 800, id));
		id += 2;
		cr_assert_eq(k.gso_messages, span + 2);
		batches_free();
		k.now_ns += UDP_GSO_RETRY_NS;
	}
	check_all_sent(1, id - 1);
}

/* A device without checksum offload under the only route there is. */
Test(send, tries_gso_once_in_a_time_span_where_nobody_accepts_it)
{
	uint32_t id = 1;

	k.gso_errno = EIO;
	for (unsigned span = 0; span < 4; span++) {
		k.gso_refused = 0;
		for (unsigned i = 0; i < 600; i++) {
			char to[32];

			snprintf(to, sizeof(to), "192.0.%u.%u:5", i % 3, i % 200);
			send_one(batch_of(to, 2, 1452, 800, id));
			batches_free();
			id += 2;
		}
		cr_assert_not(sockets.gso4);
		cr_assert(sockets.gso6, "the other family is judged by itself");
		cr_assert_eq(k.gso_refused, span ? 1 : UDP_GSO_BELIEVE);
		k.now_ns += UDP_GSO_RETRY_NS;
		k.nr = 0;
	}
	/* It goes by another device: GSO is back with the first batch that is accepted. */
	k.gso_errno = 0;
	for (unsigned i = 0; i < 20; i++)
		send_one(batch_of("192.0.2.1:5", 10, 1452, 800, 1));
	cr_assert(sockets.gso4);
	cr_assert_eq(k.gso_messages, 20);
	cr_assert_eq(dropped(), 0);
}

Test(send, never_tries_gso_on_a_kernel_that_does_not_know_it)
{
	sockets.gso4 = false;
	k.now_ns = 1000 * NS_PER_SEC;
	send_one(batch_of("192.0.2.1:5", 10, 1452, 800, 1));
	check_all_sent(1, 10);
	cr_assert_not(sockets.gso4);
	cr_assert_eq(k.gso_messages, 0);
}

Test(send, resends_only_the_refused_batch_and_those_behind_it)
{
	struct udp_batch *batches[6];

	/* The third has segments too long for this NIC. */
	k.gso_errno = EIO;
	k.gso_longest = 1000;
	for (unsigned i = 0; i < 6; i++)
		batches[i] = batch_of("192.0.2.1:5", 5, i == 2 ? 1400 : 900, 50, 1 + 5 * i);
	udp_tx_send(tx, &sockets, batches, 6);
	check_all_sent(1, 30);
	cr_assert_eq(k.gso_messages, 2);
	cr_assert(sockets.gso4);
}

Test(send, keeps_gso_when_the_pieces_fail_as_well)
{
	k.gso_errno = EIO;
	k.destination_errno = EIO;
	send_one(batch_of("192.0.2.1:666", 5, 1452, 800, 1));
	cr_assert_eq(counter_read(&c()->drop_error), 5);
	cr_assert(sockets.gso4);
}

static void check_narrow_path(int err)
{
	k.gso_errno = err;
	k.gso_longest = 1400;
	send_one(batch_of("192.0.2.1:5", 10, 1452, 800, 1));
	check_all_sent(1, 10);
	cr_assert(sockets.gso4, "one narrow path cost all peers their GSO");
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 1);

	/* Remembered for this destination and this length, */
	k.calls = 0;
	send_one(batch_of("192.0.2.1:5", 10, 1452, 800, 11));
	check_all_sent(1, 20);
	cr_assert_eq(k.calls, 1);
	/* not for a length that fits, nor for others. */
	send_one(batch_of("192.0.2.1:5", 10, 1300, 800, 21));
	cr_assert_eq(k.gso_messages, 1);
	k.gso_longest = 1452;
	send_one(batch_of("192.0.2.2:5", 10, 1452, 800, 31));
	cr_assert_eq(k.gso_messages, 2);
	check_all_sent(1, 40);
}

Test(send, remembers_a_narrow_path_told_by_einval)
{
	check_narrow_path(EINVAL);
}

Test(send, remembers_a_narrow_path_told_by_emsgsize)
{
	check_narrow_path(EMSGSIZE);
}

Test(send, remembers_more_narrow_paths_than_it_has_places_for)
{
	k.gso_errno = EINVAL;
	k.gso_longest = 1400;
	for (unsigned i = 0; i < 100; i++) {
		char to[32];

		snprintf(to, sizeof(to), "192.0.2.%u:5", i % 40);
		send_one(batch_of(to, 3, 1452, 800, 1 + 3 * i));
	}
	check_all_sent(1, 300);
	cr_assert(sockets.gso4);
}

Test(send, turns_gso_off_when_many_refuse_a_length_that_every_path_carries)
{
	k.gso_errno = EINVAL;
	for (unsigned i = 0; i < 4; i++) {
		char v4[32], v6[32];

		cr_assert(sockets.gso4 && sockets.gso6);
		snprintf(v4, sizeof(v4), "192.0.2.%u:5", i);
		snprintf(v6, sizeof(v6), "[2001:db8::%u]:5", i + 1);
		send_one(batch_of(v4, 20, 500, 400, 1 + 40 * i));
		send_one(batch_of(v6, 20, 1232, 400, 21 + 40 * i));
	}
	cr_assert_not(sockets.gso4);
	cr_assert_not(sockets.gso6);
	check_all_sent(1, 160);
}

static void check_lost_pin(const char *to, int err)
{
	struct udp_batch *batch = pinned(batch_of(to, 10, 1452, 800, 1));

	k.nr = k.gso_messages = 0;
	k.pin_errno = err;
	udp_tx_send(tx, &sockets, &batch, 1);
	cr_assert_eq(k.nr, 10);
	check_sent(0, 1, 10);
	cr_assert_eq(k.gso_messages, 1, "GSO was blamed for the pin");
	cr_assert(sockets.gso4 && sockets.gso6);
	cr_assert_not(endpoint_is_pinned(&batch->endpoint));
	cr_assert_eq(dropped(), 0);
}

Test(send, drops_a_vanished_pin_before_it_blames_gso)
{
	check_lost_pin("192.0.2.1:5", ENETUNREACH);
	check_lost_pin("192.0.2.1:5", EINVAL);
	check_lost_pin("[2001:db8::1]:5", EINVAL);
	check_lost_pin("[2001:db8::1]:5", EADDRNOTAVAIL);
	check_lost_pin("[2001:db8::1]:5", ENODEV);
	cr_assert_eq(counter_read(&c()->pin_dropped), 5);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 0);
}

Test(send, drops_the_pin_and_then_gso_when_both_are_refused)
{
	k.pin_errno = EINVAL;
	k.gso_errno = EINVAL;
	send_one(pinned(batch_of("192.0.2.1:5", 10, 500, 400, 1)));
	check_all_sent(1, 10);
	cr_assert_eq(counter_read(&c()->pin_dropped), 1);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 1);
	cr_assert(sockets.gso4);
}

Test(send, drops_a_vanished_pin_while_sending_in_pieces)
{
	sockets.gso4 = false;
	k.pin_errno = EINVAL;
	send_one(pinned(batch_of("192.0.2.1:5", 10, 500, 400, 1)));
	check_all_sent(1, 10);
	cr_assert_eq(counter_read(&c()->pin_dropped), 1);
}

Test(send, counts_what_is_too_long_and_sends_the_rest)
{
	struct udp_batch *batches[3] = {
		batch_of("192.0.2.1:5", 1, 0, 900, 1),
		batch_of("192.0.2.1:5", 1, 0, 2000, 2),
		batch_of("192.0.2.1:5", 1, 0, 900, 3),
	};

	k.longest = 1000;
	udp_tx_send(tx, &sockets, batches, 3);
	cr_assert_eq(k.nr, 2);
	cr_assert_eq(k.sent[1].id, 3);
	cr_assert_eq(counter_read(&c()->drop_too_long), 1);

	/* Of a batch, the last may still fit. */
	send_one(batch_of("192.0.2.1:5", 5, 2000, 900, 10));
	cr_assert_eq(k.nr, 3);
	cr_assert_eq(k.sent[2].id, 14);
	cr_assert_eq(counter_read(&c()->drop_too_long), 5);
	cr_assert(sockets.gso4);
}

Test(send, waits_while_the_socket_is_full_and_loses_nothing)
{
	for (unsigned i = 0; i < 5; i++)
		once(EAGAIN);
	send_one(batch_of("192.0.2.1:5", 10, 500, 400, 1));
	check_all_sent(1, 10);
	cr_assert_eq(k.waits, 5);
	cr_assert_eq(counter_read(&c()->waits), 5);
}

Test(send, gives_up_on_a_device_that_never_sends)
{
	struct udp_batch *batches[3];

	k.always_full = k.never_writable = true;
	for (unsigned i = 0; i < 3; i++)
		batches[i] = batch_of("192.0.2.1:5", 10, 500, 400, 1);
	udp_tx_send(tx, &sockets, batches, 3);
	cr_assert_eq(counter_read(&c()->drop_no_buffer), 30);
	/* The patience is for the call, not for each batch. */
	cr_assert_lt(k.waits, 60);
	/* The next call has patience again. */
	k.always_full = false;
	once(EAGAIN);
	k.never_writable = false;
	udp_tx_send(tx, &sockets, batches, 1);
	cr_assert_eq(k.nr, 10);
}

Test(send, has_its_patience_once_a_call_even_when_others_get_through)
{
	struct udp_batch *batches[9];

	k.destination_errno = EAGAIN;
	k.never_writable = true;
	for (unsigned i = 0; i < 9; i++)
		batches[i] = batch_of(i % 2 ? "192.0.2.1:5" : "192.0.2.1:666", 2, 500, 400, 1 + 2 * (i / 2));
	udp_tx_send(tx, &sockets, batches, 9);
	check_sent(0, 1, 8);
	cr_assert_eq(counter_read(&c()->drop_no_buffer), 10);
	cr_assert_lt(k.waits, 60);
}

Test(send, gives_up_on_a_socket_that_claims_room_and_has_none)
{
	k.always_full = true;
	send_one(batch_of("192.0.2.1:5", 10, 500, 400, 1));
	cr_assert_eq(counter_read(&c()->drop_no_buffer), 10);
}

Test(send, does_not_wait_once_stopped)
{
	k.always_full = k.never_writable = true;
	stop = true;
	send_one(batch_of("192.0.2.1:5", 10, 500, 400, 1));
	cr_assert_eq(k.waits, 0);
	cr_assert_eq(counter_read(&c()->drop_no_buffer), 10);
}

Test(send, retries_without_buffers_and_then_counts)
{
	once(ENOBUFS);
	once(ENOMEM);
	send_one(batch_of("192.0.2.1:5", 10, 500, 400, 1));
	check_all_sent(1, 10);

	k.destination_errno = ENOBUFS;
	send_one(batch_of("192.0.2.1:666", 10, 500, 400, 11));
	cr_assert_eq(counter_read(&c()->drop_no_buffer), 10);
	cr_assert_eq(k.nr, 10);
}

Test(send, retries_an_error_that_may_be_of_an_older_packet)
{
	static const int errors[] = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ENETDOWN};

	for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
		once(errors[i]);
		send_one(batch_of("192.0.2.1:5", 10, 500, 400, 1 + 10 * i));
	}
	check_all_sent(1, 10 * ARRAY_LEN(errors));
}

Test(send, counts_an_unreachable_peer_and_goes_on_with_the_others)
{
	static const int errors[] = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EACCES};

	for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
		struct udp_batch *batches[3] = {
			batch_of("192.0.2.1:5", 5, 500, 400, 1),
			batch_of("192.0.2.1:666", 5, 500, 400, 100),
			batch_of("192.0.2.1:5", 5, 500, 400, 6),
		};

		k.nr = 0;
		k.destination_errno = errors[i];
		udp_tx_send(tx, &sockets, batches, 3);
		cr_assert_eq(k.nr, 10);
		check_sent(0, 1, 10);
		cr_assert_eq(counter_read(&c()->drop_unreachable), 5 * (i + 1));
	}
	cr_assert(sockets.gso4);
}

Test(send, counts_what_a_firewall_refuses)
{
	k.destination_errno = EPERM;
	send_one(batch_of("192.0.2.1:666", 5, 500, 400, 1));
	cr_assert_eq(counter_read(&c()->drop_error), 5);
	cr_assert(sockets.gso4);
}

Test(send, takes_port_0_for_unreachable_without_asking_the_kernel)
{
	send_one(batch_of("192.0.2.1:0", 5, 500, 400, 1));
	send_one(batch_of("[2001:db8::1]:0", 5, 500, 400, 1));
	cr_assert_eq(k.calls, 0);
	cr_assert_eq(counter_read(&c()->drop_unreachable), 10);
}

Test(send, counts_what_has_no_socket)
{
	struct udp_batch *batches[2] = {
		batch_of("[2001:db8::1]:5", 5, 500, 400, 1),
		batch_of("192.0.2.1:5", 5, 500, 400, 1),
	};

	sockets.fd6 = -1;
	udp_tx_send(tx, &sockets, batches, 2);
	cr_assert_eq(counter_read(&c()->drop_no_socket), 5);
	cr_assert_eq(k.nr, 5);
	udp_tx_send(tx, NULL, batches, 2);
	cr_assert_eq(counter_read(&c()->drop_no_socket), 15);
}

Test(send, delivers_exactly_once_and_in_order_under_random_faults)
{
	static const int gso_errors[] = {0, 0, EIO, EINVAL, EMSGSIZE};
	unsigned seed = random_seed();

	for (unsigned round = 0; round < 300; round++) {
		struct udp_batch *batches[20];
		unsigned nr = 1 + random_below(20);
		/* One connection a family. */
		uint32_t next[2] = {1, 100001}, seen[2] = {1, 100001};
		uint64_t before = counter_read(&c()->datagrams);

		k.nr = 0;
		k.now_ns += random_below(40) * NS_PER_SEC;
		k.random_errors = 3 + random_below(20);
		k.gso_errno = gso_errors[random_below(ARRAY_LEN(gso_errors))];
		k.gso_longest = (uint16_t)(random_below(2) ? 1000 : 0);
		k.pin_errno = random_below(2) ? EINVAL : 0;
		sockets.gso4 = random_below(4);
		sockets.gso6 = random_below(4);
		for (unsigned i = 0; i < nr; i++) {
			bool v6 = random_below(2);
			unsigned segments = 1 + random_below(random_below(3) ? 4 : 40);
			uint32_t len = 4 + random_below(1449);

			batches[i] = batch_of(v6 ? "[2001:db8::1]:5" : "192.0.2.1:5", segments, len,
				4 + random_below(len - 3), next[v6]);
			batches[i]->tos = (uint8_t)random_below(256);
			next[v6] += segments;
			if (!random_below(3))
				pinned(batches[i]);
		}
		udp_tx_send(tx, &sockets, batches, nr);
		for (unsigned i = 0; i < k.nr; i++)
			cr_assert_eq(
				k.sent[i].id, seen[k.sent[i].fd == FD6]++, "seed %u round %u", seed, round);
		cr_assert(seen[0] == next[0] && seen[1] == next[1], "seed %u round %u: lost", seed, round);
		cr_assert_eq(counter_read(&c()->datagrams) - before, k.nr, "seed %u round %u", seed, round);
		cr_assert_eq(dropped(), 0, "seed %u round %u", seed, round);
		batches_free();
	}
}

/* The kernel itself. */

static struct udp_sockets *from, *to;
static struct udp_rx *rx;
static struct pool pool;
static struct udp_rx_batch *rx_batch;

static void setup_real(void)
{
	cr_assert_eq(udp_sockets_open(&from, 0, 0), 0);
	cr_assert_eq(udp_sockets_open(&to, 0, 0), 0);
	cr_assert_eq(udp_tx_new(&tx, NULL, NULL), 0);
	cr_assert_eq(udp_rx_new(&rx, NULL), 0);
	rx_batch = rx_batch_new(&pool);
}

static void teardown_real(void)
{
	udp_tx_free(tx);
	batches_free();
	if (!rx)
		return;
	udp_rx_free(rx);
	udp_sockets_put(from);
	udp_sockets_put(to);
	pool_done(&pool);
}

/* Runs after the suite's own. */
static void setup_narrow(void)
{
	teardown_real();
	rx = NULL;
	tx = NULL;
	own_network(1280);
	setup_real();
}

TestSuite(send_real, .init = setup_real, .fini = teardown_real, .timeout = 60);

static struct udp_batch *real_batch(
	const char *host, unsigned nr, uint32_t len, uint32_t last_len, uint32_t id)
{
	char text[ENDPOINT_STRLEN];

	snprintf(text, sizeof(text), "%s:%u", host, to->port);
	return batch_of(text, nr, len, last_len, id);
}

/* Receives nr datagrams with ids from first on; the last sender's address is left in rx_batch. */
static void receive_ids(int fd, uint32_t first, unsigned nr)
{
	uint32_t id = first;

	while (id < first + nr) {
		cr_assert_geq(receive_soon(rx, fd, rx_batch), 0);
		for (unsigned i = 0; i < rx_batch->nr; i++) {
			const struct udp_rx_msg *m = &rx_batch->msg[i];

			for (uint32_t at = 0; at < m->len; at += m->segment_len)
				cr_assert_eq(
					datagram_check(m->data + at, MIN(m->segment_len, m->len - at)), id++);
		}
	}
	cr_assert_eq(id, first + nr);
	cr_assert_eq(udp_receive(rx, fd, rx_batch), 0);
}

static void check_trains(const char *host, int fd)
{
	struct udp_batch *batches[8];

	for (unsigned i = 0; i < 8; i++)
		batches[i] = real_batch(
			host, i % 2 ? 64 : 45, i % 2 ? 300 : 1452, 99, 1 + 64 * (i / 2) + 45 * ((i + 1) / 2));
	for (unsigned i = 0; i < 8; i += 2) {
		/* A pair at a time: no more than any host's receive buffer takes. */
		udp_tx_send(tx, from, batches + i, 2);
		receive_ids(fd, load_le32(batches[i]->data), 45 + 64);
	}
	cr_assert_eq(counter_read(&c()->datagrams), 4 * (45 + 64));
	cr_assert_eq(counter_read(&c()->batches), 8);
	cr_assert_eq(dropped(), 0);
}

Test(send_real, sends_trains_over_ipv4)
{
	check_trains("127.0.0.1", to->fd4);
	cr_assert(from->gso4);
}

Test(send_real, sends_trains_over_ipv6)
{
	check_trains("[::1]", to->fd6);
	cr_assert(from->gso6);
}

Test(send_real, sends_trains_without_gso)
{
	from->gso4 = false;
	check_trains("127.0.0.1", to->fd4);
}

Test(send_real, sends_from_the_pinned_address)
{
	struct udp_batch *batch = real_batch("127.0.0.1", 10, 500, 400, 1);

	batch->endpoint.from.v4.s_addr = htonl(INADDR_LOOPBACK + 8);
	udp_tx_send(tx, from, &batch, 1);
	cr_assert_geq(receive_soon(rx, to->fd4, rx_batch), 1);
	cr_assert_eq(ntohl(rx_batch->msg[0].from.to.v4.sin_addr.s_addr), INADDR_LOOPBACK + 8);
	cr_assert_eq(counter_read(&c()->pin_dropped), 0);
}

Test(send_real, replies_to_where_a_packet_came_from)
{
	struct udp_batch *batch = real_batch("127.0.0.9", 1, 0, 400, 1);

	batch->endpoint.from.v4.s_addr = htonl(INADDR_LOOPBACK + 4);
	udp_tx_send(tx, from, &batch, 1);
	cr_assert_eq(receive_soon(rx, to->fd4, rx_batch), 1);
	batch->endpoint = rx_batch->msg[0].from;
	udp_tx_send(tx, to, &batch, 1);
	cr_assert_eq(receive_soon(rx, from->fd4, rx_batch), 1);
	cr_assert_eq(ntohl(rx_batch->msg[0].from.to.v4.sin_addr.s_addr), INADDR_LOOPBACK + 8);
	cr_assert_eq(ntohl(rx_batch->msg[0].from.from.v4.s_addr), INADDR_LOOPBACK + 4);
}

Test(send_real, drops_a_vanished_pin)
{
	struct udp_batch *v4 = real_batch("127.0.0.1", 10, 500, 400, 1),
			 *v6 = real_batch("[::1]", 10, 500, 400, 1);
	struct udp_batch *link = real_batch("[::1]", 10, 500, 400, 1);

	v4->endpoint.from.v4.s_addr = htonl(0xc0000263); /* 192.0.2.99 */
	cr_assert_eq(inet_pton(AF_INET6, "2001:db8::99", &v6->endpoint.from.v6), 1);
	cr_assert_eq(inet_pton(AF_INET6, "fe80::99", &link->endpoint.from.v6), 1);
	link->endpoint.from_ifindex = 9999;
	udp_tx_send(tx, from, &v4, 1);
	receive_ids(to->fd4, 1, 10);
	udp_tx_send(tx, from, &v6, 1);
	receive_ids(to->fd6, 1, 10);
	udp_tx_send(tx, from, &link, 1);
	receive_ids(to->fd6, 1, 10);
	cr_assert_eq(counter_read(&c()->pin_dropped), 3);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 0);
	cr_assert(from->gso4 && from->gso6);
}

Test(send_real, fragments_over_a_narrow_path_and_keeps_gso, .init = setup_narrow)
{
	struct udp_batch *v4 = real_batch("127.0.0.1", 20, 1452, 400, 1),
			 *v6 = real_batch("[::1]", 20, 1452, 400, 1);
	struct udp_batch *fits = real_batch("127.0.0.1", 20, 1200, 400, 1);

	udp_tx_send(tx, from, &v4, 1);
	receive_ids(to->fd4, 1, 20);
	udp_tx_send(tx, from, &v6, 1);
	receive_ids(to->fd6, 1, 20);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 2);
	udp_tx_send(tx, from, &fits, 1);
	receive_ids(to->fd4, 1, 20);
	cr_assert_eq(counter_read(&c()->gso_fallbacks), 2);
	cr_assert(from->gso4 && from->gso6);
	cr_assert_eq(dropped(), 0);
}

Test(send_real, counts_a_v4_mapped_destination_as_unreachable)
{
	struct udp_batch *batch = real_batch("[::ffff:127.0.0.1]", 5, 500, 400, 1);

	udp_tx_send(tx, from, &batch, 1);
	cr_assert_eq(counter_read(&c()->drop_unreachable), 5);
	cr_assert(from->gso6);
}

Test(send_real, counts_a_descriptor_that_is_gone)
{
	struct udp_sockets gone = {.fd4 = 1000, .fd6 = -1, .gso4 = true};
	struct udp_batch *batch = real_batch("127.0.0.1", 5, 500, 400, 1);

	udp_tx_send(tx, &gone, &batch, 1);
	cr_assert_eq(counter_read(&c()->drop_error), 5);
	cr_assert(gone.gso4);
}
