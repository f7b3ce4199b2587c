/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of kvb_replay. */
#ifndef REPLAY_OPTIONS_H
#define REPLAY_OPTIONS_H

#include <kvblock.h>
#include <stddef.h>
#include <stdint.h>

enum pace { PACE_IDLE, PACE_NONE };

struct paths {
    const char *list[KVB_DISK_PATHS_MAX];
    uint32_t count;
};

struct options {
    const char *trace_path;    /* NULL: the built-in workload */
    const char *json_path;     /* NULL: none, "-": stdout */
    const char *write_path;    /* NULL: replay; else write the requests there instead */
    const char *policy;        /* NULL: the library's default */
    const char *device_memory; /* NULL: host */
    struct paths disk;         /* of the disk tier, with disk_blocks */
    uint64_t device_blocks, host_blocks, disk_blocks, block_bytes;
    uint64_t limit; /* UINT64_MAX: none */
    uint64_t seed;
    uint32_t trigger;  /* enum kvb_trigger */
    uint32_t progress; /* enum kvb_progress */
    enum pace pace;
    int resume; /* keep what the disk tier's files hold */
    int quiet;
    int help;
};

/* 0, or -1 with `error` naming the argument to blame. Strings point into argv. */
int options_parse(struct options *options, int argc, char **argv, char *error, size_t error_bytes);

/* The names of the values, as on the command line. */
const char *options_pace_name(const struct options *options);
const char *options_trigger_name(const struct options *options);
const char *options_progress_name(const struct options *options);

/* The text of --help. */
extern const char options_help[];

#endif
