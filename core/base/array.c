#include "core/base/array.h"

#include <errno.h>
#include <stdlib.h>

#include "crypto/secret.h"

#define FIRST_CAPACITY 16u

struct allocator {
	void *(*alloc)(size_t bytes); /* zeroed */
	void (*free)(void *items, unsigned nr, size_t item_bytes);
};

static int grow(const struct allocator *allocator, void *array, unsigned *capacity, unsigned wanted,
	size_t item_bytes);
static void *alloc_plain(size_t bytes);

int array_grow(void *array, unsigned *capacity, unsigned wanted, size_t item_bytes)
{
	static const struct allocator plain = {alloc_plain, array_free};

	return grow(&plain, array, capacity, wanted, item_bytes);
}

void array_free(void *items, unsigned capacity, size_t item_bytes)
{
	if (items)
		secret_zero(items, capacity * item_bytes);
	free(items);
}

int array_grow_secret(void *array, unsigned *capacity, unsigned wanted, size_t item_bytes)
{
	static const struct allocator secret = {secret_alloc_large, array_free_secret};

	return grow(&secret, array, capacity, wanted, item_bytes);
}

void array_free_secret(void *items, unsigned capacity, size_t item_bytes)
{
	secret_free_large(items, capacity * item_bytes);
}

static int grow(const struct allocator *allocator, void *array, unsigned *capacity, unsigned wanted,
	size_t item_bytes)
{
	void *items, *bigger;
	size_t bytes;
	unsigned room;

	if (wanted <= *capacity)
		return 0;
	room = *capacity > UINT32_MAX / 2 ? wanted : MAX(2 * *capacity, FIRST_CAPACITY);
	room = MAX(room, wanted);
	/* By copying, not realloc(), which would leave the old bytes to the heap. */
	bigger = __builtin_mul_overflow(room, item_bytes, &bytes) ? NULL : allocator->alloc(bytes);
	if (!bigger)
		return -ENOMEM;
	memcpy(&items, array, sizeof(items));
	if (items)
		memcpy(bigger, items, *capacity * item_bytes);
	allocator->free(items, *capacity, item_bytes);
	memcpy(array, &bigger, sizeof(bigger));
	*capacity = room;
	return 0;
}

static void *alloc_plain(size_t bytes)
{
	return calloc(1, bytes);
}
