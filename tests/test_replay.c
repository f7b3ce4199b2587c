/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvb_replay from outside: what it promises about bytes, counts and output, and what it does with
 * bad input.
 */
#include <stdio.h>
#include <string.h>

#include "support/replay_run.h"

/* ---- Promises -------------------------------------------------------------------------------- */

/* Everything up to the times, in which two runs differ. */
static void cut_times(char *json)
{
    for (char *busy = json; (busy = strstr(busy, "\"busy_seconds\": ")) != NULL; busy++)
        for (char *digit = busy + strlen("\"busy_seconds\": "); *digit && *digit != '}'; digit++)
            *digit = ' ';
    char *seconds = strstr(json, "\"seconds\": ");
    assert_non_null(seconds);
    *seconds = '\0';
}

static void test_replay_same_seed_polled_gives_same_counts(void **state)
{
    struct replay_folder *folder = *state;
    struct run first, second;
    replay(folder, &first,
           QUIET_JSON "--device-blocks 200 --host-blocks 900 --limit 500 --seed 7 --progress poll");
    replay(folder, &second,
           QUIET_JSON "--device-blocks 200 --host-blocks 900 --limit 500 --seed 7 --progress poll");
    assert_good(&first);
    assert_good(&second);
    cut_times(first.out);
    cut_times(second.out);
    assert_string_equal(first.out, second.out);
}

static void test_replay_written_workload_replays_as_the_generated_one(void **state)
{
    struct replay_folder *folder = *state;
    struct run generated, read_back;
    write_workload(folder, 8, 400);
    replay(folder, &generated,
           QUIET_JSON "--device-blocks 200 --host-blocks 900 --limit 400 --seed 8 --progress poll");
    replay(folder, &read_back,
           QUIET_JSON "--device-blocks 200 --host-blocks 900 --progress poll trace");
    assert_good(&generated);
    assert_good(&read_back);
    assert_true(value_of(generated.out, "block_refs") == value_of(read_back.out, "block_refs"));
    assert_true(hits_of(generated.out) == hits_of(read_back.out));
}

static void test_replay_without_pace_serves_no_wrong_byte(void **state)
{
    struct replay_folder *folder = *state;
    static const char *const triggers[] = {"register", "park", "cold"};
    for (size_t i = 0; i < 6; i++) {
        struct run run;
        replay(folder, &run,
               QUIET_JSON "--device-blocks 130 --host-blocks 500 --limit 500 --seed 9 --pace none "
                          "--trigger %s --progress %s",
               triggers[i / 2], progress_modes[i % 2]);
        assert_good(&run);
    }
}

static void test_replay_json_has_the_promised_keys(void **state)
{
    struct replay_folder *folder = *state;
    static const char *const keys[] = {
        "requests", "block_refs", "device",    "host",    "disk",         "hit_rate",  "verified",
        "corrupt",  "from",       "to",        "offered", "transferred",  "discarded", "skipped",
        "shed",     "failed",     "cancelled", "bytes",   "busy_seconds", "seconds"};
    struct run run;
    replay(folder, &run, QUIET_JSON "--device-blocks 200 --host-blocks 900 --limit 100");
    assert_good(&run);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char quoted[32];
        snprintf(quoted, sizeof quoted, "\"%s\": ", keys[i]);
        if (!strstr(run.out, quoted))
            fail_msg("no %s in: %s", keys[i], run.out);
    }
    assert_true(value_of(run.out, "requests") == 100);
    assert_non_null(strstr(run.out, "\"from\": \"device\", \"to\": \"host\""));
    assert_non_null(strstr(run.out, "\"from\": \"host\", \"to\": \"device\""));
}

static void test_replay_hit_rate_is_hits_over_references(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON "--device-blocks 200 --host-blocks 900 --limit 200");
    assert_good(&run);
    double rate = hits_of(run.out) / value_of(run.out, "block_refs");
    assert_true(rate > 0.1 && value_of(run.out, "hit_rate") - rate < 1e-5 &&
                rate - value_of(run.out, "hit_rate") < 1e-5);
}

static void test_replay_quiet_json_on_stdout_prints_nothing_else(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON "--device-blocks 200 --host-blocks 900 --limit 20");
    assert_int_equal(run.out[0], '{');
    assert_string_equal(run.err, "");
}

/* ---- Bad input ------------------------------------------------------------------------------- */

struct refusal {
    const char *arguments, *named;
};

static void assert_all_refused(const struct replay_folder *folder, const struct refusal *refusals,
                               size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_refused(folder, refusals[i].arguments, refusals[i].named);
}

static void test_replay_bad_options_are_refused_by_name(void **state)
{
    static const struct refusal refusals[] = {
        {"--frobnicate", "'--frobnicate'"},
        {"--device", "'--device'"}, /* no abbreviations */
        {"-x", "'-x'"},
        {"--device-blocks", "--device-blocks"},
        {"--device-blocks 12x", "--device-blocks"},
        {"--device-blocks -1", "--device-blocks"},
        {"--device-blocks=", "--device-blocks"},
        {"--seed 18446744073709551616", "--seed"},
        {"--limit 0", "--limit"},
        {"--pace fast", "--pace"},
        {"--trigger default", "--trigger"},
        {"--progress=none", "--progress"},
        {"--quiet=1", "--quiet"},
        {"--json /nowhere/at/all --limit 1", "/nowhere/at/all"},
        {"one two", "'two'"},
        {"--policy nonesuch --limit 1", "nonesuch"},
    };
    assert_all_refused(*state, refusals, sizeof refusals / sizeof *refusals);
}

