/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What calibration chooses, how long it takes and how much it tries, where every cost is known: the
 * sources as they are, on a runtime whose copies take time and move nothing (virtual_runtime.h).
 */
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

#include "cuda/virtual_runtime.h"
#include "transfer/cuda/copies.h"
#include "transfer/cuda/cuda.h"

#define BUDGET_US 30e3
#define TRIAL_CHUNKS 256u
#define BLOCKS 4096u
#define KIB UINT64_C(1024)

/* ---- A calibration --------------------------------------------------------------------------- */

struct shape {
    uint64_t chunk;
    uint32_t layers, parts;
    bool joined; /* a block's chunks are neighbours; else each layer is one tensor, K before V */
};

static int push(void *context)
{
    (void)context;
    return 0;
}

static int pop(void **context)
{
    *context = NULL;
    return 0;
}

static struct kvbi_strides strides_of(const struct shape *shape)
{
    uint64_t block = shape->layers * shape->parts * shape->chunk;
    struct kvbi_strides strides = {.layers = shape->layers,
                                   .parts = shape->parts,
                                   .chunk = shape->chunk,
                                   .layer = shape->parts * shape->chunk,
                                   .part = shape->chunk,
                                   .block = block,
                                   .span_bytes = BLOCKS * block};
    if (shape->joined)
        return strides;
    strides.part = shape->parts > 1 ? BLOCKS * shape->chunk : shape->chunk;
    strides.block = shape->chunk;
    strides.layer = 0;
    strides.span_bytes = BLOCKS * shape->chunk * shape->parts;
    strides.bases = calloc(shape->layers, sizeof *strides.bases);
    for (uint32_t i = 0; i < shape->layers; i++)
        strides.bases[i] = (unsigned char *)((uintptr_t)(i + 1) << 40);
    return strides;
}

/* The copier that is made, until the next one is. */
static const struct kvbi_cuda_copier *calibrate(const struct virtual_costs *costs,
                                                const struct shape *shape,
                                                enum kvb_copy_method method)
{
    static struct kvbi_cuda_copier copier;
    static struct kvbi_memory memory;
    static struct kvbi_cuda cuda;
    char message[200] = "";
    assert_int_equal(kvbi_memory_init(&memory, NULL), 0);
    cuda = (struct kvbi_cuda){.memory = &memory,
                              .context = &cuda,
                              .driver = {.push = push, .pop = pop},
                              .strides = strides_of(shape)};
    virtual_start(costs, shape->chunk);
    if (kvbi_cuda_copier_create(&copier, &cuda, (unsigned char *)((uintptr_t)1 << 40), method,
                                message, sizeof message) != 0)
        fail_msg("%s", message);
    kvbi_cuda_copier_destroy(&copier);
    free(cuda.strides.bases);
    return &copier;
}

static void say_variant(const struct virtual_costs *costs, const struct shape *shape,
                        const struct kvbi_cuda_copier *copier)
{
    print_error("%llu bytes x %u x %u, kernel loads in %.0f ms, batch in %.0f, overlap %d: down %s "
                "x%u, up %s x%u, %.2f ms, %u chunks at once\n",
                (unsigned long long)shape->chunk, shape->layers, shape->parts,
                costs->loading_ms[KVB_COPY_KERNEL], costs->loading_ms[KVB_COPY_BATCH],
                costs->overlap, kvbi_cuda_method_name(copier->methods[0]), copier->grids[0],
                kvbi_cuda_method_name(copier->methods[1]), copier->grids[1],
                virtual_elapsed_us() / 1e3, virtual_books()->trial_chunks_max);
}

/* What holds whatever the costs are. */
static bool bounds_are_kept(const struct kvbi_cuda_copier *copier)
{
    const struct virtual_books *books = virtual_books();
    return books->allocations == 0 && books->trial_chunks_max <= TRIAL_CHUNKS &&
           virtual_elapsed_us() <= BUDGET_US && copier->grids[0] >= 1 && copier->grids[1] >= 1;
}

/* Both ways alike. */
static void expect_methods(const struct virtual_costs *costs, const struct shape *shape,
                           enum kvb_copy_method method)
{
    const struct kvbi_cuda_copier *copier = calibrate(costs, shape, KVB_COPY_AUTO);
    if (bounds_are_kept(copier) && copier->methods[0] == method && copier->methods[1] == method)
        return;
    say_variant(costs, shape, copier);
    fail_msg("not %s both ways, or beyond its bounds", kvbi_cuda_method_name(method));
}

