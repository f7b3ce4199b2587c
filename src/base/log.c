/* SPDX-License-Identifier: Apache-2.0 */
/* log - see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void kvbi_log_init(struct kvbi_log *log, const struct kvb_logger *logger)
{
    log->logger = (struct kvb_logger){.log = NULL, .context = NULL};
    if (logger != NULL)
        log->logger = *logger;
}

void kvbi_log(const struct kvbi_log *log, int level, int code, const char *format, ...)
{
    char message[KVBI_LOG_BYTES];
    va_list arguments;

    if (log->logger.log == NULL)
        return;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if ((size_t)length >= sizeof message)
        memcpy(message + sizeof message - sizeof "...", "...", sizeof "...");
    log->logger.log(log->logger.context, level, code, message);
}
