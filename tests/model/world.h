/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model's world: one instance of the library in a configuration drawn from a seed, and what is
 * true about it.
 *
 * What is known for certain is kept as facts: who holds what, which tokens a block names, what
 * bytes must be in it. What the library may choose (whom to evict, which copies lanes make, when)
 * is learnt from its events and counts, and compared with what the choice must respect. So the
 * model needs no copy of the library's algorithms, but for the order of eviction where there is one
 * tier and nothing else moves blocks.
 *
 * Modules    world (configuration, seeds, differences), contents (names, bytes, late writers),
 *            truth (what may be found), order (eviction in worlds of one tier), ops_... (one thing
 *            a server might do, and what must come of it), check (what must hold between
 *            operations).
 * Threads    one. threads.c is another program.
 */
#ifndef MODEL_WORLD_H
#define MODEL_WORLD_H

#include "adapter.h"

enum {
    SPACES = 3,
    DEPTH_MAX = 6,
    NODES_MAX = 128,
    CONTENTS_MAX = SPACES * NODES_MAX,
    TOKENS_MAX = 4,
    SLOTS_MAX = 192,
    MANY = 3 * SLOTS_MAX, /* handles in one call */
    LIFTS = 8,
    LIFT_BLOCKS = DEPTH_MAX,
    WEAKS = 48,
    PINS = 48,
    LATE_MAX = 1024,
    NOTES = 4096, /* kept; how many are printed is the caller's wish */
    NOTE_BYTES = 160,
    LOOKUP = 1024
};

/* What is known of one (content, tier): whether a copy is indexed there. */
enum presence { NO, MAYBE, YES };

struct block {
    block_handle handle;
    uint32_t tier, slot;
    uint32_t refs, pins,
        steps;    /* holders: the server's handles, pins with an owner, steps under way */
    bool of_lift; /* a target of an operation that was not taken */
    uint8_t state;
    uint32_t tokens, computed;
    bool failed; /* a step has failed, later ones are out */

    uint32_t space, position;
    bool orphan;                  /* position > 0 without a parent: cannot be registered */
    int parent;                   /* contents: the block before it, -1 at the root */
    int branch;                   /* which child of it, once all tokens are named */
    int given;                    /* the content whose key the server gave, -1: none */
    int content;                  /* what its tokens say, once all are named; -1 */
    bool named;                   /* it has its key */
    uint32_t clears_at, space_at; /* epochs when it was initialised */
    uint64_t born;                /* keys had been invalidated so often by then */

    uint32_t priority;
    bool priority_known;
    uint64_t retained_until; /* 0: for ever */
    bool indexed;            /* found by match */
    bool parked,
        sure;       /* nobody holds it, it may be found; sure: nothing can have evicted it since */
    uint64_t bytes; /* what is or will be in it: a seed; 0: nothing that anybody reads */
    uint64_t life;  /* grows when a content ends */
    uint64_t used_at, used_order;
};

struct late_write {
    uint64_t fence, order, bytes;
    uint32_t tier, slot;
    unsigned char *memory;
};

struct lift_model {
    op_handle op;
    uint32_t number, count, tier;
    struct block *targets[LIFT_BLOCKS];
    int contents[LIFT_BLOCKS];
    uint64_t bytes[LIFT_BLOCKS];
    uint64_t deadline, ready_at; /* time; fence value from which nothing of its own holds it back */
    bool cancelled, released, taken;
    bool disturbed; /* one of its contents was forgotten on the way */
    int done_calls, status;
    uint32_t good;
};

struct weak_model {
    struct weak weak;
    struct block *block;
    uint64_t life;
    bool stale; /* the library said so: for ever */
};

struct pin_model {
    uint64_t owner, deadline, order;
    struct block *block;
};

struct world {
    struct kv *kv;
    struct kv_setup setup;
    uint64_t seed, random;
    uint64_t number, operations; /* of this operation; planned for this world */
    uint32_t avoid;

