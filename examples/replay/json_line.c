/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar of a trace's line: RFC 8259, with what the schema demands on top. A reader that
 * guesses would replay something else than the file says, so every deviation ends the line with a
 * reason. Values of unknown keys are checked to be JSON and skipped.
 *
 * Every function below returns NULL, or the reason and leaves the cursor anywhere.
 */
#include "json_line.h"

#include "payload.h"
#include "trace.h"

#include <inttypes.h>
#include <string.h>

#define ID_MAX (UINT64_C(1) << 63)
#define DEPTH_MAX 32 /* of nested values under an unknown key */

struct cursor {
    const char *at, *end;
};

enum field {
    FIELD_TIMESTAMP,
    FIELD_INPUT_LENGTH,
    FIELD_OUTPUT_LENGTH,
    FIELD_HASH_IDS,
    FIELD_COUNT
};

static const char *const field_names[FIELD_COUNT] = {"timestamp", "input_length", "output_length",
                                                     "hash_ids"};

static const char *const field_twice[FIELD_COUNT] = {
    "timestamp appears twice", "input_length appears twice", "output_length appears twice",
    "hash_ids appears twice"};

static const char *const field_bad[FIELD_COUNT] = {
    "timestamp is not an integer of 0..2^63", "input_length is not an integer of 0..2^63",
    "output_length is not an integer of 0..2^63",
    "hash_ids holds something else than integers of 0..2^63"};

struct line {
    uint64_t values[FIELD_COUNT]; /* [FIELD_HASH_IDS]: how many ids */
    int seen[FIELD_COUNT];
};

static void skip_space(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r' || *c->at == '\n'))
        c->at++;
}

/* White space, then `wanted` if it is next: 1 if it was. */
static int accept(struct cursor *c, char wanted)
{
    skip_space(c);
    if (c->at >= c->end || *c->at != wanted)
        return 0;
    c->at++;
    return 1;
}

static int at_digit(const struct cursor *c)
{
    return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

/* A JSON integer without sign, up to ID_MAX. No leading zeros, no fraction, no exponent. */
static int read_integer(struct cursor *c, uint64_t *value)
{
    skip_space(c);
    if (!at_digit(c))
        return 0;
    const char *start = c->at;
    *value = 0;
    for (; at_digit(c); c->at++) {
        uint64_t digit = (uint64_t)(*c->at - '0');
        if (*value > (ID_MAX - digit) / 10)
            return 0;
        *value = *value * 10 + digit;
    }
    if (*start == '0' && c->at - start > 1)
        return 0;
    return c->at >= c->end || !strchr(".eE", *c->at);
}

/*
 * A string, quotes included; [*text, *text + *length) is what stands between them, escapes as
 * written.
 */
static const char *read_string(struct cursor *c, const char **text, size_t *length)
{
    if (!accept(c, '"'))
        return "a string is expected";
    *text = c->at;
    for (; c->at < c->end && *c->at != '"'; c->at++) {
        if ((unsigned char)*c->at < 0x20)
            return "control character in a string";
        if (*c->at != '\\')
            continue;
        if (++c->at >= c->end || *c->at == '\0' || !strchr("\"\\/bfnrtu", *c->at))
            return "unknown escape in a string";
        for (int hex = *c->at == 'u' ? 4 : 0; hex > 0; hex--)
            if (++c->at >= c->end || *c->at == '\0' || !strchr("0123456789abcdefABCDEF", *c->at))
                return "unknown escape in a string";
    }
    if (c->at >= c->end)
        return "a string does not end";
    *length = (size_t)(c->at - *text);
    c->at++;
    return NULL;
}

static const char *skip_digits(struct cursor *c)
{
    if (!at_digit(c))
        return "malformed number";
    while (at_digit(c))
        c->at++;
    return NULL;
}

static const char *skip_number(struct cursor *c)
{
    const char *reason = NULL;
    if (*c->at == '-')
        c->at++;
    if (c->at < c->end && *c->at == '0')
        c->at++;
    else
        reason = skip_digits(c);
    if (!reason && c->at < c->end && *c->at == '.') {
        c->at++;
        reason = skip_digits(c);
    }
    if (!reason && c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
            c->at++;
        reason = skip_digits(c);
    }
    return reason;
}

static const char *skip_word(struct cursor *c)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(c->end - c->at) >= length && memcmp(c->at, words[i], length) == 0) {
            c->at += length;
            return NULL;
        }
    }
    return "a value is expected";
}

