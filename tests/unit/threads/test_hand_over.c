#include "core/threads/hand_over.h"

#include <criterion/criterion.h>

#define MANY 4

struct row {
	const char *why;
	struct hand_over_input in;
	struct hand_over_output out;
};

#define STATE .consumer = HAND_OVER_TO_STATE
#define TUN_TX .consumer = HAND_OVER_TO_TUN_TX
#define UDP_TX .consumer = HAND_OVER_TO_UDP_TX

static const struct row rows[] = {
	/* tun-rx -> state */
	{"nothing more to read: it would sleep as the other wakes", {STATE, .cpus = 2, .queue_len = 1},
		{HAND_OVER_INLINE, 0}},
	{"the same on one CPU", {STATE, .cpus = 1, .queue_len = 1}, {HAND_OVER_INLINE, 0}},
	{"nothing more to read, whatever waits", {STATE, .cpus = 2, .queue_len = 16}, {HAND_OVER_INLINE, 0}},
	{"small packets, but nothing more", {STATE, .cpus = 2, .queue_len = 1, .small_packets = true},
		{HAND_OVER_INLINE, 0}},
	{"more to read, and a CPU was free for the last train: beside each other",
		{STATE, .cpus = 2, .queue_len = 1, .more_to_read = true}, {HAND_OVER_WAKE, 0}},
	{"more to read, but the last train still waits: no CPU was free, so it is spared",
		{STATE, .cpus = 2, .queue_len = 2, .more_to_read = true},
		{HAND_OVER_INLINE, HAND_OVER_SPARES}},
	{"spared, although the queue is short again",
		{STATE, .cpus = 2, .queue_len = 1, .more_to_read = true, .spares = 7}, {HAND_OVER_INLINE, 6}},
	{"the last time it is spared", {STATE, .cpus = 2, .queue_len = 1, .more_to_read = true, .spares = 1},
		{HAND_OVER_INLINE, 0}},
	{"small packets and more of them: reading is much of the work, even while it is spared",
		{STATE, .cpus = 2, .queue_len = 9, .more_to_read = true, .small_packets = true, .spares = 7},
		{HAND_OVER_WAKE, 7}},
	{"nothing more to read uses up no spare", {STATE, .cpus = 2, .queue_len = 1, .spares = 7},
		{HAND_OVER_INLINE, 7}},
	{"three CPUs: sealing has one of its own", {STATE, .cpus = 3, .queue_len = 1}, {HAND_OVER_WAKE, 0}},
	{"more CPUs than can be counted", {STATE, .cpus = UINT32_MAX, .queue_len = 9, .more_to_read = true},
		{HAND_OVER_WAKE, 0}},

	/* udp-rx -> tun-tx */
	{"nothing more to receive", {TUN_TX, .cpus = 2, .queue_len = 1}, {HAND_OVER_INLINE, 0}},
	{"nothing more to receive, on many CPUs too", {TUN_TX, .cpus = MANY, .queue_len = 1},
		{HAND_OVER_INLINE, 0}},
	{"more to receive, many CPUs", {TUN_TX, .cpus = MANY, .queue_len = 9, .more_to_read = true},
		{HAND_OVER_WAKE, 0}},
	{"more to receive, a free CPU", {TUN_TX, .cpus = 2, .queue_len = 1, .more_to_read = true},
		{HAND_OVER_WAKE, 0}},
	{"more to receive, no free CPU", {TUN_TX, .cpus = 2, .queue_len = 2, .more_to_read = true},
		{HAND_OVER_INLINE, HAND_OVER_SPARES}},
	{"one of several: the others work meanwhile",
		{TUN_TX, .cpus = 2, .queue_len = 1, .others_behind = true, .spares = 3}, {HAND_OVER_WAKE, 3}},
	{"one of several on many CPUs", {TUN_TX, .cpus = MANY, .queue_len = 1, .others_behind = true},
		{HAND_OVER_WAKE, 0}},

	/* state -> udp-tx */
	{"the CPU of the last datagram, nothing queued", {UDP_TX, .cpus = 2, .on_last_cpu = true},
		{HAND_OVER_INLINE, 0}},
	{"on one CPU", {UDP_TX, .cpus = 1, .on_last_cpu = true}, {HAND_OVER_INLINE, 0}},
	{"batches are queued: they leave first", {UDP_TX, .cpus = 2, .on_last_cpu = true, .queue_len = 1},
		{HAND_OVER_WAKE, 0}},
	{"another CPU sent last: its queue could be passed", {UDP_TX, .cpus = 2}, {HAND_OVER_WAKE, 0}},
	{"many CPUs: sending has one of its own", {UDP_TX, .cpus = 3, .on_last_cpu = true},
		{HAND_OVER_WAKE, 0}},
};

Test(hand_over, decides_as_the_table_says)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct hand_over_output out = hand_over(&rows[i].in);

		cr_expect_eq(out.how, rows[i].out.how, "%s", rows[i].why);
		cr_expect_eq(out.spares, rows[i].out.spares, "%s", rows[i].why);
	}
}

/* Over all inputs: what must hold for order and for spares to end, whatever the rules of taste are. */
Test(hand_over, keeps_order_and_never_spares_for_ever)
{
	for (unsigned bits = 0; bits < 3 * 5 * 4 * 3 * 16; bits++) {
		unsigned rest = bits;
		struct hand_over_input in = {.consumer = (enum hand_over_consumer)(rest % 3)};

		rest /= 3;
		in.cpus = 1 + rest % 5;
		rest /= 5;
		in.queue_len = rest % 4;
		rest /= 4;
		in.spares = (rest % 3) * HAND_OVER_SPARES / 2;
		rest /= 3;
		in.more_to_read = rest & 1;
		in.small_packets = rest & 2;
		in.others_behind = rest & 4;
		in.on_last_cpu = rest & 8;
		const struct hand_over_output out = hand_over(&in);

		if (in.consumer == HAND_OVER_TO_UDP_TX && out.how == HAND_OVER_INLINE)
			cr_assert(in.on_last_cpu && !in.queue_len && in.cpus <= PARK_FEW_CPUS);
		/* More spares only when there were none and somebody waited; else the same or one less. */
		if (out.spares > in.spares)
			cr_assert(!in.spares && out.spares == HAND_OVER_SPARES && in.queue_len > 1);
		else
			cr_assert(in.spares - out.spares <= 1);
		if (out.spares < in.spares)
			cr_assert_eq(out.how, HAND_OVER_INLINE);
	}
}
