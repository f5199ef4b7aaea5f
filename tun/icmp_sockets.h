/*
 * Raw sockets for ICMP and ICMPv6 errors. The kernel refuses a packet that is written to TUN if it comes from
 * one of the machine's own addresses. What is sent through these goes as the kernel's own errors do: from the
 * address that the route to the destination calls for. To a sender on this machine that is by way of lo, so a
 * socket that is bound to the interface does not always hear of it; nor does it of the kernel's own.
 */
#pragma once

#include "ring/base.h"

/* Constant once open: any thread may send. */
struct icmp_sockets {
	int v4, v6; /* -1: none */
};

/*
 * In the calling thread's network namespace. -EPERM (no CAP_NET_RAW), other -errno: a family that the kernel
 * has could not be had; then there are none.
 */
int icmp_sockets_open(struct icmp_sockets *s) MUST_CHECK;
/* Accepts what a failed icmp_sockets_open() left. */
void icmp_sockets_close(struct icmp_sockets *s);
/*
 * Sends the ICMP message of packet, an IPv4 packet without options or an IPv6 packet without extension headers,
 * to the packet's destination; ifindex is the interface of a link-local one. Never waits. 0; -EBADF (no socket
 * of this family); what the kernel says: no route, refused by the firewall, no memory.
 */
int icmp_sockets_send(
	const struct icmp_sockets *s, const uint8_t *packet, uint32_t len, unsigned ifindex) MUST_CHECK;
