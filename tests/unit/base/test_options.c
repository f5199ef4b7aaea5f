#include "core/base/options.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static char error[OPTIONS_ERROR_BYTES];

/* Words separated by single blanks, after the name of the program. Returns how many there are. */
static int split(char *argv[32], const char *line)
{
	static char copy[512];
	int argc = 0;

	snprintf(copy, sizeof(copy), "sluice %s", line);
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return argc;
}

static int parse(struct options *o, const char *line)
{
	char *argv[32];
	int argc = split(argv, line);

	*error = '\0';
	return options_parse(o, argc, argv, error);
}

static void clear_environment(void)
{
	unsetenv("WG_PROCESS_FOREGROUND");
	unsetenv("LOG_LEVEL");
}

TestSuite(options, .init = clear_environment);

Test(options, interface_name_alone_gives_defaults)
{
	struct options o;

	cr_assert_eq(parse(&o, "wg0"), 0, "%s", error);
	cr_assert_eq(o.command, OPTIONS_RUN);
	cr_assert_str_eq(o.ifname, "wg0");
	cr_assert_eq(o.foreground, false);
	cr_assert_eq(o.tun_threads, 2);
	cr_assert_eq(o.mtu, 1420);
	cr_assert_null(o.aead);
	cr_assert_eq(o.log_format, LOG_FORMAT_HUMAN);
	cr_assert_str_eq(o.log, LOG_DIRECTIVES_DEFAULT);
}

Test(options, every_option_is_taken_before_or_after_the_name)
{
	struct options o;

	cr_assert_eq(parse(&o, "-f --tun-threads 64 --aead libsodium wg0 --mtu=1280 --log off,tun=debug "
			       "--log-format json"),
		0, "%s", error);
	cr_assert_eq(o.foreground, true);
	cr_assert_eq(o.tun_threads, 64);
	cr_assert_str_eq(o.aead->name, "libsodium");
	cr_assert_eq(o.mtu, 1280);
	cr_assert_str_eq(o.log, "off,tun=debug");
	cr_assert_eq(o.log_format, LOG_FORMAT_JSON);
}

Test(options, environment_of_wireguard_go_is_honoured)
{
	static const char *const levels[][2] = {{"verbose", "debug"}, {"debug", "debug"}, {"error", "error"},
		{"silent", "off"}, {"other", LOG_DIRECTIVES_DEFAULT}};
	struct options o;

	setenv("WG_PROCESS_FOREGROUND", "1", 1);
	for (unsigned i = 0; i < ARRAY_LEN(levels); i++) {
		setenv("LOG_LEVEL", levels[i][0], 1);
		cr_assert_eq(parse(&o, "wg0"), 0);
		cr_assert_eq(o.foreground, true);
		cr_assert_str_eq(o.log, levels[i][1]);
		cr_assert_eq(parse(&o, "--log warn wg0"), 0);
		cr_assert_str_eq(o.log, "warn", "--log goes before the environment");
	}
	setenv("WG_PROCESS_FOREGROUND", "0", 1);
	cr_assert_eq(parse(&o, "wg0"), 0);
	cr_assert_eq(o.foreground, false);
}

Test(options, limit_of_the_cpu_is_checked_for_a_new_interface)
{
	static const char *const good[] = {"sse", "avx", "avx2", "avx512"};
	static const char *const bad[] = {"", "AVX2", "avx-512", "avx2 ", "all", "sse4.2"};
	struct options o;

	for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
		setenv("SLUICE_CPU", good[i], 1);
		cr_assert_eq(parse(&o, "wg0"), 0, "%s", error);
	}
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		char want[80];

		setenv("SLUICE_CPU", bad[i], 1);
		snprintf(want, sizeof(want), "SLUICE_CPU=%s: give sse, avx, avx2 or avx512", bad[i]);
		cr_assert_eq(parse(&o, "wg0"), -EINVAL, "accepted: \"%s\"", bad[i]);
		cr_assert_str_eq(error, want);
		/* nothing is chosen there */
		cr_assert_eq(parse(&o, "stats wg0"), 0, "%s", error);
		cr_assert_eq(parse(&o, "--help"), 0, "%s", error);
	}
	unsetenv("SLUICE_CPU");
	cr_assert_eq(parse(&o, "wg0"), 0, "%s", error);
}

