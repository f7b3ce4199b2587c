/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bare_loop - what io_uring alone makes of the same bytes: no cache, no names, no checksums
 *
 * Owns       a ring of its own, a descriptor of the file, memory as large as the host tier.
 * Callers    bench_disk. One thread.
 * Invariants `depth` I/Os are in flight until the last is submitted; each is one piece, 1 MiB or a
 *            block, whichever is less. Anything but the full length ends the program.
 * Why        it is as good as it can be made: single issuer with deferred task running, registered
 *            file and buffer, huge pages, O_DIRECT, each where the kernel has it; every completion
 *            is replaced at once; it sleeps when there is none.
 */
#ifndef BENCH_BARE_LOOP_H
#define BENCH_BARE_LOOP_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#define PIECE_BYTES ((uint64_t)1 << 20)

/*
 * Where the first slot lies in the library's file. A wrong guess would be told by the checksums of
 * its neighbours.
 */
#define DATA_OFFSET ((uint64_t)1 << 20)

struct bare_loop {
    struct io_uring ring;
    int fd;
    bool direct, fixed_file, fixed_buffer;
    unsigned char *memory;
    uint64_t block_bytes, memory_bytes;
    uint32_t block_count; /* in memory */
    uint32_t depth;       /* pieces in flight */
};

/* False: no io_uring here. The file must exist. Other failures end the program. */
bool bare_loop_create(struct bare_loop *loop, const char *path, uint64_t block_bytes,
                      uint32_t block_count, uint32_t depth);
void bare_loop_destroy(struct bare_loop *loop);

/* Moves `count` blocks, the i-th between memory and slot slots[i] of the file. ns */
uint64_t bare_loop_move(struct bare_loop *loop, bool write, const uint32_t *slots, uint32_t count);

/* Memory on huge pages where there are any, touched. */
unsigned char *arena_take(uint64_t bytes);
void arena_free(unsigned char *memory, uint64_t bytes);

#endif
