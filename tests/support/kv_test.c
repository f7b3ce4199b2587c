/* SPDX-License-Identifier: Apache-2.0 */
/* See kv_test.h. */
#include "support/kv_test.h"

#include "transfer/kind.h"

/* ---- Assertions ------------------------------------------------------------------------------ */

void kv_expect_at(int got, int want, const char *call, const char *file, int line)
{
    if (got != want) {
        print_error("%s\n  returned %s (%d), expected %s (%d)\n", call, kvb_error_name(got), got,
                    kvb_error_name(want), want);
        _fail(file, line);
    }
}

/* ---- What is injected ------------------------------------------------------------------------ */

uint64_t kv_clock_now(void *context)
{
    struct kv_clock *clock = context;
    return atomic_load(&clock->now_ns);
}

struct heap_header {
    size_t bytes, alignment;
};

void *kv_heap_alloc(void *context, size_t bytes, size_t alignment)
{
    struct kv_heap *heap = context;
    uint64_t call = atomic_fetch_add(&heap->calls, 1) + 1;
    uint64_t fail_at = atomic_load(&heap->fail_at);
    if (fail_at != 0 && (call == fail_at || (call > fail_at && atomic_load(&heap->fail_onwards))))
        return NULL;
    size_t step = alignment < 64 ? 64 : alignment;
    void *start = NULL;
    if (bytes > KV_HEAP_MAX || posix_memalign(&start, step, step + bytes) != 0)
        return NULL;
    unsigned char *memory = (unsigned char *)start + step;
    struct heap_header header = {bytes, step};
    memcpy(memory - sizeof header, &header, sizeof header);
    memset(memory, 0xa5, bytes);
    atomic_fetch_add(&heap->live_blocks, 1);
    atomic_fetch_add(&heap->live_bytes, (int64_t)bytes);
    return memory;
}

void kv_heap_free(void *context, void *memory, size_t bytes)
{
    struct kv_heap *heap = context;
    if (memory == NULL)
        return;
    struct heap_header header;
    memcpy(&header, (unsigned char *)memory - sizeof header, sizeof header);
    if (header.bytes != bytes)
        atomic_fetch_add(&heap->wrong_frees, 1);
    atomic_fetch_sub(&heap->live_blocks, 1);
    atomic_fetch_sub(&heap->live_bytes, (int64_t)header.bytes);
    free((unsigned char *)memory - header.alignment);
}

static void log_write(void *context, int level, int code, const char *message)
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

const struct kv_log_line *kv_log_last(const struct kv_log *log)
{
    static const struct kv_log_line none = {0, 0, ""};
    return log->count == 0 ? &none : &log->lines[(log->count - 1) % KV_LOG_MAX];
}

bool kv_log_has(const struct kv_log *log, const char *text)
{
    size_t kept = log->count < KV_LOG_MAX ? log->count : KV_LOG_MAX;
    for (size_t i = 0; i < kept; i++)
        if (strstr(log->lines[i].text, text) != NULL)
            return true;
    return false;
}

static void deliver(void *context, const struct kvb_event *event)
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
        if (event->key != NULL)
            memcpy(record->key, event->key, events->key_bytes);
        if (event->parent_key != NULL)
            memcpy(record->parent, event->parent_key, events->key_bytes);
        if (event->tokens != NULL)
            record->first_token = event->tokens[0];
    }
    events->count++;
    pthread_mutex_unlock(&events->mutex);
}

/* ---- The rig --------------------------------------------------------------------------------- */

struct kvb_tier_config *kv_rig_add_tier(struct kv_rig *rig, uint32_t tier, uint32_t block_count,
                                        uint32_t trigger)
{
    struct kvb_tier_config *config = &rig->tiers[rig->config.tier_count++];
    *config = (struct kvb_tier_config){.size = sizeof *config,
                                       .tier = tier,
                                       .block_count = block_count,
                                       .trigger = trigger,
                                       .queue_capacity = 64};
    return config;
}

void kv_rig_init(struct kv_rig *rig)
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
        .logger = {log_write, &rig->log},
        .sink = {deliver, &rig->events},
    };
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, KV_BLOCKS, KVB_OFFLOAD_MANUAL);
}

void kv_rig_no_tiers(struct kv_rig *rig)
{
    rig->config.tier_count = 0;
}

void kv_hooks_in_memory(struct kvbi_hooks *hooks, const struct kvb_config *config)
{
    for (uint32_t i = 0; i < config->tier_count; i++) {
        const struct kvb_tier_config *tier = &config->tiers[i];
        bool elsewhere = tier->path != NULL || tier->path_count > 0 || tier->tier < KVB_TIER_DISK;
        if (!elsewhere && hooks->kinds[tier->tier] == NULL)
            hooks->kinds[tier->tier] = &kvbi_kind_memory;
    }
}

