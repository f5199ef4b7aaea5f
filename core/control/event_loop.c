#include "core/control/event_loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_MAX 32

int event_loop_init(struct event_loop *loop)
{
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll_fd < 0 ? -errno : 0;
}

void event_loop_done(struct event_loop *loop)
{
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	loop->epoll_fd = -1;
}

int event_loop_watch(struct event_loop *loop, struct event_source *source, int fd, event_fn ready, void *arg)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
	int err;

	if (fd < 0)
		return -errno;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		err = -errno;
		close(fd);
		return err;
	}
	*source = (struct event_source){.ready = ready, .arg = arg, .fd = fd};
	return 0;
}

int event_loop_set_events(struct event_loop *loop, struct event_source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) ? -errno : 0;
}

void event_loop_unwatch(struct event_loop *loop, struct event_source *source)
{
	if (source->fd < 0)
		return;
	/* Closing alone ends nothing while another descriptor of the same file is open. */
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	close(source->fd);
	source->fd = -1;
}

int event_loop_turn(struct event_loop *loop, int timeout_ms, const bool *stop)
{
	struct epoll_event events[EVENTS_MAX];
	const int nr = epoll_wait(loop->epoll_fd, events, EVENTS_MAX, timeout_ms);

	if (nr < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < nr && !*stop; i++) {
		struct event_source *source = events[i].data.ptr;

		/* A function called before in this turn may have closed it. */
		if (source->fd >= 0)
			source->ready(source->arg, source);
	}
	return 0;
}
