/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the replay does with the bytes of device blocks, in the server's stead: it computes them,
 * and it looks at them. One of two files is behind it: device_host.c, or device_cuda.c where blocks
 * may lie in a GPU's memory.
 */
#ifndef REPLAY_DEVICE_H
#define REPLAY_DEVICE_H

#include <stddef.h>

/* What --device-memory takes besides "host"; NULL: nothing. */
extern const char *const device_memory_name;

/*
 * Before the first of the others, with chunks of that many bytes in `on_gpu` memory or the host's.
 * 0, or -1.
 */
int device_open(int on_gpu, size_t chunk_bytes);
/* Where to write a chunk's bytes, and that they are written. NULL, -1: it failed. */
void *device_write_begin(void *chunk);
int device_write_end(void *chunk);
/* A chunk's bytes, until the next call. NULL: it failed. */
const void *device_read(void *chunk);
/* Gives everything back. 0, or -1: something was wrong with what was done to the GPU. */
int device_close(void);

#endif
