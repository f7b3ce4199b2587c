/* SPDX-License-Identifier: Apache-2.0 */
/* tickets - see tickets.h. */
#include "transfer/cuda/tickets.h"

#include "base/bands.h"
#include "transfer/cuda/cuda.h"

/* How many events of a line are looked up in one hold of the lock. */
#define WAIT_BATCH 16u
/* A stream of ours waits for the server's, and records one of ours. */
#define EVENT_ENTRIES 2u

static struct kvbi_cuda_ticket *at(struct kvbi_cuda_tickets *tickets, uint64_t number)
{
    return &tickets->ring[number % KVBI_CUDA_TICKETS];
}

static uint64_t ticket_of(uint32_t line, uint64_t number)
{
    return kvbi_ticket(KVBI_LINE_STREAM + line, number);
}

/* ---- Where the lines are --------------------------------------------------------------------- */

/*
 * The line's oldest ticket, if it is recorded, with its event; NULL: it was refused. False: there
 * is none.
 */
static bool oldest(struct kvbi_cuda_tickets *tickets, uint32_t line, uint64_t *number,
                   cudaEvent_t *event)
{
    kvbi_lock_take(&tickets->lock);
    const struct kvbi_cuda_line *l = &tickets->all[line];
    const struct kvbi_cuda_ticket *first = l->count > 0 ? &tickets->ring[l->first] : NULL;
    bool recorded = first != NULL && first->recorded;
    *number = recorded ? first->number : 0;
    *event = recorded && !first->refused ? first->event : NULL;
    kvbi_lock_release(&tickets->lock);
    return recorded;
}

/* Unless another thread has meanwhile, which has also looked. */
static void pass(struct kvbi_cuda_tickets *tickets, uint32_t line, uint64_t number, bool captured)
{
    kvbi_lock_take(&tickets->lock);
    struct kvbi_cuda_line *l = &tickets->all[line];
    struct kvbi_cuda_ticket *first = l->count > 0 ? &tickets->ring[l->first] : NULL;
    if (first != NULL && first->number == number) {
        l->first = first->next;
        l->count--;
        l->entries -= first->entries;
        tickets->pending--;
        first->number = 0;
        if (captured)
            kvbi_lines_capture(tickets->lines, ticket_of(line, number));
        (void)kvbi_lines_advance(tickets->lines, KVBI_LINE_STREAM + line, number);
    }
    kvbi_lock_release(&tickets->lock);
}

static void look_at(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope, uint32_t line)
{
    uint64_t number;
    cudaEvent_t event;
    while (oldest(tickets, line, &number, &event)) {
        cudaError_t error =
            event != NULL ? kvbi_cuda_check_event(scope, cudaEventQuery(event)) : cudaSuccess;
        bool captured = kvbi_cuda_is_of_capture(error);
        if (error != cudaSuccess && !captured)
            return;
        if (captured)
            kvbi_log(tickets->log, KVB_LOG_ERROR, KVB_EINVAL,
                     "fence: its stream or event was being captured into a graph: what waits for "
                     "it fails");
        pass(tickets, line, number, captured);
    }
}

void kvbi_cuda_tickets_look(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope)
{
    uint64_t busy = 0;
    kvbi_lock_take(&tickets->lock);
    for (uint32_t i = 0; i < KVBI_LINE_STREAMS && tickets->pending > 0; i++)
        busy |= (uint64_t)(tickets->all[i].count > 0) << i;
    kvbi_lock_release(&tickets->lock);
    for (; busy != 0; busy &= busy - 1)
        look_at(tickets, scope, (uint32_t)__builtin_ctzll(busy));
}

/* ---- Importing ------------------------------------------------------------------------------- */

