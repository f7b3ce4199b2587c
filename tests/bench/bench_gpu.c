/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_gpu - blocks between a GPU and pinned host memory through the whole manager, beside bare
 * CUDA in the same minute
 *
 * Public header only, linked to the library as it ships. docs/gpu.md says what the rows mean.
 * A row that fails does not end the program, and the array of --json is closed whatever does.
 * Exit: 0, 1 if a row misses its bar, 2 if a call failed, bytes were wrong or the command line is,
 * 77 if there is no GPU, 128 and the signal if one has ended it.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command_line.h"
#include "gpu_suites.h"

#define ROUNDS 21u
#define ROUNDS_QUICK 2u
#define SET_MIB 1024u
#define SET_MIB_QUICK 16u
#define PIN_MIB 8192u
#define PIN_MIB_QUICK 64u

static const struct {
    const char *name;
    void (*run)(struct gpu_bench *bench);
} suites[] = {{"move", gpu_suite_move},     {"both", gpu_suite_both},
              {"single", gpu_suite_single}, {"matmul", gpu_suite_matmul},
              {"launch", gpu_suite_launch}, {"pinning", gpu_suite_pinning}};
#define SUITE_COUNT (sizeof suites / sizeof *suites)

/* ---- Command line ---------------------------------------------------------------------------- */

static void usage(FILE *out)
{
    (void)fprintf(
        out,
        "usage: bench_gpu [--json] [--quick] [--only SUITE] [--device N] [--rounds N] [--mib N]\n"
        "                 [--pin-mib N] [--method auto|plain|rect|batch|kernel] [--batch N]\n"
        "                 [--depth N] [--spoil ROW] [--help]\n\n"
        "  --json         rows as a JSON array instead of a table\n"
        "  --quick        little data and 2 rounds: figures of no use, no bar\n"
        "  --only SUITE   move, both, single, matmul, launch or pinning alone\n"
        "  --device N     the GPU (0)\n"
        "  --rounds N     rounds a row, 2 to 999 (21)\n"
        "  --mib N        MiB that one direction moves in a round, 16 to 8192 (1024). The GPU\n"
        "                 needs six times that, host memory as much, pinned\n"
        "  --pin-mib N    MiB that are pinned in the suite pinning, 16 to 262144 (8192)\n"
        "  --method       how bytes are moved (auto)\n"
        "  --batch, --depth N   of the lanes (the library's defaults)\n"
        "  --spoil ROW    damage one byte of that row before it is compared: the row fails, the\n"
        "                 rows after it are measured, the exit status is 2\n"
        "  --help         this text\n");
}

/* By their numbers in enum kvb_copy_method. */
static const char *const methods[] = {"auto", "plain", "rect", "batch", "kernel"};

static const char *suite_option(const char *name, const char *text)
{
    for (uint32_t i = 0; i < SUITE_COUNT; i++)
        if (strcmp(text, suites[i].name) == 0)
            return suites[i].name;
    command_line_refuse(name, text);
}

static void read_value(void *given, const char *name, const char *text)
{
    struct gpu_options *options = given;
    if (strcmp(name, "--only") == 0)
        options->only = suite_option(name, text);
    else if (strcmp(name, "--device") == 0)
        options->device = number_option(name, text, 0, 63);
    else if (strcmp(name, "--rounds") == 0)
        options->rounds = number_option(name, text, 2, 999);
    else if (strcmp(name, "--mib") == 0)
        options->set_bytes = (uint64_t)(number_option(name, text, 16, 8192) & ~3u) << 20;
    else if (strcmp(name, "--pin-mib") == 0)
        options->pin_bytes = (uint64_t)(number_option(name, text, 16, 262144) & ~1u) << 20;
    else if (strcmp(name, "--method") == 0)
        options->method = word_option(name, text, methods, sizeof methods / sizeof *methods);
    else if (strcmp(name, "--batch") == 0)
        options->batch = number_option(name, text, 1, 64);
    else if (strcmp(name, "--depth") == 0)
        options->depth = number_option(name, text, 1, 64);
    else if (strcmp(name, "--spoil") == 0)
        options->spoil = text;
    else
        command_line_refuse("unknown option", name);
}

static void set_defaults(struct gpu_options *options)
{
    if (options->rounds == 0)
        options->rounds = options->quick ? ROUNDS_QUICK : ROUNDS;
    if (options->set_bytes == 0)
        options->set_bytes = (uint64_t)(options->quick ? SET_MIB_QUICK : SET_MIB) << 20;
    if (options->pin_bytes == 0)
        options->pin_bytes = (uint64_t)(options->quick ? PIN_MIB_QUICK : PIN_MIB) << 20;
}

static struct gpu_options read_options(int argc, char **argv)
{
    struct gpu_options options = {.quick = false};
    const struct command_line line = {.program = "bench_gpu",
                                      .usage = usage,
                                      .value = read_value,
                                      .json = &options.json,
                                      .quick = &options.quick};
    command_line_read(&line, &options, argc, argv);
    set_defaults(&options);
    return options;
}

/* ---- Running --------------------------------------------------------------------------------- */

static bool find_gpu(uint32_t device)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && (uint32_t)count > device)
        return true;
    (void)fprintf(stderr, "bench_gpu: no GPU %u here: %s\n", device,
                  error == cudaSuccess ? "fewer devices" : cudaGetErrorString(error));
    return false;
}

static void run_suites(struct gpu_run *run, void *context)
{
    const struct gpu_options *options = context;
    struct gpu_bench bench = {.options = options, .run = run};
    if (!find_gpu(options->device))
        _exit(77);
    gpu_bare_create(&bench.bare, run, (int)options->device, 2 * options->set_bytes);
    gpu_run_begin(run);
    for (uint32_t i = 0; i < SUITE_COUNT; i++)
        if (options->only == NULL || options->only == suites[i].name)
            suites[i].run(&bench);
    gpu_run_complete(run);
    gpu_bare_destroy(&bench.bare);
}

int main(int argc, char **argv)
{
    struct gpu_options options = read_options(argc, argv);
    return gpu_run(options.json, options.spoil, run_suites, &options);
}
