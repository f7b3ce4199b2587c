/* SPDX-License-Identifier: Apache-2.0 */
/* Two buckets. See budget.h. */
#include "offload/budget.h"

#define SECOND_NS UINT64_C(1000000000)
#define HOUR_NS (3600 * SECOND_NS)
#define DAY_NS (24 * HOUR_NS)

/* Longer than anything runs (146 years), and twice as much still fits. */
#define NEVER_NS (UINT64_C(1) << 62)

/* So many bytes a period; depth_ns: what fills up in that time may be written at once. */
static void init(struct kvbi_bucket *bucket, uint64_t bytes, uint64_t period_ns, uint64_t depth_ns,
                 uint64_t block_bytes)
{
    *bucket = (struct kvbi_bucket){.block_ns = 0};
    if (bytes == 0)
        return;
    double exact = (double)block_bytes * (double)period_ns / (double)bytes;
    uint64_t block_ns = exact < (double)NEVER_NS ? (uint64_t)exact : NEVER_NS;
    if (block_ns < NEVER_NS && (double)block_ns < exact)
        block_ns++; /* rather a nanosecond too late than a byte too many */
    bucket->block_ns = block_ns;
    bucket->depth_ns = block_ns > depth_ns ? block_ns : depth_ns;
}

void kvbi_budget_init(struct kvbi_budget *budget, uint64_t bytes_per_second, uint64_t bytes_per_day,
                      uint64_t block_bytes)
{
    init(&budget->second, bytes_per_second, SECOND_NS, SECOND_NS, block_bytes);
    init(&budget->day, bytes_per_day, DAY_NS, HOUR_NS, block_bytes);
}

static uint32_t blocks_in(const struct kvbi_bucket *bucket, uint32_t max, uint64_t now_ns)
{
    if (bucket->block_ns == 0)
        return max;
    uint64_t lacking_ns = bucket->full_at_ns > now_ns ? bucket->full_at_ns - now_ns : 0;
    uint64_t blocks =
        lacking_ns < bucket->depth_ns ? (bucket->depth_ns - lacking_ns) / bucket->block_ns : 0;
    return blocks < max ? (uint32_t)blocks : max;
}

uint32_t kvbi_budget_blocks(const struct kvbi_budget *budget, uint32_t max, uint64_t now_ns)
{
    return blocks_in(&budget->day, blocks_in(&budget->second, max, now_ns), now_ns);
}

static void spend(struct kvbi_bucket *bucket, uint64_t now_ns)
{
    if (bucket->full_at_ns < now_ns)
        bucket->full_at_ns = now_ns;
    bucket->full_at_ns += bucket->block_ns;
}

void kvbi_budget_spend(struct kvbi_budget *budget, uint64_t now_ns)
{
    spend(&budget->second, now_ns);
    spend(&budget->day, now_ns);
}

static uint64_t next_of(const struct kvbi_bucket *bucket)
{
    uint64_t spare_ns = bucket->depth_ns - bucket->block_ns;
    return bucket->full_at_ns > spare_ns ? bucket->full_at_ns - spare_ns : 0;
}

uint64_t kvbi_budget_next_ns(const struct kvbi_budget *budget)
{
    uint64_t second = next_of(&budget->second), day = next_of(&budget->day);
    return second > day ? second : day;
}
