/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one server does, and what must come of it in whatever order the others come.
 *
 * Late writers write under `late_lock` just before their fence is reached, as in the model of one
 * thread.
 */
#include "server.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct wait {
    _Atomic int over;
    int status;
    uint32_t good;
};

static uint32_t roll(struct server *s, uint32_t end)
{
    s->random += UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mix(s->random) % end);
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

static void write_words(const struct world *w, unsigned char *memory, uint64_t bytes)
{
    for (uint32_t i = 0; i < w->block_bytes / sizeof bytes; i++) {
        uint64_t word = mix(bytes + i);
        memcpy(memory + i * sizeof word, &word, sizeof word);
    }
}

static void reach_fences_locked(struct town *town)
{
    for (uint32_t i = 0; i < town->late_count; i++)
        write_words(&town->world, town->late[i].memory, town->late[i].bytes);
    town->late_count = 0;
    expect_code(&town->world, "signal", kv_signal(town->world.kv, town->fence_given), OK);
}

void server_reach_fences(struct town *town)
{
    pthread_mutex_lock(&town->late_lock);
    reach_fences_locked(town);
    pthread_mutex_unlock(&town->late_lock);
}

/* The step has written, or will have when the fence is reached that is returned. */
static uint64_t write_block(struct server *s, block_handle block, int content)
{
    struct town *town = s->town;
    unsigned char *memory = kv_chunk(s->w->kv, block, 0, 0);
    bool behind = false;
    uint64_t fence = 0;
    if (memory == NULL)
        differ(s->w, "a block that is computed has no address");
    pthread_mutex_lock(&town->late_lock);
    for (uint32_t i = 0; i < town->late_count; i++)
        behind |= town->late[i].memory == memory;
    if ((behind || roll(s, 5) == 0) && town->late_count < LATE) {
        fence = ++town->fence_given;
        town->late[town->late_count++] = (struct late){bytes_of(s->w, content, 0, 0), memory};
    } else {
        if (behind)
            reach_fences_locked(town);
        write_words(s->w, memory, bytes_of(s->w, content, 0, 0));
    }
    pthread_mutex_unlock(&town->late_lock);
    return fence;
}

static void read_block(struct server *s, block_handle block, int content, const char *where)
{
    struct town *town = s->town;
    unsigned char *memory = kv_chunk(s->w->kv, block, 0, 0);
    uint64_t bytes = bytes_of(s->w, content, 0, 0);
    if (memory == NULL)
        differ(s->w, "%s: a block in memory has no address", where);
    pthread_mutex_lock(&town->late_lock);
    const struct late *late = NULL; /* the last of them counts */
    for (uint32_t i = 0; i < town->late_count; i++)
        if (town->late[i].memory == memory)
            late = &town->late[i];
    if (late != NULL && late->bytes != bytes)
        differ(s->w, "%s: content %d, and another writer of that memory is not over", where,
               content);
    for (uint32_t i = 0; late == NULL && i < s->w->block_bytes / sizeof bytes; i++) {
        uint64_t word, right = mix(bytes + i);
        memcpy(&word, memory + i * sizeof word, sizeof word);
        if (word != right)
            differ(s->w, "%s: wrong bytes for content %d, word %u", where, content, i);
    }
    pthread_mutex_unlock(&town->late_lock);
    atomic_fetch_add(&town->read, 1);
}

/* ---- A request ------------------------------------------------------------------------------- */

static int random_content(struct server *s)
{
    const struct world *w = s->w;
    uint32_t space = roll(s, SPACES), depth = 1 + roll(s, w->depth);
    int content = -1;
    for (uint32_t i = 0; i < depth; i++) {
        int child = content_child(w, space, content, roll(s, 100) < 60 ? 0 : roll(s, w->branches));
        if (child < 0)
            break;
        content = child;
    }
    return content;
}

static uint32_t find(struct server *s, const int *path, uint32_t count, struct hit *hits)
{
    struct world *w = s->w;
    uint32_t tokens[DEPTH_MAX * TOKENS_MAX], found = 0;
    struct name names[DEPTH_MAX];
    for (uint32_t i = 0; i < count; i++) {
        content_tokens(w, w->branch_of[path[i]], tokens + i * w->tokens);
        names[i] = w->names[path[i]];
    }
    struct query query = {.namespace_id = w->space_ids[w->space_of[path[0]]], .count = count};
    uint32_t how = roll(s, 3);
    query.tokens = how != 1 ? tokens : NULL;
    query.names = how != 0 || w->keyed ? names : NULL;
    expect_code(w, "match", kv_match(w->kv, &query, hits, DEPTH_MAX, &found), OK);
    if (found > count)
        differ(w, "match of %u blocks found %u", count, found);
    for (uint32_t i = 0; i < found; i++)
        read_block(s, hits[i].block, path[i], "after a match");
    atomic_fetch_add(&s->town->found, found);
    return found;
}

