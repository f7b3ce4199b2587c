/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stand-in for the CUDA runtime: streams, events, and the order that they make. Each check
 * fires when it should, and only then.
 */
#include "support/cuda_fake_scene.h"

#include <stdatomic.h>
#include <string.h>

/* ---- Streams and events ---------------------------------------------------------------------- */

static void test_copies_both_ways_bring_back_the_same_bytes(void **state)
{
    struct fake_scene *scene = *state;
    for (size_t i = 0; i < FAKE_BYTES; i++)
        scene->host[i] = (char)(i * 7);
    fake_scene_copy_up(scene);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(fake_cuda_compare(scene->device, scene->host, FAKE_BYTES), 0);
    memset(scene->host, 0, FAKE_BYTES);
    fake_scene_copy_down(scene);
    CUDA(cudaStreamSynchronize(scene->copy));
    for (size_t i = 0; i < FAKE_BYTES; i++)
        assert_int_equal(scene->host[i], (char)(i * 7));
}

static void test_held_stream_runs_nothing_until_released(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_fill(scene->device, 'n', FAKE_BYTES);
    memset(scene->host, 'o', FAKE_BYTES);
    fake_cuda_hold(scene->copy);
    fake_scene_copy_down(scene);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_quiesce();
    assert_int_equal(fake_cuda_tasks_run(), 0);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotReady);
    fake_cuda_release(scene->copy);
    fake_cuda_quiesce();
    CUDA(cudaEventQuery(scene->event));
    CUDA(cudaStreamQuery(scene->copy));
    assert_int_equal(scene->host[0], 'n');
}

static void test_allowed_tasks_run_on_a_held_stream(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_hold(NULL);
    for (int i = 0; i < 3; i++)
        CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_cuda_allow(scene->copy, 2);
    fake_cuda_quiesce();
    assert_int_equal(fake_cuda_tasks_run(), 2);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_allow(NULL, 1);
    fake_cuda_quiesce();
    CUDA(cudaEventQuery(scene->event));
    fake_cuda_release(NULL);
}

static void test_streams_finish_out_of_order_across_each_other(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_hold(scene->compute);
    fake_scene_launch_writer(scene->compute, scene->device, 16);
    CUDA(cudaMemcpyAsync(scene->host, scene->device + 1024, 16, cudaMemcpyDeviceToHost,
                         scene->copy));
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(cudaStreamQuery(scene->compute), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
}

static void test_event_never_recorded_counts_as_reached(void **state)
{
    struct fake_scene *scene = *state;
    CUDA(cudaEventQuery(scene->event));
    CUDA(cudaEventSynchronize(scene->event));
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, 0));
    assert_int_equal(fake_cuda_tasks_enqueued(), 0);
}

static void test_wait_means_the_record_of_its_moment(void **state)
{
    struct fake_scene *scene = *state;
    CUDA(cudaEventRecord(scene->event, scene->compute));
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, 0));
    fake_cuda_quiesce();
    fake_cuda_hold(scene->compute);
    CUDA(cudaEventRecord(scene->event, scene->compute)); /* anew, and not reached */
    fake_cuda_quiesce();
    CUDA(cudaStreamQuery(scene->copy));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
}

static void test_waiting_stream_stands_until_the_event_is_reached(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_hold(scene->compute);
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_wait_across(scene, scene->compute, scene->copy);
    fake_scene_copy_down(scene);
    fake_cuda_quiesce();
    assert_int_equal(cudaStreamQuery(scene->copy), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[FAKE_BYTES - 1], 'k');
}

static void test_destroyed_stream_finishes_its_work(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, -1));
    fake_cuda_hold(stream);
    fake_scene_launch_writer(stream, scene->device, FAKE_BYTES);
    CUDA(cudaEventRecord(scene->event, stream));
    CUDA(cudaStreamDestroy(stream));
    fake_cuda_release(NULL);
    CUDA(cudaEventSynchronize(scene->event));
    char expected[16];
    memset(expected, 'k', sizeof expected);
    assert_int_equal(fake_cuda_compare(scene->device, expected, sizeof expected), 0);
}

