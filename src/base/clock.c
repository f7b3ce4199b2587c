/* SPDX-License-Identifier: Apache-2.0 */
/* clock - see clock.h. */
#include "base/clock.h"

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
    clock->c = (struct kvb_clock){.now_ns = monotonic_ns, .context = NULL};
    if (source != NULL && source->now_ns != NULL)
        clock->c = *source;
    atomic_init(&clock->latest_ns, 0);
}

uint64_t kvbi_clock_now(struct kvbi_clock *clock)
{
    if (clock->c.now_ns ==
        monotonic_ns) /* cannot step back, so the line that all threads share is left alone */
        return monotonic_ns(NULL);
    uint64_t now = clock->c.now_ns(clock->c.context);
    uint64_t latest = atomic_load_explicit(&clock->latest_ns, memory_order_relaxed);
    while (latest < now)
        if (atomic_compare_exchange_weak_explicit(&clock->latest_ns, &latest, now,
                                                  memory_order_relaxed, memory_order_relaxed))
            return now;
    return latest;
}
