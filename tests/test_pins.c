/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins with an owner: what they hold, who may release them, when they end by themselves.
 */
#include "support/kv_scene.h"

static const uint32_t T[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static struct kvb_block *stored(struct kv_rig *rig)
{
    struct kvb_block *block = NULL;
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    return block;
}

static int pin(struct kv_rig *rig, uint64_t owner, struct kvb_block *block, uint64_t lifetime_ns)
{
    int result = 1, code = kvb_pin(rig->kv, owner, &block, 1, lifetime_ns, &result);
    assert_int_equal(code, result);
    return code;
}

static int unpin(struct kv_rig *rig, uint64_t owner, struct kvb_block *block)
{
    int result = 1, code = kvb_unpin(rig->kv, owner, &block, 1, &result);
    assert_int_equal(code, result);
    return code;
}

static uint32_t unpin_all(struct kv_rig *rig, uint64_t owner)
{
    uint32_t released = 99;
    kv_ok(kvb_unpin_all(rig->kv, owner, &released));
    return released;
}

static uint32_t holders(struct kv_rig *rig, struct kvb_block *block)
{
    return kv_describe(rig, block).holder_count;
}

/* ---- Counting -------------------------------------------------------------------------------- */

static void test_pin_adds_a_holder(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, 0));
    assert_int_equal(holders(rig, block), 2);
    assert_int_equal(kv_stats(rig).pins, 1);
    kv_ok(unpin(rig, 7, block));
    kv_unref(rig, block);
}

static void test_pin_keeps_the_block_from_eviction(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig), *rest[KV_BLOCKS];
    kv_ok(pin(rig, 7, block, 0));
    kv_unref(rig, block);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, rest, NULL), KVB_ENOSPC);
    assert_int_equal(kv_run_length(rig, 0, T, KV_TOKENS), 1);
    assert_int_equal(unpin_all(rig, 7), 1);
}

static void test_pin_twice_counts_twice(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    struct kvb_block *twice[] = {block, block};
    kv_ok(kvb_pin(rig->kv, 7, twice, 2, 0, NULL));
    assert_int_equal(holders(rig, block), 3);
    kv_ok(unpin(rig, 7, block));
    assert_int_equal(holders(rig, block), 2);
    kv_ok(unpin(rig, 7, block));
    kv_expect(unpin(rig, 7, block), KVB_ENOENT);
    assert_int_equal(holders(rig, block), 1);
    kv_unref(rig, block);
}

static void test_pins_of_two_owners_are_apart(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, 0));
    kv_ok(pin(rig, 8, block, 0));
    assert_int_equal(unpin_all(rig, 7), 1);
    assert_int_equal(holders(rig, block), 2);
    kv_expect(unpin(rig, 7, block), KVB_ENOENT);
    kv_ok(unpin(rig, 8, block));
    kv_unref(rig, block);
}

static void test_pin_holds_an_unregistered_block_too(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(pin(rig, 7, block, 0));
    kv_unref(rig, block);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 1);
    assert_int_equal(unpin_all(rig, 7), 1);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_unpin_of_a_block_held_by_the_pin_alone_parks_it(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, 0));
    kv_unref(rig, block);
    kv_ok(unpin(rig, 7, block));
    assert_int_equal(kv_stats(rig).tiers[0].parked_count, 1);
}

static void test_unpin_of_a_block_never_pinned_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_expect(unpin(rig, 7, block), KVB_ENOENT);
    assert_int_equal(holders(rig, block), 1);
    kv_unref(rig, block);
}

static void test_unpin_of_an_array_judges_each(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[3];
    int results[3] = {1, 1, 1};
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 3, run);
    kv_ok(pin(rig, 7, run[0], 0));
    kv_ok(pin(rig, 7, run[2], 0));
    kv_expect(kvb_unpin(rig->kv, 7, run, 3, results), KVB_ENOENT);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ENOENT);
    assert_int_equal(results[2], 0);
    kv_ok(kvb_block_unref(rig->kv, run, 3, NULL));
}

static void test_owner_0_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    uint32_t released = 99;
    kv_expect(kvb_pin(rig->kv, 0, &block, 1, 0, NULL), KVB_EINVAL);
    assert_int_equal(holders(rig, block), 1);
    kv_expect(kvb_unpin(rig->kv, 0, &block, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_unpin_all(rig->kv, 0, &released), KVB_EINVAL);
    assert_int_equal(released, 0);
    kv_unref(rig, block);
}

static void test_largest_owner_is_an_owner(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, UINT64_MAX, block, 0));
    assert_int_equal(unpin_all(rig, UINT64_MAX), 1);
    kv_unref(rig, block);
}

