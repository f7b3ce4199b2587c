/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls that move unregistered blocks: init, append, schedule, cancel, compute_done,
 * compute_failed, truncate, reset.
 *
 * Callers    the public. Lock: none, but for a last unref and for names of registered blocks: a
 *            sole holder moves its block, its record is its own.
 */
#include <string.h>

#include "api/given.h"
#include "api/manager.h"
#include "base/struct_in.h"

/* One block along one edge, after the check that the caller is alone with it. */
static int move_alone(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block,
                      enum kvbi_edge edge, const struct kvbi_move *move)
{
    int error = kvbi_sole_holder(roll->manager, block);
    if (error != 0)
        return kvbi_roll_edge(roll, i, error, block, edge);
    error = kvbi_life_move(block, edge, move, NULL);
    if (error == KVB_EINVAL) /* of the edges that come here only truncate has a count */
        return kvbi_roll_why(roll, i, error, block, ": token_counts[%u] is %u, must be 0..%u", i,
                             move->count, kvbi_life_get(block).tokens);
    return error == 0 ? 0 : kvbi_roll_edge(roll, i, error, block, edge);
}

/* ---- init ------------------------------------------------------------------------------------ */

static void write_names(const struct kvb_manager *manager, struct kvbi_record *record,
                        const struct kvb_block_init *init)
{
    const struct kvbi_record_shape *shape = kvbi_store_shape(&manager->store);
    uint32_t users = record->users;
    uint16_t later = init->position > 0 ? KVBI_RECORD_LATER : 0;
    *record = (struct kvbi_record){
        .namespace_id = init->namespace_id, .flags = KVBI_RECORD_NAMES | later, .users = users};
    /*
     * before the first token is named: whatever is computed for the block is younger than its
     * moment
     */
    kvbi_record_set_moment(record, kvbi_store_moment(&manager->store));
    if (init->parent != NULL) {
        record->flags |= KVBI_RECORD_HAS_PARENT;
        if (shape->key_bytes == 0) {
            memcpy(&record->parent, init->parent, sizeof record->parent);
        } else {
            record->parent.hash =
                kvbi_key_hash(kvbi_store_hash(&manager->store), init->parent, shape->key_bytes);
            memcpy(kvbi_record_parent_key(shape, record), init->parent, shape->key_bytes);
        }
    }
    if (init->key != NULL) {
        record->flags |= KVBI_RECORD_GIVEN;
        if (shape->key_bytes == 0)
            memcpy(&record->name, init->key, sizeof record->name);
        else
            memcpy(kvbi_record_key(record), init->key, shape->key_bytes);
    }
}

/* No block comes before itself; routers that build trees from events fall over one that does. */
static bool is_own_parent(const struct kvb_manager *manager, const void *parent, const void *key)
{
    uint32_t key_bytes = kvbi_store_key_bytes(&manager->store);
    size_t bytes = key_bytes > 0 ? key_bytes : sizeof(uint64_t);
    /* a struct kvb_seq begins with its hash */
    return parent != NULL && key != NULL && memcmp(parent, key, bytes) == 0;
}

/* 0, or what is wrong with the names. */
static int check_init(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block,
                      const struct kvb_block_init *init, uint32_t size)
{
    if (!kvbi_struct_fits(init, size, sizeof *init))
        return kvbi_refuse_struct(roll, i, "inits", "kvb_block_init", init, size, sizeof *init);
    if (init->position == 0 && init->parent != NULL)
        return kvbi_roll_why(roll, i, KVB_EINVAL, block,
                             ": inits[%u].position is 0 and parent is given, must be NULL there",
                             i);
    if (init->reserved != 0)
        return kvbi_roll_why(roll, i, KVB_EINVAL, block, ": inits[%u].reserved is %u, must be 0", i,
                             init->reserved);
    if (is_own_parent(roll->manager, init->parent, init->key))
        return kvbi_roll_why(roll, i, KVB_EINVAL, block,
                             ": inits[%u].key is the parent's, must be its own", i);
    if (kvbi_space(roll->manager, init->namespace_id) == NULL)
        return kvbi_roll_why(roll, i, KVB_ENOENT, block,
                             ": inits[%u].namespace_id is %u, must be 0..%u (open)", i,
                             init->namespace_id, kvbi_spaces_open(roll->manager) - 1);
    return 0;
}

