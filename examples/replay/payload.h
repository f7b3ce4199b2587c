/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block of the replay holds: its tokens and its bytes, both fixed functions of the trace's
 * hash id.
 *
 * Equal ids imply equal prefixes in a trace, so the id names everything that a block's KV depends
 * on. Nothing here comes from the library: a hash, an index entry or a copy that is wrong leads to
 * bytes that do not verify.
 */
#ifndef REPLAY_PAYLOAD_H
#define REPLAY_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#define REPLAY_TOKENS_PER_BLOCK 512

/*
 * The tokens of block `id`: REPLAY_TOKENS_PER_BLOCK of them. Different ids never give equal tokens.
 */
void replay_tokens(uint64_t id, uint32_t *tokens);

/*
 * A piece of block `id`'s bytes, starting at its 64-bit word number `first_word`. `bytes` is a
 * multiple of 8, `memory` is aligned to 8. verify returns 1 if every bit is as fill would write it.
 */
void replay_payload_fill(uint64_t id, uint64_t first_word, void *memory, size_t bytes);
int replay_payload_verify(uint64_t id, uint64_t first_word, const void *memory, size_t bytes);

#endif
