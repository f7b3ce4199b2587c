/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes are checked here, before the first request, so that a replay that cannot work is refused by
 * the name of an option instead of failing in the middle.
 */
#include "setup.h"

#include "device.h"
#include "options.h"
#include "payload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * What the lane out of the device tier may pin there at once: on-deck handles and batches with the
 * engine.
 */
struct lane_bounds {
    uint32_t ondeck_capacity, batch, depth;
};

#define LANE_PINS_LEAST 2 /* one on deck, one in transfer */

static uint32_t lane_pins(const struct lane_bounds *bounds)
{
    return bounds->ondeck_capacity + bounds->batch * bounds->depth;
}

/* The library's usual sizes where `spare` blocks allow, else as much as fits into them. */
static struct lane_bounds bounds_within(uint64_t spare)
{
    struct lane_bounds bounds = {.ondeck_capacity = 64, .batch = 32, .depth = 2};
    if (spare >= lane_pins(&bounds))
        return bounds;
    if (spare < 4)
        return (struct lane_bounds){.ondeck_capacity = 1, .batch = 1, .depth = 1};
    bounds.batch = (uint32_t)spare / 4;
    bounds.ondeck_capacity = (uint32_t)spare - 2 * bounds.batch;
    return bounds;
}

static int check_room(const struct options *options, uint32_t longest, char *error,
                      size_t error_bytes)
{
    uint64_t needed = longest;
    if (options->host_blocks || options->disk_blocks)
        needed += LANE_PINS_LEAST;
    if (options->device_blocks >= needed)
        return 0;
    int used = snprintf(error, error_bytes,
                        "--device-blocks: %" PRIu64 " is too few: the longest request has %" PRIu32
                        " blocks",
                        options->device_blocks, longest);
    if (needed > longest && used > 0 && (size_t)used < error_bytes)
        snprintf(error + used, error_bytes - (size_t)used,
                 " and the lane to the next tier pins %d more at least (%" PRIu64 " in all)",
                 LANE_PINS_LEAST, needed);
    return -1;
}

static int check_memory(const struct options *options, char *error, size_t error_bytes)
{
    uint64_t blocks = options->device_blocks + options->host_blocks;
    if (blocks + options->disk_blocks >= UINT32_MAX) {
        snprintf(error, error_bytes,
                 "--device-blocks, --host-blocks, --disk-blocks: %" PRIu64
                 " blocks are 2^32 - 1 or more",
                 blocks + options->disk_blocks);
        return -1;
    }
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = blocks * options->block_bytes; /* below 2^64: both factors are below 2^32 */
    uint64_t present =
        pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : UINT64_MAX;
    if (bytes < present)
        return 0;
    snprintf(error, error_bytes,
             "--device-blocks, --host-blocks, --block-bytes: %" PRIu64 " blocks of %" PRIu64
             " bytes need %" PRIu64 " MiB, this machine has %" PRIu64 " MiB",
             blocks, options->block_bytes, bytes >> 20, present >> 20);
    return -1;
}

/*
 * What the library has to say beyond its codes. The replay provokes none of it, so it goes to the
 * person as it is.
 */
static void print_message(void *context, int level, int code, const char *message)
{
    (void)context;
    if (level <= KVB_LOG_WARN)
        fprintf(stderr, "kvblock: %s (%s)\n", message, kvb_error_name(code));
}

/*
 * Servers bring the memory of their tiers along, mapped and pinned before they serve. So does the
 * replay, or the lanes' figures would be those of the kernel handing out pages.
 */
static void *tier_memory(uint64_t block_count, uint64_t block_bytes)
{
    size_t alignment = (size_t)2 << 20; /* of a huge page */
    size_t bytes = (size_t)(block_count * block_bytes);
    bytes = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, bytes);
    if (!memory)
        return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 0, bytes);
    return memory;
}

/*
 * A seed of the run's own makes it repeatable. One that resumes takes that of the files: their
 * names were made with it.
 */
static uint64_t digest_seed(const struct options *options)
{
    if (options->resume)
        return 0;
    return options->seed + 1 ? options->seed + 1 : 1;
}

