/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvb_replay with a disk tier, from outside: where its hits come from, that every byte is right at any pace, and which
 * combinations of options are refused.
 */
#ifndef KVB_REPLAY_PATH
#include <stdio.h>

int main(void)
{
    fputs("built without the examples: there is no kvb_replay to test\n", stderr);
    return 77;
}
#else

#include "support/replay_run.h"

#define SMALL_TIERS "--device-blocks 130 --host-blocks 400 --disk-blocks 2500 --disk blocks "

static void assert_lane(const struct run *run, const char *from, const char *to)
{
    char lane[64];
    (void)snprintf(lane, sizeof lane, "\"from\": \"%s\", \"to\": \"%s\"", from, to);
    const char *found = strstr(run->out, lane);
    if (found == NULL)
        fail_msg("no lane %s to %s in: %s", from, to, run->out);
    assert_true(value_of(found, "transferred") > 0);
}

static void test_replay_hits_in_all_three_tiers(void **state)
{
    struct run run;
    (void)state;
    replay(&run, QUIET_JSON SMALL_TIERS "--limit 1000 --seed 3");
    assert_good(&run);
    const char *hits = strstr(run.out, "\"hits\": {");
    assert_non_null(hits);
    assert_true(value_of(hits, "device") > 0);
    assert_true(value_of(hits, "host") > 0);
    assert_true(value_of(hits, "disk") > 0);
}

static void test_replay_moves_over_host_both_ways(void **state)
{
    struct run run;
    (void)state;
    replay(&run, QUIET_JSON SMALL_TIERS "--limit 1000 --seed 3");
    assert_good(&run);
    assert_lane(&run, "device", "host");
    assert_lane(&run, "host", "disk");
    assert_lane(&run, "disk", "host");
    assert_lane(&run, "host", "device");
}

static void test_replay_without_host_moves_between_device_and_disk(void **state)
{
    struct run run;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        replay(&run,
               QUIET_JSON "--device-blocks 130 --host-blocks 0 --disk-blocks 2500 --disk blocks --limit 500 --seed 3 "
                          "--progress %s",
               progress_modes[i]);
        assert_good(&run);
        assert_lane(&run, "device", "disk");
        assert_lane(&run, "disk", "device");
    }
}

static void test_replay_with_a_disk_without_pace_serves_no_wrong_byte(void **state)
{
    static const char *const triggers[] = {"register", "park", "cold"};
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct run run;
        replay(&run, QUIET_JSON SMALL_TIERS "--limit 500 --seed 9 --pace none --trigger %s --progress %s",
               triggers[i / 2], progress_modes[i % 2]);
        assert_good(&run);
    }
}

static void test_replay_without_host_and_pace_serves_no_wrong_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct run run;
        replay(&run,
               QUIET_JSON "--device-blocks 130 --host-blocks 0 --disk-blocks 900 --disk blocks --limit 500 --seed 9 "
                          "--pace none --progress %s",
               progress_modes[i]);
        assert_good(&run);
    }
}

/* Not whole pages: every slot has padding. */
static void test_replay_of_padded_blocks_serves_no_wrong_byte(void **state)
{
    struct run run;
    (void)state;
    replay(&run, "--block-bytes 4160 --quiet --json - " SMALL_TIERS "--limit 500 --seed 2");
    assert_good(&run);
}

static void test_replay_takes_the_file_of_an_earlier_one(void **state)
{
    struct run run;
    (void)state;
    for (int i = 0; i < 2; i++) {
        replay(&run, QUIET_JSON SMALL_TIERS "--limit 100 --progress poll");
        assert_good(&run);
    }
}

static void assert_refused(const char *arguments, const char *named)
{
    struct run run;
    replay(&run, "%s", arguments);
    if (run.status != 2 || !strstr(run.err, named))
        fail_msg("'%s': exit status %d, '%s' expected in: %s", arguments, run.status, named, run.err);
    assert_string_equal(run.out, "");
}

static void test_replay_disk_and_disk_blocks_come_together(void **state)
{
    (void)state;
    assert_refused("--disk blocks --limit 1", "--disk-blocks");
    assert_refused("--disk-blocks 100 --limit 1", "--disk");
    assert_refused("--disk blocks --disk-blocks 0 --limit 1", "--disk-blocks");
}

static void test_replay_bad_disk_options_are_refused_by_name(void **state)
{
    (void)state;
    assert_refused("--disk", "--disk");
    assert_refused("--disk= --disk-blocks 10", "--disk");
    assert_refused("--disk-blocks 1x --disk blocks", "--disk-blocks");
    assert_refused("--disk-blocks 4294967294 --disk blocks --limit 1", "--disk-blocks");
}

static void test_replay_disk_that_cannot_be_is_refused_by_path(void **state)
{
    (void)state;
    assert_refused("--disk nowhere/blocks --disk-blocks 10 --limit 1", "--disk: nowhere/blocks");
    assert_refused("--disk . --disk-blocks 10 --limit 1", "--disk: .: is a directory");
    write_text("letter", "not a file of blocks\n");
    assert_refused("--disk letter --disk-blocks 10 --limit 1", "--disk: letter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_hits_in_all_three_tiers),
        cmocka_unit_test(test_replay_moves_over_host_both_ways),
        cmocka_unit_test(test_replay_without_host_moves_between_device_and_disk),
        cmocka_unit_test(test_replay_with_a_disk_without_pace_serves_no_wrong_byte),
        cmocka_unit_test(test_replay_without_host_and_pace_serves_no_wrong_byte),
        cmocka_unit_test(test_replay_of_padded_blocks_serves_no_wrong_byte),
        cmocka_unit_test(test_replay_takes_the_file_of_an_earlier_one),
        cmocka_unit_test(test_replay_disk_and_disk_blocks_come_together),
        cmocka_unit_test(test_replay_bad_disk_options_are_refused_by_name),
        cmocka_unit_test(test_replay_disk_that_cannot_be_is_refused_by_path),
    };
    return cmocka_run_group_tests(tests, replay_make_folder, replay_remove_folder);
}

#endif
