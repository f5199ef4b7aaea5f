#include "core/client/interval.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "core/client/bottleneck.h"
#include "core/client/quantity.h"
#include "core/client/rates.h"
#include "core/client/stage.h"

#define THREAD_WIDTH 9
#define KEY_WIDTH (READING_KEY_BYTES - 1)
#define SHORT_KEY_WIDTH 11 /* "ASNF...Nze8" */
#define CELL_BYTES MAX(ENDPOINT_STRLEN, QUANTITY_BYTES)

/* A column to the right of a table's first. */
struct column {
	const char *title;
	unsigned width; /* with the blanks before it */
	unsigned rank;  /* 0 is the most useful, and the last to be left out */
};

/* What may be one row of a table. */
struct row {
	unsigned index; /* of the thread's group, the counter or the peer in the reading */
	double weight;  /* those with the most are shown if there is no room for all */
};

struct table {
	struct row *rows;
	unsigned nr;
	bool says_none; /* in a line, if there is no row */
	unsigned lines; /* that it may take: all that it wants, or fewer */
};

struct frame {
	FILE *out;
	const struct reading *before, *after;
	unsigned columns; /* UINT_MAX: without a limit */
	bool spaced;      /* there is room for an empty line before each table */
	struct table threads, drops, peers;
};

enum { CPU, PACKETS, BITS, TRAINS, PER_TRAIN, CALLS, WAKES, WAKES_GIVEN, PARKS, QUEUE, THREAD_COLUMNS };
enum { RX, TX, RECEIVED, SENT, HANDSHAKE, ENDPOINT, PEER_COLUMNS };

/* Titles are the words of the JSON. */
static const struct column thread_columns[THREAD_COLUMNS] = {
	[CPU] = {"cpu%", 6, 0},
	[PACKETS] = {"packets/s", 11, 2},
	[BITS] = {"Mbit/s", 10, 1},
	[TRAINS] = {"trains/s", 10, 6},
	[PER_TRAIN] = {"p/train", 8, 5},
	[CALLS] = {"syscalls/s", 11, 4},
	[WAKES] = {"wakes/s", 9, 7},
	[WAKES_GIVEN] = {"wakes_given/s", 14, 8},
	[PARKS] = {"parks/s", 9, 9},
	[QUEUE] = {"queue", 12, 3},
};

static const struct column peer_columns[PEER_COLUMNS] = {
	[RX] = {"rx Mbit/s", 11, 0},
	[TX] = {"tx Mbit/s", 11, 1},
	[RECEIVED] = {"received", 11, 4},
	[SENT] = {"sent", 11, 5},
	[HANDSHAKE] = {"handshake", 11, 2},
	[ENDPOINT] = {"endpoint", 24, 3},
};

static int gather(struct frame *f);
static unsigned lines_wanted(const struct table *t);
static void share_lines(struct frame *f, unsigned rows);
static unsigned print_wrapped(FILE *out, unsigned columns, const char *text);
static unsigned print_summary(struct frame *f, const char *ifname);
static void print_threads(struct frame *f);
static void print_drops(struct frame *f);
static void print_peers(struct frame *f);
static unsigned choose_rows(const struct frame *f, struct table *t, bool keep_order, double *rest);
static int by_weight(const void *a, const void *b);
static int by_index(const void *a, const void *b);
static const char *count_rest(const struct table *t, unsigned shown, const char *what, char buf[CELL_BYTES]);
static uint64_t choose_columns(const struct column *columns, unsigned nr, unsigned room);
static void print_cells(
	FILE *out, const struct column *columns, unsigned nr, uint64_t shown, const char *const cells[]);
static void print_key(FILE *out, const char *key, bool in_full);
static const struct reading_peer *find_peer(const struct reading *r, const char *public_key, unsigned hint);
static void find_peer_rates(const struct frame *f, unsigned i, double *rx, double *tx);

int interval_print(FILE *out, const struct interval_room *room, const char *ifname,
	const struct reading *before, const struct reading *after)
{
	struct frame f = {.out = out, .before = before, .after = after, .drops.says_none = true};
	int err;

	f.columns = room->columns ? room->columns : UINT_MAX;
	err = gather(&f);
	if (!err) {
		const unsigned used = print_summary(&f, ifname);

		share_lines(&f, !room->rows ? UINT_MAX : room->rows > used ? room->rows - used : 0);
		print_threads(&f);
		print_drops(&f);
		print_peers(&f);
	}
	free(f.threads.rows);
	free(f.drops.rows);
	free(f.peers.rows);
	return err;
}

