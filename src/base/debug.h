/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debug - checks that exist only in debug builds
 *
 * Owns the one place that ends a process. A release build of the library contains neither the
 * function nor the checks: an embedded library may not abort its host.
 * Callers: anything in src/. KVBI_ASSERT states what a caller inside the library owes; what comes
 * from outside the library is answered with an error code instead.
 */
#ifndef KVBI_BASE_DEBUG_H
#define KVBI_BASE_DEBUG_H

#if defined(KVB_DEBUG) && KVB_DEBUG
#define KVBI_DEBUG 1
#else
#define KVBI_DEBUG 0
#endif

#define KVBI_STRINGIFY_(x) #x
#define KVBI_STRINGIFY(x) KVBI_STRINGIFY_(x)

#if KVBI_DEBUG
/* Writes `what` to standard error and aborts. */
_Noreturn void kvbi_debug_fail(const char *what);
#define KVBI_ASSERT(condition)                                                                     \
    ((condition) ? (void)0 : kvbi_debug_fail(__FILE__ ":" KVBI_STRINGIFY(__LINE__) ": " #condition))
#else
/* Type-checked, never evaluated. */
#define KVBI_ASSERT(condition) ((void)sizeof((condition) ? 1 : 0))
#endif

#endif
