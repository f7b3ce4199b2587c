/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the disk tier through the public interface share: a manager over a file, I/O that can be made to fail or to
 * wait, the steps of a block's way down and up; and a main that runs each test with each engine that works here, polled and
 * with the manager's own thread.
 *
 *     struct scene *scene = scene_begin(state);          // DEVICE, HOST and DISK, write-through
 *     struct mv_run run;
 *     store_on_disk(scene, &run, seed, 10);              // a run that only the disk has
 *     assert_int_equal(fetch(scene, &run), 10);          // up into DEVICE, every byte right
 *     scene_end(scene);
 */
#ifndef KVB_TEST_DISK_SCENE_H
#define KVB_TEST_DISK_SCENE_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "support/leftovers.h"
#include "support/move_test.h"

#include "transfer/disk/format.h"

#define DEVICE_BLOCKS 24
#define HOST_BLOCKS 24
#define DISK_BLOCKS 64
#define ANY_SLOT UINT32_MAX

static char folder[64];

struct variant {
    uint32_t engine, progress;
    const char *name;
};

static const struct variant variants[] = {
    {KVB_DISK_ENGINE_URING, KVB_PROGRESS_POLL, "uring, polled"},
    {KVB_DISK_ENGINE_URING, KVB_PROGRESS_THREAD, "uring, own thread"},
    {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_POLL, "posix, polled"},
    {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_THREAD, "posix, own thread"},
};
#define VARIANTS (sizeof variants / sizeof *variants)
#define POSIX_THREADS                                                                              \
    3 /* its index: the only one whose I/O a test may hold up without holding up progress */

/* ---- Faults ------------------------------------------------------------------------------------------------------- */

