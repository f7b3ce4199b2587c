/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coming back from KVB_EVENT_LOST by the sink that the header shows, word for word: progress goes
 * on while the picture is made anew, a loss meanwhile asks for one walk more and no storm, and what
 * the picture holds in the end is what is there.
 */
#include "support/kv_test.h"
#include "support/kv_wait.h"

enum { BLOCKS = 400, HOST_BLOCKS = 200, SEEDS = 600, QUEUE_MAX = 4096, PICTURE_MAX = 2 * SEEDS };

/* ---- The server's own: a queue, and a picture ------------------------------------------------ */

struct queued {
    struct kvb_event event;
    struct kvb_seq key;
};

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct queued *places;
    uint32_t head, count, capacity;
    bool woken;
};

struct copy {
    uint64_t hash, sequence;
    uint32_t tier;
};

struct picture {
    struct copy copies[PICTURE_MAX];
    uint32_t count, forgotten;
    uint64_t put;
    void (*on_put)(struct picture *picture); /* what the test does within a visit */
};

static void queue_init(struct queue *queue, uint32_t capacity)
{
    memset(queue, 0, sizeof *queue);
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->changed, NULL);
    queue->capacity = capacity;
    queue->places = calloc(capacity + 1, sizeof *queue->places);
    assert_non_null(queue->places);
}

static bool queue_add(struct queue *queue, const struct kvb_event *event)
{
    pthread_mutex_lock(&queue->mutex);
    bool room = queue->count < queue->capacity;
    if (room) {
        struct queued *place =
            &queue->places[(queue->head + queue->count++) % (queue->capacity + 1)];
        place->event = *event;
        if (event->key != NULL)
            memcpy(&place->key, event->key, sizeof place->key);
        place->event.key = &place->key;
    }
    pthread_mutex_unlock(&queue->mutex);
    return room;
}

static void queue_clear(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->count = 0;
    pthread_mutex_unlock(&queue->mutex);
}

static void queue_wake(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->woken = true;
    pthread_cond_signal(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
}

static void queue_wait(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    while (!queue->woken)
        pthread_cond_wait(&queue->changed, &queue->mutex);
    queue->woken = false;
    pthread_mutex_unlock(&queue->mutex);
}

/*
 * Readable until the next one is taken: the place beyond the capacity is never written meanwhile.
 */
static const struct kvb_event *queue_take(struct queue *queue)
{
    const struct kvb_event *event = NULL;
    pthread_mutex_lock(&queue->mutex);
    if (queue->count > 0) {
        event = &queue->places[queue->head].event;
        queue->head = (queue->head + 1) % (queue->capacity + 1);
        queue->count--;
    }
    pthread_mutex_unlock(&queue->mutex);
    return event;
}

static uint32_t find_copy(const struct picture *picture, const struct kvb_event *event)
{
    struct kvb_seq name;
    uint32_t i = 0;
    memcpy(&name, event->key, sizeof name);
    while (i < picture->count &&
           (picture->copies[i].hash != name.hash || picture->copies[i].tier != event->tier))
        i++;
    return i;
}

static void put_copy(struct picture *picture, const struct kvb_event *event)
{
    struct kvb_seq name;
    uint32_t i = find_copy(picture, event);
    memcpy(&name, event->key, sizeof name);
    if (i < picture->count && picture->copies[i].sequence > event->sequence)
        return;
    if (i == picture->count && picture->count < PICTURE_MAX)
        picture->count++;
    if (i < PICTURE_MAX)
        picture->copies[i] = (struct copy){name.hash, event->sequence, event->tier};
}

static void picture_put(struct picture *picture, const struct kvb_event *event)
{
    picture->put++;
    put_copy(picture, event);
    if (picture->on_put != NULL)
        picture->on_put(picture);
}

static void picture_forget(struct picture *picture)
{
    picture->count = 0;
    picture->forgotten++;
}

static void take_out(struct picture *picture, uint32_t i)
{
    picture->copies[i] = picture->copies[--picture->count];
}

static void picture_apply(struct picture *picture, const struct kvb_event *event)
{
    if (event->kind == KVB_EVENT_STORED) {
        put_copy(picture, event);
    } else if (event->kind == KVB_EVENT_REMOVED) {
        uint32_t i = find_copy(picture, event);
        if (i < picture->count && picture->copies[i].sequence < event->sequence)
            take_out(picture, i);
    } else {
        for (uint32_t i = picture->count; i-- > 0;)
            if (picture->copies[i].sequence < event->sequence)
                take_out(picture, i);
    }
}

#include "support/header_sink.h"

/* ---- The rig --------------------------------------------------------------------------------- */

static struct kv_rig rig;
static struct router router;
static uint64_t seed;

static void open_rig(uint32_t progress, uint32_t event_capacity, uint32_t queue_capacity)
{
    memset(&router, 0, sizeof router);
    seed = 1;
    queue_init(&router.queue, queue_capacity);
    kv_rig_init(&rig);
    kv_rig_no_tiers(&rig);
    kv_rig_add_tier(&rig, KVB_TIER_DEVICE, BLOCKS, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_add_tier(&rig, KVB_TIER_HOST, HOST_BLOCKS, KVB_OFFLOAD_MANUAL);
    rig.config.progress = progress;
    rig.config.event_capacity = event_capacity;
    rig.config.sink = (struct kvb_event_sink){deliver, &router};
    kv_rig_open(&rig);
    router.kv = rig.kv;
    router.one_thread = progress == KVB_PROGRESS_POLL;
}

static void close_rig(void)
{
    kv_rig_close(&rig);
    free(router.queue.places);
}

static void store_one(uint64_t which)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = NULL;
    kv_tokens(tokens, KV_TOKENS, which);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, tokens, 1, &block);
    kv_unref(&rig, block);
}

