/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why there is no manager: the log and the diagnosis name the field, the value given and what would
 * be allowed.
 */
#include "support/bad_field.h"
#include "support/file_scene.h"
#include "support/refusal.h"

static const char *paths[KVB_DISK_PATHS_MAX + 1];
static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK + 64];

/* Both say the same; the log puts the function's name before it. */
static void create_says(struct kv_rig *rig, int code, const char *words)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    char line[512];
    refuses(rig, kvb_manager_create(&rig->config, &manager, &diagnosis), code, words);
    (void)snprintf(line, sizeof line, "kvb_manager_create: %s", diagnosis.message);
    assert_string_equal(kv_log_last(&rig->log)->text, line);
    assert_int_equal(diagnosis.code, code);
    assert_int_equal(diagnosis.size, sizeof diagnosis);
    refuses(rig, kvb_manager_create(&rig->config, &manager, NULL), code, words);
    assert_null(manager);
}

/* ---- One field that is out of its range ------------------------------------------------------ */

enum { BAD_DEVICE = BAD_TIER, BAD_HOST, BAD_DISK };

static const struct bad_field bad_fields[] = {
    BAD_FIELD(CONFIG, kvb_config, tokens_per_block, 0, "tokens_per_block is 0, must be 1..65535"),
    BAD_FIELD(CONFIG, kvb_config, tokens_per_block, 65536,
              "tokens_per_block is 65536, must be 1..65535"),
    BAD_FIELD(CONFIG, kvb_config, layout, 0, "layout is NULL"),
    BAD_FIELD(CONFIG, kvb_config, tiers, 0, "tiers is NULL, tier_count is 3"),
    BAD_FIELD(CONFIG, kvb_config, tier_count, 0, "tier_count is 0, must be 1..4"),
    BAD_FIELD(CONFIG, kvb_config, tier_count, 5, "tier_count is 5, must be 1..4"),
    BAD_FIELD(CONFIG, kvb_config, key_bytes, 65, "key_bytes is 65, must be 0..64"),
    BAD_FIELD(CONFIG, kvb_config, progress, 2, "progress is 2, must be 0..1"),
    BAD_FIELD(CONFIG, kvb_config, duplicate, 2, "duplicate is 2, must be 0..1"),
    BAD_FIELD(CONFIG, kvb_config, event_capacity, 1,
              "event_capacity is 1, must be 2..16777216, or 0 for the default"),
    BAD_FIELD(CONFIG, kvb_config, pin_capacity, (1u << 24) + 1,
              "pin_capacity is 16777217, must be 1..16777216, or 0 for 1024"),
    BAD_FIELD(CONFIG, kvb_config, op_capacity, (1u << 20) + 1,
              "op_capacity is 1048577, must be 1..1048576, or 0 for 1024"),
    BAD_FIELD(CONFIG, kvb_config, namespace_capacity, (1u << 24) + 1,
              "namespace_capacity is 16777217, must be 1..16777216"),
    BAD_FIELD(LAYOUT, kvb_layout, size, 0,
              "layout.size is 0, must be set to sizeof(struct kvb_layout)"),
    BAD_FIELD(LAYOUT, kvb_layout, layers, 0, "layout.layers is 0, must be 1..4294967295"),
    BAD_FIELD(LAYOUT, kvb_layout, parts, 0, "layout.parts is 0, must be 1..4294967295"),
    BAD_FIELD(LAYOUT, kvb_layout, chunk_bytes, 0, "layout.chunk_bytes is 0, must be 1..4294967295"),
    BAD_FIELD(LAYOUT, kvb_layout, chunk_bytes, UINT64_C(1) << 40,
              "2 layers x 2 parts x 1099511627776 chunk_bytes is 4 GiB or more"),
    BAD_FIELD(LAYOUT, kvb_layout, reserved, 1, "layout.reserved is 1, must be 0"),
    BAD_FIELD(LAYOUT, kvb_layout, layer_stride, 64, "layout.layer_stride is given, must be 0"),
    BAD_FIELD(LAYOUT, kvb_layout, part_stride, 64, "layout.part_stride is given, must be 0"),
    BAD_FIELD(LAYOUT, kvb_layout, block_stride, 64, "layout.block_stride is given, must be 0"),
    BAD_FIELD(DEVICE, kvb_tier_config, size, 0,
              "tiers[0].size is 0, must be set to sizeof(struct kvb_tier_config)"),
    BAD_FIELD(HOST, kvb_tier_config, size, 8,
              "tiers[1].size is 8, must be set to sizeof(struct kvb_tier_config)"),
    BAD_FIELD(DEVICE, kvb_tier_config, tier, 4, "tiers[0]: tier is 4, must be 0..3"),
    BAD_FIELD(HOST, kvb_tier_config, tier, 0, "tiers[1] (DEVICE): tier is 0, must be above 0"),
    BAD_FIELD(DEVICE, kvb_tier_config, block_count, 0,
              "tiers[0] (DEVICE): block_count is 0, must be 1..4294967294"),
    BAD_FIELD(HOST, kvb_tier_config, block_count, UINT32_MAX,
              "tiers[1] (HOST): block_count is 4294967295, must be 1..4294967294"),
    BAD_FIELD(HOST, kvb_tier_config, trigger, 5, "tiers[1] (HOST): trigger is 5, must be 0..4"),
    BAD_FIELD(HOST, kvb_tier_config, ondeck_capacity, 65537,
              "tiers[1] (HOST): ondeck_capacity is 65537, must be 1..65536, or 0 for 64"),
    BAD_FIELD(HOST, kvb_tier_config, batch, 65, "tiers[1] (HOST): batch is 65, must be 1..64"),
    BAD_FIELD(HOST, kvb_tier_config, depth, 65, "tiers[1] (HOST): depth is 65, must be 1..64"),
    BAD_FIELD(HOST, kvb_tier_config, queue_capacity, (1u << 24) + 1,
              "tiers[1] (HOST): queue_capacity is 16777217, must be 1..16777216"),
    BAD_FIELD(HOST, kvb_tier_config, memory_bytes, 100,
              "tiers[1] (HOST): memory_bytes is 100 without memory, must be 0"),
    BAD_FIELD(HOST, kvb_tier_config, disk_engine, 3,
              "tiers[1] (HOST): disk_engine is 3, must be 0..2"),
    BAD_FIELD(DISK, kvb_tier_config, disk_flags, 8,
              "tiers[2] (DISK): disk_flags is 0x8, must be of 0x7"),
    BAD_FIELD(HOST, kvb_tier_config, disk_flags, 1,
              "tiers[1] (HOST): disk_flags is 0x1, must be 0 without path"),
    BAD_FIELD(HOST, kvb_tier_config, write_bytes_per_second, 5,
              "tiers[1] (HOST): write_bytes_per_second is 5, must be 0 without path"),
    BAD_FIELD(HOST, kvb_tier_config, write_bytes_per_day, 5,
              "tiers[1] (HOST): write_bytes_per_day is 5, must be 0 without path"),
    BAD_FIELD(HOST, kvb_tier_config, reserved, 1, "tiers[1] (HOST): reserved is 1, must be 0"),
    BAD_FIELD(DISK, kvb_tier_config, path_count, 1,
              "tiers[2] (DISK): path and path_count (1) are given, must be one of them"),
    BAD_FIELD(HOST, kvb_tier_config, path_count, 1,
              "tiers[1] (HOST): paths is NULL, path_count is 1"),
    BAD_FIELD(HOST, kvb_tier_config, path_count, 17,
              "tiers[1] (HOST): path_count is 17, must be 0..16"),
    BAD_FIELD(DEVICE, kvb_tier_config, memory_kind, 99,
              "tiers[0] (DEVICE): memory_kind is 99, must be 0.."),
    BAD_FIELD(HOST, kvb_tier_config, memory_kind, KVB_MEMORY_CUDA,
              "tiers[1] (HOST): memory_kind is KVB_MEMORY_CUDA, must be KVB_MEMORY_HOST"),
    BAD_FIELD(HOST, kvb_tier_config, device, 1, "tiers[1] (HOST): device is 1, must be 0 unless"),
    BAD_FIELD(HOST, kvb_tier_config, copy_method, 2,
              "tiers[1] (HOST): copy_method is 2, must be 0 unless"),
    BAD_FIELD(HOST, kvb_tier_config, copy_method, 5,
              "tiers[1] (HOST): copy_method is 5, must be 0..4"),
    BAD_FIELD(HOST, kvb_tier_config, pin_threads, 65,
              "tiers[1] (HOST): pin_threads is 65, must be 0..64"),
    BAD_FIELD(HOST, kvb_tier_config, pin_threads, 2,
              "tiers[1] (HOST): pin_threads is 2, must be 0"),
    BAD_FIELD(HOST, kvb_tier_config, pin_duty_percent, 101,
              "tiers[1] (HOST): pin_duty_percent is 101, must be 0..100"),
    BAD_FIELD(HOST, kvb_tier_config, pin_duty_percent, 30,
              "tiers[1] (HOST): pin_duty_percent is 30, must be 0 but for"),
    BAD_FIELD(HOST, kvb_tier_config, reserved_tail, 1,
              "tiers[1] (HOST): reserved_tail is 1, must be 0"),
};

