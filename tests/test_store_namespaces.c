/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces: ids from strings, with the real hash and with one that always collides. */
#include "store/namespaces.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/failing_memory.h"

#define FOREVER INT64_MAX

static uint64_t same64(const void *data, size_t bytes, uint64_t seed)
{
    (void)data, (void)bytes, (void)seed;
    return 7;
}

static struct kvbi_hash128 same128(const void *data, size_t bytes, uint64_t seed)
{
    (void)data, (void)bytes, (void)seed;
    return (struct kvbi_hash128){.low = UINT64_MAX, .high = 7};
}

static const struct kvbi_hash_ops colliding = {.hash64 = same64, .hash128 = same128, .name = "colliding"};

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_token_hash hash;
    struct kvbi_namespaces spaces;
};

static void set_up(struct fixture *f, uint32_t capacity, const struct kvbi_hash_ops *ops)
{
    f->memory = failing_memory(&f->failing, FOREVER);
    f->hash = (struct kvbi_token_hash){.ops = ops, .digest_seed = 99, .tokens_per_block = 4};
    assert_int_equal(kvbi_namespaces_create(&f->spaces, &f->memory, &f->hash, capacity), 0);
}

static void tear_down(struct fixture *f)
{
    kvbi_namespaces_destroy(&f->spaces);
    assert_int_equal(f->failing.live_bytes, 0);
    assert_int_equal(f->failing.live_count, 0);
}

static int open_text(struct fixture *f, const char *salt, const char *adapter, uint32_t *id)
{
    return kvbi_namespaces_open(&f->spaces, &f->hash, salt, strlen(salt), adapter, strlen(adapter), id);
}

static void test_namespaces_empty_pair_is_id_0(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t id = 9;
    set_up(&f, 1, kvbi_hash_select(KVBI_ISA_BASELINE));
    assert_int_equal(open_text(&f, "", "", &id), 0);
    assert_int_equal(id, 0);
    assert_non_null(kvbi_namespaces_name(&f.spaces, 0));
    tear_down(&f);
}

static void check_equal_bytes_equal_ids(const struct kvbi_hash_ops *ops)
{
    static const char *const pairs[][2] = {{"", ""},    {"a", ""},   {"", "a"}, {"ab", "c"}, {"a", "bc"},
                                           {"abc", ""}, {"", "abc"}, {"b", ""}, {"a", "a"}};
    struct fixture f;
    set_up(&f, 16, ops);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            uint32_t id = 99;
            assert_int_equal(open_text(&f, pairs[i][0], pairs[i][1], &id), 0);
            assert_int_equal(id, i);
        }
    }
    tear_down(&f);
}

static void test_namespaces_equal_bytes_have_equal_ids(void **state)
{
    (void)state;
    check_equal_bytes_equal_ids(kvbi_hash_select(KVBI_ISA_BASELINE));
}

static void test_namespaces_colliding_digests_stay_apart(void **state)
{
    (void)state;
    check_equal_bytes_equal_ids(&colliding);
}

static void test_namespaces_open_copies_the_strings(void **state)
{
    (void)state;
    struct fixture f;
    char salt[] = "tenant";
    uint32_t first = 0, second = 0;
    set_up(&f, 4, kvbi_hash_select(KVBI_ISA_BASELINE));
    assert_int_equal(open_text(&f, salt, "", &first), 0);
    memset(salt, 'x', sizeof salt - 1);
    assert_int_equal(open_text(&f, "tenant", "", &second), 0);
    assert_int_equal(first, second);
    tear_down(&f);
}

static void test_namespaces_full_refuses_new_and_finds_old(void **state)
{
    (void)state;
    struct fixture f;
    char text[16];
    uint32_t id;
    set_up(&f, 100, kvbi_hash_select(KVBI_ISA_BASELINE));
    for (uint32_t i = 1; i < 100; i++) {
        (void)snprintf(text, sizeof text, "tenant %u", i);
        assert_int_equal(open_text(&f, text, "", &id), 0);
        assert_int_equal(id, i);
    }
    id = 9;
    assert_int_equal(open_text(&f, "one more", "", &id), KVB_ENOSPC);
    assert_int_equal(id, 0);
    assert_int_equal(open_text(&f, "tenant 42", "", &id), 0);
    assert_int_equal(id, 42);
    tear_down(&f);
}

