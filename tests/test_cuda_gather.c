/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gather kernel's arithmetic, which gather.cu compiles for the GPU: each word of each chunk is
 * moved by one thread of the grid and once, and large chunks by several warps.
 */
#include "support/test.h"

#include <stdbool.h>
#include <stdlib.h>

#include "transfer/cuda/gather.h"

/* ---- Words that count how often they are moved ----------------------------------------------- */

/* Nothing lies at the addresses that the kernel computes: base and host are told apart by them. */
#define DEVICE ((uintptr_t)1 << 40)
#define HOST ((uintptr_t)1 << 44)

typedef struct {
    unsigned char bytes[KVBI_GATHER_ALIGNMENT];
} kvbi_gather_word;

static unsigned char *moved; /* by word of the host's side */
static uint64_t word_count;
static uint32_t warp_moved; /* words of the warp that runs */

static unsigned char *kvbi_gather_memory(unsigned char *address)
{
    return address;
}

static kvbi_gather_word kvbi_gather_load(const kvbi_gather_word *from)
{
    (void)from;
    return (kvbi_gather_word){{0}};
}

static void kvbi_gather_store(kvbi_gather_word *to, kvbi_gather_word word)
{
    uint64_t n = ((uintptr_t)to - HOST) / sizeof word;
    assert_true(n < word_count);
    moved[n]++;
    warp_moved++;
}

#define KVBI_GATHER_FUNCTION static inline
#include "transfer/cuda/gather_thread.h"

/* ---- Launches -------------------------------------------------------------------------------- */

static struct kvbi_gather launch_of(uint64_t chunk, uint32_t chunks, uint32_t grid)
{
    struct kvbi_gather g = {.base = (unsigned char *)DEVICE,
                            .chunk = chunk,
                            .layer_stride = chunk,
                            .part_stride = chunk,
                            .block_stride = chunks * chunk,
                            .layers = chunks,
                            .parts = 1,
                            .count = 1,
                            .grid = grid};
    g.host[0] = (unsigned char *)HOST;
    return g;
}

/* Runs all threads; the most words that one warp has moved. */
static uint32_t run(const struct kvbi_gather *g)
{
    uint32_t most = 0;
    word_count = g->count * g->layers * g->parts * g->chunk / KVBI_GATHER_ALIGNMENT;
    moved = calloc(word_count, 1);
    for (uint32_t thread = 0; thread < g->grid * KVBI_GATHER_THREADS; thread++) {
        warp_moved = thread % KVBI_GATHER_WARP == 0 ? 0 : warp_moved;
        kvbi_gather_thread(g, NULL, thread / KVBI_GATHER_THREADS, thread % KVBI_GATHER_THREADS);
        most = warp_moved > most ? warp_moved : most;
    }
    for (uint64_t i = 0; i < word_count; i++)
        assert_int_equal(moved[i], 1);
    free(moved);
    return most;
}

static void test_each_word_is_moved_once(void **state)
{
    (void)state;
    static const uint64_t chunks[] = {16,    48,    512,   528,   4096,   16368,
                                      16384, 16400, 24576, 32752, 131088, 1048592};
    static const uint32_t counts[] = {1, 3, 33}, grids[] = {1, 2, 3, 8};
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
            for (size_t k = 0; k < sizeof grids / sizeof *grids; k++) {
                struct kvbi_gather g = launch_of(chunks[c], counts[i], grids[k]);
                (void)run(&g);
            }
}

/* Else one warp would move it alone, while all others have nothing to do. */
static void test_large_chunk_is_moved_by_several_warps(void **state)
{
    (void)state;
    struct kvbi_gather small = launch_of(16 << 10, 1, 2), large = launch_of(24 << 10, 1, 2),
                       larger = launch_of(512 << 10, 1, 2);
    assert_int_equal(run(&small) * KVBI_GATHER_ALIGNMENT, 16 << 10);
    assert_int_equal(run(&large) * KVBI_GATHER_ALIGNMENT, 12 << 10);
    /* 32 pieces for 32 warps */
    assert_int_equal(run(&larger) * KVBI_GATHER_ALIGNMENT, 16 << 10);
}

/* A line of the GPU's cache is 128 bytes, and a warp moves four of them in a step. */
static void test_pieces_are_of_whole_steps_and_not_empty(void **state)
{
    (void)state;
    for (uint64_t chunk = 16; chunk < 600 << 10; chunk += 1040) {
        struct kvbi_gather g = launch_of(chunk / 16 * 16, 1, 1);
        uint64_t begin = 0;
        for (uint32_t n = 0; n < kvbi_gather_pieces(&g); n++) {
            struct kvbi_gather_piece piece = kvbi_gather_piece(&g, NULL, n);
            assert_true(piece.host == (unsigned char *)(HOST + begin));
            assert_true(piece.device == (unsigned char *)(DEVICE + begin));
            assert_int_equal(begin % 512, 0);
            assert_true(piece.bytes > 0 && piece.bytes <= 16 << 10);
            begin += piece.bytes;
        }
        assert_int_equal(begin, g.chunk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_each_word_is_moved_once),
        TEST(bare, test_large_chunk_is_moved_by_several_warps),
        TEST(bare, test_pieces_are_of_whole_steps_and_not_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
