/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger - what a killed process had promised, and what the next one found of it
 *
 * The rules, all decided from messages that were in the pipe when the process died:
 *
 *  - Promised: every content whose *stored* was delivered and whose *removed* was not. It must be
 *    found, with every byte right.
 *  - Except that a write may have taken its slot: the lane evicts the old content, then writes, and
 *    *removed* may not have been delivered yet. Every write is announced before its slot is taken
 *    (the admission hook), takes one slot, and *removed* of what it evicts comes before its own
 *    *stored*. So at most as many promised contents may be missing as there are announced writes
 *    without *stored*. Where the files have room for everything no write evicts, and nothing may be
 *    missing.
 *  - Replaced: what a key stood for before must not be served once the *stored* of its later
 *    content was delivered.
 *  - Cleared: what was there when kvb_manager_clear was called must not come back once it had
 *    returned. If it had not, either may be.
 *  - Whatever is served must have every byte right, promised or not.
 */
#ifndef CRASH_LEDGER_H
#define CRASH_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "plan.h"

struct ledger {
    struct ledger_entry *entries; /* by number */
    uint32_t capacity;
    uint32_t next;    /* the first number never used */
    uint32_t intents; /* writes announced, their *stored* not delivered */
    bool checked;     /* this life's, once it has said what it found */
    bool clearing;    /* a clear has begun; its event has not come */
    uint64_t promised, found, taken, lost, wrong, came_back, replaced, busy; /* over all lives */
};

/* 0, or -1 without memory. */
int ledger_init(struct ledger *ledger);
void ledger_fini(struct ledger *ledger);

/* The files start empty: nothing is promised, nothing of before may come back. */
void ledger_start_empty(struct ledger *ledger);

/* A new process on the same files. */
void ledger_begin_life(struct ledger *ledger);

/* `roomy`: as the files are. 0, or -1 without memory. */
int ledger_note(struct ledger *ledger, const struct crash_message *message, bool roomy);

/* Nothing lost, nothing wrong. */
bool ledger_good(const struct ledger *ledger);

#endif
