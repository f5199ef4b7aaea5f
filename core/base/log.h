/*
 * Logging: leveled, by component, switchable while running. A disabled line costs one relaxed load. Lines go
 * to standard error (one write(2) each, so lines of several threads never mix) or to syslog(3), as text for
 * people or as one JSON object a line.
 *
 * From log_start() to log_stop() a thread named `log` does the writing, and nothing else waits for whoever reads
 * the log: a line is put into a bounded ring, with the time and the thread, and when there is no room it is lost
 * and counted, which the log says where the line would be. Before and after, whoever logs writes.
 *
 * Never log a key, a cookie or a payload. What a datagram from the network can trigger goes through
 * log_limited().
 */
#pragma once

#include "ring/base.h"

enum log_level {
	LOG_LEVEL_OFF,
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVELS
};

enum log_component {
	LOG_CORE,
	LOG_HANDSHAKE,
	LOG_PEER,
	LOG_TUN,
	LOG_UDP,
	LOG_UAPI,
	LOG_CRYPTO,
	LOG_LINK,
	LOG_COMPONENTS
};

enum log_format {
	LOG_FORMAT_HUMAN, /* 2026-11-20T18:47:48.123456Z info  wg0 core: message */
	LOG_FORMAT_JSON   /* an object with ts, level, interface, component, thread and message */
};

enum log_sink { LOG_SINK_STDERR, LOG_SINK_SYSLOG };

/* What applies to every component before log_set_directives(), and what the level `default` stands for. */
#define LOG_LEVEL_DEFAULT LOG_LEVEL_INFO
#define LOG_DIRECTIVES_DEFAULT "info"
#define LOG_ERROR_BYTES 160      /* room for an explanation of bad directives */
#define LOG_DIRECTIVES_BYTES 160 /* room for log_get_directives() */

/* The level of each component; read through log_enabled(). */
extern _Atomic uint8_t log_levels[LOG_COMPONENTS];

/*
 * A line of one call site at most LOG_LIMIT_BURST times in LOG_LIMIT_WINDOW_NS; the rest is counted and
 * reported later.
 */
#define LOG_LIMIT_BURST 5
#define LOG_LIMIT_WINDOW_NS (10 * NS_PER_SEC)

struct log_limit {
	const char *file;
	int line;
	enum log_level level;
	enum log_component component;
	_Atomic uint64_t window; /* number of the current window */
	_Atomic uint32_t passed; /* lines let through in it */
	_Atomic uint64_t suppressed;
	_Atomic bool listed;
	struct log_limit *next; /* list of call sites that ever suppressed a line; never shrinks */
};

static inline bool log_enabled(enum log_level level, enum log_component component)
{
	return unlikely(level <= atomic_load_explicit(&log_levels[component], memory_order_relaxed));
}

#define log_at(level_, component_, ...)                                                                      \
	do {                                                                                                 \
		if (log_enabled(level_, component_))                                                         \
			log_write(level_, component_, __VA_ARGS__);                                          \
	} while (0)

/* Like log_at(), rate-limited for this call site. For everything that the network can trigger. */
#define log_limited(level_, component_, ...)                                                                 \
	do {                                                                                                 \
		static struct log_limit log_limit_ = {                                                       \
			.file = __FILE__, .line = __LINE__, .level = level_, .component = component_};       \
		if (log_enabled(level_, component_) && log_limit_pass(&log_limit_))                          \
			log_write(level_, component_, __VA_ARGS__);                                          \
	} while (0)

#define log_error(component, ...) log_at(LOG_LEVEL_ERROR, component, __VA_ARGS__)
#define log_warn(component, ...) log_at(LOG_LEVEL_WARN, component, __VA_ARGS__)
#define log_info(component, ...) log_at(LOG_LEVEL_INFO, component, __VA_ARGS__)
#define log_debug(component, ...) log_at(LOG_LEVEL_DEBUG, component, __VA_ARGS__)

/*
 * Any thread. Logs one line whatever the levels are; control characters become '?'. Keeps errno, allocates nothing
 * once there is the log thread. Use the macros above.
 */
void log_write(enum log_level level, enum log_component component, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Any thread. Whether this call site may log now; counts the line as suppressed otherwise. */
bool log_limit_pass(struct log_limit *limit);
/*
 * Control thread, every few seconds. One line for each call site that suppressed lines since the last report.
 */
void log_report_suppressed(void);

/* Control thread, before other threads log. */
void log_set_format(enum log_format format);
/* What lines say the interface is: they name none before. Copied. Control thread, before other threads log. */
void log_set_interface(const char *ifname);
/* ident: program and interface for syslog, copied. Control thread, before other threads log. */
void log_set_sink(enum log_sink sink, const char *ident);

/*
 * Control thread. What keeps the program from starting: one line on standard error wherever the log goes and
 * whatever the levels are, `sluice: MESSAGE` or an object like those of the log.
 */
void log_startup_error(const char *message);

/* Control thread, before other threads log. Starts the log thread. -errno when there can be none. */
int log_start(void) MUST_CHECK;
/*
 * Control thread, after all others that log. Writes what is queued and ends the log thread; after a second, when the
 * log's reader hangs, gives up, and lines are lost from then on. Does nothing without log_start().
 */
void log_stop(void);

/*
 * Directives: levels separated by commas, `LEVEL` for every component that is not named and `COMPONENT=LEVEL`
 * for one; without a bare LEVEL those left unnamed stay as they are. Levels: off error warn info debug, and
 * default. All or nothing: -EINVAL with an explanation in error that names the bad part. Any thread.
 */
int log_set_directives(const char *directives, char error[LOG_ERROR_BYTES]) MUST_CHECK;
/* The same check, without effect. */
int log_check_directives(const char *directives, char error[LOG_ERROR_BYTES]) MUST_CHECK;
/* The directives in force, in the syntax above. Returns buf. Any thread. */
const char *log_get_directives(char buf[LOG_DIRECTIVES_BYTES]);

const char *log_level_name(enum log_level level);
const char *log_component_name(enum log_component component);
