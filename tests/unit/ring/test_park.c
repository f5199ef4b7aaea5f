#include "ring/park.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

/* Long enough for a loaded machine; only a failing test waits for it. */
#define FAR_AWAY_NS (60 * NS_PER_SEC)

struct sleeper {
	struct park park;
	pthread_t thread;
	uint64_t deadline_ns;
	bool woken;
	_Atomic bool back;
};

static void *sleep_once(void *arg)
{
	struct sleeper *s = arg;

	s->woken = park_wait(&s->park, park_ticket(&s->park), s->deadline_ns);
	s->back = true;
	return NULL;
}

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void start(struct sleeper *s, uint64_t deadline_ns)
{
	memset(s, 0, sizeof(*s));
	park_init(&s->park);
	s->deadline_ns = deadline_ns;
	cr_assert_eq(pthread_create(&s->thread, NULL, sleep_once, s), 0);
	/* In the kernel or about to enter it: the sleeping flag is up. */
	while (!ck_ec32_has_waiters(&s->park.event_count) || counter_read(&s->park.counters.parks) == 0)
		nap_ms(1);
}

Test(park, wake_after_the_ticket_ends_the_wait_before_it_begins)
{
	struct park park;
	uint32_t ticket;

	park_init(&park);
	ticket = park_ticket(&park);
	park_wake(&park);
	cr_assert(park_wait(&park, ticket, PARK_FOREVER));
	cr_assert_eq(counter_read(&park.counters.parks), 0);
	cr_assert_eq(park.counters.wakes, 0);
}

Test(park, wake_before_the_ticket_does_not_end_the_wait)
{
	struct park park;

	park_init(&park);
	park_wake(&park);
	cr_assert_not(park_wait(&park, park_ticket(&park), park_clock_ns() + 5 * NS_PER_MS));
}

Test(park, waker_of_an_awake_owner_makes_no_system_call)
{
	struct park park;

	park_init(&park);
	for (unsigned i = 0; i < 100000; i++)
		park_wake(&park);
	cr_assert_eq(park.counters.wakes, 0);
}

Test(park, deadline_that_has_passed_does_not_sleep)
{
	struct park park;

	park_init(&park);
	cr_assert_not(park_wait(&park, park_ticket(&park), park_clock_ns() - 1));
	cr_assert_not(park_wait(&park, park_ticket(&park), 0));
	cr_assert_eq(counter_read(&park.counters.parks), 0);
}

Test(park, wake_beats_a_deadline_that_has_passed)
{
	struct park park;
	uint32_t ticket;

	park_init(&park);
	ticket = park_ticket(&park);
	park_wake(&park);
	cr_assert(park_wait(&park, ticket, 0));
}

/* ck would sleep 2, 16, 128 and 1024 ms in turn and look at the deadline in between. */
Test(park, sleeps_once_and_until_the_deadline)
{
	static const uint64_t lengths_ns[] = {NS_PER_MS, 20 * NS_PER_MS, 200 * NS_PER_MS};
	struct park park;

	for (size_t i = 0; i < ARRAY_LEN(lengths_ns); i++) {
		uint64_t deadline_ns, late_ns;

		park_init(&park);
		deadline_ns = park_clock_ns() + lengths_ns[i];
		cr_assert_not(park_wait(&park, park_ticket(&park), deadline_ns));
		late_ns = park_clock_ns() - deadline_ns;
		cr_assert_lt(late_ns, 400 * NS_PER_MS, "early by or late by %ld ns", (long)late_ns);
		cr_assert_eq(counter_read(&park.counters.parks), 1);
	}
}

Test(park, owner_sleeps_undisturbed_until_it_is_woken)
{
	struct sleeper s;

	start(&s, PARK_FOREVER);
	nap_ms(300);
	cr_assert_not(s.back);
	cr_assert_eq(counter_read(&s.park.counters.parks), 1, "the owner woke up for nothing");
	park_wake(&s.park);
	pthread_join(s.thread, NULL);
	cr_assert(s.woken);
	cr_assert_eq(s.park.counters.wakes, 1);
}

Test(park, wake_ends_a_wait_with_a_deadline)
{
	struct sleeper s;

	start(&s, park_clock_ns() + FAR_AWAY_NS);
	park_wake(&s.park);
	pthread_join(s.thread, NULL);
	cr_assert(s.woken);
	cr_assert_lt(park_clock_ns(), s.deadline_ns);
}

Test(park, second_wake_of_the_same_sleep_makes_no_system_call)
{
	struct sleeper s;

	start(&s, PARK_FOREVER);
	park_wake(&s.park);
	pthread_join(s.thread, NULL);
	park_wake(&s.park);
	cr_assert_eq(s.park.counters.wakes, 1);
}

static void ignore(int signal)
{
}

Test(park, signals_do_not_end_the_wait)
{
	struct sleeper s;
	struct sigaction action = {.sa_handler = ignore};

	sigaction(SIGUSR1, &action, NULL);
	start(&s, PARK_FOREVER);
	for (unsigned i = 0; i < 10; i++) {
		pthread_kill(s.thread, SIGUSR1);
		nap_ms(2);
	}
	cr_assert_not(s.back);
	park_wake(&s.park);
	pthread_join(s.thread, NULL);
	cr_assert(s.woken);
}

/* ck keeps the sleeping flag in the top bit, above a count of 31 bits. */
Test(park, event_count_wraps)
{
	struct park park;
	uint32_t ticket;

	park_init(&park);
	park.event_count.counter = INT32_MAX;
	ticket = park_ticket(&park);
	park_wake(&park);
	cr_assert(park_wait(&park, ticket, park_clock_ns() + FAR_AWAY_NS));
	cr_assert_not(park_wait(&park, park_ticket(&park), park_clock_ns() + NS_PER_MS));
	ticket = park_ticket(&park);
	park_wake(&park);
	cr_assert(park_wait(&park, ticket, park_clock_ns() + FAR_AWAY_NS));
}

Test(park, clock_is_monotonic_nanoseconds)
{
	struct timespec now;
	uint64_t before_ns = park_clock_ns();
	uint64_t now_ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	cr_assert_leq(before_ns, now_ns);
	cr_assert_leq(now_ns, park_clock_ns());
	cr_assert_lt(now_ns - before_ns, NS_PER_SEC);
}
