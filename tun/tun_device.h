/*
 * The kernel's TUN device: a non-persistent multi-queue interface that lives as long as this object. Opened
 * and closed by the control thread; each queue is then used by its one reader and one writer (tun/tun.h).
 */
#pragma once

#include <net/if.h>

#include "tun/tun.h"

#define TUN_DEVICE_QUEUES_MAX 64
#define TUN_DEVICE_MTU 1420 /* 1500 less IPv6 (40), UDP (8) and the data message (32) */

/* The syscalls, replaceable for fault injection. */
struct tun_device_sys {
	ssize_t (*read)(int fd, void *data, size_t len);
	ssize_t (*writev)(int fd, const struct iovec *iov, int nr);
	uint64_t (*now_ns)(void); /* monotonic */
};
extern const struct tun_device_sys tun_device_sys_kernel;

struct tun_device;

/*
 * Creates the interface in the calling thread's network namespace, with nr_queues (1..TUN_DEVICE_QUEUES_MAX)
 * queues and MTU mtu (0: TUN_DEVICE_MTU). name may hold one %d for the kernel to number. It never attaches to
 * an interface that exists already. -EPERM (no CAP_NET_ADMIN), -ENOENT (no TUN driver), -EBUSY (name taken),
 * -EINVAL (bad name, bad number), other -errno.
 */
int tun_device_open(struct tun_device **out, const char *name, unsigned nr_queues, uint32_t mtu) MUST_CHECK;
/* Deletes the interface. No thread may use a queue any more. NULL is accepted. */
void tun_device_close(struct tun_device *dev);

struct tun_queue *tun_device_queue(struct tun_device *dev, unsigned i);
unsigned tun_device_nr_queues(const struct tun_device *dev);
/* As the kernel numbered it; someone may have renamed it since. */
const char *tun_device_name(const struct tun_device *dev);
int tun_device_ifindex(const struct tun_device *dev);
/* The name that the interface has now, wherever it is. -EBADFD: it was deleted. Any thread. */
int tun_device_present_name(const struct tun_device *dev, char name[IFNAMSIZ]) MUST_CHECK;
/*
 * A new descriptor of the network namespace the interface is in now (it may have been moved). The caller
 * closes it. -errno.
 */
int tun_device_netns(const struct tun_device *dev) MUST_CHECK;
/*
 * Do the packets of a flow stay on one queue by a program in the kernel? false: by the kernel's own, less
 * steady, choice.
 */
bool tun_device_steering(const struct tun_device *dev);
/*
 * Do ICMP errors come from an address of this machine, as long as the interface is in the namespace that it was
 * made in? 0, or -errno: there are no raw sockets (-EPERM: no CAP_NET_RAW).
 */
int tun_device_icmp(const struct tun_device *dev) MUST_CHECK;
/* For tests, before any thread uses a queue: from now on through these. */
void tun_device_replace_sys(struct tun_device *dev, const struct tun_device_sys *sys);
