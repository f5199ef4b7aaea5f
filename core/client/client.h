/* The commands that speak to a running sluice over its control socket: `sluice stats` and `sluice log`. */
#pragma once

#include "core/base/options.h"

/* Prints to standard output; complaints, one line, to standard error. Returns the exit status. */
int client_stats(const struct options *options);
int client_log(const struct options *options);
