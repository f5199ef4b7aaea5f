#include "support.h"

#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crypto/keypair.h"
#include "tests/unit/mapping.h"

TestSuite(secret, .init = support_init);

static bool all(const uint8_t *p, size_t len, uint8_t value)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != value)
			return false;
	return true;
}

Test(secret, hands_out_zeroed_cache_lines_of_every_size)
{
	for (size_t bytes = 1; bytes <= 65536; bytes += bytes < 2048 ? 1 : 509) {
		uint8_t *p = secret_alloc(bytes);

		cr_assert_not_null(p);
		cr_assert_eq((uintptr_t)p % CACHE_LINE, 0);
		cr_assert(all(p, bytes, 0), "%zu bytes", bytes);
		memset(p, 0xa5, bytes);
		cr_assert_eq(secret_in_use(), bytes);
		secret_free(p, bytes);
		cr_assert_eq(secret_in_use(), 0);
	}
	uint8_t *largest = secret_alloc(65536);
	cr_assert_not_null(largest);
	memset(largest, 1, 65536);
	secret_free(largest, 65536);
	cr_assert_null(secret_alloc(65537));
	secret_free(NULL, 64);
	cr_assert_eq(secret_in_use(), 0);
}

#define OBJECTS 500

/* Objects carry a pattern of their own: two that overlapped would spoil it. */
Test(secret, objects_never_overlap)
{
	static struct {
		uint8_t *p;
		size_t bytes;
	} object[OBJECTS];
	struct random random;
	size_t in_use = 0;

	random_init(&random, "secret objects");
	for (unsigned step = 0; step < 20000; step++) {
		uint64_t r = random_next(&random);
		unsigned i = r % OBJECTS;

		if (object[i].p != NULL) {
			cr_assert(all(object[i].p, object[i].bytes, (uint8_t)i));
			secret_free(object[i].p, object[i].bytes);
			in_use -= object[i].bytes;
			object[i].p = NULL;
		} else {
			object[i].bytes = 1 + (r >> 16) % (r >> 12 & 1 ? 200 : 5000);
			object[i].p = secret_alloc(object[i].bytes);
			cr_assert_not_null(object[i].p);
			cr_assert(all(object[i].p, object[i].bytes, 0));
			memset(object[i].p, (int)i, object[i].bytes);
			in_use += object[i].bytes;
		}
		cr_assert_eq(secret_in_use(), in_use);
	}
	for (unsigned i = 0; i < OBJECTS; i++)
		if (object[i].p != NULL)
			secret_free(object[i].p, object[i].bytes);
	cr_assert_eq(secret_in_use(), 0);
}

static void *churn(void *arg)
{
	struct random random = {(uintptr_t)arg};

	for (unsigned step = 0; step < 5000; step++) {
		size_t bytes = 1 + random_next(&random) % 1500;
		uint8_t *p = secret_alloc(bytes);

		if (p == NULL || !all(p, bytes, 0))
			return arg;
		memset(p, 0xff, bytes);
		secret_free(p, bytes);
	}
	return NULL;
}

Test(secret, serves_threads_at_the_same_time)
{
	pthread_t thread[4];

	for (uintptr_t i = 0; i < ARRAY_LEN(thread); i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, churn, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < ARRAY_LEN(thread); i++) {
		void *failed;

		cr_assert_eq(pthread_join(thread[i], &failed), 0);
		cr_assert_null(failed);
	}
	cr_assert_eq(secret_in_use(), 0);
}

Test(secret, memory_stays_out_of_core_dumps_and_children)
{
	uint8_t *p = secret_alloc(1000);
	pid_t child;
	int status;

	memset(p, 0x77, 1000);
	cr_assert(mapping_has_flag(p, " dd"));
	cr_assert(mapping_has_flag(p + 999, " wf"));
	child = fork();
	cr_assert_neq(child, -1);
	if (child == 0)
		_exit(all(p, 1000, 0) ? 0 : 1);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert(all(p, 1000, 0x77));
	secret_free(p, 1000);
}

