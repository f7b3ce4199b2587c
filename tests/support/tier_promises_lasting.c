/* SPDX-License-Identifier: Apache-2.0 */
/* What transfer/tier.h promises of tiers that outlive the process. */
#include "support/tier_scene.h"

#define WRITTEN 12u /* blocks of a test that opens again */

static const struct kvbi_lasting_ops *lasting(const struct tier_scene *scene)
{
    return scene->tier->lasting;
}

static uint32_t files(const struct tier_scene *scene)
{
    return lasting(scene)->file_count(scene->tier);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static bool files_have_names(struct tier_scene *scene)
{
    uint32_t count = files(scene);
    MUST(scene, count >= 1 && count <= KVB_DISK_PATHS_MAX, "it has %u files", count);
    MUST(scene, count == scene->recipe->file_count, "it has %u files, must have %u", count,
         scene->recipe->file_count);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = lasting(scene)->file_path(scene->tier, i);
        MUST(scene, name != NULL && name[0] != '\0', "file %u has no name", i);
        for (uint32_t j = 0; j < i; j++)
            MUST(scene, strcmp(name, lasting(scene)->file_path(scene->tier, j)) != 0,
                 "files %u and %u are both called %s", j, i, name);
    }
    return true;
}

/* From create on, and nothing comes of it later. */
static bool new_files_are_empty(struct tier_scene *scene)
{
    tier_scene_kill(scene);
    KEPT(tier_scene_clean_up(scene));
    tier_scene_prepare(scene, scene->recipe);
    KEPT(tier_scene_create(scene));
    MUST(scene, lasting(scene)->seed(scene->tier) != 0, "the seed of its names is 0");
    for (uint32_t i = 0; i < files(scene); i++) {
        MUST(scene, !lasting(scene)->kept(scene->tier, i), "file %u is new, and kept", i);
        MUST(scene, lasting(scene)->note(scene->tier, i) != NULL, "the note of file %u is NULL", i);
    }
    KEPT(tier_scene_commit(scene));
    KEPT(tier_scene_scan(scene, 3));
    MUST(scene, scene->found_count + scene->retired_count == 0,
         "%u blocks and %u retired slots are found in new files", scene->found_count,
         scene->retired_count);
    for (uint32_t i = 0; i < files(scene); i++) {
        MUST(scene, !lasting(scene)->kept(scene->tier, i), "file %u is new, and kept", i);
        MUST(scene, !lasting(scene)->stamped(scene->tier, i), "file %u is new, and stamped", i);
        MUST(scene, lasting(scene)->dropped(scene->tier, i) == 0, "file %u is new: %llu dropped", i,
             (unsigned long long)lasting(scene)->dropped(scene->tier, i));
    }
    return true;
}

/* Each word is either the file's, and says the same whatever was there, or is left alone. */
static bool file_statistics_leave_the_rest_alone(struct tier_scene *scene)
{
    enum { WORDS = sizeof(struct kvb_disk_stats) / sizeof(uint32_t) };
    union {
        struct kvb_disk_stats stats;
        uint32_t words[WORDS];
    } one, other;
    KEPT(tier_scene_write(scene, 1, 1));
    for (uint32_t file = 0; file < files(scene); file++) {
        memset(&one, 0x11, sizeof one);
        memset(&other, 0x77, sizeof other);
        lasting(scene)->file_statistics(scene->tier, file, &one.stats);
        lasting(scene)->file_statistics(scene->tier, file, &other.stats);
        for (uint32_t i = 0; i < WORDS; i++)
            MUST(scene,
                 one.words[i] == other.words[i] ||
                     (one.words[i] == 0x11111111 && other.words[i] == 0x77777777),
                 "word %u of the statistics of file %u is 0x%x or 0x%x", i, file, one.words[i],
                 other.words[i]);
        MUST(scene, one.stats.path_count == files(scene), "file %u counts %u files", file,
             one.stats.path_count);
        MUST(scene,
             one.stats.size == 0x11111111 && one.stats.out_of_service == 0x11111111 &&
                 one.stats.slot_count == UINT64_C(0x1111111111111111) &&
                 one.stats.recovered == UINT64_C(0x1111111111111111) &&
                 one.stats.hits == UINT64_C(0x1111111111111111),
             "file %u says what only the store knows", file);
    }
    return true;
}

