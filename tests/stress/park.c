/*
 * No wake-up is ever missed. In every round a waker posts one number, wakes the owner and goes on only when
 * the owner has answered: a single missed wake-up stops the program for good, for no later wake covers it up.
 *
 * Three shapes: two threads bound to one CPU, where every round really sleeps; a waker that posts at a random
 * moment while the owner on another CPU is on its way to sleep; and several wakers, each of which parks too.
 */
#include <sched.h>

#include "ring/park.h"
#include "tests/stress/stress.h"

#define WAKERS_MAX 4

struct side {
	struct park park;
	CACHE_ALIGNED _Atomic uint64_t posted;
};

struct waker {
	struct side in;        /* where the waker receives the answers */
	struct side *owner_in; /* its own word at the owner */
	struct park *owner;
	uint64_t rounds;
	bool dallies; /* spins for the answer and waits a random moment before it posts */
};

struct owner {
	struct park park;
	struct side in[WAKERS_MAX]; /* only the words are used: the owner has one park for all */
	struct waker waker[WAKERS_MAX];
	unsigned nr;
	uint64_t rounds; /* of all wakers */
	bool dallies;    /* between its ticket, its look and its sleep */
	int cpu;         /* where the owner runs, or -1 */
	counter_t answered;
};

static void bind_to(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0, "cannot bind to CPU %d", cpu);
}

/* Parks until the word has changed from what it was, and returns what it is. */
static uint64_t await(struct park *park, const _Atomic uint64_t *word, uint64_t old)
{
	for (;;) {
		uint32_t ticket = park_ticket(park);
		uint64_t now = atomic_load_explicit(word, memory_order_acquire);

		if (now != old)
			return now;
		REQUIRE(park_wait(park, ticket, PARK_FOREVER), "a wait without a deadline timed out");
	}
}

/* A random moment, short ones more often. */
static void dally(uint64_t *seed)
{
	for (uint64_t i = stress_random(seed) % 128 >> stress_random(seed) % 8; i > 0; i--)
		ck_pr_stall();
}

static void await_spinning(const _Atomic uint64_t *word, uint64_t old)
{
	for (unsigned i = 0; atomic_load_explicit(word, memory_order_acquire) == old; i++) {
		/* The owner may need this CPU. */
		if (i > 1000)
			sched_yield();
		else
			ck_pr_stall();
	}
}

static void *run_waker(void *arg)
{
	struct waker *self = arg;
	uint64_t seed = (uintptr_t)self | 1;

	for (uint64_t i = 1; i <= self->rounds; i++) {
		atomic_store_explicit(&self->owner_in->posted, i, memory_order_release);
		park_wake(self->owner);
		if (self->dallies) {
			await_spinning(&self->in.posted, i - 1);
			dally(&seed);
			continue;
		}
		REQUIRE(await(&self->in.park, &self->in.posted, i - 1) == i, "wrong answer");
	}
	return NULL;
}

static void *run_owner(void *arg)
{
	struct owner *self = arg;
	uint64_t seen[WAKERS_MAX] = {0};
	uint64_t seed = (uintptr_t)self | 1;

	bind_to(self->cpu);
	while (counter_read(&self->answered) < self->rounds) {
		uint32_t ticket = park_ticket(&self->park);
		bool idle = true;

		if (self->dallies)
			dally(&seed);
		for (unsigned i = 0; i < self->nr; i++) {
			struct waker *waker = &self->waker[i];
			uint64_t now = atomic_load_explicit(&self->in[i].posted, memory_order_acquire);

			if (now == seen[i])
				continue;
			REQUIRE(now == seen[i] + 1, "a round was skipped");
			seen[i] = now;
			idle = false;
			counter_add(&self->answered, 1);
			atomic_store_explicit(&waker->in.posted, now, memory_order_release);
			if (!waker->dallies)
				park_wake(&waker->in.park);
		}
		if (!idle)
			continue;
		if (self->dallies)
			dally(&seed);
		REQUIRE(park_wait(&self->park, ticket, PARK_FOREVER), "timed out without a deadline");
	}
	return NULL;
}

static void run(const char *name, unsigned wakers, bool dallies, int cpu, uint64_t rounds)
{
	static struct owner owner;
	pthread_t owner_thread, waker_thread[WAKERS_MAX];
	uint64_t began_ns = park_clock_ns();
	uint64_t parks, wakes;

	memset(&owner, 0, sizeof(owner));
	park_init(&owner.park);
	owner.nr = wakers;
	owner.rounds = rounds / wakers * wakers;
	owner.cpu = cpu;
	owner.dallies = dallies;
	for (unsigned i = 0; i < wakers; i++) {
		park_init(&owner.waker[i].in.park);
		owner.waker[i].owner_in = &owner.in[i];
		owner.waker[i].owner = &owner.park;
		owner.waker[i].rounds = rounds / wakers;
		owner.waker[i].dallies = dallies;
	}
	stress_watch(name, &owner.answered);
	owner_thread = stress_start(run_owner, &owner);
	for (unsigned i = 0; i < wakers; i++)
		waker_thread[i] = stress_start(run_waker, &owner.waker[i]);
	for (unsigned i = 0; i < wakers; i++)
		stress_join(waker_thread[i]);
	stress_join(owner_thread);
	stress_unwatch();

	parks = counter_read(&owner.park.counters.parks);
	wakes = owner.park.counters.wakes;
	for (unsigned i = 0; i < wakers; i++) {
		parks += counter_read(&owner.waker[i].in.park.counters.parks);
		wakes += owner.waker[i].in.park.counters.wakes;
	}
	printf("park: %s: %llu rounds, %llu sleeps, %llu futex wakes, none missed, %.1f s\n", name,
		(unsigned long long)owner.rounds, (unsigned long long)parks, (unsigned long long)wakes,
		(double)(park_clock_ns() - began_ns) / 1e9);
	/* Two that only take turns may never do: each gives way to the other before it sleeps. */
	REQUIRE(parks > 0 || !dallies || rounds < 1000, "nobody ever slept");
}

/* The first CPU of the set from this one on. */
static int next_cpu(const cpu_set_t *set, int cpu)
{
	while (!CPU_ISSET(cpu, set))
		cpu++;
	return cpu;
}

int main(void)
{
	uint64_t rounds = stress_rounds(1500000);
	cpu_set_t all;
	int first, last;

	REQUIRE(sched_getaffinity(0, sizeof(all), &all) == 0, "no CPU set");
	first = last = next_cpu(&all, 0);
	if (CPU_COUNT(&all) > 1)
		last = next_cpu(&all, first + 1);
	/* The wakers inherit this; the owner goes where it is told. */
	bind_to(first);
	run("two threads on one CPU", 1, false, first, rounds);
	run("a waker at random moments", 1, true, last, rounds / 10 + 1);
	REQUIRE(sched_setaffinity(0, sizeof(all), &all) == 0, "cannot leave CPU %d", first);
	run("four wakers that park", 4, false, -1, rounds / 2 + 4);
	return 0;
}