static int init_one(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block,
                    const struct kvb_block_init *init, uint32_t size)
{
    struct kvb_manager *manager = roll->manager;
    int error = kvbi_sole_holder(manager, block);
    if (error != 0)
        return kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_INIT);
    error = check_init(roll, i, block, init, size);
    if (error != 0)
        return error;
    if (!kvbi_life_allows(block, KVBI_EDGE_INIT))
        return kvbi_roll_edge(roll, i, KVB_ESTATE, block, KVBI_EDGE_INIT);
    write_names(manager, kvbi_store_record(&manager->store, block->record), init);
    error = kvbi_life_move(block, KVBI_EDGE_INIT, &(struct kvbi_move){0}, NULL);
    return error == 0 ? 0 : kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_INIT);
}

int kvb_block_init(struct kvb_manager *manager, struct kvb_block *const *blocks,
                   const struct kvb_block_init *inits, uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_INIT, "blocks", blocks, count);
    if (error == 0)
        error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_INIT, "inits", inits, count);
    if (error == 0 && count > 0)
        error = kvbi_check_distance(manager, KVBI_CALL_BLOCK_INIT, "inits", "kvb_block_init", inits,
                                    inits->size, sizeof *inits, _Alignof(struct kvb_block_init));
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_INIT, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i,
                  init_one(&roll, i, blocks[i], kvbi_stride(inits, inits->size, i), inits->size));
    return kvbi_roll_end(&roll);
}

/* ---- append ---------------------------------------------------------------------------------- */

static int append_one(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block,
                      struct kvb_append *append, uint32_t size)
{
    struct kvb_manager *manager = roll->manager;
    append->taken = 0;
    int error = kvbi_sole_holder(manager, block);
    if (error != 0)
        return kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_APPEND);
    error = kvbi_check_append(roll, i, block, append, size);
    if (error != 0)
        return error;
    if (!kvbi_life_allows(block, KVBI_EDGE_APPEND))
        return kvbi_roll_edge(roll, i, KVB_ESTATE, block, KVBI_EDGE_APPEND);
    const struct kvbi_store *store = &manager->store;
    struct kvbi_record *record = kvbi_store_record(store, block->record);
    struct kvbi_life life = kvbi_life_get(block);
    uint32_t room = kvbi_store_tokens_per_block(store) - life.tokens;
    uint32_t fits = append->count < room ? append->count : room;
    if (append->count > 0 && fits == 0)
        return kvbi_roll_why(roll, i, KVB_ENOSPC, block,
                             ": appends[%u].count is %u, and all %u tokens of the block are named",
                             i, append->count, life.tokens);
    if (fits > 0)
        memcpy(kvbi_record_tokens(kvbi_store_shape(store), record) + life.tokens, append->tokens,
               fits * sizeof *append->tokens);
    struct kvbi_move move = {.tokens_per_block = kvbi_store_tokens_per_block(store),
                             .count = fits,
                             .more = append->flags & KVB_MORE};
    error = kvbi_life_move(block, KVBI_EDGE_APPEND, &move, NULL);
    if (error == KVB_EINVAL)
        return kvbi_roll_why(
            roll, i, error, block,
            ": appends[%u].count is 0 without KVB_MORE, and no token of the block is named", i);
    if (error != 0)
        return kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_APPEND);
    append->taken = fits;
    /* the last token is named: so is the block, if its parent or key is known */
    if (fits > 0 && fits == room)
        (void)kvbi_record_name(kvbi_store_hash(store), kvbi_space(manager, record->namespace_id),
                               kvbi_store_shape(store), record);
    return 0;
}

