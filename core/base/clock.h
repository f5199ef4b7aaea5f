/*
 * The clocks of the protocol, in nanoseconds. Both read a page of the kernel's (vDSO) and enter no system call.
 * Any thread. Deadlines of waits are another matter: those go by park_clock_ns() (ring/park.h).
 */
#pragma once

#include "ring/base.h"

/* Since the machine started, the time it was suspended included: sessions grow old in that time too. */
uint64_t clock_boottime_ns(void);
/* Since 1970 (UTC). It jumps when somebody sets it: for timestamps, never for durations. */
uint64_t clock_realtime_ns(void);
