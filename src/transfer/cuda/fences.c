/* SPDX-License-Identifier: Apache-2.0 */
/* fences - see fences.h. */
#include "transfer/cuda/fences.h"

#include "transfer/cuda/cuda.h"

/* ---- Where we are ------------------------------------------------------------------------------------------------- */

static struct kvbi_cuda_fence *at(struct kvbi_cuda_fences *fences, uint64_t number)
{
    return &fences->ring[number % KVBI_CUDA_FENCES];
}

/* The oldest number that is recorded and not known to be reached, with its event; NULL: it was refused. False: there is none. */
static bool oldest(struct kvbi_cuda_fences *fences, uint64_t *number, cudaEvent_t *event)
{
    kvbi_lock_take(&fences->lock);
    *number = fences->first;
    bool recorded = fences->first < fences->next && at(fences, fences->first)->recorded;
    *event =
        recorded && !at(fences, fences->first)->refused ? at(fences, fences->first)->event : NULL;
    kvbi_lock_release(&fences->lock);
    return recorded;
}

static void pass(struct kvbi_cuda_fences *fences, uint64_t number, bool spoiled)
{
    kvbi_lock_take(&fences->lock);
    if (fences->first == number) {
        fences->first++;
        if (spoiled)
            at(fences, number)->spoiled = number;
        atomic_store_explicit(&fences->reached, number, memory_order_release);
    }
    kvbi_lock_release(&fences->lock);
}

/* Passes what has been reached, up to the first whose event a capture has got hold of: its number, or 0. */
static uint64_t advance(struct kvbi_cuda_fences *fences, struct kvbi_cuda_scope *scope)
{
    uint64_t number = 0;
    cudaEvent_t event;
    cudaError_t error = cudaSuccess;
    while (error == cudaSuccess && oldest(fences, &number, &event)) {
        error = event != NULL ? kvbi_cuda_check_event(scope, cudaEventQuery(event)) : cudaSuccess;
        if (error == cudaSuccess)
            pass(fences, number, false);
    }
    return kvbi_cuda_is_of_capture(error) ? number : 0;
}

uint64_t kvbi_cuda_fences_passed(struct kvbi_cuda_fences *fences, struct kvbi_cuda_scope *scope)
{
    uint64_t captured;
    while ((captured = advance(fences, scope)) != 0) {
        kvbi_log(
            fences->log, KVB_LOG_ERROR, KVB_EINVAL,
            "fence: its stream or event was being captured into a graph: what waits for it fails");
        pass(fences, captured, true);
    }
    kvbi_lock_take(&fences->lock);
    uint64_t passed = fences->first - 1;
    kvbi_lock_release(&fences->lock);
    return passed;
}

bool kvbi_cuda_fences_spoiled(struct kvbi_cuda_fences *fences, uint64_t number)
{
    if (number == 0)
        return false;
    kvbi_lock_take(&fences->lock);
    bool spoiled = at(fences, number)->spoiled == number;
    kvbi_lock_release(&fences->lock);
    return spoiled;
}

/* ---- Importing ---------------------------------------------------------------------------------------------------- */

/* The next number, or 0: the ring is full. */
static uint64_t take_number(struct kvbi_cuda_fences *fences)
{
    kvbi_lock_take(&fences->lock);
    uint64_t number = fences->next - fences->first < KVBI_CUDA_FENCES ? fences->next++ : 0;
    if (number != 0)
        at(fences, number)->recorded = at(fences, number)->refused = false;
    kvbi_lock_release(&fences->lock);
    return number;
}

static void set_recorded(struct kvbi_cuda_fences *fences, uint64_t number, bool refused)
{
    kvbi_lock_take(&fences->lock);
    at(fences, number)->recorded = true;
    at(fences, number)->refused = refused;
    kvbi_lock_release(&fences->lock);
}

