/* SPDX-License-Identifier: Apache-2.0 */
/* Create, progress, and what all calls share. See manager.h. */
#include "api/manager.h"

#include <stdio.h>
#include <string.h>

#include "api/config.h"
#include "api/testing.h"
#include "store/contents.h"

#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

const char *kvb_version(void)
{
    return STRINGIFY(KVB_VERSION_MAJOR) "." STRINGIFY(KVB_VERSION_MINOR) "." STRINGIFY(
        KVB_VERSION_PATCH);
}

/* ---- Shared by all calls --------------------------------------------------------------------- */

int kvbi_enter(const struct kvb_manager *manager)
{
    if (manager == NULL)
        return KVB_EINVAL;
    return kvbi_fork_guard_is_child(&manager->guard) ? KVB_EFORK : 0;
}

int kvbi_enter_array(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                     const void *array, uint32_t count)
{
    int error = kvbi_enter(manager);
    return error == 0 && count > 0 && array == NULL
               ? kvbi_refuse(manager, call, KVB_EINVAL, "%s is NULL, count is %u", name, count)
               : error;
}

struct kvbi_pool *kvbi_held_pool(struct kvb_manager *manager, const struct kvb_block *block)
{
    struct kvbi_pool *pool = kvbi_store_pool_of(&manager->store, block);
    if (pool == NULL ||
        kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire)) == 0)
        return NULL;
    return pool;
}

int kvbi_sole_holder(struct kvb_manager *manager, const struct kvb_block *block)
{
    if (kvbi_held_pool(manager, block) == NULL)
        return KVB_EINVAL;
    uint64_t users = kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire));
    return users > kvbi_life_get(block).steps + UINT64_C(1) ? KVB_ESHARED : 0;
}

void kvbi_lock(struct kvb_manager *manager)
{
    kvbi_store_lock(&manager->store);
}

void kvbi_unlock(struct kvb_manager *manager)
{
    bool work = kvbi_store_take_work_locked(&manager->store);
    kvbi_store_unlock(&manager->store);
    if (work)
        kvbi_progress_wake(&manager->progress);
}

void kvbi_section_next(struct kvbi_section *section)
{
    if (section->left == 1)
        kvbi_section_end(section);
    if (section->left == 0) {
        section->now_ns = kvbi_clock_now(&section->manager->clock);
        section->left = KVBI_LOCK_BATCH + 1;
        kvbi_lock(section->manager);
    }
    section->left--;
    kvbi_lock_step();
}

void kvbi_section_end(struct kvbi_section *section)
{
    if (section->left == 0)
        return;
    kvbi_lanes_parked_locked(kvbi_pipeline_lanes(&section->manager->pipeline), &section->parking);
    section->left = 0;
    kvbi_unlock(section->manager);
}

void kvbi_section_unref(struct kvbi_section *section, struct kvbi_pool *pool,
                        struct kvb_block *block)
{
    kvbi_lanes_unref_locked(kvbi_pipeline_lanes(&section->manager->pipeline), &section->parking,
                            pool, block, section->now_ns);
}

/* ---- Create ---------------------------------------------------------------------------------- */

static const struct kvbi_hash_ops *names_hash(const struct kvbi_hooks *hooks)
{
    return hooks != NULL && hooks->hash != NULL ? hooks->hash : kvbi_hash_select(kvbi_isa_detect());
}

static int create_tiers(struct kvb_manager *manager, const struct kvbi_config *config,
                        char *message, size_t message_bytes)
{
    struct kvbi_tiers_config tiers = {.configs = config->tiers,
                                      .kinds = config->kinds,
                                      .purpose = {.layout = &config->layout,
                                                  .block_bytes = config->block_bytes,
                                                  .tokens_per_block = config->c.tokens_per_block,
                                                  .key_bytes = config->c.key_bytes,
                                                  .digest_seed = config->c.digest_seed,
                                                  .model = config->c.model,
                                                  .hash = kvbi_hash_select(kvbi_isa_detect())}};
    return kvbi_tiers_create(manager->tiers, &manager->memory, &tiers, message, message_bytes);
}