static void test_host_function_runs_after_the_work_before_it(void **state)
{
    struct fake_scene *scene = *state;
    atomic_int flag = 0;
    fake_cuda_hold(scene->copy);
    fake_scene_copy_down(scene);
    CUDA(cudaLaunchHostFunc(scene->copy, fake_set_flag, &flag));
    fake_cuda_allow(scene->copy, 1);
    fake_cuda_quiesce();
    assert_int_equal(atomic_load(&flag), 0);
    fake_cuda_release(scene->copy);
    fake_cuda_quiesce();
    assert_int_equal(atomic_load(&flag), 1);
    fake_cuda_host_reads(scene->host, FAKE_BYTES); /* the function has told the host */
}

static void call_cuda(void *result)
{
    int device;
    *(cudaError_t *)result = cudaGetDevice(&device);
}

static void test_cuda_call_inside_a_host_function_is_reported(void **state)
{
    struct fake_scene *scene = *state;
    cudaError_t result = cudaSuccess;
    CUDA(cudaLaunchHostFunc(scene->copy, call_cuda, &result));
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(result, cudaErrorNotPermitted);
    fake_expect_report(FAKE_CUDA_MISUSE);
}

static void test_stream_slots_are_used_again_without_end(void **state)
{
    struct fake_scene *scene = *state;
    for (int i = 0; i < 500; i++) {
        cudaStream_t stream;
        CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        CUDA(cudaEventRecord(scene->event, stream)); /* seen by nobody */
        CUDA(cudaStreamDestroy(stream));
    }
}

static void test_streams_made_under_a_hold_of_all_are_held(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t stream;
    fake_cuda_hold(NULL);
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaEventRecord(scene->event, stream));
    fake_cuda_quiesce();
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_release(NULL);
    CUDA(cudaEventSynchronize(scene->event));
    CUDA(cudaStreamDestroy(stream));
}

