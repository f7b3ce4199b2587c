/* SPDX-License-Identifier: Apache-2.0 */
/* pinned - see pinned.h. */
#include "transfer/cuda/pinned.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/platform.h"

/* Small enough that the first blocks are pinned within milliseconds, large enough that a call costs nothing beside its work. */
#define PIECE_BYTES ((uint64_t)256 << 20)
/* Drivers refuse 512 GiB in one registration; a piece never gets near. */
#define PIECE_BYTES_MAX ((uint64_t)64 << 30)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#define PREFER_NODE 1 /* MPOL_PREFERRED */
/* In a piece of memory that does not begin on a page: one block in so many lies across an edge. */
#define MISALIGNED_BLOCKS_MIN 16u
/* Of memory that the caller may have pinned: half a microsecond each, before serving begins. */
#define LOOKS_MAX 16384u

/* ---- Pieces ------------------------------------------------------------------------------------------------------- */

static uint64_t page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t pages_up(uint64_t bytes)
{
    return (bytes + page_bytes() - 1) / page_bytes() * page_bytes();
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Whole blocks and whole pages. */
static void cut(struct kvbi_pinning *pinning)
{
    uint64_t step = pinning->block_bytes /
                    greatest_common_divisor(pinning->block_bytes, page_bytes()) * page_bytes();
    uint64_t least = pinning->lead_bytes != 0 ? MISALIGNED_BLOCKS_MIN * step : step;
    uint64_t piece = least > PIECE_BYTES ? least : PIECE_BYTES / step * step;
    uint64_t whole = pages_up(pinning->lead_bytes + pinning->total_bytes);
    if (piece > PIECE_BYTES_MAX || piece > whole)
        piece = whole;
    pinning->piece_bytes = piece;
    pinning->piece_count = (whole + piece - 1) / piece;
}

/* Of the blocks that lie in one of the first `pieces`. */
static uint64_t bytes_within(const struct kvbi_pinning *pinning, uint64_t pieces)
{
    uint64_t end = pieces * pinning->piece_bytes, all = pinning->lead_bytes + pinning->total_bytes;
    if (pieces == 0)
        return 0;
    uint64_t blocks = ((end < all ? end : all) - pinning->lead_bytes) / pinning->block_bytes;
    uint64_t across = pinning->lead_bytes % pinning->block_bytes != 0 ? pieces - 1 : 0;
    return (blocks - across) * pinning->block_bytes;
}

/* The pages of a piece. The first and the last may share a page with what lies beside: pinning that does no harm. */
static void piece_range(const struct kvbi_pinning *pinning, uint64_t piece, unsigned char **start,
                        uint64_t *bytes)
{
    uint64_t first = piece * pinning->piece_bytes;
    uint64_t rest = pages_up(pinning->lead_bytes + pinning->total_bytes) - first;
    *start = pinning->origin + first;
    *bytes = rest < pinning->piece_bytes ? rest : pinning->piece_bytes;
}

/* ---- Touching ----------------------------------------------------------------------------------------------------- */

/* The GPU's node by sysfs, -1 where it is not known: a machine of one node, a container. */
static int find_node(const struct kvbi_cuda *cuda)
{
    char path[96];
    int node = -1;
    (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", cuda->bus_id);
    FILE *file = cuda->bus_id[0] != '\0' ? fopen(path, "re") : NULL;
    if (file == NULL)
        return -1;
    if (fscanf(file, "%d", &node) != 1)
        node = -1;
    (void)fclose(file);
    return node;
}

/* Pages that this thread touches first come from the GPU's node, if it has some. Where it is not allowed they come from anywhere. */
static void prefer_node(int node)
{
    unsigned long mask[16] = {0};
    if (node < 0 || (size_t)node >= sizeof mask * 8)
        return;
    mask[(size_t)node / (sizeof *mask * 8)] = 1ul << ((size_t)node % (sizeof *mask * 8));
    (void)syscall(SYS_set_mempolicy, PREFER_NODE, mask, sizeof mask * 8);
}

/* Faults the pages in without changing what is in them. An older kernel leaves that to the registration. */
static void touch(const struct kvbi_pinning *pinning, uint64_t piece)
{
    unsigned char *start;
    uint64_t bytes;
    piece_range(pinning, piece, &start, &bytes);
    (void)madvise(start, bytes, MADV_HUGEPAGE);
    (void)madvise(start, bytes, MADV_POPULATE_WRITE);
}

/* ---- Registering -------------------------------------------------------------------------------------------------- */

/* True if the piece is pinned now. */
static bool register_piece(struct kvbi_pinning *pinning, uint64_t piece, cudaError_t *error)
{
    struct kvbi_cuda_scope scope;
    unsigned char *start;
    uint64_t bytes;
    piece_range(pinning, piece, &start, &bytes);
    kvbi_cuda_enter(pinning->cuda, &scope);
    *error = kvbi_cuda_check(
        &scope, cudaHostRegister(start, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped));
    kvbi_cuda_leave(&scope);
    return *error == cudaSuccess;
}

static void refuse_rest(struct kvbi_pinning *pinning, uint64_t piece, cudaError_t error)
{
    uint64_t pinned = bytes_within(pinning, piece);
    atomic_store(&pinning->refused_bytes, pinning->total_bytes - pinned);
    atomic_store(&pinning->refused, true);
    kvbi_log(pinning->log, KVB_LOG_WARN, KVB_ENOMEM,
             "tier HOST: %llu of %llu bytes cannot be pinned: %s (%d); their copies take a detour",
             (unsigned long long)(pinning->total_bytes - pinned),
             (unsigned long long)pinning->total_bytes, cudaGetErrorName(error), (int)error);
}

/* The next piece in order, if it is touched and nobody else is at it. */
static bool take_pin(struct kvbi_pinning *pinning, uint64_t *piece)
{
    kvbi_lock_take(&pinning->lock);
    *piece = atomic_load(&pinning->pinned_pieces);
    bool mine = !pinning->pinning && *piece < pinning->piece_count && pinning->touched[*piece] &&
                !atomic_load(&pinning->refused);
    pinning->pinning |= mine;
    kvbi_lock_release(&pinning->lock);
    return mine;
}

static void give_pin(struct kvbi_pinning *pinning, bool done)
{
    kvbi_lock_take(&pinning->lock);
    pinning->pinning = false;
    if (done)
        atomic_fetch_add_explicit(&pinning->pinned_pieces, 1, memory_order_release);
    kvbi_lock_release(&pinning->lock);
}

static void pin_what_is_touched(struct kvbi_pinning *pinning)
{
    uint64_t piece;
    cudaError_t error;
    while (!atomic_load(&pinning->stop) && take_pin(pinning, &piece)) {
        bool done = register_piece(pinning, piece, &error);
        if (!done)
            refuse_rest(pinning, piece, error);
        give_pin(pinning, done);
    }
}

static bool take_touch(struct kvbi_pinning *pinning, uint64_t *piece)
{
    kvbi_lock_take(&pinning->lock);
    *piece = pinning->next_touch;
    bool mine = *piece < pinning->piece_count && !atomic_load(&pinning->refused);
    pinning->next_touch += mine;
    kvbi_lock_release(&pinning->lock);
    return mine;
}

/* Touch pieces until all are taken, and pin what has been touched. Whoever touches the last one finds everything to pin. */
static void work(struct kvbi_pinning *pinning)
{
    uint64_t piece;
    while (!atomic_load(&pinning->stop) && take_touch(pinning, &piece)) {
        touch(pinning, piece);
        kvbi_lock_take(&pinning->lock);
        pinning->touched[piece] = true;
        kvbi_lock_release(&pinning->lock);
        pin_what_is_touched(pinning);
    }
    pin_what_is_touched(pinning);
}

static void *run(void *argument)
{
    struct kvbi_pinning *pinning = argument;
    prefer_node(pinning->node);
    work(pinning);
    return NULL;
}

/* ---- Create and destroy ------------------------------------------------------------------------------------------- */

static bool is_pinned(struct kvbi_cuda_scope *scope, const unsigned char *byte)
{
    struct cudaPointerAttributes attributes = {.type = cudaMemoryTypeUnregistered};
    cudaError_t error = kvbi_cuda_check(scope, cudaPointerGetAttributes(&attributes, byte));
    return error == cudaSuccess && attributes.type == cudaMemoryTypeHost;
}

/* Has the caller pinned its memory? Then the first and the last byte of its blocks say so; of very many, those of some all over. */
static bool is_given(const struct kvbi_pinning *pinning, uint64_t block_count)
{
    struct kvbi_cuda_scope scope;
    const unsigned char *base = pinning->origin + pinning->lead_bytes;
    uint64_t looks = block_count < LOOKS_MAX ? block_count : LOOKS_MAX;
    kvbi_cuda_enter(pinning->cuda, &scope);
    bool pinned = is_pinned(&scope, base + pinning->total_bytes - 1);
    for (uint64_t i = 0; pinned && i < looks; i++) {
        const unsigned char *block = base + i * block_count / looks * pinning->block_bytes;
        pinned = is_pinned(&scope, block) && is_pinned(&scope, block + pinning->block_bytes - 1);
    }
    kvbi_cuda_leave(&scope);
    return pinned;
}

static void use_given(struct kvbi_pinning *pinning, uint64_t block_count)
{
    pinning->given = true;
    pinning->origin += pinning->lead_bytes;
    pinning->lead_bytes = 0;
    pinning->piece_bytes = pinning->block_bytes;
    atomic_store(&pinning->pinned_pieces, block_count);
}

/*
 * A child of the server's, forked while the GPU copies, would share the pages, and whoever writes first gets another page than the GPU
 * has. Only ours are kept from children: the caller's memory may be meant for them.
 */
static void keep_from_children(const struct kvbi_pinning *pinning, bool keep)
{
    uint64_t bytes = (pinning->lead_bytes + pinning->total_bytes) / page_bytes() * page_bytes();
    if (pinning->owned && pinning->lead_bytes == 0 && bytes > 0)
        (void)madvise(pinning->origin, bytes, keep ? MADV_DONTFORK : MADV_DOFORK);
}

/* What no piece holds whole, the caller is told. */
static void say_misaligned(struct kvbi_pinning *pinning)
{
    uint64_t across = pinning->total_bytes - bytes_within(pinning, pinning->piece_count);
    atomic_store(&pinning->refused_bytes, across);
    if (across > 0)
        kvbi_log(
            pinning->log, KVB_LOG_WARN, 0,
            "tier HOST: memory does not begin on a page: %llu of %llu bytes are not pinned in one piece; their "
            "copies take a detour",
            (unsigned long long)across, (unsigned long long)pinning->total_bytes);
}

static int start(struct kvbi_pinning *pinning, uint32_t threads)
{
    int error = 0;
    while (error == 0 && pinning->thread_count < threads) {
        error = kvbi_thread_start(&pinning->threads[pinning->thread_count], "kvblock-pin", run,
                                  pinning);
        pinning->thread_count += error == 0;
    }
    if (threads == 0)
        work(pinning);
    return error;
}

int kvbi_pinning_create(struct kvbi_tier *tier, struct kvbi_cuda *cuda, const struct kvbi_log *log,
                        uint32_t threads)
{
    struct kvbi_pinning *pinning =
        kvbi_memory_alloc(cuda->memory, 1, sizeof *pinning, _Alignof(struct kvbi_pinning));
    if (pinning == NULL)
        return KVB_ENOMEM;
    pinning->registration.ops = &kvbi_pinning_ops;
    pinning->cuda = cuda;
    pinning->memory = cuda->memory;
    pinning->log = log;
    pinning->owned = tier->owned;
    pinning->lead_bytes = (uintptr_t)tier->base % page_bytes();
    pinning->origin = tier->base - pinning->lead_bytes;
    pinning->block_bytes = tier->block_bytes;
    pinning->total_bytes = tier->block_count * tier->block_bytes;
    pinning->node = find_node(cuda);
    cut(pinning);
    pinning->touched =
        kvbi_memory_alloc(pinning->memory, pinning->piece_count, sizeof *pinning->touched, 0);
    if (pinning->touched == NULL || kvbi_lock_init(&pinning->lock, KVBI_RANK_ENGINE) != 0) {
        kvbi_memory_free(pinning->memory, pinning->touched, pinning->piece_count,
                         sizeof *pinning->touched);
        kvbi_memory_free(pinning->memory, pinning, 1, sizeof *pinning);
        return KVB_ENOMEM;
    }
    tier->registration = &pinning->registration;
    if (!tier->owned &&
        is_given(pinning,
                 tier->block_count)) { /* ours is new: what is pinned there is a leftover */
        use_given(pinning, tier->block_count);
        return 0;
    }
    keep_from_children(pinning, true);
    say_misaligned(pinning);
    return start(pinning, threads < KVBI_PIN_THREADS_MAX ? threads : KVBI_PIN_THREADS_MAX);
}

/*
 * Whatever is said of the context: it may live all the same, and then a registration outlives us. Of one that has been destroyed there are
 * none left. The bytes that stay registered.
 */
static uint64_t unregister_all(struct kvbi_pinning *pinning, cudaError_t *error)
{
    struct kvbi_cuda_scope scope;
    unsigned char *start;
    uint64_t bytes, kept = 0;
    kvbi_cuda_enter(pinning->cuda, &scope);
    for (uint64_t piece = scope.pushed ? atomic_load(&pinning->pinned_pieces) : 0; piece > 0;
         piece--) {
        piece_range(pinning, piece - 1, &start, &bytes);
        cudaError_t said = kvbi_cuda_check(&scope, cudaHostUnregister(start));
        if (said == cudaSuccess || said == cudaErrorHostMemoryNotRegistered)
            continue;
        *error = said;
        kept += bytes;
    }
    kvbi_cuda_leave(&scope);
    return kept;
}

/* False, and said: some of it stays registered. */
static bool release(struct kvbi_pinning *pinning)
{
    cudaError_t error = cudaSuccess;
    if (pinning->given)
        return true;
    uint64_t kept = unregister_all(pinning, &error);
    if (kept > 0)
        kvbi_log(pinning->log, KVB_LOG_WARN, KVB_EDEVICE,
                 "tier HOST: %llu bytes at %p stay registered with CUDA: %s (%d)%s",
                 (unsigned long long)kept, (void *)pinning->origin, cudaGetErrorName(error),
                 (int)error,
                 pinning->owned ? "; the tier's memory is not given back"
                                : "; do not use the tier's memory again");
    else
        keep_from_children(pinning, false);
    return kept == 0;
}

bool kvbi_pinning_destroy(struct kvbi_pinning *pinning)
{
    if (pinning == NULL)
        return true;
    atomic_store(&pinning->stop, true);
    while (pinning->thread_count > 0)
        (void)pthread_join(pinning->threads[--pinning->thread_count], NULL);
    bool released = release(pinning);
    kvbi_lock_fini(&pinning->lock);
    kvbi_memory_free(pinning->memory, pinning->touched, pinning->piece_count,
                     sizeof *pinning->touched);
    kvbi_memory_free(pinning->memory, pinning, 1, sizeof *pinning);
    return released;
}

uint64_t kvbi_pinning_bytes(const struct kvbi_pinning *pinning)
{
    return pinning != NULL ? bytes_within(pinning, atomic_load(&pinning->pinned_pieces)) : 0;
}

uint64_t kvbi_pinning_refused_bytes(const struct kvbi_pinning *pinning)
{
    return pinning != NULL ? atomic_load(&pinning->refused_bytes) : 0;
}

/* ---- How the tier knows it ------------------------------------------------------------------- */

static struct kvbi_pinning *of(struct kvbi_registration *registration)
{
    return (struct kvbi_pinning *)(void *)registration;
}

static bool destroy(struct kvbi_registration *registration)
{
    return kvbi_pinning_destroy(of(registration));
}

static uint64_t bytes_pinned(const struct kvbi_registration *registration)
{
    return kvbi_pinning_bytes((const struct kvbi_pinning *)(const void *)registration);
}

static uint64_t bytes_refused(const struct kvbi_registration *registration)
{
    return kvbi_pinning_refused_bytes((const struct kvbi_pinning *)(const void *)registration);
}

const struct kvbi_registration_ops kvbi_pinning_ops = {.destroy = destroy,
                                                       .bytes = bytes_pinned,
                                                       .refused_bytes = bytes_refused};
