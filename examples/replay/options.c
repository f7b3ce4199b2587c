/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table says which options exist, where their values go and what they may be. Names are taken
 * in full only: with abbreviations, an option that is added later changes the meaning of old
 * command lines.
 */
#include "options.h"

#include "device.h"
#include <errno.h>
#include <inttypes.h>
#include <kvblock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char options_help[] =
    "usage: kvb_replay [options] [TRACE]\n"
    "\n"
    "Replays the requests of TRACE through kvblock as an inference server would, and\n"
    "verifies every reused byte. TRACE holds one JSON object a line: timestamp (ms),\n"
    "input_length, output_length (tokens), hash_ids (one id for every 512 tokens of\n"
    "the input; equal ids mean equal content and equal prefix). Without TRACE, a\n"
    "seeded hour of multi-turn chats is generated.\n"
    "\n"
    "  --device-blocks N   blocks of the device tier (default 512)\n"
    "  --host-blocks N     blocks of the host tier, 0 = no such tier (default 8192)\n"
    "  --disk-blocks N     blocks of the disk tier, 0 = no such tier (default 0)\n"
    "  --disk PATH         the file of the disk tier; made, or emptied. Given several\n"
    "                      times: blocks are spread over these files\n"
    "  --resume            keep what those files hold from earlier runs; the results say\n"
    "                      what that saved\n"
    "  --device-memory host|cuda\n"
    "                      what the device tier lies in (default host); cuda where\n"
    "                      the library was built with CUDA\n"
    "  --block-bytes N     bytes of a block, a multiple of 64 (default 65536)\n"
    "  --policy NAME       eviction policy (default: the library's)\n"
    "  --trigger register|park|cold\n"
    "                      when a device block is offered to the host tier: when it\n"
    "                      is computed (default), no longer used, or about to be\n"
    "                      evicted\n"
    "  --pace idle|none    idle: wait after each request until all lanes are idle\n"
    "                      (default); none: as fast as it goes\n"
    "  --progress thread|poll\n"
    "                      who moves blocks: the manager's thread (default) or this\n"
    "                      one; with poll the same seed gives the same counts\n"
    "  --limit N           the first N requests only\n"
    "  --seed N            of the generated workload (default 1)\n"
    "  --json FILE         write the results as JSON; - = stdout, and the table goes\n"
    "                      to stderr\n"
    "  --write-trace FILE  write the requests to FILE in the form of a TRACE, stop\n"
    "  --quiet             no progress, and no table either with --json -\n"
    "  --help              this text\n"
    "\n"
    "Exit status: 0 if all is well; 1 if a byte was wrong, the books of a lane do not\n"
    "balance or the library failed; 2 for bad options or a malformed trace.\n";

static const char *const pace_names[] = {[PACE_IDLE] = "idle", [PACE_NONE] = "none", NULL};
static const char *const progress_names[] =
    {[KVB_PROGRESS_THREAD] = "thread", [KVB_PROGRESS_POLL] = "poll", NULL};
/* The first one is spelled by nobody: it keeps the library's numbers. */
static const char *const trigger_names[] = {[KVB_OFFLOAD_DEFAULT] = "default",
                                            [KVB_OFFLOAD_ON_REGISTER] = "register",
                                            [KVB_OFFLOAD_ON_PARK] = "park",
                                            [KVB_OFFLOAD_ON_COLD] = "cold",
                                            NULL};

enum kind { KIND_NUMBER, KIND_TEXT, KIND_PATHS, KIND_FLAG, KIND_PACE, KIND_TRIGGER, KIND_PROGRESS };

struct option {
    const char *name;
    enum kind kind;
    void *value;
    uint64_t least, most; /* KIND_NUMBER */
};

static int parse_number(const struct option *option, const char *text, char *error,
                        size_t error_bytes)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    /* strtoull takes a sign and leading white space; a size has neither. */
    if (*text < '0' || *text > '9' || *end || errno == ERANGE || number > UINT64_MAX) {
        snprintf(error, error_bytes, "--%s: '%s' is not a number", option->name, text);
        return -1;
    }
    if (number < option->least || number > option->most) {
        snprintf(error, error_bytes, "--%s: %s is not within %" PRIu64 "..%" PRIu64, option->name,
                 text, option->least, option->most);
        return -1;
    }
    *(uint64_t *)option->value = number;
    return 0;
}

/* The index of `text` among `names`, from `first` on. */
static int parse_name(const struct option *option, const char *const *names, uint32_t first,
                      const char *text, uint32_t *index, char *error, size_t error_bytes)
{
    char list[64] = "";
    for (uint32_t i = first; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *index = i;
            return 0;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i > first ? ", " : "", names[i]);
    }
    snprintf(error, error_bytes, "--%s: '%s' is none of %s", option->name, text, list);
    return -1;
}

/* The value of an option that may be given several times. */
static int add_path(const struct option *option, const char *text, char *error, size_t error_bytes)
{
    struct paths *paths = option->value;
    if (paths->count == KVB_DISK_PATHS_MAX) {
        snprintf(error, error_bytes, "--%s: more than %d of them", option->name,
                 KVB_DISK_PATHS_MAX);
        return -1;
    }
    paths->list[paths->count++] = text;
    return 0;
}

