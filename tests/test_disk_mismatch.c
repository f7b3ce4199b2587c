/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a disk tier that are not what the configuration expects, or are damaged, through the
 * public interface: refused by name and left alone, emptied where that is asked for, or misses;
 * never wrong bytes.
 */
#include <errno.h>
#include <unistd.h>

#include "support/disk_restart.h"

/* ---- Files of another purpose ---------------------------------------------------------------- */

struct mismatch {
    void (*change)(struct kv_rig *rig);
    const char *words;
};

static void other_model(struct kv_rig *rig)
{
    rig->config.model = "another one";
}

static void other_layers(struct kv_rig *rig)
{
    rig->layout.layers *= 2;
    rig->layout.chunk_bytes /= 2;
}

static void other_parts(struct kv_rig *rig)
{
    rig->layout.parts /= 2;
    rig->layout.chunk_bytes *= 2;
}

static void other_chunks(struct kv_rig *rig)
{
    rig->layout.chunk_bytes *= 2;
}

static void other_tokens(struct kv_rig *rig)
{
    rig->config.tokens_per_block = 2 * KV_TOKENS;
}

static void other_keys(struct kv_rig *rig)
{
    rig->config.key_bytes = 32;
}

static void other_seed(struct kv_rig *rig)
{
    rig->config.digest_seed = 8;
}

static const struct mismatch mismatches[] = {
    {other_model, "model"},
    {other_layers, "layers is 4, the file's is 2"},
    {other_parts, "parts is 1, the file's is 2"},
    {other_chunks, "chunk_bytes is 128, the file's is 64"},
    {other_tokens, "tokens_per_block is 8, the file's is 4"},
    {other_keys, "key_bytes is 32, the file's is 0"},
    {other_seed, "digest_seed"},
};
#define MISMATCHES (sizeof mismatches / sizeof *mismatches)

/* A closed file with a run of 5 blocks, and a configuration that fits it. */
static struct disk_scene *scene_closed(void **state, struct mv_run *run)
{
    struct disk_scene *scene = *state;
    scene->rig.config.model = "the right one";
    scene_open(scene);
    store_on_disk(scene, run, 1, 5);
    stop(scene);
    return scene;
}

static void test_file_of_another_purpose_is_refused_by_name(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    const struct kvb_config config = scene->rig.config;
    const struct kvb_layout layout = scene->rig.layout;
    for (size_t i = 0; i < MISMATCHES; i++) {
        mismatches[i].change(&scene->rig);
        expect_refused(scene, KVB_EMISMATCH, mismatches[i].words);
        scene->rig.config = config;
        scene->rig.layout = layout;
    }
    scene_open(scene);
}

static void test_refused_file_is_left_as_it_was(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    struct kvbi_disk_superblock before, after;
    superblock_of(scene->path, &before);
    scene->rig.config.model = "another one";
    expect_refused(scene, KVB_EMISMATCH, "model");
    superblock_of(scene->path, &after);
    assert_memory_equal(&before, &after, sizeof before);
    scene->rig.config.model = "the right one";
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 5);
}

/* Also where it is another kind of mismatch each time: what the file was before does not matter. */
static void test_empty_on_mismatch_starts_empty_whatever_differs(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    disk_config(scene)->disk_flags = KVB_DISK_EMPTY_ON_MISMATCH;
    for (size_t i = 0; i < MISMATCHES; i++) {
        mismatches[i].change(&scene->rig);
        scene_open(scene);
        assert_int_equal(path_stats(scene, 0).recovered, 0);
        assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
        stop(scene);
    }
    scene_open(scene);
}

static void test_empty_on_mismatch_keeps_what_fits(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    disk_config(scene)->disk_flags = KVB_DISK_EMPTY_ON_MISMATCH;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 5);
}

static void test_start_empty_forgets_for_good(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    disk_config(scene)->disk_flags = KVB_DISK_START_EMPTY;
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
    stop_killed(scene);
    disk_config(scene)->disk_flags = 0;
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
}

