/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a block: every cell of the state table, and what the cells alone do not say: overlapped steps, aborted
 * requests, rejected drafts, clones.
 */
#include "support/kv_test.h"

#include <ctype.h>

static struct kv_rig rig;

static int setup(void **state)
{
    (void)state;
    kv_rig_init(&rig);
    kv_rig_open(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kv_rig_close(&rig);
    return 0;
}

static const uint32_t T[] = {11, 12, 13, 14, 15, 16, 17, 18};

/* ---- The table ---------------------------------------------------------------------------------------------------- */

enum event { INIT, APPEND, SCHEDULE, CANCEL, DONE, FAILED, TRUNCATE, REGISTER, RESET, EVENTS };
enum { STATES = 6, DASH = -1 };

static const char *const event_names[EVENTS] = {"init",     "append",       "schedule",
                                                "cancel",   "compute_done", "compute_failed",
                                                "truncate", "register",     "reset"};
static const char *const state_names[STATES] = {"Empty",    "Partial",  "Ready",
                                                "Inflight", "Complete", "Registered"};

/*
 * Where an event leads from the blocks that block_in makes (two of four tokens named, except Complete and Registered).
 * Cells with several outcomes have tests of their own below.
 */
/* clang-format off */
#define TO(state) KVB_STATE_##state
static const int next_state[EVENTS][STATES] = {
    /*              Empty        Partial      Ready         Inflight      Complete        Registered */
    [INIT] =      { TO(PARTIAL), DASH,        DASH,         DASH,         DASH,           DASH },
    [APPEND] =    { DASH,        TO(READY),   DASH,         TO(INFLIGHT), DASH,           DASH },
    [SCHEDULE] =  { DASH,        DASH,        TO(INFLIGHT), TO(INFLIGHT), DASH,           DASH },
    [CANCEL] =    { DASH,        DASH,        TO(PARTIAL),  DASH,         DASH,           DASH },
    [DONE] =      { DASH,        DASH,        DASH,         TO(PARTIAL),  DASH,           DASH },
    [FAILED] =    { DASH,        DASH,        DASH,         TO(READY),    DASH,           DASH },
    [TRUNCATE] =  { DASH,        TO(PARTIAL), TO(PARTIAL),  DASH,         TO(PARTIAL),    DASH },
    [REGISTER] =  { DASH,        DASH,        DASH,         DASH,         TO(REGISTERED), DASH },
    [RESET] =     { TO(EMPTY),   TO(EMPTY),   TO(EMPTY),    DASH,         TO(EMPTY),      DASH },
};
#undef TO
/* clang-format on */

struct cell {
    enum event event;
    int state;
    int next;
};

static struct kvb_block *block_in(int state)
{
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    if (state == KVB_STATE_EMPTY) {
        return block;
    }
    if (state >= KVB_STATE_COMPLETE) {
        kv_complete(&rig, block, 0, 0, NULL, T);
    } else {
        kv_init(&rig, block, 0, 0, NULL);
        kv_append(&rig, block, T, 2, state == KVB_STATE_PARTIAL ? KVB_MORE : 0);
    }
    if (state == KVB_STATE_INFLIGHT) {
        kv_schedule(&rig, block);
    }
    if (state == KVB_STATE_REGISTERED) {
        kv_register(&rig, block);
    }
    assert_int_equal(kv_describe(&rig, block).state, state);
    return block;
}

static int fire(enum event event, struct kvb_block *block, int *result)
{
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = T + 2, .count = 1};
    uint32_t two = 2;
    struct kvb_block *registered = block;

    switch (event) {
    case INIT:
        return kvb_block_init(rig.kv, &block, &init, 1, result);
    case APPEND:
        return kvb_block_append(rig.kv, &block, &append, 1, result);
    case SCHEDULE:
        return kvb_block_schedule(rig.kv, &block, 1, result);
    case CANCEL:
        return kvb_block_cancel(rig.kv, &block, 1, result);
    case DONE:
        return kvb_block_compute_done(rig.kv, &block, &two, 1, NULL, result);
    case FAILED:
        return kvb_block_compute_failed(rig.kv, &block, 1, result);
    case TRUNCATE:
        return kvb_block_truncate(rig.kv, &block, &two, 1, result);
    case REGISTER:
        return kvb_block_register(rig.kv, &registered, 1, NULL, NULL, result);
    case RESET:
        return kvb_block_reset(rig.kv, &block, 1, result);
    case EVENTS:
        break;
    }
    return KVB_EINVAL;
}

/* Let go of a block in whatever state, its steps included. */
static void drop(struct kvb_block *block)
{
    uint32_t steps = kv_describe(&rig, block).step_count;
    kv_unref(&rig, block);
    for (uint32_t i = 0; i < steps; i++) {
        kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    }
}

static bool contains_word(const char *text, const char *word)
{
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (word[i] != '\0' &&
               tolower((unsigned char)text[i]) == tolower((unsigned char)word[i])) {
            i++;
        }
        if (word[i] == '\0') {
            return true;
        }
    }
    return false;
}

