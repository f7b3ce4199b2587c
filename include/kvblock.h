/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvblock - KV-cache blocks for LLM inference servers
 *
 * The server owns compute: it runs prefill and decode and owns the page table that its attention
 * kernels read. kvblock owns the rest about KV-cache blocks: which block holds which tokens, who
 * uses it, in which tiers its bytes are (GPU, host memory, ...), and moving them, so that the
 * fastest tier always has room and a prefix once computed is found again.
 *
 * Three promises: wrong bytes are never served (a block is findable only after its transfer
 * succeeded; every error on the way is a miss); the server never waits for the cache (only create,
 * destroy, clear, flush and kvb_op_wait may block); it embeds (no globals, environment variables,
 * signals, abort or printf; allocator, clock, logger and events are yours).
 *
 * ---- A program ----------------------------------------------------------------------------------
 *
 * examples/quickstart.c, whole:
 *
 *     // One sequence through kvblock: prefilled, registered, offloaded, evicted, found again and
 *     // brought back.
 *     #include <kvblock.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *     #include <string.h>
 *
 *     #define CALL(call) check((call), #call)
 *     static void check(int code, const char *call)
 *     {
 *         if (code)
 *             exit(fprintf(stderr, "%s: %s\n", call, kvb_strerror(code)) ? 1 : 2);
 *     }
 *
 *     enum {
 *         BLOCK_TOKENS = 16,
 *         BLOCKS = 4,
 *         PROMPT_TOKENS = BLOCKS * BLOCK_TOKENS,
 *         DEVICE_BLOCKS = 8,
 *         BLOCK_BYTES = 8192
 *     };
 *
 *     int main(void)
 *     {
 *         // 8 blocks of "GPU" memory above 32 of host memory; to keep it short, a block is one
 *         // chunk.
 *         struct kvb_layout layout = {
 *             .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = BLOCK_BYTES};
 *         struct kvb_tier_config tiers[] = {
 *             {.size = sizeof *tiers, .tier = KVB_TIER_DEVICE, .block_count = DEVICE_BLOCKS},
 *             {.size = sizeof *tiers, .tier = KVB_TIER_HOST, .block_count = 32}};
 *         struct kvb_config config = {
 *             .size = sizeof config, .tokens_per_block = BLOCK_TOKENS, .layout = &layout};
 *         config.tiers = tiers, config.tier_count = 2;
 *         struct kvb_manager *kv;
 *         CALL(kvb_manager_create(&config, &kv, NULL));
 *
 *         // A prompt, and the names of its blocks: each covers its own tokens and everything
 *         // before them.
 *         uint32_t prompt[PROMPT_TOKENS], good;
 *         for (uint32_t i = 0; i < PROMPT_TOKENS; i++)
 *             prompt[i] = 1000 + i;
 *         struct kvb_seq seqs[BLOCKS];
 *         size_t count;
 *         CALL(kvb_hash_tokens(kv, 0, NULL, prompt, PROMPT_TOKENS, seqs, BLOCKS, &count));
 *
 *         // Prefill. Nothing is cached yet, so every block is new: name its tokens, launch the
 *         // step, let it write.
 *         struct kvb_block *blocks[BLOCKS], *sources[BLOCKS], *others[DEVICE_BLOCKS];
 *         void *bytes, *expected = (char[BLOCK_BYTES]){0};
 *         CALL(kvb_alloc(kv, KVB_TIER_DEVICE, BLOCKS, NULL, blocks, NULL));
 *         for (uint32_t i = 0; i < BLOCKS; i++) {
 *             // a server passes arrays to these calls, one call for all blocks
 *             struct kvb_block_init init = {
 *                 .size = sizeof init, .position = i, .parent = i ? &seqs[i - 1] : NULL};
 *             struct kvb_append append = {.size = sizeof append, .count = BLOCK_TOKENS};
 *             append.tokens = prompt + i * BLOCK_TOKENS;
 *             CALL(kvb_block_init(kv, &blocks[i], &init, 1, NULL));
 *             CALL(kvb_block_append(kv, &blocks[i], &append, 1, NULL));
 *             CALL(kvb_block_schedule(kv, &blocks[i], 1, NULL));
 *             CALL(kvb_block_address(kv, blocks[i], 0, 0, &bytes));
 *             memset(bytes, 'a' + (int)i, BLOCK_BYTES); // the forward pass
 *             CALL(kvb_block_compute_done(kv, &blocks[i], &append.taken, 1, NULL, NULL));
 *         }
 *         // findable from here on, and offered to the host
 *         CALL(kvb_block_register(kv, blocks, BLOCKS, NULL, NULL, NULL));
 *         CALL(kvb_block_unref(kv, blocks, BLOCKS, NULL)); // parked: evictable, still findable
 *         // a server need not wait; here we want to see it
 *         CALL(kvb_manager_flush(kv, KVB_FOREVER));
 *
 *         // Other requests take the whole device tier: the prompt is evicted there. Its copies in
 *         // host memory stay.
 *         CALL(kvb_alloc(kv, KVB_TIER_DEVICE, DEVICE_BLOCKS, NULL, others, NULL));
 *         CALL(kvb_block_unref(kv, others, DEVICE_BLOCKS, NULL));
 *
 *         // The prompt comes again: find it, bring it up into new blocks, look at every byte.
 *         struct kvb_query query = {.size = sizeof query, .tokens = prompt};
 *         query.token_count = PROMPT_TOKENS;
 *         struct kvb_hit hits[BLOCKS];
 *         CALL(kvb_match(kv, &query, hits, BLOCKS, &count));
 *         // all of tier HOST here; hits of tier DEVICE would be used as they are
 *         for (size_t i = 0; i < count; i++)
 *             sources[i] = hits[i].block;
 *         CALL(kvb_alloc(kv, KVB_TIER_DEVICE, BLOCKS, NULL, blocks, NULL));
 *         struct kvb_onboard up = {
 *             .size = sizeof up, .sources = sources, .targets = blocks, .count = (uint32_t)count};
 *         struct kvb_op *op;
 *         CALL(kvb_onboard(kv, &up, &op));
 *         CALL(kvb_op_wait(kv, op, KVB_FOREVER)); // or poll, or take a callback
 *         // blocks[0, good) hold the prefix, others are to be computed
 *         CALL(kvb_op_take(kv, op, blocks, up.count, &good));
 *         CALL(kvb_op_release(kv, op));
 *         for (uint32_t i = 0; i < good; i++) {
 *             CALL(kvb_block_address(kv, blocks[i], 0, 0, &bytes));
 *             memset(expected, 'a' + (int)i, BLOCK_BYTES);
 *             CALL(memcmp(bytes, expected, BLOCK_BYTES) ? KVB_ECORRUPT : KVB_OK);
 *         }
 *         printf("found %zu of %d blocks in host, %u came back right\n", count, BLOCKS, good);
 *         CALL(kvb_block_unref(kv, sources, up.count, NULL));
 *         CALL(kvb_block_unref(kv, blocks, BLOCKS, NULL));
 *         CALL(kvb_manager_destroy(kv));
 *         return good == BLOCKS ? 0 : 1;
 *     }
 *
 * ---- The life of a block ------------------------------------------------------------------------
 *
 *  (alloc) -> Empty --init--> Partial <--append, more to come, space remains--+
 *                              |  ^ ^ +----------------------------------------+
 *               append, done   |  | +-------- compute_done, not full ----+
 *               or now full    v  | cancel                               |
 *                      ReadyForScheduling --schedule--> Inflight --------+
 *                                 ^                       |              v compute_done, full
 *                                 +----compute_failed-----+         Complete -register-> Registered
 *
 *  call \ state   Empty    Partial           Ready     Inflight              Complete    Registered
 *  init           Partial  -                 -         -                     -           -
 *  append         -        Partial or Ready  -         Inflight (tokens of   -           -
 *                                                      the next step)
 *  schedule       -        -                 Inflight  Inflight (one step    -           -
 *                                                      more)
 *  cancel         -        -                 Partial   -                     -           -
 *  compute_done   -        -                 -         Inflight, Partial or  -           -
 *                                                      Complete
 *  compute_failed -        -                 -         Ready (with the last  -           -
 *                                                      step)
 *  truncate       -        Partial           Partial   -                     Partial     -
 *  register       -        -                 -         -                     Registered  -
 *  reset          Empty    Empty             Empty     -                     Empty       (evicted)
 *
 *  A dash is KVB_ESTATE and changes nothing. A block knows token_count (tokens named) and
 *  computed_count (tokens whose KV exists); it is full when both equal tokens_per_block. Registered
 *  blocks are immutable and shared.
 *
 * ---- Threads ------------------------------------------------------------------------------------
 *
 *  Every function may be called from any thread at any time, except: kvb_manager_poll (the thread
 *  of its first call), kvb_manager_destroy (once, when no other call is running). An unregistered
 *  block is moved by its sole holder only; two threads that move the same block at the same time
 *  are a bug of the caller (KVB_ESHARED where it can be seen). `done`, events, log messages and
 *  admission run with no lock held. Allocator and clock may run under locks and must not call back
 *  into the library.
 *
 * ---- Conventions --------------------------------------------------------------------------------
 *
 *  - Functions return 0 or a negative KVB_E... code. On an error nothing has changed and
 *    out-parameters are cleared, unless the function says otherwise.
 *  - Calls on arrays treat every element on its own. `results` (may be NULL) gets one code an
 *    element; the return value is the first error in array order, 0 if there is none. count == 0
 *    does nothing and returns 0. An error of the call as a whole (a NULL array, an unknown fence,
 *    owner 0) leaves `results` alone. At most 64 blocks are handled under one hold of the library's
 *    lock.
 *  - A NULL manager, or NULL where an array of count > 0 is expected, is KVB_EINVAL, as is a block
 *    that is not one of this manager's (recognised by address, never dereferenced) or that nobody
 *    holds. This holds for every function below and is not repeated there. Neither is KVB_EFORK: a
 *    child after fork(2) gets it from every call; the parent is unaffected.
 *  - Every struct that begins with `size` must have it set to sizeof. Zero in any other field means
 *    the default. A tail that this version does not know must be zero (KVB_EINVAL) in a struct that
 *    the caller fills; of one that the library fills, the part that it knows is written. In an
 *    array of such structs the first one's size is the distance from one to the next. Value types
 *    (kvb_seq, kvb_weak, kvb_fence, kvb_hit) have no size and do not change within a minor version.
 *  - Strong handles are `struct kvb_block *`: counted references that pin one copy of one content
 *    in one tier. "Takes over" means the callee owns the reference after a return of 0; "hands out"
 *    means the caller owns one more.
 *  - Times are nanoseconds: of the injected clock, but for how long flush and kvb_op_wait wait,
 *    which is real time. Sizes are bytes, priorities 0 (evicted first) to 100.
 *
 * ---- Caveats ------------------------------------------------------------------------------------
 *
 *  - A match by keys alone (no tokens in the query) trusts whoever made the keys. Give tokens
 *    wherever tenants share a manager: then namespace, the whole prefix (by a 128-bit digest) and
 *    this block's tokens are compared. (struct kvb_query says what is compared of a block under the
 *    caller's key that was registered before its parent.)
 *  - Unregistered blocks at their last unref are reset and their content is gone. Register first.
 *  - An unindexed duplicate (KVB_DUPLICATE_KEEP) is reset, not parked, at its last unref.
 *  - With KVB_PROGRESS_POLL nothing moves unless the caller polls.
 *  - KVB_TIER_DEVICE lives in host memory that stands in for a GPU's unless its memory_kind is
 *    KVB_MEMORY_CUDA.
 *  - What the disk tier holds survives restarts, kill -9 and, but for the last seconds, power
 *    failures. What does not: the invalidation of single keys and namespaces (kvb_manager_clear
 *    does), pins, retention, and tokens in events.
 */
