/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces: ids from strings, with the real hash and with one that always collides. */
#include "store/namespaces.h"
#include "support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

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

static const struct kvbi_hash_ops colliding = {.hash64 = same64,
                                               .hash128 = same128,
                                               .name = "colliding"};

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_token_hash hash;
    struct kvbi_namespaces spaces;
};

static int namespaces_setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    f.memory = failing_memory(&f.failing, FOREVER);
    *state = &f;
    return 0;
}

static int namespaces_teardown(void **state)
{
    struct fixture *f = *state;
    kvbi_namespaces_destroy(&f->spaces);
    return failing_memory_is_back(&f->failing) ? 0 : -1;
}

static void open_hashed(struct fixture *f, uint32_t capacity, const struct kvbi_hash_ops *ops)
{
    f->hash = (struct kvbi_token_hash){.ops = ops, .digest_seed = 99, .tokens_per_block = 4};
    assert_int_equal(kvbi_namespaces_create(&f->spaces, &f->memory, &f->hash, capacity, capacity),
                     0);
}

static void open_spaces(struct fixture *f, uint32_t capacity)
{
    open_hashed(f, capacity, kvbi_hash_select(KVBI_ISA_BASELINE));
}

static int open_text(struct fixture *f, const char *salt, const char *adapter, uint32_t *id)
{
    return kvbi_namespaces_open(&f->spaces, &f->hash, salt, strlen(salt), adapter, strlen(adapter),
                                id);
}

static void test_namespaces_empty_pair_is_id_0(void **state)
{
    struct fixture *f = *state;
    uint32_t id = 9;
    open_spaces(f, 1);
    assert_int_equal(open_text(f, "", "", &id), 0);
    assert_int_equal(id, 0);
    assert_non_null(kvbi_namespaces_name(&f->spaces, 0));
}

static void check_equal_bytes_equal_ids(struct fixture *f, const struct kvbi_hash_ops *ops)
{
    static const char *const pairs[][2] = {{"", ""},    {"a", ""},   {"", "a"},
                                           {"ab", "c"}, {"a", "bc"}, {"abc", ""},
                                           {"", "abc"}, {"b", ""},   {"a", "a"}};
    open_hashed(f, 16, ops);
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            uint32_t id = 99;
            assert_int_equal(open_text(f, pairs[i][0], pairs[i][1], &id), 0);
            assert_int_equal(id, i);
        }
}

static void test_namespaces_equal_bytes_have_equal_ids(void **state)
{
    check_equal_bytes_equal_ids(*state, kvbi_hash_select(KVBI_ISA_BASELINE));
}

static void test_namespaces_colliding_digests_stay_apart(void **state)
{
    check_equal_bytes_equal_ids(*state, &colliding);
}

static void test_namespaces_open_copies_the_strings(void **state)
{
    struct fixture *f = *state;
    char salt[] = "tenant";
    uint32_t first = 0, second = 0;
    open_spaces(f, 4);
    assert_int_equal(open_text(f, salt, "", &first), 0);
    memset(salt, 'x', sizeof salt - 1);
    assert_int_equal(open_text(f, "tenant", "", &second), 0);
    assert_int_equal(first, second);
}

static void test_namespaces_full_refuses_new_and_finds_old(void **state)
{
    struct fixture *f = *state;
    char text[16];
    uint32_t id;
    open_spaces(f, 100);
    for (uint32_t i = 1; i < 100; i++) {
        (void)snprintf(text, sizeof text, "tenant %u", i);
        assert_int_equal(open_text(f, text, "", &id), 0);
        assert_int_equal(id, i);
    }
    id = 9;
    assert_int_equal(open_text(f, "one more", "", &id), KVB_ENOSPC);
    assert_int_equal(id, 0);
    assert_int_equal(open_text(f, "tenant 42", "", &id), 0);
    assert_int_equal(id, 42);
}

static void test_namespaces_name_is_what_the_strings_hash_to(void **state)
{
    struct fixture *f = *state;
    struct kvbi_namespace_name expected;
    uint32_t id;
    open_spaces(f, 4);
    assert_int_equal(open_text(f, "salt", "adapter", &id), 0);
    kvbi_namespace_name(&f->hash, "salt", 4, "adapter", 7, &expected);
    assert_memory_equal(kvbi_namespaces_name(&f->spaces, id), &expected, sizeof expected);
    assert_null(kvbi_namespaces_name(&f->spaces, id + 1));
    assert_null(kvbi_namespaces_name(&f->spaces, UINT32_MAX));
}

