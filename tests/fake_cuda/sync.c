/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync - the stand-in's lock, hidden from ThreadSanitizer
 *
 * Owns the one mutex and the edges that ThreadSanitizer is told of.
 * Why hidden: a mutex that every call takes would order everything with everything, and a test that
 * forgets to wait for a copy would look clean. With its lock ignored, a stream's thread is ordered
 * with host threads by CUDA's rules alone: a task after its enqueueing, what observed its end after
 * it.
 * Invariants: memory of the stand-in itself is only touched between lock and unlock, where accesses
 * are ignored, too, or by the thread that runs the task.
 */
#include "internal.h"

#include <stdlib.h>

#if defined(__SANITIZE_THREAD__)
#define FAKE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FAKE_TSAN 1
#endif
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#ifdef FAKE_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);
void __tsan_acquire(void *key);
void __tsan_release(void *key);

static _Thread_local bool ignoring;

static void ignore_begin(void)
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    ignoring = true;
}

static void ignore_end(void)
{
    ignoring = false;
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

static void edge(void (*tell)(void *), void *key)
{
    bool hidden = ignoring;
    if (hidden)
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    tell(key);
    if (hidden)
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
}

void fake_edge_from(void *key)
{
    edge(__tsan_release, key);
}

void fake_edge_to(void *key)
{
    edge(__tsan_acquire, key);
}
#else
static void ignore_begin(void)
{
}

static void ignore_end(void)
{
}

void fake_edge_from(void *key)
{
    (void)key;
}

void fake_edge_to(void *key)
{
    (void)key;
}
#endif

void fake_lock(void)
{
    ignore_begin();
    if (pthread_mutex_lock(&lock))
        abort();
}

void fake_unlock(void)
{
    if (pthread_mutex_unlock(&lock))
        abort();
    ignore_end();
}

void fake_wait(pthread_cond_t *condition)
{
    if (pthread_cond_wait(condition, &lock))
        abort();
}
