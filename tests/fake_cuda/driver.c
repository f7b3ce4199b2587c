/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver - the functions of the driver that the runtime has no name for, behind
 * cudaGetDriverEntryPointByVersion
 *
 * Owns the stack of contexts of each thread. A context is its device's number plus one, as an
 * opaque pointer; the top of the stack is what cudaGetDevice of that thread says, as in the real
 * runtime. Below the stack lies what cudaSetDevice has named. A context lives as long as somebody
 * has retained it; the runtime's own reference lasts until the end of the run.
 * Their results are CUresult, whose numbers are those of cudaError_t for everything returned here;
 * they leave no last error.
 */
#include "internal.h"

#include <string.h>

#define STACK_MAX 8

struct stack {
    uint64_t run; /* else: from an earlier run */
    unsigned depth;
    int below[STACK_MAX];
};

static _Thread_local struct stack stack;

static struct stack *this_stack(void)
{
    if (stack.run != fake.run)
        stack = (struct stack){.run = fake.run};
    return &stack;
}

static bool is_known(int device)
{
    return device >= 0 && device < fake.config.devices;
}

bool fake_context_is_pushed(void)
{
    return this_stack()->depth > 0;
}

static void *context_of(int device)
{
    return (void *)((uintptr_t)device + 1);
}

static int device_of(const void *context)
{
    return (int)((uintptr_t)context - 1);
}

static int leave(cudaError_t error)
{
    fake_unlock();
    return (int)error;
}

static int retain(void **context, int device)
{
    cudaError_t error = fake_enter("cuDevicePrimaryCtxRetain", FAKE_WITHOUT_DEVICE);
    if (!error)
        error = is_known(device) ? fake.broken[device] : cudaErrorInvalidDevice;
    *context = error ? NULL : context_of(device);
    if (!error)
        fake.contexts_retained[device]++;
    return leave(error);
}

static int release(int device)
{
    cudaError_t error = fake_enter("cuDevicePrimaryCtxRelease", FAKE_WITHOUT_DEVICE);
    if (!error && (!is_known(device) || !fake.contexts_retained[device])) {
        fake_report(FAKE_CUDA_BAD_HANDLE,
                    "cuDevicePrimaryCtxRelease of device %d, which nobody has retained", device);
        error = cudaErrorInvalidDevice;
    }
    if (!error)
        fake.contexts_retained[device]--;
    return leave(error);
}

static int push(void *context)
{
    cudaError_t error = fake_enter("cuCtxPushCurrent", FAKE_WITHOUT_DEVICE);
    struct stack *contexts = this_stack();
    if (!error && (!context || !is_known(device_of(context)) || contexts->depth == STACK_MAX))
        error = cudaErrorInvalidValue;
    if (!error) {
        contexts->below[contexts->depth++] = fake_this_thread()->device;
        fake_this_thread()->device = device_of(context);
        fake.contexts_pushed++;
    }
    return leave(error);
}

static int pop(void **context)
{
    cudaError_t error = fake_enter("cuCtxPopCurrent", FAKE_WITHOUT_DEVICE);
    struct stack *contexts = this_stack();
    if (!error && !contexts->depth) {
        fake_report(FAKE_CUDA_BAD_HANDLE, "cuCtxPopCurrent on a thread that has pushed nothing");
        error = cudaErrorDeviceUninitialized;
    }
    if (!error) {
        *context = context_of(fake_this_thread()->device);
        fake_this_thread()->device = contexts->below[--contexts->depth];
        fake.contexts_pushed--;
    }
    return leave(error);
}

static void (*find_function(const char *symbol))(void)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } functions[] = {{"cuDevicePrimaryCtxRetain", (void (*)(void))retain},
                     {"cuDevicePrimaryCtxRelease", (void (*)(void))release},
                     {"cuCtxPushCurrent", (void (*)(void))push},
                     {"cuCtxPopCurrent", (void (*)(void))pop},
                     {"cuStreamWriteValue32", (void (*)(void))fake_write_value}};
    if (fake.config.no_write_value && !strcmp(symbol, "cuStreamWriteValue32"))
        return NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(symbol, functions[i].name))
            return functions[i].function;
    return NULL;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                             unsigned int version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *status)
{
    cudaError_t error = fake_enter(__func__, FAKE_WITHOUT_DEVICE);
    if (!error && (!symbol || !function || flags > 2))
        error = cudaErrorInvalidValue;
    if (!error) {
        void (*found)(void) = find_function(symbol);
        bool too_new = version > (unsigned)fake.config.driver_version;
        memcpy(function, &found, sizeof found);
        if (status)
            *status = !found    ? cudaDriverEntryPointSymbolNotFound
                      : too_new ? cudaDriverEntryPointVersionNotSufficent
                                : cudaDriverEntryPointSuccess;
    }
    return fake_leave(error);
}
