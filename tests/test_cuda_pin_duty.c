/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How host memory is pinned while a server launches: in pieces of 32 to 64 MiB, with pauses in
 * between. Time is the test's own: only a registration and a pause make it pass.
 */
#include <stdatomic.h>
#include <sys/mman.h>

#include "support/cuda_scene.h"
#include "transfer/cuda/registration.h"
#include "transfer/memory/tier.h"

#define MIB ((uint64_t)1 << 20)
#define PIECES 4u
#define BLOCK_BYTES (33 * MIB) /* two are no piece any more */

struct duty {
    struct kvbi_memory memory;
    struct kvbi_log log;
    struct kvbi_cuda *cuda;
    struct kvbi_tier tier;
    struct kvb_clock clock;
    struct kvbi_hooks hooks;
    unsigned char *map;
    uint64_t map_bytes;

    _Atomic uint64_t now_ns;
    uint64_t takes_ns[PIECES]; /* each registration */
    uint64_t begun_ns[PIECES], ended_ns[PIECES];
    _Atomic uint32_t registered, waits;
    bool touched_all, reached_all; /* whenever a thread waited */
};

static uint64_t now(void *context)
{
    return atomic_load(&((struct duty *)context)->now_ns);
}

static void registering(void *context)
{
    struct duty *d = context;
    uint32_t i = atomic_load(&d->registered);
    assert_in_range(i, 0, PIECES - 1);
    d->begun_ns[i] = now(d);
    d->ended_ns[i] = atomic_fetch_add(&d->now_ns, d->takes_ns[i]) + d->takes_ns[i];
    atomic_store(&d->registered, i + 1);
}

/* Returns early again and again: half of what is left passes. */
static void wait_half(void *context, struct kvbi_cond *cond, struct kvbi_lock *lock,
                      uint64_t timeout_ns)
{
    struct duty *d = context;
    const struct kvbi_cuda_registration *r = kvbi_cuda_registration_of(&d->tier);
    (void)cond;
    kvbi_lock_assert_held(lock);
    d->touched_all &= r->next_touch == r->piece_count;
    d->reached_all &= kvbi_cuda_registration_bytes(r) == atomic_load(&d->registered) * BLOCK_BYTES;
    atomic_fetch_add(&d->waits, 1);
    atomic_fetch_add(&d->now_ns, (timeout_ns + 1) / 2);
}

static int duty_setup(void **state)
{
    struct duty *d = calloc(1, sizeof *d);
    char message[256];
    if (d == NULL)
        return -1;
    *state = d;
    *d = (struct duty){.clock = {.now_ns = now, .context = d},
                       .hooks = {.pin_clock = &d->clock, .pin_wait = wait_half, .context = d},
                       .now_ns = 1000000,
                       .takes_ns = {1000, 7000, 400, 3000},
                       .touched_all = true,
                       .reached_all = true};
    fake_cuda_start(NULL);
    fake_cuda_watch("cudaHostRegister", registering, d);
    kvbi_log_init(&d->log, NULL);
    return kvbi_memory_init(&d->memory, NULL) != 0 ||
                   kvbi_cuda_open(&d->cuda, &d->memory, 0, message, sizeof message) != 0
               ? -1
               : 0;
}

/* At any time: the end of a tier ends whatever is going on. */
static void end_tier(struct duty *d)
{
    kvbi_tier_destroy(&d->tier);
    assert_int_equal(munmap(d->map, d->map_bytes), 0);
    d->map = NULL;
}

static int duty_teardown(void **state)
{
    struct duty *d = *state;
    if (d->map != NULL)
        end_tier(d);
    kvbi_cuda_close(d->cuda, NULL);
    bool quiet = fake_cuda_end() == 0;
    free(d);
    return quiet ? 0 : -1;
}

