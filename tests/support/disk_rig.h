/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk engine between memory and a file, with everything around it; for tests of all disk engines alike.
 *
 * A slot of memory holds pattern(key); a copy's tag is an index below RIG_TAGS, by which results are kept.
 */
#ifndef KVB_TEST_DISK_RIG_H
#define KVB_TEST_DISK_RIG_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "api/testing.h"
#include "base/clock.h"
#include "support/disk_path.h"
#include "support/failing_memory.h"
#include "support/give_up.h"
#include "transfer/disk/engine.h"
#include "transfer/disk/tier.h"
#include "transfer/memory/tier.h"

#define RIG_TAGS 1024
#define RIG_PENDING 1000 /* no result yet */

struct rig_variant {
    const char *name;
    enum kvbi_disk_engine engine;
    bool poll, buffered, shared, unregistered;
};

struct rig {
    const struct rig_variant *variant;
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_hooks hooks;
    struct disk_path place;
    struct kvbi_tier host, disk;
    const struct kvbi_tier *memories[1];
    struct kvbi_disk_engine_config config;
    struct kvbi_engine *engine;
    char said[KVBI_ENGINE_SAID_BYTES];
    char message[256];
    int results[RIG_TAGS];
    bool condemned[RIG_TAGS];
    uint32_t order[RIG_TAGS], done;
};

