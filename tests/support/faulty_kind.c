/* SPDX-License-Identifier: Apache-2.0 */
/* A kind of memory with scripted faults. See faulty_kind.h. */
#include "support/faulty_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/engine.h"
#include "transfer/memory/engine.h"

void kv_faulty_init(struct kv_faulty *faulty)
{
    memset(faulty, 0, sizeof *faulty);
    faulty->only_file = UINT32_MAX;
}

static const struct kvbi_tier_ops faulty_ops;

static struct kv_faulty *faulty_of(const struct kvbi_tier *tier)
{
    return tier->self;
}

/* ---- Its engine: that of host memory, behind a script ---------------------------------------- */

struct note {
    uint64_t cookie;
    int result; /* instead of a success */
    bool condemned;
};

struct faulty_engine {
    struct kvbi_engine engine;
    struct kvbi_engine *inner;
    struct kv_faulty *faulty;
    const struct kvbi_memory *memory;
    struct note *notes; /* by the tag that the inner engine is given */
    uint32_t *free_list;
    uint32_t capacity, free_count;
};

static struct faulty_engine *of(struct kvbi_engine *engine)
{
    return (struct faulty_engine *)(void *)engine; /* its first member */
}

static bool is_faulty(const struct kvbi_tier *tier)
{
    return tier->ops == &faulty_ops;
}

static struct note judge(struct faulty_engine *e, const struct kvbi_copy *copy)
{
    struct kv_faulty *faulty = e->faulty;
    bool write = is_faulty(copy->to);
    uint32_t slot = write ? copy->to_slot : copy->from_slot;
    bool told = faulty->only_file == UINT32_MAX || slot % KV_FAULTY_FILES == faulty->only_file;
    int result = !told ? 0 : write ? faulty->write_result : faulty->read_result;
    faulty->writes += write;
    faulty->reads += !write;
    if (write && copy->label != NULL)
        faulty->last_label_hash = copy->label->hash;
    return (struct note){
        .cookie = copy->cookie, .result = result, .condemned = result != 0 && faulty->condemns};
}

static int faulty_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                         bool urgent)
{
    struct faulty_engine *e = of(engine);
    if (count > e->free_count)
        return KVB_EAGAIN;
    for (uint32_t i = 0; i < count; i++) {
        struct kvbi_copy copy = copies[i];
        uint32_t at = e->free_list[--e->free_count];
        e->notes[at] = judge(e, &copy);
        copy.cookie = at;
        copy.place = NULL;
        int error = e->inner->ops->submit(e->inner, &copy, 1, urgent);
        if (copies[i].place != NULL)
            *copies[i].place = at;
        if (error != 0)
            abort(); /* both have the same capacity */
    }
    return 0;
}

static uint32_t faulty_reap(struct kvbi_engine *engine, struct kvbi_completion *completions,
                            uint32_t max, uint64_t until_ns, bool *more)
{
    struct faulty_engine *e = of(engine);
    uint32_t count = e->inner->ops->reap(e->inner, completions, max, until_ns, more);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)completions[i].cookie;
        completions[i].cookie = e->notes[at].cookie;
        if (completions[i].result == 0 && e->notes[at].result != 0) {
            completions[i].result = e->notes[at].result;
            completions[i].condemned = e->notes[at].condemned;
        }
        e->free_list[e->free_count++] = at;
    }
    return count;
}

static int faulty_event_fd(struct kvbi_engine *engine)
{
    return of(engine)->inner->ops->wake_fd(of(engine)->inner);
}

static bool faulty_ready(struct kvbi_engine *engine)
{
    return of(engine)->inner->ops->ready(of(engine)->inner);
}

static void faulty_drain(struct kvbi_engine *engine)
{
    of(engine)->inner->ops->drain(of(engine)->inner);
}

static size_t faulty_engine_bytes(const struct kvbi_engine *engine)
{
    const struct faulty_engine *e = (const struct faulty_engine *)(const void *)engine;
    return sizeof *e + e->inner->ops->bytes(e->inner);
}

static bool faulty_signal(struct kvbi_engine *engine)
{
    return of(engine)->inner->ops->signal(of(engine)->inner);
}

/* It gives back nothing that it has taken. */
static bool faulty_recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    (void)engine, (void)place, (void)cookie;
    return false;
}

