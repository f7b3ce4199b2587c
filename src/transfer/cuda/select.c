/* SPDX-License-Identifier: Apache-2.0 */
/* select - see select.h. */
#include "transfer/cuda/select.h"

#include "transfer/cuda/registration.h"

static bool to_device(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    return copy->to == e->device;
}

static bool host_is_registered(const struct kvbi_cuda_engine *e, const struct kvbi_copy *copy)
{
    const struct kvbi_tier *host = to_device(e, copy) ? copy->from : copy->to;
    return kvbi_cuda_registration_covers(kvbi_cuda_registration_of(host),
                                         to_device(e, copy) ? copy->from_slot : copy->to_slot);
}

/* ---- Room on streams ------------------------------------------------------------------------- */

/* What a selection becomes with `next` as one more of its blocks, or the first. */
static struct kvbi_flight_plan plan_with(struct kvbi_cuda_engine *e,
                                         const struct kvbi_cuda_selection *selection,
                                         const struct kvbi_copy *next, uint64_t passed)
{
    uint64_t ticket = next->stream_ticket > passed ? next->stream_ticket : 0;
    return (struct kvbi_flight_plan){.copier = e->copier,
                                     .tickets = &e->tickets,
                                     .load = {.to_device = to_device(e, next)},
                                     .stream = selection->stream,
                                     .passed = passed,
                                     .ticket =
                                         ticket > selection->ticket ? ticket : selection->ticket,
                                     .layered = next->layered && to_device(e, next)};
}

struct kvbi_flight_plan kvbi_cuda_select_plan(struct kvbi_cuda_engine *e,
                                              const struct kvbi_cuda_selection *selection)
{
    const struct kvbi_copy *first = &e->queue.items[selection->items.first].copy;
    struct kvbi_flight_plan plan = plan_with(e, selection, first, e->passed);
    plan.bounces = selection->bounces;
    return plan;
}

static uint64_t entries_with(struct kvbi_cuda_engine *e,
                             const struct kvbi_cuda_selection *selection,
                             const struct kvbi_copy *next, uint64_t passed)
{
    struct kvbi_flight_plan plan = plan_with(e, selection, next, passed);
    return kvbi_flights_entries(&e->flights, &plan, selection->items.count + 1);
}

/*
 * Chooses the stream for a selection that begins with `first`. 0: it may begin; else how many
 * entries it wants, which are not there. One that runs at once drains by itself: on an empty stream
 * it may have as many as it needs, and what comes after it waits outside.
 */
