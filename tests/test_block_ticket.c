/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets and their lines, what awaits them, and the line of two that no stream can wait for. */
#include "support/test.h"

#include <stdlib.h>

#include "block/ticket.h"
#include "transfer/copy_queue.h"
#include "transfer/engines.h"

#define A 1u
#define B 63u
#define S KVBI_LINE_STREAM

struct scene {
    struct kvbi_lines lines;
    struct kvbi_joint joint;
    struct kvbi_awaited awaited;
};

static int scene_setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    if (scene == NULL || kvbi_joint_init(&scene->joint, &scene->lines) != 0)
        return -1;
    *state = scene;
    return 0;
}

static int scene_teardown(void **state)
{
    struct scene *scene = *state;
    kvbi_joint_fini(&scene->joint);
    free(scene);
    return 0;
}

static void test_ticket_is_a_line_and_a_number(void **state)
{
    (void)state;
    uint64_t ticket = kvbi_ticket(KVBI_LINE_JOINT, KVBI_NUMBER_MAX);
    assert_int_equal(kvbi_ticket_line(ticket), KVBI_LINE_JOINT);
    assert_int_equal(kvbi_ticket_number(ticket), KVBI_NUMBER_MAX);
    assert_int_equal(kvbi_ticket(0, 7), 7);
    assert_false(kvbi_ticket_is_stream(kvbi_ticket(KVBI_LINE_COUNTERS - 1, 1)));
    assert_true(kvbi_ticket_is_stream(kvbi_ticket(KVBI_LINE_STREAM, 1)));
    assert_true(kvbi_ticket_is_stream(kvbi_ticket(KVBI_LINE_JOINT - 1, 1)));
    assert_false(kvbi_ticket_is_stream(ticket));
    assert_int_equal(KVBI_LINE_STREAM + KVBI_LINE_STREAMS, KVBI_LINE_JOINT);
}

static void test_line_advances_for_itself_and_never_back(void **state)
{
    struct scene *scene = *state;
    assert_true(kvbi_lines_advance(&scene->lines, A, 5));
    assert_false(kvbi_lines_advance(&scene->lines, A, 5));
    assert_false(kvbi_lines_advance(&scene->lines, A, 3));
    assert_int_equal(atomic_load(&scene->lines.moves), 1);
    assert_true(kvbi_ticket_reached(&scene->lines, kvbi_ticket(A, 5)));
    assert_false(kvbi_ticket_reached(&scene->lines, kvbi_ticket(A, 6)));
    assert_false(kvbi_ticket_reached(&scene->lines, kvbi_ticket(B, 1)));
    assert_true(kvbi_ticket_reached(&scene->lines, 0));
}

static void test_awaited_is_due_when_one_line_has_come_to_its_earliest(void **state)
{
    struct scene *scene = *state;
    struct kvbi_awaited other = {.now = false};
    kvbi_awaited_add(&scene->awaited, kvbi_ticket(A, 9));
    kvbi_awaited_add(&scene->awaited, kvbi_ticket(A, 7));
    kvbi_awaited_add(&scene->awaited, kvbi_ticket(A, 8));
    kvbi_awaited_add(&other, kvbi_ticket(S, 4));
    kvbi_awaited_add(&other, kvbi_ticket(A, 8));
    kvbi_awaited_merge(&scene->awaited, &other);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, 0), A);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, A + 1), S);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, S + 1), KVBI_LINE_COUNT);
    kvbi_lines_advance(&scene->lines, A, 6);
    kvbi_lines_advance(&scene->lines, B, 100);
    assert_false(kvbi_awaited_due(&scene->awaited, &scene->lines));
    kvbi_lines_advance(&scene->lines, S, 4);
    assert_true(kvbi_awaited_due(&scene->awaited, &scene->lines));
    kvbi_awaited_clear(&scene->awaited);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, 0), KVBI_LINE_COUNT);
    kvbi_awaited_add(&scene->awaited, kvbi_ticket(A, 7));
    assert_false(kvbi_awaited_due(&scene->awaited, &scene->lines));
    kvbi_lines_advance(&scene->lines, A, 7);
    assert_true(kvbi_awaited_due(&scene->awaited, &scene->lines));
}

static void test_pair_awaits_one_that_is_not_reached_and_is_due_if_both_are(void **state)
{
    struct scene *scene = *state;
    struct kvbi_tickets pair = {kvbi_ticket(A, 5), kvbi_ticket(B, 5)};
    kvbi_lines_advance(&scene->lines, A, 5);
    kvbi_awaited_add_both(&scene->awaited, &scene->lines, pair);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, 0), B);
    assert_false(kvbi_awaited_due(&scene->awaited, &scene->lines));
    kvbi_awaited_clear(&scene->awaited);
    kvbi_lines_advance(&scene->lines, B, 5);
    kvbi_awaited_add_both(&scene->awaited, &scene->lines, pair);
    assert_true(kvbi_awaited_due(&scene->awaited, &scene->lines));
}

