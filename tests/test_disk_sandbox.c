/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk tier where io_uring_register is refused: nothing is registered, no eventfd either, and
 * whoever sleeps does so on the ring's own descriptor.
 */
#include <errno.h>
#include <sys/syscall.h>

#include "support/disk_scene.h"
#include "support/sandbox.h"

#define ROUNDS 100

/* Were a wake-up lost, a flush or a wait would never end. */
static void test_sandbox_every_block_goes_down_and_comes_back(void **state)
{
    struct disk_scene *scene = *state;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct mv_run run;
        uint32_t count = 1 + i * 7 % 16;
        store_on_disk(scene, &run, 100 + i * 50, count);
        assert_int_equal(fetch(scene, &run), count);
    }
}

int main(void)
{
    static const int refused[] = {SYS_io_uring_register};
    static const struct CMUnitTest each[] = {
        TEST(disk_scene_opened, test_sandbox_every_block_goes_down_and_comes_back)};
    if (!sandbox_refuse(refused, 1, EPERM)) {
        print_message("no seccomp here\n");
        return 77;
    }
    return run_disk_tests(each, 1, NULL, 0);
}
