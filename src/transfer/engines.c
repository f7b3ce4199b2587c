/* SPDX-License-Identifier: Apache-2.0 */
/* Which engines there are. See engines.h. */
#include "transfer/engines.h"

#include <stdio.h>
#include <string.h>

#include "base/debug.h"
#include "base/hooks.h"
#include "transfer/kind.h"
#include "transfer/relay.h"

/* What a relay holds in between: enough for the queue of a disk, unless blocks are large. */
#define BETWEEN_BYTES ((uint64_t)64 << 20)
#define BETWEEN_BLOCKS_MIN 4u
#define BETWEEN_BLOCKS_MAX 64u

/* One more; `said` is added to what the others have said, or is the reason of the error. */
static int add(struct kvbi_engines *engines, int error, struct kvbi_engine *engine,
               const char *said)
{
    size_t used = error == 0 ? strlen(engines->said) : 0;
    (void)snprintf(engines->said + used, sizeof engines->said - used, "%s%s", used > 0 ? "; " : "",
                   said);
    if (error == 0)
        engines->all[engines->count++] = engine;
    return error;
}

/* The engine of another tier of the same kind, or NULL. */
static struct kvbi_engine *shared(const struct kvbi_engines *engines,
                                  const struct kvbi_engines_config *config,
                                  const struct kvbi_tier *tier)
{
    for (uint32_t i = 0; i < KVB_TIER_COUNT; i++)
        if (engines->of[i] != NULL && config->tiers[i].ops == tier->ops)
            return engines->of[i];
    return NULL;
}

static int create_of(struct kvbi_engines *engines, const struct kvbi_engines_config *config,
                     const struct kvbi_tier *tier)
{
    char said[KVBI_ENGINE_SAID_BYTES] = "";
    struct kvbi_engine *engine = NULL;
    int error = tier->ops->create_engine(tier, &engine, config, said);
    if (error != 0 || engine != config->host) /* which is there already */
        error = add(engines, error, engine, said);
    engines->of[tier->tier] = error == 0 ? engine : NULL;
    return error;
}

static int create_streams(struct kvbi_engines *engines, const struct kvbi_engines_config *config,
                          const struct kvbi_tier *device)
{
    engines->device = device;
    int error = create_of(engines, config, device);
    engines->streams = engines->of[device->tier];
    return error;
}

static int create_for(struct kvbi_engines *engines, const struct kvbi_engines_config *config,
                      const struct kvbi_tier *tier)
{
    engines->of[tier->tier] = shared(engines, config, tier);
    if (engines->of[tier->tier] != NULL)
        return 0;
    return tier->on_streams ? create_streams(engines, config, tier)
                            : create_of(engines, config, tier);
}

/* The first tier that is not on the host and stands directly above another that is not; or NULL. */
static const struct kvbi_tier *find_relayed(const struct kvbi_tier *tiers,
                                            const struct kvbi_tier **below)
{
    const struct kvbi_tier *above = NULL;
    for (uint32_t i = 0; i < KVB_TIER_COUNT; i++) {
        if (tiers[i].ops == NULL)
            continue;
        if (above != NULL && !above->on_host && !tiers[i].on_host) {
            *below = &tiers[i];
            return above;
        }
        above = &tiers[i];
    }
    return NULL;
}

/* A relay knows what it may begin by the tickets of the upper one's streams. */
static int refuse_pair(struct kvbi_engines *engines, const struct kvbi_tier *above,
                       const struct kvbi_tier *below)
{
    (void)snprintf(engines->said, sizeof engines->said,
                   "tier %s (%s) above tier %s (%s): one of the two must lie in host memory",
                   kvbi_tier_name(above->tier), above->ops->kind, kvbi_tier_name(below->tier),
                   below->ops->kind);
    return KVB_EUNSUPPORTED;
}

static int create_between(struct kvbi_engines *engines, const struct kvbi_engines_config *config,
                          const struct kvbi_tier *device)
{
    uint64_t blocks = BETWEEN_BYTES / device->block_bytes;
    blocks = blocks < BETWEEN_BLOCKS_MIN   ? BETWEEN_BLOCKS_MIN
             : blocks > BETWEEN_BLOCKS_MAX ? BETWEEN_BLOCKS_MAX
                                           : blocks;
    const struct kvb_tier_config host = {.tier = KVB_TIER_HOST, .block_count = (uint32_t)blocks};
    const struct kvbi_purpose purpose = {.block_bytes = device->block_bytes};
    int error = kvbi_kind_memory.create(&engines->between, config->memory, &host, &purpose,
                                        engines->said, sizeof engines->said);
    /* a few blocks, before create returns: nobody launches yet */
    const struct kvbi_register_config registering = {.log = config->log, .duty_percent = 100};
    return error != 0 ? error
                      : device->ops->register_memory(device, &engines->between, &registering);
}

