#include "tun/tun_device.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "packets.h"
#include "tun/coalesce.h"
#include "tun/inner.h"
#include "tun/split.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define LOCAL "10.99.0.1"
#define REMOTE "10.99.0.2"

static struct train train;
static struct tun_device *dev;

/* Each Criterion test is a process of its own, and here in a network of its own. */
static void in_new_netns(void)
{
	if (geteuid() || access("/dev/net/tun", F_OK) || unshare(CLONE_NEWNET))
		cr_skip_test("needs root, /dev/net/tun and network namespaces");
}

static void interface(unsigned long request, struct ifreq *ifr)
{
	const int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", tun_device_name(dev));
	cr_assert_eq(ioctl(fd, request, ifr), 0, "%s", strerror(errno));
	close(fd);
}

static void set_up(bool up)
{
	struct ifreq ifr = {.ifr_flags = up ? IFF_UP : 0};

	interface(SIOCSIFFLAGS, &ifr);
}

static void configure(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct ifreq ifr = {0};
	FILE *f = fopen("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w");

	/* no router solicitations among the packets that the tests count */
	if (f) {
		fputs("1", f);
		fclose(f);
	}
	inet_pton(AF_INET, LOCAL, &address.sin_addr);
	memcpy(&ifr.ifr_addr, &address, sizeof(address));
	interface(SIOCSIFADDR, &ifr);
	memset(&ifr, 0, sizeof(ifr));
	inet_pton(AF_INET, "255.255.0.0", &address.sin_addr);
	memcpy(&ifr.ifr_netmask, &address, sizeof(address));
	interface(SIOCSIFNETMASK, &ifr);
	set_up(true);
}

static void open_configured(unsigned nr_queues)
{
	in_new_netns();
	cr_assert_eq(tun_device_open(&dev, "sl%d", nr_queues, 0), 0);
	configure();
}

static int udp_socket(const char *local, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	const int fd = socket(AF_INET, SOCK_DGRAM, 0);

	inet_pton(AF_INET, local, &a.sin_addr);
	cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void udp_send(int fd, const char *to, uint16_t port, const void *data, size_t len)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, to, &a.sin_addr);
	cr_assert_eq(sendto(fd, data, len, 0, (struct sockaddr *)&a, sizeof(a)), (ssize_t)len, "%s",
		strerror(errno));
}

static int receive(unsigned queue)
{
	struct tun_queue *q = tun_device_queue(dev, queue);

	train_reset(&train);
	return q->ops->recv_many(q, &train);
}

static int send_packet(unsigned queue, uint8_t *data, uint32_t len)
{
	struct tun_queue *q = tun_device_queue(dev, queue);
	struct tun_frame frame = {.len = len, .nr_iov = 2};

	frame.iov[1] = (struct iovec){data, len};
	return q->ops->send(q, &frame);
}

Test(tun_device, opens_with_the_name_the_kernel_numbered)
{
	struct ifreq ifr = {0};
	int fd;

	in_new_netns();
	cr_assert_eq(tun_device_open(&dev, "sl%d", 2, 1337), 0);
	cr_assert_str_eq(tun_device_name(dev), "sl0");
	cr_assert_eq(tun_device_nr_queues(dev), 2);
	cr_assert_eq((unsigned)tun_device_ifindex(dev), if_nametoindex("sl0"));
	interface(SIOCGIFMTU, &ifr);
	cr_assert_eq(ifr.ifr_mtu, 1337);
	cr_assert_eq(tun_device_queue(dev, 1)->index, 1);
	fd = tun_device_netns(dev);
	cr_assert(fd >= 0);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	tun_device_close(dev);
	cr_assert_eq(if_nametoindex("sl0"), 0, "closing deletes it");
	cr_assert_eq(tun_device_open(&dev, "sl1", 1, 0), 0);
	interface(SIOCGIFMTU, &ifr);
	cr_assert_eq(ifr.ifr_mtu, 1420);
	tun_device_close(dev);
	tun_device_close(NULL);
}

