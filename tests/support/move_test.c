/* SPDX-License-Identifier: Apache-2.0 */
/* See move_test.h. */
#include "support/move_test.h"

/* ---- Copies ------------------------------------------------------------------------------------------------------- */

int mv_copy_fault(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                  uint32_t to_slot)
{
    struct mv_copies *copies = context;
    uint32_t number = atomic_fetch_add(&copies->count, 1) + 1;
    uint32_t fail_at = atomic_load(&copies->fail_at);
    if (number <= MV_COPY_MAX) {
        copies->list[number - 1] = (struct mv_copy){from_tier, from_slot, to_tier, to_slot};
    }
    return fail_at != 0 &&
                   (number == fail_at || (number > fail_at && atomic_load(&copies->fail_onwards)))
               ? atomic_load(&copies->code)
               : 0;
}

void mv_fail(struct mv_copies *copies, uint32_t nth, bool onwards)
{
    atomic_store(&copies->code, KVB_EIO);
    atomic_store(&copies->fail_onwards, onwards);
    atomic_store(&copies->fail_at, atomic_load(&copies->count) + nth);
}

void mv_heal(struct mv_copies *copies)
{
    atomic_store(&copies->fail_at, 0);
}

void mv_open(struct kv_rig *rig, struct mv_copies *copies)
{
    memset(copies, 0, sizeof *copies);
    copies->hooks = (struct kvbi_hooks){.copy_fault = mv_copy_fault, .context = copies};
    kv_rig_open_hooked(rig, &copies->hooks);
}

void mv_two_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                  uint32_t trigger)
{
    kv_rig_init(rig);
    kv_rig_no_tiers(rig);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, device_blocks, trigger);
    kv_rig_add_tier(rig, KVB_TIER_HOST, host_blocks, KVB_OFFLOAD_MANUAL);
}

void mv_three_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                    uint32_t disk_blocks)
{
    mv_two_tiers(rig, device_blocks, host_blocks, KVB_OFFLOAD_MANUAL);
    kv_rig_add_tier(rig, KVB_TIER_DISK, disk_blocks, KVB_OFFLOAD_MANUAL);
}

void mv_bounds(struct kv_rig *rig, uint32_t tier_index, uint32_t ondeck, uint32_t batch,
               uint32_t depth, uint32_t queue)
{
    struct kvb_tier_config *tier = &rig->tiers[tier_index];
    tier->ondeck_capacity = ondeck;
    tier->batch = batch;
    tier->depth = depth;
    tier->queue_capacity = queue;
}

/* ---- Contents ----------------------------------------------------------------------------------------------------- */

void mv_name(struct kv_rig *rig, struct mv_run *run, uint64_t seed, uint32_t count)
{
    size_t named = 0;
    memset(run, 0, sizeof *run);
    run->count = count;
    kv_tokens(run->tokens, (size_t)count * KV_TOKENS, seed);
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, run->tokens, (size_t)count * KV_TOKENS, run->seqs,
                          MV_RUN_MAX, &named));
    assert_int_equal(named, count);
}

void mv_compute(struct kv_rig *rig, struct mv_run *run, uint32_t from)
{
    for (uint32_t i = from; i < run->count; i++) {
        kv_init(rig, run->blocks[i], 0, i, i == 0 ? NULL : &run->seqs[i - 1]);
        kv_append(rig, run->blocks[i], run->tokens + (size_t)i * KV_TOKENS, KV_TOKENS, 0);
        kv_schedule(rig, run->blocks[i]);
        kv_payload_fill(rig, run->blocks[i], run->seqs[i].hash);
        kv_done(rig, run->blocks[i], KV_TOKENS);
    }
}

void mv_store_after(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                    uint32_t count, uint64_t fence_value)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    mv_name(rig, run, seed, count);
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, run->blocks, NULL));
    mv_compute(rig, run, 0);
    kv_ok(kvb_block_register(rig->kv, run->blocks, count, NULL, fence_value == 0 ? NULL : &fence,
                             NULL));
    kv_check(rig);
}

