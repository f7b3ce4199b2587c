/* SPDX-License-Identifier: Apache-2.0 */
/* See tier_scene.h. */
#include "support/tier_scene.h"

/* ---- Lives of a tier ------------------------------------------------------------------------- */

void tier_scene_prepare(struct tier_scene *scene, const struct tier_recipe *recipe)
{
    struct tier_pair *pair = &scene->pair;
    uint32_t upper = recipe->tier < recipe->peer ? recipe->tier : recipe->peer;
    scene->recipe = recipe;
    tier_pair_init(pair, upper, recipe->tier + recipe->peer - upper);
    if (recipe->prepare != NULL)
        recipe->prepare(scene);
    if (recipe->configure != NULL)
        recipe->configure(scene, &pair->configs[recipe->tier]);
    if (recipe->configure_peer != NULL)
        recipe->configure_peer(scene, &pair->configs[recipe->peer]);
    pair->kinds[recipe->tier] = recipe->own;
}

bool tier_scene_clean_up(struct tier_scene *scene)
{
    return scene->recipe->clean_up == NULL || scene->recipe->clean_up(scene);
}

bool tier_scene_create(struct tier_scene *scene)
{
    struct tier_pair *pair = &scene->pair;
    int error = tier_pair_open(pair);
    MUST(scene, error == 0, "create: %d: %s", error, pair->message);
    scene->tier = &pair->tiers[scene->recipe->tier];
    scene->peer = &pair->tiers[scene->recipe->peer];
    return true;
}

bool tier_scene_commit(struct tier_scene *scene)
{
    struct tier_pair *pair = &scene->pair;
    int error = tier_pair_connect(pair, SCENE_CAPACITY, false);
    MUST(scene, error == 0, "engine: %d: %s", error, pair->message);
    error = tier_pair_commit(pair);
    MUST(scene, error == 0, "commit: %d: %s", error, pair->message);
    if (!traffic_begin(&scene->traffic, tier_pair_engine(pair), scene->recipe->get_on))
        return demand_fails(&scene->demand, "%s", scene->traffic.demand.complaint);
    return true;
}

static bool note_found(struct tier_scene *scene, const struct kvbi_found *found)
{
    MUST(scene, found->slot < PAIR_BLOCKS, "scan has found slot %u of %u", found->slot,
         PAIR_BLOCKS);
    MUST(scene, !scene->seen[found->slot], "scan has found slot %u twice", found->slot);
    scene->seen[found->slot] = true;
    scene->found[found->slot] = *found;
    scene->found_count += !found->retired;
    scene->retired_count += found->retired;
    return true;
}

bool tier_scene_scan(struct tier_scene *scene, uint32_t at_a_time)
{
    struct kvbi_found found[PAIR_BLOCKS];
    uint64_t cursor = 0;
    uint32_t count;
    memset(scene->seen, 0, sizeof scene->seen);
    scene->found_count = scene->retired_count = 0;
    while (scene->tier->lasting != NULL &&
           (count = scene->tier->lasting->scan(scene->tier, &cursor, found, at_a_time)) > 0) {
        MUST(scene, count <= at_a_time, "scan of at most %u gave %u", at_a_time, count);
        for (uint32_t i = 0; i < count; i++)
            KEPT(note_found(scene, &found[i]));
    }
    return true;
}

bool tier_scene_open(struct tier_scene *scene)
{
    return tier_scene_create(scene) && tier_scene_commit(scene) &&
           tier_scene_scan(scene, PAIR_BLOCKS);
}

void tier_scene_kill(struct tier_scene *scene)
{
    traffic_end(&scene->traffic);
    tier_pair_close(&scene->pair);
}

