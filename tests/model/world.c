/* SPDX-License-Identifier: Apache-2.0 */
/* The world's configuration, its random numbers, and how a difference is told. */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

uint32_t pick(struct world *w, uint32_t end)
{
    w->random += UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mix(w->random) % end);
}

/* ---- Differences ----------------------------------------------------------------------------- */

const char *tier_name(uint32_t tier)
{
    static const char *const names[] = {"DEVICE", "HOST", "DISK"};
    return tier < TIERS ? names[tier] : "no tier";
}

void note(struct world *w, const char *format, ...)
{
    char *line = w->notes[w->note_count++ % NOTES];
    va_list arguments;
    va_start(arguments, format);
    int used = snprintf(line, NOTE_BYTES, "%llu ", (unsigned long long)w->number);
    vsnprintf(line + used, NOTE_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
}

static void print_world(const struct world *w)
{
    printf("world: %u tokens a block, %s, %s, events %u, pins %u, operations %u%s\n", w->tokens,
           w->keyed ? "the caller's keys" : "built-in hashes", w->setup.share ? "SHARE" : "KEEP",
           w->setup.event_capacity, w->setup.pin_capacity, w->setup.op_capacity,
           w->setup.admit != NULL ? ", admission" : "");
    if (w->file && !w->punctual)
        printf("  what is in a file comes when it likes: this world may differ from run to run\n");
    for (uint32_t t = 0; t < TIERS; t++) {
        const struct kv_tier *tier = &w->setup.tiers[t];
        if (tier->blocks > 0)
            printf("  %s: %u blocks, trigger %d, on deck %u, batch %u, depth %u, queue %u%s%s\n",
                   tier_name(t), tier->blocks, tier->trigger, tier->ondeck, tier->batch,
                   tier->depth, tier->queue, tier->path != NULL ? ", in a file" : "",
                   tier->bytes_per_second > 0 ? ", with a budget" : "");
    }
}

void differ(struct world *w, const char *format, ...)
{
    va_list arguments;
    print_world(w);
    uint64_t first = w->note_count > w->notes_wanted ? w->note_count - w->notes_wanted : 0;
    for (uint64_t i = first; i < w->note_count; i++)
        printf("  %s\n", w->notes[i % NOTES]);
    printf("DIFFERENCE at operation %llu of seed %llu: ", (unsigned long long)w->number,
           (unsigned long long)w->seed);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\nreplay: tests/model/run.sh %llu %llu\n", (unsigned long long)w->number + 1,
           (unsigned long long)w->seed);
    exit(1);
}

void expect_code(struct world *w, const char *what, int code, int right)
{
    if (code != right)
        differ(w, "%s answers %s, right is %s", what, kv_code_name(code), kv_code_name(right));
}

void expect_either(struct world *w, const char *what, int code, int right, int also_right)
{
    if (code != right && code != also_right)
        differ(w, "%s answers %s, right is %s or %s", what, kv_code_name(code), kv_code_name(right),
               kv_code_name(also_right));
}

/* ---- Configuration --------------------------------------------------------------------------- */

uint32_t lowest_tier(const struct world *w)
{
    return has_tier(w, TIER_DISK) ? TIER_DISK : has_tier(w, TIER_HOST) ? TIER_HOST : TIER_DEVICE;
}

uint32_t tier_below(const struct world *w, uint32_t tier)
{
    for (uint32_t t = tier + 1; t < TIERS; t++)
        if (has_tier(w, t))
            return t;
    return UINT32_MAX;
}

static uint64_t now_of(void *context)
{
    const struct world *w = context;
    return w->clock;
}

static void on_log(void *context, const char *message)
{
    note(context, "  it says: %s", message);
}

static int admit_most(void *context, uint32_t from, uint32_t to, const struct name *name)
{
    struct world *w = context;
    (void)from;
    if (content_find(w, name) < 0)
        differ(w, "admission is asked for what nobody named");
    return mix(name->bytes[0] + to) % 8 != 0;
}

