#include "core/base/log.h"

#include <errno.h>
#include <jansson.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log_ring.h"
#include "core/base/thread.h"
#include "ring/park.h"

#define IDENT_BYTES 64
/* A line as it is written: at worst JSON escapes each byte of the message to two. */
#define LINE_BYTES (2 * LOG_MESSAGE_BYTES + 320)
/* How long the end waits for a log whose reader hangs. */
#define STOP_WAIT_NS NS_PER_SEC

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

/* A component that is added has the default, too. */
_Atomic uint8_t log_levels[LOG_COMPONENTS] = {[0 ... LOG_COMPONENTS - 1] = LOG_LEVEL_DEFAULT};

static _Atomic(enum log_format) current_format = LOG_FORMAT_HUMAN;
static _Atomic(enum log_sink) current_sink = LOG_SINK_STDERR;
static char interface[IFNAMSIZ];           /* "": not known yet; constant while threads run */
static _Atomic(struct log_limit *) limits; /* push-only list */

/* Of the thread `log`, from log_start() on. */
static struct {
	_Atomic bool queueing; /* lines go into the ring; otherwise whoever logs writes them itself */
	_Atomic bool stopping; /* set once there is nothing to come */
	struct park park;
	pthread_t thread;
	sem_t done; /* posted by the thread as the last thing it does */
	struct log_ring ring;
} writer;

static int parse_directives(
	uint8_t levels[LOG_COMPONENTS], const char *directives, char error[LOG_ERROR_BYTES]);
static void *writer_run(void *arg);
static bool writer_finish(void);
static void report_check(const char *text);
static void say_lost(uint64_t lost);
static void begin_line(struct log_line *line, enum log_level level, enum log_component component);
static void thread_name(char name[LOG_THREAD_BYTES]);
static void write_line(const struct log_line *line);
static size_t json_line(char text[LINE_BYTES], const struct log_line *line);
static size_t human_line(char text[LINE_BYTES], const struct log_line *line, bool to_syslog);
static void write_text(char *text, size_t len);
static void sanitize(char *to, const char *text, size_t size);
static void format_time(char *buf, size_t size, uint64_t realtime_ns);
static int syslog_priority(enum log_level level);
static uint64_t window_now(void);
static void limit_list(struct log_limit *limit);
static int find_level(const char *text, size_t len);
static int find_name(const char *const *names, unsigned nr, const char *text, size_t len);

void log_write(enum log_level level, enum log_component component, const char *fmt, ...)
{
	const bool queueing = atomic_load_explicit(&writer.queueing, memory_order_acquire);
	const int saved_errno = errno;
	struct log_line own, *line = queueing ? log_ring_reserve(&writer.ring) : &own;
	va_list args;

	/* A ring without room is one that the writer is at, so nobody needs to be woken. */
	if (line) {
		begin_line(line, level, component);
		va_start(args, fmt);
		vsnprintf(line->message, sizeof(line->message), fmt, args);
		va_end(args);
		if (queueing) {
			log_ring_commit(line);
			park_wake(&writer.park);
		} else {
			write_line(line);
		}
	}
	errno = saved_errno;
}

int log_start(void)
{
	int err;

	park_init(&writer.park);
	if (sem_init(&writer.done, 0, 0))
		return -errno;
	atomic_store(&writer.stopping, false);
	err = thread_start(&writer.thread, "log", writer_run, NULL);
	if (err) {
		sem_destroy(&writer.done);
		return err;
	}
	check_set_reporter(report_check);
	atomic_store_explicit(&writer.queueing, true, memory_order_release);
	return 0;
}

void log_stop(void)
{
	if (!atomic_load(&writer.queueing))
		return;
	check_set_reporter(NULL);
	/* A thread that hangs in the writing of a line ends with the process. Nothing is written any more. */
	if (!writer_finish())
		return;
	pthread_join(writer.thread, NULL);
	sem_destroy(&writer.done);
	atomic_store(&writer.queueing, false);
}

void log_startup_error(const char *message)
{
	struct log_line line;
	char text[LINE_BYTES];
	size_t len = 0;

	if (atomic_load(&current_format) == LOG_FORMAT_JSON) {
		begin_line(&line, LOG_LEVEL_ERROR, LOG_CORE);
		snprintf(line.message, sizeof(line.message), "%s", message);
		len = json_line(text, &line);
	}
	/* Also where there is no memory for an object, which may be what is wrong. */
	if (!len) {
		sanitize(line.message, message, sizeof(line.message));
		len = (size_t)snprintf(text, sizeof(text) - 1, "sluice: %s", line.message);
	}
	write_text(text, MIN(len, sizeof(text) - 2));
}