static void test_cell_legal(const struct cell *cell)
{
    struct kvb_block *block = block_in(cell->state);
    int result = 1;
    kv_ok(fire(cell->event, block, &result));
    assert_int_equal(result, 0);
    assert_int_equal(kv_describe(&rig, block).state, cell->next);
    drop(block);
}

static void test_cell_illegal(const struct cell *cell)
{
    struct kvb_block *block = block_in(cell->state);
    struct kvb_block_info before = kv_describe(&rig, block);
    int result = 1;
    size_t messages = rig.log.count;

    kv_expect(fire(cell->event, block, &result), KVB_ESTATE);
    assert_int_equal(result, KVB_ESTATE);
    struct kvb_block_info after = kv_describe(&rig, block);
    assert_memory_equal(&before, &after, sizeof before);

    if (rig.log.count != messages + 1) {
        fail_msg("%zu messages, expected 1", rig.log.count - messages);
    }
    const struct kv_log_line *line = kv_log_last(&rig.log);
    assert_int_equal(line->code, KVB_ESTATE);
    if (!contains_word(line->text, state_names[cell->state]) ||
        !contains_word(line->text, event_names[cell->event])) {
        fail_msg("message names not both %s and %s: %s", event_names[cell->event],
                 state_names[cell->state], line->text);
    }
    drop(block);
}

static void test_cell(void **state)
{
    const struct cell *cell = *state;
    if (cell->next == DASH) {
        test_cell_illegal(cell);
    } else {
        test_cell_legal(cell);
    }
}

static int run_table(void)
{
    static struct cell cells[EVENTS * STATES];
    static char names[EVENTS * STATES][80];
    static struct CMUnitTest tests[EVENTS * STATES];

    for (int event = 0; event < EVENTS; event++) {
        for (int state = 0; state < STATES; state++) {
            int i = event * STATES + state;
            cells[i] = (struct cell){(enum event)event, state, next_state[event][state]};
            (void)snprintf(names[i], sizeof names[i], "test_%s_in_%s_%s%s", event_names[event],
                           state_names[state], cells[i].next == DASH ? "is_refused" : "leads_to_",
                           cells[i].next == DASH ? "" : state_names[cells[i].next]);
            tests[i] = (struct CMUnitTest){names[i], test_cell, setup, teardown, &cells[i]};
        }
    }
    return cmocka_run_group_tests_name("state table", tests, NULL, NULL);
}

/* ---- init --------------------------------------------------------------------------------------------------------- */

static void test_init_with_parent_at_position_0_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_EMPTY);
    struct kvb_seq parent = {.hash = 1};
    struct kvb_block_init init = {.size = sizeof init, .parent = &parent};
    kv_expect(kvb_block_init(rig.kv, &block, &init, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_EMPTY);
    kv_unref(&rig, block);
}

static void test_init_with_itself_as_parent_is_invalid(void **state)
{
    (void)state;
    struct kvb_seq seq = {0};
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, T, KV_TOKENS, &seq, 1, &count));
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {.size = sizeof init, .position = 1, .parent = &seq, .key = &seq};
    kv_expect(kvb_block_init(rig.kv, &block, &init, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_EMPTY);
    kv_unref(&rig, block);
}

static void test_init_in_unknown_namespace_is_not_found(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_EMPTY);
    struct kvb_block_init init = {.size = sizeof init, .namespace_id = 5};
    kv_expect(kvb_block_init(rig.kv, &block, &init, 1, NULL), KVB_ENOENT);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_EMPTY);
    kv_unref(&rig, block);
}

static void test_init_without_parent_can_be_computed_not_registered(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 3, NULL, T);
    struct kvb_block *blocks[] = {block};
    kv_expect(kvb_block_register(rig.kv, blocks, 1, NULL, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    assert_int_equal(kv_describe(&rig, block).indexed, 0);
    kv_unref(&rig, block);
}

/* ---- append ------------------------------------------------------------------------------------------------------- */

static struct kvb_block_info append_to(struct kvb_block *block, uint32_t count, uint32_t flags,
                                       uint32_t taken, int code)
{
    struct kvb_append append = {
        .size = sizeof append, .flags = flags, .tokens = T, .count = count, .taken = 99};
    kv_expect(kvb_block_append(rig.kv, &block, &append, 1, NULL), code);
    assert_int_equal(append.taken, taken);
    return kv_describe(&rig, block);
}

static void test_append_more_with_space_left_stays_partial(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 1, KVB_MORE, 1, 0);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, 3);
    kv_unref(&rig, block);
}

static void test_append_more_that_fills_becomes_ready(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 2, KVB_MORE, 2, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    kv_unref(&rig, block);
}

static void test_append_without_more_not_full_becomes_ready(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 1, 0, 1, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.token_count, 3);
    kv_unref(&rig, block);
}

static void test_append_of_more_tokens_than_fit_takes_what_fits(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 8, 0, 2, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.token_count, KV_TOKENS);
    kv_unref(&rig, block);
}

