/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_cuda - copies between a GPU's memory and host memory, on streams
 *
 * Owns       the timer; the rest is dispatch.h's.
 * Callers    see engine.h, and cuda.h for who makes a stream wait.
 * Why        ends are found by words that streams write and by asking events, never by host
 *            functions: those are not called any more once the context has failed. A timer that
 *            runs while something is in flight stands in for a descriptor that would be readable at
 *            the end.
 */
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "transfer/cuda/dispatch.h"

/*
 * Between two looks of a sleeping thread. Awake it looks without pause, so this is what a copy may
 * take longer than it needs.
 */
#define LOOK_NS 100000
/* The same while all that is under way stands behind steps of the server. */
#define LOOK_BEHIND_STEPS_NS 1000000

static struct kvbi_cuda_engine *of(struct kvbi_engine *engine)
{
    return (struct kvbi_cuda_engine *)(void *)engine; /* its first member */
}

/* ---- The interface --------------------------------------------------------------------------- */

/* Between two looks at what is under way; 0: nothing is. */
static long look_ns(const struct kvbi_cuda_engine *e)
{
    for (uint32_t i = 0; i < e->order_count; i++)
        if (!kvbi_flight_waits(&e->flights.all[e->order[i]], e->queue.lines))
            return LOOK_NS;
    return e->watched || e->order_count + e->deferred[0].count + e->deferred[1].count > 0
               ? LOOK_BEHIND_STEPS_NS
               : 0;
}

/*
 * Else it stays readable; EAGAIN: it is not. Of a clock that goes on nothing of this counts: that
 * says itself when it is time to ask.
 */
static void take_ticks(struct kvbi_cuda_engine *e)
{
    uint64_t expirations = 0, now = kvbi_clock_now(e->clock);
    bool fired = e->timer_ns != 0 && read(e->timer, &expirations, sizeof expirations) > 0;
    if (now != e->stands_ns) {
        e->stands_ns = now;
        e->ticked_ns = 0;
        e->ticked = false;
    } else if (fired) {
        e->ticked_ns += expirations * (uint64_t)e->timer_ns;
        e->ticked = true;
    }
}

static void set_timer(struct kvbi_cuda_engine *e)
{
    long wanted = look_ns(e);
    take_ticks(e);
    if (wanted == e->timer_ns)
        return;
    struct itimerspec timer = {.it_interval.tv_nsec = wanted, .it_value.tv_nsec = wanted};
    (void)timerfd_settime(e->timer, 0, &timer, NULL);
    e->timer_ns = wanted;
}

static int cuda_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                       bool urgent)
{
    struct kvbi_cuda_engine *e = of(engine);
    struct kvbi_cuda_scope scope;
    int error = kvbi_copy_queue_submit(&e->queue, copies, count, urgent);
    if (error != 0)
        return error;
    for (uint32_t i = 0; i < count; i++)
        kvbi_cuda_set_writer(e, &copies[i], KVBI_FLIGHT_QUEUED);
    kvbi_cuda_enter(e->cuda, &scope);
    kvbi_cuda_launch(e, &scope);
    kvbi_cuda_leave(&scope);
    set_timer(e);
    return 0;
}

/*
 * Whoever was told first: what is on its way ends now, as far as the driver has an answer, and
 * before anything else that ends for the loss, so that all of that is known to be condemned.
 */
static void land_lost(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope)
{
    if (e->lost_seen || !kvbi_cuda_context_lost(e->cuda))
        return;
    kvbi_lock_take(&e->queue.lock);
    e->lost_seen = true;
    kvbi_lock_release(&e->queue.lock);
    e->look_now = true;
    kvbi_cuda_land(e, scope);
}

static uint32_t cuda_reap(struct kvbi_engine *engine, struct kvbi_completion *completions,
                          uint32_t max, uint64_t until_ns, bool *more)
{
    struct kvbi_cuda_engine *e = of(engine);
    struct kvbi_cuda_scope scope;
    (void)until_ns; /* nothing here takes long but what goes through buffers, a few blocks */
    take_ticks(e);
    kvbi_cuda_enter(e->cuda, &scope);
    kvbi_cuda_land(e, &scope);
    kvbi_cuda_launch(e, &scope);
    land_lost(e, &scope);
    kvbi_cuda_leave(&scope);
    e->look_now = e->ticked = false;
    if (e->ticked_ns >= KVBI_ASK_NS)
        e->ticked_ns = 0;
    kvbi_cuda_give_up(e);
    set_timer(e);
    return kvbi_cuda_emit(e, completions, max, more);
}

static int cuda_wake_fd(struct kvbi_engine *engine)
{
    return of(engine)->timer;
}