/* ---- By published costs ---------------------------------------------------------------------- */

static const struct shape small_shapes[] = {{16 * KIB, 32, 2, false},
                                            {8 * KIB, 32, 2, false},
                                            {4 * KIB, 32, 2, false},
                                            {4 * KIB, 80, 2, false},
                                            {1 * KIB, 61, 1, false}};
static const struct shape large_shapes[] = {{2048 * KIB, 1, 1, false},
                                            {64 * KIB, 32, 2, false},
                                            {24576 * KIB, 1, 1, false}};
static const struct shape other_shapes[] = {
    {32 * KIB, 32, 2, false}, {24 * KIB, 80, 2, false},  {48 * KIB, 1, 1, false},
    {65 * KIB, 32, 2, false}, {128 * KIB, 32, 2, false}, {64 * KIB, 1, 4096, false},
    {128, 1000, 2, false},    {16, 1, 100000, false},    {4 * KIB, 160, 2, true}};

/* Each with kernels and batches that load fast and slowly, and both kinds of copy engine. */
#define VARIANTS 24u

static struct virtual_costs published_variant(uint32_t i)
{
    static const double kernel_ms[] = {1, 3, 10}, batch_ms[] = {0, 1, 5, 10};
    struct virtual_costs costs = virtual_published();
    costs.loading_ms[KVB_COPY_KERNEL] = kernel_ms[i % 3];
    costs.loading_ms[KVB_COPY_BATCH] = batch_ms[i / 3 % 4];
    costs.overlap = i / 12 != 0;
    return costs;
}

static void expect_of_each(const struct shape *shapes, size_t count, enum kvb_copy_method method)
{
    for (size_t s = 0; s < count; s++)
        for (uint32_t i = 0; i < VARIANTS; i++) {
            struct virtual_costs costs = published_variant(i);
            expect_methods(&costs, &shapes[s], method);
        }
}

static void test_kernels_are_chosen_for_small_chunks(void **state)
{
    (void)state;
    expect_of_each(small_shapes, sizeof small_shapes / sizeof *small_shapes, KVB_COPY_KERNEL);
}

static void test_batches_are_chosen_for_large_chunks(void **state)
{
    (void)state;
    expect_of_each(large_shapes, sizeof large_shapes / sizeof *large_shapes, KVB_COPY_BATCH);
}

static void test_any_choice_is_made_within_bounds(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof other_shapes / sizeof *other_shapes; s++)
        for (uint32_t i = 0; i < VARIANTS; i++) {
            struct virtual_costs costs = published_variant(i);
            const struct kvbi_cuda_copier *copier =
                calibrate(&costs, &other_shapes[s], KVB_COPY_AUTO);
            if (!bounds_are_kept(copier)) {
                say_variant(&costs, &other_shapes[s], copier);
                fail_msg("beyond its bounds");
            }
        }
}

/*
 * Two loads back to back, of 128 chunks each, take the kernel 357 us and batches 409, whose second
 * call hides behind the first one's copies: 1.15 times. Alone they would be at 1.33.
 */
static void test_calls_that_hide_behind_copies_count_for_nothing(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_published();
    struct shape shape = {64 * KIB, 32, 2, false};
    const struct kvbi_cuda_copier *copier = calibrate(&costs, &shape, KVB_COPY_AUTO);
    assert_int_equal(copier->methods[1], KVB_COPY_BATCH);
    assert_true(virtual_books()->copies[KVB_COPY_KERNEL] > 0); /* it was compared */
}

/* ---- By the rules' thresholds ---------------------------------------------------------------- */

/* Of a method whose copies are `gain` times as fast as those of the others. */
static void expect_with_gain(enum kvb_copy_method faster, double gain, uint64_t chunk,
                             enum kvb_copy_method chosen)
{
    struct virtual_costs costs = virtual_flat();
    struct shape shape = {chunk, 32, 2, false};
    costs.slowness[KVB_COPY_KERNEL] = 1.5;
    costs.slowness[faster] = 1 / gain;
    expect_methods(&costs, &shape, chosen);
}

