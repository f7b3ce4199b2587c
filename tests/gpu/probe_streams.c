/* SPDX-License-Identifier: Apache-2.0 */
/* probe_streams - events and waits, default streams, names of streams, words. See probe.h. */
#include "probe.h"

#include <stdatomic.h>
#include <string.h>

#define NO_ENTRY_POINT "there is no such entry point here"

static cudaError_t forget(cudaError_t error)
{
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error;
}

/* ---- Events ---------------------------------------------------------------------------------- */

static void ask_waits(const struct probe_scene *scene, cudaEvent_t event)
{
    probe_code(100, "cudaStreamWaitEvent of an event that was never recorded",
               cudaStreamWaitEvent(scene->b, event, 0), cudaSuccess);
    probe_code(101, "the stream is through at once", cudaStreamSynchronize(scene->b), cudaSuccess);
    (void)PROBE_NEED(cudaEventRecord(event, scene->a));
    (void)PROBE_NEED(cudaStreamWaitEvent(scene->b, event, 0));
    probe_hold(scene->a);
    (void)PROBE_NEED(cudaEventRecord(event, scene->a));
    probe_code(102, "a wait means the record before it: recorded anew behind it, the stream",
               cudaStreamSynchronize(scene->b), cudaSuccess);
    (void)PROBE_NEED(cudaStreamWaitEvent(scene->b, event, 0));
    probe_code(103, "cudaStreamQuery of a stream that waits for what is not reached",
               forget(cudaStreamQuery(scene->b)), cudaErrorNotReady);
    probe_code(104, "cudaEventDestroy of the event that it waits for", cudaEventDestroy(event),
               cudaSuccess);
    probe_code(105, "cudaStreamQuery of the stream then", forget(cudaStreamQuery(scene->b)),
               cudaErrorNotReady);
    probe_release(scene->a);
    probe_code(106, "it goes on once that is reached", cudaStreamSynchronize(scene->b),
               cudaSuccess);
}

static void ask_destroyed_stream(const struct probe_scene *scene)
{
    cudaStream_t stream;
    cudaEvent_t event;
    if (!PROBE_NEED(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)) ||
        !PROBE_NEED(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)))
        return;
    memset(scene->pinned, 3, 4096);
    probe_hold(stream);
    (void)PROBE_NEED(
        cudaMemcpyAsync(scene->device, scene->pinned, 4096, cudaMemcpyHostToDevice, stream));
    (void)PROBE_NEED(cudaEventRecord(event, stream));
    probe_release(stream);
    probe_code(107, "cudaStreamDestroy of a stream with work", cudaStreamDestroy(stream),
               cudaSuccess);
    probe_code(108, "cudaEventSynchronize of the event behind it", cudaEventSynchronize(event),
               cudaSuccess);
    (void)PROBE_NEED(cudaEventDestroy(event));
}

void probe_streams(const struct probe_scene *scene)
{
    cudaEvent_t event;
    int device = -1;
    if (!PROBE_NEED(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)))
        return;
    ask_waits(scene, event); /* which destroys it */
    ask_destroyed_stream(scene);
    (void)PROBE_NEED(cudaStreamGetDevice(scene->a, &device));
    probe_number(109, "cudaStreamGetDevice", device, 0);
}

/* ---- Default streams and names --------------------------------------------------------------- */

typedef int (*get_id)(cudaStream_t stream, unsigned long long *id);

static unsigned long long id_of(get_id ask, cudaStream_t stream)
{
    unsigned long long id = 0;
    int error = ask(stream, &id);
    return error == 0 ? id : ~0ull - (unsigned)error;
}

