/* SPDX-License-Identifier: Apache-2.0 */
/* disk/hasher - see hasher.h. */
#include "transfer/disk/hasher.h"

#include <sched.h>

#include "base/platform.h"

/* ---- Before the I/O -------------------------------------------------------------------------- */

void kvbi_disk_hasher_begin(struct kvbi_disk_hasher *hasher, uint32_t item)
{
    struct kvbi_disk_block *block = &hasher->blocks[item];
    *block = (struct kvbi_disk_block){.error = 0};
    block->error =
        kvbi_disk_copy_begin(&block->copy, &hasher->queue->items[item].copy, hasher->hooks);
    if (block->error == 0 && block->copy.write)
        block->error = kvbi_disk_copy_hash(&block->copy);
}

uint32_t kvbi_disk_hasher_take_locked(struct kvbi_disk_hasher *hasher, bool urgent, bool *fresh)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    struct kvbi_copy_queue *queue = hasher->queue;
    *fresh = hasher->staged[urgent].count == 0;
    struct kvbi_copy_list *list = *fresh ? &queue->ready[urgent] : &hasher->staged[urgent];
    return list->count > 0 ? kvbi_copy_pop_locked(queue, list) : KVBI_NONE;
}

bool kvbi_disk_hasher_has_staged_locked(const struct kvbi_disk_hasher *hasher)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    return hasher->staged[0].count + hasher->staged[1].count > 0;
}

static uint64_t ahead_locked(const struct kvbi_disk_hasher *hasher)
{
    return (hasher->staged[0].count + hasher->staged[1].count + hasher->hashing) *
           hasher->disk->block_bytes;
}

/* Where the next write to be staged waits, or NULL: there is none, or enough is staged. */
static struct kvbi_copy_list *stageable_locked(struct kvbi_disk_hasher *hasher)
{
    uint64_t ahead = ahead_locked(hasher);
    struct kvbi_copy_list *ready = kvbi_copy_next_locked(hasher->queue);
    if (ready->count == 0 || hasher->queue->items[ready->first].copy.to->lasting == NULL)
        return NULL;
    return ahead == 0 || ahead + hasher->disk->block_bytes <= hasher->ahead_bytes ? ready : NULL;
}

/* ---- Behind it ------------------------------------------------------------------------------- */

void kvbi_disk_hasher_land_locked(struct kvbi_disk_hasher *hasher, uint32_t item, bool verified)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    const struct kvbi_disk_block *block = &hasher->blocks[item];
    bool over = verified || block->error != 0 || block->copy.write;
    kvbi_copy_push_locked(hasher->queue, over ? &hasher->landed : &hasher->unverified, item);
}

uint32_t kvbi_disk_hasher_end(struct kvbi_disk_hasher *hasher, struct kvbi_completion *completions,
                              uint32_t max)
{
    struct kvbi_disk_ending endings[KVBI_DISK_PUBLISH_MAX];
    struct kvbi_copy_queue *queue = hasher->queue;
    struct kvbi_copy_list taken = {.count = 0};
    kvbi_lock_take(&queue->lock);
    while (taken.count < max && taken.count < KVBI_DISK_PUBLISH_MAX && hasher->landed.count > 0) {
        uint32_t item = kvbi_copy_pop_locked(queue, &hasher->landed);
        endings[taken.count] = (struct kvbi_disk_ending){.state = &hasher->blocks[item].copy,
                                                         .cookie = queue->items[item].copy.cookie,
                                                         .result = hasher->blocks[item].error};
        kvbi_copy_push_locked(queue, &taken, item);
    }
    kvbi_lock_release(&queue->lock);
    uint32_t count = taken.count;
    if (count == 0)
        return 0;
    kvbi_disk_copies_end(hasher->disk, endings, count, completions);
    kvbi_lock_take(&queue->lock);
    kvbi_copy_append_locked(queue, &queue->free, &taken);
    kvbi_lock_release(&queue->lock);
    return count;
}

