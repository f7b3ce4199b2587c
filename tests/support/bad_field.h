/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One field of a configuration that has a value out of its range, for tables of them.
 */
#ifndef KVB_TEST_SUPPORT_BAD_FIELD_H
#define KVB_TEST_SUPPORT_BAD_FIELD_H

#include "support/kv_test.h"

/* BAD_TIER and above: the first tier, the second, ... */
enum bad_part { BAD_CONFIG, BAD_LAYOUT, BAD_TIER };

struct bad_field {
    const char *name;
    int part;
    size_t offset, width;
    uint64_t value;
    const char *words; /* that the diagnosis has */
};

/* BAD_FIELD(CONFIG, kvb_config, key_bytes, 65, "key_bytes") */
#define BAD_FIELD(part, type, field, value, words)                                                 \
    {                                                                                              \
#field, BAD_##part, offsetof(struct type, field), sizeof(((struct type *)NULL)->field),    \
            (value), (words)                                                                       \
    }

/* Gives it that value in the configuration of a rig that is not open. */
void bad_field_set(struct kv_rig *rig, const struct bad_field *bad);

#endif
