/* SPDX-License-Identifier: Apache-2.0 */
/* See crowd.h. */
#include "support/crowd.h"

int crowd_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct crowd));
    return 0;
}

void crowd_configure(struct crowd *crowd, uint32_t device_blocks, uint32_t host_blocks,
                     uint32_t trigger)
{
    mv_two_tiers(&crowd->rig, device_blocks, host_blocks, trigger);
    crowd->rig.config.op_capacity = CROWD + 3;
    crowd->rig.config.key_bytes = sizeof(uint64_t);
}

void crowd_put(struct crowd *crowd, uint32_t tier, uint64_t first, struct kvb_block **blocks,
               uint32_t count)
{
    struct kv_rig *rig = &crowd->rig;
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t key = first + i;
        uint32_t tokens[KV_TOKENS];
        struct kvb_block_init init = {.size = sizeof init, .key = &key};
        kv_tokens(tokens, KV_TOKENS, key);
        kv_ok(kvb_block_init(rig->kv, &blocks[i], &init, 1, NULL));
        kv_append(rig, blocks[i], tokens, KV_TOKENS, 0);
        kv_schedule(rig, blocks[i]);
        kv_done(rig, blocks[i], KV_TOKENS);
    }
    kv_ok(kvb_block_register(rig->kv, blocks, count, NULL, NULL, NULL));
}

void crowd_count_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct crowd *crowd = arg;
    (void)op;
    crowd->done++;
    crowd->good += good_count;
    crowd->cancelled += status == KVB_ECANCELED;
}

void crowd_poll_once(struct crowd *crowd)
{
    assert_in_range(kvb_manager_poll(crowd->rig.kv, 0), 0, 1);
}

void crowd_expect_short_sections(struct crowd *crowd)
{
    uint32_t longest = crowd_longest_hold(crowd);
    if (longest > KVBI_LOCK_BATCH)
        fail_msg("%u steps in one section", longest);
    assert_true(longest > 1); /* something was counted at all */
}

void crowd_end(struct crowd *crowd)
{
    for (uint32_t i = 0; i <= CROWD; i++)
        if (crowd->ops[i] != NULL)
            kv_ok(kvb_op_release(crowd->rig.kv, crowd->ops[i]));
    kv_unref(&crowd->rig, crowd->source);
    kv_poll(&crowd->rig);
    mv_expect_books(&crowd->rig, true);
}

uint32_t crowd_longest_hold(struct crowd *crowd)
{
    return kvbi_testing_longest_section(crowd->rig.kv);
}

void crowd_forget_holds(struct crowd *crowd)
{
    (void)crowd_longest_hold(crowd);
}