static void test_append_of_more_tokens_than_fit_with_more_becomes_ready(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 3, KVB_MORE, 2, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    kv_unref(&rig, block);
}

static void test_append_of_none_makes_partial_block_ready(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 0, 0, 0, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.token_count, 2);
    kv_unref(&rig, block);
}

static void test_append_of_none_makes_full_partial_block_ready(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_ok(kvb_block_cancel(rig.kv, &block, 1, NULL));
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 0, 0, 0, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    kv_unref(&rig, block);
}

static void test_append_of_none_to_block_without_tokens_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    struct kvb_block_info info = append_to(block, 0, 0, 0, KVB_EINVAL);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    kv_unref(&rig, block);
}

static void test_append_of_none_with_more_changes_nothing(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info before = kv_describe(&rig, block);
    struct kvb_block_info after = append_to(block, 0, KVB_MORE, 0, 0);
    assert_memory_equal(&before, &after, sizeof before);
    kv_unref(&rig, block);
}

static void test_append_to_full_partial_block_has_no_space(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_ok(kvb_block_cancel(rig.kv, &block, 1, NULL));
    struct kvb_block_info info = append_to(block, 1, 0, 0, KVB_ENOSPC);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, KV_TOKENS);
    kv_unref(&rig, block);
}

static void test_append_to_full_inflight_block_has_no_space(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_append(&rig, block, T + 2, 2, 0);
    struct kvb_block_info info = append_to(block, 1, 0, 0, KVB_ENOSPC);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.token_count, KV_TOKENS);
    drop(block);
}

static void test_append_in_inflight_takes_what_fits(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    struct kvb_block_info info = append_to(block, 8, 0, 2, 0);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.token_count, KV_TOKENS);
    assert_int_equal(info.step_count, 1);
    drop(block);
}

static void test_append_with_unknown_flag_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(block, 1, 2, 0, KVB_EINVAL);
    assert_int_equal(info.token_count, 2);
    kv_unref(&rig, block);
}

/* ---- compute_done and compute_failed ------------------------------------------------------------------------------ */

static void test_compute_done_of_all_tokens_completes(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 0, NULL, T);
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_COMPLETE);
    assert_int_equal(info.computed_count, KV_TOKENS);
    assert_int_equal(info.step_count, 0);
    assert_int_equal(info.holder_count, 1);
    kv_unref(&rig, block);
}

static void test_compute_done_of_some_tokens_of_a_full_block_is_partial(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, 2);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_PARTIAL);
    assert_int_equal(kv_describe(&rig, block).token_count, KV_TOKENS);
    assert_int_equal(kv_describe(&rig, block).computed_count, 2);
    kv_append(&rig, block, NULL, 0, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

static void test_compute_done_above_named_tokens_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    struct kvb_block_info before = kv_describe(&rig, block);
    kv_expect(kvb_block_compute_done(rig.kv, &block, &(uint32_t){3}, 1, NULL, NULL), KVB_EINVAL);
    struct kvb_block_info after = kv_describe(&rig, block);
    assert_memory_equal(&before, &after, sizeof before);
    drop(block);
}

static void test_compute_done_below_reported_tokens_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_done(&rig, block, 2);
    kv_append(&rig, block, T + 2, 1, 0);
    kv_schedule(&rig, block);
    struct kvb_block_info before = kv_describe(&rig, block);
    kv_expect(kvb_block_compute_done(rig.kv, &block, &(uint32_t){1}, 1, NULL, NULL), KVB_EINVAL);
    struct kvb_block_info after = kv_describe(&rig, block);
    assert_memory_equal(&before, &after, sizeof before);
    drop(block);
}

static void test_compute_done_of_same_count_as_before_is_legal(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_done(&rig, block, 0);
    assert_int_equal(kv_describe(&rig, block).computed_count, 0);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_PARTIAL);
    kv_unref(&rig, block);
}

static void test_compute_done_once_more_than_scheduled_is_refused(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_done(&rig, block, 2);
    kv_expect(kvb_block_compute_done(rig.kv, &block, &(uint32_t){2}, 1, NULL, NULL), KVB_ESTATE);
    assert_int_equal(kv_describe(&rig, block).holder_count, 1);
    kv_unref(&rig, block);
}

static void test_decode_token_by_token_completes_at_the_last(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    for (uint32_t i = 0; i < KV_TOKENS; i++) {
        assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_PARTIAL);
        kv_append(&rig, block, T + i, 1, 0);
        kv_schedule(&rig, block);
        kv_done(&rig, block, i + 1);
    }
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

/* Two tokens under way, two more named, a second step launched. */
static struct kvb_block *two_steps_out(void)
{
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_append(&rig, block, T + 2, 2, 0);
    kv_schedule(&rig, block);
    return block;
}

static void test_overlapped_steps_are_counted(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.step_count, 2);
    assert_int_equal(info.holder_count, 3);
    assert_int_equal(info.token_count, KV_TOKENS);
    assert_int_equal(info.computed_count, 0);
    drop(block);
}