Test(options, commands_to_a_running_process)
{
	struct options o;

	cr_assert_eq(parse(&o, "stats wg0"), 0, "%s", error);
	cr_assert_eq(o.command, OPTIONS_STATS);
	cr_assert_str_eq(o.ifname, "wg0");
	cr_assert_eq(o.json, false);
	cr_assert_eq(o.all, false);
	cr_assert_eq(parse(&o, "stats wg0 --all"), 0, "%s", error);
	cr_assert_eq(o.all, true);
	cr_assert_eq(parse(&o, "stats wg0 --json"), 0, "%s", error);
	cr_assert_eq(o.json, true);
	cr_assert_eq(o.watch, false);
	cr_assert_eq(o.interval_ms, 0);
	cr_assert_eq(parse(&o, "stats --watch --interval 0.25 wg0"), 0, "%s", error);
	cr_assert_eq(o.watch, true);
	cr_assert_eq(o.interval_ms, 250);
	cr_assert_eq(parse(&o, "stats wg0 --interval 3600.0009"), 0, "%s", error);
	cr_assert_eq(o.interval_ms, 3600000);
	cr_assert_eq(parse(&o, "stats wg0 --interval 12"), 0, "%s", error);
	cr_assert_eq(o.interval_ms, 12000);
	cr_assert_eq(parse(&o, "log wg0 info,udp=off"), 0, "%s", error);
	cr_assert_eq(o.command, OPTIONS_LOG);
	cr_assert_str_eq(o.log, "info,udp=off");
	cr_assert_eq(parse(&o, "log wg0"), 0, "%s", error);
	cr_assert_str_eq(o.log, "");
}

Test(options, help_and_version_need_nothing_else)
{
	struct options o;

	cr_assert_eq(parse(&o, "--help"), 0);
	cr_assert_eq(o.command, OPTIONS_HELP);
	cr_assert_eq(parse(&o, "-h"), 0);
	cr_assert_eq(o.command, OPTIONS_HELP);
	cr_assert_eq(parse(&o, "--version"), 0);
	cr_assert_eq(o.command, OPTIONS_VERSION);
	cr_assert(strstr(options_help(), "--tun-threads"));
}

