#include "core/base/metrics.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

static char seen[65536];

static void note(void *arg, const char *group, const char *name, uint64_t value)
{
	size_t len = strlen(seen);

	snprintf(seen + len, sizeof(seen) - len, "%s.%s=%llu ", group, name, (unsigned long long)value);
}

Test(metrics, counters_are_read_live)
{
	struct metrics *m;
	counter_t a = 1, b = UINT64_MAX;

	cr_assert_eq(metrics_new(&m), 0);
	metrics_add_value(m, METRICS_GROUP_TUN_RX, 0, METRIC_TUN_READS, &a);
	metrics_add_value(m, METRICS_GROUP_TUN_RX, 1, METRIC_TUN_READS, &b);
	metrics_add_value(m, METRICS_GROUP_DROPS, 0, METRIC_DROP_EGRESS_DOWN, &a);
	cr_assert_eq(metrics_status(m), 0);
	counter_add(&a, 41);
	metrics_each(m, note, NULL);
	cr_assert_str_eq(seen, "tun-rx0.reads=42 tun-rx1.reads=18446744073709551615 drops.egress_down=42 ");
	metrics_clear(m);
	*seen = '\0';
	metrics_each(m, note, NULL);
	cr_assert_str_eq(seen, "");
	metrics_free(m);
	metrics_free(NULL);
}

/* In a build with the undefined behaviour sanitizer: there is no array yet to walk. */
Test(metrics, nothing_is_shown_where_nothing_was_registered)
{
	struct metrics *m;

	cr_assert_eq(metrics_new(&m), 0);
	metrics_each(m, note, NULL);
	cr_assert_str_eq(seen, "");
	metrics_free(m);
}

/* Who registers first does not matter, so that each thread can register its own. */
Test(metrics, are_shown_in_the_order_of_the_table)
{
	struct metrics *m;
	counter_t n[6] = {1, 2, 3, 4, 5, 6};

	cr_assert_eq(metrics_new(&m), 0);
	metrics_add_value(m, METRICS_GROUP_DROPS, 0, METRIC_DROP_EGRESS_DOWN, &n[0]);
	metrics_add_value(m, METRICS_GROUP_TUN_TX, 10, METRIC_INGRESS_VIEWS, &n[1]);
	metrics_add_value(m, METRICS_GROUP_TUN_TX, 9, METRIC_PARKS, &n[2]);
	metrics_add_value(m, METRICS_GROUP_TUN_TX, 9, METRIC_INGRESS_VIEWS, &n[3]);
	metrics_each(m, note, NULL);
	cr_assert_str_eq(seen, "tun-tx9.views=4 tun-tx9.parks=3 tun-tx10.views=2 drops.egress_down=1 ");
	*seen = '\0';
	metrics_add_value(m, METRICS_GROUP_CONTROL, 0, METRIC_CPU_NS, &n[4]);
	metrics_add_value(m, METRICS_GROUP_PROCESS, 0, METRIC_TIME_NS, &n[5]);
	metrics_each(m, note, NULL);
	cr_assert_str_eq(seen, "process.time_ns=6 control.cpu_ns=5 tun-tx9.views=4 tun-tx9.parks=3 "
			       "tun-tx10.views=2 drops.egress_down=1 ");
	metrics_free(m);
}

Test(metrics, of_several_sources_are_added_up)
{
	struct metrics *m;
	struct drops a = {0}, b = {0};
	struct histogram h = {0};

	drop(&a, DROP_EGRESS_NO_PEER, 3);
	drop(&b, DROP_EGRESS_NO_PEER, 4);
	drop(&b, DROP_HANDSHAKE_DOWN, 5);
	histogram_add_times(&h, 2, 6);
	cr_assert_eq(metrics_new(&m), 0);
	metrics_add_drops(m, &a);
	metrics_add_drops(m, &b);
	metrics_add_histogram(m, METRICS_GROUP_STATE, 0, METRIC_QUEUE_SEEN, &h);
	metrics_add_histogram(m, METRICS_GROUP_STATE, 0, METRIC_QUEUE_SEEN, &h);
	metrics_each(m, note, NULL);
	cr_assert(strstr(seen, "drops.egress_no_peer=7 "), "%s", seen);
	cr_assert(strstr(seen, "drops.handshake_down=5 "), "%s", seen);
	cr_assert(strstr(seen, "state.queue_seen.le_2=12 "), "%s", seen);
	metrics_free(m);
}

Test(metrics, takes_as_many_as_there_are)
{
	struct metrics *m;
	counter_t one = 1;
	uint64_t nr = 0;

	cr_assert_eq(metrics_new(&m), 0);
	for (unsigned i = 0; i < 1000; i++)
		metrics_add_value(m, METRICS_GROUP_TUN_RX, i, METRIC_PARKS, &one);
	cr_assert_eq(metrics_status(m), 0);
	metrics_each(m, note, NULL);
	for (const char *c = seen; *c; c++)
		nr += *c == ' ';
	cr_assert_eq(nr, 1000);
	metrics_free(m);
}

