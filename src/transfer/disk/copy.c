/* SPDX-License-Identifier: Apache-2.0 */
/* disk/copy - see copy.h. */
#include "transfer/disk/copy.h"

#include <errno.h>
#include <string.h>

#include "base/debug.h"
#include "base/hooks.h"
#include "transfer/disk/io.h"

static uint64_t aligned_up(uint64_t bytes)
{
    return (bytes + KVBI_DISK_ALIGN - 1) & ~(KVBI_DISK_ALIGN - 1);
}

bool kvbi_disk_bounces(const struct kvbi_disk *disk, const struct kvbi_tier *memory)
{
    bool direct = false;
    for (uint32_t i = 0; i < disk->file_count; i++)
        direct |= disk->files[i].io.direct;
    return direct && (((uintptr_t)memory->base | memory->block_bytes) & (KVBI_DISK_ALIGN - 1)) != 0;
}

uint64_t kvbi_disk_piece_max(const struct kvbi_disk *disk)
{
    return disk->slot_bytes < KVBI_DISK_PIECE_BYTES ? disk->slot_bytes : KVBI_DISK_PIECE_BYTES;
}

/* ---- The whole block ------------------------------------------------------------------------- */

static int fault_of(const struct kvbi_hooks *hooks, const struct kvbi_copy *copy)
{
    if (hooks == NULL || hooks->copy_fault == NULL)
        return 0;
    return hooks->copy_fault(hooks->context, copy->from->tier, copy->from_slot, copy->to->tier,
                             copy->to_slot);
}

int kvbi_disk_copy_begin(struct kvbi_disk_copy *state, const struct kvbi_copy *copy,
                         const struct kvbi_hooks *hooks)
{
    bool write = kvbi_disk_of(copy->to) != NULL;
    struct kvbi_disk *disk = write ? kvbi_disk_of(copy->to) : kvbi_disk_of(copy->from);
    const struct kvbi_tier *memory = write ? copy->from : copy->to;
    KVBI_ASSERT(disk != NULL && memory->on_host && memory->block_bytes == disk->block_bytes);
    *state = (struct kvbi_disk_copy){
        .disk = disk,
        .label = copy->label,
        .memory = kvbi_tier_address(memory, write ? copy->from_slot : copy->to_slot),
        .slot = write ? copy->to_slot : copy->from_slot,
        .write = write,
        .bounce = kvbi_disk_bounces(disk, memory)};
    state->file = kvbi_disk_file_of(disk, state->slot);
    KVBI_ASSERT(copy->label == NULL || (copy->label->hash == copy->identity.hash &&
                                        copy->label->generation == copy->identity.generation));
    if (write)
        kvbi_disk_forget(disk, state->slot);
    int fault = fault_of(hooks, copy);
    state->cause = fault == KVB_ECORRUPT ? KVBI_DISK_CAUSE_CHECKSUM : KVBI_DISK_CAUSE_IO;
    state->medium = fault == KVB_EIO;
    if (fault != 0)
        return fault;
    state->identity = kvbi_disk_identity(disk, state->slot, &copy->identity);
    if (write || kvbi_disk_has(disk, state->slot, state->identity))
        return 0;
    state->cause = KVBI_DISK_CAUSE_IDENTITY;
    return KVB_ECORRUPT; /* no need to read it */
}

int kvbi_disk_copy_hash(struct kvbi_disk_copy *state)
{
    if (state->write) {
        state->checksum = kvbi_disk_checksum(state->disk, state->identity, state->memory);
    } else if (!kvbi_disk_verify(state->disk, state->slot, state->identity, state->memory)) {
        state->cause = KVBI_DISK_CAUSE_CHECKSUM;
        return KVB_ECORRUPT;
    }
    return 0;
}

/* ---- The end of many ------------------------------------------------------------------------- */

static uint32_t list_written(const struct kvbi_disk_ending *endings, uint32_t count,
                             struct kvbi_disk_publication *list)
{
    uint32_t written = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_disk_copy *state = endings[i].state;
        if (state->write && endings[i].result == 0)
            list[written++] = (struct kvbi_disk_publication){.slot = state->slot,
                                                             .identity = state->identity,
                                                             .checksum = state->checksum,
                                                             .label = state->label};
    }
    return written;
}

