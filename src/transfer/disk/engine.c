/* SPDX-License-Identifier: Apache-2.0 */
/* disk/engine - see engine.h. */
#include "transfer/disk/engine.h"

#include <stdio.h>

static void say_posix(const struct kvbi_disk_engine_config *config, const char *why, char *said,
                      size_t said_bytes)
{
    char how[32] = "inside poll";
    uint32_t threads = config->threads != 0 ? config->threads : KVBI_DISK_THREADS;
    if (!config->poll)
        (void)snprintf(how, sizeof how, "%u threads", threads);
    (void)snprintf(said, said_bytes, "posix, %s (%s%s), %s", how,
                   why[0] != '\0' ? "no io_uring: " : "asked for", why, config->disk->mode);
}

int kvbi_disk_engine_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                            struct kvbi_clock *clock, const struct kvbi_disk_engine_config *config,
                            char *said, size_t said_bytes)
{
    char why[KVBI_ENGINE_SAID_BYTES] = "";
    int error;
    if (config->engine != KVBI_DISK_POSIX) {
        error = kvbi_engine_uring_create(engine, memory, clock, config, why);
        if (error == 0 || config->engine == KVBI_DISK_URING) {
            (void)snprintf(said, said_bytes, error == 0 ? "%s" : "no io_uring: %s", why);
            return error;
        }
    }
    error = kvbi_engine_posix_create(engine, memory, clock, config);
    if (error == 0)
        say_posix(config, why, said, said_bytes);
    else
        (void)snprintf(said, said_bytes, "no memory or threads for the posix engine");
    return error;
}
