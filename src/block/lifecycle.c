/* SPDX-License-Identifier: Apache-2.0 */
/* The table and the one function that moves a block. See lifecycle.h. */
#include "block/lifecycle.h"

#include <kvblock.h>

#define TO(state) (1u << KVB_STATE_##state)

/*
 * next[edge][state]: the set of states that the edge may lead to; 0 is the dash of the table in
 * lifecycle.h.
 */
static const uint8_t next[KVBI_EDGE_COUNT][6] = {
    [KVBI_EDGE_INIT] = {[KVB_STATE_EMPTY] = TO(PARTIAL)},
    [KVBI_EDGE_APPEND] =
        {[KVB_STATE_PARTIAL] = TO(PARTIAL) | TO(READY), [KVB_STATE_INFLIGHT] = TO(INFLIGHT)},
    [KVBI_EDGE_SCHEDULE] = {[KVB_STATE_READY] = TO(INFLIGHT), [KVB_STATE_INFLIGHT] = TO(INFLIGHT)},
    [KVBI_EDGE_CANCEL] = {[KVB_STATE_READY] = TO(PARTIAL)},
    [KVBI_EDGE_COMPUTE_DONE] = {[KVB_STATE_INFLIGHT] = TO(INFLIGHT) | TO(PARTIAL) | TO(COMPLETE)},
    [KVBI_EDGE_COMPUTE_FAILED] = {[KVB_STATE_INFLIGHT] = TO(READY) | TO(INFLIGHT)},
    [KVBI_EDGE_TRUNCATE] = {[KVB_STATE_PARTIAL] = TO(PARTIAL),
                            [KVB_STATE_READY] = TO(PARTIAL),
                            [KVB_STATE_COMPLETE] = TO(PARTIAL)},
    [KVBI_EDGE_REGISTER] = {[KVB_STATE_COMPLETE] = TO(REGISTERED)},
    [KVBI_EDGE_RESET] = {[KVB_STATE_EMPTY] = TO(EMPTY),
                         [KVB_STATE_PARTIAL] = TO(EMPTY),
                         [KVB_STATE_READY] = TO(EMPTY),
                         [KVB_STATE_COMPLETE] = TO(EMPTY)},
    [KVBI_EDGE_EVICT] = {[KVB_STATE_REGISTERED] = TO(EMPTY)},
    [KVBI_EDGE_FILL] = {[KVB_STATE_EMPTY] = TO(INFLIGHT)},
    [KVBI_EDGE_FILLED] = {[KVB_STATE_INFLIGHT] = TO(REGISTERED)},
    [KVBI_EDGE_FILL_FAILED] = {[KVB_STATE_INFLIGHT] = TO(EMPTY)},
};

static const char *const state_names[] = {"Empty",    "Partial",  "Ready",
                                          "Inflight", "Complete", "Registered"};
static const char *const edge_names[] = {
    "init",     "append", "schedule", "cancel", "compute_done", "compute_failed", "truncate",
    "register", "reset",  "evict",    "fill",   "filled",       "fill_failed"};

/* life: state 3 bits | filling 1 | failed 1 | (spare 15) | steps 12 | tokens 16 | computed 16 */
static uint64_t pack(const struct kvbi_life *life)
{
    return (uint64_t)life->state << 61 | (uint64_t)life->filling << 60 |
           (uint64_t)life->failed << 59 | (uint64_t)life->steps << 32 |
           (uint64_t)life->tokens << 16 | life->computed;
}

static struct kvbi_life unpack(uint64_t word)
{
    return (struct kvbi_life){.state = (uint8_t)(word >> 61),
                              .filling = (word >> 60) & 1,
                              .failed = (word >> 59) & 1,
                              .steps = (uint16_t)(word >> 32 & KVBI_STEPS_MAX),
                              .tokens = (uint16_t)(word >> 16),
                              .computed = (uint16_t)word};
}

const char *kvbi_state_name(uint8_t state)
{
    return state < sizeof state_names / sizeof *state_names ? state_names[state] : "?";
}

const char *kvbi_edge_name(enum kvbi_edge edge)
{
    return edge_names[edge];
}

uint32_t kvbi_edge_from(enum kvbi_edge edge)
{
    uint32_t from = 0;
    for (uint32_t state = 0; state < sizeof next[edge] / sizeof next[edge][0]; state++)
        from |= (next[edge][state] != 0 ? 1u : 0u) << state;
    return from;
}

struct kvbi_life kvbi_life_get(const struct kvb_block *block)
{
    return unpack(atomic_load_explicit(&block->life, memory_order_acquire));
}

void kvbi_life_init(struct kvb_block *block)
{
    atomic_init(&block->life, 0);
}

/*
 * A block that a transfer fills takes that transfer's edges only, any other Inflight block none of
 * them.
 */
static bool allowed(const struct kvbi_life *life, enum kvbi_edge edge)
{
    bool of_transfer = edge == KVBI_EDGE_FILLED || edge == KVBI_EDGE_FILL_FAILED;
    if (life->state == KVB_STATE_INFLIGHT && life->filling != of_transfer)
        return false;
    return next[edge][life->state] != 0;
}

bool kvbi_life_allows(const struct kvb_block *block, enum kvbi_edge edge)
{
    struct kvbi_life life = kvbi_life_get(block);
    return allowed(&life, edge);
}