static void test_start_empty_takes_a_file_of_another_purpose(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    disk_config(scene)->disk_flags = KVB_DISK_START_EMPTY;
    other_chunks(&scene->rig);
    scene_open(scene);
    store_on_disk(scene, &run, 1, 5);
    assert_int_equal(fetch(scene, &run), 5);
}

static void test_no_flag_takes_a_file_that_is_not_kvblocks(void **state)
{
    struct disk_scene *scene = *state;
    FILE *letter = fopen(scene->path, "w");
    assert_non_null(letter);
    assert_true(fputs("a letter\n", letter) >= 0);
    assert_int_equal(fclose(letter), 0);
    disk_config(scene)->disk_flags = KVB_DISK_START_EMPTY | KVB_DISK_EMPTY_ON_MISMATCH;
    expect_refused(scene, KVB_EMISMATCH, "has not written");
}

/* Both superblocks changed by `change`, and made whole again. */
static void rewrite_superblocks(const struct disk_scene *scene,
                                void (*change)(struct kvbi_disk_superblock *superblock))
{
    for (uint64_t at = 0; at < 2 * KVBI_DISK_SUPERBLOCK_BYTES; at += KVBI_DISK_SUPERBLOCK_BYTES) {
        struct kvbi_disk_superblock superblock;
        peek_file(scene->path, at, &superblock, sizeof superblock);
        change(&superblock);
        poke_file(scene->path, at, &superblock, sizeof superblock);
    }
}

static void of_version_7(struct kvbi_disk_superblock *superblock)
{
    kvbi_disk_superblock_seal(&kvbi_hash_baseline, superblock);
    superblock->version = 7;
}

static void with_damage(struct kvbi_disk_superblock *superblock)
{
    superblock->epoch ^= 1;
}

static void test_file_of_another_version_is_refused_by_number(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    rewrite_superblocks(scene, of_version_7);
    expect_refused(scene, KVB_EMISMATCH, "version 7");
    disk_config(scene)->disk_flags = KVB_DISK_EMPTY_ON_MISMATCH;
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
}

static void test_file_with_both_superblocks_damaged_is_refused(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_closed(state, &run);
    rewrite_superblocks(scene, with_damage);
    expect_refused(scene, KVB_EMISMATCH, "damaged");
    disk_config(scene)->disk_flags = KVB_DISK_EMPTY_ON_MISMATCH;
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
}

static void test_file_with_one_superblock_damaged_is_kept_and_that_is_said(void **state)
{
    (void)state;
    for (uint64_t damaged = 0; damaged < 2; damaged++) {
        struct mv_run run;
        struct disk_scene *scene = scene_closed(state, &run);
        flip_bit(scene->path, damaged * KVBI_DISK_SUPERBLOCK_BYTES + 40);
        scene_open(scene);
        assert_int_equal(mv_found(&scene->rig, &run), 5);
        assert_true(kv_log_has(&scene->rig.log, "superblock"));
        scene_again(scene);
    }
}

static void test_file_open_in_another_manager_is_busy_until_that_closes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 5);
    expect_refused(scene, KVB_EBUSY, "open in another");
    assert_int_equal(fetch(scene, &run), 5);
    stop(scene);
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 5);
}

static void test_one_file_under_two_names_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    const char *const paths[] = {scene->path, scene->path};
    disk_config(scene)->path = NULL;
    disk_config(scene)->paths = paths;
    disk_config(scene)->path_count = 2;
    expect_refused(scene, KVB_EBUSY, "same file");
}

/* ---- Damage between two runs ----------------------------------------------------------------- */