/* What the engines are made to believe of their I/O. `copies` is first: both hooks share one context. */
struct io {
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

static inline void wait_while_held(struct io *io)
{
    pthread_mutex_lock(&io->mutex);
    io->waiting++;
    pthread_cond_broadcast(&io->changed);
    while (io->held)
        pthread_cond_wait(&io->changed, &io->mutex);
    io->waiting--;
    pthread_mutex_unlock(&io->mutex);
}

static inline int io_fault(void *context, bool write, uint32_t slot, int64_t *result)
{
    struct io *io = context;
    uint32_t number = atomic_fetch_add(&io->count, 1) + 1;
    int error = atomic_load(write ? &io->write_errno : &io->read_errno);
    uint32_t only = atomic_load(&io->slot), path_count = atomic_load(&io->path_count);
    atomic_fetch_add(write ? &io->writes : &io->reads, 1);
    wait_while_held(io);
    if (error == 0 && number == atomic_load(&io->fail_at))
        error = EIO;
    else if (!write && only != ANY_SLOT && only != slot)
        error = 0;
    if (path_count > 0 && slot % path_count != atomic_load(&io->path))
        error = 0;
    if (error != 0)
        *result = -error;
    return error != 0;
}

static inline void hold_io(struct io *io, bool held)
{
    pthread_mutex_lock(&io->mutex);
    io->held = held;
    pthread_cond_broadcast(&io->changed);
    pthread_mutex_unlock(&io->mutex);
}

static inline void wait_for_held_io(struct io *io)
{
    pthread_mutex_lock(&io->mutex);
    while (io->waiting == 0)
        pthread_cond_wait(&io->changed, &io->mutex);
    pthread_mutex_unlock(&io->mutex);
}

/* ---- The scene ---------------------------------------------------------------------------------------------------- */

struct scene {
    struct kv_rig rig;
    struct io io;
    const struct variant *variant;
    char path[128];
};

static inline void path_of(char path[128], const char *name)
{
    (void)snprintf(path, 128, "%s/%s", folder, name);
}

static inline struct kvb_tier_config *add_disk(struct scene *scene, uint32_t blocks)
{
    struct kvb_tier_config *disk =
        kv_rig_add_tier(&scene->rig, KVB_TIER_DISK, blocks, KVB_OFFLOAD_DEFAULT);
    disk->path = scene->path;
    disk->disk_engine = scene->variant->engine;
    return disk;
}

/* Not opened yet: the test may still change rig.config, tiers and layout. Without HOST if host_blocks is 0. */
static inline struct scene *scene_new(const struct variant *variant, uint32_t host_blocks,
                                      uint32_t disk_blocks)
{
    static unsigned opened;
    char name[16];
    struct scene *scene = calloc(1, sizeof *scene);
    assert_non_null(scene);
    scene->variant = variant;
    /* A test that fails leaves its file open; the next one is not to stumble over it. */
    (void)snprintf(name, sizeof name, "disk%u", opened++);
    path_of(scene->path, name);
    scene->io.slot = ANY_SLOT;
    pthread_mutex_init(&scene->io.mutex, NULL);
    pthread_cond_init(&scene->io.changed, NULL);
    kv_rig_init(&scene->rig);
    kv_rig_no_tiers(&scene->rig);
    scene->rig.config.progress = variant->progress;
    kv_rig_add_tier(&scene->rig, KVB_TIER_DEVICE, DEVICE_BLOCKS, KVB_OFFLOAD_ON_REGISTER);
    if (host_blocks > 0)
        kv_rig_add_tier(&scene->rig, KVB_TIER_HOST, host_blocks, KVB_OFFLOAD_ON_REGISTER);
    add_disk(scene, disk_blocks);
    scene->io.copies.hooks = (struct kvbi_hooks){
        .copy_fault = mv_copy_fault, .io_fault = io_fault, .context = &scene->io};
    return scene;
}

static inline void scene_open(struct scene *scene)
{
    kv_rig_open_hooked(&scene->rig, &scene->io.copies.hooks);
}

/* DEVICE, HOST and DISK, each block offered further down as soon as it is registered. */
static inline struct scene *scene_begin(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    scene_open(scene);
    return scene;
}

static inline void scene_free(struct scene *scene)
{
    (void)unlink(scene->path);
    pthread_cond_destroy(&scene->io.changed);
    pthread_mutex_destroy(&scene->io.mutex);
    free(scene);
}

/* Idle, and everything in order. */
static inline void settle(struct scene *scene)
{
    kv_settle(&scene->rig);
    kv_check(&scene->rig);
    mv_expect_books(&scene->rig, true);
}

static inline void scene_end(struct scene *scene)
{
    settle(scene);
    kv_rig_close(&scene->rig);
    scene_free(scene);
}

/* ---- Steps -------------------------------------------------------------------------------------------------------- */

static inline bool has_host(const struct scene *scene)
{
    return scene->rig.config.tier_count == 3;
}

static inline void evict_above(struct scene *scene)
{
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    if (has_host(scene))
        mv_evict_all(&scene->rig, KVB_TIER_HOST);
    settle(scene);
}

/* A run that only the disk has. */
static inline void store_on_disk(struct scene *scene, struct mv_run *run, uint64_t seed,
                                 uint32_t count)
{
    mv_park(&scene->rig, run, KVB_TIER_DEVICE, seed, count);
    settle(scene);
    evict_above(scene);
    assert_int_equal(mv_in_tier(&scene->rig, run, KVB_TIER_DISK), count);
}

/* Matches the run without looking at bytes, which a disk does not show. Held in run->blocks; how many. */
static inline uint32_t hold(struct scene *scene, struct mv_run *run,
                            struct kvb_hit hits[MV_RUN_MAX])
{
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    size_t count = 0;
    memset(run->blocks, 0, sizeof run->blocks);
    kv_ok(kvb_match(scene->rig.kv, &query, hits, MV_RUN_MAX, &count));
    for (size_t i = 0; i < count; i++)
        run->blocks[i] = hits[i].block;
    kv_check(&scene->rig);
    return (uint32_t)count;
}

static inline uint32_t slot_on_disk(struct scene *scene, struct mv_run *run, uint32_t index)
{
    struct kvb_hit hits[MV_RUN_MAX];
    assert_int_equal(hold(scene, run, hits), run->count);
    assert_int_equal(hits[index].tier, KVB_TIER_DISK);
    mv_drop(&scene->rig, run);
    return hits[index].slot;
}

/* Starts bringing the whole run up into `tier`. `free_since`: a fence on the targets; 0: none. The sources are let go. */
static inline struct kvb_op *bring_up(struct scene *scene, struct mv_run *run, uint32_t tier,
                                      struct mv_done *done, uint64_t free_since)
{
    struct kvb_hit hits[MV_RUN_MAX];
    struct kvb_block *targets[MV_RUN_MAX];
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = free_since};
    struct kvb_op *op = NULL;
    assert_int_equal(hold(scene, run, hits), run->count);
    kv_ok(kvb_alloc(scene->rig.kv, tier, run->count, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    request.fence = free_since == 0 ? NULL : &fence;
    kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
    kv_check(&scene->rig);
    mv_drop(&scene->rig, run);
    return op;
}

/* Waits for an op and gives its blocks back, whose bytes are right; how many were good. */
static inline uint32_t finish(struct scene *scene, struct mv_run *run, struct kvb_op *op)
{
    kv_ok(kvb_op_wait(scene->rig.kv, op, KVB_FOREVER));
    uint32_t good = mv_take(&scene->rig, run, op);
    mv_drop_taken(&scene->rig, run);
    return good;
}

/* Up into DEVICE, looked at, given back; how many blocks arrived. */
static inline uint32_t fetch(struct scene *scene, struct mv_run *run)
{
    struct mv_done done;
    uint32_t good = finish(scene, run, bring_up(scene, run, KVB_TIER_DEVICE, &done, 0));
    settle(scene);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, good);
    return good;
}

/* Whether one block of a run is found, wherever, without what is before it. */
static inline bool is_found(struct scene *scene, const struct mv_run *run, uint32_t index)
{
    struct kvb_query query = {.size = sizeof query, .keys = &run->seqs[index], .key_count = 1};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_ok(kvb_lookup(scene->rig.kv, &query, tiers));
    return tiers[0] + tiers[1] + tiers[2] + tiers[3] == 1;
}

static inline bool disk_lost(struct scene *scene)
{
    return kv_stats(&scene->rig).tiers[KVB_TIER_DISK].out_of_service == 1;
}

/* ---- Running ------------------------------------------------------------------------------------------------------ */

struct disk_test {
    const char *name;
    CMUnitTestFunction function;
};
#define DISK_TEST(name)                                                                            \
    {                                                                                              \
#name, name                                                                                \
    }
#define DISK_TESTS_MAX 64

/* False, and why, where this machine refuses the engine. */
static inline bool works_here(const struct variant *variant)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = 4096};
    char path[128];
    path_of(path, "probe");
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers, .tier = KVB_TIER_DEVICE, .block_count = 1},
        {.size = sizeof *tiers,
         .tier = KVB_TIER_DISK,
         .block_count = 1,
         .path = path,
         .disk_engine = variant->engine}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = 1,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2,
                                .progress = variant->progress};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    int code = kvb_manager_create(&config, &manager, &diagnosis);
    if (kvb_manager_destroy(manager) != 0)
        return true;
    (void)unlink(path);
    if (code == KVB_EUNSUPPORTED)
        (void)fprintf(stderr, "left out: %s: %s\n", variant->name, diagnosis.message);
    return code != KVB_EUNSUPPORTED; /* other failures are for the tests to show */
}

