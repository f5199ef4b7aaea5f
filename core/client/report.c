#include "core/client/report.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <time.h>

#include "core/client/bottleneck.h"
#include "core/client/quantity.h"
#include "core/client/rates.h"
#include "core/client/stage.h"

static void print_group(FILE *out, const struct reading_group *g, int width);
static void print_histogram(FILE *out, const struct reading_group *g, unsigned first, int width);
static void print_drops(FILE *out, const struct reading *r);
static void print_peer(FILE *out, const struct reading_peer *p);
static const char *age(uint64_t unix_s, char buf[QUANTITY_BYTES]);
static const char *bytes(uint64_t n, char buf[QUANTITY_BYTES]);

static json_t *json_groups(const struct reading *r, bool threads);
static json_t *json_group(const struct reading *r, const struct reading_group *g);
static json_t *json_peers(const struct reading *r);
static json_t *json_interval(const struct reading *before, const struct reading *after);
static json_t *json_bottleneck(const struct reading *before, const struct reading *after);
static json_t *json_rounded(double value);

void report_totals(FILE *out, const struct reading *r)
{
	int width = 0;

	for (unsigned i = 0; i < r->nr_groups; i++)
		for (unsigned j = 0; j < r->groups[i].nr; j++) {
			const char *name = r->groups[i].counters[j].name, *bound;
			size_t len = strlen(name);

			(void)reading_is_bucket(name, &len, &bound);
			width = MAX(width, (int)len);
		}
	for (unsigned i = 0; i < r->nr_groups; i++)
		if (reading_is_thread(&r->groups[i]))
			print_group(out, &r->groups[i], width);
	print_drops(out, r);
	for (unsigned i = 0; i < r->nr_peers; i++)
		print_peer(out, &r->peers[i]);
}

int report_json(FILE *out, const char *ifname, const struct reading *before, const struct reading *after,
	bool compact)
{
	json_t *root = json_pack("{s:s, s:o, s:o, s:o, s:o}", "interface", ifname, "process",
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

/* ---- text ---- */

static void print_group(FILE *out, const struct reading_group *g, int width)
{
	const char *bound;
	size_t len;

	fprintf(out, "%s\n", g->name);
	for (unsigned i = 0; i < g->nr; i++) {
		if (!reading_is_bucket(g->counters[i].name, &len, &bound))
			fprintf(out, "  %-*s %20" PRIu64 "\n", width, g->counters[i].name,
				g->counters[i].value);
		else if (strcmp(bound, "0") == 0)
			print_histogram(out, g, i, width);
	}
	putc('\n', out);
}

/* "1: 20  2: 3  3-4: 7": only what happened. */
static void print_histogram(FILE *out, const struct reading_group *g, unsigned first, int width)
{
	const char *bound;
	size_t len = 0;
	uint64_t above = 0;
	bool any = false;

	(void)reading_is_bucket(g->counters[first].name, &len, &bound);
	fprintf(out, "  %-*.*s ", width, (int)len, g->counters[first].name);
	for (unsigned i = first; i < g->nr; i++) {
		const struct reading_counter *c = &g->counters[i];
		size_t this_len;

		if (!reading_is_bucket(c->name, &this_len, &bound) || this_len != len ||
			strncmp(c->name, g->counters[first].name, len) != 0)
			break;
		const uint64_t upto = reading_bound(bound);

		if (c->value && strcmp(bound, "inf") == 0)
			fprintf(out, "%s>%" PRIu64 ": %" PRIu64, any ? "  " : "", above, c->value);
		else if (c->value && upto > above + 1)
			fprintf(out, "%s%" PRIu64 "-%" PRIu64 ": %" PRIu64, any ? "  " : "", above + 1, upto,
				c->value);
		else if (c->value)
			fprintf(out, "%s%" PRIu64 ": %" PRIu64, any ? "  " : "", upto, c->value);
		any |= c->value != 0;
		above = upto;
	}
	fputs(any ? "\n" : "-\n", out);
}

/* Those that happened. */
static void print_drops(FILE *out, const struct reading *r)
{
	const struct reading_group *g = reading_group(r, metrics_group_name(METRICS_GROUP_DROPS));
	bool any = false;

	fputs("drops\n", out);
	for (unsigned i = 0; g && i < g->nr; i++) {
		if (!g->counters[i].value)
			continue;
		any = true;
		fprintf(out, "  %-30s %20" PRIu64 "\n", g->counters[i].name, g->counters[i].value);
	}
	fputs(any ? "\n" : "  none\n\n", out);
}

static void print_peer(FILE *out, const struct reading_peer *p)
{
	char rx[QUANTITY_BYTES], tx[QUANTITY_BYTES], handshake[QUANTITY_BYTES];

	fprintf(out, "peer: %s\n", p->public_key);
	if (*p->endpoint)
		fprintf(out, "  endpoint: %s\n", p->endpoint);
	fputs("  allowed ips: ", out);
	for (unsigned i = 0; i < p->nr_allowed_ips; i++)
		fprintf(out, "%s%s", i ? ", " : "", p->allowed_ips[i]);
	fputs(p->nr_allowed_ips ? "\n" : "(none)\n", out);
	if (p->handshake_s)
		fprintf(out, "  latest handshake: %s ago\n", age(p->handshake_s, handshake));
	if (p->rx_bytes || p->tx_bytes)
		fprintf(out, "  transfer: %s received, %s sent\n", bytes(p->rx_bytes, rx),
			bytes(p->tx_bytes, tx));
	if (p->keepalive_s)
		fprintf(out, "  persistent keepalive: every %" PRIu64 " seconds\n", p->keepalive_s);
	putc('\n', out);
}

static const char *age(uint64_t unix_s, char buf[QUANTITY_BYTES])
{
	const time_t now = time(NULL);
	const uint64_t s = now > 0 && (uint64_t)now > unix_s ? (uint64_t)now - unix_s : 0;

	if (s < 120)
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " s", s);
	else if (s < 2 * 3600)
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " min", s / 60);
	else if (s < 2 * 86400)
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " h", s / 3600);
	else
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " days", s / 86400);
	return buf;
}

static const char *bytes(uint64_t n, char buf[QUANTITY_BYTES])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double value = (double)n;
	unsigned unit = 0;

	for (; value >= 1024 && unit < ARRAY_LEN(units) - 1; unit++)
		value /= 1024;
	snprintf(buf, QUANTITY_BYTES, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
	return buf;
}

/* ---- JSON: a function returns NULL for want of memory, which json_pack() and json_*_new() pass on ---- */

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
