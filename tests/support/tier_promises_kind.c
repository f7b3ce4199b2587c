/* SPDX-License-Identifier: Apache-2.0 */
/* What kind.h promises before there is a tier: whom a configuration means, and what is wrong. */
#include "support/tier_scene.h"

static const struct kvb_tier_config *own_config(const struct tier_scene *scene)
{
    return &scene->pair.configs[scene->recipe->tier];
}

static bool kind_is_whole(struct tier_scene *scene)
{
    const struct kvbi_kind *kind = tier_recipe_kind(scene->recipe);
    MUST(scene, kind->name != NULL && kind->name[0] != '\0', "the kind has no name");
    MUST(scene, kind->is != NULL && kind->check != NULL && kind->create != NULL,
         "an operation of the kind is NULL");
    MUST(scene, !(kind->in_memory && kind->below_memory),
         "it is in memory, and must stand below memory");
    return true;
}

/* ---- Whom it means --------------------------------------------------------------------------- */

static bool means_its_configuration(struct tier_scene *scene)
{
    const struct kvbi_kind *kind = tier_recipe_kind(scene->recipe), *other;
    const struct kvbi_kind *meant = kvbi_kind_of(own_config(scene));
    if (scene->recipe->never_meant) {
        MUST(scene, !kind->is(own_config(scene)), "it is had by a door, and is meant");
        MUST(scene, meant == NULL, "its configuration means kind %s", meant->name);
        return true;
    }
    MUST(scene, kind->is(own_config(scene)), "its configuration does not mean it");
    MUST(scene, meant != NULL && strcmp(meant->name, kind->name) == 0, "kvbi_kind_of finds kind %s",
         meant != NULL ? meant->name : "NULL");
    for (size_t i = 0; (other = kvbi_kind_at(i)) != NULL; i++)
        MUST(scene, strcmp(other->name, kind->name) == 0 || !other->is(own_config(scene)),
             "its configuration means kind %s as well", other->name);
    return true;
}

/* For each recipe of another kind: what it says of the other's configuration. */
static bool with_others(struct tier_scene *scene,
                        bool (*look)(struct tier_scene *scene, const struct tier_scene *other))
{
    bool kept = true;
    for (size_t r = 0; kept && r < scene->recipe_count; r++) {
        const struct tier_recipe *recipe = &scene->recipes[r];
        struct tier_scene *other;
        if (strcmp(recipe->kind, scene->recipe->kind) == 0 || recipe->never_meant)
            continue;
        other = calloc(1, sizeof *other);
        if (other == NULL)
            return demand_fails(&scene->demand, "no memory for another scene");
        tier_scene_prepare(other, recipe);
        kept = look(scene, other);
        if (!tier_scene_clean_up(other))
            kept = demand_fails(&scene->demand, "%s is not cleaned up", recipe->name);
        free(other);
    }
    return kept;
}

static bool does_not_mean(struct tier_scene *scene, const struct tier_scene *other)
{
    MUST(scene, !tier_recipe_kind(scene->recipe)->is(own_config(other)),
         "the configuration of \"%s\" means it", other->recipe->name);
    return true;
}

static bool means_no_other_configuration(struct tier_scene *scene)
{
    return with_others(scene, does_not_mean);
}

/* ---- What is wrong --------------------------------------------------------------------------- */

static int check(const struct tier_scene *scene, const struct kvb_tier_config *config,
                 char message[256])
{
    message[0] = '\0';
    return tier_recipe_kind(scene->recipe)
        ->check(config, &scene->pair.layout, scene->pair.purpose.block_bytes, message, 256);
}

/* The words begin with a field of the configuration, as it is called there. */
static bool names_a_field(const char *message)
{
    static const char *const fields[] = {"tier",
                                         "block_count",
                                         "memory",
                                         "memory_bytes",
                                         "path",
                                         "paths",
                                         "path_count",
                                         "disk_engine",
                                         "disk_flags",
                                         "write_bytes_per_second",
                                         "write_bytes_per_day",
                                         "memory_kind",
                                         "device",
                                         "copy_method",
                                         "pin_threads",
                                         "pin_duty_percent",
                                         "layer_memory"};
    size_t length = strspn(message, "abcdefghijklmnopqrstuvwxyz_");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strlen(fields[i]) == length && strncmp(fields[i], message, length) == 0)
            return true;
    return false;
}

static bool refuses(struct tier_scene *scene, const struct kvb_tier_config *config,
                    const char *what)
{
    char message[256];
    int code = check(scene, config, message);
    MUST(scene, code == KVB_EINVAL, "check of %s is %d, must be KVB_EINVAL", what, code);
    MUST(scene, names_a_field(message), "check of %s names no field: \"%s\"", what, message);
    return true;
}

