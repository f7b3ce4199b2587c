/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_stage - a manager whose device tier is a server's tensors on a GPU, and sets of blocks that
 * go down and come up again
 *
 * Owns       the manager, the tensors (one allocation a layer), one or two sets of blocks.
 * Callers    bench_gpu's files. One thread.
 * Invariants the stage always holds every block of the device tier, in random order: each set has
 *            its share of them. Blocks of a set are adjacent neither on the device nor in host
 *            memory, but by chance.
 *            Every byte of a set is random and new each time; whatever arrives is compared byte by
 *            byte, outside of what is measured.
 * Why        a set goes: offer (written to the device and registered), start_down, clear_device
 *            (the device's copies are evicted), find (held in host memory), start_up (into the
 *            set's new blocks), take_ops, drop. Both directions at once take two sets.
 */
#ifndef BENCH_GPU_STAGE_H
#define BENCH_GPU_STAGE_H

#include <kvblock.h>
#include <stdbool.h>
#include <stdint.h>

#include "contents.h"
#include "gpu_bare.h"

#define GPU_STAGE_LAYERS_MAX 32u

struct gpu_stage_config {
    uint32_t layers, parts;
    uint64_t chunk_bytes;
    uint32_t set_blocks, sets; /* the tiers hold as many blocks as all sets together */
    uint32_t device, method;   /* of struct kvb_tier_config */
    uint32_t batch, depth;     /* 0: the defaults */
};

struct gpu_set {
    struct contents contents;
    struct kvb_block **blocks;  /* its share of the device: sources of down, then targets of up */
    struct kvb_block **sources; /* of the host tier, from find to drop */
    struct kvb_op **ops;
};

struct gpu_stage {
    struct gpu_stage_config config;
    struct gpu_bare *bare;
    struct kvb_manager *manager;
    uint64_t block_bytes, set_bytes, layer_bytes;
    uint32_t block_count;
    void *layer_memory[GPU_STAGE_LAYERS_MAX];
    struct kvb_block **blocks; /* all of the device's */
    struct gpu_set sets[2];
    char engine[192];
};

/*
 * Returns once all of the host tier is pinned; ends the program if that cannot be. `bare` has room
 * for the device tier.
 */
void gpu_stage_create(struct gpu_stage *stage, const struct gpu_stage_config *config,
                      struct gpu_bare *bare);
void gpu_stage_destroy(struct gpu_stage *stage); /* no set is found and not dropped */

/* New names, and new bytes if `fill`. */
void gpu_stage_offer(struct gpu_stage *stage, struct gpu_set *set, bool fill);
/* Both return at once; flush waits for all that was started. */
void gpu_stage_start_down(struct gpu_stage *stage, struct gpu_set *set);
void gpu_stage_start_up(struct gpu_stage *stage, struct gpu_set *set);
void gpu_stage_flush(struct gpu_stage *stage);
void gpu_stage_take_ops(struct gpu_stage *stage, struct gpu_set *set);

void gpu_stage_clear_device(struct gpu_stage *stage);
void gpu_stage_find(struct gpu_stage *stage, struct gpu_set *set);
void gpu_stage_drop(struct gpu_stage *stage, struct gpu_set *set);

/* What is not as it must be is the run's to say (gpu_run.h); the stage goes on. */
void gpu_stage_check_host(const struct gpu_stage *stage, const struct gpu_set *set);
/* The i-th block's bytes, chunk after chunk. */
void gpu_stage_check_bytes(const struct gpu_stage *stage, const struct gpu_set *set, uint32_t i,
                           unsigned char *bytes);
void gpu_stage_check_device(struct gpu_stage *stage, const struct gpu_set *set);

#endif