static void test_kernels_are_chosen_above_16_kib_if_they_are_a_quarter_faster(void **state)
{
    (void)state;
    static const uint64_t chunks[] = {16 * KIB + 16, 32 * KIB, 64 * KIB};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        expect_with_gain(KVB_COPY_KERNEL, 1.2, chunks[i], KVB_COPY_BATCH);
        expect_with_gain(KVB_COPY_KERNEL, 1.3, chunks[i], KVB_COPY_KERNEL);
    }
}

static void test_kernels_are_chosen_up_to_16_kib_if_they_are_faster(void **state)
{
    (void)state;
    static const uint64_t chunks[] = {64, 4 * KIB, 16 * KIB};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        expect_with_gain(KVB_COPY_KERNEL, 0.98, chunks[i], KVB_COPY_BATCH);
        expect_with_gain(KVB_COPY_KERNEL, 1.02, chunks[i], KVB_COPY_KERNEL);
    }
}

static void test_kernels_are_not_even_loaded_above_64_kib(void **state)
{
    (void)state;
    static const uint64_t chunks[] = {64 * KIB + 16, 128 * KIB, 2048 * KIB};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        expect_with_gain(KVB_COPY_KERNEL, 4, chunks[i], KVB_COPY_BATCH);
        assert_int_equal(virtual_books()->copies[KVB_COPY_KERNEL], 0);
    }
}

static void test_other_copies_replace_batches_if_they_are_clearly_faster(void **state)
{
    (void)state;
    static const uint64_t chunks[] = {4 * KIB, 32 * KIB, 256 * KIB};
    static const enum kvb_copy_method others[] = {KVB_COPY_PLAIN, KVB_COPY_RECT};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (size_t m = 0; m < 2; m++) {
            expect_with_gain(others[m], 1.04, chunks[i], KVB_COPY_BATCH);
            expect_with_gain(others[m], 1.06, chunks[i], others[m]);
        }
}

static void test_fastest_of_those_that_are_clearly_faster_is_chosen(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_flat();
    struct shape shape = {2048 * KIB, 1, 1, false};
    costs.slowness[KVB_COPY_KERNEL] = 1.5;
    costs.slowness[KVB_COPY_PLAIN] = 1 / 1.2;
    costs.slowness[KVB_COPY_RECT] = 1 / 1.1;
    expect_methods(&costs, &shape, KVB_COPY_PLAIN);
    costs.slowness[KVB_COPY_RECT] = 1 / 1.3;
    expect_methods(&costs, &shape, KVB_COPY_RECT);
}

/* The kernel has to be a quarter faster than what would be taken without it. */
static void test_kernels_are_compared_with_the_best_of_the_others(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_flat();
    struct shape shape = {32 * KIB, 32, 2, false};
    costs.slowness[KVB_COPY_PLAIN] = 1 / 1.2;
    costs.slowness[KVB_COPY_KERNEL] = 1 / 1.4;
    expect_methods(&costs, &shape, KVB_COPY_PLAIN);
    costs.slowness[KVB_COPY_KERNEL] = 1 / 1.6;
    expect_methods(&costs, &shape, KVB_COPY_KERNEL);
}

/* What is joined goes as one copy, and is as large as that. */
static void test_joined_chunks_count_as_one(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_flat();
    struct shape block = {4 * KIB, 32, 2, true}, parts = {12 * KIB, 1, 2, true};
    costs.slowness[KVB_COPY_KERNEL] = 1 / 1.2;
    expect_methods(&costs, &block, KVB_COPY_BATCH);
    assert_int_equal(virtual_books()->copies[KVB_COPY_KERNEL], 0);
    /* they are neighbours where it is tried as well: two blocks a load, two loads a trial */
    assert_int_equal(virtual_books()->copies[KVB_COPY_PLAIN], 2 + 2 * 3 * 2 * 2);
    expect_methods(&costs, &parts, KVB_COPY_BATCH);
    assert_true(virtual_books()->copies[KVB_COPY_KERNEL] > 0);
    parts.chunk = 8 * KIB;
    expect_methods(&costs, &parts, KVB_COPY_KERNEL);
}

static void test_without_batches_plain_copies_are_the_usual_ones(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_published();
    struct shape small = {4 * KIB, 32, 2, false}, large = {2048 * KIB, 1, 1, false};
    costs.driver = 12060;
    expect_methods(&costs, &small, KVB_COPY_KERNEL);
    expect_methods(&costs, &large, KVB_COPY_PLAIN);
    assert_int_equal(virtual_books()->copies[KVB_COPY_BATCH], 0);
}

