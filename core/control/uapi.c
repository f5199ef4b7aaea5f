#include "core/control/uapi.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "ring/number.h"

#define TEXT_CAPACITY_FIRST 256
#define STATUS_BYTES 32 /* "errno=-2147483648\n\n" and a zero byte */
#define NAME_MAX_LEN 31 /* of a key that may be logged; a secret key has 43 characters at least */

enum operation {
	OPERATION_NONE, /* between requests */
	OPERATION_GET,
	OPERATION_SET,
	OPERATION_STATS,
	OPERATION_LOG,
	OPERATION_UNKNOWN
};

struct uapi_session {
	const struct uapi_backend *backend;
	enum operation operation;
	int err;     /* the first error of the request, whose rest is read and ignored */
	bool broken; /* uapi_session_broken() */
	uint64_t request_bytes;
	unsigned line_nr; /* of the line that is taken, from 1 in each request */
	struct config_set set;
	struct config_snapshot snapshot; /* while a get is answered */
	char directives[LOG_DIRECTIVES_BYTES];
	struct uapi_text answer;
	size_t sent;
	size_t in_len;
	char in[UAPI_INPUT_BYTES];
};

/* One line, cut at its '='. Neither part is terminated. */
struct line {
	const char *key, *value;
	size_t key_len, value_len;
};

typedef int (*line_fn)(struct config_set *set, const char *value, size_t len);

struct key {
	const char *name;
	line_fn parse;
};

static void run(struct uapi_session *s);
static void take_line(struct uapi_session *s, const char *text, size_t len);
static int begin_request(struct uapi_session *s, const struct line *line);
static int body_line(struct uapi_session *s, const struct line *line);
static bool looks_like_name(const struct line *line);
static void end_request(struct uapi_session *s);
static void break_session(struct uapi_session *s, int err);
static void answer_status(struct uapi_session *s, int err);
static int run_get(struct uapi_session *s);
static void add_peer_view(
	struct uapi_text *out, const struct config_snapshot *snapshot, const struct config_peer_view *view);
static void add_prefix(struct uapi_text *out, const struct ip_prefix *prefix);
static bool text_reserve(struct uapi_text *text, size_t more);
static void text_shrink(struct uapi_text *text);
static void text_release(struct uapi_text *text);

static int parse_private_key(struct config_set *set, const char *value, size_t len);
static int parse_listen_port(struct config_set *set, const char *value, size_t len);
static int parse_fwmark(struct config_set *set, const char *value, size_t len);
static int parse_replace_peers(struct config_set *set, const char *value, size_t len);
static int parse_public_key(struct config_set *set, const char *value, size_t len);
static int parse_remove(struct config_set *set, const char *value, size_t len);
static int parse_update_only(struct config_set *set, const char *value, size_t len);
static int parse_preshared_key(struct config_set *set, const char *value, size_t len);
static int parse_endpoint(struct config_set *set, const char *value, size_t len);
static int parse_persistent_keepalive(struct config_set *set, const char *value, size_t len);
static int parse_replace_allowed_ips(struct config_set *set, const char *value, size_t len);
static int parse_allowed_ip(struct config_set *set, const char *value, size_t len);
static int parse_protocol_version(struct config_set *set, const char *value, size_t len);
static struct config_peer *section(struct config_set *set);
static int parse_hex_key(uint8_t key[NOISE_KEY_BYTES], const char *value, size_t len);
static int hex_digit(char c);
static int parse_true(const char *value, size_t len);
static int parse_prefix(struct ip_prefix *out, const char *value, size_t len);
static bool equals(const char *text, size_t len, const char *word);

/* The keys of a set are these up to its first public_key, and those of a peer from there on. */
static const struct key device_keys[] = {
	{"private_key", parse_private_key},
	{"listen_port", parse_listen_port},
	{"fwmark", parse_fwmark},
	{"replace_peers", parse_replace_peers},
	{"public_key", parse_public_key},
	{NULL, NULL},
};

