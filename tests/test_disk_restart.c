/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk tier's file brings back when it is opened again, through the public interface: contents, their order, priorities,
 * namespaces, keys and events; what never comes back; and what happens to the file's geometry. test_disk_mismatch.c: files that are
 * refused or damaged.
 */
#include "support/disk_restart.h"

#include "api/manager.h"

/* ---- Contents ----------------------------------------------------------------------------------------------------- */

static void test_restart_finds_every_block_with_its_bytes(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    restart(scene);
    assert_int_equal(mv_in_tier(&scene->rig, &run, KVB_TIER_DISK), 20);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
}

static void test_restart_after_a_kill_finds_every_block_with_its_bytes(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    restart_killed(scene);
    assert_int_equal(mv_in_tier(&scene->rig, &run, KVB_TIER_DISK), 20);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
}

static void test_restart_without_host_finds_every_block_with_its_bytes(void **state)
{
    struct scene *scene = scene_new(*state, 0, DISK_BLOCKS);
    struct mv_run run;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 20);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
}

static void test_restart_with_the_other_engine_finds_every_block(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    stop(scene);
    disk_config(scene)->disk_engine = KVB_DISK_ENGINE_AUTO;
    if (scene->variant->engine == KVB_DISK_ENGINE_URING)
        disk_config(scene)->disk_engine = KVB_DISK_ENGINE_POSIX;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
}

static void test_restart_many_times_keeps_what_each_run_stored(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run runs[6];
    for (uint32_t i = 0; i < 6; i++) {
        store_on_disk(scene, &runs[i], i + 1, 5);
        if (i % 2 == 0)
            restart(scene);
        else
            restart_killed(scene);
    }
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(fetch(scene, &runs[i]), 5);
    scene_end(scene);
}

/* Padded slots, several I/Os a block: whatever the size, it is the file that knows. */
static void restart_with_chunks_of(void **state, uint64_t chunk_bytes)
{
    struct scene *scene = scene_new(*state, 8, 8);
    struct mv_run run;
    scene->rig.layout.chunk_bytes = chunk_bytes;
    scene->rig.tiers[0].block_count = 8;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 4);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 4);
    scene_end(scene);
}

static void test_restart_finds_padded_blocks(void **state)
{
    restart_with_chunks_of(state, 1040);
}

static void test_restart_finds_large_blocks(void **state)
{
    restart_with_chunks_of(state, 300u << 10);
}

static void test_restart_recovers_nothing_that_was_only_in_memory(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct mv_run run;
    scene->rig.tiers[0].trigger = KVB_OFFLOAD_MANUAL;
    scene_open(scene);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 5);
    restart(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
    scene_end(scene);
}

static void test_restart_counts_what_it_recovered(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 12);
    assert_int_equal(path_stats(scene, 0).recovered, 0);
    restart(scene);
    struct kvb_disk_stats stats = path_stats(scene, 0);
    assert_int_equal(stats.recovered, 12);
    assert_int_equal(stats.dropped, 0);
    assert_int_equal(stats.superseded, 0);
    assert_int_equal(stats.path_count, 1);
    assert_int_equal(stats.slot_count, DISK_BLOCKS);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].parked_count, 12);
    assert_true(kv_log_has(&scene->rig.log, scene->path));
    scene_end(scene);
}

/* Its slot was given up and its content written to another: the file tells of both. */
static void test_restart_takes_the_later_of_two_slots_with_one_content(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run runs[2], again;
    store_each(scene, runs, 1, 2);
    kv_ok(kvb_invalidate(scene->rig.kv, &runs[0].seqs[0], 1, NULL));
    kv_ok(kvb_invalidate(scene->rig.kv, &runs[1].seqs[0], 1, NULL));
    settle(scene);
    store_on_disk(scene, &again, 1000,
                  1); /* the same as runs[0], in the slot that was freed last: that of runs[1] */
    restart(scene);
    assert_int_equal(path_stats(scene, 0).superseded, 1);
    assert_int_equal(path_stats(scene, 0).recovered, 1);
    assert_int_equal(fetch(scene, &runs[0]), 1);
    assert_false(is_found(scene, &runs[1], 0));
    scene_end(scene);
}

