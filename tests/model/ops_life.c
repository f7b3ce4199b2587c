/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a block up to Complete: every event in every state, with steps that overlap. */
#include <string.h>

#include "world.h"

static bool mine(const struct world *w, const struct block *b)
{
    (void)w;
    return b->refs > 0;
}

static bool in_state(const struct block *b, enum block_state state)
{
    return b->refs > 0 && b->state == state;
}

static bool empty(const struct world *w, const struct block *b)
{
    (void)w;
    return in_state(b, EMPTY);
}

static bool growing(const struct world *w, const struct block *b)
{
    (void)w;
    return in_state(b, PARTIAL) || in_state(b, INFLIGHT);
}

static bool ready(const struct world *w, const struct block *b)
{
    (void)w;
    return in_state(b, READY) || in_state(b, INFLIGHT);
}

static bool stepping(const struct world *w, const struct block *b)
{
    (void)w;
    return b->steps > 0;
}

static bool registered(const struct world *w, const struct block *b)
{
    (void)w;
    return in_state(b, REGISTERED);
}

static bool unregistered(const struct world *w, const struct block *b)
{
    (void)w;
    return b->refs > 0 && b->state != EMPTY && b->state < REGISTERED;
}

/* Mostly one that the event is for, sometimes any. */
static struct block *pick_for(struct world *w,
                              bool (*fits)(const struct world *w, const struct block *b))
{
    return pick_block(w, chance(w, 92) ? fits : mine);
}

static bool shared(const struct block *b)
{
    return b->refs + b->pins > 1;
}

/* What an event must answer; `allowed`: the state has an edge for it. True: it was taken. */
static bool answered(struct world *w, const struct block *b, const char *what, int code,
                     bool allowed, int right)
{
    note(w, "%s %s/%u (state %u, %u of %u tokens, content %d): %s", what, tier_name(b->tier),
         b->slot, b->state, b->computed, b->tokens, b->content, kv_code_name(code));
    if (shared(b))
        expect_either(w, what, code, E_SHARED, allowed ? E_SHARED : E_STATE);
    else if (b->state == REGISTERED && check_joins(w, b) > 0)
        expect_either(w, what, code, E_SHARED, E_STATE);
    else
        expect_code(w, what, code, allowed ? right : E_STATE);
    return code == OK;
}

/* ---- Names ----------------------------------------------------------------------------------- */

static bool init_block(struct world *w, struct block *b, uint32_t space, int parent, bool orphan,
                       int given)
{
    uint32_t position = orphan ? 2 : parent < 0 ? 0 : w->depth_of[parent] + 1;
    int code = kv_init(w->kv, b->handle, w->space_ids[space], position,
                       orphan || parent < 0 ? NULL : &w->names[parent],
                       given < 0 ? NULL : &w->names[given]);
    if (!answered(w, b, "init", code, b->state == EMPTY, OK))
        return false;
    b->state = PARTIAL;
    b->space = space;
    b->position = position;
    b->parent = parent;
    b->orphan = orphan;
    b->given = given;
    b->branch = -1;
    b->content = -1;
    b->named = given >= 0;
    b->clears_at = w->clears;
    b->space_at = w->space_epoch[space];
    b->born = w->invalidations;
    return true;
}

void op_init(struct world *w)
{
    struct block *b = pick_for(w, empty);
    uint32_t space = pick(w, SPACES);
    int parent = -1, given = -1;
    bool orphan = chance(w, 4);
    if (b == NULL)
        return;
    if (!orphan && chance(w, 60)) {
        parent = content_random(w);
        space = w->space_of[parent];
    }
    if (parent >= 0 && content_child(w, space, parent, w->branches - 1) < 0)
        parent = -1;
    if (!orphan && chance(w, w->keyed ? 60 : 25))
        given = content_child(w, space, parent, pick(w, w->branches));
    if (init_block(w, b, space, parent, orphan, given))
        check_block(w, b);
}

static void name_full(struct world *w, struct block *b)
{
    if (b->orphan)
        return;
    b->content = content_child(w, b->space, b->parent, (uint32_t)b->branch);
    if (b->given >= 0 || !w->keyed)
        b->named = true;
}

