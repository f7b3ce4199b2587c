/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store at random, step by step against a naive model. test_store_threads.c: by many threads at
 * once.
 */
#include "support/kv_picture.h"
#include "support/store_scene.h"

/*
 * Contents form trees of depth 3 in two namespaces. A request matches a path, allocates and
 * computes what is missing, registers, and lets go later. The model is arrays and loops; it knows
 * from the header who is evicted when.
 */
enum {
    SLOTS = 12,
    SPACES = 2,
    ROOTS = 3,
    DEPTH = 3,
    NODES = ROOTS * (1 + 2 + 4),
    CONTENTS = SPACES * NODES
};
enum { REQUESTS = 4, WEAKS = 32, STEPS = 3000 };

struct model_slot {
    int content; /* -1: none */
    bool registered, indexed;
    uint32_t held;
    uint32_t priority;
    uint64_t deadline; /* of the priority; 0: none */
    uint64_t used_at, used_order;
    uint64_t life; /* which content's life this is; grows when one ends */
};

struct model_request {
    uint32_t count;
    struct kvb_block *blocks[DEPTH];
    uint32_t slots[DEPTH];
};

struct model_weak {
    struct kvb_weak weak;
    uint32_t slot;
    uint64_t life;
};

struct model {
    struct kv_rig rig; /* comes first: *state is a rig as well */
    struct picture picture;
    uint64_t seed, order, deadlines;
    uint32_t spaces[SPACES];
    uint32_t tokens[NODES][KV_TOKENS];
    struct kvb_seq names[CONTENTS];
    struct model_slot slots[SLOTS];
    int where[CONTENTS]; /* slot of the indexed copy, -1: not stored */
    struct model_request requests[REQUESTS];
    struct model_weak weaks[WEAKS];
    uint32_t weak_count;
    int failed_allocs, evictions, duplicates, upgrades;
};

static bool model_parked(const struct model_slot *slot)
{
    return slot->held == 0 && slot->indexed;
}

static void model_free(struct model_slot *slot)
{
    *slot = (struct model_slot){
        .content = -1, .priority = KVB_PRIORITY_DEFAULT, .life = slot->life + 1};
}

static void model_park(struct model *model, struct model_slot *slot)
{
    slot->used_at = model->rig.clock.now_ns;
    slot->used_order = model->order++;
}

static void model_expire(struct model *model)
{
    for (uint32_t s = 0; s < SLOTS; s++) {
        struct model_slot *slot = &model->slots[s];
        if (slot->deadline == 0 || slot->deadline > model->rig.clock.now_ns)
            continue;
        slot->priority = KVB_PRIORITY_DEFAULT;
        if (model_parked(slot))
            slot->used_at = slot->deadline;
        slot->deadline = 0;
    }
}

static void model_unref(struct model *model, uint32_t s)
{
    struct model_slot *slot = &model->slots[s];
    if (--slot->held > 0)
        return;
    if (slot->indexed)
        model_park(model, slot);
    else
        model_free(slot);
}

static void model_unref_array(struct model *model, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = count; i-- > 0;)
        model_unref(model, slots[i]);
}

static void model_forget(struct model *model, int content)
{
    struct model_slot *slot = &model->slots[model->where[content]];
    model->where[content] = -1;
    slot->indexed = false;
    if (slot->held == 0)
        model_free(slot);
}

/* Lowest priority, then least recently used. */
static void model_evict(struct model *model)
{
    struct model_slot *victim = NULL;
    for (uint32_t s = 0; s < SLOTS; s++) {
        struct model_slot *slot = &model->slots[s];
        if (!model_parked(slot))
            continue;
        if (victim == NULL || slot->priority < victim->priority ||
            (slot->priority == victim->priority &&
             (slot->used_at < victim->used_at ||
              (slot->used_at == victim->used_at && slot->used_order < victim->used_order))))
            victim = slot;
    }
    assert_non_null(victim);
    model->where[victim->content] = -1;
    model_free(victim);
    model->evictions++;
}

