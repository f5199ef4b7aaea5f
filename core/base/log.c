#include "core/base/log.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "ring/park.h"

#define LINE_BYTES 1024
#define IDENT_BYTES 64

static const char *const level_names[LOG_LEVELS] = {"off", "error", "warn", "info", "debug"};

static const char *const component_names[LOG_COMPONENTS] = {
	[LOG_CORE] = "core",
	[LOG_HANDSHAKE] = "handshake",
	[LOG_PEER] = "peer",
	[LOG_TUN] = "tun",
	[LOG_UDP] = "udp",
	[LOG_UAPI] = "uapi",
	[LOG_CRYPTO] = "crypto",
	[LOG_LINK] = "link",
};

/* The same as LOG_DIRECTIVES_DEFAULT says. */
static const uint8_t default_levels[LOG_COMPONENTS] = {
	[LOG_CORE] = LOG_LEVEL_INFO,
	[LOG_HANDSHAKE] = LOG_LEVEL_WARN,
	[LOG_PEER] = LOG_LEVEL_INFO,
	[LOG_TUN] = LOG_LEVEL_INFO,
	[LOG_UDP] = LOG_LEVEL_WARN,
	[LOG_UAPI] = LOG_LEVEL_INFO,
	[LOG_CRYPTO] = LOG_LEVEL_INFO,
	[LOG_LINK] = LOG_LEVEL_INFO,
};

_Atomic uint8_t log_levels[LOG_COMPONENTS] = {
	[LOG_CORE] = LOG_LEVEL_INFO,
	[LOG_HANDSHAKE] = LOG_LEVEL_WARN,
	[LOG_PEER] = LOG_LEVEL_INFO,
	[LOG_TUN] = LOG_LEVEL_INFO,
	[LOG_UDP] = LOG_LEVEL_WARN,
	[LOG_UAPI] = LOG_LEVEL_INFO,
	[LOG_CRYPTO] = LOG_LEVEL_INFO,
	[LOG_LINK] = LOG_LEVEL_INFO,
};

static _Atomic(enum log_format) current_format = LOG_FORMAT_HUMAN;
static _Atomic(enum log_sink) current_sink = LOG_SINK_STDERR;
static _Atomic(struct log_limit *) limits; /* push-only list */

static int parse_directives(
	uint8_t levels[LOG_COMPONENTS], const char *directives, char error[LOG_ERROR_BYTES]);
static void sanitize(char *text);
static void format_time(char *buf, size_t size);
static void write_json(enum log_level level, enum log_component component, const char *message);
static void write_human(enum log_level level, enum log_component component, const char *message);
static void write_line(char *line, size_t len);
static int syslog_priority(enum log_level level);
static uint64_t window_now(void);
static void limit_list(struct log_limit *limit);
static int find_name(const char *const *names, unsigned nr, const char *text, size_t len);

