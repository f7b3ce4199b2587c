/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe - see probe.h. The program:
 *
 *     probe                every group, in order
 *     probe --only GROUP   one of them, in this process
 *     probe --gpu          nothing but whether there is a GPU
 *     probe --strict       exit 1 if anything is not as it is wanted
 *
 * Exit: 0 when it ran, whatever the answers were; 77 without a GPU; 2 a wrong command line.
 */
#include "probe.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCENE_BYTES ((size_t)288 << 20)
#define SCENE_BYTES_ON_STAND_IN ((size_t)96 << 20)

/* `seconds`: for one question. What measures speeds takes longer over one line. */
static const struct group {
    const char *name;
    void (*ask)(const struct probe_scene *scene);
    bool wants_scene;
    unsigned seconds;
} groups[] = {
    {"contexts", probe_contexts, false, 10}, {"first-launch", probe_first_launch, false, 10},
    {"errors", probe_errors, true, 10},      {"memory", probe_memory, true, 10},
    {"batches", probe_batches, true, 10},    {"captures", probe_captures, true, 10},
    {"streams", probe_streams, true, 10},    {"defaults", probe_defaults, true, 10},
    {"words", probe_words, true, 10},        {"depths", probe_depths, true, 10},
    {"costs", probe_costs, true, 10},        {"pinning", probe_pinning, true, 10},
    {"speeds", probe_speeds, true, 20},
};
#define GROUP_COUNT (sizeof groups / sizeof *groups)

/*
 * Where the stand-in is stricter than CUDA or knows less, and why. Its answers to these do not
 * count; on a GPU they do.
 */
static const struct {
    unsigned first, last;
    const char *why;
} apart[] = {
    {44, 44, "reports copies of memory that is not pinned, and refuses them"},
    {65, 65, "has no legacy stream"},
};

static const struct group *group;
static unsigned last_number;
static unsigned differing;

/* ---- Lines ----------------------------------------------------------------------------------- */

static const char *why_apart(unsigned number)
{
    for (size_t i = 0; probe_on_stand_in && i < sizeof apart / sizeof *apart; i++)
        if (number >= apart[i].first && number <= apart[i].last)
            return apart[i].why;
    return NULL;
}

static void begin_line(unsigned number, const char *what)
{
    if (number <= last_number) {
        (void)fprintf(stderr, "probe: question %u comes behind %u\n", number, last_number);
        abort();
    }
    last_number = number;
    printf("probe %u: %s = ", number, what);
}

/* On the stand-in only against what never ends: how fast it is says nothing. */
static void give_time(unsigned seconds)
{
    (void)alarm(probe_on_stand_in ? 20 * seconds : seconds);
}

static void end_line(void)
{
    printf("\n");
    (void)fflush(stdout);
    give_time(group->seconds);
}

static void judge(unsigned number, bool as_wanted)
{
    const char *why = why_apart(number);
    if (as_wanted)
        printf(" ok");
    else if (why != NULL)
        printf(" apart: the stand-in %s", why);
    else
        printf(" DIFFERS");
    differing += !as_wanted && why == NULL;
    end_line();
}

void probe_code(unsigned number, const char *what, cudaError_t answer, cudaError_t want)
{
    begin_line(number, what);
    printf("%d %s (want %d)", (int)answer, cudaGetErrorName(answer), (int)want);
    judge(number, answer == want);
}

void probe_number(unsigned number, const char *what, long long answer, long long want)
{
    begin_line(number, what);
    printf("%lld (want %lld)", answer, want);
    judge(number, answer == want);
}

void probe_at_least(unsigned number, const char *what, long long answer, long long least)
{
    begin_line(number, what);
    printf("%lld (want %lld or more)", answer, least);
    judge(number, answer >= least);
}

void probe_told(unsigned number, const char *what, double answer, const char *unit)
{
    begin_line(number, what);
    printf("%.6g%s%s (no want) told", answer, *unit != '\0' ? " " : "", unit);
    end_line();
}

void probe_said(unsigned number, const char *what, const char *format, ...)
{
    va_list list;
    begin_line(number, what);
    va_start(list, format);
    (void)vprintf(format, list);
    va_end(list);
    printf(" (no want) told");
    end_line();
}

void probe_unasked(unsigned number, const char *what, const char *why)
{
    begin_line(number, what);
    printf("not asked: %s", why);
    end_line();
}

bool probe_need(cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return true;
    printf("probe: %s: %d %s, behind question %u\n", call, (int)error, cudaGetErrorName(error),
           last_number);
    (void)fflush(stdout);
    (void)cudaGetLastError();
    differing++;
    return false;
}

/* ---- What groups share ----------------------------------------------------------------------- */

double probe_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

