/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model's words said in the library's. What each call may answer is the model's to judge:
 * nothing is checked here.
 */
#include <string.h>

#include "adapter_inside.h"

#define SAME(ours, library) ((int)(ours) == (int)(library))
_Static_assert(SAME(E_INVAL, KVB_EINVAL) && SAME(E_STATE, KVB_ESTATE) &&
                   SAME(E_SHARED, KVB_ESHARED) && SAME(E_NOSPC, KVB_ENOSPC) &&
                   SAME(E_AGAIN, KVB_EAGAIN) && SAME(E_NOENT, KVB_ENOENT) &&
                   SAME(E_STALE, KVB_ESTALE) && SAME(E_BUSY, KVB_EBUSY) &&
                   SAME(E_CANCELED, KVB_ECANCELED) && SAME(E_TIMEDOUT, KVB_ETIMEDOUT) &&
                   SAME(E_COLLISION, KVB_ECOLLISION) && SAME(E_UNSUPPORTED, KVB_EUNSUPPORTED),
               "the codes' numbers are stable");
_Static_assert(SAME(REGISTERED, KVB_STATE_REGISTERED) && SAME(COMPLETE, KVB_STATE_COMPLETE) &&
                   SAME(INFLIGHT, KVB_STATE_INFLIGHT) && SAME(READY, KVB_STATE_READY) &&
                   SAME(PARTIAL, KVB_STATE_PARTIAL) && SAME(EMPTY, KVB_STATE_EMPTY) &&
                   SAME(TIER_DISK, KVB_TIER_DISK) && SAME(TIER_HOST, KVB_TIER_HOST) &&
                   SAME(TIER_DEVICE, KVB_TIER_DEVICE) && SAME(MANUAL, KVB_OFFLOAD_MANUAL) &&
                   SAME(EVENT_LOST, KVB_EVENT_LOST) && SAME(DEFAULT_PRIORITY, KVB_PRIORITY_DEFAULT),
               "the same words have the same numbers");

/* ---- Names ----------------------------------------------------------------------------------- */

size_t kv_name_bytes(const struct kv *kv)
{
    return kv->name_bytes;
}

int kv_namespace(struct kv *kv, const char *salt, const char *adapter, uint32_t *id)
{
    return kvb_namespace_open(kv->manager, salt, strlen(salt), adapter, strlen(adapter), id);
}

int kv_name(struct kv *kv, uint32_t namespace_id, const struct name *parent, const uint32_t *tokens,
            struct name *name)
{
    struct kvb_seq before, seq;
    size_t count;
    memset(name, 0, sizeof *name);
    if (parent != NULL)
        memcpy(&before, parent->bytes, sizeof before);
    int error = kvb_hash_tokens(kv->manager, namespace_id, parent != NULL ? &before : NULL, tokens,
                                kv->setup.tokens_per_block, &seq, 1, &count);
    memcpy(name->bytes, &seq, sizeof seq);
    return error;
}

/* ---- Handles --------------------------------------------------------------------------------- */

static const struct kvb_fence *fence_of(struct kv *kv, uint64_t value, struct kvb_fence *fence)
{
    if (value > kv->fence_given)
        kv->fence_given = value;
    *fence = (struct kvb_fence){
        .kind = KVB_FENCE_COUNTER, .line = (uint32_t)(value % kv->setup.lines), .handle = value};
    return value > 0 ? fence : NULL;
}

int kv_alloc(struct kv *kv, uint32_t tier, uint32_t count, uint64_t fence, block_handle *blocks,
             uint32_t *missing)
{
    struct kvb_fence point;
    return kvb_alloc(kv->manager, tier, count, fence_of(kv, fence, &point), blocks, missing);
}

int kv_ref(struct kv *kv, const block_handle *blocks, uint32_t count, int *results)
{
    return kvb_block_ref(kv->manager, blocks, count, results);
}

int kv_unref(struct kv *kv, const block_handle *blocks, uint32_t count, int *results)
{
    return kvb_block_unref(kv->manager, blocks, count, results);
}

int kv_weak(struct kv *kv, block_handle block, struct weak *weak)
{
    struct kvb_weak given = {0};
    int error = kvb_block_weak(kv->manager, block, &given);
    *weak = (struct weak){given.tier, given.slot, given.generation};
    return error;
}

int kv_upgrade(struct kv *kv, const struct weak *weaks, uint32_t count, block_handle *blocks,
               int *results)
{
    struct kvb_weak given[BATCH_MAX];
    for (uint32_t i = 0; i < count; i++)
        given[i] = (struct kvb_weak){weaks[i].tier, weaks[i].slot, weaks[i].generation};
    return kvb_weak_upgrade(kv->manager, given, count, blocks, results);
}

/* ---- Life of a block ------------------------------------------------------------------------- */

