/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rig for tests: a small manager, and everything that is injected into it under the test's control.
 *
 *     struct kv_rig rig;
 *     kv_rig_init(&rig);                    // defaults: one DEVICE tier of 8 blocks, 4 tokens a block, poll mode
 *     rig.config.duplicate = ...;           // change what the test is about
 *     kv_rig_open(&rig);
 *     ...
 *     kv_rig_close(&rig);                   // checks invariants, destroys, and demands that every byte came back
 *
 * Callbacks only record: a failing assertion jumps, and must not jump out of the library.
 * Header only, so that every test stays one program of one file.
 */
#ifndef KVB_TEST_SUPPORT_H
#define KVB_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

#include <kvblock.h>

#include "api/testing.h"
#include "support/kv_device.h"

#define KV_TOKENS 4u /* tokens a block */
#define KV_BLOCKS 8u /* blocks in the default tier */
#define KV_LAYERS 2u
#define KV_PARTS 2u
#define KV_CHUNK 64u /* bytes */
#define KV_MS UINT64_C(1000000)
#define KV_SECOND UINT64_C(1000000000)
#define KV_HEAP_MAX ((size_t)1 << 30) /* one piece larger than that is refused */
#define KV_LOG_MAX 64
#define KV_EVENT_MAX 1024

/* ---- Assertions --------------------------------------------------------------------------------------------------- */

/* The call returns this code; says both by name where it does not. */
#define kv_expect(call, code) kv_expect_at((call), (code), #call, __FILE__, __LINE__)
#define kv_ok(call) kv_expect(call, KVB_OK)

static inline void kv_expect_at(int got, int want, const char *call, const char *file, int line)
{
    if (got != want) {
        print_error("%s\n  returned %s (%d), expected %s (%d)\n", call, kvb_error_name(got), got,
                    kvb_error_name(want), want);
        _fail(file, line);
    }
}

/* ---- What is injected --------------------------------------------------------------------------------------------- */

struct kv_clock {
    _Atomic uint64_t now_ns;
};

/* Counts, checks that free gets the size that alloc got, hands out dirty memory, and fails where it is told to. */
struct kv_heap {
    _Atomic uint64_t calls; /* alloc calls, the failed ones too */
    _Atomic int64_t live_blocks;
    _Atomic int64_t live_bytes;
    _Atomic uint64_t wrong_frees;
    _Atomic uint64_t fail_at;  /* the call with this number (from 1) fails; 0: none */
    _Atomic bool fail_onwards; /* and every one after it */
};

struct kv_log_line {
    int level, code;
    char text[512];
};

struct kv_log {
    pthread_mutex_t mutex;
    size_t count; /* messages ever; the last KV_LOG_MAX are kept */
    struct kv_log_line lines[KV_LOG_MAX];
};

/* One delivered event, with copies of what its pointers showed. */
struct kv_event_record {
    uint32_t kind, tier, namespace_id, token_count, lost_count;
    uint64_t sequence;
    bool has_key, has_parent, has_tokens;
    unsigned char key[KVB_KEY_BYTES_MAX];
    unsigned char parent[KVB_KEY_BYTES_MAX];
    uint32_t first_token;
};

struct kv_events {
    pthread_mutex_t mutex;
    size_t key_bytes;
    size_t count; /* events ever; the first KV_EVENT_MAX are kept */
    struct kv_event_record list[KV_EVENT_MAX];
};

struct kv_rig {
    struct kv_clock clock;
    struct kv_heap heap;
    struct kv_log log;
    struct kv_events events;
    struct kvb_layout layout;
    struct kvb_tier_config tiers[KVB_TIER_COUNT];
    struct kvb_config config;
    struct kvb_manager *kv;
};

static inline uint64_t kv_clock_now(void *context)
{
    struct kv_clock *clock = context;
    return atomic_load(&clock->now_ns);
}

struct kv_heap_header {
    size_t bytes, alignment;
};

static inline void *kv_heap_alloc(void *context, size_t bytes, size_t alignment)
{
    struct kv_heap *heap = context;
    uint64_t call = atomic_fetch_add(&heap->calls, 1) + 1;
    uint64_t fail_at = atomic_load(&heap->fail_at);
    if (fail_at != 0 && (call == fail_at || (call > fail_at && atomic_load(&heap->fail_onwards)))) {
        return NULL;
    }
    size_t step = alignment < 64 ? 64 : alignment;
    void *start = NULL;
    if (bytes > KV_HEAP_MAX || posix_memalign(&start, step, step + bytes) != 0) {
        return NULL;
    }
    unsigned char *memory = (unsigned char *)start + step;
    struct kv_heap_header header = {bytes, step};
    memcpy(memory - sizeof header, &header, sizeof header);
    memset(memory, 0xa5, bytes);
    atomic_fetch_add(&heap->live_blocks, 1);
    atomic_fetch_add(&heap->live_bytes, (int64_t)bytes);
    return memory;
}

