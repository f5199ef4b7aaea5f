#include "tun/tun_mem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdlib.h>

static struct tun_mem *mem;
static struct tun_queue *queue;
static struct train train;

static void setup(unsigned offloads, unsigned capacity)
{
	cr_assert_eq(tun_mem_new(&mem, 3, offloads, capacity, NULL, NULL), 0);
	queue = tun_mem_queue(mem);
	cr_assert_eq(queue->index, 3);
	train_reset(&train);
}

static void frame_of(struct tun_frame *frame, uint8_t gso_type, char *data)
{
	*frame = (struct tun_frame){.gso_type = gso_type, .len = (uint32_t)strlen(data), .nr_iov = 3};
	frame->iov[1] = (struct iovec){data, 2};
	frame->iov[2] = (struct iovec){data + 2, strlen(data) - 2};
}

Test(tun_mem, receives_what_was_pushed_in_order_and_aligned)
{
	static const uint8_t data[3000] = {9};
	struct train_packet meta = {.len = 3000,
		.flags = 1,
		.gso_type = 4,
		.gso_size = 1000,
		.csum_start = 40,
		.csum_offset = 16};

	setup(0, 2);
	cr_assert_eq(queue->ops->recv_many(queue, &train), 0);
	cr_assert_eq(tun_mem_push(mem, &meta, data), 0);
	cr_assert_eq(tun_mem_push_plain(mem, "abc", 3), 0);
	cr_assert_eq(tun_mem_push_plain(mem, "abc", 3), -EAGAIN, "capacity");
	meta.len = 65536;
	cr_assert_eq(tun_mem_push(mem, &meta, data), -EINVAL);
	cr_assert_eq(queue->ops->recv_wait(queue), 0);
	cr_assert_eq(queue->ops->recv_many(queue, &train), 2);
	cr_assert_eq(train.nr, 2);
	cr_assert_eq(train.packet[0].gso_size, 1000);
	cr_assert_eq(train.packet[0].csum_start, 40);
	cr_assert_eq(train.packet[1].gso_type, 0);
	cr_assert_eq(train.packet[1].offset % 16, 0);
	cr_assert(train.packet[1].offset >= train.packet[0].offset + 3000 + TRAIN_GAP);
	cr_assert_eq(memcmp(train.data + train.packet[1].offset, "abc", 3), 0);
	tun_mem_free(mem);
}

Test(tun_mem, stops_reading_while_a_longest_packet_would_not_fit)
{
	static const uint8_t data[60000];

	setup(0, 100);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(tun_mem_push_plain(mem, data, sizeof(data)), 0);
	cr_assert_eq(queue->ops->recv_many(queue, &train), 2);
	cr_assert_eq(queue->ops->recv_many(queue, &train), 0);
	cr_assert(train.used <= TRAIN_BYTES);
	train_reset(&train);
	cr_assert_eq(queue->ops->recv_many(queue, &train), 1);
	tun_mem_free(mem);
}

Test(tun_mem, keeps_sent_frames_joined_until_taken)
{
	struct tun_mem_packet *p;
	struct tun_frame frame;
	char text[] = "hello";

	setup(0, 1);
	frame_of(&frame, 0, text);
	cr_assert(queue->ops->send_ready(queue));
	cr_assert_eq(queue->ops->send(queue, &frame), 0);
	cr_assert_not(queue->ops->send_ready(queue));
	cr_assert_eq(queue->ops->send(queue, &frame), -EAGAIN);
	p = tun_mem_take(mem);
	cr_assert(p);
	cr_assert_eq(p->meta.len, 5);
	cr_assert_eq(memcmp(p->data, "hello", 5), 0);
	free(p);
	cr_assert_null(tun_mem_take(mem));
	tun_mem_free(mem);
}

Test(tun_mem, injects_faults)
{
	struct tun_frame plain, tso, uso;
	char text[] = "hello";

	setup(TUN_CAN_TSO, 10);
	frame_of(&plain, 0, text);
	frame_of(&tso, VIRTIO_NET_HDR_GSO_TCPV4, text);
	frame_of(&uso, TUN_GSO_UDP_L4, text);
	cr_assert_eq(queue->ops->send(queue, &tso), 0);
	cr_assert_eq(queue->ops->send(queue, &uso), -EOPNOTSUPP);
	tun_mem_reject(mem, TUN_CAN_TSO);
	cr_assert_eq(queue->ops->send(queue, &tso), -EOPNOTSUPP);
	cr_assert_eq(atomic_load(&queue->offloads), 0, "a refused offload is not tried again");
	tun_mem_fail_send(mem, -ENETDOWN);
	cr_assert_eq(queue->ops->send(queue, &plain), -ENETDOWN);
	tun_mem_fail_send(mem, 0);
	cr_assert_eq(queue->ops->send(queue, &plain), 0);
	tun_mem_unplug(mem);
	cr_assert_eq(queue->ops->send(queue, &plain), -ENODEV);
	cr_assert_eq(queue->ops->recv_wait(queue), 0);
	cr_assert_eq(queue->ops->recv_many(queue, &train), -ENODEV);
	tun_mem_free(mem);
}

static void *wait_on(void *arg)
{
	return (void *)(intptr_t)queue->ops->recv_wait(queue);
}

Test(tun_mem, stop_wakes_the_reader, .timeout = 10)
{
	pthread_t thread;
	void *result;

	setup(0, 1);
	cr_assert_eq(pthread_create(&thread, NULL, wait_on, NULL), 0);
	queue->ops->stop(queue);
	pthread_join(thread, &result);
	cr_assert_eq((intptr_t)result, -ECANCELED);
	cr_assert_eq(queue->ops->recv_wait(queue), -ECANCELED);
	tun_mem_free(mem);
}
