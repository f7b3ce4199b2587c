/* SPDX-License-Identifier: Apache-2.0 */
/* uring_ring - see uring_ring.h. */
#include "transfer/disk/uring_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transfer/disk/copy.h"
#include "transfer/disk/io.h"

/* What the kernel takes as one registered buffer. */
#define BUFFER_BYTES_MAX ((uint64_t)1 << 30)
/* IORING_MAX_REG_BUFFERS */
#define BUFFERS_MAX 16384

/* Flags of Linux 6.1, 5.19, 5.6 and 5.1: the first set that works is taken. */
static const unsigned flag_sets[] = {
    IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED |
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_CLAMP,
    0,
};
static const char *const flag_names[] = {"single issuer, deferred task running",
                                         "cooperative task running", "plain", "plain"};
#define FLAG_SETS (sizeof flag_sets / sizeof *flag_sets)

/* ---- Trial ----------------------------------------------------------------------------------- */

struct trial {
    const char *step; /* that failed */
    int error;
};

static bool failed(struct trial *trial, const char *step, int result)
{
    if (result >= 0)
        return false;
    *trial = (struct trial){.step = step, .error = -result};
    return true;
}

/* Not io_uring_enable_rings: Debian's liburing 2.3 declares it and does not export it. */
static int enable(struct io_uring *ring)
{
    return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

/* Submits the one prepared request and waits for it. Its result, or the system call's. */
static int complete_one(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    int result;
    do
        result = io_uring_submit_and_wait(ring, 1);
    while (result == -EINTR);
    if (result >= 0)
        result = io_uring_peek_cqe(ring, &cqe);
    if (result < 0)
        return result;
    result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result;
}

/* A page of each file, whatever is in it yet, through the ring. */
static int read_pages(struct io_uring *ring, const struct kvbi_disk *disk)
{
    _Alignas(KVBI_DISK_ALIGN) char page[KVBI_DISK_ALIGN], same[KVBI_DISK_ALIGN];
    for (uint32_t i = 0; i < disk->file_count; i++) {
        const struct kvbi_disk_file *file = &disk->files[i];
        uint64_t offset = file->superblock_at * KVBI_DISK_SUPERBLOCK_BYTES;
        memset(page, 0xa5, sizeof page);
        io_uring_prep_read(io_uring_get_sqe(ring), file->io.fd, page, sizeof page, offset);
        int result = complete_one(ring);
        if (result < 0)
            return result;
        if (result != (int)sizeof page ||
            kvbi_disk_read(file->io.fd, same, sizeof same, offset) != 0 ||
            memcmp(page, same, sizeof same) != 0)
            return -EIO;
    }
    return 0;
}

static bool try_flags(unsigned flags, const struct kvbi_disk *disk, struct trial *trial)
{
    struct io_uring ring;
    if (failed(trial, "io_uring_setup", io_uring_queue_init(4, &ring, flags)))
        return false;
    bool works = (flags & IORING_SETUP_R_DISABLED) == 0 ||
                 !failed(trial, "io_uring_register", enable(&ring));
    if (works) {
        io_uring_prep_nop(io_uring_get_sqe(&ring));
        works = !failed(trial, "io_uring_enter", complete_one(&ring));
    }
    if (works)
        works = !failed(trial, "a trial read", read_pages(&ring, disk));
    io_uring_queue_exit(&ring);
    return works;
}

static void say_refusal(const struct trial *trial, char *why)
{
    char disabled = '0';
    int used =
        snprintf(why, KVBI_ENGINE_SAID_BYTES, "%s: %s", trial->step, kvbi_errno_text(trial->error));
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, &disabled, 1) == 1 && disabled != '0')
        (void)snprintf(why + used, KVBI_ENGINE_SAID_BYTES - (size_t)used,
                       "; kernel.io_uring_disabled is %c", disabled);
    (void)close(fd);
}

/* ---- Registration ---------------------------------------------------------------------------- */

static uint32_t blocks_per_buffer(const struct kvbi_tier *tier)
{
    uint64_t blocks = BUFFER_BYTES_MAX / tier->block_bytes;
    return blocks < tier->block_count ? (uint32_t)blocks : tier->block_count;
}

