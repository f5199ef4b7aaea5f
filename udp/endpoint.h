/*
 * Where a peer is reached: destination address and port, and the source address (and link) that its
 * packets last came to ("sticky source"), so that replies leave from there. Plain data: copied by value,
 * compared by value.
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "ring/base.h"

#define ENDPOINT_STRLEN 72 /* "[v6%scope]:port" with its zero byte */

struct endpoint {
	union {
		struct sockaddr sa; /* sa_family AF_UNSPEC: no endpoint */
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} to;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	} from; /* pinned source address; all zero: none */
	/*
	 * 0: none. Receiving sets it only for a link-local source, which means nothing without its link. For
	 * any other, the address alone is pinned: forcing the interface as well would bypass the routing
	 * table, and a route that moved would turn into a black hole.
	 */
	int from_ifindex;
	/*
	 * The interface that packets last came in on, 0: not known. Nothing is sent by it: whoever follows the
	 * routing table compares it to the interface by which the route leaves (core/control/routes.h).
	 */
	int arrival_ifindex;
};

static inline bool endpoint_is_set(const struct endpoint *e)
{
	return e->to.sa.sa_family != AF_UNSPEC;
}

static inline socklen_t endpoint_socklen(const struct endpoint *e)
{
	return e->to.sa.sa_family == AF_INET6 ? sizeof(e->to.v6) : sizeof(e->to.v4);
}

/*
 * Destination address and port, folded: equal for equal endpoints, and mostly different for others. The
 * upper bits are the better mixed.
 */
static inline uint32_t endpoint_tag(const struct endpoint *endpoint)
{
	uint64_t tag;

	if (endpoint->to.sa.sa_family == AF_INET6)
		tag = load_le64(&endpoint->to.v6.sin6_addr.s6_addr[8]) ^
		      load_le64(&endpoint->to.v6.sin6_addr) ^ ((uint64_t)endpoint->to.v6.sin6_port << 48);
	else
		tag = (uint64_t)endpoint->to.v4.sin_addr.s_addr << 16 ^ endpoint->to.v4.sin_port;
	return (uint32_t)(tag * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* Same destination, ignoring the pin. */
bool endpoint_same_to(const struct endpoint *a, const struct endpoint *b);
/* Same destination and same pin: what is sent to the one and to the other leaves alike. */
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
/* Equal, and packets came in on the same interface. */
static inline bool endpoint_same_arrival(const struct endpoint *a, const struct endpoint *b)
{
	return a->arrival_ifindex == b->arrival_ifindex && endpoint_equal(a, b);
}
/* Is there a source address or interface to send from? */
bool endpoint_is_pinned(const struct endpoint *e);
/* Forget the pinned source, and where packets came in. */
void endpoint_clear_source(struct endpoint *e);
/* "1.2.3.4:5", "[::1]:5", "[fe80::1%3]:5", "(none)" when not set. buf holds ENDPOINT_STRLEN. Returns buf. */
const char *endpoint_format(const struct endpoint *e, char *buf);
/*
 * Parses the address forms above: numeric address only, optional %scope as name or number. -EINVAL. Writes on
 * success only. As in the kernel driver, port 0 is accepted (nothing can be sent there: counted as
 * unreachable) and a v4-mapped IPv6 address stays IPv6 (its packets have no route from an IPv6-only socket).
 */
int endpoint_parse(struct endpoint *e, const char *text) MUST_CHECK;
/* The bytes that a cookie authenticates: IP address then big-endian port. Returns 6 or 18. buf holds 18. */
size_t endpoint_cookie_bytes(const struct endpoint *e, uint8_t buf[18]);
