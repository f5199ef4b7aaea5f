/* The command line and the environment, parsed and checked. Start-up only. */
#pragma once

#include <net/if.h>

#include "core/base/log.h"
#include "crypto/aead.h"
#include "ring/base.h"

#define OPTIONS_ERROR_BYTES 256
#define OPTIONS_TUN_THREADS_DEFAULT 2
#define OPTIONS_TUN_THREADS_MAX 64
#define OPTIONS_INTERVAL_MS_MIN 100
#define OPTIONS_INTERVAL_MS_MAX (3600 * 1000)
#define OPTIONS_MTU_DEFAULT 1420
#define OPTIONS_MTU_MIN 68 /* the least that IPv4 allows */
#define OPTIONS_MTU_MAX 65535

enum options_command {
	OPTIONS_RUN,   /* serve an interface */
	OPTIONS_STATS, /* print the counters of a running one */
	OPTIONS_LOG,   /* change the log levels of a running one */
	OPTIONS_HELP,
	OPTIONS_VERSION
};

struct options {
	enum options_command command;
	char ifname[IFNAMSIZ];
	bool foreground;
	/* of OPTIONS_STATS */
	bool json, watch, all;
	unsigned interval_ms; /* 0: not given */
	/* of OPTIONS_RUN; log also of OPTIONS_LOG, where "" asks for the levels in force */
	unsigned tun_threads;
	uint32_t mtu;
	const struct aead_backend *aead; /* NULL: measure and choose */
	enum log_format log_format;
	const char *log; /* valid directives; a string of argv, or a static one */
};

/*
 * Reads argv and the environment (WG_PROCESS_FOREGROUND, LOG_LEVEL, SLUICE_CPU). On -EINVAL, error holds one
 * line, without the program's name, that says what is wrong and what would be right.
 */
int options_parse(struct options *out, int argc, char **argv, char error[OPTIONS_ERROR_BYTES]) MUST_CHECK;
/*
 * The format of the log as far as the command line tells it, whatever else is wrong with that: for what
 * options_parse() complains of. The last --log-format that is valid counts.
 */
enum log_format options_log_format(int argc, char **argv);
/* What --help prints. */
const char *options_help(void);
/* Whether the kernel and a path in the file system both take this as an interface name. */
bool options_valid_ifname(const char *name);
