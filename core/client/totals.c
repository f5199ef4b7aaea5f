#include "core/client/totals.h"

#include <inttypes.h>
#include <string.h>

#include "core/client/quantity.h"
#include "core/client/stage.h"

#define TEXT_COLUMNS 78 /* where the explanation of a drop is wrapped */

static void print_interface(FILE *out, const char *ifname, const struct reading *r);
static void print_traffic(FILE *out, const struct reading *r, const char *what, enum metrics_group kind);
static void print_drops(FILE *out, const struct reading *r);
static void print_wrapped(FILE *out, const char *indent, const char *text);
static void print_threads(FILE *out, const struct reading *r);
static void print_groups(FILE *out, const struct reading *r);
static void print_group(FILE *out, const struct reading_group *g, int width);
static void print_histogram(FILE *out, const struct reading_group *g, unsigned first, int width);
static void print_peer(FILE *out, const struct reading_peer *p);
static uint64_t process_value(const struct reading *r, enum metric metric);
static double uptime_s(const struct reading *r);

void totals_print(FILE *out, const char *ifname, const struct reading *r, bool all)
{
	print_interface(out, ifname, r);
	print_drops(out, r);
	if (all)
		print_groups(out, r);
	else
		print_threads(out, r);
	for (unsigned i = 0; i < r->nr_peers; i++)
		print_peer(out, &r->peers[i]);
}

const char *totals_state(const struct reading *r)
{
	if (!reading_has(r, metrics_group_name(METRICS_GROUP_PROCESS), METRIC_PORT_BOUND))
		return NULL;
	if (!process_value(r, METRIC_INTERFACE_UP))
		return "down";
	return process_value(r, METRIC_PORT_BOUND) ? "up" : "unbound";
}

static void print_interface(FILE *out, const char *ifname, const struct reading *r)
{
	const char *state = totals_state(r);
	const uint64_t port = process_value(r, METRIC_LISTEN_PORT);
	const uint64_t cpu_ns = process_value(r, METRIC_CPU_NS);
	char buf[QUANTITY_BYTES];

	fprintf(out, "interface: %s\n", ifname);
	if (state) {
		if (strcmp(state, "down") == 0)
			fprintf(out, "  state: down; to set it up: ip link set %s up\n", ifname);
		else if (strcmp(state, "unbound") == 0)
			fprintf(out,
				"  state: up, but without its UDP port, so no packets pass; see the log, or "
				"set\n"
				"    another port: wg set %s listen-port PORT\n",
				ifname);
		else
			fputs("  state: up\n", out);
		fprintf(out, "  public key: %s\n",
			*r->public_key ? r->public_key : "(no private key is set)");
		if (port)
			fprintf(out, "  listening port: %" PRIu64 "%s\n", port,
				process_value(r, METRIC_PORT_BOUND) ? "" : " (not bound)");
		fprintf(out, "  uptime: %s\n", quantity_age((uint64_t)uptime_s(r), buf));
	}
	print_traffic(out, r, "received", METRICS_GROUP_TUN_TX);
	print_traffic(out, r, "sent", METRICS_GROUP_STATE);
	fprintf(out, "  cpu: %s", quantity_cpu(cpu_ns, buf));
	if (uptime_s(r) > 0)
		fprintf(out, " (%.1f%% of one CPU since the start)", (double)cpu_ns / 1e7 / uptime_s(r));
	fputs("\n\n", out);
}

/* kind: the threads that every packet of this direction passes once. */
static void print_traffic(FILE *out, const struct reading *r, const char *what, enum metrics_group kind)
{
	uint64_t packets = 0, bytes = 0;
	char count[QUANTITY_BYTES], size[QUANTITY_BYTES];

	for (unsigned i = 0; i < r->nr_groups; i++) {
		const char *name = r->groups[i].name;

		if (!reading_is_kind(name, kind))
			continue;
		packets += reading_value(r, name, stage_find(name)->packets);
		bytes += reading_value(r, name, stage_find(name)->bytes);
	}
	fprintf(out, "  %s: %s packets, %s", what, quantity_count(packets, count),
		quantity_bytes(bytes, size));
	if (uptime_s(r) > 0)
		fprintf(out, " (%s packets/s, %.1f Mbit/s since the start)",
			quantity_count((uint64_t)((double)packets / uptime_s(r) + 0.5), count),
			(double)bytes * 8 / 1e6 / uptime_s(r));
	putc('\n', out);
}

