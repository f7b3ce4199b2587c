/* SPDX-License-Identifier: Apache-2.0 */
/* What calls that move unregistered blocks are given: checked, refused by name. See given.h. */
#include "api/given.h"

#include <stdio.h>

#include "api/manager.h"
#include "base/struct_in.h"

/* What is wrong with element i of `array` as a struct. Returns KVB_EINVAL. */
int kvbi_refuse_struct(struct kvbi_roll *roll, uint32_t i, const char *array, const char *type,
                       const void *element, size_t size, size_t known)
{
    struct kvbi_why why;
    char name[32];
    (void)snprintf(name, sizeof name, "%s[%u]", array, i);
    kvbi_struct_why(&why, name, type, element, size, known);
    return kvbi_roll_why(roll, i, KVB_EINVAL, NULL, ": %s", why.text);
}

/* Without a size there is no way from one element to the next. 0, or KVB_EINVAL and its line. */
int kvbi_check_distance(struct kvb_manager *manager, enum kvbi_call call, const char *array,
                        const char *type, const void *elements, uint32_t size, size_t known,
                        size_t alignment)
{
    struct kvbi_why why;
    char name[32];
    if (size >= known && size % alignment == 0)
        return 0;
    (void)snprintf(name, sizeof name, "%s[0]", array);
    if (size < known)
        kvbi_struct_why(&why, name, type, elements, size, known);
    else
        kvbi_why_say(&why, "%s.size is %u, must be a multiple of %zu, from %zu (sizeof(struct %s))",
                     name, size, alignment, known, type);
    return kvbi_refuse(manager, call, KVB_EINVAL, "%s", why.text);
}

/* 0, or what is wrong with the tokens as they are given. */
int kvbi_check_append(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block,
                      const struct kvb_append *append, uint32_t size)
{
    if (!kvbi_struct_fits(append, size, sizeof *append))
        return kvbi_refuse_struct(roll, i, "appends", "kvb_append", append, size, sizeof *append);
    if ((append->flags & ~KVB_MORE) != 0)
        return kvbi_roll_why(roll, i, KVB_EINVAL, block,
                             ": appends[%u].flags is 0x%x, must be 0 or KVB_MORE (%u)", i,
                             append->flags, KVB_MORE);
    if (append->count > 0 && append->tokens == NULL)
        return kvbi_roll_why(roll, i, KVB_EINVAL, block,
                             ": appends[%u].tokens is NULL, count is %u", i, append->count);
    return 0;
}

/* Why a step does not finish. */
int kvbi_refuse_step(struct kvbi_roll *roll, uint32_t i, int error, const struct kvb_block *block,
                     enum kvbi_edge edge, uint32_t computed, const struct kvb_fence *fence)
{
    bool of_count = error == KVB_EINVAL && kvbi_held_pool(roll->manager, block) != NULL;
    if (error == KVB_EUNSUPPORTED)
        kvbi_roll_fence(roll, i, block, fence);
    else if (of_count)
        (void)kvbi_roll_why(roll, i, error, block, ": computed[%u] is %u, must be %u..%u", i,
                            computed, kvbi_life_get(block).computed, kvbi_life_get(block).tokens);
    else
        (void)kvbi_roll_edge(roll, i, error, block, edge);
    return error;
}

int kvbi_refuse_clone(struct kvb_manager *manager, const struct kvb_block *source,
                      const struct kvb_block *target, int error)
{
    struct kvbi_roll from, to;
    bool held = kvbi_held_pool(manager, source) != NULL;
    struct kvbi_life life = held ? kvbi_life_get(source) : (struct kvbi_life){0};
    kvbi_roll_begin(&from, manager, KVBI_CALL_BLOCK_CLONE, "source", KVBI_ALONE, NULL);
    kvbi_roll_begin(&to, manager, KVBI_CALL_BLOCK_CLONE, "target", KVBI_ALONE, NULL);
    struct kvbi_roll *told = &from;
    if (!held)
        (void)kvbi_roll_not_held(told, 0, source);
    else if (source == target)
        (void)kvbi_roll_why(told, 0, error, source,
                            " is the target as well, must be another block");
    else if (error == KVB_ENOENT)
        (void)kvbi_roll_why(
            told, 0, error, source,
            " has no known names: it came back from a file, which keeps less than a clone needs");
    else if (error == KVB_ESTATE && (life.state == KVB_STATE_EMPTY || life.filling))
        (void)kvbi_roll_why(told, 0, error, source, " is %s, must have tokens named",
                            life.filling ? "filled by a transfer" : "Empty");
    else
        (void)kvbi_roll_edge(told = &to, 0, error, target, KVBI_EDGE_INIT);
    kvbi_note(told, 0, error);
    return kvbi_roll_end(told);
}
