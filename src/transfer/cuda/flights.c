/* SPDX-License-Identifier: Apache-2.0 */
/* flights - see flights.h. */
#include "transfer/cuda/flights.h"

/* What all registered buffers take together, unless one block is larger. */
#define BOUNCE_BYTES ((uint64_t)32 << 20)
/* A word and an event. */
#define ENDS 2u
/* Less than the entries after which a call waits, whatever was there before. */
#define STREAM_TAKES 900u

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

/* Of those that run what they have at once. */
static uint32_t emptier_stream(const struct kvbi_flights *flights, bool to_device)
{
    const uint32_t each = KVBI_STREAMS_EACH_WAY - KVBI_STREAMS_WAITING;
    uint32_t first = to_device ? KVBI_STREAMS_EACH_WAY : 0,
             chosen = first + flights->next_stream[to_device] % each;
    for (uint32_t i = first; i < first + each; i++)
        if (flights->streams[i].entries < flights->streams[chosen].entries)
            chosen = i;
    return chosen;
}

uint32_t kvbi_flights_stream(const struct kvbi_flights *flights, bool to_device,
                             struct kvbi_tickets tickets)
{
    uint32_t end = to_device ? 2 * KVBI_STREAMS_EACH_WAY : KVBI_STREAMS_EACH_WAY, idle = KVBI_NONE;
    if (lines_of(tickets) == 0)
        return emptier_stream(flights, to_device);
    for (uint32_t i = end - KVBI_STREAMS_WAITING; i < end; i++) {
        const struct kvbi_flight_stream *stream = &flights->streams[i];
        if (stream->flights > 0 && kvbi_cuda_tickets_on_same_lines(stream->tickets, tickets))
            return i;
        if (stream->flights == 0 && idle == KVBI_NONE)
            idle = i;
    }
    return idle;
}

uint32_t kvbi_flights_room(const struct kvbi_flights *flights, uint32_t stream)
{
    uint32_t entries = flights->streams[stream].entries;
    return entries < KVBI_STREAM_ENTRIES ? KVBI_STREAM_ENTRIES - entries : 0;
}

/* Events that the stream has to wait for, one by one. */
static uint32_t waits_of(const struct kvbi_flight_stream *stream,
                         const struct kvbi_flight_plan *plan)
{
    return kvbi_cuda_tickets_count(plan->points, &stream->waited, plan->tickets.source) +
           kvbi_cuda_tickets_count(plan->points, &stream->waited, plan->tickets.target);
}

uint64_t kvbi_flights_entries(const struct kvbi_flights *flights,
                              const struct kvbi_flight_plan *plan, uint32_t blocks)
{
    const struct kvbi_cuda_copier *copier = plan->copier;
    enum kvb_copy_method method = copier->methods[plan->load.to_device];
    uint32_t layers = copier->strides->layers;
    uint64_t copies = plan->layered
                          ? layers * (kvbi_cuda_copy_entries(copier, method, blocks, 1) + 1)
                          : kvbi_cuda_copy_entries(copier, method, blocks, layers);
    return waits_of(&flights->streams[plan->stream], plan) + copies + ENDS;
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
        flight->entries += error == cudaSuccess;
    }
    return error;
}

/*
 * Some of it may have got there: each block is copied once more, whole, and answers for itself. But
 * what would make the caller wait for the stream is not: it has failed already.
 */