int kv_init(struct kv *kv, block_handle block, uint32_t namespace_id, uint32_t position,
            const struct name *parent, const struct name *own)
{
    struct kvb_block_init init = {
        .size = sizeof init, .namespace_id = namespace_id, .position = position};
    struct kvb_seq before, key;
    if (parent != NULL)
        init.parent = kv->setup.key_bytes > 0 ? (const void *)parent->bytes
                                              : memcpy(&before, parent->bytes, sizeof before);
    if (own != NULL)
        init.key = kv->setup.key_bytes > 0 ? (const void *)own->bytes
                                           : memcpy(&key, own->bytes, sizeof key);
    return kvb_block_init(kv->manager, &block, &init, 1, NULL);
}

int kv_append(struct kv *kv, block_handle block, const uint32_t *tokens, uint32_t count, bool more,
              uint32_t *taken)
{
    struct kvb_append append = {
        .size = sizeof append, .flags = more ? KVB_MORE : 0, .tokens = tokens, .count = count};
    int error = kvb_block_append(kv->manager, &block, &append, 1, NULL);
    *taken = append.taken;
    return error;
}

int kv_schedule(struct kv *kv, const block_handle *blocks, uint32_t count, int *results)
{
    return kvb_block_schedule(kv->manager, blocks, count, results);
}

int kv_cancel(struct kv *kv, block_handle block)
{
    return kvb_block_cancel(kv->manager, &block, 1, NULL);
}

int kv_compute_done(struct kv *kv, block_handle block, uint32_t computed, uint64_t fence)
{
    struct kvb_fence point;
    return kvb_block_compute_done(kv->manager, &block, &computed, 1, fence_of(kv, fence, &point),
                                  NULL);
}

int kv_compute_failed(struct kv *kv, block_handle block)
{
    return kvb_block_compute_failed(kv->manager, &block, 1, NULL);
}

int kv_truncate(struct kv *kv, block_handle block, uint32_t tokens)
{
    return kvb_block_truncate(kv->manager, &block, &tokens, 1, NULL);
}

int kv_reset(struct kv *kv, block_handle block)
{
    return kvb_block_reset(kv->manager, &block, 1, NULL);
}

int kv_clone(struct kv *kv, block_handle source, block_handle target)
{
    return kvb_block_clone(kv->manager, source, target);
}

/* Names lie NAME_BYTES_MAX apart in the model, name_bytes apart in the library's calls. */
static const void *pack(const struct kv *kv, const struct name *names, uint32_t count,
                        uint64_t packed[BATCH_MAX * NAME_BYTES_MAX / 8])
{
    for (uint32_t i = 0; i < count; i++)
        memcpy((unsigned char *)packed + i * kv->name_bytes, names[i].bytes, kv->name_bytes);
    return packed;
}

int kv_register(struct kv *kv, block_handle *blocks, uint32_t count, enum duplicate duplicate,
                const struct name *keys, uint64_t fence, int *results)
{
    static const uint32_t flags[] = {0, KVB_REGISTER_KEEP, KVB_REGISTER_SHARE};
    uint64_t packed[BATCH_MAX * NAME_BYTES_MAX / 8];
    struct kvb_fence point;
    struct kvb_register options = {.size = sizeof options, .flags = flags[duplicate]};
    if (keys != NULL)
        options.keys = pack(kv, keys, count, packed);
    return kvb_block_register(kv->manager, blocks, count,
                              duplicate == BY_WORLD && keys == NULL ? NULL : &options,
                              fence_of(kv, fence, &point), results);
}

int kv_set_priority(struct kv *kv, const block_handle *blocks, uint32_t count, uint32_t priority,
                    uint64_t duration_ns)
{
    return kvb_block_set_priority(kv->manager, blocks, count, priority, duration_ns, NULL);
}

int kv_describe(struct kv *kv, block_handle block, struct block_facts *facts)
{
    struct kvb_block_info info = {.size = sizeof info};
    int error = kvb_block_describe(kv->manager, block, &info);
    *facts = (struct block_facts){info.tier,         info.slot,           info.state,
                                  info.token_count,  info.computed_count, info.step_count,
                                  info.holder_count, info.priority,       info.indexed != 0};
    return error;
}

int kv_key(struct kv *kv, block_handle block, struct name *name)
{
    uint64_t key[NAME_BYTES_MAX / 8] = {0};
    memset(name, 0, sizeof *name);
    int error = kvb_block_key(kv->manager, block, key);
    memcpy(name->bytes, key, kv->name_bytes);
    return error;
}

void *kv_chunk(struct kv *kv, block_handle block, uint32_t layer, uint32_t part)
{
    void *address = NULL;
    return kvb_block_address(kv->manager, block, layer, part, &address) == 0 ? address : NULL;
}

/* ---- Finding --------------------------------------------------------------------------------- */

