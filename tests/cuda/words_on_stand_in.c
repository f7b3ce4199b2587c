/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words_on_stand_in - in place of words_read.c in tests: the stand-in learns that the host has seen
 * the word, and with it everything before the write
 */
#include "fake_cuda.h"
#include "transfer/cuda/words.h"

uint32_t kvbi_cuda_word_read(const unsigned char *word)
{
    return fake_cuda_read_word(word);
}