/* Is a destroyed stream's name given again to one that gets its address? */
static void ask_names_of_recreated(get_id ask)
{
    cudaStream_t first, again;
    (void)PROBE_NEED(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    unsigned long long id = id_of(ask, first);
    (void)PROBE_NEED(cudaStreamDestroy(first));
    bool met = false, same = false;
    for (int i = 0; i < 64 && !met; i++) {
        (void)PROBE_NEED(cudaStreamCreateWithFlags(&again, cudaStreamNonBlocking));
        met = again == first;
        same |= id_of(ask, again) == id;
        (void)PROBE_NEED(cudaStreamDestroy(again));
    }
    probe_told(134, "a stream created after another was destroyed has its handle", met, "");
    probe_number(135, "... and its id", same, 0);
}

static void ask_names(const struct probe_scene *scene)
{
    get_id ask = NULL;
    if (!probe_driver("cuStreamGetId", 12000, &ask)) {
        probe_unasked(133, "cuStreamGetId", NO_ENTRY_POINT);
        return;
    }
    probe_number(133, "two streams have two ids", id_of(ask, scene->a) != id_of(ask, scene->b), 1);
    ask_names_of_recreated(ask);
    probe_number(136, "NULL and legacy have one id",
                 id_of(ask, NULL) == id_of(ask, cudaStreamLegacy), 1);
    probe_number(137, "legacy and per-thread have two",
                 id_of(ask, cudaStreamLegacy) != id_of(ask, cudaStreamPerThread), 1);
    probe_said(138, "ids of a stream, legacy, per-thread", "%llu %llu %llu", id_of(ask, scene->a),
               id_of(ask, cudaStreamLegacy), id_of(ask, cudaStreamPerThread));
}

void probe_defaults(const struct probe_scene *scene)
{
    static const char *const names[] = {"NULL", "legacy", "per-thread"};
    const cudaStream_t streams[] = {NULL, cudaStreamLegacy, cudaStreamPerThread};
    cudaEvent_t event;
    char what[96] = "";
    if (!PROBE_NEED(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)))
        return;
    for (unsigned i = 0; i < 3; i++) {
        (void)strcat(strcpy(what, "cudaEventRecord on the default stream "), names[i]);
        probe_code(121 + 4 * i, what, forget(cudaEventRecord(event, streams[i])), cudaSuccess);
        probe_code(122 + 4 * i, "cudaStreamWaitEvent there",
                   forget(cudaStreamWaitEvent(streams[i], event, 0)), cudaSuccess);
        enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        probe_code(123 + 4 * i, "cudaStreamIsCapturing of it",
                   forget(cudaStreamIsCapturing(streams[i], &status)), cudaSuccess);
        /* it must not wait for the scene's streams, which are non-blocking */
        probe_hold(scene->a);
        cudaError_t error = forget(cudaEventRecord(event, streams[i]));
        if (error == cudaSuccess)
            error = forget(cudaEventSynchronize(event));
        probe_code(124 + 4 * i, "an event there is reached while a non-blocking stream is held",
                   error, cudaSuccess);
        probe_release(scene->a);
        (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    }
    ask_names(scene);
    (void)PROBE_NEED(cudaEventDestroy(event));
}

/* ---- Words that a stream writes -------------------------------------------------------------- */

#define LOAD_BYTES ((size_t)8 << 20)

typedef int (*write_32)(cudaStream_t stream, unsigned long long address, uint32_t value,
                        unsigned flags);
typedef int (*write_64)(cudaStream_t stream, unsigned long long address, uint64_t value,
                        unsigned flags);

/*
 * Copies down, and a word behind each: are the bytes there when the word is? Wrong bytes, or -code.
 */
static long long count_early_words(const struct probe_scene *scene, write_32 put,
                                   _Atomic uint32_t *word)
{
    long long wrong = 0;
    for (unsigned round = 1; round <= 20; round++) {
        unsigned char *down = scene->pinned + LOAD_BYTES;
        memset(scene->pinned, (int)round, LOAD_BYTES);
        memset(down, 0, LOAD_BYTES);
        cudaError_t error = cudaMemcpyAsync(scene->device, scene->pinned, LOAD_BYTES,
                                            cudaMemcpyHostToDevice, scene->a);
        if (error == cudaSuccess)
            error =
                cudaMemcpyAsync(down, scene->device, LOAD_BYTES, cudaMemcpyDeviceToHost, scene->a);
        if (error == cudaSuccess)
            error = (cudaError_t)put(scene->a, (uintptr_t)word, round, 0);
        if (error != cudaSuccess)
            return -(long long)error;
        while (probe_read_word(word) != round)
            ;
        for (size_t i = 0; i < LOAD_BYTES; i += 64) /* a byte of each line */
            wrong += down[i] != (unsigned char)round;
        (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    }
    return wrong;
}

static void ask_cost_of_words(const struct probe_scene *scene, write_32 put,
                              const _Atomic uint32_t *word)
{
    double since = probe_us();
    int error = 0;
    for (uint32_t i = 0; i < 500 && error == 0; i++)
        error = put(scene->a, (uintptr_t)word, i, 0);
    probe_told(145, "a call of it", (probe_us() - since) / 500 * 1e3, "ns");
    probe_told(146, "its code", error, "");
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    since = probe_us();
    for (uint32_t i = 0; i < 500 && error == 0; i++) {
        error = put(scene->a, (uintptr_t)word, 1000 + i, 0);
        while (error == 0 && probe_read_word(word) != 1000 + i)
            ;
    }
    probe_told(147, "from the call until the host reads the word", (probe_us() - since) / 500,
               "us");
}

void probe_words(const struct probe_scene *scene)
{
    write_32 put_32 = NULL;
    write_64 put_64 = NULL;
    int (*attribute)(int *value, int which, int device) = NULL;
    int value = -1;
    /* CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS */
    if (probe_driver("cuDeviceGetAttribute", 2000, &attribute) && attribute(&value, 122, 0) == 0)
        probe_number(140, "CAN_USE_64_BIT_STREAM_MEM_OPS", value, 1);
    else
        probe_unasked(140, "CAN_USE_64_BIT_STREAM_MEM_OPS", NO_ENTRY_POINT);
    if (!probe_driver("cuStreamWriteValue32", 11070, &put_32)) {
        probe_unasked(141, "cuStreamWriteValue32", NO_ENTRY_POINT);
        return;
    }
    _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)(scene->pinned + scene->bytes - 4096);
    _Atomic uint64_t *wide = (_Atomic uint64_t *)(void *)(scene->pinned + scene->bytes - 2048);
    atomic_store(word, 0);
    atomic_store(wide, 0);
    probe_code(141, "cuStreamWriteValue32 into cudaHostAlloc's memory",
               (cudaError_t)put_32(scene->a, (uintptr_t)word, 1, 0), cudaSuccess);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    probe_number(142, "the word once the stream is through", atomic_load(word), 1);
    if (!probe_driver("cuStreamWriteValue64", 11070, &put_64)) {
        probe_unasked(143, "cuStreamWriteValue64", NO_ENTRY_POINT);
    } else {
        int error = put_64(scene->a, (uintptr_t)wide, 1ull << 40, 0);
        (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
        probe_number(143, "cuStreamWriteValue64 of 1 << 40: the word (negative: a code)",
                     error != 0 ? -error : (long long)atomic_load(wide), 1ll << 40);
    }
    atomic_store(word, 0);
    probe_number(144, "lines that were not there when the word behind a copy down was",
                 count_early_words(scene, put_32, word), 0);
    ask_cost_of_words(scene, put_32, word);
}