/* What has been invalidated may be found again; if it is, it is what it was. */
static void test_restart_may_bring_back_what_was_invalidated_but_never_wrong(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 3);
    kv_ok(kvb_invalidate(scene->rig.kv, &run.seqs[1], 1, NULL));
    restart(scene);
    run.count = (uint32_t)mv_found(&scene->rig, &run);
    assert_true(run.count == 1 || run.count == 3);
    assert_int_equal(fetch(scene, &run), run.count);
    scene_end(scene);
}

/* More than KVB_DISK_ERRORS_MAX, side by side, and nothing else is read in between. */
static void test_blocks_that_a_kill_has_torn_are_misses_and_the_disk_stays_in_service(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run runs[KVB_DISK_ERRORS_MAX + 4], good;
    store_each(scene, runs, 1, KVB_DISK_ERRORS_MAX + 4);
    store_on_disk(scene, &good, 2, 3);
    stop_killed(scene);
    for (uint32_t slot = 0; slot < KVB_DISK_ERRORS_MAX + 4; slot++)
        flip_payload(scene, slot);
    scene_open(scene);
    for (uint32_t i = 0; i < KVB_DISK_ERRORS_MAX + 4; i++)
        assert_int_equal(fetch(scene, &runs[i]), 0);
    assert_int_equal(path_stats(scene, 0).read_errors_checksum, KVB_DISK_ERRORS_MAX + 4);
    assert_int_equal(path_stats(scene, 0).out_of_service, 0);
    assert_int_equal(fetch(scene, &good), 3);
    scene_end(scene);
}

/* ---- Order -------------------------------------------------------------------------------------------------------- */

#define FEW 8

/* A disk of FEW blocks, full, on which the first three have been used last. */
static struct scene *scene_with_used(void **state, struct mv_run *runs)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, FEW);
    scene_open(scene);
    store_each(scene, runs, 1, FEW);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(fetch(scene, &runs[i]), 1);
    return scene;
}

static void test_restart_evicts_the_longest_unused_first(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct scene *scene = scene_with_used(state, runs);
    restart(scene);
    store_each(scene, more, 2, 3);
    for (uint32_t i = 0; i < FEW; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i < 3 || i >= 6);
    scene_end(scene);
}

/* Uses are written down at a clean close only: after a kill the order is that of the writes. */
static void test_restart_after_a_kill_evicts_the_longest_written_first(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct scene *scene = scene_with_used(state, runs);
    restart_killed(scene);
    store_each(scene, more, 2, 3);
    for (uint32_t i = 0; i < FEW; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i >= 3);
    scene_end(scene);
}

static void test_restart_after_a_restart_keeps_the_order(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct scene *scene = scene_with_used(state, runs);
    restart(scene);
    restart(scene);
    store_each(scene, more, 2, 3);
    for (uint32_t i = 0; i < FEW; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i < 3 || i >= 6);
    scene_end(scene);
}

static void test_blocks_stored_after_a_restart_are_younger_than_recovered_ones(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct scene *scene = scene_new(*state, HOST_BLOCKS, FEW);
    scene_open(scene);
    store_each(scene, runs, 1, FEW - 3);
    restart(scene);
    store_each(scene, more, 2, 3);
    restart_killed(scene);
    store_each(scene, runs + FEW - 3, 3, 3);
    assert_int_equal(count_found(scene, more, 3), 3);
    assert_int_equal(count_found(scene, runs, 3), 0);
    scene_end(scene);
}

/* One chain, written block by block, fills the disk; it is its tail that another block pushes out. */
static void evict_the_tail_after(void **state, void (*again)(struct scene *))
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, FEW);
    struct mv_run run, more;
    scene->rig.tiers[1].batch = scene->rig.tiers[1].depth = 1;
    scene_open(scene);
    store_on_disk(scene, &run, 1, FEW);
    again(scene);
    store_on_disk(scene, &more, 2, 1);
    assert_int_equal(mv_found(&scene->rig, &run), FEW - 1);
    scene_end(scene);
}

