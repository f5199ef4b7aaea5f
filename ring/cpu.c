#include "ring/cpu.h"

#include <errno.h>
#include <stdlib.h>

static bool cpu_has(enum cpu_isa isa);

/* Written before main() and before any constructor that chooses an implementation; only read after that. */
static bool usable[CPU_ISA_NR];

bool cpu_may_use(enum cpu_isa isa)
{
	return usable[isa];
}

int cpu_isa_parse(enum cpu_isa *out, const char *text)
{
	static const char *const names[CPU_ISA_NR] = {"sse", "avx", "avx2", "avx512"};

	for (unsigned i = 0; i < CPU_ISA_NR; i++)
		if (strcmp(text, names[i]) == 0) {
			*out = (enum cpu_isa)i;
			return 0;
		}
	return -EINVAL;
}

/* 101 is the first priority that programs may use; constructors without one come after it. */
__attribute__((constructor(101))) static void look(void)
{
	const char *text = getenv(CPU_ENVIRONMENT);
	enum cpu_isa limit = CPU_ISA_NR - 1;

	/*
	 * A constructor cannot report an error. A wrong value means the least, until options_parse() refuses
	 * it.
	 */
	if (text && cpu_isa_parse(&limit, text))
		limit = CPU_SSE;
	for (unsigned i = 0; i <= limit; i++)
		usable[i] = cpu_has((enum cpu_isa)i);
}

#if defined(__x86_64__)

/* The builtins also know whether the kernel saves the registers. */
static bool cpu_has(enum cpu_isa isa)
{
	__builtin_cpu_init(); /* its own constructor may come after ours */
	switch (isa) {
	case CPU_SSE:
		return true;
	case CPU_AVX:
		return __builtin_cpu_supports("avx");
	case CPU_AVX2:
		return __builtin_cpu_supports("avx2");
	case CPU_AVX512: /* what every server CPU with AVX-512 since Skylake has */
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
		       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512vl");
	default:
		return false;
	}
}

#else

static bool cpu_has(enum cpu_isa isa)
{
	return false;
}

#endif