static const struct key peer_keys[] = {
	{"allowed_ip", parse_allowed_ip},
	{"public_key", parse_public_key},
	{"preshared_key", parse_preshared_key},
	{"endpoint", parse_endpoint},
	{"persistent_keepalive_interval", parse_persistent_keepalive},
	{"replace_allowed_ips", parse_replace_allowed_ips},
	{"remove", parse_remove},
	{"update_only", parse_update_only},
	{"protocol_version", parse_protocol_version},
	{NULL, NULL},
};

int uapi_session_new(struct uapi_session **out, const struct uapi_backend *backend)
{
	struct uapi_session *s = secret_alloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->backend = backend;
	config_set_init(&s->set);
	if (!text_reserve(&s->answer, STATUS_BYTES)) {
		uapi_session_free(s);
		return -ENOMEM;
	}
	*out = s;
	return 0;
}

void uapi_session_free(struct uapi_session *s)
{
	if (!s)
		return;
	config_set_done(&s->set);
	text_release(&s->answer);
	secret_free(s, sizeof(*s));
}

char *uapi_session_room(struct uapi_session *s, size_t *len)
{
	*len = s->broken || s->answer.len ? 0 : sizeof(s->in) - s->in_len;
	return s->in + s->in_len;
}

void uapi_session_received(struct uapi_session *s, size_t len)
{
	CHECK(len <= sizeof(s->in) - s->in_len);
	s->in_len += len;
	run(s);
}

const char *uapi_session_answer(const struct uapi_session *s, size_t *len)
{
	*len = s->answer.len - s->sent;
	return s->answer.data + s->sent;
}

void uapi_session_sent(struct uapi_session *s, size_t len)
{
	CHECK(len <= s->answer.len - s->sent);
	s->sent += len;
	if (s->sent < s->answer.len)
		return;
	text_shrink(&s->answer);
	s->answer.len = s->sent = 0;
	run(s);
}

bool uapi_session_broken(const struct uapi_session *s)
{
	return s->broken;
}

bool uapi_session_in_request(const struct uapi_session *s)
{
	return s->operation != OPERATION_NONE || s->in_len > 0;
}

/* Takes complete lines from the input until an answer waits, then moves what is left to the front. */
static void run(struct uapi_session *s)
{
	size_t used = 0;

	while (!s->broken && s->answer.len == 0) {
		const char *line = s->in + used;
		const char *newline = memchr(line, '\n', s->in_len - used);
		size_t len = newline ? (size_t)(newline - line) : s->in_len - used;

		if (len > UAPI_LINE_MAX) {
			break_session(s, -EPROTO);
			break;
		}
		if (!newline)
			break;
		used += len + 1;
		s->request_bytes += len + 1;
		if (s->request_bytes > UAPI_REQUEST_MAX) {
			break_session(s, -E2BIG);
			break;
		}
		take_line(s, line, len);
	}
	if (used == 0)
		return;
	memmove(s->in, s->in + used, s->in_len - used);
	secret_zero(s->in + s->in_len - used, used);
	s->in_len -= used;
}

static void take_line(struct uapi_session *s, const char *text, size_t len)
{
	const char *equal_sign = memchr(text, '=', len);
	struct line line = {.key = text};
	int err;

	if (len == 0) {
		if (s->operation != OPERATION_NONE)
			end_request(s);
		else
			s->request_bytes = 0; /* an empty line between requests is no request */
		return;
	}
	if (s->err)
		return;
	s->line_nr++;
	if (equal_sign) {
		line.key_len = (size_t)(equal_sign - text);
		line.value = equal_sign + 1;
		line.value_len = len - line.key_len - 1;
	}

	if (s->operation == OPERATION_NONE)
		err = begin_request(s, &line);
	else
		err = body_line(s, &line);
	if (err) {
		s->err = err;
		config_set_done(&s->set);
	}
}

