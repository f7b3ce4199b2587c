/* SPDX-License-Identifier: Apache-2.0 */
/*
 * namespaces - see namespaces.h.
 *
 * The table is found by the low half of the namespace's digest, which is there anyway, and compared
 * by bytes: a digest may collide (tests force it to), two tenants may not.
 */
#include "store/namespaces.h"

#include "base/debug.h"

#include <string.h>

/* At least twice the entries, so that a probe ends soon. At most 2^25 of them by configuration. */
static uint32_t table_size(uint32_t entries)
{
    uint32_t size = 2;
    while (size < 2 * entries)
        size *= 2;
    return size;
}

static uint32_t entries_max(const struct kvbi_namespaces *spaces)
{
    return spaces->capacity + spaces->adoptable;
}

static bool bytes_equal(const void *a, const void *b, size_t bytes)
{
    return bytes == 0 || memcmp(a, b, bytes) == 0;
}

static bool is_entry(const struct kvbi_namespace *entry, const void *salt, size_t salt_bytes,
                     const void *adapter, size_t adapter_bytes)
{
    if (entry->salt_bytes != salt_bytes || entry->adapter_bytes != adapter_bytes)
        return false;
    const unsigned char *strings = entry->strings; /* NULL only if both are empty */
    return bytes_equal(strings, salt, salt_bytes) &&
           (adapter_bytes == 0 || memcmp(strings + salt_bytes, adapter, adapter_bytes) == 0);
}

static bool has_name(const struct kvbi_namespace *entry, const struct kvbi_namespace_name *name)
{
    return entry->name.salt_hash == name->salt_hash &&
           memcmp(entry->name.digest, name->digest, sizeof name->digest) == 0;
}

/* Gives an entry its strings: nobody reads them but under the lock. */
static int bind(struct kvbi_namespaces *spaces, struct kvbi_namespace *entry, const void *salt,
                size_t salt_bytes, const void *adapter, size_t adapter_bytes)
{
    unsigned char *strings = NULL;
    if (salt_bytes + adapter_bytes > 0) {
        strings = kvbi_memory_alloc_raw(spaces->memory, salt_bytes + adapter_bytes, 1, 0);
        if (strings == NULL)
            return KVB_ENOMEM;
        if (salt_bytes > 0)
            memcpy(strings, salt, salt_bytes);
        if (adapter_bytes > 0)
            memcpy(strings + salt_bytes, adapter, adapter_bytes);
    }
    entry->strings = strings;
    entry->salt_bytes = (uint32_t)salt_bytes;
    entry->adapter_bytes = (uint32_t)adapter_bytes;
    spaces->unbound_count -= entry->unbound;
    entry->unbound = false;
    spaces->string_bytes += salt_bytes + adapter_bytes;
    return 0;
}

/* The next place of the table where an entry of this name may be. */
static uint32_t after(const struct kvbi_namespaces *spaces, uint32_t at)
{
    return (at + 1) & spaces->table_mask;
}

static uint32_t first_place(const struct kvbi_namespaces *spaces,
                            const struct kvbi_namespace_name *name)
{
    return (uint32_t)name->digest[0] & spaces->table_mask;
}

/*
 * The entry number `count` is there: everybody may see it. `at`: the free place of the table where
 * its name belongs.
 */
static void publish(struct kvbi_namespaces *spaces, uint32_t at, uint32_t *id)
{
    uint32_t count = atomic_load_explicit(&spaces->count, memory_order_relaxed);
    *id = count;
    spaces->table[at] = count + 1;
    atomic_store_explicit(&spaces->count, count + 1, memory_order_release);
}

/*
 * The entry of these strings, or one that may become it. NULL: there is none; *at is where it
 * belongs.
 */
static struct kvbi_namespace *find(const struct kvbi_namespaces *spaces,
                                   const struct kvbi_namespace_name *name, const void *salt,
                                   size_t salt_bytes, const void *adapter, size_t adapter_bytes,
                                   uint32_t *at)
{
    struct kvbi_namespace *unbound = NULL;
    for (*at = first_place(spaces, name); spaces->table[*at] != 0; *at = after(spaces, *at)) {
        struct kvbi_namespace *entry = &spaces->entries[spaces->table[*at] - 1];
        if (!entry->unbound && is_entry(entry, salt, salt_bytes, adapter, adapter_bytes))
            return entry;
        if (entry->unbound && has_name(entry, name))
            unbound = entry;
    }
    return unbound;
}

