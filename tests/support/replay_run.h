/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvb_replay run from a test: in a temporary folder of its own, its output kept.
 *
 *     cmocka_run_group_tests(tests, replay_make_folder, replay_remove_folder);
 *     struct run run;
 *     replay(&run, QUIET_JSON "--limit %d trace", 100);   // arguments as in a shell; "trace" lies in the folder
 *     assert_good(&run);
 *     double hits = hits_of(run.out);
 *
 * KVB_REPLAY_PATH is the program. Without it (no examples were built) there is nothing to test: return 77.
 */
#ifndef KVB_TEST_REPLAY_RUN_H
#define KVB_TEST_REPLAY_RUN_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/leftovers.h"

#define TEXT_BYTES 16384
/* Small blocks: what is tested does not depend on their size. */
#define QUIET_JSON "--block-bytes 4096 --quiet --json - "

static const char *const progress_modes[] = {"poll", "thread"};

static char replay_folder[64];

struct run {
    int status; /* exit status; -1: it did not exit */
    char out[TEXT_BYTES], err[TEXT_BYTES];
};

static inline void path_in_folder(char path[128], const char *name)
{
    snprintf(path, 128, "%s/%s", replay_folder, name);
}

static inline void read_text(const char *name, char text[TEXT_BYTES])
{
    char path[128];
    path_in_folder(path, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, TEXT_BYTES - 1, file);
    text[length] = '\0';
    fclose(file);
}

/* Run kvb_replay with arguments as in a shell, in the temporary folder. */
__attribute__((format(printf, 2, 3))) static inline void replay(struct run *run, const char *format,
                                                                ...)
{
    char arguments[512], command[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    snprintf(command, sizeof command, "cd '%s' && '%s' %s >out 2>err", replay_folder,
             KVB_REPLAY_PATH, arguments);
    int status = system(command);
    run->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text("out", run->out);
    read_text("err", run->err);
}

static inline void write_text(const char *name, const char *text)
{
    char path[128];
    path_in_folder(path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The number behind the first `"key": ` in a JSON text. */
static inline double value_of(const char *json, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *found = strstr(json, quoted);
    if (!found)
        fail_msg("no %s in: %s", key, json);
    return strtod(found + strlen(quoted), NULL);
}

static inline double hits_of(const char *json)
{
    const char *hits = strstr(json, "\"hits\": {");
    assert_non_null(hits);
    return value_of(hits, "device") + value_of(hits, "host") + value_of(hits, "disk");
}

static inline void assert_good(const struct run *run)
{
    if (run->status != 0)
        fail_msg("exit status %d: %s", run->status, run->err);
    assert_true(value_of(run->out, "corrupt") == 0);
    assert_true(value_of(run->out, "verified") == hits_of(run->out));
}

/* The requests of the built-in workload, in the file "trace". */
static inline void write_workload(int seed, int limit)
{
    struct run run;
    replay(&run, "--seed %d --limit %d --write-trace trace", seed, limit);
    if (run.status != 0)
        fail_msg("--write-trace: %s", run.err);
}

static inline int replay_make_folder(void **state)
{
    static char *const command[] = {"/bin/rm", "-rf", replay_folder, NULL};
    const char *parent = getenv("TMPDIR");
    (void)state;
    snprintf(replay_folder, sizeof replay_folder, "%s/kvb_replay_XXXXXX",
             parent && strlen(parent) < 32 ? parent : "/tmp");
    return mkdtemp(replay_folder) && leftovers_at_end(command) ? 0 : -1;
}

static inline int replay_remove_folder(void **state)
{
    (void)state;
    DIR *entries = opendir(replay_folder);
    if (!entries)
        return -1;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        unlinkat(dirfd(entries), entry->d_name, 0); /* "." and ".." are folders, and stay */
    closedir(entries);
    return rmdir(replay_folder);
}

#endif
