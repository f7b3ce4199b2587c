/* SPDX-License-Identifier: Apache-2.0 */
/* Who runs rounds, and when: the manager's thread, or the caller's polls. See progress.h. */
#include "offload/progress.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "offload/round.h"

/*
 * How long the own thread looks for work before it sleeps: a cross-CPU wake-up costs about 30 us
 * (docs/performance.md).
 */
#define SPIN_NS 50000
/* A batch of rounds between looks at `stop`; copies are not cut short by it. */
#define SLICE_NS 5000000

static uint64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t saturating_add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uintptr_t this_thread(void)
{
    return (uintptr_t)pthread_self();
}

/* ---- Waking and sleeping --------------------------------------------------------------------- */

void kvbi_progress_wake(struct kvbi_progress *progress)
{
    bool was = atomic_exchange(&progress->signalled, true);
    if (progress->own_thread ? atomic_load(&progress->sleeping) : !was)
        kvbi_wake_signal(&progress->wake);
}

static void acknowledge(struct kvbi_progress *progress)
{
    if (!progress->own_thread)
        kvbi_wake_drain(&progress->wake);
    kvbi_lock_take(&progress->store->lock);
    /* first: whoever waits must never see neither the signal nor that it is being followed */
    progress->quiet = false;
    atomic_store(&progress->signalled, false);
    kvbi_lock_release(&progress->store->lock);
}

/* Everything is delivered and nothing moves. */
static bool is_idle_locked(const struct kvbi_progress *progress, const struct kvb_op *op)
{
    (void)op;
    return progress->quiet && !atomic_load(&progress->signalled) &&
           kvbi_pipeline_idle_locked(progress->pipeline) &&
           (progress->sink.deliver == NULL || !kvbi_event_log_pending(&progress->store->events));
}

/* Nothing was found to do. Unless that changed meanwhile, who flushes may look. */
static void fall_quiet(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    struct kvbi_awaited awaited;
    kvbi_pipeline_await_locked(progress->pipeline, &awaited);
    progress->quiet = !atomic_load(&progress->signalled);
    /* callers wake when they release the lock: what is set is of the rounds just over */
    progress->store->work = false;
    if (progress->flushers > 0 && is_idle_locked(progress, NULL))
        kvbi_cond_broadcast(&progress->fell_idle);
    kvbi_lock_release(&progress->store->lock);
    if (!kvbi_engines_await(&progress->pipeline->engines, &awaited))
        kvbi_progress_wake(progress); /* it has been reached meanwhile */
}