/* Each way by its own times: up, copies of 32 KiB are slow, down they are as fast as the kernel. */
static double slow_upwards(uint64_t bytes, bool to_device)
{
    return (double)bytes / (to_device ? 4e3 : 10e3);
}

static void test_each_way_is_chosen_for_itself(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_flat();
    struct shape shape = {32 * KIB, 32, 2, false};
    costs.piece_us = slow_upwards;
    costs.slowness[KVB_COPY_PLAIN] = costs.slowness[KVB_COPY_RECT] = 1.5;
    const struct kvbi_cuda_copier *copier = calibrate(&costs, &shape, KVB_COPY_AUTO);
    assert_int_equal(copier->methods[0], KVB_COPY_BATCH);
    assert_int_equal(copier->methods[1], KVB_COPY_KERNEL);
}

/* ---- The budget ------------------------------------------------------------------------------ */

/* Of a link that is so much slower than the published one a single trial may be too long. */
static void test_no_trial_begins_that_the_rest_cannot_hold(void **state)
{
    (void)state;
    static const double slower[] = {2, 5, 10, 20, 50, 100};
    static const struct shape shapes[] = {{2048 * KIB, 1, 1, false},
                                          {64 * KIB, 32, 2, false},
                                          {16 * KIB, 32, 2, false},
                                          {1 * KIB, 61, 1, false}};
    for (size_t s = 0; s < sizeof slower / sizeof *slower; s++)
        for (uint32_t i = 0; i < VARIANTS * 4; i++) {
            struct virtual_costs costs = published_variant(i / 4);
            for (int method = 0; method < VIRTUAL_METHODS; method++)
                costs.slowness[method] = slower[s];
            const struct kvbi_cuda_copier *copier =
                calibrate(&costs, &shapes[i % 4], KVB_COPY_AUTO);
            if (!bounds_are_kept(copier)) {
                say_variant(&costs, &shapes[i % 4], copier);
                fail_msg("%.0f times slower: beyond its bounds", slower[s]);
            }
        }
}

static void test_memory_that_is_slow_to_take_leaves_time_to_give_it_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < VARIANTS; i++) {
        struct virtual_costs costs = published_variant(i);
        costs.pinned_us_per_mib = 500;
        expect_methods(&costs, &large_shapes[0], KVB_COPY_BATCH);
        expect_methods(&costs, &small_shapes[i % 5], KVB_COPY_KERNEL);
    }
}

/* Nobody can know how long a first call takes. What comes after it is not begun any more. */
static void test_nothing_is_called_after_a_first_call_that_took_all_the_time(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_published();
    costs.loading_ms[KVB_COPY_KERNEL] = 40;
    const struct kvbi_cuda_copier *copier = calibrate(&costs, &small_shapes[0], KVB_COPY_AUTO);
    const struct virtual_books *books = virtual_books();
    assert_int_equal(copier->methods[0], KVB_COPY_BATCH); /* nothing is known */
    assert_int_equal(copier->methods[1], KVB_COPY_BATCH);
    assert_int_equal(books->copies[KVB_COPY_BATCH], 2); /* does it work, both ways */
    assert_int_equal(books->copies[KVB_COPY_KERNEL], 2);
    assert_int_equal(books->copies[KVB_COPY_RECT], 0);
}

/* With too little left for a kernel's, which may take 10 ms, that is not begun either. */
static void test_no_kernel_is_loaded_without_time_for_it(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_published();
    costs.loading_ms[KVB_COPY_BATCH] = 22;
    assert_true(bounds_are_kept(calibrate(&costs, &small_shapes[0], KVB_COPY_AUTO)));
    assert_int_equal(virtual_books()->copies[KVB_COPY_KERNEL], 0);
    costs.loading_ms[KVB_COPY_BATCH] = 15;
    costs.loading_ms[KVB_COPY_KERNEL] = 10;
    expect_methods(&costs, &small_shapes[0], KVB_COPY_KERNEL);
}

/* A method that nobody has seen work is no default. */
static void test_batches_are_called_even_if_memory_took_all_the_time(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_published();
    costs.malloc_us = 20e3;
    const struct kvbi_cuda_copier *copier = calibrate(&costs, &small_shapes[0], KVB_COPY_AUTO);
    assert_int_equal(copier->methods[0], KVB_COPY_BATCH);
    assert_int_equal(virtual_books()->copies[KVB_COPY_BATCH], 2);
    assert_int_equal(virtual_books()->copies[KVB_COPY_KERNEL], 0);
    costs.chunks_max[KVB_COPY_BATCH] = 1; /* they do not work */
    copier = calibrate(&costs, &small_shapes[0], KVB_COPY_AUTO);
    assert_int_equal(copier->methods[0], KVB_COPY_PLAIN);
    assert_int_equal(copier->methods[1], KVB_COPY_PLAIN);
}