void tier_scene_close(struct tier_scene *scene, const uint32_t *order, uint32_t count)
{
    traffic_end(&scene->traffic);
    tier_pair_disconnect(&scene->pair);
    scene->tier->lasting->close(scene->tier, order, count);
    tier_scene_kill(scene);
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* One copy between the tier and its peer, in the peer's slot of the same number. */
static bool move(struct tier_scene *scene, bool write, uint32_t slot, struct kvbi_copy copy,
                 int *result)
{
    copy.from = write ? scene->peer : scene->tier;
    copy.to = write ? scene->tier : scene->peer;
    copy.from_slot = copy.to_slot = slot;
    copy.cookie = traffic_tag(&scene->traffic);
    if (!traffic_submit(&scene->traffic, &copy, 1, !write) || !traffic_collect_all(&scene->traffic))
        return demand_fails(&scene->demand, "%s", scene->traffic.demand.complaint);
    *result = scene->traffic.copies[traffic_number(copy.cookie)].result;
    return true;
}

bool tier_scene_write_after(struct tier_scene *scene, uint32_t slot, uint64_t key, uint64_t clears)
{
    const struct kvbi_label label = content_label(key, clears);
    const struct kvbi_copy copy = {.identity = content_identity(key), .label = &label};
    int result = 0;
    scene->recipe->peer_access->fill(scene->peer, slot, key);
    KEPT(move(scene, true, slot, copy, &result));
    MUST(scene, result == 0, "writing slot %u ended with %d", slot, result);
    return true;
}

bool tier_scene_write(struct tier_scene *scene, uint32_t slot, uint64_t key)
{
    return tier_scene_write_after(scene, slot, key, 0);
}

bool tier_scene_read(struct tier_scene *scene, uint32_t slot, uint64_t key,
                     const struct kvbi_identity *identity, int *result)
{
    const struct kvbi_copy copy = {.identity = *identity};
    scene->recipe->peer_access->fill(scene->peer, slot, ~key);
    KEPT(move(scene, false, slot, copy, result));
    MUST(scene, *result != 0 || scene->recipe->peer_access->has(scene->peer, slot, key),
         "slot %u was read, and has other bytes than were written", slot);
    return true;
}

bool tier_scene_has(struct tier_scene *scene, uint32_t slot, uint64_t key)
{
    const struct kvbi_identity identity = content_identity(key);
    int result = 0;
    KEPT(tier_scene_read(scene, slot, key, &identity, &result));
    MUST(scene, result == 0, "reading slot %u ended with %d", slot, result);
    return true;
}

bool tier_scene_lacks(struct tier_scene *scene, uint32_t slot, uint64_t key)
{
    const struct kvbi_identity identity = content_identity(key);
    int result = 0;
    KEPT(tier_scene_read(scene, slot, key, &identity, &result));
    MUST(scene, result != 0, "slot %u was read, and nothing is to be had there", slot);
    return true;
}

bool tier_scene_found(struct tier_scene *scene, uint32_t slot, uint64_t key)
{
    struct kvbi_label label = content_label(key, 0);
    const struct kvbi_found *found = &scene->found[slot];
    MUST(scene, scene->seen[slot] && !found->retired, "slot %u was not found", slot);
    label.clears = found->label.clears; /* by now the epoch */
    label.payload_bytes = (uint32_t)scene->tier->block_bytes;
    MUST(scene, found->label.generation == label.generation,
         "slot %u was found with generation %llu, must be %llu", slot,
         (unsigned long long)found->label.generation, (unsigned long long)label.generation);
    MUST(scene, memcmp(&found->label, &label, sizeof label) == 0,
         "slot %u was found with another label", slot);
    return tier_scene_has(scene, slot, key);
}

void tier_scene_shuffle(uint32_t *slots, uint64_t *seed)
{
    for (uint32_t i = 0; i < PAIR_BLOCKS; i++)
        slots[i] = i;
    for (uint32_t i = PAIR_BLOCKS; i-- > 1;) {
        uint32_t j = kv_random(seed, i + 1), slot = slots[i];
        slots[i] = slots[j];
        slots[j] = slot;
    }
}
