/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for the CUDA runtime: each of its checks fires when it should, and only then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_cuda.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((size_t)64 << 10)

#define CUDA(call) assert_int_equal((call), cudaSuccess)

/* Two streams, an event, and memory on both sides. */
struct scene {
    cudaStream_t compute, copy;
    cudaEvent_t event;
    char *device;
    char *host;
};

static void open_scene(struct scene *scene)
{
    CUDA(cudaStreamCreateWithFlags(&scene->compute, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&scene->copy, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&scene->event, cudaEventDisableTiming));
    CUDA(cudaMalloc((void **)&scene->device, BYTES));
    CUDA(cudaHostAlloc((void **)&scene->host, BYTES, cudaHostAllocPortable));
}

static void close_scene(struct scene *scene)
{
    CUDA(cudaStreamSynchronize(scene->compute));
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaFree(scene->device));
    CUDA(cudaFreeHost(scene->host));
    CUDA(cudaEventDestroy(scene->event));
    CUDA(cudaStreamDestroy(scene->compute));
    CUDA(cudaStreamDestroy(scene->copy));
}

static int begin(void **state)
{
    static struct scene scene;
    fake_cuda_start(&(struct fake_cuda_config){.devices = 2});
    open_scene(&scene);
    *state = &scene;
    return 0;
}

static int end(void **state)
{
    close_scene(*state);
    return fake_cuda_end() ? -1 : 0;
}

/* On a broken device nothing can be given back. */
static int end_broken(void **state)
{
    (void)state;
    return fake_cuda_end() ? -1 : 0;
}

static void expect_report(enum fake_cuda_report_kind kind)
{
    assert_true(fake_cuda_take_report(kind));
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void fill(void *arguments)
{
    const struct fake_cuda_range *range = arguments;
    memset(fake_cuda_storage(range->start), 'k', range->bytes);
}

static void launch_writer(cudaStream_t stream, const void *start, size_t bytes)
{
    struct fake_cuda_range range = {.start = start, .bytes = bytes, .written = true};
    CUDA(fake_cuda_kernel(stream, fill, &range, sizeof range, &range, 1));
}

static void launch_reader(cudaStream_t stream, const void *start, size_t bytes)
{
    struct fake_cuda_range range = {.start = start, .bytes = bytes};
    CUDA(fake_cuda_kernel(stream, NULL, NULL, 0, &range, 1));
}

static void copy_down(struct scene *scene)
{
    CUDA(cudaMemcpyAsync(scene->host, scene->device, BYTES, cudaMemcpyDeviceToHost, scene->copy));
}

static void copy_up(struct scene *scene)
{
    CUDA(cudaMemcpyAsync(scene->device, scene->host, BYTES, cudaMemcpyHostToDevice, scene->copy));
}

static void wait_across(struct scene *scene, cudaStream_t from, cudaStream_t to)
{
    CUDA(cudaEventRecord(scene->event, from));
    CUDA(cudaStreamWaitEvent(to, scene->event, 0));
}

/* ---- Streams and events ------------------------------------------------------------------------------------------ */

static void test_copies_both_ways_bring_back_the_same_bytes(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < BYTES; i++)
        scene->host[i] = (char)(i * 7);
    copy_up(scene);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(fake_cuda_compare(scene->device, scene->host, BYTES), 0);
    memset(scene->host, 0, BYTES);
    copy_down(scene);
    CUDA(cudaStreamSynchronize(scene->copy));
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(scene->host[i], (char)(i * 7));
}

static void test_held_stream_runs_nothing_until_released(void **state)
{
    struct scene *scene = *state;
    fake_cuda_fill(scene->device, 'n', BYTES);
    memset(scene->host, 'o', BYTES);
    fake_cuda_hold(scene->copy);
    copy_down(scene);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_settle();
    assert_int_equal(fake_cuda_tasks_run(), 0);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotReady);
    fake_cuda_release(scene->copy);
    fake_cuda_settle();
    CUDA(cudaEventQuery(scene->event));
    CUDA(cudaStreamQuery(scene->copy));
    assert_int_equal(scene->host[0], 'n');
}

static void test_allowed_tasks_run_on_a_held_stream(void **state)
{
    struct scene *scene = *state;
    fake_cuda_hold(NULL);
    for (int i = 0; i < 3; i++)
        CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_allow(scene->copy, 2);
    fake_cuda_settle();
    assert_int_equal(fake_cuda_tasks_run(), 2);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_allow(NULL, 1);
    fake_cuda_settle();
    CUDA(cudaEventQuery(scene->event));
    fake_cuda_release(NULL);
}

static void test_streams_finish_out_of_order_across_each_other(void **state)
{
    struct scene *scene = *state;
    fake_cuda_hold(scene->compute);
    launch_writer(scene->compute, scene->device, 16);
    CUDA(cudaMemcpyAsync(scene->host, scene->device + 1024, 16, cudaMemcpyDeviceToHost,
                         scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(cudaStreamQuery(scene->compute), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
}

static void test_event_never_recorded_counts_as_reached(void **state)
{
    struct scene *scene = *state;
    CUDA(cudaEventQuery(scene->event));
    CUDA(cudaEventSynchronize(scene->event));
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, 0));
    assert_int_equal(fake_cuda_tasks_enqueued(), 0);
}

static void test_wait_means_the_record_of_its_moment(void **state)
{
    struct scene *scene = *state;
    CUDA(cudaEventRecord(scene->event, scene->compute));
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, 0));
    fake_cuda_settle();
    fake_cuda_hold(scene->compute);
    CUDA(cudaEventRecord(scene->event, scene->compute)); /* anew, and not reached */
    fake_cuda_settle();
    CUDA(cudaStreamQuery(scene->copy));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
}

static void test_waiting_stream_stands_until_the_event_is_reached(void **state)
{
    struct scene *scene = *state;
    fake_cuda_hold(scene->compute);
    launch_writer(scene->compute, scene->device, BYTES);
    wait_across(scene, scene->compute, scene->copy);
    copy_down(scene);
    fake_cuda_settle();
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[BYTES - 1], 'k');
}

