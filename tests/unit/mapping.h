/* What the kernel says of a mapping of this process. */
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>

#include "ring/base.h"

/* Has the mapping that holds p this flag (with a space before it, as in " dd") among its VmFlags? */
static inline bool mapping_has_flag(const void *p, const char *flag)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[1024];
	bool inside = false, has = false;

	cr_assert(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = (uintptr_t)p >= from && (uintptr_t)p < to;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			has = strstr(line, flag);
	}
	fclose(smaps);
	return has;
}
