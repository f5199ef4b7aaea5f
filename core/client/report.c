#include "core/client/report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "core/client/bottleneck.h"
#include "core/client/quantity.h"
#include "core/client/rates.h"
#include "core/client/stage.h"
#include "core/client/totals.h"

static json_t *json_groups(const struct reading *r, bool threads);
static json_t *json_group(const struct reading *r, const struct reading_group *g);
static json_t *json_peers(const struct reading *r);
static json_t *json_interval(const struct reading *before, const struct reading *after);
static json_t *json_bottleneck(const struct reading *before, const struct reading *after);
static json_t *json_rounded(double value);

int report_json(FILE *out, const char *ifname, const struct reading *before, const struct reading *after,
	bool compact)
{
	json_t *root = json_pack("{s:s, s:s?, s:s?, s:o, s:o, s:o, s:o}", "interface", ifname, "state",
		totals_state(after), "public_key", *after->public_key ? after->public_key : NULL, "process",
		json_group(after, reading_group(after, metrics_group_name(METRICS_GROUP_PROCESS))), "threads",
		json_groups(after, true), "drops",
		json_group(after, reading_group(after, metrics_group_name(METRICS_GROUP_DROPS))), "peers",
		json_peers(after));
	int err = root ? 0 : -ENOMEM;

	if (!err && before)
		err = json_object_set_new(root, "interval", json_interval(before, after)) ||
				      json_object_set_new(root, "bottleneck", json_bottleneck(before, after))
			      ? -ENOMEM
			      : 0;
	if (!err &&
		(json_dumpf(root, out, compact ? JSON_COMPACT : JSON_INDENT(2)) || putc('\n', out) == EOF))
		err = -EIO;
	json_decref(root);
	return err;
}

/* A function returns NULL for want of memory, which json_pack() and json_*_new() pass on. */

static json_t *json_groups(const struct reading *r, bool threads)
{
	json_t *object = json_object();

	for (unsigned i = 0; object && i < r->nr_groups; i++) {
		const struct reading_group *g = &r->groups[i];

		if (reading_is_thread(g) != threads)
			continue;
		if (json_object_set_new(object, g->name, json_group(r, g))) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

/* {"trains": 7, "train_packets": {"0": 0, "1": 5, "2": 2, ..., "inf": 0}, "syscalls": 21} */
static json_t *json_group(const struct reading *r, const struct reading_group *g)
{
	json_t *object = json_object();
	int err = !object;

	for (unsigned i = 0; g && i < g->nr && !err; i++) {
		const struct reading_counter *c = &g->counters[i];
		json_t *value = json_integer((json_int_t)c->value), *histogram;
		char name[METRICS_NAME_BYTES];
		const char *bound;
		size_t len;

		if (!reading_is_bucket(c->name, &len, &bound)) {
			err = json_object_set_new(object, c->name, value);
			continue;
		}
		snprintf(name, sizeof(name), "%.*s", (int)len, c->name);
		histogram = json_object_get(object, name);
		if (!histogram) {
			histogram = json_object();
			err = json_object_set_new(object, name, histogram);
		}
		if (err)
			json_decref(value);
		else
			err = json_object_set_new(histogram, bound, value);
	}
	if (!err && g && stage_find(g->name))
		err = json_object_set_new(
			object, "syscalls", json_integer((json_int_t)rates_syscalls(r, g->name)));
	if (!err)
		return object;
	json_decref(object);
	return NULL;
}

static json_t *json_peers(const struct reading *r)
{
	json_t *peers = json_array();
	int err = !peers;

	for (unsigned i = 0; i < r->nr_peers && !err; i++) {
		const struct reading_peer *p = &r->peers[i];
		json_t *allowed = json_array(), *peer;

		for (unsigned j = 0; j < p->nr_allowed_ips && !err; j++)
			err = json_array_append_new(allowed, json_string(p->allowed_ips[j]));
		peer = json_pack("{s:s, s:s*, s:o, s:I, s:I, s:I, s:i}", "public_key", p->public_key,
			"endpoint", *p->endpoint ? p->endpoint : NULL, "allowed_ips", allowed,
			"latest_handshake", (json_int_t)p->handshake_s, "rx_bytes", (json_int_t)p->rx_bytes,
			"tx_bytes", (json_int_t)p->tx_bytes, "persistent_keepalive", (int)p->keepalive_s);
		/* A NULL is refused by it. */
		err = json_array_append_new(peers, peer) || err;
	}
	if (!err)
		return peers;
	json_decref(peers);
	return NULL;
}

static json_t *json_interval(const struct reading *before, const struct reading *after)
{
	json_t *threads = json_object();
	int err = !threads;

	for (unsigned i = 0; i < after->nr_groups && !err; i++) {
		const char *name = after->groups[i].name;
		const struct rates r = rates_find(before, after, name);

		if (!reading_is_thread(&after->groups[i]))
			continue;
		err = json_object_set_new(threads, name,
			json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "cpu_percent",
				json_rounded(r.cpu_percent), "packets_per_s", json_rounded(r.packets),
				"bits_per_s", json_rounded(r.bits), "trains_per_s", json_rounded(r.trains),
				"packets_per_train", json_rounded(r.packets_per_train), "syscalls_per_s",
				json_rounded(r.syscalls), "wakes_per_s", json_rounded(r.wakes),
				"wakes_given_per_s", json_rounded(r.wakes_given), "parks_per_s",
				json_rounded(r.parks)));
	}
	if (err) {
		json_decref(threads);
		return NULL;
	}
	return json_pack("{s:f, s:o, s:o}", "seconds", reading_seconds(before, after), "machine_cpu_percent",
		json_rounded(bottleneck_machine_percent(before, after)), "threads", threads);
}

static json_t *json_bottleneck(const struct reading *before, const struct reading *after)
{
	struct bottleneck b;

	bottleneck_find(&b, before, after);
	return json_pack("{s:s?, s:s}", "stage", *b.stage ? b.stage : NULL, "sentence", b.sentence);
}

/* To a tenth: more digits than that are noise. */
static json_t *json_rounded(double value)
{
	return json_real((double)(int64_t)(value * 10 + 0.5) / 10);
}
