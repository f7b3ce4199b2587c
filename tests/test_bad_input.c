/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the caller may get wrong: each mistake has its own answer, changes nothing and leaks nothing.
 */
#include "support/kv_test.h"

#include <sys/wait.h>
#include <unistd.h>

static struct kv_rig rig;

static const uint32_t T[] = {1, 2, 3, 4, 5, 6, 7, 8};

static void prepare(void)
{
    kv_rig_init(&rig);
    kv_rig_add_tier(&rig, KVB_TIER_HOST, KV_BLOCKS, KVB_OFFLOAD_MANUAL);
}

static int setup(void **state)
{
    (void)state;
    prepare();
    kv_rig_open(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kv_rig_close(&rig);
    return 0;
}

/* ---- Configuration ------------------------------------------------------------------------------------------------ */

/* Creating fails with this code, names the field, hands out nothing and leaks nothing. */
static void create_refused(int code, const char *field)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = (struct kvb_manager *)(uintptr_t)1;
    int got = kvb_manager_create(&rig.config, &manager, &diagnosis);
    if (got != code || (field != NULL && strstr(diagnosis.message, field) == NULL)) {
        fail_msg("%s: %s: %s", field == NULL ? "" : field, kvb_error_name(got), diagnosis.message);
    }
    assert_null(manager);
    assert_int_equal(diagnosis.code, code);
    assert_true(diagnosis.message[0] != '\0');
    assert_int_equal(rig.heap.live_blocks, 0);
    kv_expect(kvb_manager_create(&rig.config, &manager, NULL), code);
}

enum part { CONFIG, LAYOUT, TIER };
struct bad_field {
    const char *name;
    enum part part;
    size_t offset, width;
    uint64_t value;
};

#define BAD(part, type, field, value)                                                              \
    {                                                                                              \
#field, part, offsetof(struct type, field), sizeof(((struct type *)NULL)->field), (value)  \
    }

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

static void test_config_field_out_of_range(void **state)
{
    const struct bad_field *bad = *state;
    prepare();
    unsigned char *base = bad->part == CONFIG   ? (unsigned char *)&rig.config
                          : bad->part == LAYOUT ? (unsigned char *)&rig.layout
                                                : (unsigned char *)&rig.tiers[0];
    memcpy(base + bad->offset, &bad->value,
           bad->width); /* little-endian, as all supported machines */
    create_refused(KVB_EINVAL, bad->name);
}

static int run_bad_fields(void)
{
    enum { COUNT = sizeof bad_fields / sizeof *bad_fields };
    static struct CMUnitTest tests[COUNT];
    static char names[COUNT][96];
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof names[i], "test_config_%s_of_%llu_is_invalid_by_name",
                       bad_fields[i].name, (unsigned long long)bad_fields[i].value);
        tests[i] = (struct CMUnitTest){names[i], test_config_field_out_of_range, NULL, NULL,
                                       (void *)(uintptr_t)&bad_fields[i]};
    }
    return cmocka_run_group_tests_name("configuration fields", tests, NULL, NULL);
}

static void test_create_without_config_or_manager_is_invalid(void **state)
{
    (void)state;
    struct kvb_manager *manager = (struct kvb_manager *)(uintptr_t)1;
    prepare();
    kv_expect(kvb_manager_create(NULL, &manager, NULL), KVB_EINVAL);
    assert_null(manager);
    kv_expect(kvb_manager_create(&rig.config, NULL, NULL), KVB_EINVAL);
    assert_int_equal(rig.heap.live_blocks, 0);
}

static void test_config_block_bytes_of_4_gib_are_invalid(void **state)
{
    (void)state;
    prepare();
    rig.layout.layers = 1u << 16;
    rig.layout.parts = 1u << 8;
    rig.layout.chunk_bytes = 1u << 8;
    create_refused(KVB_EINVAL, NULL);
}

static void test_config_block_bytes_that_overflow_are_invalid(void **state)
{
    (void)state;
    prepare();
    rig.layout.layers = UINT32_MAX;
    rig.layout.parts = UINT32_MAX;
    create_refused(KVB_EINVAL, NULL);
    rig.layout.chunk_bytes = UINT64_MAX;
    create_refused(KVB_EINVAL, NULL);
    rig.layout.layers = 2; /* 2 x 2 x 2^62 is 0 in 64 bits */
    rig.layout.parts = 2;
    rig.layout.chunk_bytes = UINT64_C(1) << 62;
    create_refused(KVB_EINVAL, NULL);
    rig.layout.layers = 1u << 16; /* 2^16 x 2^16 is 0 in 32 bits */
    rig.layout.parts = 1u << 16;
    rig.layout.chunk_bytes = 1;
    create_refused(KVB_EINVAL, NULL);
}

static void test_config_of_more_blocks_than_memory_is_refused(void **state)
{
    (void)state;
    struct kvb_manager *manager = NULL;
    prepare();
    for (int i = 0; i < 2; i++) {
        rig.tiers[i].block_count = UINT32_MAX;
    }
    int code = kvb_manager_create(&rig.config, &manager, NULL);
    assert_true(code == KVB_ENOMEM || code == KVB_EINVAL);
    assert_null(manager);
    assert_int_equal(rig.heap.live_blocks, 0);
}

static void test_config_tiers_not_ascending_are_invalid(void **state)
{
    (void)state;
    prepare();
    rig.tiers[0].tier = KVB_TIER_HOST;
    rig.tiers[1].tier = KVB_TIER_DEVICE;
    create_refused(KVB_EINVAL, "tier");
}

static void test_config_tier_twice_is_invalid(void **state)
{
    (void)state;
    prepare();
    rig.tiers[1].tier = KVB_TIER_DEVICE;
    create_refused(KVB_EINVAL, "tier");
}

static void test_config_memory_too_small_is_invalid(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    prepare();
    rig.tiers[0].memory = memory;
    rig.tiers[0].memory_bytes = sizeof memory - 1;
    create_refused(KVB_EINVAL, "memory_bytes");
}

static void test_config_memory_misaligned_is_invalid(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK + 64];
    prepare();
    rig.tiers[0].memory = memory + 8;
    rig.tiers[0].memory_bytes = sizeof memory - 8;
    create_refused(KVB_EINVAL, "memory");
}

