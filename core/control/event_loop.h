/*
 * What the control thread waits for: descriptors, each with the function that is called when it is ready.
 * Control thread.
 */
#pragma once

#include "ring/base.h"

struct event_source;

typedef void (*event_fn)(void *arg, struct event_source *source);

/* Part of whoever waits; stays where it is while it is watched. */
struct event_source {
	event_fn ready;
	void *arg;
	int fd; /* -1: not watched */
};

struct event_loop {
	int epoll_fd;
};

#define EVENT_LOOP_INIT                                                                                      \
	{                                                                                                    \
		.epoll_fd = -1                                                                               \
	}

/* -EMFILE, -ENOMEM. */
int event_loop_init(struct event_loop *loop) MUST_CHECK;
/* No source is watched any more. Accepts a loop whose event_loop_init() failed. */
void event_loop_done(struct event_loop *loop);
/*
 * Calls ready(arg, source) whenever fd can be read. fd becomes the source's, also on failure, and may be the
 * result of a system call just made: for -1 this returns -errno.
 */
int event_loop_watch(
	struct event_loop *loop, struct event_source *source, int fd, event_fn ready, void *arg) MUST_CHECK;
/* Waits for these events (EPOLLIN, EPOLLOUT, 0: none) from now on. -ENOMEM. */
int event_loop_set_events(struct event_loop *loop, struct event_source *source, uint32_t events) MUST_CHECK;
/* Closes the descriptor. Harmless when the source is not watched. */
void event_loop_unwatch(struct event_loop *loop, struct event_source *source);
/*
 * Waits until a source is ready, timeout_ms at most, and calls those that are. After each, *stop says whether
 * to leave the rest. -errno when the waiting itself fails.
 */
int event_loop_turn(struct event_loop *loop, int timeout_ms, const bool *stop) MUST_CHECK;
