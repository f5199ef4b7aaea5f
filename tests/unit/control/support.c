#include "tests/unit/control/support.h"

#include <errno.h>
#include <stdarg.h>

#include "crypto/secret.h"

static void call(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg);
static void set_sockets(void *ctx, struct udp_sockets *sockets);
static int open_sockets(struct udp_sockets **out, uint16_t port, uint32_t fwmark);
static int set_mark(struct udp_sockets *sockets, uint32_t old_mark, uint32_t mark);
static int backend_set(void *ctx, struct config_set *set);
static int backend_get(void *ctx, struct config_snapshot *out);
static int backend_stats(void *ctx, struct uapi_text *out);
static int backend_log(void *ctx, const char *directives, struct uapi_text *out);

struct bench_sockets bench_sockets;

struct bench *bench_new(void)
{
	struct bench *b = calloc(1, sizeof(*b));

	random_seed_all(seed_choose("SLUICE_SEED"));
	cr_assert_eq(secret_init(), 0);
	rcu_register_thread();
	b->node = node_new("192.0.2.1:51820");
	b->dev = &b->node->dev;
	b->target = (struct config_target){call, set_sockets, open_sockets, set_mark, b};
	b->backend = (struct uapi_backend){backend_set, backend_get, backend_stats, backend_log, b};
	config_init(&b->config, &b->target);
	bench_sockets = (struct bench_sockets){.next_port = BENCH_RANDOM_PORT};
	return b;
}

void bench_free(struct bench *b)
{
	config_link_down(&b->config);
	config_done(&b->config);
	node_free(b->node);
	free(b);
	cr_assert_eq(secret_in_use(), 0, "%zu bytes of secrets leaked", secret_in_use());
	rcu_unregister_thread();
}

char *bench_ask(struct bench *b, const char *text, size_t step)
{
	struct uapi_session *session;
	size_t len = strlen(text), answered = 0;
	char *answers = calloc(1, 1);

	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	for (;;) {
		size_t waiting, room;
		const char *answer = uapi_session_answer(session, &waiting);
		char *in;

		if (waiting) {
			waiting = MIN(waiting, step);
			answers = realloc(answers, answered + waiting + 1);
			memcpy(answers + answered, answer, waiting);
			answered += waiting;
			answers[answered] = '\0';
			uapi_session_sent(session, waiting);
			continue;
		}
		in = uapi_session_room(session, &room);
		room = MIN(MIN(room, step), len);
		if (room == 0)
			break;
		memcpy(in, text, room);
		text += room;
		len -= room;
		uapi_session_received(session, room);
	}
	uapi_session_free(session);
	return answers;
}

int bench_set(struct bench *b, const char *fmt, ...)
{
	char *body, *text, *answer;
	va_list args;
	int status, end = 0;

	va_start(args, fmt);
	cr_assert_geq(vasprintf(&body, fmt, args), 0);
	va_end(args);
	cr_assert_geq(asprintf(&text, "set=1\n%s\n", body), 0);
	answer = bench_ask(b, text, SIZE_MAX);
	cr_assert_eq(sscanf(answer, "errno=%d\n\n%n", &status, &end), 1, "answer: %s", answer);
	cr_assert_eq(strlen(answer), (size_t)end, "more than one answer: %s", answer);
	free(body);
	free(text);
	free(answer);
	return status;
}

char *bench_get(struct bench *b)
{
	return bench_ask(b, "get=1\n\n", SIZE_MAX);
}

void bench_expect(struct bench *b, const char *fmt, ...)
{
	char *lines, *text, *answer = bench_get(b);
	va_list args;

	va_start(args, fmt);
	cr_assert_geq(vasprintf(&lines, fmt, args), 0);
	va_end(args);
	cr_assert_geq(asprintf(&text, "%serrno=0\n\n", lines), 0);
	cr_assert_str_eq(answer, text);
	free(lines);
	free(text);
	free(answer);
}

const char *bench_key(uint32_t i)
{
	static char buffers[8][2 * NOISE_KEY_BYTES + 1];
	static unsigned turn;
	char *key = buffers[turn++ % 8];

	snprintf(key, sizeof(buffers[0]), "0123456789abcdef0123456789abcdef0123456789abcdef01234567%08x", i);
	return key;
}

static void call(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg)
{
	struct bench *b = ctx;

	b->calls++;
	fn(b->dev, arg);
	node_settle(b->node);
}

static void set_sockets(void *ctx, struct udp_sockets *sockets)
{
	struct bench *b = ctx;

	b->used = sockets;
}

static int open_sockets(struct udp_sockets **out, uint16_t port, uint32_t fwmark)
{
	struct udp_sockets *s;

	if (bench_sockets.open_error)
		return bench_sockets.open_error;
	if (port && port == bench_sockets.busy_port)
		return -EADDRINUSE;
	s = calloc(1, sizeof(*s));
	s->fd4 = s->fd6 = -1;
	s->refs = 1;
	s->port = port ? port : bench_sockets.next_port++;
	bench_sockets.mark = fwmark;
	bench_sockets.nr_open++;
	*out = s;
	return 0;
}

static int set_mark(struct udp_sockets *sockets, uint32_t old_mark, uint32_t mark)
{
	if (bench_sockets.mark_error)
		return bench_sockets.mark_error;
	cr_assert_eq(old_mark, bench_sockets.mark);
	bench_sockets.mark = mark;
	return 0;
}

static int backend_set(void *ctx, struct config_set *set)
{
	struct bench *b = ctx;

	return config_apply(&b->config, set);
}

static int backend_get(void *ctx, struct config_snapshot *out)
{
	struct bench *b = ctx;

	return config_get(&b->config, out);
}

static int backend_stats(void *ctx, struct uapi_text *out)
{
	uapi_text_add(out, "group=tun-rx0\nreads=7\n");
	return 0;
}

static int backend_log(void *ctx, const char *directives, struct uapi_text *out)
{
	if (strcmp(directives, "bad") == 0) {
		uapi_text_add(out, "error=\"bad\": no\n");
		return -EINVAL;
	}
	uapi_text_add(out, "log=%s\n", directives);
	return 0;
}