static void test_config_memory_of_the_caller_is_used(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char memory[KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    void *base = NULL;
    uint64_t bytes = 0;
    prepare();
    rig.tiers[0].memory = memory;
    rig.tiers[0].memory_bytes = sizeof memory;
    kv_rig_open(&rig);
    kv_ok(kvb_tier_memory(rig.kv, KVB_TIER_DEVICE, &base, &bytes));
    assert_ptr_equal(base, memory);
    assert_int_equal(bytes, sizeof memory);
    kv_rig_close(&rig);
}

static void test_config_unknown_policy_is_unsupported(void **state)
{
    (void)state;
    prepare();
    rig.config.policy = "clairvoyant";
    create_refused(KVB_EUNSUPPORTED, "policy");
}

static void test_config_half_an_allocator_is_invalid(void **state)
{
    (void)state;
    prepare();
    rig.config.allocator.free = NULL;
    create_refused(KVB_EINVAL, "allocator");
    prepare();
    rig.config.allocator.alloc = NULL;
    create_refused(KVB_EINVAL, "allocator");
}

struct larger_config {
    struct kvb_config known;
    unsigned char tail[16];
};

static void test_config_with_unknown_zero_tail_is_accepted(void **state)
{
    (void)state;
    prepare();
    struct larger_config larger = {.known = rig.config};
    larger.known.size = sizeof larger;
    struct kvb_manager *manager = NULL;
    kv_ok(kvb_manager_create(&larger.known, &manager, NULL));
    kv_ok(kvb_manager_destroy(manager));
}

static void test_config_with_unknown_tail_in_use_is_invalid(void **state)
{
    (void)state;
    prepare();
    struct larger_config larger = {.known = rig.config};
    larger.known.size = sizeof larger;
    larger.tail[15] = 1;
    struct kvb_manager *manager = NULL;
    kv_expect(kvb_manager_create(&larger.known, &manager, NULL), KVB_EINVAL);
    assert_null(manager);
}

static void test_config_tiers_with_tail_are_read_at_their_distance(void **state)
{
    (void)state;
    struct {
        struct kvb_tier_config known;
        unsigned char tail[8];
    } tiers[2];
    struct kvb_manager *manager = NULL;
    void *base = NULL;
    uint64_t bytes = 0;
    prepare();
    memset(tiers, 0, sizeof tiers);
    for (int i = 0; i < 2; i++) {
        tiers[i].known = rig.tiers[i];
        tiers[i].known.size = sizeof tiers[i];
    }
    rig.config.tiers = &tiers[0].known;
    kv_ok(kvb_manager_create(&rig.config, &manager, NULL));
    kv_ok(kvb_tier_memory(manager, KVB_TIER_HOST, &base, &bytes));
    kv_ok(kvb_manager_destroy(manager));
    tiers[1].tail[0] = 1;
    create_refused(KVB_EINVAL, NULL);
}

static void test_config_layout_with_tail_in_use_is_invalid(void **state)
{
    (void)state;
    struct {
        struct kvb_layout known;
        unsigned char tail[8];
    } layout;
    prepare();
    memset(&layout, 0, sizeof layout);
    layout.known = rig.layout;
    layout.known.size = sizeof layout;
    layout.tail[0] = 1;
    rig.config.layout = &layout.known;
    create_refused(KVB_EINVAL, NULL);
}

static void test_config_is_copied(void **state)
{
    (void)state;
    prepare();
    kv_rig_open(&rig);
    struct kvb_config config = rig.config;
    memset(&rig.layout, 0xff, sizeof rig.layout);
    memset(rig.tiers, 0xff, sizeof rig.tiers);
    memset(&rig.config, 0xff, sizeof rig.config);
    struct kvb_block *blocks[2] = {kv_alloc(&rig, KVB_TIER_DEVICE), kv_alloc(&rig, KVB_TIER_HOST)};
    void *address = NULL;
    kv_ok(kvb_block_address(rig.kv, blocks[0], KV_LAYERS - 1, KV_PARTS - 1, &address));
    kv_poll(&rig);
    kv_ok(kvb_block_unref(rig.kv, blocks, 2, NULL));
    rig.config = config;
    kv_rig_close(&rig);
}

static void test_config_of_extreme_block_sizes_works(void **state)
{
    (void)state;
    static uint32_t tokens[KVB_TOKENS_PER_BLOCK_MAX];
    const uint32_t sizes[] = {1, KVB_TOKENS_PER_BLOCK_MAX};
    kv_tokens(tokens, KVB_TOKENS_PER_BLOCK_MAX, 1);
    for (int i = 0; i < 2; i++) {
        struct kvb_block *block = NULL;
        prepare();
        rig.config.tokens_per_block = sizes[i];
        kv_rig_open(&rig);
        kv_store_run(&rig, KVB_TIER_DEVICE, 0, tokens, 1, &block);
        assert_int_equal(kv_run_length(&rig, 0, tokens, sizes[i]), 1);
        kv_unref(&rig, block);
        kv_rig_close(&rig);
    }
}

static void test_config_without_anything_injected_works(void **state)
{
    (void)state;
    struct kvb_manager *manager = NULL;
    struct kvb_block *block = NULL;
    prepare();
    rig.config.allocator = (struct kvb_allocator){NULL, NULL, NULL};
    rig.config.clock = (struct kvb_clock){NULL, NULL};
    rig.config.logger = (struct kvb_logger){NULL, NULL};
    rig.config.sink = (struct kvb_event_sink){NULL, NULL};
    rig.config.event_capacity = 0;
    rig.config.progress = KVB_PROGRESS_THREAD;
    kv_ok(kvb_manager_create(&rig.config, &manager, NULL));
    kv_ok(kvb_alloc(manager, KVB_TIER_DEVICE, 1, NULL, &block, NULL));
    kv_expect(kvb_block_schedule(manager, &block, 1, NULL), KVB_ESTATE); /* and nobody to tell */
    kv_ok(kvb_block_unref(manager, &block, 1, NULL));
    kv_ok(kvb_manager_destroy(manager));
}

/* ---- A failing allocator ------------------------------------------------------------------------------------------ */

static void create_with_failures(bool onwards)
{
    struct kvb_manager *manager = NULL;
    prepare();
    rig.config.progress = onwards ? KVB_PROGRESS_THREAD : KVB_PROGRESS_POLL;
    kv_ok(kvb_manager_create(&rig.config, &manager, NULL));
    uint64_t calls = rig.heap.calls;
    kv_ok(kvb_manager_destroy(manager));
    assert_int_equal(rig.heap.live_blocks, 0);
    assert_true(calls > 0);
    for (uint64_t n = 1; n <= calls; n++) {
        struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
        rig.heap.calls = 0;
        rig.heap.fail_at = n;
        rig.heap.fail_onwards = onwards;
        manager = (struct kvb_manager *)(uintptr_t)1;
        int code = kvb_manager_create(&rig.config, &manager, &diagnosis);
        if (code != KVB_ENOMEM || manager != NULL || rig.heap.live_blocks != 0 ||
            rig.heap.live_bytes != 0 || rig.heap.wrong_frees != 0) {
            fail_msg("allocation %llu of %llu fails: %s, %lld blocks left", (unsigned long long)n,
                     (unsigned long long)calls, kvb_error_name(code),
                     (long long)rig.heap.live_blocks);
        }
    }
    rig.heap.fail_at = 0;
    kv_ok(kvb_manager_create(&rig.config, &manager, NULL));
    kv_ok(kvb_manager_destroy(manager));
    assert_int_equal(rig.heap.live_bytes, 0);
}

static void test_create_with_one_failing_allocation_leaks_nothing(void **state)
{
    (void)state;
    create_with_failures(false);
}

static void test_create_with_allocations_failing_from_one_on_leaks_nothing(void **state)
{
    (void)state;
    create_with_failures(true);
}

static void test_namespace_open_with_failing_allocation_changes_nothing(void **state)
{
    (void)state;
    int refused = 0;
    for (uint32_t i = 0; i < 12; i++) {
        char salt[300];
        uint32_t id = 99, again = 99;
        memset(salt, (int)('a' + i), sizeof salt);
        int code = KVB_ENOMEM;
        for (uint64_t n = 1; code != 0; n++) {
            int64_t live = rig.heap.live_bytes;
            rig.heap.fail_at = rig.heap.calls + n;
            id = 99;
            code = kvb_namespace_open(rig.kv, salt, sizeof salt, NULL, 0, &id);
            if (code != 0) {
                kv_expect(code, KVB_ENOMEM);
                assert_int_equal(id, 0);
                assert_int_equal(rig.heap.live_bytes, live);
                refused++;
            }
            rig.heap.fail_at = 0;
        }
        kv_ok(kvb_namespace_open(rig.kv, salt, sizeof salt, NULL, 0, &again));
        assert_int_equal(id, again);
        assert_int_equal(id, i + 1);
    }
    assert_true(refused > 0);
}

/* ---- Every function: NULL, fork ----------------------------------------------------------------------------------- */

/* Arguments that are right, for a manager with DEVICE and HOST. */
struct arguments {
    struct kvb_block *empty, *other, *source;
    struct kvb_op *op;
};

static int visit_nothing(void *arg, const struct kvb_event *event)
{
    (void)arg;
    (void)event;
    return 0;
}

/* Call every function that returns a code, with `manager` and otherwise right arguments; count other answers than `code`. */
static int count_other_answers(struct kvb_manager *manager, const struct arguments *with, int code)
{
    struct kvb_block *block = with->empty, *in_place = with->empty, *got = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = T, .count = 1};
    struct kvb_block_info info = {.size = sizeof info};
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = &with->source, .targets = &with->other, .count = 1};
    struct kvb_weak weak = {0};
    struct kvb_seq seq = {0};
    struct kvb_hit hit;
    struct kvb_op *op = NULL;
    uint64_t number = 0, tiers[KVB_TIER_COUNT];
    uint32_t small = 0;
    size_t count = 0;
    void *address = NULL;
    const struct {
        const char *call;
        int answer;
    } answers[] = {
#define CALL(call) {#call, call}
        CALL(kvb_manager_poll(manager, 0)),
        CALL(kvb_manager_event_fd(manager)),
        CALL(kvb_manager_next_timeout(manager, &number)),
        CALL(kvb_manager_flush(manager, 0)),
        CALL(kvb_manager_clear(manager)),
        CALL(kvb_tier_memory(manager, 0, &address, &number)),
        CALL(kvb_fence_signal(manager, 1)),
        CALL(kvb_namespace_open(manager, "a", 1, NULL, 0, &small)),
        CALL(kvb_hash_tokens(manager, 0, NULL, T, KV_TOKENS, &seq, 1, &count)),
        CALL(kvb_alloc(manager, 0, 1, NULL, &got, NULL)),
        CALL(kvb_block_ref(manager, &block, 1, NULL)),
        CALL(kvb_block_unref(manager, &block, 1, NULL)),
        CALL(kvb_block_weak(manager, block, &weak)),
        CALL(kvb_weak_upgrade(manager, &weak, 1, &got, NULL)),
        CALL(kvb_block_init(manager, &block, &init, 1, NULL)),
        CALL(kvb_block_append(manager, &block, &append, 1, NULL)),
        CALL(kvb_block_schedule(manager, &block, 1, NULL)),
        CALL(kvb_block_cancel(manager, &block, 1, NULL)),
        CALL(kvb_block_compute_done(manager, &block, &small, 1, NULL, NULL)),
        CALL(kvb_block_compute_failed(manager, &block, 1, NULL)),
        CALL(kvb_block_truncate(manager, &block, &small, 1, NULL)),
        CALL(kvb_block_reset(manager, &block, 1, NULL)),
        CALL(kvb_block_clone(manager, with->source, block)),
        CALL(kvb_block_register(manager, &in_place, 1, NULL, NULL, NULL)),
        CALL(kvb_block_set_priority(manager, &block, 1, 1, 0, NULL)),
        CALL(kvb_block_describe(manager, block, &info)),
        CALL(kvb_block_key(manager, with->source, &seq)),
        CALL(kvb_block_address(manager, block, 0, 0, &address)),
        CALL(kvb_match(manager, &query, &hit, 1, &count)),
        CALL(kvb_lookup(manager, &query, tiers)),
        CALL(kvb_invalidate(manager, &seq, 1, NULL)),
        CALL(kvb_invalidate_namespace(manager, 0, NULL)),
        CALL(kvb_index_walk(manager, visit_nothing, NULL)),
        CALL(kvb_pin(manager, 1, &block, 1, 0, NULL)),
        CALL(kvb_unpin(manager, 1, &block, 1, NULL)),
        CALL(kvb_unpin_all(manager, 1, NULL)),
        CALL(kvb_block_offload(manager, &block, 1, 1, NULL, NULL)),
        CALL(kvb_block_offload_cancel(manager, &block, 1, NULL)),
        CALL(kvb_onboard(manager, &onboard, &op)),
        CALL(kvb_op_take(manager, with->op, &got, 1, &small)),
        CALL(kvb_op_wait(manager, with->op, 0)),
        CALL(kvb_op_cancel(manager, with->op)),
        CALL(kvb_op_release(manager, with->op)),
        CALL(kvb_manager_stats(manager, &stats)),
#undef CALL
    };
    int wrong = 0;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (answers[i].answer != code) {
            print_error("%s: %s (%d)\n", answers[i].call, kvb_error_name(answers[i].answer),
                        answers[i].answer);
            wrong++;
        }
    }
    return wrong;
}