static bool model_alloc(struct model *model, uint32_t count, struct kvb_block **blocks,
                        uint32_t *slots)
{
    uint32_t available = 0, free_slots = 0, missing = 99;
    for (uint32_t s = 0; s < SLOTS; s++) {
        available += model->slots[s].held == 0;
        free_slots += model->slots[s].held == 0 && !model_parked(&model->slots[s]);
    }
    int code = kvb_alloc(model->rig.kv, KVB_TIER_DEVICE, count, NULL, blocks, &missing);
    if (count > available) {
        kv_expect(code, KVB_ENOSPC);
        assert_int_equal(missing, count - available);
        model->failed_allocs++;
        return false;
    }
    kv_expect(code, 0);
    for (; free_slots < count; free_slots++)
        model_evict(model);
    for (uint32_t i = 0; i < count; i++) {
        slots[i] = kvb_block_slot(model->rig.kv, blocks[i]);
        assert_in_range(slots[i], 0, SLOTS - 1);
        struct model_slot *slot = &model->slots[slots[i]];
        assert_true(slot->held == 0 && !model_parked(slot));
        slot->held = 1;
    }
    return true;
}

/*
 * The duplicate takes the place of a copy that nobody holds, with the priority that copy had; else
 * it stays unindexed.
 */
static void model_register(struct model *model, uint32_t s, int content)
{
    struct model_slot *slot = &model->slots[s];
    slot->content = content;
    slot->registered = true;
    if (model->where[content] >= 0) {
        struct model_slot *old = &model->slots[model->where[content]];
        model->duplicates++;
        if (old->held > 0)
            return;
        slot->priority = old->priority;
        slot->deadline = old->deadline;
        model_forget(model, content);
    }
    slot->indexed = true;
    model->where[content] = (int)s;
}

/* Nodes of a tree in breadth-first order: root r, its children 2r + ROOTS ..., and theirs. */
static void random_path(struct model *model, uint32_t *space, int contents[DEPTH],
                        uint32_t tokens[DEPTH * KV_TOKENS])
{
    *space = kv_random(&model->seed, SPACES);
    uint32_t node = kv_random(&model->seed, ROOTS), first = 0, width = ROOTS;
    for (uint32_t depth = 0; depth < DEPTH; depth++) {
        uint32_t index = first + node;
        contents[depth] = (int)(*space * NODES + index);
        memcpy(tokens + (size_t)depth * KV_TOKENS, model->tokens[index],
               sizeof model->tokens[index]);
        first += width;
        width *= 2;
        node = node * 2 + kv_random(&model->seed, 2);
    }
}

static void model_name_all(struct model *model)
{
    for (uint32_t n = 0; n < NODES; n++)
        kv_tokens(model->tokens[n], KV_TOKENS, 1000 + n);
    for (uint32_t space = 0; space < SPACES; space++)
        for (uint32_t n = 0; n < NODES; n++) {
            uint32_t parent = n < ROOTS       ? 0
                              : n < 3 * ROOTS ? (n - ROOTS) / 2
                                              : ROOTS + (n - 3 * ROOTS) / 2;
            size_t count = 0;
            kv_ok(kvb_hash_tokens(model->rig.kv, model->spaces[space],
                                  n < ROOTS ? NULL : &model->names[space * NODES + parent],
                                  model->tokens[n], KV_TOKENS, &model->names[space * NODES + n], 1,
                                  &count));
        }
}

static void model_remember_weak(struct model *model, struct kvb_block *block, uint32_t s)
{
    struct model_weak *weak = &model->weaks[kv_random(&model->seed, WEAKS)];
    kv_ok(kvb_block_weak(model->rig.kv, block, &weak->weak));
    weak->slot = s;
    weak->life = model->slots[s].life;
}

static void step_request(struct model *model, struct model_request *request)
{
    uint32_t space, tokens[DEPTH * KV_TOKENS];
    int contents[DEPTH];
    random_path(model, &space, contents, tokens);
    uint32_t ns = model->spaces[space], hits = 0;
    if (kv_random(&model->seed, 4) != 0) { /* else it computes all again, to make duplicates */
        struct kvb_hit found[DEPTH];
        size_t count = 0;
        struct kvb_query query = kv_query(ns, tokens, DEPTH * KV_TOKENS);
        kv_ok(kvb_match(model->rig.kv, &query, found, DEPTH, &count));
        while (hits < DEPTH && model->where[contents[hits]] >= 0)
            hits++;
        assert_int_equal(count, hits);
        for (uint32_t i = 0; i < hits; i++) {
            assert_int_equal(found[i].slot, model->where[contents[i]]);
            request->blocks[i] = found[i].block;
            request->slots[i] = found[i].slot;
            model->slots[found[i].slot].held++;
        }
    }
    request->count = hits;
    if (!model_alloc(model, DEPTH - hits, request->blocks + hits, request->slots + hits)) {
        kv_ok(kvb_block_unref(model->rig.kv, request->blocks, hits, NULL));
        model_unref_array(model, request->slots, hits);
        request->count = 0;
        return;
    }
    request->count = DEPTH;
    for (uint32_t i = hits; i < DEPTH; i++) {
        struct kvb_block *block = request->blocks[i];
        kv_complete(&model->rig, block, ns, i, i == 0 ? NULL : &model->names[contents[i - 1]],
                    tokens + (size_t)i * KV_TOKENS);
        kv_payload_fill(&model->rig, block, model->names[contents[i]].hash);
        kv_register(&model->rig, block);
        model_register(model, request->slots[i], contents[i]);
        assert_int_equal(kv_describe(&model->rig, block).indexed,
                         model->slots[request->slots[i]].indexed);
        model_remember_weak(model, block, request->slots[i]);
    }
    for (uint32_t i = 0; i < DEPTH; i++)
        assert_true(kv_payload_is(&model->rig, request->blocks[i], model->names[contents[i]].hash));
}

