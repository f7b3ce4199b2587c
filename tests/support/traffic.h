/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies on their way through an engine, each of them accounted for: what was taken comes out once,
 * with its tag.
 *
 *     struct traffic traffic;
 *     traffic_begin(&traffic, engine, NULL);
 *     struct kvbi_copy copy = {..., .tag = traffic_tag(&traffic)}; // number 0, the next one 1
 *     traffic_submit(&traffic, &copy, 1, false);
 *     traffic_collect(&traffic, 1);              // sleeps on the engine's event meanwhile
 *     ... traffic.copies[0].result ...
 *     traffic_end(&traffic);
 */
#ifndef KVB_TEST_TRAFFIC_H
#define KVB_TEST_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>

#include "support/demand.h"
#include "transfer/engine.h"

#define TRAFFIC_MAX 2048u
#define TRAFFIC_ALL UINT32_MAX /* of one reap: as many as it has */

struct traffic_copy {
    bool out; /* taken, and not come out yet */
    bool over;
    int result;
    bool condemned;
};

struct traffic {
    struct demand demand;
    struct kvbi_engine *engine;
    void (*get_on)(void); /* lets a device get on as far as it can by itself; or NULL */
    int epoll;            /* of the engine's event; -1: it has none */
    /* A part of it works in reap only, and ready stands for the event of that. */
    bool half_in_reap;
    uint32_t numbered, out, over;
    struct traffic_copy copies[TRAFFIC_MAX];
    uint32_t order[TRAFFIC_MAX]; /* in which they came out */
};

bool traffic_begin(struct traffic *traffic, struct kvbi_engine *engine, void (*get_on)(void));
/* Legal on a zeroed one. */
void traffic_end(struct traffic *traffic);

/* Of a new copy. */
uint64_t traffic_tag(struct traffic *traffic);
uint32_t traffic_number(uint64_t cookie);

/* All are taken. */
bool traffic_submit(struct traffic *traffic, const struct kvbi_copy *copies, uint32_t count,
                    bool urgent);
/* None is, for want of room. */
bool traffic_refused(struct traffic *traffic, const struct kvbi_copy *copies, uint32_t count);

/* One reap; *count: so many came out, each of which was out. */
bool traffic_reap(struct traffic *traffic, uint32_t max, uint64_t until_ns, uint32_t *count,
                  bool *more);
/* Until the engine's event says that it may have something; of one half in reap, or `ready`. */
bool traffic_wait(struct traffic *traffic);
/* So many more, in reaps of at most `max`, each until `until_ns`. */
bool traffic_collect_by(struct traffic *traffic, uint32_t count, uint32_t max, uint64_t until_ns);
bool traffic_collect(struct traffic *traffic, uint32_t count);
/* All that is out. */
bool traffic_collect_all(struct traffic *traffic);
/* As long as reap has something by itself: nothing comes out. */
bool traffic_nothing_comes(struct traffic *traffic);

#endif
