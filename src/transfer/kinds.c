/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of memory that there are. See kind.h. A new one is a folder, and a line here. */
#include "transfer/kind.h"

#include <stdarg.h>
#include <stdio.h>

#include "transfer/cuda/cuda.h"
#include "transfer/disk/tier.h"
#include "transfer/memory/tier.h"

static const struct kvbi_kind *const kinds[] = {&kvbi_kind_cuda, &kvbi_kind_disk,
                                                &kvbi_kind_memory};

const struct kvbi_kind *kvbi_kind_at(size_t i)
{
    return i < sizeof kinds / sizeof *kinds ? kinds[i] : NULL;
}

const struct kvbi_kind *kvbi_kind_of(const struct kvb_tier_config *config)
{
    const struct kvbi_kind *kind;
    for (size_t i = 0; (kind = kvbi_kind_at(i)) != NULL; i++)
        if (kind->is(config))
            return kind;
    return NULL;
}

int kvbi_kind_refuse(char *message, size_t message_bytes, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, message_bytes, format, arguments);
    va_end(arguments);
    return code;
}

int kvbi_kind_without_files(const struct kvb_tier_config *config, char *message,
                            size_t message_bytes)
{
    if (config->path != NULL || config->path_count > 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "%s is given, only DISK is kept in files",
                                config->path != NULL ? "path" : "paths");
    if (config->disk_flags != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "disk_flags is 0x%x, must be 0 without path or paths",
                                config->disk_flags);
    if (config->write_bytes_per_second != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "write_bytes_per_second is %llu, must be 0 without path or paths",
                                (unsigned long long)config->write_bytes_per_second);
    if (config->write_bytes_per_day != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "write_bytes_per_day is %llu, must be 0 without path or paths",
                                (unsigned long long)config->write_bytes_per_day);
    return 0;
}

int kvbi_kind_without_device(const struct kvb_tier_config *config, char *message,
                             size_t message_bytes)
{
    if (config->memory_kind != KVB_MEMORY_HOST)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory_kind is %u, must be KVB_MEMORY_HOST", config->memory_kind);
    if (config->device != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "device is %u, must be 0 unless memory_kind is KVB_MEMORY_CUDA",
                                config->device);
    if (config->copy_method != 0)
        return kvbi_kind_refuse(
            message, message_bytes, KVB_EINVAL,
            "copy_method is %u, must be 0 unless memory_kind is KVB_MEMORY_CUDA",
            config->copy_method);
    if (config->layer_memory != NULL)
        return kvbi_kind_refuse(
            message, message_bytes, KVB_EINVAL,
            "layer_memory is given, must be NULL unless memory_kind is KVB_MEMORY_CUDA");
    return 0;
}
