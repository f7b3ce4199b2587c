/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk tier without an engine, its files within a test's reach: blocks are put into slots as an engine does it, found again after
 * a restart, and the bytes of the files looked at and changed in between.
 *
 *     struct shelf *shelf = *state;                 // shelf_set_up, shelf_tear_down
 *     shelf_open(shelf);
 *     shelf_put(shelf, 3, 77);                      // content 77 into slot 3: payload, then entry
 *     shelf_kill(shelf);                            // or shelf_close
 *     shelf_open(shelf);
 *     assert_int_equal(shelf_scan(shelf), 1);
 *     shelf_expect(shelf, 3, 77);                   // found there, and every byte right
 */
#ifndef KVB_TEST_DISK_SHELF_H
#define KVB_TEST_DISK_SHELF_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "support/disk_path.h"
#include "support/failing_memory.h"
#include "transfer/disk/io.h"
#include "transfer/disk/tier.h"

#define SHELF_BLOCK_BYTES 5000 /* padded to 8192 */
#define SHELF_SLOT_BYTES 8192
#define SHELF_SLOTS 24
#define SHELF_SLOTS_MAX 64
#define SHELF_PATHS 3

struct shelf {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct disk_path place;
    char files[SHELF_PATHS][112];
    const char *paths[SHELF_PATHS];
    struct kvbi_disk_config config;
    struct kvbi_tier tier;
    struct kvbi_disk *disk;
    char message[256];
    bool seen[SHELF_SLOTS_MAX];
    struct kvbi_found found[SHELF_SLOTS_MAX];
    uint32_t retired;
};

