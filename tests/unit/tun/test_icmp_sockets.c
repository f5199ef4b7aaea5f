#include "tun/icmp_sockets.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/capability.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "packets.h"
#include "tun/inner.h"

#define MESSAGE_BYTES_MAX 1280

static struct icmp_sockets sockets;

/* Each Criterion test is a process of its own, and here in a network of its own. */
static void in_new_netns(void)
{
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};

	if (geteuid() || unshare(CLONE_NEWNET))
		cr_skip_test("needs root and network namespaces");
	const int fd = socket(AF_INET, SOCK_DGRAM, 0);
	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &up), 0);
	close(fd);
}

/* The error for a packet from that address to somewhere. Returns its length. */
static uint32_t error_to(const char *address, uint8_t out[MESSAGE_BYTES_MAX])
{
	static const uint8_t payload[100] = {1, 2, 3};
	struct packet_spec s;
	uint8_t packet[2000];
	uint64_t state = 7;

	packet_random(&s, &state);
	s.v6 = strchr(address, ':');
	s.udp = true;
	s.extension_len = 0;
	s.dst[0] = 10;
	cr_assert_eq(inet_pton(s.v6 ? AF_INET6 : AF_INET, address, s.src), 1);
	const uint32_t len = packet_build(&s, payload, sizeof(payload), false, packet);
	const uint32_t n = inner_unreachable(packet, len, out, MESSAGE_BYTES_MAX);
	cr_assert(n);
	return n;
}

static int listener(int family)
{
	const int fd =
		socket(family, SOCK_RAW | SOCK_NONBLOCK, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);

	cr_assert(fd >= 0);
	return fd;
}

Test(icmp_sockets, ipv4_errors_leave_with_a_source_of_the_kernels_choice)
{
	uint8_t error[MESSAGE_BYTES_MAX], got[2000];

	in_new_netns();
	cr_assert_eq(icmp_sockets_open(&sockets), 0);
	const uint32_t len = error_to("127.0.0.1", error);
	const int fd = listener(AF_INET);
	cr_assert_eq(icmp_sockets_send(&sockets, error, len, 0), 0);
	cr_assert_eq(recv(fd, got, sizeof(got), 0), len);
	cr_assert_arr_eq(got + IP4_SRC, ((uint8_t[]){127, 0, 0, 1}), 4);
	cr_assert_eq(got[IP4_TOS], 0xc0);
	cr_assert_arr_eq(got + INNER_IPV4_HEADER, error + INNER_IPV4_HEADER, len - INNER_IPV4_HEADER);
	close(fd);
	icmp_sockets_close(&sockets);
}

Test(icmp_sockets, ipv6_errors_get_the_checksum_of_their_new_source)
{
	uint8_t error[MESSAGE_BYTES_MAX], got[2000], check[32] = {0};

	in_new_netns();
	cr_assert_eq(icmp_sockets_open(&sockets), 0);
	if (sockets.v6 < 0)
		cr_skip_test("no IPv6 here");
	const uint32_t len = error_to("::1", error), message = len - INNER_IPV6_HEADER;
	const int fd = listener(AF_INET6);
	const int on = 1;
	char control[100];
	struct iovec iov = {got, sizeof(got)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct sockaddr_in6 from;
	int tclass;
	msg.msg_name = &from;
	msg.msg_namelen = sizeof(from);
	cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof(on)), 0);
	cr_assert_eq(icmp_sockets_send(&sockets, error, len, 0), 0);
	cr_assert_eq(recvmsg(fd, &msg, 0), message);
	cr_assert(IN6_IS_ADDR_LOOPBACK(&from.sin6_addr));
	cr_assert_not_null(CMSG_FIRSTHDR(&msg));
	memcpy(&tclass, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(tclass));
	cr_assert_eq(tclass, 0xc0);
	check[15] = check[31] = 1; /* ::1 to ::1 */
	cr_assert_eq(naive_sum(naive_sum(IPPROTO_ICMPV6 + message, check, 32), got, message), 0xffff);
	cr_assert_arr_eq(got + 4, error + INNER_IPV6_HEADER + 4, message - 4, "all but type and checksum");
	cr_assert_eq(got[0], 1);
	cr_assert_eq(got[1], 3);
	close(fd);
	icmp_sockets_close(&sockets);
}

Test(icmp_sockets, receive_nothing)
{
	static const char *const addresses[] = {"127.0.0.1", "::1"};
	uint8_t error[MESSAGE_BYTES_MAX];

	in_new_netns();
	cr_assert_eq(icmp_sockets_open(&sockets), 0);
	for (unsigned i = 0; i < ARRAY_LEN(addresses); i++) {
		const int fd = i ? sockets.v6 : sockets.v4;

		if (fd < 0)
			continue;
		cr_assert_eq(icmp_sockets_send(&sockets, error, error_to(addresses[i], error), 0), 0);
		cr_assert_lt(recv(fd, error, sizeof(error), MSG_DONTWAIT), 0);
		cr_assert_eq(errno, EAGAIN);
	}
	icmp_sockets_close(&sockets);
}

Test(icmp_sockets, say_what_the_kernel_refuses)
{
	uint8_t error[MESSAGE_BYTES_MAX];
	const struct icmp_sockets none = {.v4 = -1, .v6 = -1};

	in_new_netns();
	cr_assert_eq(icmp_sockets_open(&sockets), 0);
	const uint32_t len = error_to("10.1.2.3", error);
	cr_assert_eq(icmp_sockets_send(&sockets, error, len, 0), -ENETUNREACH);
	cr_assert_eq(icmp_sockets_send(&none, error, len, 0), -EBADF);
	icmp_sockets_close(&sockets);
	cr_assert_eq(icmp_sockets_send(&sockets, error, len, 0), -EBADF);
}

Test(icmp_sockets, none_without_the_right)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct nothing[2] = {0};

	cr_assert_eq(syscall(SYS_capset, &header, nothing), 0);
	cr_assert_eq(icmp_sockets_open(&sockets), -EPERM);
	cr_assert_eq(sockets.v4, -1);
	cr_assert_eq(sockets.v6, -1);
	icmp_sockets_close(&sockets);
}
