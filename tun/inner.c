#include "tun/inner.h"

#include <errno.h>
#include <netinet/in.h>

#include "tun/checksum.h"

#define ICMP_TYPE 0
#define ICMP_CODE 1
#define ICMP_CHECK 2
#define ICMP4_HEADER 8
#define ICMP4_UNREACHABLE 3
#define ICMP4_HOST_UNREACHABLE 1
#define ICMP4_BYTES_MAX 576
#define ICMP6_HEADER 8
#define ICMP6_UNREACHABLE 1
#define ICMP6_ADDRESS_UNREACHABLE 3
#define ICMP6_BYTES_MAX 1280
#define ICMP6_REDIRECT 137
#define TOS_NETWORK_CONTROL 0xc0
#define TTL 64

static int transport4(const uint8_t *packet, struct inner_transport *t);
static int transport6(const uint8_t *packet, uint32_t ip_len, struct inner_transport *t);
static bool may_answer(const uint8_t *packet, uint32_t ip_len);
static bool is_icmp_error(unsigned version, uint8_t type);
static bool answerable4(const uint8_t *packet);
static bool answerable6(const uint8_t *packet);
static unsigned unreachable4(const uint8_t *packet, uint32_t ip_len, uint8_t *out, size_t out_size);
static unsigned unreachable6(const uint8_t *packet, uint32_t ip_len, uint8_t *out, size_t out_size);

int inner_check(const uint8_t *packet, uint32_t len, uint32_t *ip_len)
{
	uint32_t header, total;

	if (len < INNER_IPV4_HEADER)
		return -EINVAL;
	switch (packet[0] >> 4) {
	case 4:
		header = (packet[0] & 15) * 4u;
		total = load_be16(packet + IP4_TOTAL_LEN);
		if (header < INNER_IPV4_HEADER)
			return -EINVAL;
		break;
	case 6:
		header = INNER_IPV6_HEADER;
		if (len < header)
			return -EINVAL;
		total = header + load_be16(packet + IP6_PAYLOAD_LEN);
		break;
	default:
		return -EINVAL;
	}
	if (total < header || total > len)
		return -EINVAL;
	*ip_len = total;
	return 0;
}

void inner_set_ecn(uint8_t *packet, uint8_t ecn)
{
	const uint16_t before = load_be16(packet);
	uint64_t sum;
	uint16_t after;

	if (inner_version(packet) == 6) {
		store_be16(packet, (uint16_t)((before & ~0x0030u) | (unsigned)ecn << 4));
		return;
	}
	after = (uint16_t)((before & ~3u) | ecn);
	if (after == before)
		return;
	store_be16(packet, after);
	/* HC' = ~(~HC + ~m + m'), equation 3 */
	sum = checksum_add_be16(0, (uint16_t)~load_be16(packet + IP4_CHECK));
	sum = checksum_add_be16(sum, (uint16_t)~before);
	checksum_store(packet + IP4_CHECK, checksum_add_be16(sum, after));
}

int inner_ecn_decapsulate(uint8_t *packet, uint8_t outer_ecn)
{
	const uint8_t inner = inner_ecn(packet);

	if (inner == ECN_NOT_ECT)
		return outer_ecn == ECN_CE ? -EBADMSG : 0;
	/* Any tunnel may raise ECT(0) to ECT(1) and both to CE; nothing is ever lowered. */
	if (outer_ecn == ECN_CE || (outer_ecn == ECN_ECT1 && inner == ECN_ECT0))
		inner_set_ecn(packet, outer_ecn);
	return 0;
}

int inner_transport(const uint8_t *packet, uint32_t ip_len, struct inner_transport *t)
{
	return inner_version(packet) == 4 ? transport4(packet, t) : transport6(packet, ip_len, t);
}

static int transport4(const uint8_t *packet, struct inner_transport *t)
{
	const uint16_t fragment = load_be16(packet + IP4_FRAGMENT);

	t->proto = packet[IP4_PROTO];
	t->fragment = fragment & IP4_IS_FRAGMENT;
	t->later_fragment = fragment & IP4_FRAGMENT_OFFSET;
	t->offset = (packet[0] & 15) * 4u;
	return 0;
}

static int transport6(const uint8_t *packet, uint32_t ip_len, struct inner_transport *t)
{
	struct inner_transport at = {.proto = packet[IP6_NEXT_HEADER], .offset = INNER_IPV6_HEADER};

	while (!at.later_fragment) {
		uint32_t bytes;

		switch (at.proto) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		default:
			goto out;
		}
		if (ip_len - at.offset < 8)
			return -EINVAL;
		bytes = (packet[at.offset + 1] + 1u) * 8;
		if (at.proto == IPPROTO_FRAGMENT) {
			bytes = 8;
			at.fragment = true;
			at.later_fragment = load_be16(packet + at.offset + 2) & 0xfff8;
		} else if (at.proto == IPPROTO_AH) {
			bytes = (packet[at.offset + 1] + 2u) * 4;
		}
		if (ip_len - at.offset < bytes)
			return -EINVAL;
		at.proto = packet[at.offset];
		at.offset += bytes;
	}
