/* SPDX-License-Identifier: Apache-2.0 */
/* The suites of bench_core. Each reports its rows; each takes and gives back its own memory. */
#ifndef BENCH_SUITES_H
#define BENCH_SUITES_H

#include "contents.h"
#include "rows.h"

struct plan {
    bool quick;
    uint32_t rounds;
    struct report *report;
};

void suite_life(const struct plan *plan);
void suite_handles(const struct plan *plan);
void suite_find(const struct plan *plan);
void suite_tables(const struct plan *plan);
void suite_move(const struct plan *plan);

/* "10k", "1m", for the names of rows. Static storage, good until the fourth next call. */
const char *size_name(uint64_t count);

#endif