static void test_destroyed_stream_finishes_its_work(void **state)
{
    struct scene *scene = *state;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, -1));
    fake_cuda_hold(stream);
    launch_writer(stream, scene->device, BYTES);
    CUDA(cudaEventRecord(scene->event, stream));
    CUDA(cudaStreamDestroy(stream));
    fake_cuda_release(NULL);
    CUDA(cudaEventSynchronize(scene->event));
    char expected[16];
    memset(expected, 'k', sizeof expected);
    assert_int_equal(fake_cuda_compare(scene->device, expected, sizeof expected), 0);
}

static void set_flag(void *flag)
{
    atomic_store((atomic_int *)flag, 1);
}

static void test_host_function_runs_after_the_work_before_it(void **state)
{
    struct scene *scene = *state;
    atomic_int flag = 0;
    fake_cuda_hold(scene->copy);
    copy_down(scene);
    CUDA(cudaLaunchHostFunc(scene->copy, set_flag, &flag));
    fake_cuda_allow(scene->copy, 1);
    fake_cuda_settle();
    assert_int_equal(atomic_load(&flag), 0);
    fake_cuda_release(scene->copy);
    fake_cuda_settle();
    assert_int_equal(atomic_load(&flag), 1);
    fake_cuda_host_reads(scene->host, BYTES); /* the function has told the host */
}

static void call_cuda(void *result)
{
    int device;
    *(cudaError_t *)result = cudaGetDevice(&device);
}

static void test_cuda_call_inside_a_host_function_is_reported(void **state)
{
    struct scene *scene = *state;
    cudaError_t result = cudaSuccess;
    CUDA(cudaLaunchHostFunc(scene->copy, call_cuda, &result));
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(result, cudaErrorNotPermitted);
    expect_report(FAKE_CUDA_MISUSE);
}

static void test_stream_slots_are_used_again_without_end(void **state)
{
    struct scene *scene = *state;
    for (int i = 0; i < 500; i++) {
        cudaStream_t stream;
        CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        CUDA(cudaEventRecord(scene->event, stream)); /* seen by nobody */
        CUDA(cudaStreamDestroy(stream));
    }
}

static void test_streams_made_under_a_hold_of_all_are_held(void **state)
{
    struct scene *scene = *state;
    cudaStream_t stream;
    fake_cuda_hold(NULL);
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaEventRecord(scene->event, stream));
    fake_cuda_settle();
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_release(NULL);
    CUDA(cudaEventSynchronize(scene->event));
    CUDA(cudaStreamDestroy(stream));
}

static void test_device_synchronisation_observes_every_stream_of_the_device(void **state)
{
    struct scene *scene = *state;
    launch_writer(scene->compute, scene->device, BYTES);
    CUDA(cudaDeviceSynchronize());
    copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

static void test_copy_out_without_waiting_for_compute_is_a_race(void **state)
{
    struct scene *scene = *state;
    launch_writer(scene->compute, scene->device, BYTES);
    fake_cuda_settle(); /* the timing is kind */
    copy_down(scene);
    expect_report(FAKE_CUDA_RACE);
}

static void test_task_that_is_reported_as_a_race_moves_nothing(void **state)
{
    struct scene *scene = *state;
    memset(scene->host, 'o', BYTES);
    launch_writer(scene->compute, scene->device, BYTES);
    copy_down(scene);
    expect_report(FAKE_CUDA_RACE);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[0], 'o');
}

