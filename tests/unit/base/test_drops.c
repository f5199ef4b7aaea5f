#include <ctype.h>

#include <criterion/criterion.h>

#include "core/base/metrics.h"

/* The metrics of the reasons follow one another as the reasons do. */
static const char *drop_label(enum drop_reason why)
{
	return metric_info((enum metric)(METRIC_DROP_EGRESS_MALFORMED + why))->name;
}

Test(drops, every_reason_has_a_label_and_a_text_of_its_own)
{
	for (unsigned i = 0; i < DROP_REASON_COUNT; i++) {
		const char *label = drop_label((enum drop_reason)i);

		cr_assert(
			label && *label && drop_text((enum drop_reason)i) && *drop_text((enum drop_reason)i));
		for (const char *c = label; *c; c++)
			cr_assert(islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_', "%s",
				label);
		for (unsigned j = 0; j < i; j++)
			cr_assert_str_neq(label, drop_label((enum drop_reason)j));
	}
}
