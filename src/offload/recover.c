/* SPDX-License-Identifier: Apache-2.0 */
/* Two passes over what was in the files. See recover.h. */
#include "offload/recover.h"

#include "store/contents.h"

#include <string.h>
#include <time.h>

struct aged {
    uint64_t age;
    uint32_t slot;
};

struct pass {
    struct kvbi_store *store;
    struct kvbi_pool *pool;
    struct kvbi_tier *tier;
    struct kvbi_recovery *recovery;
    uint64_t *sequences;        /* by slot, of those adopted */
    struct aged *aged, *sorted; /* adopted ones; one that was superseded is still among them */
    uint32_t count;
    /* the namespace of the block before: neighbours mostly share it */
    struct kvbi_namespace_name space;
    uint32_t space_id;
};

static uint64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

static int find_space(struct pass *pass, const struct kvbi_label *label)
{
    struct kvbi_namespace_name name = {.salt_hash = label->space_hash,
                                       .digest = {label->space_digest[0], label->space_digest[1]}};
    if (memcmp(&name, &pass->space, sizeof name) == 0)
        return 0;
    int error = kvbi_namespaces_adopt(&pass->store->namespaces, &name, &pass->space_id);
    if (error == 0)
        pass->space = name;
    return error;
}

static void give_up(struct pass *pass, const struct kvbi_found *found, uint64_t *counter)
{
    pass->tier->lasting->forget(pass->tier, found->slot);
    kvbi_store_adopt_generation_locked(pass->store, pass->pool, found->slot,
                                       found->label.generation);
    ++*counter;
}

static void take_slot(struct pass *pass, const struct kvbi_found *found)
{
    pass->sequences[found->slot] = found->sequence;
    pass->aged[pass->count++] = (struct aged){.age = found->age, .slot = found->slot};
    pass->recovery->files[found->slot % pass->pool->file_count].recovered++;
}

static uint64_t *superseded(struct pass *pass, uint32_t slot)
{
    return &pass->recovery->files[slot % pass->pool->file_count].superseded;
}

/* Another slot of the same name was met before: the later written stays. */
static void supersede(struct pass *pass, const struct kvbi_found *found,
                      const struct kvbi_adoption *adoption, uint32_t other)
{
    if (found->sequence <= pass->sequences[other]) {
        give_up(pass, found, superseded(pass, found->slot));
        return;
    }
    kvbi_store_adopt_replace_locked(pass->store, pass->pool, adoption, other);
    pass->tier->lasting->forget(pass->tier, other);
    pass->sequences[other] = 0;
    pass->recovery->files[other % pass->pool->file_count].recovered--;
    ++*superseded(pass, other);
    take_slot(pass, found);
}

static void adopt(struct pass *pass, const struct kvbi_found *found)
{
    const struct kvbi_label *label = &found->label;
    uint64_t *dropped = &pass->recovery->files[found->slot % pass->pool->file_count].dropped;
    uint32_t other = KVBI_NONE;
    if (found->retired) {
        kvbi_store_adopt_retired_locked(pass->store, pass->pool, found->slot);
        return;
    }
    if (find_space(pass, label) != 0) {
        give_up(pass, found, dropped);
        return;
    }
    const struct kvbi_adoption adoption = {
        .slot = found->slot,
        .generation = label->generation,
        .name = {.hash = label->hash, .digest = {label->digest[0], label->digest[1]}},
        .parent_hash = label->parent_hash,
        .has_parent = label->has_parent,
        .namespace_id = pass->space_id,
        .priority = label->priority,
        .key = label->key,
        .parent_key = label->parent_key};
    switch (kvbi_store_adopt_locked(pass->store, pass->pool, &adoption, &other)) {
    case KVBI_ADOPTED:
        take_slot(pass, found);
        break;
    case KVBI_ADOPT_PRESENT:
        supersede(pass, found, &adoption, other);
        break;
    case KVBI_ADOPT_REFUSED:
        give_up(pass, found, dropped);
        break;
    }
}

static uint32_t scan(struct pass *pass, uint64_t *cursor, struct kvbi_found *found)
{
    return pass->tier->lasting->scan(pass->tier, cursor, found, KVBI_LOCK_BATCH);
}

static void adopt_all(struct pass *pass)
{
    struct kvbi_found found[KVBI_LOCK_BATCH];
    uint64_t cursor = 0;
    uint32_t count;
    while ((count = scan(pass, &cursor, found)) > 0) {
        kvbi_lock_take(&pass->store->lock);
        for (uint32_t i = 0; i < count; i++)
            kvbi_store_adopt_warm_locked(pass->store, found[i].label.hash);
        for (uint32_t i = 0; i < count; i++)
            (void)kvbi_index_warm_entry(&pass->store->index, found[i].label.hash);
        for (uint32_t i = 0; i < count; i++)
            adopt(pass, &found[i]);
        kvbi_lock_release(&pass->store->lock);
    }
    for (uint32_t i = 0; i < pass->pool->file_count; i++)
        pass->recovery->files[i].dropped += pass->tier->lasting->dropped(pass->tier, i);
}

/* ---- Order ----------------------------------------------------------------------------------- */

/*
 * By age, stable, a byte at a time; bytes that are the same in all ages cost one look. Leaves the
 * result in `aged`.
 */
