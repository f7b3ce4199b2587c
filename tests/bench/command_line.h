/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of a benchmark: --json, --quick, --help, and options that take a value. What it
 * does not know or like is said on stderr, with the usage, and ends the program.
 *
 * Callers    main. One thread, one command line a program.
 */
#ifndef BENCH_COMMAND_LINE_H
#define BENCH_COMMAND_LINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct command_line {
    const char *program;
    void (*usage)(FILE *out);
    /* An option and what follows it. */
    void (*value)(void *options, const char *name, const char *text);
    bool *json, *quick;
};

/* `line` must live as long as the functions below are called. */
void command_line_read(const struct command_line *line, void *options, int argc, char **argv);

_Noreturn void command_line_refuse(const char *what, const char *which);

uint32_t number_option(const char *name, const char *text, uint32_t low, uint32_t high);

/* The number of the word. */
uint32_t word_option(const char *name, const char *text, const char *const *words, uint32_t count);

#endif
