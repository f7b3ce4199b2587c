/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only door between the model and the library: adapter.c and adapter_open.c are the one part of
 * the model that calls it.
 *
 * Owns       the words that the rest of the model speaks. They name what the library does, not how
 *            its calls look, so that another interface of the library means another adapter.
 * Callers    every other file of the model.
 */
#ifndef MODEL_ADAPTER_H
#define MODEL_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvb_block;
struct kvb_op;
struct kv; /* one library instance, and what the adapter keeps beside it */

typedef struct kvb_block *block_handle;
typedef struct kvb_op *op_handle;

enum { TIER_DEVICE, TIER_HOST, TIER_DISK, TIERS };

/* The library's codes, by their numbers. */
enum code {
    OK = 0,
    E_INVAL = -1,
    E_STATE = -2,
    E_SHARED = -3,
    E_NOSPC = -5,
    E_AGAIN = -6,
    E_NOENT = -7,
    E_STALE = -8,
    E_BUSY = -9,
    E_CANCELED = -10,
    E_TIMEDOUT = -11,
    E_COLLISION = -15,
    E_UNSUPPORTED = -16
};

enum block_state { EMPTY, PARTIAL, READY, INFLIGHT, COMPLETE, REGISTERED };

#define NAME_BYTES_MAX 64
#define DEFAULT_PRIORITY 35
/* A block's name as the library takes it: the first kv_name_bytes of it count. */
struct name {
    unsigned char bytes[NAME_BYTES_MAX];
};

struct weak {
    uint32_t tier, slot;
    uint64_t generation;
};

enum event_kind { EVENT_STORED = 1, EVENT_REMOVED, EVENT_CLEARED, EVENT_LOST };
struct event {
    enum event_kind kind;
    uint64_t sequence;
    uint32_t tier, namespace_id, lost_count;
    bool has_parent;
    struct name name, parent;
    const uint32_t *tokens; /* or NULL */
};

enum trigger { TRIGGER_DEFAULT, ON_REGISTER, ON_PARK, ON_COLD, MANUAL };
struct kv_tier {
    uint32_t blocks; /* 0: the world does not have it */
    enum trigger trigger;
    uint32_t ondeck, batch, depth, queue;
    uint64_t bytes_per_second;
    const char *path;
};

struct kv_setup {
    uint32_t tokens_per_block, layers, parts, chunk_bytes, key_bytes;
    /* Of the counter: fences are dealt out over them, and reached on all of them in one order. */
    uint32_t lines;
    struct kv_tier tiers[TIERS];
    bool share, threads;
    uint32_t event_capacity, pin_capacity, op_capacity;
    void (*on_event)(void *context, const struct event *event);
    int (*admit)(void *context, uint32_t from, uint32_t to, const struct name *name); /* or NULL */
    void (*on_log)(void *context, const char *message);                               /* or NULL */
    uint64_t (*now)(void *context);
    void *context;
};

struct block_facts {
    uint32_t tier, slot, state, tokens, computed, steps, holders, priority;
    bool indexed;
};

struct lane_facts {
    uint32_t from, to;
    uint64_t offered, transferred, skipped, discarded, shed, failed, cancelled, pending;
    uint64_t queued, ondeck, inflight;
};

struct facts {
    struct {
        uint64_t blocks, free, held, parked, retired, transfer, available;
        uint64_t evicted, registered, duplicates, collisions;
    } tiers[TIERS];
    uint32_t lane_count;
    struct lane_facts lanes[6];
    uint64_t index_entries, pins, pins_expired, events_lost;
};

/*
 * 0 or the library's code, its words in `why`. What the library has allocated is counted until
 * kv_close.
 */
int kv_open(const struct kv_setup *setup, struct kv **kv, char why[256]);
/* The library's code. On 0 nothing of it is left, or *leaked_bytes says how much. */
int kv_close(struct kv *kv, int64_t *leaked_bytes);

/* Until nothing is left to do that needs no fence and no time. */
int kv_poll(struct kv *kv);
int kv_poll_once(struct kv *kv);
/* With its own thread: until all is delivered and nothing moves. */
int kv_flush(struct kv *kv);
int kv_clear(struct kv *kv);
int kv_signal(struct kv *kv, uint64_t value);
void kv_look_at_clock(struct kv *kv);
void kv_facts(struct kv *kv, struct facts *facts);
/* Every table of the library against every other. 0, or what is wrong in words. */
int kv_check_tables(struct kv *kv, char *why, size_t bytes);

