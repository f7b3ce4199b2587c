/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk tier through the public interface when the disk fails: a miss each time, never wrong
 * bytes, and the rest goes on.
 */
#include <errno.h>
#include <unistd.h>

#include "support/disk_restart.h"

/* ---- Reads that fail ------------------------------------------------------------------------- */

/*
 * The block at `index` of a run on disk cannot be read; everybody who asks for the run gets what is
 * before it.
 */
static struct disk_scene *scene_with_unreadable(void **state, struct mv_run *run, uint32_t count,
                                                uint32_t index)
{
    struct disk_scene *scene = *state;
    store_on_disk(scene, run, 1, count);
    (void)make_unreadable(scene, run, index);
    return scene;
}

static void test_failed_read_is_a_miss_for_all_who_joined(void **state)
{
    struct mv_run run, other;
    struct disk_scene *scene = scene_with_unreadable(state, &run, 6, 3);
    other = run;
    /* Held back by the fence, the prefetch is not over before the other has joined. */
    struct kvb_op *first = bring_up(scene, &run, KVB_TIER_HOST, NULL, 1);
    struct kvb_op *second = bring_up(scene, &other, KVB_TIER_DEVICE, NULL, 1);
    mv_signal(&scene->rig, 1);
    assert_int_equal(finish(scene, &run, first), 3);
    assert_int_equal(finish(scene, &other, second), 3);
}

static void test_failed_read_is_forgotten_and_announced(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_unreadable(state, &run, 6, 3);
    assert_int_equal(fetch(scene, &run), 3);
    assert_false(is_found(scene, &run, 3));
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_REMOVED, KVB_TIER_DISK), 1);
    assert_int_equal(mv_event(&scene->rig, KVB_EVENT_REMOVED, KVB_TIER_DISK, 0), run.seqs[3].hash);
}

static void test_failed_read_leaves_the_other_blocks_alone(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_unreadable(state, &run, 6, 3);
    assert_int_equal(fetch(scene, &run), 3);
    evict_above(scene);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(is_found(scene, &run, i), i != 3);
    run.count = 3;
    assert_int_equal(fetch(scene, &run), 3);
}

static void test_failed_read_is_counted_and_logged(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_unreadable(state, &run, 6, 3);
    assert_int_equal(fetch(scene, &run), 3);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_DISK, KVB_TIER_HOST).failed_transfer, 1);
    assert_true(kv_log_has(&scene->rig.log, "transfer failed"));
}

static void test_slot_that_gave_an_io_error_is_retired(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_unreadable(state, &run, 6, 3);
    assert_int_equal(fetch(scene, &run), 3);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS - 6);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].retired_count, 1);
}

static void test_content_that_was_lost_can_be_stored_again(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_unreadable(state, &run, 1, 0);
    assert_int_equal(fetch(scene, &run), 0);
    scene->io.read_errno = 0;
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(fetch(scene, &run), 1);
}

static void test_failed_read_of_a_held_block_is_a_miss_and_the_handle_stays_good(void **state)
{
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    struct disk_scene *scene = scene_with_unreadable(state, &run, 1, 0);
    assert_int_equal(hold(scene, &run, hits), 1);
    struct kvb_block *held = run.blocks[0];
    assert_int_equal(fetch(scene, &run), 0);
    assert_int_equal(kv_describe(&scene->rig, held).indexed, 0);
    kv_unref(&scene->rig, held);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS - 1);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].retired_count, 1);
}

static void test_failed_read_without_host_is_a_miss(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_open_with(scene, 0, DISK_BLOCKS);
    store_on_disk(scene, &run, 1, 6);
    (void)make_unreadable(scene, &run, 3);
    assert_int_equal(fetch(scene, &run), 3);
    assert_false(is_found(scene, &run, 3));
}

static void test_flipped_bit_is_a_miss(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    uint32_t last = KV_LAYERS * KV_PARTS * KV_CHUNK - 1;
    flip_bit(scene->path, payload_offset(slot_on_disk(scene, &run, 2)) + last);
    assert_int_equal(fetch(scene, &run), 2);
    assert_false(is_found(scene, &run, 2));
}

static void test_slot_that_holds_another_blocks_bytes_is_a_miss(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    unsigned char bytes[KVBI_DISK_ALIGN];
    store_on_disk(scene, &run, 1, 6);
    peek_file(scene->path, payload_offset(slot_on_disk(scene, &run, 1)), bytes, sizeof bytes);
    poke_file(scene->path, payload_offset(slot_on_disk(scene, &run, 2)), bytes, sizeof bytes);
    assert_int_equal(fetch(scene, &run), 2);
}

