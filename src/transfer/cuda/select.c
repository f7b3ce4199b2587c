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

/* What a selection becomes with `next` as one more of its blocks, or the first. */
static struct kvbi_flight_plan plan_with(struct kvbi_cuda_engine *e,
                                         const struct kvbi_cuda_selection *selection,
                                         const struct kvbi_copy *next, struct kvbi_tickets tickets)
{
    struct kvbi_flight_plan plan = {.copier = e->copier,
                                    .points = &e->tickets,
                                    .load = {.to_device = to_device(e, next)},
                                    .stream = selection->stream,
                                    .tickets = selection->tickets,
                                    .layered = next->layered && to_device(e, next)};
    (void)kvbi_cuda_tickets_merge(&plan.tickets, tickets.source);
    (void)kvbi_cuda_tickets_merge(&plan.tickets, tickets.target);
    return plan;
}

struct kvbi_flight_plan kvbi_cuda_select_plan(struct kvbi_cuda_engine *e,
                                              const struct kvbi_cuda_selection *selection)
{
    const struct kvbi_copy *first = &e->queue.items[selection->items.first].copy;
    struct kvbi_flight_plan plan =
        plan_with(e, selection, first, (struct kvbi_tickets){.source = 0});
    plan.bounces = selection->bounces;
    return plan;
}

static uint64_t entries_with(struct kvbi_cuda_engine *e,
                             const struct kvbi_cuda_selection *selection,
                             const struct kvbi_copy *next, struct kvbi_tickets tickets)
{
    struct kvbi_flight_plan plan = plan_with(e, selection, next, tickets);
    return kvbi_flights_entries(&e->flights, &plan, selection->items.count + 1);
}

/*
 * Chooses the stream for a selection that begins with `first`. False: there is none that has room.
 * One that runs at once drains by itself: on an empty stream it may have as many entries as it
 * needs, and what comes after it waits outside.
 */
static bool choose_stream(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection,
                          const struct kvbi_copy *first, struct kvbi_tickets tickets)
{
    selection->stream = kvbi_flights_stream(&e->flights, to_device(e, first), tickets);
    if (selection->stream == KVBI_NONE)
        return false;
    selection->room = kvbi_flights_room(&e->flights, selection->stream);
    bool alone = !any(tickets) && selection->room == KVBI_STREAM_ENTRIES;
    return alone || entries_with(e, selection, first, tickets) <= selection->room;
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

/* ---- The next flight's ----------------------------------------------------------------------- */

/* Of one direction, all by layers or none. */
static bool alike(const struct kvbi_cuda_engine *e, const struct kvbi_copy *a,
                  const struct kvbi_copy *b)
{
    return to_device(e, a) == to_device(e, b) && a->layered == b->layered;
}

/* Defers what is at the front of the list, waits for a ticket, and cannot do so on a stream. */
static void defer_front_locked(struct kvbi_cuda_engine *e, struct kvbi_copy_list *ready,
                               struct kvbi_cuda_selection *selection,
                               struct kvbi_flights_waiting waiting)
{
    while (ready->count > 0) {
        const struct kvbi_copy_item *next = &e->queue.items[ready->first];
        struct kvbi_tickets tickets = stream_tickets(e, &next->copy);
        if (!any(tickets) ||
            (may_wait(e, waiting, !host_is_registered(e, &next->copy), next->urgent) &&
             choose_stream(e, selection, &next->copy, tickets)))
            return;
        defer_locked(e, kvbi_copy_pop_locked(&e->queue, ready));
    }
}

/*
 * What is ready, less what has to be deferred at the front of it, and has room on a stream. One
 * direction that has none does not stand in the way of the other. NULL: nothing.
 */
static struct kvbi_copy_list *next_locked(struct kvbi_cuda_engine *e,
                                          struct kvbi_cuda_selection *selection,
                                          struct kvbi_flights_waiting waiting)
{
    for (uint32_t urgent = 2; urgent-- > 0;) {
        struct kvbi_copy_list *ready = &e->queue.ready[urgent];
        defer_front_locked(e, ready, selection, waiting);
        if (ready->count == 0)
            continue;
        const struct kvbi_copy *first = &e->queue.items[ready->first].copy;
        if (choose_stream(e, selection, first, stream_tickets(e, first)))
            return ready;
    }
    return NULL;
}

/* Into the selection, with a buffer if it needs one. False: there is none. */
static bool take_one_locked(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection,
                            struct kvbi_copy_list *ready, struct kvbi_tickets tickets)
{
    const struct kvbi_copy *next = &e->queue.items[ready->first].copy;
    bool registered = host_is_registered(e, next);
    uint32_t bounce = registered ? KVBI_NONE : kvbi_flights_take_bounce(&e->flights);
    if (bounce == KVBI_NONE && !registered)
        return false;
    e->notes[ready->first] = (struct kvbi_cuda_note){.bounce = bounce};
    selection->bounces += bounce != KVBI_NONE;
    (void)kvbi_cuda_tickets_merge(&selection->tickets, tickets.source);
    (void)kvbi_cuda_tickets_merge(&selection->tickets, tickets.target);
    kvbi_copy_push_locked(&e->queue, &selection->items, kvbi_copy_pop_locked(&e->queue, ready));
    return true;
}

/* May `next` go with what is selected already? */
static bool fits(struct kvbi_cuda_engine *e, const struct kvbi_cuda_selection *selection,
                 const struct kvbi_copy *next, struct kvbi_tickets tickets)
{
    return selection->items.count == 0 ||
           (alike(e, &e->queue.items[selection->items.first].copy, next) &&
            kvbi_cuda_tickets_on_same_lines(tickets, selection->tickets) &&
            entries_with(e, selection, next, tickets) <= selection->room);
}

/* Items for one flight, as long as there are buffers for those that are not registered. */
void kvbi_cuda_select_locked(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection)
{
    kvbi_lock_assert_held(&e->queue.lock);
    struct kvbi_flights_waiting waiting = kvbi_flights_waiting(&e->flights, e->queue.lines);
    *selection = (struct kvbi_cuda_selection){.items = {.first = KVBI_NONE}};
    struct kvbi_copy_list *ready = next_locked(e, selection, waiting);
    while (ready != NULL && selection->items.count < KVBI_FLIGHT_BLOCKS_MAX && ready->count > 0) {
        const struct kvbi_copy_item *next = &e->queue.items[ready->first];
        struct kvbi_tickets tickets = stream_tickets(e, &next->copy);
        struct kvbi_flights_waiting with = {waiting.flights, waiting.bounces + selection->bounces};
        if (!fits(e, selection, &next->copy, tickets) ||
            (any(tickets) && !may_wait(e, with, !host_is_registered(e, &next->copy), next->urgent)))
            break;
        if (!take_one_locked(e, selection, ready, tickets))
            break;
    }
}
