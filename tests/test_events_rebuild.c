/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coming back from KVB_EVENT_LOST by the sink that the header shows, word for word: progress goes
 * on while the picture is made anew, a loss meanwhile asks for one walk more and no storm, and what
 * the picture holds in the end is what is there.
 */
#include "support/kv_wait.h"
#include "support/life.h"

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

struct scene;

struct picture {
    struct copy copies[PICTURE_MAX];
    uint32_t count, forgotten;
    uint64_t put;
    void (*on_put)(struct scene *scene); /* what the test does within a visit */
    struct scene *scene;
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
        picture->on_put(picture->scene);
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

/* ---- The scene ------------------------------------------------------------------------------- */

struct scene {
    struct kv_rig rig;
    struct router router;
    uint64_t seed;
    pthread_t turns; /* a thread of the server's that takes the turns, if there is one */
    bool has_turns;
    atomic_bool stop;
    atomic_int turn_errors;
    struct kv_wait standing, gate;
};

static int scene_setup(void **state)
{
    struct scene *scene = kv_scene_begin(state, sizeof *scene);
    scene->seed = 1;
    kv_wait_init(&scene->standing);
    kv_wait_init(&scene->gate);
    return 0;
}

static void stop_turns(struct scene *scene)
{
    atomic_store(&scene->stop, true);
    queue_wake(&scene->router.queue);
    pthread_join(scene->turns, NULL);
    scene->has_turns = false;
}

static int scene_teardown(void **state)
{
    struct scene *scene = *state;
    kv_wait_signal(&scene->gate);
    if (scene->has_turns)
        stop_turns(scene);
    bool good = kv_rig_end(&scene->rig);
    free(scene->router.queue.places);
    return kv_scene_end(state) == 0 && good ? 0 : -1;
}

/* With tiers and a sink, which may change until it is opened. */
static void prepare(struct scene *scene, uint32_t event_capacity, uint32_t queue_capacity)
{
    queue_init(&scene->router.queue, queue_capacity);
    scene->router.picture.scene = scene;
    scene->rig.config.event_capacity = event_capacity;
    scene->rig.config.sink = (struct kvb_event_sink){deliver, &scene->router};
}

static void open_scene(struct scene *scene, uint32_t progress, uint32_t event_capacity,
                       uint32_t queue_capacity)
{
    struct kv_rig *rig = &scene->rig;
    prepare(scene, event_capacity, queue_capacity);
    kv_rig_no_tiers(rig);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, BLOCKS, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_add_tier(rig, KVB_TIER_HOST, HOST_BLOCKS, KVB_OFFLOAD_MANUAL);
    rig->config.progress = progress;
    kv_rig_open(rig);
    scene->router.kv = rig->kv;
    scene->router.one_thread = progress == KVB_PROGRESS_POLL;
}

static void store_some(struct scene *scene, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        life_park(&scene->rig, kv_random(&scene->seed, SEEDS));
}

struct comparison {
    const struct picture *picture;
    uint32_t there, known;
};

static int compare_visit(void *arg, const struct kvb_event *event)
{
    struct comparison *comparison = arg;
    comparison->there++;
    comparison->known += find_copy(comparison->picture, event) < comparison->picture->count;
    return 0;
}

/* All is delivered and all turns are taken. */
static void assert_picture_is_the_index(struct scene *scene)
{
    struct comparison comparison = {.picture = &scene->router.picture};
    assert_false(atomic_load(&scene->router.lost));
    kv_ok(kvb_index_walk(scene->rig.kv, compare_visit, &comparison));
    assert_true(comparison.there > 0);
    assert_int_equal(comparison.known, comparison.there);
    assert_int_equal(comparison.picture->count, comparison.there);
}

/* What was delivered until now is in the picture, which is right. */
static void expect_caught_up(struct scene *scene)
{
    kv_poll(&scene->rig);
    kv_ok(turn(&scene->router));
    assert_picture_is_the_index(scene);
}

/* ---- One thread that polls ------------------------------------------------------------------- */

static void test_rebuild_by_the_thread_that_polls_ends_in_what_is_there(void **state)
{
    struct scene *scene = *state;
    open_scene(scene, KVB_PROGRESS_POLL, 16, QUEUE_MAX);
    for (int round = 0; round < 20; round++) {
        store_some(scene, 200);
        expect_caught_up(scene);
    }
    assert_true(scene->router.picture.forgotten >= 10);
}

/* Each 32nd visit stores more than the ring holds. */
static void overflow_again(struct scene *scene)
{
    if (scene->router.picture.put % 32 == 0)
        store_some(scene, 40);
}

static void test_rebuild_during_which_events_are_lost_is_done_once_more(void **state)
{
    struct scene *scene = *state;
    struct router *router = &scene->router;
    struct kv_rig *rig = &scene->rig;
    open_scene(scene, KVB_PROGRESS_POLL, 16, QUEUE_MAX);
    store_some(scene, 200);
    kv_poll(rig);
    uint64_t lost = kv_stats(rig).events_lost;
    assert_true(lost > 0);
    router->picture.on_put = overflow_again;
    kv_ok(turn(router)); /* with visits enough for several losses, each delivered by its polls */
    assert_int_equal(router->picture.forgotten, 1);
    assert_true(kv_stats(rig).events_lost > lost);
    router->picture.on_put = NULL;
    kv_poll(rig);
    assert_true(atomic_load(&router->lost));
    kv_ok(turn(router));
    assert_int_equal(router->picture.forgotten, 2);
    kv_ok(turn(router));
    assert_int_equal(router->picture.forgotten, 2);
    assert_picture_is_the_index(scene);
}

static void test_rebuild_by_the_thread_that_polls_does_not_hold_transfers_up(void **state)
{
    struct scene *scene = *state;
    open_scene(scene, KVB_PROGRESS_POLL, 16, QUEUE_MAX);
    store_some(scene, 200);
    atomic_store(&scene->router.lost, true);
    assert_int_equal(kv_stats(&scene->rig).lanes[0].transferred, 0);
    kv_ok(turn(&scene->router));
    assert_true(kv_stats(&scene->rig).lanes[0].transferred > 0);
    expect_caught_up(scene);
}

static void test_queue_that_is_full_is_a_loss_like_any_other(void **state)
{
    struct scene *scene = *state;
    open_scene(scene, KVB_PROGRESS_POLL, 1024, 50);
    store_some(scene, 200);
    kv_poll(&scene->rig);
    assert_int_equal(kv_stats(&scene->rig).events_lost, 0);
    assert_true(atomic_load(&scene->router.lost));
    while (atomic_load(&scene->router.lost))
        kv_ok(turn(&scene->router));
    expect_caught_up(scene);
}

static void clear_in_between(struct scene *scene)
{
    if (scene->router.picture.put % 50 != 49)
        return;
    kv_ok(kvb_manager_clear(scene->rig.kv));
    store_some(scene, 100);
}

static void test_rebuild_in_the_middle_of_which_all_is_cleared_ends_in_what_is_there(void **state)
{
    struct scene *scene = *state;
    open_scene(scene, KVB_PROGRESS_POLL, 4096, QUEUE_MAX);
    for (int round = 0; round < 20; round++) {
        store_some(scene, 100);
        atomic_store(&scene->router.lost, true);
        scene->router.picture.on_put = clear_in_between;
        kv_ok(turn(&scene->router));
        scene->router.picture.on_put = NULL;
        expect_caught_up(scene);
    }
    assert_int_equal(kv_stats(&scene->rig).events_lost, 0);
    assert_true(scene->router.picture.put > 500);
}

/* ---- A thread of the server's ---------------------------------------------------------------- */

static void *take_turns(void *arg)
{
    struct scene *scene = arg;
    while (!atomic_load(&scene->stop)) {
        queue_wait(&scene->router.queue);
        atomic_fetch_add(&scene->turn_errors, turn(&scene->router) != 0);
    }
    return NULL;
}

static void start_turns(struct scene *scene)
{
    assert_int_equal(pthread_create(&scene->turns, NULL, take_turns, scene), 0);
    scene->has_turns = true;
}

/* The last turns are the test's, with the thread gone. */
static void end_turns(struct scene *scene)
{
    stop_turns(scene);
    kv_flush(&scene->rig);
    kv_ok(turn(&scene->router));
    assert_int_equal(atomic_load(&scene->turn_errors), 0);
    assert_picture_is_the_index(scene);
}

/* The walk stands at its first visit until the test has seen what it wants to see. */
static void stand_once(struct scene *scene)
{
    if (scene->router.picture.put != 1)
        return;
    kv_wait_signal(&scene->standing);
    (void)kv_wait_for(&scene->gate, 1);
}

static void test_progress_goes_on_while_a_walk_stands_in_a_visit(void **state)
{
    struct scene *scene = *state;
    open_scene(scene, KVB_PROGRESS_THREAD, 1024, QUEUE_MAX);
    scene->router.picture.on_put = stand_once;
    start_turns(scene);
    store_some(scene, 100);
    kv_flush(&scene->rig);
    atomic_store(&scene->router.lost, true);
    queue_wake(&scene->router.queue);
    assert_true(kv_wait_for(&scene->standing, 1));
    uint64_t transferred = kv_stats(&scene->rig).lanes[0].transferred;
    for (uint32_t i = 0; i < 20; i++)
        life_park(&scene->rig, SEEDS + i);
    kv_flush(&scene->rig); /* all that is done, and delivered */
    assert_int_equal(kv_stats(&scene->rig).lanes[0].transferred, transferred + 20);
    kv_wait_signal(&scene->gate);
    end_turns(scene);
}

static void test_rebuilds_beside_a_busy_server_end_in_what_is_there(void **state)
{
    struct scene *scene = *state;
    open_scene(scene, KVB_PROGRESS_THREAD, 8, QUEUE_MAX);
    start_turns(scene);
    store_some(scene, 3000);
    end_turns(scene);
    assert_true(kv_stats(&scene->rig).events_lost > 0);
}

/* ---- How wide the ring is where nothing was asked for ---------------------------------------- */

static void open_default(struct scene *scene, uint32_t blocks)
{
    prepare(scene, 0, 1);
    scene->rig.tiers[0].block_count = blocks;
    kv_rig_open(&scene->rig);
    scene->router.kv = scene->rig.kv;
}

/* A full tier, registered and evicted with no delivery in between. */
static void test_default_ring_holds_a_full_tier_that_comes_and_goes(void **state)
{
    enum { MANY = 3000 };
    static struct kvb_block *blocks[MANY];
    struct scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    open_default(scene, MANY);
    for (uint64_t i = 0; i < MANY; i++)
        life_park(rig, i);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, MANY, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, MANY, NULL));
    assert_int_equal(kv_stats(rig).events, 2 * MANY);
    assert_int_equal(kv_stats(rig).events_lost, 0);
}

