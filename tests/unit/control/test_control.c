/*
 * The program itself, as an operator and a hostile client see it: each test has network and mount namespaces
 * of its own. Skipped where the kernel does not allow them. SLUICE names the binary.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/control_address.h"
#include "core/control/uapi_server.h"
#include "tests/unit/control/support.h"

#define SOCKET CONTROL_DIRECTORY "/wgt.sock"

static pid_t daemon_pid;
static int daemon_log = -1; /* read end of its standard error */
static char logged[65536];

static void PRINTF_LIKE(2, 3) write_file(const char *path, const char *fmt, ...)
{
	char text[64];
	va_list args;
	int fd = open(path, O_WRONLY), len;

	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	cr_assert(fd >= 0 && write(fd, text, (size_t)len) == len, "%s: %s", path, strerror(errno));
	close(fd);
}

static void enter_namespaces(void)
{
	uid_t uid = getuid();
	gid_t gid = getgid();
	int flags = CLONE_NEWNET | CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0);

	if (!getenv("SLUICE"))
		cr_skip_test("SLUICE does not name the binary");
	if (access("/dev/net/tun", R_OK | W_OK))
		cr_skip_test("no /dev/net/tun");
	if (unshare(flags))
		cr_skip_test("the kernel allows no namespaces of our own");
	if (uid) {
		write_file("/proc/self/setgroups", "deny");
		write_file("/proc/self/uid_map", "0 %u 1", uid);
		write_file("/proc/self/gid_map", "0 %u 1", gid);
	}
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("none", "/var/run", "tmpfs", 0, "mode=0755"))
		cr_skip_test("the kernel allows no mounts of our own");
	unsetenv("WG_PROCESS_FOREGROUND");
	unsetenv("LOG_LEVEL");
	signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(system("ip link set lo up"), 0);
}

/*
 * Runs the binary with these words and waits for its end. Standard output and error go to the start of
 * logged.
 */
static int PRINTF_LIKE(1, 2) run(const char *fmt, ...)
{
	char command[512];
	size_t len = 0;
	va_list args;
	FILE *f;
	int n = snprintf(command, sizeof(command), "%s ", getenv("SLUICE"));

	va_start(args, fmt);
	n += vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, args);
	va_end(args);
	strcpy(command + n, " 2>&1");
	f = popen(command, "r");
	cr_assert(f);
	len = fread(logged, 1, sizeof(logged) - 1, f);
	logged[len] = '\0';
	return WEXITSTATUS(pclose(f));
}

static int try_connect(void)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	control_address(&address, "wgt");
	cr_assert_geq(fd, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int client(void)
{
	double start = seconds();
	int fd;

	while ((fd = try_connect()) < 0) {
		cr_assert_lt(seconds() - start, 10, "nobody listens");
		usleep(10000);
	}
	return fd;
}

/* Starts it in the foreground on interface wgt and waits until it answers. */
static void start_daemon(const char *option)
{
	int log[2];

	cr_assert_eq(pipe2(log, O_CLOEXEC), 0);
	daemon_pid = fork();
	cr_assert_geq(daemon_pid, 0);
	if (daemon_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(log[1], STDERR_FILENO);
		execl(getenv("SLUICE"), "sluice", "-f", option, "wgt", NULL);
		_exit(127);
	}
	close(log[1]);
	daemon_log = log[0];
	cr_assert_eq(fcntl(daemon_log, F_SETFL, O_NONBLOCK), 0);
	close(client());
}

/* Its exit status, -1 when it goes on for longer than ten seconds. */
static int wait_for_end(void)
{
	double start = seconds();
	int status;

	while (waitpid(daemon_pid, &status, WNOHANG) == 0) {
		if (seconds() - start > 10) {
			kill(daemon_pid, SIGKILL);
			return -1;
		}
		usleep(10000);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

static void stop_daemon(void)
{
	cr_assert_eq(kill(daemon_pid, SIGTERM), 0);
	cr_assert_eq(wait_for_end(), 0);
	cr_assert_neq(access(SOCKET, F_OK), 0, "the socket is still there");
	cr_assert_neq(system("ip link show wgt >/dev/null 2>&1"), 0, "the interface is still there");
}

/* Waits until it has logged the text. */
static void expect_logged(const char *text)
{
	double start = seconds();

	for (;;) {
		size_t len = strlen(logged);
		ssize_t n = read(daemon_log, logged + len, sizeof(logged) - 1 - len);

		if (n > 0)
			logged[len + (size_t)n] = '\0';
		if (strstr(logged, text))
			return;
		cr_assert_lt(seconds() - start, 10, "\"%s\" is not in its log:\n%s", text, logged);
		usleep(10000);
	}
}

static void send_text(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		cr_assert_gt(n, 0, "%s", strerror(errno));
		text += n;
		len -= (size_t)n;
	}
}

/*
 * One answer, up to its empty line, or what comes until the connection ends or ten seconds have passed. Free
 * it.
 */
static char *answer(int fd)
{
	size_t capacity = 16 << 20, len = 0;
	char *text = malloc(capacity);

	cr_assert(text);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, (int)(10000 * ONE_SECOND)) != 1)
			break;
		n = recv(fd, text + len, capacity - len - 1, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len >= 2 && text[len - 1] == '\n' && text[len - 2] == '\n')
			break;
	}
	text[len] = '\0';
	return text;
}