static struct kvb_query query_of(const struct kv *kv, const struct query *query,
                                 uint64_t packed[BATCH_MAX * NAME_BYTES_MAX / 8])
{
    struct kvb_query given = {.size = sizeof given, .namespace_id = query->namespace_id};
    if (query->tokens != NULL) {
        given.tokens = query->tokens;
        given.token_count = (size_t)query->count * kv->setup.tokens_per_block;
    }
    if (query->names != NULL) {
        given.keys = pack(kv, query->names, query->count, packed);
        given.key_count = query->count;
    }
    return given;
}

int kv_match(struct kv *kv, const struct query *query, struct hit *hits, uint32_t capacity,
             uint32_t *count)
{
    uint64_t packed[BATCH_MAX * NAME_BYTES_MAX / 8];
    struct kvb_query given = query_of(kv, query, packed);
    struct kvb_hit found[BATCH_MAX];
    size_t n = 0;
    int error = kvb_match(kv->manager, &given, found, capacity, &n);
    for (size_t i = 0; i < n; i++)
        hits[i] = (struct hit){found[i].block, found[i].tier, found[i].slot};
    *count = (uint32_t)n;
    return error;
}

int kv_lookup(struct kv *kv, const struct query *query, uint64_t counts[TIERS])
{
    uint64_t packed[BATCH_MAX * NAME_BYTES_MAX / 8], tiers[KVB_TIER_COUNT] = {0};
    struct kvb_query given = query_of(kv, query, packed);
    int error = kvb_lookup(kv->manager, &given, tiers);
    memcpy(counts, tiers, TIERS * sizeof *counts);
    return error;
}

struct walk {
    struct kv *kv;
    void (*visit)(void *arg, const struct event *event);
    void *arg;
};

static int pass_visit(void *arg, const struct kvb_event *given)
{
    const struct walk *walk = arg;
    struct event event = kv_event_of(walk->kv, given);
    walk->visit(walk->arg, &event);
    return 0;
}

int kv_walk(struct kv *kv, void (*visit)(void *arg, const struct event *event), void *arg)
{
    struct walk walk = {kv, visit, arg};
    return kvb_index_walk(kv->manager, pass_visit, &walk);
}

int kv_invalidate(struct kv *kv, const struct name *names, uint32_t count, int *results)
{
    uint64_t packed[BATCH_MAX * NAME_BYTES_MAX / 8];
    return kvb_invalidate(kv->manager, pack(kv, names, count, packed), count, results);
}

int kv_invalidate_namespace(struct kv *kv, uint32_t namespace_id, uint64_t *removed)
{
    return kvb_invalidate_namespace(kv->manager, namespace_id, removed);
}

/* ---- Pins and moving ------------------------------------------------------------------------- */

int kv_pin(struct kv *kv, uint64_t owner, const block_handle *blocks, uint32_t count,
           uint64_t lifetime_ns, int *results)
{
    return kvb_pin(kv->manager, owner, blocks, count, lifetime_ns, results);
}

int kv_unpin(struct kv *kv, uint64_t owner, const block_handle *blocks, uint32_t count,
             int *results)
{
    return kvb_unpin(kv->manager, owner, blocks, count, results);
}

int kv_unpin_all(struct kv *kv, uint64_t owner, uint32_t *released)
{
    return kvb_unpin_all(kv->manager, owner, released);
}

int kv_offload(struct kv *kv, const block_handle *blocks, uint32_t count, uint32_t priority,
               uint64_t fence, int *results)
{
    struct kvb_fence point;
    return kvb_block_offload(kv->manager, blocks, count, priority, fence_of(kv, fence, &point),
                             results);
}

int kv_offload_cancel(struct kv *kv, const block_handle *blocks, uint32_t count, int *results)
{
    return kvb_block_offload_cancel(kv->manager, blocks, count, results);
}

int kv_lift(struct kv *kv, const struct lift *lift, op_handle *op)
{
    struct kvb_fence point;
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = lift->sources,
                                  .targets = lift->targets,
                                  .count = lift->count,
                                  .timeout_ns = lift->timeout_ns,
                                  .fence = fence_of(kv, lift->fence, &point),
                                  .done = lift->done,
                                  .arg = lift->arg};
    if (lift->priority >= 0) {
        request.flags = KVB_ONBOARD_PRIORITY;
        request.priority = (uint32_t)lift->priority;
    }
    return kvb_onboard(kv->manager, &request, op);
}

int kv_op_take(struct kv *kv, op_handle op, block_handle *blocks, uint32_t count, uint32_t *good)
{
    return kvb_op_take(kv->manager, op, blocks, count, good);
}

int kv_op_cancel(struct kv *kv, op_handle op)
{
    return kvb_op_cancel(kv->manager, op);
}

int kv_op_release(struct kv *kv, op_handle op)
{
    return kvb_op_release(kv->manager, op);
}

const char *kv_code_name(int code)
{
    return kvb_error_name(code);
}
