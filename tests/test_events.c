/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: what they show, their order, what is lost when the ring overflows and how a consumer
 * comes back from that.
 */
#include "support/kv_picture.h"
#include "support/kv_wait.h"
#include "support/life.h"

#include <poll.h>

#include "store/store.h"

static const uint32_t T[2 * KV_TOKENS] = {51, 52, 53, 54, 55, 56, 57, 58};

static struct picture picture;

static void open_with_picture(struct kv_rig *rig, uint32_t event_capacity)
{
    memset(&picture, 0, sizeof picture);
    rig->config.event_capacity = event_capacity;
    rig->config.sink = (struct kvb_event_sink){picture_deliver, &picture};
    kv_rig_open(rig);
    picture.kv = rig->kv;
}

static void test_event_stored_shows_names_tokens_and_parent(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[2];
    struct kvb_seq seqs[2];
    size_t count = 0;
    uint32_t ns = 0;
    kv_ok(kvb_namespace_open(rig->kv, "t", 1, NULL, 0, &ns));
    kv_ok(kvb_hash_tokens(rig->kv, ns, NULL, T, 2 * KV_TOKENS, seqs, 2, &count));
    kv_store_run(rig, KVB_TIER_DEVICE, ns, T, 2, run);
    kv_poll(rig);
    assert_int_equal(rig->events.count, 2);
    for (int i = 0; i < 2; i++) {
        const struct kv_event_record *event = &rig->events.list[i];
        assert_int_equal(event->kind, KVB_EVENT_STORED);
        assert_int_equal(event->tier, KVB_TIER_DEVICE);
        assert_int_equal(event->namespace_id, ns);
        assert_memory_equal(event->key, &seqs[i], sizeof seqs[i]);
        assert_int_equal(event->has_parent, i == 1);
        assert_true(event->has_tokens);
        assert_int_equal(event->token_count, KV_TOKENS);
        assert_int_equal(event->first_token, T[(size_t)i * KV_TOKENS]);
    }
    struct kvb_seq parent; /* its digest may be left out: not known */
    memcpy(&parent, rig->events.list[1].parent, sizeof parent);
    assert_true(parent.hash == seqs[0].hash);
    kv_ok(kvb_block_unref(rig->kv, run, 2, NULL));
}

static void test_events_show_stored_before_removed(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = life_name(rig, 1);
    for (int i = 0; i < 3; i++) {
        life_park(rig, 1);
        life_evict_all(rig);
    }
    kv_poll(rig);
    assert_int_equal(rig->events.count, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(rig->events.list[i].kind,
                         i % 2 == 0 ? KVB_EVENT_STORED : KVB_EVENT_REMOVED);
        assert_memory_equal(rig->events.list[i].key, &key, sizeof key);
        assert_true(i == 0 || rig->events.list[i].sequence > rig->events.list[i - 1].sequence);
    }
}

static void test_events_wait_for_progress(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_store(rig, 1);
    assert_int_equal(rig->events.count, 0);
    kv_poll(rig);
    assert_int_equal(rig->events.count, 1);
    kv_unref(rig, block);
}

static void test_events_of_content_that_is_gone_still_show_its_tokens(void **state)
{
    struct kv_rig *rig = *state;
    life_park(rig, 1);
    struct kvb_block *taken[KV_BLOCKS];
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, taken, NULL));
    for (uint32_t i = 0; i < KV_BLOCKS; i++) {
        /* the slots and their records have other tokens by now */
        kv_init(rig, taken[i], 0, 0, NULL);
        kv_append(rig, taken[i], T, KV_TOKENS, 0);
    }
    kv_poll(rig);
    uint32_t tokens[KV_TOKENS];
    kv_tokens(tokens, KV_TOKENS, 1);
    assert_true(rig->events.list[0].has_tokens);
    assert_int_equal(rig->events.list[0].first_token, tokens[0]);
    kv_ok(kvb_block_unref(rig->kv, taken, KV_BLOCKS, NULL));
}

