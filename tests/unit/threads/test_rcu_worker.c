#include "core/threads/rcu_worker.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <urcu-qsbr.h>

#include "core/threads/pipeline.h"
#include "crypto/aead.h"
#include "crypto/secret.h"
#include "tun/tun_mem.h"

#define NOBODY 65534
#define UNUSED_USER 64242

enum { GOOD, BAD, NOT_FORBIDDEN };

static void *nothing(void *arg)
{
	return arg;
}

/* From now on this process can make no thread. Whether that is so. */
static bool forbid_threads(void)
{
	const struct rlimit none = {0};
	pthread_t thread;

	/* The limit is not for root, except in a user namespace, where there may be nobody else to become. */
	IGNORE_RESULT("the attempt below tells", setuid(NOBODY));
	if (setrlimit(RLIMIT_NPROC, &none))
		return false;
	if (pthread_create(&thread, NULL, nothing, NULL))
		return true;
	pthread_join(thread, NULL);
	return false;
}

/* Finds the thread of this name; reads which signals it blocks. */
static bool find_thread(const char *name, unsigned long long *blocked)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	bool found = false;

	while (tasks && !found && (entry = readdir(tasks))) {
		char path[300], line[128], comm[32] = "";
		FILE *status;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		status = fopen(path, "r");
		while (status && fgets(line, sizeof(line), status)) {
			sscanf(line, "Name: %31s", comm);
			sscanf(line, "SigBlk: %llx", blocked);
		}
		if (status)
			fclose(status);
		found = strcmp(comm, name) == 0;
	}
	if (tasks)
		closedir(tasks);
	return found;
}

/* The exit status of fn() in a child. Fails when a signal ended it. */
static int in_child(int (*fn)(void))
{
	int status;
	const pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		alarm(60);
		_exit(fn());
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status), "ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == NOT_FORBIDDEN)
		cr_skip_test("threads cannot be forbidden here");
	return WEXITSTATUS(status);
}

static bool freed;

static void free_rcu(struct rcu_head *head)
{
	freed = true;
}

static int free_without_threads(void)
{
	static struct rcu_head head;

	const int first = rcu_worker_start(), again = rcu_worker_start();

	if (first || again)
		return BAD;
	if (!forbid_threads())
		return NOT_FORBIDDEN;
	rcu_register_thread();
	call_rcu(&head, free_rcu);
	rcu_barrier();
	rcu_unregister_thread();
	return freed ? GOOD : BAD;
}

Test(rcu_worker, frees_when_no_thread_can_be_made_any_more)
{
	cr_assert_eq(in_child(free_without_threads), GOOD);
}

static int start_without_threads(void)
{
	if (!forbid_threads())
		return NOT_FORBIDDEN;
	return rcu_worker_start() == -EAGAIN ? GOOD : BAD;
}

Test(rcu_worker, start_fails_when_no_thread_can_be_made)
{
	cr_assert_eq(in_child(start_without_threads), GOOD);
}

static int start_in_the_last_place(void)
{
	const struct rlimit two = {2, 2};

	/* Nobody else's: the limit counts the user's threads. */
	if (setuid(UNUSED_USER) || setrlimit(RLIMIT_NPROC, &two))
		return NOT_FORBIDDEN;
	return rcu_worker_start() ? BAD : GOOD;
}

/* The thread that tries whether there is room must have given its own back. */
Test(rcu_worker, start_works_in_the_last_place_that_is_left)
{
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(in_child(start_in_the_last_place), GOOD);
}

static int look_at_the_thread(void)
{
	unsigned long long blocked = 0;

	if (rcu_worker_start() || !find_thread("rcu", &blocked))
		return BAD;
	return blocked & 1ull << (SIGTERM - 1) && blocked & 1ull << (SIGINT - 1) ? GOOD : BAD;
}

Test(rcu_worker, has_a_name_and_leaves_signals_to_others)
{
	cr_assert_eq(in_child(look_at_the_thread), GOOD);
}

static void add_and_remove_a_peer(struct device *dev, void *arg)
{
	static const uint8_t key[NOISE_KEY_BYTES] = {9};
	struct peer *peer = peer_new(key, NULL);

	if (!peer)
		return;
	device_add_peer(dev, peer);
	device_remove_peer(dev, peer);
	*(bool *)arg = true;
}

static int remove_a_peer_without_threads(void)
{
	struct pipeline *pipeline;
	struct aead_result results[8];
	unsigned nr;
	struct tun_mem *tun;
	struct tun_queue *queue;
	bool done = false;

	if (secret_init() || tun_mem_new(&tun, 0, 0, 16, NULL, NULL))
		return BAD;
	queue = tun_mem_queue(tun);
	if (pipeline_start(&pipeline, &(struct pipeline_config){.tun_threads = 1,
					      .aead = aead_fastest(results, &nr),
					      .mtu = 1420,
					      .queues = &queue}))
		return BAD;
	if (!forbid_threads())
		return NOT_FORBIDDEN;
	pipeline_call(pipeline, add_and_remove_a_peer, &done);
	pipeline_stop(pipeline);
	tun_mem_free(tun);
	return done ? GOOD : BAD;
}

Test(rcu_worker, peer_can_be_removed_when_no_thread_can_be_made_any_more)
{
	cr_assert_eq(in_child(remove_a_peer_without_threads), GOOD);
}