static void test_namespaces_bytes_are_what_was_allocated(void **state)
{
    struct fixture *f = *state;
    uint32_t id;
    open_spaces(f, 10);
    assert_int_equal(open_text(f, "salt", "adapter", &id), 0);
    assert_int_equal(kvbi_namespaces_bytes(&f->spaces), f->failing.live_bytes);
}

static void test_namespaces_open_without_memory_changes_nothing(void **state)
{
    struct fixture *f = *state;
    uint32_t id = 9;
    open_spaces(f, 10);
    f->failing.left = 0;
    assert_int_equal(open_text(f, "salt", "", &id), KVB_ENOMEM);
    assert_null(kvbi_namespaces_name(&f->spaces, 1));
    f->failing.left = FOREVER;
    assert_int_equal(open_text(f, "salt", "", &id), 0);
    assert_int_equal(id, 1);
}

static void test_namespaces_create_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int successes = 0; successes < 2; successes++) {
        struct fixture f;
        f.memory = failing_memory(&f.failing, successes);
        f.hash = (struct kvbi_token_hash){.ops = &colliding, .tokens_per_block = 4};
        assert_int_equal(kvbi_namespaces_create(&f.spaces, &f.memory, &f.hash, 10, 10), KVB_ENOMEM);
        assert_int_equal(f.failing.live_bytes, 0);
        kvbi_namespaces_destroy(&f.spaces);
    }
}

/* The name of (text, "") under f's hash. */
static struct kvbi_namespace_name name_of(const struct fixture *f, const char *text)
{
    struct kvbi_namespace_name name;
    kvbi_namespace_name(&f->hash, text, strlen(text), NULL, 0, &name);
    return name;
}

static void test_namespaces_adopted_name_is_bound_by_the_first_open(void **state)
{
    struct fixture *f = *state;
    uint32_t adopted = 0, opened = 0, again = 0;
    open_spaces(f, 4);
    struct kvbi_namespace_name name = name_of(f, "tenant");
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &name, &adopted), 0);
    assert_int_equal(adopted, 1);
    assert_memory_equal(kvbi_namespaces_name(&f->spaces, adopted), &name, sizeof name);
    assert_int_equal(open_text(f, "tenant", "", &opened), 0);
    assert_int_equal(open_text(f, "tenant", "", &again), 0);
    assert_int_equal(opened, adopted);
    assert_int_equal(again, adopted);
    assert_int_equal(kvbi_namespaces_bytes(&f->spaces), f->failing.live_bytes);
}

static void test_namespaces_adopted_name_is_bound_once(void **state)
{
    struct fixture *f = *state;
    uint32_t adopted, first, second;
    open_spaces(f, 4);
    f->hash.ops = &colliding; /* from here on all strings have one name */
    struct kvbi_namespace_name name = name_of(f, "anything");
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &name, &adopted), 0);
    assert_int_equal(open_text(f, "one", "", &first), 0);
    assert_int_equal(open_text(f, "two", "", &second), 0);
    assert_int_equal(first, adopted);
    assert_int_not_equal(second, adopted);
}

static void test_namespaces_strings_of_another_name_do_not_bind(void **state)
{
    struct fixture *f = *state;
    uint32_t adopted, opened;
    open_spaces(f, 4);
    struct kvbi_namespace_name name = name_of(f, "tenant");
    name.salt_hash++; /* same place in the table */
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &name, &adopted), 0);
    assert_int_equal(open_text(f, "tenant", "", &opened), 0);
    assert_int_not_equal(opened, adopted);
}

static void test_namespaces_adopting_a_known_name_gives_its_id(void **state)
{
    struct fixture *f = *state;
    uint32_t opened, adopted = 9;
    open_spaces(f, 4);
    struct kvbi_namespace_name empty = name_of(f, ""), name = name_of(f, "tenant");
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &empty, &adopted), 0);
    assert_int_equal(adopted, 0);
    assert_int_equal(open_text(f, "tenant", "", &opened), 0);
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &name, &adopted), 0);
    assert_int_equal(adopted, opened);
}

/* Adopts `count` names that nobody has opened. */
static void adopt_strangers(struct fixture *f, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id;
        struct kvbi_namespace_name name = {.salt_hash = 1000 + i, .digest = {i, ~(uint64_t)i}};
        assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &name, &id), 0);
    }
}

