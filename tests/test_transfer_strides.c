/* SPDX-License-Identifier: Apache-2.0 */
/* Where chunks lie in memory that somebody else has laid out, and which layouts cannot be. */
#include <stdlib.h>
#include <string.h>

#include "support/test.h"
#include "transfer/strides.h"

#define LAYERS 3u
#define PARTS 2u
#define CHUNK 16u

static struct kvb_layout layout_of(uint64_t layer, uint64_t part, uint64_t block)
{
    return (struct kvb_layout){.size = sizeof(struct kvb_layout),
                               .layers = LAYERS,
                               .parts = PARTS,
                               .chunk_bytes = CHUNK,
                               .layer_stride = layer,
                               .part_stride = part,
                               .block_stride = block};
}

static int read_strides(struct kvbi_strides *strides, uint64_t layer, uint64_t part, uint64_t block,
                        uint32_t count, char message[128])
{
    struct kvb_layout layout = layout_of(layer, part, block);
    message[0] = '\0';
    return kvbi_strides_read(strides, &layout, count, false, message, 128);
}

static void test_no_strides_are_contiguous_blocks(void **state)
{
    (void)state;
    struct kvbi_strides strides;
    char message[128];
    static unsigned char base[5 * LAYERS * PARTS * CHUNK];
    assert_int_equal(read_strides(&strides, 0, 0, 0, 5, message), 0);
    assert_true(kvbi_strides_contiguous(&strides));
    assert_int_equal(strides.span_bytes, 5 * LAYERS * PARTS * CHUNK);
    assert_ptr_equal(kvbi_strides_chunk(&strides, base, 2, 1, 1),
                     base + ((2 * LAYERS + 1) * PARTS + 1) * CHUNK);
}

static void test_every_chunk_has_a_place_of_its_own(void **state)
{
    (void)state;
    /* layer, part, block: six orders of nesting, with gaps, for 4 blocks */
    static const uint64_t orders[][3] = {{32, 16, 96},  {16, 48, 96},  {128, 64, 16},
                                         {64, 192, 16}, {160, 16, 40}, {16, 200, 50}};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        struct kvbi_strides strides;
        char message[128];
        unsigned char bytes[1024] = {0};
        assert_int_equal(
            read_strides(&strides, orders[i][0], orders[i][1], orders[i][2], 4, message), 0);
        assert_true(strides.span_bytes <= sizeof bytes);
        for (uint32_t n = 0; n < 4 * LAYERS * PARTS; n++) {
            unsigned char *chunk = kvbi_strides_chunk(&strides, bytes, n / (LAYERS * PARTS),
                                                      n / PARTS % LAYERS, n % PARTS);
            assert_true(chunk + CHUNK <= bytes + strides.span_bytes);
            for (uint32_t b = 0; b < CHUNK; b++)
                assert_int_equal(chunk[b]++, 0);
        }
    }
}

static void test_overlap_names_the_stride(void **state)
{
    (void)state;
    struct kvbi_strides strides;
    char message[128];
    assert_int_equal(read_strides(&strides, 0, CHUNK - 1, 0, 4, message), KVB_EINVAL);
    assert_non_null(strstr(message, "part_stride of 15 bytes overlaps the 16"));
    /* layers reach into the next block */
    assert_int_equal(read_strides(&strides, 64, 16, 80, 4, message), KVB_EINVAL);
    assert_non_null(strstr(message, "block_stride"));
}

static void test_overflow_names_the_stride(void **state)
{
    (void)state;
    struct kvbi_strides strides;
    char message[128];
    assert_int_equal(read_strides(&strides, UINT64_MAX / 2, 0, 0, 4, message), KVB_EINVAL);
    assert_non_null(strstr(message, "layer_stride"));
    assert_non_null(strstr(message, "overflows"));
}

static void test_stride_of_a_single_step_does_not_matter(void **state)
{
    (void)state;
    struct kvbi_strides strides;
    char message[128];
    assert_int_equal(read_strides(&strides, 0, 0, 1, 1, message), 0);
    assert_int_equal(strides.span_bytes, LAYERS * PARTS * CHUNK);
}

static void test_bases_must_lie_apart(void **state)
{
    (void)state;
    static unsigned char bytes[LAYERS][256];
    struct kvbi_strides strides;
    struct kvb_layout layout = layout_of(0, 64, 16);
    char message[128];
    void *bases[LAYERS] = {bytes[0], bytes[1], bytes[2]};
    assert_int_equal(kvbi_strides_read(&strides, &layout, 4, true, message, sizeof message), 0);
    assert_int_equal(strides.span_bytes, 128);
    assert_int_equal(kvbi_strides_check_bases(&strides, bases, message, sizeof message), 0);
    bases[2] = bytes[0] + 127;
    assert_int_equal(kvbi_strides_check_bases(&strides, bases, message, sizeof message),
                     KVB_EINVAL);
    assert_non_null(strstr(message, "layer_memory[2] overlaps layer_memory[0]"));
    bases[2] = NULL;
    assert_int_equal(kvbi_strides_check_bases(&strides, bases, message, sizeof message),
                     KVB_EINVAL);
    layout.layer_stride = 512;
    assert_int_equal(kvbi_strides_read(&strides, &layout, 4, true, message, sizeof message),
                     KVB_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_no_strides_are_contiguous_blocks),
        TEST(bare, test_every_chunk_has_a_place_of_its_own),
        TEST(bare, test_overlap_names_the_stride),
        TEST(bare, test_overflow_names_the_stride),
        TEST(bare, test_stride_of_a_single_step_does_not_matter),
        TEST(bare, test_bases_must_lie_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
