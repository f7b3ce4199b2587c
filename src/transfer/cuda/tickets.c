/* SPDX-License-Identifier: Apache-2.0 */
/* tickets - see tickets.h. */
#include "transfer/cuda/tickets.h"

#include "transfer/cuda/cuda.h"

/* ---- Where we are ---------------------------------------------------------------------------- */

static struct kvbi_cuda_ticket *at(struct kvbi_cuda_tickets *tickets, uint64_t ticket)
{
    return &tickets->ring[ticket % KVBI_CUDA_TICKETS];
}

/*
 * The oldest ticket that is recorded and not known to be reached, with its event; NULL: it was
 * refused. False: there is none.
 */
static bool oldest(struct kvbi_cuda_tickets *tickets, uint64_t *ticket, cudaEvent_t *event)
{
    kvbi_lock_take(&tickets->lock);
    *ticket = tickets->first;
    bool recorded = tickets->first < tickets->next && at(tickets, tickets->first)->recorded;
    *event = recorded && !at(tickets, tickets->first)->refused ? at(tickets, tickets->first)->event
                                                               : NULL;
    kvbi_lock_release(&tickets->lock);
    return recorded;
}

static void pass(struct kvbi_cuda_tickets *tickets, uint64_t ticket, bool captured)
{
    kvbi_lock_take(&tickets->lock);
    if (tickets->first == ticket) {
        tickets->first++;
        tickets->of_events -= at(tickets, ticket)->of_event;
        if (captured)
            at(tickets, ticket)->captured = ticket;
        atomic_store_explicit(&tickets->reached, ticket, memory_order_release);
    }
    kvbi_lock_release(&tickets->lock);
}

/*
 * Passes what has been reached, up to the first whose event a capture has taken: that ticket, or 0.
 */
static uint64_t advance(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope)
{
    uint64_t ticket = 0;
    cudaEvent_t event;
    cudaError_t error = cudaSuccess;
    while (error == cudaSuccess && oldest(tickets, &ticket, &event)) {
        error = event != NULL ? kvbi_cuda_check_event(scope, cudaEventQuery(event)) : cudaSuccess;
        if (error == cudaSuccess)
            pass(tickets, ticket, false);
    }
    return kvbi_cuda_is_of_capture(error) ? ticket : 0;
}

uint64_t kvbi_cuda_tickets_passed(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope)
{
    uint64_t captured;
    while ((captured = advance(tickets, scope)) != 0) {
        kvbi_log(
            tickets->log, KVB_LOG_ERROR, KVB_EINVAL,
            "fence: its stream or event was being captured into a graph: what waits for it fails");
        pass(tickets, captured, true);
    }
    kvbi_lock_take(&tickets->lock);
    uint64_t passed = tickets->first - 1;
    kvbi_lock_release(&tickets->lock);
    return passed;
}

bool kvbi_cuda_tickets_captured(struct kvbi_cuda_tickets *tickets, uint64_t ticket)
{
    if (ticket == 0)
        return false;
    kvbi_lock_take(&tickets->lock);
    bool captured = at(tickets, ticket)->captured == ticket;
    kvbi_lock_release(&tickets->lock);
    return captured;
}

/* ---- Importing ------------------------------------------------------------------------------- */

/* The next ticket, or 0: the ring is full, or the stream that waits for events is. */
static uint64_t take_ticket(struct kvbi_cuda_tickets *tickets, bool of_event)
{
    kvbi_lock_take(&tickets->lock);
    bool room = tickets->next - tickets->first < KVBI_CUDA_TICKETS &&
                (!of_event || tickets->of_events < KVBI_CUDA_TICKETS_OF_EVENTS);
    uint64_t ticket = room ? tickets->next++ : 0;
    if (ticket != 0) {
        at(tickets, ticket)->recorded = at(tickets, ticket)->refused = false;
        at(tickets, ticket)->of_event = of_event;
        tickets->of_events += of_event;
    }
    kvbi_lock_release(&tickets->lock);
    return ticket;
}

