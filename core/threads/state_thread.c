#include "core/threads/state_thread.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>

#include "core/base/clock.h"
#include "core/base/metrics.h"
#include "core/protocol/egress.h"
#include "core/protocol/handshake.h"
#include "core/threads/udp_tx_thread.h"
#include "core/threads/worker.h"
#include "crypto/secret.h"

/* How much of each kind is done before the others get their turn again. */
#define TRAINS_PER_TURN 4
#define HANDSHAKES_PER_TURN 8
#define NOTES_PER_TURN 256
#define TIMER_PEERS_PER_TURN 8
/* Timers count the time of a suspend and a sleep does not: so late can they be after one. */
#define SLEEP_MAX_NS (10 * NS_PER_SEC)
#define NOTES_SLOTS 4096
#define COMMANDS_SLOTS 64

/* A call of the control thread, on its stack until done is posted. */
struct command {
	void (*fn)(struct device *dev, void *arg);
	void *arg;
	sem_t done;
};

/*
 * Who may touch what:
 *
 *	worker              the thread; its park any, to wake it
 *	baton               any, by its own functions
 *	rings, their tx     set up before any thread starts; producers by the sending ends
 *	counters            the state holder, except wakes_given: the thread
 *	everything else     the state holder; of device see there
 */
struct state_thread {
	CACHE_ALIGNED struct worker worker;
	struct baton baton;
	struct state_thread_config config;
	struct channel trains_ring, handshakes_ring, notes_ring, commands_ring;
	struct mpsc_tx trains_tx, notes_tx, commands_tx;
	struct spsc_tx handshakes_tx;

	/* Above is what producers read with each push; what the holder writes starts on a line of its own. */
	CACHE_ALIGNED struct mpsc_rx trains, notes, commands;
	struct spsc_rx handshakes;
	uint64_t sleeps_until_ns; /* when the thread itself looks at timers, boottime; 0: it is awake */
	struct pool batches;      /* of struct udp_batch */
	struct gso_queue queue;
	/* Sends inline, with the baton of udp-tx; outbox is sealed and not yet sent. */
	bool sends_inline;
	unsigned nr_outbox;
	struct udp_batch *outbox[UDP_TX_THREAD_BATCHES_PER_CALL];
	struct egress egress;
	struct device device;
	struct drops drops;
	struct state_counters {
		counter_t turns;             /* rounds of the loop that found work */
		counter_t inline_turns;      /* rounds that tun-rx did */
		counter_t wakes_given;       /* by this thread; those of inline turns are tun-rx's */
		struct histogram queue_seen; /* trains that waited when a turn took its first */
	} counters;
};

_Static_assert(offsetof(struct state_thread, trains) % CACHE_LINE == 0, "see there");

static int init(struct state_thread *t);
static void *run_state(void *arg);
static uint64_t turn(void *arg);
static bool run_commands(struct state_thread *t);
static bool run_handshakes(struct state_thread *t);
static bool run_notes(struct state_thread *t);
static bool run_trains(struct state_thread *t);
static void deliver(void *arg, struct udp_batch *batch);
static struct udp_batch *wait_batch(void *arg);
static void finish(struct state_thread *t);
static void empty_outbox(struct state_thread *t);
static void stop_sending(struct state_thread *t);
static void inject_packet(void *arg, uint8_t *packet, uint32_t len);