static void test_copy_out_that_waits_for_compute_is_none(void **state)
{
    struct scene *scene = *state;
    launch_writer(scene->compute, scene->device, BYTES);
    wait_across(scene, scene->compute, scene->copy);
    copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_copy_in_while_compute_reads_is_a_race(void **state)
{
    struct scene *scene = *state;
    launch_reader(scene->compute, scene->device, BYTES);
    copy_up(scene);
    expect_report(FAKE_CUDA_RACE);
}

static void test_copy_in_that_waits_for_compute_is_none(void **state)
{
    struct scene *scene = *state;
    launch_reader(scene->compute, scene->device, BYTES);
    wait_across(scene, scene->compute, scene->copy);
    copy_up(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_event_recorded_before_the_work_orders_nothing_of_it(void **state)
{
    struct scene *scene = *state;
    CUDA(cudaEventRecord(scene->event, scene->compute));
    launch_writer(scene->compute, scene->device, BYTES);
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, 0));
    copy_down(scene);
    expect_report(FAKE_CUDA_RACE);
}

static void test_two_readers_are_no_race(void **state)
{
    struct scene *scene = *state;
    launch_reader(scene->compute, scene->device, BYTES);
    copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_neighbours_are_no_race(void **state)
{
    struct scene *scene = *state;
    launch_writer(scene->compute, scene->device, 4096);
    CUDA(cudaMemcpyAsync(scene->host, scene->device + 4096, 4096, cudaMemcpyDeviceToHost,
                         scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(
        cudaMemcpyAsync(scene->host, scene->device + 4095, 1, cudaMemcpyDeviceToHost, scene->copy));
    expect_report(FAKE_CUDA_RACE);
}

static void test_order_through_a_third_stream_counts(void **state)
{
    struct scene *scene = *state;
    cudaStream_t third;
    CUDA(cudaStreamCreateWithFlags(&third, cudaStreamNonBlocking));
    launch_writer(scene->compute, scene->device, BYTES);
    wait_across(scene, scene->compute, third);
    wait_across(scene, third, scene->copy);
    copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaStreamDestroy(third));
}

static void test_what_the_host_observed_is_ordered(void **state)
{
    struct scene *scene = *state;
    launch_writer(scene->compute, scene->device, BYTES);
    CUDA(cudaEventRecord(scene->event, scene->compute));
    fake_cuda_settle();
    CUDA(cudaEventQuery(scene->event));
    copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_not_ready_orders_nothing(void **state)
{
    struct scene *scene = *state;
    fake_cuda_hold(scene->compute);
    launch_writer(scene->compute, scene->device, BYTES);
    CUDA(cudaEventRecord(scene->event, scene->compute));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
    fake_cuda_settle();
    copy_down(scene);
    expect_report(FAKE_CUDA_RACE);
}

static void test_host_reads_a_target_before_it_has_seen_the_copy_end(void **state)
{
    struct scene *scene = *state;
    copy_down(scene);
    fake_cuda_settle();
    fake_cuda_host_reads(scene->host + 100, 1);
    expect_report(FAKE_CUDA_HOST_RACE);
    CUDA(cudaStreamQuery(scene->copy));
    fake_cuda_host_reads(scene->host + 100, 1);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_host_writes_a_source_before_it_has_seen_the_copy_end(void **state)
{
    struct scene *scene = *state;
    copy_up(scene);
    fake_cuda_settle();
    fake_cuda_host_reads(scene->host, BYTES); /* reading it is no harm */
    assert_int_equal(fake_cuda_report_count(), 0);
    fake_cuda_host_writes(scene->host, 1);
    expect_report(FAKE_CUDA_HOST_RACE);
}

static void test_helper_reads_device_memory_that_compute_still_writes(void **state)
{
    struct scene *scene = *state;
    char byte;
    fake_cuda_hold(scene->compute);
    launch_writer(scene->compute, scene->device, BYTES);
    fake_cuda_read(&byte, scene->device, 1);
    expect_report(FAKE_CUDA_HOST_RACE);
    fake_cuda_release(scene->compute);
}

static void test_destroying_a_stream_observes_nothing(void **state)
{
    struct scene *scene = *state;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    launch_writer(stream, scene->device, BYTES);
    CUDA(cudaStreamDestroy(stream));
    fake_cuda_settle();
    CUDA(cudaStreamCreateWithFlags(&stream,
                                   cudaStreamNonBlocking)); /* not taken for the former one */
    CUDA(cudaMemcpyAsync(scene->host, scene->device, 8, cudaMemcpyDeviceToHost, stream));
    expect_report(FAKE_CUDA_RACE);
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaStreamDestroy(stream));
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static void test_pageable_memory_is_refused(void **state)
{
    struct scene *scene = *state;
    char *pageable = calloc(1, BYTES);
    assert_int_equal(
        cudaMemcpyAsync(scene->device, pageable, BYTES, cudaMemcpyHostToDevice, scene->copy),
        cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_PAGEABLE);
    free(pageable);
}

static void test_registered_memory_is_taken_until_it_is_unregistered(void **state)
{
    struct scene *scene = *state;
    char *memory = aligned_alloc(4096, BYTES);
    CUDA(cudaHostRegister(memory, BYTES, cudaHostRegisterPortable));
    assert_true(fake_cuda_is_pinned(memory, BYTES));
    memset(memory, 'r', BYTES);
    CUDA(cudaMemcpyAsync(scene->device, memory, BYTES, cudaMemcpyDefault, scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaHostUnregister(memory));
    assert_false(fake_cuda_is_pinned(memory, 1));
    assert_int_equal(cudaMemcpyAsync(scene->device, memory, 1, cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_PAGEABLE);
    assert_int_equal(fake_cuda_compare(scene->device, memset(memory, 'r', BYTES), BYTES), 0);
    free(memory);
}

static void test_copy_across_two_registrations_is_refused(void **state)
{
    struct scene *scene = *state;
    char *memory = aligned_alloc(4096, BYTES);
    CUDA(cudaHostRegister(memory, BYTES / 2, 0));
    CUDA(cudaHostRegister(memory + BYTES / 2, BYTES / 2, 0));
    CUDA(cudaMemcpyAsync(memory, scene->device, BYTES / 2, cudaMemcpyDefault, scene->copy));
    assert_int_equal(
        cudaMemcpyAsync(memory + BYTES / 2 - 8, scene->device, 16, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_BOUNDS);
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaHostUnregister(memory));
    CUDA(cudaHostUnregister(memory + BYTES / 2));
    free(memory);
}

static void test_registration_beyond_the_limits_fails(void **state)
{
    (void)state;
    char *memory = aligned_alloc(4096, 3 * 4096);
    fake_cuda_start(&(struct fake_cuda_config){.register_bytes = 4096, .pinned_bytes = 2 * 4096});
    assert_int_equal(cudaHostRegister(memory, 2 * 4096, 0),
                     cudaErrorMemoryAllocation); /* too much for one call */
    CUDA(cudaHostRegister(memory, 4096, 0));
    CUDA(cudaHostRegister(memory + 4096, 4096, 0));
    assert_int_equal(cudaHostRegister(memory + 2 * 4096, 4096, 0),
                     cudaErrorMemoryAllocation); /* too much in all */
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
    assert_int_equal(cudaHostRegister(memory + 200, 100, 0),
                     cudaErrorHostMemoryAlreadyRegistered); /* the same page */
    CUDA(cudaHostUnregister(memory));
    assert_int_equal(cudaHostUnregister(memory), cudaErrorHostMemoryNotRegistered);
    expect_report(FAKE_CUDA_BAD_HANDLE);
    munmap(memory + 4096, 4096);
    assert_int_equal(cudaHostRegister(memory, 2 * 4096, 0), cudaErrorInvalidValue);
    munmap(memory, 4096);
    (void)cudaGetLastError();
}

static void test_copy_past_the_end_is_refused(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(
        cudaMemcpyAsync(scene->host, scene->device + 1, BYTES, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_BOUNDS);
    assert_int_equal(
        cudaMemcpyAsync(scene->host, scene->device + BYTES, 1, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_BOUNDS);
    CUDA(cudaMemcpyAsync(scene->host, scene->device, BYTES, cudaMemcpyDefault, scene->copy));
}

static void test_copy_of_freed_memory_is_refused(void **state)
{
    struct scene *scene = *state;
    char *device;
    CUDA(cudaMalloc((void **)&device, BYTES));
    CUDA(cudaFree(device));
    assert_int_equal(cudaMemcpyAsync(scene->host, device, 1, cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_FREED);
}

static void test_freeing_memory_in_use_drops_the_copy(void **state)
{
    struct scene *scene = *state;
    char *device;
    CUDA(cudaMalloc((void **)&device, BYTES));
    memset(scene->host, 'o', BYTES);
    fake_cuda_hold(scene->copy);
    CUDA(cudaMemcpyAsync(scene->host, device, BYTES, cudaMemcpyDefault, scene->copy));
    CUDA(cudaFree(device));
    expect_report(FAKE_CUDA_FREED_IN_USE);
    fake_cuda_release(scene->copy);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[0], 'o');
}

static void test_unregistering_memory_whose_copy_is_over_but_unseen_is_reported(void **state)
{
    struct scene *scene = *state;
    char *memory = aligned_alloc(4096, 4096);
    CUDA(cudaHostRegister(memory, 4096, 0));
    CUDA(cudaMemcpyAsync(scene->device, memory, 4096, cudaMemcpyDefault, scene->copy));
    fake_cuda_settle();
    CUDA(cudaHostUnregister(memory));
    expect_report(FAKE_CUDA_FREED_IN_USE);
    free(memory);
}

static void test_freeing_twice_is_reported(void **state)
{
    (void)state;
    char *device;
    CUDA(cudaMalloc((void **)&device, 1));
    assert_int_equal(cudaFree(device + 0x40), cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaFree(device));
    assert_int_equal(cudaFree(device), cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaFree(NULL));
}

static void test_host_code_that_dereferences_a_device_pointer_crashes(void **state)
{
    struct scene *scene = *state;
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
    struct scene *scene = *state;
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
    struct scene *scene = *state;
    assert_int_equal(
        cudaMemcpyAsync(scene->host, scene->device, 1, cudaMemcpyHostToDevice, scene->copy),
        cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_WRONG_KIND);
}

/* ---- Copies of other shapes -------------------------------------------------------------------------------------- */

static void fill_pattern(struct scene *scene)
{
    char pattern[256];
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)i;
    for (size_t i = 0; i < BYTES; i += sizeof pattern)
        fake_cuda_write(scene->device + i, pattern, sizeof pattern);
    memset(scene->host, 0, BYTES);
}

static void test_2d_copy_moves_its_rows_and_nothing_between(void **state)
{
    struct scene *scene = *state;
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
    struct scene *scene = *state;
    launch_writer(scene->compute, scene->device + 4, 4);
    CUDA(cudaMemcpy2DAsync(scene->host, 8, scene->device, 8, 4, 4, cudaMemcpyDefault, scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaMemcpy2DAsync(scene->host, 8, scene->device, 8, 5, 4, cudaMemcpyDefault, scene->copy));
    expect_report(FAKE_CUDA_RACE);
}

static void test_2d_copy_with_a_pitch_below_its_width_is_refused(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(
        cudaMemcpy2DAsync(scene->host, 4, scene->device, 8, 8, 2, cudaMemcpyDefault, scene->copy),
        cudaErrorInvalidPitchValue);
    expect_report(FAKE_CUDA_MISUSE);
}

static void test_3d_copy_moves_rows_of_slices(void **state)
{
    struct scene *scene = *state;
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

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

#define COPIES 16

struct batch {
    void *to[COPIES];
    const void *from[COPIES];
    size_t bytes[COPIES];
    struct cudaMemcpyAttributes attributes;
    size_t first;
};

/* Chunks of 1 KiB from every second KiB of the device to the host, one after the other. */
static void make_batch(struct batch *batch, const struct scene *scene)
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
    struct scene *scene = *state;
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
    struct scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    launch_writer(scene->compute, scene->device, BYTES);
    wait_across(scene, scene->compute, scene->copy);
    CUDA(submit(&batch, scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_batch_in_any_order_does_not(void **state)
{
    struct scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    batch.attributes.srcAccessOrder = cudaMemcpySrcAccessOrderAny;
    launch_writer(scene->compute, scene->device, BYTES);
    wait_across(scene, scene->compute, scene->copy);
    CUDA(submit(&batch, scene->copy));
    expect_report(FAKE_CUDA_RACE);
}

static void test_batch_whose_copies_overlap_is_reported(void **state)
{
    struct scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    batch.to[3] = batch.to[2];
    CUDA(submit(&batch, scene->copy));
    expect_report(FAKE_CUDA_BATCH_RACE);
}

static void test_batch_that_breaks_the_rules_is_refused(void **state)
{
    struct scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    batch.first = 1;
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_MISUSE);
    make_batch(&batch, scene);
    batch.attributes.srcAccessOrder = cudaMemcpySrcAccessOrderInvalid;
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_MISUSE);
    make_batch(&batch, scene);
    batch.bytes[5] = 0;
    assert_int_equal(submit(&batch, scene->copy), cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_MISUSE);
    make_batch(&batch, scene);
    assert_int_equal(submit(&batch, NULL), cudaErrorInvalidResourceHandle);
    expect_report(FAKE_CUDA_DEFAULT_STREAM);
}

static void test_failing_descriptor_leaves_the_copies_before_it_running(void **state)
{
    struct scene *scene = *state;
    struct batch batch;
    make_batch(&batch, scene);
    fake_cuda_fill(scene->device, 'n', BYTES);
    memset(scene->host, 'o', BYTES);
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
        struct scene scene;
        struct batch batch;
        fake_cuda_start(&(struct fake_cuda_config){.seed = seed});
        open_scene(&scene);
        for (size_t i = 0; i < COPIES; i++)
            fake_cuda_fill(scene.device + i * 2048, 'a' + (int)i, 1024);
        make_batch(&batch, &scene);
        CUDA(submit(&batch, scene.copy));
        wait_across(&scene, scene.copy, scene.compute);
        launch_writer(scene.compute, scene.device, BYTES);
        CUDA(cudaStreamSynchronize(scene.copy));
        for (size_t i = 0; i < COPIES * 1024; i++)
            assert_int_equal(scene.host[i], 'a' + (int)(i / 1024));
        close_scene(&scene);
        assert_int_equal(fake_cuda_end(), 0);
    }
}

/* Which of the copies to one place ran last. */
static char last_of_batch(uint64_t seed)
{
    struct scene scene;
    struct batch batch;
    fake_cuda_start(&(struct fake_cuda_config){.seed = seed});
    open_scene(&scene);
    make_batch(&batch, &scene);
    for (size_t i = 0; i < COPIES; i++) {
        fake_cuda_fill(scene.device + i * 2048, 'a' + (int)i, 1024);
        batch.to[i] = scene.host;
    }
    CUDA(submit(&batch, scene.copy));
    expect_report(FAKE_CUDA_BATCH_RACE);
    CUDA(cudaStreamSynchronize(scene.copy));
    char last = scene.host[0];
    close_scene(&scene);
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

/* ---- Devices and handles ----------------------------------------------------------------------------------------- */

static void test_default_streams_are_refused(void **state)
{
    struct scene *scene = *state;
    static const uintptr_t streams[] = {0, 1, 2};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(cudaMemcpyAsync(scene->host, scene->device, 1, cudaMemcpyDefault,
                                         (cudaStream_t)streams[i]),
                         cudaErrorInvalidResourceHandle);
        expect_report(FAKE_CUDA_DEFAULT_STREAM);
    }
}

static void test_stream_that_waits_for_the_default_stream_is_reported(void **state)
{
    (void)state;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));
    expect_report(FAKE_CUDA_DEFAULT_STREAM);
    CUDA(cudaStreamDestroy(stream));
}

static void test_stale_handles_are_reported(void **state)
{
    struct scene *scene = *state;
    cudaStream_t stream, again;
    cudaEvent_t event, event_again;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaStreamCreateWithFlags(&again, cudaStreamNonBlocking));
    assert_int_equal(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
    expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaEventCreateWithFlags(&event, 0));
    CUDA(cudaEventDestroy(event));
    CUDA(cudaEventCreateWithFlags(&event_again, 0));
    assert_int_equal(cudaEventRecord(event, scene->copy), cudaErrorInvalidResourceHandle);
    expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaStreamDestroy(again));
    CUDA(cudaEventDestroy(event_again));
}

static void test_contexts_are_made_where_something_is_made(void **state)
{
    (void)state;
    int device, value;
    assert_true(fake_cuda_has_context(0)); /* the scene */
    CUDA(cudaGetDevice(&device));
    CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrAsyncEngineCount, 1));
    assert_int_equal(device, 0);
    assert_false(fake_cuda_has_context(1));
    CUDA(cudaSetDevice(1));
    assert_true(fake_cuda_has_context(1));
}

static void test_devices_answer_what_they_are(void **state)
{
    struct scene *scene = *state;
    int device = -1, least = -1, greatest = 1;
    char bus[16];
    void *pointer;
    CUDA(cudaDeviceGetPCIBusId(bus, sizeof bus, 1));
    assert_string_equal(bus, "0000:11:00.0");
    assert_int_equal(cudaDeviceGetPCIBusId(bus, sizeof bus, 2), cudaErrorInvalidDevice);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    CUDA(cudaStreamGetDevice(scene->copy, &device));
    assert_int_equal(device, 0);
    CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    assert_true(greatest < least);
    CUDA(cudaHostGetDevicePointer(&pointer, scene->host, 0));
    assert_ptr_equal(pointer, scene->host);
    assert_true(fake_cuda_is_device_pointer(scene->device));
    assert_false(fake_cuda_is_device_pointer(scene->host));
}

static void test_program_that_knows_nothing_of_the_stand_in_runs_with_its_defaults(void **state)
{
    (void)state;
    int count;
    CUDA(cudaGetDeviceCount(&count));
    assert_int_equal(count, 1);
    assert_int_equal(fake_cuda_end(), 0);
}

static void test_memory_of_another_device_is_refused(void **state)
{
    struct scene *scene = *state;
    char *other;
    CUDA(cudaSetDevice(1));
    CUDA(cudaMalloc((void **)&other, BYTES));
    assert_int_equal(cudaMemcpyAsync(scene->host, other, 1, cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    expect_report(FAKE_CUDA_WRONG_DEVICE);
    copy_down(scene); /* which device is current does not matter to a copy */
    CUDA(cudaFree(other));
}

static void test_event_of_another_device_is_refused_in_record_only(void **state)
{
    struct scene *scene = *state;
    cudaStream_t other;
    CUDA(cudaSetDevice(1));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    assert_int_equal(cudaEventRecord(scene->event, other), cudaErrorInvalidResourceHandle);
    expect_report(FAKE_CUDA_WRONG_DEVICE);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    CUDA(cudaStreamWaitEvent(other, scene->event, 0));
    CUDA(cudaStreamSynchronize(other));
    CUDA(cudaStreamDestroy(other));
}

static void test_kernel_wants_its_device_to_be_current(void **state)
{
    struct scene *scene = *state;
    struct fake_cuda_range range = {.start = scene->device, .bytes = 1};
    CUDA(cudaSetDevice(1));
    assert_int_equal(fake_cuda_kernel(scene->compute, NULL, NULL, 0, &range, 1),
                     cudaErrorInvalidResourceHandle);
    expect_report(FAKE_CUDA_WRONG_DEVICE);
    CUDA(cudaSetDevice(0));
    CUDA(fake_cuda_kernel(scene->compute, NULL, NULL, 0, &range, 1));
}

typedef int (*retain_function)(void **context, int device);
typedef int (*release_function)(int device);
typedef int (*push_function)(void *context);
typedef int (*pop_function)(void **context);

static void *entry_point(const char *name)
{
    void *function;
    enum cudaDriverEntryPointQueryResult result;
    CUDA(cudaGetDriverEntryPointByVersion(name, &function, 12000, 0, &result));
    assert_int_equal(result, cudaDriverEntryPointSuccess);
    return function;
}

static void test_pushed_context_is_current_until_popped(void **state)
{
    (void)state;
    void *context, *popped;
    int device;
    assert_int_equal(
        ((retain_function)(uintptr_t)entry_point("cuDevicePrimaryCtxRetain"))(&context, 1), 0);
    assert_int_equal(((push_function)(uintptr_t)entry_point("cuCtxPushCurrent"))(context), 0);
    CUDA(cudaGetDevice(&device));
    assert_int_equal(device, 1);
    assert_int_equal(((pop_function)(uintptr_t)entry_point("cuCtxPopCurrent"))(&popped), 0);
    CUDA(cudaGetDevice(&device));
    assert_int_equal(device, 0);
    assert_ptr_equal(popped, context);
    assert_int_equal(((release_function)(uintptr_t)entry_point("cuDevicePrimaryCtxRelease"))(1), 0);
}

static void test_leaks_are_counted_at_the_end(void **state)
{
    (void)state;
    struct scene scene;
    void *context;
    fake_cuda_start(NULL);
    open_scene(&scene);
    assert_int_equal(
        ((retain_function)(uintptr_t)entry_point("cuDevicePrimaryCtxRetain"))(&context, 0), 0);
    assert_int_equal(fake_cuda_end(),
                     5); /* streams, events, device memory, host memory, a context */
    fake_cuda_start(NULL);
    open_scene(&scene);
    close_scene(&scene);
    assert_int_equal(fake_cuda_end(), 0);
}

static void test_handles_and_pointers_of_a_former_run_are_stale(void **state)
{
    (void)state;
    struct scene former, scene;
    fake_cuda_start(NULL);
    open_scene(&former);
    close_scene(&former);
    assert_int_equal(fake_cuda_end(), 0);
    fake_cuda_start(NULL);
    open_scene(&scene);
    assert_int_equal(cudaStreamQuery(former.copy), cudaErrorInvalidResourceHandle);
    expect_report(FAKE_CUDA_BAD_HANDLE);
    close_scene(&scene);
    assert_int_equal(fake_cuda_end(), 0);
}

/* ---- Faults ------------------------------------------------------------------------------------------------------ */

static void test_nth_call_fails_once(void **state)
{
    struct scene *scene = *state;
    fake_cuda_fail("cudaEventRecord", 2, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(cudaEventRecord(scene->event, scene->copy), cudaErrorMemoryAllocation);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(fake_cuda_calls("cudaEventRecord"), 3);
    assert_int_equal(fake_cuda_tasks_enqueued(), 2);
}

static void test_several_faults_are_planned_at_once(void **state)
{
    struct scene *scene = *state;
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    fake_cuda_fail("cudaStreamQuery", 1, cudaErrorNotSupported, FAKE_CUDA_ONCE);
    assert_int_equal(cudaEventRecord(scene->event, scene->copy), cudaErrorMemoryAllocation);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotSupported);
}

static void test_any_call_fails_for_ever_from_the_nth_on(void **state)
{
    struct scene *scene = *state;
    fake_cuda_fail(NULL, 2, cudaErrorNotSupported, FAKE_CUDA_FOR_EVER);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotSupported);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotSupported);
    fake_cuda_forget_faults();
    CUDA(cudaEventSynchronize(scene->event));
}

static void test_last_error_stays_until_it_is_taken(void **state)
{
    struct scene *scene = *state;
    (void)cudaGetLastError();
    fake_cuda_fail("cudaStreamQuery", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorMemoryAllocation);
    CUDA(cudaStreamQuery(scene->copy));
    assert_int_equal(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void *ask_last_error(void *result)
{
    *(cudaError_t *)result = cudaPeekAtLastError();
    return NULL;
}

static void test_last_error_belongs_to_its_thread(void **state)
{
    struct scene *scene = *state;
    cudaError_t result = cudaErrorUnknown;
    pthread_t thread;
    fake_cuda_fail("cudaStreamQuery", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorMemoryAllocation);
    assert_int_equal(pthread_create(&thread, NULL, ask_last_error, &result), 0);
    pthread_join(thread, NULL);
    assert_int_equal(result, cudaSuccess);
}

static void test_not_ready_is_a_last_error_too(void **state)
{
    struct scene *scene = *state;
    fake_cuda_hold(scene->copy);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    assert_int_equal(cudaGetLastError(), cudaErrorNotReady);
    fake_cuda_release(scene->copy);
}

static void test_broken_device_answers_everything_with_its_code(void **state)
{
    struct scene *scene = *state;
    atomic_int flag = 0;
    void *memory;
    fake_cuda_hold(scene->copy);
    copy_down(scene);
    CUDA(cudaLaunchHostFunc(scene->copy, set_flag, &flag));
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    fake_cuda_release(scene->copy);
    fake_cuda_settle();
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorLaunchFailure);
    assert_int_equal(cudaEventSynchronize(scene->event), cudaErrorLaunchFailure);
    assert_int_equal(cudaStreamSynchronize(scene->copy), cudaErrorLaunchFailure);
    assert_int_equal(cudaMalloc(&memory, 1), cudaErrorLaunchFailure);
    assert_int_equal(cudaFreeHost(scene->host), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(atomic_load(&flag), 0);
    assert_int_equal(fake_cuda_tasks_run(), 0);
}

struct slow_kernel {
    atomic_int *started, *ended;
};

static void run_slow_kernel(void *arguments)
{
    const struct slow_kernel *kernel = arguments;
    atomic_store(kernel->started, 1);
    for (int i = 0; i < 10000; i++)
        sched_yield();
    atomic_store(kernel->ended, 1);
}

static void test_nothing_runs_any_more_once_a_device_is_broken(void **state)
{
    struct scene *scene = *state;
    atomic_int started = 0, ended = 0;
    struct slow_kernel kernel = {.started = &started, .ended = &ended};
    CUDA(fake_cuda_kernel(scene->compute, run_slow_kernel, &kernel, sizeof kernel, NULL, 0));
    while (!atomic_load(&started))
        sched_yield();
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    assert_int_equal(atomic_load(&ended), 1);
}

static void test_another_device_outlives_a_broken_one(void **state)
{
    (void)state;
    void *memory;
    fake_cuda_break_device(0, cudaErrorIllegalAddress);
    CUDA(cudaSetDevice(1));
    CUDA(cudaMalloc(&memory, 1));
    CUDA(cudaFree(memory));
    CUDA(cudaGetLastError());
}

static void test_waiter_comes_back_when_the_device_breaks(void **state)
{
    struct scene *scene = *state;
    fake_cuda_break_in_copy(1, cudaErrorLaunchFailure);
    fake_cuda_hold(scene->copy);
    copy_down(scene);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_release(scene->copy);
    cudaError_t error = cudaEventSynchronize(scene->event);
    assert_int_equal(error, cudaErrorLaunchFailure);
}

static void test_stream_of_another_device_stops_waiting_for_a_broken_device(void **state)
{
    struct scene *scene = *state;
    cudaStream_t other;
    CUDA(cudaSetDevice(1));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    fake_cuda_hold(scene->copy);
    wait_across(scene, scene->copy, other);
    fake_cuda_settle();
    assert_int_equal(cudaStreamQuery(other), cudaErrorNotReady);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    CUDA(cudaStreamSynchronize(other));
    CUDA(cudaStreamDestroy(other));
}

static void test_copy_in_which_the_device_breaks_moves_half(void **state)
{
    struct scene *scene = *state;
    memset(scene->host, 'o', BYTES);
    fake_cuda_fill(scene->device, 'n', BYTES);
    fake_cuda_break_in_copy(1, cudaErrorIllegalAddress);
    copy_down(scene);
    fake_cuda_settle();
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorIllegalAddress);
    fake_cuda_host_reads(scene->host, BYTES); /* nothing moves any more */
    assert_int_equal(scene->host[BYTES / 2 - 1], 'n');
    assert_int_equal(scene->host[BYTES / 2], 'o');
}

static void test_planned_sticky_code_breaks_the_device(void **state)
{
    struct scene *scene = *state;
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorIllegalAddress, FAKE_CUDA_ONCE);
    assert_int_equal(cudaEventRecord(scene->event, scene->copy), cudaErrorIllegalAddress);
    assert_int_equal(cudaStreamQuery(scene->compute), cudaErrorIllegalAddress);
}

static void expect_start(const struct fake_cuda_config *config, cudaError_t count_error,
                         int devices, int driver)
{
    int count = 7, version = -1;
    void *memory;
    fake_cuda_start(config);
    assert_int_equal(cudaGetDeviceCount(&count), count_error);
    assert_int_equal(count, devices);
    assert_int_equal(cudaMalloc(&memory, 1), count_error);
    CUDA(cudaDriverGetVersion(&version));
    assert_int_equal(version, driver);
    assert_int_equal(fake_cuda_end(), 0);
}

static void test_missing_driver_device_and_old_driver_answer_as_cuda_does(void **state)
{
    (void)state;
    expect_start(&(struct fake_cuda_config){.no_driver = true}, cudaErrorInsufficientDriver, 7, 0);
    expect_start(&(struct fake_cuda_config){.driver_version = 12040}, cudaErrorInsufficientDriver,
                 7, 12040);
    expect_start(&(struct fake_cuda_config){.no_devices = true}, cudaErrorNoDevice, 0,
                 CUDART_VERSION);
}

static void test_memory_limits_are_kept(void **state)
{
    (void)state;
    void *first, *second;
    size_t free_bytes, total_bytes;
    fake_cuda_start(&(struct fake_cuda_config){.device_bytes = 1 << 20, .pinned_bytes = 1 << 20});
    CUDA(cudaMalloc(&first, 1 << 19));
    CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 1 << 19);
    assert_int_equal(cudaMalloc(&second, (1 << 19) + 1), cudaErrorMemoryAllocation);
    CUDA(cudaFree(first));
    CUDA(cudaMalloc(&first, 1 << 20));
    CUDA(cudaFree(first));
    assert_int_equal(cudaHostAlloc(&second, (1 << 20) + 1, 0), cudaErrorMemoryAllocation);
    CUDA(cudaHostAlloc(&second, 1 << 20, 0));
    CUDA(cudaFreeHost(second));
    assert_int_equal(fake_cuda_end(), 0);
}

/* ---- The server's thread and its captures ------------------------------------------------------------------------ */

static void test_synchronising_on_the_servers_thread_is_reported(void **state)
{
    struct scene *scene = *state;
    fake_cuda_server_thread(true);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    (void)cudaEventQuery(scene->event);
    (void)cudaGetLastError();
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaEventSynchronize(scene->event));
    expect_report(FAKE_CUDA_SYNCHRONISED);
    fake_cuda_server_thread(false);
}

static void test_unsafe_call_during_a_global_capture_breaks_it(void **state)
{
    struct scene *scene = *state;
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorStreamCaptureUnsupported);
    expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(scene->compute), cudaErrorStreamCaptureInvalidated);
}

