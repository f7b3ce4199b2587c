/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adoption: what outlived a process is found again, and nothing else is.
 */
#include "support/adopt_scene.h"

#include "store/contents.h"

static void refuse(struct adopt_scene *scene, const struct kvbi_adoption *adoption)
{
    uint32_t other;
    assert_int_equal(kvbi_store_adopt_locked(&scene->store, scene->pool, adoption, &other),
                     KVBI_ADOPT_REFUSED);
}

/*
 * Where a match by tokens of contents [0, count) ends, with the slot of the last one. Holds nothing
 * afterwards.
 */
static uint32_t match_in(struct adopt_scene *scene, uint32_t namespace_id, uint32_t count,
                         uint32_t *slot)
{
    /* those of a content on disk only are known by its digest */
    static const uint32_t tokens[ADOPT_SLOTS * ADOPT_TOKENS];
    struct kvb_seq names[ADOPT_SLOTS];
    struct kvb_hit hits[ADOPT_SLOTS];
    int error = 0;
    for (uint32_t i = 0; i < count; i++)
        names[i] = adopt_content(i, 0).name;
    const struct kvbi_probe probe = {
        .names = names, .tokens = tokens, .namespace_id = namespace_id, .count = count};
    uint32_t found = kvbi_store_match_locked(&scene->store, &probe, hits, &error);
    assert_int_equal(error, 0);
    for (uint32_t i = 0; i < found; i++) {
        *slot = hits[i].slot;
        assert_int_equal(hits[i].tier, KVB_TIER_DISK);
        (void)kvbi_store_unref_locked(&scene->store, scene->pool, hits[i].block, 1);
    }
    return found;
}

static void test_adopted_run_is_matched_by_tokens_in_its_slots(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t slot = KVBI_NONE;
    for (uint32_t i = 0; i < 3; i++) {
        struct kvbi_adoption adoption = adopt_content(i, 7 - i);
        adopt_one(scene, &adoption);
    }
    adopt_end(scene);
    assert_int_equal(match_in(scene, 0, 4, &slot), 3);
    assert_int_equal(slot, 5);
}

static void test_adopted_block_of_another_namespace_is_not_matched(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t slot, space;
    assert_int_equal(
        kvbi_namespaces_open(&scene->store.namespaces, &scene->store.hash, "a", 1, NULL, 0, &space),
        0);
    struct kvbi_adoption adoption = adopt_content(0, 3);
    adoption.namespace_id = space;
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_int_equal(match_in(scene, 0, 1, &slot), 0);
    assert_int_equal(match_in(scene, space, 1, &slot), 1);
}

static void test_adopted_block_without_its_parent_is_not_matched_as_a_root(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t slot;
    struct kvbi_adoption adoption = adopt_content(0, 3);
    adoption.has_parent = true;
    adoption.parent_hash = 77;
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_int_equal(match_in(scene, 0, 1, &slot), 0);
}

static void test_adopted_block_has_the_generation_of_its_file(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption adoption = adopt_content(0, 3);
    adoption.generation = 12345;
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_int_equal(adopt_generation(scene, 3), 12345);
}

static void test_adopted_block_is_announced(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_event_item item;
    struct kvbi_adoption adoption = adopt_content(1, 3);
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_true(kvbi_event_log_pop(&scene->store.events, &item));
    assert_int_equal(item.kind, KVB_EVENT_STORED);
    assert_int_equal(item.tier, KVB_TIER_DISK);
    assert_memory_equal(item.key, &adoption.name, sizeof adoption.name);
    assert_true(item.has_parent);
    assert_false(kvbi_event_log_pop(&scene->store.events, &item));
}