static void store_some(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        store_one(kv_random(&seed, SEEDS));
}

static int compare_visit(void *arg, const struct kvb_event *event)
{
    uint32_t *count = arg;
    count[0]++;
    count[1] += find_copy(&router.picture, event) < router.picture.count;
    return 0;
}

/* All is delivered and all turns are taken. */
static void assert_picture_is_the_index(void)
{
    uint32_t count[2] = {0, 0};
    assert_false(atomic_load(&router.lost));
    kv_ok(kvb_index_walk(rig.kv, compare_visit, count));
    assert_true(count[0] > 0);
    assert_int_equal(count[1], count[0]);
    assert_int_equal(router.picture.count, count[0]);
}

/* ---- One thread that polls ------------------------------------------------------------------- */

static void test_rebuild_by_the_thread_that_polls_ends_in_what_is_there(void **state)
{
    (void)state;
    open_rig(KVB_PROGRESS_POLL, 16, QUEUE_MAX);
    for (int round = 0; round < 20; round++) {
        store_some(200);
        kv_poll(&rig);
        kv_ok(turn(&router));
        assert_picture_is_the_index();
    }
    assert_true(router.picture.forgotten >= 10);
    close_rig();
}

/* Each 32nd visit stores more than the ring holds. */
static void overflow_again(struct picture *picture)
{
    if (picture->put % 32 == 0)
        store_some(40);
}

static void test_rebuild_during_which_events_are_lost_is_done_once_more(void **state)
{
    (void)state;
    open_rig(KVB_PROGRESS_POLL, 16, QUEUE_MAX);
    store_some(200);
    kv_poll(&rig);
    uint64_t lost = kv_stats(&rig).events_lost;
    assert_true(lost > 0);
    router.picture.on_put = overflow_again;
    kv_ok(turn(
        &router)); /* with visits enough for several losses, each of them delivered by its polls */
    assert_int_equal(router.picture.forgotten, 1);
    assert_true(kv_stats(&rig).events_lost > lost);
    router.picture.on_put = NULL;
    kv_poll(&rig);
    assert_true(atomic_load(&router.lost));
    kv_ok(turn(&router));
    assert_int_equal(router.picture.forgotten, 2);
    kv_ok(turn(&router));
    assert_int_equal(router.picture.forgotten, 2);
    assert_picture_is_the_index();
    close_rig();
}

static void test_rebuild_by_the_thread_that_polls_does_not_hold_transfers_up(void **state)
{
    (void)state;
    open_rig(KVB_PROGRESS_POLL, 16, QUEUE_MAX);
    store_some(200);
    atomic_store(&router.lost, true);
    assert_int_equal(kv_stats(&rig).lanes[0].transferred, 0);
    kv_ok(turn(&router));
    assert_true(kv_stats(&rig).lanes[0].transferred > 0);
    kv_poll(&rig);
    kv_ok(turn(&router));
    assert_picture_is_the_index();
    close_rig();
}

static void test_queue_that_is_full_is_a_loss_like_any_other(void **state)
{
    (void)state;
    open_rig(KVB_PROGRESS_POLL, 1024, 50);
    store_some(200);
    kv_poll(&rig);
    assert_int_equal(kv_stats(&rig).events_lost, 0);
    assert_true(atomic_load(&router.lost));
    while (atomic_load(&router.lost))
        kv_ok(turn(&router));
    kv_poll(&rig);
    kv_ok(turn(&router));
    assert_picture_is_the_index();
    close_rig();
}

static void clear_in_between(struct picture *picture)
{
    if (picture->put % 50 != 49)
        return;
    kv_ok(kvb_manager_clear(rig.kv));
    store_some(100);
}

static void test_rebuild_in_the_middle_of_which_all_is_cleared_ends_in_what_is_there(void **state)
{
    (void)state;
    open_rig(KVB_PROGRESS_POLL, 4096, QUEUE_MAX);
    for (int round = 0; round < 20; round++) {
        store_some(100);
        atomic_store(&router.lost, true);
        router.picture.on_put = clear_in_between;
        kv_ok(turn(&router));
        router.picture.on_put = NULL;
        kv_poll(&rig);
        kv_ok(turn(&router));
        assert_picture_is_the_index();
    }
    assert_int_equal(kv_stats(&rig).events_lost, 0);
    assert_true(router.picture.put > 500);
    close_rig();
}

/* ---- A thread of the server's ---------------------------------------------------------------- */

