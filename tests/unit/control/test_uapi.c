#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "core/control/uapi.h"
#include "crypto/secret.h"
#include "tests/unit/control/support.h"
#include "tests/unit/mapping.h"

static void expect_answer(struct bench *b, const char *request, const char *answer)
{
	static const size_t steps[] = {SIZE_MAX, 1, 7};

	for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
		char *text = bench_ask(b, request, steps[i]);

		cr_assert_str_eq(text, answer, "in steps of %zu: \"%s\" to \"%s\"", steps[i], text, request);
		free(text);
	}
}

static void feed(struct uapi_session *session, const char *text)
{
	size_t room, len = strlen(text);
	char *to = uapi_session_room(session, &room);

	cr_assert_geq(room, len);
	memcpy(to, text, len);
	uapi_session_received(session, len);
}

Test(uapi, operations_answer_however_the_bytes_come)
{
	struct bench *b = bench_new();

	expect_answer(b, "get=1\n\n", "errno=0\n\n");
	expect_answer(b, "set=1\n\n", "errno=0\n\n");
	expect_answer(b, "stats=1\n\n", "group=tun-rx0\nreads=7\nerrno=0\n\n");
	expect_answer(b, "log=info,udp=off\n\n", "log=info,udp=off\nerrno=0\n\n");
	expect_answer(b, "log=\n\n", "log=\nerrno=0\n\n");
	expect_answer(b, "log=bad\n\n", "error=\"bad\": no\nerrno=-22\n\n");
	bench_free(b);
}

Test(uapi, one_connection_takes_many_requests)
{
	struct bench *b = bench_new();

	expect_answer(b, "set=1\nlisten_port=5\n\nget=1\n\nset=1\nlisten_port=x\n\nget=1\n\n\n\nget=1\n\n",
		"errno=0\n\nlisten_port=5\nerrno=0\n\nerrno=-22\n\nlisten_port=5\nerrno=0\n\nlisten_port="
		"5\nerrno=0\n\n");
	bench_free(b);
}

Test(uapi, unknown_operations_are_answered_once_and_skipped)
{
	struct bench *b = bench_new();

	expect_answer(b, "put=1\nlisten_port=5\nget=1\n\nget=1\n\n", "errno=-22\n\nerrno=0\n\n");
	expect_answer(b, "get=2\n\n", "errno=-22\n\n");
	expect_answer(b, "get=\n\n", "errno=-22\n\n");
	expect_answer(b, "get\n\n", "errno=-71\n\n");
	expect_answer(b, "get=1\nlisten_port=5\n\n", "errno=-22\n\n");
	expect_answer(b, " get=1\n\n", "errno=-22\n\n");
	bench_free(b);
}

Test(uapi, incomplete_request_has_no_effect)
{
	struct bench *b = bench_new();

	expect_answer(b, "set=1\nlisten_port=5\n", "");
	expect_answer(b, "set=1\nlisten_port=5", "");
	expect_answer(b, "get=1\n", "");
	bench_expect(b, "%s", "");
	bench_free(b);
}

