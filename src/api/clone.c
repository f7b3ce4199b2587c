/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second block with the names of a first, for forks and beams.
 *
 * Callers    the public. Lock: the store's, for the head of the record that knows the names; tokens
 *            are copied without it.
 */
#include <string.h>

#include "api/given.h"
#include "api/manager.h"

/* The moment too: a clone is no younger than the bytes that it will get. */
static void copy_head(const struct kvbi_record_shape *shape, struct kvbi_record *from,
                      struct kvbi_record *to)
{
    uint32_t users = to->users;
    *to = *from;
    to->users = users;
    memcpy(kvbi_record_key(to), kvbi_record_key(from), 2 * (size_t)shape->key_bytes);
}

/*
 * Names from `source` to `to`, and its record with one user more, for the tokens. The head is
 * copied under the lock, because others count users there; tokens take longer, and nobody writes
 * them. KVB_ENOENT: the names are not known.
 */
static int borrow_names(struct kvb_manager *manager, const struct kvb_block *source,
                        struct kvbi_record *to, uint32_t *borrowed)
{
    struct kvbi_store *store = &manager->store;
    kvbi_lock(manager);
    *borrowed = kvbi_store_lend_record_locked(store, source);
    if (*borrowed != KVBI_NONE)
        copy_head(kvbi_store_shape(store), kvbi_store_record(store, *borrowed), to);
    kvbi_unlock(manager);
    return *borrowed != KVBI_NONE ? 0 : KVB_ENOENT;
}

static void return_record(struct kvb_manager *manager, uint32_t record)
{
    kvbi_lock(manager);
    kvbi_store_return_record_locked(&manager->store, record);
    kvbi_unlock(manager);
}

/* What a clone of a part of a block will be is open: a name given for the source is not its own. */
static void copy_tokens(const struct kvb_manager *manager, struct kvbi_record *from,
                        struct kvbi_record *to, uint32_t token_count)
{
    const struct kvbi_record_shape *shape = kvbi_store_shape(&manager->store);
    if (token_count < shape->tokens_per_block)
        to->flags &= (uint16_t) ~(KVBI_RECORD_NAMED | KVBI_RECORD_GIVEN);
    memcpy(kvbi_record_tokens(shape, to), kvbi_record_tokens(shape, from),
           token_count * sizeof(uint32_t));
}

int kvb_block_clone(struct kvb_manager *manager, const struct kvb_block *source,
                    struct kvb_block *target)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    if (source == target || kvbi_held_pool(manager, source) == NULL)
        return kvbi_refuse_clone(manager, source, target, KVB_EINVAL);
    error = kvbi_sole_holder(manager, target);
    if (error != 0)
        return kvbi_refuse_clone(manager, source, target, error);
    struct kvbi_life life = kvbi_life_get(source);
    if (life.state == KVB_STATE_EMPTY || life.filling || !kvbi_life_allows(target, KVBI_EDGE_INIT))
        return kvbi_refuse_clone(manager, source, target, KVB_ESTATE);
    struct kvbi_record *to = kvbi_store_record(&manager->store, target->record);
    uint32_t from;
    error = borrow_names(manager, source, to, &from);
    if (error != 0)
        return kvbi_refuse_clone(manager, source, target, error);
    copy_tokens(manager, kvbi_store_record(&manager->store, from), to, life.tokens);
    return_record(manager, from);
    error = kvbi_life_move(target, KVBI_EDGE_INIT, &(struct kvbi_move){.count = life.tokens}, NULL);
    return error == 0 ? 0 : kvbi_refuse_clone(manager, source, target, error);
}