/* Those that happened since the start, and what each means. */
static void print_drops(FILE *out, const struct reading *r)
{
	const struct metrics_group_info *known = metrics_group_info(METRICS_GROUP_DROPS);
	const struct reading_group *g = reading_group(r, known->name);
	bool any = false;

	fputs("drops\n", out);
	for (unsigned i = 0; g && i < g->nr; i++) {
		const struct reading_counter *c = &g->counters[i];
		char count[QUANTITY_BYTES];

		if (!c->value)
			continue;
		any = true;
		fprintf(out, "  %-30s %20s\n", c->name, quantity_count(c->value, count));
		for (unsigned j = 0; j < known->nr; j++)
			if (strcmp(metric_name(known->metrics[j]), c->name) == 0)
				print_wrapped(out, "    ", metric_info(known->metrics[j])->help);
	}
	fputs(any ? "\n" : "  none\n\n", out);
}

static void print_wrapped(FILE *out, const char *indent, const char *text)
{
	while (*text) {
		const size_t room = TEXT_COLUMNS - strlen(indent);
		size_t len = MIN(strlen(text), room);

		/* Back to a blank; a word that is longer than the line is cut. */
		for (size_t i = len; text[len] && i; i--)
			if (text[i] == ' ') {
				len = i;
				break;
			}
		fprintf(out, "%s%.*s\n", indent, (int)len, text);
		text += len;
		text += *text == ' ';
	}
}

static void print_threads(FILE *out, const struct reading *r)
{
	fprintf(out, "%-9s %8s %15s %8s %8s %11s  %s\n", "thread", "cpu", "packets", "bytes", "p/train",
		"parks", "fullest queue");
	for (unsigned i = 0; i < r->nr_groups; i++) {
		const char *name = r->groups[i].name;
		const struct stage *stage = stage_find(name);
		const uint64_t capacity = reading_value(r, name, METRIC_QUEUE_CAPACITY);
		char buf[QUANTITY_BYTES];

		if (!reading_is_thread(&r->groups[i]))
			continue;
		fprintf(out, "%-9s %8s", name, quantity_cpu(reading_value(r, name, METRIC_CPU_NS), buf));
		if (stage) {
			const uint64_t packets = reading_value(r, name, stage->packets);
			const uint64_t trains = reading_value(r, name, stage->trains);

			fprintf(out, " %15s", quantity_count(packets, buf));
			fprintf(out, " %8s", quantity_bytes(reading_value(r, name, stage->bytes), buf));
			fprintf(out, " %8.1f", trains ? (double)packets / (double)trains : 0.0);
			fprintf(out, " %11s", quantity_count(reading_value(r, name, METRIC_PARKS), buf));
		}
		if (capacity)
			fprintf(out, "  %" PRIu64 "/%" PRIu64,
				reading_value(r, name, METRIC_QUEUE_HIGH_WATER), capacity);
		putc('\n', out);
	}
	putc('\n', out);
}

/* All there is. */
static void print_groups(FILE *out, const struct reading *r)
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
}

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
		fprintf(out, "  latest handshake: %s ago\n",
			quantity_age(reading_age_s(p->handshake_s), handshake));
	if (p->rx_bytes || p->tx_bytes)
		fprintf(out, "  transfer: %s received, %s sent\n", quantity_bytes(p->rx_bytes, rx),
			quantity_bytes(p->tx_bytes, tx));
	if (p->keepalive_s)
		fprintf(out, "  persistent keepalive: every %" PRIu64 " seconds\n", p->keepalive_s);
	putc('\n', out);
}

static uint64_t process_value(const struct reading *r, enum metric metric)
{
	return reading_value(r, metrics_group_name(METRICS_GROUP_PROCESS), metric);
}

/* 0: not known. */
static double uptime_s(const struct reading *r)
{
	return (double)process_value(r, METRIC_UPTIME_NS) / (double)NS_PER_SEC;
}