static void test_restart_evicts_tails_before_heads(void **state)
{
    evict_the_tail_after(state, restart);
}

static void test_restart_after_a_kill_evicts_tails_before_heads(void **state)
{
    evict_the_tail_after(state, restart_killed);
}

/* Children are put below their parents only where nothing is known of their use. */
static void test_restart_keeps_a_child_that_was_used_after_its_parent(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, FEW);
    struct mv_run run, runs[FEW - 2], more;
    struct kvb_hit hit;
    size_t count = 0;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 2);
    store_each(scene, runs, 2, FEW - 2);
    struct kvb_query child = {.size = sizeof child, .keys = &run.seqs[1], .key_count = 1};
    kv_ok(kvb_match(scene->rig.kv, &child, &hit, 1, &count));
    kv_ok(kvb_block_unref(scene->rig.kv, &hit.block, 1, NULL));
    restart(scene);
    store_on_disk(scene, &more, 3, 1);
    assert_false(is_found(scene, &run, 0));
    assert_true(is_found(scene, &run, 1));
    scene_end(scene);
}

static void test_restart_takes_what_was_pinned_at_the_end_for_used_last(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, FEW);
    struct mv_run runs[FEW], more;
    struct kvb_hit hits[MV_RUN_MAX];
    scene_open(scene);
    store_each(scene, runs, 1, FEW);
    assert_int_equal(hold(scene, &runs[0], hits), 1);
    kv_ok(kvb_pin(scene->rig.kv, 5, runs[0].blocks, 1, 0, NULL));
    mv_drop(&scene->rig, &runs[0]);
    restart(scene);
    store_on_disk(scene, &more, 2, 1);
    assert_true(is_found(scene, &runs[0], 0));
    assert_false(is_found(scene, &runs[1], 0));
    scene_end(scene);
}

/* Registered with a priority of its own, and on the disk only. */
static void store_with_priority(struct scene *scene, struct mv_run *run, uint64_t seed,
                                uint32_t priority)
{
    struct kv_rig *rig = &scene->rig;
    mv_name(rig, run, seed, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, run->blocks, NULL));
    mv_compute(rig, run, 0);
    kv_ok(kvb_block_set_priority(rig->kv, run->blocks, 1, priority, 0, NULL));
    kv_ok(kvb_block_register(rig->kv, run->blocks, 1, NULL, NULL, NULL));
    mv_drop(rig, run);
    settle(scene);
    evict_above(scene);
    assert_int_equal(mv_in_tier(rig, run, KVB_TIER_DISK), 1);
}

static void evict_by_priority_after(void **state, void (*again)(struct scene *))
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, FEW);
    struct mv_run high, runs[FEW - 1], more[FEW - 1];
    struct kvb_hit hits[MV_RUN_MAX];
    scene_open(scene);
    store_with_priority(scene, &high, 77, 90);
    store_each(scene, runs, 1, FEW - 1);
    again(scene);
    store_each(scene, more, 2, FEW - 1);
    assert_int_equal(count_found(scene, runs, FEW - 1), 0);
    assert_int_equal(hold(scene, &high, hits), 1);
    assert_int_equal(kv_describe(&scene->rig, hits[0].block).priority, 90);
    mv_drop(&scene->rig, &high);
    scene_end(scene);
}

static void test_restart_keeps_priorities(void **state)
{
    evict_by_priority_after(state, restart);
}

static void test_restart_after_a_kill_keeps_priorities(void **state)
{
    evict_by_priority_after(state, restart_killed);
}

/* ---- Names -------------------------------------------------------------------------------------------------------- */

#define TENANT_BLOCKS 4

static uint32_t open_tenant(struct scene *scene, const char *salt)
{
    uint32_t id = UINT32_MAX;
    kv_ok(kvb_namespace_open(scene->rig.kv, salt, strlen(salt), "lora", 4, &id));
    return id;
}

