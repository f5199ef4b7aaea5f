/*
 * The program: reads the options, goes into the background, builds everything up in order and takes it down
 * in reverse.
 *
 * Going into the background is a fork, and comes before anything else is made, because threads and locked
 * memory do not survive a fork. The parent ends when the child says that the control socket answers, or when
 * the child has ended with a line that says what is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/client/client.h"
#include "core/control/control.h"
#include "core/control/link.h"
#include "core/base/log.h"
#include "core/base/options.h"
#include "core/threads/pipeline.h"
#include "core/base/metrics.h"
#include "crypto/secret.h"
#include "tun/tun_device.h"

static int open_standard_descriptors(void);
static int go_to_background(int *ready_fd);
static int wait_for_child(pid_t child, int ready_fd);
static int serve(const struct options *options, int ready_fd);
static int run_interface(const struct options *options, struct control_socket *socket, int ready_fd);
static int start_pipeline(struct pipeline **out, const struct options *options,
	const struct aead_backend *aead, struct tun_device *tun, struct metrics *metrics,
	struct control *control);
static int claim_name(const struct options *options, struct control_socket *socket);
static const struct aead_backend *choose_aead(const struct options *options);
static int open_tun(const struct options *options, struct tun_device **tun);
static void say_ready(const struct options *options, unsigned tun_threads, int ready_fd);
static void harden(void);
static void raise_limit(int resource);
static int complain(const char *fmt, ...) PRINTF_LIKE(1, 2);

int main(int argc, char **argv)
{
	char error[OPTIONS_ERROR_BYTES];
	struct options options;
	int ready_fd = -1, status;

	if (open_standard_descriptors())
		return EXIT_FAILURE; /* and nowhere to say why */
	if (options_parse(&options, argc, argv, error)) {
		log_set_format(options_log_format(argc, argv));
		return complain("%s", error);
	}
	switch (options.command) {
	case OPTIONS_HELP:
		return fputs(options_help(), stdout) < 0 || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
	case OPTIONS_VERSION:
		return puts("sluice " SLUICE_VERSION) < 0 || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
	case OPTIONS_STATS:
		return client_stats(&options);
	case OPTIONS_LOG:
		return client_log(&options);
	case OPTIONS_RUN:
		break;
	}

	log_set_format(options.log_format);
	log_set_interface(options.ifname);
	if (!options.foreground) {
		status = go_to_background(&ready_fd);
		if (status >= 0)
			return status;
	}
	return serve(&options, ready_fd);
}

/*
 * Messages go to descriptors 0 to 2, so these must be open, or one of our own sockets or pipes gets such a
 * number and the messages. What the caller closed becomes /dev/null.
 */
static int open_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		/* The lowest free number is this one, since those below it are in use by now. */
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return -errno;
	}
	return 0;
}

/*
 * Returns -1 in the child, which has *ready_fd to report to, and in the parent, once the child has reported
 * or ended, the exit status.
 */
static int go_to_background(int *ready_fd)
{
	int ready[2];
	pid_t child;

	if (pipe2(ready, O_CLOEXEC))
		return complain("cannot go to the background: %s", strerror(errno));
	child = fork();
	if (child < 0)
		return complain("cannot go to the background: %s", strerror(errno));
	if (child > 0) {
		close(ready[1]);
		return wait_for_child(child, ready[0]);
	}
	close(ready[0]);
	setsid();
	*ready_fd = ready[1];
	return -1;
}