int kvb_block_append(struct kvb_manager *manager, struct kvb_block *const *blocks,
                     struct kvb_append *appends, uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_APPEND, "blocks", blocks, count);
    if (error == 0)
        error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_APPEND, "appends", appends, count);
    if (error == 0 && count > 0)
        error =
            kvbi_check_distance(manager, KVBI_CALL_BLOCK_APPEND, "appends", "kvb_append", appends,
                                appends->size, sizeof *appends, _Alignof(struct kvb_append));
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_APPEND, "blocks", count, results);
    uint32_t size = count > 0 ? appends->size : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct kvb_append *append =
            (struct kvb_append *)(void *)((unsigned char *)appends + (size_t)size * i);
        kvbi_note(&roll, i, append_one(&roll, i, blocks[i], append, size));
    }
    return kvbi_roll_end(&roll);
}

/* ---- schedule, cancel, truncate, reset ------------------------------------------------------- */

static int schedule_one(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block)
{
    struct kvbi_move nothing = {0};
    int error = kvbi_sole_holder(roll->manager, block);
    if (error == 0 && !kvbi_life_allows(block, KVBI_EDGE_SCHEDULE))
        error = KVB_ESTATE;
    if (error == 0)
        error = kvbi_slot_ref(block); /* the step's own, before the step is out */
    if (error != 0)
        return kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_SCHEDULE);
    error = kvbi_life_move(block, KVBI_EDGE_SCHEDULE, &nothing, NULL);
    if (error == 0)
        return 0;
    (void)kvbi_slot_unref_shared(block);
    if (error == KVB_EAGAIN)
        return kvbi_roll_why(roll, i, error, block,
                             " has %u outstanding steps, which is as many as it can have",
                             KVBI_STEPS_MAX);
    return kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_SCHEDULE);
}

int kvb_block_schedule(struct kvb_manager *manager, struct kvb_block *const *blocks, uint32_t count,
                       int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_SCHEDULE, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_SCHEDULE, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i, schedule_one(&roll, i, blocks[i]));
    return kvbi_roll_end(&roll);
}

int kvb_block_cancel(struct kvb_manager *manager, struct kvb_block *const *blocks, uint32_t count,
                     int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_CANCEL, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_CANCEL, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i,
                  move_alone(&roll, i, blocks[i], KVBI_EDGE_CANCEL, &(struct kvbi_move){0}));
    return kvbi_roll_end(&roll);
}

static int truncate_one(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block,
                        uint32_t token_count)
{
    int error =
        move_alone(roll, i, block, KVBI_EDGE_TRUNCATE, &(struct kvbi_move){.count = token_count});
    if (error == 0)
        kvbi_store_record(&roll->manager->store, block->record)->flags &=
            (uint16_t) ~(KVBI_RECORD_NAMED | KVBI_RECORD_GIVEN);
    return error;
}

int kvb_block_truncate(struct kvb_manager *manager, struct kvb_block *const *blocks,
                       const uint32_t *token_counts, uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_TRUNCATE, "blocks", blocks, count);
    if (error == 0)
        error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_TRUNCATE, "token_counts", token_counts,
                                 count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_TRUNCATE, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i, truncate_one(&roll, i, blocks[i], token_counts[i]));
    return kvbi_roll_end(&roll);
}

/* The generation moves with the content, so that weak handles of the old one die. */
static int reset_one(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block)
{
    int error = kvbi_sole_holder(roll->manager, block);
    if (error == 0 && !kvbi_life_allows(block, KVBI_EDGE_RESET))
        error = KVB_ESTATE;
    if (error == 0) {
        uint64_t word = atomic_load_explicit(&block->word, memory_order_acquire);
        uint64_t generation = kvbi_word_generation(word);
        uint64_t alone = generation << KVBI_USERS_BITS | 1,
                 renewed = (generation + 1) << KVBI_USERS_BITS | 1;
        if (generation == KVBI_GENERATION_MAX)
            error = KVB_EAGAIN; /* this slot has no generation left: unref it, and it is retired */
        else if (!atomic_compare_exchange_strong(&block->word, &alone, renewed))
            error = KVB_ESHARED;
    }
    if (error == 0)
        error = kvbi_life_move(block, KVBI_EDGE_RESET, &(struct kvbi_move){0}, NULL);
    if (error == 0)
        kvbi_slot_forget_content(block); /* its sole holder's, as the block is */
    if (error == KVB_EAGAIN)
        return kvbi_roll_why(roll, i, error, block,
                             " has no generation left after %llu reuses: unref it",
                             (unsigned long long)KVBI_GENERATION_MAX);
    return error == 0 ? 0 : kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_RESET);
}

