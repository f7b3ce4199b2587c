/* SPDX-License-Identifier: Apache-2.0 */
/* clock - see clock.h. */
#include "base/clock.h"

#include <sched.h>
#include <time.h>

static uint64_t monotonic_ns(void *context)
{
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void kvbi_clock_init(struct kvbi_clock *clock, const struct kvb_clock *source)
{
    *clock = (struct kvbi_clock){.c = {.now_ns = monotonic_ns}};
    if (source != NULL && source->now_ns != NULL)
        clock->c = *source;
    atomic_init(&clock->readings, 0);
}

static uint64_t count_reading(struct kvbi_clock *clock, uint64_t shown_ns)
{
    if (shown_ns > clock->shown_ns)
        clock->passed_ns += shown_ns - clock->shown_ns;
    clock->shown_ns = shown_ns;
    return clock->passed_ns;
}

uint64_t kvbi_clock_now(struct kvbi_clock *clock)
{
    if (clock->c.now_ns == monotonic_ns)
        return monotonic_ns(NULL);
    for (;;) {
        uint64_t before = atomic_load_explicit(&clock->readings, memory_order_acquire);
        uint64_t shown_ns = clock->c.now_ns(clock->c.context);
        if (before % 2 != 0) {
            (void)sched_yield(); /* another thread is between the next two lines */
        } else if (atomic_compare_exchange_strong_explicit(&clock->readings, &before, before + 1,
                                                           memory_order_acquire,
                                                           memory_order_relaxed)) {
            uint64_t now_ns = count_reading(clock, shown_ns);
            atomic_store_explicit(&clock->readings, before + 2, memory_order_release);
            return now_ns;
        }
    }
}
