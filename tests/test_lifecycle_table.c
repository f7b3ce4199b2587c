/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a block: every cell of the state table, with one holder and with two.
 */
#include "support/life.h"

#include <ctype.h>

enum event { INIT, APPEND, SCHEDULE, CANCEL, DONE, FAILED, TRUNCATE, REGISTER, RESET, EVENTS };
enum { STATES = 6, DASH = -1 };

static const char *const event_names[EVENTS] = {"init",     "append",       "schedule",
                                                "cancel",   "compute_done", "compute_failed",
                                                "truncate", "register",     "reset"};
static const char *const state_names[STATES] = {"Empty",    "Partial",  "Ready",
                                                "Inflight", "Complete", "Registered"};

/*
 * Where an event leads from the blocks that life_block_in makes (two of four tokens named, except
 * Complete and Registered). Cells with several outcomes have tests of their own below.
 */
/* clang-format off */
#define TO(state) KVB_STATE_##state
static const int next_state[EVENTS][STATES] = {
    /*             Empty        Partial      Ready         Inflight      Complete      Registered */
    [INIT] =     { TO(PARTIAL), DASH,        DASH,         DASH,         DASH,         DASH },
    [APPEND] =   { DASH,        TO(READY),   DASH,         TO(INFLIGHT), DASH,         DASH },
    [SCHEDULE] = { DASH,        DASH,        TO(INFLIGHT), TO(INFLIGHT), DASH,         DASH },
    [CANCEL] =   { DASH,        DASH,        TO(PARTIAL),  DASH,         DASH,         DASH },
    [DONE] =     { DASH,        DASH,        DASH,         TO(PARTIAL),  DASH,         DASH },
    [FAILED] =   { DASH,        DASH,        DASH,         TO(READY),    DASH,         DASH },
    [TRUNCATE] = { DASH,        TO(PARTIAL), TO(PARTIAL),  DASH,         TO(PARTIAL),  DASH },
    [REGISTER] = { DASH,        DASH,        DASH,         DASH,         TO(REGISTERED), DASH },
    [RESET] =    { TO(EMPTY),   TO(EMPTY),   TO(EMPTY),    DASH,         TO(EMPTY),    DASH },
};
#undef TO
/* clang-format on */

struct cell {
    enum event event;
    int state;
    int next;
};

static int fire(struct kv_rig *rig, enum event event, struct kvb_block *block, int *result)
{
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = life_tokens + 2, .count = 1};
    uint32_t two = 2;
    struct kvb_block *registered = block;

    switch (event) {
    case INIT:
        return kvb_block_init(rig->kv, &block, &init, 1, result);
    case APPEND:
        return kvb_block_append(rig->kv, &block, &append, 1, result);
    case SCHEDULE:
        return kvb_block_schedule(rig->kv, &block, 1, result);
    case CANCEL:
        return kvb_block_cancel(rig->kv, &block, 1, result);
    case DONE:
        return kvb_block_compute_done(rig->kv, &block, &two, 1, NULL, result);
    case FAILED:
        return kvb_block_compute_failed(rig->kv, &block, 1, result);
    case TRUNCATE:
        return kvb_block_truncate(rig->kv, &block, &two, 1, result);
    case REGISTER:
        return kvb_block_register(rig->kv, &registered, 1, NULL, NULL, result);
    case RESET:
        return kvb_block_reset(rig->kv, &block, 1, result);
    case EVENTS:
        break;
    }
    return KVB_EINVAL;
}

static bool contains_word(const char *text, const char *word)
{
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (word[i] != '\0' &&
               tolower((unsigned char)text[i]) == tolower((unsigned char)word[i]))
            i++;
        if (word[i] == '\0')
            return true;
    }
    return false;
}

static void test_cell_legal(struct kv_rig *rig, const struct cell *cell)
{
    struct kvb_block *block = life_block_in(rig, cell->state);
    int result = 1;
    kv_ok(fire(rig, cell->event, block, &result));
    assert_int_equal(result, 0);
    assert_int_equal(kv_describe(rig, block).state, cell->next);
    life_drop(rig, block);
}

static void test_cell_illegal(struct kv_rig *rig, const struct cell *cell)
{
    struct kvb_block *block = life_block_in(rig, cell->state);
    struct kvb_block_info before = kv_describe(rig, block);
    int result = 1;
    size_t messages = rig->log.count;

    kv_expect(fire(rig, cell->event, block, &result), KVB_ESTATE);
    assert_int_equal(result, KVB_ESTATE);
    struct kvb_block_info after = kv_describe(rig, block);
    assert_memory_equal(&before, &after, sizeof before);

    if (rig->log.count != messages + 1)
        fail_msg("%zu messages, expected 1", rig->log.count - messages);
    const struct kv_log_line *line = kv_log_last(&rig->log);
    assert_int_equal(line->code, KVB_ESTATE);
    if (!contains_word(line->text, state_names[cell->state]) ||
        !contains_word(line->text, event_names[cell->event]))
        fail_msg("message names not both %s and %s: %s", event_names[cell->event],
                 state_names[cell->state], line->text);
    life_drop(rig, block);
}

/* One cell, its initial state. */
struct cell_scene {
    struct kv_rig rig;
    const struct cell *cell;
};

static int cell_setup(void **state)
{
    const struct cell *cell = *state;
    struct cell_scene *scene = kv_scene_begin(state, sizeof *scene);
    scene->cell = cell;
    kv_rig_open(&scene->rig);
    return 0;
}

#define cell_teardown kv_scene_end

static void test_cell(void **state)
{
    struct cell_scene *scene = *state;
    if (scene->cell->next == DASH)
        test_cell_illegal(&scene->rig, scene->cell);
    else
        test_cell_legal(&scene->rig, scene->cell);
}

static int run_table(void)
{
    static struct cell cells[EVENTS * STATES];
    static char names[EVENTS * STATES][80];
    static struct CMUnitTest tests[EVENTS * STATES];

    for (int event = 0; event < EVENTS; event++)
        for (int state = 0; state < STATES; state++) {
            int i = event * STATES + state;
            cells[i] = (struct cell){(enum event)event, state, next_state[event][state]};
            (void)snprintf(names[i], sizeof names[i], "test_%s_in_%s_%s%s", event_names[event],
                           state_names[state], cells[i].next == DASH ? "is_refused" : "leads_to_",
                           cells[i].next == DASH ? "" : state_names[cells[i].next]);
            tests[i] =
                (struct CMUnitTest){names[i], test_cell, cell_setup, cell_teardown, &cells[i]};
        }
    return cmocka_run_group_tests_name("state table", tests, NULL, NULL);
}

/* ---- Two holders ----------------------------------------------------------------------------- */

static void test_any_move_with_two_holders_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    for (int event = 0; event < EVENTS; event++)
        for (int from = 0; from < STATES; from++) {
            if (next_state[event][from] == DASH)
                continue;
            struct kvb_block *block = life_block_in(rig, from);
            kv_ok(kvb_block_ref(rig->kv, &block, 1, NULL));
            struct kvb_block_info before = kv_describe(rig, block);
            int result = 1;
            int code = fire(rig, (enum event)event, block, &result);
            if (code != KVB_ESHARED || result != KVB_ESHARED)
                fail_msg("%s in %s with two holders: %s", event_names[event], state_names[from],
                         kvb_error_name(code));
            struct kvb_block_info after = kv_describe(rig, block);
            assert_memory_equal(&before, &after, sizeof before);
            kv_unref(rig, block);
            life_drop(rig, block);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_any_move_with_two_holders_is_refused),
    };
    int failed = run_table();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