static void faulty_engine_destroy(struct kvbi_engine *engine)
{
    struct faulty_engine *e = of(engine);
    const struct kvbi_memory *memory = e->memory;
    e->inner->ops->destroy(e->inner);
    kvbi_memory_free(memory, e->notes, e->capacity, sizeof *e->notes);
    kvbi_memory_free(memory, e->free_list, e->capacity, sizeof *e->free_list);
    kvbi_memory_free(memory, e, 1, sizeof *e);
}

static const struct kvbi_engine_ops engine_ops = {.name = "faulty",
                                                  .destroy = faulty_engine_destroy,
                                                  .submit = faulty_submit,
                                                  .reap = faulty_reap,
                                                  .wake_fd = faulty_event_fd,
                                                  .ready = faulty_ready,
                                                  .drain = faulty_drain,
                                                  .bytes = faulty_engine_bytes,
                                                  .signal = faulty_signal,
                                                  .recall = faulty_recall};

static int fill(struct faulty_engine *e, const struct kvbi_engines_config *config)
{
    e->capacity = config->capacity;
    e->notes = kvbi_memory_alloc(config->memory, e->capacity, sizeof *e->notes, 0);
    e->free_list = kvbi_memory_alloc(config->memory, e->capacity, sizeof *e->free_list, 0);
    int error = kvbi_engine_memcpy_create(&e->inner, config->memory, config->clock, config->lines,
                                          config->capacity, config->hooks);
    if (error != 0)
        return error;
    if (e->notes == NULL || e->free_list == NULL) {
        e->inner->ops->destroy(e->inner);
        return KVB_ENOMEM;
    }
    while (e->free_count < e->capacity) {
        e->free_list[e->free_count] = e->free_count;
        e->free_count++;
    }
    return 0;
}

static int create_engine(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                         const struct kvbi_engines_config *config, char *said)
{
    struct faulty_engine *e =
        kvbi_memory_alloc(config->memory, 1, sizeof *e, _Alignof(struct faulty_engine));
    *engine = NULL;
    if (e == NULL)
        return KVB_ENOMEM;
    e->engine.ops = &engine_ops;
    e->faulty = faulty_of(tier);
    e->memory = config->memory;
    int error = fill(e, config);
    if (error != 0) {
        kvbi_memory_free(config->memory, e->notes, e->capacity, sizeof *e->notes);
        kvbi_memory_free(config->memory, e->free_list, e->capacity, sizeof *e->free_list);
        kvbi_memory_free(config->memory, e, 1, sizeof *e);
        return error;
    }
    e->faulty->engines++;
    (void)snprintf(said, KVBI_ENGINE_SAID_BYTES, "faulty");
    *engine = &e->engine;
    return 0;
}

/* ---- The tier -------------------------------------------------------------------------------- */

static void destroy(struct kvbi_tier *tier)
{
    faulty_of(tier)->destroyed++;
    kvbi_memory_free(tier->memory, tier->base, tier->block_count, (size_t)tier->block_bytes);
}

static const char *apart(const struct kvbi_tier *tier)
{
    (void)tier;
    return "whose memory is its own";
}

static bool lost(const struct kvbi_tier *tier, char *why, size_t why_bytes)
{
    bool is_lost = atomic_load(&faulty_of(tier)->lost);
    if (is_lost && why != NULL)
        (void)snprintf(why, why_bytes, "the script says so");
    return is_lost;
}

static size_t bytes(const struct kvbi_tier *tier)
{
    (void)tier;
    return sizeof(struct kv_faulty);
}

static const struct kvbi_tier_ops faulty_ops = {.kind = "faulty",
                                                .destroy = destroy,
                                                .create_engine = create_engine,
                                                .chunk = kvbi_tier_no_chunk,
                                                .apart = apart,
                                                .bytes = bytes,
                                                .statistics = kvbi_tier_no_statistics,
                                                .lost = lost,
                                                .register_memory = kvbi_tier_registers_nothing};

/* ---- Its files ------------------------------------------------------------------------------- */

static uint32_t file_count(const struct kvbi_tier *tier)
{
    (void)tier;
    return KV_FAULTY_FILES;
}

