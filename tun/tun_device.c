#include "tun/tun_device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tun/icmp_sockets.h"
#include "tun/steering.h"

/* Linux 6.2; unknown to the headers of Debian 12. */
#define TUN_OFFLOAD_USO 0x60u /* TUN_F_USO4 | TUN_F_USO6: the kernel takes both or none */
#define TUN_OFFLOAD_TSO (TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

#define IP_BYTES_MAX 65535u

/*
 * Packets the kernel keeps for each queue while its reader is not running; what comes on top it drops. The
 * reader shares its core, so it can be away for some milliseconds: 2048 packets are 4 ms of 500,000 small
 * packets a second, or of full-size ones at 6 Gbit/s. More would only add delay: local TCP comes as
 * super-packets, of which its own window bounds the number long before.
 */
#define TX_QUEUE_LEN 2048

/*
 * A read that fails with what may pass is tried again after 1, 2, 4, ... 64 ms. The kernel's queue holds what
 * comes meanwhile.
 */
#define READ_PAUSE_LOG2_MAX 6u

/*
 * A kernel that has taken one super-packet of a kind knows that kind; what it refuses later is that frame's
 * own fault. The error, EINVAL, does not tell the two apart. So only while none has been taken do this many
 * refusals in a row mean that the kind is not known. Then no more are made, but for one every
 * OFFLOAD_RETRY_NS that asks again. Refused frames are not lost: the caller sends them in pieces.
 */
#define REFUSALS_TO_BELIEVE 3
#define OFFLOAD_RETRY_NS (10 * NS_PER_SEC)

/* TCP or UDP super-packets, on one queue. */
struct offload_record {
	bool taken;          /* by the kernel, at least once */
	unsigned nr_refused; /* as long as none is taken */
};

struct device_queue {
	struct tun_queue queue;
	int fd;
	int stop_fd;
	int control; /* the device's */
	const struct tun_device *dev;
	char name[IFNAMSIZ];
	const struct tun_device_sys *sys;
	unsigned negotiated; /* TUN_CAN_* */
	/* What follows is seldom written, so that reader and writer do not take the line from each other. */
	/* the reader's */
	unsigned read_failures; /* since the last read that worked */
	/* the writer's */
	struct offload_record tso, uso;
	uint64_t retry_ns; /* when to set again what was cleared in queue.offloads; 0: nothing was */
};

struct tun_device {
	char name[IFNAMSIZ];
	int ifindex;
	int control; /* a socket of the namespace that the device was made in, for interface requests */
	struct icmp_sockets icmp; /* of the same namespace */
	int icmp_err;
	bool steering;
	unsigned nr;
	struct device_queue *queues;
};

static int check_name(const char *name);
static int open_queues(struct tun_device *dev, const char *name);
static int open_queue(struct device_queue *q, char name[IFNAMSIZ], bool first);
static int attach(int fd, char name[IFNAMSIZ], bool first);
static unsigned negotiate(int fd);
static int configure(struct tun_device *dev, uint32_t mtu);
static int recv_many(struct tun_queue *queue, struct train *train);
static bool is_final(int err);
static int append(struct tun_queue *queue, struct train *train, uint32_t offset, ssize_t len);
static int recv_wait(struct tun_queue *queue);
static int wait_for(struct pollfd *fds, unsigned nr, int timeout_ms);
static bool send_ready(struct tun_queue *queue);
static int send_frame(struct tun_queue *queue, struct tun_frame *frame);
static struct offload_record *record_of(struct device_queue *q, const struct tun_frame *frame);
static void retry_offloads(struct device_queue *q);
static int write_error(struct device_queue *q, const struct tun_frame *frame, int err);
static void note_refusal(struct device_queue *q, const struct tun_frame *frame);
static bool is_down(const struct device_queue *q);
static bool send_error(struct tun_queue *queue, const uint8_t *packet, uint32_t len);
static bool is_here(const struct tun_device *dev);
static void stop(struct tun_queue *queue);
static uint64_t coarse_now_ns(void);

