/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations that are refused, each with its own answer, and those at the edge that are not;
 * nothing leaks where memory fails.
 */
#include "support/bad_field.h"
#include "support/kv_scene.h"

/* Creating fails with this code, names the field, hands out nothing and leaks nothing. */
static void create_refused(struct kv_rig *rig, int code, const char *field)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = (struct kvb_manager *)(uintptr_t)1;
    int got = kvb_manager_create(&rig->config, &manager, &diagnosis);
    if (got != code || (field != NULL && strstr(diagnosis.message, field) == NULL))
        fail_msg("%s: %s: %s", field == NULL ? "" : field, kvb_error_name(got), diagnosis.message);
    assert_null(manager);
    assert_int_equal(diagnosis.code, code);
    assert_true(diagnosis.message[0] != '\0');
    assert_int_equal(rig->heap.live_blocks, 0);
    kv_expect(kvb_manager_create(&rig->config, &manager, NULL), code);
}

/* The diagnosis names the field. */
#define BAD(part, type, field, value) BAD_FIELD(part, type, field, value, #field)

static const struct bad_field bad_fields[] = {
    BAD(CONFIG, kvb_config, size, 0),
    BAD(CONFIG, kvb_config, size, 8),
    BAD(CONFIG, kvb_config, tokens_per_block, 0),
    BAD(CONFIG, kvb_config, tokens_per_block, 65536),
    BAD(CONFIG, kvb_config, layout, 0),
    BAD(CONFIG, kvb_config, tiers, 0),
    BAD(CONFIG, kvb_config, tier_count, 0),
    BAD(CONFIG, kvb_config, tier_count, 5),
    BAD(CONFIG, kvb_config, tier_count, UINT32_MAX),
    BAD(CONFIG, kvb_config, key_bytes, 65),
    BAD(CONFIG, kvb_config, key_bytes, UINT32_MAX),
    BAD(CONFIG, kvb_config, progress, 2),
    BAD(CONFIG, kvb_config, duplicate, 2),
    BAD(CONFIG, kvb_config, event_capacity, 1),
    BAD(CONFIG, kvb_config, event_capacity, (1u << 24) + 1),
    BAD(CONFIG, kvb_config, pin_capacity, (1u << 24) + 1),
    BAD(CONFIG, kvb_config, op_capacity, (1u << 20) + 1),
    BAD(CONFIG, kvb_config, namespace_capacity, (1u << 24) + 1),
    BAD(LAYOUT, kvb_layout, size, 0),
    BAD(LAYOUT, kvb_layout, layers, 0),
    BAD(LAYOUT, kvb_layout, parts, 0),
    BAD(LAYOUT, kvb_layout, chunk_bytes, 0),
    BAD(TIER, kvb_tier_config, size, 0),
    BAD(TIER, kvb_tier_config, tier, 4),
    BAD(TIER, kvb_tier_config, block_count, 0),
    BAD(TIER, kvb_tier_config, trigger, 5),
    BAD(TIER, kvb_tier_config, ondeck_capacity, 65537),
    BAD(TIER, kvb_tier_config, batch, 1025),
    BAD(TIER, kvb_tier_config, depth, 65),
    BAD(TIER, kvb_tier_config, queue_capacity, (1u << 24) + 1),
};

struct field_scene {
    struct kv_rig rig;
    const struct bad_field *bad;
};

static int field_setup(void **state)
{
    const struct bad_field *bad = *state;
    struct field_scene *scene = kv_scene_begin(state, sizeof *scene);
    scene->bad = bad;
    kv_rig_add_host(&scene->rig);
    return 0;
}

#define field_teardown kv_scene_end

static void test_config_field_out_of_range(void **state)
{
    struct field_scene *scene = *state;
    bad_field_set(&scene->rig, scene->bad);
    create_refused(&scene->rig, KVB_EINVAL, scene->bad->words);
}

static int run_bad_fields(void)
{
    enum { COUNT = sizeof bad_fields / sizeof *bad_fields };
    static struct CMUnitTest tests[COUNT];
    static char names[COUNT][96];
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof names[i], "test_config_%s_of_%llu_is_invalid_by_name",
                       bad_fields[i].name, (unsigned long long)bad_fields[i].value);
        tests[i] = (struct CMUnitTest){names[i], test_config_field_out_of_range, field_setup,
                                       field_teardown, (void *)(uintptr_t)&bad_fields[i]};
    }
    return cmocka_run_group_tests_name("configuration fields", tests, NULL, NULL);
}