#ifndef KVBLOCK_H
#define KVBLOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVB_VERSION_MAJOR 0
#define KVB_VERSION_MINOR 1
#define KVB_VERSION_PATCH 0

#if defined(__GNUC__)
#define KVB_NODISCARD __attribute__((warn_unused_result))
#define KVB_API __attribute__((visibility("default")))
#else
#define KVB_NODISCARD
#define KVB_API
#endif

/* ---- Errors ---------------------------------------------------------------------------------- */

/*
 * Every error is told to the logger in one line, whose words struct kvb_logger describes. A
 * refusal, which no waiting would have helped, is a KVB_LOG_WARN; an answer, which a correct
 * program gets at run time, is a KVB_LOG_DEBUG: KVB_EAGAIN, KVB_ENOSPC (but of tokens for a full
 * block, and of a disk tier's files), KVB_ESTALE, KVB_ECANCELED, KVB_ETIMEDOUT, KVB_ECOLLISION,
 * KVB_EDEVICE, KVB_ENOENT of clone, block_key, invalidate and offload_cancel, KVB_EBUSY of offload,
 * offload_cancel and put_back. What a file failed with in kvb_manager_clear is a KVB_LOG_ERROR.
 */

/* Code, number, text. Numbers are stable: they may be stored and sent. */
#define KVB_ERROR_MAP(X)                                                                           \
    X(EINVAL, -1, "invalid argument")                                                              \
    X(ESTATE, -2, "not allowed in this state")                                                     \
    X(ESHARED, -3, "block has other holders")                                                      \
    X(ENOMEM, -4, "the allocator failed")                                                          \
    X(ENOSPC, -5, "no space left")                                                                 \
    X(EAGAIN, -6, "not now, try again")                                                            \
    X(ENOENT, -7, "not found")                                                                     \
    X(ESTALE, -8, "the content is gone")                                                           \
    X(EBUSY, -9, "in use")                                                                         \
    X(ECANCELED, -10, "cancelled")                                                                 \
    X(ETIMEDOUT, -11, "timed out")                                                                 \
    X(EIO, -12, "input/output error")                                                              \
    X(ECORRUPT, -13, "content failed verification")                                                \
    X(EMISMATCH, -14, "does not match what is stored")                                             \
    X(ECOLLISION, -15, "the hash is taken by other content")                                       \
    X(EUNSUPPORTED, -16, "not supported here")                                                     \
    X(ETHREAD, -17, "wrong thread")                                                                \
    X(EFORK, -18, "called in a child after fork")                                                  \
    X(EDEADLK, -19, "called from a callback that it would wait for")                               \
    X(EDEVICE, -20, "the device failed")

enum kvb_error {
#define KVB_ERROR_ENUM(name, number, text) KVB_##name = number,
    KVB_ERROR_MAP(KVB_ERROR_ENUM)
#undef KVB_ERROR_ENUM
        KVB_OK = 0
};

/*
 * kvb_strerror - the text of a code. Static storage, never NULL; "unknown error" for other numbers,
 * "success" for 0.
 */
KVB_API const char *kvb_strerror(int code);

/*
 * kvb_error_name - the name of a code, as in "KVB_EINVAL". Static storage, never NULL;
 * "KVB_UNKNOWN", "KVB_OK" for 0.
 */
KVB_API const char *kvb_error_name(int code);

/* kvb_version - the library's version at run time as "major.minor.patch". Static storage. */
KVB_API const char *kvb_version(void);

/* ---- Types ----------------------------------------------------------------------------------- */

struct kvb_manager;
struct kvb_block; /* a strong handle: always counted, never dereferenced by the caller */
struct kvb_op;    /* an onboarding under way */

#define KVB_FOREVER UINT64_MAX
#define KVB_PRIORITY_MAX 100
/*
 * Blocks start with this priority, and fall back to it when their retention ends (TensorRT-LLM's
 * default as well).
 */
#define KVB_PRIORITY_DEFAULT 35
#define KVB_KEY_BYTES_MAX 64
#define KVB_TOKENS_PER_BLOCK_MAX 65535

/*
 * DEVICE and HOST lie in memory, DISK in files, REMOTE in a store beyond the machine. No store can
 * be given in this version: a REMOTE is refused (KVB_EUNSUPPORTED).
 */
enum kvb_tier { KVB_TIER_DEVICE = 0, KVB_TIER_HOST = 1, KVB_TIER_DISK = 2, KVB_TIER_REMOTE = 3 };
#define KVB_TIER_COUNT 4

enum kvb_state {
    KVB_STATE_EMPTY = 0,
    KVB_STATE_PARTIAL = 1,
    KVB_STATE_READY = 2,
    KVB_STATE_INFLIGHT = 3,
    KVB_STATE_COMPLETE = 4,
    KVB_STATE_REGISTERED = 5
};

/*
 * A sequence hash: names one full block's content and everything before it.
 * `hash` is NVIDIA Dynamo's sequence hash (chain of XXH3-64, salt and adapter folded in), good on
 * the wire and across processes. `digest` is a seeded 128-bit digest of the same chain, good within
 * this manager only: it tells apart contents whose `hash` collides. All-zero digest: not known;
 * whoever uses such a name is trusted.
 */
struct kvb_seq {
    uint64_t hash;
    uint64_t digest[2];
};

/*
 * A weak handle: pins nothing, may be copied and dropped freely. All-zero is a valid value that
 * never upgrades.
 */
struct kvb_weak {
    uint32_t tier;
    uint32_t slot;
    uint64_t generation;
};

/* One block found by kvb_match: a strong handle that the caller owns, and where that copy is. */
struct kvb_hit {
    struct kvb_block *block;
    uint32_t tier;
    uint32_t slot;
};

/*
 * A point in the server's stream of work. It is consumed in the call that takes it; nothing of the
 * caller's is kept.
 * KVB_FENCE_COUNTER: reached once kvb_fence_signal has been called for its `line` (0..63) with a
 * value >= handle, which is below 2^56. A line is a counter of its own: steps, a NIC and a CPU
 * copy, say, which do not end in one order. Blocks in any memory take it.
 * With a tier in CUDA memory, for its blocks (KVB_EUNSUPPORTED for those of other tiers, per
 * element where the call has elements):
 * KVB_FENCE_CUDA_STREAM: reached once everything is over that has been enqueued so far on the
 * cudaStream_t in `handle`, of the tier's GPU. It may be a default stream: 0 and cudaStreamLegacy
 * are the legacy one of the tier's GPU, whatever the caller is compiled for, and a point there
 * comes after all that the blocking streams have been given so far; cudaStreamPerThread is the
 * calling thread's.
 * KVB_FENCE_CUDA_EVENT: reached once what the cudaEvent_t in `handle` was last recorded after is
 * over.
 * The call records an event of the library's own, or makes a stream of its own wait, and never
 * synchronises. A call with such a fence returns KVB_EINVAL, having changed nothing, while the
 * stream is being captured into a graph, or with the legacy stream any blocking one (the log says
 * so, and the capture goes on; an event that was recorded in a capture must not be given),
 * KVB_EAGAIN if 1024 such fences are not reached (those of pairs, below, among them), or 256 that
 * are events, KVB_EDEVICE once the GPU has failed. What waits for a fence also waits for those that
 * were given with the same stream before it, and for no others. (All events are as one stream here,
 * and so are streams beyond 61 whose fences are not reached.)
 * A fence belongs to the memory: transfers out of a block's slot and into it wait for all that it
 * was given, of whatever kinds and lines, whoever has the slot by then. Where it was given
 * two that are not reached, of different streams or lines, it may wait for other such slots' pairs
 * as well, those of slots that are free by now among them: a server that will not signal a counter
 * as far as it has named it signals it all the same. A content may be evicted or invalidated, and
 * its slot taken by a lane, before its fence is reached.
 * Where a fence pointer is NULL or its kind is KVB_FENCE_NONE, the point is already reached.
 */
enum kvb_fence_kind {
    KVB_FENCE_NONE = 0,
    KVB_FENCE_COUNTER = 1,
    KVB_FENCE_CUDA_STREAM = 2,
    KVB_FENCE_CUDA_EVENT = 3
};
struct kvb_fence {
    uint32_t kind;
    uint32_t line; /* of a counter: 0..63; else 0 */
    uint64_t handle;
};

/* ---- What the caller injects ----------------------------------------------------------------- */

/*
 * alloc returns memory aligned to `alignment` (a power of two) or NULL; free gets the size that
 * alloc got. Contents need not be zeroed. May run under the library's locks: must not call back.
 * Used at create, kvb_namespace_open and destroy only; serving calls never allocate. Both NULL: the
 * library's own (mmap for large pieces).
 */
struct kvb_allocator {
    void *(*alloc)(void *context, size_t bytes, size_t alignment);
    void (*free)(void *context, void *memory, size_t bytes);
    void *context;
};

/*
 * Monotonic nanoseconds. A step back adds nothing: time goes on from there. NULL: CLOCK_MONOTONIC.
 * The manager's own thread sleeps until the next deadline as if this clock ran in real time: one
 * that jumps ahead should be followed by any call.
 */
struct kvb_clock {
    uint64_t (*now_ns)(void *context);
    void *context;
};

