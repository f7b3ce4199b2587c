/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rig for tests: a small manager, and everything that is injected into it under the test's
 * control.
 *
 *     static void test_something(void **state)
 *     {
 *         struct kv_rig *rig = *state;       // DEVICE of 8 blocks, 4 tokens each, poll mode
 *         rig->config.duplicate = ...;       // change what the test is about
 *         kv_rig_open(rig);
 *         ...
 *     }
 *     ... TEST(kv_rig, test_something) ...   // support/test.h; closed in the teardown
 *
 * Closing checks invariants, destroys, and demands that every byte came back. After a failure it
 * takes the manager down whoever holds what.
 *
 * Callbacks only record: a failing assertion jumps, and must not jump out of the library. What they
 * record into lives as long as the rig (in it, in a scene around it, or static), because the
 * manager does. The end of an operation is told to nobody any more once the test is over.
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
#include "support/copies.h"
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

/* ---- Assertions ------------------------------------------------------------------------------ */

/* The call returns this code; says both by name where it does not. */
#define kv_expect(call, code) kv_expect_at((call), (code), #call, __FILE__, __LINE__)
#define kv_ok(call) kv_expect(call, KVB_OK)

void kv_expect_at(int got, int want, const char *call, const char *file, int line);

/* ---- What is injected ------------------------------------------------------------------------ */

struct kv_clock {
    _Atomic uint64_t now_ns;
};

/*
 * Counts, checks that free gets the size that alloc got, hands out dirty memory, and fails where it
 * is told to.
 */
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
    struct mv_copies copies; /* for mv_open_recorded */
    struct kvb_layout layout;
    struct kvb_tier_config tiers[KVB_TIER_COUNT];
    struct kvb_config config;
    /*
     * That tiers are to be of whatever their configuration says (base/hooks.h); NULL: what it says.
     */
    const struct kvbi_kind *kinds[KVB_TIER_COUNT];
    struct kvbi_hooks hooks;
    struct kvb_manager *kv; /* NULL: not open */
    bool on_device;         /* since it was opened, until it is closed */
};

/* Its time. */
uint64_t kv_clock_now(void *clock);

void *kv_heap_alloc(void *heap, size_t bytes, size_t alignment);
void kv_heap_free(void *heap, void *memory, size_t bytes);

/* The latest message; empty text if there is none. Call it while the library is quiet. */
const struct kv_log_line *kv_log_last(const struct kv_log *log);

/* Whether one of the kept messages contains `text`. */
bool kv_log_has(const struct kv_log *log, const char *text);

/* ---- The rig --------------------------------------------------------------------------------- */

/* TEST(kv_rig, ...): *state is a rig with the defaults, not open yet. */
int kv_rig_setup(void **state);
int kv_rig_teardown(void **state);

/* The same for a rig that stands elsewhere, such as in a scene (kv_scene.h). */
void kv_rig_init(struct kv_rig *rig);
/* Whether all was well. Legal on a rig that is not open, or closed by now. */
bool kv_rig_end(struct kv_rig *rig);
/* After a manager that the test has destroyed by itself. Whether no misuse of CUDA was reported. */
bool kv_rig_leave_device(struct kv_rig *rig);

/* One more tier, below those that are there. */
struct kvb_tier_config *kv_rig_add_tier(struct kv_rig *rig, uint32_t tier, uint32_t block_count,
                                        uint32_t trigger);

/* Give up the default tier, to build others with kv_rig_add_tier. */
void kv_rig_no_tiers(struct kv_rig *rig);

void kv_rig_open(struct kv_rig *rig);
/*
 * Tiers below HOST that have no files are memory, by the door in api/testing.h, unless the hooks
 * name a kind for them. kv_rig_open does so.
 */
void kv_hooks_in_memory(struct kvbi_hooks *hooks, const struct kvb_config *config);
/* The hooks are copied; their context is not. */
void kv_rig_open_hooked(struct kv_rig *rig, const struct kvbi_hooks *hooks);

/* Every invariant holds. No other thread may be inside a call. */
#define kv_check(rig) kv_check_at(__FILE__, __LINE__, (rig))
void kv_check_at(const char *file, int line, struct kv_rig *rig);

/*
 * Destroy, and everything the library took is back; for tests that look at something afterwards, or
 * open again. The recorded events and messages stay readable.
 */
