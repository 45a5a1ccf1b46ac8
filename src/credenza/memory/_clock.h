/* The time, as cheap as the platform has it. */

#ifndef CREDENZA_CLOCK_H
#define CREDENZA_CLOCK_H

#include "_common.h"

/* Which clock a table reads. */
#define CLOCK_IS_CALLABLE 0
#define CLOCK_IS_MONOTONIC 1
#define CLOCK_COUNTS_SLEEP 2

/* The coarse clocks are behind the exact ones by no more than this; so close to its end an entry asks an exact one. */
#define COARSE_SLACK_NS ((int64_t)50 * 1000 * 1000)

/* What the coarse monotonic clock lacks of the one that counts sleep, and by how much the time of day was ahead of it when
   that was measured. */
typedef struct {
    int64_t slept_ns;
    int64_t ahead_ns;
} sleep_t;

#if defined(_WIN32) || defined(__APPLE__)

static inline int64_t
exact_now_ns(int Py_UNUSED(mode))
{
#if PY_VERSION_HEX >= 0x030D0000
    PyTime_t now = 0;
    (void)PyTime_MonotonicRaw(&now);
    return (int64_t)now;
#else
    return (int64_t)_PyTime_GetMonotonicClock();
#endif
}

static inline int64_t
coarse_now_ns(int mode, sleep_t *Py_UNUSED(sleep))
{
#if defined(__APPLE__)
    (void)mode;
    return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW_APPROX);
#else
    return exact_now_ns(mode);
#endif
}

#else

static inline int64_t
read_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t
exact_now_ns(int mode)
{
#if defined(CLOCK_BOOTTIME)
    if (mode == CLOCK_COUNTS_SLEEP) {
        return read_clock_ns(CLOCK_BOOTTIME);
    }
#endif
    (void)mode;
    return read_clock_ns(CLOCK_MONOTONIC);
}

#if defined(CLOCK_MONOTONIC_COARSE) && defined(CLOCK_REALTIME_COARSE) && defined(CLOCK_BOOTTIME)

#define MOST_DRIFT_NS ((int64_t)25 * 1000 * 1000)

/* No coarse clock counts sleep, but a machine that wakes has the time of day jump ahead of its monotonic clock. So has one
   whose clock is set; either way the time is measured anew. */
static inline int64_t
coarse_now_ns(int mode, sleep_t *sleep)
{
    int64_t now_ns = read_clock_ns(CLOCK_MONOTONIC_COARSE);
    if (mode == CLOCK_COUNTS_SLEEP) {
        int64_t ahead_ns = read_clock_ns(CLOCK_REALTIME_COARSE) - now_ns;
        if (ahead_ns - sleep->ahead_ns > MOST_DRIFT_NS || sleep->ahead_ns - ahead_ns > MOST_DRIFT_NS) {
            sleep->ahead_ns = ahead_ns;
            sleep->slept_ns = read_clock_ns(CLOCK_BOOTTIME) - read_clock_ns(CLOCK_MONOTONIC);
        }
        now_ns += sleep->slept_ns;
    }
    return now_ns;
}

#else

static inline int64_t
coarse_now_ns(int mode, sleep_t *Py_UNUSED(sleep))
{
    return exact_now_ns(mode);
}

#endif
#endif
#endif
