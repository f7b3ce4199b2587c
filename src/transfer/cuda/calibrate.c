/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate - what works on this GPU with this driver and this layout, and what is fastest. See
 * copies.h.
 *
 * Why        which method wins depends on chunk size, count, device and driver (docs/gpu.md);
 *            measured here it needs no table that is wrong on the next GPU. The measurement is on
 *            memory of its own: the tier's may be the caller's, who may be using it.
 *            A trial is two loads back to back, as lanes have them: what the calls cost hides
 *            behind the copies of the load before, or does not. A method's first call may have code
 *            to load, so it is one for a few chunks, whose time is no trial's.
 *            Time is the system's, not the manager's clock: it is the GPU that is measured and the
 *            caller of create who waits, whatever a caller's clock says meanwhile.
 */
#include <stdio.h>
#include <time.h>

#include "transfer/cuda/copies.h"
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/scratch.h"

#define ROUNDS 3u
/* Of all that is done here. No copy begins that cannot be expected to end within it. */
#define BUDGET_NS UINT64_C(30000000)
/* What a first call may have to load; of kernels 1 to 10 ms have been seen. */
#define LOADING_NS UINT64_C(10000000)
#define LOADING_NOTHING_NS UINT64_C(1000000)

/*
 * By what one copy of the copy engine moves. Up to SMALL a kernel is several times faster on all
 * that has been published, and takes over as soon as it is faster here. Up to LARGE it has to be
 * worth the multiprocessors that it takes from the server, and beyond it cannot be: the copy engine
 * has all of the link by then.
 */
#define SMALL_RUN_BYTES ((uint64_t)16 << 10)
#define LARGE_RUN_BYTES ((uint64_t)64 << 10)
#define WORTH_A_KERNEL 1.25
/* More than what two measurements of the same may differ by. */
#define CLEARLY 1.05

/* Each thread block has a multiprocessor; more than one in 16 is never taken from the server. */
#define GRID_MAX 8u
#define GRID_UNMEASURED 4u
#define MULTIPROCESSORS_A_BLOCK 16

/* A method, the kernel once with each grid. */
struct contender {
    enum kvb_copy_method method;
    uint32_t grid;
    /* each by whether it goes to the device */
    uint64_t expected_ns[2]; /* of the next trial */
    uint64_t best_ns[2];     /* UINT64_MAX: none has ended */
    uint32_t trials[2];
};