/* Which tiers can be registered. How many buffers they take. */
static uint32_t plan_ranges(struct kvbi_uring_ring *ring,
                            const struct kvbi_disk_engine_config *config)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->memory_count; i++) {
        const struct kvbi_tier *tier = config->memories[i];
        uint32_t blocks = blocks_per_buffer(tier);
        if (blocks == 0 || kvbi_disk_bounces(config->disk, tier))
            continue;
        uint64_t buffers = (tier->block_count + (uint64_t)blocks - 1) / blocks;
        if (count + buffers > BUFFERS_MAX - 1)
            continue;
        ring->ranges[ring->range_count++] =
            (struct kvbi_uring_range){.tier = tier, .first = count, .blocks = blocks};
        count += (uint32_t)buffers;
    }
    return count;
}

static void list_buffers(const struct kvbi_uring_range *range, struct iovec *buffers)
{
    uint32_t i = range->first;
    for (uint32_t slot = 0; slot < range->tier->block_count; i++) {
        uint32_t left = range->tier->block_count - slot,
                 blocks = left < range->blocks ? left : range->blocks;
        buffers[i] = (struct iovec){.iov_base = kvbi_tier_address(range->tier, slot),
                                    .iov_len = (size_t)(blocks * range->tier->block_bytes)};
        slot += blocks;
    }
}

/*
 * Pages that are registered are copied to a child at fork(2), all at once: memory taken by this
 * library is kept out of children, who get KVB_EFORK anyway. The caller's memory is the caller's to
 * decide about.
 */
static void keep_from_children(const struct kvbi_uring_ring *ring, bool keep)
{
    uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    for (uint32_t i = 0; i < ring->range_count; i++) {
        const struct kvbi_tier *tier = ring->ranges[i].tier;
        uintptr_t start = ((uintptr_t)tier->base + mask) & ~mask;
        uintptr_t end = ((uintptr_t)tier->base + tier->block_count * tier->block_bytes) & ~mask;
        if (tier->owned && end > start)
            (void)madvise((void *)start, end - start, keep ? MADV_DONTFORK : MADV_DOFORK);
    }
}

/* 0 or an errno; without, everything works the same, with more CPU per block. */
static int register_buffers(struct kvbi_uring_ring *ring, const struct kvbi_memory *memory,
                            const struct kvbi_disk_engine_config *config, void *bounce,
                            size_t bounce_bytes)
{
    uint32_t count = plan_ranges(ring, config), total = count + (bounce != NULL);
    int result = 0;
    if (total == 0)
        return 0;
    struct iovec *buffers = kvbi_memory_alloc_raw(memory, total, sizeof *buffers, 0);
    if (buffers == NULL)
        return ENOMEM;
    for (uint32_t i = 0; i < ring->range_count; i++)
        list_buffers(&ring->ranges[i], buffers);
    if (bounce != NULL)
        buffers[count] = (struct iovec){.iov_base = bounce, .iov_len = bounce_bytes};
    result = io_uring_register_buffers(&ring->ring, buffers, total);
    kvbi_memory_free(memory, buffers, total, sizeof *buffers);
    ring->bounce_index = count;
    ring->fixed_buffers = result == 0;
    if (ring->fixed_buffers)
        keep_from_children(ring, true);
    else
        ring->range_count = 0;
    return -result;
}

int kvbi_uring_buffer_of(const struct kvbi_uring_ring *ring, const struct kvbi_tier *tier,
                         uint32_t slot)
{
    for (uint32_t i = 0; i < ring->range_count; i++)
        if (ring->ranges[i].tier == tier)
            return (int)(ring->ranges[i].first + slot / ring->ranges[i].blocks);
    return -1;
}

/*
 * 0 or an errno. Not liburing's io_uring_register_files: that one raises RLIMIT_NOFILE of the whole
 * process if need be.
 */
static int register_files(const struct kvbi_uring_ring *ring, const struct kvbi_disk *disk)
{
    int fds[KVBI_DISK_FILES_MAX];
    for (uint32_t i = 0; i < disk->file_count; i++)
        fds[i] = disk->files[i].io.fd;
    return -io_uring_register((unsigned)ring->ring.ring_fd, IORING_REGISTER_FILES, fds,
                              disk->file_count);
}

/* ---- Open and close -------------------------------------------------------------------------- */

