/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress: the one place where blocks move, completions are applied, and callbacks run.
 *
 * Owns       the manager's thread or the polling caller's turn, the wake-up descriptor, the
 *            waiters.
 * Callers    api/: poll, wait, wake; every call that gives a lane something to do wakes.
 * Invariants at most one thread is in a round. Callbacks (done, events, admission, log) run in a
 *            round with no lock held, so a call from within one that would wait for progress is
 *            refused. `quiet` means: nothing was left to do since the last wake.
 * Lock       the store's for `begun`, `quiet`, `flushers`, `stop`; the rest is atomic or the
 *            runner's own.
 */
#ifndef KVBI_OFFLOAD_PROGRESS_H
#define KVBI_OFFLOAD_PROGRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/platform.h"
#include "offload/pipeline.h"

struct kvbi_progress {
    struct kvbi_store *store;
    struct kvbi_pipeline *pipeline;
    struct kvb_event_sink sink;
    bool own_thread, started;
    pthread_t thread;
    struct kvbi_wake wake;
    int epoll_fd;
    _Atomic bool signalled;     /* something to do has come up since the runner last looked */
    _Atomic bool sleeping;      /* own thread: wants the descriptor written */
    _Atomic bool running;       /* a round is under way, in `runner` */
    _Atomic uintptr_t runner;   /* the thread that runs rounds (pthread_self); 0: none yet */
    struct kvbi_cond changed;   /* begun, stopped, or an operation has been delivered */
    struct kvbi_cond fell_idle; /* apart: who flushes is not to be woken by each operation */
    bool begun, quiet, stop, closing;
    uint32_t flushers; /* who wait for fell_idle */
};

/*
 * KVB_ENOMEM. Starts the thread, which waits for kvbi_progress_begin: from there on nothing can
 * fail.
 */
int kvbi_progress_create(struct kvbi_progress *progress, struct kvbi_pipeline *pipeline,
                         const struct kvb_event_sink *sink, bool own_thread);
void kvbi_progress_begin(struct kvbi_progress *progress);
/* stops the thread; legal on a zeroed object */
void kvbi_progress_destroy(struct kvbi_progress *progress);

/* There is something to do. Any thread, with or without the store's lock. */
void kvbi_progress_wake(struct kvbi_progress *progress);

/* kvb_manager_poll. */
int kvbi_progress_poll(struct kvbi_progress *progress, uint64_t max_ns);

/*
 * May the calling thread wait for progress? 0, KVB_EDEADLK, KVB_ETHREAD. In poll mode it becomes
 * the runner.
 */
int kvbi_progress_may_wait(struct kvbi_progress *progress);
/*
 * Is the calling thread in a round, that is, in a callback? Unlike the above it makes nobody the
 * runner.
 */
bool kvbi_progress_in_callback(struct kvbi_progress *progress);

/*
 * Wait until everything is delivered and nothing moves, or until an operation is delivered. In poll
 * mode both drive progress. The time is real (CLOCK_MONOTONIC). 0 or KVB_ETIMEDOUT.
 */
int kvbi_progress_flush(struct kvbi_progress *progress, uint64_t timeout_ns);
int kvbi_progress_wait_op(struct kvbi_progress *progress, const struct kvb_op *op,
                          uint64_t timeout_ns);

/* kvb_manager_next_timeout. */
uint64_t kvbi_progress_next_timeout(struct kvbi_progress *progress);

/*
 * Destroy: cancel all that can be, finish the rest, deliver everything. Afterwards nothing moves
 * any more.
 */
void kvbi_progress_close(struct kvbi_progress *progress);

#endif
