#include "core/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/control/event_loop.h"
#include "core/control/link.h"
#include "core/control/routes.h"
#include "core/control/uapi_server.h"
#include "crypto/secret.h"
#include "ring/park.h"

/* How long the loop waits with nothing to do: the log reports what it has suppressed no later than that. */
#define IDLE_NS (10 * NS_PER_SEC)
#define DIRECTORY_EVENTS                                                                                     \
	(IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct control {
	struct control_params params;
	struct config config;
	struct config_target target;
	struct uapi_backend backend;
	struct event_loop loop;
	struct event_source signals, tun_failed, directory, link_events;
	struct uapi_server *server;
	struct link_monitor *link;
	struct routes *routes;
	uint64_t started_ns;
	uint64_t reported_ns; /* when the log last reported what it has suppressed */
	bool lock_error_reported;
	bool stopping;
	int err; /* why, when nobody asked for it */
	_Atomic int tun_error;
};

static void termination_signals(sigset_t *set);
static void stop(struct control *c, int err);
static void signal_ready(void *arg, struct event_source *source);
static void tun_failed_ready(void *arg, struct event_source *source);
static int watch_directory(struct control *c);
static void directory_ready(void *arg, struct event_source *source);
static int watch_link(struct control *c);
static void link_ready(void *arg, struct event_source *source);
static void link_up(void *arg);
static void say_listening(const struct control *c);
static void link_down(void *arg);
static void link_mtu(void *arg, uint32_t mtu);
static void link_gone(void *arg);
static int timeout_ms(const struct control *c);
static void tick(struct control *c);
static void report_lock_error(struct control *c);
static int backend_set(void *ctx, struct config_set *set);
static int backend_get(void *ctx, struct config_snapshot *out);
static int backend_stats(void *ctx, struct uapi_text *out);
static void register_metrics(struct control *c);
static uint64_t read_uptime(const void *control);
static uint64_t read_interface_up(const void *control);
static uint64_t read_listen_port(const void *control);
static uint64_t read_port_bound(const void *control);
static void add_counter(void *arg, const char *group, const char *name, uint64_t value);
static int backend_log(void *ctx, const char *directives, struct uapi_text *out);
static void target_call(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg);
static void target_set_sockets(void *ctx, struct udp_sockets *sockets);

static const struct link_events link_events = {
	.up = link_up,
	.down = link_down,
	.mtu = link_mtu,
	.gone = link_gone,
};

void control_block_signals(void)
{
	sigset_t set;

	termination_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* A terminal that closes and a client that goes away end nothing. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

int control_new(struct control **out)
{
	struct control *c = calloc(1, sizeof(*c));
	sigset_t set;
	int err;

	if (!c)
		return -ENOMEM;
	c->signals.fd = c->tun_failed.fd = c->directory.fd = c->link_events.fd = -1;
	c->backend = (struct uapi_backend){
		.set = backend_set,
		.get = backend_get,
		.stats = backend_stats,
		.log = backend_log,
		.ctx = c,
	};
	c->target = (struct config_target){
		.call = target_call,
		.set_sockets = target_set_sockets,
		.open_sockets = udp_sockets_open,
		.set_mark = udp_sockets_set_mark,
		.ctx = c,
	};
	config_init(&c->config, &c->target);
	c->started_ns = park_clock_ns();

	err = event_loop_init(&c->loop);
	if (err)
		goto err_free;
	termination_signals(&set);
	err = event_loop_watch(
		&c->loop, &c->signals, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), signal_ready, c);
	if (err)
		goto err_free;
	err = event_loop_watch(
		&c->loop, &c->tun_failed, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), tun_failed_ready, c);
	if (err)
		goto err_free;
	*out = c;
	return 0;

err_free:
	control_free(c);
	return err;
}

void control_tun_failed(void *arg, int err)
{
	struct control *c = arg;

	atomic_store(&c->tun_error, err);
	IGNORE_RESULT("it fails only when it is readable already", eventfd_write(c->tun_failed.fd, 1));
}

int control_start(struct control *c, const struct control_params *params)
{
	int err;

	c->params = *params;
	register_metrics(c);
	err = metrics_status(c->params.metrics);
	if (!err)
		err = watch_link(c);
	if (err)
		return err;
	err = routes_new(&c->routes, &c->loop, &c->target, NULL);
	if (err)
		return err;
	err = watch_directory(c);
	if (err)
		log_warn(LOG_UAPI, "cannot watch %s (%s): removing the socket will not end this process",
			CONTROL_DIRECTORY, strerror(-err));
	err = uapi_server_new(&c->server, &c->loop, &c->backend, params->socket->fd);
	if (err)
		return err;
	/* Whether the interface is up already. */
	link_dispatch(c->link);
	return 0;
}