static void test_event_cleared_means_that_all_is_gone(void **state)
{
    struct kv_rig *rig = *state;
    open_with_picture(rig, 256);
    struct kvb_block *held = life_store(rig, 1);
    life_park(rig, 2);
    kv_ok(kvb_manager_clear(rig->kv));
    life_park(rig, 3);
    kv_unref(rig, held);
    kv_poll(rig);
    assert_int_equal(picture.cleared, 1);
    assert_picture_is_live(rig, &picture);
    assert_int_equal(picture.count, 1);
}

static void test_event_cleared_and_same_content_again_is_stored(void **state)
{
    struct kv_rig *rig = *state;
    open_with_picture(rig, 256);
    life_park(rig, 1);
    kv_ok(kvb_manager_clear(rig->kv));
    life_park(rig, 1);
    kv_poll(rig);
    assert_int_equal(picture.count, 1);
    assert_picture_is_live(rig, &picture);
}

static void test_event_overflow_gives_one_lost_with_the_number(void **state)
{
    struct kv_rig *rig = *state;
    open_with_picture(rig, 4);
    for (uint64_t i = 0; i < 30; i++)
        life_park(rig, i);
    kv_poll(rig);
    assert_int_equal(picture.lost_events, 1);
    /* 30 stored, 22 removed; LOST itself is none of them. */
    assert_int_equal(picture.events - 1 + picture.lost_count, 52);
    assert_int_equal(kv_stats(rig).events_lost, picture.lost_count);
}

static void test_event_overflow_and_walk_after_it_gives_the_live_set(void **state)
{
    struct kv_rig *rig = *state;
    open_with_picture(rig, 4);
    for (uint64_t round = 0; round < 20; round++) {
        for (uint64_t i = 0; i < round; i++)
            life_park(rig, i * round);
        kv_poll(rig);
        picture_catch_up(&picture);
        assert_picture_is_live(rig, &picture);
    }
    assert_true(picture.lost_events > 5);
}

/* The same while the manager's own thread delivers and the store goes on changing. */
static void test_event_overflow_under_a_thread_ends_in_the_live_set(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.progress = KVB_PROGRESS_THREAD;
    open_with_picture(rig, 4); /* no event before the first register */
    uint64_t seed = 3;
    for (int i = 0; i < 3000; i++)
        life_park(rig, kv_random(&seed, 24));
    kv_flush(rig);
    picture_catch_up(&picture);
    assert_picture_is_live(rig, &picture);
}

/* ---- Sections -------------------------------------------------------------------------------- */

/* A sink that takes no lock: between two events that it is shown, only delivery does. */
struct batches {
    uint64_t taken, last_sequence;
    uint32_t events, batches, out_of_order;
};

static void count_batches(void *context, const struct kvb_event *event)
{
    struct batches *batches = context;
    uint64_t taken = kvbi_lock_taken_count();
    batches->batches += batches->events == 0 || taken != batches->taken;
    batches->out_of_order += event->sequence != batches->last_sequence + 1;
    batches->taken = taken;
    batches->last_sequence = event->sequence;
    batches->events++;
}

static void test_events_are_taken_out_of_the_ring_64_in_one_section(void **state)
{
    struct kv_rig *rig = *state;
    static struct batches batches;
    memset(&batches, 0, sizeof batches);
    rig->config.sink = (struct kvb_event_sink){count_batches, &batches};
    kv_rig_open(rig);
    while (kv_stats(rig).events < 130)
        life_park(rig, kv_stats(rig).events);
    kv_poll(rig);
    assert_in_range(batches.events, 130, 192);
    assert_int_equal(batches.batches, 3);
    assert_int_equal(batches.out_of_order, 0);
}

/*
 * What a batch shows keeps its records while everything there is changes: the ring and the blocks
 * have all theirs beside it.
 */
struct changer {
    struct kvb_manager *kv;
    struct kvb_block *blocks[KVBI_LOCK_BATCH];
    uint32_t events, wrong_tokens;
    int code;
};

