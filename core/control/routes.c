#include "core/control/routes.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/base/log.h"

#define GROUP(number) (1u << ((number)-1))
/*
 * Links too: when one goes down, its IPv4 routes end without a word. Addresses bring and take routes of their
 * own, so they need not be listened to.
 */
#define GROUPS                                                                                               \
	(GROUP(RTNLGRP_LINK) | GROUP(RTNLGRP_IPV4_ROUTE) | GROUP(RTNLGRP_IPV6_ROUTE) |                       \
		GROUP(RTNLGRP_IPV4_RULE) | GROUP(RTNLGRP_IPV6_RULE) | GROUP(RTNLGRP_NEXTHOP))
#define ANSWER_BYTES 8192
#define EVENTS_MAX 1024

/* A source to ask about, and what came of it. */
struct question {
	uint8_t public_key[NOISE_KEY_BYTES];
	struct endpoint endpoint;
	bool is_barred;
	bool changes; /* it is to be barred, or to be barred no more */
};

struct piece {
	/* the peer that the piece before ended with */
	bool resumes;
	uint8_t last_key[NOISE_KEY_BYTES];
	uint64_t last_id;
	/* of the device */
	uint16_t port;
	uint32_t mark;
	/* two a peer: its endpoint, and the one that is barred */
	unsigned nr;
	struct question question[2 * ROUTES_PIECE_PEERS];
	bool is_last;
};

struct routes {
	struct event_loop *loop;
	const struct config_target *target;
	struct routes_sys sys;
	struct mnl_socket *events, *questions;
	struct event_source source; /* events; not waited for while changed */
	uint32_t seq;               /* of the last question */
	bool changed;               /* there is to be a round */
	bool asking;                /* a round is under way */
	uint64_t round_due_ns, piece_due_ns;
	struct piece piece;
};

static void events_ready(void *arg, struct event_source *source);
static void listen_again(struct routes *r);
static void ask_piece(struct routes *r);
static void visit_collect(struct device *dev, void *arg);
static void visit_change(struct device *dev, void *arg);
static int kernel_lookup(void *ctx, const struct endpoint *to, uint16_t port, uint32_t mark, int *ifindex);

int routes_new(struct routes **out, struct event_loop *loop, const struct config_target *target,
	const struct routes_sys *sys)
{
	struct routes *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->loop = loop;
	r->target = target;
	r->source.fd = -1;
	r->sys = sys ? *sys : (struct routes_sys){.lookup = kernel_lookup, .ctx = r};
	r->events = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	r->questions = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	/* Events that are lost must not show as an error, which would wake us although we do not wait. */
	if (!r->events || !r->questions ||
		mnl_socket_setsockopt(r->events, NETLINK_NO_ENOBUFS, &(int){1}, sizeof(int)) < 0 ||
		mnl_socket_bind(r->events, GROUPS, MNL_SOCKET_AUTOPID) < 0 ||
		mnl_socket_bind(r->questions, 0, MNL_SOCKET_AUTOPID) < 0)
		err = -errno;
	else
		/* The loop closes what it watches, and libmnl its own. */
		err = event_loop_watch(loop, &r->source,
			fcntl(mnl_socket_get_fd(r->events), F_DUPFD_CLOEXEC, 0), events_ready, r);
	if (err) {
		routes_free(r);
		return err;
	}
	*out = r;
	return 0;
}

void routes_free(struct routes *r)
{
	if (!r)
		return;
	event_loop_unwatch(r->loop, &r->source);
	if (r->events)
		mnl_socket_close(r->events);
	if (r->questions)
		mnl_socket_close(r->questions);
	free(r);
}

void routes_changed(struct routes *r)
{
	r->changed = true;
}

uint64_t routes_due_ns(const struct routes *r)
{
	return r->asking ? r->piece_due_ns : r->changed ? r->round_due_ns : UINT64_MAX;
}

