/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The examples of docs/gpu.md, "Layouts": the functions between the two lines below stand there
 * word for word (tests/layout_copies.cmake holds them together). Each test has the tensors of an
 * engine, written and read by their shapes and nothing else, moved through a manager that has only
 * what the example gives it.
 */
#include "support/device_scene.h"

/* The engine of all examples. A block is `tokens` tokens; sizes in bytes where it is said. */
enum { MODEL_LAYERS = 3, MODEL_BLOCKS = 7, MODEL_TENSORS = 2 * MODEL_LAYERS };

/* ---- As in docs/gpu.md ----------------------------------------------------------------------- */

/* What an engine knows about its KV cache. */
struct engine {
    uint32_t layers, blocks; /* blocks: as its page table numbers them, from 0 */
    uint64_t token_bytes;    /* one token, one layer, K or V: heads x head size x element size */
    uint64_t tokens;         /* of a block */
    void *tensors[2 * 128];  /* device memory, in the order that each example says */
    void *list[2 * 128];     /* what layer_memory points to, where the order is another one */
};

/* [2][blocks][tokens][heads][head size], a tensor a layer: K of all blocks, then V of all. */
static void kv_outside_blocks(struct engine *engine, struct kvb_layout *layout,
                              struct kvb_tier_config *device)
{
    uint64_t chunk = engine->tokens * engine->token_bytes;
    layout->layers = engine->layers;
    layout->parts = 2;
    layout->chunk_bytes = chunk;
    layout->part_stride = engine->blocks * chunk; /* from K to V of a block */
    layout->block_stride = chunk;
    device->block_count = engine->blocks;
    device->layer_memory = engine->tensors;
    device->memory_bytes = 2 * engine->blocks * chunk; /* of each tensor */
}

/* [blocks][2][tokens][heads][head size], a tensor a layer: a block's K, then its V. */
static void kv_inside_blocks(struct engine *engine, struct kvb_layout *layout,
                             struct kvb_tier_config *device)
{
    uint64_t chunk = 2 * engine->tokens * engine->token_bytes;
    layout->layers = engine->layers;
    layout->parts = 1; /* K and V are neighbours: one chunk */
    layout->chunk_bytes = chunk;
    layout->block_stride = chunk;
    device->block_count = engine->blocks;
    device->layer_memory = engine->tensors;
    device->memory_bytes = engine->blocks * chunk;
}

/*
 * [tokens of the pool][heads][head size], 2 tensors a layer: first the K of all layers, then the V.
 * The pool's first block takes what padded tokens write, and belongs to nobody: block i of the tier
 * is block i + 1 of the engine.
 */
static void kv_in_two_lists(struct engine *engine, struct kvb_layout *layout,
                            struct kvb_tier_config *device)
{
    uint64_t chunk = engine->tokens * engine->token_bytes;
    for (uint32_t i = 0; i < engine->layers; i++) { /* K and V of a layer arrive together */
        engine->list[2 * i] = (unsigned char *)engine->tensors[i] + chunk;
        engine->list[2 * i + 1] = (unsigned char *)engine->tensors[engine->layers + i] + chunk;
    }
    layout->layers = 2 * engine->layers;
    layout->parts = 1;
    layout->chunk_bytes = chunk;
    layout->block_stride = chunk;
    device->block_count = engine->blocks - 1;
    device->layer_memory = engine->list;
    device->memory_bytes = (engine->blocks - 1) * chunk;
}

/*
 * MLA, [blocks][tokens][latent and rope], a tensor a layer: token_bytes is (512 + 64) x 2 for
 * DeepSeek's in bf16. The rope part lies in each token's row and needs nothing of its own.
 */
static void latent(struct engine *engine, struct kvb_layout *layout, struct kvb_tier_config *device)
{
    uint64_t chunk = engine->tokens * engine->token_bytes;
    layout->layers = engine->layers;
    layout->parts = 1;
    layout->chunk_bytes = chunk;
    layout->block_stride = chunk;
    device->block_count = engine->blocks;
    device->layer_memory = engine->tensors;
    device->memory_bytes = engine->blocks * chunk;
}

/* [blocks][layers][2][tokens][heads][head size], one slab: a block is one piece. */
static void slab_of_blocks(struct engine *engine, struct kvb_layout *layout,
                           struct kvb_tier_config *device)
{
    uint64_t chunk = engine->tokens * engine->token_bytes;
    layout->layers = engine->layers;
    layout->parts = 2;
    layout->chunk_bytes = chunk; /* no strides: this is the default */
    device->block_count = engine->blocks;
    device->memory = engine->tensors[0];
    device->memory_bytes = engine->blocks * engine->layers * 2 * chunk;
}

