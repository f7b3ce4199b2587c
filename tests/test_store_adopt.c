/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adoption: what outlived a process is found again, in its order, and nothing else is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/failing_memory.h"

#include "store/store.h"

enum { SLOTS = 16, MANY = 5000, DISK = KVB_TIER_DISK, TOKENS = 4, KEY = 8 };

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_log log;
    struct kvbi_store store;
    struct kvbi_pool *pool;
};

static struct fixture f;

static void open_store(uint32_t slots, uint32_t key_bytes)
{
    memset(&f, 0, sizeof f);
    f.memory = failing_memory(&f.failing, INT64_MAX);
    kvbi_clock_init(&f.clock, NULL);
    kvbi_log_init(&f.log, NULL);
    const struct kvbi_store_config config = {
        .memory = &f.memory,
        .clock = &f.clock,
        .log = &f.log,
        .hash = kvbi_hash_select(KVBI_ISA_BASELINE),
        .digest_seed = 7,
        .tokens_per_block = TOKENS,
        .key_bytes = key_bytes,
        .policy = kvbi_policy_find(NULL),
        .block_counts = {[KVB_TIER_DEVICE] = 4, [DISK] = slots},
        .on_disk = {[DISK] = true},
        .event_capacity = 64,
        .pin_capacity = 4,
        .namespace_capacity = 4};
    assert_int_equal(kvbi_store_create(&f.store, &config), 0);
    f.pool = &f.store.pools[DISK];
    kvbi_lock_take(&f.store.lock);
    kvbi_store_adopt_begin_locked(&f.store, f.pool);
}

static void check(void)
{
    const char *wrong = kvbi_store_check_locked(&f.store);
    if (wrong != NULL)
        print_error("invariant broken: %s\n", wrong);
    assert_null(wrong);
}

static void end(void)
{
    kvbi_store_adopt_end_locked(&f.store, f.pool);
    check();
}

static int setup(void **state)
{
    (void)state;
    open_store(SLOTS, 0);
    return 0;
}

static int setup_keyed(void **state)
{
    (void)state;
    open_store(SLOTS, KEY);
    return 0;
}

