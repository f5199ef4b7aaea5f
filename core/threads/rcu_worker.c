#include "core/threads/rcu_worker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#include <urcu-qsbr.h>

#include "core/base/thread.h"
#include "ring/park.h"

/* The kernel takes microseconds to forget a thread that has ended; this only keeps us from waiting for ever. */
#define FORGET_WAIT_NS NS_PER_SEC

static int probe(void);
static void *probe_run(void *tid);

int rcu_worker_start(void)
{
	static bool started;
	sigset_t all, old;
	int err;

	if (started)
		return 0;
	/* liburcu does not return without a thread, so this finds out whether there can be one. */
	err = probe();
	if (err)
		return err;
	/* As in thread_start(). */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_setname_np(get_call_rcu_thread(get_default_call_rcu_data()), "rcu");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	started = true;
	return 0;
}

/*
 * Makes a thread like liburcu's and waits until the kernel counts it no more, which is after it can be joined: the
 * place that it had in a limit must be free again. Its stack stays with the C library, for the next thread.
 */
static int probe(void)
{
	const uint64_t until_ns = park_clock_ns() + FORGET_WAIT_NS;
	pthread_t thread;
	pid_t tid;
	int err = thread_start(&thread, "rcu", probe_run, &tid);

	if (err)
		return err;
	pthread_join(thread, NULL);
	while (tgkill(getpid(), tid, 0) == 0 && park_clock_ns() < until_ns)
		sched_yield();
	return 0;
}

static void *probe_run(void *tid)
{
	*(pid_t *)tid = gettid();
	return NULL;
}
