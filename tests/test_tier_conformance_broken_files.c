/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance test of tiers finds what is wrong with a kind: each here is the disk's,
 * and breaks one promise of transfer/tier.h about what outlives the process.
 */
#include "support/bent_kind.h"
#include "support/test.h"
#include "transfer/disk/tier.h"

static uint32_t no_file(const struct kvbi_tier *tier)
{
    (void)tier;
    return 0;
}

static void lose_files(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.file_count = no_file;
}

static void test_tier_of_no_files_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, lose_files);
    bent_kind_expect_found("files have names");
}

static bool always(const struct kvbi_tier *tier, uint32_t file)
{
    (void)tier, (void)file;
    return true;
}

static void keep_always(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.kept = always;
}

static void test_tier_that_keeps_what_is_new_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disks, keep_always);
    bent_kind_expect_found("new files are empty");
}

static void overwrite_statistics(const struct kvbi_tier *tier, uint32_t file,
                                 struct kvb_disk_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    kvbi_disk_lasting_ops.file_statistics(tier, file, stats);
}

static void overwrite(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.file_statistics = overwrite_statistics;
}

static void test_tier_that_overwrites_the_stores_statistics_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disks, overwrite);
    bent_kind_expect_found("statistics of a file leave the rest alone");
}

static enum kvbi_answer blame(const struct kvbi_tier *tier, int result)
{
    (void)tier;
    return result == 0 ? KVBI_ANSWER_GOOD : KVBI_ANSWER_BAD;
}

static void blame_always(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.answered = blame;
}

static void test_tier_that_blames_its_files_for_all_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, blame_always);
    bent_kind_expect_found("answers say whose fault it was");
}

static uint32_t scan_nothing(struct kvbi_tier *tier, uint64_t *cursor, struct kvbi_found *found,
                             uint32_t max)
{
    (void)tier, (void)cursor, (void)found, (void)max;
    return 0;
}

static void find_nothing(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.scan = scan_nothing;
}

static void test_tier_that_finds_nothing_again_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, find_nothing);
    bent_kind_expect_found("blocks survive a kill");
}

static uint32_t scan_older(struct kvbi_tier *tier, uint64_t *cursor, struct kvbi_found *found,
                           uint32_t max)
{
    uint32_t count = kvbi_disk_lasting_ops.scan(tier, cursor, found, max);
    for (uint32_t i = 0; i < count; i++) {
        found[i].label.generation -= found[i].slot == found[0].slot;
        found[i].age = found[i].sequence;
    }
    return count;
}

static void find_otherwise(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.scan = scan_older;
}

static void test_tier_that_finds_another_generation_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, find_otherwise);
    bent_kind_expect_found("blocks survive a kill");
}

static void close_in_any_order(struct kvbi_tier *tier, const uint32_t *order, uint32_t count)
{
    uint32_t turned[PAIR_BLOCKS];
    for (uint32_t i = 0; i < count; i++)
        turned[i] = order[count - 1 - i];
    kvbi_disk_lasting_ops.close(tier, turned, count);
}

static void lose_order(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.close = close_in_any_order;
}

static void test_tier_that_loses_the_order_of_use_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disks, lose_order);
    bent_kind_expect_found("blocks survive a close, with their order");
}

static int clear_nothing(struct kvbi_tier *tier, uint64_t clears)
{
    (void)tier, (void)clears;
    return 0;
}

static void keep_what_is_cleared(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.clear = clear_nothing;
}

static void test_tier_that_clears_nothing_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, keep_what_is_cleared);
    bent_kind_expect_found("clear empties all files");
}

static int renew_all(struct kvbi_tier *tier, uint32_t file)
{
    int error = 0;
    (void)file;
    for (uint32_t i = 0; error == 0 && i < kvbi_disk_lasting_ops.file_count(tier); i++)
        error = kvbi_disk_lasting_ops.renew(tier, i);
    return error;
}

static void renew_too_much(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.renew = renew_all;
}

static void test_tier_that_renews_all_files_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disks, renew_too_much);
    bent_kind_expect_found("renew empties one file");
}

/* Both in memory alone. */
static void retire_for_now(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.retire = kvbi_disk_lasting_ops.forget;
}

static void test_tier_that_retires_for_this_run_only_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, retire_for_now);
    bent_kind_expect_found("retired slots stay retired");
}

static void forget_for_good(struct kvbi_tier *tier)
{
    (void)tier;
    bent_lasting_ops.forget = kvbi_disk_lasting_ops.retire;
}

static void test_tier_that_forgets_for_good_is_found(void **state)
{
    (void)state;
    bent_kind_start(&tier_recipe_disk, forget_for_good);
    bent_kind_expect_found("forget holds in memory only");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_tier_of_no_files_is_found),
        TEST(bare, test_tier_that_keeps_what_is_new_is_found),
        TEST(bare, test_tier_that_overwrites_the_stores_statistics_is_found),
        TEST(bare, test_tier_that_blames_its_files_for_all_is_found),
        TEST(bare, test_tier_that_finds_nothing_again_is_found),
        TEST(bare, test_tier_that_finds_another_generation_is_found),
        TEST(bare, test_tier_that_loses_the_order_of_use_is_found),
        TEST(bare, test_tier_that_clears_nothing_is_found),
        TEST(bare, test_tier_that_renews_all_files_is_found),
        TEST(bare, test_tier_that_retires_for_this_run_only_is_found),
        TEST(bare, test_tier_that_forgets_for_good_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
