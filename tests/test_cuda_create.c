/* SPDX-License-Identifier: Apache-2.0 */
/* A tier in CUDA memory that cannot be had: each reason in its own words, and nothing is left behind. */
#include "support/cuda_scene.h"

struct attempt {
    struct kv_rig rig;
    struct kvb_tier_config *device, *host;
    void *memory; /* of the GPU: 4 blocks */
};

#define BLOCK_BYTES (KV_LAYERS * KV_PARTS * KV_CHUNK)

static void start_attempt(struct attempt *a)
{
    memset(a, 0, sizeof *a);
    kv_rig_init(&a->rig);
    mv_two_tiers(&a->rig, 4, 4, KVB_OFFLOAD_MANUAL);
    a->device = &a->rig.tiers[0];
    a->host = &a->rig.tiers[1];
    a->device->memory_kind = KVB_MEMORY_CUDA;
    a->device->copy_method = KVB_COPY_BATCH;
    kv_device_start(NULL, 0);
}

/* Memory of GPU `device` for the blocks. */
static void give_memory(struct attempt *a, int device)
{
    cuda_ok(cudaSetDevice(device));
    cuda_ok(cudaMalloc(&a->memory, 4 * BLOCK_BYTES));
    cuda_ok(cudaSetDevice(0));
    a->device->memory = a->memory;
    a->device->memory_bytes = 4 * BLOCK_BYTES;
}

/* Create fails with `code` and words that contain `text`; everything is back. */
static void end_attempt(struct attempt *a, int code, const char *text)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    kv_expect(kvb_manager_create(&a->rig.config, &manager, &diagnosis), code);
    assert_null(manager);
    if (strstr(diagnosis.message, text) == NULL) {
        print_error("\"%s\"\n  does not contain \"%s\"\n", diagnosis.message, text);
        fail();
    }
    assert_int_equal(a->rig.heap.live_bytes, 0);
    if (a->memory != NULL)
        cuda_ok(cudaFree(a->memory));
    assert_int_equal(kv_device_end(), 0);
}

/* ---- Machines ----------------------------------------------------------------------------------------------------- */

static void test_machine_without_a_driver_is_unsupported(void **state)
{
    (void)state;
    struct attempt a;
    kv_device_config.no_driver = true;
    start_attempt(&a);
    kv_device_config.no_driver = false;
    end_attempt(&a, KVB_EUNSUPPORTED, "no NVIDIA driver");
}

static void test_driver_older_than_the_runtime_is_unsupported(void **state)
{
    (void)state;
    struct attempt a;
    kv_device_config.driver_version = 12040;
    start_attempt(&a);
    kv_device_config.driver_version = 0;
    end_attempt(&a, KVB_EUNSUPPORTED, "made for CUDA 12.4, this libkvblock for 13.0");
}

static void test_machine_without_a_gpu_is_unsupported(void **state)
{
    (void)state;
    struct attempt a;
    kv_device_config.no_devices = true;
    start_attempt(&a);
    kv_device_config.no_devices = false;
    end_attempt(&a, KVB_EUNSUPPORTED, "there is no CUDA device");
}

static void test_runtime_that_does_not_start_says_why(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    fake_cuda_fail("cudaGetDeviceCount", 1, cudaErrorSystemDriverMismatch, FAKE_CUDA_ONCE);
    end_attempt(&a, KVB_EUNSUPPORTED, "cudaErrorSystemDriverMismatch (803)");
}

static void test_wrong_ordinal_is_invalid(void **state)
{
    (void)state;
    struct attempt a;
    kv_device_config.devices = 2;
    start_attempt(&a);
    kv_device_config.devices = 0;
    a.device->device = 2;
    end_attempt(&a, KVB_EINVAL, "tiers[DEVICE].device: 2 is none of the 2 CUDA devices");
}

static void test_context_that_is_lost_at_create_is_said(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    fake_cuda_fail("cudaMalloc", 1, cudaErrorLaunchFailure,
                   FAKE_CUDA_ONCE); /* of a kernel of the server's */
    end_attempt(&a, KVB_EDEVICE, "cudaErrorLaunchFailure (719)");
}

/* ---- Memory ------------------------------------------------------------------------------------------------------- */

static void test_host_memory_as_device_memory_is_invalid(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char bytes[4 * BLOCK_BYTES];
    struct attempt a;
    start_attempt(&a);
    a.device->memory = bytes;
    a.device->memory_bytes = sizeof bytes;
    end_attempt(&a, KVB_EINVAL, "is host memory, not memory of a CUDA device");
}

static void test_pinned_memory_as_device_memory_is_invalid(void **state)
{
    (void)state;
    struct attempt a;
    void *pinned = NULL;
    start_attempt(&a);
    cuda_ok(cudaHostAlloc(&pinned, 4 * BLOCK_BYTES, cudaHostAllocPortable));
    a.device->memory = pinned;
    a.device->memory_bytes = 4 * BLOCK_BYTES;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    kv_expect(kvb_manager_create(&a.rig.config, &manager, &diagnosis), KVB_EINVAL);
    assert_non_null(strstr(diagnosis.message, "is pinned host memory"));
    cuda_ok(cudaFreeHost(pinned));
    assert_int_equal(kv_device_end(), 0);
}

