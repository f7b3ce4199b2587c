/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stand-in for the CUDA runtime: devices, handles, and what fails. Each check fires when it
 * should, and only then.
 */
#include "support/cuda_fake_scene.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

/* ---- Devices and handles --------------------------------------------------------------------- */

static void test_default_streams_are_refused(void **state)
{
    struct fake_scene *scene = *state;
    static const uintptr_t streams[] = {0, 1, 2};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(cudaMemcpyAsync(scene->host, scene->device, 1, cudaMemcpyDefault,
                                         (cudaStream_t)streams[i]),
                         cudaErrorInvalidResourceHandle);
        fake_expect_report(FAKE_CUDA_DEFAULT_STREAM);
    }
}

static void test_stream_that_waits_for_the_default_stream_is_reported(void **state)
{
    (void)state;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));
    fake_expect_report(FAKE_CUDA_DEFAULT_STREAM);
    CUDA(cudaStreamDestroy(stream));
}

static void test_stale_handles_are_reported(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t stream, again;
    cudaEvent_t event, event_again;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaStreamCreateWithFlags(&again, cudaStreamNonBlocking));
    assert_int_equal(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
    fake_expect_report(FAKE_CUDA_BAD_HANDLE);
    CUDA(cudaEventCreateWithFlags(&event, 0));
    CUDA(cudaEventDestroy(event));
    CUDA(cudaEventCreateWithFlags(&event_again, 0));
    assert_int_equal(cudaEventRecord(event, scene->copy), cudaErrorInvalidResourceHandle);
    fake_expect_report(FAKE_CUDA_BAD_HANDLE);
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

static void find_in_driver(const char *name, void *function)
{
    enum cudaDriverEntryPointQueryResult found;
    CUDA(cudaGetDriverEntryPointByVersion(name, function, 11000, 0, &found));
    assert_int_equal(found, cudaDriverEntryPointSuccess);
}

static void test_context_of_the_driver_goes_with_its_last_reference(void **state)
{
    int (*retain)(void **, int), (*release)(int), (*push)(void *), (*pop)(void **);
    void *context, *memory;
    (void)state;
    find_in_driver("cuDevicePrimaryCtxRetain", &retain);
    find_in_driver("cuDevicePrimaryCtxRelease", &release);
    find_in_driver("cuCtxPushCurrent", &push);
    find_in_driver("cuCtxPopCurrent", &pop);
    assert_int_equal(retain(&context, 1), 0);
    assert_int_equal(push(context), 0);
    CUDA(cudaMalloc(&memory, 4096)); /* where there is a context already */
    CUDA(cudaFree(memory));
    assert_int_equal(pop(&context), 0);
    assert_true(fake_cuda_has_context(1));
    assert_int_equal(retain(&context, 1), 0);
    assert_int_equal(release(1), 0);
    assert_true(fake_cuda_has_context(1));
    assert_int_equal(release(1), 0);
    assert_false(fake_cuda_has_context(1));
}

static void test_devices_answer_what_they_are(void **state)
{
    struct fake_scene *scene = *state;
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
    struct fake_scene *scene = *state;
    char *other;
    CUDA(cudaSetDevice(1));
    CUDA(cudaMalloc((void **)&other, FAKE_BYTES));
    assert_int_equal(cudaMemcpyAsync(scene->host, other, 1, cudaMemcpyDefault, scene->copy),
                     cudaErrorInvalidValue);
    fake_expect_report(FAKE_CUDA_WRONG_DEVICE);
    fake_scene_copy_down(scene); /* which device is current does not matter to a copy */
    CUDA(cudaFree(other));
}

static void test_event_of_another_device_is_refused_in_record_only(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t other;
    CUDA(cudaSetDevice(1));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    assert_int_equal(cudaEventRecord(scene->event, other), cudaErrorInvalidResourceHandle);
    fake_expect_report(FAKE_CUDA_WRONG_DEVICE);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    CUDA(cudaStreamWaitEvent(other, scene->event, 0));
    CUDA(cudaStreamSynchronize(other));
    CUDA(cudaStreamDestroy(other));
}

static void test_kernel_wants_its_device_to_be_current(void **state)
{
    struct fake_scene *scene = *state;
    struct fake_cuda_range range = {.start = scene->device, .bytes = 1};
    CUDA(cudaSetDevice(1));
    assert_int_equal(fake_cuda_kernel(scene->compute, NULL, NULL, 0, &range, 1),
                     cudaErrorInvalidResourceHandle);
    fake_expect_report(FAKE_CUDA_WRONG_DEVICE);
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
    struct fake_scene scene;
    void *context;
    fake_cuda_start(NULL);
    fake_scene_open(&scene);
    assert_int_equal(
        ((retain_function)(uintptr_t)entry_point("cuDevicePrimaryCtxRetain"))(&context, 0), 0);
    /* streams, events, device memory, host memory, a context */
    assert_int_equal(fake_cuda_end(), 5);
    fake_cuda_start(NULL);
    fake_scene_open(&scene);
    assert_true(fake_scene_close(&scene));
    assert_int_equal(fake_cuda_end(), 0);
}

static void test_handles_and_pointers_of_a_former_run_are_stale(void **state)
{
    (void)state;
    struct fake_scene former, scene;
    fake_cuda_start(NULL);
    fake_scene_open(&former);
    assert_true(fake_scene_close(&former));
    assert_int_equal(fake_cuda_end(), 0);
    fake_cuda_start(NULL);
    fake_scene_open(&scene);
    assert_int_equal(cudaStreamQuery(former.copy), cudaErrorInvalidResourceHandle);
    fake_expect_report(FAKE_CUDA_BAD_HANDLE);
    assert_true(fake_scene_close(&scene));
    assert_int_equal(fake_cuda_end(), 0);
}

/* ---- Faults ---------------------------------------------------------------------------------- */

static void test_nth_call_fails_once(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_fail("cudaEventRecord", 2, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(cudaEventRecord(scene->event, scene->copy), cudaErrorMemoryAllocation);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(fake_cuda_calls("cudaEventRecord"), 3);
    assert_int_equal(fake_cuda_tasks_enqueued(), 2);
}

static void test_several_faults_are_planned_at_once(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    fake_cuda_fail("cudaStreamQuery", 1, cudaErrorNotSupported, FAKE_CUDA_ONCE);
    assert_int_equal(cudaEventRecord(scene->event, scene->copy), cudaErrorMemoryAllocation);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotSupported);
}

static void test_any_call_fails_for_ever_from_the_nth_on(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_fail(NULL, 2, cudaErrorNotSupported, FAKE_CUDA_FOR_EVER);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotSupported);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotSupported);
    fake_cuda_forget_faults();
    CUDA(cudaEventSynchronize(scene->event));
}

