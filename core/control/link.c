#include "core/control/link.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"

#define RECEIVE_BYTES 32768
/*
 * Answers of "no such interface" in a row, from where the device says it is, until we give up for a while: it
 * may be moving.
 */
#define MISSES_MAX 8
/* In place of the number of a namespace: the one that we are in. */
#define NSID_HERE (-1)

struct link_monitor {
	const struct tun_device *tun;
	const struct link_events *events;
	void *arg;
	struct mnl_socket *socket; /* of the namespace that we are in */
	int nsid;                  /* number of the namespace that the interface is in; NSID_HERE */
	dev_t netns_dev;           /* with netns_ino: that namespace */
	ino_t netns_ino;
	unsigned ifindex;    /* there; 0: not known yet */
	char name[IFNAMSIZ]; /* to ask by until ifindex is known */
	uint64_t asked_ns;
	unsigned misses;
	uint32_t mtu;
	bool up;
	bool lost;    /* it is not where we look for it */
	bool unknown; /* it is where we could not look, until we can */
	bool gone;
};

static void handle_error(struct link_monitor *l, int err);
static int handle_message(const struct nlmsghdr *header, void *arg);
static bool is_about_us(const struct link_monitor *l, const struct nlmsghdr *header);
static void handle_state(struct link_monitor *l, const struct nlmsghdr *header);
static int request_state(struct link_monitor *l);
static bool has_moved(const struct link_monitor *l);
static void follow(struct link_monitor *l);
static int look_into(struct link_monitor *l, int netns);
static void set_gone(struct link_monitor *l);
static void set_unknown(struct link_monitor *l, int err);
static void set_up(struct link_monitor *l, bool up);
static bool is_current_netns(int netns);
static int netns_number(int netns, int *nsid);
static int netns_talk(int netns, uint16_t type, int *nsid);
static int read_nsid(const struct nlmsghdr *header, void *nsid);
static int read_unused_tun(const struct nlmsghdr *header, void *unused);
static bool is_kept_tun(const struct nlattr *info);

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
	l->nsid = NSID_HERE;
	l->ifindex = (unsigned)tun_device_ifindex(tun);
	l->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!l->socket || mnl_socket_bind(l->socket, RTMGRP_LINK, MNL_SOCKET_AUTOPID) < 0)
		err = -errno;
	else
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
	return mnl_socket_get_fd(l->socket);
}

bool link_is_polled(const struct link_monitor *l)
{
	return (l->nsid != NSID_HERE || l->unknown) && !l->gone;
}

void link_tick(struct link_monitor *l, uint64_t now_ns)
{
	int err = 0;

	if (!link_is_polled(l) || now_ns - l->asked_ns < LINK_POLL_NS)
		return;
	l->asked_ns = now_ns;
	if (l->unknown || has_moved(l)) {
		l->misses = 0;
		follow(l);
	} else {
		err = request_state(l);
	}
	if (err)
		log_limited(LOG_LEVEL_WARN, LOG_LINK, "asking for the interface: %s", strerror(-err));
	link_dispatch(l);
}

void link_dispatch(struct link_monitor *l)
{
	_Alignas(struct nlmsghdr) char buf[RECEIVE_BYTES];

	while (!l->gone) {
		ssize_t len = mnl_socket_recvfrom(l->socket, buf, sizeof(buf));

		if (len > 0) {
			if (mnl_cb_run(buf, (size_t)len, 0, 0, handle_message, l) < 0)
				handle_error(l, errno);
		} else if (len == 0 || errno == EINTR) {
			continue;
		} else if (errno == ENOBUFS || errno == ENOSPC) {
			/* Messages were lost: ask for the state that they led to. */
			if (request_state(l))
				log_warn(LOG_LINK, "lost interface events and cannot ask again");
		} else {
			if (errno != EAGAIN)
				log_warn(LOG_LINK, "reading interface events: %s", strerror(errno));
			return;
		}
		if (l->lost)
			follow(l);
	}
}

/* What is answered to our request in place of the state. */
static void handle_error(struct link_monitor *l, int err)
{
	if (err == ENODEV) {
		l->lost = true;
	} else if (err == EINVAL && l->nsid != NSID_HERE) {
		/*
		 * The namespace has lost its number, so it is coming to its end, and the interface with it if
		 * it is still there.
		 */
		set_up(l, false);
	} else if (err == EACCES || err == EPERM) {
		set_unknown(l, -err);
	}
}

static int handle_message(const struct nlmsghdr *header, void *arg)
{
	struct link_monitor *l = arg;
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);

	if (mnl_nlmsg_get_payload_len(header) < sizeof(*info) || !is_about_us(l, header))
		return MNL_CB_OK;
	/* Bridges speak of their ports in messages of their own family. */
	if (info->ifi_family != AF_UNSPEC)
		return MNL_CB_OK;
	if (header->nlmsg_type == RTM_NEWLINK && !l->lost)
		handle_state(l, header);
	else if (header->nlmsg_type == RTM_DELLINK)
		l->lost = true;
	return MNL_CB_OK;
}