Test(tun_device, refuses_a_taken_name_even_if_it_is_a_multi_queue_tun)
{
	struct tun_device *other;

	in_new_netns();
	cr_assert_eq(tun_device_open(&dev, "sl0", 2, 0), 0);
	cr_assert_eq(tun_device_open(&other, "sl0", 2, 0), -EBUSY);
	cr_assert_eq(tun_device_open(&other, "lo", 1, 0), -EBUSY);
	tun_device_close(dev);
	cr_assert_eq(tun_device_open(&dev, "sl0", 2, 0), 0, "and takes it when it is free again");
	tun_device_close(dev);
}

Test(tun_device, refuses_bad_names_and_numbers)
{
	in_new_netns();
	cr_assert_eq(tun_device_open(&dev, "", 1, 0), -EINVAL);
	cr_assert_eq(tun_device_open(&dev, "a/b", 1, 0), -EINVAL);
	cr_assert_eq(tun_device_open(&dev, "sixteen-letters-", 1, 0), -EINVAL);
	cr_assert_eq(tun_device_open(&dev, "%d%d", 1, 0), -EINVAL);
	cr_assert_eq(tun_device_open(&dev, "sl0", 0, 0), -EINVAL);
	cr_assert_eq(tun_device_open(&dev, "sl0", 65, 0), -EINVAL);
	cr_assert_eq(tun_device_open(&dev, "sl0", 1, 10), -EINVAL);
	cr_assert_eq(if_nametoindex("sl0"), 0, "nothing is left behind");
}

Test(tun_device, unprivileged_open_is_eperm)
{
	in_new_netns();
	cr_assert_eq(seteuid(65534), 0);
	cr_assert_eq(tun_device_open(&dev, "sl0", 1, 0), -EPERM);
	cr_assert_eq(seteuid(0), 0);
}

Test(tun_device, reads_many_packets_into_one_train)
{
	char text[100];
	int fd;

	open_configured(1);
	fd = udp_socket(LOCAL, 1000);
	for (unsigned i = 0; i < 300; i++) {
		memset(text, (int)i, sizeof(text));
		udp_send(fd, REMOTE, 2000, text, 1 + i % 100);
	}
	cr_assert_eq(receive(0), TRAIN_PACKETS_MAX);
	for (unsigned i = 0; i < TRAIN_PACKETS_MAX; i++) {
		const struct train_packet *p = &train.packet[i];
		struct split_segment seg;
		struct split split;

		cr_assert_eq(p->offset % 16, 0);
		cr_assert_eq(p->len, 28 + 1 + i % 100);
		cr_assert(!i || p->offset >= p[-1].offset + p[-1].len + TRAIN_GAP);
		cr_assert_eq(train.data[p->offset + 28], (uint8_t)i);
		cr_assert_eq(split_begin(&split, train.data + p->offset, p, 1420), 0);
		cr_assert(split_next(&split, &seg));
		cr_assert_eq(
			naive_sum(naive_sum(17 + p->len - 20, seg.data + 12, 8), seg.data + 20, seg.len - 20),
			0xffff);
	}
	cr_assert_eq(receive(0), 300 - TRAIN_PACKETS_MAX);
	cr_assert_eq(receive(0), 0);
	close(fd);
	tun_device_close(dev);
}

static struct tun_queue *emit_to;
static unsigned emitted, emitted_packets;

static void emit(void *arg, struct tun_frame *frame, unsigned packets)
{
	emitted++;
	emitted_packets += packets;
	cr_assert_eq(emit_to->ops->send(emit_to, frame), 0);
}

