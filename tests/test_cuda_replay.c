/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replay with its device tier on the stand-in for CUDA: an hour of chats through real streams, every reused byte checked, and the
 * stand-in has nothing to report (the program fails otherwise).
 */
#include "support/replay_run.h"

static void test_replay_serves_no_wrong_byte_from_the_gpu(void **state)
{
    static const char *const triggers[] = {"register", "park", "cold"};
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct run run;
        replay(
            &run,
            QUIET_JSON
            "--device-memory fake-cuda --device-blocks 130 --host-blocks 500 --limit 200 --seed 9 --pace none "
            "--trigger %s --progress %s",
            triggers[i / 2], progress_modes[i % 2]);
        assert_good(&run);
        assert_true(hits_of(run.out) > 0);
    }
}

static void test_replay_goes_through_all_three_tiers(void **state)
{
    (void)state;
    struct run run;
    replay(
        &run, QUIET_JSON
        "--device-memory fake-cuda --device-blocks 130 --host-blocks 200 --disk-blocks 800 --disk store "
        "--limit 200 --seed 9");
    assert_good(&run);
    assert_true(hits_of(run.out) > 0);
}

/* Between the GPU and the disk, and across a restart. */
static void test_replay_without_host_finds_its_blocks_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct run first, second;
        const char *arguments = QUIET_JSON
            "--device-memory fake-cuda --device-blocks 130 --host-blocks 0 --disk-blocks "
            "20000 --disk straits --limit 100 --seed 9 --progress";
        replay(&first, "%s %s", arguments, progress_modes[i]);
        assert_good(&first);
        assert_true(value_of(strstr(first.out, "\"hits\": {"), "disk") > 0);
        replay(&second, "%s %s --resume", arguments, progress_modes[i]);
        assert_good(&second);
        assert_true(value_of(second.out, "recovered") ==
                    value_of(first.out, "block_refs") - hits_of(first.out));
        assert_true(hits_of(second.out) == value_of(second.out, "block_refs"));
    }
}

static void test_replay_without_that_memory_says_so(void **state)
{
    (void)state;
    struct run run;
    replay(&run, QUIET_JSON "--device-memory cuda");
    assert_int_equal(run.status, 2);
    assert_non_null(strstr(run.err, "'cuda' is not host or fake-cuda"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_serves_no_wrong_byte_from_the_gpu),
        cmocka_unit_test(test_replay_goes_through_all_three_tiers),
        cmocka_unit_test(test_replay_without_host_finds_its_blocks_again),
        cmocka_unit_test(test_replay_without_that_memory_says_so),
    };
    return cmocka_run_group_tests(tests, replay_make_folder, replay_remove_folder);
}
