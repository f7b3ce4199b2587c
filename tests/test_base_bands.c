/* SPDX-License-Identifier: Apache-2.0 */
/* Priority bands against a naive model, under random operations. */
#include "base/bands.h"
#include "support/kv_test.h"
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

#define ELEMENTS 97

/* The node sits in the middle of a larger element, as in a pool's slot table. */
struct element {
    uint64_t before;
    struct kvbi_band_node node;
    char after[11];
};

static struct element elements[ELEMENTS];
static struct kvbi_bands bands;

/* The model: each band an array, oldest first. */
static uint32_t model[KVBI_BAND_COUNT][ELEMENTS];
static uint32_t model_count[KVBI_BAND_COUNT];

static uint64_t seed;

static uint32_t random_below(uint32_t limit)
{
    return kv_random(&seed, limit);
}

static int bands_setup(void **state)
{
    (void)state;
    memset(elements, 0, sizeof elements);
    memset(model_count, 0, sizeof model_count);
    for (uint32_t i = 0; i < ELEMENTS; i++) {
        elements[i].node.mark = (uint8_t)i;
        elements[i].node.spare = (uint8_t)~i;
        elements[i].node.extra = i * 7;
    }
    kvbi_bands_init(&bands, &elements[0].node, sizeof elements[0]);
    return 0;
}

#define bands_teardown bare_teardown

static void model_insert(unsigned band, uint32_t at, uint32_t index)
{
    memmove(&model[band][at + 1], &model[band][at],
            (model_count[band] - at) * sizeof model[band][0]);
    model[band][at] = index;
    model_count[band]++;
}

static void model_find(uint32_t index, unsigned *band, uint32_t *at)
{
    for (*band = 0; *band < KVBI_BAND_COUNT; (*band)++)
        for (*at = 0; *at < model_count[*band]; (*at)++)
            if (model[*band][*at] == index)
                return;
    fail_msg("node %u is linked and not in the model", index);
}

static void model_remove(uint32_t index)
{
    unsigned band;
    uint32_t at;
    model_find(index, &band, &at);
    model_count[band]--;
    memmove(&model[band][at], &model[band][at + 1],
            (model_count[band] - at) * sizeof model[band][0]);
}

/* Everything that can be asked, against the model. */
static void check(void)
{
    uint32_t total = 0, lowest = KVBI_NONE, youngest = KVBI_NONE, highest = KVBI_NONE;
    uint32_t walk = kvbi_bands_lowest(&bands);
    for (unsigned band = 0; band < KVBI_BAND_COUNT; band++) {
        uint32_t count = model_count[band];
        assert_int_equal(kvbi_bands_first(&bands, band), count > 0 ? model[band][0] : KVBI_NONE);
        if (count == 0)
            continue;
        if (lowest == KVBI_NONE) {
            lowest = model[band][0];
            youngest = model[band][count - 1];
        }
        highest = model[band][0];
        total += count;
        for (uint32_t at = 0; at < count; at++) {
            assert_int_equal(walk, model[band][at]);
            assert_int_equal(kvbi_bands_next(&bands, walk),
                             at + 1 < count ? model[band][at + 1] : KVBI_NONE);
            walk = kvbi_bands_next_in_order(&bands, walk);
        }
    }
    assert_int_equal(walk, KVBI_NONE);
    assert_int_equal(kvbi_bands_count(&bands), total);
    assert_int_equal(kvbi_bands_lowest(&bands), lowest);
    assert_int_equal(kvbi_bands_youngest_of_lowest(&bands), youngest);
    assert_int_equal(kvbi_bands_highest(&bands), highest);
}

static void test_bands_empty_has_nothing(void **state)
{
    (void)state;
    check();
}

static void test_bands_edge_priorities_are_ordered(void **state)
{
    (void)state;
    static const unsigned edges[] = {100, 64, 0, 63, 99, 1, 65, 50};
    for (uint32_t i = 0; i < 8; i++) {
        kvbi_bands_push_young(&bands, i, edges[i]);
        model_insert(edges[i], 0, i);
        check();
    }
    assert_int_equal(kvbi_bands_lowest(&bands), 2);
    assert_int_equal(kvbi_bands_highest(&bands), 0);
}

static void test_bands_random_operations_match_the_model(void **state)
{
    (void)state;
    for (int step = 0; step < 20000; step++) {
        /* Few bands for a while, then all: long lists and sparse bitmaps both. */
        unsigned band = step % 2000 < 1000 ? random_below(3) * 50 : random_below(KVBI_BAND_COUNT);
        uint32_t index = random_below(ELEMENTS), neighbour = random_below(ELEMENTS);
        if (kvbi_bands_is_linked(&bands, index)) {
            kvbi_bands_remove(&bands, index);
            model_remove(index);
        } else if (neighbour != index && kvbi_bands_is_linked(&bands, neighbour) &&
                   random_below(2) == 0) {
            uint32_t at;
            kvbi_bands_insert_older_than(&bands, index, neighbour);
            model_find(neighbour, &band, &at);
            model_insert(band, at, index);
        } else if (random_below(2) == 0) {
            kvbi_bands_push_young(&bands, index, band);
            model_insert(band, model_count[band], index);
        } else {
            kvbi_bands_push_old(&bands, index, band);
            model_insert(band, 0, index);
        }
        if (step % 16 == 0)
            check();
    }
    check();
}

static void test_bands_leave_the_callers_fields_alone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < ELEMENTS; i++)
        kvbi_bands_push_young(&bands, i, i % KVBI_BAND_COUNT);
    for (uint32_t i = 0; i < ELEMENTS; i++) {
        kvbi_bands_remove(&bands, i);
        assert_false(kvbi_bands_is_linked(&bands, i));
        assert_int_equal(elements[i].node.mark, (uint8_t)i);
        assert_int_equal(elements[i].node.spare, (uint8_t)~i);
        assert_int_equal(elements[i].node.extra, i * 7);
        assert_int_equal(elements[i].before, 0);
    }
    check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bands, test_bands_empty_has_nothing),
        TEST(bands, test_bands_edge_priorities_are_ordered),
        TEST(bands, test_bands_random_operations_match_the_model),
        TEST(bands, test_bands_leave_the_callers_fields_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