/* Sends the text over a connection of its own and compares the answer. */
static void expect_answer(const char *text, const char *expected)
{
	int fd = client();
	char *got;

	send_text(fd, text);
	got = answer(fd);
	cr_assert_str_eq(got, expected);
	free(got);
	close(fd);
}

/* A get=1 over a connection of its own lists so many peers. */
static void expect_peers(unsigned expected)
{
	int fd = client();
	unsigned nr = 0;
	char *text;

	send_text(fd, "get=1\n\n");
	text = answer(fd);
	for (char *at = text; (at = strstr(at, "public_key=")); at++)
		nr++;
	cr_assert_eq(nr, expected);
	cr_assert(strstr(text, "errno=0\n\n"));
	free(text);
	close(fd);
}

static void expect_closed(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;

	cr_assert_eq(poll(&p, 1, (int)(10000 * ONE_SECOND)), 1, "still open");
	cr_assert_leq(recv(fd, &c, 1, 0), 0);
	close(fd);
}

TestSuite(control, .init = enter_namespaces, .timeout = 120);

Test(control, background_start_returns_when_the_socket_answers)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd;

	cr_assert_eq(run("wgt"), 0, "%s", logged);
	cr_assert_str_eq(logged, "", "a start that succeeds is silent");
	fd = try_connect();
	cr_assert_geq(fd, 0);
	cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len), 0);
	close(fd);
	cr_assert_eq(kill(peer.pid, SIGINT), 0);
	for (unsigned i = 0; access(SOCKET, F_OK) == 0; i++) {
		cr_assert_lt(i, 1000u);
		usleep(10000);
	}
}

Test(control, ends_in_order_on_sigterm)
{
	start_daemon("--log=info");
	stop_daemon();
}

Test(control, ends_when_its_interface_is_deleted)
{
	start_daemon("--log=info");
	cr_assert_eq(system("ip link delete wgt"), 0);
	cr_assert_eq(wait_for_end(), 0);
	cr_assert_neq(access(SOCKET, F_OK), 0);
}

/*
 * From now on, also in what is executed, a read of so many bytes fails: those of a TUN queue alone ask for
 * them.
 */
static void fail_tun_reads(int err)
{
	enum { TUN_READ_BYTES = 10 + 65535 + 1 };
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TUN_READ_BYTES, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_LEN(filter), .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(127);
}

/* So that Restart=on-failure of systemd starts it again. */
Test(control, failing_interface_that_nobody_deleted_ends_it_as_a_failure)
{
	int log[2];
	char *line;

	cr_assert_eq(pipe2(log, O_CLOEXEC), 0);
	daemon_pid = fork();
	cr_assert_geq(daemon_pid, 0);
	if (daemon_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(log[1], STDERR_FILENO);
		fail_tun_reads(EFAULT);
		execl(getenv("SLUICE"), "sluice", "-f", "--log=warn", "wgt", NULL);
		_exit(127);
	}
	close(log[1]);
	daemon_log = log[0];
	cr_assert_eq(wait_for_end(), 1);
	expect_logged("Bad address");
	line = strchr(logged, '\n');
	cr_assert(line && line[1] == '\0', "more than one line:\n%s", logged);
	cr_assert_neq(access(SOCKET, F_OK), 0);
}

