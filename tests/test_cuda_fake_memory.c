/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stand-in for the CUDA runtime: memory of every kind, copies of every shape. Each check fires
 * when it should, and only then.
 */
#include "support/cuda_fake_scene.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Memory ---------------------------------------------------------------------------------- */

static void test_pageable_memory_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    char *pageable = calloc(1, FAKE_BYTES);
    assert_int_equal(
        cudaMemcpyAsync(scene->device, pageable, FAKE_BYTES, cudaMemcpyHostToDevice, scene->copy),
        cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_PAGEABLE);
    free(pageable);
}

static void test_registered_memory_is_taken_until_it_is_unregistered(void **state)
{
    struct fake_scene *scene = *state;
    char *memory = aligned_alloc(4096, FAKE_BYTES);
    CUDA(cudaHostRegister(memory, FAKE_BYTES, cudaHostRegisterPortable));
    assert_true(fake_cuda_is_pinned(memory, FAKE_BYTES));
    memset(memory, 'r', FAKE_BYTES);
    CUDA(cudaMemcpyAsync(scene->device, memory, FAKE_BYTES, cudaMemcpyDefault, scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaHostUnregister(memory));
    assert_false(fake_cuda_is_pinned(memory, 1));
    assert_int_equal(cudaMemcpyAsync(scene->device, memory, 1, cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_PAGEABLE);
    assert_int_equal(fake_cuda_compare(scene->device, memset(memory, 'r', FAKE_BYTES), FAKE_BYTES),
                     0);
    free(memory);
}

static void test_copy_across_two_registrations_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    char *memory = aligned_alloc(4096, FAKE_BYTES);
    CUDA(cudaHostRegister(memory, FAKE_BYTES / 2, 0));
    CUDA(cudaHostRegister(memory + FAKE_BYTES / 2, FAKE_BYTES / 2, 0));
    CUDA(cudaMemcpyAsync(memory, scene->device, FAKE_BYTES / 2, cudaMemcpyDefault, scene->copy));
    assert_int_equal(cudaMemcpyAsync(memory + FAKE_BYTES / 2 - 8, scene->device, 16,
                                     cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_BOUNDS);
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaHostUnregister(memory));
    CUDA(cudaHostUnregister(memory + FAKE_BYTES / 2));
    free(memory);
}

static void test_registration_beyond_the_limits_fails(void **state)
{
    (void)state;
    char *memory = aligned_alloc(4096, 3 * 4096);
    fake_cuda_start(&(struct fake_cuda_config){.register_bytes = 4096, .pinned_bytes = 2 * 4096});
    /* too much for one call */
    assert_int_equal(cudaHostRegister(memory, 2 * 4096, 0), cudaErrorMemoryAllocation);
    CUDA(cudaHostRegister(memory, 4096, 0));
    CUDA(cudaHostRegister(memory + 4096, 4096, 0));
    /* too much in all */
    assert_int_equal(cudaHostRegister(memory + 2 * 4096, 4096, 0), cudaErrorMemoryAllocation);
    CUDA(cudaHostUnregister(memory));
    CUDA(cudaHostRegister(memory + 2 * 4096, 4096, 0));
    CUDA(cudaHostUnregister(memory + 4096));
    CUDA(cudaHostUnregister(memory + 2 * 4096));
    assert_int_equal(fake_cuda_end(), 0);
    free(memory);
}

static void test_registering_what_is_registered_or_not_there_fails(void **state)
{
    (void)state;
    char *memory = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CUDA(cudaHostRegister(memory, 100, 0));
    /* the same page */
    assert_int_equal(cudaHostRegister(memory + 200, 100, 0), cudaErrorHostMemoryAlreadyRegistered);
    CUDA(cudaHostUnregister(memory));
    assert_int_equal(cudaHostUnregister(memory), cudaErrorHostMemoryNotRegistered);
    fake_expect_report(FAKE_CUDA_BAD_HANDLE);
    munmap(memory + 4096, 4096);
    assert_int_equal(cudaHostRegister(memory, 2 * 4096, 0), cudaErrorInvalidValue);
    munmap(memory, 4096);
    (void)cudaGetLastError();
}

static void test_copy_past_the_end_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    assert_int_equal(
        cudaMemcpyAsync(scene->host, scene->device + 1, FAKE_BYTES, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_BOUNDS);
    assert_int_equal(
        cudaMemcpyAsync(scene->host, scene->device + FAKE_BYTES, 1, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_BOUNDS);
    CUDA(cudaMemcpyAsync(scene->host, scene->device, FAKE_BYTES, cudaMemcpyDefault, scene->copy));
}

static void test_copy_of_freed_memory_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    char *device;
    CUDA(cudaMalloc((void **)&device, FAKE_BYTES));
    CUDA(cudaFree(device));
    assert_int_equal(cudaMemcpyAsync(scene->host, device, 1, cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_FREED);
}

static void test_freeing_memory_in_use_drops_the_copy(void **state)
{
    struct fake_scene *scene = *state;
    char *device;
    CUDA(cudaMalloc((void **)&device, FAKE_BYTES));
    memset(scene->host, 'o', FAKE_BYTES);
    fake_cuda_hold(scene->copy);
    CUDA(cudaMemcpyAsync(scene->host, device, FAKE_BYTES, cudaMemcpyDefault, scene->copy));
    CUDA(cudaFree(device));
    fake_expect_report(FAKE_CUDA_FREED_IN_USE);
    fake_cuda_release(scene->copy);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[0], 'o');
}

static void test_unregistering_memory_whose_copy_is_over_but_unseen_is_reported(void **state)
{
    struct fake_scene *scene = *state;
    char *memory = aligned_alloc(4096, 4096);
    CUDA(cudaHostRegister(memory, 4096, 0));
    CUDA(cudaMemcpyAsync(scene->device, memory, 4096, cudaMemcpyDefault, scene->copy));
    fake_cuda_quiesce();
    CUDA(cudaHostUnregister(memory));
    fake_expect_report(FAKE_CUDA_FREED_IN_USE);
    free(memory);
}

static void test_freeing_twice_is_reported(void **state)
{
    (void)state;
    char *device;
    CUDA(cudaMalloc((void **)&device, 1));
    assert_int_equal(cudaFree(device + 0x40), cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaFree(device));
    assert_int_equal(cudaFree(device), cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaFree(NULL));
}

static void test_host_code_that_dereferences_a_device_pointer_crashes(void **state)
{
    struct fake_scene *scene = *state;
    pid_t child = fork();
    if (!child) {
        signal(SIGSEGV, SIG_DFL);
        _exit(*(volatile char *)scene->device ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void test_attributes_tell_device_pinned_and_other_memory(void **state)
{
    struct fake_scene *scene = *state;
    struct cudaPointerAttributes attributes;
    char other;
    CUDA(cudaPointerGetAttributes(&attributes, scene->device + 10));
    assert_int_equal(attributes.type, cudaMemoryTypeDevice);
    assert_int_equal(attributes.device, 0);
    assert_ptr_equal(attributes.devicePointer, scene->device + 10);
    assert_null(attributes.hostPointer);
    CUDA(cudaPointerGetAttributes(&attributes, scene->host));
    assert_int_equal(attributes.type, cudaMemoryTypeHost);
    assert_ptr_equal(attributes.hostPointer, scene->host);
    CUDA(cudaPointerGetAttributes(&attributes, &other));
    assert_int_equal(attributes.type, cudaMemoryTypeUnregistered);
}

static void test_kind_that_the_pointers_are_not_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    assert_int_equal(
        cudaMemcpyAsync(scene->host, scene->device, 1, cudaMemcpyHostToDevice, scene->copy),
        cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_WRONG_KIND);
}

/* ---- Copies of other shapes ------------------------------------------------------------------ */

static void fill_pattern(struct fake_scene *scene)
{
    char pattern[256];
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)i;
    for (size_t i = 0; i < FAKE_BYTES; i += sizeof pattern)
        fake_cuda_write(scene->device + i, pattern, sizeof pattern);
    memset(scene->host, 0, FAKE_BYTES);
}

static void test_2d_copy_moves_its_rows_and_nothing_between(void **state)
{
    struct fake_scene *scene = *state;
    fill_pattern(scene);
    CUDA(cudaMemcpy2DAsync(scene->host, 8, scene->device, 16, 4, 3, cudaMemcpyDeviceToHost,
                           scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    static const char expected[24] = {0,  1,  2, 3, 0, 0, 0,  0,  16, 17,
                                      18, 19, 0, 0, 0, 0, 32, 33, 34, 35};
    assert_memory_equal(scene->host, expected, sizeof expected);
}

static void test_2d_copy_races_with_its_rows_only(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device + 4, 4);
    CUDA(cudaMemcpy2DAsync(scene->host, 8, scene->device, 8, 4, 4, cudaMemcpyDefault, scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaMemcpy2DAsync(scene->host, 8, scene->device, 8, 5, 4, cudaMemcpyDefault, scene->copy));
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_2d_copy_with_a_pitch_below_its_width_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    assert_int_equal(
        cudaMemcpy2DAsync(scene->host, 4, scene->device, 8, 8, 2, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidPitchValue);
    fake_expect_report(FAKE_CUDA_MISUSE);
}

static void test_3d_copy_moves_rows_of_slices(void **state)
{
    struct fake_scene *scene = *state;
    fill_pattern(scene);
    struct cudaMemcpy3DParms parameters = {
        .srcPtr = {.ptr = scene->device, .pitch = 16, .ysize = 4},
        .dstPtr = {.ptr = scene->host, .pitch = 2, .ysize = 2},
        .srcPos = {.x = 1},
        .extent = {.width = 2, .height = 2, .depth = 2},
        .kind = cudaMemcpyDeviceToHost};
    CUDA(cudaMemcpy3DAsync(&parameters, scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    static const char expected[8] = {1, 2, 17, 18, 65, 66, 81, 82};
    assert_memory_equal(scene->host, expected, sizeof expected);
}

/* ---- Batches --------------------------------------------------------------------------------- */

#define COPIES 16

struct batch {
    void *to[COPIES];
    const void *from[COPIES];
    size_t bytes[COPIES];
    struct cudaMemcpyAttributes attributes;
    size_t first;
};

/* Chunks of 1 KiB from every second KiB of the device to the host, one after the other. */
static void make_batch(struct batch *batch, const struct fake_scene *scene)
{
    *batch = (struct batch){.attributes = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream}};
    for (size_t i = 0; i < COPIES; i++) {
        batch->to[i] = scene->host + i * 1024;
        batch->from[i] = scene->device + i * 2048;
        batch->bytes[i] = 1024;
    }
}

static cudaError_t submit(struct batch *batch, cudaStream_t stream)
{
    return cudaMemcpyBatchAsync(batch->to, batch->from, batch->bytes, COPIES, &batch->attributes,
                                &batch->first, 1, stream);
}

static void test_batch_moves_every_copy(void **state)
{
    struct fake_scene *scene = *state;
    struct batch batch;
    for (size_t i = 0; i < COPIES; i++)
        fake_cuda_fill(scene->device + i * 2048, 'a' + (int)i, 1024);
    make_batch(&batch, scene);
    CUDA(submit(&batch, scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    for (size_t i = 0; i < COPIES * 1024; i++)
        assert_int_equal(scene->host[i], 'a' + (int)(i / 1024));
}

static void test_batch_in_stream_order_follows_a_wait(void **state)
{
    struct fake_scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_wait_across(scene, scene->compute, scene->copy);
    CUDA(submit(&batch, scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_batch_in_any_order_does_not(void **state)
{
    struct fake_scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    batch.attributes.srcAccessOrder = cudaMemcpySrcAccessOrderAny;
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_wait_across(scene, scene->compute, scene->copy);
    CUDA(submit(&batch, scene->copy));
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_batch_whose_copies_overlap_is_reported(void **state)
{
    struct fake_scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    batch.to[3] = batch.to[2];
    CUDA(submit(&batch, scene->copy));
    fake_expect_report(FAKE_CUDA_BATCH_RACE);
}

static void test_batch_that_breaks_the_rules_is_refused(void **state)
{
    struct fake_scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    batch.first = 1;
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_MISUSE);
    make_batch(&batch, scene);
    batch.attributes.srcAccessOrder = cudaMemcpySrcAccessOrderInvalid;
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_MISUSE);
    make_batch(&batch, scene);
    batch.bytes[5] = 0;
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_MISUSE);
    make_batch(&batch, scene);
    assert_int_equal(submit(&batch, NULL), cudaErrorInvalidResourceHandle);
    fake_expect_report(FAKE_CUDA_DEFAULT_STREAM);
}

static void test_failing_descriptor_leaves_the_copies_before_it_running(void **state)
{
    struct fake_scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    fake_cuda_fill(scene->device, 'n', FAKE_BYTES);
    memset(scene->host, 'o', FAKE_BYTES);
    fake_cuda_fail_descriptor(5, cudaErrorInvalidValue);
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[5 * 1024 - 1], 'n');
    assert_int_equal(scene->host[5 * 1024], 'o');
    CUDA(submit(&batch, scene->copy));
}

static void test_seeds_change_no_result(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fake_scene scene;
        struct batch batch;
        fake_cuda_start(&(struct fake_cuda_config){.seed = seed});
        fake_scene_open(&scene);
        for (size_t i = 0; i < COPIES; i++)
            fake_cuda_fill(scene.device + i * 2048, 'a' + (int)i, 1024);
        make_batch(&batch, &scene);
        CUDA(submit(&batch, scene.copy));
        fake_scene_wait_across(&scene, scene.copy, scene.compute);
        fake_scene_launch_writer(scene.compute, scene.device, FAKE_BYTES);
        CUDA(cudaStreamSynchronize(scene.copy));
        for (size_t i = 0; i < COPIES * 1024; i++)
            assert_int_equal(scene.host[i], 'a' + (int)(i / 1024));
        assert_true(fake_scene_close(&scene));
        assert_int_equal(fake_cuda_end(), 0);
    }
}

/* Which of the copies to one place ran last. */
static char last_of_batch(uint64_t seed)
{
    struct fake_scene scene;
    struct batch batch;
    fake_cuda_start(&(struct fake_cuda_config){.seed = seed});
    fake_scene_open(&scene);
    make_batch(&batch, &scene);
    for (size_t i = 0; i < COPIES; i++) {
        fake_cuda_fill(scene.device + i * 2048, 'a' + (int)i, 1024);
        batch.to[i] = scene.host;
    }
    CUDA(submit(&batch, scene.copy));
    fake_expect_report(FAKE_CUDA_BATCH_RACE);
    CUDA(cudaStreamSynchronize(scene.copy));
    char last = scene.host[0];
    assert_true(fake_scene_close(&scene));
    assert_int_equal(fake_cuda_end(), 0);
    return last;
}

static void test_seeds_decide_the_order_inside_a_batch(void **state)
{
    (void)state;
    bool differs = false;
    assert_int_equal(last_of_batch(0), 'a' + COPIES - 1);
    for (uint64_t seed = 1; seed < 10; seed++) {
        char last = last_of_batch(seed);
        assert_int_equal(last_of_batch(seed), last);
        differs = differs || last != 'a' + COPIES - 1;
    }
    assert_true(differs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fake_scene, test_pageable_memory_is_refused),
        TEST(fake_scene, test_registered_memory_is_taken_until_it_is_unregistered),
        TEST(fake_scene, test_copy_across_two_registrations_is_refused),
        TEST(fake_run, test_registration_beyond_the_limits_fails),
        TEST(fake_scene, test_registering_what_is_registered_or_not_there_fails),
        TEST(fake_scene, test_copy_past_the_end_is_refused),
        TEST(fake_scene, test_copy_of_freed_memory_is_refused),
        TEST(fake_scene, test_freeing_memory_in_use_drops_the_copy),
        TEST(fake_scene, test_unregistering_memory_whose_copy_is_over_but_unseen_is_reported),
        TEST(fake_scene, test_freeing_twice_is_reported),
        TEST(fake_scene, test_host_code_that_dereferences_a_device_pointer_crashes),
        TEST(fake_scene, test_attributes_tell_device_pinned_and_other_memory),
        TEST(fake_scene, test_kind_that_the_pointers_are_not_is_refused),
        TEST(fake_scene, test_2d_copy_moves_its_rows_and_nothing_between),
        TEST(fake_scene, test_2d_copy_races_with_its_rows_only),
        TEST(fake_scene, test_2d_copy_with_a_pitch_below_its_width_is_refused),
        TEST(fake_scene, test_3d_copy_moves_rows_of_slices),
        TEST(fake_scene, test_batch_moves_every_copy),
        TEST(fake_scene, test_batch_in_stream_order_follows_a_wait),
        TEST(fake_scene, test_batch_in_any_order_does_not),
        TEST(fake_scene, test_batch_whose_copies_overlap_is_reported),
        TEST(fake_scene, test_batch_that_breaks_the_rules_is_refused),
        TEST(fake_scene, test_failing_descriptor_leaves_the_copies_before_it_running),
        TEST(fake_run, test_seeds_change_no_result),
        TEST(fake_run, test_seeds_decide_the_order_inside_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
