/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a crash run varies, and what its contents are.
 *
 * A content is a number, never used for two things: tokens, bytes and name follow from it. Each
 * continues the one before it, CRASH_CHAIN of them a chain. In some files names are the caller's
 * keys instead, without chains, and every fourth content takes the key of the one three before it.
 * Files are used for several lives of the worker, most of which end by SIGKILL; then they are
 * started empty.
 */
#ifndef CRASH_PLAN_H
#define CRASH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#define CRASH_TOKENS 4 /* a block */
#define CRASH_CHAIN 32
#define CRASH_PATHS_MAX 3
#define CRASH_PATH_BYTES 160

/* The files, for as long as they are not started empty. */
struct crash_files {
    char paths[CRASH_PATHS_MAX][CRASH_PATH_BYTES];
    uint32_t path_count;
    uint32_t block_bytes;
    uint32_t slot_count;
    /*
     * Room for all that is written: nothing is ever evicted. Else a few slots, overwritten often.
     */
    bool roomy;
    /* The caller's keys. Roomy: else what has been evicted may let an earlier content come back. */
    bool keyed;
    uint32_t life_count;
    uint32_t first; /* the first content that was written to them */
};

/* One process. */
struct crash_life {
    uint32_t engine, progress; /* as in kvblock.h */
    bool host;                 /* a host tier between device and disk */
    bool wide;                 /* lanes as they are by default, full of writes. Else a few */
    bool start_empty;
    bool clears;          /* once, in the middle */
    bool closes;          /* destroys the manager at the end, if nobody kills it before */
    uint32_t batch_count; /* of writing */
    uint32_t first, next; /* contents to look for: [first, next); new ones begin at next */
    uint32_t last;        /* no content from here on: the files have no room */
    uint64_t seed;
};

/* When the parent kills: `delay_ns` after the `count`-th message of that kind, or of CRASH_FULL. */
struct crash_kill {
    uint32_t kind; /* enum crash_kind */
    uint32_t count;
    uint64_t delay_ns;
};

/*
 * What the worker tells, in the order in which it happens. Eight bytes: written whole or not at
 * all.
 */
enum crash_kind {
    CRASH_BEGUN,    /* by the parent itself: the process exists */
    CRASH_BUSY,     /* the files were still in use: tried again */
    CRASH_OPENED,   /* the manager exists */
    CRASH_FOUND,    /* after opening: content `number` is there, and every byte right */
    CRASH_WRONG,    /* it was served with a wrong byte */
    CRASH_CHECKED,  /* nothing else is there */
    CRASH_BEGINS,   /* content `number` exists in memory from here on */
    CRASH_INTENT,   /* admitted: progress is about to write it, into a slot that may hold another */
    CRASH_STORED,   /* the event: it is on the disk */
    CRASH_REMOVED,  /* the event: it is not any more */
    CRASH_REPLACED, /* the content that took its key is on the disk */
    CRASH_IDLE,     /* every write is over, every event so far delivered */
    CRASH_CLEARING, /* kvb_manager_clear is about to be called */
    CRASH_CLEARED,  /* it has returned */
    CRASH_FULL,     /* the worker has nothing more to write, and waits to be killed */
    CRASH_CLOSING,  /* kvb_manager_destroy is about to be called */
    CRASH_CLOSED,   /* it has returned */
    CRASH_KINDS
};

struct crash_message {
    uint32_t kind;
    uint32_t number;
};

/* splitmix64's finaliser (Vigna): no pattern between numbers. */
uint64_t crash_mix(uint64_t x);

/* The next number of a reproducible sequence, below `bound`. */
uint32_t crash_random(uint64_t *seed, uint32_t bound);

/* Under whose key the content is stored: its own, or that of an earlier one. */
uint32_t crash_key_of(const struct crash_files *files, uint32_t number);

void crash_tokens(uint32_t number, uint32_t tokens[CRASH_TOKENS]);

/* The bytes of a content: the words of one never equal those of another, at any offset. */
uint64_t crash_word(uint32_t number, size_t index);

/* The child's whole life: never returns. */
void crash_worker(const struct crash_files *files, const struct crash_life *life, int pipe);

/* Whether this machine has this engine for these files, which are made. */
bool crash_engine_works(const struct crash_files *files, uint32_t engine);

#endif
