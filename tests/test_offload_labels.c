/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lane tells a disk about the blocks that it writes there. Nobody polls: the tests are the
 * engine.
 */
#include "support/disk_scene.h"

#include "api/manager.h"
#include "transfer/disk/format.h"

enum { KEY = 8 };

static struct disk_scene *scene_open_for(void **state, uint32_t key_bytes)
{
    struct disk_scene *scene = *state;
    scene_tiers(scene, 0, DISK_BLOCKS);
    scene->rig.tiers[0].batch = 4;
    scene->rig.tiers[0].depth = 1;
    scene->rig.config.key_bytes = key_bytes;
    scene_open(scene);
    return scene;
}

static struct kvbi_lane *lane_of(struct disk_scene *scene)
{
    return scene->rig.kv->pipeline.lanes.out[KVB_TIER_DEVICE].lanes[0];
}

/* What the engine would get next, at most `max`. */
static uint32_t take_copies(struct disk_scene *scene, struct kvbi_copy *copies, uint32_t max)
{
    uint32_t offers[KVBI_LOCK_BATCH], count = 0;
    kvbi_lock(scene->rig.kv);
    uint32_t taken = kvbi_lane_take_locked(lane_of(scene), offers, max, 1);
    for (uint32_t i = 0; i < taken; i++)
        count +=
            kvbi_lane_aim_locked(lane_of(scene), offers[i], &copies[count], 1) == KVBI_AIM_COPY;
    kvbi_unlock(scene->rig.kv);
    return count;
}

/* What the engine says of them. */
static void complete(struct disk_scene *scene, const struct kvbi_copy *copies, uint32_t count,
                     int result)
{
    kvbi_lock(scene->rig.kv);
    for (uint32_t i = 0; i < count; i++)
        (void)kvbi_lane_complete_locked(lane_of(scene), (uint32_t)copies[i].cookie, result, 2);
    kvbi_unlock(scene->rig.kv);
    kv_check(&scene->rig);
}

static uint64_t generation_of(struct disk_scene *scene, uint32_t slot)
{
    return kvbi_word_generation(
        atomic_load(&scene->rig.kv->store.pools[KVB_TIER_DISK].slots[slot].word));
}

static void test_label_names_content_parent_and_slot(void **state)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct mv_run run;
    struct kvbi_copy copies[2];
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 2);
    assert_int_equal(take_copies(scene, copies, 2), 2);
    struct kvbi_label expected = {.hash = run.seqs[1].hash,
                                  .digest = {run.seqs[1].digest[0], run.seqs[1].digest[1]},
                                  .parent_hash = run.seqs[0].hash,
                                  .generation = generation_of(scene, copies[1].to_slot),
                                  .has_parent = 1,
                                  .priority = KVB_PRIORITY_DEFAULT,
                                  .payload_bytes = KV_LAYERS * KV_PARTS * KV_CHUNK};
    const struct kvbi_namespace_name *space = kvbi_space(scene->rig.kv, 0);
    expected.space_hash = space->salt_hash;
    memcpy(expected.space_digest, space->digest, sizeof expected.space_digest);
    assert_memory_equal(copies[1].label, &expected, sizeof expected);
    assert_int_equal(copies[1].identity.generation, expected.generation);
    complete(scene, copies, 2, KVB_ECANCELED);
}

static void test_label_of_a_root_names_no_parent(void **state)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct mv_run run;
    struct kvbi_copy copy;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    assert_int_equal(take_copies(scene, &copy, 1), 1);
    assert_int_equal(copy.label->has_parent, 0);
    assert_int_equal(copy.label->parent_hash, 0);
    complete(scene, &copy, 1, KVB_ECANCELED);
}

static void test_label_names_the_namespace(void **state)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct kvb_block *block;
    struct kvbi_copy copy;
    uint32_t tokens[KV_TOKENS], space;
    kv_tokens(tokens, KV_TOKENS, 1);
    kv_ok(kvb_namespace_open(scene->rig.kv, "salt", 4, "adapter", 7, &space));
    kv_store_run(&scene->rig, KVB_TIER_DEVICE, space, tokens, 1, &block);
    assert_int_equal(take_copies(scene, &copy, 1), 1);
    const struct kvbi_namespace_name *name = kvbi_space(scene->rig.kv, space);
    assert_int_equal(copy.label->space_hash, name->salt_hash);
    assert_memory_equal(copy.label->space_digest, name->digest, sizeof name->digest);
    complete(scene, &copy, 1, KVB_ECANCELED);
    kv_unref(&scene->rig, block);
}

static void expect_priority(void **state, uint64_t duration_ns, uint8_t expected)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct mv_run run;
    struct kvbi_copy copy;
    mv_store(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_ok(kvb_block_set_priority(scene->rig.kv, run.blocks, 1, 90, duration_ns, NULL));
    assert_int_equal(take_copies(scene, &copy, 1), 1);
    assert_int_equal(copy.label->priority, expected);
    complete(scene, &copy, 1, KVB_ECANCELED);
    mv_drop(&scene->rig, &run);
}

