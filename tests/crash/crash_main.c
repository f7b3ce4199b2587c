/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash_worker KILLS FOLDER [SEED] - kills a process that writes through to a disk tier, and looks
 * what the next one finds
 *
 * Files are made in FOLDER and used for a few lives of the worker: of random block size, engine,
 * progress, number of paths. Each life checks all that earlier ones have promised (ledger.h),
 * writes on, and is killed at a random moment: while it opens, checks, writes, clears or closes.
 * The last two lives on the same files end by themselves, so that a clean end is checked as well.
 *
 * The last line says how it went. Exit status: 0 good, 1 a loss, a wrong byte or an error, 77 it
 * cannot run here.
 */
#include "ledger.h"
#include "plan.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STUCK_NS (UINT64_C(240) * 1000000000)
#define US UINT64_C(1000)
#define CONTENTS_A_LIFE 400
#define QUIET_LIVES 2 /* at the end of each set of files: not killed */
#define EARLIER 64    /* contents of the files' former life that are looked for as well */

struct run {
    struct ledger ledger;
    struct crash_files files;
    const char *folder;
    uint64_t seed;
    uint32_t engines[2], engine_count;
    uint32_t wanted, kills, lives, closes;
    uint32_t lives_left; /* on these files, the quiet ones included */
    bool opened;         /* one of them has opened, and so emptied, the files */
};

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* ---- Plans ----------------------------------------------------------------------------------- */

static void plan_files(struct run *run)
{
    static const struct {
        uint32_t block_bytes, roomy_slots, tight_slots;
    } sizes[] = {{4160, 1500, 60}, {64 << 10, 400, 40}, {1 << 20, 60, 12}};
    struct crash_files *files = &run->files;
    uint32_t size = crash_random(&run->seed, 3);
    files->roomy = crash_random(&run->seed, 3) != 0;
    files->block_bytes = sizes[size].block_bytes;
    files->slot_count = files->roomy ? sizes[size].roomy_slots : sizes[size].tight_slots;
    files->keyed = files->roomy && crash_random(&run->seed, 3) == 0;
    files->path_count = crash_random(&run->seed, 2) == 0 ? 1 : CRASH_PATHS_MAX;
    files->life_count = 2 + crash_random(&run->seed, 5) + QUIET_LIVES;
    files->first = run->ledger.next;
    run->lives_left = files->life_count;
    run->opened = false;
    ledger_start_empty(&run->ledger);
}

/*
 * The end of what this life may write: a fair share of the room that is left, if room is what
 * matters.
 */
static uint32_t last_content(const struct run *run, uint32_t next)
{
    const struct crash_files *files = &run->files;
    if (!files->roomy)
        return next + CONTENTS_A_LIFE;
    return next + (files->first + files->slot_count - next) / run->lives_left;
}

static void plan_life(struct run *run, struct crash_life *life)
{
    const struct crash_files *files = &run->files;
    uint32_t first = files->first < CRASH_CHAIN + EARLIER ? CRASH_CHAIN : files->first - EARLIER;
    bool quiet = run->lives_left <= QUIET_LIVES;
    *life = (struct crash_life){.engine = run->engines[crash_random(&run->seed, run->engine_count)],
                                .progress = crash_random(&run->seed, 2) ? KVB_PROGRESS_POLL
                                                                        : KVB_PROGRESS_THREAD,
                                .host = crash_random(&run->seed, 3) == 0,
                                .wide = crash_random(&run->seed, 2) == 0,
                                .start_empty = !run->opened,
                                .clears = crash_random(&run->seed, 4) == 0,
                                .closes = quiet || crash_random(&run->seed, 4) == 0,
                                .batch_count = 10 + crash_random(&run->seed, 60),
                                .first = first - first % CRASH_CHAIN,
                                .next = run->ledger.next,
                                .last = last_content(run, run->ledger.next),
                                .seed = crash_mix(run->seed)};
}

