/* SPDX-License-Identifier: Apache-2.0 */
/* Pins with an owner, against a naive model: an array of pins in the order of pinning. */
#include "store/pins.h"
#include "support/kv_test.h"
#include "support/test.h"

#include "support/failing_memory.h"

#define FOREVER INT64_MAX
#define CAPACITY 24
#define OWNERS 4
#define BLOCKS 5

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_pins pins;
};

static int pins_setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    f.memory = failing_memory(&f.failing, FOREVER);
    *state = &f;
    return 0;
}

static int pins_teardown(void **state)
{
    struct fixture *f = *state;
    kvbi_pins_destroy(&f->pins);
    kvbi_pins_destroy(&f->pins);
    return failing_memory_is_back(&f->failing) ? 0 : -1;
}

static void open_pins(struct fixture *f, uint32_t capacity)
{
    assert_int_equal(kvbi_pins_create(&f->pins, &f->memory, capacity), 0);
}

/* Addresses only: pins never look into a block. */
static struct kvb_block *block(uintptr_t number)
{
    return (struct kvb_block *)(number * 64);
}

struct model_pin {
    uint64_t owner;
    struct kvb_block *block;
    uint64_t deadline_ns;
};

static struct model_pin model[CAPACITY];
static uint32_t model_count;

static void model_take(uint32_t at)
{
    model_count--;
    for (uint32_t i = at; i < model_count; i++)
        model[i] = model[i + 1];
}

/* The latest pin of the owner, on that block or (NULL) on any. CAPACITY: none. */
static uint32_t model_latest(uint64_t owner, const struct kvb_block *on)
{
    for (uint32_t i = model_count; i-- > 0;)
        if (model[i].owner == owner && (on == NULL || model[i].block == on))
            return i;
    return CAPACITY;
}

static uint64_t model_first_deadline(void)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < model_count; i++)
        if (model[i].deadline_ns != 0 && model[i].deadline_ns < first)
            first = model[i].deadline_ns;
    return first;
}

static uint64_t seed;

static uint32_t random_below(uint32_t limit)
{
    return kv_random(&seed, limit);
}

/* Deadlines are unique (or none), so that model and heap agree on which of several is due first. */
static void step_add(struct fixture *f, uint64_t owner, struct kvb_block *on, uint64_t step)
{
    uint64_t deadline_ns =
        random_below(2) != 0 ? 1 + 4 * (step + random_below(100)) + random_below(4) : 0;
    for (uint32_t i = 0; i < model_count; i++)
        if (model[i].deadline_ns == deadline_ns)
            deadline_ns = 0;
    int result = kvbi_pins_add(&f->pins, owner, on, deadline_ns);
    assert_int_equal(result, model_count == CAPACITY ? KVB_ENOSPC : 0);
    if (result == 0)
        model[model_count++] = (struct model_pin){owner, on, deadline_ns};
}

static void step_remove(struct fixture *f, uint64_t owner, struct kvb_block *on)
{
    uint32_t at = model_latest(owner, on);
    assert_int_equal(kvbi_pins_remove(&f->pins, owner, on), at == CAPACITY ? KVB_ENOENT : 0);
    if (at != CAPACITY)
        model_take(at);
}

static void step_pop_owner(struct fixture *f, uint64_t owner)
{
    uint32_t at = model_latest(owner, NULL);
    assert_ptr_equal(kvbi_pins_pop_owner(&f->pins, owner), at == CAPACITY ? NULL : model[at].block);
    if (at != CAPACITY)
        model_take(at);
}

static void step_pop_due(struct fixture *f, uint64_t now_ns)
{
    uint64_t first = model_first_deadline(), owner = 77;
    struct kvb_block *got = kvbi_pins_pop_due(&f->pins, now_ns, &owner);
    if (first > now_ns) {
        assert_null(got);
        assert_int_equal(owner, 0);
        return;
    }
    for (uint32_t i = 0; i < model_count; i++)
        if (model[i].deadline_ns == first) {
            assert_ptr_equal(got, model[i].block);
            assert_int_equal(owner, model[i].owner);
            model_take(i);
            return;
        }
}

static void check(struct fixture *f)
{
    uint64_t deadline_ns, first = model_first_deadline();
    assert_int_equal(f->pins.count, model_count);
    assert_int_equal(kvbi_pins_next_deadline(&f->pins, &deadline_ns), first != UINT64_MAX);
    assert_int_equal(deadline_ns, first != UINT64_MAX ? first : 0);
}

