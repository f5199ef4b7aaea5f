#include "udp/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>

#include "ring/number.h"

static int parse_port(const char *text, in_port_t *out) MUST_CHECK;
static int parse_scope(const char *text, uint32_t *out) MUST_CHECK;
static int parse_v6(const char *text, struct sockaddr_in6 *out) MUST_CHECK;

bool endpoint_same_to(const struct endpoint *a, const struct endpoint *b)
{
	if (a->to.sa.sa_family != b->to.sa.sa_family)
		return false;
	switch (a->to.sa.sa_family) {
	case AF_INET:
		return a->to.v4.sin_port == b->to.v4.sin_port &&
		       a->to.v4.sin_addr.s_addr == b->to.v4.sin_addr.s_addr;
	case AF_INET6:
		return a->to.v6.sin6_port == b->to.v6.sin6_port &&
		       a->to.v6.sin6_scope_id == b->to.v6.sin6_scope_id &&
		       !memcmp(&a->to.v6.sin6_addr, &b->to.v6.sin6_addr, sizeof(a->to.v6.sin6_addr));
	default:
		return true;
	}
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	if (!endpoint_same_to(a, b))
		return false;
	switch (a->to.sa.sa_family) {
	case AF_INET:
		return a->from_ifindex == b->from_ifindex && a->from.v4.s_addr == b->from.v4.s_addr;
	case AF_INET6:
		return a->from_ifindex == b->from_ifindex &&
		       !memcmp(&a->from.v6, &b->from.v6, sizeof(a->from.v6));
	default:
		return true;
	}
}

bool endpoint_is_pinned(const struct endpoint *e)
{
	if (e->from_ifindex)
		return true;
	return e->to.sa.sa_family == AF_INET6 ? !IN6_IS_ADDR_UNSPECIFIED(&e->from.v6)
					      : e->from.v4.s_addr != 0;
}

void endpoint_clear_source(struct endpoint *e)
{
	memset(&e->from, 0, sizeof(e->from));
	e->from_ifindex = 0;
	e->arrival_ifindex = 0;
}

const char *endpoint_format(const struct endpoint *e, char *buf)
{
	char address[INET6_ADDRSTRLEN];

	switch (e->to.sa.sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &e->to.v4.sin_addr, address, sizeof(address));
		snprintf(buf, ENDPOINT_STRLEN, "%s:%u", address, ntohs(e->to.v4.sin_port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &e->to.v6.sin6_addr, address, sizeof(address));
		if (e->to.v6.sin6_scope_id)
			snprintf(buf, ENDPOINT_STRLEN, "[%s%%%u]:%u", address, e->to.v6.sin6_scope_id,
				ntohs(e->to.v6.sin6_port));
		else
			snprintf(buf, ENDPOINT_STRLEN, "[%s]:%u", address, ntohs(e->to.v6.sin6_port));
		break;
	default:
		snprintf(buf, ENDPOINT_STRLEN, "(none)");
	}
	return buf;
}

int endpoint_parse(struct endpoint *e, const char *text)
{
	struct endpoint parsed = {0};
	char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
	bool is_v6 = text[0] == '[';
	const char *begin = text + is_v6;
	const char *end = strchr(begin, is_v6 ? ']' : ':');
	const char *port;

	if (!end || (is_v6 && end[1] != ':') || (size_t)(end - begin) >= sizeof(host))
		return -EINVAL;
	memcpy(host, begin, end - begin);
	host[end - begin] = '\0';
	port = end + is_v6 + 1;

	if (is_v6) {
		if (parse_v6(host, &parsed.to.v6) || parse_port(port, &parsed.to.v6.sin6_port))
			return -EINVAL;
	} else {
		parsed.to.v4.sin_family = AF_INET;
		if (inet_pton(AF_INET, host, &parsed.to.v4.sin_addr) != 1 ||
			parse_port(port, &parsed.to.v4.sin_port))
			return -EINVAL;
	}
	*e = parsed;
	return 0;
}

size_t endpoint_cookie_bytes(const struct endpoint *e, uint8_t buf[18])
{
	if (e->to.sa.sa_family == AF_INET6) {
		memcpy(buf, &e->to.v6.sin6_addr, 16);
		memcpy(buf + 16, &e->to.v6.sin6_port, 2);
		return 18;
	}
	memcpy(buf, &e->to.v4.sin_addr, 4);
	memcpy(buf + 4, &e->to.v4.sin_port, 2);
	return 6;
}

/* host, with an optional %scope that is cut off in place before the address is read. */
static int parse_v6(const char *text, struct sockaddr_in6 *out)
{
	char address[INET6_ADDRSTRLEN];
	const char *percent = strchr(text, '%');
	size_t len = percent ? (size_t)(percent - text) : strlen(text);

	if (len >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, len);
	address[len] = '\0';
	if (inet_pton(AF_INET6, address, &out->sin6_addr) != 1)
		return -EINVAL;
	if (percent && parse_scope(percent + 1, &out->sin6_scope_id))
		return -EINVAL;
	out->sin6_family = AF_INET6;
	return 0;
}

static int parse_port(const char *text, in_port_t *out)
{
	uint64_t port;

	if (number_parse(&port, text, strlen(text), 0, UINT16_MAX))
		return -EINVAL;
	*out = htons((uint16_t)port);
	return 0;
}

static int parse_scope(const char *text, uint32_t *out)
{
	uint64_t index;

	if (number_parse(&index, text, strlen(text), 0, INT32_MAX)) {
		index = if_nametoindex(text);
		if (!index)
			return -EINVAL;
	}
	*out = (uint32_t)index;
	return 0;
}
