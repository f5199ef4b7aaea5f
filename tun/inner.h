/*
 * Views of the IP packets inside the tunnel: validation, addresses, ECN, and the ICMP answer to a packet that
 * cannot be delivered. Plain functions on the caller's bytes; no state; any thread.
 */
#pragma once

#include "ring/base.h"

#define INNER_IPV4_HEADER 20
#define INNER_IPV6_HEADER 40

/* Offsets of their fields (RFC 791 section 3.1, RFC 8200 section 3). */
#define IP4_TOS 1
#define IP4_TOTAL_LEN 2
#define IP4_ID 4
#define IP4_FRAGMENT 6 /* flags and offset */
#define IP4_TTL 8
#define IP4_PROTO 9
#define IP4_CHECK 10
#define IP4_SRC 12
#define IP4_DST 16
#define IP6_PAYLOAD_LEN 4
#define IP6_NEXT_HEADER 6
#define IP6_HOP_LIMIT 7
#define IP6_SRC 8
#define IP6_DST 24

/* Of the IPv4 fragment field: don't fragment; more fragments and offset; offset. */
#define IP4_DF 0x4000
#define IP4_IS_FRAGMENT 0x3fff
#define IP4_FRAGMENT_OFFSET 0x1fff

/* The two ECN bits (RFC 3168). */
#define ECN_NOT_ECT 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

/*
 * Is this an IP packet, and how long does it say it is? IPv4: header length at least 20, total length at
 * least the header; IPv6: payload length; both at most len. *ip_len is the length to trim to (the rest is
 * padding). Checks nothing behind the fixed header and, as the kernel will, not the IPv4 header checksum.
 * -EINVAL for anything else.
 */
int inner_check(const uint8_t *packet, uint32_t len, uint32_t *ip_len) MUST_CHECK;

/* The accessors take a packet that inner_check() accepted. */
static inline unsigned inner_version(const uint8_t *packet)
{
	return packet[0] >> 4;
}

/* 4 or 16 bytes in network order. */
static inline const uint8_t *inner_src(const uint8_t *packet)
{
	return inner_version(packet) == 4 ? packet + IP4_SRC : packet + IP6_SRC;
}

static inline const uint8_t *inner_dst(const uint8_t *packet)
{
	return inner_version(packet) == 4 ? packet + IP4_DST : packet + IP6_DST;
}

/* DSCP and ECN. */
static inline uint8_t inner_tos(const uint8_t *packet)
{
	return inner_version(packet) == 4 ? packet[IP4_TOS] : (uint8_t)(load_be16(packet) >> 4);
}

static inline uint8_t inner_ecn(const uint8_t *packet)
{
	return inner_tos(packet) & 3;
}

/* Sets the ECN bits, 0..3, and brings the IPv4 header checksum along (RFC 1624). */
void inner_set_ecn(uint8_t *packet, uint8_t ecn);

/* The ECN bits of the outer header for this inner packet: RFC 6040 section 4.1, normal mode. */
static inline uint8_t inner_ecn_encapsulate(const uint8_t *packet)
{
	return inner_ecn(packet);
}

/*
 * RFC 6040 section 4.2, figure 4: merges the outer ECN bits, 0..3, into the inner header. -EBADMSG: the
 * combination (congestion marked on a packet whose transport cannot see it) demands that the packet is
 * dropped.
 */
int inner_ecn_decapsulate(uint8_t *packet, uint8_t outer_ecn) MUST_CHECK;

/* Where the transport header is: behind IPv4 options or IPv6 extension headers. */
struct inner_transport {
	uint8_t proto;
	bool fragment;       /* any fragment, the first included */
	bool later_fragment; /* not the first: offset points at payload, not at a transport header */
	uint32_t offset;     /* at most ip_len */
};

/* For a packet that inner_check() accepted, of ip_len bytes. -EINVAL if a header runs past the end. */
int inner_transport(const uint8_t *packet, uint32_t ip_len, struct inner_transport *t) MUST_CHECK;

/* Sum of the pseudo-header but for the transport length: addresses and protocol (RFC 8200 section 8.1). */
uint64_t inner_pseudo_sum(const uint8_t *packet, uint8_t proto);

/*
 * Composes the ICMP host unreachable (RFC 792, type 3 code 1) or ICMPv6 address unreachable (RFC 4443, type 1
 * code 3) that tells the sender of this packet that it has no way. Its source is the packet's own
 * destination: of all addresses the one that the kernel is sure to accept from this interface. It is bounded
 * to 576 or 1280 bytes and to out_size. Returns its length, or 0 where none may be sent: invalid packets, ICMP
 * errors, later fragments, multicast or broadcast on either side, an unspecified source.
 */
unsigned inner_unreachable(const uint8_t *packet, uint32_t len, uint8_t *out, size_t out_size);
