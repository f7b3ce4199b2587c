/* SPDX-License-Identifier: Apache-2.0 */
struct router {
    struct kvb_manager *kv;
    struct queue queue;     // copies of events, oldest first, under a lock of its own
    struct picture picture; // belongs to whoever takes turns
    atomic_bool lost;       // the picture is to be made anew
    bool one_thread;        // KVB_PROGRESS_POLL, and the thread that polls takes the turns
    uint32_t visits;
};

static void deliver(void *context, const struct kvb_event *event)
{
    struct router *router = context;
    if (event->kind == KVB_EVENT_LOST || !queue_add(&router->queue, event)) {
        queue_clear(&router->queue); // the walk will know what these say
        atomic_store(&router->lost, true);
    }
    queue_wake(&router->queue);
}

static int visit(void *arg, const struct kvb_event *event)
{
    struct router *router = arg;
    int left = 0;
    picture_put(&router->picture, event);
    if (router->one_thread && ++router->visits % 64 == 0)
        left = kvb_manager_poll(router->kv, 0); // else nothing moves until the walk is over
    return left < 0 ? left : 0;
}

static int turn(struct router *router)
{
    const struct kvb_event *event;
    int error = 0;
    if (atomic_exchange(&router->lost, false)) {
        picture_forget(&router->picture);
        error = kvb_index_walk(router->kv, visit, router); // events are queued meanwhile
    }
    if (error != 0) {
        atomic_store(&router->lost, true);
        queue_wake(&router->queue); // for another turn, if the server takes one
    }
    while (error == 0 && (event = queue_take(&router->queue)) != NULL)
        picture_apply(&router->picture, event);
    return error;
}
