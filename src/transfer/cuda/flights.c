/* SPDX-License-Identifier: Apache-2.0 */
/* flights - see flights.h. */
#include "transfer/cuda/flights.h"

/* What all registered buffers take together, unless one block is larger. */
#define BOUNCE_BYTES ((uint64_t)32 << 20)

/* ---- Beginning ------------------------------------------------------------------------------- */

struct kvbi_flight *kvbi_flights_free(struct kvbi_flights *flights)
{
    for (uint32_t i = 0; i < KVBI_FLIGHTS; i++)
        if (!flights->all[i].running)
            return &flights->all[i];
    return NULL;
}

bool kvbi_cuda_tickets_merge(struct kvbi_tickets *tickets, uint64_t ticket)
{
    uint64_t *both[2] = {&tickets->source, &tickets->target};
    for (uint32_t i = 0; i < 2; i++) {
        if (*both[i] != 0 && kvbi_ticket_line(*both[i]) != kvbi_ticket_line(ticket))
            continue;
        if (ticket > *both[i])
            *both[i] = ticket;
        return true;
    }
    return ticket == 0;
}

/* Bits of the lines that they are on. */
static uint64_t lines_of(struct kvbi_tickets tickets)
{
    uint64_t bits = 0;
    if (tickets.source != 0)
        bits |= UINT64_C(1) << (kvbi_ticket_line(tickets.source) - KVBI_LINE_STREAM);
    if (tickets.target != 0)
        bits |= UINT64_C(1) << (kvbi_ticket_line(tickets.target) - KVBI_LINE_STREAM);
    return bits;
}

bool kvbi_cuda_tickets_on_same_lines(struct kvbi_tickets a, struct kvbi_tickets b)
{
    return lines_of(a) == lines_of(b);
}

uint32_t kvbi_flights_stream(struct kvbi_flights *flights, bool to_device,
                             struct kvbi_tickets tickets)
{
    const uint32_t free = KVBI_STREAMS_EACH_WAY - KVBI_STREAMS_WAITING;
    uint32_t first = to_device ? KVBI_STREAMS_EACH_WAY : 0, idle = KVBI_NONE;
    if (lines_of(tickets) == 0)
        return first + flights->next_stream[to_device]++ % free;
    for (uint32_t i = first + free; i < first + KVBI_STREAMS_EACH_WAY; i++) {
        const struct kvbi_flight_stream *stream = &flights->streams[i];
        if (stream->running > 0 && kvbi_cuda_tickets_on_same_lines(stream->tickets, tickets))
            return i;
        if (stream->running == 0 && idle == KVBI_NONE)
            idle = i;
    }
    return idle;
}

/* All layers at once, or each with its event behind it. */
static cudaError_t copy_by_plan(struct kvbi_flight *flight, struct kvbi_cuda_scope *scope,
                                const struct kvbi_flight_plan *plan, cudaStream_t stream)
{
    struct kvbi_cuda_load load = plan->load;
    enum kvb_copy_method method = plan->copier->methods[load.to_device];
    load.layers = plan->copier->strides->layers;
    if (!plan->layered)
        return kvbi_cuda_copy(plan->copier, scope, method, &load, stream);
    cudaError_t error = cudaSuccess;
    load.layers = 1;
    for (load.first = 0; error == cudaSuccess && load.first < plan->copier->strides->layers;
         load.first++) {
        error = kvbi_cuda_copy(plan->copier, scope, method, &load, stream);
        if (error == cudaSuccess)
            error = kvbi_cuda_check(scope, cudaEventRecord(flight->layers[load.first], stream));
    }
    return error;
}

/* Some of it may have got there: each block is copied once more, whole, and answers for itself. */
static void copy_one_by_one(struct kvbi_cuda_scope *scope, const struct kvbi_flight_plan *plan,
                            cudaStream_t stream, cudaError_t *errors)
{
    for (uint32_t i = 0; i < plan->load.count; i++) {
        struct kvbi_cuda_load one = {.pairs = &plan->load.pairs[i],
                                     .count = 1,
                                     .layers = plan->copier->strides->layers,
                                     .to_device = plan->load.to_device};
        errors[i] = kvbi_cuda_copy(plan->copier, scope, KVB_COPY_PLAIN, &one, stream);
    }
}

/* A ticket that cannot be waited for: nothing may be copied. */
static void refuse_all(const struct kvbi_flight_plan *plan, cudaError_t error, cudaError_t *errors)
{
    for (uint32_t i = 0; i < plan->load.count; i++)
        errors[i] = error;
}

