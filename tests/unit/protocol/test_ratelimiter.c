#include <arpa/inet.h>

#include "core/protocol/ratelimiter.h"
#include "tests/unit/protocol/support.h"

static struct endpoint v4(uint32_t address, uint16_t port)
{
	struct endpoint e = {.to.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};

	e.to.v4.sin_addr.s_addr = htonl(address);
	return e;
}

static struct endpoint v6(const char *text)
{
	struct endpoint e = {.to.v6 = {.sin6_family = AF_INET6}};

	cr_assert_eq(inet_pton(AF_INET6, text, &e.to.v6.sin6_addr), 1);
	return e;
}

static unsigned allowed_of(struct ratelimiter *r, const struct endpoint *e, unsigned tries, uint64_t now_ns)
{
	unsigned n = 0;

	for (unsigned i = 0; i < tries; i++)
		n += ratelimiter_allow(r, e, now_ns);
	return n;
}

static struct ratelimiter limiter;

static void init(void)
{
	state_init();
	cr_assert_eq(ratelimiter_init(&limiter), 0);
}

static void done(void)
{
	ratelimiter_done(&limiter);
}

TestSuite(ratelimiter, .init = init, .fini = done);

Test(ratelimiter, allows_a_burst_of_five_then_twenty_a_second)
{
	const struct endpoint e = v4(0x01020304, 5);
	uint64_t now_ns = SECONDS(1000);

	cr_assert_eq(allowed_of(&limiter, &e, 100, now_ns), 5);
	/* Ten seconds of a try a millisecond. */
	unsigned n = 0;
	for (unsigned ms = 1; ms <= 10000; ms++)
		n += ratelimiter_allow(&limiter, &e, now_ns + ms * NS_PER_MS);
	cr_assert_eq(n, 200);
}

Test(ratelimiter, refills_no_more_than_the_burst)
{
	const struct endpoint e = v4(0x01020304, 5);

	cr_assert_eq(allowed_of(&limiter, &e, 100, SECONDS(1000)), 5);
	cr_assert_eq(allowed_of(&limiter, &e, 100, SECONDS(1100)), 5);
}

Test(ratelimiter, counts_an_ipv4_address_with_all_its_ports_and_no_other)
{
	struct endpoint e = v4(0x01020304, 5);

	cr_assert_eq(allowed_of(&limiter, &e, 5, SECONDS(1000)), 5);
	e = v4(0x01020304, 6);
	cr_assert_eq(allowed_of(&limiter, &e, 5, SECONDS(1000)), 0);
	e = v4(0x01020305, 5);
	cr_assert_eq(allowed_of(&limiter, &e, 5, SECONDS(1000)), 5);
}

Test(ratelimiter, counts_an_ipv6_network_of_64_bits_as_one)
{
	struct endpoint e = v6("2001:db8:0:1::1");

	cr_assert_eq(allowed_of(&limiter, &e, 5, SECONDS(1000)), 5);
	e = v6("2001:db8:0:1:ffff::2");
	cr_assert_eq(allowed_of(&limiter, &e, 5, SECONDS(1000)), 0);
	e = v6("2001:db8:0:2::1");
	cr_assert_eq(allowed_of(&limiter, &e, 5, SECONDS(1000)), 5);
}

Test(ratelimiter, full_table_refuses_new_sources_keeps_old_ones_and_empties_when_idle)
{
	struct endpoint e;

	for (uint32_t i = 0; i < RATELIMITER_ENTRIES_MAX; i++) {
		e = v4(i + 1, 1);
		cr_assert(ratelimiter_allow(&limiter, &e, SECONDS(1000)));
	}
	e = v4(0xffffff00, 1);
	cr_assert(!ratelimiter_allow(&limiter, &e, SECONDS(1000.5)));
	e = v4(77, 1);
	cr_assert(ratelimiter_allow(&limiter, &e, SECONDS(1000.5)));
	/* All but the last one were silent for a second. */
	e = v4(0xffffff00, 1);
	cr_assert(ratelimiter_allow(&limiter, &e, SECONDS(1001)));
	cr_assert_eq(limiter.nr, 2);
}

/* Against a plain array with one bucket for each source, on random traffic that makes entries come, collide
 * and go. */
Test(ratelimiter, agrees_with_one_bucket_for_each_source)
{
	enum { SOURCES = 9000 };
	static struct {
		double tokens;
		uint64_t seen_ns;
	} model[SOURCES];
	uint64_t now_ns = SECONDS(1000);
	unsigned refused = 0;

	for (unsigned i = 0; i < 400000; i++) {
		/* A few busy sources and many that come rarely. */
		const unsigned s = (unsigned)(random_below(2) ? random_below(15) : random_below(SOURCES));
		const struct endpoint e = v4(s * 2654435761u, 9);
		uint64_t tokens_ns = 0;

		now_ns += random_below(2 * NS_PER_MS);
		tokens_ns = model[s].seen_ns ? now_ns - model[s].seen_ns : SECONDS(1);
		model[s].tokens += (double)tokens_ns * RATELIMITER_PER_SECOND / 1e9;
		if (model[s].tokens > RATELIMITER_BURST)
			model[s].tokens = RATELIMITER_BURST;
		model[s].seen_ns = now_ns;
		/* Within rounding of a whole token the two may differ; they do not drift. */
		const double tokens = model[s].tokens;
		const bool allowed = ratelimiter_allow(&limiter, &e, now_ns);
		if (tokens >= 1.0001)
			cr_assert(allowed, "source %u has %f tokens", s, tokens);
		else if (tokens < 0.9999)
			cr_assert(!allowed, "source %u has %f tokens", s, tokens);
		if (allowed)
			model[s].tokens -= 1;
		refused += !allowed;
		cr_assert_leq(limiter.nr, RATELIMITER_ENTRIES_MAX);
	}
	cr_assert_gt(refused, 1000);
}
