/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvb_replay - an hour of chat traffic through kvblock, every reused byte checked
 *
 * Reads a trace of requests (or generates one), serves them through the public interface as an
 * inference server would, and reports hits per tier and what each lane moved. Start with serve.c:
 * it is what a server's cache code looks like.
 *
 *     replay/options.c    the command line               replay/workload.c   the built-in workload
 *     replay/trace.c      traces and their files         replay/payload.c    tokens and bytes
 *     replay/json_line.c  one line of a trace            replay/serve.c      the serving loop
 *     replay/setup.c      the manager, its memory        replay/report.c     progress, table, JSON
 *     replay/contents.c  who computed which content
 */
#include "replay/options.h"
#include "replay/report.h"
#include "replay/serve.h"
#include "replay/setup.h"
#include "replay/trace.h"
#include "replay/workload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define EXIT_GOOD 0
#define EXIT_BAD 1 /* a wrong byte, unbalanced books, or a failure that is not the input's fault */
#define EXIT_INPUT 2 /* options or trace */

#define ERROR_BYTES 512

static int complain(int status, const char *message)
{
    fprintf(stderr, "kvb_replay: %s\n", message);
    return status;
}

static int load(struct trace *trace, const struct options *options)
{
    char error[ERROR_BYTES];
    if (options->trace_path) {
        if (trace_read(trace, options->trace_path, options->limit, error, sizeof error))
            return complain(EXIT_INPUT, error);
        return EXIT_GOOD;
    }
    if (workload_generate(trace, options->seed))
        return complain(EXIT_BAD, "out of memory");
    trace_limit(trace, options->limit);
    return EXIT_GOOD;
}

static int serve_all(struct server *server, const struct options *options, size_t request_count)
{
    struct progress progress;
    int status = 0;
    progress_begin(&progress, options, request_count);
    for (size_t i = 0; !status && i < request_count; i++) {
        status = server_serve(server, i);
        progress_update(&progress, server_results(server));
    }
    if (!status)
        status = server_finish(server);
    progress_end(&progress);
    return status ? complain(EXIT_BAD, server_error(server)) : EXIT_GOOD;
}

static int report(const struct options *options, const struct results *results, FILE *json)
{
    char reason[ERROR_BYTES];
    if (json != stdout)
        report_table(stdout, options, results);
    else if (!options->quiet)
        report_table(stderr, options, results);
    if (json)
        report_json(json, options, results);
    if (fflush(stdout) || ferror(stdout) || (json && (fflush(json) || ferror(json))))
        return complain(EXIT_BAD, "the results could not be written");
    if (!report_good(results, reason, sizeof reason))
        return complain(EXIT_BAD, reason);
    return EXIT_GOOD;
}

static int replay(const struct options *options, const struct trace *trace, FILE *json)
{
    char error[ERROR_BYTES];
    struct setup setup;
    int status = setup_open(&setup, options, trace_longest(trace), error, sizeof error);
    if (status)
        return complain(status, error);
    struct server *server = server_create(setup.manager, options, trace);
    if (!server)
        status = complain(EXIT_BAD, "out of memory");
    if (!status)
        status = serve_all(server, options, trace->request_count);
    int finished = !status;
    if (finished)
        status = report(options, server_results(server), json);
    server_destroy(server);
    int left = setup_close(&setup);
    if (left && finished) /* a replay that was cut short holds blocks */
        return complain(EXIT_BAD, kvb_strerror(left));
    return status;
}

/* Opened before the replay: a path that cannot be written should not cost minutes. */
static int replay_into(const struct options *options, const struct trace *trace)
{
    FILE *json = NULL;
    if (options->json_path && strcmp(options->json_path, "-") == 0) {
        json = stdout;
    } else if (options->json_path && !(json = fopen(options->json_path, "w"))) {
        char error[ERROR_BYTES];
        snprintf(error, sizeof error, "--json: %s: %s", options->json_path, strerror(errno));
        return complain(EXIT_INPUT, error);
    }
    int status = replay(options, trace, json);
    if (json && json != stdout && fclose(json) && status == EXIT_GOOD)
        return complain(EXIT_BAD, "the results could not be written");
    return status;
}

int main(int argc, char **argv)
{
    struct options options;
    struct trace trace;
    char error[ERROR_BYTES];
    if (options_parse(&options, argc, argv, error, sizeof error)) {
        complain(EXIT_INPUT, error);
        fputs("Try kvb_replay --help.\n", stderr);
        return EXIT_INPUT;
    }
    if (options.help)
        return fputs(options_help, stdout) < 0 || fflush(stdout) ? EXIT_BAD : EXIT_GOOD;
    trace_init(&trace);
    int status = load(&trace, &options);
    if (!status && options.write_path) {
        if (trace_write(&trace, options.write_path, error, sizeof error))
            status = complain(EXIT_INPUT, error);
    } else if (!status) {
        status = replay_into(&options, &trace);
    }
    trace_fini(&trace);
    return status;
}