static void draw_tier(struct world *w, uint32_t t)
{
    static const uint32_t small[] = {1, 2, 4, 8, 64};
    struct kv_tier *tier = &w->setup.tiers[t];
    uint32_t least = t == TIER_DEVICE ? 8 : chance(w, 70) ? 20 : 6; /* below there is more room */
    *tier =
        (struct kv_tier){.blocks = least + pick(w, chance(w, 30) ? 60 : 14),
                         .trigger = chance(w, 50) ? ON_REGISTER : (enum trigger)pick(w, MANUAL + 1),
                         .ondeck = small[pick(w, 5)],
                         .batch = small[pick(w, 4)],
                         .depth = 1 + pick(w, 2),
                         .queue = chance(w, 25) ? 1 + pick(w, 6) : 64};
}

static void draw_tiers(struct world *w, const char *folder)
{
    uint32_t kind = pick(w, 100);
    draw_tier(w, TIER_DEVICE);
    if (kind < 30) {
        w->exact = true;
        if (chance(w, 30))
            w->setup.tiers[TIER_DEVICE].blocks = 80 + pick(w, SLOTS_MAX - 80);
        return;
    }
    if (kind < 88)
        draw_tier(w, TIER_HOST);
    if (kind >= 60)
        draw_tier(w, TIER_DISK);
    if (has_tier(w, TIER_DISK) && chance(w, 40)) {
        w->file = true;
        w->punctual = chance(w, 70);
        snprintf(w->path, sizeof w->path, "%s/blocks", folder);
        w->setup.tiers[TIER_DISK].path = w->path;
    }
}

static void draw_sizes(struct world *w)
{
    static const uint32_t shapes[][2] = {{2, 6}, {3, 4}, {4, 3}, {2, 5}};
    const uint32_t *shape = shapes[pick(w, 4)];
    w->tokens = 1 + pick(w, TOKENS_MAX);
    w->branches = shape[0];
    w->depth = shape[1];
    for (uint32_t level = 0, width = 1; level < w->depth; level++) {
        width *= w->branches;
        w->nodes += width;
    }
    w->nodes = w->nodes > NODES_MAX ? NODES_MAX : w->nodes;
    w->contents = SPACES * w->nodes;
    w->setup.layers = 1 + pick(w, 2);
    w->setup.parts = 1 + pick(w, 2);
    w->setup.chunk_bytes = 8 * (1 + pick(w, 4));
    w->block_bytes = w->setup.layers * w->setup.parts * w->setup.chunk_bytes;
    w->setup.tokens_per_block = w->tokens;
}

static void draw_rest(struct world *w)
{
    static const uint32_t key_bytes[] = {8, 16, 33, 64};
    w->keyed = chance(w, 30);
    w->setup.key_bytes = w->keyed ? key_bytes[pick(w, 4)] : 0;
    w->setup.share = chance(w, 40);
    w->setup.lines = chance(w, 50) ? 1 : 2 + pick(w, 3);
    w->setup.event_capacity = chance(w, 35) ? 2 + pick(w, 14) : 4096;
    w->setup.pin_capacity = 1 + pick(w, PINS);
    w->setup.op_capacity = 1 + pick(w, LIFTS);
    w->setup.on_event = truth_event;
    w->setup.on_log = on_log;
    w->setup.now = now_of;
    w->setup.context = w;
    if (chance(w, 25))
        w->setup.admit = admit_most;
}

static void draw(struct world *w, const char *folder)
{
    draw_sizes(w);
    draw_tiers(w, folder);
    draw_rest(w);
    if (w->file && chance(w, 30)) {
        w->budget = true;
        w->setup.tiers[lowest_tier(w)].bytes_per_second = w->block_bytes * (1 + pick(w, 4));
    }
    for (uint32_t i = 0; i < sizeof w->weights / sizeof *w->weights; i++)
        w->weights[i] = chance(w, 15) ? 0 : 1 + pick(w, 4);
}

/* ---- Open and close -------------------------------------------------------------------------- */