out:
	*t = at;
	return 0;
}

uint64_t inner_pseudo_sum(const uint8_t *packet, uint8_t proto)
{
	const uint64_t sum = checksum_add_be16(0, proto);

	return inner_version(packet) == 4 ? checksum_add_words(sum, packet + IP4_SRC, 2 * 4)
					  : checksum_add_words(sum, packet + IP6_SRC, 2 * 16);
}

unsigned inner_unreachable(const uint8_t *packet, uint32_t len, uint8_t *out, size_t out_size)
{
	uint32_t ip_len;

	if (inner_check(packet, len, &ip_len) || !may_answer(packet, ip_len))
		return 0;
	return inner_version(packet) == 4 ? unreachable4(packet, ip_len, out, out_size)
					  : unreachable6(packet, ip_len, out, out_size);
}

/* RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e). */
static bool may_answer(const uint8_t *packet, uint32_t ip_len)
{
	const unsigned version = inner_version(packet);
	struct inner_transport t;

	if (inner_transport(packet, ip_len, &t) || t.later_fragment)
		return false;
	if (t.proto == (version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) &&
		(t.offset >= ip_len || is_icmp_error(version, packet[t.offset])))
		return false;
	return version == 4 ? answerable4(packet) : answerable6(packet);
}

static bool is_icmp_error(unsigned version, uint8_t type)
{
	if (version == 6)
		return type < 128 || type == ICMP6_REDIRECT;
	switch (type) {
	case 3:  /* destination unreachable */
	case 4:  /* source quench */
	case 5:  /* redirect */
	case 11: /* time exceeded */
	case 12: /* parameter problem */
		return true;
	default:
		return false;
	}
}

/* No answer to "this network", and none to or from class D, class E and the limited broadcast. */
static bool answerable4(const uint8_t *packet)
{
	const uint8_t src = packet[IP4_SRC], dst = packet[IP4_DST];

	return src != 0 && src < 224 && dst < 224;
}

static bool answerable6(const uint8_t *packet)
{
	static const uint8_t unspecified[16];

	return packet[IP6_SRC] != 0xff && packet[IP6_DST] != 0xff &&
	       memcmp(packet + IP6_SRC, unspecified, 16);
}

static unsigned unreachable4(const uint8_t *packet, uint32_t ip_len, uint8_t *out, size_t out_size)
{
	const uint32_t header = INNER_IPV4_HEADER + ICMP4_HEADER;
	const uint32_t total = MIN(header + ip_len, ICMP4_BYTES_MAX);
	uint8_t *icmp = out + INNER_IPV4_HEADER;

	if (out_size < total)
		return 0;
	memset(out, 0, header);
	out[0] = 0x45;
	out[IP4_TOS] = TOS_NETWORK_CONTROL;
	store_be16(out + IP4_TOTAL_LEN, (uint16_t)total);
	store_be16(out + IP4_FRAGMENT, IP4_DF);
	out[IP4_TTL] = TTL;
	out[IP4_PROTO] = IPPROTO_ICMP;
	memcpy(out + IP4_SRC, packet + IP4_DST, 4);
	memcpy(out + IP4_DST, packet + IP4_SRC, 4);
	checksum_store(out + IP4_CHECK, checksum_add_words(0, out, INNER_IPV4_HEADER));
	icmp[ICMP_TYPE] = ICMP4_UNREACHABLE;
	icmp[ICMP_CODE] = ICMP4_HOST_UNREACHABLE;
	memcpy(icmp + ICMP4_HEADER, packet, total - header);
	checksum_store(icmp + ICMP_CHECK, checksum_add(0, icmp, total - INNER_IPV4_HEADER));
	return total;
}

static unsigned unreachable6(const uint8_t *packet, uint32_t ip_len, uint8_t *out, size_t out_size)
{
	const uint32_t header = INNER_IPV6_HEADER + ICMP6_HEADER;
	const uint32_t total = MIN(header + ip_len, ICMP6_BYTES_MAX);
	const uint16_t icmp_len = (uint16_t)(total - INNER_IPV6_HEADER);
	uint8_t *icmp = out + INNER_IPV6_HEADER;

	if (out_size < total)
		return 0;
	memset(out, 0, header);
	store_be16(out, 0x6000 | TOS_NETWORK_CONTROL << 4);
	store_be16(out + IP6_PAYLOAD_LEN, icmp_len);
	out[IP6_NEXT_HEADER] = IPPROTO_ICMPV6;
	out[IP6_HOP_LIMIT] = TTL;
	memcpy(out + IP6_SRC, packet + IP6_DST, 16);
	memcpy(out + IP6_DST, packet + IP6_SRC, 16);
	icmp[ICMP_TYPE] = ICMP6_UNREACHABLE;
	icmp[ICMP_CODE] = ICMP6_ADDRESS_UNREACHABLE;
	memcpy(icmp + ICMP6_HEADER, packet, total - header);
	checksum_store(icmp + ICMP_CHECK,
		checksum_add(
			checksum_add_be16(inner_pseudo_sum(out, IPPROTO_ICMPV6), icmp_len), icmp, icmp_len));
	return total;
}
