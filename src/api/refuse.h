/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refuse - every error that a public function returns says in the log what is wrong
 *
 * Owns       the list of the public functions that can refuse, which of their errors are answers
 *            (struct kvbi_refusals counts both), the limit of lines, and how calls on arrays
 *            collect their results.
 * Callers    api/ only, any thread, with no lock held where a line is written: the logger is the
 *            caller's code.
 * Rules      A refusal is an error that no waiting helps: KVB_LOG_WARN. An answer is one that a
 *            right program meets at run time (no room, not yet, gone, not there): KVB_LOG_DEBUG,
 *            with lines of its own, so that a storm of answers hides no refusal.
 *            KVBI_LINES_A_SECOND of each a function, by the manager's clock; the first line of a
 *            later second says how many were left out. A NULL manager has no logger; a child after
 *            fork does not call it, since a thread that the child does not have may hold what the
 *            logger needs.
 * Lock       none: a function's limit is one atomic word. Nothing here runs where a call succeeds,
 *            but for kvbi_note.
 */
#ifndef KVBI_API_REFUSE_H
#define KVBI_API_REFUSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/why.h"
#include "block/lifecycle.h"

/* A bit for each error code, from KVB_EINVAL on. */
#define KVBI_CODE(code) (1u << -(code))

/* Not now, or not any more; never the caller's mistake, except where the list below says so. */
#define KVBI_ANSWERS                                                                               \
    (KVBI_CODE(KVB_ENOSPC) | KVBI_CODE(KVB_EAGAIN) | KVBI_CODE(KVB_ESTALE) |                       \
     KVBI_CODE(KVB_ECANCELED) | KVBI_CODE(KVB_ETIMEDOUT) | KVBI_CODE(KVB_ECOLLISION) |             \
     KVBI_CODE(KVB_EDEVICE))
#define KVBI_ASKS_WHETHER (KVBI_ANSWERS | KVBI_CODE(KVB_ENOENT)) /* the call is also a question */
#define KVBI_ASKS_OFFER (KVBI_ANSWERS | KVBI_CODE(KVB_EBUSY))