static inline void kv_heap_free(void *context, void *memory, size_t bytes)
{
    struct kv_heap *heap = context;
    if (memory == NULL) {
        return;
    }
    struct kv_heap_header header;
    memcpy(&header, (unsigned char *)memory - sizeof header, sizeof header);
    if (header.bytes != bytes) {
        atomic_fetch_add(&heap->wrong_frees, 1);
    }
    atomic_fetch_sub(&heap->live_blocks, 1);
    atomic_fetch_sub(&heap->live_bytes, (int64_t)header.bytes);
    free((unsigned char *)memory - header.alignment);
}

static inline void kv_log_write(void *context, int level, int code, const char *message)
{
    struct kv_log *log = context;
    pthread_mutex_lock(&log->mutex);
    struct kv_log_line *line = &log->lines[log->count % KV_LOG_MAX];
    line->level = level;
    line->code = code;
    (void)snprintf(line->text, sizeof line->text, "%s", message);
    log->count++;
    pthread_mutex_unlock(&log->mutex);
}

/* The latest message; empty text if there is none. Call it while the library is quiet. */
static inline const struct kv_log_line *kv_log_last(const struct kv_log *log)
{
    static const struct kv_log_line none = {0, 0, ""};
    return log->count == 0 ? &none : &log->lines[(log->count - 1) % KV_LOG_MAX];
}

/* Whether one of the kept messages contains `text`. */
static inline bool kv_log_has(const struct kv_log *log, const char *text)
{
    size_t kept = log->count < KV_LOG_MAX ? log->count : KV_LOG_MAX;
    for (size_t i = 0; i < kept; i++) {
        if (strstr(log->lines[i].text, text) != NULL) {
            return true;
        }
    }
    return false;
}

static inline void kv_events_deliver(void *context, const struct kvb_event *event)
{
    struct kv_events *events = context;
    pthread_mutex_lock(&events->mutex);
    if (events->count < KV_EVENT_MAX) {
        struct kv_event_record *record = &events->list[events->count];
        memset(record, 0, sizeof *record);
        record->kind = event->kind;
        record->tier = event->tier;
        record->namespace_id = event->namespace_id;
        record->token_count = event->token_count;
        record->lost_count = event->lost_count;
        record->sequence = event->sequence;
        record->has_key = event->key != NULL;
        record->has_parent = event->parent_key != NULL;
        record->has_tokens = event->tokens != NULL;
        if (event->key != NULL) {
            memcpy(record->key, event->key, events->key_bytes);
        }
        if (event->parent_key != NULL) {
            memcpy(record->parent, event->parent_key, events->key_bytes);
        }
        if (event->tokens != NULL) {
            record->first_token = event->tokens[0];
        }
    }
    events->count++;
    pthread_mutex_unlock(&events->mutex);
}

/* ---- The rig ------------------------------------------------------------------------------------------------------ */

/* One more tier, below those that are there. */
static inline struct kvb_tier_config *kv_rig_add_tier(struct kv_rig *rig, uint32_t tier,
                                                      uint32_t block_count, uint32_t trigger)
{
    struct kvb_tier_config *config = &rig->tiers[rig->config.tier_count++];
    *config = (struct kvb_tier_config){.size = sizeof *config,
                                       .tier = tier,
                                       .block_count = block_count,
                                       .trigger = trigger,
                                       .queue_capacity = 64};
    return config;
}

static inline void kv_rig_init(struct kv_rig *rig)
{
    memset(rig, 0, sizeof *rig);
    pthread_mutex_init(&rig->log.mutex, NULL);
    pthread_mutex_init(&rig->events.mutex, NULL);
    rig->clock.now_ns = KV_SECOND;
    rig->layout = (struct kvb_layout){.size = sizeof rig->layout,
                                      .layers = KV_LAYERS,
                                      .parts = KV_PARTS,
                                      .chunk_bytes = KV_CHUNK};
    rig->config = (struct kvb_config){
        .size = sizeof rig->config,
        .tokens_per_block = KV_TOKENS,
        .layout = &rig->layout,
        .tiers = rig->tiers,
        .progress = KVB_PROGRESS_POLL,
        .event_capacity = 256,
        .pin_capacity = 16,
        .op_capacity = 8,
        .namespace_capacity = 16,
        .digest_seed = 7,
        .allocator = {kv_heap_alloc, kv_heap_free, &rig->heap},
        .clock = {kv_clock_now, &rig->clock},
        .logger = {kv_log_write, &rig->log},
        .sink = {kv_events_deliver, &rig->events},
    };
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, KV_BLOCKS, KVB_OFFLOAD_MANUAL);
}

