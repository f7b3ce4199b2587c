/* SPDX-License-Identifier: Apache-2.0 */
/* The deadline heap against a naive model, and its memory. */
#include "base/deadlines.h"
#include "support/kv_test.h"
#include "support/test.h"

#include <stdlib.h>

#define IDS 200

static uint64_t seed;

static uint32_t random_below(uint32_t limit)
{
    return kv_random(&seed, limit);
}

/* *state is a heap of IDS ids. */
static struct kvbi_memory heap_memory;
static struct kvbi_deadlines heap;

static int heap_setup(void **state)
{
    *state = &heap;
    return kvbi_memory_init(&heap_memory, NULL) != 0 ||
                   kvbi_deadlines_create(&heap, &heap_memory, IDS) != 0
               ? -1
               : 0;
}

static int heap_teardown(void **state)
{
    kvbi_deadlines_destroy(*state);
    return 0;
}

/* The model: deadline by id, UINT64_MAX for none, and when it was set. The first is found by
 * looking at all. */
static uint64_t model[IDS], set_at[IDS], sets;

static bool is_before(uint32_t a, uint32_t b)
{
    return model[a] != model[b] ? model[a] < model[b] : set_at[a] < set_at[b];
}

static bool model_first(uint32_t *first)
{
    bool found = false;
    for (uint32_t id = 0; id < IDS; id++) {
        if (model[id] == UINT64_MAX || (found && !is_before(id, *first)))
            continue;
        *first = id;
        found = true;
    }
    return found;
}

static void check(const struct kvbi_deadlines *deadlines)
{
    uint32_t first = 0, count = 0;
    struct kvbi_deadline got;
    for (uint32_t id = 0; id < IDS; id++) {
        assert_int_equal(kvbi_deadlines_contains(deadlines, id), model[id] != UINT64_MAX);
        count += model[id] != UINT64_MAX;
    }
    assert_int_equal(kvbi_deadlines_count(deadlines), count);
    bool found = model_first(&first);
    assert_int_equal(kvbi_deadlines_first(deadlines, &got), found);
    if (found) {
        assert_int_equal(got.id, first);
        assert_true(got.deadline_ns == model[first]);
    }
}

static void test_deadlines_random_operations_match_the_model(void **state)
{
    struct kvbi_deadlines *deadlines = *state;
    for (uint32_t id = 0; id < IDS; id++)
        model[id] = UINT64_MAX;
    for (int step = 0; step < 20000; step++) {
        uint32_t id = random_below(IDS), expected = 0;
        uint64_t time = random_below(500); /* few values: many equal deadlines */
        switch (random_below(step % 4000 < 2000 ? 8 : 4)) {
        case 0:
            kvbi_deadlines_remove(deadlines, id);
            model[id] = UINT64_MAX;
            break;
        case 1:
            if (model_first(&expected) && model[expected] <= time) {
                assert_true(kvbi_deadlines_pop_due(deadlines, time, &id));
                assert_int_equal(id, expected);
                model[expected] = UINT64_MAX;
            } else {
                assert_false(kvbi_deadlines_pop_due(deadlines, time, &id));
            }
            break;
        default:
            kvbi_deadlines_set(deadlines, id, time);
            model[id] = time;
            set_at[id] = sets++;
            break;
        }
        check(deadlines);
    }
}

static void test_deadlines_handed_over_keep_their_turn(void **state)
{
    struct kvbi_deadlines *deadlines = *state;
    static const uint32_t order[] = {3, 4, 5, 2};
    uint32_t id;
    for (id = 0; id < 3; id++)
        kvbi_deadlines_set(deadlines, id, 10);
    kvbi_deadlines_set(deadlines, 3, 9);
    kvbi_deadlines_hand_over(deadlines, 0, 4);
    kvbi_deadlines_hand_over(deadlines, 1, 5);
    assert_false(kvbi_deadlines_contains(deadlines, 0));
    assert_true(kvbi_deadlines_is_due(deadlines, 5, 10));
    assert_false(kvbi_deadlines_is_due(deadlines, 5, 9));
    assert_false(kvbi_deadlines_is_due(deadlines, 6, UINT64_MAX));
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(kvbi_deadlines_pop_due(deadlines, 10, &id));
        assert_int_equal(id, order[i]);
    }
    assert_false(kvbi_deadlines_pop_due(deadlines, UINT64_MAX, &id));
}

static void test_deadlines_full_come_out_in_order(void **state)
{
    struct kvbi_deadlines *deadlines = *state;
    uint32_t id;
    for (uint32_t i = 0; i < IDS; i++)
        kvbi_deadlines_set(deadlines, i, UINT64_MAX - i);
    assert_false(kvbi_deadlines_pop_due(deadlines, UINT64_MAX - IDS, &id));
    for (uint32_t i = IDS; i-- > 0;) {
        assert_true(kvbi_deadlines_pop_due(deadlines, UINT64_MAX, &id));
        assert_int_equal(id, i);
    }
    assert_false(kvbi_deadlines_pop_due(deadlines, UINT64_MAX, &id));
}

static void test_deadlines_without_ids_are_empty(void **state)
{
    (void)state;
    struct kvbi_memory memory;
    struct kvbi_deadlines deadlines;
    struct kvbi_deadline first;
    assert_int_equal(kvbi_memory_init(&memory, NULL), 0);
    assert_int_equal(kvbi_deadlines_create(&deadlines, &memory, 0), 0);
    assert_false(kvbi_deadlines_first(&deadlines, &first));
    kvbi_deadlines_destroy(&deadlines);
    kvbi_deadlines_destroy(&deadlines);
}

/* Fails from the n-th allocation on, or only there. */
struct failing {
    int left;
    bool once;
    int live;
};

static void *failing_alloc(void *context, size_t bytes, size_t alignment)
{
    struct failing *failing = context;
    int number = failing->left--;
    if (failing->once ? number == 0 : number <= 0)
        return NULL;
    failing->live++;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void failing_free(void *context, void *memory, size_t bytes)
{
    (void)bytes;
    ((struct failing *)context)->live--;
    free(memory);
}

static void test_deadlines_create_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int once = 0; once < 2; once++)
        for (int nth = 0; nth < 2; nth++) {
            struct failing failing = {.left = nth, .once = once};
            struct kvbi_memory memory;
            struct kvbi_deadlines deadlines;
            struct kvb_allocator allocator = {failing_alloc, failing_free, &failing};
            assert_int_equal(kvbi_memory_init(&memory, &allocator), 0);
            assert_int_equal(kvbi_deadlines_create(&deadlines, &memory, IDS), KVB_ENOMEM);
            assert_int_equal(failing.live, 0);
            kvbi_deadlines_destroy(&deadlines);
            assert_int_equal(failing.live, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(heap, test_deadlines_random_operations_match_the_model),
        TEST(heap, test_deadlines_handed_over_keep_their_turn),
        TEST(heap, test_deadlines_full_come_out_in_order),
        TEST(bare, test_deadlines_without_ids_are_empty),
        TEST(bare, test_deadlines_create_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