static const char *skip_value(struct cursor *c, int depth);

/* What stands between the brackets of an array or an object, closing bracket included. */
static const char *skip_members(struct cursor *c, char close, int depth)
{
    const char *reason, *text;
    size_t length;
    if (accept(c, close))
        return NULL;
    do {
        if (close == '}') {
            if ((reason = read_string(c, &text, &length)))
                return reason;
            if (!accept(c, ':'))
                return "':' is expected";
        }
        if ((reason = skip_value(c, depth)))
            return reason;
    } while (accept(c, ','));
    return accept(c, close) ? NULL : "',' or a closing bracket is expected";
}

static const char *skip_value(struct cursor *c, int depth)
{
    const char *text;
    size_t length;
    if (depth >= DEPTH_MAX)
        return "values are nested too deeply";
    skip_space(c);
    if (c->at >= c->end)
        return "a value is expected";
    if (*c->at == '"')
        return read_string(c, &text, &length);
    if (*c->at == '-' || at_digit(c))
        return skip_number(c);
    if (accept(c, '['))
        return skip_members(c, ']', depth + 1);
    if (accept(c, '{'))
        return skip_members(c, '}', depth + 1);
    return skip_word(c);
}

static const char *read_ids(struct trace *trace, struct cursor *c, uint64_t *count)
{
    *count = 0;
    if (!accept(c, '['))
        return "hash_ids is not an array";
    if (accept(c, ']'))
        return NULL;
    do {
        uint64_t *ids = trace_reserve(trace, (size_t)*count + 1);
        if (!ids)
            return "out of memory";
        if (*count == UINT32_MAX || !read_integer(c, &ids[*count]))
            return field_bad[FIELD_HASH_IDS];
        ++*count;
    } while (accept(c, ','));
    return accept(c, ']') ? NULL : "',' or ']' is expected in hash_ids";
}

static const char *read_member(struct trace *trace, struct cursor *c, struct line *line)
{
    const char *name;
    size_t length;
    const char *reason = read_string(c, &name, &length);
    if (reason)
        return reason;
    if (!accept(c, ':'))
        return "':' is expected";
    int field = 0;
    while (field < FIELD_COUNT &&
           (strlen(field_names[field]) != length || memcmp(field_names[field], name, length) != 0))
        field++;
    if (field == FIELD_COUNT)
        return skip_value(c, 0);
    if (line->seen[field]++)
        return field_twice[field];
    if (field == FIELD_HASH_IDS)
        return read_ids(trace, c, &line->values[field]);
    return read_integer(c, &line->values[field]) ? NULL : field_bad[field];
}

static const char *check(const struct line *line)
{
    if (!line->seen[FIELD_HASH_IDS])
        return "hash_ids is missing";
    if (!line->seen[FIELD_INPUT_LENGTH])
        return "input_length is missing";
    uint64_t input_length = line->values[FIELD_INPUT_LENGTH],
             id_count = line->values[FIELD_HASH_IDS];
    if (id_count == 0)
        return "hash_ids is empty";
    if (id_count !=
        input_length / REPLAY_TOKENS_PER_BLOCK + (input_length % REPLAY_TOKENS_PER_BLOCK != 0))
        return "hash_ids does not hold ceil(input_length / 512) ids";
    return NULL;
}

const char *json_line_read(struct trace *trace, const char *text, size_t length)
{
    struct cursor c = {text, text + length};
    struct line line = {{0}, {0}};
    skip_space(&c);
    if (c.at == c.end)
        return NULL;
    if (!accept(&c, '{'))
        return "an object is expected";
    if (!accept(&c, '}')) {
        do {
            const char *reason = read_member(trace, &c, &line);
            if (reason)
                return reason;
        } while (accept(&c, ','));
        if (!accept(&c, '}'))
            return "',' or '}' is expected";
    }
    skip_space(&c);
    if (c.at < c.end)
        return "something follows the object";
    const char *reason = check(&line);
    if (reason)
        return reason;
    if (trace_add(trace, line.values[FIELD_TIMESTAMP], line.values[FIELD_INPUT_LENGTH],
                  line.values[FIELD_OUTPUT_LENGTH], (uint32_t)line.values[FIELD_HASH_IDS]))
        return "out of memory";
    return NULL;
}