/*
 * [layers][2][blocks][tokens][heads][head size], one slab, in which each layer begins at a multiple
 * of 2 MiB.
 */
static void slab_of_layers(struct engine *engine, struct kvb_layout *layout,
                           struct kvb_tier_config *device)
{
    uint64_t chunk = engine->tokens * engine->token_bytes, page = 2 << 20;
    uint64_t layer = (2 * engine->blocks * chunk + page - 1) / page * page;
    layout->layers = engine->layers;
    layout->parts = 2;
    layout->chunk_bytes = chunk;
    layout->layer_stride = layer;
    layout->part_stride = engine->blocks * chunk;
    layout->block_stride = chunk;
    device->block_count = engine->blocks;
    device->memory = engine->tensors[0];
    device->memory_bytes = (engine->layers - 1) * layer + 2 * engine->blocks * chunk;
}

/* ---- The engine's side ----------------------------------------------------------------------- */

/* Where the engine has a byte of a token: by its tensors' shapes. */
struct place {
    uint32_t tensor;
    uint64_t offset;
};
struct index {
    uint32_t layer, kv, block, token, byte; /* `block` as the engine numbers it */
};

struct view {
    void (*configure)(struct engine *, struct kvb_layout *, struct kvb_tier_config *);
    struct place (*find)(const struct engine *, struct index);
    uint32_t tensors, kv, tokens, token_bytes, first_block;
    uint64_t tensor_bytes;
};

/* Row-major: the offset of an element of a tensor with `count` dimensions. */
static uint64_t row_major(const uint64_t *shape, const uint64_t *at, size_t count)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(at[i] < shape[i]);
        offset = offset * shape[i] + at[i];
    }
    return offset;
}

#define OFFSET(shape, ...)                                                                         \
    row_major(shape, (const uint64_t[]){__VA_ARGS__}, sizeof(shape) / sizeof *(shape))

static struct place find_kv_outside_blocks(const struct engine *e, struct index i)
{
    const uint64_t shape[] = {2, e->blocks, e->tokens, e->token_bytes};
    return (struct place){i.layer, OFFSET(shape, i.kv, i.block, i.token, i.byte)};
}

static struct place find_kv_inside_blocks(const struct engine *e, struct index i)
{
    const uint64_t shape[] = {e->blocks, 2, e->tokens, e->token_bytes};
    return (struct place){i.layer, OFFSET(shape, i.block, i.kv, i.token, i.byte)};
}

/* The engine knows slots of tokens, not blocks. */
static struct place find_kv_in_two_lists(const struct engine *e, struct index i)
{
    const uint64_t shape[] = {e->blocks * e->tokens, e->token_bytes};
    return (struct place){i.kv * e->layers + i.layer,
                          OFFSET(shape, i.block * e->tokens + i.token, i.byte)};
}

static struct place find_latent(const struct engine *e, struct index i)
{
    const uint64_t shape[] = {e->blocks, e->tokens, e->token_bytes};
    return (struct place){i.layer, OFFSET(shape, i.block, i.token, i.byte)};
}

static struct place find_in_slab_of_blocks(const struct engine *e, struct index i)
{
    const uint64_t shape[] = {e->blocks, e->layers, 2, e->tokens, e->token_bytes};
    return (struct place){0, OFFSET(shape, i.block, i.layer, i.kv, i.token, i.byte)};
}

#define SLAB_LAYER ((uint64_t)2 << 20) /* what 2 x 7 chunks of 3,000 bytes are rounded up to */

static struct place find_in_slab_of_layers(const struct engine *e, struct index i)
{
    const uint64_t shape[] = {2, e->blocks, e->tokens, e->token_bytes};
    return (struct place){0, i.layer * SLAB_LAYER + OFFSET(shape, i.kv, i.block, i.token, i.byte)};
}

/* ---- A cache --------------------------------------------------------------------------------- */

struct cache {
    struct device_scene scene; /* comes first: *state is that as well */
    const struct view *view;
    struct engine engine;
    unsigned char *mirror[MODEL_TENSORS]; /* what each tensor should hold */
    uint32_t held;                        /* blocks of the tier */
};

static int cache_setup(void **state)
{
    (void)device_scene_make(state, sizeof(struct cache));
    return 0;
}

static int cache_teardown(void **state)
{
    struct cache *cache = *state;
    bool good = device_scene_end(&cache->scene);
    for (uint32_t i = 0; i < MODEL_TENSORS; i++)
        free(cache->mirror[i]);
    free(cache);
    return good ? 0 : -1;
}

