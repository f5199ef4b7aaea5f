#include "core/client/interval.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct reading before, after;
static char *text;

static void given(const char *group, const char *name, uint64_t old, uint64_t new)
{
	struct reading *readings[] = {&before, &after};
	const uint64_t values[] = {old, new};
	char digits[32];

	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(reading_take_counter(readings[i], "group", group), 0);
		snprintf(digits, sizeof(digits), "%llu", (unsigned long long)values[i]);
		cr_assert_eq(reading_take_counter(readings[i], name, digits), 0);
	}
}

/* The n-th, which received so many bytes. Its key begins and ends with n. */
static void given_peer(unsigned n, uint64_t rx_bytes)
{
	char hex[65], digits[32];

	snprintf(hex, sizeof(hex), "%02x%060x%02x", n, 0, n);
	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)rx_bytes);
	cr_assert_eq(reading_take_peer(&before, "public_key", hex), 0);
	cr_assert_eq(reading_take_peer(&after, "public_key", hex), 0);
	cr_assert_eq(reading_take_peer(&after, "rx_bytes", digits), 0);
	cr_assert_eq(reading_take_peer(&after, "endpoint", "192.0.2.2:51820"), 0);
}

/* Two seconds; a stage with 2000 datagrams of 2,000,000 bytes, 50 messages, 22 system calls, 1/4 of a CPU. */
static void setup(void)
{
	given("process", "time_ns", NS_PER_SEC, 3 * NS_PER_SEC);
	given("process", "cpu_ns", 0, NS_PER_SEC);
	given("udp-tx", "cpu_ns", 0, NS_PER_SEC / 2);
	given("udp-tx", "datagrams", 100, 2100);
	given("udp-tx", "bytes", 1000, 2001000);
	given("udp-tx", "messages", 10, 60);
	given("udp-tx", "calls", 5, 25);
	given("udp-tx", "parks", 1, 3);
	given("udp-tx", "wakes", 0, 8);
	given("udp-tx", "wakes_given", 0, 0);
	given("udp-tx", "queue_len", 7, 9);
	given("udp-tx", "queue_capacity", 64, 64);
	given("udp-rx", "datagrams", 0, 1);
}

static void teardown(void)
{
	reading_done(&before);
	reading_done(&after);
	free(text);
	text = NULL;
}

TestSuite(interval, .init = setup, .fini = teardown);

static void print(unsigned columns, unsigned rows)
{
	size_t len;
	FILE *out;

	free(text);
	out = open_memstream(&text, &len);
	cr_assert_eq(interval_print(out, &(struct interval_room){columns, rows}, "wg0", &before, &after), 0);
	fclose(out);
}

static void expect(const char *words)
{
	cr_assert(strstr(text, words), "\"%s\" is not in:\n%s", words, text);
}

static void expect_not(const char *words)
{
	cr_assert(!strstr(text, words), "\"%s\" is in:\n%s", words, text);
}

/* Every line ends, fits, and has no blanks at its end. */
static unsigned expect_fits(unsigned columns)
{
	unsigned lines = 0;

	for (const char *line = text; *line; lines++) {
		const size_t len = strcspn(line, "\n");

		cr_assert_eq(line[len], '\n');
		cr_assert_leq(len, columns, "%.*s", (int)len, line);
		cr_assert(!len || line[len - 1] != ' ', "%.*s", (int)len, line);
		line += len + 1;
	}
	return lines;
}

Test(interval, shows_rates)
{
	given("drops", "egress_down", 3, 23);
	given("drops", "egress_no_peer", 5, 5);
	given_peer(1, 500000);
	print(0, 0);
	expect("wg0: 0.50 CPUs used over 2.0 s\nNo stage is saturated: the busiest, udp-tx, used 25% of a "
	       "CPU.\n");
	expect("thread     cpu%  packets/s    Mbit/s  trains/s p/train syscalls/s  wakes/s wakes_given/s  "
	       "parks/s "
	       "      queue\n");
	expect("udp-tx     25.0       1000       8.0        25    40.0         11        4             0     "
	       "   1 "
	       "       9/64\n");
	expect("\n\ndrops\n  egress_down                            10.0 /s\n");
	expect_not("egress_no_peer");
	expect("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=        2.0        0.0     500 kB        0 B     "
	       " "
	       "never         192.0.2.2:51820\n");
}