/* Values that a key refuses, each in an otherwise good request. */
Test(uapi, malformed_values_are_refused)
{
	static const char *const device_lines[] = {
		"listen_port=",
		"listen_port=65536",
		"listen_port=-1",
		"listen_port=+1",
		"listen_port= 1",
		"listen_port=1 ",
		"listen_port=0x10",
		"listen_port=18446744073709551617",
		"fwmark=4294967296",
		"fwmark=",
		"fwmark=0x1",
		"replace_peers=false",
		"replace_peers=",
		"replace_peers=TRUE",
		"replace_peers=true ",
		"private_key=",
		"private_key=00",
		"private_key=000000000000000000000000000000000000000000000000000000000000000",
		"private_key=00000000000000000000000000000000000000000000000000000000000000000",
		"private_key=000000000000000000000000000000000000000000000000000000000000000g",
		"private_key=000000000000000000000000000000000000000000000000000000000000000/",
		"private_key=000000000000000000000000000000000000000000000000000000000000000:",
		"private_key=000000000000000000000000000000000000000000000000000000000000000@",
		"private_key=000000000000000000000000000000000000000000000000000000000000000`",
		"private_key=-000000000000000000000000000000000000000000000000000000000000000",
		"public_key=1",
		"allowed_ip=10.0.0.0/8",
		"endpoint=1.2.3.4:5",
		"remove=true",
		"preshared_key=00",
		"errno=0",
		"x=y",
		"=",
		"=1",
		"LISTEN_PORT=1",
	};
	static const char *const peer_lines[] = {
		"preshared_key=",
		"preshared_key=zz",
		"endpoint=",
		"endpoint=1.2.3.4",
		"endpoint=1.2.3.4:",
		"endpoint=1.2.3.4:65536",
		"endpoint=localhost:1",
		"endpoint=::1:1",
		"endpoint=[::1]",
		"endpoint=[::1:1",
		"endpoint=1.2.3.4:1x",
		"persistent_keepalive_interval=65536",
		"persistent_keepalive_interval=off",
		"persistent_keepalive_interval=",
		"replace_allowed_ips=false",
		"remove=false",
		"remove=1",
		"update_only=false",
		"protocol_version=2",
		"protocol_version=",
		"protocol_version=11",
		"allowed_ip=",
		"allowed_ip=-",
		"allowed_ip=/",
		"allowed_ip=10.0.0.0",
		"allowed_ip=10.0.0.0/",
		"allowed_ip=10.0.0.0/33",
		"allowed_ip=10.0.0/8",
		"allowed_ip=10.0.0.0/-8",
		"allowed_ip=10.0.0.0/8/8",
		"allowed_ip=--10.0.0.0/8",
		"allowed_ip=::/129",
		"allowed_ip=:::/1",
		"allowed_ip=[::]/1",
		"allowed_ip=fe80::1%lo/64",
		"allowed_ip=10.0.0.0 /8",
		"allowed_ip=ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255.255.255.255.255/128",
		"listen_port=1",
		"private_key=00",
		"fwmark=1",
		"replace_peers=true",
		"last_handshake_time_sec=1",
		"tx_bytes=1",
		"rx_bytes=1",
		"x=y",
	};
	struct bench *b = bench_new();

	for (unsigned i = 0; i < ARRAY_LEN(device_lines); i++)
		cr_assert_eq(bench_set(b, "fwmark=1\n%s\n", device_lines[i]), -EINVAL, "%s", device_lines[i]);
	for (unsigned i = 0; i < ARRAY_LEN(peer_lines); i++)
		cr_assert_eq(bench_set(b, "fwmark=1\npublic_key=%s\n%s\n", bench_key(1), peer_lines[i]),
			-EINVAL, "%s", peer_lines[i]);
	cr_assert_eq(bench_set(b, "fwmark\n"), -EPROTO);
	bench_expect(b, "%s", "");
	bench_free(b);
}

/* What is logged while text is answered. The caller frees it. */
static char *log_of(struct bench *b, const char *text)
{
	const int back = dup(STDERR_FILENO);
	char *log = calloc(1, 4096), *answer;
	int ends[2];

	cr_assert(log && back >= 0);
	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	dup2(ends[1], STDERR_FILENO);
	answer = bench_ask(b, text, SIZE_MAX);
	dup2(back, STDERR_FILENO);
	cr_assert(strstr(answer, "errno=-"), "%s: %s", text, answer);
	if (read(ends[0], log, 4095) < 0)
		*log = '\0';
	free(answer);
	close(ends[0]);
	close(ends[1]);
	close(back);
	return log;
}