/*
 * No slot is written twice at a time, so its publication is the one. *medium: of a result that is
 * not 0.
 */
static int result_of(const struct kvbi_disk_ending *ending,
                     const struct kvbi_disk_publication *list, uint32_t count, bool *medium)
{
    *medium = ending->state->medium;
    if (!ending->state->write || ending->result != 0)
        return ending->result;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].slot == ending->state->slot) {
            *medium = list[i].medium;
            return list[i].result;
        }
    return KVB_EIO;
}

void kvbi_disk_copies_end(struct kvbi_disk *disk, const struct kvbi_disk_ending *endings,
                          uint32_t count, struct kvbi_completion *completions)
{
    struct kvbi_disk_publication list[KVBI_DISK_PUBLISH_MAX];
    KVBI_ASSERT(count <= KVBI_DISK_PUBLISH_MAX);
    uint32_t written = list_written(endings, count, list);
    kvbi_disk_publish(disk, list, written);
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_disk_copy *state = endings[i].state;
        bool medium;
        int result = result_of(&endings[i], list, written, &medium);
        bool condemned = state->write
                             ? kvbi_disk_note_write(disk, state->slot, result, medium)
                             : kvbi_disk_note_read(disk, state->slot, result, state->cause, medium);
        completions[i] = (struct kvbi_completion){
            .cookie = endings[i].cookie, .result = result, .condemned = condemned};
    }
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

struct kvbi_disk_piece kvbi_disk_piece_at(const struct kvbi_disk_copy *state, uint64_t offset)
{
    uint64_t left = state->disk->block_bytes - offset;
    uint32_t bytes = (uint32_t)(left < KVBI_DISK_PIECE_BYTES ? left : KVBI_DISK_PIECE_BYTES);
    KVBI_ASSERT(offset < state->disk->block_bytes);
    return (struct kvbi_disk_piece){.offset = offset,
                                    .payload_bytes = bytes,
                                    .io_bytes = state->file->io.direct ? (uint32_t)aligned_up(bytes)
                                                                       : bytes};
}

/* What was in the buffer before belongs to other blocks: it must not end up in the padding. */
void kvbi_disk_bounce_out(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece,
                          void *buffer)
{
    memcpy(buffer, state->memory + piece->offset, piece->payload_bytes);
    memset((char *)buffer + piece->payload_bytes, 0, piece->io_bytes - piece->payload_bytes);
}

void kvbi_disk_bounce_in(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece,
                         const void *buffer)
{
    memcpy(state->memory + piece->offset, buffer, piece->payload_bytes);
}

/* After a read that brought less than was asked for: is that because somebody has cut the file? */
static bool file_ends(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece)
{
    static const struct kvbi_disk_say nobody = {.path = ""};
    uint64_t bytes = 0,
             at = kvbi_disk_offset(state->disk, state->slot) + piece->offset + piece->done;
    return !state->write && kvbi_disk_io_size(&state->file->io, &bytes, &nobody) == 0 &&
           at >= bytes;
}

int kvbi_disk_piece_advance(struct kvbi_disk_copy *state, struct kvbi_disk_piece *piece,
                            int64_t result, const struct kvbi_hooks *hooks)
{
    uint32_t before = piece->done;
    if (hooks != NULL && hooks->io_fault != NULL) {
        int64_t other = result;
        if (hooks->io_fault(hooks->context, state->write, state->slot, &other) != 0)
            result = other;
    }
    if (result > (int64_t)(piece->io_bytes - piece->done))
        return KVB_EIO;
    if (result < 0 && result != -EINTR && result != -EAGAIN) {
        state->medium |= kvbi_disk_is_medium_error((int)-result);
        return kvbi_disk_error_of((int)-result);
    }
    if (result > 0)
        piece->done += (uint32_t)result;
    if (piece->done == piece->io_bytes)
        return 1;
    if (result == 0 || file_ends(state, piece)) {
        state->cause = KVBI_DISK_CAUSE_SHORT;
        return KVB_EIO;
    }
    if (state->file->io.direct) /* the rest starts aligned too */
        piece->done &= ~(uint32_t)(KVBI_DISK_ALIGN - 1);
    piece->retries = piece->done > before ? 0 : piece->retries + 1;
    return piece->retries > KVBI_DISK_RETRIES ? KVB_EIO : 0;
}
