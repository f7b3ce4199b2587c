/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_stage - a manager with a host tier above a disk tier, and blocks that go down and come up
 * again
 *
 * Owns       the manager, its tier memory, the contents of the round.
 * Callers    bench_disk. One thread.
 * Invariants a round is offer, down, swap, up: new contents in every block of the host tier;
 *            offload of them all; then the host tier is emptied, so that they are on disk alone;
 *            onboard of them all into the empty blocks (a prefetch). Every block that comes up is
 *            compared with what went down, outside of what is measured.
 *            The disk tier is full and aged: contents lie in random slots of the file, and so do
 *            the ones evicted next; or, with `sequential`, one after the other.
 * Why        offload and onboard are measured apart, each from its first call until the manager is
 *            idle, with the manager's defaults but for the trigger.
 */
#ifndef BENCH_DISK_STAGE_H
#define BENCH_DISK_STAGE_H

#include <kvblock.h>
#include <stdbool.h>
#include <stdint.h>

#include "contents.h"

struct disk_stage {
    struct kvb_manager *manager;
    uint64_t block_bytes, memory_bytes;
    uint32_t host_count, disk_count;
    unsigned char *memory;
    struct contents contents;
    struct kvb_block **blocks;  /* of the host tier: sources of down, then targets of up */
    struct kvb_block **sources; /* of the disk tier */
    /*
     * by slot of the file: holds a content of this round, or of the one before until down is over
     */
    bool *in_use;
    bool sequential;
    char engine[192];
};

struct disk_stage_config {
    const char *path;
    uint64_t block_bytes;
    uint32_t host_count, disk_count;
    uint32_t progress;     /* enum kvb_progress */
    uint32_t disk_engine;  /* enum kvb_disk_engine */
    uint32_t batch, depth; /* 0: the defaults */
    bool sequential;       /* the slots of a round are neighbours, and used in order */
};

/*
 * The manager alone, over what its file holds, or over an empty one. Ends the program if it cannot
 * be had.
 */
struct kvb_manager *disk_manager_create(const struct disk_stage_config *config, void *memory,
                                        bool empty);

void disk_stage_create(struct disk_stage *stage, const struct disk_stage_config *config);
void disk_stage_destroy(struct disk_stage *stage);

void disk_stage_offer(struct disk_stage *stage);
uint64_t disk_stage_down(struct disk_stage *stage); /* ns */
/* after down: other contents, down again: what is there may be lost */
void disk_stage_repeat(struct disk_stage *stage);
void disk_stage_swap(struct disk_stage *stage);
uint64_t disk_stage_up(struct disk_stage *stage); /* ns */
void disk_stage_close_round(struct disk_stage *stage);

#endif
