/*
 * Thread state: trains, handshake messages, notes and commands in, sealed batches out. Who holds its baton
 * is the only one that changes struct device.
 */
#include "core/threads/threads.h"

#include "core/protocol/handshake.h"

/* How much of each kind is done before the others get their turn again. */
#define TRAINS_PER_TURN 4
#define HANDSHAKES_PER_TURN 8
#define NOTES_PER_TURN 256
/* Timers count the time of a suspend and a sleep does not: so late can they be after one. */
#define SLEEP_MAX_NS (10 * NS_PER_SEC)
#define TIMERS_PER_TURN 8 /* peers */

static uint64_t turn(struct state_thread *c);
static bool run_commands(struct state_thread *c);
static bool run_handshakes(struct state_thread *c);
static bool run_notes(struct state_thread *c);
static bool run_trains(struct state_thread *c);
static void finish(struct state_thread *c);
static void send_ready(struct state_thread *c);
static void stop_sending(struct state_thread *c);
static void push(struct state_thread *c, struct udp_batch *batch);

void *state_thread_run(void *arg)
{
	struct state_thread *c = arg;
	bool holds = false;

	rcu_register_thread();
	park_count_wakes(&c->counters.wakes_given);
	for (;;) {
		/* Before the look at stopping, whose wake must not be missed. */
		const uint32_t ticket = park_ticket(&c->park);
		uint64_t deadline_ns = PARK_FOREVER;

		if (pipeline_stopping(c->pipeline))
			break;
		holds = holds || baton_claim(&c->baton);
		if (holds) {
			deadline_ns = turn(c);
			if (!deadline_ns)
				continue;
			baton_pass(&c->baton);
			holds = false;
		}
		rcu_thread_offline();
		park_wait(&c->park, ticket, deadline_ns);
		rcu_thread_online();
	}
	rcu_unregister_thread();
	return NULL;
}

void state_thread_run_inline(struct state_thread *c, struct park *park)
{
	if (!baton_ask(&c->baton))
		return;
	rcu_thread_online();
	pool_set_park(&c->batches, park);
	device_set_time(&c->device, clock_boottime_ns(), clock_realtime_ns());
	run_trains(c);
	finish(c);
	counter_add(&c->counters.inline_turns, 1);
	pool_set_park(&c->batches, &c->park);
	rcu_thread_offline();

	const bool left = channel_len(c->trains.ch) || timers_next(&c->device) < c->looks_at_timers_ns;
	if (!baton_pass(&c->baton) && left)
		park_wake(&c->park);
}

void state_thread_deliver(void *arg, struct udp_batch *batch)
{
	struct state_thread *c = arg;

	if (!c->sending)
		c->sending = park_few_cpus() && udp_tx_borrow(&c->pipeline->udp_tx);
	if (c->sending) {
		c->ready[c->nr_ready++] = batch;
		if (c->nr_ready == UDP_BATCHES_PER_CALL)
			send_ready(c);
		return;
	}
	push(c, batch);
}

/* Backpressure: the holder of the baton waits for udp-tx, so that trains pile up and the TUN readers stop. */
struct udp_batch *state_thread_wait_batch(void *arg)
{
	struct state_thread *c = arg;

	send_ready(c);
	rcu_thread_offline();
	struct udp_batch *batch = pool_wait(&c->batches, &c->pipeline->stopping);
	rcu_thread_online();
	return batch;
}

/*
 * Thread state. Does some of each kind of work there is. Returns when (of park_clock_ns()) there will be
 * more to do; 0: there is now.
 */
static uint64_t turn(struct state_thread *c)
{
	struct device *dev = &c->device;
	bool busy = false;

	device_set_time(dev, clock_boottime_ns(), clock_realtime_ns());
	busy |= run_commands(c);
	busy |= run_handshakes(c);
	busy |= run_notes(c);
	busy |= run_trains(c);
	const uint64_t deadline_ns = timers_run(dev, TIMERS_PER_TURN);
	finish(c);
	rcu_quiescent_state();
	if (busy)
		counter_add(&c->counters.turns, 1);
	c->looks_at_timers_ns = busy || deadline_ns <= dev->now_ns ? 0 : deadline_ns;
	if (!c->looks_at_timers_ns || deadline_ns == UINT64_MAX)
		return c->looks_at_timers_ns;
	return park_clock_ns() + MIN(deadline_ns - dev->now_ns, SLEEP_MAX_NS);
}

static bool run_commands(struct state_thread *c)
{
	struct command *command;
	bool any = false;

	while ((command = mpsc_pop(c->commands))) {
		command->fn(&c->device, command->arg);
		sem_post(&command->done);
		any = true;
	}
	return any;
}

static bool run_handshakes(struct state_thread *c)
{
	unsigned n = 0;
	struct handshake_message *msg;

	while (n < HANDSHAKES_PER_TURN && (msg = spsc_pop(c->handshakes))) {
		handshake_receive(&c->device, msg, channel_len(c->handshakes.ch));
		pool_put(msg);
		n++;
	}
	return n;
}

static bool run_notes(struct state_thread *c)
{
	unsigned n = 0;
	void *note;

	while (n < NOTES_PER_TURN && (note = mpsc_pop(c->notes))) {
		device_note(&c->device, note);
		n++;
	}
	return n;
}

static bool run_trains(struct state_thread *c)
{
	unsigned n = 0;
	struct train *train;

	while (n < TRAINS_PER_TURN && (train = mpsc_pop(c->trains))) {
		if (n == 0)
			histogram_add(&c->counters.queue_seen, channel_len(c->trains.ch) + 1);
		/* It may answer what confirmed a session, and came after that note: see note_confirmed(). */
		run_notes(c);
		egress_train(&c->egress, train);
		pool_put(train);
		n++;
	}
	return n;
}

/* The end of a drain: all that was sealed leaves. */
static void finish(struct state_thread *c)
{
	gso_queue_flush(&c->queue);
	send_ready(c);
	if (c->sending)
		stop_sending(c);
}

/* What does not leave at once is for udp-tx, which waits and tries again, and so is all that follows. */
static void send_ready(struct state_thread *c)
{
	const unsigned nr = c->nr_ready;

	c->nr_ready = 0;
	if (!nr)
		return;
	const unsigned sent = udp_tx_in_passing(&c->pipeline->udp_tx, c->ready, nr);
	for (unsigned i = sent; i--;)
		pool_put(c->ready[i]);
	if (sent == nr)
		return;
	stop_sending(c);
	for (unsigned i = sent; i < nr; i++)
		push(c, c->ready[i]);
}

static void stop_sending(struct state_thread *c)
{
	c->sending = false;
	baton_pass(&c->pipeline->udp_tx.baton);
}

static void push(struct state_thread *c, struct udp_batch *batch)
{
	/* The ring has a slot for every batch there is. */
	const bool pushed = spsc_push(c->to_udp_tx, batch);

	assert(pushed);
	(void)pushed;
}