static void test_namespaces_name_is_what_the_strings_hash_to(void **state)
{
    (void)state;
    struct fixture f;
    struct kvbi_namespace_name expected;
    uint32_t id;
    set_up(&f, 4, kvbi_hash_select(KVBI_ISA_BASELINE));
    assert_int_equal(open_text(&f, "salt", "adapter", &id), 0);
    kvbi_namespace_name(&f.hash, "salt", 4, "adapter", 7, &expected);
    assert_memory_equal(kvbi_namespaces_name(&f.spaces, id), &expected, sizeof expected);
    assert_null(kvbi_namespaces_name(&f.spaces, id + 1));
    assert_null(kvbi_namespaces_name(&f.spaces, UINT32_MAX));
    tear_down(&f);
}

static void test_namespaces_bytes_are_what_was_allocated(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t id;
    set_up(&f, 10, kvbi_hash_select(KVBI_ISA_BASELINE));
    assert_int_equal(open_text(&f, "salt", "adapter", &id), 0);
    assert_int_equal(kvbi_namespaces_bytes(&f.spaces), f.failing.live_bytes);
    tear_down(&f);
}

static void test_namespaces_open_without_memory_changes_nothing(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t id = 9;
    set_up(&f, 10, kvbi_hash_select(KVBI_ISA_BASELINE));
    f.failing.left = 0;
    assert_int_equal(open_text(&f, "salt", "", &id), KVB_ENOMEM);
    assert_null(kvbi_namespaces_name(&f.spaces, 1));
    f.failing.left = FOREVER;
    assert_int_equal(open_text(&f, "salt", "", &id), 0);
    assert_int_equal(id, 1);
    tear_down(&f);
}

static void test_namespaces_create_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int successes = 0; successes < 2; successes++) {
        struct fixture f;
        f.memory = failing_memory(&f.failing, successes);
        f.hash = (struct kvbi_token_hash){.ops = &colliding, .tokens_per_block = 4};
        assert_int_equal(kvbi_namespaces_create(&f.spaces, &f.memory, &f.hash, 10), KVB_ENOMEM);
        assert_int_equal(f.failing.live_bytes, 0);
        kvbi_namespaces_destroy(&f.spaces);
    }
}

#define READ_COUNT 2000

/* Every id that can be seen has its whole name. */
static void *read_names(void *argument)
{
    struct fixture *f = argument;
    for (uint32_t id = 0; id < READ_COUNT;) {
        const struct kvbi_namespace_name *name = kvbi_namespaces_name(&f->spaces, id);
        if (name == NULL)
            continue;
        if (!kvbi_digest_known(name->digest))
            return argument;
        id++;
    }
    return NULL;
}

static void test_namespaces_reader_without_lock_sees_whole_names(void **state)
{
    (void)state;
    struct fixture f;
    pthread_t reader;
    void *wrong;
    uint32_t id;
    set_up(&f, READ_COUNT, kvbi_hash_select(KVBI_ISA_BASELINE));
    assert_int_equal(pthread_create(&reader, NULL, read_names, &f), 0);
    for (uint32_t i = 1; i < READ_COUNT; i++)
        assert_int_equal(kvbi_namespaces_open(&f.spaces, &f.hash, &i, sizeof i, NULL, 0, &id), 0);
    assert_int_equal(pthread_join(reader, &wrong), 0);
    assert_null(wrong);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_namespaces_empty_pair_is_id_0),
        cmocka_unit_test(test_namespaces_equal_bytes_have_equal_ids),
        cmocka_unit_test(test_namespaces_colliding_digests_stay_apart),
        cmocka_unit_test(test_namespaces_open_copies_the_strings),
        cmocka_unit_test(test_namespaces_full_refuses_new_and_finds_old),
        cmocka_unit_test(test_namespaces_name_is_what_the_strings_hash_to),
        cmocka_unit_test(test_namespaces_bytes_are_what_was_allocated),
        cmocka_unit_test(test_namespaces_open_without_memory_changes_nothing),
        cmocka_unit_test(test_namespaces_create_without_memory_leaks_nothing),
        cmocka_unit_test(test_namespaces_reader_without_lock_sees_whole_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
