/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_stand_in - bench_gpu on the stand-in for CUDA: a run that ends with a report or a leak fails
 *
 * Why        the program itself does not know what it is linked with.
 */
#include <stdio.h>
#include <unistd.h>

#include "fake_cuda.h"

__attribute__((destructor)) static void end_the_run(void)
{
    if (fake_cuda_end() == 0)
        return;
    (void)fflush(NULL);
    _exit(3);
}