void kvbi_flight_begin(struct kvbi_flights *flights, struct kvbi_flight *flight,
                       struct kvbi_cuda_scope *scope, const struct kvbi_flight_plan *plan,
                       cudaError_t *errors)
{
    flight->stream = plan->stream;
    flight->to_device = plan->load.to_device;
    flight->running = true;
    flight->result = 0;
    flights->running++;
    struct kvbi_flight_stream *stream = &flights->streams[flight->stream];
    if (stream->running++ == 0)
        stream->tickets = (struct kvbi_tickets){0};
    (void)kvbi_cuda_tickets_merge(&stream->tickets, plan->tickets.source);
    (void)kvbi_cuda_tickets_merge(&stream->tickets, plan->tickets.target);
    flight->tickets = stream->tickets;
    flight->bounces = plan->bounces;
    refuse_all(plan, cudaSuccess, errors);
    cudaError_t error = cudaSuccess;
    const uint64_t tickets[2] = {plan->tickets.source, plan->tickets.target};
    for (uint32_t i = 0; i < 2 && error == cudaSuccess; i++)
        if (tickets[i] != 0)
            error = kvbi_cuda_check(scope, kvbi_cuda_tickets_wait(plan->points, stream->stream,
                                                                  &stream->waited, tickets[i]));
    bool layered = plan->layered;
    if (error != cudaSuccess) {
        refuse_all(plan, error, errors);
    } else if (copy_by_plan(flight, scope, plan, stream->stream) != cudaSuccess) {
        copy_one_by_one(scope, plan, stream->stream, errors);
        layered = false;
    }
    bool by_stream =
        kvbi_cuda_check(scope, cudaEventRecord(flight->done, stream->stream)) != cudaSuccess;
    if (by_stream)
        flight->result = KVB_EIO; /* who has been told to wait for `done` waited for nothing */
    atomic_store_explicit(&flight->by_stream, by_stream, memory_order_release);
    atomic_store_explicit(&flight->layered, layered, memory_order_release);
}

/* ---- Ending ---------------------------------------------------------------------------------- */

struct kvbi_flight_witness kvbi_flight_witness(const struct kvbi_flights *flights,
                                               const struct kvbi_flight *flight)
{
    bool by_stream = atomic_load_explicit(&flight->by_stream, memory_order_acquire);
    return (struct kvbi_flight_witness){.done = by_stream ? NULL : flight->done,
                                        .stream = flights->streams[flight->stream].stream};
}

cudaError_t kvbi_flight_ask(struct kvbi_flight_witness witness, struct kvbi_cuda_scope *scope)
{
    if (witness.done != NULL) {
        cudaError_t error = kvbi_cuda_check_event(scope, cudaEventQuery(witness.done));
        if (error == cudaSuccess || error == cudaErrorNotReady)
            return error;
    }
    return kvbi_cuda_check_own(scope, cudaStreamQuery(witness.stream));
}

void kvbi_flight_wait(const struct kvbi_flights *flights, const struct kvbi_flight *flight,
                      struct kvbi_cuda_scope *scope)
{
    struct kvbi_flight_witness witness = kvbi_flight_witness(flights, flight);
    if (witness.done == NULL ||
        kvbi_cuda_check_event(scope, cudaEventSynchronize(witness.done)) != cudaSuccess)
        (void)kvbi_cuda_check_own(scope, cudaStreamSynchronize(witness.stream));
}

bool kvbi_flight_waits(const struct kvbi_flight *flight, const struct kvbi_lines *lines)
{
    return flight->running && !kvbi_tickets_reached(lines, flight->tickets);
}

struct kvbi_flights_waiting kvbi_flights_waiting(const struct kvbi_flights *flights,
                                                 const struct kvbi_lines *lines)
{
    struct kvbi_flights_waiting waiting = {0};
    for (uint32_t i = 0; i < KVBI_FLIGHTS; i++) {
        if (!kvbi_flight_waits(&flights->all[i], lines))
            continue;
        waiting.flights++;
        waiting.bounces += flights->all[i].bounces;
    }
    return waiting;
}

void kvbi_flight_land(struct kvbi_flights *flights, struct kvbi_flight *flight)
{
    flight->running = false;
    flights->running--;
    flights->streams[flight->stream].running--;
}

/* ---- Buffers --------------------------------------------------------------------------------- */

uint32_t kvbi_flights_take_bounce(struct kvbi_flights *flights)
{
    if (flights->bounce_free == 0)
        return KVBI_NONE;
    uint32_t index = (uint32_t)__builtin_ctz(flights->bounce_free);
    flights->bounce_free &= flights->bounce_free - 1;
    return index;
}