static void test_memory_of_another_gpu_is_invalid(void **state)
{
    (void)state;
    struct attempt a;
    kv_device_config.devices = 2;
    start_attempt(&a);
    kv_device_config.devices = 0;
    give_memory(&a, 1);
    end_attempt(&a, KVB_EINVAL, "is memory of CUDA device 1, the tier's is 0");
}

static void test_memory_that_ends_too_early_is_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    give_memory(&a, 0);
    a.device->block_count = 5;
    a.device->memory_bytes = 5 * BLOCK_BYTES; /* it is not */
    end_attempt(&a, KVB_EINVAL, "not memory of a CUDA device");
}

static void test_memory_bytes_below_what_strides_span_is_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    give_memory(&a, 0);
    a.device->memory_bytes--;
    end_attempt(&a, KVB_EINVAL, "memory_bytes is 1023, must be at least 1024");
}

static void test_gpu_without_room_is_out_of_memory(void **state)
{
    (void)state;
    struct attempt a;
    kv_device_config.device_bytes = 512;
    start_attempt(&a);
    kv_device_config.device_bytes = 0;
    end_attempt(&a, KVB_ENOMEM, "does not give 1024 bytes: cudaErrorMemoryAllocation");
}

static void test_every_allocation_that_fails_leaves_nothing_behind(void **state)
{
    (void)state;
    int code = KVB_ENOMEM;
    for (uint64_t n = 1; code != 0; n++) {
        struct attempt a;
        struct kvb_manager *manager = NULL;
        start_attempt(&a);
        a.rig.heap.fail_at = n;
        code = kvb_manager_create(&a.rig.config, &manager, NULL);
        assert_true(code == 0 || code == KVB_ENOMEM);
        if (code == 0)
            kv_ok(kvb_manager_destroy(manager));
        assert_int_equal(a.rig.heap.live_bytes, 0);
        assert_int_equal(kv_device_end(), 0);
    }
}

/* Create where the n-th of these calls fails, destroy, nothing left. True if there was such a call. */
static bool create_with_fault(const char *call, unsigned n)
{
    struct attempt a;
    struct kvb_manager *manager = NULL;
    start_attempt(&a);
    if (strcmp(call, "cudaPointerGetAttributes") == 0)
        give_memory(&a, 0);                /* nobody asks about the library's own */
    a.device->copy_method = KVB_COPY_AUTO; /* all of them are tried */
    unsigned before = fake_cuda_calls(call);
    fake_cuda_fail(call, n, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    int code = kvb_manager_create(&a.rig.config, &manager, NULL);
    bool reached = fake_cuda_calls(call) - before >= n;
    assert_true((code == 0) == (manager != NULL));
    fake_cuda_forget_faults();
    bool error_left = cudaPeekAtLastError() != cudaSuccess;
    kv_ok(kvb_manager_destroy(manager));
    assert_int_equal(a.rig.heap.live_bytes, 0);
    cuda_ok(cudaFree(a.memory));
    if (kv_device_end() != 0 || error_left) {
        print_error("call %u of %s failed\n", n, call);
        fail();
    }
    return reached;
}

/* Most calls make events, one as the other: of those a few will do. */
static void test_every_call_that_fails_at_create_leaves_nothing_behind(void **state)
{
    (void)state;
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
                                        "cudaStreamSynchronize"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool few = strcmp(calls[i], "cudaEventCreateWithFlags") == 0;
        assert_true(create_with_fault(calls[i], 1));
        for (unsigned n = 2; create_with_fault(calls[i], n);)
            n += few ? 151 : 1;
    }
}

/* ---- Strides ------------------------------------------------------------------------------------------------------ */

static void test_overlapping_strides_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    give_memory(&a, 0);
    a.rig.layout.block_stride = BLOCK_BYTES - 1;
    end_attempt(&a, KVB_EINVAL, "block_stride of 255 bytes overlaps the 256");
}

static void test_overflowing_strides_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    give_memory(&a, 0);
    a.rig.layout.block_stride = UINT64_MAX / 2;
    end_attempt(&a, KVB_EINVAL, "overflows with 3 steps");
}

static void test_overlapping_layers_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    void *layers[KV_LAYERS];
    start_attempt(&a);
    give_memory(&a, 0);
    layers[0] = a.memory;
    layers[1] = (unsigned char *)a.memory + 64;
    a.device->memory = NULL;
    a.device->layer_memory = layers;
    end_attempt(&a, KVB_EINVAL, "layer_memory[1] overlaps layer_memory[0]");
}

