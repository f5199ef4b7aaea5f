/*
 * Watches our interface over route netlink, in whatever network namespace it is: up and down, MTU, deletion,
 * and being moved to another namespace, where it is followed. Writing to a TUN device that is down fails in
 * ways that differ by kernel, so this, and not the data path, is where up and down are learnt. Control
 * thread.
 */
#pragma once

#include "ring/base.h"
#include "tun/tun_device.h"

struct link_monitor;

/*
 * Called from link_dispatch(), on changes only; the first report counts from down and mtu as given to
 * link_open().
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
/* To be polled for reading; changes when the interface moves; -1 when it moved where we may not follow. */
int link_fd(const struct link_monitor *l);
/* Handles what is readable, without blocking. */
void link_dispatch(struct link_monitor *l);
