/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adoption: the slots that are given out afterwards, and the order of those that were adopted.
 */
#include "support/adopt_scene.h"

#include "store/contents.h"

/* ---- Slots that are not adopted -------------------------------------------------------------- */

static void test_free_slots_are_given_out_from_the_lowest_on(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption first = adopt_content(0, 0), second = adopt_content(1, 2);
    adopt_one(scene, &first);
    adopt_one(scene, &second);
    adopt_end(scene);
    assert_int_equal(adopt_take_slot(scene), 1);
    assert_int_equal(adopt_take_slot(scene), 3);
}

static void test_slot_with_a_known_generation_begins_with_the_next(void **state)
{
    struct adopt_scene *scene = *state;
    kvbi_store_adopt_generation_locked(&scene->store, scene->pool, 0, 41);
    kvbi_store_adopt_generation_locked(&scene->store, scene->pool, 0, 40);
    adopt_end(scene);
    assert_int_equal(adopt_take_slot(scene), 0);
    assert_int_equal(adopt_generation(scene, 0), 42);
}

static void test_slot_without_a_generation_left_is_retired(void **state)
{
    struct adopt_scene *scene = *state;
    kvbi_store_adopt_generation_locked(&scene->store, scene->pool, 0, KVBI_GENERATION_MAX);
    adopt_end(scene);
    assert_int_equal(adopt_take_slot(scene), 1);
    assert_int_equal(scene->pool->slots[0].place, KVBI_PLACE_RETIRED);
}

static void test_retired_slot_is_never_given_out(void **state)
{
    struct adopt_scene *scene = *state;
    kvbi_store_adopt_retired_locked(&scene->store, scene->pool, 4);
    adopt_end(scene);
    for (uint32_t i = 0; i < ADOPT_SLOTS - 1; i++)
        assert_int_not_equal(adopt_take_slot(scene), 4);
    assert_int_equal(adopt_take_slot(scene), KVBI_NONE);
    assert_int_equal(scene->pool->retired_count, 1);
    assert_int_equal(scene->pool->files[0].retired, 1);
}

/* ---- Order ----------------------------------------------------------------------------------- */

static void test_eviction_goes_in_the_order_that_was_given(void **state)
{
    struct adopt_scene *scene = *state;
    static const uint32_t order[] = {2, 0, 3, 1};
    for (uint32_t i = 0; i < 4; i++) {
        struct kvbi_adoption adoption = adopt_content(i, i);
        adopt(scene, &adoption);
    }
    for (uint32_t i = 0; i < 4; i++)
        adopt_in_order(scene, order[i]);
    adopt_end(scene);
    for (uint32_t i = 4; i < ADOPT_SLOTS; i++)
        assert_int_equal(adopt_take_slot(scene), i);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(adopt_take_slot(scene), order[i]);
}

static void test_eviction_takes_adopted_blocks_of_low_priority_first(void **state)
{
    struct adopt_scene *scene = *state;
    static const uint8_t priorities[] = {90, 10, 35};
    uint32_t order[ADOPT_SLOTS];
    for (uint32_t i = 0; i < 3; i++) {
        struct kvbi_adoption adoption = adopt_content(i, i);
        adoption.priority = priorities[i];
        adopt_one(scene, &adoption);
    }
    adopt_end(scene);
    assert_int_equal(kvbi_pool_order(scene->pool, order, ADOPT_SLOTS), 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 2);
    assert_int_equal(order[2], 0);
}

static void test_evicted_block_is_forgotten_and_its_slot_has_a_later_generation(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption adoption = adopt_content(0, 0);
    adopt_one(scene, &adoption);
    adopt_end(scene);
    for (uint32_t i = 1; i < ADOPT_SLOTS; i++)
        assert_int_equal(adopt_take_slot(scene), i);
    assert_int_equal(adopt_take_slot(scene), 0);
    assert_false(adopt_found(scene, 0));
    assert_int_equal(adopt_generation(scene, 0), 6);
    adopt_check(scene);
}

/* Ages are a permutation of the slots: multiplication by a number without common factor. */
static uint32_t slot_of_age(uint32_t age)
{
    return (uint32_t)((uint64_t)age * 1999 % ADOPT_MANY);
}

static void test_order_of_many_is_what_was_given(void **state)
{
    struct adopt_scene *scene = *state;
    static uint32_t order[ADOPT_MANY];
    for (uint32_t i = 0; i < ADOPT_MANY; i++) {
        struct kvbi_adoption adoption = adopt_content(i, i);
        adopt(scene, &adoption);
    }
    for (uint32_t age = 0; age < ADOPT_MANY; age++)
        adopt_in_order(scene, slot_of_age(age));
    adopt_end(scene);
    assert_int_equal(kvbi_pool_order(scene->pool, order, 10), 10);
    assert_int_equal(kvbi_pool_order(scene->pool, order, ADOPT_MANY), ADOPT_MANY);
    for (uint32_t age = 0; age < ADOPT_MANY; age++)
        assert_int_equal(order[age], slot_of_age(age));
}