/* The engines of the two become one. */
static int create_relay(struct kvbi_engines *engines, const struct kvbi_engines_config *config,
                        const struct kvbi_tier *above, const struct kvbi_tier *below)
{
    struct kvbi_relay_config relay = {.device = engines->of[above->tier],
                                      .lower = engines->of[below->tier],
                                      .between = &engines->between,
                                      .lines = &engines->lines,
                                      .capacity = config->capacity};
    KVBI_ASSERT(engines->all[engines->count - 1] == relay.lower &&
                engines->all[engines->count - 2] == relay.device);
    engines->count -= 2;
    int error = kvbi_engine_relay_create(&engines->relay, config->memory, &relay);
    if (error == 0)
        engines->all[engines->count++] = engines->relay;
    else
        engines->streams = NULL;
    return error;
}

int kvbi_engines_create(struct kvbi_engines *engines, const struct kvbi_engines_config *given)
{
    char said[KVBI_ENGINE_SAID_BYTES] = "";
    struct kvbi_engines_config config = *given;
    struct kvbi_engine *memory = NULL;
    const struct kvbi_tier *below = NULL, *above = find_relayed(config.tiers, &below);
    *engines = (struct kvbi_engines){.hooks = config.hooks, .memory = config.memory};
    for (uint32_t i = 0; i < KVBI_LINE_COUNTERS; i++)
        atomic_init(&engines->awaited[i], UINT64_MAX);
    if (above != NULL && !above->on_streams)
        return refuse_pair(engines, above, below);
    config.lines = &engines->lines;
    int error = kvbi_joint_init(&engines->joint, &engines->lines);
    if (error == 0)
        error = kvbi_memory_create_engine(NULL, &memory, &config, said);
    if (error != 0)
        return error;
    (void)add(engines, 0, memory, said);
    config.host = memory;
    for (uint32_t i = 0; error == 0 && i < KVB_TIER_COUNT; i++) {
        const struct kvbi_tier *tier = &config.tiers[i];
        if (tier == below && above != NULL) {
            error = create_between(engines, &config, above);
            config.between = &engines->between;
        }
        if (error == 0 && tier->ops != NULL)
            error = create_for(engines, &config, tier);
    }
    return error == 0 && above != NULL ? create_relay(engines, &config, above, below) : error;
}

void kvbi_engines_destroy(struct kvbi_engines *engines)
{
    while (engines->count > 0) {
        struct kvbi_engine *engine = engines->all[--engines->count];
        engine->ops->destroy(engine);
    }
    kvbi_tier_destroy(&engines->between);
    kvbi_joint_fini(&engines->joint);
}

size_t kvbi_engines_bytes(const struct kvbi_engines *engines)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < engines->count; i++)
        bytes += engines->all[i]->ops->bytes(engines->all[i]);
    return bytes;
}

struct kvbi_engine *kvbi_engines_between(const struct kvbi_engines *engines,
                                         const struct kvbi_tier *from, const struct kvbi_tier *to)
{
    if (!from->on_host && !to->on_host)
        return engines->relay;
    if (from->on_host && to->on_host) /* the lower one's, if it has one of its own */
        return engines->of[from->tier > to->tier ? from->tier : to->tier];
    return engines->of[from->on_host ? to->tier : from->tier];
}

/* ---- Tickets --------------------------------------------------------------------------------- */

static int import_counter(const struct kvb_fence *fence, uint64_t *ticket, struct kvbi_why *why)
{
    if (fence->line < KVBI_LINE_COUNTERS && fence->handle <= KVBI_NUMBER_MAX) {
        *ticket = kvbi_ticket(fence->line, fence->handle);
        return 0;
    }
    if (fence->line >= KVBI_LINE_COUNTERS)
        kvbi_why_say(why, "line is %u, must be 0..%u", fence->line, KVBI_LINE_COUNTERS - 1);
    else
        kvbi_why_say(why, "a counter's value must be below 2^%d", KVBI_NUMBER_BITS);
    return KVB_EINVAL;
}

int kvbi_engines_import(const struct kvbi_engines *engines, const struct kvb_fence *fence,
                        uint64_t *ticket, struct kvbi_why *why)
{
    *ticket = 0;
    if (fence == NULL)
        return 0;
    if (fence->kind == KVB_FENCE_COUNTER)
        return import_counter(fence, ticket, why);
    if (fence->line != 0) {
        kvbi_why_say(why, "line is %u, must be 0: only counters have lines", fence->line);
        return KVB_EINVAL;
    }
    if (fence->kind == KVB_FENCE_NONE)
        return 0;
    bool known = fence->kind == KVB_FENCE_CUDA_STREAM || fence->kind == KVB_FENCE_CUDA_EVENT;
    return known && engines->streams != NULL
               ? engines->streams->streams->import(engines->streams, fence, ticket, why)
               : KVB_EINVAL;
}

