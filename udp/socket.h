/*
 * The pair of UDP sockets (IPv4 and IPv6, same port) of one bind. Made by the control thread, used by udp-rx
 * (receive) and udp-tx (send); reference counted, closed with the last reference. A host without IPv6 (or
 * IPv4) has one fd of -1.
 */
#pragma once

#include "ring/base.h"

struct udp_sockets {
	int fd4, fd6;  /* -1: that family is not available */
	uint16_t port; /* host order, as bound */
	_Atomic unsigned refs;
	/*
	 * UDP_SEGMENT is used. False from the start: the kernel does not know it. Later udp_tx_send() clears
	 * it for a time when nobody can be sent to so (relaxed: a hint).
	 */
	_Atomic bool gso4, gso6;
	bool gro4, gro6; /* UDP_GRO is on */
};

#define UDP_SOCKET_RCVBUF_BYTES (16 * 1024 * 1024)
#define UDP_SOCKET_SNDBUF_BYTES (2 * 1024 * 1024)

/*
 * Binds both families to port (0: the kernel chooses, the same for both), with SO_MARK fwmark when not 0;
 * pktinfo, TOS reports, UDP_GRO, large buffers (as large as the process may; never smaller than the host's
 * default), DF off, no IPv6 flow label. *out has one reference. -EADDRINUSE, -EPERM (mark), -EAFNOSUPPORT
 * (neither family), other -errno.
 */
int udp_sockets_open(struct udp_sockets **out, uint16_t port, uint32_t fwmark) MUST_CHECK;
struct udp_sockets *udp_sockets_get(struct udp_sockets *s);
/* Closes at zero. NULL is accepted. */
void udp_sockets_put(struct udp_sockets *s);
/* Control thread. Sets SO_MARK on both; on failure (-EPERM) both keep the old mark. */
int udp_sockets_set_mark(struct udp_sockets *s, uint32_t old_mark, uint32_t mark) MUST_CHECK;
