/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark of the GPU, on the stand-in for CUDA: whatever goes wrong with one row, the rows
 * behind it are measured, what was wrong is said, and the array of --json is closed.
 */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/test.h"

#define TEXT_BYTES 65536u
#define ARGUMENTS_MAX 12

/* A benchmark that has been started, and what it has printed. */
struct bench {
    pid_t process; /* 0: none runs */
    int output;
    FILE *errors; /* a file of its own, that nobody waits for */
    char text[TEXT_BYTES], said[TEXT_BYTES];
    size_t length;
};

static int bench_setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL)
        return -1;
    bench->output = -1;
    bench->errors = tmpfile();
    *state = bench;
    return bench->errors != NULL ? 0 : -1;
}

static int bench_teardown(void **state)
{
    struct bench *bench = *state;
    if (bench->process > 0 && kill(bench->process, SIGKILL) == 0)
        (void)waitpid(bench->process, NULL, 0);
    (void)close(bench->output), (void)fclose(bench->errors);
    free(bench);
    return 0;
}

/* `options`: until NULL. `fault`: of the stand-in's, or NULL. */
static void start_with(struct bench *bench, const char *fault, const char *const *options)
{
    char *arguments[ARGUMENTS_MAX] = {"bench_gpu"};
    int ends[2], count = 1;
    for (const char *const *more = options; *more != NULL; more++) {
        assert_in_range(count, 0, ARGUMENTS_MAX - 2);
        arguments[count++] = (char *)(uintptr_t)*more;
    }
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    bench->process = fork();
    assert_true(bench->process >= 0);
    if (bench->process == 0) {
        if (dup2(ends[1], STDOUT_FILENO) >= 0 && dup2(fileno(bench->errors), STDERR_FILENO) >= 0 &&
            (fault == NULL || putenv((char *)(uintptr_t)fault) == 0))
            (void)execv(BENCH_GPU_PATH, arguments);
        _exit(99);
    }
    (void)close(ends[1]);
    bench->output = ends[0];
}

/* Little data and JSON. */
static void start(struct bench *bench, const char *fault, const char *const *more)
{
    const char *options[ARGUMENTS_MAX] = {"--quick", "--json"};
    for (int i = 2; i < ARGUMENTS_MAX - 1 && *more != NULL; i++)
        options[i] = *more++;
    start_with(bench, fault, options);
}

/* False: nobody can write there any more, its children neither. */
static bool read_output(struct bench *bench)
{
    ssize_t got = read(bench->output, bench->text + bench->length, TEXT_BYTES - 1 - bench->length);
    assert_true(got >= 0);
    bench->length += (size_t)got;
    return got > 0;
}