/* Give up the default tier, to build others with kv_rig_add_tier. */
static inline void kv_rig_no_tiers(struct kv_rig *rig)
{
    rig->config.tier_count = 0;
}

static inline void kv_rig_open_hooked(struct kv_rig *rig, const struct kvbi_hooks *hooks)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    kv_device_start(rig->tiers, rig->config.tier_count);
    rig->events.key_bytes =
        rig->config.key_bytes != 0 ? rig->config.key_bytes : sizeof(struct kvb_seq);
    int code = hooks == NULL
                   ? kvb_manager_create(&rig->config, &rig->kv, &diagnosis)
                   : kvbi_manager_create_hooked(&rig->config, hooks, &rig->kv, &diagnosis);
    if (code != 0) {
        print_error("create: %s: %s\n", kvb_error_name(code), diagnosis.message);
    }
    assert_int_equal(code, 0);
    assert_non_null(rig->kv);
}

static inline void kv_rig_open(struct kv_rig *rig)
{
    kv_rig_open_hooked(rig, NULL);
}

/* Every invariant holds. No other thread may be inside a call. */
#define kv_check(rig) kv_check_at(__FILE__, __LINE__, (rig))
static inline void kv_check_at(const char *file, int line, struct kv_rig *rig)
{
    char message[512] = "";
    if (kvbi_manager_check(rig->kv, message, sizeof message) != 0) {
        print_error("invariant broken: %s\n", message);
        _fail(file, line);
    }
}

/* Destroy, and everything the library took is back. The recorded events and messages stay readable. */
#define kv_rig_close(rig) kv_rig_close_at(__FILE__, __LINE__, (rig))
static inline void kv_rig_close_at(const char *file, int line, struct kv_rig *rig)
{
    kv_check_at(file, line, rig);
    kv_expect_at(kvb_manager_destroy(rig->kv), KVB_OK, "kvb_manager_destroy", file, line);
    rig->kv = NULL;
    if (kv_device_end() != 0) {
        print_error("the stand-in for CUDA has reported something\n");
        _fail(file, line);
    }
    if (rig->heap.live_blocks != 0 || rig->heap.live_bytes != 0 || rig->heap.wrong_frees != 0) {
        print_error("allocator: %lld blocks, %lld bytes not freed; %llu freed with another size\n",
                    (long long)rig->heap.live_blocks, (long long)rig->heap.live_bytes,
                    (unsigned long long)rig->heap.wrong_frees);
        _fail(file, line);
    }
}

static inline void kv_advance(struct kv_rig *rig, uint64_t ns)
{
    atomic_fetch_add(&rig->clock.now_ns, ns);
}

/* Poll mode: run until nothing is left that could run now, here or on the device. */
#define kv_poll(rig) kv_poll_at(__FILE__, __LINE__, (rig))
static inline void kv_poll_here_at(const char *file, int line, struct kv_rig *rig)
{
    for (int round = 0; round < 100000; round++) {
        int left = kvb_manager_poll(rig->kv, KVB_FOREVER);
        if (left == 0) {
            return;
        }
        if (left != 1) {
            kv_expect_at(left, KVB_OK, "kvb_manager_poll", file, line);
        }
    }
    print_error("kvb_manager_poll always says that work is left\n");
    _fail(file, line);
}

static inline void kv_poll_at(const char *file, int line, struct kv_rig *rig)
{
    do {
        kv_poll_here_at(file, line, rig);
    } while (kv_device_moved(rig->kv));
}

/* All lanes idle and everything delivered; in either mode. */
#define kv_settle(rig) kv_ok(kvb_manager_flush((rig)->kv, KVB_FOREVER))

/* ---- Tokens and payload ------------------------------------------------------------------------------------------- */

/* A mixing function (splitmix64, Vigna): equal inputs, equal outputs, no pattern in between. */
static inline uint64_t kv_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The next number of a reproducible sequence, below `bound`. */
static inline uint32_t kv_random(uint64_t *seed, uint32_t bound)
{
    *seed += 1;
    return (uint32_t)((kv_mix(*seed) >> 11) % bound);
}

