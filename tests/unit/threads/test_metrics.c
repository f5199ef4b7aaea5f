#include "core/base/metrics.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "core/threads/pipeline.h"
#include "crypto/secret.h"
#include "tun/tun_mem.h"

#define QUEUES 2

/*
 * What `sluice stats` shows, in order: the promise to those who read its JSON. A name that changes or moves
 * breaks their programs; a new one is added here. A histogram, which is a value for each bucket, has brackets.
 */
static const struct {
	const char *group, *names;
} promised[] = {
	{"process", "time_ns cpu_ns "},
	{"control", "cpu_ns "},
	{"tun-rx0", "trains stalls polls wakes_given train_packets[] trains_in_flight trains_capacity "
		    "cpu_ns reads read_packets read_bytes read_malformed read_errors parks wakes "},
	{"state", "turns inline_turns wakes_given queue_seen[] train_segments[] batches_in_use "
		  "batches_capacity cpu_ns trains packets segments bytes staged unreachables_sent "
		  "initiations_sent responses_sent cookies_sent initiations_received responses_received "
		  "cookies_received handshakes_completed keepalives_sent rekeys queue_high_water "
		  "queue_refused queue_len queue_capacity handshake_queue_high_water "
		  "note_queue_high_water note_queue_refused datagrams_dropped parks wakes "},
	{"udp-tx", "calls batches messages datagrams bytes gso_fallbacks pin_dropped waits "
		   "drop_unreachable drop_too_long drop_no_buffer drop_no_socket drop_error "
		   "gso_segments[] queue_seen[] inline_sends wakes_given cpu_ns queue_high_water "
		   "queue_refused queue_len queue_capacity parks wakes "},
	{"udp-rx", "calls messages datagrams bytes truncated empty errors views handshakes waits sheds "
		   "polls wakes_given gro_segments[] batches_in_use batches_capacity cpu_ns parks wakes "},
	{"tun-tx0", "views segments bytes packets frames keepalives writes written_bytes write_errors "
		    "write_fallbacks "
		    "inline_drains wakes_given view_segments[] frame_packets[] queue_seen[] cpu_ns "
		    "queue_high_water queue_refused queue_len queue_capacity parks wakes "},
	{"drops", "egress_not_a_packet egress_malformed egress_too_long egress_no_peer "
		  "egress_no_endpoint egress_staged_overflow egress_staged_expired egress_down "
		  "egress_stopping ingress_unknown_type ingress_unknown_index ingress_channel_full "
		  "ingress_no_buffer ingress_handshake_queue_full ingress_expired ingress_bad_tag "
		  "ingress_replay ingress_bad_inner ingress_not_allowed ingress_ecn ingress_down "
		  "ingress_tun_error handshake_bad_mac1 handshake_under_load handshake_rate_limited "
		  "handshake_unknown_peer handshake_bad_crypto handshake_replay handshake_flood "
		  "handshake_unexpected handshake_down send_unreachable send_too_long send_no_buffer "
		  "send_no_socket send_error receive_truncated "},
};

struct shown {
	char group[METRICS_GROUP_BYTES];
	char names[2048];
};

static struct shown shown[32];
static unsigned nr_shown;

static void note(void *arg, const char *group, const char *name, uint64_t value)
{
	const char *bucket = strstr(name, ".le_");

	if (!nr_shown || strcmp(group, shown[nr_shown - 1].group) != 0) {
		cr_assert_lt(nr_shown, ARRAY_LEN(shown));
		snprintf(shown[nr_shown++].group, METRICS_GROUP_BYTES, "%s", group);
	}
	char *names = shown[nr_shown - 1].names;
	const size_t len = strlen(names);

	if (bucket && strcmp(bucket, ".le_0") == 0)
		snprintf(names + len, sizeof(shown->names) - len, "%.*s[] ", (int)(bucket - name), name);
	else if (!bucket)
		snprintf(names + len, sizeof(shown->names) - len, "%s ", name);
}

static const struct shown *find(const char *group)
{
	const struct shown *found = NULL;

	for (unsigned i = 0; i < nr_shown; i++) {
		if (strcmp(shown[i].group, group) != 0)
			continue;
		cr_assert(!found, "%s comes twice", group);
		found = &shown[i];
	}
	return found;
}

/* All that the table has is registered, under the names and in the order that are promised. */
Test(metrics, of_a_pipeline_are_those_that_are_promised)
{
	struct metrics *metrics;
	struct pipeline *pipeline;
	struct tun_mem *mem[QUEUES];
	struct tun_queue *queues[QUEUES];

	cr_assert_eq(secret_init(), 0);
	cr_assert_eq(metrics_new(&metrics), 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		cr_assert_eq(tun_mem_new(&mem[i], i, 0, 8, NULL, NULL), 0);
		queues[i] = tun_mem_queue(mem[i]);
	}
	cr_assert_eq(pipeline_start(&pipeline, &(struct pipeline_config){.tun_threads = QUEUES,
						       .aead = aead_find("libsodium"),
						       .mtu = 1420,
						       .queues = queues,
						       .metrics = metrics}),
		0);
	metrics_each(metrics, note, NULL);
	cr_assert_eq(nr_shown, ARRAY_LEN(promised) + 2, "%u groups", nr_shown);
	for (unsigned i = 0; i < ARRAY_LEN(promised); i++) {
		const struct shown *s = find(promised[i].group);

		cr_assert(s, "no group %s", promised[i].group);
		cr_assert_str_eq(s->names, promised[i].names, "%s shows: %s", s->group, s->names);
	}
	cr_assert_str_eq(find("tun-rx1")->names, find("tun-rx0")->names);
	cr_assert_str_eq(find("tun-tx1")->names, find("tun-tx0")->names);

	pipeline_stop(pipeline);
	nr_shown = 0;
	metrics_each(metrics, note, NULL);
	cr_assert_eq(nr_shown, 0, "metrics of threads that are gone");
	metrics_free(metrics);
	for (unsigned i = 0; i < QUEUES; i++)
		tun_mem_free(mem[i]);
}
