/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a record does not know cannot be read from it: contents that came back from a disk have
 * their tokens from whoever matched them, and no other names. With built-in hashes and with the
 * caller's keys.
 */
#include "support/disk_restart.h"

#define LENGTH 2
#define KEY_BYTES sizeof(struct kvb_seq) /* of the caller's keys too: one array holds either kind */

/* A chain of a tenant's in a file: its second block matters, because it is no root. */
struct chain {
    struct disk_scene *scene;
    uint32_t space;
    uint32_t tokens[LENGTH * KV_TOKENS];
    _Alignas(struct kvb_seq) unsigned char keys[LENGTH][KEY_BYTES];
    struct kvb_block *blocks[LENGTH];
};

static struct kv_rig *rig_of(struct chain *chain)
{
    return &chain->scene->rig;
}

static void chain_open(struct chain *chain, void **state, uint32_t key_bytes)
{
    *chain = (struct chain){.scene = *state};
    rig_of(chain)->config.key_bytes = key_bytes;
    scene_open(chain->scene);
    kv_ok(kvb_namespace_open(rig_of(chain)->kv, "tenant", 6, NULL, 0, &chain->space));
    kv_tokens(chain->tokens, LENGTH * KV_TOKENS, 1);
    if (key_bytes > 0) {
        for (uint32_t i = 0; i < LENGTH; i++)
            memset(chain->keys[i], 'a' + (int)i, key_bytes);
        return;
    }
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig_of(chain)->kv, chain->space, NULL, chain->tokens, LENGTH * KV_TOKENS,
                          (struct kvb_seq *)(void *)chain->keys, LENGTH, &count));
}

/* Block `i` of the chain, computed and registered in a tier; held. */
static struct kvb_block *store_one(struct chain *chain, uint32_t tier, uint32_t i)
{
    struct kv_rig *rig = rig_of(chain);
    struct kvb_block *block = kv_alloc(rig, tier);
    struct kvb_register options = {.size = sizeof options, .keys = chain->keys[i]};
    kv_complete(rig, block, chain->space, i, i == 0 ? NULL : chain->keys[i - 1],
                chain->tokens + i * KV_TOKENS);
    kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
    return block;
}

/* By keys and tokens, into chain->blocks; all of it is there. */
static void match_all(struct chain *chain)
{
    struct kvb_query query = {.size = sizeof query,
                              .namespace_id = chain->space,
                              .tokens = chain->tokens,
                              .token_count = LENGTH * KV_TOKENS,
                              .keys = chain->keys,
                              .key_count = LENGTH};
    struct kvb_hit hits[LENGTH];
    size_t count = 0;
    kv_ok(kvb_match(rig_of(chain)->kv, &query, hits, LENGTH, &count));
    assert_int_equal(count, LENGTH);
    for (uint32_t i = 0; i < LENGTH; i++)
        chain->blocks[i] = hits[i].block;
}

static void match_and_drop(struct chain *chain)
{
    struct kvb_block *kept[LENGTH];
    memcpy(kept, chain->blocks, sizeof kept);
    match_all(chain);
    kv_ok(kvb_block_unref(rig_of(chain)->kv, chain->blocks, LENGTH, NULL));
    memcpy(chain->blocks, kept, sizeof kept);
}

/* The chain was stored, went down to the disk and came back from there alone; held in DEVICE. */
static void bring_back(struct chain *chain)
{
    struct kv_rig *rig = rig_of(chain);
    struct kvb_block *sources[LENGTH];
    struct kvb_op *op = NULL;
    uint32_t good = 0;
    for (uint32_t i = 0; i < LENGTH; i++)
        chain->blocks[i] = store_one(chain, KVB_TIER_DEVICE, i);
    kv_ok(kvb_block_unref(rig->kv, chain->blocks, LENGTH, NULL));
    flush_and_check(chain->scene);
    evict_above(chain->scene);
    match_all(chain);
    memcpy(sources, chain->blocks, sizeof sources);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, LENGTH, NULL, chain->blocks, NULL));
    struct kvb_onboard request = mv_request(sources, chain->blocks, LENGTH, NULL);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    kv_ok(kvb_op_take(rig->kv, op, chain->blocks, LENGTH, &good));
    kv_ok(kvb_op_release(rig->kv, op));
    assert_int_equal(good, LENGTH);
    kv_ok(kvb_block_unref(rig->kv, sources, LENGTH, NULL));
}

