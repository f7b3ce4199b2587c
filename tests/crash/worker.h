/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that is killed: what its halves share. crash_worker.c opens, writes and closes;
 * check.c looks at what is there.
 *
 * It ends by exit status: 0 closed, 1 the library refused something, said on stderr. No buffered
 * output, no handler: SIGKILL may come at any instruction.
 */
#ifndef CRASH_WORKER_H
#define CRASH_WORKER_H

#include <stdatomic.h>

#include "plan.h"

/* Enough for a chain on its way up, or for a full lane on its way down. */
#define WORKER_BLOCKS 16
#define WORKER_BLOCKS_WIDE 80

struct worker {
    const struct crash_files *files;
    const struct crash_life *life;
    int pipe;
    struct kvb_manager *manager;
    /* By number, from life->first on: names of all contents that this life may meet. */
    struct kvb_seq *seqs;
    uint32_t *numbers; /* open-addressed: the number behind a hash, 0: none */
    uint32_t mask;
    _Atomic bool named; /* the tables above are complete: events are told from here on */
};

void worker_say(struct worker *worker, uint32_t kind, uint32_t number);

/* Ends the process. */
_Noreturn void worker_fail(const char *call, int code, const char *words);

#define WORKER_TRY(call)                                                                           \
    do {                                                                                           \
        int try_code = (call);                                                                     \
        if (try_code != 0)                                                                         \
            worker_fail(#call, try_code, "");                                                      \
    } while (0)

const struct kvb_seq *worker_seq(const struct worker *worker, uint32_t number);

/*
 * By whose number a name is known at present. With the caller's keys that changes, while nothing is
 * under way.
 */
uint32_t *worker_number(const struct worker *worker, const struct kvb_seq *seq);

/* Empty blocks of the device tier, however long transfers keep them. */
void worker_alloc(struct worker *worker, struct kvb_block **blocks, uint32_t count);

/* Looks for every content of the plan, brings up what is found, compares every byte, and tells. */
void worker_check(struct worker *worker);

#endif
