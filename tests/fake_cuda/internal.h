/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal - what the files of the stand-in runtime share
 *
 * Owns the one state of a run, `fake`, and the words for it.
 * Lock: fake_lock guards everything here, but for the fields of a task while its stream runs it.
 * Functions declared here want the lock held unless they say otherwise; entry points take it in
 * fake_enter... and give it back in fake_leave.
 */
#ifndef FAKE_CUDA_INTERNAL_H
#define FAKE_CUDA_INTERNAL_H

#include "fake_cuda.h"

#include <pthread.h>

#define FAKE_MAX_STREAMS 128
#define FAKE_PAGE_BYTES ((size_t)4096)

/* ---- sync.c: the lock, and what ThreadSanitizer is told -------------------------------------- */

void fake_lock(void);
void fake_unlock(void);
void fake_wait(pthread_cond_t *condition);

/*
 * "What this thread did so far" and "comes before what that thread does next": the only edges
 * ThreadSanitizer sees.
 */
void fake_edge_from(void *key);
void fake_edge_to(void *key);

/* ---- races.c: who has seen what -------------------------------------------------------------- */

/*
 * For each stream the last of its ticks that is known to be over. A slot's ticks go on when another
 * stream takes it.
 */
struct fake_clock {
    uint64_t tick[FAKE_MAX_STREAMS];
};

struct fake_span {
    uintptr_t start;
    uintptr_t end;
};

/* Sorted and disjoint once fake_spans_sort has run. */
struct fake_spans {
    struct fake_span *items;
    size_t count;
    size_t capacity;
};

struct fake_task;

void fake_spans_add(struct fake_spans *spans, const void *start, size_t bytes);
/* False: two of them overlapped. */
bool fake_spans_sort(struct fake_spans *spans);
/* An overlap of the two, or NULL. */
const struct fake_span *fake_spans_meet(const struct fake_spans *left,
                                        const struct fake_spans *right);

void fake_clock_join(struct fake_clock *into, const struct fake_clock *from);

/*
 * Reports what the task races with, and then drops it. Logs it until the host has observed its end.
 */
void fake_log_add(struct fake_task *task, const struct fake_clock *reads_after,
                  const struct fake_clock *writes_after);
bool fake_log_has(unsigned slot);
/* False: reported. */
bool fake_log_check_host(const void *start, size_t bytes, bool written, const char *who);
/*
 * The memory is about to go: reports and drops tasks that the host has not seen end, waits for one
 * that runs.
 */
void fake_log_drop(const void *start, size_t bytes, const char *who);
void fake_log_clear(void);

/* The host has seen that everything in the clock is over. */
void fake_host_observes(const struct fake_clock *clock);

/* ---- tasks.c, streams.c: tasks and streams --------------------------------------------------- */

/* A point in a stream's work: what an event stands for between two records. */
struct fake_point {
    unsigned references;
    bool reached;
    bool lost; /* its device broke first */
    struct fake_clock clock;
};

struct fake_copy {
    void *to; /* storage or host, not a device pointer */
    const void *from;
    size_t bytes;
};

enum fake_task_kind {
    FAKE_TASK_COPY,
    FAKE_TASK_KERNEL,
    FAKE_TASK_RECORD,
    FAKE_TASK_WAIT,
    FAKE_TASK_WORD,
    FAKE_TASK_HOST_FUNCTION
};

struct fake_task {
    struct fake_task *next_queued;
    struct fake_task *next_logged;
    enum fake_task_kind kind;
    const char *call; /* the entry point, for reports */
    unsigned slot;    /* of its stream */
    uint64_t tick;
    bool queued; /* or running */
    bool running;
    bool logged;
    bool dropped;
    bool breaks; /* its device, half-way */
    struct fake_spans reads;
    struct fake_spans writes;
    struct fake_copy *copies; /* FAKE_TASK_COPY */
    size_t copy_count;
    size_t copy_capacity;
    fake_cuda_kernel_fn kernel; /* FAKE_TASK_KERNEL */
    void *args;
    struct fake_point *point; /* RECORD, WAIT, WORD, HOST_FUNCTION */
    uint32_t *word;           /* FAKE_TASK_WORD */
    uint32_t number;
    cudaHostFn_t host_function;
    void *user_data;
};

