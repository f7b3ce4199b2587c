/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving loop: what an inference server does with each request, with a generator in place of
 * the model.
 */
#ifndef REPLAY_SERVE_H
#define REPLAY_SERVE_H

#include <kvblock.h>
#include <stddef.h>
#include <stdint.h>

struct options;
struct trace;
struct server;

/* What the disk tier's files held at the start, and what this run had from them. */
struct restart {
    int resumed;
    uint64_t recovered, dropped,
        superseded; /* entries, as in struct kvb_disk_stats, of all files */
    uint64_t recovery_ns;
    uint64_t saved_hits;     /* on contents that this run had not computed before */
    uint64_t saved_contents; /* different ones among them */
};

struct results {
    uint64_t requests, block_refs;
    /* by the tier where match found them; only blocks whose bytes arrived */
    uint64_t hits[KVB_TIER_COUNT];
    uint64_t verified, corrupt;
    uint64_t room_retries; /* kvb_alloc said KVB_EAGAIN */
    uint64_t hits_dropped; /* given up to get room, or behind a block that did not arrive */
    double seconds, fill_seconds, verify_seconds, wait_seconds;
    struct restart restart;
    struct kvb_stats stats; /* after the last flush */
};

/* Serves with `manager`, which must outlive the server. NULL without memory. */
struct server *server_create(struct kvb_manager *manager, const struct options *options,
                             const struct trace *trace);
void server_destroy(struct server *server);

/* Serve one request: 0, or -1 with server_error() saying which call failed. */
int server_serve(struct server *server, size_t request);

/* Wait for the lanes and take the final statistics: 0 or -1, as above. */
int server_finish(struct server *server);

const struct results *server_results(const struct server *server);
const char *server_error(const struct server *server);

#endif
