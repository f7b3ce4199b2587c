/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Held blocks that are not in the index, or not any more: what the library says of them, with
 * built-in hashes and with the caller's keys alike.
 */
#include "support/kv_scene.h"

#define KEY_BYTES sizeof(struct kvb_seq) /* of the caller's keys too: one array holds either kind */

static _Alignas(struct kvb_seq) unsigned char keys[2][KEY_BYTES];
static uint32_t tokens[2 * KV_TOKENS];

static void open_rig(struct kv_rig *rig, uint32_t key_bytes)
{
    size_t count = 0;
    rig->config.key_bytes = key_bytes;
    kv_rig_open(rig);
    kv_tokens(tokens, 2 * KV_TOKENS, 1);
    for (uint32_t i = 0; i < 2; i++)
        memset(keys[i], 'a' + (int)i, KEY_BYTES);
    if (key_bytes == 0)
        kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, tokens, 2 * KV_TOKENS,
                              (struct kvb_seq *)(void *)keys, 2, &count));
}

static struct kvb_block *complete(struct kv_rig *rig, uint32_t i)
{
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, i, i == 0 ? NULL : keys[i - 1], tokens + i * KV_TOKENS);
    return block;
}

/* Registered, and not exchanged. */
static void publish(struct kv_rig *rig, struct kvb_block *block, uint32_t i, uint32_t flags)
{
    struct kvb_register options = {.size = sizeof options, .flags = flags, .keys = keys[i]};
    struct kvb_block *own = block;
    kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
    assert_ptr_equal(block, own);
    kv_check(rig);
}

static struct kvb_block *store(struct kv_rig *rig, uint32_t i)
{
    struct kvb_block *block = complete(rig, i);
    publish(rig, block, i, 0);
    return block;
}

/* Registered and held, whatever else. Named: its key and a clone can be had; else neither. */
static void expect_unindexed(struct kv_rig *rig, struct kvb_block *block, bool named)
{
    unsigned char key[KEY_BYTES];
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_REGISTERED);
    assert_int_equal(info.indexed, 0);
    kv_expect(kvb_block_key(rig->kv, block, key), named ? KVB_OK : KVB_ENOENT);
    struct kvb_block *clone = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_expect(kvb_block_clone(rig->kv, block, clone), named ? KVB_OK : KVB_ENOENT);
    kv_unref(rig, clone);
    kv_expect(kvb_block_offload(rig->kv, &block, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_register(rig->kv, &block, 1, NULL, NULL, NULL), KVB_ESTATE);
}

/* Its last unref frees it. */
static void expect_freed(struct kv_rig *rig, struct kvb_block *block)
{
    uint64_t free_count = kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count;
    kv_unref(rig, block);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, free_count + 1);
}

static uint64_t found_by_key(struct kv_rig *rig, uint32_t i)
{
    struct kvb_query query = {.size = sizeof query, .keys = keys[i], .key_count = 1};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    return tiers[KVB_TIER_DEVICE];
}

/* ---- With either kind of names --------------------------------------------------------------- */

static void forgotten(struct kv_rig *rig, uint32_t key_bytes, bool clear)
{
    open_rig(rig, key_bytes);
    struct kvb_block *block = store(rig, 0);
    if (clear)
        kv_ok(kvb_manager_clear(rig->kv));
    else
        kv_ok(kvb_invalidate(rig->kv, keys[0], 1, NULL));
    expect_unindexed(rig, block, false);
    expect_freed(rig, block);
    kv_rig_close(rig);
}

static void test_held_block_whose_content_was_forgotten_has_no_names(void **state)
{
    struct kv_rig *rig = *state;
    for (int clear = 0; clear < 2; clear++) {
        forgotten(rig, 0, clear);
        forgotten(rig, KEY_BYTES, clear);
    }
}