static void test_namespaces_full_adopts_no_more(void **state)
{
    struct fixture *f = *state;
    uint32_t id = 9;
    open_spaces(f, 2);
    struct kvbi_namespace_name first = name_of(f, "first"), last = name_of(f, "last");
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &first, &id), 0);
    adopt_strangers(f, 1);
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &last, &id), KVB_ENOSPC);
    assert_int_equal(id, 0);
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &first, &id), 0);
    assert_int_equal(id, 1);
}

static void test_namespaces_adopted_take_no_room_from_opened_ones(void **state)
{
    struct fixture *f = *state;
    uint32_t id;
    open_spaces(f, 3);
    adopt_strangers(f, 3);
    assert_int_equal(open_text(f, "one", "", &id), 0);
    assert_int_equal(open_text(f, "two", "", &id), 0);
    assert_int_equal(open_text(f, "three", "", &id), KVB_ENOSPC);
}

static void test_namespaces_bound_one_counts_as_opened(void **state)
{
    struct fixture *f = *state;
    uint32_t adopted, id;
    open_spaces(f, 2);
    struct kvbi_namespace_name first = name_of(f, "first"), second = name_of(f, "second");
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &first, &adopted), 0);
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &second, &id), 0);
    assert_int_equal(open_text(f, "first", "", &id), 0);
    assert_int_equal(id, adopted);
    /* known, but there is no room to open it */
    assert_int_equal(open_text(f, "second", "", &id), KVB_ENOSPC);
    assert_int_equal(open_text(f, "third", "", &id), KVB_ENOSPC);
    assert_int_equal(open_text(f, "first", "", &id), 0);
    adopt_strangers(f, 1); /* in the place of the one that was opened */
}

static void test_namespaces_binding_without_memory_changes_nothing(void **state)
{
    struct fixture *f = *state;
    uint32_t adopted, opened = 9;
    open_spaces(f, 4);
    struct kvbi_namespace_name name = name_of(f, "tenant");
    assert_int_equal(kvbi_namespaces_adopt(&f->spaces, &name, &adopted), 0);
    f->failing.left = 0;
    assert_int_equal(open_text(f, "tenant", "", &opened), KVB_ENOMEM);
    assert_int_equal(opened, 0);
    f->failing.left = FOREVER;
    assert_int_equal(open_text(f, "tenant", "", &opened), 0);
    assert_int_equal(opened, adopted);
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
    struct fixture *f = *state;
    pthread_t reader;
    void *wrong;
    uint32_t id;
    open_spaces(f, READ_COUNT);
    assert_int_equal(pthread_create(&reader, NULL, read_names, f), 0);
    for (uint32_t i = 1; i < READ_COUNT; i++)
        assert_int_equal(kvbi_namespaces_open(&f->spaces, &f->hash, &i, sizeof i, NULL, 0, &id), 0);
    assert_int_equal(pthread_join(reader, &wrong), 0);
    assert_null(wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(namespaces, test_namespaces_empty_pair_is_id_0),
        TEST(namespaces, test_namespaces_equal_bytes_have_equal_ids),
        TEST(namespaces, test_namespaces_colliding_digests_stay_apart),
        TEST(namespaces, test_namespaces_open_copies_the_strings),
        TEST(namespaces, test_namespaces_full_refuses_new_and_finds_old),
        TEST(namespaces, test_namespaces_name_is_what_the_strings_hash_to),
        TEST(namespaces, test_namespaces_bytes_are_what_was_allocated),
        TEST(namespaces, test_namespaces_open_without_memory_changes_nothing),
        TEST(bare, test_namespaces_create_without_memory_leaks_nothing),
        TEST(namespaces, test_namespaces_adopted_name_is_bound_by_the_first_open),
        TEST(namespaces, test_namespaces_adopted_name_is_bound_once),
        TEST(namespaces, test_namespaces_strings_of_another_name_do_not_bind),
        TEST(namespaces, test_namespaces_adopting_a_known_name_gives_its_id),
        TEST(namespaces, test_namespaces_full_adopts_no_more),
        TEST(namespaces, test_namespaces_adopted_take_no_room_from_opened_ones),
        TEST(namespaces, test_namespaces_bound_one_counts_as_opened),
        TEST(namespaces, test_namespaces_binding_without_memory_changes_nothing),
        TEST(namespaces, test_namespaces_reader_without_lock_sees_whole_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
