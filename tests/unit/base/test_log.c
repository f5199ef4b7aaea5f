#include "core/base/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int captured[2];

static void capture(void)
{
	cr_assert_eq(pipe2(captured, O_NONBLOCK), 0);
	cr_assert_geq(dup2(captured[1], STDERR_FILENO), 0);
}

/* What has been written since the last call, at most one read: lines are one write each. */
static const char *taken(void)
{
	static char text[65536];
	ssize_t len = read(captured[0], text, sizeof(text) - 1);

	text[len > 0 ? len : 0] = '\0';
	return text;
}

static unsigned count_lines(const char *text)
{
	unsigned nr = 0;

	for (; *text; text++)
		nr += *text == '\n';
	return nr;
}

static void expect_levels(const char *directives, const char *all)
{
	char error[LOG_ERROR_BYTES], buf[LOG_DIRECTIVES_BYTES];

	cr_assert_eq(log_set_directives(directives, error), 0, "%s: %s", directives, error);
	cr_assert_str_eq(log_get_directives(buf), all);
}

Test(log, directives_set_named_and_unnamed_components)
{
	expect_levels("error,crypto=debug,udp=off",
		"core=error,handshake=error,peer=error,tun=error,udp=off,uapi=error,crypto=debug,link=error");
	expect_levels("udp=off,crypto=debug,error",
		"core=error,handshake=error,peer=error,tun=error,udp=off,uapi=error,crypto=debug,link=error");
	expect_levels("off", "core=off,handshake=off,peer=off,tun=off,udp=off,uapi=off,crypto=off,link=off");
}

Test(log, components_without_directive_keep_their_level)
{
	char error[LOG_ERROR_BYTES], start[LOG_DIRECTIVES_BYTES];

	log_get_directives(start);
	cr_assert_eq(log_check_directives(start, error), 0, "what is shown can be set");
	expect_levels("error,tun=off", "core=error,handshake=error,peer=error,tun=off,udp=error,uapi=error,"
				       "crypto=error,link=error");
	cr_assert_eq(log_check_directives("debug", error), 0, "a check has no effect");
	expect_levels("handshake=debug", "core=error,handshake=debug,peer=error,tun=off,udp=error,uapi=error,"
					 "crypto=error,link=error");
	expect_levels("peer=warn,udp=info",
		"core=error,handshake=debug,peer=warn,tun=off,udp=info,uapi=error,"
		"crypto=error,link=error");
}

Test(log, default_resets_all_components_or_one)
{
	char start[LOG_DIRECTIVES_BYTES];

	log_get_directives(start);
	expect_levels("error,tun=off,udp=default", "core=error,handshake=error,peer=error,tun=off,udp=info,"
						   "uapi=error,crypto=error,link=error");
	expect_levels("tun=default", "core=error,handshake=error,peer=error,tun=info,udp=info,uapi=error,"
				     "crypto=error,link=error");
	expect_levels("default,uapi=debug",
		"core=info,handshake=info,peer=info,tun=info,udp=info,uapi=debug,crypto=info,link=info");
	expect_levels("default", start);
	expect_levels("off", "core=off,handshake=off,peer=off,tun=off,udp=off,uapi=off,crypto=off,link=off");
	expect_levels(LOG_DIRECTIVES_DEFAULT, start);
}

Test(log, bad_directives_are_named_and_change_nothing)
{
	static const struct {
		const char *directives, *named;
	} cases[] = {
		{"info,crypt=debug", "\"crypt=debug\": no such component"},
		{"info,crypto=loud", "\"crypto=loud\": no such level"},
		{"loud", "\"loud\": no such level"},
		{"", "\"\": no such level"},
		{"info,", "\"\": no such level"},
		{"info,debug", "\"debug\": set twice"},
		{"tun=off,tun=off", "\"tun=off\": set twice"},
		{"tun=", "\"tun=\": no such level"},
		{"=info", "\"=info\": no such component"},
		{"INFO", "\"INFO\": no such level"},
		{"default,info", "\"info\": set twice"},
		{"default=info", "\"default=info\": no such component"},
	};
	char error[LOG_ERROR_BYTES], before[LOG_DIRECTIVES_BYTES], after[LOG_DIRECTIVES_BYTES];

	expect_levels("warn", log_get_directives(before)
				      ? "core=warn,handshake=warn,peer=warn,tun=warn,udp=warn,uapi=warn,"
					"crypto=warn,link=warn"
				      : "");
	log_get_directives(before);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		cr_assert_eq(
			log_set_directives(cases[i].directives, error), -EINVAL, "%s", cases[i].directives);
		cr_assert(
			strstr(error, cases[i].named) == error, "\"%s\" for %s", error, cases[i].directives);
		cr_assert_str_eq(log_get_directives(after), before);
	}
}

