#include "core/client/bottleneck.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct reading before, after;
static struct bottleneck found;

/* "thread.name" with its values at the two readings, a second apart. */
static void given(const char *thread, const char *name, uint64_t old, uint64_t new)
{
	struct reading *readings[] = {&before, &after};
	const uint64_t values[] = {old, new};
	char text[32];

	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(reading_take_counter(readings[i], "group", thread), 0);
		snprintf(text, sizeof(text), "%llu", (unsigned long long)values[i]);
		cr_assert_eq(reading_take_counter(readings[i], name, text), 0);
	}
}

static void given_cpu(const char *thread, unsigned percent)
{
	given(thread, "cpu_ns", 0, percent * (NS_PER_SEC / 100));
}

static void given_machine(unsigned cpus, unsigned busy_percent)
{
	before.machine = (struct reading_machine){.busy = 1000, .total = 5000, .cpus = cpus};
	after.machine = (struct reading_machine){.busy = 1000 + busy_percent, .total = 5100, .cpus = cpus};
}

static void expect(const char *stage, const char *words)
{
	const char *sentence = found.sentence;

	bottleneck_find(&found, &before, &after);
	cr_assert_str_eq(found.stage, stage, "%s: %s", found.stage, sentence);
	cr_assert(strstr(sentence, words), "\"%s\" is not in \"%s\"", words, sentence);
	/* One sentence: it begins, ends and has no other. */
	cr_assert(strlen(sentence) < sizeof(found.sentence) - 1);
	cr_assert_eq(sentence[strlen(sentence) - 1], '.');
	cr_assert(!strstr(sentence, ". "), "%s", sentence);
}

static void setup(void)
{
	given("process", "time_ns", 7 * NS_PER_SEC, 8 * NS_PER_SEC);
	given_cpu("control", 1);
	given_cpu("tun-rx0", 20);
	given_cpu("tun-rx1", 30);
	given_cpu("udp-tx", 25);
	given_cpu("udp-rx", 15);
	given_cpu("tun-tx0", 5);
	given("tun-rx0", "read_packets", 100, 5000);
	given("tun-rx0", "trains", 100, 1000);
	given("state", "queue_capacity", 32, 32);
	given_machine(8, 20);
}

static void teardown(void)
{
	reading_done(&before);
	reading_done(&after);
}

TestSuite(bottleneck, .init = setup, .fini = teardown);

Test(bottleneck, thread_near_a_whole_cpu)
{
	given_cpu("state", 97);
	expect("state", "state is saturated: it used 97% of a CPU, to encrypt.");
	cr_assert_float_eq(bottleneck_thread_percent(&before, &after, "state"), 97, 0.01);
}

Test(bottleneck, thread_goes_before_the_machine)
{
	given_cpu("state", 91);
	given_machine(2, 100);
	expect("state", "state is saturated");
}

Test(bottleneck, just_below_is_not_saturated)
{
	given_cpu("state", 89);
	expect("", "No stage is saturated: the busiest, state, used 89% of a CPU.");
}

Test(bottleneck, machine_without_idle_cpus)
{
	given_cpu("state", 60);
	given_machine(2, 99);
	given_cpu("process", 140);
	expect("machine",
		"its CPUs (2) were 99% busy, 70% with the gateway, whose busiest thread, state, used 60%");
}

Test(bottleneck, machine_busy_with_other_work)
{
	given_cpu("state", 12);
	given_machine(2, 99);
	given_cpu("process", 30);
	expect("others",
		"Other work uses the CPUs (2): they were 99% busy, 15% with the gateway, whose queues "
		"keep up.");
}

Test(bottleneck, other_work_that_makes_a_thread_fall_behind)
{
	given_cpu("state", 12);
	given_machine(2, 99);
	given_cpu("process", 30);
	given("tun-rx0", "stalls", 0, 300);
	expect("others", "15% with the gateway, which lacks CPU time: state falls behind with 12% of a CPU");
}

/* Nothing but the control thread, which answers the question, uses a CPU. */
static void given_little(void)
{
	reading_done(&before);
	reading_done(&after);
	given("process", "time_ns", 7 * NS_PER_SEC, 8 * NS_PER_SEC);
	given("process", "cpu_ns", 0, NS_PER_MS);
	given("control", "cpu_ns", 0, NS_PER_MS);
	given("state", "cpu_ns", 0, 0);
	given("tun-rx0", "read_packets", 100, 100);
	given("udp-rx", "datagrams", 100, 100);
}

Test(bottleneck, idle_on_a_machine_that_is_busy)
{
	given_little();
	given_machine(4, 100);
	expect("", "The gateway is idle: no packet came in; other work keeps the CPUs (4) 100% busy.");
	cr_assert(!strstr(found.sentence, "control"), "%s", found.sentence);
}

Test(bottleneck, a_packet_now_and_then)
{
	given_little();
	given("udp-rx", "datagrams", 0, 2);
	expect("", "The gateway is nearly idle: 2.0 packets a second came in.");
	given_machine(4, 100);
	expect("", "The gateway is nearly idle: 2.0 packets a second came in; other work keeps the CPUs (4) "
		   "100% busy.");
}

