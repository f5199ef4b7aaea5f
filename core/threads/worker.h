/*
 * What each thread of the pipeline is built on: a POSIX thread with a name, the park that it sleeps on, and the
 * flag that ends it. Made, started, joined on the control thread; the park may be woken by any.
 */
#pragma once

#include <pthread.h>

#include "ring/base.h"
#include "ring/baton.h"
#include "ring/park.h"

struct worker {
	struct park park;
	const _Atomic bool *stopping; /* set by the pipeline, which then wakes everybody */
	pthread_t thread;
	bool started;
};

/* stopping outlives the thread. */
void worker_init(struct worker *w, const _Atomic bool *stopping);
/* All signals are blocked in it: they are for the control thread. name: at most 15 characters. -EAGAIN, ... */
int worker_start(struct worker *w, const char *name, void *(*run)(void *), void *arg) MUST_CHECK;
/* Makes it look at *stopping. Harmless if it was never started, as is worker_join(). */
void worker_wake(struct worker *w);
void worker_join(struct worker *w);
/* CPU time of the thread (a struct worker) in nanoseconds; 0 once it has ended. For the metrics. */
uint64_t worker_cpu_ns(const void *worker);

static inline bool worker_stopping(const struct worker *w)
{
	return atomic_load_explicit(w->stopping, memory_order_relaxed);
}

/*
 * The loop of a thread that consumes a queue under a baton, run by that thread until it is to stop. Whenever it
 * holds the baton it calls turn(arg), which returns 0 to be called again at once, or the time (park_clock_ns()) to
 * be called at the latest, even if nobody wakes it; PARK_FOREVER for none. It sleeps with
 * the baton passed on. reads_rcu: it is a registered QSBR reader, online except while it sleeps.
 */
void worker_consume(
	struct worker *w, struct baton *baton, bool reads_rcu, uint64_t (*turn)(void *arg), void *arg);
