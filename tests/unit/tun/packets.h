/*
 * Packets for tests, made and cut byte by byte, with nothing of the code under test: the naive model that
 * split and coalesce are compared against.
 */
#pragma once

#include "ring/base.h"

#define PACKET_MAX (65535 + 16)

struct packet_spec {
	bool v6, udp;
	uint8_t src[16], dst[16]; /* IPv4: the first 4 */
	uint8_t tos, ttl;
	uint32_t flow_label;
	uint16_t id;
	bool df;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint16_t window;
	uint8_t flags;
	uint8_t options[40]; /* TCP */
	uint32_t options_len;
	uint8_t extension[40]; /* IPv4 options or an IPv6 destination options header */
	uint32_t extension_len;
	bool no_udp_checksum;
};

/* xorshift; *state is not 0. */
uint32_t rnd(uint64_t *state);
uint32_t rnd_below(uint64_t *state, uint32_t n);
/* A seed for this run, from the clock or SLUICE_SEED, printed with the test's name. */
uint64_t rnd_seed(const char *test);

/* RFC 1071, one 16-bit word after the other. Not complemented; host order. */
uint16_t naive_sum(uint32_t sum, const uint8_t *data, size_t len);

/* Random but sensible: addresses, ports, options; ACK only. */
void packet_random(struct packet_spec *s, uint64_t *state);
uint32_t packet_header_len(const struct packet_spec *s);
uint32_t packet_l4_offset(const struct packet_spec *s);
/* With checksums; partial: only the pseudo-header's sum in the TCP/UDP checksum field. Returns the length. */
uint32_t packet_build(const struct packet_spec *s, const uint8_t *payload, uint32_t payload_len, bool partial,
	uint8_t *out);
/* Segment i (of nr) of a super-packet of this spec, as a kernel without offloads would have sent it. */
uint32_t packet_segment(const struct packet_spec *super, const uint8_t *payload, uint32_t payload_len,
	uint32_t gso_size, uint32_t i, uint8_t *out);
/* The inverse of packet_build(), without IP options and extension headers. Returns the header length. */
uint32_t packet_parse(struct packet_spec *s, const uint8_t *packet);