/* A USO super-packet of one socket is cut, turned round, joined, written, and received by another. */
Test(tun_device, udp_super_packet_makes_the_round_trip)
{
	static uint8_t sent[30 * 1200 + 300], wire[64][1500], got[1500];
	int out, in, segment = 1200;
	struct split_segment seg;
	struct coalesce c;
	struct split split;
	unsigned nr = 0;

	open_configured(1);
	emit_to = tun_device_queue(dev, 0);
	if (!(atomic_load(&emit_to->offloads) & TUN_CAN_USO))
		cr_skip_test("this kernel has no USO for TUN");
	out = udp_socket(LOCAL, 1000);
	in = udp_socket(LOCAL, 2000);
	cr_assert_eq(setsockopt(out, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + i / 251);
	udp_send(out, REMOTE, 2000, sent, sizeof(sent));
	cr_assert_eq(receive(0), 1);
	cr_assert_eq(train.packet[0].gso_type, TUN_GSO_UDP_L4);
	cr_assert_eq(train.packet[0].gso_size, 1200);
	cr_assert_eq(train.packet[0].len, 28 + sizeof(sent));

	cr_assert_eq(coalesce_init(&c, emit, NULL), 0);
	c.offloads = TUN_CAN_USO;
	cr_assert_eq(split_begin(&split, train.data + train.packet[0].offset, &train.packet[0], 1420), 0);
	cr_assert_eq(split.nr, 31);
	while (split_next(&split, &seg)) {
		uint8_t *w = wire[nr++];
		uint8_t swap[4];

		memcpy(w, seg.data, seg.len);
		cr_assert_eq(
			naive_sum(naive_sum(17 + seg.len - 20, w + 12, 8), w + 20, seg.len - 20), 0xffff);
		memcpy(swap, w + 12, 4);
		memcpy(w + 12, w + 16, 4);
		memcpy(w + 16, swap, 4);
		coalesce_add(&c, w, seg.len);
	}
	coalesce_flush(&c);
	cr_assert_eq(emitted, 1);
	cr_assert_eq(emitted_packets, 31);
	for (unsigned i = 0; i < 31; i++) {
		const size_t want = i < 30 ? 1200 : 300;

		cr_assert_eq(recv(in, got, sizeof(got), MSG_DONTWAIT), (ssize_t)want, "datagram %u", i);
		cr_assert_eq(memcmp(got, sent + 1200 * i, want), 0);
	}
	cr_assert(recv(in, got, sizeof(got), MSG_DONTWAIT) < 0);
	coalesce_done(&c);
	close(out);
	close(in);
	tun_device_close(dev);
}

/* A TCP connection over the device, turned round at the far end by swapping addresses: it talks to itself. */
static void *mirror(void *arg)
{
	static uint8_t wire[128][1500];
	struct tun_queue *q = tun_device_queue(dev, 0);
	struct coalesce *c = arg;

	while (!q->ops->recv_wait(q)) {
		cr_assert(receive(0) >= 0);
		for (unsigned i = 0; i < train.nr; i++) {
			struct split_segment seg;
			struct split split;
			unsigned nr = 0;

			cr_assert_eq(split_begin(&split, train.data + train.packet[i].offset,
					     &train.packet[i], 1420),
				0);
			while (split_next(&split, &seg)) {
				uint8_t *w = wire[nr++];
				uint8_t swap[4];

				memcpy(w, seg.data, seg.len);
				memcpy(swap, w + 12, 4);
				memcpy(w + 12, w + 16, 4);
				memcpy(w + 16, swap, 4);
				coalesce_add(c, w, seg.len);
			}
			coalesce_flush(c);
		}
	}
	return NULL;
}

static void *pour(void *arg)
{
	const int fd = *(int *)arg;
	static uint8_t data[65536];
	uint64_t state = 99;

	for (unsigned i = 0; i < 200; i++) {
		for (size_t k = 0; k < sizeof(data); k++)
			data[k] = (uint8_t)rnd(&state);
		for (size_t at = 0; at < sizeof(data);) {
			const ssize_t n = send(fd, data + at, sizeof(data) - at, 0);

			cr_assert(n > 0);
			at += (size_t)n;
		}
	}
	shutdown(fd, SHUT_WR);
	return NULL;
}

Test(tun_device, tcp_stream_makes_the_round_trip_in_super_packets, .timeout = 60)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7000)};
	pthread_t mirror_thread, pour_thread;
	static uint8_t got[65536];
	struct coalesce c;
	uint64_t state = 99, received = 0;
	int listener, out, in;

	open_configured(1);
	emit_to = tun_device_queue(dev, 0);
	if (!(atomic_load(&emit_to->offloads) & TUN_CAN_TSO))
		cr_skip_test("this kernel has no TSO for TUN");
	cr_assert_eq(coalesce_init(&c, emit, NULL), 0);
	c.offloads = atomic_load(&emit_to->offloads);
	pthread_create(&mirror_thread, NULL, mirror, &c);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	inet_pton(AF_INET, LOCAL, &a.sin_addr);
	cr_assert_eq(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	out = socket(AF_INET, SOCK_STREAM, 0);
	inet_pton(AF_INET, REMOTE, &a.sin_addr);
	cr_assert_eq(connect(out, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
	in = accept(listener, NULL, NULL);
	cr_assert(in >= 0);
	pthread_create(&pour_thread, NULL, pour, &out);
	for (;;) {
		const ssize_t n = recv(in, got, sizeof(got), 0);

		cr_assert(n >= 0);
		if (!n)
			break;
		for (ssize_t i = 0; i < n; i++)
			cr_assert(got[i] == (uint8_t)rnd(&state));
		received += (uint64_t)n;
	}
	pthread_join(pour_thread, NULL);
	cr_assert_eq(received, 200 * 65536);
	cr_assert(emitted_packets > 3 * emitted, "%u packets in %u frames", emitted_packets, emitted);
	emit_to->ops->stop(emit_to);
	pthread_join(mirror_thread, NULL);
	coalesce_done(&c);
	tun_device_close(dev);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

struct reader {
	_Atomic int result;
	uint64_t cpu_ns; /* read after the thread has ended */
};

static void *wait_on(void *arg)
{
	struct tun_queue *q = tun_device_queue(dev, 0);
	struct reader *r = arg;

	r->result = q->ops->recv_wait(q);
	r->cpu_ns = thread_cpu_ns();
	return NULL;
}

Test(tun_device, reader_sleeps_while_the_interface_is_down, .timeout = 10)
{
	struct reader r = {.result = 1};
	uint8_t packet[100] = {0x45, 0, 0, 40};
	pthread_t thread;

	open_configured(1);
	for (unsigned round = 0; round < 2; round++) {
		set_up(false);
		cr_assert_eq(receive(0), 0);
		cr_assert_eq(send_packet(0, packet, 40), -ENETDOWN);
		cr_assert_eq(pthread_create(&thread, NULL, wait_on, &r), 0);
		usleep(200000);
		cr_assert_eq(r.result, 1, "recv_wait() returned while down");
		if (round == 0) {
			const int fd = udp_socket(LOCAL, 1000);

			set_up(true);
			udp_send(fd, REMOTE, 2000, "x", 1);
			pthread_join(thread, NULL);
			cr_assert_eq(r.result, 0);
			cr_assert_eq(receive(0), 1);
			close(fd);
		} else {
			tun_device_queue(dev, 0)->ops->stop(tun_device_queue(dev, 0));
			pthread_join(thread, NULL);
			cr_assert_eq(r.result, -ECANCELED);
		}
		cr_assert(r.cpu_ns < 50 * NS_PER_MS, "it span");
		r.result = 1;
	}
	tun_device_close(dev);
}

/* A TCP super-packet of 3000 bytes that a local stack takes in. */
static void make_super(struct tun_frame *frame)
{
	static uint8_t super[5000], payload[3000];
	const struct packet_spec s = {.src = {10, 99, 0, 2}, .dst = {10, 99, 0, 1}, .ttl = 64, .flags = 0x10};

	*frame = (struct tun_frame){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = 40,
		.gso_size = 1000,
		.csum_start = 20,
		.csum_offset = 16,
		.nr_iov = 2,
	};
	frame->len = packet_build(&s, payload, sizeof(payload), true, super);
	frame->iov[1] = (struct iovec){super, frame->len};
}

Test(tun_device, down_interface_costs_no_offload)
{
	struct tun_queue *q;
	struct tun_frame frame;
	unsigned offloads;

	open_configured(1);
	q = tun_device_queue(dev, 0);
	offloads = atomic_load(&q->offloads);
	make_super(&frame);
	set_up(false);
	cr_assert_eq(q->ops->send(q, &frame), -ENETDOWN);
	cr_assert_eq(atomic_load(&q->offloads), offloads);
	set_up(true);
	cr_assert_eq(q->ops->send(q, &frame), 0);
	tun_device_close(dev);
}

/*
 * The kernel's own word on frames that it refuses for their fields, as it would a kind that it does not know.
 */
Test(tun_device, bad_super_packets_cost_the_good_ones_nothing)
{
	struct tun_queue *q;
	struct tun_frame good, bad;
	unsigned offloads;

	open_configured(1);
	q = tun_device_queue(dev, 0);
	offloads = atomic_load(&q->offloads);
	if (!(offloads & TUN_CAN_TSO))
		cr_skip_test("this kernel has no TSO for TUN");
	make_super(&good);
	make_super(&bad);
	bad.gso_size = 0;
	cr_assert_eq(q->ops->send(q, &bad), -EOPNOTSUPP);
	cr_assert_eq(atomic_load(&q->offloads), offloads, "one refusal was believed");
	cr_assert_eq(q->ops->send(q, &good), 0);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(q->ops->send(q, &bad), -EOPNOTSUPP);
	cr_assert_eq(atomic_load(&q->offloads), offloads);
	cr_assert_eq(q->ops->send(q, &good), 0);
	cr_assert_eq(counter_read(&q->written.fallbacks), 21);
	tun_device_close(dev);
}

/* A kernel of our own: what its reads and writes say. */
static struct {
	_Atomic int read_errno; /* of every read */
	_Atomic unsigned reads;
	bool no_tso; /* EINVAL to TCP super-packets */
	unsigned writes;
	uint64_t now_ns;
} k;

static ssize_t fake_read(int fd, void *data, size_t len)
{
	k.reads++;
	if (!k.read_errno)
		return read(fd, data, len);
	errno = k.read_errno;
	return -1;
}

static ssize_t fake_writev(int fd, const struct iovec *iov, int nr)
{
	struct virtio_net_hdr vnet;

	memcpy(&vnet, iov[0].iov_base, sizeof(vnet));
	k.writes++;
	if (!k.no_tso || vnet.gso_type != VIRTIO_NET_HDR_GSO_TCPV4)
		return writev(fd, iov, nr);
	errno = EINVAL;
	return -1;
}

static uint64_t fake_now_ns(void)
{
	return k.now_ns;
}

static const struct tun_device_sys fake = {.read = fake_read, .writev = fake_writev, .now_ns = fake_now_ns};

/* As the writer thread does: in pieces what is refused whole. */
static void deliver(struct tun_queue *q, struct tun_frame *frame)
{
	int err = q->ops->send(q, frame);

	if (err == -EOPNOTSUPP)
		err = tun_frame_split_send(q, frame);
	cr_assert_eq(err, 0, "lost: %s", strerror(-err));
}

Test(tun_device, gives_up_what_the_kernel_never_takes_and_asks_again_in_its_own_time)
{
	const uint64_t period_ns = 10 * NS_PER_SEC;
	struct tun_frame frame;
	struct tun_queue *q;
	uint8_t plain[40];
	unsigned offloads;

	open_configured(1);
	tun_device_replace_sys(dev, &fake);
	q = tun_device_queue(dev, 0);
	offloads = atomic_load(&q->offloads);
	if (!(offloads & TUN_CAN_TSO))
		cr_skip_test("this kernel has no TSO for TUN");
	memset(plain, 0, sizeof(plain));
	memcpy(plain, (const uint8_t[]){0x45, 0, 0, 40}, 4);
	k.no_tso = true;
	k.now_ns = 1;
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(atomic_load(&q->offloads), offloads, "after %u refusals", i);
		make_super(&frame);
		deliver(q, &frame);
		cr_assert_eq(frame.pieces_sent, 3);
	}
	cr_assert_eq(atomic_load(&q->offloads), offloads & ~TUN_CAN_TSO, "the other kind is not touched");

	/* One frame in each period is what it costs where the kernel never will. */
	for (unsigned period = 1; period <= 3; period++) {
		k.now_ns = period * period_ns;
		cr_assert_eq(send_packet(0, plain, sizeof(plain)), 0);
		cr_assert_eq(atomic_load(&q->offloads), offloads & ~TUN_CAN_TSO, "too early");
		k.now_ns = period * period_ns + 1;
		cr_assert_eq(send_packet(0, plain, sizeof(plain)), 0);
		cr_assert_eq(atomic_load(&q->offloads), offloads);
		make_super(&frame);
		deliver(q, &frame);
		cr_assert_eq(atomic_load(&q->offloads), offloads & ~TUN_CAN_TSO);
	}
	cr_assert_eq(counter_read(&q->written.fallbacks), 6);

	/* And where it does after all, that is the end of it. */
	k.no_tso = false;
	k.now_ns += period_ns;
	cr_assert_eq(send_packet(0, plain, sizeof(plain)), 0);
	make_super(&frame);
	k.writes = 0;
	deliver(q, &frame);
	cr_assert_eq(k.writes, 1);
	cr_assert_eq(atomic_load(&q->offloads), offloads);
	tun_device_close(dev);
}

Test(tun_device, icmp_errors_come_from_this_machine)
{
	uint8_t error[1280], got[2000];
	struct tun_queue *q;

	open_configured(2);
	cr_assert_eq(tun_device_icmp(dev), 0);
	/* the way from this machine to itself */
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	const int fd = udp_socket(LOCAL, 1000), icmp = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &up), 0);
	udp_send(fd, REMOTE, 2000, "x", 1);
	cr_assert_eq(receive(0) ? 1 : receive(1), 1);
	const struct train_packet *p = &train.packet[0];
	const unsigned len = inner_unreachable(train.data + p->offset, p->len, error, sizeof(error));
	cr_assert_neq(len, 0);
	q = tun_device_queue(dev, 1);
	cr_assert(q->ops->send_error(q, error, len));
	cr_assert_eq(recv(icmp, got, sizeof(got), MSG_DONTWAIT), len);
	cr_assert_arr_eq(got + IP4_SRC, error + IP4_DST, 4, "the error comes from LOCAL");
	/* What the kernel refuses on this way is not to be tried on another. */
	memset(error + IP4_DST, 99, 4);
	cr_assert(q->ops->send_error(q, error, len));
	close(icmp);
	close(fd);
	tun_device_close(dev);
}