static void test_pin_beyond_capacity_has_no_space(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    for (uint32_t i = 0; i < rig->config.pin_capacity; i++)
        kv_ok(pin(rig, 1 + i, block, 0));
    kv_expect(pin(rig, 99, block, 0), KVB_ENOSPC);
    assert_int_equal(holders(rig, block), 1 + rig->config.pin_capacity);
    kv_ok(unpin(rig, 1, block));
    kv_ok(pin(rig, 99, block, 0));
    for (uint32_t i = 1; i < rig->config.pin_capacity; i++)
        assert_int_equal(unpin_all(rig, 1 + i), 1);
    assert_int_equal(unpin_all(rig, 99), 1);
    kv_unref(rig, block);
}

static void test_pin_of_an_array_beyond_capacity_pins_what_fits(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig), *many[20];
    int results[20];
    for (int i = 0; i < 20; i++)
        many[i] = block;
    kv_expect(kvb_pin(rig->kv, 7, many, 20, 0, results), KVB_ENOSPC);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(results[i], i < rig->config.pin_capacity ? 0 : KVB_ENOSPC);
    assert_int_equal(unpin_all(rig, 7), rig->config.pin_capacity);
    assert_int_equal(holders(rig, block), 1);
    kv_unref(rig, block);
}

/* ---- All of an owner's ----------------------------------------------------------------------- */

static void test_unpin_all_without_pins_is_no_error(void **state)
{
    struct kv_rig *rig = *state;
    assert_int_equal(unpin_all(rig, 7), 0);
    kv_ok(kvb_unpin_all(rig->kv, 7, NULL));
}

static void test_unpin_all_releases_all_of_one_owner(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[3];
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 3, run);
    kv_ok(kvb_pin(rig->kv, 7, run, 3, 0, NULL));
    kv_ok(pin(rig, 7, run[1], 0));
    kv_ok(pin(rig, 8, run[1], 0));
    assert_int_equal(unpin_all(rig, 7), 4);
    assert_int_equal(holders(rig, run[0]), 1);
    assert_int_equal(holders(rig, run[1]), 2);
    assert_int_equal(kv_stats(rig).pins, 1);
    assert_int_equal(unpin_all(rig, 8), 1);
    kv_ok(kvb_block_unref(rig->kv, run, 3, NULL));
}

/* What is parked first is evicted first. */
static void evicted_from_the_tail(struct kv_rig *rig)
{
    struct kvb_block *taken[KV_BLOCKS];
    uint32_t count = (uint32_t)kv_stats(rig).tiers[0].free_count;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, count, NULL, taken, NULL));
    for (uint64_t left = 4; left > 0; left--) {
        assert_int_equal(kv_run_length(rig, 0, T, 4 * KV_TOKENS), left);
        taken[count++] = kv_alloc(rig, KVB_TIER_DEVICE);
    }
    kv_ok(kvb_block_unref(rig->kv, taken, count, NULL));
}

static void test_unpin_all_releases_last_pinned_first(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[4];
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 4, run);
    kv_ok(kvb_pin(rig->kv, 7, run, 2, 0, NULL));
    kv_ok(kvb_pin(rig->kv, 7, run + 2, 2, 0, NULL));
    kv_ok(kvb_block_unref(rig->kv, run, 4, NULL));
    assert_int_equal(unpin_all(rig, 7), 4);
    evicted_from_the_tail(rig);
}

static void test_unpin_parks_the_last_element_first(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[4];
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 4, run);
    kv_ok(kvb_pin(rig->kv, 7, run, 4, 0, NULL));
    kv_ok(kvb_block_unref(rig->kv, run, 4, NULL));
    kv_ok(kvb_unpin(rig->kv, 7, run, 4, NULL));
    evicted_from_the_tail(rig);
}

/* ---- Lifetime -------------------------------------------------------------------------------- */

static void test_lifetime_not_over_keeps_the_pin(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, KV_SECOND));
    kv_advance(rig, KV_SECOND - 1);
    kv_poll(rig);
    assert_int_equal(holders(rig, block), 2);
    assert_int_equal(unpin_all(rig, 7), 1);
    kv_unref(rig, block);
}

static void test_lifetime_over_is_released_by_progress(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, KV_SECOND));
    kv_advance(rig, KV_SECOND);
    assert_int_equal(holders(rig, block), 2);
    kv_poll(rig);
    assert_int_equal(holders(rig, block), 1);
    kv_expect(unpin(rig, 7, block), KVB_ENOENT);
    kv_unref(rig, block);
}

static void test_lifetime_over_is_counted_and_logged(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 4711, block, KV_SECOND));
    size_t messages = rig->log.count;
    kv_advance(rig, 2 * KV_SECOND);
    kv_poll(rig);
    assert_int_equal(kv_stats(rig).pins_expired, 1);
    assert_int_equal(kv_stats(rig).pins, 0);
    assert_true(rig->log.count > messages);
    assert_non_null(strstr(kv_log_last(&rig->log)->text, "4711"));
    kv_unref(rig, block);
}