Test(control, ends_when_its_socket_is_removed)
{
	start_daemon("--log=info");
	cr_assert_eq(unlink(SOCKET), 0);
	cr_assert_eq(wait_for_end(), 0);
	cr_assert_neq(system("ip link show wgt >/dev/null 2>&1"), 0);
}

Test(control, ends_when_its_socket_is_replaced_and_leaves_the_other_alone)
{
	start_daemon("--log=info");
	cr_assert_eq(system("touch /var/run/wireguard/x && mv /var/run/wireguard/x " SOCKET), 0);
	cr_assert_eq(wait_for_end(), 0);
	cr_assert_eq(access(SOCKET, F_OK), 0, "removed what was not its own");
}

Test(control, other_files_in_the_directory_are_no_concern)
{
	start_daemon("--log=info");
	cr_assert_eq(system("cd /var/run/wireguard && touch a b.sock && mv a c && rm c b.sock"), 0);
	expect_answer("get=1\n\n", "errno=0\n\n");
	stop_daemon();
}

Test(control, socket_is_for_its_owner_only)
{
	struct stat st;

	umask(0);
	start_daemon("--log=info");
	cr_assert_eq(stat(SOCKET, &st), 0);
	cr_assert_eq(st.st_mode & 077, 0);
	cr_assert_eq(stat(CONTROL_DIRECTORY, &st), 0);
	cr_assert_eq(st.st_mode & 077, 0);
	stop_daemon();
}

Test(control, second_start_is_refused_and_a_stale_socket_is_not)
{
	start_daemon("--log=info");
	cr_assert_eq(run("wgt"), 1);
	cr_assert(strstr(logged, "wgt is served already"), "%s", logged);
	cr_assert_eq(strchr(logged, '\n')[1], '\0', "more than one line");
	expect_answer("get=1\n\n", "errno=0\n\n");

	cr_assert_eq(kill(daemon_pid, SIGKILL), 0);
	cr_assert_eq(wait_for_end(), -2);
	cr_assert_eq(access(SOCKET, F_OK), 0, "a killed process leaves its socket");
	/* Its interface goes when the kernel has taken the process apart. */
	start_daemon("--log=info");
	stop_daemon();
}

Test(control, taken_interface_name_is_refused_and_left_alone)
{
	cr_assert_eq(system("ip tuntap add wgt mode tun multi_queue"), 0);
	cr_assert_eq(run("wgt"), 1);
	cr_assert(strstr(logged, "interface wgt exists already"), "%s", logged);
	cr_assert_eq(system("ip link show wgt >/dev/null"), 0);
	cr_assert_neq(access(SOCKET, F_OK), 0);
}

Test(control, commands_speak_to_the_running_process)
{
	start_daemon("--log=info");
	cr_assert_eq(run("stats wgt"), 0, "%s", logged);
	cr_assert(strstr(logged, "interface: wgt\n  state: down;") && strstr(logged, "\ntun-rx1 ") &&
			  strstr(logged, "drops\n") && !strstr(logged, "tun-rx1\n"),
		"%s", logged);
	cr_assert_eq(run("stats wgt --all"), 0, "%s", logged);
	cr_assert(strstr(logged, "  state: down;") && strstr(logged, "tun-rx1\n  trains "), "%s", logged);
	cr_assert_eq(run("stats wgt --json"), 0);
	cr_assert(strstr(logged, "\"state\": {") && strstr(logged, "\"egress_no_peer\": 0"), "%s", logged);
	cr_assert_eq(run("log wgt off,uapi=debug"), 0);
	cr_assert_str_eq(
		logged, "core=off,handshake=off,peer=off,tun=off,udp=off,uapi=debug,crypto=off,link=off\n");
	cr_assert_eq(run("log wgt"), 0);
	cr_assert(strstr(logged, "uapi=debug"));
	cr_assert_eq(run("stats nosuch"), 1);
	cr_assert(strstr(logged, "no sluice serves nosuch"), "%s", logged);
	expect_answer("log=loud\n\n",
		"error=\"loud\": no such level (off error warn info debug default)\nerrno=-22\n\n");
	stop_daemon();
}

