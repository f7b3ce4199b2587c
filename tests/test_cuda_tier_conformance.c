/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a GPU keeps the promises of transfer/kind.h and transfer/tier.h: on the stand-in
 * for CUDA, in memory of its own and in a server's, however that is laid out. And so does host
 * memory that is registered with a GPU.
 */
#include "support/cuda_tier_access.h"
#include "support/tier_recipes.h"

#define SPAN ((uint64_t)PAIR_BLOCKS * PAIR_LAYERS * PAIR_PARTS * PAIR_CHUNK)

/* A run of the stand-in, and memory of a server's. */
struct ground {
    void *memory[PAIR_LAYERS];
    uint32_t count; /* of pieces */
    uint64_t bytes; /* each */
};

static void begin(struct tier_scene *scene)
{
    scene->self = calloc(1, sizeof(struct ground));
    if (scene->self == NULL)
        abort();
    kv_device_start(NULL, 0);
}

static bool end(struct tier_scene *scene)
{
    struct ground *ground = scene->self;
    bool well = true;
    if (ground == NULL)
        return true;
    for (uint32_t i = 0; i < ground->count; i++)
        well &= cudaFree(ground->memory[i]) == cudaSuccess;
    free(ground);
    scene->self = NULL;
    return kv_device_end() == 0 && well;
}

static void take_memory(struct tier_scene *scene, uint32_t count, uint64_t bytes)
{
    struct ground *ground = scene->self;
    for (uint32_t i = 0; i < count; i++)
        if (cudaMalloc(&ground->memory[i], bytes) != cudaSuccess)
            abort();
    ground->count = count;
    ground->bytes = bytes;
}

static bool covers(const struct tier_scene *scene, const unsigned char *start, uint64_t bytes)
{
    const struct ground *ground = scene->self;
    for (uint32_t i = 0; i < ground->count; i++) {
        const unsigned char *piece = ground->memory[i];
        if (start >= piece && start + bytes <= piece + ground->bytes)
            return true;
    }
    return false;
}

static void configure_own(struct tier_scene *scene, struct kvb_tier_config *config)
{
    (void)scene;
    config->memory_kind = KVB_MEMORY_CUDA;
    config->copy_method = KVB_COPY_PLAIN;
}

/* Parts outermost, with gaps between layers: twice the room. */
static void configure_strided(struct tier_scene *scene, struct kvb_tier_config *config)
{
    struct kvb_layout *layout = &scene->pair.layout;
    const struct ground *ground = scene->self;
    take_memory(scene, 1, 2 * SPAN);
    layout->block_stride = PAIR_CHUNK;
    layout->layer_stride = (uint64_t)2 * PAIR_BLOCKS * PAIR_CHUNK;
    layout->part_stride = PAIR_LAYERS * layout->layer_stride;
    configure_own(scene, config);
    config->memory = ground->memory[0];
    config->memory_bytes = 2 * SPAN;
}

/* An allocation a layer, keys before values. */
static void configure_layered(struct tier_scene *scene, struct kvb_tier_config *config)
{
    struct kvb_layout *layout = &scene->pair.layout;
    const struct ground *ground = scene->self;
    take_memory(scene, PAIR_LAYERS, SPAN / PAIR_LAYERS);
    layout->block_stride = PAIR_CHUNK;
    layout->part_stride = (uint64_t)PAIR_BLOCKS * PAIR_CHUNK;
    configure_own(scene, config);
    config->copy_method = KVB_COPY_BATCH;
    config->layer_memory = ground->memory;
    config->memory_bytes = SPAN / PAIR_LAYERS;
}

#define CUDA_RECIPE(recipe_name, configure_it, covers_it, more_fields)                             \
    {                                                                                              \
        .name = recipe_name, .kind = "cuda", .tier = KVB_TIER_DEVICE, .peer = KVB_TIER_HOST,       \
        .fields = FIELD_DEVICE | FIELD_COPY_METHOD | (more_fields), .prepare = begin,              \
        .clean_up = end, .configure = configure_it, .covers = covers_it,                           \
        .get_on = fake_cuda_quiesce, .peer_access = &tier_access_pinned                            \
    }

int main(void)
{
    const struct tier_recipe recipes[] = {
        tier_recipe_memory, /* of other kinds, to be told from */
        tier_recipe_disk,
        {.name = "memory below a GPU",
         .kind = "memory",
         .tier = KVB_TIER_HOST,
         .peer = KVB_TIER_DEVICE,
         .fields = FIELD_MEMORY,
         .prepare = begin,
         .clean_up = end,
         .configure_peer = configure_own,
         .get_on = fake_cuda_quiesce,
         .peer_access = &tier_access_cuda},
        CUDA_RECIPE("cuda", configure_own, NULL, FIELD_MEMORY | FIELD_LAYER_MEMORY),
        CUDA_RECIPE("cuda, strided memory of a server's", configure_strided, covers, FIELD_MEMORY),
        CUDA_RECIPE("cuda, layered memory of a server's", configure_layered, covers,
                    FIELD_LAYER_MEMORY),
    };
    return tier_conformance_run(recipes, sizeof recipes / sizeof *recipes, false);
}