static void test_device_synchronisation_observes_every_stream_of_the_device(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    CUDA(cudaDeviceSynchronize());
    fake_scene_copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

/* ---- Order ----------------------------------------------------------------------------------- */

static void test_copy_out_without_waiting_for_compute_is_a_race(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_cuda_quiesce(); /* the timing is kind */
    fake_scene_copy_down(scene);
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_task_that_is_reported_as_a_race_moves_nothing(void **state)
{
    struct fake_scene *scene = *state;
    memset(scene->host, 'o', FAKE_BYTES);
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_copy_down(scene);
    fake_expect_report(FAKE_CUDA_RACE);
    CUDA(cudaStreamSynchronize(scene->copy));
    assert_int_equal(scene->host[0], 'o');
}

static void test_copy_out_that_waits_for_compute_is_none(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_wait_across(scene, scene->compute, scene->copy);
    fake_scene_copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_copy_in_while_compute_reads_is_a_race(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_reader(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_copy_up(scene);
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_copy_in_that_waits_for_compute_is_none(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_reader(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_wait_across(scene, scene->compute, scene->copy);
    fake_scene_copy_up(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_event_recorded_before_the_work_orders_nothing_of_it(void **state)
{
    struct fake_scene *scene = *state;
    CUDA(cudaEventRecord(scene->event, scene->compute));
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, 0));
    fake_scene_copy_down(scene);
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_two_readers_are_no_race(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_reader(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_neighbours_are_no_race(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device, 4096);
    CUDA(cudaMemcpyAsync(scene->host, scene->device + 4096, 4096, cudaMemcpyDeviceToHost,
                         scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(
        cudaMemcpyAsync(scene->host, scene->device + 4095, 1, cudaMemcpyDeviceToHost, scene->copy));
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_order_through_a_third_stream_counts(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t third;
    CUDA(cudaStreamCreateWithFlags(&third, cudaStreamNonBlocking));
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_wait_across(scene, scene->compute, third);
    fake_scene_wait_across(scene, third, scene->copy);
    fake_scene_copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaStreamDestroy(third));
}

static void test_what_the_host_observed_is_ordered(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    CUDA(cudaEventRecord(scene->event, scene->compute));
    fake_cuda_quiesce();
    CUDA(cudaEventQuery(scene->event));
    fake_scene_copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_not_ready_orders_nothing(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_hold(scene->compute);
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    CUDA(cudaEventRecord(scene->event, scene->compute));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    fake_cuda_release(scene->compute);
    fake_cuda_quiesce();
    fake_scene_copy_down(scene);
    fake_expect_report(FAKE_CUDA_RACE);
}

static void test_host_reads_a_target_before_it_has_seen_the_copy_end(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_copy_down(scene);
    fake_cuda_quiesce();
    fake_cuda_host_reads(scene->host + 100, 1);
    fake_expect_report(FAKE_CUDA_HOST_RACE);
    CUDA(cudaStreamQuery(scene->copy));
    fake_cuda_host_reads(scene->host + 100, 1);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_host_writes_a_source_before_it_has_seen_the_copy_end(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_copy_up(scene);
    fake_cuda_quiesce();
    fake_cuda_host_reads(scene->host, FAKE_BYTES); /* reading it is no harm */
    assert_int_equal(fake_cuda_report_count(), 0);
    fake_cuda_host_writes(scene->host, 1);
    fake_expect_report(FAKE_CUDA_HOST_RACE);
}

static void test_helper_reads_device_memory_that_compute_still_writes(void **state)
{
    struct fake_scene *scene = *state;
    char byte;
    fake_cuda_hold(scene->compute);
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_cuda_read(&byte, scene->device, 1);
    fake_expect_report(FAKE_CUDA_HOST_RACE);
    fake_cuda_release(scene->compute);
}

static void test_destroying_a_stream_observes_nothing(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    fake_scene_launch_writer(stream, scene->device, FAKE_BYTES);
    CUDA(cudaStreamDestroy(stream));
    fake_cuda_quiesce();
    /* not taken for the former one */
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMemcpyAsync(scene->host, scene->device, 8, cudaMemcpyDeviceToHost, stream));
    fake_expect_report(FAKE_CUDA_RACE);
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaStreamDestroy(stream));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fake_scene, test_copies_both_ways_bring_back_the_same_bytes),
        TEST(fake_scene, test_held_stream_runs_nothing_until_released),
        TEST(fake_scene, test_allowed_tasks_run_on_a_held_stream),
        TEST(fake_scene, test_streams_finish_out_of_order_across_each_other),
        TEST(fake_scene, test_event_never_recorded_counts_as_reached),
        TEST(fake_scene, test_wait_means_the_record_of_its_moment),
        TEST(fake_scene, test_waiting_stream_stands_until_the_event_is_reached),
        TEST(fake_scene, test_destroyed_stream_finishes_its_work),
        TEST(fake_scene, test_host_function_runs_after_the_work_before_it),
        TEST(fake_scene, test_cuda_call_inside_a_host_function_is_reported),
        TEST(fake_scene, test_stream_slots_are_used_again_without_end),
        TEST(fake_scene, test_streams_made_under_a_hold_of_all_are_held),
        TEST(fake_scene, test_device_synchronisation_observes_every_stream_of_the_device),
        TEST(fake_scene, test_copy_out_without_waiting_for_compute_is_a_race),
        TEST(fake_scene, test_task_that_is_reported_as_a_race_moves_nothing),
        TEST(fake_scene, test_copy_out_that_waits_for_compute_is_none),
        TEST(fake_scene, test_copy_in_while_compute_reads_is_a_race),
        TEST(fake_scene, test_copy_in_that_waits_for_compute_is_none),
        TEST(fake_scene, test_event_recorded_before_the_work_orders_nothing_of_it),
        TEST(fake_scene, test_two_readers_are_no_race),
        TEST(fake_scene, test_neighbours_are_no_race),
        TEST(fake_scene, test_order_through_a_third_stream_counts),
        TEST(fake_scene, test_what_the_host_observed_is_ordered),
        TEST(fake_scene, test_not_ready_orders_nothing),
        TEST(fake_scene, test_host_reads_a_target_before_it_has_seen_the_copy_end),
        TEST(fake_scene, test_host_writes_a_source_before_it_has_seen_the_copy_end),
        TEST(fake_scene, test_helper_reads_device_memory_that_compute_still_writes),
        TEST(fake_scene, test_destroying_a_stream_observes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
