/* SPDX-License-Identifier: Apache-2.0 */
/* disk_copy - see disk_copy.h. */
#include "transfer/disk_copy.h"

#include <errno.h>
#include <string.h>

#include "base/debug.h"
#include "base/hooks.h"

static uint64_t aligned_up(uint64_t bytes)
{
    return (bytes + KVBI_DISK_ALIGN - 1) & ~(KVBI_DISK_ALIGN - 1);
}

bool kvbi_disk_bounces(const struct kvbi_disk *disk, const struct kvbi_tier *memory)
{
    return disk->file.direct && (((uintptr_t)memory->base | memory->block_bytes) & (KVBI_DISK_ALIGN - 1)) != 0;
}

uint64_t kvbi_disk_piece_max(const struct kvbi_disk *disk)
{
    return disk->slot_bytes < KVBI_DISK_PIECE_BYTES ? disk->slot_bytes : KVBI_DISK_PIECE_BYTES;
}

/* ---- The whole block ---------------------------------------------------------------------------------------------- */

static int fault_of(const struct kvbi_hooks *hooks, const struct kvbi_copy *copy)
{
    if (hooks == NULL || hooks->copy_fault == NULL)
        return 0;
    return hooks->copy_fault(hooks->context, copy->from->tier, copy->from_slot, copy->to->tier, copy->to_slot);
}

int kvbi_disk_copy_begin(struct kvbi_disk_copy *state, const struct kvbi_copy *copy, const struct kvbi_hooks *hooks)
{
    bool write = copy->to->disk != NULL;
    struct kvbi_disk *disk = write ? copy->to->disk : copy->from->disk;
    const struct kvbi_tier *memory = write ? copy->from : copy->to;
    KVBI_ASSERT(disk != NULL && memory->disk == NULL && memory->block_bytes == disk->block_bytes);
    *state = (struct kvbi_disk_copy){.disk = disk,
                                     .memory = kvbi_tier_address(memory, write ? copy->from_slot : copy->to_slot),
                                     .slot = write ? copy->to_slot : copy->from_slot,
                                     .write = write,
                                     .bounce = kvbi_disk_bounces(disk, memory)};
    if (write)
        kvbi_disk_forget(disk, state->slot);
    int fault = fault_of(hooks, copy);
    if (fault != 0)
        return fault;
    state->name = kvbi_disk_name(disk, state->slot, &copy->identity);
    if (write)
        state->checksum = kvbi_disk_checksum(disk, state->name, state->memory);
    else if (!kvbi_disk_holds(disk, state->slot, state->name))
        return KVB_ECORRUPT; /* no need to read it */
    return 0;
}

int kvbi_disk_copy_end(struct kvbi_disk_copy *state, int io_result)
{
    if (io_result != 0)
        return io_result;
    if (!state->write)
        return kvbi_disk_verify(state->disk, state->slot, state->name, state->memory) ? 0 : KVB_ECORRUPT;
    kvbi_disk_publish(state->disk, state->slot, state->name, state->checksum);
    return 0;
}

/* ---- Pieces ------------------------------------------------------------------------------------------------------- */

struct kvbi_disk_piece kvbi_disk_piece_at(const struct kvbi_disk_copy *state, uint64_t offset)
{
    uint64_t left = state->disk->block_bytes - offset;
    uint32_t bytes = (uint32_t)(left < KVBI_DISK_PIECE_BYTES ? left : KVBI_DISK_PIECE_BYTES);
    KVBI_ASSERT(offset < state->disk->block_bytes);
    return (struct kvbi_disk_piece){.offset = offset,
                                    .payload_bytes = bytes,
                                    .io_bytes = state->disk->file.direct ? (uint32_t)aligned_up(bytes) : bytes};
}

/* What was in the buffer before belongs to other blocks: it must not end up in the padding. */
void kvbi_disk_bounce_out(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece, void *buffer)
{
    memcpy(buffer, state->memory + piece->offset, piece->payload_bytes);
    memset((char *)buffer + piece->payload_bytes, 0, piece->io_bytes - piece->payload_bytes);
}

void kvbi_disk_bounce_in(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece, const void *buffer)
{
    memcpy(state->memory + piece->offset, buffer, piece->payload_bytes);
}

int kvbi_disk_piece_advance(const struct kvbi_disk_copy *state, struct kvbi_disk_piece *piece, int64_t result,
                            const struct kvbi_hooks *hooks)
{
    uint32_t before = piece->done;
    if (hooks != NULL && hooks->io_fault != NULL) {
        int64_t other = result;
        if (hooks->io_fault(hooks->context, state->write, state->slot, &other) != 0)
            result = other;
    }
    if (result == 0 || result > (int64_t)(piece->io_bytes - piece->done))
        return KVB_EIO; /* 0: the file ends before the slot does, somebody has cut it */
    if (result < 0 && result != -EINTR && result != -EAGAIN)
        return kvbi_disk_error_of((int)-result);
    if (result > 0)
        piece->done += (uint32_t)result;
    if (piece->done == piece->io_bytes)
        return 1;
    if (state->disk->file.direct) /* the rest starts aligned too */
        piece->done &= ~(uint32_t)(KVBI_DISK_ALIGN - 1);
    piece->retries = piece->done > before ? 0 : piece->retries + 1;
    return piece->retries > KVBI_DISK_RETRIES ? KVB_EIO : 0;
}
