/* SPDX-License-Identifier: Apache-2.0 */
/* Moments: who was named before what was forgotten; the table of keys; 48 bits in a record. */

#include "block/record.h"
#include "store/moments.h"
#include "support/failing_memory.h"
#include "support/test.h"

static struct failing_memory failing;
static struct kvbi_memory memory;
static struct kvbi_moments moments;

static int moments_setup(void **state)
{
    (void)state;
    memory = failing_memory(&failing, INT64_MAX);
    return kvbi_moments_create(&moments, &memory, 0);
}

static int moments_teardown(void **state)
{
    (void)state;
    kvbi_moments_destroy(&moments);
    return failing_memory_is_back(&failing) ? 0 : -1;
}

static bool stale(uint64_t moment, uint64_t space, uint64_t hash)
{
    return kvbi_moments_passed(&moments, moment) &&
           kvbi_moments_stale(&moments, moment, space, hash);
}

static void test_nothing_is_stale_where_nothing_was_forgotten(void **state)
{
    (void)state;
    assert_false(stale(kvbi_moments_now(&moments), 0, 7));
}

static void test_clear_makes_what_was_named_before_stale(void **state)
{
    (void)state;
    uint64_t before = kvbi_moments_now(&moments);
    kvbi_moments_clear(&moments);
    assert_true(stale(before, 0, 7));
    assert_false(stale(kvbi_moments_now(&moments), 0, 7));
}

static void test_key_makes_itself_stale_and_no_other(void **state)
{
    (void)state;
    uint64_t before = kvbi_moments_now(&moments);
    kvbi_moments_forget_key(&moments, 7);
    assert_true(stale(before, 0, 7));
    assert_false(stale(before, 0, 8));
    assert_false(stale(kvbi_moments_now(&moments), 0, 7));
}

static void test_namespace_makes_what_was_named_before_its_moment_stale(void **state)
{
    (void)state;
    uint64_t before = kvbi_moments_now(&moments), space = kvbi_moments_next(&moments);
    assert_true(stale(before, space, 7));
    assert_false(stale(before, 0, 7)); /* another one's block */
    assert_false(stale(kvbi_moments_now(&moments), space, 7));
}

/* More keys than places: some are taken for others, and none that was forgotten is let through. */
static void test_keys_beyond_the_table_are_all_stale(void **state)
{
    (void)state;
    uint64_t before = kvbi_moments_now(&moments);
    uint32_t keys = 4 * moments.key_count;
    for (uint64_t key = 0; key < keys; key++)
        kvbi_moments_forget_key(&moments, key * UINT64_C(0x123456789));
    for (uint64_t key = 0; key < keys; key++)
        assert_true(stale(before, 0, key * UINT64_C(0x123456789)));
    assert_false(stale(kvbi_moments_now(&moments), 0, 0));
}

static void test_table_grows_with_the_blocks(void **state)
{
    (void)state;
    struct kvbi_moments large;
    assert_int_equal(moments.key_count, 1024);
    assert_int_equal(kvbi_moments_create(&large, &memory, 1000000), 0);
    assert_int_equal(large.key_count, 262144);
    assert_true(kvbi_moments_bytes(&large) <= 3 * 1000000);
    kvbi_moments_forget_key(&large, UINT64_MAX);
    assert_true(kvbi_moments_stale(&large, 0, 0, UINT64_MAX));
    kvbi_moments_destroy(&large);
}

static void test_create_without_memory_fails_and_leaves_nothing(void **state)
{
    (void)state;
    struct kvbi_moments none;
    struct failing_memory poor;
    struct kvbi_memory little = failing_memory(&poor, 0);
    assert_int_equal(kvbi_moments_create(&none, &little, 0), KVB_ENOMEM);
    kvbi_moments_destroy(&none);
}

/* What a record cannot hold makes its block older, never younger. */
static void test_record_keeps_48_bits_of_its_moment(void **state)
{
    (void)state;
    struct kvbi_record record = {.flags = KVBI_RECORD_NAMES, .users = 3};
    kvbi_record_set_moment(&record, UINT64_C(0xffffffffffff));
    assert_int_equal(kvbi_record_moment(&record), UINT64_C(0xffffffffffff));
    assert_int_equal(record.flags, KVBI_RECORD_NAMES);
    assert_int_equal(record.users, 3);
    atomic_store(&moments.now, UINT64_C(0x1000000000005));
    kvbi_record_set_moment(&record, kvbi_moments_now(&moments));
    assert_false(stale(kvbi_record_moment(&record), 0, 7));
    kvbi_moments_forget_key(&moments, 7);
    kvbi_record_set_moment(&record, kvbi_moments_now(&moments));
    assert_true(stale(kvbi_record_moment(&record), 0, 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(moments, test_nothing_is_stale_where_nothing_was_forgotten),
        TEST(moments, test_clear_makes_what_was_named_before_stale),
        TEST(moments, test_key_makes_itself_stale_and_no_other),
        TEST(moments, test_namespace_makes_what_was_named_before_its_moment_stale),
        TEST(moments, test_keys_beyond_the_table_are_all_stale),
        TEST(moments, test_table_grows_with_the_blocks),
        TEST(moments, test_create_without_memory_fails_and_leaves_nothing),
        TEST(moments, test_record_keeps_48_bits_of_its_moment),
    };
    return cmocka_run_group_tests_name("store_moments", tests, NULL, NULL);
}
