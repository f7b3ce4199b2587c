/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several servers on one small manager, overlapping prefixes, failing copies, and somebody who
 * forgets contents meanwhile. The bytes of a block are a function of its name, so a wrong one shows
 * at any use. Written for ThreadSanitizer; correct without.
 *
 * Threads note the first thing that went wrong and stop; only the test's own thread asserts.
 */
#include <sched.h>

#include "support/kv_scene.h"
#include "support/move_test.h"

#define SERVERS 3
#define CHAINS 8
#define LENGTH 6
#define PAYLOAD_WORDS (KV_LAYERS * KV_PARTS * KV_CHUNK / sizeof(uint64_t))
#define NAMES (CHAINS * LENGTH)

struct town {
    struct kv_rig rig;
    uint32_t tokens[CHAINS][LENGTH * KV_TOKENS];
    struct kvb_seq names[CHAINS][LENGTH];
    uint32_t rounds;
    _Atomic uint32_t copies, servers_left;
    _Atomic uint64_t verified, brought_up, computed, weak_upgrades;
    _Atomic int wrong_line; /* of this file; 0: all is well */
    /* the sink's, in progress only */
    uint64_t sequence;
    bool stored[KVB_TIER_COUNT][NAMES];
    bool lost;
};

struct server {
    struct town *town;
    uint64_t seed;
    struct kvb_weak weak; /* of a block let go earlier */
    const struct kvb_seq *weak_name;
};

#define expect(town, condition)                                                                    \
    do {                                                                                           \
        int none_ = 0;                                                                             \
        if (!(condition))                                                                          \
            (void)atomic_compare_exchange_strong(&(town)->wrong_line, &none_, __LINE__);           \
    } while (0)

static bool all_well(const struct town *town)
{
    return atomic_load(&town->wrong_line) == 0;
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

static uint64_t *payload(struct town *town, struct kvb_block *block)
{
    void *address = NULL;
    expect(town, kvb_block_address(town->rig.kv, block, 0, 0, &address) == 0);
    return address;
}

static void write_bytes(struct town *town, struct kvb_block *block, const struct kvb_seq *name)
{
    void *address = payload(town, block);
    unsigned char *bytes =
        address != NULL ? kv_device_begin_write(address, PAYLOAD_WORDS * sizeof(uint64_t)) : NULL;
    for (uint32_t i = 0; bytes != NULL && i < PAYLOAD_WORDS; i++)
        memcpy(bytes + i * sizeof(uint64_t), &(uint64_t){kv_mix(name->hash + i)}, sizeof(uint64_t));
    if (bytes != NULL)
        kv_device_end_write(address, bytes, PAYLOAD_WORDS * sizeof(uint64_t));
}

static void verify(struct town *town, struct kvb_block *block, const struct kvb_seq *name)
{
    const void *address = payload(town, block);
    const unsigned char *bytes =
        address != NULL ? kv_device_read(address, PAYLOAD_WORDS * sizeof(uint64_t)) : NULL;
    for (uint32_t i = 0; bytes != NULL && i < PAYLOAD_WORDS; i++)
        expect(town, memcmp(bytes + i * sizeof(uint64_t), &(uint64_t){kv_mix(name->hash + i)},
                            sizeof(uint64_t)) == 0);
    if (bytes != NULL)
        kv_device_end_read(address, bytes);
    atomic_fetch_add(&town->verified, 1);
}

/* ---- Callbacks ------------------------------------------------------------------------------- */

static int fail_some(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                     uint32_t to_slot)
{
    struct town *town = context;
    (void)from_tier;
    (void)from_slot;
    (void)to_tier;
    (void)to_slot;
    return kv_mix(atomic_fetch_add(&town->copies, 1)) % 11 == 0 ? KVB_EIO : 0;
}

static int admit_most(void *context, const struct kvb_admission_request *request)
{
    (void)context;
    return kv_mix(((const struct kvb_seq *)request->key)->hash) % 16 != 0;
}

static uint32_t name_number(const struct town *town, const struct kvb_seq *name)
{
    for (uint32_t i = 0; i < NAMES; i++)
        if (town->names[i / LENGTH][i % LENGTH].hash == name->hash)
            return i;
    return UINT32_MAX;
}

/*
 * Each (content, tier) is stored, then removed, then stored ...; numbers have no gap that no LOST
 * explains.
 */
static void follow(void *context, const struct kvb_event *event)
{
    struct town *town = context;
    uint64_t skipped = event->kind == KVB_EVENT_LOST ? event->lost_count : 1;
    expect(town, town->sequence == 0 || event->sequence == town->sequence + skipped);
    town->sequence = event->sequence;
    if (event->kind == KVB_EVENT_LOST)
        town->lost = true;
    if (event->kind == KVB_EVENT_CLEARED)
        memset(town->stored, 0, sizeof town->stored);
    if (event->kind != KVB_EVENT_STORED && event->kind != KVB_EVENT_REMOVED)
        return;
    uint32_t number = name_number(town, event->key);
    expect(town, number < NAMES);
    if (number >= NAMES)
        return;
    bool *stored = &town->stored[event->tier][number];
    expect(town, town->lost || *stored == (event->kind == KVB_EVENT_REMOVED));
    *stored = event->kind == KVB_EVENT_STORED;
}

static void note_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    mv_done_record(arg, op, status, good_count);
}

