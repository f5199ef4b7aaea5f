/*
 * Every metric of the program, told once: from here come the enumerators, the registration, the answer to
 * stats=1, what `sluice stats` prints, and its judgement. A row is
 *
 *	X(a, ID, field, "name", KIND, "unit", WRITER, "help")
 *
 * a       whatever the user of a list passes through it
 * ID      METRIC_ID is its enumerator
 * field   of the counter structure that the list belongs to; `_` where the value is found out when it is read
 * name    the public one, in text and JSON: it stays, whatever the field is called
 * KIND    COUNTER only grows, GAUGE is a state, HISTOGRAM shows how often a value fell into each power of two
 * unit    of the value; of a histogram's values
 * WRITER  OWNER: the thread of the group. HOLDER: who holds that thread's baton, itself or one that works
 *         inline for it. UDP_RX: that thread. PRODUCERS: who pushes into the queue. ANYBODY: any thread.
 *         READER: found out by the control thread when it is read
 * help    what it counts and, if it can tell of a problem, what to do about it; one sentence
 *
 * A list holds the counters of one structure, or those of them that are shown in one place. A structure with
 * a counter that its lists do not name does not compile: METRICS_DEFINE_ADD() in core/base/metrics.h. The
 * groups at the end say which lists a thread shows, in the order in which they are printed.
 */
#pragma once

/* The unit of what adds up to the system calls that a thread's work took. */
#define METRICS_SYSCALLS "syscalls"

/* ---- whole process ---- */

#define METRICS_TIME(X, a)                                                                                   \
	X(a, TIME_NS, _, "time_ns", GAUGE, "ns", READER,                                                     \
		"Monotonic clock at the moment of reading, from which rates are worked out.")

#define METRICS_CPU(X, a)                                                                                    \
	X(a, CPU_NS, _, "cpu_ns", COUNTER, "ns", READER,                                                     \
		"Processor time used; a thread that gains nearly a second of it each second is the "         \
		"bottleneck.")

#define METRICS_INTERFACE(X, a)                                                                              \
	X(a, INTERFACE_UP, _, "interface_up", GAUGE, "bool", READER,                                         \
		"1 while the interface is up; `ip link set IFNAME up` sets it up.")                          \
	X(a, PORT_BOUND, _, "port_bound", GAUGE, "bool", READER,                                             \
		"1 while the UDP sockets are open; 0 with the interface up means that the port is taken: "   \
		"see the log, and set another listen-port.")                                                 \
	X(a, LISTEN_PORT, _, "listen_port", GAUGE, "port", READER,                                           \
		"The UDP port, asked for or chosen by the kernel; 0 until there is one.")                    \
	X(a, UPTIME_NS, _, "uptime_ns", GAUGE, "ns", READER, "Time since the process started.")

/* ---- what several kinds of thread have ---- */

#define METRICS_PARK(X, a)                                                                                   \
	X(a, PARKS, parks, "parks", COUNTER, METRICS_SYSCALLS, OWNER,                                        \
		"Times the thread went to sleep because there was nothing to do; few at high load are "      \
		"good.")                                                                                     \
	X(a, WAKES, wakes, "wakes", COUNTER, "wakes", ANYBODY,                                               \
		"System calls that others made to wake the thread, fewer per packet being cheaper.")

#define METRICS_WAKES_GIVEN(X, a)                                                                            \
	X(a, WAKES_GIVEN, wakes_given, "wakes_given", COUNTER, METRICS_SYSCALLS, OWNER,                      \
		"System calls that the thread made to wake others, fewer per packet being cheaper.")

#define METRICS_QUEUE(X, a)                                                                                  \
	X(a, QUEUE_HIGH_WATER, high_water, "queue_high_water", GAUGE, "items", PRODUCERS,                    \
		"Most items that ever waited at once in the thread's queue; near its capacity the "          \
		"thread has fallen behind.")                                                                 \
	X(a, QUEUE_REFUSED, refused, "queue_refused", COUNTER, "items", PRODUCERS,                           \
		"Items not taken because the thread's queue was full; if it grows the thread is too "        \
		"slow, give it a CPU of its own.")

#define METRICS_QUEUE_ROOM(X, a)                                                                             \
	X(a, QUEUE_LEN, _, "queue_len", GAUGE, "items", READER,                                              \
		"Items that wait in the thread's queue now.")                                                \
	X(a, QUEUE_CAPACITY, _, "queue_capacity", GAUGE, "items", READER,                                    \
		"Items that the thread's queue can hold.")

#define METRICS_QUEUE_SEEN(X, a)                                                                             \
	X(a, QUEUE_SEEN, queue_seen, "queue_seen", HISTOGRAM, "items", HOLDER,                               \
		"Items that waited in the thread's queue when it looked; often more than half its "          \
		"capacity means that the thread falls behind.")

