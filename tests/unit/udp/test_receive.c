#include "udp/receive.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <unistd.h>

#include "support.h"
#include "udp/send.h"

static struct udp_sockets *a, *b; /* a sends, b receives */
static struct udp_tx *tx;
static struct udp_rx *rx;
static struct pool pool;
static struct udp_rx_batch *batch;

static void setup(void)
{
	cr_assert_eq(udp_sockets_open(&a, 0, 0), 0);
	cr_assert_eq(udp_sockets_open(&b, 0, 0), 0);
	cr_assert_eq(udp_tx_new(&tx, NULL, NULL), 0);
	cr_assert_eq(udp_rx_new(&rx, NULL), 0);
	batch = rx_batch_new(&pool);
}

static void teardown(void)
{
	udp_sockets_put(a);
	udp_sockets_put(b);
	udp_tx_free(tx);
	udp_rx_free(rx);
	pool_done(&pool);
	batches_free();
}

TestSuite(receive, .init = setup, .fini = teardown, .timeout = 30);

static const struct udp_rx_counters *counters(void)
{
	return udp_rx_counters(rx);
}

static struct udp_batch *to_b(const char *host, unsigned nr, uint32_t len, uint32_t last_len)
{
	char text[ENDPOINT_STRLEN];

	snprintf(text, sizeof(text), "%s:%u", host, b->port);
	return batch_of(text, nr, len, last_len, 1);
}

static void send_to_b(struct udp_batch *out)
{
	udp_tx_send(tx, a, &out, 1);
	cr_assert_eq(counter_read(&udp_tx_counters(tx)->datagrams), out->nr);
}

/* Datagrams with ids from 1 on are in the batch, in order; returns the last id. */
static uint32_t check_datagrams(void)
{
	uint32_t id = 0;

	for (unsigned i = 0; i < batch->nr; i++) {
		const struct udp_rx_msg *m = &batch->msg[i];

		cr_assert(m->segment_len >= 1 && m->segment_len <= m->len);
		for (uint32_t at = 0; at < m->len; at += m->segment_len)
			cr_assert_eq(datagram_check(m->data + at, MIN(m->segment_len, m->len - at)), ++id);
	}
	return id;
}

static void receive_all(int fd, const char *host, const char *local)
{
	struct udp_batch *out = to_b(host, 40, 1300, 700);
	struct endpoint from;
	char text[ENDPOINT_STRLEN];

	out->tos = 0xb8 | 2;
	send_to_b(out);
	cr_assert_geq(receive_soon(rx, fd, batch), 1);
	cr_assert_eq(check_datagrams(), 40);
	if (a->gso4 && b->gro4)
		cr_assert_eq(
			batch->nr, 1, "a GSO train over loopback comes as one GRO run, not %u", batch->nr);

	snprintf(text, sizeof(text), "%s:%u", local, a->port);
	from = endpoint_of(text);
	for (unsigned i = 0; i < batch->nr; i++) {
		cr_assert(endpoint_same_to(&batch->msg[i].from, &from));
		cr_assert(endpoint_is_pinned(&batch->msg[i].from));
		cr_assert_eq(batch->msg[i].ecn, 2);
		cr_assert_eq(batch->msg[i].from.from_ifindex, 0);
		cr_assert_eq(batch->msg[i].from.arrival_ifindex, (int)if_nametoindex("lo"));
	}
	cr_assert_eq(counter_read(&counters()->datagrams), 40);
	cr_assert_eq(counter_read(&counters()->bytes), 39 * 1300 + 700);
	cr_assert_eq(counter_read(&counters()->truncated), 0);
	cr_assert_eq(udp_receive(rx, fd, batch), 0);
}

Test(receive, takes_a_gro_run_with_sender_pin_and_ecn_over_ipv4)
{
	receive_all(b->fd4, "127.0.0.1", "127.0.0.1");
	cr_assert_eq(ntohl(batch->msg[0].from.from.v4.s_addr), INADDR_LOOPBACK);
}

Test(receive, takes_a_gro_run_with_sender_pin_and_ecn_over_ipv6)
{
	receive_all(b->fd6, "[::1]", "[::1]");
	cr_assert(IN6_IS_ADDR_LOOPBACK(&batch->msg[0].from.from.v6));
}

Test(receive, pins_the_address_that_the_sender_addressed)
{
	send_to_b(to_b("127.0.0.77", 1, 100, 100));
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	cr_assert_eq(ntohl(batch->msg[0].from.from.v4.s_addr), INADDR_LOOPBACK + 76);
}

