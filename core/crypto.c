/*
 * Thread crypto: trains, handshake messages, notes and commands in, sealed batches out. The only thread that
 * changes struct device.
 */
#include "core/threads.h"

#include "core/handshake.h"

/* How much of each kind is done before the others get their turn again. */
#define TRAINS_PER_TURN 4
#define HANDSHAKES_PER_TURN 8
#define NOTES_PER_TURN 256
/* Timers count the time of a suspend and a sleep does not: so late can they be after one. */
#define SLEEP_MAX_NS (10 * NS_PER_SEC)
#define TIMERS_PER_TURN 8 /* peers */

static bool run_commands(struct crypto *c);
static bool run_handshakes(struct crypto *c);
static bool run_notes(struct crypto *c);
static bool run_trains(struct crypto *c);

void *crypto_run(void *arg)
{
	struct crypto *c = arg;
	struct device *dev = &c->device;

	rcu_register_thread();
	park_count_wakes(&c->counters.wakes_given);
	while (!pipeline_stopping(c->pipeline)) {
		const uint32_t ticket = park_ticket(&c->park);
		bool busy = false;

		device_set_time(dev, clock_boottime_ns(), clock_realtime_ns());
		busy |= run_commands(c);
		busy |= run_handshakes(c);
		busy |= run_notes(c);
		busy |= run_trains(c);
		const uint64_t deadline_ns = timers_run(dev, TIMERS_PER_TURN);
		gso_queue_flush(&c->queue);
		rcu_quiescent_state();
		if (busy) {
			counter_add(&c->counters.turns, 1);
			continue;
		}
		rcu_thread_offline();
		if (deadline_ns == UINT64_MAX)
			park_wait(&c->park, ticket, PARK_FOREVER);
		else if (deadline_ns > dev->now_ns)
			park_wait(&c->park, ticket,
				park_clock_ns() + MIN(deadline_ns - dev->now_ns, SLEEP_MAX_NS));
		rcu_thread_online();
	}
	run_commands(c); /* a caller may wait */
	rcu_unregister_thread();
	return NULL;
}

static bool run_commands(struct crypto *c)
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

static bool run_handshakes(struct crypto *c)
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

static bool run_notes(struct crypto *c)
{
	unsigned n = 0;
	void *note;

	while (n < NOTES_PER_TURN && (note = mpsc_pop(c->notes))) {
		device_note(&c->device, note);
		n++;
	}
	return n;
}

static bool run_trains(struct crypto *c)
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
