/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_costs - how much a stream takes before a call waits, what calls cost, and what they cost
 * others. See probe.h.
 *
 * Nothing here has a want: these are figures to decide by.
 */
#include "probe.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ENTRIES 8192u
#define WAITED_US 1000.0
#define STALL_MS 300
#define SPINNERS 8u

static void pause_ms(unsigned ms)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

/* ---- Depths ---------------------------------------------------------------------------------- */

enum entry { COPY, BATCH_AND_RECORD, RECORD, WAIT };

struct stall {
    const struct probe_scene *scene;
    cudaEvent_t event;
    enum entry entry;
};

static cudaError_t enqueue(const struct stall *stall, unsigned n)
{
    static void *to[128];
    static const void *from[128];
    static size_t bytes[128];
    const struct probe_scene *scene = stall->scene;
    if (stall->entry == COPY)
        return cudaMemcpyAsync(scene->device + (size_t)n % 4096 * 8192, scene->pinned, 4096,
                               cudaMemcpyHostToDevice, scene->a);
    if (stall->entry == WAIT)
        return cudaStreamWaitEvent(scene->a, stall->event, 0);
    if (stall->entry == BATCH_AND_RECORD) {
        for (size_t i = 0; i < 128; i++) {
            to[i] = scene->device + i * 8192;
            from[i] = scene->pinned + i * 4096;
            bytes[i] = 4096;
        }
        cudaError_t error =
            probe_batch(to, from, bytes, 128, probe_attributes(true, false, false), scene->a);
        if (error != cudaSuccess)
            return error;
    }
    return cudaEventRecord(stall->event, scene->a);
}

static void *release_later(void *argument)
{
    pause_ms(STALL_MS);
    probe_release(argument);
    return NULL;
}

/* The stream is held for 300 ms: which call does not return at once? */
static void ask_depth(unsigned number, const char *what, const struct stall *stall)
{
    const struct probe_scene *scene = stall->scene;
    pthread_t releaser;
    unsigned n = 0, most = probe_on_stand_in ? 64 : ENTRIES;
    double took = 0, total = probe_us();
    cudaError_t error = cudaSuccess;
    /* what a wait waits for is behind the other stream's work: an event that is not reached */
    cudaStream_t held = stall->entry == WAIT ? scene->b : scene->a;
    probe_hold(held);
    if (stall->entry == WAIT)
        (void)PROBE_NEED(cudaEventRecord(stall->event, scene->b));
    if (pthread_create(&releaser, NULL, release_later, held) != 0)
        abort();
    while (n < most && took < WAITED_US && error == cudaSuccess) {
        double since = probe_us();
        error = enqueue(stall, n++);
        took = probe_us() - since;
    }
    total = probe_us() - total;
    (void)pthread_join(releaser, NULL);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    (void)PROBE_NEED(cudaStreamSynchronize(scene->b));
    if (took >= WAITED_US)
        probe_said(number, what, "call %u waited for %.0f us", n, took);
    else
        probe_said(number, what, "%u calls, none waited, code %d, %.2f us a call", n, (int)error,
                   total / n);
}