static void test_captured_tickets_are_remembered_the_latest_of_them(void **state)
{
    struct scene *scene = *state;
    assert_false(kvbi_lines_captured(&scene->lines, 0));
    for (uint64_t n = 1; n <= KVBI_CAPTURED_MAX + 1; n++)
        kvbi_lines_capture(&scene->lines, kvbi_ticket(S, n));
    assert_false(kvbi_lines_captured(&scene->lines, kvbi_ticket(S, 1)));
    assert_true(kvbi_lines_captured(&scene->lines, kvbi_ticket(S, 2)));
    assert_true(kvbi_lines_captured(&scene->lines, kvbi_ticket(S, KVBI_CAPTURED_MAX + 1)));
    assert_false(kvbi_lines_captured(&scene->lines, kvbi_ticket(S + 1, 2)));
    assert_false(kvbi_lines_captured(&scene->lines, 0));
}

/* ---- Joint ----------------------------------------------------------------------------------- */

static bool reached(const struct scene *scene, uint64_t ticket)
{
    return kvbi_ticket_reached(&scene->lines, ticket);
}

static void test_joint_ticket_is_reached_once_both_points_are(void **state)
{
    struct scene *scene = *state;
    uint64_t both = kvbi_joint_add(&scene->joint, kvbi_ticket(A, 5), kvbi_ticket(S, 9));
    assert_int_equal(kvbi_ticket_line(both), KVBI_LINE_JOINT);
    assert_false(kvbi_joint_advance(&scene->joint));
    kvbi_lines_advance(&scene->lines, A, 5);
    assert_false(kvbi_joint_advance(&scene->joint));
    assert_false(reached(scene, both));
    kvbi_lines_advance(&scene->lines, S, 9);
    assert_true(kvbi_joint_advance(&scene->joint));
    assert_true(reached(scene, both));
    assert_false(kvbi_joint_advance(&scene->joint));
}

/* While one set is waited for, what comes is gathered in the next, however much it is. */
static void test_later_joint_tickets_follow_in_order_and_are_never_early(void **state)
{
    struct scene *scene = *state;
    uint64_t first = kvbi_joint_add(&scene->joint, kvbi_ticket(A, 1), kvbi_ticket(B, 1));
    assert_false(kvbi_joint_advance(&scene->joint));
    uint64_t second = kvbi_joint_add(&scene->joint, kvbi_ticket(A, 1), kvbi_ticket(S, 1));
    for (uint32_t i = 2; i < 10000; i++)
        assert_int_equal(kvbi_joint_add(&scene->joint, kvbi_ticket(A, 1), kvbi_ticket(S, i)),
                         second);
    assert_true(second > first);
    kvbi_lines_advance(&scene->lines, A, 1);
    kvbi_lines_advance(&scene->lines, S, 9999);
    assert_false(kvbi_joint_advance(&scene->joint));
    assert_false(reached(scene, second)); /* in order, though its own points are */
    kvbi_lines_advance(&scene->lines, B, 1);
    assert_true(kvbi_joint_advance(&scene->joint));
    assert_true(reached(scene, first));
    assert_true(reached(scene, second));
}

static void test_joint_ticket_of_a_joint_ticket_comes_after_it(void **state)
{
    struct scene *scene = *state;
    uint64_t first = kvbi_joint_add(&scene->joint, kvbi_ticket(A, 1), kvbi_ticket(B, 1));
    assert_false(kvbi_joint_advance(&scene->joint));
    uint64_t both = kvbi_joint_add(&scene->joint, first, kvbi_ticket(S, 1));
    assert_true(both > first);
    kvbi_lines_advance(&scene->lines, S, 1);
    kvbi_lines_advance(&scene->lines, A, 1);
    assert_false(kvbi_joint_advance(&scene->joint));
    kvbi_lines_advance(&scene->lines, B, 1);
    assert_true(kvbi_joint_advance(&scene->joint));
    assert_true(reached(scene, both));
}

