/* SPDX-License-Identifier: Apache-2.0 */
/* See tier_recipes.h. */
#include "support/tier_recipes.h"

#include "support/disk_path.h"
#include "support/faulty_kind.h"

/*
 * ---- Host memory ------------------------------------------------------------------------------
 *
 * At HOST: in tier DEVICE memory_kind alone tells it from a GPU's, and that is what `is` looks at.
 */

const struct tier_recipe tier_recipe_memory = {.name = "memory",
                                               .kind = "memory",
                                               .tier = KVB_TIER_HOST,
                                               .peer = KVB_TIER_DEVICE,
                                               .fields = FIELD_MEMORY,
                                               .peer_access = &tier_access_memory};

static uint64_t given_bytes(const struct tier_scene *scene)
{
    return PAIR_BLOCKS * scene->pair.purpose.block_bytes;
}

static void give_memory(struct tier_scene *scene)
{
    scene->self = aligned_alloc(4096, given_bytes(scene));
    if (scene->self == NULL)
        abort();
}

static bool take_memory_back(struct tier_scene *scene)
{
    free(scene->self);
    scene->self = NULL;
    return true;
}

static void configure_given(struct tier_scene *scene, struct kvb_tier_config *config)
{
    config->memory = scene->self;
    config->memory_bytes = given_bytes(scene);
}

static bool given_covers(const struct tier_scene *scene, const unsigned char *start, uint64_t bytes)
{
    const unsigned char *given = scene->self;
    return start >= given && bytes <= given_bytes(scene) - (uint64_t)(start - given);
}

const struct tier_recipe tier_recipe_given_memory = {.name = "memory of the caller's",
                                                     .kind = "memory",
                                                     .tier = KVB_TIER_HOST,
                                                     .peer = KVB_TIER_DEVICE,
                                                     .fields = FIELD_MEMORY,
                                                     .prepare = give_memory,
                                                     .clean_up = take_memory_back,
                                                     .configure = configure_given,
                                                     .covers = given_covers,
                                                     .peer_access = &tier_access_memory};

/* ---- Disks ----------------------------------------------------------------------------------- */

#define FILES 3

struct shelf {
    struct disk_path place;
    char names[FILES][112];
    const char *paths[FILES];
};

static void make_place(struct tier_scene *scene)
{
    struct shelf *shelf = scene->self = calloc(1, sizeof *shelf);
    if (shelf == NULL)
        abort();
    disk_path_make(&shelf->place);
    for (uint32_t i = 0; i < FILES; i++) {
        (void)snprintf(shelf->names[i], sizeof shelf->names[i], "%s.%u", shelf->place.file, i);
        shelf->paths[i] = shelf->names[i];
    }
}

static bool remove_place(struct tier_scene *scene)
{
    struct shelf *shelf = scene->self;
    if (shelf != NULL)
        disk_path_remove(&shelf->place);
    free(shelf);
    scene->self = NULL;
    return true;
}

static void configure_disk(struct tier_scene *scene, struct kvb_tier_config *config)
{
    const struct shelf *shelf = scene->self;
    config->path = shelf->paths[0];
}

static void configure_disks(struct tier_scene *scene, struct kvb_tier_config *config)
{
    const struct shelf *shelf = scene->self;
    config->paths = shelf->paths;
    config->path_count = FILES;
}

#define DISK_FIELDS (FIELD_PATH | FIELD_PATHS | FIELD_DISK_FLAGS | FIELD_WRITE_LIMITS)

#define DISK_RECIPE(recipe_name, configure_it, files)                                              \
    {                                                                                              \
        .name = recipe_name, .kind = "disk", .tier = KVB_TIER_DISK, .peer = KVB_TIER_HOST,         \
        .fields = DISK_FIELDS, .lasts = true, .keeps = true, .prepare = make_place,                \
        .clean_up = remove_place, .configure = configure_it, .peer_access = &tier_access_memory,   \
        .file_count = files                                                                        \
    }

const struct tier_recipe tier_recipe_disk = DISK_RECIPE("disk", configure_disk, 1);
const struct tier_recipe tier_recipe_disks =
    DISK_RECIPE("disk of three files", configure_disks, FILES);

/* ---- The tests' own -------------------------------------------------------------------------- */

static void make_script(struct tier_scene *scene)
{
    struct kv_faulty *faulty = scene->self = calloc(1, sizeof *faulty);
    if (faulty == NULL)
        abort();
    kv_faulty_init(faulty);
}

static void configure_faulty(struct tier_scene *scene, struct kvb_tier_config *config)
{
    config->memory = scene->self;
}

static void lose_faulty(struct tier_scene *scene)
{
    struct kv_faulty *faulty = scene->self;
    atomic_store(&faulty->lost, true);
}

/* It looks at its script and nothing else, and its blocks are gone with the tier. */
const struct tier_recipe tier_recipe_faulty = {.name = "faulty kind",
                                               .kind = "faulty",
                                               .own = &kv_faulty_kind,
                                               .never_meant = true,
                                               .tier = KVB_TIER_DISK,
                                               .peer = KVB_TIER_HOST,
                                               .fields = FIELDS_ALL,
                                               .lasts = true,
                                               .prepare = make_script,
                                               .clean_up = take_memory_back,
                                               .configure = configure_faulty,
                                               .lose = lose_faulty,
                                               .peer_access = &tier_access_memory,
                                               .file_count = KV_FAULTY_FILES};