int state_thread_new(struct state_thread **out, const struct state_thread_config *config)
{
	/* The device holds the private key. Zeroed. */
	struct state_thread *t = secret_alloc(sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->config = *config;
	worker_init(&t->worker, config->stopping);
	baton_init(&t->baton, &t->worker.park);
	const int err = init(t);
	if (err) {
		state_thread_free(t);
		return err;
	}
	*out = t;
	return 0;
}

/* What it has made is taken down by state_thread_free(), also after a failure. */
static int init(struct state_thread *t)
{
	struct park *park = &t->worker.park;
	int err = device_init(&t->device, t->config.nr_queues, t->config.mtu);

	if (err)
		return err;
	t->device.aead = t->config.aead->create(&err);
	if (!t->device.aead)
		return err;
	t->device.baton = &t->baton;
	t->device.queue = &t->queue;
	t->device.drops = &t->drops;
	/* A slot for every train of every reader. Who pushes decides whether to wake: hand_over.h. */
	err = mpsc_init(&t->trains_ring, STATE_THREAD_TRAINS_PER_READER * t->config.nr_queues, NULL,
		&t->trains_tx, &t->trains);
	if (!err)
		err = spsc_init(
			&t->handshakes_ring, HANDSHAKE_QUEUE_SLOTS, park, &t->handshakes_tx, &t->handshakes);
	if (!err)
		err = mpsc_init(&t->notes_ring, NOTES_SLOTS, park, &t->notes_tx, &t->notes);
	if (!err)
		err = mpsc_init(&t->commands_ring, COMMANDS_SLOTS, park, &t->commands_tx, &t->commands);
	if (!err)
		err = pool_init(&t->batches, UDP_TX_THREAD_SLOTS, sizeof(struct udp_batch), park);
	if (err)
		return err;
	gso_queue_init(&t->queue, &t->batches, deliver, wait_batch, t);
	egress_init(&t->egress, &t->device, inject_packet, t);
	return 0;
}

int state_thread_start(struct state_thread *t)
{
	return worker_start(&t->worker, "state", run_state, t);
}

void state_thread_stop(struct state_thread *t)
{
	if (t)
		worker_wake(&t->worker);
}

void state_thread_join(struct state_thread *t)
{
	if (t)
		worker_join(&t->worker);
}

void state_thread_free(struct state_thread *t)
{
	if (!t)
		return;
	device_done(&t->device);
	aead_free(t->device.aead);
	pool_done(&t->batches);
	channel_done(&t->trains_ring);
	channel_done(&t->handshakes_ring);
	channel_done(&t->notes_ring);
	channel_done(&t->commands_ring);
	secret_free(t, sizeof(*t));
}

struct device *state_thread_device(struct state_thread *t)
{
	return &t->device;
}

struct mpsc_tx state_thread_notes(const struct state_thread *t)
{
	return t->notes_tx;
}

struct spsc_tx state_thread_handshakes(const struct state_thread *t)
{
	return t->handshakes_tx;
}

void state_thread_call(struct state_thread *t, void (*fn)(struct device *dev, void *arg), void *arg)
{
	struct command command = {.fn = fn, .arg = arg};

	sem_init(&command.done, 0, 0);
	while (!mpsc_push(t->commands_tx, &command))
		sched_yield();
	while (sem_wait(&command.done) && errno == EINTR)
		;
	sem_destroy(&command.done);
}

void state_thread_set_mtu(struct state_thread *t, uint32_t mtu)
{
	atomic_store_explicit(&t->device.mtu, mtu, memory_order_relaxed);
}

void state_thread_submit_train(struct state_thread *t, struct train *train)
{
	CHECK(mpsc_push(t->trains_tx, train));
}

unsigned state_thread_trains_waiting(const struct state_thread *t)
{
	return channel_len(&t->trains_ring);
}

void state_thread_wake(struct state_thread *t)
{
	park_wake(&t->worker.park);
}

void state_thread_try_run_inline(struct state_thread *t, struct park *park)
{
	if (!baton_ask(&t->baton))
		return;
	rcu_thread_online();
	pool_set_park(&t->batches, park);
	device_set_time(&t->device, clock_boottime_ns(), clock_realtime_ns());
	run_trains(t);
	finish(t);
	counter_add(&t->counters.inline_turns, 1);
	pool_set_park(&t->batches, &t->worker.park);
	rcu_thread_offline();

	/* Read while the baton is held: what the thread would find, and no earlier than it would wake itself. */
	const bool left = channel_len(t->trains.ch) || timers_next(&t->device) < t->sleeps_until_ns;
	if (!baton_pass(&t->baton) && left)
		park_wake(&t->worker.park);
}

unsigned state_thread_buffers_in_use(const struct state_thread *t)
{
	return pool_in_use(&t->batches);
}

static void *run_state(void *arg)
{
	struct state_thread *t = arg;

	park_count_wakes(&t->counters.wakes_given);
	worker_consume(&t->worker, &t->baton, true, turn, t);
	return NULL;
}

/* The thread's turn: some of each kind of work there is. See worker_consume() for what it returns. */
static uint64_t turn(void *arg)
{
	struct state_thread *t = arg;
	struct device *dev = &t->device;
	bool busy = false;

	device_set_time(dev, clock_boottime_ns(), clock_realtime_ns());
	busy |= run_commands(t);
	busy |= run_handshakes(t);
	busy |= run_notes(t);
	busy |= run_trains(t);
	const uint64_t deadline_ns = timers_run(dev, TIMER_PEERS_PER_TURN);
	finish(t);
	rcu_quiescent_state();
	if (busy)
		counter_add(&t->counters.turns, 1);
	t->sleeps_until_ns = busy || deadline_ns <= dev->now_ns ? 0 : deadline_ns;
	if (!t->sleeps_until_ns)
		return 0;
	if (deadline_ns == UINT64_MAX)
		return PARK_FOREVER;
	return park_clock_ns() + MIN(deadline_ns - dev->now_ns, SLEEP_MAX_NS);
}

static bool run_commands(struct state_thread *t)
{
	struct command *command;
	bool any = false;

	while ((command = mpsc_pop(t->commands))) {
		command->fn(&t->device, command->arg);
		sem_post(&command->done);
		any = true;
	}
	return any;
}

static bool run_handshakes(struct state_thread *t)
{
	unsigned n = 0;
	struct handshake_message *msg;

	while (n < HANDSHAKES_PER_TURN && (msg = spsc_pop(t->handshakes))) {
		handshake_receive(&t->device, msg, channel_len(t->handshakes.ch));
		pool_put(msg);
		n++;
	}
	return n;
}

static bool run_notes(struct state_thread *t)
{
	unsigned n = 0;
	void *note;

	while (n < NOTES_PER_TURN && (note = mpsc_pop(t->notes))) {
		device_note(&t->device, note);
		n++;
	}
	return n;
}

static bool run_trains(struct state_thread *t)
{
	unsigned n = 0;
	struct train *train;

	assert(baton_held_by_me(&t->baton));
	while (n < TRAINS_PER_TURN && (train = mpsc_pop(t->trains))) {
		if (n == 0)
			histogram_add(&t->counters.queue_seen, channel_len(t->trains.ch) + 1);
		/* The train may answer what confirmed a session; the note of that was pushed before it, see
		 * note_confirmed(). */
		run_notes(t);
		egress_train(&t->egress, train);
		pool_put(train);
		n++;
	}
	return n;
}

/* The far side of the GSO queue: a sealed batch is sent inline, or goes to udp-tx. */
static void deliver(void *arg, struct udp_batch *batch)
{
	struct state_thread *t = arg;

	assert(baton_held_by_me(&t->baton));
	if (!t->sends_inline)
		t->sends_inline = udp_tx_thread_begin_inline(t->config.udp_tx);
	if (!t->sends_inline) {
		udp_tx_thread_submit(t->config.udp_tx, batch);
		return;
	}
	t->outbox[t->nr_outbox++] = batch;
	if (t->nr_outbox == ARRAY_LEN(t->outbox))
		empty_outbox(t);
}

/* Backpressure: the state holder waits for udp-tx, so that trains pile up and the TUN readers stop. */
static struct udp_batch *wait_batch(void *arg)
{
	struct state_thread *t = arg;

	empty_outbox(t);
	rcu_thread_offline();
	struct udp_batch *batch = pool_wait(&t->batches, t->config.stopping);
	rcu_thread_online();
	return batch;
}

/* The end of a drain: all that was sealed leaves. */
static void finish(struct state_thread *t)
{
	gso_queue_flush(&t->queue);
	empty_outbox(t);
	if (t->sends_inline)
		stop_sending(t);
}

/* What does not leave at once is left to udp-tx, which waits and tries again, and so is all that follows it. */
static void empty_outbox(struct state_thread *t)
{
	const unsigned nr = t->nr_outbox;

	if (!nr)
		return;
	t->nr_outbox = 0;
	const unsigned sent = udp_tx_thread_send_inline(t->config.udp_tx, t->outbox, nr);
	/* Backwards: the first one sent is taken again first, and is the one still in cache. */
	for (unsigned i = sent; i--;)
		pool_put(t->outbox[i]);
	if (sent == nr)
		return;
	stop_sending(t);
	for (unsigned i = sent; i < nr; i++)
		udp_tx_thread_submit(t->config.udp_tx, t->outbox[i]);
}

static void stop_sending(struct state_thread *t)
{
	t->sends_inline = false;
	udp_tx_thread_end_inline(t->config.udp_tx);
}

static void inject_packet(void *arg, uint8_t *packet, uint32_t len)
{
	struct state_thread *t = arg;
	struct tun_queue *queue = t->config.inject;
	struct tun_frame frame = {.len = len, .nr_iov = 2};

	if (queue->ops->send_error && queue->ops->send_error(queue, packet, len))
		return;
	frame.iov[1] = (struct iovec){.iov_base = packet, .iov_len = len};
	/* Beside the tun-tx thread of this queue: the device takes both, and a lost count is all that can come
	 * of it. */
	IGNORE_RESULT("an answer to a packet that is lost anyway: nothing depends on it",
		queue->ops->send(queue, &frame));
}

static METRICS_DEFINE_ADD(add_counters, struct state_counters, METRICS_STATE_COUNTERS)
static METRICS_DEFINE_ADD(add_egress, struct egress_counters, METRICS_EGRESS_COUNTERS)
static METRICS_DEFINE_ADD(add_device, struct device_counters, METRICS_DEVICE)
static METRICS_DEFINE_ADD_SOME(add_handshake_queue, struct channel_counters, METRICS_HANDSHAKE_QUEUE)
static METRICS_DEFINE_ADD_SOME(add_note_queue, struct channel_counters, METRICS_NOTE_QUEUE)

void state_thread_register(const struct state_thread *t, struct metrics *m)
{
	const enum metrics_group group = METRICS_GROUP_STATE;

	add_counters(m, group, 0, &t->counters);
	add_egress(m, group, 0, &t->device.egress_counters);
	add_device(m, group, 0, &t->device.counters);
	metrics_add_pool(m, group, 0, METRIC_BATCHES_IN_USE, METRIC_BATCHES_CAPACITY, &t->batches);
	metrics_add_read(m, group, 0, METRIC_CPU_NS, worker_cpu_ns, &t->worker);
	metrics_add_queue(m, group, 0, &t->trains_ring);
	add_handshake_queue(m, group, 0, &t->handshakes_ring.counters);
	add_note_queue(m, group, 0, &t->notes_ring.counters);
	metrics_add_gso_queue(m, group, 0, &t->queue.counters);
	metrics_add_park(m, group, 0, &t->worker.park.counters);
	metrics_add_drops(m, &t->drops);
}
