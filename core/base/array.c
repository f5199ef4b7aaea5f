#include "core/base/array.h"

#include <errno.h>
#include <stdlib.h>

#include "crypto/secret.h"

#define FIRST_CAPACITY 16u

int array_grow(void *array, unsigned *capacity, unsigned wanted, size_t item_bytes)
{
	void *items, *bigger;
	unsigned room;

	if (wanted <= *capacity)
		return 0;
	room = *capacity > UINT32_MAX / 2 ? wanted : MAX(2 * *capacity, FIRST_CAPACITY);
	room = MAX(room, wanted);
	/* By copying, not realloc(), which would leave the old bytes to the heap. */
	bigger = calloc(room, item_bytes);
	if (!bigger)
		return -ENOMEM;
	memcpy(&items, array, sizeof(items));
	if (items)
		memcpy(bigger, items, *capacity * item_bytes);
	array_free(items, *capacity, item_bytes);
	memcpy(array, &bigger, sizeof(bigger));
	*capacity = room;
	return 0;
}

void array_free(void *items, unsigned capacity, size_t item_bytes)
{
	if (items)
		secret_zero(items, capacity * item_bytes);
	free(items);
}
