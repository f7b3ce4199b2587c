/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adapter's instance: configuration, what is injected, progress, statistics. The other half is
 * adapter.c.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_inside.h"
#include "api/testing.h"
#include "transfer/kind.h"

/* ---- What is injected ------------------------------------------------------------------------ */

static void *count_alloc(void *context, size_t bytes, size_t alignment)
{
    struct kv *kv = context;
    size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, rounded > 0 ? rounded : alignment);
    if (memory != NULL)
        kv->balance += (int64_t)bytes;
    return memory;
}

static void count_free(void *context, void *memory, size_t bytes)
{
    struct kv *kv = context;
    kv->balance -= (int64_t)bytes;
    free(memory);
}

static uint64_t read_clock(void *context)
{
    const struct kv *kv = context;
    return kv->setup.now(kv->setup.context);
}

static void pass_log(void *context, int level, int code, const char *message)
{
    const struct kv *kv = context;
    (void)level;
    (void)code;
    if (kv->setup.on_log != NULL)
        kv->setup.on_log(kv->setup.context, message);
}

struct event kv_event_of(const struct kv *kv, const struct kvb_event *given)
{
    struct event event = {.kind = (enum event_kind)given->kind,
                          .sequence = given->sequence,
                          .tier = given->tier,
                          .namespace_id = given->namespace_id,
                          .lost_count = given->lost_count,
                          .has_parent = given->parent_key != NULL,
                          .tokens = given->tokens};
    if (given->key != NULL)
        memcpy(event.name.bytes, given->key, kv->name_bytes);
    if (given->parent_key != NULL)
        memcpy(event.parent.bytes, given->parent_key, kv->name_bytes);
    return event;
}

static void pass_event(void *context, const struct kvb_event *given)
{
    struct kv *kv = context;
    struct event event = kv_event_of(kv, given);
    kv->setup.on_event(kv->setup.context, &event);
}

static int pass_admission(void *context, const struct kvb_admission_request *request)
{
    struct kv *kv = context;
    struct name name = {{0}};
    memcpy(name.bytes, request->key, kv->name_bytes);
    return kv->setup.admit(kv->setup.context, request->from_tier, request->to_tier, &name);
}

/* ---- Life of an instance --------------------------------------------------------------------- */

static uint32_t tiers_of(const struct kv_setup *setup, struct kvb_tier_config tiers[TIERS])
{
    uint32_t count = 0;
    for (uint32_t t = 0; t < TIERS; t++) {
        const struct kv_tier *from = &setup->tiers[t];
        if (from->blocks == 0)
            continue;
        tiers[count++] = (struct kvb_tier_config){.size = sizeof *tiers,
                                                  .tier = t,
                                                  .block_count = from->blocks,
                                                  .trigger = from->trigger,
                                                  .ondeck_capacity = from->ondeck,
                                                  .batch = from->batch,
                                                  .depth = from->depth,
                                                  .queue_capacity = from->queue,
                                                  .write_bytes_per_second = from->bytes_per_second,
                                                  .path = from->path};
    }
    return count;
}

int kv_open(const struct kv_setup *setup, struct kv **out, char why[256])
{
    struct kvb_tier_config tiers[TIERS];
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kv *kv = calloc(1, sizeof *kv);
    *out = NULL;
    if (kv == NULL)
        return KVB_ENOMEM;
    kv->setup = *setup;
    kv->name_bytes = setup->key_bytes > 0 ? setup->key_bytes : sizeof(struct kvb_seq);
    for (uint32_t t = 0; t < TIERS; t++)
        kv->files |= setup->tiers[t].path != NULL;
    struct kvb_layout layout = {.size = sizeof layout,
                                .layers = setup->layers,
                                .parts = setup->parts,
                                .chunk_bytes = setup->chunk_bytes};
    struct kvb_config config = {
        .size = sizeof config,
        .tokens_per_block = setup->tokens_per_block,
        .layout = &layout,
        .tiers = tiers,
        .tier_count = tiers_of(setup, tiers),
        .key_bytes = setup->key_bytes,
        .progress = setup->threads ? KVB_PROGRESS_THREAD : KVB_PROGRESS_POLL,
        .duplicate = setup->share ? KVB_DUPLICATE_SHARE : KVB_DUPLICATE_KEEP,
        .event_capacity = setup->event_capacity,
        .pin_capacity = setup->pin_capacity,
        .op_capacity = setup->op_capacity,
        .digest_seed = 4711,
        .allocator = {count_alloc, count_free, kv},
        .clock = {read_clock, kv},
        .logger = {pass_log, kv},
        .sink = {pass_event, kv}};
    if (setup->now == NULL)
        config.clock = (struct kvb_clock){0};
    if (setup->admit != NULL)
        config.admission = (struct kvb_admission){pass_admission, kv};
    for (uint32_t t = 0; t < TIERS; t++) /* without a file it is memory: a door for tests */
        kv->hooks.kinds[t] = setup->tiers[t].path == NULL ? &kvbi_kind_memory : NULL;
    int error = kvbi_manager_create_hooked(&config, &kv->hooks, &kv->manager, &diagnosis);
    memcpy(why, diagnosis.message, sizeof diagnosis.message);
    if (error != 0)
        free(kv);
    else
        *out = kv;
    return error;
}

