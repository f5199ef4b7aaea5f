#include "udp/socket.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support.h"

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0, "%s", strerror(errno));
	return value;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 name;
	socklen_t len = sizeof(name);

	cr_assert_eq(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	return ntohs(name.sin6_port);
}

Test(socket, binds_both_families_to_one_random_port)
{
	struct udp_sockets *s;

	cr_assert_eq(udp_sockets_open(&s, 0, 0), 0);
	cr_assert_neq(s->port, 0);
	cr_assert_geq(s->fd4, 0);
	cr_assert_geq(s->fd6, 0);
	cr_assert_eq(port_of(s->fd4), s->port);
	cr_assert_eq(port_of(s->fd6), s->port);
	udp_sockets_put(s);
}

Test(socket, sets_every_option)
{
	struct udp_sockets *s;

	cr_assert_eq(udp_sockets_open(&s, 0, 0), 0);
	for (int i = 0; i < 2; i++) {
		int fd = i ? s->fd6 : s->fd4;

		cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
		cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	}
	cr_assert_eq(option(s->fd4, IPPROTO_IP, IP_PKTINFO), 1);
	cr_assert_eq(option(s->fd4, IPPROTO_IP, IP_RECVTOS), 1);
	cr_assert_eq(option(s->fd4, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_DONT);
	cr_assert_eq(option(s->fd4, IPPROTO_IP, IP_RECVERR), 0);
	cr_assert_eq(option(s->fd6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	cr_assert_eq(option(s->fd6, IPPROTO_IPV6, IPV6_RECVPKTINFO), 1);
	cr_assert_eq(option(s->fd6, IPPROTO_IPV6, IPV6_RECVTCLASS), 1);
	cr_assert_eq(option(s->fd6, IPPROTO_IPV6, IPV6_MTU_DISCOVER), IPV6_PMTUDISC_DONT);
	cr_assert_eq(option(s->fd6, IPPROTO_IPV6, 70 /* IPV6_AUTOFLOWLABEL */), 0);
	cr_assert_eq(option(s->fd6, IPPROTO_IPV6, IPV6_RECVERR), 0);
	udp_sockets_put(s);
}

Test(socket, asks_for_large_buffers)
{
	struct udp_sockets *s;

	if (geteuid())
		cr_skip_test("needs root for buffers above the host's maximum");
	cr_assert_eq(udp_sockets_open(&s, 0, 0), 0);
	cr_assert_geq(option(s->fd4, SOL_SOCKET, SO_RCVBUF), 2 * UDP_SOCKET_RCVBUF_BYTES);
	cr_assert_geq(option(s->fd6, SOL_SOCKET, SO_RCVBUF), 2 * UDP_SOCKET_RCVBUF_BYTES);
	cr_assert_geq(option(s->fd4, SOL_SOCKET, SO_SNDBUF), 2 * UDP_SOCKET_SNDBUF_BYTES);
	cr_assert_geq(option(s->fd6, SOL_SOCKET, SO_SNDBUF), 2 * UDP_SOCKET_SNDBUF_BYTES);
	udp_sockets_put(s);
}

Test(socket, never_has_smaller_buffers_than_the_host_gives_without_privilege)
{
	struct udp_sockets *s;
	int plain = socket(AF_INET, SOCK_DGRAM, 0);

	if (!geteuid())
		cr_assert_eq(setresuid(65534, 65534, 65534), 0);
	cr_assert_eq(udp_sockets_open(&s, 0, 0), 0);
	cr_assert_geq(option(s->fd4, SOL_SOCKET, SO_RCVBUF), option(plain, SOL_SOCKET, SO_RCVBUF));
	cr_assert_geq(option(s->fd4, SOL_SOCKET, SO_SNDBUF), option(plain, SOL_SOCKET, SO_SNDBUF));
	udp_sockets_put(s);
	close(plain);
}

Test(socket, refuses_a_port_in_use_and_gets_it_once_free)
{
	struct udp_sockets *a, *b = NULL;
	uint16_t port;

	cr_assert_eq(udp_sockets_open(&a, 0, 0), 0);
	port = a->port;
	cr_assert_eq(udp_sockets_open(&b, port, 0), -EADDRINUSE);
	cr_assert_null(b);
	udp_sockets_put(a);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(udp_sockets_open(&b, port, 0), 0, "round %d", i);
		cr_assert_eq(b->port, port);
		udp_sockets_put(b);
	}
}

Test(socket, leaves_nothing_bound_when_only_ipv6_has_the_port_in_use)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6};
	socklen_t len = sizeof(any);
	struct sockaddr_in any4 = {.sin_family = AF_INET};
	struct udp_sockets *s = NULL;
	int one = 1, blocker = socket(AF_INET6, SOCK_DGRAM, 0), probe = socket(AF_INET, SOCK_DGRAM, 0);

	cr_assert_eq(setsockopt(blocker, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)), 0);
	cr_assert_eq(bind(blocker, (struct sockaddr *)&any, sizeof(any)), 0);
	cr_assert_eq(getsockname(blocker, (struct sockaddr *)&any, &len), 0);
	cr_assert_eq(udp_sockets_open(&s, ntohs(any.sin6_port), 0), -EADDRINUSE);
	cr_assert_null(s);
	any4.sin_port = any.sin6_port;
	cr_assert_eq(bind(probe, (struct sockaddr *)&any4, sizeof(any4)), 0);
	close(blocker);
	close(probe);
}

