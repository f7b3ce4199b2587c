/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rectangles and boxes: layouts that make of a block one 2D copy, one 3D copy, or one 2D copy a
 * layer, with holes between the rows that nobody may touch. Every byte of the device's memory is
 * compared, both ways, with the arithmetic of the layout as the header gives it.
 */
#include "support/device_scene.h"

#define BLOCKS 5u
#define HOLE 0x5a /* what lies between chunks */

/* What a block becomes. */
enum form {
    FLAT,  /* rows at one distance */
    BOX,   /* planes of rows */
    LAYERS /* layer by layer */
};

struct shape {
    const char *name;
    uint32_t layers, parts;
    uint64_t chunk, layer, part, block; /* bytes */
    enum form form;
};

/* ---- A device's memory in such a shape ------------------------------------------------------- */

struct yard {
    struct device_scene scene; /* comes first: *state is that as well */
    const struct shape *shape;
    unsigned char *device, *mirror; /* its memory, and what should be there */
    uint64_t bytes;
};

static int yard_setup(void **state)
{
    (void)device_scene_make(state, sizeof(struct yard));
    return 0;
}

static int yard_teardown(void **state)
{
    struct yard *yard = *state;
    bool good = device_scene_end(&yard->scene);
#if KVB_TEST_CUDA
    kv_device_config.device_bytes = 0; /* as the tests before the widest pitch had it */
#endif
    free(yard->mirror);
    free(yard);
    return good ? 0 : -1;
}

static uint64_t chunk_at(const struct shape *s, uint64_t block, uint64_t layer, uint64_t part)
{
    return block * s->block + layer * s->layer + part * s->part;
}

static void put_on_device(struct yard *yard)
{
    unsigned char *bytes = kv_device_begin_write(yard->device, yard->bytes);
    memcpy(bytes, yard->mirror, yard->bytes);
    kv_device_end_write(yard->device, bytes, yard->bytes);
}

static void expect_on_device(struct yard *yard)
{
    const unsigned char *bytes = kv_device_read(yard->device, yard->bytes);
    uint64_t same = 0;
    while (same < yard->bytes && bytes[same] == yard->mirror[same])
        same++;
    kv_device_end_read(yard->device, bytes);
    if (same < yard->bytes)
        fail_msg("%s: byte %llu of the device's memory", yard->shape->name,
                 (unsigned long long)same);
}

static unsigned char value(uint64_t content, uint64_t layer, uint64_t part, uint64_t i)
{
    return (unsigned char)kv_mix((content << 48) + (layer << 40) + (part << 32) + i);
}

static void write_block(struct yard *yard, uint32_t slot, uint64_t content)
{
    const struct shape *s = yard->shape;
    for (uint32_t layer = 0; layer < s->layers; layer++)
        for (uint32_t part = 0; part < s->parts; part++)
            for (uint64_t i = 0; i < s->chunk; i++)
                yard->mirror[chunk_at(s, slot, layer, part) + i] = value(content, layer, part, i);
}

static void expect_in_host(struct yard *yard, struct kvb_block *block, uint64_t content)
{
    const struct shape *s = yard->shape;
    for (uint32_t layer = 0; layer < s->layers; layer++)
        for (uint32_t part = 0; part < s->parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(yard->scene.rig.kv, block, layer, part, &address));
            for (uint64_t i = 0; i < s->chunk; i++)
                assert_int_equal(((unsigned char *)address)[i], value(content, layer, part, i));
        }
}

static void prepare(struct yard *yard, const struct shape *shape)
{
    device_scene_init(&yard->scene, BLOCKS, BLOCKS);
    yard->shape = shape;
    yard->bytes = chunk_at(shape, BLOCKS - 1, shape->layers - 1, shape->parts - 1) + shape->chunk;
    yard->device = device_scene_malloc(&yard->scene, yard->bytes);
    free(yard->mirror);
    yard->mirror = malloc(yard->bytes);
    assert_non_null(yard->mirror);
    device_scene_layout(&yard->scene, shape->layers, shape->parts, shape->chunk);
    struct kvb_layout *layout = &yard->scene.rig.layout;
    layout->layer_stride = shape->layer;
    layout->part_stride = shape->part;
    layout->block_stride = shape->block;
    struct kvb_tier_config *tier = &yard->scene.rig.tiers[0];
    tier->memory = yard->device;
    tier->memory_bytes = yard->bytes;
    tier->copy_method = KVB_COPY_RECT;
}

/* ---- There and back -------------------------------------------------------------------------- */