static void test_lifetime_over_parks_the_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, KV_SECOND));
    kv_unref(rig, block);
    kv_advance(rig, 2 * KV_SECOND);
    kv_poll(rig);
    assert_int_equal(kv_stats(rig).tiers[0].parked_count, 1);
}

static void test_lifetime_of_each_pin_is_its_own(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, 0));
    kv_ok(pin(rig, 7, block, 3 * KV_SECOND));
    kv_ok(pin(rig, 7, block, KV_SECOND));
    kv_advance(rig, 2 * KV_SECOND);
    kv_poll(rig);
    assert_int_equal(holders(rig, block), 3);
    kv_advance(rig, 100 * KV_SECOND);
    kv_poll(rig);
    assert_int_equal(holders(rig, block), 2);
    assert_int_equal(unpin_all(rig, 7), 1);
    kv_unref(rig, block);
}

static void test_lifetime_released_early_does_not_expire(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, KV_SECOND));
    kv_ok(unpin(rig, 7, block));
    kv_advance(rig, 2 * KV_SECOND);
    kv_poll(rig);
    assert_int_equal(kv_stats(rig).pins_expired, 0);
    assert_int_equal(holders(rig, block), 1);
    kv_unref(rig, block);
}

static void test_lifetime_that_overflows_the_clock_never_ends(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, UINT64_MAX));
    kv_advance(rig, 1000 * KV_SECOND);
    kv_poll(rig);
    assert_int_equal(holders(rig, block), 2);
    assert_int_equal(unpin_all(rig, 7), 1);
    kv_unref(rig, block);
}

static void test_lifetime_shows_in_next_timeout(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    uint64_t timeout = 0;
    kv_poll(rig);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout));
    assert_true(timeout == KVB_FOREVER);
    kv_ok(pin(rig, 7, block, KV_SECOND));
    kv_poll(rig); /* a sleeper is woken, to sleep less long */
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout));
    assert_int_equal(timeout, KV_SECOND);
    kv_advance(rig, 2 * KV_SECOND);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout));
    assert_int_equal(timeout, 0);
    kv_poll(rig);
    kv_unref(rig, block);
}

/* ---- The end --------------------------------------------------------------------------------- */

static void test_destroy_releases_pins(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig), *other = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(pin(rig, 7, block, 0));
    kv_ok(pin(rig, 8, other, KV_SECOND));
    kv_unref(rig, block);
    kv_unref(rig, other);
    kv_rig_close(rig);
}

static void test_destroy_refused_for_a_handle_keeps_pins(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = stored(rig);
    kv_ok(pin(rig, 7, block, 0));
    kv_expect(kvb_manager_destroy(rig->kv), KVB_EBUSY);
    assert_int_equal(holders(rig, block), 2);
    assert_int_equal(unpin_all(rig, 7), 1);
    kv_unref(rig, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_pin_adds_a_holder),
        TEST(kv_opened, test_pin_keeps_the_block_from_eviction),
        TEST(kv_opened, test_pin_twice_counts_twice),
        TEST(kv_opened, test_pins_of_two_owners_are_apart),
        TEST(kv_opened, test_pin_holds_an_unregistered_block_too),
        TEST(kv_opened, test_unpin_of_a_block_held_by_the_pin_alone_parks_it),
        TEST(kv_opened, test_unpin_of_a_block_never_pinned_is_not_found),
        TEST(kv_opened, test_unpin_of_an_array_judges_each),
        TEST(kv_opened, test_owner_0_is_invalid),
        TEST(kv_opened, test_largest_owner_is_an_owner),
        TEST(kv_opened, test_pin_beyond_capacity_has_no_space),
        TEST(kv_opened, test_pin_of_an_array_beyond_capacity_pins_what_fits),
        TEST(kv_opened, test_unpin_all_without_pins_is_no_error),
        TEST(kv_opened, test_unpin_all_releases_all_of_one_owner),
        TEST(kv_opened, test_unpin_all_releases_last_pinned_first),
        TEST(kv_opened, test_unpin_parks_the_last_element_first),
        TEST(kv_opened, test_lifetime_not_over_keeps_the_pin),
        TEST(kv_opened, test_lifetime_over_is_released_by_progress),
        TEST(kv_opened, test_lifetime_over_is_counted_and_logged),
        TEST(kv_opened, test_lifetime_over_parks_the_block),
        TEST(kv_opened, test_lifetime_of_each_pin_is_its_own),
        TEST(kv_opened, test_lifetime_released_early_does_not_expire),
        TEST(kv_opened, test_lifetime_that_overflows_the_clock_never_ends),
        TEST(kv_opened, test_lifetime_shows_in_next_timeout),
        TEST(kv_opened, test_destroy_releases_pins),
        TEST(kv_opened, test_destroy_refused_for_a_handle_keeps_pins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