/* The rows that there could be, with their weights. */
static int gather(struct frame *f)
{
	const struct reading_group *drops = reading_group(f->after, metrics_group_name(METRICS_GROUP_DROPS));
	const double seconds = reading_seconds(f->before, f->after);

	/* One more: none of them may be nothing at all. */
	f->threads.rows = calloc(f->after->nr_groups + 1, sizeof(struct row));
	f->drops.rows = calloc((drops ? drops->nr : 0) + 1, sizeof(struct row));
	f->peers.rows = calloc(f->after->nr_peers + 1, sizeof(struct row));
	if (!f->threads.rows || !f->drops.rows || !f->peers.rows)
		return -ENOMEM;
	for (unsigned i = 0; i < f->after->nr_groups; i++) {
		const struct reading_group *g = &f->after->groups[i];

		if (reading_is_thread(g))
			f->threads.rows[f->threads.nr++] =
				(struct row){i, bottleneck_thread_percent(f->before, f->after, g->name)};
	}
	for (unsigned i = 0; drops && i < drops->nr; i++) {
		const uint64_t grown =
			reading_grown_named(f->before, f->after, drops->name, drops->counters[i].name);

		if (grown)
			f->drops.rows[f->drops.nr++] = (struct row){i, (double)grown / seconds};
	}
	for (; f->peers.nr < f->after->nr_peers; f->peers.nr++) {
		double rx, tx;

		find_peer_rates(f, f->peers.nr, &rx, &tx);
		f->peers.rows[f->peers.nr] = (struct row){f->peers.nr, rx + tx};
	}
	return 0;
}

/* With its title, and without an empty line. */
static unsigned lines_wanted(const struct table *t)
{
	return t->nr ? t->nr + 1 : t->says_none;
}

/*
 * All of them in full, with empty lines between, if there is room. Otherwise each gets one line, then three, in
 * order of their use, and the rest goes round.
 */
static void share_lines(struct frame *f, unsigned rows)
{
	static const unsigned steps[] = {1, 3};
	struct table *const tables[] = {&f->threads, &f->peers, &f->drops};
	unsigned wanted = ARRAY_LEN(tables);

	for (unsigned i = 0; i < ARRAY_LEN(tables); i++)
		wanted += lines_wanted(tables[i]);
	f->spaced = wanted <= rows;
	if (f->spaced)
		rows = wanted;
	for (unsigned s = 0; s < ARRAY_LEN(steps); s++) {
		for (unsigned i = 0; i < ARRAY_LEN(tables); i++) {
			const unsigned more = MIN(steps[s], lines_wanted(tables[i])) - tables[i]->lines;

			if (more <= rows) {
				tables[i]->lines += more;
				rows -= more;
			}
		}
	}
	for (bool given = true; given;) {
		given = false;
		for (unsigned i = 0; i < ARRAY_LEN(tables) && rows; i++) {
			if (!tables[i]->lines || tables[i]->lines == lines_wanted(tables[i]))
				continue;
			tables[i]->lines++;
			rows--;
			given = true;
		}
	}
}

/* Broken between words. Returns the number of lines. */
static unsigned print_wrapped(FILE *out, unsigned columns, const char *text)
{
	unsigned lines = 0;

	while (*text) {
		size_t len = strlen(text);

		if (len > columns) {
			for (len = columns; len && text[len] != ' '; len--)
				;
			if (!len)
				len = columns; /* one long word */
		}
		fprintf(out, "%.*s\n", (int)len, text);
		text += len;
		text += strspn(text, " ");
		lines++;
	}
	return lines;
}

/* Returns the number of lines. */
static unsigned print_summary(struct frame *f, const char *ifname)
{
	const double seconds = reading_seconds(f->before, f->after);
	const uint64_t ns =
		reading_grown(f->before, f->after, metrics_group_name(METRICS_GROUP_PROCESS), METRIC_CPU_NS);
	struct bottleneck bottleneck;
	char text[256];
	int len;

	len = snprintf(text, sizeof(text), "%s: %.2f CPUs used over %.1f s", ifname,
		(double)ns / (double)NS_PER_SEC / seconds, seconds);
	if (f->after->machine.cpus)
		snprintf(text + len, sizeof(text) - (size_t)len, "; the machine has %u, %.0f%% busy",
			f->after->machine.cpus, bottleneck_machine_percent(f->before, f->after));
	bottleneck_find(&bottleneck, f->before, f->after);
	const unsigned lines = print_wrapped(f->out, f->columns, text);

	return lines + print_wrapped(f->out, f->columns, bottleneck.sentence);
}