/* The same tokens in each tenant's namespace, each with other bytes: a payload follows from its sequence hash. */
static void store_of_tenant(struct scene *scene, const char *salt, const uint32_t *tokens)
{
    struct kvb_block *blocks[TENANT_BLOCKS];
    kv_store_run(&scene->rig, KVB_TIER_DEVICE, open_tenant(scene, salt), tokens, TENANT_BLOCKS,
                 blocks);
    kv_ok(kvb_block_unref(scene->rig.kv, blocks, TENANT_BLOCKS, NULL));
    settle(scene);
    evict_above(scene);
}

static uint64_t found_of(struct scene *scene, uint32_t id, const uint32_t *tokens)
{
    return kv_run_length(&scene->rig, id, tokens, (size_t)TENANT_BLOCKS * KV_TOKENS);
}

static void test_restart_finds_blocks_in_their_namespace_only(void **state)
{
    struct scene *scene = scene_begin(state);
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS];
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    store_of_tenant(scene, "tenant a", tokens);
    restart(scene);
    uint32_t b = open_tenant(scene, "tenant b"), a = open_tenant(scene, "tenant a");
    assert_int_equal(found_of(scene, a, tokens), TENANT_BLOCKS);
    assert_int_equal(found_of(scene, b, tokens), 0);
    assert_int_equal(found_of(scene, 0, tokens), 0);
    scene_end(scene);
}

static void test_restart_gives_each_namespace_its_own_bytes(void **state)
{
    static const char *const tenants[] = {"tenant a", "tenant b", "tenant c"};
    struct scene *scene = scene_begin(state);
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
    scene_end(scene);
}

/* Opened before anybody asked for it, and stored to again: it is the same namespace. */
static void test_namespace_opened_after_a_restart_goes_on(void **state)
{
    struct scene *scene = scene_begin(state);
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
    scene_end(scene);
}

static void test_restart_drops_namespaces_that_find_no_room(void **state)
{
    struct scene *scene = scene_begin(state);
    uint32_t tokens[TENANT_BLOCKS * KV_TOKENS];
    kv_tokens(tokens, TENANT_BLOCKS * KV_TOKENS, 1);
    store_of_tenant(scene, "tenant a", tokens);
    store_of_tenant(scene, "tenant b", tokens);
    store_of_tenant(scene, "tenant c", tokens);
    stop(scene);
    scene->rig.config.namespace_capacity =
        2; /* so many that nobody has opened, and as many that somebody has */
    scene_open(scene);
    assert_int_equal(path_stats(scene, 0).recovered, 2 * TENANT_BLOCKS);
    assert_int_equal(path_stats(scene, 0).dropped, TENANT_BLOCKS);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].parked_count, 2 * TENANT_BLOCKS);
    scene_end(scene);
}

static void test_restart_leaves_room_for_new_namespaces(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
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
    scene_end(scene);
}

#define KEY_BYTES 24

static void key_of(unsigned char key[KEY_BYTES], uint64_t number)
{
    for (uint32_t i = 0; i < KEY_BYTES; i++)
        key[i] = (unsigned char)kv_mix(number * 100 + i);
}

static void store_keyed(struct scene *scene, uint32_t count)
{
    struct kv_rig *rig = &scene->rig;
    unsigned char parent[KEY_BYTES], key[KEY_BYTES];
    uint32_t tokens[KV_TOKENS];
    for (uint32_t i = 0; i < count; i++) {
        struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
        struct kvb_register options = {.size = sizeof options, .keys = key};
        kv_tokens(tokens, KV_TOKENS, i + 1);
        kv_init(rig, block, 0, i, i == 0 ? NULL : parent);
        kv_append(rig, block, tokens, KV_TOKENS, 0);
        kv_schedule(rig, block);
        kv_payload_fill(rig, block, i);
        kv_done(rig, block, KV_TOKENS);
        key_of(key, i);
        kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
        kv_unref(rig, block);
        memcpy(parent, key, sizeof key);
    }
    settle(scene);
    evict_above(scene);
}

