/*
 * The keys of one session, both directions (WireGuard paper, section 5.4.5). Published by receiver index,
 * retired through RCU and zeroed on free. The maker seals; one other thread opens, the owner of the session
 * (core/protocol/session_table.h).
 *
 *	field                     written by   read by   protected by
 *	send_key, send_counter,   maker        maker     the state baton: one maker at a time
 *	remote_index
 *	local_index, created_ns,  maker        both      constant once it is published
 *	initiator, receive_key
 *	confirmed, rekey_noted    owner        both      single-writer atomics
 *	retired                   maker        both      single-writer atomic
 *	replay                    owner        owner     its thread's baton: one owner at a time
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
	_Atomic bool retired;     /* no data may be accepted under it any more */
	_Atomic bool rekey_noted; /* the owner has asked for the one receive-side rekey */
	/* receive half */
	CACHE_ALIGNED uint8_t receive_key[AEAD_KEY_BYTES];
	struct replay replay;
};

/* secret_alloc()ed and zeroed; NULL without memory. */
struct keypair *keypair_new(void);
/* Zeroes and frees. No reader may be left. NULL is accepted. */
void keypair_free(struct keypair *k);
