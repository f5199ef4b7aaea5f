#include "core/client.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/control.h"

/* A counter of the dump; the same group and name, from several threads, is one here. */
struct counter {
	char group[STATS_GROUP_BYTES];
	char *name;
	uint64_t value;
};

struct dump {
	struct counter *counters;
	unsigned nr, capacity;
	char group[STATS_GROUP_BYTES];
};

typedef int (*answer_fn)(void *arg, const char *key, const char *value);

static int request(const struct options *options, const char *text, answer_fn fn, void *arg);
static int send_all(int fd, const char *text, size_t len);
static int read_answer(FILE *stream, answer_fn fn, void *arg);
static int take_counter(void *arg, const char *key, const char *value);
static int print_human(const struct dump *dump);
static int print_json(const struct dump *dump);
static bool is_drop(const struct counter *counter);
static struct counter *find_counter(const struct dump *dump, const char *group, const char *name);
static void dump_done(struct dump *dump);
static int take_log(void *arg, const char *key, const char *value);
static int complain(const struct options *options, int err);

int client_stats(const struct options *options)
{
	struct dump dump = {0};
	int err = request(options, "stats=1\n\n", take_counter, &dump);

	if (!err)
		err = options->json ? print_json(&dump) : print_human(&dump);
	dump_done(&dump);
	return err ? complain(options, err) : EXIT_SUCCESS;
}

int client_log(const struct options *options)
{
	char text[LOG_DIRECTIVES_BYTES + 16], error[LOG_ERROR_BYTES] = "";
	int err;

	snprintf(text, sizeof(text), "log=%s\n\n", options->log);
	err = request(options, text, take_log, error);
	if (err && *error) {
		fprintf(stderr, "sluice: %s\n", error);
		return EXIT_FAILURE;
	}
	return err ? complain(options, err) : EXIT_SUCCESS;
}

/*
 * Sends text and calls fn for each line of the answer. Returns what errno= says, or what went wrong on the
 * way.
 */
static int request(const struct options *options, const char *text, answer_fn fn, void *arg)
{
	struct sockaddr_un address;
	FILE *stream;
	int fd, err;

	control_socket_address(&address, options->ifname);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = connect(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno
									: send_all(fd, text, strlen(text));
	if (err) {
		close(fd);
		return err;
	}
	stream = fdopen(fd, "r");
	if (!stream) {
		err = -errno;
		close(fd);
		return err;
	}
	err = read_answer(stream, fn, arg);
	fclose(stream);
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

static int read_answer(FILE *stream, answer_fn fn, void *arg)
{
	char *line = NULL, *value;
	size_t capacity = 0;
	int status = -EPROTO, err = 0;
	ssize_t len;

	while ((len = getline(&line, &capacity, stream)) > 0) {
		if (line[len - 1] != '\n')
			break;
		line[len - 1] = '\0';
		if (len == 1) {
			free(line);
			return err ? err : status;
		}
		value = strchr(line, '=');
		if (!value)
			break;
		*value++ = '\0';
		if (strcmp(line, "errno") == 0)
			status = atoi(value);
		else if (!err)
			err = fn(arg, line, value);
	}
	free(line);
	return -EPROTO;
}

static int take_counter(void *arg, const char *key, const char *value)
{
	struct dump *dump = arg;
	struct counter *counter;

	if (strcmp(key, "group") == 0) {
		snprintf(dump->group, sizeof(dump->group), "%s", value);
		return 0;
	}
	counter = find_counter(dump, dump->group, key);
	if (counter) {
		counter->value += strtoull(value, NULL, 10);
		return 0;
	}
	if (dump->nr == dump->capacity) {
		unsigned capacity = dump->capacity ? 2 * dump->capacity : 128;

		counter = reallocarray(dump->counters, capacity, sizeof(*counter));
		if (!counter)
			return -ENOMEM;
		dump->counters = counter;
		dump->capacity = capacity;
	}
	counter = &dump->counters[dump->nr];
	counter->name = strdup(key);
	if (!counter->name)
		return -ENOMEM;
	memcpy(counter->group, dump->group, sizeof(counter->group));
	counter->value = strtoull(value, NULL, 10);
	dump->nr++;
	return 0;
}

/* One block a group, in order of first appearance, the drops last and without those that did not happen. */
static int print_human(const struct dump *dump)
{
	int width = 0;

	for (unsigned i = 0; i < dump->nr; i++)
		width = MAX(width, (int)strlen(dump->counters[i].name));
	for (unsigned i = 0; i < dump->nr; i++) {
		const struct counter *first = &dump->counters[i];

		if (is_drop(first) || first != find_counter(dump, first->group, NULL))
			continue;
		printf("%s\n", first->group);
		for (unsigned j = i; j < dump->nr; j++)
			if (strcmp(dump->counters[j].group, first->group) == 0)
				printf("  %-*s %20" PRIu64 "\n", width, dump->counters[j].name,
					dump->counters[j].value);
		putchar('\n');
	}
	printf("drops\n");
	for (unsigned i = 0; i < dump->nr; i++)
		if (is_drop(&dump->counters[i]) && dump->counters[i].value)
			printf("  %-*s %20" PRIu64 "\n", width, dump->counters[i].name,
				dump->counters[i].value);
	return fflush(stdout) ? -errno : 0;
}

/* {"threads": {"tun-rx0": {"trains": 1}}, "drops": {"egress_no_peer": 0}} */
static int print_json(const struct dump *dump)
{
	json_t *threads = json_object(), *drops = json_object(), *root;
	int err = 0;

	for (unsigned i = 0; i < dump->nr && !err; i++) {
		const struct counter *counter = &dump->counters[i];
		json_t *group = drops;

		if (!is_drop(counter)) {
			group = json_object_get(threads, counter->group);
			if (!group) {
				group = json_object();
				err = json_object_set_new(threads, counter->group, group);
			}
		}
		if (!err)
			err = json_object_set_new(
				group, counter->name, json_integer((json_int_t)counter->value));
	}
	root = json_pack("{s:o, s:o}", "threads", threads, "drops", drops);
	if (!root || err)
		err = -ENOMEM;
	else if (json_dumpf(root, stdout, JSON_INDENT(2)) || putchar('\n') == EOF || fflush(stdout))
		err = -EIO;
	json_decref(root);
	return err;
}

static bool is_drop(const struct counter *counter)
{
	return strcmp(counter->group, "drops") == 0;
}

/* The first of the group, and of that name if one is given. */
static struct counter *find_counter(const struct dump *dump, const char *group, const char *name)
{
	for (unsigned i = 0; i < dump->nr; i++)
		if (strcmp(dump->counters[i].group, group) == 0 &&
			(!name || strcmp(dump->counters[i].name, name) == 0))
			return &dump->counters[i];
	return NULL;
}

static void dump_done(struct dump *dump)
{
	for (unsigned i = 0; i < dump->nr; i++)
		free(dump->counters[i].name);
	free(dump->counters);
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