Test(bottleneck, interface_that_is_down)
{
	given_little();
	given_machine(4, 100);
	given("process", "interface_up", 0, 0);
	given("process", "port_bound", 0, 0);
	given("process", "listen_port", 51820, 51820);
	expect("interface", "The interface is down, so nothing is sent or received.");
}

Test(bottleneck, port_that_is_not_bound)
{
	given_little();
	given("process", "interface_up", 1, 1);
	given("process", "port_bound", 0, 0);
	given("process", "listen_port", 51820, 51820);
	expect("port", "The interface is up but UDP port 51820 is not bound, so nothing is sent or received");
}

Test(bottleneck, no_port_at_all)
{
	given_little();
	given("process", "interface_up", 1, 1);
	given("process", "port_bound", 0, 0);
	given("process", "listen_port", 0, 0);
	expect("port", "The interface is up but no UDP port is bound, so");
}

Test(bottleneck, port_that_is_bound)
{
	given_little();
	given("process", "interface_up", 1, 1);
	given("process", "port_bound", 1, 1);
	expect("", "The gateway is idle: no packet came in.");
}

Test(bottleneck, machine_that_is_not_known_is_left_out)
{
	given_cpu("state", 60);
	given_machine(0, 99);
	expect("", "No stage is saturated");
}

Test(bottleneck, readers_that_wait_are_evidence)
{
	given_cpu("state", 97);
	given("tun-rx0", "stalls", 5, 105);
	given("tun-rx1", "stalls", 0, 50);
	expect("state", "; the TUN readers waited for it 150 times a second.");
}

Test(bottleneck, queue_more_than_half_full)
{
	given_cpu("state", 50);
	given("state", "queue_seen.le_0", 0, 0);
	given("state", "queue_seen.le_16", 1000, 1074);
	given("state", "queue_seen.le_32", 500, 526);
	given("state", "queue_seen.le_inf", 0, 0);
	expect("state", "state falls behind with 50% of a CPU used, to encrypt; its queue was more than "
			"half full at 26% of its looks.");
}

Test(bottleneck, queue_mostly_not_half_full)
{
	given_cpu("state", 50);
	given("state", "queue_seen.le_16", 1000, 1076);
	given("state", "queue_seen.le_32", 500, 524);
	expect("", "No stage is saturated");
}

Test(bottleneck, one_reader_that_waits_does_not_fill_the_common_queue)
{
	given_cpu("state", 50);
	given("tun-rx0", "stalls", 0, 300);
	expect("state", "state falls behind");
}

Test(bottleneck, last_stage_that_is_behind_is_the_one)
{
	given_cpu("state", 50);
	given("tun-rx0", "stalls", 0, 300);
	given("udp-tx", "queue_capacity", 64, 64);
	given("udp-tx", "queue_seen.le_32", 0, 10);
	given("udp-tx", "queue_seen.le_64", 0, 90);
	expect("udp-tx", "udp-tx falls behind with 25% of a CPU used, to send datagrams");
}

Test(bottleneck, full_socket_means_the_network)
{
	given_cpu("state", 50);
	given("udp-tx", "waits", 10, 50);
	expect("network", "udp-tx waited 40 times a second for room in its socket");
}

Test(bottleneck, refused_views_name_the_decrypt_thread)
{
	given_cpu("state", 10);
	given("tun-tx0", "queue_refused", 3, 13);
	given("udp-rx", "waits", 0, 20);
	expect("tun-tx0",
		"tun-tx0 falls behind with 5% of a CPU used, to decrypt and write to TUN; its queue was full "
		"10 times a second; udp-rx waited for it 20 times a second.");
}

Test(bottleneck, udp_rx_that_decrypts_in_passing)
{
	given("udp-rx", "cpu_ns", 0, NS_PER_SEC * 80 / 100);
	given("tun-tx0", "inline_drains", 0, 9000);
	given_cpu("state", 10);
	expect("udp-rx", "it also decrypted in place of the sleeping tun-tx threads, 9000 times a second.");
}

Test(bottleneck, tun_rx_that_encrypts_in_passing)
{
	given("tun-rx0", "cpu_ns", 0, NS_PER_SEC * 80 / 100);
	given("state", "inline_turns", 0, 9000);
	given_cpu("state", 10);
	expect("tun-rx0", "the TUN readers also encrypted in place of the sleeping state thread, 9000 times "
			  "a second.");
}

Test(bottleneck, nothing_moves)
{
	reading_done(&before);
	reading_done(&after);
	given("process", "time_ns", 7 * NS_PER_SEC, 8 * NS_PER_SEC);
	given_cpu("state", 0);
	given("tun-rx0", "read_packets", 100, 100);
	expect("", "The gateway is idle");
}

Test(bottleneck, answer_without_threads)
{
	reading_done(&before);
	reading_done(&after);
	expect("", "no thread");
}