#define kv_rig_close(rig) kv_rig_close_at(__FILE__, __LINE__, (rig))
void kv_rig_close_at(const char *file, int line, struct kv_rig *rig);

void kv_advance(struct kv_rig *rig, uint64_t ns);

/* Poll mode: run until nothing is left that could run now, here or on the device. */
#define kv_poll(rig) kv_poll_at(__FILE__, __LINE__, (rig))
void kv_poll_at(const char *file, int line, struct kv_rig *rig);

/* The same, and the device is left alone. */
void kv_poll_here_at(const char *file, int line, struct kv_rig *rig);

/* All lanes idle and everything delivered; in either mode. */
#define kv_flush(rig) kv_ok(kvb_manager_flush((rig)->kv, KVB_FOREVER))

/* ---- Tokens and payload ---------------------------------------------------------------------- */

/* A mixing function (splitmix64, Vigna): equal inputs, equal outputs, no pattern in between. */
uint64_t kv_mix(uint64_t x);

/* The next number of a reproducible sequence, below `bound`. */
uint32_t kv_random(uint64_t *seed, uint32_t bound);

/* A token run: the same seed gives the same run, a shorter run is a prefix of a longer one. */
void kv_tokens(uint32_t *tokens, size_t count, uint64_t seed);

/*
 * Write a block's memory so that `seed` can be recognised in every byte; or see whether it is still
 * so.
 */
void kv_payload_fill(struct kv_rig *rig, struct kvb_block *block, uint64_t seed);

bool kv_payload_is(struct kv_rig *rig, struct kvb_block *block, uint64_t seed);

/* ---- Steps of a block's life, each of which must succeed ------------------------------------- */

/* One Empty block: kv_alloc(rig, tier) */
#define kv_alloc(...) kv_alloc_at(__FILE__, __LINE__, __VA_ARGS__)
struct kvb_block *kv_alloc_at(const char *file, int line, struct kv_rig *rig, uint32_t tier);

/* kv_unref(rig, block) */
#define kv_unref(...) kv_unref_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_unref_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block);

/* Empty -> Partial: kv_init(rig, block, namespace, position, parent's key or NULL) */
#define kv_init(...) kv_init_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_init_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                uint32_t ns, uint32_t position, const void *parent);

/* Name tokens, all of which must fit: kv_append(rig, block, tokens, count, flags) */
#define kv_append(...) kv_append_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_append_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                  const uint32_t *tokens, uint32_t count, uint32_t flags);

/* kv_schedule(rig, block) */
#define kv_schedule(...) kv_schedule_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_schedule_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block);

/* kv_done(rig, block, computed tokens) */
#define kv_done(...) kv_done_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_done_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                uint32_t computed);

/* Complete -> Registered, the caller's block kept: kv_register(rig, block) */
#define kv_register(...) kv_register_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_register_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block);

/*
 * Empty -> Complete: kv_complete(rig, block, namespace, position, parent's key or NULL,
 * tokens_per_block tokens)
 */
#define kv_complete(...) kv_complete_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_complete_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                    uint32_t ns, uint32_t position, const void *parent, const uint32_t *tokens);

/*
 * Allocate, compute and register a run of blocks from the root of a namespace; the caller holds
 * each once. Built-in hashes. Payload: kv_payload_fill with the block's sequence hash as the seed.
 * kv_store_run(rig, tier, namespace, tokens, blocks' count, blocks)
 */
#define kv_store_run(...) kv_store_run_at(__FILE__, __LINE__, __VA_ARGS__)
void kv_store_run_at(const char *file, int line, struct kv_rig *rig, uint32_t tier, uint32_t ns,
                     const uint32_t *tokens, uint32_t count, struct kvb_block **blocks);

/* ---- Looking --------------------------------------------------------------------------------- */

struct kvb_block_info kv_describe(struct kv_rig *rig, const struct kvb_block *block);

struct kvb_stats kv_stats(struct kv_rig *rig);

/* A query by tokens alone. */
struct kvb_query kv_query(uint32_t ns, const uint32_t *tokens, size_t count);

/* How many leading blocks of the run are there, in whatever tier, nothing held. */
uint64_t kv_run_length(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens, size_t count);

#endif