/* One step finishes: the next one goes on, or Inflight ends in `state`. */
static void retire(struct kvbi_life *life, uint8_t state)
{
    life->steps--;
    if (life->steps > 0)
        return;
    life->state = state;
    life->failed = false;
}

static int apply_append(struct kvbi_life *life, const struct kvbi_move *move)
{
    if (move->count > move->tokens_per_block - life->tokens)
        return KVB_EINVAL;
    if (life->tokens + move->count == 0 && !move->more)
        return KVB_EINVAL;
    life->tokens = (uint16_t)(life->tokens + move->count);
    bool full = life->tokens == move->tokens_per_block;
    bool adds_nothing = move->count == 0 && move->more;
    if (life->state == KVB_STATE_PARTIAL && !adds_nothing && (full || !move->more))
        life->state = KVB_STATE_READY;
    return 0;
}

static int apply_compute_done(struct kvbi_life *life, const struct kvbi_move *move)
{
    if (!life->failed) {
        if (move->count < life->computed || move->count > life->tokens)
            return KVB_EINVAL;
        life->computed = (uint16_t)move->count;
    }
    bool complete = !life->failed && life->computed == move->tokens_per_block;
    retire(life, complete ? KVB_STATE_COMPLETE : KVB_STATE_PARTIAL);
    return 0;
}

static int apply_truncate(struct kvbi_life *life, const struct kvbi_move *move)
{
    if (move->count > life->tokens)
        return KVB_EINVAL;
    life->tokens = (uint16_t)move->count;
    if (life->computed > life->tokens)
        life->computed = life->tokens;
    life->state = KVB_STATE_PARTIAL;
    return 0;
}

static int apply(struct kvbi_life *life, enum kvbi_edge edge, const struct kvbi_move *move)
{
    switch (edge) {
    case KVBI_EDGE_INIT:
        life->state = KVB_STATE_PARTIAL;
        life->tokens = (uint16_t)move->count;
        return 0;
    case KVBI_EDGE_APPEND:
        return apply_append(life, move);
    case KVBI_EDGE_SCHEDULE:
        if (life->steps == KVBI_STEPS_MAX)
            return KVB_EAGAIN;
        life->steps++;
        life->state = KVB_STATE_INFLIGHT;
        return 0;
    case KVBI_EDGE_CANCEL:
        life->state = KVB_STATE_PARTIAL;
        return 0;
    case KVBI_EDGE_COMPUTE_DONE:
        return apply_compute_done(life, move);
    case KVBI_EDGE_COMPUTE_FAILED:
        life->failed = true;
        retire(life, KVB_STATE_READY);
        return 0;
    case KVBI_EDGE_TRUNCATE:
        return apply_truncate(life, move);
    case KVBI_EDGE_REGISTER:
        life->state = KVB_STATE_REGISTERED;
        return 0;
    case KVBI_EDGE_FILL:
        *life = (struct kvbi_life){.state = KVB_STATE_INFLIGHT, .filling = true};
        return 0;
    case KVBI_EDGE_FILLED:
        *life = (struct kvbi_life){.state = KVB_STATE_REGISTERED,
                                   .tokens = (uint16_t)move->tokens_per_block,
                                   .computed = (uint16_t)move->tokens_per_block};
        return 0;
    case KVBI_EDGE_RESET:
    case KVBI_EDGE_EVICT:
    case KVBI_EDGE_FILL_FAILED:
        *life = (struct kvbi_life){.state = KVB_STATE_EMPTY};
        return 0;
    case KVBI_EDGE_COUNT:
        break;
    }
    return KVB_EINVAL;
}

int kvbi_life_move(struct kvb_block *block, enum kvbi_edge edge, const struct kvbi_move *move,
                   struct kvbi_life *after)
{
    uint64_t word = atomic_load_explicit(&block->life, memory_order_acquire);
    struct kvbi_life life = unpack(word);
    if (!allowed(&life, edge))
        return KVB_ESTATE;
    uint8_t from = life.state;
    int error = apply(&life, edge, move);
    if (error != 0)
        return error;
    if (!(next[edge][from] & (1u << life.state)))
        return KVB_ESTATE;
    if (!atomic_compare_exchange_strong_explicit(&block->life, &word, pack(&life),
                                                 memory_order_acq_rel, memory_order_relaxed))
        return KVB_ESHARED;
    if (after != NULL)
        *after = life;
    return 0;
}

const char *kvbi_life_check(const struct kvb_block *block, uint32_t tokens_per_block)
{
    struct kvbi_life life = kvbi_life_get(block);
    if (life.computed > life.tokens || life.tokens > tokens_per_block)
        return "computed <= named <= tokens_per_block";
    if ((life.steps > 0) != (life.state == KVB_STATE_INFLIGHT && !life.filling))
        return "outstanding steps exactly in Inflight";
    if (life.filling && life.state != KVB_STATE_INFLIGHT)
        return "filling only in Inflight";
    if (life.failed && life.steps == 0)
        return "a failed step only while others are out";
    if (life.state >= KVB_STATE_COMPLETE && life.computed != tokens_per_block)
        return "Complete and Registered are full";
    if (life.state == KVB_STATE_EMPTY && life.tokens != 0)
        return "Empty names nothing";
    return NULL;
}
