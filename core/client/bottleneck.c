#include "core/client/bottleneck.h"

#include <stdarg.h>
#include <stdio.h>

/* What happened between two readings. */
struct interval {
	const struct reading *before, *after;
	const char *busiest; /* thread */
	double busiest_percent;
};

static const char *task(const char *thread);
static void find_busiest(struct interval *in);
static bool find_not_receiving(struct bottleneck *out, const struct interval *in);
static bool find_saturated(struct bottleneck *out, const struct interval *in);
static bool find_machine(struct bottleneck *out, const struct interval *in);
static bool find_waiting(struct bottleneck *out, const struct interval *in);
static const char *find_behind(const struct interval *in);
static void say_behind(struct bottleneck *out, const struct interval *in, const char *thread);
static void say_unlimited(struct bottleneck *out, const struct interval *in);
static uint64_t packets_in(const struct interval *in);
static bool others_use_cpus(const struct interval *in);
static double process_percent_of_machine(const struct interval *in);
static bool falls_behind(const struct interval *in, const char *thread);
static void add_evidence(struct bottleneck *out, const struct interval *in, const char *thread);
static uint64_t grown_of_kind(const struct interval *in, enum metrics_group kind, enum metric metric);
static double crowded_percent(const struct interval *in, const char *thread);
static void say(struct bottleneck *out, const char *fmt, ...) PRINTF_LIKE(2, 3);

void bottleneck_find(struct bottleneck *out, const struct reading *before, const struct reading *after)
{
	struct interval in = {.before = before, .after = after};

	*out = (struct bottleneck){0};
	find_busiest(&in);
	if (!in.busiest)
		say(out, "There is no thread to look at.");
	else if (!find_not_receiving(out, &in) && !find_saturated(out, &in) && !find_machine(out, &in) &&
		 !find_waiting(out, &in))
		say_unlimited(out, &in);
}

double bottleneck_thread_percent(
	const struct reading *before, const struct reading *after, const char *thread)
{
	const double ns = (double)reading_grown(before, after, thread, METRIC_CPU_NS);

	return ns / (double)NS_PER_SEC / reading_seconds(before, after) * 100;
}

double bottleneck_machine_percent(const struct reading *before, const struct reading *after)
{
	const struct reading_machine *old = &before->machine, *new = &after->machine;

	if (!old->cpus || !new->cpus || new->total <= old->total || new->busy < old->busy)
		return 0;
	return (double)(new->busy - old->busy) / (double)(new->total - old->total) * 100;
}

