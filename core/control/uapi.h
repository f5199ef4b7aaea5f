/*
 * The WireGuard cross-platform userspace protocol (www.wireguard.com/xplatform), without the sockets: a
 * session takes the bytes of one client and makes the bytes of the answers. A request takes effect as a whole
 * when its last line has come, and not before.
 *
 * A request is lines of key=value ended by an empty line; the first line names the operation. Besides get=1
 * and set=1 there are two of our own:
 *
 *	stats=1            answers the public_key= of the interface, if it has one; then group=NAME lines, each
 *	                   followed by the NAME=VALUE lines of its counters, a histogram being a NAME.le_BOUND
 *	                   line for each bucket
 *	log=DIRECTIVES     changes the log levels (empty: leaves them) and answers log= with those in force
 *
 * Every answer ends in errno=N and an empty line; N is 0 or a negative errno, as wg(8) expects.
 *
 * Control thread. Requests and answers hold keys, so all of a session, its texts included, lies in guarded
 * memory (crypto/secret.h).
 */
#pragma once

#include "core/control/config.h"
#include "core/base/log.h"

#define UAPI_INPUT_BYTES 16384 /* the most that is read at once, and that waits while an answer goes out */
#define UAPI_LINE_MAX 1024     /* bytes of a line without its newline */
#define UAPI_REQUEST_MAX (UINT64_C(64) << 20) /* bytes of a request */

/*
 * A text that grows. When it cannot, it becomes empty and stays so until the answer has ended with -ENOMEM.
 */
struct uapi_text {
	char *data;
	size_t len, capacity;
	bool failed;
};

void uapi_text_add(struct uapi_text *text, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The line name=KEY, in hexadecimal. */
void uapi_text_add_key(struct uapi_text *text, const char *name, const uint8_t key[NOISE_KEY_BYTES]);

/* What the requests act on. Each function returns 0 or -errno, which becomes the errno of the answer. */
struct uapi_backend {
	int (*set)(void *ctx, struct config_set *set);
	int (*get)(void *ctx, struct config_snapshot *out); /* the session ends out */
	int (*stats)(void *ctx, struct uapi_text *out);     /* adds the lines of the answer, as log does */
	int (*log)(void *ctx, const char *directives, struct uapi_text *out);
	void *ctx;
};

struct uapi_session;

/* backend: not owned, outlives the session. -ENOMEM. */
int uapi_session_new(struct uapi_session **out, const struct uapi_backend *backend) MUST_CHECK;
/* A request that is not complete is forgotten. NULL is accepted. */
void uapi_session_free(struct uapi_session *s);

/*
 * Where the next bytes of the client may be written, *len of them. *len is 0 while an answer waits to be
 * sent, so that a client that sends and never reads costs one answer and no more.
 */
char *uapi_session_room(struct uapi_session *s, size_t *len);
/* len bytes were written there. Runs the requests that are complete, up to the first answer. */
void uapi_session_received(struct uapi_session *s, size_t len);
/* The bytes to be sent now, *len of them. */
const char *uapi_session_answer(const struct uapi_session *s, size_t *len);
/*
 * len bytes of the answer were sent. When all are, runs the requests that came meanwhile, up to the next
 * answer.
 */
void uapi_session_sent(struct uapi_session *s, size_t len);
/*
 * Did the client send a line or a request that is too long? Then the connection is to be closed after the
 * answer.
 */
bool uapi_session_broken(const struct uapi_session *s);
/* Has a request begun and not ended? */
bool uapi_session_in_request(const struct uapi_session *s);
