/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A life: open, check, write through to the disk, sometimes clear, and close unless killed before.
 * See plan.h for what it tells.
 */
#include "worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define BATCH_MAX 4
#define BATCH_MAX_WIDE 64
#define BUSY_PATIENCE_MS 120000 /* the kernel still ends the killed process' I/O */

void worker_say(struct worker *worker, uint32_t kind, uint32_t number)
{
    struct crash_message message = {kind, number};
    if (write(worker->pipe, &message, sizeof message) != sizeof message)
        _exit(1);
}

void worker_fail(const char *call, int code, const char *words)
{
    fprintf(stderr, "worker: %s: %s%s%s\n", call, kvb_error_name(code), *words ? ": " : "", words);
    _exit(1);
}

/* ---- Names ----------------------------------------------------------------------------------- */

const struct kvb_seq *worker_seq(const struct worker *worker, uint32_t number)
{
    return &worker->seqs[number - worker->life->first];
}

static uint32_t parent_of(const struct worker *worker, uint32_t number)
{
    return number % CRASH_CHAIN != 0 && !worker->files->keyed ? number - 1 : 0;
}

uint32_t *worker_number(const struct worker *worker, const struct kvb_seq *seq)
{
    uint32_t place = (uint32_t)seq->hash & worker->mask;
    while (worker->numbers[place] != 0 &&
           worker_seq(worker, worker->numbers[place])->hash != seq->hash)
        place = (place + 1) & worker->mask;
    return &worker->numbers[place];
}

static void name_content(struct worker *worker, uint32_t number, struct kvb_seq *seq)
{
    uint32_t tokens[CRASH_TOKENS], parent = parent_of(worker, number),
                                   key = crash_key_of(worker->files, number);
    size_t named;
    if (worker->files->keyed) { /* keys are as long as names: 24 bytes, whatever they are */
        *seq = (struct kvb_seq){.hash = crash_mix(key), .digest = {key}};
        return;
    }
    crash_tokens(number, tokens);
    WORKER_TRY(kvb_hash_tokens(worker->manager, 0, parent ? worker_seq(worker, parent) : NULL,
                               tokens, CRASH_TOKENS, seq, 1, &named));
}

static void name_contents(struct worker *worker)
{
    uint32_t first = worker->life->first, count = worker->life->last - first;
    uint32_t length = 16;
    while (length < 2 * count)
        length *= 2;
    worker->seqs = calloc(count, sizeof *worker->seqs);
    worker->numbers = calloc(length, sizeof *worker->numbers);
    worker->mask = length - 1;
    if (worker->seqs == NULL || worker->numbers == NULL)
        worker_fail("calloc", KVB_ENOMEM, "");
    for (uint32_t number = first; number < worker->life->last; number++) {
        struct kvb_seq *seq = &worker->seqs[number - first];
        name_content(worker, number, seq);
        if (crash_key_of(worker->files, number) == number)
            *worker_number(worker, seq) = number;
    }
    atomic_store(&worker->named, true);
}

/* ---- Callbacks ------------------------------------------------------------------------------- */

/*
 * Recovery announces what it has found before names are known: of no interest here, the check looks
 * for itself.
 */
static void deliver(void *context, const struct kvb_event *event)
{
    struct worker *worker = context;
    struct kvb_seq seq;
    if (event->kind == KVB_EVENT_LOST)
        worker_fail("event", KVB_ENOSPC, "the ring is too small for this test");
    if (event->tier != KVB_TIER_DISK || event->key == NULL || !atomic_load(&worker->named))
        return;
    memcpy(&seq, event->key, sizeof seq);
    uint32_t number = *worker_number(worker, &seq), before = crash_key_of(worker->files, number);
    worker_say(worker, event->kind == KVB_EVENT_STORED ? CRASH_STORED : CRASH_REMOVED, number);
    if (event->kind == KVB_EVENT_STORED && before != number)
        worker_say(worker, CRASH_REPLACED, before);
}

static int admit(void *context, const struct kvb_admission_request *request)
{
    struct worker *worker = context;
    struct kvb_seq seq;
    memcpy(&seq, request->key, sizeof seq);
    if (request->to_tier == KVB_TIER_DISK)
        worker_say(worker, CRASH_INTENT, *worker_number(worker, &seq));
    return 1;
}

