/*
 * The program behind perf/micro.
 *
 *	sluice-micro about
 *	sluice-micro list [PATTERN...]
 *	sluice-micro time BATCHES BATCH_US [PATTERN...]
 *	sluice-micro count [PATTERN...]                  under callgrind, started with --instr-atstart=no
 *--collect-atstart=no
 *
 * One line of JSON a stage (`about`: one on this build). `time` pins itself to one CPU and gives the
 * nanoseconds per unit of every batch; `count` has callgrind write a dump named after each stage.
 */
#include "perf/micro.h"

#include <errno.h>
#include <fnmatch.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <urcu-qsbr.h>

#include "core/base/log.h"
#include "crypto/aead.h"
#include "crypto/secret.h"
#include "tests/sim/node.h"

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define HAVE_CALLGRIND 1
#else
#define HAVE_CALLGRIND 0
#endif

#define STAGES_MAX 256
#define SEED 20240229
/* Every turn costs the same number of instructions but for what happens once in several (a window that moves
 * on, a batch that fills). */
#define COUNT_TURNS 8
#define BATCHES_MAX 1000

enum mode { MODE_LIST, MODE_TIME, MODE_COUNT };

struct options {
	enum mode mode;
	unsigned batches;
	uint64_t batch_ns;
	char **patterns;
};

static struct stage stages[STAGES_MAX];
static unsigned nr_stages;
static const struct stage *current;

static void about(void);
static int parse(struct options *o, char **argv);
static bool wanted(const struct options *o, const struct stage *s);
static void run(const struct options *o, const struct stage *s);
static void measure(const struct options *o, const struct stage *s, void *ctx);
static uint64_t batch(const struct stage *s, void *ctx, unsigned turns);
static void count(const struct stage *s, void *ctx);
static void turn(const struct stage *s, void *ctx);
static void pin(void);

int main(int argc, char **argv)
{
	char error[LOG_ERROR_BYTES];
	struct options o;

	if (argc == 2 && !strcmp(argv[1], "about")) {
		about();
		return 0;
	}
	if (argc < 2 || parse(&o, argv + 1)) {
		fprintf(stderr,
			"usage: %s about\n       %s list|count [PATTERN...]\n       %s time BATCHES BATCH_US "
			"[PATTERN...]\n",
			argv[0], argv[0], argv[0]);
		return 2;
	}
	if (o.mode == MODE_COUNT && !HAVE_CALLGRIND) {
		fprintf(stderr, "built without valgrind's headers (Debian: valgrind)\n");
		return 2;
	}
	micro_require(!log_set_directives("off", error));
	random_seed_all(SEED);
	micro_require(!secret_init());
	rcu_register_thread();
	micro_ring_stages();
	micro_crypto_stages();
	micro_handshake_stages();
	micro_tun_stages();
	micro_udp_stages();
	micro_routing_stages();
	micro_path_stages();
	if (o.mode == MODE_TIME)
		pin();

	unsigned selected = 0;
	for (unsigned i = 0; i < nr_stages; i++) {
		if (!wanted(&o, &stages[i]))
			continue;
		selected++;
		run(&o, &stages[i]);
	}
	rcu_unregister_thread();
	if (!selected)
		fprintf(stderr, "no such stage\n");
	return selected ? 0 : 2;
}

void micro_add(const struct stage *stage, const char *name, ...)
{
	struct stage *s = &stages[nr_stages];
	va_list args;

	micro_require(nr_stages < STAGES_MAX);
	nr_stages++;
	*s = *stage;
	va_start(args, name);
	const int len = vsnprintf(s->name, sizeof(s->name), name, args);
	va_end(args);
	micro_require(len > 0 && (size_t)len < sizeof(s->name));
}

void micro_die(const char *file, int line, const char *condition)
{
	fflush(stdout);
	fprintf(stderr, "stage %s is broken: %s:%d: not so: %s\n", current ? current->name : "(none)", file,
		line, condition);
	exit(1);
}

void *micro_alloc(size_t bytes)
{
	void *p = aligned_alloc(4096, ALIGN_UP(bytes, (size_t)4096));

	micro_require(p);
	return memset(p, 0, bytes);
}

/* What the instruction counts depend on and only the compiled program knows for sure. */
static void about(void)
{
#ifdef __clang__
	const char *compiler = "clang " __clang_version__;
#else
	const char *compiler = "gcc " __VERSION__;
#endif
	bool release = false;

#if defined(__OPTIMIZE__) && defined(NDEBUG)
	release = true;
#endif
	printf("{\"compiler\": \"%s\", \"release\": %s, \"backends\": [", compiler,
		release ? "true" : "false");
	for (unsigned i = 0; aead_backends[i]; i++)
		printf("%s\"%s\"", i ? ", " : "", aead_backends[i]->name);
	printf("]}\n");
}