static int create(struct setup *setup, const struct options *options,
                  const struct lane_bounds *bounds, struct kvb_diagnosis *diagnosis)
{
    struct kvb_layout layout = {.size = sizeof layout,
                                .layers = REPLAY_LAYERS,
                                .parts = REPLAY_PARTS,
                                .chunk_bytes =
                                    options->block_bytes / (REPLAY_LAYERS * REPLAY_PARTS)};
    const struct kvb_tier_config device = {
        .size = sizeof device,
        .tier = KVB_TIER_DEVICE,
        .block_count = (uint32_t)options->device_blocks,
        .trigger = options->trigger,
        .ondeck_capacity = bounds->ondeck_capacity,
        .batch = bounds->batch,
        .depth = bounds->depth,
        .memory = setup->memory[KVB_TIER_DEVICE],
        .memory_bytes = options->device_memory ? 0 : options->device_blocks * options->block_bytes,
        .memory_kind = options->device_memory ? KVB_MEMORY_CUDA : KVB_MEMORY_HOST};
    const struct kvb_tier_config host = {.size = sizeof host,
                                         .tier = KVB_TIER_HOST,
                                         .block_count = (uint32_t)options->host_blocks,
                                         .memory = setup->memory[KVB_TIER_HOST],
                                         .memory_bytes =
                                             options->host_blocks * options->block_bytes};
    const struct kvb_tier_config disk = {.size = sizeof disk,
                                         .tier = KVB_TIER_DISK,
                                         .block_count = (uint32_t)options->disk_blocks,
                                         .disk_flags = options->resume ? 0 : KVB_DISK_START_EMPTY,
                                         .paths = options->disk.list,
                                         .path_count = options->disk.count};
    struct kvb_tier_config tiers[3] = {device};
    uint32_t tier_count = 1;
    if (options->host_blocks)
        tiers[tier_count++] = host;
    if (options->disk_blocks)
        tiers[tier_count++] = disk;
    /*
     * SHARE: a block computed twice counts as a use of the one that is there, as an LRU over
     * contents would have it.
     */
    struct kvb_config config = {
        .size = sizeof config,
        .tokens_per_block = REPLAY_TOKENS_PER_BLOCK,
        .layout = &layout,
        .tiers = tiers,
        .tier_count = tier_count,
        .progress = options->progress,
        .duplicate = KVB_DUPLICATE_SHARE,
        .policy = options->policy,
        .digest_seed = digest_seed(options),
        .model = "kvb_replay, bytes of generation 1: all from the block's id (payload.c)",
        .logger = {.log = print_message}};
    return kvb_manager_create(&config, &setup->manager, diagnosis);
}

/* The library begins with the path where a file is to blame. */
static int names_a_path(const struct options *options, const char *message)
{
    for (uint32_t i = 0; i < options->disk.count; i++)
        if (strncmp(message, options->disk.list[i], strlen(options->disk.list[i])) == 0)
            return 1;
    return 0;
}

static void free_memory(struct setup *setup)
{
    free(setup->memory[KVB_TIER_DEVICE]);
    free(setup->memory[KVB_TIER_HOST]);
}

int setup_open(struct setup *setup, const struct options *options, uint32_t longest, char *error,
               size_t error_bytes)
{
    if (check_room(options, longest, error, error_bytes) ||
        check_memory(options, error, error_bytes))
        return 2;
    struct lane_bounds bounds = bounds_within(options->device_blocks - longest);
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    *setup = (struct setup){.manager = NULL};
    size_t chunk_bytes = (size_t)options->block_bytes / (REPLAY_LAYERS * REPLAY_PARTS);
    if (device_open(options->device_memory != NULL, chunk_bytes)) {
        snprintf(error, error_bytes, "--device-memory: '%s' does not work here",
                 options->device_memory);
        (void)device_close();
        return 2;
    }
    if (!options->device_memory)
        setup->memory[KVB_TIER_DEVICE] = tier_memory(options->device_blocks, options->block_bytes);
    if (options->host_blocks)
        setup->memory[KVB_TIER_HOST] = tier_memory(options->host_blocks, options->block_bytes);
    int status = KVB_ENOMEM;
    if ((options->device_memory || setup->memory[KVB_TIER_DEVICE]) &&
        (!options->host_blocks || setup->memory[KVB_TIER_HOST]))
        status = create(setup, options, &bounds, &diagnosis);
    if (!status)
        return 0;
    free_memory(setup);
    (void)device_close();
    if (names_a_path(options, diagnosis.message))
        snprintf(error, error_bytes, "--disk: %s%s", diagnosis.message,
                 status == KVB_EMISMATCH && options->resume
                     ? " (--resume goes with the --block-bytes of the run that made it)"
                     : "");
    else if (status == KVB_EUNSUPPORTED && options->policy)
        snprintf(error, error_bytes, "--policy: '%s': %s", options->policy, diagnosis.message);
    else
        snprintf(error, error_bytes, "no manager: %s: %s", kvb_strerror(status), diagnosis.message);
    return status == KVB_ENOMEM || status == KVB_EIO ? 1 : 2;
}

int setup_close(struct setup *setup)
{
    int status = kvb_manager_destroy(setup->manager);
    if (!status)
        free_memory(setup);
    if (!status && device_close())
        status = KVB_EDEVICE;
    return status;
}
