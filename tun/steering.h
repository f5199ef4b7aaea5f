/*
 * Which queue of a multi-queue TUN device a packet leaves by. Left alone, the kernel moves a flow to the
 * queue that its replies were last written to, in mid-flow, and two readers then race: the flow is reordered.
 * This puts a small program in its place that decides by the packet's own addresses, protocol and ports,
 * under a secret key that each device draws anew, so that no sender can aim many flows at one queue.
 */
#pragma once

#include "ring/base.h"

/*
 * Attaches the program to the device behind this TUN descriptor, for nr_queues (2 or more) queues. It lives
 * as long as the device. 0, or -errno: where the process may not load programs (-EPERM) or the kernel is too
 * old, the device works on without.
 */
int steering_attach(int tun_fd, unsigned nr_queues) MUST_CHECK;