static void test_payload_damaged_between_runs_is_a_miss_and_the_others_are_served(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    uint32_t slot = slot_on_disk(scene, &run, 3);
    stop(scene);
    flip_payload(scene, slot);
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 6);
    assert_int_equal(fetch(scene, &run), 3);
    assert_false(is_found(scene, &run, 3));
    assert_int_equal(mv_event(&scene->rig, KVB_EVENT_REMOVED, KVB_TIER_DISK, 0), run.seqs[3].hash);
    assert_int_equal(path_stats(scene, 0).read_errors_checksum, 1);
    assert_int_equal(path_stats(scene, 0).read_errors_io, 0);
    assert_int_equal(path_stats(scene, 0).read_errors_short, 0);
    assert_int_equal(path_stats(scene, 0).read_errors_identity, 0);
    assert_true(kv_log_has(&scene->rig.log, "transfer failed"));
}

/* Blocks of a run that is on disk: the offset of their entries, to be damaged. */
static uint64_t entry_offset(const struct disk_scene *scene, uint32_t slot)
{
    struct kvbi_disk_superblock superblock;
    superblock_of(scene->path, &superblock);
    return superblock.table_offset + slot * KVBI_DISK_ENTRY_BYTES;
}

static void test_entry_damaged_between_runs_is_dropped_and_counted(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    uint32_t slot = slot_on_disk(scene, &run, 3);
    stop(scene);
    flip_bit(scene->path, entry_offset(scene, slot) + 60);
    scene_open(scene);
    assert_int_equal(path_stats(scene, 0).recovered, 5);
    assert_int_equal(path_stats(scene, 0).dropped, 1);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(is_found(scene, &run, i), i != 3);
}

/* An older state of both: valid in itself, and of its own key. */
static void test_older_snapshot_of_a_whole_file_serves_what_it_held(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run before[4], after[4];
    char copy[160];
    scene_open_with(scene, HOST_BLOCKS, 4);
    store_each(scene, before, 1, 4);
    (void)snprintf(copy, sizeof copy, "%s.older", scene->path);
    flush_and_check(scene);
    copy_file(scene->path, copy);
    store_each(scene, after, 2, 4);
    stop(scene);
    assert_int_equal(rename(copy, scene->path), 0);
    scene_open(scene);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(fetch(scene, &before[i]), 1);
        assert_false(is_found(scene, &after[i], 0));
    }
}

/* The table of now over the payloads of before: every checksum is of other bytes. */
static void test_older_payload_under_a_newer_entry_is_a_miss(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run before, after;
    unsigned char page[KVBI_DISK_ALIGN];
    scene_open_with(scene, HOST_BLOCKS, 1);
    store_on_disk(scene, &before, 1, 1);
    flush_and_check(scene);
    peek_file(scene->path, payload_offset(0), page, sizeof page);
    store_on_disk(scene, &after, 2, 1);
    stop(scene);
    poke_file(scene->path, payload_offset(0), page, sizeof page);
    scene_open(scene);
    assert_int_equal(fetch(scene, &after), 0);
    assert_false(is_found(scene, &before, 0));
}

static void test_file_cut_between_runs_gives_no_wrong_byte_and_is_used_again(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    stop(scene);
    assert_int_equal(truncate(scene->path, (off_t)payload_offset(3)), 0);
    scene_open(scene);
    assert_int_equal(path_stats(scene, 0).recovered, 0);
    assert_true(kv_log_has(&scene->rig.log, "had been cut"));
    store_on_disk(scene, &run, 1, 6);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 6);
}

/* The order of use goes with the end of the file, nothing else. */
static void test_file_whose_end_was_cut_off_keeps_its_blocks(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvbi_disk_superblock superblock;
    store_on_disk(scene, &run, 1, 6);
    stop(scene);
    superblock_of(scene->path, &superblock);
    assert_int_equal(truncate(scene->path, (off_t)superblock.stamps_offset), 0);
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 6);
}

/* ---- Slots that are not used again ----------------------------------------------------------- */

/* One slot: stored, damaged, read, `times` over. */
static void damage_and_read(struct disk_scene *scene, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++) {
        struct mv_run run;
        store_on_disk(scene, &run, 10 + i, 1);
        flip_payload(scene, slot_on_disk(scene, &run, 0));
        assert_int_equal(fetch(scene, &run), 0);
        evict_above(scene);
    }
}

