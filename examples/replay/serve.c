/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request at a time, in the order in which a server would call: hash, match, one allocation for
 * all that must move up and all that is new, onboard, compute the rest step by step, let go. Then
 * every block that was not computed is compared with what its trace id says, bit for bit.
 *
 * All arrays have room for the longest request and are taken once.
 */
#include "serve.h"

#include "contents.h"
#include "device.h"
#include "options.h"
#include "payload.h"
#include "setup.h"
#include "trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STEP_BLOCKS 64  /* blocks that one prefill step computes */
#define ROOM_ATTEMPTS 8 /* before hits are given up */
#define ROOM_PATIENCE_NS 1000000000
#define POLL_BUDGET_NS 200000 /* --pace none --progress poll: progress between two requests */
#define FINISH_PATIENCE_NS (UINT64_C(60) * 1000000000)

struct server {
    struct kvb_manager *kv;
    const struct options *options;
    const struct trace *trace;
    size_t chunk_bytes;

    /*
     * The request being served. blocks[0, leading) hold reused content, [leading, count) are
     * computed.
     */
    const uint64_t *ids;
    uint32_t count, leading, hit_count, up_count;
    uint32_t *tokens;
    struct kvb_seq *seqs;
    struct kvb_hit *hits;
    struct kvb_block **blocks;  /* of the device tier, in sequence order */
    struct kvb_block **sources; /* [0, up_count): hits below the device tier */
    struct kvb_block **fresh;   /* what kvb_alloc gave: targets for the sources first */
    uint32_t *places;           /* places[k]: where sources[k] belongs in the sequence */

