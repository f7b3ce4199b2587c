/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance test of tiers finds what is wrong with a kind: each here is host memory's or the
 * disk's, and breaks one promise of transfer/kind.h or transfer/tier.h.
 */
#include "support/bent_kind.h"
#include "support/test.h"

static void test_kinds_that_are_only_wrapped_keep_every_promise(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, NULL);
    bent_kind_expect_all_kept();
    bent_kind_start(&tier_recipe_disks, NULL);
    bent_kind_expect_all_kept();
}

/* ---- The list of kinds ----------------------------------------------------------------------- */

static void test_kind_without_a_recipe_is_named(void **state)
{
    const struct tier_recipe recipes[] = {{.kind = "cuda"}, tier_recipe_memory, tier_recipe_faulty};
    (void)state;
    assert_string_equal(tier_conformance_lacks(recipes, 3), "disk");
}

static void test_recipe_of_an_unknown_kind_has_none(void **state)
{
    const struct tier_recipe recipe = {.kind = "tape"};
    (void)state;
    assert_null(tier_recipe_kind(&recipe));
}

/* ---- Configurations -------------------------------------------------------------------------- */

static bool is_anything(const struct kvb_tier_config *config)
{
    (void)config;
    return true;
}

static void test_kind_that_any_configuration_means_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, NULL);
    bent_kind.is = is_anything;
    bent_kind_expect_found("configurations of others do not mean it");
}

static bool is_nothing(const struct kvb_tier_config *config)
{
    (void)config;
    return false;
}

static void test_kind_that_its_configuration_does_not_mean_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, NULL);
    bent_kind.is = is_nothing;
    bent_kind_expect_found("its configuration means it and no other");
}

static int check_nothing(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                         uint64_t block_bytes, char *message, size_t message_bytes)
{
    (void)config, (void)layout, (void)block_bytes, (void)message, (void)message_bytes;
    return 0;
}

static void test_kind_that_checks_nothing_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, NULL);
    bent_kind.check = check_nothing;
    bent_kind_expect_found("check refuses configurations of others");
    bent_kind_expect_found("check refuses fields of others");
}

static int check_without_words(const struct kvb_tier_config *config,
                               const struct kvb_layout *layout, uint64_t block_bytes, char *message,
                               size_t message_bytes)
{
    int error = bent_kind_real->check(config, layout, block_bytes, message, message_bytes);
    (void)snprintf(message, message_bytes, "%s", error != 0 ? "that is not right" : "");
    return error;
}

static void test_kind_that_names_no_field_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, NULL);
    bent_kind.check = check_without_words;
    bent_kind_expect_found("check refuses fields of others");
}

static int check_too_much(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                          uint64_t block_bytes, char *message, size_t message_bytes)
{
    (void)config, (void)layout, (void)block_bytes;
    return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL, "tier is what it is");
}

static void test_kind_that_refuses_its_own_configuration_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, NULL);
    bent_kind.check = check_too_much;
    bent_kind_expect_found("check accepts its configuration");
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

static unsigned char *overlapping_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                        uint32_t part, const struct kvb_layout *layout)
{
    unsigned char *chunk = kvbi_tier_address(tier, slot) +
                           ((uint64_t)layer * layout->parts + part) * layout->chunk_bytes;
    return slot == 7 && layer == 1 && part == 1 ? chunk - 1 : chunk;
}

static void overlap(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.chunk = overlapping_chunk;
}

static void test_tier_whose_chunks_overlap_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, overlap);
    bent_kind_expect_found("chunks are disjoint and in the tier");
}

static unsigned char *later_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                  uint32_t part, const struct kvb_layout *layout)
{
    return kvbi_tier_address(tier, slot + 1) +
           ((uint64_t)layer * layout->parts + part) * layout->chunk_bytes;
}

static void leave(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.chunk = later_chunk;
}

static void test_tier_whose_chunks_lie_outside_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, leave);
    bent_kind_expect_found("chunks are disjoint and in the tier");
}

static unsigned char *turned_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                   uint32_t part, const struct kvb_layout *layout)
{
    return kvbi_tier_address(tier, tier->block_count - 1 - slot) +
           ((uint64_t)layer * layout->parts + part) * layout->chunk_bytes;
}

static void turn(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.chunk = turned_chunk;
}

static void test_tier_that_does_not_say_that_blocks_lie_apart_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, turn);
    bent_kind_expect_found("apart says where blocks lie");
}

static const char *apart_in_vain(const struct kvbi_tier *tier)
{
    (void)tier;
    return "whose blocks lie apart";
}

static void call_apart(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.apart = apart_in_vain;
}

static void test_tier_that_calls_apart_what_is_not_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, call_apart);
    bent_kind_expect_found("apart says where blocks lie");
}

