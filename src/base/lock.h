/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock - ranked mutexes and their condition variables
 *
 * Owns the order in which locks may be taken: a thread takes a lock only if its rank is above that
 * of every lock it holds. Debug builds check it at every call and abort with the two ranks; a
 * release build is the bare pthread mutex.
 * Callers: store, engines, offload. A `_locked` function starts with kvbi_lock_assert_held.
 * Why adaptive: the store's mutex is held for well under a microsecond, a sleep and wake across
 * processors costs some 30 us (Xeon, Linux 6.18), so a short spin almost always wins.
 */
#ifndef KVBI_BASE_LOCK_H
#define KVBI_BASE_LOCK_H

#include "base/debug.h"

#include <kvblock.h>
#include <pthread.h>
#include <stdint.h>

/* In the order of taking. */
enum kvbi_rank { KVBI_RANK_CLEAR = 0, KVBI_RANK_STORE = 1, KVBI_RANK_ENGINE = 2 };
#define KVBI_RANK_COUNT 3

/* The most blocks that are handled in one section, from taking the store's lock to its release. */
#define KVBI_LOCK_BATCH 64

struct kvbi_lock {
    pthread_mutex_t mutex;
    enum kvbi_rank rank;
    uint64_t section; /* the number of the present one, for who has the lock */
#if KVBI_DEBUG
    uint32_t steps_max; /* the most steps of one section */
#endif
};

struct kvbi_cond {
    pthread_cond_t condition;
};

/* KVB_ENOMEM: the system refuses one more. */
KVB_NODISCARD int kvbi_lock_init(struct kvbi_lock *lock, enum kvbi_rank rank);
void kvbi_lock_fini(struct kvbi_lock *lock);
void kvbi_lock_take(struct kvbi_lock *lock);
void kvbi_lock_release(struct kvbi_lock *lock);

/*
 * Debug builds abort unless the calling thread holds the lock, or holds none at all; release builds
 * check nothing. And they count steps: whatever loops over something under the store's lock says so
 * for each block, item, offer or entry that it looks at, so that tests see how long a section can
 * get.
 */
#if KVBI_DEBUG
void kvbi_lock_step(void);
void kvbi_lock_assert_held(const struct kvbi_lock *lock);
void kvbi_lock_assert_none_held(void);
/*
 * How often this thread has taken a lock, of any rank: tests count the sections that a call needs.
 * Debug builds only.
 */
uint64_t kvbi_lock_taken_count(void);
#else
#define kvbi_lock_assert_held(lock) ((void)(lock))
#define kvbi_lock_assert_none_held() ((void)0)
#define kvbi_lock_step() ((void)0)
#endif

/* Waits by CLOCK_MONOTONIC. KVB_ENOMEM: the system refuses one more. */
KVB_NODISCARD int kvbi_cond_init(struct kvbi_cond *cond);
void kvbi_cond_fini(struct kvbi_cond *cond);

/*
 * The caller holds `lock`, and no lock of a higher rank. Wakes without cause happen: wait in a
 * loop.
 */
void kvbi_cond_wait(struct kvbi_cond *cond, struct kvbi_lock *lock);

/* The same for at most timeout_ns from now (UINT64_MAX: for ever). 0, or KVB_ETIMEDOUT. */
int kvbi_cond_timedwait(struct kvbi_cond *cond, struct kvbi_lock *lock, uint64_t timeout_ns);

/* Wakes every waiter. The lock may be held or not. */
void kvbi_cond_broadcast(struct kvbi_cond *cond);

#endif