/* Names in files were made with the files' seed, and are compared with names made with this one. */
static uint64_t choose_seed(struct kvb_manager *manager, const struct kvbi_config *config)
{
    const struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    uint64_t seed = files != NULL ? files->lasting->seed(files) : config->c.digest_seed;
    if (seed == 0 && kvbi_random_u64(&seed) != 0)
        seed = kvbi_clock_now(&manager->clock) ^ (uint64_t)(uintptr_t)manager;
    return seed;
}

static int create_store(struct kvb_manager *manager, const struct kvbi_config *config,
                        const struct kvbi_hooks *hooks)
{
    struct kvbi_store_config store = {.memory = &manager->memory,
                                      .clock = &manager->clock,
                                      .log = &manager->log,
                                      .hash = names_hash(hooks),
                                      .digest_seed = choose_seed(manager, config),
                                      .tokens_per_block = config->c.tokens_per_block,
                                      .key_bytes = config->c.key_bytes,
                                      .duplicate = (enum kvb_duplicate)config->c.duplicate,
                                      .policy = config->policy,
                                      .event_capacity = config->c.event_capacity,
                                      .pin_capacity = config->c.pin_capacity,
                                      .namespace_capacity = config->c.namespace_capacity};
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++) {
        store.block_counts[tier] = config->tiers[tier].block_count;
        const struct kvbi_tier *memory = &manager->tiers[tier];
        store.on_disk[tier] = memory->lasting != NULL;
        if (memory->lasting != NULL)
            store.file_counts[tier] = memory->lasting->file_count(memory);
    }
    return kvbi_store_create(&manager->store, &store);
}

static int create_pipeline(struct kvb_manager *manager, const struct kvbi_config *config,
                           const struct kvbi_hooks *hooks, char *message, size_t message_bytes)
{
    struct kvbi_pipeline_config pipeline = {.configs = config->tiers,
                                            .tiers = manager->tiers,
                                            .admission = config->c.admission,
                                            .op_capacity = config->c.op_capacity,
                                            .own_thread = config->c.progress == KVB_PROGRESS_THREAD,
                                            .hooks = hooks};
    return kvbi_pipeline_create(&manager->pipeline, &manager->store, &pipeline, message,
                                message_bytes);
}

void kvbi_manager_free(struct kvb_manager *manager)
{
    struct kvbi_memory memory = manager->memory;
    kvbi_progress_destroy(&manager->progress);
    kvbi_pipeline_destroy(&manager->pipeline);
    kvbi_store_destroy(&manager->store);
    kvbi_tiers_destroy(manager->tiers);
    kvbi_fork_guard_destroy(&manager->guard);
    kvbi_memory_free(&memory, manager, 1, sizeof *manager);
}

static int create_parts(struct kvb_manager *manager, const struct kvbi_config *config,
                        const struct kvbi_hooks *hooks, char *message, size_t message_bytes)
{
    int error = kvbi_fork_guard_create(&manager->guard);
    if (error == 0)
        error = create_tiers(manager, config, message, message_bytes);
    if (error == 0)
        error = create_store(manager, config, hooks);
    if (error == 0)
        error = create_pipeline(manager, config, hooks, message, message_bytes);
    if (error == 0)
        error = kvbi_tiers_register(manager->tiers, config->tiers, &manager->log, hooks);
    if (error == 0)
        error = kvbi_progress_create(&manager->progress, &manager->pipeline, &config->c.sink,
                                     config->c.progress == KVB_PROGRESS_THREAD);
    struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    if (error == 0 && files != NULL) /* last: it writes to the files */
        error = kvbi_recover(&manager->store, files, &manager->recovery, message, message_bytes);
    if (error == 0)
        kvbi_progress_begin(&manager->progress);
    return error;
}

