/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server among others, on one instance of the library. Threads: one each; what they share is in
 * the town.
 */
#ifndef MODEL_SERVER_H
#define MODEL_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "world.h"

enum { SERVERS = 4, KEPT = 3, LATE = 256 };

struct late {
    uint64_t bytes;
    unsigned char *memory;
};

struct town {
    struct world world; /* configuration and names, read by all; events are the progress thread's */
    _Atomic uint64_t requests_left;
    _Atomic uint64_t read, lifted, computed, found;
    pthread_mutex_t late_lock;
    struct late late[LATE];
    uint32_t late_count;
    uint64_t fence_given;
};

struct request {
    uint32_t count;
    block_handle blocks[DEPTH_MAX];
    int contents[DEPTH_MAX];
};

struct server {
    struct town *town;
    struct world *w;
    uint64_t random, owner;
    struct request kept[KEPT];
    struct weak weak;
    int weak_content; /* -1: none */
};

/* A thread: serves until the town has no requests left, and lets go of everything. */
void *server_run(void *server);
/* All late writers write, and their fences are reached. */
void server_reach_fences(struct town *town);

#endif
