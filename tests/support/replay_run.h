/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvb_replay run from a test: in a folder of the test's own, its output kept.
 *
 *     struct replay_folder *folder = *state;           // TEST(replay_folder, ...)
 *     struct run run;
 *     replay(folder, &run, QUIET_JSON "--limit %d trace", 100);     // arguments as in a shell
 *     assert_good(&run);
 *     double hits = hits_of(run.out);
 *     ...
 *     return run_replay_tests(KVB_REPLAY_PATH, tests, sizeof tests / sizeof *tests);
 *
 * KVB_REPLAY_PATH is the program, unless the environment's KVB_REPLAY names one, for tests that run
 * where they were not built. Without both (no examples were built) there is nothing to test.
 */
#ifndef KVB_TEST_REPLAY_RUN_H
#define KVB_TEST_REPLAY_RUN_H

#include "support/folder.h"
#include "support/test.h"

#ifndef KVB_REPLAY_PATH
#define KVB_REPLAY_PATH NULL
#endif

#define TEXT_BYTES 16384
/* Small blocks: what is tested does not depend on their size. */
#define QUIET_JSON "--block-bytes 4096 --quiet --json - "

extern const char *const progress_modes[2];

struct replay_folder {
    const char *program;
    char path[FOLDER_BYTES];
};

struct run {
    int status; /* exit status; -1: it did not exit */
    char out[TEXT_BYTES], err[TEXT_BYTES];
};

int replay_folder_setup(void **state);
int replay_folder_teardown(void **state);

/* The exit status of a program of such tests. 77 where there is no program to run. */
int run_replay_tests(const char *program, const struct CMUnitTest *tests, size_t count);

void path_in_folder(const struct replay_folder *folder, char path[128], const char *name);
void write_text(const struct replay_folder *folder, const char *name, const char *text);

/* Run kvb_replay with arguments as in a shell, in the folder. */
__attribute__((format(printf, 3, 4))) void replay(const struct replay_folder *folder,
                                                  struct run *run, const char *format, ...);

/* The requests of the built-in workload, in the file "trace". */
void write_workload(const struct replay_folder *folder, int seed, int limit);

/* The number behind the first `"key": ` in a JSON text. */
double value_of(const char *json, const char *key);

double hits_of(const char *json);

void assert_good(const struct run *run);

/* With these arguments it is refused, and the reason has these words. */
void assert_refused(const struct replay_folder *folder, const char *arguments, const char *named);

/* With the device tier in this kind of memory, every reused byte is right. */
void expect_right_bytes_at_any_pace(const struct replay_folder *folder, const char *memory);
void expect_right_bytes_from_three_tiers(const struct replay_folder *folder, const char *memory);

#endif
