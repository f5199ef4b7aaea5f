/*
 * Watches our interface over route netlink: up and down, MTU, deletion, and being moved to another network
 * namespace. Writing to a TUN device that is down fails in ways that differ by kernel, so this, and not the
 * data path, is where up and down are learnt. Control thread.
 *
 * Nothing here belongs to the namespace that the interface was moved to, or a container could never end while
 * we watch. The one socket stays in the namespace of the start. It is told of changes there; of an interface
 * elsewhere it asks, every LINK_POLL_NS, by the number under which its own namespace knows the other one.
 */
#pragma once

#include "ring/base.h"
#include "tun/tun_device.h"

#define LINK_POLL_NS (100 * NS_PER_MS)

struct link_monitor;

/*
 * Called from link_dispatch() and link_tick(), on changes only; the first report counts from down and from
 * the mtu given to link_open().
 */
struct link_events {
	void (*up)(void *arg);
	void (*down)(void *arg);
	void (*mtu)(void *arg, uint32_t mtu);
	void (*gone)(void *arg); /* deleted: nothing follows */
};

/*
 * tun, events and arg outlive the monitor. -ENOMEM and what socket(2) gives. The first state comes with the
 * first link_dispatch().
 */
int link_open(struct link_monitor **out, const struct tun_device *tun, uint32_t mtu,
	const struct link_events *events, void *arg) MUST_CHECK;
void link_close(struct link_monitor *l);
/* To be polled for reading; the monitor's own. */
int link_fd(const struct link_monitor *l);
/* Handles what is readable, without blocking. */
void link_dispatch(struct link_monitor *l);
/* Is the interface where it must be asked for, so that link_tick() must come every LINK_POLL_NS? */
bool link_is_polled(const struct link_monitor *l);
/* Asks, if it is time to. now_ns: of park_clock_ns(). */
void link_tick(struct link_monitor *l, uint64_t now_ns);

/*
 * Is this, in our namespace, a TUN interface that no process has open and that is kept for no user or group? Then
 * nobody misses it. false also when it cannot be found out. Any thread.
 */
bool link_is_unused_tun(const char *name) MUST_CHECK;
