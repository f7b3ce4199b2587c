/* SPDX-License-Identifier: Apache-2.0 */
/* See demand.h. */
#include "support/demand.h"

#include <stdarg.h>
#include <stdio.h>

bool demand_fails(struct demand *demand, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (demand->complaint[0] == '\0')
        (void)vsnprintf(demand->complaint, sizeof demand->complaint, format, arguments);
    va_end(arguments);
    return false;
}