#define METRICS_BATCHES(X, a)                                                                                \
	X(a, BATCHES_IN_USE, _, "batches_in_use", GAUGE, "buffers", READER,                                  \
		"Batch buffers filled, or waiting further on, now; all in use means that the next "          \
		"thread is slow.")                                                                           \
	X(a, BATCHES_CAPACITY, _, "batches_capacity", GAUGE, "buffers", READER,                              \
		"Batch buffers that there are.")

/* ---- tun-rx ---- */

#define METRICS_TUN_RX(X, a)                                                                                 \
	X(a, TUN_RX_TRAINS, trains, "trains", COUNTER, "trains", OWNER,                                      \
		"Trains of packets handed to the state thread.")                                             \
	X(a, TUN_RX_STALLS, stalls, "stalls", COUNTER, "times", OWNER,                                       \
		"Times the reader waited because all its trains were in flight; if it grows, sealing "       \
		"or sending is the bottleneck.")                                                             \
	X(a, TUN_RX_POLLS, polls, "polls", COUNTER, METRICS_SYSCALLS, OWNER,                                 \
		"System calls that waited for the TUN queue to become readable.")

#define METRICS_TUN_RX_SIZES(X, a)                                                                           \
	X(a, TUN_RX_TRAIN_PACKETS, train_packets, "train_packets", HISTOGRAM, "packets", OWNER,              \
		"Packets, or super-packets, in a train; mostly 1 under load means that little is "           \
		"gained by batching.")

#define METRICS_TRAINS_ROOM(X, a)                                                                            \
	X(a, TRAINS_IN_FLIGHT, _, "trains_in_flight", GAUGE, "buffers", READER,                              \
		"Train buffers being filled, or not yet sealed, now.")                                       \
	X(a, TRAINS_CAPACITY, _, "trains_capacity", GAUGE, "buffers", READER,                                \
		"Train buffers that the reader has.")

#define METRICS_TUN_READ(X, a)                                                                               \
	X(a, TUN_READS, reads, "reads", COUNTER, METRICS_SYSCALLS, OWNER,                                    \
		"System calls that read from the TUN queue.")                                                \
	X(a, TUN_READ_PACKETS, packets, "read_packets", COUNTER, "packets", OWNER,                           \
		"Packets, or super-packets, read from the TUN queue.")                                       \
	X(a, TUN_READ_BYTES, bytes, "read_bytes", COUNTER, "bytes", OWNER,                                   \
		"Bytes of IP packets read from the TUN queue.")                                              \
	X(a, TUN_READ_MALFORMED, malformed, "read_malformed", COUNTER, "packets", OWNER,                     \
		"Reads from the TUN queue that were no IP packet and were skipped; look for a program "      \
		"that writes raw packets to the interface.")                                                 \
	X(a, TUN_READ_ERRORS, errors, "read_errors", COUNTER, "errors", OWNER,                               \
		"Reads from the TUN queue that failed for a reason that passes and were tried again; look "  \
		"for a lack of memory.")

/* ---- state ---- */

#define METRICS_STATE(X, a)                                                                                  \
	X(a, STATE_TURNS, turns, "turns", COUNTER, "turns", OWNER,                                           \
		"Rounds of the state thread that found something to do, inline ones not included.")          \
	X(a, STATE_INLINE_TURNS, inline_turns, "inline_turns", COUNTER, "turns", HOLDER,                     \
		"Rounds that a TUN reader did inline instead of waking the state thread.")

#define METRICS_EGRESS_SIZES(X, a)                                                                           \
	X(a, EGRESS_TRAIN_SEGMENTS, train_segments, "train_segments", HISTOGRAM, "segments", HOLDER,         \
		"Segments sealed of one train.")

#define METRICS_EGRESS(X, a)                                                                                 \
	X(a, EGRESS_TRAINS, trains, "trains", COUNTER, "trains", HOLDER, "Trains taken to be sealed.")       \
	X(a, EGRESS_PACKETS, packets, "packets", COUNTER, "packets", HOLDER,                                 \
		"Packets, or super-packets, of the trains taken to be sealed.")                              \
	X(a, EGRESS_SEGMENTS, segments, "segments", COUNTER, "datagrams", HOLDER,                            \
		"Datagrams sealed with data, a super-packet becoming many.")                                 \
	X(a, EGRESS_BYTES, bytes, "bytes", COUNTER, "bytes", HOLDER,                                         \
		"Bytes sealed with data, as they leave but without UDP and IP headers.")                     \
	X(a, EGRESS_STAGED, staged, "staged", COUNTER, "segments", HOLDER,                                   \
		"Segments kept back until a handshake completes; if it grows all the time, a peer does "     \
		"not answer.")                                                                               \
	X(a, EGRESS_UNREACHABLES_SENT, unreachables_sent, "unreachables_sent", COUNTER, "packets", HOLDER,   \
		"ICMP errors sent to the senders of packets that no peer takes; see the drops for which "    \
		"reason.")