static void print_threads(struct frame *f)
{
	const uint64_t shown =
		choose_columns(thread_columns, THREAD_COLUMNS, f->columns - MIN(f->columns, THREAD_WIDTH));
	double rest;
	const unsigned rows = choose_rows(f, &f->threads, true, &rest);
	const char *cells[THREAD_COLUMNS];
	char text[THREAD_COLUMNS][CELL_BYTES];

	if (rows) {
		for (unsigned c = 0; c < THREAD_COLUMNS; c++)
			cells[c] = thread_columns[c].title;
		fprintf(f->out, "%-*s", THREAD_WIDTH, "thread");
		print_cells(f->out, thread_columns, THREAD_COLUMNS, shown, cells);
	}
	for (unsigned i = 0; i < rows; i++) {
		const char *name = f->after->groups[f->threads.rows[i].index].name;
		const struct rates r = rates_find(f->before, f->after, name);
		const uint64_t capacity = reading_value(f->after, name, METRIC_QUEUE_CAPACITY);
		const struct {
			unsigned column, decimals;
			double value;
		} values[] = {{PACKETS, 0, r.packets}, {BITS, 1, r.bits / 1e6}, {TRAINS, 0, r.trains},
			{PER_TRAIN, 1, r.packets_per_train}, {CALLS, 0, r.syscalls}, {WAKES, 0, r.wakes},
			{WAKES_GIVEN, 0, r.wakes_given}, {PARKS, 0, r.parks}};

		memset(text, 0, sizeof(text));
		snprintf(text[CPU], CELL_BYTES, "%.1f", r.cpu_percent);
		for (unsigned v = 0; v < ARRAY_LEN(values) && stage_find(name); v++)
			snprintf(text[values[v].column], CELL_BYTES, "%.*f", (int)values[v].decimals,
				values[v].value);
		if (capacity)
			snprintf(text[QUEUE], CELL_BYTES, "%" PRIu64 "/%" PRIu64,
				reading_value(f->after, name, METRIC_QUEUE_LEN), capacity);
		for (unsigned c = 0; c < THREAD_COLUMNS; c++)
			cells[c] = text[c];
		fprintf(f->out, "%-*s", THREAD_WIDTH, name);
		print_cells(f->out, thread_columns, THREAD_COLUMNS, shown, cells);
	}
	if (f->threads.lines && rows < f->threads.nr)
		fprintf(f->out, "%s, %.1f%% of a CPU\n", count_rest(&f->threads, rows, "thread", text[0]),
			rest);
}

/* Those that happened. */
static void print_drops(struct frame *f)
{
	const struct reading_group *g = reading_group(f->after, metrics_group_name(METRICS_GROUP_DROPS));
	char text[CELL_BYTES];
	double rest;
	const unsigned rows = choose_rows(f, &f->drops, true, &rest);

	if (f->drops.lines && !f->drops.nr)
		fputs("drops: none\n", f->out);
	else if (rows)
		fputs("drops\n", f->out);
	for (unsigned i = 0; i < rows; i++)
		fprintf(f->out, "  %-30s %12.1f /s\n", g->counters[f->drops.rows[i].index].name,
			f->drops.rows[i].weight);
	if (f->drops.lines && rows < f->drops.nr)
		fprintf(f->out, "%s, %.1f /s\n", count_rest(&f->drops, rows, "drop reason", text), rest);
}

static void print_peers(struct frame *f)
{
	struct column columns[PEER_COLUMNS];
	const char *cells[PEER_COLUMNS];
	char text[PEER_COLUMNS][CELL_BYTES];
	double rest = 0;
	const unsigned rows = f->peers.nr ? choose_rows(f, &f->peers, false, &rest) : 0;

	memcpy(columns, peer_columns, sizeof(columns));
	for (unsigned i = 0; i < rows; i++) {
		const unsigned len = (unsigned)strlen(f->after->peers[f->peers.rows[i].index].endpoint);

		columns[ENDPOINT].width = MAX(columns[ENDPOINT].width, len + 2);
	}
	/* The three first columns say more than the rest of a key. */
	const bool in_full =
		f->columns >= KEY_WIDTH + columns[RX].width + columns[TX].width + columns[HANDSHAKE].width;
	const unsigned key_width = in_full ? KEY_WIDTH : SHORT_KEY_WIDTH;
	const uint64_t shown = choose_columns(columns, PEER_COLUMNS, f->columns - MIN(f->columns, key_width));

	if (rows) {
		for (unsigned c = 0; c < PEER_COLUMNS; c++)
			cells[c] = columns[c].title;
		fprintf(f->out, "%-*s", (int)key_width, "peer");
		print_cells(f->out, columns, PEER_COLUMNS, shown, cells);
	}
	for (unsigned i = 0; i < rows; i++) {
		const struct reading_peer *p = &f->after->peers[f->peers.rows[i].index];
		double rx, tx;

		find_peer_rates(f, f->peers.rows[i].index, &rx, &tx);
		snprintf(text[RX], CELL_BYTES, "%.1f", rx / 1e6);
		snprintf(text[TX], CELL_BYTES, "%.1f", tx / 1e6);
		quantity_bytes(p->rx_bytes, text[RECEIVED]);
		quantity_bytes(p->tx_bytes, text[SENT]);
		if (p->handshake_s)
			quantity_age(reading_age_s(p->handshake_s), text[HANDSHAKE]);
		else
			strcpy(text[HANDSHAKE], "never");
		snprintf(text[ENDPOINT], CELL_BYTES, "%s", *p->endpoint ? p->endpoint : "(none)");
		for (unsigned c = 0; c < PEER_COLUMNS; c++)
			cells[c] = text[c];
		print_key(f->out, p->public_key, in_full);
		print_cells(f->out, columns, PEER_COLUMNS, shown, cells);
	}
	if (f->peers.lines && rows < f->peers.nr)
		fprintf(f->out, "%s, %.1f Mbit/s\n", count_rest(&f->peers, rows, "peer", text[0]),
			rest / 1e6);
}