static void test_content_in_two_slots_names_the_one_that_came_first(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t other = KVBI_NONE;
    struct kvbi_adoption first = adopt_content(0, 3), second = adopt_content(0, 9);
    adopt_one(scene, &first);
    assert_int_equal(kvbi_store_adopt_locked(&scene->store, scene->pool, &second, &other),
                     KVBI_ADOPT_PRESENT);
    assert_int_equal(other, 3);
    adopt_end(scene);
    assert_int_equal(match_in(scene, 0, 1, &other), 1);
    assert_int_equal(other, 3);
    assert_int_equal(scene->pool->free_count, ADOPT_SLOTS - 1);
}

static void test_replaced_slot_is_free_and_the_new_one_is_found(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t other = KVBI_NONE;
    struct kvbi_adoption first = adopt_content(0, 3), second = adopt_content(0, 9);
    second.generation = 8;
    second.priority = 80;
    adopt(scene, &first);
    assert_int_equal(kvbi_store_adopt_locked(&scene->store, scene->pool, &second, &other),
                     KVBI_ADOPT_PRESENT);
    kvbi_store_adopt_replace_locked(&scene->store, scene->pool, &second, other);
    adopt_in_order(scene, 9);
    adopt_end(scene);
    assert_int_equal(match_in(scene, 0, 1, &other), 1);
    assert_int_equal(other, 9);
    assert_int_equal(adopt_generation(scene, 9), 8);
    assert_int_equal(scene->pool->slots[9].priority, 80);
    assert_int_equal(scene->pool->slots[3].place, KVBI_PLACE_FREE);
    assert_int_equal(adopt_generation(scene, 3), 6);
    /* the content was stored in this tier all the time */
    assert_int_equal(scene->store.events.sequence, 1);
}

/* Slot 3 holds something under the name that `second` has too, and is superseded by it. */
static void replace_by_other_content(struct adopt_scene *scene, const struct kvbi_adoption *second)
{
    uint32_t other = KVBI_NONE;
    struct kvbi_adoption first = adopt_content(0, 3);
    adopt(scene, &first);
    assert_int_equal(kvbi_store_adopt_locked(&scene->store, scene->pool, second, &other),
                     KVBI_ADOPT_PRESENT);
    assert_int_equal(other, 3);
    kvbi_store_adopt_replace_locked(&scene->store, scene->pool, second, other);
    adopt_in_order(scene, second->slot);
    adopt_end(scene);
    assert_int_equal(scene->pool->parked_count, 1);
    assert_int_equal(scene->pool->slots[3].place, KVBI_PLACE_FREE);
    uint32_t id = kvbi_store_find_locked(&scene->store, second->name.hash, NULL);
    assert_int_not_equal(id, KVBI_NONE);
    const struct kvbi_entry *entry = kvbi_index_at(&scene->store.index, id);
    assert_int_equal(entry->copies[KVB_TIER_DISK], second->slot);
    assert_memory_equal(&entry->name, &second->name, sizeof entry->name);
    assert_int_equal(entry->namespace_id, second->namespace_id);
    assert_int_equal(entry->flags, second->has_parent ? KVBI_ENTRY_HAS_PARENT : 0);
    assert_int_equal(entry->parent_hash, second->parent_hash);
}

static void test_name_that_got_another_digest_stands_for_that(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption second = adopt_content(0, 9);
    second.name.digest[1]++;
    replace_by_other_content(scene, &second);
}

static void test_name_that_lost_its_digest_stands_for_that(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption second = adopt_content(0, 9);
    memset(second.name.digest, 0, sizeof second.name.digest);
    replace_by_other_content(scene, &second);
}

static void test_name_that_went_to_another_namespace_stands_for_that(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption second = adopt_content(0, 9);
    assert_int_equal(kvbi_namespaces_open(&scene->store.namespaces, &scene->store.hash, "a", 1,
                                          NULL, 0, &second.namespace_id),
                     0);
    replace_by_other_content(scene, &second);
}

static void test_name_that_got_another_parent_stands_for_that(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption second = adopt_content(0, 9);
    second.has_parent = true;
    second.parent_hash = 77;
    replace_by_other_content(scene, &second);
}