Test(control, port_follows_the_state_of_the_interface)
{
	start_daemon("--log=default");
	expect_answer("set=1\nlisten_port=7777\n\n", "errno=0\n\n");
	cr_assert_neq(system("ss -Hlun | grep -q :7777"), 0);
	cr_assert_eq(system("ip link set wgt up"), 0);
	expect_logged("listening on port 7777");
	cr_assert_eq(system("ss -Hlun | grep -q :7777"), 0);
	expect_answer("set=1\nlisten_port=7779\n\n", "errno=0\n\n");
	expect_logged("info  wgt udp: listening on port 7779");
	expect_answer("set=1\nlisten_port=7777\n\n", "errno=0\n\n");
	cr_assert_eq(system("ip link set wgt mtu 1300"), 0);
	expect_logged("MTU is 1300");
	cr_assert_eq(system("ip link set wgt down"), 0);
	expect_logged("interface is down");
	cr_assert_neq(system("ss -Hlun | grep -q :7777"), 0);
	stop_daemon();
}

Test(control, busy_port_leaves_the_interface_up_until_another_is_set)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7777)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	start_daemon("--log=info");
	expect_answer("set=1\nlisten_port=7777\n\n", "errno=0\n\n");
	cr_assert_eq(system("ip link set wgt up"), 0);
	expect_logged("cannot use UDP port 7777");
	expect_answer("set=1\nlisten_port=7777\n\n", "errno=-98\n\n");
	expect_answer("set=1\nlisten_port=7778\n\n", "errno=0\n\n");
	expect_logged("listening on port 7778");
	cr_assert_eq(system("ss -Hlun | grep -q :7778"), 0);
	close(fd);
	stop_daemon();
}

Test(control, interface_is_followed_into_another_namespace)
{
	int ready[2];
	pid_t other;
	char command[128], c;

	cr_assert_eq(pipe(ready), 0);
	other = fork();
	if (other == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(unshare(CLONE_NEWNET) || write(ready[1], "x", 1) != 1 || pause());
	}
	cr_assert_eq(read(ready[0], &c, 1), 1);
	start_daemon("--log=info");
	expect_answer("set=1\nlisten_port=7777\n\n", "errno=0\n\n");
	cr_assert_eq(system("ip link set wgt up"), 0);
	expect_logged("listening on port 7777");

	snprintf(command, sizeof(command), "ip link set wgt netns %d", other);
	cr_assert_eq(system(command), 0);
	expect_logged("moved to another network namespace");
	cr_assert(strstr(logged, "interface is down"), "%s", logged);
	*logged = '\0';
	snprintf(command, sizeof(command), "nsenter -t %d -n ip link set wgt up mtu 1333", other);
	cr_assert_eq(system(command), 0);
	expect_logged("listening on port 7777");
	expect_logged("MTU is 1333");
	cr_assert_eq(system("ss -Hlun | grep -q :7777"), 0, "the socket stays in the namespace of the start");

	snprintf(command, sizeof(command), "nsenter -t %d -n ip link delete wgt", other);
	cr_assert_eq(system(command), 0);
	cr_assert_eq(wait_for_end(), 0);
	kill(other, SIGKILL);
}

Test(control, half_closed_client_still_gets_its_answers)
{
	int fd;
	char *text;

	start_daemon("--log=info");
	fd = client();
	send_text(fd, "set=1\nlisten_port=9\n\nget=1\n\nget=1\n");
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	usleep(200000);
	text = answer(fd);
	cr_assert_str_eq(text, "errno=0\n\nlisten_port=9\nerrno=0\n\n");
	free(text);
	expect_closed(fd);
	stop_daemon();
}