/* ---- Who hashes ------------------------------------------------------------------------------ */

bool kvbi_disk_hasher_has_work_locked(struct kvbi_disk_hasher *hasher)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    return hasher->unverified.count > 0 || stageable_locked(hasher) != NULL;
}

/* Compares or makes one checksum; the lock is released meanwhile. False: there is none to make. */
static bool hash_next_locked(struct kvbi_disk_hasher *hasher)
{
    struct kvbi_copy_queue *queue = hasher->queue;
    bool verify = hasher->unverified.count > 0;
    struct kvbi_copy_list *from = verify ? &hasher->unverified : stageable_locked(hasher);
    if (from == NULL)
        return false;
    uint32_t item = kvbi_copy_pop_locked(queue, from);
    struct kvbi_disk_block *block = &hasher->blocks[item];
    hasher->hashing++;
    kvbi_lock_release(&queue->lock);
    if (verify)
        block->error = kvbi_disk_copy_hash(&block->copy);
    else
        kvbi_disk_hasher_begin(hasher, item);
    kvbi_lock_take(&queue->lock);
    hasher->hashing--;
    bool over = verify || block->error != 0;
    kvbi_copy_push_locked(
        queue, over ? &hasher->landed : &hasher->staged[queue->items[item].urgent], item);
    return true;
}

bool kvbi_disk_hasher_work(struct kvbi_disk_hasher *hasher)
{
    uint64_t bytes = 0;
    kvbi_lock_take(&hasher->queue->lock);
    while (bytes < KVBI_DISK_PIECE_BYTES && hash_next_locked(hasher))
        bytes += hasher->disk->block_bytes;
    kvbi_lock_release(&hasher->queue->lock);
    return bytes > 0;
}

static void tell_engine_locked(struct kvbi_disk_hasher *hasher)
{
    bool awaited = hasher->landed.count > 0 ||
                   (hasher->has_room && kvbi_disk_hasher_has_staged_locked(hasher));
    if (hasher->untold_bytes > 0 && awaited)
        hasher->tell_locked(hasher->engine);
    hasher->untold_bytes = 0;
}

/*
 * Tells when as much as may be ahead has come together, or nothing is left to hash: a wake-up costs
 * as much as 64 KiB.
 */
static void *run_thread(void *argument)
{
    struct kvbi_disk_hasher *hasher = argument;
    kvbi_lock_take(&hasher->queue->lock);
    while (!hasher->stop) {
        bool hashed = hash_next_locked(hasher);
        hasher->untold_bytes += hashed ? hasher->disk->block_bytes : 0;
        if (!hashed || hasher->untold_bytes >= hasher->ahead_bytes)
            tell_engine_locked(hasher);
        if (hashed)
            continue;
        hasher->sleeping = true;
        kvbi_cond_broadcast(&hasher->idle);
        kvbi_cond_wait(&hasher->work, &hasher->queue->lock);
        hasher->sleeping = false;
    }
    kvbi_lock_release(&hasher->queue->lock);
    return NULL;
}

/*
 * For writes not before half of what may be staged is used up: they come back one by one, and a
 * wake-up is dear.
 */
void kvbi_disk_hasher_wake_locked(struct kvbi_disk_hasher *hasher)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    if (!hasher->threaded || !hasher->sleeping)
        return;
    if (hasher->unverified.count == 0 &&
        (ahead_locked(hasher) > hasher->ahead_bytes / 2 || stageable_locked(hasher) == NULL))
        return;
    hasher->sleeping = false; /* once is enough */
    kvbi_cond_broadcast(&hasher->work);
}

/* ---- Drain ----------------------------------------------------------------------------------- */

void kvbi_disk_hasher_cancel_locked(struct kvbi_disk_hasher *hasher)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    kvbi_copy_append_locked(hasher->queue, &hasher->queue->cancelled, &hasher->staged[1]);
    kvbi_copy_append_locked(hasher->queue, &hasher->queue->cancelled, &hasher->staged[0]);
    kvbi_copy_cancel_locked(hasher->queue);
}