/* What a thread of this name is there for. */
static const char *task(const char *thread)
{
	static const struct {
		enum metrics_group kind;
		const char *task;
	} tasks[] = {
		{METRICS_GROUP_TUN_RX, "read packets from TUN"},
		{METRICS_GROUP_STATE, "encrypt"},
		{METRICS_GROUP_UDP_TX, "send datagrams"},
		{METRICS_GROUP_UDP_RX, "receive datagrams"},
		{METRICS_GROUP_TUN_TX, "decrypt and write to TUN"},
		{METRICS_GROUP_CONTROL, "configure"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(tasks); i++)
		if (reading_is_kind(thread, tasks[i].kind))
			return tasks[i].task;
	return "work";
}

static void find_busiest(struct interval *in)
{
	for (unsigned i = 0; i < in->after->nr_groups; i++) {
		const struct reading_group *g = &in->after->groups[i];
		double percent;

		if (!reading_is_thread(g))
			continue;
		percent = bottleneck_thread_percent(in->before, in->after, g->name);
		if (!in->busiest || percent > in->busiest_percent) {
			in->busiest = g->name;
			in->busiest_percent = percent;
		}
	}
}

/* Down, or up without its port: then nothing else matters. */
static bool find_not_receiving(struct bottleneck *out, const struct interval *in)
{
	const char *process = metrics_group_name(METRICS_GROUP_PROCESS);
	const uint64_t port = reading_value(in->after, process, METRIC_LISTEN_PORT);

	if (!reading_has(in->after, process, METRIC_PORT_BOUND))
		return false; /* a gateway of before it was told */
	if (!reading_value(in->after, process, METRIC_INTERFACE_UP)) {
		strcpy(out->stage, "interface");
		say(out, "The interface is down, so nothing is sent or received.");
		return true;
	}
	if (reading_value(in->after, process, METRIC_PORT_BOUND))
		return false;
	strcpy(out->stage, "port");
	if (port)
		say(out, "The interface is up but UDP port %u is not bound", (unsigned)port);
	else
		say(out, "The interface is up but no UDP port is bound");
	say(out, ", so nothing is sent or received: see the log for why, and set another listen-port, or "
		 "take the interface down and up again.");
	return true;
}

static bool find_saturated(struct bottleneck *out, const struct interval *in)
{
	if (in->busiest_percent < BOTTLENECK_THREAD_PERCENT)
		return false;
	strcpy(out->stage, in->busiest);
	say(out, "%s is saturated: it used %.0f%% of a CPU, to %s", in->busiest, in->busiest_percent,
		task(in->busiest));
	add_evidence(out, in, in->busiest);
	say(out, ".");
	return true;
}

/* All CPUs are busy, with the gateway or with something else. */
static bool find_machine(struct bottleneck *out, const struct interval *in)
{
	const double machine = bottleneck_machine_percent(in->before, in->after);
	const double ours = process_percent_of_machine(in);
	const unsigned cpus = in->after->machine.cpus;

	const char *behind;

	if (machine < BOTTLENECK_MACHINE_PERCENT || in->busiest_percent < BOTTLENECK_IDLE_PERCENT)
		return false;
	if (!others_use_cpus(in)) {
		strcpy(out->stage, "machine");
		say(out,
			"The machine is saturated: its CPUs (%u) were %.0f%% busy, %.0f%% with the gateway, "
			"whose busiest thread, %s, used %.0f%% of a CPU, to %s",
			cpus, machine, ours, in->busiest, in->busiest_percent, task(in->busiest));
		add_evidence(out, in, in->busiest);
		say(out, ".");
		return true;
	}
	if (!packets_in(in))
		return false;
	strcpy(out->stage, "others");
	say(out, "Other work uses the CPUs (%u): they were %.0f%% busy, %.0f%% with the gateway", cpus,
		machine, ours);
	behind = find_behind(in);
	if (behind) {
		say(out, ", which lacks CPU time: ");
		say_behind(out, in, behind);
	} else {
		say(out, ", whose queues keep up.");
	}
	return true;
}

/*
 * No CPU is short, and yet somebody is waited for. From the ends of both ways backwards: a stage that is held
 * up by the next fills its own queue too.
 */
static bool find_waiting(struct bottleneck *out, const struct interval *in)
{
	const uint64_t socket_waits = grown_of_kind(in, METRICS_GROUP_UDP_TX, METRIC_UDP_TX_WAITS);
	const double seconds = reading_seconds(in->before, in->after);
	const char *behind;

	if (socket_waits) {
		strcpy(out->stage, "network");
		say(out,
			"The network below is saturated: udp-tx waited %.0f times a second for room in its "
			"socket, with %.0f%% of a CPU used.",
			(double)socket_waits / seconds,
			bottleneck_thread_percent(
				in->before, in->after, metrics_group_name(METRICS_GROUP_UDP_TX)));
		return true;
	}
	behind = find_behind(in);
	if (!behind)
		return false;
	strcpy(out->stage, behind);
	say_behind(out, in, behind);
	return true;
}

/* The last thread of either way whose queue fills up; NULL if there is none. */
static const char *find_behind(const struct interval *in)
{
	static const enum metrics_group kinds[] = {
		METRICS_GROUP_UDP_TX, METRICS_GROUP_STATE, METRICS_GROUP_TUN_TX};

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
		for (unsigned i = 0; i < in->after->nr_groups; i++) {
			const char *thread = in->after->groups[i].name;

			if (reading_is_kind(thread, kinds[k]) && falls_behind(in, thread))
				return thread;
		}
	}
	return NULL;
}

static void say_behind(struct bottleneck *out, const struct interval *in, const char *thread)
{
	say(out, "%s falls behind with %.0f%% of a CPU used, to %s", thread,
		bottleneck_thread_percent(in->before, in->after, thread), task(thread));
	add_evidence(out, in, thread);
	say(out, ".");
}

/* Nothing limits: the gateway has little to do, or nothing. */
static void say_unlimited(struct bottleneck *out, const struct interval *in)
{
	const double machine = bottleneck_machine_percent(in->before, in->after);
	const double packets = (double)packets_in(in) / reading_seconds(in->before, in->after);

	if (!packets_in(in))
		say(out, "The gateway is idle: no packet came in");
	else if (in->busiest_percent < BOTTLENECK_IDLE_PERCENT)
		say(out, "The gateway is nearly idle: %.*f packets a second came in", packets < 10 ? 1 : 0,
			packets);
	else
		say(out, "No stage is saturated: the busiest, %s, used %.0f%% of a CPU", in->busiest,
			in->busiest_percent);
	if (others_use_cpus(in))
		say(out, "; other work keeps the CPUs (%u) %.0f%% busy", in->after->machine.cpus, machine);
	say(out, ".");
}

static uint64_t packets_in(const struct interval *in)
{
	return grown_of_kind(in, METRICS_GROUP_TUN_RX, METRIC_TUN_READ_PACKETS) +
	       grown_of_kind(in, METRICS_GROUP_UDP_RX, METRIC_UDP_RX_DATAGRAMS);
}

/* All of them, and the gateway has little of it. */
static bool others_use_cpus(const struct interval *in)
{
	const double machine = bottleneck_machine_percent(in->before, in->after);

	return machine >= BOTTLENECK_MACHINE_PERCENT &&
	       process_percent_of_machine(in) * 100 < machine * BOTTLENECK_SHARE_PERCENT;
}

