/* SPDX-License-Identifier: Apache-2.0 */
/* Points to wait for, and the lines they are on. See ticket.h. */
#include "block/ticket.h"

/* ---- Lines ----------------------------------------------------------------------------------- */

/*
 * In one order with what reads it: whoever is about to sleep says what it awaits and then looks
 * here, and who advances a line looks at that afterwards.
 */
bool kvbi_lines_advance(struct kvbi_lines *lines, uint32_t line, uint64_t number)
{
    uint64_t before = atomic_load(&lines->reached[line]);
    while (before < number && !atomic_compare_exchange_weak(&lines->reached[line], &before, number))
        ;
    if (before >= number)
        return false;
    atomic_fetch_add(&lines->moves, 1);
    return true;
}

void kvbi_lines_capture(struct kvbi_lines *lines, uint64_t ticket)
{
    uint64_t n = atomic_fetch_add(&lines->captured_count, 1);
    atomic_store(&lines->captured[n % KVBI_CAPTURED_MAX], ticket);
}

bool kvbi_lines_captured(const struct kvbi_lines *lines, uint64_t ticket)
{
    uint64_t n = atomic_load_explicit(&lines->captured_count, memory_order_acquire);
    uint64_t kept = n < KVBI_CAPTURED_MAX ? n : KVBI_CAPTURED_MAX;
    for (uint64_t i = 0; i < kept && ticket != 0; i++)
        if (atomic_load_explicit(&lines->captured[i], memory_order_relaxed) == ticket)
            return true;
    return false;
}

/* ---- What is awaited ------------------------------------------------------------------------- */

void kvbi_awaited_clear(struct kvbi_awaited *awaited)
{
    for (uint32_t i = 0; i < KVBI_LINE_COUNT / 64; i++)
        awaited->lines[i] = 0;
    awaited->now = false;
}

void kvbi_awaited_add(struct kvbi_awaited *awaited, uint64_t ticket)
{
    uint32_t line = kvbi_ticket_line(ticket);
    uint64_t number = kvbi_ticket_number(ticket), bit = UINT64_C(1) << line % 64;
    if (!(awaited->lines[line / 64] & bit) || number < awaited->numbers[line])
        awaited->numbers[line] = number;
    awaited->lines[line / 64] |= bit;
}

uint32_t kvbi_awaited_next(const struct kvbi_awaited *awaited, uint32_t line)
{
    while (line < KVBI_LINE_COUNT) {
        uint64_t rest = awaited->lines[line / 64] >> line % 64;
        if (rest != 0)
            return line + (uint32_t)__builtin_ctzll(rest);
        line = (line / 64 + 1) * 64;
    }
    return KVBI_LINE_COUNT;
}

void kvbi_awaited_merge(struct kvbi_awaited *awaited, const struct kvbi_awaited *other)
{
    awaited->now |= other->now;
    for (uint32_t line = kvbi_awaited_next(other, 0); line < KVBI_LINE_COUNT;
         line = kvbi_awaited_next(other, line + 1))
        kvbi_awaited_add(awaited, kvbi_ticket(line, other->numbers[line]));
}

bool kvbi_awaited_due(const struct kvbi_awaited *awaited, const struct kvbi_lines *lines)
{
    bool due = awaited->now;
    for (uint32_t line = kvbi_awaited_next(awaited, 0); line < KVBI_LINE_COUNT && !due;
         line = kvbi_awaited_next(awaited, line + 1))
        due = awaited->numbers[line] <= atomic_load(&lines->reached[line]);
    return due;
}
