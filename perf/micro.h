/*
 * Microbenchmarks: each stage of the data path alone, on inputs that are the same on every run and every
 * machine. perf/micro.py reads what the program prints. One thread, a registered QSBR reader.
 */
#pragma once

#include "ring/base.h"

#define STAGE_NAME_BYTES 48

struct stage;

struct stage_ops {
	/* Its data; NULL and the reason in *why when this machine cannot run it. Dies when memory runs out.
	 */
	void *(*setup)(const struct stage *stage, const char **why);
	/* Does what is to be measured once and compares the outcome with something simpler: a broken stage is
	 * not fast. Dies. */
	void (*check)(void *ctx);
	/* Makes the input of one turn() anew; not measured. NULL: turn() needs none. */
	void (*prepare)(void *ctx);
	/* What is measured. Returns how many packets came out as they should. */
	unsigned (*turn)(void *ctx);
	void (*done)(void *ctx);
};

struct stage {
	char name[STAGE_NAME_BYTES];
	const struct stage_ops *ops;
	const char *unit; /* what turn() counts: "packet", "item", ... */
	unsigned units;   /* of them in a turn */
	bool hot;         /* paid for by packets, not by handshakes or configuration */
	/* for setup() */
	const void *kind;
	unsigned n;
};

/* The stages of each layer, in packet order; they call micro_add(). */
void micro_ring_stages(void);
void micro_crypto_stages(void);
void micro_handshake_stages(void);
void micro_tun_stages(void);
void micro_udp_stages(void);
void micro_routing_stages(void);
void micro_path_stages(void);

/* Copies *stage. name is formatted. */
void micro_add(const struct stage *stage, const char *name, ...) PRINTF_LIKE(2, 3);

/* Ends the program and names the stage under way unless the condition holds; also in release builds. */
#define micro_require(condition)                                                                             \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			micro_die(__FILE__, __LINE__, #condition);                                           \
	} while (0)
void micro_die(const char *file, int line, const char *condition) __attribute__((noreturn));

/* Zeroed, aligned to a page, so that what a copy of it costs does not depend on where it happens to lie.
 * free() it. */
void *micro_alloc(size_t bytes);
