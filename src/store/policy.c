/* SPDX-License-Identifier: Apache-2.0 */
/* The list of eviction policies. */
#include "store/policy.h"

#include <stdio.h>
#include <string.h>

static const struct kvbi_policy_ops *const policies[] = {&kvbi_policy_lru};

const struct kvbi_policy_ops *kvbi_policy_find(const char *name)
{
    if (name == NULL)
        return policies[0];
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

void kvbi_policy_names(char *names, size_t bytes)
{
    size_t used = 0;
    names[0] = '\0';
    for (size_t i = 0; i < sizeof policies / sizeof *policies && used < bytes; i++)
        used += (size_t)snprintf(names + used, bytes - used, "%s%s", i > 0 ? ", " : "",
                                 policies[i]->name);
}