/*
 * Begins the table. Returns how many rows to show: the first ones, the heaviest, by weight or in the order of the
 * reading. *rest: the weight of the others.
 */
static unsigned choose_rows(const struct frame *f, struct table *t, bool keep_order, double *rest)
{
	const bool all = t->lines == lines_wanted(t);
	/* Without the title and the line that counts the others. */
	const unsigned rows = all ? t->nr : t->lines >= 3 ? t->lines - 2 : 0;

	if (f->spaced)
		putc('\n', f->out);
	qsort(t->rows, t->nr, sizeof(*t->rows), by_weight);
	*rest = 0;
	for (unsigned i = rows; i < t->nr; i++)
		*rest += t->rows[i].weight;
	if (keep_order)
		qsort(t->rows, rows, sizeof(*t->rows), by_index);
	return rows;
}

static int by_weight(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->weight > y->weight || x->weight < y->weight)
		return x->weight > y->weight ? -1 : 1;
	return x->index < y->index ? -1 : 1;
}

static int by_index(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->index < y->index ? -1 : 1;
}

/* Those that are not shown: "and 3 more", "40 peers". */
static const char *count_rest(const struct table *t, unsigned shown, const char *what, char buf[CELL_BYTES])
{
	if (shown)
		snprintf(buf, CELL_BYTES, "and %u more", t->nr - shown);
	else
		snprintf(buf, CELL_BYTES, "%u %s%s", t->nr, what, t->nr == 1 ? "" : "s");
	return buf;
}

/* The bits of those that fit, none before a more useful one. */
static uint64_t choose_columns(const struct column *columns, unsigned nr, unsigned room)
{
	uint64_t shown = 0;

	for (unsigned rank = 0; rank < nr; rank++) {
		for (unsigned c = 0; c < nr; c++) {
			if (columns[c].rank != rank)
				continue;
			if (columns[c].width > room)
				return shown;
			room -= columns[c].width;
			shown |= UINT64_C(1) << c;
		}
	}
	return shown;
}

/* And the end of the line, with no blanks before it. */
static void print_cells(
	FILE *out, const struct column *columns, unsigned nr, uint64_t shown, const char *const cells[])
{
	unsigned blanks = 0;

	for (unsigned c = 0; c < nr; c++) {
		if (!(shown >> c & 1))
			continue;
		blanks += columns[c].width;
		if (!*cells[c])
			continue;
		fprintf(out, "%*s", (int)blanks, cells[c]);
		blanks = 0;
	}
	putc('\n', out);
}

static void print_key(FILE *out, const char *key, bool in_full)
{
	if (in_full)
		fputs(key, out);
	else /* as in the log: the last character is always '=' */
		fprintf(out, "%.4s...%.4s", key, key + KEY_WIDTH - 5);
}

/* Mostly it is at the same place as before. */
static const struct reading_peer *find_peer(const struct reading *r, const char *public_key, unsigned hint)
{
	for (unsigned i = 0; i < r->nr_peers; i++) {
		const struct reading_peer *p = &r->peers[(hint + i) % r->nr_peers];

		if (strcmp(p->public_key, public_key) == 0)
			return p;
	}
	return NULL;
}

/* Of the i-th peer, in bits a second. */
static void find_peer_rates(const struct frame *f, unsigned i, double *rx, double *tx)
{
	const struct reading_peer *p = &f->after->peers[i], *old = find_peer(f->before, p->public_key, i);
	const double seconds = reading_seconds(f->before, f->after);

	*rx = old && p->rx_bytes > old->rx_bytes ? (double)(p->rx_bytes - old->rx_bytes) * 8 / seconds : 0;
	*tx = old && p->tx_bytes > old->tx_bytes ? (double)(p->tx_bytes - old->tx_bytes) * 8 / seconds : 0;
}