static int register_all(struct changer *changer, uint64_t seed)
{
    const uint32_t full = KV_TOKENS;
    int code =
        kvb_alloc(changer->kv, KVB_TIER_DEVICE, KVBI_LOCK_BATCH, NULL, changer->blocks, NULL);
    for (uint32_t i = 0; i < KVBI_LOCK_BATCH && code == 0; i++) {
        uint32_t tokens[KV_TOKENS];
        kv_tokens(tokens, KV_TOKENS, seed + i);
        struct kvb_block_init init = {.size = sizeof init};
        struct kvb_append append = {.size = sizeof append, .tokens = tokens, .count = KV_TOKENS};
        code = kvb_block_init(changer->kv, &changer->blocks[i], &init, 1, NULL);
        if (code == 0)
            code = kvb_block_append(changer->kv, &changer->blocks[i], &append, 1, NULL);
        if (code == 0)
            code = kvb_block_schedule(changer->kv, &changer->blocks[i], 1, NULL);
        if (code == 0)
            code = kvb_block_compute_done(changer->kv, &changer->blocks[i], &full, 1, NULL, NULL);
    }
    if (code == 0)
        code = kvb_block_register(changer->kv, changer->blocks, KVBI_LOCK_BATCH, NULL, NULL, NULL);
    if (code == 0)
        code = kvb_block_unref(changer->kv, changer->blocks, KVBI_LOCK_BATCH, NULL);
    return code;
}

static void change_all_at_the_first(void *context, const struct kvb_event *event)
{
    struct changer *changer = context;
    uint32_t tokens[KV_TOKENS];
    if (changer->events == 0)
        for (uint64_t round = 1; round < 4 && changer->code == 0; round++) {
            changer->code = kvb_manager_clear(changer->kv);
            if (changer->code == 0)
                changer->code = register_all(changer, round * 1000);
        }
    kv_tokens(tokens, KV_TOKENS, changer->events);
    if (changer->events++ < KVBI_LOCK_BATCH)
        changer->wrong_tokens += event->tokens[0] != tokens[0];
}

static void test_events_of_a_batch_keep_their_tokens_while_all_else_changes(void **state)
{
    struct kv_rig *rig = *state;
    static struct changer changer;
    memset(&changer, 0, sizeof changer);
    kv_rig_no_tiers(rig);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, KVBI_LOCK_BATCH, KVB_OFFLOAD_MANUAL);
    rig->config.event_capacity = KVBI_LOCK_BATCH;
    rig->config.sink = (struct kvb_event_sink){change_all_at_the_first, &changer};
    kv_rig_open(rig);
    changer.kv = rig->kv;
    kv_ok(register_all(&changer, 0));
    kv_poll(rig);
    kv_ok(changer.code);
    assert_true(changer.events > KVBI_LOCK_BATCH);
    assert_int_equal(changer.wrong_tokens, 0);
}

/* ---- Who says that there is something to deliver --------------------------------------------- */

/* A tier full of parked blocks, all their events delivered. */
static void fill_parked(struct kv_rig *rig)
{
    for (uint64_t i = 0; i < KV_BLOCKS; i++)
        life_park(rig, i);
    kv_flush(rig);
}

static void test_eviction_by_alloc_asks_for_a_poll(void **state)
{
    struct kv_rig *rig = *state;
    uint64_t timeout_ns = 0;
    fill_parked(rig);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    kv_unref(rig, block);
}

static bool event_fd_is_readable(struct kv_rig *rig)
{
    struct pollfd wait = {.fd = kvb_manager_event_fd(rig->kv), .events = POLLIN};
    return poll(&wait, 1, 0) == 1;
}

static void test_eviction_by_alloc_makes_the_event_fd_readable(void **state)
{
    struct kv_rig *rig = *state;
    fill_parked(rig);
    assert_false(event_fd_is_readable(rig));
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    assert_true(event_fd_is_readable(rig));
    kv_unref(rig, block);
}

static struct kv_wait removed;

