/* SPDX-License-Identifier: Apache-2.0 */
/* See cuda_fake_scene.h. */
#include "support/cuda_fake_scene.h"

#include <stdatomic.h>
#include <string.h>

void fake_scene_open(struct fake_scene *scene)
{
    CUDA(cudaStreamCreateWithFlags(&scene->compute, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&scene->copy, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&scene->event, cudaEventDisableTiming));
    CUDA(cudaMalloc((void **)&scene->device, FAKE_BYTES));
    CUDA(cudaHostAlloc((void **)&scene->host, FAKE_BYTES, cudaHostAllocPortable));
}

bool fake_scene_close(struct fake_scene *scene)
{
    bool good = cudaStreamSynchronize(scene->compute) == cudaSuccess;
    good = cudaStreamSynchronize(scene->copy) == cudaSuccess && good;
    good = cudaFree(scene->device) == cudaSuccess && good;
    good = cudaFreeHost(scene->host) == cudaSuccess && good;
    good = cudaEventDestroy(scene->event) == cudaSuccess && good;
    good = cudaStreamDestroy(scene->compute) == cudaSuccess && good;
    return cudaStreamDestroy(scene->copy) == cudaSuccess && good;
}

int fake_scene_setup(void **state)
{
    static struct fake_scene scene;
    *state = &scene;
    fake_cuda_start(&(struct fake_cuda_config){.devices = 2});
    fake_scene_open(&scene);
    return 0;
}

int fake_scene_teardown(void **state)
{
    fake_cuda_release(NULL); /* what a test that has failed holds */
    bool good = fake_scene_close(*state);
    if (!good)
        print_error("the scene's end has failed: %s\n", cudaGetErrorName(cudaPeekAtLastError()));
    return fake_cuda_end() == 0 && good ? 0 : -1;
}

int broken_scene_teardown(void **state)
{
    (void)state;
    return fake_cuda_end() == 0 ? 0 : -1;
}

void fake_expect_report(enum fake_cuda_report_kind kind)
{
    assert_true(fake_cuda_take_report(kind));
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void fill(void *arguments)
{
    const struct fake_cuda_range *range = arguments;
    memset(fake_cuda_storage(range->start), 'k', range->bytes);
}

void fake_scene_launch_writer(cudaStream_t stream, const void *start, size_t bytes)
{
    struct fake_cuda_range range = {.start = start, .bytes = bytes, .written = true};
    CUDA(fake_cuda_kernel(stream, fill, &range, sizeof range, &range, 1));
}

void fake_scene_launch_reader(cudaStream_t stream, const void *start, size_t bytes)
{
    struct fake_cuda_range range = {.start = start, .bytes = bytes};
    CUDA(fake_cuda_kernel(stream, NULL, NULL, 0, &range, 1));
}

void fake_set_flag(void *flag)
{
    atomic_store((atomic_int *)flag, 1);
}

void fake_scene_copy_down(struct fake_scene *scene)
{
    CUDA(cudaMemcpyAsync(scene->host, scene->device, FAKE_BYTES, cudaMemcpyDeviceToHost,
                         scene->copy));
}

void fake_scene_copy_up(struct fake_scene *scene)
{
    CUDA(cudaMemcpyAsync(scene->device, scene->host, FAKE_BYTES, cudaMemcpyHostToDevice,
                         scene->copy));
}

void fake_scene_wait_across(struct fake_scene *scene, cudaStream_t from, cudaStream_t to)
{
    CUDA(cudaEventRecord(scene->event, from));
    CUDA(cudaStreamWaitEvent(to, scene->event, 0));
}