    struct contents contents;
    struct results results;
    char error[256];
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

struct server *server_create(struct kvb_manager *manager, const struct options *options,
                             const struct trace *trace)
{
    size_t longest = trace_longest(trace);
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->kv = manager;
    s->options = options;
    s->trace = trace;
    s->chunk_bytes = options->block_bytes / (REPLAY_LAYERS * REPLAY_PARTS);
    s->tokens = calloc(longest * REPLAY_TOKENS_PER_BLOCK, sizeof *s->tokens);
    s->seqs = calloc(longest, sizeof *s->seqs);
    s->hits = calloc(longest, sizeof *s->hits);
    s->blocks = calloc(longest, sizeof *s->blocks);
    s->sources = calloc(longest, sizeof *s->sources);
    s->fresh = calloc(longest, sizeof *s->fresh);
    s->places = calloc(longest, sizeof *s->places);
    s->results.restart.resumed = options->resume;
    if (!contents_init(&s->contents, trace->id_count) && s->tokens && s->seqs && s->hits &&
        s->blocks && s->sources && s->fresh && s->places)
        return s;
    server_destroy(s);
    return NULL;
}

void server_destroy(struct server *s)
{
    if (!s)
        return;
    free(s->tokens);
    free(s->seqs);
    free(s->hits);
    free(s->blocks);
    free(s->sources);
    free(s->fresh);
    free(s->places);
    contents_fini(&s->contents);
    free(s);
}

const struct results *server_results(const struct server *s)
{
    return &s->results;
}

const char *server_error(const struct server *s)
{
    return s->error;
}

static int fail(struct server *s, const char *call, int status)
{
    snprintf(s->error, sizeof s->error, "request %" PRIu64 ": %s: %s: %s", s->results.requests + 1,
             call, kvb_error_name(status), kvb_strerror(status));
    return -1;
}

/* `call` as written, and return -1 if it does not return 0. */
#define TRY(s, name, arguments)                                                                    \
    do {                                                                                           \
        int try_status = name arguments;                                                           \
        if (try_status)                                                                            \
            return fail(s, #name, try_status);                                                     \
    } while (0)

/* ---- Finding what is there, and room for the rest -------------------------------------------- */

static int name_blocks(struct server *s)
{
    size_t named = 0;
    for (uint32_t i = 0; i < s->count; i++)
        replay_tokens(s->ids[i], s->tokens + (size_t)i * REPLAY_TOKENS_PER_BLOCK);
    TRY(s, kvb_hash_tokens,
        (s->kv, 0, NULL, s->tokens, (size_t)s->count * REPLAY_TOKENS_PER_BLOCK, s->seqs, s->count,
         &named));
    return 0;
}

static int find(struct server *s)
{
    struct kvb_query query = {.size = sizeof query,
                              .tokens = s->tokens,
                              .token_count = (size_t)s->count * REPLAY_TOKENS_PER_BLOCK,
                              .keys = s->seqs,
                              .key_count = s->count};
    size_t hit_count = 0;
    TRY(s, kvb_match, (s->kv, &query, s->hits, s->count, &hit_count));
    s->hit_count = (uint32_t)hit_count;
    s->up_count = 0;
    for (uint32_t i = 0; i < s->hit_count; i++) {
        if (s->hits[i].tier == KVB_TIER_DEVICE)
            continue;
        s->places[s->up_count] = i;
        s->sources[s->up_count++] = s->hits[i].block;
    }
    return 0;
}

/*
 * kvb_alloc, patient as long as transfers hold what is missing: KVB_EAGAIN only after
 * ROOM_ATTEMPTS.
 */
static int allocate(struct server *s, uint32_t count, struct kvb_block **blocks)
{
    int status = 0;
    for (int attempt = 0; attempt < ROOM_ATTEMPTS; attempt++) {
        status = kvb_alloc(s->kv, KVB_TIER_DEVICE, count, NULL, blocks, NULL);
        if (status != KVB_EAGAIN)
            return status;
        s->results.room_retries++;
        status = kvb_manager_flush(s->kv, ROOM_PATIENCE_NS);
        if (status && status != KVB_ETIMEDOUT)
            return status;
    }
    return KVB_EAGAIN;
}

/* Let go of all hits: the request is computed from its beginning. */
static int drop_hits(struct server *s)
{
    for (uint32_t i = 0; i < s->hit_count; i++)
        s->blocks[i] = s->hits[i].block;
    TRY(s, kvb_block_unref, (s->kv, s->blocks, s->hit_count, NULL));
    s->results.hits_dropped += s->hit_count;
    s->hit_count = s->up_count = 0;
    return 0;
}

/*
 * One all-or-nothing allocation for what moves up and what is new: no request ever holds half of
 * what it needs.
 */
static int make_room(struct server *s)
{
    int status = allocate(s, s->count - (s->hit_count - s->up_count), s->fresh);
    if (status == KVB_EAGAIN && s->hit_count) {
        if (drop_hits(s))
            return -1;
        status = allocate(s, s->count, s->fresh);
    }
    if (status)
        return fail(s, "kvb_alloc", status);
    for (uint32_t i = 0; i < s->hit_count; i++)
        s->blocks[i] = s->hits[i].tier == KVB_TIER_DEVICE ? s->hits[i].block : NULL;
    for (uint32_t i = s->hit_count; i < s->count; i++)
        s->blocks[i] = s->fresh[s->up_count + i - s->hit_count];
    return 0;
}

/* ---- Bringing up what is below the device tier ----------------------------------------------- */

/*
 * Behind a block that did not arrive everything is computed, into Empty blocks; hits there are
 * given back.
 */
static int replace_unreached_hits(struct server *s)
{
    uint32_t lacking = 0;
    for (uint32_t i = s->leading; i < s->hit_count; i++) {
        if (s->hits[i].tier == KVB_TIER_DEVICE) {
            TRY(s, kvb_block_unref, (s->kv, &s->blocks[i], 1, NULL));
            s->blocks[i] = NULL;
        }
        lacking += !s->blocks[i];
    }
    s->results.hits_dropped += s->hit_count - s->leading;
    if (!lacking)
        return 0;
    TRY(s, allocate, (s, lacking, s->fresh));
    for (uint32_t i = s->leading; i < s->hit_count; i++)
        if (!s->blocks[i])
            s->blocks[i] = s->fresh[--lacking];
    return 0;
}

static int bring_up(struct server *s)
{
    s->leading = s->hit_count;
    if (s->up_count == 0)
        return 0;
    struct kvb_onboard request = {
        .size = sizeof request, .sources = s->sources, .targets = s->fresh, .count = s->up_count};
    struct kvb_op *op = NULL;
    uint32_t good_count = 0;
    double start = now();
    TRY(s, kvb_onboard, (s->kv, &request, &op));
    TRY(s, kvb_op_wait, (s->kv, op, KVB_FOREVER));
    s->results.wait_seconds += now() - start;
    TRY(s, kvb_op_take, (s->kv, op, s->fresh, s->up_count, &good_count));
    TRY(s, kvb_op_release, (s->kv, op));
    for (uint32_t k = 0; k < s->up_count; k++)
        s->blocks[s->places[k]] = s->fresh[k];
    if (good_count == s->up_count)
        return 0;
    s->leading = s->places[good_count];
    return replace_unreached_hits(s);
}

/* ---- Computing ------------------------------------------------------------------------------- */

static int fill_block(struct server *s, uint32_t i)
{
    uint64_t word = 0;
    for (uint32_t layer = 0; layer < REPLAY_LAYERS; layer++)
        for (uint32_t part = 0; part < REPLAY_PARTS; part++) {
            void *chunk = NULL;
            TRY(s, kvb_block_address, (s->kv, s->blocks[i], layer, part, &chunk));
            void *bytes = device_write_begin(chunk);
            replay_payload_fill(s->ids[i], word, bytes, s->chunk_bytes);
            if (device_write_end(chunk))
                return fail(s, "device_write_end", KVB_EDEVICE);
            word += s->chunk_bytes / 8;
        }
    return 0;
}

/* One prefill step over blocks [first, first + count). */
static int compute_step(struct server *s, uint32_t first, uint32_t count)
{
    struct kvb_block **blocks = s->blocks + first;
    struct kvb_block_init inits[STEP_BLOCKS];
    struct kvb_append appends[STEP_BLOCKS];
    uint32_t computed[STEP_BLOCKS];
    for (uint32_t k = 0; k < count; k++) {
        uint32_t i = first + k;
        inits[k] = (struct kvb_block_init){.size = sizeof inits[k],
                                           .position = i,
                                           .parent = i ? &s->seqs[i - 1] : NULL,
                                           .key = &s->seqs[i]};
        appends[k] = (struct kvb_append){.size = sizeof appends[k],
                                         .tokens = s->tokens + (size_t)i * REPLAY_TOKENS_PER_BLOCK,
                                         .count = REPLAY_TOKENS_PER_BLOCK};
        computed[k] = REPLAY_TOKENS_PER_BLOCK;
    }
    TRY(s, kvb_block_init, (s->kv, blocks, inits, count, NULL));
    TRY(s, kvb_block_append, (s->kv, blocks, appends, count, NULL));
    TRY(s, kvb_block_schedule, (s->kv, blocks, count, NULL));
    double start = now();
    for (uint32_t k = 0; k < count; k++)
        if (fill_block(s, first + k))
            return -1;
    s->results.fill_seconds += now() - start;
    TRY(s, kvb_block_compute_done, (s->kv, blocks, computed, count, NULL, NULL));
    TRY(s, kvb_block_register, (s->kv, blocks, count, NULL, NULL, NULL));
    for (uint32_t k = 0; k < count; k++)
        *contents_origin(&s->contents, s->ids[first + k]) = ORIGIN_COMPUTED;
    return 0;
}

static int compute_rest(struct server *s)
{
    for (uint32_t first = s->leading; first < s->count; first += STEP_BLOCKS) {
        uint32_t left = s->count - first;
        if (compute_step(s, first, left < STEP_BLOCKS ? left : STEP_BLOCKS))
            return -1;
    }
    return 0;
}

/* ---- Checking and letting go ----------------------------------------------------------------- */

static int verify_block(struct server *s, uint32_t i)
{
    uint64_t word = 0;
    int good = 1;
    for (uint32_t layer = 0; layer < REPLAY_LAYERS; layer++)
        for (uint32_t part = 0; part < REPLAY_PARTS; part++) {
            void *chunk = NULL;
            TRY(s, kvb_block_address, (s->kv, s->blocks[i], layer, part, &chunk));
            const void *bytes = device_read(chunk);
            if (!bytes)
                return fail(s, "device_read", KVB_EDEVICE);
            good &= replay_payload_verify(s->ids[i], word, bytes, s->chunk_bytes);
            word += s->chunk_bytes / 8;
        }
    s->results.verified++;
    if (good)
        return 0;
    if (s->results.corrupt++ == 0)
        fprintf(stderr,
                "kvb_replay: request %" PRIu64 ", block %" PRIu32 ": wrong bytes for id %" PRIu64
                ", found in tier %" PRIu32 ", now in slot %" PRIu32 "\n",
                s->results.requests + 1, i, s->ids[i], s->hits[i].tier,
                kvb_block_slot(s->kv, s->blocks[i]));
    return 0;
}

/* A hit is the restart's merit until this run has computed that content itself. */
static void note_origin(struct server *s, uint64_t id)
{
    enum origin *origin = contents_origin(&s->contents, id);
    if (*origin == ORIGIN_COMPUTED)
        return;
    s->results.restart.saved_hits++;
    s->results.restart.saved_contents += *origin == ORIGIN_UNKNOWN;
    *origin = ORIGIN_EARLIER;
}

static int verify_reused(struct server *s)
{
    double start = now();
    for (uint32_t i = 0; i < s->leading; i++) {
        s->results.hits[s->hits[i].tier]++;
        note_origin(s, s->ids[i]);
        if (verify_block(s, i))
            return -1;
    }
    s->results.verify_seconds += now() - start;
    return 0;
}

static int let_go(struct server *s)
{
    TRY(s, kvb_block_unref, (s->kv, s->sources, s->up_count, NULL));
    TRY(s, kvb_block_unref, (s->kv, s->blocks, s->count, NULL));
    return 0;
}

/* ---- Pace ------------------------------------------------------------------------------------ */

static int make_progress(struct server *s)
{
    double start = now();
    if (s->options->pace == PACE_IDLE) {
        TRY(s, kvb_manager_flush, (s->kv, KVB_FOREVER));
    } else if (s->options->progress == KVB_PROGRESS_POLL) {
        int status = kvb_manager_poll(s->kv, POLL_BUDGET_NS);
        if (status < 0)
            return fail(s, "kvb_manager_poll", status);
    }
    s->results.wait_seconds += now() - start;
    return 0;
}

int server_serve(struct server *s, size_t index)
{
    const struct request *request = &s->trace->requests[index];
    double start = now();
    s->ids = s->trace->ids + request->first;
    s->count = request->block_count;
    if (name_blocks(s) || find(s) || make_room(s) || bring_up(s) || compute_rest(s) ||
        verify_reused(s) || let_go(s) || make_progress(s))
        return -1;
    s->results.requests++;
    s->results.block_refs += s->count;
    s->results.seconds += now() - start;
    return 0;
}

static int sum_paths(struct server *s)
{
    struct restart *restart = &s->results.restart;
    for (uint32_t path = 0; path < s->options->disk.count; path++) {
        struct kvb_disk_stats stats = {.size = sizeof stats};
        TRY(s, kvb_disk_stats, (s->kv, path, &stats));
        restart->recovered += stats.recovered;
        restart->dropped += stats.dropped;
        restart->superseded += stats.superseded;
        restart->recovery_ns = stats.recovery_ns;
    }
    return 0;
}

int server_finish(struct server *s)
{
    double start = now();
    TRY(s, kvb_manager_flush, (s->kv, FINISH_PATIENCE_NS));
    s->results.seconds += now() - start;
    s->results.stats.size = sizeof s->results.stats;
    TRY(s, kvb_manager_stats, (s->kv, &s->results.stats));
    return sum_paths(s);
}
