/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words - numbers in pinned memory that a stream writes when it gets there: cuStreamWriteValue32,
 * behind driver.c's look-up
 *
 * Owns for each word that was ever written the point of the latest write that has run. A write has
 * a fence for the whole system in front of it, so that who sees the number has seen the end of
 * everything before it. That the host looks is known only if it says so: fake_cuda_read_word.
 */
#include "internal.h"

#include <stdlib.h>

struct word {
    const uint32_t *address;
    struct fake_point *point;
};

static struct word *words;
static size_t word_count;
static size_t word_capacity;

static struct word *find(const uint32_t *address)
{
    for (size_t i = 0; i < word_count; i++)
        if (words[i].address == address)
            return &words[i];
    return NULL;
}

void fake_word_written(struct fake_task *task)
{
    fake_lock();
    struct word *word = find(task->word);
    if (!word) {
        words = fake_grow(words, word_count, &word_capacity, sizeof *words);
        word = &words[word_count++];
        *word = (struct word){.address = task->word};
    }
    if (word->point)
        fake_point_unref(word->point);
    word->point = task->point;
    word->point->references++;
    __atomic_store_n(task->word, task->number, __ATOMIC_RELEASE);
    fake_edge_from(word->point);
    fake_unlock();
}

uint32_t fake_cuda_read_word(const void *pinned)
{
    fake_enter_helper();
    const struct word *word = find(pinned);
    uint32_t number = __atomic_load_n((const uint32_t *)pinned, __ATOMIC_ACQUIRE);
    if (word) {
        fake_host_observes(&word->point->clock);
        fake_edge_to(word->point);
    }
    fake_unlock();
    return number;
}

void fake_words_clear(void)
{
    for (size_t i = 0; i < word_count; i++)
        fake_point_unref(words[i].point);
    free(words);
    words = NULL;
    word_count = word_capacity = 0;
}

static cudaError_t write_value(struct fake_stream *stream, void *address, uint32_t number,
                               unsigned flags, const char *call)
{
    cudaError_t error = cudaSuccess;
    if (flags || (uintptr_t)address % sizeof number) {
        fake_report(FAKE_CUDA_MISUSE, "%s: flags %u, or %p is no place for 32 bits", call, flags,
                    address);
        error = cudaErrorInvalidValue;
    }
    if (!error)
        error = fake_memory_check(address, sizeof number, stream->device, call);
    if (!error && stream->capture != cudaStreamCaptureStatusNone) {
        fake_report(FAKE_CUDA_CAPTURE, "%s on stream %u, which captures", call,
                    fake_stream_slot(stream));
    } else if (!error) {
        struct fake_task *task = fake_task_new(FAKE_TASK_WORD, call);
        task->word = fake_storage(address);
        task->number = number;
        fake_spans_add(&task->writes, address, sizeof number);
        task->point = fake_point_new(&stream->clock);
        fake_stream_enqueue(stream, task, NULL);
        task->point->clock = stream->clock;
    }
    return error;
}

/* Its result is a CUresult, and no last error of the runtime's. */
int fake_write_value(cudaStream_t handle, unsigned long long address, uint32_t number,
                     unsigned flags)
{
    static const char call[] = "cuStreamWriteValue32";
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(call, 0, handle, &stream);
    if (!error)
        error = write_value(stream, (void *)(uintptr_t)address, number, flags, call);
    fake_unlock();
    return (int)error;
}
