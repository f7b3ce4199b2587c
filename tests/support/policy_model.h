/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of eviction as store/policy.h has it, by plain lists: one a band, from the one that
 * goes first to the youngest. Nothing is put off and nothing is bounded.
 *
 * What nobody promises is the order among several that were passed by an eviction and came back
 * (insert_oldest), with those that were put before one of them. The model has them at the head of
 * their band and takes any of them for the next.
 */
#ifndef KVB_TEST_POLICY_MODEL_H
#define KVB_TEST_POLICY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bands.h"

#define POLICY_SLOTS_MAX 4096

struct policy_model_slot {
    bool linked;
    bool returned; /* passed and come back, or put before one that has */
    /* has been among the oldest tenth since it was inserted, or older than one that was told */
    bool cold;
    bool told; /* has been handed out as cold since it was inserted */
    unsigned band;
    uint64_t deadline_ns; /* 0: none */
    uint32_t older, younger;
    uint32_t before; /* the one that it was put directly before, or KVBI_NONE */
};

struct policy_model {
    uint32_t slot_count;
    uint32_t count; /* of those in the order */
    uint32_t oldest[KVBI_BAND_COUNT], youngest[KVBI_BAND_COUNT];
    struct policy_model_slot slots[POLICY_SLOTS_MAX];
};

void policy_model_init(struct policy_model *model, uint32_t slot_count);

/* All deadlines up to now_ns have passed. Returns how many. */
uint32_t policy_model_expire(struct policy_model *model, uint64_t now_ns);

void policy_model_insert(struct policy_model *model, uint32_t slot, unsigned band,
                         uint64_t deadline_ns);
void policy_model_insert_below(struct policy_model *model, uint32_t slot, unsigned band,
                               uint64_t deadline_ns, uint32_t parent);
void policy_model_insert_oldest(struct policy_model *model, uint32_t slot, unsigned band,
                                uint64_t deadline_ns);
void policy_model_remove(struct policy_model *model, uint32_t slot);

/* The one that goes first, or KVBI_NONE; and whether this one may go instead. */
uint32_t policy_model_first(const struct policy_model *model);
bool policy_model_may_go_next(const struct policy_model *model, uint32_t slot);

/* How many are "the oldest tenth". */
uint32_t policy_model_tenth(const struct policy_model *model);

/* Notes who is cold now. To be called whenever the order has changed. */
void policy_model_note_cold(struct policy_model *model);

/* One of the oldest tenth that has not been told, or KVBI_NONE. */
uint32_t policy_model_untold(const struct policy_model *model);

#endif
