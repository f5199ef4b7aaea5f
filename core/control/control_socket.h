/*
 * The name of an interface, claimed against other daemons, and the listening socket in the file system that
 * stands for it. Control thread.
 */
#pragma once

#include <sys/types.h>

#include "core/base/control_address.h"
#include "ring/base.h"

struct control_socket {
	struct sockaddr_un address;
	int lock_fd; /* the directory, locked until the socket listens; -1 afterwards */
	int fd;      /* listening; -1 before */
	dev_t dev;   /* with ino: of the socket file that we made */
	ino_t ino;
};

/*
 * Makes the directory if there is none, removes a socket file that nobody answers, and keeps other starts out
 * until the socket listens. -EADDRINUSE when a daemon answers there, -EWOULDBLOCK when another start holds
 * the lock for ten seconds, other -errno.
 */
int control_socket_claim(struct control_socket *s, const char *ifname) MUST_CHECK;
/* Creates the socket, for its owner only, and listens. -errno. */
int control_socket_listen(struct control_socket *s) MUST_CHECK;
/* Is the file still the one that we made? Whoever removes or replaces it asks for our end. */
bool control_socket_is_ours(const struct control_socket *s);
/* Removes the file if it is still ours. Accepts one that was only claimed, and one that is closed already. */
void control_socket_close(struct control_socket *s);
