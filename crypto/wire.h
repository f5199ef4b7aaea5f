/*
 * The four WireGuard messages as they lie on the wire (WireGuard paper, section 5.4). All integers
 * little-endian.
 */
#pragma once

#include "ring/base.h"

enum wire_type {
	WIRE_INITIATION = 1,
	WIRE_RESPONSE = 2,
	WIRE_COOKIE = 3,
	WIRE_DATA = 4,
};

#define WIRE_KEY_BYTES 32
#define WIRE_TAG_BYTES 16
#define WIRE_TIMESTAMP_BYTES 12
#define WIRE_MAC_BYTES 16
#define WIRE_COOKIE_NONCE_BYTES 24

struct wire_initiation {
	uint32_t type;
	uint32_t sender;
	uint8_t ephemeral[WIRE_KEY_BYTES];
	uint8_t static_key[WIRE_KEY_BYTES + WIRE_TAG_BYTES];
	uint8_t timestamp[WIRE_TIMESTAMP_BYTES + WIRE_TAG_BYTES];
	uint8_t mac1[WIRE_MAC_BYTES];
	uint8_t mac2[WIRE_MAC_BYTES];
} __attribute__((packed));

struct wire_response {
	uint32_t type;
	uint32_t sender;
	uint32_t receiver;
	uint8_t ephemeral[WIRE_KEY_BYTES];
	uint8_t empty[WIRE_TAG_BYTES];
	uint8_t mac1[WIRE_MAC_BYTES];
	uint8_t mac2[WIRE_MAC_BYTES];
} __attribute__((packed));

struct wire_cookie {
	uint32_t type;
	uint32_t receiver;
	uint8_t nonce[WIRE_COOKIE_NONCE_BYTES];
	uint8_t cookie[WIRE_MAC_BYTES + WIRE_TAG_BYTES];
} __attribute__((packed));

struct wire_data {
	uint32_t type;
	uint32_t receiver;
	uint64_t counter;
} __attribute__((packed));

#define WIRE_DATA_HEADER_BYTES 16
#define WIRE_DATA_OVERHEAD (WIRE_DATA_HEADER_BYTES + WIRE_TAG_BYTES)
#define WIRE_DATA_MIN 32

_Static_assert(sizeof(struct wire_initiation) == 148, "initiation");
_Static_assert(offsetof(struct wire_initiation, mac1) == 116, "initiation mac1");
_Static_assert(sizeof(struct wire_response) == 92, "response");
_Static_assert(offsetof(struct wire_response, mac1) == 60, "response mac1");
_Static_assert(sizeof(struct wire_cookie) == 64, "cookie reply");
_Static_assert(sizeof(struct wire_data) == WIRE_DATA_HEADER_BYTES, "data header");

/*
 * The message type of a datagram whose type word and length are valid (exact for handshake messages,
 * WIRE_DATA_MIN or more for data), or 0.
 */
static inline enum wire_type wire_classify(const void *datagram, size_t len)
{
	if (len < WIRE_DATA_MIN)
		return 0;
	switch (load_le32(datagram)) {
	case WIRE_DATA:
		return WIRE_DATA;
	case WIRE_INITIATION:
		return len == sizeof(struct wire_initiation) ? WIRE_INITIATION : 0;
	case WIRE_RESPONSE:
		return len == sizeof(struct wire_response) ? WIRE_RESPONSE : 0;
	case WIRE_COOKIE:
		return len == sizeof(struct wire_cookie) ? WIRE_COOKIE : 0;
	default:
		return 0;
	}
}

/* The fields of a data message, at any alignment. */
static inline uint32_t wire_data_receiver(const uint8_t *datagram)
{
	return load_le32(datagram + offsetof(struct wire_data, receiver));
}

static inline uint64_t wire_data_counter(const uint8_t *datagram)
{
	return load_le64(datagram + offsetof(struct wire_data, counter));
}

/* Whose message an initiation or a response is: the index that a reply to it goes to. */
static inline uint32_t wire_handshake_sender(const uint8_t *datagram)
{
	_Static_assert(
		offsetof(struct wire_initiation, sender) == offsetof(struct wire_response, sender), "sender");
	return load_le32(datagram + offsetof(struct wire_initiation, sender));
}

/* Writes the 16-byte header of a data message. */
static inline void wire_data_header(uint8_t *out, uint32_t receiver, uint64_t counter)
{
	store_le32(out + offsetof(struct wire_data, type), WIRE_DATA);
	store_le32(out + offsetof(struct wire_data, receiver), receiver);
	store_le64(out + offsetof(struct wire_data, counter), counter);
}