int control_run(struct control *c)
{
	while (!c->stopping) {
		int err;

		tick(c);
		err = event_loop_turn(&c->loop, timeout_ms(c), &c->stopping);
		if (err) {
			log_error(LOG_CORE, "waiting for events: %s", strerror(-err));
			stop(c, err);
		}
	}
	uapi_server_free(c->server);
	c->server = NULL;
	return c->err;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	uapi_server_free(c->server);
	routes_free(c->routes);
	event_loop_unwatch(&c->loop, &c->link_events);
	link_close(c->link);
	config_done(&c->config);
	event_loop_unwatch(&c->loop, &c->directory);
	event_loop_unwatch(&c->loop, &c->tun_failed);
	event_loop_unwatch(&c->loop, &c->signals);
	event_loop_done(&c->loop);
	log_report_suppressed();
	free(c);
}

static void termination_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
}

/* err: 0 when somebody asked for the end. The first reason counts. */
static void stop(struct control *c, int err)
{
	if (!c->stopping)
		c->err = err;
	c->stopping = true;
}

static void signal_ready(void *arg, struct event_source *source)
{
	struct control *c = arg;
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	log_info(LOG_CORE, "%s: stopping", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
	stop(c, 0);
}

/*
 * Deleting the interface asks for the end, and any other failure is one. The error number does not tell
 * which, since kernels differ in it; the device itself does.
 */
static void tun_failed_ready(void *arg, struct event_source *source)
{
	struct control *c = arg;
	char name[IFNAMSIZ];
	eventfd_t count;
	int err;

	if (eventfd_read(source->fd, &count))
		return;
	if (tun_device_present_name(c->params.tun, name) == -EBADFD) {
		link_gone(c);
		return;
	}
	err = atomic_load(&c->tun_error);
	log_error(LOG_TUN, "interface %s cannot be read any more (%s): stopping", c->params.ifname,
		strerror(abs(err)));
	stop(c, err);
}

static int watch_directory(struct control *c)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int err = event_loop_watch(&c->loop, &c->directory, fd, directory_ready, c);

	if (err)
		return err;
	if (inotify_add_watch(fd, CONTROL_DIRECTORY, DIRECTORY_EVENTS) < 0) {
		err = -errno;
		event_loop_unwatch(&c->loop, &c->directory);
		return err;
	}
	/* The socket may have gone before we watched. */
	directory_ready(c, &c->directory);
	return 0;
}

static void directory_ready(void *arg, struct event_source *source)
{
	struct control *c = arg;
	char buf[4096];

	/* What exactly happened does not matter, only whether the socket is still there. */
	while (read(source->fd, buf, sizeof(buf)) > 0)
		;
	if (control_socket_is_ours(c->params.socket))
		return;
	log_info(LOG_UAPI, "%s was removed: stopping", c->params.socket->address.sun_path);
	stop(c, 0);
}

static int watch_link(struct control *c)
{
	int err = link_open(&c->link, c->params.tun, c->params.mtu, &link_events, c);

	if (err)
		return err;
	/* The loop closes what it watches, and the monitor keeps its own. */
	return event_loop_watch(
		&c->loop, &c->link_events, fcntl(link_fd(c->link), F_DUPFD_CLOEXEC, 0), link_ready, c);
}

static void link_ready(void *arg, struct event_source *source)
{
	struct control *c = arg;

	link_dispatch(c->link);
}

static void link_up(void *arg)
{
	struct control *c = arg;
	int err = config_link_up(&c->config);

	if (err)
		log_error(LOG_UDP,
			"interface %s is up but cannot use UDP port %u: %s; set another listen-port, or take "
			"it down and up again",
			c->params.ifname, c->config.listen_port, strerror(-err));
	else
		say_listening(c);
}

static void say_listening(const struct control *c)
{
	log_info(LOG_UDP, "listening on port %u", c->config.listen_port);
}

static void link_down(void *arg)
{
	struct control *c = arg;

	config_link_down(&c->config);
}

static void link_mtu(void *arg, uint32_t mtu)
{
	struct control *c = arg;

	pipeline_set_mtu(c->params.pipeline, mtu);
	log_info(LOG_LINK, "MTU is %u", mtu);
}

static void link_gone(void *arg)
{
	struct control *c = arg;

	log_info(LOG_LINK, "interface %s was deleted: stopping", c->params.ifname);
	stop(c, 0);
}

/* How long the loop may wait until tick() is due. */
static int timeout_ms(const struct control *c)
{
	const uint64_t now_ns = park_clock_ns();
	const uint64_t routes_ns = routes_due_ns(c->routes);
	uint64_t ns = MIN(IDLE_NS, routes_ns > now_ns ? routes_ns - now_ns : 0);

	if (uapi_server_is_busy(c->server))
		ns = MIN(ns, UAPI_SERVER_TICK_NS);
	if (link_is_polled(c->link))
		ns = MIN(ns, LINK_POLL_NS);
	return (int)((ns + NS_PER_MS - 1) / NS_PER_MS);
}

