/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one line that a refused call leaves in the log, on top of kv_test.h.
 *
 *     refuses(&rig, kvb_block_cancel(kv, &block, 1, NULL), KVB_ESTATE, "cancel is not allowed in
 *     Empty"); answers(&rig, kvb_op_take(kv, op, blocks, 1, &good), KVB_EAGAIN, "not finished");
 *
 * The line begins with the function's name, and its level says which of the two it is. Each call
 * has a second of its own, so that none is left out.
 */
#ifndef KVB_TEST_REFUSAL_H
#define KVB_TEST_REFUSAL_H

#include "support/kv_test.h"

void refusal_check(const char *file, int line, const struct kv_log *log, size_t before, int got,
                   int code, int level, const char *call, const char *words);

#define refusal_expect(rig, call, code, level, words)                                              \
    do {                                                                                           \
        size_t before_ = (rig)->log.count;                                                         \
        kv_advance((rig), KV_SECOND);                                                              \
        int got_ = (call);                                                                         \
        refusal_check(__FILE__, __LINE__, &(rig)->log, before_, got_, (code), (level), #call,      \
                      (words));                                                                    \
    } while (0)

#define refuses(rig, call, code, words) refusal_expect(rig, call, code, KVB_LOG_WARN, words)
#define answers(rig, call, code, words) refusal_expect(rig, call, code, KVB_LOG_DEBUG, words)

#endif
