/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stand-in for the CUDA runtime: the server's thread and its captures. Each check fires when it
 * should, and only then.
 */
#include "support/cuda_fake_scene.h"

#include <pthread.h>

/* ---- The server's thread and its captures ---------------------------------------------------- */

static void test_synchronising_on_the_servers_thread_is_reported(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_server_thread(true);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    (void)cudaEventQuery(scene->event);
    (void)cudaGetLastError();
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaEventSynchronize(scene->event));
    fake_expect_report(FAKE_CUDA_SYNCHRONISED);
    fake_cuda_server_thread(false);
}

static void test_unsafe_call_during_a_global_capture_breaks_it(void **state)
{
    struct fake_scene *scene = *state;
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorStreamCaptureUnsupported);
    fake_expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(scene->compute), cudaErrorStreamCaptureInvalidated);
}

static void test_relaxed_thread_leaves_a_capture_alone(void **state)
{
    struct fake_scene *scene = *state;
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeGlobal));
    CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
    assert_int_equal(mode, cudaStreamCaptureModeGlobal);
    CUDA(cudaEventQuery(scene->event));
    fake_scene_copy_down(scene);
    CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
    CUDA(fake_cuda_capture_end(scene->compute));
}

static void *query_event(void *event)
{
    return cudaEventQuery(event) ? event : NULL;
}

static void test_thread_local_capture_heeds_its_own_thread_only(void **state)
{
    struct fake_scene *scene = *state;
    pthread_t thread;
    void *failed;
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(pthread_create(&thread, NULL, query_event, scene->event), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorStreamCaptureUnsupported);
    fake_expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(scene->compute), cudaErrorStreamCaptureInvalidated);
}

static void test_work_on_a_capturing_stream_is_caught_in_it(void **state)
{
    struct fake_scene *scene = *state;
    enum cudaStreamCaptureStatus status;
    CUDA(fake_cuda_capture_begin(scene->copy, cudaStreamCaptureModeRelaxed));
    CUDA(cudaStreamIsCapturing(scene->copy, &status));
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    fake_scene_copy_down(scene);
    fake_expect_report(FAKE_CUDA_CAPTURE);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorCapturedEvent);
    fake_expect_report(FAKE_CUDA_CAPTURE);
    /* the server's own work is what captures are for */
    fake_scene_launch_reader(scene->copy, scene->device, 1);
    assert_int_equal(fake_cuda_tasks_enqueued(), 0);
    CUDA(fake_cuda_capture_end(scene->copy));
}

static void test_capturing_stream_that_waits_for_outside_work_is_broken(void **state)
{
    struct fake_scene *scene = *state;
    CUDA(cudaEventRecord(scene->event, scene->copy));
    CUDA(fake_cuda_capture_begin(scene->compute, cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaStreamWaitEvent(scene->compute, scene->event, 0),
                     cudaErrorStreamCaptureIsolation);
    fake_expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(scene->compute), cudaErrorStreamCaptureInvalidated);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fake_scene, test_synchronising_on_the_servers_thread_is_reported),
        TEST(fake_scene, test_unsafe_call_during_a_global_capture_breaks_it),
        TEST(fake_scene, test_relaxed_thread_leaves_a_capture_alone),
        TEST(fake_scene, test_thread_local_capture_heeds_its_own_thread_only),
        TEST(fake_scene, test_work_on_a_capturing_stream_is_caught_in_it),
        TEST(fake_scene, test_capturing_stream_that_waits_for_outside_work_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