void kvbi_disk_hasher_drain_locked(struct kvbi_disk_hasher *hasher)
{
    kvbi_lock_assert_held(&hasher->queue->lock);
    while (hasher->threaded && (hasher->hashing > 0 || hasher->unverified.count > 0)) {
        kvbi_disk_hasher_wake_locked(hasher);
        kvbi_cond_wait(&hasher->idle, &hasher->queue->lock);
    }
    kvbi_disk_hasher_cancel_locked(hasher);
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

/* With one processor, a second thread would only take turns with the first. */
static bool has_processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) > 1;
}

/* As much as the engine may have in flight: more would wait in vain. */
static uint64_t most_ahead(const struct kvbi_disk_engine_config *config)
{
    uint64_t bytes =
        config->inflight_bytes != 0 ? config->inflight_bytes : KVBI_DISK_INFLIGHT_BYTES;
    uint32_t count =
        config->inflight_count != 0 ? config->inflight_count : KVBI_DISK_INFLIGHT_COUNT;
    return bytes / count < config->disk->block_bytes ? bytes : count * config->disk->block_bytes;
}

int kvbi_disk_hasher_create(struct kvbi_disk_hasher *hasher, const struct kvbi_memory *memory,
                            const struct kvbi_disk_engine_config *config,
                            struct kvbi_copy_queue *queue, void (*tell_locked)(void *engine),
                            void *engine)
{
    *hasher = (struct kvbi_disk_hasher){.memory = *memory,
                                        .hooks = config->hooks,
                                        .disk = config->disk,
                                        .ahead_bytes = most_ahead(config),
                                        .tell_locked = tell_locked,
                                        .engine = engine,
                                        .has_room = true};
    struct kvbi_disk_block *blocks =
        kvbi_memory_alloc_raw(memory, queue->capacity, sizeof *blocks, 0);
    if (blocks == NULL)
        return KVB_ENOMEM;
    if (kvbi_cond_init(&hasher->work) != 0)
        goto free_blocks;
    if (kvbi_cond_init(&hasher->idle) != 0)
        goto fini_work;
    hasher->blocks = blocks;
    hasher->queue = queue;
    return 0;

fini_work:
    kvbi_cond_fini(&hasher->work);
free_blocks:
    kvbi_memory_free(memory, blocks, queue->capacity, sizeof *blocks);
    return KVB_ENOMEM;
}

int kvbi_disk_hasher_start(struct kvbi_disk_hasher *hasher,
                           const struct kvbi_disk_engine_config *config)
{
    if (config->poll || !has_processors())
        return 0;
    hasher->threaded = true; /* before the thread looks */
    if (kvbi_thread_start(&hasher->thread, "kvblock hash", run_thread, hasher) == 0)
        return 0;
    hasher->threaded = false;
    return KVB_ENOMEM;
}

static void stop_thread(struct kvbi_disk_hasher *hasher)
{
    kvbi_lock_take(&hasher->queue->lock);
    hasher->stop = true;
    kvbi_lock_release(&hasher->queue->lock);
    kvbi_cond_broadcast(&hasher->work);
    (void)pthread_join(hasher->thread, NULL);
}

void kvbi_disk_hasher_destroy(struct kvbi_disk_hasher *hasher, bool in_child)
{
    if (hasher->queue == NULL)
        return;
    if (hasher->threaded && !in_child)
        stop_thread(hasher);
    if (!in_child) {
        kvbi_cond_fini(&hasher->idle);
        kvbi_cond_fini(&hasher->work);
    }
    kvbi_memory_free(&hasher->memory, hasher->blocks, hasher->queue->capacity,
                     sizeof *hasher->blocks);
    *hasher = (struct kvbi_disk_hasher){.queue = NULL};
}

size_t kvbi_disk_hasher_bytes(const struct kvbi_disk_hasher *hasher)
{
    return hasher->queue->capacity * sizeof *hasher->blocks;
}
