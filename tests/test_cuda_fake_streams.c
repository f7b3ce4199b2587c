/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stand-in for the CUDA runtime: default streams, words that streams write, and streams that
 * take no more. Each check fires when it should, and only then.
 */
#include "support/cuda_fake_scene.h"

#include <string.h>

/* ---- Default streams ------------------------------------------------------------------------- */

static cudaStream_t blocking_stream(void)
{
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));
    fake_expect_report(FAKE_CUDA_DEFAULT_STREAM);
    return stream;
}

static void observe(struct fake_scene *scene, cudaStream_t stream)
{
    CUDA(cudaEventRecord(scene->event, stream));
    CUDA(cudaEventSynchronize(scene->event));
}

static void test_legacy_stream_comes_after_blocking_streams_and_before_them(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t blocking = blocking_stream();
    fake_scene_launch_writer(blocking, scene->device, FAKE_BYTES);
    fake_scene_launch_writer(NULL, scene->device, FAKE_BYTES);
    fake_scene_launch_writer(blocking, scene->device, FAKE_BYTES);
    fake_scene_launch_writer(cudaStreamPerThread, scene->device, FAKE_BYTES / 2);
    fake_expect_report(FAKE_CUDA_RACE); /* two blocking streams are not ordered with each other */
    fake_scene_launch_reader(cudaStreamLegacy, scene->device, FAKE_BYTES);
    assert_int_equal(fake_cuda_report_count(), 0);
    observe(scene, NULL);
    CUDA(cudaStreamDestroy(blocking));
}

static void test_event_on_the_legacy_stream_covers_blocking_streams(void **state)
{
    struct fake_scene *scene = *state;
    cudaStream_t blocking = blocking_stream();
    fake_cuda_hold(blocking);
    fake_scene_launch_writer(blocking, scene->device, FAKE_BYTES);
    CUDA(cudaEventRecord(scene->event, NULL));
    fake_cuda_quiesce();
    assert_int_equal(cudaEventQuery(scene->event), cudaErrorNotReady);
    CUDA(cudaStreamWaitEvent(scene->copy, scene->event, cudaEventWaitDefault));
    fake_scene_copy_down(scene);
    assert_int_equal(fake_cuda_report_count(), 0);
    fake_cuda_release(blocking);
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaStreamDestroy(blocking));
}

static void test_streams_that_block_nobody_are_not_ordered_with_the_legacy_stream(void **state)
{
    struct fake_scene *scene = *state;
    fake_scene_launch_writer(scene->compute, scene->device, FAKE_BYTES);
    fake_scene_launch_reader(NULL, scene->device, FAKE_BYTES);
    fake_expect_report(FAKE_CUDA_RACE);
    CUDA(cudaStreamSynchronize(scene->compute));
}

static void test_legacy_stream_may_be_asked_and_not_used_while_a_blocking_stream_captures(
    void **state)
{
    struct fake_scene *scene = *state;
    enum cudaStreamCaptureStatus status;
    cudaStream_t blocking = blocking_stream();
    CUDA(fake_cuda_capture_begin(blocking, cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaStreamIsCapturing(NULL, &status), cudaErrorStreamCaptureImplicit);
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaStreamIsCapturing(cudaStreamPerThread, &status));
    CUDA(fake_cuda_capture_end(blocking));
    CUDA(fake_cuda_capture_begin(blocking, cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaEventRecord(scene->event, NULL), cudaErrorStreamCaptureImplicit);
    fake_expect_report(FAKE_CUDA_CAPTURE);
    assert_int_equal(fake_cuda_capture_end(blocking), cudaErrorStreamCaptureInvalidated);
    CUDA(cudaStreamDestroy(blocking));
}

/* ---- Words ----------------------------------------------------------------------------------- */

typedef int (*write_value_fn)(cudaStream_t, unsigned long long, uint32_t, unsigned);

static write_value_fn find_write_value(void)
{
    void *found = NULL;
    write_value_fn function;
    enum cudaDriverEntryPointQueryResult result;
    CUDA(cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &found, 11070, 0, &result));
    assert_int_equal(result, cudaDriverEntryPointSuccess);
    memcpy(&function, &found, sizeof function);
    return function;
}

/* One word, zero. */
static uint32_t *take_word(void)
{
    void *word = NULL;
    CUDA(cudaHostAlloc(&word, 64, cudaHostAllocMapped));
    memset(word, 0, 64);
    return word;
}

static int write_word(cudaStream_t stream, const uint32_t *word, uint32_t number)
{
    return find_write_value()(stream, (unsigned long long)(uintptr_t)word, number, 0);
}

