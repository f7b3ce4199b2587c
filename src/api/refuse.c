/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of what is refused. See refuse.h. */
#include "api/refuse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/manager.h"

#define SECOND_NS UINT64_C(1000000000)
#define LEFT_OUT_MAX UINT64_C(0xffffff)
#define WORDS_BYTES 128

static const struct {
    const char *name;
    uint32_t answers;
} calls[KVBI_CALL_COUNT] = {
#define CALL(name, text, answers) {text, answers},
    KVBI_CALL_MAP(CALL)
#undef CALL
};

/* ---- Lines ----------------------------------------------------------------------------------- */

bool kvbi_line_limit_pass(struct kvbi_line_limit *limit, uint64_t now_ns, uint32_t *left_out)
{
    uint32_t second = (uint32_t)(now_ns / SECOND_NS);
    uint64_t word = atomic_load_explicit(&limit->word, memory_order_relaxed), next;
    bool pass;
    do {
        uint64_t lines = word >> 24 & 0xff, left = word & LEFT_OUT_MAX;
        uint32_t of = (uint32_t)(word >> 32);
        bool later = (int32_t)(second - of) > 0; /* a thread may come late with an older time */
        pass = later || lines < KVBI_LINES_A_SECOND;
        *left_out = (uint32_t)left;
        if (later)
            next = (uint64_t)second << 32 | UINT64_C(1) << 24;
        else if (pass)
            next = (uint64_t)of << 32 | (lines + 1) << 24;
        else
            next = left < LEFT_OUT_MAX ? word + 1 : word;
    } while (!atomic_compare_exchange_weak_explicit(&limit->word, &word, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return pass;
}

static bool is_answer(enum kvbi_call call, int code)
{
    return (calls[call].answers & KVBI_CODE(code)) != 0;
}

/* "function: words, tail; left out". What is cut where a line is too long are the words. */
static void tell(struct kvb_manager *manager, enum kvbi_call call, int code, const char *words,
                 const char *tail, uint32_t left_out)
{
    char behind[WORDS_BYTES] = "";
    if (left_out > 0)
        (void)snprintf(behind, sizeof behind, "; %u more lines of %s were left out before this one",
                       left_out, calls[call].name);
    size_t room = KVBI_LOG_BYTES - 1 - strlen(calls[call].name) - 2 - strlen(tail) - strlen(behind);
    bool cut = strlen(words) > room;
    kvbi_log(&manager->log, is_answer(call, code) ? KVB_LOG_DEBUG : KVB_LOG_WARN, code,
             "%s: %.*s%s%s%s", calls[call].name, (int)(cut ? room - 3 : room), words,
             cut ? "..." : "", tail, behind);
}

/* May this function write a line now? */
static bool may_tell(struct kvb_manager *manager, enum kvbi_call call, int code, uint32_t *left_out)
{
    struct kvbi_refusals *refusals = &manager->refusals;
    if (manager->log.logger.log == NULL)
        return false;
    kvbi_lock_assert_none_held();
    return kvbi_line_limit_pass(is_answer(call, code) ? &refusals->answered[call]
                                                      : &refusals->refused[call],
                                kvbi_clock_now(&manager->clock), left_out);
}

int kvbi_refuse(struct kvb_manager *manager, enum kvbi_call call, int code, const char *format, ...)
{
    struct kvbi_why why;
    va_list arguments;
    uint32_t left_out;
    if (!may_tell(manager, call, code, &left_out))
        return code;
    va_start(arguments, format);
    kvbi_why_vsay(&why, format, arguments);
    va_end(arguments);
    tell(manager, call, code, why.text, "", left_out);
    return code;
}

int kvbi_refuse_null(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                     const void *pointer)
{
    return pointer != NULL ? 0 : kvbi_refuse(manager, call, KVB_EINVAL, "%s is NULL", name);
}

int kvbi_refuse_out(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                    const char *type, const void *out, size_t known)
{
    uint32_t size;
    int error = kvbi_refuse_null(manager, call, name, out);
    if (error != 0)
        return error;
    memcpy(&size, out, sizeof size);
    return size >= known ? 0
                         : kvbi_refuse(manager, call, KVB_EINVAL,
                                       "%s->size is %u, must be set to sizeof(struct %s) (%zu)",
                                       name, size, type, known);
}

/* ---- Calls on arrays ------------------------------------------------------------------------- */

/* Is the line rather about element i, with this code, than about what it is about so far? */
static bool is_rather(const struct kvbi_roll *roll, uint32_t i, int code)
{
    if (roll->told == 0)
        return true;
    bool answer = is_answer(roll->call, code), told_answer = is_answer(roll->call, roll->told);
    return answer != told_answer ? told_answer : i < roll->told_at;
}

void kvbi_roll_fail(struct kvbi_roll *roll, uint32_t i, int code)
{
    roll->failed++;
    if (i <= roll->first_at) {
        roll->first = code;
        roll->first_at = i;
    }
    if (is_rather(roll, i, code)) {
        roll->told = code;
        roll->told_at = i;
        roll->why.text[0] = '\0';
    }
}

/* "blocks[3] (DEVICE/5)", or as much of it as there is. */
static void say_element(const struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block,
                        char words[WORDS_BYTES])
{
    char index[16] = "", place[32] = "";
    const struct kvbi_pool *pool =
        block == NULL ? NULL : kvbi_store_pool_of(&roll->manager->store, block);
    if (roll->count != KVBI_ALONE)
        (void)snprintf(index, sizeof index, "[%u]", i);
    if (pool != NULL)
        (void)snprintf(place, sizeof place, " (%s/%u)", kvbi_tier_name(pool->tier),
                       kvbi_pool_slot(pool, block));
    (void)snprintf(words, WORDS_BYTES, "%s%s%s", roll->array, index, place);
}

/* Are words about element i wanted? Then the line is about it. */
static bool wants_words(struct kvbi_roll *roll, uint32_t i, int code)
{
    bool told = roll->told == code && roll->told_at == i;
    if (roll->manager->log.logger.log == NULL || (!told && !is_rather(roll, i, code)))
        return false;
    roll->told = code;
    roll->told_at = i;
    return true;
}

int kvbi_roll_why(struct kvbi_roll *roll, uint32_t i, int code, const struct kvb_block *block,
                  const char *format, ...)
{
    char element[WORDS_BYTES];
    struct kvbi_why words;
    va_list arguments;
    if (!wants_words(roll, i, code))
        return code;
    va_start(arguments, format);
    kvbi_why_vsay(&words, format, arguments);
    va_end(arguments);
    say_element(roll, i, block, element);
    kvbi_why_say(&roll->why, "%s%s", element, words.text);
    return code;
}

int kvbi_roll_not_held(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block)
{
    if (block == NULL)
        return kvbi_roll_why(roll, i, KVB_EINVAL, NULL, " is NULL, must be a block that is held");
    if (kvbi_store_pool_of(&roll->manager->store, block) == NULL)
        return kvbi_roll_why(roll, i, KVB_EINVAL, NULL, " is %p, which is no block of this manager",
                             (const void *)block);
    return kvbi_roll_why(roll, i, KVB_EINVAL, block, " is held by nobody, must be a block that is");
}

/* "Empty, Partial or Ready": the states that allow an edge. */
static void say_states(enum kvbi_edge edge, char words[WORDS_BYTES])
{
    uint32_t from = kvbi_edge_from(edge);
    size_t used = 0;
    words[0] = '\0';
    for (uint8_t state = 0; from != 0 && used < WORDS_BYTES; state++) {
        if (!(from & 1u << state))
            continue;
        from &= ~(1u << state);
        const char *joint = used == 0 ? "" : from == 0 ? " or " : ", ";
        used += (size_t)snprintf(words + used, WORDS_BYTES - used, "%s%s", joint,
                                 kvbi_state_name(state));
    }
}

int kvbi_roll_edge(struct kvbi_roll *roll, uint32_t i, int code, const struct kvb_block *block,
                   enum kvbi_edge edge)
{
    char states[WORDS_BYTES];
    if (code == KVB_EINVAL)
        return kvbi_roll_not_held(roll, i, block);
    if (code == KVB_ESHARED) {
        uint64_t users = kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire));
        return kvbi_roll_why(
            roll, i, code, block, " has %llu holders (%u steps among them), %s takes a sole holder",
            (unsigned long long)users, kvbi_life_get(block).steps, kvbi_edge_name(edge));
    }
    struct kvbi_life life = kvbi_life_get(block);
    say_states(edge, states);
    return kvbi_roll_why(roll, i, code, block, ": %s is not allowed in %s%s, only in %s",
                         kvbi_edge_name(edge), kvbi_state_name(life.state),
                         life.filling ? " (a transfer fills it)" : "", states);
}

