/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk engine between memory and a file, with everything around it; for tests of all disk
 * engines alike.
 *
 *     struct disk_rig *rig = *state;          // TEST(disk_rig, ...)
 *     rig->variant = &variant;                // or by way of the test's initial state
 *     rig_begin(rig, 65536, 8);               // an engine between 8 slots of memory and of a file
 *     rig_store(rig, 2, 77);                  // content 77 down into slot 2
 *     assert_int_equal(rig_load(rig, 2, 77), 0);
 *
 * A slot of memory holds the bytes of a content, which follow from its number; a copy's cookie is
 * an index below RIG_COOKIES, by which results are kept. What an engine reads while it works lives
 * in the rig or is static: the engine may outlive the body of a test that fails.
 */
#ifndef KVB_TEST_DISK_RIG_H
#define KVB_TEST_DISK_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/testing.h"
#include "base/clock.h"
#include "support/disk_path.h"
#include "support/failing_memory.h"
#include "support/test.h"
#include "transfer/disk/engine.h"

#define RIG_COOKIES 1024
#define RIG_PENDING 1000 /* no result yet */

struct disk_rig_variant {
    const char *name;
    enum kvbi_disk_engine engine;
    bool poll, buffered, shared, unregistered;
};

/* What the next writes, or the next reads, say in place of the system. */
struct rig_plan {
    int64_t results[4];
    _Atomic int at, count;
    bool for_ever, write;
};

struct disk_rig {
    const struct disk_rig_variant *variant;
    bool open;
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_hooks hooks; /* of the engine; may be changed while nothing is under way */
    struct rig_plan plan;
    struct disk_path place;
    struct kvbi_tier host, disk;
    struct kvbi_lines lines;
    const struct kvbi_tier *memories[1];
    struct kvbi_disk_engine_config config;
    struct kvbi_engine *engine;
    char said[KVBI_ENGINE_SAID_BYTES];
    char message[256];
    int results[RIG_COOKIES];
    bool condemned[RIG_COOKIES];
    uint32_t order[RIG_COOKIES], done;
    bool helped; /* `helper` is to be joined */
    pthread_t helper;
};

/* *state is a rig that is not open. The initial state of the test is its variant. */
int disk_rig_setup(void **state);
int disk_rig_teardown(void **state);

/*
 * Tiers of `slots` blocks; `base` as for kvbi_tier_host_create. 0 or the first error, with words in
 * rig->message. No engine yet: rig->config may be changed.
 */
int rig_open(struct disk_rig *rig, uint64_t block_bytes, uint32_t slots, void *base);
/* As after a kill, over so many files, without an engine. */
int rig_reopen(struct disk_rig *rig, uint32_t path_count);
/* The engine. 0 or its error, with words in rig->said. */
int rig_start(struct disk_rig *rig);
/* True if nothing is left allocated, and on a rig that is not open. Then it may be opened again. */
bool rig_close(struct disk_rig *rig);

/* Whether this machine has that engine; if not, why is said. */
bool rig_works(const struct disk_rig_variant *variant);

/* Open, and open with its engine; the test fails where that fails. */
void rig_must_open(struct disk_rig *rig, uint64_t block_bytes, uint32_t slots, void *base);
void rig_must_start(struct disk_rig *rig);
void rig_begin(struct disk_rig *rig, uint64_t block_bytes, uint32_t slots);

/* A thread of the rig's, which the teardown waits for if nobody has; what `body` returned. */
void rig_spawn(struct disk_rig *rig, void *(*body)(void *rig));
void *rig_join(struct disk_rig *rig);

/* ---- Contents -------------------------------------------------------------------------------- */

/* The next number of a reproducible sequence. */
uint64_t rig_random(uint64_t *state);

/* The content of this number into a slot of memory; or whether every byte of it is there. */
void rig_fill(struct disk_rig *rig, uint32_t slot, uint64_t key);
bool rig_has(struct disk_rig *rig, uint32_t slot, uint64_t key);

/* The label of the content, written for the first time, as copies below name it. */
struct kvbi_label rig_label(uint64_t key);

/* `count` bytes of a slot of a disk of one file, from `offset` on, behind the engine's back. */
void rig_peek(const struct disk_rig *rig, uint32_t slot, uint64_t offset, void *bytes,
              size_t count);
void rig_poke(const struct disk_rig *rig, uint32_t slot, uint64_t offset, const void *bytes,
              size_t count);
/* One bit of the byte there. */
void rig_flip(const struct disk_rig *rig, uint32_t slot, uint64_t offset);

/* ---- Copies ---------------------------------------------------------------------------------- */

struct kvbi_copy rig_down(struct disk_rig *rig, uint32_t host, uint32_t disk, uint64_t key,
                          uint32_t tag);
struct kvbi_copy rig_up(struct disk_rig *rig, uint32_t disk, uint32_t host, uint64_t key,
                        uint32_t tag);

/* One reap of at most `max`. False: a cookie completed that was not out. */
bool rig_reap(struct disk_rig *rig, uint32_t max, bool *more);

/*
 * Reaps until `done` reaches `count`, sleeping on the event descriptor when reap says that there is
 * nothing to do. False: nothing has come within KV_GIVE_UP_S.
 */
bool rig_wait(struct disk_rig *rig, uint32_t count);

/* One copy from submit to result. */
int rig_move(struct disk_rig *rig, struct kvbi_copy copy, bool urgent);

/* One copy, which the engine takes. */
void rig_submit(struct disk_rig *rig, struct kvbi_copy copy, bool urgent);

/* The content `key` into disk slot `slot`, by way of the host slot of that number, emptied then. */
void rig_store(struct disk_rig *rig, uint32_t slot, uint64_t key);

/* The result of reading it back there; the bytes are compared if it is 0. */
int rig_load(struct disk_rig *rig, uint32_t slot, uint64_t key);

/* Hooks by which I/O goes as rig->plan says, which may be changed while nothing is under way. */
struct kvbi_hooks rig_planned(struct disk_rig *rig);

#endif
