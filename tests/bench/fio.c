/* SPDX-License-Identifier: Apache-2.0 */
/* fio - see fio.h. */
#include "fio.h"

#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define ARGUMENTS_MAX 32u
#define ARGUMENT_BYTES 4200u
#define OUTPUT_BYTES 65536u

static void fail(const char *what, const char *detail)
{
    (void)fprintf(stderr, "bench_disk: fio: %s%s\n", what, detail);
    exit(2);
}

/* ---- The process ----------------------------------------------------------------------------- */

/*
 * Standard output of the command, NUL-terminated, to be freed; NULL: it could not be run, or
 * failed.
 */
static char *run(char *const *arguments)
{
    int ends[2], status;
    pid_t child;
    posix_spawn_file_actions_t actions;
    char *output = malloc(OUTPUT_BYTES);
    size_t used = 0;
    ssize_t got = 1;
    if (output == NULL || pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0)
        fail("no memory or no pipe", "");
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    (void)posix_spawn_file_actions_addclose(&actions, ends[0]);
    /* huge pages, as the library's memory has them */
    (void)setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
    int error = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    while (error == 0 && used < OUTPUT_BYTES - 1 && (got > 0 || (got < 0 && errno == EINTR))) {
        got = read(ends[0], output + used, OUTPUT_BYTES - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    }
    (void)close(ends[0]);
    output[used] = '\0';
    if (error == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
        WEXITSTATUS(status) == 0)
        return output;
    free(output);
    return NULL;
}

bool fio_is_there(void)
{
    char *arguments[] = {"fio", "--version", NULL};
    char *output = run(arguments);
    free(output);
    return output != NULL;
}

/* ---- One job --------------------------------------------------------------------------------- */

/* The number behind "key" : in `text`. */
static double number_of(const char *text, const char *key)
{
    char quoted[64];
    (void)snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = strstr(text, quoted);
    if (at == NULL || (at = strchr(at, ':')) == NULL)
        fail("its report has no ", key);
    return strtod(at + 1, NULL);
}

static struct fio_result read_report(const struct fio_job *job, const char *report)
{
    const char *jobs = strstr(report, "\"jobs\"");
    const char *section =
        jobs != NULL ? strstr(jobs, job->write ? "\"write\" :" : "\"read\" :") : NULL;
    if (section == NULL || number_of(jobs, "error") != 0)
        fail("the job failed", "");
    if (number_of(section, "io_bytes") != (double)job->move_bytes)
        fail("the job moved another number of bytes", "");
    return (struct fio_result){.seconds = (number_of(section, "runtime") - 0.5) / 1e3,
                               .cpu_seconds =
                                   (number_of(jobs, "usr_cpu") + number_of(jobs, "sys_cpu")) / 100 *
                                   number_of(jobs, "job_runtime") / 1e3};
}

struct command {
    char texts[ARGUMENTS_MAX][ARGUMENT_BYTES];
    char *arguments[ARGUMENTS_MAX + 1];
    uint32_t count;
};

static void add(struct command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add(struct command *command, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    (void)vsnprintf(command->texts[command->count], ARGUMENT_BYTES, format, values);
    va_end(values);
    command->arguments[command->count] = command->texts[command->count];
    command->count++;
}

struct fio_result fio_run(const struct fio_job *job)
{
    static struct command command;
    command = (struct command){.count = 0};
    const char *order = job->sequential ? "" : "rand", *direction = job->write ? "write" : "read";
    add(&command, "fio");
    add(&command, "--name=half");
    add(&command, "--output-format=json");
    add(&command, "--thread");
    add(&command, "--filename=%s", job->path);
    add(&command, "--allow_file_create=0");
    add(&command, "--rw=%s%s", order, direction);
    add(&command, "--offset=%llu", (unsigned long long)job->offset);
    add(&command, "--size=%llu", (unsigned long long)job->region_bytes);
    add(&command, "--io_size=%llu", (unsigned long long)job->move_bytes);
    add(&command, "--bs=%llu", (unsigned long long)job->block_bytes);
    add(&command, "--ioengine=io_uring");
    add(&command, "--iodepth=%u", job->depth);
    add(&command, "--iodepth_batch_submit=%u", job->depth);
    add(&command, "--iodepth_batch_complete_max=%u", job->depth);
    add(&command, "--direct=%d", job->direct);
    add(&command, "--fixedbufs=1");
    add(&command, "--registerfiles=1");
    add(&command, "--norandommap=1");
    add(&command, "--randrepeat=0");
    add(&command, "--scramble_buffers=0");
    char *report = run(command.arguments);
    if (report == NULL)
        fail("cannot be run on ", job->path);
    struct fio_result result = read_report(job, report);
    free(report);
    return result;
}