/*
 * Messages are for people; programs use the codes. What a function returns as an error it tells in
 * one line: its name, the element ("blocks[3] (DEVICE/17)": index in the array, tier and slot), the
 * field or state, the value given, and what would be allowed. Of a call on an array the line is
 * about the first element that was refused, or if none was about the first that got an answer
 * (above, at the errors), and says how many there were. Refusals of one function are at most 16
 * lines in a second of the manager's clock, answers 16 more; the first line of a later second says
 * how many were left out. kvb_manager_create has no manager to count in, and tells the
 * configuration's logger each time. No line: for a NULL manager, for the status of a finished
 * operation, for KVB_EFORK (other threads' locks, the logger's too, may be held in the child for
 * ever), and for a kvb_config whose size is wrong, whose logger cannot be found (the diagnosis says
 * it).
 */
enum kvb_log_level { KVB_LOG_ERROR = 1, KVB_LOG_WARN = 2, KVB_LOG_INFO = 3, KVB_LOG_DEBUG = 4 };
struct kvb_logger {
    void (*log)(void *context, int level, int code, const char *message);
    void *context;
};

/*
 * What happened to copies, for routers. One event per (content, tier), in order of `sequence`,
 * *stored* always before *removed*; delivered by progress, one at a time, no lock held. Pointers
 * are valid during the call only.
 * KVB_EVENT_CLEARED: everything stored before is gone, from all tiers.
 * KVB_EVENT_LOST: the ring overflowed and `lost_count` events are missing here. What the receiver
 * knows is worth nothing until kvb_index_walk has shown it anew what there is. Nothing moves while
 * a sink runs, so a walk is refused there (KVB_EDEADLK): the sink only notes the loss, and a thread
 * of the server's walks in its own time, while events go on being delivered. Queue and picture
 * below are the server's; the queue holds as many events as its owner likes. queue_add copies the
 * key, the parent and the tokens too; what queue_take gives can be read until the next queue_take.
 *
 *     struct router {
 *         struct kvb_manager *kv;
 *         struct queue queue;     // copies of events, oldest first, under a lock of its own
 *         struct picture picture; // belongs to whoever takes turns
 *         atomic_bool lost;       // the picture is to be made anew
 *         bool one_thread;        // KVB_PROGRESS_POLL, and the thread that polls takes the turns
 *         uint32_t visits;
 *     };
 *
 *     static void deliver(void *context, const struct kvb_event *event)
 *     {
 *         struct router *router = context;
 *         if (event->kind == KVB_EVENT_LOST || !queue_add(&router->queue, event)) {
 *             queue_clear(&router->queue); // the walk will know what these say
 *             atomic_store(&router->lost, true);
 *         }
 *         queue_wake(&router->queue);
 *     }
 *
 *     static int visit(void *arg, const struct kvb_event *event)
 *     {
 *         struct router *router = arg;
 *         int left = 0;
 *         picture_put(&router->picture, event);
 *         if (router->one_thread && ++router->visits % 64 == 0)
 *             left = kvb_manager_poll(router->kv, 0); // else nothing moves until the walk is over
 *         return left < 0 ? left : 0;
 *     }
 *
 *     static int turn(struct router *router)
 *     {
 *         const struct kvb_event *event;
 *         int error = 0;
 *         if (atomic_exchange(&router->lost, false)) {
 *             picture_forget(&router->picture);
 *             error = kvb_index_walk(router->kv, visit, router); // events are queued meanwhile
 *         }
 *         if (error != 0) {
 *             atomic_store(&router->lost, true);
 *             queue_wake(&router->queue); // for another turn, if the server takes one
 *         }
 *         while (error == 0 && (event = queue_take(&router->queue)) != NULL)
 *             picture_apply(&router->picture, event);
 *         return error;
 *     }
 *
 * A thread waits for the queue and takes a turn, again and again; a server that polls takes its
 * turns between polls. picture_put and picture_apply go by the rule of kvb_index_walk: of two that
 * tell of one copy the greater sequence counts. However often events are lost during a walk, one
 * walk more follows it, and never two run at a time.
 */
enum kvb_event_kind {
    KVB_EVENT_STORED = 1,
    KVB_EVENT_REMOVED = 2,
    KVB_EVENT_CLEARED = 3,
    KVB_EVENT_LOST = 4
};
struct kvb_event {
    uint32_t size;
    uint32_t kind;
    uint64_t sequence;
    uint32_t tier;
    uint32_t namespace_id;
    const void *key; /* key_bytes long (struct kvb_seq if built in); NULL for CLEARED and LOST */
    const void *parent_key; /* NULL: a root block. With built-in hashes its digest is zero */
    const uint32_t *tokens; /* STORED: tokens_per_block of them if known; else NULL */
    uint32_t token_count;
    uint32_t lost_count; /* LOST only */
};
struct kvb_event_sink {
    void (*deliver)(void *context, const struct kvb_event *event);
    void *context;
};

/*
 * Asked once for every block that a lane is about to copy down. Non-zero: copy it. Runs in
 * progress, no lock held.
 */
struct kvb_admission_request {
    uint32_t size;
    uint32_t from_tier, to_tier;
    uint32_t namespace_id;
    uint32_t priority;
    uint32_t reserved;
    const void *key;
};
struct kvb_admission {
    int (*admit)(void *context, const struct kvb_admission_request *request);
    void *context;
};

/* ---- Configuration --------------------------------------------------------------------------- */

/*
 * How one block's bytes lie: layers x parts (K and V: 2, MLA: 1) x chunk_bytes. Block bytes = the
 * product, < 2^32. The strides say where the chunks lie in CUDA memory of the caller's: chunk
 * (block b, layer l, part p) begins at memory + b x block_stride + l x layer_stride + p x
 * part_stride, or where layer_memory is given at layer_memory[l] + b x block_stride + p x
 * part_stride. 0: next to each other, as in all other memory: block, layer, part. From the smallest
 * stride to the largest each must step over all that the smaller ones span: chunks never overlap.
 */
struct kvb_layout {
    uint32_t size;
    uint32_t layers;
    uint32_t parts;
    uint32_t reserved;
    uint64_t chunk_bytes;
    uint64_t layer_stride; /* bytes; these three only with a tier in CUDA memory of the caller's */
    uint64_t part_stride;
    uint64_t block_stride;
};

/*
 * What a tier's memory is. CUDA: of the GPU `device`; for KVB_TIER_DEVICE, in a library that was
 * built with CUDA.
 */
enum kvb_memory_kind { KVB_MEMORY_HOST = 0, KVB_MEMORY_CUDA = 1 };

/*
 * How bytes move between a GPU and pinned host memory. AUTO: what a calibration at create, which
 * begins no copy that cannot be expected to end within 30 ms, finds best for this layout, each way
 * (docs/gpu.md). RECT: 2D and 3D copies, where strides are uniform. KERNEL: a gather and scatter
 * kernel, down and up, where the library was built with it; it takes 8 of the GPU's multiprocessors
 * each way at most, never more than a sixteenth, and one at least. kvb_stats.engine says what was
 * chosen. What cannot be had is KVB_EUNSUPPORTED.
 */
enum kvb_copy_method {
    KVB_COPY_AUTO = 0,
    KVB_COPY_PLAIN = 1,
    KVB_COPY_RECT = 2,
    KVB_COPY_BATCH = 3,
    KVB_COPY_KERNEL = 4
};

/*
 * AUTO: io_uring if a ring works with this very file here, else threads with preadv and pwritev.
 * The log says which, and why.
 */
enum kvb_disk_engine {
    KVB_DISK_ENGINE_AUTO = 0,
    KVB_DISK_ENGINE_URING = 1,
    KVB_DISK_ENGINE_POSIX = 2
};
#define KVB_DISK_ERRORS_MAX 16

/*
 * When a block is offered to the lane below its tier. Default: ON_REGISTER for DEVICE, ON_COLD for
 * the others.
 */
enum kvb_trigger {
    KVB_OFFLOAD_DEFAULT = 0,
    KVB_OFFLOAD_ON_REGISTER = 1, /* write-through */
    KVB_OFFLOAD_ON_PARK = 2,     /* when its last user leaves */
    KVB_OFFLOAD_ON_COLD = 3,     /* when it enters the oldest tenth of its pool's eviction order */
    KVB_OFFLOAD_MANUAL = 4       /* kvb_block_offload only */
};

/* How the files of a disk tier are opened. */
enum kvb_disk_flags {
    /* forget what the files hold, whatever it is, as long as kvblock has written it */
    KVB_DISK_START_EMPTY = 1,
    /* a kvblock file that KVB_EMISMATCH would refuse starts empty instead */
    KVB_DISK_EMPTY_ON_MISMATCH = 2,
    /* no fallocate there: go on. Writes are slower, and fail when the file system is full */
    KVB_DISK_ALLOW_SPARSE = 4
};
#define KVB_DISK_PATHS_MAX 16

/*
 * One tier, and the lanes between it and the next lower tier of the configuration (ignored for
 * the lowest): trigger, on deck and queue are the offload lane's, batch and depth hold for it
 * and for the onboard lane back. An offload lane holds at most ondeck_capacity + batch x depth
 * blocks. A copy is ready once the fences of its source and of its target are reached. Others
 * take at most half of a lane's batch x depth, rounded down: so with batch 1 and depth 1 none.
 * The rest of them waits in front of the lane, an offer as a weak handle that counts for
 * queue_capacity, and whatever is ready passes them. Where a transfer may choose its target, it
 * takes one that is ready if it finds one.
 * memory NULL: block_count x block bytes come from the allocator. Else the caller's: at least that
 * much, aligned to 64, must outlive the manager.
 *
 * path, or paths, of which a DISK needs one: the blocks are kept in files (or block devices), block
 * b in file b % path_count, each slot padded to 4096 bytes; made if they are not there, mode 0600,
 * all of their space taken at once, one process at a time (one that was just killed is waited for,
 * up to a second). Direct I/O where the file system takes it. What a file holds is found again at
 * create, without reading payloads, in about the order of its last use. docs/disk-format.md
 * describes the file, docs/disk.md what is synced when and what a power failure may cost. A file of
 * another layout, model, tokens_per_block, key_bytes, version or digest_seed is refused by name
 * (KVB_EMISMATCH). With another block_count or other paths whatever fits is kept.
 *
 * Every block read is verified: length, identity, checksum of the payload. A block that cannot be
 * read, or is not as it was written, is a miss and is forgotten. Its slot is retired, for good,
 * after the second failure in a row; after one that the device reports, at once, as long as the
 * path goes on working. After KVB_DISK_ERRORS_MAX I/O errors in a row, of reads or writes, its path
 * is out of service: nothing is found or written there any more, *removed* is emitted for what it
 * held, the other paths and tiers go on, until kvb_disk_put_back. Content that fails verification
 * is no I/O error: a kill leaves some behind.
 *
 * memory_kind KVB_MEMORY_CUDA: blocks lie in memory of the GPU `device`: the manager's own (memory
 * NULL), or the caller's, at `memory` (memory_bytes of it) or one base a layer at layer_memory
 * (memory_bytes at each; bases further apart than what lies at them), as the layout's strides say.
 * Its addresses are the device's: the host must not follow them. It is checked once that it is
 * memory of that GPU and large enough. The caller's current device, default streams and pending
 * errors are left alone; no context is made on another GPU. The tier below in host memory is
 * pinned: in huge pages where the system gives them, by pin_threads threads in the background;
 * until a block is pinned its copies go through a small pinned buffer. Memory of the caller's that
 * is pinned already is used as it is. kvb_stats says how much is pinned, and how much could not be.
 * While the driver pins, launches of the whole process wait in it. So memory is pinned in pieces of
 * 32 to 64 MiB (more only where whole blocks on whole pages need it), and after each that took t
 * nothing is pinned for t x (100 - pin_duty_percent) / pin_duty_percent, by CLOCK_MONOTONIC: with
 * 50 half of the time is left to launches, with 100 piece follows piece. Destroy does not wait for
 * a pause, and unpins without any: it takes the same locks of the driver, piece by piece.
 * Once the GPU's context has failed, or the memory is gone, the tier is out of service: everything
 * there is a miss, *removed* is emitted, kvb_alloc there is KVB_EDEVICE, and the rest goes on.
 */
