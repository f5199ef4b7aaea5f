/*
 * Configuration as a transaction: a refused request changes nothing. A request is gathered into a struct
 * config_set, checked, given all the memory and sockets that it needs, and only then applied, by the state
 * thread, where nothing can fail any more.
 *
 * Control thread. No other thread asks for changes of peers, allowed IPs and sockets, so what a first visit
 * to the state thread has found still holds at the second.
 */
#pragma once

#include "core/protocol/device.h"
#include "udp/socket.h"

/* A request may name a peer more than once, so these exceed what a device can hold. */
#define CONFIG_SET_PEERS_MAX (2 * DEVICE_PEERS_MAX)
#define CONFIG_SET_PREFIXES_MAX (2 * DEVICE_ALLOWED_IPS_MAX)

struct config_prefix {
	struct ip_prefix prefix;
	bool remove; /* takes it from the peer instead of giving it */
};

/* One section of a request: what to do with the peer of this key. Sections are applied in order. */
struct config_peer {
	uint8_t public_key[NOISE_KEY_BYTES];
	uint8_t preshared[NOISE_KEY_BYTES];
	struct endpoint endpoint;
	uint16_t persistent_keepalive_s;
	bool remove, update_only, replace_allowed_ips;
	bool has_preshared, has_endpoint, has_persistent_keepalive;
	uint32_t first_prefix, nr_prefixes; /* in config_set.prefixes */
	/* config_apply()'s own */
	uint32_t first_of_key; /* index of the first section with the same key */
	bool exists;           /* in that first section: is the peer there at this point of the request? */
	bool adds;             /* does this section add the peer? */
	struct peer *made;     /* then the peer, until the device owns it */
};

struct config_set {
	bool has_private_key, has_listen_port, has_fwmark, replace_peers;
	uint8_t private_key[NOISE_KEY_BYTES]; /* all zero: remove it */
	uint16_t listen_port;                 /* 0: the kernel chooses */
	uint32_t fwmark;                      /* 0: none */
	struct config_peer *peers;
	uint32_t nr_peers, peers_capacity;
	struct config_prefix *prefixes;
	uint32_t nr_prefixes, prefixes_capacity;
	struct allowed_ips_spare *spares; /* config_apply()'s own: memory to insert each of the prefixes */
	uint16_t refused_port; /* set by config_apply() that failed: the port that is to blame; 0: none is */
};

void config_set_init(struct config_set *set);
/* Zeroes what is secret and frees; the set is empty again. */
void config_set_done(struct config_set *set);
/* Begins the section of a peer, which is then set->peers[set->nr_peers - 1]. -ENOMEM, -E2BIG. */
int config_set_add_peer(struct config_set *set, const uint8_t public_key[NOISE_KEY_BYTES]) MUST_CHECK;
/* Adds a prefix to the latest section. -ENOMEM, -E2BIG. */
int config_set_add_prefix(struct config_set *set, const struct ip_prefix *prefix, bool remove) MUST_CHECK;
/* The latest section replaces the prefixes of its peer; those that it has named so far are forgotten. */
void config_set_replace_prefixes(struct config_set *set);

/* A copy of the device's state for listing. */
struct config_peer_view {
	uint8_t public_key[NOISE_KEY_BYTES];
	uint8_t preshared[NOISE_KEY_BYTES];
	struct endpoint endpoint;
	uint64_t last_handshake_ns; /* realtime; 0: never */
	uint64_t tx_bytes, rx_bytes;
	uint16_t persistent_keepalive_s;
	uint32_t first_prefix, nr_prefixes; /* in config_snapshot.prefixes */
};

struct config_snapshot {
	bool has_private_key;
	uint8_t private_key[NOISE_KEY_BYTES];
	uint16_t listen_port;
	uint32_t fwmark;
	struct config_peer_view *peers; /* in order of insertion */
	uint32_t nr_peers, peers_capacity;
	struct ip_prefix *prefixes;
	uint32_t nr_prefixes, prefixes_capacity;
};

/* The way to the device and to the sockets. Tests have another one, which needs no threads and no ports. */
struct config_target {
	/* Runs fn(dev, arg) on the state thread and returns when it has run. */
	void (*call)(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg);
	/* The data threads change to these sockets (NULL: none) and take their own reference. */
	void (*set_sockets)(void *ctx, struct udp_sockets *sockets);
	/* As udp_sockets_open() and udp_sockets_set_mark(). */
	int (*open_sockets)(struct udp_sockets **out, uint16_t port, uint32_t fwmark);
	int (*set_mark)(struct udp_sockets *sockets, uint32_t old_mark, uint32_t mark);
	void *ctx;
};

struct config {
	const struct config_target *target; /* not owned */
	struct udp_sockets *sockets;        /* own reference; NULL while there are none */
	bool link_up;                       /* the interface is administratively up */
	uint16_t listen_port; /* requested, or chosen by the kernel at the last bind; 0: none yet */
	uint32_t fwmark;
	bool has_public_key; /* so there is a private key */
	uint8_t public_key[NOISE_KEY_BYTES];
};

void config_init(struct config *c, const struct config_target *target);
/* Releases the sockets. The data threads have ended. */
void config_done(struct config *c);

/*
 * Applies all of the request, or nothing of it. The caller ends the set afterwards. -EADDRINUSE, -EPERM and
 * others from the sockets, -ENOSPC when it would exceed DEVICE_PEERS_MAX or DEVICE_ALLOWED_IPS_MAX, -ENOMEM.
 */
int config_apply(struct config *c, struct config_set *set) MUST_CHECK;

/*
 * Fills *out, which lies in guarded memory since it holds keys; config_snapshot_done() ends it. -ENOMEM, and
 * *out is empty.
 */
int config_get(struct config *c, struct config_snapshot *out) MUST_CHECK;
/* Zeroes and frees. */
void config_snapshot_done(struct config_snapshot *snapshot);

/*
 * The interface came up: binds the sockets and starts the device. When binding fails (-EADDRINUSE, ...) the
 * device stays down until a request sets the port or mark, or until the interface goes down and up again.
 * Does nothing when the interface was up already.
 */
int config_link_up(struct config *c) MUST_CHECK;
/* The interface went down: stops the device and closes the sockets. The port is kept for the next time. */
void config_link_down(struct config *c);
