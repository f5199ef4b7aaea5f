/*
 * What a tun-tx thread tells the state holder: a kind and a receiver index, packed into one slot of a ring,
 * so that nothing is allocated and no pointer outlives its peer. The ring has many producers, the tun-tx
 * threads, and one consumer, the state holder.
 *
 * A note is given once for each time that it is due. What remembers that it was given:
 *
 *	note            remembered in          written                   until
 *	CONFIRMED       keypair->confirmed     after the push            the session ends
 *	REKEY           keypair->rekey_noted   after the push            the session ends
 *	DATA_RECEIVED   peer->wants_rx_note    lowered, before the push  the state holder raises it
 *	ROAMED          peer->roamed_noted     after the push            the mailbox is filled anew
 *
 * If the ring is full the note does not count as given, and is repeated with the next datagrams of that
 * session.
 *
 * A note can be lost: if its session is retired before the state holder reads it, the index leads nowhere. So
 * nothing may wait for a note for ever. Every retirement arms TIMER_SEND_KEEPALIVE, and when that expires it
 * does what a lost note would have led to (core/protocol/timers.c): empties the mailbox, and raises
 * wants_rx_note.
 */
#pragma once

#include "ring/base.h"

enum note {
	NOTE_CONFIRMED = 1, /* first authenticated data under a session that we made as responder */
	NOTE_DATA_RECEIVED, /* data came while wants_rx_note was up: arm the keepalive timer */
	NOTE_REKEY,         /* data came under a session that we made as initiator and that is too old */
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