static void lifted(void *arg, op_handle op, int status, uint32_t good_count)
{
    struct wait *wait = arg;
    (void)op;
    wait->status = status;
    wait->good = good_count;
    if (atomic_exchange(&wait->over, 1) != 0)
        abort(); /* done runs once */
}

/*
 * Blocks of lower tiers come up into `blocks`. Returns how many of them hold their content; the
 * others are Empty, or NULL.
 */
static uint32_t lift(struct server *s, const block_handle *sources, const int *path, uint32_t count,
                     block_handle *blocks)
{
    struct world *w = s->w;
    struct wait wait = {0};
    struct lift request = {.sources = sources,
                           .targets = blocks,
                           .count = count,
                           .priority = (int)roll(s, 101),
                           .timeout_ns = roll(s, 6) == 0 ? 1000 : 0,
                           .done = lifted,
                           .arg = &wait};
    op_handle op;
    uint32_t good = 0;
    int code = kv_lift(w->kv, &request, &op);
    if (code == E_AGAIN)
        return 0;
    expect_code(w, "operation", code, OK);
    if (roll(s, 6) == 0)
        expect_code(w, "cancel of an operation", kv_op_cancel(w->kv, op), OK);
    while (atomic_load(&wait.over) == 0) {
        server_reach_fences(s->town);
        sched_yield();
    }
    expect_code(w, "take", kv_op_take(w->kv, op, blocks, count, &good), OK);
    if (good != wait.good || good > count)
        differ(w, "an operation had %u good blocks when it was done, %u when it was taken",
               wait.good, good);
    for (uint32_t i = 0; i < good; i++)
        read_block(s, blocks[i], path[i], "after an operation");
    expect_code(w, "release", kv_op_release(w->kv, op), OK);
    atomic_fetch_add(&s->town->lifted, good);
    return good;
}

static void unref(struct server *s, const block_handle *blocks, uint32_t count)
{
    for (uint32_t i = count; i-- > 0;)
        if (blocks[i] != NULL)
            expect_code(s->w, "unref", kv_unref(s->w->kv, &blocks[i], 1, NULL), OK);
}

static bool compute(struct server *s, block_handle *block, int content)
{
    struct world *w = s->w;
    uint32_t tokens[TOKENS_MAX], taken;
    int parent = w->parent_of[content], result;
    content_tokens(w, w->branch_of[content], tokens);
    expect_code(w, "init",
                kv_init(w->kv, *block, w->space_ids[w->space_of[content]], w->depth_of[content],
                        parent < 0 ? NULL : &w->names[parent],
                        w->keyed ? &w->names[content] : NULL),
                OK);
    expect_code(w, "append", kv_append(w->kv, *block, tokens, w->tokens, false, &taken), OK);
    expect_code(w, "schedule", kv_schedule(w->kv, block, 1, NULL), OK);
    uint64_t fence = write_block(s, *block, content);
    expect_code(w, "compute_done", kv_compute_done(w->kv, *block, w->tokens, fence), OK);
    atomic_fetch_add(&s->town->computed, 1);
    if (roll(s, 20) == 0)
        return false; /* the request is given up: the block goes unregistered */
    enum duplicate duplicate = fence > 0 ? KEEP : (enum duplicate)roll(s, SHARE + 1);
    expect_code(w, "register", kv_register(w->kv, block, 1, duplicate, NULL, 0, &result), OK);
    return true;
}

static void forget_request(struct server *s, struct request *request)
{
    for (uint32_t i = 0; i < request->count; i++)
        read_block(s, request->blocks[i], request->contents[i], "while it is held");
    unref(s, request->blocks, request->count);
    request->count = 0;
}

static void keep(struct server *s, struct request *request, block_handle block, int content)
{
    request->blocks[request->count] = block;
    request->contents[request->count++] = content;
    if (roll(s, 4) == 0) {
        expect_code(s->w, "weak", kv_weak(s->w->kv, block, &s->weak), OK);
        s->weak_content = content;
    }
}

static void serve(struct server *s, struct request *request)
{
    struct world *w = s->w;
    struct hit hits[DEPTH_MAX];
    block_handle sources[DEPTH_MAX], blocks[DEPTH_MAX];
    int path[DEPTH_MAX];
    uint32_t missing, above = 0, count = content_path(w, random_content(s), path);
    uint32_t found = roll(s, 10) == 0 ? 0 : find(s, path, count, hits);
    while (above < found && hits[above].tier == TIER_DEVICE) {
        keep(s, request, hits[above].block, path[above]);
        above++;
    }
    uint32_t below = 0;
    for (uint32_t i = above; i < found; i++) { /* behind them another of DEVICE: computed anew */
        if (i - above == below && hits[i].tier != TIER_DEVICE)
            sources[below++] = hits[i].block;
        else
            unref(s, &hits[i].block, 1);
    }
    int code = kv_alloc(w->kv, TIER_DEVICE, count - above, 0, blocks, &missing);
    if (code != OK) {
        unref(s, sources, below);
        expect_either(w, "alloc", code, E_AGAIN, E_NOSPC);
        server_reach_fences(s->town);
        return;
    }
    uint32_t good = below > 0 ? lift(s, sources, path + above, below, blocks) : 0;
    unref(s, sources, below);
    bool whole = true;
    for (uint32_t i = above; i < count; i++) {
        block_handle *block = &blocks[i - above];
        whole &= *block != NULL;
        if (i - above >= good)
            whole = whole && compute(s, block, path[i]);
        if (whole)
            keep(s, request, *block, path[i]);
        else
            unref(s, block, 1);
    }
}

