/* SPDX-License-Identifier: Apache-2.0 */
/* bare_loop - see bare_loop.h. */
#include "bare_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "contents.h"
#include "rows.h"

#define HUGE_PAGE ((uint64_t)2 << 20)

unsigned char *arena_take(uint64_t bytes)
{
    uint64_t length = bytes + HUGE_PAGE;
    unsigned char *memory =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        CALL(KVB_ENOMEM);
    uint64_t head = -(uint64_t)(uintptr_t)memory & (HUGE_PAGE - 1);
    if (head > 0)
        (void)munmap(memory, head);
    (void)munmap(memory + head + bytes, HUGE_PAGE - head);
    (void)madvise(memory + head, bytes, MADV_HUGEPAGE);
    memset(memory + head, 1, bytes);
    return memory + head;
}

void arena_free(unsigned char *memory, uint64_t bytes)
{
    (void)munmap(memory, bytes);
}

static void fail(const char *what, int error)
{
    (void)fprintf(stderr, "bench_disk: the bare loop: %s: %s\n", what, strerror(error));
    exit(2);
}

static bool open_ring(struct bare_loop *loop)
{
    static const unsigned flag_sets[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                         IORING_SETUP_COOP_TASKRUN, 0};
    int error = -1;
    for (uint32_t i = 0; error != 0 && i < sizeof flag_sets / sizeof *flag_sets; i++)
        error = io_uring_queue_init(loop->depth, &loop->ring, flag_sets[i]);
    return error == 0;
}

bool bare_loop_create(struct bare_loop *loop, const char *path, uint64_t block_bytes,
                      uint32_t block_count, uint32_t depth)
{
    *loop = (struct bare_loop){.block_bytes = block_bytes,
                               .memory_bytes = block_bytes * block_count,
                               .block_count = block_count,
                               .depth = depth,
                               .direct = true};
    if (!open_ring(loop))
        return false;
    loop->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (loop->fd < 0 && errno == EINVAL) {
        loop->direct = false;
        loop->fd = open(path, O_RDWR | O_CLOEXEC);
    }
    if (loop->fd < 0)
        fail(path, errno);
    loop->memory = arena_take(loop->memory_bytes);
    struct iovec buffer = {.iov_base = loop->memory, .iov_len = loop->memory_bytes};
    loop->fixed_file = io_uring_register_files(&loop->ring, &loop->fd, 1) == 0;
    loop->fixed_buffer = io_uring_register_buffers(&loop->ring, &buffer, 1) == 0;
    return true;
}

void bare_loop_destroy(struct bare_loop *loop)
{
    io_uring_queue_exit(&loop->ring);
    (void)close(loop->fd);
    arena_free(loop->memory, loop->memory_bytes);
}

static void prepare(struct bare_loop *loop, bool write, uint32_t slot, uint32_t memory_slot,
                    uint64_t at, unsigned bytes)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
    unsigned char *memory = loop->memory + memory_slot * loop->block_bytes + at;
    uint64_t offset = DATA_OFFSET + slot * loop->block_bytes + at;
    int fd = loop->fixed_file ? 0 : loop->fd;
    if (write && loop->fixed_buffer)
        io_uring_prep_write_fixed(sqe, fd, memory, bytes, offset, 0);
    else if (write)
        io_uring_prep_write(sqe, fd, memory, bytes, offset);
    else if (loop->fixed_buffer)
        io_uring_prep_read_fixed(sqe, fd, memory, bytes, offset, 0);
    else
        io_uring_prep_read(sqe, fd, memory, bytes, offset);
    if (loop->fixed_file)
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, bytes);
}

/* How many pieces have completed; all of them in full, or the program ends. */
static uint32_t harvest(struct bare_loop *loop)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe (&loop->ring, head, cqe) {
        if (cqe->res < 0 || (uint64_t)cqe->res != cqe->user_data)
            fail(cqe->res < 0 ? "an I/O" : "an I/O came back short",
                 cqe->res < 0 ? -cqe->res : EIO);
        count++;
    }
    io_uring_cq_advance(&loop->ring, count);
    return count;
}

uint64_t bare_loop_move(struct bare_loop *loop, bool write, const uint32_t *slots, uint32_t count)
{
    uint64_t piece = loop->block_bytes < PIECE_BYTES ? loop->block_bytes : PIECE_BYTES;
    uint32_t next = 0, flying = 0;
    uint64_t at = 0, since = now_ns();
    while (next < count || flying > 0) {
        for (; next < count && flying < loop->depth; flying++) {
            prepare(loop, write, slots[next], next, at, (unsigned)piece);
            at += piece;
            next += at == loop->block_bytes;
            at = at == loop->block_bytes ? 0 : at;
        }
        int result = io_uring_submit_and_wait(&loop->ring, 1);
        if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
            fail("io_uring_enter", -result);
        flying -= harvest(loop);
    }
    return now_ns() - since;
}
