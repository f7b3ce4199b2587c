/* SPDX-License-Identifier: Apache-2.0 */
/* relay - see relay.h. */
#include "transfer/relay.h"

#include <sys/epoll.h>
#include <unistd.h>

#include "base/debug.h"
#include "transfer/copy_queue.h"

#define REAP_MAX 64u

/* How far an item is. */
struct leg {
    uint32_t between; /* its block of the memory in between */
    bool second;
    bool behind; /* a ticket that was not reached when it began */
    int result;  /* once it is over */
    bool condemned;
};

struct relay_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    struct kvbi_engine *device, *lower;
    struct kvbi_tier *between;
    struct leg *legs;    /* by item */
    uint32_t *free_list; /* blocks in between */
    uint32_t free_count;
    uint32_t behind; /* blocks in between of such legs */
    int epoll_fd;
    bool draining;
    bool lost; /* the GPU is, and may still write blocks in between: none of them is used again */
    /*
     * a leg, since the last reap began: its engine may want to be reaped before anything wakes us
     */
    bool begun;

    struct kvbi_copy_queue queue;
    struct kvbi_copy_list completed;
    /* by urgent: deferred, since enough blocks wait for tickets already */
    struct kvbi_copy_list deferred[2];
    struct kvbi_awaited awaited; /* by those */
};

static struct relay_engine *of(struct kvbi_engine *engine)
{
    return (struct relay_engine *)(void *)engine; /* its first member */
}

/* ---- Legs ------------------------------------------------------------------------------------ */

static void complete(struct relay_engine *r, uint32_t index, int result)
{
    r->legs[index].result = result;
    r->behind -= r->legs[index].behind;
    r->free_list[r->free_count++] = r->legs[index].between;
    kvbi_lock_take(&r->queue.lock);
    kvbi_copy_push_locked(&r->queue, &r->completed, index);
    kvbi_lock_release(&r->queue.lock);
}

/*
 * From the source into the memory in between, or from there to the target. A stream waits where the
 * GPU's memory is touched; what the host waits for is reached, or it would not have begun.
 */
static struct kvbi_copy leg_copy(const struct relay_engine *r, uint32_t index)
{
    const struct leg *leg = &r->legs[index];
    struct kvbi_copy copy = r->queue.items[index].copy;
    copy.cookie = index;
    copy.place = NULL;
    if (leg->second) {
        copy.from = r->between;
        copy.from_slot = leg->between;
        copy.tickets.source = 0;
    } else {
        copy.to = r->between;
        copy.to_slot = leg->between;
        copy.tickets.target = 0;
    }
    return copy;
}

/*
 * Of the lower tier's failures the pipeline draws conclusions about its files, so a device's must
 * not look like one.
 */
static int as_said_by(const struct relay_engine *r, const struct kvbi_engine *engine, int result)
{
    return engine == r->device && result != 0 && result != KVB_ECANCELED ? KVB_EDEVICE : result;
}

static void submit_leg(struct relay_engine *r, uint32_t index)
{
    struct kvbi_copy copy = leg_copy(r, index);
    const struct kvbi_tier *end = copy.from == r->between ? copy.to : copy.from;
    struct kvbi_engine *engine = end->on_streams ? r->device : r->lower;
    int error = engine->ops->submit(engine, &copy, 1, r->queue.items[index].urgent);
    r->begun = true;
    if (error != 0)
        complete(r, index, as_said_by(r, engine, error));
}

/*
 * What goes down may stand behind a step of the server, with its block: a quarter of them is for
 * what comes up.
 */
static bool has_room_locked(const struct relay_engine *r, const struct kvbi_copy_list *ready)
{
    const struct kvbi_copy *copy = &r->queue.items[ready->first].copy;
    return !copy->from->on_streams || r->free_count > r->between->block_count / 4;
}

/* What is deferred goes back in front of what is ready. */
static void resume_locked(struct relay_engine *r)
{
    for (uint32_t urgent = 0; urgent < 2; urgent++) {
        kvbi_copy_append_locked(&r->queue, &r->deferred[urgent], &r->queue.ready[urgent]);
        kvbi_copy_append_locked(&r->queue, &r->queue.ready[urgent], &r->deferred[urgent]);
    }
    kvbi_awaited_clear(&r->awaited);
}

static bool has_deferred(const struct relay_engine *r)
{
    return r->deferred[0].count + r->deferred[1].count > 0;
}

/*
 * What is ready, less what has to be deferred at the front of it. Half of the blocks in between are
 * for what need not wait for the GPU.
 */