/* Memory of the caller's that begins so many bytes behind a page. */
static struct kvbi_cuda_registration *pin(struct duty *d, uint64_t off_page, uint32_t blocks,
                                          uint64_t block_bytes,
                                          const struct kvbi_register_config *config)
{
    d->map_bytes = blocks * block_bytes + 2 * 4096;
    d->map = mmap(NULL, d->map_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(d->map, MAP_FAILED);
    kv_ok(kvbi_tier_host_create(&d->tier, &d->memory, KVB_TIER_HOST, blocks, block_bytes,
                                d->map + off_page));
    kv_ok(kvbi_cuda_registration_create(&d->tier, d->cuda, config));
    return kvbi_cuda_registration_of(&d->tier);
}

static struct kvbi_cuda_registration *pin_pieces(struct duty *d, uint32_t duty_percent,
                                                 uint32_t threads)
{
    return pin(
        d, 0, PIECES, BLOCK_BYTES,
        &(struct kvbi_register_config){
            .log = &d->log, .hooks = &d->hooks, .threads = threads, .duty_percent = duty_percent});
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

/* Of a tier of some hundred MiB; nothing of it is registered, only cut. */
static void expect_piece(struct duty *d, uint64_t off_page, uint64_t block_bytes,
                         uint64_t expected_bytes)
{
    uint32_t blocks = (uint32_t)(512 * MIB / block_bytes);
    fake_cuda_fail("cudaHostRegister", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    const struct kvbi_cuda_registration *r =
        pin(d, off_page, blocks, block_bytes,
            &(struct kvbi_register_config){.log = &d->log, .duty_percent = 100});
    assert_int_equal(r->piece_bytes, expected_bytes);
    assert_int_equal(r->piece_bytes % 4096, 0);
    assert_true(off_page != 0 || r->piece_bytes % block_bytes == 0);
    assert_true(r->piece_count * r->piece_bytes >= off_page + blocks * block_bytes);
    assert_true((r->piece_count - 1) * r->piece_bytes < off_page + blocks * block_bytes);
    end_tier(d);
    atomic_store(&d->registered, 0);
}

static void test_pieces_are_whole_blocks_of_32_to_64_mib(void **state)
{
    struct duty *d = *state;
    expect_piece(d, 0, 4096, 64 * MIB);
    expect_piece(d, 0, 64 << 10, 64 * MIB);
    expect_piece(d, 0, 2 * MIB, 64 * MIB);
    expect_piece(d, 0, 3 * MIB, 63 * MIB);
    expect_piece(d, 0, 31 * MIB, 62 * MIB);
    expect_piece(d, 0, 33 * MIB, 33 * MIB);
    expect_piece(d, 0, 64 * MIB, 64 * MIB);
    /* 61 layers of a model, 1098 pages a block */
    expect_piece(d, 0, 4497408, 14 * 4497408);
}

static void test_pieces_are_whole_pages_where_blocks_are_not(void **state)
{
    struct duty *d = *state;
    expect_piece(d, 0, 256, 64 * MIB);
    /* four blocks end on a page */
    expect_piece(d, 0, 2561024, 24 * 2561024);
}

static void test_block_above_64_mib_is_a_piece(void **state)
{
    expect_piece(*state, 0, 65 * MIB, 65 * MIB);
    expect_piece(*state, 0, 200 * MIB, 200 * MIB);
}

static void test_pieces_of_memory_off_a_page_have_16_blocks_at_least(void **state)
{
    struct duty *d = *state;
    expect_piece(d, 64, 64 << 10, 64 * MIB);
    expect_piece(d, 64, 3 * MIB, 63 * MIB);
    expect_piece(d, 64, 4 * MIB, 64 * MIB);
    expect_piece(d, 64, 5 * MIB, 80 * MIB);
}

/* ---- Pauses ---------------------------------------------------------------------------------- */

static void expect_pauses(const struct duty *d, uint64_t times)
{
    assert_int_equal(atomic_load(&d->registered), PIECES);
    for (uint32_t i = 1; i < PIECES; i++)
        assert_int_equal(d->begun_ns[i] - d->ended_ns[i - 1], times * d->takes_ns[i - 1]);
}

static void test_half_duty_pauses_for_as_long_as_the_registration_took(void **state)
{
    struct duty *d = *state;
    pin_pieces(d, 50, 0);
    expect_pauses(d, 1);
}

static void test_lower_duty_pauses_longer(void **state)
{
    struct duty *d = *state;
    pin_pieces(d, 20, 0);
    expect_pauses(d, 4);
}

static void test_lowest_duty_is_one_hundredth(void **state)
{
    struct duty *d = *state;
    pin_pieces(d, 1, 0);
    expect_pauses(d, 99);
}

static void test_full_duty_has_no_pause(void **state)
{
    struct duty *d = *state;
    pin_pieces(d, 100, 0);
    expect_pauses(d, 0);
    assert_int_equal(d->waits, 0);
}

static void test_pages_are_touched_and_blocks_usable_in_pauses(void **state)
{
    struct duty *d = *state;
    pin_pieces(d, 50, 0);
    assert_true(atomic_load(&d->waits) > PIECES);
    assert_true(d->touched_all);
    assert_true(d->reached_all);
}

static void test_pause_holds_for_all_threads(void **state)
{
    struct duty *d = *state;
    const struct kvbi_cuda_registration *r = pin_pieces(d, 50, 3);
    while (kvbi_cuda_registration_bytes(r) < PIECES * BLOCK_BYTES)
        ; /* ends, or the test's time does */
    for (uint32_t i = 1; i < PIECES; i++)
        assert_true(d->begun_ns[i] - d->ended_ns[i - 1] >= d->takes_ns[i - 1]);
}

static void test_nobody_waits_after_a_refusal(void **state)
{
    struct duty *d = *state;
    fake_cuda_fail("cudaHostRegister", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    const struct kvbi_cuda_registration *r = pin_pieces(d, 50, 0);
    assert_int_equal(d->waits, 0);
    assert_int_equal(kvbi_cuda_registration_refused_bytes(r), PIECES * BLOCK_BYTES);
}

/* A pause of days, by the product's own wait. */
static void test_destroy_ends_a_pause(void **state)
{
    struct duty *d = *state;
    d->takes_ns[0] = UINT64_C(1000000000000000);
    d->hooks.pin_wait = NULL;
    struct kvbi_cuda_registration *r = pin_pieces(d, 50, 2);
    for (bool waiting = false; !waiting;) { /* ends, or the test's time does */
        kvbi_lock_take(&r->lock);
        waiting = r->waiting;
        kvbi_lock_release(&r->lock);
    }
    end_tier(d);
    assert_int_equal(atomic_load(&d->registered), 1);
    assert_int_equal(fake_cuda_calls("cudaHostUnregister"), 1);
}

static void test_destroy_unpins_without_pauses(void **state)
{
    struct duty *d = *state;
    pin_pieces(d, 50, 0);
    uint64_t before = d->now_ns;
    uint32_t waits = d->waits;
    end_tier(d);
    assert_int_equal(fake_cuda_calls("cudaHostUnregister"), PIECES);
    assert_int_equal(d->now_ns, before);
    assert_int_equal(d->waits, waits);
}

/* ---- The knob -------------------------------------------------------------------------------- */

/* Below a GPU, with the hooks of the test. */
static uint32_t duty_of(struct cuda_scene *scene, uint32_t progress, uint32_t threads,
                        uint32_t given)
{
    static const struct kvb_clock clock;
    static const struct kvbi_hooks hooks = {.pin_clock = &clock};
    cuda_scene_init(scene, 4, 4);
    scene->rig.config.progress = progress;
    scene->rig.tiers[1].pin_threads = threads;
    scene->rig.tiers[1].pin_duty_percent = given;
    cuda_scene_open_hooked(scene, &hooks);
    const struct kvbi_cuda_registration *r =
        kvbi_cuda_registration_of(&scene->rig.kv->tiers[KVB_TIER_HOST]);
    assert_ptr_equal(r->hooks->pin_clock, &clock);
    return r->duty_percent;
}

static void test_threads_of_a_manager_have_half_duty(void **state)
{
    assert_int_equal(duty_of(*state, KVB_PROGRESS_THREAD, 0, 0), 50);
}

static void test_threads_that_were_asked_for_have_half_duty(void **state)
{
    assert_int_equal(duty_of(*state, KVB_PROGRESS_POLL, 1, 0), 50);
}

static void test_create_that_pins_has_full_duty(void **state)
{
    assert_int_equal(duty_of(*state, KVB_PROGRESS_POLL, 0, 0), 100);
}

static void test_given_duty_holds_for_threads(void **state)
{
    assert_int_equal(duty_of(*state, KVB_PROGRESS_THREAD, 0, 7), 7);
}

static void test_given_duty_holds_for_create(void **state)
{
    assert_int_equal(duty_of(*state, KVB_PROGRESS_POLL, 0, 30), 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(duty, test_pieces_are_whole_blocks_of_32_to_64_mib),
        TEST(duty, test_pieces_are_whole_pages_where_blocks_are_not),
        TEST(duty, test_block_above_64_mib_is_a_piece),
        TEST(duty, test_pieces_of_memory_off_a_page_have_16_blocks_at_least),
        TEST(duty, test_half_duty_pauses_for_as_long_as_the_registration_took),
        TEST(duty, test_lower_duty_pauses_longer),
        TEST(duty, test_lowest_duty_is_one_hundredth),
        TEST(duty, test_full_duty_has_no_pause),
        TEST(duty, test_pages_are_touched_and_blocks_usable_in_pauses),
        TEST(duty, test_pause_holds_for_all_threads),
        TEST(duty, test_nobody_waits_after_a_refusal),
        TEST(duty, test_destroy_ends_a_pause),
        TEST(duty, test_destroy_unpins_without_pauses),
        TEST(cuda_scene, test_threads_of_a_manager_have_half_duty),
        TEST(cuda_scene, test_threads_that_were_asked_for_have_half_duty),
        TEST(cuda_scene, test_create_that_pins_has_full_duty),
        TEST(cuda_scene, test_given_duty_holds_for_threads),
        TEST(cuda_scene, test_given_duty_holds_for_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