Test(log, disabled_line_writes_nothing_and_evaluates_nothing)
{
	char error[LOG_ERROR_BYTES];
	int evaluated = 0;

	cr_assert_eq(log_set_directives("warn,tun=debug", error), 0);
	capture();
	log_info(LOG_CORE, "%d", ++evaluated);
	log_limited(LOG_LEVEL_INFO, LOG_CORE, "%d", ++evaluated);
	cr_assert_eq(evaluated, 0);
	cr_assert_str_eq(taken(), "");
	log_debug(LOG_TUN, "%d", ++evaluated);
	cr_assert_eq(count_lines(taken()), 1);
	cr_assert_eq(log_set_directives("off", error), 0);
	log_error(LOG_CORE, "%d", ++evaluated);
	cr_assert_eq(evaluated, 1);
}

Test(log, human_line_has_time_level_component_and_message)
{
	char component[32], level[16], message[64];
	int year, month, day, hour, minute;
	double second;

	capture();
	errno = ENOTTY;
	log_warn(LOG_LINK, "the %s is %d", "answer", 42);
	cr_assert_eq(errno, ENOTTY);
	cr_assert_eq(sscanf(taken(), "%d-%d-%dT%d:%d:%lfZ %15s %31s %63[^\n]", &year, &month, &day, &hour,
			     &minute, &second, level, component, message),
		9);
	cr_assert_geq(year, 2024);
	cr_assert_str_eq(level, "warn");
	cr_assert_str_eq(component, "link:");
	cr_assert_str_eq(message, "the answer is 42");
}

Test(log, hostile_text_cannot_break_a_line)
{
	capture();
	log_error(LOG_CORE, "a\nb\rc\x1b[31m\t\xff\xc3\xa9%s", "");
	cr_assert(strstr(taken(), "core: a?b?c?[31m?\?\?\?\n"));
}

Test(log, overlong_message_is_cut_to_one_line)
{
	char big[8192];
	const char *text;

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	capture();
	log_error(LOG_CORE, "%s", big);
	text = taken();
	cr_assert_eq(count_lines(text), 1);
	cr_assert_eq(text[strlen(text) - 1], '\n');
	cr_assert_gt(strlen(text), 900u);
	log_set_format(LOG_FORMAT_JSON);
	memset(big, '"', sizeof(big) - 1);
	log_error(LOG_CORE, "%s", big);
	text = taken();
	json_t *object = json_loads(text, 0, NULL);
	cr_assert(object, "%s", text);
	json_decref(object);
}

Test(log, json_line_is_one_object)
{
	json_error_t error;
	json_t *object;
	const char *ts, *level, *component, *thread, *message;

	capture();
	log_set_format(LOG_FORMAT_JSON);
	prctl(PR_SET_NAME, "sluice");
	log_info(LOG_UAPI, "say \"%s\"\\\n", "hello");
	object = json_loads(taken(), JSON_REJECT_DUPLICATES, &error);
	cr_assert(object, "%s", error.text);
	cr_assert_eq(json_unpack(object, "{s:s, s:s, s:s, s:s, s:s !}", "ts", &ts, "level", &level,
			     "component", &component, "thread", &thread, "message", &message),
		0);
	cr_assert_str_eq(level, "info");
	cr_assert_str_eq(component, "uapi");
	/* The first thread, whatever the process is called. */
	cr_assert_str_eq(thread, "control");
	cr_assert_str_eq(message, "say \"hello\"\\?");
	cr_assert_eq(strlen(ts), strlen("2026-11-20T18:47:48.123456Z"));
	json_decref(object);
}

Test(log, lines_name_the_interface_once_it_is_known)
{
	json_t *object;

	capture();
	log_info(LOG_UDP, "first");
	cr_assert(strstr(taken(), " info  udp: first\n"));
	log_set_interface("wg0");
	log_info(LOG_UDP, "second");
	cr_assert(strstr(taken(), " info  wg0 udp: second\n"));
	log_set_format(LOG_FORMAT_JSON);
	log_set_interface("w\"g\\0");
	log_info(LOG_UDP, "third");
	object = json_loads(taken(), JSON_REJECT_DUPLICATES, NULL);
	cr_assert(object);
	cr_assert_str_eq(json_string_value(json_object_get(object, "interface")), "w\"g\\0");
	cr_assert_str_eq(json_string_value(json_object_get(object, "message")), "third");
	json_decref(object);
}

