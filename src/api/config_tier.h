/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One tier of a configuration: its fields, their ranges and defaults. What concerns several tiers
 * is config.c's.
 *
 * Callers    api/config.c.
 */
#ifndef KVBI_API_CONFIG_TIER_H
#define KVBI_API_CONFIG_TIER_H

#include "api/config.h"

/*
 * Element `position` into config->tiers; *previous is the tier before it, and becomes this one. 0,
 * or what is wrong.
 */
int kvbi_config_read_tier(struct kvbi_config *config, const void *given, uint32_t position,
                          int *previous, struct kvb_diagnosis *diagnosis);

/*
 * 0 becomes `otherwise` (which is 0 where the default is not one number: then *value must not be).
 * Anything outside [low, high] is refused by name, after `where`.
 */
int kvbi_config_range(struct kvb_diagnosis *diagnosis, const char *where, const char *name,
                      uint32_t *value, uint32_t otherwise, uint32_t low, uint32_t high);

/* A struct that does not fit. Returns KVB_EINVAL. */
int kvbi_config_refuse_struct(struct kvb_diagnosis *diagnosis, const char *name, const char *type,
                              const void *given, uint32_t size, size_t known);

#endif
