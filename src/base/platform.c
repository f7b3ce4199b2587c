/* SPDX-License-Identifier: Apache-2.0 */
/* platform - see platform.h. */
#include "base/platform.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define FORK_GUARD_MAGIC UINT64_C(0x6b76626c6f636b21)

void kvbi_fork_guard_create_by_pid(struct kvbi_fork_guard *guard)
{
    *guard = (struct kvbi_fork_guard){.page = NULL, .page_bytes = 0, .owner = getpid()};
}

int kvbi_fork_guard_create(struct kvbi_fork_guard *guard)
{
    kvbi_fork_guard_create_by_pid(guard);
    size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return KVB_ENOMEM;
    if (madvise(page, bytes, MADV_WIPEONFORK) != 0) {
        (void)munmap(page, bytes);
        return 0;
    }
    *(uint64_t *)page = FORK_GUARD_MAGIC;
    guard->page = page;
    guard->page_bytes = bytes;
    return 0;
}

void kvbi_fork_guard_destroy(struct kvbi_fork_guard *guard)
{
    if (guard->page != NULL)
        (void)munmap((void *)(uintptr_t)guard->page, guard->page_bytes);
    *guard = (struct kvbi_fork_guard){.page = NULL, .page_bytes = 0, .owner = 0};
}

bool kvbi_fork_guard_is_child(const struct kvbi_fork_guard *guard)
{
    if (guard->page != NULL)
        return *guard->page != FORK_GUARD_MAGIC;
    return getpid() != guard->owner;
}

int kvbi_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    char cut[16] = {0};

    /*
     * A thread inherits the mask of its creator: blocking here leaves no moment in which it could
     * take a signal.
     */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(thread, NULL, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return KVB_ENOMEM;
    memcpy(cut, name, strnlen(name, sizeof cut - 1));
    (void)pthread_setname_np(*thread, cut); /* fails without /proc; a name is a convenience */
    return 0;
}

int kvbi_random_u64(uint64_t *value)
{
    ssize_t got;
    do
        got = getrandom(value, sizeof *value, 0);
    while (got < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof *value) /* the kernel never cuts reads of up to 256 bytes short */
        return 0;
    *value = 0;
    return KVB_EUNSUPPORTED;
}

int kvbi_wake_create(struct kvbi_wake *wake)
{
    wake->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return wake->fd < 0 ? KVB_ENOMEM : 0;
}

void kvbi_wake_destroy(struct kvbi_wake *wake)
{
    if (wake->fd >= 0)
        (void)close(wake->fd);
    wake->fd = -1;
}

void kvbi_wake_signal(const struct kvbi_wake *wake)
{
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(wake->fd, &one, sizeof one);
    /* EAGAIN: the counter is full, so the descriptor is readable already */
    while (written < 0 && errno == EINTR);
}

bool kvbi_wake_drain(const struct kvbi_wake *wake)
{
    uint64_t count;
    ssize_t got;
    do
        got = read(wake->fd, &count, sizeof count);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof count;
}

int kvbi_wake_fd(const struct kvbi_wake *wake)
{
    return wake->fd;
}

enum kvbi_isa kvbi_isa_detect(void)
{
#if defined(__x86_64__)
    /* Asks the kernel's part too: false where it does not save the wide registers. */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2"))
        return KVBI_ISA_BASELINE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        return KVBI_ISA_AVX512;
    return KVBI_ISA_AVX2;
#else
    return KVBI_ISA_BASELINE;
#endif
}