int kvbi_roll_tell(struct kvbi_roll *roll)
{
    char tail[WORDS_BYTES] = "", element[WORDS_BYTES];
    uint32_t left_out;
    if (!may_tell(roll->manager, roll->call, roll->told, &left_out))
        return roll->first;
    if (kvbi_roll_unexplained(roll)) {
        say_element(roll, roll->told_at, NULL, element);
        kvbi_why_say(&roll->why, "%s: %s", element, kvb_strerror(roll->told));
    }
    if (roll->count != KVBI_ALONE && roll->count > 1)
        (void)snprintf(tail, sizeof tail, " (%u of %u elements refused)", roll->failed,
                       roll->count);
    tell(roll->manager, roll->call, roll->told, roll->why.text, tail, left_out);
    return roll->first;
}

int kvbi_refuse_not_held(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                         const struct kvb_block *block)
{
    struct kvbi_roll roll;
    kvbi_roll_begin(&roll, manager, call, name, KVBI_ALONE, NULL);
    kvbi_note(&roll, 0, kvbi_roll_not_held(&roll, 0, block));
    return kvbi_roll_end(&roll);
}

/* ---- Progress -------------------------------------------------------------------------------- */

int kvbi_refuse_progress(struct kvb_manager *manager, enum kvbi_call call, int error)
{
    if (error == KVB_EDEADLK)
        return kvbi_refuse(manager, call, error, KVBI_IN_CALLBACK);
    if (manager->progress.own_thread)
        return kvbi_refuse(manager, call, error,
                           "progress is KVB_PROGRESS_THREAD: the manager polls itself");
    return kvbi_refuse(manager, call, error,
                       "progress belongs to the thread that polled first, and this is another");
}

int kvbi_may_wait(struct kvb_manager *manager, enum kvbi_call call)
{
    int error = kvbi_progress_may_wait(&manager->progress);
    return error == 0 ? 0 : kvbi_refuse_progress(manager, call, error);
}