Test(interval, nothing_was_dropped_and_there_is_no_peer)
{
	print(0, 0);
	expect("drops: none\n");
	expect_not("peer");
}

Test(interval, columns_by_use)
{
	given_peer(1, 500000);
	print(79, 0);
	(void)expect_fits(79);
	expect("thread     cpu%  packets/s    Mbit/s  trains/s p/train syscalls/s       queue\n");
	expect("peer                                          rx Mbit/s  tx Mbit/s  handshake\n");
	print(45, 0);
	(void)expect_fits(45);
	expect("thread     cpu%  packets/s    Mbit/s\n");
	expect("\npeer         rx Mbit/s  tx Mbit/s  handshake\n");
	expect("\nAQAA...AAAE        2.0        0.0      never\n");
	print(16, 0);
	expect("thread     cpu%\n");
}

Test(interval, every_width_and_height_is_kept)
{
	given("process", "port_bound", 0, 0);
	given("process", "interface_up", 1, 1);
	given("process", "listen_port", 51820, 51820);
	for (unsigned n = 0; n < 5; n++)
		given_peer(n, n);
	for (unsigned columns = 50; columns < 150; columns++) {
		print(columns, 0);
		(void)expect_fits(columns);
	}
	for (unsigned rows = 8; rows < 40; rows++) {
		print(60, rows);
		cr_assert_leq(expect_fits(60), rows, "%u rows:\n%s", rows, text);
	}
}

Test(interval, sentence_is_wrapped_at_words)
{
	given("process", "port_bound", 0, 0);
	given("process", "interface_up", 1, 1);
	given("process", "listen_port", 51820, 51820);
	print(79, 0);
	(void)expect_fits(79);
	expect("The interface is up but UDP port 51820 is not bound, so nothing is sent or\n"
	       "received: see the log for why, and set another listen-port, or take the\n"
	       "interface down and up again.\n");
}

/* 80 x 24, of which the last row and column are the cursor's. */
Test(interval, forty_peers_and_sixty_four_threads)
{
	char name[16];
	unsigned at[3];

	for (unsigned n = 0; n < 31; n++) {
		snprintf(name, sizeof(name), "tun-rx%u", n);
		given(name, "cpu_ns", 0, n == 17 ? NS_PER_SEC : n * 1000);
		snprintf(name, sizeof(name), "tun-tx%u", n);
		given(name, "cpu_ns", 0, NS_PER_SEC / 100);
	}
	for (unsigned n = 0; n < 40; n++)
		given_peer(n, n == 33 ? 5000000 : n == 5 ? 500000 : 250);
	print(79, 23);
	cr_assert_eq(expect_fits(79), 23, "%s", text);
	/* The busiest threads, in their usual order. */
	at[0] = (unsigned)(strstr(text, "\nudp-tx     25.0") - text);
	at[1] = (unsigned)(strstr(text, "\ntun-rx17   50.0") - text);
	cr_assert(at[0] < at[1] && at[1] < strlen(text), "%s", text);
	expect_not("tun-rx30");
	/* 64 threads, eight of them shown; of the rest 25 use 1/2% each. */
	expect("\nand 56 more, 12.5% of a CPU\n");
	expect("\ndrops: none\n");
	/* The peers with most come first. */
	at[0] = (unsigned)(strstr(text, "\nIQAAAAAA") - text);
	at[1] = (unsigned)(strstr(text, "\nBQAAAAAA") - text);
	at[2] = (unsigned)(strstr(text, "\nAAAAAAAA") - text);
	cr_assert(at[0] < at[1] && at[1] < at[2] && at[2] < strlen(text), "%s", text);
	expect("\nand 32 more, 0.0 Mbit/s\n");
	/* Nothing is left out where there is room. */
	print(79, 200);
	expect("\ntun-rx30    0.0");
	expect_not(" more");
}

Test(interval, hardly_any_row)
{
	for (unsigned n = 0; n < 40; n++)
		given_peer(n, 50000);
	given("drops", "egress_down", 0, 20);
	given("drops", "egress_no_peer", 0, 30);
	print(79, 5);
	expect("\n2 threads, 25.0% of a CPU\n2 drop reasons, 25.0 /s\n40 peers, 8.0 Mbit/s\n");
	print(79, 2);
	cr_assert_eq(expect_fits(79), 2, "%s", text);
}
