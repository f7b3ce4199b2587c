/* SPDX-License-Identifier: Apache-2.0 */
/* One line of a trace: the strict reader. */
#ifndef REPLAY_JSON_LINE_H
#define REPLAY_JSON_LINE_H

#include <stddef.h>

struct trace;

/*
 * Append the request that a line holds to the trace; a line of white space alone adds nothing. NULL
 * if that went well, else what is wrong with the line, in words (static storage), and the trace is
 * as before.
 */
const char *json_line_read(struct trace *trace, const char *line, size_t length);

#endif