Test(receive, pins_an_own_address_when_the_sender_addressed_everybody)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(b->port), .sin_addr = {htonl(0x7fffffff)}};
	int one = 1;

	cr_assert_eq(setsockopt(a->fd4, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one)), 0);
	cr_assert_eq(sendto(a->fd4, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	cr_assert_eq(ntohl(batch->msg[0].from.from.v4.s_addr), INADDR_LOOPBACK);
}

Test(receive, has_no_unset_bytes_in_a_sender)
{
	struct endpoint want = {0};

	send_to_b(to_b("127.0.0.1", 1, 100, 100));
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	want.to.v4.sin_family = AF_INET;
	want.to.v4.sin_port = htons(a->port);
	want.to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	want.from.v4.s_addr = htonl(INADDR_LOOPBACK);
	want.arrival_ifindex = (int)if_nametoindex("lo");
	cr_assert_arr_eq(&batch->msg[0].from, &want, sizeof(want));
}

Test(receive, takes_many_messages_and_returns_the_rest_at_the_next_call)
{
	/* Each longer than the one before, so that nothing is joined on the way. */
	for (unsigned i = 0; i < UDP_RX_MSGS + 3; i++) {
		struct udp_batch *out = to_b("127.0.0.1", 1, 0, 100 + i);

		datagram_fill(out->data, out->len, i);
		udp_tx_send(tx, a, &out, 1);
	}
	cr_assert_eq(receive_soon(rx, b->fd4, batch), UDP_RX_MSGS);
	for (unsigned i = 0; i < batch->nr; i++) {
		cr_assert_eq(batch->msg[i].len, 100 + i);
		cr_assert_eq(datagram_check(batch->msg[i].data, batch->msg[i].len), i);
	}
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 3);
	cr_assert_eq(datagram_check(batch->msg[2].data, batch->msg[2].len), UDP_RX_MSGS + 2);
	cr_assert_eq(udp_receive(rx, b->fd4, batch), 0);
}

Test(receive, survives_the_largest_datagrams)
{
	send_to_b(to_b("127.0.0.1", 1, 0, GSO_BYTES_MAX));
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	cr_assert_eq(batch->msg[0].len, GSO_BYTES_MAX);
	cr_assert_eq(batch->msg[0].segment_len, GSO_BYTES_MAX);
	cr_assert_eq(check_datagrams(), 1);
}

Test(receive, counts_empty_datagrams_and_goes_on)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(b->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};

	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(sendto(a->fd4, "", 0, 0, (struct sockaddr *)&to, sizeof(to)), 0);
		if (i == 1)
			send_to_b(to_b("127.0.0.1", 1, 0, 50));
	}
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	cr_assert_eq(check_datagrams(), 1);
	cr_assert_eq(counter_read(&counters()->empty), 3);
}

Test(receive, reports_a_descriptor_that_is_gone)
{
	cr_assert_eq(udp_receive(rx, -1, batch), -EBADF);
}

Test(receive, gives_the_batch_back_with_the_last_reference)
{
	send_to_b(to_b("127.0.0.1", 1, 0, 50));
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	udp_rx_batch_get(batch);
	udp_rx_batch_put(batch);
	cr_assert_eq(pool_in_use(&pool), 1);
	udp_rx_batch_put(batch);
	cr_assert_eq(pool_in_use(&pool), 0);
	cr_assert_eq(pool_get(&pool), batch);
}

/* recvmmsg with faults: errors first, then the kernel with a buffer or control buffer made small. */
static int fail_errno, fail_times;
static size_t small_iov, small_control;
static bool control_was_reset = true;

static int faulty_recvmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags, struct timespec *timeout)
{
	for (unsigned i = 0; i < nr; i++) {
		control_was_reset &= msgs[i].msg_hdr.msg_controllen >= 88 && !msgs[i].msg_hdr.msg_flags;
		control_was_reset &= msgs[i].msg_hdr.msg_namelen == sizeof(struct sockaddr_in6);
		if (small_iov)
			msgs[i].msg_hdr.msg_iov->iov_len = small_iov;
		if (small_control)
			msgs[i].msg_hdr.msg_controllen = small_control;
	}
	if (fail_times) {
		fail_times--;
		errno = fail_errno;
		return -1;
	}
	return recvmmsg(fd, msgs, nr, flags, timeout);
}

static const struct udp_rx_sys faulty = {.recvmmsg = faulty_recvmmsg};

/* Runs after the suite's own. */
static void setup_faulty(void)
{
	udp_rx_free(rx);
	cr_assert_eq(udp_rx_new(&rx, &faulty), 0);
}

Test(receive, cuts_a_truncated_gro_run_to_whole_datagrams, .init = setup_faulty)
{
	if (!a->gso4 || !b->gro4)
		cr_skip_test("no GSO or GRO here");
	small_iov = 3 * 1300 + 1299;
	send_to_b(to_b("127.0.0.1", 40, 1300, 700));
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
	cr_assert_eq(batch->msg[0].segment_len, 1300);
	cr_assert_eq(batch->msg[0].len, 3 * 1300);
	cr_assert_eq(check_datagrams(), 3);
	cr_assert_eq(counter_read(&counters()->truncated), 37);
	cr_assert_eq(counter_read(&counters()->datagrams), 3);
}

