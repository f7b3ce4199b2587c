/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every eviction policy owes the store: the promises of store/policy.h, one check for each.
 *
 *     struct policy_finding finding;
 *     const struct policy_check *check;
 *     for (uint32_t i = 0; (check = policy_check_at(i)) != NULL; i++)
 *         if (!policy_passes(ops, check, &finding))
 *             print_error("%s: %s\n", check->name, finding.text);
 *
 * A check knows no policy and nothing of how one keeps its order. What a policy promises beyond the
 * header has a test of its own.
 */
#ifndef KVB_TEST_POLICY_CONFORMANCE_H
#define KVB_TEST_POLICY_CONFORMANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/policy.h"
#include "support/policy_trial.h"

struct policy_check {
    const char *name; /* the promise: "order_of_bands_is_lowest_first" */
    void (*run)(struct policy_trial *trial);
};

/* From 0 on; NULL: there are no more. */
const struct policy_check *policy_check_at(uint32_t number);

/* False: the finding says how the promise was broken. */
bool policy_passes(const struct kvbi_policy_ops *ops, const struct policy_check *check,
                   struct policy_finding *finding);

/* Of this module alone: the second half of the checks. */
#define POLICY_CHECK(function)                                                                     \
    {                                                                                              \
        .name = #function, .run = function                                                         \
    }
extern const struct policy_check policy_timed_checks[];
extern const uint32_t policy_timed_check_count;

#endif