/* The scene may be used again. */
static void chain_end(struct chain *chain)
{
    kv_ok(kvb_block_unref(rig_of(chain)->kv, chain->blocks, LENGTH, NULL));
    scene_again(chain->scene);
}

/* ---- Clones ---------------------------------------------------------------------------------- */

static void expect_no_clone(struct chain *chain)
{
    struct kv_rig *rig = rig_of(chain);
    struct kvb_block *clone = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_expect(kvb_block_clone(rig->kv, chain->blocks[1], clone), KVB_ENOENT);
    assert_int_equal(kv_describe(rig, clone).state, KVB_STATE_EMPTY);
    kv_unref(rig, clone);
    kv_check(rig);
}

static void clone_of_returned_block(void **state, uint32_t key_bytes)
{
    struct chain chain;
    chain_open(&chain, state, key_bytes);
    bring_back(&chain);
    expect_no_clone(&chain);
    match_and_drop(&chain);
    expect_no_clone(&chain);
    chain_end(&chain);
}

static void test_clone_of_returned_block_is_refused_whether_or_not_it_was_matched(void **state)
{
    clone_of_returned_block(state, 0);
}

static void test_keyed_clone_of_returned_block_is_refused_whether_or_not_it_was_matched(
    void **state)
{
    clone_of_returned_block(state, KEY_BYTES);
}

/*
 * The clone, computed and registered, is what its source is: a duplicate of it, in its namespace,
 * behind its parent.
 */
static void expect_clone_is_duplicate(struct chain *chain)
{
    struct kv_rig *rig = rig_of(chain);
    struct kvb_block *clone = kv_alloc(rig, KVB_TIER_DEVICE);
    unsigned char key[KEY_BYTES];
    uint64_t duplicates = kv_stats(rig).tiers[KVB_TIER_DEVICE].duplicates;
    kv_ok(kvb_block_clone(rig->kv, chain->blocks[1], clone));
    kv_ok(kvb_block_key(rig->kv, clone, key));
    assert_memory_equal(key, chain->keys[1], kvb_key_bytes(rig->kv));
    kv_append(rig, clone, NULL, 0, 0);
    kv_schedule(rig, clone);
    kv_done(rig, clone, KV_TOKENS);
    kv_register(rig, clone);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].duplicates, duplicates + 1);
    kv_unref(rig, clone);
}

/*
 * Somebody computes the content again, in another tier: its record knows all, and takes the place
 * of one of tokens alone.
 */
static void clone_after_registering_again(void **state, uint32_t key_bytes, bool matched)
{
    struct chain chain;
    chain_open(&chain, state, key_bytes);
    bring_back(&chain);
    mv_evict_all(rig_of(&chain), KVB_TIER_HOST);
    if (matched)
        match_and_drop(&chain);
    struct kvb_block *again = store_one(&chain, KVB_TIER_HOST, 1);
    assert_int_equal(kv_describe(rig_of(&chain), again).indexed, 1);
    kv_check(rig_of(&chain));
    expect_clone_is_duplicate(&chain);
    kv_unref(rig_of(&chain), again);
    chain_end(&chain);
}

static void test_clone_of_returned_block_has_names_once_it_is_registered_again(void **state)
{
    clone_after_registering_again(state, 0, false);
    clone_after_registering_again(state, 0, true);
}

static void test_keyed_clone_of_returned_block_has_names_once_it_is_registered_again(void **state)
{
    clone_after_registering_again(state, KEY_BYTES, false);
    clone_after_registering_again(state, KEY_BYTES, true);
}

static void test_clone_of_block_whose_content_was_forgotten_is_refused(void **state)
{
    struct chain chain;
    chain_open(&chain, state, 0);
    for (uint32_t i = 0; i < LENGTH; i++)
        chain.blocks[i] = store_one(&chain, KVB_TIER_DEVICE, i);
    kv_ok(kvb_invalidate(rig_of(&chain)->kv, chain.keys[1], 1, NULL));
    expect_no_clone(&chain);
    chain_end(&chain);
}

