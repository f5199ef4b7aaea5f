/*
 * The UDP sockets of the interface on their way from the control thread to udp-rx and udp-tx. The control
 * thread publishes new ones; each user goes over to them between two calls and says so; then the old ones are
 * given up, so that their port is free.
 *
 *	                socket_slot_publish   socket_share_update       socket_share_adopted
 *	thread          control               the owner of the share    control
 */
#pragma once

#include "udp/socket.h"

struct socket_slot {
	struct udp_sockets *sockets; /* own reference, may be NULL */
	_Atomic unsigned generation; /* counts publications */
};

/* One user's share: a reference of its own. The owner of udp-tx's is whoever holds udp-tx's baton. */
struct socket_share {
	const struct socket_slot *slot;
	struct udp_sockets *sockets; /* may be NULL */
	unsigned generation;
	_Atomic unsigned adopted; /* the generation in use, for the control thread */
};

/*
 * sockets: may be NULL; a reference is taken. Returns those published before, whose reference is now the
 * caller's. Not again before every share has adopted this.
 */
struct udp_sockets *socket_slot_publish(struct socket_slot *slot, struct udp_sockets *sockets) MUST_CHECK;
void socket_slot_done(struct socket_slot *slot);

void socket_share_init(struct socket_share *share, const struct socket_slot *slot);
/* Gives the reference back. */
void socket_share_done(struct socket_share *share);
/* Takes over the published sockets if they have changed. */
void socket_share_update(struct socket_share *share);
/* Has the owner gone over to what was published last? */
bool socket_share_adopted(const struct socket_share *share);
