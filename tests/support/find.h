/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding blocks on top of kv_test.h: a run of contents, queries by tokens and by keys, and what
 * they find.
 */
#ifndef KVB_TEST_SUPPORT_FIND_H
#define KVB_TEST_SUPPORT_FIND_H

#include "support/kv_scene.h"

enum { FIND_RUN = 4 };

/* The tokens of the run. */
extern const uint32_t find_tokens[FIND_RUN * KV_TOKENS];

/* Computes, registers and lets go of a run of at most FIND_RUN blocks. */
void find_park(struct kv_rig *rig, uint32_t tier, uint32_t ns, const uint32_t *tokens,
               uint32_t count);

void find_unref(struct kv_rig *rig, struct kvb_block **blocks, uint32_t count);

/* The names of a run. */
void find_name(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens, size_t blocks,
               struct kvb_seq *seqs);

struct kvb_query find_by_keys(const void *keys, size_t count);
struct kvb_query find_by_both(uint32_t ns, const uint32_t *tokens, const void *keys, size_t count);

/*
 * How many blocks this query hands out; FIND_RUN of them at most are left in `hits`, all are given
 * back.
 */
size_t find_match(struct kv_rig *rig, const struct kvb_query *query, struct kvb_hit *hits);
size_t find_match_tokens(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens, size_t blocks);

/* Neither match nor lookup takes this query. */
void find_refused(struct kv_rig *rig, struct kvb_query query, int code);

/* Computes a block of DEVICE and tries to register it. The caller holds it. */
struct kvb_block *find_try_register(struct kv_rig *rig, uint32_t ns, uint32_t position,
                                    const struct kvb_seq *parent, const uint32_t *tokens, int code);

/* A 64-bit hash in whose eyes everything is the same. */
uint64_t find_constant_64(const void *data, size_t bytes, uint64_t seed);

#endif
