/*
 * A bare TUN-to-UDP relay: a yardstick for tunnels through user space.
 *
 *	relay IFNAME MTU LISTEN_PORT PEER_IPV4 PEER_PORT [--aead]
 *
 * One thread a direction, no routing, no peers, no handshake, no replay window, no splitting into IP packets: a super-packet read from TUN, with its
 * virtio_net_hdr, is cut into datagrams as long as those of a WireGuard tunnel of the same MTU, leaves with one UDP GSO sendmsg, arrives as one
 * GRO run, and is written to TUN as it was. With --aead each datagram is sealed and opened with ChaCha20-Poly1305 (intel-ipsec-mb, a key
 * that both ends know): what a tunnel cannot do without. A train with a lost or reordered datagram is dropped.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef RELAY_AEAD
#include <intel-ipsec-mb.h>
#endif

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define VNET_BYTES sizeof(struct virtio_net_hdr)
#define TRAIN_BYTES (65536 + VNET_BYTES)
#define HEADER_BYTES 16
#define TAG_BYTES 16
#define SEGMENTS_MAX 45 /* of 1452 bytes in one sendmsg */
#define MESSAGES 8
#define MESSAGE_BYTES 65536

/* Where the bytes of a datagram belong in the train that it is part of. As long as a WireGuard data header. */
struct header {
	uint32_t total, offset;
	uint64_t counter;
};

_Static_assert(sizeof(struct header) == HEADER_BYTES, "as in WireGuard");

static int tun_fd, udp_fd;
static unsigned chunk_bytes; /* of the train in one datagram: the MTU */
static bool with_aead;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

#ifdef RELAY_AEAD
static IMB_MGR *aead_new(void)
{
	IMB_MGR *m = alloc_mb_mgr(0);

	if (!m)
		fail("alloc_mb_mgr");
	init_mb_mgr_auto(m, NULL);
	return m;
}

static void aead_run(
	IMB_MGR *m, bool seal, uint64_t counter, uint8_t *dst, const uint8_t *src, size_t len, uint8_t *tag)
{
	static const uint8_t key[32] = {7};
	uint8_t nonce[12] = {0};
	IMB_JOB *job = IMB_GET_NEXT_JOB(m);

	memcpy(nonce + 4, &counter, sizeof(counter));
	job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
	job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
	job->cipher_direction = seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
	job->chain_order = seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
	job->enc_keys = key;
	job->dec_keys = key;
	job->key_len_in_bytes = sizeof(key);
	job->src = src;
	job->dst = dst;
	job->cipher_start_src_offset_in_bytes = 0;
	job->hash_start_src_offset_in_bytes = 0;
	job->msg_len_to_cipher_in_bytes = len;
	job->msg_len_to_hash_in_bytes = len;
	job->iv = nonce;
	job->iv_len_in_bytes = sizeof(nonce);
	job->auth_tag_output = tag;
	job->auth_tag_output_len_in_bytes = TAG_BYTES;
	job->u.CHACHA20_POLY1305.aad = NULL;
	job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
	job = IMB_SUBMIT_JOB_NOCHECK(m);
	if (!job || job->status != IMB_STATUS_COMPLETED)
		fail("cipher");
}
#endif