static void test_relaxed_thread_leaves_a_capture_alone(void **state)
{
    struct scene *scene = *state;
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeGlobal));
    CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
    assert_int_equal(mode, cudaStreamCaptureModeGlobal);
    CUDA(cudaEventQuery(scene->event));
    copy_down(scene);
    CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
    CUDA(fake_cuda_capture_end(scene->compute));
}

static void *query_event(void *event)
{
    return cudaEventQuery(event) ? event : NULL;
}

static void test_thread_local_capture_heeds_its_own_thread_only(void **state)
{
    struct scene *scene = *state;
    pthread_t thread;
    void *failed;
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(pthread_create(&thread, NULL, query_event, scene->event), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorStreamCaptureUnsupported);
    expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(scene->compute), cudaErrorStreamCaptureInvalidated);
}

static void test_work_on_a_capturing_stream_is_caught_in_it(void **state)
{
    struct scene *scene = *state;
    enum cudaStreamCaptureStatus status;
    CUDA(fake_cuda_capture_begin(scene->copy, cudaStreamCaptureModeRelaxed));
    CUDA(cudaStreamIsCapturing(scene->copy, &status));
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    copy_down(scene);
    expect_report(FAKE_CUDA_CAPTURE);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorCapturedEvent);
    expect_report(FAKE_CUDA_CAPTURE);
    launch_reader(scene->copy, scene->device,
                  1); /* the server's own work is what captures are for */
    assert_int_equal(fake_cuda_tasks_enqueued(), 0);
    CUDA(fake_cuda_capture_end(scene->copy));
}

