/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fio - what fio's io_uring engine makes of the same file
 *
 * Owns       nothing: one child process a call, which is over when the call returns.
 * Callers    bench_disk. One thread.
 * Why        fio is told to do its best: registered buffers on huge pages, registered file,
 *            submission and completion in batches, no map of what it has touched, the same buffers
 *            again and again. Its own time of the I/O counts, not that of its start. It gives whole
 *            milliseconds, rounded up; half of one is taken off.
 */
#ifndef BENCH_FIO_H
#define BENCH_FIO_H

#include <stdbool.h>
#include <stdint.h>

struct fio_job {
    const char *path;
    uint64_t offset, region_bytes; /* of the file: where it may read and write */
    uint64_t block_bytes, move_bytes;
    uint32_t depth;
    bool write, sequential, direct;
};

struct fio_result {
    double seconds, cpu_seconds; /* of the I/O alone, user and system */
};

bool fio_is_there(void);

/* Ends the program if fio fails, or moves other than move_bytes. */
struct fio_result fio_run(const struct fio_job *job);

#endif
