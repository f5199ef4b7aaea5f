#include "packets.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void build_ip(const struct packet_spec *s, uint8_t *out, uint32_t len);
static uint16_t pseudo(const struct packet_spec *s, uint32_t l4_len);

uint32_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 16);
}

uint32_t rnd_below(uint64_t *state, uint32_t n)
{
	return rnd(state) % n;
}

uint64_t rnd_seed(const char *test)
{
	const char *given = getenv("SLUICE_SEED");
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec;
	seed |= 1;
	printf("%s: SLUICE_SEED=%#llx\n", test, (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

uint16_t naive_sum(uint32_t sum, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? data[i] : data[i] * 256u;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

void packet_random(struct packet_spec *s, uint64_t *state)
{
	memset(s, 0, sizeof(*s));
	s->v6 = rnd_below(state, 2);
	s->udp = rnd_below(state, 2);
	for (unsigned i = 0; i < 16; i++) {
		s->src[i] = (uint8_t)rnd(state);
		s->dst[i] = (uint8_t)rnd(state);
	}
	s->tos = (uint8_t)rnd(state);
	s->ttl = (uint8_t)(1 + rnd_below(state, 255));
	s->flow_label = rnd(state) & 0xfffff;
	s->id = (uint16_t)rnd(state);
	s->df = rnd_below(state, 2);
	s->sport = (uint16_t)rnd(state);
	s->dport = (uint16_t)rnd(state);
	s->seq = rnd(state);
	s->ack = rnd(state);
	s->window = (uint16_t)rnd(state);
	s->flags = 0x10;
	if (!s->udp && rnd_below(state, 2)) {
		s->options_len = 4 * rnd_below(state, 11);
		for (unsigned i = 0; i < s->options_len; i++)
			s->options[i] = (uint8_t)rnd(state);
	}
}

uint32_t packet_l4_offset(const struct packet_spec *s)
{
	return (s->v6 ? 40 : 20) + s->extension_len;
}

uint32_t packet_header_len(const struct packet_spec *s)
{
	return packet_l4_offset(s) + (s->udp ? 8 : 20 + s->options_len);
}

uint32_t packet_build(
	const struct packet_spec *s, const uint8_t *payload, uint32_t payload_len, bool partial, uint8_t *out)
{
	const uint32_t header_len = packet_header_len(s), l4_offset = packet_l4_offset(s);
	const uint32_t len = header_len + payload_len;
	uint8_t *l4 = out + l4_offset;
	uint8_t *check = l4 + (s->udp ? 6 : 16);
	uint16_t sum = pseudo(s, len - l4_offset);

	memset(out, 0, header_len);
	build_ip(s, out, len);
	store_be16(l4, s->sport);
	store_be16(l4 + 2, s->dport);
	if (s->udp) {
		store_be16(l4 + 4, (uint16_t)(len - l4_offset));
	} else {
		store_be32(l4 + 4, s->seq);
		store_be32(l4 + 8, s->ack);
		l4[12] = (uint8_t)((20 + s->options_len) / 4 << 4);
		l4[13] = s->flags;
		store_be16(l4 + 14, s->window);
		memcpy(l4 + 20, s->options, s->options_len);
	}
	memcpy(out + header_len, payload, payload_len);
	if (!partial) {
		sum = (uint16_t)~naive_sum(sum, l4, len - l4_offset);
		if (s->udp && !sum)
			sum = 0xffff;
		if (s->udp && s->no_udp_checksum)
			sum = 0;
	}
	store_be16(check, sum);
	return len;
}

static void build_ip(const struct packet_spec *s, uint8_t *out, uint32_t len)
{
	const uint8_t proto = s->udp ? 17 : 6;

	if (s->v6) {
		store_be32(out, 0x60000000u | (uint32_t)s->tos << 20 | s->flow_label);
		store_be16(out + 4, (uint16_t)(len - 40));
		out[6] = s->extension_len ? 60 : proto;
		out[7] = s->ttl;
		memcpy(out + 8, s->src, 16);
		memcpy(out + 24, s->dst, 16);
		memcpy(out + 40, s->extension, s->extension_len);
		if (s->extension_len) {
			out[40] = proto;
			out[41] = (uint8_t)(s->extension_len / 8 - 1);
		}
		return;
	}
	out[0] = (uint8_t)(0x45 + s->extension_len / 4);
	out[1] = s->tos;
	store_be16(out + 2, (uint16_t)len);
	store_be16(out + 4, s->id);
	store_be16(out + 6, s->df ? 0x4000 : 0);
	out[8] = s->ttl;
	out[9] = proto;
	memcpy(out + 12, s->src, 4);
	memcpy(out + 16, s->dst, 4);
	memcpy(out + 20, s->extension, s->extension_len);
	store_be16(out + 10, (uint16_t)~naive_sum(0, out, 20 + s->extension_len));
}

static uint16_t pseudo(const struct packet_spec *s, uint32_t l4_len)
{
	const size_t bytes = s->v6 ? 16 : 4;
	uint8_t rest[4];

	store_be16(rest, s->udp ? 17 : 6);
	store_be16(rest + 2, (uint16_t)l4_len);
	return naive_sum(naive_sum(naive_sum(0, s->src, bytes), s->dst, bytes), rest, sizeof(rest));
}

uint32_t packet_segment(const struct packet_spec *super, const uint8_t *payload, uint32_t payload_len,
	uint32_t gso_size, uint32_t i, uint8_t *out)
{
	const uint32_t at = i * gso_size;
	const bool last = at + gso_size >= payload_len;
	struct packet_spec s = *super;

	s.id = (uint16_t)(s.id + i);
	s.seq += at;
	if (i)
		s.flags &= 0x7f;
	if (!last)
		s.flags &= 0xf6;
	return packet_build(&s, payload + at, last ? payload_len - at : gso_size, false, out);
}

uint32_t packet_parse(struct packet_spec *s, const uint8_t *packet)
{
	const uint8_t *l4;

	memset(s, 0, sizeof(*s));
	s->v6 = packet[0] >> 4 == 6;
	l4 = packet + (s->v6 ? 40 : 20);
	if (s->v6) {
		s->tos = (uint8_t)(load_be16(packet) >> 4);
		s->flow_label = load_be32(packet) & 0xfffff;
		s->udp = packet[6] == 17;
		s->ttl = packet[7];
		memcpy(s->src, packet + 8, 16);
		memcpy(s->dst, packet + 24, 16);
	} else {
		s->tos = packet[1];
		s->id = load_be16(packet + 4);
		s->df = load_be16(packet + 6) == 0x4000;
		s->ttl = packet[8];
		s->udp = packet[9] == 17;
		memcpy(s->src, packet + 12, 4);
		memcpy(s->dst, packet + 16, 4);
	}
	s->sport = load_be16(l4);
	s->dport = load_be16(l4 + 2);
	if (!s->udp) {
		s->seq = load_be32(l4 + 4);
		s->ack = load_be32(l4 + 8);
		s->options_len = (l4[12] >> 4) * 4u - 20;
		s->flags = l4[13];
		s->window = load_be16(l4 + 14);
		memcpy(s->options, l4 + 20, s->options_len);
	}
	return packet_header_len(s);
}