/* Content `seed` under the key of this number, on the disk only. */
static void store_under_key(struct scene *scene, uint64_t number, uint64_t seed)
{
    struct kv_rig *rig = &scene->rig;
    unsigned char key[KEY_BYTES];
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = key};
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_payload_fill(rig, block, seed);
    kv_done(rig, block, KV_TOKENS);
    key_of(key, number);
    kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
    kv_unref(rig, block);
    settle(scene);
    evict_above(scene);
}

/* What is found under the key is content `seed`. */
static void expect_under_key(struct scene *scene, uint64_t number, uint64_t seed)
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

static void invalidate_keys(struct scene *scene, uint32_t count)
{
    unsigned char keys[4][KEY_BYTES];
    for (uint32_t i = 0; i < count; i++)
        key_of(keys[i], i);
    kv_ok(kvb_invalidate(scene->rig.kv, keys, count, NULL));
    settle(scene);
}

/* Of two contents that a key has had, the file holds both: the earlier one in the lower slot, or in the upper one. */
static void change_content_of_a_key(void **state, uint64_t changed)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
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
    scene_end(scene);
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
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
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
    scene_end(scene);
}

/* The event of a recovered block shows its whole key, and its parent's. */
static void test_restart_announces_the_callers_keys(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    unsigned char key[KEY_BYTES], parent[KEY_BYTES];
    uint32_t right = 0;
    scene->rig.config.key_bytes = KEY_BYTES;
    scene_open(scene);
    store_keyed(scene, 2);
    restart(scene);
    settle(scene);
    key_of(parent, 0);
    key_of(key, 1);
    for (size_t i = 0; i < scene->rig.events.count; i++) {
        const struct kv_event_record *record = &scene->rig.events.list[i];
        right += record->kind == KVB_EVENT_STORED && memcmp(record->key, key, KEY_BYTES) == 0 &&
                 record->has_parent && memcmp(record->parent, parent, KEY_BYTES) == 0;
    }
    assert_int_equal(right, 1);
    scene_end(scene);
}

/* ---- Other content with the same hash ----------------------------------------------------------------------------- */

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
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
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
    scene_end(scene);
}

static void test_recovered_block_is_found_by_names_and_tokens_together(void **state)
{
    struct scene *scene = scene_begin(state);
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
    scene_end(scene);
}

/* Names were made with the seed of the file: a configuration without one gets it from there. */
static void test_digest_seed_of_the_file_is_used_where_none_is_configured(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct mv_run run;
    scene->rig.config.digest_seed = 0;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 4);
    restart(scene);
    struct mv_run again;
    mv_name(&scene->rig, &again, 1, 4);
    assert_memory_equal(again.seqs, run.seqs, 4 * sizeof *run.seqs);
    assert_int_equal(fetch(scene, &again), 4);
    scene_end(scene);
}

/* ---- Events ------------------------------------------------------------------------------------------------------- */

static void test_restart_announces_every_recovered_block(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    uint32_t announced = 0;
    store_on_disk(scene, &run, 1, 10);
    restart(scene);
    settle(scene);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 10);
    for (uint32_t i = 0; i < 10; i++)
        for (size_t nth = 0; nth < 10; nth++)
            announced +=
                mv_event(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK, nth) == run.seqs[i].hash;
    assert_int_equal(announced, 10);
    scene_end(scene);
}

static int count_stored(void *arg, const struct kvb_event *event)
{
    *(uint32_t *)arg += event->kind == KVB_EVENT_STORED && event->tier == KVB_TIER_DISK;
    return 0;
}

static void test_restart_with_a_small_ring_says_lost_and_a_walk_gives_all(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    uint32_t walked = 0, lost = 0;
    store_on_disk(scene, &run, 1, 10);
    stop(scene);
    scene->rig.config.event_capacity = 4;
    scene_open(scene);
    settle(scene);
    for (size_t i = 0; i < scene->rig.events.count; i++)
        if (scene->rig.events.list[i].kind == KVB_EVENT_LOST)
            lost += scene->rig.events.list[i].lost_count;
    assert_int_equal(lost + mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 10);
    assert_true(lost > 0);
    kv_ok(kvb_index_walk(scene->rig.kv, count_stored, &walked));
    assert_int_equal(walked, 10);
    scene_end(scene);
}