Test(socket, looks_for_a_random_port_that_both_families_have_free)
{
	static const char range[] = "40000 40003";
	int one = 1, fd;

	own_network(1500);
	fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, range, sizeof(range) - 1) < 0)
		cr_skip_test("cannot narrow the range of random ports: %s", strerror(errno));
	close(fd);
	for (uint16_t port = 40000; port < 40003; port++) {
		struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

		fd = socket(AF_INET6, SOCK_DGRAM, 0);
		cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)), 0);
		cr_assert_eq(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		struct udp_sockets *s;

		cr_assert_eq(udp_sockets_open(&s, 0, 0), 0, "round %u", i);
		cr_assert_eq(s->port, 40003);
		cr_assert_geq(s->fd6, 0);
		udp_sockets_put(s);
	}
}

Test(socket, closes_with_the_last_reference)
{
	struct udp_sockets *s;
	int fd4, fd6;

	cr_assert_eq(udp_sockets_open(&s, 0, 0), 0);
	fd4 = s->fd4;
	fd6 = s->fd6;
	cr_assert_eq(udp_sockets_get(s), s);
	udp_sockets_put(s);
	cr_assert_neq(fcntl(fd4, F_GETFD), -1);
	cr_assert_neq(fcntl(fd6, F_GETFD), -1);
	udp_sockets_put(s);
	cr_assert_eq(fcntl(fd4, F_GETFD), -1);
	cr_assert_eq(fcntl(fd6, F_GETFD), -1);
	udp_sockets_put(NULL);
}

Test(socket, marks_both_sockets)
{
	struct udp_sockets *s;

	if (geteuid())
		cr_skip_test("needs root for a mark");
	cr_assert_eq(udp_sockets_open(&s, 0, 0x1234), 0);
	cr_assert_eq(option(s->fd4, SOL_SOCKET, SO_MARK), 0x1234);
	cr_assert_eq(option(s->fd6, SOL_SOCKET, SO_MARK), 0x1234);
	cr_assert_eq(udp_sockets_set_mark(s, 0x1234, 0xffffffff), 0);
	cr_assert_eq((uint32_t)option(s->fd4, SOL_SOCKET, SO_MARK), 0xffffffff);
	cr_assert_eq((uint32_t)option(s->fd6, SOL_SOCKET, SO_MARK), 0xffffffff);
	udp_sockets_put(s);
}

Test(socket, keeps_the_old_mark_when_one_of_the_two_fails)
{
	struct udp_sockets *s;
	int fd6;

	if (geteuid())
		cr_skip_test("needs root for a mark");
	cr_assert_eq(udp_sockets_open(&s, 0, 7), 0);
	fd6 = s->fd6;
	s->fd6 = 1000; /* not open */
	cr_assert_eq(udp_sockets_set_mark(s, 7, 8), -EBADF);
	cr_assert_eq(option(s->fd4, SOL_SOCKET, SO_MARK), 7);
	s->fd6 = fd6;
	udp_sockets_put(s);
}

Test(socket, reports_missing_privilege_for_a_mark)
{
	struct udp_sockets *s = NULL;

	if (!geteuid())
		cr_assert_eq(setresuid(65534, 65534, 65534), 0);
	cr_assert_eq(udp_sockets_open(&s, 0, 5), -EPERM);
	cr_assert_null(s);
	cr_assert_eq(udp_sockets_open(&s, 0, 0), 0);
	cr_assert_eq(udp_sockets_set_mark(s, 0, 5), -EPERM);
	udp_sockets_put(s);
}