const struct tun_device_sys tun_device_sys_kernel = {
	.read = read,
	.writev = writev,
	.now_ns = coarse_now_ns,
};

static const struct tun_queue_ops ops = {
	.recv_many = recv_many,
	.recv_wait = recv_wait,
	.send_ready = send_ready,
	.send = send_frame,
	.send_error = send_error,
	.stop = stop,
};

int tun_device_open(struct tun_device **out, const char *name, unsigned nr_queues, uint32_t mtu)
{
	struct tun_device *dev;
	size_t bytes;
	int err;

	if (!nr_queues || nr_queues > TUN_DEVICE_QUEUES_MAX)
		return -EINVAL;
	err = check_name(name);
	if (err)
		return err;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->control = -1;
	dev->icmp_err = icmp_sockets_open(&dev->icmp);
	bytes = ALIGN_UP(nr_queues * sizeof(*dev->queues), (size_t)CACHE_LINE);
	dev->queues = aligned_alloc(CACHE_LINE, bytes);
	if (!dev->queues) {
		err = -ENOMEM;
		goto err_close;
	}
	memset(dev->queues, 0, bytes);
	dev->nr = nr_queues;
	for (unsigned i = 0; i < nr_queues; i++)
		dev->queues[i].fd = dev->queues[i].stop_fd = -1;
	err = open_queues(dev, name);
	if (err)
		goto err_close;
	err = configure(dev, mtu ? mtu : TUN_DEVICE_MTU);
	if (err)
		goto err_close;
	if (nr_queues > 1)
		dev->steering = !steering_attach(dev->queues[0].fd, nr_queues);
	*out = dev;
	return 0;

err_close:
	tun_device_close(dev);
	return err;
}

void tun_device_close(struct tun_device *dev)
{
	if (!dev)
		return;
	/* The interface goes with the last of these. */
	for (unsigned i = 0; dev->queues && i < dev->nr; i++) {
		if (dev->queues[i].fd >= 0)
			close(dev->queues[i].fd);
		if (dev->queues[i].stop_fd >= 0)
			close(dev->queues[i].stop_fd);
	}
	if (dev->control >= 0)
		close(dev->control);
	icmp_sockets_close(&dev->icmp);
	free(dev->queues);
	free(dev);
}

struct tun_queue *tun_device_queue(struct tun_device *dev, unsigned i)
{
	CHECK(i < dev->nr);
	return &dev->queues[i].queue;
}

unsigned tun_device_nr_queues(const struct tun_device *dev)
{
	return dev->nr;
}

const char *tun_device_name(const struct tun_device *dev)
{
	return dev->name;
}

int tun_device_ifindex(const struct tun_device *dev)
{
	return dev->ifindex;
}

int tun_device_present_name(const struct tun_device *dev, char name[IFNAMSIZ])
{
	struct ifreq request = {0};

	if (ioctl(dev->queues[0].fd, TUNGETIFF, &request))
		return -errno;
	memcpy(name, request.ifr_name, IFNAMSIZ);
	return 0;
}

int tun_device_netns(const struct tun_device *dev)
{
	const int fd = ioctl(dev->queues[0].fd, TUNGETDEVNETNS);

	return fd < 0 ? -errno : fd;
}

bool tun_device_steering(const struct tun_device *dev)
{
	return dev->steering;
}

int tun_device_icmp(const struct tun_device *dev)
{
	return dev->icmp_err;
}

void tun_device_replace_sys(struct tun_device *dev, const struct tun_device_sys *sys)
{
	for (unsigned i = 0; i < dev->nr; i++)
		dev->queues[i].sys = sys;
}

/* The kernel would take an empty name for "tun%d", and cut a long one. */
static int check_name(const char *name)
{
	return *name && strlen(name) < IFNAMSIZ ? 0 : -EINVAL;
}