Test(tun_device, survives_read_errors_that_pass, .timeout = 10)
{
	static const int passing[] = {ENOMEM, ENOBUFS, EIO, EINVAL};
	struct tun_queue *q;
	int fd;

	open_configured(1);
	tun_device_replace_sys(dev, &fake);
	q = tun_device_queue(dev, 0);
	fd = udp_socket(LOCAL, 1000);
	for (unsigned i = 0; i < ARRAY_LEN(passing); i++) {
		udp_send(fd, REMOTE, 2000, "x", 1);
		k.read_errno = passing[i];
		cr_assert_eq(receive(0), 0, "%s", strerror(passing[i]));
		cr_assert_eq(counter_read(&q->read.errors), i + 1);
		k.read_errno = 0;
		cr_assert_eq(q->ops->recv_wait(q), 0);
		cr_assert_eq(receive(0), 1, "what waited meanwhile is there");
	}
	close(fd);
	tun_device_close(dev);
}

Test(tun_device, ends_the_reader_when_no_read_can_succeed)
{
	static const int final[] = {EBADFD, EBADF, ENODEV, ENXIO, EFAULT};

	open_configured(1);
	tun_device_replace_sys(dev, &fake);
	for (unsigned i = 0; i < ARRAY_LEN(final); i++) {
		k.read_errno = final[i];
		cr_assert_eq(receive(0), -final[i]);
	}
	cr_assert_eq(counter_read(&tun_device_queue(dev, 0)->read.errors), 0);
	tun_device_close(dev);
}