static int wait_for_child(pid_t child, int ready_fd)
{
	char byte;
	ssize_t len;
	int status;

	do
		len = read(ready_fd, &byte, 1);
	while (len < 0 && errno == EINTR);
	if (len == 1)
		return EXIT_SUCCESS;
	/* It has complained on the standard error that we share, unless a signal ended it. */
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_FAILURE;
	if (WIFSIGNALED(status))
		return complain("ended by signal %d while starting", WTERMSIG(status));
	return WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

static int serve(const struct options *options, int ready_fd)
{
	char error[LOG_ERROR_BYTES], ident[IFNAMSIZ + 8];
	struct control_socket socket;
	int status;

	harden();
	control_block_signals();
	if (ready_fd >= 0) {
		snprintf(ident, sizeof(ident), "sluice-%s", options->ifname);
		log_set_sink(LOG_SINK_SYSLOG, ident);
	}
	if (log_set_directives(options->log, error))
		return complain("--log: %s", error);
	if (secret_init())
		return complain("cannot initialise libsodium");
	if (claim_name(options, &socket))
		return EXIT_FAILURE;
	status = run_interface(options, &socket, ready_fd);
	control_socket_close(&socket);
	return status;
}

/*
 * Builds the interface, then the threads, then the control socket; serves; and takes them down in reverse
 * order.
 */
static int run_interface(const struct options *options, struct control_socket *socket, int ready_fd)
{
	const struct aead_backend *aead;
	struct tun_device *tun = NULL;
	struct metrics *metrics = NULL;
	struct control *control = NULL;
	struct pipeline *pipeline = NULL;
	struct control_params params;
	int status = EXIT_FAILURE, err;

	if (open_tun(options, &tun))
		return EXIT_FAILURE;
	aead = choose_aead(options);
	if (!aead)
		goto out;
	err = metrics_new(&metrics);
	if (!err)
		err = control_new(&control);
	if (err) {
		complain("cannot start: %s", strerror(-err));
		goto out;
	}
	err = log_start();
	if (!err)
		err = start_pipeline(&pipeline, options, aead, tun, metrics, control);
	if (err) {
		complain("cannot start the threads of %s: %s", options->ifname, strerror(-err));
		goto out;
	}
	err = control_socket_listen(socket);
	if (err) {
		complain("cannot create %s: %s", socket->address.sun_path, strerror(-err));
		goto out;
	}
	params = (struct control_params){
		.ifname = options->ifname,
		.socket = socket,
		.tun = tun,
		.mtu = options->mtu,
		.pipeline = pipeline,
		.metrics = metrics,
	};
	err = control_start(control, &params);
	if (err) {
		complain("cannot watch %s: %s", options->ifname, strerror(-err));
		goto out;
	}

	say_ready(options, tun_device_nr_queues(tun), ready_fd);
	if (control_run(control) == 0)
		status = EXIT_SUCCESS;
	/* Before the rest, so that nobody finds a socket that does not answer. */
	control_socket_close(socket);
out:
	pipeline_stop(pipeline);
	control_free(control);
	metrics_free(metrics);
	tun_device_close(tun);
	if (status == EXIT_SUCCESS)
		log_info(LOG_CORE, "%s ended", options->ifname);
	log_stop();
	return status;
}

static int start_pipeline(struct pipeline **out, const struct options *options,
	const struct aead_backend *aead, struct tun_device *tun, struct metrics *metrics,
	struct control *control)
{
	struct tun_queue *queues[OPTIONS_TUN_THREADS_MAX];
	struct pipeline_config config = {
		.tun_threads = tun_device_nr_queues(tun),
		.aead = aead,
		.mtu = options->mtu,
		.queues = queues,
		.metrics = metrics,
		.tun_failed = control_tun_failed,
		.arg = control,
	};

	for (unsigned i = 0; i < config.tun_threads; i++)
		queues[i] = tun_device_queue(tun, i);
	return pipeline_start(out, &config);
}

static int claim_name(const struct options *options, struct control_socket *socket)
{
	int err = control_socket_claim(socket, options->ifname);

	switch (err) {
	case 0:
		return 0;
	case -EADDRINUSE:
		complain("%s is served already: %s answers; choose another name or end that process",
			options->ifname, socket->address.sun_path);
		return err;
	case -EWOULDBLOCK:
		complain("another program keeps %s locked: end it (lsof shows it) and try again",
			CONTROL_DIRECTORY);
		return err;
	case -EACCES:
	case -EPERM:
		complain("may not use %s: run as root", CONTROL_DIRECTORY);
		return err;
	default:
		complain("cannot use %s: %s", socket->address.sun_path, strerror(-err));
		return err;
	}
}

/* The cipher implementation that was asked for, or the fastest on this machine. NULL after a complaint. */
static const struct aead_backend *choose_aead(const struct options *options)
{
	struct aead_result results[8]; /* there are three backends */
	unsigned nr;
	const struct aead_backend *aead = options->aead;
	struct aead *probe;
	int err = 0;

	if (aead) {
		probe = aead->create(&err);
		if (!probe) {
			complain("--aead %s: this machine cannot run it (%s); leave --aead out to let sluice "
				 "choose",
				aead->name, strerror(-err));
			return NULL;
		}
		aead_free(probe);
		log_info(LOG_CRYPTO, "cipher %s, as asked for", aead->name);
		return aead;
	}
	aead = aead_fastest(results, &nr);
	if (!aead) {
		complain("no cipher implementation works on this machine");
		return NULL;
	}
	for (unsigned i = 0; i < nr; i++)
		log_info(LOG_CRYPTO, "cipher %s: %.1f Gbit/s%s", results[i].name,
			results[i].bytes_per_sec * 8 / 1e9,
			strcmp(results[i].name, aead->name) == 0 ? ", chosen" : "");
	return aead;
}

static int open_tun(const struct options *options, struct tun_device **tun)
{
	int err = tun_device_open(tun, options->ifname, options->tun_threads, options->mtu);

	/*
	 * Without the program the kernel sends a flow to the queue that its answers were last written to, so
	 * a flow can change queues at any moment, and its packets overtake each other.
	 */
	if (!err && options->tun_threads > 1 && !tun_device_steering(*tun)) {
		log_warn(LOG_TUN,
			"the kernel takes no steering program (CAP_BPF is missing?): going on with one "
			"TUN thread, so that no flow is reordered");
		tun_device_close(*tun);
		*tun = NULL;
		err = tun_device_open(tun, options->ifname, 1, options->mtu);
	}
	switch (err) {
	case 0:
		if (tun_device_icmp(*tun))
			log_warn(LOG_TUN,
				"raw sockets cannot be used (%s; CAP_NET_RAW is missing?): ICMP errors will "
				"appear to come from the address that is unreachable, not from this machine",
				strerror(-tun_device_icmp(*tun)));
		return 0;
	case -EPERM:
	case -EACCES:
		return complain(
			"may not create interface %s: run as root or with CAP_NET_ADMIN", options->ifname);
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return complain("no TUN driver: /dev/net/tun is missing; load it with: modprobe tun");
	case -EBUSY:
	case -EEXIST:
		/* Whoever uses it would not thank us for more. */
		if (!link_is_unused_tun(options->ifname))
			return complain("interface %s exists already: choose another name", options->ifname);
		return complain("interface %s exists already, and no process uses it: choose another name or "
				"delete it with: ip link delete %s",
			options->ifname, options->ifname);
	default:
		return complain("cannot create interface %s: %s", options->ifname, strerror(-err));
	}
}

/*
 * The interface can be set up from now on. In the background this lets go of the terminal and of the parent.
 */
static void say_ready(const struct options *options, unsigned tun_threads, int ready_fd)
{
	int null;

	log_info(LOG_CORE, "sluice " SLUICE_VERSION " serves %s with %u TUN threads", options->ifname,
		tun_threads);
	if (ready_fd < 0)
		return;
	if (chdir("/"))
		log_warn(LOG_CORE, "cannot leave the working directory: %s", strerror(errno));
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		/* In one step each: a thread that logs could take a number that is free for a moment. */
		for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
			dup2(null, fd);
		close(null);
	}
	IGNORE_RESULT("the parent, whom this byte ends, may have ended before", write(ready_fd, "", 1));
	close(ready_fd);
}

/*
 * Keeps keys out of core files and away from debuggers of the same user. Takes as many descriptors, for
 * queues and clients, and as much locked memory, for keys, as the limits allow.
 */
static void harden(void)
{
	struct rlimit none = {0};

	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &none);
	raise_limit(RLIMIT_NOFILE);
	raise_limit(RLIMIT_MEMLOCK);
}

static void raise_limit(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(resource, &limit);
}

/* One line on standard error, in the format of the log. Returns the exit status of failure. */
static int complain(const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	log_startup_error(line);
	return EXIT_FAILURE;
}
