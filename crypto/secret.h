/*
 * Memory for keys: guarded pages, locked where the limits allow, left out of core dumps and of children,
 * zeroed when freed. A slab allocator over libsodium's guarded allocations, so that ten thousand peers do not
 * cost ten thousand mappings. Thread-safe (a mutex: handshake rate, never packet rate).
 */
#pragma once

#include "ring/base.h"

/* Start-up, before any other call and before threads. Initialises libsodium. -EIO. */
int secret_init(void) MUST_CHECK;
/* Zeroed memory of bytes (1 to 64 KiB), cache-line aligned. NULL without memory, or for more than that. */
void *secret_alloc(size_t bytes);
/* Zeroes and releases. NULL is accepted. */
void secret_free(void *p, size_t bytes);
/* Zeroes memory in a way that the compiler keeps. */
void secret_zero(void *p, size_t bytes);
/* Bytes handed out and not yet freed: leak checks. */
size_t secret_in_use(void);
