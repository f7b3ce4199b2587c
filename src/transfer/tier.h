/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One tier of the memory hierarchy: where its bytes lie, and what a kind of memory has to answer.
 *
 * Owns       nothing: the kinds do (transfer/memory, transfer/disk, transfer/cuda), each in a
 *            folder that nobody outside of it includes. transfer/kind.h says how a kind is found.
 * Callers    transfer/tiers creates and destroys; engines, offload/ and api/ ask.
 * Invariants every operation is there: a kind that has nothing to say answers with one of the
 *            functions at the end. What can be known of a tier without a call stands in its fields,
 *            as a property ("has addresses"), never as the name of a kind.
 * Lock       none. The fields are fixed after create; operations say who may call them.
 */
#ifndef KVBI_TRANSFER_TIER_H
#define KVBI_TRANSFER_TIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/log.h"
#include "base/memory.h"
#include "transfer/label.h"

struct kvbi_engine;
struct kvbi_engines_config;
struct kvbi_hooks;
struct kvbi_lasting_ops;
struct kvbi_registration;
struct kvbi_tier;

/* How memory is registered. */
struct kvbi_register_config {
    const struct kvbi_log *log;     /* outlives the registration */
    const struct kvbi_hooks *hooks; /* so do they; or NULL */
    uint32_t threads;               /* of its own; 0: before it returns */
    uint32_t duty_percent;          /* 1..100, of the time in the driver */
};

/* What every kind of memory answers. */
struct kvbi_tier_ops {
    const char *kind; /* for messages: "memory", "disk", "cuda" */
    void (*destroy)(struct kvbi_tier *tier);
    /*
     * The engine that moves blocks into and out of tiers of this kind; one serves all of them.
     * 0, or an error; `said` (KVBI_ENGINE_SAID_BYTES) has how it works, or the reason.
     */
    int (*create_engine)(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                         const struct kvbi_engines_config *config, char *said);
    /* Where one chunk of a block lies. NULL: its blocks have no addresses. Any thread. */
    unsigned char *(*chunk)(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                            uint32_t part, const struct kvb_layout *layout);
    /* NULL: blocks lie one behind the other from `base` on. Else why not, for a message. */
    const char *(*apart)(const struct kvbi_tier *tier);
    /* What it has allocated for its tables. Any thread. */
    size_t (*bytes)(const struct kvbi_tier *tier);
    /* Adds what it has to say to the picture. Any thread. */
    void (*statistics)(const struct kvbi_tier *tier, struct kvb_stats *stats);
    /*
     * Its memory has failed as a whole: nothing that is there can be read again. False otherwise,
     * and `why` (may be NULL) is left alone; else it has the reason. Any thread.
     */
    bool (*lost)(const struct kvbi_tier *tier, char *why, size_t why_bytes);
    /*
     * Registers the memory of `host`, a tier that engines of this kind copy to and from. The
     * registration is `host`'s from then on. What cannot be registered is said in the log.
     * KVB_ENOMEM: no thread.
     */
    int (*register_memory)(const struct kvbi_tier *tier, struct kvbi_tier *host,
                           const struct kvbi_register_config *config);
};

struct kvbi_tier {
    const struct kvbi_tier_ops *ops; /* NULL: there is no such tier */
    uint32_t tier;                   /* enum kvb_tier */
    uint32_t block_count;
    uint64_t block_bytes;
    unsigned char *base; /* of blocks that lie one behind the other; else NULL */
    bool owned;          /* `base` is the tier's to free */
    /* The processor may follow its addresses, and so may every engine. */
    bool on_host;
    /* Its blocks are read and written on the streams of a device, whose fences hold for them. */
    bool on_streams;
    const struct kvbi_lasting_ops *lasting; /* it outlives the process; NULL: it does not */
    const struct kvbi_memory *memory;
    void *self;                             /* the kind's own */
    struct kvbi_registration *registration; /* owned; of its memory with a device; or NULL */
};

/* ---- Tiers that outlive the process ---------------------------------------------------------- */

/* What an answer says about the file that gave it. */
enum kvbi_answer {
    KVBI_ANSWER_GOOD,
    KVBI_ANSWER_SILENT, /* nothing: the fault was somewhere else */
    KVBI_ANSWER_BAD     /* so many of them in a row take the file out of service */
};

/*
 * Slot s lies in file s % file_count, at s / file_count. Files are lost, emptied and put back one
 * by one. At most KVB_DISK_PATHS_MAX.
 */
