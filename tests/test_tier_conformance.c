/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kind of memory keeps the promises of transfer/kind.h and transfer/tier.h. A new line in
 * transfer/kinds.c wants a recipe here.
 */
#include "support/tier_recipes.h"

/* In this build tiers in CUDA memory are known by their configuration, and refused in words. */
static void configure_cuda(struct tier_scene *scene, struct kvb_tier_config *config)
{
    (void)scene;
    config->memory_kind = KVB_MEMORY_CUDA;
    config->copy_method = KVB_COPY_PLAIN;
}

int main(void)
{
    const struct tier_recipe recipes[] = {
        tier_recipe_memory,
        tier_recipe_given_memory,
        tier_recipe_disk,
        tier_recipe_disks,
        tier_recipe_faulty,
        {.name = "cuda, absent",
         .kind = "cuda",
         .tier = KVB_TIER_DEVICE,
         .peer = KVB_TIER_HOST,
         .fields = FIELD_DEVICE | FIELD_COPY_METHOD | FIELD_MEMORY | FIELD_LAYER_MEMORY,
         .refusal = KVB_EUNSUPPORTED,
         .configure = configure_cuda},
    };
    return tier_conformance_run(recipes, sizeof recipes / sizeof *recipes, true);
}
