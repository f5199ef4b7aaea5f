/*
 * Cuts one TSO/USO super-packet (or passes one plain packet), as read from TUN, into wire-ready segments
 * without copying payload.
 *
 * The header of segment i is written into the bytes just before its payload, which is the tail of segment i -
 * 1; the caller must have sealed segment i - 1 by then. Padding bytes behind a segment are zeroed in place
 * for the time that segment is current and restored when the next is asked for. So exactly one segment is
 * valid at a time, in order.
 */
#pragma once

#include "ring/base.h"
#include "ring/train.h"

#define SPLIT_HEADERS_MAX 160 /* longest IP + TCP header accepted: IPv6 extension headers, TCP options */

struct split {
	uint8_t *packet;
	uint32_t len;        /* trimmed to the IP total length */
	uint32_t header_len; /* IP + TCP/UDP header; 0 for a plain packet */
	uint32_t gso_size;
	uint32_t nr;          /* segments in all */
	uint32_t i;           /* segments handed out */
	uint32_t mtu;         /* padding never passes it */
	uint32_t max_segment; /* IP bytes of the longest (every but the last) segment, unpadded */
	uint8_t template[SPLIT_HEADERS_MAX]; /* headers as read, the fields that differ by segment zeroed */
	uint8_t saved[16];                   /* bytes under the padding of the current segment */
	uint32_t saved_len;
	uint8_t *saved_at;
	/* parsed once by split_begin() */
	uint8_t ip_version, l4_proto;
	uint8_t l4_offset;
	uint8_t tcp_flags; /* of the super-packet */
	uint8_t flags;     /* VIRTIO_NET_HDR_F_* of the packet as read */
	uint16_t ip_id;    /* IPv4: of the first segment */
	uint16_t csum_start, csum_offset;
	uint32_t tcp_seq; /* of the first segment */
	uint64_t ip_sum;  /* IPv4: sum of the header template */
	uint64_t l4_sum;  /* sum of pseudo-header and TCP/UDP header template */
};

struct split_segment {
	uint8_t *data;       /* IP packet, writable, in the train */
	uint32_t len;        /* IP bytes */
	uint32_t padded_len; /* len rounded up to 16, not past max(mtu, len); the bytes between are zero */
};

/*
 * Validates the packet of p->len bytes (IP header, L4 header, gso fields: hdr_len of the kernel is not
 * trusted) and prepares for cutting. p->offset is not looked at: packet need not lie in a train, but
 * TRAIN_GAP writable bytes must follow it. It stays the caller's, and in use until the last segment is done
 * with. -EINVAL if malformed. nr and max_segment are valid afterwards.
 */
int split_begin(struct split *s, uint8_t *packet, const struct train_packet *p, uint32_t mtu) MUST_CHECK;
/*
 * The next segment, complete with lengths, IPv4 id and checksum, TCP sequence and flags, and L4 checksum.
 * false at the end.
 */
bool split_next(struct split *s, struct split_segment *seg);