static int parse_value(const struct option *option, const char *text, char *error,
                       size_t error_bytes)
{
    uint32_t index = 0;
    switch (option->kind) {
    case KIND_NUMBER:
        return parse_number(option, text, error, error_bytes);
    case KIND_PACE:
        if (parse_name(option, pace_names, 0, text, &index, error, error_bytes))
            return -1;
        *(enum pace *)option->value = (enum pace)index;
        return 0;
    case KIND_TRIGGER:
        return parse_name(option, trigger_names, KVB_OFFLOAD_ON_REGISTER, text, option->value,
                          error, error_bytes);
    case KIND_PROGRESS:
        return parse_name(option, progress_names, 0, text, option->value, error, error_bytes);
    case KIND_TEXT:
    case KIND_PATHS:
    case KIND_FLAG:
        break;
    }
    if (!*text) {
        snprintf(error, error_bytes, "--%s: the value is empty", option->name);
        return -1;
    }
    if (option->kind == KIND_PATHS)
        return add_path(option, text, error, error_bytes);
    *(const char **)option->value = text;
    return 0;
}

/* One `--name`, `--name=value` or `--name value` at argv[*i]; *i moves over what was used. */
static int parse_option(const struct option *table, int argc, char **argv, int *i, char *error,
                        size_t error_bytes)
{
    const char *name = argv[*i] + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option *option = table;
    while (option->name &&
           (strlen(option->name) != length || strncmp(option->name, name, length) != 0))
        option++;
    if (!option->name) {
        snprintf(error, error_bytes, "unknown option '--%.*s'", (int)length, name);
        return -1;
    }
    if (option->kind == KIND_FLAG) {
        if (equals) {
            snprintf(error, error_bytes, "--%s takes no value", option->name);
            return -1;
        }
        *(int *)option->value = 1;
        return 0;
    }
    if (!equals && ++*i >= argc) {
        snprintf(error, error_bytes, "--%s: the value is missing", option->name);
        return -1;
    }
    return parse_value(option, equals ? equals + 1 : argv[*i], error, error_bytes);
}

int options_parse(struct options *options, int argc, char **argv, char *error, size_t error_bytes)
{
    *options = (struct options){.device_blocks = 512,
                                .host_blocks = 8192,
                                .block_bytes = 65536,
                                .limit = UINT64_MAX,
                                .seed = 1,
                                .trigger = KVB_OFFLOAD_ON_REGISTER,
                                .progress = KVB_PROGRESS_THREAD,
                                .pace = PACE_IDLE};
    const struct option table[] = {
        {"device-blocks", KIND_NUMBER, &options->device_blocks, 1, UINT32_MAX - 1},
        {"host-blocks", KIND_NUMBER, &options->host_blocks, 0, UINT32_MAX - 1},
        {"disk-blocks", KIND_NUMBER, &options->disk_blocks, 0, UINT32_MAX - 1},
        {"disk", KIND_PATHS, &options->disk, 0, 0},
        {"resume", KIND_FLAG, &options->resume, 0, 0},
        {"device-memory", KIND_TEXT, &options->device_memory, 0, 0},
        {"block-bytes", KIND_NUMBER, &options->block_bytes, 64, UINT32_MAX},
        {"limit", KIND_NUMBER, &options->limit, 1, UINT64_MAX},
        {"seed", KIND_NUMBER, &options->seed, 0, UINT64_MAX},
        {"policy", KIND_TEXT, &options->policy, 0, 0},
        {"json", KIND_TEXT, &options->json_path, 0, 0},
        {"write-trace", KIND_TEXT, &options->write_path, 0, 0},
        {"trigger", KIND_TRIGGER, &options->trigger, 0, 0},
        {"pace", KIND_PACE, &options->pace, 0, 0},
        {"progress", KIND_PROGRESS, &options->progress, 0, 0},
        {"quiet", KIND_FLAG, &options->quiet, 0, 0},
        {"help", KIND_FLAG, &options->help, 0, 0},
        {NULL, KIND_FLAG, NULL, 0, 0},
    };
    int operands_only = 0;
    for (int i = 1; i < argc; i++) {
        if (!operands_only && strcmp(argv[i], "--") == 0) {
            operands_only = 1;
        } else if (!operands_only && strncmp(argv[i], "--", 2) == 0) {
            if (parse_option(table, argc, argv, &i, error, error_bytes))
                return -1;
        } else if (!operands_only && argv[i][0] == '-' && argv[i][1]) {
            snprintf(error, error_bytes, "unknown option '%s'", argv[i]);
            return -1;
        } else if (options->trace_path) {
            snprintf(error, error_bytes, "'%s': there is a TRACE already, '%s'", argv[i],
                     options->trace_path);
            return -1;
        } else {
            options->trace_path = argv[i];
        }
    }
    if (options->block_bytes % 64) {
        snprintf(error, error_bytes, "--block-bytes: %" PRIu64 " is not a multiple of 64",
                 options->block_bytes);
        return -1;
    }
    if (!options->disk_blocks != !options->disk.count) {
        snprintf(error, error_bytes, "--disk, --disk-blocks: one is of no use without the other");
        return -1;
    }
    if (options->resume && !options->disk.count) {
        snprintf(error, error_bytes, "--resume: there is nothing to resume from without --disk");
        return -1;
    }
    if (options->device_memory && strcmp(options->device_memory, "host") == 0)
        options->device_memory = NULL;
    if (options->device_memory &&
        (!device_memory_name || strcmp(options->device_memory, device_memory_name) != 0)) {
        snprintf(error, error_bytes, "--device-memory: '%s' is not host%s%s",
                 options->device_memory,
                 device_memory_name ? " or " : " and this program was built without CUDA",
                 device_memory_name ? device_memory_name : "");
        return -1;
    }
    return 0;
}

const char *options_pace_name(const struct options *options)
{
    return pace_names[options->pace];
}

const char *options_trigger_name(const struct options *options)
{
    return trigger_names[options->trigger];
}

const char *options_progress_name(const struct options *options)
{
    return progress_names[options->progress];
}