static struct arguments right_arguments(void)
{
    struct arguments with = {.empty = kv_alloc(&rig, KVB_TIER_DEVICE)};
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_store_run(&rig, KVB_TIER_HOST, 0, T, 1, &with.source);
    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = &with.source, .targets = &target, .count = 1};
    kv_ok(kvb_onboard(rig.kv, &onboard, &with.op));
    with.other = kv_alloc(&rig, KVB_TIER_DEVICE);
    return with;
}

/* The op goes on and ends well; everything is given back. */
static void use_up(const struct arguments *with)
{
    struct kvb_block *taken = NULL;
    uint32_t good = 0;
    kv_ok(kvb_op_wait(rig.kv, with->op, KVB_FOREVER));
    kv_ok(kvb_op_take(rig.kv, with->op, &taken, 1, &good));
    assert_int_equal(good, 1);
    kv_ok(kvb_op_release(rig.kv, with->op));
    kv_unref(&rig, taken);
    kv_unref(&rig, with->empty);
    kv_unref(&rig, with->other);
    kv_unref(&rig, with->source);
}

static void test_null_manager_is_invalid_for_every_function(void **state)
{
    (void)state;
    struct arguments with = right_arguments();
    assert_int_equal(count_other_answers(NULL, &with, KVB_EINVAL), 0);
    assert_int_equal(kv_describe(&rig, with.empty).state, KVB_STATE_EMPTY);
    use_up(&with);
}

