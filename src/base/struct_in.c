/* SPDX-License-Identifier: Apache-2.0 */
/* struct_in - see struct_in.h. */
#include "base/struct_in.h"

#include "base/debug.h"

#include <stdint.h>
#include <string.h>

bool kvbi_struct_fits(const void *src, size_t size, size_t known)
{
    if (size < known || size > KVBI_STRUCT_BYTES_MAX)
        return false;
    for (size_t i = known; i < size; i++)
        if (((const unsigned char *)src)[i] != 0)
            return false;
    return true;
}

int kvbi_struct_in(void *dst, size_t known, size_t minimum, const void *src)
{
    uint32_t size;

    KVBI_ASSERT(sizeof size <= minimum && minimum <= known && known <= KVBI_STRUCT_BYTES_MAX);
    memset(dst, 0, known);
    if (src == NULL)
        return KVB_EINVAL;
    memcpy(&size, src, sizeof size);
    if (size < minimum || !kvbi_struct_fits(src, size > known ? size : known, known))
        return KVB_EINVAL;
    memcpy(dst, src, size < known ? size : known);
    size = (uint32_t)known;
    memcpy(dst, &size, sizeof size);
    return 0;
}

void kvbi_struct_why(struct kvbi_why *why, const char *name, const char *type, const void *src,
                     size_t size, size_t known)
{
    const unsigned char *bytes = src;
    size_t at = known;
    if (src == NULL) {
        kvbi_why_say(why, "%s is NULL", name);
        return;
    }
    if (size < known || size > KVBI_STRUCT_BYTES_MAX) {
        kvbi_why_say(why, "%s.size is %zu, must be set to sizeof(struct %s) (%zu)", name, size,
                     type, known);
        return;
    }
    while (at < size && bytes[at] == 0)
        at++;
    if (at < size)
        kvbi_why_say(why,
                     "%s: byte %zu is %u; this version knows %zu bytes of struct %s, and must not "
                     "be given more than zeroes behind them",
                     name, at, bytes[at], known, type);
}