#define METRICS_DEVICE(X, a)                                                                                 \
	X(a, INITIATIONS_SENT, initiations_sent, "initiations_sent", COUNTER, "messages", HOLDER,            \
		"Handshake initiations sent; many more than responses received mean that a peer does "       \
		"not answer.")                                                                               \
	X(a, RESPONSES_SENT, responses_sent, "responses_sent", COUNTER, "messages", HOLDER,                  \
		"Handshake responses sent.")                                                                 \
	X(a, COOKIES_SENT, cookies_sent, "cookies_sent", COUNTER, "messages", HOLDER,                        \
		"Cookie replies sent because too many handshake messages came; if it grows, somebody "       \
		"floods us.")                                                                                \
	X(a, INITIATIONS_RECEIVED, initiations_received, "initiations_received", COUNTER, "messages",        \
		HOLDER, "Handshake initiations received while the interface was up, accepted or not.")       \
	X(a, RESPONSES_RECEIVED, responses_received, "responses_received", COUNTER, "messages", HOLDER,      \
		"Handshake responses received while the interface was up, accepted or not.")                 \
	X(a, COOKIES_RECEIVED, cookies_received, "cookies_received", COUNTER, "messages", HOLDER,            \
		"Cookie replies received; if it grows, a peer is under load.")                               \
	X(a, HANDSHAKES_COMPLETED, handshakes_completed, "handshakes_completed", COUNTER, "handshakes",      \
		HOLDER, "Handshakes that led to a session.")                                                 \
	X(a, KEEPALIVES_SENT, keepalives_sent, "keepalives_sent", COUNTER, "datagrams", HOLDER,              \
		"Keepalives sent: datagrams without data.")                                                  \
	X(a, REKEYS, rekeys, "rekeys", COUNTER, "handshakes", HOLDER,                                        \
		"Handshakes begun to replace a session that was still in use.")

#define METRICS_GSO_QUEUE(X, a)                                                                              \
	X(a, GSO_QUEUE_DROPPED, dropped, "datagrams_dropped", COUNTER, "datagrams", HOLDER,                  \
		"Datagrams not made for want of a batch buffer, which happens only while the program "       \
		"stops.")

#define METRICS_HANDSHAKE_QUEUE(X, a)                                                                        \
	X(a, HANDSHAKE_QUEUE_HIGH_WATER, high_water, "handshake_queue_high_water", GAUGE, "messages",        \
		PRODUCERS,                                                                                   \
		"Most handshake messages that ever waited at once; near 4096 means a flood of them.")

#define METRICS_NOTE_QUEUE(X, a)                                                                             \
	X(a, NOTE_QUEUE_HIGH_WATER, high_water, "note_queue_high_water", GAUGE, "notes", PRODUCERS,          \
		"Most notes of received packets that ever waited at once for the state thread.")             \
	X(a, NOTE_QUEUE_REFUSED, refused, "note_queue_refused", COUNTER, "notes", PRODUCERS,                 \
		"Notes put off because too many waited; if it grows, the state thread needs more of a "      \
		"CPU.")

/* ---- udp-tx ---- */

#define METRICS_UDP_TX_SOCKET(X, a)                                                                          \
	X(a, UDP_TX_CALLS, calls, "calls", COUNTER, METRICS_SYSCALLS, HOLDER, "System calls that sent.")     \
	X(a, UDP_TX_BATCHES, batches, "batches", COUNTER, "batches", HOLDER,                                 \
		"Sealed batches taken to be sent.")                                                          \
	X(a, UDP_TX_MESSAGES, messages, "messages", COUNTER, "messages", HOLDER,                             \
		"Messages given to the kernel: a batch is one, or many when it is sent in pieces.")          \
	X(a, UDP_TX_DATAGRAMS, datagrams, "datagrams", COUNTER, "datagrams", HOLDER, "Datagrams sent.")      \
	X(a, UDP_TX_BYTES, bytes, "bytes", COUNTER, "bytes", HOLDER,                                         \
		"Bytes of the datagrams sent, without UDP and IP headers.")                                  \
	X(a, UDP_TX_GSO_FALLBACKS, gso_fallbacks, "gso_fallbacks", COUNTER, "batches", HOLDER,               \
		"Batches sent in pieces because the kernel refused segmentation offload; if it grows, "      \
		"check the path MTU and the driver's UDP segmentation.")                                     \
	X(a, UDP_TX_PIN_DROPPED, pin_dropped, "pin_dropped", COUNTER, "times", HOLDER,                       \
		"Source addresses given up because the kernel no longer accepts them, as after a "           \
		"change of address.")                                                                        \
	X(a, UDP_TX_WAITS, waits, "waits", COUNTER, METRICS_SYSCALLS, HOLDER,                                \
		"Times the socket or the device below was full; if it grows, the network is the "            \
		"bottleneck.")                                                                               \
	METRICS_UDP_TX_LOST(X, a, UDP_TX_DROP, "drop_")                                                      \
	X(a, UDP_TX_GSO_SEGMENTS, gso_segments, "gso_segments", HISTOGRAM, "datagrams", HOLDER,              \
		"Datagrams in a message; mostly 1 under load means that segmentation offload is not "        \
		"used.")