struct fake_stream {
    bool live;
    bool has_thread;
    bool closing;
    bool held;
    bool running;
    bool blocking; /* ordered with the legacy stream of its device */
    bool legacy;
    const void *owner; /* of a default stream: its thread, or `fake` where it is the legacy one */
    size_t entries;    /* tasks in the queue */
    unsigned allowance;
    unsigned generation;
    int device;
    pthread_t thread;
    pthread_cond_t work;
    struct fake_task *first;
    struct fake_task *last;
    struct fake_clock clock;
    uint64_t tick_running; /* where `running` */
    uint64_t random;
    enum cudaStreamCaptureStatus capture;
    enum cudaStreamCaptureMode capture_mode;
    const void *capture_thread;
};

struct fake_event {
    bool live;
    bool captured;
    unsigned generation;
    int device;
    struct fake_point *point;
};

struct fake_task *fake_task_new(enum fake_task_kind kind, const char *call);
void fake_task_release(struct fake_task *task); /* frees it once it is neither queued nor logged */
void fake_task_copy(struct fake_task *task, void *to, const void *from, size_t bytes);
void fake_task_run(struct fake_task *task, struct fake_stream *stream); /* lock not held */

/* Behind everything that the clock knows. */
struct fake_point *fake_point_new(const struct fake_clock *clock);
void fake_point_unref(struct fake_point *point);

/*
 * Takes the task over; gives it its tick, its place in queue and log. reads_after: NULL for the
 * stream's own order.
 */
void fake_stream_enqueue(struct fake_stream *stream, struct fake_task *task,
                         const struct fake_clock *reads_after);
/*
 * The work that a legacy stream and the blocking ones share is put in order. Before a point of the
 * stream is made; enqueueing does it as well.
 */
void fake_stream_meet_default(struct fake_stream *stream);
bool fake_stream_idle(const struct fake_stream *stream);
bool fake_stream_over(const struct fake_stream *stream, uint64_t tick); /* all up to that one */
bool fake_stream_may_run(const struct fake_stream *stream);
unsigned fake_stream_slot(const struct fake_stream *stream);
void fake_stream_drop(struct fake_stream *stream); /* what is queued */
void fake_streams_end(void);                       /* lock not held: drops, joins */
void fake_streams_wake(void);

/* NULL after a report (a default stream, or no stream at all). */
struct fake_stream *fake_stream_find(cudaStream_t handle, const char *call);
struct fake_event *fake_event_find(cudaEvent_t handle, const char *call);
void fake_events_clear(void);
size_t fake_events_live(void);

/* ---- words.c --------------------------------------------------------------------------------- */

/* The task's word has its number from here on. Lock not held. */
void fake_word_written(struct fake_task *task);
void fake_words_clear(void);
int fake_write_value(cudaStream_t handle, unsigned long long address, uint32_t number,
                     unsigned flags);

/* ---- memory.c -------------------------------------------------------------------------------- */

enum fake_block_kind { FAKE_BLOCK_DEVICE, FAKE_BLOCK_HOST, FAKE_BLOCK_REGISTERED };

struct fake_block {
    uintptr_t start;
    size_t bytes;
    enum fake_block_kind kind;
    int device;
};

struct fake_arena {
    char *view;    /* the addresses that are handed out: no access */
    char *storage; /* where their bytes are */
    size_t next;   /* offset that was never handed out */
    size_t used_bytes;
};

