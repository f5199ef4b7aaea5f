#include "core/base/drops.h"

static const char *const texts[DROP_REASON_COUNT] = {
#define TEXT(a, id, field, label, kind, unit, writer, help, text) [id] = text,
	METRICS_DROP_REASONS(TEXT, )};

const char *drop_text(enum drop_reason why)
{
	CHECK(why < DROP_REASON_COUNT);
	return texts[why];
}