#define METRICS_UDP_TX_INLINE(X, a)                                                                          \
	X(a, UDP_TX_INLINE_SENDS, inline_sends, "inline_sends", COUNTER, "sends", HOLDER,                    \
		"Sends that another thread did inline instead of waking udp-tx.")

/* Shown of the thread and, with the same fields, among the drops. */
#define METRICS_UDP_TX_LOST(X, a, ID, prefix)                                                                \
	X(a, ID##_UNREACHABLE, drop_unreachable, prefix "unreachable", COUNTER, "datagrams", HOLDER,         \
		"Datagrams lost because the peer's address cannot be reached; check routes and the "         \
		"peer's endpoint.")                                                                          \
	X(a, ID##_TOO_LONG, drop_too_long, prefix "too_long", COUNTER, "datagrams", HOLDER,                  \
		"Datagrams lost because the path takes only shorter ones; lower the interface's MTU.")       \
	X(a, ID##_NO_BUFFER, drop_no_buffer, prefix "no_buffer", COUNTER, "datagrams", HOLDER,               \
		"Datagrams lost because the socket or the device below stayed full; the network is "         \
		"the bottleneck.")                                                                           \
	X(a, ID##_NO_SOCKET, drop_no_socket, prefix "no_socket", COUNTER, "datagrams", HOLDER,               \
		"Datagrams lost because there was no socket, as when the interface has just been set "       \
		"down.")                                                                                     \
	X(a, ID##_ERROR, drop_error, prefix "error", COUNTER, "datagrams", HOLDER,                           \
		"Datagrams lost to any other error of sending; look for a firewall that rejects them.")

/* ---- udp-rx ---- */

#define METRICS_UDP_RX_SOCKET(X, a)                                                                          \
	X(a, UDP_RX_CALLS, calls, "calls", COUNTER, METRICS_SYSCALLS, OWNER, "System calls that received.")  \
	X(a, UDP_RX_MESSAGES, messages, "messages", COUNTER, "messages", OWNER,                              \
		"Messages received, each a run of datagrams that the kernel has joined.")                    \
	X(a, UDP_RX_DATAGRAMS, datagrams, "datagrams", COUNTER, "datagrams", OWNER, "Datagrams received.")   \
	X(a, UDP_RX_BYTES, bytes, "bytes", COUNTER, "bytes", OWNER,                                          \
		"Bytes of the datagrams received, without UDP and IP headers.")                              \
	X(a, UDP_RX_TRUNCATED, truncated, "truncated", COUNTER, "datagrams", OWNER,                          \
		"Datagrams lost because they, or what the kernel says about them, did not fit their "        \
		"buffer; those of a peer fit, so see who sends them.")                                       \
	X(a, UDP_RX_EMPTY, empty, "empty", COUNTER, "datagrams", OWNER,                                      \
		"Datagrams without a byte of payload, skipped; nothing of ours sends them.")                 \
	X(a, UDP_RX_ERRORS, errors, "errors", COUNTER, "errors", OWNER,                                      \
		"Errors that ICMP reported on the socket; if it grows, a peer's address cannot be "          \
		"reached.")

#define METRICS_UDP_RX_SIZES(X, a)                                                                           \
	X(a, UDP_RX_GRO_SEGMENTS, gro_segments, "gro_segments", HISTOGRAM, "datagrams", OWNER,               \
		"Datagrams in a message received; mostly 1 under load means that the kernel joins none.")

#define METRICS_DISPATCH(X, a)                                                                               \
	X(a, DISPATCH_VIEWS, views, "views", COUNTER, "views", OWNER,                                        \
		"Views, each of one owner's datagrams in a batch, handed to tun-tx threads.")                \
	X(a, DISPATCH_HANDSHAKES, handshakes, "handshakes", COUNTER, "messages", OWNER,                      \
		"Handshake messages handed to the state thread.")

