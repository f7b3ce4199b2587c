/* SPDX-License-Identifier: Apache-2.0 */
/* Two lanes out of one tier. See two_ways.h. */
#include "support/two_ways.h"
#include "store/contents.h"
#include "transfer/memory/engine.h"
#include "transfer/memory/tier.h"

static const struct kvbi_route ways_routes[] = {{KVB_TIER_DEVICE, KVB_TIER_HOST},
                                                {KVB_TIER_DEVICE, KVB_TIER_REMOTE}};

static int ways_copy_fault(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                           uint32_t to_slot)
{
    const struct ways *w = context;
    (void)from_tier, (void)from_slot, (void)to_slot;
    return to_tier == w->fails_into ? KVB_EIO : 0;
}

void ways_lock(struct ways *w)
{
    kvbi_lock_take(&w->store.lock);
}

void ways_unlock(struct ways *w)
{
    kvbi_lock_release(&w->store.lock);
}

static const char *find_broken(struct ways *w)
{
    ways_lock(w);
    const char *store = kvbi_store_check_locked(&w->store);
    const char *lanes = kvbi_lanes_check_locked(&w->lanes);
    ways_unlock(w);
    return store != NULL ? store : lanes;
}

void ways_check(struct ways *w)
{
    const char *broken = find_broken(w);
    if (broken != NULL)
        fail_msg("invariant broken: %s", broken);
}

static void ways_create_store(struct ways *w)
{
    struct kvbi_store_config config = {.memory = &w->memory,
                                       .clock = &w->clock,
                                       .log = &w->log,
                                       .hash = kvbi_hash_select(KVBI_ISA_BASELINE),
                                       .digest_seed = 1,
                                       .tokens_per_block = WAYS_TOKENS,
                                       .duplicate = KVB_DUPLICATE_KEEP,
                                       .policy = kvbi_policy_find(NULL),
                                       .event_capacity = 1,
                                       .pin_capacity = 1,
                                       .namespace_capacity = 1};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        config.block_counts[tier] = tier == KVB_TIER_DISK ? 0 : WAYS_BLOCKS;
    assert_int_equal(kvbi_store_create(&w->store, &config), 0);
    w->pool = &w->store.pools[KVB_TIER_DEVICE];
}

static void ways_create_tiers(struct ways *w)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (tier != KVB_TIER_DISK)
            assert_int_equal(kvbi_tier_host_create(&w->tiers[tier], &w->memory, tier, WAYS_BLOCKS,
                                                   WAYS_BYTES, NULL),
                             0);
    for (uint32_t slot = 0; slot < WAYS_BLOCKS; slot++)
        memset(kvbi_tier_address(&w->tiers[KVB_TIER_DEVICE], slot), (int)slot + 1, WAYS_BYTES);
}

int ways_setup(void **state)
{
    *state = calloc(1, sizeof(struct ways));
    return *state != NULL ? 0 : -1;
}

struct ways *ways_open(void **state, uint32_t trigger, uint32_t ondeck_capacity)
{
    struct ways *w = *state;
    w->memory = failing_memory(&w->failing, INT64_MAX);
    w->fails_into = KVB_TIER_COUNT;
    w->hooks = (struct kvbi_hooks){.copy_fault = ways_copy_fault, .context = w};
    kvbi_clock_init(&w->clock, NULL);
    kvbi_log_init(&w->log, NULL);
    ways_create_store(w);
    ways_create_tiers(w);
    w->configs[KVB_TIER_DEVICE] = (struct kvb_tier_config){.trigger = trigger,
                                                           .ondeck_capacity = ondeck_capacity,
                                                           .batch = 4,
                                                           .depth = 2,
                                                           .queue_capacity = WAYS_BLOCKS};
    struct kvbi_lanes_config lanes = {.configs = w->configs,
                                      .tiers = w->tiers,
                                      .engines = &w->fences,
                                      .routes = ways_routes,
                                      .route_count = sizeof ways_routes / sizeof *ways_routes};
    assert_int_equal(kvbi_engine_memcpy_create(&w->engine, &w->memory, &w->clock, &w->fences.lines,
                                               64, &w->hooks),
                     0);
    assert_int_equal(kvbi_lanes_create(&w->lanes, &w->store, &lanes), 0);
    return w;
}