static const char *file_path(const struct kvbi_tier *tier, uint32_t file)
{
    (void)tier;
    return file == 0 ? "faulty/0" : "faulty/1";
}

static void file_statistics(const struct kvbi_tier *tier, uint32_t file,
                            struct kvb_disk_stats *stats)
{
    (void)file;
    stats->path_count = KV_FAULTY_FILES;
    stats->epoch = faulty_of(tier)->clears;
}

static uint64_t seed(const struct kvbi_tier *tier)
{
    (void)tier;
    return 4711;
}

static bool never(const struct kvbi_tier *tier, uint32_t file)
{
    (void)tier, (void)file;
    return false;
}

static const char *note(const struct kvbi_tier *tier, uint32_t file)
{
    (void)tier;
    return file == 1 ? "made for a test" : "";
}

static int commit(struct kvbi_tier *tier, char *message, size_t message_bytes)
{
    (void)message, (void)message_bytes;
    faulty_of(tier)->committed++;
    return 0;
}

static uint32_t scan(struct kvbi_tier *tier, uint64_t *cursor, struct kvbi_found *found,
                     uint32_t max)
{
    (void)tier, (void)cursor, (void)found, (void)max;
    return 0;
}

static uint64_t dropped(const struct kvbi_tier *tier, uint32_t file)
{
    (void)tier, (void)file;
    return 0;
}

static void forget(struct kvbi_tier *tier, uint32_t slot)
{
    (void)tier, (void)slot;
}

static enum kvbi_answer answered(const struct kvbi_tier *tier, int result)
{
    (void)tier;
    return result == 0         ? KVBI_ANSWER_GOOD
           : result == KVB_EIO ? KVBI_ANSWER_BAD
                               : KVBI_ANSWER_SILENT;
}

static void retire(struct kvbi_tier *tier, uint32_t slot)
{
    faulty_of(tier)->retired_count++;
    faulty_of(tier)->last_retired = slot;
}

static int clear(struct kvbi_tier *tier, uint64_t clears)
{
    faulty_of(tier)->clears = clears;
    return 0;
}

static int renew(struct kvbi_tier *tier, uint32_t file)
{
    faulty_of(tier)->renewed[file]++;
    return 0;
}

static void close_clean(struct kvbi_tier *tier, const uint32_t *order, uint32_t count)
{
    (void)order;
    faulty_of(tier)->closed++;
    faulty_of(tier)->closed_order_count = count;
}

static const struct kvbi_lasting_ops lasting_ops = {.file_count = file_count,
                                                    .file_path = file_path,
                                                    .file_statistics = file_statistics,
                                                    .seed = seed,
                                                    .kept = never,
                                                    .stamped = never,
                                                    .note = note,
                                                    .commit = commit,
                                                    .scan = scan,
                                                    .dropped = dropped,
                                                    .forget = forget,
                                                    .answered = answered,
                                                    .retire = retire,
                                                    .clear = clear,
                                                    .renew = renew,
                                                    .close = close_clean};

/* ---- The kind -------------------------------------------------------------------------------- */

static bool is_never_meant(const struct kvb_tier_config *config)
{
    (void)config;
    return false;
}

static int check(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                 uint64_t block_bytes, char *message, size_t message_bytes)
{
    (void)layout, (void)block_bytes;
    return config->memory != NULL ? 0
                                  : kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                                     "memory is NULL, must be a script");
}

static int create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes)
{
    *tier = (struct kvbi_tier){.ops = &faulty_ops,
                               .tier = config->tier,
                               .block_count = config->block_count,
                               .block_bytes = purpose->block_bytes,
                               .owned = true,
                               .lasting = &lasting_ops,
                               .memory = memory,
                               .self = config->memory};
    tier->base = kvbi_memory_alloc(memory, config->block_count, (size_t)purpose->block_bytes, 4096);
    if (tier->base != NULL)
        return 0;
    *tier = (struct kvbi_tier){.ops = NULL};
    return kvbi_kind_refuse(message, message_bytes, KVB_ENOMEM, "no memory for a faulty tier");
}

const struct kvbi_kind kv_faulty_kind = {.name = "faulty",
                                         .is = is_never_meant,
                                         .check = check,
                                         .create = create,
                                         .below_memory = true};
