/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words_read - see words.h
 *
 * Why        in a file of its own: memory that a GPU writes cannot be watched by the stand-in for
 *            CUDA, so in tests on it the host's look goes through a function of the stand-in's.
 */
#include "transfer/cuda/words.h"

uint32_t kvbi_cuda_word_read(const unsigned char *word)
{
    return atomic_load_explicit((const _Atomic uint32_t *)(const void *)word, memory_order_acquire);
}