static struct crash_kill plan_kill(struct run *run, const struct crash_life *life)
{
    uint64_t *seed = &run->seed;
    if (run->lives_left <= QUIET_LIVES)
        return (struct crash_kill){.kind = CRASH_KINDS};
    if (life->clears && crash_random(seed, 2) == 0)
        return (struct crash_kill){
            .kind = CRASH_CLEARING + crash_random(seed, 2), 1, crash_random(seed, 1000) * US};
    if (life->closes)
        return (struct crash_kill){CRASH_CLOSING, 1, crash_random(seed, 2000) * US};
    switch (crash_random(seed, 10)) {
    case 0:
        return (struct crash_kill){CRASH_BEGUN, 1, crash_random(seed, 20000) * US};
    case 1:
        return (struct crash_kill){CRASH_FOUND, 1 + crash_random(seed, 100),
                                   crash_random(seed, 500) * US};
    case 2:
    case 3:
    case 4:
    case 5:
        return (struct crash_kill){CRASH_INTENT, 1 + crash_random(seed, 100),
                                   crash_random(seed, 1000) * US};
    default:
        return (struct crash_kill){CRASH_STORED, 1 + crash_random(seed, 100),
                                   crash_random(seed, 1000) * US};
    }
}

/* ---- One life -------------------------------------------------------------------------------- */

struct watch {
    struct run *run;
    struct crash_kill kill;
    pid_t child;
    int pipe;
    uint64_t kill_at_ns; /* 0: its moment has not come */
    uint64_t stuck_at_ns;
    bool killed, closed, failed;
};

static void note(struct watch *watch, const struct crash_message *message)
{
    struct run *run = watch->run;
    /* Recovery's announcements do not count: what it has found is written already. */
    bool counts = message->kind != CRASH_STORED || run->ledger.checked;
    if (message->kind == watch->kill.kind && counts && watch->kill.count > 0)
        watch->kill.count--;
    bool due = watch->kill.count == 0 || message->kind == CRASH_FULL;
    if (due && watch->kill.kind != CRASH_KINDS && watch->kill_at_ns == 0)
        watch->kill_at_ns = now_ns() + watch->kill.delay_ns;
    run->opened |= message->kind == CRASH_OPENED;
    watch->closed |= message->kind == CRASH_CLOSED;
    watch->failed |= ledger_note(&run->ledger, message, run->files.roomy) != 0;
}

/* False at the end of the pipe: nobody writes any more. */
static bool read_messages(struct watch *watch)
{
    struct crash_message messages[512];
    ssize_t got = read(watch->pipe, messages, sizeof messages);
    if (got < 0 && errno == EINTR)
        return true;
    for (ssize_t i = 0; i < got / (ssize_t)sizeof *messages; i++)
        note(watch, &messages[i]);
    return got > 0;
}

static void kill_if_due(struct watch *watch, uint64_t now)
{
    bool stuck = now >= watch->stuck_at_ns;
    if (watch->killed || (!stuck && (watch->kill_at_ns == 0 || now < watch->kill_at_ns)))
        return;
    if (stuck)
        fprintf(stderr, "the worker is stuck\n");
    watch->failed |= stuck;
    watch->killed = true;
    (void)kill(watch->child, SIGKILL);
}

/* Until the pipe ends, which the kernel closes with the process. */
static void watch_life(struct watch *watch)
{
    struct pollfd readable = {.fd = watch->pipe, .events = POLLIN};
    struct crash_message begun = {CRASH_BEGUN, 0};
    note(watch, &begun);
    for (bool open = true; open;) {
        uint64_t now = now_ns();
        kill_if_due(watch, now);
        uint64_t until =
            watch->killed || watch->kill_at_ns == 0 ? watch->stuck_at_ns : watch->kill_at_ns;
        uint64_t left = until > now ? until - now : 0;
        struct timespec timeout = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
        if (watch->killed)
            timeout = (struct timespec){.tv_sec = 10};
        if (ppoll(&readable, 1, &timeout, NULL) > 0)
            open = read_messages(watch);
    }
}

