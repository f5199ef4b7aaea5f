#include "crypto/cookie.h"

#include <errno.h>
#include <sodium.h>

#include "crypto/blake2s.h"
#include "crypto/secret.h"

#define COOKIE_BYTES 16

/* Where the macs of a handshake message of len bytes begin. */
#define MAC1_OFFSET(len) ((len)-2 * WIRE_MAC_BYTES)
#define MAC2_OFFSET(len) ((len)-WIRE_MAC_BYTES)

static void derive_keys(uint8_t mac1_key[32], uint8_t cookie_key[32], const uint8_t public_key[32]);
static void make_cookie(uint8_t cookie[COOKIE_BYTES], struct cookie_checker *c, const uint8_t *source,
	size_t source_len, uint64_t now_ns);
static bool is_fresh(uint64_t born_ns, uint64_t max_age_ns, uint64_t now_ns);
static uint64_t birth(uint64_t now_ns);

void cookie_checker_set_key(struct cookie_checker *c, const uint8_t own_public[32])
{
	derive_keys(c->mac1_key, c->cookie_key, own_public);
}

enum cookie_verdict cookie_checker_verify(struct cookie_checker *c, const void *msg, size_t len,
	const uint8_t *source, size_t source_len, bool check_mac2, uint64_t now_ns)
{
	const uint8_t *bytes = msg;
	uint8_t mac[WIRE_MAC_BYTES];
	uint8_t cookie[COOKIE_BYTES];

	CHECK(len >= 2 * WIRE_MAC_BYTES);
	blake2s_mac(mac, sizeof(mac), c->mac1_key, sizeof(c->mac1_key), bytes, MAC1_OFFSET(len));
	if (sodium_memcmp(mac, bytes + MAC1_OFFSET(len), sizeof(mac)) != 0)
		return COOKIE_BAD_MAC1;
	/* A cookie proves something only while the secret it was made from is fresh. */
	if (!check_mac2 || !is_fresh(c->secret_born_ns, COOKIE_SECRET_MAX_AGE_NS, now_ns))
		return COOKIE_MAC1_ONLY;

	make_cookie(cookie, c, source, source_len, now_ns);
	blake2s_mac(mac, sizeof(mac), cookie, sizeof(cookie), bytes, MAC2_OFFSET(len));
	secret_zero(cookie, sizeof(cookie));
	if (sodium_memcmp(mac, bytes + MAC2_OFFSET(len), sizeof(mac)) != 0)
		return COOKIE_MAC1_ONLY;
	return COOKIE_MAC2_VALID;
}

void cookie_reply_create(struct cookie_checker *c, struct wire_cookie *reply, const void *msg, size_t len,
	uint32_t receiver, const uint8_t *source, size_t source_len, uint64_t now_ns)
{
	const uint8_t *bytes = msg;
	uint8_t cookie[COOKIE_BYTES];

	CHECK(len >= 2 * WIRE_MAC_BYTES);
	make_cookie(cookie, c, source, source_len, now_ns);
	store_le32(&reply->type, WIRE_COOKIE);
	store_le32(&reply->receiver, receiver);
	randombytes_buf(reply->nonce, sizeof(reply->nonce));
	crypto_aead_xchacha20poly1305_ietf_encrypt(reply->cookie, NULL, cookie, sizeof(cookie),
		bytes + MAC1_OFFSET(len), WIRE_MAC_BYTES, NULL, reply->nonce, c->cookie_key);
	secret_zero(cookie, sizeof(cookie));
}

void cookie_jar_init(struct cookie_jar *jar, const uint8_t peer_public[32])
{
	memset(jar, 0, sizeof(*jar));
	derive_keys(jar->mac1_key, jar->cookie_key, peer_public);
}

void cookie_jar_sign(struct cookie_jar *jar, void *msg, size_t len, uint64_t now_ns)
{
	uint8_t *bytes = msg;

	CHECK(len >= 2 * WIRE_MAC_BYTES);
	blake2s_mac(bytes + MAC1_OFFSET(len), WIRE_MAC_BYTES, jar->mac1_key, sizeof(jar->mac1_key), bytes,
		MAC1_OFFSET(len));
	memcpy(jar->last_mac1, bytes + MAC1_OFFSET(len), sizeof(jar->last_mac1));
	jar->has_last_mac1 = true;

	if (is_fresh(jar->cookie_born_ns, COOKIE_JAR_MAX_AGE_NS, now_ns))
		blake2s_mac(bytes + MAC2_OFFSET(len), WIRE_MAC_BYTES, jar->cookie, sizeof(jar->cookie), bytes,
			MAC2_OFFSET(len));
	else
		memset(bytes + MAC2_OFFSET(len), 0, WIRE_MAC_BYTES);
}

int cookie_jar_consume(struct cookie_jar *jar, const struct wire_cookie *reply, uint64_t now_ns)
{
	uint8_t cookie[COOKIE_BYTES];

	if (!jar->has_last_mac1)
		return -EINVAL;
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(cookie, NULL, NULL, reply->cookie,
		    sizeof(reply->cookie), jar->last_mac1, sizeof(jar->last_mac1), reply->nonce,
		    jar->cookie_key) != 0)
		return -EBADMSG;
	memcpy(jar->cookie, cookie, sizeof(jar->cookie));
	secret_zero(cookie, sizeof(cookie));
	jar->cookie_born_ns = birth(now_ns);
	/* One reply per message: the same reply, replayed later, must not make an old cookie fresh again. */
	jar->has_last_mac1 = false;
	return 0;
}

static void derive_keys(uint8_t mac1_key[32], uint8_t cookie_key[32], const uint8_t public_key[32])
{
	static const char label_mac1[8] = "mac1----";
	static const char label_cookie[8] = "cookie--";

	blake2s_hash(mac1_key, label_mac1, sizeof(label_mac1), public_key, 32);
	blake2s_hash(cookie_key, label_cookie, sizeof(label_cookie), public_key, 32);
}

static void make_cookie(uint8_t cookie[COOKIE_BYTES], struct cookie_checker *c, const uint8_t *source,
	size_t source_len, uint64_t now_ns)
{
	if (!is_fresh(c->secret_born_ns, COOKIE_SECRET_MAX_AGE_NS, now_ns)) {
		randombytes_buf(c->secret, sizeof(c->secret));
		c->secret_born_ns = birth(now_ns);
	}
	blake2s_mac(cookie, COOKIE_BYTES, c->secret, sizeof(c->secret), source, source_len);
}

static bool is_fresh(uint64_t born_ns, uint64_t max_age_ns, uint64_t now_ns)
{
	return born_ns != 0 && now_ns < born_ns + max_age_ns;
}

/* 0 means "none", so a birth at clock value 0 counts as 1. */
static uint64_t birth(uint64_t now_ns)
{
	return MAX(now_ns, 1);
}
