/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Under which names a disk tier's file brings its blocks back: namespaces, the caller's keys,
 * hashes and tokens.
 */
#include "support/disk_restart.h"

/* ---- Names ----------------------------------------------------------------------------------- */

#define TENANT_BLOCKS 4

static uint32_t open_tenant(struct disk_scene *scene, const char *salt)
{
    uint32_t id = UINT32_MAX;
    kv_ok(kvb_namespace_open(scene->rig.kv, salt, strlen(salt), "lora", 4, &id));
    return id;
}

/*
 * The same tokens in each tenant's namespace, each with other bytes: a payload follows from its
 * sequence hash.
 */
static void store_of_tenant(struct disk_scene *scene, const char *salt, const uint32_t *tokens)
{
    struct kvb_block *blocks[TENANT_BLOCKS];
    kv_store_run(&scene->rig, KVB_TIER_DEVICE, open_tenant(scene, salt), tokens, TENANT_BLOCKS,
                 blocks);
    kv_ok(kvb_block_unref(scene->rig.kv, blocks, TENANT_BLOCKS, NULL));
    flush_and_check(scene);
    evict_above(scene);
}

static uint64_t found_of(struct disk_scene *scene, uint32_t id, const uint32_t *tokens)
{
    return kv_run_length(&scene->rig, id, tokens, (size_t)TENANT_BLOCKS * KV_TOKENS);
}

static void test_restart_finds_blocks_in_their_namespace_only(void **state)
{
    struct disk_scene *scene = *state;
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS];
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    store_of_tenant(scene, "tenant a", tokens);
    restart(scene);
    uint32_t b = open_tenant(scene, "tenant b"), a = open_tenant(scene, "tenant a");
    assert_int_equal(found_of(scene, a, tokens), TENANT_BLOCKS);
    assert_int_equal(found_of(scene, b, tokens), 0);
    assert_int_equal(found_of(scene, 0, tokens), 0);
}

static void test_restart_gives_each_namespace_its_own_bytes(void **state)
{
    static const char *const tenants[] = {"tenant a", "tenant b", "tenant c"};
    struct disk_scene *scene = *state;
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS];
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    for (size_t i = 0; i < 3; i++)
        store_of_tenant(scene, tenants[i], tokens);
    restart(scene);
    for (size_t i = 3; i-- > 0;) {
        struct mv_run run = {.count = TENANT_BLOCKS};
        uint32_t id = open_tenant(scene, tenants[i]);
        struct kvb_block *targets[TENANT_BLOCKS];
        struct kvb_query query = kv_query(id, tokens, TENANT_BLOCKS * KV_TOKENS);
        struct kvb_hit hits[TENANT_BLOCKS];
        struct kvb_op *op = NULL;
        size_t count = 0;
        kv_ok(kvb_hash_tokens(scene->rig.kv, id, NULL, tokens, TENANT_BLOCKS * KV_TOKENS, run.seqs,
                              MV_RUN_MAX, &count));
        kv_ok(kvb_match(scene->rig.kv, &query, hits, TENANT_BLOCKS, &count));
        assert_int_equal(count, TENANT_BLOCKS);
        for (size_t k = 0; k < count; k++)
            run.blocks[k] = hits[k].block;
        kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, TENANT_BLOCKS, NULL, targets, NULL));
        struct kvb_onboard request = mv_request(run.blocks, targets, TENANT_BLOCKS, NULL);
        kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
        mv_drop(&scene->rig, &run);
        assert_int_equal(finish(scene, &run, op), TENANT_BLOCKS);
    }
}

/* Opened before anybody asked for it, and stored to again: it is the same namespace. */
static void test_namespace_opened_after_a_restart_goes_on(void **state)
{
    struct disk_scene *scene = *state;
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS], others[TENANT_BLOCKS * KV_TOKENS];
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    kv_tokens(others, TENANT_BLOCKS * KV_TOKENS, 2);
    store_of_tenant(scene, "tenant a", tokens);
    restart(scene);
    store_of_tenant(scene, "tenant a", others);
    restart(scene);
    uint32_t a = open_tenant(scene, "tenant a");
    assert_int_equal(found_of(scene, a, tokens), TENANT_BLOCKS);
    assert_int_equal(found_of(scene, a, others), TENANT_BLOCKS);
}

