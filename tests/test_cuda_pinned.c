/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which blocks of host memory count as pinned, wherever the memory begins and whoever has pinned
 * it.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/cuda_scene.h"
#include "transfer/cuda/registration.h"
#include "transfer/memory/tier.h"

#define MIB ((uint64_t)1 << 20)

struct bench {
    struct kv_heap heap;
    struct kvbi_memory memory;
    struct kvbi_log log;
    struct kvbi_cuda *cuda;
    struct kvbi_tier tier;
    unsigned char *map; /* the caller's memory, or NULL */
    uint64_t map_bytes;
};

static int bench_teardown(void **state)
{
    struct bench *b = *state;
    kvbi_tier_destroy(&b->tier);
    kvbi_cuda_close(b->cuda, NULL);
    bool quiet = fake_cuda_end() == 0;
    bool unmapped = b->map == NULL || munmap(b->map, b->map_bytes) == 0;
    bool back = b->heap.live_blocks == 0 && b->heap.wrong_frees == 0;
    if (!quiet || !back || !unmapped)
        print_error("something was reported, or not freed\n");
    free(b);
    return quiet && back && unmapped ? 0 : -1;
}

static int open_bench(void **state, const struct kvb_allocator *allocator)
{
    struct bench *b = *state;
    char message[256];
    fake_cuda_start(NULL);
    kvbi_log_init(&b->log, NULL);
    return kvbi_memory_init(&b->memory, allocator) != 0 ||
                   kvbi_cuda_open(&b->cuda, &b->memory, 0, message, sizeof message) != 0
               ? -1
               : 0;
}

static int bench_setup(void **state)
{
    *state = calloc(1, sizeof(struct bench));
    return *state == NULL ? -1 : open_bench(state, NULL);
}

/* With all memory counted. */
static int counting_bench_setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    *state = b;
    return b == NULL
               ? -1
               : open_bench(state, &(struct kvb_allocator){kv_heap_alloc, kv_heap_free, &b->heap});
}

#define counting_bench_teardown bench_teardown

/* By the caller, without pauses. */
static void register_tier(struct bench *b)
{
    const struct kvbi_register_config config = {.log = &b->log, .duty_percent = 100};
    kv_ok(kvbi_cuda_registration_create(&b->tier, b->cuda, &config));
}

static void pin(struct bench *b, void *base, uint32_t blocks, uint64_t block_bytes)
{
    kv_ok(kvbi_tier_host_create(&b->tier, &b->memory, KVB_TIER_HOST, blocks, block_bytes, base));
    register_tier(b);
}

static unsigned char *map(struct bench *b, uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    b->map = memory;
    b->map_bytes = bytes;
    return memory;
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

static void test_memory_off_a_page_is_pinned_but_for_blocks_across_an_edge(void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, 71 * MIB);
    pin(b, memory + 64, 70, MIB);
    for (uint32_t slot = 0; slot < 70; slot++) { /* an edge is 64 MiB behind the first page */
        assert_int_equal(kvbi_cuda_registration_covers(kvbi_cuda_registration_of(&b->tier), slot),
                         slot != 63);
        assert_true(slot == 63 || fake_cuda_is_pinned(kvbi_tier_address(&b->tier, slot), MIB));
    }
    assert_int_equal(kvbi_cuda_registration_bytes(kvbi_cuda_registration_of(&b->tier)), 69 * MIB);
    assert_int_equal(kvbi_cuda_registration_refused_bytes(kvbi_cuda_registration_of(&b->tier)),
                     MIB);
}

static void test_large_blocks_off_a_page_are_pinned_as_well(void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, 129 * MIB);
    /* as large as a piece: were it one block, each would lie across an edge */
    pin(b, memory + 64, 2, 64 * MIB);
    assert_int_equal(kvbi_cuda_registration_bytes(kvbi_cuda_registration_of(&b->tier)), 128 * MIB);
    assert_int_equal(kvbi_cuda_registration_refused_bytes(kvbi_cuda_registration_of(&b->tier)), 0);
}

