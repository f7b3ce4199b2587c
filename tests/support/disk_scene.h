/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the disk tier through the public interface share: a manager over a file, I/O that
 * can be made to fail or to wait, the steps of a block's way down and up; and a main that runs each
 * test with each engine that works here, polled and with the manager's own thread.
 *
 *     struct disk_scene *scene = *state;        // TEST(disk_scene_opened, ...): DEVICE, HOST, DISK
 *     struct mv_run run;
 *     store_on_disk(scene, &run, seed, 10);     // a run that only the disk has
 *     assert_int_equal(fetch(scene, &run), 10); // up into DEVICE, every byte right
 *
 * With TEST(disk_scene, ...) nothing is open yet, and the test may change scene->rig.config, layout
 * and tiers before scene_open(scene). All lanes must come to rest in the end, and all that was
 * offered be accounted for.
 */
#ifndef KVB_TEST_DISK_SCENE_H
#define KVB_TEST_DISK_SCENE_H

#include "support/folder.h"
#include "support/move_test.h"
#include "support/test.h"
#include "transfer/disk/format.h"

#define DEVICE_BLOCKS 24
#define HOST_BLOCKS 24
#define DISK_BLOCKS 64
#define DISK_FILES 3
#define DISK_SCENE_FOLDER "kvb_disk" /* in folder_parent() */
#define ANY_SLOT UINT32_MAX

struct disk_variant {
    uint32_t engine, progress;
    const char *name;
};

/* What the engines are made to believe of their I/O. `copies` is first: hooks share one context. */
struct disk_io {
    struct mv_copies copies;
    _Atomic uint32_t reads, writes, count;
    _Atomic int read_errno, write_errno; /* 0: believe the system */
    _Atomic uint32_t slot;               /* of the reads that fail, or ANY_SLOT */
    _Atomic uint32_t path, path_count;   /* I/O fails on this path only; path_count 0: on all */
    _Atomic uint32_t fail_at;            /* the I/O of this number (from 1) fails; 0: none */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool held;        /* no I/O comes to its end */
    uint32_t waiting; /* of those */
};

struct disk_scene {
    struct kv_rig rig;
    struct disk_io io;
    const struct disk_variant *variant;
    char folder[FOLDER_BYTES];
    char path[FOLDER_BYTES + 16];
    char files[DISK_FILES][FOLDER_BYTES + 20];
    const char *paths[DISK_FILES]; /* of scene_stripe */
};

/* The initial state of the test is its variant. */
int disk_scene_setup(void **state);
int disk_scene_teardown(void **state);
int disk_scene_opened_setup(void **state);
int disk_scene_opened_teardown(void **state);
/* Not open, and need not come to rest: what is under way in the end is cut short. */
int disk_scene_cut_short_setup(void **state);
int disk_scene_cut_short_teardown(void **state);

/*
 * The tiers anew, each block offered further down as soon as it is registered; no HOST of 0 blocks.
 */
void scene_tiers(struct disk_scene *scene, uint32_t host_blocks, uint32_t disk_blocks);

/* One more tier below those that are there, in scene->path. */
void scene_add_disk(struct disk_scene *scene, uint32_t blocks);

/* The lowest one. */
struct kvb_tier_config *disk_config(struct disk_scene *scene);

/* The disk is in that file of the scene's folder, or in so many. */
void scene_file(struct disk_scene *scene, const char *name);
void scene_stripe(struct disk_scene *scene, uint32_t file_count);

void scene_open(struct disk_scene *scene);
/* scene_tiers, and open. */
void scene_open_with(struct disk_scene *scene, uint32_t host_blocks, uint32_t disk_blocks);

/* The scene ends well, its files with it, and begins anew: not open. */
void scene_again(struct disk_scene *scene);

/* Idle, and everything in order. */
void flush_and_check(struct disk_scene *scene);

/* ---- Input and output that does not end ------------------------------------------------------ */

/* Until it is let go nothing comes to its end. With the threads of the posix engine only. */
void hold_io(struct disk_scene *scene, bool held);
void wait_for_held_io(struct disk_scene *scene);

/* ---- Steps ----------------------------------------------------------------------------------- */

void evict_above(struct disk_scene *scene);

/* A run that only the disk has. */
void store_on_disk(struct disk_scene *scene, struct mv_run *run, uint64_t seed, uint32_t count);

/* `count` contents of one block each that only the disk has, stored one after the other. */
void store_each(struct disk_scene *scene, struct mv_run *runs, uint64_t seed, uint32_t count);

/*
 * Matches the run without looking at bytes, which a disk does not show. Held in run->blocks; how
 * many.
 */
uint32_t hold(struct disk_scene *scene, struct mv_run *run, struct kvb_hit hits[MV_RUN_MAX]);

uint32_t slot_on_disk(struct disk_scene *scene, struct mv_run *run, uint32_t index);

/* From now on that block of the run, which the disk alone has, cannot be read. Its slot. */
uint32_t make_unreadable(struct disk_scene *scene, struct mv_run *run, uint32_t index);

/*
 * Starts bringing the whole run up into `tier`. `free_since`: a fence on the targets; 0: none. The
 * sources are let go.
 */
struct kvb_op *bring_up(struct disk_scene *scene, struct mv_run *run, uint32_t tier,
                        struct mv_done *done, uint64_t free_since);

/* Waits for an op and gives its blocks back, whose bytes are right; how many were good. */
uint32_t finish(struct disk_scene *scene, struct mv_run *run, struct kvb_op *op);

/* Up into DEVICE, looked at, given back; how many blocks arrived. */
uint32_t fetch(struct disk_scene *scene, struct mv_run *run);

/* Whether one block of a run is found, wherever, without what is before it. */
bool is_found(struct disk_scene *scene, const struct mv_run *run, uint32_t index);

/* Of runs of one block each. */
uint32_t count_found(struct disk_scene *scene, const struct mv_run *runs, uint32_t count);

bool disk_lost(struct disk_scene *scene);

/* ---- Running --------------------------------------------------------------------------------- */

/*
 * `each` with every variant that works here, `once` with the threads of the posix engine. The
 * program's exit status.
 */
int run_disk_tests(const struct CMUnitTest *each, size_t each_count, const struct CMUnitTest *once,
                   size_t once_count);

/* `polled` with every variant that works here and is polled, `threaded` with the others. */
int run_disk_tests_by_progress(const struct CMUnitTest *polled, size_t polled_count,
                               const struct CMUnitTest *threaded, size_t threaded_count);

#endif