/* The stream's; or one that nobody uses, that of the longest time ago; or that of ours. */
static uint32_t line_of_locked(struct kvbi_cuda_tickets *tickets, cudaStream_t stream)
{
    kvbi_lock_assert_held(&tickets->lock);
    uint32_t idle = KVBI_NONE;
    for (uint32_t i = KVBI_CUDA_OWN_LINES; i < KVBI_LINE_STREAMS; i++) {
        const struct kvbi_cuda_line *line = &tickets->all[i];
        if (line->used != 0 && line->stream == stream)
            return i;
        if (line->count == 0 && (idle == KVBI_NONE || line->used < tickets->all[idle].used))
            idle = i;
    }
    if (idle == KVBI_NONE)
        return KVBI_CUDA_LINE_BOTH;
    tickets->all[idle].stream = stream;
    return idle;
}

/*
 * Behind the line's others. 0: all places of the ring are taken, or too many entries of its stream.
 */
static uint64_t take_locked(struct kvbi_cuda_tickets *tickets, uint32_t line, uint32_t entries)
{
    kvbi_lock_assert_held(&tickets->lock);
    struct kvbi_cuda_line *l = &tickets->all[line];
    if (tickets->pending == KVBI_CUDA_TICKETS ||
        (entries > 0 && l->entries + entries > KVBI_CUDA_OWN_ENTRIES))
        return 0;
    while (at(tickets, tickets->next)->number != 0)
        tickets->next++;
    uint64_t number = tickets->next++;
    uint32_t place = (uint32_t)(number % KVBI_CUDA_TICKETS);
    struct kvbi_cuda_ticket *ticket = &tickets->ring[place];
    ticket->number = number;
    ticket->next = KVBI_NONE;
    ticket->recorded = ticket->refused = false;
    ticket->entries = entries;
    l->entries += entries;
    if (l->count++ == 0)
        l->first = place;
    else
        tickets->ring[l->last].next = place;
    l->last = place;
    l->used = number;
    tickets->pending++;
    return number;
}

/* Where a ticket goes, and behind which stream its event is recorded. */
struct place {
    uint64_t number; /* 0: there is none */
    uint32_t line;
    cudaStream_t stream;
};

/* A point of a stream of the server's. */
static struct place take(struct kvbi_cuda_tickets *tickets, cudaStream_t server)
{
    struct place place = {.stream = server};
    kvbi_lock_take(&tickets->lock);
    place.line = line_of_locked(tickets, server);
    place.number = take_locked(tickets, place.line, 0);
    kvbi_lock_release(&tickets->lock);
    return place;
}

/* One for which the stream of ours that has this line is to wait, with so many entries. */
static struct place take_own(struct kvbi_cuda_tickets *tickets, uint32_t line, uint32_t entries)
{
    struct place place = {.line = line, .stream = tickets->all[line].stream};
    kvbi_lock_take(&tickets->lock);
    place.number = take_locked(tickets, line, entries);
    kvbi_lock_release(&tickets->lock);
    return place;
}

/* Of a fence of one of CUDA's kinds. */
static struct place take_for(struct kvbi_cuda_tickets *tickets, const struct kvb_fence *fence)
{
    return fence->kind == KVB_FENCE_CUDA_STREAM
               ? take(tickets, (cudaStream_t)(uintptr_t)fence->handle)
               : take_own(tickets, KVBI_CUDA_LINE_EVENTS, EVENT_ENTRIES);
}

static void set_recorded(struct kvbi_cuda_tickets *tickets, uint64_t number, bool refused)
{
    kvbi_lock_take(&tickets->lock);
    at(tickets, number)->recorded = true;
    at(tickets, number)->refused = refused;
    kvbi_lock_release(&tickets->lock);
}