/* ---- A server -------------------------------------------------------------------------------- */

struct request {
    uint32_t chain;
    const struct kvb_seq *names;
    struct kvb_block *blocks[LENGTH];
    uint32_t held; /* blocks[0..held) are Registered and ours */
};

static void let_go(struct server *server, struct kvb_block *const *blocks, uint32_t count)
{
    expect(server->town, kvb_block_unref(server->town->rig.kv, blocks, count, NULL) == 0);
}

static void wait_for(struct server *server, struct kvb_op *op, const struct mv_done *done)
{
    struct town *town = server->town;
    if (town->rig.config.progress == KVB_PROGRESS_THREAD) {
        int status = kvb_op_wait(town->rig.kv, op, KVB_FOREVER);
        expect(town, status == 0 || status == KVB_ECANCELED);
    }
    while (atomic_load(&done->calls) == 0)
        (void)sched_yield();
    expect(town, done->op == op);
}

/*
 * Brings `count` sources up into `targets`; blocks[0..return) are good, the others Empty or NULL.
 */
static uint32_t bring_up(struct server *server, struct kvb_block *const *sources,
                         struct kvb_block *const *targets, uint32_t count,
                         struct kvb_block **blocks)
{
    struct town *town = server->town;
    struct mv_done done;
    struct kvb_op *op = NULL;
    uint32_t good = 0;
    struct kvb_onboard request = mv_request(sources, targets, count, &done);
    request.done = note_done;
    request.flags = KVB_ONBOARD_PRIORITY;
    request.priority = kv_random(&server->seed, 101);
    if (kvb_onboard(town->rig.kv, &request, &op) != 0) {
        expect(town, false);
        return 0;
    }
    if (kv_random(&server->seed, 6) == 0)
        expect(town, kvb_op_cancel(town->rig.kv, op) == 0);
    wait_for(server, op, &done);
    expect(town, kvb_op_take(town->rig.kv, op, blocks, count, &good) == 0);
    expect(town, good == done.good_count);
    expect(town, kvb_op_release(town->rig.kv, op) == 0);
    atomic_fetch_add(&town->brought_up, good);
    return good;
}

/* Computes blocks [held, LENGTH), as far as there are blocks for them, and registers them. */
static void compute_rest(struct server *server, struct request *request)
{
    struct town *town = server->town;
    struct kvb_manager *kv = town->rig.kv;
    static const uint32_t full = KV_TOKENS;
    uint32_t end = request->held;
    for (; end < LENGTH && request->blocks[end] != NULL; end++) {
        struct kvb_block **block = &request->blocks[end];
        struct kvb_block_init init = {.size = sizeof init,
                                      .position = end,
                                      .parent = end == 0 ? NULL : &request->names[end - 1]};
        struct kvb_append append = {.size = sizeof append,
                                    .tokens =
                                        town->tokens[request->chain] + (size_t)end * KV_TOKENS,
                                    .count = KV_TOKENS};
        expect(town, kvb_block_init(kv, block, &init, 1, NULL) == 0);
        expect(town, kvb_block_append(kv, block, &append, 1, NULL) == 0);
        expect(town, kvb_block_schedule(kv, block, 1, NULL) == 0);
        write_bytes(town, *block, &request->names[end]);
        expect(town, kvb_block_compute_done(kv, block, &full, 1, NULL, NULL) == 0);
    }
    struct kvb_register options = {.size = sizeof options,
                                   .flags = kv_random(&server->seed, 2) == 0 ? KVB_REGISTER_KEEP
                                                                             : KVB_REGISTER_SHARE};
    expect(town, kvb_block_register(kv, request->blocks + request->held, end - request->held,
                                    &options, NULL, NULL) == 0);
    atomic_fetch_add(&town->computed, end - request->held);
    request->held = end;
    for (; end < LENGTH; end++)
        if (request->blocks[end] != NULL)
            let_go(server, &request->blocks[end], 1);
}