static int create(const struct kvb_config *given, const struct kvbi_hooks *hooks,
                  struct kvb_manager **out, struct kvb_diagnosis *diagnosis)
{
    struct kvbi_config config;
    struct kvbi_memory memory;
    /* of the part that failed, if it has something to say */
    char message[sizeof diagnosis->message] = "";
    int error = kvbi_config_read(&config, given, hooks, diagnosis);
    if (error == 0)
        error = kvbi_memory_init(&memory, &config.c.allocator);
    if (error != 0)
        return error;
    struct kvb_manager *manager = kvbi_memory_alloc(&memory, 1, sizeof *manager, 64);
    if (manager == NULL)
        return kvbi_diagnose(diagnosis, KVB_ENOMEM, "the allocator gave no memory for the manager");
    manager->memory = memory;
    manager->layout = config.layout;
    manager->block_bytes = config.block_bytes;
    kvbi_clock_init(&manager->clock, &config.c.clock);
    kvbi_log_init(&manager->log, &config.c.logger);
    error = create_parts(manager, &config, hooks, message, sizeof message);
    if (error != 0) {
        kvbi_manager_free(manager);
        return kvbi_diagnose(
            diagnosis, error, "%s",
            message[0] != '\0'
                ? message
                : "the allocator or the system gave no memory, thread or descriptor for the "
                  "tables");
    }
    kvbi_log(&manager->log, KVB_LOG_INFO, 0, "kvblock %s: engine %s, hash %s", kvb_version(),
             kvbi_pipeline_said(&manager->pipeline), kvbi_store_hash(&manager->store)->ops->name);
    kvbi_recovery_log(&manager->recovery, kvbi_tiers_lasting(manager->tiers), &manager->log);
    *out = manager;
    return kvbi_diagnose(diagnosis, 0, "ready");
}

int kvbi_manager_create_hooked(const struct kvb_config *given, const struct kvbi_hooks *hooks,
                               struct kvb_manager **out, struct kvb_diagnosis *diagnosis)
{
    struct kvb_diagnosis found = {.size = sizeof found};
    bool silent = diagnosis != NULL && diagnosis->size < sizeof found;
    int error;
    if (out != NULL)
        *out = NULL;
    if (out == NULL)
        error = kvbi_diagnose(&found, KVB_EINVAL, "manager is NULL");
    else if (silent)
        error = kvbi_diagnose(
            &found, KVB_EINVAL,
            "diagnosis->size is %u, must be set to sizeof(struct kvb_diagnosis) (%zu)",
            diagnosis->size, sizeof found);
    else
        error = create(given, hooks, out, &found);
    if (error != 0)
        kvbi_config_log_refusal(given, &found);
    if (diagnosis != NULL && !silent) {
        diagnosis->code = found.code;
        memcpy(diagnosis->message, found.message, sizeof found.message);
    }
    return error;
}

int kvb_manager_create(const struct kvb_config *config, struct kvb_manager **manager,
                       struct kvb_diagnosis *diagnosis)
{
    return kvbi_manager_create_hooked(config, NULL, manager, diagnosis);
}

/* ---- Progress -------------------------------------------------------------------------------- */

int kvb_manager_poll(struct kvb_manager *manager, uint64_t max_ns)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    int result = kvbi_progress_poll(&manager->progress, max_ns);
    return result >= 0 ? result : kvbi_refuse_progress(manager, KVBI_CALL_MANAGER_POLL, result);
}

int kvb_manager_event_fd(struct kvb_manager *manager)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    return manager->progress.own_thread
               ? kvbi_refuse(manager, KVBI_CALL_MANAGER_EVENT_FD, KVB_EUNSUPPORTED,
                             "progress is KVB_PROGRESS_THREAD, must be KVB_PROGRESS_POLL")
               : manager->progress.epoll_fd;
}

int kvb_manager_next_timeout(struct kvb_manager *manager, uint64_t *timeout_ns)
{
    int error = kvbi_enter(manager);
    if (timeout_ns != NULL)
        *timeout_ns = 0;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_MANAGER_NEXT_TIMEOUT, "timeout_ns", timeout_ns);
    if (error == 0)
        *timeout_ns = kvbi_progress_next_timeout(&manager->progress);
    return error;
}