static struct kvbi_copy_list *next_locked(struct relay_engine *r)
{
    struct kvbi_copy_list *ready = kvbi_copy_next_locked(&r->queue);
    while (ready->count > 0 && r->behind >= r->between->block_count / 2 &&
           kvbi_copy_stands_behind(r->queue.lines, &r->queue.items[ready->first].copy)) {
        uint32_t index = kvbi_copy_pop_locked(&r->queue, ready);
        kvbi_awaited_add_both(&r->awaited, r->queue.lines, r->queue.items[index].copy.tickets);
        kvbi_copy_push_locked(&r->queue, &r->deferred[r->queue.items[index].urgent], index);
        ready = kvbi_copy_next_locked(&r->queue);
    }
    return ready;
}

static uint32_t take_ready(struct relay_engine *r)
{
    uint32_t index = KVBI_NONE;
    kvbi_lock_take(&r->queue.lock);
    kvbi_copy_promote_locked(&r->queue);
    struct kvbi_copy_list *ready = next_locked(r);
    if (ready->count > 0 && has_room_locked(r, ready))
        index = kvbi_copy_pop_locked(&r->queue, ready);
    kvbi_lock_release(&r->queue.lock);
    return index;
}

static void refuse_ready(struct relay_engine *r)
{
    kvbi_lock_take(&r->queue.lock);
    resume_locked(r);
    kvbi_copy_promote_locked(&r->queue);
    struct kvbi_copy_list *ready;
    while ((ready = kvbi_copy_next_locked(&r->queue))->count > 0) {
        uint32_t index = kvbi_copy_pop_locked(&r->queue, ready);
        r->legs[index] = (struct leg){.between = KVBI_NONE, .result = KVB_EDEVICE};
        kvbi_copy_push_locked(&r->queue, &r->completed, index);
    }
    kvbi_lock_release(&r->queue.lock);
}

static void start(struct relay_engine *r)
{
    uint32_t index;
    if (r->lost)
        refuse_ready(r);
    if (has_deferred(r) && (kvbi_awaited_due(&r->awaited, r->queue.lines) ||
                            r->behind < r->between->block_count / 2)) {
        kvbi_lock_take(&r->queue.lock);
        resume_locked(r);
        kvbi_lock_release(&r->queue.lock);
    }
    while (!r->lost && r->free_count > 0 && (index = take_ready(r)) != KVBI_NONE) {
        bool behind = kvbi_copy_stands_behind(r->queue.lines, &r->queue.items[index].copy);
        r->behind += behind;
        r->legs[index] = (struct leg){.between = r->free_list[--r->free_count], .behind = behind};
        submit_leg(r, index);
    }
}

/* What one of the engines has completed: the second leg follows the first. */
static void advance(struct relay_engine *r, struct kvbi_engine *engine, uint64_t until_ns)
{
    struct kvbi_completion completions[REAP_MAX];
    bool more = true;
    while (more) {
        uint32_t count = engine->ops->reap(engine, completions, REAP_MAX, until_ns, &more);
        more = more && count > 0;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t index = (uint32_t)completions[i].cookie;
            struct leg *leg = &r->legs[index];
            int result = as_said_by(r, engine, completions[i].result);
            bool condemned = completions[i].condemned;
            r->lost |= condemned && engine == r->device;
            leg->condemned |= condemned && engine == r->lower;
            if (result != 0 || leg->second || r->draining) {
                complete(r, index, result == 0 && !leg->second ? KVB_ECANCELED : result);
                continue;
            }
            leg->second = true;
            submit_leg(r, index);
        }
    }
}

/* ---- The interface --------------------------------------------------------------------------- */

static int relay_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                        bool urgent)
{
    int error = kvbi_copy_queue_submit(&of(engine)->queue, copies, count, urgent);
    if (error == 0)
        start(of(engine));
    return error;
}

static uint32_t relay_reap(struct kvbi_engine *engine, struct kvbi_completion *completions,
                           uint32_t max, uint64_t until_ns, bool *more)
{
    struct relay_engine *r = of(engine);
    r->begun = false;
    advance(r, r->device, until_ns);
    advance(r, r->lower, until_ns);
    start(r);
    kvbi_lock_take(&r->queue.lock);
    uint32_t count = kvbi_copy_complete_cancelled_locked(&r->queue, completions, max);
    while (count < max && r->completed.count > 0) {
        uint32_t index = kvbi_copy_pop_locked(&r->queue, &r->completed);
        completions[count++] = (struct kvbi_completion){.cookie = r->queue.items[index].copy.cookie,
                                                        .result = r->legs[index].result,
                                                        .condemned = r->legs[index].condemned};
        kvbi_copy_push_locked(&r->queue, &r->queue.free, index);
    }
    *more = r->completed.count > 0 || r->begun;
    kvbi_lock_release(&r->queue.lock);
    return count;
}

static int relay_wake_fd(struct kvbi_engine *engine)
{
    return of(engine)->epoll_fd;
}

