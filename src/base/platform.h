/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platform - what is asked of the operating system and the processor
 *
 * Owns fork detection, thread start, random numbers, wake-up descriptors and the choice of
 * instruction set.
 * Callers: anything in src/. Lock: none; every object here is safe to use from any thread once
 * created.
 * Why a wiped page for fork: MADV_WIPEONFORK makes the kernel hand a child zeroes, so one load
 * tells a child from its parent. getpid() would be a system call (80 ns) at each call of the
 * library, and atfork handlers are process-wide state that an embedded library may not leave
 * behind.
 */
#ifndef KVBI_BASE_PLATFORM_H
#define KVBI_BASE_PLATFORM_H

#include <kvblock.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct kvbi_fork_guard {
    const volatile uint64_t *page; /* NULL: compare process ids */
    size_t page_bytes;
    pid_t owner;
};

/*
 * KVB_ENOMEM: no page. Without MADV_WIPEONFORK (Linux < 4.14, some sandboxes) falls back to
 * comparing process ids.
 */
KVB_NODISCARD int kvbi_fork_guard_create(struct kvbi_fork_guard *guard);

/* The fallback itself; takes nothing from the system and needs no destroy. */
void kvbi_fork_guard_create_by_pid(struct kvbi_fork_guard *guard);

/* Legal in parent and child, and on a zeroed guard. */
void kvbi_fork_guard_destroy(struct kvbi_fork_guard *guard);

/* True in any process forked since create. */
bool kvbi_fork_guard_is_child(const struct kvbi_fork_guard *guard);

/*
 * Starts a thread that blocks every signal: they belong to the host application. name: cut after 15
 * bytes.
 * KVB_ENOMEM: the system refuses one more thread.
 */
KVB_NODISCARD int kvbi_thread_start(pthread_t *thread, const char *name, void *(*run)(void *),
                                    void *argument);

/* KVB_EUNSUPPORTED: the kernel, or a sandbox, gives none; *value is 0 then. */
KVB_NODISCARD int kvbi_random_u64(uint64_t *value);

/* An eventfd: readable from signal until drain. */
struct kvbi_wake {
    int fd;
};

/* KVB_ENOMEM: no descriptor left. `wake->fd` is -1 then, which destroy accepts. */
KVB_NODISCARD int kvbi_wake_create(struct kvbi_wake *wake);
void kvbi_wake_destroy(struct kvbi_wake *wake);
void kvbi_wake_signal(const struct kvbi_wake *wake);
/* True if it had been signalled since the last drain. */
bool kvbi_wake_drain(const struct kvbi_wake *wake);
int kvbi_wake_fd(const struct kvbi_wake *wake);

enum kvbi_isa { KVBI_ISA_BASELINE, KVBI_ISA_AVX2, KVBI_ISA_AVX512 };

/* The best that this processor and kernel run. */
enum kvbi_isa kvbi_isa_detect(void);

#endif