static inline uint64_t rig_random(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static inline void rig_fill(struct rig *rig, uint32_t slot, uint64_t key)
{
    unsigned char *at = kvbi_tier_address(&rig->host, slot);
    uint64_t state = key * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (uint64_t i = 0; i < rig->host.block_bytes; i += 8) {
        uint64_t word = rig_random(&state), left = rig->host.block_bytes - i;
        memcpy(at + i, &word, left < 8 ? (size_t)left : 8);
    }
}

static inline bool rig_has(struct rig *rig, uint32_t slot, uint64_t key)
{
    const unsigned char *at = kvbi_tier_address(&rig->host, slot);
    uint64_t state = key * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (uint64_t i = 0; i < rig->host.block_bytes; i += 8) {
        uint64_t word = rig_random(&state), left = rig->host.block_bytes - i;
        if (memcmp(at + i, &word, left < 8 ? (size_t)left : 8) != 0)
            return false;
    }
    return true;
}

/* The content `key`, written for the first time. */
static inline struct kvbi_identity rig_identity(uint64_t key)
{
    return (struct kvbi_identity){.hash = key, .digest = {key + 1, key + 2}, .generation = 1};
}

static inline struct kvbi_copy rig_down(struct rig *rig, uint32_t host, uint32_t disk, uint64_t key,
                                        uint32_t tag)
{
    rig->results[tag] = RIG_PENDING;
    return (struct kvbi_copy){.from = &rig->host,
                              .to = &rig->disk,
                              .from_slot = host,
                              .to_slot = disk,
                              .tag = tag,
                              .identity = rig_identity(key)};
}

static inline struct kvbi_copy rig_up(struct rig *rig, uint32_t disk, uint32_t host, uint64_t key,
                                      uint32_t tag)
{
    rig->results[tag] = RIG_PENDING;
    return (struct kvbi_copy){.from = &rig->disk,
                              .to = &rig->host,
                              .from_slot = disk,
                              .to_slot = host,
                              .tag = tag,
                              .identity = rig_identity(key)};
}

/* The label of that identity. */
static inline struct kvbi_label rig_label(uint64_t key)
{
    return (struct kvbi_label){.hash = key, .digest = {key + 1, key + 2}, .generation = 1};
}

/* The disk tier over so many files, of which the first is place.file. */
static inline int rig_open_disk(struct rig *rig, uint32_t path_count)
{
    char names[3][112];
    const char *const paths[] = {rig->place.file, names[1], names[2]};
    for (int i = 1; i < 3; i++)
        (void)snprintf(names[i], sizeof names[i], "%s.%d", rig->place.file, i);
    const struct kvbi_disk_config disk = {.paths = paths,
                                          .path_count = path_count,
                                          .block_count = rig->host.block_count,
                                          .purpose = {.block_bytes = rig->host.block_bytes},
                                          .buffered = rig->variant->buffered};
    int error = kvbi_tier_disk_create(&rig->disk, &rig->memory, KVB_TIER_DISK, &disk, rig->message,
                                      sizeof rig->message);
    if (error == 0)
        error = kvbi_disk_settle(kvbi_disk_of(&rig->disk), rig->message, sizeof rig->message);
    rig->config.disk = kvbi_disk_of(&rig->disk);
    return error;
}

/* Tiers of `slots` blocks; `base` as for kvbi_tier_host_create. 0 or the first error. No engine yet. */
static inline int rig_open(struct rig *rig, const struct rig_variant *variant, uint64_t block_bytes,
                           uint32_t slots, void *base)
{
    *rig = (struct rig){.variant = variant};
    rig->memory = failing_memory(&rig->failing, INT64_MAX);
    kvbi_clock_init(&rig->clock, NULL);
    disk_path_make(&rig->place);
    rig->memories[0] = &rig->host;
    rig->config = (struct kvbi_disk_engine_config){.engine = variant->engine,
                                                   .memories = rig->memories,
                                                   .memory_count = 1,
                                                   .capacity = 256,
                                                   .single_issuer = !variant->shared,
                                                   .unregistered = variant->unregistered,
                                                   .poll = variant->poll,
                                                   .hooks = &rig->hooks};
    int error =
        kvbi_tier_host_create(&rig->host, &rig->memory, KVB_TIER_HOST, slots, block_bytes, base);
    return error == 0 ? rig_open_disk(rig, 1) : error;
}

/* As after a kill, without an engine. */
static inline int rig_reopen(struct rig *rig, uint32_t path_count)
{
    if (rig->engine != NULL)
        rig->engine->ops->destroy(rig->engine);
    rig->engine = NULL;
    kvbi_tier_destroy(&rig->disk);
    return rig_open_disk(rig, path_count);
}

static inline int rig_start(struct rig *rig)
{
    return kvbi_disk_engine_create(&rig->engine, &rig->memory, &rig->clock, &rig->config, rig->said,
                                   sizeof rig->said);
}

/* True if nothing is left allocated. */
static inline bool rig_close(struct rig *rig)
{
    if (rig->engine != NULL)
        rig->engine->ops->destroy(rig->engine);
    kvbi_tier_destroy(&rig->disk);
    kvbi_tier_destroy(&rig->host);
    disk_path_remove(&rig->place);
    return rig->failing.live_count == 0;
}

/* One reap of at most `max`. False: a tag completed that was not out. */
static inline bool rig_reap(struct rig *rig, uint32_t max, bool *more)
{
    struct kvbi_completion completions[64];
    uint32_t count =
        rig->engine->ops->reap(rig->engine, completions, max < 64 ? max : 64, KVB_FOREVER, more);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t tag = completions[i].tag;
        if (tag >= RIG_TAGS || rig->results[tag] != RIG_PENDING)
            return false;
        rig->results[tag] = completions[i].result;
        rig->condemned[tag] = completions[i].condemned;
        rig->order[rig->done++ % RIG_TAGS] = (uint32_t)tag;
    }
    return count <= max;
}

/*
 * Reaps until `done` reaches `count`, sleeping on the event descriptor when reap says that there is
 * nothing to do. False: nothing has come within KV_GIVE_UP_S.
 */
static inline bool rig_wait(struct rig *rig, uint32_t count)
{
    struct pollfd event = {.fd = rig->engine->ops->event_fd(rig->engine), .events = POLLIN};
    while (rig->done < count) {
        bool more;
        uint32_t before = rig->done;
        if (!rig_reap(rig, 64, &more))
            return false;
        if (rig->done > before || more)
            continue;
        if (event.fd < 0)
            return false;
        int ready = poll(&event, 1, KV_GIVE_UP_MS);
        if (ready == 0)
            return false;
    }
    return true;
}

/* One copy from submit to result. */
static inline int rig_move(struct rig *rig, struct kvbi_copy copy, bool urgent)
{
    int error = rig->engine->ops->submit(rig->engine, &copy, 1, urgent);
    if (error != 0)
        return error;
    return rig_wait(rig, rig->done + 1) ? rig->results[copy.tag] : RIG_PENDING;
}

#endif
