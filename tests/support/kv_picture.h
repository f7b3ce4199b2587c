/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A consumer of events, as a router would be one: what it believes to be stored, from events alone,
 * with a walk of the index where events were lost. Set `.sink = {picture_deliver, &picture}` and,
 * after opening, `picture.kv`. The sink only notes a loss: picture_catch_up walks, while nothing is
 * being delivered.
 */
#ifndef KVB_TEST_SUPPORT_PICTURE_H
#define KVB_TEST_SUPPORT_PICTURE_H

#include "support/kv_test.h"

enum { PICTURE_MAX = 512 };

/* `strict`: a STORED of what is stored and a REMOVED of what is not are contradictions, too. */
struct picture {
    struct kvb_manager *kv; /* to walk after a loss */
    bool strict, due;       /* due: events were lost, and nobody has walked since */
    size_t count;
    struct {
        uint64_t hash;
        uint32_t tier;
    } stored[PICTURE_MAX];
    uint64_t last_sequence;
    uint64_t events, lost_events, lost_count, cleared, contradictions, walk_errors;
};

size_t picture_find(const struct picture *picture, uint64_t hash, uint32_t tier);

void picture_deliver(void *context, const struct kvb_event *event);

/*
 * Events that are delivered later may say what the walk knew already: they are set operations, and
 * the last one is right.
 */
void picture_catch_up(struct picture *picture);

/* The picture is exactly the index. */
void assert_picture_is_live(struct kv_rig *of, struct picture *picture);

#endif
