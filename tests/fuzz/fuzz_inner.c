/*
 * Whatever a peer may seal, and whatever offload fields a packet may be read with: validation, the ICMP
 * answer, cutting, joining.
 *
 * The input is taken apart as: one byte of switches, 8 bytes of vnet header fields, then packets, each with
 * its length in two bytes before it.
 */
#include <linux/virtio_net.h>
#include <stdlib.h>

#include "tun/coalesce.h"
#include "tun/inner.h"
#include "tun/split.h"

#define PACKETS_MAX 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_packet(const uint8_t *data, uint32_t len, const struct train_packet *fields);
static void cut(const uint8_t *data, uint32_t len, const struct train_packet *fields);
static void require(bool condition);

/* Every byte of a frame is read, so that the sanitizer sees what does not belong to it. */
static void emit(void *arg, struct tun_frame *frame, unsigned packets)
{
	uint32_t *out = arg, len = 0;
	uint8_t sum = 0;

	for (uint32_t i = 1; i < frame->nr_iov; i++) {
		const uint8_t *p = frame->iov[i].iov_base;

		for (size_t k = 0; k < frame->iov[i].iov_len; k++)
			sum ^= p[k];
		len += (uint32_t)frame->iov[i].iov_len;
	}
	require(len == frame->len && frame->nr_iov == packets + 1);
	*out += packets + (sum & 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *packets[PACKETS_MAX];
	struct train_packet fields;
	unsigned nr = 0, offloads;
	uint32_t in = 0, out = 0;
	struct coalesce c;

	if (size < 9)
		return 0;
	offloads = data[0] & (TUN_CAN_TSO | TUN_CAN_USO);
	fields = (struct train_packet){
		.flags = data[1],
		.gso_type = data[2],
		.gso_size = load_be16(data + 3),
		.csum_start = load_be16(data + 5),
		.csum_offset = load_be16(data + 7),
	};
	data += 9;
	size -= 9;
	if (coalesce_init(&c, emit, &out))
		return 0;
	c.offloads = offloads;
	while (size >= 2 && nr < PACKETS_MAX) {
		const uint32_t len = (uint32_t)MIN((size_t)load_be16(data), size - 2);
		uint32_t ip_len;

		data += 2;
		one_packet(data, len, &fields);
		packets[nr] = malloc(len ? len : 1);
		if (!packets[nr])
			abort();
		memcpy(packets[nr], data, len);
		if (!inner_check(packets[nr], len, &ip_len)) {
			coalesce_add(&c, packets[nr], ip_len);
			in++;
		}
		nr++;
		data += len;
		size -= 2 + len;
	}
	coalesce_flush(&c);
	require(in == out);
	coalesce_done(&c);
	while (nr)
		free(packets[--nr]);
	return 0;
}

static void one_packet(const uint8_t *data, uint32_t len, const struct train_packet *fields)
{
	uint8_t *packet = malloc(len ? len : 1), answer[1280], second[1280];
	uint32_t ip_len, answer_len;
	uint8_t ecn;

	if (!packet)
		abort();
	memcpy(packet, data, len);
	if (!inner_check(packet, len, &ip_len)) {
		require(ip_len <= len);
		ecn = inner_ecn(packet);
		for (uint8_t outer = 0; outer < 4; outer++)
			if (inner_ecn_decapsulate(packet, outer))
				require(ecn == ECN_NOT_ECT && outer == ECN_CE);
		answer_len = inner_unreachable(packet, len, answer, sizeof(answer));
		if (answer_len) {
			require(!inner_check(answer, answer_len, &ip_len) && ip_len == answer_len);
			require(!inner_unreachable(answer, answer_len, second, sizeof(second)));
		}
	}
	free(packet);
	cut(data, len, fields);
}

static void cut(const uint8_t *data, uint32_t len, const struct train_packet *fields)
{
	uint8_t *packet = malloc(len + TRAIN_GAP);
	struct train_packet p = *fields;
	struct split_segment seg;
	struct split split;
	uint32_t nr = 0, longest = 0;

	if (!packet)
		abort();
	memcpy(packet, data, len);
	p.len = len;
	if (!split_begin(&split, packet, &p, 1420)) {
		while (split_next(&split, &seg)) {
			require(seg.data >= packet && seg.data + seg.padded_len <= packet + len + TRAIN_GAP);
			require(seg.len <= seg.padded_len && seg.len <= split.max_segment);
			longest = MAX(longest, seg.len);
			nr++;
		}
		require(nr == split.nr && longest == split.max_segment);
	}
	free(packet);
}

static void require(bool condition)
{
	if (!condition)
		abort();
}
