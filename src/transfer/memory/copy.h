/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying bytes from host memory to host memory, in the fastest way of this machine.
 *
 * Owns       the kernels and the choice between them. All copy the same bytes; ranges must not
 *            overlap.
 * Callers    transfer/memory/engine. Keep the pointer per engine. Any thread, no lock.
 * Invariants when a copy returns, a release store (an unlock) publishes all of its bytes: streaming
 *            kernels end in sfence.
 * Why        a block that moves between tiers is large, was not read lately, and will not be by
 *            this processor: stores that go past the caches do not fetch the target first. GB/s
 *            copied, random block to random block in 1 GiB arenas of huge pages, one thread, median
 *            of 9 interleaved rounds (EPYC, Zen 4, gcc 12):
 *                           16 KiB   64 KiB    1 MiB    4 MiB
 *            glibc memcpy      8.3      8.7      9.5      9.8
 *            AVX2 streaming   10.9     12.9     18.4     19.5
 *            AVX-512 ditto    10.9     12.4     17.1     18.0
 *            AVX-512 is not better, hence not here; on a Xeon neither.
 */
#ifndef KVBI_TRANSFER_MEMORY_COPY_H
#define KVBI_TRANSFER_MEMORY_COPY_H

#include <stddef.h>

#include "base/platform.h"

/*
 * Below this, streaming kernels are memcpy: short copies have hot ends, and a fence costs more than
 * it brings.
 */
#define KVBI_COPY_STREAM_BYTES ((size_t)16 << 10)

struct kvbi_copy_ops {
    void (*copy)(void *to, const void *from, size_t bytes);
    const char *name;
};

/* isa: at most what kvbi_isa_detect says. Never NULL. */
const struct kvbi_copy_ops *kvbi_copy_select(enum kvbi_isa isa);

/* For kvbi_copy_select only. The second exists on x86-64. */
extern const struct kvbi_copy_ops kvbi_copy_baseline;
extern const struct kvbi_copy_ops kvbi_copy_avx2;

#endif
