/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words - numbers in pinned memory that a stream writes when it gets there
 *
 * Owns       the pinned memory, a cache line a word.
 * Callers    flights: create, write and destroy from progress; read from any thread.
 * Invariants a number that is read is written behind everything that its stream had before it: the
 *            driver puts a fence for the whole system in front of the write. Who writes a word has
 *            seen the write before it.
 * Lock       none.
 * Why        asking an event takes a lock of the driver's, which the server's launches want. A word
 *            is read without the driver. It never says that something went wrong: whoever waits for
 *            one has to ask the driver as well, though seldom.
 *            32 bits, because 64 are not for every device; two numbers that follow each other in
 *            one word differ, and no more is needed.
 */
#ifndef KVBI_TRANSFER_CUDA_WORDS_H
#define KVBI_TRANSFER_CUDA_WORDS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/cuda/device.h"

#define KVBI_WORD_BYTES 64u

struct kvbi_cuda_words {
    struct kvbi_cuda *cuda;
    unsigned char *host;       /* NULL: there are none, and nobody can write any */
    unsigned long long device; /* where the GPU finds the same memory */
};

/*
 * `count` words, all 0, and one write on `stream` as a trial, which is waited for. That the device
 * or driver does not write words is no error: then there are none. An error: the end of the trial
 * could not be waited for; its memory is left alone. Within enter and leave.
 */
cudaError_t kvbi_cuda_words_create(struct kvbi_cuda_words *words, struct kvbi_cuda_scope *scope,
                                   uint32_t count, cudaStream_t stream);
/* Within enter and leave, of a context that is not lost. Legal on a zeroed object. */
void kvbi_cuda_words_destroy(struct kvbi_cuda_words *words, struct kvbi_cuda_scope *scope);

/* Behind all that is on the stream. False: nothing will be written. */
bool kvbi_cuda_words_write(const struct kvbi_cuda_words *words, struct kvbi_cuda_scope *scope,
                           uint32_t index, uint32_t number, cudaStream_t stream);

/*
 * What the word has. Who reads the number of a write is ordered after all that was before that
 * write in its stream. words_read.c, or in tests on the stand-in a function that tells it so.
 */
uint32_t kvbi_cuda_word_read(const unsigned char *word);

static inline bool kvbi_cuda_words_has(const struct kvbi_cuda_words *words, uint32_t index,
                                       uint32_t number)
{
    return kvbi_cuda_word_read(words->host + (size_t)index * KVBI_WORD_BYTES) == number;
}

#endif
