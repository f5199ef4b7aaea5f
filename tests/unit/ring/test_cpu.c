#include "ring/cpu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const names[CPU_ISA_NR] = {"sse", "avx", "avx2", "avx512"};

/* Whether the kernel lists a flag of the CPU, and with that has switched its registers on. */
static bool kernel_says(const char *flag)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	bool found = false;
	char line[8192];

	cr_assert(f);
	while (!found && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "flags", 5) != 0)
			continue;
		for (char *word = strtok(line, " \t\n"); word && !found; word = strtok(NULL, " \t\n"))
			found = strcmp(word, flag) == 0;
		break;
	}
	fclose(f);
	return found;
}

Test(cpu, names_are_read_and_nothing_else)
{
	static const char *const bad[] = {"", "AVX2", "avx ", " avx", "avx5", "avx5122", "sse2", "none"};
	enum cpu_isa isa = CPU_AVX;

	for (unsigned i = 0; i < CPU_ISA_NR; i++) {
		cr_assert_eq(cpu_isa_parse(&isa, names[i]), 0);
		cr_assert_eq(isa, i);
	}
	isa = CPU_AVX;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		cr_assert_eq(cpu_isa_parse(&isa, bad[i]), -EINVAL, "accepted: \"%s\"", bad[i]);
		cr_assert_eq(isa, CPU_AVX, "written although refused");
	}
}

/* Runs in every limit that tests/run sets, and against what another one than us has found out. */
Test(cpu, what_may_be_used_is_what_the_kernel_names_up_to_the_limit)
{
	static const char *const flags[CPU_ISA_NR] = {"sse2", "avx", "avx2", "avx512vl"};
	const char *limit = getenv(CPU_ENVIRONMENT);
	bool below = true;

	for (unsigned i = 0; i < CPU_ISA_NR; i++) {
		cr_assert_eq(cpu_may_use((enum cpu_isa)i), below && kernel_says(flags[i]), "%s", names[i]);
		if (limit && strcmp(limit, names[i]) == 0)
			below = false;
	}
}

Test(cpu, change_of_the_environment_comes_too_late)
{
	bool before[CPU_ISA_NR];

	for (unsigned i = 0; i < CPU_ISA_NR; i++)
		before[i] = cpu_may_use((enum cpu_isa)i);
	cr_assert_eq(setenv(CPU_ENVIRONMENT, before[CPU_AVX] ? "sse" : "avx512", 1), 0);
	for (unsigned i = 0; i < CPU_ISA_NR; i++)
		cr_assert_eq(cpu_may_use((enum cpu_isa)i), before[i], "%s", names[i]);
}