Test(log, startup_error_follows_the_format_and_no_level)
{
	const char *level, *component, *thread, *message, *ts;
	char error[LOG_ERROR_BYTES];
	json_t *object;

	capture();
	log_set_sink(LOG_SINK_SYSLOG, "test");
	cr_assert_eq(log_set_directives("off", error), 0);
	log_startup_error("no \"such\" thing");
	cr_assert_str_eq(taken(), "sluice: no \"such\" thing\n");
	log_set_format(LOG_FORMAT_JSON);
	log_startup_error("no \"such\" thing\n");
	object = json_loads(taken(), JSON_REJECT_DUPLICATES, NULL);
	cr_assert(object);
	cr_assert_eq(json_unpack(object, "{s:s, s:s, s:s, s:s, s:s !}", "ts", &ts, "level", &level,
			     "component", &component, "thread", &thread, "message", &message),
		0);
	cr_assert_str_eq(level, "error");
	cr_assert_str_eq(component, "core");
	cr_assert_str_eq(message, "no \"such\" thing?");
	json_decref(object);
}

static void network_event(unsigned i)
{
	log_limited(LOG_LEVEL_WARN, LOG_CORE, "event %u", i);
}

/* The number of the present window. */
static uint64_t window_now(void)
{
	struct log_limit probe = {.file = ""};

	cr_assert(log_limit_pass(&probe), "the first line of a call site always passes");
	return probe.window;
}

Test(log, flood_of_one_call_site_is_suppressed_and_counted)
{
	uint64_t window;
	const char *text;

	/* The flood must not straddle the end of a window. */
	do {
		window = window_now();
		usleep(1000);
	} while (window_now() != window);
	capture();
	for (unsigned i = 0; i < 1000; i++)
		network_event(i);
	/* Another call site is not affected. */
	log_limited(LOG_LEVEL_WARN, LOG_CORE, "something else");
	if (window_now() != window)
		cr_skip_test("the machine was too slow for this once");
	text = taken();
	cr_assert_eq(count_lines(text), LOG_LIMIT_BURST + 1, "%s", text);
	cr_assert(strstr(text, "event 4\n") && !strstr(text, "event 5\n"));
	log_report_suppressed();
	text = taken();
	cr_assert(strstr(text, "995 more messages"), "%s", text);
	cr_assert_eq(count_lines(text), 1);
	log_report_suppressed();
	cr_assert_str_eq(taken(), "");
}

Test(log, call_site_may_speak_again_in_the_next_window)
{
	static struct log_limit limit = {
		.file = "x.c", .line = 1, .level = LOG_LEVEL_WARN, .component = LOG_CORE};
	unsigned passed = 0;

	for (unsigned i = 0; i < 100; i++)
		passed += log_limit_pass(&limit);
	limit.window--; /* as if the window had been the one before */
	for (unsigned i = 0; i < 100; i++)
		passed += log_limit_pass(&limit);
	/* Should the clock pass into another window meanwhile, then at most one more burst. */
	cr_assert(passed == 2 * LOG_LIMIT_BURST || passed == 3 * LOG_LIMIT_BURST, "%u", passed);
	cr_assert_eq(limit.suppressed, 200 - passed);
}

static void *log_many(void *arg)
{
	for (unsigned i = 0; i < 500; i++)
		log_error(LOG_CORE,
			"thread %u line %u of a certain length so that a torn write would show up in the "
			"middle",
			*(unsigned *)arg, i);
	return NULL;
}

Test(log, lines_of_several_threads_do_not_mix)
{
	static char text[4 << 20];
	unsigned numbers[4] = {0, 1, 2, 3}, next[4] = {0};
	pthread_t threads[4];
	char path[] = "/tmp/sluice-log-XXXXXX";
	int fd = mkstemp(path);
	ssize_t len;

	cr_assert_geq(fd, 0);
	unlink(path);
	cr_assert_eq(fcntl(fd, F_SETFL, O_APPEND), 0);
	cr_assert_geq(dup2(fd, STDERR_FILENO), 0);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, log_many, &numbers[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	len = pread(fd, text, sizeof(text) - 1, 0);
	cr_assert_gt(len, 0);
	cr_assert_eq(count_lines(text), 2000);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned thread, i;
		int end = 0;

		cr_assert_eq(sscanf(line,
				     "%*s error core: thread %u line %u of a certain length so that a torn "
				     "write would "
				     "show up in the middle%n",
				     &thread, &i, &end),
			2, "%s", line);
		cr_assert_eq((size_t)end, strlen(line));
		cr_assert_eq(i, next[thread]++);
	}
}

