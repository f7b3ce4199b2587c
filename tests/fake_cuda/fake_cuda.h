/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_cuda - a stand-in for the CUDA runtime: the manual for who writes tests on it
 *
 * Linked in place of libcudart_static. Streams are threads that run their work in order and later
 * than the call, device memory is memory that host code cannot touch, and what a real GPU would
 * punish once in a thousand runs is reported every time. It knows nothing of kvblock: no bandwidth,
 * no driver bugs, no real timing of errors.
 *
 *     fake_cuda_start(&(struct fake_cuda_config){.seed = 7});
 *     ... the test: creates a stream as the server would, launches kernels, lets it copy ...
 *     assert_int_equal(fake_cuda_end(), 0); // anything reported and not taken, anything leaked
 *
 * ---- What is checked ----------------------------------------------------------------------------
 *
 * Order. Every task of a stream (copy, kernel) says which ranges it reads and writes. It is ordered
 * after the earlier tasks of its stream, after what cudaStreamWaitEvent made the stream wait for,
 * and after what the host had *observed* when it enqueued: cudaEventQuery or cudaStreamQuery that
 * returned success, a synchronisation, a host function that ran, a word that a stream has written
 * and fake_cuda_read_word has shown. Two tasks that overlap, one of
 * them writing, without such an order are FAKE_CUDA_RACE. Decided by vector clocks when the second
 * is enqueued, so that it is reported whatever the timing was. All host threads count as one
 * observer; what one thread tells another without a lock is ThreadSanitizer's part, which sees the
 * stand-in's streams ordered by exactly these rules and by nothing inside the stand-in. The copies
 * of one batch are unordered among each other. A source with cudaMemcpySrcAccessOrderAny is ordered
 * by the host only, not by its stream.
 *
 * Default streams. They exist for the server: kernels run there, and events are recorded and waited
 * for. Whatever else names one is FAKE_CUDA_DEFAULT_STREAM, and so is a stream that is created
 * without cudaStreamNonBlocking, which works all the same. What is enqueued on the legacy stream of
 * a device comes after all that its blocking streams have been given, the per-thread ones included,
 * and what they are given later comes after that.
 *
 * Devices. A copy wants memory of its stream's device, cudaEventRecord an event of it, a kernel
 * launch wants it to be current; copies and events do not care which device is current. As in CUDA
 * 12 and later, cudaSetDevice, and whatever allocates, creates a context on the device, for good:
 * see fake_cuda_has_context. One that was made through the driver goes with its last reference, and
 * the runtime uses it as it is while it is pushed.
 *
 * Host code. Dereferencing a device pointer crashes, as on a machine with a GPU: use fake_cuda_read
 * and fake_cuda_write. What host code does to pinned memory cannot be seen: say it with
 * fake_cuda_host_reads and fake_cuda_host_writes.
 *
 * A call whose arguments are reported fails, with CUDA's code where that is known and
 * cudaErrorInvalidValue elsewhere, and nothing that is not allocated or pinned is ever touched. A
 * task that is reported as a race keeps its place in its stream and moves nothing, so that
 * ThreadSanitizer has nothing to add.
 *
 * Threads: everything may be called from any thread; start and end with no other call running.
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_CUDA_MAX_DEVICES 4

/* ---- A run ----------------------------------------------------------------------------------- */

/* Zero means the default. */
struct fake_cuda_config {
    /* of delays before each task and of the order inside batches; 0: no delays, in order */
    uint64_t seed;
    int devices;     /* 1 */
    bool no_devices; /* cudaErrorNoDevice from cudaGetDeviceCount and everything that needs one */
    /* 13000; one below the runtime's major version: cudaErrorInsufficientDriver from every call */
    int driver_version;
    bool no_driver;      /* the same with driver version 0, as without any driver installed */
    size_t device_bytes; /* 1 GiB a device, at most 8; beyond: cudaErrorMemoryAllocation */
    size_t pinned_bytes; /* allocated and registered in all; no limit */
    /* in one cudaHostRegister; no limit. Beyond either: cudaErrorMemoryAllocation */
    size_t register_bytes;
    /* in one cudaMemcpyBatchAsync; 4096. More is FAKE_CUDA_MISUSE: drivers were seen to crash */
    size_t batch_copies;
    /*
     * tasks in one stream, 1000. A call that enqueues one more on a stream that is held, or waits
     * for one that is, is FAKE_CUDA_FULL
     */
    size_t stream_entries;
    bool no_write_value; /* the driver has no cuStreamWriteValue32 */
};