static int append_tokens(struct world *w, struct block *b, int branch, uint32_t count, bool more)
{
    uint32_t tokens[2 * TOKENS_MAX], all[TOKENS_MAX], taken = 99, room = w->tokens - b->tokens;
    content_tokens(w, branch, all);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i < room ? all[b->tokens + i] : 99;
    uint32_t fits = count < room ? count : room;
    bool allowed = b->state == PARTIAL || b->state == INFLIGHT;
    int right = count > 0 && room == 0 ? E_NOSPC : b->tokens + count == 0 && !more ? E_INVAL : OK;
    int code = kv_append(w->kv, b->handle, tokens, count, more, &taken);
    if (!answered(w, b, "append", code, allowed, right))
        return code;
    if (taken != fits)
        differ(w, "append took %u of %u tokens, %u fit", taken, count, fits);
    b->tokens += fits;
    if (b->state == PARTIAL && !(count == 0 && more) && (b->tokens == w->tokens || !more))
        b->state = READY;
    if (fits > 0 && b->tokens == w->tokens) {
        b->branch = branch;
        name_full(w, b);
    }
    return code;
}

void op_append(struct world *w)
{
    struct block *b = pick_for(w, growing);
    if (b == NULL)
        return;
    uint32_t count = chance(w, 50) ? w->tokens - b->tokens : pick(w, w->tokens + 2);
    int branch =
        b->given >= 0 ? w->branch_of[b->given] : (int)(chance(w, 60) ? 0 : pick(w, w->branches));
    append_tokens(w, b, branch, count, chance(w, 40));
    check_block(w, b);
}

void op_truncate(struct world *w)
{
    struct block *b = pick_for(w, unregistered);
    if (b == NULL)
        return;
    uint32_t keep = pick(w, b->tokens + 2);
    bool allowed = b->state == PARTIAL || b->state == READY || b->state == COMPLETE;
    int code = kv_truncate(w->kv, b->handle, keep);
    if (!answered(w, b, "truncate", code, allowed, keep > b->tokens ? E_INVAL : OK))
        return;
    b->state = PARTIAL;
    b->tokens = keep;
    b->computed = b->computed < keep ? b->computed : keep;
    b->named = false;
    b->given = -1;
    if (keep < w->tokens) {
        b->content = b->branch = -1;
        b->bytes = 0;
    }
    check_block(w, b);
}

void op_reset(struct world *w)
{
    struct block *b = pick_for(w, unregistered);
    if (b == NULL || (avoids(w, AVOID_LEFTOVERS) && b->priority != DEFAULT_PRIORITY))
        return;
    bool allowed = b->state != INFLIGHT && b->state != REGISTERED;
    fence_before_leaving(w, b);
    int code = kv_reset(w->kv, b->handle);
    if (!answered(w, b, "reset", code, allowed, OK))
        return;
    block_handle handle = b->handle;
    block_forget(b);
    b->handle = handle;
    b->refs = 1;
    b->priority_known = !avoids(w, AVOID_LEFTOVERS);
    check_block(w, b);
}

