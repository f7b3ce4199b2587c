/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tier that outlives the process is told of a block, and tells again at the next open.
 *
 * Callers    offload/labels describes, offload/recover takes back; the tiers in between write the
 *            bytes down as they are (transfer/disk/format.h). No code, no lock.
 */
#ifndef KVBI_TRANSFER_LABEL_H
#define KVBI_TRANSFER_LABEL_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

/*
 * The content of a slot, by name: what is written under one identity is read under the same only.
 */
struct kvbi_identity {
    uint64_t hash, digest[2]; /* struct kvb_seq */
    uint64_t generation;      /* of the slot: how often it has been taken */
};

struct kvbi_label {
    uint64_t hash, digest[2]; /* struct kvb_seq; hash: with the caller's keys the key's own */
    uint64_t parent_hash;
    uint64_t space_hash, space_digest[2]; /* of the namespace: struct kvbi_namespace_name */
    uint64_t generation;                  /* of the slot: how often it had been taken */
    /*
     * That this process had seen when the write was decided; where it is written down: the epoch.
     */
    uint64_t clears;
    uint8_t has_parent;
    uint8_t priority;
    uint8_t zero[2];
    uint32_t payload_bytes;
    /* The caller's, zero behind key_bytes. */
    unsigned char key[KVB_KEY_BYTES_MAX], parent_key[KVB_KEY_BYTES_MAX];
};

/* What an earlier run has left in one slot. */
struct kvbi_found {
    uint32_t slot;
    bool retired;
    struct kvbi_label label; /* of a slot that has a block */
    uint64_t sequence;       /* of the write: of two copies of one content the larger one counts */
    uint64_t age; /* larger: used later. As of the last clean close, else by the writes */
};

#endif