int kv_close(struct kv *kv, int64_t *leaked_bytes)
{
    int error = kvb_manager_destroy(kv->manager);
    *leaked_bytes = error == 0 ? kv->balance : 0;
    if (error == 0)
        free(kv);
    return error;
}

int kv_poll_once(struct kv *kv)
{
    return kvb_manager_poll(kv->manager, 0);
}

/*
 * Files answer when they like: while copies are with an engine their end is waited for, so that a
 * seed replays alike. But not for long where a copy may wait for a fence.
 */
static bool wait_for_files(struct kv *kv)
{
    struct kvb_stats stats = {.size = sizeof stats};
    uint64_t flying = 0;
    if (!kv->files || kvb_manager_stats(kv->manager, &stats) != 0)
        return false;
    for (uint32_t i = 0; i < stats.lane_count; i++)
        flying += stats.lanes[i].inflight;
    struct pollfd ready = {.fd = kvb_manager_event_fd(kv->manager), .events = POLLIN};
    bool all_reached = kv->fence_given <= kv->fence_reached;
    return flying > 0 && poll(&ready, 1, all_reached ? 10000 : 10) > 0;
}

int kv_poll(struct kv *kv)
{
    int more;
    do {
        more = kvb_manager_poll(kv->manager, UINT64_C(1000000000));
    } while (more > 0 || (more == 0 && wait_for_files(kv)));
    return more;
}

int kv_flush(struct kv *kv)
{
    return kvb_manager_flush(kv->manager, KVB_FOREVER);
}

int kv_clear(struct kv *kv)
{
    return kvb_manager_clear(kv->manager);
}

int kv_signal(struct kv *kv, uint64_t value)
{
    if (value > kv->fence_reached)
        kv->fence_reached = value;
    int code = 0;
    for (uint32_t line = 0; line < kv->setup.lines && code == 0; line++)
        code = kvb_fence_signal(kv->manager, line, value);
    return code;
}

void kv_look_at_clock(struct kv *kv)
{
    uint64_t timeout_ns;
    (void)!kvb_manager_next_timeout(kv->manager, &timeout_ns);
}

void kv_facts(struct kv *kv, struct facts *facts)
{
    struct kvb_stats stats = {.size = sizeof stats};
    memset(facts, 0, sizeof *facts);
    if (kvb_manager_stats(kv->manager, &stats) != 0)
        return;
    for (uint32_t t = 0; t < TIERS; t++) {
        const struct kvb_tier_stats *tier = &stats.tiers[t];
        facts->tiers[t].blocks = tier->block_count;
        facts->tiers[t].free = tier->free_count;
        facts->tiers[t].held = tier->held_count;
        facts->tiers[t].parked = tier->parked_count;
        facts->tiers[t].retired = tier->retired_count;
        facts->tiers[t].transfer = tier->transfer_count;
        facts->tiers[t].available = tier->available_count;
        facts->tiers[t].evicted = tier->evicted;
        facts->tiers[t].registered = tier->registered;
        facts->tiers[t].duplicates = tier->duplicates;
        facts->tiers[t].collisions = tier->collisions;
    }
    facts->lane_count = stats.lane_count;
    for (uint32_t i = 0; i < stats.lane_count; i++) {
        const struct kvb_lane_stats *lane = &stats.lanes[i];
        facts->lanes[i] = (struct lane_facts){
            lane->from_tier, lane->to_tier, lane->offered, lane->transferred, lane->skipped,
            lane->discarded, lane->shed,    lane->failed,  lane->cancelled,   lane->pending,
            lane->queued,    lane->ondeck,  lane->inflight};
    }
    facts->index_entries = stats.index_entries;
    facts->pins = stats.pins;
    facts->pins_expired = stats.pins_expired;
    facts->events_lost = stats.events_lost;
}

int kv_check_tables(struct kv *kv, char *why, size_t bytes)
{
    return kvbi_manager_check(kv->manager, why, bytes);
}