static void test_overlapped_steps_first_done_stays_inflight(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_done(&rig, block, 2);
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.step_count, 1);
    assert_int_equal(info.computed_count, 2);
    drop(block);
}

static void test_overlapped_steps_both_done_completes(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_done(&rig, block, 2);
    kv_done(&rig, block, 4);
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_COMPLETE);
    assert_int_equal(info.step_count, 0);
    kv_unref(&rig, block);
}

static void test_overlapped_steps_first_failed_stays_inflight(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.step_count, 1);
    drop(block);
}

static void test_overlapped_steps_both_failed_is_ready(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.computed_count, 0);
    assert_int_equal(info.holder_count, 1);
    kv_unref(&rig, block);
}

/* The second step built on what the first did not write. */
static void test_overlapped_steps_done_after_failed_is_ignored(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    kv_done(&rig, block, 4);
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.computed_count, 0);
    assert_int_equal(info.step_count, 0);
    assert_int_not_equal(info.state, KVB_STATE_COMPLETE);
    assert_int_not_equal(info.state, KVB_STATE_INFLIGHT);
    kv_unref(&rig, block);
}

static void test_overlapped_steps_second_failed_keeps_what_first_wrote(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_done(&rig, block, 2);
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.computed_count, 2);
    kv_unref(&rig, block);
}

/*
 * All of it was computed by then, but a step has failed since: the block is not Complete by itself.
 */
static void test_reset_forgets_the_contents_priority(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_ok(kvb_block_set_priority(rig.kv, &block, 1, 100, KV_SECOND, NULL));
    kv_ok(kvb_block_reset(rig.kv, &block, 1, NULL));
    assert_int_equal(kv_describe(&rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(&rig, block);
}

static void test_overlapped_steps_done_failed_done_is_partial(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_schedule(&rig, block);
    kv_done(&rig, block, 4);
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    kv_done(&rig, block, 4);
    struct kvb_block_info info = kv_describe(&rig, block);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.computed_count, 4);
    struct kvb_append none = {.size = sizeof none};
    kv_ok(kvb_block_append(rig.kv, &block, &none, 1, NULL));
    kv_schedule(&rig, block);
    kv_done(&rig, block, 4);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

static void test_compute_failed_then_scheduled_again_completes(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

static void test_schedule_beyond_4095_steps_says_again(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_READY);
    for (int i = 0; i < 4095; i++) {
        kv_schedule(&rig, block);
    }
    kv_expect(kvb_block_schedule(rig.kv, &block, 1, NULL), KVB_EAGAIN);
    assert_int_equal(kv_describe(&rig, block).step_count, 4095);
    assert_int_equal(kv_describe(&rig, block).holder_count, 4096);
    drop(block);
}

/* ---- A request aborted in flight ---------------------------------------------------------------------------------- */

static void test_abort_in_flight_keeps_slot_until_step_reports(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_unref(&rig, block);
    struct kvb_stats stats = kv_stats(&rig);
    assert_int_equal(stats.tiers[0].held_count, 1);
    assert_int_equal(stats.tiers[0].free_count, KV_BLOCKS - 1);

    struct kvb_block *others[KV_BLOCKS];
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, others, NULL), KVB_ENOSPC);
    kv_done(&rig, block, 2);
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_in_flight_frees_slot_when_step_fails(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_unref(&rig, block);
    kv_ok(kvb_block_compute_failed(rig.kv, &block, 1, NULL));
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_with_two_steps_frees_slot_with_the_last(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_unref(&rig, block);
    kv_done(&rig, block, 2);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 1);
    kv_done(&rig, block, 4);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 0);
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_in_flight_leaves_nothing_to_find(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_weak weak;
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_ok(kvb_block_weak(rig.kv, block, &weak));
    kv_unref(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 0);
    kv_expect(kvb_weak_upgrade(rig.kv, &weak, 1, &block, NULL), KVB_ESTALE);
}

static void test_abort_in_flight_and_report_again_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_unref(&rig, block);
    kv_done(&rig, block, 2);
    kv_expect(kvb_block_compute_done(rig.kv, &block, &(uint32_t){2}, 1, NULL, NULL), KVB_EINVAL);
}

static void test_abort_in_flight_and_unref_again_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_unref(&rig, block);
    kv_expect(kvb_block_unref(rig.kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).holder_count, 1); /* the step's */
    kv_done(&rig, block, 2);
}

static void test_abort_in_flight_and_unref_again_keeps_slot_until_step_reports(void **state)
{
    (void)state;
    struct kvb_block *others[KV_BLOCKS], *block = block_in(KVB_STATE_INFLIGHT);
    kv_unref(&rig, block);
    kv_expect(kvb_block_unref(rig.kv, &block, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, others, NULL), KVB_ENOSPC);
    kv_done(&rig, block, 2);
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_with_two_steps_and_unref_again_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = two_steps_out();
    kv_unref(&rig, block);
    kv_expect(kvb_block_unref(rig.kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).holder_count, 2);
    kv_done(&rig, block, 2);
    kv_done(&rig, block, 4);
}

