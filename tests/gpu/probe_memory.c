/* SPDX-License-Identifier: Apache-2.0 */
/* probe_memory - what a pointer is, registrations, what lies across two, batches. See probe.h. */
#include "probe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PIECE ((size_t)65536)
#define FLAGS (cudaHostRegisterPortable | cudaHostRegisterMapped)

static int type_of(const void *address)
{
    struct cudaPointerAttributes attributes;
    memset(&attributes, 0, sizeof attributes);
    cudaError_t error = cudaPointerGetAttributes(&attributes, address);
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error == cudaSuccess ? (int)attributes.type : -(int)error;
}

static cudaError_t forget(cudaError_t error)
{
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error;
}

/* ---- Pointers and registrations -------------------------------------------------------------- */

static void ask_pointers(const struct probe_scene *scene, const unsigned char *plain)
{
    unsigned char *freed = NULL;
    probe_number(40, "type of memory that CUDA does not know (0: unregistered)", type_of(plain),
                 cudaMemoryTypeUnregistered);
    probe_number(41, "type of the last byte of device memory",
                 type_of(scene->device + scene->bytes - 1), cudaMemoryTypeDevice);
    (void)PROBE_NEED(cudaMalloc((void **)&freed, PIECE));
    (void)PROBE_NEED(cudaFree(freed));
    probe_number(42, "type of device memory that was freed", type_of(freed),
                 cudaMemoryTypeUnregistered);
    probe_number(43, "type of the last byte of cudaHostAlloc",
                 type_of(scene->pinned + scene->bytes - 1), cudaMemoryTypeHost);
    probe_code(
        44, "cudaMemcpyAsync of pageable memory",
        forget(cudaMemcpyAsync(scene->device, plain, PIECE, cudaMemcpyHostToDevice, scene->a)),
        cudaSuccess);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
}

static void ask_registrations(const struct probe_scene *scene, unsigned char *plain)
{
    void *seen = NULL;
    probe_code(45, "cudaHostRegister of 64 KiB", cudaHostRegister(plain, PIECE, FLAGS),
               cudaSuccess);
    probe_code(46, "of the next 64 KiB", cudaHostRegister(plain + PIECE, PIECE, FLAGS),
               cudaSuccess);
    probe_code(47, "of 64 KiB across the two",
               forget(cudaHostRegister(plain + PIECE / 2, PIECE, FLAGS)),
               cudaErrorHostMemoryAlreadyRegistered);
    probe_number(48, "type of the last registered byte", type_of(plain + 2 * PIECE - 1),
                 cudaMemoryTypeHost);
    probe_number(49, "type of the first byte behind it", type_of(plain + 2 * PIECE),
                 cudaMemoryTypeUnregistered);
    (void)PROBE_NEED(cudaHostGetDevicePointer(&seen, plain, 0));
    probe_number(50, "the GPU's address of registered memory is the host's", seen == plain, 1);
    probe_code(51, "cudaMemcpyAsync across two registrations",
               forget(cudaMemcpyAsync(scene->device, plain + PIECE - 4096, 8192,
                                      cudaMemcpyHostToDevice, scene->a)),
               cudaErrorInvalidValue);
    probe_code(52, "cudaMemcpy2DAsync of rows in both of them",
               forget(cudaMemcpy2DAsync(scene->device, 4096, plain + PIECE - 4096, 4096, 4096, 2,
                                        cudaMemcpyHostToDevice, scene->a)),
               cudaSuccess);
    void *to[1] = {scene->device};
    const void *from[1] = {plain + PIECE - 4096};
    const size_t bytes[1] = {8192};
    probe_code(
        53, "cudaMemcpyBatchAsync across the two",
        forget(probe_batch(to, from, bytes, 1, probe_attributes(true, false, false), scene->a)),
        cudaErrorInvalidValue);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    probe_code(54, "cudaHostRegister of cudaHostAlloc's memory",
               forget(cudaHostRegister(scene->pinned, PIECE, FLAGS)),
               cudaErrorHostMemoryAlreadyRegistered);
    (void)PROBE_NEED(cudaHostUnregister(plain + PIECE));
    (void)PROBE_NEED(cudaHostUnregister(plain));
    probe_number(55, "type of memory that is registered no more", type_of(plain),
                 cudaMemoryTypeUnregistered);
}

