/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host tier in memory of the caller's, whoever has pinned it and wherever it begins: every byte,
 * both ways, of the blocks that are copied directly and of those that take the detour.
 */
#include <sys/mman.h>

#include "support/device_scene.h"

#define LAYERS 3u
#define PARTS 2u
#define BLOCKS 24u
#define PAGE ((uint64_t)4096)
#define MIB ((uint64_t)1 << 20)

struct harbour {
    struct device_scene scene; /* comes first: *state is that as well */
    unsigned char *map;        /* host memory that CUDA knows nothing of by itself */
    uint64_t map_bytes;
    uint32_t registered; /* pieces of `map`, by the test, each of `piece_bytes` */
    uint64_t piece_bytes;
};

static int harbour_setup(void **state)
{
    (void)device_scene_make(state, sizeof(struct harbour));
    return 0;
}

/* The manager is gone: its memory may go. */
static bool give_back(struct harbour *harbour)
{
    bool good = true;
    for (; harbour->registered > 0; harbour->registered--)
        good = cudaHostUnregister(harbour->map + (harbour->registered - 1) *
                                                     harbour->piece_bytes) == cudaSuccess &&
               good;
    if (harbour->map != NULL)
        good = munmap(harbour->map, harbour->map_bytes) == 0 && good;
    harbour->map = NULL;
    return good;
}

static int harbour_teardown(void **state)
{
    struct harbour *harbour = *state;
    bool good = kv_rig_end(&harbour->scene.rig);
    good = give_back(harbour) && good;
    good = device_scene_end(&harbour->scene) && good;
    free(harbour);
    return good ? 0 : -1;
}

static void map(struct harbour *harbour, uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    harbour->map = memory;
    harbour->map_bytes = bytes;
}

static uint64_t block_bytes(const struct harbour *harbour)
{
    return LAYERS * PARTS * harbour->scene.rig.layout.chunk_bytes;
}

/* The device's run begins, the manager is not open yet. */
static void prepare(struct harbour *harbour, uint64_t chunk_bytes, uint32_t method)
{
    device_scene_init(&harbour->scene, BLOCKS, BLOCKS);
    device_scene_layout(&harbour->scene, LAYERS, PARTS, chunk_bytes);
    harbour->scene.rig.tiers[0].copy_method = method;
}

static void open_at(struct harbour *harbour, void *memory)
{
    struct kvb_tier_config *host = &harbour->scene.rig.tiers[1];
    host->memory = memory;
    host->memory_bytes = host->block_count * block_bytes(harbour);
    kv_rig_open(&harbour->scene.rig);
}

static void expect_pinned(struct harbour *harbour, uint64_t pinned, uint64_t unpinnable)
{
    struct kvb_stats stats = kv_stats(&harbour->scene.rig);
    assert_int_equal(stats.pinned_bytes, pinned);
    assert_int_equal(stats.unpinnable_bytes, unpinnable);
}

/* Until the end of the manager, whose memory stays the caller's. */
static void move(struct harbour *harbour)
{
    device_scene_round_trip(&harbour->scene, 1, BLOCKS, 0);
    device_scene_round_trip(&harbour->scene, 2, BLOCKS, KVB_ONBOARD_LAYERS);
    kv_rig_close(&harbour->scene.rig);
}

static const uint32_t methods[] = {KVB_COPY_PLAIN, KVB_COPY_RECT, KVB_COPY_BATCH};
#define METHODS (sizeof methods / sizeof *methods)

/* A driver before 12.8 has no batches. */
static bool has(uint32_t method)
{
    int driver = 0;
    cuda_ok(cudaDriverGetVersion(&driver));
    return method != KVB_COPY_BATCH || driver >= 12080;
}

/* ---- Pinned by the caller -------------------------------------------------------------------- */

/* cudaHostAlloc, from the first byte on or somewhere within. */
static void move_in_allocated(struct harbour *harbour, uint64_t chunk_bytes, uint64_t offset)
{
    for (size_t i = 0; i < METHODS; i++) {
        prepare(harbour, chunk_bytes, methods[i]);
        if (!has(methods[i]))
            continue;
        uint64_t bytes = BLOCKS * block_bytes(harbour);
        unsigned char *memory = device_scene_malloc_pinned(&harbour->scene, bytes + offset);
        open_at(harbour, memory + offset);
        expect_pinned(harbour, bytes, 0);
        move(harbour);
    }
}

static void test_memory_that_cuda_allocated_is_used_as_it_is(void **state)
{
    move_in_allocated(*state, 4096, 0);
}

static void test_part_of_what_cuda_allocated_is_used_as_it_is(void **state)
{
    move_in_allocated(*state, 1000, 64);
}

/* Registrations of `blocks` blocks each, one behind the other: no copy may cross two of them. */
static void move_in_registered(struct harbour *harbour, uint32_t blocks)
{
    for (size_t i = 0; i < METHODS; i++) {
        prepare(harbour, PAGE, methods[i]);
        if (!has(methods[i]))
            continue;
        map(harbour, BLOCKS * block_bytes(harbour));
        harbour->piece_bytes = blocks * block_bytes(harbour);
        for (; harbour->registered * blocks < BLOCKS; harbour->registered++)
            cuda_ok(cudaHostRegister(harbour->map + harbour->registered * harbour->piece_bytes,
                                     harbour->piece_bytes, cudaHostRegisterPortable));
        open_at(harbour, harbour->map);
        expect_pinned(harbour, BLOCKS * block_bytes(harbour), 0);
        move(harbour);
        assert_true(give_back(harbour));
    }
}