static void test_layer_of_host_memory_is_named(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char bytes[4 * BLOCK_BYTES];
    struct attempt a;
    void *layers[KV_LAYERS];
    start_attempt(&a);
    give_memory(&a, 0);
    layers[0] = a.memory;
    layers[1] = bytes;
    a.device->memory = NULL;
    a.device->layer_memory = layers;
    a.device->memory_bytes = 4 * BLOCK_BYTES / KV_LAYERS;
    end_attempt(&a, KVB_EINVAL, "tiers[DEVICE].layer_memory[1]");
}

static void test_strides_without_memory_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    a.rig.layout.part_stride = 4096;
    end_attempt(&a, KVB_EINVAL, "the layout has strides, must be without");
}

static void test_both_kinds_of_memory_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    void *layers[KV_LAYERS] = {NULL, NULL};
    start_attempt(&a);
    give_memory(&a, 0);
    a.device->layer_memory = layers;
    end_attempt(&a, KVB_EINVAL, "memory and layer_memory are given, must be one of them");
}

/* ---- Fields ------------------------------------------------------------------------------------------------------- */

static void test_cuda_memory_elsewhere_than_device_is_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    a.host->memory_kind = KVB_MEMORY_CUDA;
    end_attempt(&a, KVB_EINVAL, "tiers[1] (HOST): memory_kind is KVB_MEMORY_CUDA");
}

static void test_unknown_kinds_and_methods_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    a.device->memory_kind = 2;
    end_attempt(&a, KVB_EINVAL, "tiers[0] (DEVICE): memory_kind is 2, must be 0..1");
    start_attempt(&a);
    a.device->copy_method = 5;
    end_attempt(&a, KVB_EINVAL, "tiers[0] (DEVICE): copy_method is 5, must be 0..4");
    start_attempt(&a);
    a.device->memory_kind = KVB_MEMORY_HOST;
    end_attempt(&a, KVB_EINVAL, "must be 0 unless memory_kind is KVB_MEMORY_CUDA");
    start_attempt(&a);
    a.host->pin_threads = 65;
    end_attempt(&a, KVB_EINVAL, "pin_threads is 65, must be 0..64");
    start_attempt(&a);
    a.device->pin_threads = 1;
    end_attempt(&a, KVB_EINVAL, "tiers[0] (DEVICE): pin_threads is ");
}

static void test_method_that_does_not_work_is_unsupported(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorCallRequiresNewerDriver, FAKE_CUDA_FOR_EVER);
    end_attempt(&a, KVB_EUNSUPPORTED, "copy_method: batch does not work here");
}

static void test_structs_that_end_before_the_gpus_fields_are_invalid(void **state)
{
    (void)state;
    struct attempt a;
    start_attempt(&a);
    a.device->size = offsetof(struct kvb_tier_config, memory_kind);
    end_attempt(&a, KVB_EINVAL, "tiers[0].size is ");
    start_attempt(&a);
    a.rig.layout.size = offsetof(struct kvb_layout, layer_stride);
    end_attempt(&a, KVB_EINVAL, "layout.size is ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine_without_a_driver_is_unsupported),
        cmocka_unit_test(test_driver_older_than_the_runtime_is_unsupported),
        cmocka_unit_test(test_machine_without_a_gpu_is_unsupported),
        cmocka_unit_test(test_runtime_that_does_not_start_says_why),
        cmocka_unit_test(test_wrong_ordinal_is_invalid),
        cmocka_unit_test(test_context_that_is_lost_at_create_is_said),
        cmocka_unit_test(test_host_memory_as_device_memory_is_invalid),
        cmocka_unit_test(test_pinned_memory_as_device_memory_is_invalid),
        cmocka_unit_test(test_memory_of_another_gpu_is_invalid),
        cmocka_unit_test(test_memory_that_ends_too_early_is_invalid),
        cmocka_unit_test(test_memory_bytes_below_what_strides_span_is_invalid),
        cmocka_unit_test(test_gpu_without_room_is_out_of_memory),
        cmocka_unit_test(test_every_allocation_that_fails_leaves_nothing_behind),
        cmocka_unit_test(test_every_call_that_fails_at_create_leaves_nothing_behind),
        cmocka_unit_test(test_overlapping_strides_are_invalid),
        cmocka_unit_test(test_overflowing_strides_are_invalid),
        cmocka_unit_test(test_overlapping_layers_are_invalid),
        cmocka_unit_test(test_layer_of_host_memory_is_named),
        cmocka_unit_test(test_strides_without_memory_are_invalid),
        cmocka_unit_test(test_both_kinds_of_memory_are_invalid),
        cmocka_unit_test(test_cuda_memory_elsewhere_than_device_is_invalid),
        cmocka_unit_test(test_unknown_kinds_and_methods_are_invalid),
        cmocka_unit_test(test_method_that_does_not_work_is_unsupported),
        cmocka_unit_test(test_structs_that_end_before_the_gpus_fields_are_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
