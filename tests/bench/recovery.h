/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recovery - how long a manager takes to open a file with many blocks, after a clean close and
 * after a kill
 *
 * Owns       a child process, which fills the file and closes it or is killed.
 * Callers    bench_disk, with no manager open. One thread.
 * Why        a child of its own, so that nothing of the filling is left in this process: a restart.
 */
#ifndef BENCH_RECOVERY_H
#define BENCH_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "disk_stage.h"

/*
 * Seconds of kvb_manager_create over a file whose config->disk_count slots are all taken. Ends the
 * program if one is not found.
 */
double recovery_seconds(const struct disk_stage_config *config, bool killed);

#endif
