#include "crypto/aead.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "crypto/aead_backends.h"

/*
 * One measurement seals trains like those of the egress path. The best of a few rounds counts, so a round
 * that was preempted does not.
 */
#define MEASURE_SEGMENTS 48
#define MEASURE_SEGMENT_BYTES 1280
#define MEASURE_ROUNDS 3
#define MEASURE_ROUND_NS (1 * NS_PER_MS)

/* src and dst lie apart, as in the egress path. */
struct measure_source {
	struct aead_seal_source source;
	uint8_t *src, *dst;
	unsigned i;
};

static double measure(const struct aead_backend *backend, uint8_t *memory);
static bool measure_next(struct aead_seal_source *source, struct aead_seal_seg *seg);
static uint64_t clock_ns(void);

const struct aead_backend *const aead_backends[AEAD_BACKENDS_MAX + 1] = {
#ifdef HAVE_IPSEC_MB
	&aead_ipsec_mb,
#endif
#ifdef HAVE_LIBCRYPTO
	&aead_libcrypto,
#endif
	&aead_libsodium,
};

const struct aead_backend *aead_find(const char *name)
{
	for (unsigned i = 0; aead_backends[i]; i++)
		if (strcmp(aead_backends[i]->name, name) == 0)
			return aead_backends[i];
	return NULL;
}

const struct aead_backend *aead_fastest(struct aead_result *results, unsigned *nr_results)
{
	const struct aead_backend *fastest = &aead_libsodium;
	double fastest_rate = 0;
	/* Plain segments, then sealed ones; each has a cache line more, with room for the tag. */
	uint8_t *memory = calloc(2 * MEASURE_SEGMENTS, MEASURE_SEGMENT_BYTES + CACHE_LINE);
	unsigned nr = 0;

	for (; aead_backends[nr]; nr++) {
		double rate = memory ? measure(aead_backends[nr], memory) : 0;

		if (rate > fastest_rate) {
			fastest = aead_backends[nr];
			fastest_rate = rate;
		}
		if (results)
			results[nr] = (struct aead_result){aead_backends[nr]->name, rate};
	}
	if (nr_results)
		*nr_results = nr;
	free(memory);
	return fastest;
}

void aead_free(struct aead *aead)
{
	if (aead)
		aead->free(aead);
}

/* Bytes per second; 0 if the backend cannot be used. */
static double measure(const struct aead_backend *backend, uint8_t *memory)
{
	static const uint8_t key[AEAD_KEY_BYTES];
	size_t half = MEASURE_SEGMENTS * (MEASURE_SEGMENT_BYTES + CACHE_LINE);
	double best = 0;
	int err;
	struct aead *aead = backend->create(&err);

	if (!aead)
		return 0;
	for (unsigned round = 0; round < MEASURE_ROUNDS; round++) {
		uint64_t start = clock_ns(), elapsed;
		uint64_t segments = 0;

		do {
			struct measure_source source = {{measure_next}, memory, memory + half, 0};

			segments += aead->seal_train(aead, key, segments, &source.source);
			elapsed = clock_ns() - start;
		} while (elapsed < MEASURE_ROUND_NS);
		best = MAX(best, (double)segments * MEASURE_SEGMENT_BYTES * NS_PER_SEC / (double)elapsed);
	}
	aead_free(aead);
	return best;
}

static bool measure_next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct measure_source *m = CONTAINER_OF(source, struct measure_source, source);
	size_t offset = m->i * (MEASURE_SEGMENT_BYTES + CACHE_LINE);

	if (m->i == MEASURE_SEGMENTS)
		return false;
	*seg = (struct aead_seal_seg){m->dst + offset, m->src + offset, MEASURE_SEGMENT_BYTES};
	m->i++;
	return true;
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	/* CPU time of this thread: on a busy machine the wall clock would also count what others do. */
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}