static void left_out(struct kv_rig *rig, uint32_t key_bytes, bool invalidate)
{
    open_rig(rig, key_bytes);
    struct kvb_block *block = store(rig, 0), *duplicate = store(rig, 0);
    if (invalidate)
        kv_ok(kvb_invalidate(rig->kv, keys[0], 1, NULL));
    expect_unindexed(rig, duplicate, true);
    expect_freed(rig, duplicate);
    kv_unref(rig, block);
    kv_rig_close(rig);
}

static void test_unindexed_duplicate_keeps_its_names(void **state)
{
    struct kv_rig *rig = *state;
    for (int invalidate = 0; invalidate < 2; invalidate++) {
        left_out(rig, 0, invalidate);
        left_out(rig, KEY_BYTES, invalidate);
    }
}

static void stale(struct kv_rig *rig, uint32_t key_bytes)
{
    open_rig(rig, key_bytes);
    struct kvb_block *block = complete(rig, 0);
    kv_ok(kvb_manager_clear(rig->kv));
    publish(rig, block, 0, 0);
    expect_unindexed(rig, block, true);
    expect_freed(rig, block);
    kv_rig_close(rig);
}

static void test_block_registered_after_its_name_was_forgotten_keeps_its_names(void **state)
{
    struct kv_rig *rig = *state;
    stale(rig, 0);
    stale(rig, KEY_BYTES);
}

/* ---- With the caller's keys ------------------------------------------------------------------ */

static const uint32_t flags_of[] = {KVB_REGISTER_KEEP, KVB_REGISTER_SHARE};

/*
 * What comes before the old one is not known: a new one behind its parent is indexed in its place,
 * held or not.
 */
static void test_keyed_block_without_parent_makes_way_for_one_behind_its_parent(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t i = 0; i < 2; i++) {
        open_rig(rig, KEY_BYTES);
        struct kvb_block *old = store(rig, 1), *parent = store(rig, 0), *fresh = complete(rig, 1);
        kv_poll(rig);
        size_t events = rig->events.count;
        publish(rig, fresh, 1, flags_of[i]);
        expect_unindexed(rig, old, false);
        assert_int_equal(kv_describe(rig, fresh).indexed, 1);
        assert_int_equal(found_by_key(rig, 1), 1);
        kv_poll(rig);
        assert_int_equal(rig->events.count, events + 2);
        assert_int_equal(rig->events.list[events].kind, KVB_EVENT_REMOVED);
        assert_int_equal(rig->events.list[events + 1].kind, KVB_EVENT_STORED);
        expect_freed(rig, old);
        kv_unref(rig, fresh);
        kv_unref(rig, parent);
        kv_rig_close(rig);
    }
}

/* What comes before the new one is not known: the old one stays, held or parked. */
static void new_one_without_parent(struct kv_rig *rig, uint32_t flags, bool parked)
{
    open_rig(rig, KEY_BYTES);
    struct kvb_block *parent = store(rig, 0), *old = store(rig, 1), *fresh = complete(rig, 1);
    kv_ok(kvb_invalidate(rig->kv, keys[0], 1, NULL));
    if (parked)
        kv_unref(rig, old);
    publish(rig, fresh, 1, flags);
    expect_unindexed(rig, fresh, true);
    assert_int_equal(found_by_key(rig, 1), 1);
    expect_freed(rig, fresh);
    if (!parked)
        kv_unref(rig, old);
    kv_unref(rig, parent);
    kv_rig_close(rig);
}

static void test_keyed_block_without_parent_takes_no_place(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t i = 0; i < 2; i++) {
        new_one_without_parent(rig, flags_of[i], false);
        new_one_without_parent(rig, flags_of[i], true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_held_block_whose_content_was_forgotten_has_no_names),
        TEST(kv_rig, test_unindexed_duplicate_keeps_its_names),
        TEST(kv_rig, test_block_registered_after_its_name_was_forgotten_keeps_its_names),
        TEST(kv_rig, test_keyed_block_without_parent_makes_way_for_one_behind_its_parent),
        TEST(kv_rig, test_keyed_block_without_parent_takes_no_place),
    };
    return cmocka_run_group_tests_name("names_unindexed", tests, NULL, NULL);
}
