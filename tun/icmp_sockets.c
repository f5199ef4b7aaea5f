#include "tun/icmp_sockets.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tun/inner.h"

static int open_socket(int *fd, int family);
static int configure(int fd, int family);

int icmp_sockets_open(struct icmp_sockets *s)
{
	int err;

	*s = (struct icmp_sockets){.v4 = -1, .v6 = -1};
	err = open_socket(&s->v4, AF_INET);
	if (!err)
		err = open_socket(&s->v6, AF_INET6);
	if (err)
		icmp_sockets_close(s);
	return err;
}

void icmp_sockets_close(struct icmp_sockets *s)
{
	if (s->v4 >= 0)
		close(s->v4);
	if (s->v6 >= 0)
		close(s->v6);
	*s = (struct icmp_sockets){.v4 = -1, .v6 = -1};
}

int icmp_sockets_send(const struct icmp_sockets *s, const uint8_t *packet, uint32_t len, unsigned ifindex)
{
	const bool v4 = inner_version(packet) == 4;
	const uint32_t header = v4 ? INNER_IPV4_HEADER : INNER_IPV6_HEADER;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} to;
	ssize_t sent;

	/* IPv6's checksum covers the source, which is not known yet: the kernel makes it anew. */
	if (v4) {
		to.in = (struct sockaddr_in){.sin_family = AF_INET};
		memcpy(&to.in.sin_addr, packet + IP4_DST, 4);
	} else {
		to.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
		memcpy(&to.in6.sin6_addr, packet + IP6_DST, 16);
		if (IN6_IS_ADDR_LINKLOCAL(&to.in6.sin6_addr))
			to.in6.sin6_scope_id = ifindex;
	}
	do
		sent = sendto(v4 ? s->v4 : s->v6, packet + header, len - header, MSG_DONTWAIT, &to.sa,
			v4 ? sizeof(to.in) : sizeof(to.in6));
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/* A family that the kernel does not have needs no socket. */
static int open_socket(int *fd, int family)
{
	*fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (*fd < 0)
		return errno == EAFNOSUPPORT ? 0 : -errno;
	return configure(*fd, family);
}

/* Sends with the precedence of network control; receives nothing, since nobody reads. */
static int configure(int fd, int family)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	const struct sock_fprog filter = {.len = 1, .filter = &nothing};
	const int tos = IPTOS_PREC_INTERNETCONTROL;
	int err = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));

	if (!err)
		err = family == AF_INET ? setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos))
					: setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(tos));
	return err ? -errno : 0;
}
