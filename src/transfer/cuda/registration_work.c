/* SPDX-License-Identifier: Apache-2.0 */
/* registration_work - what a thread does that registers memory; see registration.h. */
#include "transfer/cuda/registration.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#define PREFER_NODE 1 /* MPOL_PREFERRED */

/* ---- Touching -------------------------------------------------------------------------------- */

void kvbi_cuda_registration_prefer_node(int node)
{
    unsigned long mask[16] = {0};
    if (node < 0 || (size_t)node >= sizeof mask * 8)
        return;
    mask[(size_t)node / (sizeof *mask * 8)] = 1ul << ((size_t)node % (sizeof *mask * 8));
    (void)syscall(SYS_set_mempolicy, PREFER_NODE, mask, sizeof mask * 8);
}

/*
 * Faults the pages in without changing what is in them. An older kernel leaves that to the
 * registration.
 */
static void touch(const struct kvbi_cuda_registration *r, uint64_t piece)
{
    unsigned char *start;
    uint64_t bytes;
    kvbi_cuda_registration_piece_range(r, piece, &start, &bytes);
    (void)madvise(start, bytes, MADV_HUGEPAGE);
    (void)madvise(start, bytes, MADV_POPULATE_WRITE);
}

static void touch_piece(struct kvbi_cuda_registration *r, uint64_t piece)
{
    touch(r, piece);
    kvbi_lock_take(&r->lock);
    r->touched[piece] = true;
    kvbi_lock_release(&r->lock);
}

/* ---- Registering ----------------------------------------------------------------------------- */

static cudaError_t register_piece(struct kvbi_cuda_registration *r, uint64_t piece)
{
    struct kvbi_cuda_scope scope;
    unsigned char *start;
    uint64_t bytes;
    kvbi_cuda_registration_piece_range(r, piece, &start, &bytes);
    kvbi_cuda_enter(r->cuda, &scope);
    cudaError_t error = kvbi_cuda_check(
        &scope, cudaHostRegister(start, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped));
    kvbi_cuda_leave(&scope);
    return error;
}

static void refuse_rest(struct kvbi_cuda_registration *r, uint64_t piece, cudaError_t error)
{
    uint64_t refused = r->total_bytes - kvbi_cuda_registration_bytes_within(r, piece);
    atomic_store(&r->refused_bytes, refused);
    atomic_store(&r->refused, true);
    kvbi_log(r->log, KVB_LOG_WARN, KVB_ENOMEM,
             "tier HOST: %llu of %llu bytes cannot be pinned: %s (%d); their copies take a detour",
             (unsigned long long)refused, (unsigned long long)r->total_bytes,
             cudaGetErrorName(error), (int)error);
}

/* So that what took `took_ns` is duty_percent of the time until the next may begin. */
static uint64_t pause_ns(const struct kvbi_cuda_registration *r, uint64_t took_ns)
{
    return took_ns * (100 - r->duty_percent) / r->duty_percent;
}

static void register_next(struct kvbi_cuda_registration *r, uint64_t piece)
{
    uint64_t since = kvbi_clock_now(&r->clock);
    cudaError_t error = register_piece(r, piece);
    uint64_t now = kvbi_clock_now(&r->clock);
    if (error != cudaSuccess)
        refuse_rest(r, piece, error);
    kvbi_lock_take(&r->lock);
    r->registering = false;
    r->quiet_until_ns = now + pause_ns(r, now - since);
    if (error == cudaSuccess)
        atomic_fetch_add_explicit(&r->registered_pieces, 1, memory_order_release);
    kvbi_lock_release(&r->lock);
}

/* ---- Who does what --------------------------------------------------------------------------- */

enum step { STEP_REGISTER, STEP_TOUCH, STEP_WAIT, STEP_END };

static bool is_quiet_locked(struct kvbi_cuda_registration *r)
{
    return r->quiet_until_ns != 0 && kvbi_clock_now(&r->clock) < r->quiet_until_ns;
}

/*
 * Registering goes in order and first, touching in what is left of the time, pauses included. A
 * thread that finds neither to do ends while another one registers, waits or touches: that one
 * comes back here.
 */
static enum step next_step_locked(struct kvbi_cuda_registration *r, uint64_t *piece)
{
    uint64_t next = atomic_load(&r->registered_pieces);
    kvbi_lock_assert_held(&r->lock);
    if (r->stop || atomic_load(&r->refused))
        return STEP_END;
    bool ready = !r->registering && next < r->piece_count && r->touched[next];
    if (ready && !is_quiet_locked(r)) {
        *piece = next;
        r->registering = true;
        return STEP_REGISTER;
    }
    if (r->next_touch < r->piece_count) {
        *piece = r->next_touch++;
        return STEP_TOUCH;
    }
    return ready && !r->waiting ? STEP_WAIT : STEP_END;
}

static void wait_locked(struct kvbi_cuda_registration *r)
{
    uint64_t now = kvbi_clock_now(&r->clock);
    if (now >= r->quiet_until_ns)
        return;
    r->waiting = true;
    if (r->hooks != NULL && r->hooks->pin_wait != NULL)
        r->hooks->pin_wait(r->hooks->context, &r->stopped, &r->lock, r->quiet_until_ns - now);
    else
        (void)kvbi_cond_timedwait(&r->stopped, &r->lock, r->quiet_until_ns - now);
    r->waiting = false;
}

static enum step next_step(struct kvbi_cuda_registration *r, uint64_t *piece)
{
    enum step step;
    kvbi_lock_take(&r->lock);
    while ((step = next_step_locked(r, piece)) == STEP_WAIT)
        wait_locked(r);
    kvbi_lock_release(&r->lock);
    return step;
}

void kvbi_cuda_registration_work(struct kvbi_cuda_registration *r)
{
    uint64_t piece;
    enum step step;
    while ((step = next_step(r, &piece)) != STEP_END)
        if (step == STEP_REGISTER)
            register_next(r, piece);
        else
            touch_piece(r, piece);
}
