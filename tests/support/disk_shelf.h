/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk tier without an engine, its files within a test's reach: blocks are put into slots as an
 * engine does it, found again after a restart, and the bytes of the files looked at and changed in
 * between.
 *
 *     struct disk_shelf *shelf = *state;            // TEST(disk_shelf, ...)
 *     shelf_open(shelf);
 *     shelf_put(shelf, 3, 77);                      // content 77 into slot 3: payload, then entry
 *     shelf_kill(shelf);                            // or shelf_close
 *     shelf_open(shelf);
 *     assert_int_equal(shelf_scan(shelf), 1);
 *     shelf_expect(shelf, 3, 77);                   // found there, and every byte right
 */
#ifndef KVB_TEST_DISK_SHELF_H
#define KVB_TEST_DISK_SHELF_H

#include <stdbool.h>
#include <stdint.h>

#include "support/disk_path.h"
#include "support/failing_memory.h"
#include "support/test.h"
#include "transfer/disk/tier.h"

#define SHELF_BLOCK_BYTES 5000 /* padded to 8192 */
#define SHELF_SLOT_BYTES 8192
#define SHELF_SLOTS 24
#define SHELF_SLOTS_MAX 64
#define SHELF_PATHS 3

struct disk_shelf {
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

/* *state is a shelf whose files do not exist yet; the test may change its config. */
int disk_shelf_setup(void **state);
int disk_shelf_teardown(void **state);

/* 0, or the error, with words in shelf->message. */
int shelf_try(struct disk_shelf *shelf);
void shelf_open(struct disk_shelf *shelf);

/* Refused with that code and these words. */
void shelf_expect_refusal(struct disk_shelf *shelf, int code, const char *words);

/* What a killed process leaves: nothing is written any more. */
void shelf_kill(struct disk_shelf *shelf);
/* `order`: slots as they were used, the longest ago first. */
void shelf_close(struct disk_shelf *shelf, const uint32_t *order, uint32_t count);

/* ---- Blocks ---------------------------------------------------------------------------------- */

struct kvbi_identity shelf_identity(uint64_t content);
struct kvbi_label shelf_label(uint64_t content, uint64_t clears);

/* The payload alone, as after its last byte was reported written. Its checksum. */
uint64_t shelf_write(struct disk_shelf *shelf, uint32_t slot, uint64_t content);

/* As decided after so many clears of this process. */
int shelf_put_after(struct disk_shelf *shelf, uint32_t slot, uint64_t content, uint64_t clears);
void shelf_put(struct disk_shelf *shelf, uint32_t slot, uint64_t content);

/* Slot s gets content base + s. */
void shelf_fill(struct disk_shelf *shelf, uint64_t base);
/* Files with a block in every slot, closed. */
void shelf_make_full(struct disk_shelf *shelf, uint64_t base);

/*
 * A read as an engine does it: is that content to be had from that slot? A wrong byte that passes
 * fails the test.
 */
bool shelf_get(struct disk_shelf *shelf, uint32_t slot, uint64_t content);

/*
 * How many blocks the tables hold; a few at a time, so that windows and calls do not end together.
 */
uint32_t shelf_scan(struct disk_shelf *shelf);

/* Entries that were not believed. */
uint64_t shelf_dropped(const struct disk_shelf *shelf);

/* After a scan: the slot was found, with that content, label and all. */
void shelf_expect(struct disk_shelf *shelf, uint32_t slot, uint64_t content);
/* Every slot, as shelf_fill has left it. Scans. */
void shelf_expect_all(struct disk_shelf *shelf, uint64_t base);

/*
 * After a scan: whatever was found, it is content base + slot or fails; never other bytes. How many
 * are to be had.
 */
uint32_t shelf_survivors(struct disk_shelf *shelf, uint64_t base);

/* ---- Bytes of the first file ----------------------------------------------------------------- */

void shelf_peek(const struct disk_shelf *shelf, uint64_t offset, void *bytes, size_t count);
void shelf_poke(const struct disk_shelf *shelf, uint64_t offset, const void *bytes, size_t count);
/* One bit of the byte there. */
void shelf_flip(const struct disk_shelf *shelf, uint64_t offset);

uint64_t shelf_file_bytes(const struct disk_shelf *shelf);

/* Where things lie in a file of so many slots. */
struct kvbi_disk_superblock shelf_places(uint32_t slots);
uint64_t shelf_payload_at(uint32_t slot);
uint64_t shelf_entry_at(uint32_t slots, uint32_t slot);

/* The newer superblock as the file has it. */
struct kvbi_disk_superblock shelf_superblock(const struct disk_shelf *shelf);

#endif