static int begin_request(struct uapi_session *s, const struct line *line)
{
	s->operation = OPERATION_UNKNOWN;
	if (!line->value)
		return -EPROTO;
	if (equals(line->key, line->key_len, "log")) {
		if (line->value_len >= sizeof(s->directives) || memchr(line->value, '\0', line->value_len))
			return -EINVAL;
		memcpy(s->directives, line->value, line->value_len);
		s->directives[line->value_len] = '\0';
		s->operation = OPERATION_LOG;
		return 0;
	}
	if (!equals(line->value, line->value_len, "1"))
		return -EINVAL;
	if (equals(line->key, line->key_len, "get"))
		s->operation = OPERATION_GET;
	else if (equals(line->key, line->key_len, "set"))
		s->operation = OPERATION_SET;
	else if (equals(line->key, line->key_len, "stats"))
		s->operation = OPERATION_STATS;
	else
		return -EINVAL;
	return 0;
}

static int body_line(struct uapi_session *s, const struct line *line)
{
	const struct key *key = s->set.nr_peers ? peer_keys : device_keys;
	const char *section = s->set.nr_peers ? "a peer" : "the interface";

	if (s->operation != OPERATION_SET)
		return line->value ? -EINVAL : -EPROTO;
	if (!line->value) {
		log_limited(LOG_LEVEL_WARN, LOG_UAPI, "set refused: line %u: no '=' in it", s->line_nr);
		return -EPROTO;
	}
	for (; key->name; key++) {
		int err;

		if (!equals(line->key, line->key_len, key->name))
			continue;
		err = key->parse(&s->set, line->value, line->value_len);
		if (err)
			log_limited(LOG_LEVEL_WARN, LOG_UAPI, "set refused: line %u: bad %s: %s", s->line_nr,
				key->name, strerror(-err));
		return err;
	}
	if (looks_like_name(line))
		log_limited(LOG_LEVEL_WARN, LOG_UAPI,
			"set refused: line %u: unknown key %.*s in the section of %s", s->line_nr,
			(int)line->key_len, line->key, section);
	else
		log_limited(LOG_LEVEL_WARN, LOG_UAPI,
			"set refused: line %u: unknown key, not shown as it may be a secret, in the section "
			"of %s",
			s->line_nr, section);
	return -EINVAL;
}

/*
 * Whether a key may be logged. It may be a private key that was pasted into the wrong place: in base64 that
 * ends in '=', so that all of it stands where the key of a line stands.
 */
static bool looks_like_name(const struct line *line)
{
	if (line->key_len == 0 || line->key_len > NAME_MAX_LEN)
		return false;
	for (size_t i = 0; i < line->key_len; i++)
		if ((line->key[i] < 'a' || line->key[i] > 'z') && line->key[i] != '_')
			return false;
	return true;
}

static void end_request(struct uapi_session *s)
{
	int err = s->err;

	if (!err) {
		switch (s->operation) {
		case OPERATION_SET:
			err = s->backend->set(s->backend->ctx, &s->set);
			if (err && s->set.refused_port)
				log_limited(LOG_LEVEL_WARN, LOG_UAPI, "set refused: UDP port %u: %s",
					s->set.refused_port, strerror(-err));
			else if (err)
				log_limited(LOG_LEVEL_WARN, LOG_UAPI, "set refused: %s", strerror(-err));
			break;
		case OPERATION_GET:
			err = run_get(s);
			break;
		case OPERATION_STATS:
			err = s->backend->stats(s->backend->ctx, &s->answer);
			break;
		case OPERATION_LOG:
			err = s->backend->log(s->backend->ctx, s->directives, &s->answer);
			break;
		default:
			err = -EINVAL;
			break;
		}
	}
	answer_status(s, err);
	config_set_done(&s->set);
	s->operation = OPERATION_NONE;
	s->err = 0;
	s->request_bytes = 0;
	s->line_nr = 0;
}

