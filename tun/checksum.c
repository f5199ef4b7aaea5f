#include "tun/checksum.h"

#include "ring/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static bool always(void);
static uint64_t add_portable(uint64_t sum, const void *data, size_t len);
#if defined(__x86_64__)
static bool has_avx2(void);
static bool has_avx512(void);
static uint64_t add_avx2(uint64_t sum, const void *data, size_t len);
static uint64_t add_avx512(uint64_t sum, const void *data, size_t len);
#endif

/* Widest first. */
const struct checksum_impl checksum_impls[] = {
#if defined(__x86_64__)
	{"avx512", has_avx512, add_avx512},
	{"avx2", has_avx2, add_avx2},
#endif
	{"portable", always, add_portable},
	{NULL, NULL, NULL},
};

/* Written once, before main(). Until then the slowest, which is right on every CPU. */
static uint64_t (*best)(uint64_t sum, const void *data, size_t len) = add_portable;

uint64_t checksum_add(uint64_t sum, const void *data, size_t len)
{
	assert(len <= CHECKSUM_BYTES_MAX);
	return best(sum, data, len);
}

__attribute__((constructor)) static void choose(void)
{
	const struct checksum_impl *impl = checksum_impls;

	while (!impl->usable())
		impl++;
	best = impl->add;
}

static bool always(void)
{
	return true;
}

/* For what is too short for vectors: words of 64 bits, then one each of 32, 16 and 8 at most. */
static inline uint64_t add_short(uint64_t sum, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		sum += (v >> 32) + (uint32_t)v;
	}
	if (len & 4) {
		uint32_t v;

		memcpy(&v, p, sizeof(v));
		sum += v;
		p += sizeof(v);
	}
	if (len & 2) {
		uint16_t v;

		memcpy(&v, p, sizeof(v));
		sum += v;
		p += sizeof(v);
	}
	return len & 1 ? sum + htole16(*p) : sum;
}

/* 32-bit words into 64-bit accumulators: no carries to catch, and compilers make vector code of it. */
static uint64_t add_portable(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t even = 0, odd = 0;

	for (; len >= 8; p += 8, len -= 8) {
		uint32_t w[2];

		memcpy(w, p, sizeof(w));
		even += w[0];
		odd += w[1];
	}
	/* Folding first keeps the callers' sums far from 64 bits, however many pieces they add. */
	return add_short(sum + checksum_fold(even) + checksum_fold(odd), p, len);
}

#if defined(__x86_64__)

/*
 * vpmaddwd adds pairs of 16-bit words into 32-bit lanes in one instruction, but takes them as signed. So each
 * word goes in less 0x8000 (an exclusive-or) and the sum of these biases is added back at the end.
 */
#define BIAS 0x8000

static bool has_avx2(void)
{
	return cpu_may_use(CPU_AVX2);
}

static bool has_avx512(void)
{
	return cpu_may_use(CPU_AVX512);
}

__attribute__((target("avx2"))) static inline __m256i pairs_avx2(const uint8_t *p, __m256i bias, __m256i ones)
{
	return _mm256_madd_epi16(_mm256_xor_si256(_mm256_loadu_si256((const __m256i *)p), bias), ones);
}

/*
 * The len (even, below 32) bytes at p, with at least 32 bytes of the data before them. The load ends with
 * them, so it reads nothing past the end, and takes as zero the bytes before, which the sum has already. It
 * starts an even number of bytes from the data's start, so words remain words.
 */
__attribute__((target("avx2"))) static inline __m256i last_avx2(
	const uint8_t *p, size_t len, __m256i bias, __m256i ones)
{
	static const _Alignas(64) uint8_t masks[64] = {[32 ... 63] = 0xff};
	const __m256i mask = _mm256_loadu_si256((const __m256i *)(masks + len));
	const __m256i v = _mm256_loadu_si256((const __m256i *)(p + len - 32));

	return _mm256_madd_epi16(_mm256_xor_si256(_mm256_and_si256(v, mask), bias), ones);
}

__attribute__((target("avx2"))) static uint64_t add_avx2(uint64_t sum, const void *data, size_t len)
{
	const __m256i bias = _mm256_set1_epi16((short)BIAS);
	const __m256i ones = _mm256_set1_epi16(1);
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a, wide;
	const uint8_t *p = data;
	size_t blocks = len / 32;
	size_t i = blocks;
	__m128i half;

	if (!blocks)
		return add_short(sum, p, len);
	for (; i >= 4; i -= 4, p += 128) {
		a = _mm256_add_epi32(a, pairs_avx2(p, bias, ones));
		b = _mm256_add_epi32(b, pairs_avx2(p + 32, bias, ones));
		c = _mm256_add_epi32(c, pairs_avx2(p + 64, bias, ones));
		d = _mm256_add_epi32(d, pairs_avx2(p + 96, bias, ones));
	}
	for (; i; i--, p += 32)
		a = _mm256_add_epi32(a, pairs_avx2(p, bias, ones));
	if (len % 32) {
		b = _mm256_add_epi32(b, last_avx2(p, len % 32 & ~1u, bias, ones));
		blocks++;
		if (len & 1)
			sum += p[len % 32 - 1];
	}
	a = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
	wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(a)),
		_mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1)));
	half = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
	half = _mm_add_epi64(half, _mm_unpackhi_epi64(half, half));
	return sum + (uint64_t)(_mm_cvtsi128_si64(half) + (int64_t)(blocks * 16 * BIAS));
}

__attribute__((target("avx512bw,avx512vl"))) static inline __m512i pairs_avx512(
	const __m512i v, __m512i bias, __m512i ones)
{
	return _mm512_madd_epi16(_mm512_xor_si512(v, bias), ones);
}

__attribute__((target("avx512bw,avx512vl"))) static uint64_t add_avx512(
	uint64_t sum, const void *data, size_t len)
{
	const __m512i bias = _mm512_set1_epi16((short)BIAS);
	const __m512i ones = _mm512_set1_epi16(1);
	__m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
	const uint8_t *p = data;
	size_t blocks = len / 64;
	size_t i = blocks;
	int64_t biased;

	for (; i >= 4; i -= 4, p += 256) {
		a = _mm512_add_epi32(a, pairs_avx512(_mm512_loadu_si512(p), bias, ones));
		b = _mm512_add_epi32(b, pairs_avx512(_mm512_loadu_si512(p + 64), bias, ones));
		c = _mm512_add_epi32(c, pairs_avx512(_mm512_loadu_si512(p + 128), bias, ones));
		d = _mm512_add_epi32(d, pairs_avx512(_mm512_loadu_si512(p + 192), bias, ones));
	}
	for (; i; i--, p += 64)
		a = _mm512_add_epi32(a, pairs_avx512(_mm512_loadu_si512(p), bias, ones));
	if (len % 64) {
		/* The masked load reads nothing past the end and zero there, so this block counts in full. */
		const __mmask64 mask = (UINT64_C(1) << (len % 64)) - 1;

		b = _mm512_add_epi32(b, pairs_avx512(_mm512_maskz_loadu_epi8(mask, p), bias, ones));
		blocks++;
	}
	a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
	biased = _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(a)),
		_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1))));
	return sum + (uint64_t)(biased + (int64_t)(blocks * 32 * BIAS));
}

#endif