static void test_file_cut_short_is_misses(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    assert_int_equal(truncate(scene->path, (off_t)payload_offset(0)), 0);
    assert_int_equal(fetch(scene, &run), 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_false(is_found(scene, &run, i));
}

static void test_unlinked_file_goes_on_serving(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    assert_int_equal(unlink(scene->path), 0);
    assert_int_equal(fetch(scene, &run), 6);
}

/* ---- Writes that fail ------------------------------------------------------------------------ */

static void fail_to_write(void **state, int error, uint32_t retired)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->io.write_errno = error;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 5);
    flush_and_check(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).failed_transfer, 5);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS - retired);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].retired_count, retired);
    evict_above(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
}

static void test_block_that_found_no_space_is_not_findable(void **state)
{
    fail_to_write(state, ENOSPC, 0);
}

static void test_block_that_was_not_written_is_not_findable(void **state)
{
    fail_to_write(state, EIO, 5);
}

static void test_block_that_was_not_written_stays_above(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->io.write_errno = EIO;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 5);
    flush_and_check(scene);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    mv_expect_in(&scene->rig, &run, KVB_TIER_HOST);
}

static void test_block_that_was_not_written_can_be_offered_again(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->io.write_errno = ENOSPC;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 5);
    flush_and_check(scene);
    scene->io.write_errno = 0;
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_match(&scene->rig, &run), 5);
    kv_ok(kvb_block_offload(scene->rig.kv, run.blocks, 5, KVB_PRIORITY_DEFAULT, NULL, NULL));
    mv_drop(&scene->rig, &run);
    flush_and_check(scene);
    evict_above(scene);
    assert_int_equal(fetch(scene, &run), 5);
}

/* ---- Out of service -------------------------------------------------------------------------- */

/* As many reads in a row fail as it takes. `kept` is on the disk too, and was not read. */
static struct disk_scene *scene_with_lost_disk(void **state, struct mv_run *kept)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, kept, 1, 4);
    store_on_disk(scene, &run, 2, KVB_DISK_ERRORS_MAX);
    scene->io.read_errno = EIO;
    assert_int_equal(fetch(scene, &run), 0);
    scene->io.read_errno = 0;
    return scene;
}

static void test_disk_is_out_of_service_after_errors_in_a_row(void **state)
{
    struct mv_run kept;
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    assert_true(disk_lost(scene));
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_HOST].out_of_service, 0);
}

static void test_disk_out_of_service_is_logged_once(void **state)
{
    struct mv_run kept;
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    uint32_t lines = 0;
    for (size_t i = 0; i < KV_LOG_MAX && i < scene->rig.log.count; i++)
        lines += strstr(scene->rig.log.lines[i].text, "out of service") != NULL &&
                 scene->rig.log.lines[i].level == KVB_LOG_ERROR;
    assert_int_equal(lines, 1);
}

static void test_disk_out_of_service_is_not_matched(void **state)
{
    struct mv_run kept;
    struct kvb_hit hits[MV_RUN_MAX];
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    assert_int_equal(mv_found(&scene->rig, &kept), 0);
    assert_int_equal(hold(scene, &kept, hits), 0);
}

static int count_disk_copies(void *arg, const struct kvb_event *event)
{
    if (event->tier == KVB_TIER_DISK)
        ++*(uint32_t *)arg;
    return 0;
}

/* Routers are told by *removed*, and a walk agrees. */
static void test_disk_out_of_service_is_forgotten(void **state)
{
    struct mv_run kept;
    uint32_t copies = 0;
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    flush_and_check(scene);
    kv_ok(kvb_index_walk(scene->rig.kv, count_disk_copies, &copies));
    assert_int_equal(copies, 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].parked_count, 0);
}

static void test_disk_out_of_service_takes_no_offers(void **state)
{
    struct mv_run kept, run;
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    uint32_t writes = scene->io.writes;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 3, 6);
    flush_and_check(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_out_of_service, 6);
    assert_int_equal(scene->io.writes, writes);
}

static void test_disk_out_of_service_leaves_device_and_host_serving(void **state)
{
    struct mv_run kept, run;
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 3, 6);
    flush_and_check(scene);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_in_tier(&scene->rig, &run, KVB_TIER_HOST), 6);
    assert_int_equal(fetch(scene, &run), 6);
}

static void test_content_on_a_disk_out_of_service_can_be_stored_above(void **state)
{
    struct mv_run kept;
    struct disk_scene *scene = scene_with_lost_disk(state, &kept);
    mv_park(&scene->rig, &kept, KVB_TIER_DEVICE, 1, 4);
    flush_and_check(scene);
    mv_expect_in(&scene->rig, &kept, KVB_TIER_DEVICE);
}

/* Matched while it was in service: the handle is good, the way up is not. */
static void test_block_held_on_a_disk_out_of_service_is_a_miss(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run held, run;
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, &held, 1, 2);
    store_on_disk(scene, &run, 2, KVB_DISK_ERRORS_MAX);
    assert_int_equal(hold(scene, &held, hits), 2);
    scene->io.read_errno = EIO;
    assert_int_equal(fetch(scene, &run), 0);
    scene->io.read_errno = 0;
    struct kvb_block *targets[2];
    struct kvb_op *op = NULL;
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 2, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(held.blocks, targets, 2, NULL);
    kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
    mv_drop(&scene->rig, &held);
    assert_int_equal(finish(scene, &held, op), 0);
}

