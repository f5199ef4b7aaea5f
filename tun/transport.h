/* Offsets and bits of the TCP and UDP headers, shared by split and coalesce (RFC 9293, RFC 768). */
#pragma once

#include "ring/base.h"

#define TCP_HEADER 20u
#define TCP_SEQ 4
#define TCP_ACK_SEQ 8
#define TCP_DATA_OFFSET 12
#define TCP_FLAGS 13
#define TCP_WINDOW 14
#define TCP_CHECK 16
#define TCP_URGENT 18
#define TCP_FIN 0x01u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_CWR 0x80u

#define UDP_HEADER 8u
#define UDP_LEN 4
#define UDP_CHECK 6

/* From the data offset: 0..60 bytes, options included. */
static inline uint32_t tcp_header_len(const uint8_t *tcp)
{
	return (tcp[TCP_DATA_OFFSET] >> 4) * 4u;
}
