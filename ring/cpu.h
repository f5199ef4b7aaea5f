/*
 * Which vector instructions may be used: those that the CPU and the kernel have, up to the limit that the
 * user sets with the environment variable SLUICE_CPU. All code that chooses between implementations asks
 * here, and so do its tests. Libraries that detect the CPU themselves (libcrypto, libsodium) do not.
 */
#pragma once

#include "ring/base.h"

#define CPU_ENVIRONMENT "SLUICE_CPU"

/* Each one includes those before it. CPU_SSE stands for what every x86-64 CPU has. */
enum cpu_isa { CPU_SSE, CPU_AVX, CPU_AVX2, CPU_AVX512, CPU_ISA_NR };

/* Whether code for isa may run. The answer never changes. For start-up, not for each packet. Any thread. */
bool cpu_may_use(enum cpu_isa isa);

/*
 * Reads a value of SLUICE_CPU: "sse", "avx", "avx2" or "avx512". -EINVAL for any other text. The result does
 * not depend on the CPU.
 */
int cpu_isa_parse(enum cpu_isa *out, const char *text) MUST_CHECK;
