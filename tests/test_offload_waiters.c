/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of those who wait, against a list that is searched: who is first, who is told in which
 * order, with which end, and who was the last.
 */
#include "support/kv_test.h"
#include "support/test.h"

#include "offload/waiters.h"

enum { SLOTS = 24, STEPS = 200000 };

struct waits {
    uint32_t id, slot, fill;
    enum kvbi_wait kind;
    bool ended, good;
};

/* Those who wait, in the order in which they are to be told: the ended ones first. */
struct model {
    struct waits list[SLOTS];
    uint32_t count, fills[SLOTS];
};

static uint32_t find(const struct model *model, uint32_t id)
{
    uint32_t i = 0;
    while (i < model->count && model->list[i].id != id)
        i++;
    return i;
}

static void drop(struct model *model, uint32_t at)
{
    memmove(&model->list[at], &model->list[at + 1], (model->count - at - 1) * sizeof *model->list);
    model->count--;
}

static bool left_of(const struct model *model, uint32_t slot, uint32_t fill)
{
    for (uint32_t i = 0; i < model->count; i++)
        if (model->list[i].slot == slot && model->list[i].fill == fill)
            return true;
    return false;
}

/* The ended ones of one slot, joiners first, go behind all that have ended before. */
static bool end(struct model *model, uint32_t slot, bool good)
{
    struct model after = *model;
    after.count = 0;
    bool any = false;
    for (uint32_t i = 0; i < model->count; i++)
        if (model->list[i].ended)
            after.list[after.count++] = model->list[i];
    for (int kind = 0; kind < KVBI_WAIT_KINDS; kind++)
        for (uint32_t i = 0; i < model->count; i++) {
            struct waits one = model->list[i];
            if (!one.ended && one.slot == slot && one.kind == (enum kvbi_wait)kind) {
                one.ended = true;
                one.good = good;
                after.list[after.count++] = one;
                any = true;
            }
        }
    for (uint32_t i = 0; i < model->count; i++)
        if (!model->list[i].ended && model->list[i].slot != slot)
            after.list[after.count++] = model->list[i];
    after.fills[slot]++;
    *model = after;
    return any;
}

static uint32_t first(const struct model *model, uint32_t slot, enum kvbi_wait kind)
{
    for (uint32_t i = 0; i < model->count; i++)
        if (!model->list[i].ended && model->list[i].slot == slot && model->list[i].kind == kind)
            return model->list[i].id;
    return KVBI_NONE;
}

/* Has a fill of the slot ended well, and somebody is to be told? Then it is not filled. */
static bool is_kept(const struct model *model, uint32_t slot)
{
    for (uint32_t i = 0; i < model->count; i++)
        if (model->list[i].slot == slot && model->list[i].ended && model->list[i].good)
            return true;
    return false;
}

static void expect_left(struct model *model, const struct kvbi_waited *waited, uint32_t at)
{
    struct waits one = model->list[at];
    drop(model, at);
    assert_int_equal(waited->id, one.id);
    assert_int_equal(waited->slot, one.slot);
    assert_int_equal(waited->ended, one.ended);
    assert_int_equal(waited->good, one.good);
    assert_int_equal(waited->last, one.ended && !left_of(model, one.slot, one.fill));
}

static void step(struct kvbi_waiters *waiters, struct model *model, uint64_t *seed)
{
    uint32_t id = kv_random(seed, SLOTS), slot = kv_random(seed, SLOTS), at = find(model, id);
    enum kvbi_wait kind = kv_random(seed, 2) ? KVBI_WAIT_HOP : KVBI_WAIT_JOIN;
    struct kvbi_waited waited;
    bool good = kv_random(seed, 2);
    switch (kv_random(seed, 8)) {
    default:
        if (at < model->count || id == slot || is_kept(model, slot))
            return;
        kvbi_waiters_wait(waiters, id, slot, kind);
        model->list[model->count++] =
            (struct waits){.id = id, .slot = slot, .fill = model->fills[slot], .kind = kind};
        return;
    case 0:
        if (at < model->count) {
            waited = kvbi_waiters_stop(waiters, id);
            expect_left(model, &waited, at);
        }
        return;
    case 1:
        if (!is_kept(model, slot))
            assert_int_equal(kvbi_waiters_end(waiters, slot, good), end(model, slot, good));
        return;
    case 2:
        if (kvbi_waiters_next(waiters, &waited))
            expect_left(model, &waited, 0);
        else
            assert_true(model->count == 0 || !model->list[0].ended);
        return;
    }
}

static void expect_same(const struct kvbi_waiters *waiters, const struct model *model)
{
    const char *wrong = kvbi_waiters_check(waiters);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    assert_int_equal(kvbi_waiters_any_ended(waiters), model->count > 0 && model->list[0].ended);
    for (uint32_t id = 0; id < SLOTS; id++) {
        uint32_t at = find(model, id);
        const struct waits *one = at < model->count ? &model->list[at] : NULL;
        assert_int_equal(kvbi_waiters_waits(waiters, id), one != NULL);
        assert_int_equal(kvbi_waiters_on(waiters, id),
                         one != NULL && !one->ended ? one->slot : KVBI_NONE);
        assert_int_equal(kvbi_waiters_came(waiters, id),
                         one != NULL && one->ended && one->good ? one->slot : KVBI_NONE);
        assert_int_equal(kvbi_waiters_first(waiters, id, KVBI_WAIT_JOIN),
                         first(model, id, KVBI_WAIT_JOIN));
        assert_int_equal(kvbi_waiters_first(waiters, id, KVBI_WAIT_HOP),
                         first(model, id, KVBI_WAIT_HOP));
    }
}

static struct kv_heap heap;

static int rings_setup(void **state)
{
    static struct kvbi_memory memory;
    static struct kvbi_waiters waiters;
    const struct kvb_allocator allocator = {kv_heap_alloc, kv_heap_free, &heap};
    memset(&waiters, 0, sizeof waiters);
    *state = &waiters;
    return kvbi_memory_init(&memory, &allocator) != 0 ||
                   kvbi_waiters_create(&waiters, &memory, SLOTS) != 0
               ? -1
               : 0;
}

static int rings_teardown(void **state)
{
    kvbi_waiters_destroy(*state);
    if (heap.live_bytes != 0)
        print_error("%lld bytes are left\n", (long long)heap.live_bytes);
    return heap.live_bytes == 0 ? 0 : -1;
}

static void test_rings_are_as_a_list_that_is_searched(void **state)
{
    struct kvbi_waiters *waiters = *state;
    struct model model = {0};
    uint64_t seed = 11;
    for (uint32_t n = 0; n < STEPS; n++) {
        step(waiters, &model, &seed);
        expect_same(waiters, &model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rings, test_rings_are_as_a_list_that_is_searched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
