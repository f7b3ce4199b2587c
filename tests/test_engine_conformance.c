/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every engine that works without a GPU keeps the promises of transfer/engine.h: host memory's,
 * that of the tests' own kind, and the disk's two, each as the manager's own thread has them and as
 * one that is polled.
 */
#include "support/disk_path.h"
#include "support/engine_conformance.h"
#include "support/faulty_kind.h"

/* ---- Memory to memory ------------------------------------------------------------------------ */

static bool open_memory(struct engine_bench *bench)
{
    tier_pair_init(&bench->pair, KVB_TIER_DEVICE, KVB_TIER_HOST);
    return engine_bench_open_pair(bench, false, &tier_access_memory, &tier_access_memory);
}

static bool close_pair(struct engine_bench *bench)
{
    tier_pair_close(&bench->pair);
    return true;
}

/* ---- A kind of the tests' own ---------------------------------------------------------------- */

static bool open_faulty(struct engine_bench *bench)
{
    struct kv_faulty *faulty = bench->self = calloc(1, sizeof *faulty);
    if (faulty == NULL)
        return false;
    kv_faulty_init(faulty);
    tier_pair_init(&bench->pair, KVB_TIER_HOST, KVB_TIER_DISK);
    bench->pair.configs[KVB_TIER_DISK].memory = faulty;
    bench->pair.kinds[KVB_TIER_DISK] = &kv_faulty_kind;
    bench->keeps = true;
    bench->uncounted_bytes = BENCH_CAPACITY * (16 + 4); /* notes and free list */
    return engine_bench_open_pair(bench, false, &tier_access_memory, &tier_access_memory);
}

static bool close_faulty(struct engine_bench *bench)
{
    tier_pair_close(&bench->pair);
    free(bench->self);
    bench->self = NULL;
    return true;
}

/* ---- Disks ----------------------------------------------------------------------------------- */

struct disk_way {
    uint32_t engine; /* enum kvb_disk_engine */
    bool own_thread;
    uint64_t chunk_bytes;
};

static bool open_disk(struct engine_bench *bench)
{
    const struct disk_way *way = bench->recipe->how;
    struct disk_path *place = bench->self = calloc(1, sizeof *place);
    if (place == NULL)
        return false;
    disk_path_make(place);
    tier_pair_init(&bench->pair, KVB_TIER_HOST, KVB_TIER_DISK);
    tier_pair_set_chunk(&bench->pair, way->chunk_bytes);
    bench->pair.configs[KVB_TIER_DISK].path = place->file;
    bench->pair.configs[KVB_TIER_DISK].disk_engine = way->engine;
    /*
     * once in many thousand rounds the kernel leaves it standing that work is deferred, with none
     * there
     */
    bench->ready_idly = way->engine == KVB_DISK_ENGINE_URING;
    return engine_bench_open_pair(bench, way->own_thread, &tier_access_memory, &tier_access_disk);
}

static bool close_disk(struct engine_bench *bench)
{
    tier_pair_close(&bench->pair);
    if (bench->self != NULL)
        disk_path_remove(bench->self);
    free(bench->self);
    bench->self = NULL;
    return true;
}

static const struct disk_way posix_polled = {KVB_DISK_ENGINE_POSIX, false, PAIR_CHUNK},
                             posix_threads = {KVB_DISK_ENGINE_POSIX, true, PAIR_CHUNK},
                             posix_padded = {KVB_DISK_ENGINE_POSIX, true, 1250},
                             uring_polled = {KVB_DISK_ENGINE_URING, false, PAIR_CHUNK},
                             uring_thread = {KVB_DISK_ENGINE_URING, true, PAIR_CHUNK},
                             uring_padded = {KVB_DISK_ENGINE_URING, true, 1250};

/* The kernel, or a sandbox around this program, may refuse rings. */
static const char *why_no_uring(void)
{
    static struct engine_bench bench;
    const struct engine_recipe recipe = {.how = &uring_thread};
    memset(&bench, 0, sizeof bench);
    bench.recipe = &recipe;
    bool have = open_disk(&bench);
    (void)close_disk(&bench);
    return have ? NULL : bench.pair.message;
}

static const struct engine_recipe recipes[] = {
    {.name = "memory", .open = open_memory, .close = close_pair},
    {.name = "faulty kind", .open = open_faulty, .close = close_faulty},
    {.name = "posix, polled", .open = open_disk, .close = close_disk, .how = &posix_polled},
    {.name = "posix, threads", .open = open_disk, .close = close_disk, .how = &posix_threads},
    {.name = "posix, threads, padded blocks",
     .open = open_disk,
     .close = close_disk,
     .how = &posix_padded},
    {.name = "uring, polled",
     .missing = why_no_uring,
     .open = open_disk,
     .close = close_disk,
     .how = &uring_polled},
    {.name = "uring, own thread",
     .missing = why_no_uring,
     .open = open_disk,
     .close = close_disk,
     .how = &uring_thread},
    {.name = "uring, own thread, padded blocks",
     .missing = why_no_uring,
     .open = open_disk,
     .close = close_disk,
     .how = &uring_padded},
};

int main(void)
{
    return engine_conformance_run(recipes, sizeof recipes / sizeof *recipes);
}