/*
 * A program that calls no start runs with the defaults from its first CUDA call on. NULL: the
 * defaults.
 */
void fake_cuda_start(const struct fake_cuda_config *config);

/*
 * Ends the run: work that is still queued is dropped, streams are joined, what is left over is
 * reported as FAKE_CUDA_LEAK. Returns how many reports nobody took, after printing them on stderr.
 * Every handle and device pointer is void afterwards.
 */
size_t fake_cuda_end(void);

/* ---- Reports --------------------------------------------------------------------------------- */

#define FAKE_CUDA_REPORT_KINDS(X)                                                                  \
    X(RACE)       /* two tasks overlap and nothing orders them */                                  \
    X(HOST_RACE)  /* the host touches what a task may still be working on */                       \
    X(BATCH_RACE) /* copies of one batch overlap */                                                \
    X(PAGEABLE)   /* host memory that is not pinned in an asynchronous copy or kernel */           \
    X(BOUNDS)     /* past the end of an allocation, or across two registrations */                 \
    X(FREED)      /* memory that was freed */                                                      \
    /* freed or unregistered before the host observed the end of a task on it; the task is */      \
    /* dropped */                                                                                  \
    X(FREED_IN_USE)                                                                                \
    X(WRONG_DEVICE)   /* see above */                                                              \
    X(WRONG_KIND)     /* a cudaMemcpyKind that the pointers are not */                             \
    X(DEFAULT_STREAM) /* the legacy or the per-thread default stream, see above */                 \
    /* a stream or event that was destroyed or never created, a pointer freed twice */             \
    X(BAD_HANDLE)                                                                                  \
    X(CAPTURE)      /* a call that breaks a capture, or gets caught in one */                      \
    X(SYNCHRONISED) /* a call that may wait, on a thread marked with fake_cuda_server_thread */    \
    X(FULL)         /* a call that would wait in the driver: its stream takes no more entries */   \
    X(MISUSE)       /* arguments that CUDA forbids; a CUDA call inside a host function */          \
    X(LEAK)         /* at the end: streams, events, allocations, registrations */

enum fake_cuda_report_kind {
#define FAKE_CUDA_REPORT_ENUM(name) FAKE_CUDA_##name,
    FAKE_CUDA_REPORT_KINDS(FAKE_CUDA_REPORT_ENUM)
#undef FAKE_CUDA_REPORT_ENUM
};

/*
 * How many reports wait to be taken; the text of the i-th, valid until the next report, take or
 * end.
 */
size_t fake_cuda_report_count(void);
const char *fake_cuda_report_text(size_t index);

/* Takes the oldest report of a kind. False: there is none. */
bool fake_cuda_take_report(enum fake_cuda_report_kind kind);

/* Drops all reports of a kind and says how many there were. */
size_t fake_cuda_take_reports(enum fake_cuda_report_kind kind);

/* ---- The host's side of memory --------------------------------------------------------------- */

/*
 * Device memory from host code. Checked like every access: bounds, and the order against all tasks.
 */
void fake_cuda_read(void *to, const void *device_from, size_t bytes);
void fake_cuda_write(void *device_to, const void *from, size_t bytes);
void fake_cuda_fill(void *device_to, int value, size_t bytes);
int fake_cuda_compare(const void *device, const void *expected, size_t bytes); /* as memcmp */

/* "Host code reads (writes) this pinned memory now." */
void fake_cuda_host_reads(const void *pinned, size_t bytes);
void fake_cuda_host_writes(const void *pinned, size_t bytes);

/*
 * "Host code looks at this word, which a stream may write (cuStreamWriteValue32)": what it has. The
 * host has observed all that was in the stream before the write. A look past this function shows
 * the number and counts for nothing.
 */
uint32_t fake_cuda_read_word(const void *pinned);

bool fake_cuda_is_device_pointer(const void *pointer);
bool fake_cuda_is_pinned(const void *pointer, size_t bytes);
bool fake_cuda_has_context(int device);

/* ---- Kernels --------------------------------------------------------------------------------- */

