#include "core/base/drops.h"

static const char *const labels[DROP_REASON_COUNT] = {
#define X(name, label, text) [DROP_##name] = label,
	DROP_REASONS(X)
#undef X
};

static const char *const texts[DROP_REASON_COUNT] = {
#define X(name, label, text) [DROP_##name] = text,
	DROP_REASONS(X)
#undef X
};

const char *drop_label(enum drop_reason why)
{
	assert(why < DROP_REASON_COUNT);
	return labels[why];
}

const char *drop_text(enum drop_reason why)
{
	assert(why < DROP_REASON_COUNT);
	return texts[why];
}