/* cudaErrorStreamCaptureUnsupported: it is. */
static cudaError_t ask_capturing(const struct kvbi_cuda_fences *fences,
                                 struct kvbi_cuda_scope *scope, cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaError_t error =
        kvbi_cuda_check_foreign(scope, cudaStreamIsCapturing(stream, &status), fences->stream);
    return error == cudaSuccess && status != cudaStreamCaptureStatusNone
               ? cudaErrorStreamCaptureUnsupported
               : error;
}

int kvbi_cuda_fences_check_stream(const struct kvbi_cuda_fences *fences,
                                  struct kvbi_cuda_scope *scope, cudaStream_t stream,
                                  struct kvbi_why *why)
{
    if (stream == NULL || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
        kvbi_why_say(why, "it is a default stream: record an event there and pass that");
        return KVB_EINVAL;
    }
    cudaError_t error = ask_capturing(fences, scope, stream);
    if (error == cudaSuccess)
        return 0;
    if (kvbi_cuda_is_of_capture(error))
        kvbi_why_say(why, "the stream is being captured into a graph");
    else
        kvbi_why_say(why, "it is no stream: %s (%d)", cudaGetErrorName(error), (int)error);
    return kvbi_cuda_lost(scope->cuda) ? KVB_EDEVICE : KVB_EINVAL;
}

/* Makes `event` a point behind the fence, unless that puts it into a graph. */
static cudaError_t record(struct kvbi_cuda_fences *fences, struct kvbi_cuda_scope *scope,
                          const struct kvb_fence *fence, cudaEvent_t event)
{
    cudaStream_t stream = fences->stream;
    cudaError_t error = cudaSuccess;
    if (fence->kind == KVB_FENCE_CUDA_STREAM)
        stream = (cudaStream_t)(uintptr_t)fence->handle;
    else
        error = cudaStreamWaitEvent(stream, (cudaEvent_t)(uintptr_t)fence->handle,
                                    cudaEventWaitDefault);
    if (error == cudaSuccess)
        error = cudaEventRecord(event, stream);
    (void)kvbi_cuda_check_foreign(scope, error, fences->stream);
    return error != cudaSuccess ? error : ask_capturing(fences, scope, stream);
}

static int import(struct kvbi_cuda_fences *fences, struct kvbi_cuda_scope *scope,
                  const struct kvb_fence *fence, uint64_t *number, struct kvbi_why *why)
{
    bool is_stream = fence->kind == KVB_FENCE_CUDA_STREAM;
    int refused = is_stream ? kvbi_cuda_fences_check_stream(
                                  fences, scope, (cudaStream_t)(uintptr_t)fence->handle, why)
                  : fence->handle == 0 ? KVB_EINVAL
                                       : 0;
    if (refused != 0)
        return refused;
    uint64_t taken = take_number(fences);
    if (taken == 0) {
        (void)kvbi_cuda_fences_passed(fences, scope);
        taken = take_number(fences);
    }
    if (taken == 0) {
        kvbi_why_say(why, "%d fences of this manager are not reached, and no more can be kept",
                     KVBI_CUDA_FENCES);
        return kvbi_cuda_lost(fences->cuda) ? KVB_EDEVICE : KVB_EAGAIN;
    }
    cudaError_t error = record(fences, scope, fence, at(fences, taken)->event);
    set_recorded(fences, taken, error != cudaSuccess);
    if (error == cudaSuccess) {
        *number = taken;
        return 0;
    }
    kvbi_why_say(why, "the %s cannot be used here: %s (%d)", is_stream ? "stream" : "event",
                 cudaGetErrorName(error), (int)error);
    return kvbi_cuda_lost(fences->cuda) ? KVB_EDEVICE : KVB_EINVAL;
}

