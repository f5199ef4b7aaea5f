#include "tun/tun_mem.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdlib.h>

struct entry {
	struct entry *next;
	struct tun_mem_packet *packet;
};

struct fifo {
	struct entry *first, **last;
	unsigned nr;
};

struct tun_mem {
	struct tun_queue queue;
	tun_mem_sink_fn sink;
	void *arg;
	unsigned capacity;
	pthread_mutex_t lock; /* protects all below */
	pthread_cond_t readable;
	struct fifo in, out;
	int send_error;
	unsigned rejected;
	bool stopped, unplugged;
};

static int recv_many(struct tun_queue *queue, struct train *train);
static bool fits(const struct train *train, uint32_t *offset);
static int recv_wait(struct tun_queue *queue);
static bool send_ready(struct tun_queue *queue);
static int send_frame(struct tun_queue *queue, struct tun_frame *frame);
static int admit(struct tun_mem *mem, const struct tun_frame *frame);
static struct tun_mem_packet *join(const struct tun_frame *frame);
static void stop(struct tun_queue *queue);
static void fifo_init(struct fifo *f);
static int fifo_put(struct fifo *f, struct tun_mem_packet *packet);
static struct tun_mem_packet *fifo_take(struct fifo *f);

static const struct tun_queue_ops ops = {
	.recv_many = recv_many,
	.recv_wait = recv_wait,
	.send_ready = send_ready,
	.send = send_frame,
	.stop = stop,
};

int tun_mem_new(struct tun_mem **out, unsigned index, unsigned offloads, unsigned capacity,
	tun_mem_sink_fn sink, void *arg)
{
	struct tun_mem *mem = aligned_alloc(CACHE_LINE, ALIGN_UP(sizeof(*mem), CACHE_LINE));

	if (!mem)
		return -ENOMEM;
	memset(mem, 0, sizeof(*mem));
	mem->queue.ops = &ops;
	mem->queue.index = index;
	atomic_init(&mem->queue.offloads, offloads);
	mem->sink = sink;
	mem->arg = arg;
	mem->capacity = capacity;
	pthread_mutex_init(&mem->lock, NULL);
	pthread_cond_init(&mem->readable, NULL);
	fifo_init(&mem->in);
	fifo_init(&mem->out);
	*out = mem;
	return 0;
}

void tun_mem_free(struct tun_mem *mem)
{
	if (!mem)
		return;
	while (mem->in.nr)
		free(fifo_take(&mem->in));
	while (mem->out.nr)
		free(fifo_take(&mem->out));
	pthread_cond_destroy(&mem->readable);
	pthread_mutex_destroy(&mem->lock);
	free(mem);
}

struct tun_queue *tun_mem_queue(struct tun_mem *mem)
{
	return &mem->queue;
}

int tun_mem_push(struct tun_mem *mem, const struct train_packet *meta, const void *data)
{
	struct tun_mem_packet *packet;
	int err = -EAGAIN;

	if (meta->len > 65535)
		return -EINVAL;
	packet = malloc(sizeof(*packet) + meta->len);
	if (!packet)
		return -ENOMEM;
	packet->meta = *meta;
	memcpy(packet->data, data, meta->len);
	pthread_mutex_lock(&mem->lock);
	if (mem->in.nr < mem->capacity)
		err = fifo_put(&mem->in, packet);
	pthread_cond_broadcast(&mem->readable);
	pthread_mutex_unlock(&mem->lock);
	if (err)
		free(packet);
	return err;
}

int tun_mem_push_plain(struct tun_mem *mem, const void *data, uint32_t len)
{
	const struct train_packet meta = {.len = len};

	return tun_mem_push(mem, &meta, data);
}

struct tun_mem_packet *tun_mem_take(struct tun_mem *mem)
{
	struct tun_mem_packet *packet;

	pthread_mutex_lock(&mem->lock);
	packet = fifo_take(&mem->out);
	pthread_mutex_unlock(&mem->lock);
	return packet;
}

void tun_mem_fail_send(struct tun_mem *mem, int err)
{
	pthread_mutex_lock(&mem->lock);
	mem->send_error = err;
	pthread_mutex_unlock(&mem->lock);
}

void tun_mem_reject(struct tun_mem *mem, unsigned offloads)
{
	pthread_mutex_lock(&mem->lock);
	mem->rejected = offloads;
	pthread_mutex_unlock(&mem->lock);
}

void tun_mem_unplug(struct tun_mem *mem)
{
	pthread_mutex_lock(&mem->lock);
	mem->unplugged = true;
	pthread_cond_broadcast(&mem->readable);
	pthread_mutex_unlock(&mem->lock);
}

static int recv_many(struct tun_queue *queue, struct train *train)
{
	struct tun_mem *mem = CONTAINER_OF(queue, struct tun_mem, queue);
	int added = 0;
	uint32_t offset;

	counter_add(&queue->read.reads, 1);
	pthread_mutex_lock(&mem->lock);
	if (mem->unplugged)
		added = -ENODEV;
	while (added >= 0 && mem->in.nr && fits(train, &offset)) {
		struct tun_mem_packet *packet = fifo_take(&mem->in);

		train->packet[train->nr] = packet->meta;
		train->packet[train->nr++].offset = offset;
		memcpy(train->data + offset, packet->data, packet->meta.len);
		train->used = offset + packet->meta.len + TRAIN_GAP;
		counter_add(&queue->read.packets, 1);
		counter_add(&queue->read.bytes, packet->meta.len);
		added++;
		free(packet);
	}
	pthread_mutex_unlock(&mem->lock);
	return added;
}