/* ---- truncate: rejected drafts ------------------------------------------------------------------------------------ */

static struct kvb_block_info truncate_to(struct kvb_block *block, uint32_t keep)
{
    kv_ok(kvb_block_truncate(rig.kv, &block, &keep, 1, NULL));
    return kv_describe(&rig, block);
}

static void test_truncate_of_complete_block_keeps_the_first_tokens(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_COMPLETE);
    struct kvb_block_info info = truncate_to(block, 3);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, 3);
    assert_int_equal(info.computed_count, 3);
    kv_unref(&rig, block);
}

static void test_truncate_above_computed_keeps_computed_count(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_INFLIGHT);
    kv_append(&rig, block, T + 2, 2, 0);
    kv_done(&rig, block, 2);
    struct kvb_block_info info = truncate_to(block, 3);
    assert_int_equal(info.token_count, 3);
    assert_int_equal(info.computed_count, 2);
    kv_unref(&rig, block);
}

static void test_truncate_to_none_leaves_partial_without_tokens(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_READY);
    struct kvb_block_info info = truncate_to(block, 0);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, 0);
    kv_unref(&rig, block);
}

static void test_truncate_above_named_tokens_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    kv_expect(kvb_block_truncate(rig.kv, &block, &(uint32_t){3}, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).token_count, 2);
    kv_unref(&rig, block);
}

static void test_truncate_forgets_the_name(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_COMPLETE);
    struct kvb_seq key;
    kv_ok(kvb_block_key(rig.kv, block, &key));
    truncate_to(block, 3);
    kv_expect(kvb_block_key(rig.kv, block, &key), KVB_ENOENT);
    kv_unref(&rig, block);
}

static void test_rejected_draft_block_is_found_by_accepted_tokens_only(void **state)
{
    (void)state;
    const uint32_t draft[] = {1, 2, 3, 99};
    const uint32_t accepted[] = {1, 2, 3, 4};
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 0, NULL, draft);
    truncate_to(block, 3);
    kv_append(&rig, block, accepted + 3, 1, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    kv_register(&rig, block);
    assert_int_equal(kv_run_length(&rig, 0, accepted, KV_TOKENS), 1);
    assert_int_equal(kv_run_length(&rig, 0, draft, KV_TOKENS), 0);
    kv_unref(&rig, block);
}

/* Nothing was rejected: the same tokens again, computed again, have the same name again. */
static void test_truncate_to_all_tokens_can_be_registered_later(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_COMPLETE);
    truncate_to(block, KV_TOKENS);
    kv_append(&rig, block, NULL, 0, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    kv_register(&rig, block);
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 1);
    kv_unref(&rig, block);
}

/* ---- clone -------------------------------------------------------------------------------------------------------- */

static void test_clone_of_complete_block_has_names_and_nothing_computed(void **state)
{
    (void)state;
    struct kvb_block *source = block_in(KVB_STATE_COMPLETE);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig.kv, source, target));
    struct kvb_block_info info = kv_describe(&rig, target);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, KV_TOKENS);
    assert_int_equal(info.computed_count, 0);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_clone_leaves_the_source_as_it_was(void **state)
{
    (void)state;
    struct kvb_block *source = block_in(KVB_STATE_INFLIGHT);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block_info before = kv_describe(&rig, source);
    kv_ok(kvb_block_clone(rig.kv, source, target));
    struct kvb_block_info after = kv_describe(&rig, source);
    assert_memory_equal(&before, &after, sizeof before);
    drop(source);
    kv_unref(&rig, target);
}

static void test_clone_computed_and_registered_is_a_duplicate(void **state)
{
    (void)state;
    struct kvb_block *source = block_in(KVB_STATE_REGISTERED);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig.kv, source, target));
    kv_append(&rig, target, NULL, 0, 0);
    kv_schedule(&rig, target);
    kv_done(&rig, target, KV_TOKENS);
    kv_register(&rig, target);
    assert_int_equal(kv_describe(&rig, target).state, KVB_STATE_REGISTERED);
    assert_int_equal(kv_describe(&rig, source).indexed, 1);
    assert_int_equal(kv_describe(&rig, target).indexed, 0);
    assert_int_equal(kv_stats(&rig).tiers[0].duplicates, 1);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_clone_of_partial_block_diverges(void **state)
{
    (void)state;
    const uint32_t fork[] = {11, 12, 51, 52};
    struct kvb_block *source = block_in(KVB_STATE_PARTIAL);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *both[] = {source, target};
    kv_ok(kvb_block_clone(rig.kv, source, target));
    kv_append(&rig, source, T + 2, 2, 0);
    kv_append(&rig, target, fork + 2, 2, 0);
    kv_ok(kvb_block_schedule(rig.kv, both, 2, NULL));
    kv_ok(kvb_block_compute_done(rig.kv, both, (uint32_t[]){4, 4}, 2, NULL, NULL));
    kv_ok(kvb_block_register(rig.kv, both, 2, NULL, NULL, NULL));
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 1);
    assert_int_equal(kv_run_length(&rig, 0, fork, KV_TOKENS), 1);
    assert_int_equal(kv_stats(&rig).tiers[0].duplicates, 0);
    kv_ok(kvb_block_unref(rig.kv, both, 2, NULL));
}

