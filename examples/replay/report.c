/* SPDX-License-Identifier: Apache-2.0 */
/* Progress, table, JSON. Every number comes from the results; nothing here calls the library. */
#include "report.h"

#include "options.h"
#include "payload.h"
#include "serve.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH 16 /* the whole line stays below 80 columns */
#define BAR_PERIOD_SECONDS 0.1
#define LINE_PERIOD_SECONDS 3.0

static const char *const tier_names[KVB_TIER_COUNT] = {"device", "host", "disk", "remote"};

static uint64_t hit_count(const struct results *results)
{
    uint64_t count = 0;
    for (int tier = 0; tier < KVB_TIER_COUNT; tier++)
        count += results->hits[tier];
    return count;
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* `number` with commas between thousands. Each call of one expression needs a buffer of its own. */
struct grouped {
    char text[28];
};

static const char *group(uint64_t number, struct grouped *buffer)
{
    char digits[24];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, number);
    char *to = buffer->text;
    for (int i = 0; i < count; i++) {
        if (i && (count - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return buffer->text;
}

#define GROUP(number) group((number), &(struct grouped){""})

/* ---- Progress -------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void progress_begin(struct progress *progress, const struct options *options, uint64_t total)
{
    *progress = (struct progress){.stream = options->quiet ? NULL : stderr,
                                  .terminal = isatty(STDERR_FILENO),
                                  .total = total,
                                  .started_at = now()};
    progress->next_at = progress->started_at + (progress->terminal ? 0 : LINE_PERIOD_SECONDS);
}

static void draw_bar(const struct progress *progress, uint64_t done)
{
    char bar[BAR_WIDTH + 1];
    size_t filled = (size_t)(ratio((double)done, (double)progress->total) * BAR_WIDTH);
    memset(bar, '#', filled);
    memset(bar + filled, '.', BAR_WIDTH - filled);
    bar[BAR_WIDTH] = '\0';
    fprintf(progress->stream, "\r[%s] ", bar);
}

void progress_update(struct progress *progress, const struct results *results)
{
    double time = progress->stream ? now() : 0;
    if (!progress->stream || time < progress->next_at)
        return;
    progress->next_at = time + (progress->terminal ? BAR_PERIOD_SECONDS : LINE_PERIOD_SECONDS);
    if (progress->terminal)
        draw_bar(progress, results->requests);
    fprintf(progress->stream, "%s/%s requests, hit rate %.3f, corrupt %" PRIu64 ", %.1f s%s",
            GROUP(results->requests), GROUP(progress->total),
            ratio((double)hit_count(results), (double)results->block_refs), results->corrupt,
            time - progress->started_at, progress->terminal ? "\033[K" : "\n");
    fflush(progress->stream);
}

void progress_end(struct progress *progress)
{
    if (progress->stream && progress->terminal) {
        fputs("\r\033[K", progress->stream);
        fflush(progress->stream);
    }
}

/* ---- Judgement ------------------------------------------------------------------------------- */

static uint64_t accounted(const struct kvb_lane_stats *lane)
{
    return lane->transferred + lane->skipped + lane->discarded + lane->shed + lane->failed +
           lane->cancelled + lane->pending;
}

static int good_origin(const struct restart *restart, char *reason, size_t reason_bytes)
{
    if (restart->resumed || restart->saved_hits == 0)
        return 1;
    snprintf(reason, reason_bytes, "%" PRIu64 " hits on contents that nobody had computed",
             restart->saved_hits);
    return 0;
}

int report_good(const struct results *results, char *reason, size_t reason_bytes)
{
    if (!good_origin(&results->restart, reason, reason_bytes))
        return 0;
    if (results->corrupt) {
        snprintf(reason, reason_bytes, "%" PRIu64 " of %" PRIu64 " reused blocks held wrong bytes",
                 results->corrupt, results->verified);
        return 0;
    }
    for (uint32_t i = 0; i < results->stats.lane_count; i++) {
        const struct kvb_lane_stats *lane = &results->stats.lanes[i];
        if (lane->offered == accounted(lane) && lane->pending == 0)
            continue;
        snprintf(reason, reason_bytes,
                 "the books of lane %s -> %s do not balance: offered %" PRIu64
                 ", accounted for %" PRIu64 ", pending after the flush %" PRIu64,
                 tier_names[lane->from_tier], tier_names[lane->to_tier], lane->offered,
                 accounted(lane), lane->pending);
        return 0;
    }
    for (int tier = 0; tier < KVB_TIER_COUNT; tier++) {
        const struct kvb_tier_stats *stats = &results->stats.tiers[tier];
        uint64_t idle = stats->free_count + stats->parked_count + stats->retired_count;
        if (idle == stats->block_count)
            continue;
        snprintf(reason, reason_bytes,
                 "tier %s: %" PRIu64 " of %" PRIu64
                 " blocks are neither free nor parked, and nobody uses them",
                 tier_names[tier], stats->block_count - idle, stats->block_count);
        return 0;
    }
    return 1;
}

/* ---- Table ----------------------------------------------------------------------------------- */

static void print_setup(FILE *stream, const struct options *options, const struct results *results)
{
    fprintf(stream, "%s: %s requests, %s blocks of %d tokens, %s bytes a block\n",
            options->trace_path ? options->trace_path : "generated workload",
            GROUP(results->requests), GROUP(results->block_refs), REPLAY_TOKENS_PER_BLOCK,
            GROUP(options->block_bytes));
    fprintf(stream,
            "device %s blocks, host %s blocks, policy %s, trigger %s, pace %s, progress %s\n",
            GROUP(options->device_blocks), GROUP(options->host_blocks),
            options->policy ? options->policy : "default", options_trigger_name(options),
            options_pace_name(options), options_progress_name(options));
    if (options->disk.count)
        fprintf(stream, "disk %s blocks in %s%s, %s\n", GROUP(options->disk_blocks),
                options->disk.list[0], options->disk.count > 1 ? " and others" : "",
                options->resume ? "resumed" : "started empty");
    fprintf(stream, "engine %s, hash %s\n\n", results->stats.engine, results->stats.hash);
}

static void print_share(FILE *stream, const char *name, uint64_t count, uint64_t of)
{
    fprintf(stream, "%-16s %12s %7.2f %%\n", name, GROUP(count),
            100 * ratio((double)count, (double)of));
}

static void print_hits(FILE *stream, const struct results *results)
{
    uint64_t hits = hit_count(results);
    for (int tier = 0; tier < KVB_TIER_COUNT; tier++) {
        char name[32];
        snprintf(name, sizeof name, "found in %s", tier_names[tier]);
        if (results->stats.tiers[tier].block_count)
            print_share(stream, name, results->hits[tier], results->block_refs);
    }
    print_share(stream, "computed", results->block_refs - hits, results->block_refs);
    fprintf(stream, "%-16s %12.4f\n\n", "hit rate",
            ratio((double)hits, (double)results->block_refs));
}

static void print_restart(FILE *stream, const struct results *results)
{
    const struct restart *restart = &results->restart;
    if (!restart->resumed)
        return;
    fprintf(stream, "%-16s %12s   in %.3f s (%s entries damaged, %s superseded)\n", "recovered",
            GROUP(restart->recovered), (double)restart->recovery_ns * 1e-9, GROUP(restart->dropped),
            GROUP(restart->superseded));
    print_share(stream, "saved by that", restart->saved_hits, results->block_refs);
    fprintf(stream, "%-16s %12s   different ones of them\n\n", "", GROUP(restart->saved_contents));
}

static void print_reason(FILE *stream, const char *what, uint64_t count)
{
    if (count)
        fprintf(stream, "    %-58s %12s\n", what, GROUP(count));
}

/* Why blocks did not move: only what happened. */
static void print_reasons(FILE *stream, const struct kvb_lane_stats *lane)
{
    print_reason(stream, "skipped: the lower tier had it, or was getting it",
                 lane->skipped_present);
    print_reason(stream, "skipped: no room there", lane->skipped_no_target);
    print_reason(stream, "skipped: refused by admission", lane->skipped_admission);
    print_reason(stream, "discarded: gone before its turn came", lane->discarded);
    print_reason(stream, "shed: the queue was full", lane->shed);
    print_reason(stream, "failed: the engine reported an error", lane->failed_transfer);
    print_reason(stream, "failed: invalidated while it moved", lane->failed_invalidated);
    print_reason(stream, "cancelled", lane->cancelled);
    print_reason(stream, "pending", lane->pending);
    print_reason(stream, "joined another's transfer", lane->joined);
}

static void print_lanes(FILE *stream, const struct results *results)
{
    if (results->stats.lane_count == 0)
        return;
    fprintf(stream, "%-16s %11s %11s %9s %9s %7s %7s %8s %7s\n", "lane", "offered", "transferred",
            "skipped", "discarded", "shed", "failed", "GB", "GB/s");
    for (uint32_t i = 0; i < results->stats.lane_count; i++) {
        const struct kvb_lane_stats *lane = &results->stats.lanes[i];
        char name[32];
        snprintf(name, sizeof name, "%s -> %s", tier_names[lane->from_tier],
                 tier_names[lane->to_tier]);
        fprintf(stream, "%-16s %11s %11s %9s %9s %7s %7s %8.2f %7.2f\n", name, GROUP(lane->offered),
                GROUP(lane->transferred), GROUP(lane->skipped), GROUP(lane->discarded),
                GROUP(lane->shed), GROUP(lane->failed), (double)lane->bytes * 1e-9,
                ratio((double)lane->bytes, (double)lane->busy_ns));
        print_reasons(stream, lane);
    }
    fputs("\n", stream);
}

void report_table(FILE *stream, const struct options *options, const struct results *results)
{
    char reason[256];
    print_setup(stream, options, results);
    print_hits(stream, results);
    print_restart(stream, results);
    print_lanes(stream, results);
    fprintf(stream, "%-16s %12s\n", "verified", GROUP(results->verified));
    fprintf(stream, "%-16s %12s\n", "corrupt", GROUP(results->corrupt));
    if (results->room_retries || results->hits_dropped)
        fprintf(stream, "waited for room %s times, gave up %s hits\n", GROUP(results->room_retries),
                GROUP(results->hits_dropped));
    fprintf(stream, "%-16s %10.2f s (%.2f computing, %.2f verifying, %.2f waiting for transfers)\n",
            "time", results->seconds, results->fill_seconds, results->verify_seconds,
            results->wait_seconds);
    fprintf(stream, "%s\n",
            report_good(results, reason, sizeof reason) ? "good: no wrong byte, all books balance"
                                                        : reason);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_string(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(stream, "\\%c", c);
        else if (c < 0x20)
            fprintf(stream, "\\u%04x", c);
        else
            fputc(c, stream);
    }
    fputc('"', stream);
}

static void json_number(FILE *stream, const char *name, uint64_t number)
{
    fprintf(stream, "\"%s\": %" PRIu64 ", ", name, number);
}

static void json_config(FILE *stream, const struct options *options)
{
    fputs("  \"config\": {\"trace\": ", stream);
    if (options->trace_path)
        json_string(stream, options->trace_path);
    else
        fputs("null", stream);
    fputs(", \"policy\": ", stream);
    json_string(stream, options->policy ? options->policy : "default");
    fprintf(stream, ", \"trigger\": \"%s\", \"pace\": \"%s\", \"progress\": \"%s\", ",
            options_trigger_name(options), options_pace_name(options),
            options_progress_name(options));
    json_number(stream, "device_blocks", options->device_blocks);
    json_number(stream, "host_blocks", options->host_blocks);
    json_number(stream, "disk_blocks", options->disk_blocks);
    json_number(stream, "disk_paths", options->disk.count);
    json_number(stream, "block_bytes", options->block_bytes);
    fprintf(stream, "\"seed\": %" PRIu64 ", \"resume\": %s},\n", options->seed,
            options->resume ? "true" : "false");
}

static void json_lane(FILE *stream, const struct kvb_lane_stats *lane)
{
    fprintf(stream, "    {\"from\": \"%s\", \"to\": \"%s\", ", tier_names[lane->from_tier],
            tier_names[lane->to_tier]);
    json_number(stream, "offered", lane->offered);
    json_number(stream, "transferred", lane->transferred);
    json_number(stream, "discarded", lane->discarded);
    json_number(stream, "skipped", lane->skipped);
    json_number(stream, "skipped_present", lane->skipped_present);
    json_number(stream, "skipped_no_target", lane->skipped_no_target);
    json_number(stream, "skipped_admission", lane->skipped_admission);
    json_number(stream, "shed", lane->shed);
    json_number(stream, "failed", lane->failed);
    json_number(stream, "cancelled", lane->cancelled);
    json_number(stream, "pending", lane->pending);
    json_number(stream, "joined", lane->joined);
    json_number(stream, "pinned_max", lane->pinned_max);
    json_number(stream, "bytes", lane->bytes);
    fprintf(stream, "\"busy_seconds\": %.6f}", (double)lane->busy_ns * 1e-9);
}

static void json_restart(FILE *stream, const struct restart *restart)
{
    fputs("\n  \"restart\": {", stream);
    json_number(stream, "recovered", restart->recovered);
    json_number(stream, "dropped", restart->dropped);
    json_number(stream, "superseded", restart->superseded);
    json_number(stream, "saved_hits", restart->saved_hits);
    fprintf(stream, "\"saved_contents\": %" PRIu64 "},", restart->saved_contents);
}

void report_json(FILE *stream, const struct options *options, const struct results *results)
{
    char reason[256];
    fputs("{\n", stream);
    json_config(stream, options);
    fputs("  ", stream);
    json_number(stream, "requests", results->requests);
    json_number(stream, "block_refs", results->block_refs);
    fprintf(
        stream,
        "\n  \"hits\": {\"device\": %" PRIu64 ", \"host\": %" PRIu64 ", \"disk\": %" PRIu64 "},\n",
        results->hits[KVB_TIER_DEVICE], results->hits[KVB_TIER_HOST], results->hits[KVB_TIER_DISK]);
    fprintf(stream, "  \"hit_rate\": %.6f, ",
            ratio((double)hit_count(results), (double)results->block_refs));
    json_number(stream, "verified", results->verified);
    json_number(stream, "corrupt", results->corrupt);
    json_number(stream, "room_retries", results->room_retries);
    json_number(stream, "hits_dropped", results->hits_dropped);
    json_restart(stream, &results->restart);
    fputs("\n  \"lanes\": [", stream);
    for (uint32_t i = 0; i < results->stats.lane_count; i++) {
        fputs(i ? ",\n" : "\n", stream);
        json_lane(stream, &results->stats.lanes[i]);
    }
    fprintf(stream, "],\n  \"good\": %s,\n",
            report_good(results, reason, sizeof reason) ? "true" : "false");
    fprintf(stream,
            "  \"seconds\": %.6f, \"compute_seconds\": %.6f, \"verify_seconds\": %.6f, "
            "\"wait_seconds\": %.6f, \"recovery_seconds\": %.6f\n}\n",
            results->seconds, results->fill_seconds, results->verify_seconds, results->wait_seconds,
            (double)results->restart.recovery_ns * 1e-9);
}