struct kvb_tier_config {
    uint32_t size;
    uint32_t tier; /* enum kvb_tier; each at most once, in ascending order */
    uint32_t block_count;
    uint32_t trigger;         /* enum kvb_trigger */
    uint32_t ondeck_capacity; /* blocks; default 64, 1..65536 */
    uint32_t batch;           /* blocks a batch; default 32, 1..64 */
    /* batches with the engine at once; default 2, above a tier in a file 4; 1..64 */
    uint32_t depth;
    uint32_t queue_capacity; /* weak handles in the in-queue; default 65536, 1..2^24 */
    void *memory;
    uint64_t memory_bytes;
    /* KVB_TIER_DISK, the lowest tier: the file that holds its blocks. It has this, or paths. */
    const char *path;
    uint32_t disk_engine;     /* enum kvb_disk_engine */
    uint32_t disk_flags;      /* enum kvb_disk_flags, or-ed */
    const char *const *paths; /* several files instead of one */
    uint32_t path_count;      /* 0, or 1..KVB_DISK_PATHS_MAX, none with fewer than one block */
    uint32_t reserved;        /* 0 */
    /* Payload written by offloading here at most, by the injected clock; 0: no limit. What a second
     * allows, and an hour's share of a day (one block at least), may be written at once, and fills
     * up continuously: in any 24 hours 25/24 of a day at most, and 1/24 anew after each create.
     * Onboarding and destroy do not wait for it. */
    uint64_t write_bytes_per_second, write_bytes_per_day;
    uint32_t memory_kind; /* enum kvb_memory_kind */
    uint32_t device;      /* KVB_MEMORY_CUDA: the ordinal of the GPU */
    uint32_t copy_method; /* KVB_MEMORY_CUDA: enum kvb_copy_method */
    /*
     * below CUDA memory: 1..64; default 4; with KVB_PROGRESS_POLL none, and create does the pinning
     */
    uint32_t pin_threads;
    /* KVB_MEMORY_CUDA: in place of `memory`, the base of each layer; read at create */
    void *const *layer_memory;
    /*
     * below CUDA memory: how much of the time pinning may spend in the driver, in per cent; 1..100;
     * default 50; where create does the pinning 100
     */
    uint32_t pin_duty_percent;
    uint32_t reserved_tail; /* 0 */
};

/*
 * What register does if the same content is registered already in the same tier.
 * KEEP: both live and the caller's page table stays valid; one of them is indexed: the new one if
 * nobody holds the old, whose priority and retention it inherits unless it has its own.
 * SHARE: the caller gets the registered block in place of its own, which is reset; only where no
 * launched step uses it.
 *
 * With the caller's keys, where it is not known of one of the two what comes before it (its parent
 * was not indexed: struct kvb_query), they are not known to be the same. Both live, with SHARE too,
 * and the one of which it is known is indexed: an old one stays, whatever becomes of it; a new one
 * makes the old one forgotten in all tiers (*removed*, then *stored*), which stays with its
 * holders, unindexed.
 */
enum kvb_duplicate { KVB_DUPLICATE_KEEP = 0, KVB_DUPLICATE_SHARE = 1 };

enum kvb_progress { KVB_PROGRESS_THREAD = 0, KVB_PROGRESS_POLL = 1 };

struct kvb_config {
    uint32_t size;
    uint32_t tokens_per_block;           /* 1..65535 */
    const struct kvb_layout *layout;     /* copied */
    const struct kvb_tier_config *tiers; /* copied */
    uint32_t tier_count;                 /* 1..4 */
    uint32_t key_bytes; /* 0: built-in sequence hashes (struct kvb_seq). 1..64: the caller's keys */
    uint32_t progress;  /* enum kvb_progress */
    uint32_t duplicate; /* enum kvb_duplicate */
    const char *policy; /* eviction policy by name; NULL: "lru" */
    /*
     * Events in the ring, 2..2^24. Default, if there is a sink: two for each block of all tiers,
     * so that all can be stored and removed, or announced after a restart, between two deliveries;
     * 4096 at least, 2^20 at most. Each has a place of 24 bytes and two keys (built-in: 56 bytes)
     * and a record (64 bytes, two of the caller's keys, 4 bytes a token); of the default
     * allocator's memory only what has ever been used at a time is touched. 0 without a sink.
     */
    uint32_t event_capacity;
    uint32_t pin_capacity; /* pins with an owner; default 1024, up to 2^24 */
    uint32_t op_capacity;  /* onboard operations not yet released; default 1024, up to 2^20 */
    /* id 0 included; default 65536, up to 2^24. As many again may be known from a disk's files */
    uint32_t namespace_capacity;
    /* 0: random, or that of the disk tier's files. Other: reproducible digests */
    uint64_t digest_seed;
    /*
     * what else must be equal for bytes to be exchangeable: model, revision, dtype, rank and size
     * of a parallel group ... in the caller's words. Files of another one are refused. NULL: ""
     */
    const char *model;
    struct kvb_allocator allocator;
    struct kvb_clock clock;
    struct kvb_logger logger;
    struct kvb_event_sink sink;
    struct kvb_admission admission;
};

/*
 * Says what is wrong with a configuration, in words: what the log says, without the function's
 * name.
 */
struct kvb_diagnosis {
    uint32_t size;
    int code;
    char message[248];
};

/* ---- Manager --------------------------------------------------------------------------------- */

/*
 * kvb_manager_create - build a manager: pools, index, lanes, engines, and its thread if it has one
 *
 * Ownership  Everything in `config` is copied except tier memory, which must outlive the manager,
 *            and what the callbacks' contexts point to. `*manager` is the caller's until
 *            kvb_manager_destroy.
 *            `diagnosis->size` must be set.
 * Threads    Any. KVB_PROGRESS_THREAD starts one thread, named "kvblock", with all signals blocked.
 *            With a disk tier also "kvblock hash", if the process may use more than one processor:
 *            it makes and compares the checksums of blocks, and sleeps while there are none; and 8
 *            threads "kvblock disk" where the posix engine does the I/O. KVB_PROGRESS_POLL starts
 *            none of them.
 * Lifetime   All memory is taken here (and in kvb_namespace_open): nothing that serves allocates.
 *            On an error nothing is left, and the disk tier's files are as they were, unless
 *            writing to one of them is what failed.
 * Errors     KVB_EINVAL  a field out of its range, sizes that overflow, an unknown tail:
 *            `diagnosis` (may be NULL) says which; diagnosis->size is not set: the log says so
 *            KVB_ENOMEM  the allocator failed, or a thread could not be started
 *            KVB_EUNSUPPORTED  a REMOTE tier, unknown policy, no
 *            io_uring where it alone was asked for, a file system that cannot hold the file
 *            KVB_ENOSPC, KVB_EBUSY, KVB_EIO, KVB_ENOENT, KVB_EMISMATCH, KVB_EINVAL  the disk tier's
 *            file: full, in use, failing, its folder missing, of other content, of the wrong kind
 *            or owner: `diagnosis` names path and reason
 *            KVB_EUNSUPPORTED, KVB_EINVAL, KVB_EDEVICE  a tier in CUDA memory: no CUDA in this
 *            build, no driver, one too old, no GPU; wrong ordinal, memory of another kind or GPU or
 *            too small, overlapping strides; a GPU that failed: `diagnosis` says which
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_create(const struct kvb_config *config,
                                             struct kvb_manager **manager,
                                             struct kvb_diagnosis *diagnosis);

/*
 * kvb_manager_destroy - stop, deliver every outstanding `done` and event, free everything
 *
 * Ownership  Weak handles and unreleased ops of this manager become invalid. Pins with an owner are
 *            released.
 * Threads    Any, when no other call runs on this manager, but for those from within its callbacks.
 *            Blocks until transfers that have started are over; what has not started is cancelled.
 *            It decides in one step: either a callback's call has its handle and destroy is
 *            KVB_EBUSY, or destroy goes on and calls that hand out handles or start something
 *            (match, weak_upgrade, alloc, onboard, op_take) are KVB_ESTATE.
 * Lifetime   If CUDA refuses to unregister memory of the library's (it does once a context is
 *            lost), that memory stays allocated: its addresses must not be used again while CUDA
 *            takes them for pinned. The log says how much.
 * Errors     KVB_EBUSY   the caller still holds blocks, or steps of its own are under way; nothing
 *            has changed KVB_EDEADLK called from a callback, or another destroy is under way NULL
 *            is legal and does nothing.
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_destroy(struct kvb_manager *manager);

/*
 * kvb_manager_poll - make progress: move blocks, deliver `done` and events
 *
 * Threads    KVB_PROGRESS_POLL only; binds to the thread of its first call.
 * Lifetime   Runs until nothing is left to do now or about `max_ns` have passed (one copy is never
 *            cut short; 0: one small round). Never blocks.
 * Returns    1 if work is left that could run now, 0 if not.
 * Errors     KVB_ETHREAD  another thread, or the manager has its own
 *            KVB_EDEADLK  called from a callback
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_poll(struct kvb_manager *manager, uint64_t max_ns);

/*
 * kvb_manager_event_fd - a descriptor that is readable (level-triggered) while kvb_manager_poll has
 * something to do
 *
 * Ownership  The manager's: do not read, write or close it; put it into poll(2) or epoll. Valid
 *            until destroy.
 * Threads    Any.
 * Errors     KVB_EUNSUPPORTED  the manager has its own thread
 *            Returns the descriptor (>= 0) otherwise.
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_event_fd(struct kvb_manager *manager);

/*
 * kvb_manager_next_timeout - how long the caller may sleep on the event fd
 *
 * Threads    Any. `*timeout_ns`: 0 if there is work now, the time to the next deadline, KVB_FOREVER
 *            if there is none.
 * Errors     none beyond the conventions
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_next_timeout(struct kvb_manager *manager,
                                                   uint64_t *timeout_ns);

/*
 * kvb_manager_flush - wait until all lanes are idle and every `done` and event so far has been
 * delivered
 *
 * Threads    Any with KVB_PROGRESS_THREAD; the polling thread with KVB_PROGRESS_POLL, where it
 *            drives progress itself.
 * Lifetime   Blocks up to `timeout_ns` of real time (KVB_FOREVER: without limit; 0: one look).
 *            Blocks that a tier's write budget holds back are waited for too, however long that is.
 * Errors     KVB_ETIMEDOUT  not idle in time, for instance because a fence is not signalled
 *            KVB_ETHREAD    as kvb_manager_poll        KVB_EDEADLK  called from a callback
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_flush(struct kvb_manager *manager, uint64_t timeout_ns);

/*
 * kvb_manager_clear - forget every registered content, in all tiers
 *
 * For new weights. What was initialised before KVB_EVENT_CLEARED takes its sequence number is not
 * indexed after it: such a block goes on with its computation, and kvb_block_register leaves it
 * unindexed. What is initialised later counts as computed with what is in force then: call it once
 * nothing that is still to be initialised will be computed with the old weights. A request that
 * goes on across a clear must not register further blocks behind those of before: their parent is
 * given by its hash, and the library cannot know what its KV was computed with. End the request, or
 * compute it anew from its root.
 *
 * Ownership  Held blocks stay with their holders, unindexed, and are reset at their last unref.
 *            Parked blocks are freed. Offers not yet committed are discarded as they come up,
 *            transfers under way end without publishing anything. Nothing stored before is matched
 *            from the moment KVB_EVENT_CLEARED takes its sequence number, which is before anything
 *            is freed.
 * Threads    Any. Takes time proportional to the index, in steps of 64 entries: other calls go on
 *            in between.
 * Lifetime   Durable: what a disk tier's files hold is void for every later process when this
 *            returns (two synced writes a file).
 * Errors     KVB_EIO     a file could not be written: cleared for this process, but what that file
 *                        holds may come back after a restart
 *            KVB_ENOSPC  the same, for lack of space
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_clear(struct kvb_manager *manager);

/*
 * kvb_key_bytes - distance between keys in the arrays below: sizeof(struct kvb_seq), or the
 * configured key_bytes. 0: NULL
 */