Test(receive, drops_a_truncated_datagram_and_keeps_its_neighbours, .init = setup_faulty)
{
	static const uint32_t lens[] = {100, 2000, 101};

	small_iov = 1000;
	for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
		struct udp_batch *out = to_b("127.0.0.1", 1, 0, lens[i]);

		datagram_fill(out->data, out->len, i == 2 ? 2 : 1);
		udp_tx_send(tx, a, &out, 1);
	}
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 2);
	cr_assert_eq(check_datagrams(), 2);
	cr_assert_eq(batch->msg[1].len, 101);
	cr_assert_eq(ntohs(batch->msg[1].from.to.v4.sin_port), a->port);
	cr_assert_eq(counter_read(&counters()->truncated), 1);
}

Test(receive, drops_a_message_with_truncated_control_data, .init = setup_faulty)
{
	small_control = CMSG_SPACE(sizeof(struct in_pktinfo));
	send_to_b(to_b("127.0.0.1", 3, 1300, 700));
	cr_assert_eq(receive_soon(rx, b->fd4, batch), 0);
	cr_assert_geq(counter_read(&counters()->truncated), 1);
}

Test(receive, resets_its_headers_on_every_call, .init = setup_faulty)
{
	for (unsigned i = 0; i < 3; i++) {
		send_to_b(to_b("127.0.0.1", 1, 0, 100));
		cr_assert_eq(receive_soon(rx, b->fd4, batch), 1);
		cr_assert_eq(batch->msg[0].from.to.sa.sa_family, AF_INET);
		udp_tx_free(tx);
		cr_assert_eq(udp_tx_new(&tx, NULL, NULL), 0);
	}
	cr_assert(control_was_reset);
}

Test(receive, consumes_pending_errors_and_reads_on, .init = setup_faulty)
{
	static const int errors[] = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ENETDOWN, EMSGSIZE, ENOBUFS};

	for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
		fail_errno = errors[i];
		fail_times = 3;
		udp_tx_free(tx);
		cr_assert_eq(udp_tx_new(&tx, NULL, NULL), 0);
		send_to_b(to_b("127.0.0.1", 1, 0, 100));
		cr_assert_eq(receive_soon(rx, b->fd4, batch), 1, "%s", strerror(errors[i]));
	}
	cr_assert_eq(counter_read(&counters()->errors), 3 * ARRAY_LEN(errors));
}

Test(receive, does_not_read_on_for_ever_while_errors_come, .init = setup_faulty)
{
	fail_errno = ECONNREFUSED;
	fail_times = 1000;
	cr_assert_eq(udp_receive(rx, b->fd4, batch), 0);
	cr_assert_gt(fail_times, 900);
}

/* recvmmsg that makes up one message: GRO values that no kernel should give. */
static int made_up_segment;
static uint32_t made_up_len;

static int made_up_recvmmsg(int fd, struct mmsghdr *msgs, unsigned nr, int flags, struct timespec *timeout)
{
	struct msghdr *h = &msgs[0].msg_hdr;
	struct cmsghdr *c = h->msg_control;
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(1)};

	if (!made_up_len) {
		errno = EAGAIN;
		return -1;
	}
	memcpy(h->msg_name, &from, sizeof(from));
	h->msg_namelen = sizeof(from);
	memset(c, 0, CMSG_SPACE(sizeof(int)));
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_GRO;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &made_up_segment, sizeof(int));
	h->msg_controllen = CMSG_SPACE(sizeof(int));
	msgs[0].msg_len = made_up_len;
	return 1;
}

static const struct udp_rx_sys made_up = {.recvmmsg = made_up_recvmmsg};

static void setup_made_up(void)
{
	udp_rx_free(rx);
	cr_assert_eq(udp_rx_new(&rx, &made_up), 0);
}

Test(receive, normalises_nonsensical_segment_lengths, .init = setup_made_up)
{
	static const int values[] = {0, -1, 1001, 70000, INT32_MAX, INT32_MIN};

	made_up_len = 1000;
	for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
		made_up_segment = values[i];
		cr_assert_eq(udp_receive(rx, b->fd4, batch), 1);
		cr_assert_eq(batch->msg[0].segment_len, 1000, "value %d gave %u", values[i],
			batch->msg[0].segment_len);
		cr_assert_eq(batch->msg[0].len, 1000);
	}
	cr_assert_eq(counter_read(&counters()->datagrams), ARRAY_LEN(values));
}