#define METRICS_UDP_RX(X, a)                                                                                 \
	X(a, UDP_RX_WAITS, waits, "waits", COUNTER, "times", OWNER,                                          \
		"Times no receive buffer was free; if it grows, opening or writing to TUN is the "           \
		"bottleneck.")                                                                               \
	X(a, UDP_RX_SHEDS, sheds, "sheds", COUNTER, "batches", OWNER,                                        \
		"Batches whose data was dropped to keep handshakes alive because no buffer came free; "      \
		"the tun-tx threads need more of a CPU.")                                                    \
	X(a, UDP_RX_POLLS, polls, "polls", COUNTER, METRICS_SYSCALLS, OWNER,                                 \
		"System calls that waited for the sockets to become readable.")

/* ---- tun-tx ---- */

#define METRICS_INGRESS(X, a)                                                                                \
	X(a, INGRESS_VIEWS, views, "views", COUNTER, "views", HOLDER, "Views taken to be opened.")           \
	X(a, INGRESS_SEGMENTS, segments, "segments", COUNTER, "datagrams", HOLDER,                           \
		"Datagrams of the views taken to be opened.")                                                \
	X(a, INGRESS_BYTES, bytes, "bytes", COUNTER, "bytes", HOLDER,                                        \
		"Bytes of the datagrams that authenticated, keepalives included, without UDP and IP "        \
		"headers.")                                                                                  \
	X(a, INGRESS_PACKETS, packets, "packets", COUNTER, "packets", HOLDER,                                \
		"Packets that passed every check and go to TUN.")                                            \
	X(a, INGRESS_FRAMES, frames, "frames", COUNTER, "frames", HOLDER,                                    \
		"Frames for TUN, each of one packet or of several joined.")                                  \
	X(a, INGRESS_KEEPALIVES, keepalives, "keepalives", COUNTER, "datagrams", HOLDER,                     \
		"Keepalives received: datagrams without data.")

#define METRICS_INGRESS_SIZES(X, a)                                                                          \
	X(a, INGRESS_VIEW_SEGMENTS, view_segments, "view_segments", HISTOGRAM, "datagrams", HOLDER,          \
		"Datagrams in a view.")                                                                      \
	X(a, INGRESS_FRAME_PACKETS, frame_packets, "frame_packets", HISTOGRAM, "packets", HOLDER,            \
		"Packets joined into a frame; mostly 1 for bulk TCP means that offload on TUN is not "       \
		"used.")

#define METRICS_TUN_WRITE(X, a)                                                                              \
	X(a, TUN_WRITES, writes, "writes", COUNTER, METRICS_SYSCALLS, HOLDER,                                \
		"System calls that wrote a frame to the TUN queue.")                                         \
	X(a, TUN_WRITTEN_BYTES, bytes, "written_bytes", COUNTER, "bytes", HOLDER,                            \
		"Bytes of IP packets written to the TUN queue.")                                             \
	X(a, TUN_WRITE_ERRORS, errors, "write_errors", COUNTER, METRICS_SYSCALLS, HOLDER,                    \
		"Writes to the TUN queue that failed; see the drops and the log for why.")                   \
	X(a, TUN_WRITE_FALLBACKS, fallbacks, "write_fallbacks", COUNTER, "packets", HOLDER,                  \
		"Super-packets that the kernel refused and that were written packet by packet.")

#define METRICS_TUN_TX(X, a)                                                                                 \
	X(a, TUN_TX_INLINE_DRAINS, inline_drains, "inline_drains", COUNTER, "turns", UDP_RX,                 \
		"Rounds that udp-rx did inline instead of waking the tun-tx thread.")

/* ---- drops: every way to lose a packet, its reason first ---- */

/* text also goes into log lines; counted in struct drops. */
#define METRICS_DROP(X, a, NAME, name, text, advice)                                                         \
	X(a, DROP_##NAME, by_reason[DROP_##NAME], name, COUNTER, "packets", HOLDER, text "; " advice ".",    \
		text)