struct field_scene {
    struct file_scene file;
    const struct bad_field *bad;
};

static int field_setup(void **state)
{
    const struct bad_field *bad = *state;
    struct field_scene *scene = file_scene_begin(state, sizeof *scene);
    scene->bad = bad;
    return 0;
}
#define field_teardown file_scene_teardown

static void test_field_out_of_range(void **state)
{
    struct field_scene *scene = *state;
    bad_field_set(&scene->file.rig, scene->bad);
    create_says(&scene->file.rig, KVB_EINVAL, scene->bad->words);
}

static int run_bad_fields(void)
{
    enum { COUNT = sizeof bad_fields / sizeof *bad_fields };
    static struct CMUnitTest tests[COUNT];
    static char names[COUNT][96];
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof names[i], "test_create_%d_%s_of_%llu_is_named",
                       bad_fields[i].part, bad_fields[i].name,
                       (unsigned long long)bad_fields[i].value);
        tests[i] = (struct CMUnitTest){names[i], test_field_out_of_range, field_setup,
                                       field_teardown, (void *)(uintptr_t)&bad_fields[i]};
    }
    return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}

/* ---- Fields that do not go together ---------------------------------------------------------- */

static void test_create_unknown_policy_lists_the_known(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.policy = "foo";
    create_says(rig, KVB_EUNSUPPORTED, "policy \"foo\" is not known; known: lru");
}