static void break_session(struct uapi_session *s, int err)
{
	s->broken = true;
	config_set_done(&s->set);
	s->operation = OPERATION_NONE;
	answer_status(s, err);
}

/* Adds the last lines of an answer. They are all of an answer for which there was no memory. */
static void answer_status(struct uapi_session *s, int err)
{
	if (s->answer.failed) {
		s->answer.failed = false;
		err = -ENOMEM;
	}
	uapi_text_add(&s->answer, "errno=%d\n\n", err);
	if (s->answer.failed) {
		s->answer.failed = false;
		uapi_text_add(&s->answer, "errno=%d\n\n", -ENOMEM);
	}
	/* The text never has less than its first capacity, which is enough for these lines. */
	assert(!s->answer.failed);
}

static int run_get(struct uapi_session *s)
{
	struct config_snapshot *snapshot = &s->snapshot;
	struct uapi_text *out = &s->answer;
	int err = s->backend->get(s->backend->ctx, snapshot);

	if (err)
		return err;
	if (snapshot->has_private_key)
		uapi_text_add_key(out, "private_key", snapshot->private_key);
	if (snapshot->listen_port)
		uapi_text_add(out, "listen_port=%u\n", snapshot->listen_port);
	if (snapshot->fwmark)
		uapi_text_add(out, "fwmark=%u\n", snapshot->fwmark);
	for (uint32_t i = 0; i < snapshot->nr_peers && !out->failed; i++)
		add_peer_view(out, snapshot, &snapshot->peers[i]);
	config_snapshot_done(snapshot);
	return 0;
}

static void add_peer_view(
	struct uapi_text *out, const struct config_snapshot *snapshot, const struct config_peer_view *view)
{
	char endpoint[ENDPOINT_STRLEN];

	uapi_text_add_key(out, "public_key", view->public_key);
	uapi_text_add_key(out, "preshared_key", view->preshared);
	uapi_text_add(out, "protocol_version=1\n");
	if (endpoint_is_set(&view->endpoint))
		uapi_text_add(out, "endpoint=%s\n", endpoint_format(&view->endpoint, endpoint));
	uapi_text_add(out,
		"last_handshake_time_sec=%llu\n"
		"last_handshake_time_nsec=%llu\n"
		"tx_bytes=%llu\n"
		"rx_bytes=%llu\n"
		"persistent_keepalive_interval=%u\n",
		(unsigned long long)(view->last_handshake_ns / NS_PER_SEC),
		(unsigned long long)(view->last_handshake_ns % NS_PER_SEC),
		(unsigned long long)view->tx_bytes, (unsigned long long)view->rx_bytes,
		view->persistent_keepalive_s);
	for (uint32_t i = 0; i < view->nr_prefixes; i++)
		add_prefix(out, &snapshot->prefixes[view->first_prefix + i]);
}

static void add_prefix(struct uapi_text *out, const struct ip_prefix *prefix)
{
	char address[INET6_ADDRSTRLEN];

	inet_ntop(prefix->family, prefix->addr, address, sizeof(address));
	uapi_text_add(out, "allowed_ip=%s/%u\n", address, prefix->cidr);
}

void uapi_text_add(struct uapi_text *text, const char *fmt, ...)
{
	va_list args;
	int len;

	for (unsigned attempt = 0; attempt < 2 && !text->failed; attempt++) {
		size_t room = text->capacity - text->len;

		va_start(args, fmt);
		len = vsnprintf(text->data + text->len, room, fmt, args);
		va_end(args);
		if (len < 0)
			break;
		if ((size_t)len < room) {
			text->len += (size_t)len;
			return;
		}
		if (!text_reserve(text, (size_t)len + 1))
			break;
	}
	text->failed = true;
	text->len = 0;
}

