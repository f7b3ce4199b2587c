/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a configuration: sizes, ranges, defaults. Pure; the only place that knows what a field
 * may be.
 *
 * Callers    api/manager.c.
 */
#ifndef KVBI_API_CONFIG_H
#define KVBI_API_CONFIG_H

#include <stdbool.h>

#include <kvblock.h>

#include "store/policy.h"
#include "transfer/kind.h"

struct kvbi_hooks;

struct kvbi_config {
    struct kvb_config c; /* layout and tiers below instead of its pointers */
    struct kvb_layout layout;
    /* by tier; block_count 0: absent; one path is paths[0] of one */
    struct kvb_tier_config tiers[KVB_TIER_COUNT];
    uint64_t block_bytes;
    uint32_t depths_given;                         /* bit per tier */
    const struct kvbi_kind *kinds[KVB_TIER_COUNT]; /* by tier; NULL: absent */
    const struct kvbi_hooks *hooks;                /* or NULL */
    const struct kvbi_policy_ops *policy;
};

/* 0, or KVB_EINVAL or KVB_EUNSUPPORTED with `diagnosis` (may be NULL) filled in. */
int kvbi_config_read(struct kvbi_config *config, const struct kvb_config *given,
                     const struct kvbi_hooks *hooks, struct kvb_diagnosis *diagnosis);

/*
 * Tells the configuration's logger why there is no manager; not if the size of the configuration is
 * wrong, since it cannot be known then where its logger lies. There is nothing to count lines in,
 * so each is told.
 */
void kvbi_config_log_refusal(const struct kvb_config *given, const struct kvb_diagnosis *diagnosis);

/* Fill in a diagnosis; returns `code`. */
int kvbi_diagnose(struct kvb_diagnosis *diagnosis, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
