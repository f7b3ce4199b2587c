/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run - the beginning and the end of a run of the stand-in
 *
 * Owns `fake`. A run begins with fake_cuda_start, or with the first CUDA call of a program that
 * knows nothing of the stand-in.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct fake_state fake = {.changed = PTHREAD_COND_INITIALIZER};

static struct fake_cuda_config with_defaults(const struct fake_cuda_config *given)
{
    struct fake_cuda_config config = {.seed = 0};
    if (given)
        config = *given;
    if (!config.devices)
        config.devices = 1;
    if (config.no_devices)
        config.devices = 0;
    if (!config.driver_version)
        config.driver_version = CUDART_VERSION;
    if (!config.device_bytes)
        config.device_bytes = (size_t)1 << 30;
    if (!config.stream_entries)
        config.stream_entries = 1000;
    if (!config.batch_copies)
        config.batch_copies = 4096;
    if (config.devices < 0 || config.devices > FAKE_CUDA_MAX_DEVICES ||
        config.device_bytes > (size_t)8 << 30)
        abort();
    return config;
}

void fake_cuda_start(const struct fake_cuda_config *config)
{
    fake_lock();
    if (fake.started && config)
        abort(); /* the former run was not ended, and its reports would get lost */
    if (!fake.started) {
        fake.config = with_defaults(config);
        fake.run++;
        fake.started = true;
        fake_memory_start();
    }
    fake_unlock();
}

static void report_leaked_handles(void)
{
    unsigned streams = 0;
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        streams += fake.streams[slot].live && !fake.streams[slot].owner &&
                   !fake.broken[fake.streams[slot].device];
    if (streams)
        fake_report(FAKE_CUDA_LEAK, "%u streams", streams);
    if (fake_events_live())
        fake_report(FAKE_CUDA_LEAK, "%zu events", fake_events_live());
    for (int device = 0; device < FAKE_CUDA_MAX_DEVICES; device++)
        if (fake.contexts_retained[device] && !fake.broken[device])
            fake_report(FAKE_CUDA_LEAK, "the context of device %d, retained %u times", device,
                        fake.contexts_retained[device]);
    if (fake.contexts_pushed)
        fake_report(FAKE_CUDA_LEAK, "%u contexts that were pushed and not popped",
                    fake.contexts_pushed);
}

/* Generations go on, so that a handle of one run is stale in the next. */
static void clear(void)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        fake.streams[slot] = (struct fake_stream){.generation = fake.streams[slot].generation};
    memset(fake.arenas, 0, sizeof fake.arenas);
    memset(fake.has_context, 0, sizeof fake.has_context);
    memset(fake.contexts_retained, 0, sizeof fake.contexts_retained);
    fake.contexts_pushed = 0;
    memset(fake.broken, 0, sizeof fake.broken);
    memset(&fake.host, 0, sizeof fake.host);
    fake.hold_new_streams = false;
    fake.tasks_enqueued = fake.tasks_run = 0;
    fake.started = false;
}

size_t fake_cuda_end(void)
{
    fake_streams_end();
    fake_lock();
    size_t count = 0;
    if (fake.started) {
        report_leaked_handles();
        fake_log_clear();
        fake_words_clear();
        fake_events_clear();
        fake_memory_end();
        fake_inject_clear();
        count = fake_reports_end();
        clear();
    }
    fake_unlock();
    return count;
}

void fake_cuda_server_thread(bool marked)
{
    fake_enter_helper();
    fake_this_thread()->server = marked;
    fake_unlock();
}

bool fake_cuda_has_context(int device)
{
    fake_enter_helper();
    bool has = device >= 0 && device < FAKE_CUDA_MAX_DEVICES &&
               (fake.has_context[device] || fake.contexts_retained[device] > 0);
    fake_unlock();
    return has;
}