static bool relay_ready(struct kvbi_engine *engine)
{
    struct relay_engine *r = of(engine);
    kvbi_lock_take(&r->queue.lock);
    const struct kvbi_copy_queue *q = &r->queue;
    bool ready = r->completed.count > 0 || q->cancelled.count > 0 || kvbi_copy_due_locked(q);
    kvbi_lock_release(&r->queue.lock);
    return ready || r->device->ops->ready(r->device) || r->lower->ops->ready(r->lower);
}

static void relay_drain(struct kvbi_engine *engine)
{
    struct relay_engine *r = of(engine);
    kvbi_lock_take(&r->queue.lock);
    resume_locked(r);
    kvbi_copy_cancel_locked(&r->queue);
    kvbi_lock_release(&r->queue.lock);
    r->draining = true; /* for good: drain is the beginning of the end */
    r->device->ops->drain(r->device);
    r->lower->ops->drain(r->lower);
}

static bool relay_signal(struct kvbi_engine *engine)
{
    return kvbi_copy_queue_signal(&of(engine)->queue);
}

static bool relay_recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    return kvbi_copy_queue_recall(&of(engine)->queue, place, cookie);
}

static size_t relay_bytes(const struct kvbi_engine *engine)
{
    const struct relay_engine *r = (const struct relay_engine *)(const void *)engine;
    return sizeof *r + kvbi_copy_queue_bytes(&r->queue) + r->queue.capacity * sizeof *r->legs +
           r->between->block_count * sizeof *r->free_list + r->device->ops->bytes(r->device) +
           r->lower->ops->bytes(r->lower);
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static void relay_destroy(struct kvbi_engine *engine)
{
    struct relay_engine *r = of(engine);
    struct kvbi_memory memory = r->memory;
    r->device->ops->destroy(r->device);
    r->lower->ops->destroy(r->lower);
    if (r->epoll_fd >= 0)
        (void)close(r->epoll_fd);
    kvbi_memory_free(&memory, r->legs, r->queue.capacity, sizeof *r->legs);
    kvbi_memory_free(&memory, r->free_list, r->between->block_count, sizeof *r->free_list);
    kvbi_copy_queue_destroy(&r->queue);
    kvbi_memory_free(&memory, r, 1, sizeof *r);
}

static const struct kvbi_engine_ops relay_ops = {.name = "relay",
                                                 .destroy = relay_destroy,
                                                 .submit = relay_submit,
                                                 .reap = relay_reap,
                                                 .wake_fd = relay_wake_fd,
                                                 .ready = relay_ready,
                                                 .drain = relay_drain,
                                                 .bytes = relay_bytes,
                                                 .signal = relay_signal,
                                                 .recall = relay_recall};

/*
 * Both descriptors behind one. The lower one's may be none: then it works in reap only, and the
 * device's timer does not stand for it.
 */
static bool watch(const struct relay_engine *r, struct kvbi_engine *engine)
{
    int fd = engine->ops->wake_fd(engine);
    struct epoll_event event = {.events = EPOLLIN};
    return fd < 0 || epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static int fill(struct relay_engine *r, uint32_t capacity)
{
    r->legs = kvbi_memory_alloc(&r->memory, capacity, sizeof *r->legs, 0);
    r->free_list = kvbi_memory_alloc(&r->memory, r->between->block_count, sizeof *r->free_list, 0);
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (r->legs == NULL || r->free_list == NULL || r->epoll_fd < 0 || !watch(r, r->device) ||
        !watch(r, r->lower))
        return KVB_ENOMEM;
    while (r->free_count < r->between->block_count) {
        r->free_list[r->free_count] = r->free_count;
        r->free_count++;
    }
    return 0;
}

int kvbi_engine_relay_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             const struct kvbi_relay_config *config)
{
    *engine = NULL;
    struct relay_engine *r = kvbi_memory_alloc(memory, 1, sizeof *r, _Alignof(struct relay_engine));
    int error = r == NULL ? KVB_ENOMEM : 0;
    if (error == 0) {
        *r = (struct relay_engine){.engine = {.ops = &relay_ops},
                                   .memory = *memory,
                                   .device = config->device,
                                   .lower = config->lower,
                                   .between = config->between,
                                   .epoll_fd = -1};
        error = kvbi_copy_queue_create(&r->queue, &r->memory, config->lines, config->capacity);
    }
    if (error != 0) {
        config->device->ops->destroy(config->device);
        config->lower->ops->destroy(config->lower);
        kvbi_memory_free(memory, r, 1, sizeof *r);
        return error;
    }
    error = fill(r, config->capacity);
    if (error == 0)
        *engine = &r->engine;
    else
        relay_destroy(&r->engine);
    return error;
}
