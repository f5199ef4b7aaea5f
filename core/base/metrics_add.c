/* Registration of what lies in base/ and in the layers below it, which know nothing of metrics. */
#include "core/base/metrics.h"

#include <time.h>

static uint64_t read_clock(const void *id);
static uint64_t read_channel_len(const void *channel);
static uint64_t read_channel_capacity(const void *channel);
static uint64_t read_pool_in_use(const void *pool);
static uint64_t read_pool_count(const void *pool);

METRICS_DEFINE_ADD(metrics_add_park, struct park_counters, METRICS_PARK)
METRICS_DEFINE_ADD(metrics_add_gso_queue, struct gso_queue_counters, METRICS_GSO_QUEUE)
METRICS_DEFINE_ADD(metrics_add_tun_write, struct tun_write_counters, METRICS_TUN_WRITE)
static METRICS_DEFINE_ADD(add_queue_counters, struct channel_counters, METRICS_QUEUE)
static METRICS_DEFINE_ADD(add_drops, struct drops, METRICS_DROP_REASONS)
static METRICS_DEFINE_ADD(add_tun_read, struct tun_read_counters, METRICS_TUN_READ)
static METRICS_DEFINE_ADD(add_udp_tx, struct udp_tx_counters, METRICS_UDP_TX_SOCKET)
static METRICS_DEFINE_ADD(add_udp_rx, struct udp_rx_counters, METRICS_UDP_RX_SOCKET_COUNTERS)
static METRICS_DEFINE_ADD_SOME(add_udp_tx_drops, struct udp_tx_counters, METRICS_UDP_TX_DROPS)
static METRICS_DEFINE_ADD_SOME(add_udp_rx_drops, struct udp_rx_counters, METRICS_UDP_RX_DROPS)
static METRICS_DEFINE_ADD_SOME(add_tun_read_drops, struct tun_read_counters, METRICS_TUN_READ_DROPS)

void metrics_add_queue(
	struct metrics *m, enum metrics_group group, unsigned index, const struct channel *queue)
{
	add_queue_counters(m, group, index, &queue->counters);
	metrics_add_read(m, group, index, METRIC_QUEUE_LEN, read_channel_len, queue);
	metrics_add_read(m, group, index, METRIC_QUEUE_CAPACITY, read_channel_capacity, queue);
}

void metrics_add_pool(struct metrics *m, enum metrics_group group, unsigned index, enum metric in_use,
	enum metric capacity, const struct pool *pool)
{
	metrics_add_read(m, group, index, in_use, read_pool_in_use, pool);
	metrics_add_read(m, group, index, capacity, read_pool_count, pool);
}

void metrics_add_tun_read(
	struct metrics *m, enum metrics_group group, unsigned index, const struct tun_read_counters *counters)
{
	add_tun_read(m, group, index, counters);
	add_tun_read_drops(m, METRICS_GROUP_DROPS, 0, counters);
}

void metrics_add_udp_tx(
	struct metrics *m, enum metrics_group group, unsigned index, const struct udp_tx_counters *counters)
{
	add_udp_tx(m, group, index, counters);
	add_udp_tx_drops(m, METRICS_GROUP_DROPS, 0, counters);
}

void metrics_add_udp_rx(
	struct metrics *m, enum metrics_group group, unsigned index, const struct udp_rx_counters *counters)
{
	add_udp_rx(m, group, index, counters);
	add_udp_rx_drops(m, METRICS_GROUP_DROPS, 0, counters);
}

void metrics_add_drops(struct metrics *m, const struct drops *drops)
{
	add_drops(m, METRICS_GROUP_DROPS, 0, drops);
}

void metrics_add_process(struct metrics *m)
{
	static const clockid_t monotonic = CLOCK_MONOTONIC, process = CLOCK_PROCESS_CPUTIME_ID,
			       this_thread = CLOCK_THREAD_CPUTIME_ID;

	metrics_add_read(m, METRICS_GROUP_PROCESS, 0, METRIC_TIME_NS, read_clock, &monotonic);
	metrics_add_read(m, METRICS_GROUP_PROCESS, 0, METRIC_CPU_NS, read_clock, &process);
	/* The control thread is the one that reads. */
	metrics_add_read(m, METRICS_GROUP_CONTROL, 0, METRIC_CPU_NS, read_clock, &this_thread);
}

static uint64_t read_clock(const void *id)
{
	struct timespec time;

	if (clock_gettime(*(const clockid_t *)id, &time))
		return 0;
	return (uint64_t)time.tv_sec * NS_PER_SEC + (uint64_t)time.tv_nsec;
}

static uint64_t read_channel_len(const void *channel)
{
	return channel_len(channel);
}

static uint64_t read_channel_capacity(const void *channel)
{
	return ((const struct channel *)channel)->capacity;
}

static uint64_t read_pool_in_use(const void *pool)
{
	return pool_in_use(pool);
}

static uint64_t read_pool_count(const void *pool)
{
	return ((const struct pool *)pool)->count;
}