/* Function, name, which of its errors are answers. */
#define KVBI_CALL_MAP(X)                                                                           \
    X(MANAGER_DESTROY, "kvb_manager_destroy", KVBI_ANSWERS)                                        \
    X(MANAGER_POLL, "kvb_manager_poll", KVBI_ANSWERS)                                              \
    X(MANAGER_EVENT_FD, "kvb_manager_event_fd", KVBI_ANSWERS)                                      \
    X(MANAGER_NEXT_TIMEOUT, "kvb_manager_next_timeout", KVBI_ANSWERS)                              \
    X(MANAGER_FLUSH, "kvb_manager_flush", KVBI_ANSWERS)                                            \
    X(TIER_MEMORY, "kvb_tier_memory", KVBI_ANSWERS)                                                \
    X(FENCE_SIGNAL, "kvb_fence_signal", KVBI_ANSWERS)                                              \
    X(NAMESPACE_OPEN, "kvb_namespace_open", KVBI_ANSWERS)                                          \
    X(HASH_TOKENS, "kvb_hash_tokens", KVBI_ANSWERS)                                                \
    X(ALLOC, "kvb_alloc", KVBI_ANSWERS)                                                            \
    X(BLOCK_REF, "kvb_block_ref", KVBI_ANSWERS)                                                    \
    X(BLOCK_UNREF, "kvb_block_unref", KVBI_ANSWERS)                                                \
    X(BLOCK_WEAK, "kvb_block_weak", KVBI_ANSWERS)                                                  \
    X(WEAK_UPGRADE, "kvb_weak_upgrade", KVBI_ANSWERS)                                              \
    X(BLOCK_INIT, "kvb_block_init", KVBI_ANSWERS)                                                  \
    X(BLOCK_APPEND, "kvb_block_append", KVBI_ANSWERS & ~KVBI_CODE(KVB_ENOSPC))                     \
    X(BLOCK_SCHEDULE, "kvb_block_schedule", KVBI_ANSWERS)                                          \
    X(BLOCK_CANCEL, "kvb_block_cancel", KVBI_ANSWERS)                                              \
    X(BLOCK_COMPUTE_DONE, "kvb_block_compute_done", KVBI_ANSWERS)                                  \
    X(BLOCK_COMPUTE_FAILED, "kvb_block_compute_failed", KVBI_ANSWERS)                              \
    X(BLOCK_TRUNCATE, "kvb_block_truncate", KVBI_ANSWERS)                                          \
    X(BLOCK_RESET, "kvb_block_reset", KVBI_ANSWERS)                                                \
    X(BLOCK_CLONE, "kvb_block_clone", KVBI_ASKS_WHETHER)                                           \
    X(BLOCK_REGISTER, "kvb_block_register", KVBI_ANSWERS)                                          \
    X(BLOCK_SET_PRIORITY, "kvb_block_set_priority", KVBI_ANSWERS)                                  \
    X(BLOCK_DESCRIBE, "kvb_block_describe", KVBI_ANSWERS)                                          \
    X(BLOCK_KEY, "kvb_block_key", KVBI_ASKS_WHETHER)                                               \
    X(BLOCK_ADDRESS, "kvb_block_address", KVBI_ANSWERS)                                            \
    X(MATCH, "kvb_match", KVBI_ANSWERS)                                                            \
    X(LOOKUP, "kvb_lookup", KVBI_ANSWERS)                                                          \
    X(INVALIDATE, "kvb_invalidate", KVBI_ASKS_WHETHER)                                             \
    X(INVALIDATE_NAMESPACE, "kvb_invalidate_namespace", KVBI_ANSWERS)                              \
    X(INDEX_WALK, "kvb_index_walk", KVBI_ANSWERS)                                                  \
    X(PIN, "kvb_pin", KVBI_ANSWERS)                                                                \
    X(UNPIN, "kvb_unpin", KVBI_ANSWERS)                                                            \
    X(UNPIN_ALL, "kvb_unpin_all", KVBI_ANSWERS)                                                    \
    X(BLOCK_OFFLOAD, "kvb_block_offload", KVBI_ASKS_OFFER)                                         \
    X(BLOCK_OFFLOAD_CANCEL, "kvb_block_offload_cancel", KVBI_ASKS_OFFER | KVBI_ASKS_WHETHER)       \
    X(ONBOARD, "kvb_onboard", KVBI_ANSWERS)                                                        \
    X(OP_TAKE, "kvb_op_take", KVBI_ANSWERS)                                                        \
    X(OP_WAIT, "kvb_op_wait", KVBI_ANSWERS)                                                        \
    X(OP_WAIT_STREAM, "kvb_op_wait_stream", KVBI_ANSWERS)                                          \
    X(OP_CANCEL, "kvb_op_cancel", KVBI_ANSWERS)                                                    \
    X(OP_RELEASE, "kvb_op_release", KVBI_ANSWERS)                                                  \
    X(MANAGER_STATS, "kvb_manager_stats", KVBI_ANSWERS)                                            \
    X(DISK_STATS, "kvb_disk_stats", KVBI_ANSWERS)                                                  \
    X(DISK_PUT_BACK, "kvb_disk_put_back", KVBI_ASKS_OFFER & ~KVBI_CODE(KVB_ENOSPC))

enum kvbi_call {
#define KVBI_CALL_ENUM(name, text, answers) KVBI_CALL_##name,
    KVBI_CALL_MAP(KVBI_CALL_ENUM)
#undef KVBI_CALL_ENUM
        KVBI_CALL_COUNT
};

/* Said of calls that wait for progress. */
#define KVBI_IN_CALLBACK "called from a callback, whose return it would wait for"

/* Said of calls that would hand out a handle, or start something. */
#define KVBI_CLOSING "the manager is being destroyed: nothing is handed out or started any more"

#define KVBI_LINES_A_SECOND 16

/*
 * Lines of one function in one second: second 32 bits | lines 8 | left out 24, where it stays once
 * full.
 */
struct kvbi_line_limit {
    _Atomic uint64_t word;
};

