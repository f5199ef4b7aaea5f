#include "udp/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/in6.h>

/* How often a random port that IPv4 got and IPv6 could not have is given back for another. */
#define BIND_TRIES 100

static int open_pair(struct udp_sockets *s, uint16_t port, uint32_t fwmark) MUST_CHECK;
static int open_one(int family, uint16_t port, uint32_t fwmark, int *out) MUST_CHECK;
static int bound_port(int fd, uint16_t *out) MUST_CHECK;
static int set_int(int fd, int level, int option, int value) MUST_CHECK;
static void set_int_if_known(int fd, int level, int option, int value);
static void grow_buffer(int fd, int option, int force_option, int want);
static bool has_gso(int fd);
static void close_fd(int *fd);

int udp_sockets_open(struct udp_sockets **out, uint16_t port, uint32_t fwmark)
{
	struct udp_sockets *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	for (unsigned tries = 0; tries < BIND_TRIES; tries++) {
		err = open_pair(s, port, fwmark);
		if (err != -EADDRINUSE || port)
			break;
	}
	if (err) {
		free(s);
		return err;
	}

	atomic_init(&s->refs, 1);
	atomic_init(&s->gso4, s->fd4 >= 0 && has_gso(s->fd4));
	atomic_init(&s->gso6, s->fd6 >= 0 && has_gso(s->fd6));
	s->gro4 = s->fd4 >= 0 && !set_int(s->fd4, IPPROTO_UDP, UDP_GRO, 1);
	s->gro6 = s->fd6 >= 0 && !set_int(s->fd6, IPPROTO_UDP, UDP_GRO, 1);
	*out = s;
	return 0;
}

struct udp_sockets *udp_sockets_get(struct udp_sockets *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void udp_sockets_put(struct udp_sockets *s)
{
	/*
	 * Release and acquire: whatever other holders did with the descriptors comes before they are closed.
	 */
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	close_fd(&s->fd4);
	close_fd(&s->fd6);
	free(s);
}

int udp_sockets_set_mark(struct udp_sockets *s, uint32_t old_mark, uint32_t mark)
{
	int err = 0;

	if (s->fd4 >= 0)
		err = set_int(s->fd4, SOL_SOCKET, SO_MARK, (int)mark);
	if (err || s->fd6 < 0)
		return err;
	err = set_int(s->fd6, SOL_SOCKET, SO_MARK, (int)mark);
	if (err && s->fd4 >= 0)
		/* What was just allowed on this socket is allowed again. */
		set_int_if_known(s->fd4, SOL_SOCKET, SO_MARK, (int)old_mark);
	return err;
}

/* This host does not have the family, as opposed to: something is wrong. */
static bool is_family_missing(int err)
{
	return err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL || err == -EPFNOSUPPORT ||
	       err == -EPROTONOSUPPORT;
}

/* IPv4 first, as the kernel driver does; IPv6 gets the port that IPv4 got. */
static int open_pair(struct udp_sockets *s, uint16_t port, uint32_t fwmark)
{
	int err;

	s->fd4 = s->fd6 = -1;
	s->port = port;
	err = open_one(AF_INET, port, fwmark, &s->fd4);
	if (err && !is_family_missing(err))
		return err;
	if (!err) {
		err = bound_port(s->fd4, &s->port);
		if (err)
			goto err_close;
	}

	err = open_one(AF_INET6, s->port, fwmark, &s->fd6);
	if (err && !is_family_missing(err))
		goto err_close;
	if (!err) {
		err = bound_port(s->fd6, &s->port);
		if (err)
			goto err_close;
	}
	return s->fd4 < 0 && s->fd6 < 0 ? -EAFNOSUPPORT : 0;

err_close:
	close_fd(&s->fd4);
	close_fd(&s->fd6);
	return err;
}

static int open_one(int family, uint16_t port, uint32_t fwmark, int *out)
{
	struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	bool v6 = family == AF_INET6;
	int err, fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);

	if (fd < 0)
		return -errno;
	if (v6) {
		err = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
		if (!err)
			err = set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
		if (!err)
			err = set_int(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
		set_int_if_known(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
		/* An automatic label would tell tunnelled flows of one peer from those of another. */
		set_int_if_known(fd, IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0);
	} else {
		err = set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
		if (!err)
			err = set_int(fd, IPPROTO_IP, IP_RECVTOS, 1);
		set_int_if_known(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
	}
	if (!err && fwmark)
		err = set_int(fd, SOL_SOCKET, SO_MARK, (int)fwmark);
	if (err)
		goto err_close;
	grow_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, UDP_SOCKET_RCVBUF_BYTES);
	grow_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, UDP_SOCKET_SNDBUF_BYTES);

	if (bind(fd, v6 ? (struct sockaddr *)&any6 : (struct sockaddr *)&any4,
		    v6 ? sizeof(any6) : sizeof(any4))) {
		err = -errno;
		goto err_close;
	}
	*out = fd;
	return 0;

err_close:
	close(fd);
	return err;
}

static int bound_port(int fd, uint16_t *out)
{
	struct sockaddr_in6 name = {0};
	socklen_t len = sizeof(name);

	if (getsockname(fd, (struct sockaddr *)&name, &len))
		return -errno;
	/* The port lies at the same place in both families. */
	_Static_assert(
		offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port), "port");
	*out = ntohs(name.sin6_port);
	return 0;
}

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

/* For options that a kernel may lack and that traffic does not depend on. */
static void set_int_if_known(int fd, int level, int option, int value)
{
	(void)!set_int(fd, level, option, value);
}

static int get_int(int fd, int option)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? 0 : value;
}

/*
 * Without CAP_NET_ADMIN the plain option silently clips to the host's maximum, which may be below the host's
 * default. So it is tried on a socket that nobody needs, and used only where it is an improvement.
 */
static void grow_buffer(int fd, int option, int force_option, int want)
{
	int now = get_int(fd, option), scratch;

	/* The kernel reports twice what was asked for. */
	if (now >= 2 * want || !set_int(fd, SOL_SOCKET, force_option, want))
		return;
	scratch = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (scratch < 0)
		return;
	set_int_if_known(scratch, SOL_SOCKET, option, want);
	if (get_int(scratch, option) > now)
		set_int_if_known(fd, SOL_SOCKET, option, want);
	close(scratch);
}

/* Setting the option to 0 changes nothing and fails where the kernel does not know it. */
static bool has_gso(int fd)
{
	return !set_int(fd, IPPROTO_UDP, UDP_SEGMENT, 0);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
