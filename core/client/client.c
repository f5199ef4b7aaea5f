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
#include "core/client/report.h"
#include "crypto/secret.h"
#include "ring/number.h"

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
	int signal_fd;  /* readable when the user wants to end; -1: signals act as usual */
	bool answered;  /* it has given one answer at least, so it is a sluice */
	size_t at, len; /* unread bytes of in[] */
	char in[ANSWER_BUFFER_BYTES];
};

/* The frame of a watch that stands on the terminal. */
struct screen {
	bool in_place; /* standard output is a terminal that can move its cursor */
	unsigned rows; /* of the frame; the cursor is in the row below */
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
static int watch_interval(const struct options *options, const struct connection *c);
static int print_interval(const struct options *options, struct screen *screen, const struct reading *before,
	const struct reading *after);
static void paint(struct screen *screen, const char *text);
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
		err = print_interval(options, &(struct screen){0}, &before, &now);
	else if (!err && options->json)
		err = report_json(stdout, options->ifname, NULL, &now, false);
	else if (!err)
		report_totals(stdout, &now);
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = -EIO;
	reading_done(&before);
	reading_done(&now);
	return err;
}

/* Until the user ends it, or the gateway ends: neither is a failure. */
static int watch(const struct options *options, struct connection *c)
{
	const char *terminal = getenv("TERM");
	struct screen screen = {.in_place = !options->json && isatty(STDOUT_FILENO) && terminal &&
					    strcmp(terminal, "dumb") != 0};
	struct reading before = {0}, now = {0};
	bool peers = true;
	sigset_t ends;
	int err;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &ends, NULL))
		return -errno;
	c->signal_fd = signalfd(-1, &ends, SFD_CLOEXEC);
	if (c->signal_fd < 0)
		return -errno;
	err = read_stats(c, &before, true);
	/* What goes wrong from here on is the end of the gateway. */
	while (!err) {
		peers = peers && before.nr_peers <= WATCH_PEERS_MAX;
		err = watch_interval(options, c);
		if (!err)
			err = read_stats(c, &now, peers);
		if (err == -EPIPE || err == -ECONNRESET) {
			fprintf(stderr, "sluice: %s has ended\n", options->ifname);
			break;
		}
		if (!err)
			err = print_interval(options, &screen, &before, &now);
		reading_done(&before);
		before = now;
		now = (struct reading){0};
	}
	reading_done(&before);
	reading_done(&now);
	close(c->signal_fd);
	c->signal_fd = -1;
	return err == -EINTR || err == -EPIPE || err == -ECONNRESET ? 0 : err;
}

/* 0 after the interval. -EINTR: the user ended it. -EPIPE: the gateway did. */
static int watch_interval(const struct options *options, const struct connection *c)
{
	const int interval_ms = options->interval_ms ? (int)options->interval_ms : WATCH_INTERVAL_MS;
	int err = wait_readable(c, interval_ms);

	/* It says nothing unasked. */
	return err == -ETIMEDOUT ? 0 : err ? err : -EPIPE;
}

static int print_interval(const struct options *options, struct screen *screen, const struct reading *before,
	const struct reading *after)
{
	char *text = NULL;
	size_t len;
	FILE *out;
	int err = 0;

	if (options->json) {
		err = report_json(stdout, options->ifname, before, after, options->watch);
	} else {
		out = open_memstream(&text, &len);
		if (!out)
			return -ENOMEM;
		report_interval(out, options->ifname, before, after);
		if (fclose(out))
			err = -ENOMEM;
		else
			paint(screen, text);
		free(text);
	}
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = -EIO;
	return err;
}

/* Over the frame before, each line cut at the right edge and the frame at the height of the terminal. */
static void paint(struct screen *screen, const char *text)
{
	struct winsize size;

	if (!screen->in_place) {
		fputs(text, stdout);
		return;
	}
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_row < 2 || size.ws_col < 2)
		size = (struct winsize){.ws_row = 24, .ws_col = 80};
	/* More than the terminal is high now, after a change of its size, cannot be gone back. */
	screen->rows = MIN(screen->rows, size.ws_row - 1u);
	if (screen->rows)
		printf("\033[%uA", screen->rows);
	fputs("\r\033[J", stdout);
	screen->rows = 0;
	while (*text && screen->rows < size.ws_row - 1u) {
		const size_t len = strcspn(text, "\n");

		printf("%.*s\n", (int)MIN(len, size.ws_col - 1u), text);
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
	else if (strcmp(key, "log") == 0 && puts(value) == EOF)
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

/* 0 when the other end sent something or closed, -ETIMEDOUT, -EINTR when the user wants to end. */
static int wait_readable(const struct connection *c, int timeout_ms)
{
	struct pollfd fds[] = {{.fd = c->signal_fd, .events = POLLIN}, {.fd = c->fd, .events = POLLIN}};
	int ready;

	do
		ready = poll(fds, ARRAY_LEN(fds), timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready < 0)
		return -errno;
	if (fds[0].revents)
		return -EINTR;
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