static void tick(struct control *c)
{
	const uint64_t now_ns = park_clock_ns();

	uapi_server_tick(c->server, now_ns);
	link_tick(c->link, now_ns);
	routes_tick(c->routes, now_ns);
	report_lock_error(c);
	if (now_ns - c->reported_ns >= LOG_LIMIT_WINDOW_NS) {
		c->reported_ns = now_ns;
		log_report_suppressed();
	}
}

/* Once is enough: whoever runs it can do one thing about it, whether it concerns one key or all of them. */
static void report_lock_error(struct control *c)
{
	int err = c->lock_error_reported ? 0 : secret_lock_error();

	if (!err)
		return;
	c->lock_error_reported = true;
	log_warn(LOG_CORE,
		"memory for keys cannot be locked (%s), so keys can reach the swap space: raise the limit on "
		"locked memory (ulimit -l, LimitMEMLOCK=)",
		strerror(-err));
}

static int backend_set(void *ctx, struct config_set *set)
{
	struct control *c = ctx;
	const bool was_listening = c->config.sockets;
	const uint16_t old_port = c->config.listen_port;
	int err = config_apply(&c->config, set);

	if (c->config.sockets && !(was_listening && c->config.listen_port == old_port))
		say_listening(c);
	if (!err)
		log_debug(LOG_UAPI, "configuration applied, peers named: %u", set->nr_peers);
	/* Routes depend on the mark. */
	if (!err && set->has_fwmark)
		routes_changed(c->routes);
	return err;
}

static int backend_get(void *ctx, struct config_snapshot *out)
{
	struct control *c = ctx;

	if (uapi_server_unread_bytes(c->server) > CONTROL_ANSWERS_MAX)
		return -ENOBUFS;
	return config_get(&c->config, out);
}

struct stats_listing {
	struct uapi_text *out;
	char group[METRICS_GROUP_BYTES]; /* of the lines added last */
};

static int backend_stats(void *ctx, struct uapi_text *out)
{
	struct control *c = ctx;
	struct stats_listing listing = {.out = out};

	if (c->config.has_public_key)
		uapi_text_add_key(out, "public_key", c->config.public_key);
	metrics_each(c->params.metrics, add_counter, &listing);
	return 0;
}

static void add_counter(void *arg, const char *group, const char *name, uint64_t value)
{
	struct stats_listing *listing = arg;

	if (strcmp(group, listing->group) != 0) {
		snprintf(listing->group, sizeof(listing->group), "%s", group);
		uapi_text_add(listing->out, "group=%s\n", group);
	}
	uapi_text_add(listing->out, "%s=%llu\n", name, (unsigned long long)value);
}

static void register_metrics(struct control *c)
{
	struct metrics *m = c->params.metrics;

	metrics_add_read(m, METRICS_GROUP_PROCESS, 0, METRIC_UPTIME_NS, read_uptime, c);
	metrics_add_read(m, METRICS_GROUP_PROCESS, 0, METRIC_INTERFACE_UP, read_interface_up, c);
	metrics_add_read(m, METRICS_GROUP_PROCESS, 0, METRIC_LISTEN_PORT, read_listen_port, c);
	metrics_add_read(m, METRICS_GROUP_PROCESS, 0, METRIC_PORT_BOUND, read_port_bound, c);
}

static uint64_t read_uptime(const void *control)
{
	return park_clock_ns() - ((const struct control *)control)->started_ns;
}

static uint64_t read_interface_up(const void *control)
{
	return ((const struct control *)control)->config.link_up;
}

static uint64_t read_listen_port(const void *control)
{
	return ((const struct control *)control)->config.listen_port;
}

static uint64_t read_port_bound(const void *control)
{
	return !!((const struct control *)control)->config.sockets;
}

static int backend_log(void *ctx, const char *directives, struct uapi_text *out)
{
	char text[MAX(LOG_ERROR_BYTES, LOG_DIRECTIVES_BYTES)];
	int err = *directives ? log_set_directives(directives, text) : 0;

	if (err)
		uapi_text_add(out, "error=%s\n", text);
	else
		uapi_text_add(out, "log=%s\n", log_get_directives(text));
	return err;
}

static void target_call(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg)
{
	struct control *c = ctx;

	pipeline_call(c->params.pipeline, fn, arg);
}

static void target_set_sockets(void *ctx, struct udp_sockets *sockets)
{
	struct control *c = ctx;

	pipeline_set_sockets(c->params.pipeline, sockets);
}