/*
 * Contents [0, count) are in slots [0, count), put in the order of `slots`; what eviction takes,
 * from the first on.
 */
static void order_by_writes(struct adopt_scene *scene, const uint32_t *slots, uint32_t count,
                            uint32_t *order)
{
    for (uint32_t i = 0; i < count; i++) {
        struct kvbi_adoption adoption = adopt_content(i, i);
        adopt(scene, &adoption);
    }
    kvbi_store_adopt_order_locked(&scene->store, scene->pool, slots, count, true);
    adopt_end(scene);
    assert_int_equal(kvbi_pool_order(scene->pool, order, ADOPT_SLOTS), count);
}

static void test_written_order_puts_children_below_their_parents(void **state)
{
    struct adopt_scene *scene = *state;
    static const uint32_t slots[] = {0, 1, 2, 3};
    uint32_t order[ADOPT_SLOTS];
    order_by_writes(scene, slots, 4, order);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(order[i], 3 - i);
}

/* Content 2 was written first, and is older than its parent anyway. */
static void test_written_order_leaves_a_child_that_is_older_than_its_parent(void **state)
{
    struct adopt_scene *scene = *state;
    static const uint32_t slots[] = {2, 0, 1}, expected[] = {2, 1, 0};
    uint32_t order[ADOPT_SLOTS];
    order_by_writes(scene, slots, 3, order);
    assert_memory_equal(order, expected, sizeof expected);
}

static void test_written_order_leaves_a_child_of_another_priority_than_its_parent(void **state)
{
    struct adopt_scene *scene = *state;
    static const uint32_t slots[] = {0, 1};
    uint32_t order[ADOPT_SLOTS];
    struct kvbi_adoption parent = adopt_content(0, 0), child = adopt_content(1, 1);
    child.priority = 90;
    adopt(scene, &parent);
    adopt(scene, &child);
    kvbi_store_adopt_order_locked(&scene->store, scene->pool, slots, 2, true);
    adopt_end(scene);
    assert_int_equal(kvbi_pool_order(scene->pool, order, ADOPT_SLOTS), 2);
    assert_int_equal(order[0], 0);
}

static void test_block_that_is_held_is_the_last_of_the_order(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t order[ADOPT_SLOTS];
    for (uint32_t i = 0; i < 3; i++) {
        struct kvbi_adoption adoption = adopt_content(i, i);
        adopt_one(scene, &adoption);
    }
    adopt_end(scene);
    assert_int_equal(kvbi_store_ref_locked(&scene->store, scene->pool, &scene->pool->slots[0]), 0);
    assert_int_equal(kvbi_pool_order(scene->pool, order, ADOPT_SLOTS), 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 2);
    assert_int_equal(order[2], 0);
    assert_int_equal(kvbi_pool_order(scene->pool, order, 2), 2);
    (void)kvbi_store_unref_locked(&scene->store, scene->pool, &scene->pool->slots[0], 1);
}

static void test_block_that_is_held_but_forgotten_is_not_in_the_order(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t order[ADOPT_SLOTS];
    struct kvbi_adoption adoption = adopt_content(0, 0);
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_int_equal(kvbi_store_ref_locked(&scene->store, scene->pool, &scene->pool->slots[0]), 0);
    kvbi_store_forget_locked(&scene->store, scene->pool->slots[0].entry);
    assert_int_equal(kvbi_pool_order(scene->pool, order, ADOPT_SLOTS), 0);
    (void)kvbi_store_unref_locked(&scene->store, scene->pool, &scene->pool->slots[0], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(adopt_scene, test_free_slots_are_given_out_from_the_lowest_on),
        TEST(adopt_scene, test_slot_with_a_known_generation_begins_with_the_next),
        TEST(adopt_scene, test_slot_without_a_generation_left_is_retired),
        TEST(adopt_scene, test_retired_slot_is_never_given_out),
        TEST(adopt_scene, test_eviction_goes_in_the_order_that_was_given),
        TEST(adopt_scene, test_eviction_takes_adopted_blocks_of_low_priority_first),
        TEST(adopt_scene, test_evicted_block_is_forgotten_and_its_slot_has_a_later_generation),
        TEST(adopt_many, test_order_of_many_is_what_was_given),
        TEST(adopt_scene, test_written_order_puts_children_below_their_parents),
        TEST(adopt_scene, test_written_order_leaves_a_child_that_is_older_than_its_parent),
        TEST(adopt_scene, test_written_order_leaves_a_child_of_another_priority_than_its_parent),
        TEST(adopt_scene, test_block_that_is_held_is_the_last_of_the_order),
        TEST(adopt_scene, test_block_that_is_held_but_forgotten_is_not_in_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
