/*
 * UDP load for perf/compare: small packets at a given rate, their arrival and their latency.
 *
 *	udp_load sink ADDRESS PORT SECONDS [gro]
 *	udp_load send ADDRESS PORT BYTES PACKETS_PER_SECOND SECONDS FLOWS [BURST]
 *	udp_load pong ADDRESS PORT SECONDS
 *	udp_load ping ADDRESS PORT BYTES INTERVAL_US SECONDS
 *
 * BYTES is the UDP payload. A rate of 0 sends as fast as it goes. Each packet carries its sending time (CLOCK_MONOTONIC, so both ends must be on
 * one machine). sink measures one-way latency, ping the round trip; the outcome is one line of JSON. sink starts to count with
 * the first packet and ends SECONDS after it began, or after half a second of silence.
 *
 * With a BURST of more than one, send hands the kernel that many packets at once (UDP_SEGMENT), a fraction of the cost of one after the other. With
 * gro, sink takes runs of packets at once where they come as such (UDP_GRO). Both count, number and time every packet as otherwise.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define BYTES_MAX 65507
#define FLOWS_MAX 256

struct stamp {
	uint64_t ns;
	uint32_t number, flow;
};

/* Latency: 16 steps to each power of two of nanoseconds, so about 6% apart. */
struct histogram {
	uint64_t count[64 * 16], total;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned bucket(uint64_t ns)
{
	unsigned log = 63 - (unsigned)__builtin_clzll(ns | 16);

	return log * 16 + (unsigned)((ns >> (log - 4)) & 15);
}

static void histogram_add(struct histogram *h, uint64_t ns)
{
	h->count[bucket(ns)]++;
	h->total++;
}

static double histogram_us(const struct histogram *h, double part)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < 64 * 16; i++) {
		seen += h->count[i];
		if (h->total && (double)seen >= part * (double)h->total)
			return (double)(16 + i % 16) * (double)(1ull << (i / 16)) / 16 / 1000;
	}
	return 0;
}

static socklen_t address(struct sockaddr_storage *out, const char *text, const char *port)
{
	struct sockaddr_in *v4 = (void *)out;
	struct sockaddr_in6 *v6 = (void *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(port));
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)atoi(port));
		return sizeof(*v6);
	}
	fprintf(stderr, "bad address: %s\n", text);
	exit(2);
}

static int udp_socket(const char *text, const char *port, bool is_server)
{
	struct sockaddr_storage a;
	socklen_t len = address(&a, text, port);
	int fd = socket(a.ss_family, SOCK_DGRAM, 0), size = 16 << 20;
	struct timeval wait = {.tv_usec = 500000};

	if (fd < 0)
		fail("socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) &&
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)))
		fail("SO_RCVBUF");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)))
		fail("SO_RCVTIMEO");
	if (is_server ? bind(fd, (void *)&a, len) : connect(fd, (void *)&a, len))
		fail(text);
	return fd;
}

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* The length of each of the packets (the last may be shorter) that came as one message of len bytes. */
static size_t packet_len(struct msghdr *m, size_t len)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		int size;

		memcpy(&size, CMSG_DATA(c), sizeof(size));
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO && size > 0)
			return (size_t)size;
	}
	return len ? len : 1;
}

static void sink(char **argv)
{
	static uint8_t data[BATCH][BYTES_MAX];
	static struct histogram h;
	static uint32_t next[FLOWS_MAX];
	struct mmsghdr msgs[BATCH];
	struct iovec iov[BATCH];
	union control control[BATCH];
	uint64_t received = 0, bytes = 0, reordered = 0, first = 0, last = 0, end;
	int fd = udp_socket(argv[2], argv[3], true), on = 1;

	if (argv[5] && setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)))
		fail("UDP_GRO");
	for (unsigned i = 0; i < BATCH; i++)
		iov[i] = (struct iovec){data[i], sizeof(data[i])};
	printf("ready\n");
	fflush(stdout);
	end = now_ns() + (uint64_t)(atof(argv[4]) * 1e9);
	while (now_ns() < end) {
		for (unsigned i = 0; i < BATCH; i++)
			msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i],
				.msg_iovlen = 1,
				.msg_control = &control[i],
				.msg_controllen = sizeof(control[i])};

		int nr = recvmmsg(fd, msgs, BATCH, MSG_WAITFORONE, NULL);
		uint64_t now = now_ns();

		if (nr < 0 && errno != EAGAIN && errno != EINTR)
			fail("recvmmsg");
		if (nr <= 0 && received)
			break;
		for (int i = 0; i < nr; i++) {
			size_t len = msgs[i].msg_len, step = packet_len(&msgs[i].msg_hdr, len);
			struct stamp s;

			for (size_t at = 0; at + sizeof(s) <= len; at += step) {
				memcpy(&s, data[i] + at, sizeof(s));
				histogram_add(&h, now - s.ns);
				if (s.flow < FLOWS_MAX) {
					reordered += s.number < next[s.flow];
					if (s.number >= next[s.flow])
						next[s.flow] = s.number + 1;
				}
				bytes += len - at < step ? len - at : step;
				received++;
			}
		}
		if (nr > 0) {
			first = first ? first : now;
			last = now;
		}
	}
	double seconds = last > first ? (double)(last - first) / 1e9 : 1;

	printf("{\"received\": %llu, \"pps\": %.0f, \"mbit_s\": %.2f, \"reordered\": %llu, \"p50_us\": %.1f, "
	       "\"p99_us\": %.1f}\n",
		(unsigned long long)received, (double)received / seconds, (double)bytes * 8 / seconds / 1e6,
		(unsigned long long)reordered, histogram_us(&h, 0.5), histogram_us(&h, 0.99));
}

