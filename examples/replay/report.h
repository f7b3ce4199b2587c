/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person or a program reads: progress while the replay runs, table and JSON at its end, and
 * the final judgement.
 */
#ifndef REPLAY_REPORT_H
#define REPLAY_REPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct options;
struct results;

struct progress {
    FILE *stream; /* NULL: say nothing */
    int terminal; /* a bar that redraws itself, else a line every few seconds */
    uint64_t total;
    double next_at, started_at;
};

void progress_begin(struct progress *progress, const struct options *options, uint64_t total);
void progress_update(struct progress *progress, const struct results *results);
void progress_end(struct progress *progress);

/* 1 if no byte was wrong and all books balance; else 0 with `reason` written. */
int report_good(const struct results *results, char *reason, size_t reason_bytes);

void report_table(FILE *stream, const struct options *options, const struct results *results);
void report_json(FILE *stream, const struct options *options, const struct results *results);

#endif
