#include "core/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/control/link.h"
#include "core/base/log.h"
#include "core/control/uapi.h"
#include "ring/park.h"

#define EVENTS_MAX 32
#define TICK_MS 1000 /* while clients are connected */
#define IDLE_MS 10000
#define LISTEN_BACKLOG 128
/* How long a start waits for others that start, and how often it looks. */
#define LOCK_WAIT_STEP_NS (20 * NS_PER_MS)
#define LOCK_WAIT_STEPS 500
/* Rounds of reading for one client before the others have their turn. */
#define CLIENT_ROUNDS 16
#define DIRECTORY_EVENTS                                                                                     \
	(IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

/* Something the loop waits for. */
struct source {
	void (*ready)(struct control *c, struct source *source);
	int fd; /* -1: not in use */
};

struct client {
	struct source source;
	struct uapi_session *session;
	uint32_t events;    /* what epoll watches for */
	uint64_t moved_ns;  /* last time a byte went either way */
	uint64_t served_ns; /* last time an answer was complete, at first the time of connecting */
	bool half_closed;   /* sends no more */
};

struct control {
	struct control_params params;
	struct config config;
	struct config_target target;
	struct uapi_backend backend;
	int epoll_fd;
	struct source signals, tun_failed, directory, listener, link_events;
	struct link_monitor *link;
	uint64_t listener_paused_ns; /* since when, for want of a place or a descriptor; 0: it is not */
	unsigned nr_clients;
	struct client clients[CONTROL_CLIENTS_MAX];
	uint64_t reported_ns;
	bool stopping;
	_Atomic int tun_error;
};

static int lock_directory(int fd);
static int watch(
	struct control *c, struct source *source, int fd, void (*ready)(struct control *, struct source *));
static void unwatch(struct control *c, struct source *source);
static void stop(struct control *c);
static void signal_ready(struct control *c, struct source *source);
static void tun_failed_ready(struct control *c, struct source *source);
static int watch_directory(struct control *c);
static void directory_ready(struct control *c, struct source *source);
static bool socket_is_ours(const struct control_socket *s);
static int watch_link(struct control *c);
static void link_ready(struct control *c, struct source *source);
static void link_up(void *arg);
static void link_down(void *arg);
static void link_mtu(void *arg, uint32_t mtu);
static void link_gone(void *arg);
static void listener_ready(struct control *c, struct source *source);
static void pause_listener(struct control *c);
static void resume_listener(struct control *c);
static struct client *free_place(struct control *c);
static void client_ready(struct control *c, struct source *source);
static bool client_send(struct client *client);
static bool client_receive(struct client *client);
static void client_close(struct control *c, struct client *client);
static void tick(struct control *c);
static int backend_set(void *ctx, struct config_set *set);
static int backend_get(void *ctx, struct config_snapshot *out);
static int backend_stats(void *ctx, struct uapi_text *out);
static int backend_log(void *ctx, const char *directives, struct uapi_text *out);
static void target_call(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg);
static void target_set_sockets(void *ctx, struct udp_sockets *sockets);
static void close_fd(int *fd);

static const struct link_events link_events = {
	.up = link_up,
	.down = link_down,
	.mtu = link_mtu,
	.gone = link_gone,
};

int control_socket_claim(struct control_socket *s, const char *ifname)
{
	int probe = -1, err;

	memset(s, 0, sizeof(*s));
	s->fd = s->lock_fd = -1;
	control_address(&s->address, ifname);
	if (mkdir(CONTROL_DIRECTORY, 0700) && errno != EEXIST)
		return -errno;
	s->lock_fd = open(CONTROL_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Two starts at once must not both find the socket stale. The lock goes with the descriptor. */
	if (s->lock_fd < 0 || lock_directory(s->lock_fd))
		goto err_errno;

	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		goto err_errno;
	/* EAGAIN: its backlog is full, so somebody listens. */
	if (connect(probe, (struct sockaddr *)&s->address, sizeof(s->address)) == 0 || errno == EAGAIN) {
		errno = EADDRINUSE;
		goto err_errno;
	}
	if (errno == ECONNREFUSED) {
		if (unlink(s->address.sun_path) && errno != ENOENT)
			goto err_errno;
	} else if (errno != ENOENT) {
		goto err_errno;
	}
	close(probe);
	return 0;

err_errno:
	err = -errno;
	close_fd(&probe);
	close_fd(&s->lock_fd);
	return err;
}

int control_socket_listen(struct control_socket *s)
{
	struct stat st;
	mode_t old_mask;
	int fd, err;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	old_mask = umask(077);
	err = bind(fd, (struct sockaddr *)&s->address, sizeof(s->address)) ? -errno : 0;
	umask(old_mask);
	if (err) {
		close(fd);
		return err;
	}
	if (lstat(s->address.sun_path, &st) || listen(fd, LISTEN_BACKLOG)) {
		err = -errno;
		unlink(s->address.sun_path);
		close(fd);
		return err;
	}
	s->fd = fd;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	close_fd(&s->lock_fd);
	return 0;
}

void control_socket_close(struct control_socket *s)
{
	if (s->fd >= 0 && socket_is_ours(s))
		unlink(s->address.sun_path);
	close_fd(&s->fd);
	close_fd(&s->lock_fd);
}

void control_block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
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
	c->signals.fd = c->tun_failed.fd = c->directory.fd = c->listener.fd = c->link_events.fd = -1;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		c->clients[i].source.fd = -1;
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

	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (c->epoll_fd < 0) {
		err = -errno;
		goto err_free;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	err = watch(c, &c->signals, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), signal_ready);
	if (err)
		goto err_free;
	err = watch(c, &c->tun_failed, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), tun_failed_ready);
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
	/* Fails only when it is already readable. */
	(void)!eventfd_write(c->tun_failed.fd, 1);
}