/* Offers, pins, more handles, weak ones: what servers do with blocks they hold. */
static void use(struct server *server, struct request *request)
{
    struct town *town = server->town;
    struct kvb_manager *kv = town->rig.kv;
    struct kvb_block *one = request->blocks[kv_random(&server->seed, request->held)];
    uint64_t owner = server->seed | 1;
    int code = 0;
    switch (kv_random(&server->seed, 6)) {
    case 0:
        code = kvb_block_offload(kv, &one, 1, kv_random(&server->seed, 101), NULL, NULL);
        expect(town, code == 0 || code == KVB_EBUSY || code == KVB_ESTATE);
        break;
    case 1:
        code = kvb_block_offload_cancel(kv, &one, 1, NULL);
        expect(town, code == 0 || code == KVB_EBUSY || code == KVB_ENOENT);
        break;
    case 2:
        expect(town, kvb_pin(kv, owner, request->blocks, request->held, 0, NULL) == 0);
        expect(town, kvb_unpin_all(kv, owner, NULL) == 0);
        break;
    case 3:
        expect(town, kvb_block_ref(kv, request->blocks, request->held, NULL) == 0);
        let_go(server, request->blocks, request->held);
        break;
    case 4:
        expect(town, kvb_block_set_priority(kv, &one, 1, kv_random(&server->seed, 101), KV_MS,
                                            NULL) == 0);
        break;
    default:
        server->weak_name = &request->names[0];
        expect(town, kvb_block_weak(kv, request->blocks[0], &server->weak) == 0);
        break;
    }
}

static void try_weak(struct server *server)
{
    struct town *town = server->town;
    struct kvb_block *block = NULL;
    if (server->weak_name == NULL)
        return;
    int code = kvb_weak_upgrade(town->rig.kv, &server->weak, 1, &block, NULL);
    expect(town, code == 0 || code == KVB_ESTALE);
    if (code != 0)
        return;
    verify(town, block, server->weak_name);
    let_go(server, &block, 1);
    atomic_fetch_add(&town->weak_upgrades, 1);
}

static void serve_one(struct server *server)
{
    struct town *town = server->town;
    struct request request = {.chain = kv_random(&server->seed, CHAINS)};
    struct kvb_block *sources[LENGTH], *fresh[LENGTH];
    struct kvb_hit hits[LENGTH];
    size_t found = 0;
    request.names = town->names[request.chain];
    struct kvb_query query = kv_query(0, town->tokens[request.chain], LENGTH * KV_TOKENS);
    expect(town, kvb_match(town->rig.kv, &query, hits, LENGTH, &found) == 0);
    uint32_t above = 0, below = 0;
    for (size_t i = 0; i < found; i++)
        verify(town, hits[i].block, &request.names[i]);
    while (above < found && hits[above].tier == KVB_TIER_DEVICE) {
        request.blocks[above] = hits[above].block;
        above++;
    }
    while (above + below < found && hits[above + below].tier != KVB_TIER_DEVICE) {
        sources[below] = hits[above + below].block;
        below++;
    }
    for (size_t i = above + below; i < found; i++)
        let_go(server, &hits[i].block, 1);
    uint32_t rest = LENGTH - above;
    int code = kvb_alloc(town->rig.kv, KVB_TIER_DEVICE, rest, NULL, fresh, NULL);
    if (code != 0) {
        expect(town, code == KVB_EAGAIN || code == KVB_ENOSPC);
        let_go(server, sources, below);
        let_go(server, request.blocks, above);
        (void)sched_yield();
        return;
    }
    memcpy(request.blocks + above, fresh, rest * sizeof *fresh);
    uint32_t good =
        below == 0 ? 0 : bring_up(server, sources, fresh, below, request.blocks + above);
    let_go(server, sources, below);
    request.held = above + good;
    compute_rest(server, &request);
    for (uint32_t i = 0; i < request.held; i++)
        verify(town, request.blocks[i], &request.names[i]);
    if (request.held > 0)
        use(server, &request);
    let_go(server, request.blocks, request.held);
    try_weak(server);
}

