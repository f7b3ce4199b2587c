/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tier in CUDA memory that cannot be had: each reason in its own words, and nothing is left
 * behind.
 */
#include "support/cuda_scene.h"

struct attempt {
    struct cuda_scene scene; /* comes first: *state is that as well */
    struct kvb_tier_config *device, *host;
};

#define BLOCK_BYTES (KV_LAYERS * KV_PARTS * KV_CHUNK)

static void start_attempt(struct attempt *a)
{
    struct kv_rig *rig = &a->scene.rig;
    cuda_scene_init(&a->scene, 4, 4);
    a->device = &rig->tiers[0];
    a->host = &rig->tiers[1];
    a->device->memory_kind = KVB_MEMORY_CUDA;
    a->device->copy_method = KVB_COPY_BATCH;
}

/* Not begun: the test says on which machine. */
static int machine_setup(void **state)
{
    (void)cuda_scene_make(state, sizeof(struct attempt));
    return 0;
}

static int attempt_setup(void **state)
{
    start_attempt(cuda_scene_make(state, sizeof(struct attempt)));
    return 0;
}

#define machine_teardown cuda_scene_teardown
#define attempt_teardown cuda_scene_teardown

/* Memory of GPU `device` for the blocks. */
static void *give_memory(struct attempt *a, int device)
{
    cuda_ok(cudaSetDevice(device));
    a->device->memory = cuda_scene_malloc(&a->scene, 4 * BLOCK_BYTES);
    cuda_ok(cudaSetDevice(0));
    a->device->memory_bytes = 4 * BLOCK_BYTES;
    return a->device->memory;
}

/* Create fails with `code` and words that contain `text`. */
static void expect_failure(struct attempt *a, int code, const char *text)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    kv_expect(kvb_manager_create(&a->scene.rig.config, &manager, &diagnosis), code);
    assert_null(manager);
    if (strstr(diagnosis.message, text) == NULL)
        fail_msg("\"%s\"\n  does not contain \"%s\"", diagnosis.message, text);
    assert_int_equal(a->scene.rig.heap.live_bytes, 0);
}

/* ---- Machines -------------------------------------------------------------------------------- */

static void test_machine_without_a_driver_is_unsupported(void **state)
{
    struct attempt *a = *state;
    kv_device_config.no_driver = true;
    start_attempt(a);
    expect_failure(a, KVB_EUNSUPPORTED, "no NVIDIA driver");
}

static void test_driver_older_than_the_runtime_is_unsupported(void **state)
{
    struct attempt *a = *state;
    kv_device_config.driver_version = 12040;
    start_attempt(a);
    expect_failure(a, KVB_EUNSUPPORTED, "made for CUDA 12.4, this libkvblock for 13.0");
}

static void test_machine_without_a_gpu_is_unsupported(void **state)
{
    struct attempt *a = *state;
    kv_device_config.no_devices = true;
    start_attempt(a);
    expect_failure(a, KVB_EUNSUPPORTED, "there is no CUDA device");
}

static void test_runtime_that_does_not_start_says_why(void **state)
{
    struct attempt *a = *state;
    fake_cuda_fail("cudaGetDeviceCount", 1, cudaErrorSystemDriverMismatch, FAKE_CUDA_ONCE);
    expect_failure(a, KVB_EUNSUPPORTED, "cudaErrorSystemDriverMismatch (803)");
}

static void test_wrong_ordinal_is_invalid(void **state)
{
    struct attempt *a = *state;
    kv_device_config.devices = 2;
    start_attempt(a);
    a->device->device = 2;
    expect_failure(a, KVB_EINVAL, "tiers[DEVICE].device: 2 is none of the 2 CUDA devices");
}