/* Nothing comes of what never began, of wrong bytes, or of a device. */
static bool answers_say_whose_fault_it_was(struct tier_scene *scene)
{
    static const struct {
        int result;
        enum kvbi_answer answer;
    } all[] = {{0, KVBI_ANSWER_GOOD},
               {KVB_ECANCELED, KVBI_ANSWER_SILENT},
               {KVB_ECORRUPT, KVBI_ANSWER_SILENT},
               {KVB_EDEVICE, KVBI_ANSWER_SILENT},
               {KVB_EIO, KVBI_ANSWER_BAD}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        enum kvbi_answer answer = lasting(scene)->answered(scene->tier, all[i].result);
        MUST(scene, answer == all[i].answer, "the answer to %d is %d, must be %d", all[i].result,
             (int)answer, (int)all[i].answer);
    }
    return true;
}

/* All that may be asked of a file works on one that has nothing to lose, and it goes on. */
static bool empty_files_do_as_they_are_told(struct tier_scene *scene)
{
    const uint32_t order[] = {2, 1};
    int code = lasting(scene)->clear(scene->tier, 1);
    MUST(scene, code == 0, "clear is %d", code);
    for (uint32_t i = 0; i < files(scene); i++) {
        code = lasting(scene)->renew(scene->tier, i);
        MUST(scene, code == 0, "renew of file %u is %d", i, code);
    }
    lasting(scene)->retire(scene->tier, 0);
    KEPT(tier_scene_write_after(scene, 1, 71, 1));
    KEPT(tier_scene_write_after(scene, 2, 72, 1));
    KEPT(tier_scene_has(scene, 1, 71));
    KEPT(tier_scene_has(scene, 2, 72));
    tier_scene_close(scene, order, 2);
    return true;
}

/* ---- What is found again --------------------------------------------------------------------- */

/* Slots of all files, in a random order; contents base + slot. */
static bool write_some(struct tier_scene *scene, uint32_t *slots, uint64_t base)
{
    uint64_t seed = base;
    tier_scene_shuffle(slots, &seed);
    for (uint32_t i = 0; i < WRITTEN; i++)
        KEPT(tier_scene_write(scene, slots[i], base + slots[i]));
    return true;
}

static bool found_some(struct tier_scene *scene, const uint32_t *slots, uint32_t count,
                       uint64_t base)
{
    MUST(scene, scene->found_count == count, "%u blocks are found, must be %u", scene->found_count,
         count);
    for (uint32_t i = 0; i < count; i++)
        KEPT(tier_scene_found(scene, slots[i], base + slots[i]));
    return true;
}

static bool reopen(struct tier_scene *scene)
{
    tier_scene_kill(scene);
    return tier_scene_open(scene);
}

/* slots[0] goes first. */
static bool ages_rise(struct tier_scene *scene, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        MUST(scene, scene->found[slots[i - 1]].age < scene->found[slots[i]].age,
             "slot %u was used before slot %u, and is found younger", slots[i - 1], slots[i]);
    return true;
}

static bool all_say(struct tier_scene *scene, bool (*what)(const struct kvbi_tier *, uint32_t),
                    bool must, const char *word)
{
    for (uint32_t i = 0; i < files(scene); i++)
        MUST(scene, what(scene->tier, i) == must, "file %u is %s%s", i, must ? "not " : "", word);
    return true;
}

static bool survives_a_kill(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS];
    uint64_t seed = lasting(scene)->seed(scene->tier);
    KEPT(write_some(scene, slots, 500));
    tier_scene_kill(scene);
    KEPT(tier_scene_create(scene));
    KEPT(all_say(scene, lasting(scene)->kept, true, "kept"));
    MUST(scene, lasting(scene)->seed(scene->tier) == seed, "names were made with another seed");
    KEPT(tier_scene_commit(scene));
    KEPT(all_say(scene, lasting(scene)->stamped, false, "stamped"));
    KEPT(tier_scene_scan(scene, PAIR_BLOCKS));
    KEPT(found_some(scene, slots, WRITTEN, 500));
    for (uint32_t i = 1; i < WRITTEN; i++)
        MUST(scene, scene->found[slots[i - 1]].sequence < scene->found[slots[i]].sequence,
             "slot %u was written before slot %u, and is found as if after it", slots[i - 1],
             slots[i]);
    return ages_rise(scene, slots, WRITTEN);
}