KVB_API size_t kvb_key_bytes(const struct kvb_manager *manager);

/*
 * kvb_tier_memory - where a tier's blocks lie: block i of the tier begins at *base + i x block
 * bytes
 *
 * Threads    Any. Out: base address and length in bytes.
 * Errors     KVB_ENOENT  no such tier configured       KVB_EINVAL  tier out of 0..3
 *            KVB_EUNSUPPORTED  the tier is kept in a file, or its blocks lie apart (strides): ask
 *                              kvb_block_address
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_tier_memory(struct kvb_manager *manager, uint32_t tier, void **base,
                                          uint64_t *bytes);

/*
 * kvb_fence_signal - advance the counter of a line of KVB_FENCE_COUNTER to at least `value`
 *
 * Threads    Any. Never goes back: a smaller value does nothing. Transfers that waited are started
 *            by progress.
 * Errors     KVB_EINVAL  line is not 0..63, value is not below 2^56
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_fence_signal(struct kvb_manager *manager, uint32_t line,
                                           uint64_t value);

/* ---- Names ----------------------------------------------------------------------------------- */

/*
 * kvb_namespace_open - the id of a (salt, adapter name) pair; equal bytes give the same id
 *
 * Blocks of different namespaces are never confused: both parts go into the hashes and are compared
 * on a match by tokens. Id 0 always exists: no salt, no adapter. Ids live until destroy.
 *
 * Ownership  Both byte strings are copied. NULL with length 0 is empty; each up to 4096 bytes.
 * Threads    Any. May allocate.
 * Errors     KVB_ENOSPC  namespace_capacity reached
 *            KVB_EINVAL  a string longer than 4096, or NULL with a length
 *            KVB_ENOMEM  the allocator failed
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_namespace_open(struct kvb_manager *manager, const void *salt,
                                             size_t salt_bytes, const void *adapter,
                                             size_t adapter_bytes, uint32_t *namespace_id);

/*
 * kvb_hash_tokens - the sequence hashes of the full blocks of a token run
 *
 * parent NULL: the run begins at the root of the namespace; else it continues after that block.
 * Writes at most `capacity` names, one for every tokens_per_block tokens; `*count` of them. A tail
 * that fills no block is left out.
 *
 * Threads    Any; takes no lock. Nothing is kept.
 * Errors     KVB_EUNSUPPORTED  the manager uses the caller's keys
 *            KVB_ENOENT  unknown namespace
 *            KVB_ENOSPC  capacity is too small for the full blocks; *count says how many are needed
 * Source     the formula of NVIDIA Dynamo's KV router: block = XXH3-64(tokens LE, seed salt_hash),
 *            seq[0] = block[0], seq[i] = XXH3-64(seq[i-1] LE || block[i] LE, seed 1337)
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_hash_tokens(struct kvb_manager *manager, uint32_t namespace_id,
                                          const struct kvb_seq *parent, const uint32_t *tokens,
                                          size_t token_count, struct kvb_seq *seqs, size_t capacity,
                                          size_t *count);

/* ---- Room ------------------------------------------------------------------------------------ */

/*
 * kvb_alloc - take `count` Empty blocks of one tier, all or nothing
 *
 * Takes free blocks, then evicts parked ones in the policy's order, then turns on-deck handles that
 * no engine has taken back into weak ones. Never fails while enough is free, parked or revocable,
 * whatever the priorities.
 *
 * Ownership  Hands out one strong handle a block; the caller unrefs each.
 * Threads    Any.
 * Fence      "Free since this": the server's own earlier use of that memory is over once the fence
 *            is reached. A transfer into these blocks waits for it, and for the fences of whoever
 *            had the slots before. Of a stream it is all that was enqueued there before the last
 *            block was taken, by any thread; an event stands for what it was recorded after, so
 *            blocks must not have been used behind it.
 * Out        blocks[0..count); NULLs on failure. `missing` (may be NULL): how many were lacking, 0
 *            on success.
 * Errors     KVB_EAGAIN  transfers alone hold what is missing: progress will give it back
 *            KVB_ENOSPC  the caller holds it, or the tier has fewer blocks in all
 *            KVB_ENOENT  no such tier configured
 *            KVB_EINVAL  tier out of 0..3, unknown fence kind
 *            KVB_EUNSUPPORTED  a tier that is kept in a file: only lanes take blocks there
 *            KVB_EDEVICE  the tier's GPU has failed: nothing can be had there any more
 *            On failure nothing has changed, except that blocks evicted by then are free instead of
 *            parked: if other threads took what was counted on while a request for more than 64
 *            blocks was under way, or let go of blocks meanwhile and CUDA then refused to take the
 *            fence's point anew.
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_alloc(struct kvb_manager *manager, uint32_t tier, uint32_t count,
                                    const struct kvb_fence *fence, struct kvb_block **blocks,
                                    uint32_t *missing);

/*
 * kvb_block_ref - one more strong handle on each block
 *
 * Threads    Any; the caller holds each block already. Takes no lock.
 * Errors     KVB_EAGAIN  2^20 - 1 handles on one block
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_ref(struct kvb_manager *manager,
                                        struct kvb_block *const *blocks, uint32_t count,
                                        int *results);

/*
 * kvb_block_unref - give strong handles back
 *
 * The last unref parks a Registered block (evictable, still findable) and resets and frees any
 * other. The last element of the array is parked first: pass a sequence in order and its tail is
 * evicted before its head. A block whose computation is under way lives until the step that writes
 * it reports.
 *
 * Ownership  Takes over one handle of each block.
 * Threads    Any. Takes no lock while others hold the block too.
 * Errors     KVB_EINVAL  also: more unrefs than refs, where nobody holds the block any more
 * Since      0.1
 */
KVB_API int kvb_block_unref(struct kvb_manager *manager, struct kvb_block *const *blocks,
                            uint32_t count, int *results);

/*
 * kvb_block_weak - a weak handle of a block
 *
 * Threads    Any; the caller holds the block. Pins nothing; copies are free.
 * Errors     none beyond the conventions
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_weak(struct kvb_manager *manager, const struct kvb_block *block,
                                         struct kvb_weak *weak);

/*
 * kvb_weak_upgrade - strong handles from weak ones, exactly while the content is there (held or
 * parked)
 *
 * Ownership  Hands out blocks[i], NULL where results[i] is not 0.
 * Threads    Any. Takes no lock while somebody holds the block.
 * Errors     KVB_ESTALE  for ever: evicted or reset since, or the target of an operation that
 *                        has let go of it while it was still being written
 *            KVB_EAGAIN  2^20 - 1 handles on one block
 *            KVB_EINVAL  tier or slot that this manager does not have
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_weak_upgrade(struct kvb_manager *manager,
                                           const struct kvb_weak *weaks, uint32_t count,
                                           struct kvb_block **blocks, int *results);

/* ---- A block's life -------------------------------------------------------------------------- */

/*
 * Who a block will be. `parent` names the block before it in the sequence (key_bytes long, copied;
 * it need not be resident); NULL at position 0. A block at position > 0 without parent can be
 * computed but not registered. `key` names the block itself if the caller knows already (from
 * kvb_hash_tokens): then it is not computed again.
 *
 * A block is as old as its init: where a clear, or an invalidation of its namespace or key, comes
 * after that, it is not indexed when it is registered. It stays so old through truncate and until
 * it is Empty again.
 */
struct kvb_block_init {
    uint32_t size;
    uint32_t namespace_id;
    uint32_t position; /* block number in the sequence, 0 = root */
    uint32_t reserved;
    const void *parent;
    const void *key;
};

