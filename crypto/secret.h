/*
 * Memory for keys: between guard pages, locked where the limits allow, left out of core dumps and of
 * children, zeroed when freed. A slab allocator over a few large mappings, so that ten thousand peers do not
 * cost ten thousand of them. Thread-safe (a mutex: handshake rate, never packet rate).
 */
#pragma once

#include "ring/base.h"

/* Start-up, before any other call and before threads. Initialises libsodium. -EIO. */
int secret_init(void) MUST_CHECK;
/* Zeroed memory of bytes (1 to 64 KiB), cache-line aligned. NULL without memory, or for more than that. */
void *secret_alloc(size_t bytes);
/* Zeroes and releases. NULL is accepted. */
void secret_free(void *p, size_t bytes);
/*
 * The same for whole texts and arrays that hold keys, of any size: what is too large for secret_alloc() gets
 * a mapping of its own. NULL without memory.
 */
void *secret_alloc_large(size_t bytes);
/* Zeroes and releases. NULL is accepted. */
void secret_free_large(void *p, size_t bytes);
/*
 * 0, or -errno of the first time that memory could not be locked (-ENOMEM, -EPERM, -EAGAIN: RLIMIT_MEMLOCK is
 * low). Such memory can reach the swap space; all else that is said above holds for it.
 */
int secret_lock_error(void);
/* Zeroes memory in a way that the compiler keeps. */
void secret_zero(void *p, size_t bytes);
/* Bytes handed out and not yet freed: leak checks. */
size_t secret_in_use(void);