static void test_default_ring_of_a_small_manager_holds_4096(void **state)
{
    struct scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    open_default(scene, 1);
    for (uint64_t i = 0; kv_stats(rig).events < 4095; i++)
        life_park(rig, i % 2); /* stored, removed, stored ... */
    assert_int_equal(kv_stats(rig).events_lost, 0);
    life_park(rig, 2); /* two more */
    assert_int_equal(kv_stats(rig).events, 4097);
    assert_int_equal(kv_stats(rig).events_lost, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(scene, test_rebuild_by_the_thread_that_polls_ends_in_what_is_there),
        TEST(scene, test_rebuild_during_which_events_are_lost_is_done_once_more),
        TEST(scene, test_rebuild_by_the_thread_that_polls_does_not_hold_transfers_up),
        TEST(scene, test_queue_that_is_full_is_a_loss_like_any_other),
        TEST(scene, test_rebuild_in_the_middle_of_which_all_is_cleared_ends_in_what_is_there),
        TEST(scene, test_progress_goes_on_while_a_walk_stands_in_a_visit),
        TEST(scene, test_rebuilds_beside_a_busy_server_end_in_what_is_there),
        TEST(scene, test_default_ring_holds_a_full_tier_that_comes_and_goes),
        TEST(scene, test_default_ring_of_a_small_manager_holds_4096),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
