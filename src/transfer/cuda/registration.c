/* SPDX-License-Identifier: Apache-2.0 */
/* registration - see registration.h. */
#include "transfer/cuda/registration.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/platform.h"

/*
 * At 0.1 s a GB, which is what registering was seen to take (vLLM #51081), some 6 ms in which every
 * launch of the process waits for the driver's locks. Cut down to whole blocks at least half of it
 * is left.
 */
#define PIECE_BYTES ((uint64_t)64 << 20)
/* Drivers refuse 512 GiB in one registration; a piece never gets near. */
#define PIECE_BYTES_MAX ((uint64_t)64 << 30)
/* In a piece of memory that does not begin on a page: one block in so many lies across an edge. */
#define MISALIGNED_BLOCKS_MIN 16u
/* Of memory that the caller may have registered: half a microsecond each, before serving begins. */
#define LOOKS_MAX 16384u

/* ---- Pieces ---------------------------------------------------------------------------------- */

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
static void cut(struct kvbi_cuda_registration *r)
{
    uint64_t step =
        r->block_bytes / greatest_common_divisor(r->block_bytes, page_bytes()) * page_bytes();
    uint64_t least = r->lead_bytes != 0 ? MISALIGNED_BLOCKS_MIN * step : step;
    uint64_t piece = least > PIECE_BYTES ? least : PIECE_BYTES / step * step;
    uint64_t whole = pages_up(r->lead_bytes + r->total_bytes);
    if (piece > PIECE_BYTES_MAX || piece > whole)
        piece = whole;
    r->piece_bytes = piece;
    r->piece_count = (whole + piece - 1) / piece;
}

uint64_t kvbi_cuda_registration_bytes_within(const struct kvbi_cuda_registration *r,
                                             uint64_t pieces)
{
    uint64_t end = pieces * r->piece_bytes, all = r->lead_bytes + r->total_bytes;
    if (pieces == 0)
        return 0;
    uint64_t blocks = ((end < all ? end : all) - r->lead_bytes) / r->block_bytes;
    uint64_t across = r->lead_bytes % r->block_bytes != 0 ? pieces - 1 : 0;
    return (blocks - across) * r->block_bytes;
}

