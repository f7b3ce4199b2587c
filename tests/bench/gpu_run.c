/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_run - see gpu_run.h. */
#include "gpu_run.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAID_MAX 4u
#define SHOWN_BYTES 8u

/* ---- Rows ------------------------------------------------------------------------------------ */

void gpu_run_begin(struct gpu_run *run)
{
    if (!run->begun)
        report_begin(&run->report);
    (void)fflush(stdout);
    run->begun = true;
}

void gpu_run_complete(struct gpu_run *run)
{
    run->in_unit = false;
    run->complete = true;
}

bool gpu_run_unit(struct gpu_run *run, const char *const *rows, uint32_t count)
{
    run->in_unit = false;
    if (run->unit++ < run->through)
        return false;
    for (uint32_t i = 0; i < count && i < GPU_UNIT_ROWS; i++) {
        run->rows[i] = (struct gpu_run_row){.wrong = 0};
        (void)snprintf(run->rows[i].name, sizeof run->rows[i].name, "%s", rows[i]);
    }
    run->row_count = count < GPU_UNIT_ROWS ? count : GPU_UNIT_ROWS;
    run->row = run->round = 0;
    run->in_unit = true;
    return true;
}

void gpu_run_at(struct gpu_run *run, uint32_t row, uint32_t round)
{
    run->row = row;
    run->round = round;
}

/* The announced row of that name, or NULL. */
static struct gpu_run_row *find_row(struct gpu_run *run, const char *name)
{
    for (uint32_t i = 0; run->in_unit && i < run->row_count; i++)
        if (strcmp(run->rows[i].name, name) == 0)
            return &run->rows[i];
    return NULL;
}

void gpu_run_row(struct gpu_run *run, struct row *row)
{
    struct gpu_run_row *announced = find_row(run, row->name);
    if (announced != NULL) {
        row->failed = announced->wrong > 0;
        announced->printed = true;
    }
    report_row(&run->report, row);
}

/* ---- Wrong bytes ----------------------------------------------------------------------------- */

static void print_bytes(const char *name, const unsigned char *bytes, uint64_t count)
{
    (void)fprintf(stderr, "%s", name);
    for (uint64_t i = 0; i < count; i++)
        (void)fprintf(stderr, " %02x", bytes[i]);
}

/* True: it is to be said. */
static bool count_wrong(struct gpu_run *run)
{
    struct gpu_run_row *row = &run->rows[run->row];
    if (!run->in_unit || row->printed)
        run->report.failed++; /* no row can say it any more */
    if (row->wrong++ < SAID_MAX)
        return true;
    if (row->wrong == SAID_MAX + 1)
        (void)fprintf(stderr, "bench_gpu: %s: more wrong bytes, which are not listed\n", row->name);
    return false;
}

void gpu_run_wrong(struct gpu_run *run, const char *where, const unsigned char *expected,
                   const unsigned char *found, uint64_t bytes)
{
    uint64_t at = 0;
    if (!count_wrong(run))
        return;
    while (at < bytes && expected[at] == found[at])
        at++;
    uint64_t shown = bytes - at < SHOWN_BYTES ? bytes - at : SHOWN_BYTES;
    (void)fprintf(stderr, "bench_gpu: wrong bytes: row %s, round %u, %s, offset %llu: ",
                  run->rows[run->row].name, run->round, where, (unsigned long long)at);
    print_bytes("expected", expected + at, shown);
    print_bytes(", found", found + at, shown);
    (void)fprintf(stderr, "\n");
}

void gpu_run_wrong_result(struct gpu_run *run, const char *what)
{
    if (count_wrong(run))
        (void)fprintf(stderr, "bench_gpu: wrong result: row %s, round %u: %s\n",
                      run->rows[run->row].name, run->round, what);
}

bool gpu_run_spoils(struct gpu_run *run)
{
    bool spoils = run->spoil != NULL && !run->spoiled && run->in_unit && run->round > 0 &&
                  strcmp(run->spoil, run->rows[run->row].name) == 0;
    run->spoiled |= spoils;
    return spoils;
}

