#include "core/client/rates.h"

#include "core/client/bottleneck.h"
#include "core/client/stage.h"

struct rates rates_find(const struct reading *before, const struct reading *after, const char *thread)
{
	const struct stage *stage = stage_find(thread);
	const double seconds = reading_seconds(before, after);
	struct rates r = {.cpu_percent = bottleneck_thread_percent(before, after, thread)};

	if (!stage)
		return r;
	const uint64_t now = rates_syscalls(after, thread), old = rates_syscalls(before, thread);

	r.packets = (double)reading_grown(before, after, thread, stage->packets) / seconds;
	r.bits = (double)reading_grown(before, after, thread, stage->bytes) * 8 / seconds;
	r.trains = (double)reading_grown(before, after, thread, stage->trains) / seconds;
	r.packets_per_train = r.trains > 0 ? r.packets / r.trains : 0;
	r.syscalls = now > old ? (double)(now - old) / seconds : 0;
	r.wakes = (double)reading_grown(before, after, thread, METRIC_WAKES) / seconds;
	r.wakes_given = (double)reading_grown(before, after, thread, METRIC_WAKES_GIVEN) / seconds;
	r.parks = (double)reading_grown(before, after, thread, METRIC_PARKS) / seconds;
	return r;
}

uint64_t rates_syscalls(const struct reading *r, const char *thread)
{
	const struct stage *stage = stage_find(thread);
	uint64_t sum = 0;

	if (!stage)
		return 0;
	const struct metrics_group_info *shown = metrics_group_info(stage->kind);

	for (unsigned i = 0; i < shown->nr; i++)
		if (strcmp(metric_info(shown->metrics[i])->unit, METRICS_SYSCALLS) == 0)
			sum += reading_value(r, thread, shown->metrics[i]);
	return sum;
}
