/* SPDX-License-Identifier: Apache-2.0 */
/* Messages reach the logger whole or marked as cut; without a logger nothing happens. */
#include "base/log.h"
#include "support/test.h"

#include <string.h>

struct heard {
    int calls, level, code;
    char text[2 * KVBI_LOG_BYTES];
};

static void hear(void *context, int level, int code, const char *message)
{
    struct heard *heard = context;
    heard->calls++;
    heard->level = level;
    heard->code = code;
    assert_true(strlen(message) < sizeof heard->text);
    strcpy(heard->text, message);
}

static void test_log_without_logger_does_nothing(void **state)
{
    (void)state;
    struct kvbi_log log;
    kvbi_log_init(&log, NULL);
    kvbi_log(&log, KVB_LOG_ERROR, KVB_EIO, "slot %d", 7);
    kvbi_log_init(&log, &(struct kvb_logger){NULL, NULL});
    kvbi_log(&log, KVB_LOG_ERROR, KVB_EIO, "slot %d", 7);
}

static void test_log_message_arrives_with_level_and_code(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct kvbi_log log;
    kvbi_log_init(&log, &(struct kvb_logger){hear, &heard});
    kvbi_log(&log, KVB_LOG_WARN, KVB_EIO, "slot %d of %s", 7, "disk");
    assert_int_equal(heard.calls, 1);
    assert_int_equal(heard.level, KVB_LOG_WARN);
    assert_int_equal(heard.code, KVB_EIO);
    assert_string_equal(heard.text, "slot 7 of disk");
}

static void test_log_long_message_is_cut_and_says_so(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct kvbi_log log;
    char longest[KVBI_LOG_BYTES + 1];
    kvbi_log_init(&log, &(struct kvb_logger){hear, &heard});

    memset(longest, 'x', sizeof longest);
    longest[KVBI_LOG_BYTES - 1] = '\0';
    kvbi_log(&log, KVB_LOG_INFO, 0, "%s", longest);
    assert_string_equal(heard.text, longest);

    longest[KVBI_LOG_BYTES - 1] = 'x';
    longest[KVBI_LOG_BYTES] = '\0';
    kvbi_log(&log, KVB_LOG_INFO, 0, "%s", longest);
    assert_int_equal(strlen(heard.text), KVBI_LOG_BYTES - 1);
    assert_string_equal(heard.text + KVBI_LOG_BYTES - 5, "x...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_log_without_logger_does_nothing),
        TEST(bare, test_log_message_arrives_with_level_and_code),
        TEST(bare, test_log_long_message_is_cut_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
