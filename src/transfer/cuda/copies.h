/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copies - how the bytes of blocks are put onto a stream
 *
 * Owns       the choice of method, and the room to collect chunks in.
 * Callers    the engine, from progress; calibration, at create.
 * Invariants every method moves the same bytes. Chunks that are next to each other on both sides
 *            become one copy, unless it would cross two allocations of the device or two
 *            registrations of the host.
 * Lock       none: one caller at a time.
 */
#ifndef KVBI_TRANSFER_CUDA_COPIES_H
#define KVBI_TRANSFER_CUDA_COPIES_H

#include <stdbool.h>
#include <stdint.h>

#include "transfer/cuda/device.h"
#include "transfer/cuda/gather.h"

/*
 * In one call. Drivers have hung on 51,828 (reported for 580.159), and one call costs nothing
 * beside 2,048 copies.
 */
#define KVBI_CUDA_BATCH_MAX 2048u

/* One block: its slot of the device, and where its bytes are in registered host memory. */
struct kvbi_cuda_pair {
    uint32_t slot;
    unsigned char *host;
    /* a name for the piece that it lies in: CUDA refuses a copy across two */
    const void *registration;
};

struct kvbi_cuda_copier {
    struct kvbi_cuda *cuda;
    const struct kvbi_strides *strides;
    unsigned char *base;             /* of the device's memory, with the strides */
    unsigned char **bases_on_device; /* for the kernel, where layers have bases */
    bool batch, rect, kernel;        /* what works here */
    enum kvb_copy_method methods[2]; /* by whether it goes to the device */
    uint32_t grids[2];               /* by the same: the kernel's thread blocks */

    uint32_t entries; /* that it has put onto streams so far; it may wrap */
    uint32_t count;
    void *to[KVBI_CUDA_BATCH_MAX];
    const void *from[KVBI_CUDA_BATCH_MAX];
    size_t bytes[KVBI_CUDA_BATCH_MAX];
};

/* What one call moves: layers [first, first + layers) of `count` blocks. */
struct kvbi_cuda_load {
    const struct kvbi_cuda_pair *pairs;
    uint32_t count, first, layers;
    bool to_device;
};

cudaError_t kvbi_cuda_copy(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                           enum kvb_copy_method method, const struct kvbi_cuda_load *load,
                           cudaStream_t stream);

/*
 * As many entries of a stream as a load of `blocks` blocks and `layers` layers takes at most: a run
 * that blocks share is counted for each.
 */
uint64_t kvbi_cuda_copy_entries(const struct kvbi_cuda_copier *copier, enum kvb_copy_method method,
                                uint32_t blocks, uint32_t layers);

/* May it work, for all that driver, GPU, layout and build say before it is tried? */
bool kvbi_cuda_method_possible(const struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                               enum kvb_copy_method method);
bool kvbi_cuda_method_works(const struct kvbi_cuda_copier *copier, enum kvb_copy_method method);
const char *kvbi_cuda_method_name(enum kvb_copy_method method);

/*
 * For the kernel, which reads the layers' bases from the device's memory: *on_device is to be freed
 * there, whatever is said. Nothing where layers have none. `stream` is waited for.
 */
cudaError_t kvbi_cuda_upload_bases(struct kvbi_cuda_scope *scope,
                                   const struct kvbi_strides *strides, unsigned char ***on_device,
                                   cudaStream_t stream);

/*
 * Finds out what works, by doing it where there is memory for that, with KVB_COPY_AUTO what is
 * fastest, and how large the kernel's grid should be. 0; KVB_EUNSUPPORTED: the method that is asked
 * for does not work here; KVB_ENOMEM, KVB_EDEVICE. In words.
 */
int kvbi_cuda_copier_create(struct kvbi_cuda_copier *copier, struct kvbi_cuda *cuda,
                            unsigned char *base, enum kvb_copy_method method, char *message,
                            size_t message_bytes);
void kvbi_cuda_copier_destroy(struct kvbi_cuda_copier *copier);

#endif