/* The source's name was given ahead of its tokens: the fork goes another way, and has another name. */
static void test_clone_of_partial_block_with_given_key_diverges(void **state)
{
    (void)state;
    const uint32_t fork[] = {11, 12, 51, 52};
    struct kvb_seq seqs[2], key;
    size_t count = 0;
    struct kvb_block *source = kv_alloc(&rig, KVB_TIER_DEVICE),
                     *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, T, KV_TOKENS, &seqs[0], 1, &count));
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, fork, KV_TOKENS, &seqs[1], 1, &count));
    struct kvb_block_init init = {.size = sizeof init, .key = &seqs[0]};
    kv_ok(kvb_block_init(rig.kv, &source, &init, 1, NULL));
    kv_append(&rig, source, T, 2, KVB_MORE);
    kv_ok(kvb_block_clone(rig.kv, source, target));
    kv_append(&rig, target, fork + 2, 2, 0);
    kv_ok(kvb_block_key(rig.kv, target, &key));
    assert_memory_equal(&key, &seqs[1], sizeof key);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_clone_of_later_block_keeps_its_parent(void **state)
{
    (void)state;
    struct kvb_block *run[2];
    struct kvb_seq source_key, target_key;
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 2, run);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig.kv, run[1], target));
    kv_ok(kvb_block_key(rig.kv, run[1], &source_key));
    kv_ok(kvb_block_key(rig.kv, target, &target_key));
    assert_memory_equal(&source_key, &target_key, sizeof source_key);
    kv_unref(&rig, target);
    kv_ok(kvb_block_unref(rig.kv, run, 2, NULL));
}

static void test_clone_into_named_block_is_refused(void **state)
{
    (void)state;
    struct kvb_block *source = block_in(KVB_STATE_COMPLETE);
    struct kvb_block *target = block_in(KVB_STATE_PARTIAL);
    kv_expect(kvb_block_clone(rig.kv, source, target), KVB_ESTATE);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_clone_of_empty_block_is_refused(void **state)
{
    (void)state;
    struct kvb_block *source = block_in(KVB_STATE_EMPTY);
    struct kvb_block *target = block_in(KVB_STATE_EMPTY);
    kv_expect(kvb_block_clone(rig.kv, source, target), KVB_ESTATE);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
}

static void test_clone_of_itself_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_EMPTY);
    kv_expect(kvb_block_clone(rig.kv, block, block), KVB_EINVAL);
    kv_unref(&rig, block);
}

static void test_clone_into_shared_block_is_refused(void **state)
{
    (void)state;
    struct kvb_block *source = block_in(KVB_STATE_COMPLETE);
    struct kvb_block *target = block_in(KVB_STATE_EMPTY);
    kv_ok(kvb_block_ref(rig.kv, &target, 1, NULL));
    kv_expect(kvb_block_clone(rig.kv, source, target), KVB_ESHARED);
    assert_int_equal(kv_describe(&rig, target).state, KVB_STATE_EMPTY);
    kv_unref(&rig, source);
    kv_unref(&rig, target);
    kv_unref(&rig, target);
}

/* ---- Two holders -------------------------------------------------------------------------------------------------- */

static void test_any_move_with_two_holders_is_refused(void **state)
{
    (void)state;
    for (int event = 0; event < EVENTS; event++) {
        for (int from = 0; from < STATES; from++) {
            if (next_state[event][from] == DASH) {
                continue;
            }
            struct kvb_block *block = block_in(from);
            kv_ok(kvb_block_ref(rig.kv, &block, 1, NULL));
            struct kvb_block_info before = kv_describe(&rig, block);
            int result = 1;
            int code = fire((enum event)event, block, &result);
            if (code != KVB_ESHARED || result != KVB_ESHARED) {
                fail_msg("%s in %s with two holders: %s", event_names[event], state_names[from],
                         kvb_error_name(code));
            }
            struct kvb_block_info after = kv_describe(&rig, block);
            assert_memory_equal(&before, &after, sizeof before);
            kv_unref(&rig, block);
            drop(block);
        }
    }
}

/* ---- Names, resets, arrays ---------------------------------------------------------------------------------------- */

static void test_key_before_the_last_token_is_not_there(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_seq key;
    kv_expect(kvb_block_key(rig.kv, block, &key), KVB_ENOENT);
    kv_unref(&rig, block);
}

