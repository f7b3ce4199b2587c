/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log - messages for the caller's logger
 *
 * Owns the caller's logger (copied). Without one nothing is formatted and nothing is called.
 * Callers: anything in src/, any thread, with no lock held: the logger is the caller's code and may
 * take its time.
 * Lock: none. The message lives on the stack, 255 characters at most; a longer one ends in "...".
 */
#ifndef KVBI_BASE_LOG_H
#define KVBI_BASE_LOG_H

#include <kvblock.h>

#define KVBI_LOG_BYTES 256

struct kvbi_log {
    struct kvb_logger logger;
};

/* `logger` is copied; NULL, or one without a function: silence. */
void kvbi_log_init(struct kvbi_log *log, const struct kvb_logger *logger);

/* level: KVB_LOG_…; code: the KVB_E… that the message is about, or 0. */
void kvbi_log(const struct kvbi_log *log, int level, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