static void test_last_piece_ends_with_the_memory(void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, 130 * MIB);
    pin(b, memory, 65, MIB);
    assert_int_equal(kvbi_cuda_registration_bytes(kvbi_cuda_registration_of(&b->tier)), 65 * MIB);
    assert_true(fake_cuda_is_pinned(memory + 64 * MIB, MIB));
    assert_false(fake_cuda_is_pinned(memory + 65 * MIB, 1));
}

static void test_blocks_of_two_pieces_have_different_registrations(void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, 65 * MIB);
    pin(b, memory, 65, MIB);
    const struct kvbi_cuda_registration *registration = kvbi_cuda_registration_of(&b->tier);
    assert_ptr_equal(kvbi_cuda_registration_piece(registration, 0),
                     kvbi_cuda_registration_piece(registration, 63));
    assert_ptr_not_equal(kvbi_cuda_registration_piece(registration, 63),
                         kvbi_cuda_registration_piece(registration, 64));
}

/* ---- Pinned by the caller -------------------------------------------------------------------- */

static void test_memory_pinned_at_both_ends_only_does_not_count_as_pinned(void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, 4 * 4096);
    cuda_ok(cudaHostRegister(memory, 4096, cudaHostRegisterPortable));
    cuda_ok(cudaHostRegister(memory + 3 * 4096, 4096, cudaHostRegisterPortable));
    pin(b, memory, 4, 4096);
    assert_false(kvbi_cuda_registration_covers(kvbi_cuda_registration_of(&b->tier), 1));
    assert_false(kvbi_cuda_registration_covers(kvbi_cuda_registration_of(&b->tier), 2));
    assert_int_equal(kvbi_cuda_registration_refused_bytes(kvbi_cuda_registration_of(&b->tier)),
                     4 * 4096);
    cuda_ok(cudaHostUnregister(memory));
    cuda_ok(cudaHostUnregister(memory + 3 * 4096));
}

static void test_block_of_memory_that_the_caller_pinned_shares_its_registration_with_none(
    void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, 2 * 4096);
    cuda_ok(cudaHostRegister(memory, 4096, cudaHostRegisterPortable));
    cuda_ok(cudaHostRegister(memory + 4096, 4096, cudaHostRegisterPortable));
    pin(b, memory, 2, 4096);
    assert_true(kvbi_cuda_registration_covers(kvbi_cuda_registration_of(&b->tier), 0) &&
                kvbi_cuda_registration_covers(kvbi_cuda_registration_of(&b->tier), 1));
    assert_ptr_not_equal(kvbi_cuda_registration_piece(kvbi_cuda_registration_of(&b->tier), 0),
                         kvbi_cuda_registration_piece(kvbi_cuda_registration_of(&b->tier), 1));
    kvbi_tier_destroy(&b->tier);
    cuda_ok(cudaHostUnregister(memory));
    cuda_ok(cudaHostUnregister(memory + 4096));
}

/* ---- Not for the next owner ------------------------------------------------------------------ */

/* As a copy's event may have said of a context that lives. */
static void lose(struct bench *b)
{
    (void)kvbi_cuda_check_own(&(struct kvbi_cuda_scope){.cuda = b->cuda}, cudaErrorNotPermitted);
    assert_true(kvbi_cuda_lost(b->cuda));
}

static void test_registration_ends_with_the_tier_though_the_gpu_counts_as_lost(void **state)
{
    struct bench *b = *state;
    pin(b, NULL, 4, MIB);
    const unsigned char *memory = b->tier.base;
    assert_true(fake_cuda_is_pinned(memory, 4 * MIB));
    lose(b);
    kvbi_tier_destroy(&b->tier);
    assert_false(fake_cuda_is_pinned(memory, 4 * MIB));
}

