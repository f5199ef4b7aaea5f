/*
 * What a tun-tx thread tells the state thread: a kind and a receiver index packed into one ring
 * slot, so that nothing is allocated and no pointer outlives its peer. A note whose push is refused is
 * repeated with the next train.
 *
 * A note whose session is retired before the state thread reads it finds no index and is lost. Nothing may
 * hang on it for ever: every retirement arms TIMER_SEND_KEEPALIVE, whose expiry looks after what lost notes
 * left behind (core/protocol/timers.c).
 */
#pragma once

#include "ring/base.h"

enum note {
	NOTE_CONFIRMED = 1, /* first authenticated data under a responder's session: next becomes current */
	NOTE_DATA_RECEIVED, /* data came while wants_rx_note was set: arm the keepalive timer */
	NOTE_REKEY,         /* initiator's session passed the receive-side rekey age */
	NOTE_ROAMED,        /* peer->roamed holds a new endpoint */
};

static inline void *note_encode(enum note note, uint32_t index)
{
	return (void *)(((uintptr_t)index << 3) | note);
}

static inline enum note note_decode(void *item, uint32_t *index)
{
	*index = (uint32_t)((uintptr_t)item >> 3);
	return (enum note)((uintptr_t)item & 7);
}

_Static_assert(sizeof(uintptr_t) == 8, "notes pack a 32-bit index into a pointer");
