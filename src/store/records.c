/* SPDX-License-Identifier: Apache-2.0 */
/*
 * records - see records.h.
 *
 * A record is whole cache lines, its head is the first of them, and tokens start on 16 bytes, as
 * vector loads like them. Records are not touched before their first use: a manager that is
 * configured large and used little stays small.
 */
#include "store/records.h"

#include "base/bands.h"
#include "base/debug.h"

#include <string.h>

#define LINE_BYTES 64u
#define TOKENS_ALIGN_BYTES 16u

static uint32_t round_up(uint32_t value, uint32_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

static struct kvbi_record_shape shape_of(uint32_t tokens_per_block, uint32_t key_bytes)
{
    struct kvbi_record_shape shape = {.tokens_per_block = tokens_per_block, .key_bytes = key_bytes};
    shape.tokens_offset =
        round_up((uint32_t)sizeof(struct kvbi_record) + 2 * key_bytes, TOKENS_ALIGN_BYTES);
    shape.stride =
        round_up(shape.tokens_offset + tokens_per_block * (uint32_t)sizeof(uint32_t), LINE_BYTES);
    return shape;
}

int kvbi_records_create(struct kvbi_records *records, const struct kvbi_memory *memory,
                        uint32_t capacity, uint32_t tokens_per_block, uint32_t key_bytes)
{
    KVBI_ASSERT(tokens_per_block <= KVB_TOKENS_PER_BLOCK_MAX && key_bytes <= KVB_KEY_BYTES_MAX);
    *records = (struct kvbi_records){
        .memory = memory, .capacity = capacity, .shape = shape_of(tokens_per_block, key_bytes)};
    records->base = kvbi_memory_alloc(memory, capacity, records->shape.stride, LINE_BYTES);
    records->free_stack = kvbi_memory_alloc_raw(memory, capacity, sizeof *records->free_stack, 0);
    if (records->base == NULL || records->free_stack == NULL) {
        kvbi_records_destroy(records);
        return KVB_ENOMEM;
    }
    for (uint32_t i = 0; i < capacity; i++) /* the lowest index on top */
        records->free_stack[i] = capacity - 1 - i;
    records->free_count = capacity;
    return 0;
}

void kvbi_records_destroy(struct kvbi_records *records)
{
    if (records->memory == NULL)
        return;
    kvbi_memory_free(records->memory, records->free_stack, records->capacity,
                     sizeof *records->free_stack);
    kvbi_memory_free(records->memory, records->base, records->capacity, records->shape.stride);
    *records = (struct kvbi_records){.memory = NULL};
}

size_t kvbi_records_bytes(const struct kvbi_records *records)
{
    return (size_t)records->capacity * (records->shape.stride + sizeof *records->free_stack);
}

uint32_t kvbi_records_take(struct kvbi_records *records)
{
    KVBI_ASSERT(records->free_count > 0);
    uint32_t index = records->free_stack[--records->free_count];
    struct kvbi_record *record = kvbi_records_at(records, index);
    KVBI_ASSERT(record->users == 0);
    memset(record, 0, sizeof *record);
    record->users = 1;
    return index;
}

void kvbi_records_ref(struct kvbi_records *records, uint32_t index)
{
    KVBI_ASSERT(index < records->capacity);
    struct kvbi_record *record = kvbi_records_at(records, index);
    KVBI_ASSERT(record->users > 0 && record->users < UINT32_MAX);
    record->users++;
}

void kvbi_records_unref(struct kvbi_records *records, uint32_t index)
{
    if (index == KVBI_NONE)
        return;
    KVBI_ASSERT(index < records->capacity);
    struct kvbi_record *record = kvbi_records_at(records, index);
    KVBI_ASSERT(record->users > 0);
    if (--record->users == 0)
        records->free_stack[records->free_count++] = index;
}