/* The thread tun-rx, as far as it matters here. */
static void *read_on(void *arg)
{
	struct tun_queue *q = tun_device_queue(dev, 0);
	struct reader *r = arg;
	int nr = 0;

	while (nr >= 0) {
		nr = q->ops->recv_wait(q);
		if (!nr)
			nr = receive(0);
	}
	r->result = nr;
	r->cpu_ns = thread_cpu_ns();
	return NULL;
}

Test(tun_device, reader_sleeps_longer_and_longer_while_reads_fail_and_stops_at_once, .timeout = 10)
{
	struct tun_queue *q;
	struct reader r = {.result = 1};
	struct timespec before, after;
	pthread_t thread;
	unsigned reads;
	int fd;

	open_configured(1);
	tun_device_replace_sys(dev, &fake);
	q = tun_device_queue(dev, 0);
	fd = udp_socket(LOCAL, 1000);
	udp_send(fd, REMOTE, 2000, "x", 1);
	k.read_errno = ENOMEM;
	cr_assert_eq(pthread_create(&thread, NULL, read_on, &r), 0);
	usleep(600000);
	/* after 0, 1, 3, 7, 15, 31, 63, 127 ms and then every 64 ms */
	reads = k.reads;
	cr_assert(reads >= 5 && reads <= 16, "%u reads in 600 ms", reads);
	cr_assert_eq(r.result, 1, "the reader has ended");
	q->ops->stop(q);
	pthread_join(thread, NULL);
	cr_assert_eq(r.result, -ECANCELED);
	cr_assert(r.cpu_ns < 50 * NS_PER_MS, "it span");
	/* Twenty times 64 ms, if each slept first. */
	clock_gettime(CLOCK_MONOTONIC, &before);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(q->ops->recv_wait(q), -ECANCELED);
	clock_gettime(CLOCK_MONOTONIC, &after);
	cr_assert_eq(after.tv_sec - before.tv_sec - (after.tv_nsec < before.tv_nsec), 0, "it slept");
	close(fd);
	tun_device_close(dev);
}

