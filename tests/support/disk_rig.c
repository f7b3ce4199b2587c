/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "support/give_up.h"
#include "transfer/disk/tier.h"
#include "transfer/memory/tier.h"

/* The disk tier over so many files, of which the first is place.file. */
static int open_disk(struct disk_rig *rig, uint32_t path_count)
{
    char names[3][112];
    const char *const paths[] = {rig->place.file, names[1], names[2]};
    for (int i = 1; i < 3; i++)
        (void)snprintf(names[i], sizeof names[i], "%s.%d", rig->place.file, i);
    const struct kvbi_disk_config disk = {.paths = paths,
                                          .path_count = path_count,
                                          .block_count = rig->host.block_count,
                                          .purpose = {.block_bytes = rig->host.block_bytes},
                                          .buffered = rig->variant->buffered};
    int error = kvbi_tier_disk_create(&rig->disk, &rig->memory, KVB_TIER_DISK, &disk, rig->message,
                                      sizeof rig->message);
    if (error == 0)
        error = kvbi_disk_commit(kvbi_disk_of(&rig->disk), rig->message, sizeof rig->message);
    rig->config.disk = kvbi_disk_of(&rig->disk);
    return error;
}

int rig_open(struct disk_rig *rig, uint64_t block_bytes, uint32_t slots, void *base)
{
    const struct disk_rig_variant *variant = rig->variant;
    *rig = (struct disk_rig){.variant = variant, .open = true};
    rig->memory = failing_memory(&rig->failing, INT64_MAX);
    kvbi_clock_init(&rig->clock, NULL);
    disk_path_make(&rig->place);
    rig->memories[0] = &rig->host;
    rig->config = (struct kvbi_disk_engine_config){.engine = variant->engine,
                                                   .lines = &rig->lines,
                                                   .memories = rig->memories,
                                                   .memory_count = 1,
                                                   .capacity = 256,
                                                   .single_issuer = !variant->shared,
                                                   .unregistered = variant->unregistered,
                                                   .poll = variant->poll,
                                                   .hooks = &rig->hooks};
    int error =
        kvbi_tier_host_create(&rig->host, &rig->memory, KVB_TIER_HOST, slots, block_bytes, base);
    return error == 0 ? open_disk(rig, 1) : error;
}

int rig_reopen(struct disk_rig *rig, uint32_t path_count)
{
    if (rig->engine != NULL)
        rig->engine->ops->destroy(rig->engine);
    rig->engine = NULL;
    kvbi_tier_destroy(&rig->disk);
    return open_disk(rig, path_count);
}

int rig_start(struct disk_rig *rig)
{
    return kvbi_disk_engine_create(&rig->engine, &rig->memory, &rig->clock, &rig->config, rig->said,
                                   sizeof rig->said);
}

bool rig_close(struct disk_rig *rig)
{
    if (!rig->open)
        return true;
    if (rig->engine != NULL)
        rig->engine->ops->destroy(rig->engine);
    kvbi_tier_destroy(&rig->disk);
    kvbi_tier_destroy(&rig->host);
    disk_path_remove(&rig->place);
    rig->engine = NULL;
    rig->open = false;
    return rig->failing.live_count == 0;
}

bool rig_works(const struct disk_rig_variant *variant)
{
    struct disk_rig rig = {.variant = variant};
    bool works = rig_open(&rig, 4096, 1, NULL) == 0 && rig_start(&rig) == 0;
    if (!works)
        (void)fprintf(stderr, "%s is not tested here: %s%s\n", variant->name, rig.message,
                      rig.said);
    (void)rig_close(&rig);
    return works;
}

void rig_must_open(struct disk_rig *rig, uint64_t block_bytes, uint32_t slots, void *base)
{
    if (rig_open(rig, block_bytes, slots, base) != 0)
        fail_msg("%s", rig->message);
}

void rig_must_start(struct disk_rig *rig)
{
    if (rig_start(rig) != 0)
        fail_msg("%s", rig->said);
}

void rig_begin(struct disk_rig *rig, uint64_t block_bytes, uint32_t slots)
{
    rig_must_open(rig, block_bytes, slots, NULL);
    rig_must_start(rig);
}

void rig_spawn(struct disk_rig *rig, void *(*body)(void *rig))
{
    assert_false(rig->helped);
    assert_int_equal(pthread_create(&rig->helper, NULL, body, rig), 0);
    rig->helped = true;
}

void *rig_join(struct disk_rig *rig)
{
    void *result = NULL;
    if (rig->helped && pthread_join(rig->helper, &result) == 0)
        rig->helped = false;
    return result;
}

int disk_rig_setup(void **state)
{
    struct disk_rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    rig->variant = *state;
    *state = rig;
    return 0;
}

int disk_rig_teardown(void **state)
{
    struct disk_rig *rig = *state;
    (void)rig_join(rig);
    bool closed = rig_close(rig);
    if (!closed)
        print_error("the engine or its tiers have not given all their memory back\n");
    free(rig);
    return closed ? 0 : -1;
}

/* ---- Contents -------------------------------------------------------------------------------- */