static void test_one_registration_of_the_caller_is_used_as_it_is(void **state)
{
    move_in_registered(*state, BLOCKS);
}

static void test_several_registrations_of_the_caller_are_used_as_they_are(void **state)
{
    move_in_registered(*state, 8);
}

static void test_registration_for_each_block_is_used_as_it_is(void **state)
{
    move_in_registered(*state, 1);
}

/* ---- Pinned by the library ------------------------------------------------------------------- */

/* The caller's own bytes beside the tier's are left alone. */
static void move_off_a_page(struct harbour *harbour, uint64_t chunk_bytes, uint64_t offset)
{
    for (size_t i = 0; i < METHODS; i++) {
        prepare(harbour, chunk_bytes, methods[i]);
        if (!has(methods[i]))
            continue;
        uint64_t bytes = BLOCKS * block_bytes(harbour);
        map(harbour, bytes + 2 * PAGE);
        memset(harbour->map, 0x5a, harbour->map_bytes);
        open_at(harbour, harbour->map + offset);
        expect_pinned(harbour, bytes, 0);
        move(harbour);
        for (uint64_t at = 0; at < harbour->map_bytes; at++)
            if (at < offset || at >= offset + bytes)
                assert_int_equal(harbour->map[at], 0x5a);
        assert_true(give_back(harbour));
    }
}

static void test_memory_off_a_page_is_pinned_whole_within_a_piece(void **state)
{
    move_off_a_page(*state, 4096, 64);
}

static void test_blocks_that_share_pages_are_moved_to_the_last_byte(void **state)
{
    move_off_a_page(*state, 333, 4032);
}

static uint32_t slot_of(struct harbour *harbour, struct kvb_block *block)
{
    return kvb_block_slot(harbour->scene.rig.kv, block);
}

/* All of HOST is taken, but for the slots of [first, first + count). */
static uint32_t leave_free(struct harbour *harbour, uint32_t first, uint32_t count,
                           struct kvb_block **taken)
{
    struct kv_rig *rig = &harbour->scene.rig;
    uint32_t blocks = rig->tiers[1].block_count, kept = 0;
    struct kvb_block *all[64];
    assert_true(blocks <= 64);
    mv_alloc_many(rig, KVB_TIER_HOST, blocks, all);
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t slot = slot_of(harbour, all[i]);
        if (slot >= first && slot < first + count)
            kv_unref(rig, all[i]);
        else
            taken[kept++] = all[i];
    }
    assert_int_equal(kept, blocks - count);
    return kept;
}

/*
 * Pieces are 63 MiB of blocks of 1.5: the one in slot 41 lies across the first edge, and is copied
 * by the detour between two that are not.
 */
static void test_block_across_an_edge_takes_the_detour(void **state)
{
    enum { SLOTS = 44, ACROSS = 41, MOVED = 3 };
    struct harbour *harbour = *state;
    struct device_scene *scene = &harbour->scene;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *taken[SLOTS];
    struct mv_run run;
    device_scene_init(scene, MOVED, SLOTS);
    device_scene_layout(scene, LAYERS, PARTS, MIB / 4);
    rig->tiers[0].copy_method = KVB_COPY_PLAIN;
    map(harbour, SLOTS * block_bytes(harbour) + PAGE);
    open_at(harbour, harbour->map + 64);
    expect_pinned(harbour, (SLOTS - 1) * block_bytes(harbour), block_bytes(harbour));
    uint32_t kept = leave_free(harbour, ACROSS - 1, MOVED, taken);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 5, MOVED, 0);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, MOVED, 50, NULL, NULL));
    device_scene_flush(scene);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, MOVED);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_match(rig, &run), MOVED); /* as they arrived in HOST */
    bool across = false;
    for (uint32_t i = 0; i < MOVED; i++)
        across |= slot_of(harbour, run.blocks[i]) == ACROSS;
    assert_true(across);
    mv_drop(rig, &run);
    device_scene_lift(scene, &run, KVB_TIER_HOST, NULL, 0);
    kv_ok(kvb_block_unref(rig->kv, taken, kept, NULL));
    kv_rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(harbour, test_memory_that_cuda_allocated_is_used_as_it_is),
        TEST(harbour, test_part_of_what_cuda_allocated_is_used_as_it_is),
        TEST(harbour, test_one_registration_of_the_caller_is_used_as_it_is),
        TEST(harbour, test_several_registrations_of_the_caller_are_used_as_they_are),
        TEST(harbour, test_registration_for_each_block_is_used_as_it_is),
        TEST(harbour, test_memory_off_a_page_is_pinned_whole_within_a_piece),
        TEST(harbour, test_blocks_that_share_pages_are_moved_to_the_last_byte),
        TEST(harbour, test_block_across_an_edge_takes_the_detour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
