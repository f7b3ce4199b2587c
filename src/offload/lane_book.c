/* SPDX-License-Identifier: Apache-2.0 */
/* The counters that lanes of both directions keep of what is with the engine. See lane.h. */
#include "offload/lane.h"

void kvbi_lane_book_begin(struct kvbi_lane_book *book, uint32_t count, uint64_t now_ns)
{
    if (book->inflight == 0 && count > 0)
        book->busy_since_ns = now_ns;
    book->inflight += count;
}

void kvbi_lane_book_end(struct kvbi_lane_book *book, uint64_t now_ns)
{
    if (--book->inflight == 0)
        book->stats.busy_ns += now_ns - book->busy_since_ns;
}

void kvbi_lane_book_complete(struct kvbi_lane_book *book, int result, bool published,
                             uint64_t bytes, uint64_t now_ns)
{
    struct kvb_lane_stats *stats = &book->stats;
    if (published) {
        stats->transferred++;
        stats->bytes += bytes;
    } else if (result == KVB_ECANCELED) {
        stats->cancelled++;
    } else {
        stats->failed++;
        stats->failed_transfer += result != 0;
        stats->failed_invalidated += result == 0;
    }
    kvbi_lane_book_end(book, now_ns);
}

const char *kvbi_lane_book_check(const struct kvbi_lane_book *book, uint32_t waiting)
{
    const struct kvb_lane_stats *stats = &book->stats;
    uint64_t pending = (uint64_t)waiting + book->inflight;
    if (stats->offered != stats->transferred + stats->skipped + stats->discarded + stats->shed +
                              stats->failed + stats->cancelled + pending)
        return "offered = transferred + skipped + discarded + shed + failed + cancelled + pending";
    if (stats->skipped != stats->skipped_present + stats->skipped_no_target +
                              stats->skipped_admission + stats->skipped_out_of_service)
        return "every skip has a reason";
    if (stats->failed != stats->failed_transfer + stats->failed_invalidated)
        return "every failure has a reason";
    return NULL;
}
