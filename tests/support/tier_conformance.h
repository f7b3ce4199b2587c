/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every kind of memory has to keep: the promises of transfer/kind.h and transfer/tier.h, each
 * a test of its own.
 *
 * Kinds are put to the test by recipes, one or several each, which name the kind as it names
 * itself. A kind that transfer/kinds.c lists and that no recipe names fails the run, by its name. A
 * recipe says how a tier of the kind is configured, and next to which other tier it stands:
 *
 *     static void configure(struct tier_scene *scene, struct kvb_tier_config *config)
 *     {
 *         config->... = ...;
 *     }
 *     const struct tier_recipe recipes[] = {{.name = "mine",
 *                                            .kind = "mine",
 *                                            .tier = KVB_TIER_DISK,
 *                                            .peer = KVB_TIER_HOST,
 *                                            .peer_access = &tier_access_memory,
 *                                            .configure = configure,
 *                                            ...}};
 *     return tier_conformance_run(recipes, 1, true);
 */
#ifndef KVB_TEST_TIER_CONFORMANCE_H
#define KVB_TEST_TIER_CONFORMANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/tier_pair.h"
#include "support/traffic.h"

/* Fields of struct kvb_tier_config that not every kind has. */
enum tier_field {
    FIELD_PATH = 1 << 0,
    FIELD_PATHS = 1 << 1,
    FIELD_DISK_FLAGS = 1 << 2,
    FIELD_WRITE_LIMITS = 1 << 3,
    FIELD_MEMORY = 1 << 4,
    FIELD_DEVICE = 1 << 5,
    FIELD_COPY_METHOD = 1 << 6,
    FIELD_LAYER_MEMORY = 1 << 7,
    FIELDS_ALL = (1 << 8) - 1,
};

struct tier_scene;

struct tier_recipe {
    const char *name;
    const char *kind;            /* its name */
    const struct kvbi_kind *own; /* a kind of the tests' own, or in place of the listed one */
    bool never_meant;            /* no configuration means it: it is had by a door alone */
    uint32_t tier, peer;         /* enum kvb_tier */
    uint32_t fields;             /* of enum tier_field: that its check takes, or does not look at */
    int refusal;                 /* create is refused with that code in this build; 0: it is not */
    bool lasts;                  /* it has operations for what outlives the process */
    bool keeps;                  /* ... and what was written is there after a reopen */
    /* Any of these may be NULL. What the configurations point to; undone by clean_up. */
    void (*prepare)(struct tier_scene *scene);
    bool (*clean_up)(struct tier_scene *scene); /* false: not all is as it has to be */
    void (*configure)(struct tier_scene *scene, struct kvb_tier_config *config);
    void (*configure_peer)(struct tier_scene *scene, struct kvb_tier_config *config);
    /* Is this all in memory that the tier was given? NULL: what is from `base` on is its memory. */
    bool (*covers)(const struct tier_scene *scene, const unsigned char *start, uint64_t bytes);
    void (*lose)(struct tier_scene *scene); /* makes its memory fail as a whole */
    void (*get_on)(void);                   /* lets a device get on */
    const struct tier_access *peer_access;
    uint32_t file_count; /* of one that lasts */
};

struct tier_scene {
    const struct tier_recipe *recipe;
    const struct tier_recipe *recipes; /* all that run: configurations of other kinds are theirs */
    size_t recipe_count;
    struct tier_pair pair;
    struct kvbi_tier *tier, *peer;
    void *self; /* the recipe's own */
    struct traffic traffic;
    struct demand demand;
    /* What the last scan has found, by slot. */
    bool seen[PAIR_BLOCKS];
    struct kvbi_found found[PAIR_BLOCKS];
    uint32_t found_count; /* blocks; and so many are retired: */
    uint32_t retired_count;
};

enum tier_promise_needs {
    NEEDS_KIND,    /* nothing is created */
    NEEDS_TIER,    /* created, connected, committed and scanned */
    NEEDS_LASTING, /* the same, of a recipe that lasts */
    NEEDS_KEEPING, /* ... and keeps */
};

struct tier_promise {
    const char *name;
    bool (*is_kept)(struct tier_scene *scene); /* false: scene->demand says why */
    enum tier_promise_needs needs;
};

/* NULL: no more. */
const struct tier_promise *tier_promise_at(size_t i);
/* Does it say anything about tiers of this recipe? */
bool tier_promise_applies(const struct tier_promise *promise, const struct tier_recipe *recipe);

/* The kind of the recipe, NULL: kinds.c lists none of that name. */
const struct kvbi_kind *tier_recipe_kind(const struct tier_recipe *recipe);
/* The name of a kind that kinds.c lists and no recipe names; NULL: there is none. */
const char *tier_conformance_lacks(const struct tier_recipe *recipes, size_t count);

/*
 * Around one promise, for who wants to see one broken. False: scene->demand says why. What end
 * finds is not said if something was said before.
 */
bool tier_scene_begin(struct tier_scene *scene, const struct tier_recipe *recipe,
                      const struct tier_promise *promise);
bool tier_scene_end(struct tier_scene *scene);

/*
 * Every promise for every recipe; `all_kinds`: and that every kind that there is has one. How many
 * tests have failed.
 */
int tier_conformance_run(const struct tier_recipe *recipes, size_t count, bool all_kinds);

#endif