uint64_t rig_random(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

void rig_fill(struct disk_rig *rig, uint32_t slot, uint64_t key)
{
    unsigned char *at = kvbi_tier_address(&rig->host, slot);
    uint64_t state = key * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (uint64_t i = 0; i < rig->host.block_bytes; i += 8) {
        uint64_t word = rig_random(&state), left = rig->host.block_bytes - i;
        memcpy(at + i, &word, left < 8 ? (size_t)left : 8);
    }
}

bool rig_has(struct disk_rig *rig, uint32_t slot, uint64_t key)
{
    const unsigned char *at = kvbi_tier_address(&rig->host, slot);
    uint64_t state = key * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (uint64_t i = 0; i < rig->host.block_bytes; i += 8) {
        uint64_t word = rig_random(&state), left = rig->host.block_bytes - i;
        if (memcmp(at + i, &word, left < 8 ? (size_t)left : 8) != 0)
            return false;
    }
    return true;
}

struct kvbi_label rig_label(uint64_t key)
{
    return (struct kvbi_label){.hash = key, .digest = {key + 1, key + 2}, .generation = 1};
}

static int open_file(const struct disk_rig *rig)
{
    int fd = open(rig->place.file, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static off_t place_of(const struct disk_rig *rig, uint32_t slot, uint64_t offset)
{
    return (off_t)(kvbi_disk_offset(kvbi_disk_of(&rig->disk), slot) + offset);
}

void rig_peek(const struct disk_rig *rig, uint32_t slot, uint64_t offset, void *bytes, size_t count)
{
    int fd = open_file(rig);
    assert_int_equal(pread(fd, bytes, count, place_of(rig, slot, offset)), (ssize_t)count);
    close(fd);
}

void rig_poke(const struct disk_rig *rig, uint32_t slot, uint64_t offset, const void *bytes,
              size_t count)
{
    int fd = open_file(rig);
    assert_int_equal(pwrite(fd, bytes, count, place_of(rig, slot, offset)), (ssize_t)count);
    close(fd);
}

void rig_flip(const struct disk_rig *rig, uint32_t slot, uint64_t offset)
{
    unsigned char byte;
    rig_peek(rig, slot, offset, &byte, 1);
    byte ^= 0x10;
    rig_poke(rig, slot, offset, &byte, 1);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* The content `key`, written for the first time. */
static struct kvbi_identity identity_of(uint64_t key)
{
    return (struct kvbi_identity){.hash = key, .digest = {key + 1, key + 2}, .generation = 1};
}

static struct kvbi_copy copy_of(struct disk_rig *rig, uint64_t key, uint32_t tag)
{
    rig->results[tag] = RIG_PENDING;
    return (struct kvbi_copy){.cookie = tag, .identity = identity_of(key)};
}

struct kvbi_copy rig_down(struct disk_rig *rig, uint32_t host, uint32_t disk, uint64_t key,
                          uint32_t tag)
{
    struct kvbi_copy copy = copy_of(rig, key, tag);
    copy.from = &rig->host, copy.from_slot = host;
    copy.to = &rig->disk, copy.to_slot = disk;
    return copy;
}

struct kvbi_copy rig_up(struct disk_rig *rig, uint32_t disk, uint32_t host, uint64_t key,
                        uint32_t tag)
{
    struct kvbi_copy copy = copy_of(rig, key, tag);
    copy.from = &rig->disk, copy.from_slot = disk;
    copy.to = &rig->host, copy.to_slot = host;
    return copy;
}

bool rig_reap(struct disk_rig *rig, uint32_t max, bool *more)
{
    struct kvbi_completion completions[64];
    uint32_t count =
        rig->engine->ops->reap(rig->engine, completions, max < 64 ? max : 64, KVB_FOREVER, more);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t cookie = completions[i].cookie;
        if (cookie >= RIG_COOKIES || rig->results[cookie] != RIG_PENDING)
            return false;
        rig->results[cookie] = completions[i].result;
        rig->condemned[cookie] = completions[i].condemned;
        rig->order[rig->done++ % RIG_COOKIES] = (uint32_t)cookie;
    }
    return count <= max;
}

bool rig_wait(struct disk_rig *rig, uint32_t count)
{
    struct pollfd event = {.fd = rig->engine->ops->wake_fd(rig->engine), .events = POLLIN};
    while (rig->done < count) {
        bool more;
        uint32_t before = rig->done;
        if (!rig_reap(rig, 64, &more))
            return false;
        if (rig->done > before || more)
            continue;
        if (event.fd < 0)
            return false;
        int ready = poll(&event, 1, KV_GIVE_UP_MS);
        if (ready == 0)
            return false;
    }
    return true;
}

int rig_move(struct disk_rig *rig, struct kvbi_copy copy, bool urgent)
{
    int error = rig->engine->ops->submit(rig->engine, &copy, 1, urgent);
    if (error != 0)
        return error;
    return rig_wait(rig, rig->done + 1) ? rig->results[copy.cookie] : RIG_PENDING;
}

void rig_submit(struct disk_rig *rig, struct kvbi_copy copy, bool urgent)
{
    assert_int_equal(rig->engine->ops->submit(rig->engine, &copy, 1, urgent), 0);
}

void rig_store(struct disk_rig *rig, uint32_t slot, uint64_t key)
{
    rig_fill(rig, slot, key);
    assert_int_equal(rig_move(rig, rig_down(rig, slot, slot, key, 0), false), 0);
    rig_fill(rig, slot, 0);
}

int rig_load(struct disk_rig *rig, uint32_t slot, uint64_t key)
{
    int result = rig_move(rig, rig_up(rig, slot, slot, key, 0), true);
    if (result == 0)
        assert_true(rig_has(rig, slot, key));
    return result;
}

static int follow_plan(void *context, bool write, uint32_t slot, int64_t *result)
{
    struct rig_plan *plan = context;
    (void)slot;
    kvbi_lock_assert_none_held();
    if (write != plan->write || plan->at >= plan->count)
        return 0;
    *result = plan->results[plan->for_ever ? 0 : plan->at++];
    return 1;
}

struct kvbi_hooks rig_planned(struct disk_rig *rig)
{
    return (struct kvbi_hooks){.io_fault = follow_plan, .context = &rig->plan};
}