/* ---- Opening --------------------------------------------------------------------------------- */

static struct kvb_tier_config memory_tier(const struct crash_life *life, uint32_t tier)
{
    return (struct kvb_tier_config){.size = sizeof(struct kvb_tier_config),
                                    .tier = tier,
                                    .block_count = life->wide ? WORKER_BLOCKS_WIDE : WORKER_BLOCKS,
                                    .trigger = KVB_OFFLOAD_ON_REGISTER,
                                    .ondeck_capacity = life->wide ? 0 : 4,
                                    .batch = life->wide ? 0 : 2,
                                    .depth = life->wide ? 0 : 2};
}

static int create(struct worker *worker, struct kvb_diagnosis *diagnosis)
{
    const struct crash_files *files = worker->files;
    const struct crash_life *life = worker->life;
    const char *paths[CRASH_PATHS_MAX];
    for (uint32_t i = 0; i < files->path_count; i++)
        paths[i] = files->paths[i];
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = files->block_bytes};
    struct kvb_tier_config tiers[3];
    uint32_t count = 0;
    tiers[count++] = memory_tier(life, KVB_TIER_DEVICE);
    if (life->host)
        tiers[count++] = memory_tier(life, KVB_TIER_HOST);
    tiers[count++] =
        (struct kvb_tier_config){.size = sizeof *tiers,
                                 .tier = KVB_TIER_DISK,
                                 .block_count = files->slot_count,
                                 .paths = paths,
                                 .path_count = files->path_count,
                                 .disk_engine = life->engine,
                                 .disk_flags = life->start_empty ? KVB_DISK_START_EMPTY : 0};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = CRASH_TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = count,
                                .key_bytes = files->keyed ? sizeof(struct kvb_seq) : 0,
                                .progress = life->progress,
                                .event_capacity = 1u << 16,
                                .model = "crash",
                                .sink = {deliver, worker},
                                .admission = {admit, worker}};
    return kvb_manager_create(&config, &worker->manager, diagnosis);
}

/*
 * A supervisor would start a server again at once, and find the file still in use by what the
 * kernel has to finish.
 */
static void open_files(struct worker *worker)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    int code = create(worker, &diagnosis);
    for (int waited = 0; code == KVB_EBUSY && waited < BUSY_PATIENCE_MS; waited++) {
        if (waited == 0)
            worker_say(worker, CRASH_BUSY, 0);
        nanosleep(&pause, NULL);
        code = create(worker, &diagnosis);
    }
    if (code != 0)
        worker_fail("kvb_manager_create", code, diagnosis.message);
    worker_say(worker, CRASH_OPENED, 0);
}

