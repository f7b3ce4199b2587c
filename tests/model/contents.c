/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents: which tokens, names and bytes there are in a world.
 *
 * Every namespace has the same tree of token runs, so that prefixes overlap between tenants and
 * blocks at different places hold the same tokens: a library that forgets to compare one of
 * namespace, prefix and tokens finds the wrong content. Bytes are a function of namespace, prefix
 * and the clears before the content was named: who reads what was computed for others, or before
 * new weights, reads something else. A late writer writes just before its fence is reached, so who
 * does not wait for it reads something else, too.
 */
#include <string.h>

#include "world.h"

int content_child(const struct world *w, uint32_t space, int parent, uint32_t branch)
{
    uint32_t first = space * w->nodes;
    uint32_t node = parent < 0 ? branch : ((uint32_t)parent - first + 1) * w->branches + branch;
    return node < w->nodes ? (int)(first + node) : -1;
}

void content_tokens(const struct world *w, int branch, uint32_t tokens[TOKENS_MAX])
{
    for (uint32_t i = 0; i < w->tokens; i++)
        tokens[i] = 7;
    tokens[w->tokens - 1] = 10 + (uint32_t)branch;
}

static uint32_t lookup_place(const struct name *name)
{
    uint64_t word;
    memcpy(&word, name->bytes, sizeof word);
    return (uint32_t)(mix(word) % LOOKUP);
}

int content_find(const struct world *w, const struct name *name)
{
    size_t bytes = kv_name_bytes(w->kv);
    for (uint32_t at = lookup_place(name);; at = (at + 1) % LOOKUP) {
        int content = w->lookup[at];
        if (content < 0 || memcmp(w->names[content].bytes, name->bytes, bytes) == 0)
            return content;
    }
}

static void remember_name(struct world *w, int content)
{
    uint32_t at = lookup_place(&w->names[content]);
    while (w->lookup[at] >= 0)
        at = (at + 1) % LOOKUP;
    w->lookup[at] = content;
}

static void name_content(struct world *w, int content)
{
    struct name *name = &w->names[content];
    int parent = w->parent_of[content];
    uint32_t tokens[TOKENS_MAX];
    if (w->keyed) { /* nothing in a caller's key need look like anything */
        memset(name, 0, sizeof *name);
        for (uint32_t i = 0; i < w->setup.key_bytes; i++)
            name->bytes[i] = (unsigned char)mix(mix(w->seed) + (uint64_t)content * 64 + i);
        memcpy(name->bytes, &content, sizeof content);
        return;
    }
    content_tokens(w, w->branch_of[content], tokens);
    expect_code(w, "naming tokens",
                kv_name(w->kv, w->space_ids[w->space_of[content]],
                        parent < 0 ? NULL : &w->names[parent], tokens, name),
                OK);
}

void contents_name_all(struct world *w)
{
    memset(w->lookup, 0xff, sizeof w->lookup);
    for (uint32_t space = 0; space < SPACES; space++)
        for (uint32_t node = 0; node < w->nodes; node++) {
            int content = (int)(space * w->nodes + node);
            w->space_of[content] = space;
            w->branch_of[content] = (int)(node % w->branches);
            w->parent_of[content] =
                node < w->branches ? -1 : (int)(space * w->nodes + node / w->branches - 1);
            w->depth_of[content] =
                w->parent_of[content] < 0 ? 0 : w->depth_of[w->parent_of[content]] + 1;
            name_content(w, content);
            remember_name(w, content);
        }
}

uint32_t content_path(const struct world *w, int content, int path[DEPTH_MAX])
{
    uint32_t count = w->depth_of[content] + 1;
    for (uint32_t i = count; i-- > 0; content = w->parent_of[content])
        path[i] = content;
    return count;
}

/*
 * Deep ones are as likely as shallow ones, and the first branches likelier, so that contents meet
 * again.
 */