static void set_recorded(struct kvbi_cuda_tickets *tickets, uint64_t ticket, bool refused)
{
    kvbi_lock_take(&tickets->lock);
    at(tickets, ticket)->recorded = true;
    at(tickets, ticket)->refused = refused;
    kvbi_lock_release(&tickets->lock);
}

/* cudaErrorStreamCaptureUnsupported: it is. */
static cudaError_t ask_capturing(const struct kvbi_cuda_tickets *tickets,
                                 struct kvbi_cuda_scope *scope, cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaError_t error =
        kvbi_cuda_check_foreign(scope, cudaStreamIsCapturing(stream, &status), tickets->stream);
    return error == cudaSuccess && status != cudaStreamCaptureStatusNone
               ? cudaErrorStreamCaptureUnsupported
               : error;
}

int kvbi_cuda_tickets_check_stream(const struct kvbi_cuda_tickets *tickets,
                                   struct kvbi_cuda_scope *scope, cudaStream_t stream,
                                   struct kvbi_why *why)
{
    cudaError_t error = ask_capturing(tickets, scope, stream);
    if (error == cudaSuccess)
        return 0;
    if (error == cudaErrorStreamCaptureImplicit)
        kvbi_why_say(why, "it is the legacy default stream, and a stream that synchronises with it "
                          "is being captured into a graph");
    else if (kvbi_cuda_is_of_capture(error))
        kvbi_why_say(why, "the stream is being captured into a graph");
    else
        kvbi_why_say(why, "it is no stream: %s (%d)", cudaGetErrorName(error), (int)error);
    return kvbi_cuda_lost(scope->cuda) ? KVB_EDEVICE : KVB_EINVAL;
}

/* Records `event` behind the fence, unless that puts it into a graph. */
static cudaError_t record(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope,
                          const struct kvb_fence *fence, cudaEvent_t event)
{
    cudaStream_t stream = tickets->stream;
    cudaError_t error = cudaSuccess;
    if (fence->kind == KVB_FENCE_CUDA_STREAM)
        stream = (cudaStream_t)(uintptr_t)fence->handle;
    else
        error = cudaStreamWaitEvent(stream, (cudaEvent_t)(uintptr_t)fence->handle,
                                    cudaEventWaitDefault);
    if (error == cudaSuccess)
        error = cudaEventRecord(event, stream);
    (void)kvbi_cuda_check_foreign(scope, error, tickets->stream);
    return error != cudaSuccess ? error : ask_capturing(tickets, scope, stream);
}

static int import(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope,
                  const struct kvb_fence *fence, uint64_t *ticket, struct kvbi_why *why)
{
    bool is_stream = fence->kind == KVB_FENCE_CUDA_STREAM;
    int refused = is_stream ? kvbi_cuda_tickets_check_stream(
                                  tickets, scope, (cudaStream_t)(uintptr_t)fence->handle, why)
                  : fence->handle == 0 ? KVB_EINVAL
                                       : 0;
    if (refused != 0)
        return refused;
    uint64_t taken = take_ticket(tickets, !is_stream);
    if (taken == 0) {
        (void)kvbi_cuda_tickets_passed(tickets, scope);
        taken = take_ticket(tickets, !is_stream);
    }
    if (taken == 0) {
        kvbi_why_say(why, "%d fences of this manager%s are not reached, and no more can be kept",
                     is_stream ? KVBI_CUDA_TICKETS : KVBI_CUDA_TICKETS_OF_EVENTS,
                     is_stream ? "" : " that are events");
        return kvbi_cuda_lost(tickets->cuda) ? KVB_EDEVICE : KVB_EAGAIN;
    }
    cudaError_t error = record(tickets, scope, fence, at(tickets, taken)->event);
    set_recorded(tickets, taken, error != cudaSuccess);
    if (error == cudaSuccess) {
        *ticket = taken;
        return 0;
    }
    kvbi_why_say(why, "the %s cannot be used here: %s (%d)", is_stream ? "stream" : "event",
                 cudaGetErrorName(error), (int)error);
    return kvbi_cuda_lost(tickets->cuda) ? KVB_EDEVICE : KVB_EINVAL;
}