void kvbi_flights_give_bounce(struct kvbi_flights *flights, uint32_t index)
{
    flights->bounce_free |= 1u << index;
}

unsigned char *kvbi_flights_bounce(const struct kvbi_flights *flights, uint32_t index)
{
    return flights->bounce + index * flights->block_bytes;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static cudaError_t create_event(struct kvbi_cuda_scope *scope, cudaEvent_t *event)
{
    return kvbi_cuda_check(scope, cudaEventCreateWithFlags(event, cudaEventDisableTiming));
}

static cudaError_t create_all(struct kvbi_flights *flights, struct kvbi_cuda_scope *scope)
{
    cudaError_t error = cudaSuccess;
    void *bounce = NULL;
    for (uint32_t i = 0; error == cudaSuccess && i < KVBI_FLIGHTS; i++) {
        flights->all[i].layers = flights->layer_events + i * flights->layer_count;
        error = create_event(scope, &flights->all[i].done);
    }
    for (uint32_t i = 0; error == cudaSuccess && i < KVBI_FLIGHTS * flights->layer_count; i++)
        error = create_event(scope, &flights->layer_events[i]);
    for (uint32_t i = 0; error == cudaSuccess && i < 2 * KVBI_STREAMS_EACH_WAY; i++)
        error =
            kvbi_cuda_create_stream(scope, i >= KVBI_STREAMS_EACH_WAY, &flights->streams[i].stream);
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope,
                                cudaHostAlloc(&bounce, flights->bounce_count * flights->block_bytes,
                                              cudaHostAllocPortable | cudaHostAllocMapped));
    flights->bounce = bounce;
    return error;
}

int kvbi_flights_create(struct kvbi_flights *flights, struct kvbi_cuda *cuda, uint64_t block_bytes)
{
    struct kvbi_cuda_scope scope;
    uint64_t buffers = BOUNCE_BYTES / block_bytes;
    *flights = (struct kvbi_flights){
        .memory = cuda->memory, .layer_count = cuda->strides.layers, .block_bytes = block_bytes};
    flights->bounce_count = buffers < 1                        ? 1
                            : buffers > KVBI_BOUNCE_BLOCKS_MAX ? KVBI_BOUNCE_BLOCKS_MAX
                                                               : (uint32_t)buffers;
    flights->bounce_free = (1u << flights->bounce_count) - 1;
    flights->layer_events =
        kvbi_memory_alloc(cuda->memory, (size_t)KVBI_FLIGHTS * flights->layer_count,
                          sizeof *flights->layer_events, 0);
    if (flights->layer_events == NULL)
        return KVB_ENOMEM;
    flights->cuda = cuda;
    kvbi_cuda_enter(cuda, &scope);
    cudaError_t error = create_all(flights, &scope);
    kvbi_cuda_leave(&scope);
    if (error == cudaSuccess)
        return 0;
    kvbi_flights_destroy(flights);
    return error == cudaErrorMemoryAllocation ? KVB_ENOMEM : KVB_EDEVICE;
}

static void destroy_event(struct kvbi_cuda_scope *scope, cudaEvent_t event)
{
    if (event != NULL)
        (void)kvbi_cuda_check(scope, cudaEventDestroy(event));
}

void kvbi_flights_destroy(struct kvbi_flights *flights)
{
    struct kvbi_cuda_scope scope;
    if (flights->cuda == NULL)
        return;
    if (!kvbi_cuda_context_lost(flights->cuda)) {
        kvbi_cuda_enter(flights->cuda, &scope);
        for (uint32_t i = 0; i < 2 * KVBI_STREAMS_EACH_WAY; i++)
            if (flights->streams[i].stream != NULL)
                (void)kvbi_cuda_check(&scope, cudaStreamDestroy(flights->streams[i].stream));
        for (uint32_t i = 0; i < KVBI_FLIGHTS; i++)
            destroy_event(&scope, flights->all[i].done);
        for (uint32_t i = 0; i < KVBI_FLIGHTS * flights->layer_count; i++)
            destroy_event(&scope, flights->layer_events[i]);
        if (flights->bounce != NULL)
            (void)kvbi_cuda_check(&scope, cudaFreeHost(flights->bounce));
        kvbi_cuda_leave(&scope);
    }
    kvbi_memory_free(flights->memory, flights->layer_events,
                     (size_t)KVBI_FLIGHTS * flights->layer_count, sizeof *flights->layer_events);
    *flights = (struct kvbi_flights){0};
}