Test(secret, works_after_a_fork_that_wiped_its_free_lists)
{
	void *p[20];
	pid_t child;
	int status;

	for (unsigned i = 0; i < ARRAY_LEN(p); i++)
		p[i] = secret_alloc(300);
	for (unsigned i = 0; i < ARRAY_LEN(p); i++)
		secret_free(p[i], 300);
	child = fork();
	cr_assert_neq(child, -1);
	if (child == 0) {
		bool good = true;

		for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
			p[i] = secret_alloc(300);
			good = good && p[i] != NULL && all(p[i], 300, 0);
			if (p[i] != NULL)
				memset(p[i], (int)i, 300);
		}
		for (unsigned i = 0; i < ARRAY_LEN(p); i++)
			good = good && all(p[i], 300, (uint8_t)i);
		_exit(good ? 0 : 1);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

Test(secret, does_without_locked_memory)
{
	struct rlimit none = {0, 0};
	void *p[64];

	cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &none), 0);
	for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
		p[i] = secret_alloc(16384);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, 16384);
	}
	for (unsigned i = 0; i < ARRAY_LEN(p); i++)
		secret_free(p[i], 16384);
}

/* Neither the right nor the room to lock memory, as an ordinary user in a container. */
static int without_locked_memory(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct nothing[2] = {0};
	struct rlimit none = {0, 0};
	uint8_t *small, *large;
	bool good;

	if (setrlimit(RLIMIT_MEMLOCK, &none) || syscall(SYS_capset, &header, nothing))
		return 2;
	if (prctl(PR_SET_DUMPABLE, 1) || secret_lock_error())
		return 3;
	small = secret_alloc(100);
	large = secret_alloc_large(1 << 20);
	good = small && large && secret_lock_error() < 0 && mapping_has_flag(small, " dd") &&
	       mapping_has_flag(large, " dd") && mapping_has_flag(large + (1 << 20) - 1, " wf") &&
	       !mapping_has_flag(large, " lo");
	memset(large, 1, 1 << 20);
	secret_free_large(large, 1 << 20);
	secret_free(small, 100);
	return good && secret_in_use() == 0 ? 0 : 1;
}

Test(secret, says_when_memory_cannot_be_locked_and_keeps_its_other_promises)
{
	const pid_t child = fork();
	int status;

	cr_assert_neq(child, -1);
	if (child == 0)
		_exit(without_locked_memory());
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

Test(secret, large_memory_of_every_size_is_guarded_like_small)
{
	static const size_t sizes[] = {1, 65536, 65537, 100000, 1 << 20, (64 << 20) + 1};

	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
		const size_t bytes = sizes[i];
		uint8_t *p = secret_alloc_large(bytes);

		cr_assert(p);
		cr_assert_eq((uintptr_t)p % CACHE_LINE, 0);
		cr_assert(all(p, bytes, 0), "%zu bytes", bytes);
		cr_assert_eq(secret_in_use(), bytes);
		cr_assert(mapping_has_flag(p, " dd") && mapping_has_flag(p + bytes - 1, " wf"));
		cr_assert(secret_lock_error() || mapping_has_flag(p, " lo"));
		memset(p, 1, bytes);
		secret_free_large(p, bytes);
		cr_assert_eq(secret_in_use(), 0);
	}
	cr_assert_not(secret_alloc_large(SIZE_MAX));
	cr_assert_not(secret_alloc_large(SIZE_MAX / 2 + 1));
	secret_free_large(NULL, 0);
	secret_free_large(NULL, 1 << 20);
}

static void touch(const uint8_t *p)
{
	const pid_t child = fork();
	int status;

	cr_assert_neq(child, -1);
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(*(volatile const uint8_t *)p & 0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status), "a neighbour of a large object can be read");
}

Test(secret, pages_around_large_memory_cannot_be_touched)
{
	const size_t bytes = 40 * (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = secret_alloc_large(bytes);

	cr_assert(p);
	touch(p - 1);
	touch(p + bytes);
	secret_free_large(p, bytes);
}

Test(secret, keypairs_are_new_aligned_and_returned)
{
	struct keypair *k = keypair_new();

	cr_assert_not_null(k);
	cr_assert_eq((uintptr_t)k % CACHE_LINE, 0);
	cr_assert(all((const uint8_t *)k, sizeof(*k), 0));
	cr_assert_eq(secret_in_use(), sizeof(*k));
	memset(k->send_key, 0xff, sizeof(k->send_key));
	keypair_free(k);
	cr_assert_eq(secret_in_use(), 0);
	k = keypair_new();
	cr_assert(all((const uint8_t *)k, sizeof(*k), 0));
	keypair_free(k);
	keypair_free(NULL);
}
