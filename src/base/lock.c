/* SPDX-License-Identifier: Apache-2.0 */
/* lock - see lock.h. */
#include "base/lock.h"

#include <errno.h>
#include <stddef.h>
#include <time.h>

#define NS_PER_SECOND 1000000000u

#if KVBI_DEBUG
/* What this thread holds, one place a rank: the order allows no two of the same. */
static _Thread_local const struct kvbi_lock *held[KVBI_RANK_COUNT];
static _Thread_local uint32_t steps; /* since it has taken the store's */
static _Thread_local uint64_t taken_count;

static void check_may_take(const struct kvbi_lock *lock)
{
    for (int rank = (int)lock->rank; rank < KVBI_RANK_COUNT; rank++)
        if (held[rank] != NULL)
            kvbi_debug_fail(held[rank] == lock ? "lock taken twice by one thread"
                                               : "lock taken out of rank order");
}

static void check_may_wait(const struct kvbi_lock *lock)
{
    kvbi_lock_assert_held(lock);
    for (int rank = (int)lock->rank + 1; rank < KVBI_RANK_COUNT; rank++)
        if (held[rank] != NULL)
            kvbi_debug_fail("waiting while holding a lock of higher rank");
}

void kvbi_lock_assert_held(const struct kvbi_lock *lock)
{
    if (held[lock->rank] != lock)
        kvbi_debug_fail("lock is not held by this thread");
}

void kvbi_lock_assert_none_held(void)
{
    for (int rank = 0; rank < KVBI_RANK_COUNT; rank++)
        if (held[rank] != NULL)
            kvbi_debug_fail("a lock is held where none may be");
}

uint64_t kvbi_lock_taken_count(void)
{
    return taken_count;
}

void kvbi_lock_step(void)
{
    steps++;
}

static void note_taken(const struct kvbi_lock *lock)
{
    taken_count++;
    held[lock->rank] = lock;
    if (lock->rank == KVBI_RANK_STORE)
        steps = 0;
}

static void note_released(struct kvbi_lock *lock)
{
    held[lock->rank] = NULL;
    if (lock->rank == KVBI_RANK_STORE && steps > lock->steps_max)
        lock->steps_max = steps;
}
#else
#define check_may_take(lock) ((void)0)
#define check_may_wait(lock) ((void)0)
#define note_taken(lock) ((void)0)
#define note_released(lock) ((void)0)
#endif

int kvbi_lock_init(struct kvbi_lock *lock, enum kvbi_rank rank)
{
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes) != 0)
        return KVB_ENOMEM;
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
    (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
    int failed = pthread_mutex_init(&lock->mutex, &attributes);
    (void)pthread_mutexattr_destroy(&attributes);
    lock->rank = rank;
    lock->section = 0;
#if KVBI_DEBUG
    lock->steps_max = 0;
#endif
    return failed ? KVB_ENOMEM : 0;
}

void kvbi_lock_fini(struct kvbi_lock *lock)
{
    int failed = pthread_mutex_destroy(&lock->mutex);
    KVBI_ASSERT(failed == 0);
    (void)failed;
}

void kvbi_lock_take(struct kvbi_lock *lock)
{
    check_may_take(lock);
    /* fails only for types of mutex that are not used here */
    (void)pthread_mutex_lock(&lock->mutex);
    lock->section++;
    note_taken(lock);
}

void kvbi_lock_release(struct kvbi_lock *lock)
{
    kvbi_lock_assert_held(lock);
    note_released(lock);
    (void)pthread_mutex_unlock(&lock->mutex);
}

int kvbi_cond_init(struct kvbi_cond *cond)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0)
        return KVB_ENOMEM;
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&cond->condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return failed ? KVB_ENOMEM : 0;
}

void kvbi_cond_fini(struct kvbi_cond *cond)
{
    (void)pthread_cond_destroy(&cond->condition);
}

void kvbi_cond_wait(struct kvbi_cond *cond, struct kvbi_lock *lock)
{
    check_may_wait(lock);
    note_released(lock);
    (void)pthread_cond_wait(&cond->condition, &lock->mutex);
    lock->section++;
    note_taken(lock);
}

int kvbi_cond_timedwait(struct kvbi_cond *cond, struct kvbi_lock *lock, uint64_t timeout_ns)
{
    /* Centuries are for ever, and keep the sum below within time_t. */
    if (timeout_ns > UINT64_MAX / 2) {
        kvbi_cond_wait(cond, lock);
        return 0;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns % NS_PER_SECOND;
    until.tv_sec += (time_t)(timeout_ns / NS_PER_SECOND + ns / NS_PER_SECOND);
    until.tv_nsec = (long)(ns % NS_PER_SECOND);

    check_may_wait(lock);
    note_released(lock);
    int result = pthread_cond_timedwait(&cond->condition, &lock->mutex, &until);
    lock->section++;
    note_taken(lock);
    return result == ETIMEDOUT ? KVB_ETIMEDOUT : 0;
}

void kvbi_cond_broadcast(struct kvbi_cond *cond)
{
    (void)pthread_cond_broadcast(&cond->condition);
}