/*
 * Of the oldest flight of each stream, but for those that wait for a ticket: a step of the server
 * is not looked at without pause.
 */
static uint32_t heads_locked(const struct kvbi_cuda_engine *e, struct kvbi_flight_witness *heads)
{
    uint32_t count = 0, seen = 0;
    for (uint32_t i = 0; i < e->order_count; i++) {
        const struct kvbi_flight *flight = &e->flights.all[e->order[i]];
        if (!(seen & 1u << flight->stream) && !kvbi_flight_waits(flight, e->queue.lines))
            heads[count++] = kvbi_flight_witness(&e->flights, flight);
        seen |= 1u << flight->stream;
    }
    return count;
}

/*
 * Of flights whose words do not say it, as far as it is time to ask: they become the first of
 * `heads`.
 */
static uint32_t keep_due(struct kvbi_cuda_engine *e, struct kvbi_flight_witness *heads,
                         uint32_t count)
{
    uint32_t due = 0;
    uint64_t now = kvbi_clock_now(e->clock);
    for (uint32_t i = 0; i < count; i++)
        if (kvbi_flight_may_ask(&e->flights, heads[i], now, false))
            heads[due++] = heads[i];
    return due;
}

/* Enters the driver only if there is something to ask it. */
static bool ask_due(struct kvbi_cuda_engine *e, const struct kvbi_flight_witness *heads,
                    uint32_t count)
{
    struct kvbi_cuda_scope scope;
    bool ready = false;
    if (count == 0)
        return false;
    kvbi_cuda_enter(e->cuda, &scope);
    for (uint32_t i = 0; i < count; i++)
        if (kvbi_flight_ask(heads[i], &scope) != cudaErrorNotReady) {
            kvbi_flight_ask_again(&e->flights, heads[i]);
            ready = true;
        }
    kvbi_cuda_leave(&scope);
    return ready;
}

static bool cuda_ready(struct kvbi_engine *engine)
{
    struct kvbi_cuda_engine *e = of(engine);
    struct kvbi_flight_witness heads[2 * KVBI_STREAMS_EACH_WAY];
    bool lost = kvbi_cuda_lost(e->cuda), gone = kvbi_cuda_context_lost(e->cuda);
    kvbi_lock_take(&e->queue.lock);
    const struct kvbi_copy_queue *q = &e->queue;
    bool pending = q->ready[0].count + q->ready[1].count + q->waiting.count + e->deferred[0].count +
                       e->deferred[1].count >
                   0;
    bool ready = e->completed.count > 0 || q->cancelled.count > 0 || (lost && pending) ||
                 (gone && !e->lost_seen && e->order_count > 0) || kvbi_copy_due_locked(q);
    uint32_t count = heads_locked(e, heads);
    kvbi_lock_release(&e->queue.lock);
    for (uint32_t i = 0; i < count && !ready; i++)
        ready = kvbi_flight_seen(&e->flights, heads[i]);
    return ready || ask_due(e, heads, keep_due(e, heads, count));
}

static void cuda_drain(struct kvbi_engine *engine)
{
    struct kvbi_cuda_engine *e = of(engine);
    struct kvbi_cuda_scope scope;
    kvbi_lock_take(&e->queue.lock);
    kvbi_cuda_resume_locked(e);
    kvbi_copy_cancel_locked(&e->queue);
    kvbi_lock_release(&e->queue.lock);
    kvbi_cuda_enter(e->cuda, &scope);
    for (uint32_t i = 0; i < e->order_count; i++)
        kvbi_flight_wait(&e->flights, &e->flights.all[e->order[i]], &scope);
    kvbi_cuda_leave(&scope);
    e->look_now = true;
}

static int cuda_import(struct kvbi_engine *engine, const struct kvb_fence *fence, uint64_t *ticket,
                       struct kvbi_why *why)
{
    return kvbi_cuda_tickets_import(&of(engine)->tickets, fence, ticket, why);
}

static uint64_t cuda_both(struct kvbi_engine *engine, uint64_t a, uint64_t b)
{
    return kvbi_cuda_tickets_both(&of(engine)->tickets, a, b);
}

static bool cuda_signal(struct kvbi_engine *engine)
{
    return kvbi_copy_queue_signal(&of(engine)->queue);
}

static bool cuda_recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    return kvbi_copy_queue_recall(&of(engine)->queue, place, cookie);
}

