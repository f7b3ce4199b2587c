/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_avx2 - streaming copy for x86-64 with AVX2; empty elsewhere. See copy.h.
 *
 * The target attribute lets this one function use AVX2, so that the file needs no flags and no
 * other code in it can hold such an instruction.
 */
#include "transfer/memory/copy.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LINE_BYTES 64u
#define STEP_BYTES 256u

/* Whole lines only: a line of which a part is streamed costs a read, a merge and a write. */
__attribute__((target("avx2"))) static void stream(unsigned char *to, const unsigned char *from,
                                                   size_t bytes)
{
    for (size_t at = 0; at < bytes; at += STEP_BYTES) {
        const __m256i *source = (const __m256i *)(const void *)(from + at);
        __m256i *target = (__m256i *)(void *)(to + at);
        __m256i a = _mm256_loadu_si256(source), b = _mm256_loadu_si256(source + 1);
        __m256i c = _mm256_loadu_si256(source + 2), d = _mm256_loadu_si256(source + 3);
        __m256i e = _mm256_loadu_si256(source + 4), f = _mm256_loadu_si256(source + 5);
        __m256i g = _mm256_loadu_si256(source + 6), h = _mm256_loadu_si256(source + 7);
        _mm256_stream_si256(target, a);
        _mm256_stream_si256(target + 1, b);
        _mm256_stream_si256(target + 2, c);
        _mm256_stream_si256(target + 3, d);
        _mm256_stream_si256(target + 4, e);
        _mm256_stream_si256(target + 5, f);
        _mm256_stream_si256(target + 6, g);
        _mm256_stream_si256(target + 7, h);
    }
    _mm_sfence();
}

static void copy_avx2(void *to, const void *from, size_t bytes)
{
    unsigned char *target = to;
    const unsigned char *source = from;
    if (bytes < KVBI_COPY_STREAM_BYTES) {
        kvbi_copy_baseline.copy(to, from, bytes);
        return;
    }
    size_t head = (size_t)(-(uintptr_t)target & (LINE_BYTES - 1));
    size_t middle = (bytes - head) & ~(size_t)(STEP_BYTES - 1);
    memcpy(target, source, head);
    stream(target + head, source + head, middle);
    memcpy(target + head + middle, source + head + middle, bytes - head - middle);
}

const struct kvbi_copy_ops kvbi_copy_avx2 = {.copy = copy_avx2, .name = "avx2"};
#endif
