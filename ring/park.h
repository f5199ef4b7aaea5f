/*
 * A parking place for one consuming thread, over ck_ec (an event count on a futex).
 *
 * Exactly one thread waits; any thread wakes. A wake costs the waker one atomic add while the consumer is
 * awake and one futex call only when the consumer has announced that it sleeps. The protocol of the consumer:
 *
 *	ticket = park_ticket(park);
 *	if (every queue is still empty)
 *		park_wait(park, ticket, deadline_ns);
 *
 * No wake-up is lost: a push that the look at the queues missed came after the ticket, so its wake changes
 * the event count and park_wait() returns at once.
 */
#pragma once

#include <ck_ec.h>

#include "ring/base.h"

#define PARK_FOREVER UINT64_MAX

struct park_counters {
	counter_t parks;        /* times the owner slept; written by the owner */
	_Atomic uint64_t wakes; /* futex wakes given to the owner; written by any waker */
};

struct park {
	CACHE_ALIGNED struct ck_ec32 event_count;
	struct ck_ec_ops ops; /* per park, so that its callbacks find these counters */
	unsigned spin_looks;  /* looks at the event count before sleeping; 0: gives way instead */
	struct park_counters counters;
};

/* Control thread, before the park is shared. A park holds no resource, so there is no park_done(). */
void park_init(struct park *park);

/* Owner thread. The current event count, to be taken before the last look at the queues. */
uint32_t park_ticket(const struct park *park);

/*
 * Owner thread. Sleep until the event count differs from the ticket or until deadline_ns (CLOCK_MONOTONIC
 * nanoseconds, PARK_FOREVER for none). Returns true when woken, false when the deadline passed.
 * Spurious returns are allowed; an owner that is signalled goes on sleeping. The caller is RCU-offline while
 * it waits.
 */
bool park_wait(struct park *park, uint32_t ticket, uint64_t deadline_ns);

/* Any thread. Make the owner look at its queues again. */
void park_wake(struct park *park);

/*
 * From now on the calling thread also counts in *given the futex wakes that it gives to others, as the only
 * writer. NULL, with which every thread starts, ends that.
 */
void park_count_wakes(counter_t *given);

/*
 * Any thread. CPUs that this process may run on, which a container often limits further than what is online;
 * found out once. UINT_MAX: more than can be counted.
 */
unsigned park_cpus(void);
/*
 * With this many CPUs or fewer there may be none for a thread that is woken: it then runs in place of the thread
 * that woke it, not beside it.
 */
#define PARK_FEW_CPUS 2
/*
 * For a thread that is about to sleep until there is work. On few CPUs it lets other runnable threads go
 * first, which often brings that work and saves a sleep and a wake-up, and returns true: look once more. On
 * more CPUs it does nothing and returns false.
 */
bool park_give_way(void);

/* CLOCK_MONOTONIC in nanoseconds, the clock of the deadlines above. */
uint64_t park_clock_ns(void);