int kvb_manager_flush(struct kvb_manager *manager, uint64_t timeout_ns)
{
    int error = kvbi_enter(manager);
    if (error == 0)
        error = kvbi_may_wait(manager, KVBI_CALL_MANAGER_FLUSH);
    if (error != 0)
        return error;
    error = kvbi_progress_flush(&manager->progress, timeout_ns);
    return error == 0 ? 0
                      : kvbi_refuse(manager, KVBI_CALL_MANAGER_FLUSH, error,
                                    "not all lanes were idle within %llu ns",
                                    (unsigned long long)timeout_ns);
}

int kvb_manager_clear(struct kvb_manager *manager)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    struct kvbi_store *store = &manager->store;
    struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    uint32_t cursor = 0;
    uint64_t removed = 0;
    bool more = true;
    kvbi_store_lock_clear(store);
    kvbi_lock(manager);
    uint64_t clears = kvbi_store_begin_clear_locked(store);
    kvbi_unlock(manager);
    if (files != NULL)
        error = files->lasting->clear(files, clears);
    while (more) {
        kvbi_lock(manager);
        more = kvbi_store_sweep_locked(store, &cursor, NULL, &removed);
        kvbi_unlock(manager);
    }
    kvbi_store_unlock_clear(store);
    if (error != 0)
        kvbi_log(
            &manager->log, KVB_LOG_ERROR, error,
            "kvb_manager_clear: a file of tier %s could not be written; what it holds may come "
            "back after a restart",
            kvbi_tier_name(files->tier));
    return error;
}

/* ---- What there is --------------------------------------------------------------------------- */

size_t kvb_key_bytes(const struct kvb_manager *manager)
{
    return kvbi_enter(manager) == 0 ? kvbi_store_key_stride(&manager->store) : 0;
}

int kvb_tier_memory(struct kvb_manager *manager, uint32_t tier, void **base, uint64_t *bytes)
{
    int error = kvbi_enter(manager);
    if (base != NULL)
        *base = NULL;
    if (bytes != NULL)
        *bytes = 0;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_TIER_MEMORY, "base", base);
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_TIER_MEMORY, "bytes", bytes);
    if (error == 0 && tier >= KVB_TIER_COUNT)
        error = kvbi_refuse(manager, KVBI_CALL_TIER_MEMORY, KVB_EINVAL, "tier is %u, must be 0..%d",
                            tier, KVB_TIER_COUNT - 1);
    if (error != 0)
        return error;
    const struct kvbi_tier *memory = &manager->tiers[tier];
    if (memory->ops == NULL)
        return kvbi_refuse(manager, KVBI_CALL_TIER_MEMORY, KVB_ENOENT,
                           "tier is %u (%s), which is not configured", tier, kvbi_tier_name(tier));
    const char *apart = memory->ops->apart(memory);
    if (apart != NULL)
        return kvbi_refuse(manager, KVBI_CALL_TIER_MEMORY, KVB_EUNSUPPORTED, "tier is %u (%s), %s",
                           tier, kvbi_tier_name(tier), apart);
    *base = memory->base;
    *bytes = (uint64_t)memory->block_count * memory->block_bytes;
    return 0;
}

int kvb_fence_signal(struct kvb_manager *manager, uint32_t line, uint64_t value)
{
    int error = kvbi_enter(manager);
    if (error == 0 && line >= KVBI_LINE_COUNTERS)
        error = kvbi_refuse(manager, KVBI_CALL_FENCE_SIGNAL, KVB_EINVAL,
                            "line is %u, must be 0..%u", line, KVBI_LINE_COUNTERS - 1);
    if (error == 0 && value > KVBI_NUMBER_MAX)
        error = kvbi_refuse(manager, KVBI_CALL_FENCE_SIGNAL, KVB_EINVAL,
                            "value is %llu, must be below 2^%d", (unsigned long long)value,
                            KVBI_NUMBER_BITS);
    if (error != 0)
        return error;
    if (kvbi_pipeline_signal(&manager->pipeline, line, value))
        kvbi_progress_wake(&manager->progress);
    return 0;
}
