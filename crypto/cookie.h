/*
 * mac1, mac2 and cookie replies (WireGuard paper, section 5.4.7). There is one checker per interface and one
 * jar per peer. All of it belongs to the state holder. Times are boottime nanoseconds.
 */
#pragma once

#include "crypto/wire.h"

#define COOKIE_SECRET_MAX_AGE_NS (120 * NS_PER_SEC)
#define COOKIE_JAR_MAX_AGE_NS (115 * NS_PER_SEC)

struct cookie_checker {
	uint8_t mac1_key[32], cookie_key[32]; /* HASH(label || own public key) */
	uint8_t secret[32];
	uint64_t secret_born_ns; /* 0: none yet */
};

enum cookie_verdict {
	COOKIE_BAD_MAC1,
	COOKIE_MAC1_ONLY,  /* mac1 is valid; mac2 is not, or was not checked */
	COOKIE_MAC2_VALID, /* both are: the sender receives at its source address */
};

/* To be called whenever the interface's public key has changed. */
void cookie_checker_set_key(struct cookie_checker *c, const uint8_t own_public[32]);
/*
 * Checks the macs at the end of msg (len bytes), in constant time; mac2 only if check_mac2 is set. source is
 * the sender's address and port, to which a cookie is bound.
 */
enum cookie_verdict cookie_checker_verify(struct cookie_checker *c, const void *msg, size_t len,
	const uint8_t *source, size_t source_len, bool check_mac2, uint64_t now_ns);
/* Makes the cookie reply to msg (len bytes) from source; receiver is the sender index of msg. */
void cookie_reply_create(struct cookie_checker *c, struct wire_cookie *reply, const void *msg, size_t len,
	uint32_t receiver, const uint8_t *source, size_t source_len, uint64_t now_ns);

struct cookie_jar {
	uint8_t mac1_key[32], cookie_key[32]; /* of the peer's public key */
	uint8_t cookie[16];
	uint64_t cookie_born_ns; /* 0: none */
	uint8_t last_mac1[16];
	bool has_last_mac1;
};

void cookie_jar_init(struct cookie_jar *jar, const uint8_t peer_public[32]);
/*
 * Writes mac1 and mac2 at the end of msg; without a fresh cookie mac2 is zeros. Remembers mac1 for a reply.
 */
void cookie_jar_sign(struct cookie_jar *jar, void *msg, size_t len, uint64_t now_ns);
/*
 * Takes the cookie out of a reply to the message signed last. -EINVAL if that message has had its reply or
 * there is none; -EBADMSG if the reply does not authenticate against its mac1.
 */
int cookie_jar_consume(struct cookie_jar *jar, const struct wire_cookie *reply, uint64_t now_ns) MUST_CHECK;
