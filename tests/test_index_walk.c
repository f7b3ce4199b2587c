/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an index walk promises: how often it takes the lock, and how a receiver combines what it is
 * shown with the events of the same time. The receiver here follows the header's rule and nothing
 * else: of a visit and an event about one copy the one with the greater sequence counts. Contents
 * come and go in the visits themselves, and are delivered at any moment.
 */
#include "support/life.h"

#include "store/store.h"

enum { BLOCKS = 300, HOST_BLOCKS = 160, SEEDS = 500 };

static void open_rig(struct kv_rig *rig, uint32_t event_capacity, struct kvb_event_sink sink)
{
    kv_rig_no_tiers(rig);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, BLOCKS, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_add_tier(rig, KVB_TIER_HOST, HOST_BLOCKS, KVB_OFFLOAD_MANUAL);
    rig->config.event_capacity = event_capacity;
    rig->config.sink = sink;
    kv_rig_open(rig);
}

static void forget_one(struct kv_rig *rig, uint64_t seed)
{
    struct kvb_seq name = life_name(rig, seed);
    int code = kvb_invalidate(rig->kv, &name, 1, NULL);
    assert_true(code == 0 || code == KVB_ENOENT);
}

/* ---- Holds ----------------------------------------------------------------------------------- */

static int count_visit(void *arg, const struct kvb_event *event)
{
    (void)event;
    ++*(uint32_t *)arg;
    return 0;
}

static void test_walk_takes_the_lock_once_for_64_entries(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t visits = 0;
    open_rig(rig, 0, (struct kvb_event_sink){NULL, NULL});
    for (uint64_t i = 0; i < BLOCKS; i++)
        life_park(rig, i);
    uint64_t before = kvbi_lock_taken_count();
    kv_ok(kvb_index_walk(rig->kv, count_visit, &visits));
    /* One for each batch, and one in which the last batch's records are given back. */
    assert_int_equal(kvbi_lock_taken_count() - before,
                     (BLOCKS + KVBI_LOCK_BATCH - 1) / KVBI_LOCK_BATCH + 1);
    assert_int_equal(visits, BLOCKS);
}

/*
 * The tokens of what a walk has taken down stay readable while the slots and their records get
 * other content.
 */
struct reader {
    struct kv_rig *rig;
    uint32_t visits, wrong;
};

static int read_tokens(void *arg, const struct kvb_event *event)
{
    struct reader *reader = arg;
    struct kvb_seq key, computed;
    size_t count = 0;
    if (reader->visits++ == 0) {
        for (uint64_t i = 0; i < BLOCKS; i++)
            life_park(reader->rig, 1000 + i);
        kv_check(reader->rig);
    }
    memcpy(&key, event->key, sizeof key);
    kv_ok(kvb_hash_tokens(reader->rig->kv, 0, NULL, event->tokens, event->token_count, &computed, 1,
                          &count));
    reader->wrong += memcmp(&key, &computed, sizeof key) != 0;
    return 0;
}

static void test_walk_shows_tokens_of_what_is_gone_meanwhile(void **state)
{
    struct kv_rig *rig = *state;
    struct reader reader = {.rig = rig};
    open_rig(rig, 0, (struct kvb_event_sink){NULL, NULL});
    for (uint64_t i = 0; i < BLOCKS; i++)
        life_park(rig, i);
    kv_ok(kvb_index_walk(rig->kv, read_tokens, &reader));
    assert_int_equal(reader.wrong, 0);
    assert_true(reader.visits >= KVBI_LOCK_BATCH);
}

static int stop_at_once(void *arg, const struct kvb_event *event)
{
    (void)arg;
    (void)event;
    return 5;
}

static void test_walk_that_is_stopped_gives_every_record_back(void **state)
{
    struct kv_rig *rig = *state;
    open_rig(rig, 0, (struct kvb_event_sink){NULL, NULL});
    for (uint64_t i = 0; i < BLOCKS; i++)
        life_park(rig, i);
    for (int i = 0; i < 2 * KVBI_WALKERS_MAX; i++)
        assert_int_equal(kvb_index_walk(rig->kv, stop_at_once, NULL), 5);
    kv_check(rig);
}