/* Of requests that a program writes wrongly, its author is told which line it is, and which port. */
Test(uapi, refusals_name_line_key_and_port)
{
	struct bench *b = bench_new();
	char peer[256];
	const char *const cases[][2] = {
		{"set=1\nlisten_prot=5\n\n",
			"set refused: line 2: unknown key listen_prot in the section of the interface\n"},
		{peer, "set refused: line 4: unknown key fwmark in the section of a peer\n"},
		{"get=1\n\nset=1\nfwmark=1\nlisten_port=70000\n\n",
			"set refused: line 3: bad listen_port: Invalid argument\n"},
		{"set=1\nfwmark=1\nreplace_peers\n\n", "set refused: line 3: no '=' in it\n"},
		{"set=1\nlisten_port=2000\nfwmark=1\n\n",
			"set refused: UDP port 2000: Address already in use\n"},
	};

	snprintf(peer, sizeof(peer), "set=1\nlisten_port=5\npublic_key=%s\nfwmark=1\n\n", bench_key(1));
	cr_assert_eq(config_link_up(&b->config), 0);
	bench_sockets.busy_port = 2000;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		char *log = log_of(b, cases[i][0]);

		cr_assert(strstr(log, cases[i][1]), "%s: %s", cases[i][0], log);
		free(log);
	}
	/* The port is not to blame for what has another cause. */
	bench_sockets.mark_error = -EPERM;
	char *log = log_of(b, "set=1\nfwmark=9\n\n");
	cr_assert(strstr(log, "set refused: Operation not permitted\n"), "%s", log);
	free(log);
	bench_free(b);
}

Test(uapi, a_secret_in_the_place_of_a_key_is_not_logged)
{
	static const char *const keys[] = {
		"yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", /* base64 ends in a '=' */
		"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq=",
		"70e352adeb6c5a3a4d6f9a3e6c2b1c1f70e352adeb6c5a3a4d6f9a3e6c2b1c1f=",
		"hd2rYUIgJBgB3fBmk=",
		"private key=70e352adeb6c5a3a",
	};
	struct bench *b = bench_new();

	for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
		char request[128], *log;

		snprintf(request, sizeof(request), "set=1\n%s\n\n", keys[i]);
		log = log_of(b, request);
		cr_assert(strstr(log, "line 2: unknown key, not shown"), "%s: %s", keys[i], log);
		cr_assert(!memmem(log, strlen(log), keys[i], 8), "%s: %s", keys[i], log);
		free(log);
	}
	bench_free(b);
}

Test(uapi, good_values_are_taken)
{
	static const char *const lines[] = {
		"protocol_version=1",
		"endpoint=1.2.3.4:1",
		"endpoint=[2001:db8::1]:65535",
		"endpoint=[fe80::1%lo]:1",
		"allowed_ip=0.0.0.0/0",
		"allowed_ip=::ffff:1.2.3.4/128",
		"allowed_ip=-1.2.3.4/32",
		"persistent_keepalive_interval=0",
		"preshared_key=ABCDEFabcdef0123456789000000000000000000000000000000000000000000",
	};
	struct bench *b = bench_new();

	for (unsigned i = 0; i < ARRAY_LEN(lines); i++)
		cr_assert_eq(bench_set(b, "public_key=%s\n%s\n", bench_key(1), lines[i]), 0, "%s", lines[i]);
	cr_assert_eq(b->dev->nr_peers, 1);
	bench_free(b);
}

Test(uapi, hexadecimal_digits_have_their_values)
{
	struct bench *b = bench_new();
	static const char digits[] = "0123456789abcdefABCDEF";

	/* Every byte as either half of a key's last byte. */
	for (unsigned c = 1; c < 256; c++) {
		const char *digit = strchr(digits, (int)c);
		char *text;
		int status, value;

		if (c == '\n')
			continue;
		cr_assert_geq(asprintf(&text, "set=1\nreplace_peers=true\npublic_key=%062d%c7\n\nget=1\n\n",
				      0, (int)c),
			0);
		char *answer = bench_ask(b, text, SIZE_MAX);
		if (!digit) {
			cr_assert(strstr(answer, "errno=-22\n\n") == answer, "byte %u: %s", c, answer);
		} else {
			cr_assert_eq(sscanf(answer, "errno=%d\n\npublic_key=%*62[0]%2x\n", &status, &value),
				2, "%s", answer);
			cr_assert_eq(status, 0);
			cr_assert_eq(value, (int)strtol((char[]){(char)c, '7', 0}, NULL, 16));
		}
		free(answer);
		free(text);
	}
	bench_free(b);
}

