/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-addressed table that is at most half full. A place with ORIGIN_UNKNOWN is free: nobody
 * asks without setting.
 */
#include "contents.h"

#include <stdlib.h>

struct content {
    uint64_t id;
    enum origin origin;
};

int contents_init(struct contents *contents, size_t count)
{
    size_t length = 16;
    while (length < 2 * count)
        length *= 2;
    contents->mask = length - 1;
    contents->table = calloc(length, sizeof *contents->table);
    return contents->table ? 0 : -1;
}

void contents_fini(struct contents *contents)
{
    free(contents->table);
    contents->table = NULL;
}

enum origin *contents_origin(struct contents *contents, uint64_t id)
{
    size_t place = (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & contents->mask;
    while (contents->table[place].origin != ORIGIN_UNKNOWN && contents->table[place].id != id)
        place = (place + 1) & contents->mask;
    contents->table[place].id = id;
    return &contents->table[place].origin;
}