static void test_replay_impossible_sizes_are_refused_by_name(void **state)
{
    static const struct refusal refusals[] = {
        {"--device-blocks 0", "--device-blocks"},
        {"--device-blocks 3", "--device-blocks"},
        {"--block-bytes 100", "--block-bytes"},
        {"--block-bytes 0", "--block-bytes"},
        {"--block-bytes 4294967296", "--block-bytes"},
        {"--host-blocks 4294967295", "--host-blocks"},
        {"--host-blocks 4294967294", "--host-blocks"},
        {"--host-blocks 4000000000 --block-bytes 4294967232", "--host-blocks"},
    };
    assert_all_refused(*state, refusals, sizeof refusals / sizeof *refusals);
}

/* The bound is exact: the longest request and what the lane holds, and not a block more. */
static void test_replay_smallest_possible_device_tier_serves(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    write_text(folder, "small",
               "{\"input_length\": 2000, \"hash_ids\": [1, 2, 3, 4]}\n"
               "{\"input_length\": 2048, \"hash_ids\": [5, 6, 7, 8]}\n"
               "{\"input_length\": 2000, \"hash_ids\": [1, 2, 3, 4]}\n");
    assert_refused(folder, "--device-blocks 5 small", "--device-blocks");
    replay(folder, &run, QUIET_JSON "--device-blocks 6 small");
    assert_good(&run);
    assert_true(hits_of(run.out) == 4);
    assert_refused(folder, "--device-blocks 3 --host-blocks 0 small", "--device-blocks");
    replay(folder, &run, QUIET_JSON "--device-blocks 4 --host-blocks 0 small");
    assert_good(&run);
    assert_true(hits_of(run.out) == 0);
}

static void test_replay_malformed_line_stops_with_file_line_reason(void **state)
{
    struct replay_folder *folder = *state;
#define GOOD_LINE                                                                                  \
    "{\"timestamp\": 1, \"input_length\": 513, \"output_length\": 1, \"hash_ids\": [1, 2]}\n"
    static const struct {
        const char *line, *named;
    } bad[] = {
        {"{\"input_length\": 513}", "hash_ids"},
        {"{\"hash_ids\": [1, 2]}", "input_length"},
        {"{\"input_length\": 512, \"hash_ids\": [1, 2]}", "ceil"},
        {"{\"input_length\": 0, \"hash_ids\": []}", "empty"},
        {"{\"input_length\": 513, \"hash_ids\": [1, 9223372036854775809]}", "hash_ids"},
        {"{\"input_length\": 513, \"hash_ids\": [1, -2]}", "hash_ids"},
        {"{\"input_length\": 513, \"hash_ids\": [1, 2.0]}", "hash_ids"},
        {"{\"input_length\": 513, \"hash_ids\": [1, 2], \"hash_ids\": [1, 2]}", "twice"},
        {"{\"input_length\": 513, \"hash_ids\": [1, 2], \"other\": {\"a\": [nul]}}", "value"},
        {"{\"input_length\": 513, \"hash_ids\": [1, 2]} {}", "follows"},
        {"{\"input_length\": 513, \"hash_ids\": [1, 2]", "'}'"},
        {"[1, 2]", "object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        struct run run;
        snprintf(text, sizeof text, GOOD_LINE "\n%s\n" GOOD_LINE, bad[i].line);
        write_text(folder, "malformed", text);
        replay(folder, &run, "malformed");
        const char *place = strstr(run.err, "malformed:3: ");
        if (run.status != 2 || !place || !strstr(place, bad[i].named))
            fail_msg("%s: exit status %d, '%s' expected in: %s", bad[i].line, run.status,
                     bad[i].named, run.err);
    }
    assert_refused(folder, "nonesuch", "nonesuch: No such file");
    write_text(folder, "malformed", "\n");
    assert_refused(folder, "malformed", "no requests");
}

static void test_replay_unknown_keys_are_skipped(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    write_text(folder, "extra",
               "{\"x\": [{\"hash_ids\": [9]}, -1.5e3, \"\\u00e9\\\"]}\", true, null],"
               " \"input_length\": 513, \"hash_ids\": [1, 9223372036854775808]}\r\n");
    replay(folder, &run, QUIET_JSON "extra");
    assert_good(&run);
    assert_true(value_of(run.out, "block_refs") == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(replay_folder, test_replay_same_seed_polled_gives_same_counts),
        TEST(replay_folder, test_replay_written_workload_replays_as_the_generated_one),
        TEST(replay_folder, test_replay_without_pace_serves_no_wrong_byte),
        TEST(replay_folder, test_replay_json_has_the_promised_keys),
        TEST(replay_folder, test_replay_hit_rate_is_hits_over_references),
        TEST(replay_folder, test_replay_quiet_json_on_stdout_prints_nothing_else),
        TEST(replay_folder, test_replay_bad_options_are_refused_by_name),
        TEST(replay_folder, test_replay_impossible_sizes_are_refused_by_name),
        TEST(replay_folder, test_replay_smallest_possible_device_tier_serves),
        TEST(replay_folder, test_replay_malformed_line_stops_with_file_line_reason),
        TEST(replay_folder, test_replay_unknown_keys_are_skipped),
    };
    return run_replay_tests(KVB_REPLAY_PATH, tests, sizeof tests / sizeof *tests);
}