void kv_rig_open_hooked(struct kv_rig *rig, const struct kvbi_hooks *hooks)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    kv_device_start(rig->tiers, rig->config.tier_count);
    rig->on_device = true;
    rig->events.key_bytes =
        rig->config.key_bytes != 0 ? rig->config.key_bytes : sizeof(struct kvb_seq);
    rig->hooks = hooks != NULL ? *hooks : (struct kvbi_hooks){0};
    memcpy(rig->hooks.kinds, rig->kinds, sizeof rig->hooks.kinds);
    kv_hooks_in_memory(&rig->hooks, &rig->config);
    int code = kvbi_manager_create_hooked(&rig->config, &rig->hooks, &rig->kv, &diagnosis);
    if (code != 0)
        print_error("create: %s: %s\n", kvb_error_name(code), diagnosis.message);
    assert_int_equal(code, 0);
    assert_non_null(rig->kv);
}

void kv_rig_open(struct kv_rig *rig)
{
    kv_rig_open_hooked(rig, NULL);
}

static bool is_sound(struct kv_rig *rig)
{
    char message[512] = "";
    bool sound = kvbi_manager_check(rig->kv, message, sizeof message) == 0;
    if (!sound)
        print_error("invariant broken: %s\n", message);
    return sound;
}

void kv_check_at(const char *file, int line, struct kv_rig *rig)
{
    if (!is_sound(rig))
        _fail(file, line);
}

static bool destroy(struct kv_rig *rig)
{
    bool sound = is_sound(rig);
    int code = sound ? kvb_manager_destroy(rig->kv) : 0;
    if (code != 0)
        print_error("kvb_manager_destroy: %s: %s\n", kvb_error_name(code),
                    kv_log_last(&rig->log)->text);
    if (!sound || code == KVB_EBUSY)
        kvbi_testing_abandon(rig->kv);
    rig->kv = NULL;
    return sound && code == 0;
}

bool kv_rig_leave_device(struct kv_rig *rig)
{
    bool good = !rig->on_device || kv_device_end() == 0;
    rig->on_device = false;
    if (!good)
        print_error("the stand-in for CUDA has reported something\n");
    return good;
}

static bool heap_is_back(const struct kv_heap *heap)
{
    if (heap->live_blocks == 0 && heap->live_bytes == 0 && heap->wrong_frees == 0)
        return true;
    print_error("allocator: %lld blocks, %lld bytes not freed; %llu freed with another size\n",
                (long long)heap->live_blocks, (long long)heap->live_bytes,
                (unsigned long long)heap->wrong_frees);
    return false;
}

static bool close_rig(struct kv_rig *rig)
{
    bool good = rig->kv == NULL || destroy(rig);
    good = kv_rig_leave_device(rig) && good;
    return heap_is_back(&rig->heap) && good;
}

void kv_rig_close_at(const char *file, int line, struct kv_rig *rig)
{
    if (!close_rig(rig))
        _fail(file, line);
}

bool kv_rig_end(struct kv_rig *rig)
{
    kv_device_let_go();
    if (rig->kv != NULL)
        kvbi_testing_mute(rig->kv);
    return close_rig(rig);
}

int kv_rig_setup(void **state)
{
    struct kv_rig *rig = malloc(sizeof *rig);
    *state = rig;
    if (rig == NULL)
        return -1;
    kv_rig_init(rig);
    return 0;
}

int kv_rig_teardown(void **state)
{
    struct kv_rig *rig = *state;
    bool good = kv_rig_end(rig);
    free(rig);
    return good ? 0 : -1;
}

void kv_advance(struct kv_rig *rig, uint64_t ns)
{
    atomic_fetch_add(&rig->clock.now_ns, ns);
}

void kv_poll_here_at(const char *file, int line, struct kv_rig *rig)
{
    for (int round = 0; round < 100000; round++) {
        int left = kvb_manager_poll(rig->kv, KVB_FOREVER);
        if (left == 0)
            return;
        if (left != 1)
            kv_expect_at(left, KVB_OK, "kvb_manager_poll", file, line);
    }
    print_error("kvb_manager_poll always says that work is left\n");
    _fail(file, line);
}

void kv_poll_at(const char *file, int line, struct kv_rig *rig)
{
    do {
        kv_poll_here_at(file, line, rig);
    } while (kv_device_moved(rig->kv));
}

/* ---- Tokens and payload ---------------------------------------------------------------------- */

uint64_t kv_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint32_t kv_random(uint64_t *seed, uint32_t bound)
{
    *seed += 1;
    return (uint32_t)((kv_mix(*seed) >> 11) % bound);
}

void kv_tokens(uint32_t *tokens, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)kv_mix(seed * UINT64_C(1000003) + i);
}