static void *run_server(void *argument)
{
    struct server *server = argument;
    for (uint32_t i = 0; i < server->town->rounds && all_well(server->town); i++)
        serve_one(server);
    atomic_fetch_sub(&server->town->servers_left, 1);
    return NULL;
}

/* ---- Who forgets, and who looks -------------------------------------------------------------- */

static int visit(void *arg, const struct kvb_event *event)
{
    struct town *town = arg;
    expect(town, event->kind == KVB_EVENT_STORED && name_number(town, event->key) < NAMES);
    return 0;
}

static void *run_forgetter(void *argument)
{
    struct town *town = argument;
    struct kvb_manager *kv = town->rig.kv;
    uint64_t seed = 99;
    while (atomic_load(&town->servers_left) > 0 && all_well(town)) {
        struct kvb_stats stats = {.size = sizeof stats};
        uint32_t which = kv_random(&seed, 64);
        int code =
            kvb_invalidate(kv, &town->names[which % CHAINS][kv_random(&seed, LENGTH)], 1, NULL);
        expect(town, code == 0 || code == KVB_ENOENT);
        if (which == 0)
            expect(town, kvb_manager_clear(kv) == 0);
        if (which == 1)
            expect(town, kvb_invalidate_namespace(kv, 0, NULL) == 0);
        if (which % 8 == 2)
            expect(town, kvb_index_walk(kv, visit, town) == 0);
        expect(town, kvb_manager_stats(kv, &stats) == 0);
        for (uint32_t i = 0; i < stats.lane_count; i++) {
            const struct kvb_lane_stats *lane = &stats.lanes[i];
            expect(town, lane->offered == lane->transferred + lane->skipped + lane->discarded +
                                              lane->shed + lane->failed + lane->cancelled +
                                              lane->pending);
        }
        kv_advance(&town->rig, KV_MS / 8);
        for (uint32_t i = 0; i < 20; i++)
            (void)sched_yield();
    }
    return NULL;
}

/* ---- The test -------------------------------------------------------------------------------- */

static int town_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct town));
    return 0;
}
#define town_teardown kv_scene_end

/* Two blocks that two groups of chains share, two that four share, the others each chain's own. */
static void name_chains(struct town *town)
{
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        size_t count = 0;
        for (uint32_t i = 0; i < LENGTH * KV_TOKENS; i++) {
            uint32_t block = i / KV_TOKENS;
            uint32_t group = block < 2 ? chain % 2 : block < 4 ? chain % 4 : chain;
            town->tokens[chain][i] =
                (uint32_t)kv_mix((uint64_t)block << 32 | (uint64_t)group << 16 | i % KV_TOKENS);
        }
        kv_ok(kvb_hash_tokens(town->rig.kv, 0, NULL, town->tokens[chain], LENGTH * KV_TOKENS,
                              town->names[chain], LENGTH, &count));
        assert_int_equal(count, LENGTH);
    }
}

