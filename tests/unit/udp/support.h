/*
 * What the tests of udp/ share. Every test is a process of its own, so the state behind these is one test's.
 */
#pragma once

#include "udp/gso_queue.h"
#include "udp/receive.h"

/* Seeds the generator, from SLUICE_SEED or the clock, and prints the seed. */
unsigned random_seed(void);
/* 0 .. below - 1 */
unsigned random_below(unsigned below);

struct endpoint endpoint_of(const char *text);

/*
 * A batch of nr datagrams of len bytes, the last of last_len, each filled by datagram_fill() with ids from id
 * on.
 */
struct udp_batch *batch_of(const char *to, unsigned nr, uint32_t len, uint32_t last_len, uint32_t id);
/* Frees all that batch_of() has made. */
void batches_free(void);
/* 4 or more bytes: the id, then a pattern that follows from it. */
void datagram_fill(uint8_t *data, uint32_t len, uint32_t id);
/* The id; fails the test when the pattern is not the one filled in. */
uint32_t datagram_check(const uint8_t *data, uint32_t len);

/* A receive batch in a pool of its own. */
struct udp_rx_batch *rx_batch_new(struct pool *pool);
/* Receives once something is there, or fails the test after two seconds. */
int receive_soon(struct udp_rx *rx, int fd, struct udp_rx_batch *batch);
/*
 * Moves the test into a network namespace with nothing but lo, of that MTU; skips it where that is not
 * allowed.
 */
void own_network(unsigned lo_mtu);
