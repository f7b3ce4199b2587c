/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_stand_in - bench_gpu on the stand-in for CUDA: a run that ends with a report or a leak fails
 *
 * Why        the program itself does not know what it is linked with. So faults come in by the
 *            environment: STAND_IN_FAILS=cudaMemcpyAsync:100 breaks the device at the 100th of
 *            these calls of each process, STAND_IN_HANGS the same way never returns from it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_cuda.h"

#define CALL_BYTES 64

static char call_name[CALL_BYTES];
static unsigned calls_left;

/* False: nobody wants it. */
static bool read_fault(const char *variable)
{
    const char *text = getenv(variable);
    const char *colon = text != NULL ? strchr(text, ':') : NULL;
    if (colon == NULL || colon - text >= CALL_BYTES)
        return false;
    memcpy(call_name, text, (size_t)(colon - text));
    calls_left = (unsigned)strtoul(colon + 1, NULL, 10);
    return calls_left > 0;
}

static void hang_when_due(void *context)
{
    (void)context;
    if (--calls_left == 0)
        for (;;)
            (void)pause();
}

__attribute__((constructor)) static void plan_a_fault(void)
{
    if (read_fault("STAND_IN_FAILS"))
        fake_cuda_fail(call_name, calls_left, cudaErrorLaunchFailure, FAKE_CUDA_ONCE);
    else if (read_fault("STAND_IN_HANGS"))
        fake_cuda_watch(call_name, hang_when_due, NULL);
}

__attribute__((destructor)) static void end_the_run(void)
{
    if (fake_cuda_end() == 0)
        return;
    (void)fflush(NULL);
    _exit(3);
}
