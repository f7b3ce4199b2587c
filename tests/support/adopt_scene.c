/* SPDX-License-Identifier: Apache-2.0 */
/* See adopt_scene.h. */
#include "support/adopt_scene.h"

#include "store/contents.h"

#include <stdlib.h>

static int open_store(void **state, uint32_t slots, uint32_t key_bytes)
{
    struct adopt_scene *scene = calloc(1, sizeof *scene);
    *state = scene;
    if (scene == NULL)
        return -1;
    scene->memory = failing_memory(&scene->failing, INT64_MAX);
    kvbi_clock_init(&scene->clock, NULL);
    kvbi_log_init(&scene->log, NULL);
    const struct kvbi_store_config config = {
        .memory = &scene->memory,
        .clock = &scene->clock,
        .log = &scene->log,
        .hash = kvbi_hash_select(KVBI_ISA_BASELINE),
        .digest_seed = 7,
        .tokens_per_block = ADOPT_TOKENS,
        .key_bytes = key_bytes,
        .policy = kvbi_policy_find(NULL),
        .block_counts = {[KVB_TIER_DEVICE] = 4, [KVB_TIER_DISK] = slots},
        .on_disk = {[KVB_TIER_DISK] = true},
        .event_capacity = 64,
        .pin_capacity = 4,
        .namespace_capacity = 4};
    if (kvbi_store_create(&scene->store, &config) != 0)
        return -1;
    scene->pool = &scene->store.pools[KVB_TIER_DISK];
    kvbi_lock_take(&scene->store.lock);
    kvbi_store_adopt_begin_locked(&scene->store, scene->pool);
    return 0;
}

int adopt_scene_setup(void **state)
{
    return open_store(state, ADOPT_SLOTS, 0);
}

int adopt_keyed_setup(void **state)
{
    return open_store(state, ADOPT_SLOTS, ADOPT_KEY);
}

int adopt_many_setup(void **state)
{
    return open_store(state, ADOPT_MANY, 0);
}

int adopt_scene_teardown(void **state)
{
    struct adopt_scene *scene = *state;
    kvbi_lock_release(&scene->store.lock);
    kvbi_store_destroy(&scene->store);
    bool back = failing_memory_is_back(&scene->failing);
    free(scene);
    return back ? 0 : -1;
}

struct kvbi_adoption adopt_content(uint32_t number, uint32_t slot)
{
    return (struct kvbi_adoption){
        .slot = slot,
        .generation = 5,
        .name = {.hash = 1000 + number, .digest = {number, ~(uint64_t)number}},
        .parent_hash = number > 0 ? 999 + number : 0,
        .has_parent = number > 0,
        .priority = KVB_PRIORITY_DEFAULT};
}

void adopt(struct adopt_scene *scene, const struct kvbi_adoption *adoption)
{
    uint32_t other;
    kvbi_store_adopt_warm_locked(&scene->store, adoption->name.hash);
    assert_int_equal(kvbi_store_adopt_locked(&scene->store, scene->pool, adoption, &other),
                     KVBI_ADOPTED);
}

void adopt_in_order(struct adopt_scene *scene, uint32_t slot)
{
    kvbi_store_adopt_order_locked(&scene->store, scene->pool, &slot, 1, false);
}

void adopt_one(struct adopt_scene *scene, const struct kvbi_adoption *adoption)
{
    adopt(scene, adoption);
    adopt_in_order(scene, adoption->slot);
}

void adopt_check(struct adopt_scene *scene)
{
    const char *wrong = kvbi_store_check_locked(&scene->store);
    if (wrong != NULL)
        print_error("invariant broken: %s\n", wrong);
    assert_null(wrong);
}

void adopt_end(struct adopt_scene *scene)
{
    kvbi_store_adopt_end_locked(&scene->store, scene->pool);
    adopt_check(scene);
}

bool adopt_found(struct adopt_scene *scene, uint32_t number)
{
    return kvbi_store_find_locked(&scene->store, 1000 + number, NULL) != KVBI_NONE;
}

uint64_t adopt_generation(struct adopt_scene *scene, uint32_t slot)
{
    return kvbi_word_generation(atomic_load(&scene->pool->slots[slot].word));
}

uint32_t adopt_take_slot(struct adopt_scene *scene)
{
    struct kvb_block *block =
        kvbi_store_take_locked(&scene->store, scene->pool, false, KVB_PRIORITY_MAX, 1);
    return block != NULL ? kvbi_pool_slot(scene->pool, block) : KVBI_NONE;
}