static void test_key_after_the_last_token_is_the_sequence_hash(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_PARTIAL);
    struct kvb_seq key, seq;
    size_t count = 0;
    kv_append(&rig, block, T + 2, 2, 0);
    kv_ok(kvb_block_key(rig.kv, block, &key));
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, T, KV_TOKENS, &seq, 1, &count));
    assert_memory_equal(&key, &seq, sizeof key);
    kv_unref(&rig, block);
}

static void test_key_given_at_init_is_there_at_once(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_seq key, seq;
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, T, KV_TOKENS, &seq, 1, &count));
    struct kvb_block_init init = {.size = sizeof init, .key = &seq};
    kv_ok(kvb_block_init(rig.kv, &block, &init, 1, NULL));
    kv_ok(kvb_block_key(rig.kv, block, &key));
    assert_memory_equal(&key, &seq, sizeof key);
    kv_unref(&rig, block);
}

static void test_reset_kills_weak_handles_of_the_old_content(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_COMPLETE);
    struct kvb_block *upgraded = NULL;
    struct kvb_weak weak;
    kv_ok(kvb_block_weak(rig.kv, block, &weak));
    kv_ok(kvb_block_reset(rig.kv, &block, 1, NULL));
    kv_expect(kvb_weak_upgrade(rig.kv, &weak, 1, &upgraded, NULL), KVB_ESTALE);
    assert_null(upgraded);
    kv_unref(&rig, block);
}

static void test_reset_block_can_live_again(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_COMPLETE);
    kv_ok(kvb_block_reset(rig.kv, &block, 1, NULL));
    kv_complete(&rig, block, 0, 0, NULL, T + 4);
    kv_register(&rig, block);
    assert_int_equal(kv_run_length(&rig, 0, T + 4, KV_TOKENS), 1);
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 0);
    kv_unref(&rig, block);
}

static void test_array_with_one_refused_element_moves_the_others(void **state)
{
    (void)state;
    struct kvb_block *blocks[] = {block_in(KVB_STATE_READY), block_in(KVB_STATE_PARTIAL),
                                  block_in(KVB_STATE_READY)};
    int results[3] = {1, 1, 1};
    kv_expect(kvb_block_schedule(rig.kv, blocks, 3, results), KVB_ESTATE);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ESTATE);
    assert_int_equal(results[2], 0);
    assert_int_equal(kv_describe(&rig, blocks[0]).state, KVB_STATE_INFLIGHT);
    assert_int_equal(kv_describe(&rig, blocks[1]).state, KVB_STATE_PARTIAL);
    assert_int_equal(kv_describe(&rig, blocks[2]).state, KVB_STATE_INFLIGHT);
    for (int i = 0; i < 3; i++) {
        drop(blocks[i]);
    }
}

static void test_array_with_the_same_block_twice_moves_it_twice(void **state)
{
    (void)state;
    struct kvb_block *block = block_in(KVB_STATE_READY);
    struct kvb_block *blocks[] = {block, block};
    kv_ok(kvb_block_schedule(rig.kv, blocks, 2, NULL));
    assert_int_equal(kv_describe(&rig, block).step_count, 2);
    drop(block);
}