int content_random(struct world *w)
{
    uint32_t space = pick(w, SPACES), depth = 1 + pick(w, w->depth);
    int content = -1;
    for (uint32_t i = 0; i < depth; i++) {
        uint32_t branch = chance(w, 60) ? 0 : pick(w, w->branches);
        int child = content_child(w, space, content, branch);
        if (child < 0)
            break;
        content = child;
    }
    return content;
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

uint64_t bytes_of(const struct world *w, int content, uint32_t clears, uint32_t space_epoch)
{
    if (w->file)
        space_epoch = 0; /* what is invalidated by namespace may come back from a file */
    return mix(mix(w->seed ^ (uint64_t)content << 40) + ((uint64_t)clears << 32 | space_epoch)) | 1;
}

uint64_t bytes_expected(const struct world *w, int content)
{
    return bytes_of(w, content, w->clears, w->space_epoch[w->space_of[content]]);
}

static void write_now(const struct world *w, unsigned char *memory, uint64_t bytes)
{
    for (uint32_t i = 0; i < w->block_bytes / sizeof bytes; i++) {
        uint64_t word = mix(bytes + i);
        memcpy(memory + i * sizeof word, &word, sizeof word);
    }
}

void bytes_write(struct world *w, struct block *b, uint64_t bytes, uint64_t fence)
{
    unsigned char *memory = kv_chunk(w->kv, b->handle, 0, 0);
    if (memory == NULL)
        differ(w, "%s/%u has no address", tier_name(b->tier), b->slot);
    if (fence == 0) {
        write_now(w, memory, bytes);
        return;
    }
    if (w->late_count == LATE_MAX)
        differ(w, "the model's table of late writers is full");
    w->late[w->late_count++] =
        (struct late_write){fence, w->late_order++, bytes, b->tier, b->slot, memory};
    w->tally->late++;
}

uint64_t bytes_pending(const struct world *w, const struct block *b, uint64_t *bytes)
{
    const struct late_write *last = NULL;
    for (uint32_t i = 0; i < w->late_count; i++) {
        const struct late_write *late = &w->late[i];
        if (late->tier == b->tier && late->slot == b->slot &&
            (last == NULL || late->fence > last->fence ||
             (late->fence == last->fence && late->order > last->order)))
            last = late;
    }
    if (last != NULL && bytes != NULL)
        *bytes = last->bytes;
    return last != NULL ? last->fence : 0;
}

void bytes_check(struct world *w, const struct block *b, const char *where)
{
    uint64_t late = 0;
    if (b->bytes == 0 || !in_memory(w, b->tier))
        return;
    if (bytes_pending(w, b, &late) > 0) {
        if (late != b->bytes)
            differ(w, "%s: %s/%u holds content %d, and another writer of that memory is not over",
                   where, tier_name(b->tier), b->slot, b->content);
        return; /* the server orders its reads behind its own writers */
    }
    uint32_t chunk_words = w->setup.chunk_bytes / 8;
    for (uint32_t l = 0; l < w->setup.layers; l++)
        for (uint32_t p = 0; p < w->setup.parts; p++) {
            const unsigned char *chunk = kv_chunk(w->kv, b->handle, l, p);
            uint32_t first = (l * w->setup.parts + p) * chunk_words;
            for (uint32_t i = 0; i < chunk_words; i++) {
                uint64_t word, right = mix(b->bytes + first + i);
                memcpy(&word, chunk + i * sizeof word, sizeof word);
                if (word != right)
                    differ(w, "%s: wrong bytes in %s/%u (content %d), layer %u, part %u, word %u",
                           where, tier_name(b->tier), b->slot, b->content, l, p, i);
            }
        }
    w->tally->read++;
}

/* ---- Fences ---------------------------------------------------------------------------------- */

uint64_t fence_later(struct world *w)
{
    w->fence_given += pick(w, 3) + (w->fence_given <= w->fence_reached);
    return w->fence_given;
}

void give_fence(struct world *w, const struct block *b, uint64_t fence)
{
    uint64_t *ticket = &w->ticket[b->tier][b->slot];
    if (fence > *ticket)
        *ticket = fence;
}

/* The earliest late write that is due at `value`. */
static struct late_write *next_due(struct world *w, uint64_t value)
{
    struct late_write *due = NULL;
    for (uint32_t i = 0; i < w->late_count; i++) {
        struct late_write *late = &w->late[i];
        if (late->fence <= value && (due == NULL || late->fence < due->fence ||
                                     (late->fence == due->fence && late->order < due->order)))
            due = late;
    }
    return due;
}

void fence_signal(struct world *w, uint64_t value)
{
    struct late_write *due;
    while ((due = next_due(w, value)) != NULL) {
        write_now(w, due->memory, due->bytes);
        *due = w->late[--w->late_count];
    }
    if (value > w->fence_reached)
        w->fence_reached = value;
    expect_code(w, "signal", kv_signal(w->kv, value), OK);
}

void fence_before_leaving(struct world *w, const struct block *b)
{
    uint64_t ticket = w->ticket[b->tier][b->slot];
    if (avoids(w, AVOID_FENCE_LOST) && ticket > w->fence_reached)
        fence_signal(w, ticket);
}