static size_t cuda_bytes(const struct kvbi_engine *engine)
{
    const struct kvbi_cuda_engine *e = (const struct kvbi_cuda_engine *)(const void *)engine;
    return sizeof *e + sizeof *e->copier + kvbi_copy_queue_bytes(&e->queue) +
           e->queue.capacity * sizeof *e->notes + e->device->block_count * sizeof *e->writers +
           KVBI_CUDA_TICKETS * sizeof *e->tickets.ring +
           (size_t)KVBI_FLIGHTS * e->flights.layer_count * sizeof *e->flights.layer_events;
}

/* ---- Streams that wait ----------------------------------------------------------------------- */

static uint32_t cuda_flight(struct kvbi_engine *engine, uint32_t slot)
{
    return atomic_load_explicit(&of(engine)->writers[slot], memory_order_acquire);
}

static void cuda_watch(struct kvbi_engine *engine, bool awaited)
{
    if (of(engine)->watched == awaited)
        return;
    of(engine)->watched = awaited;
    set_timer(of(engine));
}

/* Has each an end that can be waited for? One that has none fails, once it is over. */
static bool have_ends(const struct kvbi_cuda_engine *e, uint64_t flights)
{
    bool have = true;
    for (; flights != 0 && have; flights &= flights - 1)
        have = !atomic_load_explicit(&e->flights.all[__builtin_ctzll(flights)].by_stream,
                                     memory_order_acquire);
    return have;
}

static cudaError_t wait_for_flights(const struct kvbi_cuda_engine *e, uint64_t flights,
                                    cudaStream_t stream, uint32_t layer)
{
    cudaError_t error = cudaSuccess;
    for (; error == cudaSuccess && flights != 0; flights &= flights - 1) {
        const struct kvbi_flight *flight = &e->flights.all[__builtin_ctzll(flights)];
        bool by_layer =
            layer != KVB_ALL_LAYERS && atomic_load_explicit(&flight->layered, memory_order_acquire);
        error = cudaStreamWaitEvent(stream, by_layer ? flight->layers[layer] : flight->done,
                                    cudaEventWaitDefault);
    }
    return error;
}

static cudaError_t wait_for_points(struct kvbi_cuda_engine *e,
                                   const struct kvbi_stream_points *points, cudaStream_t stream)
{
    struct kvbi_cuda_waited waited = {{0}};
    cudaError_t error = cudaSuccess;
    for (uint64_t bits = points->lines; bits != 0 && error == cudaSuccess; bits &= bits - 1)
        error = kvbi_cuda_tickets_wait(&e->tickets, stream, &waited,
                                       kvbi_stream_point(points, (uint32_t)__builtin_ctzll(bits)));
    return error;
}

static bool any_captured(const struct kvbi_cuda_engine *e, const struct kvbi_stream_points *points)
{
    bool captured = false;
    for (uint64_t bits = points->lines; bits != 0 && !captured; bits &= bits - 1)
        captured = kvbi_lines_captured(e->queue.lines,
                                       kvbi_stream_point(points, (uint32_t)__builtin_ctzll(bits)));
    return captured;
}

/* Within enter and leave. */
static int wait_for_all(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope, uint64_t flights,
                        const struct kvbi_stream_points *points, cudaStream_t stream,
                        uint32_t layer, struct kvbi_why *why)
{
    int result = kvbi_cuda_tickets_check_stream(&e->tickets, scope, stream, why);
    if (result == 0 && !have_ends(e, flights))
        result = kvbi_cuda_lost(e->cuda) ? KVB_EDEVICE : KVB_EAGAIN;
    if (result != 0)
        return result;
    cudaError_t error = wait_for_points(e, points, stream);
    if (error == cudaSuccess)
        error = wait_for_flights(e, flights, stream, layer);
    if (kvbi_cuda_check_foreign(scope, error, kvbi_cuda_tickets_own(&e->tickets)) != cudaSuccess) {
        kvbi_why_say(why, "CUDA lets it not wait: %s (%d)", cudaGetErrorName(error), (int)error);
        return kvbi_cuda_lost(e->cuda) ? KVB_EDEVICE : KVB_EINVAL;
    }
    /* last: it may have passed meanwhile */
    return any_captured(e, points) ? KVB_EINVAL : 0;
}

