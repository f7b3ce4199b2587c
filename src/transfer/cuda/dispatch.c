/* SPDX-License-Identifier: Apache-2.0 */
/* dispatch - see dispatch.h. */
#include "transfer/cuda/dispatch.h"

#include <string.h>

#include "base/hooks.h"
#include "transfer/cuda/registration.h"

static bool to_device(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    return copy->to == e->device;
}

void kvbi_cuda_set_writer(struct kvbi_cuda_engine *e, const struct kvbi_copy *copy, uint32_t writer)
{
    if (to_device(e, copy))
        atomic_store_explicit(&e->writers[copy->to_slot], (uint8_t)writer, memory_order_release);
}

struct batch {
    struct kvbi_copy_list items;
    struct kvbi_cuda_pair pairs[KVBI_FLIGHT_BLOCKS_MAX];
    uint32_t indices[KVBI_FLIGHT_BLOCKS_MAX];
    uint32_t count; /* of pairs: items less those that fail at once */
    uint32_t bounces;
    struct kvbi_tickets tickets; /* that its stream waits for */
    uint32_t stream;
};

static bool host_is_registered(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    const struct kvbi_tier *host = to_device(e, copy) ? copy->from : copy->to;
    return kvbi_cuda_registration_covers(kvbi_cuda_registration_of(host),
                                         to_device(e, copy) ? copy->from_slot : copy->to_slot);
}

static unsigned char *host_address(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    return to_device(e, copy) ? kvbi_tier_address(copy->from, copy->from_slot)
                              : kvbi_tier_address(copy->to, copy->to_slot);
}

static const void *host_registration(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    const struct kvbi_tier *host = to_device(e, copy) ? copy->from : copy->to;
    return kvbi_cuda_registration_piece(kvbi_cuda_registration_of(host),
                                        to_device(e, copy) ? copy->from_slot : copy->to_slot);
}

/* ---- Deferred -------------------------------------------------------------------------------- */

/*
 * A step of the server may last, and delays nobody: of everything, half stays for what need not
 * wait, and of that half as much again for what is urgent and must.
 */
static bool may_wait(const struct kvbi_cuda_engine *e, struct kvbi_flights_waiting waiting,
                     bool by_bounce, bool urgent)
{
    uint32_t quarters = urgent ? 3 : 2;
    return waiting.flights < KVBI_FLIGHTS * quarters / 4 &&
           (!by_bounce || waiting.bounces < e->flights.bounce_count * quarters / 4);
}

static void defer_locked(struct kvbi_cuda_engine *e, uint32_t index)
{
    const struct kvbi_copy_item *item = &e->queue.items[index];
    kvbi_awaited_add_both(&e->awaited, e->queue.lines, item->copy.tickets);
    kvbi_copy_push_locked(&e->queue, &e->deferred[item->urgent], index);
}

void kvbi_cuda_resume_locked(struct kvbi_cuda_engine *e)
{
    kvbi_lock_assert_held(&e->queue.lock);
    for (uint32_t urgent = 0; urgent < 2; urgent++) {
        kvbi_copy_append_locked(&e->queue, &e->deferred[urgent], &e->queue.ready[urgent]);
        kvbi_copy_append_locked(&e->queue, &e->queue.ready[urgent], &e->deferred[urgent]);
    }
    kvbi_awaited_clear(&e->awaited);
    e->landed = false;
}

/* ---- Into a flight --------------------------------------------------------------------------- */

/* Of its tickets those that are not reached and that a stream can wait for. */
static struct kvbi_tickets stream_tickets(const struct kvbi_cuda_engine *e,
                                          const struct kvbi_copy *copy)
{
    const uint64_t both[2] = {copy->tickets.source, copy->tickets.target};
    struct kvbi_tickets tickets = {0};
    for (uint32_t i = 0; i < 2; i++)
        if (kvbi_ticket_is_stream(both[i]) && !kvbi_ticket_reached(e->queue.lines, both[i]))
            (void)kvbi_cuda_tickets_merge(&tickets, both[i]);
    return tickets;
}

static bool any(struct kvbi_tickets tickets)
{
    return (tickets.source | tickets.target) != 0;
}

/* Of one direction, all by layers or none. */
static bool alike(const struct kvbi_cuda_engine *e, const struct kvbi_copy *a,
                  const struct kvbi_copy *b)
{
    return to_device(e, a) == to_device(e, b) && a->layered == b->layered;
}

