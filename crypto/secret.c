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
#define __lsan_unregister_root_region(p, n) ((void)(p), (void)(n))
#endif

/*
 * Objects are carved off one chunk after the other and, once freed, kept on the list of their size class.
 * Chunks are never given back: what ten thousand peers needed once is there for the next ten thousand.
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
	int lock_error; /* of the first mlock() that failed */
} slab = {.lock = PTHREAD_MUTEX_INITIALIZER};

static unsigned size_class(size_t bytes, size_t *class_bytes);
static void *carve(size_t bytes);
static bool chunk_add(void);
static void *map_guarded(size_t bytes);
static size_t page_bytes(void);

int secret_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

void *secret_alloc(size_t bytes)
{
	size_t class_bytes;
	unsigned class;
	struct free_object *object;

	CHECK(bytes > 0);
	if (bytes > OBJECT_BYTES_MAX)
		return NULL;
	class = size_class(bytes, &class_bytes);

	pthread_mutex_lock(&slab.lock);
	object = slab.free[class];
	if (object) {
		ASAN_UNPOISON_MEMORY_REGION(object, class_bytes);
		slab.free[class] = object->next;
		object->next = NULL;
	} else {
		object = carve(class_bytes);
	}
	if (object)
		slab.in_use += bytes;
	pthread_mutex_unlock(&slab.lock);
	return object;
}

void secret_free(void *p, size_t bytes)
{
	size_t class_bytes;
	unsigned class;
	struct free_object *object = p;

	if (!p)
		return;
	CHECK(bytes > 0 && bytes <= OBJECT_BYTES_MAX);
	class = size_class(bytes, &class_bytes);
	secret_zero(p, bytes);

	pthread_mutex_lock(&slab.lock);
	object->next = slab.free[class];
	slab.free[class] = object;
	slab.in_use -= bytes;
	ASAN_POISON_MEMORY_REGION(object, class_bytes);
	pthread_mutex_unlock(&slab.lock);
}

void *secret_alloc_large(size_t bytes)
{
	void *p;

	if (bytes <= OBJECT_BYTES_MAX)
		return secret_alloc(bytes);
	if (bytes > SIZE_MAX / 2)
		return NULL;
	pthread_mutex_lock(&slab.lock);
	p = map_guarded(ALIGN_UP(bytes, page_bytes()));
	if (p) {
		slab.in_use += bytes;
		__lsan_register_root_region(p, bytes);
	}
	pthread_mutex_unlock(&slab.lock);
	return p;
}

void secret_free_large(void *p, size_t bytes)
{
	const size_t page = page_bytes();

	if (!p || bytes <= OBJECT_BYTES_MAX) {
		secret_free(p, bytes);
		return;
	}
	secret_zero(p, bytes);
	__lsan_unregister_root_region(p, bytes);
	munmap((uint8_t *)p - page, ALIGN_UP(bytes, page) + 2 * page);
	pthread_mutex_lock(&slab.lock);
	slab.in_use -= bytes;
	pthread_mutex_unlock(&slab.lock);
}

int secret_lock_error(void)
{
	int err;

	pthread_mutex_lock(&slab.lock);
	err = slab.lock_error;
	pthread_mutex_unlock(&slab.lock);
	return err;
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

/* The rest of the old chunk, too small for the object, is given up. */
static bool chunk_add(void)
{
	size_t bytes = ALIGN_UP((size_t)CHUNK_BYTES, page_bytes());
	uint8_t *chunk = map_guarded(bytes);

	if (!chunk)
		return false;
	ASAN_POISON_MEMORY_REGION(chunk, bytes);
	__lsan_register_root_region(chunk, bytes);
	slab.chunk = chunk;
	slab.chunk_room = bytes;
	return true;
}

/*
 * Maps zeroed memory between two pages that nobody may touch; bytes is a multiple of the page size. NULL
 * without memory. Under the lock.
 */
static void *map_guarded(size_t bytes)
{
	const size_t page = page_bytes();
	uint8_t *map = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *p;

	if (map == MAP_FAILED)
		return NULL;
	p = map + page;
	if (mprotect(p, bytes, PROT_READ | PROT_WRITE)) {
		munmap(map, bytes + 2 * page);
		return NULL;
	}
	IGNORE_RESULT("a second line: core dumps are off", madvise(p, bytes, MADV_DONTDUMP));
	IGNORE_RESULT("a second line: nothing forks once there are keys", madvise(p, bytes, MADV_WIPEONFORK));
	/* Locks pages as they are touched: of a large text only what is written takes memory. */
	if (mlock2(p, bytes, MLOCK_ONFAULT) && !slab.lock_error)
		slab.lock_error = -errno;
	return p;
}

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}
