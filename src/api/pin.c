/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins with an owner: a handle that the library keeps in somebody's name.
 *
 * Callers    the public. Lock: the store's, in turns of KVBI_LOCK_BATCH blocks. The table of pins
 *            is store/pins.
 */
#include "api/explain.h"
#include "api/manager.h"

static int check_owner(struct kvb_manager *manager, enum kvbi_call call, uint64_t owner)
{
    return owner != 0
               ? 0
               : kvbi_refuse(manager, call, KVB_EINVAL, "owner is 0, must be any other number");
}

static int pin_locked(struct kvb_manager *manager, uint64_t owner, struct kvb_block *block,
                      uint64_t deadline_ns)
{
    int error = kvbi_slot_ref(block);
    if (error != 0)
        return error;
    error = kvbi_pins_add(kvbi_store_pins(&manager->store), owner, block, deadline_ns);
    if (error != 0)
        (void)kvbi_slot_unref_shared(block); /* the caller's own handle is there as well */
    return error;
}

int kvb_pin(struct kvb_manager *manager, uint64_t owner, struct kvb_block *const *blocks,
            uint32_t count, uint64_t lifetime_ns, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_PIN, "blocks", blocks, count);
    if (error == 0)
        error = check_owner(manager, KVBI_CALL_PIN, owner);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_PIN, "blocks", count, results);
    struct kvbi_section section = {.manager = manager};
    uint64_t now_ns = kvbi_clock_now(&manager->clock);
    uint64_t deadline_ns =
        lifetime_ns == 0 || lifetime_ns > UINT64_MAX - now_ns ? 0 : now_ns + lifetime_ns;
    for (uint32_t i = 0; i < count; i++) {
        int result = kvbi_held_pool(manager, blocks[i]) == NULL ? KVB_EINVAL : 0;
        if (result == 0) {
            kvbi_section_next(&section);
            result = pin_locked(manager, owner, blocks[i], deadline_ns);
        }
        kvbi_note(&roll, i, result);
    }
    kvbi_section_end(&section);
    if (deadline_ns != 0)
        kvbi_progress_wake(&manager->progress); /* it may have to wake earlier than it thought */
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_pin(&roll, blocks[roll.told_at]);
    return kvbi_roll_end(&roll);
}

int kvb_unpin(struct kvb_manager *manager, uint64_t owner, struct kvb_block *const *blocks,
              uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_UNPIN, "blocks", blocks, count);
    if (error == 0)
        error = check_owner(manager, KVBI_CALL_UNPIN, owner);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_UNPIN, "blocks", count, results);
    struct kvbi_section section = {.manager = manager};
    for (uint32_t i = count; i-- > 0;) {
        struct kvbi_pool *pool = kvbi_held_pool(manager, blocks[i]); /* what is pinned is held */
        int result = pool == NULL ? KVB_EINVAL : 0;
        if (pool != NULL) {
            kvbi_section_next(&section);
            result = kvbi_pins_remove(kvbi_store_pins(&manager->store), owner, blocks[i]);
            if (result == 0)
                kvbi_section_unref(&section, pool, blocks[i]);
        }
        kvbi_note(&roll, i, result);
    }
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_unpin(&roll, blocks[roll.told_at], owner);
    return kvbi_roll_end(&roll);
}

int kvb_unpin_all(struct kvb_manager *manager, uint64_t owner, uint32_t *released)
{
    uint32_t count = 0;
    int error = kvbi_enter(manager);
    if (released != NULL)
        *released = 0;
    if (error == 0)
        error = check_owner(manager, KVBI_CALL_UNPIN_ALL, owner);
    if (error != 0)
        return error;
    struct kvbi_section section = {.manager = manager};
    struct kvb_block *block;
    kvbi_section_next(&section);
    while ((block = kvbi_pins_pop_owner(kvbi_store_pins(&manager->store), owner)) != NULL) {
        kvbi_section_unref(&section, kvbi_store_pool_of(&manager->store, block), block);
        count++;
        kvbi_section_next(&section);
    }
    kvbi_section_end(&section);
    if (released != NULL)
        *released = count;
    return 0;
}