#define METRICS_DROP_REASONS(X, a)                                                                           \
	METRICS_DROP(X, a, EGRESS_MALFORMED, "egress_malformed",                                             \
		"packet read from TUN is not valid IP or has bad offload fields",                            \
		"look for a program that writes raw packets to the interface")                               \
	METRICS_DROP(X, a, EGRESS_TOO_LONG, "egress_too_long",                                               \
		"sealed, the packet would not fit a UDP datagram", "lower the interface's MTU")              \
	METRICS_DROP(X, a, EGRESS_NO_PEER, "egress_no_peer", "destination is in no peer's allowed IPs",      \
		"compare the routes of the interface with the allowed IPs")                                  \
	METRICS_DROP(X, a, EGRESS_NO_ENDPOINT, "egress_no_endpoint", "peer has no known endpoint",           \
		"configure one, or let the peer speak first")                                                \
	METRICS_DROP(X, a, EGRESS_STAGED_OVERFLOW, "egress_staged_overflow",                                 \
		"queue before a handshake is full, oldest dropped", "see why the peer does not answer")      \
	METRICS_DROP(X, a, EGRESS_STAGED_EXPIRED, "egress_staged_expired",                                   \
		"handshake given up, peer removed or interface down", "see why the peer does not answer")    \
	METRICS_DROP(X, a, EGRESS_DOWN, "egress_down", "interface is down", "set it up to send")             \
	METRICS_DROP(X, a, EGRESS_STOPPING, "egress_stopping", "shutting down", "nothing is wrong")          \
	METRICS_DROP(X, a, INGRESS_UNKNOWN_TYPE, "ingress_unknown_type", "datagram is no WireGuard message", \
		"something else sends to this port")                                                         \
	METRICS_DROP(X, a, INGRESS_UNKNOWN_INDEX, "ingress_unknown_index",                                   \
		"no session has this receiver index",                                                        \
		"usual after a restart, until the peer has made a new session")                              \
	METRICS_DROP(X, a, INGRESS_CHANNEL_FULL, "ingress_channel_full", "tun-tx thread is behind",          \
		"give it a CPU of its own, or use more TUN queues")                                          \
	METRICS_DROP(X, a, INGRESS_NO_BUFFER, "ingress_no_buffer", "all receive buffers are in use",         \
		"the tun-tx threads need more of a CPU")                                                     \
	METRICS_DROP(X, a, INGRESS_HANDSHAKE_QUEUE_FULL, "ingress_handshake_queue_full",                     \
		"4096 handshake messages wait", "somebody floods us with them")                              \
	METRICS_DROP(X, a, INGRESS_EXPIRED, "ingress_expired",                                               \
		"session is older than REJECT_AFTER_TIME or retired",                                        \
		"a few are usual, many mean that the peer does not make new sessions")                       \
	METRICS_DROP(X, a, INGRESS_BAD_TAG, "ingress_bad_tag", "data message does not authenticate",         \
		"the network damages datagrams or somebody forges them")                                     \
	METRICS_DROP(X, a, INGRESS_REPLAY, "ingress_replay", "counter seen before or too old",               \
		"the network doubles datagrams or reorders them very far")                                   \
	METRICS_DROP(X, a, INGRESS_BAD_INNER, "ingress_bad_inner", "decrypted packet is not valid IP",       \
		"the peer is faulty")                                                                        \
	METRICS_DROP(X, a, INGRESS_NOT_ALLOWED, "ingress_not_allowed",                                       \
		"inner source is not in this peer's allowed IPs",                                            \
		"compare them with the addresses that the peer sends from")                                  \
	METRICS_DROP(X, a, INGRESS_ECN, "ingress_ecn",                                                       \
		"outer congestion mark on a packet that cannot carry it (RFC 6040)",                         \
		"a router on the path is congested")                                                         \
	METRICS_DROP(X, a, INGRESS_DOWN, "ingress_down", "interface is down", "set it up to receive")        \
	METRICS_DROP(X, a, INGRESS_TUN_ERROR, "ingress_tun_error", "writing to TUN failed", "see the log")   \
	METRICS_DROP(X, a, HANDSHAKE_BAD_MAC1, "handshake_bad_mac1",                                         \
		"mac1 does not match: not for us, answered by silence",                                      \
		"a peer has a wrong public key for us, or somebody probes the port")                         \
	METRICS_DROP(X, a, HANDSHAKE_UNDER_LOAD, "handshake_under_load", "answered with a cookie reply",     \
		"an honest peer tries again with the cookie")                                                \
	METRICS_DROP(X, a, HANDSHAKE_RATE_LIMITED, "handshake_rate_limited",                                 \
		"source sends too many handshakes", "see who sends them")                                    \
	METRICS_DROP(X, a, HANDSHAKE_UNKNOWN_PEER, "handshake_unknown_peer",                                 \
		"initiation from a key that is no peer", "add the peer, or have it removed at its end")      \
	METRICS_DROP(X, a, HANDSHAKE_BAD_CRYPTO, "handshake_bad_crypto",                                     \
		"handshake message does not authenticate", "compare keys and preshared keys of both ends")   \
	METRICS_DROP(X, a, HANDSHAKE_REPLAY, "handshake_replay",                                             \
		"timestamp not newer than the last accepted",                                                \
		"the peer's clock went back, or somebody repeats old messages")                              \
	METRICS_DROP(X, a, HANDSHAKE_FLOOD, "handshake_flood",                                               \
		"initiation within 20 ms of the last from this peer", "see why the peer sends so many")      \
	METRICS_DROP(X, a, HANDSHAKE_UNEXPECTED, "handshake_unexpected",                                     \
		"response or cookie reply that answers nothing of ours", "a few that came late are usual")   \
	METRICS_DROP(X, a, HANDSHAKE_DOWN, "handshake_down", "interface is down or has no private key",      \
		"set it up and give it one")