static int open_queues(struct tun_device *dev, const char *name)
{
	dev->control = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (dev->control < 0)
		return -errno;
	memcpy(dev->name, name, strlen(name) + 1);
	for (unsigned i = 0; i < dev->nr; i++) {
		struct device_queue *q = &dev->queues[i];
		int err;

		err = open_queue(q, dev->name, i == 0);
		if (err)
			return err;
		/* Offloads are the device's, not the queue's. */
		q->negotiated = i ? dev->queues[0].negotiated : negotiate(q->fd);
		atomic_init(&q->queue.offloads, q->negotiated);
		q->queue.ops = &ops;
		q->queue.index = i;
		q->control = dev->control;
		q->dev = dev;
		q->sys = &tun_device_sys_kernel;
	}
	for (unsigned i = 0; i < dev->nr; i++)
		memcpy(dev->queues[i].name, dev->name, sizeof(dev->name));
	return 0;
}

static int open_queue(struct device_queue *q, char name[IFNAMSIZ], bool first)
{
	q->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->stop_fd < 0)
		return -errno;
	q->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (q->fd < 0) {
		switch (errno) {
		case ENODEV:
		case ENXIO: /* a node without a driver */
			return -ENOENT;
		case EACCES:
			return -EPERM;
		default:
			return -errno;
		}
	}
	return attach(q->fd, name, first);
}

static int attach(int fd, char name[IFNAMSIZ], bool first)
{
	struct ifreq request = {.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)};
	int header = sizeof(struct virtio_net_hdr);

	/* Else the first queue would become one more queue of somebody else's interface of this name. */
	if (first)
		request.ifr_flags |= (short)IFF_TUN_EXCL;
	memcpy(request.ifr_name, name, IFNAMSIZ);
	if (ioctl(fd, TUNSETIFF, &request))
		return errno == EEXIST ? -EBUSY : -errno;
	memcpy(name, request.ifr_name, IFNAMSIZ);
	return ioctl(fd, TUNSETVNETHDRSZ, &header) ? -errno : 0;
}

/* From most to least; the kernel refuses a set with a bit that it does not know. */
static unsigned negotiate(int fd)
{
	if (!ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_OFFLOAD_TSO | TUN_OFFLOAD_USO))
		return TUN_CAN_TSO | TUN_CAN_USO;
	if (!ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_OFFLOAD_TSO))
		return TUN_CAN_TSO;
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM))
		return 0; /* then it hands over finished checksums: nothing to undo */
	return 0;
}

static int configure(struct tun_device *dev, uint32_t mtu)
{
	struct ifreq request = {0};

	memcpy(request.ifr_name, dev->name, IFNAMSIZ);
	if (ioctl(dev->control, SIOCGIFINDEX, &request))
		return -errno;
	dev->ifindex = request.ifr_ifindex;
	request.ifr_qlen = TX_QUEUE_LEN;
	/* In a user namespace only the kernel's own length is to be had: slower, not wrong. */
	if (ioctl(dev->control, SIOCSIFTXQLEN, &request) && errno != EPERM)
		return -errno;
	request.ifr_mtu = (int)mtu;
	return ioctl(dev->control, SIOCSIFMTU, &request) ? -errno : 0;
}