static void open_spaces(struct world *w, uint32_t first)
{
    static const char *const strings[SPACES][2] = {{"", ""}, {"tenant", ""}, {"", "adapter"}};
    for (uint32_t i = 0; i < SPACES; i++) {
        uint32_t space = (first + i) % SPACES;
        expect_code(w, "opening a namespace",
                    kv_namespace(w->kv, strings[space][0], strings[space][1], &w->space_ids[space]),
                    OK);
    }
}

static void open_library(struct world *w, uint32_t first_space)
{
    char why[256] = "";
    int code = kv_open(&w->setup, &w->kv, why);
    if (code != OK)
        differ(w, "create answers %s: %s", kv_code_name(code), why);
    open_spaces(w, first_space);
    for (uint32_t t = 0; t < TIERS; t++)
        for (uint32_t s = 0; s < SLOTS_MAX; s++) {
            w->blocks[t][s].tier = t;
            w->blocks[t][s].slot = s;
            block_forget(&w->blocks[t][s]);
        }
}

void world_open(struct world *w, uint64_t seed, uint32_t avoid, const char *folder,
                struct tally *tally)
{
    memset(w, 0, sizeof *w);
    w->notes_wanted = tally->notes_wanted;
    w->seed = seed;
    w->random = mix(seed);
    w->avoid = avoid;
    w->tally = tally;
    w->clock = w->now = UINT64_C(1000000000000000);
    draw(w, folder);
    if (w->file && unlink(w->path) != 0)
        w->path[sizeof w->path - 1] = 0; /* there was none */
    open_library(w, 0);
    contents_name_all(w);
    tally->worlds++;
}

static void close_library(struct world *w)
{
    int64_t leaked = 0;
    expect_code(w, "destroy", kv_close(w->kv, &leaked), OK);
    w->kv = NULL;
    if (leaked != 0)
        differ(w, "destroy left %lld bytes behind", (long long)leaked);
}

void world_close(struct world *w)
{
    if (chance(w, 50))
        op_drain(w);
    let_go_of_everything(w);
    close_library(w);
    if (w->file)
        (void)!unlink(w->path);
}

void world_open_threads(struct world *w, uint64_t seed, const uint32_t sizes[TIERS],
                        struct tally *tally)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->random = mix(seed);
    w->tally = tally;
    draw_sizes(w);
    for (uint32_t t = 0; t < TIERS; t++) {
        draw_tier(w, t);
        w->setup.tiers[t].blocks = sizes[t];
    }
    draw_rest(w);
    w->setup.threads = true;
    w->setup.op_capacity = 64;
    w->setup.on_log = NULL;
    w->setup.now = NULL;
    open_library(w, 0);
    contents_name_all(w);
    tally->worlds++;
}

void world_close_threads(struct world *w)
{
    close_library(w);
}

void world_reopen(struct world *w)
{
    struct name before[CONTENTS_MAX];
    memcpy(before, w->names, sizeof before);
    close_library(w);
    w->fence_given = w->fence_reached = 0;
    w->late_count = 0;
    w->sequence = 0;
    w->pins_expired = 0;
    memset(w->ticket, 0, sizeof w->ticket);
    memset(w->evicted_seen, 0, sizeof w->evicted_seen);
    memset(w->weaks, 0, sizeof w->weaks);
    for (uint32_t c = 0; c < w->contents; c++) {
        bool kept = w->picture[c][TIER_DISK] && !w->lost;
        bool maybe = kept || w->since_clear[c];
        w->presence[c][TIER_DEVICE] = w->presence[c][TIER_HOST] = NO;
        w->presence[c][TIER_DISK] = kept ? YES : maybe ? MAYBE : NO;
        w->allowed[c] = maybe;
    }
    memset(w->picture, 0, sizeof w->picture);
    w->lost = w->lossy_so_far = false;
    open_library(w, pick(w, SPACES));
    if (!w->keyed)
        contents_name_all(w);
    if (memcmp(before, w->names, sizeof before) != 0)
        differ(w, "names are others after a restart");
    poll_to_quiet(w);
}

void world_advance(struct world *w, uint64_t by_ns)
{
    w->clock += by_ns;
    w->now += by_ns;
    kv_look_at_clock(w->kv);
    order_expire(w);
}
