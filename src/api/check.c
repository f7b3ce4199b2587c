/* SPDX-License-Identifier: Apache-2.0 */
/* The white-box doors of testing.h. Callers: tests. */
#include <stdio.h>

#include "api/manager.h"
#include "api/testing.h"
#include "store/contents.h"

static const char *check_locked(struct kvb_manager *manager)
{
    const char *wrong = kvbi_store_check_locked(&manager->store);
    return wrong != NULL ? wrong : kvbi_pipeline_check_locked(&manager->pipeline);
}

int kvbi_manager_check(struct kvb_manager *manager, char *message, size_t message_bytes)
{
    kvbi_store_lock(&manager->store);
    const char *wrong = check_locked(manager);
    kvbi_store_unlock(&manager->store);
    if (message != NULL && message_bytes > 0)
        (void)snprintf(message, message_bytes, "%s", wrong == NULL ? "" : wrong);
    return wrong == NULL ? 0 : KVB_EINVAL;
}

uint32_t kvbi_testing_longest_section(struct kvb_manager *manager)
{
    kvbi_store_lock(&manager->store);
    uint32_t longest = kvbi_store_longest_hold_locked(&manager->store);
    kvbi_store_unlock(&manager->store);
    return longest;
}

void kvbi_testing_set_generation(struct kvb_manager *manager, struct kvb_block *block,
                                 uint64_t generation)
{
    kvbi_store_lock(&manager->store);
    uint64_t word = atomic_load(&block->word);
    atomic_store(&block->word, generation << KVBI_USERS_BITS | kvbi_word_users(word));
    kvbi_store_unlock(&manager->store);
}

void kvbi_testing_mute(struct kvb_manager *manager)
{
    kvbi_store_lock(&manager->store);
    kvbi_onboarding_mute_locked(kvbi_pipeline_onboarding(&manager->pipeline));
    kvbi_store_unlock(&manager->store);
}

void kvbi_testing_abandon(struct kvb_manager *manager)
{
    kvbi_testing_mute(manager);
    (void)kvbi_store_close(&manager->store);
    kvbi_progress_close(&manager->progress);
    kvbi_manager_free(manager);
}