static void test_slot_is_retired_after_two_failures_and_stays_so_over_restarts(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_open_with(scene, HOST_BLOCKS, 1);
    damage_and_read(scene, 1);
    assert_int_equal(path_stats(scene, 0).retired_count, 0);
    damage_and_read(scene, 1);
    assert_int_equal(path_stats(scene, 0).retired_count, 1);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].retired_count, 1);
    restart(scene);
    assert_int_equal(path_stats(scene, 0).retired_count, 1);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    flush_and_check(scene);
    evict_above(scene);
    assert_false(is_found(scene, &run, 0));
    restart_killed(scene);
    assert_int_equal(path_stats(scene, 0).retired_count, 1);
}

static void test_good_read_between_two_failures_keeps_the_slot(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_open_with(scene, HOST_BLOCKS, 1);
    damage_and_read(scene, 1);
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(fetch(scene, &run), 1);
    damage_and_read(scene, 1);
    assert_int_equal(path_stats(scene, 0).retired_count, 0);
}

static void test_slot_that_could_not_be_read_is_retired_at_once_and_over_restarts(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 3);
    (void)make_unreadable(scene, &run, 1);
    assert_int_equal(fetch(scene, &run), 1);
    scene->io.read_errno = 0;
    assert_int_equal(path_stats(scene, 0).read_errors_io, 1);
    assert_int_equal(path_stats(scene, 0).retired_count, 1);
    evict_above(scene);
    run.count = 1;
    assert_int_equal(fetch(scene, &run), 1); /* it is that slot, and not the disk */
    restart(scene);
    assert_int_equal(path_stats(scene, 0).retired_count, 1);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS - 3);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].parked_count, 2);
}

/* A cable, a controller, a network: the slots are as good as before. */
static void test_errors_on_the_way_to_the_disk_retire_no_slot(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    for (int i = 0; i < 2; i++) {
        store_on_disk(scene, &run, 1, 1);
        scene->io.read_errno = ETIMEDOUT;
        assert_int_equal(fetch(scene, &run), 0);
        scene->io.read_errno = 0;
        evict_above(scene);
    }
    scene->io.write_errno = ENOLINK;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 2, 1);
    flush_and_check(scene);
    scene->io.write_errno = 0;
    assert_int_equal(path_stats(scene, 0).read_errors_io, 2);
    assert_int_equal(path_stats(scene, 0).write_errors, 1);
    assert_int_equal(path_stats(scene, 0).retired_count, 0);
}

/* In the middle of a page, which direct I/O does not end in. */
static void test_slot_that_the_file_ends_in_is_short_at_once(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 1);
    uint32_t slot = slot_on_disk(scene, &run, 0), before = scene->io.reads;
    assert_int_equal(truncate(scene->path, (off_t)payload_offset(slot) + 100), 0);
    assert_int_equal(fetch(scene, &run), 0);
    assert_int_equal(path_stats(scene, 0).read_errors_short, 1);
    assert_int_equal(path_stats(scene, 0).read_errors_io, 0);
    assert_int_equal(scene->io.reads - before, 1);
}

static void test_start_empty_uses_retired_slots_again(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_open_with(scene, HOST_BLOCKS, 1);
    damage_and_read(scene, 2);
    stop(scene);
    disk_config(scene)->disk_flags = KVB_DISK_START_EMPTY;
    scene_open(scene);
    assert_int_equal(path_stats(scene, 0).retired_count, 0);
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(fetch(scene, &run), 1);
}

/* ---- A path that failed ---------------------------------------------------------------------- */

/*
 * Nothing can be read any more, until the disk is out of service. What is left of `runs` could have
 * been read.
 */
static void lose_disk(struct disk_scene *scene, struct mv_run *runs, uint32_t count)
{
    store_each(scene, runs, 1, count);
    scene->io.read_errno = EIO;
    for (uint32_t i = 0; i < KVB_DISK_ERRORS_MAX; i++)
        assert_int_equal(fetch(scene, &runs[i]), 0);
    flush_and_check(scene);
    assert_int_equal(path_stats(scene, 0).out_of_service, 1);
    assert_int_equal(count_found(scene, runs, count), 0);
    scene->io.read_errno = 0;
}