size_t kv_name_bytes(const struct kv *kv);
int kv_namespace(struct kv *kv, const char *salt, const char *adapter, uint32_t *id);
/* The library's own name of the block behind `parent` (NULL: the first). */
int kv_name(struct kv *kv, uint32_t namespace_id, const struct name *parent, const uint32_t *tokens,
            struct name *name);

/* fence 0: none. */
int kv_alloc(struct kv *kv, uint32_t tier, uint32_t count, uint64_t fence, block_handle *blocks,
             uint32_t *missing);
int kv_ref(struct kv *kv, const block_handle *blocks, uint32_t count, int *results);
int kv_unref(struct kv *kv, const block_handle *blocks, uint32_t count, int *results);
int kv_weak(struct kv *kv, block_handle block, struct weak *weak);
int kv_upgrade(struct kv *kv, const struct weak *weaks, uint32_t count, block_handle *blocks,
               int *results);

int kv_init(struct kv *kv, block_handle block, uint32_t namespace_id, uint32_t position,
            const struct name *parent, const struct name *own);
int kv_append(struct kv *kv, block_handle block, const uint32_t *tokens, uint32_t count, bool more,
              uint32_t *taken);
int kv_schedule(struct kv *kv, const block_handle *blocks, uint32_t count, int *results);
int kv_cancel(struct kv *kv, block_handle block);
int kv_compute_done(struct kv *kv, block_handle block, uint32_t computed, uint64_t fence);
int kv_compute_failed(struct kv *kv, block_handle block);
int kv_truncate(struct kv *kv, block_handle block, uint32_t tokens);
int kv_reset(struct kv *kv, block_handle block);
int kv_clone(struct kv *kv, block_handle source, block_handle target);
enum duplicate { BY_WORLD, KEEP, SHARE };
int kv_register(struct kv *kv, block_handle *blocks, uint32_t count, enum duplicate duplicate,
                const struct name *keys, uint64_t fence, int *results);
int kv_set_priority(struct kv *kv, const block_handle *blocks, uint32_t count, uint32_t priority,
                    uint64_t duration_ns);

int kv_describe(struct kv *kv, block_handle block, struct block_facts *facts);
int kv_key(struct kv *kv, block_handle block, struct name *name);
/* NULL where the tier has no addresses. */
void *kv_chunk(struct kv *kv, block_handle block, uint32_t layer, uint32_t part);

/* What to look for: tokens, names, or both, of `count` blocks from the root of a namespace. */
struct query {
    uint32_t namespace_id, count;
    const uint32_t *tokens;   /* or NULL */
    const struct name *names; /* or NULL */
};
struct hit {
    block_handle block;
    uint32_t tier, slot;
};
int kv_match(struct kv *kv, const struct query *query, struct hit *hits, uint32_t capacity,
             uint32_t *count);
int kv_lookup(struct kv *kv, const struct query *query, uint64_t counts[TIERS]);
int kv_walk(struct kv *kv, void (*visit)(void *arg, const struct event *event), void *arg);
int kv_invalidate(struct kv *kv, const struct name *names, uint32_t count, int *results);
int kv_invalidate_namespace(struct kv *kv, uint32_t namespace_id, uint64_t *removed);

int kv_pin(struct kv *kv, uint64_t owner, const block_handle *blocks, uint32_t count,
           uint64_t lifetime_ns, int *results);
int kv_unpin(struct kv *kv, uint64_t owner, const block_handle *blocks, uint32_t count,
             int *results);
int kv_unpin_all(struct kv *kv, uint64_t owner, uint32_t *released);

int kv_offload(struct kv *kv, const block_handle *blocks, uint32_t count, uint32_t priority,
               uint64_t fence, int *results);
int kv_offload_cancel(struct kv *kv, const block_handle *blocks, uint32_t count, int *results);

struct lift {
    const block_handle *sources, *targets;
    uint32_t count;
    int priority; /* -1: not said */
    uint64_t timeout_ns, fence;
    void (*done)(void *arg, op_handle op, int status, uint32_t good_count);
    void *arg;
};
int kv_lift(struct kv *kv, const struct lift *lift, op_handle *op);
int kv_op_take(struct kv *kv, op_handle op, block_handle *blocks, uint32_t count, uint32_t *good);
int kv_op_cancel(struct kv *kv, op_handle op);
int kv_op_release(struct kv *kv, op_handle op);

const char *kv_code_name(int code);

#endif