static void test_pins_random_operations_match_the_model(void **state)
{
    struct fixture *f = *state;
    open_pins(f, CAPACITY);
    model_count = 0;
    for (uint64_t step = 0; step < 100000; step++) {
        uint64_t owner = 1 + random_below(OWNERS);
        struct kvb_block *on = block(1 + random_below(BLOCKS));
        switch (random_below(step % 2000 < 1000 ? 12 : 6)) {
        case 0:
        case 1:
            step_remove(f, owner, on);
            break;
        case 2:
            step_pop_owner(f, owner);
            break;
        case 3:
            step_pop_due(f, step * 4);
            break;
        default:
            step_add(f, owner, on, step);
            break;
        }
        check(f);
    }
}

static void test_pins_of_one_owner_pop_latest_first(void **state)
{
    struct fixture *f = *state;
    open_pins(f, 8);
    for (uintptr_t i = 1; i <= 4; i++) {
        assert_int_equal(kvbi_pins_add(&f->pins, 1, block(i), 0), 0);
        assert_int_equal(kvbi_pins_add(&f->pins, 2, block(i + 10), 0), 0);
    }
    for (uintptr_t i = 4; i >= 1; i--)
        assert_ptr_equal(kvbi_pins_pop_owner(&f->pins, 1), block(i));
    assert_null(kvbi_pins_pop_owner(&f->pins, 1));
    assert_ptr_equal(kvbi_pins_pop_owner(&f->pins, 2), block(14));
}

static void test_pins_same_block_twice_counts_twice(void **state)
{
    struct fixture *f = *state;
    open_pins(f, 4);
    assert_int_equal(kvbi_pins_add(&f->pins, 1, block(1), 0), 0);
    assert_int_equal(kvbi_pins_add(&f->pins, 1, block(1), 0), 0);
    assert_int_equal(kvbi_pins_remove(&f->pins, 2, block(1)), KVB_ENOENT);
    assert_int_equal(kvbi_pins_remove(&f->pins, 1, block(1)), 0);
    assert_int_equal(kvbi_pins_remove(&f->pins, 1, block(1)), 0);
    assert_int_equal(kvbi_pins_remove(&f->pins, 1, block(1)), KVB_ENOENT);
}

static void test_pins_removed_latest_keeps_the_earlier_deadline(void **state)
{
    struct fixture *f = *state;
    uint64_t deadline_ns;
    open_pins(f, 4);
    assert_int_equal(kvbi_pins_add(&f->pins, 1, block(1), 50), 0);
    assert_int_equal(kvbi_pins_add(&f->pins, 1, block(1), 20), 0);
    assert_int_equal(kvbi_pins_remove(&f->pins, 1, block(1)), 0);
    assert_true(kvbi_pins_next_deadline(&f->pins, &deadline_ns));
    assert_int_equal(deadline_ns, 50);
}

static void test_pins_without_capacity_refuse(void **state)
{
    struct fixture *f = *state;
    open_pins(f, 0);
    assert_int_equal(kvbi_pins_add(&f->pins, 1, block(1), 0), KVB_ENOSPC);
    assert_int_equal(kvbi_pins_remove(&f->pins, 1, block(1)), KVB_ENOENT);
    assert_null(kvbi_pins_pop_owner(&f->pins, 1));
}

static void test_pins_bytes_are_what_was_allocated(void **state)
{
    struct fixture *f = *state;
    open_pins(f, 100);
    assert_int_equal(kvbi_pins_bytes(&f->pins), f->failing.live_bytes);
}

static void test_pins_create_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int successes = 0; successes < 6; successes++) {
        struct failing_memory failing;
        struct kvbi_memory memory = failing_memory(&failing, successes);
        struct kvbi_pins pins;
        assert_int_equal(kvbi_pins_create(&pins, &memory, 8), KVB_ENOMEM);
        assert_int_equal(failing.live_bytes, 0);
        kvbi_pins_destroy(&pins);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pins, test_pins_random_operations_match_the_model),
        TEST(pins, test_pins_of_one_owner_pop_latest_first),
        TEST(pins, test_pins_same_block_twice_counts_twice),
        TEST(pins, test_pins_removed_latest_keeps_the_earlier_deadline),
        TEST(pins, test_pins_without_capacity_refuse),
        TEST(pins, test_pins_bytes_are_what_was_allocated),
        TEST(bare, test_pins_create_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