void op_clone(struct world *w)
{
    struct block *from = pick_block(w, chance(w, 50) ? registered : mine), *to = pick_for(w, empty);
    if (from == NULL || to == NULL)
        return;
    bool from_file = w->file && from->state == REGISTERED;
    bool forgotten = from->state == REGISTERED && !from->indexed; /* its names may be gone */
    if (from_file && avoids(w, AVOID_CLONE_DISK))
        return;
    int code = kv_clone(w->kv, from->handle, to->handle);
    note(w, "clone of %s/%u (state %u, content %d) in %s/%u (state %u): %s", tier_name(from->tier),
         from->slot, from->state, from->content, tier_name(to->tier), to->slot, to->state,
         kv_code_name(code));
    if (from == to)
        expect_code(w, "clone of itself", code, E_INVAL);
    else if (shared(to) || (to->state == REGISTERED && check_joins(w, to) > 0))
        expect_either(w, "clone in a shared block", code, E_SHARED, E_STATE);
    else if (to->state != EMPTY || from->state == EMPTY)
        expect_code(w, "clone", code, E_STATE);
    else
        expect_either(w, "clone", code, OK, from_file || forgotten ? E_NOENT : OK);
    if (code != OK)
        return;
    bool full = from->tokens == w->tokens;
    to->state = PARTIAL;
    to->space = from->space;
    to->position = from->position;
    to->orphan = from->orphan;
    to->parent = from->parent;
    to->tokens = from->tokens;
    to->branch = full ? from->branch : -1;
    to->content = full ? from->content : -1;
    to->named = full && (from->named || from->state == REGISTERED);
    to->given = full && to->named ? from->content : -1;
    to->clears_at = from->clears_at;
    to->space_at = from->space_at;
    to->born = from->born;
    w->tally->clones++;
    check_block(w, to);
    check_key(w, to);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void schedule_block(struct world *w, struct block *b)
{
    bool allowed = b->state == READY || b->state == INFLIGHT;
    int code = kv_schedule(w->kv, &b->handle, 1, NULL);
    if (!answered(w, b, "schedule", code, allowed, OK))
        return;
    b->state = INFLIGHT;
    b->steps++;
    check_block(w, b);
}

void op_schedule(struct world *w)
{
    struct block *b = pick_for(w, ready);
    if (b != NULL && b->steps < 4)
        schedule_block(w, b);
}

void op_cancel(struct world *w)
{
    struct block *b = pick_for(w, ready);
    if (b == NULL)
        return;
    if (answered(w, b, "cancel", kv_cancel(w->kv, b->handle), b->state == READY, OK))
        b->state = PARTIAL;
    check_block(w, b);
}

static void retired(struct world *w, struct block *b, enum block_state state)
{
    b->steps--;
    if (b->steps == 0) {
        b->state = (uint8_t)state;
        b->failed = false;
    }
    if (held(b))
        check_block(w, b);
    block_release(w, b);
}

/* The step's kernel has written, or will have when the fence is reached. */
static void compute_bytes(struct world *w, struct block *b, uint64_t fence)
{
    uint64_t bytes =
        b->content < 0 ? mix(b->life) | 1 : bytes_of(w, b->content, b->clears_at, b->space_at);
    bytes_write(w, b, bytes, fence);
    b->bytes = b->content < 0 ? 0 : bytes;
}

static bool held_after_step(const struct block *b)
{
    return b->refs + b->pins > 0;
}

static void compute_done(struct world *w, struct block *b, uint32_t computed, uint64_t fence)
{
    if (!held_after_step(b)) {
        fence_before_leaving(w, b);
        fence = avoids(w, AVOID_FENCE_LOST) ? 0 : fence;
    }
    bool valid = b->failed || (computed >= b->computed && computed <= b->tokens);
    bool taken = b->steps > 0 && !shared(b) && valid;
    if (taken && !b->failed && computed == w->tokens && b->bytes == 0)
        compute_bytes(w, b, fence);
    int code = kv_compute_done(w->kv, b->handle, computed, fence);
    if (fence > 0)
        note(w, "  written after %llu", (unsigned long long)fence);
    if (!answered(w, b, "compute_done", code, b->steps > 0, valid ? OK : E_INVAL))
        return;
    if (!b->failed)
        b->computed = computed;
    give_fence(w, b, fence);
    retired(w, b, b->computed == w->tokens && !b->failed ? COMPLETE : PARTIAL);
}

/* A writer behind another writer of the same memory is late at least as long. */
static uint64_t compute_fence(struct world *w, const struct block *b, uint32_t percent)
{
    return bytes_pending(w, b, NULL) > 0 || chance(w, percent) ? fence_later(w) : 0;
}

void op_compute_done(struct world *w)
{
    struct block *b = pick_block(w, chance(w, 95) ? stepping : mine);
    if (b == NULL)
        return;
    uint32_t computed = chance(w, 75) ? b->tokens : pick(w, w->tokens + 2);
    compute_done(w, b, computed, compute_fence(w, b, 25));
}

void op_compute_failed(struct world *w)
{
    struct block *b = pick_block(w, chance(w, 95) ? stepping : mine);
    if (b == NULL)
        return;
    int code = kv_compute_failed(w->kv, b->handle);
    if (!answered(w, b, "compute_failed", code, b->steps > 0, OK))
        return;
    b->failed = true;
    retired(w, b, READY);
}

void compute_block(struct world *w, struct block *b, uint32_t space, int parent, int branch,
                   uint64_t fence)
{
    int given = w->keyed ? content_child(w, space, parent, (uint32_t)branch) : -1;
    if (!init_block(w, b, space, parent, false, given))
        return;
    append_tokens(w, b, branch, w->tokens, false);
    schedule_block(w, b);
    compute_done(w, b, w->tokens, fence > 0 ? fence : compute_fence(w, b, 0));
}