static void test_whoever_awaits_the_joint_line_awaits_its_points(void **state)
{
    struct scene *scene = *state;
    kvbi_joint_await(&scene->joint, &scene->awaited);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, 0), KVBI_LINE_COUNT);
    (void)kvbi_joint_add(&scene->joint, kvbi_ticket(A, 5), kvbi_ticket(B, 6));
    kvbi_lines_advance(&scene->lines, A, 5);
    kvbi_joint_await(&scene->joint, &scene->awaited);
    assert_int_equal(kvbi_awaited_next(&scene->awaited, 0), B);
    assert_int_equal(scene->awaited.numbers[B], 6);
    assert_false(scene->awaited.now);
    kvbi_lines_advance(&scene->lines, B, 6);
    kvbi_awaited_clear(&scene->awaited);
    kvbi_joint_await(&scene->joint, &scene->awaited);
    assert_true(scene->awaited.now); /* it has come there since: progress is not to sleep */
}

static void test_joint_ticket_with_a_captured_point_is_captured(void **state)
{
    struct scene *scene = *state;
    kvbi_lines_capture(&scene->lines, kvbi_ticket(S, 3)); /* before: it is none of its points */
    kvbi_lines_advance(&scene->lines, S, 3);
    uint64_t good = kvbi_joint_add(&scene->joint, kvbi_ticket(A, 1), kvbi_ticket(S, 4));
    assert_false(kvbi_joint_advance(&scene->joint));
    uint64_t bad = kvbi_joint_add(&scene->joint, kvbi_ticket(A, 2), kvbi_ticket(S, 5));
    (void)kvbi_joint_add(&scene->joint, kvbi_ticket(A, 2), kvbi_ticket(S, 6));
    kvbi_lines_advance(&scene->lines, A, 2);
    kvbi_lines_advance(&scene->lines, S, 4);
    assert_true(kvbi_joint_advance(&scene->joint));
    kvbi_lines_capture(&scene->lines, kvbi_ticket(S, 5));
    kvbi_lines_advance(&scene->lines, S, 6);
    assert_true(kvbi_joint_advance(&scene->joint));
    assert_false(kvbi_lines_captured(&scene->lines, good));
    assert_true(kvbi_lines_captured(&scene->lines, bad));
}

/* ---- The engines are told -------------------------------------------------------------------- */

static uint32_t told;

static bool note_signal(struct kvbi_engine *engine)
{
    (void)engine;
    told++;
    return false;
}

/* A disk's threads sleep until somebody says that a copy of theirs may have become ready. */
static void test_engines_are_told_when_the_joint_line_advances(void **state)
{
    (void)state;
    static const struct kvbi_engine_ops ops = {.name = "listens", .signal = note_signal};
    struct kvbi_engine engine = {.ops = &ops};
    static struct kvbi_engines engines;
    engines.all[0] = &engine;
    engines.count = 1;
    told = 0;
    assert_int_equal(kvbi_joint_init(&engines.joint, &engines.lines), 0);
    uint64_t both = kvbi_engines_latest(&engines, kvbi_ticket(A, 1), kvbi_ticket(B, 1));
    (void)kvbi_engines_signal(&engines, A, 1);
    (void)kvbi_engines_signal(&engines, B, 1);
    assert_int_equal(told, 2);
    assert_false(kvbi_ticket_reached(&engines.lines, both));
    kvbi_engines_advance(&engines);
    assert_true(kvbi_ticket_reached(&engines.lines, both));
    assert_int_equal(told, 3);
    kvbi_engines_advance(&engines);
    assert_int_equal(told, 3);
    kvbi_joint_fini(&engines.joint);
}

static bool is_lost(const struct kvbi_tier *tier, char *why, size_t why_bytes)
{
    (void)tier, (void)why, (void)why_bytes;
    return true;
}

/* Points of a GPU that has failed hold up nothing that was joined with them. */
static void test_joint_line_goes_on_when_the_gpu_is_lost(void **state)
{
    (void)state;
    static const struct kvbi_engine_ops ops = {.name = "listens", .signal = note_signal};
    static const struct kvbi_tier_ops lost = {.kind = "lost", .lost = is_lost};
    const struct kvbi_tier device = {.ops = &lost};
    struct kvbi_engine engine = {.ops = &ops};
    static struct kvbi_engines engines;
    engines.all[0] = engines.streams = &engine;
    engines.device = &device;
    engines.count = 1;
    assert_int_equal(kvbi_joint_init(&engines.joint, &engines.lines), 0);
    (void)kvbi_engines_latest(&engines, kvbi_ticket(A, 1), kvbi_ticket(S, 1));
    uint64_t host = kvbi_engines_latest(&engines, kvbi_ticket(A, 1), kvbi_ticket(B, 1));
    (void)kvbi_engines_signal(&engines, A, 1);
    (void)kvbi_engines_signal(&engines, B, 1);
    kvbi_engines_advance(&engines);
    assert_true(kvbi_ticket_reached(&engines.lines, host));
    kvbi_joint_fini(&engines.joint);
}

