/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests do with the memory of tier DEVICE: host memory (kv_device_host.c), or with
 * KVB_TEST_CUDA the stand-in's for CUDA (kv_device_stand_in.c), which host code cannot follow a
 * pointer into, or with KVB_TEST_GPU a real GPU's (kv_device_gpu.c). The same test program is then
 * compiled once more for each.
 *
 * With the stand-in a run begins with the first rig that is opened and ends with the last one that
 * is closed; whatever has been reported by then, or leaked, fails the test.
 */
#ifndef KVB_TEST_SUPPORT_DEVICE_H
#define KVB_TEST_SUPPORT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

bool kv_device_is_cuda(void);

/* Puts DEVICE into CUDA memory, unless the test brings memory of its own. */
void kv_device_start(struct kvb_tier_config *tiers, uint32_t count);

/*
 * How much was reported that nobody has taken; with a GPU 1 if an error has been left behind in
 * this thread.
 */
size_t kv_device_end(void);

/* Whatever a test that has failed holds there goes on. */
void kv_device_let_go(void);

/*
 * Lets everything that can run there run. True if something did: there may be something to poll
 * for.
 */
bool kv_device_moved(struct kvb_manager *kv);

/* Bytes of a block, wherever they lie: written between the first two, read between the others. */
unsigned char *kv_device_begin_write(void *address, size_t bytes);
void kv_device_end_write(void *address, unsigned char *written, size_t bytes);
const unsigned char *kv_device_read(const void *address, size_t bytes);
void kv_device_end_read(const void *address, const unsigned char *bytes);

#if KVB_TEST_CUDA
#include "fake_cuda.h"

/* Of the next run; a test that wants another sets it before. */
extern struct fake_cuda_config kv_device_config;
#elif KVB_TEST_GPU
#include <cuda_runtime_api.h>

/*
 * Ends the program where there is no GPU, with what ctest takes for a skip. Every program that
 * opens a rig calls it by itself.
 */
void kv_device_need_gpu(void);
#endif

#if KVB_TEST_CUDA || KVB_TEST_GPU
/*
 * What is enqueued on the stream behind this waits. On a GPU: one stream at a time, and until it is
 * released nobody may synchronise: no kv_poll, no bytes of the device's.
 */
void kv_device_hold(cudaStream_t stream);
void kv_device_release(cudaStream_t stream);

cudaError_t kv_device_capture_begin(cudaStream_t stream);
cudaError_t kv_device_capture_end(cudaStream_t stream);
#endif

#endif