static int parse(struct options *o, char **argv)
{
	const char *mode = *argv++;

	*o = (struct options){0};
	if (!strcmp(mode, "time") && argv[0] && argv[1]) {
		o->mode = MODE_TIME;
		o->batches = (unsigned)strtoul(*argv++, NULL, 10);
		o->batch_ns = strtoull(*argv++, NULL, 10) * 1000;
		if (!o->batches || o->batches > BATCHES_MAX || !o->batch_ns)
			return -EINVAL;
	} else if (!strcmp(mode, "count")) {
		o->mode = MODE_COUNT;
	} else if (strcmp(mode, "list")) {
		return -EINVAL;
	}
	o->patterns = argv;
	return 0;
}

static bool wanted(const struct options *o, const struct stage *s)
{
	if (!o->patterns[0])
		return true;
	for (char **p = o->patterns; *p; p++)
		if (!fnmatch(*p, s->name, 0))
			return true;
	return false;
}

/* Out of line and with a page-aligned frame: where the stack begins, which depends on the environment, must
 * not count. */
__attribute__((noinline)) static void run(const struct options *o, const struct stage *s)
{
	_Alignas(4096) volatile uint8_t frame[64] __attribute__((unused));
	const char *why = NULL;

	frame[0] = 0;
	current = s;
	printf("{\"stage\": \"%s\", \"unit\": \"%s\", \"units\": %u, \"hot\": %s", s->name, s->unit, s->units,
		s->hot ? "true" : "false");
	if (o->mode != MODE_LIST) {
		/* Its inputs do not depend on which stages ran before. */
		random_seed_all(SEED);
		void *ctx = s->ops->setup(s, &why);

		if (ctx) {
			s->ops->check(ctx);
			turn(s, ctx);
			if (o->mode == MODE_TIME)
				measure(o, s, ctx);
			else
				count(s, ctx);
			s->ops->done(ctx);
			rcu_barrier();
		} else {
			printf(", \"skipped\": \"%s\"", why);
		}
	}
	printf("}\n");
	fflush(stdout);
	current = NULL;
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void measure(const struct options *o, const struct stage *s, void *ctx)
{
	unsigned turns = 1;

	/* As many turns as fill a batch; the preparation of each is not in it. */
	while (batch(s, ctx, turns) < o->batch_ns / 2 && turns < 1u << 24)
		turns *= 2;
	printf(", \"turns\": %u, \"ns\": [", turns);
	for (unsigned i = 0; i < o->batches; i++)
		printf("%s%.3f", i ? ", " : "", (double)batch(s, ctx, turns) / ((double)turns * s->units));
	printf("]");
}

static uint64_t batch(const struct stage *s, void *ctx, unsigned turns)
{
	uint64_t elapsed = 0;

	if (!s->ops->prepare) {
		const uint64_t start = clock_ns();

		for (unsigned i = 0; i < turns; i++)
			turn(s, ctx);
		return clock_ns() - start;
	}
	for (unsigned i = 0; i < turns; i++) {
		s->ops->prepare(ctx);
		const uint64_t start = clock_ns();

		micro_require(s->ops->turn(ctx) == s->units);
		elapsed += clock_ns() - start;
	}
	return elapsed;
}

static void count(const struct stage *s, void *ctx)
{
#if HAVE_CALLGRIND
	unsigned good = 0;

	CALLGRIND_START_INSTRUMENTATION;
	CALLGRIND_ZERO_STATS;
	for (unsigned i = 0; i < COUNT_TURNS; i++) {
		if (s->ops->prepare)
			s->ops->prepare(ctx);
		CALLGRIND_TOGGLE_COLLECT;
		good += s->ops->turn(ctx);
		CALLGRIND_TOGGLE_COLLECT;
	}
	CALLGRIND_DUMP_STATS_AT(s->name);
	CALLGRIND_STOP_INSTRUMENTATION;
	micro_require(good == COUNT_TURNS * s->units);
	printf(", \"counted\": %u", good);
#endif
}

static void turn(const struct stage *s, void *ctx)
{
	if (s->ops->prepare)
		s->ops->prepare(ctx);
	micro_require(s->ops->turn(ctx) == s->units);
}

/* To the last CPU that we may use: the first ones serve most interrupts. */
static void pin(void)
{
	cpu_set_t all, one;

	micro_require(!sched_getaffinity(0, sizeof(all), &all));
	for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		micro_require(!sched_setaffinity(0, sizeof(one), &one));
		return;
	}
}
