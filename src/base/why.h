/* SPDX-License-Identifier: Apache-2.0 */
/*
 * why - the words of a refusal
 *
 * Filled in where the cause is known, often several calls below the public function, and told by
 * that function, which knows its own name and how much may be logged. Lies on the caller's stack:
 * nothing is allocated, nothing is shared.
 * Callers: anything in src/, any thread, under locks too: words are only put together, nobody hears
 * them yet.
 * Lock: none.
 */
#ifndef KVBI_BASE_WHY_H
#define KVBI_BASE_WHY_H

#include <stdarg.h>

/*
 * A line of the log (KVBI_LOG_BYTES) has room for it, a function's name and the counts behind it.
 */
#define KVBI_WHY_BYTES 192

struct kvbi_why {
    char text[KVBI_WHY_BYTES];
};

/* Writes the words; longer ones end in "...". `why` may be NULL: nobody asks. */
void kvbi_why_say(struct kvbi_why *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void kvbi_why_vsay(struct kvbi_why *why, const char *format, va_list arguments);

/* The same, unless something has been said already. */
void kvbi_why_else(struct kvbi_why *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
