#include "core/threads/counters.h"

#include <time.h>

static uint64_t read_channel_len(const void *channel)
{
	return channel_len(channel);
}

static uint64_t read_channel_capacity(const void *channel)
{
	return ((const struct channel *)channel)->capacity;
}

uint64_t counters_read_pool_in_use(const void *pool)
{
	return pool_in_use(pool);
}

uint64_t counters_read_pool_count(const void *pool)
{
	return ((const struct pool *)pool)->count;
}

int counters_add_drops(struct stats *s, const struct drops *d, int err)
{
	for (unsigned why = 0; why < DROP_REASON_COUNT && !err; why++)
		err = stats_add(s, "drops", drop_label(why), &d->by_reason[why]);
	return err;
}

int counters_add_park(struct stats *s, const char *group, const struct park *park, int err)
{
	COUNT(group, park, parks);
	COUNT(group, park, wakes);
	return err;
}

int counters_add_channel(struct stats *s, const char *group, const struct channel *ch, int err)
{
	if (!err)
		err = stats_add(s, group, "queue_high_water", &ch->high_water);
	if (!err)
		err = stats_add(s, group, "queue_refused", &ch->refused);
	GAUGE(group, "queue_len", read_channel_len, ch);
	GAUGE(group, "queue_capacity", read_channel_capacity, ch);
	return err;
}

static uint64_t read_clock(const void *id)
{
	struct timespec time;

	if (clock_gettime(*(const clockid_t *)id, &time))
		return 0;
	return (uint64_t)time.tv_sec * NS_PER_SEC + (uint64_t)time.tv_nsec;
}

int counters_add_process(struct stats *s)
{
	static const clockid_t monotonic = CLOCK_MONOTONIC, process = CLOCK_PROCESS_CPUTIME_ID,
			       this_thread = CLOCK_THREAD_CPUTIME_ID;
	int err = 0;

	GAUGE("process", "time_ns", read_clock, &monotonic);
	GAUGE("process", "cpu_ns", read_clock, &process);
	GAUGE("control", "cpu_ns", read_clock, &this_thread);
	return err;
}
