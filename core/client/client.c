#include "core/client/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/control_address.h"
#include "core/client/interval.h"
#include "core/client/report.h"
#include "core/client/totals.h"
#include "crypto/secret.h"
#include "ring/number.h"
#include "ring/park.h"

#define WATCH_INTERVAL_MS 1000
/*
 * With more peers --watch leaves them out: an answer with all of them is made by the state thread, which has
 * packets to see to.
 */
#define WATCH_PEERS_MAX 1000
#define ANSWER_BUFFER_BYTES 16384

/* A connection to a running sluice. The answer to get=1 passes through with its keys: wiped at the end. */
struct connection {
	int fd;
	int signal_fd;  /* readable on the signals of a watch; -1: signals act as usual */
	bool answered;  /* it has given one answer at least, so it is a sluice */
	size_t at, len; /* unread bytes of in[] */
	char in[ANSWER_BUFFER_BYTES];
};

/* Standard output, and the frame of a watch that stands on it. */
struct screen {
	bool terminal;
	bool in_place;       /* it can move its cursor, and is to */
	struct winsize size; /* when the frame was painted */
	unsigned rows;       /* of the frame; the cursor is in the row below */
};

/* The last two, of which the frame is made. */
struct readings {
	struct reading before, now;
};

typedef int (*answer_fn)(void *arg, const char *key, const char *value);

static int connection_open(struct connection *c, const char *ifname);
static void connection_close(struct connection *c);
static int request(struct connection *c, const char *text, answer_fn fn, void *arg);
static int send_all(int fd, const char *text, size_t len);
static int parse_status(const char *text);
static int read_answer(struct connection *c, answer_fn fn, void *arg);
static int read_line(struct connection *c, char **line);
static int wait_readable(const struct connection *c, int timeout_ms);
static int read_stats(struct connection *c, struct reading *r, bool peers);
static void read_machine(struct reading_machine *m);
static int print_once(const struct options *options, struct connection *c);
static int watch(const struct options *options, struct connection *c);
static int watch_interval(const struct options *options, const struct connection *c, struct screen *screen,
	const struct readings *shown);
static int print_interval(const struct options *options, struct screen *screen, const struct reading *before,
	const struct reading *after);
static struct screen screen_open(const struct options *options);
static struct winsize terminal_size(void);
static void paint(struct screen *screen, const struct winsize *size, const char *text);
static int take_log(void *arg, const char *key, const char *value);
static int complain(const struct options *options, int err);

int client_stats(const struct options *options)
{
	struct connection *c = calloc(1, sizeof(*c));
	int err = c ? connection_open(c, options->ifname) : -ENOMEM;

	if (!err) {
		err = options->watch ? watch(options, c) : print_once(options, c);
		connection_close(c);
	}
	free(c);
	return err ? complain(options, err) : EXIT_SUCCESS;
}

int client_log(const struct options *options)
{
	char text[LOG_DIRECTIVES_BYTES + 16], error[LOG_ERROR_BYTES] = "";
	struct connection *c = calloc(1, sizeof(*c));
	int err = c ? connection_open(c, options->ifname) : -ENOMEM;

	if (!err) {
		snprintf(text, sizeof(text), "log=%s\n\n", options->log);
		err = request(c, text, take_log, error);
		connection_close(c);
	}
	free(c);
	if (err && *error) {
		fprintf(stderr, "sluice: %s\n", error);
		return EXIT_FAILURE;
	}
	return err ? complain(options, err) : EXIT_SUCCESS;
}

static int print_once(const struct options *options, struct connection *c)
{
	struct screen screen = screen_open(options);
	struct reading before = {0}, now = {0};
	int err = read_stats(c, &now, true);

	if (!err && options->interval_ms) {
		before = now;
		now = (struct reading){0};
		err = wait_readable(c, (int)options->interval_ms);
		if (err == -ETIMEDOUT)
			err = read_stats(c, &now, true);
		else if (!err)
			err = -EPIPE;
	}
	if (!err && options->interval_ms)
		err = print_interval(options, &screen, &before, &now);
	else if (!err && options->json)
		err = report_json(stdout, options->ifname, NULL, &now, false);
	else if (!err)
		totals_print(stdout, options->ifname, &now, options->all);
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = -EIO;
	reading_done(&before);
	reading_done(&now);
	return err;
}

/* Until the user ends it, or the gateway ends: neither is a failure. */
static int watch(const struct options *options, struct connection *c)
{
	struct screen screen = screen_open(options);
	struct readings shown = {0};
	bool peers = true;
	sigset_t signals;
	int err;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	if (screen.in_place)
		sigaddset(&signals, SIGWINCH);
	if (sigprocmask(SIG_BLOCK, &signals, NULL))
		return -errno;
	c->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (c->signal_fd < 0)
		return -errno;
	err = read_stats(c, &shown.now, true);
	/* What goes wrong from here on is the end of the gateway. */
	while (!err) {
		struct reading next = {0};

		peers = peers && shown.now.nr_peers <= WATCH_PEERS_MAX;
		err = watch_interval(options, c, &screen, &shown);
		if (!err)
			err = read_stats(c, &next, peers);
		if (err == -EPIPE || err == -ECONNRESET)
			fprintf(stderr, "sluice: %s has ended\n", options->ifname);
		if (err) {
			reading_done(&next);
			break;
		}
		reading_done(&shown.before);
		shown.before = shown.now;
		shown.now = next;
		err = print_interval(options, &screen, &shown.before, &shown.now);
	}
	reading_done(&shown.before);
	reading_done(&shown.now);
	close(c->signal_fd);
	c->signal_fd = -1;
	return err == -EINTR || err == -EPIPE || err == -ECONNRESET ? 0 : err;
}