/* ---- What else a server does ----------------------------------------------------------------- */

static void count_visit(void *arg, const struct event *event)
{
    (void)event;
    ++*(uint64_t *)arg;
}

static void forget_contents(struct server *s)
{
    struct world *w = s->w;
    struct name name = w->names[random_content(s)];
    uint32_t what = roll(s, 12);
    int result;
    if (what == 0)
        expect_code(w, "clear", kv_clear(w->kv), OK);
    else if (what == 1)
        expect_code(w, "invalidate a namespace",
                    kv_invalidate_namespace(w->kv, w->space_ids[roll(s, SPACES)], &(uint64_t){0}),
                    OK);
    else
        expect_either(w, "invalidate", kv_invalidate(w->kv, &name, 1, &result), OK, E_NOENT);
}

static void upgrade(struct server *s)
{
    block_handle block;
    if (s->weak_content < 0)
        return;
    int code = kv_upgrade(s->w->kv, &s->weak, 1, &block, NULL);
    expect_either(s->w, "upgrade", code, OK, E_STALE);
    if (code != OK) {
        s->weak_content = -1;
        return;
    }
    read_block(s, block, s->weak_content, "after an upgrade");
    unref(s, &block, 1);
}

/* Another server may register the same content meanwhile, and make or take records. */
static void clone_kept(struct server *s, block_handle source, int content)
{
    struct world *w = s->w;
    block_handle target;
    struct name name;
    uint32_t missing;
    if (kv_alloc(w->kv, TIER_DEVICE, 1, 0, &target, &missing) != OK)
        return;
    int code = kv_clone(w->kv, source, target);
    if (code != E_STATE) /* the source was given up before it was registered */
        expect_either(w, "clone", code, OK, E_NOENT);
    if (code == OK) {
        expect_code(w, "key of a clone", kv_key(w->kv, target, &name), OK);
        if (memcmp(name.bytes, w->names[content].bytes, kv_name_bytes(w->kv)) != 0)
            differ(w, "a clone of content %d has another's key", content);
    }
    unref(s, &target, 1);
}

static void touch(struct server *s, const struct request *request)
{
    struct world *w = s->w;
    uint32_t released;
    int result;
    if (request->count == 0)
        return;
    uint32_t which = roll(s, request->count);
    block_handle block = request->blocks[which];
    switch (roll(s, 5)) {
    case 3:
        clone_kept(s, block, request->contents[which]);
        break;
    case 0:
        expect_code(w, "set priority",
                    kv_set_priority(w->kv, &block, 1, roll(s, 101), roll(s, 2) * 100000), OK);
        break;
    case 1:
        expect_either(w, "pin", kv_pin(w->kv, s->owner, &block, 1, roll(s, 2) * 50000, &result), OK,
                      E_NOSPC);
        break;
    case 2:
        expect_code(w, "unpin all", kv_unpin_all(w->kv, s->owner, &released), OK);
        break;
    default: /* offered, offered already, or forgotten meanwhile */
        result = kv_offload(w->kv, &block, 1, roll(s, 101), 0, NULL);
        if (result != E_STATE && tier_below(w, TIER_DEVICE) != UINT32_MAX)
            expect_either(w, "offload", result, OK, E_BUSY);
    }
}

void *server_run(void *arg)
{
    struct server *s = arg;
    struct town *town = s->town;
    uint64_t seen = 0;
    uint32_t released;
    while (atomic_fetch_sub(&town->requests_left, 1) - 1 < UINT64_MAX / 2) {
        struct request *request = &s->kept[roll(s, KEPT)];
        if (request->count > 0)
            forget_request(s, request);
        serve(s, request);
        touch(s, request);
        upgrade(s);
        if (roll(s, 3) == 0)
            server_reach_fences(town);
        if (roll(s, 40) == 0)
            forget_contents(s);
        if (roll(s, 200) == 0)
            expect_code(s->w, "walk", kv_walk(s->w->kv, count_visit, &seen), OK);
    }
    for (uint32_t i = 0; i < KEPT; i++)
        forget_request(s, &s->kept[i]);
    expect_code(s->w, "unpin all", kv_unpin_all(s->w->kv, s->owner, &released), OK);
    return NULL;
}
