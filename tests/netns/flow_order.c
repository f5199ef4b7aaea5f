/*
 * Numbered UDP packets of mixed sizes on many flows, checked for order at the far end.
 *
 *	flow_order receive ADDRESS PORT FLOWS SECONDS
 *	flow_order send    ADDRESS PORT FLOWS SECONDS [RATE]
 *	flow_order both    ADDRESS PORT FLOWS SECONDS RATE PEER
 *
 * A flow is one socket; flow n uses port PORT + n at both ends. "both" sends and receives on the same sockets, so that each flow has packets in
 * both directions at once. Every packet starts with its flow and its number in it. RATE is packets per second over all flows, 0 as fast as they go.
 *
 * Prints one line: packets sent, received, out of order (a number below one seen before), duplicate (the number seen last), corrupt. Exit status 0 when none
 * is out of order, duplicate or corrupt and something arrived.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x5e91u
#define BURST_MAX 32

struct header {
	uint32_t magic, flow, number, len;
};

struct flow {
	int fd;
	struct sockaddr_storage to;
	uint32_t next_out, next_in;
};

static uint64_t sent, received, reordered, duplicate, corrupt, lost;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

static socklen_t address(struct sockaddr_storage *out, const char *text, unsigned port)
{
	struct sockaddr_in *v4 = (void *)out;
	struct sockaddr_in6 *v6 = (void *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		return sizeof(*v6);
	}
	fprintf(stderr, "bad address: %s\n", text);
	exit(2);
}

/* xorshift: the same sizes every time, and cheap. */
static uint32_t random32(void)
{
	static uint32_t x = 2463534242u;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

/* Runs of full packets with shorter ones between them, and small ones: what makes batches of several kinds. */
static size_t size_of_packet(void)
{
	uint32_t r = random32();

	switch (r & 7) {
	case 0:
		return sizeof(struct header) + (r >> 8) % 48;
	case 1:
	case 2:
		return 64 + (r >> 8) % 1100;
	default:
		return 1200;
	}
}

static void send_burst(struct flow *f, uint32_t flow)
{
	static uint8_t packet[2048];
	unsigned nr = 1 + random32() % BURST_MAX;

	while (nr--) {
		size_t len = size_of_packet();
		struct header h = {MAGIC, flow, f->next_out, (uint32_t)len};

		memcpy(packet, &h, sizeof(h));
		if (sendto(f->fd, packet, len, 0, (void *)&f->to,
			    f->to.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
							: sizeof(struct sockaddr_in)) < 0) {
			if (errno == ENOBUFS || errno == EAGAIN || errno == ECONNREFUSED)
				return;
			fail("sendto");
		}
		f->next_out++;
		sent++;
	}
}

static void receive_all(struct flow *f, uint32_t flow)
{
	uint8_t packet[2048];
	struct header h;
	ssize_t len;

	while ((len = recv(f->fd, packet, sizeof(packet), MSG_DONTWAIT)) >= 0) {
		if ((size_t)len < sizeof(h)) {
			corrupt++;
			continue;
		}
		memcpy(&h, packet, sizeof(h));
		if (h.magic != MAGIC || h.flow != flow || h.len != (uint32_t)len) {
			corrupt++;
			continue;
		}
		received++;
		if (h.number + 1 == f->next_in) {
			duplicate++;
		} else if (h.number < f->next_in) {
			reordered++;
		} else {
			lost += h.number - f->next_in;
			f->next_in = h.number + 1;
		}
	}
	if (errno != EAGAIN && errno != ECONNREFUSED)
		fail("recv");
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr,
			"usage: flow_order receive|send|both ADDRESS PORT FLOWS SECONDS [RATE] [PEER]\n");
		return 2;
	}
	bool both = strcmp(argv[1], "both") == 0, sending = both || strcmp(argv[1], "send") == 0;
	bool receiving = both || !sending;
	unsigned port = (unsigned)atoi(argv[3]), nr = (unsigned)atoi(argv[4]);
	double seconds = atof(argv[5]), rate = argc > 6 ? atof(argv[6]) : 0;
	struct flow *flows = calloc(nr, sizeof(*flows));
	struct pollfd *polls = calloc(nr, sizeof(*polls));

	if (!flows || !polls || (both && argc < 8))
		fail("arguments");
	for (unsigned i = 0; i < nr; i++) {
		struct sockaddr_storage local;
		socklen_t len = address(&local, sending && !both ? "0.0.0.0" : argv[2], port + i);
		int size = 8 << 20;

		if (sending)
			address(&flows[i].to, both ? argv[7] : argv[2], port + i);
		if (sending && !both && flows[i].to.ss_family == AF_INET6)
			len = address(&local, "::", port + i);
		flows[i].fd = socket(local.ss_family, SOCK_DGRAM, 0);
		if (flows[i].fd < 0)
			fail("socket");
		if (setsockopt(flows[i].fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) &&
			setsockopt(flows[i].fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)))
			fail("SO_RCVBUF");
		if (bind(flows[i].fd, (void *)&local, len))
			fail("bind");
		polls[i].fd = flows[i].fd;
		polls[i].events = POLLIN;
	}
	printf("ready\n");
	fflush(stdout);

	uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), now;
	/* A receiver goes on for a moment, so that what is on its way arrives. */
	while ((now = now_ns()) < end + (receiving ? 500000000u : 0)) {
		bool busy = false;

		if (sending && now < end &&
			(rate == 0 || (double)sent < rate * (double)(now - start) / 1e9)) {
			uint32_t flow = random32() % nr;

			send_burst(&flows[flow], flow);
			busy = true;
		}
		if (receiving && poll(polls, nr, busy ? 0 : 1) > 0) {
			for (unsigned i = 0; i < nr; i++)
				if (polls[i].revents)
					receive_all(&flows[i], i);
		} else if (!receiving && !busy) {
			usleep(200);
		}
	}
	printf("sent=%llu received=%llu reordered=%llu duplicate=%llu corrupt=%llu missing=%llu\n",
		(unsigned long long)sent, (unsigned long long)received, (unsigned long long)reordered,
		(unsigned long long)duplicate, (unsigned long long)corrupt, (unsigned long long)lost);
	return reordered || duplicate || corrupt || (receiving && !received);
}
