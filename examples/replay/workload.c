/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seeded hour of multi-turn chats. Conversations arrive as a Poisson process and each begins with
 * one of a few system prompts (Zipf); a turn's input is everything said so far plus a new message;
 * the answer takes its time and the user thinks before the next turn. So there are prefixes that
 * everybody shares, histories that come back once more for each turn, and tails that never do.
 *
 * The stream of a conversation is cut into blocks of 512 tokens. A full block keeps its id for as
 * long as the conversation lasts; the part of a block at the end of an input is a content of its
 * own, since the next turn continues it. Ids are made from (system prompt or conversation, block,
 * turn), so nothing has to be remembered.
 *
 * Integers only: floating point would make the workload depend on the machine's mathematics
 * library.
 */
#include "workload.h"

#include "payload.h"
#include "trace.h"

#include <stdlib.h>

#define DURATION_MS (UINT64_C(3600) * 1000)
#define ARRIVAL_MEAN_MS 2200 /* between new conversations */
#define THINK_MEAN_MS 75000
#define ABSENCE_MEAN_MS 900000 /* one pause in ABSENCE_ONE_IN is this long */
#define ABSENCE_ONE_IN 6
#define MS_PER_ANSWER_TOKEN 20
#define TURN_COUNT_MEAN 5
#define MESSAGE_MEAN_TOKENS 1800 /* what users paste included */
#define ANSWER_MEAN_TOKENS 450
#define INPUT_MAX_BLOCKS 96 /* a conversation that has grown beyond this ends */

#define SYSTEM_COUNT 8
static const uint32_t system_tokens[SYSTEM_COUNT] = {2304, 1100, 5200, 700, 3500, 9800, 1900, 600};

struct chance {
    uint64_t state;
};

