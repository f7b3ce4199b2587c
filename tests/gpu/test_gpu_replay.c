/* SPDX-License-Identifier: Apache-2.0 */
/* The replay with its device tier on a GPU: every reused byte is checked. */
#include "support/kv_device.h"
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
            "--device-memory cuda --device-blocks 130 --host-blocks 500 --limit 200 --seed 9 --pace none "
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
        "--device-memory cuda --device-blocks 130 --host-blocks 200 --disk-blocks 800 --disk store "
        "--limit 200 --seed 9");
    assert_good(&run);
    assert_true(hits_of(run.out) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_serves_no_wrong_byte_from_the_gpu),
        cmocka_unit_test(test_replay_goes_through_all_three_tiers),
    };
    kv_device_need_gpu();
    return cmocka_run_group_tests(tests, replay_make_folder, replay_remove_folder);
}