/* A token run: the same seed gives the same run, a shorter run is a prefix of a longer one. */
static inline void kv_tokens(uint32_t *tokens, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (uint32_t)kv_mix(seed * UINT64_C(1000003) + i);
    }
}

/* Write a block's memory so that `seed` can be recognised in every byte; or see whether it is still so. */
static inline void kv_payload_fill(struct kv_rig *rig, struct kvb_block *block, uint64_t seed)
{
    for (uint32_t layer = 0; layer < rig->layout.layers; layer++) {
        for (uint32_t part = 0; part < rig->layout.parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(rig->kv, block, layer, part, &address));
            unsigned char *bytes = kv_device_begin_write(address, rig->layout.chunk_bytes);
            for (uint64_t i = 0; i < rig->layout.chunk_bytes; i++) {
                bytes[i] = (unsigned char)kv_mix(seed + ((uint64_t)layer << 48) +
                                                 ((uint64_t)part << 40) + i);
            }
            kv_device_end_write(address, bytes, rig->layout.chunk_bytes);
        }
    }
}

static inline bool kv_payload_is(struct kv_rig *rig, struct kvb_block *block, uint64_t seed)
{
    for (uint32_t layer = 0; layer < rig->layout.layers; layer++) {
        for (uint32_t part = 0; part < rig->layout.parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(rig->kv, block, layer, part, &address));
            const unsigned char *bytes = kv_device_read(address, rig->layout.chunk_bytes);
            bool same = true;
            for (uint64_t i = 0; same && i < rig->layout.chunk_bytes; i++) {
                same = bytes[i] == (unsigned char)kv_mix(seed + ((uint64_t)layer << 48) +
                                                         ((uint64_t)part << 40) + i);
            }
            kv_device_end_read(address, bytes);
            if (!same) {
                return false;
            }
        }
    }
    return true;
}

/* ---- Steps of a block's life, each of which must succeed ---------------------------------------------------------- */

/* One Empty block: kv_alloc(rig, tier) */
#define kv_alloc(...) kv_alloc_at(__FILE__, __LINE__, __VA_ARGS__)
static inline struct kvb_block *kv_alloc_at(const char *file, int line, struct kv_rig *rig,
                                            uint32_t tier)
{
    struct kvb_block *block = NULL;
    kv_expect_at(kvb_alloc(rig->kv, tier, 1, NULL, &block, NULL), KVB_OK, "kvb_alloc", file, line);
    if (block == NULL) {
        _fail(file, line);
    }
    return block;
}

/* kv_unref(rig, block) */
#define kv_unref(...) kv_unref_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_unref_at(const char *file, int line, struct kv_rig *rig,
                               struct kvb_block *block)
{
    kv_expect_at(kvb_block_unref(rig->kv, &block, 1, NULL), KVB_OK, "kvb_block_unref", file, line);
}

/* Empty -> Partial: kv_init(rig, block, namespace, position, parent's key or NULL) */
#define kv_init(...) kv_init_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_init_at(const char *file, int line, struct kv_rig *rig,
                              struct kvb_block *block, uint32_t ns, uint32_t position,
                              const void *parent)
{
    struct kvb_block_init init = {
        .size = sizeof init, .namespace_id = ns, .position = position, .parent = parent};
    kv_expect_at(kvb_block_init(rig->kv, &block, &init, 1, NULL), KVB_OK, "kvb_block_init", file,
                 line);
}

/* Name tokens, all of which must fit: kv_append(rig, block, tokens, count, flags) */
#define kv_append(...) kv_append_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_append_at(const char *file, int line, struct kv_rig *rig,
                                struct kvb_block *block, const uint32_t *tokens, uint32_t count,
                                uint32_t flags)
{
    struct kvb_append append = {
        .size = sizeof append, .flags = flags, .tokens = tokens, .count = count};
    kv_expect_at(kvb_block_append(rig->kv, &block, &append, 1, NULL), KVB_OK, "kvb_block_append",
                 file, line);
    if (append.taken != count) {
        print_error("kvb_block_append took %u of %u tokens\n", append.taken, count);
        _fail(file, line);
    }
}

/* kv_schedule(rig, block) */
#define kv_schedule(...) kv_schedule_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_schedule_at(const char *file, int line, struct kv_rig *rig,
                                  struct kvb_block *block)
{
    kv_expect_at(kvb_block_schedule(rig->kv, &block, 1, NULL), KVB_OK, "kvb_block_schedule", file,
                 line);
}