/* ---- What is there all the time -------------------------------------------------------------- */

/*
 * Contents below KEPT stay, as there is room for all; the others come and go, before and behind the
 * place of the walk.
 */
enum { KEPT = 150, PASSING = 140 };

struct churn {
    struct kv_rig *rig;
    uint64_t seed;
    uint32_t kept[KEPT], unknown, twice;
    struct kvb_seq kept_names[KEPT], seen[2 * SEEDS];
    uint32_t seen_count;
};

static uint32_t kept_at(const struct churn *churn, const struct kvb_seq *name)
{
    uint32_t i = 0;
    while (i < KEPT && churn->kept_names[i].hash != name->hash)
        i++;
    return i;
}

static void note_seen(struct churn *churn, const struct kvb_seq *name)
{
    for (uint32_t i = 0; i < churn->seen_count; i++)
        churn->twice += churn->seen[i].hash == name->hash;
    if (churn->seen_count < 2 * SEEDS)
        churn->seen[churn->seen_count++] = *name;
}

static int visit_and_churn(void *arg, const struct kvb_event *event)
{
    struct churn *churn = arg;
    struct kvb_seq name;
    memcpy(&name, event->key, sizeof name);
    uint32_t kept = kept_at(churn, &name);
    if (kept < KEPT)
        churn->kept[kept]++;
    else
        note_seen(churn, &name);
    forget_one(churn->rig, KEPT + kv_random(&churn->seed, PASSING));
    life_park(churn->rig, KEPT + kv_random(&churn->seed, PASSING));
    return 0;
}

static void test_walk_visits_what_is_there_from_begin_to_end_exactly_once(void **state)
{
    struct kv_rig *rig = *state;
    static struct churn churn;
    uint32_t twice = 0;
    for (uint64_t round = 0; round < 10; round++) {
        memset(&churn, 0, sizeof churn);
        churn.rig = rig;
        churn.seed = round << 32;
        open_rig(rig, 0, (struct kvb_event_sink){NULL, NULL});
        for (uint64_t i = 0; i < KEPT + PASSING; i++)
            life_park(rig, i % 2 == 0 ? i / 2 : i / 2 < PASSING ? KEPT + i / 2 : i / 2);
        for (uint64_t i = 0; i < KEPT; i++) {
            life_park(rig, i);
            churn.kept_names[i] = life_name(rig, i);
        }
        kv_ok(kvb_index_walk(rig->kv, visit_and_churn, &churn));
        for (uint32_t i = 0; i < KEPT; i++)
            assert_int_equal(churn.kept[i], 1);
        twice += churn.twice;
        kv_rig_close(rig);
    }
    assert_true(twice > 0); /* what goes and comes back may be seen twice: the header says so */
}

/* ---- A receiver ------------------------------------------------------------------------------ */

/*
 * What the latest word about a copy was, and its sequence. Removed copies stay listed: a late visit
 * must not bring them back.
 */
struct word {
    uint64_t hash, sequence;
    uint32_t tier;
    bool stored;
};

struct receiver {
    struct kv_rig *rig;
    uint64_t seed, visits, overruled, lost;
    uint64_t cleared; /* by the latest CLEARED, which is about copies not heard of yet as well */
    uint32_t count;
    struct word words[2 * SEEDS * KVB_TIER_COUNT];
};

static struct receiver receiver;

static struct word *word_about(uint64_t hash, uint32_t tier)
{
    uint32_t i = 0;
    while (i < receiver.count && (receiver.words[i].hash != hash || receiver.words[i].tier != tier))
        i++;
    if (i == receiver.count && receiver.count < sizeof receiver.words / sizeof *receiver.words)
        receiver.words[receiver.count++] =
            (struct word){.hash = hash, .sequence = receiver.cleared, .tier = tier};
    return &receiver.words[i];
}