bool log_limit_pass(struct log_limit *limit)
{
	uint64_t now = window_now();
	uint64_t window = atomic_load_explicit(&limit->window, memory_order_relaxed);

	/* Two threads may both open a new window; the loser of the exchange just counts in it. */
	if (window != now && atomic_compare_exchange_strong(&limit->window, &window, now))
		atomic_store(&limit->passed, 0);
	/* In a flood the load alone decides: passed stops growing, so it never wraps into a second burst. */
	if (atomic_load_explicit(&limit->passed, memory_order_relaxed) < LOG_LIMIT_BURST &&
		atomic_fetch_add(&limit->passed, 1) < LOG_LIMIT_BURST)
		return true;
	atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
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

void log_set_interface(const char *ifname)
{
	snprintf(interface, sizeof(interface), "%s", ifname);
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
		level = find_level(level_text, level_len);
		if (level < 0) {
			snprintf(error, LOG_ERROR_BYTES,
				"\"%.*s\": no such level (off error warn info debug default)", shown, part);
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

	for (unsigned c = 0; c < LOG_COMPONENTS; c++) {
		const uint8_t current = atomic_load_explicit(&log_levels[c], memory_order_relaxed);

		levels[c] = (uint8_t)(named[c] >= 0 ? named[c] : bare >= 0 ? bare : current);
	}
	return 0;
}

/*
 * Thread log: the only one that waits for a reader of the log. It is no other thread's second task because
 * nothing may hang with it, not the answers to wg nor SIGTERM either; and writes that do not wait are no way
 * out, because standard error is shared with other processes, whose writes would change with it, and syslog()
 * knows no such thing.
 */
static void *writer_run(void *arg)
{
	for (;;) {
		/* Both before the last look at the ring, after which nothing may be missed. */
		const uint32_t ticket = park_ticket(&writer.park);
		const bool last = atomic_load(&writer.stopping);
		const struct log_line *line;

		while ((line = log_ring_peek(&writer.ring))) {
			say_lost(line->lost);
			write_line(line);
			log_ring_release(&writer.ring);
		}
		say_lost(log_ring_take_lost(&writer.ring));
		if (last)
			break;
		park_wait(&writer.park, ticket, PARK_FOREVER);
	}
	sem_post(&writer.done);
	return NULL;
}

/* Waits, not for long, until all that is queued has been written. Whether it has. */
static bool writer_finish(void)
{
	const uint64_t until_ns = park_clock_ns() + STOP_WAIT_NS;
	const struct timespec until = {
		.tv_sec = (time_t)(until_ns / NS_PER_SEC), .tv_nsec = (long)(until_ns % NS_PER_SEC)};
	int err;

	atomic_store(&writer.stopping, true);
	park_wake(&writer.park);
	do
		err = sem_clockwait(&writer.done, CLOCK_MONOTONIC, &until);
	while (err && errno == EINTR);
	return !err;
}

/* A failed check says its line on standard error itself, which in the background leads nowhere. */
static void report_check(const char *text)
{
	if (atomic_load(&current_sink) == LOG_SINK_SYSLOG)
		log_write(LOG_LEVEL_ERROR, LOG_CORE, "%s", text);
	if (!pthread_equal(pthread_self(), writer.thread))
		IGNORE_RESULT("the process ends either way", writer_finish());
}

static void say_lost(uint64_t lost)
{
	struct log_line line = {.realtime_ns = clock_realtime_ns(),
		.level = LOG_LEVEL_WARN,
		.component = LOG_CORE,
		.thread = "log"};

	if (!lost)
		return;
	snprintf(line.message, sizeof(line.message),
		"%llu lines were lost here: the log is not read fast enough", (unsigned long long)lost);
	write_line(&line);
}

/* All but the message. */
static void begin_line(struct log_line *line, enum log_level level, enum log_component component)
{
	line->realtime_ns = clock_realtime_ns();
	line->level = (uint8_t)level;
	line->component = (uint8_t)component;
	line->thread[0] = '\0';
	/* A system call, and only this format shows it. */
	if (atomic_load_explicit(&current_format, memory_order_relaxed) == LOG_FORMAT_JSON)
		thread_name(line->thread);
}

/* As `sluice stats` calls it. To the kernel the first thread has the name of the process, by which one looks for it. */
static void thread_name(char name[LOG_THREAD_BYTES])
{
	if (gettid() == getpid())
		strcpy(name, "control");
	else
		pthread_getname_np(pthread_self(), name, LOG_THREAD_BYTES);
}

static void write_line(const struct log_line *line)
{
	const bool to_syslog = atomic_load_explicit(&current_sink, memory_order_relaxed) == LOG_SINK_SYSLOG;
	char text[LINE_BYTES];
	size_t len;

	if (atomic_load_explicit(&current_format, memory_order_relaxed) == LOG_FORMAT_JSON)
		len = json_line(text, line);
	else
		len = human_line(text, line, to_syslog);
	if (to_syslog)
		syslog(syslog_priority(line->level), "%.*s", (int)len, text);
	else if (len)
		write_text(text, len);
}

/* Returns the length, which leaves room for the end of the line; 0 without memory. */
static size_t json_line(char text[LINE_BYTES], const struct log_line *line)
{
	char ts[40], thread[LOG_THREAD_BYTES], message[LOG_MESSAGE_BYTES];
	json_t *object;
	size_t len;

	format_time(ts, sizeof(ts), line->realtime_ns);
	sanitize(thread, line->thread, sizeof(thread));
	sanitize(message, line->message, sizeof(message));
	/* Without a value s:s* leaves its member out. */
	object = json_pack("{s:s, s:s, s:s*, s:s, s:s, s:s}", "ts", ts, "level", level_names[line->level],
		"interface", *interface ? interface : NULL, "component", component_names[line->component],
		"thread", thread, "message", message);
	if (!object)
		return 0;
	len = json_dumpb(object, text, LINE_BYTES - 2, JSON_COMPACT);
	json_decref(object);
	CHECK(len <= LINE_BYTES - 2);
	return len;
}

/* Likewise. syslog has a time and a level of its own, and its identity names the interface. */
static size_t human_line(char text[LINE_BYTES], const struct log_line *line, bool to_syslog)
{
	const char *component = component_names[line->component];
	char ts[40], message[LOG_MESSAGE_BYTES];
	int len;

	sanitize(message, line->message, sizeof(message));
	if (to_syslog) {
		len = snprintf(text, LINE_BYTES - 1, "%s: %s", component, message);
	} else {
		format_time(ts, sizeof(ts), line->realtime_ns);
		len = snprintf(text, LINE_BYTES - 1, "%s %-5s %s%s%s: %s", ts, level_names[line->level],
			interface, *interface ? " " : "", component, message);
	}
	return (size_t)len; /* always shorter than LINE_BYTES */
}

/* text has room for one more byte. */
static void write_text(char *text, size_t len)
{
	struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
	ssize_t written;

	text[len] = '\n';
	do {
		/* Whoever else has this pipe may have made it non-blocking. */
		if ((written = write(STDERR_FILENO, text, len + 1)) < 0 && errno == EAGAIN)
			poll(&standard_error, 1, -1);
	} while (written < 0 && (errno == EINTR || errno == EAGAIN));
	/* Any other failure has no better place to be reported than the one that just failed. */
}

/*
 * Names and error texts may come from outside: no line breaks, no terminal escapes, and always valid UTF-8
 * for JSON.
 */
static void sanitize(char *to, const char *text, size_t size)
{
	size_t i;

	for (i = 0; i < size - 1 && text[i]; i++)
		to[i] = text[i] < 0x20 || text[i] > 0x7e ? '?' : text[i];
	to[i] = '\0';
}

static void format_time(char *buf, size_t size, uint64_t realtime_ns)
{
	const time_t seconds = (time_t)(realtime_ns / NS_PER_SEC);
	struct tm tm;
	size_t len;

	gmtime_r(&seconds, &tm);
	len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + len, size - len, ".%06uZ", (unsigned)(realtime_ns % NS_PER_SEC / 1000));
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

/* Counted from 1, so that a zeroed limit is in no window yet. By the cheapest clock: each line of a flood asks. */
static uint64_t window_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return ((uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec) / LOG_LIMIT_WINDOW_NS + 1;
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

static int find_level(const char *text, size_t len)
{
	static const char *const default_name[] = {"default"};

	if (find_name(default_name, 1, text, len) == 0)
		return LOG_LEVEL_DEFAULT;
	return find_name(level_names, LOG_LEVELS, text, len);
}

static int find_name(const char *const *names, unsigned nr, const char *text, size_t len)
{
	for (unsigned i = 0; i < nr; i++)
		if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0)
			return (int)i;
	return -1;
}
