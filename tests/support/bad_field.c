/* SPDX-License-Identifier: Apache-2.0 */
#include "support/bad_field.h"

void bad_field_set(struct kv_rig *rig, const struct bad_field *bad)
{
    unsigned char *part = bad->part == BAD_CONFIG ? (unsigned char *)&rig->config
                          : bad->part == BAD_LAYOUT
                              ? (unsigned char *)&rig->layout
                              : (unsigned char *)&rig->tiers[bad->part - BAD_TIER];
    memcpy(part + bad->offset, &bad->value,
           bad->width); /* little-endian, as all supported machines */
}