static void test_create_half_an_allocator_names_the_missing_half(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    rig->config.allocator.free = NULL;
    create_says(rig, KVB_EINVAL, "allocator.free is NULL");
    file_scene_reset(scene);
    rig->config.allocator.alloc = NULL;
    create_says(rig, KVB_EINVAL, "allocator.alloc is NULL");
}

static void test_create_event_capacity_without_sink_is_named(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.sink.deliver = NULL;
    create_says(rig, KVB_EINVAL, "event_capacity is 256, must be 0 without a sink");
}

static void test_create_unknown_tail_names_the_byte(void **state)
{
    struct kv_rig *rig = *state;
    struct {
        struct kvb_layout known;
        unsigned char tail[8];
    } layout;
    char words[64];
    memset(&layout, 0, sizeof layout);
    layout.known = rig->layout;
    layout.known.size = sizeof layout;
    layout.tail[2] = 9;
    rig->config.layout = &layout.known;
    (void)snprintf(words, sizeof words, "layout: byte %zu is 9", sizeof layout.known + 2);
    create_says(rig, KVB_EINVAL, words);
}

static void test_create_tiers_at_an_odd_distance_are_named(void **state)
{
    struct kv_rig *rig = *state;
    rig->tiers[0].size = sizeof rig->tiers[0] + 1;
    create_says(rig, KVB_EINVAL, "tiers[0].size is 129, must be a multiple of 8");
}

