/* SPDX-License-Identifier: Apache-2.0 */
#include "support/replay_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

const char *const progress_modes[2] = {"poll", "thread"};

static const char *program;

int run_replay_tests(const char *path, const struct CMUnitTest *tests, size_t count)
{
    const char *elsewhere = getenv("KVB_REPLAY");
    program = elsewhere != NULL ? elsewhere : path;
    if (program == NULL) {
        (void)fputs("built without the examples: there is no kvb_replay to test\n", stderr);
        return 77;
    }
    return _cmocka_run_group_tests("kvb_replay", tests, count, NULL, NULL);
}

int replay_folder_setup(void **state)
{
    struct replay_folder *folder = calloc(1, sizeof *folder);
    if (folder == NULL || !folder_make(folder->path, folder_parent(), "kvb_replay"))
        return -1;
    folder->program = program;
    *state = folder;
    return 0;
}

int replay_folder_teardown(void **state)
{
    struct replay_folder *folder = *state;
    folder_remove(folder->path);
    free(folder);
    return 0;
}

void path_in_folder(const struct replay_folder *folder, char path[128], const char *name)
{
    (void)snprintf(path, 128, "%s/%s", folder->path, name);
}

static void read_text(const struct replay_folder *folder, const char *name, char text[TEXT_BYTES])
{
    char path[128];
    path_in_folder(folder, path, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, TEXT_BYTES - 1, file);
    text[length] = '\0';
    (void)fclose(file);
}

void write_text(const struct replay_folder *folder, const char *name, const char *text)
{
    char path[128];
    path_in_folder(folder, path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

void replay(const struct replay_folder *folder, struct run *run, const char *format, ...)
{
    char arguments[512], command[1024];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    (void)snprintf(command, sizeof command, "cd '%s' && '%s' %s >out 2>err", folder->path,
                   folder->program, arguments);
    int status = system(command);
    run->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text(folder, "out", run->out);
    read_text(folder, "err", run->err);
}

void write_workload(const struct replay_folder *folder, int seed, int limit)
{
    struct run run;
    replay(folder, &run, "--seed %d --limit %d --write-trace trace", seed, limit);
    if (run.status != 0)
        fail_msg("--write-trace: %s", run.err);
}

double value_of(const char *json, const char *key)
{
    char quoted[64];
    (void)snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *found = strstr(json, quoted);
    if (!found)
        fail_msg("no %s in: %s", key, json);
    return strtod(found + strlen(quoted), NULL);
}

double hits_of(const char *json)
{
    const char *hits = strstr(json, "\"hits\": {");
    assert_non_null(hits);
    return value_of(hits, "device") + value_of(hits, "host") + value_of(hits, "disk");
}

void assert_good(const struct run *run)
{
    if (run->status != 0)
        fail_msg("exit status %d: %s", run->status, run->err);
    assert_true(value_of(run->out, "corrupt") == 0);
    assert_true(value_of(run->out, "verified") == hits_of(run->out));
}

void assert_refused(const struct replay_folder *folder, const char *arguments, const char *named)
{
    struct run run;
    replay(folder, &run, "%s", arguments);
    if (run.status != 2 || !strstr(run.err, named))
        fail_msg("'%s': exit status %d, '%s' expected in: %s", arguments, run.status, named,
                 run.err);
    assert_string_equal(run.out, "");
}

void expect_right_bytes_at_any_pace(const struct replay_folder *folder, const char *memory)
{
    static const char *const triggers[] = {"register", "park", "cold"};
    for (size_t i = 0; i < 6; i++) {
        struct run run;
        replay(folder, &run,
               QUIET_JSON "--device-memory %s --device-blocks 130 --host-blocks 500 --limit 200 "
                          "--seed 9 --pace none --trigger %s --progress %s",
               memory, triggers[i / 2], progress_modes[i % 2]);
        assert_good(&run);
        assert_true(hits_of(run.out) > 0);
    }
}

void expect_right_bytes_from_three_tiers(const struct replay_folder *folder, const char *memory)
{
    struct run run;
    replay(folder, &run,
           QUIET_JSON "--device-memory %s --device-blocks 130 --host-blocks 200 --disk-blocks 800 "
                      "--disk store --limit 200 --seed 9",
           memory);
    assert_good(&run);
    assert_true(hits_of(run.out) > 0);
}