void kvbi_cuda_registration_piece_range(const struct kvbi_cuda_registration *r, uint64_t piece,
                                        unsigned char **start, uint64_t *bytes)
{
    uint64_t first = piece * r->piece_bytes;
    uint64_t rest = pages_up(r->lead_bytes + r->total_bytes) - first;
    *start = r->origin + first;
    *bytes = rest < r->piece_bytes ? rest : r->piece_bytes;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

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

static bool is_registered(struct kvbi_cuda_scope *scope, const unsigned char *byte)
{
    struct cudaPointerAttributes attributes = {.type = cudaMemoryTypeUnregistered};
    cudaError_t error = kvbi_cuda_check(scope, cudaPointerGetAttributes(&attributes, byte));
    return error == cudaSuccess && attributes.type == cudaMemoryTypeHost;
}

/*
 * Has the caller registered its memory? Then the first and the last byte of its blocks say so; of
 * very many, those of some all over.
 */
static bool is_given(const struct kvbi_cuda_registration *r, uint64_t block_count)
{
    struct kvbi_cuda_scope scope;
    const unsigned char *base = r->origin + r->lead_bytes;
    uint64_t looks = block_count < LOOKS_MAX ? block_count : LOOKS_MAX;
    kvbi_cuda_enter(r->cuda, &scope);
    bool registered = is_registered(&scope, base + r->total_bytes - 1);
    for (uint64_t i = 0; registered && i < looks; i++) {
        const unsigned char *block = base + i * block_count / looks * r->block_bytes;
        registered =
            is_registered(&scope, block) && is_registered(&scope, block + r->block_bytes - 1);
    }
    kvbi_cuda_leave(&scope);
    return registered;
}

static void use_given(struct kvbi_cuda_registration *r, uint64_t block_count)
{
    r->given = true;
    r->origin += r->lead_bytes;
    r->lead_bytes = 0;
    r->piece_bytes = r->block_bytes;
    atomic_store(&r->registered_pieces, block_count);
}

/*
 * A child of the server's, forked while the GPU copies, would share the pages, and whoever writes
 * first gets another page than the GPU has. Only ours are kept from children: the caller's memory
 * may be meant for them.
 */
static void keep_from_children(const struct kvbi_cuda_registration *r, bool keep)
{
    uint64_t bytes = (r->lead_bytes + r->total_bytes) / page_bytes() * page_bytes();
    if (r->owned && r->lead_bytes == 0 && bytes > 0)
        (void)madvise(r->origin, bytes, keep ? MADV_DONTFORK : MADV_DOFORK);
}

/* What no piece has whole, the caller is told. */
static void say_misaligned(struct kvbi_cuda_registration *r)
{
    uint64_t across = r->total_bytes - kvbi_cuda_registration_bytes_within(r, r->piece_count);
    atomic_store(&r->refused_bytes, across);
    if (across > 0)
        kvbi_log(
            r->log, KVB_LOG_WARN, 0,
            "tier HOST: memory does not begin on a page: %llu of %llu bytes are not pinned in one "
            "piece; their copies take a detour",
            (unsigned long long)across, (unsigned long long)r->total_bytes);
}

static void *run(void *argument)
{
    struct kvbi_cuda_registration *r = argument;
    kvbi_cuda_registration_prefer_node(r->node);
    kvbi_cuda_registration_work(r);
    return NULL;
}

static int start(struct kvbi_cuda_registration *r, uint32_t threads)
{
    int error = 0;
    while (error == 0 && r->thread_count < threads) {
        error = kvbi_thread_start(&r->threads[r->thread_count], "kvblock-pin", run, r);
        r->thread_count += error == 0;
    }
    if (threads == 0)
        kvbi_cuda_registration_work(r);
    return error;
}

static int init_locks(struct kvbi_cuda_registration *r)
{
    if (kvbi_lock_init(&r->lock, KVBI_RANK_ENGINE) != 0)
        return KVB_ENOMEM;
    if (kvbi_cond_init(&r->stopped) == 0)
        return 0;
    kvbi_lock_fini(&r->lock);
    return KVB_ENOMEM;
}

static void free_all(struct kvbi_cuda_registration *r)
{
    kvbi_memory_free(r->memory, r->touched, r->piece_count, sizeof *r->touched);
    kvbi_memory_free(r->memory, r, 1, sizeof *r);
}

int kvbi_cuda_registration_create(struct kvbi_tier *tier, struct kvbi_cuda *cuda,
                                  const struct kvbi_register_config *config)
{
    KVBI_ASSERT(config->duty_percent >= 1 && config->duty_percent <= 100);
    struct kvbi_cuda_registration *r =
        kvbi_memory_alloc(cuda->memory, 1, sizeof *r, _Alignof(struct kvbi_cuda_registration));
    if (r == NULL)
        return KVB_ENOMEM;
    r->registration.ops = &kvbi_cuda_registration_ops;
    r->cuda = cuda;
    r->memory = cuda->memory;
    r->log = config->log;
    r->hooks = config->hooks;
    r->duty_percent = config->duty_percent;
    kvbi_clock_init(&r->clock, r->hooks != NULL ? r->hooks->pin_clock : NULL);
    r->owned = tier->owned;
    r->lead_bytes = (uintptr_t)tier->base % page_bytes();
    r->origin = tier->base - r->lead_bytes;
    r->block_bytes = tier->block_bytes;
    r->total_bytes = tier->block_count * tier->block_bytes;
    r->node = find_node(cuda);
    cut(r);
    r->touched = kvbi_memory_alloc(r->memory, r->piece_count, sizeof *r->touched, 0);
    if (r->touched == NULL || init_locks(r) != 0) {
        free_all(r);
        return KVB_ENOMEM;
    }
    tier->registration = &r->registration;
    if (!tier->owned && is_given(r, tier->block_count)) {
        /* ours is new: what is registered there is a leftover */
        use_given(r, tier->block_count);
        return 0;
    }
    keep_from_children(r, true);
    say_misaligned(r);
    return start(r, config->threads < KVBI_REGISTER_THREADS_MAX ? config->threads
                                                                : KVBI_REGISTER_THREADS_MAX);
}

/*
 * Whatever is said of the context: it may live all the same, and then a registration outlives us.
 * Of one that has been destroyed there are none left. The bytes that stay registered.
 */
static uint64_t unregister_all(struct kvbi_cuda_registration *r, cudaError_t *error)
{
    struct kvbi_cuda_scope scope;
    unsigned char *start;
    uint64_t bytes, kept = 0;
    kvbi_cuda_enter(r->cuda, &scope);
    for (uint64_t piece = scope.pushed ? atomic_load(&r->registered_pieces) : 0; piece > 0;
         piece--) {
        kvbi_cuda_registration_piece_range(r, piece - 1, &start, &bytes);
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
static bool release(struct kvbi_cuda_registration *r)
{
    cudaError_t error = cudaSuccess;
    if (r->given)
        return true;
    uint64_t kept = unregister_all(r, &error);
    if (kept > 0)
        kvbi_log(r->log, KVB_LOG_WARN, KVB_EDEVICE,
                 "tier HOST: %llu bytes at %p stay registered with CUDA: %s (%d)%s",
                 (unsigned long long)kept, (void *)r->origin, cudaGetErrorName(error), (int)error,
                 r->owned ? "; the tier's memory is not given back"
                          : "; do not use the tier's memory again");
    else
        keep_from_children(r, false);
    return kept == 0;
}

bool kvbi_cuda_registration_destroy(struct kvbi_cuda_registration *r)
{
    if (r == NULL)
        return true;
    kvbi_lock_take(&r->lock);
    r->stop = true;
    kvbi_cond_broadcast(&r->stopped);
    kvbi_lock_release(&r->lock);
    while (r->thread_count > 0)
        (void)pthread_join(r->threads[--r->thread_count], NULL);
    bool released = release(r);
    kvbi_cond_fini(&r->stopped);
    kvbi_lock_fini(&r->lock);
    free_all(r);
    return released;
}

uint64_t kvbi_cuda_registration_bytes(const struct kvbi_cuda_registration *r)
{
    return r != NULL ? kvbi_cuda_registration_bytes_within(r, atomic_load(&r->registered_pieces))
                     : 0;
}

uint64_t kvbi_cuda_registration_refused_bytes(const struct kvbi_cuda_registration *r)
{
    return r != NULL ? atomic_load(&r->refused_bytes) : 0;
}

/* ---- How the tier knows it ------------------------------------------------------------------- */

static struct kvbi_cuda_registration *of(struct kvbi_registration *registration)
{
    return (struct kvbi_cuda_registration *)(void *)registration;
}

static bool destroy(struct kvbi_registration *registration)
{
    return kvbi_cuda_registration_destroy(of(registration));
}

static uint64_t bytes_pinned(const struct kvbi_registration *registration)
{
    return kvbi_cuda_registration_bytes(
        (const struct kvbi_cuda_registration *)(const void *)registration);
}

static uint64_t bytes_refused(const struct kvbi_registration *registration)
{
    return kvbi_cuda_registration_refused_bytes(
        (const struct kvbi_cuda_registration *)(const void *)registration);
}

const struct kvbi_registration_ops kvbi_cuda_registration_ops = {.destroy = destroy,
                                                                 .bytes = bytes_pinned,
                                                                 .refused_bytes = bytes_refused};
