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
    struct flights *to;          /* NULL: not counting */
    uint64_t unit;               /* bytes of a block */
    const struct io_uring *ring; /* the one that is counted: the first to be entered since begin */
    unsigned submitted, completed; /* blocks; modulo 2^32, as the kernel counts */
    unsigned seen;                 /* completions of the ring that are counted already */
} now;

static unsigned posted_by(const struct io_uring *ring)
{
    return io_uring_smp_load_acquire(ring->cq.ktail);
}

static unsigned blocks_of(uint64_t bytes)
{
    return bytes > now.unit ? (unsigned)(bytes / now.unit) : 1;
}

static unsigned blocks_of_request(const struct io_uring_sqe *sqe)
{
    uint64_t bytes = sqe->len;
    if (sqe->opcode == IORING_OP_READV || sqe->opcode == IORING_OP_WRITEV) {
        const struct iovec *parts = (const struct iovec *)(uintptr_t)sqe->addr;
        bytes = 0;
        for (uint32_t i = 0; i < sqe->len; i++)
            bytes += parts[i].iov_len;
    }
    return blocks_of(bytes);
}

static unsigned blocks_of_completion(const struct io_uring *ring, unsigned at)
{
    int result = ring->cq.cqes[at & *ring->cq.kring_mask].res;
    return blocks_of(result > 0 ? (uint64_t)result : 0);
}

/* What is prepared, request by request: an entry may take only the first of them. */
static void look_at_prepared(const struct io_uring *ring, unsigned blocks[FLIGHTS_MAX])
{
    unsigned count = 0;
    for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail && count < FLIGHTS_MAX; at++)
        blocks[count++] =
            now.to != NULL ? blocks_of_request(&ring->sq.sqes[at & *ring->sq.kring_mask]) : 1;
}

static void before_entry(const struct io_uring *ring)
{
    if (now.to == NULL || now.ring != NULL)
        return;
    now.ring = ring;
    now.seen = posted_by(ring);
    now.submitted = now.completed = 0;
}

static void note_left(const struct io_uring *ring)
{
    unsigned left = now.submitted - now.completed;
    for (unsigned at = *ring->cq.khead; at != now.seen; at++)
        left += blocks_of_completion(ring, at);
    struct flights *to = now.to;
    uint32_t *last = &to->tail[to->entries % FLIGHTS_TAIL];
    if (to->entries >= (uint64_t)2 * FLIGHTS_TAIL)
        to->left[*last]++;
    *last = left < FLIGHTS_MAX ? left : FLIGHTS_MAX;
    to->entries++;
}

static void note_completed(unsigned blocks, unsigned before)
{
    for (; blocks > 0; blocks--, now.completed++) {
        int flying = (int)(before - now.completed);
        if (flying <= 0) /* handed over and completed by one entry */
            flying = (int)(now.submitted - now.completed);
        now.to->counts[flying < (int)FLIGHTS_MAX ? flying : (int)FLIGHTS_MAX]++;
    }
}

static void after_entry(const struct io_uring *ring, const unsigned *prepared, int submitted)
{
    if (now.to == NULL || now.ring != ring)
        return;
    unsigned before = now.submitted;
    for (int i = 0; i < submitted; i++)
        now.submitted += prepared[i];
    for (unsigned posted = posted_by(ring); now.seen != posted; now.seen++)
        note_completed(blocks_of_completion(ring, now.seen), before);
    if (submitted > 0)
        note_left(ring);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned count)
{
    unsigned prepared[FLIGHTS_MAX];
    before_entry(ring);
    look_at_prepared(ring, prepared);
    int result = __real_io_uring_submit_and_wait(ring, count);
    after_entry(ring, prepared, result);
    return result;
}

int __wrap_io_uring_submit_and_get_events(struct io_uring *ring)
{
    unsigned prepared[FLIGHTS_MAX];
    before_entry(ring);
    look_at_prepared(ring, prepared);
    int result = __real_io_uring_submit_and_get_events(ring);
    after_entry(ring, prepared, result);
    return result;
}

void flights_begin(struct flights *flights, uint64_t unit)
{
    now.ring = NULL;
    now.unit = unit;
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
