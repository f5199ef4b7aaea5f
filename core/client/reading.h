/*
 * What a running sluice answered to stats=1 and get=1 at one moment, as `sluice stats` works with it. Two
 * readings give rates. No keys but public ones are kept. One thread.
 */
#pragma once

#include "core/base/metrics.h"
#include "udp/endpoint.h"

#define READING_KEY_BYTES 45 /* base64 of 32 bytes with its zero byte, as wg(8) shows it */

struct reading_counter {
	char *name; /* of a histogram's bucket: "NAME.le_BOUND" */
	uint64_t value;
};

/* A thread; or "drops", or "process". */
struct reading_group {
	char name[METRICS_GROUP_BYTES];
	struct reading_counter *counters; /* in order of first appearance */
	unsigned nr, capacity;
};

struct reading_peer {
	char public_key[READING_KEY_BYTES];
	char endpoint[ENDPOINT_STRLEN]; /* empty: none */
	uint64_t handshake_s;           /* Unix time of the last one; 0: never */
	uint64_t rx_bytes, tx_bytes;
	uint64_t keepalive_s; /* 0: off */
	char **allowed_ips;
	unsigned nr_allowed_ips, allowed_ips_capacity;
};

/* CPU time of the whole machine, in ticks since it started. */
struct reading_machine {
	uint64_t busy, total;
	unsigned cpus; /* 0: not known */
};

struct reading {
	char public_key[READING_KEY_BYTES]; /* of the interface; empty: it has none, or does not say */
	struct reading_group *groups;       /* in order of first appearance */
	unsigned nr_groups, groups_capacity;
	unsigned current; /* group of the next counter */
	struct reading_peer *peers;
	unsigned nr_peers, peers_capacity;
	struct reading_machine machine;
};

/* A zeroed struct reading is empty. Frees what is inside and leaves it empty. */
void reading_done(struct reading *r);
/*
 * One line of the answer to stats=1, or to get=1; arg is the struct reading. Equal names in a group are added
 * up. -ENOMEM, -EPROTO for a line that cannot be.
 */
int reading_take_counter(void *arg, const char *key, const char *value) MUST_CHECK;
int reading_take_peer(void *arg, const char *key, const char *value) MUST_CHECK;

/* NULL, 0 for what is not there. */
const struct reading_group *reading_group(const struct reading *r, const char *group);
uint64_t reading_value(const struct reading *r, const char *group, enum metric metric);
uint64_t reading_value_named(const struct reading *r, const char *group, const char *name);
/* Does the answer have it? One of another version may not. */
bool reading_has(const struct reading *r, const char *group, enum metric metric);
/* How much the value grew; 0 if it is smaller now, or was not there before. */
uint64_t reading_grown(
	const struct reading *before, const struct reading *after, const char *group, enum metric metric);
uint64_t reading_grown_named(
	const struct reading *before, const struct reading *after, const char *group, const char *name);
/* Seconds between the two, by the clock of the process read; above 0. */
double reading_seconds(const struct reading *before, const struct reading *after);
/* Is the group a thread? One that the table does not know, of another version, is. */
bool reading_is_thread(const struct reading_group *group);
/* "state" is of the kind METRICS_GROUP_STATE, "tun-rx0" and "tun-rx1" of METRICS_GROUP_TUN_RX. */
bool reading_is_kind(const char *group, enum metrics_group kind);
/* Is it a bucket? Then *len is the length of the histogram's name and *bound points to "64" or "inf". */
bool reading_is_bucket(const char *name, size_t *len, const char **bound);
/* Seconds since this Unix time; 0 for one that is to come. */
uint64_t reading_age_s(uint64_t unix_s);
/* The number; UINT64_MAX of "inf". */
uint64_t reading_bound(const char *bound);