static void test_word_is_written_in_order_and_a_look_at_it_is_an_observation(void **state)
{
    struct fake_scene *scene = *state;
    uint32_t *word = take_word();
    fake_cuda_hold(scene->copy);
    fake_scene_copy_down(scene);
    assert_int_equal(write_word(scene->copy, word, 7), 0);
    fake_cuda_quiesce();
    assert_int_equal(fake_cuda_read_word(word), 0);
    fake_cuda_host_reads(scene->host, FAKE_BYTES);
    fake_expect_report(FAKE_CUDA_HOST_RACE);
    fake_cuda_release(scene->copy);
    fake_cuda_quiesce();
    fake_cuda_host_reads(scene->host, FAKE_BYTES); /* nobody has looked */
    fake_expect_report(FAKE_CUDA_HOST_RACE);
    assert_int_equal(fake_cuda_read_word(word), 7);
    fake_cuda_host_reads(scene->host, FAKE_BYTES);
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaFreeHost(word));
}

static void test_look_at_a_word_covers_nothing_behind_the_write(void **state)
{
    struct fake_scene *scene = *state;
    uint32_t *word = take_word();
    assert_int_equal(write_word(scene->copy, word, 1), 0);
    fake_scene_copy_down(scene);
    fake_cuda_quiesce();
    assert_int_equal(fake_cuda_read_word(word), 1);
    fake_cuda_host_reads(scene->host, FAKE_BYTES);
    fake_expect_report(FAKE_CUDA_HOST_RACE);
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaFreeHost(word));
}

static void test_two_streams_that_write_a_word_race(void **state)
{
    struct fake_scene *scene = *state;
    uint32_t *word = take_word();
    assert_int_equal(write_word(scene->copy, word, 1), 0);
    assert_int_equal(write_word(scene->compute, word, 2), 0);
    fake_expect_report(FAKE_CUDA_RACE);
    CUDA(cudaStreamSynchronize(scene->copy));
    CUDA(cudaStreamSynchronize(scene->compute));
    CUDA(cudaFreeHost(word));
}

static void test_word_wants_pinned_memory_and_its_place(void **state)
{
    struct fake_scene *scene = *state;
    uint32_t *word = take_word(), pageable = 0;
    assert_int_not_equal(write_word(scene->copy, &pageable, 1), 0);
    fake_expect_report(FAKE_CUDA_PAGEABLE);
    assert_int_not_equal(
        find_write_value()(scene->copy, (unsigned long long)(uintptr_t)word + 2, 1, 0), 0);
    fake_expect_report(FAKE_CUDA_MISUSE);
    assert_int_not_equal(write_word(NULL, word, 1), 0);
    fake_expect_report(FAKE_CUDA_DEFAULT_STREAM);
    CUDA(cudaFreeHost(word));
}

static void test_lost_device_writes_no_word(void **state)
{
    struct fake_scene *scene = *state;
    uint32_t *word = take_word();
    fake_cuda_hold(scene->copy);
    assert_int_equal(write_word(scene->copy, word, 1), 0);
    fake_cuda_break_device(0, cudaErrorIllegalAddress);
    fake_cuda_release(scene->copy);
    fake_cuda_quiesce();
    assert_int_equal(fake_cuda_read_word(word), 0);
    assert_int_equal(write_word(scene->copy, word, 1), (int)cudaErrorIllegalAddress);
}

/* ---- Full streams ---------------------------------------------------------------------------- */

static void test_call_that_finds_its_stream_full_is_reported(void **state)
{
    struct fake_scene *scene = *state;
    fake_cuda_hold(scene->copy);
    for (int i = 0; i < 1000; i++)
        CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
    CUDA(cudaEventRecord(scene->event, scene->copy));
    fake_expect_report(FAKE_CUDA_FULL);
    fake_cuda_allow(scene->copy, 2);
    fake_cuda_quiesce();
    CUDA(cudaEventRecord(scene->event, scene->copy));
    assert_int_equal(fake_cuda_report_count(), 0);
    fake_cuda_release(scene->copy);
    CUDA(cudaStreamSynchronize(scene->copy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fake_scene, test_legacy_stream_comes_after_blocking_streams_and_before_them),
        TEST(fake_scene, test_event_on_the_legacy_stream_covers_blocking_streams),
        TEST(fake_scene, test_streams_that_block_nobody_are_not_ordered_with_the_legacy_stream),
        TEST(fake_scene,
             test_legacy_stream_may_be_asked_and_not_used_while_a_blocking_stream_captures),
        TEST(fake_scene, test_word_is_written_in_order_and_a_look_at_it_is_an_observation),
        TEST(fake_scene, test_look_at_a_word_covers_nothing_behind_the_write),
        TEST(fake_scene, test_two_streams_that_write_a_word_race),
        TEST(fake_scene, test_word_wants_pinned_memory_and_its_place),
        TEST(broken_scene, test_lost_device_writes_no_word),
        TEST(fake_scene, test_call_that_finds_its_stream_full_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