static void test_capturing_stream_that_waits_for_outside_work_is_broken(void **state)
{
    struct scene *scene = *state;
    CUDA(cudaEventRecord(scene->event, scene->copy));
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaStreamWaitEvent(scene->compute, scene->event, 0),
                     cudaErrorStreamCaptureIsolation);
    expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(scene->compute), cudaErrorStreamCaptureInvalidated);
}

int main(void)
{
#define IN_SCENE(test) cmocka_unit_test_setup_teardown(test, begin, end)
#define IN_BROKEN_SCENE(test) cmocka_unit_test_setup_teardown(test, begin, end_broken)
    const struct CMUnitTest tests[] = {
        IN_SCENE(test_copies_both_ways_bring_back_the_same_bytes),
        IN_SCENE(test_held_stream_runs_nothing_until_released),
        IN_SCENE(test_allowed_tasks_run_on_a_held_stream),
        IN_SCENE(test_streams_finish_out_of_order_across_each_other),
        IN_SCENE(test_event_never_recorded_counts_as_reached),
        IN_SCENE(test_wait_means_the_record_of_its_moment),
        IN_SCENE(test_waiting_stream_stands_until_the_event_is_reached),
        IN_SCENE(test_destroyed_stream_finishes_its_work),
        IN_SCENE(test_host_function_runs_after_the_work_before_it),
        IN_SCENE(test_cuda_call_inside_a_host_function_is_reported),
        IN_SCENE(test_stream_slots_are_used_again_without_end),
        IN_SCENE(test_streams_made_under_a_hold_of_all_are_held),
        IN_SCENE(test_device_synchronisation_observes_every_stream_of_the_device),
        IN_SCENE(test_copy_out_without_waiting_for_compute_is_a_race),
        IN_SCENE(test_task_that_is_reported_as_a_race_moves_nothing),
        IN_SCENE(test_copy_out_that_waits_for_compute_is_none),
        IN_SCENE(test_copy_in_while_compute_reads_is_a_race),
        IN_SCENE(test_copy_in_that_waits_for_compute_is_none),
        IN_SCENE(test_event_recorded_before_the_work_orders_nothing_of_it),
        IN_SCENE(test_two_readers_are_no_race),
        IN_SCENE(test_neighbours_are_no_race),
        IN_SCENE(test_order_through_a_third_stream_counts),
        IN_SCENE(test_what_the_host_observed_is_ordered),
        IN_SCENE(test_not_ready_orders_nothing),
        IN_SCENE(test_host_reads_a_target_before_it_has_seen_the_copy_end),
        IN_SCENE(test_host_writes_a_source_before_it_has_seen_the_copy_end),
        IN_SCENE(test_helper_reads_device_memory_that_compute_still_writes),
        IN_SCENE(test_destroying_a_stream_observes_nothing),
        IN_SCENE(test_pageable_memory_is_refused),
        IN_SCENE(test_registered_memory_is_taken_until_it_is_unregistered),
        IN_SCENE(test_copy_across_two_registrations_is_refused),
        cmocka_unit_test(test_registration_beyond_the_limits_fails),
        IN_SCENE(test_registering_what_is_registered_or_not_there_fails),
        IN_SCENE(test_copy_past_the_end_is_refused),
        IN_SCENE(test_copy_of_freed_memory_is_refused),
        IN_SCENE(test_freeing_memory_in_use_drops_the_copy),
        IN_SCENE(test_unregistering_memory_whose_copy_is_over_but_unseen_is_reported),
        IN_SCENE(test_freeing_twice_is_reported),
        IN_SCENE(test_host_code_that_dereferences_a_device_pointer_crashes),
        IN_SCENE(test_attributes_tell_device_pinned_and_other_memory),
        IN_SCENE(test_kind_that_the_pointers_are_not_is_refused),
        IN_SCENE(test_2d_copy_moves_its_rows_and_nothing_between),
        IN_SCENE(test_2d_copy_races_with_its_rows_only),
        IN_SCENE(test_2d_copy_with_a_pitch_below_its_width_is_refused),
        IN_SCENE(test_3d_copy_moves_rows_of_slices),
        IN_SCENE(test_batch_moves_every_copy),
        IN_SCENE(test_batch_in_stream_order_follows_a_wait),
        IN_SCENE(test_batch_in_any_order_does_not),
        IN_SCENE(test_batch_whose_copies_overlap_is_reported),
        IN_SCENE(test_batch_that_breaks_the_rules_is_refused),
        IN_SCENE(test_failing_descriptor_leaves_the_copies_before_it_running),
        cmocka_unit_test(test_seeds_change_no_result),
        cmocka_unit_test(test_seeds_decide_the_order_inside_a_batch),
        IN_SCENE(test_default_streams_are_refused),
        IN_SCENE(test_stream_that_waits_for_the_default_stream_is_reported),
        IN_SCENE(test_stale_handles_are_reported),
        IN_SCENE(test_contexts_are_made_where_something_is_made),
        IN_SCENE(test_devices_answer_what_they_are),
        cmocka_unit_test(test_program_that_knows_nothing_of_the_stand_in_runs_with_its_defaults),
        IN_SCENE(test_memory_of_another_device_is_refused),
        IN_SCENE(test_event_of_another_device_is_refused_in_record_only),
        IN_SCENE(test_kernel_wants_its_device_to_be_current),
        IN_SCENE(test_pushed_context_is_current_until_popped),
        cmocka_unit_test(test_leaks_are_counted_at_the_end),
        cmocka_unit_test(test_handles_and_pointers_of_a_former_run_are_stale),
        IN_SCENE(test_nth_call_fails_once),
        IN_SCENE(test_several_faults_are_planned_at_once),
        IN_SCENE(test_any_call_fails_for_ever_from_the_nth_on),
        IN_SCENE(test_last_error_stays_until_it_is_taken),
        IN_SCENE(test_last_error_belongs_to_its_thread),
        IN_SCENE(test_not_ready_is_a_last_error_too),
        IN_BROKEN_SCENE(test_broken_device_answers_everything_with_its_code),
        IN_BROKEN_SCENE(test_nothing_runs_any_more_once_a_device_is_broken),
        IN_BROKEN_SCENE(test_another_device_outlives_a_broken_one),
        IN_BROKEN_SCENE(test_waiter_comes_back_when_the_device_breaks),
        IN_BROKEN_SCENE(test_stream_of_another_device_stops_waiting_for_a_broken_device),
        IN_BROKEN_SCENE(test_copy_in_which_the_device_breaks_moves_half),
        IN_BROKEN_SCENE(test_planned_sticky_code_breaks_the_device),
        cmocka_unit_test(test_missing_driver_device_and_old_driver_answer_as_cuda_does),
        cmocka_unit_test(test_memory_limits_are_kept),
        IN_SCENE(test_synchronising_on_the_servers_thread_is_reported),
        IN_SCENE(test_unsafe_call_during_a_global_capture_breaks_it),
        IN_SCENE(test_relaxed_thread_leaves_a_capture_alone),
        IN_SCENE(test_thread_local_capture_heeds_its_own_thread_only),
        IN_SCENE(test_work_on_a_capturing_stream_is_caught_in_it),
        IN_SCENE(test_capturing_stream_that_waits_for_outside_work_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