static void test_label_has_a_priority_that_holds_for_ever(void **state)
{
    expect_priority(state, 0, 90);
}

static void test_label_has_no_priority_that_holds_for_a_time(void **state)
{
    expect_priority(state, KV_SECOND, KVB_PRIORITY_DEFAULT);
}

static void test_label_counts_the_clears_before_it(void **state)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct mv_run before, after;
    struct kvbi_copy copies[2];
    mv_park(&scene->rig, &before, KVB_TIER_DEVICE, 1, 1);
    assert_int_equal(take_copies(scene, &copies[0], 1), 1);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    mv_park(&scene->rig, &after, KVB_TIER_DEVICE, 2, 1);
    assert_int_equal(take_copies(scene, &copies[1], 1), 1);
    assert_int_equal(copies[0].label->clears, 0);
    assert_int_equal(copies[1].label->clears, 1);
    complete(scene, copies, 2, 0);
    assert_int_equal(mv_found(&scene->rig, &before), 0);
}

static void test_label_stays_as_it_is_until_the_copy_is_over(void **state)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct mv_run run;
    struct kvbi_copy copies[4];
    struct kvbi_label first;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 4);
    assert_int_equal(take_copies(scene, copies, 1), 1);
    first = *copies[0].label;
    assert_int_equal(take_copies(scene, copies + 1, 3), 3);
    assert_memory_equal(copies[0].label, &first, sizeof first);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(copies[i].label->hash, run.seqs[i].hash);
    complete(scene, copies, 4, 0);
}

/* As many as may be with the engine, again and again. */
static void test_labels_are_given_back_with_their_copies(void **state)
{
    struct disk_scene *scene = scene_open_for(state, 0);
    struct mv_run run;
    struct kvbi_copy copies[4];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        mv_park(&scene->rig, &run, KVB_TIER_DEVICE, seed, 4);
        assert_int_equal(take_copies(scene, copies, 4), 4);
        complete(scene, copies, 4, seed % 2 == 0 ? 0 : KVB_EIO);
        assert_int_equal(lane_of(scene)->labels.free_count, 4);
    }
}

static void register_keyed(struct disk_scene *scene, struct kvb_block *block, uint32_t position,
                           const char *parent, const char *key)
{
    uint32_t tokens[KV_TOKENS];
    const struct kvb_register options = {.size = sizeof options, .keys = key};
    kv_tokens(tokens, KV_TOKENS, position);
    kv_complete(&scene->rig, block, 0, position, parent, tokens);
    kv_ok(kvb_block_register(scene->rig.kv, &block, 1, &options, NULL, NULL));
}

static void test_label_has_the_callers_keys(void **state)
{
    static const char root[KEY] = "root key", child[KEY] = "a child!";
    struct disk_scene *scene = scene_open_for(state, KEY);
    struct kvb_block *blocks[2];
    struct kvbi_copy copies[2];
    unsigned char zeros[KVB_KEY_BYTES_MAX] = {0};
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 2, NULL, blocks, NULL));
    register_keyed(scene, blocks[0], 0, NULL, root);
    register_keyed(scene, blocks[1], 1, root, child);
    assert_int_equal(take_copies(scene, copies, 2), 2);
    assert_memory_equal(copies[0].label->key, root, KEY);
    assert_memory_equal(copies[0].label->parent_key, zeros, sizeof zeros);
    assert_memory_equal(copies[1].label->key, child, KEY);
    assert_memory_equal(copies[1].label->parent_key, root, KEY);
    assert_memory_equal(copies[1].label->key + KEY, zeros, sizeof zeros - KEY);
    assert_int_equal(copies[1].label->parent_hash, copies[0].label->hash);
    complete(scene, copies, 2, KVB_ECANCELED);
    kv_ok(kvb_block_unref(scene->rig.kv, blocks, 2, NULL));
}

static void test_copies_to_memory_have_no_label(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvbi_copy copy;
    scene_open(scene);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    assert_int_equal(take_copies(scene, &copy, 1), 1);
    assert_null(copy.label);
    complete(scene, &copy, 1, KVB_ECANCELED);
}

int main(void)
{
    static const struct CMUnitTest polled[] = {
        TEST(disk_scene_cut_short, test_label_names_content_parent_and_slot),
        TEST(disk_scene_cut_short, test_label_of_a_root_names_no_parent),
        TEST(disk_scene_cut_short, test_label_names_the_namespace),
        TEST(disk_scene_cut_short, test_label_has_a_priority_that_holds_for_ever),
        TEST(disk_scene_cut_short, test_label_has_no_priority_that_holds_for_a_time),
        TEST(disk_scene_cut_short, test_label_counts_the_clears_before_it),
        TEST(disk_scene_cut_short, test_label_stays_as_it_is_until_the_copy_is_over),
        TEST(disk_scene_cut_short, test_labels_are_given_back_with_their_copies),
        TEST(disk_scene_cut_short, test_label_has_the_callers_keys),
        TEST(disk_scene_cut_short, test_copies_to_memory_have_no_label),
    };
    return run_disk_tests_by_progress(polled, sizeof polled / sizeof *polled, NULL, 0);
}
