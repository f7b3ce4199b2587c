/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request trace in memory, and its text form: one JSON object a line with `timestamp` (ms),
 * `input_length`, `output_length` (tokens) and `hash_ids` (one id per 512 tokens of the input, in
 * order; equal ids mean equal content and equal prefix). This is the schema of the traces published
 * with Mooncake (FAST'25).
 */
#ifndef REPLAY_TRACE_H
#define REPLAY_TRACE_H

#include <stddef.h>
#include <stdint.h>

struct request {
    uint64_t timestamp_ms;
    uint64_t input_length, output_length; /* tokens */
    size_t first;                         /* its ids: trace->ids[first, first + block_count) */
    uint32_t block_count;
};

struct trace {
    struct request *requests;
    size_t request_count, request_capacity;
    uint64_t *ids;
    size_t id_count, id_capacity;
};

void trace_init(struct trace *trace);
void trace_fini(struct trace *trace);

/*
 * Room for `count` more ids at the end of `ids`, or NULL. They count once trace_add has been
 * called.
 */
uint64_t *trace_reserve(struct trace *trace, size_t count);

/*
 * Append a request whose ids have been written to what trace_reserve returned. 0, or -1 without
 * memory.
 */
int trace_add(struct trace *trace, uint64_t timestamp_ms, uint64_t input_length,
              uint64_t output_length, uint32_t block_count);

/* Keep the first `limit` requests. */
void trace_limit(struct trace *trace, uint64_t limit);

/* Blocks of the longest request. */
uint32_t trace_longest(const struct trace *trace);

/*
 * Read up to `limit` requests of a file. 0, or -1 with `error` written: "file:line: reason" where a
 * line is to blame. Unknown keys are skipped; anything else that is not the schema is refused.
 */
int trace_read(struct trace *trace, const char *path, uint64_t limit, char *error,
               size_t error_bytes);

/* Write a file in the schema. 0, or -1 with `error` written. */
int trace_write(const struct trace *trace, const char *path, char *error, size_t error_bytes);

#endif
