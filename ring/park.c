#include "ring/park.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ring/sanitize.h"

/*
 * How many times a thread looks at its event count before it sleeps, where another CPU may be about to change
 * it: a few microseconds, less than a futex sleep and wake cost together.
 */
#define SPIN_LOOKS 100

/* Where this thread counts the wakes that it gives to others; see park_count_wakes(). */
static _Thread_local counter_t *wakes_given;

static int monotonic_now(const struct ck_ec_ops *ops, struct timespec *now);
static void futex_wait(const struct ck_ec_wait_state *state, const uint32_t *word, uint32_t expected,
	const struct timespec *backoff);
static void futex_wake(const struct ck_ec_ops *ops, const uint32_t *word);
static bool spin(const struct park *park, uint32_t ticket);

void park_init(struct park *park)
{
	memset(park, 0, sizeof(*park));
	ck_ec32_init(&park->event_count, 0);
	park->ops.gettime = monotonic_now;
	park->ops.wait32 = futex_wait;
	park->ops.wake32 = futex_wake;
	/*
	 * The least that ck can do; 0 would mean its default of 100. ck still looks after it has set the
	 * sleeping flag, when every wake already costs a futex call. spin() looks before that, where it saves
	 * one.
	 */
	park->ops.busy_loop_iter = 1;
	park->spin_looks = park_cpus() <= PARK_FEW_CPUS ? 0 : SPIN_LOOKS;
}

uint32_t park_ticket(const struct park *park)
{
	/*
	 * Contains an acquire fence after its load, which pairs with the release in park_wake(): who reads
	 * the new count also sees what was pushed before that wake, when it looks at the queues afterwards.
	 */
	uint32_t ticket = ck_ec32_value(&park->event_count);

	TSAN_ACQUIRE(&park->event_count);
	return ticket;
}

bool park_wait(struct park *park, uint32_t ticket, uint64_t deadline_ns)
{
	const struct ck_ec_mode mode = {.ops = &park->ops, .single_producer = false};
	struct timespec at;
	struct timespec *deadline = NULL;
	bool woken;

	if (deadline_ns != PARK_FOREVER) {
		at.tv_sec = (time_t)(deadline_ns / NS_PER_SEC);
		at.tv_nsec = (long)(deadline_ns % NS_PER_SEC);
		deadline = &at;
	}
	/*
	 * A wake after the ticket prevents the sleep: ck sets the sleeping flag with a compare-and-swap on
	 * the word that a wake increments, and the kernel compares that word again before it sleeps; one of
	 * the two fails. The deadline is passed a second time, as the callback's data; see futex_wait().
	 */
	woken = spin(park, ticket) ||
		ck_ec32_wait_pred(&park->event_count, &mode, ticket, NULL, deadline, deadline) == 0;
	TSAN_ACQUIRE(&park->event_count);
	return woken;
}

void park_wake(struct park *park)
{
	const struct ck_ec_mode mode = {.ops = &park->ops, .single_producer = false};

	TSAN_RELEASE(&park->event_count);
	/* Orders earlier stores before its increment; pairs with the acquire in park_ticket(). */
	ck_ec32_inc(&park->event_count, &mode);
}

void park_count_wakes(counter_t *given)
{
	wakes_given = given;
}

unsigned park_cpus(void)
{
	static _Atomic unsigned cpus;
	unsigned known = atomic_load_explicit(&cpus, memory_order_relaxed);
	cpu_set_t set;

	if (unlikely(!known)) {
		/* The call fails only where there are more CPUs than the set can name. */
		known = sched_getaffinity(0, sizeof(set), &set) ? UINT_MAX : (unsigned)CPU_COUNT(&set);
		atomic_store_explicit(&cpus, known, memory_order_relaxed);
	}
	return known;
}

bool park_give_way(void)
{
	if (park_cpus() > PARK_FEW_CPUS)
		return false;
	sched_yield();
	return true;
}

uint64_t park_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

static int monotonic_now(const struct ck_ec_ops *ops, struct timespec *now)
{
	return clock_gettime(CLOCK_MONOTONIC, now);
}

/*
 * Sleeps until the caller's deadline, which park_wait() passed as the data (NULL for none), and not for the
 * time that ck proposes. ck's proposals grow to a second, to make up for wakes that its single-producer mode
 * can lose. That mode is not used here; they would wake an idle thread for nothing, and could overshoot the
 * deadline.
 */
static void futex_wait(const struct ck_ec_wait_state *state, const uint32_t *word, uint32_t expected,
	const struct timespec *backoff)
{
	struct park *park = CONTAINER_OF(state->ops, struct park, ops);
	const struct timespec *deadline = state->data;

	counter_add(&park->counters.parks, 1);
	/*
	 * Unlike FUTEX_WAIT, the bit set variant takes an absolute time. ck finds out itself why it returned.
	 */
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake(const struct ck_ec_ops *ops, const uint32_t *word)
{
	struct park *park = CONTAINER_OF(ops, struct park, ops);

	atomic_fetch_add_explicit(&park->counters.wakes, 1, memory_order_relaxed);
	if (wakes_given)
		counter_add(wakes_given, 1);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool spin(const struct park *park, uint32_t ticket)
{
	if (ck_ec32_value(&park->event_count) != ticket)
		return true;
	if (!park->spin_looks && park_give_way())
		return ck_ec32_value(&park->event_count) != ticket;
	for (unsigned i = 0; i < park->spin_looks; i++) {
		if (ck_ec32_value(&park->event_count) != ticket)
			return true;
		ck_pr_stall();
	}
	return false;
}
