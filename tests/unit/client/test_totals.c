#include "core/client/totals.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
#define BASE64 "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8="

static struct reading r;
static char *text;

static void given(const char *key, const char *value)
{
	cr_assert_eq(reading_take_counter(&r, key, value), 0, "%s=%s", key, value);
}

static void given_process(const char *up, const char *bound, const char *port)
{
	given("group", "process");
	given("cpu_ns", "20000000");
	given("uptime_ns", "200000000000");
	given("interface_up", up);
	given("port_bound", bound);
	given("listen_port", port);
}

static void print(bool all)
{
	size_t len;
	FILE *out = open_memstream(&text, &len);

	totals_print(out, "wg0", &r, all);
	fclose(out);
}

static void teardown(void)
{
	reading_done(&r);
	free(text);
}

TestSuite(totals, .fini = teardown);

static void expect(const char *words)
{
	cr_assert(strstr(text, words), "\"%s\" is not in:\n%s", words, text);
}

Test(totals, begin_with_state_and_traffic)
{
	given("public_key", hex);
	given_process("1", "1", "51820");
	given("group", "state");
	given("segments", "12345");
	given("bytes", "177000000");
	given("group", "tun-tx0");
	given("packets", "600");
	given("bytes", "50000");
	given("group", "tun-tx1");
	given("packets", "400");
	given("bytes", "50000");
	print(false);
	cr_assert_str_eq(totals_state(&r), "up");
	cr_assert_eq(strncmp(text, "interface: wg0\n  state: up\n", 27), 0, "%s", text);
	expect("  state: up\n  public key: " BASE64 "\n  listening port: 51820\n  uptime: 3 min\n"
	       "  received: 1,000 packets, 100 kB (5 packets/s, 0.0 Mbit/s since the start)\n"
	       "  sent: 12,345 packets, 177 MB (62 packets/s, 7.1 Mbit/s since the start)\n"
	       "  cpu: 0.02 s (0.0% of one CPU since the start)\n\ndrops\n  none\n\nthread ");
}

Test(totals, say_why_no_packets_pass)
{
	given_process("0", "0", "51820");
	print(false);
	cr_assert_str_eq(totals_state(&r), "down");
	expect("  state: down; to set it up: ip link set wg0 up\n");
	expect("  public key: (no private key is set)\n");
	expect("  listening port: 51820 (not bound)\n");
	reading_done(&r);
	free(text);
	given_process("1", "0", "51820");
	print(false);
	cr_assert_str_eq(totals_state(&r), "unbound");
	expect("  state: up, but without its UDP port");
	expect("wg set wg0 listen-port PORT\n");
}

Test(totals, of_another_version_leave_out_what_it_does_not_say)
{
	given("group", "process");
	given("cpu_ns", "20000000");
	print(false);
	cr_assert_null(totals_state(&r));
	expect("interface: wg0\n  received: 0 packets, 0 B\n  sent: 0 packets, 0 B\n  cpu: 0.02 s\n\n");
}

Test(totals, explain_the_drops_that_happened)
{
	given("group", "drops");
	given("egress_no_peer", "1234");
	given("egress_down", "0");
	given("of_the_future", "7");
	print(false);
	expect("drops\n"
	       "  egress_no_peer                                1,234\n"
	       "    destination is in no peer's allowed IPs; compare the routes of the\n"
	       "    interface with the allowed IPs.\n"
	       "  of_the_future                                     7\n"
	       "\n");
	cr_assert(!strstr(text, "egress_down"), "%s", text);
}

static void given_threads(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		char name[METRICS_GROUP_BYTES];

		snprintf(name, sizeof(name), "tun-tx%u", i);
		given("group", name);
		for (unsigned m = 0; m < metrics_group_info(METRICS_GROUP_TUN_TX)->nr; m++)
			given(metric_name(metrics_group_info(METRICS_GROUP_TUN_TX)->metrics[m]), "654321");
	}
}

/* However many counters each has, and in the width of a terminal. */
Test(totals, have_a_line_for_each_thread)
{
	unsigned lines = 0;

	given("group", "control");
	given("cpu_ns", "20000000");
	given_threads(64);
	print(false);
	expect("\ncontrol     0.02 s\n");
	expect("\ntun-tx63    0.00 s         654,321   654 kB      1.0     654,321  654321/654321\n");
	for (const char *line = text; *line; line += strcspn(line, "\n") + 1, lines++)
		cr_assert_leq(strcspn(line, "\n"), 80, "%s", line);
	cr_assert_lt(lines, 64 + 16);
}

Test(totals, of_everything_have_every_counter)
{
	given("group", "udp-tx");
	given("datagrams", "2100");
	given("gso_segments.le_0", "0");
	given("gso_segments.le_1", "4");
	given("gso_segments.le_2", "0");
	given("gso_segments.le_4", "0");
	given("gso_segments.le_8", "56");
	given("gso_segments.le_inf", "2");
	print(true);
	expect("interface: wg0\n");
	expect("drops\n  none\n");
	expect("udp-tx\n  datagrams                    2100\n  gso_segments 1: 4  5-8: 56  >8: 2\n");
	cr_assert(!strstr(text, "thread "), "%s", text);
}

Test(totals, end_with_the_peers)
{
	cr_assert_eq(reading_take_peer(&r, "public_key", hex), 0);
	cr_assert_eq(reading_take_peer(&r, "rx_bytes", "500000"), 0);
	cr_assert_eq(reading_take_peer(&r, "allowed_ip", "10.0.0.2/32"), 0);
	print(false);
	expect("\npeer: " BASE64 "\n  allowed ips: 10.0.0.2/32\n  transfer: 500 kB received, 0 B sent\n\n");
}