Test(uapi, zero_bytes_are_no_way_around_the_checks)
{
	struct bench *b = bench_new();
	static const char *const lines[] = {"listen_port=1?", "endpoint=1.2.3.4:1?x",
		"allowed_ip=1.2.3.4?/32", "remove=true?", "protocol_version=1?"};

	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		struct uapi_session *session;
		char request[256];
		size_t room, len;
		int n = snprintf(
			request, sizeof(request), "set=1\npublic_key=%s\n%s\n\n", bench_key(1), lines[i]);
		const char *answer;

		*strchr(request, '?') = '\0';
		cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
		memcpy(uapi_session_room(session, &room), request, (size_t)n);
		uapi_session_received(session, (size_t)n);
		answer = uapi_session_answer(session, &len);
		cr_assert(len == strlen("errno=-22\n\n") && memcmp(answer, "errno=-22\n\n", len) == 0, "%s",
			lines[i]);
		uapi_session_free(session);
	}
	bench_free(b);
}

/* Writes len bytes into the session, as far as it takes them. Returns how many it took. */
static size_t pour(struct uapi_session *session, const char *text, size_t len)
{
	size_t poured = 0, room;

	while (poured < len) {
		char *in = uapi_session_room(session, &room);

		if (room == 0)
			break;
		room = MIN(room, len - poured);
		memcpy(in, text + poured, room);
		uapi_session_received(session, room);
		poured += room;
	}
	return poured;
}

static void expect_broken(struct uapi_session *session, int err)
{
	char status[32];
	size_t len, room;
	const char *answer = uapi_session_answer(session, &len);

	snprintf(status, sizeof(status), "errno=%d\n\n", err);
	cr_assert(uapi_session_broken(session));
	cr_assert(len == strlen(status) && memcmp(answer, status, len) == 0);
	uapi_session_sent(session, len);
	uapi_session_room(session, &room);
	cr_assert_eq(room, 0, "a broken session takes nothing more");
}

Test(uapi, endless_line_breaks_the_session_early)
{
	struct bench *b = bench_new();
	struct uapi_session *session;
	static char line[1 << 20];

	memset(line, 'a', sizeof(line));
	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	cr_assert_leq(pour(session, line, sizeof(line)), UAPI_INPUT_BYTES);
	expect_broken(session, -EPROTO);
	uapi_session_free(session);

	/* The longest line that is allowed is not too long. */
	memcpy(line, "set=1\n", 6);
	line[6 + UAPI_LINE_MAX] = '\n';
	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	cr_assert_eq(pour(session, line, 6 + UAPI_LINE_MAX + 1), 6 + UAPI_LINE_MAX + 1);
	cr_assert(!uapi_session_broken(session));
	uapi_session_free(session);
	bench_free(b);
}

Test(uapi, endless_request_breaks_the_session_at_its_limit)
{
	struct bench *b = bench_new();
	struct uapi_session *session;
	static char lines[1 << 16];
	uint64_t poured = 6;

	for (size_t i = 0; i < sizeof(lines); i += 8)
		memcpy(lines + i, "fwmark=\n", 8); /* wrong, so that nothing is kept */
	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	cr_assert_eq(pour(session, "set=1\n", 6), 6);
	while (poured < UAPI_REQUEST_MAX + sizeof(lines)) {
		size_t len = pour(session, lines, sizeof(lines));

		poured += len;
		if (len < sizeof(lines))
			break;
	}
	cr_assert_geq(poured, UAPI_REQUEST_MAX);
	cr_assert_leq(poured, UAPI_REQUEST_MAX + UAPI_INPUT_BYTES);
	expect_broken(session, -E2BIG);
	uapi_session_free(session);
	bench_free(b);
}

Test(uapi, client_that_never_reads_costs_one_answer)
{
	struct bench *b = bench_new();
	struct uapi_session *session;
	static char requests[1 << 20];
	size_t len, room;

	for (size_t i = 0; i + 7 <= sizeof(requests); i += 7)
		memcpy(requests + i, "get=1\n\n", 7);
	cr_assert_eq(bench_set(b, "public_key=%s\n", bench_key(1)), 0);
	b->calls = 0;
	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	cr_assert_leq(pour(session, requests, sizeof(requests)), UAPI_INPUT_BYTES);
	cr_assert_eq(b->calls, 2, "one get, in two visits");
	uapi_session_answer(session, &len);
	uapi_session_room(session, &room);
	cr_assert_eq(room, 0);
	/* Reading one answer brings the next. */
	uapi_session_sent(session, len - 1);
	cr_assert_eq(b->calls, 2);
	uapi_session_sent(session, 1);
	cr_assert_eq(b->calls, 4);
	uapi_session_free(session);
	bench_free(b);
}