    /* configuration */
    uint32_t tokens, branches, depth, nodes, contents, block_bytes;
    bool exact; /* one tier: the order of eviction is known */
    bool keyed, file, budget;
    /* With a file: fences are reached before progress, so that a seed replays alike. */
    bool punctual;
    char path[256];
    uint32_t weights[32];

    /* names */
    uint32_t space_ids[SPACES];
    int parent_of[CONTENTS_MAX], branch_of[CONTENTS_MAX];
    uint32_t depth_of[CONTENTS_MAX], space_of[CONTENTS_MAX];
    struct name names[CONTENTS_MAX];
    int lookup[LOOKUP];

    /* time and fences */
    uint64_t clock,
        now; /* what the clock says; the time that has passed by it, steps back not counted */
    uint64_t fence_given, fence_reached;
    struct late_write late[LATE_MAX];
    uint32_t late_count;
    uint64_t late_order;
    /* the latest fence that the library was given for the slot */
    uint64_t ticket[TIERS][SLOTS_MAX];

    /* what is true */
    struct block blocks[TIERS][SLOTS_MAX];
    enum presence presence[CONTENTS_MAX][TIERS];
    bool allowed[CONTENTS_MAX]; /* registered, and not forgotten since */
    uint32_t clears, space_epoch[SPACES];
    uint64_t invalidated_at[CONTENTS_MAX];
    uint64_t invalidations;      /* of keys */
    bool unproven[CONTENTS_MAX]; /* the caller's keys: registered while its parent was not there */
    uint64_t evicted_seen[TIERS];
    bool since_clear[CONTENTS_MAX]; /* registered since the last clear: a file may know it */
    uint64_t used_order, retentions;

    /* by events */
    bool picture[CONTENTS_MAX][TIERS];
    uint64_t sequence;
    bool lost; /* events are missing: the picture is to be made anew */
    bool lossy_so_far;

    struct lift_model lifts[LIFTS];
    uint32_t lift_numbers;
    struct weak_model weaks[WEAKS];
    struct pin_model pins[PINS];
    uint64_t pin_order;
    uint64_t pins_expired;
    bool left; /* only what is still the server's can be done: the world is about to close */

    char notes[NOTES][NOTE_BYTES];
    uint64_t note_count, notes_wanted;
    struct tally *tally;
};

/* What the worlds of one run did, for its summary. */
struct tally {
    uint64_t notes_wanted; /* of the latest operations, with a difference */
    uint64_t operations, worlds, restarts;
    uint64_t registered, unindexed, shared, takeovers, hits, misses, read, evicted, lifted, joined;
    uint64_t late, clones, expired, lost, walks, moved_down;
};

/* Known faults that a run can steer round, by --avoid NAME. */
enum avoid {
    AVOID_STALE_NAMES = 1,     /* named, then cleared or invalidated, then registered: found */
    AVOID_CLONE_DISK = 2,      /* a clone of what came back from a file */
    AVOID_FENCE_LOST = 4,      /* a slot changes hands before its last writer's fence is reached */
    AVOID_LEFTOVERS = 8,       /* priority and retention that outlive a content */
    AVOID_CLEAR_STUCK = 16,    /* parked blocks on deck, after a clear */
    AVOID_CLOCK = 32,          /* a clock that steps back */
    AVOID_EXPIRY = 64,         /* retention that ends for many at once */
    AVOID_KEYED_ORDER = 128,   /* with the caller's keys: a child before its parent */
    AVOID_FENCE_HOL = 256,     /* what waits for a fence holds up what does not */
    AVOID_JOIN_CANCELLED = 512 /* whoever wants what another operation gives up fails with it */
};
static inline bool avoids(const struct world *w, enum avoid fault)
{
    return w->avoid & (uint32_t)fault;
}

/* ---- world ----------------------------------------------------------------------------------- */

/* Draws the configuration from the seed and opens the library. `folder` is for files. */
void world_open(struct world *w, uint64_t seed, uint32_t avoid, const char *folder,
                struct tally *tally);
void world_close(struct world *w);
/*
 * The same for many threads: tiers of these sizes in memory, a progress thread, real time. Only
 * names and events are kept.
 */
