#include "core/client/stage.h"

#include "core/client/reading.h"

static const struct stage stages[] = {
	{METRICS_GROUP_TUN_RX, METRIC_TUN_READ_PACKETS, METRIC_TUN_READ_BYTES, METRIC_TUN_RX_TRAINS},
	{METRICS_GROUP_STATE, METRIC_EGRESS_SEGMENTS, METRIC_EGRESS_BYTES, METRIC_EGRESS_TRAINS},
	{METRICS_GROUP_UDP_TX, METRIC_UDP_TX_DATAGRAMS, METRIC_UDP_TX_BYTES, METRIC_UDP_TX_MESSAGES},
	{METRICS_GROUP_UDP_RX, METRIC_UDP_RX_DATAGRAMS, METRIC_UDP_RX_BYTES, METRIC_UDP_RX_MESSAGES},
	{METRICS_GROUP_TUN_TX, METRIC_INGRESS_PACKETS, METRIC_INGRESS_BYTES, METRIC_INGRESS_FRAMES},
};

const struct stage *stage_find(const char *thread)
{
	for (unsigned i = 0; i < ARRAY_LEN(stages); i++)
		if (reading_is_kind(thread, stages[i].kind))
			return &stages[i];
	return NULL;
}