/* splitmix64: small, and every seed gives another stream. */
static uint64_t draw(struct chance *chance)
{
    uint64_t x = chance->state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t draw_below(struct chance *chance, uint64_t bound)
{
    return (draw(chance) >> 32) * bound >> 32;
}

/*
 * Exponentially distributed with the given mean: -ln(u) x mean for u = m / 2^32, m in 1..2^32. The
 * binary logarithm comes digit by digit, by squaring the mantissa (Knuth, TAOCP 1, 1.2.2, exercise
 * 25); 45426 / 2^16 = ln 2.
 */
static uint64_t draw_exponential(struct chance *chance, uint64_t mean)
{
    uint64_t m = (draw(chance) >> 32) + 1;
    uint64_t whole = 0;
    while (m < UINT64_C(1) << 32) {
        m <<= 1;
        whole++;
    }
    uint64_t mantissa = m >> 1, fraction = 0; /* [1, 2) with 31 binary places */
    for (int digit = 0; digit < 16; digit++) {
        mantissa = mantissa * mantissa >> 31;
        fraction <<= 1;
        if (mantissa >= UINT64_C(1) << 32) {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    uint64_t log2_16 = (whole << 16) - fraction; /* -log2(u), 16 binary places */
    return (log2_16 * 45426 >> 16) * mean >> 16;
}

static uint32_t draw_system(struct chance *chance)
{
    /* 840 / rank: Zipf, s = 1 */
    uint64_t pick = draw_below(chance, 840 + 420 + 280 + 210 + 168 + 140 + 120 + 105);
    uint32_t rank = 1;
    for (; rank < SYSTEM_COUNT && pick >= 840 / rank; rank++)
        pick -= 840 / rank;
    return rank - 1;
}

struct turn {
    uint64_t at_ms;
    uint32_t conversation, number;
    uint32_t system;
    uint64_t input_length, output_length;
};

struct turns {
    struct turn *all;
    size_t count, capacity;
};

static int add_turn(struct turns *turns, const struct turn *turn)
{
    if (turns->count == turns->capacity) {
        size_t wanted = turns->capacity ? 2 * turns->capacity : 4096;
        struct turn *grown = realloc(turns->all, wanted * sizeof *grown);
        if (!grown)
            return -1;
        turns->all = grown;
        turns->capacity = wanted;
    }
    turns->all[turns->count++] = *turn;
    return 0;
}

static int generate_conversation(struct turns *turns, struct chance *chance, uint32_t conversation,
                                 uint64_t at_ms)
{
    struct turn turn = {
        .at_ms = at_ms, .conversation = conversation, .system = draw_system(chance)};
    uint64_t said = system_tokens[turn.system];
    do {
        turn.input_length = said + 20 + draw_exponential(chance, MESSAGE_MEAN_TOKENS);
        turn.output_length = 10 + draw_exponential(chance, ANSWER_MEAN_TOKENS);
        if (turn.input_length > (uint64_t)INPUT_MAX_BLOCKS * REPLAY_TOKENS_PER_BLOCK ||
            turn.at_ms >= DURATION_MS)
            return 0;
        if (add_turn(turns, &turn))
            return -1;
        said = turn.input_length + turn.output_length;
        turn.number++;
        uint64_t pause_ms = draw_below(chance, ABSENCE_ONE_IN) ? THINK_MEAN_MS : ABSENCE_MEAN_MS;
        turn.at_ms += turn.output_length * MS_PER_ANSWER_TOKEN + draw_exponential(chance, pause_ms);
    } while (draw_below(chance, TURN_COUNT_MEAN) != 0);
    return 0;
}

static int compare_turns(const void *left, const void *right)
{
    const struct turn *a = left, *b = right;
    if (a->at_ms != b->at_ms)
        return a->at_ms < b->at_ms ? -1 : 1;
    if (a->conversation != b->conversation)
        return a->conversation < b->conversation ? -1 : 1;
    return (a->number > b->number) - (a->number < b->number);
}

/*
 * owner 24 bits | part 8 bits | block 8 bits: system prompts own 0..SYSTEM_COUNT-1, conversations
 * what follows.
 */
static uint64_t make_id(uint64_t owner, uint64_t part, uint64_t block)
{
    return owner << 16 | part << 8 | block;
}

static uint64_t id_of_block(const struct turn *turn, uint32_t block)
{
    uint64_t end = ((uint64_t)block + 1) * REPLAY_TOKENS_PER_BLOCK;
    if (end <= system_tokens[turn->system])
        return make_id(turn->system, 0, block);
    uint64_t part = end <= turn->input_length ? 0 : 1 + (uint64_t)turn->number % 255;
    return make_id(SYSTEM_COUNT + (uint64_t)turn->conversation, part, block);
}

static int add_request(struct trace *trace, const struct turn *turn)
{
    uint32_t block_count =
        (uint32_t)((turn->input_length + REPLAY_TOKENS_PER_BLOCK - 1) / REPLAY_TOKENS_PER_BLOCK);
    uint64_t *ids = trace_reserve(trace, block_count);
    if (!ids)
        return -1;
    for (uint32_t block = 0; block < block_count; block++)
        ids[block] = id_of_block(turn, block);
    return trace_add(trace, turn->at_ms, turn->input_length, turn->output_length, block_count);
}

int workload_generate(struct trace *trace, uint64_t seed)
{
    struct chance chance = {seed};
    struct turns turns = {NULL, 0, 0};
    uint64_t at_ms = 0;
    int status = 0;
    for (uint32_t conversation = 0; !status && at_ms < DURATION_MS; conversation++) {
        status = generate_conversation(&turns, &chance, conversation, at_ms);
        at_ms += draw_exponential(&chance, ARRIVAL_MEAN_MS);
    }
    if (!status && turns.count)
        qsort(turns.all, turns.count, sizeof *turns.all, compare_turns);
    for (size_t i = 0; !status && i < turns.count; i++)
        status = add_request(trace, &turns.all[i]);
    free(turns.all);
    return status;
}