/* ---- Clear -------------------------------------------------------------------------------------------------------- */

static void clear_and(void **state, void (*again)(struct scene *))
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    again(scene);
    for (uint32_t i = 0; i < 10; i++)
        assert_false(is_found(scene, &run, i));
    assert_int_equal(path_stats(scene, 0).recovered, 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
    scene_end(scene);
}

static void test_cleared_blocks_do_not_come_back_after_a_restart(void **state)
{
    clear_and(state, restart);
}

static void test_cleared_blocks_do_not_come_back_after_a_kill(void **state)
{
    clear_and(state, restart_killed);
}

static void test_blocks_stored_after_a_clear_come_back_alone(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run before, after;
    store_on_disk(scene, &before, 1, 10);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    store_on_disk(scene, &after, 2, 4);
    restart_killed(scene);
    assert_int_equal(mv_found(&scene->rig, &before), 0);
    assert_int_equal(fetch(scene, &after), 4);
    scene_end(scene);
}

static void test_epoch_counts_clears_over_restarts(void **state)
{
    struct scene *scene = scene_begin(state);
    uint64_t epoch = path_stats(scene, 0).epoch;
    for (uint64_t i = 1; i <= 3; i++) {
        kv_ok(kvb_manager_clear(scene->rig.kv));
        kv_ok(kvb_manager_clear(scene->rig.kv));
        assert_int_equal(path_stats(scene, 0).epoch, epoch + 2 * i);
        restart(scene);
        assert_int_equal(path_stats(scene, 0).epoch, epoch + 2 * i);
    }
    scene_end(scene);
}

/* Its write had begun before the clear and ended after it. */
static void test_block_under_way_during_a_clear_does_not_come_back(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    hold_io(&scene->io, true);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    wait_for_held_io(&scene->io);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    hold_io(&scene->io, false);
    restart_killed(scene);
    assert_false(is_found(scene, &run, 0));
    scene_end(scene);
}

/* ---- Geometry ----------------------------------------------------------------------------------------------------- */

static void test_file_of_more_blocks_keeps_all(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    stop(scene);
    disk_config(scene)->block_count = 3 * DISK_BLOCKS;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 20);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
}

static void test_file_of_fewer_blocks_keeps_what_fits(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run runs[20];
    store_each(scene, runs, 1, 20);
    stop(scene);
    disk_config(scene)->block_count = 8;
    scene_open(scene);
    assert_int_equal(count_found(scene, runs, 20), 8);
    for (uint32_t i = 0; i < 20; i++)
        if (is_found(scene, &runs[i], 0))
            assert_int_equal(fetch(scene, &runs[i]), 1);
    struct stat status;
    assert_int_equal(stat(scene->path, &status), 0);
    assert_true((uint64_t)status.st_size < KVBI_DISK_DATA_OFFSET + DISK_BLOCKS * KVBI_DISK_ALIGN);
    scene_end(scene);
}

struct files {
    char names[3][140];
    const char *paths[3];
};

static void set_paths(struct scene *scene, struct files *files, uint32_t count)
{
    struct kvb_tier_config *disk = disk_config(scene);
    for (uint32_t i = 0; i < 3; i++) {
        (void)snprintf(files->names[i], sizeof files->names[i], "%s.%u", scene->path, i);
        files->paths[i] = files->names[i];
    }
    disk->path = NULL;
    disk->paths = files->paths;
    disk->path_count = count;
}

static void remove_paths(const struct files *files)
{
    for (uint32_t i = 0; i < 3; i++)
        (void)unlink(files->names[i]);
}