int control_start(struct control *c, const struct control_params *params)
{
	int err;

	c->params = *params;
	err = watch_link(c);
	if (err)
		return err;
	err = watch_directory(c);
	if (err)
		log_warn(LOG_UAPI, "cannot watch %s (%s): removing the socket will not end this process",
			CONTROL_DIRECTORY, strerror(-err));
	err = watch(c, &c->listener, fcntl(params->socket->fd, F_DUPFD_CLOEXEC, 0), listener_ready);
	if (err)
		return err;
	/* Whether the interface is up already. */
	link_ready(c, &c->link_events);
	return 0;
}

int control_run(struct control *c)
{
	struct epoll_event events[EVENTS_MAX];
	int err = 0;

	while (!c->stopping) {
		int nr = epoll_wait(c->epoll_fd, events, EVENTS_MAX,
			c->nr_clients || c->listener_paused_ns ? TICK_MS : IDLE_MS);

		if (nr < 0 && errno != EINTR) {
			err = -errno;
			log_error(LOG_CORE, "waiting for events: %s", strerror(errno));
			break;
		}
		for (int i = 0; i < nr && !c->stopping; i++) {
			struct source *source = events[i].data.ptr;

			/* An earlier event of this round may have closed it. */
			if (source->fd >= 0)
				source->ready(c, source);
		}
		tick(c);
	}
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		client_close(c, &c->clients[i]);
	unwatch(c, &c->listener);
	return err;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		client_close(c, &c->clients[i]);
	link_close(c->link);
	config_done(&c->config);
	unwatch(c, &c->listener);
	unwatch(c, &c->directory);
	unwatch(c, &c->tun_failed);
	unwatch(c, &c->signals);
	close_fd(&c->epoll_fd);
	log_report_suppressed();
	free(c);
}

/* Whoever may read the directory may lock it, so the wait has an end. -1 and errno, as flock() does. */
static int lock_directory(int fd)
{
	for (unsigned step = 0; flock(fd, LOCK_EX | LOCK_NB); step++) {
		if (errno != EWOULDBLOCK || step == LOCK_WAIT_STEPS)
			return -1;
		nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_STEP_NS}, NULL);
	}
	return 0;
}

/* Takes fd over, which is the outcome of a system call just made: -1 gives its errno back. */
static int watch(
	struct control *c, struct source *source, int fd, void (*ready)(struct control *, struct source *))
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
	int err;

	if (fd < 0)
		return -errno;
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		err = -errno;
		close(fd);
		return err;
	}
	source->fd = fd;
	source->ready = ready;
	return 0;
}

static void unwatch(struct control *c, struct source *source)
{
	if (source->fd < 0)
		return;
	epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	close_fd(&source->fd);
}

static void stop(struct control *c)
{
	c->stopping = true;
}