/* What does for a few chunks and not for a load is not chosen, be it ever so fast. */
static void test_method_that_refuses_a_load_is_not_chosen(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_published();
    costs.chunks_max[KVB_COPY_KERNEL] = 100;
    const struct kvbi_cuda_copier *copier = NULL;
    for (int i = 0; i < 2; i++) {
        costs.only_up = i != 0; /* then it is not trusted with the other way either */
        copier = calibrate(&costs, &small_shapes[0], KVB_COPY_AUTO);
        assert_int_not_equal(copier->methods[0], KVB_COPY_KERNEL);
        assert_int_not_equal(copier->methods[1], KVB_COPY_KERNEL);
        assert_false(copier->kernel);
    }
    costs = virtual_flat();
    costs.slowness[KVB_COPY_PLAIN] = 2;
    costs.slowness[KVB_COPY_RECT] = costs.slowness[KVB_COPY_KERNEL] = 1.5;
    costs.chunks_max[KVB_COPY_BATCH] = 100;
    expect_methods(&costs, &(struct shape){64 * KIB, 32, 2, false}, KVB_COPY_RECT);
    assert_false(copier->batch);
    assert_int_equal(virtual_books()->trials[KVB_COPY_BATCH], 2 + 1); /* and not again */
}

/* Three trials of each way: the first of all would do as long as costs do not vary. */
static void test_each_method_is_measured_three_times(void **state)
{
    (void)state;
    struct virtual_costs costs = virtual_flat();
    struct shape shape = {16 * KIB, 32, 2, false};
    (void)calibrate(&costs, &shape, KVB_COPY_AUTO);
    const struct virtual_books *books = virtual_books();
    assert_int_equal(books->trials[KVB_COPY_BATCH], 2 + 2 * 3);
    assert_int_equal(books->trials[KVB_COPY_RECT], 2 + 2 * 3);
    assert_int_equal(books->trials[KVB_COPY_KERNEL], 2 + 3 * 2 * 3); /* with three grids */
    assert_int_equal(books->trial_chunks_max, TRIAL_CHUNKS);
    costs.slowness[KVB_COPY_RECT] = 2.5; /* hopeless */
    (void)calibrate(&costs, &shape, KVB_COPY_AUTO);
    assert_int_equal(virtual_books()->trials[KVB_COPY_RECT], 2 + 2);
}

/* ---- The grid -------------------------------------------------------------------------------- */

static void expect_grid(const struct virtual_costs *costs, enum kvb_copy_method method,
                        uint32_t grid)
{
    const struct kvbi_cuda_copier *copier = calibrate(costs, &small_shapes[0], method);
    assert_int_equal(copier->methods[0], KVB_COPY_KERNEL);
    assert_int_equal(copier->methods[1], KVB_COPY_KERNEL);
    assert_int_equal(copier->grids[0], grid);
    assert_int_equal(copier->grids[1], grid);
    assert_true(bounds_are_kept(copier));
}

static void test_grid_is_the_smallest_that_is_about_as_fast_as_the_best(void **state)
{
    (void)state;
    static const enum kvb_copy_method methods[] = {KVB_COPY_AUTO, KVB_COPY_KERNEL};
    for (size_t i = 0; i < 2; i++) {
        struct virtual_costs costs = virtual_flat();
        costs.slowness[KVB_COPY_BATCH] = costs.slowness[KVB_COPY_PLAIN] =
            costs.slowness[KVB_COPY_RECT] = 20;
        costs.block_gbps = 4.85; /* two have 97 % of the link, more all of it */
        expect_grid(&costs, methods[i], 2);
        costs.block_gbps = 4.6; /* 92 % */
        expect_grid(&costs, methods[i], 4);
        costs.block_gbps = 2.42; /* four have 97 % */
        expect_grid(&costs, methods[i], 4);
        costs.block_gbps = 1; /* no number has all */
        expect_grid(&costs, methods[i], 8);
    }
}