/*
 * kvb_block_init - Empty -> Partial
 *
 * Ownership  The caller keeps its handles; names are copied.
 * Threads    The sole holder of each block.
 * Errors     KVB_ESTATE  not Empty      KVB_ESHARED  others hold it
 *            KVB_ENOENT  unknown namespace
 *            KVB_EINVAL  position 0 with a parent; a key that is the parent's
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_init(struct kvb_manager *manager,
                                         struct kvb_block *const *blocks,
                                         const struct kvb_block_init *inits, uint32_t count,
                                         int *results);

/*
 * More tokens will come: the block stays Partial while space remains. Without it, it becomes
 * ReadyForScheduling.
 */
#define KVB_MORE 1u

/* Tokens for one block. `taken` is written: how many of `count` fitted. */
struct kvb_append {
    uint32_t size;
    uint32_t flags; /* 0 or KVB_MORE */
    const uint32_t *tokens;
    uint32_t count;
    uint32_t taken;
};

/*
 * kvb_block_append - name tokens: Partial -> Partial or Ready; in Inflight, tokens of a step that
 * is launched next
 *
 * Takes as many as fit. No tokens without KVB_MORE makes a non-empty Partial block Ready, full or
 * not. Once the last token is named the block has its sequence hash.
 *
 * Ownership  The caller keeps its handles; tokens are copied.
 * Threads    The sole holder of each block.
 * Errors     KVB_ESTATE  not Partial or Inflight      KVB_ESHARED  others hold it
 *            KVB_ENOSPC  tokens for a full block
 *            KVB_EINVAL  unknown flag; no tokens for an empty block without KVB_MORE
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_append(struct kvb_manager *manager,
                                           struct kvb_block *const *blocks,
                                           struct kvb_append *appends, uint32_t count,
                                           int *results);

/*
 * kvb_block_schedule - Ready -> Inflight, or one outstanding step more in Inflight
 *
 * Ownership  Takes a reference for the step; its compute_done or compute_failed gives it back. The
 *            caller may drop its own at once. Between the two, no one else may drop or reset the
 *            block's memory.
 * Threads    The sole holder of each block.
 * Errors     KVB_ESTATE  not Ready or Inflight      KVB_ESHARED  others hold it
 *            KVB_EAGAIN  4095 outstanding steps
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_schedule(struct kvb_manager *manager,
                                             struct kvb_block *const *blocks, uint32_t count,
                                             int *results);

/*
 * kvb_block_cancel - Ready -> Partial: it will not be scheduled now
 *
 * Ownership  The caller keeps its handles.       Threads  The sole holder of each block.
 * Errors     KVB_ESTATE  not Ready      KVB_ESHARED  others hold it
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_cancel(struct kvb_manager *manager,
                                           struct kvb_block *const *blocks, uint32_t count,
                                           int *results);

/*
 * kvb_block_compute_done - retire the oldest outstanding step; KV exists for the first computed[i]
 * tokens
 *
 * With the last step Inflight ends: Complete if full, else Partial.
 *
 * Ownership  Gives the step's reference back; if it was the last one the block is reset and freed.
 *            The pointer is valid for this call even if the caller has dropped its own handles.
 * Threads    One thread at a time for a block.
 * Fence      "Written after this": the KV is in memory once the fence is reached. Transfers out
 *            wait for it.
 * Errors     KVB_ESTATE  no step outstanding
 *            KVB_EINVAL  computed[i] below what was reported or above the named tokens
 *            KVB_ESHARED others hold it
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_compute_done(struct kvb_manager *manager,
                                                 struct kvb_block *const *blocks,
                                                 const uint32_t *computed, uint32_t count,
                                                 const struct kvb_fence *fence, int *results);

/*
 * kvb_block_compute_failed - retire the oldest outstanding step, which wrote nothing of use
 *
 * Later outstanding steps built on it: what they report is ignored. Once the last step is retired
 * the block is Ready if that one failed too, else Partial.
 *
 * Ownership, Threads, Errors  as kvb_block_compute_done (without KVB_EINVAL)
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_compute_failed(struct kvb_manager *manager,
                                                   struct kvb_block *const *blocks, uint32_t count,
                                                   int *results);

/*
 * kvb_block_truncate - keep the first token_counts[i] tokens: Partial, Ready or Complete -> Partial
 *
 * For rejected draft tokens. computed_count becomes min(computed_count, n); a name given or
 * computed is forgotten.
 *
 * Ownership  The caller keeps its handles.       Threads  The sole holder of each block.
 * Errors     KVB_ESTATE  another state      KVB_ESHARED  others hold it
 *            KVB_EINVAL  more than the named tokens
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_truncate(struct kvb_manager *manager,
                                             struct kvb_block *const *blocks,
                                             const uint32_t *token_counts, uint32_t count,
                                             int *results);

/*
 * kvb_block_reset - any unregistered state but Inflight -> Empty; weak handles of the old content
 * die
 *
 * Ownership  The caller keeps its handles.       Threads  The sole holder of each block.
 * Errors     KVB_ESTATE  Inflight (a device may still write there) or Registered
 *            KVB_ESHARED  others hold it
 *            KVB_EAGAIN  the slot has no generation left (after 2^44 reuses): unref it
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_reset(struct kvb_manager *manager,
                                          struct kvb_block *const *blocks, uint32_t count,
                                          int *results);

/*
 * kvb_block_clone - Empty -> Partial: the names (namespace, parent, position, tokens; a full
 * block's key too) of another block, for forks and beams
 *
 * computed_count is 0: the bytes are the server's job. It makes the clone Ready (append of no
 * tokens), schedules it, copies, and reports compute_done. Names are not known of a content that
 * came back from a disk, whether or not it has been matched since, until it is registered once
 * more, and of a block that was in the index and is not any more. A clone is as old as its source:
 * what comes after the source's init counts for both (struct kvb_block_init).
 *
 * Ownership  The caller keeps both handles.
 * Threads    The sole holder of `target`, any holder of `source`.
 * Errors     KVB_ESTATE  target not Empty, or source Empty or being filled
 *            KVB_ESHARED  others hold the target
 *            KVB_ENOENT  the source's names are not known      KVB_EINVAL  source and target are
 *            the same
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_clone(struct kvb_manager *manager,
                                          const struct kvb_block *source, struct kvb_block *target);

/*
 * Options of kvb_block_register. keys: one a block (key_bytes each), required with the caller's
 * keys unless init had it; ignored with built-in hashes.
 */
#define KVB_REGISTER_KEEP 1u  /* KVB_DUPLICATE_KEEP for this call */
#define KVB_REGISTER_SHARE 2u /* KVB_DUPLICATE_SHARE for this call */
struct kvb_register {
    uint32_t size;
    uint32_t flags;
    const void *keys;
};

/*
 * kvb_block_register - Complete -> Registered: publish in the index, emit *stored*, offer to the
 * lane below
 *
 * A block that was initialised before a clear, or before an invalidation of its namespace or key,
 * is Registered too, but left unindexed: not found, not announced, not offered, never in place of
 * another nor exchanged for one, and reset at its last unref. `indexed` of kvb_block_describe is 0,
 * and kvb_tier_stats counts it as `stale`. When keys were invalidated, by kvb_invalidate, is kept
 * in a table, by hash: a place for four blocks in memory, 1024 at least. So a block may be left
 * unindexed because another key of the same place was invalidated while it was computed; never the
 * other way round. What is initialised after a clear behind a parent of before it must not be
 * registered (kvb_manager_clear says why).
 *
 * Ownership  The caller keeps its handles. With SHARE, blocks[i] may be replaced: the caller then
 *            holds the block that was registered already and no longer its own.
 * Threads    The sole holder of each block.
 * Fence      "Written after this", as in kvb_block_compute_done; the later of the two counts.
 * Options    May be NULL: the manager's duplicate policy, names from the tokens.
 * Errors     KVB_ESTATE  not Complete      KVB_ESHARED  others hold it
 *            KVB_EINVAL  position > 0 without parent; no key with the caller's keys, or the
 *            parent's key; both flags
 *            KVB_ECOLLISION  the hash, or the parent's, is indexed for other content: stays
 *            Complete, not findable
 *            A key given here is the block's from then on, even if registering fails.
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_register(struct kvb_manager *manager, struct kvb_block **blocks,
                                             uint32_t count, const struct kvb_register *options,
                                             const struct kvb_fence *fence, int *results);

/*
 * kvb_block_set_priority - how late a block is evicted, and for how long that holds
 *
 * Priority only orders eviction. After `duration_ns` (0: for ever) the block has
 * KVB_PRIORITY_DEFAULT, as if last used then.
 *
 * Ownership  The caller keeps its handles.       Threads  Any holder.
 * Errors     KVB_EINVAL  priority above 100
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_set_priority(struct kvb_manager *manager,
                                                 struct kvb_block *const *blocks, uint32_t count,
                                                 uint32_t priority, uint64_t duration_ns,
                                                 int *results);

/* ---- What a block is ------------------------------------------------------------------------- */

struct kvb_block_info {
    uint32_t size;
    uint32_t tier;
    uint32_t slot; /* the physical block id of the page table */
    uint32_t state;
    uint32_t token_count;
    uint32_t computed_count;
    uint32_t step_count;   /* outstanding steps */
    uint32_t holder_count; /* strong handles, the steps' included */
    uint32_t priority;     /* in force now: the default once its retention is over */
    uint32_t indexed;      /* 1: found by match */
};

/*
 * kvb_block_describe - one block in numbers
 *
 * Ownership  `info->size` must be set.       Threads  Any holder.
 * Errors     none beyond the conventions
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_describe(struct kvb_manager *manager,
                                             const struct kvb_block *block,
                                             struct kvb_block_info *info);

/*
 * kvb_block_slot - the block's number in its tier, its physical block id. UINT32_MAX for NULL or a
 * foreign pointer.
 *
 * Threads    Any; takes no lock, reads no memory of the block.
 * Since      0.1
 */
KVB_API uint32_t kvb_block_slot(const struct kvb_manager *manager, const struct kvb_block *block);

/*
 * kvb_block_key - the block's name, once its last token is named (or the caller gave it)
 *
 * Out        `key`: key_bytes bytes (struct kvb_seq if built in).
 * Threads    Any holder of a Registered block, the sole holder of another.
 * Errors     KVB_ENOENT  it has none yet; or it was in the index and is not any more: cleared,
 *            invalidated, or gone for another one (enum kvb_duplicate), with built-in hashes and
 *            the caller's keys alike. One that registration left unindexed keeps its key
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_key(struct kvb_manager *manager, const struct kvb_block *block,
                                        void *key);

/*
 * kvb_block_address - where one chunk of a block lies
 *
 * Threads    Any holder. The memory is the caller's to write between schedule and compute_done, to
 *            read once Registered.
 * Errors     KVB_EINVAL  layer or part out of the layout
 *            KVB_EUNSUPPORTED  the tier has no addresses
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_address(struct kvb_manager *manager,
                                            const struct kvb_block *block, uint32_t layer,
                                            uint32_t part, void **address);

/* ---- Finding --------------------------------------------------------------------------------- */

