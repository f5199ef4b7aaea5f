#include "core/base/control_address.h"

#include <stdio.h>
#include <sys/socket.h>

void control_address(struct sockaddr_un *out, const char *ifname)
{
	memset(out, 0, sizeof(*out));
	out->sun_family = AF_UNIX;
	snprintf(out->sun_path, sizeof(out->sun_path), CONTROL_DIRECTORY "/%s.sock", ifname);
}