void routes_tick(struct routes *r, uint64_t now_ns)
{
	if (now_ns < routes_due_ns(r))
		return;
	if (!r->asking) {
		r->asking = true;
		r->piece.resumes = false;
		r->round_due_ns = now_ns + ROUTES_ROUND_NS;
		/* Whatever changes from here on starts another round. */
		r->changed = false;
		listen_again(r);
	}
	ask_piece(r);
	r->asking = !r->piece.is_last;
	r->piece_due_ns = now_ns + ROUTES_PIECE_NS;
}

/*
 * One event says as much as a million. The rest stays unread, and the kernel drops what finds no room: a full
 * table being loaded costs a round a second and nothing else.
 */
static void events_ready(void *arg, struct event_source *source)
{
	struct routes *r = arg;

	routes_changed(r);
	if (event_loop_set_events(r->loop, source, 0))
		listen_again(r);
}

static void listen_again(struct routes *r)
{
	char buf[ANSWER_BYTES];
	int err;

	/* More than fit in the socket's buffer. If they come faster than that, there is another round. */
	for (unsigned i = 0; i < EVENTS_MAX; i++) {
		/* -ENOSPC: one that is longer than buf. */
		if (mnl_socket_recvfrom(r->events, buf, sizeof(buf)) < 0 && errno != ENOSPC)
			break;
	}
	err = event_loop_set_events(r->loop, &r->source, EPOLLIN);
	if (err)
		log_warn(LOG_LINK, "cannot listen to changes of routes: %s", strerror(-err));
}

static void ask_piece(struct routes *r)
{
	struct piece *p = &r->piece;
	unsigned nr_changes = 0;

	r->target->call(r->target->ctx, visit_collect, p);
	for (unsigned i = 0; i < p->nr; i++) {
		struct question *q = &p->question[i];
		int ifindex = 0;
		int err = r->sys.lookup(r->sys.ctx, &q->endpoint, p->port, p->mark, &ifindex);

		/*
		 * Without a route, and for as long as there is none, no source is better than another. A source
		 * that no packet can leave from any more is given up by who sends (udp/send.h).
		 */
		if (err)
			continue;
		q->changes = q->is_barred == (ifindex == q->endpoint.arrival_ifindex);
		nr_changes += q->changes;
	}
	if (nr_changes)
		r->target->call(r->target->ctx, visit_change, p);
}

static void add_question(
	struct piece *p, const struct peer *peer, const struct endpoint *endpoint, bool is_barred)
{
	struct question *q;

	if (!endpoint_is_pinned(endpoint) || !endpoint->arrival_ifindex || endpoint->from_ifindex)
		return;
	q = &p->question[p->nr++];
	*q = (struct question){.endpoint = *endpoint, .is_barred = is_barred};
	memcpy(q->public_key, peer->public_key, sizeof(q->public_key));
}

/* Where the walk over the peers goes on, also when the one that it had come to was removed. */
static struct cds_list_head *next_peer(struct device *dev, const struct piece *p)
{
	const struct peer *last = p->resumes ? device_find_peer(dev, p->last_key) : NULL;
	struct cds_list_head *link;

	if (!p->resumes)
		return dev->peers.next;
	if (last && last->id == p->last_id)
		return last->link.next;
	/* New ones come last, and ids only grow. */
	cds_list_for_each(link, &dev->peers)
	{
		if (cds_list_entry(link, struct peer, link)->id > p->last_id)
			break;
	}
	return link;
}

/* State thread. */
static void visit_collect(struct device *dev, void *arg)
{
	struct piece *p = arg;
	struct cds_list_head *link = next_peer(dev, p);

	p->nr = 0;
	p->port = dev->listen_port;
	p->mark = dev->fwmark;
	for (unsigned i = 0; i < ROUTES_PIECE_PEERS && link != &dev->peers; i++, link = link->next) {
		struct peer *peer = cds_list_entry(link, struct peer, link);

		peer_take_roamed(peer);
		/* What may be freed comes before what may have to be barred: there is room for one only. */
		add_question(p, peer, &peer->barred, true);
		add_question(p, peer, &peer->endpoint, false);
		p->resumes = true;
		p->last_id = peer->id;
		memcpy(p->last_key, peer->public_key, sizeof(p->last_key));
	}
	p->is_last = link == &dev->peers;
}