int kvbi_namespaces_open(struct kvbi_namespaces *spaces, const struct kvbi_token_hash *hash,
                         const void *salt, size_t salt_bytes, const void *adapter,
                         size_t adapter_bytes, uint32_t *id)
{
    struct kvbi_namespace_name name;
    uint32_t at, count = atomic_load_explicit(&spaces->count, memory_order_relaxed);
    KVBI_ASSERT(salt_bytes <= KVBI_NAMESPACE_STRING_MAX &&
                adapter_bytes <= KVBI_NAMESPACE_STRING_MAX);
    *id = 0;
    kvbi_namespace_name(hash, salt, salt_bytes, adapter, adapter_bytes, &name);
    struct kvbi_namespace *entry =
        find(spaces, &name, salt, salt_bytes, adapter, adapter_bytes, &at);
    bool known = entry != NULL;
    if (!known || entry->unbound) {
        if (count - spaces->unbound_count == spaces->capacity)
            return KVB_ENOSPC;
        if (!known) {
            entry = &spaces->entries[count];
            *entry = (struct kvbi_namespace){.name = name};
        }
        int error = bind(spaces, entry, salt, salt_bytes, adapter, adapter_bytes);
        if (error != 0)
            return error;
    }
    if (known)
        *id = (uint32_t)(entry - spaces->entries);
    else
        publish(spaces, at, id);
    return 0;
}

int kvbi_namespaces_adopt(struct kvbi_namespaces *spaces, const struct kvbi_namespace_name *name,
                          uint32_t *id)
{
    uint32_t at, count = atomic_load_explicit(&spaces->count, memory_order_relaxed);
    *id = 0;
    for (at = first_place(spaces, name); spaces->table[at] != 0; at = after(spaces, at)) {
        *id = spaces->table[at] - 1;
        if (has_name(&spaces->entries[*id], name))
            return 0;
    }
    *id = 0;
    if (spaces->unbound_count == spaces->adoptable)
        return KVB_ENOSPC;
    spaces->unbound_count++;
    spaces->entries[count] = (struct kvbi_namespace){.name = *name, .unbound = true};
    publish(spaces, at, id);
    return 0;
}

int kvbi_namespaces_create(struct kvbi_namespaces *spaces, const struct kvbi_memory *memory,
                           const struct kvbi_token_hash *hash, uint32_t capacity,
                           uint32_t adoptable)
{
    uint32_t id;
    if (capacity == 0)
        capacity = 1; /* id 0 always exists */
    *spaces =
        (struct kvbi_namespaces){.memory = memory, .capacity = capacity, .adoptable = adoptable};
    spaces->table_mask = table_size(entries_max(spaces)) - 1;
    spaces->entries = kvbi_memory_alloc(memory, entries_max(spaces), sizeof *spaces->entries, 0);
    spaces->table =
        kvbi_memory_alloc(memory, (size_t)spaces->table_mask + 1, sizeof *spaces->table, 0);
    if (spaces->entries == NULL || spaces->table == NULL) {
        kvbi_namespaces_destroy(spaces);
        return KVB_ENOMEM;
    }
    return kvbi_namespaces_open(spaces, hash, NULL, 0, NULL, 0, &id);
}

void kvbi_namespaces_destroy(struct kvbi_namespaces *spaces)
{
    if (spaces->memory == NULL)
        return;
    uint32_t count = atomic_load_explicit(&spaces->count, memory_order_relaxed);
    for (uint32_t id = 0; id < count; id++) {
        struct kvbi_namespace *entry = &spaces->entries[id];
        kvbi_memory_free(spaces->memory, entry->strings,
                         (size_t)entry->salt_bytes + entry->adapter_bytes, 1);
    }
    kvbi_memory_free(spaces->memory, spaces->table, (size_t)spaces->table_mask + 1,
                     sizeof *spaces->table);
    kvbi_memory_free(spaces->memory, spaces->entries, entries_max(spaces), sizeof *spaces->entries);
    *spaces = (struct kvbi_namespaces){.memory = NULL};
}

const struct kvbi_namespace_name *kvbi_namespaces_name(const struct kvbi_namespaces *spaces,
                                                       uint32_t id)
{
    if (id >= atomic_load_explicit(&spaces->count, memory_order_acquire))
        return NULL;
    return &spaces->entries[id].name;
}

size_t kvbi_namespaces_bytes(const struct kvbi_namespaces *spaces)
{
    if (spaces->memory == NULL)
        return 0;
    return (size_t)entries_max(spaces) * sizeof *spaces->entries +
           ((size_t)spaces->table_mask + 1) * sizeof *spaces->table + spaces->string_bytes;
}
