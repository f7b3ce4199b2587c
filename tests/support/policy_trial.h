/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy on trial: whatever is called in it is done to a plain model too (policy_model.h), and
 * compared.
 *
 * Every call looks at what store/policy.h promises of all of them: how many blocks it looked at and
 * how many slots it wrote to, that of a slot nothing but `order` has changed, that it has asked for
 * no memory, that the slot is in the order, and how many are. The first promise that is not kept
 * ends the check: it is written into the finding, and control goes back to policy_trial_run.
 */
#ifndef KVB_TEST_POLICY_TRIAL_H
#define KVB_TEST_POLICY_TRIAL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "store/policy.h"
#include "support/failing_memory.h"
#include "support/policy_model.h"

struct policy_finding {
    char text[256]; /* empty: none */
};

struct policy_trial {
    const struct kvbi_policy_ops *ops;
    struct kvbi_policy *policy; /* NULL: not open */
    uint32_t slot_count;
    uint64_t now_ns; /* what the next call is told */
    uint64_t seed;
    struct policy_model model;

    /* the trial's own */
    struct policy_finding *finding;
    jmp_buf out;
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_lock lock; /* in place of the store's: it counts steps */
    struct kvb_block *slots, *slots_before;
    bool behind; /* it may not have dealt with all deadlines that have passed */
    uint64_t deadlines;
};

/*
 * Runs a check on a policy that it has still to open. True: nothing was found, and all memory is
 * back.
 */
bool policy_trial_run(const struct kvbi_policy_ops *ops, void (*check)(struct policy_trial *trial),
                      struct policy_finding *finding);

/* Ends the check. */
_Noreturn void policy_trial_found(struct policy_trial *trial, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define policy_trial_demand(trial, condition, ...)                                                 \
    ((condition) ? (void)0 : policy_trial_found((trial), __VA_ARGS__))

/* With `allocations` that succeed: what create returns. */
int policy_trial_create(struct policy_trial *trial, uint32_t slot_count, int64_t allocations);
void policy_trial_open(struct policy_trial *trial, uint32_t slot_count);
void policy_trial_close(struct policy_trial *trial);

/*
 * A deadline that nobody else has, at least `ns` ahead: nothing says which of two equal ones passes
 * first.
 */
uint64_t policy_trial_deadline(struct policy_trial *trial, uint64_t ns);
uint32_t policy_trial_random(struct policy_trial *trial, uint32_t bound);

void policy_trial_insert(struct policy_trial *trial, uint32_t slot, unsigned band,
                         uint64_t deadline_ns);
void policy_trial_insert_below(struct policy_trial *trial, uint32_t slot, unsigned band,
                               uint64_t deadline_ns, uint32_t parent);
void policy_trial_insert_oldest(struct policy_trial *trial, uint32_t slot, unsigned band,
                                uint64_t deadline_ns);
void policy_trial_remove(struct policy_trial *trial, uint32_t slot);

/* Slots `first` to `last`, in this order. */
void policy_trial_insert_run(struct policy_trial *trial, uint32_t first, uint32_t last,
                             unsigned band);

/*
 * Slots 0 to `count` - 1, retained below or above all others until shortly after one another.
 * Returns when the last one ends.
 */
uint64_t policy_trial_insert_retained(struct policy_trial *trial, uint32_t count);

/*
 * As the store does it at a last unref: out of the order wherever it is, and youngest of its band.
 */
void policy_trial_touch(struct policy_trial *trial, uint32_t slot);

/*
 * Asks once, with *budget. True: answered, by *slot or KVBI_NONE. False: it is to be asked again.
 */
bool policy_trial_ask(struct policy_trial *trial, uint32_t *budget, uint32_t *slot);

/* Asks until it is answered. */
uint32_t policy_trial_victim(struct policy_trial *trial);

/* The next to go goes. False: nobody was there. */
bool policy_trial_evict(struct policy_trial *trial);
/* It is this one; these, in this order; all that there are. */
void policy_trial_evict_slot(struct policy_trial *trial, uint32_t slot);
void policy_trial_evict_run(struct policy_trial *trial, uint32_t first, uint32_t last);
void policy_trial_evict_all(struct policy_trial *trial);

/* Until it has dealt with every deadline that has passed. */
void policy_trial_catch_up(struct policy_trial *trial);

/* The first `max` in order, which is that of the model. */
void policy_trial_order(struct policy_trial *trial, uint32_t max);

/* What is to be brought in: members of the order, each once, and nothing changes. */
void policy_trial_ahead(struct policy_trial *trial, uint32_t max);
void policy_trial_warm(struct policy_trial *trial, uint32_t slot);

/*
 * Takes the news of the cold. all_cold: until there are no more; by then the oldest tenth has been
 * told.
 */
uint32_t policy_trial_next_cold(struct policy_trial *trial);
void policy_trial_all_cold(struct policy_trial *trial);

/* Who is in the order and who is not. */
void policy_trial_members(struct policy_trial *trial);

#endif