static void test_context_that_is_lost_at_create_is_said(void **state)
{
    struct attempt *a = *state;
    /* of a kernel of the server's */
    fake_cuda_fail("cudaMalloc", 1, cudaErrorLaunchFailure, FAKE_CUDA_ONCE);
    expect_failure(a, KVB_EDEVICE, "cudaErrorLaunchFailure (719)");
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void test_host_memory_as_device_memory_is_invalid(void **state)
{
    struct attempt *a = *state;
    static _Alignas(64) unsigned char bytes[4 * BLOCK_BYTES];
    a->device->memory = bytes;
    a->device->memory_bytes = sizeof bytes;
    expect_failure(a, KVB_EINVAL, "is host memory, not memory of a CUDA device");
}

static void test_pinned_memory_as_device_memory_is_invalid(void **state)
{
    struct attempt *a = *state;
    a->device->memory = cuda_scene_malloc_pinned(&a->scene, 4 * BLOCK_BYTES);
    a->device->memory_bytes = 4 * BLOCK_BYTES;
    expect_failure(a, KVB_EINVAL, "is pinned host memory");
}

static void test_memory_of_another_gpu_is_invalid(void **state)
{
    struct attempt *a = *state;
    kv_device_config.devices = 2;
    start_attempt(a);
    give_memory(a, 1);
    expect_failure(a, KVB_EINVAL, "is memory of CUDA device 1, the tier's is 0");
}

static void test_memory_that_ends_too_early_is_invalid(void **state)
{
    struct attempt *a = *state;
    give_memory(a, 0);
    a->device->block_count = 5;
    a->device->memory_bytes = 5 * BLOCK_BYTES; /* it is not */
    expect_failure(a, KVB_EINVAL, "not memory of a CUDA device");
}

static void test_memory_bytes_below_what_strides_span_is_invalid(void **state)
{
    struct attempt *a = *state;
    give_memory(a, 0);
    a->device->memory_bytes--;
    expect_failure(a, KVB_EINVAL, "memory_bytes is 1023, must be at least 1024");
}

static void test_gpu_without_room_is_out_of_memory(void **state)
{
    struct attempt *a = *state;
    kv_device_config.device_bytes = 512;
    start_attempt(a);
    expect_failure(a, KVB_ENOMEM, "does not give 1024 bytes: cudaErrorMemoryAllocation");
}

static void test_every_allocation_that_fails_leaves_nothing_behind(void **state)
{
    struct attempt *a = *state;
    struct kv_rig *rig = &a->scene.rig;
    int code = KVB_ENOMEM;
    for (uint64_t n = 1; code != 0; n++) {
        struct kvb_manager *manager = NULL;
        start_attempt(a);
        rig->heap.fail_at = n;
        code = kvb_manager_create(&rig->config, &manager, NULL);
        assert_true(code == 0 || code == KVB_ENOMEM);
        if (code == 0)
            kv_ok(kvb_manager_destroy(manager));
        cuda_scene_close(&a->scene);
    }
}

/*
 * Create where the n-th of these calls fails, destroy, nothing left. True if there was such a call.
 */
static bool create_with_fault(struct attempt *a, const char *call, unsigned n)
{
    struct kv_rig *rig = &a->scene.rig;
    struct kvb_manager *manager = NULL;
    start_attempt(a);
    if (strcmp(call, "cudaPointerGetAttributes") == 0)
        (void)give_memory(a, 0);            /* nobody asks about the library's own */
    a->device->copy_method = KVB_COPY_AUTO; /* all of them are tried */
    unsigned before = fake_cuda_calls(call);
    fake_cuda_fail(call, n, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    int code = kvb_manager_create(&rig->config, &manager, NULL);
    bool reached = fake_cuda_calls(call) - before >= n;
    assert_true((code == 0) == (manager != NULL));
    fake_cuda_forget_faults();
    bool error_left = cudaPeekAtLastError() != cudaSuccess;
    kv_ok(kvb_manager_destroy(manager));
    if (error_left)
        fail_msg("call %u of %s failed, and its error is left", n, call);
    cuda_scene_close(&a->scene);
    return reached;
}

/* Most calls make events, one as the other: of those a few will do. */
static void test_every_call_that_fails_at_create_leaves_nothing_behind(void **state)
{
    struct attempt *a = *state;
    static const char *const calls[] = {"cudaGetDeviceCount",
                                        "cudaGetDriverEntryPointByVersion",
                                        "cuDevicePrimaryCtxRetain",
                                        "cudaDeviceGetPCIBusId",
                                        "cudaPointerGetAttributes",
                                        "cudaMalloc",
                                        "cudaHostAlloc",
                                        "cudaHostRegister",
                                        "cudaStreamCreateWithFlags",
                                        "cudaDeviceGetStreamPriorityRange",
                                        "cudaStreamCreateWithPriority",
                                        "cudaEventCreateWithFlags",
                                        "cudaMemcpyBatchAsync",
                                        "cudaDeviceGetAttribute",
                                        "cudaStreamSynchronize",
                                        "cudaHostGetDevicePointer",
                                        "cuStreamWriteValue32"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool few = strcmp(calls[i], "cudaEventCreateWithFlags") == 0;
        assert_true(create_with_fault(a, calls[i], 1));
        for (unsigned n = 2; create_with_fault(a, calls[i], n);)
            n += few ? 151 : 1;
    }
}

/* ---- Strides --------------------------------------------------------------------------------- */

static void test_overlapping_strides_are_invalid(void **state)
{
    struct attempt *a = *state;
    give_memory(a, 0);
    a->scene.rig.layout.block_stride = BLOCK_BYTES - 1;
    expect_failure(a, KVB_EINVAL, "block_stride of 255 bytes overlaps the 256");
}

static void test_overflowing_strides_are_invalid(void **state)
{
    struct attempt *a = *state;
    give_memory(a, 0);
    a->scene.rig.layout.block_stride = UINT64_MAX / 2;
    expect_failure(a, KVB_EINVAL, "overflows with 3 steps");
}

static void test_overlapping_layers_are_invalid(void **state)
{
    struct attempt *a = *state;
    void *layers[KV_LAYERS];
    layers[0] = give_memory(a, 0);
    layers[1] = (unsigned char *)layers[0] + 64;
    a->device->memory = NULL;
    a->device->layer_memory = layers;
    expect_failure(a, KVB_EINVAL, "layer_memory[1] overlaps layer_memory[0]");
}

static void test_layer_of_host_memory_is_named(void **state)
{
    struct attempt *a = *state;
    static _Alignas(64) unsigned char bytes[4 * BLOCK_BYTES];
    void *layers[KV_LAYERS];
    layers[0] = give_memory(a, 0);
    layers[1] = bytes;
    a->device->memory = NULL;
    a->device->layer_memory = layers;
    a->device->memory_bytes = 4 * BLOCK_BYTES / KV_LAYERS;
    expect_failure(a, KVB_EINVAL, "tiers[DEVICE].layer_memory[1]");
}

static void test_strides_without_memory_are_invalid(void **state)
{
    struct attempt *a = *state;
    a->scene.rig.layout.part_stride = 4096;
    expect_failure(a, KVB_EINVAL, "the layout has strides, must be without");
}

static void test_both_kinds_of_memory_are_invalid(void **state)
{
    struct attempt *a = *state;
    void *layers[KV_LAYERS] = {NULL, NULL};
    give_memory(a, 0);
    a->device->layer_memory = layers;
    expect_failure(a, KVB_EINVAL, "memory and layer_memory are given, must be one of them");
}

/* ---- Fields ---------------------------------------------------------------------------------- */

static void test_cuda_memory_elsewhere_than_device_is_invalid(void **state)
{
    struct attempt *a = *state;
    a->host->memory_kind = KVB_MEMORY_CUDA;
    expect_failure(a, KVB_EINVAL, "tiers[1] (HOST): memory_kind is KVB_MEMORY_CUDA");
}

static void test_unknown_kinds_and_methods_are_invalid(void **state)
{
    struct attempt *a = *state;
    a->device->memory_kind = 99;
    expect_failure(a, KVB_EINVAL, "tiers[0] (DEVICE): memory_kind is 99, must be 0..");
    start_attempt(a);
    a->device->copy_method = 5;
    expect_failure(a, KVB_EINVAL, "tiers[0] (DEVICE): copy_method is 5, must be 0..4");
    start_attempt(a);
    a->device->memory_kind = KVB_MEMORY_HOST;
    expect_failure(a, KVB_EINVAL, "must be 0 unless memory_kind is KVB_MEMORY_CUDA");
    start_attempt(a);
    a->host->pin_threads = 65;
    expect_failure(a, KVB_EINVAL, "pin_threads is 65, must be 0..64");
    start_attempt(a);
    a->device->pin_threads = 1;
    expect_failure(a, KVB_EINVAL, "tiers[0] (DEVICE): pin_threads is ");
    start_attempt(a);
    a->host->pin_duty_percent = 101;
    expect_failure(a, KVB_EINVAL, "tiers[1] (HOST): pin_duty_percent is 101, must be 0..100");
    start_attempt(a);
    a->device->pin_duty_percent = 50;
    expect_failure(a, KVB_EINVAL, "tiers[0] (DEVICE): pin_duty_percent is 50, must be 0 but for");
}

static void test_method_that_does_not_work_is_unsupported(void **state)
{
    struct attempt *a = *state;
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorCallRequiresNewerDriver, FAKE_CUDA_FOR_EVER);
    expect_failure(a, KVB_EUNSUPPORTED, "copy_method: batch does not work here");
}

static void test_structs_that_end_before_the_gpus_fields_are_invalid(void **state)
{
    struct attempt *a = *state;
    a->device->size = offsetof(struct kvb_tier_config, memory_kind);
    expect_failure(a, KVB_EINVAL, "tiers[0].size is ");
    start_attempt(a);
    a->scene.rig.layout.size = offsetof(struct kvb_layout, layer_stride);
    expect_failure(a, KVB_EINVAL, "layout.size is ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(machine, test_machine_without_a_driver_is_unsupported),
        TEST(machine, test_driver_older_than_the_runtime_is_unsupported),
        TEST(machine, test_machine_without_a_gpu_is_unsupported),
        TEST(attempt, test_runtime_that_does_not_start_says_why),
        TEST(machine, test_wrong_ordinal_is_invalid),
        TEST(attempt, test_context_that_is_lost_at_create_is_said),
        TEST(attempt, test_host_memory_as_device_memory_is_invalid),
        TEST(attempt, test_pinned_memory_as_device_memory_is_invalid),
        TEST(machine, test_memory_of_another_gpu_is_invalid),
        TEST(attempt, test_memory_that_ends_too_early_is_invalid),
        TEST(attempt, test_memory_bytes_below_what_strides_span_is_invalid),
        TEST(machine, test_gpu_without_room_is_out_of_memory),
        TEST(machine, test_every_allocation_that_fails_leaves_nothing_behind),
        TEST(machine, test_every_call_that_fails_at_create_leaves_nothing_behind),
        TEST(attempt, test_overlapping_strides_are_invalid),
        TEST(attempt, test_overflowing_strides_are_invalid),
        TEST(attempt, test_overlapping_layers_are_invalid),
        TEST(attempt, test_layer_of_host_memory_is_named),
        TEST(attempt, test_strides_without_memory_are_invalid),
        TEST(attempt, test_both_kinds_of_memory_are_invalid),
        TEST(attempt, test_cuda_memory_elsewhere_than_device_is_invalid),
        TEST(attempt, test_unknown_kinds_and_methods_are_invalid),
        TEST(attempt, test_method_that_does_not_work_is_unsupported),
        TEST(attempt, test_structs_that_end_before_the_gpus_fields_are_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