/* May a flight with this one begin on a stream that is to wait? */
static bool may_begin(struct kvbi_cuda_engine *e, struct kvbi_flights_waiting waiting,
                      const struct kvbi_copy_item *item, struct kvbi_tickets tickets)
{
    return may_wait(e, waiting, !host_is_registered(e, &item->copy), item->urgent) &&
           kvbi_flights_stream(&e->flights, to_device(e, &item->copy), tickets) != KVBI_NONE;
}

/* What is ready, less what has to be deferred at the front of it. Empty: nothing. */
static struct kvbi_copy_list *next_locked(struct kvbi_cuda_engine *e,
                                          struct kvbi_flights_waiting waiting)
{
    struct kvbi_copy_list *ready = kvbi_copy_next_locked(&e->queue);
    while (ready->count > 0) {
        const struct kvbi_copy_item *next = &e->queue.items[ready->first];
        struct kvbi_tickets tickets = stream_tickets(e, &next->copy);
        if (!any(tickets) || may_begin(e, waiting, next, tickets))
            break;
        defer_locked(e, kvbi_copy_pop_locked(&e->queue, ready));
        ready = kvbi_copy_next_locked(&e->queue);
    }
    return ready;
}

/* Into the batch, with a buffer if it needs one. False: there is none. */
static bool take_one_locked(struct kvbi_cuda_engine *e, struct batch *batch,
                            struct kvbi_copy_list *ready)
{
    const struct kvbi_copy *next = &e->queue.items[ready->first].copy;
    bool registered = host_is_registered(e, next);
    uint32_t bounce = registered ? KVBI_NONE : kvbi_flights_take_bounce(&e->flights);
    if (bounce == KVBI_NONE && !registered)
        return false;
    e->notes[ready->first] = (struct kvbi_cuda_note){.bounce = bounce};
    batch->bounces += bounce != KVBI_NONE;
    kvbi_copy_push_locked(&e->queue, &batch->items, kvbi_copy_pop_locked(&e->queue, ready));
    return true;
}

/* Items for one flight, as long as there are buffers for those that are not registered. */
static void take_batch_locked(struct kvbi_cuda_engine *e, struct batch *batch)
{
    struct kvbi_flights_waiting waiting = kvbi_flights_waiting(&e->flights, e->queue.lines);
    *batch = (struct batch){.items = {.first = KVBI_NONE}};
    struct kvbi_copy_list *ready = next_locked(e, waiting);
    while (batch->items.count < KVBI_FLIGHT_BLOCKS_MAX && ready->count > 0) {
        const struct kvbi_copy_item *next = &e->queue.items[ready->first];
        struct kvbi_tickets tickets = stream_tickets(e, &next->copy);
        bool first = batch->items.count == 0;
        if (!first && (!alike(e, &e->queue.items[batch->items.first].copy, &next->copy) ||
                       !kvbi_cuda_tickets_on_same_lines(tickets, batch->tickets)))
            break;
        struct kvbi_flights_waiting with = {waiting.flights, waiting.bounces + batch->bounces};
        if (any(tickets) && !may_wait(e, with, !host_is_registered(e, &next->copy), next->urgent))
            break;
        if (first)
            batch->stream = kvbi_flights_stream(&e->flights, to_device(e, &next->copy), tickets);
        if (batch->stream == KVBI_NONE || !take_one_locked(e, batch, ready))
            break;
        (void)kvbi_cuda_tickets_merge(&batch->tickets, tickets.source);
        (void)kvbi_cuda_tickets_merge(&batch->tickets, tickets.target);
    }
}

/*
 * By slot of the device: what a server allocates together lies together there, whichever way round,
 * and often below as well.
 */
static void sort_batch(struct batch *batch)
{
    for (uint32_t i = 1; i < batch->count; i++)
        for (uint32_t j = i; j > 0 && batch->pairs[j].slot < batch->pairs[j - 1].slot; j--) {
            struct kvbi_cuda_pair pair = batch->pairs[j];
            uint32_t index = batch->indices[j];
            batch->pairs[j] = batch->pairs[j - 1], batch->pairs[j - 1] = pair;
            batch->indices[j] = batch->indices[j - 1], batch->indices[j - 1] = index;
        }
}

static int fault_of(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    if (e->hooks == NULL || e->hooks->copy_fault == NULL)
        return 0;
    return e->hooks->copy_fault(e->hooks->context, copy->from->tier, copy->from_slot,
                                copy->to->tier, copy->to_slot);
}

