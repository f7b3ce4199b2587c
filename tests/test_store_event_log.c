/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of events: order, numbers, what is lost, and the users of records. */
#include "store/event_log.h"
#include "support/test.h"

#include <string.h>

#include "base/bands.h"
#include "support/failing_memory.h"

#define FOREVER INT64_MAX
#define RECORDS 8

static const struct kvbi_event_shape whole = {KVB_KEY_BYTES_MAX, KVB_KEY_BYTES_MAX};

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_records records;
    struct kvbi_event_log log;
};

static int event_log_setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    f.memory = failing_memory(&f.failing, FOREVER);
    *state = &f;
    return 0;
}

static int event_log_teardown(void **state)
{
    struct fixture *f = *state;
    bool all = f->records.memory == NULL || f->records.free_count == RECORDS;
    if (!all)
        print_error("%u records are still used\n", RECORDS - f->records.free_count);
    kvbi_event_log_destroy(&f->log);
    kvbi_event_log_destroy(&f->log);
    kvbi_records_destroy(&f->records);
    return failing_memory_is_back(&f->failing) && all ? 0 : -1;
}

static void open_log(struct fixture *f, uint32_t capacity)
{
    assert_int_equal(kvbi_records_create(&f->records, &f->memory, RECORDS, 4, 0), 0);
    assert_int_equal(kvbi_event_log_create(&f->log, &f->memory, capacity, whole), 0);
}

static uint64_t push(struct fixture *f, uint32_t kind, uint32_t record)
{
    struct kvbi_event_item item = {
        .kind = kind, .record = record, .tier = 1, .has_parent = true, .key = {1, 2, 3}};
    kvbi_event_log_push(&f->log, &f->records, &item);
    return item.sequence;
}

static void expect(struct fixture *f, uint32_t kind, uint64_t sequence, uint32_t lost_count)
{
    struct kvbi_event_item item;
    assert_true(kvbi_event_log_pending(&f->log));
    assert_true(kvbi_event_log_pop(&f->log, &item));
    assert_int_equal(item.kind, kind);
    assert_int_equal(item.sequence, sequence);
    assert_int_equal(item.lost_count, lost_count);
    kvbi_event_log_release(&f->log, &f->records, &item);
}

static void expect_none(struct fixture *f)
{
    struct kvbi_event_item item;
    assert_false(kvbi_event_log_pending(&f->log));
    assert_false(kvbi_event_log_pop(&f->log, &item));
}

static void test_event_log_pops_in_order_with_dense_numbers(void **state)
{
    struct fixture *f = *state;
    open_log(f, 3);
    expect_none(f);
    for (uint64_t sequence = 1; sequence < 20; sequence += 2) {
        assert_int_equal(push(f, KVB_EVENT_STORED, KVBI_NONE), sequence);
        assert_int_equal(push(f, KVB_EVENT_REMOVED, KVBI_NONE), sequence + 1);
        expect(f, KVB_EVENT_STORED, sequence, 0);
        expect(f, KVB_EVENT_REMOVED, sequence + 1, 0);
        expect_none(f);
    }
    assert_int_equal(f->log.lost_total, 0);
}

static void test_event_log_item_is_delivered_as_pushed(void **state)
{
    struct fixture *f = *state;
    struct kvbi_event_item item = {.kind = KVB_EVENT_STORED,
                                   .tier = 2,
                                   .namespace_id = 5,
                                   .record = KVBI_NONE},
                           got;
    open_log(f, 2);
    item.has_parent = true;
    for (unsigned i = 0; i < KVB_KEY_BYTES_MAX; i++) {
        item.key[i] = (unsigned char)i;
        item.parent[i] = (unsigned char)(i + 100);
    }
    kvbi_event_log_push(&f->log, &f->records, &item);
    assert_true(kvbi_event_log_pop(&f->log, &got));
    assert_int_equal(got.sequence, 1);
    assert_int_equal(got.tier, 2);
    assert_int_equal(got.namespace_id, 5);
    assert_true(got.has_parent);
    assert_memory_equal(got.key, item.key, sizeof item.key);
    assert_memory_equal(got.parent, item.parent, sizeof item.parent);
}

