/* Starting threads. */
#pragma once

#include <pthread.h>

#include "ring/base.h"

/*
 * Any thread. Runs run(arg) in a new thread of this name, at most 15 characters, with every signal blocked:
 * signals are the control thread's. The caller joins it. -EAGAIN where no more threads are allowed, or another
 * -errno.
 */
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg) MUST_CHECK;