static bool ended_well(const struct watch *watch)
{
    int status = 0;
    if (waitpid(watch->child, &status, 0) != watch->child || watch->failed)
        return false;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return watch->closed;
    if (watch->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    fprintf(stderr, "the worker ended by itself: status %d\n", status);
    return false;
}

static bool live(struct run *run)
{
    struct crash_life life;
    int ends[2];
    plan_life(run, &life);
    struct watch watch = {
        .run = run, .kill = plan_kill(run, &life), .stuck_at_ns = now_ns() + STUCK_NS};
    ledger_begin_life(&run->ledger);
    if (pipe(ends) != 0 || (watch.child = fork()) < 0)
        return false;
    if (watch.child == 0) {
        close(ends[0]);
        crash_worker(&run->files, &life, ends[1]);
    }
    close(ends[1]);
    watch.pipe = ends[0];
    watch_life(&watch);
    close(ends[0]);
    bool good = ended_well(&watch) && ledger_good(&run->ledger);
    run->lives++;
    run->kills += watch.killed && !watch.closed;
    run->closes += watch.closed;
    if (!good)
        fprintf(stderr,
                "life %u: %u bytes a block, %u slots, %u files%s%s, engine %u, progress %u, "
                "killed by message %u\n",
                run->lives, run->files.block_bytes, run->files.slot_count, run->files.path_count,
                run->files.keyed ? ", keyed" : "", life.wide ? ", wide" : "", life.engine,
                life.progress, watch.kill.kind);
    return good;
}

/* ---- All of them ----------------------------------------------------------------------------- */

static bool live_all(struct run *run)
{
    while (run->kills < run->wanted || run->lives_left > 0) {
        if (run->lives_left == 0)
            plan_files(run);
        if (run->kills >= run->wanted && run->lives_left > QUIET_LIVES)
            run->lives_left = QUIET_LIVES;
        if (!live(run))
            return false;
        run->lives_left--;
    }
    return true;
}

/* The engines that this machine has for files in this folder, or none. */
static void choose_engines(struct run *run)
{
    static const uint32_t engines[] = {KVB_DISK_ENGINE_URING, KVB_DISK_ENGINE_POSIX};
    static const char *const names[] = {"uring", "posix"};
    const struct crash_files *files = &run->files;
    run->files.block_bytes = 4096;
    run->files.slot_count = run->files.path_count = 1;
    for (uint32_t i = 0; i < 2; i++) {
        if (crash_engine_works(files, engines[i]))
            run->engines[run->engine_count++] = engines[i];
        else
            printf("without the engine %s, which does not work here\n", names[i]);
    }
}

static void remove_files(const struct run *run)
{
    for (uint32_t i = 0; i < CRASH_PATHS_MAX; i++)
        (void)unlink(run->files.paths[i]);
    (void)rmdir(run->folder);
}

static void print_summary(const struct run *run)
{
    const struct ledger *ledger = &run->ledger;
    printf("lives %u, closed cleanly %u, found the files still in use %llu times\n", run->lives,
           run->closes, (unsigned long long)ledger->busy);
    printf("evicted for a write under way %llu, keys with new content %llu, "
           "came back after a clear or a newer content %llu\n",
           (unsigned long long)ledger->taken, (unsigned long long)ledger->replaced,
           (unsigned long long)ledger->came_back);
    printf("kills %u, blocks reported stored %llu, found again %llu, lost %llu, wrong %llu\n",
           run->kills, (unsigned long long)ledger->promised, (unsigned long long)ledger->found,
           (unsigned long long)ledger->lost,
           (unsigned long long)(ledger->wrong + ledger->came_back));
}

int main(int argc, char **argv)
{
    static struct run run;
    char folder[128];
    if (argc < 3 || atoi(argv[1]) <= 0 || strlen(argv[2]) > 100) {
        fputs("usage: crash_worker KILLS FOLDER [SEED]\n", stderr);
        return 1;
    }
    run.wanted = (uint32_t)atoi(argv[1]);
    run.seed = argc > 3 ? strtoull(argv[3], NULL, 10) : now_ns();
    printf("seed %llu\n", (unsigned long long)run.seed);
    fflush(stdout);
    (void)snprintf(folder, sizeof folder, "%s/crash.XXXXXX", argv[2]);
    if (mkdtemp(folder) == NULL || ledger_init(&run.ledger) != 0) {
        perror(folder);
        return 77;
    }
    run.folder = folder;
    for (int i = 0; i < CRASH_PATHS_MAX; i++)
        (void)snprintf(run.files.paths[i], sizeof run.files.paths[i], "%s/blocks%d", folder, i);
    choose_engines(&run);
    bool good = run.engine_count > 0 && live_all(&run);
    if (good || run.engine_count == 0)
        remove_files(&run);
    else
        printf("the files are kept: %s\n", folder);
    print_summary(&run);
    ledger_fini(&run.ledger);
    return run.engine_count == 0 ? 77 : good ? 0 : 1;
}