/* cudaErrorStreamCaptureUnsupported: it is. */
static cudaError_t ask_capturing(const struct kvbi_cuda_tickets *tickets,
                                 struct kvbi_cuda_scope *scope, cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaError_t error = kvbi_cuda_check_foreign(scope, cudaStreamIsCapturing(stream, &status),
                                                kvbi_cuda_tickets_own(tickets));
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

/* Records the ticket's event behind the fence, unless that puts it into a graph. */
static cudaError_t record(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope,
                          const struct kvb_fence *fence, const struct place *place)
{
    cudaError_t error = cudaSuccess;
    if (fence->kind == KVB_FENCE_CUDA_EVENT)
        error = cudaStreamWaitEvent(place->stream, (cudaEvent_t)(uintptr_t)fence->handle,
                                    cudaEventWaitDefault);
    if (error == cudaSuccess)
        error = cudaEventRecord(at(tickets, place->number)->event, place->stream);
    (void)kvbi_cuda_check_foreign(scope, error, kvbi_cuda_tickets_own(tickets));
    return error != cudaSuccess ? error : ask_capturing(tickets, scope, place->stream);
}

static int import(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope,
                  const struct kvb_fence *fence, uint64_t *ticket, struct kvbi_why *why)
{
    bool is_stream = fence->kind == KVB_FENCE_CUDA_STREAM;
    cudaStream_t stream = is_stream ? (cudaStream_t)(uintptr_t)fence->handle : NULL;
    int refused = is_stream            ? kvbi_cuda_tickets_check_stream(tickets, scope, stream, why)
                  : fence->handle == 0 ? KVB_EINVAL
                                       : 0;
    if (refused != 0)
        return refused;
    struct place place = take_for(tickets, fence);
    if (place.number == 0) {
        kvbi_cuda_tickets_look(tickets, scope);
        place = take_for(tickets, fence);
    }
    if (place.number == 0) {
        kvbi_why_say(why,
                     "%d fences of this manager, or %d that are events, are not reached, and "
                     "no more can be kept",
                     KVBI_CUDA_TICKETS, KVBI_CUDA_OWN_ENTRIES / EVENT_ENTRIES);
        return kvbi_cuda_lost(tickets->cuda) ? KVB_EDEVICE : KVB_EAGAIN;
    }
    cudaError_t error = record(tickets, scope, fence, &place);
    set_recorded(tickets, place.number, error != cudaSuccess);
    if (error == cudaSuccess) {
        *ticket = ticket_of(place.line, place.number);
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

struct found {
    uint32_t count;
    bool gap; /* before the last of them is one that is not recorded */
    uint64_t last;
    cudaEvent_t events[WAIT_BATCH];
};

/*
 * Events of the line's tickets in (after, until], the first ones. A ticket in between that is not
 * recorded yet belongs to a call that has not returned: nobody can depend on it, so it is left out.
 */
static void find(struct kvbi_cuda_tickets *tickets, uint32_t line, uint64_t after, uint64_t until,
                 struct found *found)
{
    *found = (struct found){.last = until};
    kvbi_lock_take(&tickets->lock);
    const struct kvbi_cuda_line *l = &tickets->all[line];
    uint32_t place = l->first;
    for (uint32_t n = 0; n < l->count && tickets->ring[place].number <= until; n++) {
        const struct kvbi_cuda_ticket *ticket = &tickets->ring[place];
        place = ticket->next;
        if (ticket->number <= after)
            continue;
        if (found->count == WAIT_BATCH)
            break;
        found->gap |= !ticket->recorded;
        if (ticket->recorded && !ticket->refused) {
            found->events[found->count++] = ticket->event;
            found->last = found->count == WAIT_BATCH ? ticket->number : until;
        }
    }
    kvbi_lock_release(&tickets->lock);
}

cudaError_t kvbi_cuda_tickets_wait(struct kvbi_cuda_tickets *tickets, cudaStream_t stream,
                                   struct kvbi_cuda_waited *waited, uint64_t ticket)
{
    uint32_t line = kvbi_cuda_line_of(ticket);
    uint64_t until = kvbi_ticket_number(ticket), after = waited->numbers[line];
    cudaError_t error = cudaSuccess;
    bool gap = false;
    while (error == cudaSuccess && after < until) {
        struct found found;
        find(tickets, line, after, until, &found);
        for (uint32_t i = 0; i < found.count && error == cudaSuccess; i++)
            error = cudaStreamWaitEvent(stream, found.events[i], cudaEventWaitDefault);
        gap |= found.gap;
        after = found.last;
        if (error == cudaSuccess && !gap)
            waited->numbers[line] = after;
    }
    return error;
}

static bool has_waited(const struct kvbi_cuda_waited *waited, uint64_t ticket)
{
    return waited->numbers[kvbi_cuda_line_of(ticket)] >= kvbi_ticket_number(ticket);
}

uint32_t kvbi_cuda_tickets_count(const struct kvbi_cuda_tickets *tickets,
                                 const struct kvbi_cuda_waited *waited, uint64_t ticket)
{
    if (ticket == 0 || has_waited(waited, ticket))
        return 0;
    return atomic_load(&tickets->all[kvbi_cuda_line_of(ticket)].count);
}

/* Of both for others too; not if a ticket before them was not recorded: another may wait for it. */
static void remember(struct kvbi_cuda_tickets *tickets, const struct kvbi_cuda_waited *waited,
                     uint64_t a, uint64_t b, uint64_t ticket)
{
    if (!has_waited(waited, a) || !has_waited(waited, b))
        return;
    kvbi_lock_take(&tickets->lock);
    tickets->last_both.a = a, tickets->last_both.b = b, tickets->last_both.ticket = ticket;
    kvbi_lock_release(&tickets->lock);
}

static uint64_t remembered(struct kvbi_cuda_tickets *tickets, uint64_t a, uint64_t b)
{
    kvbi_lock_take(&tickets->lock);
    bool same = tickets->last_both.a == a && tickets->last_both.b == b;
    uint64_t ticket = same ? tickets->last_both.ticket : 0;
    kvbi_lock_release(&tickets->lock);
    return ticket;
}

static cudaError_t record_behind(struct kvbi_cuda_tickets *tickets, const struct place *place,
                                 struct kvbi_cuda_waited *waited, uint64_t a, uint64_t b)
{
    cudaError_t error = kvbi_cuda_tickets_wait(tickets, place->stream, waited, a);
    if (error == cudaSuccess)
        error = kvbi_cuda_tickets_wait(tickets, place->stream, waited, b);
    return error == cudaSuccess ? cudaEventRecord(at(tickets, place->number)->event, place->stream)
                                : error;
}

uint64_t kvbi_cuda_tickets_both(struct kvbi_cuda_tickets *tickets, uint64_t a, uint64_t b)
{
    struct kvbi_cuda_scope scope;
    struct kvbi_cuda_waited waited = {{0}};
    uint64_t ticket = remembered(tickets, a, b);
    if (ticket != 0 || kvbi_cuda_context_lost(tickets->cuda))
        return ticket;
    kvbi_cuda_enter(tickets->cuda, &scope);
    uint32_t waits =
        kvbi_cuda_tickets_count(tickets, &waited, a) + kvbi_cuda_tickets_count(tickets, &waited, b);
    struct place place = take_own(tickets, KVBI_CUDA_LINE_BOTH, waits + 1);
    if (place.number != 0) {
        cudaError_t error = kvbi_cuda_check(&scope, record_behind(tickets, &place, &waited, a, b));
        set_recorded(tickets, place.number, error != cudaSuccess);
        ticket = error == cudaSuccess ? ticket_of(place.line, place.number) : 0;
    }
    kvbi_cuda_leave(&scope);
    if (ticket != 0)
        remember(tickets, &waited, a, b, ticket);
    return ticket;
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
    for (uint32_t i = 0; error == cudaSuccess && i < KVBI_CUDA_OWN_LINES; i++)
        error = kvbi_cuda_check(
            scope, cudaStreamCreateWithFlags(&tickets->all[i].stream, cudaStreamNonBlocking));
    return error;
}

int kvbi_cuda_tickets_create(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda *cuda,
                             struct kvbi_lines *lines, const struct kvbi_log *log)
{
    struct kvbi_cuda_scope scope;
    *tickets = (struct kvbi_cuda_tickets){.next = 1, .lines = lines, .log = log};
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
        for (uint32_t i = 0; i < KVBI_CUDA_OWN_LINES; i++)
            if (tickets->all[i].stream != NULL)
                (void)kvbi_cuda_check(&scope, cudaStreamDestroy(tickets->all[i].stream));
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