static void sort_by_age(struct pass *pass)
{
    for (unsigned shift = 0; shift < 64; shift += 8) {
        uint32_t starts[256] = {0}, sum = 0;
        for (uint32_t i = 0; i < pass->count; i++)
            starts[pass->aged[i].age >> shift & 0xff]++;
        if (pass->count > 0 && starts[pass->aged[0].age >> shift & 0xff] == pass->count)
            continue;
        for (unsigned value = 0; value < 256; value++) {
            uint32_t here = starts[value];
            starts[value] = sum;
            sum += here;
        }
        for (uint32_t i = 0; i < pass->count; i++)
            pass->sorted[starts[pass->aged[i].age >> shift & 0xff]++] = pass->aged[i];
        struct aged *swap = pass->aged;
        pass->aged = pass->sorted;
        pass->sorted = swap;
    }
}

/* Did all files that were kept say in which order their blocks were used? */
static bool all_stamped(const struct kvbi_tier *tier)
{
    const struct kvbi_lasting_ops *ops = tier->lasting;
    bool all = true;
    for (uint32_t i = 0; i < ops->file_count(tier); i++)
        all &= ops->stamped(tier, i) || !ops->kept(tier, i);
    return all;
}

static void order_all(struct pass *pass)
{
    sort_by_age(pass);
    bool written = !all_stamped(pass->tier);
    for (uint32_t i = 0; i < pass->count;) {
        uint32_t slots[KVBI_LOCK_BATCH], count = 0;
        for (; i < pass->count && count < KVBI_LOCK_BATCH; i++)
            if (pass->sequences[pass->aged[i].slot] != 0) /* not superseded since */
                slots[count++] = pass->aged[i].slot;
        kvbi_lock_take(&pass->store->lock);
        kvbi_store_adopt_order_locked(pass->store, pass->pool, slots, count, written);
        kvbi_lock_release(&pass->store->lock);
    }
}

/* ---- Both ------------------------------------------------------------------------------------ */

static void run(struct pass *pass)
{
    uint64_t began_ns = real_ns();
    kvbi_lock_take(&pass->store->lock);
    kvbi_store_adopt_begin_locked(pass->store, pass->pool);
    kvbi_lock_release(&pass->store->lock);
    adopt_all(pass);
    order_all(pass);
    kvbi_lock_take(&pass->store->lock);
    kvbi_store_adopt_end_locked(pass->store, pass->pool);
    kvbi_lock_release(&pass->store->lock);
    pass->recovery->elapsed_ns = real_ns() - began_ns;
}

static bool anything_kept(const struct kvbi_tier *tier)
{
    bool kept = false;
    for (uint32_t i = 0; i < tier->lasting->file_count(tier); i++)
        kept |= tier->lasting->kept(tier, i);
    return kept;
}

int kvbi_recover(struct kvbi_store *store, struct kvbi_tier *tier, struct kvbi_recovery *recovery,
                 char *message, size_t message_bytes)
{
    const struct kvbi_memory *memory = store->memory;
    uint32_t slots = tier->block_count;
    *recovery = (struct kvbi_recovery){.elapsed_ns = 0};
    if (!anything_kept(tier))
        return tier->lasting->commit(tier, message, message_bytes);
    struct pass pass = {.store = store,
                        .pool = &store->pools[tier->tier],
                        .tier = tier,
                        .recovery = recovery,
                        .sequences =
                            kvbi_memory_alloc_raw(memory, slots, sizeof *pass.sequences, 0),
                        .space = *kvbi_namespaces_name(&store->namespaces, 0)};
    struct aged *all = kvbi_memory_alloc_raw(memory, slots, 2 * sizeof *all, 0);
    int error = KVB_ENOMEM;
    if (pass.sequences != NULL && all != NULL)
        error = tier->lasting->commit(tier, message, message_bytes);
    if (error == 0) {
        pass.aged = all;
        pass.sorted = all + slots;
        run(&pass);
    }
    kvbi_memory_free(memory, all, slots, 2 * sizeof *all);
    kvbi_memory_free(memory, pass.sequences, slots, sizeof *pass.sequences);
    return error;
}

static void log_file(const struct kvbi_recovery *recovery, const struct kvbi_tier *tier,
                     uint32_t file, const struct kvbi_log *log)
{
    const char *name = tier->lasting->file_path(tier, file),
               *note = tier->lasting->note(tier, file);
    if (note[0] != '\0')
        kvbi_log(log, KVB_LOG_WARN, 0, "%s: %s", name, note);
    if (tier->lasting->kept(tier, file))
        kvbi_log(log, recovery->files[file].dropped > 0 ? KVB_LOG_WARN : KVB_LOG_INFO, 0,
                 "%s: %llu blocks found again, %llu superseded, %llu dropped as damaged or without "
                 "room, in %llu ms",
                 name, (unsigned long long)recovery->files[file].recovered,
                 (unsigned long long)recovery->files[file].superseded,
                 (unsigned long long)recovery->files[file].dropped,
                 (unsigned long long)(recovery->elapsed_ns / 1000000));
}

void kvbi_recovery_log(const struct kvbi_recovery *recovery, const struct kvbi_tier *tier,
                       const struct kvbi_log *log)
{
    for (uint32_t i = 0; tier != NULL && i < tier->lasting->file_count(tier); i++)
        log_file(recovery, tier, i, log);
}
