/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reports - what the stand-in has seen and nobody has taken yet
 *
 * Owns the list of reports, oldest first. Callers: every file of the stand-in, and tests.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct report {
    enum fake_cuda_report_kind kind;
    char text[320];
};

static struct report *reports;
static size_t report_count;
static size_t report_capacity;

static const char *const kind_names[] = {
#define KIND_NAME(name) #name,
    FAKE_CUDA_REPORT_KINDS(KIND_NAME)
#undef KIND_NAME
};

void *fake_grow(void *items, size_t count, size_t *capacity, size_t item_bytes)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 16;
    void *grown = realloc(items, *capacity * item_bytes);
    if (!grown)
        abort();
    return grown;
}

void fake_report(enum fake_cuda_report_kind kind, const char *format, ...)
{
    reports = fake_grow(reports, report_count, &report_capacity, sizeof *reports);
    struct report *report = &reports[report_count++];
    report->kind = kind;
    int named = snprintf(report->text, sizeof report->text, "%s: ", kind_names[kind]);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->text + named, sizeof report->text - (size_t)named, format, arguments);
    va_end(arguments);
}

static void remove_report(size_t index)
{
    report_count--;
    for (size_t i = index; i < report_count; i++)
        reports[i] = reports[i + 1];
}

static bool take(enum fake_cuda_report_kind kind)
{
    for (size_t i = 0; i < report_count; i++)
        if (reports[i].kind == kind) {
            remove_report(i);
            return true;
        }
    return false;
}

size_t fake_cuda_report_count(void)
{
    fake_enter_helper();
    size_t count = report_count;
    fake_unlock();
    return count;
}

const char *fake_cuda_report_text(size_t index)
{
    fake_enter_helper();
    const char *text = index < report_count ? reports[index].text : "";
    fake_unlock();
    return text;
}

bool fake_cuda_take_report(enum fake_cuda_report_kind kind)
{
    fake_enter_helper();
    bool taken = take(kind);
    fake_unlock();
    return taken;
}

size_t fake_cuda_take_reports(enum fake_cuda_report_kind kind)
{
    fake_enter_helper();
    size_t count = 0;
    while (take(kind))
        count++;
    fake_unlock();
    return count;
}

size_t fake_reports_end(void)
{
    size_t count = report_count;
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "fake_cuda: %s\n", reports[i].text);
    free(reports);
    reports = NULL;
    report_count = report_capacity = 0;
    return count;
}