static void compute(struct yard *yard, struct mv_run *run)
{
    struct kv_rig *rig = &yard->scene.rig;
    mv_name(rig, run, 1, BLOCKS);
    mv_alloc_many(rig, KVB_TIER_DEVICE, BLOCKS, run->blocks);
    memset(yard->mirror, HOLE, yard->bytes);
    for (uint32_t i = 0; i < BLOCKS; i++)
        write_block(yard, kvb_block_slot(rig->kv, run->blocks[i]), i);
    put_on_device(yard);
    for (uint32_t i = 0; i < BLOCKS; i++)
        kv_complete(rig, run->blocks[i], 0, i, i == 0 ? NULL : &run->seqs[i - 1],
                    run->tokens + i * KV_TOKENS);
    kv_ok(kvb_block_register(rig->kv, run->blocks, BLOCKS, NULL, NULL, NULL));
}

static void go_down(struct yard *yard, struct mv_run *run)
{
    struct kv_rig *rig = &yard->scene.rig;
    struct kvb_block *others[BLOCKS];
    kv_ok(kvb_block_offload(rig->kv, run->blocks, BLOCKS, 50, NULL, NULL));
    device_scene_flush(&yard->scene);
    mv_drop(rig, run);
    mv_alloc_many(rig, KVB_TIER_DEVICE, BLOCKS, others);
    kv_ok(kvb_block_unref(rig->kv, others, BLOCKS, NULL));
    device_scene_hold(&yard->scene, run, KVB_TIER_HOST);
    for (uint32_t i = 0; i < BLOCKS; i++)
        expect_in_host(yard, run->blocks[i], i);
}

static void come_up(struct yard *yard, struct mv_run *run, uint32_t flags)
{
    struct kv_rig *rig = &yard->scene.rig;
    struct kvb_block *targets[BLOCKS];
    uint32_t good = 0;
    memset(yard->mirror, HOLE, yard->bytes);
    put_on_device(yard);
    mv_alloc_many(rig, KVB_TIER_DEVICE, BLOCKS, targets);
    for (uint32_t i = 0; i < BLOCKS; i++) /* to slots of others */
        write_block(yard, kvb_block_slot(rig->kv, targets[(i + 1) % BLOCKS]), i);
    struct kvb_block *first = targets[0];
    memmove(&targets[0], &targets[1], (BLOCKS - 1) * sizeof *targets);
    targets[BLOCKS - 1] = first;
    struct kvb_onboard request = mv_request(run->blocks, targets, BLOCKS, NULL);
    request.flags = flags;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop_beside(rig, run);
    device_scene_wait(&yard->scene, op);
    device_scene_flush(&yard->scene);
    kv_ok(kvb_op_take(rig->kv, op, targets, BLOCKS, &good));
    kv_ok(kvb_op_release(rig->kv, op));
    assert_int_equal(good, BLOCKS);
    expect_on_device(yard);
    kv_ok(kvb_block_unref(rig->kv, targets, BLOCKS, NULL));
}

/* What the stand-in can count: that the layout is copied as this file says. */
static void expect_form(const struct shape *shape, uint32_t boxes_before, uint32_t flags)
{
#if KVB_TEST_CUDA
    uint32_t boxes = fake_cuda_calls("cudaMemcpy3DAsync") - boxes_before;
    uint32_t up = (flags & KVB_ONBOARD_LAYERS) != 0 ? 0 : BLOCKS;
    assert_int_equal(boxes, shape->form == BOX ? BLOCKS + up : 0);
#else
    (void)shape, (void)boxes_before, (void)flags;
#endif
}

static uint32_t boxes_so_far(void)
{
#if KVB_TEST_CUDA
    return fake_cuda_calls("cudaMemcpy3DAsync");
#else
    return 0;
#endif
}

static void move(struct yard *yard, const struct shape *shape)
{
    static const uint32_t flags[] = {0, KVB_ONBOARD_LAYERS};
    struct mv_run run;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        prepare(yard, shape);
        kv_rig_open(&yard->scene.rig);
        uint32_t boxes_before = boxes_so_far();
        compute(yard, &run);
        go_down(yard, &run);
        come_up(yard, &run, flags[i]);
        expect_form(shape, boxes_before, flags[i]);
        kv_rig_close(&yard->scene.rig);
    }
}

static void move_all(struct yard *yard, const struct shape *shapes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        move(yard, &shapes[i]);
}

/* ---- Shapes ---------------------------------------------------------------------------------- */

#define K4 UINT64_C(4096)

