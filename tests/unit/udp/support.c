#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;
static struct udp_batch *made[1024];
static unsigned nr_made;

unsigned random_seed(void)
{
	const char *given = getenv("SLUICE_SEED");
	unsigned seed =
		given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL) ^ (unsigned)getpid() << 16;

	random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	fprintf(stderr, "seed %u (repeat with SLUICE_SEED=%u)\n", seed, seed);
	return seed;
}

unsigned random_below(unsigned below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)((random_state >> 32) % below);
}

struct endpoint endpoint_of(const char *text)
{
	struct endpoint e;

	cr_assert_eq(endpoint_parse(&e, text), 0, "%s", text);
	return e;
}

struct udp_batch *batch_of(const char *to, unsigned nr, uint32_t len, uint32_t last_len, uint32_t id)
{
	struct udp_batch *batch = aligned_alloc(CACHE_LINE, sizeof(*batch));

	cr_assert_not_null(batch);
	cr_assert_lt(nr_made, ARRAY_LEN(made));
	made[nr_made++] = batch;
	/* As from a pool: whatever was there before. */
	memset(batch, 0xa5, sizeof(*batch));
	batch->endpoint = endpoint_of(to);
	batch->tos = 0;
	batch->segment_len = (uint16_t)(nr == 1 ? last_len : len);
	batch->nr = (uint16_t)nr;
	batch->len = (nr - 1) * len + last_len;
	batch->sealed = true;
	batch->next = NULL;
	cr_assert_leq(batch->len, sizeof(batch->data));
	for (unsigned i = 0; i < nr; i++)
		datagram_fill(batch->data + i * len, i == nr - 1 ? last_len : len, id + i);
	return batch;
}

void batches_free(void)
{
	while (nr_made)
		free(made[--nr_made]);
}

void datagram_fill(uint8_t *data, uint32_t len, uint32_t id)
{
	cr_assert_geq(len, 4);
	store_le32(data, id);
	for (uint32_t i = 4; i < len; i++)
		data[i] = (uint8_t)(id * 31 + i);
}

uint32_t datagram_check(const uint8_t *data, uint32_t len)
{
	uint32_t id;

	cr_assert_geq(len, 4);
	id = load_le32(data);
	for (uint32_t i = 4; i < len; i++)
		if (data[i] != (uint8_t)(id * 31 + i))
			cr_assert_fail("datagram %u differs at byte %u of %u", id, i, len);
	return id;
}

struct udp_rx_batch *rx_batch_new(struct pool *pool)
{
	struct udp_rx_batch *batch;

	cr_assert_eq(pool_init(pool, 1, sizeof(*batch), NULL), 0);
	batch = pool_get(pool);
	cr_assert_not_null(batch);
	memset(batch->msg, 0xa5, sizeof(batch->msg));
	return batch;
}

int receive_soon(struct udp_rx *rx, int fd, struct udp_rx_batch *batch)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	cr_assert_eq(poll(&p, 1, 2000), 1, "nothing arrived");
	return udp_receive(rx, fd, batch);
}

void own_network(unsigned lo_mtu)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		cr_skip_test("no network namespace of its own: %s", strerror(errno));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_geq(fd, 0);
	request.ifr_mtu = (int)lo_mtu;
	cr_assert_eq(ioctl(fd, SIOCSIFMTU, &request), 0);
	request.ifr_flags = IFF_UP | IFF_LOOPBACK;
	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	close(fd);
}