static void open_cache(struct cache *cache, const struct view *view, uint32_t method)
{
    struct kv_rig *rig = &cache->scene.rig;
    cache->view = view;
    device_scene_init(&cache->scene, 1, MODEL_BLOCKS);
    rig->layout = (struct kvb_layout){.size = sizeof rig->layout};
    cache->engine = (struct engine){.layers = MODEL_LAYERS,
                                    .blocks = MODEL_BLOCKS,
                                    .token_bytes = view->token_bytes,
                                    .tokens = view->tokens};
    for (uint32_t i = 0; i < view->tensors; i++) {
        cache->engine.tensors[i] = device_scene_malloc(&cache->scene, view->tensor_bytes);
        free(cache->mirror[i]);
        cache->mirror[i] = malloc(view->tensor_bytes);
        assert_non_null(cache->mirror[i]);
    }
    view->configure(&cache->engine, &rig->layout, &rig->tiers[0]);
    rig->tiers[0].copy_method = method;
    cache->held = rig->tiers[0].block_count;
    kv_rig_open(rig);
}

/* All that is in all tensors is garbage, but what the mirror says hereafter. */
static void scribble(struct cache *cache, unsigned char garbage)
{
    for (uint32_t i = 0; i < cache->view->tensors; i++)
        memset(cache->mirror[i], garbage, cache->view->tensor_bytes);
}

static void put_tensors(struct cache *cache)
{
    for (uint32_t i = 0; i < cache->view->tensors; i++) {
        void *tensor = cache->engine.tensors[i];
        unsigned char *bytes = kv_device_begin_write(tensor, cache->view->tensor_bytes);
        memcpy(bytes, cache->mirror[i], cache->view->tensor_bytes);
        kv_device_end_write(tensor, bytes, cache->view->tensor_bytes);
    }
}

static void expect_tensors(struct cache *cache)
{
    for (uint32_t i = 0; i < cache->view->tensors; i++) {
        void *tensor = cache->engine.tensors[i];
        const unsigned char *bytes = kv_device_read(tensor, cache->view->tensor_bytes);
        uint64_t same = 0;
        while (same < cache->view->tensor_bytes && bytes[same] == cache->mirror[i][same])
            same++;
        kv_device_end_read(tensor, bytes);
        if (same < cache->view->tensor_bytes)
            fail_msg("tensor %u, byte %llu", i, (unsigned long long)same);
    }
}

/* The KV of the content's tokens, in that block of the tier, as the engine's kernels write it. */
static void write_tokens(struct cache *cache, uint32_t slot, uint64_t content)
{
    const struct view *view = cache->view;
    struct index i = {.block = slot + view->first_block};
    for (i.layer = 0; i.layer < MODEL_LAYERS; i.layer++)
        for (i.kv = 0; i.kv < view->kv; i.kv++)
            for (i.token = 0; i.token < view->tokens; i.token++)
                for (i.byte = 0; i.byte < view->token_bytes; i.byte++) {
                    struct place place = view->find(&cache->engine, i);
                    uint64_t number = row_major(
                        (const uint64_t[]){1024, MODEL_LAYERS, 2, view->tokens, view->token_bytes},
                        (const uint64_t[]){content, i.layer, i.kv, i.token, i.byte}, 5);
                    assert_true(place.offset < view->tensor_bytes);
                    cache->mirror[place.tensor][place.offset] = (unsigned char)kv_mix(number);
                }
}

/* Computed by the engine, registered, offloaded, and gone from the device. */
static void compute_and_sink(struct cache *cache, struct mv_run *run)
{
    struct kv_rig *rig = &cache->scene.rig;
    mv_name(rig, run, 1, cache->held);
    mv_alloc_many(rig, KVB_TIER_DEVICE, run->count, run->blocks);
    scribble(cache, 0x11);
    for (uint32_t i = 0; i < run->count; i++)
        write_tokens(cache, kvb_block_slot(rig->kv, run->blocks[i]), i);
    put_tensors(cache);
    for (uint32_t i = 0; i < run->count; i++)
        kv_complete(rig, run->blocks[i], 0, i, i == 0 ? NULL : &run->seqs[i - 1],
                    run->tokens + i * KV_TOKENS);
    kv_ok(kvb_block_register(rig->kv, run->blocks, run->count, NULL, NULL, NULL));
    kv_ok(kvb_block_offload(rig->kv, run->blocks, run->count, 50, NULL, NULL));
    device_scene_flush(&cache->scene);
}

