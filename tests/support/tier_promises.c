/* SPDX-License-Identifier: Apache-2.0 */
/* All promises of kinds and tiers, and those of transfer/tier.h that every tier has to keep. */
#include "support/tier_scene.h"

/* Structs of pointers and nothing else. */
static bool no_pointer_is_null(struct tier_scene *scene, const void *pointers, size_t bytes,
                               const char *of)
{
    for (size_t at = 0; at < bytes; at += sizeof(void *)) {
        void *pointer;
        memcpy(&pointer, (const char *)pointers + at, sizeof pointer);
        MUST(scene, pointer != NULL, "operation %zu of %s is NULL", at / sizeof pointer, of);
    }
    return true;
}

static bool tier_is_whole(struct tier_scene *scene)
{
    const struct kvbi_tier *tier = scene->tier;
    const struct kvbi_kind *kind = tier_recipe_kind(scene->recipe);
    KEPT(no_pointer_is_null(scene, tier->ops, sizeof *tier->ops, "the tier"));
    MUST(scene, (tier->lasting != NULL) == scene->recipe->lasts, "it %s what outlives the process",
         scene->recipe->lasts ? "does not answer for" : "answers for");
    if (tier->lasting != NULL)
        KEPT(no_pointer_is_null(scene, tier->lasting, sizeof *tier->lasting,
                                "what outlives the process"));
    MUST(scene, tier->lasting == NULL || !kind->in_memory,
         "its contents keep their names in memory, and it outlives the process");
    MUST(scene, strcmp(tier->ops->kind, kind->name) == 0, "the tier is called %s, its kind %s",
         tier->ops->kind, kind->name);
    MUST(scene, tier->tier == scene->recipe->tier, "it is tier %u, must be %u", tier->tier,
         scene->recipe->tier);
    MUST(scene, tier->block_count == PAIR_BLOCKS, "it has %u blocks, must have %u",
         tier->block_count, PAIR_BLOCKS);
    MUST(scene, tier->block_bytes == scene->pair.purpose.block_bytes,
         "its blocks have %llu bytes, must have %llu", (unsigned long long)tier->block_bytes,
         (unsigned long long)scene->pair.purpose.block_bytes);
    MUST(scene, tier->memory == &scene->pair.memory, "it has another allocator than it was given");
    MUST(scene, !tier->on_host || tier->base != NULL, "it is on the host, and has no base");
    MUST(scene, !tier->on_host || tier->ops->apart(tier) == NULL,
         "it is on the host, and its blocks lie apart");
    MUST(scene,
         !tier->on_streams || tier_pair_engine(&scene->pair)->streams != NULL ||
             scene->pair.engines.streams != NULL,
         "it is on the streams of a device, and no engine knows them");
    return true;
}

struct stretch {
    uintptr_t start, end;
    uint32_t slot, layer, part;
};

static int by_start(const void *a, const void *b)
{
    const struct stretch *first = a, *second = b;
    return first->start < second->start ? -1 : first->start > second->start;
}

static bool covers(const struct tier_scene *scene, const struct stretch *chunk)
{
    const struct kvbi_tier *tier = scene->tier;
    const unsigned char *start = (const unsigned char *)chunk->start;
    uintptr_t base = (uintptr_t)tier->base;
    if (scene->recipe->covers != NULL)
        return scene->recipe->covers(scene, start, chunk->end - chunk->start);
    return chunk->start >= base &&
           chunk->end - base <= (uint64_t)tier->block_count * tier->block_bytes;
}

/* All, or none: then there are no addresses. */
static bool list_chunks(struct tier_scene *scene, struct stretch *chunks, uint32_t *count)
{
    const struct kvb_layout *layout = &scene->pair.layout;
    uint32_t all = 0, nowhere = 0;
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++)
        for (uint32_t layer = 0; layer < layout->layers; layer++)
            for (uint32_t part = 0; part < layout->parts; part++) {
                uintptr_t start =
                    (uintptr_t)kvbi_tier_chunk(scene->tier, slot, layer, part, layout);
                nowhere += start == 0;
                chunks[all++] = (struct stretch){start, start + (uintptr_t)layout->chunk_bytes,
                                                 slot, layer, part};
            }
    MUST(scene, nowhere == 0 || nowhere == all, "%u of %u chunks have no address", nowhere, all);
    *count = nowhere == 0 ? all : 0;
    return true;
}

#define CHUNKS (PAIR_BLOCKS * PAIR_LAYERS * PAIR_PARTS)

