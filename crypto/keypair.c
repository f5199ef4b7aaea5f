#include "crypto/keypair.h"

#include "crypto/secret.h"

struct keypair *keypair_new(void)
{
	return secret_alloc(sizeof(struct keypair));
}

void keypair_free(struct keypair *k)
{
	secret_free(k, sizeof(*k));
}