static void test_event_log_record_lives_until_released(void **state)
{
    struct fixture *f = *state;
    struct kvbi_event_item item;
    open_log(f, 2);
    uint32_t record = kvbi_records_take(&f->records);
    (void)push(f, KVB_EVENT_STORED, record);
    kvbi_records_unref(&f->records, record); /* its block is gone */
    assert_true(kvbi_event_log_pop(&f->log, &item));
    assert_int_equal(item.record, record);
    assert_int_equal(kvbi_records_at(&f->records, record)->users, 1);
    kvbi_event_log_release(&f->log, &f->records, &item);
    assert_int_equal(f->records.free_count, RECORDS);
}

static void test_event_log_dropped_event_takes_no_record(void **state)
{
    struct fixture *f = *state;
    open_log(f, 2);
    uint32_t record = kvbi_records_take(&f->records);
    (void)push(f, KVB_EVENT_REMOVED, KVBI_NONE);
    (void)push(f, KVB_EVENT_REMOVED, KVBI_NONE);
    (void)push(f, KVB_EVENT_STORED, record);
    assert_int_equal(kvbi_records_at(&f->records, record)->users, 1);
    kvbi_records_unref(&f->records, record);
}

static void test_event_log_overflow_puts_lost_before_what_follows(void **state)
{
    struct fixture *f = *state;
    open_log(f, 3);
    for (int i = 0; i < 5; i++) /* 4 and 5 find no room */
        (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
    expect(f, KVB_EVENT_STORED, 1, 0);
    expect(f, KVB_EVENT_STORED, 2, 0);
    (void)push(f, KVB_EVENT_REMOVED, KVBI_NONE);
    expect(f, KVB_EVENT_STORED, 3, 0);
    expect(f, KVB_EVENT_LOST, 5, 2);
    expect(f, KVB_EVENT_REMOVED, 6, 0);
    expect_none(f);
    assert_int_equal(f->log.lost_total, 2);
}

static void test_event_log_drained_after_overflow_yields_lost(void **state)
{
    struct fixture *f = *state;
    open_log(f, 2);
    for (int i = 0; i < 5; i++)
        (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
    expect(f, KVB_EVENT_STORED, 1, 0);
    expect(f, KVB_EVENT_STORED, 2, 0);
    expect(f, KVB_EVENT_LOST, 5, 3);
    expect_none(f);
}

static void test_event_log_with_room_for_lost_only_counts_the_event_in(void **state)
{
    struct fixture *f = *state;
    open_log(f, 2);
    for (int i = 0; i < 3; i++)
        (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
    expect(f, KVB_EVENT_STORED, 1, 0);
    (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
    (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
    expect(f, KVB_EVENT_STORED, 2, 0);
    (void)push(f, KVB_EVENT_STORED, KVBI_NONE); /* the sixth, and there is room again */
    expect(f, KVB_EVENT_LOST, 5, 3);
    expect(f, KVB_EVENT_STORED, 6, 0);
    expect_none(f);
}

static void test_event_log_without_listener_only_counts_numbers(void **state)
{
    struct fixture *f = *state;
    open_log(f, 0);
    uint32_t record = kvbi_records_take(&f->records);
    assert_int_equal(push(f, KVB_EVENT_STORED, record), 1);
    assert_int_equal(push(f, KVB_EVENT_STORED, record), 2);
    assert_int_equal(kvbi_records_at(&f->records, record)->users, 1);
    expect_none(f);
    kvbi_records_unref(&f->records, record);
}

/*
 * Whatever the rhythm: what arrives is dense, a LOST stands for exactly the numbers that are
 * missing.
 */
static void test_event_log_random_rhythm_accounts_for_every_number(void **state)
{
    struct fixture *f = *state;
    struct kvbi_event_item item = {.kind = 0};
    uint64_t random = 88172645463325252u, seen = 0, delivered = 0;
    open_log(f, 4);
    for (int step = 0; step < 20000; step++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        bool fast = step % 1000 < 500;
        if (random % 8 < (fast ? 6 : 3)) {
            (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
        } else if (kvbi_event_log_pop(&f->log, &item)) {
            bool lost = item.kind == KVB_EVENT_LOST;
            seen += lost ? item.lost_count : 1;
            delivered += !lost;
            assert_int_equal(item.sequence, seen);
        }
    }
    while (kvbi_event_log_pop(&f->log, &item)) {
        seen += item.kind == KVB_EVENT_LOST ? item.lost_count : 1;
        delivered += item.kind != KVB_EVENT_LOST;
        assert_int_equal(item.sequence, seen);
    }
    assert_int_equal(seen, f->log.sequence);
    assert_int_equal(seen, delivered + f->log.lost_total);
    assert_true(f->log.lost_total > 0);
}

static void test_event_log_create_without_memory_leaks_nothing(void **state)
{
    struct fixture *f = *state;
    f->failing.left = 0;
    assert_int_equal(kvbi_event_log_create(&f->log, &f->memory, 8, whole), KVB_ENOMEM);
    kvbi_event_log_destroy(&f->log);
    assert_int_equal(f->failing.live_bytes, 0);
}

static void test_event_log_bytes_are_what_was_allocated(void **state)
{
    struct fixture *f = *state;
    f->failing.left = 1;
    assert_int_equal(kvbi_event_log_create(&f->log, &f->memory, 8, whole), 0);
    assert_int_equal(kvbi_event_log_bytes(&f->log), f->failing.live_bytes);
}

static void test_event_log_place_is_as_long_as_the_keys(void **state)
{
    struct fixture *f = *state;
    const struct kvbi_event_shape built_in = {sizeof(struct kvb_seq), sizeof(uint64_t)};
    assert_int_equal(kvbi_event_log_create(&f->log, &f->memory, 10, built_in), 0);
    assert_int_equal(kvbi_event_log_bytes(&f->log), 10 * 56);
    kvbi_event_log_destroy(&f->log);
    assert_int_equal(
        kvbi_event_log_create(&f->log, &f->memory, 10, (struct kvbi_event_shape){.key_bytes = 1}),
        0);
    assert_int_equal(kvbi_event_log_bytes(&f->log), 10 * 32);
}

static void test_event_log_short_parent_is_delivered_with_zeros_behind_it(void **state)
{
    struct fixture *f = *state;
    const struct kvbi_event_shape built_in = {sizeof(struct kvb_seq), sizeof(uint64_t)};
    struct kvb_seq key = {1, {2, 3}}, parent = {4, {0, 0}};
    struct kvbi_event_item item = {
        .kind = KVB_EVENT_REMOVED, .record = KVBI_NONE, .has_parent = true};
    memcpy(item.key, &key, sizeof key);
    memcpy(item.parent, &parent, sizeof parent);
    assert_int_equal(kvbi_event_log_create(&f->log, &f->memory, 2, built_in), 0);
    kvbi_event_log_push(&f->log, NULL, &item);
    memset(&item, 0xff, sizeof item);
    assert_true(kvbi_event_log_pop(&f->log, &item));
    assert_memory_equal(item.key, &key, sizeof key);
    assert_memory_equal(item.parent, &parent, sizeof parent);
}

static void test_event_log_that_is_drained_each_time_stays_in_its_first_place(void **state)
{
    struct fixture *f = *state;
    open_log(f, 8);
    memset(f->log.ring, 0xa5, kvbi_event_log_bytes(&f->log));
    for (uint64_t sequence = 1; sequence < 20; sequence++) {
        (void)push(f, KVB_EVENT_STORED, KVBI_NONE);
        expect(f, KVB_EVENT_STORED, sequence, 0);
    }
    for (size_t i = f->log.stride; i < kvbi_event_log_bytes(&f->log); i++)
        assert_int_equal(f->log.ring[i], 0xa5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(event_log, test_event_log_pops_in_order_with_dense_numbers),
        TEST(event_log, test_event_log_item_is_delivered_as_pushed),
        TEST(event_log, test_event_log_record_lives_until_released),
        TEST(event_log, test_event_log_dropped_event_takes_no_record),
        TEST(event_log, test_event_log_overflow_puts_lost_before_what_follows),
        TEST(event_log, test_event_log_drained_after_overflow_yields_lost),
        TEST(event_log, test_event_log_with_room_for_lost_only_counts_the_event_in),
        TEST(event_log, test_event_log_without_listener_only_counts_numbers),
        TEST(event_log, test_event_log_random_rhythm_accounts_for_every_number),
        TEST(event_log, test_event_log_create_without_memory_leaks_nothing),
        TEST(event_log, test_event_log_bytes_are_what_was_allocated),
        TEST(event_log, test_event_log_place_is_as_long_as_the_keys),
        TEST(event_log, test_event_log_short_parent_is_delivered_with_zeros_behind_it),
        TEST(event_log, test_event_log_that_is_drained_each_time_stays_in_its_first_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
