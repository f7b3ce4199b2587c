/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_scene.h"

#include <errno.h>
#include <unistd.h>

#include "support/give_up.h"
#include "support/variants.h"

#define LAST_FENCE UINT32_MAX /* higher than any that a test waits for */

static const struct disk_variant variants[] = {
    {KVB_DISK_ENGINE_URING, KVB_PROGRESS_POLL, "uring, polled"},
    {KVB_DISK_ENGINE_URING, KVB_PROGRESS_THREAD, "uring, own thread"},
    {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_POLL, "posix, polled"},
    {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_THREAD, "posix, own thread"},
};
#define VARIANTS (sizeof variants / sizeof *variants)
/* The only one whose I/O a test may hold up without holding up progress. */
#define POSIX_THREADS 3

/* ---- Faults ---------------------------------------------------------------------------------- */

static void wait_while_held(struct disk_io *io)
{
    pthread_mutex_lock(&io->mutex);
    io->waiting++;
    pthread_cond_broadcast(&io->changed);
    while (io->held)
        pthread_cond_wait(&io->changed, &io->mutex);
    io->waiting--;
    pthread_mutex_unlock(&io->mutex);
}

static int io_fault(void *context, bool write, uint32_t slot, int64_t *result)
{
    struct disk_io *io = context;
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

void hold_io(struct disk_scene *scene, bool held)
{
    struct disk_io *io = &scene->io;
    pthread_mutex_lock(&io->mutex);
    io->held = held;
    pthread_cond_broadcast(&io->changed);
    pthread_mutex_unlock(&io->mutex);
}

void wait_for_held_io(struct disk_scene *scene)
{
    struct disk_io *io = &scene->io;
    pthread_mutex_lock(&io->mutex);
    while (io->waiting == 0)
        pthread_cond_wait(&io->changed, &io->mutex);
    pthread_mutex_unlock(&io->mutex);
}

/* ---- The scene ------------------------------------------------------------------------------- */

void scene_add_disk(struct disk_scene *scene, uint32_t blocks)
{
    kv_rig_add_tier(&scene->rig, KVB_TIER_DISK, blocks, KVB_OFFLOAD_DEFAULT);
    disk_config(scene)->path = scene->path;
    disk_config(scene)->disk_engine = scene->variant->engine;
}

void scene_tiers(struct disk_scene *scene, uint32_t host_blocks, uint32_t disk_blocks)
{
    kv_rig_no_tiers(&scene->rig);
    kv_rig_add_tier(&scene->rig, KVB_TIER_DEVICE, DEVICE_BLOCKS, KVB_OFFLOAD_ON_REGISTER);
    if (host_blocks > 0)
        kv_rig_add_tier(&scene->rig, KVB_TIER_HOST, host_blocks, KVB_OFFLOAD_ON_REGISTER);
    scene_add_disk(scene, disk_blocks);
}

struct kvb_tier_config *disk_config(struct disk_scene *scene)
{
    return &scene->rig.tiers[scene->rig.config.tier_count - 1];
}

void scene_file(struct disk_scene *scene, const char *name)
{
    (void)snprintf(scene->path, sizeof scene->path, "%s/%s", scene->folder, name);
}

void scene_stripe(struct disk_scene *scene, uint32_t file_count)
{
    struct kvb_tier_config *disk = disk_config(scene);
    for (uint32_t i = 0; i < DISK_FILES; i++) {
        (void)snprintf(scene->files[i], sizeof scene->files[i], "%s.%u", scene->path, i);
        scene->paths[i] = scene->files[i];
    }
    disk->path = NULL;
    disk->paths = scene->paths;
    disk->path_count = file_count;
}

void scene_open(struct disk_scene *scene)
{
    assert_null(scene->rig.kv);
    kv_rig_open_hooked(&scene->rig, &scene->io.copies.hooks);
}

void scene_open_with(struct disk_scene *scene, uint32_t host_blocks, uint32_t disk_blocks)
{
    scene_tiers(scene, host_blocks, disk_blocks);
    scene_open(scene);
}

/* False: it cannot be made, and all is as before. */
static bool begin(struct disk_scene *scene, const struct disk_variant *variant)
{
    memset(scene, 0, sizeof *scene);
    scene->variant = variant;
    scene->io.slot = ANY_SLOT;
    if (!folder_make(scene->folder, folder_parent(), DISK_SCENE_FOLDER))
        return false;
    scene_file(scene, "blocks");
    pthread_mutex_init(&scene->io.mutex, NULL);
    pthread_cond_init(&scene->io.changed, NULL);
    kv_rig_init(&scene->rig);
    scene->rig.config.progress = variant->progress;
    scene_tiers(scene, HOST_BLOCKS, DISK_BLOCKS);
    scene->io.copies.hooks = (struct kvbi_hooks){
        .copy_fault = mv_copy_fault, .io_fault = io_fault, .context = &scene->io};
    return true;
}

static bool nothing_is_pending(struct disk_scene *scene)
{
    struct kvb_stats stats = {.size = sizeof stats};
    uint64_t pending = 0;
    int code = kvb_manager_stats(scene->rig.kv, &stats);
    for (uint32_t i = 0; i < stats.lane_count; i++)
        pending += stats.lanes[i].pending;
    if (code != 0 || pending > 0)
        print_error("%llu offers are pending after a flush\n", (unsigned long long)pending);
    return code == 0 && pending == 0;
}

/* What a failed test has held back is let go. */
static bool comes_to_rest(struct disk_scene *scene)
{
    hold_io(scene, false);
    if (scene->rig.kv == NULL)
        return true;
    kvbi_testing_mute(scene->rig.kv);
    int code = kvb_fence_signal(scene->rig.kv, 0, LAST_FENCE);
    if (code == 0)
        code = kvb_manager_flush(scene->rig.kv, KV_GIVE_UP_S * KV_SECOND);
    if (code != 0)
        print_error("the lanes do not come to rest: %s\n", kvb_error_name(code));
    return code == 0 && nothing_is_pending(scene);
}

static bool end(struct disk_scene *scene)
{
    bool good = comes_to_rest(scene);
    good = kv_rig_end(&scene->rig) && good;
    folder_remove(scene->folder);
    pthread_cond_destroy(&scene->io.changed);
    pthread_mutex_destroy(&scene->io.mutex);
    return good;
}

void scene_again(struct disk_scene *scene)
{
    const struct disk_variant *variant = scene->variant;
    assert_true(end(scene));
    assert_true(begin(scene, variant));
}

int disk_scene_setup(void **state)
{
    const struct disk_variant *variant = *state;
    struct disk_scene *scene = malloc(sizeof *scene);
    *state = scene;
    if (scene != NULL && begin(scene, variant))
        return 0;
    free(scene);
    return -1;
}

int disk_scene_teardown(void **state)
{
    struct disk_scene *scene = *state;
    bool good = end(scene);
    free(scene);
    return good ? 0 : -1;
}

int disk_scene_opened_setup(void **state)
{
    int error = disk_scene_setup(state);
    if (error == 0)
        scene_open(*state);
    return error;
}

int disk_scene_opened_teardown(void **state)
{
    return disk_scene_teardown(state);
}

int disk_scene_cut_short_setup(void **state)
{
    return disk_scene_setup(state);
}

int disk_scene_cut_short_teardown(void **state)
{
    struct disk_scene *scene = *state;
    hold_io(scene, false);
    bool good = kv_rig_end(&scene->rig);
    return disk_scene_teardown(state) == 0 && good ? 0 : -1;
}

void flush_and_check(struct disk_scene *scene)
{
    kv_flush(&scene->rig);
    kv_check(&scene->rig);
    mv_expect_books(&scene->rig, true);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static bool has_host(const struct disk_scene *scene)
{
    return scene->rig.config.tier_count == 3;
}

void evict_above(struct disk_scene *scene)
{
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    if (has_host(scene))
        mv_evict_all(&scene->rig, KVB_TIER_HOST);
    flush_and_check(scene);
}

void store_on_disk(struct disk_scene *scene, struct mv_run *run, uint64_t seed, uint32_t count)
{
    mv_park(&scene->rig, run, KVB_TIER_DEVICE, seed, count);
    flush_and_check(scene);
    evict_above(scene);
    assert_int_equal(mv_in_tier(&scene->rig, run, KVB_TIER_DISK), count);
}

void store_each(struct disk_scene *scene, struct mv_run *runs, uint64_t seed, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        store_on_disk(scene, &runs[i], seed * 1000 + i, 1);
}

uint32_t hold(struct disk_scene *scene, struct mv_run *run, struct kvb_hit hits[MV_RUN_MAX])
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

uint32_t slot_on_disk(struct disk_scene *scene, struct mv_run *run, uint32_t index)
{
    struct kvb_hit hits[MV_RUN_MAX];
    assert_int_equal(hold(scene, run, hits), run->count);
    assert_int_equal(hits[index].tier, KVB_TIER_DISK);
    mv_drop(&scene->rig, run);
    return hits[index].slot;
}

uint32_t make_unreadable(struct disk_scene *scene, struct mv_run *run, uint32_t index)
{
    scene->io.slot = slot_on_disk(scene, run, index);
    scene->io.read_errno = EIO;
    return scene->io.slot;
}

struct kvb_op *bring_up(struct disk_scene *scene, struct mv_run *run, uint32_t tier,
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

uint32_t finish(struct disk_scene *scene, struct mv_run *run, struct kvb_op *op)
{
    kv_ok(kvb_op_wait(scene->rig.kv, op, KVB_FOREVER));
    uint32_t good = mv_take(&scene->rig, run, op);
    mv_drop_taken(&scene->rig, run);
    return good;
}

uint32_t fetch(struct disk_scene *scene, struct mv_run *run)
{
    struct mv_done done;
    uint32_t good = finish(scene, run, bring_up(scene, run, KVB_TIER_DEVICE, &done, 0));
    flush_and_check(scene);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, good);
    return good;
}

bool is_found(struct disk_scene *scene, const struct mv_run *run, uint32_t index)
{
    struct kvb_query query = {.size = sizeof query, .keys = &run->seqs[index], .key_count = 1};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_ok(kvb_lookup(scene->rig.kv, &query, tiers));
    return tiers[0] + tiers[1] + tiers[2] + tiers[3] == 1;
}

uint32_t count_found(struct disk_scene *scene, const struct mv_run *runs, uint32_t count)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found += is_found(scene, &runs[i], 0);
    return found;
}

bool disk_lost(struct disk_scene *scene)
{
    return kv_stats(&scene->rig).tiers[KVB_TIER_DISK].out_of_service == 1;
}

/* ---- Running --------------------------------------------------------------------------------- */

/*
 * False, and why, where this machine refuses the engine. Other failures are for the tests to show.
 */
static bool works_here(const struct disk_variant *variant)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = 4096};
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 8];
    if (!folder_make(folder, folder_parent(), DISK_SCENE_FOLDER))
        return true;
    (void)snprintf(path, sizeof path, "%s/probe", folder);
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
    folder_remove(folder);
    if (code == KVB_EUNSUPPORTED)
        (void)fprintf(stderr, "left out: %s: %s\n", variant->name, diagnosis.message);
    return code != KVB_EUNSUPPORTED;
}

int run_disk_tests(const struct CMUnitTest *each, size_t each_count, const struct CMUnitTest *once,
                   size_t once_count)
{
    const struct disk_variant *threads = &variants[POSIX_THREADS];
    int failed = 0;
    for (size_t v = 0; each_count > 0 && v < VARIANTS; v++)
        if (works_here(&variants[v]))
            failed += run_variant(variants[v].name, &variants[v], each, each_count);
    return failed + run_variant(threads->name, threads, once, once_count);
}

int run_disk_tests_by_progress(const struct CMUnitTest *polled, size_t polled_count,
                               const struct CMUnitTest *threaded, size_t threaded_count)
{
    int failed = 0;
    for (size_t v = 0; v < VARIANTS; v++) {
        bool is_polled = variants[v].progress == KVB_PROGRESS_POLL;
        size_t count = is_polled ? polled_count : threaded_count;
        if (count > 0 && works_here(&variants[v]))
            failed +=
                run_variant(variants[v].name, &variants[v], is_polled ? polled : threaded, count);
    }
    return failed;
}