static int cuda_wait(struct kvbi_engine *engine, uint64_t flights,
                     const struct kvbi_stream_points *points, void *stream, uint32_t layer,
                     struct kvbi_why *why)
{
    struct kvbi_cuda_engine *e = of(engine);
    struct kvbi_cuda_scope scope;
    if (kvbi_cuda_context_lost(e->cuda))
        return KVB_EDEVICE;
    kvbi_cuda_enter(e->cuda, &scope);
    int result = wait_for_all(e, &scope, flights, points, stream, layer, why);
    kvbi_cuda_leave(&scope);
    return result;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static void cuda_destroy(struct kvbi_engine *engine)
{
    struct kvbi_cuda_engine *e = of(engine);
    struct kvbi_memory memory = e->memory;
    kvbi_flights_destroy(&e->flights);
    kvbi_cuda_tickets_destroy(&e->tickets);
    if (e->copier != NULL && e->copier->cuda != NULL)
        kvbi_cuda_copier_destroy(e->copier);
    if (e->timer >= 0)
        (void)close(e->timer);
    kvbi_memory_free(&memory, e->copier, 1, sizeof *e->copier);
    kvbi_memory_free(&memory, e->writers, e->device->block_count, sizeof *e->writers);
    kvbi_memory_free(&memory, e->notes, e->queue.capacity, sizeof *e->notes);
    kvbi_copy_queue_destroy(&e->queue);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

static int take_tables(struct kvbi_cuda_engine *e, uint32_t capacity)
{
    e->notes = kvbi_memory_alloc(&e->memory, capacity, sizeof *e->notes, 0);
    e->writers = kvbi_memory_alloc(&e->memory, e->device->block_count, sizeof *e->writers, 0);
    e->copier = kvbi_memory_alloc(&e->memory, 1, sizeof *e->copier, 0);
    e->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (e->notes == NULL || e->writers == NULL || e->copier == NULL || e->timer < 0)
        return KVB_ENOMEM;
    for (uint32_t i = 0; i < e->device->block_count; i++)
        atomic_init(&e->writers[i], KVBI_FLIGHT_NONE);
    return 0;
}

static const struct kvbi_engine_ops cuda_ops = {.name = "cuda",
                                                .destroy = cuda_destroy,
                                                .submit = cuda_submit,
                                                .reap = cuda_reap,
                                                .wake_fd = cuda_wake_fd,
                                                .ready = cuda_ready,
                                                .drain = cuda_drain,
                                                .bytes = cuda_bytes,
                                                .signal = cuda_signal,
                                                .recall = cuda_recall};

static const struct kvbi_stream_ops cuda_stream_ops = {.import = cuda_import,
                                                       .both = cuda_both,
                                                       .flight = cuda_flight,
                                                       .watch = cuda_watch,
                                                       .wait = cuda_wait};

/* One way's method; of the kernel, how many thread blocks it has. */
static void say_way(const struct kvbi_cuda_copier *copier, bool to_device, char *said, size_t bytes)
{
    enum kvb_copy_method method = copier->methods[to_device];
    (void)snprintf(said, bytes, "%s", kvbi_cuda_method_name(method));
    if (method == KVB_COPY_KERNEL)
        (void)snprintf(said, bytes, "kernel x%u", copier->grids[to_device]);
}

static void say(const struct kvbi_cuda_engine *e, char *said, size_t said_bytes)
{
    char down[32], up[32];
    say_way(e->copier, false, down, sizeof down);
    say_way(e->copier, true, up, sizeof up);
    (void)snprintf(said, said_bytes, "cuda %d, down %s, up %s", e->cuda->device, down, up);
}

int kvbi_engine_cuda_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                            const struct kvbi_engine_cuda_config *config, char *said,
                            size_t said_bytes)
{
    *engine = NULL;
    struct kvbi_cuda_engine *e =
        kvbi_memory_alloc(memory, 1, sizeof *e, _Alignof(struct kvbi_cuda_engine));
    if (e == NULL)
        return KVB_ENOMEM;
    e->memory = *memory;
    if (kvbi_copy_queue_create(&e->queue, &e->memory, config->lines, config->capacity) != 0) {
        kvbi_memory_free(memory, e, 1, sizeof *e);
        return KVB_ENOMEM;
    }
    e->engine.ops = &cuda_ops;
    e->engine.streams = &cuda_stream_ops;
    e->own_thread = config->own_thread;
    e->clock = config->clock;
    e->hooks = config->hooks;
    e->log = config->log;
    e->device = config->device;
    e->cuda = kvbi_cuda_of(config->device);
    int error = take_tables(e, config->capacity);
    if (error == 0)
        error = kvbi_cuda_tickets_create(&e->tickets, e->cuda, config->lines, e->log);
    if (error == 0)
        error = kvbi_flights_create(&e->flights, e->cuda, e->device->block_bytes);
    if (error == 0)
        error = kvbi_cuda_copier_create(e->copier, e->cuda, e->device->base, config->method, said,
                                        said_bytes);
    if (error != 0) {
        cuda_destroy(&e->engine);
        return error;
    }
    say(e, said, said_bytes);
    *engine = &e->engine;
    return 0;
}
