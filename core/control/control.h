/*
 * The control thread (the process's first): waits for clients of the control socket, signals and changes of
 * the interface, and ends the program in order. It owns the configuration and reaches the other threads
 * through the pipeline only.
 */
#pragma once

#include "core/base/metrics.h"
#include "core/control/control_socket.h"
#include "core/threads/pipeline.h"
#include "tun/tun_device.h"

/*
 * A get is refused while clients have not read so many bytes of answers. Those who list and never read cannot
 * take more memory than this and one answer.
 */
#define CONTROL_ANSWERS_MAX ((size_t)256 << 20)

struct control;

struct control_params {
	const char *ifname;
	const struct control_socket *socket; /* listening */
	const struct tun_device *tun;
	uint32_t mtu; /* of tun, as opened */
	struct pipeline *pipeline;
	struct metrics *metrics;
};

/*
 * Blocks SIGINT and SIGTERM for the calling thread and those it will start, and ignores SIGHUP and SIGPIPE.
 */
void control_block_signals(void);
/* Comes before the pipeline, because the pipeline reports to it. -ENOMEM, -EMFILE, ... */
int control_new(struct control **out) MUST_CHECK;
/* The pipeline's tun_failed; arg is the struct control. Any thread. */
void control_tun_failed(void *arg, int err);
/* Everything in params outlives the control. -ENOMEM, ... */
int control_start(struct control *c, const struct control_params *params) MUST_CHECK;
/*
 * Serves until somebody asks for the end: by SIGTERM or SIGINT, by deleting the interface, or by removing the
 * socket file. Returns 0 then, and -errno, after a line in the log, when the interface or the loop itself
 * fails. The clients are gone on return.
 */
int control_run(struct control *c) MUST_CHECK;
/* The pipeline has stopped. NULL is accepted. */
void control_free(struct control *c);