static uint64_t read_twice(const void *arg)
{
	return 2 * *(const uint64_t *)arg;
}

Test(metrics, histograms_show_each_bucket_and_others_what_is_read)
{
	struct metrics *m;
	struct histogram h = {0};
	uint64_t value = 21;
	unsigned shown = 0;

	cr_assert_eq(metrics_new(&m), 0);
	histogram_add(&h, 0);
	histogram_add_times(&h, 40, 3);
	histogram_add(&h, 4000);
	metrics_add_histogram(m, METRICS_GROUP_STATE, 0, METRIC_EGRESS_TRAIN_SEGMENTS, &h);
	metrics_add_read(m, METRICS_GROUP_STATE, 0, METRIC_CPU_NS, read_twice, &value);
	metrics_each(m, note, NULL);
	for (const char *c = seen; (c = strstr(c, ".le_")); c++)
		shown++;
	cr_assert_eq(shown, HISTOGRAM_BUCKETS, "%s", seen);
	cr_assert(strstr(seen, "state.train_segments.le_0=1 state.train_segments.le_1=0 "), "%s", seen);
	cr_assert(strstr(seen, ".le_32=0 state.train_segments.le_64=3 "), "%s", seen);
	cr_assert(strstr(seen, ".le_inf=1 state.cpu_ns=42 "), "%s", seen);
	metrics_free(m);
}

/* What cannot be registered is told at the end, and nothing after it is. */
Test(metrics, refuses_what_its_group_does_not_show)
{
	static const struct {
		enum metrics_group group;
		unsigned index;
		enum metric metric;
	} wrong[] = {
		{METRICS_GROUP_STATE, 0, METRIC_TUN_READS}, {METRICS_GROUP_STATE, 1, METRIC_PARKS},
		{METRICS_GROUP_STATE, 0, METRIC_QUEUE_SEEN}, /* not a histogram */
	};
	struct metrics *m;
	counter_t one = 1;

	cr_assert_eq(metrics_new(&m), 0);
	for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
		metrics_add_value(m, wrong[i].group, wrong[i].index, wrong[i].metric, &one);
		cr_assert_eq(metrics_status(m), -EINVAL, "%u", i);
		metrics_add_value(m, METRICS_GROUP_STATE, 0, METRIC_PARKS, &one);
		cr_assert_eq(metrics_status(m), -EINVAL);
		metrics_each(m, note, NULL);
		cr_assert_str_eq(seen, "");
		metrics_clear(m);
		cr_assert_eq(metrics_status(m), 0);
	}
	metrics_free(m);
	metrics_add_value(NULL, METRICS_GROUP_STATE, 0, METRIC_PARKS, &one);
	cr_assert_eq(metrics_status(NULL), 0);
}

static bool is_name(const char *text)
{
	for (const char *c = text; *c; c++)
		if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && *c != '_')
			return false;
	return *text != '\0';
}

Test(metrics_table, every_metric_has_a_name_a_unit_and_a_sentence_of_help)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++) {
		const struct metric_info *info = metric_info((enum metric)i);
		const char *help = info->help;

		cr_assert(is_name(info->name), "\"%s\"", info->name);
		cr_assert(is_name(info->unit), "%s: \"%s\"", info->name, info->unit);
		cr_assert_gt(strlen(help), 10, "%s", info->name);
		cr_assert_eq(help[strlen(help) - 1], '.', "%s: %s", info->name, help);
		cr_assert_null(strstr(help, ". "), "%s has more than a sentence: %s", info->name, help);
	}
}

Test(metrics_table, names_and_help_are_unique_in_a_group)
{
	for (unsigned g = 0; g < METRICS_GROUP_COUNT; g++) {
		const struct metrics_group_info *group = metrics_group_info((enum metrics_group)g);

		cr_assert_lt(strlen(group->name) + strlen("4294967295"), METRICS_GROUP_BYTES);
		cr_assert_gt(group->nr, 0);
		for (unsigned i = 0; i < group->nr; i++)
			for (unsigned j = 0; j < i; j++) {
				const struct metric_info *a = metric_info(group->metrics[i]);
				const struct metric_info *b = metric_info(group->metrics[j]);

				cr_assert_str_neq(a->name, b->name, "%s", group->name);
				cr_assert_str_neq(a->help, b->help, "%s", group->name);
			}
	}
}

Test(metrics_table, every_metric_is_shown_by_a_group)
{
	bool shown[METRIC_COUNT] = {0};

	for (unsigned g = 0; g < METRICS_GROUP_COUNT; g++)
		for (unsigned i = 0; i < metrics_group_info((enum metrics_group)g)->nr; i++)
			shown[metrics_group_info((enum metrics_group)g)->metrics[i]] = true;
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		cr_assert(shown[i], "%s", metric_info((enum metric)i)->name);
}