static void send_run(const struct iovec *iov, unsigned nr_iov, unsigned segment_bytes)
{
	union {
		char buf[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = (struct iovec *)iov,
		.msg_iovlen = nr_iov,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	uint16_t segment = (uint16_t)segment_bytes;

	memset(&control, 0, sizeof(control));
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(c), &segment, sizeof(segment));
	if (sendmsg(udp_fd, &msg, 0) < 0 && errno != ECONNREFUSED && errno != ENOBUFS && errno != EAGAIN)
		fail("sendmsg");
}

static void *egress(void *unused)
{
	static uint8_t train[TRAIN_BYTES], sealed[SEGMENTS_MAX * 2048];
	static struct header headers[SEGMENTS_MAX];
	static struct iovec iov[SEGMENTS_MAX * 2];
	uint64_t counter = 0;
	ssize_t total;
#ifdef RELAY_AEAD
	IMB_MGR *mgr = aead_new();
#endif

	pthread_setname_np(pthread_self(), "egress");
	while ((total = read(tun_fd, train, sizeof(train))) > 0) {
		for (size_t offset = 0; offset < (size_t)total;) {
			unsigned nr = 0;
			uint8_t *out = sealed;

			for (; nr < SEGMENTS_MAX && offset < (size_t)total; nr++) {
				size_t left = (size_t)total - offset,
				       len = left < chunk_bytes ? left : chunk_bytes;

				headers[nr] = (struct header){(uint32_t)total, (uint32_t)offset, counter++};
				if (with_aead) {
					memcpy(out, &headers[nr], HEADER_BYTES);
#ifdef RELAY_AEAD
					aead_run(mgr, true, headers[nr].counter, out + HEADER_BYTES,
						train + offset, len, out + HEADER_BYTES + len);
#endif
					out += HEADER_BYTES + len + TAG_BYTES;
				} else {
					iov[2 * nr] = (struct iovec){&headers[nr], HEADER_BYTES};
					iov[2 * nr + 1] = (struct iovec){train + offset, len};
				}
				offset += len;
			}
			if (with_aead)
				send_run(&(struct iovec){sealed, (size_t)(out - sealed)}, 1,
					HEADER_BYTES + chunk_bytes + TAG_BYTES);
			else
				send_run(iov, 2 * nr, HEADER_BYTES + chunk_bytes);
		}
	}
	fail("read from TUN");
	return unused;
}

/* The train being put together. Pieces are where they were received until the next receive, then in own[]. */
struct assembly {
	uint32_t filled, total;
	unsigned nr;
	struct iovec piece[128];
	uint8_t own[TRAIN_BYTES];
};

static void write_train(struct assembly *a)
{
	if (writev(tun_fd, a->piece, (int)a->nr) < 0 && errno != EINVAL && errno != EIO && errno != ENOBUFS)
		fail("write to TUN");
	a->filled = 0;
}

static void add_datagram(struct assembly *a, uint8_t *data, size_t len, void *mgr)
{
	struct header h;

	if (len <= HEADER_BYTES + (with_aead ? TAG_BYTES : 0))
		return;
	memcpy(&h, data, sizeof(h));
	len -= HEADER_BYTES + (with_aead ? TAG_BYTES : 0);
	data += HEADER_BYTES;
	if (h.total > TRAIN_BYTES || len > h.total || h.offset > h.total - len)
		return;
	if (h.offset == 0) {
		a->filled = 0;
		a->total = h.total;
	} else if (a->filled == 0 || h.offset != a->filled || h.total != a->total) {
		a->filled = 0;
		return;
	}
	if (a->filled == 0)
		a->nr = 0;
	if (with_aead) {
#ifdef RELAY_AEAD
		uint8_t tag[TAG_BYTES];

		aead_run(mgr, false, h.counter, a->own + h.offset, data, len, tag);
		if (memcmp(tag, data + len, TAG_BYTES) != 0) {
			a->filled = 0;
			return;
		}
#else
		(void)mgr;
#endif
		a->nr = 1;
		a->piece[0] = (struct iovec){a->own, h.offset + len};
	} else {
		if (a->nr == sizeof(a->piece) / sizeof(a->piece[0]))
			return;
		a->piece[a->nr++] = (struct iovec){data, len};
	}
	a->filled = h.offset + (uint32_t)len;
	if (a->filled == a->total)
		write_train(a);
}

/* Before the receive buffers are used again. */
static void keep_pieces(struct assembly *a)
{
	size_t at = 0;

	if (a->filled == 0 || with_aead)
		return;
	for (unsigned i = 0; i < a->nr; i++) {
		if (a->piece[i].iov_base != a->own + at)
			memcpy(a->own + at, a->piece[i].iov_base, a->piece[i].iov_len);
		at += a->piece[i].iov_len;
	}
	a->piece[0] = (struct iovec){a->own, at};
	a->nr = 1;
}

static void *ingress(void *unused)
{
	static uint8_t data[MESSAGES][MESSAGE_BYTES];
	static struct assembly assembly;
	struct mmsghdr msgs[MESSAGES];
	struct iovec iov[MESSAGES];
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control[MESSAGES];
	void *mgr = NULL;
#ifdef RELAY_AEAD
	mgr = aead_new();
#endif

	pthread_setname_np(pthread_self(), "ingress");
	for (;;) {
		int nr;

		keep_pieces(&assembly);
		for (unsigned i = 0; i < MESSAGES; i++) {
			iov[i] = (struct iovec){data[i], MESSAGE_BYTES};
			msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i],
				.msg_iovlen = 1,
				.msg_control = &control[i],
				.msg_controllen = sizeof(control[i])};
		}
		nr = recvmmsg(udp_fd, msgs, MESSAGES, MSG_WAITFORONE, NULL);
		if (nr < 0) {
			if (errno == ECONNREFUSED || errno == EINTR)
				continue;
			fail("recvmmsg");
		}
		for (int i = 0; i < nr; i++) {
			struct cmsghdr *c = CMSG_FIRSTHDR(&msgs[i].msg_hdr);
			int segment = 0;

			if (c && c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO)
				memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			if (segment <= 0)
				segment = (int)msgs[i].msg_len;
			for (size_t at = 0; at < msgs[i].msg_len; at += (size_t)segment) {
				size_t left = msgs[i].msg_len - at;

				add_datagram(&assembly, data[i] + at,
					left < (size_t)segment ? left : (size_t)segment, mgr);
			}
		}
	}
	return unused;
}