/* ---- the log thread ---- */

/* A pipe as standard error that takes no more: whoever writes waits until somebody reads. */
static void hang(void)
{
	static const char filler[1] = {'.'};

	cr_assert_eq(pipe2(captured, O_NONBLOCK), 0);
	while (write(captured[1], filler, 1) == 1)
		;
	cr_assert_eq(fcntl(captured[1], F_SETFL, 0), 0);
	cr_assert_geq(dup2(captured[1], STDERR_FILENO), 0);
	alarm(60); /* ends what does wait */
}

/* Reads on until nothing came for a while. The text is the caller's. */
static char *read_all(void)
{
	const size_t size = 4 << 20;
	char *text = malloc(size);
	size_t len = 0;

	cr_assert(text);
	for (unsigned idle = 0; idle < 50 && len < size - 1;) {
		const ssize_t n = read(captured[0], text + len, size - 1 - len);

		if (n > 0) {
			len += (size_t)n;
			idle = 0;
		} else {
			usleep(10000);
			idle++;
		}
	}
	text[len] = '\0';
	return text;
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

static void log_numbers(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		log_error(LOG_CORE, "number %u", i);
}

/* Follows numbers and losses through the text. Returns the number that comes next. */
static unsigned follow_numbers(char *text, uint64_t *lost)
{
	unsigned next = 0;

	*lost = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned number;
		char *loss = strstr(line, " lines were lost here");

		if (loss) {
			while (loss[-1] != ' ')
				loss--;
			*lost += strtoul(loss, NULL, 10);
			next += (unsigned)strtoul(loss, NULL, 10);
			continue;
		}
		line = strstr(line, "core: number ");
		if (!line)
			continue;
		cr_assert_eq(sscanf(line, "core: number %u", &number), 1);
		cr_assert_eq(number, next, "%u where %u comes next", number, next);
		next++;
	}
	return next;
}

Test(log_thread, reader_that_hangs_stops_nobody, .timeout = 100)
{
	uint64_t start_ns;

	hang();
	cr_assert_eq(log_start(), 0);
	log_numbers(0, 10000);
	start_ns = now_ns(CLOCK_MONOTONIC);
	log_stop();
	cr_assert_lt(now_ns(CLOCK_MONOTONIC) - start_ns, 20 * NS_PER_SEC);
	/* Nor does anybody wait afterwards. */
	log_numbers(10000, 20000);
}

Test(log_thread, says_in_its_place_how_many_lines_were_lost, .timeout = 100)
{
	uint64_t lost;
	char *text;

	hang();
	cr_assert_eq(log_start(), 0);
	log_numbers(0, 3000);
	text = read_all();
	cr_assert_eq(follow_numbers(text, &lost), 3000);
	cr_assert_geq(lost, 1000);
	free(text);
	/* Later lines are written as if nothing had been. */
	log_numbers(0, 100);
	log_stop();
	text = read_all();
	cr_assert_eq(follow_numbers(text, &lost), 100);
	cr_assert_eq(lost, 0);
	free(text);
}

Test(log_thread, end_writes_all_that_is_queued)
{
	uint64_t lost;
	char *text;

	capture();
	cr_assert_eq(log_start(), 0);
	log_numbers(0, 200);
	log_stop();
	/* And from then on everybody writes for himself. */
	log_numbers(200, 210);
	text = read_all();
	cr_assert_eq(follow_numbers(text, &lost), 210);
	cr_assert_eq(lost, 0);
	free(text);
}

static uint64_t logged_from_ns, logged_to_ns;

static void *log_by_name(void *arg)
{
	prctl(PR_SET_NAME, "somebody");
	logged_from_ns = now_ns(CLOCK_REALTIME);
	log_info(LOG_CORE, "here");
	logged_to_ns = now_ns(CLOCK_REALTIME);
	return arg;
}

