#include "core/client/report.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>

static struct reading before, after;
static char *text;
static size_t text_len;

static void given(struct reading *r, const char *const lines[][2])
{
	for (; (*lines)[0]; lines++)
		cr_assert_eq(reading_take_counter(r, (*lines)[0], (*lines)[1]), 0);
}

static void setup(void)
{
	static const char *const old[][2] = {{"group", "process"}, {"time_ns", "1000000000"},
		{"cpu_ns", "100000000"}, {"group", "udp-tx"}, {"datagrams", "100"}, {"bytes", "1000"},
		{"messages", "10"}, {"calls", "5"}, {"parks", "1"}, {"queue_len", "7"},
		{"queue_capacity", "64"}, {"gso_segments.le_0", "0"}, {"gso_segments.le_1", "4"},
		{"gso_segments.le_2", "0"}, {"gso_segments.le_4", "0"}, {"gso_segments.le_8", "6"},
		{"gso_segments.le_inf", "0"}, {"cpu_ns", "0"}, {"group", "drops"}, {"egress_down", "3"},
		{"egress_no_peer", "0"}, {NULL, NULL}};
	static const char *const new[][2] = {{"group", "process"}, {"time_ns", "3000000000"},
		{"cpu_ns", "1100000000"}, {"group", "udp-tx"}, {"datagrams", "2100"}, {"bytes", "2001000"},
		{"messages", "60"}, {"calls", "25"}, {"parks", "3"}, {"queue_len", "9"},
		{"queue_capacity", "64"}, {"gso_segments.le_0", "0"}, {"gso_segments.le_1", "4"},
		{"gso_segments.le_2", "0"}, {"gso_segments.le_4", "0"}, {"gso_segments.le_8", "56"},
		{"gso_segments.le_inf", "2"}, {"cpu_ns", "500000000"}, {"group", "drops"},
		{"egress_down", "23"}, {"egress_no_peer", "0"}, {NULL, NULL}};
	static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

	given(&before, old);
	given(&after, new);
	cr_assert_eq(reading_take_peer(&before, "public_key", hex), 0);
	cr_assert_eq(reading_take_peer(&before, "rx_bytes", "0"), 0);
	cr_assert_eq(reading_take_peer(&after, "public_key", hex), 0);
	cr_assert_eq(reading_take_peer(&after, "rx_bytes", "500000"), 0);
	cr_assert_eq(reading_take_peer(&after, "allowed_ip", "10.0.0.2/32"), 0);
}

static void teardown(void)
{
	reading_done(&before);
	reading_done(&after);
	free(text);
}

TestSuite(report, .init = setup, .fini = teardown);

static json_t *report(const struct reading *old, bool compact)
{
	FILE *out = open_memstream(&text, &text_len);
	json_t *root;

	cr_assert_eq(report_json(out, "wg0", old, &after, compact), 0);
	fclose(out);
	root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	cr_assert(root, "%s", text);
	return root;
}

Test(report, json_of_totals)
{
	json_t *root = report(NULL, false);
	json_int_t datagrams, syscalls, one, inf, drop, time_ns, rx;
	const char *ifname, *allowed;

	cr_assert_eq(
		json_unpack(root, "{s:s, s:{s:I}, s:{s:{s:I, s:I, s:{s:I, s:I}}}, s:{s:I}, s:[{s:I, s:[s]}]}",
			"interface", &ifname, "process", "time_ns", &time_ns, "threads", "udp-tx",
			"datagrams", &datagrams, "syscalls", &syscalls, "gso_segments", "1", &one, "inf",
			&inf, "drops", "egress_down", &drop, "peers", "rx_bytes", &rx, "allowed_ips",
			&allowed),
		0, "%s", text);
	cr_assert_str_eq(ifname, "wg0");
	cr_assert_eq(datagrams, 2100);
	cr_assert_eq(syscalls, 28);
	cr_assert_eq(one, 4);
	cr_assert_eq(inf, 2);
	cr_assert_eq(drop, 23);
	cr_assert_eq(time_ns, 3000000000);
	cr_assert_eq(rx, 500000);
	cr_assert_str_eq(allowed, "10.0.0.2/32");
	cr_assert_null(json_object_get(root, "interval"));
	cr_assert_null(json_object_get(json_array_get(json_object_get(root, "peers"), 0), "endpoint"));
	/* A gateway of another version does not say. */
	cr_assert(json_is_null(json_object_get(root, "state")) &&
		  json_is_null(json_object_get(root, "public_key")));
	json_decref(root);
}

