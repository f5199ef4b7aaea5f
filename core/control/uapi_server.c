#include "core/control/uapi_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/base/log.h"
#include "ring/park.h"

/* Rounds of reading for one client before the others have their turn. */
#define CLIENT_ROUNDS 16

struct client {
	struct event_source source;
	struct uapi_session *session; /* NULL: the place is free */
	uint32_t events;              /* what the loop waits for */
	uint64_t moved_ns;            /* last time a byte went either way */
	uint64_t served_ns;           /* last time an answer was complete, at first the time of connecting */
	bool half_closed;             /* sends no more */
};

struct uapi_server {
	struct event_loop *loop;
	const struct uapi_backend *backend;
	struct event_source listener;
	/* Since when no client is accepted, for want of a place or a descriptor; 0: it is not paused. */
	uint64_t paused_ns;
	unsigned nr_clients;
	struct client clients[UAPI_SERVER_CLIENTS_MAX];
};

static void listener_ready(void *arg, struct event_source *source);
static void pause_listener(struct uapi_server *s);
static void resume_listener(struct uapi_server *s);
static struct client *free_place(struct uapi_server *s);
static void client_ready(void *arg, struct event_source *source);
static bool client_exchange(struct client *client);
static bool client_send(struct client *client);
static bool client_receive(struct client *client);
static void client_close(struct uapi_server *s, struct client *client);
static size_t unread_bytes(const struct client *client);

int uapi_server_new(
	struct uapi_server **out, struct event_loop *loop, const struct uapi_backend *backend, int listen_fd)
{
	struct uapi_server *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->backend = backend;
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++)
		s->clients[i].source.fd = -1;
	s->listener.fd = -1;
	err = event_loop_watch(loop, &s->listener, fcntl(listen_fd, F_DUPFD_CLOEXEC, 0), listener_ready, s);
	if (err) {
		free(s);
		return err;
	}
	*out = s;
	return 0;
}

void uapi_server_free(struct uapi_server *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++)
		client_close(s, &s->clients[i]);
	event_loop_unwatch(s->loop, &s->listener);
	free(s);
}

bool uapi_server_is_busy(const struct uapi_server *s)
{
	return s->nr_clients || s->paused_ns;
}

void uapi_server_tick(struct uapi_server *s, uint64_t now_ns)
{
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX && s->nr_clients; i++) {
		struct client *client = &s->clients[i];

		if (!client->session)
			continue;
		if (!unread_bytes(client) && !uapi_session_in_request(client->session))
			continue;
		if (now_ns - client->moved_ns >= UAPI_SERVER_STALL_NS)
			client_close(s, client);
	}
	/*
	 * The next client that waits finds out whether somebody can make room by now; if not, the pause goes
	 * on.
	 */
	if (s->paused_ns && now_ns - s->paused_ns >= UAPI_SERVER_TICK_NS)
		resume_listener(s);
}

size_t uapi_server_unread_bytes(const struct uapi_server *s)
{
	size_t total = 0;

	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++)
		if (s->clients[i].session)
			total += unread_bytes(&s->clients[i]);
	return total;
}

static void listener_ready(void *arg, struct event_source *source)
{
	struct uapi_server *s = arg;
	struct client *client = free_place(s);
	int fd, err;

	if (!client) {
		pause_listener(s);
		return;
	}
	fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		log_limited(LOG_LEVEL_WARN, LOG_UAPI, "accepting a client: %s", strerror(errno));
		pause_listener(s);
		return;
	}
	err = event_loop_watch(s->loop, &client->source, fd, client_ready, s);
	if (!err) {
		err = uapi_session_new(&client->session, s->backend);
		if (err)
			event_loop_unwatch(s->loop, &client->source);
	}
	if (err) {
		log_limited(LOG_LEVEL_WARN, LOG_UAPI, "serving a client: %s", strerror(-err));
		return;
	}
	s->nr_clients++;
	client->events = EPOLLIN;
	client->half_closed = false;
	client->moved_ns = client->served_ns = park_clock_ns();
}

/* Meanwhile further clients wait in the backlog of the socket. */
static void pause_listener(struct uapi_server *s)
{
	s->paused_ns = park_clock_ns();
	IGNORE_RESULT("at worst it is ready again, and paused again",
		event_loop_set_events(s->loop, &s->listener, 0));
}

static void resume_listener(struct uapi_server *s)
{
	if (!s->paused_ns)
		return;
	s->paused_ns = 0;
	if (event_loop_set_events(s->loop, &s->listener, EPOLLIN))
		s->paused_ns = park_clock_ns();
}

/* A place for one more client, if need be that of the one that has gone longest without an answer. */
static struct client *free_place(struct uapi_server *s)
{
	struct client *longest = NULL;

	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++) {
		struct client *client = &s->clients[i];

		if (!client->session)
			return client;
		if (!longest || client->served_ns < longest->served_ns)
			longest = client;
	}
	if (park_clock_ns() - longest->served_ns < UAPI_SERVER_EVICT_NS)
		return NULL;
	client_close(s, longest);
	return longest;
}

static void client_ready(void *arg, struct event_source *source)
{
	struct uapi_server *s = arg;
	struct client *client = CONTAINER_OF(source, struct client, source);
	uint32_t events;

	if (!client_exchange(client)) {
		client_close(s, client);
		return;
	}
	/* An answer may be left although the client, which waits for it, sends nothing more. */
	events = unread_bytes(client) ? EPOLLOUT : EPOLLIN;
	if (events == client->events)
		return;
	if (event_loop_set_events(s->loop, source, events)) {
		client_close(s, client);
		return;
	}
	client->events = events;
}

/*
 * Moves bytes both ways until the client makes us wait. Nothing is read while an answer waits, so that a
 * client which never reads costs one answer and no more. false: the client is gone or done.
 */
static bool client_exchange(struct client *client)
{
	for (unsigned round = 0; round < CLIENT_ROUNDS; round++) {
		if (!client_send(client))
			return false;
		if (unread_bytes(client))
			return true;
		if (client->half_closed || uapi_session_broken(client->session))
			return false;
		if (!client_receive(client))
			return true;
	}
	return true;
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

/* Harmless for a place that is free. */
static void client_close(struct uapi_server *s, struct client *client)
{
	if (!client->session)
		return;
	event_loop_unwatch(s->loop, &client->source);
	uapi_session_free(client->session);
	client->session = NULL;
	s->nr_clients--;
	resume_listener(s);
}

static size_t unread_bytes(const struct client *client)
{
	size_t len;

	uapi_session_answer(client->session, &len);
	return len;
}
