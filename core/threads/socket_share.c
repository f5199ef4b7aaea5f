#include "core/threads/socket_share.h"

struct udp_sockets *socket_slot_publish(struct socket_slot *slot, struct udp_sockets *sockets)
{
	struct udp_sockets *old = slot->sockets;

	slot->sockets = sockets ? udp_sockets_get(sockets) : NULL;
	/* Release pairs with the acquire in socket_share_update(): who sees the generation sees the pointer. */
	atomic_fetch_add_explicit(&slot->generation, 1, memory_order_release);
	return old;
}

void socket_slot_done(struct socket_slot *slot)
{
	udp_sockets_put(slot->sockets);
	slot->sockets = NULL;
}

void socket_share_init(struct socket_share *share, const struct socket_slot *slot)
{
	*share = (struct socket_share){.slot = slot};
}

void socket_share_done(struct socket_share *share)
{
	udp_sockets_put(share->sockets);
	share->sockets = NULL;
}

void socket_share_update(struct socket_share *share)
{
	/* Pairs with the release in socket_slot_publish(), which is not called again before we have adopted. */
	const unsigned generation = atomic_load_explicit(&share->slot->generation, memory_order_acquire);

	if (likely(generation == share->generation))
		return;
	udp_sockets_put(share->sockets);
	share->sockets = share->slot->sockets ? udp_sockets_get(share->slot->sockets) : NULL;
	share->generation = generation;
	atomic_store_explicit(&share->adopted, generation, memory_order_release);
}

bool socket_share_adopted(const struct socket_share *share)
{
	return atomic_load_explicit(&share->adopted, memory_order_acquire) ==
	       atomic_load_explicit(&share->slot->generation, memory_order_relaxed);
}
