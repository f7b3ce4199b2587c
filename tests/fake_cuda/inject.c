/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inject - the faults that a test plans
 *
 * Owns the plans, and how often each entry point was called.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PLANS 16
#define MAX_CALLS 64

struct plan {
    const char *call; /* NULL: any */
    unsigned left;    /* calls until it is due, 0: not in use */
    cudaError_t code;
    enum fake_cuda_repeat repeat;
};

static struct plan plans[MAX_PLANS];

static struct {
    size_t index;
    cudaError_t code;
} descriptor_plan;

static struct {
    unsigned left;
    cudaError_t code;
} break_plan;

static struct {
    const char *call;
    unsigned count;
} calls[MAX_CALLS];

static struct {
    const char *call;
    void (*seen)(void *context);
    void *context;
} watch;

/* Those after which CUDA says that the process's context is in an inconsistent state. */
static bool is_sticky(cudaError_t code)
{
    switch ((int)code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
        return true;
    default:
        return false;
    }
}

void fake_call_count(const char *call)
{
    if (watch.seen && !strcmp(watch.call, call))
        watch.seen(watch.context);
    for (unsigned i = 0; i < MAX_CALLS; i++) {
        if (!calls[i].call)
            calls[i].call = call;
        if (!strcmp(calls[i].call, call)) {
            calls[i].count++;
            return;
        }
    }
    abort(); /* more entry points than the table was made for */
}

unsigned fake_cuda_calls(const char *call)
{
    fake_enter_helper();
    unsigned count = 0;
    for (unsigned i = 0; i < MAX_CALLS && calls[i].call; i++)
        if (!call || !strcmp(calls[i].call, call))
            count += calls[i].count;
    fake_unlock();
    return count;
}

void fake_cuda_fail(const char *call, unsigned n, cudaError_t code, enum fake_cuda_repeat repeat)
{
    fake_enter_helper();
    struct plan *plan = plans;
    while (plan < plans + MAX_PLANS && plan->left)
        plan++;
    if (plan == plans + MAX_PLANS || !n || !code)
        abort();
    *plan = (struct plan){.call = call, .left = n, .code = code, .repeat = repeat};
    fake_unlock();
}

void fake_cuda_watch(const char *call, void (*seen)(void *context), void *context)
{
    fake_enter_helper();
    watch.call = call;
    watch.seen = seen;
    watch.context = context;
    fake_unlock();
}

static bool is_due(struct plan *plan, const char *call)
{
    if (!plan->left || (plan->call && strcmp(plan->call, call)))
        return false;
    if (plan->left == 1 && plan->repeat == FAKE_CUDA_FOR_EVER)
        return true;
    return --plan->left == 0;
}

cudaError_t fake_call_planned(const char *call, int device)
{
    cudaError_t code = cudaSuccess;
    for (struct plan *plan = plans; plan < plans + MAX_PLANS; plan++) {
        cudaError_t due = plan->code;
        if (is_due(plan, call) && !code)
            code = due;
    }
    if (is_sticky(code))
        fake_break(device, code);
    return code;
}

void fake_cuda_fail_descriptor(size_t index, cudaError_t code)
{
    fake_enter_helper();
    descriptor_plan.index = index;
    descriptor_plan.code = code;
    fake_unlock();
}

bool fake_descriptor_planned(size_t *index, cudaError_t *code)
{
    if (!descriptor_plan.code)
        return false;
    *index = descriptor_plan.index;
    *code = descriptor_plan.code;
    descriptor_plan.code = cudaSuccess;
    return true;
}

void fake_cuda_break_in_copy(unsigned n, cudaError_t code)
{
    fake_enter_helper();
    break_plan.left = n;
    break_plan.code = code;
    fake_unlock();
}

cudaError_t fake_break_planned(void)
{
    if (!break_plan.left || --break_plan.left)
        return cudaSuccess;
    return break_plan.code;
}

void fake_inject_clear(void)
{
    memset(plans, 0, sizeof plans);
    memset(calls, 0, sizeof calls);
    memset(&descriptor_plan, 0, sizeof descriptor_plan);
    memset(&break_plan, 0, sizeof break_plan);
    memset(&watch, 0, sizeof watch);
}

void fake_cuda_forget_faults(void)
{
    fake_enter_helper();
    memset(plans, 0, sizeof plans);
    memset(&descriptor_plan, 0, sizeof descriptor_plan);
    memset(&break_plan, 0, sizeof break_plan);
    fake_unlock();
}

/* ---- Broken devices -------------------------------------------------------------------------- */

static bool others_run(int device)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++) {
        const struct fake_stream *stream = &fake.streams[slot];
        if (stream->device == device && stream->running &&
            !pthread_equal(stream->thread, pthread_self()))
            return true;
    }
    return false;
}

/*
 * Nothing of the device moves once this returns, so the host may touch what its tasks were working
 * on.
 */
void fake_break(int device, cudaError_t code)
{
    if (fake.broken[device])
        return;
    fake.broken[device] = code;
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        if (fake.streams[slot].device == device)
            fake_stream_drop(&fake.streams[slot]);
    fake_streams_wake();
    while (others_run(device))
        fake_wait(&fake.changed);
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++) {
        struct fake_clock clock = {.tick = {0}};
        clock.tick[slot] = fake.streams[slot].clock.tick[slot];
        if (fake.streams[slot].device == device) {
            fake_host_observes(&clock);
            fake_edge_to(&fake.streams[slot]);
        }
    }
    fake_edge_from(&fake.broken[device]);
}

cudaError_t fake_broken(int device)
{
    if (fake.broken[device])
        fake_edge_to(&fake.broken[device]);
    return fake.broken[device];
}

void fake_cuda_break_device(int device, cudaError_t code)
{
    fake_enter_helper();
    fake_break(device, code);
    fake_unlock();
}
