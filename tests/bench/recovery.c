/* SPDX-License-Identifier: Apache-2.0 */
/* recovery - see recovery.h. */
#include "recovery.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bare_loop.h"
#include "rows.h"

static void fill(const struct disk_stage_config *config, bool killed)
{
    struct disk_stage stage;
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody writes on if the parent is killed */
        disk_stage_create(&stage, config);
        if (killed)
            (void)raise(SIGKILL);
        disk_stage_destroy(&stage);
        _exit(0);
    }
    EXPECT(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT(killed ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/*
 * The kernel holds a killed process' lock until its I/O has ended. That is no part of a recovery.
 */
static void wait_until_let_go(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    EXPECT(fd >= 0 && flock(fd, LOCK_EX) == 0);
    (void)close(fd);
}

double recovery_seconds(const struct disk_stage_config *config, bool killed)
{
    fill(config, killed);
    wait_until_let_go(config->path);
    uint64_t bytes = config->host_count * config->block_bytes;
    unsigned char *memory = arena_take(bytes);
    uint64_t since = now_ns();
    struct kvb_manager *manager = disk_manager_create(config, memory, false);
    double seconds = (double)(now_ns() - since) / 1e9;
    struct kvb_stats stats = {.size = sizeof stats};
    CALL(kvb_manager_stats(manager, &stats));
    EXPECT(stats.tiers[KVB_TIER_DISK].parked_count == config->disk_count);
    CALL(kvb_manager_destroy(manager));
    arena_free(memory, bytes);
    return seconds;
}
