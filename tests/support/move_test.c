/* SPDX-License-Identifier: Apache-2.0 */
/* See move_test.h. */
#include "support/move_test.h"

/* ---- Rigs ------------------------------------------------------------------------------------ */

void mv_two_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                  uint32_t trigger)
{
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

void mv_open_two(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks, uint32_t trigger)
{
    mv_two_tiers(rig, device_blocks, host_blocks, trigger);
    kv_rig_open(rig);
}

void mv_open_three(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                   uint32_t disk_blocks)
{
    mv_three_tiers(rig, device_blocks, host_blocks, disk_blocks);
    kv_rig_open(rig);
}

void mv_open_narrow(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks)
{
    mv_two_tiers(rig, device_blocks, host_blocks, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    kv_rig_open(rig);
}

void mv_open_recorded(struct kv_rig *rig)
{
    const struct kvbi_hooks hooks = {.copy_fault = mv_copy_fault, .context = &rig->copies};
    memset(&rig->copies, 0, sizeof rig->copies);
    kv_rig_open_hooked(rig, &hooks);
}

static int slow_copy(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                     uint32_t to_slot)
{
    (void)from_tier, (void)from_slot, (void)to_tier, (void)to_slot;
    kv_advance(context, 10 * KV_MS);
    return 0;
}

void mv_open_slow(struct kv_rig *rig)
{
    const struct kvbi_hooks slow = {.copy_fault = slow_copy, .context = rig};
    kv_rig_open_hooked(rig, &slow);
}

/* ---- Contents -------------------------------------------------------------------------------- */

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

void mv_store_beside(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                     uint32_t count, uint64_t fence_value)
{
    struct kvb_fence fence = mv_fence(fence_value);
    mv_name(rig, run, seed, count);
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, run->blocks, NULL));
    mv_compute(rig, run, 0);
    kv_ok(kvb_block_register(rig->kv, run->blocks, count, NULL, fence_value == 0 ? NULL : &fence,
                             NULL));
}

void mv_store_after(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                    uint32_t count, uint64_t fence_value)
{
    mv_store_beside(rig, run, tier, seed, count, fence_value);
    kv_check(rig);
}

void mv_store(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count)
{
    mv_store_after(rig, run, tier, seed, count, 0);
}

void mv_drop_beside(struct kv_rig *rig, const struct mv_run *run)
{
    kv_ok(kvb_block_unref(rig->kv, run->blocks, run->count, NULL));
}

void mv_drop(struct kv_rig *rig, struct mv_run *run)
{
    mv_drop_beside(rig, run);
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
    for (uint32_t i = 0; i < count; i++)
        mv_store(rig, &runs[i], tier, seed * 1000 + i, 1);
}

void mv_drop_each(struct kv_rig *rig, struct mv_run *runs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        mv_drop(rig, &runs[i]);
}

void mv_offer(struct kv_rig *rig, struct kvb_block *block, uint32_t priority)
{
    kv_ok(kvb_block_offload(rig->kv, &block, 1, priority, NULL, NULL));
    kv_check(rig);
}

void mv_offer_each(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t priority)
{
    for (uint32_t i = 0; i < count; i++)
        mv_offer(rig, runs[i].blocks[0], priority);
}

void mv_offer_after(struct kv_rig *rig, struct mv_run *runs, uint64_t seed, uint32_t count,
                    uint64_t fence_value, uint32_t priority)
{
    for (uint32_t i = 0; i < count; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, seed * 1000 + i, 1, fence_value);
        mv_offer(rig, runs[i].blocks[0], priority);
    }
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

void mv_expect_each_in(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t tier)
{
    for (uint32_t i = 0; i < count; i++)
        mv_expect_in(rig, &runs[i], tier);
}

void mv_alloc_many(struct kv_rig *rig, uint32_t tier, uint32_t count, struct kvb_block **blocks)
{
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL));
}

struct kvb_block *mv_alloc_after(struct kv_rig *rig, uint32_t tier, uint64_t fence_value)
{
    struct kvb_fence fence = mv_fence(fence_value);
    struct kvb_block *block = NULL;
    kv_ok(kvb_alloc(rig->kv, tier, 1, &fence, &block, NULL));
    return block;
}

void mv_evict_all(struct kv_rig *rig, uint32_t tier)
{
    struct kvb_block *blocks[256];
    uint32_t count = (uint32_t)kv_stats(rig).tiers[tier].available_count;
    assert_true(count <= 256);
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL));
    for (uint32_t i = 0; i < count; i++)
        kv_payload_fill(rig, blocks[i], UINT64_C(0xdead));
    kv_ok(kvb_block_unref(rig->kv, blocks, count, NULL));
    kv_check(rig);
}

/* ---- Events ---------------------------------------------------------------------------------- */

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
    while (mv_event(rig, kind, tier, count) != 0)
        count++;
    return count;
}

/* ---- Lanes ----------------------------------------------------------------------------------- */