static void run_town(struct town *town, uint32_t progress, uint32_t device_trigger,
                     uint32_t host_trigger, uint32_t rounds)
{
    struct server servers[SERVERS];
    pthread_t threads[SERVERS + 1];
    mv_three_tiers(&town->rig, 22, 16, 24);
    town->rig.tiers[0].trigger = device_trigger;
    town->rig.tiers[1].trigger = host_trigger;
    for (uint32_t i = 0; i < 2; i++)
        mv_bounds(&town->rig, i, 3, 2, 2, 8);
    town->rig.config.progress = progress;
    town->rig.config.event_capacity = 4096;
    town->rig.config.pin_capacity = 64;
    town->rig.config.sink = (struct kvb_event_sink){follow, town};
    town->rig.config.admission = (struct kvb_admission){admit_most, town};
    town->rounds = rounds;
    kv_rig_open_hooked(&town->rig, &(struct kvbi_hooks){.copy_fault = fail_some, .context = town});
    name_chains(town);
    town->servers_left = SERVERS;
    for (uint32_t i = 0; i < SERVERS; i++) {
        servers[i] = (struct server){.town = town, .seed = (i + 1) * UINT64_C(7919)};
        assert_int_equal(pthread_create(&threads[i], NULL, run_server, &servers[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[SERVERS], NULL, run_forgetter, town), 0);
    while (progress == KVB_PROGRESS_POLL && atomic_load(&town->servers_left) > 0)
        if (kvb_manager_poll(town->rig.kv, KV_MS) == 0)
            (void)sched_yield();
    for (uint32_t i = 0; i <= SERVERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    kv_flush(&town->rig);
    assert_int_equal(town->wrong_line, 0);
    kv_check(&town->rig);
    mv_expect_books(&town->rig, true);
    assert_true(town->verified > 0);
    /* How much of everything happens depends on the machine; that it happens at all does not. */
    print_message("verified %llu, computed %llu, brought up %llu, weak upgrades %llu, copies %u\n",
                  (unsigned long long)town->verified, (unsigned long long)town->computed,
                  (unsigned long long)town->brought_up, (unsigned long long)town->weak_upgrades,
                  town->copies);
    assert_true(town->computed > 0 && town->copies > 0);
}

static void test_servers_share_one_manager_with_a_thread_of_its_own(void **state)
{
    run_town(*state, KVB_PROGRESS_THREAD, KVB_OFFLOAD_ON_REGISTER, KVB_OFFLOAD_ON_COLD, 4000);
}

static void test_servers_share_one_manager_that_offloads_when_blocks_are_parked(void **state)
{
    run_town(*state, KVB_PROGRESS_THREAD, KVB_OFFLOAD_ON_PARK, KVB_OFFLOAD_ON_REGISTER, 4000);
}

static void test_servers_share_one_manager_that_one_thread_polls(void **state)
{
    run_town(*state, KVB_PROGRESS_POLL, KVB_OFFLOAD_ON_COLD, KVB_OFFLOAD_ON_PARK, 4000);
}

/* ---- A clone beside those who count users of its source's record ----------------------------- */

#define CLONES 200
#define MANY_TOKENS 32768 /* so that others come in while a clone copies them */

static int look(void *arg, const struct kvb_event *event)
{
    struct town *town = arg;
    expect(town, event->kind == KVB_EVENT_STORED && event->tokens != NULL);
    return 0;
}

static void *run_walker(void *argument)
{
    struct town *town = argument;
    while (atomic_load(&town->servers_left) > 0 && all_well(town))
        expect(town, kvb_index_walk(town->rig.kv, look, town) == 0);
    return NULL;
}

static void clone_beside_walks(struct town *town, uint32_t key_bytes)
{
    static uint32_t tokens[MANY_TOKENS];
    pthread_t walker;
    unsigned char key[8] = "content";
    town->rig.config.key_bytes = key_bytes;
    town->rig.config.tokens_per_block = MANY_TOKENS;
    kv_rig_open(&town->rig);
    kv_tokens(tokens, MANY_TOKENS, 1);
    struct kvb_block *source = kv_alloc(&town->rig, KVB_TIER_DEVICE),
                     *clone = kv_alloc(&town->rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = key};
    kv_complete(&town->rig, source, 0, 0, NULL, tokens);
    kv_ok(kvb_block_register(town->rig.kv, &source, 1, &options, NULL, NULL));
    town->servers_left = 1;
    assert_int_equal(pthread_create(&walker, NULL, run_walker, town), 0);
    for (uint32_t i = 0; i < CLONES; i++) {
        expect(town, kvb_block_clone(town->rig.kv, source, clone) == 0);
        expect(town, kvb_block_reset(town->rig.kv, &clone, 1, NULL) == 0);
    }
    atomic_store(&town->servers_left, 0);
    assert_int_equal(pthread_join(walker, NULL), 0);
    assert_int_equal(town->wrong_line, 0);
    kv_unref(&town->rig, clone);
    kv_unref(&town->rig, source);
    kv_rig_close(&town->rig);
}

static void test_clones_beside_walks_touch_no_count_of_users(void **state)
{
    clone_beside_walks(*state, 0);
    clone_beside_walks(*state, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(town, test_servers_share_one_manager_with_a_thread_of_its_own),
        TEST(town, test_servers_share_one_manager_that_offloads_when_blocks_are_parked),
        TEST(town, test_servers_share_one_manager_that_one_thread_polls),
        TEST(town, test_clones_beside_walks_touch_no_count_of_users),
    };
    return cmocka_run_group_tests_name("stress_threads", tests, NULL, NULL);
}