static uint64_t choose_stream(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection,
                              const struct kvbi_copy *first, uint64_t passed)
{
    bool waits = first->stream_ticket > passed;
    selection->stream = kvbi_flights_stream(&e->flights, to_device(e, first), waits);
    selection->room = kvbi_flights_room(&e->flights, selection->stream);
    uint64_t entries = entries_with(e, selection, first, passed);
    bool alone = !waits && selection->room == KVBI_STREAM_ENTRIES;
    return entries <= selection->room || alone ? 0 : entries;
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

/* `entries`: how many it wants, for which its stream has no room; 0: it is not for that. */
static void defer_locked(struct kvbi_cuda_engine *e, uint32_t index, uint64_t entries)
{
    const struct kvbi_copy_item *item = &e->queue.items[index];
    uint64_t *least = &e->deferred_entries[to_device(e, &item->copy)];
    if (entries < *least)
        *least = entries;
    if (item->copy.stream_ticket < e->deferred_ticket)
        e->deferred_ticket = item->copy.stream_ticket;
    kvbi_copy_push_locked(&e->queue, &e->deferred[item->urgent], index);
}

void kvbi_cuda_resume_locked(struct kvbi_cuda_engine *e)
{
    kvbi_lock_assert_held(&e->queue.lock);
    for (uint32_t urgent = 0; urgent < 2; urgent++) {
        kvbi_copy_append_locked(&e->queue, &e->deferred[urgent], &e->queue.ready[urgent]);
        kvbi_copy_append_locked(&e->queue, &e->queue.ready[urgent], &e->deferred[urgent]);
    }
    e->deferred_ticket = e->deferred_entries[0] = e->deferred_entries[1] = UINT64_MAX;
}

/* Might one of them begin, before its ticket is reached? */
bool kvbi_cuda_may_resume(const struct kvbi_cuda_engine *e, uint64_t passed)
{
    if (!may_wait(e, kvbi_flights_waiting(&e->flights, passed), false, e->deferred[1].count > 0))
        return false;
    for (uint32_t up = 0; up < 2; up++)
        if (e->deferred_entries[up] <=
            kvbi_flights_room(&e->flights, kvbi_flights_stream(&e->flights, up != 0, true)))
            return true;
    return false;
}

/* ---- The next flight's ----------------------------------------------------------------------- */

/* Of one direction, all after a ticket that is not reached or none, all by layers or none. */
static bool alike(const struct kvbi_cuda_engine *e, const struct kvbi_copy *a,
                  const struct kvbi_copy *b, uint64_t passed)
{
    return to_device(e, a) == to_device(e, b) && a->layered == b->layered &&
           (a->stream_ticket > passed) == (b->stream_ticket > passed);
}

/* Defers what is at the front of the list, waits for a ticket, and cannot do so on a stream. */
static void defer_front_locked(struct kvbi_cuda_engine *e, struct kvbi_copy_list *ready,
                               struct kvbi_cuda_selection *selection,
                               struct kvbi_flights_waiting waiting, uint64_t passed)
{
    while (ready->count > 0) {
        const struct kvbi_copy_item *next = &e->queue.items[ready->first];
        if (next->copy.stream_ticket <= passed)
            return;
        uint64_t wants = choose_stream(e, selection, &next->copy, passed);
        if (wants == 0 && may_wait(e, waiting, !host_is_registered(e, &next->copy), next->urgent))
            return;
        defer_locked(e, kvbi_copy_pop_locked(&e->queue, ready), wants);
    }
}

/*
 * What is ready, less what has to be deferred at the front of it, and has room on a stream. One
 * direction that has none does not stand in the way of the other. NULL: nothing.
 */
static struct kvbi_copy_list *next_locked(struct kvbi_cuda_engine *e,
                                          struct kvbi_cuda_selection *selection,
                                          struct kvbi_flights_waiting waiting, uint64_t passed)
{
    for (uint32_t urgent = 2; urgent-- > 0;) {
        struct kvbi_copy_list *ready = &e->queue.ready[urgent];
        defer_front_locked(e, ready, selection, waiting, passed);
        if (ready->count > 0 &&
            choose_stream(e, selection, &e->queue.items[ready->first].copy, passed) == 0)
            return ready;
    }
    return NULL;
}

/* Into the selection, with a buffer if it needs one. False: there is none. */
static bool take_one_locked(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection,
                            struct kvbi_copy_list *ready, uint64_t passed)
{
    const struct kvbi_copy *next = &e->queue.items[ready->first].copy;
    bool registered = host_is_registered(e, next);
    uint32_t bounce = registered ? KVBI_NONE : kvbi_flights_take_bounce(&e->flights);
    if (bounce == KVBI_NONE && !registered)
        return false;
    e->notes[ready->first] = (struct kvbi_cuda_note){.bounce = bounce};
    selection->bounces += bounce != KVBI_NONE;
    if (next->stream_ticket > passed && next->stream_ticket > selection->ticket)
        selection->ticket = next->stream_ticket;
    kvbi_copy_push_locked(&e->queue, &selection->items, kvbi_copy_pop_locked(&e->queue, ready));
    return true;
}

/* Items for one flight, as long as there are buffers for those that are not registered. */
void kvbi_cuda_select_locked(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection,
                             uint64_t passed)
{
    kvbi_lock_assert_held(&e->queue.lock);
    struct kvbi_flights_waiting waiting = kvbi_flights_waiting(&e->flights, passed);
    *selection = (struct kvbi_cuda_selection){.items = {.first = KVBI_NONE}};
    struct kvbi_copy_list *ready = next_locked(e, selection, waiting, passed);
    while (ready != NULL && selection->items.count < KVBI_FLIGHT_BLOCKS_MAX && ready->count > 0) {
        const struct kvbi_copy *next = &e->queue.items[ready->first].copy;
        if (selection->items.count > 0 &&
            (!alike(e, &e->queue.items[selection->items.first].copy, next, passed) ||
             entries_with(e, selection, next, passed) > selection->room))
            break;
        struct kvbi_flights_waiting with = {waiting.flights, waiting.bounces + selection->bounces};
        if (next->stream_ticket > passed &&
            !may_wait(e, with, !host_is_registered(e, next), e->queue.items[ready->first].urgent))
            break;
        if (!take_one_locked(e, selection, ready, passed))
            break;
    }
}
