/* SPDX-License-Identifier: Apache-2.0 */
/* flights - see flights.h. */
#include "flights.h"

#include <liburing.h>
#include <stddef.h>

int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned count);
int __real_io_uring_submit_and_get_events(struct io_uring *ring);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned count);
int __wrap_io_uring_submit_and_get_events(struct io_uring *ring);

static struct {
    struct flights *to;            /* NULL: not counting */
    const struct io_uring *ring;   /* the one that is counted: the first to be entered since begin */
    unsigned submitted, completed; /* modulo 2^32, as the kernel counts */
} now;

static unsigned posted_by(const struct io_uring *ring)
{
    return io_uring_smp_load_acquire(ring->cq.ktail);
}

static void before_entry(const struct io_uring *ring)
{
    if (now.to == NULL || now.ring != NULL)
        return;
    now.ring = ring;
    now.submitted = now.completed = posted_by(ring);
}

static void note_left(const struct io_uring *ring)
{
    unsigned left = now.submitted - *ring->cq.khead;
    struct flights *to = now.to;
    uint32_t *last = &to->tail[to->entries % FLIGHTS_TAIL];
    if (to->entries >= (uint64_t)2 * FLIGHTS_TAIL)
        to->left[*last]++;
    *last = left < FLIGHTS_MAX ? left : FLIGHTS_MAX;
    to->entries++;
}

static void after_entry(const struct io_uring *ring, int submitted)
{
    if (now.to == NULL || now.ring != ring)
        return;
    unsigned posted = posted_by(ring), before = now.submitted;
    if (submitted > 0)
        now.submitted += (unsigned)submitted;
    for (; now.completed != posted; now.completed++) {
        int flying = (int)(before - now.completed);
        if (flying <= 0) /* handed over and completed by one entry */
            flying = (int)(now.submitted - now.completed);
        now.to->counts[flying < (int)FLIGHTS_MAX ? flying : (int)FLIGHTS_MAX]++;
    }
    if (submitted > 0)
        note_left(ring);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned count)
{
    before_entry(ring);
    int result = __real_io_uring_submit_and_wait(ring, count);
    after_entry(ring, result);
    return result;
}

int __wrap_io_uring_submit_and_get_events(struct io_uring *ring)
{
    before_entry(ring);
    int result = __real_io_uring_submit_and_get_events(ring);
    after_entry(ring, result);
    return result;
}

void flights_begin(struct flights *flights)
{
    now.ring = NULL;
    now.to = flights;
    flights->entries = 0;
}

void flights_end(void)
{
    now.to = NULL;
}

uint64_t flights_total(const struct flights *flights)
{
    uint64_t total = 0;
    for (uint32_t n = 1; n <= FLIGHTS_MAX; n++)
        total += flights->counts[n];
    return total;
}

double flights_mean(const struct flights *flights)
{
    double sum = 0;
    for (uint32_t n = 1; n <= FLIGHTS_MAX; n++)
        sum += (double)n * (double)flights->counts[n];
    return sum / (double)flights_total(flights);
}

double flights_mean_left(const struct flights *flights)
{
    double sum = 0, total = 0;
    for (uint32_t n = 0; n <= FLIGHTS_MAX; n++) {
        sum += (double)n * (double)flights->left[n];
        total += (double)flights->left[n];
    }
    return sum / total;
}

uint32_t flights_quantile(const struct flights *flights, double q)
{
    double left = q * (double)flights_total(flights);
    for (uint32_t n = 1; n <= FLIGHTS_MAX; n++) {
        left -= (double)flights->counts[n];
        if (left <= 0 && flights->counts[n] > 0)
            return n;
    }
    return 0;
}