/* Where each block's bytes are; those on the way up through a buffer are put there. */
static void prepare(struct kvbi_cuda_engine *e, struct batch *batch)
{
    uint32_t index = batch->items.first;
    for (uint32_t i = 0; i < batch->items.count; i++, index = e->queue.items[index].next) {
        const struct kvbi_copy *copy = &e->queue.items[index].copy;
        struct kvbi_cuda_note *note = &e->notes[index];
        note->result = fault_of(e, copy);
        /* nobody can say when its bytes are there, or its target is free */
        if (note->result == 0 && (kvbi_lines_captured(e->queue.lines, copy->tickets.source) ||
                                  kvbi_lines_captured(e->queue.lines, copy->tickets.target)))
            note->result = KVB_EIO;
        if (note->result != 0)
            continue;
        unsigned char *host = host_address(e, copy);
        if (note->bounce != KVBI_NONE && to_device(e, copy))
            memcpy(kvbi_flights_bounce(&e->flights, note->bounce), host, e->device->block_bytes);
        if (note->bounce != KVBI_NONE)
            host = kvbi_flights_bounce(&e->flights, note->bounce);
        batch->indices[batch->count] = index;
        batch->pairs[batch->count++] = (struct kvbi_cuda_pair){
            .slot = to_device(e, copy) ? copy->to_slot : copy->from_slot,
            .host = host,
            .registration =
                note->bounce != KVBI_NONE ? e->flights.bounce : host_registration(e, copy)};
    }
}

static void note_errors(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope,
                        const struct batch *batch, const cudaError_t *errors)
{
    bool any = false;
    for (uint32_t i = 0; i < batch->count; i++)
        any |= errors[i] != cudaSuccess;
    if (any)
        kvbi_cuda_look_at_memory(scope);
    for (uint32_t i = 0; i < batch->count; i++)
        e->notes[batch->indices[i]].result = kvbi_cuda_code(e->cuda, errors[i]);
}

static void begin(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope,
                  struct kvbi_flight *flight, struct batch *batch)
{
    cudaError_t errors[KVBI_FLIGHT_BLOCKS_MAX];
    const struct kvbi_copy *first = &e->queue.items[batch->items.first].copy;
    prepare(e, batch);
    sort_batch(batch);
    struct kvbi_flight_plan plan = {
        .copier = e->copier,
        .points = &e->tickets,
        .load = {.pairs = batch->pairs, .count = batch->count, .to_device = to_device(e, first)},
        .tickets = batch->tickets,
        .stream = batch->stream,
        .bounces = batch->bounces,
        .layered = first->layered && to_device(e, first)};
    flight->items = batch->items;
    kvbi_flight_begin(&e->flights, flight, scope, &plan, errors);
    note_errors(e, scope, batch, errors);
    for (uint32_t i = 0; i < batch->count; i++)
        kvbi_cuda_set_writer(e, &e->queue.items[batch->indices[i]].copy,
                             (uint32_t)(flight - e->flights.all));
    kvbi_lock_take(&e->queue.lock);
    e->order[e->order_count++] = (uint8_t)(flight - e->flights.all);
    kvbi_lock_release(&e->queue.lock);
}

void kvbi_cuda_launch(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope)
{
    struct kvbi_flight *flight;
    struct batch batch;
    kvbi_cuda_tickets_look(&e->tickets, scope);
    kvbi_lock_take(&e->queue.lock);
    if (e->landed || kvbi_awaited_due(&e->awaited, e->queue.lines))
        kvbi_cuda_resume_locked(e);
    kvbi_lock_release(&e->queue.lock);
    while (!kvbi_cuda_lost(e->cuda) && (flight = kvbi_flights_free(&e->flights)) != NULL) {
        kvbi_lock_take(&e->queue.lock);
        kvbi_copy_promote_locked(&e->queue);
        take_batch_locked(e, &batch);
        kvbi_lock_release(&e->queue.lock);
        if (batch.items.count == 0)
            return;
        begin(e, scope, flight, &batch);
    }
}

/* ---- Out of a flight ------------------------------------------------------------------------- */

/* The item is over, one way or the other: its bytes are where they belong, its buffer is free. */
static void complete(struct kvbi_cuda_engine *e, uint32_t index, int result)
{
    const struct kvbi_copy *copy = &e->queue.items[index].copy;
    struct kvbi_cuda_note *note = &e->notes[index];
    if (note->result == 0)
        note->result = result;
    if (note->bounce != KVBI_NONE && note->result == 0 && !to_device(e, copy))
        memcpy(host_address(e, copy), kvbi_flights_bounce(&e->flights, note->bounce),
               e->device->block_bytes);
    if (note->bounce != KVBI_NONE)
        kvbi_flights_give_bounce(&e->flights, note->bounce);
    note->bounce = KVBI_NONE;
    kvbi_cuda_set_writer(e, copy, KVBI_FLIGHT_NONE);
}