static atomic_bool stop;
static atomic_int turn_errors;

static void *take_turns(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        queue_wait(&router.queue);
        atomic_fetch_add(&turn_errors, turn(&router) != 0);
    }
    return NULL;
}

static pthread_t start_turns(void)
{
    pthread_t thread;
    atomic_store(&stop, false);
    atomic_store(&turn_errors, 0);
    assert_int_equal(pthread_create(&thread, NULL, take_turns, NULL), 0);
    return thread;
}

/* The last turns are the test's, with the thread gone. */
static void end_turns(pthread_t thread)
{
    atomic_store(&stop, true);
    queue_wake(&router.queue);
    pthread_join(thread, NULL);
    kv_settle(&rig);
    kv_ok(turn(&router));
    assert_int_equal(atomic_load(&turn_errors), 0);
}

static struct kv_wait standing, gate;

/* The walk stands at its first visit until the test has seen what it wants to see. */
static void stand_once(struct picture *picture)
{
    if (picture->put != 1)
        return;
    kv_wait_signal(&standing);
    (void)kv_wait_for(&gate, 1);
}

static void test_progress_goes_on_while_a_walk_stands_in_a_visit(void **state)
{
    (void)state;
    kv_wait_init(&standing);
    kv_wait_init(&gate);
    open_rig(KVB_PROGRESS_THREAD, 1024, QUEUE_MAX);
    router.picture.on_put = stand_once;
    pthread_t thread = start_turns();
    store_some(100);
    kv_settle(&rig);
    atomic_store(&router.lost, true);
    queue_wake(&router.queue);
    assert_true(kv_wait_for(&standing, 1));
    uint64_t transferred = kv_stats(&rig).lanes[0].transferred;
    for (uint32_t i = 0; i < 20; i++)
        store_one(SEEDS + i);
    kv_settle(&rig); /* all that is done, and delivered */
    assert_int_equal(kv_stats(&rig).lanes[0].transferred, transferred + 20);
    kv_wait_signal(&gate);
    end_turns(thread);
    assert_picture_is_the_index();
    close_rig();
}

static void test_rebuilds_beside_a_busy_server_end_in_what_is_there(void **state)
{
    (void)state;
    open_rig(KVB_PROGRESS_THREAD, 8, QUEUE_MAX);
    pthread_t thread = start_turns();
    store_some(3000);
    end_turns(thread);
    assert_true(kv_stats(&rig).events_lost > 0);
    assert_picture_is_the_index();
    close_rig();
}

/* ---- How wide the ring is where nothing was asked for ---------------------------------------- */

static void open_default(uint32_t blocks)
{
    memset(&router, 0, sizeof router);
    queue_init(&router.queue, 1);
    kv_rig_init(&rig);
    kv_rig_no_tiers(&rig);
    kv_rig_add_tier(&rig, KVB_TIER_DEVICE, blocks, KVB_OFFLOAD_MANUAL);
    rig.config.event_capacity = 0;
    rig.config.sink = (struct kvb_event_sink){deliver, &router};
    kv_rig_open(&rig);
    router.kv = rig.kv;
}

/* A full tier, registered and evicted with no delivery in between. */
static void test_default_ring_holds_a_full_tier_that_comes_and_goes(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    open_default(MANY);
    for (uint64_t i = 0; i < MANY; i++)
        store_one(i);
    struct kvb_block **blocks = calloc(MANY, sizeof(struct kvb_block *));
    assert_non_null(blocks);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, MANY, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig.kv, blocks, MANY, NULL));
    free(blocks);
    assert_int_equal(kv_stats(&rig).events, 2 * MANY);
    assert_int_equal(kv_stats(&rig).events_lost, 0);
    close_rig();
}

static void test_default_ring_of_a_small_manager_holds_4096(void **state)
{
    (void)state;
    open_default(1);
    for (uint64_t i = 0; kv_stats(&rig).events < 4095; i++)
        store_one(i % 2); /* stored, removed, stored ... */
    assert_int_equal(kv_stats(&rig).events_lost, 0);
    store_one(2); /* two more */
    assert_int_equal(kv_stats(&rig).events, 4097);
    assert_int_equal(kv_stats(&rig).events_lost, 1);
    close_rig();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rebuild_by_the_thread_that_polls_ends_in_what_is_there),
        cmocka_unit_test(test_rebuild_during_which_events_are_lost_is_done_once_more),
        cmocka_unit_test(test_rebuild_by_the_thread_that_polls_does_not_hold_transfers_up),
        cmocka_unit_test(test_queue_that_is_full_is_a_loss_like_any_other),
        cmocka_unit_test(test_rebuild_in_the_middle_of_which_all_is_cleared_ends_in_what_is_there),
        cmocka_unit_test(test_progress_goes_on_while_a_walk_stands_in_a_visit),
        cmocka_unit_test(test_rebuilds_beside_a_busy_server_end_in_what_is_there),
        cmocka_unit_test(test_default_ring_holds_a_full_tier_that_comes_and_goes),
        cmocka_unit_test(test_default_ring_of_a_small_manager_holds_4096),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
