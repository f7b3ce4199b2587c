/* SPDX-License-Identifier: Apache-2.0 */
/* The tier in host memory: whose memory it is, and none. */
#include "support/failing_memory.h"
#include "support/test.h"
#include "transfer/memory/tier.h"
#include "transfer/tier.h"

static void test_tier_host_of_the_caller_is_not_freed(void **state)
{
    (void)state;
    struct failing_memory failing;
    struct kvbi_memory memory = failing_memory(&failing, 0);
    struct kvbi_tier tier;
    unsigned char bytes[64];
    assert_int_equal(kvbi_tier_host_create(&tier, &memory, KVB_TIER_HOST, 4, 16, bytes), 0);
    assert_ptr_equal(kvbi_tier_address(&tier, 3), bytes + 48);
    kvbi_tier_destroy(&tier);
    assert_int_equal(failing.live_count, 0);
}

static void test_tier_host_without_memory_fails(void **state)
{
    (void)state;
    struct failing_memory failing;
    struct kvbi_memory memory = failing_memory(&failing, 0);
    struct kvbi_tier tier;
    assert_int_equal(kvbi_tier_host_create(&tier, &memory, KVB_TIER_HOST, 4, 16, NULL), KVB_ENOMEM);
    kvbi_tier_destroy(&tier);
    memory = failing_memory(&failing, INT64_MAX);
    assert_int_equal(
        kvbi_tier_host_create(&tier, &memory, KVB_TIER_HOST, UINT32_MAX, UINT64_MAX / 2, NULL),
        KVB_ENOMEM);
    kvbi_tier_destroy(&tier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_tier_host_of_the_caller_is_not_freed),
        TEST(bare, test_tier_host_without_memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
