/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock-free half of a strong handle's count: everything that neither starts nor ends at zero.
 * See slot.h.
 */
#include "block/slot.h"

#include <kvblock.h>

int kvbi_slot_ref(struct kvb_block *block)
{
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    do {
        if (kvbi_word_users(word) == 0)
            return KVB_EINVAL;
        if (kvbi_word_users(word) == KVBI_USERS_MAX)
            return KVB_EAGAIN;
        /* Relaxed: the caller's own handle orders everything it may read. */
    } while (!atomic_compare_exchange_weak_explicit(&block->word, &word, word + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return 0;
}

bool kvbi_slot_unref_shared(struct kvb_block *block)
{
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    do {
        if (kvbi_word_users(word) <= 1)
            return false;
        /* Release: what this user read or wrote happens before whoever takes the count to zero. */
    } while (!atomic_compare_exchange_weak_explicit(&block->word, &word, word - 1,
                                                    memory_order_release, memory_order_relaxed));
    return true;
}

int kvbi_slot_upgrade_used(struct kvb_block *block, uint64_t generation)
{
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    do {
        if (kvbi_word_generation(word) != generation)
            return KVB_ESTALE;
        if (kvbi_word_users(word) == 0)
            return KVB_EBUSY;
        if (kvbi_word_users(word) == KVBI_USERS_MAX)
            return KVB_EAGAIN;
        /*
         * Acquire: pairs with the release of whoever changed the word under the lock last. In one
         * order with destroy's look at all words and at what it has announced before.
         */
    } while (!atomic_compare_exchange_weak_explicit(&block->word, &word, word + 1,
                                                    memory_order_seq_cst, memory_order_relaxed));
    return 0;
}
