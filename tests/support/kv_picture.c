/* SPDX-License-Identifier: Apache-2.0 */
/* See kv_picture.h. */
#include "support/kv_picture.h"

size_t picture_find(const struct picture *picture, uint64_t hash, uint32_t tier)
{
    size_t i = 0;
    while (i < picture->count &&
           (picture->stored[i].hash != hash || picture->stored[i].tier != tier))
        i++;
    return i;
}

static void picture_add(struct picture *picture, uint64_t hash, uint32_t tier)
{
    if (picture_find(picture, hash, tier) < picture->count || picture->count == PICTURE_MAX) {
        picture->contradictions += picture->strict;
        return;
    }
    picture->stored[picture->count].hash = hash;
    picture->stored[picture->count].tier = tier;
    picture->count++;
}

static void picture_remove(struct picture *picture, uint64_t hash, uint32_t tier)
{
    size_t i = picture_find(picture, hash, tier);
    if (i == picture->count) {
        picture->contradictions += picture->strict;
        return;
    }
    picture->stored[i] = picture->stored[--picture->count];
}

static int picture_visit(void *arg, const struct kvb_event *event)
{
    struct picture *picture = arg;
    struct kvb_seq seq;
    picture->walk_errors += event->kind != KVB_EVENT_STORED || event->key == NULL;
    memcpy(&seq, event->key, sizeof seq);
    picture_add(picture, seq.hash, event->tier);
    return 0;
}

void picture_deliver(void *context, const struct kvb_event *event)
{
    struct picture *picture = context;
    struct kvb_seq seq = {0};
    if (event->key != NULL)
        memcpy(&seq, event->key, sizeof seq);
    picture->events++;
    picture->contradictions +=
        event->sequence <= picture->last_sequence && picture->last_sequence != 0;
    picture->last_sequence = event->sequence;
    switch (event->kind) {
    case KVB_EVENT_STORED:
        picture_add(picture, seq.hash, event->tier);
        break;
    case KVB_EVENT_REMOVED:
        picture_remove(picture, seq.hash, event->tier);
        break;
    case KVB_EVENT_CLEARED:
        picture->cleared++;
        picture->count = 0;
        break;
    case KVB_EVENT_LOST:
        picture->lost_events++;
        picture->lost_count += event->lost_count;
        picture->due = true;
        break;
    default:
        picture->contradictions++;
    }
}

void picture_catch_up(struct picture *picture)
{
    if (!picture->due)
        return;
    picture->due = false;
    picture->count = 0;
    picture->walk_errors += kvb_index_walk(picture->kv, picture_visit, picture) != 0;
}

static int count_visit(void *arg, const struct kvb_event *event)
{
    struct picture *picture = ((struct picture **)arg)[0];
    struct kvb_seq seq;
    uint64_t *wrong = ((uint64_t **)arg)[1];
    memcpy(&seq, event->key, sizeof seq);
    *wrong += picture_find(picture, seq.hash, event->tier) == picture->count;
    return 0;
}

void assert_picture_is_live(struct kv_rig *of, struct picture *picture)
{
    uint64_t wrong = 0;
    void *arg[] = {picture, &wrong};
    assert_false(picture->due);
    kv_ok(kvb_index_walk(of->kv, count_visit, arg));
    assert_int_equal(wrong, 0);
    uint64_t registered = 0;
    for (int tier = 0; tier < KVB_TIER_COUNT; tier++) {
        struct kvb_tier_stats stats = kv_stats(of).tiers[tier];
        registered += stats.parked_count; /* only parked ones are left when this is called */
        assert_int_equal(stats.held_count, 0);
    }
    assert_int_equal(picture->count, registered);
    assert_int_equal(picture->contradictions, 0);
    assert_int_equal(picture->walk_errors, 0);
}