int kvbi_cuda_tickets_import(struct kvbi_cuda_tickets *tickets, const struct kvb_fence *fence,
                             uint64_t *ticket, struct kvbi_why *why)
{
    struct kvbi_cuda_scope scope;
    *ticket = 0;
    if (kvbi_cuda_context_lost(tickets->cuda))
        return KVB_EDEVICE;
    kvbi_cuda_enter(tickets->cuda, &scope);
    int error = import(tickets, &scope, fence, ticket, why);
    kvbi_cuda_leave(&scope);
    return error;
}

/* ---- Waiting --------------------------------------------------------------------------------- */

/*
 * A ticket in between that is not recorded yet belongs to a call that has not returned: nobody can
 * depend on it, so it is left out. But then the stream has not waited for all up to there, and says
 * so.
 */
cudaError_t kvbi_cuda_tickets_wait(struct kvbi_cuda_tickets *tickets, cudaStream_t stream,
                                   uint64_t *waited, uint64_t ticket)
{
    bool without_gap = true;
    cudaError_t error = cudaSuccess;
    kvbi_lock_take(&tickets->lock);
    uint64_t n = *waited + 1 > tickets->first ? *waited + 1 : tickets->first;
    kvbi_lock_release(&tickets->lock);
    for (; error == cudaSuccess && n <= ticket; n++) {
        kvbi_lock_take(&tickets->lock);
        bool recorded = at(tickets, n)->recorded, refused = at(tickets, n)->refused;
        kvbi_lock_release(&tickets->lock);
        if (recorded && !refused)
            error = cudaStreamWaitEvent(stream, at(tickets, n)->event, cudaEventWaitDefault);
        without_gap &= recorded;
        if (error == cudaSuccess && without_gap)
            *waited = n;
    }
    return error;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static cudaError_t create_events(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope)
{
    cudaError_t error = cudaSuccess;
    for (; error == cudaSuccess && tickets->created < KVBI_CUDA_TICKETS;
         tickets->created += error == cudaSuccess)
        error =
            kvbi_cuda_check(scope, cudaEventCreateWithFlags(&tickets->ring[tickets->created].event,
                                                            cudaEventDisableTiming));
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope,
                                cudaStreamCreateWithFlags(&tickets->stream, cudaStreamNonBlocking));
    return error;
}

int kvbi_cuda_tickets_create(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda *cuda,
                             const struct kvbi_log *log)
{
    struct kvbi_cuda_scope scope;
    *tickets = (struct kvbi_cuda_tickets){.first = 1, .next = 1, .log = log};
    if (kvbi_lock_init(&tickets->lock, KVBI_RANK_ENGINE) != 0)
        return KVB_ENOMEM;
    tickets->cuda = cuda;
    tickets->ring = kvbi_memory_alloc(cuda->memory, KVBI_CUDA_TICKETS, sizeof *tickets->ring, 0);
    cudaError_t error = cudaErrorMemoryAllocation;
    if (tickets->ring != NULL) {
        kvbi_cuda_enter(cuda, &scope);
        error = create_events(tickets, &scope);
        kvbi_cuda_leave(&scope);
    }
    if (error == cudaSuccess)
        return 0;
    kvbi_cuda_tickets_destroy(tickets);
    return error == cudaErrorMemoryAllocation ? KVB_ENOMEM : KVB_EDEVICE;
}

void kvbi_cuda_tickets_destroy(struct kvbi_cuda_tickets *tickets)
{
    struct kvbi_cuda_scope scope;
    if (tickets->cuda == NULL)
        return;
    if (!kvbi_cuda_context_lost(tickets->cuda)) {
        kvbi_cuda_enter(tickets->cuda, &scope);
        if (tickets->stream != NULL)
            (void)kvbi_cuda_check(&scope, cudaStreamDestroy(tickets->stream));
        while (tickets->created > 0)
            (void)kvbi_cuda_check(&scope,
                                  cudaEventDestroy(tickets->ring[--tickets->created].event));
        kvbi_cuda_leave(&scope);
    }
    kvbi_memory_free(tickets->cuda->memory, tickets->ring, KVBI_CUDA_TICKETS,
                     sizeof *tickets->ring);
    kvbi_lock_fini(&tickets->lock);
    *tickets = (struct kvbi_cuda_tickets){0};
}