static void signal_ready(struct control *c, struct source *source)
{
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	log_info(LOG_CORE, "%s: stopping", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
	stop(c);
}

static void tun_failed_ready(struct control *c, struct source *source)
{
	eventfd_t count;

	if (eventfd_read(source->fd, &count))
		return;
	log_info(LOG_TUN, "interface %s is gone (%s): stopping", c->params.ifname,
		strerror(abs(atomic_load(&c->tun_error))));
	stop(c);
}

static int watch_directory(struct control *c)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int err = watch(c, &c->directory, fd, directory_ready);

	if (err)
		return err;
	if (inotify_add_watch(fd, CONTROL_DIRECTORY, DIRECTORY_EVENTS) < 0) {
		err = -errno;
		unwatch(c, &c->directory);
		return err;
	}
	/* It may have gone before we looked. */
	directory_ready(c, &c->directory);
	return 0;
}

static void directory_ready(struct control *c, struct source *source)
{
	char buf[4096];

	/* What exactly happened does not matter, only whether the socket is still there. */
	while (read(source->fd, buf, sizeof(buf)) > 0)
		;
	if (socket_is_ours(c->params.socket))
		return;
	log_info(LOG_UAPI, "%s was removed: stopping", c->params.socket->address.sun_path);
	stop(c);
}

static bool socket_is_ours(const struct control_socket *s)
{
	struct stat st;

	return lstat(s->address.sun_path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

static int watch_link(struct control *c)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &c->link_events};
	int err = link_open(&c->link, c->params.tun, c->params.mtu, &link_events, c);

	if (err)
		return err;
	c->link_events.fd = link_fd(c->link);
	c->link_events.ready = link_ready;
	return epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->link_events.fd, &event) ? -errno : 0;
}

/* The monitor owns its descriptor, and changes it when the interface moves to another namespace. */
static void link_ready(struct control *c, struct source *source)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

	/*
	 * Removed beforehand: the new descriptor may well get the number of the old, and the old is closed by
	 * then.
	 */
	epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	link_dispatch(c->link);
	source->fd = link_fd(c->link);
	if (source->fd < 0)
		return;
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, source->fd, &event)) {
		log_error(LOG_LINK, "cannot watch the interface any more: %s", strerror(errno));
		source->fd = -1;
	}
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
	stop(c);
}

static void listener_ready(struct control *c, struct source *source)
{
	struct client *client = free_place(c);
	int fd, err;

	if (!client) {
		pause_listener(c);
		return;
	}
	fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		log_limited(LOG_LEVEL_WARN, LOG_UAPI, "accepting a client: %s", strerror(errno));
		pause_listener(c);
		return;
	}
	err = uapi_session_new(&client->session, &c->backend);
	if (err) {
		log_limited(LOG_LEVEL_WARN, LOG_UAPI, "serving a client: %s", strerror(-err));
		close(fd);
		return;
	}
	c->nr_clients++;
	err = watch(c, &client->source, fd, client_ready);
	if (err) {
		log_limited(LOG_LEVEL_WARN, LOG_UAPI, "serving a client: %s", strerror(-err));
		client_close(c, client);
		return;
	}
	client->events = EPOLLIN;
	client->half_closed = false;
	client->moved_ns = client->served_ns = park_clock_ns();
}

/* Meanwhile further clients wait in the backlog of the socket. */
static void pause_listener(struct control *c)
{
	struct epoll_event event = {.events = 0, .data.ptr = &c->listener};

	c->listener_paused_ns = park_clock_ns();
	epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->listener.fd, &event);
}

static void resume_listener(struct control *c)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &c->listener};

	if (!c->listener_paused_ns)
		return;
	c->listener_paused_ns = 0;
	epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->listener.fd, &event);
}

/* A place for one more client, if need be of one that has been served, or let wait, for long. */
static struct client *free_place(struct control *c)
{
	struct client *longest = NULL;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct client *client = &c->clients[i];

		if (!client->session)
			return client;
		if (!longest || client->served_ns < longest->served_ns)
			longest = client;
	}
	if (park_clock_ns() - longest->served_ns < CONTROL_EVICT_NS)
		return NULL;
	client_close(c, longest);
	return longest;
}

/*
 * Moves bytes both ways until the client makes us wait. Reading goes on only while no answer waits, so that a
 * client which never reads is not read from either.
 */