/* Counters of the layers below, shown once more as the drops that they are. */
#define METRICS_TUN_READ_DROPS(X, a)                                                                         \
	X(a, DROP_EGRESS_NOT_A_PACKET, malformed, "egress_not_a_packet", COUNTER, "packets", OWNER,          \
		"Reads from TUN that were no IP packet; look for a program that writes raw packets to "      \
		"the interface.")
#define METRICS_UDP_TX_DROPS(X, a) METRICS_UDP_TX_LOST(X, a, DROP_SEND, "send_")
#define METRICS_UDP_RX_DROPS(X, a)                                                                           \
	X(a, DROP_RECEIVE_TRUNCATED, truncated, "receive_truncated", COUNTER, "datagrams", OWNER,            \
		"Datagrams received that, or whose description, did not fit their buffer; those "            \
		"of a peer fit, so see who sends them.")

/* ---- structures whose counters are shown in several places ---- */

#define METRICS_TUN_RX_COUNTERS(X, a)                                                                        \
	METRICS_TUN_RX(X, a) METRICS_WAKES_GIVEN(X, a) METRICS_TUN_RX_SIZES(X, a)
#define METRICS_STATE_COUNTERS(X, a) METRICS_STATE(X, a) METRICS_WAKES_GIVEN(X, a) METRICS_QUEUE_SEEN(X, a)
#define METRICS_EGRESS_COUNTERS(X, a) METRICS_EGRESS(X, a) METRICS_EGRESS_SIZES(X, a)
#define METRICS_UDP_TX_COUNTERS(X, a)                                                                        \
	METRICS_QUEUE_SEEN(X, a) METRICS_UDP_TX_INLINE(X, a) METRICS_WAKES_GIVEN(X, a)
#define METRICS_UDP_RX_SOCKET_COUNTERS(X, a) METRICS_UDP_RX_SOCKET(X, a) METRICS_UDP_RX_SIZES(X, a)
#define METRICS_UDP_RX_COUNTERS(X, a) METRICS_UDP_RX(X, a) METRICS_WAKES_GIVEN(X, a)
#define METRICS_INGRESS_COUNTERS(X, a) METRICS_INGRESS(X, a) METRICS_INGRESS_SIZES(X, a)
#define METRICS_TUN_TX_COUNTERS(X, a) METRICS_TUN_TX(X, a) METRICS_WAKES_GIVEN(X, a) METRICS_QUEUE_SEEN(X, a)

/* ---- groups: what each shows, in order ---- */

#define METRICS_OF_PROCESS(X, a) METRICS_TIME(X, a) METRICS_CPU(X, a) METRICS_INTERFACE(X, a)
#define METRICS_OF_CONTROL(X, a) METRICS_CPU(X, a)
#define METRICS_OF_TUN_RX(X, a)                                                                              \
	METRICS_TUN_RX(X, a)                                                                                 \
	METRICS_WAKES_GIVEN(X, a)                                                                            \
	METRICS_TUN_RX_SIZES(X, a)                                                                           \
	METRICS_TRAINS_ROOM(X, a)                                                                            \
	METRICS_CPU(X, a)                                                                                    \
	METRICS_TUN_READ(X, a)                                                                               \
	METRICS_PARK(X, a)
#define METRICS_OF_STATE(X, a)                                                                               \
	METRICS_STATE(X, a)                                                                                  \
	METRICS_WAKES_GIVEN(X, a)                                                                            \
	METRICS_QUEUE_SEEN(X, a)                                                                             \
	METRICS_EGRESS_SIZES(X, a)                                                                           \
	METRICS_BATCHES(X, a)                                                                                \
	METRICS_CPU(X, a)                                                                                    \
	METRICS_EGRESS(X, a)                                                                                 \
	METRICS_DEVICE(X, a)                                                                                 \
	METRICS_QUEUE(X, a)                                                                                  \
	METRICS_QUEUE_ROOM(X, a)                                                                             \
	METRICS_HANDSHAKE_QUEUE(X, a)                                                                        \
	METRICS_NOTE_QUEUE(X, a)                                                                             \
	METRICS_GSO_QUEUE(X, a)                                                                              \
	METRICS_PARK(X, a)