/* Returns its exit status. */
static int end(struct bench *bench)
{
    int status;
    while (read_output(bench)) {
    }
    assert_int_equal(waitpid(bench->process, &status, 0), bench->process);
    bench->process = 0;
    rewind(bench->errors);
    bench->said[fread(bench->said, 1, TEXT_BYTES - 1, bench->errors)] = '\0';
    if (!WIFEXITED(status))
        fail_msg("ended by signal %d: %s", WTERMSIG(status), bench->said);
    return WEXITSTATUS(status);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static const char *skip_space(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* A string, number or word; NULL: it is none. No string of ours has an escape. */
static const char *skip_scalar(const char *at)
{
    static const char *const words[] = {"true", "false", "null"};
    char *number_end;
    if (*at == '"') {
        const char *quote = strchr(at + 1, '"');
        return quote != NULL ? quote + 1 : NULL;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return at + strlen(words[i]);
    if (*at != '-' && !isdigit((unsigned char)*at))
        return NULL;
    (void)strtod(at, &number_end);
    return number_end != at ? number_end : NULL;
}

/* An object of scalars; NULL: it is none. */
static const char *skip_object(const char *at)
{
    if (*at != '{')
        return NULL;
    do {
        at = skip_space(at + 1);
        at = *at == '"' ? skip_scalar(at) : NULL;
        at = at != NULL ? skip_space(at) : NULL;
        at = at != NULL && *at == ':' ? skip_scalar(skip_space(at + 1)) : NULL;
        at = at != NULL ? skip_space(at) : NULL;
    } while (at != NULL && *at == ',');
    return at != NULL && *at == '}' ? skip_space(at + 1) : NULL;
}

/* Is it an array of such objects, and nothing behind it? How many, or -1. */
static int count_objects(const char *text)
{
    int count = 0;
    const char *at = skip_space(text);
    if (*at != '[')
        return -1;
    at = skip_space(at + 1);
    while (at != NULL && *at == '{') {
        at = skip_object(at);
        count++;
        if (at != NULL && *at == ',')
            at = skip_space(at + 1);
    }
    return at != NULL && *at == ']' && *skip_space(at + 1) == '\0' ? count : -1;
}

static void expect_rows(const struct bench *bench, int count)
{
    int found = count_objects(bench->text);
    if (found != count)
        fail_msg("%d rows, must be %d: %s\n%s", found, count, bench->text, bench->said);
}

/* The line of that row has it. */
static bool row_has(const struct bench *bench, const char *row, const char *what)
{
    char name[96];
    (void)snprintf(name, sizeof name, "{\"name\": \"%s\",", row);
    const char *at = strstr(bench->text, name);
    const char *line_end = at != NULL ? strchr(at, '\n') : NULL;
    const char *found = at != NULL ? strstr(at, what) : NULL;
    return line_end != NULL && found != NULL && found < line_end;
}

static void expect_failed(const struct bench *bench, const char *row, bool failed)
{
    assert_true(row_has(bench, row, failed ? "\"ok\": false" : "\"ok\": true"));
    assert_true(row_has(bench, row, failed ? "\"failed\": true" : "\"failed\": false"));
}

static void expect_said(const struct bench *bench, const char *words)
{
    if (strstr(bench->said, words) == NULL)
        fail_msg("\"%s\" was not said: %s", words, bench->said);
}

/* ---- Wrong bytes ----------------------------------------------------------------------------- */

/* 16 MiB in blocks of 4 MiB, 64 chunks of 64 KiB each. */
static void test_wrong_bytes_on_the_way_down_fail_their_row_alone(void **state)
{
    struct bench *bench = *state;
    start(bench, NULL,
          (const char *const[]){"--only", "move", "--spoil", "offload.layers.64k", NULL});
    assert_int_equal(end(bench), 2);
    expect_rows(bench, 10);
    expect_failed(bench, "offload.layers.64k", true);
    expect_failed(bench, "offload.contiguous.2m", false);
    expect_failed(bench, "onboard.layers.64k", false);
    expect_failed(bench, "onboard.layers.4k", false);
    expect_said(bench, "wrong bytes: row offload.layers.64k, round 1, block 3, layer 31, part 1, "
                       "offset 65533: expected ");
    assert_null(strstr(strstr(bench->said, "wrong bytes") + 1, "wrong bytes"));
}

/* The damaged byte, and the two behind it: one of the three differs, and by all of its bits. */
static void test_expected_and_found_bytes_are_said(void **state)
{
    struct bench *bench = *state;
    unsigned expected[3], found[3];
    start(bench, NULL,
          (const char *const[]){"--only", "move", "--spoil", "onboard.layers.16k", NULL});
    assert_int_equal(end(bench), 2);
    expect_failed(bench, "onboard.layers.16k", true);
    expect_failed(bench, "offload.layers.16k", false);
    const char *said = strstr(bench->said, "expected ");
    assert_non_null(said);
    assert_int_equal(sscanf(said, "expected %x %x %x, found %x %x %x\n", &expected[0], &expected[1],
                            &expected[2], &found[0], &found[1], &found[2]),
                     6);
    assert_int_equal(expected[0] ^ found[0], 0xff);
    assert_int_equal(expected[1], found[1]);
    assert_int_equal(expected[2], found[2]);
}

static void test_wrong_bytes_of_the_baseline_fail_its_row(void **state)
{
    struct bench *bench = *state;
    start(bench, NULL, (const char *const[]){"--only", "both", "--spoil", "both.bare", NULL});
    assert_int_equal(end(bench), 2);
    expect_rows(bench, 2);
    expect_failed(bench, "both.bare", true);
    expect_failed(bench, "both.contiguous.2m", false);
    expect_said(bench, "row both.bare, round 1, the bare copy, offset 16777215: expected ");
}

static void test_spoiling_a_row_that_compares_nothing_is_refused(void **state)
{
    struct bench *bench = *state;
    start(bench, NULL, (const char *const[]){"--only", "pinning", "--spoil", "pinning", NULL});
    assert_int_equal(end(bench), 2);
    expect_rows(bench, 8);
    expect_said(bench, "--spoil pinning: no such row compares bytes");
}

/* ---- Calls that fail, or never return -------------------------------------------------------- */

/*
 * Every layout with 32 layers copies as often: 3 rounds of 32 tensors up and 32 back, and the bare
 * copies, some 220 calls in all; the first, of one tensor, 30. The 600th is in the fourth layout. A
 * process that begins with the fifth does not come so far.
 */
#define CALL_IN_THE_FOURTH "cudaMemcpyAsync:600"

static void test_error_of_cuda_fails_the_rows_it_meets_and_no_other(void **state)
{
    struct bench *bench = *state;
    start(bench, "STAND_IN_FAILS=" CALL_IN_THE_FOURTH,
          (const char *const[]){"--only", "move", "--method", "batch", NULL});
    assert_int_equal(end(bench), 2);
    expect_rows(bench, 10);
    expect_failed(bench, "onboard.layers.32k", false);
    expect_failed(bench, "offload.layers.16k", true);
    expect_failed(bench, "onboard.layers.16k", true);
    expect_failed(bench, "offload.layers.4k", false);
    expect_failed(bench, "onboard.layers.4k", false);
    expect_said(bench, "cudaErrorLaunchFailure");
    expect_said(bench, "layers.16k, round ");
}

/* `timeout` does so: to a benchmark that hangs in CUDA. */
static void test_signal_closes_the_array_behind_the_rows_so_far(void **state)
{
    struct bench *bench = *state;
    start(bench, "STAND_IN_HANGS=" CALL_IN_THE_FOURTH,
          (const char *const[]){"--only", "move", "--method", "batch", NULL});
    while (strstr(bench->text, "\"onboard.layers.32k\"") == NULL)
        assert_true(read_output(bench));
    assert_int_equal(kill(bench->process, SIGTERM), 0);
    assert_int_equal(end(bench), 128 + SIGTERM);
    expect_rows(bench, 6);
    expect_failed(bench, "onboard.layers.32k", false);
    expect_said(bench, "ended by signal 15");
}

/* What it has found out by then counts more than how it ended. */
static void test_signal_after_wrong_bytes_is_a_failure(void **state)
{
    struct bench *bench = *state;
    start(bench, "STAND_IN_HANGS=" CALL_IN_THE_FOURTH,
          (const char *const[]){"--only", "move", "--method", "batch", "--spoil",
                                "offload.contiguous.2m", NULL});
    while (strstr(bench->text, "\"onboard.layers.32k\"") == NULL)
        assert_true(read_output(bench));
    assert_int_equal(kill(bench->process, SIGTERM), 0);
    assert_int_equal(end(bench), 2);
    expect_rows(bench, 6);
    expect_failed(bench, "offload.contiguous.2m", true);
}

/* In the first row: nothing has been printed but the array's head. */
static void test_error_before_any_row_closes_the_array(void **state)
{
    struct bench *bench = *state;
    start(bench, "STAND_IN_FAILS=cudaHostAlloc:1", (const char *const[]){"--only", "both", NULL});
    assert_int_equal(end(bench), 2);
    expect_rows(bench, 0);
}

/* ---- Bars ------------------------------------------------------------------------------------ */

/* The line of that row, in the table, says what its bar is, and whether it is met. */
static void expect_bar(const struct bench *bench, const char *row, const char *bar)
{
    char name[96];
    (void)snprintf(name, sizeof name, "\n%s ", row);
    const char *line = strstr(bench->text, name);
    const char *at = line != NULL ? strstr(line, bar) : NULL;
    if (at == NULL || memchr(line + 1, '\n', (size_t)(at - line)) != NULL)
        fail_msg("no \"%s\" in the line of %s: %s\n%s", bar, row, bench->text, bench->said);
    at += strlen(bar);
    assert_true(strncmp(at, ": met\n", 6) == 0 || strncmp(at, ": MISSES\n", 9) == 0);
}

/* Figures of the stand-in: any of them may miss, and the exit status says so. */
static void test_bars_are_said_with_whether_they_are_met(void **state)
{
    static const struct {
        const char *row, *bar;
    } bars[] = {{"offload.contiguous.2m", "bar >= 0.97"},
                {"onboard.contiguous.2m", "bar >= 0.97"},
                {"offload.layers.64k", "bar >= 0.9"},
                {"onboard.layers.64k", "bar >= 0.9"},
                {"offload.layers.32k", "bar >= 0.8"},
                {"onboard.layers.32k", "bar >= 0.8"},
                {"offload.layers.16k", "bar >= 0.85"},
                {"onboard.layers.16k", "bar >= 0.85"},
                {"offload.layers.4k", "bar >= 0.7"},
                {"onboard.layers.4k", "bar >= 0.7"},
                {"both.contiguous.2m", "bar >= 1.6"},
                {"single.2m.over_bare", "bar <= 15"},
                {"matmul.contiguous.2m", "bar <= 1.05"},
                {"matmul.layers.16k", "bar <= 1.05"},
                {"pinning", "bar >= 2"}};
    struct bench *bench = *state;
    start_with(bench, NULL,
               (const char *const[]){"--rounds", "2", "--mib", "16", "--pin-mib", "16", NULL});
    int status = end(bench);
    for (size_t i = 0; i < sizeof bars / sizeof *bars; i++)
        expect_bar(bench, bars[i].row, bars[i].bar);
    assert_int_equal(status, strstr(bench->text, "MISSES") != NULL ? 1 : 0);
}

/* ---- Nothing wrong --------------------------------------------------------------------------- */

static void test_no_gpu_is_told_by_the_exit_status_alone(void **state)
{
    struct bench *bench = *state;
    start(bench, NULL, (const char *const[]){"--device", "5", NULL});
    assert_int_equal(end(bench), 77);
    assert_string_equal(bench->text, "");
}

static void test_launches_are_measured_while_memory_is_pinned(void **state)
{
    struct bench *bench = *state;
    start(bench, NULL, (const char *const[]){"--only", "pinning", NULL});
    assert_int_equal(end(bench), 0);
    expect_rows(bench, 8);
    expect_failed(bench, "pinning", false);
    expect_failed(bench, "pinning.default_duty", false);
    expect_failed(bench, "pinning.launch", false);
    expect_failed(bench, "pinning.launch.p99", false);
    assert_true(row_has(bench, "pinning.launch.pinned", "\"unit\": \"GiB/s\""));
    assert_true(row_has(bench, "pinning.full_duty.launch", "\"unit\": \"us\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bench, test_wrong_bytes_on_the_way_down_fail_their_row_alone),
        TEST(bench, test_expected_and_found_bytes_are_said),
        TEST(bench, test_wrong_bytes_of_the_baseline_fail_its_row),
        TEST(bench, test_spoiling_a_row_that_compares_nothing_is_refused),
        TEST(bench, test_error_of_cuda_fails_the_rows_it_meets_and_no_other),
        TEST(bench, test_signal_closes_the_array_behind_the_rows_so_far),
        TEST(bench, test_signal_after_wrong_bytes_is_a_failure),
        TEST(bench, test_error_before_any_row_closes_the_array),
        TEST(bench, test_bars_are_said_with_whether_they_are_met),
        TEST(bench, test_no_gpu_is_told_by_the_exit_status_alone),
        TEST(bench, test_launches_are_measured_while_memory_is_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