static void test_array_of_200_blocks_lives_from_empty_to_registered(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static struct kv_rig large;
    static struct kvb_block *blocks[COUNT];
    static uint32_t tokens[COUNT * KV_TOKENS];
    int parked = 0;

    kv_rig_init(&large);
    large.tiers[0].block_count = COUNT;
    kv_rig_open(&large);
    kv_tokens(tokens, COUNT * KV_TOKENS, 3);
    static struct kvb_seq seqs[COUNT];
    static struct kvb_block_init inits[COUNT];
    static struct kvb_append appends[COUNT];
    static uint32_t computed[COUNT];
    static int results[COUNT];
    size_t count = 0;
    kv_ok(kvb_hash_tokens(large.kv, 0, NULL, tokens, COUNT * KV_TOKENS, seqs, COUNT, &count));
    for (uint32_t i = 0; i < COUNT; i++) {
        inits[i] = (struct kvb_block_init){.size = sizeof inits[i],
                                           .position = i,
                                           .parent = i == 0 ? NULL : &seqs[i - 1],
                                           .key = &seqs[i]};
        appends[i] = (struct kvb_append){.size = sizeof appends[i],
                                         .tokens = tokens + (size_t)i * KV_TOKENS,
                                         .count = KV_TOKENS};
        computed[i] = KV_TOKENS;
    }
    kv_ok(kvb_alloc(large.kv, KVB_TIER_DEVICE, COUNT, NULL, blocks, NULL));
    kv_ok(kvb_block_init(large.kv, blocks, inits, COUNT, results));
    kv_ok(kvb_block_append(large.kv, blocks, appends, COUNT, results));
    kv_ok(kvb_block_schedule(large.kv, blocks, COUNT, results));
    kv_ok(kvb_block_compute_done(large.kv, blocks, computed, COUNT, NULL, results));
    kv_ok(kvb_block_register(large.kv, blocks, COUNT, NULL, NULL, results));
    for (int i = 0; i < COUNT; i++) {
        parked += kv_describe(&large, blocks[i]).state == KVB_STATE_REGISTERED;
    }
    assert_int_equal(parked, COUNT);
    kv_ok(kvb_block_unref(large.kv, blocks, COUNT, results));
    assert_int_equal(kv_stats(&large).tiers[0].parked_count, COUNT);
    kv_rig_close(&large);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_init_with_parent_at_position_0_is_invalid),
        TEST(test_init_with_itself_as_parent_is_invalid),
        TEST(test_init_in_unknown_namespace_is_not_found),
        TEST(test_init_without_parent_can_be_computed_not_registered),
        TEST(test_append_more_with_space_left_stays_partial),
        TEST(test_append_more_that_fills_becomes_ready),
        TEST(test_append_without_more_not_full_becomes_ready),
        TEST(test_append_of_more_tokens_than_fit_takes_what_fits),
        TEST(test_append_of_more_tokens_than_fit_with_more_becomes_ready),
        TEST(test_append_of_none_makes_partial_block_ready),
        TEST(test_append_of_none_makes_full_partial_block_ready),
        TEST(test_append_of_none_to_block_without_tokens_is_invalid),
        TEST(test_append_of_none_with_more_changes_nothing),
        TEST(test_append_to_full_partial_block_has_no_space),
        TEST(test_append_to_full_inflight_block_has_no_space),
        TEST(test_append_in_inflight_takes_what_fits),
        TEST(test_append_with_unknown_flag_is_invalid),
        TEST(test_compute_done_of_all_tokens_completes),
        TEST(test_compute_done_of_some_tokens_of_a_full_block_is_partial),
        TEST(test_compute_done_above_named_tokens_is_invalid),
        TEST(test_compute_done_below_reported_tokens_is_invalid),
        TEST(test_compute_done_of_same_count_as_before_is_legal),
        TEST(test_compute_done_once_more_than_scheduled_is_refused),
        TEST(test_decode_token_by_token_completes_at_the_last),
        TEST(test_overlapped_steps_are_counted),
        TEST(test_overlapped_steps_first_done_stays_inflight),
        TEST(test_overlapped_steps_both_done_completes),
        TEST(test_overlapped_steps_first_failed_stays_inflight),
        TEST(test_overlapped_steps_both_failed_is_ready),
        TEST(test_overlapped_steps_done_after_failed_is_ignored),
        TEST(test_overlapped_steps_second_failed_keeps_what_first_wrote),
        TEST(test_overlapped_steps_done_failed_done_is_partial),
        TEST(test_reset_forgets_the_contents_priority),
        TEST(test_compute_failed_then_scheduled_again_completes),
        TEST(test_schedule_beyond_4095_steps_says_again),
        TEST(test_abort_in_flight_keeps_slot_until_step_reports),
        TEST(test_abort_in_flight_frees_slot_when_step_fails),
        TEST(test_abort_with_two_steps_frees_slot_with_the_last),
        TEST(test_abort_in_flight_leaves_nothing_to_find),
        TEST(test_abort_in_flight_and_report_again_is_invalid),
        TEST(test_abort_in_flight_and_unref_again_is_invalid),
        TEST(test_abort_in_flight_and_unref_again_keeps_slot_until_step_reports),
        TEST(test_abort_with_two_steps_and_unref_again_is_invalid),
        TEST(test_truncate_of_complete_block_keeps_the_first_tokens),
        TEST(test_truncate_above_computed_keeps_computed_count),
        TEST(test_truncate_to_none_leaves_partial_without_tokens),
        TEST(test_truncate_above_named_tokens_is_invalid),
        TEST(test_truncate_forgets_the_name),
        TEST(test_truncate_to_all_tokens_can_be_registered_later),
        TEST(test_rejected_draft_block_is_found_by_accepted_tokens_only),
        TEST(test_clone_of_complete_block_has_names_and_nothing_computed),
        TEST(test_clone_leaves_the_source_as_it_was),
        TEST(test_clone_computed_and_registered_is_a_duplicate),
        TEST(test_clone_of_partial_block_diverges),
        TEST(test_clone_of_partial_block_with_given_key_diverges),
        TEST(test_clone_of_later_block_keeps_its_parent),
        TEST(test_clone_into_named_block_is_refused),
        TEST(test_clone_of_empty_block_is_refused),
        TEST(test_clone_of_itself_is_invalid),
        TEST(test_clone_into_shared_block_is_refused),
        TEST(test_any_move_with_two_holders_is_refused),
        TEST(test_key_before_the_last_token_is_not_there),
        TEST(test_key_after_the_last_token_is_the_sequence_hash),
        TEST(test_key_given_at_init_is_there_at_once),
        TEST(test_reset_kills_weak_handles_of_the_old_content),
        TEST(test_reset_block_can_live_again),
        TEST(test_array_with_one_refused_element_moves_the_others),
        TEST(test_array_with_the_same_block_twice_moves_it_twice),
        TEST(test_array_of_200_blocks_lives_from_empty_to_registered),
    };
    int failed = run_table();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
