#include "core/control/link.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"

/*
 * How often in a row the interface may be missing from the namespace it is said to be in: it moves, or the
 * index is not known.
 */
#define MISSES_MAX 8
#define RECEIVE_BYTES 32768

struct link_monitor {
	const struct tun_device *tun;
	const struct link_events *events;
	void *arg;
	struct mnl_socket *socket; /* NULL: could not follow */
	unsigned ifindex;          /* in its present namespace */
	unsigned next_ifindex;     /* in the namespace it is moving to, 0: not told */
	unsigned misses;
	uint32_t mtu;
	bool up;
	bool lost; /* it left this namespace */
	bool gone;
};

struct netns_open {
	int netns;
	struct mnl_socket *socket;
	int err;
};

static int handle_message(const struct nlmsghdr *header, void *arg);
static void handle_state(struct link_monitor *l, const struct nlmsghdr *header);
static void handle_removal(struct link_monitor *l, const struct nlmsghdr *header);
static int request_state(struct link_monitor *l);
static void follow(struct link_monitor *l);
static void set_up(struct link_monitor *l, bool up);
static int open_in_netns(struct mnl_socket **out, int netns);
static bool is_current_netns(int netns);
static void *netns_thread(void *arg);
static int open_socket(struct mnl_socket **out);

int link_open(struct link_monitor **out, const struct tun_device *tun, uint32_t mtu,
	const struct link_events *events, void *arg)
{
	struct link_monitor *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	l->tun = tun;
	l->events = events;
	l->arg = arg;
	l->mtu = mtu;
	l->ifindex = (unsigned)tun_device_ifindex(tun);
	err = open_socket(&l->socket);
	if (!err)
		err = request_state(l);
	if (err) {
		link_close(l);
		return err;
	}
	*out = l;
	return 0;
}

void link_close(struct link_monitor *l)
{
	if (!l)
		return;
	if (l->socket)
		mnl_socket_close(l->socket);
	free(l);
}

int link_fd(const struct link_monitor *l)
{
	return l->socket ? mnl_socket_get_fd(l->socket) : -1;
}

void link_dispatch(struct link_monitor *l)
{
	_Alignas(struct nlmsghdr) char buf[RECEIVE_BYTES];

	while (l->socket && !l->gone) {
		ssize_t len = mnl_socket_recvfrom(l->socket, buf, sizeof(buf));

		if (len > 0) {
			/* An error message answers our request: the interface is not here any more. */
			if (mnl_cb_run(buf, (size_t)len, 0, 0, handle_message, l) < 0 && errno == ENODEV)
				l->lost = true;
		} else if (len == 0 || errno == EINTR) {
			continue;
		} else if (errno == ENOBUFS || errno == ENOSPC) {
			/* Messages were lost: ask for the state that they led to. */
			if (request_state(l))
				log_warn(LOG_LINK, "lost interface events and cannot ask again");
		} else {
			if (errno != EAGAIN)
				log_warn(LOG_LINK, "reading interface events: %s", strerror(errno));
			if (!l->lost)
				return;
		}
		if (l->lost)
			follow(l);
	}
}

static int handle_message(const struct nlmsghdr *header, void *arg)
{
	struct link_monitor *l = arg;
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);

	if (mnl_nlmsg_get_payload_len(header) < sizeof(*info) || (unsigned)info->ifi_index != l->ifindex)
		return MNL_CB_OK;
	/* Bridges speak of their ports in messages of their own family. */
	if (info->ifi_family != AF_UNSPEC)
		return MNL_CB_OK;
	if (header->nlmsg_type == RTM_NEWLINK && !l->lost)
		handle_state(l, header);
	else if (header->nlmsg_type == RTM_DELLINK)
		handle_removal(l, header);
	return MNL_CB_OK;
}

static void handle_state(struct link_monitor *l, const struct nlmsghdr *header)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
	const struct nlattr *attr;

	l->misses = 0;
	mnl_attr_for_each(attr, header, sizeof(*info))
	{
		uint32_t mtu;

		if (mnl_attr_get_type(attr) != IFLA_MTU || mnl_attr_validate(attr, MNL_TYPE_U32) < 0)
			continue;
		mtu = mnl_attr_get_u32(attr);
		if (mtu == l->mtu)
			continue;
		l->mtu = mtu;
		l->events->mtu(l->arg, mtu);
	}
	set_up(l, info->ifi_flags & IFF_UP);
}