static bool accepts_its_configuration(struct tier_scene *scene)
{
    char message[256];
    int code = check(scene, own_config(scene), message);
    MUST(scene, code == 0, "check of its configuration is %d: \"%s\"", code, message);
    return true;
}

static bool refuse_other(struct tier_scene *scene, const struct tier_scene *other)
{
    char what[128];
    if (scene->recipe->never_meant && own_config(other)->memory != NULL)
        return true; /* any memory may be its script */
    (void)snprintf(what, sizeof what, "the configuration of \"%s\"", other->recipe->name);
    return refuses(scene, own_config(other), what);
}

static bool refuses_other_configurations(struct tier_scene *scene)
{
    return with_others(scene, refuse_other);
}

static void set_field(struct kvb_tier_config *config, enum tier_field field)
{
    static const char *const paths[] = {"no/such/file"};
    static _Alignas(4096) unsigned char memory[4096];
    static void *const layers[] = {memory, memory};
    switch (field) {
    case FIELD_PATH:
        config->path = paths[0];
        break;
    case FIELD_PATHS:
        config->paths = paths;
        config->path_count = 1;
        break;
    case FIELD_DISK_FLAGS:
        config->disk_flags = KVB_DISK_START_EMPTY;
        break;
    case FIELD_WRITE_LIMITS:
        config->write_bytes_per_day = 1 << 30;
        break;
    case FIELD_MEMORY:
        config->memory = memory;
        config->memory_bytes = UINT64_C(1) << 40;
        break;
    case FIELD_DEVICE:
        config->device = 1;
        break;
    case FIELD_COPY_METHOD:
        config->copy_method = KVB_COPY_RECT;
        break;
    case FIELD_LAYER_MEMORY:
        config->layer_memory = layers;
        break;
    case FIELDS_ALL:
        break;
    }
}

/* One of them at a time, in its own configuration. */
static bool refuses_fields_that_only_others_have(struct tier_scene *scene)
{
    for (uint32_t field = 1; field < FIELDS_ALL; field <<= 1) {
        struct kvb_tier_config config = *own_config(scene);
        char what[64];
        if (scene->recipe->fields & field)
            continue;
        set_field(&config, (enum tier_field)field);
        (void)snprintf(what, sizeof what, "field 0x%x, which it does not have,", field);
        KEPT(refuses(scene, &config, what));
    }
    return true;
}

/* Of what this build does not have: create says so in words, and takes nothing. */
static bool creates_or_says_why_not(struct tier_scene *scene)
{
    struct tier_pair *pair = &scene->pair;
    int code = tier_pair_open(pair);
    MUST(scene, code == scene->recipe->refusal, "create is %d, must be %d: \"%s\"", code,
         scene->recipe->refusal, pair->message);
    MUST(scene, (code == 0) == (pair->message[0] == '\0'), "create is %d and says \"%s\"", code,
         pair->message);
    tier_pair_close(pair);
    MUST(scene, tier_pair_gave_all_back(pair), "%lld bytes are left",
         (long long)pair->heap.live_bytes);
    return true;
}

/* No memory: said in words, and nothing is left over. At each allocation of a create. */
static bool creates_nothing_without_memory(struct tier_scene *scene)
{
    struct tier_pair *pair = &scene->pair;
    uint64_t failed = 0;
    int code = KVB_ENOMEM;
    for (uint64_t at = 1; code != 0; at++) {
        atomic_store(&pair->heap.calls, 0);
        atomic_store(&pair->heap.fail_at, at);
        code = tier_pair_open(pair);
        if (code == scene->recipe->refusal)
            break;
        failed++;
        MUST(scene, code == KVB_ENOMEM, "allocation %llu fails, and create is %d: \"%s\"",
             (unsigned long long)at, code, pair->message);
        MUST(scene, tier_pair_gave_all_back(pair), "allocation %llu fails, and %lld bytes are left",
             (unsigned long long)at, (long long)pair->heap.live_bytes);
    }
    atomic_store(&pair->heap.fail_at, 0);
    MUST(scene, failed > 0 || scene->recipe->refusal != 0, "no allocation has failed");
    return true;
}

const struct tier_promise tier_promises_kind[] = {
    {"the kind is whole", kind_is_whole, NEEDS_KIND},
    {"its configuration means it and no other", means_its_configuration, NEEDS_KIND},
    {"configurations of others do not mean it", means_no_other_configuration, NEEDS_KIND},
    {"check accepts its configuration", accepts_its_configuration, NEEDS_KIND},
    {"check refuses configurations of others", refuses_other_configurations, NEEDS_KIND},
    {"check refuses fields of others", refuses_fields_that_only_others_have, NEEDS_KIND},
    {"create creates, or says why not", creates_or_says_why_not, NEEDS_KIND},
    {"create without memory leaves nothing", creates_nothing_without_memory, NEEDS_KIND},
    {.name = NULL},
};
