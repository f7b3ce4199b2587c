/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One round of progress: cut short what is due, fill the engine (onboarding first), reap it, apply,
 * deliver.
 *
 * Callers    offload/progress, one thread at a time, with no lock held. Each step holds the store's
 *            lock for at most KVBI_LOCK_BATCH blocks.
 */
#ifndef KVBI_OFFLOAD_ROUND_H
#define KVBI_OFFLOAD_ROUND_H

#include <stdbool.h>
#include <stdint.h>

struct kvbi_progress;

/* True if anything was done, and another round may find more. */
bool kvbi_round(struct kvbi_progress *progress, uint64_t until_ns);

#endif