void kv_payload_fill(struct kv_rig *rig, struct kvb_block *block, uint64_t seed)
{
    for (uint32_t layer = 0; layer < rig->layout.layers; layer++)
        for (uint32_t part = 0; part < rig->layout.parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(rig->kv, block, layer, part, &address));
            unsigned char *bytes = kv_device_begin_write(address, rig->layout.chunk_bytes);
            for (uint64_t i = 0; i < rig->layout.chunk_bytes; i++)
                bytes[i] = (unsigned char)kv_mix(seed + ((uint64_t)layer << 48) +
                                                 ((uint64_t)part << 40) + i);
            kv_device_end_write(address, bytes, rig->layout.chunk_bytes);
        }
}

bool kv_payload_is(struct kv_rig *rig, struct kvb_block *block, uint64_t seed)
{
    for (uint32_t layer = 0; layer < rig->layout.layers; layer++)
        for (uint32_t part = 0; part < rig->layout.parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(rig->kv, block, layer, part, &address));
            const unsigned char *bytes = kv_device_read(address, rig->layout.chunk_bytes);
            bool same = true;
            for (uint64_t i = 0; same && i < rig->layout.chunk_bytes; i++)
                same = bytes[i] == (unsigned char)kv_mix(seed + ((uint64_t)layer << 48) +
                                                         ((uint64_t)part << 40) + i);
            kv_device_end_read(address, bytes);
            if (!same)
                return false;
        }
    return true;
}

/* ---- Steps of a block's life, each of which must succeed ------------------------------------- */

struct kvb_block *kv_alloc_at(const char *file, int line, struct kv_rig *rig, uint32_t tier)
{
    struct kvb_block *block = NULL;
    kv_expect_at(kvb_alloc(rig->kv, tier, 1, NULL, &block, NULL), KVB_OK, "kvb_alloc", file, line);
    if (block == NULL)
        _fail(file, line);
    return block;
}

void kv_unref_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block)
{
    kv_expect_at(kvb_block_unref(rig->kv, &block, 1, NULL), KVB_OK, "kvb_block_unref", file, line);
}

void kv_init_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                uint32_t ns, uint32_t position, const void *parent)
{
    struct kvb_block_init init = {
        .size = sizeof init, .namespace_id = ns, .position = position, .parent = parent};
    kv_expect_at(kvb_block_init(rig->kv, &block, &init, 1, NULL), KVB_OK, "kvb_block_init", file,
                 line);
}

void kv_append_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                  const uint32_t *tokens, uint32_t count, uint32_t flags)
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

void kv_schedule_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block)
{
    kv_expect_at(kvb_block_schedule(rig->kv, &block, 1, NULL), KVB_OK, "kvb_block_schedule", file,
                 line);
}

void kv_done_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                uint32_t computed)
{
    kv_expect_at(kvb_block_compute_done(rig->kv, &block, &computed, 1, NULL, NULL), KVB_OK,
                 "kvb_block_compute_done", file, line);
}

void kv_register_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block)
{
    struct kvb_block *registered = block;
    kv_expect_at(kvb_block_register(rig->kv, &registered, 1, NULL, NULL, NULL), KVB_OK,
                 "kvb_block_register", file, line);
    if (registered != block) {
        print_error("kvb_block_register put another block in place of this one\n");
        _fail(file, line);
    }
}

void kv_complete_at(const char *file, int line, struct kv_rig *rig, struct kvb_block *block,
                    uint32_t ns, uint32_t position, const void *parent, const uint32_t *tokens)
{
    kv_init_at(file, line, rig, block, ns, position, parent);
    kv_append_at(file, line, rig, block, tokens, rig->config.tokens_per_block, 0);
    kv_schedule_at(file, line, rig, block);
    kv_done_at(file, line, rig, block, rig->config.tokens_per_block);
}

void kv_store_run_at(const char *file, int line, struct kv_rig *rig, uint32_t tier, uint32_t ns,
                     const uint32_t *tokens, uint32_t count, struct kvb_block **blocks)
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

/* ---- Looking --------------------------------------------------------------------------------- */

struct kvb_block_info kv_describe(struct kv_rig *rig, const struct kvb_block *block)
{
    struct kvb_block_info info = {.size = sizeof info};
    kv_ok(kvb_block_describe(rig->kv, block, &info));
    return info;
}

struct kvb_stats kv_stats(struct kv_rig *rig)
{
    struct kvb_stats stats = {.size = sizeof stats};
    kv_ok(kvb_manager_stats(rig->kv, &stats));
    return stats;
}

struct kvb_query kv_query(uint32_t ns, const uint32_t *tokens, size_t count)
{
    return (struct kvb_query){.size = sizeof(struct kvb_query),
                              .namespace_id = ns,
                              .tokens = tokens,
                              .token_count = count};
}

uint64_t kv_run_length(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens, size_t count)
{
    struct kvb_query query = kv_query(ns, tokens, count);
    uint64_t tiers[KVB_TIER_COUNT] = {0};
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    return tiers[0] + tiers[1] + tiers[2] + tiers[3];
}