void world_open_threads(struct world *w, uint64_t seed, const uint32_t sizes[TIERS],
                        struct tally *tally);
void world_close_threads(struct world *w);
/* The same files, another process as far as the library can tell. */
void world_reopen(struct world *w);
/* A random number below `end`. */
uint32_t pick(struct world *w, uint32_t end);
static inline bool chance(struct world *w, uint32_t percent)
{
    return pick(w, 100) < percent;
}
uint64_t mix(uint64_t value);
/* What happens, for who reads a difference. */
__attribute__((format(printf, 2, 3))) void note(struct world *w, const char *format, ...);
/*
 * The library and the model disagree: prints everything that is needed to see it again, and ends
 * the program.
 */
__attribute__((format(printf, 2, 3), noreturn)) void differ(struct world *w, const char *format,
                                                            ...);
/* The answer of a call, and the one or two that are right. */
void expect_code(struct world *w, const char *what, int code, int right);
void expect_either(struct world *w, const char *what, int code, int right, int also_right);
const char *tier_name(uint32_t tier);
static inline bool has_tier(const struct world *w, uint32_t tier)
{
    return w->setup.tiers[tier].blocks > 0;
}
/* Blocks there have addresses, and can be allocated. */
static inline bool in_memory(const struct world *w, uint32_t tier)
{
    return has_tier(w, tier) && w->setup.tiers[tier].path == NULL;
}
uint32_t lowest_tier(const struct world *w);
/* UINT32_MAX: none. */
uint32_t tier_below(const struct world *w, uint32_t tier);
void world_advance(struct world *w, uint64_t by_ns);

/* ---- contents -------------------------------------------------------------------------------- */

void contents_name_all(struct world *w);
int content_child(const struct world *w, uint32_t space, int parent, uint32_t branch);
/* -1: nobody gave that name. */
int content_find(const struct world *w, const struct name *name);
void content_tokens(const struct world *w, int branch, uint32_t tokens[TOKENS_MAX]);
/* The blocks from the root to `content`. Returns how many. */
uint32_t content_path(const struct world *w, int content, int path[DEPTH_MAX]);
int content_random(struct world *w);

/* What is in a block of this content that was named at these epochs. */
uint64_t bytes_of(const struct world *w, int content, uint32_t clears, uint32_t space_epoch);
uint64_t bytes_expected(const struct world *w, int content);
/* A writer writes now, or just before `fence` is reached (0: now). */
void bytes_write(struct world *w, struct block *b, uint64_t bytes, uint64_t fence);
/*
 * The largest fence that a writer of the slot waits for; 0: none. *bytes: what the last of them
 * writes.
 */
uint64_t bytes_pending(const struct world *w, const struct block *b, uint64_t *bytes);
/* Differs unless the block holds what it must. */
void bytes_check(struct world *w, const struct block *b, const char *where);
/* A fence value that is at least as late as any given before. */
uint64_t fence_later(struct world *w);
void fence_signal(struct world *w, uint64_t value);
/* The slot is about to change hands: with AVOID_FENCE_LOST its fence is reached before. */
void fence_before_leaving(struct world *w, const struct block *b);

/* ---- truth ----------------------------------------------------------------------------------- */

uint32_t holders(const struct block *b);
static inline bool held(const struct block *b)
{
    return holders(b) > 0;
}
/* A content ended in this slot; nobody holds it. */
void block_forget(struct block *b);
/* The slot is Empty and the server's. */
void block_fresh(struct world *w, struct block *b, block_handle handle);
/*
 * Somebody more holds what is registered in a slot. first_seen: nobody did as far as the model
 * knows.
 */
void block_found(struct world *w, uint32_t tier, uint32_t slot, block_handle handle, int content);
/*
 * Weak handles of a block that an operation holds may be good or stale: the model lets go of them.
 */
void weaks_drop(struct world *w, const struct block *b);
/* One holder less; the last one parks or frees. */
void block_release(struct world *w, struct block *b);
/*
 * Initialised before a clear, or its namespace's or its key's invalidation: may not be indexed
 * (YES). MAYBE: other keys were invalidated since, which the library need not tell apart.
 */