void mv_store(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count)
{
    mv_store_after(rig, run, tier, seed, count, 0);
}

void mv_drop(struct kv_rig *rig, struct mv_run *run)
{
    kv_ok(kvb_block_unref(rig->kv, run->blocks, run->count, NULL));
    memset(run->blocks, 0, sizeof run->blocks);
    kv_check(rig);
}

void mv_park(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count)
{
    mv_store(rig, run, tier, seed, count);
    mv_drop(rig, run);
}

void mv_store_each(struct kv_rig *rig, struct mv_run *runs, uint32_t tier, uint64_t seed,
                   uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        mv_store(rig, &runs[i], tier, seed * 1000 + i, 1);
    }
}

void mv_offer(struct kv_rig *rig, struct kvb_block *block, uint32_t priority)
{
    kv_ok(kvb_block_offload(rig->kv, &block, 1, priority, NULL, NULL));
    kv_check(rig);
}

bool mv_bytes_are(struct kv_rig *rig, struct kvb_block *block, const struct kvb_seq *seq)
{
    return kv_payload_is(rig, block, seq->hash);
}

uint64_t mv_in_tier(struct kv_rig *rig, const struct mv_run *run, uint32_t tier)
{
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    uint64_t tiers[KVB_TIER_COUNT] = {0};
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    return tiers[tier];
}

uint64_t mv_found(struct kv_rig *rig, const struct mv_run *run)
{
    return kv_run_length(rig, 0, run->tokens, (size_t)run->count * KV_TOKENS);
}

uint32_t mv_match(struct kv_rig *rig, struct mv_run *run)
{
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    struct kvb_hit hits[MV_RUN_MAX];
    size_t count = 0;
    memset(run->blocks, 0, sizeof run->blocks);
    kv_ok(kvb_match(rig->kv, &query, hits, MV_RUN_MAX, &count));
    for (size_t i = 0; i < count; i++) {
        run->blocks[i] = hits[i].block;
        assert_true(mv_bytes_are(rig, hits[i].block, &run->seqs[i]));
    }
    return (uint32_t)count;
}

void mv_expect_in(struct kv_rig *rig, struct mv_run *run, uint32_t tier)
{
    assert_int_equal(mv_in_tier(rig, run, tier), run->count);
    assert_int_equal(mv_match(rig, run), run->count);
    kv_ok(kvb_block_unref(rig->kv, run->blocks, run->count, NULL));
    memset(run->blocks, 0, sizeof run->blocks);
    kv_check(rig);
}

void mv_evict_all(struct kv_rig *rig, uint32_t tier)
{
    struct kvb_block *blocks[256];
    uint32_t count = (uint32_t)kv_stats(rig).tiers[tier].available_count;
    assert_true(count <= 256);
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL));
    for (uint32_t i = 0; i < count; i++) {
        kv_payload_fill(rig, blocks[i], UINT64_C(0xdead));
    }
    kv_ok(kvb_block_unref(rig->kv, blocks, count, NULL));
    kv_check(rig);
}

/* ---- Events ------------------------------------------------------------------------------------------------------- */

uint64_t mv_event(const struct kv_rig *rig, uint32_t kind, uint32_t tier, size_t nth)
{
    size_t kept = rig->events.count < KV_EVENT_MAX ? rig->events.count : KV_EVENT_MAX;
    for (size_t i = 0; i < kept; i++) {
        const struct kv_event_record *record = &rig->events.list[i];
        if (record->kind == kind && record->tier == tier && nth-- == 0) {
            struct kvb_seq seq;
            memcpy(&seq, record->key, sizeof seq);
            return seq.hash;
        }
    }
    return 0;
}

size_t mv_event_count(const struct kv_rig *rig, uint32_t kind, uint32_t tier)
{
    size_t count = 0;
    while (mv_event(rig, kind, tier, count) != 0) {
        count++;
    }
    return count;
}