#define METRICS_OF_UDP_TX(X, a)                                                                              \
	METRICS_UDP_TX_SOCKET(X, a)                                                                          \
	METRICS_QUEUE_SEEN(X, a)                                                                             \
	METRICS_UDP_TX_INLINE(X, a)                                                                          \
	METRICS_WAKES_GIVEN(X, a)                                                                            \
	METRICS_CPU(X, a)                                                                                    \
	METRICS_QUEUE(X, a)                                                                                  \
	METRICS_QUEUE_ROOM(X, a)                                                                             \
	METRICS_PARK(X, a)
#define METRICS_OF_UDP_RX(X, a)                                                                              \
	METRICS_UDP_RX_SOCKET(X, a)                                                                          \
	METRICS_DISPATCH(X, a)                                                                               \
	METRICS_UDP_RX(X, a)                                                                                 \
	METRICS_WAKES_GIVEN(X, a)                                                                            \
	METRICS_UDP_RX_SIZES(X, a)                                                                           \
	METRICS_BATCHES(X, a)                                                                                \
	METRICS_CPU(X, a)                                                                                    \
	METRICS_PARK(X, a)
#define METRICS_OF_TUN_TX(X, a)                                                                              \
	METRICS_INGRESS(X, a)                                                                                \
	METRICS_TUN_WRITE(X, a)                                                                              \
	METRICS_TUN_TX(X, a)                                                                                 \
	METRICS_WAKES_GIVEN(X, a)                                                                            \
	METRICS_INGRESS_SIZES(X, a)                                                                          \
	METRICS_QUEUE_SEEN(X, a)                                                                             \
	METRICS_CPU(X, a)                                                                                    \
	METRICS_QUEUE(X, a)                                                                                  \
	METRICS_QUEUE_ROOM(X, a)                                                                             \
	METRICS_PARK(X, a)
#define METRICS_OF_DROPS(X, a)                                                                               \
	METRICS_TUN_READ_DROPS(X, a)                                                                         \
	METRICS_DROP_REASONS(X, a)                                                                           \
	METRICS_UDP_TX_DROPS(X, a)                                                                           \
	METRICS_UDP_RX_DROPS(X, a)

/* Every list once: what the enumerators and the descriptions are made of. */
#define METRICS_ALL(X, a)                                                                                    \
	METRICS_TIME(X, a)                                                                                   \
	METRICS_CPU(X, a)                                                                                    \
	METRICS_INTERFACE(X, a)                                                                              \
	METRICS_PARK(X, a)                                                                                   \
	METRICS_WAKES_GIVEN(X, a)                                                                            \
	METRICS_QUEUE(X, a)                                                                                  \
	METRICS_QUEUE_ROOM(X, a)                                                                             \
	METRICS_QUEUE_SEEN(X, a)                                                                             \
	METRICS_BATCHES(X, a)                                                                                \
	METRICS_TUN_RX(X, a)                                                                                 \
	METRICS_TUN_RX_SIZES(X, a)                                                                           \
	METRICS_TRAINS_ROOM(X, a)                                                                            \
	METRICS_TUN_READ(X, a)                                                                               \
	METRICS_STATE(X, a)                                                                                  \
	METRICS_EGRESS_SIZES(X, a)                                                                           \
	METRICS_EGRESS(X, a)                                                                                 \
	METRICS_DEVICE(X, a)                                                                                 \
	METRICS_GSO_QUEUE(X, a)                                                                              \
	METRICS_HANDSHAKE_QUEUE(X, a)                                                                        \
	METRICS_NOTE_QUEUE(X, a)                                                                             \
	METRICS_UDP_TX_SOCKET(X, a)                                                                          \
	METRICS_UDP_TX_INLINE(X, a)                                                                          \
	METRICS_UDP_RX_SOCKET(X, a)                                                                          \
	METRICS_UDP_RX_SIZES(X, a)                                                                           \
	METRICS_DISPATCH(X, a)                                                                               \
	METRICS_UDP_RX(X, a)                                                                                 \
	METRICS_INGRESS(X, a)                                                                                \
	METRICS_INGRESS_SIZES(X, a)                                                                          \
	METRICS_TUN_WRITE(X, a)                                                                              \
	METRICS_TUN_TX(X, a)                                                                                 \
	METRICS_OF_DROPS(X, a)

/* G(ID, "name", is a thread, is numbered: tun-rx0, tun-rx1): METRICS_GROUP_ID, in the order of printing. */
#define METRICS_GROUPS(G)                                                                                    \
	G(PROCESS, "process", false, false)                                                                  \
	G(CONTROL, "control", true, false)                                                                   \
	G(TUN_RX, "tun-rx", true, true)                                                                      \
	G(STATE, "state", true, false)                                                                       \
	G(UDP_TX, "udp-tx", true, false)                                                                     \
	G(UDP_RX, "udp-rx", true, false)                                                                     \
	G(TUN_TX, "tun-tx", true, true)                                                                      \
	G(DROPS, "drops", false, false)