Test(tun_device, deleted_interface_ends_the_reader, .timeout = 10)
{
	struct reader r = {.result = 1};
	uint8_t packet[100] = {0x45, 0, 0, 40};
	pthread_t thread;
	char command[64];

	open_configured(2);
	cr_assert_eq(pthread_create(&thread, NULL, wait_on, &r), 0);
	snprintf(command, sizeof(command), "ip link delete %s", tun_device_name(dev));
	if (system(command))
		cr_skip_test("no ip(8)");
	pthread_join(thread, NULL);
	cr_assert_eq(r.result, -ENODEV);
	cr_assert_eq(receive(0), -EBADFD);
	cr_assert_eq(receive(1), -EBADFD);
	cr_assert_eq(send_packet(0, packet, 40), -EBADFD);
	tun_device_close(dev);
}

/* --- steering --- */

static unsigned queue_of_flow(int fd, uint16_t port)
{
	udp_send(fd, REMOTE, port, "x", 1);
	for (unsigned i = 0; i < tun_device_nr_queues(dev); i++)
		if (receive(i) == 1) {
			cr_assert_eq(load_be16(train.data + train.packet[0].offset + 22), port);
			return i;
		}
	cr_assert_fail("packet came on no queue");
	return 0;
}

Test(tun_device, flow_stays_on_its_queue_wherever_its_replies_are_written)
{
	unsigned nr[4] = {0};
	int fd;

	open_configured(4);
	if (!tun_device_steering(dev))
		cr_skip_test("this process may not load a steering program");
	fd = udp_socket(LOCAL, 1000);
	for (uint16_t port = 2000; port < 2200; port++) {
		const unsigned home = queue_of_flow(fd, port);
		struct packet_spec reply = {.udp = true,
			.src = {10, 99, 0, 2},
			.dst = {10, 99, 0, 1},
			.ttl = 64,
			.sport = port,
			.dport = 1000};
		uint8_t packet[64];
		const uint32_t len = packet_build(&reply, (const uint8_t *)"y", 1, false, packet);

		nr[home]++;
		for (unsigned q = 0; q < 4; q++) {
			cr_assert_eq(send_packet(q, packet, len), 0);
			cr_assert_eq(
				queue_of_flow(fd, port), home, "port %u after a reply on queue %u", port, q);
		}
	}
	for (unsigned q = 0; q < 4; q++)
		cr_assert(nr[q] >= 25, "queue %u has %u of 200 flows", q, nr[q]);
	close(fd);
	tun_device_close(dev);
}

