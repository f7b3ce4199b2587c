/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GPU's engine keeps the promises of transfer/engine.h, however it copies, and so does the
 * relay between a GPU and a file. On the stand-in for CUDA, which looks whether every access is
 * ordered.
 */
#include "support/cuda_tier_access.h"
#include "support/disk_path.h"
#include "support/engine_conformance.h"
#include "transfer/cuda/registration.h"

struct way {
    uint32_t method; /* enum kvb_copy_method */
    bool strided;    /* in memory of the server's, blocks of which lie apart */
    bool unpinned;   /* the system pins none of the host's memory */
    /* A relay's: */
    uint32_t disk_engine;
    bool own_thread;
};

struct ground {
    struct disk_path place;
    bool has_place, started;
    void *memory;
};

/* A run of the stand-in. */
static struct ground *begin(struct engine_bench *bench)
{
    const struct way *way = bench->recipe->how;
    struct ground *ground = bench->self = calloc(1, sizeof *ground);
    if (ground == NULL)
        abort();
    kv_device_config.register_bytes = way->unpinned ? PAIR_CHUNK : 0;
    kv_device_start(NULL, 0);
    kv_device_config.register_bytes = 0;
    ground->started = true;
    bench->get_on = fake_cuda_quiesce;
    return ground;
}

static bool close_ground(struct engine_bench *bench)
{
    struct ground *ground = bench->self;
    bool well = true;
    tier_pair_close(&bench->pair);
    if (ground == NULL)
        return true;
    if (ground->memory != NULL)
        well = cudaFree(ground->memory) == cudaSuccess;
    well &= kv_device_end() == 0;
    if (ground->has_place)
        disk_path_remove(&ground->place);
    free(ground);
    bench->self = NULL;
    return well;
}

static void configure_device(struct engine_bench *bench, struct ground *ground)
{
    const struct way *way = bench->recipe->how;
    struct kvb_tier_config *config = &bench->pair.configs[KVB_TIER_DEVICE];
    config->memory_kind = KVB_MEMORY_CUDA;
    config->copy_method = way->method;
    if (!way->strided)
        return;
    /* parts outermost, then layers, then blocks: no two chunks of a block are neighbours */
    bench->pair.layout.block_stride = PAIR_CHUNK;
    bench->pair.layout.layer_stride = (uint64_t)PAIR_BLOCKS * PAIR_CHUNK;
    bench->pair.layout.part_stride = (uint64_t)PAIR_LAYERS * PAIR_BLOCKS * PAIR_CHUNK;
    config->memory_bytes = (uint64_t)PAIR_PARTS * PAIR_LAYERS * PAIR_BLOCKS * PAIR_CHUNK;
    if (cudaMalloc(&ground->memory, config->memory_bytes) != cudaSuccess)
        abort();
    config->memory = ground->memory;
}

static bool open_cuda(struct engine_bench *bench)
{
    struct ground *ground = begin(bench);
    tier_pair_init(&bench->pair, KVB_TIER_DEVICE, KVB_TIER_HOST);
    configure_device(bench, ground);
    return engine_bench_open_pair(bench, false, &tier_access_cuda, &tier_access_pinned);
}

static bool open_relay(struct engine_bench *bench)
{
    const struct way *way = bench->recipe->how;
    struct ground *ground = begin(bench);
    disk_path_make(&ground->place);
    ground->has_place = true;
    tier_pair_init(&bench->pair, KVB_TIER_DEVICE, KVB_TIER_DISK);
    configure_device(bench, ground);
    bench->pair.configs[KVB_TIER_DISK].path = ground->place.file;
    bench->pair.configs[KVB_TIER_DISK].disk_engine = way->disk_engine;
    /* see test_engine_conformance.c */
    bench->ready_idly = way->disk_engine != KVB_DISK_ENGINE_POSIX;
    bench->half_in_reap = way->disk_engine == KVB_DISK_ENGINE_POSIX && !way->own_thread;
    if (!engine_bench_open_pair(bench, way->own_thread, &tier_access_cuda, &tier_access_disk))
        return false;
    /* the registration of the memory in between is that memory's */
    const struct kvbi_cuda_registration *registration =
        kvbi_cuda_registration_of(&bench->pair.engines.between);
    bench->allocated_bytes -=
        (int64_t)(sizeof *registration + registration->piece_count * sizeof *registration->touched);
    return true;
}

static const struct way plain = {.method = KVB_COPY_PLAIN}, batch = {.method = KVB_COPY_BATCH},
                        kernel = {.method = KVB_COPY_KERNEL},
                        rect_strided = {.method = KVB_COPY_RECT, .strided = true},
                        batch_strided = {.method = KVB_COPY_BATCH, .strided = true},
                        unpinned = {.method = KVB_COPY_BATCH, .unpinned = true},
                        over_posix = {.method = KVB_COPY_PLAIN,
                                      .disk_engine = KVB_DISK_ENGINE_POSIX},
                        over_threads = {.method = KVB_COPY_BATCH,
                                        .disk_engine = KVB_DISK_ENGINE_POSIX,
                                        .own_thread = true},
                        over_the_best = {.method = KVB_COPY_KERNEL,
                                         .strided = true,
                                         .disk_engine = KVB_DISK_ENGINE_AUTO,
                                         .own_thread = true};

#define RECIPE(recipe_name, open_it, way_it_goes)                                                  \
    {                                                                                              \
        .name = recipe_name, .open = open_it, .close = close_ground, .how = &(way_it_goes)         \
    }

static const struct engine_recipe recipes[] = {
    RECIPE("cuda, plain", open_cuda, plain),
    RECIPE("cuda, batches", open_cuda, batch),
    RECIPE("cuda, kernels", open_cuda, kernel),
    RECIPE("cuda, rectangles, strided", open_cuda, rect_strided),
    RECIPE("cuda, batches, strided", open_cuda, batch_strided),
    RECIPE("cuda, host memory not pinned", open_cuda, unpinned),
    RECIPE("relay over posix, polled", open_relay, over_posix),
    RECIPE("relay over posix, threads", open_relay, over_threads),
    RECIPE("relay over what disks have here, strided", open_relay, over_the_best),
};

int main(void)
{
    return engine_conformance_run(recipes, sizeof recipes / sizeof *recipes);
}