static void signal_removed(void *context, const struct kvb_event *event)
{
    if (event->kind == KVB_EVENT_REMOVED)
        kv_wait_signal(context);
}

/* No call after alloc touches the manager until the events are there. */
static void test_eviction_by_alloc_under_a_thread_is_delivered_unasked(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[KV_BLOCKS];
    kv_wait_init(&removed);
    rig->config.progress = KVB_PROGRESS_THREAD;
    rig->config.sink = (struct kvb_event_sink){signal_removed, &removed};
    kv_rig_open(rig);
    fill_parked(rig);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, NULL));
    assert_true(kv_wait_for(&removed, KV_BLOCKS));
    kv_ok(kvb_block_unref(rig->kv, blocks, KV_BLOCKS, NULL));
}

/* ---- Walking --------------------------------------------------------------------------------- */

static int note_sequence(void *arg, const struct kvb_event *event)
{
    uint64_t *wrong = arg; /* begins with the sequence that is expected */
    wrong[1] += event->sequence != wrong[0];
    return 0;
}

static void test_walk_says_which_event_is_the_latest_it_knows(void **state)
{
    struct kv_rig *rig = *state;
    for (uint64_t i = 0; i < 3; i++)
        life_park(rig, i);
    kv_poll(rig);
    uint64_t check[2] = {rig->events.list[2].sequence, 0};
    kv_ok(kvb_index_walk(rig->kv, note_sequence, check));
    assert_int_equal(check[1], 0);
}

static int stop_at_second(void *arg, const struct kvb_event *event)
{
    (void)event;
    return ++*(int *)arg == 2 ? 77 : 0;
}

static void test_walk_ends_where_visit_says_so(void **state)
{
    struct kv_rig *rig = *state;
    int visits = 0;
    for (uint64_t i = 0; i < 4; i++)
        life_park(rig, i);
    assert_int_equal(kvb_index_walk(rig->kv, stop_at_second, &visits), 77);
    assert_int_equal(visits, 2);
}

static void test_walk_of_an_empty_index_visits_nothing(void **state)
{
    struct kv_rig *rig = *state;
    int visits = 0;
    kv_ok(kvb_index_walk(rig->kv, stop_at_second, &visits));
    assert_int_equal(visits, 0);
}

/* Walks within walks: each stands in a batch of entries of its own when the next one begins. */
struct nest {
    struct kvb_manager *kv;
    uint32_t depth, deepest; /* under way; the most that were */
    uint32_t wanted;
    int code;                  /* of the first one that was refused */
    struct kvb_block **blocks; /* taken at the deepest point */
    uint32_t block_count;
    int alloc_code;
};

struct nest_walk {
    struct nest *nest;
    uint32_t skip; /* entries before the one to stand at */
};

static int walk_deeper(void *arg, const struct kvb_event *event)
{
    struct nest_walk *walk = arg;
    struct nest *nest = walk->nest;
    (void)event;
    if (walk->skip-- > 0)
        return 0;
    if (nest->depth == nest->wanted) {
        nest->alloc_code =
            kvb_alloc(nest->kv, KVB_TIER_DEVICE, nest->block_count, NULL, nest->blocks, NULL);
        return 1;
    }
    struct nest_walk next = {nest, KVBI_LOCK_BATCH * nest->depth++};
    nest->deepest = nest->depth > nest->deepest ? nest->depth : nest->deepest;
    int code = kvb_index_walk(nest->kv, walk_deeper, &next);
    if (code < 0 && nest->code == 0)
        nest->code = code;
    nest->depth--;
    return 1; /* the entry may be gone by now: no need to go on */
}

enum { WALKED_BLOCKS = (KVBI_WALKERS_MAX + 1) * KVBI_LOCK_BATCH };

/*
 * A manager without a sink, so that no record is there for events. `wanted` walks, one within the
 * other.
 */