void probe_depths(const struct probe_scene *scene)
{
    struct stall stall = {.scene = scene};
    if (!PROBE_NEED(cudaEventCreateWithFlags(&stall.event, cudaEventDisableTiming)))
        return;
    ask_depth(150, "copies that a stalled stream takes", &stall);
    stall.entry = BATCH_AND_RECORD;
    ask_depth(151, "batches of 128 and a record behind each", &stall);
    stall.entry = RECORD;
    ask_depth(152, "records", &stall);
    stall.entry = WAIT;
    ask_depth(153, "waits for an event that is not reached", &stall);
    (void)PROBE_NEED(cudaEventDestroy(stall.event));
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static void ask_enter_and_leave(unsigned times)
{
    int (*push)(void *) = NULL, (*pop)(void **) = NULL, (*retain)(void **, int) = NULL,
                     (*release)(int) = NULL;
    void *context = NULL;
    if (!probe_driver("cuDevicePrimaryCtxRetain", 7000, &retain) ||
        !probe_driver("cuDevicePrimaryCtxRelease", 11000, &release) ||
        !probe_driver("cuCtxPushCurrent", 4000, &push) ||
        !probe_driver("cuCtxPopCurrent", 4000, &pop) || retain(&context, 0) != 0)
        return;
    double since = probe_us();
    for (unsigned i = 0; i < times; i++) {
        enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
        void *popped;
        (void)push(context);
        (void)cudaPeekAtLastError();
        (void)cudaThreadExchangeStreamCaptureMode(&mode);
        (void)cudaThreadExchangeStreamCaptureMode(&mode);
        (void)pop(&popped);
    }
    probe_told(163, "context and capture mode, there and back", (probe_us() - since) / times * 1e3,
               "ns");
    (void)release(0);
}

static double query_ns(cudaEvent_t event, unsigned times)
{
    double since = probe_us();
    for (unsigned i = 0; i < times; i++)
        (void)cudaEventQuery(event);
    return (probe_us() - since) / times * 1e3;
}

/* A call of a server's: a kernel where there are kernels, else a record. */
static cudaError_t call_of_a_server(const struct probe_scene *scene, cudaEvent_t event)
{
    return probe_kernels_available() ? probe_kernel_empty(scene->b)
                                     : cudaEventRecord(event, scene->b);
}

struct spin {
    _Atomic bool stop, started;
    bool reads_words;
    cudaEvent_t event;
    const _Atomic uint32_t *word;
};

static void *spin(void *argument)
{
    struct spin *spin = argument;
    if (!spin->reads_words)
        (void)PROBE_NEED(cudaSetDevice(0));
    atomic_store(&spin->started, true);
    while (!atomic_load(&spin->stop))
        if (spin->reads_words)
            (void)atomic_load_explicit(spin->word, memory_order_acquire);
        else
            (void)cudaEventQuery(spin->event);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_calls(const struct probe_scene *scene, cudaEvent_t own, double rounds[21])
{
    unsigned times = probe_times(probe_on_stand_in, 300);
    for (unsigned r = 0; r < 21; r++) {
        double since = probe_us();
        for (unsigned i = 0; i < times; i++)
            (void)call_of_a_server(scene, own);
        rounds[r] = (probe_us() - since) / times;
        (void)PROBE_NEED(cudaStreamSynchronize(scene->b));
    }
    qsort(rounds, 21, sizeof *rounds, ascending);
}

/* `event` is not reached. */
static void ask_beside_spinners(unsigned number, const struct probe_scene *scene, cudaEvent_t event,
                                unsigned threads, bool reads_words)
{
    static const char *const what = "a launch beside threads that spin";
    struct spin spins[SPINNERS];
    pthread_t ids[SPINNERS];
    double rounds[21];
    cudaEvent_t own;
    if (!PROBE_NEED(cudaEventCreateWithFlags(&own, cudaEventDisableTiming)))
        return;
    for (unsigned i = 0; i < threads; i++) {
        spins[i] = (struct spin){.reads_words = reads_words,
                                 .event = event,
                                 .word = (_Atomic uint32_t *)(void *)scene->pinned};
        if (pthread_create(&ids[i], NULL, spin, &spins[i]) != 0)
            abort();
        while (!atomic_load(&spins[i].started))
            ;
    }
    time_calls(scene, own, rounds);
    for (unsigned i = 0; i < threads; i++) {
        atomic_store(&spins[i].stop, true);
        (void)pthread_join(ids[i], NULL);
    }
    probe_said(number, what, "%.2f us, at worst %.2f, %u on %s", rounds[10], rounds[20], threads,
               reads_words ? "words" : "cudaEventQuery");
    (void)PROBE_NEED(cudaEventDestroy(own));
}

void probe_costs(const struct probe_scene *scene)
{
    unsigned times = probe_times(probe_on_stand_in, 50000);
    cudaEvent_t event;
    if (!PROBE_NEED(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)))
        return;
    probe_told(160, "cudaEventQuery, reached", query_ns(event, times), "ns");
    probe_hold(scene->a);
    (void)PROBE_NEED(cudaEventRecord(event, scene->a));
    probe_told(161, "cudaEventQuery, not reached", query_ns(event, times), "ns");
    double since = probe_us();
    for (unsigned i = 0; i < times / 50; i++)
        (void)cudaEventRecord(event, scene->b);
    probe_told(162, "cudaEventRecord", (probe_us() - since) / (times / 50 + 1) * 1e3, "ns");
    (void)PROBE_NEED(cudaStreamSynchronize(scene->b));
    ask_enter_and_leave(times);
    (void)PROBE_NEED(cudaEventRecord(event, scene->a));
    ask_beside_spinners(164, scene, event, 0, false);
    ask_beside_spinners(165, scene, event, 1, false);
    ask_beside_spinners(166, scene, event, 2, false);
    ask_beside_spinners(167, scene, event, SPINNERS, false);
    ask_beside_spinners(168, scene, event, 2, true);
    ask_beside_spinners(169, scene, event, SPINNERS, true);
    probe_release(scene->a);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    (void)PROBE_NEED(cudaEventDestroy(event));
}

/* ---- Pinning --------------------------------------------------------------------------------- */

#define HUGE_PAGE ((size_t)2 << 20)

struct launcher {
    const struct probe_scene *scene;
    _Atomic bool stop, started;
    double worst;
};

static void *launch_on(void *argument)
{
    struct launcher *launcher = argument;
    cudaEvent_t own;
    if (!PROBE_NEED(cudaSetDevice(0)) ||
        !PROBE_NEED(cudaEventCreateWithFlags(&own, cudaEventDisableTiming)))
        return NULL;
    (void)call_of_a_server(launcher->scene, own);
    atomic_store(&launcher->started, true);
    while (!atomic_load(&launcher->stop)) {
        double since = probe_us();
        (void)call_of_a_server(launcher->scene, own);
        double took = probe_us() - since;
        launcher->worst = took > launcher->worst ? took : launcher->worst;
        (void)PROBE_NEED(cudaStreamSynchronize(launcher->scene->b));
    }
    (void)PROBE_NEED(cudaEventDestroy(own));
    return NULL;
}

static void ask_piece(unsigned number, const struct probe_scene *scene, unsigned char *memory,
                      size_t bytes, const char *pages)
{
    struct launcher launcher = {.scene = scene};
    pthread_t id;
    if (pthread_create(&id, NULL, launch_on, &launcher) != 0)
        abort();
    while (!atomic_load(&launcher.started))
        ;
    double pinning = probe_us();
    cudaError_t error =
        cudaHostRegister(memory, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);
    pinning = probe_us() - pinning;
    double unpinning = probe_us();
    if (PROBE_NEED(error))
        (void)PROBE_NEED(cudaHostUnregister(memory));
    unpinning = probe_us() - unpinning;
    atomic_store(&launcher.stop, true);
    (void)pthread_join(id, NULL);
    probe_said(number, "registering a piece",
               "%zu MiB in %s pages in %.1f ms (%.1f GiB/s), back "
               "in %.1f ms; a launch meanwhile took up to %.0f us",
               bytes >> 20, pages, pinning / 1e3, (double)bytes / 1073.741824 / pinning,
               unpinning / 1e3, launcher.worst);
}

void probe_pinning(const struct probe_scene *scene)
{
    static const size_t pieces_mib[] = {32, 64, 256};
    for (unsigned huge = 0; huge < 2; huge++) {
        size_t bytes = (pieces_mib[2] << 20) >> (probe_on_stand_in ? 7 : 0);
        unsigned char *map = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
            abort();
        unsigned char *memory = map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE) % HUGE_PAGE;
        (void)madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        double touching = probe_us();
        memset(memory, 1, bytes);
        probe_told(180 + 4 * huge, huge ? "touching 256 MiB, huge pages" : "touching 256 MiB",
                   (probe_us() - touching) / 1e3, "ms");
        for (unsigned i = 0; i < 3; i++)
            ask_piece(181 + 4 * huge + i, scene, memory,
                      (pieces_mib[i] << 20) >> (probe_on_stand_in ? 7 : 0),
                      huge ? "huge" : "4 KiB");
        (void)munmap(map, bytes + HUGE_PAGE);
    }
}