static void test_grid_takes_no_more_than_a_16th_of_the_multiprocessors(void **state)
{
    (void)state;
    static const struct {
        int multiprocessors;
        uint32_t most;
    } gpus[] = {{8, 1}, {31, 1}, {32, 2}, {63, 2}, {64, 4}, {127, 4}, {128, 8}, {1000, 8}};
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++) {
        struct virtual_costs costs = virtual_published();
        costs.multiprocessors = gpus[i].multiprocessors;
        costs.block_gbps = 5; /* more are faster */
        expect_grid(&costs, KVB_COPY_KERNEL, gpus[i].most);
        for (uint32_t grid = gpus[i].most + 1; grid <= VIRTUAL_GRID_MAX; grid++)
            assert_int_equal(virtual_books()->launches[grid], 0);
    }
}

/* Asked for by name it has to work, however long it loads; its grid is not worth any more time. */
static void test_grid_without_time_is_four_or_what_is_allowed(void **state)
{
    (void)state;
    static const struct {
        int multiprocessors;
        uint32_t grid;
    } gpus[] = {{132, 4}, {40, 2}, {20, 1}};
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++) {
        struct virtual_costs costs = virtual_published();
        costs.multiprocessors = gpus[i].multiprocessors;
        costs.loading_ms[KVB_COPY_KERNEL] = 40;
        const struct kvbi_cuda_copier *copier =
            calibrate(&costs, &small_shapes[0], KVB_COPY_KERNEL);
        assert_int_equal(copier->methods[1], KVB_COPY_KERNEL);
        assert_int_equal(copier->grids[0], gpus[i].grid);
        assert_int_equal(copier->grids[1], gpus[i].grid);
        assert_int_equal(virtual_books()->copies[KVB_COPY_KERNEL], 2);
    }
}

/* Large chunks too, if the caller says so. */
static void test_named_kernel_is_taken_whatever_it_takes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < VARIANTS; i++) {
        struct virtual_costs costs = published_variant(i);
        const struct kvbi_cuda_copier *copier =
            calibrate(&costs, &large_shapes[i % 3], KVB_COPY_KERNEL);
        assert_int_equal(copier->methods[0], KVB_COPY_KERNEL);
        assert_int_equal(copier->methods[1], KVB_COPY_KERNEL);
        assert_int_equal(copier->grids[1], 2);
        assert_int_equal(virtual_books()->copies[KVB_COPY_BATCH], 0);
        assert_true(bounds_are_kept(copier));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_kernels_are_chosen_for_small_chunks),
        TEST(bare, test_batches_are_chosen_for_large_chunks),
        TEST(bare, test_any_choice_is_made_within_bounds),
        TEST(bare, test_calls_that_hide_behind_copies_count_for_nothing),
        TEST(bare, test_kernels_are_chosen_above_16_kib_if_they_are_a_quarter_faster),
        TEST(bare, test_kernels_are_chosen_up_to_16_kib_if_they_are_faster),
        TEST(bare, test_kernels_are_not_even_loaded_above_64_kib),
        TEST(bare, test_other_copies_replace_batches_if_they_are_clearly_faster),
        TEST(bare, test_fastest_of_those_that_are_clearly_faster_is_chosen),
        TEST(bare, test_kernels_are_compared_with_the_best_of_the_others),
        TEST(bare, test_joined_chunks_count_as_one),
        TEST(bare, test_without_batches_plain_copies_are_the_usual_ones),
        TEST(bare, test_each_way_is_chosen_for_itself),
        TEST(bare, test_no_trial_begins_that_the_rest_cannot_hold),
        TEST(bare, test_memory_that_is_slow_to_take_leaves_time_to_give_it_back),
        TEST(bare, test_nothing_is_called_after_a_first_call_that_took_all_the_time),
        TEST(bare, test_no_kernel_is_loaded_without_time_for_it),
        TEST(bare, test_batches_are_called_even_if_memory_took_all_the_time),
        TEST(bare, test_method_that_refuses_a_load_is_not_chosen),
        TEST(bare, test_each_method_is_measured_three_times),
        TEST(bare, test_grid_is_the_smallest_that_is_about_as_fast_as_the_best),
        TEST(bare, test_grid_takes_no_more_than_a_16th_of_the_multiprocessors),
        TEST(bare, test_grid_without_time_is_four_or_what_is_allowed),
        TEST(bare, test_named_kernel_is_taken_whatever_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