/*
 * 0 after the interval, in which the frame follows the size of the terminal. -EINTR: the user ended it. -EPIPE:
 * the gateway did.
 */
static int watch_interval(const struct options *options, const struct connection *c, struct screen *screen,
	const struct readings *shown)
{
	const uint64_t ms = options->interval_ms ? options->interval_ms : WATCH_INTERVAL_MS;
	const uint64_t end_ns = park_clock_ns() + ms * NS_PER_MS;

	for (;;) {
		const uint64_t now_ns = park_clock_ns();
		const uint64_t left_ns = end_ns > now_ns ? end_ns - now_ns : 0;
		int err = wait_readable(c, (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS));

		if (err == -ETIMEDOUT)
			return 0;
		if (!err)
			return -EPIPE; /* it says nothing unasked */
		if (err == -ERESTART && screen->rows)
			err = print_interval(options, screen, &shown->before, &shown->now);
		if (err && err != -ERESTART)
			return err;
	}
}

static int print_interval(const struct options *options, struct screen *screen, const struct reading *before,
	const struct reading *after)
{
	const struct winsize size = terminal_size();
	/* The last row is the cursor's, and a full line may wrap. */
	const struct interval_room room = {.columns = screen->terminal ? size.ws_col - 1u : 0,
		.rows = screen->in_place ? size.ws_row - 1u : 0};
	char *text = NULL;
	size_t len;
	FILE *out;
	int err;

	if (options->json) {
		err = report_json(stdout, options->ifname, before, after, options->watch);
	} else {
		out = open_memstream(&text, &len);
		if (!out)
			return -ENOMEM;
		err = interval_print(out, &room, options->ifname, before, after);
		if (fclose(out))
			err = -ENOMEM;
		if (!err)
			paint(screen, &size, text);
		free(text);
	}
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = -EIO;
	return err;
}

static struct screen screen_open(const struct options *options)
{
	const bool terminal = !options->json && isatty(STDOUT_FILENO);
	const char *type = getenv("TERM");

	return (struct screen){.terminal = terminal,
		.in_place = terminal && options->watch && type && strcmp(type, "dumb") != 0};
}

/* 80 x 24 if it does not say. */
static struct winsize terminal_size(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_row < 2 || size.ws_col < 2)
		size = (struct winsize){.ws_row = 24, .ws_col = 80};
	return size;
}

/* Over the frame before; each line ends at the right edge, and the frame at the height of the terminal. */
static void paint(struct screen *screen, const struct winsize *size, const char *text)
{
	if (!screen->in_place) {
		fputs(text, stdout);
		return;
	}
	/* A terminal of another size has wrapped or moved the lines of the frame before: nobody knows where it is. */
	if (screen->rows && (size->ws_row != screen->size.ws_row || size->ws_col != screen->size.ws_col))
		fputs("\033[H", stdout);
	else if (screen->rows)
		printf("\033[%uA", screen->rows);
	fputs("\r\033[J", stdout);
	screen->size = *size;
	screen->rows = 0;
	while (*text && screen->rows < size->ws_row - 1u) {
		const size_t len = strcspn(text, "\n");

		printf("%.*s\n", (int)MIN(len, size->ws_col - 1u), text);
		screen->rows++;
		text += len + (text[len] == '\n');
	}
}

static int read_stats(struct connection *c, struct reading *r, bool peers)
{
	int err;

	read_machine(&r->machine);
	err = request(c, "stats=1\n\n", reading_take_counter, r);
	if (!err && peers)
		err = request(c, "get=1\n\n", reading_take_peer, r);
	return err;
}

/* Left zero where /proc does not say. */
static void read_machine(struct reading_machine *m)
{
	/* user nice system idle iowait irq softirq steal */
	enum { IDLE = 3, IOWAIT = 4, FIELDS = 8 };
	unsigned long long t[FIELDS];
	unsigned cpus = 0;
	char line[256];
	FILE *stat = fopen("/proc/stat", "re");
	uint64_t total = 0;

	if (!stat)
		return;
	if (fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu%*[^\n]\n", &t[0], &t[1], &t[2], &t[3],
		    &t[4], &t[5], &t[6], &t[7]) == FIELDS) {
		while (fgets(line, sizeof(line), stat) && strncmp(line, "cpu", 3) == 0)
			cpus++;
		for (unsigned i = 0; i < FIELDS; i++)
			total += t[i];
		*m = (struct reading_machine){
			.busy = total - t[IDLE] - t[IOWAIT], .total = total, .cpus = cpus};
	}
	fclose(stat);
}