/* State thread. The peer may have roamed or be gone meanwhile. */
static void visit_change(struct device *dev, void *arg)
{
	const struct piece *p = arg;

	for (unsigned i = 0; i < p->nr; i++) {
		const struct question *q = &p->question[i];
		struct peer *peer = q->changes ? device_find_peer(dev, q->public_key) : NULL;
		char name[PEER_NAME_BYTES];

		if (!peer)
			continue;
		if (q->is_barred) {
			peer_unbar_source(peer, &q->endpoint);
		} else {
			peer_bar_source(peer, &q->endpoint);
			log_limited(LOG_LEVEL_DEBUG, LOG_PEER,
				"%s: the route leaves by another interface, the source address with it",
				peer_name(peer, name));
		}
	}
}

static struct nlmsghdr *put_question(
	char *buf, const struct endpoint *to, uint16_t port, uint32_t mark, uint32_t seq)
{
	const bool v6 = to->to.sa.sa_family == AF_INET6;
	struct nlmsghdr *header = mnl_nlmsg_put_header(buf);
	struct rtmsg *route;

	header->nlmsg_type = RTM_GETROUTE;
	header->nlmsg_flags = NLM_F_REQUEST;
	header->nlmsg_seq = seq;
	route = mnl_nlmsg_put_extra_header(header, sizeof(*route));
	route->rtm_family = v6 ? AF_INET6 : AF_INET;
	route->rtm_dst_len = route->rtm_src_len = v6 ? 128 : 32;
	if (v6) {
		mnl_attr_put(header, RTA_DST, sizeof(to->to.v6.sin6_addr), &to->to.v6.sin6_addr);
		mnl_attr_put(header, RTA_SRC, sizeof(to->from.v6), &to->from.v6);
		if (to->to.v6.sin6_scope_id)
			mnl_attr_put_u32(header, RTA_OIF, to->to.v6.sin6_scope_id);
	} else {
		mnl_attr_put(header, RTA_DST, sizeof(to->to.v4.sin_addr), &to->to.v4.sin_addr);
		mnl_attr_put(header, RTA_SRC, sizeof(to->from.v4), &to->from.v4);
	}
	/* Rules may look at these, and so may the choice between several paths. */
	mnl_attr_put_u32(header, RTA_MARK, mark);
	mnl_attr_put_u8(header, RTA_IP_PROTO, IPPROTO_UDP);
	mnl_attr_put_u16(header, RTA_SPORT, htons(port));
	mnl_attr_put_u16(header, RTA_DPORT, v6 ? to->to.v6.sin6_port : to->to.v4.sin_port);
	return header;
}

static int read_interface(const struct nlmsghdr *header, void *ifindex)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, header, sizeof(struct rtmsg))
	{
		if (mnl_attr_get_type(attr) == RTA_OIF && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			*(int *)ifindex = (int)mnl_attr_get_u32(attr);
	}
	return MNL_CB_STOP;
}

static int kernel_lookup(void *ctx, const struct endpoint *to, uint16_t port, uint32_t mark, int *ifindex)
{
	struct routes *r = ctx;
	_Alignas(struct nlmsghdr) char buf[ANSWER_BYTES];
	struct nlmsghdr *header = put_question(buf, to, port, mark, ++r->seq);
	const unsigned portid = mnl_socket_get_portid(r->questions);
	ssize_t len;

	if (mnl_socket_sendto(r->questions, header, header->nlmsg_len) < 0)
		return -errno;
	/* The kernel has answered by now. */
	do {
		len = mnl_socket_recvfrom(r->questions, buf, sizeof(buf));
		if (len < 0)
			return -errno;
	} while (((const struct nlmsghdr *)buf)->nlmsg_seq != r->seq);
	return mnl_cb_run(buf, (size_t)len, r->seq, portid, read_interface, ifindex) < 0 ? -errno : 0;
}