/* The one of the two that says as much as both; false: neither does. */
static bool covers(const struct kvbi_lines *lines, uint64_t a, uint64_t b, uint64_t *ticket)
{
    *ticket = a | b;
    if (a == 0 || b == 0) /* no point was named: what was captured stays so */
        return true;
    bool a_reached = kvbi_ticket_reached(lines, a), b_reached = kvbi_ticket_reached(lines, b);
    bool same = kvbi_ticket_line(a) == kvbi_ticket_line(b);
    *ticket = a_reached ? b : b_reached ? a : a > b ? a : b;
    return a_reached || b_reached || same;
}

uint64_t kvbi_engines_latest(struct kvbi_engines *engines, uint64_t a, uint64_t b)
{
    uint64_t ticket;
    return covers(&engines->lines, a, b, &ticket) ? ticket : kvbi_joint_add(&engines->joint, a, b);
}

uint64_t kvbi_engines_both(struct kvbi_engines *engines, uint64_t a, uint64_t b)
{
    uint64_t ticket;
    if (covers(&engines->lines, a, b, &ticket))
        return ticket;
    if (kvbi_ticket_is_stream(a) && kvbi_ticket_is_stream(b))
        ticket = engines->streams->streams->both(engines->streams, a, b);
    else
        ticket = 0;
    return ticket != 0 ? ticket : kvbi_joint_add(&engines->joint, a, b);
}

bool kvbi_engines_signal(struct kvbi_engines *engines, uint32_t line, uint64_t value)
{
    bool ready = false;
    if (!kvbi_lines_advance(&engines->lines, line, value))
        return false;
    for (uint32_t i = 0; i < engines->count; i++)
        ready |= engines->all[i]->ops->signal(engines->all[i]);
    /* after the line: whoever is about to sleep writes `awaited` and then looks at the line */
    return ready || value >= atomic_load(&engines->awaited[line]);
}

/* Nobody will say any more when its streams have come to a point. */
static void pass_lost(struct kvbi_engines *engines)
{
    bool moved = false;
    for (uint32_t line = KVBI_LINE_STREAM; line < KVBI_LINE_JOINT; line++)
        moved |= kvbi_lines_advance(&engines->lines, line, KVBI_NUMBER_MAX);
    for (uint32_t i = 0; i < engines->count && moved; i++)
        (void)engines->all[i]->ops->signal(engines->all[i]);
}

void kvbi_engines_advance(struct kvbi_engines *engines)
{
    if (engines->streams != NULL && engines->device->ops->lost(engines->device, NULL, 0))
        pass_lost(engines);
    if (!kvbi_joint_advance(&engines->joint))
        return;
    for (uint32_t i = 0; i < engines->count; i++)
        (void)engines->all[i]->ops->signal(engines->all[i]);
}

bool kvbi_engines_await(struct kvbi_engines *engines, struct kvbi_awaited *awaited)
{
    bool streams = false;
    uint64_t before = engines->awaited_lines;
    kvbi_joint_await(&engines->joint, awaited);
    for (; before != 0; before &= before - 1)
        if (!(awaited->lines[0] & before & -before))
            atomic_store(&engines->awaited[__builtin_ctzll(before)], UINT64_MAX);
    engines->awaited_lines = awaited->lines[0];
    for (uint32_t line = kvbi_awaited_next(awaited, 0); line < KVBI_LINE_COUNT;
         line = kvbi_awaited_next(awaited, line + 1)) {
        if (line < KVBI_LINE_COUNTERS)
            atomic_store(&engines->awaited[line], awaited->numbers[line]);
        streams |= line >= KVBI_LINE_STREAM && line < KVBI_LINE_JOINT;
    }
    if (engines->streams != NULL)
        engines->streams->streams->watch(engines->streams, streams);
    return !kvbi_awaited_due(awaited, &engines->lines);
}

bool kvbi_engines_recall(const struct kvbi_engines *engines, const struct kvbi_tier *from,
                         const struct kvbi_tier *to, uint32_t place, uint64_t cookie)
{
    struct kvbi_engine *engine = kvbi_engines_between(engines, from, to);
    bool keeps = engines->hooks != NULL && engines->hooks->keeps;
    return !keeps && engine->ops->recall(engine, place, cookie);
}

uint32_t kvbi_engines_flight(const struct kvbi_engines *engines, uint32_t slot)
{
    return engines->streams->streams->flight(engines->streams, slot);
}

int kvbi_engines_wait_stream(const struct kvbi_engines *engines, uint64_t flights,
                             const struct kvbi_stream_points *points, void *stream, uint32_t layer,
                             struct kvbi_why *why)
{
    return engines->streams->streams->wait(engines->streams, flights, points, stream, layer, why);
}

bool kvbi_engines_ready(const struct kvbi_engines *engines)
{
    bool ready = false;
    for (uint32_t i = 0; i < engines->count && !ready; i++)
        ready = engines->all[i]->ops->ready(engines->all[i]);
    return ready;
}

void kvbi_engines_drain(const struct kvbi_engines *engines)
{
    for (uint32_t i = 0; i < engines->count; i++)
        engines->all[i]->ops->drain(engines->all[i]);
}