static void test_name_that_got_other_content_is_announced_anew(void **state)
{
    struct adopt_scene *scene = *state;
    static const uint32_t kinds[] = {KVB_EVENT_STORED, KVB_EVENT_REMOVED, KVB_EVENT_STORED};
    struct kvbi_event_item item;
    struct kvbi_adoption second = adopt_content(0, 9);
    second.has_parent = true;
    second.parent_hash = 77;
    replace_by_other_content(scene, &second);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(kvbi_event_log_pop(&scene->store.events, &item));
        assert_int_equal(item.kind, kinds[i]);
        assert_int_equal(item.has_parent, i == 2);
    }
    assert_false(kvbi_event_log_pop(&scene->store.events, &item));
}

static void test_impossible_values_are_refused(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption zero = adopt_content(0, 1), last = adopt_content(1, 2),
                         beyond = adopt_content(2, ADOPT_SLOTS), high = adopt_content(3, 4);
    zero.generation = 0;
    last.generation = KVBI_GENERATION_MAX;
    high.priority = KVB_PRIORITY_MAX + 1;
    refuse(scene, &zero);
    refuse(scene, &last);
    refuse(scene, &beyond);
    refuse(scene, &high);
    adopt_end(scene);
    assert_int_equal(scene->pool->free_count, ADOPT_SLOTS);
    assert_int_equal(scene->store.index.count, 0);
}

static void test_slot_is_adopted_once(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption first = adopt_content(0, 3), second = adopt_content(1, 3);
    adopt_one(scene, &first);
    refuse(scene, &second);
    adopt_end(scene);
    assert_false(adopt_found(scene, 1));
}

static void test_keyed_block_is_found_by_its_key_only(void **state)
{
    struct adopt_scene *scene = *state;
    static const char own[ADOPT_KEY] = "childkey", parent[ADOPT_KEY] = "parentky",
                      stranger[ADOPT_KEY] = "stranger";
    struct kvbi_adoption adoption = adopt_content(1, 3);
    adoption.key = own;
    adoption.parent_key = parent;
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_int_equal(kvbi_store_find_locked(&scene->store, adoption.name.hash, stranger),
                     KVBI_NONE);
    uint32_t id = kvbi_store_find_locked(&scene->store, adoption.name.hash, own);
    assert_int_not_equal(id, KVBI_NONE);
    assert_memory_equal(kvbi_index_parent_key(&scene->store.index, id), parent, ADOPT_KEY);
}

static void test_key_that_got_another_parent_has_that_one(void **state)
{
    struct adopt_scene *scene = *state;
    static const char own[ADOPT_KEY] = "childkey", parent[ADOPT_KEY] = "parentky",
                      stranger[ADOPT_KEY] = "stranger";
    struct kvbi_adoption first = adopt_content(1, 3), second = adopt_content(1, 4);
    uint32_t other = KVBI_NONE;
    first.key = second.key = own;
    first.parent_key = parent;
    second.parent_key = stranger;
    adopt(scene, &first);
    assert_int_equal(kvbi_store_adopt_locked(&scene->store, scene->pool, &second, &other),
                     KVBI_ADOPT_PRESENT);
    kvbi_store_adopt_replace_locked(&scene->store, scene->pool, &second, other);
    adopt_in_order(scene, 4);
    adopt_end(scene);
    uint32_t id = kvbi_store_find_locked(&scene->store, second.name.hash, own);
    assert_int_not_equal(id, KVBI_NONE);
    assert_memory_equal(kvbi_index_parent_key(&scene->store.index, id), stranger, ADOPT_KEY);
}

/* ---- Afterwards ------------------------------------------------------------------------------ */

static void move(struct kvb_block *block, enum kvbi_edge edge, uint32_t count)
{
    const struct kvbi_move move = {.tokens_per_block = ADOPT_TOKENS, .count = count};
    assert_int_equal(kvbi_life_move(block, edge, &move, NULL), 0);
}

