/* What the AEAD backends share among themselves; nobody else includes it. */
#pragma once

#include "crypto/aead.h"

#define AEAD_NONCE_BYTES 12

extern const struct aead_backend aead_ipsec_mb;
extern const struct aead_backend aead_libcrypto;
extern const struct aead_backend aead_libsodium;

/* Four zero bytes and the little-endian counter (WireGuard paper, section 5.4.6). */
static inline void aead_nonce(uint8_t nonce[AEAD_NONCE_BYTES], uint64_t counter)
{
	memset(nonce, 0, 4);
	store_le64(nonce + 4, counter);
}