/* All zero is right. */
struct kvbi_refusals {
    struct kvbi_line_limit refused[KVBI_CALL_COUNT], answered[KVBI_CALL_COUNT];
};

/*
 * May one more line be written in this second? Then *left_out: how many were not, since the last
 * that was.
 */
bool kvbi_line_limit_pass(struct kvbi_line_limit *limit, uint64_t now_ns, uint32_t *left_out);

/*
 * One line, "function: words", at the level that the function's list has for the code. Returns
 * `code`. No lock held.
 */
int kvbi_refuse(struct kvb_manager *manager, enum kvbi_call call, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* NULL where something must be: "name is NULL". 0 or KVB_EINVAL. */
int kvbi_refuse_null(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                     const void *pointer);

/* A struct that the function fills in, whose `size` must be set. 0 or KVB_EINVAL. */
int kvbi_refuse_out(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                    const char *type, const void *out, size_t known);

/* ---- Calls on arrays ------------------------------------------------------------------------- */

/*
 * The results of a call on an array, and the words of the one element that its line is about: the
 * first that was refused, or, if none was, the first that got an answer.
 */
struct kvbi_roll {
    struct kvb_manager *manager;
    const char *array; /* what the elements are called */
    int *results;      /* or NULL */
    uint32_t count;    /* KVBI_ALONE: `array` is one thing */
    uint32_t failed;
    int first; /* the first error in array order: what the call returns */
    uint32_t first_at;
    int told; /* the error that the line is about */
    uint32_t told_at;
    enum kvbi_call call;
    struct kvbi_why why; /* of told_at; empty: not said yet */
};

#define KVBI_ALONE UINT32_MAX

/* Field by field: the words are left as they are but for their end, since most calls have none. */
static inline void kvbi_roll_begin(struct kvbi_roll *roll, struct kvb_manager *manager,
                                   enum kvbi_call call, const char *array, uint32_t count,
                                   int *results)
{
    roll->manager = manager;
    roll->array = array;
    roll->results = results;
    roll->count = count;
    roll->failed = 0;
    roll->first = roll->told = 0;
    roll->first_at = roll->told_at = UINT32_MAX;
    roll->call = call;
    roll->why.text[0] = '\0';
}

void kvbi_roll_fail(struct kvbi_roll *roll, uint32_t i, int code);

/* Notes one element's result. Elements may come in any order. */
static inline void kvbi_note(struct kvbi_roll *roll, uint32_t i, int code)
{
    if (roll->results != NULL)
        roll->results[i] = code;
    if (__builtin_expect(code != 0, 0))
        kvbi_roll_fail(roll, i, code);
}

/*
 * What is wrong with element i, before or after kvbi_note; kept if the line will be about it.
 * "array[i]: words", with the block's place if there is one. Returns `code`.
 */
int kvbi_roll_why(struct kvbi_roll *roll, uint32_t i, int code, const struct kvb_block *block,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The same of a block that no one holds, or that is none of the manager's. Returns KVB_EINVAL. */
int kvbi_roll_not_held(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block);

/*
 * The same of a block that refuses an edge: not held, shared, or not in a state that allows it.
 * Returns `code`.
 */
int kvbi_roll_edge(struct kvbi_roll *roll, uint32_t i, int code, const struct kvb_block *block,
                   enum kvbi_edge edge);

/* Is the line about an element of which nothing has been said? Then of roll->told_at. */
static inline bool kvbi_roll_unexplained(const struct kvbi_roll *roll)
{
    return roll->told != 0 && roll->why.text[0] == '\0';
}

int kvbi_roll_tell(struct kvbi_roll *roll);

/*
 * Ends the call: writes its line if there is something to tell. No lock held. Returns the first
 * error in array order.
 */
static inline int kvbi_roll_end(struct kvbi_roll *roll)
{
    return roll->failed == 0 ? 0 : kvbi_roll_tell(roll);
}

/*
 * For a block alone (KVBI_ALONE), whose call ends with this refusal: "name (place): it is held by
 * nobody", and so on.
 */
int kvbi_refuse_not_held(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                         const struct kvb_block *block);

#endif