static void handle_removal(struct link_monitor *l, const struct nlmsghdr *header)
{
	const struct nlattr *attr;

	l->lost = true;
	l->next_ifindex = 0;
	mnl_attr_for_each(attr, header, sizeof(struct ifinfomsg))
	{
		if (mnl_attr_get_type(attr) == IFLA_NEW_IFINDEX && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			l->next_ifindex = mnl_attr_get_u32(attr);
	}
}

/* The answer comes as an RTM_NEWLINK like any other, or as an error. */
static int request_state(struct link_monitor *l)
{
	_Alignas(struct nlmsghdr) char buf[256];
	struct nlmsghdr *header = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *info;

	header->nlmsg_type = RTM_GETLINK;
	header->nlmsg_flags = NLM_F_REQUEST;
	info = mnl_nlmsg_put_extra_header(header, sizeof(*info));
	info->ifi_family = AF_UNSPEC;
	info->ifi_index = (int)l->ifindex;
	return mnl_socket_sendto(l->socket, header, header->nlmsg_len) < 0 ? -errno : 0;
}

/* The interface is not in the namespace we listen in: it was deleted, or it moved and we go after it. */
static void follow(struct link_monitor *l)
{
	struct mnl_socket *socket = NULL;
	int netns = tun_device_netns(l->tun);
	int err = netns < 0 ? netns : 0;

	l->lost = false;
	if (err == -EBADFD || err == -ENODEV || err == -ENXIO) {
		l->gone = true;
		set_up(l, false);
		l->events->gone(l->arg);
		return;
	}
	/* The kernel takes an interface down before it moves it. */
	set_up(l, false);
	if (!err && ++l->misses > MISSES_MAX)
		err = -ENODEV;
	if (!err)
		err = open_in_netns(&socket, netns);
	if (netns >= 0)
		close(netns);
	mnl_socket_close(l->socket);
	l->socket = socket;
	if (!err) {
		if (l->next_ifindex)
			l->ifindex = l->next_ifindex;
		err = request_state(l);
	}
	if (err)
		log_error(LOG_LINK,
			"the interface moved to a network namespace where it cannot be watched (%s): it "
			"stays down",
			strerror(-err));
	else if (l->misses == 1)
		log_info(LOG_LINK, "the interface moved to another network namespace");
}

static void set_up(struct link_monitor *l, bool up)
{
	if (up == l->up)
		return;
	l->up = up;
	if (up)
		l->events->up(l->arg);
	else
		l->events->down(l->arg);
}

/*
 * A netlink socket belongs to the namespace of the thread that made it. A thread that ends afterwards makes
 * it, so that no failure can leave the control thread, which opens the UDP sockets, in the wrong namespace.
 */
static int open_in_netns(struct mnl_socket **out, int netns)
{
	struct netns_open open = {.netns = netns};
	pthread_t thread;
	int err;

	if (is_current_netns(netns))
		return open_socket(out);
	err = pthread_create(&thread, NULL, netns_thread, &open);
	if (err)
		return -err;
	pthread_join(thread, NULL);
	if (!open.err)
		*out = open.socket;
	return open.err;
}

static bool is_current_netns(int netns)
{
	struct stat a, b;

	return fstat(netns, &a) == 0 && stat("/proc/thread-self/ns/net", &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static void *netns_thread(void *arg)
{
	struct netns_open *open = arg;

	if (setns(open->netns, CLONE_NEWNET))
		open->err = -errno;
	else
		open->err = open_socket(&open->socket);
	return NULL;
}

static int open_socket(struct mnl_socket **out)
{
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int err;

	if (!socket)
		return -errno;
	if (mnl_socket_bind(socket, RTMGRP_LINK, MNL_SOCKET_AUTOPID) < 0) {
		err = -errno;
		mnl_socket_close(socket);
		return err;
	}
	*out = socket;
	return 0;
}
