/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory - device memory that host code cannot touch, and which host memory is pinned
 *
 * Owns an arena a device and the table of live blocks: allocated on a device, allocated pinned,
 * registered. Device memory is two ranges of addresses: the one that is handed out allows no access
 * at all, so that host code that dereferences it crashes as with a GPU; the bytes are in the other,
 * which only streams use. No address is handed out twice in a run and gaps lie between blocks, so
 * that a stale pointer is told from one that ran over the end.
 * Why not page-aligned: cudaMalloc promises 256 bytes; nobody shall come to rely on more.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_BYTES ((size_t)16 << 30)
#define GAP_BYTES ((size_t)64 << 10)
#define DEVICE_ALIGNMENT ((size_t)256)
#define JUNK_LIMIT_BYTES ((size_t)64 << 20) /* to fill more would only be slow */

static struct fake_block *blocks; /* sorted by start */
static size_t block_count;
static size_t block_capacity;
static size_t pinned_bytes;

static struct fake_span *freed; /* device memory */
static size_t freed_count;
static size_t freed_capacity;

static size_t round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* How many blocks start at or below the address. */
static size_t count_up_to(uintptr_t address)
{
    size_t low = 0, high = block_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct fake_block *fake_block_find(const void *address)
{
    size_t count = count_up_to((uintptr_t)address);
    const struct fake_block *block = count ? &blocks[count - 1] : NULL;
    return block && (uintptr_t)address - block->start < block->bytes ? block : NULL;
}

static void add_block(struct fake_block block)
{
    size_t at = count_up_to(block.start);
    blocks = fake_grow(blocks, block_count, &block_capacity, sizeof *blocks);
    memmove(&blocks[at + 1], &blocks[at], (block_count - at) * sizeof *blocks);
    blocks[at] = block;
    block_count++;
    if (block.kind != FAKE_BLOCK_DEVICE)
        pinned_bytes += block.bytes;
}

static void remove_block(const struct fake_block *block)
{
    size_t at = (size_t)(block - blocks);
    if (block->kind != FAKE_BLOCK_DEVICE)
        pinned_bytes -= block->bytes;
    block_count--;
    memmove(&blocks[at], &blocks[at + 1], (block_count - at) * sizeof *blocks);
}

static bool may_pin(size_t bytes)
{
    size_t limit = fake.config.pinned_bytes;
    return !limit || (pinned_bytes <= limit && bytes <= limit - pinned_bytes);
}

/* ---- Arenas ---------------------------------------------------------------------------------- */

static struct fake_arena *arena_of(const void *address)
{
    for (int device = 0; device < FAKE_CUDA_MAX_DEVICES; device++) {
        struct fake_arena *arena = &fake.arenas[device];
        if (arena->view && (uintptr_t)address - (uintptr_t)arena->view < ARENA_BYTES)
            return arena;
    }
    return NULL;
}

bool fake_is_device_address(const void *address)
{
    return arena_of(address);
}

bool fake_was_device_block(const void *address)
{
    for (size_t i = 0; i < freed_count; i++)
        if ((uintptr_t)address >= freed[i].start && (uintptr_t)address < freed[i].end)
            return true;
    return false;
}

void *fake_storage(const void *address)
{
    const struct fake_arena *arena = arena_of(address);
    if (!arena)
        return (void *)(uintptr_t)address;
    return arena->storage + ((uintptr_t)address - (uintptr_t)arena->view);
}

static void *map(size_t bytes, int protection)
{
    void *address =
        mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

static void junk(void *address, size_t bytes)
{
    if (bytes <= JUNK_LIMIT_BYTES)
        memset(address, 0xA5, bytes);
}

void fake_memory_start(void)
{
    for (int device = 0; device < fake.config.devices; device++) {
        struct fake_arena *arena = &fake.arenas[device];
        arena->view = map(ARENA_BYTES, PROT_NONE);
        arena->storage = map(ARENA_BYTES, PROT_NONE);
        if (!arena->view || !arena->storage)
            abort();
    }
}

static cudaError_t allocate_device(void **pointer, size_t bytes, int device)
{
    struct fake_arena *arena = &fake.arenas[device];
    size_t mapped = round_up(bytes + DEVICE_ALIGNMENT, FAKE_PAGE_BYTES);
    if (bytes > fake.config.device_bytes || arena->used_bytes > fake.config.device_bytes - bytes)
        return cudaErrorMemoryAllocation;
    if (mapped + GAP_BYTES > ARENA_BYTES - arena->next) {
        fake_report(FAKE_CUDA_MISUSE,
                    "cudaMalloc: the addresses of device %d are used up, end the run earlier",
                    device);
        return cudaErrorMemoryAllocation;
    }
    if (mprotect(arena->storage + arena->next, mapped, PROT_READ | PROT_WRITE))
        return cudaErrorMemoryAllocation;
    junk(arena->storage + arena->next, mapped);
    *pointer = arena->view + arena->next + DEVICE_ALIGNMENT;
    arena->next += mapped + GAP_BYTES;
    arena->used_bytes += bytes;
    add_block((struct fake_block){
        .start = (uintptr_t)*pointer, .bytes = bytes, .kind = FAKE_BLOCK_DEVICE, .device = device});
    return cudaSuccess;
}

/* The bytes go back to the system; the addresses stay taken. */
static void free_device(const struct fake_block *block)
{
    struct fake_arena *arena = &fake.arenas[block->device];
    char *storage = (char *)fake_storage((void *)block->start) - DEVICE_ALIGNMENT;
    size_t mapped = round_up(block->bytes + DEVICE_ALIGNMENT, FAKE_PAGE_BYTES);
    if (mmap(storage, mapped, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0) == MAP_FAILED)
        abort();
    arena->used_bytes -= block->bytes;
    freed = fake_grow(freed, freed_count, &freed_capacity, sizeof *freed);
    freed[freed_count++] =
        (struct fake_span){.start = block->start, .end = block->start + block->bytes};
}

/* Inaccessible pages on both sides. */
static void *allocate_host(size_t bytes)
{
    size_t inner = round_up(bytes, FAKE_PAGE_BYTES);
    char *outer = map(inner + 2 * FAKE_PAGE_BYTES, PROT_NONE);
    if (!outer || mprotect(outer + FAKE_PAGE_BYTES, inner, PROT_READ | PROT_WRITE))
        return NULL;
    junk(outer + FAKE_PAGE_BYTES, inner);
    return outer + FAKE_PAGE_BYTES;
}

static void free_host(const struct fake_block *block)
{
    munmap((void *)(block->start - FAKE_PAGE_BYTES),
           round_up(block->bytes, FAKE_PAGE_BYTES) + 2 * FAKE_PAGE_BYTES);
}

/* ---- Entry points ---------------------------------------------------------------------------- */

#define ALLOCATES (FAKE_MAKES_CONTEXT | FAKE_MAY_WAIT | FAKE_UNSAFE_IN_CAPTURE)

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    cudaError_t error = fake_enter(__func__, ALLOCATES);
    if (!error && !pointer)
        error = cudaErrorInvalidValue;
    if (!error && !bytes)
        *pointer = NULL;
    else if (!error)
        error = allocate_device(pointer, bytes, fake_this_thread()->device);
    return fake_leave(error);
}

/* The block that starts there and is of that kind; NULL after a report. */
static const struct fake_block *block_to_free(const void *pointer, enum fake_block_kind kind,
                                              const char *call)
{
    const struct fake_block *block = fake_block_find(pointer);
    if (!block || block->start != (uintptr_t)pointer || block->kind != kind) {
        fake_report(FAKE_CUDA_BAD_HANDLE, "%s of %p, which is no such memory, or no longer", call,
                    pointer);
        return NULL;
    }
    fake_log_drop(pointer, block->bytes, call); /* may wait: the table may be another afterwards */
    return fake_block_find(pointer);
}

cudaError_t cudaFree(void *pointer)
{
    cudaError_t error = fake_enter(__func__, ALLOCATES);
    const struct fake_block *block = NULL;
    if (!error && pointer && !(block = block_to_free(pointer, FAKE_BLOCK_DEVICE, __func__)))
        error = cudaErrorInvalidValue;
    if (!error && block) {
        free_device(block);
        remove_block(block);
    }
    return fake_leave(error);
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned int flags)
{
    cudaError_t error = fake_enter(__func__, ALLOCATES);
    if (!error && (!pointer || flags > 7))
        error = cudaErrorInvalidValue;
    if (!error && flags & cudaHostAllocWriteCombined)
        fake_report(FAKE_CUDA_MISUSE, "%s: write-combined memory, which host code reads uncached",
                    __func__);
    if (!error && !bytes) {
        *pointer = NULL;
    } else if (!error) {
        *pointer = may_pin(bytes) ? allocate_host(bytes) : NULL;
        if (!*pointer)
            error = cudaErrorMemoryAllocation;
        else
            add_block((struct fake_block){.start = (uintptr_t)*pointer,
                                          .bytes = bytes,
                                          .kind = FAKE_BLOCK_HOST,
                                          .device = fake_this_thread()->device});
    }
    return fake_leave(error);
}

cudaError_t cudaFreeHost(void *pointer)
{
    cudaError_t error = fake_enter(__func__, ALLOCATES);
    const struct fake_block *block = NULL;
    if (!error && pointer && !(block = block_to_free(pointer, FAKE_BLOCK_HOST, __func__)))
        error = cudaErrorInvalidValue;
    if (!error && block) {
        free_host(block);
        remove_block(block);
    }
    return fake_leave(error);
}

/* Pages are what is pinned: two registrations that share one collide. */
static bool pages_are_taken(uintptr_t start, uintptr_t end)
{
    uintptr_t from = start / FAKE_PAGE_BYTES * FAKE_PAGE_BYTES, to = round_up(end, FAKE_PAGE_BYTES);
    for (size_t i = 0; i < block_count; i++) {
        uintptr_t taken_from = blocks[i].start / FAKE_PAGE_BYTES * FAKE_PAGE_BYTES;
        uintptr_t taken_to = round_up(blocks[i].start + blocks[i].bytes, FAKE_PAGE_BYTES);
        if (taken_from < to && from < taken_to)
            return true;
    }
    return false;
}

/* Whether every page of it is mapped by somebody. */
static bool is_mapped(uintptr_t start, uintptr_t end)
{
    uintptr_t from = start / FAKE_PAGE_BYTES * FAKE_PAGE_BYTES;
    return !msync((void *)from, round_up(end - from, FAKE_PAGE_BYTES), MS_ASYNC);
}

static cudaError_t register_host(void *pointer, size_t bytes)
{
    uintptr_t start = (uintptr_t)pointer, end;
    if (!pointer || !bytes || __builtin_add_overflow(start, bytes, &end) || arena_of(pointer) ||
        !is_mapped(start, end))
        return cudaErrorInvalidValue;
    if (pages_are_taken(start, end))
        return cudaErrorHostMemoryAlreadyRegistered;
    if (!may_pin(bytes) || (fake.config.register_bytes && bytes > fake.config.register_bytes))
        return cudaErrorMemoryAllocation;
    add_block((struct fake_block){.start = start,
                                  .bytes = bytes,
                                  .kind = FAKE_BLOCK_REGISTERED,
                                  .device = fake_this_thread()->device});
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned int flags)
{
    cudaError_t error = fake_enter(__func__, ALLOCATES);
    if (!error && flags > 15)
        error = cudaErrorInvalidValue;
    return fake_leave(error ? error : register_host(pointer, bytes));
}

cudaError_t cudaHostUnregister(void *pointer)
{
    cudaError_t error = fake_enter(__func__, ALLOCATES);
    const struct fake_block *block = NULL;
    if (!error && !(block = block_to_free(pointer, FAKE_BLOCK_REGISTERED, __func__)))
        error = cudaErrorHostMemoryNotRegistered;
    if (!error)
        remove_block(block);
    return fake_leave(error);
}

void fake_memory_end(void)
{
    static const char *const names[] = {"cudaMalloc", "cudaHostAlloc", "cudaHostRegister"};
    for (size_t i = 0; i < block_count; i++) {
        if (!fake.broken[blocks[i].device])
            fake_report(FAKE_CUDA_LEAK, "%s: %p + %zu", names[blocks[i].kind],
                        (void *)blocks[i].start, blocks[i].bytes);
        if (blocks[i].kind == FAKE_BLOCK_HOST)
            free_host(&blocks[i]);
    }
    for (int device = 0; device < FAKE_CUDA_MAX_DEVICES; device++)
        if (fake.arenas[device].view) {
            munmap(fake.arenas[device].view, ARENA_BYTES);
            munmap(fake.arenas[device].storage, ARENA_BYTES);
        }
    free(freed);
    freed = NULL;
    freed_count = freed_capacity = 0;
    free(blocks);
    blocks = NULL;
    block_count = block_capacity = pinned_bytes = 0;
}
