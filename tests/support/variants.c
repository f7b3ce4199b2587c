/* SPDX-License-Identifier: Apache-2.0 */
#include "support/variants.h"

#include <stdio.h>
#include <stdlib.h>

struct named_test {
    char name[160];
};

int run_variant(const char *name, const void *variant, const struct CMUnitTest *tests, size_t count)
{
    struct CMUnitTest *list = calloc(count, sizeof *list);
    struct named_test *named = calloc(count, sizeof *named);
    int failed = (int)count;
    for (size_t i = 0; list != NULL && named != NULL && i < count; i++) {
        (void)snprintf(named[i].name, sizeof named[i].name, "%s (%s)", tests[i].name, name);
        list[i] = tests[i];
        list[i].name = named[i].name;
        list[i].initial_state = (void *)(uintptr_t)variant;
    }
    if (count > 0 && list != NULL && named != NULL)
        failed = _cmocka_run_group_tests(name, list, count, NULL, NULL);
    free(named);
    free(list);
    return failed;
}
