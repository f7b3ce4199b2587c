/* SPDX-License-Identifier: Apache-2.0 */
/* probe_on_gpu - the probe on the CUDA runtime itself. See probe.h. */
#include "probe.h"

#include <stdatomic.h>

const bool probe_on_stand_in = false;

static _Atomic bool held;

void probe_begin(void)
{
}

void probe_end(void)
{
}

static void stand(void *unused)
{
    (void)unused;
    while (atomic_load(&held))
        ;
}

void probe_hold(cudaStream_t stream)
{
    atomic_store(&held, true);
    (void)PROBE_NEED(cudaLaunchHostFunc(stream, stand, NULL));
}

void probe_release(cudaStream_t stream)
{
    (void)stream;
    atomic_store(&held, false);
}

cudaError_t probe_capture_begin(cudaStream_t stream)
{
    return cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
}

cudaError_t probe_capture_end(cudaStream_t stream)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamEndCapture(stream, &graph);
    if (graph != NULL)
        (void)PROBE_NEED(cudaGraphDestroy(graph));
    return error;
}

int probe_context_is_active(void)
{
    int (*state)(int device, unsigned *flags, int *active);
    unsigned flags = 0;
    int active = -1;
    if (!probe_driver("cuDevicePrimaryCtxGetState", 7000, &state) || state(0, &flags, &active) != 0)
        return -1;
    return active;
}

uint32_t probe_read_word(const void *word)
{
    return atomic_load_explicit((const _Atomic uint32_t *)word, memory_order_acquire);
}