/* In the order in which blocks were used, which is another than that of the writes. */
static bool survives_a_close_with_its_order(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS], order[WRITTEN];
    KEPT(write_some(scene, slots, 600));
    for (uint32_t i = 0; i < WRITTEN; i++)
        order[i] = slots[i * 5 % WRITTEN];
    tier_scene_close(scene, order, WRITTEN);
    KEPT(tier_scene_create(scene));
    KEPT(all_say(scene, lasting(scene)->kept, true, "kept"));
    KEPT(tier_scene_commit(scene));
    KEPT(all_say(scene, lasting(scene)->stamped, true, "stamped"));
    KEPT(tier_scene_scan(scene, PAIR_BLOCKS));
    KEPT(found_some(scene, slots, WRITTEN, 600));
    KEPT(ages_rise(scene, order, WRITTEN));
    uint32_t later = slots[WRITTEN]; /* what is written from now on is younger than all */
    KEPT(tier_scene_write(scene, later, 600 + later));
    KEPT(reopen(scene));
    KEPT(found_some(scene, slots, WRITTEN + 1, 600));
    for (uint32_t i = 0; i < WRITTEN; i++)
        MUST(scene, scene->found[slots[i]].sequence < scene->found[later].sequence,
             "slot %u was written in an earlier run, and is found as if later", slots[i]);
    return true;
}

/* However often. */
static bool survives_many_lives(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS];
    KEPT(write_some(scene, slots, 700));
    for (uint32_t life = 0; life < 3; life++) {
        tier_scene_close(scene, slots, WRITTEN);
        KEPT(tier_scene_open(scene));
        KEPT(reopen(scene));
        KEPT(found_some(scene, slots, WRITTEN, 700));
    }
    return true;
}

static bool scan_gives_each_once(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS];
    KEPT(write_some(scene, slots, 800));
    for (uint32_t at_a_time = 1; at_a_time < 6; at_a_time += 2) {
        tier_scene_kill(scene);
        KEPT(tier_scene_create(scene));
        KEPT(tier_scene_commit(scene));
        KEPT(tier_scene_scan(scene, at_a_time));
        KEPT(found_some(scene, slots, WRITTEN, 800));
    }
    return true;
}

/* A create that fails later than here has changed nothing. */
static bool nothing_changes_before_commit(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS];
    KEPT(write_some(scene, slots, 900));
    tier_scene_kill(scene);
    KEPT(tier_scene_create(scene));
    KEPT(reopen(scene));
    return found_some(scene, slots, WRITTEN, 900);
}

/* ---- What is not to be had any more ---------------------------------------------------------- */

static bool reads_under_the_same_identity_only(struct tier_scene *scene)
{
    int result = 0;
    KEPT(tier_scene_write(scene, 4, 44));
    for (uint32_t life = 0; life < 2; life++) {
        for (uint32_t i = 0; i < 4; i++) {
            struct kvbi_identity identity = content_identity(44);
            uint64_t *const fields[] = {&identity.hash, &identity.digest[0], &identity.digest[1],
                                        &identity.generation};
            *fields[i] += 1;
            KEPT(tier_scene_read(scene, 4, 44, &identity, &result));
            MUST(scene, result == KVB_ECORRUPT,
                 "read under another identity: %d, must be KVB_ECORRUPT", result);
        }
        KEPT(tier_scene_has(scene, 4, 44));
        KEPT(reopen(scene));
    }
    return tier_scene_lacks(scene, 5, 44);
}

static bool later_writes_replace_earlier_ones(struct tier_scene *scene)
{
    KEPT(tier_scene_write(scene, 7, 77));
    KEPT(tier_scene_write(scene, 7, 78));
    KEPT(tier_scene_lacks(scene, 7, 77));
    KEPT(reopen(scene));
    MUST(scene, scene->found_count == 1, "%u blocks are found, must be 1", scene->found_count);
    KEPT(tier_scene_found(scene, 7, 78));
    return tier_scene_lacks(scene, 7, 77);
}

/* In memory only: the next run finds it again. */
static bool forgets_what_is_not_wanted(struct tier_scene *scene)
{
    KEPT(tier_scene_write(scene, 8, 88));
    KEPT(tier_scene_write(scene, 9, 89));
    KEPT(reopen(scene));
    lasting(scene)->forget(scene->tier, 8);
    KEPT(tier_scene_lacks(scene, 8, 88));
    KEPT(tier_scene_has(scene, 9, 89));
    KEPT(reopen(scene));
    KEPT(tier_scene_found(scene, 8, 88));
    return tier_scene_found(scene, 9, 89);
}