/* ---- Lanes -------------------------------------------------------------------------------------------------------- */

struct kvb_lane_stats mv_lane(struct kv_rig *rig, uint32_t from, uint32_t to)
{
    struct kvb_stats stats = kv_stats(rig);
    for (uint32_t i = 0; i < stats.lane_count; i++) {
        if (stats.lanes[i].from_tier == from && stats.lanes[i].to_tier == to) {
            return stats.lanes[i];
        }
    }
    print_error("there is no lane from tier %u to %u\n", from, to);
    fail();
    return (struct kvb_lane_stats){0};
}

void mv_expect_books(struct kv_rig *rig, bool idle)
{
    struct kvb_stats stats = kv_stats(rig);
    for (uint32_t i = 0; i < stats.lane_count; i++) {
        const struct kvb_lane_stats *lane = &stats.lanes[i];
        assert_int_equal(lane->offered, lane->transferred + lane->skipped + lane->discarded +
                                            lane->shed + lane->failed + lane->cancelled +
                                            lane->pending);
        assert_int_equal(lane->pending, lane->queued + lane->ondeck + lane->inflight);
        assert_int_equal(lane->skipped, lane->skipped_present + lane->skipped_no_target +
                                            lane->skipped_admission + lane->skipped_out_of_service);
        assert_int_equal(lane->failed, lane->failed_transfer + lane->failed_invalidated);
        if (idle) {
            assert_int_equal(lane->pending, 0);
        }
    }
}

/* ---- Operations --------------------------------------------------------------------------------------------------- */

void mv_done_record(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct mv_done *done = arg;
    done->op = op;
    done->status = status;
    done->good_count = good_count;
    atomic_fetch_add(&done->calls, 1);
}

struct kvb_onboard mv_request(struct kvb_block *const *sources, struct kvb_block *const *targets,
                              uint32_t count, struct mv_done *done)
{
    if (done != NULL) {
        memset(done, 0, sizeof *done);
    }
    return (struct kvb_onboard){.size = sizeof(struct kvb_onboard),
                                .sources = sources,
                                .targets = targets,
                                .count = count,
                                .done = done == NULL ? NULL : mv_done_record,
                                .arg = done};
}

struct kvb_op *mv_bring_up(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                           struct mv_done *done)
{
    struct kvb_block *targets[MV_RUN_MAX];
    struct kvb_op *op = NULL;
    assert_int_equal(mv_match(rig, run), run->count);
    kv_ok(kvb_alloc(rig->kv, tier, run->count, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    assert_non_null(op);
    kv_check(rig);
    mv_drop(rig, run);
    return op;
}

uint32_t mv_take(struct kv_rig *rig, struct mv_run *run, struct kvb_op *op)
{
    uint32_t good = UINT32_MAX;
    kv_ok(kvb_op_take(rig->kv, op, run->blocks, run->count, &good));
    kv_check(rig);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_check(rig);
    for (uint32_t i = 0; i < good; i++) {
        assert_int_equal(kv_describe(rig, run->blocks[i]).state, KVB_STATE_REGISTERED);
        assert_true(mv_bytes_are(rig, run->blocks[i], &run->seqs[i]));
    }
    for (uint32_t i = good; i < run->count; i++) {
        if (run->blocks[i] != NULL) {
            assert_int_equal(kv_describe(rig, run->blocks[i]).state, KVB_STATE_EMPTY);
        }
    }
    return good;
}

void mv_drop_taken(struct kv_rig *rig, struct mv_run *run)
{
    for (uint32_t i = run->count; i-- > 0;) {
        if (run->blocks[i] != NULL) {
            kv_unref(rig, run->blocks[i]);
        }
    }
    memset(run->blocks, 0, sizeof run->blocks);
    kv_check(rig);
}

void mv_signal(struct kv_rig *rig, uint64_t value)
{
    kv_ok(kvb_fence_signal(rig->kv, value));
    kv_check(rig);
}