static void step_let_go(struct model *model, struct model_request *request)
{
    kv_ok(kvb_block_unref(model->rig.kv, request->blocks, request->count, NULL));
    model_unref_array(model, request->slots, request->count);
    request->count = 0;
}

static void step_priority(struct model *model, struct model_request *request)
{
    uint32_t i = kv_random(&model->seed, DEPTH), priority = kv_random(&model->seed, 101);
    uint64_t duration = 0;
    /* no two deadlines are equal, for nothing says which of them goes first */
    if (kv_random(&model->seed, 2) != 0)
        duration = 1000 * (uint64_t)kv_random(&model->seed, 40) + 1 + model->deadlines++ % 999;
    if (i >= request->count)
        return;
    kv_ok(kvb_block_set_priority(model->rig.kv, &request->blocks[i], 1, priority, duration, NULL));
    model->slots[request->slots[i]].priority = priority;
    model->slots[request->slots[i]].deadline =
        duration == 0 ? 0 : model->rig.clock.now_ns + duration;
}

static void step_invalidate(struct model *model)
{
    int content = (int)kv_random(&model->seed, CONTENTS);
    bool stored = model->where[content] >= 0;
    kv_expect(kvb_invalidate(model->rig.kv, &model->names[content], 1, NULL),
              stored ? 0 : KVB_ENOENT);
    if (stored)
        model_forget(model, content);
}

static void step_forget_many(struct model *model)
{
    uint32_t which = kv_random(&model->seed, SPACES + 1);
    uint64_t removed = 0, expected = 0;
    for (int content = 0; content < CONTENTS; content++)
        if (model->where[content] >= 0 && (which == SPACES || (uint32_t)content / NODES == which)) {
            model_forget(model, content);
            expected++;
        }
    if (which == SPACES) {
        kv_ok(kvb_manager_clear(model->rig.kv));
    } else {
        kv_ok(kvb_invalidate_namespace(model->rig.kv, model->spaces[which], &removed));
        assert_int_equal(removed, expected);
    }
}

static void step_upgrade(struct model *model)
{
    const struct model_weak *weak = &model->weaks[kv_random(&model->seed, WEAKS)];
    struct kvb_block *block = NULL;
    if (weak->weak.generation == 0)
        return;
    struct model_slot *slot = &model->slots[weak->slot];
    bool there = weak->life == slot->life && (slot->held > 0 || slot->indexed);
    kv_expect(kvb_weak_upgrade(model->rig.kv, &weak->weak, 1, &block, NULL),
              there ? 0 : KVB_ESTALE);
    if (there) {
        assert_true(kv_payload_is(&model->rig, block, model->names[slot->content].hash));
        slot->held++;
        kv_unref(&model->rig, block);
        model_unref(model, weak->slot);
        model->upgrades++;
    }
}

static void step_abort(struct model *model)
{
    struct kvb_block *blocks[4];
    uint32_t slots[4], count = 1 + kv_random(&model->seed, 4);
    if (!model_alloc(model, count, blocks, slots))
        return;
    for (uint32_t i = 0; i < count; i++) {
        kv_init(&model->rig, blocks[i], 0, 0, NULL);
        kv_append(&model->rig, blocks[i], model->tokens[0], 2, 0);
    }
    kv_ok(kvb_block_schedule(model->rig.kv, blocks, count, NULL));
    kv_ok(kvb_block_unref(model->rig.kv, blocks, count, NULL));
    kv_ok(kvb_block_compute_failed(model->rig.kv, blocks, count, NULL));
    model_unref_array(model, slots, count);
}