/* Nothing of a request may stay in memory that is given back; here: in the input of the session. */
Test(uapi, input_is_wiped_as_it_is_taken)
{
	struct bench *b = bench_new();
	struct uapi_session *session;
	char request[256];
	size_t room, len;
	char *in;
	int n = snprintf(request, sizeof(request), "set=1\nprivate_key=%s\n\n", bench_key(5));

	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	in = uapi_session_room(session, &room);
	memcpy(in, request, (size_t)n);
	uapi_session_received(session, (size_t)n);
	for (int i = 0; i < n; i++)
		cr_assert_eq(in[i], 0);
	uapi_session_answer(session, &len);
	uapi_session_sent(session, len);
	uapi_session_free(session);
	bench_free(b);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

Test(uapi, ten_thousand_peers_are_set_and_listed_within_a_second_each, .timeout = 120)
{
	struct bench *b = bench_new();
	char *request = malloc(16 << 20), *answer;
	size_t len = 0, peers = 0;
	double start;

	cr_assert(request);
	len += (size_t)sprintf(request, "set=1\nreplace_peers=true\n");
	for (unsigned i = 0; i < 10000; i++)
		len += (size_t)sprintf(request + len,
			"public_key=%s\npreshared_key=%s\nendpoint=192.0.2.%u:%u\npersistent_keepalive_"
			"interval=25\n"
			"replace_allowed_ips=true\nallowed_ip=10.%u.%u.0/24\nallowed_ip=2001:db8:%x::/48\n",
			bench_key(i), bench_key(i ^ 0xffff), i % 256, i + 1, i / 256, i % 256, i);
	strcpy(request + len, "\n");

	/* The second time every peer exists, the third time all are replaced. */
	for (unsigned round = 0; round < 3; round++) {
		start = seconds();
		answer = bench_ask(b, request, UAPI_INPUT_BYTES);
		cr_assert_lt(seconds() - start, ONE_SECOND, "setting took %.2f s", seconds() - start);
		cr_assert_str_eq(answer, "errno=0\n\n");
		free(answer);
		rcu_quiescent_state();
	}
	start = seconds();
	answer = bench_ask(b, "get=1\n\n", 65536);
	cr_assert_lt(seconds() - start, ONE_SECOND, "listing took %.2f s", seconds() - start);
	for (char *at = answer; (at = strstr(at, "public_key=")); at++)
		cr_assert(strncmp(at + 11, bench_key((uint32_t)peers++), 64) == 0, "out of order");
	cr_assert_eq(peers, 10000);
	free(answer);
	free(request);
	bench_free(b);
}

/*
 * The naive model: an array of peers in order of insertion and an array of prefixes in order of assignment,
 * changed one line after the other.
 */
#define MODEL_KEYS 12
#define MODEL_PREFIXES 40

struct model_peer {
	unsigned key, keepalive, psk, port;
};

struct model {
	unsigned fwmark, nr_peers, nr_owned;
	struct model_peer peers[MODEL_KEYS];
	struct {
		unsigned prefix, key;
	} owned[MODEL_PREFIXES];
};

static struct model_peer *model_find(struct model *m, unsigned key)
{
	for (unsigned i = 0; i < m->nr_peers; i++)
		if (m->peers[i].key == key)
			return &m->peers[i];
	return NULL;
}

static void model_disown(struct model *m, unsigned i)
{
	memmove(&m->owned[i], &m->owned[i + 1], (m->nr_owned - i - 1) * sizeof(m->owned[0]));
	m->nr_owned--;
}

static void model_disown_all(struct model *m, unsigned key)
{
	for (unsigned i = m->nr_owned; i-- > 0;)
		if (m->owned[i].key == key)
			model_disown(m, i);
}

static void model_remove(struct model *m, unsigned key)
{
	struct model_peer *peer = model_find(m, key);

	if (!peer)
		return;
	model_disown_all(m, key);
	memmove(peer, peer + 1, (size_t)((char *)&m->peers[m->nr_peers] - (char *)(peer + 1)));
	m->nr_peers--;
}

static void model_own(struct model *m, unsigned prefix, unsigned key)
{
	for (unsigned i = 0; i < m->nr_owned; i++) {
		if (m->owned[i].prefix != prefix)
			continue;
		if (m->owned[i].key == key)
			return;
		model_disown(m, i);
		break;
	}
	m->owned[m->nr_owned].prefix = prefix;
	m->owned[m->nr_owned++].key = key;
}

static void prefix_text(char *out, unsigned prefix)
{
	if (prefix % 2)
		sprintf(out, "2001:db8:%x::/48", prefix);
	else
		sprintf(out, "10.%u.0.0/16", prefix);
}

static char *model_text(const struct model *m)
{
	char *text = malloc(65536), prefix[64];
	size_t len = 0;

	text[0] = '\0';
	if (m->fwmark)
		len += (size_t)sprintf(text + len, "fwmark=%u\n", m->fwmark);
	for (unsigned i = 0; i < m->nr_peers; i++) {
		const struct model_peer *peer = &m->peers[i];

		len += (size_t)sprintf(text + len, "public_key=%s\npreshared_key=%064u\nprotocol_version=1\n",
			bench_key(peer->key), peer->psk);
		if (peer->port)
			len += (size_t)sprintf(text + len, "endpoint=192.0.2.7:%u\n", peer->port);
		len += (size_t)sprintf(text + len,
			"last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"
			"persistent_keepalive_interval=%u\n",
			peer->keepalive);
		for (unsigned j = 0; j < m->nr_owned; j++) {
			if (m->owned[j].key != peer->key)
				continue;
			prefix_text(prefix, m->owned[j].prefix);
			len += (size_t)sprintf(text + len, "allowed_ip=%s\n", prefix);
		}
	}
	strcpy(text + len, "errno=0\n\n");
	return text;
}

/* One random section, written behind out and done to the model. Returns its length. */
static size_t random_section(struct model *m, char *out)
{
	unsigned key = (unsigned)random_below(MODEL_KEYS);
	size_t len = (size_t)sprintf(out, "public_key=%s\n", bench_key(key));
	struct model_peer *peer = model_find(m, key);
	char prefix[64];

	switch (random_below(6)) {
	case 0:
		model_remove(m, key);
		return len + (size_t)sprintf(out + len, "remove=true\n");
	case 1:
		len += (size_t)sprintf(out + len, "update_only=true\n");
		break;
	default:
		if (!peer) {
			peer = &m->peers[m->nr_peers++];
			*peer = (struct model_peer){.key = key};
		}
		break;
	}
	if (random_below(4) == 0) {
		len += (size_t)sprintf(out + len, "replace_allowed_ips=true\n");
		if (peer)
			model_disown_all(m, key);
	}
	for (uint64_t n = random_below(5); n > 0; n--) {
		unsigned number = (unsigned)random_below(MODEL_PREFIXES), value = (unsigned)random_below(100);

		switch (random_below(6)) {
		case 0:
			len += (size_t)sprintf(out + len, "persistent_keepalive_interval=%u\n", value);
			if (peer)
				peer->keepalive = value;
			break;
		case 1:
			len += (size_t)sprintf(out + len, "preshared_key=%064u\n", value);
			if (peer)
				peer->psk = value;
			break;
		case 2:
			len += (size_t)sprintf(out + len, "endpoint=192.0.2.7:%u\n", value + 1);
			if (peer)
				peer->port = value + 1;
			break;
		case 3:
			prefix_text(prefix, number);
			len += (size_t)sprintf(out + len, "allowed_ip=-%s\n", prefix);
			for (unsigned i = 0; peer && i < m->nr_owned; i++)
				if (m->owned[i].prefix == number && m->owned[i].key == key)
					model_disown(m, i--);
			break;
		default:
			prefix_text(prefix, number);
			len += (size_t)sprintf(out + len, "allowed_ip=%s\n", prefix);
			if (peer)
				model_own(m, number, key);
			break;
		}
	}
	return len;
}

Test(uapi, random_requests_do_what_a_naive_model_does, .timeout = 120)
{
	struct bench *b = bench_new();
	struct model model = {0};
	static char request[65536];

	for (unsigned round = 0; round < 3000; round++) {
		struct model changed = model;
		size_t len = (size_t)sprintf(request, "set=1\n");
		bool refused = random_below(8) == 0;
		char *answer, *expected;

		if (random_below(4) == 0) {
			changed.fwmark = (unsigned)random_below(3);
			len += (size_t)sprintf(request + len, "fwmark=%u\n", changed.fwmark);
		}
		if (random_below(16) == 0) {
			len += (size_t)sprintf(request + len, "replace_peers=true\n");
			changed.nr_peers = changed.nr_owned = 0;
		}
		for (uint64_t n = random_below(8); n > 0; n--)
			len += random_section(&changed, request + len);
		if (refused)
			len += (size_t)sprintf(request + len, "nonsense=1\n");
		strcpy(request + len, "\n");

		answer = bench_ask(b, request, 1 + random_below(200));
		cr_assert_str_eq(
			answer, refused ? "errno=-22\n\n" : "errno=0\n\n", "round %u: %s", round, request);
		free(answer);
		if (!refused)
			model = changed;
		answer = bench_get(b);
		expected = model_text(&model);
		cr_assert_str_eq(answer, expected, "round %u: %s\nto:\n%s\nexpected:\n%s", round, request,
			answer, expected);
		free(answer);
		free(expected);
		rcu_quiescent_state();
	}
	bench_free(b);
}

/* What get answers can be set again, but for the lines that are only ever told. */
Test(uapi, listing_can_be_set_again)
{
	struct bench *b = bench_new();
	char *first, *second, *copy, *request, *answer, *out;

	cr_assert_eq(
		bench_set(b,
			"private_key=%s\nlisten_port=7\nfwmark=9\n"
			"public_key=%s\nendpoint=[fe80::1%%lo]:5\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n"
			"public_key=%s\npreshared_key=%s\nendpoint=1.2.3.4:5\npersistent_keepalive_interval="
			"1\n",
			bench_key(9), bench_key(1), bench_key(2), bench_key(3)),
		0);
	first = bench_get(b);
	out = request = calloc(1, strlen(first) + 64);
	cr_assert(request);
	out += sprintf(out, "set=1\nreplace_peers=true\n");
	copy = strdup(first);
	for (char *line = strtok(copy, "\n"); line; line = strtok(NULL, "\n"))
		if (!strstr(line, "last_handshake") && !strstr(line, "_bytes") && !strstr(line, "errno"))
			out += sprintf(out, "%s\n", line);
	strcpy(out, "\n");
	answer = bench_ask(b, request, SIZE_MAX);
	cr_assert_str_eq(answer, "errno=0\n\n");
	second = bench_get(b);
	cr_assert_str_eq(second, first);
	free(first);
	free(second);
	free(copy);
	free(request);
	free(answer);
	bench_free(b);
}

/* The first bytes and the last of a listing, of one peer and of many. */
Test(uapi, requests_and_answers_lie_in_guarded_memory)
{
	struct bench *b = bench_new();
	struct uapi_session *session;
	size_t len;
	const char *answer;
	char line[256];

	cr_assert_eq(uapi_session_new(&session, &b->backend), 0);
	feed(session,
		"set=1\nprivate_key=1111111111111111111111111111111111111111111111111111111111111111\n");
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(line, sizeof(line), "public_key=%056d%08x\npreshared_key=%064d\n", 1, i, 7);
		feed(session, line);
		if (i == 0 || i == 2999) {
			feed(session, "\n");
			answer = uapi_session_answer(session, &len);
			cr_assert_eq(len, strlen("errno=0\n\n"));
			uapi_session_sent(session, len);
			feed(session, "get=1\n\n");
			answer = uapi_session_answer(session, &len);
			cr_assert_gt(len, 200 * (i + 1));
			cr_assert(
				mapping_has_flag(answer, " dd") && mapping_has_flag(answer + len - 1, " dd"),
				"%zu bytes", len);
			uapi_session_sent(session, len);
			feed(session, "set=1\n");
		}
	}
	cr_assert(mapping_has_flag(uapi_session_room(session, &len), " dd"));
	uapi_session_free(session);
	bench_free(b);
}
