/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_on_stand_in - the probe on the stand-in for CUDA. See probe.h.
 *
 * Why        reports are dropped: a question is often just what the stand-in reports.
 */
#include "probe.h"

#include "fake_cuda.h"

const bool probe_on_stand_in = true;

void probe_begin(void)
{
    fake_cuda_start(&(struct fake_cuda_config){.seed = 0});
}

void probe_end(void)
{
    for (int kind = FAKE_CUDA_RACE; kind <= FAKE_CUDA_LEAK; kind++)
        (void)fake_cuda_take_reports((enum fake_cuda_report_kind)kind);
    (void)fake_cuda_end();
}

void probe_hold(cudaStream_t stream)
{
    (void)PROBE_NEED(cudaStreamSynchronize(stream)); /* it would stop what has not run yet, too */
    fake_cuda_hold(stream);
}

void probe_release(cudaStream_t stream)
{
    fake_cuda_release(stream);
}

cudaError_t probe_capture_begin(cudaStream_t stream)
{
    return fake_cuda_capture_begin(stream, cudaStreamCaptureModeGlobal);
}

cudaError_t probe_capture_end(cudaStream_t stream)
{
    return fake_cuda_capture_end(stream);
}

int probe_context_is_active(void)
{
    return fake_cuda_has_context(0);
}

bool probe_kernels_available(void)
{
    return true;
}

static void nothing(void *unused)
{
    (void)unused;
}

cudaError_t probe_kernel_empty(cudaStream_t stream)
{
    return fake_cuda_kernel(stream, nothing, NULL, 0, NULL, 0);
}

cudaError_t probe_kernel_gather(unsigned thread_blocks, const struct kvbi_gather *gather,
                                cudaStream_t stream)
{
    struct kvbi_gather given = *gather;
    given.grid = thread_blocks;
    return kvbi_gather_launch(&given, stream);
}

/* It learns what the host has seen. */
uint32_t probe_read_word(const void *word)
{
    return fake_cuda_read_word(word);
}