static void test_rows_at_one_distance_are_one_rectangle(void **state)
{
    static const struct shape shapes[] = {
        {"[layers][2][blocks]", 3, 2, K4, 2 * BLOCKS * K4, BLOCKS * K4, K4, FLAT},
        {"one part, rows of a layer each", 4, 1, K4, BLOCKS * K4, 0, K4, FLAT},
        {"one layer, two parts", 1, 2, K4, 0, BLOCKS * K4, K4, FLAT},
        {"[blocks][layers][2], rows with a hole each", 3, 2, 4000, 2 * K4, K4, 6 * K4, FLAT},
    };
    move_all(*state, shapes, sizeof shapes / sizeof *shapes);
}

static void test_planes_of_rows_are_one_box(void **state)
{
    static const struct shape shapes[] = {
        {"a hole of a part after each layer", 3, 2, K4, 3 * BLOCKS * K4, BLOCKS * K4, K4, BOX},
        {"pitch is the width", 3, 2, K4, 3 * K4, K4, 9 * K4, BOX},
        {"pitch is a byte wider", 4, 2, 4095, 3 * K4, K4, 12 * K4, BOX},
        {"planes far apart", 2, 2, 64, 64 * K4, K4, 64, BOX},
        {"rows of one byte", 3, 2, 1, 12, 3, 36, BOX},
        {"odd widths and pitches", 3, 3, 333, 5 * 1001, 1001, 15 * 1001, BOX},
        {"many rows, many planes", 8, 7, 200, 9 * 256, 256, 72 * 256, BOX},
    };
    move_all(*state, shapes, sizeof shapes / sizeof *shapes);
}

static void test_what_is_no_box_goes_layer_by_layer(void **state)
{
    static const struct shape shapes[] = {
        {"[2][layers][blocks]: parts outside layers", 3, 2, K4, BLOCKS * K4, 3 * BLOCKS * K4, K4,
         LAYERS},
        {"layers no multiple of a part", 3, 2, K4, 5 * K4, 2 * K4, 15 * K4, LAYERS},
        {"layers a multiple of a part, and half", 4, 2, 1000, 3500, 1400, 14000, LAYERS},
    };
    move_all(*state, shapes, sizeof shapes / sizeof *shapes);
}

/* ---- The widest pitch ------------------------------------------------------------------------ */

/* K and V of all blocks so far apart. False: the device has not so much memory. */
static bool prepare_apart(struct yard *yard, uint64_t part_stride)
{
    static struct shape shape;
    shape = (struct shape){"K and V apart", 1, 2, K4, 0, part_stride, K4, FLAT};
    device_scene_init(&yard->scene, BLOCKS, BLOCKS);
    yard->shape = &shape;
    device_scene_layout(&yard->scene, 1, 2, K4);
    yard->scene.rig.layout.part_stride = part_stride;
    yard->scene.rig.layout.block_stride = K4;
    struct kvb_tier_config *tier = &yard->scene.rig.tiers[0];
    tier->memory_bytes = part_stride + BLOCKS * K4;
    tier->copy_method = KVB_COPY_RECT;
    if (cudaMalloc(&yard->scene.memory[0], tier->memory_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        print_message("left out: the device has no %llu bytes\n",
                      (unsigned long long)tier->memory_bytes);
        return false;
    }
    tier->memory = yard->scene.memory[0];
    return true;
}

static void test_widest_pitch_is_used_and_a_wider_one_refused(void **state)
{
    struct yard *yard = *state;
    struct kv_rig *rig = &yard->scene.rig;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    int most = 0;
#if KVB_TEST_CUDA
    kv_device_config.device_bytes = (size_t)4 << 30;
#endif
    device_scene_begin(&yard->scene);
    cuda_ok(cudaDeviceGetAttribute(&most, cudaDevAttrMaxPitch, 0));
    uint64_t widest = (uint64_t)most / 64 * 64;
    if (prepare_apart(yard, widest)) {
        kv_rig_open(rig);
        device_scene_round_trip(&yard->scene, 1, BLOCKS, 0);
        kv_rig_close(rig);
    }
    if (prepare_apart(yard, ((uint64_t)most + 64) / 64 * 64)) {
        kv_expect(kvb_manager_create(&rig->config, &rig->kv, &diagnosis), KVB_EUNSUPPORTED);
        assert_non_null(strstr(diagnosis.message, "rect"));
        assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(yard, test_rows_at_one_distance_are_one_rectangle),
        TEST(yard, test_planes_of_rows_are_one_box),
        TEST(yard, test_what_is_no_box_goes_layer_by_layer),
        TEST(yard, test_widest_pitch_is_used_and_a_wider_one_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
