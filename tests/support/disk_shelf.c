/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_shelf.h"
#include "transfer/disk/io.h"
#include "transfer/disk/tier.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int disk_shelf_setup(void **state)
{
    struct disk_shelf *shelf = calloc(1, sizeof *shelf);
    assert_non_null(shelf);
    shelf->memory = failing_memory(&shelf->failing, INT64_MAX);
    disk_path_make(&shelf->place);
    for (int i = 0; i < SHELF_PATHS; i++) {
        (void)snprintf(shelf->files[i], sizeof shelf->files[i], "%s.%d", shelf->place.file, i);
        shelf->paths[i] = shelf->files[i];
    }
    shelf->config = (struct kvbi_disk_config){.paths = shelf->paths,
                                              .path_count = 1,
                                              .block_count = SHELF_SLOTS,
                                              .purpose = {.block_bytes = SHELF_BLOCK_BYTES,
                                                          .layers = 5,
                                                          .parts = 2,
                                                          .chunk_bytes = 500,
                                                          .tokens_per_block = 16,
                                                          .key_bytes = 8,
                                                          .fingerprint = {1, 2}}};
    *state = shelf;
    return 0;
}

int shelf_try(struct disk_shelf *shelf)
{
    int error = kvbi_tier_disk_create(&shelf->tier, &shelf->memory, KVB_TIER_DISK, &shelf->config,
                                      shelf->message, sizeof shelf->message);
    if (error == 0)
        error = kvbi_disk_commit(kvbi_disk_of(&shelf->tier), shelf->message, sizeof shelf->message);
    if (error != 0)
        kvbi_tier_destroy(&shelf->tier);
    shelf->disk = kvbi_disk_of(&shelf->tier);
    return error;
}

void shelf_open(struct disk_shelf *shelf)
{
    if (shelf_try(shelf) != 0)
        fail_msg("%s", shelf->message);
}

void shelf_expect_refusal(struct disk_shelf *shelf, int code, const char *words)
{
    int result = shelf_try(shelf);
    if (result != code || strstr(shelf->message, words) == NULL)
        fail_msg("%d (expected %d): \"%s\" (expected \"%s\")", result, code, shelf->message, words);
}

void shelf_kill(struct disk_shelf *shelf)
{
    kvbi_tier_destroy(&shelf->tier);
    shelf->disk = NULL;
}

void shelf_close(struct disk_shelf *shelf, const uint32_t *order, uint32_t count)
{
    kvbi_disk_close_clean(shelf->disk, order, count);
    shelf_kill(shelf);
}

int disk_shelf_teardown(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_kill(shelf);
    disk_path_remove(&shelf->place);
    bool left = shelf->failing.live_count != 0;
    if (left)
        print_error("the tier has not given all its memory back\n");
    free(shelf);
    return left ? -1 : 0;
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

static void fill_pattern(unsigned char *payload, uint64_t content)
{
    memset(payload, 0, SHELF_SLOT_BYTES);
    for (size_t i = 0; i < SHELF_BLOCK_BYTES; i++)
        payload[i] = (unsigned char)(content * 31 + i * 7 + i / 256);
}

struct kvbi_identity shelf_identity(uint64_t content)
{
    return (struct kvbi_identity){
        .hash = content, .digest = {content + 1, content + 2}, .generation = content + 3};
}

struct kvbi_label shelf_label(uint64_t content, uint64_t clears)
{
    return (struct kvbi_label){.hash = content,
                               .digest = {content + 1, content + 2},
                               .parent_hash = content - 1,
                               .space_hash = 9,
                               .space_digest = {8, 7},
                               .generation = content + 3,
                               .clears = clears,
                               .has_parent = 1,
                               .priority = (uint8_t)(content % 101),
                               .key = {(unsigned char)content, 2, 3, 4, 5, 6, 7, 8},
                               .parent_key = {8, 7, 6, 5, 4, 3, 2, 1}};
}

uint64_t shelf_write(struct disk_shelf *shelf, uint32_t slot, uint64_t content)
{
    _Alignas(4096) unsigned char payload[SHELF_SLOT_BYTES];
    const struct kvbi_identity identity = shelf_identity(content);
    fill_pattern(payload, content);
    kvbi_disk_forget(shelf->disk, slot);
    assert_int_equal(kvbi_disk_write(kvbi_disk_file_of(shelf->disk, slot)->io.fd, payload,
                                     sizeof payload, kvbi_disk_offset(shelf->disk, slot)),
                     0);
    return kvbi_disk_checksum(shelf->disk, kvbi_disk_identity(shelf->disk, slot, &identity),
                              payload);
}

int shelf_put_after(struct disk_shelf *shelf, uint32_t slot, uint64_t content, uint64_t clears)
{
    const struct kvbi_identity identity = shelf_identity(content);
    const struct kvbi_label label = shelf_label(content, clears);
    struct kvbi_disk_publication publication = {
        .slot = slot,
        .identity = kvbi_disk_identity(shelf->disk, slot, &identity),
        .checksum = shelf_write(shelf, slot, content),
        .label = &label};
    kvbi_disk_publish(shelf->disk, &publication, 1);
    return publication.result;
}

void shelf_put(struct disk_shelf *shelf, uint32_t slot, uint64_t content)
{
    assert_int_equal(shelf_put_after(shelf, slot, content, 0), 0);
}

void shelf_fill(struct disk_shelf *shelf, uint64_t base)
{
    for (uint32_t slot = 0; slot < shelf->disk->slot_count; slot++)
        shelf_put(shelf, slot, base + slot);
}

void shelf_make_full(struct disk_shelf *shelf, uint64_t base)
{
    shelf_open(shelf);
    shelf_fill(shelf, base);
    shelf_close(shelf, NULL, 0);
}

bool shelf_get(struct disk_shelf *shelf, uint32_t slot, uint64_t content)
{
    _Alignas(4096) unsigned char payload[SHELF_SLOT_BYTES], expected[SHELF_SLOT_BYTES];
    const struct kvbi_identity identity = shelf_identity(content);
    uint64_t name = kvbi_disk_identity(shelf->disk, slot, &identity);
    if (!kvbi_disk_has(shelf->disk, slot, name))
        return false;
    assert_int_equal(kvbi_disk_read(kvbi_disk_file_of(shelf->disk, slot)->io.fd, payload,
                                    sizeof payload, kvbi_disk_offset(shelf->disk, slot)),
                     0);
    if (!kvbi_disk_verify(shelf->disk, slot, name, payload))
        return false;
    fill_pattern(expected, content);
    assert_memory_equal(payload, expected, SHELF_BLOCK_BYTES);
    return true;
}

uint32_t shelf_scan(struct disk_shelf *shelf)
{
    struct kvbi_found some[7];
    uint64_t cursor = 0;
    uint32_t count, blocks = 0;
    memset(shelf->seen, 0, sizeof shelf->seen);
    shelf->retired = 0;
    while ((count = kvbi_disk_scan(shelf->disk, &cursor, some, 7)) > 0)
        for (uint32_t i = 0; i < count; i++) {
            assert_true(some[i].slot < shelf->disk->slot_count && !shelf->seen[some[i].slot]);
            shelf->seen[some[i].slot] = true;
            shelf->found[some[i].slot] = some[i];
            shelf->retired += some[i].retired;
            blocks += !some[i].retired;
        }
    return blocks;
}

uint64_t shelf_dropped(const struct disk_shelf *shelf)
{
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < shelf->disk->file_count; i++)
        dropped += shelf->disk->files[i].dropped;
    return dropped;
}