static void test_restart_drops_namespaces_that_find_no_room(void **state)
{
    struct disk_scene *scene = *state;
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS];
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    store_of_tenant(scene, "tenant a", tokens);
    store_of_tenant(scene, "tenant b", tokens);
    store_of_tenant(scene, "tenant c", tokens);
    stop(scene);
    /* so many that nobody has opened, and as many that somebody has */
    scene->rig.config.namespace_capacity = 2;
    scene_open(scene);
    assert_int_equal(path_stats(scene, 0).recovered, 2 * TENANT_BLOCKS);
    assert_int_equal(path_stats(scene, 0).dropped, TENANT_BLOCKS);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].parked_count, 2 * TENANT_BLOCKS);
}

static void test_restart_leaves_room_for_new_namespaces(void **state)
{
    struct disk_scene *scene = *state;
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS], id;
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    scene->rig.config.namespace_capacity = 3; /* id 0 and two more */
    scene_open(scene);
    store_of_tenant(scene, "tenant a", tokens);
    store_of_tenant(scene, "tenant b", tokens);
    restart(scene);
    store_of_tenant(scene, "tenant c", tokens);
    assert_int_equal(found_of(scene, open_tenant(scene, "tenant b"), tokens), TENANT_BLOCKS);
    kv_expect(kvb_namespace_open(scene->rig.kv, "tenant a", 8, NULL, 0, &id), KVB_ENOSPC);
}

#define KEY_BYTES 24

static void key_of(unsigned char key[KEY_BYTES], uint64_t number)
{
    for (uint32_t i = 0; i < KEY_BYTES; i++)
        key[i] = (unsigned char)kv_mix(number * 100 + i);
}

/* One block, its tokens and bytes made from these seeds, under the key of this number. */
static void register_keyed(struct disk_scene *scene, uint64_t number, uint32_t position,
                           uint64_t tokens_seed, uint64_t payload_seed)
{
    struct kv_rig *rig = &scene->rig;
    unsigned char parent[KEY_BYTES], key[KEY_BYTES];
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = key};
    key_of(key, number);
    if (position > 0)
        key_of(parent, number - 1);
    kv_tokens(tokens, KV_TOKENS, tokens_seed);
    kv_init(rig, block, 0, position, position == 0 ? NULL : parent);
    kv_append(rig, block, tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_payload_fill(rig, block, payload_seed);
    kv_done(rig, block, KV_TOKENS);
    kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
    kv_unref(rig, block);
}

/* A chain under keys 0, 1 ..., on the disk only. */
static void store_keyed(struct disk_scene *scene, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        register_keyed(scene, i, i, i + 1, i);
    flush_and_check(scene);
    evict_above(scene);
}

/* Content `seed` under the key of this number, on the disk only. */
static void store_under_key(struct disk_scene *scene, uint64_t number, uint64_t seed)
{
    register_keyed(scene, number, 0, seed, seed);
    flush_and_check(scene);
    evict_above(scene);
}

/* What is found under the key is content `seed`. */
static void expect_under_key(struct disk_scene *scene, uint64_t number, uint64_t seed)
{
    unsigned char key[KEY_BYTES];
    struct kvb_query query = {.size = sizeof query, .keys = key, .key_count = 1};
    struct kvb_block *source, *block;
    struct kvb_op *op = NULL;
    struct kvb_hit hit;
    size_t count = 0;
    uint32_t good = 0;
    key_of(key, number);
    kv_ok(kvb_match(scene->rig.kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    source = hit.block;
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL));
    struct kvb_onboard request = mv_request(&source, &block, 1, NULL);
    kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
    kv_ok(kvb_op_wait(scene->rig.kv, op, KVB_FOREVER));
    kv_ok(kvb_op_take(scene->rig.kv, op, &block, 1, &good));
    kv_ok(kvb_op_release(scene->rig.kv, op));
    assert_int_equal(good, 1);
    assert_true(kv_payload_is(&scene->rig, block, seed));
    kv_unref(&scene->rig, block);
    kv_unref(&scene->rig, source);
}