static void open_tun(const char *name)
{
	struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	unsigned offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	int s;

	tun_fd = open("/dev/net/tun", O_RDWR);
	if (tun_fd < 0)
		fail("/dev/net/tun");
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(tun_fd, TUNSETIFF, &r))
		fail("TUNSETIFF");
	if (ioctl(tun_fd, TUNSETOFFLOAD, offload | TUN_F_USO4 | TUN_F_USO6) &&
		ioctl(tun_fd, TUNSETOFFLOAD, offload))
		fail("TUNSETOFFLOAD");
	s = socket(AF_INET, SOCK_DGRAM, 0);
	r.ifr_qlen = 1000;
	if (s < 0 || ioctl(s, SIOCSIFTXQLEN, &r))
		fail("SIOCSIFTXQLEN");
	close(s);
}

static void open_udp(const char *port, const char *peer, const char *peer_port)
{
	struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(peer_port))};
	int on = 1, receive = 16 << 20, send = 2 << 20;

	if (inet_pton(AF_INET, peer, &to.sin_addr) != 1)
		fail("address");
	udp_fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (udp_fd < 0 || bind(udp_fd, (struct sockaddr *)&local, sizeof(local)) ||
		connect(udp_fd, (struct sockaddr *)&to, sizeof(to)))
		fail("socket");
	if (setsockopt(udp_fd, SOL_UDP, UDP_GRO, &on, sizeof(on)))
		fail("UDP_GRO");
	if (setsockopt(udp_fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof(receive)) ||
		setsockopt(udp_fd, SOL_SOCKET, SO_SNDBUFFORCE, &send, sizeof(send)))
		perror("socket buffers");
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc < 6) {
		fprintf(stderr, "usage: relay IFNAME MTU LISTEN_PORT PEER_IPV4 PEER_PORT [--aead]\n");
		return 2;
	}
	with_aead = argc > 6 && strcmp(argv[6], "--aead") == 0;
#ifndef RELAY_AEAD
	if (with_aead) {
		fprintf(stderr, "relay: built without intel-ipsec-mb\n");
		return 2;
	}
#endif
	chunk_bytes = (unsigned)atoi(argv[2]);
	open_tun(argv[1]);
	open_udp(argv[3], argv[4], argv[5]);
	if (pthread_create(&thread, NULL, ingress, NULL))
		fail("thread");
	egress(NULL);
	return 0;
}
