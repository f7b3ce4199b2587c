/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the stand-in for CUDA itself share. It knows nothing of kvblock.
 */
#ifndef KVB_TEST_SUPPORT_CUDA_FAKE_SCENE_H
#define KVB_TEST_SUPPORT_CUDA_FAKE_SCENE_H

#include <stdbool.h>

#include "fake_cuda.h"
#include "support/test.h"

#define FAKE_BYTES ((size_t)64 << 10)

#define CUDA(call) assert_int_equal((call), cudaSuccess)

/* A run with two devices, two streams, an event, and memory on both sides. */
struct fake_scene {
    cudaStream_t compute, copy;
    cudaEvent_t event;
    char *device;
    char *host;
};

/* In the run that there is. close: whether all of it could be given back. */
void fake_scene_open(struct fake_scene *scene);
bool fake_scene_close(struct fake_scene *scene);

int fake_scene_setup(void **state);
int fake_scene_teardown(void **state);

/* One whose device the test breaks: nothing can be given back. */
#define broken_scene_setup fake_scene_setup
int broken_scene_teardown(void **state);

/* For a test that begins its runs itself: none is left. */
#define fake_run_setup NULL
#define fake_run_teardown broken_scene_teardown

/* There is one report, of this kind. */
void fake_expect_report(enum fake_cuda_report_kind kind);

void fake_scene_launch_writer(cudaStream_t stream, const void *start, size_t bytes);
void fake_scene_launch_reader(cudaStream_t stream, const void *start, size_t bytes);

/* A host function: sets an atomic_int. */
void fake_set_flag(void *flag);

/* All bytes, on the stream `copy`. */
void fake_scene_copy_down(struct fake_scene *scene);
void fake_scene_copy_up(struct fake_scene *scene);

/* What `to` does from now on comes after what `from` has been given. */
void fake_scene_wait_across(struct fake_scene *scene, cudaStream_t from, cudaStream_t to);

#endif