static void sender(char **argv)
{
	static uint8_t data[BATCH][BYTES_MAX];
	struct mmsghdr msgs[BATCH];
	struct iovec iov[BATCH];
	size_t len = (size_t)atoi(argv[4]);
	double rate = atof(argv[5]), seconds = atof(argv[6]);
	unsigned flows = (unsigned)atoi(argv[7]), burst = argv[8] ? (unsigned)atoi(argv[8]) : 1, batch;
	int fd[FLOWS_MAX], segment = (int)len;
	uint32_t number[FLOWS_MAX] = {0};
	uint64_t sent = 0, refused = 0;

	if (len < sizeof(struct stamp) || len > BYTES_MAX || flows < 1 || flows > FLOWS_MAX) {
		fprintf(stderr, "udp_load: %zu to %d bytes, 1 to %d flows\n", sizeof(struct stamp), BYTES_MAX,
			FLOWS_MAX);
		exit(2);
	}
	if (burst < 1 || burst > BATCH || burst * len > BYTES_MAX) {
		fprintf(stderr, "udp_load: a burst of 1 to %d packets and at most %d bytes\n", BATCH,
			BYTES_MAX);
		exit(2);
	}
	for (unsigned i = 0; i < flows; i++) {
		fd[i] = udp_socket(argv[2], argv[3], false);
		if (burst > 1 && setsockopt(fd[i], SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
			fail("UDP_SEGMENT");
	}
	batch = BATCH / burst;
	for (unsigned i = 0; i < batch; i++) {
		iov[i] = (struct iovec){data[i], burst * len};
		msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}

	uint64_t start = now_ns(), now;
	unsigned flow = 0;

	while ((now = now_ns()) < start + (uint64_t)(seconds * 1e9)) {
		/* What is due by now, in messages, at most a batch; a late sender does not catch up with more than that at once. */
		double due = rate > 0
				     ? (rate * (double)(now - start) / 1e9 - (double)(sent + refused)) / burst
				     : batch;
		int want = due >= batch ? (int)batch : (int)due, done;

		if (want < 1) {
			usleep(50);
			continue;
		}
		for (unsigned i = 0; i < (unsigned)want * burst; i++) {
			struct stamp s = {now, number[flow] + i, flow};

			memcpy(data[i / burst] + i % burst * len, &s, sizeof(s));
		}
		done = sendmmsg(fd[flow], msgs, (unsigned)want, 0);
		if (done < 0 && errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED)
			fail(burst > 1 ? "sendmmsg with UDP_SEGMENT" : "sendmmsg");
		if (done < 0)
			done = 0;
		number[flow] += (uint32_t)done * burst;
		sent += (uint64_t)done * burst;
		refused += (uint64_t)(want - done) * burst;
		flow = (flow + 1) % flows;
	}
	printf("{\"sent\": %llu, \"refused\": %llu, \"pps\": %.0f}\n", (unsigned long long)sent,
		(unsigned long long)refused, (double)sent / ((double)(now - start) / 1e9));
}

static void pong(char **argv)
{
	static uint8_t data[BYTES_MAX];
	int fd = udp_socket(argv[2], argv[3], true);
	uint64_t end = now_ns() + (uint64_t)(atof(argv[4]) * 1e9);

	printf("ready\n");
	fflush(stdout);
	while (now_ns() < end) {
		struct sockaddr_storage from;
		socklen_t from_len = sizeof(from);
		ssize_t len = recvfrom(fd, data, sizeof(data), 0, (void *)&from, &from_len);

		if (len >= 0)
			(void)sendto(fd, data, (size_t)len, 0, (void *)&from, from_len);
	}
}

static void ping(char **argv)
{
	static uint8_t data[BYTES_MAX];
	static struct histogram h;
	int fd = udp_socket(argv[2], argv[3], false);
	size_t len = (size_t)atoi(argv[4]);
	unsigned interval_us = (unsigned)atoi(argv[5]);
	uint64_t end = now_ns() + (uint64_t)(atof(argv[6]) * 1e9), lost = 0;

	for (uint32_t number = 0; now_ns() < end; number++) {
		struct stamp s = {now_ns(), number, 0}, back = {0};

		memcpy(data, &s, sizeof(s));
		if (send(fd, data, len, 0) < 0 && errno != ENOBUFS && errno != ECONNREFUSED)
			fail("send");
		/* Late answers to earlier ones are passed over. */
		do {
			if (recv(fd, data, sizeof(data), 0) < (ssize_t)sizeof(back))
				break;
			memcpy(&back, data, sizeof(back));
		} while (back.number != number);
		if (back.ns == s.ns)
			histogram_add(&h, now_ns() - s.ns);
		else
			lost++;
		if (interval_us)
			usleep(interval_us);
	}
	printf("{\"replies\": %llu, \"lost\": %llu, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f}\n",
		(unsigned long long)h.total, (unsigned long long)lost, histogram_us(&h, 0.5),
		histogram_us(&h, 0.9), histogram_us(&h, 0.99));
}

int main(int argc, char **argv)
{
	if ((argc == 5 || (argc == 6 && strcmp(argv[5], "gro") == 0)) && strcmp(argv[1], "sink") == 0)
		sink(argv);
	else if ((argc == 8 || argc == 9) && strcmp(argv[1], "send") == 0)
		sender(argv);
	else if (argc == 5 && strcmp(argv[1], "pong") == 0)
		pong(argv);
	else if (argc == 7 && strcmp(argv[1], "ping") == 0)
		ping(argv);
	else {
		fprintf(stderr, "usage: see the head of udp_load.c\n");
		return 2;
	}
	return 0;
}