static inline int shelf_set_up(void **state)
{
    struct shelf *shelf = calloc(1, sizeof *shelf);
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

static inline int shelf_try(struct shelf *shelf)
{
    int error = kvbi_tier_disk_create(&shelf->tier, &shelf->memory, KVB_TIER_DISK, &shelf->config,
                                      shelf->message, sizeof shelf->message);
    if (error == 0)
        error = kvbi_disk_settle(kvbi_disk_of(&shelf->tier), shelf->message, sizeof shelf->message);
    if (error != 0)
        kvbi_tier_destroy(&shelf->tier);
    shelf->disk = kvbi_disk_of(&shelf->tier);
    return error;
}

static inline void shelf_open(struct shelf *shelf)
{
    if (shelf_try(shelf) != 0)
        fail_msg("%s", shelf->message);
}

/* Refused with that code and these words. */
static inline void shelf_expect_refusal(struct shelf *shelf, int code, const char *words)
{
    int result = shelf_try(shelf);
    if (result != code || strstr(shelf->message, words) == NULL)
        fail_msg("%d (expected %d): \"%s\" (expected \"%s\")", result, code, shelf->message, words);
}

/* What a killed process leaves: nothing is written any more. */
static inline void shelf_kill(struct shelf *shelf)
{
    kvbi_tier_destroy(&shelf->tier);
    shelf->disk = NULL;
}

static inline void shelf_close(struct shelf *shelf, const uint32_t *order, uint32_t count)
{
    kvbi_disk_close_clean(shelf->disk, order, count);
    shelf_kill(shelf);
}

static inline int shelf_tear_down(void **state)
{
    struct shelf *shelf = *state;
    shelf_kill(shelf);
    disk_path_remove(&shelf->place);
    int left = shelf->failing.live_count != 0;
    free(shelf);
    return left;
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------- */

static inline void shelf_pattern(unsigned char *payload, uint64_t content)
{
    memset(payload, 0, SHELF_SLOT_BYTES);
    for (size_t i = 0; i < SHELF_BLOCK_BYTES; i++)
        payload[i] = (unsigned char)(content * 31 + i * 7 + i / 256);
}

static inline struct kvbi_identity shelf_identity(uint64_t content)
{
    return (struct kvbi_identity){
        .hash = content, .digest = {content + 1, content + 2}, .generation = content + 3};
}

static inline struct kvbi_label shelf_label(uint64_t content, uint64_t clears)
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

/* The payload alone, as after its last byte was reported written. Its checksum. */
static inline uint64_t shelf_write(struct shelf *shelf, uint32_t slot, uint64_t content)
{
    _Alignas(4096) unsigned char payload[SHELF_SLOT_BYTES];
    const struct kvbi_identity identity = shelf_identity(content);
    shelf_pattern(payload, content);
    kvbi_disk_forget(shelf->disk, slot);
    assert_int_equal(kvbi_disk_write(kvbi_disk_path_of(shelf->disk, slot)->file.fd, payload,
                                     sizeof payload, kvbi_disk_offset(shelf->disk, slot)),
                     0);
    return kvbi_disk_checksum(shelf->disk, kvbi_disk_name(shelf->disk, slot, &identity), payload);
}

/* As decided after so many clears of this process. */
static inline int shelf_put_after(struct shelf *shelf, uint32_t slot, uint64_t content,
                                  uint64_t clears)
{
    const struct kvbi_identity identity = shelf_identity(content);
    const struct kvbi_label label = shelf_label(content, clears);
    struct kvbi_disk_publication publication = {.slot = slot,
                                                .name =
                                                    kvbi_disk_name(shelf->disk, slot, &identity),
                                                .checksum = shelf_write(shelf, slot, content),
                                                .label = &label};
    kvbi_disk_publish(shelf->disk, &publication, 1);
    return publication.result;
}

static inline void shelf_put(struct shelf *shelf, uint32_t slot, uint64_t content)
{
    assert_int_equal(shelf_put_after(shelf, slot, content, 0), 0);
}

/* Slot s gets content base + s. */
static inline void shelf_fill(struct shelf *shelf, uint64_t base)
{
    for (uint32_t slot = 0; slot < shelf->disk->slot_count; slot++)
        shelf_put(shelf, slot, base + slot);
}

/* A read as an engine does it: is that content to be had from that slot? A wrong byte that passes fails the test. */
static inline bool shelf_get(struct shelf *shelf, uint32_t slot, uint64_t content)
{
    _Alignas(4096) unsigned char payload[SHELF_SLOT_BYTES], expected[SHELF_SLOT_BYTES];
    const struct kvbi_identity identity = shelf_identity(content);
    uint64_t name = kvbi_disk_name(shelf->disk, slot, &identity);
    if (!kvbi_disk_holds(shelf->disk, slot, name))
        return false;
    assert_int_equal(kvbi_disk_read(kvbi_disk_path_of(shelf->disk, slot)->file.fd, payload,
                                    sizeof payload, kvbi_disk_offset(shelf->disk, slot)),
                     0);
    if (!kvbi_disk_verify(shelf->disk, slot, name, payload))
        return false;
    shelf_pattern(expected, content);
    assert_memory_equal(payload, expected, SHELF_BLOCK_BYTES);
    return true;
}

/* How many blocks the tables hold; a few at a time, so that windows and calls do not end together. */
static inline uint32_t shelf_scan(struct shelf *shelf)
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

static inline uint64_t shelf_dropped(const struct shelf *shelf)
{
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < shelf->disk->path_count; i++)
        dropped += shelf->disk->paths[i].dropped;
    return dropped;
}

static inline void shelf_expect(struct shelf *shelf, uint32_t slot, uint64_t content)
{
    struct kvbi_label label = shelf_label(content, 0);
    if (!shelf->seen[slot])
        fail_msg("slot %u was not found", slot);
    label.clears = shelf->found[slot].label.clears;
    label.payload_bytes = SHELF_BLOCK_BYTES;
    assert_memory_equal(&shelf->found[slot].label, &label, sizeof label);
    assert_true(shelf_get(shelf, slot, content));
}

static inline void shelf_expect_all(struct shelf *shelf, uint64_t base)
{
    assert_int_equal(shelf_scan(shelf), shelf->disk->slot_count);
    for (uint32_t slot = 0; slot < shelf->disk->slot_count; slot++)
        shelf_expect(shelf, slot, base + slot);
}

/* After a scan: whatever was found, it is content base + slot or fails; never other bytes. How many are to be had. */
static inline uint32_t shelf_survivors(struct shelf *shelf, uint64_t base)
{
    uint32_t good = 0;
    (void)shelf_scan(shelf);
    for (uint32_t slot = 0; slot < shelf->disk->slot_count; slot++)
        good += shelf_get(shelf, slot, base + slot);
    return good;
}

/* ---- Bytes of the first file -------------------------------------------------------------------------------------- */

static inline void shelf_peek(const struct shelf *shelf, uint64_t offset, void *bytes, size_t count)
{
    int fd = open(shelf->paths[0], O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(kvbi_disk_read(fd, bytes, count, offset), 0);
    close(fd);
}

static inline void shelf_poke(const struct shelf *shelf, uint64_t offset, const void *bytes,
                              size_t count)
{
    int fd = open(shelf->paths[0], O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(kvbi_disk_write(fd, bytes, count, offset), 0);
    close(fd);
}

static inline void shelf_flip(const struct shelf *shelf, uint64_t offset)
{
    unsigned char byte;
    shelf_peek(shelf, offset, &byte, 1);
    byte ^= 0x10;
    shelf_poke(shelf, offset, &byte, 1);
}

/* Where things lie in a file of so many slots. */
static inline struct kvbi_disk_superblock shelf_places(uint32_t slots)
{
    struct kvbi_disk_superblock placed;
    assert_true(kvbi_disk_place(&placed, SHELF_BLOCK_BYTES, slots));
    return placed;
}

static inline uint64_t shelf_payload_at(uint32_t slot)
{
    return KVBI_DISK_DATA_OFFSET + (uint64_t)slot * SHELF_SLOT_BYTES;
}

static inline uint64_t shelf_entry_at(uint32_t slots, uint32_t slot)
{
    return shelf_places(slots).table_offset + slot * KVBI_DISK_ENTRY_BYTES;
}

/* The newer superblock as the file has it. */
static inline struct kvbi_disk_superblock shelf_superblock(const struct shelf *shelf)
{
    struct kvbi_disk_superblock both[2];
    shelf_peek(shelf, 0, &both[0], sizeof both[0]);
    shelf_peek(shelf, KVBI_DISK_SUPERBLOCK_BYTES, &both[1], sizeof both[1]);
    return both[both[1].serial > both[0].serial];
}

#endif