static void model_compare(struct model *model)
{
    struct kvb_tier_stats stats = device_stats(&model->rig);
    uint64_t held = 0, parked = 0, entries = 0;
    for (uint32_t s = 0; s < SLOTS; s++) {
        held += model->slots[s].held > 0;
        parked += model_parked(&model->slots[s]);
    }
    assert_int_equal(stats.held_count, held);
    assert_int_equal(stats.parked_count, parked);
    assert_int_equal(stats.free_count, SLOTS - held - parked);
    assert_int_equal(stats.available_count, SLOTS - held);
    assert_int_equal(stats.evicted, model->evictions);
    assert_int_equal(stats.duplicates, model->duplicates);
    for (int content = 0; content < CONTENTS; content++) {
        uint64_t tiers[KVB_TIER_COUNT];
        struct kvb_query query = {
            .size = sizeof query, .keys = &model->names[content], .key_count = 1};
        kv_ok(kvb_lookup(model->rig.kv, &query, tiers));
        assert_int_equal(tiers[KVB_TIER_DEVICE], model->where[content] >= 0);
        entries += model->where[content] >= 0;
    }
    assert_int_equal(kv_stats(&model->rig).index_entries, entries);
}

static void model_compare_picture(struct model *model)
{
    size_t stored = 0;
    kv_poll(&model->rig);
    for (int content = 0; content < CONTENTS; content++) {
        bool seen = picture_find(&model->picture, model->names[content].hash, KVB_TIER_DEVICE) <
                    model->picture.count;
        assert_int_equal(seen, model->where[content] >= 0);
        stored += model->where[content] >= 0;
    }
    assert_int_equal(model->picture.count, stored);
    assert_int_equal(model->picture.contradictions, 0);
}

static int model_setup(void **state)
{
    struct model *model = kv_scene_begin(state, sizeof *model);
    model->rig.tiers[0].block_count = SLOTS;
    model->rig.config.sink = (struct kvb_event_sink){picture_deliver, &model->picture};
    return 0;
}

#define model_teardown kv_scene_end

static void behaves_as_the_model(struct model *model, uint64_t seed)
{
    model->seed = seed << 32;
    kv_rig_open(&model->rig);
    model->picture.strict = true;
    model->picture.kv = model->rig.kv;
    for (uint32_t s = 0; s < SLOTS; s++)
        model_free(&model->slots[s]);
    for (int content = 0; content < CONTENTS; content++)
        model->where[content] = -1;
    kv_ok(kvb_namespace_open(model->rig.kv, "other", 5, NULL, 0, &model->spaces[1]));
    model_name_all(model);

    for (int step = 0; step < STEPS; step++) {
        kv_advance(&model->rig, 1000);
        model_expire(model);
        struct model_request *request = &model->requests[kv_random(&model->seed, REQUESTS)];
        uint32_t what = kv_random(&model->seed, 100);
        if (what < 55) {
            if (request->count == 0)
                step_request(model, request);
            else
                step_let_go(model, request);
        } else if (what < 70) {
            step_priority(model, request);
        } else if (what < 76) {
            step_invalidate(model);
        } else if (what < 77) {
            step_forget_many(model);
        } else if (what < 90) {
            step_upgrade(model);
        } else {
            step_abort(model);
        }
        model_compare(model);
        if (step % 10 == 0)
            model_compare_picture(model);
        if (step % 50 == 0)
            kv_check(&model->rig);
    }
    for (int i = 0; i < REQUESTS; i++)
        step_let_go(model, &model->requests[i]);
    model_compare(model);
    model_compare_picture(model);
    assert_true(model->failed_allocs > 10 && model->evictions > 100 && model->duplicates > 50 &&
                model->upgrades > 50);
}

static void test_store_at_random_behaves_as_the_model_seed_1(void **state)
{
    behaves_as_the_model(*state, 1);
}

static void test_store_at_random_behaves_as_the_model_seed_2(void **state)
{
    behaves_as_the_model(*state, 2);
}

static void test_store_at_random_behaves_as_the_model_seed_3(void **state)
{
    behaves_as_the_model(*state, 3);
}

static void test_store_at_random_behaves_as_the_model_seed_4(void **state)
{
    behaves_as_the_model(*state, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(model, test_store_at_random_behaves_as_the_model_seed_1),
        TEST(model, test_store_at_random_behaves_as_the_model_seed_2),
        TEST(model, test_store_at_random_behaves_as_the_model_seed_3),
        TEST(model, test_store_at_random_behaves_as_the_model_seed_4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