cudaError_t probe_batch(void *const *to, const void *const *from, const size_t *bytes, size_t count,
                        struct cudaMemcpyAttributes attributes, cudaStream_t stream)
{
    size_t first = 0;
#if CUDART_VERSION >= 13000
    return cudaMemcpyBatchAsync(to, from, bytes, count, &attributes, &first, 1, stream);
#elif CUDART_VERSION >= 12080
    size_t failed = 0;
    return cudaMemcpyBatchAsync((void **)(uintptr_t)to, (void **)(uintptr_t)from,
                                (size_t *)(uintptr_t)bytes, count, &attributes, &first, 1, &failed,
                                stream);
#else
#error "the probe is built with a toolkit of 12.8 or newer: it asks about batches"
#endif
}

struct cudaMemcpyAttributes probe_attributes(bool up, bool in_stream_order, bool overlap)
{
    return (struct cudaMemcpyAttributes){
        .srcAccessOrder =
            in_stream_order ? cudaMemcpySrcAccessOrderStream : cudaMemcpySrcAccessOrderAny,
        .srcLocHint.type = up ? cudaMemLocationTypeHost : cudaMemLocationTypeDevice,
        .dstLocHint.type = up ? cudaMemLocationTypeDevice : cudaMemLocationTypeHost,
        .flags = overlap ? cudaMemcpyFlagPreferOverlapWithCompute : cudaMemcpyFlagDefault};
}

bool probe_driver(const char *name, unsigned version, void *function)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, function, version, cudaEnableDefault, &found);
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess;
}

static void ask_with_scene(void)
{
    struct probe_scene scene = {.bytes = probe_on_stand_in ? SCENE_BYTES_ON_STAND_IN : SCENE_BYTES};
    if (PROBE_NEED(cudaMalloc((void **)&scene.device, scene.bytes)) &&
        PROBE_NEED(cudaHostAlloc((void **)&scene.pinned, scene.bytes,
                                 cudaHostAllocPortable | cudaHostAllocMapped)) &&
        PROBE_NEED(cudaStreamCreateWithFlags(&scene.a, cudaStreamNonBlocking)) &&
        PROBE_NEED(cudaStreamCreateWithFlags(&scene.b, cudaStreamNonBlocking))) {
        memset(scene.pinned, 7, scene.bytes);
        give_time(group->seconds);
        group->ask(&scene);
        (void)PROBE_NEED(cudaDeviceSynchronize());
        (void)PROBE_NEED(cudaStreamDestroy(scene.a));
        (void)PROBE_NEED(cudaStreamDestroy(scene.b));
    }
    (void)cudaFreeHost(scene.pinned);
    (void)cudaFree(scene.device);
}

/* ---- The program ----------------------------------------------------------------------------- */

/* Only what a signal handler may do. */
static void too_late(int signal)
{
    static const char text[] = "probe: what follows the last line is not answered in time\n";
    (void)signal;
    (void)!write(STDOUT_FILENO, text, sizeof text - 1);
    _exit(3);
}

static int ask_group(const struct group *asked)
{
    group = asked;
    (void)signal(SIGALRM, too_late);
    give_time(30); /* the context, the scene */
    probe_begin();
    if (asked->wants_scene)
        ask_with_scene();
    else
        asked->ask(NULL);
    probe_end();
    return differing > 0 ? 4 : 0;
}

/* What became of a group: 0, 4 something differs, else it did not come to its end. */
static int run_group(const struct group *asked)
{
    printf("-- %s\n", asked->name);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        (void)execl("/proc/self/exe", "probe", "--only", asked->name, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 127;
    if (WIFSIGNALED(status))
        printf("probe: group %s was ended by signal %d: its other questions have no answer\n",
               asked->name, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 4)
        printf("probe: group %s ended with status %d: its other questions have no answer\n",
               asked->name, WEXITSTATUS(status));
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool there_is_a_gpu(void)
{
    int count = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    (void)cudaDriverGetVersion(&driver);
    if (error == cudaSuccess && count > 0) {
        printf("probe: %s, driver %d, runtime %d\n", probe_on_stand_in ? "the stand-in" : "a GPU",
               driver, CUDART_VERSION);
        return true;
    }
    printf("probe: skipped: no GPU: %s\n", cudaGetErrorString(error));
    return false;
}

static int run_groups(bool strict)
{
    unsigned bad = 0;
    for (size_t i = 0; i < GROUP_COUNT; i++)
        bad += run_group(&groups[i]) != 0;
    printf("probe: %u of %zu groups have something that differs or no answer\n", bad, GROUP_COUNT);
    return strict && bad > 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    bool strict = argc == 2 && strcmp(argv[1], "--strict") == 0;
    if (argc == 3 && strcmp(argv[1], "--only") == 0)
        for (size_t i = 0; i < GROUP_COUNT; i++)
            if (strcmp(argv[2], groups[i].name) == 0)
                return ask_group(&groups[i]);
    if (argc == 2 && strcmp(argv[1], "--gpu") == 0)
        return there_is_a_gpu() ? 0 : 77;
    if (argc != 1 && !strict) {
        (void)fprintf(stderr, "usage: probe [--gpu | --strict | --only GROUP]\n");
        return 2;
    }
    return there_is_a_gpu() ? run_groups(strict) : 77;
}
