#include "core/client/reading.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

static void counter(struct reading *r, const char *key, const char *value)
{
	cr_assert_eq(reading_take_counter(r, key, value), 0, "%s=%s", key, value);
}

static void peer(struct reading *r, const char *key, const char *value)
{
	cr_assert_eq(reading_take_peer(r, key, value), 0, "%s=%s", key, value);
}

Test(reading, adds_up_equal_names_of_a_group_that_comes_again)
{
	struct reading r = {0};

	counter(&r, "group", "drops");
	counter(&r, "egress_down", "3");
	counter(&r, "group", "state");
	counter(&r, "egress_down", "100");
	counter(&r, "group", "drops");
	counter(&r, "egress_down", "4");
	counter(&r, "egress_no_peer", "18446744073709551615");
	cr_assert_eq(r.nr_groups, 2);
	cr_assert_eq(reading_value(&r, "drops", METRIC_DROP_EGRESS_DOWN), 7);
	cr_assert_eq(reading_value_named(&r, "state", "egress_down"), 100);
	cr_assert_eq(reading_value(&r, "drops", METRIC_DROP_EGRESS_NO_PEER), UINT64_MAX);
	cr_assert_eq(reading_value_named(&r, "drops", "nothing"), 0);
	cr_assert_eq(reading_value(&r, "nobody", METRIC_DROP_EGRESS_DOWN), 0);
	reading_done(&r);
	cr_assert_eq(r.nr_groups, 0);
}

Test(reading, refuses_lines_that_cannot_be)
{
	struct reading r = {0};

	cr_assert_eq(reading_take_counter(&r, "reads", "1"), -EPROTO, "before any group");
	cr_assert_eq(reading_take_counter(&r, "group", "state"), 0);
	cr_assert_eq(reading_take_counter(&r, "turns", "-1"), -EPROTO);
	cr_assert_eq(reading_take_counter(&r, "turns", "many"), -EPROTO);
	cr_assert_eq(reading_take_counter(&r, "group", ""), -EPROTO);
	cr_assert_eq(reading_take_counter(&r, "group", "a-group-name-of-24-bytes"), -EPROTO);
	cr_assert_eq(reading_take_peer(&r, "public_key", "00"), -EPROTO);
	cr_assert_eq(reading_take_peer(&r, "public_key", "zz"), -EPROTO);
	reading_done(&r);
}

Test(reading, takes_the_public_key_of_the_interface)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	struct reading r = {0};

	cr_assert_eq(reading_take_counter(&r, "public_key", "00"), -EPROTO);
	counter(&r, "public_key", hex);
	cr_assert_str_eq(r.public_key, "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8=");
	counter(&r, "group", "state");
	cr_assert_eq(
		reading_take_counter(&r, "public_key", hex), -EPROTO, "in a group, where counters stand");
	reading_done(&r);
	cr_assert_str_empty(r.public_key);
}

Test(reading, keeps_of_a_peer_what_wg_shows)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	struct reading r = {0};
	const struct reading_peer *p;

	peer(&r, "private_key", hex);
	peer(&r, "listen_port", "51820");
	peer(&r, "public_key", hex);
	peer(&r, "preshared_key", hex);
	peer(&r, "endpoint", "[2001:db8::1]:51820");
	peer(&r, "last_handshake_time_sec", "1700000000");
	peer(&r, "last_handshake_time_nsec", "5");
	peer(&r, "tx_bytes", "12");
	peer(&r, "rx_bytes", "5000000000");
	peer(&r, "persistent_keepalive_interval", "25");
	peer(&r, "allowed_ip", "10.0.0.2/32");
	peer(&r, "allowed_ip", "fd00::/64");
	peer(&r, "public_key", hex);
	cr_assert_eq(r.nr_peers, 2);
	p = &r.peers[0];
	cr_assert_str_eq(p->public_key, "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8=");
	cr_assert_str_eq(p->endpoint, "[2001:db8::1]:51820");
	cr_assert_eq(p->handshake_s, 1700000000);
	cr_assert_eq(p->rx_bytes, UINT64_C(5000000000));
	cr_assert_eq(p->tx_bytes, 12);
	cr_assert_eq(p->keepalive_s, 25);
	cr_assert_eq(p->nr_allowed_ips, 2);
	cr_assert_str_eq(p->allowed_ips[1], "fd00::/64");
	cr_assert_str_eq(r.peers[1].endpoint, "");
	reading_done(&r);
}

Test(reading, takes_more_peers_and_prefixes_than_fit_at_first)
{
	struct reading r = {0};
	char hex[65], prefix[32];

	for (unsigned i = 0; i < 100; i++) {
		snprintf(hex, sizeof(hex), "%064x", i);
		peer(&r, "public_key", hex);
		for (unsigned j = 0; j < i; j++) {
			snprintf(prefix, sizeof(prefix), "10.%u.%u.0/24", i, j);
			peer(&r, "allowed_ip", prefix);
		}
	}
	cr_assert_eq(r.nr_peers, 100);
	cr_assert_eq(r.peers[99].nr_allowed_ips, 99);
	cr_assert_str_eq(r.peers[99].allowed_ips[98], "10.99.98.0/24");
	reading_done(&r);
}

Test(reading, growth_is_never_negative)
{
	struct reading before = {0}, after = {0};

	counter(&before, "group", "process");
	counter(&before, "time_ns", "1000000000");
	counter(&before, "cpu_ns", "500");
	counter(&after, "group", "process");
	counter(&after, "time_ns", "3500000000");
	counter(&after, "cpu_ns", "400");
	cr_assert_eq(reading_grown(&before, &after, "process", METRIC_CPU_NS), 0);
	cr_assert_float_eq(reading_seconds(&before, &after), 2.5, 1e-9);
	cr_assert_gt(reading_seconds(&after, &before), 0);
	reading_done(&before);
	reading_done(&after);
}

Test(reading, knows_kinds_and_buckets)
{
	const char *bound;
	size_t len;

	cr_assert(reading_is_kind("tun-rx12", METRICS_GROUP_TUN_RX));
	cr_assert(reading_is_kind("state", METRICS_GROUP_STATE));
	cr_assert_not(reading_is_kind("tun-rx0", METRICS_GROUP_TUN_TX));
	cr_assert_not(reading_is_kind("udp-rx0", METRICS_GROUP_UDP_RX));
	cr_assert_not(reading_is_kind("udp-r", METRICS_GROUP_UDP_RX));
	cr_assert(reading_is_bucket("train_segments.le_64", &len, &bound));
	cr_assert_eq(len, strlen("train_segments"));
	cr_assert_str_eq(bound, "64");
	cr_assert_eq(reading_bound(bound), 64);
	cr_assert(reading_is_bucket("train_segments.le_inf", &len, &bound));
	cr_assert_eq(reading_bound(bound), UINT64_MAX);
	cr_assert_not(reading_is_bucket("train_segments", &len, &bound));
}