/*
 * What an attacker could find out about one device is worth nothing about the next: flows that all met on one
 * queue are spread over all queues there.
 */
Test(tun_device, flows_aimed_at_one_queue_of_one_device_spread_on_the_next)
{
	unsigned nr[4] = {0}, nr_aimed = 0;
	uint16_t aimed[200];
	int fd;

	open_configured(4);
	if (!tun_device_steering(dev))
		cr_skip_test("this process may not load a steering program");
	fd = udp_socket(LOCAL, 1000);
	for (uint16_t port = 2000; nr_aimed < ARRAY_LEN(aimed); port++) {
		cr_assert_lt(port, 5000, "queue 0 has %u of 3000 flows", nr_aimed);
		if (!queue_of_flow(fd, port))
			aimed[nr_aimed++] = port;
	}
	close(fd);
	tun_device_close(dev);

	cr_assert_eq(tun_device_open(&dev, "sl%d", 4, 0), 0);
	configure();
	fd = udp_socket(LOCAL, 1000);
	for (unsigned i = 0; i < nr_aimed; i++)
		nr[queue_of_flow(fd, aimed[i])]++;
	for (unsigned q = 0; q < 4; q++)
		cr_assert(nr[q] >= 20, "queue %u has %u of 200 flows", q, nr[q]);
	close(fd);
	tun_device_close(dev);
}