void log_write(enum log_level level, enum log_component component, const char *fmt, ...)
{
	int saved_errno = errno;
	char message[LINE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	sanitize(message);

	if (atomic_load_explicit(&current_format, memory_order_relaxed) == LOG_FORMAT_JSON)
		write_json(level, component, message);
	else
		write_human(level, component, message);
	errno = saved_errno;
}

bool log_limit_pass(struct log_limit *limit)
{
	uint64_t now = window_now();
	uint64_t window = atomic_load_explicit(&limit->window, memory_order_relaxed);

	/* Two threads may both open a new window; the loser of the exchange just counts in it. */
	if (window != now && atomic_compare_exchange_strong(&limit->window, &window, now))
		atomic_store(&limit->passed, 0);
	if (atomic_fetch_add(&limit->passed, 1) < LOG_LIMIT_BURST)
		return true;
	/* Keeps the count of a long flood from wrapping into a second burst. */
	atomic_store(&limit->passed, LOG_LIMIT_BURST);
	atomic_fetch_add(&limit->suppressed, 1);
	limit_list(limit);
	return false;
}

void log_report_suppressed(void)
{
	for (struct log_limit *l = atomic_load_explicit(&limits, memory_order_acquire); l; l = l->next) {
		uint64_t n = atomic_exchange(&l->suppressed, 0);
		const char *slash;

		if (n == 0)
			continue;
		slash = strrchr(l->file, '/');
		log_at(l->level, l->component, "%llu more messages like the last from %s:%d were suppressed",
			(unsigned long long)n, slash ? slash + 1 : l->file, l->line);
	}
}

void log_set_format(enum log_format format)
{
	atomic_store(&current_format, format);
}

void log_set_sink(enum log_sink sink, const char *ident)
{
	static char copy[IDENT_BYTES]; /* openlog() keeps the pointer */

	if (sink == LOG_SINK_SYSLOG) {
		snprintf(copy, sizeof(copy), "%s", ident);
		openlog(copy, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	}
	atomic_store(&current_sink, sink);
}

int log_set_directives(const char *directives, char error[LOG_ERROR_BYTES])
{
	uint8_t levels[LOG_COMPONENTS];
	int err = parse_directives(levels, directives, error);

	if (err)
		return err;
	for (unsigned c = 0; c < LOG_COMPONENTS; c++)
		atomic_store_explicit(&log_levels[c], levels[c], memory_order_relaxed);
	return 0;
}

int log_check_directives(const char *directives, char error[LOG_ERROR_BYTES])
{
	uint8_t levels[LOG_COMPONENTS];

	return parse_directives(levels, directives, error);
}

const char *log_get_directives(char buf[LOG_DIRECTIVES_BYTES])
{
	size_t used = 0;

	for (unsigned c = 0; c < LOG_COMPONENTS; c++) {
		uint8_t level = atomic_load_explicit(&log_levels[c], memory_order_relaxed);

		used += (size_t)snprintf(buf + used, LOG_DIRECTIVES_BYTES - used, "%s%s=%s", c ? "," : "",
			component_names[c], level_names[level]);
		CHECK(used < LOG_DIRECTIVES_BYTES);
	}
	return buf;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

const char *log_component_name(enum log_component component)
{
	return component_names[component];
}

static int parse_directives(
	uint8_t levels[LOG_COMPONENTS], const char *directives, char error[LOG_ERROR_BYTES])
{
	int named[LOG_COMPONENTS];
	int bare = -1;

	for (unsigned c = 0; c < LOG_COMPONENTS; c++)
		named[c] = -1;

	for (const char *part = directives;; part++) {
		size_t len = strcspn(part, ",");
		const char *equals = memchr(part, '=', len);
		const char *level_text = equals ? equals + 1 : part;
		size_t level_len = len - (size_t)(level_text - part);
		int shown = (int)MIN(len, (size_t)40);
		int level, component = -1;

		if (equals) {
			component = find_name(component_names, LOG_COMPONENTS, part, (size_t)(equals - part));
			if (component < 0) {
				snprintf(error, LOG_ERROR_BYTES,
					"\"%.*s\": no such component (core handshake peer tun udp uapi "
					"crypto link)",
					shown, part);
				return -EINVAL;
			}
		}
		level = find_name(level_names, LOG_LEVELS, level_text, level_len);
		if (level < 0) {
			snprintf(error, LOG_ERROR_BYTES,
				"\"%.*s\": no such level (off error warn info debug)", shown, part);
			return -EINVAL;
		}
		if (component < 0 ? bare >= 0 : named[component] >= 0) {
			snprintf(error, LOG_ERROR_BYTES, "\"%.*s\": set twice", shown, part);
			return -EINVAL;
		}
		if (component < 0)
			bare = level;
		else
			named[component] = level;

		part += len;
		if (*part == '\0')
			break;
	}

	for (unsigned c = 0; c < LOG_COMPONENTS; c++)
		levels[c] = (uint8_t)(named[c] >= 0 ? named[c] : bare >= 0 ? bare : default_levels[c]);
	return 0;
}

/*
 * Names and error texts may come from outside: no line breaks, no terminal escapes, and always valid UTF-8
 * for JSON.
 */
static void sanitize(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
}

static void format_time(char *buf, size_t size)
{
	const uint64_t now_ns = clock_realtime_ns();
	const time_t seconds = (time_t)(now_ns / NS_PER_SEC);
	struct tm tm;
	size_t len;

	gmtime_r(&seconds, &tm);
	len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + len, size - len, ".%06uZ", (unsigned)(now_ns % NS_PER_SEC / 1000));
}

static void write_json(enum log_level level, enum log_component component, const char *message)
{
	char ts[40], thread[16] = "", line[2 * LINE_BYTES + 256];
	json_t *object;
	size_t len;

	format_time(ts, sizeof(ts));
	pthread_getname_np(pthread_self(), thread, sizeof(thread));
	sanitize(thread);
	object = json_pack("{s:s, s:s, s:s, s:s, s:s}", "ts", ts, "level", level_names[level], "component",
		component_names[component], "thread", thread, "message", message);
	if (!object)
		return;
	len = json_dumpb(object, line, sizeof(line) - 2, JSON_COMPACT);
	json_decref(object);
	CHECK(len <= sizeof(line) - 2); /* at worst each of the LINE_BYTES is escaped to two */
	if (atomic_load_explicit(&current_sink, memory_order_relaxed) == LOG_SINK_SYSLOG)
		syslog(syslog_priority(level), "%.*s", (int)len, line);
	else
		write_line(line, len);
}

static void write_human(enum log_level level, enum log_component component, const char *message)
{
	char ts[40], line[LINE_BYTES + 128];
	int len;

	if (atomic_load_explicit(&current_sink, memory_order_relaxed) == LOG_SINK_SYSLOG) {
		syslog(syslog_priority(level), "%s: %s", component_names[component], message);
		return;
	}
	format_time(ts, sizeof(ts));
	len = snprintf(line, sizeof(line) - 1, "%s %-5s %s: %s", ts, level_names[level],
		component_names[component], message);
	write_line(line, MIN((size_t)len, sizeof(line) - 2));
}

/* line has room for one more byte. */
static void write_line(char *line, size_t len)
{
	ssize_t written;

	line[len] = '\n';
	do
		written = write(STDERR_FILENO, line, len + 1);
	while (written < 0 && errno == EINTR);
	/* Any other failure has no better place to be reported than the one that just failed. */
}

static int syslog_priority(enum log_level level)
{
	static const int priorities[LOG_LEVELS] = {
		[LOG_LEVEL_OFF] = LOG_DEBUG,
		[LOG_LEVEL_ERROR] = LOG_ERR,
		[LOG_LEVEL_WARN] = LOG_WARNING,
		[LOG_LEVEL_INFO] = LOG_INFO,
		[LOG_LEVEL_DEBUG] = LOG_DEBUG,
	};

	return priorities[level];
}

/* Counted from 1, so that a zeroed limit is in no window yet. */
static uint64_t window_now(void)
{
	return park_clock_ns() / LOG_LIMIT_WINDOW_NS + 1;
}

/* Call sites are static, so the list needs no removal. */
static void limit_list(struct log_limit *limit)
{
	struct log_limit *head;

	if (atomic_load_explicit(&limit->listed, memory_order_relaxed) ||
		atomic_exchange(&limit->listed, true))
		return;
	head = atomic_load(&limits);
	do
		limit->next = head;
	while (!atomic_compare_exchange_weak(&limits, &head, limit));
}

static int find_name(const char *const *names, unsigned nr, const char *text, size_t len)
{
	for (unsigned i = 0; i < nr; i++)
		if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0)
			return (int)i;
	return -1;
}