/* The earliest deadline of an operation or a pin, or end of what a budget delays, from now. */
static uint64_t until_deadline(struct kvbi_progress *progress)
{
    struct kvbi_deadline first;
    uint64_t deadline_ns = UINT64_MAX, other_ns;
    uint64_t now_ns = kvbi_clock_now(progress->store->clock);
    kvbi_lock_take(&progress->store->lock);
    if (kvbi_deadlines_first(&progress->pipeline->onboard.deadlines, &first))
        deadline_ns = first.deadline_ns;
    if (kvbi_pins_next_deadline(&progress->store->pins, &other_ns) && other_ns < deadline_ns)
        deadline_ns = other_ns;
    const struct kvbi_lanes *lanes = &progress->pipeline->lanes;
    for (uint32_t i = 0; i < lanes->count; i++)
        if (kvbi_lane_next_locked(&lanes->all[i], &other_ns) && other_ns < deadline_ns)
            deadline_ns = other_ns;
    kvbi_lock_release(&progress->store->lock);
    if (deadline_ns == UINT64_MAX)
        return UINT64_MAX;
    return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

/*
 * Until a descriptor is readable, or the time is over. Rounded up to milliseconds, so that it never
 * spins. The own thread takes what is edge-triggered out of the epoll instance, which saves it the
 * draining of what stands behind them.
 */
static void sleep_on(const struct kvbi_progress *progress, uint64_t timeout_ns)
{
    struct epoll_event ready[KVBI_ENGINE_MAX + 1];
    struct pollfd wait = {.fd = progress->epoll_fd, .events = POLLIN};
    uint64_t ms = timeout_ns / 1000000 + 1;
    int timeout = timeout_ns == UINT64_MAX ? -1 : ms > 3600000 ? 3600000 : (int)ms;
    if (progress->own_thread)
        (void)epoll_wait(progress->epoll_fd, ready, KVBI_ENGINE_MAX + 1, timeout);
    else
        (void)poll(&wait, 1, timeout); /* EINTR and time-outs end in another look as well */
}

/* ---- The manager's own thread ---------------------------------------------------------------- */

static bool stopping(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    bool stop = progress->stop;
    kvbi_lock_release(&progress->store->lock);
    return stop;
}

static void drain_if_closing(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    bool closing = progress->closing;
    kvbi_lock_release(&progress->store->lock);
    if (closing)
        kvbi_engines_drain(&progress->pipeline->engines);
}

static bool has_work(const struct kvbi_progress *progress)
{
    return atomic_load(&progress->signalled) || kvbi_engines_ready(&progress->pipeline->engines);
}

/*
 * A disk takes longer than looking for it is worth, and its engine's descriptor wakes. A GPU is not
 * to wait for a wake-up.
 */
static bool awaits_files_only(struct kvbi_progress *progress)
{
    const struct kvbi_pipeline *pipeline = progress->pipeline;
    uint32_t inflight = 0;
    if (pipeline->engines.streams != NULL)
        return false;
    kvbi_lock_take(&progress->store->lock);
    for (uint32_t i = 0; i < pipeline->lanes.count; i++) {
        const struct kvbi_lane *lane = &pipeline->lanes.all[i];
        if (lane->to_tier->lasting != NULL)
            inflight +=
                lane->book.inflight + pipeline->onboard.lanes[lane->from->tier].book.inflight;
    }
    kvbi_lock_release(&progress->store->lock);
    return inflight > 0;
}

/*
 * Awake for a while longer only if there was something to do: an engine's descriptor may tick while
 * what it carries takes its time.
 */
static void wait_for_work(struct kvbi_progress *progress, bool worked)
{
    uint64_t give_up = worked && !awaits_files_only(progress) ? real_ns() + SPIN_NS : 0;
    while (!has_work(progress) && real_ns() < give_up)
        ;
    atomic_store(&progress->sleeping, true);
    if (!has_work(progress))
        sleep_on(progress, until_deadline(progress));
    atomic_store(&progress->sleeping, false);
}

static void wait_for_begin(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    while (!progress->begun && !progress->stop)
        kvbi_cond_wait(&progress->changed, &progress->store->lock);
    kvbi_lock_release(&progress->store->lock);
}

static void *run_thread(void *argument)
{
    struct kvbi_progress *progress = argument;
    wait_for_begin(progress);
    atomic_store(&progress->runner, this_thread());
    while (!stopping(progress)) {
        acknowledge(progress);
        drain_if_closing(progress);
        atomic_store(&progress->running, true);
        bool worked = false;
        while (kvbi_round(progress,
                          saturating_add(kvbi_clock_now(progress->store->clock), SLICE_NS))) {
            worked = true;
            drain_if_closing(progress);
        }
        atomic_store(&progress->running, false);
        fall_quiet(progress);
        wait_for_work(progress, worked);
    }
    return NULL;
}

/* ---- Polling --------------------------------------------------------------------------------- */

bool kvbi_progress_in_callback(struct kvbi_progress *progress)
{
    return atomic_load(&progress->running) && atomic_load(&progress->runner) == this_thread();
}

int kvbi_progress_may_wait(struct kvbi_progress *progress)
{
    uintptr_t runner = 0;
    if (kvbi_progress_in_callback(progress))
        return KVB_EDEADLK;
    if (progress->own_thread ||
        atomic_compare_exchange_strong(&progress->runner, &runner, this_thread()))
        return 0;
    return runner == this_thread() ? 0 : KVB_ETHREAD;
}

/* Rounds until nothing is left or the time is over. True if something is left. */
static bool run_rounds(struct kvbi_progress *progress, uint64_t max_ns)
{
    uint64_t until_ns = saturating_add(kvbi_clock_now(progress->store->clock), max_ns);
    bool more = true;
    acknowledge(progress);
    atomic_store(&progress->running, true);
    do {
        drain_if_closing(progress);
        more = kvbi_round(progress, until_ns);
    } while (more && kvbi_clock_now(progress->store->clock) < until_ns);
    atomic_store(&progress->running, false);
    if (more)
        kvbi_progress_wake(progress);
    else
        fall_quiet(progress);
    return more;
}

int kvbi_progress_poll(struct kvbi_progress *progress, uint64_t max_ns)
{
    if (progress->own_thread)
        return kvbi_progress_in_callback(progress) ? KVB_EDEADLK : KVB_ETHREAD;
    int error = kvbi_progress_may_wait(progress);
    return error != 0 ? error : run_rounds(progress, max_ns);
}

uint64_t kvbi_progress_next_timeout(struct kvbi_progress *progress)
{
    return atomic_load(&progress->signalled) ? 0 : until_deadline(progress);
}

/* ---- Waiting --------------------------------------------------------------------------------- */

/* under the store's lock */
typedef bool over_fn(const struct kvbi_progress *progress, const struct kvb_op *op);

static bool is_delivered_locked(const struct kvbi_progress *progress, const struct kvb_op *op)
{
    (void)progress;
    return op->state == KVBI_OP_DELIVERED;
}

static bool is_over(struct kvbi_progress *progress, over_fn *over, const struct kvb_op *op)
{
    kvbi_lock_take(&progress->store->lock);
    bool result = over(progress, op);
    kvbi_lock_release(&progress->store->lock);
    return result;
}

static int wait_polling(struct kvbi_progress *progress, over_fn *over, const struct kvb_op *op,
                        uint64_t give_up)
{
    for (;;) {
        bool more = run_rounds(progress, SLICE_NS);
        if (is_over(progress, over, op))
            return 0;
        uint64_t now = real_ns();
        if (now >= give_up)
            return KVB_ETIMEDOUT;
        if (more)
            continue;
        uint64_t deadline = until_deadline(progress),
                 left = give_up == UINT64_MAX ? UINT64_MAX : give_up - now;
        sleep_on(progress, deadline < left ? deadline : left);
    }
}

static int wait_locked(struct kvbi_progress *progress, struct kvbi_cond *cond, over_fn *over,
                       const struct kvb_op *op, uint64_t give_up)
{
    while (!over(progress, op)) {
        uint64_t now = real_ns();
        if (now >= give_up)
            return KVB_ETIMEDOUT;
        (void)kvbi_cond_timedwait(cond, &progress->store->lock, give_up - now);
    }
    return 0;
}

int kvbi_progress_flush(struct kvbi_progress *progress, uint64_t timeout_ns)
{
    uint64_t give_up = saturating_add(real_ns(), timeout_ns);
    if (!progress->own_thread)
        return wait_polling(progress, is_idle_locked, NULL, give_up);
    kvbi_progress_wake(progress);
    kvbi_lock_take(&progress->store->lock);
    progress->flushers++;
    int error = wait_locked(progress, &progress->fell_idle, is_idle_locked, NULL, give_up);
    progress->flushers--;
    kvbi_lock_release(&progress->store->lock);
    return error;
}

int kvbi_progress_wait_op(struct kvbi_progress *progress, const struct kvb_op *op,
                          uint64_t timeout_ns)
{
    uint64_t give_up = saturating_add(real_ns(), timeout_ns);
    if (!progress->own_thread)
        return wait_polling(progress, is_delivered_locked, op, give_up);
    kvbi_progress_wake(progress); /* an injected clock may have come to its deadline */
    kvbi_lock_take(&progress->store->lock);
    int error = wait_locked(progress, &progress->changed, is_delivered_locked, op, give_up);
    kvbi_lock_release(&progress->store->lock);
    return error;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static int watch(const struct kvbi_progress *progress, int fd, bool edge_triggered)
{
    struct epoll_event event = {.events = EPOLLIN | (edge_triggered ? (uint32_t)EPOLLET : 0)};
    return fd < 0 || epoll_ctl(progress->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : KVB_ENOMEM;
}

static int init_conds(struct kvbi_progress *progress)
{
    if (kvbi_cond_init(&progress->changed) != 0)
        return KVB_ENOMEM;
    if (kvbi_cond_init(&progress->fell_idle) == 0)
        return 0;
    kvbi_cond_fini(&progress->changed);
    return KVB_ENOMEM;
}

int kvbi_progress_create(struct kvbi_progress *progress, struct kvbi_pipeline *pipeline,
                         const struct kvb_event_sink *sink, bool own_thread)
{
    *progress = (struct kvbi_progress){.store = pipeline->store,
                                       .pipeline = pipeline,
                                       .sink = *sink,
                                       .own_thread = own_thread,
                                       .wake = {.fd = -1},
                                       .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    if (init_conds(progress) != 0) {
        if (progress->epoll_fd >= 0)
            close(progress->epoll_fd);
        *progress = (struct kvbi_progress){0};
        return KVB_ENOMEM;
    }
    int error = progress->epoll_fd < 0 ? KVB_ENOMEM : kvbi_wake_create(&progress->wake);
    if (error == 0)
        error = watch(progress, kvbi_wake_fd(&progress->wake), own_thread);
    for (uint32_t i = 0; error == 0 && i < pipeline->engines.count; i++) {
        struct kvbi_engine *engine = pipeline->engines.all[i];
        error = watch(progress, engine->ops->wake_fd(engine), engine->edge_triggered);
    }
    if (error == 0 && own_thread) {
        error = kvbi_thread_start(&progress->thread, "kvblock", run_thread, progress);
        progress->started = error == 0;
    }
    if (error != 0)
        kvbi_progress_destroy(progress);
    return error;
}

void kvbi_progress_begin(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    progress->begun = true;
    kvbi_lock_release(&progress->store->lock);
    kvbi_cond_broadcast(&progress->changed);
}

void kvbi_progress_destroy(struct kvbi_progress *progress)
{
    if (progress->store == NULL)
        return;
    if (progress->started) {
        kvbi_lock_take(&progress->store->lock);
        progress->stop = true;
        kvbi_lock_release(&progress->store->lock);
        kvbi_cond_broadcast(&progress->changed);
        kvbi_progress_wake(progress);
        pthread_join(progress->thread, NULL);
    }
    kvbi_cond_fini(&progress->fell_idle);
    kvbi_cond_fini(&progress->changed);
    kvbi_wake_destroy(&progress->wake);
    if (progress->epoll_fd >= 0)
        close(progress->epoll_fd);
    *progress = (struct kvbi_progress){0};
}

/* What waits in a lane, or is on deck, ends there: a batch a section. */
static void cancel_lane(struct kvbi_progress *progress, struct kvbi_lane *lane, uint64_t now_ns)
{
    for (bool more = true; more;) {
        kvbi_lock_take(&progress->store->lock);
        more = kvbi_lane_cancel_all_locked(lane, now_ns);
        kvbi_lock_release(&progress->store->lock);
    }
}

void kvbi_progress_close(struct kvbi_progress *progress)
{
    struct kvbi_pipeline *pipeline = progress->pipeline;
    uint64_t now_ns = kvbi_clock_now(progress->store->clock);
    kvbi_lock_take(&progress->store->lock);
    progress->closing = true;
    kvbi_onboarding_abort_all_locked(&pipeline->onboard);
    kvbi_lanes_close_locked(&pipeline->lanes); /* nothing new */
    kvbi_lock_release(&progress->store->lock);
    for (uint32_t i = 0; i < pipeline->lanes.count; i++)
        cancel_lane(progress, &pipeline->lanes.all[i], now_ns);
    if (!progress->own_thread) /* whoever destroys drives the rest */
        atomic_store(&progress->runner, this_thread());
    kvbi_progress_wake(progress);
    (void)kvbi_progress_flush(progress, UINT64_MAX);
}
