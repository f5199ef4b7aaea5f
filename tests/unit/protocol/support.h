/* What the tests of core's state share: two devices and a wire that the test holds in its hands. */
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/protocol/device.h"
#include "core/protocol/egress.h"
#include "core/protocol/handshake.h"
#include "crypto/secret.h"
#include "tests/sim/node.h"

#define SECONDS(n) ((uint64_t)((n)*1e9))

#define ADDRESS_A "192.0.2.1:1001"
#define ADDRESS_B "192.0.2.2:1002"

/* Two nodes, peers of each other and up, on one clock. */
struct pair {
	struct node *a, *b;
	struct peer *pb, *pa; /* a's peer b, b's peer a */
	uint64_t now_ns;
	bool cut;           /* everything is lost on the way */
	unsigned passed[5]; /* datagrams by type that reached the other end */
};

/* From now on what these directives let through is logged into a pipe. */
void log_capture(const char *directives);
/* What has been logged since the last call. */
const char *log_captured(void);

/* Each test is a process: seeds all random numbers, prints the seed, makes this thread an RCU reader. */
void state_init(void);

void pair_init(struct pair *p);
void pair_done(struct pair *p);
/* Carries datagrams both ways until none is left. Takes microseconds. */
void pair_exchange(struct pair *p);
/* Lets time pass, timers fire when they are due, and datagrams arrive at once. */
void pair_run(struct pair *p, uint64_t ns);
/* Only the clock of both, and no timers: for what is due together. */
void pair_skip(struct pair *p, uint64_t ns);
/* A packet of a local sender at a for b, and the other way round. */
void pair_send_ab(struct pair *p, uint64_t id);
void pair_send_ba(struct pair *p, uint64_t id);
/* Completes a handshake started by a. */
void pair_connect(struct pair *p);
/* How many packets came out of node's TUN since the last call; *last_id, if not NULL, is that of the last
 * one. */
unsigned delivered(struct node *node, uint64_t *last_id);
/* Takes what node has sent; fails unless it is exactly one datagram of that type. The caller frees it. */
struct datagram *expect_sent(struct node *node, enum wire_type type);
/* Fails unless node has sent nothing. */
void expect_silence(struct node *node);
/* Throws away what node has sent and returns how many datagrams of that type there were. */
unsigned discard_sent(struct node *node, enum wire_type type);
