/* Where the control socket of an interface lies: the daemon makes it there, `sluice stats` and wg(8) look for it there. */
#pragma once

#include <sys/un.h>

#include "ring/base.h"

#define CONTROL_DIRECTORY "/var/run/wireguard" /* where wg(8) looks */

/* "/var/run/wireguard/IFNAME.sock". */
void control_address(struct sockaddr_un *out, const char *ifname);