static void invalidate_keys(struct disk_scene *scene, uint32_t count)
{
    unsigned char keys[4][KEY_BYTES];
    for (uint32_t i = 0; i < count; i++)
        key_of(keys[i], i);
    kv_ok(kvb_invalidate(scene->rig.kv, keys, count, NULL));
    flush_and_check(scene);
}

/*
 * Of two contents that a key has had, the file holds both: the earlier one in the lower slot, or in
 * the upper one.
 */
static void change_content_of_a_key(void **state, uint64_t changed)
{
    struct disk_scene *scene = *state;
    scene->rig.config.key_bytes = KEY_BYTES;
    scene->rig.events.key_bytes = KEY_BYTES;
    scene_open(scene);
    store_under_key(scene, 0, 100);
    store_under_key(scene, 1, 101);
    invalidate_keys(scene, 2);
    store_under_key(scene, changed, 333); /* into the slot that was freed last */
    restart_killed(scene);
    assert_int_equal(path_stats(scene, 0).superseded, 1 - changed);
    assert_int_equal(path_stats(scene, 0).dropped, 0);
    expect_under_key(scene, changed, 333);
    restart(scene);
    expect_under_key(scene, changed, 333);
}

static void test_restart_takes_the_later_content_of_a_key(void **state)
{
    change_content_of_a_key(state, 0);
}

static void test_restart_takes_the_content_that_was_written_over_an_earlier_one(void **state)
{
    change_content_of_a_key(state, 1);
}

static void test_restart_finds_the_callers_keys(void **state)
{
    struct disk_scene *scene = *state;
    unsigned char keys[5][KEY_BYTES];
    struct kvb_block *sources[5], *blocks[5];
    struct kvb_hit hits[5];
    struct kvb_op *op = NULL;
    size_t count = 0;
    uint32_t good = 0;
    scene->rig.config.key_bytes = KEY_BYTES;
    scene_open(scene);
    store_keyed(scene, 5);
    restart(scene);
    for (uint32_t i = 0; i < 5; i++)
        key_of(keys[i], i);
    struct kvb_query query = {.size = sizeof query, .keys = keys, .key_count = 5};
    kv_ok(kvb_match(scene->rig.kv, &query, hits, 5, &count));
    assert_int_equal(count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(hits[i].tier, KVB_TIER_DISK);
        sources[i] = hits[i].block;
    }
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 5, NULL, blocks, NULL));
    struct kvb_onboard request = mv_request(sources, blocks, 5, NULL);
    kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
    kv_ok(kvb_op_wait(scene->rig.kv, op, KVB_FOREVER));
    kv_ok(kvb_op_take(scene->rig.kv, op, blocks, 5, &good));
    kv_ok(kvb_op_release(scene->rig.kv, op));
    assert_int_equal(good, 5);
    for (uint32_t i = 0; i < 5; i++)
        assert_true(kv_payload_is(&scene->rig, blocks[i], i));
    kv_ok(kvb_block_unref(scene->rig.kv, blocks, 5, NULL));
    kv_ok(kvb_block_unref(scene->rig.kv, sources, 5, NULL));
}

/* The event of a recovered block shows its whole key, and its parent's. */
static void test_restart_announces_the_callers_keys(void **state)
{
    struct disk_scene *scene = *state;
    unsigned char key[KEY_BYTES], parent[KEY_BYTES];
    uint32_t right = 0;
    scene->rig.config.key_bytes = KEY_BYTES;
    scene_open(scene);
    store_keyed(scene, 2);
    restart(scene);
    flush_and_check(scene);
    key_of(parent, 0);
    key_of(key, 1);
    for (size_t i = 0; i < scene->rig.events.count; i++) {
        const struct kv_event_record *record = &scene->rig.events.list[i];
        right += record->kind == KVB_EVENT_STORED && memcmp(record->key, key, KEY_BYTES) == 0 &&
                 record->has_parent && memcmp(record->parent, parent, KEY_BYTES) == 0;
    }
    assert_int_equal(right, 1);
}

