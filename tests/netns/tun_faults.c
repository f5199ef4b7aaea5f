/*
 * Preloaded into a daemon: every 20th read of a TUN queue fails with ENOMEM, and every 10th write of a
 * super-packet with EINVAL, before the kernel has seen them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_tun(int fd)
{
	struct stat s;

	return !fstat(fd, &s) && S_ISCHR(s.st_mode) && s.st_rdev == makedev(10, 200);
}

ssize_t read(int fd, void *data, size_t len)
{
	static ssize_t (*next)(int, void *, size_t);
	static _Atomic unsigned reads;

	if (!next)
		next = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
	if (is_tun(fd) && ++reads % 20 == 0) {
		errno = ENOMEM;
		return -1;
	}
	return next(fd, data, len);
}

ssize_t writev(int fd, const struct iovec *iov, int nr)
{
	static ssize_t (*next)(int, const struct iovec *, int);
	static _Atomic unsigned supers;
	struct virtio_net_hdr vnet;

	if (!next)
		next = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
	if (is_tun(fd) && iov[0].iov_len == sizeof(vnet)) {
		memcpy(&vnet, iov[0].iov_base, sizeof(vnet));
		if (vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE && ++supers % 10 == 0) {
			errno = EINVAL;
			return -1;
		}
	}
	return next(fd, iov, nr);
}
