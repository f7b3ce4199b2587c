/* SPDX-License-Identifier: Apache-2.0 */
/* why - see why.h. */
#include "base/why.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

void kvbi_why_vsay(struct kvbi_why *why, const char *format, va_list arguments)
{
    int length = vsnprintf(why->text, sizeof why->text, format, arguments);
    if (length < 0)
        why->text[0] = '\0';
    else if ((size_t)length >= sizeof why->text)
        memcpy(why->text + sizeof why->text - sizeof "...", "...", sizeof "...");
}

void kvbi_why_say(struct kvbi_why *why, const char *format, ...)
{
    va_list arguments;
    if (why == NULL)
        return;
    va_start(arguments, format);
    kvbi_why_vsay(why, format, arguments);
    va_end(arguments);
}

void kvbi_why_else(struct kvbi_why *why, const char *format, ...)
{
    va_list arguments;
    if (why == NULL || why->text[0] != '\0')
        return;
    va_start(arguments, format);
    kvbi_why_vsay(why, format, arguments);
    va_end(arguments);
}