static int setup_many(void **state)
{
    (void)state;
    open_store(MANY, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kvbi_lock_release(&f.store.lock);
    kvbi_store_destroy(&f.store);
    assert_int_equal(f.failing.live_bytes, 0);
    return 0;
}

/* The content number `number` in `slot`; with number > 0 a child of the one before. */
static struct kvbi_adoption content(uint32_t number, uint32_t slot)
{
    return (struct kvbi_adoption){
        .slot = slot,
        .generation = 5,
        .name = {.hash = 1000 + number, .digest = {number, ~(uint64_t)number}},
        .parent_hash = number > 0 ? 999 + number : 0,
        .has_parent = number > 0,
        .priority = KVB_PRIORITY_DEFAULT};
}

static void adopt(const struct kvbi_adoption *adoption)
{
    uint32_t other;
    kvbi_store_adopt_expect_locked(&f.store, adoption->name.hash);
    assert_int_equal(kvbi_store_adopt_locked(&f.store, f.pool, adoption, &other), KVBI_ADOPTED);
}

static void put_in_order(uint32_t slot)
{
    kvbi_store_adopt_order_locked(&f.store, f.pool, &slot, 1, false);
}

static void adopt_one(const struct kvbi_adoption *adoption)
{
    adopt(adoption);
    put_in_order(adoption->slot);
}

static void refuse(const struct kvbi_adoption *adoption)
{
    uint32_t other;
    assert_int_equal(kvbi_store_adopt_locked(&f.store, f.pool, adoption, &other),
                     KVBI_ADOPT_REFUSED);
}

/* Where a match by tokens of contents [0, count) ends, with the slot of the last one. Holds nothing afterwards. */
static uint32_t match_in(uint32_t namespace_id, uint32_t count, uint32_t *slot)
{
    static const uint32_t
        tokens[SLOTS * TOKENS]; /* those of a content on disk only are known by its digest */
    struct kvb_seq names[SLOTS];
    struct kvb_hit hits[SLOTS];
    int error = 0;
    for (uint32_t i = 0; i < count; i++)
        names[i] = content(i, 0).name;
    const struct kvbi_probe probe = {
        .names = names, .tokens = tokens, .namespace_id = namespace_id, .count = count};
    uint32_t found = kvbi_store_match_locked(&f.store, &probe, hits, &error);
    assert_int_equal(error, 0);
    for (uint32_t i = 0; i < found; i++) {
        *slot = hits[i].slot;
        assert_int_equal(hits[i].tier, DISK);
        (void)kvbi_store_release_locked(&f.store, f.pool, hits[i].block, 1);
    }
    return found;
}

static bool is_found(uint32_t number)
{
    return kvbi_store_find_locked(&f.store, 1000 + number, NULL) != KVBI_NONE;
}

static uint64_t generation_of(uint32_t slot)
{
    return kvbi_word_generation(atomic_load(&f.pool->slots[slot].word));
}

static uint32_t take_slot(void)
{
    struct kvb_block *block = kvbi_store_take_locked(&f.store, f.pool, false, KVB_PRIORITY_MAX, 1);
    return block != NULL ? kvbi_pool_slot(f.pool, block) : KVBI_NONE;
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------- */

static void test_adopted_run_is_matched_by_tokens_in_its_slots(void **state)
{
    (void)state;
    uint32_t slot = KVBI_NONE;
    for (uint32_t i = 0; i < 3; i++) {
        struct kvbi_adoption adoption = content(i, 7 - i);
        adopt_one(&adoption);
    }
    end();
    assert_int_equal(match_in(0, 4, &slot), 3);
    assert_int_equal(slot, 5);
}

static void test_adopted_block_of_another_namespace_is_not_matched(void **state)
{
    (void)state;
    uint32_t slot, space;
    assert_int_equal(
        kvbi_namespaces_open(&f.store.namespaces, &f.store.hash, "a", 1, NULL, 0, &space), 0);
    struct kvbi_adoption adoption = content(0, 3);
    adoption.namespace_id = space;
    adopt_one(&adoption);
    end();
    assert_int_equal(match_in(0, 1, &slot), 0);
    assert_int_equal(match_in(space, 1, &slot), 1);
}

static void test_adopted_block_without_its_parent_is_not_matched_as_a_root(void **state)
{
    (void)state;
    uint32_t slot;
    struct kvbi_adoption adoption = content(0, 3);
    adoption.has_parent = true;
    adoption.parent_hash = 77;
    adopt_one(&adoption);
    end();
    assert_int_equal(match_in(0, 1, &slot), 0);
}

static void test_adopted_block_has_the_generation_of_its_file(void **state)
{
    (void)state;
    struct kvbi_adoption adoption = content(0, 3);
    adoption.generation = 12345;
    adopt_one(&adoption);
    end();
    assert_int_equal(generation_of(3), 12345);
}

static void test_adopted_block_is_announced(void **state)
{
    (void)state;
    struct kvbi_event_item item;
    struct kvbi_adoption adoption = content(1, 3);
    adopt_one(&adoption);
    end();
    assert_true(kvbi_event_log_pop(&f.store.events, &item));
    assert_int_equal(item.kind, KVB_EVENT_STORED);
    assert_int_equal(item.tier, DISK);
    assert_memory_equal(item.key, &adoption.name, sizeof adoption.name);
    assert_true(item.has_parent);
    assert_false(kvbi_event_log_pop(&f.store.events, &item));
}

static void test_content_in_two_slots_names_the_one_that_came_first(void **state)
{
    (void)state;
    uint32_t other = KVBI_NONE;
    struct kvbi_adoption first = content(0, 3), second = content(0, 9);
    adopt_one(&first);
    assert_int_equal(kvbi_store_adopt_locked(&f.store, f.pool, &second, &other),
                     KVBI_ADOPT_PRESENT);
    assert_int_equal(other, 3);
    end();
    assert_int_equal(match_in(0, 1, &other), 1);
    assert_int_equal(other, 3);
    assert_int_equal(f.pool->free_count, SLOTS - 1);
}

static void test_replaced_slot_is_free_and_the_new_one_is_found(void **state)
{
    (void)state;
    uint32_t other = KVBI_NONE;
    struct kvbi_adoption first = content(0, 3), second = content(0, 9);
    second.generation = 8;
    second.priority = 80;
    adopt(&first);
    assert_int_equal(kvbi_store_adopt_locked(&f.store, f.pool, &second, &other),
                     KVBI_ADOPT_PRESENT);
    kvbi_store_adopt_replace_locked(&f.store, f.pool, &second, other);
    put_in_order(9);
    end();
    assert_int_equal(match_in(0, 1, &other), 1);
    assert_int_equal(other, 9);
    assert_int_equal(generation_of(9), 8);
    assert_int_equal(f.pool->slots[9].priority, 80);
    assert_int_equal(f.pool->slots[3].place, KVBI_PLACE_FREE);
    assert_int_equal(generation_of(3), 6);
    assert_int_equal(f.store.events.sequence,
                     1); /* the content was stored in this tier all the time */
}

/* Slot 3 holds something under the name that `second` has too, and is superseded by it. */
static void replace_by_other_content(const struct kvbi_adoption *second)
{
    uint32_t other = KVBI_NONE;
    struct kvbi_adoption first = content(0, 3);
    adopt(&first);
    assert_int_equal(kvbi_store_adopt_locked(&f.store, f.pool, second, &other), KVBI_ADOPT_PRESENT);
    assert_int_equal(other, 3);
    kvbi_store_adopt_replace_locked(&f.store, f.pool, second, other);
    put_in_order(second->slot);
    end();
    assert_int_equal(f.pool->parked_count, 1);
    assert_int_equal(f.pool->slots[3].place, KVBI_PLACE_FREE);
    uint32_t id = kvbi_store_find_locked(&f.store, second->name.hash, NULL);
    assert_int_not_equal(id, KVBI_NONE);
    const struct kvbi_entry *entry = kvbi_index_at(&f.store.index, id);
    assert_int_equal(entry->copies[DISK], second->slot);
    assert_memory_equal(&entry->name, &second->name, sizeof entry->name);
    assert_int_equal(entry->namespace_id, second->namespace_id);
    assert_int_equal(entry->flags, second->has_parent ? KVBI_ENTRY_HAS_PARENT : 0);
    assert_int_equal(entry->parent_hash, second->parent_hash);
}

static void test_name_that_got_another_digest_stands_for_that(void **state)
{
    (void)state;
    struct kvbi_adoption second = content(0, 9);
    second.name.digest[1]++;
    replace_by_other_content(&second);
}

static void test_name_that_lost_its_digest_stands_for_that(void **state)
{
    (void)state;
    struct kvbi_adoption second = content(0, 9);
    memset(second.name.digest, 0, sizeof second.name.digest);
    replace_by_other_content(&second);
}

static void test_name_that_went_to_another_namespace_stands_for_that(void **state)
{
    (void)state;
    struct kvbi_adoption second = content(0, 9);
    assert_int_equal(kvbi_namespaces_open(&f.store.namespaces, &f.store.hash, "a", 1, NULL, 0,
                                          &second.namespace_id),
                     0);
    replace_by_other_content(&second);
}

static void test_name_that_got_another_parent_stands_for_that(void **state)
{
    (void)state;
    struct kvbi_adoption second = content(0, 9);
    second.has_parent = true;
    second.parent_hash = 77;
    replace_by_other_content(&second);
}

static void test_name_that_got_other_content_is_announced_anew(void **state)
{
    (void)state;
    static const uint32_t kinds[] = {KVB_EVENT_STORED, KVB_EVENT_REMOVED, KVB_EVENT_STORED};
    struct kvbi_event_item item;
    struct kvbi_adoption second = content(0, 9);
    second.has_parent = true;
    second.parent_hash = 77;
    replace_by_other_content(&second);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(kvbi_event_log_pop(&f.store.events, &item));
        assert_int_equal(item.kind, kinds[i]);
        assert_int_equal(item.has_parent, i == 2);
    }
    assert_false(kvbi_event_log_pop(&f.store.events, &item));
}

static void test_impossible_values_are_refused(void **state)
{
    (void)state;
    struct kvbi_adoption zero = content(0, 1), last = content(1, 2), beyond = content(2, SLOTS),
                         high = content(3, 4);
    zero.generation = 0;
    last.generation = KVBI_GENERATION_MAX;
    high.priority = KVB_PRIORITY_MAX + 1;
    refuse(&zero);
    refuse(&last);
    refuse(&beyond);
    refuse(&high);
    end();
    assert_int_equal(f.pool->free_count, SLOTS);
    assert_int_equal(f.store.index.count, 0);
}

static void test_slot_is_adopted_once(void **state)
{
    (void)state;
    struct kvbi_adoption first = content(0, 3), second = content(1, 3);
    adopt_one(&first);
    refuse(&second);
    end();
    assert_false(is_found(1));
}

static void test_keyed_block_is_found_by_its_key_only(void **state)
{
    (void)state;
    static const char own[KEY] = "childkey", parent[KEY] = "parentky", stranger[KEY] = "stranger";
    struct kvbi_adoption adoption = content(1, 3);
    adoption.key = own;
    adoption.parent_key = parent;
    adopt_one(&adoption);
    end();
    assert_int_equal(kvbi_store_find_locked(&f.store, adoption.name.hash, stranger), KVBI_NONE);
    uint32_t id = kvbi_store_find_locked(&f.store, adoption.name.hash, own);
    assert_int_not_equal(id, KVBI_NONE);
    assert_memory_equal(kvbi_index_parent_key(&f.store.index, id), parent, KEY);
}

static void test_key_that_got_another_parent_has_that_one(void **state)
{
    (void)state;
    static const char own[KEY] = "childkey", parent[KEY] = "parentky", stranger[KEY] = "stranger";
    struct kvbi_adoption first = content(1, 3), second = content(1, 4);
    uint32_t other = KVBI_NONE;
    first.key = second.key = own;
    first.parent_key = parent;
    second.parent_key = stranger;
    adopt(&first);
    assert_int_equal(kvbi_store_adopt_locked(&f.store, f.pool, &second, &other),
                     KVBI_ADOPT_PRESENT);
    kvbi_store_adopt_replace_locked(&f.store, f.pool, &second, other);
    put_in_order(4);
    end();
    uint32_t id = kvbi_store_find_locked(&f.store, second.name.hash, own);
    assert_int_not_equal(id, KVBI_NONE);
    assert_memory_equal(kvbi_index_parent_key(&f.store.index, id), stranger, KEY);
}

/* ---- Slots that are not adopted ----------------------------------------------------------------------------------- */

static void test_free_slots_are_given_out_from_the_lowest_on(void **state)
{
    (void)state;
    struct kvbi_adoption first = content(0, 0), second = content(1, 2);
    adopt_one(&first);
    adopt_one(&second);
    end();
    assert_int_equal(take_slot(), 1);
    assert_int_equal(take_slot(), 3);
}

static void test_slot_with_a_known_generation_begins_with_the_next(void **state)
{
    (void)state;
    kvbi_store_adopt_generation_locked(&f.store, f.pool, 0, 41);
    kvbi_store_adopt_generation_locked(&f.store, f.pool, 0, 40);
    end();
    assert_int_equal(take_slot(), 0);
    assert_int_equal(generation_of(0), 42);
}

static void test_slot_without_a_generation_left_is_retired(void **state)
{
    (void)state;
    kvbi_store_adopt_generation_locked(&f.store, f.pool, 0, KVBI_GENERATION_MAX);
    end();
    assert_int_equal(take_slot(), 1);
    assert_int_equal(f.pool->slots[0].place, KVBI_PLACE_RETIRED);
}

static void test_retired_slot_is_never_given_out(void **state)
{
    (void)state;
    kvbi_store_adopt_retired_locked(&f.store, f.pool, 4);
    end();
    for (uint32_t i = 0; i < SLOTS - 1; i++)
        assert_int_not_equal(take_slot(), 4);
    assert_int_equal(take_slot(), KVBI_NONE);
    assert_int_equal(f.pool->retired_count, 1);
    assert_int_equal(f.pool->paths[0].retired, 1);
}

/* ---- Order -------------------------------------------------------------------------------------------------------- */

static void test_eviction_goes_in_the_order_that_was_given(void **state)
{
    (void)state;
    static const uint32_t order[] = {2, 0, 3, 1};
    for (uint32_t i = 0; i < 4; i++) {
        struct kvbi_adoption adoption = content(i, i);
        adopt(&adoption);
    }
    for (uint32_t i = 0; i < 4; i++)
        put_in_order(order[i]);
    end();
    for (uint32_t i = 4; i < SLOTS; i++)
        assert_int_equal(take_slot(), i);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(take_slot(), order[i]);
}

static void test_eviction_takes_adopted_blocks_of_low_priority_first(void **state)
{
    (void)state;
    static const uint8_t priorities[] = {90, 10, 35};
    uint32_t order[SLOTS];
    for (uint32_t i = 0; i < 3; i++) {
        struct kvbi_adoption adoption = content(i, i);
        adoption.priority = priorities[i];
        adopt_one(&adoption);
    }
    end();
    assert_int_equal(kvbi_pool_order(f.pool, order, SLOTS), 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 2);
    assert_int_equal(order[2], 0);
}

static void test_evicted_block_is_forgotten_and_its_slot_has_a_later_generation(void **state)
{
    (void)state;
    struct kvbi_adoption adoption = content(0, 0);
    adopt_one(&adoption);
    end();
    for (uint32_t i = 1; i < SLOTS; i++)
        assert_int_equal(take_slot(), i);
    assert_int_equal(take_slot(), 0);
    assert_false(is_found(0));
    assert_int_equal(generation_of(0), 6);
    check();
}

/* Ages are a permutation of the slots: multiplication by a number without common factor. */
static uint32_t slot_of_age(uint32_t age)
{
    return (uint32_t)((uint64_t)age * 1999 % MANY);
}

static void test_order_of_many_is_what_was_given(void **state)
{
    (void)state;
    static uint32_t order[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        struct kvbi_adoption adoption = content(i, i);
        adopt(&adoption);
    }
    for (uint32_t age = 0; age < MANY; age++)
        put_in_order(slot_of_age(age));
    end();
    assert_int_equal(kvbi_pool_order(f.pool, order, 10), 10);
    assert_int_equal(kvbi_pool_order(f.pool, order, MANY), MANY);
    for (uint32_t age = 0; age < MANY; age++)
        assert_int_equal(order[age], slot_of_age(age));
}

/* Contents [0, count) are in slots [0, count), put in the order of `slots`; what eviction takes, from the first on. */
static void order_by_writes(const uint32_t *slots, uint32_t count, uint32_t *order)
{
    for (uint32_t i = 0; i < count; i++) {
        struct kvbi_adoption adoption = content(i, i);
        adopt(&adoption);
    }
    kvbi_store_adopt_order_locked(&f.store, f.pool, slots, count, true);
    end();
    assert_int_equal(kvbi_pool_order(f.pool, order, SLOTS), count);
}

static void test_written_order_puts_children_below_their_parents(void **state)
{
    (void)state;
    static const uint32_t slots[] = {0, 1, 2, 3};
    uint32_t order[SLOTS];
    order_by_writes(slots, 4, order);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(order[i], 3 - i);
}

/* Content 2 was written first, and is older than its parent anyway. */
static void test_written_order_leaves_a_child_that_is_older_than_its_parent(void **state)
{
    (void)state;
    static const uint32_t slots[] = {2, 0, 1}, expected[] = {2, 1, 0};
    uint32_t order[SLOTS];
    order_by_writes(slots, 3, order);
    assert_memory_equal(order, expected, sizeof expected);
}

static void test_written_order_leaves_a_child_of_another_priority_than_its_parent(void **state)
{
    (void)state;
    static const uint32_t slots[] = {0, 1};
    uint32_t order[SLOTS];
    struct kvbi_adoption parent = content(0, 0), child = content(1, 1);
    child.priority = 90;
    adopt(&parent);
    adopt(&child);
    kvbi_store_adopt_order_locked(&f.store, f.pool, slots, 2, true);
    end();
    assert_int_equal(kvbi_pool_order(f.pool, order, SLOTS), 2);
    assert_int_equal(order[0], 0);
}

static void test_block_that_is_held_is_the_last_of_the_order(void **state)
{
    (void)state;
    uint32_t order[SLOTS];
    for (uint32_t i = 0; i < 3; i++) {
        struct kvbi_adoption adoption = content(i, i);
        adopt_one(&adoption);
    }
    end();
    assert_int_equal(kvbi_store_hold_locked(&f.store, f.pool, &f.pool->slots[0]), 0);
    assert_int_equal(kvbi_pool_order(f.pool, order, SLOTS), 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 2);
    assert_int_equal(order[2], 0);
    assert_int_equal(kvbi_pool_order(f.pool, order, 2), 2);
    (void)kvbi_store_release_locked(&f.store, f.pool, &f.pool->slots[0], 1);
}

static void test_block_that_is_held_but_forgotten_is_not_in_the_order(void **state)
{
    (void)state;
    uint32_t order[SLOTS];
    struct kvbi_adoption adoption = content(0, 0);
    adopt_one(&adoption);
    end();
    assert_int_equal(kvbi_store_hold_locked(&f.store, f.pool, &f.pool->slots[0]), 0);
    kvbi_store_forget_locked(&f.store, f.pool->slots[0].entry);
    assert_int_equal(kvbi_pool_order(f.pool, order, SLOTS), 0);
    (void)kvbi_store_release_locked(&f.store, f.pool, &f.pool->slots[0], 1);
}

/* ---- Afterwards --------------------------------------------------------------------------------------------------- */

static void move(struct kvb_block *block, enum kvbi_event event, uint32_t count)
{
    const struct kvbi_move move = {.tokens_per_block = TOKENS, .count = count};
    assert_int_equal(kvbi_life_move(block, event, &move, NULL), 0);
}

/* A computed block of content `number`, registered in DEVICE and held. */
static struct kvb_block *compute(uint32_t number)
{
    struct kvbi_pool *device = &f.store.pools[KVB_TIER_DEVICE];
    struct kvb_block *block = kvbi_store_take_locked(&f.store, device, true, KVB_PRIORITY_MAX, 1);
    assert_non_null(block);
    kvbi_store_record(&f.store, block->record)->name = content(number, 0).name;
    move(block, KVBI_EVENT_INIT, 0);
    move(block, KVBI_EVENT_APPEND, TOKENS);
    move(block, KVBI_EVENT_SCHEDULE, 0);
    move(block, KVBI_EVENT_COMPUTE_DONE, TOKENS);
    assert_int_equal(kvbi_store_register_locked(&f.store, device, &block, false, 1), 0);
    return block;
}

static void test_content_computed_again_joins_the_adopted_copy(void **state)
{
    (void)state;
    struct kvbi_adoption adoption = content(0, 3);
    adopt_one(&adoption);
    end();
    struct kvb_block *block = compute(0);
    assert_int_equal(f.store.index.count, 1);
    assert_int_equal(kvbi_index_at(&f.store.index, block->entry)->ready,
                     1u << KVB_TIER_DEVICE | 1u << DISK);
    assert_int_equal(kvbi_store_release_locked(&f.store, &f.store.pools[KVB_TIER_DEVICE], block, 2),
                     KVBI_RELEASE_PARKED);
    check();
}

static void test_clear_forgets_adopted_blocks(void **state)
{
    (void)state;
    uint32_t cursor = 0;
    uint64_t removed = 0;
    struct kvbi_adoption adoption = content(0, 3);
    adopt_one(&adoption);
    end();
    assert_int_equal(f.store.clears, 0);
    kvbi_store_begin_clear_locked(&f.store);
    assert_int_equal(f.store.clears, 1);
    assert_false(is_found(0));
    assert_false(kvbi_store_sweep_locked(&f.store, &cursor, NULL, &removed));
    assert_int_equal(f.pool->free_count, SLOTS);
    check();
}

int main(void)
{
#define ADOPT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        ADOPT_TEST(test_adopted_run_is_matched_by_tokens_in_its_slots),
        ADOPT_TEST(test_adopted_block_of_another_namespace_is_not_matched),
        ADOPT_TEST(test_adopted_block_without_its_parent_is_not_matched_as_a_root),
        ADOPT_TEST(test_adopted_block_has_the_generation_of_its_file),
        ADOPT_TEST(test_adopted_block_is_announced),
        ADOPT_TEST(test_content_in_two_slots_names_the_one_that_came_first),
        ADOPT_TEST(test_replaced_slot_is_free_and_the_new_one_is_found),
        ADOPT_TEST(test_name_that_got_another_digest_stands_for_that),
        ADOPT_TEST(test_name_that_lost_its_digest_stands_for_that),
        ADOPT_TEST(test_name_that_went_to_another_namespace_stands_for_that),
        ADOPT_TEST(test_name_that_got_another_parent_stands_for_that),
        ADOPT_TEST(test_name_that_got_other_content_is_announced_anew),
        ADOPT_TEST(test_impossible_values_are_refused),
        ADOPT_TEST(test_slot_is_adopted_once),
        cmocka_unit_test_setup_teardown(test_keyed_block_is_found_by_its_key_only, setup_keyed,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_key_that_got_another_parent_has_that_one, setup_keyed,
                                        teardown),
        ADOPT_TEST(test_free_slots_are_given_out_from_the_lowest_on),
        ADOPT_TEST(test_slot_with_a_known_generation_begins_with_the_next),
        ADOPT_TEST(test_slot_without_a_generation_left_is_retired),
        ADOPT_TEST(test_retired_slot_is_never_given_out),
        ADOPT_TEST(test_eviction_goes_in_the_order_that_was_given),
        ADOPT_TEST(test_eviction_takes_adopted_blocks_of_low_priority_first),
        ADOPT_TEST(test_evicted_block_is_forgotten_and_its_slot_has_a_later_generation),
        cmocka_unit_test_setup_teardown(test_order_of_many_is_what_was_given, setup_many, teardown),
        ADOPT_TEST(test_written_order_puts_children_below_their_parents),
        ADOPT_TEST(test_written_order_leaves_a_child_that_is_older_than_its_parent),
        ADOPT_TEST(test_written_order_leaves_a_child_of_another_priority_than_its_parent),
        ADOPT_TEST(test_block_that_is_held_is_the_last_of_the_order),
        ADOPT_TEST(test_block_that_is_held_but_forgotten_is_not_in_the_order),
        ADOPT_TEST(test_content_computed_again_joins_the_adopted_copy),
        ADOPT_TEST(test_clear_forgets_adopted_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
