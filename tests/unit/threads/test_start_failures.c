/*
 * A start that fails half way: whatever allocation or thread it is that fails, pipeline_start() says so and
 * leaves nothing behind. The linker leads those calls of the code under test here (--wrap, meson.build).
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <urcu-qsbr.h>

#include "core/threads/pipeline.h"
#include "crypto/secret.h"
#include "tun/tun_mem.h"

#define QUEUES 3
#define CALLS_MAX 1000

enum kind { MEMORY, THREAD };

/* Atomic because the threads that did start run meanwhile. */
static _Atomic enum kind failing;
static _Atomic unsigned fails_at; /* 0: nothing fails */
static _Atomic unsigned calls;
static _Atomic long blocks; /* malloc()ed and not freed */

static bool fails(enum kind kind)
{
	return fails_at && kind == failing && ++calls == fails_at;
}

static void *counted(void *block)
{
	if (block)
		blocks++;
	return block;
}

/* What the linker makes of a call, and what it leaves of the function called. */
#define WRAPPED(type, name, parameters)                                                                      \
	type __real_##name parameters;                                                                       \
	type __wrap_##name parameters;                                                                       \
	type __wrap_##name parameters

WRAPPED(void *, malloc, (size_t bytes))
{
	return fails(MEMORY) ? NULL : counted(__real_malloc(bytes));
}

WRAPPED(void *, calloc, (size_t nr, size_t bytes))
{
	return fails(MEMORY) ? NULL : counted(__real_calloc(nr, bytes));
}

WRAPPED(void *, aligned_alloc, (size_t alignment, size_t bytes))
{
	return fails(MEMORY) ? NULL : counted(__real_aligned_alloc(alignment, bytes));
}

WRAPPED(void, free, (void *block))
{
	if (block)
		blocks--;
	__real_free(block);
}

WRAPPED(void *, mmap, (void *at, size_t bytes, int protection, int flags, int fd, off_t offset))
{
	if (fails(MEMORY)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return __real_mmap(at, bytes, protection, flags, fd, offset);
}

WRAPPED(void *, mmap64, (void *at, size_t bytes, int protection, int flags, int fd, off_t offset))
{
	return __wrap_mmap(at, bytes, protection, flags, fd, offset);
}

WRAPPED(void *, secret_alloc, (size_t bytes))
{
	return fails(MEMORY) ? NULL : __real_secret_alloc(bytes);
}

WRAPPED(int, eventfd, (unsigned value, int flags))
{
	if (fails(MEMORY)) {
		errno = ENOMEM;
		return -1;
	}
	return __real_eventfd(value, flags);
}

WRAPPED(int, pthread_create,
	(pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg))
{
	return fails(THREAD) ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

static unsigned entries(const char *directory)
{
	DIR *d = opendir(directory);
	unsigned nr = 0;

	cr_assert(d);
	while (readdir(d))
		nr++;
	closedir(d);
	return nr;
}

/* A thread that was joined is still listed for a moment. */
static bool threads_become(unsigned nr)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (entries("/proc/self/task") == nr)
			return true;
		nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
	}
	return false;
}

/* A start, and the end if it succeeds. The call of this number fails; 0: none. */
static int start(struct tun_queue **queues, const struct aead_backend *aead, unsigned failing_call)
{
	struct pipeline *pipeline = NULL;
	struct metrics *metrics;

	cr_assert_eq(metrics_new(&metrics), 0);
	calls = 0;
	fails_at = failing_call;
	const int err = pipeline_start(&pipeline, &(struct pipeline_config){.tun_threads = QUEUES,
							  .aead = aead,
							  .mtu = 1420,
							  .queues = queues,
							  .metrics = metrics});
	fails_at = 0;
	cr_assert_eq(!pipeline, !!err);
	pipeline_stop(pipeline);
	metrics_free(metrics);
	return err;
}

/* Lets the calls fail one after the other, each in a start of its own. Returns how many there are. */
static unsigned fail_each(enum kind kind, const struct aead_backend *aead)
{
	struct tun_mem *mem[QUEUES];
	struct tun_queue *queues[QUEUES];
	unsigned nr = 0;
	int err;

	for (unsigned i = 0; i < QUEUES; i++) {
		cr_assert_eq(tun_mem_new(&mem[i], i, 0, 8, NULL, NULL), 0);
		queues[i] = tun_mem_queue(mem[i]);
	}
	failing = kind;
	const unsigned threads_before = entries("/proc/self/task");
	/* What is made once and stays, as the chunks of secrets do, would move the numbers of the calls. */
	cr_assert_eq(start(queues, aead, 0), 0);
	const long blocks_before = blocks;
	const size_t secrets_before = secret_in_use();
	const unsigned fds_before = entries("/proc/self/fd");

	while ((err = start(queues, aead, nr + 1))) {
		nr++;
		cr_assert_eq(err, kind == MEMORY ? -ENOMEM : -EAGAIN, "call %u: %d", nr, err);
		cr_assert_lt(nr, CALLS_MAX);
		cr_assert_eq(blocks, blocks_before, "call %u: %ld blocks leaked", nr, blocks - blocks_before);
		cr_assert_eq(secret_in_use(), secrets_before, "call %u", nr);
		cr_assert_eq(entries("/proc/self/fd"), fds_before, "call %u", nr);
		cr_assert(threads_become(threads_before), "call %u: a thread is left", nr);
	}
	cr_assert_eq(calls, nr, "call %u failed, and nobody cared", nr + 1);
	for (unsigned i = 0; i < QUEUES; i++)
		tun_mem_free(mem[i]);
	return nr;
}

static const struct aead_backend *init(void)
{
	cr_assert_eq(secret_init(), 0);
	/* liburcu makes its own thread at the first need, and keeps it. */
	cr_assert(get_default_call_rcu_data());
	return aead_find("libsodium");
}

Test(start_failures, of_memory_leave_nothing)
{
	const unsigned nr = fail_each(MEMORY, init());

	cr_assert_gt(nr, 4 * QUEUES, "only %u allocations failed", nr);
}

Test(start_failures, of_a_thread_leave_nothing)
{
	cr_assert_eq(fail_each(THREAD, init()), 3 + 2 * QUEUES);
}
