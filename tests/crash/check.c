/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After opening: is it there, and is every byte right? Chains are brought up as a server does, in
 * one go; behind the first block that does not come up the next one is asked for on its own, so
 * that none hides another.
 */
#include "worker.h"

/* The leading run of these contents that is there, held. */
static uint32_t find(struct worker *worker, uint32_t number, uint32_t count,
                     struct kvb_block **blocks)
{
    struct kvb_query query = {
        .size = sizeof query, .keys = worker_seq(worker, number), .key_count = count};
    struct kvb_hit hits[CRASH_CHAIN];
    size_t found = 0;
    WORKER_TRY(kvb_match(worker->manager, &query, hits, count, &found));
    for (size_t i = 0; i < found; i++)
        blocks[i] = hits[i].block;
    return (uint32_t)found;
}

static bool right(struct worker *worker, struct kvb_block *block, uint32_t number)
{
    void *address = NULL;
    WORKER_TRY(kvb_block_address(worker->manager, block, 0, 0, &address));
    const uint64_t *words = address;
    uint64_t differs = 0;
    for (size_t i = 0; i < worker->files->block_bytes / sizeof *words; i++)
        differs |= words[i] ^ crash_word(number, i);
    return differs == 0;
}

/* A key may stand for either of two contents: which of them it must be, the ledger knows. */
static void tell(struct worker *worker, struct kvb_block *block, uint32_t number)
{
    uint32_t later = number + 3;
    if (right(worker, block, number)) {
        worker_say(worker, CRASH_FOUND, number);
    } else if (later < worker->life->next && crash_key_of(worker->files, later) == number &&
               right(worker, block, later)) {
        WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
        *worker_number(worker, worker_seq(worker, later)) = later;
        worker_say(worker, CRASH_FOUND, later);
    } else {
        worker_say(worker, CRASH_WRONG, number);
    }
}

/* How many of these contents came up. What could not be read is a miss, like what was not found. */
static uint32_t fetch(struct worker *worker, uint32_t number, uint32_t count)
{
    struct kvb_block *sources[CRASH_CHAIN], *targets[CRASH_CHAIN];
    struct kvb_op *op = NULL;
    uint32_t found = find(worker, number, count, sources), good = 0;
    if (found == 0)
        return 0;
    worker_alloc(worker, targets, found);
    struct kvb_onboard request = {
        .size = sizeof request, .sources = sources, .targets = targets, .count = found};
    WORKER_TRY(kvb_onboard(worker->manager, &request, &op));
    WORKER_TRY(kvb_block_unref(worker->manager, sources, found, NULL));
    WORKER_TRY(kvb_op_wait(worker->manager, op, KVB_FOREVER));
    WORKER_TRY(kvb_op_take(worker->manager, op, targets, found, &good));
    WORKER_TRY(kvb_op_release(worker->manager, op));
    for (uint32_t i = 0; i < found; i++) {
        if (i < good)
            tell(worker, targets[i], number + i);
        if (targets[i] != NULL)
            WORKER_TRY(kvb_block_unref(worker->manager, &targets[i], 1, NULL));
    }
    return good;
}

/*
 * Contents from this one on that are one chain, as many as the device tier has room for while
 * others are on their way.
 */
static uint32_t run_length(const struct worker *worker, uint32_t number)
{
    uint32_t chain = CRASH_CHAIN - number % CRASH_CHAIN, left = worker->life->next - number;
    uint32_t room = worker->life->wide ? CRASH_CHAIN : WORKER_BLOCKS / 2;
    uint32_t most = worker->files->keyed ? 1 : room < chain ? room : chain;
    return most < left ? most : left;
}

/* Nothing but kills has happened to the files: whatever they have left there, the disk works. */
static void expect_in_service(struct worker *worker)
{
    for (uint32_t path = 0; path < worker->files->path_count; path++) {
        struct kvb_disk_stats stats = {.size = sizeof stats};
        WORKER_TRY(kvb_disk_stats(worker->manager, path, &stats));
        if (stats.out_of_service)
            worker_fail("kvb_disk_stats", KVB_EIO, "a path is out of service");
    }
}

void worker_check(struct worker *worker)
{
    const struct crash_life *life = worker->life;
    for (uint32_t number = life->first; number < life->next;) {
        uint32_t count = run_length(worker, number);
        /* else it is looked for under the earlier one's */
        bool own = crash_key_of(worker->files, number) == number;
        uint32_t good = own ? fetch(worker, number, count) : count;
        number += good < count ? good + 1 : good;
    }
    /* Whatever recovery and failed reads announce is in the pipe before the verdict. */
    WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
    expect_in_service(worker);
    worker_say(worker, CRASH_CHECKED, 0);
}