static void hear(const struct kvb_event *event)
{
    struct kvb_seq name;
    memcpy(&name, event->key, sizeof name);
    struct word *word = word_about(name.hash, event->tier);
    if (event->sequence < word->sequence) {
        receiver.overruled++;
        return;
    }
    word->sequence = event->sequence;
    word->stored = event->kind == KVB_EVENT_STORED;
}

static void hear_cleared(uint64_t sequence)
{
    receiver.cleared = sequence;
    for (uint32_t i = 0; i < receiver.count; i++) {
        if (receiver.words[i].sequence > sequence)
            continue;
        receiver.words[i].sequence = sequence;
        receiver.words[i].stored = false;
    }
}

static void receive(void *context, const struct kvb_event *event)
{
    (void)context;
    if (event->kind == KVB_EVENT_LOST)
        receiver.lost++;
    else if (event->kind == KVB_EVENT_CLEARED)
        hear_cleared(event->sequence);
    else
        hear(event);
}

static void do_something(void)
{
    uint32_t what = kv_random(&receiver.seed, 500);
    if (what < 300)
        life_park(receiver.rig, kv_random(&receiver.seed, SEEDS));
    else if (what < 450)
        forget_one(receiver.rig, kv_random(&receiver.seed, SEEDS));
    else if (what < 451)
        kv_ok(kvb_manager_clear(receiver.rig->kv));
    else if (what < 475)
        assert_true(kvb_manager_poll(receiver.rig->kv, 0) >= 0);
}

static int visit_and_do_something(void *arg, const struct kvb_event *event)
{
    (void)arg;
    receiver.visits++;
    if (receiver.visits % 2 == 0) /* before it is heard, or after */
        do_something();
    hear(event);
    do_something();
    return 0;
}

static int compare_visit(void *arg, const struct kvb_event *event)
{
    struct kvb_seq name;
    memcpy(&name, event->key, sizeof name);
    *(uint32_t *)arg += word_about(name.hash, event->tier)->stored;
    return 0;
}

/* Nothing is delivered any more: what the receiver believes is what is there. */
static void compare(struct kv_rig *rig)
{
    uint32_t there = 0, known = 0, believed = 0;
    kv_ok(kvb_index_walk(rig->kv, count_visit, &there));
    kv_ok(kvb_index_walk(rig->kv, compare_visit, &known));
    for (uint32_t i = 0; i < receiver.count; i++)
        believed += receiver.words[i].stored;
    assert_int_equal(known, there);
    assert_int_equal(believed, there);
}

/*
 * The picture is made anew by a walk, while what it shows changes and events of before and of
 * meanwhile are delivered.
 */
static void test_walk_and_events_by_sequence_are_the_truth(void **state)
{
    struct kv_rig *rig = *state;
    uint64_t visits = 0, overruled = 0;
    for (uint64_t round = 0; round < 40; round++) {
        memset(&receiver, 0, sizeof receiver);
        receiver.rig = rig;
        receiver.seed = round << 32;
        open_rig(rig, 1u << 16, (struct kvb_event_sink){receive, NULL});
        for (int i = 0; i < 600; i++)
            do_something();
        receiver.count = 0; /* as after a loss: everything is forgotten */
        kv_ok(kvb_index_walk(rig->kv, visit_and_do_something, NULL));
        kv_poll(rig);
        assert_int_equal(receiver.lost, 0);
        compare(rig);
        visits += receiver.visits;
        overruled += receiver.overruled;
        kv_rig_close(rig);
    }
    assert_true(visits > 2000 && overruled > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_walk_takes_the_lock_once_for_64_entries),
        TEST(kv_rig, test_walk_shows_tokens_of_what_is_gone_meanwhile),
        TEST(kv_rig, test_walk_that_is_stopped_gives_every_record_back),
        TEST(kv_rig, test_walk_visits_what_is_there_from_begin_to_end_exactly_once),
        TEST(kv_rig, test_walk_and_events_by_sequence_are_the_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