int ways_teardown(void **state)
{
    struct ways *w = *state;
    const char *broken = NULL;
    bool opened = w->engine != NULL && w->lanes.count > 0;
    if (opened)
        broken = find_broken(w);
    kvbi_lanes_destroy(&w->lanes);
    if (w->engine != NULL)
        w->engine->ops->destroy(w->engine);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        kvbi_tier_destroy(&w->tiers[tier]);
    kvbi_store_destroy(&w->store);
    bool leaked = w->failing.live_bytes != 0;
    if (broken != NULL || leaked)
        print_error("%s\n", broken != NULL ? broken : "memory was not given back");
    free(w);
    return broken != NULL || leaked ? -1 : 0;
}

struct kvbi_lane *ways_lane_into(struct ways *w, uint32_t tier)
{
    return w->lanes.out[KVB_TIER_DEVICE].lanes[tier == KVB_TIER_HOST ? 0 : 1];
}

const struct kvb_lane_stats *ways_stats(struct ways *w, uint32_t tier)
{
    return &ways_lane_into(w, tier)->book.stats;
}

enum kvbi_offer_stage ways_stage(struct ways *w, const struct kvb_block *block, uint32_t tier)
{
    const struct kvbi_lane *lane = ways_lane_into(w, tier);
    uint32_t id = kvbi_offers_find(lane->offers, block, lane->number);
    return id != KVBI_NONE ? kvbi_in_queue_at(&lane->queue, id)->stage : KVBI_OFFER_FREE;
}

void ways_expect_stages(struct ways *w, const struct kvb_block *block,
                        enum kvbi_offer_stage into_host, enum kvbi_offer_stage into_remote)
{
    assert_int_equal(ways_stage(w, block, KVB_TIER_HOST), into_host);
    assert_int_equal(ways_stage(w, block, KVB_TIER_REMOTE), into_remote);
    ways_check(w);
}

static void ways_complete(struct ways *w, struct kvb_block *block)
{
    struct kvbi_move move = {.tokens_per_block = WAYS_TOKENS, .count = WAYS_TOKENS}, none = {0};
    const struct kvbi_record_shape *shape = &w->store.records.shape;
    struct kvbi_record *record = kvbi_store_record(&w->store, block->record);
    *record = (struct kvbi_record){.flags = KVBI_RECORD_NAMES, .users = record->users};
    for (uint32_t i = 0; i < WAYS_TOKENS; i++)
        kvbi_record_tokens(shape, record)[i] = w->next_token++;
    assert_true(kvbi_record_name(&w->store.hash, kvbi_namespaces_name(&w->store.namespaces, 0),
                                 shape, record));
    assert_int_equal(kvbi_life_move(block, KVBI_EDGE_INIT, &none, NULL), 0);
    assert_int_equal(kvbi_life_move(block, KVBI_EDGE_APPEND, &move, NULL), 0);
    assert_int_equal(kvbi_life_move(block, KVBI_EDGE_SCHEDULE, &none, NULL), 0);
    assert_int_equal(kvbi_life_move(block, KVBI_EDGE_COMPUTE_DONE, &move, NULL), 0);
}

void ways_let_go(struct ways *w, struct kvb_block *block)
{
    struct kvbi_parking parking = {0};
    ways_lock(w);
    kvbi_lanes_unref_locked(&w->lanes, &parking, w->pool, block, 0);
    kvbi_lanes_parked_locked(&w->lanes, &parking);
    ways_unlock(w);
}