/* With one variant. How many failed. */
static inline int run_with(const struct variant *variant, const struct disk_test *tests,
                           size_t count)
{
    static struct CMUnitTest list[DISK_TESTS_MAX];
    static char names[DISK_TESTS_MAX][128];
    for (size_t i = 0; i < DISK_TESTS_MAX; i++)
        list[i] = (struct CMUnitTest){0}; /* CMocka leaves out what has no function */
    for (size_t i = 0; i < count && i < DISK_TESTS_MAX; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s (%s)", tests[i].name, variant->name);
        list[i] = (struct CMUnitTest){.name = names[i],
                                      .test_func = tests[i].function,
                                      .initial_state = (void *)(uintptr_t)variant};
    }
    return cmocka_run_group_tests_name(variant->name, list, NULL, NULL);
}

/* False, and why, if there is no room for files. */
static inline bool make_folder(void)
{
    static char *const command[] = {"/bin/rm", "-rf", folder, NULL};
    const char *parent = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%s/kvb_disk_XXXXXX",
                   parent != NULL && strlen(parent) < 32 ? parent : "/tmp");
    if (mkdtemp(folder) != NULL)
        return leftovers_at_end(command);
    perror(folder);
    return false;
}

/* `each` with every variant that works here, `once` with the threads of the posix engine. The program's exit status. */
static inline int run_disk_tests(const struct disk_test *each, size_t each_count,
                                 const struct disk_test *once, size_t once_count)
{
    int failed = 0;
    if (!make_folder())
        return 1;
    for (size_t v = 0; each_count > 0 && v < VARIANTS; v++)
        if (works_here(&variants[v]))
            failed += run_with(&variants[v], each, each_count);
    if (once_count > 0)
        failed += run_with(&variants[POSIX_THREADS], once, once_count);
    (void)rmdir(folder);
    return failed;
}

/* `polled` with every variant that works here and is polled, `threaded` with the others. The program's exit status. */
static inline int run_disk_tests_by_progress(const struct disk_test *polled, size_t polled_count,
                                             const struct disk_test *threaded,
                                             size_t threaded_count)
{
    int failed = 0;
    if (!make_folder())
        return 1;
    for (size_t v = 0; v < VARIANTS; v++) {
        bool is_polled = variants[v].progress == KVB_PROGRESS_POLL;
        if ((is_polled ? polled_count : threaded_count) > 0 && works_here(&variants[v]))
            failed += run_with(&variants[v], is_polled ? polled : threaded,
                               is_polled ? polled_count : threaded_count);
    }
    (void)rmdir(folder);
    return failed;
}

#endif