static bool chunks_are_disjoint(struct tier_scene *scene)
{
    struct stretch chunks[CHUNKS];
    uint32_t count;
    KEPT(list_chunks(scene, chunks, &count));
    MUST(scene, count > 0 || !scene->tier->on_host, "it is on the host, and has no addresses");
    qsort(chunks, count, sizeof *chunks, by_start);
    for (uint32_t i = 0; i < count; i++) {
        const struct stretch *chunk = &chunks[i];
        MUST(scene, covers(scene, chunk), "block %u, layer %u, part %u lies outside of the tier",
             chunk->slot, chunk->layer, chunk->part);
        MUST(scene, i == 0 || chunks[i - 1].end <= chunk->start,
             "block %u, layer %u, part %u overlaps block %u, layer %u, part %u", chunk->slot,
             chunk->layer, chunk->part, chunks[i - 1].slot, chunks[i - 1].layer,
             chunks[i - 1].part);
    }
    return true;
}

/* NULL: chunk by chunk, one block behind the other from `base` on. */
static bool apart_says_where_blocks_lie(struct tier_scene *scene)
{
    const struct kvb_layout *layout = &scene->pair.layout;
    const char *apart = scene->tier->ops->apart(scene->tier);
    struct stretch chunks[CHUNKS];
    uint32_t count, moved = 0;
    KEPT(list_chunks(scene, chunks, &count));
    for (uint32_t i = 0; i < count; i++)
        moved += chunks[i].start != (uintptr_t)scene->tier->base + i * layout->chunk_bytes;
    if (apart != NULL) {
        MUST(scene, apart[0] != '\0', "its blocks lie apart, and it does not say why");
        MUST(scene, count == 0 || moved > 0, "its blocks lie one behind the other, \"%s\"", apart);
        return true;
    }
    MUST(scene, count > 0, "its blocks have no addresses, and it does not say why");
    MUST(scene, moved == 0, "%u chunks do not lie one behind the other, and it does not say why",
         moved);
    return true;
}

/* All slots are different, written in one random order, read in another. */
static bool slots_keep_their_bytes(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS];
    uint64_t seed = 21;
    for (uint64_t round = 0; round < 2; round++) {
        tier_scene_shuffle(slots, &seed);
        for (uint32_t i = 0; i < PAIR_BLOCKS; i++)
            KEPT(tier_scene_write(scene, slots[i], 100 * (round + 1) + slots[i]));
        tier_scene_shuffle(slots, &seed);
        for (uint32_t i = 0; i < PAIR_BLOCKS; i++)
            KEPT(tier_scene_has(scene, slots[i], 100 * (round + 1) + slots[i]));
    }
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot += 3)
        KEPT(tier_scene_write(scene, slot, 1000 + slot));
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++)
        KEPT(tier_scene_has(scene, slot, (slot % 3 == 0 ? 1000 : 200) + slot));
    return true;
}

static bool is_not_lost(struct tier_scene *scene)
{
    char why[32], untouched[32];
    memset(why, 0x5a, sizeof why);
    memset(untouched, 0x5a, sizeof untouched);
    MUST(scene, !scene->tier->ops->lost(scene->tier, why, sizeof why), "it is lost: %.31s", why);
    MUST(scene, memcmp(why, untouched, sizeof why) == 0, "it is not lost, and says why: %.31s",
         why);
    MUST(scene, !scene->tier->ops->lost(scene->tier, NULL, 0), "it is lost if nobody asks why");
    if (scene->recipe->lose == NULL)
        return true;
    scene->recipe->lose(scene);
    why[0] = '\0';
    MUST(scene, scene->tier->ops->lost(scene->tier, NULL, 0), "its memory has failed: not lost");
    MUST(scene, scene->tier->ops->lost(scene->tier, why, sizeof why) && why[0] != '\0',
         "its memory has failed, and it does not say why");
    return true;
}

/* Word for word what it has to say is added to what was there. All counters are whole words. */
static bool statistics_only_add(struct tier_scene *scene)
{
    enum { WORDS = sizeof(struct kvb_stats) / sizeof(uint64_t) };
    static union {
        struct kvb_stats stats;
        uint64_t words[WORDS];
    } said, added;
    memset(&said, 0, sizeof said);
    for (uint32_t i = 0; i < WORDS; i++)
        added.words[i] = 1000 + i;
    scene->tier->ops->statistics(scene->tier, &said.stats);
    scene->tier->ops->statistics(scene->tier, &added.stats);
    for (uint32_t i = 0; i < WORDS; i++)
        MUST(scene, added.words[i] == 1000 + i + said.words[i],
             "word %u of the statistics: %llu is made %llu by what adds %llu", i,
             (unsigned long long)1000 + i, (unsigned long long)added.words[i],
             (unsigned long long)said.words[i]);
    return true;
}