Test(options, refused_with_one_line_that_says_what_is_wrong)
{
	static const char *const cases[][2] = {
		{"", "no interface name"},
		{"wg0 wg1", "unexpected argument wg1"},
		{"--tun-threads 0 wg0", "--tun-threads 0: give a number from 1 to 64"},
		{"--tun-threads 65 wg0", "from 1 to 64"},
		{"--tun-threads +2 wg0", "from 1 to 64"},
		{"--tun-threads 2x wg0", "from 1 to 64"},
		{"--tun-threads 4294967298 wg0", "from 1 to 64"},
		{"--tun-threads= wg0", "from 1 to 64"},
		{"--mtu 67 wg0", "--mtu 67: give a number of bytes from 68 to 65535"},
		{"--mtu 65536 wg0", "from 68 to 65535"},
		{"--mtu 0x500 wg0", "from 68 to 65535"},
		{"--aead rot13 wg0", "--aead rot13: this build has ipsec-mb"},
		{"--log crypto=loud wg0", "--log: \"crypto=loud\": no such level"},
		{"--log-format xml wg0", "--log-format xml: give human or json"},
		{"wg0 --mtu", "--mtu needs a value"},
		{"-x wg0", "unknown option -x"},
		{"-fx wg0", "unknown option -x"},
		{"--fast wg0", "unknown option --fast"},
		{"--foreground=1 wg0", "takes no value"},
		{"--json wg0", "--json goes with sluice stats"},
		{"--watch wg0", "--watch goes with sluice stats"},
		{"--all wg0", "--all goes with sluice stats"},
		{"stats --all --watch wg0", "--all prints totals and does not go with --watch"},
		{"stats wg0 --interval 1 --all", "--all prints totals and does not go with --watch"},
		{"--interval 1 log wg0", "--interval goes with sluice stats"},
		{"stats wg0 --interval 0", "--interval 0: give a number of seconds from 0.1 to 3600"},
		{"stats wg0 --interval 0.0999", "from 0.1 to 3600"},
		{"stats wg0 --interval 3600.001", "from 0.1 to 3600"},
		{"stats wg0 --interval 99999999999999999999", "from 0.1 to 3600"},
		{"stats wg0 --interval 1.", "from 0.1 to 3600"},
		{"stats wg0 --interval .5", "from 0.1 to 3600"},
		{"stats wg0 --interval 1.5x", "from 0.1 to 3600"},
		{"stats wg0 --interval -1", "from 0.1 to 3600"},
		{"stats wg0 --interval 1e3", "from 0.1 to 3600"},
		{"stats wg0 --interval", "--interval needs a value"},
		{"stats", "no interface name"},
		{"log", "no interface name"},
		{"stats wg0 wg1", "unexpected argument wg1"},
		{"log wg0 loud", "\"loud\": no such level"},
		{"log wg0 info debug", "unexpected argument debug"},
		{"stats --mtu 1280 wg0", "sluice stats takes no option of a new interface"},
		{"a-name-too-long0", "cannot name an interface"},
		{"wg/0", "cannot name an interface"},
		{"wg%d", "cannot name an interface"},
		{"..", "cannot name an interface"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct options o;

		memset(&o, 0x5a, sizeof(o));
		cr_assert_eq(parse(&o, cases[i][0]), -EINVAL, "accepted: %s", cases[i][0]);
		/* ipsec-mb is not in every build. */
		if (!strstr(cases[i][0], "rot13"))
			cr_assert(strstr(error, cases[i][1]), "\"%s\" for %s", error, cases[i][0]);
		cr_assert(*error && !strchr(error, '\n'));
		cr_assert_eq(o.mtu, 0x5a5a5a5a, "written although refused");
	}
}

/* An interface of that name is what nobody wanted who typed one of these. */
Test(options, words_that_look_like_a_command_are_refused_with_a_hint)
{
	static const char *const cases[][2] = {
		{"help", "\"help\" looks like a command: did you mean \"--help\"?"},
		{"version", "\"--version\""},
		{"Version", "\"--version\""},
		{"HELP wg0", "\"--help\""},
		{"-f watch", "\"--watch\""},
		{"mtu", "\"--mtu\""},
		{"Stats", "\"Stats\" looks like a command: did you mean \"sluice stats IFNAME\"?"},
		{"STATS wg0 --json", "\"sluice stats IFNAME\""},
		{"status wg0", "\"sluice stats IFNAME\""},
		{"Log wg0 debug", "\"sluice log IFNAME\""},
		{"LOG", "\"sluice log IFNAME\""},
		{"start wg0", "\"sluice IFNAME\""},
		{"Up wg0", "\"sluice IFNAME\""},
		{"stop", "\"ip link delete IFNAME\""},
		{"down wg0", "\"ip link delete IFNAME\""},
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct options o;

		memset(&o, 0x5a, sizeof(o));
		cr_assert_eq(parse(&o, cases[i][0]), -EINVAL, "accepted: %s", cases[i][0]);
		cr_assert(strstr(error, cases[i][1]), "\"%s\" for %s", error, cases[i][0]);
		cr_assert(strstr(error, "name of an interface: sluice -- "), "%s", error);
		cr_assert(!strchr(error, '\n'));
		cr_assert_eq(o.mtu, 0x5a5a5a5a, "written although refused");
	}
}

Test(options, two_dashes_make_any_word_a_name)
{
	static const char *const names[] = {"help", "Stats", "stats", "log", "version", "up", "-f", "--help"};
	struct options o;
	char line[64];

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(line, sizeof(line), "--mtu 1280 -- %s", names[i]);
		cr_assert_eq(parse(&o, line), 0, "%s", error);
		cr_assert_eq(o.command, OPTIONS_RUN, "%s", names[i]);
		cr_assert_str_eq(o.ifname, names[i]);
		cr_assert_eq(o.mtu, 1280);
		cr_assert_eq(o.foreground, false);
		/* After a command, there is no need for them. */
		if (*names[i] == '-')
			continue;
		snprintf(line, sizeof(line), "stats %s --json", names[i]);
		cr_assert_eq(parse(&o, line), 0, "%s", error);
		cr_assert_eq(o.command, OPTIONS_STATS);
		cr_assert_str_eq(o.ifname, names[i]);
		cr_assert_eq(o.json, true);
	}
	cr_assert_eq(parse(&o, "log -- help debug"), 0, "%s", error);
	cr_assert_eq(o.command, OPTIONS_LOG);
	cr_assert_str_eq(o.ifname, "help");
	cr_assert_str_eq(o.log, "debug");
	cr_assert_eq(parse(&o, "-- stats wg0"), -EINVAL);
	cr_assert(strstr(error, "unexpected argument wg0"), "%s", error);
	cr_assert_eq(parse(&o, "--"), -EINVAL);
	cr_assert(strstr(error, "no interface name"), "%s", error);
}