struct calibration {
    struct kvbi_cuda_copier *copier;
    struct kvbi_cuda_scope *scope;
    struct kvbi_cuda_scratch scratch;
    cudaStream_t stream;
    uint64_t begun_ns, end_ns; /* no copy is to end later */
    uint64_t run_bytes;
    uint64_t first_call_ns; /* the longest of those both ways that had nothing to load */
    uint32_t grid_most;
    /* the end of a copy could not be waited for: the memory is not to be touched again */
    bool broken;
    uint32_t contender_count;
    struct contender contenders[6];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint32_t least_of(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ---- Trials ---------------------------------------------------------------------------------- */

/*
 * How long `count` loads take, from the first call to the end of the last; UINT64_MAX: it does not
 * work.
 */
static uint64_t time_loads(struct calibration *c, const struct contender *contender,
                           const struct kvbi_cuda_load *loads, uint32_t count)
{
    cudaError_t error = cudaSuccess;
    if (c->broken)
        return UINT64_MAX;
    c->copier->grids[loads->to_device] = contender->grid;
    uint64_t since = now_ns();
    for (uint32_t i = 0; error == cudaSuccess && i < count; i++)
        error = kvbi_cuda_copy(c->copier, c->scope, contender->method, &loads[i], c->stream);
    cudaError_t end = kvbi_cuda_check(c->scope, cudaStreamSynchronize(c->stream));
    uint64_t took = now_ns() - since;
    c->broken = end != cudaSuccess;
    return error == cudaSuccess && end == cudaSuccess ? took : UINT64_MAX;
}

static bool fits(const struct calibration *c, uint64_t expected_ns)
{
    uint64_t now = now_ns();
    return now < c->end_ns && expected_ns <= c->end_ns - now;
}

static void note_works(struct kvbi_cuda_copier *copier, enum kvb_copy_method method, bool works)
{
    if (method == KVB_COPY_BATCH)
        copier->batch = works;
    if (method == KVB_COPY_RECT)
        copier->rect = works;
    if (method == KVB_COPY_KERNEL)
        copier->kernel = works;
}

/*
 * A few chunks of one block each way. The way up comes second, when all is loaded, and is the
 * slower one in all that has been published: of it is taken what a trial will take at most, as if
 * all of it grew with the chunks.
 */
static bool call_first(struct calibration *c, struct contender *contender)
{
    uint32_t layers = c->scratch.strides.layers;
    struct kvbi_cuda_load load = {
        .pairs = c->scratch.pairs, .count = 1, .layers = least_of(2, layers)};
    bool works = time_loads(c, contender, &load, 1) != UINT64_MAX;
    load.to_device = true;
    uint64_t took = works ? time_loads(c, contender, &load, 1) : UINT64_MAX;
    works = took != UINT64_MAX;
    note_works(c->copier, contender->method, works);
    if (works && took > c->first_call_ns)
        c->first_call_ns = took;
    for (uint32_t way = 0; way < 2 && works; way++)
        contender->expected_ns[way] =
            took * ((2 * c->scratch.load_blocks * layers + load.layers - 1) / load.layers);
    return works;
}

static void run_trial(struct calibration *c, struct contender *contender, bool to_device)
{
    struct kvbi_cuda_load loads[2];
    for (uint32_t i = 0; i < 2; i++)
        loads[i] = (struct kvbi_cuda_load){.pairs = &c->scratch.pairs[i * c->scratch.load_blocks],
                                           .count = c->scratch.load_blocks,
                                           .layers = c->scratch.strides.layers,
                                           .to_device = to_device};
    uint64_t took = time_loads(c, contender, loads, 2);
    if (took == UINT64_MAX)
        note_works(c->copier, contender->method, false);
    contender->trials[to_device]++;
    contender->expected_ns[to_device] = took;
    if (took < contender->best_ns[to_device])
        contender->best_ns[to_device] = took;
}

/* UINT64_MAX: it is not known, or it does not work. */
static uint64_t time_of(const struct calibration *c, enum kvb_copy_method method, int way)
{
    uint64_t best_ns = UINT64_MAX;
    for (uint32_t i = 0; i < c->contender_count; i++)
        if (c->contenders[i].method == method && c->contenders[i].best_ns[way] < best_ns)
            best_ns = c->contenders[i].best_ns[way];
    return kvbi_cuda_method_works(c->copier, method) ? best_ns : UINT64_MAX;
}

/* How many times as fast; 0: one of them is not known. */
static double gain(uint64_t ns, uint64_t over_ns)
{
    return ns != UINT64_MAX && over_ns != UINT64_MAX ? (double)over_ns / (double)ns : 0;
}

/* What takes twice as long as the best, or does not work, is tried once and no more. */
static bool hopeless(const struct calibration *c, const struct contender *contender, int way)
{
    bool hopeless = !kvbi_cuda_method_works(c->copier, contender->method);
    for (uint32_t i = 0; i < c->contender_count; i++)
        hopeless |= gain(c->contenders[i].best_ns[way], contender->best_ns[way]) > 2;
    return hopeless;
}

/* Each is to have had `trials` of them, one way in turn with the other. */
static void run_trials(struct calibration *c, uint32_t trials)
{
    for (uint32_t i = 0; i < c->contender_count; i++)
        for (int way = 0; way < 2; way++) {
            struct contender *contender = &c->contenders[i];
            if (contender->trials[way] < trials && !hopeless(c, contender, way) &&
                fits(c, contender->expected_ns[way]))
                run_trial(c, contender, way != 0);
        }
}

/* ---- Contenders ------------------------------------------------------------------------------ */

static uint32_t find_grid_most(const struct calibration *c)
{
    int multiprocessors = 0;
    (void)kvbi_cuda_check(c->scope,
                          cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount,
                                                 c->copier->cuda->device));
    if (multiprocessors < 2 * MULTIPROCESSORS_A_BLOCK)
        return 1;
    return least_of((uint32_t)(multiprocessors / MULTIPROCESSORS_A_BLOCK), GRID_MAX);
}

/* If it works. */
static void enrol(struct calibration *c, enum kvb_copy_method method)
{
    struct contender contender = {
        .method = method, .grid = least_of(2, c->grid_most), .best_ns = {UINT64_MAX, UINT64_MAX}};
    if (!kvbi_cuda_method_works(c->copier, method) || !call_first(c, &contender))
        return;
    uint32_t most = method == KVB_COPY_KERNEL ? c->grid_most : contender.grid;
    for (; contender.grid <= most; contender.grid *= 2)
        c->contenders[c->contender_count++] = contender;
}

static void enrol_in_time(struct calibration *c, enum kvb_copy_method method, uint64_t loading_ns)
{
    if (fits(c, loading_ns + 2 * c->first_call_ns))
        enrol(c, method);
}

/* ---- The choice ------------------------------------------------------------------------------ */

/* The smallest that the best one is not clearly faster than. Its time. */
static uint64_t choose_grid(struct calibration *c, int way)
{
    uint64_t best_ns = time_of(c, KVB_COPY_KERNEL, way);
    c->copier->grids[way] = least_of(GRID_UNMEASURED, c->grid_most);
    for (uint32_t i = 0; i < c->contender_count && best_ns != UINT64_MAX; i++) {
        const struct contender *contender = &c->contenders[i];
        if (contender->method != KVB_COPY_KERNEL || contender->best_ns[way] == UINT64_MAX ||
            gain(best_ns, contender->best_ns[way]) > CLEARLY)
            continue;
        c->copier->grids[way] = contender->grid;
        return contender->best_ns[way];
    }
    return UINT64_MAX;
}

/* Not the worst anywhere. */
static enum kvb_copy_method unmeasured(const struct kvbi_cuda_copier *copier)
{
    return copier->batch ? KVB_COPY_BATCH : KVB_COPY_PLAIN;
}

static enum kvb_copy_method choose(struct calibration *c, int way)
{
    static const enum kvb_copy_method others[] = {KVB_COPY_PLAIN, KVB_COPY_RECT};
    enum kvb_copy_method chosen = unmeasured(c->copier);
    uint64_t usual_ns = time_of(c, chosen, way), ns = usual_ns;
    for (int i = 0; i < 2; i++) {
        uint64_t other_ns = time_of(c, others[i], way);
        if (gain(other_ns, usual_ns) > CLEARLY && other_ns < ns) {
            chosen = others[i];
            ns = other_ns;
        }
    }
    uint64_t kernel_ns = choose_grid(c, way);
    bool worth_it =
        c->run_bytes <= SMALL_RUN_BYTES ? kernel_ns < ns : gain(kernel_ns, ns) >= WORTH_A_KERNEL;
    return worth_it ? KVB_COPY_KERNEL : chosen;
}

/*
 * What matters most comes first. Whether batches work has to be known, whatever that takes: what
 * they load, the first flight would have to.
 */
static void compare(struct calibration *c)
{
    struct kvbi_cuda_copier *copier = c->copier;
    enrol(c, KVB_COPY_BATCH);
    enrol_in_time(c, KVB_COPY_KERNEL, LOADING_NS);
    run_trials(c, 1);
    enrol_in_time(c, KVB_COPY_PLAIN, LOADING_NOTHING_NS);
    enrol_in_time(c, KVB_COPY_RECT, LOADING_NOTHING_NS);
    for (uint32_t round = 1; round <= ROUNDS; round++)
        run_trials(c, round);
    for (int way = 0; way < 2; way++)
        copier->methods[way] = choose(c, way);
}

/* Whether what the caller has named works is not a matter of time; its grid is. */
static void try_named(struct calibration *c, enum kvb_copy_method method)
{
    enrol(c, method);
    if (method != KVB_COPY_KERNEL)
        return;
    for (uint32_t round = 1; round <= ROUNDS; round++)
        run_trials(c, round);
    for (int way = 0; way < 2; way++)
        (void)choose_grid(c, way);
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* What one copy of the copy engine moves: chunks of a block that are neighbours on both sides. */
static uint64_t run_bytes(const struct kvbi_strides *strides)
{
    bool parts_joined = strides->parts == 1 || strides->part == strides->chunk;
    uint64_t parts = strides->parts * strides->chunk;
    if (!parts_joined)
        return strides->chunk;
    return strides->bases == NULL && strides->layer == parts ? strides->layers * parts : parts;
}

static int refuse_tables(const struct calibration *c, cudaError_t error, char *message,
                         size_t message_bytes)
{
    (void)snprintf(message, message_bytes,
                   "tiers[DEVICE]: CUDA device %d has no room for tables: %s (%d)",
                   c->copier->cuda->device, cudaGetErrorName(error), (int)error);
    return error == cudaErrorMemoryAllocation ? KVB_ENOMEM : KVB_EDEVICE;
}

/* What may work, for all that is known before it is tried. */
static int find_possible(struct calibration *c, enum kvb_copy_method method, char *message,
                         size_t message_bytes)
{
    static const enum kvb_copy_method methods[] = {KVB_COPY_BATCH, KVB_COPY_RECT, KVB_COPY_KERNEL};
    struct kvbi_cuda_copier *copier = c->copier;
    bool all = method == KVB_COPY_AUTO;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        note_works(copier, methods[i],
                   (all || method == methods[i]) &&
                       kvbi_cuda_method_possible(copier, c->scope, methods[i]));
    copier->kernel &= !all || c->run_bytes <= LARGE_RUN_BYTES;
    cudaError_t error =
        kvbi_cuda_check(c->scope, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    if (error == cudaSuccess && copier->kernel)
        error =
            kvbi_cuda_upload_bases(c->scope, copier->strides, &copier->bases_on_device, c->stream);
    if (error == cudaErrorMemoryAllocation && all) {
        copier->kernel = false; /* without its table */
        return 0;
    }
    return error != cudaSuccess ? refuse_tables(c, error, message, message_bytes) : 0;
}

/* With what has been taken; giving it back is expected to take as long as taking it did. */
static void calibrate(struct calibration *c, enum kvb_copy_method method)
{
    struct kvbi_cuda_copier *copier = c->copier;
    const struct kvbi_strides *strides = copier->strides;
    unsigned char *base = copier->base, **bases = copier->bases_on_device;
    uint64_t taking_ns = now_ns() - c->begun_ns;
    c->end_ns = c->begun_ns + (taking_ns < BUDGET_NS ? BUDGET_NS - taking_ns : 0);
    copier->strides = &c->scratch.strides;
    copier->base = c->scratch.device;
    copier->bases_on_device = c->scratch.bases_on_device;
    if (method == KVB_COPY_AUTO)
        compare(c);
    else
        try_named(c, method);
    copier->strides = strides;
    copier->base = base;
    copier->bases_on_device = bases;
}

/*
 * What does. Without room to try it in, what may work is believed: a flight that its method refuses
 * is made chunk by chunk.
 */
static int find_methods(struct calibration *c, enum kvb_copy_method method, char *message,
                        size_t message_bytes)
{
    struct kvbi_cuda_copier *copier = c->copier;
    cudaError_t error = c->stream != NULL
                            ? kvbi_cuda_scratch_take(&c->scratch, c->scope, copier, c->stream)
                            : cudaErrorMemoryAllocation;
    if (error != cudaSuccess && error != cudaErrorMemoryAllocation)
        return refuse_tables(c, error, message, message_bytes);
    c->grid_most = copier->kernel ? find_grid_most(c) : 1;
    copier->grids[0] = copier->grids[1] = least_of(GRID_UNMEASURED, c->grid_most);
    copier->methods[0] = copier->methods[1] = method != KVB_COPY_AUTO ? method : unmeasured(copier);
    if (error == cudaSuccess)
        calibrate(c, method);
    return 0;
}

static void end(struct calibration *c)
{
    if (c->stream != NULL) {
        (void)kvbi_cuda_check(c->scope, cudaStreamSynchronize(c->stream));
        (void)kvbi_cuda_check(c->scope, cudaStreamDestroy(c->stream));
    }
    kvbi_cuda_scratch_give(&c->scratch, c->scope);
}

static int refuse_method(enum kvb_copy_method method, char *message, size_t message_bytes)
{
    (void)snprintf(message, message_bytes,
                   "tiers[DEVICE].copy_method: %s does not work here (driver, layout or build)",
                   kvbi_cuda_method_name(method));
    return KVB_EUNSUPPORTED;
}

int kvbi_cuda_copier_create(struct kvbi_cuda_copier *copier, struct kvbi_cuda *cuda,
                            unsigned char *base, enum kvb_copy_method method, char *message,
                            size_t message_bytes)
{
    struct kvbi_cuda_scope scope;
    struct calibration c = {.copier = copier,
                            .scope = &scope,
                            .begun_ns = now_ns(),
                            .run_bytes = run_bytes(&cuda->strides)};
    *copier = (struct kvbi_cuda_copier){.cuda = cuda, .strides = &cuda->strides, .base = base};
    kvbi_cuda_enter(cuda, &scope);
    int error = find_possible(&c, method, message, message_bytes);
    if (error == 0)
        error = find_methods(&c, method, message, message_bytes);
    if (error == 0 && !kvbi_cuda_method_works(copier, method))
        error = refuse_method(method, message, message_bytes);
    end(&c);
    kvbi_cuda_leave(&scope);
    if (c.broken || kvbi_cuda_lost(cuda)) {
        (void)snprintf(message, message_bytes, "tiers[DEVICE]: copies on CUDA device %d do not end",
                       cuda->device);
        if (kvbi_cuda_lost(cuda))
            kvbi_cuda_why(cuda, message, message_bytes);
        error = KVB_EDEVICE;
    }
    if (error != 0)
        kvbi_cuda_copier_destroy(copier);
    return error;
}

void kvbi_cuda_copier_destroy(struct kvbi_cuda_copier *copier)
{
    struct kvbi_cuda_scope scope;
    if (copier->bases_on_device == NULL || kvbi_cuda_context_lost(copier->cuda))
        return;
    kvbi_cuda_enter(copier->cuda, &scope);
    (void)kvbi_cuda_check(&scope, cudaFree(copier->bases_on_device));
    kvbi_cuda_leave(&scope);
    copier->bases_on_device = NULL;
}
