/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gates - tests hold streams, let them go on, and wait until nothing moves
 *
 * Why gates and no sleeping: a test about order holds one stream and looks at what the others did,
 * however slow the machine.
 */
#include "internal.h"

static void each_stream(cudaStream_t handle, const char *call,
                        void (*change)(struct fake_stream *, unsigned), unsigned value)
{
    fake_enter_helper();
    if (handle) {
        struct fake_stream *stream = fake_stream_find(handle, call);
        if (stream)
            change(stream, value);
    }
    for (unsigned slot = 0; !handle && slot < FAKE_MAX_STREAMS; slot++)
        change(&fake.streams[slot], value);
    fake_streams_wake();
    fake_unlock();
}

static void set_held(struct fake_stream *stream, unsigned held)
{
    stream->held = held;
    stream->allowance = 0;
}

static void add_allowance(struct fake_stream *stream, unsigned tasks)
{
    stream->allowance += stream->held ? tasks : 0;
}

static void hold_new(bool hold)
{
    fake_enter_helper();
    fake.hold_new_streams = hold;
    fake_unlock();
}

void fake_cuda_hold(cudaStream_t stream)
{
    if (!stream)
        hold_new(true);
    each_stream(stream, __func__, set_held, true);
}

void fake_cuda_release(cudaStream_t stream)
{
    if (!stream)
        hold_new(false);
    each_stream(stream, __func__, set_held, false);
}

void fake_cuda_allow(cudaStream_t stream, unsigned tasks)
{
    each_stream(stream, __func__, add_allowance, tasks);
}

static bool settled(void)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        if (fake.streams[slot].running || fake_stream_may_run(&fake.streams[slot]))
            return false;
    return true;
}

void fake_cuda_quiesce(void)
{
    fake_enter_helper();
    while (!settled())
        fake_wait(&fake.changed);
    fake_unlock();
}

uint64_t fake_cuda_tasks_enqueued(void)
{
    fake_enter_helper();
    uint64_t count = fake.tasks_enqueued;
    fake_unlock();
    return count;
}

uint64_t fake_cuda_tasks_run(void)
{
    fake_enter_helper();
    uint64_t count = fake.tasks_run;
    fake_unlock();
    return count;
}
