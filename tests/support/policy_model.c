/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_model.h. */
#include "support/policy_model.h"

#include <stdlib.h>

#include <kvblock.h>

void policy_model_init(struct policy_model *model, uint32_t slot_count)
{
    *model = (struct policy_model){.slot_count = slot_count};
    for (unsigned band = 0; band < KVBI_BAND_COUNT; band++)
        model->oldest[band] = model->youngest[band] = KVBI_NONE;
}

/* Directly before `younger`; KVBI_NONE: last of its band. */
static void link_before(struct policy_model *model, uint32_t slot, unsigned band, uint32_t younger)
{
    struct policy_model_slot *s = &model->slots[slot];
    uint32_t *from_younger =
        younger == KVBI_NONE ? &model->youngest[band] : &model->slots[younger].older;
    s->linked = true;
    s->band = band;
    s->before = KVBI_NONE;
    s->younger = younger;
    s->older = *from_younger;
    *from_younger = slot;
    if (s->older == KVBI_NONE)
        model->oldest[band] = slot;
    else
        model->slots[s->older].younger = slot;
    model->count++;
}

void policy_model_insert(struct policy_model *model, uint32_t slot, unsigned band,
                         uint64_t deadline_ns)
{
    model->slots[slot] = (struct policy_model_slot){.deadline_ns = deadline_ns};
    link_before(model, slot, band, KVBI_NONE);
}

void policy_model_insert_below(struct policy_model *model, uint32_t slot, unsigned band,
                               uint64_t deadline_ns, uint32_t parent)
{
    const struct policy_model_slot *above = &model->slots[parent];
    bool beside = above->linked && above->band == band;
    model->slots[slot] = (struct policy_model_slot){.deadline_ns = deadline_ns,
                                                    .returned = beside && above->returned};
    link_before(model, slot, band, beside ? parent : KVBI_NONE);
    if (beside)
        model->slots[slot].before = parent;
}

void policy_model_insert_oldest(struct policy_model *model, uint32_t slot, unsigned band,
                                uint64_t deadline_ns)
{
    model->slots[slot] = (struct policy_model_slot){.deadline_ns = deadline_ns, .returned = true};
    link_before(model, slot, band, model->oldest[band]);
}

void policy_model_remove(struct policy_model *model, uint32_t slot)
{
    struct policy_model_slot *s = &model->slots[slot];
    if (s->older == KVBI_NONE)
        model->oldest[s->band] = s->younger;
    else
        model->slots[s->older].younger = s->younger;
    if (s->younger == KVBI_NONE)
        model->youngest[s->band] = s->older;
    else
        model->slots[s->younger].older = s->older;
    for (uint32_t other = s->older; other != KVBI_NONE; other = model->slots[other].older)
        if (model->slots[other].before == slot)
            model->slots[other].before = KVBI_NONE;
    *s = (struct policy_model_slot){.linked = false};
    model->count--;
}

static int by_deadline(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return (left[0] > right[0]) - (left[0] < right[0]);
}

uint32_t policy_model_expire(struct policy_model *model, uint64_t now_ns)
{
    static uint64_t due[POLICY_SLOTS_MAX][2];
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < model->slot_count; slot++) {
        const struct policy_model_slot *s = &model->slots[slot];
        if (s->linked && s->deadline_ns != 0 && s->deadline_ns <= now_ns) {
            due[count][0] = s->deadline_ns;
            due[count++][1] = slot;
        }
    }
    qsort(due, count, sizeof *due, by_deadline);
    for (uint32_t i = 0; i < count; i++) {
        policy_model_remove(model, (uint32_t)due[i][1]);
        policy_model_insert(model, (uint32_t)due[i][1], KVB_PRIORITY_DEFAULT, 0);
    }
    return count;
}

/* Of the lowest band from `band` on that holds anything. */
static uint32_t oldest_from(const struct policy_model *model, unsigned band)
{
    for (; band < KVBI_BAND_COUNT; band++)
        if (model->oldest[band] != KVBI_NONE)
            return model->oldest[band];
    return KVBI_NONE;
}

static uint32_t next_in_order(const struct policy_model *model, uint32_t slot)
{
    const struct policy_model_slot *s = &model->slots[slot];
    return s->younger != KVBI_NONE ? s->younger : oldest_from(model, s->band + 1);
}

uint32_t policy_model_first(const struct policy_model *model)
{
    return oldest_from(model, 0);
}

bool policy_model_may_go_next(const struct policy_model *model, uint32_t slot)
{
    uint32_t before = policy_model_first(model);
    for (; before != slot; before = model->slots[before].younger)
        if (before == KVBI_NONE || !model->slots[before].returned ||
            model->slots[before].before == slot)
            return false;
    return slot != KVBI_NONE && (slot == policy_model_first(model) || model->slots[slot].returned);
}

uint32_t policy_model_tenth(const struct policy_model *model)
{
    return (model->count + 9) / 10;
}

void policy_model_note_cold(struct policy_model *model)
{
    uint32_t tenth = policy_model_tenth(model), place = 0, cold = tenth;
    uint32_t slot = policy_model_first(model);
    for (; slot != KVBI_NONE; slot = next_in_order(model, slot))
        if (place++, model->slots[slot].told && place > cold)
            cold = place;
    slot = policy_model_first(model);
    for (place = 0; place < cold; place++, slot = next_in_order(model, slot))
        model->slots[slot].cold = true;
}

uint32_t policy_model_untold(const struct policy_model *model)
{
    uint32_t tenth = policy_model_tenth(model), slot = policy_model_first(model);
    for (uint32_t place = 0; place < tenth; place++, slot = next_in_order(model, slot))
        if (!model->slots[slot].told)
            return slot;
    return KVBI_NONE;
}
