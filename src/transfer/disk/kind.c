/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/kind - a tier in files, as the rest of the library knows it: the operations of
 * transfer/tier.h
 *
 * Callers    transfer/kinds lists it. Lock: none; tier.h says what may be called when.
 */
#include <stdio.h>
#include <string.h>

#include "transfer/disk/engine.h"
#include "transfer/disk/tier.h"

/*
 * A lane to a file has twice as much with the engine as the engine has with the device: while what
 * has come back together is verified and applied, the device works on the rest. At 64 KiB that is
 * 0.86 against 0.96 of a bare ring (docs/performance.md).
 */
#define LANE_DEPTH 4

/* ---- Operations ------------------------------------------------------------------------------ */

static void destroy(struct kvbi_tier *tier)
{
    kvbi_disk_close(tier->self);
}

static int create_engine(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                         const struct kvbi_engines_config *config, char *said)
{
    const struct kvbi_tier *memories[KVB_TIER_COUNT + 1];
    struct kvbi_disk_engine_config disk = {
        .engine = (enum kvbi_disk_engine)config->configs[tier->tier].disk_engine,
        .disk = tier->self,
        .memories = memories,
        .capacity = config->capacity,
        .single_issuer = config->own_thread,
        .edge_triggered = config->own_thread && config->between == NULL,
        .poll = !config->own_thread,
        .lines = config->lines,
        .hooks = config->hooks};
    for (uint32_t i = 0; i < KVB_TIER_COUNT; i++)
        if (config->tiers[i].on_host)
            memories[disk.memory_count++] = &config->tiers[i];
    if (config->between != NULL)
        memories[disk.memory_count++] = config->between;
    return kvbi_disk_engine_create(engine, config->memory, config->clock, &disk, said,
                                   KVBI_ENGINE_SAID_BYTES);
}

static const char *apart(const struct kvbi_tier *tier)
{
    (void)tier;
    return "which is kept in a file and has no memory";
}

static size_t bytes(const struct kvbi_tier *tier)
{
    return kvbi_disk_bytes(tier->self);
}

const struct kvbi_tier_ops kvbi_disk_ops = {.kind = "disk",
                                            .destroy = destroy,
                                            .create_engine = create_engine,
                                            .chunk = kvbi_tier_no_chunk,
                                            .apart = apart,
                                            .bytes = bytes,
                                            .statistics = kvbi_tier_no_statistics,
                                            .lost = kvbi_tier_never_lost,
                                            .register_memory = kvbi_tier_registers_nothing};

/* ---- What outlives the process --------------------------------------------------------------- */

static const struct kvbi_disk_file *file_at(const struct kvbi_tier *tier, uint32_t file)
{
    const struct kvbi_disk *disk = tier->self;
    return &disk->files[file];
}

static uint32_t file_count(const struct kvbi_tier *tier)
{
    const struct kvbi_disk *disk = tier->self;
    return disk->file_count;
}

static const char *file_path(const struct kvbi_tier *tier, uint32_t file)
{
    return file_at(tier, file)->path;
}

static uint64_t counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void file_statistics(const struct kvbi_tier *tier, uint32_t number,
                            struct kvb_disk_stats *stats)
{
    const struct kvbi_disk *disk = tier->self;
    const struct kvbi_disk_file *file = file_at(tier, number);
    stats->path_count = disk->file_count;
    stats->epoch = counted(&file->epoch_base) + counted(&disk->clears);
    stats->read_errors_io = counted(&file->read_errors[KVBI_DISK_CAUSE_IO]);
    stats->read_errors_short = counted(&file->read_errors[KVBI_DISK_CAUSE_SHORT]);
    stats->read_errors_identity = counted(&file->read_errors[KVBI_DISK_CAUSE_IDENTITY]);
    stats->read_errors_checksum = counted(&file->read_errors[KVBI_DISK_CAUSE_CHECKSUM]);
    stats->write_errors = counted(&file->write_errors);
    stats->bytes_written = counted(&file->bytes_written);
    stats->bytes_read = counted(&file->bytes_read);
}

static uint64_t seed(const struct kvbi_tier *tier)
{
    const struct kvbi_disk *disk = tier->self;
    return disk->digest_seed;
}

static bool kept(const struct kvbi_tier *tier, uint32_t file)
{
    return file_at(tier, file)->kept;
}

