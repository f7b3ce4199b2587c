/* SPDX-License-Identifier: Apache-2.0 */
/* words - see words.h. */
#include "transfer/cuda/words.h"

#include <string.h>

/* Nothing is reordered with the write: CU_STREAM_WRITE_VALUE_DEFAULT. */
#define IN_ORDER 0u
/* What the trial writes into the first word; flights begin with another. */
#define TRIAL UINT32_MAX

bool kvbi_cuda_words_write(const struct kvbi_cuda_words *words, struct kvbi_cuda_scope *scope,
                           uint32_t index, uint32_t number, cudaStream_t stream)
{
    if (words->host == NULL)
        return false;
    unsigned long long word = words->device + (unsigned long long)index * KVBI_WORD_BYTES;
    int refused = words->cuda->driver.write_value(stream, word, number, IN_ORDER);
    /* the driver's codes are the runtime's where they are about a context */
    return kvbi_cuda_check(scope, (cudaError_t)refused) == cudaSuccess;
}

/* Once more: a call may fail for want of something that comes back. */
static cudaError_t wait_for(struct kvbi_cuda_scope *scope, cudaStream_t stream)
{
    cudaError_t error = kvbi_cuda_check(scope, cudaStreamSynchronize(stream));
    return error == cudaSuccess ? error : kvbi_cuda_check(scope, cudaStreamSynchronize(stream));
}

cudaError_t kvbi_cuda_words_create(struct kvbi_cuda_words *words, struct kvbi_cuda_scope *scope,
                                   uint32_t count, cudaStream_t stream)
{
    void *host = NULL, *device = NULL;
    size_t bytes = (size_t)count * KVBI_WORD_BYTES;
    *words = (struct kvbi_cuda_words){.cuda = scope->cuda};
    if (scope->cuda->driver.write_value == NULL)
        return cudaSuccess;
    cudaError_t error = kvbi_cuda_check(
        scope, cudaHostAlloc(&host, bytes, cudaHostAllocPortable | cudaHostAllocMapped));
    if (error != cudaSuccess)
        return error;
    memset(host, 0, bytes);
    words->host = host;
    if (kvbi_cuda_check(scope, cudaHostGetDevicePointer(&device, host, 0)) == cudaSuccess) {
        words->device = (unsigned long long)(uintptr_t)device;
        if (kvbi_cuda_words_write(words, scope, 0, TRIAL, stream)) {
            error = wait_for(scope, stream);
            if (error == cudaSuccess && kvbi_cuda_words_has(words, 0, TRIAL))
                return cudaSuccess;
        }
    }
    if (error != cudaSuccess || kvbi_cuda_context_lost(scope->cuda))
        words->host = NULL; /* it may still be written, or cannot be freed */
    kvbi_cuda_words_destroy(words, scope);
    return error;
}

void kvbi_cuda_words_destroy(struct kvbi_cuda_words *words, struct kvbi_cuda_scope *scope)
{
    if (words->host != NULL)
        (void)kvbi_cuda_check(scope, cudaFreeHost(words->host));
    words->host = NULL;
}
