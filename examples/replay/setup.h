/* SPDX-License-Identifier: Apache-2.0 */
/* From options to a manager, or to a sentence that says which option cannot be. */
#ifndef REPLAY_SETUP_H
#define REPLAY_SETUP_H

#include <kvblock.h>
#include <stddef.h>
#include <stdint.h>

struct options;

/*
 * One block's bytes: REPLAY_LAYERS x REPLAY_PARTS chunks, so that a replay goes through all of the
 * layout.
 */
#define REPLAY_LAYERS 4
#define REPLAY_PARTS 2

/* A manager, and the memory of its tiers. */
struct setup {
    struct kvb_manager *manager;
    void *memory[2]; /* [KVB_TIER_DEVICE], [KVB_TIER_HOST] */
};

/*
 * A manager in whose device tier a request of `longest` blocks always finds room. 0, or the
 * program's exit status with `error` written: 2 if an option is to blame, 1 if not.
 */
int setup_open(struct setup *setup, const struct options *options, uint32_t longest, char *error,
               size_t error_bytes);

/* Give everything back. 0, or what kvb_manager_destroy said: then manager and memory stay. */
int setup_close(struct setup *setup);

#endif