bool crash_engine_works(const struct crash_files *files, uint32_t engine)
{
    const struct crash_life life = {
        .engine = engine, .progress = KVB_PROGRESS_POLL, .start_empty = true};
    struct worker worker = {.files = files, .life = &life, .pipe = -1};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    int code = create(&worker, &diagnosis);
    if (code != 0)
        fprintf(stderr, "%s: %s\n", kvb_error_name(code), diagnosis.message);
    return code == 0 && kvb_manager_destroy(worker.manager) == 0;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void compute(struct worker *worker, struct kvb_block *block, uint32_t number)
{
    uint32_t tokens[CRASH_TOKENS], computed = CRASH_TOKENS, parent = parent_of(worker, number);
    void *address = NULL;
    crash_tokens(number, tokens);
    struct kvb_block_init init = {.size = sizeof init,
                                  .position = parent ? number % CRASH_CHAIN : 0,
                                  .parent = parent ? worker_seq(worker, parent) : NULL};
    struct kvb_append append = {.size = sizeof append, .tokens = tokens, .count = CRASH_TOKENS};
    WORKER_TRY(kvb_block_init(worker->manager, &block, &init, 1, NULL));
    WORKER_TRY(kvb_block_append(worker->manager, &block, &append, 1, NULL));
    WORKER_TRY(kvb_block_schedule(worker->manager, &block, 1, NULL));
    WORKER_TRY(kvb_block_address(worker->manager, block, 0, 0, &address));
    uint64_t *words = address;
    for (size_t i = 0; i < worker->files->block_bytes / sizeof *words; i++)
        words[i] = crash_word(number, i);
    WORKER_TRY(kvb_block_compute_done(worker->manager, &block, &computed, 1, NULL, NULL));
}

void worker_alloc(struct worker *worker, struct kvb_block **blocks, uint32_t count)
{
    int code;
    while ((code = kvb_alloc(worker->manager, KVB_TIER_DEVICE, count, NULL, blocks, NULL)) ==
           KVB_EAGAIN)
        WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
    if (code != 0)
        worker_fail("kvb_alloc", code, "");
}

/*
 * Every event so far has been delivered: what comes next under this key is the new content. The
 * content behind the old one goes too, and later: its slot is the one that is used again first, and
 * that of the old one keeps what it holds.
 */
static void take_key(struct worker *worker, uint32_t number)
{
    const struct kvb_seq *keys = worker_seq(worker, crash_key_of(worker->files, number));
    WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
    int code = kvb_invalidate(worker->manager, keys, 2, NULL);
    if (code != 0 && code != KVB_ENOENT) /* the kill was before it was stored */
        worker_fail("kvb_invalidate", code, "");
    WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
    worker_say(worker, CRASH_IDLE, 0);
    *worker_number(worker, keys) = number;
}

/* Registered, parked, and thereby on its way down. */
static void store(struct worker *worker, uint32_t number)
{
    struct kvb_block *block = NULL;
    struct kvb_register options = {.size = sizeof options, .keys = worker_seq(worker, number)};
    if (crash_key_of(worker->files, number) != number)
        take_key(worker, number);
    worker_alloc(worker, &block, 1);
    compute(worker, block, number);
    WORKER_TRY(kvb_block_register(worker->manager, &block, 1, &options, NULL, NULL));
    WORKER_TRY(kvb_block_unref(worker->manager, &block, 1, NULL));
}

static void clear(struct worker *worker)
{
    worker_say(worker, CRASH_CLEARING, 0);
    WORKER_TRY(kvb_manager_clear(worker->manager));
    worker_say(worker, CRASH_CLEARED, 0);
    WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
    worker_say(worker, CRASH_IDLE, 0);
}

static void write_batch(struct worker *worker, uint32_t *next, uint64_t *seed)
{
    uint32_t most = worker->life->wide ? BATCH_MAX_WIDE : BATCH_MAX;
    for (uint32_t left = 1 + crash_random(seed, most); left > 0 && *next < worker->life->last;
         left--) {
        worker_say(worker, CRASH_BEGINS, *next);
        store(worker, (*next)++);
    }
    /* What has been evicted is computed again; what is still there is not written twice. */
    if (!worker->files->roomy && *next > worker->files->first && crash_random(seed, 4) == 0)
        store(worker, worker->files->first + crash_random(seed, *next - worker->files->first));
    if (worker->life->progress == KVB_PROGRESS_POLL &&
        kvb_manager_poll(worker->manager, 200000) < 0)
        worker_fail("kvb_manager_poll", KVB_ETHREAD, "");
    if (crash_random(seed, 3) == 0) {
        WORKER_TRY(kvb_manager_flush(worker->manager, KVB_FOREVER));
        worker_say(worker, CRASH_IDLE, 0);
    }
}

static void write_all(struct worker *worker)
{
    uint64_t seed = worker->life->seed;
    uint32_t next = worker->life->next, batches = worker->life->batch_count;
    for (uint32_t batch = 0; batch < batches && next < worker->life->last; batch++) {
        write_batch(worker, &next, &seed);
        if (worker->life->clears && batch == batches / 2)
            clear(worker);
    }
}

void crash_worker(const struct crash_files *files, const struct crash_life *life, int pipe)
{
    struct worker worker = {.files = files, .life = life, .pipe = pipe};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody is left behind if the parent is interrupted */
    open_files(&worker);
    name_contents(&worker);
    worker_check(&worker);
    write_all(&worker);
    if (!life->closes) {
        worker_say(&worker, CRASH_FULL, 0);
        for (;;)
            (void)pause();
    }
    worker_say(&worker, CRASH_CLOSING, 0);
    WORKER_TRY(kvb_manager_destroy(worker.manager));
    worker_say(&worker, CRASH_CLOSED, 0);
    _exit(0);
}