void uapi_text_add_key(struct uapi_text *text, const char *name, const uint8_t key[NOISE_KEY_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	char hex[2 * NOISE_KEY_BYTES + 1];

	for (unsigned i = 0; i < NOISE_KEY_BYTES; i++) {
		hex[2 * i] = digits[key[i] >> 4];
		hex[2 * i + 1] = digits[key[i] & 15];
	}
	hex[sizeof(hex) - 1] = '\0';
	uapi_text_add(text, "%s=%s\n", name, hex);
	secret_zero(hex, sizeof(hex));
}

/* On failure the text keeps what it has. */
static bool text_reserve(struct uapi_text *text, size_t more)
{
	size_t capacity = MAX(text->capacity, (size_t)TEXT_CAPACITY_FIRST);
	char *data;

	if (text->capacity - text->len >= more)
		return true;
	while (capacity - text->len < more)
		capacity *= 2;
	data = secret_alloc_large(capacity);
	if (!data)
		return false;
	if (text->len)
		memcpy(data, text->data, text->len);
	secret_free_large(text->data, text->capacity);
	text->data = data;
	text->capacity = capacity;
	return true;
}

/*
 * A listing of ten thousand peers must not stay allocated while its client idles. Only when there is no
 * memory for a smaller text, it does.
 */
static void text_shrink(struct uapi_text *text)
{
	char *data = text->capacity > TEXT_CAPACITY_FIRST ? secret_alloc_large(TEXT_CAPACITY_FIRST) : NULL;

	if (!data) {
		secret_zero(text->data, text->len);
		return;
	}
	secret_free_large(text->data, text->capacity);
	text->data = data;
	text->capacity = TEXT_CAPACITY_FIRST;
}

static void text_release(struct uapi_text *text)
{
	secret_free_large(text->data, text->capacity);
	memset(text, 0, sizeof(*text));
}

static int parse_private_key(struct config_set *set, const char *value, size_t len)
{
	int err = parse_hex_key(set->private_key, value, len);

	if (!err)
		set->has_private_key = true;
	return err;
}

static int parse_listen_port(struct config_set *set, const char *value, size_t len)
{
	uint64_t port;
	int err = number_parse(&port, value, len, 0, UINT16_MAX);

	if (err)
		return err;
	set->has_listen_port = true;
	set->listen_port = (uint16_t)port;
	return 0;
}

static int parse_fwmark(struct config_set *set, const char *value, size_t len)
{
	uint64_t fwmark;
	int err = number_parse(&fwmark, value, len, 0, UINT32_MAX);

	if (err)
		return err;
	set->has_fwmark = true;
	set->fwmark = (uint32_t)fwmark;
	return 0;
}

static int parse_replace_peers(struct config_set *set, const char *value, size_t len)
{
	int err = parse_true(value, len);

	if (!err)
		set->replace_peers = true;
	return err;
}

static int parse_public_key(struct config_set *set, const char *value, size_t len)
{
	uint8_t key[NOISE_KEY_BYTES];
	int err = parse_hex_key(key, value, len);

	return err ? err : config_set_add_peer(set, key);
}

static int parse_remove(struct config_set *set, const char *value, size_t len)
{
	int err = parse_true(value, len);

	if (!err)
		section(set)->remove = true;
	return err;
}

static int parse_update_only(struct config_set *set, const char *value, size_t len)
{
	int err = parse_true(value, len);

	if (!err)
		section(set)->update_only = true;
	return err;
}

static int parse_preshared_key(struct config_set *set, const char *value, size_t len)
{
	int err = parse_hex_key(section(set)->preshared, value, len);

	if (!err)
		section(set)->has_preshared = true;
	return err;
}

static int parse_endpoint(struct config_set *set, const char *value, size_t len)
{
	char text[ENDPOINT_STRLEN + IF_NAMESIZE];
	int err;

	if (len >= sizeof(text) || memchr(value, '\0', len))
		return -EINVAL;
	memcpy(text, value, len);
	text[len] = '\0';
	err = endpoint_parse(&section(set)->endpoint, text);
	if (!err)
		section(set)->has_endpoint = true;
	return err;
}

static int parse_persistent_keepalive(struct config_set *set, const char *value, size_t len)
{
	uint64_t seconds;
	int err = number_parse(&seconds, value, len, 0, UINT16_MAX);

	if (err)
		return err;
	section(set)->has_persistent_keepalive = true;
	section(set)->persistent_keepalive_s = (uint16_t)seconds;
	return 0;
}

static int parse_replace_allowed_ips(struct config_set *set, const char *value, size_t len)
{
	int err = parse_true(value, len);

	if (!err)
		config_set_replace_prefixes(set);
	return err;
}

static int parse_allowed_ip(struct config_set *set, const char *value, size_t len)
{
	bool remove = len > 0 && value[0] == '-';
	struct ip_prefix prefix;
	int err = parse_prefix(&prefix, value + remove, len - remove);

	return err ? err : config_set_add_prefix(set, &prefix, remove);
}

static int parse_protocol_version(struct config_set *set, const char *value, size_t len)
{
	return equals(value, len, "1") ? 0 : -EINVAL;
}

/* That of the latest public_key, which the lines are about. */
static struct config_peer *section(struct config_set *set)
{
	return &set->peers[set->nr_peers - 1];
}

/* Exactly 64 hexadecimal digits. The time it takes depends on none of them. */
static int parse_hex_key(uint8_t key[NOISE_KEY_BYTES], const char *value, size_t len)
{
	uint8_t parsed[NOISE_KEY_BYTES];
	int bad = 0;

	if (len != 2 * NOISE_KEY_BYTES)
		return -EINVAL;
	for (unsigned i = 0; i < NOISE_KEY_BYTES; i++) {
		int high = hex_digit(value[2 * i]), low = hex_digit(value[2 * i + 1]);

		bad |= high | low;
		parsed[i] = (uint8_t)((unsigned)high << 4 | ((unsigned)low & 15));
	}
	if (bad >= 0)
		memcpy(key, parsed, NOISE_KEY_BYTES);
	secret_zero(parsed, sizeof(parsed));
	return bad < 0 ? -EINVAL : 0;
}

/*
 * 0..15, or -1. Without a table and without a branch, whose timing would tell of the digits, which are
 * secret.
 */
static int hex_digit(char c)
{
	int x = (unsigned char)c;
	int number = x - '0', letter = (x | 0x20) - 'a';
	/* All ones where the character is in the range. */
	int is_number = ~(number >> 31) & ((number - 10) >> 31);
	int is_letter = ~(letter >> 31) & ((letter - 6) >> 31);

	return (number & is_number) | ((letter + 10) & is_letter) | ~(is_number | is_letter);
}

static int parse_true(const char *value, size_t len)
{
	return equals(value, len, "true") ? 0 : -EINVAL;
}

/* ADDRESS/BITS. The host bits may be set. */
static int parse_prefix(struct ip_prefix *out, const char *value, size_t len)
{
	const char *slash = memchr(value, '/', len);
	char address[INET6_ADDRSTRLEN];
	struct ip_prefix prefix = {0};
	size_t address_len;
	uint64_t bits;
	int err;

	if (!slash)
		return -EINVAL;
	address_len = (size_t)(slash - value);
	if (address_len >= sizeof(address) || memchr(value, '\0', address_len))
		return -EINVAL;
	memcpy(address, value, address_len);
	address[address_len] = '\0';
	prefix.family = memchr(address, ':', address_len) ? AF_INET6 : AF_INET;
	if (inet_pton(prefix.family, address, prefix.addr) != 1)
		return -EINVAL;
	err = number_parse(&bits, slash + 1, len - address_len - 1, 0, prefix.family == AF_INET6 ? 128 : 32);
	if (err)
		return err;
	prefix.cidr = (uint8_t)bits;
	*out = prefix;
	return 0;
}

static bool equals(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}