static void ask_edges_of_pages(unsigned char *plain)
{
    (void)PROBE_NEED(cudaHostRegister(plain, 6000, FLAGS));
    probe_code(56, "cudaHostRegister from the middle of a page that another one ends in",
               forget(cudaHostRegister(plain + 6016, 4096, FLAGS)),
               cudaErrorHostMemoryAlreadyRegistered);
    (void)PROBE_NEED(cudaHostUnregister(plain));
    void *hole = mmap(NULL, PIECE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (hole == MAP_FAILED || munmap(hole, PIECE) != 0)
        return;
    probe_code(57, "cudaHostRegister of addresses where nothing is mapped",
               forget(cudaHostRegister(hole, PIECE, FLAGS)), cudaErrorInvalidValue);
}

void probe_memory(const struct probe_scene *scene)
{
    unsigned char *plain = aligned_alloc(4096, 4 * PIECE);
    if (plain == NULL)
        return;
    memset(plain, 1, 4 * PIECE);
    ask_pointers(scene, plain);
    ask_registrations(scene, plain);
    ask_edges_of_pages(plain);
    free(plain);
}

/* ---- Batches --------------------------------------------------------------------------------- */

#define COPIES 2048u
#define COPY_BYTES ((size_t)4096)

struct copies {
    void *to[COPIES];
    const void *from[COPIES];
    size_t bytes[COPIES];
};

/* Every second chunk of the device's, so that neighbours are no run; pinned ones shuffled. */
static void lay_out(struct copies *copies, const struct probe_scene *scene, bool up)
{
    for (size_t i = 0; i < COPIES; i++) {
        unsigned char *device = scene->device + 2 * i * COPY_BYTES,
                      *pinned = scene->pinned + (i * 1237 % COPIES) * COPY_BYTES;
        copies->to[i] = up ? device : pinned;
        copies->from[i] = up ? pinned : device;
        copies->bytes[i] = COPY_BYTES;
    }
}

static long long count_wrong(const unsigned char *bytes, unsigned salt)
{
    long long wrong = 0;
    for (size_t i = 0; i < COPIES * COPY_BYTES; i++)
        wrong += bytes[i] != (unsigned char)(i / 7 + salt);
    return wrong;
}

/* Up and down again through the device, one batch each. How many bytes are wrong, or -code. */
static long long there_and_back(const struct probe_scene *scene, struct copies *copies,
                                bool in_stream_order, bool overlap)
{
    static unsigned salt;
    salt += 11;
    for (size_t i = 0; i < COPIES * COPY_BYTES; i++)
        scene->pinned[i] = (unsigned char)(i / 7 + salt);
    for (int up = 1; up >= 0; up--) {
        lay_out(copies, scene, up);
        cudaError_t error =
            forget(probe_batch(copies->to, copies->from, copies->bytes, COPIES,
                               probe_attributes(up, in_stream_order, overlap), scene->a));
        if (error == cudaSuccess)
            error = cudaStreamSynchronize(scene->a);
        if (error != cudaSuccess)
            return -(long long)error;
        if (up)
            memset(scene->pinned, 0, COPIES * COPY_BYTES);
    }
    return count_wrong(scene->pinned, salt);
}

void probe_batches(const struct probe_scene *scene)
{
    struct copies *copies = malloc(sizeof *copies);
    if (copies == NULL)
        return;
    probe_number(60, "wrong bytes after 2048 copies up and down in a batch (negative: a code)",
                 there_and_back(scene, copies, false, false), 0);
    probe_number(61, "with PreferOverlapWithCompute", there_and_back(scene, copies, false, true),
                 0);
    probe_number(62, "with sources in stream order", there_and_back(scene, copies, true, false), 0);
    probe_number(63, "with both", there_and_back(scene, copies, true, true), 0);
    probe_code(64, "a batch of one copy",
               probe_batch(copies->to, copies->from, copies->bytes, 1,
                           probe_attributes(false, true, false), scene->a),
               cudaSuccess);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    probe_code(65, "a batch on the legacy stream",
               forget(probe_batch(copies->to, copies->from, copies->bytes, 1,
                                  probe_attributes(false, true, false), cudaStreamLegacy)),
               cudaErrorInvalidValue);
    free(copies);
}