static struct kvbi_engine_ops engine_ops;
static int (*real_submit)(struct kvbi_engine *, const struct kvbi_copy *, uint32_t, bool);

/* The upper half of the slots is the lower half. */
static int submit_folded(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                         bool urgent)
{
    struct kvbi_copy folded[PAIR_BLOCKS];
    for (uint32_t i = 0; i < count; i++) {
        folded[i] = copies[i];
        folded[i].to_slot =
            copies[i].to->tier == KVB_TIER_HOST ? copies[i].to_slot % 24 : copies[i].to_slot;
        folded[i].from_slot =
            copies[i].from->tier == KVB_TIER_HOST ? copies[i].from_slot % 24 : copies[i].from_slot;
    }
    return real_submit(engine, folded, count, urgent);
}

static int create_folding_engine(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                                 const struct kvbi_engines_config *config, char *said)
{
    int error = kvbi_memory_create_engine(tier, engine, config, said);
    if (error != 0)
        return error;
    engine_ops = *(*engine)->ops;
    real_submit = engine_ops.submit;
    engine_ops.submit = submit_folded;
    (*engine)->ops = &engine_ops;
    return 0;
}

static void fold(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.create_engine = create_folding_engine;
}

static void test_tier_two_slots_of_which_are_one_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, fold);
    bent_kind_expect_found("slots keep their bytes");
}

/* ---- What it says of itself ------------------------------------------------------------------ */

static void drop_operation(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.apart = NULL;
}

static void test_tier_without_an_operation_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, drop_operation);
    bent_kind_expect_found("the tier is whole");
}

static void drop_lasting_operation(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.dropped = NULL;
}

static void test_lasting_tier_without_an_operation_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, drop_lasting_operation);
    bent_kind_expect_found("the tier is whole");
}

static void count_wrongly(struct kvbi_tier *tier)
{
    tier->block_count--;
}

static void test_tier_with_other_blocks_than_asked_for_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, count_wrongly);
    bent_kind_expect_found("the tier is whole");
}

static bool lost_for_words(const struct kvbi_tier *tier, char *why, size_t why_bytes)
{
    (void)tier;
    if (why != NULL)
        (void)snprintf(why, why_bytes, "not at all");
    return false;
}

static void speak(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.lost = lost_for_words;
}

static void test_tier_that_says_why_it_is_not_lost_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, speak);
    bent_kind_expect_found("lost is false until its memory fails");
}

static void set_statistics(const struct kvbi_tier *tier, struct kvb_stats *stats)
{
    (void)tier;
    stats->pinned_bytes = 4096;
}

static void set(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.statistics = set_statistics;
}

static void test_tier_that_sets_statistics_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_memory, set);
    bent_kind_expect_found("statistics only add");
}

static void forget_tables(struct kvbi_tier *tier)
{
    (void)tier;
    bent_tier_ops.bytes = kvbi_tier_no_bytes;
}

static void test_tier_that_counts_no_tables_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, forget_tables);
    bent_kind_expect_found("bytes is what create took");
}

static void *leaked;
static const struct kvbi_memory *leaked_from;

static void leak(struct kvbi_tier *tier)
{
    leaked_from = tier->memory;
    leaked = kvbi_memory_alloc(leaked_from, 1, 16, 0);
}

static void test_tier_that_leaks_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, leak);
    bent_kind_expect_found("destroy leaves nothing, twice");
    kvbi_memory_free(leaked_from, leaked, 1, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_kinds_that_are_only_wrapped_keep_every_promise),
        TEST(bare, test_kind_without_a_recipe_is_named),
        TEST(bare, test_recipe_of_an_unknown_kind_has_none),
        TEST(bare, test_kind_that_any_configuration_means_is_found),
        TEST(bare, test_kind_that_its_configuration_does_not_mean_is_found),
        TEST(bare, test_kind_that_checks_nothing_is_found),
        TEST(bare, test_kind_that_names_no_field_is_found),
        TEST(bare, test_kind_that_refuses_its_own_configuration_is_found),
        TEST(bare, test_tier_whose_chunks_overlap_is_found),
        TEST(bare, test_tier_whose_chunks_lie_outside_is_found),
        TEST(bare, test_tier_that_does_not_say_that_blocks_lie_apart_is_found),
        TEST(bare, test_tier_that_calls_apart_what_is_not_is_found),
        TEST(bare, test_tier_two_slots_of_which_are_one_is_found),
        TEST(bare, test_tier_without_an_operation_is_found),
        TEST(bare, test_lasting_tier_without_an_operation_is_found),
        TEST(bare, test_tier_with_other_blocks_than_asked_for_is_found),
        TEST(bare, test_tier_that_says_why_it_is_not_lost_is_found),
        TEST(bare, test_tier_that_sets_statistics_is_found),
        TEST(bare, test_tier_that_counts_no_tables_is_found),
        TEST(bare, test_tier_that_leaks_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