Test(report, json_says_state_and_public_key)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	const char *state, *key;
	json_int_t port;
	json_t *root;

	reading_done(&after);
	cr_assert_eq(reading_take_counter(&after, "public_key", hex), 0);
	cr_assert_eq(reading_take_counter(&after, "group", "process"), 0);
	cr_assert_eq(reading_take_counter(&after, "interface_up", "1"), 0);
	cr_assert_eq(reading_take_counter(&after, "port_bound", "1"), 0);
	cr_assert_eq(reading_take_counter(&after, "listen_port", "51820"), 0);
	root = report(NULL, true);
	cr_assert_eq(json_unpack(root, "{s:s, s:s, s:{s:I}}", "state", &state, "public_key", &key, "process",
			     "listen_port", &port),
		0, "%s", text);
	cr_assert_str_eq(state, "up");
	cr_assert_str_eq(key, "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8=");
	cr_assert_eq(port, 51820);
	json_decref(root);
}

Test(report, json_of_an_interval_is_one_line)
{
	json_t *root = report(&before, true);
	double seconds, packets, cpu;
	const char *sentence;

	cr_assert_eq(strchr(text, '\n'), text + text_len - 1);
	cr_assert_eq(json_unpack(root, "{s:{s:F, s:{s:{s:F, s:F}}}, s:{s:n, s:s}}", "interval", "seconds",
			     &seconds, "threads", "udp-tx", "packets_per_s", &packets, "cpu_percent", &cpu,
			     "bottleneck", "stage", "sentence", &sentence),
		0, "%s", text);
	cr_assert_float_eq(seconds, 2, 1e-9);
	cr_assert_float_eq(packets, 1000, 0.1);
	cr_assert_float_eq(cpu, 25, 0.1);
	cr_assert(*sentence);
	json_decref(root);
}

/* Of each thread exactly those that its own work took; waking it is the work of others. */
Test(report, syscalls_of_a_thread_are_its_own)
{
	static const struct {
		const char *thread, *syscalls[5];
	} of[] = {
		{"tun-rx3", {"reads", "polls", "parks", "wakes_given"}},
		{"state", {"parks", "wakes_given"}},
		{"udp-tx", {"calls", "waits", "parks", "wakes_given"}},
		{"udp-rx", {"calls", "polls", "parks", "wakes_given"}},
		{"tun-tx3", {"writes", "write_errors", "parks", "wakes_given"}},
	};

	for (unsigned i = 0; i < ARRAY_LEN(of); i++) {
		for (unsigned g = 0; g < METRICS_GROUP_COUNT; g++) {
			const struct metrics_group_info *group = metrics_group_info((enum metrics_group)g);
			json_int_t shown, wanted = 0, value = 1;
			json_t *root;
			FILE *out;

			if (!reading_is_kind(of[i].thread, (enum metrics_group)g))
				continue;
			/* Each metric is a power of two of its own, so that the sum tells which are in it. */
			reading_done(&after);
			cr_assert_eq(reading_take_counter(&after, "group", of[i].thread), 0);
			for (unsigned m = 0; m < group->nr; m++, value *= 2) {
				const char *name = metric_name(group->metrics[m]);
				char digits[32];

				snprintf(digits, sizeof(digits), "%lld", (long long)value);
				cr_assert_eq(reading_take_counter(&after, name, digits), 0);
				for (const char *const *s = of[i].syscalls; *s; s++)
					wanted += strcmp(*s, name) == 0 ? value : 0;
			}
			out = open_memstream(&text, &text_len);
			cr_assert_eq(report_json(out, "wg0", NULL, &after, true), 0);
			fclose(out);
			root = json_loads(text, 0, NULL);
			cr_assert_eq(json_unpack(root, "{s:{s:{s:I}}}", "threads", of[i].thread, "syscalls",
					     &shown),
				0, "%s", text);
			cr_assert_eq(shown, wanted, "%s: %llx, not %llx", of[i].thread, (long long)shown,
				(long long)wanted);
			json_decref(root);
			free(text);
			text = NULL;
		}
	}
}