/* ---- Others who read records ----------------------------------------------------------------- */

static int count_with_tokens(void *arg, const struct kvb_event *event)
{
    *(uint32_t *)arg += event->tokens != NULL;
    return 0;
}

static void names_of_returned_block(void **state, uint32_t key_bytes)
{
    struct chain chain;
    unsigned char key[KEY_BYTES];
    uint32_t with_tokens = 0;
    chain_open(&chain, state, key_bytes);
    bring_back(&chain);
    match_and_drop(&chain);
    kv_ok(kvb_block_key(rig_of(&chain)->kv, chain.blocks[1], key));
    assert_memory_equal(key, chain.keys[1], kvb_key_bytes(rig_of(&chain)->kv));
    kv_ok(kvb_index_walk(rig_of(&chain)->kv, count_with_tokens, &with_tokens));
    assert_true(with_tokens >= LENGTH);
    chain_end(&chain);
}

static void test_returned_block_has_its_key_and_tokens(void **state)
{
    names_of_returned_block(state, 0);
    names_of_returned_block(state, KEY_BYTES);
}

/* Other tokens under the name of one whose record holds tokens alone: compared, and refused. */
static void test_keyed_returned_block_is_not_taken_for_other_tokens(void **state)
{
    struct chain chain;
    chain_open(&chain, state, KEY_BYTES);
    bring_back(&chain);
    match_and_drop(&chain);
    struct kvb_block *other = kv_alloc(rig_of(&chain), KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = chain.keys[1]};
    kv_complete(rig_of(&chain), other, chain.space, 1, chain.keys[0], chain.tokens);
    kv_expect(kvb_block_register(rig_of(&chain)->kv, &other, 1, &options, NULL, NULL),
              KVB_ECOLLISION);
    kv_unref(rig_of(&chain), other);
    chain_end(&chain);
}

/*
 * The digest that a match has bound a block to lies in its record: on the disk alone it is found by
 * its key, and no more.
 */
static void test_keyed_block_registered_before_its_parent_is_found_by_key_on_the_disk(void **state)
{
    struct chain chain;
    chain_open(&chain, state, KEY_BYTES);
    struct kv_rig *rig = rig_of(&chain);
    uint64_t tiers[KVB_TIER_COUNT];
    for (uint32_t i = LENGTH; i-- > 0;)
        chain.blocks[i] = store_one(&chain, KVB_TIER_DEVICE, i);
    match_and_drop(&chain);
    kv_ok(kvb_block_unref(rig->kv, chain.blocks, LENGTH, NULL));
    flush_and_check(chain.scene);
    evict_above(chain.scene);
    struct kvb_query query = {.size = sizeof query,
                              .namespace_id = chain.space,
                              .tokens = chain.tokens,
                              .token_count = LENGTH * KV_TOKENS,
                              .keys = chain.keys,
                              .key_count = LENGTH};
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DISK], 1);
    query.tokens = NULL;
    query.token_count = 0;
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DISK], LENGTH);
    for (uint32_t i = 0; i < LENGTH; i++)
        kv_unref(rig, store_one(&chain, KVB_TIER_DEVICE, i));
    match_and_drop(&chain);
}

int main(void)
{
    static const struct CMUnitTest once[] = {
        TEST(disk_scene, test_clone_of_returned_block_is_refused_whether_or_not_it_was_matched),
        TEST(disk_scene,
             test_keyed_clone_of_returned_block_is_refused_whether_or_not_it_was_matched),
        TEST(disk_scene, test_clone_of_returned_block_has_names_once_it_is_registered_again),
        TEST(disk_scene, test_keyed_clone_of_returned_block_has_names_once_it_is_registered_again),
        TEST(disk_scene, test_clone_of_block_whose_content_was_forgotten_is_refused),
        TEST(disk_scene, test_returned_block_has_its_key_and_tokens),
        TEST(disk_scene, test_keyed_returned_block_is_not_taken_for_other_tokens),
        TEST(disk_scene, test_keyed_block_registered_before_its_parent_is_found_by_key_on_the_disk),
    };
    return run_disk_tests(NULL, 0, once, sizeof once / sizeof *once);
}