static void test_null_manager_where_no_code_is_returned(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    assert_int_equal(kvb_key_bytes(NULL), 0);
    assert_int_equal(kvb_key_bytes(rig.kv), sizeof(struct kvb_seq));
    assert_int_equal(kvb_block_slot(NULL, block), UINT32_MAX);
    kv_ok(kvb_manager_destroy(NULL));
    kv_unref(&rig, block);
}

/* In a child: every call says so, and the parent goes on as if nothing had been. */
static void answers_in_a_child(void)
{
    struct arguments with = right_arguments();
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int wrong = count_other_answers(rig.kv, &with, KVB_EFORK);
        wrong += kvb_manager_destroy(rig.kv) != KVB_EFORK;
        fflush(NULL);
        _exit(wrong);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    use_up(&with);
}

static void test_child_after_fork_is_refused_by_every_function(void **state)
{
    (void)state;
    answers_in_a_child();
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 1);
}

static void test_child_after_fork_of_a_manager_with_a_thread_is_refused(void **state)
{
    (void)state;
    prepare();
    rig.config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(&rig);
    answers_in_a_child();
    kv_settle(&rig);
    kv_rig_close(&rig);
}

/* ---- NULL and zero elsewhere -------------------------------------------------------------------------------------- */

static void test_null_array_with_a_count_is_invalid(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *none = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .count = 1};
    struct kvb_weak weak = {0};
    struct kvb_seq seq;
    uint32_t zero = 0;
    size_t count = 0;

    kv_expect(kvb_alloc(kv, 0, 1, NULL, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_ref(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_unref(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_weak_upgrade(kv, NULL, 1, &none, NULL), KVB_EINVAL);
    kv_expect(kvb_weak_upgrade(kv, &weak, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_init(kv, NULL, &init, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_init(kv, &block, NULL, 1, NULL), KVB_EINVAL);
    kv_init(&rig, block, 0, 0, NULL);
    kv_expect(kvb_block_append(kv, NULL, &append, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_append(kv, &block, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_append(kv, &block, &append, 1, NULL),
              KVB_EINVAL); /* count 1, tokens NULL */
    kv_expect(kvb_block_schedule(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_cancel(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_done(kv, NULL, &zero, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_done(kv, &block, NULL, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_failed(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_truncate(kv, NULL, &zero, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_truncate(kv, &block, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_reset(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_register(kv, NULL, 1, NULL, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_set_priority(kv, NULL, 1, 1, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_invalidate(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_pin(kv, 1, NULL, 1, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_unpin(kv, 1, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload(kv, NULL, 1, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_hash_tokens(kv, 0, NULL, NULL, KV_TOKENS, &seq, 1, &count), KVB_EINVAL);
    kv_expect(kvb_hash_tokens(kv, 0, NULL, T, KV_TOKENS, NULL, 1, &count), KVB_EINVAL);
    kv_expect(kvb_namespace_open(kv, NULL, 1, NULL, 0, &zero), KVB_EINVAL);
    kv_expect(kvb_namespace_open(kv, NULL, 0, NULL, 1, &zero), KVB_EINVAL);

    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_PARTIAL);
    assert_int_equal(kv_describe(&rig, block).token_count, 0);
    kv_unref(&rig, block);
}

static void test_null_where_an_answer_goes_is_invalid(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    struct kvb_block *block = NULL;
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    struct kvb_hit hit;
    struct kvb_seq seq;
    uint64_t bytes = 0;
    void *base = NULL;
    size_t count = 0;
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    kv_expect(kvb_manager_next_timeout(kv, NULL), KVB_EINVAL);
    kv_expect(kvb_tier_memory(kv, 0, NULL, &bytes), KVB_EINVAL);
    kv_expect(kvb_tier_memory(kv, 0, &base, NULL), KVB_EINVAL);
    kv_expect(kvb_namespace_open(kv, "a", 1, NULL, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_hash_tokens(kv, 0, NULL, T, KV_TOKENS, &seq, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_weak(kv, block, NULL), KVB_EINVAL);
    kv_expect(kvb_block_describe(kv, block, NULL), KVB_EINVAL);
    kv_expect(kvb_block_key(kv, block, NULL), KVB_EINVAL);
    kv_expect(kvb_block_address(kv, block, 0, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_match(kv, NULL, &hit, 1, &count), KVB_EINVAL);
    kv_expect(kvb_match(kv, &query, NULL, 1, &count), KVB_EINVAL);
    kv_expect(kvb_match(kv, &query, &hit, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_lookup(kv, &query, NULL), KVB_EINVAL);
    kv_expect(kvb_lookup(kv, NULL, (uint64_t[KVB_TIER_COUNT]){0}), KVB_EINVAL);
    kv_expect(kvb_index_walk(kv, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_manager_stats(kv, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).holder_count, 1);
    kv_unref(&rig, block);
}

static void test_answers_are_cleared_on_errors(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *got = block;
    struct kvb_seq key, zero = {0};
    struct kvb_weak weak = {1, 1, 1}, no_weak = {0};
    struct kvb_query query = kv_query(9, T, KV_TOKENS);
    struct kvb_hit hit;
    void *address = block;
    uint64_t number = 9, tiers[KVB_TIER_COUNT] = {9, 9, 9, 9}, no_tiers[KVB_TIER_COUNT] = {0};
    uint32_t small = 9;
    size_t count = 9;
    memset(&key, 0xff, sizeof key);

    kv_expect(kvb_tier_memory(kv, KVB_TIER_DISK, &address, &number), KVB_ENOENT);
    assert_null(address);
    assert_int_equal(number, 0);
    address = block;
    number = 9;
    kv_expect(kvb_tier_memory(kv, KVB_TIER_COUNT, &address, &number), KVB_EINVAL);
    assert_null(address);
    assert_int_equal(number, 0);
    address = block;
    kv_expect(kvb_block_address(kv, block, KV_LAYERS, 0, &address), KVB_EINVAL);
    assert_null(address);
    kv_expect(kvb_block_key(kv, block, &key), KVB_ENOENT);
    assert_memory_equal(&key, &zero, sizeof key);
    kv_expect(kvb_block_weak(kv, NULL, &weak), KVB_EINVAL);
    assert_memory_equal(&weak, &no_weak, sizeof weak);
    kv_expect(kvb_alloc(kv, KVB_TIER_DISK, 1, NULL, &got, &small), KVB_ENOENT);
    assert_null(got);
    assert_int_equal(small, 0);
    small = 9;
    kv_expect(kvb_namespace_open(kv, NULL, 1, NULL, 0, &small), KVB_EINVAL);
    assert_int_equal(small, 0);
    kv_expect(kvb_match(kv, &query, &hit, 1, &count), KVB_ENOENT);
    assert_int_equal(count, 0);
    kv_expect(kvb_lookup(kv, &query, tiers), KVB_ENOENT);
    assert_memory_equal(tiers, no_tiers, sizeof tiers);
    kv_unref(&rig, block);
}

static void test_count_0_does_nothing(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    kv_ok(kvb_block_ref(kv, NULL, 0, NULL));
    kv_ok(kvb_block_unref(kv, NULL, 0, NULL));
    kv_ok(kvb_weak_upgrade(kv, NULL, 0, NULL, NULL));
    kv_ok(kvb_block_init(kv, NULL, NULL, 0, NULL));
    kv_ok(kvb_block_append(kv, NULL, NULL, 0, NULL));
    kv_ok(kvb_block_schedule(kv, NULL, 0, NULL));
    kv_ok(kvb_block_cancel(kv, NULL, 0, NULL));
    kv_ok(kvb_block_compute_done(kv, NULL, NULL, 0, NULL, NULL));
    kv_ok(kvb_block_compute_failed(kv, NULL, 0, NULL));
    kv_ok(kvb_block_truncate(kv, NULL, NULL, 0, NULL));
    kv_ok(kvb_block_reset(kv, NULL, 0, NULL));
    kv_ok(kvb_block_register(kv, NULL, 0, NULL, NULL, NULL));
    kv_ok(kvb_block_set_priority(kv, NULL, 0, 1, 0, NULL));
    kv_ok(kvb_invalidate(kv, NULL, 0, NULL));
    kv_ok(kvb_pin(kv, 1, NULL, 0, 0, NULL));
    kv_ok(kvb_unpin(kv, 1, NULL, 0, NULL));
    kv_ok(kvb_block_offload(kv, NULL, 0, 1, NULL, NULL));
    kv_ok(kvb_block_offload_cancel(kv, NULL, 0, NULL));
}

static void test_struct_without_size_is_invalid(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {.size = 0};
    struct kvb_append append = {.tokens = T, .count = 1};
    struct kvb_register options = {.size = 0};
    struct kvb_block_info info = {.size = 0};
    struct kvb_stats stats = {.size = 0};
    struct kvb_onboard onboard = {.size = 0};
    struct kvb_op *op = NULL;
    kv_expect(kvb_block_init(kv, &block, &init, 1, NULL), KVB_EINVAL);
    kv_init(&rig, block, 0, 0, NULL);
    kv_expect(kvb_block_append(kv, &block, &append, 1, NULL), KVB_EINVAL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    kv_expect(kvb_block_register(kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_expect(kvb_block_describe(kv, block, &info), KVB_EINVAL);
    kv_expect(kvb_manager_stats(kv, &stats), KVB_EINVAL);
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);
    assert_null(op);
    kv_unref(&rig, block);
}

static void test_init_with_unknown_tail_in_use_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_block_init known;
        uint64_t tail;
    } init = {{.size = sizeof init}, 1};
    int code = kvb_block_init(rig.kv, &block, &init.known, 1, NULL);
    kv_unref(&rig, block);
    kv_expect(code, KVB_EINVAL);
}

static void test_append_with_unknown_tail_in_use_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_append known;
        uint64_t tail;
    } append = {{.size = sizeof append, .tokens = T, .count = KV_TOKENS}, 1};
    kv_init(&rig, block, 0, 0, NULL);
    int code = kvb_block_append(rig.kv, &block, &append.known, 1, NULL);
    kv_unref(&rig, block);
    kv_expect(code, KVB_EINVAL);
}

static void test_register_with_unknown_tail_in_use_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_register known;
        uint64_t tail;
    } options = {{.size = sizeof options}, 1};
    kv_complete(&rig, block, 0, 0, NULL, T);
    int code = kvb_block_register(rig.kv, &block, 1, &options.known, NULL, NULL);
    kv_unref(&rig, block);
    kv_expect(code, KVB_EINVAL);
}

static void test_query_with_unknown_tail_in_use_is_invalid(void **state)
{
    (void)state;
    struct {
        struct kvb_query known;
        uint64_t tail;
    } query = {{.size = sizeof query, .tokens = T, .token_count = KV_TOKENS}, 1};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_expect(kvb_lookup(rig.kv, &query.known, tiers), KVB_EINVAL);
}

static void test_onboard_with_unknown_tail_in_use_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *source = NULL, *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_op *op = NULL;
    kv_store_run(&rig, KVB_TIER_HOST, 0, T, 1, &source);
    struct {
        struct kvb_onboard known;
        uint64_t tail;
    } request = {{.size = sizeof request, .sources = &source, .targets = &target, .count = 1}, 1};
    kv_expect(kvb_onboard(rig.kv, &request.known, &op), KVB_EINVAL);
    assert_null(op);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_structs_with_unknown_zero_tail_are_accepted(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_block_init known;
        uint64_t tail;
    } init = {{.size = sizeof init}, 0};
    struct {
        struct kvb_append known;
        uint64_t tail;
    } append = {{.size = sizeof append, .tokens = T, .count = KV_TOKENS}, 0};
    struct {
        struct kvb_register known;
        uint64_t tail;
    } options = {{.size = sizeof options}, 0};
    struct {
        struct kvb_query known;
        uint64_t tail;
    } query = {{.size = sizeof query, .tokens = T, .token_count = KV_TOKENS}, 0};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_ok(kvb_block_init(kv, &block, &init.known, 1, NULL));
    kv_ok(kvb_block_append(kv, &block, &append.known, 1, NULL));
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    kv_ok(kvb_block_register(kv, &block, 1, &options.known, NULL, NULL));
    kv_ok(kvb_lookup(kv, &query.known, tiers));
    assert_int_equal(tiers[0], 1);
    kv_unref(&rig, block);
}

static void test_structs_in_an_array_are_read_at_their_distance(void **state)
{
    (void)state;
    struct kvb_block *blocks[3];
    struct {
        struct kvb_append known;
        uint64_t tail;
    } appends[3];
    int results[3] = {1, 1, 1};
    memset(appends, 0, sizeof appends);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 3, NULL, blocks, NULL));
    for (uint32_t i = 0; i < 3; i++) {
        kv_init(&rig, blocks[i], 0, 0, NULL);
        appends[i].known = (struct kvb_append){
            .size = sizeof appends[i], .flags = KVB_MORE, .tokens = T, .count = i + 1};
    }
    kv_ok(kvb_block_append(rig.kv, blocks, &appends[0].known, 3, results));
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(results[i], 0);
        assert_int_equal(kv_describe(&rig, blocks[i]).token_count, i + 1);
        assert_int_equal(appends[i].known.taken, i + 1);
    }
    kv_ok(kvb_block_unref(rig.kv, blocks, 3, NULL));
}

static void test_unknown_fence_kind_is_invalid(void **state)
{
    (void)state;
    struct kvb_manager *kv = rig.kv;
    struct kvb_fence fence = {.kind = 9};
    struct kvb_block *block = NULL, *source = NULL, *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_op *op = NULL;
    kv_expect(kvb_alloc(kv, 0, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_null(block);
    block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_expect(kvb_block_compute_done(kv, &block, &(uint32_t){KV_TOKENS}, 1, &fence, NULL),
              KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).step_count, 1);
    kv_done(&rig, block, KV_TOKENS);
    kv_expect(kvb_block_register(kv, &block, 1, NULL, &fence, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_register(&rig, block);
    kv_expect(kvb_block_offload(kv, &block, 1, 1, &fence, NULL), KVB_EINVAL);
    kv_store_run(&rig, KVB_TIER_HOST, 0, T + 4, 1, &source);
    struct kvb_onboard onboard = {.size = sizeof onboard,
                                  .sources = &source,
                                  .targets = &target,
                                  .count = 1,
                                  .fence = &fence};
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);
    assert_null(op);
    kv_unref(&rig, block);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_offload_of_what_cannot_be_offloaded_is_refused(void **state)
{
    (void)state;
    struct kvb_block *empty = kv_alloc(&rig, KVB_TIER_DEVICE), *top = NULL, *bottom = NULL;
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 1, &top);
    kv_store_run(&rig, KVB_TIER_HOST, 0, T + 4, 1, &bottom);
    kv_expect(kvb_block_offload(rig.kv, &empty, 1, 1, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_offload(rig.kv, &bottom, 1, 1, NULL, NULL), KVB_ENOENT);
    kv_expect(kvb_block_offload(rig.kv, &top, 1, 101, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(rig.kv, &top, 1, NULL), KVB_ENOENT);
    kv_unref(&rig, empty);
    kv_unref(&rig, top);
    kv_unref(&rig, bottom);
}

static void test_onboard_of_what_cannot_be_onboarded_is_refused(void **state)
{
    (void)state;
    struct kvb_block *source = NULL, *device = NULL, *empty = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *host = kv_alloc(&rig, KVB_TIER_HOST);
    kv_store_run(&rig, KVB_TIER_HOST, 0, T, 1, &source);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T + 4, 1, &device);
    struct kvb_block *sources[] = {source, source}, *same[] = {empty, empty},
                     *mixed[] = {empty, host};
    const struct kvb_onboard good = {
        .size = sizeof good, .sources = sources, .targets = &empty, .count = 1};
    struct kvb_onboard bad[10];
    for (int i = 0; i < 10; i++) {
        bad[i] = good;
    }
    const int codes[10] = {KVB_EINVAL, KVB_EINVAL, KVB_EINVAL, KVB_EINVAL, KVB_EINVAL,
                           KVB_EINVAL, KVB_EINVAL, KVB_EINVAL, KVB_ESTATE, KVB_ESTATE};
    bad[0].count = 0;
    bad[1].sources = NULL;
    bad[2].targets = NULL;
    bad[3].flags = 1u << 31;
    bad[4].flags = KVB_ONBOARD_PRIORITY;
    bad[4].priority = 101;
    bad[5].targets = same;
    bad[5].count = 2;
    bad[6].targets = mixed;
    bad[6].count = 2;
    bad[7].sources = &device;
    bad[8].targets = &device;
    bad[9].sources = &host;
    for (int i = 0; i < 10; i++) {
        struct kvb_op *op = (struct kvb_op *)(uintptr_t)1;
        int code = kvb_onboard(rig.kv, &bad[i], &op);
        if (code != codes[i] || op != NULL) {
            fail_msg("request %d: %s, expected %s", i, kvb_error_name(code),
                     kvb_error_name(codes[i]));
        }
    }
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(rig.kv, NULL, &op), KVB_EINVAL);
    kv_expect(kvb_onboard(rig.kv, &good, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, empty).holder_count, 1);
    assert_int_equal(kv_describe(&rig, empty).state, KVB_STATE_EMPTY);
    kv_unref(&rig, source);
    kv_unref(&rig, device);
    kv_unref(&rig, empty);
    kv_unref(&rig, host);
}

static void test_op_null_is_legal_to_release_only(void **state)
{
    (void)state;
    struct kvb_block *block = NULL;
    uint32_t good = 0;
    kv_ok(kvb_op_release(rig.kv, NULL));
    kv_expect(kvb_op_take(rig.kv, NULL, &block, 1, &good), KVB_EINVAL);
    kv_expect(kvb_op_wait(rig.kv, NULL, 0), KVB_EINVAL);
    kv_expect(kvb_op_cancel(rig.kv, NULL), KVB_EINVAL);
}

/* ---- The wrong thread, and callbacks ------------------------------------------------------------------------------ */

struct elsewhere {
    int poll, flush;
};

static void *poll_elsewhere(void *arg)
{
    struct elsewhere *answers = arg;
    answers->poll = kvb_manager_poll(rig.kv, 0);
    answers->flush = kvb_manager_flush(rig.kv, 0);
    return NULL;
}

static void test_poll_from_another_thread_is_refused(void **state)
{
    (void)state;
    struct elsewhere answers = {0, 0};
    pthread_t thread;
    kv_poll(&rig);
    assert_int_equal(pthread_create(&thread, NULL, poll_elsewhere, &answers), 0);
    pthread_join(thread, NULL);
    kv_expect(answers.poll, KVB_ETHREAD);
    kv_expect(answers.flush, KVB_ETHREAD);
}

/* Two threads that were let go at the same time; each polls once. */
struct race {
    _Atomic int ready;
    _Atomic int accepted, refused;
};

static void *poll_in_a_race(void *arg)
{
    struct race *race = arg;
    atomic_fetch_add(&race->ready, 1);
    while (atomic_load(&race->ready) < 2) {
    }
    int code = kvb_manager_poll(rig.kv, 0);
    atomic_fetch_add(&race->accepted, code >= 0);
    atomic_fetch_add(&race->refused, code == KVB_ETHREAD);
    return NULL;
}

static void test_first_poll_by_two_threads_at_once_is_accepted_from_one(void **state)
{
    (void)state;
    for (int round = 0; round < 500; round++) {
        struct race race = {0, 0, 0};
        pthread_t threads[2];
        prepare();
        kv_rig_open(&rig);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, poll_in_a_race, &race), 0);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
        }
        assert_int_equal(race.accepted, 1);
        assert_int_equal(race.refused, 1);
        kv_rig_close(&rig);
    }
}

static void test_poll_of_a_manager_with_a_thread_is_refused(void **state)
{
    (void)state;
    prepare();
    rig.config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(&rig);
    kv_expect(kvb_manager_poll(rig.kv, 0), KVB_ETHREAD);
    kv_expect(kvb_manager_event_fd(rig.kv), KVB_EUNSUPPORTED);
    kv_ok(kvb_manager_flush(rig.kv, KVB_FOREVER));
    kv_rig_close(&rig);
}

static struct {
    int calls, poll, flush, destroy, lookup, walk;
} from_sink;

static void call_back_in(void *context, const struct kvb_event *event)
{
    (void)context;
    (void)event;
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    uint64_t tiers[KVB_TIER_COUNT];
    from_sink.calls++;
    from_sink.poll = kvb_manager_poll(rig.kv, 0);
    from_sink.flush = kvb_manager_flush(rig.kv, KVB_FOREVER);
    from_sink.destroy = kvb_manager_destroy(rig.kv);
    from_sink.lookup = kvb_lookup(rig.kv, &query, tiers);
    from_sink.walk = kvb_index_walk(rig.kv, visit_nothing, NULL);
}

static void call_from_sink(uint32_t progress)
{
    struct kvb_block *block = NULL;
    memset(&from_sink, 0, sizeof from_sink);
    prepare();
    rig.config.progress = progress;
    rig.config.sink = (struct kvb_event_sink){call_back_in, NULL};
    kv_rig_open(&rig);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    kv_settle(&rig);
    kv_unref(&rig, block);
    kv_rig_close(&rig);
    assert_int_equal(from_sink.calls, 1);
}

static void test_waiting_from_within_a_callback_would_deadlock(void **state)
{
    (void)state;
    call_from_sink(KVB_PROGRESS_POLL);
    kv_expect(from_sink.poll, KVB_EDEADLK);
    kv_expect(from_sink.flush, KVB_EDEADLK);
    kv_expect(from_sink.destroy, KVB_EDEADLK);
}

static void test_waiting_from_within_a_callback_of_the_thread_would_deadlock(void **state)
{
    (void)state;
    call_from_sink(KVB_PROGRESS_THREAD);
    kv_expect(from_sink.flush, KVB_EDEADLK);
    kv_expect(from_sink.destroy, KVB_EDEADLK);
}

static void test_other_calls_from_within_a_callback_are_legal(void **state)
{
    (void)state;
    call_from_sink(KVB_PROGRESS_POLL);
    kv_ok(from_sink.lookup);
}

static void test_walk_from_within_a_callback_would_stop_progress(void **state)
{
    (void)state;
    call_from_sink(KVB_PROGRESS_POLL);
    kv_expect(from_sink.walk, KVB_EDEADLK);
    call_from_sink(KVB_PROGRESS_THREAD);
    kv_expect(from_sink.walk, KVB_EDEADLK);
}

/* ---- destroy ------------------------------------------------------------------------------------------------------ */

static void test_destroy_with_held_handles_is_busy_and_changes_nothing(void **state)
{
    (void)state;
    struct kvb_block *run[2];
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 2, run);
    kv_unref(&rig, run[1]);
    kv_expect(kvb_manager_destroy(rig.kv), KVB_EBUSY);
    assert_int_equal(kv_describe(&rig, run[0]).holder_count, 1);
    assert_int_equal(kv_run_length(&rig, 0, T, 8), 2);
    kv_poll(&rig);
    assert_int_equal(rig.events.count, 2);
    kv_unref(&rig, run[0]);
}

static void test_refused_destroy_leaves_polling_to_another_thread(void **state)
{
    (void)state;
    struct elsewhere answers = {1, 1};
    pthread_t thread;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_expect(kvb_manager_destroy(rig.kv), KVB_EBUSY);
    assert_int_equal(pthread_create(&thread, NULL, poll_elsewhere, &answers), 0);
    pthread_join(thread, NULL);
    kv_ok(answers.poll);
    kv_ok(answers.flush);
    kv_unref(&rig, block);
}

static void test_destroy_delivers_outstanding_events(void **state)
{
    (void)state;
    struct kvb_block *block = NULL;
    prepare();
    kv_rig_open(&rig);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    kv_unref(&rig, block);
    assert_int_equal(rig.events.count, 0);
    kv_rig_close(&rig);
    assert_int_equal(rig.events.count, 1);
}

/* ---- Names of errors ---------------------------------------------------------------------------------------------- */

static void test_error_names_and_texts_are_the_headers(void **state)
{
    (void)state;
#define CHECK(name, number, text)                                                                  \
    assert_int_equal(KVB_##name, number);                                                          \
    assert_string_equal(kvb_error_name(number), "KVB_" #name);                                     \
    assert_string_equal(kvb_strerror(number), text);
    KVB_ERROR_MAP(CHECK)
#undef CHECK
}

static void test_error_names_of_other_numbers_are_never_null(void **state)
{
    (void)state;
    const int others[] = {1, -21, -1000, INT32_MAX, INT32_MIN};
    assert_string_equal(kvb_error_name(0), "KVB_OK");
    assert_string_equal(kvb_strerror(0), "success");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_string_equal(kvb_error_name(others[i]), "KVB_UNKNOWN");
        assert_string_equal(kvb_strerror(others[i]), "unknown error");
    }
}

static void test_version_is_the_headers(void **state)
{
    (void)state;
    char expected[32];
    (void)snprintf(expected, sizeof expected, "%d.%d.%d", KVB_VERSION_MAJOR, KVB_VERSION_MINOR,
                   KVB_VERSION_PATCH);
    assert_string_equal(kvb_version(), expected);
}

/* ---- Nothing that serves allocates -------------------------------------------------------------------------------- */

static void serve_once(uint64_t seed)
{
    struct kvb_manager *kv = rig.kv;
    uint32_t tokens[2 * KV_TOKENS];
    struct kvb_block *run[2], *targets[2], *sources[2];
    struct kvb_hit hits[2];
    struct kvb_weak weak;
    struct kvb_op *op = NULL;
    size_t count = 0;
    uint32_t good = 0;
    kv_tokens(tokens, 2 * KV_TOKENS, seed);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, tokens, 2, run);
    kv_ok(kvb_block_ref(kv, run, 2, NULL));
    kv_ok(kvb_block_unref(kv, run, 2, NULL));
    kv_ok(kvb_block_weak(kv, run[0], &weak));
    kv_ok(kvb_block_set_priority(kv, run, 2, 50, KV_SECOND, NULL));
    kv_ok(kvb_pin(kv, seed + 1, run, 2, KV_SECOND, NULL));
    kv_ok(kvb_block_offload(kv, run, 2, 50, NULL, NULL));
    kv_settle(&rig);
    kv_ok(kvb_unpin_all(kv, seed + 1, NULL));
    kv_ok(kvb_block_unref(kv, run, 2, NULL));
    kv_ok(kvb_weak_upgrade(kv, &weak, 1, run, NULL));
    kv_unref(&rig, run[0]);

    struct kvb_block *all[KV_BLOCKS]; /* evict the copies above */
    kv_ok(kvb_alloc(kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, all, NULL));
    kv_ok(kvb_block_unref(kv, all, KV_BLOCKS, NULL));
    struct kvb_query query = kv_query(0, tokens, 2 * KV_TOKENS);
    kv_ok(kvb_match(kv, &query, hits, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(hits[0].tier, KVB_TIER_HOST);
    sources[0] = hits[0].block;
    sources[1] = hits[1].block;
    kv_ok(kvb_alloc(kv, KVB_TIER_DEVICE, 2, NULL, targets, NULL));
    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = sources, .targets = targets, .count = 2};
    kv_ok(kvb_onboard(kv, &onboard, &op));
    kv_ok(kvb_block_unref(kv, sources, 2, NULL));
    kv_ok(kvb_op_wait(kv, op, KVB_FOREVER));
    kv_ok(kvb_op_take(kv, op, targets, 2, &good));
    assert_int_equal(good, 2);
    kv_ok(kvb_op_release(kv, op));
    kv_ok(kvb_block_unref(kv, targets, 2, NULL));
    if (seed % 10 == 9) {
        kv_ok(kvb_invalidate_namespace(kv, 0, NULL));
    }
    if (seed % 10 == 4) {
        kv_ok(kvb_manager_clear(kv));
    }
    (void)kv_stats(&rig);
    kv_advance(&rig, KV_SECOND / 4);
}

static void serving_allocates_nothing(uint32_t progress)
{
    prepare();
    rig.config.progress = progress;
    kv_rig_open(&rig);
    uint64_t calls = rig.heap.calls;
    for (uint64_t seed = 0; seed < 200; seed++) {
        serve_once(seed);
    }
    assert_int_equal(rig.heap.calls, calls);
    kv_rig_close(&rig);
}

static void test_serving_by_poll_allocates_nothing(void **state)
{
    (void)state;
    serving_allocates_nothing(KVB_PROGRESS_POLL);
}

static void test_serving_by_thread_allocates_nothing(void **state)
{
    (void)state;
    serving_allocates_nothing(KVB_PROGRESS_THREAD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_without_config_or_manager_is_invalid),
        cmocka_unit_test(test_config_block_bytes_of_4_gib_are_invalid),
        cmocka_unit_test(test_config_block_bytes_that_overflow_are_invalid),
        cmocka_unit_test(test_config_of_more_blocks_than_memory_is_refused),
        cmocka_unit_test(test_config_tiers_not_ascending_are_invalid),
        cmocka_unit_test(test_config_tier_twice_is_invalid),
        cmocka_unit_test(test_config_memory_too_small_is_invalid),
        cmocka_unit_test(test_config_memory_misaligned_is_invalid),
        cmocka_unit_test(test_config_memory_of_the_caller_is_used),
        cmocka_unit_test(test_config_unknown_policy_is_unsupported),
        cmocka_unit_test(test_config_half_an_allocator_is_invalid),
        cmocka_unit_test(test_config_with_unknown_zero_tail_is_accepted),
        cmocka_unit_test(test_config_with_unknown_tail_in_use_is_invalid),
        cmocka_unit_test(test_config_tiers_with_tail_are_read_at_their_distance),
        cmocka_unit_test(test_config_layout_with_tail_in_use_is_invalid),
        cmocka_unit_test(test_config_is_copied),
        cmocka_unit_test(test_config_of_extreme_block_sizes_works),
        cmocka_unit_test(test_config_without_anything_injected_works),
        cmocka_unit_test(test_create_with_one_failing_allocation_leaks_nothing),
        cmocka_unit_test(test_create_with_allocations_failing_from_one_on_leaks_nothing),
        TEST(test_namespace_open_with_failing_allocation_changes_nothing),
        TEST(test_null_manager_is_invalid_for_every_function),
        TEST(test_null_manager_where_no_code_is_returned),
        TEST(test_child_after_fork_is_refused_by_every_function),
        cmocka_unit_test(test_child_after_fork_of_a_manager_with_a_thread_is_refused),
        TEST(test_null_array_with_a_count_is_invalid),
        TEST(test_null_where_an_answer_goes_is_invalid),
        TEST(test_answers_are_cleared_on_errors),
        TEST(test_count_0_does_nothing),
        TEST(test_struct_without_size_is_invalid),
        TEST(test_init_with_unknown_tail_in_use_is_invalid),
        TEST(test_append_with_unknown_tail_in_use_is_invalid),
        TEST(test_register_with_unknown_tail_in_use_is_invalid),
        TEST(test_query_with_unknown_tail_in_use_is_invalid),
        TEST(test_onboard_with_unknown_tail_in_use_is_invalid),
        TEST(test_structs_with_unknown_zero_tail_are_accepted),
        TEST(test_structs_in_an_array_are_read_at_their_distance),
        TEST(test_unknown_fence_kind_is_invalid),
        TEST(test_offload_of_what_cannot_be_offloaded_is_refused),
        TEST(test_onboard_of_what_cannot_be_onboarded_is_refused),
        TEST(test_op_null_is_legal_to_release_only),
        TEST(test_poll_from_another_thread_is_refused),
        cmocka_unit_test(test_first_poll_by_two_threads_at_once_is_accepted_from_one),
        cmocka_unit_test(test_poll_of_a_manager_with_a_thread_is_refused),
        cmocka_unit_test(test_waiting_from_within_a_callback_would_deadlock),
        cmocka_unit_test(test_waiting_from_within_a_callback_of_the_thread_would_deadlock),
        cmocka_unit_test(test_walk_from_within_a_callback_would_stop_progress),
        cmocka_unit_test(test_other_calls_from_within_a_callback_are_legal),
        TEST(test_destroy_with_held_handles_is_busy_and_changes_nothing),
        TEST(test_refused_destroy_leaves_polling_to_another_thread),
        cmocka_unit_test(test_destroy_delivers_outstanding_events),
        cmocka_unit_test(test_error_names_and_texts_are_the_headers),
        cmocka_unit_test(test_error_names_of_other_numbers_are_never_null),
        cmocka_unit_test(test_version_is_the_headers),
        cmocka_unit_test(test_serving_by_poll_allocates_nothing),
        cmocka_unit_test(test_serving_by_thread_allocates_nothing),
    };
    int failed = run_bad_fields();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