int kvb_block_reset(struct kvb_manager *manager, struct kvb_block *const *blocks, uint32_t count,
                    int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_RESET, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_RESET, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i, reset_one(&roll, i, blocks[i]));
    return kvbi_roll_end(&roll);
}

/* ---- compute --------------------------------------------------------------------------------- */

/* The step's own reference goes back. It may be the last one, of a request that was aborted. */
static void end_step(struct kvb_manager *manager, struct kvb_block *block)
{
    if (kvbi_slot_unref_shared(block))
        return;
    struct kvbi_section section = {.manager = manager};
    kvbi_section_next(&section);
    kvbi_section_unref(&section, kvbi_store_pool_of(&manager->store, block), block);
    kvbi_section_end(&section);
}

static int finish_step(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block,
                       enum kvbi_edge edge, uint32_t computed, const struct kvb_fence *fence,
                       uint64_t ticket)
{
    struct kvb_manager *manager = roll->manager;
    struct kvbi_move move = {.tokens_per_block = kvbi_store_tokens_per_block(&manager->store),
                             .count = computed};
    int error = kvbi_sole_holder(manager, block);
    if (error == 0 && !kvbi_life_allows(block, edge))
        error = KVB_ESTATE;
    const struct kvbi_pool *pool = kvbi_store_pool_of(&manager->store, block);
    if (error == 0)
        error = kvbi_lanes_takes_ticket(kvbi_pipeline_lanes(&manager->pipeline), pool, ticket);
    if (error == 0) {
        uint64_t before = block->ticket;
        /* ahead of the move: who sees the block Complete sees what to wait for */
        kvbi_lanes_set_ticket(kvbi_pipeline_lanes(&manager->pipeline), block, ticket);
        error = kvbi_life_move(block, edge, &move, NULL);
        if (error != 0 && error != KVB_ESHARED) /* else it may be the other's by now */
            block->ticket = before;
    }
    if (error != 0)
        return kvbi_refuse_step(roll, i, error, block, edge, computed, fence);
    end_step(manager, block);
    return 0;
}

int kvb_block_compute_done(struct kvb_manager *manager, struct kvb_block *const *blocks,
                           const uint32_t *computed, uint32_t count, const struct kvb_fence *fence,
                           int *results)
{
    struct kvbi_roll roll;
    uint64_t ticket;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_COMPUTE_DONE, "blocks", blocks, count);
    if (error == 0)
        error =
            kvbi_enter_array(manager, KVBI_CALL_BLOCK_COMPUTE_DONE, "computed", computed, count);
    if (error == 0)
        error = kvbi_import_fence(manager, KVBI_CALL_BLOCK_COMPUTE_DONE, fence, &ticket);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_COMPUTE_DONE, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(
            &roll, i,
            finish_step(&roll, i, blocks[i], KVBI_EDGE_COMPUTE_DONE, computed[i], fence, ticket));
    return kvbi_roll_end(&roll);
}

int kvb_block_compute_failed(struct kvb_manager *manager, struct kvb_block *const *blocks,
                             uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_COMPUTE_FAILED, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_COMPUTE_FAILED, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i, finish_step(&roll, i, blocks[i], KVBI_EDGE_COMPUTE_FAILED, 0, NULL, 0));
    return kvbi_roll_end(&roll);
}