void shelf_expect(struct disk_shelf *shelf, uint32_t slot, uint64_t content)
{
    struct kvbi_label label = shelf_label(content, 0);
    if (!shelf->seen[slot])
        fail_msg("slot %u was not found", slot);
    label.clears = shelf->found[slot].label.clears;
    label.payload_bytes = SHELF_BLOCK_BYTES;
    assert_memory_equal(&shelf->found[slot].label, &label, sizeof label);
    assert_true(shelf_get(shelf, slot, content));
}

void shelf_expect_all(struct disk_shelf *shelf, uint64_t base)
{
    assert_int_equal(shelf_scan(shelf), shelf->disk->slot_count);
    for (uint32_t slot = 0; slot < shelf->disk->slot_count; slot++)
        shelf_expect(shelf, slot, base + slot);
}

uint32_t shelf_survivors(struct disk_shelf *shelf, uint64_t base)
{
    uint32_t good = 0;
    (void)shelf_scan(shelf);
    for (uint32_t slot = 0; slot < shelf->disk->slot_count; slot++)
        good += shelf_get(shelf, slot, base + slot);
    return good;
}

/* ---- Bytes of the first file ----------------------------------------------------------------- */

void shelf_peek(const struct disk_shelf *shelf, uint64_t offset, void *bytes, size_t count)
{
    int fd = open(shelf->paths[0], O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(kvbi_disk_read(fd, bytes, count, offset), 0);
    close(fd);
}

void shelf_poke(const struct disk_shelf *shelf, uint64_t offset, const void *bytes, size_t count)
{
    int fd = open(shelf->paths[0], O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(kvbi_disk_write(fd, bytes, count, offset), 0);
    close(fd);
}

void shelf_flip(const struct disk_shelf *shelf, uint64_t offset)
{
    unsigned char byte;
    shelf_peek(shelf, offset, &byte, 1);
    byte ^= 0x10;
    shelf_poke(shelf, offset, &byte, 1);
}

uint64_t shelf_file_bytes(const struct disk_shelf *shelf)
{
    struct stat status;
    assert_int_equal(stat(shelf->paths[0], &status), 0);
    return (uint64_t)status.st_size;
}

struct kvbi_disk_superblock shelf_places(uint32_t slots)
{
    struct kvbi_disk_superblock placed;
    assert_true(kvbi_disk_place(&placed, SHELF_BLOCK_BYTES, slots));
    return placed;
}

uint64_t shelf_payload_at(uint32_t slot)
{
    return KVBI_DISK_DATA_OFFSET + (uint64_t)slot * SHELF_SLOT_BYTES;
}

uint64_t shelf_entry_at(uint32_t slots, uint32_t slot)
{
    return shelf_places(slots).table_offset + slot * KVBI_DISK_ENTRY_BYTES;
}

struct kvbi_disk_superblock shelf_superblock(const struct disk_shelf *shelf)
{
    struct kvbi_disk_superblock both[2];
    shelf_peek(shelf, 0, &both[0], sizeof both[0]);
    shelf_peek(shelf, KVBI_DISK_SUPERBLOCK_BYTES, &both[1], sizeof both[1]);
    return both[both[1].serial > both[0].serial];
}
