/*
 * The keys of one session, both directions (WireGuard paper, section 5.4.5), made by the crypto thread,
 * published by receiver index, retired through RCU and zeroed on free.
 *
 *	field           written by                  read by
 *	send half       crypto thread               crypto thread
 *	receive half    the peer's decrypt thread   the same
 *	others          constant after publication, or atomic
 */
#pragma once

#include "crypto/aead.h"
#include "crypto/replay.h"

#define REKEY_AFTER_MESSAGES (UINT64_C(1) << 60)
#define REJECT_AFTER_MESSAGES (UINT64_MAX - (UINT64_C(1) << 13))

struct keypair {
	/* send half */
	CACHE_ALIGNED uint8_t send_key[AEAD_KEY_BYTES];
	uint64_t send_counter; /* next nonce */
	uint32_t remote_index;
	/* constant */
	uint32_t local_index;
	uint64_t created_ns; /* boottime */
	bool initiator;
	_Atomic bool confirmed;   /* authenticated data was received under it (responder: key confirmation) */
	_Atomic bool retired;     /* the decrypt thread must not accept data any more */
	_Atomic bool rekey_noted; /* decrypt thread asked for the one receive-side rekey */
	/* receive half */
	CACHE_ALIGNED uint8_t receive_key[AEAD_KEY_BYTES];
	struct replay replay;
};

/* secret_alloc()ed and zeroed; NULL without memory. */
struct keypair *keypair_new(void);
/* Zeroes and frees. No reader may be left. NULL is accepted. */
void keypair_free(struct keypair *k);
