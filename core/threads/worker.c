#include "core/threads/worker.h"

#include <time.h>
#include <urcu-qsbr.h>

#include "core/base/thread.h"

void worker_init(struct worker *w, const _Atomic bool *stopping)
{
	park_init(&w->park);
	w->stopping = stopping;
	w->started = false;
}

int worker_start(struct worker *w, const char *name, void *(*run)(void *), void *arg)
{
	const int err = thread_start(&w->thread, name, run, arg);

	w->started = !err;
	return err;
}

void worker_wake(struct worker *w)
{
	if (w->started)
		park_wake(&w->park);
}

void worker_join(struct worker *w)
{
	if (w->started)
		pthread_join(w->thread, NULL);
	w->started = false;
}

uint64_t worker_cpu_ns(const void *worker)
{
	const struct worker *w = worker;
	struct timespec time;
	clockid_t clock;

	/* A thread that has ended, because its device is gone, has no clock any more. */
	if (pthread_getcpuclockid(w->thread, &clock) || clock_gettime(clock, &time))
		return 0;
	return (uint64_t)time.tv_sec * NS_PER_SEC + (uint64_t)time.tv_nsec;
}

void worker_consume(
	struct worker *w, struct baton *baton, bool reads_rcu, uint64_t (*turn)(void *arg), void *arg)
{
	bool holds = false;

	if (reads_rcu)
		rcu_register_thread();
	for (;;) {
		/* Taken before the look at the flag: a wake for the flag that comes later moves the count. */
		const uint32_t ticket = park_ticket(&w->park);
		uint64_t deadline_ns = PARK_FOREVER;

		if (worker_stopping(w))
			break;
		holds = holds || baton_claim(baton);
		if (holds) {
			deadline_ns = turn(arg);
			if (!deadline_ns)
				continue;
			baton_pass(baton);
			holds = false;
		}
		if (reads_rcu)
			rcu_thread_offline();
		park_wait(&w->park, ticket, deadline_ns);
		if (reads_rcu)
			rcu_thread_online();
	}
	if (reads_rcu)
		rcu_unregister_thread();
}
