/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kinds of memory: what one is asked, and that nobody asks which it is. A kind of the tests' own,
 * in files that fail as they are told to, takes the place of the disk.
 */
#include "support/faulty_kind.h"
#include "support/move_test.h"
#include "support/test.h"

#define BLOCKS 64u

/* DEVICE and HOST in memory, and below them the tier of the tests' kind. Not open yet. */
struct faulty_rig {
    struct kv_rig *rig;
    struct kv_faulty faulty;
};

static int faulty_rig_setup(void **state)
{
    struct faulty_rig *own = calloc(1, sizeof *own);
    void *rig = NULL;
    if (own == NULL || kv_rig_setup(&rig) != 0)
        return -1;
    own->rig = rig;
    kv_faulty_init(&own->faulty);
    mv_three_tiers(own->rig, BLOCKS, BLOCKS, BLOCKS);
    own->rig->tiers[2].memory = &own->faulty;
    own->rig->kinds[KVB_TIER_DISK] = own->rig->hooks.kinds[KVB_TIER_DISK] = &kv_faulty_kind;
    *state = own;
    return 0;
}

static int faulty_rig_teardown(void **state)
{
    struct faulty_rig *own = *state;
    void *rig = own->rig;
    int failed = kv_rig_teardown(&rig);
    free(own);
    return failed;
}

/* Contents that only the lowest tier has. */
static void store_below(struct faulty_rig *own, struct mv_run *run, uint64_t seed, uint32_t count)
{
    mv_park(own->rig, run, KVB_TIER_DEVICE, seed, count);
    mv_step(own->rig);
    mv_evict_all(own->rig, KVB_TIER_DEVICE);
    mv_evict_all(own->rig, KVB_TIER_HOST);
}

static void open_rig(struct faulty_rig *own)
{
    for (uint32_t tier = 0; tier < 2; tier++)
        own->rig->tiers[tier].trigger = KVB_OFFLOAD_ON_REGISTER;
    kv_rig_open(own->rig);
}

/* Up into DEVICE, every byte right, and given back; how many blocks arrived. */
static uint32_t fetch(struct faulty_rig *own, struct mv_run *run)
{
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    struct kvb_hit hits[MV_RUN_MAX];
    struct kvb_block *targets[MV_RUN_MAX];
    struct kvb_op *op = NULL;
    size_t count = 0;
    kv_ok(kvb_match(own->rig->kv, &query, hits, MV_RUN_MAX, &count));
    assert_int_equal(count, run->count);
    for (uint32_t i = 0; i < run->count; i++)
        run->blocks[i] = hits[i].block; /* without addresses: not looked at */
    kv_ok(kvb_alloc(own->rig->kv, KVB_TIER_DEVICE, run->count, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, NULL);
    kv_ok(kvb_onboard(own->rig->kv, &request, &op));
    mv_drop(own->rig, run);
    mv_step(own->rig);
    uint32_t good = mv_take(own->rig, run, op);
    mv_drop_taken(own->rig, run);
    return good;
}

static struct kvb_disk_stats file_stats(struct faulty_rig *own, uint32_t file)
{
    struct kvb_disk_stats stats = {.size = sizeof stats};
    kv_ok(kvb_disk_stats(own->rig->kv, file, &stats));
    return stats;
}

/* ---- What a configuration means -------------------------------------------------------------- */

static void refuse_lowest(struct kv_rig *rig, uint32_t tier, int code, const char *words)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    kv_rig_add_tier(rig, tier, 4, KVB_OFFLOAD_MANUAL);
    kv_expect(kvb_manager_create(&rig->config, &rig->kv, &diagnosis), code);
    assert_null(rig->kv);
    assert_string_equal(diagnosis.message, words);
    assert_int_equal(rig->heap.live_blocks, 0);
}

static void test_disk_without_a_path_is_refused_by_name(void **state)
{
    refuse_lowest(*state, KVB_TIER_DISK, KVB_EINVAL,
                  "tiers[1] (DISK): path and paths are NULL, one of them must name its files");
}

static void test_remote_without_a_store_is_refused_by_name(void **state)
{
    refuse_lowest(*state, KVB_TIER_REMOTE, KVB_EUNSUPPORTED,
                  "tiers[1] (REMOTE): needs a store, and this version has none");
}

static void test_kind_says_itself_what_is_wrong_with_its_tier(void **state)
{
    struct faulty_rig *own = *state;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    own->rig->tiers[2].memory = NULL;
    kv_expect(
        kvbi_manager_create_hooked(&own->rig->config, &own->rig->hooks, &own->rig->kv, &diagnosis),
        KVB_EINVAL);
    assert_string_equal(diagnosis.message, "tiers[2] (DISK): memory is NULL, must be a script");
}