/*
 * What to look for. tokens: whole blocks of tokens_per_block from the root; a tail is ignored.
 * keys: one a block. Tokens alone (built-in hashes): hashed on the way, compared. Both: names from
 * `keys`, tokens compared; a struct kvb_seq without digest gets it from the tokens. Keys alone: the
 * maker of the keys is trusted, except that a digest in a struct kvb_seq is compared.
 *
 * With the caller's keys what comes before a block is known, by digest, if its parent was indexed
 * when it was registered. Else the first query with tokens that comes to it compares its tokens,
 * its namespace, and its parent's key, which must be the key before it in the run, all of which was
 * compared already; from then on it belongs behind these tokens, and other ones do not find it.
 * That needs its tokens in memory: once only a disk has it, also after a restart, such a block is
 * found by keys alone, until it is registered again.
 */
struct kvb_query {
    uint32_t size;
    uint32_t namespace_id; /* with tokens */
    const uint32_t *tokens;
    size_t token_count;
    const void *keys;
    size_t key_count;
    uint32_t flags; /* 0 */
    uint32_t reserved;
};

/*
 * kvb_match - the leading run of blocks that exist, held
 *
 * hits[0..*count) each pin the copy in the fastest tier that has it. Stops at the first block that
 * is nowhere, or at `capacity`. A hit in a tier of memory may be a block that the server's own work
 * is still to write, registered with a fence that is not reached yet: the server orders what reads
 * it behind that work.
 *
 * Ownership  Hands out one strong handle a hit; the caller unrefs each.       Threads  Any.
 * Errors     KVB_EINVAL  neither tokens nor keys; unknown flags      KVB_ENOENT  unknown namespace
 *            KVB_EUNSUPPORTED  tokens without keys where the manager uses the caller's keys
 *            KVB_EAGAIN  2^20 - 1 handles on one block: the run ends before it, what is in hits is
 *                        held
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_match(struct kvb_manager *manager, const struct kvb_query *query,
                                    struct kvb_hit *hits, size_t capacity, size_t *count);

/*
 * kvb_lookup - how long the leading run is, and in which tiers, without holding anything
 *
 * Out        tier_counts[t]: blocks of the run whose fastest copy is in tier t. Their sum is the
 *            run.
 * Threads, Errors  as kvb_match
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_lookup(struct kvb_manager *manager, const struct kvb_query *query,
                                     uint64_t tier_counts[KVB_TIER_COUNT]);

/*
 * kvb_invalidate - forget contents by key, in all tiers
 *
 * Held copies stay with their holders, unindexed; parked ones are freed; emits *removed* for each.
 * A transfer of such a block ends without publishing anything. A block that is initialised already
 * and will be registered under such a key is left unindexed then (kvb_block_register), whatever
 * this call returns.
 *
 * Threads    Any.
 * Errors     KVB_ENOENT  (per element) nothing is indexed under it
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_invalidate(struct kvb_manager *manager, const void *keys,
                                         uint32_t count, int *results);

/*
 * kvb_invalidate_namespace - forget every content of one namespace, and every name given in it
 *
 * For a new adapter under an old name. When it returns, nothing of the namespace is found that was
 * initialised before the call, whenever it is registered; what kvb_manager_clear says of requests
 * that go on holds here as well.
 *
 * Threads    Any. Time proportional to the index, in steps of 64 entries; contents that it has not
 *            come to may be matched until it returns. `*removed` (may be NULL): contents forgotten.
 *            What is initialised and registered meanwhile may or may not be among them.
 * Errors     KVB_ENOENT  unknown namespace
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_invalidate_namespace(struct kvb_manager *manager,
                                                   uint32_t namespace_id, uint64_t *removed);

/*
 * kvb_index_walk - call `visit` with a KVB_EVENT_STORED for every (content, tier) in the index, to
 * (re)build a picture
 *
 * What is there from the call's begin to its end is visited exactly once. What comes or goes
 * meanwhile is visited or not; what goes and comes back may be visited twice. Its events tell,
 * because each visit carries the `sequence` of the latest event that it takes into account: of a
 * visit and an event about the same (content, tier) the one with the greater sequence is true, and
 * where they are equal they say the same. KVB_EVENT_CLEARED is an event about everything. An event
 * may be delivered before a visit that it overrules; so keep the events that arrive during a walk
 * and apply them after it, as the sink of struct kvb_event_sink does, or remember what has been
 * removed until the walk is over.
 *
 * Pointers are valid during the visit only. A non-zero return of visit ends the walk and is
 * returned; the next walk begins at the beginning. The lock is taken once for 64 entries, and a
 * visit may show what was there up to 64 entries ago. An entry costs about 50 ns and the visit.
 *
 * Threads    Any, but not within a callback of progress. No lock is held during a visit; other
 *            calls go on in between, and visit may make calls itself: a single thread that polls
 *            calls kvb_manager_poll there, so that nothing stands still for the length of the walk.
 * Errors     KVB_EAGAIN  16 walks are under way       KVB_EDEADLK  called from a callback
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_index_walk(struct kvb_manager *manager,
                                         int (*visit)(void *arg, const struct kvb_event *event),
                                         void *arg);

/* ---- Pins with an owner ---------------------------------------------------------------------- */

/*
 * kvb_pin - one more strong handle on each block, in the name of `owner` (any number but 0, a
 * request's id for one)
 *
 * Pinning the same block twice for one owner counts twice. After `lifetime_ns` (0: none) progress
 * releases it and logs.
 *
 * Ownership  The library keeps the handles until unpin, unpin_all, the end of the lifetime, or
 *            destroy.
 * Threads    Any holder.
 * Errors     KVB_ENOSPC  pin_capacity reached      KVB_EINVAL  owner 0
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_pin(struct kvb_manager *manager, uint64_t owner,
                                  struct kvb_block *const *blocks, uint32_t count,
                                  uint64_t lifetime_ns, int *results);

/*
 * kvb_unpin - release one pin of each block held by `owner`; the last element is parked first, as
 * kvb_block_unref
 *
 * Threads    Any.
 * Errors     KVB_ENOENT  this owner has no pin on it
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_unpin(struct kvb_manager *manager, uint64_t owner,
                                    struct kvb_block *const *blocks, uint32_t count, int *results);

/*
 * kvb_unpin_all - release everything that `owner` has pinned, last pinned first. `*released` (may
 * be NULL): how many
 *
 * Threads    Any. An owner without pins is no error.
 * Errors     KVB_EINVAL  owner 0
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_unpin_all(struct kvb_manager *manager, uint64_t owner,
                                        uint32_t *released);

/* ---- Moving down: offload -------------------------------------------------------------------- */

/*
 * kvb_block_offload - offer registered blocks to the next tier down, now
 *
 * Ownership  The caller keeps its handles; the lane holds a block only while it is on deck or in
 *            transfer.
 * Threads    Any holder.
 * Fence      "Written after this".
 * Priority   0..100; higher goes first. Does not change the block's own.
 * Errors     KVB_ESTATE  not registered, or no longer indexed      KVB_ENOENT  no tier below
 *            KVB_EBUSY  offered already and not done      KVB_EINVAL  priority above 100
 *            A block whose copy exists below is counted as skipped, and is no error.
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_offload(struct kvb_manager *manager,
                                            struct kvb_block *const *blocks, uint32_t count,
                                            uint32_t priority, const struct kvb_fence *fence,
                                            int *results);

/*
 * kvb_block_offload_cancel - take back offers that wait in the in-queue
 *
 * Threads    Any holder.
 * Errors     KVB_ENOENT  not offered      KVB_EBUSY  committed already: on deck or in transfer
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_block_offload_cancel(struct kvb_manager *manager,
                                                   struct kvb_block *const *blocks, uint32_t count,
                                                   int *results);

/* ---- Moving up: onboard ---------------------------------------------------------------------- */

/*
 * Runs exactly once if kvb_onboard returned 0, and never otherwise; in progress, no lock held.
 * `status`: 0, KVB_ECANCELED or KVB_ETIMEDOUT. `good_count`: length of the good prefix, which may
 * be short even if status is 0.
 */
typedef void (*kvb_onboard_done)(void *arg, struct kvb_op *op, int status, uint32_t good_count);

#define KVB_ONBOARD_PRIORITY 1u /* use the field `priority`; else KVB_PRIORITY_DEFAULT */
/* copy layer by layer, so that kvb_op_wait_stream can wait for each; needs a tier in CUDA memory */
#define KVB_ONBOARD_LAYERS 2u
struct kvb_onboard {
    uint32_t size;
    uint32_t flags;
    /* Registered blocks, in sequence order, as kvb_match returned them */
    struct kvb_block *const *sources;
    /* Empty blocks of one tier above every source's, from kvb_alloc */
    struct kvb_block *const *targets;
    uint32_t count;
    uint32_t priority;             /* 0..100 with KVB_ONBOARD_PRIORITY */
    uint64_t timeout_ns;           /* 0: none */
    const struct kvb_fence *fence; /* "free since this": the targets, as in kvb_alloc */
    kvb_onboard_done done;         /* may be NULL */
    void *arg;
};

