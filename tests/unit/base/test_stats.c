#include "core/base/stats.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

static char seen[65536];

static void note(void *arg, const char *group, const char *name, uint64_t value)
{
	size_t len = strlen(seen);

	snprintf(seen + len, sizeof(seen) - len, "%s.%s=%llu ", group, name, (unsigned long long)value);
}

Test(stats, counters_are_read_live_in_order_of_registration)
{
	struct stats *s;
	counter_t a = 1, b = UINT64_MAX;
	char group[] = "tun-rx0";

	cr_assert_eq(stats_new(&s), 0);
	cr_assert_eq(stats_add(s, group, "reads", &a), 0);
	group[6] = '1'; /* the name was copied */
	cr_assert_eq(stats_add(s, group, "reads", &b), 0);
	cr_assert_eq(stats_add(s, "drops", "egress_down", &a), 0);
	counter_add(&a, 41);
	stats_each(s, note, NULL);
	cr_assert_str_eq(seen, "tun-rx0.reads=42 tun-rx1.reads=18446744073709551615 drops.egress_down=42 ");
	stats_clear(s);
	*seen = '\0';
	stats_each(s, note, NULL);
	cr_assert_str_eq(seen, "");
	stats_free(s);
	stats_free(NULL);
}

Test(stats, takes_as_many_as_there_are)
{
	struct stats *s;
	counter_t one = 1;
	uint64_t nr = 0;

	cr_assert_eq(stats_new(&s), 0);
	for (unsigned i = 0; i < 1000; i++) {
		char group[STATS_GROUP_BYTES];

		snprintf(group, sizeof(group), "g%u", i);
		cr_assert_eq(stats_add(s, group, "n", &one), 0);
	}
	stats_each(s, note, NULL);
	for (const char *c = seen; *c; c++)
		nr += *c == ' ';
	cr_assert_eq(nr, 1000);
	stats_free(s);
}

static uint64_t read_twice(const void *arg)
{
	return 2 * *(const uint64_t *)arg;
}

Test(stats, histograms_show_each_bucket_and_gauges_what_is_read)
{
	struct stats *s;
	struct histogram h = {0};
	uint64_t value = 21;
	unsigned shown = 0;

	cr_assert_eq(stats_new(&s), 0);
	histogram_add(&h, 0);
	histogram_add_times(&h, 40, 3);
	histogram_add(&h, 4000);
	cr_assert_eq(stats_add_histogram(s, "crypto", "train_segments", &h), 0);
	cr_assert_eq(stats_add_gauge(s, "crypto", "cpu_ns", read_twice, &value), 0);
	stats_each(s, note, NULL);
	for (const char *c = seen; (c = strstr(c, ".le_")); c++)
		shown++;
	cr_assert_eq(shown, HISTOGRAM_BUCKETS, "%s", seen);
	cr_assert(strstr(seen, "crypto.train_segments.le_0=1 crypto.train_segments.le_1=0 "), "%s", seen);
	cr_assert(strstr(seen, ".le_32=0 crypto.train_segments.le_64=3 "), "%s", seen);
	cr_assert(strstr(seen, ".le_inf=1 crypto.cpu_ns=42 "), "%s", seen);
	stats_free(s);
}

Test(stats, refuses_group_names_it_cannot_hold)
{
	struct stats *s;
	counter_t one = 1;

	cr_assert_eq(stats_new(&s), 0);
	cr_assert_eq(stats_add(s, "", "n", &one), -EINVAL);
	cr_assert_eq(stats_add(s, "a-group-name-of-24-bytes", "n", &one), -EINVAL);
	cr_assert_eq(stats_add(s, "a-group-name-of-23-byte", "n", &one), 0);
	cr_assert_eq(stats_add(s, "g", "", &one), -EINVAL);
	cr_assert_eq(stats_add(s, "g", "a_name_that_leaves_no_room_for_its_bucket", &one), -EINVAL);
	stats_free(s);
}