/* The live block that holds the address, or NULL. */
const struct fake_block *fake_block_find(const void *address);
/* cudaSuccess, or reports why a task of `device` may not use [address, address + bytes). */
cudaError_t fake_memory_check(const void *address, size_t bytes, int device, const char *call);
bool fake_is_device_address(const void *address);
bool fake_was_device_block(const void *address); /* before it was freed */
void *fake_storage(const void *address);
void fake_memory_start(void);
void fake_memory_end(void); /* reports leaks */

/* ---- inject.c, enter.c, capture.c, reports.c ------------------------------------------------- */

enum fake_enter_flags {
    FAKE_MAKES_CONTEXT = 1, /* on the current device */
    FAKE_MAY_WAIT = 2,      /* for the device */
    /* "potentially unsafe" in the words of cudaThreadExchangeStreamCaptureMode */
    FAKE_UNSAFE_IN_CAPTURE = 4,
    FAKE_WITHOUT_DEVICE = 8, /* works where there is no device, and on a broken one */
};

struct fake_thread {
    uint64_t run; /* else: from an earlier run, all void */
    int device;
    cudaError_t last_error;
    bool server;
    bool in_host_function;
    enum cudaStreamCaptureMode capture_mode;
};

/*
 * Every entry point begins with one of these, which take the lock, and ends with fake_leave,
 * whatever they returned.
 */
cudaError_t fake_enter(const char *call, unsigned flags);
cudaError_t fake_enter_stream(const char *call, unsigned flags, cudaStream_t handle,
                              struct fake_stream **stream);
cudaError_t fake_enter_event(const char *call, unsigned flags, cudaEvent_t handle,
                             struct fake_event **event);
cudaError_t fake_leave(cudaError_t error);
void fake_enter_helper(void); /* for calls that are not CUDA's: the lock and a started run */
struct fake_thread *fake_this_thread(void);

void fake_call_count(const char *call);
cudaError_t fake_call_planned(const char *call, int device); /* the fault that is due */
bool fake_descriptor_planned(size_t *index, cudaError_t *code);
cudaError_t fake_break_planned(void); /* asked once for each copy task that starts */
void fake_break(int device, cudaError_t code);
/* its sticky code; who gets to know it is ordered after all that the device did */
cudaError_t fake_broken(int device);
void fake_inject_clear(void);

cudaError_t fake_capture_check_unsafe(const char *call);
/*
 * A legacy stream is to be used while a blocking one captures: breaks that capture, unless `asks`.
 */
cudaError_t fake_capture_check_legacy(const struct fake_stream *stream, const char *call,
                                      bool asks);
/* A capturing stream was asked for something that a capture does not survive. */
cudaError_t fake_capture_break(struct fake_stream *stream, cudaError_t code, const char *call,
                               const char *what);

void fake_report(enum fake_cuda_report_kind kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
size_t fake_reports_end(void); /* prints and drops all */

/* ---- Contexts -------------------------------------------------------------------------------- */

/* This thread has one of the driver's, which the runtime then uses as it is. */
bool fake_context_is_pushed(void);

/* ---- The state of a run ---------------------------------------------------------------------- */

struct fake_state {
    uint64_t run; /* counts starts */
    bool started;
    struct fake_cuda_config config;
    struct fake_arena arenas[FAKE_CUDA_MAX_DEVICES];
    bool has_context[FAKE_CUDA_MAX_DEVICES]; /* of the runtime's own making */
    unsigned contexts_retained[FAKE_CUDA_MAX_DEVICES];
    unsigned contexts_pushed;                  /* on all threads */
    cudaError_t broken[FAKE_CUDA_MAX_DEVICES]; /* the sticky code */
    struct fake_stream streams[FAKE_MAX_STREAMS];
    struct fake_clock host; /* what the host has observed */
    bool hold_new_streams;
    uint64_t tasks_enqueued;
    uint64_t tasks_run;
    pthread_cond_t changed; /* for host code that waits */
};

extern struct fake_state fake;

void *fake_grow(void *items, size_t count, size_t *capacity, size_t item_bytes);

#endif