static void test_create_without_config_or_manager_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *manager = (struct kvb_manager *)(uintptr_t)1;
    kv_expect(kvb_manager_create(NULL, &manager, NULL), KVB_EINVAL);
    assert_null(manager);
    kv_expect(kvb_manager_create(&rig->config, NULL, NULL), KVB_EINVAL);
    assert_int_equal(rig->heap.live_blocks, 0);
}

static void test_config_block_bytes_of_4_gib_are_invalid(void **state)
{
    struct kv_rig *rig = *state;
    rig->layout.layers = 1u << 16;
    rig->layout.parts = 1u << 8;
    rig->layout.chunk_bytes = 1u << 8;
    create_refused(rig, KVB_EINVAL, NULL);
}

static void test_config_block_bytes_that_overflow_are_invalid(void **state)
{
    struct kv_rig *rig = *state;
    rig->layout.layers = UINT32_MAX;
    rig->layout.parts = UINT32_MAX;
    create_refused(rig, KVB_EINVAL, NULL);
    rig->layout.chunk_bytes = UINT64_MAX;
    create_refused(rig, KVB_EINVAL, NULL);
    rig->layout.layers = 2; /* 2 x 2 x 2^62 is 0 in 64 bits */
    rig->layout.parts = 2;
    rig->layout.chunk_bytes = UINT64_C(1) << 62;
    create_refused(rig, KVB_EINVAL, NULL);
    rig->layout.layers = 1u << 16; /* 2^16 x 2^16 is 0 in 32 bits */
    rig->layout.parts = 1u << 16;
    rig->layout.chunk_bytes = 1;
    create_refused(rig, KVB_EINVAL, NULL);
}

static void test_config_of_more_blocks_than_memory_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *manager = NULL;
    for (int i = 0; i < 2; i++)
        rig->tiers[i].block_count = UINT32_MAX;
    int code = kvb_manager_create(&rig->config, &manager, NULL);
    assert_true(code == KVB_ENOMEM || code == KVB_EINVAL);
    assert_null(manager);
    assert_int_equal(rig->heap.live_blocks, 0);
}

static void test_config_tiers_not_ascending_are_invalid(void **state)
{
    struct kv_rig *rig = *state;
    rig->tiers[0].tier = KVB_TIER_HOST;
    rig->tiers[1].tier = KVB_TIER_DEVICE;
    create_refused(rig, KVB_EINVAL, "tier");
}

static void test_config_tier_twice_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    rig->tiers[1].tier = KVB_TIER_DEVICE;
    create_refused(rig, KVB_EINVAL, "tier");
}

static void test_config_memory_too_small_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    rig->tiers[0].memory = memory;
    rig->tiers[0].memory_bytes = sizeof memory - 1;
    create_refused(rig, KVB_EINVAL, "memory_bytes");
}

static void test_config_memory_misaligned_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK + 64];
    rig->tiers[0].memory = memory + 8;
    rig->tiers[0].memory_bytes = sizeof memory - 8;
    create_refused(rig, KVB_EINVAL, "memory");
}

static void test_config_memory_of_the_caller_is_used(void **state)
{
    struct kv_rig *rig = *state;
    static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    void *base = NULL;
    uint64_t bytes = 0;
    rig->tiers[0].memory = memory;
    rig->tiers[0].memory_bytes = sizeof memory;
    kv_rig_open(rig);
    kv_ok(kvb_tier_memory(rig->kv, KVB_TIER_DEVICE, &base, &bytes));
    assert_ptr_equal(base, memory);
    assert_int_equal(bytes, sizeof memory);
}

static void test_config_unknown_policy_is_unsupported(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.policy = "clairvoyant";
    create_refused(rig, KVB_EUNSUPPORTED, "policy");
}

static void test_config_half_an_allocator_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.allocator.free = NULL;
    create_refused(rig, KVB_EINVAL, "allocator");
    rig->config.allocator.free = kv_heap_free;
    rig->config.allocator.alloc = NULL;
    create_refused(rig, KVB_EINVAL, "allocator");
}

