#include "crypto/secret.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SECRET_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SECRET_ASAN 1
#endif
#endif
#ifdef SECRET_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
/* What only a secret points to is no leak. */
#define __lsan_register_root_region(p, n) ((void)(p), (void)(n))
#endif

/*
 * Objects are carved off one chunk after the other and, once freed, kept on the list of their size class.
 * Chunks are never given back: what ten thousand peers needed once is there for the next ten thousand.
 *
 * A multiple of the page size makes sodium_malloc() return a page boundary (it aligns the end), so that every
 * multiple of a cache line inside is aligned, and madvise() covers exactly the usable pages: libsodium's
 * canary lies in the page before, and must survive a fork.
 */
#define CHUNK_BYTES (256 * 1024)
#define OBJECT_BYTES_MAX (64 * 1024)

/* Four classes to a doubling, from one cache line up, waste a quarter at most. */
#define CLASSES_PER_DOUBLING 4
#define CLASSES_MAX 64

/* The first bytes of a freed object. The rest of it is zero. */
struct free_object {
	struct free_object *next;
};

static struct {
	pthread_mutex_t lock;
	/* all below: lock */
	struct free_object *free[CLASSES_MAX];
	uint8_t *chunk; /* where the next object is carved */
	size_t chunk_room;
	size_t in_use;
} slab = {.lock = PTHREAD_MUTEX_INITIALIZER};

static unsigned size_class(size_t bytes, size_t *class_bytes);
static void *carve(size_t bytes);
static bool chunk_add(void);

int secret_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

void *secret_alloc(size_t bytes)
{
	size_t class_bytes;
	unsigned class;
	struct free_object *object;

	assert(bytes > 0);
	if (bytes > OBJECT_BYTES_MAX)
		return NULL;
	class = size_class(bytes, &class_bytes);

	pthread_mutex_lock(&slab.lock);
	object = slab.free[class];
	if (object != NULL) {
		ASAN_UNPOISON_MEMORY_REGION(object, class_bytes);
		slab.free[class] = object->next;
		object->next = NULL;
	} else {
		object = carve(class_bytes);
	}
	if (object != NULL)
		slab.in_use += bytes;
	pthread_mutex_unlock(&slab.lock);
	return object;
}

void secret_free(void *p, size_t bytes)
{
	size_t class_bytes;
	unsigned class;
	struct free_object *object = p;

	if (p == NULL)
		return;
	assert(bytes > 0 && bytes <= OBJECT_BYTES_MAX);
	class = size_class(bytes, &class_bytes);
	secret_zero(p, bytes);

	pthread_mutex_lock(&slab.lock);
	object->next = slab.free[class];
	slab.free[class] = object;
	slab.in_use -= bytes;
	ASAN_POISON_MEMORY_REGION(object, class_bytes);
	pthread_mutex_unlock(&slab.lock);
}

void secret_zero(void *p, size_t bytes)
{
	sodium_memzero(p, bytes);
}

size_t secret_in_use(void)
{
	size_t in_use;

	pthread_mutex_lock(&slab.lock);
	in_use = slab.in_use;
	pthread_mutex_unlock(&slab.lock);
	return in_use;
}

static unsigned size_class(size_t bytes, size_t *class_bytes)
{
	size_t lines = (bytes + CACHE_LINE - 1) / CACHE_LINE;
	size_t step = 1;
	unsigned doublings = 0;

	/* 1..4 lines are classes of their own; above, steps of a quarter of the power of two below. */
	while (lines > 2 * CLASSES_PER_DOUBLING * step) {
		step *= 2;
		doublings++;
	}
	lines = ALIGN_UP(lines, step);
	*class_bytes = lines * CACHE_LINE;
	/* At step s the multiples are 5..8 (1..8 at the first). */
	return doublings * CLASSES_PER_DOUBLING + (unsigned)(lines / step);
}

static void *carve(size_t bytes)
{
	void *p;

	if (bytes > slab.chunk_room && !chunk_add())
		return NULL;
	p = slab.chunk;
	slab.chunk += bytes;
	slab.chunk_room -= bytes;
	ASAN_UNPOISON_MEMORY_REGION(p, bytes);
	return p;
}

/* What is left of the old chunk, less than one object, is given up. */
static bool chunk_add(void)
{
	size_t bytes = ALIGN_UP((size_t)CHUNK_BYTES, (size_t)sysconf(_SC_PAGESIZE));
	uint8_t *chunk = sodium_malloc(bytes); /* guard pages; mlock() as far as the limits allow */

	if (chunk == NULL)
		return false;
	memset(chunk, 0, bytes);
	/* Hardening on top: an old kernel that does not know these costs nothing else. */
	(void)madvise(chunk, bytes, MADV_DONTDUMP);
	(void)madvise(chunk, bytes, MADV_WIPEONFORK);
	ASAN_POISON_MEMORY_REGION(chunk, bytes);
	__lsan_register_root_region(chunk, bytes);
	slab.chunk = chunk;
	slab.chunk_room = bytes;
	return true;
}