/* kv_done(rig, block, computed tokens) */
#define kv_done(...) kv_done_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_done_at(const char *file, int line, struct kv_rig *rig,
                              struct kvb_block *block, uint32_t computed)
{
    kv_expect_at(kvb_block_compute_done(rig->kv, &block, &computed, 1, NULL, NULL), KVB_OK,
                 "kvb_block_compute_done", file, line);
}

/* Complete -> Registered, the caller's block kept: kv_register(rig, block) */
#define kv_register(...) kv_register_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_register_at(const char *file, int line, struct kv_rig *rig,
                                  struct kvb_block *block)
{
    struct kvb_block *registered = block;
    kv_expect_at(kvb_block_register(rig->kv, &registered, 1, NULL, NULL, NULL), KVB_OK,
                 "kvb_block_register", file, line);
    if (registered != block) {
        print_error("kvb_block_register put another block in place of this one\n");
        _fail(file, line);
    }
}

/* Empty -> Complete: kv_complete(rig, block, namespace, position, parent's key or NULL, tokens_per_block tokens) */
#define kv_complete(...) kv_complete_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_complete_at(const char *file, int line, struct kv_rig *rig,
                                  struct kvb_block *block, uint32_t ns, uint32_t position,
                                  const void *parent, const uint32_t *tokens)
{
    kv_init_at(file, line, rig, block, ns, position, parent);
    kv_append_at(file, line, rig, block, tokens, rig->config.tokens_per_block, 0);
    kv_schedule_at(file, line, rig, block);
    kv_done_at(file, line, rig, block, rig->config.tokens_per_block);
}

/*
 * Allocate, compute and register a run of blocks from the root of a namespace; the caller holds each once. Built-in
 * hashes. Payload: kv_payload_fill with the block's sequence hash as the seed.
 * kv_store_run(rig, tier, namespace, tokens, blocks' count, blocks)
 */
#define kv_store_run(...) kv_store_run_at(__FILE__, __LINE__, __VA_ARGS__)
static inline void kv_store_run_at(const char *file, int line, struct kv_rig *rig, uint32_t tier,
                                   uint32_t ns, const uint32_t *tokens, uint32_t count,
                                   struct kvb_block **blocks)
{
    uint32_t per_block = rig->config.tokens_per_block;
    struct kvb_seq *seqs = calloc(count, sizeof *seqs);
    assert_non_null(seqs);
    size_t named = 0;
    kv_expect_at(
        kvb_hash_tokens(rig->kv, ns, NULL, tokens, (size_t)count * per_block, seqs, count, &named),
        KVB_OK, "kvb_hash_tokens", file, line);
    kv_expect_at(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL), KVB_OK, "kvb_alloc", file,
                 line);
    for (uint32_t i = 0; i < count; i++) {
        kv_init_at(file, line, rig, blocks[i], ns, i, i == 0 ? NULL : &seqs[i - 1]);
        kv_append_at(file, line, rig, blocks[i], tokens + (size_t)i * per_block, per_block, 0);
        kv_schedule_at(file, line, rig, blocks[i]);
        kv_payload_fill(rig, blocks[i], seqs[i].hash);
        kv_done_at(file, line, rig, blocks[i], per_block);
    }
    kv_expect_at(kvb_block_register(rig->kv, blocks, count, NULL, NULL, NULL), KVB_OK,
                 "kvb_block_register", file, line);
    free(seqs);
}

/* ---- Looking ------------------------------------------------------------------------------------------------------ */

static inline struct kvb_block_info kv_describe(struct kv_rig *rig, const struct kvb_block *block)
{
    struct kvb_block_info info = {.size = sizeof info};
    kv_ok(kvb_block_describe(rig->kv, block, &info));
    return info;
}

static inline struct kvb_stats kv_stats(struct kv_rig *rig)
{
    struct kvb_stats stats = {.size = sizeof stats};
    kv_ok(kvb_manager_stats(rig->kv, &stats));
    return stats;
}

/* A query by tokens alone. */
static inline struct kvb_query kv_query(uint32_t ns, const uint32_t *tokens, size_t count)
{
    return (struct kvb_query){.size = sizeof(struct kvb_query),
                              .namespace_id = ns,
                              .tokens = tokens,
                              .token_count = count};
}

/* How many leading blocks of the run are there, in whatever tier, nothing held. */
static inline uint64_t kv_run_length(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens,
                                     size_t count)
{
    struct kvb_query query = kv_query(ns, tokens, count);
    uint64_t tiers[KVB_TIER_COUNT] = {0};
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    return tiers[0] + tiers[1] + tiers[2] + tiers[3];
}

#endif