Test(log_thread, line_has_time_and_thread_of_where_it_was_logged, .timeout = 100)
{
	char *text;
	const char *ts, *thread;
	pthread_t somebody;
	json_t *object;
	struct tm tm = {0};
	double second;
	uint64_t ns;

	log_set_format(LOG_FORMAT_JSON);
	hang();
	cr_assert_eq(log_start(), 0);
	cr_assert_eq(pthread_create(&somebody, NULL, log_by_name, NULL), 0);
	pthread_join(somebody, NULL);
	usleep(50000);
	text = read_all();
	log_stop();
	object = json_loads(strchr(text, '{'), JSON_DISABLE_EOF_CHECK, NULL);
	cr_assert(object);
	cr_assert_eq(json_unpack(object, "{s:s, s:s}", "ts", &ts, "thread", &thread), 0);
	cr_assert_str_eq(thread, "somebody");
	cr_assert_eq(sscanf(ts, "%d-%d-%dT%d:%d:%lf", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
			     &tm.tm_min, &second),
		6);
	tm.tm_year -= 1900;
	tm.tm_mon--;
	/* In microseconds, which is what is shown. */
	ns = (uint64_t)timegm(&tm) * NS_PER_SEC + (uint64_t)(second * 1e6 + 0.5) * 1000;
	cr_assert(ns + 1000 > logged_from_ns && ns <= logged_to_ns, "%s", ts);
	json_decref(object);
	free(text);
}

Test(log_thread, lines_of_one_thread_stay_in_order)
{
	unsigned numbers[4] = {0, 1, 2, 3}, next[4] = {0}, written = 0, lost = 0;
	pthread_t threads[4];
	char *text;

	cr_assert_eq(pipe2(captured, O_NONBLOCK), 0);
	cr_assert_eq(fcntl(captured[1], F_SETPIPE_SZ, 1 << 20) < 0, false);
	cr_assert_geq(dup2(captured[1], STDERR_FILENO), 0);
	cr_assert_eq(log_start(), 0);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, log_many, &numbers[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	log_stop();
	text = read_all();
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned thread, i;
		char *at = strstr(line, "core: thread ");

		if (!at) {
			cr_assert_eq(sscanf(line, "%*s warn core: %u lines were lost", &i), 1, "%s", line);
			lost += i;
			continue;
		}
		cr_assert_eq(sscanf(at, "core: thread %u line %u", &thread, &i), 2);
		cr_assert(i >= next[thread], "line %u of thread %u after line %u", i, thread, next[thread]);
		next[thread] = i + 1;
		written++;
	}
	cr_assert_eq(written + lost, 2000, "%u written, %u lost", written, lost);
	free(text);
}

Test(log_thread, failed_check_writes_what_is_queued, .timeout = 100)
{
	int ends[2], status;
	char *text, *queued, *check;
	pid_t child;

	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		dup2(ends[1], STDERR_FILENO);
		if (log_start())
			_exit(1);
		log_numbers(0, 100);
		CHECK(!"a bug");
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	captured[0] = ends[0];
	text = read_all();
	queued = strstr(text, "core: number 99\n");
	check = strstr(text, "check failed: !\"a bug\"\n");
	cr_assert(queued && check, "%s", text);
	free(text);
}

/* A syslogd of our own in a namespace of our own. Its socket, or -1 where that is not allowed. */
static int own_syslog(void)
{
	const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int fd;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("none", "/dev", "tmpfs", 0, NULL))
		return -1;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert_geq(fd, 0);
	cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

Test(log_thread, syslog_that_hangs_stops_nobody, .timeout = 100)
{
	char text[2048];
	unsigned received = 0;
	const int fd = own_syslog();

	if (fd < 0)
		cr_skip_test("a mount namespace is not allowed here");
	alarm(60);
	log_set_sink(LOG_SINK_SYSLOG, "test");
	cr_assert_eq(log_start(), 0);
	log_numbers(0, 1000);
	log_stop();
	/* Those that its socket took while nobody read. */
	for (ssize_t len; (len = recv(fd, text, sizeof(text) - 1, 0)) > 0; received++) {
		text[len] = '\0';
		cr_assert(strstr(text, "core: number "), "%s", text);
	}
	cr_assert(received > 0 && received < 1000, "%u lines", received);
}

Test(log_thread, failed_check_reaches_syslog, .timeout = 100)
{
	char text[2048];
	int status;
	pid_t child;
	ssize_t len;
	const int null = open("/dev/null", O_WRONLY), fd = own_syslog();

	if (fd < 0)
		cr_skip_test("a mount namespace is not allowed here");
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		dup2(null, STDERR_FILENO);
		log_set_sink(LOG_SINK_SYSLOG, "test");
		if (log_start())
			_exit(1);
		CHECK(!"a bug");
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	len = recv(fd, text, sizeof(text) - 1, 0);
	cr_assert_gt(len, 0);
	text[len] = '\0';
	cr_assert(strstr(text, "check failed: !\"a bug\""), "%s", text);
}
