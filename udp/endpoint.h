/*
 * Where a peer is reached: destination address and port, and the source address and interface that its packets last came
 * to ("sticky source"), so that replies leave from there. Plain data: copied by value, compared by value.
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "ring/base.h"

#define ENDPOINT_STRLEN 64 /* "[v6%scope]:port" with its zero byte */

struct endpoint {
	union {
		struct sockaddr sa; /* sa_family AF_UNSPEC: no endpoint */
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} to;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	} from;            /* pinned source address; all zero: none */
	int from_ifindex;  /* 0: none */
};

static inline bool endpoint_is_set(const struct endpoint *e)
{
	return e->to.sa.sa_family != AF_UNSPEC;
}

static inline socklen_t endpoint_socklen(const struct endpoint *e)
{
	return e->to.sa.sa_family == AF_INET6 ? sizeof(e->to.v6) : sizeof(e->to.v4);
}

/* Same destination, ignoring the pin. */
bool endpoint_same_to(const struct endpoint *a, const struct endpoint *b);
/* Same destination and same pin. */
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
/* Forget the pinned source. */
void endpoint_clear_source(struct endpoint *e);
/* "1.2.3.4:5", "[::1%3]:5". buf holds ENDPOINT_STRLEN. Returns buf. */
const char *endpoint_format(const struct endpoint *e, char *buf);
/* Parses the two forms above: numeric address only, optional %scope as name or number. -EINVAL. Writes on success only. */
int endpoint_parse(struct endpoint *e, const char *text) MUST_CHECK;
/* The bytes that a cookie authenticates: IP address then big-endian port. Returns 6 or 18. buf holds 18. */
size_t endpoint_cookie_bytes(const struct endpoint *e, uint8_t buf[18]);