/* The rule of the real device: room for the longest packet, however short the next one is. */
static bool fits(const struct train *train, uint32_t *offset)
{
	*offset = ALIGN_UP(train->used, 16u);
	return train->nr < TRAIN_PACKETS_MAX && TRAIN_BYTES - train->used >= TRAIN_READ_ROOM;
}

static int recv_wait(struct tun_queue *queue)
{
	struct tun_mem *mem = CONTAINER_OF(queue, struct tun_mem, queue);
	bool stopped;

	pthread_mutex_lock(&mem->lock);
	while (!mem->stopped && !mem->unplugged && !mem->in.nr)
		pthread_cond_wait(&mem->readable, &mem->lock);
	stopped = mem->stopped;
	pthread_mutex_unlock(&mem->lock);
	return stopped ? -ECANCELED : 0;
}

static bool send_ready(struct tun_queue *queue)
{
	struct tun_mem *mem = CONTAINER_OF(queue, struct tun_mem, queue);
	bool ready;

	pthread_mutex_lock(&mem->lock);
	ready = mem->send_error != -EAGAIN && (mem->sink || mem->out.nr < mem->capacity);
	pthread_mutex_unlock(&mem->lock);
	return ready;
}

static int send_frame(struct tun_queue *queue, struct tun_frame *frame)
{
	struct tun_mem *mem = CONTAINER_OF(queue, struct tun_mem, queue);
	struct tun_mem_packet *packet = NULL;
	int err;

	pthread_mutex_lock(&mem->lock);
	err = admit(mem, frame);
	if (!err) {
		packet = join(frame);
		err = packet ? 0 : -ENOMEM;
	}
	if (!err && !mem->sink)
		err = fifo_put(&mem->out, packet);
	pthread_mutex_unlock(&mem->lock);
	if (err) {
		free(packet);
		counter_add(&queue->written.errors, 1);
		return err;
	}
	counter_add(&queue->written.writes, 1);
	counter_add(&queue->written.bytes, frame->len);
	if (mem->sink) {
		mem->sink(mem->arg, &packet->meta, packet->data);
		free(packet);
	}
	return 0; /* NOLINT(clang-analyzer-unix.Malloc): in the queue, or freed */
}

static int admit(struct tun_mem *mem, const struct tun_frame *frame)
{
	const unsigned needs = frame->gso_type == VIRTIO_NET_HDR_GSO_NONE ? 0
			       : frame->gso_type == TUN_GSO_UDP_L4        ? TUN_CAN_USO
									  : TUN_CAN_TSO;

	if (mem->unplugged)
		return -ENODEV;
	if (mem->send_error)
		return mem->send_error;
	if (needs & (mem->rejected | ~atomic_load_explicit(&mem->queue.offloads, memory_order_relaxed))) {
		atomic_fetch_and_explicit(&mem->queue.offloads, ~needs, memory_order_relaxed);
		return -EOPNOTSUPP;
	}
	return !mem->sink && mem->out.nr >= mem->capacity ? -EAGAIN : 0;
}

static struct tun_mem_packet *join(const struct tun_frame *frame)
{
	struct tun_mem_packet *packet = malloc(sizeof(*packet) + frame->len);
	uint32_t at = 0;

	if (!packet)
		return NULL;
	packet->meta = (struct train_packet){
		.len = frame->len,
		.flags = frame->flags,
		.gso_type = frame->gso_type,
		.gso_size = frame->gso_size,
		.csum_start = frame->csum_start,
		.csum_offset = frame->csum_offset,
	};
	for (uint32_t i = 1; i < frame->nr_iov; i++) {
		CHECK(frame->iov[i].iov_len <= frame->len - at);
		memcpy(packet->data + at, frame->iov[i].iov_base, frame->iov[i].iov_len);
		at += (uint32_t)frame->iov[i].iov_len;
	}
	assert(at == frame->len);
	return packet;
}

static void stop(struct tun_queue *queue)
{
	struct tun_mem *mem = CONTAINER_OF(queue, struct tun_mem, queue);

	pthread_mutex_lock(&mem->lock);
	mem->stopped = true;
	pthread_cond_broadcast(&mem->readable);
	pthread_mutex_unlock(&mem->lock);
}

static void fifo_init(struct fifo *f)
{
	f->last = &f->first;
}

static int fifo_put(struct fifo *f, struct tun_mem_packet *packet)
{
	struct entry *e = malloc(sizeof(*e));

	if (!e)
		return -ENOMEM;
	*e = (struct entry){.packet = packet};
	*f->last = e;
	f->last = &e->next;
	f->nr++;
	return 0;
}

static struct tun_mem_packet *fifo_take(struct fifo *f)
{
	struct entry *e = f->first;
	struct tun_mem_packet *packet;

	if (!e)
		return NULL;
	packet = e->packet;
	f->first = e->next;
	if (!f->first)
		f->last = &f->first;
	f->nr--;
	free(e);
	return packet;
}
