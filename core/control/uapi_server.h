/*
 * The clients of the control socket: accepts them, moves bytes between them and their sessions (uapi.h), and
 * keeps any of them, slow, silent or hostile, from holding up the others. Control thread.
 *
 * There are places for so many clients; more wait in the backlog of the socket. With all places taken, the
 * client that has gone longest without an answer makes room. One that stalls in the middle of a request or of
 * an answer is closed.
 */
#pragma once

#include "core/control/event_loop.h"
#include "core/control/uapi.h"

#define UAPI_SERVER_CLIENTS_MAX 64
/* A client in the middle of a request or of an answer is closed when no byte has moved for so long. */
#define UAPI_SERVER_STALL_NS (30 * NS_PER_SEC)
/* A client makes room for another only when its last answer, or its arrival, is so long ago. */
#define UAPI_SERVER_EVICT_NS (5 * NS_PER_SEC)
/* How often uapi_server_tick() is wanted while uapi_server_is_busy(). */
#define UAPI_SERVER_TICK_NS NS_PER_SEC

struct uapi_server;

/*
 * Accepts clients of listen_fd, of which it makes a descriptor of its own. loop and backend outlive the
 * server. -ENOMEM, -EMFILE.
 */
int uapi_server_new(struct uapi_server **out, struct event_loop *loop, const struct uapi_backend *backend,
	int listen_fd) MUST_CHECK;
/* Closes the clients. NULL is accepted. */
void uapi_server_free(struct uapi_server *s);
/* Does anything depend on the clock, so that uapi_server_tick() must come? */
bool uapi_server_is_busy(const struct uapi_server *s);
/* Closes clients that stall, and accepts again after a pause. now_ns: of park_clock_ns(). */
void uapi_server_tick(struct uapi_server *s, uint64_t now_ns);
/* Bytes of answers that clients have not read yet. */
size_t uapi_server_unread_bytes(const struct uapi_server *s);