static void nest_walks(struct kv_rig *rig, struct nest *nest, struct kvb_block **blocks,
                       uint32_t wanted)
{
    *nest =
        (struct nest){.wanted = wanted, .blocks = blocks, .block_count = WALKED_BLOCKS, .depth = 1};
    kv_rig_no_tiers(rig);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, WALKED_BLOCKS, KVB_OFFLOAD_MANUAL);
    rig->config.event_capacity = 0;
    rig->config.sink = (struct kvb_event_sink){NULL, NULL};
    kv_rig_open(rig);
    nest->kv = rig->kv;
    for (uint64_t i = 0; i < WALKED_BLOCKS; i++)
        life_park(rig, i);
    struct nest_walk outermost = {nest, 0};
    assert_int_equal(kvb_index_walk(rig->kv, walk_deeper, &outermost), 1);
}

static void test_walks_within_walks_leave_room_for_every_block_to_be_named(void **state)
{
    struct kv_rig *rig = *state;
    struct nest nest;
    static struct kvb_block *blocks[WALKED_BLOCKS];
    nest_walks(rig, &nest, blocks, KVBI_WALKERS_MAX);
    kv_ok(nest.code);
    assert_int_equal(nest.deepest, KVBI_WALKERS_MAX);
    kv_ok(nest.alloc_code);
    for (uint32_t i = 0; i < WALKED_BLOCKS; i++) {
        kv_init(rig, blocks[i], 0, 0, NULL);
        kv_append(rig, blocks[i], T, KV_TOKENS, 0);
    }
    kv_ok(kvb_block_unref(rig->kv, blocks, WALKED_BLOCKS, NULL));
}

static void test_walk_within_too_many_walks_says_again(void **state)
{
    struct kv_rig *rig = *state;
    struct nest nest;
    static struct kvb_block *blocks[WALKED_BLOCKS];
    nest_walks(rig, &nest, blocks, KVBI_WALKERS_MAX + 1);
    kv_expect(nest.code, KVB_EAGAIN);
}

static void test_walk_after_a_refused_one_sees_everything(void **state)
{
    struct kv_rig *rig = *state;
    struct nest nest;
    static struct kvb_block *blocks[WALKED_BLOCKS];
    nest_walks(rig, &nest, blocks, KVBI_WALKERS_MAX + 1);
    kv_expect(nest.code, KVB_EAGAIN);
    int visits = -WALKED_BLOCKS; /* never comes to 2 */
    kv_ok(kvb_index_walk(rig->kv, stop_at_second, &visits));
    assert_int_equal(visits, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_event_stored_shows_names_tokens_and_parent),
        TEST(kv_opened, test_events_show_stored_before_removed),
        TEST(kv_opened, test_events_wait_for_progress),
        TEST(kv_opened, test_events_of_content_that_is_gone_still_show_its_tokens),
        TEST(kv_rig, test_event_cleared_means_that_all_is_gone),
        TEST(kv_rig, test_event_cleared_and_same_content_again_is_stored),
        TEST(kv_rig, test_event_overflow_gives_one_lost_with_the_number),
        TEST(kv_rig, test_event_overflow_and_walk_after_it_gives_the_live_set),
        TEST(kv_rig, test_event_overflow_under_a_thread_ends_in_the_live_set),
        TEST(kv_rig, test_events_are_taken_out_of_the_ring_64_in_one_section),
        TEST(kv_rig, test_events_of_a_batch_keep_their_tokens_while_all_else_changes),
        TEST(kv_opened, test_eviction_by_alloc_asks_for_a_poll),
        TEST(kv_opened, test_eviction_by_alloc_makes_the_event_fd_readable),
        TEST(kv_rig, test_eviction_by_alloc_under_a_thread_is_delivered_unasked),
        TEST(kv_opened, test_walk_says_which_event_is_the_latest_it_knows),
        TEST(kv_opened, test_walk_ends_where_visit_says_so),
        TEST(kv_opened, test_walk_of_an_empty_index_visits_nothing),
        TEST(kv_rig, test_walks_within_walks_leave_room_for_every_block_to_be_named),
        TEST(kv_rig, test_walk_within_too_many_walks_says_again),
        TEST(kv_rig, test_walk_after_a_refused_one_sees_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
