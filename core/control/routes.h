/*
 * Follows the routing table: a peer is answered from the address that its packets come to only while the
 * route back leaves by the interface that they come in on. When a route by another interface takes
 * precedence, the system chooses the source address again, as it does for the kernel driver. For IPv4 and
 * IPv6; a link-local source stays, since its packets leave by its link in any case.
 *
 * A change of routes, rules or links starts a round: for each peer with a pinned source the kernel is asked
 * how a datagram would leave now. What changed does not matter, so events are not read one by one, and
 * those that got lost are no loss. One round begins each ROUTES_ROUND_NS at most, however many events there
 * are, and goes in pieces, one each ROUTES_PIECE_NS, so that neither the control thread nor the state
 * thread is held up by it.
 *
 * Peers are looked at after a change only. A source that is pinned between two changes is trusted, unless
 * it is the one that a round has barred (peer_bar_source()).
 *
 * Control thread.
 */
#pragma once

#include "core/control/config.h"
#include "core/control/event_loop.h"

#define ROUTES_ROUND_NS NS_PER_SEC
#define ROUTES_PIECE_NS (10 * NS_PER_MS)
#define ROUTES_PIECE_PEERS 128

struct routes;

/* The kernel's answer, replaceable in tests. */
struct routes_sys {
	/*
	 * By which interface a datagram from this port and the pinned source of to would leave for to.
	 * -ENETUNREACH and others: not at all.
	 */
	int (*lookup)(void *ctx, const struct endpoint *to, uint16_t port, uint32_t mark, int *ifindex);
	void *ctx;
};

/*
 * Listens from now on. loop and target outlive it; sys NULL: the kernel, as seen from the network namespace
 * of the caller. -ENOMEM and what socket(2) gives.
 */
int routes_new(struct routes **out, struct event_loop *loop, const struct config_target *target,
	const struct routes_sys *sys) MUST_CHECK;
/* NULL is accepted. */
void routes_free(struct routes *r);
/* Asks for a round: something that the kernel does not tell of has changed, such as the mark. */
void routes_changed(struct routes *r);
/* When routes_tick() is wanted, in the time of park_clock_ns(); UINT64_MAX: after an event. */
uint64_t routes_due_ns(const struct routes *r);
/* Does what is due. now_ns: of park_clock_ns(). */
void routes_tick(struct routes *r, uint64_t now_ns);