static void copy_one_by_one(struct kvbi_cuda_scope *scope, const struct kvbi_flight_plan *plan,
                            cudaStream_t stream, uint32_t entries, cudaError_t failed,
                            cudaError_t *errors)
{
    uint32_t layers = plan->copier->strides->layers, before = plan->copier->entries;
    uint64_t each = kvbi_cuda_copy_entries(plan->copier, KVB_COPY_PLAIN, 1, layers);
    for (uint32_t i = 0; i < plan->load.count; i++) {
        errors[i] = failed;
        if (entries + (plan->copier->entries - before) + each + ENDS > STREAM_TAKES)
            continue;
        struct kvbi_cuda_load one = {.pairs = &plan->load.pairs[i],
                                     .count = 1,
                                     .layers = layers,
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

/* It is running from here on, with nothing on its stream yet. */
static void start(struct kvbi_flights *flights, struct kvbi_flight *flight,
                  const struct kvbi_flight_plan *plan)
{
    struct kvbi_flight_stream *stream = &flights->streams[plan->stream];
    flight->stream = plan->stream;
    flight->to_device = plan->load.to_device;
    flight->running = true;
    flight->result = 0;
    flight->entries = 0;
    flight->bounces = plan->bounces;
    flight->number++;
    flights->running++;
    flights->next_stream[flight->to_device] += !kvbi_flights_stream_waits(plan->stream);
    if (stream->flights++ == 0) {
        atomic_store_explicit(&stream->asked_ns, plan->now_ns, memory_order_relaxed);
        stream->tickets = (struct kvbi_tickets){0};
    }
    (void)kvbi_cuda_tickets_merge(&stream->tickets, plan->tickets.source);
    (void)kvbi_cuda_tickets_merge(&stream->tickets, plan->tickets.target);
    flight->tickets = stream->tickets;
}

static cudaError_t wait_for_tickets(struct kvbi_flight_stream *stream,
                                    struct kvbi_cuda_scope *scope,
                                    const struct kvbi_flight_plan *plan)
{
    const uint64_t tickets[2] = {plan->tickets.source, plan->tickets.target};
    cudaError_t error = cudaSuccess;
    for (uint32_t i = 0; i < 2 && error == cudaSuccess; i++)
        if (tickets[i] != 0)
            error = kvbi_cuda_check(scope, kvbi_cuda_tickets_wait(plan->points, stream->stream,
                                                                  &stream->waited, tickets[i]));
    return error;
}

/* Where and by what it will be seen to be over. */
static void end(struct kvbi_flights *flights, struct kvbi_flight *flight,
                struct kvbi_cuda_scope *scope, cudaStream_t stream, bool layered)
{
    flight->by_word = kvbi_cuda_words_write(
        &flights->words, scope, (uint32_t)(flight - flights->all), flight->number, stream);
    bool by_stream = kvbi_cuda_check(scope, cudaEventRecord(flight->done, stream)) != cudaSuccess;
    if (by_stream)
        flight->result = KVB_EIO; /* who has been told to wait for `done` waited for nothing */
    flight->entries += (uint32_t)flight->by_word + !by_stream;
    atomic_store_explicit(&flight->by_stream, by_stream, memory_order_release);
    atomic_store_explicit(&flight->layered, layered, memory_order_release);
}

void kvbi_flight_begin(struct kvbi_flights *flights, struct kvbi_flight *flight,
                       struct kvbi_cuda_scope *scope, const struct kvbi_flight_plan *plan,
                       cudaError_t *errors)
{
    struct kvbi_flight_stream *stream = &flights->streams[plan->stream];
    uint32_t before = plan->copier->entries;
    uint32_t waits = waits_of(stream, plan);
    bool layered = plan->layered;
    start(flights, flight, plan);
    refuse_all(plan, cudaSuccess, errors);
    cudaError_t error = wait_for_tickets(stream, scope, plan);
    flight->entries = waits;
    if (error != cudaSuccess) {
        refuse_all(plan, error, errors);
    } else if ((error = copy_by_plan(flight, scope, plan, stream->stream)) != cudaSuccess) {
        copy_one_by_one(scope, plan, stream->stream,
                        stream->entries + flight->entries + plan->copier->entries - before, error,
                        errors);
        layered = false;
    }
    end(flights, flight, scope, stream->stream, layered);
    flight->entries += plan->copier->entries - before;
    stream->entries += flight->entries;
}

/* ---- Ending ---------------------------------------------------------------------------------- */

struct kvbi_flight_witness kvbi_flight_witness(const struct kvbi_flights *flights,
                                               const struct kvbi_flight *flight)
{
    bool by_stream = atomic_load_explicit(&flight->by_stream, memory_order_acquire);
    return (struct kvbi_flight_witness){.done = by_stream ? NULL : flight->done,
                                        .stream = flights->streams[flight->stream].stream,
                                        .on = flight->stream,
                                        .word = (uint32_t)(flight - flights->all),
                                        .number = flight->number,
                                        .by_word = flight->by_word};
}

bool kvbi_flight_seen(const struct kvbi_flights *flights, struct kvbi_flight_witness witness)
{
    return witness.by_word && kvbi_cuda_words_has(&flights->words, witness.word, witness.number);
}

bool kvbi_flight_may_ask(struct kvbi_flights *flights, struct kvbi_flight_witness witness,
                         uint64_t now_ns, bool anyway)
{
    _Atomic uint64_t *asked_ns = &flights->streams[witness.on].asked_ns;
    uint64_t pause = witness.by_word ? KVBI_ASK_NS : KVBI_ASK_WITHOUT_WORD_NS;
    uint64_t before = atomic_load_explicit(asked_ns, memory_order_relaxed);
    if (!anyway && before != 0 && now_ns < before + pause)
        return false;
    return atomic_compare_exchange_strong_explicit(asked_ns, &before, now_ns, memory_order_relaxed,
                                                   memory_order_relaxed) ||
           anyway;
}

void kvbi_flight_ask_again(struct kvbi_flights *flights, struct kvbi_flight_witness witness)
{
    atomic_store_explicit(&flights->streams[witness.on].asked_ns, 0, memory_order_relaxed);
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
    flights->streams[flight->stream].flights--;
    flights->streams[flight->stream].entries -= flight->entries;
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
    if (error == cudaSuccess)
        error = kvbi_cuda_words_create(&flights->words, scope, KVBI_FLIGHTS,
                                       flights->streams[0].stream);
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
        kvbi_cuda_words_destroy(&flights->words, &scope);
        kvbi_cuda_leave(&scope);
    }
    kvbi_memory_free(flights->memory, flights->layer_events,
                     (size_t)KVBI_FLIGHTS * flights->layer_count, sizeof *flights->layer_events);
    *flights = (struct kvbi_flights){0};
}