static void test_last_error_stays_until_it_is_taken(void **state)
{
    struct fake_scene *scene = *state;
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
    struct fake_scene *scene = *state;
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
    struct fake_scene *scene = *state;
    fake_cuda_hold(scene->copy);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    assert_int_equal(cudaGetLastError(), cudaErrorNotReady);
    fake_cuda_release(scene->copy);
}

static void test_broken_device_answers_everything_with_its_code(void **state)
{
    struct fake_scene *scene = *state;
    atomic_int flag = 0;
    void *memory;
    fake_cuda_hold(scene->copy);
    fake_scene_copy_down(scene);
    CUDA(cudaLaunchHostFunc(scene->copy, fake_set_flag, &flag));
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    fake_cuda_release(scene->copy);
    fake_cuda_quiesce();
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
    struct fake_scene *scene = *state;
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
    struct fake_scene *scene = *state;
    fake_cuda_break_in_copy(1, cudaErrorLaunchFailure);
    fake_cuda_hold(scene->copy);
    fake_scene_copy_down(scene);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_release(scene->copy);
    cudaError_t error = cudaEventSynchronize(scene->event);
    assert_int_equal(error, cudaErrorLaunchFailure);
}

static void test_stream_of_another_device_stops_waiting_for_a_broken_device(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t other;
    CUDA(cudaSetDevice(1));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    fake_cuda_hold(scene->copy);
    fake_scene_wait_across(scene, scene->copy, other);
    fake_cuda_quiesce();
    assert_int_equal(cudaStreamQuery(other), cudaErrorNotReady);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    CUDA(cudaStreamSynchronize(other));
    CUDA(cudaStreamDestroy(other));
}

static void test_copy_in_which_the_device_breaks_moves_half(void **state)
{
    struct fake_scene *scene = *state;
    memset(scene->host, 'o', FAKE_BYTES);
    fake_cuda_fill(scene->device, 'n', FAKE_BYTES);
    fake_cuda_break_in_copy(1, cudaErrorIllegalAddress);
    fake_scene_copy_down(scene);
    fake_cuda_quiesce();
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorIllegalAddress);
    fake_cuda_host_reads(scene->host, FAKE_BYTES); /* nothing moves any more */
    assert_int_equal(scene->host[FAKE_BYTES / 2 - 1], 'n');
    assert_int_equal(scene->host[FAKE_BYTES / 2], 'o');
}

static void test_planned_sticky_code_breaks_the_device(void **state)
{
    struct fake_scene *scene = *state;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fake_scene, test_default_streams_are_refused),
        TEST(fake_scene, test_stream_that_waits_for_the_default_stream_is_reported),
        TEST(fake_scene, test_stale_handles_are_reported),
        TEST(fake_scene, test_contexts_are_made_where_something_is_made),
        TEST(fake_scene, test_context_of_the_driver_goes_with_its_last_reference),
        TEST(fake_scene, test_devices_answer_what_they_are),
        TEST(fake_run, test_program_that_knows_nothing_of_the_stand_in_runs_with_its_defaults),
        TEST(fake_scene, test_memory_of_another_device_is_refused),
        TEST(fake_scene, test_event_of_another_device_is_refused_in_record_only),
        TEST(fake_scene, test_kernel_wants_its_device_to_be_current),
        TEST(fake_scene, test_pushed_context_is_current_until_popped),
        TEST(fake_run, test_leaks_are_counted_at_the_end),
        TEST(fake_run, test_handles_and_pointers_of_a_former_run_are_stale),
        TEST(fake_scene, test_nth_call_fails_once),
        TEST(fake_scene, test_several_faults_are_planned_at_once),
        TEST(fake_scene, test_any_call_fails_for_ever_from_the_nth_on),
        TEST(fake_scene, test_last_error_stays_until_it_is_taken),
        TEST(fake_scene, test_last_error_belongs_to_its_thread),
        TEST(fake_scene, test_not_ready_is_a_last_error_too),
        TEST(broken_scene, test_broken_device_answers_everything_with_its_code),
        TEST(broken_scene, test_nothing_runs_any_more_once_a_device_is_broken),
        TEST(broken_scene, test_another_device_outlives_a_broken_one),
        TEST(broken_scene, test_waiter_comes_back_when_the_device_breaks),
        TEST(broken_scene, test_stream_of_another_device_stops_waiting_for_a_broken_device),
        TEST(broken_scene, test_copy_in_which_the_device_breaks_moves_half),
        TEST(broken_scene, test_planned_sticky_code_breaks_the_device),
        TEST(fake_run, test_missing_driver_device_and_old_driver_answer_as_cuda_does),
        TEST(fake_run, test_memory_limits_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
