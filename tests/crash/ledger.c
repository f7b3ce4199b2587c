/* SPDX-License-Identifier: Apache-2.0 */
/* See ledger.h for the rules. */
#include "ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ledger_entry {
    bool promised;
    bool found;     /* by this life's check */
    bool intended;  /* announced, *stored* not delivered */
    bool forbidden; /* cleared or replaced, and not written again since */
    bool replaced;  /* it was that */
};

int ledger_init(struct ledger *ledger)
{
    *ledger = (struct ledger){.next = CRASH_CHAIN, .capacity = 1024}; /* 0 is no content */
    ledger->entries = calloc(ledger->capacity, sizeof *ledger->entries);
    return ledger->entries != NULL ? 0 : -1;
}

void ledger_fini(struct ledger *ledger)
{
    free(ledger->entries);
    ledger->entries = NULL;
}

static void end_intents(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->next; i++)
        ledger->entries[i].intended = false;
    ledger->intents = 0;
}

static void forget_promises(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->next; i++)
        ledger->entries[i].promised = false;
}

static void forbid_all(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->next; i++) {
        ledger->entries[i].forbidden = true;
        ledger->entries[i].replaced = false;
    }
}

void ledger_start_empty(struct ledger *ledger)
{
    forget_promises(ledger);
    forbid_all(ledger);
    end_intents(ledger);
}

void ledger_begin_life(struct ledger *ledger)
{
    ledger->checked = ledger->clearing = false;
    for (uint32_t i = 0; i < ledger->next; i++)
        ledger->entries[i].found = false;
}

/* A number for the first time. */
static int begin_content(struct ledger *ledger, uint32_t number)
{
    if (number >= ledger->capacity) {
        struct ledger_entry *grown = realloc(ledger->entries, 2 * (size_t)number * sizeof *grown);
        if (grown == NULL)
            return -1;
        memset(grown + ledger->capacity, 0,
               (2 * (size_t)number - ledger->capacity) * sizeof *grown);
        ledger->entries = grown;
        ledger->capacity = 2 * number;
    }
    if (number >= ledger->next)
        ledger->next = number + 1;
    return 0;
}

static void intend(struct ledger *ledger, struct ledger_entry *entry)
{
    if (ledger->clearing)
        return; /* offered before the clear, and void */
    entry->forbidden = false;
    ledger->intents += !entry->intended;
    entry->intended = true;
}

static void store(struct ledger *ledger, struct ledger_entry *entry)
{
    /* Before the check it is what recovery announces: nothing new. */
    if (ledger->clearing || !ledger->checked)
        return;
    ledger->intents -= entry->intended;
    entry->intended = false;
    entry->promised = true;
}

/* What the new process found, against what the old ones had promised. */
static void compare(struct ledger *ledger, bool roomy)
{
    uint64_t missing = 0;
    for (uint32_t i = 0; i < ledger->next; i++) {
        struct ledger_entry *entry = &ledger->entries[i];
        ledger->promised += entry->promised;
        ledger->found += entry->promised && entry->found;
        missing += entry->promised && !entry->found;
        if (entry->promised && !entry->found && roomy)
            fprintf(stderr, "lost: content %u\n", i);
        if (entry->found && entry->forbidden)
            fprintf(stderr, "came back after it had been %s: content %u\n",
                    entry->replaced ? "replaced" : "cleared", i);
        ledger->came_back += entry->found && entry->forbidden;
        entry->promised = entry->found;
    }
    uint64_t allowed = roomy ? 0 : ledger->intents;
    if (missing > allowed)
        fprintf(stderr, "lost: %llu contents are missing, %llu may be\n",
                (unsigned long long)missing, (unsigned long long)allowed);
    ledger->taken += missing < allowed ? missing : allowed;
    ledger->lost += missing < allowed ? 0 : missing - allowed;
    end_intents(ledger);
    ledger->checked = true;
}

int ledger_note(struct ledger *ledger, const struct crash_message *message, bool roomy)
{
    if (message->kind == CRASH_BEGINS && begin_content(ledger, message->number) != 0)
        return -1;
    struct ledger_entry *entry =
        message->number < ledger->next ? &ledger->entries[message->number] : NULL;
    switch (message->kind) {
    case CRASH_BUSY:
        ledger->busy++;
        break;
    case CRASH_FOUND:
        entry->found = true;
        break;
    case CRASH_WRONG:
        ledger->wrong++;
        fprintf(stderr, "wrong byte: content %u\n", message->number);
        break;
    case CRASH_CHECKED:
        compare(ledger, roomy);
        break;
    case CRASH_INTENT:
        intend(ledger, entry);
        break;
    case CRASH_STORED:
        store(ledger, entry);
        break;
    case CRASH_REMOVED:
        entry->promised = false;
        break;
    case CRASH_REPLACED:
        entry->promised = false;
        entry->forbidden = entry->replaced = true;
        ledger->replaced++;
        break;
    case CRASH_IDLE:
        end_intents(ledger);
        ledger->clearing = false;
        break;
    case CRASH_CLEARING:
        forget_promises(ledger);
        ledger->clearing = true;
        break;
    case CRASH_CLEARED:
        forbid_all(ledger);
        break;
    default:
        break;
    }
    return 0;
}

bool ledger_good(const struct ledger *ledger)
{
    return ledger->lost == 0 && ledger->wrong == 0 && ledger->came_back == 0;
}
