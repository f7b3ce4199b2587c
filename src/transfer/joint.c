/* SPDX-License-Identifier: Apache-2.0 */
/* joint - see joint.h. */
#include "transfer/joint.h"

#include <kvblock.h>

static bool is_empty(const struct kvbi_joint_set *set)
{
    return (set->lines[0] | set->lines[1]) == 0;
}

/* The first line from `line` on that the set has a point on; KVBI_LINE_COUNT: none. */
static uint32_t next_line(const struct kvbi_joint_set *set, uint32_t line)
{
    while (line < KVBI_LINE_COUNT && !(set->lines[line / 64] >> line % 64 & 1))
        line++;
    return line;
}

/*
 * A ticket of this line itself is of a set that is reached no later than the one that is
 * gathered now.
 */
static void gather_locked(struct kvbi_joint *joint, uint64_t ticket)
{
    kvbi_lock_assert_held(&joint->lock);
    struct kvbi_joint_set *gathered = &joint->gathered;
    uint32_t line = kvbi_ticket_line(ticket);
    uint64_t number = kvbi_ticket_number(ticket), bit = UINT64_C(1) << line % 64;
    if (ticket == 0 || line == KVBI_LINE_JOINT)
        return;
    if (!(gathered->lines[line / 64] & bit)) {
        gathered->since[line] = atomic_load(&joint->lines->reached[line]);
        gathered->until[line] = 0;
    }
    if (number > gathered->until[line])
        gathered->until[line] = number;
    gathered->lines[line / 64] |= bit;
}

uint64_t kvbi_joint_add(struct kvbi_joint *joint, uint64_t a, uint64_t b)
{
    kvbi_lock_take(&joint->lock);
    gather_locked(joint, a);
    gather_locked(joint, b);
    uint64_t ticket = kvbi_ticket(KVBI_LINE_JOINT, joint->gathered.number);
    kvbi_lock_release(&joint->lock);
    return ticket;
}

static bool is_reached(const struct kvbi_joint *joint)
{
    const struct kvbi_joint_set *waited = &joint->waited;
    bool reached = true;
    for (uint32_t line = next_line(waited, 0); line < KVBI_LINE_COUNT && reached;
         line = next_line(waited, line + 1))
        reached = kvbi_ticket_reached(joint->lines, kvbi_ticket(line, waited->until[line]));
    return reached;
}

/*
 * One of its points may have been found captured. Which of the set's slots had been given it
 * nobody knows: what waits for any of them fails.
 */
static bool has_captured(const struct kvbi_joint *joint)
{
    const struct kvbi_joint_set *waited = &joint->waited;
    uint64_t count = atomic_load_explicit(&joint->lines->captured_count, memory_order_acquire);
    bool captured = false;
    for (uint64_t i = 0; i < count && i < KVBI_CAPTURED_MAX && !captured; i++) {
        uint64_t ticket = atomic_load_explicit(&joint->lines->captured[i], memory_order_relaxed);
        uint32_t line = kvbi_ticket_line(ticket);
        captured = (waited->lines[line / 64] >> line % 64 & 1) &&
                   kvbi_ticket_number(ticket) > waited->since[line] &&
                   kvbi_ticket_number(ticket) <= waited->until[line];
    }
    return captured;
}

/* False: there is none to wait for. */
static bool next_set_locked(struct kvbi_joint *joint)
{
    kvbi_lock_assert_held(&joint->lock);
    if (is_empty(&joint->waited) && !is_empty(&joint->gathered)) {
        joint->waited = joint->gathered;
        joint->gathered.lines[0] = joint->gathered.lines[1] = 0;
        joint->gathered.number++;
    }
    return !is_empty(&joint->waited);
}

bool kvbi_joint_advance(struct kvbi_joint *joint)
{
    bool advanced = false;
    kvbi_lock_take(&joint->lock);
    while (next_set_locked(joint) && is_reached(joint)) {
        if (has_captured(joint))
            kvbi_lines_capture(joint->lines, kvbi_ticket(KVBI_LINE_JOINT, joint->waited.number));
        advanced |= kvbi_lines_advance(joint->lines, KVBI_LINE_JOINT, joint->waited.number);
        joint->waited.lines[0] = joint->waited.lines[1] = 0;
    }
    kvbi_lock_release(&joint->lock);
    return advanced;
}

void kvbi_joint_await(struct kvbi_joint *joint, struct kvbi_awaited *awaited)
{
    kvbi_lock_take(&joint->lock);
    if (next_set_locked(joint)) {
        const struct kvbi_joint_set *waited = &joint->waited;
        for (uint32_t line = next_line(waited, 0); line < KVBI_LINE_COUNT;
             line = next_line(waited, line + 1))
            if (!kvbi_ticket_reached(joint->lines, kvbi_ticket(line, waited->until[line])))
                kvbi_awaited_add(awaited, kvbi_ticket(line, waited->until[line]));
        awaited->now |= is_reached(joint);
    }
    kvbi_lock_release(&joint->lock);
}

int kvbi_joint_init(struct kvbi_joint *joint, struct kvbi_lines *lines)
{
    *joint = (struct kvbi_joint){.lines = lines, .gathered.number = 1};
    return kvbi_lock_init(&joint->lock, KVBI_RANK_ENGINE) == 0 ? 0 : KVB_ENOMEM;
}

void kvbi_joint_fini(struct kvbi_joint *joint)
{
    if (joint->lines != NULL)
        kvbi_lock_fini(&joint->lock);
    joint->lines = NULL;
}