/*
 * Nobody says whether the flight is over. What the host gives the GPU to write is out of use from
 * here on, but for buffers of ours.
 */
static void abandon(struct kvbi_cuda_engine *e, const struct kvbi_flight *flight)
{
    uint32_t index = flight->items.first;
    for (uint32_t i = 0; i < flight->items.count; i++, index = e->queue.items[index].next)
        e->notes[index].abandoned = !flight->to_device && e->notes[index].bounce == KVBI_NONE;
}

static void land(struct kvbi_cuda_engine *e, struct kvbi_flight *flight)
{
    uint32_t index = flight->items.first;
    int result = kvbi_cuda_lost(e->cuda) ? KVB_EDEVICE : 0;
    for (uint32_t i = 0; i < flight->items.count; i++, index = e->queue.items[index].next)
        complete(e, index, flight->result != 0 ? flight->result : result);
    kvbi_lock_take(&e->queue.lock);
    kvbi_copy_append_locked(&e->queue, &e->completed, &flight->items);
    kvbi_lock_release(&e->queue.lock);
    kvbi_flight_land(&e->flights, flight);
}

/* Flights that have landed, each stream's in order: behind one that is not, none is. */
void kvbi_cuda_land(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope)
{
    uint32_t kept = 0, over = 0, busy_streams = 0;
    uint8_t order[KVBI_FLIGHTS], landing[KVBI_FLIGHTS];
    for (uint32_t i = 0; i < e->order_count; i++) {
        const struct kvbi_flight *flight = &e->flights.all[e->order[i]];
        bool busy = busy_streams & 1u << flight->stream;
        cudaError_t error = busy ? cudaErrorNotReady
                                 : kvbi_flight_ask(kvbi_flight_witness(&e->flights, flight), scope);
        if (error == cudaErrorNotReady) {
            busy_streams |= 1u << flight->stream;
            order[kept++] = e->order[i];
            continue;
        }
        if (error != cudaSuccess)
            abandon(e, flight);
        landing[over++] = e->order[i];
    }
    kvbi_lock_take(&e->queue.lock);
    memcpy(e->order, order, kept);
    e->order_count = kept;
    e->landed |= over > 0;
    kvbi_lock_release(&e->queue.lock);
    for (uint32_t i = 0; i < over; i++)
        land(e, &e->flights.all[landing[i]]);
}

void kvbi_cuda_give_up(struct kvbi_cuda_engine *e)
{
    bool lost = kvbi_cuda_lost(e->cuda);
    kvbi_lock_take(&e->queue.lock);
    uint32_t cancelled = e->queue.cancelled.count;
    if (lost) {
        kvbi_cuda_resume_locked(e);
        kvbi_copy_cancel_locked(&e->queue);
    }
    for (uint32_t i = 0; e->queue.cancelled.count > 0; i++) {
        uint32_t index = kvbi_copy_pop_locked(&e->queue, &e->queue.cancelled);
        e->notes[index] = (struct kvbi_cuda_note){
            .result = i < cancelled ? KVB_ECANCELED : KVB_EDEVICE, .bounce = KVBI_NONE};
        kvbi_cuda_set_writer(e, &e->queue.items[index].copy, KVBI_FLIGHT_NONE);
        kvbi_copy_push_locked(&e->queue, &e->completed, index);
    }
    kvbi_lock_release(&e->queue.lock);
}

uint32_t kvbi_cuda_emit(struct kvbi_cuda_engine *e, struct kvbi_completion *completions,
                        uint32_t max, bool *more)
{
    uint32_t count = 0;
    kvbi_lock_take(&e->queue.lock);
    while (count < max && e->completed.count > 0) {
        uint32_t index = kvbi_copy_pop_locked(&e->queue, &e->completed);
        completions[count++] = (struct kvbi_completion){.cookie = e->queue.items[index].copy.cookie,
                                                        .result = e->notes[index].result,
                                                        .condemned = e->notes[index].abandoned};
        kvbi_copy_push_locked(&e->queue, &e->queue.free, index);
    }
    *more = e->completed.count > 0;
    kvbi_lock_release(&e->queue.lock);
    return count;
}
