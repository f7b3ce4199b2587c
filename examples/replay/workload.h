/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in workload: one hour of a chat service, in the form of a trace. */
#ifndef REPLAY_WORKLOAD_H
#define REPLAY_WORKLOAD_H

#include <stdint.h>

struct trace;

/* Append the workload of a seed: the same for a seed on every machine. 0, or -1 without memory. */
int workload_generate(struct trace *trace, uint64_t seed);

#endif
