/* SPDX-License-Identifier: Apache-2.0 */
/* strides - see strides.h. */
#include "transfer/strides.h"

#include <stdarg.h>
#include <stdio.h>

struct dimension {
    const char *name;
    uint64_t stride;
    uint32_t count;
};

static int refuse(char *message, size_t message_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(char *message, size_t message_bytes, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, message_bytes, format, arguments);
    va_end(arguments);
    return KVB_EINVAL;
}

static void sort_by_stride(struct dimension *dimensions, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t j = i; j > 0 && dimensions[j].stride < dimensions[j - 1].stride; j--) {
            struct dimension swap = dimensions[j];
            dimensions[j] = dimensions[j - 1];
            dimensions[j - 1] = swap;
        }
}

/*
 * Each dimension steps over what the smaller ones span; *span becomes what all of them span
 * together.
 */
static int nest(struct dimension *dimensions, uint32_t count, uint64_t *span, char *message,
                size_t message_bytes)
{
    sort_by_stride(dimensions, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct dimension *d = &dimensions[i];
        uint64_t steps;
        if (d->count == 1)
            continue;
        if (d->stride < *span)
            return refuse(
                message, message_bytes,
                "layout: %s_stride of %llu bytes overlaps the %llu that lie within one step",
                d->name, (unsigned long long)d->stride, (unsigned long long)*span);
        if (__builtin_mul_overflow(d->stride, (uint64_t)d->count - 1, &steps) ||
            __builtin_add_overflow(*span, steps, span) || *span > INT64_MAX)
            return refuse(message, message_bytes,
                          "layout: %s_stride of %llu bytes overflows with %u steps", d->name,
                          (unsigned long long)d->stride, d->count - 1);
    }
    return 0;
}

int kvbi_strides_read(struct kvbi_strides *strides, const struct kvb_layout *layout,
                      uint32_t block_count, bool layered, char *message, size_t message_bytes)
{
    uint64_t chunk = layout->chunk_bytes;
    *strides =
        (struct kvbi_strides){.layers = layout->layers, .parts = layout->parts, .chunk = chunk};
    if (layered && layout->layer_stride != 0)
        return refuse(message, message_bytes,
                      "layout: layer_stride and layer_memory exclude each other");
    strides->part = layout->part_stride != 0 && layout->parts > 1 ? layout->part_stride : chunk;
    strides->layer = layout->layer_stride != 0 ? layout->layer_stride
                     : layered                 ? 0
                                               : layout->parts * chunk;
    strides->block = layout->block_stride != 0
                         ? layout->block_stride
                         : (uint64_t)layout->parts * chunk * (layered ? 1 : layout->layers);
    struct dimension dimensions[3] = {{"part", strides->part, layout->parts},
                                      {"layer", strides->layer, layered ? 1 : layout->layers},
                                      {"block", strides->block, block_count}};
    strides->span_bytes = chunk;
    return nest(dimensions, 3, &strides->span_bytes, message, message_bytes);
}

int kvbi_strides_check_bases(const struct kvbi_strides *strides, void *const *bases, char *message,
                             size_t message_bytes)
{
    for (uint32_t i = 0; i < strides->layers; i++) {
        uintptr_t a = (uintptr_t)bases[i];
        if (a == 0 || a > UINTPTR_MAX - strides->span_bytes)
            return refuse(message, message_bytes, "layer_memory[%u] is NULL, or overflows", i);
        for (uint32_t j = 0; j < i; j++) {
            uintptr_t b = (uintptr_t)bases[j];
            if ((a > b ? a - b : b - a) < strides->span_bytes)
                return refuse(
                    message, message_bytes,
                    "layer_memory[%u] overlaps layer_memory[%u]: each layer spans %llu bytes", i, j,
                    (unsigned long long)strides->span_bytes);
        }
    }
    return 0;
}

bool kvbi_strides_contiguous(const struct kvbi_strides *strides)
{
    uint64_t layer = strides->parts * strides->chunk;
    return strides->bases == NULL && (strides->parts == 1 || strides->part == strides->chunk) &&
           (strides->layers == 1 || strides->layer == layer) &&
           strides->block == layer * strides->layers;
}