static void test_create_memory_is_named_with_what_it_needs(void **state)
{
    struct kv_rig *rig = *state;
    rig->tiers[1].memory = memory + 8;
    rig->tiers[1].memory_bytes = sizeof memory - 8;
    create_says(rig, KVB_EINVAL, "must be aligned to 64");
    rig->tiers[1].memory = memory;
    rig->tiers[1].memory_bytes = 2047;
    create_says(rig, KVB_EINVAL, "tiers[1] (HOST): memory_bytes is 2047, must be at least 2048");
    rig->tiers[2].memory = memory;
    rig->tiers[1].memory_bytes = rig->tiers[2].memory_bytes = sizeof memory;
    create_says(rig, KVB_EINVAL, "tiers[2] (DISK): path and memory are given");
}

static void test_create_paths_are_named_by_index(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    paths[0] = scene->place.file;
    paths[1] = NULL;
    rig->tiers[2].path = NULL;
    rig->tiers[2].paths = paths;
    create_says(rig, KVB_EINVAL,
                "tiers[2] (DISK): path_count is 0, must be 1..16 where paths is given");
    rig->tiers[2].path_count = 2;
    create_says(rig, KVB_EINVAL, "tiers[2] (DISK): paths[1] is NULL, path_count is 2");
    paths[1] = "";
    create_says(rig, KVB_EINVAL, "tiers[2] (DISK): paths[1] is \"\", must name a file");
    rig->tiers[2].block_count = 1;
    paths[1] = "other";
    create_says(rig, KVB_EINVAL,
                "tiers[2] (DISK): path_count is 2, must be at most block_count (1)");
}

static void test_create_path_elsewhere_than_disk_is_named(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    rig->tiers[1].path = "x";
    create_says(rig, KVB_EINVAL, "tiers[1] (HOST): path is given, only DISK is kept in files");
    file_scene_reset(scene);
    rig->tiers[2].path = "";
    create_says(rig, KVB_EINVAL, "tiers[2] (DISK): path is \"\"");
    file_scene_reset(scene);
    rig->config.tiers = &rig->tiers[2];
    rig->config.tier_count = 1;
    create_says(rig, KVB_EINVAL, "tiers[0] (DISK): must have a tier in memory above it");
    file_scene_reset(scene);
    kv_rig_add_tier(rig, KVB_TIER_REMOTE, KV_BLOCKS, KVB_OFFLOAD_MANUAL);
    create_says(rig, KVB_EUNSUPPORTED,
                "tiers[3] (REMOTE): needs a store, and this version has none");
}

static void test_create_files_are_named_with_the_reason(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_manager *second = NULL;
    rig->tiers[2].path = "/nonexistent/blocks";
    create_says(rig, KVB_ENOENT, "/nonexistent/blocks: its directory does not exist");
    file_scene_reset(scene);
    rig->tiers[2].path = scene->place.directory;
    create_says(rig, KVB_EINVAL, "is a directory");
    file_scene_reset(scene);
    kv_rig_open(rig);
    refuses(rig, kvb_manager_create(&rig->config, &second, NULL), KVB_EBUSY, scene->place.file);
    kv_rig_close(rig);
    rig->config.tokens_per_block = 2 * KV_TOKENS;
    create_says(rig, KVB_EMISMATCH, "tokens_per_block is 8, the file's is 4");
}