struct larger_config {
    struct kvb_config known;
    unsigned char tail[16];
};

static void test_config_with_unknown_zero_tail_is_accepted(void **state)
{
    struct kv_rig *rig = *state;
    struct larger_config larger = {.known = rig->config};
    larger.known.size = sizeof larger;
    kv_ok(kvb_manager_create(&larger.known, &rig->kv, NULL));
}

static void test_config_with_unknown_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct larger_config larger = {.known = rig->config};
    larger.known.size = sizeof larger;
    larger.tail[15] = 1;
    struct kvb_manager *manager = NULL;
    kv_expect(kvb_manager_create(&larger.known, &manager, NULL), KVB_EINVAL);
    assert_null(manager);
}

static void test_config_tiers_with_tail_are_read_at_their_distance(void **state)
{
    struct kv_rig *rig = *state;
    struct {
        struct kvb_tier_config known;
        unsigned char tail[8];
    } tiers[2];
    void *base = NULL;
    uint64_t bytes = 0;
    memset(tiers, 0, sizeof tiers);
    for (int i = 0; i < 2; i++) {
        tiers[i].known = rig->tiers[i];
        tiers[i].known.size = sizeof tiers[i];
    }
    rig->config.tiers = &tiers[0].known;
    kv_rig_open(rig);
    kv_ok(kvb_tier_memory(rig->kv, KVB_TIER_HOST, &base, &bytes));
    kv_rig_close(rig);
    tiers[1].tail[0] = 1;
    create_refused(rig, KVB_EINVAL, NULL);
}

static void test_config_layout_with_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct {
        struct kvb_layout known;
        unsigned char tail[8];
    } layout;
    memset(&layout, 0, sizeof layout);
    layout.known = rig->layout;
    layout.known.size = sizeof layout;
    layout.tail[0] = 1;
    rig->config.layout = &layout.known;
    create_refused(rig, KVB_EINVAL, NULL);
}

static void test_config_is_copied(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    struct kvb_config config = rig->config;
    memset(&rig->layout, 0xff, sizeof rig->layout);
    memset(rig->tiers, 0xff, sizeof rig->tiers);
    memset(&rig->config, 0xff, sizeof rig->config);
    struct kvb_block *blocks[2] = {kv_alloc(rig, KVB_TIER_DEVICE), kv_alloc(rig, KVB_TIER_HOST)};
    void *address = NULL;
    kv_ok(kvb_block_address(rig->kv, blocks[0], KV_LAYERS - 1, KV_PARTS - 1, &address));
    kv_poll(rig);
    kv_ok(kvb_block_unref(rig->kv, blocks, 2, NULL));
    rig->config = config;
}

static void test_config_of_extreme_block_sizes_works(void **state)
{
    struct kv_rig *rig = *state;
    static uint32_t tokens[KVB_TOKENS_PER_BLOCK_MAX];
    const uint32_t sizes[] = {1, KVB_TOKENS_PER_BLOCK_MAX};
    kv_tokens(tokens, KVB_TOKENS_PER_BLOCK_MAX, 1);
    for (int i = 0; i < 2; i++) {
        struct kvb_block *block = NULL;
        rig->config.tokens_per_block = sizes[i];
        kv_rig_open(rig);
        kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, 1, &block);
        assert_int_equal(kv_run_length(rig, 0, tokens, sizes[i]), 1);
        kv_unref(rig, block);
        kv_rig_close(rig);
    }
}

static void test_config_without_anything_injected_works(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = NULL;
    rig->config.allocator = (struct kvb_allocator){NULL, NULL, NULL};
    rig->config.clock = (struct kvb_clock){NULL, NULL};
    rig->config.logger = (struct kvb_logger){NULL, NULL};
    rig->config.sink = (struct kvb_event_sink){NULL, NULL};
    rig->config.event_capacity = 0;
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL));
    kv_expect(kvb_block_schedule(rig->kv, &block, 1, NULL), KVB_ESTATE); /* and nobody to tell */
    kv_ok(kvb_block_unref(rig->kv, &block, 1, NULL));
}

/* ---- A failing allocator --------------------------------------------------------------------- */