static void test_memory_that_stays_registered_is_not_given_back(void **state)
{
    struct bench *b = *state;
    pin(b, NULL, 4, MIB);
    unsigned char *memory = b->tier.base;
    int64_t others = b->heap.live_bytes - (int64_t)(4 * MIB);
    fake_cuda_fail("cudaHostUnregister", 1, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    kvbi_tier_destroy(&b->tier);
    assert_in_range(b->heap.live_bytes, 4 * MIB, 4 * MIB + (uint64_t)others);
    cuda_ok(cudaHostUnregister(memory));
    kv_heap_free(&b->heap, memory, 4 * MIB);
}

/* The server has reset the GPU: with its context the registrations went. */
static void test_memory_that_is_not_registered_any_more_is_given_back(void **state)
{
    struct bench *b = *state;
    pin(b, NULL, 4, MIB);
    unsigned char *memory = b->tier.base;
    cuda_ok(cudaHostUnregister(memory));
    kvbi_tier_destroy(&b->tier);
    /* all that there is to find it out by */
    assert_int_equal(fake_cuda_take_reports(FAKE_CUDA_BAD_HANDLE), 1);
}

static void test_own_memory_that_was_registered_before_takes_the_detour(void **state)
{
    struct bench *b = *state;
    kv_ok(kvbi_tier_host_create(&b->tier, &b->memory, KVB_TIER_HOST, 4, MIB, NULL));
    /* as of a former owner of the addresses */
    cuda_ok(cudaHostRegister(b->tier.base, 4 * MIB, cudaHostRegisterPortable));
    register_tier(b);
    assert_false(kvbi_cuda_registration_covers(kvbi_cuda_registration_of(&b->tier), 0));
    assert_int_equal(kvbi_cuda_registration_bytes(kvbi_cuda_registration_of(&b->tier)), 0);
    assert_int_equal(kvbi_cuda_registration_refused_bytes(kvbi_cuda_registration_of(&b->tier)),
                     4 * MIB);
    cuda_ok(cudaHostUnregister(b->tier.base));
}

/* ---- Children -------------------------------------------------------------------------------- */

/* Does the kernel keep the page from children? Its word for that in smaps is "dc". */
static bool is_kept_from_children(const void *page)
{
    char line[512];
    bool inside = false, kept = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = (uintptr_t)page >= start && (uintptr_t)page < end;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            kept = strstr(line, " dc") != NULL;
    }
    assert_int_equal(fclose(file), 0);
    return kept;
}

static void test_own_memory_is_kept_from_children_while_it_is_pinned(void **state)
{
    struct bench *b = *state;
    pin(b, NULL, 4, MIB);
    assert_true(is_kept_from_children(b->tier.base));
    kvbi_cuda_registration_destroy(kvbi_cuda_registration_of(&b->tier));
    b->tier.registration = NULL;
    assert_false(is_kept_from_children(b->tier.base));
}

static void test_memory_of_the_caller_is_not_kept_from_children(void **state)
{
    struct bench *b = *state;
    unsigned char *memory = map(b, MIB);
    pin(b, memory, 4, MIB / 4);
    assert_false(is_kept_from_children(memory));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bench, test_memory_off_a_page_is_pinned_but_for_blocks_across_an_edge),
        TEST(bench, test_large_blocks_off_a_page_are_pinned_as_well),
        TEST(bench, test_last_piece_ends_with_the_memory),
        TEST(bench, test_blocks_of_two_pieces_have_different_registrations),
        TEST(bench, test_memory_pinned_at_both_ends_only_does_not_count_as_pinned),
        TEST(bench, test_block_of_memory_that_the_caller_pinned_shares_its_registration_with_none),
        TEST(counting_bench, test_registration_ends_with_the_tier_though_the_gpu_counts_as_lost),
        TEST(counting_bench, test_memory_that_stays_registered_is_not_given_back),
        TEST(counting_bench, test_memory_that_is_not_registered_any_more_is_given_back),
        TEST(counting_bench, test_own_memory_that_was_registered_before_takes_the_detour),
        TEST(bench, test_own_memory_is_kept_from_children_while_it_is_pinned),
        TEST(bench, test_memory_of_the_caller_is_not_kept_from_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