static bool stamped(const struct kvbi_tier *tier, uint32_t file)
{
    return file_at(tier, file)->stamped;
}

static const char *note(const struct kvbi_tier *tier, uint32_t file)
{
    return file_at(tier, file)->note;
}

static int commit(struct kvbi_tier *tier, char *message, size_t message_bytes)
{
    return kvbi_disk_commit(tier->self, message, message_bytes);
}

static uint32_t scan(struct kvbi_tier *tier, uint64_t *cursor, struct kvbi_found *found,
                     uint32_t max)
{
    return kvbi_disk_scan(tier->self, cursor, found, max);
}

static uint64_t dropped(const struct kvbi_tier *tier, uint32_t file)
{
    return file_at(tier, file)->dropped;
}

static void forget(struct kvbi_tier *tier, uint32_t slot)
{
    kvbi_disk_forget(tier->self, slot);
}

/*
 * Content that fails verification (KVB_ECORRUPT) is neither an error nor a success of the file: a
 * kill tears what it finds under way, side by side. Nor is KVB_EDEVICE: a GPU has failed to take or
 * give the bytes.
 */
static enum kvbi_answer answered(const struct kvbi_tier *tier, int result)
{
    (void)tier;
    if (result == 0)
        return KVBI_ANSWER_GOOD;
    return result == KVB_ECORRUPT || result == KVB_ECANCELED || result == KVB_EDEVICE
               ? KVBI_ANSWER_SILENT
               : KVBI_ANSWER_BAD;
}

static void retire(struct kvbi_tier *tier, uint32_t slot)
{
    kvbi_disk_retire(tier->self, slot);
}

static int clear(struct kvbi_tier *tier, uint64_t clears)
{
    return kvbi_disk_clear(tier->self, clears);
}

static int renew(struct kvbi_tier *tier, uint32_t file)
{
    return kvbi_disk_renew(tier->self, file);
}

static void close_clean(struct kvbi_tier *tier, const uint32_t *order, uint32_t count)
{
    kvbi_disk_close_clean(tier->self, order, count);
}

const struct kvbi_lasting_ops kvbi_disk_lasting_ops = {.file_count = file_count,
                                                       .file_path = file_path,
                                                       .file_statistics = file_statistics,
                                                       .seed = seed,
                                                       .kept = kept,
                                                       .stamped = stamped,
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

static bool is_disk(const struct kvb_tier_config *config)
{
    return config->memory_kind == KVB_MEMORY_HOST &&
           (config->path != NULL || config->path_count > 0);
}

static int check(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                 uint64_t block_bytes, char *message, size_t message_bytes)
{
    const char *field = config->path != NULL ? "path" : "paths";
    (void)layout, (void)block_bytes;
    int error = kvbi_kind_without_device(config, message, message_bytes);
    if (error != 0)
        return error;
    if (config->tier != KVB_TIER_DISK)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "%s is given, only DISK is kept in files", field);
    if (config->memory != NULL)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "%s and memory are given, must be one of them", field);
    if (config->memory_bytes != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory_bytes is %llu without memory, must be 0",
                                (unsigned long long)config->memory_bytes);
    return 0;
}

static int create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes)
{
    const char *model = purpose->model != NULL ? purpose->model : "";
    struct kvbi_hash128 fingerprint = purpose->hash->hash128(model, strlen(model), 0);
    struct kvbi_disk_config disk = {.paths = config->paths,
                                    .path_count = config->path_count,
                                    .block_count = config->block_count,
                                    .purpose = {.block_bytes = purpose->block_bytes,
                                                .layers = purpose->layout->layers,
                                                .parts = purpose->layout->parts,
                                                .chunk_bytes = purpose->layout->chunk_bytes,
                                                .tokens_per_block = purpose->tokens_per_block,
                                                .key_bytes = purpose->key_bytes,
                                                .digest_seed = purpose->digest_seed,
                                                .fingerprint = {fingerprint.low, fingerprint.high}},
                                    .flags = config->disk_flags,
                                    .hash = purpose->hash};
    return kvbi_tier_disk_create(tier, memory, config->tier, &disk, message, message_bytes);
}

const struct kvbi_kind kvbi_kind_disk = {.name = "disk",
                                         .is = is_disk,
                                         .check = check,
                                         .create = create,
                                         .lane_depth = LANE_DEPTH,
                                         .below_memory = true};