static void test_restart_over_three_files_finds_every_block(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct files files;
    struct mv_run run;
    set_paths(scene, &files, 3);
    scene_open(scene);
    store_on_disk(scene, &run, 1, 20);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(path_stats(scene, i).bytes_written > 0);
    restart(scene);
    assert_int_equal(path_stats(scene, 0).recovered + path_stats(scene, 1).recovered +
                         path_stats(scene, 2).recovered,
                     20);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
    remove_paths(&files);
}

static void test_path_that_is_left_out_takes_its_blocks_along_and_brings_them_back(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct files files;
    struct mv_run runs[20];
    uint32_t without = 0;
    set_paths(scene, &files, 2);
    scene_open(scene);
    store_each(scene, runs, 1, 20);
    stop(scene);
    disk_config(scene)->path_count = 1;
    scene_open(scene);
    without = count_found(scene, runs, 20);
    assert_int_equal(without, path_stats(scene, 0).recovered);
    assert_true(without > 0 && without < 20);
    for (uint32_t i = 0; i < 20; i++)
        if (is_found(scene, &runs[i], 0))
            assert_int_equal(fetch(scene, &runs[i]), 1);
    stop(scene);
    disk_config(scene)->path_count = 2;
    scene_open(scene);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(fetch(scene, &runs[i]), 1);
    scene_end(scene);
    remove_paths(&files);
}

static void test_path_that_is_added_costs_nothing_that_fits(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct files files;
    struct mv_run run;
    set_paths(scene, &files, 2);
    scene_open(scene);
    store_on_disk(scene, &run, 1, 20);
    stop(scene);
    disk_config(scene)->path_count = 3;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
    remove_paths(&files);
}

/* ---- Fork --------------------------------------------------------------------------------------------------------- */

/* What a child of the server may accidentally do, the end of which closes all that it inherited. */
_Noreturn static void misuse_in_child(struct scene *scene)
{
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_disk_stats path = {.size = sizeof path};
    struct kvb_block *block = NULL;
    bool refused = kvb_manager_stats(scene->rig.kv, &stats) == KVB_EFORK &&
                   kvb_disk_stats(scene->rig.kv, 0, &path) == KVB_EFORK &&
                   kvb_disk_put_back(scene->rig.kv, 0) == KVB_EFORK &&
                   kvb_manager_clear(scene->rig.kv) == KVB_EFORK &&
                   kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL) == KVB_EFORK &&
                   kvb_manager_poll(scene->rig.kv, KVB_FOREVER) == KVB_EFORK &&
                   kvb_manager_flush(scene->rig.kv, 0) == KVB_EFORK &&
                   kvb_manager_destroy(scene->rig.kv) == KVB_EFORK;
    _exit(refused ? 0 : 1);
}

static void test_child_of_a_fork_is_refused_and_the_parents_transfers_complete(void **state)
{
    struct scene *scene = scene_begin(state);
    struct mv_run run, more;
    int status = 0;
    store_on_disk(scene, &run, 1, 20);
    struct kvb_op *op = bring_up(scene, &run, KVB_TIER_DEVICE, NULL, 0);
    if (scene->variant->progress == KVB_PROGRESS_POLL)
        assert_true(kvb_manager_poll(scene->rig.kv, 0) >= 0); /* reads are under way */
    pid_t child = fork();
    if (child == 0)
        misuse_in_child(scene);
    assert_int_equal(finish(scene, &run, op), 20);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    store_on_disk(scene, &more, 2, 20);
    assert_int_equal(fetch(scene, &more), 20);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 20);
    scene_end(scene);
}

/* A clear holds its lock while it writes to the disk. */
static void test_statistics_of_a_path_do_not_wait_for_a_clear(void **state)
{
    struct scene *scene = scene_begin(state);
    struct kvbi_lock *clear = &scene->rig.kv->store.clear_lock;
    kv_ok(kvb_manager_clear(scene->rig.kv));
    kvbi_lock_take(clear);
    assert_int_equal(path_stats(scene, 0).epoch, 1);
    kvbi_lock_release(clear);
    scene_end(scene);
}