/*
 * Is it about the interface where we look for it? Only an answer about another namespace carries the number of
 * that; changes are told of our own alone. Until the index is known, the name decides.
 */
static bool is_about_us(const struct link_monitor *l, const struct nlmsghdr *header)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
	bool is_it = l->ifindex && (unsigned)info->ifi_index == l->ifindex;
	int nsid = NSID_HERE;
	const struct nlattr *attr;

	mnl_attr_for_each(attr, header, sizeof(*info))
	{
		const uint16_t type = mnl_attr_get_type(attr);

		if (type == IFLA_TARGET_NETNSID && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			nsid = (int)mnl_attr_get_u32(attr);
		else if (type == IFLA_IFNAME && !l->ifindex &&
			 mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			is_it = strcmp(mnl_attr_get_str(attr), l->name) == 0;
	}
	return is_it && nsid == l->nsid;
}

static void handle_state(struct link_monitor *l, const struct nlmsghdr *header)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
	const struct nlattr *attr;

	l->misses = 0;
	l->unknown = false;
	l->ifindex = (unsigned)info->ifi_index;
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
	if (!l->ifindex)
		mnl_attr_put_strz(header, IFLA_IFNAME, l->name);
	if (l->nsid != NSID_HERE)
		mnl_attr_put_u32(header, IFLA_TARGET_NETNSID, (uint32_t)l->nsid);
	return mnl_socket_sendto(l->socket, header, header->nlmsg_len) < 0 ? -errno : 0;
}

/*
 * Has it left the foreign namespace where we look for it? The answers do not tell: another interface may have
 * its index there by now, or the namespace may have ended. A namespace that is ending cannot be opened; then
 * the interface ends as well.
 */
static bool has_moved(const struct link_monitor *l)
{
	const int netns = tun_device_netns(l->tun);
	struct stat st;
	bool moved;

	if (netns < 0)
		return false;
	moved = fstat(netns, &st) == 0 && (st.st_dev != l->netns_dev || st.st_ino != l->netns_ino);
	close(netns);
	return moved;
}

/* The interface is not where we look for it: it was deleted, or it moved and we go after it. */
static void follow(struct link_monitor *l)
{
	const int before = l->nsid;
	int netns, err;

	l->lost = false;
	err = tun_device_present_name(l->tun, l->name);
	if (err == -EBADFD) {
		set_gone(l);
		return;
	}
	/* The kernel takes an interface down before it moves it. */
	set_up(l, false);
	if (!err && ++l->misses > MISSES_MAX)
		err = -ENODEV;
	if (!err) {
		netns = tun_device_netns(l->tun);
		err = netns < 0 ? netns : look_into(l, netns);
		if (netns >= 0)
			close(netns);
	}
	if (err)
		set_unknown(l, err);
	else if (l->nsid != before)
		log_info(LOG_LINK, "the interface moved to another network namespace");
}

/* Looks for it in this namespace from now on. */
static int look_into(struct link_monitor *l, int netns)
{
	int nsid = NSID_HERE;
	int err = is_current_netns(netns) ? 0 : netns_number(netns, &nsid);
	struct stat st;

	if (!err && fstat(netns, &st))
		err = -errno;
	if (err)
		return err;
	l->nsid = nsid;
	l->netns_dev = st.st_dev;
	l->netns_ino = st.st_ino;
	l->ifindex = 0; /* it may have got another one on the way */
	return request_state(l);
}

static void set_gone(struct link_monitor *l)
{
	l->gone = true;
	set_up(l, false);
	l->events->gone(l->arg);
}

