/* SPDX-License-Identifier: Apache-2.0 */
/* The replay with its device tier on a GPU: every reused byte is checked. */
#include "support/kv_device.h"
#include "support/replay_run.h"

static void test_replay_serves_no_wrong_byte_from_the_gpu(void **state)
{
    expect_right_bytes_at_any_pace(*state, "cuda");
}

static void test_replay_goes_through_all_three_tiers(void **state)
{
    expect_right_bytes_from_three_tiers(*state, "cuda");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(replay_folder, test_replay_serves_no_wrong_byte_from_the_gpu),
        TEST(replay_folder, test_replay_goes_through_all_three_tiers),
    };
    kv_device_need_gpu();
    return run_replay_tests(KVB_REPLAY_PATH, tests, sizeof tests / sizeof *tests);
}