/* What was awaited before the last sleep wakes nobody any more. */
static void test_only_what_is_awaited_now_wakes(void **state)
{
    (void)state;
    static struct kvbi_engines engines;
    struct kvbi_awaited awaited = {.now = false};
    for (uint32_t i = 0; i < KVBI_LINE_COUNTERS; i++)
        atomic_init(&engines.awaited[i], UINT64_MAX);
    assert_int_equal(kvbi_joint_init(&engines.joint, &engines.lines), 0);
    kvbi_awaited_add(&awaited, kvbi_ticket(A, 1));
    assert_true(kvbi_engines_await(&engines, &awaited));
    kvbi_awaited_clear(&awaited);
    kvbi_awaited_add(&awaited, kvbi_ticket(B, 1));
    assert_true(kvbi_engines_await(&engines, &awaited));
    assert_false(kvbi_engines_signal(&engines, A, 5));
    assert_true(kvbi_engines_signal(&engines, B, 5));
    assert_false(kvbi_engines_await(&engines, &awaited)); /* it has come meanwhile */
    kvbi_joint_fini(&engines.joint);
}

/* ---- Copies that wait ------------------------------------------------------------------------ */

struct waiting {
    struct kvbi_memory memory;
    struct kvbi_lines lines;
    struct kvbi_copy_queue queue;
};

static int waiting_setup(void **state)
{
    static const struct kvbi_tier tier = {.block_bytes = 8, .block_count = 1};
    const struct kvbi_copy copy = {
        .from = &tier, .to = &tier, .tickets = {kvbi_ticket(A, 1), kvbi_ticket(B, 1)}};
    struct waiting *w = calloc(1, sizeof *w);
    if (w == NULL || kvbi_memory_init(&w->memory, NULL) != 0 ||
        kvbi_copy_queue_create(&w->queue, &w->memory, &w->lines, 1) != 0)
        return -1;
    *state = w;
    return kvbi_copy_queue_submit(&w->queue, &copy, 1, false);
}

static int waiting_teardown(void **state)
{
    struct waiting *w = *state;
    kvbi_copy_queue_destroy(&w->queue);
    free(w);
    return 0;
}

static uint32_t promote(struct waiting *w)
{
    kvbi_lock_take(&w->queue.lock);
    kvbi_copy_promote_locked(&w->queue);
    uint32_t ready = w->queue.ready[0].count;
    kvbi_lock_release(&w->queue.lock);
    return ready;
}

static void test_copy_waits_for_both_of_its_tickets(void **state)
{
    struct waiting *w = *state;
    kvbi_lines_advance(&w->lines, A, 1);
    assert_int_equal(promote(w), 0);
    kvbi_lines_advance(&w->lines, B, 1);
    assert_true(kvbi_copy_queue_signal(&w->queue));
    assert_int_equal(promote(w), 1);
    assert_false(kvbi_copy_queue_signal(&w->queue)); /* that has been said */
}

/* A thread of the engine's looks between the line's advance and the signal. */
static void test_signal_tells_what_a_thread_has_seen_before_it(void **state)
{
    struct waiting *w = *state;
    kvbi_lines_advance(&w->lines, A, 1);
    (void)kvbi_copy_queue_signal(&w->queue);
    (void)promote(w);
    kvbi_lines_advance(&w->lines, B, 1);
    assert_int_equal(promote(w), 1);
    assert_true(kvbi_copy_queue_signal(&w->queue));
    assert_false(kvbi_copy_queue_signal(&w->queue));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticket_is_a_line_and_a_number),
        TEST(scene, test_line_advances_for_itself_and_never_back),
        TEST(scene, test_awaited_is_due_when_one_line_has_come_to_its_earliest),
        TEST(scene, test_pair_awaits_one_that_is_not_reached_and_is_due_if_both_are),
        TEST(scene, test_captured_tickets_are_remembered_the_latest_of_them),
        TEST(scene, test_joint_ticket_is_reached_once_both_points_are),
        TEST(scene, test_later_joint_tickets_follow_in_order_and_are_never_early),
        TEST(scene, test_joint_ticket_of_a_joint_ticket_comes_after_it),
        TEST(scene, test_whoever_awaits_the_joint_line_awaits_its_points),
        TEST(scene, test_joint_ticket_with_a_captured_point_is_captured),
        cmocka_unit_test(test_joint_line_goes_on_when_the_gpu_is_lost),
        cmocka_unit_test(test_only_what_is_awaited_now_wakes),
        TEST(waiting, test_copy_waits_for_both_of_its_tickets),
        TEST(waiting, test_signal_tells_what_a_thread_has_seen_before_it),
        cmocka_unit_test(test_engines_are_told_when_the_joint_line_advances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