/* With what is decided before it and written after it. */
static bool clear_empties(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS];
    KEPT(write_some(scene, slots, 1000));
    int code = lasting(scene)->clear(scene->tier, 1);
    MUST(scene, code == 0, "clear is %d", code);
    KEPT(tier_scene_write_after(scene, slots[WRITTEN], 1100, 0));
    KEPT(tier_scene_write_after(scene, slots[0], 1101, 1));
    KEPT(reopen(scene));
    MUST(scene, scene->found_count == 1,
         "%u blocks are found after a clear, must be the one of later", scene->found_count);
    KEPT(tier_scene_found(scene, slots[0], 1101));
    code = lasting(scene)->clear(scene->tier, 1); /* the first of this run */
    MUST(scene, code == 0, "clear is %d", code);
    tier_scene_close(scene, slots, 0);
    KEPT(tier_scene_open(scene));
    MUST(scene, scene->found_count == 0, "%u blocks are found after a clear", scene->found_count);
    return true;
}

/* The others keep what they have; it takes new blocks at once. */
static bool renew_empties_one_file(struct tier_scene *scene)
{
    uint32_t slots[PAIR_BLOCKS], count = files(scene), renewed = count - 1, left = 0;
    KEPT(write_some(scene, slots, 1200));
    int code = lasting(scene)->renew(scene->tier, renewed);
    MUST(scene, code == 0, "renew of file %u is %d", renewed, code);
    for (uint32_t i = 0; i < WRITTEN; i++)
        if (slots[i] % count == renewed)
            KEPT(tier_scene_lacks(scene, slots[i], 1200 + slots[i]));
    KEPT(tier_scene_write(scene, renewed, 1300));
    KEPT(reopen(scene));
    for (uint32_t i = 0; i < WRITTEN; i++)
        if (slots[i] % count != renewed) {
            KEPT(tier_scene_found(scene, slots[i], 1200 + slots[i]));
            left++;
        }
    KEPT(tier_scene_found(scene, renewed, 1300));
    MUST(scene, scene->found_count == left + 1, "%u blocks are found, must be %u",
         scene->found_count, left + 1);
    return true;
}

/* By later runs too, however they end; and it takes no other slot with it. */
static bool retired_slots_stay_retired(struct tier_scene *scene)
{
    const uint32_t order[] = {11};
    KEPT(tier_scene_write(scene, 10, 110));
    KEPT(tier_scene_write(scene, 11, 111));
    lasting(scene)->retire(scene->tier, 10);
    lasting(scene)->retire(scene->tier, 12); /* never written */
    KEPT(tier_scene_lacks(scene, 10, 110));
    for (uint32_t life = 0; life < 4; life++) {
        if (life % 2 == 0)
            tier_scene_kill(scene);
        else
            tier_scene_close(scene, order, 1);
        KEPT(tier_scene_open(scene));
        MUST(scene, scene->seen[10] && scene->found[10].retired, "slot 10 is not retired any more");
        MUST(scene, scene->seen[12] && scene->found[12].retired, "slot 12 is not retired any more");
        MUST(scene, scene->retired_count == 2, "%u slots are retired, must be 2",
             scene->retired_count);
        KEPT(tier_scene_found(scene, 11, 111));
        KEPT(tier_scene_lacks(scene, 10, 110));
    }
    return true;
}

const struct tier_promise tier_promises_lasting[] = {
    {"files have names", files_have_names, NEEDS_LASTING},
    {"new files are empty", new_files_are_empty, NEEDS_LASTING},
    {"statistics of a file leave the rest alone", file_statistics_leave_the_rest_alone,
     NEEDS_LASTING},
    {"answers say whose fault it was", answers_say_whose_fault_it_was, NEEDS_LASTING},
    {"empty files do as they are told", empty_files_do_as_they_are_told, NEEDS_LASTING},
    {"blocks survive a kill", survives_a_kill, NEEDS_KEEPING},
    {"blocks survive a close, with their order", survives_a_close_with_its_order, NEEDS_KEEPING},
    {"blocks survive many lives", survives_many_lives, NEEDS_KEEPING},
    {"scan gives each once", scan_gives_each_once, NEEDS_KEEPING},
    {"nothing changes before commit", nothing_changes_before_commit, NEEDS_KEEPING},
    {"a slot is read under its identity only", reads_under_the_same_identity_only, NEEDS_KEEPING},
    {"later writes replace earlier ones", later_writes_replace_earlier_ones, NEEDS_KEEPING},
    {"forget holds in memory only", forgets_what_is_not_wanted, NEEDS_KEEPING},
    {"clear empties all files", clear_empties, NEEDS_KEEPING},
    {"renew empties one file", renew_empties_one_file, NEEDS_KEEPING},
    {"retired slots stay retired", retired_slots_stay_retired, NEEDS_KEEPING},
    {.name = NULL},
};