/* From linux/ipv6.h, which cannot be included beside netinet/in.h. */
struct in6_ifreq_ {
	struct in6_addr address;
	uint32_t prefix_len;
	int ifindex;
};

static int udp6_socket_configured(void)
{
	struct in6_ifreq_ request = {.prefix_len = 64, .ifindex = tun_device_ifindex(dev)};
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(1000)};
	const int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	if (fd < 0)
		return -1;
	inet_pton(AF_INET6, "fd99::1", &request.address);
	if (ioctl(fd, SIOCSIFADDR, &request)) {
		close(fd);
		return -1;
	}
	a.sin6_addr = request.address;
	/* the kernel declares the address usable in its own time */
	for (unsigned i = 0; i < 300 && bind(fd, (struct sockaddr *)&a, sizeof(a)); i++) {
		cr_assert_eq(errno, EADDRNOTAVAIL);
		usleep(10000);
	}
	return fd;
}

Test(tun_device, ipv6_flows_are_steered_too)
{
	unsigned nr[4] = {0};
	int fd;

	in_new_netns();
	cr_assert_eq(tun_device_open(&dev, "sl%d", 4, 0), 0);
	set_up(true);
	fd = udp6_socket_configured();
	if (fd < 0 || !tun_device_steering(dev))
		cr_skip_test("no IPv6 here, or this process may not load a steering program");
	for (uint16_t round = 0; round < 400; round++) {
		struct sockaddr_in6 to = {
			.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(2000 + round / 2))};
		static int home;
		int found = -1;

		inet_pton(AF_INET6, "fd99::2", &to.sin6_addr);
		cr_assert_eq(
			sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1, "%s", strerror(errno));
		for (int q = 0; q < 4; q++) {
			cr_assert(receive((unsigned)q) >= 0);
			for (unsigned i = 0; i < train.nr; i++) {
				const uint8_t *p = train.data + train.packet[i].offset;

				/* among the kernel's own multicast reports */
				if (p[6] == IPPROTO_UDP && load_be16(p + 42) == ntohs(to.sin6_port))
					found = q;
			}
		}
		cr_assert(found >= 0);
		if (round % 2)
			cr_assert_eq(found, home);
		home = found;
		nr[found]++;
	}
	for (unsigned q = 0; q < 4; q++)
		cr_assert(nr[q] >= 50, "queue %u has %u of 400 packets", q, nr[q]);
	close(fd);
	tun_device_close(dev);
}

Test(tun_device, fragments_of_a_datagram_stay_together)
{
	static char data[4000];
	int fd;

	open_configured(4);
	if (!tun_device_steering(dev))
		cr_skip_test("this process may not load a steering program");
	fd = udp_socket(LOCAL, 1000);
	for (uint16_t port = 2000; port < 2050; port++) {
		unsigned queues = 0, packets = 0;

		udp_send(fd, REMOTE, port, data, sizeof(data));
		for (unsigned i = 0; i < 4; i++) {
			const int n = receive(i);

			packets += (unsigned)n;
			queues += n > 0;
		}
		cr_assert(packets >= 3);
		cr_assert_eq(queues, 1);
	}
	close(fd);
	tun_device_close(dev);
}