static void test_create_without_memory_names_tier_and_blocks(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_manager *manager = NULL;
    rig->tiers[1].block_count = 8000000; /* 2 GB: more than the allocator of the rig gives */
    refuses(rig, kvb_manager_create(&rig->config, &manager, NULL), KVB_ENOMEM,
            "tiers[HOST]: the allocator gave no memory for block_count 8000000 x 256 bytes");
    file_scene_reset(scene);
    rig->heap.fail_at = 1;
    refuses(rig, kvb_manager_create(&rig->config, &manager, NULL), KVB_ENOMEM,
            "the allocator gave no memory for the manager");
}

/* ---- What create is called with -------------------------------------------------------------- */

static void test_create_with_diagnosis_of_no_size_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_diagnosis diagnosis = {.size = 0};
    struct kvb_manager *manager = (struct kvb_manager *)(uintptr_t)1;
    refuses(rig, kvb_manager_create(&rig->config, &manager, &diagnosis), KVB_EINVAL,
            "diagnosis->size is 0, must be set to sizeof(struct kvb_diagnosis) (256)");
    assert_null(manager);
    assert_int_equal(diagnosis.code, 0);
    assert_int_equal(diagnosis.message[0], '\0');
    diagnosis.size = sizeof diagnosis - 1;
    refuses(rig, kvb_manager_create(&rig->config, &manager, &diagnosis), KVB_EINVAL,
            "diagnosis->size is 255");
}

static void test_create_without_manager_is_told(void **state)
{
    struct kv_rig *rig = *state;
    refuses(rig, kvb_manager_create(&rig->config, NULL, NULL), KVB_EINVAL, "manager is NULL");
}

/* Where its logger lies is not known, so it is left alone. */
static void test_create_with_config_of_wrong_size_is_told_in_the_diagnosis_only(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    const uint32_t sizes[] = {0, 8, 100000};
    const char *const words[] = {"config.size is 0, must be set to sizeof(struct kvb_config)",
                                 "config.size is 8, must be", "config.size is 100000, must be"};
    for (size_t i = 0; i < 3; i++) {
        struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
        struct kvb_manager *manager = NULL;
        file_scene_reset(scene);
        rig->config.size = sizes[i];
        kv_expect(kvb_manager_create(&rig->config, &manager, &diagnosis), KVB_EINVAL);
        assert_non_null(strstr(diagnosis.message, words[i]));
        assert_int_equal(rig->log.count, 0);
    }
}

static void test_create_without_config_is_told_in_the_diagnosis(void **state)
{
    (void)state;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    kv_expect(kvb_manager_create(NULL, &manager, &diagnosis), KVB_EINVAL);
    assert_string_equal(diagnosis.message, "config is NULL");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(file_scene, test_create_unknown_policy_lists_the_known),
        TEST(file_scene, test_create_half_an_allocator_names_the_missing_half),
        TEST(file_scene, test_create_event_capacity_without_sink_is_named),
        TEST(file_scene, test_create_unknown_tail_names_the_byte),
        TEST(file_scene, test_create_tiers_at_an_odd_distance_are_named),
        TEST(file_scene, test_create_memory_is_named_with_what_it_needs),
        TEST(file_scene, test_create_paths_are_named_by_index),
        TEST(file_scene, test_create_path_elsewhere_than_disk_is_named),
        TEST(file_scene, test_create_files_are_named_with_the_reason),
        TEST(file_scene, test_create_without_memory_names_tier_and_blocks),
        TEST(file_scene, test_create_with_diagnosis_of_no_size_is_refused),
        TEST(file_scene, test_create_without_manager_is_told),
        TEST(file_scene, test_create_with_config_of_wrong_size_is_told_in_the_diagnosis_only),
        TEST(bare, test_create_without_config_is_told_in_the_diagnosis),
    };
    int failed = run_bad_fields();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