/* A computed block of content `number`, registered in DEVICE and held. */
static struct kvb_block *compute(struct adopt_scene *scene, uint32_t number)
{
    struct kvbi_pool *device = &scene->store.pools[KVB_TIER_DEVICE];
    struct kvb_block *block =
        kvbi_store_take_locked(&scene->store, device, true, KVB_PRIORITY_MAX, 1);
    assert_non_null(block);
    kvbi_store_record(&scene->store, block->record)->name = adopt_content(number, 0).name;
    move(block, KVBI_EDGE_INIT, 0);
    move(block, KVBI_EDGE_APPEND, ADOPT_TOKENS);
    move(block, KVBI_EDGE_SCHEDULE, 0);
    move(block, KVBI_EDGE_COMPUTE_DONE, ADOPT_TOKENS);
    assert_int_equal(kvbi_store_register_locked(&scene->store, device, &block, false, 1), 0);
    return block;
}

static void test_content_computed_again_joins_the_adopted_copy(void **state)
{
    struct adopt_scene *scene = *state;
    struct kvbi_adoption adoption = adopt_content(0, 3);
    adopt_one(scene, &adoption);
    adopt_end(scene);
    struct kvb_block *block = compute(scene, 0);
    assert_int_equal(scene->store.index.count, 1);
    assert_int_equal(kvbi_index_at(&scene->store.index, block->entry)->ready,
                     1u << KVB_TIER_DEVICE | 1u << KVB_TIER_DISK);
    assert_int_equal(
        kvbi_store_unref_locked(&scene->store, &scene->store.pools[KVB_TIER_DEVICE], block, 2),
        KVBI_UNREF_PARKED);
    adopt_check(scene);
}

static void test_clear_forgets_adopted_blocks(void **state)
{
    struct adopt_scene *scene = *state;
    uint32_t cursor = 0;
    uint64_t removed = 0;
    struct kvbi_adoption adoption = adopt_content(0, 3);
    adopt_one(scene, &adoption);
    adopt_end(scene);
    assert_int_equal(scene->store.clears, 0);
    kvbi_store_begin_clear_locked(&scene->store);
    assert_int_equal(scene->store.clears, 1);
    assert_false(adopt_found(scene, 0));
    assert_false(kvbi_store_sweep_locked(&scene->store, &cursor, NULL, &removed));
    assert_int_equal(scene->pool->free_count, ADOPT_SLOTS);
    adopt_check(scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(adopt_scene, test_adopted_run_is_matched_by_tokens_in_its_slots),
        TEST(adopt_scene, test_adopted_block_of_another_namespace_is_not_matched),
        TEST(adopt_scene, test_adopted_block_without_its_parent_is_not_matched_as_a_root),
        TEST(adopt_scene, test_adopted_block_has_the_generation_of_its_file),
        TEST(adopt_scene, test_adopted_block_is_announced),
        TEST(adopt_scene, test_content_in_two_slots_names_the_one_that_came_first),
        TEST(adopt_scene, test_replaced_slot_is_free_and_the_new_one_is_found),
        TEST(adopt_scene, test_name_that_got_another_digest_stands_for_that),
        TEST(adopt_scene, test_name_that_lost_its_digest_stands_for_that),
        TEST(adopt_scene, test_name_that_went_to_another_namespace_stands_for_that),
        TEST(adopt_scene, test_name_that_got_another_parent_stands_for_that),
        TEST(adopt_scene, test_name_that_got_other_content_is_announced_anew),
        TEST(adopt_scene, test_impossible_values_are_refused),
        TEST(adopt_scene, test_slot_is_adopted_once),
        TEST(adopt_keyed, test_keyed_block_is_found_by_its_key_only),
        TEST(adopt_keyed, test_key_that_got_another_parent_has_that_one),
        TEST(adopt_scene, test_content_computed_again_joins_the_adopted_copy),
        TEST(adopt_scene, test_clear_forgets_adopted_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
