#include "udp/endpoint.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <net/if.h>

#include "support.h"

Test(endpoint, parses_ipv4)
{
	struct endpoint e = endpoint_of("1.2.3.4:51820");

	cr_assert_eq(e.to.v4.sin_family, AF_INET);
	cr_assert_eq(ntohl(e.to.v4.sin_addr.s_addr), 0x01020304);
	cr_assert_eq(ntohs(e.to.v4.sin_port), 51820);
	cr_assert_not(endpoint_is_pinned(&e));
}

Test(endpoint, parses_ipv6_without_scope)
{
	struct endpoint e = endpoint_of("[2001:db8::1]:65535");
	struct in6_addr want;

	inet_pton(AF_INET6, "2001:db8::1", &want);
	cr_assert_eq(e.to.v6.sin6_family, AF_INET6);
	cr_assert_arr_eq(&e.to.v6.sin6_addr, &want, sizeof(want));
	cr_assert_eq(ntohs(e.to.v6.sin6_port), 65535);
	cr_assert_eq(e.to.v6.sin6_scope_id, 0);
	cr_assert_eq(e.to.v6.sin6_flowinfo, 0);
}

Test(endpoint, parses_scope_as_number_and_as_name)
{
	struct endpoint number = endpoint_of("[fe80::1%7]:1"), name = endpoint_of("[fe80::1%lo]:1");

	cr_assert_eq(number.to.v6.sin6_scope_id, 7);
	cr_assert_eq(name.to.v6.sin6_scope_id, if_nametoindex("lo"));
}

Test(endpoint, accepts_port_0_and_v4_mapped_as_the_kernel_driver_does)
{
	struct endpoint zero = endpoint_of("192.0.2.1:0"), mapped = endpoint_of("[::ffff:192.0.2.1]:5");

	cr_assert_eq(zero.to.v4.sin_port, 0);
	cr_assert_eq(mapped.to.sa.sa_family, AF_INET6);
}

Test(endpoint, refuses_malformed_text_and_writes_nothing)
{
	static const char *const bad[] = {
		"",
		":",
		"[",
		"]",
		"[]",
		"[]:",
		"[]:1",
		":1",
		"1.2.3.4",
		"1.2.3.4:",
		"1.2.3.4:65536",
		"1.2.3.4:-1",
		"1.2.3.4:+1",
		"1.2.3.4: 1",
		"1.2.3.4:1 ",
		"1.2.3.4:1x",
		"1.2.3:1",
		"1.2.3.4.5:1",
		"256.1.1.1:1",
		"example.org:1",
		"::1:1",
		"[::1]",
		"[::1]1",
		"[::1]:",
		"[::1]:65536",
		"[::1]:99999999999999999999",
		"[::1",
		"[1.2.3.4]:1",
		"[fe80::1%]:1",
		"[fe80::1%nosuchdevice]:1",
		"[fe80::1%2147483648]:1",
		"[%1]:1",
		"[::1%1%2]:1",
		" 1.2.3.4:1",
		"1.2.3.4%1:1",
		"[::g]:1",
		"[0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0%aaaaaaaaaaaaaaaaaaaaa]:1",
		"1111111111111111111111111111111111111111111111111111111111111111111111111111111111111:1",
	};
	struct endpoint before, e;

	memset(&before, 0x5a, sizeof(before));
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		e = before;
		cr_assert_eq(endpoint_parse(&e, bad[i]), -EINVAL, "accepted \"%s\"", bad[i]);
		cr_assert_arr_eq(&e, &before, sizeof(e));
	}
}

Test(endpoint, formats_what_it_parses)
{
	static const char *const texts[] = {
		"1.2.3.4:51820",
		"255.255.255.255:65535",
		"0.0.0.0:0",
		"[::1]:1",
		"[fe80::1%3]:51820",
		"[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
		"[::ffff:1.2.3.4]:9",
		"[fe80:1111:2222:3333:4444:5555:6666:7777%2147483647]:65535",
	};
	char buf[ENDPOINT_STRLEN];

	for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
		struct endpoint e = endpoint_of(texts[i]);

		cr_assert_str_eq(endpoint_format(&e, buf), texts[i]);
	}
	cr_assert_str_eq(endpoint_format(&(struct endpoint){0}, buf), "(none)");
}

Test(endpoint, compares_destination_and_pin_and_nothing_else)
{
	struct endpoint a = endpoint_of("1.2.3.4:5"), b = a, c = endpoint_of("[fe80::1%3]:5"), d = c;

	/* Bytes of the other family's members, and the flow label, mean nothing. */
	memset((uint8_t *)&b.to + sizeof(b.to.v4), 0xff, sizeof(b.to) - sizeof(b.to.v4));
	memset(b.to.v4.sin_zero, 0xff, sizeof(b.to.v4.sin_zero));
	d.to.v6.sin6_flowinfo = 77;
	cr_assert(endpoint_equal(&a, &b));
	cr_assert(endpoint_equal(&c, &d));
	cr_assert_not(endpoint_same_to(&a, &c));

	b.from.v4.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert(endpoint_same_to(&a, &b));
	cr_assert_not(endpoint_equal(&a, &b));
	cr_assert(endpoint_is_pinned(&b));
	endpoint_clear_source(&b);
	cr_assert(endpoint_equal(&a, &b));
	cr_assert_not(endpoint_is_pinned(&b));

	d.from.v6.s6_addr[15] = 1;
	cr_assert(endpoint_same_to(&c, &d));
	cr_assert_not(endpoint_equal(&c, &d));
	d = c;
	d.from_ifindex = 2;
	cr_assert_not(endpoint_equal(&c, &d));

	/* Where packets come in is no part of where they are sent. */
	d = c;
	d.arrival_ifindex = 2;
	cr_assert(endpoint_equal(&c, &d));
	cr_assert_not(endpoint_same_arrival(&c, &d));
	cr_assert_not(endpoint_is_pinned(&d));
	endpoint_clear_source(&d);
	cr_assert(endpoint_same_arrival(&c, &d));

	for (unsigned i = 0; i < 3; i++) {
		static const char *const other4[] = {"1.2.3.5:5", "1.2.3.4:6", "1.2.4.4:5"};
		static const char *const other6[] = {"[fe80::2%3]:5", "[fe80::1%4]:5", "[fe80::1%3]:6"};
		struct endpoint e4 = endpoint_of(other4[i]), e6 = endpoint_of(other6[i]);

		cr_assert_not(endpoint_same_to(&a, &e4), "%s", other4[i]);
		cr_assert_not(endpoint_same_to(&c, &e6), "%s", other6[i]);
	}
}

Test(endpoint, gives_address_and_big_endian_port_to_the_cookie)
{
	static const uint8_t want4[] = {1, 2, 3, 4, 0xca, 0x6c};
	static const uint8_t want6[] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xca, 0x6c};
	struct endpoint e4 = endpoint_of("1.2.3.4:51820"), e6 = endpoint_of("[2001:db8::1]:51820");
	uint8_t buf[18];

	cr_assert_eq(endpoint_cookie_bytes(&e4, buf), sizeof(want4));
	cr_assert_arr_eq(buf, want4, sizeof(want4));
	cr_assert_eq(endpoint_cookie_bytes(&e6, buf), sizeof(want6));
	cr_assert_arr_eq(buf, want6, sizeof(want6));
}
