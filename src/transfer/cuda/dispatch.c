/* SPDX-License-Identifier: Apache-2.0 */
/* dispatch - see dispatch.h. */
#include "transfer/cuda/dispatch.h"

#include <string.h>

#include "base/clock.h"
#include "base/hooks.h"
#include "transfer/cuda/registration.h"
#include "transfer/cuda/select.h"

static bool to_device(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    return copy->to == e->device;
}

void kvbi_cuda_set_writer(struct kvbi_cuda_engine *e, const struct kvbi_copy *copy, uint32_t writer)
{
    if (to_device(e, copy))
        atomic_store_explicit(&e->writers[copy->to_slot], (uint8_t)writer, memory_order_release);
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

/* ---- Into a flight --------------------------------------------------------------------------- */

/*
 * By slot of the device: what a server allocates together lies together there, whichever way round,
 * and often below as well.
 */
static void sort_pairs(struct kvbi_cuda_selection *selection)
{
    for (uint32_t i = 1; i < selection->count; i++)
        for (uint32_t j = i; j > 0 && selection->pairs[j].slot < selection->pairs[j - 1].slot;
             j--) {
            struct kvbi_cuda_pair pair = selection->pairs[j];
            uint32_t index = selection->indices[j];
            selection->pairs[j] = selection->pairs[j - 1], selection->pairs[j - 1] = pair;
            selection->indices[j] = selection->indices[j - 1], selection->indices[j - 1] = index;
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
static void prepare(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection)
{
    uint32_t index = selection->items.first;
    for (uint32_t i = 0; i < selection->items.count; i++, index = e->queue.items[index].next) {
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
        selection->indices[selection->count] = index;
        selection->pairs[selection->count++] = (struct kvbi_cuda_pair){
            .slot = to_device(e, copy) ? copy->to_slot : copy->from_slot,
            .host = host,
            .registration =
                note->bounce != KVBI_NONE ? e->flights.bounce : host_registration(e, copy)};
    }
}

static void note_errors(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope,
                        const struct kvbi_cuda_selection *selection, const cudaError_t *errors)
{
    bool any = false;
    for (uint32_t i = 0; i < selection->count; i++)
        any |= errors[i] != cudaSuccess;
    if (any)
        kvbi_cuda_look_at_memory(scope);
    for (uint32_t i = 0; i < selection->count; i++)
        e->notes[selection->indices[i]].result = kvbi_cuda_code(e->cuda, errors[i]);
}

static void begin(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope,
                  struct kvbi_flight *flight, struct kvbi_cuda_selection *selection)
{
    cudaError_t errors[KVBI_FLIGHT_BLOCKS_MAX];
    prepare(e, selection);
    sort_pairs(selection);
    struct kvbi_flight_plan plan = kvbi_cuda_select_plan(e, selection);
    plan.load.pairs = selection->pairs;
    plan.load.count = selection->count;
    plan.now_ns = kvbi_clock_now(e->clock);
    flight->items = selection->items;
    kvbi_flight_begin(&e->flights, flight, scope, &plan, errors);
    note_errors(e, scope, selection, errors);
    for (uint32_t i = 0; i < selection->count; i++)
        kvbi_cuda_set_writer(e, &e->queue.items[selection->indices[i]].copy,
                             (uint32_t)(flight - e->flights.all));
    kvbi_lock_take(&e->queue.lock);
    e->order[e->order_count++] = (uint8_t)(flight - e->flights.all);
    kvbi_lock_release(&e->queue.lock);
}

/* Who polls says himself how often; the manager's own thread may be here without a pause. */
static void look_at_tickets(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope)
{
    uint64_t now = kvbi_clock_now(e->clock);
    if (e->own_thread && !e->look_now && !e->ticked &&
        now < e->tickets_asked_ns + KVBI_ASK_WITHOUT_WORD_NS)
        return;
    e->tickets_asked_ns = now;
    kvbi_cuda_tickets_look(&e->tickets, scope);
}

void kvbi_cuda_launch(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope)
{
    struct kvbi_flight *flight;
    struct kvbi_cuda_selection selection;
    look_at_tickets(e, scope);
    kvbi_lock_take(&e->queue.lock);
    if (e->landed || kvbi_awaited_due(&e->awaited, e->queue.lines))
        kvbi_cuda_resume_locked(e);
    kvbi_lock_release(&e->queue.lock);
    while (!kvbi_cuda_lost(e->cuda) && (flight = kvbi_flights_free(&e->flights)) != NULL) {
        kvbi_lock_take(&e->queue.lock);
        kvbi_copy_promote_locked(&e->queue);
        kvbi_cuda_select_locked(e, &selection);
        kvbi_lock_release(&e->queue.lock);
        if (selection.items.count == 0)
            return;
        begin(e, scope, flight, &selection);
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
    e->landed |= kvbi_flights_stream_waits(flight->stream);
    kvbi_lock_release(&e->queue.lock);
    kvbi_flight_land(&e->flights, flight);
}

/*
 * cudaSuccess: it is over; cudaErrorNotReady: not as far as can be said without asking too often.
 */
static cudaError_t look(struct kvbi_cuda_engine *e, const struct kvbi_flight *flight,
                        struct kvbi_cuda_scope *scope)
{
    struct kvbi_flight_witness witness = kvbi_flight_witness(&e->flights, flight);
    bool anyway = e->look_now ||
                  (witness.by_word ? e->ticked_ns >= KVBI_ASK_NS : !e->own_thread || e->ticked);
    if (kvbi_flight_seen(&e->flights, witness))
        return cudaSuccess;
    return kvbi_flight_may_ask(&e->flights, witness, kvbi_clock_now(e->clock), anyway)
               ? kvbi_flight_ask(witness, scope)
               : cudaErrorNotReady;
}

/* Flights that have landed, each stream's in order: behind one that is not, none is. */
void kvbi_cuda_land(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope)
{
    uint32_t kept = 0, over = 0, busy_streams = 0;
    uint8_t order[KVBI_FLIGHTS], landing[KVBI_FLIGHTS];
    for (uint32_t i = 0; i < e->order_count; i++) {
        const struct kvbi_flight *flight = &e->flights.all[e->order[i]];
        bool busy = busy_streams & 1u << flight->stream;
        cudaError_t error = busy ? cudaErrorNotReady : look(e, flight, scope);
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
    kvbi_lock_release(&e->queue.lock);
    for (uint32_t i = 0; i < over; i++)
        land(e, &e->flights.all[landing[i]]);
}

void kvbi_cuda_give_up(struct kvbi_cuda_engine *e)
{
    kvbi_lock_take(&e->queue.lock);
    bool lost = kvbi_cuda_lost(e->cuda) && (e->lost_seen || !kvbi_cuda_context_lost(e->cuda));
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