static void test_layout(struct cache *cache, const struct view *view, uint32_t method)
{
    struct kv_rig *rig = &cache->scene.rig;
    struct kvb_block *targets[MODEL_BLOCKS];
    struct mv_run run;
    uint32_t slots[MODEL_BLOCKS], good = 0;
    open_cache(cache, view, method);
    compute_and_sink(cache, &run);
    for (uint32_t i = 0; i < run.count; i++)
        slots[i] = kvb_block_slot(rig->kv, run.blocks[i]);
    mv_drop(rig, &run);
    mv_alloc_many(rig, KVB_TIER_DEVICE, run.count, targets); /* all of it: evicted */
    scribble(cache, 0x22);
    put_tensors(cache);
    device_scene_hold(&cache->scene, &run, KVB_TIER_HOST);
    for (uint32_t i = 0; i < run.count; i++) /* into other slots than they came from */
        for (uint32_t j = i; j < run.count; j++)
            if (kvb_block_slot(rig->kv, targets[j]) == slots[(i + 1) % run.count]) {
                struct kvb_block *found = targets[j];
                targets[j] = targets[i];
                targets[i] = found;
                write_tokens(cache, slots[(i + 1) % run.count], i);
                break;
            }
    struct kvb_onboard request = mv_request(run.blocks, targets, run.count, NULL);
    request.flags = KVB_ONBOARD_LAYERS;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop_beside(rig, &run);
    device_scene_wait(&cache->scene, op);
    device_scene_flush(&cache->scene);
    kv_ok(kvb_op_take(rig->kv, op, targets, run.count, &good));
    kv_ok(kvb_op_release(rig->kv, op));
    assert_int_equal(good, run.count);
    expect_tensors(cache); /* the whole of them: nothing else was touched */
    kv_ok(kvb_block_unref(rig->kv, targets, run.count, NULL));
    kv_rig_close(rig);
}

static void test_with_each_method(struct cache *cache, const struct view *view)
{
    int driver = 0;
    test_layout(cache, view, KVB_COPY_PLAIN);
    test_layout(cache, view, KVB_COPY_RECT);
    test_layout(cache, view, KVB_COPY_AUTO);
    cuda_ok(cudaDriverGetVersion(&driver));
    if (driver >= 12080)
        test_layout(cache, view, KVB_COPY_BATCH);
}

/* ---- Engines --------------------------------------------------------------------------------- */

#define ALL ((uint64_t)MODEL_BLOCKS * 16 * 250) /* bytes of K, or V, of a layer */

static void test_vllm_with_k_and_v_outside_of_blocks(void **state)
{
    static const struct view view = {
        kv_outside_blocks, find_kv_outside_blocks, MODEL_LAYERS, 2, 16, 250, 0, 2 * ALL};
    test_with_each_method(*state, &view);
}

static void test_vllm_with_k_and_v_inside_of_blocks(void **state)
{
    static const struct view view = {
        kv_inside_blocks, find_kv_inside_blocks, MODEL_LAYERS, 2, 16, 250, 0, 2 * ALL};
    test_with_each_method(*state, &view);
}

static void test_sglang_with_lists_of_k_and_v(void **state)
{
    static const struct view view = {
        kv_in_two_lists, find_kv_in_two_lists, 2 * MODEL_LAYERS, 2, 16, 250, 1, ALL};
    test_with_each_method(*state, &view);
}

/* Pages of one token, as SGLang has them unless it is told otherwise. */
static void test_sglang_with_pages_of_one_token(void **state)
{
    static const struct view view = {kv_in_two_lists,
                                     find_kv_in_two_lists,
                                     2 * MODEL_LAYERS,
                                     2,
                                     1,
                                     256,
                                     1,
                                     (uint64_t)MODEL_BLOCKS * 256};
    test_with_each_method(*state, &view);
}

static void test_mla_with_rope_in_each_row(void **state)
{
    static const struct view view = {
        latent, find_latent, MODEL_LAYERS, 1, 4, 1152, 0, (uint64_t)MODEL_BLOCKS * 4 * 1152};
    test_with_each_method(*state, &view);
}

static void test_slab_of_blocks(void **state)
{
    static const struct view view = {
        slab_of_blocks, find_in_slab_of_blocks, 1, 2, 16, 250, 0, 2 * MODEL_LAYERS * ALL};
    test_with_each_method(*state, &view);
}

static void test_slab_of_layers(void **state)
{
    static const struct view view = {
        slab_of_layers, find_in_slab_of_layers, 1, 2, 4, 750, 0, MODEL_LAYERS * SLAB_LAYER};
    test_with_each_method(*state, &view);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cache, test_vllm_with_k_and_v_outside_of_blocks),
        TEST(cache, test_vllm_with_k_and_v_inside_of_blocks),
        TEST(cache, test_sglang_with_lists_of_k_and_v),
        TEST(cache, test_sglang_with_pages_of_one_token),
        TEST(cache, test_mla_with_rope_in_each_row),
        TEST(cache, test_slab_of_blocks),
        TEST(cache, test_slab_of_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