struct fake_cuda_range {
    const void *start;
    size_t bytes;
    bool written; /* else read */
};

typedef void (*fake_cuda_kernel_fn)(void *args);

/*
 * Launches a kernel: when its turn comes, `fn` runs on the stream's thread with a copy of the
 * arguments, as a launch copies them. NULL: nothing runs, the ranges count all the same. Reads and
 * writes no memory but that of `ranges`, device memory through fake_cuda_storage. A range of pinned
 * memory is fine.
 */
cudaError_t fake_cuda_kernel(cudaStream_t stream, fake_cuda_kernel_fn fn, const void *args,
                             size_t args_bytes, const struct fake_cuda_range *ranges,
                             size_t range_count);

/*
 * Where the bytes of a device pointer are; any other pointer is returned as it is. For the inside
 * of kernels only.
 */
void *fake_cuda_storage(const void *pointer);

/* ---- Time ------------------------------------------------------------------------------------ */

/*
 * The stream runs nothing more until it is released. NULL: every stream, those created later
 * included.
 */
void fake_cuda_hold(cudaStream_t stream);
void fake_cuda_release(cudaStream_t stream);

/*
 * Lets that many tasks of a held stream (NULL: of each) through. Event records and waits count as
 * tasks, too.
 */
void fake_cuda_allow(cudaStream_t stream, unsigned tasks);

/* Returns once no stream can go on: idle, held, or waiting for the event of one that is. */
void fake_cuda_quiesce(void);

/* Tasks that have been enqueued in all and have run in all. */
uint64_t fake_cuda_tasks_enqueued(void);
uint64_t fake_cuda_tasks_run(void);

/* ---- Faults ---------------------------------------------------------------------------------- */

enum fake_cuda_repeat { FAKE_CUDA_ONCE, FAKE_CUDA_FOR_EVER };

/*
 * The n-th call (1: the next) of an entry point, e.g. "cudaMemcpyAsync", or of any (NULL), returns
 * `code` and does nothing; with FOR_EVER every later one, too. fake_cuda_kernel is
 * "fake_cuda_kernel". A sticky code (700, 719, ...) breaks the device as fake_cuda_break_device
 * does. Up to 16 plans at once; calls for words and versions never fail. A driver without batches:
 * "cudaMemcpyBatchAsync", 1, cudaErrorNotSupported, for ever. The driver's own functions count by
 * their names, too.
 */
void fake_cuda_fail(const char *call, unsigned n, cudaError_t code, enum fake_cuda_repeat repeat);

/*
 * In the next cudaMemcpyBatchAsync the copies before `index` are enqueued, then it returns `code`.
 */
void fake_cuda_fail_descriptor(size_t index, cudaError_t code);

/*
 * The device's context is lost: queued work is dropped, host functions are not called, every later
 * call that concerns the device returns `code`, and so does cudaGetLastError, which does not clear
 * it. Nothing of a broken device is a leak.
 */
void fake_cuda_break_device(int device, cudaError_t code);

/*
 * The n-th copy task to run from now on (1: the next) moves half of its bytes, and then its device
 * breaks.
 */
void fake_cuda_break_in_copy(unsigned n, cudaError_t code);

/*
 * `seen` runs at each call of an entry point from now on, in the caller's thread and before
 * anything else happens: it can make time pass, or never return. It must not call CUDA or the
 * stand-in. One at a time; NULL: nobody any more. The end of the run forgets it.
 */
void fake_cuda_watch(const char *call, void (*seen)(void *context), void *context);

/* All plans are forgotten; devices that are broken stay so. */
void fake_cuda_forget_faults(void);

/* How often an entry point was called since the start, whatever it returned. NULL: all together. */
unsigned fake_cuda_calls(const char *call);

/* ---- The server's thread, and captures ------------------------------------------------------- */

/*
 * From now on every call of this thread that may wait for the device is FAKE_CUDA_SYNCHRONISED.
 * False: no longer.
 */
void fake_cuda_server_thread(bool marked);

/*
 * cudaStreamBeginCapture and cudaStreamEndCapture. The second says
 * cudaErrorStreamCaptureInvalidated if a call broke the capture in between. Kernels launched on a
 * capturing stream are captured: they do not run.
 */
cudaError_t fake_cuda_capture_begin(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t fake_cuda_capture_end(cudaStream_t stream);

#endif