static void client_ready(struct control *c, struct source *source)
{
	struct client *client = CONTAINER_OF(source, struct client, source);
	struct epoll_event event = {.data.ptr = source};
	size_t waiting;

	for (unsigned round = 0; round < CLIENT_ROUNDS; round++) {
		if (!client_send(client))
			goto close;
		uapi_session_answer(client->session, &waiting);
		if (waiting)
			break;
		if (client->half_closed || uapi_session_broken(client->session))
			goto close;
		if (!client_receive(client))
			break;
	}
	/* The last round may have left an answer, which the client may wait for without sending any more. */
	uapi_session_answer(client->session, &waiting);
	event.events = waiting ? EPOLLOUT : EPOLLIN;
	if (event.events != client->events) {
		if (epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, source->fd, &event))
			goto close;
		client->events = event.events;
	}
	return;

close:
	client_close(c, client);
}

/* Sends what waits, and the answers to what was read ahead. false: the client is gone. */
static bool client_send(struct client *client)
{
	for (;;) {
		size_t len;
		const char *answer = uapi_session_answer(client->session, &len);
		ssize_t sent;

		if (len == 0)
			return true;
		sent = send(client->source.fd, answer, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN;
		client->moved_ns = park_clock_ns();
		if ((size_t)sent == len)
			client->served_ns = client->moved_ns;
		uapi_session_sent(client->session, (size_t)sent);
	}
}

/* Reads once and runs what is complete. false: nothing to read now. */
static bool client_receive(struct client *client)
{
	size_t len;
	char *room = uapi_session_room(client->session, &len);
	ssize_t received = recv(client->source.fd, room, len, MSG_DONTWAIT);

	if (received < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (received <= 0) {
		/* A request that is not complete has no effect. */
		client->half_closed = true;
		return true;
	}
	client->moved_ns = park_clock_ns();
	uapi_session_received(client->session, (size_t)received);
	return true;
}

static void client_close(struct control *c, struct client *client)
{
	if (!client->session)
		return;
	unwatch(c, &client->source);
	uapi_session_free(client->session);
	client->session = NULL;
	c->nr_clients--;
	resume_listener(c);
}

/* What goes by the clock. */
static void tick(struct control *c)
{
	uint64_t now = park_clock_ns();

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX && c->nr_clients; i++) {
		struct client *client = &c->clients[i];
		size_t waiting;

		if (!client->session)
			continue;
		uapi_session_answer(client->session, &waiting);
		if (!waiting && !uapi_session_in_request(client->session))
			continue;
		if (now - client->moved_ns >= CONTROL_STALL_NS)
			client_close(c, client);
	}
	/* It looks again whether somebody can make room by now, and pauses again if not. */
	if (c->listener_paused_ns && now - c->listener_paused_ns >= TICK_MS * NS_PER_MS)
		resume_listener(c);
	if (now - c->reported_ns >= LOG_LIMIT_WINDOW_NS) {
		c->reported_ns = now;
		log_report_suppressed();
	}
}

static int backend_set(void *ctx, struct config_set *set)
{
	struct control *c = ctx;
	int err = config_apply(&c->config, set);

	if (!err)
		log_debug(LOG_UAPI, "configuration applied, %u peer sections", set->nr_peers);
	return err;
}

static int backend_get(void *ctx, struct config_snapshot *out)
{
	struct control *c = ctx;
	size_t total = 0;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		size_t waiting;

		if (!c->clients[i].session)
			continue;
		uapi_session_answer(c->clients[i].session, &waiting);
		total += waiting;
	}
	if (total > CONTROL_ANSWERS_MAX)
		return -ENOBUFS;
	return config_get(&c->config, out);
}

struct stats_dump {
	struct uapi_text *out;
	char group[METRICS_GROUP_BYTES];
};

static void dump_counter(void *arg, const char *group, const char *name, uint64_t value)
{
	struct stats_dump *dump = arg;

	if (strcmp(group, dump->group) != 0) {
		snprintf(dump->group, sizeof(dump->group), "%s", group);
		uapi_text_add(dump->out, "group=%s\n", group);
	}
	uapi_text_add(dump->out, "%s=%llu\n", name, (unsigned long long)value);
}

static int backend_stats(void *ctx, struct uapi_text *out)
{
	struct control *c = ctx;
	struct stats_dump dump = {.out = out};

	metrics_each(c->params.metrics, dump_counter, &dump);
	return 0;
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

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