static int recv_many(struct tun_queue *queue, struct train *train)
{
	struct device_queue *q = CONTAINER_OF(queue, struct device_queue, queue);
	int added = 0;

	while (train->nr < TRAIN_PACKETS_MAX && TRAIN_BYTES - train->used >= TRAIN_READ_ROOM) {
		/* The vnet header lies just before the packet, which starts on a multiple of 16. */
		const uint32_t offset = ALIGN_UP(train->used + (uint32_t)sizeof(struct virtio_net_hdr), 16u);
		const uint32_t start = offset - (uint32_t)sizeof(struct virtio_net_hdr);
		const ssize_t len = q->sys->read(
			q->fd, train->data + start, sizeof(struct virtio_net_hdr) + IP_BYTES_MAX + 1);

		counter_add(&queue->read.reads, 1);
		if (unlikely(q->read_failures) && (len >= 0 || errno == EAGAIN))
			q->read_failures = 0;
		if (len >= 0) {
			added += append(queue, train, offset, len);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			break;
		if (is_final(errno))
			/* This must not take away what has been read: it will be back at the next call. */
			return added ? added : -errno;
		/* recv_wait() comes next, and sleeps before it looks again. */
		counter_add(&queue->read.errors, 1);
		q->read_failures++;
		break;
	}
	return added;
}

/*
 * Can no later read succeed? Any other error passes (no memory) or is one packet's (EINVAL: the kernel could
 * not describe it to us, and has dropped it).
 */
static bool is_final(int err)
{
	return err == EBADFD || err == EBADF || err == ENODEV || err == ENXIO || err == EFAULT;
}

/* Returns how many packets that made: 1, or 0 for what is no packet. */
static int append(struct tun_queue *queue, struct train *train, uint32_t offset, ssize_t len)
{
	const uint32_t header = sizeof(struct virtio_net_hdr);
	struct virtio_net_hdr vnet;

	/* What is longer than any IP packet comes cut to the one byte more that was asked for. */
	if (len <= (ssize_t)header || len > (ssize_t)(header + IP_BYTES_MAX)) {
		counter_add(&queue->read.malformed, 1);
		return 0;
	}
	memcpy(&vnet, train->data + offset - header, header);
	train->packet[train->nr++] = (struct train_packet){
		.offset = offset,
		.len = (uint32_t)len - header,
		.flags = vnet.flags,
		.gso_type = vnet.gso_type,
		.gso_size = vnet.gso_size,
		.csum_start = vnet.csum_start,
		.csum_offset = vnet.csum_offset,
	};
	train->used = offset + (uint32_t)len - header + TRAIN_GAP;
	counter_add(&queue->read.packets, 1);
	counter_add(&queue->read.bytes, (uint64_t)len - header);
	return 1;
}

static int recv_wait(struct tun_queue *queue)
{
	struct device_queue *q = CONTAINER_OF(queue, struct device_queue, queue);
	struct pollfd fds[] = {{.fd = q->stop_fd, .events = POLLIN}, {.fd = q->fd, .events = POLLIN}};
	int ready = 0;

	/* The queue may well be readable while its reads fail: only a time, or stop(), ends this wait. */
	if (unlikely(q->read_failures))
		ready = wait_for(fds, 1, 1 << MIN(q->read_failures - 1, READ_PAUSE_LOG2_MAX));
	if (!ready)
		ready = wait_for(fds, ARRAY_LEN(fds), -1);
	if (ready < 0)
		return ready;
	if (fds[0].revents)
		return -ECANCELED;
	/* Only a deleted interface has an error; one that is down is just never readable. */
	return fds[1].revents & POLLIN ? 0 : -ENODEV;
}

/* How many of the descriptors are ready: 0 after timeout_ms (-1: never). -errno. */
static int wait_for(struct pollfd *fds, unsigned nr, int timeout_ms)
{
	int ready;

	do
		ready = poll(fds, nr, timeout_ms);
	while (ready < 0 && errno == EINTR);
	return ready < 0 ? -errno : ready;
}

/* What is written is received at once, in this thread; the kernel keeps no queue that could be full. */
static bool send_ready(struct tun_queue *queue)
{
	return true;
}

static int send_frame(struct tun_queue *queue, struct tun_frame *frame)
{
	struct device_queue *q = CONTAINER_OF(queue, struct device_queue, queue);
	struct virtio_net_hdr vnet = {
		.flags = frame->flags,
		.gso_type = frame->gso_type,
		.hdr_len = frame->hdr_len,
		.gso_size = frame->gso_size,
		.csum_start = frame->csum_start,
		.csum_offset = frame->csum_offset,
	};
	const bool super = frame->gso_type != VIRTIO_NET_HDR_GSO_NONE;
	ssize_t written;

	if (unlikely(q->retry_ns))
		retry_offloads(q);
	frame->iov[0] = (struct iovec){&vnet, sizeof(vnet)};
	do
		written = q->sys->writev(q->fd, frame->iov, (int)frame->nr_iov);
	while (written < 0 && errno == EINTR);
	if (written < 0)
		return write_error(q, frame, errno);
	if (super && unlikely(!record_of(q, frame)->taken))
		record_of(q, frame)->taken = true;
	counter_add(&queue->written.writes, 1);
	counter_add(&queue->written.bytes, frame->len);
	return 0;
}

/* Of the kind of a super-packet. */
static struct offload_record *record_of(struct device_queue *q, const struct tun_frame *frame)
{
	return frame->gso_type == TUN_GSO_UDP_L4 ? &q->uso : &q->tso;
}

/* What was given up is tried again, when it is time. */
static void retry_offloads(struct device_queue *q)
{
	if (q->sys->now_ns() < q->retry_ns)
		return;
	q->retry_ns = 0;
	atomic_store_explicit(&q->queue.offloads, q->negotiated, memory_order_relaxed);
}

static int write_error(struct device_queue *q, const struct tun_frame *frame, int err)
{
	if (err == EAGAIN)
		return -EAGAIN;
	counter_add(&q->queue.written.errors, 1);
	if (err == EIO || (err == EINVAL && is_down(q)))
		return -ENETDOWN;
	if (err != EINVAL || frame->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return -err;
	note_refusal(q, frame);
	return -EOPNOTSUPP;
}

static void note_refusal(struct device_queue *q, const struct tun_frame *frame)
{
	struct offload_record *record = record_of(q, frame);
	const unsigned offload = record == &q->uso ? TUN_CAN_USO : TUN_CAN_TSO;

	counter_add(&q->queue.written.fallbacks, 1);
	if (record->taken || ++record->nr_refused < REFUSALS_TO_BELIEVE)
		return;
	atomic_fetch_and_explicit(&q->queue.offloads, ~offload, memory_order_relaxed);
	q->retry_ns = q->sys->now_ns() + OFFLOAD_RETRY_NS;
}

/* False also where it cannot be known: of an interface that was renamed or moved to another namespace. */
static bool is_down(const struct device_queue *q)
{
	struct ifreq request = {0};

	memcpy(request.ifr_name, q->name, IFNAMSIZ);
	return !ioctl(q->control, SIOCGIFFLAGS, &request) && !(request.ifr_flags & IFF_UP);
}

/* Never from the wrong namespace: a sender's address may be another host's there. */
static bool send_error(struct tun_queue *queue, const uint8_t *packet, uint32_t len)
{
	const struct tun_device *dev = CONTAINER_OF(queue, struct device_queue, queue)->dev;

	if (!is_here(dev))
		return false;
	/* An error that the kernel refuses, for the firewall say, does not get a second way. */
	return icmp_sockets_send(&dev->icmp, packet, len, (unsigned)dev->ifindex) != -EBADF;
}

/*
 * Is it still in the namespace that it was made in? It loses its number there when it leaves, and no other
 * interface gets that unless somebody asks for it. Unlike the TUN driver's own answer this takes no lock that
 * is held while addresses and routes change.
 */
static bool is_here(const struct tun_device *dev)
{
	struct ifreq request = {.ifr_ifindex = dev->ifindex};

	return !ioctl(dev->control, SIOCGIFNAME, &request);
}

static void stop(struct tun_queue *queue)
{
	struct device_queue *q = CONTAINER_OF(queue, struct device_queue, queue);
	const uint64_t one = 1;

	/* Nobody reads the count, so it stays readable. The write can only fail when the count is full. */
	if (write(q->stop_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

/* To some milliseconds: for waits of seconds. */
static uint64_t coarse_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}