static void test_kind_that_must_be_lowest_is_refused_above_another(void **state)
{
    struct faulty_rig *own = *state;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    kv_rig_add_tier(own->rig, KVB_TIER_REMOTE, 4, KVB_OFFLOAD_MANUAL);
    kv_hooks_in_memory(&own->rig->hooks, &own->rig->config);
    kv_expect(
        kvbi_manager_create_hooked(&own->rig->config, &own->rig->hooks, &own->rig->kv, &diagnosis),
        KVB_EINVAL);
    assert_string_equal(diagnosis.message,
                        "tiers[2] (DISK): must be the lowest, there is a tier below it");
}

/* No relay is made for two of which neither lies on the streams of a device. */
static void test_two_neighbours_off_the_host_are_refused_by_name(void **state)
{
    struct faulty_rig *own = *state;
    struct kv_faulty upper;
    struct kvbi_kind off_host = kv_faulty_kind;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    kv_faulty_init(&upper);
    off_host.below_memory = false;
    off_host.in_memory = true;
    own->rig->tiers[1].memory = &upper;
    own->rig->hooks.kinds[KVB_TIER_HOST] = &off_host;
    kv_expect(
        kvbi_manager_create_hooked(&own->rig->config, &own->rig->hooks, &own->rig->kv, &diagnosis),
        KVB_EUNSUPPORTED);
    assert_string_equal(diagnosis.message,
                        "tier HOST (faulty) above tier DISK (faulty): one of the "
                        "two must lie in host memory");
    assert_int_equal(own->rig->heap.live_blocks, 0);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

static void test_blocks_go_down_to_a_kind_and_come_back_with_their_bytes(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    store_below(own, &run, 1, 8);
    assert_int_equal(mv_in_tier(own->rig, &run, KVB_TIER_DISK), 8);
    assert_int_equal(own->faulty.writes, 8);
    assert_int_equal(fetch(own, &run), 8);
    assert_int_equal(own->faulty.reads, 8);
    assert_int_equal(own->faulty.engines, 1);
}

static void test_kind_is_told_the_name_of_what_is_written(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    store_below(own, &run, 1, 1);
    assert_int_equal(own->faulty.last_label_hash, run.seqs[0].hash);
}

static void test_failed_write_to_a_kind_is_found_nowhere_and_counted(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    own->faulty.write_result = KVB_ECORRUPT;
    store_below(own, &run, 1, 3);
    assert_int_equal(mv_found(own->rig, &run), 0);
    assert_int_equal(mv_lane(own->rig, KVB_TIER_HOST, KVB_TIER_DISK).failed, 3);
}

static void test_failed_read_from_a_kind_is_a_miss_from_then_on(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    store_below(own, &run, 1, 2);
    own->faulty.read_result = KVB_ECORRUPT;
    assert_int_equal(fetch(own, &run), 0);
    own->faulty.read_result = 0;
    assert_int_equal(mv_found(own->rig, &run), 0);
}

static void test_condemned_slot_is_retired_by_the_kind(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    store_below(own, &run, 1, 1);
    own->faulty.read_result = KVB_ECORRUPT;
    own->faulty.condemns = true;
    assert_int_equal(fetch(own, &run), 0);
    assert_int_equal(own->faulty.retired_count, 1);
    assert_int_equal(kv_stats(own->rig).tiers[KVB_TIER_DISK].retired_count, 1);
    assert_true(kv_log_has(&own->rig->log, "tier DISK: slot"));
}

/* ---- Health ---------------------------------------------------------------------------------- */

/* Until the first file has given KVB_DISK_ERRORS_MAX bad answers in a row. */
static void lose_first_file(struct faulty_rig *own)
{
    struct mv_run run;
    own->faulty.only_file = 0;
    own->faulty.write_result = KVB_EIO;
    store_below(own, &run, 99, 2 * KVB_DISK_ERRORS_MAX);
    own->faulty.write_result = 0;
}

static void test_file_of_a_kind_goes_out_of_service_after_errors_in_a_row(void **state)
{
    struct faulty_rig *own = *state;
    open_rig(own);
    lose_first_file(own);
    assert_true(file_stats(own, 0).out_of_service);
    assert_false(file_stats(own, 1).out_of_service);
    assert_true(kv_log_has(&own->rig->log, "tier DISK: path 0, faulty/0, is out of service"));
}

static void test_other_file_of_a_kind_serves_on(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    lose_first_file(own);
    store_below(own, &run, 1, 4);
    assert_int_equal(mv_in_tier(own->rig, &run, KVB_TIER_DISK), 4);
    assert_int_equal(fetch(own, &run), 4);
}

static void test_file_of_a_kind_is_renewed_and_put_back(void **state)
{
    struct faulty_rig *own = *state;
    open_rig(own);
    lose_first_file(own);
    kv_ok(kvb_disk_put_back(own->rig->kv, 0));
    assert_int_equal(own->faulty.renewed[0], 1);
    assert_int_equal(own->faulty.renewed[1], 0);
    assert_false(file_stats(own, 0).out_of_service);
}

static void test_tier_of_a_kind_that_is_lost_is_out_of_service_and_forgotten(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    store_below(own, &run, 1, 4);
    atomic_store(&own->faulty.lost, true);
    kv_poll(own->rig);
    assert_true(kv_stats(own->rig).tiers[KVB_TIER_DISK].out_of_service);
    assert_int_equal(mv_found(own->rig, &run), 0);
    assert_true(kv_log_has(&own->rig->log, "tier DISK is out of service: the script says so"));
    assert_int_equal(kv_stats(own->rig).tiers[KVB_TIER_DISK].parked_count, 0);
    assert_int_equal(mv_event_count(own->rig, KVB_EVENT_REMOVED, KVB_TIER_DISK), 4);
}

/* ---- Its life -------------------------------------------------------------------------------- */

static void test_kind_is_committed_closed_and_destroyed_once(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    assert_int_equal(own->faulty.committed, 1);
    store_below(own, &run, 1, 5);
    assert_int_equal(own->faulty.closed, 0);
    kv_rig_close(own->rig);
    assert_int_equal(own->faulty.closed, 1);
    assert_int_equal(own->faulty.closed_order_count, 5);
    assert_int_equal(own->faulty.destroyed, 1);
}

static void test_clear_reaches_the_kind(void **state)
{
    struct faulty_rig *own = *state;
    struct mv_run run;
    open_rig(own);
    store_below(own, &run, 1, 2);
    kv_ok(kvb_manager_clear(own->rig->kv));
    assert_int_equal(own->faulty.clears, 1);
    assert_int_equal(file_stats(own, 0).epoch, 1);
    assert_int_equal(mv_found(own->rig, &run), 0);
}

static void test_tables_of_a_kind_are_in_the_statistics(void **state)
{
    struct faulty_rig *own = *state;
    open_rig(own);
    assert_true(kv_stats(own->rig).table_bytes > sizeof own->faulty);
    assert_non_null(strstr(kv_stats(own->rig).engine, "faulty"));
}

static void test_tier_without_addresses_says_why(void **state)
{
    struct faulty_rig *own = *state;
    void *base = NULL;
    uint64_t bytes = 0;
    open_rig(own);
    kv_expect(kvb_tier_memory(own->rig->kv, KVB_TIER_DISK, &base, &bytes), KVB_EUNSUPPORTED);
    assert_true(kv_log_has(&own->rig->log, "tier is 2 (DISK), whose memory is its own"));
}

static void test_what_a_kind_notes_about_a_file_is_logged_at_create(void **state)
{
    struct faulty_rig *own = *state;
    open_rig(own);
    assert_true(kv_log_has(&own->rig->log, "faulty/1: made for a test"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_disk_without_a_path_is_refused_by_name),
        TEST(kv_rig, test_remote_without_a_store_is_refused_by_name),
        TEST(faulty_rig, test_kind_says_itself_what_is_wrong_with_its_tier),
        TEST(faulty_rig, test_kind_that_must_be_lowest_is_refused_above_another),
        TEST(faulty_rig, test_two_neighbours_off_the_host_are_refused_by_name),
        TEST(faulty_rig, test_blocks_go_down_to_a_kind_and_come_back_with_their_bytes),
        TEST(faulty_rig, test_kind_is_told_the_name_of_what_is_written),
        TEST(faulty_rig, test_failed_write_to_a_kind_is_found_nowhere_and_counted),
        TEST(faulty_rig, test_failed_read_from_a_kind_is_a_miss_from_then_on),
        TEST(faulty_rig, test_condemned_slot_is_retired_by_the_kind),
        TEST(faulty_rig, test_file_of_a_kind_goes_out_of_service_after_errors_in_a_row),
        TEST(faulty_rig, test_other_file_of_a_kind_serves_on),
        TEST(faulty_rig, test_file_of_a_kind_is_renewed_and_put_back),
        TEST(faulty_rig, test_tier_of_a_kind_that_is_lost_is_out_of_service_and_forgotten),
        TEST(faulty_rig, test_kind_is_committed_closed_and_destroyed_once),
        TEST(faulty_rig, test_clear_reaches_the_kind),
        TEST(faulty_rig, test_tables_of_a_kind_are_in_the_statistics),
        TEST(faulty_rig, test_tier_without_addresses_says_why),
        TEST(faulty_rig, test_what_a_kind_notes_about_a_file_is_logged_at_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
