/*
 * The control thread (the process's first): the control socket and its clients, signals, the state of the
 * interface, and the orderly end. It owns configuration; the data threads are reached through the pipeline
 * only.
 */
#pragma once

#include <net/if.h>
#include <sys/types.h>

#include "core/base/control_address.h"
#include "core/control/config.h"
#include "core/threads/pipeline.h"
#include "core/base/metrics.h"
#include "tun/tun_device.h"

#define CONTROL_CLIENTS_MAX 64 /* served at once; more wait in the listen backlog */
/* A client in the middle of a request or an answer that does not move for so long is closed. */
#define CONTROL_STALL_NS (30 * NS_PER_SEC)
/* With all places taken, whoever has been served or waited for longest, and at least so long, makes room. */
#define CONTROL_EVICT_NS (5 * NS_PER_SEC)
/* Answers not yet read by all clients together: a request for one more is refused beyond this. */
#define CONTROL_ANSWERS_MAX ((size_t)256 << 20)

/* The name of an interface, claimed against other daemons, and the socket that stands for it. */
struct control_socket {
	struct sockaddr_un address;
	int lock_fd; /* the directory, locked until the socket listens; -1 afterwards */
	int fd;      /* listening; -1 before */
	dev_t dev;   /* of the socket file that we made */
	ino_t ino;
};

/*
 * Makes the directory if there is none, removes a socket file that nobody answers, and keeps other starts out
 * until the socket listens. -EADDRINUSE when a daemon answers there, -EWOULDBLOCK when another start does not
 * come to its end.
 */
int control_socket_claim(struct control_socket *s, const char *ifname) MUST_CHECK;
/* Creates the socket, for its owner only, and listens. */
int control_socket_listen(struct control_socket *s) MUST_CHECK;
/*
 * Removes the file if it is still ours. Accepts one that was only claimed, or zeroed with both descriptors
 * -1.
 */
void control_socket_close(struct control_socket *s);

struct control;

struct control_params {
	const char *ifname;
	struct control_socket *socket; /* listening */
	const struct tun_device *tun;
	uint32_t mtu; /* of tun, as opened */
	struct pipeline *pipeline;
	struct metrics *metrics;
};

/* Blocks SIGINT, SIGTERM, SIGHUP and SIGPIPE, for the calling thread and those it will start. */
void control_block_signals(void);
/* Before the pipeline starts, since the pipeline reports to it. -ENOMEM, -EMFILE, ... */
int control_new(struct control **out) MUST_CHECK;
/* The pipeline's tun_failed; arg is the struct control. Any thread. */
void control_tun_failed(void *arg, int err);
/* Everything in params outlives the control. -ENOMEM, ... */
int control_start(struct control *c, const struct control_params *params) MUST_CHECK;
/*
 * Serves until SIGTERM or SIGINT, the interface is deleted, or the socket file is removed. Returns 0 for each
 * of these, -errno for a failure of the loop itself. The clients are gone on return.
 */
int control_run(struct control *c) MUST_CHECK;
/* The pipeline has stopped. NULL is accepted. */
void control_free(struct control *c);
