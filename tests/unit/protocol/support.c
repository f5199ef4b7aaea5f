#include "tests/unit/protocol/support.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/base/log.h"

/* A reply never comes in the same nanosecond; the lazy timers tell before from after by that. */
#define LATENCY_NS 1000

static int captured_fd;

static bool carry(struct pair *p, struct node *from, struct node *to);

void log_capture(const char *directives)
{
	char error[LOG_ERROR_BYTES];
	int ends[2];

	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	cr_assert_geq(dup2(ends[1], STDERR_FILENO), 0);
	captured_fd = ends[0];
	cr_assert_eq(log_set_directives(directives, error), 0, "%s", error);
}

const char *log_captured(void)
{
	static char text[16384];
	const ssize_t len = read(captured_fd, text, sizeof(text) - 1);

	text[len > 0 ? len : 0] = '\0';
	return text;
}

void state_init(void)
{
	char error[LOG_ERROR_BYTES];

	cr_assert_eq(log_set_directives("off", error), 0);
	random_seed_all(seed_choose("SLUICE_SEED"));
	cr_assert_eq(secret_init(), 0);
	rcu_register_thread();
}

void pair_init(struct pair *p)
{
	state_init();
	*p = (struct pair){.a = node_new(ADDRESS_A), .b = node_new(ADDRESS_B), .now_ns = NODE_EPOCH_NS};
	node_pair(p->a, p->b, ADDRESS_A, ADDRESS_B);
	p->pb = node_peer(p->a);
	p->pa = node_peer(p->b);
}

void pair_done(struct pair *p)
{
	node_free(p->a);
	node_free(p->b);
	cr_assert_eq(secret_in_use(), 0, "%zu bytes of secrets leaked", secret_in_use());
	rcu_unregister_thread();
}

void pair_exchange(struct pair *p)
{
	bool any;

	do {
		pair_skip(p, LATENCY_NS);
		any = carry(p, p->a, p->b);
		pair_skip(p, LATENCY_NS);
		any |= carry(p, p->b, p->a);
	} while (any);
}

void pair_run(struct pair *p, uint64_t ns)
{
	const uint64_t end_ns = p->now_ns + ns;

	while (p->now_ns < end_ns) {
		const uint64_t a_ns = node_run(p->a, p->now_ns), b_ns = node_run(p->b, p->now_ns);
		const uint64_t next_ns = MIN(a_ns, b_ns);

		if (p->a->sent || p->b->sent) {
			pair_exchange(p);
			continue;
		}
		cr_assert_gt(next_ns, p->now_ns, "a timer does not let go");
		p->now_ns = MIN(end_ns, next_ns);
	}
	node_run(p->a, p->now_ns);
	node_run(p->b, p->now_ns);
	pair_exchange(p);
}

void pair_skip(struct pair *p, uint64_t ns)
{
	p->now_ns += ns;
	device_set_time(&p->a->dev, p->now_ns, NODE_REALTIME_NS + p->now_ns);
	device_set_time(&p->b->dev, p->now_ns, NODE_REALTIME_NS + p->now_ns);
}

void pair_send_ab(struct pair *p, uint64_t id)
{
	uint8_t packet[64];

	node_tun_packet(p->a, packet, packet_make(packet, "10.0.0.1", "10.0.0.2", id, sizeof(packet)));
}

void pair_send_ba(struct pair *p, uint64_t id)
{
	uint8_t packet[64];

	node_tun_packet(p->b, packet, packet_make(packet, "10.0.0.2", "10.0.0.1", id, sizeof(packet)));
}

void pair_connect(struct pair *p)
{
	handshake_initiate(&p->a->dev, p->pb, false);
	node_settle(p->a);
	pair_exchange(p);
	cr_assert(p->pb->current && p->pa->current, "no session");
	p->passed[WIRE_INITIATION] = p->passed[WIRE_RESPONSE] = p->passed[WIRE_COOKIE] =
		p->passed[WIRE_DATA] = 0;
	/* So that what follows lies after the handshake on the clock, as it does with real ones. */
	pair_skip(p, NS_PER_MS);
}

unsigned delivered(struct node *node, uint64_t *last_id)
{
	struct tun_mem_packet *packet;
	unsigned nr = 0;

	while ((packet = tun_mem_take(node->tun))) {
		if (last_id)
			*last_id = packet_id(packet->data);
		free(packet);
		nr++;
	}
	return nr;
}

struct datagram *expect_sent(struct node *node, enum wire_type type)
{
	struct datagram *d = node_take(node);

	cr_assert(d, "nothing sent, expected type %d", type);
	cr_assert_eq(datagram_type(d), type, "sent type %d, expected %d", datagram_type(d), type);
	expect_silence(node);
	return d;
}

void expect_silence(struct node *node)
{
	struct datagram *d = node_take(node);

	cr_assert_null(d, "sent a datagram of type %d, expected none", d ? (int)datagram_type(d) : 0);
}

unsigned discard_sent(struct node *node, enum wire_type type)
{
	struct datagram *d;
	unsigned nr = 0;

	while ((d = node_take(node))) {
		nr += datagram_type(d) == type;
		free(d);
	}
	return nr;
}

static bool carry(struct pair *p, struct node *from, struct node *to)
{
	struct datagram *d;
	bool any = false;

	while ((d = node_take(from))) {
		any = true;
		if (!p->cut) {
			p->passed[datagram_type(d)]++;
			node_receive(to, d);
		}
		free(d);
	}
	return any;
}