static void say_how(const struct kvbi_uring_ring *ring,
                    const struct kvbi_disk_engine_config *config, size_t set, int file_error,
                    int buffer_error, char *why)
{
    char file[64] = "fixed file", buffers[96] = "fixed buffers";
    if (file_error != 0)
        (void)snprintf(file, sizeof file, "file not registered: %s", kvbi_errno_text(file_error));
    if (!ring->fixed_buffers)
        (void)snprintf(buffers, sizeof buffers, "buffers not registered: %s",
                       buffer_error != 0 ? kvbi_errno_text(buffer_error) : "asked for");
    (void)snprintf(why, KVBI_ENGINE_SAID_BYTES, "uring (%s), %s, %s, %s", flag_names[set],
                   config->disk->mode, file, buffers);
}

/*
 * Without deferred task running the ring's own descriptor serves, unless a thread is to wake who
 * sleeps on it.
 */
static int register_wake(struct kvbi_uring_ring *ring, const struct kvbi_disk_engine_config *config)
{
    bool needed = (ring->flags & IORING_SETUP_DEFER_TASKRUN) != 0;
    if (!needed && config->poll)
        return 0;
    if (kvbi_wake_create(&ring->wake) != 0)
        return -EMFILE;
    int result =
        io_uring_register((unsigned)ring->ring.ring_fd, IORING_REGISTER_EVENTFD, &ring->wake.fd, 1);
    if (result >= 0 || needed)
        return result;
    kvbi_wake_destroy(&ring->wake);
    return 0;
}

int kvbi_uring_ring_open(struct kvbi_uring_ring *ring, const struct kvbi_memory *memory,
                         const struct kvbi_disk_engine_config *config, uint32_t entries,
                         void *bounce, size_t bounce_bytes, char *why)
{
    struct trial trial = {.step = NULL};
    size_t set = config->single_issuer ? 0 : 1;
    *ring = (struct kvbi_uring_ring){.ring = {.ring_fd = -1}, .wake = {.fd = -1}};
    while (set < FLAG_SETS && !try_flags(flag_sets[set], config->disk, &trial))
        set++;
    if (set < FLAG_SETS)
        (void)failed(&trial, "io_uring_setup",
                     io_uring_queue_init(entries, &ring->ring, flag_sets[set]));
    if (set == FLAG_SETS || ring->ring.ring_fd < 0) {
        say_refusal(&trial, why);
        return KVB_EUNSUPPORTED;
    }
    ring->flags = flag_sets[set];
    if (failed(&trial, "an eventfd", register_wake(ring, config))) {
        say_refusal(&trial, why);
        kvbi_uring_ring_close(ring, false);
        return KVB_EUNSUPPORTED;
    }
    ring->enabled = (ring->flags & IORING_SETUP_R_DISABLED) == 0;
    /* a child that touches it then is ended by the kernel, not our requests */
    (void)io_uring_ring_dontfork(&ring->ring);
    int file_error = register_files(ring, config->disk);
    ring->fixed_file = file_error == 0;
    int buffer_error =
        config->unregistered ? 0 : register_buffers(ring, memory, config, bounce, bounce_bytes);
    say_how(ring, config, set, file_error, buffer_error, why);
    return 0;
}

int kvbi_uring_ring_enable(struct kvbi_uring_ring *ring)
{
    int result = ring->enabled ? 0 : enable(&ring->ring);
    ring->enabled = true;
    return result < 0 ? -result : 0;
}

void kvbi_uring_ring_close(struct kvbi_uring_ring *ring, bool in_child)
{
    if (ring->ring.ring_fd < 0)
        return;
    kvbi_wake_destroy(&ring->wake);
    if (in_child) {
        (void)close(ring->ring.ring_fd);
        return;
    }
    io_uring_queue_exit(&ring->ring);
    keep_from_children(ring, false);
    *ring = (struct kvbi_uring_ring){.ring = {.ring_fd = -1}, .wake = {.fd = -1}};
}

int kvbi_uring_ring_fd(const struct kvbi_uring_ring *ring)
{
    return ring->wake.fd >= 0 ? ring->wake.fd : ring->ring.ring_fd;
}

void kvbi_uring_ring_drain(const struct kvbi_uring_ring *ring)
{
    if (ring->wake.fd >= 0)
        (void)kvbi_wake_drain(&ring->wake);
}

bool kvbi_uring_ring_has_task_work(const struct kvbi_uring_ring *ring)
{
    return (IO_URING_READ_ONCE(*ring->ring.sq.kflags) & IORING_SQ_TASKRUN) != 0;
}