enum presence block_outdated(const struct world *w, const struct block *b);

void truth_registered(struct world *w, struct block *b);
/* All copies of the content are gone. */
void truth_forget(struct world *w, int content);
/*
 * Tier in which a match must find it, TIERS: must not find it; *doubt: it may be in a faster one,
 * or nowhere.
 */
uint32_t truth_tier(const struct world *w, int content, bool *doubt);
/* What evictions since the last look leave in doubt. */
void truth_learn(struct world *w);
/* Progress has run, and may have more to do. */
void truth_blur(struct world *w);
/* After progress, with nothing left to do: events tell what is where. */
void truth_compare(struct world *w);
void truth_event(void *context, const struct event *event);
/* After progress: what was lost is looked up. */
void truth_rebuild(struct world *w);

/* ---- order ----------------------------------------------------------------------------------- */

/* The retention of blocks that nobody holds ends. */
void order_expire(struct world *w);
void order_park(struct world *w, struct block *b);
/* The next to go. */
struct block *order_victim(struct world *w, uint32_t tier);
uint32_t priority_now(const struct world *w, const struct block *b);

/* ---- what a server does ---------------------------------------------------------------------- */

/* A random block of which `fits` is true, or NULL. */
struct block *pick_block(struct world *w,
                         bool (*fits)(const struct world *w, const struct block *b));
uint32_t alloc_blocks(struct world *w, uint32_t tier, uint32_t count, uint64_t fence,
                      struct block **blocks);
void unref_blocks(struct world *w, struct block **blocks, uint32_t count);
void compute_block(struct world *w, struct block *b, uint32_t space, int parent, int branch,
                   uint64_t fence);
int register_block(struct world *w, struct block **b, enum duplicate duplicate, uint64_t fence);
uint32_t match_path(struct world *w, int content, int how, struct block **found);

/* The block that the model knows to be found for a content, or NULL. */
struct block *indexed_copy(struct world *w, int content, uint32_t tier);

void op_alloc(struct world *w);
void op_ref(struct world *w);
void op_unref(struct world *w);
void op_weak(struct world *w);
void op_upgrade(struct world *w);
void op_pin(struct world *w);
void op_unpin(struct world *w);
void op_priority(struct world *w);
void op_retain_many(struct world *w);

void op_init(struct world *w);
void op_append(struct world *w);
void op_schedule(struct world *w);
void op_cancel(struct world *w);
void op_compute_done(struct world *w);
void op_compute_failed(struct world *w);
void op_truncate(struct world *w);
void op_reset(struct world *w);
void op_clone(struct world *w);
void op_register(struct world *w);

void op_match(struct world *w);
void op_lookup(struct world *w);
void op_read(struct world *w);
void op_walk(struct world *w);
void op_request(struct world *w);

void op_offload(struct world *w);
void op_offload_cancel(struct world *w);
void op_lift(struct world *w);
void op_lift_end(struct world *w);
/* Nothing is left to do: whom must it have ended for? */
void lifts_check(struct world *w);
void lifts_collect(struct world *w);
uint32_t lifts_active(const struct world *w);

void op_invalidate(struct world *w);
void op_invalidate_space(struct world *w);
void op_clear(struct world *w);
void op_restart(struct world *w);

void op_poll(struct world *w);
void op_signal(struct world *w);
void op_time(struct world *w);
void op_drain(struct world *w);
/* Progress has run. */
void pins_expire(struct world *w);
void give_fence(struct world *w, const struct block *b, uint64_t fence);
void poll_to_quiet(struct world *w);

/* ---- check ----------------------------------------------------------------------------------- */

/* Operations that have joined a block hold it as well, until they are taken: how many may have. */
uint32_t check_joins(const struct world *w, const struct block *b);
void check_block(struct world *w, const struct block *b);
/* The library says the name that the model knows, or that there is none. */
void check_key(struct world *w, const struct block *b);
void check_counts(struct world *w);
/* Nothing is left to do: events, walk and lookups say the same. */
void check_quiet(struct world *w);
void let_go_of_everything(struct world *w);

#endif