static void test_disk_that_was_out_of_service_is_tried_again_after_a_restart(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[KVB_DISK_ERRORS_MAX + 4];
    lose_disk(scene, runs, KVB_DISK_ERRORS_MAX + 4);
    restart(scene);
    assert_int_equal(path_stats(scene, 0).out_of_service, 0);
    assert_int_equal(path_stats(scene, 0).retired_count, 0); /* it was not the slots' fault */
    for (uint32_t i = 0; i < KVB_DISK_ERRORS_MAX + 4; i++)
        assert_int_equal(fetch(scene, &runs[i]), 1);
}

static void test_disk_that_was_put_back_holds_nothing_of_before_after_a_kill(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[KVB_DISK_ERRORS_MAX + 4], after;
    lose_disk(scene, runs, KVB_DISK_ERRORS_MAX + 4);
    kv_ok(kvb_disk_put_back(scene->rig.kv, 0));
    kv_check(&scene->rig);
    store_on_disk(scene, &after, 2, 6);
    restart_killed(scene);
    assert_int_equal(count_found(scene, runs, KVB_DISK_ERRORS_MAX + 4), 0);
    assert_int_equal(path_stats(scene, 0).recovered, 6);
    assert_int_equal(path_stats(scene, 0).retired_count, 0);
    assert_int_equal(fetch(scene, &after), 6);
}

/* ---------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene_opened,
             test_payload_damaged_between_runs_is_a_miss_and_the_others_are_served),
        TEST(disk_scene_opened, test_entry_damaged_between_runs_is_dropped_and_counted),
        TEST(disk_scene, test_older_payload_under_a_newer_entry_is_a_miss),
        TEST(disk_scene_opened, test_file_cut_between_runs_gives_no_wrong_byte_and_is_used_again),
        TEST(disk_scene, test_slot_is_retired_after_two_failures_and_stays_so_over_restarts),
        TEST(disk_scene_opened,
             test_slot_that_could_not_be_read_is_retired_at_once_and_over_restarts),
        TEST(disk_scene_opened, test_errors_on_the_way_to_the_disk_retire_no_slot),
        TEST(disk_scene_opened, test_slot_that_the_file_ends_in_is_short_at_once),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene, test_file_of_another_purpose_is_refused_by_name),
        TEST(disk_scene, test_refused_file_is_left_as_it_was),
        TEST(disk_scene, test_empty_on_mismatch_starts_empty_whatever_differs),
        TEST(disk_scene, test_empty_on_mismatch_keeps_what_fits),
        TEST(disk_scene, test_start_empty_forgets_for_good),
        TEST(disk_scene, test_start_empty_takes_a_file_of_another_purpose),
        TEST(disk_scene, test_no_flag_takes_a_file_that_is_not_kvblocks),
        TEST(disk_scene, test_file_of_another_version_is_refused_by_number),
        TEST(disk_scene, test_file_with_both_superblocks_damaged_is_refused),
        TEST(disk_scene, test_file_with_one_superblock_damaged_is_kept_and_that_is_said),
        TEST(disk_scene_opened, test_file_open_in_another_manager_is_busy_until_that_closes),
        TEST(disk_scene, test_one_file_under_two_names_is_refused),
        TEST(disk_scene, test_older_snapshot_of_a_whole_file_serves_what_it_held),
        TEST(disk_scene_opened, test_file_whose_end_was_cut_off_keeps_its_blocks),
        TEST(disk_scene, test_good_read_between_two_failures_keeps_the_slot),
        TEST(disk_scene, test_start_empty_uses_retired_slots_again),
        TEST(disk_scene_opened, test_disk_that_was_out_of_service_is_tried_again_after_a_restart),
        TEST(disk_scene_opened, test_disk_that_was_put_back_holds_nothing_of_before_after_a_kill),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
