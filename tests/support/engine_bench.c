/* SPDX-License-Identifier: Apache-2.0 */
/* See engine_bench.h. */
#include "support/engine_bench.h"
#include "support/signal.h"

#include <inttypes.h>

void bench_fill(struct engine_bench *bench, struct bench_side *side, uint32_t slot)
{
    side->keys[slot] = bench->next_key++;
    side->access->fill(side->tier, slot, side->keys[slot]);
}

void bench_fill_all(struct engine_bench *bench)
{
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++) {
        bench_fill(bench, &bench->upper, slot);
        bench_fill(bench, &bench->lower, slot);
    }
}

/* What has come out as done is in its target from here on. */
static void land(struct engine_bench *bench)
{
    for (uint32_t i = 0; i < bench->traffic.numbered; i++) {
        const struct traffic_copy *copy = &bench->traffic.copies[i];
        if (!copy->over || copy->result != 0 || bench->targets[i].landed)
            continue;
        bench->targets[i].side->keys[bench->targets[i].slot] = bench->targets[i].key;
        bench->targets[i].landed = true;
    }
}

struct kvbi_copy bench_plan(struct engine_bench *bench, bool down, uint32_t from, uint32_t to)
{
    land(bench);
    struct bench_side *source = down ? &bench->upper : &bench->lower;
    struct bench_side *target = down ? &bench->lower : &bench->upper;
    uint64_t cookie = traffic_tag(&bench->traffic), key = source->keys[from];
    uint32_t number = traffic_number(cookie) % TRAFFIC_MAX;
    bench->targets[number].side = target;
    bench->targets[number].slot = to;
    bench->targets[number].key = key;
    return (struct kvbi_copy){.from = source->tier,
                              .to = target->tier,
                              .from_slot = from,
                              .to_slot = to,
                              .cookie = cookie,
                              .identity = content_identity(key)};
}

struct kvbi_copy bench_plan_waiting(struct engine_bench *bench, bool down, uint32_t slot,
                                    uint64_t ticket)
{
    struct kvbi_copy copy = bench_plan(bench, down, slot, slot);
    copy.tickets.source = ticket;
    return copy;
}

uint32_t bench_number(const struct kvbi_copy *copy)
{
    return traffic_number(copy->cookie);
}

const struct traffic_copy *bench_outcome(const struct engine_bench *bench,
                                         const struct kvbi_copy *copy)
{
    return &bench->traffic.copies[bench_number(copy)];
}

bool bench_ended_with(struct engine_bench *bench, const struct kvbi_copy *copy, int result)
{
    const struct traffic_copy *out = bench_outcome(bench, copy);
    MUST(bench, out->over, "copy %u has not come out", bench_number(copy));
    MUST(bench, out->result == result, "copy %u ended with %d, must be %d", bench_number(copy),
         out->result, result);
    MUST(bench, !out->condemned, "copy %u condemns its slot", bench_number(copy));
    return true;
}

bool bench_bytes_are_right(struct engine_bench *bench)
{
    struct bench_side *const sides[] = {&bench->upper, &bench->lower};
    land(bench);
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++)
            MUST(bench, sides[i]->access->has(sides[i]->tier, slot, sides[i]->keys[slot]),
                 "slot %u of the %s tier has other bytes than it must", slot,
                 i == 0 ? "upper" : "lower");
    return true;
}

bool bench_all_done(struct engine_bench *bench)
{
    for (uint32_t i = 0; i < bench->traffic.numbered; i++) {
        const struct traffic_copy *copy = &bench->traffic.copies[i];
        MUST(bench, copy->over, "copy %u has not come out", i);
        MUST(bench, copy->result == 0, "copy %u ended with %d", i, copy->result);
    }
    return bench_bytes_are_right(bench);
}

bool bench_signal(struct engine_bench *bench, uint64_t value, bool must_say)
{
    bool said = signal_line(&bench->pair.engines.lines, bench->engine, 0, value);
    MUST(bench, said || !must_say, "signal of %" PRIu64 " says that no copy may have become ready",
         value);
    return true;
}

bool bench_is_ready(struct engine_bench *bench, bool must, const char *when)
{
    bool ready = bench->engine->ops->ready(bench->engine);
    MUST(bench, ready == must || (ready && bench->ready_idly), "ready is %s %s",
         ready ? "true" : "false", when);
    return true;
}

/* Later ones that go through: enough for whatever is held back to have been reached by now. */
bool bench_others_pass(struct engine_bench *bench, uint64_t ticket)
{
    for (uint32_t round = 0; round < 4; round++) {
        struct kvbi_copy copies[6];
        for (uint32_t i = 0; i < 6; i++)
            copies[i] = bench_plan_waiting(bench, round % 2 == 0, 20 + i, ticket);
        KEPT(traffic_submit(&bench->traffic, copies, 6, round % 2 != 0));
        KEPT(traffic_collect(&bench->traffic, 6));
        for (uint32_t i = 0; i < 6; i++) {
            uint32_t came = bench->traffic.order[bench->traffic.over - 1 - i];
            MUST(bench, came >= bench_number(&copies[0]),
                 "copy %u came out, and its ticket is not reached", came);
            KEPT(bench_ended_with(bench, &copies[i], 0));
        }
    }
    return traffic_nothing_comes(&bench->traffic);
}