Test(control, client_that_leaves_in_the_middle_changes_nothing)
{
	int fd;

	start_daemon("--log=info");
	fd = client();
	send_text(fd, "set=1\nlisten_port=9\nfwmark=3\n");
	close(fd);
	expect_answer("get=1\n\n", "errno=0\n\n");
	stop_daemon();
}

Test(control, endless_line_is_answered_and_cut_off)
{
	static char line[65536];
	char *text;
	int fd;

	memset(line, 'a', sizeof(line) - 1);
	start_daemon("--log=info");
	fd = client();
	for (unsigned i = 0; i < 1000; i++)
		if (send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL) < 0)
			break;
	text = answer(fd);
	/* The answer may be lost with the connection when we go on sending into it. */
	cr_assert(*text == '\0' || strcmp(text, "errno=-71\n\n") == 0, "%s", text);
	free(text);
	close(fd);
	expect_answer("get=1\n\n", "errno=0\n\n");
	stop_daemon();
}

Test(control, clients_that_say_nothing_give_way_to_those_that_do)
{
	int idle[UAPI_SERVER_CLIENTS_MAX], busy[UAPI_SERVER_CLIENTS_MAX];
	double start;

	start_daemon("--log=info");
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++) {
		idle[i] = client();
		send_text(idle[i], i % 2 ? "set=1\nlisten_port=9\n" : "get");
	}
	start = seconds();
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++) {
		busy[i] = client();
		send_text(busy[i], "get=1\n\n");
	}
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++) {
		char *text = answer(busy[i]);

		cr_assert_str_eq(text, "errno=0\n\n", "client %u after %.1f s", i, seconds() - start);
		free(text);
	}
	cr_assert_lt(seconds() - start, 9);
	for (unsigned i = 0; i < UAPI_SERVER_CLIENTS_MAX; i++) {
		close(idle[i]);
		close(busy[i]);
	}
	stop_daemon();
}

Test(control, ten_thousand_peers_while_others_do_not_read)
{
	enum { peers = 10000, lazy = 20 };
	char *request = malloc(4 << 20);
	int fds[lazy];
	size_t len = (size_t)sprintf(request, "set=1\n");
	double start;

	for (unsigned i = 0; i < peers; i++)
		len += (size_t)sprintf(request + len,
			"public_key=%056d%08x\nallowed_ip=10.%u.%u.1/32\nendpoint=192.0.2.1:%u\n", 1, i,
			i / 256, i % 256, i + 1);
	strcpy(request + len, "\n");
	start_daemon("--log=info");
	start = seconds();
	expect_answer(request, "errno=0\n\n");
	cr_assert_lt(seconds() - start, ONE_SECOND, "setting took %.2f s", seconds() - start);

	start = seconds();
	expect_peers(peers);
	cr_assert_lt(seconds() - start, ONE_SECOND, "listing took %.2f s", seconds() - start);

	/* Answers far beyond what a socket buffers wait for readers that never come. Nobody else waits for
	 * them. */
	for (unsigned i = 0; i < lazy; i++) {
		fds[i] = client();
		send_text(fds[i], "get=1\n\nget=1\n\nget=1\n\n");
	}
	expect_peers(peers);
	free(request);
	for (unsigned i = 0; i < lazy; i++)
		close(fds[i]);
	stop_daemon();
}

Test(control, signals_of_a_terminal_that_closes_are_ignored)
{
	start_daemon("--log=info");
	cr_assert_eq(kill(daemon_pid, SIGHUP), 0);
	cr_assert_eq(kill(daemon_pid, SIGPIPE), 0);
	usleep(100000);
	expect_answer("get=1\n\n", "errno=0\n\n");
	stop_daemon();
}

Test(control, json_log_is_one_object_a_line)
{
	start_daemon("--log-format=json");
	expect_logged("\"message\":\"sluice ");
	for (char *line = strtok(logged, "\n"); line; line = strtok(NULL, "\n"))
		cr_assert(line[0] == '{' && line[strlen(line) - 1] == '}', "%s", line);
	stop_daemon();
}
