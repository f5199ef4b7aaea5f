/*
 * Fuzz target: the text of the control protocol, from the bytes of a client to a device. The first byte of
 * the input says in what pieces the rest arrives. Checked besides memory: every answer has its form, a
 * refused request has changed nothing, and what is listed can be read back.
 *
 * Removed peers wait for a grace period, which libFuzzer takes for leaks: run it with -detect_leaks=0. The
 * target itself counts what is left.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/control/config.h"
#include "core/control/uapi.h"
#include "crypto/secret.h"
#include "tests/sim/node.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Also with NDEBUG. */
#define require(condition)                                                                                   \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                      \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static struct node *node;
static struct config config;
static unsigned nr_inputs;

static void call(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg)
{
	fn(&node->dev, arg);
	node_settle(node);
}

static void set_sockets(void *ctx, struct udp_sockets *sockets)
{
}

/* Ports below 1024 are taken, so that requests fail late, too. */
static int open_sockets(struct udp_sockets **out, uint16_t port, uint32_t fwmark)
{
	struct udp_sockets *s;

	if (port && port < 1024)
		return -EADDRINUSE;
	s = calloc(1, sizeof(*s));
	require(s);
	s->fd4 = s->fd6 = -1;
	s->refs = 1;
	s->port = port ? port : 51820;
	*out = s;
	return 0;
}

static int set_mark(struct udp_sockets *sockets, uint32_t old_mark, uint32_t mark)
{
	return mark == 1 ? -EPERM : 0;
}

static const struct config_target target = {call, set_sockets, open_sockets, set_mark, NULL};

/* The configuration as text, or NULL where a snapshot cannot be had. Free it. */
static char *listing(const struct config_snapshot *s)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	require(f);
	fprintf(f, "%u %u %u %u\n", s->has_private_key, s->listen_port, s->fwmark, s->nr_peers);
	fwrite(s->private_key, 1, sizeof(s->private_key), f);
	for (uint32_t i = 0; i < s->nr_peers; i++) {
		const struct config_peer_view *view = &s->peers[i];
		char endpoint[ENDPOINT_STRLEN];

		fwrite(view->public_key, 1, sizeof(view->public_key), f);
		fwrite(view->preshared, 1, sizeof(view->preshared), f);
		if (endpoint_is_set(&view->endpoint))
			fprintf(f, "%s", endpoint_format(&view->endpoint, endpoint));
		fprintf(f, " %u\n", view->persistent_keepalive_s);
		for (uint32_t j = 0; j < view->nr_prefixes; j++) {
			const struct ip_prefix *p = &s->prefixes[view->first_prefix + j];

			fprintf(f, "%u/%u ", p->family, p->cidr);
			fwrite(p->addr, 1, sizeof(p->addr), f);
		}
	}
	fclose(f);
	return text;
}

static char *list_now(void)
{
	struct config_snapshot snapshot;
	char *text;

	require(config_get(&config, &snapshot) == 0);
	text = listing(&snapshot);
	config_snapshot_done(&snapshot);
	return text;
}

static int backend_set(void *ctx, struct config_set *set)
{
	char *before = list_now(), *after;
	int err = config_apply(&config, set);

	if (err) {
		after = list_now();
		require(strcmp(before, after) == 0);
		free(after);
	}
	free(before);
	return err;
}

static int backend_get(void *ctx, struct config_snapshot *out)
{
	return config_get(&config, out);
}

static int backend_stats(void *ctx, struct uapi_text *out)
{
	uapi_text_add(out, "group=%s\n%s=%d\n", "crypto", "turns", 1);
	return 0;
}

static int backend_log(void *ctx, const char *directives, struct uapi_text *out)
{
	char error[LOG_ERROR_BYTES];
	int err = log_check_directives(directives, error);

	if (err)
		uapi_text_add(out, "error=%s\n", error);
	return err;
}

static const struct uapi_backend backend = {backend_set, backend_get, backend_stats, backend_log, NULL};

static void start(void)
{
	char error[LOG_ERROR_BYTES];

	require(log_set_directives("off", error) == 0);
	random_seed_all(1);
	require(secret_init() == 0);
	rcu_register_thread();
	node = node_new("192.0.2.1:51820");
	config_init(&config, &target);
}

/* Zero or more answers, each of whole lines and with its status at the end. */
static void check_answers(const char *text, size_t len)
{
	size_t line = 0;
	bool status = false;

	for (size_t i = 0; i < len; i++) {
		if (text[i] != '\n')
			continue;
		if (i == line) {
			require(status);
			status = false;
		} else {
			require(!status && memchr(text + line, '=', i - line));
			status = i - line > 6 && memcmp(text + line, "errno=", 6) == 0;
		}
		line = i + 1;
	}
	require(line == len && !status);
}

/* Lets the session have its answers, all of which must be well-formed. */
static void take_answers(struct uapi_session *session, size_t step)
{
	for (;;) {
		size_t len;
		const char *answer = uapi_session_answer(session, &len);

		if (len == 0)
			return;
		check_answers(answer, len);
		while (len) {
			size_t sent = MIN(len, step);

			uapi_session_sent(session, sent);
			len -= sent;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct uapi_session *session;
	struct config_set clear;
	size_t step;

	if (!node)
		start();
	if (size == 0)
		return 0;
	step = data[0] ? data[0] : UAPI_INPUT_BYTES;
	data++;
	size--;

	/* Half of the inputs find the interface up. */
	if (step & 1)
		require(config_link_up(&config) == 0);
	require(uapi_session_new(&session, &backend) == 0);
	while (size) {
		size_t room;
		char *in = uapi_session_room(session, &room);

		if (room == 0)
			break;
		room = MIN(MIN(room, step), size);
		memcpy(in, data, room);
		data += room;
		size -= room;
		uapi_session_received(session, room);
		take_answers(session, step);
	}
	uapi_session_free(session);

	/* Back to the beginning; nothing may be left over. */
	config_link_down(&config);
	config_set_init(&clear);
	clear.has_private_key = clear.has_listen_port = clear.has_fwmark = clear.replace_peers = true;
	require(config_apply(&config, &clear) == 0);
	config_set_done(&clear);
	for (struct datagram *d; (d = node_take(node));)
		free(d);
	/* A grace period takes longer than an input: removed peers are looked after now and then. */
	if (++nr_inputs % 128 == 0) {
		rcu_barrier();
		require(secret_in_use() == 0);
	}
	require(node->dev.allowed_ips.count == 0 && node->dev.nr_peers == 0);
	return 0;
}
