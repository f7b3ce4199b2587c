/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who computed which content: this run, or, where a disk tier kept it, an earlier one. By the
 * trace's hash ids.
 */
#ifndef REPLAY_CONTENTS_H
#define REPLAY_CONTENTS_H

#include <stddef.h>
#include <stdint.h>

enum origin { ORIGIN_UNKNOWN, ORIGIN_COMPUTED, ORIGIN_EARLIER };

struct contents {
    struct content *table;
    size_t mask; /* its length, a power of two, less one */
};

/* Room for `count` different ids. 0, or -1 without memory. */
int contents_init(struct contents *contents, size_t count);
void contents_fini(struct contents *contents);

/* Where this id came from, to be read and set. ORIGIN_UNKNOWN at first. */
enum origin *contents_origin(struct contents *contents, uint64_t id);

#endif
