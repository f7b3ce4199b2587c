/* SPDX-License-Identifier: Apache-2.0 */
/* See bent_kind.h. */
#include "support/bent_kind.h"

#include "support/test.h"

struct kvbi_kind bent_kind;
const struct kvbi_kind *bent_kind_real;
struct kvbi_tier_ops bent_tier_ops;
struct kvbi_lasting_ops bent_lasting_ops;
static void (*bend)(struct kvbi_tier *tier);
static struct tier_recipe recipes[3];

static int create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes)
{
    int error = bent_kind_real->create(tier, memory, config, purpose, message, message_bytes);
    if (error != 0)
        return error;
    bent_tier_ops = *tier->ops;
    if (tier->lasting != NULL)
        bent_lasting_ops = *tier->lasting;
    if (bend != NULL)
        bend(tier);
    /* a kind may know its tiers by their operations: only where these are others */
    if (memcmp(&bent_tier_ops, tier->ops, sizeof bent_tier_ops) != 0)
        tier->ops = &bent_tier_ops;
    if (tier->lasting != NULL)
        tier->lasting = &bent_lasting_ops;
    return 0;
}

void bent_kind_start(const struct tier_recipe *base, void (*how)(struct kvbi_tier *tier))
{
    bent_kind_real = tier_recipe_kind(base);
    assert_non_null(bent_kind_real);
    bent_kind = *bent_kind_real;
    bent_kind.create = create;
    bend = how;
    recipes[0] = *base;
    recipes[0].own = &bent_kind;
    recipes[1] = tier_recipe_memory;
    recipes[2] = tier_recipe_disk;
}

static bool keeps(const struct tier_promise *promise, struct demand *demand)
{
    static struct tier_scene scene;
    scene.recipes = recipes;
    scene.recipe_count = sizeof recipes / sizeof *recipes;
    bool kept = tier_scene_begin(&scene, &recipes[0], promise) && promise->is_kept(&scene);
    bool ended = tier_scene_end(&scene);
    *demand = scene.demand;
    return kept && ended;
}

void bent_kind_expect_found(const char *name)
{
    const struct tier_promise *promise;
    struct demand demand;
    size_t i = 0;
    while ((promise = tier_promise_at(i)) != NULL && strcmp(promise->name, name) != 0)
        i++;
    if (promise == NULL)
        fail_msg("there is no promise \"%s\"", name);
    if (keeps(promise, &demand))
        fail_msg("not found: \"%s\" is kept", name);
    print_message("%s: %s\n", name, demand.complaint);
    assert_string_not_equal(demand.complaint, "");
}

void bent_kind_expect_all_kept(void)
{
    const struct tier_promise *promise;
    struct demand demand;
    for (size_t i = 0; (promise = tier_promise_at(i)) != NULL; i++)
        if (tier_promise_applies(promise, &recipes[0]) && !keeps(promise, &demand))
            fail_msg("%s: %s", promise->name, demand.complaint);
}