/* ---- Other content with the same hash -------------------------------------------------------- */

static uint32_t disguised[KV_TOKENS], original[KV_TOKENS];

/* The 64-bit hash of one block of tokens is that of another. */
static uint64_t colliding_64(const void *data, size_t bytes, uint64_t seed)
{
    bool same = bytes == sizeof disguised && memcmp(data, disguised, bytes) == 0;
    return kvbi_hash_baseline.hash64(same ? original : data, bytes, seed);
}

static void test_recovered_block_is_not_served_for_other_tokens_of_its_hash(void **state)
{
    static struct kvbi_hash_ops ops;
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvb_seq seq;
    size_t count;
    ops = (struct kvbi_hash_ops){colliding_64, kvbi_hash_baseline.hash128, "test"};
    scene->io.copies.hooks.hash = &ops;
    kv_tokens(original, KV_TOKENS, 1);
    kv_tokens(disguised, KV_TOKENS, 2);
    scene_open(scene);
    store_on_disk(scene, &run, 1, 1);
    restart(scene);
    kv_ok(kvb_hash_tokens(scene->rig.kv, 0, NULL, disguised, KV_TOKENS, &seq, 1, &count));
    assert_int_equal(seq.hash, run.seqs[0].hash);
    assert_int_equal(kv_run_length(&scene->rig, 0, disguised, KV_TOKENS), 0);
    assert_int_equal(kv_run_length(&scene->rig, 0, original, KV_TOKENS), 1);
}

static void test_recovered_block_is_found_by_names_and_tokens_together(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint64_t tiers[KVB_TIER_COUNT];
    store_on_disk(scene, &run, 1, 4);
    restart(scene);
    struct kvb_query query = kv_query(0, run.tokens, 4 * KV_TOKENS);
    query.keys = run.seqs;
    query.key_count = 4;
    kv_ok(kvb_lookup(scene->rig.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DISK], 4);
    query.tokens = NULL;
    query.token_count = 0;
    kv_ok(kvb_lookup(scene->rig.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DISK], 4);
}

/* Names were made with the seed of the file: a configuration without one gets it from there. */
static void test_digest_seed_of_the_file_is_used_where_none_is_configured(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->rig.config.digest_seed = 0;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 4);
    restart(scene);
    struct mv_run again;
    mv_name(&scene->rig, &again, 1, 4);
    assert_memory_equal(again.seqs, run.seqs, 4 * sizeof *run.seqs);
    assert_int_equal(fetch(scene, &again), 4);
}

int main(void)
{
    static const struct CMUnitTest once[] = {
        TEST(disk_scene_opened, test_restart_finds_blocks_in_their_namespace_only),
        TEST(disk_scene_opened, test_restart_gives_each_namespace_its_own_bytes),
        TEST(disk_scene_opened, test_namespace_opened_after_a_restart_goes_on),
        TEST(disk_scene_opened, test_restart_drops_namespaces_that_find_no_room),
        TEST(disk_scene, test_restart_leaves_room_for_new_namespaces),
        TEST(disk_scene, test_restart_finds_the_callers_keys),
        TEST(disk_scene, test_restart_takes_the_later_content_of_a_key),
        TEST(disk_scene, test_restart_takes_the_content_that_was_written_over_an_earlier_one),
        TEST(disk_scene, test_restart_announces_the_callers_keys),
        TEST(disk_scene, test_recovered_block_is_not_served_for_other_tokens_of_its_hash),
        TEST(disk_scene_opened, test_recovered_block_is_found_by_names_and_tokens_together),
        TEST(disk_scene, test_digest_seed_of_the_file_is_used_where_none_is_configured),
    };
    return run_disk_tests(NULL, 0, once, sizeof once / sizeof *once);
}
