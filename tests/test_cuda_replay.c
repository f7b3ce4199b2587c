/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replay with its device tier on the stand-in for CUDA: an hour of chats through real streams,
 * every reused byte checked, and the stand-in has nothing to report (the program fails otherwise).
 */
#include <string.h>

#include "support/replay_run.h"

static void test_replay_serves_no_wrong_byte_from_the_gpu(void **state)
{
    expect_right_bytes_at_any_pace(*state, "fake-cuda");
}

static void test_replay_goes_through_all_three_tiers(void **state)
{
    expect_right_bytes_from_three_tiers(*state, "fake-cuda");
}

/* Between the GPU and the disk, and across a restart. */
static void test_replay_without_host_finds_its_blocks_again(void **state)
{
    struct replay_folder *folder = *state;
    for (size_t i = 0; i < 2; i++) {
        struct run first, second;
        const char *arguments = QUIET_JSON
            "--device-memory fake-cuda --device-blocks 130 --host-blocks 0 --disk-blocks "
            "20000 --disk straits --limit 100 --seed 9 --progress";
        replay(folder, &first, "%s %s", arguments, progress_modes[i]);
        assert_good(&first);
        assert_true(value_of(strstr(first.out, "\"hits\": {"), "disk") > 0);
        replay(folder, &second, "%s %s --resume", arguments, progress_modes[i]);
        assert_good(&second);
        assert_true(value_of(second.out, "recovered") ==
                    value_of(first.out, "block_refs") - hits_of(first.out));
        assert_true(hits_of(second.out) == value_of(second.out, "block_refs"));
    }
}

static void test_replay_without_that_memory_says_so(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON "--device-memory cuda");
    assert_int_equal(run.status, 2);
    assert_non_null(strstr(run.err, "'cuda' is not host or fake-cuda"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(replay_folder, test_replay_serves_no_wrong_byte_from_the_gpu),
        TEST(replay_folder, test_replay_goes_through_all_three_tiers),
        TEST(replay_folder, test_replay_without_host_finds_its_blocks_again),
        TEST(replay_folder, test_replay_without_that_memory_says_so),
    };
    return run_replay_tests(KVB_REPLAY_PATH, tests, sizeof tests / sizeof *tests);
}
