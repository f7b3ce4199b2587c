/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing trace; reading and writing its files line by line. The grammar of one line is in
 * json_line.c.
 */
#include "trace.h"

#include "json_line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void trace_init(struct trace *trace)
{
    memset(trace, 0, sizeof *trace);
}

void trace_fini(struct trace *trace)
{
    free(trace->requests);
    free(trace->ids);
    trace_init(trace);
}

/*
 * `memory` with room for `needed` elements, doubled as it grows; NULL, and the old memory
 * untouched, without room.
 */
static void *grow(void *memory, size_t *capacity, size_t needed, size_t element_bytes)
{
    if (needed <= *capacity)
        return memory;
    size_t wanted = *capacity ? *capacity : 1024;
    while (wanted < needed) {
        if (wanted > SIZE_MAX / 2 / element_bytes)
            return NULL;
        wanted *= 2;
    }
    void *grown = realloc(memory, wanted * element_bytes);
    if (grown)
        *capacity = wanted;
    return grown;
}

uint64_t *trace_reserve(struct trace *trace, size_t count)
{
    uint64_t *ids = grow(trace->ids, &trace->id_capacity, trace->id_count + count, sizeof *ids);
    if (!ids)
        return NULL;
    trace->ids = ids;
    return ids + trace->id_count;
}

int trace_add(struct trace *trace, uint64_t timestamp_ms, uint64_t input_length,
              uint64_t output_length, uint32_t block_count)
{
    struct request *requests =
        grow(trace->requests, &trace->request_capacity, trace->request_count + 1, sizeof *requests);
    if (!requests)
        return -1;
    trace->requests = requests;
    requests[trace->request_count++] = (struct request){.timestamp_ms = timestamp_ms,
                                                        .input_length = input_length,
                                                        .output_length = output_length,
                                                        .first = trace->id_count,
                                                        .block_count = block_count};
    trace->id_count += block_count;
    return 0;
}

void trace_limit(struct trace *trace, uint64_t limit)
{
    if (limit >= trace->request_count)
        return;
    trace->request_count = (size_t)limit;
    trace->id_count = trace->requests[limit].first;
}

uint32_t trace_longest(const struct trace *trace)
{
    uint32_t longest = 0;
    for (size_t i = 0; i < trace->request_count; i++)
        if (trace->requests[i].block_count > longest)
            longest = trace->requests[i].block_count;
    return longest;
}

int trace_read(struct trace *trace, const char *path, uint64_t limit, char *error,
               size_t error_bytes)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        return -1;
    }
    char *line = NULL;
    size_t line_capacity = 0;
    ssize_t length = 0;
    int status = 0;
    for (uint64_t number = 1; trace->request_count < limit; number++) {
        errno = 0;
        length = getline(&line, &line_capacity, file);
        if (length < 0)
            break;
        const char *reason = json_line_read(trace, line, (size_t)length);
        if (reason) {
            snprintf(error, error_bytes, "%s:%" PRIu64 ": %s", path, number, reason);
            status = -1;
            break;
        }
    }
    if (length < 0 && !feof(file)) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        status = -1;
    } else if (!status && trace->request_count == 0) {
        snprintf(error, error_bytes, "%s: no requests", path);
        status = -1;
    }
    free(line);
    fclose(file);
    return status;
}

static void write_request(FILE *file, const struct trace *trace, const struct request *request)
{
    fprintf(file,
            "{\"timestamp\": %" PRIu64 ", \"input_length\": %" PRIu64
            ", \"output_length\": %" PRIu64 ", \"hash_ids\": [",
            request->timestamp_ms, request->input_length, request->output_length);
    for (uint32_t i = 0; i < request->block_count; i++)
        fprintf(file, "%s%" PRIu64, i ? ", " : "", trace->ids[request->first + i]);
    fputs("]}\n", file);
}

int trace_write(const struct trace *trace, const char *path, char *error, size_t error_bytes)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        return -1;
    }
    for (size_t i = 0; i < trace->request_count; i++)
        write_request(file, trace, &trace->requests[i]);
    int failed = ferror(file);
    if (fclose(file) || failed) {
        snprintf(error, error_bytes, "%s: cannot write", path);
        return -1;
    }
    return 0;
}
