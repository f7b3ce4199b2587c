/* SPDX-License-Identifier: Apache-2.0 */
#include "command_line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct command_line *current;

void command_line_refuse(const char *what, const char *which)
{
    (void)fprintf(stderr, "%s: %s: %s\n", current->program, what, which);
    current->usage(stderr);
    exit(2);
}

uint32_t number_option(const char *name, const char *text, uint32_t low, uint32_t high)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < low || value > high)
        command_line_refuse(name, text);
    return (uint32_t)value;
}

uint32_t word_option(const char *name, const char *text, const char *const *words, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    command_line_refuse(name, text);
}

void command_line_read(const struct command_line *line, void *options, int argc, char **argv)
{
    current = line;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            *line->json = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            *line->quick = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            line->usage(stdout);
            exit(0);
        } else {
            if (i + 1 == argc)
                command_line_refuse("unknown option, or its value is missing", argv[i]);
            line->value(options, argv[i], argv[i + 1]);
            i++;
        }
    }
}
