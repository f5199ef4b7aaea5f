/* Every way to drop a packet: its enumerator, its label in counters and logs, and what it means. */
#pragma once

#include "ring/base.h"

#define DROP_REASONS(X)                                                                                      \
	X(EGRESS_MALFORMED, "egress_malformed",                                                              \
		"packet read from TUN is not valid IP or has bad offload fields")                            \
	X(EGRESS_TOO_LONG, "egress_too_long", "sealed, the packet would not fit a UDP datagram")             \
	X(EGRESS_NO_PEER, "egress_no_peer", "destination is in no peer's allowed IPs")                       \
	X(EGRESS_NO_ENDPOINT, "egress_no_endpoint", "peer has no known endpoint")                            \
	X(EGRESS_STAGED_OVERFLOW, "egress_staged_overflow",                                                  \
		"queue before a handshake is full, oldest dropped")                                          \
	X(EGRESS_STAGED_EXPIRED, "egress_staged_expired",                                                    \
		"handshake given up, peer removed or interface down")                                        \
	X(EGRESS_DOWN, "egress_down", "interface is down")                                                   \
	X(EGRESS_STOPPING, "egress_stopping", "shutting down")                                               \
	X(INGRESS_UNKNOWN_TYPE, "ingress_unknown_type", "datagram is no WireGuard message")                  \
	X(INGRESS_UNKNOWN_INDEX, "ingress_unknown_index", "no session has this receiver index")              \
	X(INGRESS_CHANNEL_FULL, "ingress_channel_full", "tun-tx thread is behind")                           \
	X(INGRESS_NO_BUFFER, "ingress_no_buffer", "all receive buffers are in use")                          \
	X(INGRESS_HANDSHAKE_QUEUE_FULL, "ingress_handshake_queue_full", "4096 handshake messages wait")      \
	X(INGRESS_EXPIRED, "ingress_expired", "session is older than REJECT_AFTER_TIME or retired")          \
	X(INGRESS_BAD_TAG, "ingress_bad_tag", "data message does not authenticate")                          \
	X(INGRESS_REPLAY, "ingress_replay", "counter seen before or too old")                                \
	X(INGRESS_BAD_INNER, "ingress_bad_inner", "decrypted packet is not valid IP")                        \
	X(INGRESS_NOT_ALLOWED, "ingress_not_allowed", "inner source is not in this peer's allowed IPs")      \
	X(INGRESS_ECN, "ingress_ecn", "outer congestion mark on a packet that cannot carry it (RFC 6040)")   \
	X(INGRESS_DOWN, "ingress_down", "interface is down")                                                 \
	X(INGRESS_TUN_ERROR, "ingress_tun_error", "writing to TUN failed")                                   \
	X(HANDSHAKE_BAD_MAC1, "handshake_bad_mac1", "mac1 does not match: not for us, answered by silence")  \
	X(HANDSHAKE_UNDER_LOAD, "handshake_under_load", "answered with a cookie reply")                      \
	X(HANDSHAKE_RATE_LIMITED, "handshake_rate_limited", "source sends too many handshakes")              \
	X(HANDSHAKE_UNKNOWN_PEER, "handshake_unknown_peer", "initiation from a key that is no peer")         \
	X(HANDSHAKE_BAD_CRYPTO, "handshake_bad_crypto", "handshake message does not authenticate")           \
	X(HANDSHAKE_REPLAY, "handshake_replay", "timestamp not newer than the last accepted")                \
	X(HANDSHAKE_FLOOD, "handshake_flood", "initiation within 20 ms of the last from this peer")          \
	X(HANDSHAKE_UNEXPECTED, "handshake_unexpected",                                                      \
		"response or cookie reply that answers nothing of ours")                                     \
	X(HANDSHAKE_DOWN, "handshake_down", "interface is down or has no private key")

enum drop_reason {
#define X(name, label, text) DROP_##name,
	DROP_REASONS(X)
#undef X
		DROP_REASON_COUNT
};

/* One per thread: single writer. */
struct drops {
	counter_t by_reason[DROP_REASON_COUNT];
};

static inline void drop(struct drops *d, enum drop_reason why, uint64_t packets)
{
	counter_add(&d->by_reason[why], packets);
}

/* drops.c */
const char *drop_label(enum drop_reason why);
const char *drop_text(enum drop_reason why);
