/* SPDX-License-Identifier: Apache-2.0 */
/* cpu - see cpu.h. */
#include "cpu.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HASH_THREAD "kvblock hash"

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The first line of /proc/self/task/`id`/`name`. */
static bool read_line(const char *id, const char *name, char *line, size_t bytes)
{
    char path[320];
    (void)snprintf(path, sizeof path, "/proc/self/task/%s/%s", id, name);
    FILE *file = fopen(path, "r");
    bool read = file != NULL && fgets(line, (int)bytes, file) != NULL;
    if (file != NULL)
        (void)fclose(file);
    return read;
}

/* Of all threads of that name; negative if there is none. */
static double seconds_of_threads(const char *name)
{
    char line[128];
    double seconds = -1;
    unsigned long long ns;
    DIR *tasks = opendir("/proc/self/task");
    for (const struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;)
        if (read_line(task->d_name, "comm", line, sizeof line) &&
            strncmp(line, name, strlen(name)) == 0 &&
            read_line(task->d_name, "schedstat", line, sizeof line) &&
            sscanf(line, "%llu", &ns) == 1)
            seconds = (seconds < 0 ? 0 : seconds) + (double)ns / 1e9;
    if (tasks != NULL)
        (void)closedir(tasks);
    return seconds;
}

struct cpu cpu_now(void)
{
    double hash = seconds_of_threads(HASH_THREAD); /* first: looking costs time of its own */
    return (struct cpu){.process = seconds_of(CLOCK_PROCESS_CPUTIME_ID),
                        .caller = seconds_of(CLOCK_THREAD_CPUTIME_ID),
                        .hash = hash};
}
