/*
 * Arrays that grow as items come: the pointer to the items, their number and the capacity are fields of
 * whoever owns them. Memory that is left behind is zeroed. Any thread; no state.
 */
#pragma once

#include "ring/base.h"

/*
 * Room for wanted items or more. array: address of the pointer to the items, NULL for none yet. Capacity at
 * least doubles, so that adding items one by one costs each of them a constant time; what is new is zero. On
 * failure everything stays as it is: -ENOMEM.
 */
int array_grow(void *array, unsigned *capacity, unsigned wanted, size_t item_bytes) MUST_CHECK;
/* Zeroes and frees the items. NULL is accepted. */
void array_free(void *items, unsigned capacity, size_t item_bytes);

/* The same in guarded memory (crypto/secret.h), for items that do hold keys. */
int array_grow_secret(void *array, unsigned *capacity, unsigned wanted, size_t item_bytes) MUST_CHECK;
void array_free_secret(void *items, unsigned capacity, size_t item_bytes);
