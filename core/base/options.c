#include "core/base/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "ring/cpu.h"
#include "ring/number.h"

enum {
	OPT_TUN_THREADS = 256,
	OPT_AEAD,
	OPT_MTU,
	OPT_LOG,
	OPT_LOG_FORMAT,
	OPT_JSON,
	OPT_ALL,
	OPT_WATCH,
	OPT_INTERVAL
};

/* With '-' first each word that is no option comes in its turn, as OPT_WORD, and argv keeps its order. */
static const char short_options[] = "-:fhV";
#define OPT_WORD 1
/* A command, its name, its argument, and the first that is too many. */
#define WORDS_MAX 4
static const struct option long_options[] = {
	{"foreground", no_argument, NULL, 'f'},
	{"tun-threads", required_argument, NULL, OPT_TUN_THREADS},
	{"aead", required_argument, NULL, OPT_AEAD},
	{"mtu", required_argument, NULL, OPT_MTU},
	{"log", required_argument, NULL, OPT_LOG},
	{"log-format", required_argument, NULL, OPT_LOG_FORMAT},
	{"json", no_argument, NULL, OPT_JSON},
	{"all", no_argument, NULL, OPT_ALL},
	{"watch", no_argument, NULL, OPT_WATCH},
	{"interval", required_argument, NULL, OPT_INTERVAL},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0},
};

static const char help_text[] =
	"Usage: sluice [options] IFNAME\n"
	"       sluice stats IFNAME [--all] [--watch] [--interval SECONDS] [--json]\n"
	"       sluice log IFNAME [DIRECTIVES]\n"
	"\n"
	"Creates the TUN interface IFNAME and serves it as a WireGuard interface, to be set up with\n"
	"wg(8) and ip(8).\n"
	"\n"
	"  -f, --foreground          stay in the foreground and log to standard error\n"
	"      --tun-threads N       TUN queues, each with a thread that reads and one that writes,\n"
	"                            1 to 64 (default 2)\n"
	"      --aead NAME           cipher implementation: ipsec-mb, libcrypto or libsodium\n"
	"                            (default: the fastest here)\n"
	"      --mtu BYTES           MTU of the new interface, 68 to 65535 (default 1420)\n"
	"      --log DIRECTIVES      log levels, such as warn,handshake=debug,udp=off\n"
	"                            (default " LOG_DIRECTIVES_DEFAULT ")\n"
	"      --log-format FORMAT   human or json (default human)\n"
	"  -h, --help                print this and exit\n"
	"  -V, --version             print the version and exit\n"
	"\n"
	"sluice stats prints the state, totals, drops, threads and peers of a running sluice, with\n"
	"--all every counter; or, with one of\n"
	"\n"
	"      --interval SECONDS    rates per second over one interval, 0.1 to 3600 s long\n"
	"      --watch               the same, refreshed until Ctrl-C (every second by default),\n"
	"\n"
	"its rates, the CPU use of each thread, and the stage that limits. --json prints JSON.\n"
	"sluice log shows or changes the log levels: only those that DIRECTIVES name; default resets all.\n"
	"The manual page sluice(8) has the details.\n";

/*
 * What people try that is neither a command nor likely to name an interface, and what they may have meant.
 * Capitals make no difference, which is how the commands themselves come to be here.
 */
static const struct {
	const char *word, *meant;
} command_like[] = {
	{"stats", "sluice stats IFNAME"},
	{"stat", "sluice stats IFNAME"},
	{"status", "sluice stats IFNAME"},
	{"show", "sluice stats IFNAME"},
	{"log", "sluice log IFNAME"},
	{"logs", "sluice log IFNAME"},
	{"run", "sluice IFNAME"},
	{"start", "sluice IFNAME"},
	{"up", "sluice IFNAME"},
	{"stop", "ip link delete IFNAME"},
	{"down", "ip link delete IFNAME"},
};

/* Options were given that only some of the commands take. */
struct seen {
	bool run_option;          /* one for serving an interface */
	const char *stats_option; /* one for `sluice stats`; NULL: none */
};