/*
 * kvb_onboard - bring blocks up into `targets`
 *
 * A content that somebody else is bringing up already is joined: nobody waits for more than that
 * one block, and it goes by the highest priority of those who wait for it, from then on and through
 * every tier in between. Ends with the length of the good prefix: partial success is success.
 * Targets of tier HOST make it a prefetch. Outranks offloading.
 *
 * Ownership  On 0 the op takes over the targets' handles and kvb_op_take hands blocks back. The
 *            caller keeps its handles of the sources, and may drop them at once. `*op` is the
 *            caller's until kvb_op_release.
 * Threads    Any.
 * Lifetime   Nothing passed in is kept after return, except `arg`.
 * On 0, `done` runs exactly once. On an error it never runs and nothing has changed.
 * Errors     KVB_ESTATE   a source is not Registered, a target not Empty
 *            KVB_ESHARED  others hold a target
 *            KVB_EINVAL   count 0; a target twice; targets of several tiers; a source in the
 *                         target's tier or above; flags
 *            KVB_EAGAIN   op_capacity operations exist
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_onboard(struct kvb_manager *manager,
                                      const struct kvb_onboard *request, struct kvb_op **op);

/*
 * kvb_op_take - the blocks of a finished op: [0, *good_count) Registered, the rest Empty and ready
 * to be computed
 *
 * An op is finished once each of its blocks has ended, which is a moment before `done` runs: who
 * polls may take before `done`, and `done` runs all the same.
 * A joined block stands in place of the target, which has gone back to the pool: read the slots
 * again. blocks[i] beyond the good prefix is NULL where the memory is still under a transfer that
 * could not be stopped (after cancel or timeout only) or is by now shared by others, and no other
 * block was free: allocate another. A transfer into a block that stands in for such a one waits for
 * the operation's fence, and for those that its own memory was given before.
 *
 * Ownership  Hands out one strong handle a block, once.       Threads  Any, from within `done` too.
 * Errors     KVB_EAGAIN  not finished      KVB_ESTATE  taken already, or destroy is under way
 *            KVB_EINVAL  count is not the op's
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_op_take(struct kvb_manager *manager, struct kvb_op *op,
                                      struct kvb_block **blocks, uint32_t count,
                                      uint32_t *good_count);

/*
 * kvb_op_wait - wait until `done` has run (or would have)
 *
 * Threads    As kvb_manager_flush: in poll mode it drives progress itself. Nobody may release the
 *            op meanwhile.
 * Returns    The op's status.
 * Errors     KVB_ETIMEDOUT  also: not finished within timeout_ns (kvb_op_take then says KVB_EAGAIN)
 *            KVB_ETHREAD, KVB_EDEADLK  as kvb_manager_flush
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_op_wait(struct kvb_manager *manager, struct kvb_op *op,
                                      uint64_t timeout_ns);

#define KVB_ALL_LAYERS UINT32_MAX
/*
 * kvb_op_wait_stream - make a CUDA stream of the server's wait for the blocks that an op brings up
 *
 * What is enqueued on `stream` after the call runs after the copies into the op's targets: all of
 * each, or up to and including `layer`, where the op was started with KVB_ONBOARD_LAYERS (else it
 * waits for whole blocks). So a server enqueues the attention of layer 0 while layer 1 arrives.
 * Never synchronises; waits only as any call on that stream would. At most batch x depth blocks of
 * the targets' tier are on their way at once (64 by default), and an op of more can be waited for
 * only when its last block is one of them. Of blocks whose fence is not reached half as many are on
 * their way at once: an op of more of those can be waited for only when that fence is reached.
 * Within each 64 of those the layers arrive in order. So a server that wants layer 0 of long ops
 * early sets batch x depth to the blocks of its longest, as far as the streams of the library have
 * room: with 64 x 32 that is 2,048 whole blocks, 896 by 32 layers (docs/gpu.md). The wait says that
 * copies are over, not that they succeeded: take the op's result before anything computed from
 * these blocks is published, and compute the blocks past the good prefix anew. Blocks of the op
 * that have failed already are not waited for.
 *
 * A block that the op has joined may be one that the server itself computes: it is good, and handed
 * out by kvb_op_take, before the fence is reached that it was registered with. `stream` waits for
 * that fence as well, and for those given before it.
 *
 * `stream` may be a default stream: NULL is the legacy one of the tier's GPU, cudaStreamPerThread
 * the calling thread's. What the blocking streams are given after the call waits with the legacy
 * one.
 *
 * Threads    Any. Nothing of the caller's is kept.
 * Errors     KVB_EAGAIN  a block has not got to the GPU's queue: progress has not run since, it
 *                        waits for a counter fence, for another tier, for its turn among batch x
 *                        depth, for a free copy stream; or the end of its copy could not be
 *                        recorded, and it is about to fail. Nothing was enqueued
 *            KVB_EINVAL  a stream that is being captured, the legacy one while a blocking stream
 *                        is; no stream, or one of a GPU that has failed (if it is not the tier's);
 *                        layer out of the layout; a joined block's fence was part of a capture
 *            KVB_EUNSUPPORTED  the op's targets are not in CUDA memory
 *            KVB_EDEVICE  the GPU has failed
 *            KVB_ESTATE  the op was taken already
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_op_wait_stream(struct kvb_manager *manager, struct kvb_op *op,
                                             void *stream, uint32_t layer);

/*
 * kvb_op_cancel - ask an op to end now. What has arrived counts; `done` still runs once, with
 * KVB_ECANCELED or the result
 *
 * A copy that waits for a KVB_FENCE_COUNTER is given up, unless somebody else wants its block,
 * and its target is Empty at once. One that has begun, or stands on a GPU's stream, goes on: see
 * kvb_op_take.
 *
 * Threads    Any.       A finished op is no error.
 * Errors     none beyond the conventions
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_op_cancel(struct kvb_manager *manager, struct kvb_op *op);

/*
 * kvb_op_release - give an op back. One that is not finished is cancelled; blocks not taken are
 * unreferenced
 *
 * Threads    Any, from within `done` too.
 *            `done` still runs if it has not; the op is invalid for the caller.
 * Errors     NULL op is legal and does nothing.
 * Since      0.1
 */
KVB_API int kvb_op_release(struct kvb_manager *manager, struct kvb_op *op);

/* ---- Statistics ------------------------------------------------------------------------------ */

/*
 * block_count = free + held + parked + transfer + retired (not given out: condemned, out of
 * service, or out of generations).
 */
struct kvb_tier_stats {
    uint64_t block_count; /* 0: no such tier */
    uint64_t free_count, held_count, parked_count, retired_count;
    uint64_t transfer_count; /* held by transfers alone, quarantined ones included */
    /* what kvb_alloc could give now: free + parked + revocable, less what lanes hold */
    uint64_t available_count;
    uint64_t allocated, evicted, registered, duplicates, collisions;
    uint64_t stale;         /* not in `registered`: forgotten between init and kvb_block_register */
    uint64_t hits;          /* blocks that kvb_match handed out here */
    uint64_t bytes_per_hit; /* bytes moved down into this tier for each hit; 0: none so far */
    /* 1: all of it, after too many errors in a row. A disk's paths: kvb_disk_stats */
    uint64_t out_of_service;
};

/*
 * offered = transferred + skipped + discarded + shed + failed + cancelled + pending, always. Counts
 * are blocks.
 */
struct kvb_lane_stats {
    uint32_t from_tier, to_tier;
    uint64_t offered, transferred, skipped, discarded, shed, failed, cancelled, pending;
    uint64_t skipped_present;   /* the target tier had it, or was getting it */
    uint64_t skipped_no_target; /* nothing free there, and nothing to evict of no higher priority */
    uint64_t skipped_out_of_service; /* the target tier takes nothing any more */
    uint64_t skipped_admission;      /* the hook said no */
    uint64_t throttled_ns; /* time for which write_bytes_per_second or _per_day held blocks back */
    uint64_t failed_transfer;    /* the engine reported an error */
    uint64_t failed_invalidated; /* the content was invalidated or cleared while it moved */
    /* onboard lanes: blocks that waited for another's transfer (not offered again) */
    uint64_t joined;
    /* pending, by stage; queued: in line, or behind a fence */
    uint64_t queued, ondeck, inflight;
    /* offload: the most blocks ever held at once; onboard: the most with the engine */
    uint64_t pinned_max;
    uint64_t bytes, busy_ns; /* transferred; time with at least one transfer under way */
};

#define KVB_LANE_COUNT_MAX 6
struct kvb_stats {
    uint32_t size;
    uint32_t lane_count;
    struct kvb_tier_stats tiers[KVB_TIER_COUNT];
    struct kvb_lane_stats lanes[KVB_LANE_COUNT_MAX];
    uint64_t index_entries, index_capacity;
    uint64_t table_bytes; /* everything allocated but tier memory */
    uint64_t events, events_lost;
    uint64_t pins, pins_expired;
    uint64_t ops_started, ops_completed, ops_cancelled, ops_timed_out;
    char engine[512]; /* which engines run, how, and why not others */
    char hash[16];
    uint64_t pinned_bytes;     /* of host tiers, for a GPU, so far */
    uint64_t unpinnable_bytes; /* what the system refused to pin: their copies take a detour */
};

/*
 * kvb_manager_stats - a consistent snapshot of all counters
 *
 * Ownership  `stats->size` must be set.       Threads  Any.
 * Errors     none beyond the conventions
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_manager_stats(struct kvb_manager *manager, struct kvb_stats *stats);

/* One path of the disk tier. Counts are blocks, but where bytes are named. */
struct kvb_disk_stats {
    uint32_t size;
    uint32_t path_count;     /* of the tier */
    uint32_t out_of_service; /* 1: after too many errors in a row */
    uint32_t reserved;
    uint64_t slot_count, retired_count; /* retired: slots that are not used now, or not again */
    uint64_t epoch;                     /* clears in the life of the file */
    uint64_t recovered;                 /* at create: found in the file and taken over */
    /* at create: entries torn, damaged, misplaced, or of a namespace beyond namespace_capacity */
    uint64_t dropped;
    uint64_t superseded;  /* at create: an older copy of what another slot holds */
    uint64_t recovery_ns; /* the whole tier, real time */
    uint64_t read_errors_io, read_errors_short, read_errors_identity, read_errors_checksum,
        write_errors;
    uint64_t bytes_written, bytes_read; /* of payload, since create */
    uint64_t hits;                      /* blocks that kvb_match handed out here */
};

/*
 * kvb_disk_stats - the counters of one path of the disk tier
 *
 * Ownership  `stats->size` must be set.       Threads  Any.
 * Errors     KVB_ENOENT  no disk tier in files, or `path` is not below its path_count
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_disk_stats(struct kvb_manager *manager, uint32_t path,
                                         struct kvb_disk_stats *stats);

/*
 * kvb_disk_put_back - use a path of the disk tier again that is out of service
 *
 * The file is tried with a synced write and starts empty; slots that had been retired one by one
 * stay so, but not those of the errors that took the path out of service.
 *
 * Threads    Any; not from a callback of progress. Blocks for that write.
 * Errors     KVB_ENOENT  no disk tier in files, or `path` is not below its path_count
 *            KVB_ESTATE  it is in service
 *            KVB_EBUSY   transfers that began before are still under way there, or what it held is
 *                        still being forgotten: later
 *            KVB_EIO, KVB_ENOSPC  the trial write failed: it stays out of service
 *            KVB_EDEADLK  called from a callback
 * Since      0.1
 */
KVB_API KVB_NODISCARD int kvb_disk_put_back(struct kvb_manager *manager, uint32_t path);

#ifdef __cplusplus
}
#endif

#endif