struct kvb_block *ways_alloc_one(struct ways *w)
{
    struct kvb_block *block;
    do {
        ways_lock(w);
        block = kvbi_lanes_take_locked(&w->lanes, w->pool, true, 0);
        ways_unlock(w);
    } while (block == NULL && w->pool->cut_short);
    return block;
}

void ways_alloc_all(struct ways *w)
{
    struct kvb_block *held[WAYS_BLOCKS];
    for (uint32_t i = 0; i < WAYS_BLOCKS; i++)
        assert_non_null(held[i] = ways_alloc_one(w));
    assert_null(ways_alloc_one(w));
    ways_check(w);
    for (uint32_t i = 0; i < WAYS_BLOCKS; i++)
        ways_let_go(w, held[i]);
}

struct kvb_block *ways_store_one(struct ways *w)
{
    struct kvb_block *block = ways_alloc_one(w);
    assert_non_null(block);
    ways_lock(w);
    ways_complete(w, block);
    assert_int_equal(kvbi_store_register_locked(&w->store, w->pool, &block, false, 0), 0);
    kvbi_lanes_registered_locked(&w->lanes, w->pool, block);
    ways_unlock(w);
    return block;
}

int ways_offer(struct ways *w, struct kvb_block *block)
{
    ways_lock(w);
    int error = kvbi_lanes_offer_locked(&w->lanes, w->pool, block, KVB_PRIORITY_DEFAULT, 0);
    ways_unlock(w);
    return error;
}

int ways_cancel(struct ways *w, struct kvb_block *block)
{
    ways_lock(w);
    int error = kvbi_lanes_cancel_locked(&w->lanes, w->pool, block);
    ways_unlock(w);
    return error;
}

void ways_forget(struct ways *w, const struct kvb_block *block)
{
    ways_lock(w);
    kvbi_store_forget_locked(&w->store, block->entry);
    ways_unlock(w);
}

bool ways_has_copy(struct ways *w, const struct kvb_block *block, uint32_t tier)
{
    const struct kvbi_entry *entry = kvbi_index_at(&w->store.index, block->entry);
    if (!(entry->ready >> tier & 1))
        return false;
    assert_memory_equal(
        kvbi_tier_address(&w->tiers[tier], entry->copies[tier]),
        kvbi_tier_address(&w->tiers[KVB_TIER_DEVICE], kvbi_pool_slot(w->pool, block)), WAYS_BYTES);
    return true;
}

void ways_take(struct ways *w, uint32_t tier, struct ways_batch *batch)
{
    uint32_t offers[KVBI_LOCK_BATCH];
    ways_lock(w);
    uint32_t taken = kvbi_lane_take_locked(ways_lane_into(w, tier), offers, KVBI_LOCK_BATCH, 0);
    batch->count = 0;
    for (uint32_t i = 0; i < taken; i++)
        batch->count += kvbi_lane_aim_locked(ways_lane_into(w, tier), offers[i],
                                             &batch->copies[batch->count], 0) == KVBI_AIM_COPY;
    ways_unlock(w);
    ways_check(w);
}

void ways_carry_out(struct ways *w, uint32_t tier, struct ways_batch *batch)
{
    struct kvbi_completion done[KVBI_LOCK_BATCH];
    bool more = false;
    assert_int_equal(w->engine->ops->submit(w->engine, batch->copies, batch->count, false), 0);
    uint32_t count = w->engine->ops->reap(w->engine, done, KVBI_LOCK_BATCH, UINT64_MAX, &more);
    assert_int_equal(count, batch->count);
    ways_lock(w);
    for (uint32_t i = 0; i < count; i++)
        (void)kvbi_lane_complete_locked(ways_lane_into(w, tier), (uint32_t)done[i].cookie,
                                        done[i].result, 0);
    ways_unlock(w);
    ways_check(w);
}

void ways_move_all(struct ways *w, uint32_t tier)
{
    struct ways_batch batch;
    do {
        ways_take(w, tier, &batch);
        ways_carry_out(w, tier, &batch);
    } while (batch.count > 0);
}
