/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kind of memory, as the library knows it: which configuration means it, and how to make a tier.
 *
 * Owns       nothing. kinds.c lists the kinds there are: a new one is a folder, and a line there.
 * Callers    api/config finds the kind of each tier and has it check its part of the configuration;
 *            transfer/tiers creates.
 */
#ifndef KVBI_TRANSFER_KIND_H
#define KVBI_TRANSFER_KIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/hash.h"
#include "base/memory.h"
#include "transfer/tier.h"

/* What a tier is made for: the same for all tiers of a manager. */
struct kvbi_purpose {
    const struct kvb_layout *layout;
    uint64_t block_bytes;
    uint32_t tokens_per_block, key_bytes;
    uint64_t digest_seed; /* 0: one that the tier brings along, or any */
    const char *model;    /* or NULL */
    const struct kvbi_hash_ops *hash;
};

struct kvbi_kind {
    const char *name;
    /* Does this describe a tier of this kind? Exactly one kind says yes to a configuration. */
    bool (*is)(const struct kvb_tier_config *config);
    /*
     * Is what it says of this kind right, and nothing said that only other kinds have? `paths` and
     * `path_count` are as given. 0, or KVB_EINVAL with field, value and range in `message`.
     */
    int (*check)(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                 uint64_t block_bytes, char *message, size_t message_bytes);
    /*
     * `config`: its defaults resolved, one path is paths[0] of one. On an error `message` says why.
     */
    int (*create)(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes);
    uint32_t lane_depth;   /* default of `depth` for the lane above it; 0: that of all lanes */
    bool strided;          /* takes a layout with strides */
    bool in_memory;        /* its contents keep their names in memory: it does not outlive them */
    bool below_memory;     /* there must be a tier in memory above it, and none below it */
    bool registers_memory; /* of a HOST below it, by threads (pin_threads) */
};

/*
 * Host memory: what every manager has. Between a device and a file, and for its counter of fences,
 * also where no tier is in it.
 */
extern const struct kvbi_kind kvbi_kind_memory;
/* create_engine of every kind that has no engine of its own: that of host memory, one for all. */
int kvbi_memory_create_engine(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                              const struct kvbi_engines_config *config, char *said);

/* The kinds there are, one after the other, in the order in which they are asked. NULL: no more. */
const struct kvbi_kind *kvbi_kind_at(size_t i);

/* NULL: nobody has such memory. */
const struct kvbi_kind *kvbi_kind_of(const struct kvb_tier_config *config);

/* What `message` is to say, snprintf's way; returns `code`. */
int kvbi_kind_refuse(char *message, size_t message_bytes, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * A tier of one file or several is one that says `path` or `paths`; memory of the caller's is
 * `memory`. What is wrong if a kind has neither of them: for `check`.
 */
int kvbi_kind_without_files(const struct kvb_tier_config *config, char *message,
                            size_t message_bytes);
int kvbi_kind_without_device(const struct kvb_tier_config *config, char *message,
                             size_t message_bytes);

#endif