static int parse_option(struct options *o, struct seen *seen, int option, char **argv, char *error);
static int parse_words(
	struct options *o, const struct seen *seen, char **word, int nr, bool first_is_name, char *error);
static int refuse_command_like(const char *word, char *error);
static int parse_ifname(struct options *o, const char *name, char *error);
static int parse_number(unsigned *out, const char *text, unsigned min, unsigned max);
static int parse_milliseconds(unsigned *out, const char *text, unsigned min, unsigned max);
static int parse_aead(const struct aead_backend **out, const char *name, char *error);
static int parse_log_format(enum log_format *out, const char *name);
static const char *environment_log(void);
static int check_cpu(char *error);
static int fail(char *error, const char *fmt, ...) PRINTF_LIKE(2, 3);

int options_parse(struct options *out, int argc, char **argv, char error[OPTIONS_ERROR_BYTES])
{
	const char *foreground = getenv("WG_PROCESS_FOREGROUND");
	struct seen seen = {0};
	struct options o = {
		.command = OPTIONS_RUN,
		.foreground = foreground && strcmp(foreground, "1") == 0,
		.tun_threads = OPTIONS_TUN_THREADS_DEFAULT,
		.mtu = OPTIONS_MTU_DEFAULT,
		.log_format = LOG_FORMAT_HUMAN,
		.log = environment_log(),
	};
	int option, err, nr = 0;
	char *words[WORDS_MAX];
	bool first_is_name;

	opterr = 0;
	optind = 0; /* makes glibc start afresh: tests parse many times in a process */
	while ((option = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
		if (option == OPT_WORD) {
			if (nr < WORDS_MAX)
				words[nr++] = optarg;
			continue;
		}
		err = parse_option(&o, &seen, option, argv, error);
		if (err)
			return err;
		if (o.command == OPTIONS_HELP || o.command == OPTIONS_VERSION) {
			*out = o;
			return 0;
		}
	}
	/* Only "--" ends the options before the end of argv. */
	first_is_name = nr == 0 && optind < argc;
	while (optind < argc && nr < WORDS_MAX)
		words[nr++] = argv[optind++];
	err = parse_words(&o, &seen, words, nr, first_is_name, error);
	if (!err && o.command == OPTIONS_RUN)
		err = check_cpu(error);
	if (err)
		return err;
	*out = o;
	return 0;
}

enum log_format options_log_format(int argc, char **argv)
{
	enum log_format format = LOG_FORMAT_HUMAN;
	int option;

	opterr = 0;
	optind = 0; /* makes glibc start afresh */
	while ((option = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
		if (option == OPT_LOG_FORMAT)
			IGNORE_RESULT("options_parse() complains of it", parse_log_format(&format, optarg));
	}
	return format;
}

const char *options_help(void)
{
	return help_text;
}

bool options_valid_ifname(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	/*
	 * The kernel takes '%d' for a number of its own choice, which the name of the control socket would
	 * not follow, and keeps ':' for alias labels.
	 */
	for (const char *c = name; *c; c++)
		if (*c <= ' ' || *c > '~' || *c == '/' || *c == '%' || *c == ':')
			return false;
	return true;
}

static int parse_option(struct options *o, struct seen *seen, int option, char **argv, char *error)
{
	char log_error[LOG_ERROR_BYTES];
	unsigned number;

	switch (option) {
	case 'h':
		o->command = OPTIONS_HELP;
		return 0;
	case 'V':
		o->command = OPTIONS_VERSION;
		return 0;
	case OPT_JSON:
		o->json = true;
		seen->stats_option = "--json";
		return 0;
	case OPT_ALL:
		o->all = true;
		seen->stats_option = "--all";
		return 0;
	case OPT_WATCH:
		o->watch = true;
		seen->stats_option = "--watch";
		return 0;
	case OPT_INTERVAL:
		seen->stats_option = "--interval";
		if (parse_milliseconds(
			    &o->interval_ms, optarg, OPTIONS_INTERVAL_MS_MIN, OPTIONS_INTERVAL_MS_MAX))
			return fail(
				error, "--interval %.32s: give a number of seconds from 0.1 to 3600", optarg);
		return 0;
	case ':':
		return fail(error, "%.64s needs a value; see sluice --help", argv[optind - 1]);
	case '?':
		/*
		 * getopt_long() sets optopt for a long option only if it exists and was given a value that it
		 * does not take.
		 */
		if (optopt && strncmp(argv[optind - 1], "--", 2) == 0)
			return fail(error, "%.64s: this option takes no value; see sluice --help",
				argv[optind - 1]);
		if (optopt)
			return fail(error, "unknown option -%c; see sluice --help",
				isprint(optopt) ? optopt : '?');
		return fail(error, "unknown option %.64s; see sluice --help", argv[optind - 1]);
	default:
		break;
	}

	seen->run_option = true;
	switch (option) {
	case 'f':
		o->foreground = true;
		return 0;
	case OPT_TUN_THREADS:
		if (parse_number(&o->tun_threads, optarg, 1, OPTIONS_TUN_THREADS_MAX))
			return fail(error, "--tun-threads %.32s: give a number from 1 to %d", optarg,
				OPTIONS_TUN_THREADS_MAX);
		return 0;
	case OPT_MTU:
		if (parse_number(&number, optarg, OPTIONS_MTU_MIN, OPTIONS_MTU_MAX))
			return fail(error, "--mtu %.32s: give a number of bytes from %d to %d", optarg,
				OPTIONS_MTU_MIN, OPTIONS_MTU_MAX);
		o->mtu = number;
		return 0;
	case OPT_AEAD:
		return parse_aead(&o->aead, optarg, error);
	case OPT_LOG:
		if (log_check_directives(optarg, log_error))
			return fail(error, "--log: %s", log_error);
		o->log = optarg;
		return 0;
	case OPT_LOG_FORMAT:
		if (parse_log_format(&o->log_format, optarg))
			return fail(error, "--log-format %.32s: give human or json", optarg);
		return 0;
	default:
		assert(!"an option of the table without a case");
		return -EINVAL;
	}
}

/* first_is_name: the first word is no command, whatever it is. */
static int parse_words(
	struct options *o, const struct seen *seen, char **word, int nr, bool first_is_name, char *error)
{
	char log_error[LOG_ERROR_BYTES];
	int err;

	if (nr > 0 && !first_is_name) {
		if (strcmp(word[0], "stats") == 0) {
			o->command = OPTIONS_STATS;
		} else if (strcmp(word[0], "log") == 0) {
			o->command = OPTIONS_LOG;
		} else {
			err = refuse_command_like(word[0], error);
			if (err)
				return err;
		}
	}
	if (o->command != OPTIONS_RUN) {
		if (seen->run_option)
			return fail(error, "sluice %s takes no option of a new interface; see sluice --help",
				word[0]);
		nr--;
		word++;
	}
	if (seen->stats_option && o->command != OPTIONS_STATS)
		return fail(error, "%s goes with sluice stats; see sluice --help", seen->stats_option);
	if (o->all && (o->watch || o->interval_ms))
		return fail(error, "--all prints totals and does not go with --watch or --interval");
	if (nr < 1)
		return fail(error, "no interface name given; see sluice --help");
	if (nr > (o->command == OPTIONS_LOG ? 2 : 1))
		return fail(error, "unexpected argument %.64s; see sluice --help", word[nr - 1]);

	if (o->command == OPTIONS_LOG) {
		o->log = nr == 2 ? word[1] : "";
		if (nr == 2 && log_check_directives(o->log, log_error))
			return fail(error, "%s", log_error);
	}
	return parse_ifname(o, word[0], error);
}

/* An interface that nobody wanted is worse than a question. */
static int refuse_command_like(const char *word, char *error)
{
	const char *meant = NULL, *dashes = "";

	for (unsigned i = 0; i < ARRAY_LEN(command_like) && !meant; i++)
		if (strcasecmp(word, command_like[i].word) == 0)
			meant = command_like[i].meant;
	for (const struct option *o = long_options; o->name && !meant; o++)
		if (strcasecmp(word, o->name) == 0) {
			meant = o->name;
			dashes = "--";
		}
	if (!meant)
		return 0;
	return fail(error,
		"\"%s\" looks like a command: did you mean \"%s%s\"? To use it as the name of an interface: "
		"sluice -- %s",
		word, dashes, meant, word);
}

static int parse_ifname(struct options *o, const char *name, char *error)
{
	if (!options_valid_ifname(name))
		return fail(error,
			"\"%.32s\" cannot name an interface: use 1 to %d printable characters without "
			"blanks, '/', '%%' "
			"or ':'",
			name, IFNAMSIZ - 1);
	strcpy(o->ifname, name);
	return 0;
}

static int parse_number(unsigned *out, const char *text, unsigned min, unsigned max)
{
	uint64_t number;
	int err = number_parse(&number, text, strlen(text), min, max);

	if (!err)
		*out = (unsigned)number;
	return err;
}

/* Seconds, with or without decimals: "2", "0.5". What is finer than a millisecond is cut off. */
static int parse_milliseconds(unsigned *out, const char *text, unsigned min, unsigned max)
{
	const size_t whole_len = strcspn(text, ".");
	const char *decimals = text[whole_len] ? text + whole_len + 1 : "0";
	const size_t decimals_len = strlen(decimals);
	uint64_t seconds, milliseconds;

	/* All decimals must be digits, though only three of them count. */
	if (number_parse(&seconds, text, whole_len, 0, max / 1000) || decimals_len == 0 ||
		strspn(decimals, "0123456789") != decimals_len ||
		number_parse(&milliseconds, decimals, MIN(decimals_len, (size_t)3), 0, 999))
		return -EINVAL;
	for (size_t i = decimals_len; i < 3; i++)
		milliseconds *= 10;
	milliseconds += 1000 * seconds;
	if (milliseconds < min || milliseconds > max)
		return -EINVAL;
	*out = (unsigned)milliseconds;
	return 0;
}

static int parse_aead(const struct aead_backend **out, const char *name, char *error)
{
	const struct aead_backend *backend = aead_find(name);
	size_t used;

	if (backend) {
		*out = backend;
		return 0;
	}
	used = (size_t)snprintf(error, OPTIONS_ERROR_BYTES, "--aead %.32s: this build has", name);
	for (unsigned i = 0; aead_backends[i] && used < OPTIONS_ERROR_BYTES; i++)
		used += (size_t)snprintf(error + used, OPTIONS_ERROR_BYTES - used, "%s %s", i ? "," : "",
			aead_backends[i]->name);
	return -EINVAL;
}

static int parse_log_format(enum log_format *out, const char *name)
{
	if (strcmp(name, "human") == 0)
		*out = LOG_FORMAT_HUMAN;
	else if (strcmp(name, "json") == 0)
		*out = LOG_FORMAT_JSON;
	else
		return -EINVAL;
	return 0;
}

/*
 * The level by the environment, in the words that wireguard-go takes, so that a unit file written for it
 * keeps its meaning. --log takes precedence.
 */
static const char *environment_log(void)
{
	const char *level = getenv("LOG_LEVEL");

	if (!level)
		return LOG_DIRECTIVES_DEFAULT;
	if (strcmp(level, "verbose") == 0 || strcmp(level, "debug") == 0)
		return "debug";
	if (strcmp(level, "error") == 0)
		return "error";
	if (strcmp(level, "silent") == 0)
		return "off";
	return LOG_DIRECTIVES_DEFAULT;
}

/* It took effect before main(); only here can it be refused. */
static int check_cpu(char *error)
{
	const char *text = getenv(CPU_ENVIRONMENT);
	enum cpu_isa limit;

	if (text && cpu_isa_parse(&limit, text))
		return fail(error, CPU_ENVIRONMENT "=%.32s: give sse, avx, avx2 or avx512", text);
	return 0;
}

static int fail(char *error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, OPTIONS_ERROR_BYTES, fmt, args);
	va_end(args);
	return -EINVAL;
}