static void test_disk_is_out_of_service_after_writes_that_failed(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->io.write_errno = ENOSPC;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, KVB_DISK_ERRORS_MAX);
    flush_and_check(scene);
    assert_true(disk_lost(scene));
}

static void test_one_success_between_errors_keeps_the_disk_in_service(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run first, good, second;
    store_on_disk(scene, &first, 1, KVB_DISK_ERRORS_MAX - 1);
    store_on_disk(scene, &good, 2, 1);
    store_on_disk(scene, &second, 3, KVB_DISK_ERRORS_MAX - 1);
    scene->io.read_errno = EIO;
    assert_int_equal(fetch(scene, &first), 0);
    scene->io.read_errno = 0;
    assert_int_equal(fetch(scene, &good), 1);
    scene->io.read_errno = EIO;
    assert_int_equal(fetch(scene, &second), 0);
    assert_false(disk_lost(scene));
}

/* ---- Any I/O may fail ------------------------------------------------------------------------ */

/*
 * More than DEVICE and HOST hold, less than the disk does, each asked for again. Returns how much
 * I/O there was.
 */
static uint32_t play(struct disk_scene *scene, uint32_t fail_at)
{
    struct mv_run runs[5];
    scene_tiers(scene, 8, DISK_BLOCKS);
    scene->rig.tiers[0].block_count = 8;
    scene->io.fail_at = fail_at;
    scene_open(scene);
    for (uint32_t i = 0; i < 5; i++) {
        mv_park(&scene->rig, &runs[i], KVB_TIER_DEVICE, i + 1, 4);
        flush_and_check(scene);
    }
    for (uint32_t i = 0; i < 5; i++) {
        struct mv_run run = runs[i];
        run.count = (uint32_t)mv_found(&scene->rig, &run);
        assert_true(run.count == 4 || fail_at > 0);
        if (run.count > 0 && mv_in_tier(&scene->rig, &run, KVB_TIER_DEVICE) == 0)
            assert_true(fetch(scene, &run) == 4 || fail_at > 0);
    }
    uint32_t count = scene->io.count;
    scene_again(scene);
    return count;
}

static void test_any_single_io_may_fail(void **state)
{
    uint32_t count = play(*state, 0);
    assert_true(count > 25);
    for (uint32_t n = 1; n <= count; n++)
        (void)play(*state, n);
}

/* ---------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene_opened, test_failed_read_is_a_miss_for_all_who_joined),
        TEST(disk_scene_opened, test_failed_read_is_forgotten_and_announced),
        TEST(disk_scene_opened, test_failed_read_leaves_the_other_blocks_alone),
        TEST(disk_scene_opened, test_failed_read_is_counted_and_logged),
        TEST(disk_scene_opened, test_slot_that_gave_an_io_error_is_retired),
        TEST(disk_scene_opened, test_content_that_was_lost_can_be_stored_again),
        TEST(disk_scene_opened,
             test_failed_read_of_a_held_block_is_a_miss_and_the_handle_stays_good),
        TEST(disk_scene, test_failed_read_without_host_is_a_miss),
        TEST(disk_scene_opened, test_flipped_bit_is_a_miss),
        TEST(disk_scene_opened, test_slot_that_holds_another_blocks_bytes_is_a_miss),
        TEST(disk_scene_opened, test_file_cut_short_is_misses),
        TEST(disk_scene_opened, test_unlinked_file_goes_on_serving),
        TEST(disk_scene_opened, test_block_that_found_no_space_is_not_findable),
        TEST(disk_scene_opened, test_block_that_was_not_written_is_not_findable),
        TEST(disk_scene_opened, test_block_that_was_not_written_stays_above),
        TEST(disk_scene_opened, test_block_that_was_not_written_can_be_offered_again),
        TEST(disk_scene_opened, test_disk_is_out_of_service_after_errors_in_a_row),
        TEST(disk_scene_opened, test_disk_out_of_service_is_logged_once),
        TEST(disk_scene_opened, test_disk_out_of_service_is_not_matched),
        TEST(disk_scene_opened, test_disk_out_of_service_is_forgotten),
        TEST(disk_scene_opened, test_disk_out_of_service_takes_no_offers),
        TEST(disk_scene_opened, test_disk_out_of_service_leaves_device_and_host_serving),
        TEST(disk_scene_opened, test_content_on_a_disk_out_of_service_can_be_stored_above),
        TEST(disk_scene_opened, test_block_held_on_a_disk_out_of_service_is_a_miss),
        TEST(disk_scene_opened, test_disk_is_out_of_service_after_writes_that_failed),
        TEST(disk_scene_opened, test_one_success_between_errors_keeps_the_disk_in_service),
        TEST(disk_scene, test_any_single_io_may_fail),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, NULL, 0);
}
