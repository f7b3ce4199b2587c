/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of records: layout, order, users. */
#include "store/records.h"
#include "support/test.h"

#include <string.h>

#include "base/bands.h"
#include "support/failing_memory.h"

#define FOREVER INT64_MAX

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_records records;
};

static int records_setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    f.memory = failing_memory(&f.failing, FOREVER);
    *state = &f;
    return 0;
}

static int records_teardown(void **state)
{
    struct fixture *f = *state;
    kvbi_records_destroy(&f->records);
    return failing_memory_is_back(&f->failing) ? 0 : -1;
}

static void test_records_layout_holds_keys_and_tokens(void **state)
{
    (void)state;
    static const uint32_t token_counts[] = {1, 4, 15, 16, 17, 64, KVB_TOKENS_PER_BLOCK_MAX};
    for (uint32_t key_bytes = 0; key_bytes <= KVB_KEY_BYTES_MAX; key_bytes++)
        for (uint32_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
            struct failing_memory failing;
            struct kvbi_memory memory = failing_memory(&failing, FOREVER);
            struct kvbi_records records;
            assert_int_equal(kvbi_records_create(&records, &memory, 2, token_counts[i], key_bytes),
                             0);
            const struct kvbi_record_shape *shape = &records.shape;
            assert_int_equal(shape->tokens_per_block, token_counts[i]);
            assert_int_equal(shape->key_bytes, key_bytes);
            assert_int_equal(shape->tokens_offset % 16, 0);
            assert_true(shape->tokens_offset >= sizeof(struct kvbi_record) + 2 * key_bytes);
            assert_int_equal(shape->stride % 64, 0);
            assert_true(shape->stride >= shape->tokens_offset + 4 * token_counts[i]);
            assert_true(shape->stride - (shape->tokens_offset + 4 * token_counts[i]) < 64);
            assert_int_equal((uintptr_t)kvbi_records_at(&records, 1) % 64, 0);
            assert_int_equal(kvbi_records_bytes(&records), failing.live_bytes);
            kvbi_records_destroy(&records);
            assert_int_equal(failing.live_bytes, 0);
        }
}

static void test_records_take_gives_ascending_then_latest_freed(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(kvbi_records_create(&f->records, &f->memory, 5, 4, 0), 0);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(kvbi_records_take(&f->records), i);
    assert_int_equal(f->records.free_count, 0);
    kvbi_records_unref(&f->records, 3);
    kvbi_records_unref(&f->records, 1);
    assert_int_equal(kvbi_records_take(&f->records), 1);
    assert_int_equal(kvbi_records_take(&f->records), 3);
}

static void test_records_taken_again_has_a_cleared_head(void **state)
{
    struct fixture *f = *state;
    struct kvbi_record expected = {.users = 1};
    assert_int_equal(kvbi_records_create(&f->records, &f->memory, 1, 4, 0), 0);
    uint32_t index = kvbi_records_take(&f->records);
    struct kvbi_record *record = kvbi_records_at(&f->records, index);
    memset(record, 0x5a, sizeof *record);
    record->users = 1;
    kvbi_records_unref(&f->records, index);
    assert_int_equal(kvbi_records_take(&f->records), index);
    assert_memory_equal(record, &expected, sizeof expected);
}

static void test_records_returns_with_the_last_user(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(kvbi_records_create(&f->records, &f->memory, 2, 4, 16), 0);
    uint32_t index = kvbi_records_take(&f->records);
    kvbi_records_ref(&f->records, index);
    kvbi_records_ref(&f->records, index);
    kvbi_records_unref(&f->records, index);
    kvbi_records_unref(&f->records, index);
    assert_int_equal(f->records.free_count, 1);
    kvbi_records_unref(&f->records, index);
    assert_int_equal(f->records.free_count, 2);
    kvbi_records_unref(&f->records, KVBI_NONE);
    assert_int_equal(f->records.free_count, 2);
}

static void test_records_create_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int successes = 0; successes < 2; successes++) {
        struct failing_memory failing;
        struct kvbi_memory memory = failing_memory(&failing, successes);
        struct kvbi_records records;
        assert_int_equal(kvbi_records_create(&records, &memory, 8, 4, 0), KVB_ENOMEM);
        assert_int_equal(failing.live_bytes, 0);
        kvbi_records_destroy(&records);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_records_layout_holds_keys_and_tokens),
        TEST(records, test_records_take_gives_ascending_then_latest_freed),
        TEST(records, test_records_taken_again_has_a_cleared_head),
        TEST(records, test_records_returns_with_the_last_user),
        TEST(bare, test_records_create_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