/* ---- Processes ------------------------------------------------------------------------------- */

static struct gpu_run *current; /* of a child */

/*
 * Whoever ends the child early leaves threads behind that are in the middle of something: nothing
 * is torn down below them.
 */
static void end_early(void)
{
    if (current->complete)
        return;
    (void)fflush(NULL);
    _exit(2);
}

/* Signals that end the program are the parent's to handle, which kills the child. */
static pid_t start_child(struct gpu_run *run, void (*body)(struct gpu_run *run, void *context),
                         void *context, const sigset_t *ends)
{
    pid_t parent = getpid();
    (void)fflush(NULL);
    pid_t child = fork();
    if (child != 0)
        return child;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(2);
    (void)sigprocmask(SIG_SETMASK, ends, NULL);
    current = run;
    if (atexit(end_early) != 0)
        _exit(2);
    body(run, context);
    exit(0);
}

/* Until the child ends, or a signal that ends it: 0, or that signal. */
static int await_child(pid_t child, const sigset_t *all, int *status)
{
    int caught;
    while (waitpid(child, status, WNOHANG) != child) {
        if (sigwait(all, &caught) != 0 || caught == SIGCHLD)
            continue;
        (void)kill(child, SIGKILL);
        (void)waitpid(child, status, 0);
        return caught;
    }
    return 0;
}

/* The child has ended at some rows: those that it has not printed have failed. */
static void fail_unit(struct gpu_run *run, int status)
{
    (void)fprintf(stderr, "bench_gpu: %s, round %u: the process ended there, %s %d\n",
                  run->rows[run->row].name, run->round,
                  WIFSIGNALED(status) ? "by signal" : "with status",
                  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    for (uint32_t i = 0; i < run->row_count; i++) {
        struct row row = {.unit = "", .value = NAN, .noise = NAN, .baseline = NAN, .failed = true};
        row.baseline_noise = NAN;
        memcpy(row.name, run->rows[i].name, sizeof row.name);
        if (!run->rows[i].printed)
            report_row(&run->report, &row);
    }
}

/* Until all is done, or nothing more can be: the last child's exit status, or a signal and 128. */
static int run_children(struct gpu_run *run, void (*body)(struct gpu_run *run, void *context),
                        void *context)
{
    sigset_t ends, all;
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGHUP), (void)sigaddset(&ends, SIGINT), (void)sigaddset(&ends, SIGTERM);
    all = ends;
    (void)sigaddset(&all, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &all, NULL);
    for (;;) {
        int status = 0;
        run->unit = 0;
        pid_t child = start_child(run, body, context, &ends);
        if (child < 0)
            return 2;
        int caught = await_child(child, &all, &status);
        if (caught != 0)
            return 128 + caught;
        if (run->complete || !run->in_unit)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
        fail_unit(run, status);
        run->through = run->unit;
        run->in_unit = false;
        run->report.failed++; /* also if every row had been printed */
    }
}

int gpu_run(bool json, const char *spoil, void (*body)(struct gpu_run *run, void *context),
            void *context)
{
    struct gpu_run *run =
        mmap(NULL, sizeof *run, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run == MAP_FAILED)
        return 2;
    *run = (struct gpu_run){.report = {.json = json}, .spoil = spoil};
    int status = run_children(run, body, context);
    if (status == 77 && !run->begun)
        return 77;
    gpu_run_begin(run);
    if (status > 128)
        (void)fprintf(stderr, "bench_gpu: ended by signal %d\n", status - 128);
    report_end(&run->report);
    (void)fflush(stdout);
    bool in_vain = run->complete && spoil != NULL && !run->spoiled;
    if (in_vain)
        (void)fprintf(stderr, "bench_gpu: --spoil %s: no such row compares bytes\n", spoil);
    if (run->report.failed > 0 || in_vain)
        return 2;
    return run->report.missed > 0 ? 1 : status;
}
