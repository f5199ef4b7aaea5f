/*
 * The thread that waits for grace periods and frees what call_rcu() was given: liburcu's own, named `rcu`. liburcu
 * would make it at the first call_rcu() and end the process if it cannot be made then, so it is made
 * beforehand. It lives as long as the process. rcu_barrier() works as ever.
 */
#pragma once

#include "ring/base.h"

/* Control thread, before the first call_rcu(). Later calls do nothing. -EAGAIN, -ENOMEM: no thread can be made. */
int rcu_worker_start(void) MUST_CHECK;