struct kvb_lane_stats mv_lane(struct kv_rig *rig, uint32_t from, uint32_t to)
{
    struct kvb_stats stats = kv_stats(rig);
    for (uint32_t i = 0; i < stats.lane_count; i++)
        if (stats.lanes[i].from_tier == from && stats.lanes[i].to_tier == to)
            return stats.lanes[i];
    print_error("there is no lane from tier %u to %u\n", from, to);
    fail();
    return (struct kvb_lane_stats){0};
}

struct kvb_lane_stats mv_down(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST);
}

struct kvb_lane_stats mv_up(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_HOST, KVB_TIER_DEVICE);
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
        if (idle)
            assert_int_equal(lane->pending, 0);
    }
}

/* ---- Operations ------------------------------------------------------------------------------ */

void mv_done_record(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct mv_done *done = arg;
    done->op = op;
    done->status = status;
    done->good_count = good_count;
    atomic_fetch_add(&done->calls, 1);
}

void mv_expect_done(const struct mv_done *done, int status, uint32_t good_count)
{
    assert_int_equal(done->calls, 1);
    assert_int_equal(done->status, status);
    assert_int_equal(done->good_count, good_count);
}

void mv_done_signal(void *wait, struct kvb_op *op, int status, uint32_t good_count)
{
    (void)op, (void)status, (void)good_count;
    kv_wait_signal(wait);
}

struct kvb_onboard mv_request(struct kvb_block *const *sources, struct kvb_block *const *targets,
                              uint32_t count, struct mv_done *done)
{
    if (done != NULL)
        memset(done, 0, sizeof *done);
    return (struct kvb_onboard){.size = sizeof(struct kvb_onboard),
                                .sources = sources,
                                .targets = targets,
                                .count = count,
                                .done = done == NULL ? NULL : mv_done_record,
                                .arg = done};
}

struct kvb_op *mv_onboard(struct kv_rig *rig, const struct kvb_onboard *request)
{
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig->kv, request, &op));
    assert_non_null(op);
    return op;
}

/* The run has been matched. */
static struct kvb_op *bring(struct kv_rig *rig, struct mv_run *run, const struct kvb_onboard *way)
{
    struct kvb_op *op = mv_onboard(rig, way);
    kv_check(rig);
    mv_drop(rig, run);
    return op;
}

struct kvb_op *mv_bring_into(struct kv_rig *rig, struct mv_run *run,
                             struct kvb_block *const *targets, struct mv_done *done)
{
    assert_int_equal(mv_match(rig, run), run->count);
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    return bring(rig, run, &request);
}

struct kvb_op *mv_bring_up(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                           struct mv_done *done)
{
    struct kvb_block *targets[MV_RUN_MAX];
    assert_int_equal(mv_match(rig, run), run->count);
    mv_alloc_many(rig, tier, run->count, targets);
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    return bring(rig, run, &request);
}

struct kvb_op *mv_bring_with_priority(struct kv_rig *rig, struct mv_run *run,
                                      struct kvb_block *target, uint32_t priority,
                                      struct mv_done *done)
{
    assert_int_equal(run->count, 1);
    assert_int_equal(mv_match(rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, &target, 1, done);
    request.flags = KVB_ONBOARD_PRIORITY;
    request.priority = priority;
    return bring(rig, run, &request);
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
    for (uint32_t i = good; i < run->count; i++)
        if (run->blocks[i] != NULL)
            assert_int_equal(kv_describe(rig, run->blocks[i]).state, KVB_STATE_EMPTY);
    return good;
}

void mv_drop_taken(struct kv_rig *rig, struct mv_run *run)
{
    for (uint32_t i = run->count; i-- > 0;)
        if (run->blocks[i] != NULL)
            kv_unref(rig, run->blocks[i]);
    memset(run->blocks, 0, sizeof run->blocks);
    kv_check(rig);
}

void mv_end(struct kv_rig *rig, struct mv_run *run, struct kvb_op *op, uint32_t good_count)
{
    assert_int_equal(mv_take(rig, run, op), good_count);
    mv_drop_taken(rig, run);
}

struct kvb_op *mv_bring_beside(struct kv_rig *rig, const struct mv_run *run, uint32_t tier,
                               uint64_t fence_value, uint64_t timeout_ns, struct mv_done *done)
{
    struct kvb_fence fence = mv_fence(fence_value);
    struct kvb_block *targets[MV_RUN_MAX];
    kv_ok(kvb_alloc(rig->kv, tier, run->count, &fence, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    request.timeout_ns = timeout_ns;
    return mv_onboard(rig, &request);
}

void mv_cancel_in_transfer(struct kv_rig *rig, struct mv_run *run, struct kvb_block *target)
{
    struct mv_done done;
    struct kvb_op *op = mv_bring_into(rig, run, &target, &done);
    mv_step(rig);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(mv_take(rig, run, op), 0);
    assert_non_null(run->blocks[0]);
    assert_ptr_not_equal(run->blocks[0], target);
}

/* ---- Progress -------------------------------------------------------------------------------- */

struct kvb_fence mv_fence(uint64_t value)
{
    return (struct kvb_fence){.kind = KVB_FENCE_COUNTER, .handle = value};
}

void mv_signal(struct kv_rig *rig, uint64_t value)
{
    kv_ok(kvb_fence_signal(rig->kv, 0, value));
    kv_check(rig);
}