int kvbi_cuda_fences_import(struct kvbi_cuda_fences *fences, const struct kvb_fence *fence,
                            uint64_t *number, struct kvbi_why *why)
{
    struct kvbi_cuda_scope scope;
    *number = 0;
    if (kvbi_cuda_context_lost(fences->cuda))
        return KVB_EDEVICE;
    kvbi_cuda_enter(fences->cuda, &scope);
    int error = import(fences, &scope, fence, number, why);
    kvbi_cuda_leave(&scope);
    return error;
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------ */

/*
 * A number in between that is not recorded yet belongs to a call that has not returned: nobody can depend on it, so it is left out.
 * But then the stream has not waited for all up to there, and says so.
 */
cudaError_t kvbi_cuda_fences_wait(struct kvbi_cuda_fences *fences, cudaStream_t stream,
                                  uint64_t *waited, uint64_t number)
{
    bool without_gap = true;
    cudaError_t error = cudaSuccess;
    kvbi_lock_take(&fences->lock);
    uint64_t n = *waited + 1 > fences->first ? *waited + 1 : fences->first;
    kvbi_lock_release(&fences->lock);
    for (; error == cudaSuccess && n <= number; n++) {
        kvbi_lock_take(&fences->lock);
        bool recorded = at(fences, n)->recorded, refused = at(fences, n)->refused;
        kvbi_lock_release(&fences->lock);
        if (recorded && !refused)
            error = cudaStreamWaitEvent(stream, at(fences, n)->event, cudaEventWaitDefault);
        without_gap &= recorded;
        if (error == cudaSuccess && without_gap)
            *waited = n;
    }
    return error;
}

/* ---- Create and destroy ------------------------------------------------------------------------------------------- */

static cudaError_t create_events(struct kvbi_cuda_fences *fences, struct kvbi_cuda_scope *scope)
{
    cudaError_t error = cudaSuccess;
    for (; error == cudaSuccess && fences->created < KVBI_CUDA_FENCES;
         fences->created += error == cudaSuccess)
        error =
            kvbi_cuda_check(scope, cudaEventCreateWithFlags(&fences->ring[fences->created].event,
                                                            cudaEventDisableTiming));
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope,
                                cudaStreamCreateWithFlags(&fences->stream, cudaStreamNonBlocking));
    return error;
}

int kvbi_cuda_fences_create(struct kvbi_cuda_fences *fences, struct kvbi_cuda *cuda,
                            const struct kvbi_log *log)
{
    struct kvbi_cuda_scope scope;
    *fences = (struct kvbi_cuda_fences){.first = 1, .next = 1, .log = log};
    if (kvbi_lock_init(&fences->lock, KVBI_RANK_ENGINE) != 0)
        return KVB_ENOMEM;
    fences->cuda = cuda;
    fences->ring = kvbi_memory_alloc(cuda->memory, KVBI_CUDA_FENCES, sizeof *fences->ring, 0);
    cudaError_t error = cudaErrorMemoryAllocation;
    if (fences->ring != NULL) {
        kvbi_cuda_enter(cuda, &scope);
        error = create_events(fences, &scope);
        kvbi_cuda_leave(&scope);
    }
    if (error == cudaSuccess)
        return 0;
    kvbi_cuda_fences_destroy(fences);
    return error == cudaErrorMemoryAllocation ? KVB_ENOMEM : KVB_EDEVICE;
}

void kvbi_cuda_fences_destroy(struct kvbi_cuda_fences *fences)
{
    struct kvbi_cuda_scope scope;
    if (fences->cuda == NULL)
        return;
    if (!kvbi_cuda_context_lost(fences->cuda)) {
        kvbi_cuda_enter(fences->cuda, &scope);
        if (fences->stream != NULL)
            (void)kvbi_cuda_check(&scope, cudaStreamDestroy(fences->stream));
        while (fences->created > 0)
            (void)kvbi_cuda_check(&scope, cudaEventDestroy(fences->ring[--fences->created].event));
        kvbi_cuda_leave(&scope);
    }
    kvbi_memory_free(fences->cuda->memory, fences->ring, KVBI_CUDA_FENCES, sizeof *fences->ring);
    kvbi_lock_fini(&fences->lock);
    *fences = (struct kvbi_cuda_fences){0};
}
