/* SPDX-License-Identifier: Apache-2.0 */
/* A counter's line advances, and an engine is told, as kvbi_engines_signal does it. */
#ifndef TESTS_SUPPORT_SIGNAL_H
#define TESTS_SUPPORT_SIGNAL_H

#include "block/ticket.h"
#include "transfer/engine.h"

static inline bool signal_line(struct kvbi_lines *lines, struct kvbi_engine *engine, uint32_t line,
                               uint64_t value)
{
    (void)kvbi_lines_advance(lines, line, value);
    return engine->ops->signal(engine);
}

#endif
