/* SPDX-License-Identifier: Apache-2.0 */
/* Running all promises over all recipes. See tier_conformance.h; they are in tier_promises*.c. */
#include "support/tier_conformance.h"

#include "support/test.h"
#include "support/tier_scene.h"

#define TESTS_MAX 512

const struct kvbi_kind *tier_recipe_kind(const struct tier_recipe *recipe)
{
    const struct kvbi_kind *kind = recipe->own;
    for (size_t i = 0; kind == NULL && (kind = kvbi_kind_at(i)) != NULL; i++)
        if (strcmp(kind->name, recipe->kind) != 0)
            kind = NULL;
    return kind;
}

const char *tier_conformance_lacks(const struct tier_recipe *recipes, size_t count)
{
    const struct kvbi_kind *kind;
    for (size_t i = 0; (kind = kvbi_kind_at(i)) != NULL; i++) {
        size_t r = 0;
        while (r < count && (recipes[r].own != NULL || strcmp(recipes[r].kind, kind->name) != 0))
            r++;
        if (r == count)
            return kind->name;
    }
    return NULL;
}

bool tier_promise_applies(const struct tier_promise *promise, const struct tier_recipe *recipe)
{
    switch (promise->needs) {
    case NEEDS_KIND:
        return true;
    case NEEDS_TIER:
        return recipe->refusal == 0;
    case NEEDS_LASTING:
        return recipe->refusal == 0 && recipe->lasts;
    case NEEDS_KEEPING:
        return recipe->refusal == 0 && recipe->keeps;
    }
    return false;
}

/* ---- The scene ------------------------------------------------------------------------------- */

bool tier_scene_begin(struct tier_scene *scene, const struct tier_recipe *recipe,
                      const struct tier_promise *promise)
{
    const struct tier_recipe *recipes = scene->recipes;
    size_t count = scene->recipe_count;
    memset(scene, 0, sizeof *scene);
    scene->recipes = recipes;
    scene->recipe_count = count;
    tier_scene_prepare(scene, recipe);
    return promise->needs == NEEDS_KIND || tier_scene_open(scene);
}

bool tier_scene_end(struct tier_scene *scene)
{
    const struct kv_heap *heap = &scene->pair.heap;
    tier_scene_kill(scene);
    bool clean = tier_scene_clean_up(scene);
    MUST(scene, tier_pair_gave_all_back(&scene->pair),
         "%lld pieces, %lld bytes are left, %llu were freed with a wrong size",
         (long long)heap->live_blocks, (long long)heap->live_bytes,
         (unsigned long long)heap->wrong_frees);
    MUST(scene, clean, "what the recipe has brought does not want to be cleaned up");
    return scene->demand.complaint[0] == '\0';
}

/* ---- As tests -------------------------------------------------------------------------------- */

struct trial {
    const struct tier_recipe *recipes, *recipe;
    size_t count;
    const struct tier_promise *promise;
    struct tier_scene *scene;
    char name[160];
};

static int trial_setup(void **state)
{
    struct trial *trial = *state;
    trial->scene = calloc(1, sizeof *trial->scene);
    if (trial->scene == NULL)
        return -1;
    trial->scene->recipes = trial->recipes;
    trial->scene->recipe_count = trial->count;
    if (tier_scene_begin(trial->scene, trial->recipe, trial->promise))
        return 0;
    print_error("%s: %s\n", trial->name, trial->scene->demand.complaint);
    (void)tier_scene_end(trial->scene);
    free(trial->scene);
    return -1;
}

static int trial_teardown(void **state)
{
    struct trial *trial = *state;
    bool said = trial->scene->demand.complaint[0] != '\0'; /* the test has failed by that */
    bool well = tier_scene_end(trial->scene) || said;
    if (!well)
        print_error("%s: %s\n", trial->name, trial->scene->demand.complaint);
    free(trial->scene);
    return well ? 0 : -1;
}

static void hold_to_the_promise(void **state)
{
    const struct trial *trial = *state;
    if (!trial->promise->is_kept(trial->scene))
        fail_msg("%s: %s", trial->name, trial->scene->demand.complaint);
}

static void test_every_kind_that_there_is_has_a_recipe(void **state)
{
    const struct trial *trial = *state;
    const char *lacks = tier_conformance_lacks(trial->recipes, trial->count);
    if (lacks != NULL)
        fail_msg("transfer/kinds.c lists kind \"%s\", and no recipe here names it", lacks);
}

static void test_every_recipe_is_of_a_kind_that_there_is(void **state)
{
    const struct trial *trial = *state;
    for (size_t r = 0; r < trial->count; r++)
        if (tier_recipe_kind(&trial->recipes[r]) == NULL)
            fail_msg("recipe \"%s\": transfer/kinds.c lists no kind \"%s\"", trial->recipes[r].name,
                     trial->recipes[r].kind);
}

int tier_conformance_run(const struct tier_recipe *recipes, size_t count, bool all_kinds)
{
    static struct CMUnitTest tests[TESTS_MAX];
    static struct trial trials[TESTS_MAX];
    const struct tier_promise *promise;
    size_t total = 1;
    trials[0] = (struct trial){.recipes = recipes, .count = count};
    tests[0] = (struct CMUnitTest){.name = "every recipe is of a kind that there is",
                                   .test_func = test_every_recipe_is_of_a_kind_that_there_is,
                                   .initial_state = &trials[0]};
    if (all_kinds)
        tests[total++] =
            (struct CMUnitTest){.name = "every kind that there is has a recipe",
                                .test_func = test_every_kind_that_there_is_has_a_recipe,
                                .initial_state = &trials[0]};
    for (size_t r = 0; r < count; r++)
        for (size_t p = 0; (promise = tier_promise_at(p)) != NULL && total < TESTS_MAX; p++) {
            struct trial *trial = &trials[total];
            if (tier_recipe_kind(&recipes[r]) == NULL ||
                !tier_promise_applies(promise, &recipes[r]))
                continue;
            *trial = (struct trial){
                .recipes = recipes, .recipe = &recipes[r], .count = count, .promise = promise};
            (void)snprintf(trial->name, sizeof trial->name, "%s: %s", recipes[r].name,
                           promise->name);
            tests[total++] = (struct CMUnitTest){.name = trial->name,
                                                 .test_func = hold_to_the_promise,
                                                 .setup_func = trial_setup,
                                                 .teardown_func = trial_teardown,
                                                 .initial_state = trial};
        }
    return _cmocka_run_group_tests("tier conformance", tests, total, NULL, NULL);
}
