/* SPDX-License-Identifier: Apache-2.0 */
/* See bad_field.h. */
#include "support/bad_field.h"

static void *part_of(struct kv_rig *rig, int part)
{
    if (part == BAD_CONFIG)
        return &rig->config;
    return part == BAD_LAYOUT ? (void *)&rig->layout : &rig->tiers[part - BAD_TIER];
}

void bad_field_set(struct kv_rig *rig, const struct bad_field *bad)
{
    /* Little-endian, as all supported machines. */
    memcpy((unsigned char *)part_of(rig, bad->part) + bad->offset, &bad->value, bad->width);
}