/*
 * Tables grow with slots. Beside them a kind has the names of its files, or what it knows of its
 * device: less than a table of a word a slot, so that one that is forgotten is missed.
 */
#define BESIDE_TABLES ((int64_t)(PAIR_BLOCKS * sizeof(uint64_t)))

static bool bytes_are_what_create_took(struct tier_scene *scene)
{
    struct tier_pair *pair = &scene->pair;
    tier_scene_kill(scene);
    KEPT(tier_scene_create(scene)); /* its peer has no tables */
    int64_t took = pair->heap.live_bytes, said = (int64_t)scene->tier->ops->bytes(scene->tier);
    for (uint32_t i = 0; i < KVB_TIER_COUNT; i++)
        if (pair->tiers[i].owned && !pair->tiers[i].on_streams)
            took -= (int64_t)(pair->tiers[i].block_count * pair->tiers[i].block_bytes);
    MUST(scene, said > took - BESIDE_TABLES && said < took + BESIDE_TABLES,
         "bytes is %lld, and create took %lld besides blocks", (long long)said, (long long)took);
    return true;
}

static bool goes_without_a_trace(struct tier_scene *scene)
{
    struct tier_pair *pair = &scene->pair;
    struct kvbi_tier zeroed, *tier = scene->tier;
    struct kvbi_tier *upper = tier_pair_upper(pair), *lower = tier_pair_lower(pair);
    memset(&zeroed, 0, sizeof zeroed);
    KEPT(tier_scene_write(scene, 5, 5));
    traffic_end(&scene->traffic);
    tier_pair_disconnect(pair);
    kvbi_tier_destroy(lower);
    kvbi_tier_destroy(upper); /* a device after what is registered with it */
    MUST(scene, tier_pair_gave_all_back(pair), "%lld pieces, %lld bytes are left after destroy",
         (long long)pair->heap.live_blocks, (long long)pair->heap.live_bytes);
    MUST(scene, tier->ops == NULL && tier->self == NULL && tier->base == NULL,
         "something of the tier is left");
    kvbi_tier_destroy(tier); /* twice */
    kvbi_tier_destroy(&zeroed);
    MUST(scene, tier_pair_gave_all_back(pair), "a second destroy frees something");
    return true;
}

/* Of a tier on the host, which is destroyed before the one that it is registered with. */
static bool registers_memory_if_it_says_so(struct tier_scene *scene)
{
    const struct kvbi_kind *kind = tier_recipe_kind(scene->recipe);
    const struct kvb_tier_config config = {.tier = KVB_TIER_HOST, .block_count = 8};
    struct kvbi_tier host;
    char message[256] = "";
    int code = kvbi_kind_memory.create(&host, &scene->pair.memory, &config, &scene->pair.purpose,
                                       message, sizeof message);
    MUST(scene, code == 0, "there is no memory to register: %s", message);
    const struct kvbi_register_config registering = {.log = &scene->pair.log, .duty_percent = 100};
    code = scene->tier->ops->register_memory(scene->tier, &host, &registering);
    bool registered = host.registration != NULL;
    kvbi_tier_destroy(&host);
    MUST(scene, code == 0, "register_memory is %d", code);
    MUST(scene, registered == kind->registers_memory, "the kind says that it registers %s, and %s",
         kind->registers_memory ? "memory" : "no memory", registered ? "it did" : "it did not");
    return true;
}

static const struct tier_promise of_all_tiers[] = {
    {"the tier is whole", tier_is_whole, NEEDS_TIER},
    {"chunks are disjoint and in the tier", chunks_are_disjoint, NEEDS_TIER},
    {"apart says where blocks lie", apart_says_where_blocks_lie, NEEDS_TIER},
    {"slots keep their bytes", slots_keep_their_bytes, NEEDS_TIER},
    {"lost is false until its memory fails", is_not_lost, NEEDS_TIER},
    {"statistics only add", statistics_only_add, NEEDS_TIER},
    {"bytes is what create took", bytes_are_what_create_took, NEEDS_TIER},
    {"destroy leaves nothing, twice", goes_without_a_trace, NEEDS_TIER},
    {"memory is registered if the kind says so", registers_memory_if_it_says_so, NEEDS_TIER},
    {.name = NULL},
};

const struct tier_promise *tier_promise_at(size_t i)
{
    const struct tier_promise *const tables[] = {tier_promises_kind, of_all_tiers,
                                                 tier_promises_lasting};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct tier_promise *promise = tables[t]; promise->name != NULL; promise++)
            if (i-- == 0)
                return promise;
    return NULL;
}