Test(options, names_that_only_begin_like_a_command_are_taken)
{
	static const char *const names[] = {
		"stats0", "log1", "helper", "upstream", "wg-help", "WG0", "Office"};
	struct options o;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		cr_assert_eq(parse(&o, names[i]), 0, "%s", error);
		cr_assert_eq(o.command, OPTIONS_RUN);
		cr_assert_str_eq(o.ifname, names[i]);
	}
}

Test(options, format_of_the_log_is_known_whatever_else_is_wrong)
{
	static const char *const json[] = {"--log-format json wg0 --bogus", "--bogus --log-format=json wg0",
		"wg0 wg1 --log-format json", "--mtu 0 --log-form json", "-x --log-format json --log loud wg0",
		"--log-format xml --log-format json", "--log-format json wg0 --mtu"};
	static const char *const human[] = {"", "--bogus", "--log-format xml wg0", "--log-format",
		"wg0 --log-format json --log-format human -x", "-x -- --log-format json"};
	struct options o;
	char *argv[32];

	for (unsigned i = 0; i < ARRAY_LEN(json) + ARRAY_LEN(human); i++) {
		const bool is_json = i < ARRAY_LEN(json);
		const char *line = is_json ? json[i] : human[i - ARRAY_LEN(json)];
		int argc = split(argv, line);

		/* Asked after the parser has stopped at an error, and may have reordered the words. */
		cr_assert_eq(options_parse(&o, argc, argv, error), -EINVAL, "accepted: %s", line);
		cr_assert_eq(options_log_format(argc, argv), is_json ? LOG_FORMAT_JSON : LOG_FORMAT_HUMAN,
			"%s", line);
	}
}

Test(options, unknown_cipher_lists_the_known_ones)
{
	struct options o;

	cr_assert_eq(parse(&o, "--aead rot13 wg0"), -EINVAL);
	for (unsigned i = 0; aead_backends[i]; i++)
		cr_assert(strstr(error, aead_backends[i]->name), "%s", error);
}

Test(options, interface_names)
{
	static const char *const good[] = {"w", "wg0", "wg-office_1.x", "abcdefghijklmno", "stats"};
	static const char *const bad[] = {
		"", ".", "..", "abcdefghijklmnop", "a b", "a\tb", "a/b", "wg%d", "a:1", "w\xc3\xa9"};

	for (unsigned i = 0; i < ARRAY_LEN(good); i++)
		cr_assert(options_valid_ifname(good[i]), "%s", good[i]);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert(!options_valid_ifname(bad[i]), "%s", bad[i]);
}
