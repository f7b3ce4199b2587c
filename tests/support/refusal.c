/* SPDX-License-Identifier: Apache-2.0 */
/* See refusal.h. */
#include "support/refusal.h"

void refusal_check(const char *file, int line, const struct kv_log *log, size_t before, int got,
                   int code, int level, const char *call, const char *words)
{
    kv_expect_at(got, code, call, file, line);
    const struct kv_log_line *last = kv_log_last(log);
    size_t name = strcspn(call, "(");
    bool named = strncmp(last->text, call, name) == 0 && strncmp(last->text + name, ": ", 2) == 0;
    if (log->count != before + 1 || last->level != level || last->code != code || !named ||
        strstr(last->text, words) == NULL) {
        print_error("%s\n  %zu lines, level %d, %s: %s\n  expected 1, level %d, %s: ...%s...\n",
                    call, log->count - before, last->level, kvb_error_name(last->code), last->text,
                    level, kvb_error_name(code), words);
        _fail(file, line);
    }
}