static void create_with_failures(struct kv_rig *rig, bool onwards)
{
    rig->config.progress = onwards ? KVB_PROGRESS_THREAD : KVB_PROGRESS_POLL;
    kv_rig_open(rig);
    uint64_t calls = rig->heap.calls;
    kv_rig_close(rig);
    assert_true(calls > 0);
    for (uint64_t n = 1; n <= calls; n++) {
        struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
        struct kvb_manager *manager = (struct kvb_manager *)(uintptr_t)1;
        rig->heap.calls = 0;
        rig->heap.fail_at = n;
        rig->heap.fail_onwards = onwards;
        int code = kvb_manager_create(&rig->config, &manager, &diagnosis);
        if (code != KVB_ENOMEM || manager != NULL || rig->heap.live_blocks != 0 ||
            rig->heap.live_bytes != 0 || rig->heap.wrong_frees != 0)
            fail_msg("allocation %llu of %llu fails: %s, %lld blocks left", (unsigned long long)n,
                     (unsigned long long)calls, kvb_error_name(code),
                     (long long)rig->heap.live_blocks);
    }
    rig->heap.fail_at = 0;
    kv_rig_open(rig);
}

static void test_create_with_one_failing_allocation_leaks_nothing(void **state)
{
    create_with_failures(*state, false);
}

static void test_create_with_allocations_failing_from_one_on_leaks_nothing(void **state)
{
    create_with_failures(*state, true);
}

static void test_namespace_open_with_failing_allocation_changes_nothing(void **state)
{
    struct kv_rig *rig = *state;
    int refused = 0;
    for (uint32_t i = 0; i < 12; i++) {
        char salt[300];
        uint32_t id = 99, again = 99;
        memset(salt, (int)('a' + i), sizeof salt);
        int code = KVB_ENOMEM;
        for (uint64_t n = 1; code != 0; n++) {
            int64_t live = rig->heap.live_bytes;
            rig->heap.fail_at = rig->heap.calls + n;
            id = 99;
            code = kvb_namespace_open(rig->kv, salt, sizeof salt, NULL, 0, &id);
            if (code != 0) {
                kv_expect(code, KVB_ENOMEM);
                assert_int_equal(id, 0);
                assert_int_equal(rig->heap.live_bytes, live);
                refused++;
            }
            rig->heap.fail_at = 0;
        }
        kv_ok(kvb_namespace_open(rig->kv, salt, sizeof salt, NULL, 0, &again));
        assert_int_equal(id, again);
        assert_int_equal(id, i + 1);
    }
    assert_true(refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_two_tiers, test_create_without_config_or_manager_is_invalid),
        TEST(kv_two_tiers, test_config_block_bytes_of_4_gib_are_invalid),
        TEST(kv_two_tiers, test_config_block_bytes_that_overflow_are_invalid),
        TEST(kv_two_tiers, test_config_of_more_blocks_than_memory_is_refused),
        TEST(kv_two_tiers, test_config_tiers_not_ascending_are_invalid),
        TEST(kv_two_tiers, test_config_tier_twice_is_invalid),
        TEST(kv_two_tiers, test_config_memory_too_small_is_invalid),
        TEST(kv_two_tiers, test_config_memory_misaligned_is_invalid),
        TEST(kv_two_tiers, test_config_memory_of_the_caller_is_used),
        TEST(kv_two_tiers, test_config_unknown_policy_is_unsupported),
        TEST(kv_two_tiers, test_config_half_an_allocator_is_invalid),
        TEST(kv_two_tiers, test_config_with_unknown_zero_tail_is_accepted),
        TEST(kv_two_tiers, test_config_with_unknown_tail_in_use_is_invalid),
        TEST(kv_two_tiers, test_config_tiers_with_tail_are_read_at_their_distance),
        TEST(kv_two_tiers, test_config_layout_with_tail_in_use_is_invalid),
        TEST(kv_two_tiers, test_config_is_copied),
        TEST(kv_two_tiers, test_config_of_extreme_block_sizes_works),
        TEST(kv_two_tiers, test_config_without_anything_injected_works),
        TEST(kv_two_tiers, test_create_with_one_failing_allocation_leaks_nothing),
        TEST(kv_two_tiers, test_create_with_allocations_failing_from_one_on_leaks_nothing),
        TEST(kv_opened_two_tiers, test_namespace_open_with_failing_allocation_changes_nothing),
    };
    int failed = run_bad_fields();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
