/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Demands outside of CMocka: what is not as it has to be is said in words and given back as false,
 * so that a suite can be held against what is known to be wrong, and must say so.
 *
 *     static bool some_promise(struct thing *thing)
 *     {
 *         DEMAND(&thing->demand, thing->count == 3, "count is %u, must be 3", thing->count);
 *         return true;
 *     }
 */
#ifndef KVB_TEST_DEMAND_H
#define KVB_TEST_DEMAND_H

#include <stdbool.h>

struct demand {
    char complaint[400]; /* the first one; "": none */
};

#define DEMAND(demand, condition, ...)                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return demand_fails((demand), __VA_ARGS__);                                            \
    } while (0)

/* False. */
bool demand_fails(struct demand *demand, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
