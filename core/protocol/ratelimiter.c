#include "core/protocol/ratelimiter.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#define SLOTS (RATELIMITER_ENTRIES_MAX * 2)
#define COST_NS (NS_PER_SEC / RATELIMITER_PER_SECOND)
#define CREDIT_MAX_NS (COST_NS * RATELIMITER_BURST)
/* A source that was silent for this long has all its tokens again, so that forgetting it changes nothing. */
#define IDLE_NS NS_PER_SEC

_Static_assert(IDLE_NS >= CREDIT_MAX_NS, "a forgotten source must have a full bucket");
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "slots are masked");

struct ratelimiter_entry {
	uint64_t address; /* IPv4 address or the IPv6 /64 */
	uint64_t seen_ns; /* when credit was last topped up */
	uint32_t credit_ns;
	uint16_t family; /* 0: free slot */
};

static unsigned home_slot(const struct ratelimiter *r, uint64_t address, uint16_t family);
static void sweep(struct ratelimiter *r, uint64_t now_ns);
static void remove_slot(struct ratelimiter *r, unsigned hole);

int ratelimiter_init(struct ratelimiter *r)
{
	struct ratelimiter_entry *entries = calloc(SLOTS, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	*r = (struct ratelimiter){.entries = entries};
	_Static_assert(sizeof(r->key) == crypto_shorthash_KEYBYTES, "siphash key");
	randombytes_buf(r->key, sizeof(r->key));
	return 0;
}

void ratelimiter_done(struct ratelimiter *r)
{
	free(r->entries);
	r->entries = NULL;
}

bool ratelimiter_allow(struct ratelimiter *r, const struct endpoint *from, uint64_t now_ns)
{
	const uint16_t family = from->to.sa.sa_family;
	const uint64_t address =
		family == AF_INET ? from->to.v4.sin_addr.s_addr : load_be64(&from->to.v6.sin6_addr);
	struct ratelimiter_entry *e;

	if (now_ns - r->swept_ns >= IDLE_NS)
		sweep(r, now_ns);

	unsigned slot = home_slot(r, address, family);
	for (e = &r->entries[slot]; e->family; e = &r->entries[slot]) {
		if (e->address == address && e->family == family)
			break;
		slot = (slot + 1) % SLOTS;
	}
	if (!e->family) {
		if (r->nr >= RATELIMITER_ENTRIES_MAX)
			return false;
		r->nr++;
		*e = (struct ratelimiter_entry){.address = address,
			.family = family,
			.seen_ns = now_ns,
			.credit_ns = CREDIT_MAX_NS - COST_NS};
		return true;
	}

	e->credit_ns = (uint32_t)MIN(CREDIT_MAX_NS, e->credit_ns + (now_ns - e->seen_ns));
	e->seen_ns = now_ns;
	if (e->credit_ns < COST_NS)
		return false;
	e->credit_ns -= (uint32_t)COST_NS;
	return true;
}

static unsigned home_slot(const struct ratelimiter *r, uint64_t address, uint16_t family)
{
	uint8_t in[10], out[crypto_shorthash_BYTES];

	store_le64(in, address);
	memcpy(in + 8, &family, sizeof(family));
	crypto_shorthash(out, in, sizeof(in), r->key);
	return (unsigned)(load_le64(out) % SLOTS);
}

/* Forgets sources that are idle. One that a removal moves across the end of the table may be missed until the
 * next sweep. */
static void sweep(struct ratelimiter *r, uint64_t now_ns)
{
	r->swept_ns = now_ns;
	for (unsigned i = 0; r->nr && i < SLOTS; i++)
		while (r->entries[i].family && now_ns - r->entries[i].seen_ns >= IDLE_NS)
			remove_slot(r, i);
}

/* Under linear probing a free slot ends a search: whatever was pushed past this one moves back into it. */
static void remove_slot(struct ratelimiter *r, unsigned hole)
{
	for (unsigned i = (hole + 1) % SLOTS; r->entries[i].family; i = (i + 1) % SLOTS) {
		const unsigned home = home_slot(r, r->entries[i].address, r->entries[i].family);

		if ((i - home) % SLOTS >= (i - hole) % SLOTS) {
			r->entries[hole] = r->entries[i];
			hole = i;
		}
	}
	r->entries[hole].family = 0;
	r->nr--;
}