/* CPU time of the gateway, in percent of all CPUs of the machine. */
static double process_percent_of_machine(const struct interval *in)
{
	const double percent =
		bottleneck_thread_percent(in->before, in->after, metrics_group_name(METRICS_GROUP_PROCESS));

	return in->after->machine.cpus ? percent / in->after->machine.cpus : 0;
}

static bool falls_behind(const struct interval *in, const char *thread)
{
	const uint64_t stalls = grown_of_kind(in, METRICS_GROUP_TUN_RX, METRIC_TUN_RX_STALLS);

	/* One flow comes through one reader, whose trains alone do not fill the queue that all share. */
	if (reading_is_kind(thread, METRICS_GROUP_STATE) && stalls &&
		stalls * 100 >= grown_of_kind(in, METRICS_GROUP_TUN_RX, METRIC_TUN_RX_TRAINS) *
					BOTTLENECK_CROWDED_PERCENT)
		return true;
	return crowded_percent(in, thread) >= BOTTLENECK_CROWDED_PERCENT ||
	       reading_grown(in->before, in->after, thread, METRIC_QUEUE_REFUSED);
}

/* What else shows that the others wait for this thread, or why it has so much to do. */
static void add_evidence(struct bottleneck *out, const struct interval *in, const char *thread)
{
	const double crowded = crowded_percent(in, thread);
	const double seconds = reading_seconds(in->before, in->after);
	uint64_t n;

	if (crowded >= BOTTLENECK_CROWDED_PERCENT)
		say(out, "; its queue was more than half full at %.0f%% of its looks", crowded);
	n = reading_grown(in->before, in->after, thread, METRIC_QUEUE_REFUSED);
	if (n)
		say(out, "; its queue was full %.0f times a second", (double)n / seconds);
	n = reading_is_kind(thread, METRICS_GROUP_STATE)
		    ? grown_of_kind(in, METRICS_GROUP_TUN_RX, METRIC_TUN_RX_STALLS)
		    : 0;
	if (n)
		say(out, "; the TUN readers waited for it %.0f times a second", (double)n / seconds);
	n = reading_is_kind(thread, METRICS_GROUP_TUN_TX)
		    ? grown_of_kind(in, METRICS_GROUP_UDP_RX, METRIC_UDP_RX_WAITS)
		    : 0;
	if (n)
		say(out, "; udp-rx waited for it %.0f times a second", (double)n / seconds);
	n = reading_is_kind(thread, METRICS_GROUP_TUN_RX)
		    ? grown_of_kind(in, METRICS_GROUP_STATE, METRIC_STATE_INLINE_TURNS)
		    : 0;
	if (n)
		say(out,
			"; the TUN readers also encrypted in place of the sleeping state thread, %.0f times "
			"a second",
			(double)n / seconds);
	n = reading_is_kind(thread, METRICS_GROUP_UDP_RX)
		    ? grown_of_kind(in, METRICS_GROUP_TUN_TX, METRIC_TUN_TX_INLINE_DRAINS)
		    : 0;
	if (n)
		say(out, "; it also decrypted in place of the sleeping tun-tx threads, %.0f times a second",
			(double)n / seconds);
}

static uint64_t grown_of_kind(const struct interval *in, enum metrics_group kind, enum metric metric)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < in->after->nr_groups; i++)
		if (reading_is_kind(in->after->groups[i].name, kind))
			sum += reading_grown(in->before, in->after, in->after->groups[i].name, metric);
	return sum;
}

/* Share of the looks into the thread's queue that found more than half of its capacity; of buckets, so about.
 */
static double crowded_percent(const struct interval *in, const char *thread)
{
	const uint64_t capacity = reading_value(in->after, thread, METRIC_QUEUE_CAPACITY);
	const struct reading_group *g = reading_group(in->after, thread);
	const char *histogram = metric_name(METRIC_QUEUE_SEEN);
	uint64_t all = 0, crowded = 0, below = 0;

	for (unsigned i = 0; g && capacity && i < g->nr; i++) {
		const char *name = g->counters[i].name, *bound;
		size_t len;

		if (!reading_is_bucket(name, &len, &bound) || len != strlen(histogram) ||
			strncmp(name, histogram, len) != 0)
			continue;
		const uint64_t grown = reading_grown_named(in->before, in->after, thread, name);

		all += grown;
		/* The bucket holds what is above the bound before it. */
		if (2 * below >= capacity)
			crowded += grown;
		below = reading_bound(bound);
	}
	return all ? (double)crowded / (double)all * 100 : 0;
}

static void say(struct bottleneck *out, const char *fmt, ...)
{
	const size_t len = strlen(out->sentence);
	va_list args;

	va_start(args, fmt);
	vsnprintf(out->sentence + len, sizeof(out->sentence) - len, fmt, args);
	va_end(args);
}