struct kvbi_lasting_ops {
    uint32_t (*file_count)(const struct kvbi_tier *tier);
    const char *(*file_path)(const struct kvbi_tier *tier, uint32_t file);
    /* Everything that the tier counts and owns about one file; other fields are left alone. */
    void (*file_statistics)(const struct kvbi_tier *tier, uint32_t file,
                            struct kvb_disk_stats *stats);
    /* With which seed the names were made that it holds, or will hold. */
    uint64_t (*seed)(const struct kvbi_tier *tier);

    /* Was anything kept? And, known from commit on: in which order it was used? */
    bool (*kept)(const struct kvbi_tier *tier, uint32_t file);
    bool (*stamped)(const struct kvbi_tier *tier, uint32_t file);
    /* What was unusual when the file was opened, in words; "": nothing. */
    const char *(*note)(const struct kvbi_tier *tier, uint32_t file);
    /*
     * The point of no return of a create, after everything else that may fail. 0, or KVB_EIO,
     * KVB_ENOSPC with words in `message`: then it is to be destroyed.
     */
    int (*commit)(struct kvbi_tier *tier, char *message, size_t message_bytes);
    /*
     * What earlier runs have left, between commit and the first copy. *cursor: 0 at first. Returns
     * how many of `found` it has filled; 0: that was all.
     */
    uint32_t (*scan)(struct kvbi_tier *tier, uint64_t *cursor, struct kvbi_found *found,
                     uint32_t max);
    /* How many entries of the file scan has passed over because they were damaged. */
    uint64_t (*dropped)(const struct kvbi_tier *tier, uint32_t file);
    /* One of those that scan has found is not wanted. In memory only. */
    void (*forget)(struct kvbi_tier *tier, uint32_t slot);

    /* What the end of a copy to or from it says about the file. Any thread. */
    enum kvbi_answer (*answered)(const struct kvbi_tier *tier, int result);
    /* The slot is not to be used again, by later runs too. Best effort. Progress. */
    void (*retire)(struct kvbi_tier *tier, uint32_t slot);
    /*
     * Everything written so far is void, durably, when it returns. `clears` as in labels. Any
     * thread; clear, renew and close one at a time. KVB_EIO, KVB_ENOSPC: a file was not reached.
     */
    int (*clear)(struct kvbi_tier *tier, uint64_t clears);
    /* The same for one file, to which nothing moves, and its slots are as new. */
    int (*renew)(struct kvbi_tier *tier, uint32_t file);
    /*
     * After the last copy: in which order blocks were used (order[0] goes first), and that all was
     * closed. Best effort. Nothing but destroy may follow.
     */
    void (*close)(struct kvbi_tier *tier, const uint32_t *order, uint32_t count);
};

/* ---- Memory that is registered with a device ------------------------------------------------- */

struct kvbi_registration_ops {
    /*
     * Waits for what is under way. False: the device keeps some of the memory. Whoever gave it away
     * would have the next owner of the same addresses copy to and from the pages of before.
     */
    bool (*destroy)(struct kvbi_registration *registration);
    /* Any thread. */
    uint64_t (*bytes)(const struct kvbi_registration *registration);
    uint64_t (*refused_bytes)(const struct kvbi_registration *registration);
};

struct kvbi_registration {
    const struct kvbi_registration_ops *ops;
};

/* "DEVICE", ... "" for a number that is no tier. */
const char *kvbi_tier_name(uint32_t tier);

/* ---- For callers ----------------------------------------------------------------------------- */

void kvbi_tier_destroy(struct kvbi_tier *tier); /* legal on a zeroed object */

static inline unsigned char *kvbi_tier_address(const struct kvbi_tier *tier, uint32_t slot)
{
    return tier->base + (uint64_t)slot * tier->block_bytes;
}

static inline unsigned char *kvbi_tier_chunk(const struct kvbi_tier *tier, uint32_t slot,
                                             uint32_t layer, uint32_t part,
                                             const struct kvb_layout *layout)
{
    return tier->ops->chunk(tier, slot, layer, part, layout);
}

/* ---- For kinds that have nothing to say ------------------------------------------------------ */

unsigned char *kvbi_tier_no_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                  uint32_t part, const struct kvb_layout *layout);
const char *kvbi_tier_not_apart(const struct kvbi_tier *tier);
size_t kvbi_tier_no_bytes(const struct kvbi_tier *tier);
void kvbi_tier_no_statistics(const struct kvbi_tier *tier, struct kvb_stats *stats);
bool kvbi_tier_never_lost(const struct kvbi_tier *tier, char *why, size_t why_bytes);
int kvbi_tier_registers_nothing(const struct kvbi_tier *tier, struct kvbi_tier *host,
                                const struct kvbi_register_config *config);

#endif
