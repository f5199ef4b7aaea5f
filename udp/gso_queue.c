#include "udp/gso_queue.h"

static struct udp_batch *find_open(struct gso_queue *q, const struct endpoint *endpoint, uint32_t tag);
static struct udp_batch *open_batch(struct gso_queue *q, const struct endpoint *endpoint, uint32_t tag,
	uint8_t tos, uint32_t segment_len);
static bool fits(const struct udp_batch *batch, uint8_t tos, uint32_t len);
static void seal_newest_used(struct gso_queue *q);
static void deliver_sealed(struct gso_queue *q);
static void deliver_until(struct gso_queue *q, struct udp_batch *rest);

void gso_queue_init(struct gso_queue *q, struct pool *pool, void (*deliver)(void *, struct udp_batch *),
	struct udp_batch *(*wait)(void *), void *arg)
{
	memset(q, 0, sizeof(*q));
	q->pool = pool;
	q->deliver = deliver;
	q->wait = wait;
	q->arg = arg;
	q->flush_threshold = GSO_FLUSH_THRESHOLD;
}

uint8_t *gso_queue_slot(struct gso_queue *q, const struct endpoint *endpoint, uint8_t tos, uint32_t len)
{
	const uint32_t tag = endpoint_tag(endpoint);
	struct udp_batch *batch;
	uint8_t *slot;

	assert(len >= 1 && len <= GSO_DATAGRAM_MAX);
	/* A slot is filled after the call that gave it away, so only now are all sealed batches complete. */
	if (q->flush_threshold && q->nr_sealed >= q->flush_threshold)
		deliver_sealed(q);

	batch = find_open(q, endpoint, tag);
	if (batch && !fits(batch, tos, len)) {
		seal_newest_used(q);
		batch = NULL;
	}
	if (!batch) {
		batch = open_batch(q, endpoint, tag, tos, len);
		if (unlikely(!batch)) {
			counter_add(&q->counters.dropped, 1);
			return NULL;
		}
	}

	slot = batch->data + batch->len;
	batch->len += len;
	batch->nr++;
	if (len < batch->segment_len || batch->nr == GSO_SEGMENTS_MAX)
		seal_newest_used(q);
	return slot;
}

void gso_queue_flush(struct gso_queue *q)
{
	q->nr_open = q->nr_sealed = 0;
	deliver_until(q, NULL);
}

/*
 * The newest batch of this connection, moved to the end of open[]. NULL: there is none that a datagram may
 * still be appended to.
 */
static struct udp_batch *find_open(struct gso_queue *q, const struct endpoint *endpoint, uint32_t tag)
{
	for (unsigned i = q->nr_open; i--;) {
		struct udp_batch *batch = q->open[i];

		if (q->open_tag[i] == tag && endpoint_equal(&batch->endpoint, endpoint)) {
			const unsigned last = q->nr_open - 1;

			q->open[i] = q->open[last];
			q->open_tag[i] = q->open_tag[last];
			q->open[last] = batch;
			q->open_tag[last] = tag;
			return batch;
		}
	}
	return NULL;
}

static bool fits(const struct udp_batch *batch, uint8_t tos, uint32_t len)
{
	return batch->tos == tos && len <= batch->segment_len && batch->len + len <= GSO_BYTES_MAX;
}

static struct udp_batch *open_batch(
	struct gso_queue *q, const struct endpoint *endpoint, uint32_t tag, uint8_t tos, uint32_t segment_len)
{
	struct udp_batch *batch;

	/* What is added to the batch later is not longer: see fits(). */
	CHECK(segment_len >= 1 && segment_len <= GSO_DATAGRAM_MAX);
	if (unlikely(q->nr_open == GSO_CONNECTIONS_MAX))
		gso_queue_flush(q);
	batch = pool_get(q->pool);
	if (unlikely(!batch)) {
		/* The pool's batches may all be in this queue: unless they leave, the wait has no end. */
		gso_queue_flush(q);
		batch = q->wait(q->arg);
		if (!batch)
			return NULL;
	}

	batch->endpoint = *endpoint;
	batch->tos = tos;
	batch->segment_len = (uint16_t)segment_len;
	batch->nr = 0;
	batch->len = 0;
	batch->sealed = false;
	batch->next = NULL;
	if (q->last)
		q->last->next = batch;
	else
		q->first = batch;
	q->last = batch;
	q->open_tag[q->nr_open] = tag;
	q->open[q->nr_open++] = batch;
	return batch;
}

/* Seals the batch at the end of open[], which find_open() or open_batch() has just put there. */
static void seal_newest_used(struct gso_queue *q)
{
	struct udp_batch *batch = q->open[--q->nr_open];

	batch->sealed = true;
	q->nr_sealed++;
}

/*
 * Delivers the queue up to the last sealed batch. Batches before it that are still open are sealed first:
 * what their connections send next goes into batches behind this prefix, so the order of each connection
 * holds.
 */
static void deliver_sealed(struct gso_queue *q)
{
	struct udp_batch *rest = q->first;
	unsigned kept = 0;

	for (struct udp_batch *b = q->first; b; b = b->next)
		if (b->sealed)
			rest = b->next;
	for (struct udp_batch *b = q->first; b != rest; b = b->next)
		b->sealed = true;
	/* From here on the sealed batches are exactly those that leave. */
	for (unsigned i = 0; i < q->nr_open; i++)
		if (!q->open[i]->sealed) {
			q->open_tag[kept] = q->open_tag[i];
			q->open[kept++] = q->open[i];
		}
	q->nr_open = kept;
	q->nr_sealed = 0;

	deliver_until(q, rest);
}

/*
 * Hands over the batches before rest, which is one of the queue or NULL for all. None of them is in open[].
 */
static void deliver_until(struct gso_queue *q, struct udp_batch *rest)
{
	struct udp_batch *batch = q->first;

	q->first = rest;
	if (!rest)
		q->last = NULL;
	while (batch != rest) {
		/* The receiver may reuse a batch as soon as it has it. */
		struct udp_batch *next = batch->next;

		batch->sealed = true;
		batch->next = NULL;
		q->deliver(q->arg, batch);
		batch = next;
	}
}
