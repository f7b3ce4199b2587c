/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two tiers and the engine between them, made as the library makes them: by the kinds that their
 * configurations mean, and by transfer/engines. And what lies in their blocks, past all engines.
 *
 *     struct tier_pair pair;                        // is not moved after tier_pair_init
 *     tier_pair_init(&pair, KVB_TIER_HOST, KVB_TIER_DISK);
 *     pair.configs[KVB_TIER_DISK].path = ...;
 *     tier_pair_open(&pair);
 *     tier_pair_connect(&pair, capacity, own_thread);
 *     tier_pair_commit(&pair);
 *     ... tier_pair_engine(&pair) ...
 *     tier_pair_close(&pair);                       // and pair.heap says whether all came back
 */
#ifndef KVB_TEST_TIER_PAIR_H
#define KVB_TEST_TIER_PAIR_H

#include "support/kv_test.h"

#include "base/clock.h"
#include "base/log.h"
#include "transfer/engines.h"
#include "transfer/tiers.h"

#define PAIR_BLOCKS 48u
#define PAIR_LAYERS 2u
#define PAIR_PARTS 2u
#define PAIR_CHUNK 1024u /* a block is a page */
#define PAIR_KEY_BYTES 8u

struct tier_pair {
    struct kv_heap heap;
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_log log;
    struct kvb_layout layout;
    struct kvbi_purpose purpose;
    uint32_t upper, lower; /* enum kvb_tier */
    /* By tier. As given; what they mean unless `kinds` says it. */
    struct kvb_tier_config configs[KVB_TIER_COUNT];
    const struct kvbi_kind *kinds[KVB_TIER_COUNT];
    struct kvbi_tier tiers[KVB_TIER_COUNT];
    struct kvbi_engines engines;
    int64_t engines_took; /* bytes: all that creating them has allocated, but blocks and events */
    char message[256];    /* why not */
};

void tier_pair_init(struct tier_pair *pair, uint32_t upper, uint32_t lower);
/* Blocks of such chunks. After init. */
void tier_pair_set_chunk(struct tier_pair *pair, uint64_t chunk_bytes);

/* 0, or an error with words in `message`; tier_pair_close is to be called either way. */
int tier_pair_open(struct tier_pair *pair);
int tier_pair_connect(struct tier_pair *pair, uint32_t capacity, bool own_thread);
/* Those that outlive the process. */
int tier_pair_commit(struct tier_pair *pair);

struct kvbi_tier *tier_pair_upper(struct tier_pair *pair);
struct kvbi_tier *tier_pair_lower(struct tier_pair *pair);
struct kvbi_engine *tier_pair_engine(const struct tier_pair *pair);
/* `wrapper` stands for the engine from here on, and destroys it. */
void tier_pair_wrap(struct tier_pair *pair, struct kvbi_engine *wrapper);
/*
 * What the engine that moves blocks between them has allocated, by count; a wrapper stands for it
 * already.
 */
int64_t tier_pair_engine_took(const struct tier_pair *pair);

/* What is still with the engine is given up first. Both legal at any time, more than once. */
void tier_pair_disconnect(struct tier_pair *pair);
void tier_pair_close(struct tier_pair *pair);
/* Nothing is left of what the library took, and all was given back with its size. */
bool tier_pair_gave_all_back(const struct tier_pair *pair);

/* ---- Bytes ----------------------------------------------------------------------------------- */

/* Every byte of a block of content `key`. */
void content_write(void *block, uint64_t bytes, uint64_t key);
bool content_is(const void *block, uint64_t bytes, uint64_t key);
struct kvbi_identity content_identity(uint64_t key);
/* Of that identity. A struct of every field, so that what comes back wrong is seen. */
struct kvbi_label content_label(uint64_t key, uint64_t clears);

/* How a test gets at the blocks of a tier. */
struct tier_access {
    void (*fill)(const struct kvbi_tier *tier, uint32_t slot, uint64_t key);
    bool (*has)(const struct kvbi_tier *tier, uint32_t slot, uint64_t key);
};

extern const struct tier_access tier_access_memory; /* by `base` */
extern const struct tier_access tier_access_disk;   /* by the file */

#endif
