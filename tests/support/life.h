/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single blocks on top of kv_test.h: one in a state of its life, one that is registered, its weak
 * handle.
 */
#ifndef KVB_TEST_SUPPORT_LIFE_H
#define KVB_TEST_SUPPORT_LIFE_H

#include "support/kv_scene.h"

/* Two blocks' worth; what the blocks below are made of. */
extern const uint32_t life_tokens[2 * KV_TOKENS];

/*
 * A block of DEVICE in this state. Two of its four tokens are named, all in Complete and
 * Registered, none in Empty.
 */
struct kvb_block *life_block_in(struct kv_rig *rig, int state);

/* Lets go of a block in whatever state, its steps included. */
void life_drop(struct kv_rig *rig, struct kvb_block *block);

/* A root block of DEVICE, registered under these tokens and held. */
struct kvb_block *life_registered(struct kv_rig *rig, const uint32_t *tokens);

/*
 * A root block of DEVICE of its own for every seed, with its payload, registered and held; and let
 * go.
 */
struct kvb_block *life_store(struct kv_rig *rig, uint64_t seed);
void life_park(struct kv_rig *rig, uint64_t seed);

/* Its name. */
struct kvb_seq life_name(struct kv_rig *rig, uint64_t seed);

struct kvb_weak life_weak(struct kv_rig *rig, struct kvb_block *block);

/* What kvb_weak_upgrade says of one handle. */
int life_upgrade(struct kv_rig *rig, struct kvb_weak weak, struct kvb_block **block);

/* Takes every block of DEVICE that can be had once, so that whatever is parked goes. */
void life_evict_all(struct kv_rig *rig);

#endif