/* ------------------------------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct disk_test each[] = {
        DISK_TEST(test_restart_finds_every_block_with_its_bytes),
        DISK_TEST(test_restart_after_a_kill_finds_every_block_with_its_bytes),
        DISK_TEST(test_restart_without_host_finds_every_block_with_its_bytes),
        DISK_TEST(test_restart_with_the_other_engine_finds_every_block),
        DISK_TEST(test_restart_many_times_keeps_what_each_run_stored),
        DISK_TEST(test_restart_finds_padded_blocks),
        DISK_TEST(test_restart_finds_large_blocks),
        DISK_TEST(test_restart_recovers_nothing_that_was_only_in_memory),
        DISK_TEST(test_restart_takes_the_later_of_two_slots_with_one_content),
        DISK_TEST(test_restart_may_bring_back_what_was_invalidated_but_never_wrong),
        DISK_TEST(test_blocks_that_a_kill_has_torn_are_misses_and_the_disk_stays_in_service),
        DISK_TEST(test_restart_evicts_the_longest_unused_first),
        DISK_TEST(test_restart_after_a_kill_evicts_the_longest_written_first),
        DISK_TEST(test_restart_announces_every_recovered_block),
        DISK_TEST(test_restart_with_a_small_ring_says_lost_and_a_walk_gives_all),
        DISK_TEST(test_cleared_blocks_do_not_come_back_after_a_restart),
        DISK_TEST(test_cleared_blocks_do_not_come_back_after_a_kill),
        DISK_TEST(test_blocks_stored_after_a_clear_come_back_alone),
        DISK_TEST(test_restart_over_three_files_finds_every_block),
        DISK_TEST(test_child_of_a_fork_is_refused_and_the_parents_transfers_complete),
    };
    static const struct disk_test once[] = {
        DISK_TEST(test_restart_counts_what_it_recovered),
        DISK_TEST(test_restart_after_a_restart_keeps_the_order),
        DISK_TEST(test_blocks_stored_after_a_restart_are_younger_than_recovered_ones),
        DISK_TEST(test_restart_evicts_tails_before_heads),
        DISK_TEST(test_restart_after_a_kill_evicts_tails_before_heads),
        DISK_TEST(test_restart_keeps_a_child_that_was_used_after_its_parent),
        DISK_TEST(test_restart_takes_what_was_pinned_at_the_end_for_used_last),
        DISK_TEST(test_restart_keeps_priorities),
        DISK_TEST(test_restart_after_a_kill_keeps_priorities),
        DISK_TEST(test_restart_finds_blocks_in_their_namespace_only),
        DISK_TEST(test_restart_gives_each_namespace_its_own_bytes),
        DISK_TEST(test_namespace_opened_after_a_restart_goes_on),
        DISK_TEST(test_restart_drops_namespaces_that_find_no_room),
        DISK_TEST(test_restart_leaves_room_for_new_namespaces),
        DISK_TEST(test_restart_finds_the_callers_keys),
        DISK_TEST(test_restart_takes_the_later_content_of_a_key),
        DISK_TEST(test_restart_takes_the_content_that_was_written_over_an_earlier_one),
        DISK_TEST(test_restart_announces_the_callers_keys),
        DISK_TEST(test_recovered_block_is_not_served_for_other_tokens_of_its_hash),
        DISK_TEST(test_recovered_block_is_found_by_names_and_tokens_together),
        DISK_TEST(test_digest_seed_of_the_file_is_used_where_none_is_configured),
        DISK_TEST(test_epoch_counts_clears_over_restarts),
        DISK_TEST(test_block_under_way_during_a_clear_does_not_come_back),
        DISK_TEST(test_file_of_more_blocks_keeps_all),
        DISK_TEST(test_file_of_fewer_blocks_keeps_what_fits),
        DISK_TEST(test_path_that_is_left_out_takes_its_blocks_along_and_brings_them_back),
        DISK_TEST(test_path_that_is_added_costs_nothing_that_fits),
        DISK_TEST(test_statistics_of_a_path_do_not_wait_for_a_clear),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