/* Told once; link_tick() tries on. */
static void set_unknown(struct link_monitor *l, int err)
{
	if (l->unknown)
		return;
	l->unknown = true;
	log_error(LOG_LINK,
		"the interface moved to a network namespace where it cannot be watched (%s): it stays down",
		strerror(-err));
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

static bool is_current_netns(int netns)
{
	struct stat a, b;

	return fstat(netns, &a) == 0 && stat("/proc/thread-self/ns/net", &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* The number under which our namespace knows this one. The kernel forgets it when that namespace ends. */
static int netns_number(int netns, int *nsid)
{
	int err = netns_talk(netns, RTM_GETNSID, nsid);

	if (err || *nsid != NETNSA_NSID_NOT_ASSIGNED)
		return err;
	err = netns_talk(netns, RTM_NEWNSID, nsid);
	/* Somebody else may have given it one meanwhile. */
	if (err && err != -EEXIST)
		return err;
	err = netns_talk(netns, RTM_GETNSID, nsid);
	return !err && *nsid == NETNSA_NSID_NOT_ASSIGNED ? -ENOENT : err;
}

/* RTM_NEWNSID: gives it a number of the kernel's choice. RTM_GETNSID: reads the number. */
static int netns_talk(int netns, uint16_t type, int *nsid)
{
	_Alignas(struct nlmsghdr) char buf[512];
	struct nlmsghdr *header = mnl_nlmsg_put_header(buf);
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	struct rtgenmsg *message;
	ssize_t len;
	int err = 0;

	if (!socket)
		return -errno;
	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	message = mnl_nlmsg_put_extra_header(header, sizeof(*message));
	message->rtgen_family = AF_UNSPEC;
	mnl_attr_put_u32(header, NETNSA_FD, (uint32_t)netns);
	if (type == RTM_NEWNSID)
		mnl_attr_put_u32(header, NETNSA_NSID, (uint32_t)NETNSA_NSID_NOT_ASSIGNED);
	if (mnl_socket_sendto(socket, header, header->nlmsg_len) < 0)
		err = -errno;
	/* The kernel has answered by now; the acknowledgement comes last. */
	for (int more = MNL_CB_OK; !err && more > MNL_CB_STOP;) {
		len = mnl_socket_recvfrom(socket, buf, sizeof(buf));
		more = len < 0 ? MNL_CB_ERROR : mnl_cb_run(buf, (size_t)len, 0, 0, read_nsid, nsid);
		if (more < 0)
			err = -errno;
	}
	mnl_socket_close(socket);
	return err;
}

static int read_nsid(const struct nlmsghdr *header, void *nsid)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, header, sizeof(struct rtgenmsg))
	{
		if (mnl_attr_get_type(attr) == NETNSA_NSID && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			*(int *)nsid = (int)mnl_attr_get_u32(attr);
	}
	return MNL_CB_OK;
}

/* Asks the kernel, not sysfs, which shows the interfaces of the namespace that it was mounted in. */
bool link_is_unused_tun(const char *name)
{
	_Alignas(struct nlmsghdr) char buf[RECEIVE_BYTES];
	struct nlmsghdr *header = mnl_nlmsg_put_header(buf);
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	struct ifinfomsg *info;
	bool unused = false;
	ssize_t len;

	if (!socket)
		return false;
	header->nlmsg_type = RTM_GETLINK;
	header->nlmsg_flags = NLM_F_REQUEST;
	info = mnl_nlmsg_put_extra_header(header, sizeof(*info));
	info->ifi_family = AF_UNSPEC;
	mnl_attr_put_strz(header, IFLA_IFNAME, name);
	if (mnl_socket_sendto(socket, header, header->nlmsg_len) >= 0) {
		len = mnl_socket_recvfrom(socket, buf, sizeof(buf));
		if (len < 0 || mnl_cb_run(buf, (size_t)len, 0, 0, read_unused_tun, &unused) < 0)
			unused = false;
	}
	mnl_socket_close(socket);
	return unused;
}

/* A TUN interface has a carrier exactly while a process has it open. */
static int read_unused_tun(const struct nlmsghdr *header, void *unused)
{
	bool carrier = true, kept = false;
	const struct nlattr *attr;

	mnl_attr_for_each(attr, header, sizeof(struct ifinfomsg))
	{
		const uint16_t type = mnl_attr_get_type(attr);

		if (type == IFLA_CARRIER && mnl_attr_validate(attr, MNL_TYPE_U8) >= 0)
			carrier = mnl_attr_get_u8(attr);
		else if (type == IFLA_LINKINFO)
			kept = is_kept_tun(attr);
	}
	*(bool *)unused = kept && !carrier;
	return MNL_CB_OK;
}

/* Of an IFLA_LINKINFO: is it about a TUN interface that outlives its processes, and that is for anyone? */
static bool is_kept_tun(const struct nlattr *info)
{
	bool tun = false, type_tun = false, persists = false, reserved = false;
	const struct nlattr *attr, *detail;

	mnl_attr_for_each_nested(attr, info)
	{
		const uint16_t type = mnl_attr_get_type(attr);

		if (type == IFLA_INFO_KIND && mnl_attr_validate(attr, MNL_TYPE_STRING) >= 0)
			tun = strcmp(mnl_attr_get_str(attr), "tun") == 0;
		if (type != IFLA_INFO_DATA ||
			!tun) /* whose attributes mean something else for another kind */
			continue;
		mnl_attr_for_each_nested(detail, attr)
		{
			switch (mnl_attr_get_type(detail)) {
			case IFLA_TUN_TYPE:
				type_tun = mnl_attr_get_u8(detail) == IFF_TUN;
				break;
			case IFLA_TUN_PERSIST:
				persists = mnl_attr_get_u8(detail);
				break;
			case IFLA_TUN_OWNER:
			case IFLA_TUN_GROUP:
				reserved = true; /* there only if somebody is */
				break;
			default:
				break;
			}
		}
	}
	return type_tun && persists && !reserved;
}