static int take_log(void *arg, const char *key, const char *value)
{
	char *error = arg;

	if (strcmp(key, "error") == 0)
		snprintf(error, LOG_ERROR_BYTES, "%s", value);
	else if (strcmp(key, "log") == 0 && (puts(value) == EOF || fflush(stdout)))
		return -EIO;
	return 0;
}

/* ---- the connection ---- */

static int connection_open(struct connection *c, const char *ifname)
{
	struct sockaddr_un address;
	int err;

	c->signal_fd = -1;
	control_address(&address, ifname);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	if (connect(c->fd, (struct sockaddr *)&address, sizeof(address))) {
		err = -errno;
		close(c->fd);
		return err;
	}
	return 0;
}

static void connection_close(struct connection *c)
{
	close(c->fd);
	secret_zero(c->in, sizeof(c->in));
}

/*
 * Sends text and calls fn for each line of the answer. Returns what errno= says, or what went wrong on the
 * way: -EPIPE when the other end closed, -EPROTO when it did so without ever giving an answer.
 */
static int request(struct connection *c, const char *text, answer_fn fn, void *arg)
{
	int err = send_all(c->fd, text, strlen(text));

	if (!err)
		err = read_answer(c, fn, arg);
	if ((err == -EPIPE || err == -ECONNRESET) && !c->answered)
		return -EPROTO;
	return err;
}

static int send_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		text += sent;
		len -= (size_t)sent;
	}
	return 0;
}

/* What stands behind "errno=": 0, or a negative errno. -EPROTO for anything else. */
static int parse_status(const char *text)
{
	uint64_t number;

	text += *text == '-';
	return number_parse(&number, text, strlen(text), 0, INT_MAX) ? -EPROTO : -(int)number;
}

static int read_answer(struct connection *c, answer_fn fn, void *arg)
{
	int status = -EPROTO, err = 0;

	for (;;) {
		char *line = NULL, *value;
		int r = read_line(c, &line);

		if (r)
			return r;
		if (!*line) { /* NOLINT(clang-analyzer-core.NullDereference): read_line() set it */
			c->answered = true;
			return err ? err : status;
		}
		value = strchr(line, '=');
		if (!value)
			return -EPROTO;
		*value++ = '\0';
		if (strcmp(line, "errno") == 0)
			status = parse_status(value);
		else if (!err)
			err = fn(arg, line, value);
	}
}

/* *line: the next one, without its end; valid until the next call. */
static int read_line(struct connection *c, char **line)
{
	for (;;) {
		char *end = memchr(c->in + c->at, '\n', c->len);
		ssize_t got;
		int err;

		if (end) {
			*end = '\0';
			*line = c->in + c->at;
			c->len -= (size_t)(end + 1 - *line);
			c->at += (size_t)(end + 1 - *line);
			return 0;
		}
		memmove(c->in, c->in + c->at, c->len);
		c->at = 0;
		if (c->len == sizeof(c->in))
			return -EPROTO;
		err = wait_readable(c, -1);
		if (err == -ERESTART)
			continue; /* the next frame is painted soon */
		if (err)
			return err;
		got = recv(c->fd, c->in + c->len, sizeof(c->in) - c->len, 0);
		if (got == 0)
			return -EPIPE;
		if (got < 0 && errno != EINTR)
			return -errno;
		if (got > 0)
			c->len += (size_t)got;
	}
}

/*
 * 0 when the other end sent something or closed, -ETIMEDOUT, -EINTR when the user wants to end, -ERESTART when the
 * terminal has changed its size.
 */
static int wait_readable(const struct connection *c, int timeout_ms)
{
	struct signalfd_siginfo info;
	struct pollfd fds[] = {{.fd = c->signal_fd, .events = POLLIN}, {.fd = c->fd, .events = POLLIN}};
	int ready;

	do
		ready = poll(fds, ARRAY_LEN(fds), timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready < 0)
		return -errno;
	if (fds[0].revents)
		return read(c->signal_fd, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGWINCH
			       ? -ERESTART
			       : -EINTR;
	return ready ? 0 : -ETIMEDOUT;
}

static int complain(const struct options *options, int err)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
		fprintf(stderr, "sluice: no sluice serves %s; start one with: sluice %s\n", options->ifname,
			options->ifname);
		break;
	case -EACCES:
	case -EPERM:
		fprintf(stderr, "sluice: may not open the control socket of %s; run as root\n",
			options->ifname);
		break;
	case -EPIPE:
	case -ECONNRESET:
		fprintf(stderr, "sluice: %s has ended meanwhile\n", options->ifname);
		break;
	case -EINVAL:
	case -EPROTO:
		fprintf(stderr,
			"sluice: what serves %s does not know this command; it is another program or "
			"version\n",
			options->ifname);
		break;
	default:
		fprintf(stderr, "sluice: %s: %s\n", options->ifname, strerror(-err));
		break;
	}
	return EXIT_FAILURE;
}
