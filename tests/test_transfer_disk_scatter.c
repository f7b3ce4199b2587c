/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries into mapped tables: what arrives, what does not, and that what cannot arrive is an answer
 * and no signal.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/child.h"
#include "support/disk_path.h"
#include "support/test.h"
#include "transfer/disk/scatter.h"

#define ENTRY sizeof(struct kvbi_disk_entry)
#define TABLE_AT ((uint64_t)8192)
#define COUNT 1024u

struct mapped_table {
    struct disk_path place;
    int fd;
    struct kvbi_disk_scatter scatter;
    unsigned char *table;
    unsigned char *places[KVBI_DISK_SCATTER_MAX];
};

static int mapped_table_teardown(void **state)
{
    struct mapped_table *f = *state;
    kvbi_disk_scatter_unmap(f->table, COUNT);
    kvbi_disk_scatter_close(&f->scatter);
    if (f->fd >= 0)
        close(f->fd);
    disk_path_remove(&f->place);
    free(f);
    return 0;
}

static int mapped_table_setup(void **state)
{
    struct mapped_table *f = calloc(1, sizeof *f);
    if (f == NULL)
        return -1;
    int error = -1;
    disk_path_make(&f->place);
    kvbi_disk_scatter_open(&f->scatter);
    f->fd = open(f->place.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->fd >= 0 && ftruncate(f->fd, (off_t)(TABLE_AT + COUNT * ENTRY)) == 0)
        f->table = kvbi_disk_scatter_map(f->fd, TABLE_AT, COUNT, &error);
    *state = f;
    if (f->scatter.entries != NULL && f->table != NULL && error == 0)
        return 0;
    (void)mapped_table_teardown(state);
    return -1;
}

static void stage(struct mapped_table *f, uint32_t at, uint32_t place)
{
    memset(&f->scatter.entries[at], (int)(place % 251 + 1), ENTRY);
    f->places[at] = f->table + place * ENTRY;
}

/* What a reader of the file sees there: bytes that stage has made, zeros, or something else. */
static bool holds(const struct mapped_table *f, uint32_t place, unsigned char byte)
{
    unsigned char bytes[ENTRY], expected[ENTRY];
    memset(expected, byte, ENTRY);
    return pread(f->fd, bytes, ENTRY, (off_t)(TABLE_AT + place * ENTRY)) == (ssize_t)ENTRY &&
           memcmp(bytes, expected, ENTRY) == 0;
}

static void test_scatter_puts_each_entry_where_it_belongs(void **state)
{
    struct mapped_table *f = *state;
    for (uint32_t i = 0; i < KVBI_DISK_SCATTER_MAX; i++)
        stage(f, i, i * 389 % COUNT);
    assert_int_equal(kvbi_disk_scatter_put(&f->scatter, f->places, KVBI_DISK_SCATTER_MAX),
                     KVBI_DISK_SCATTER_MAX);
    uint32_t found = 0;
    for (uint32_t place = 0; place < COUNT; place++)
        found += !holds(f, place, 0);
    assert_int_equal(found, KVBI_DISK_SCATTER_MAX);
    for (uint32_t i = 0; i < KVBI_DISK_SCATTER_MAX; i++)
        assert_true(holds(f, i * 389 % COUNT, (unsigned char)(i * 389 % COUNT % 251 + 1)));
}

static void test_scatter_of_none_puts_none(void **state)
{
    struct mapped_table *f = *state;
    assert_int_equal(kvbi_disk_scatter_put(&f->scatter, f->places, 0), 0);
}

static void test_scatter_closed_puts_none(void **state)
{
    struct mapped_table *f = *state;
    struct kvbi_disk_scatter closed = {.fd = -1};
    stage(f, 0, 1);
    assert_int_equal(kvbi_disk_scatter_put(&closed, f->places, 1), 0);
    kvbi_disk_scatter_close(&closed);
    assert_int_equal(closed.fd, -1);
}

/* The file ends before some of them: those before it are there, and this process goes on. */
static void test_scatter_behind_the_end_of_a_cut_file_is_an_answer(void **state)
{
    struct mapped_table *f = *state;
    uint32_t kept = (uint32_t)(sysconf(_SC_PAGESIZE) / (long)ENTRY);
    assert_int_equal(ftruncate(f->fd, (off_t)(TABLE_AT + kept * ENTRY)), 0);
    stage(f, 0, 0);
    stage(f, 1, kept - 1);
    stage(f, 2, kept);
    stage(f, 3, 1);
    assert_int_equal(kvbi_disk_scatter_put(&f->scatter, f->places, 4), 2);
    assert_true(holds(f, 0, 1));
    assert_true(holds(f, kept - 1, (unsigned char)((kept - 1) % 251 + 1)));
    assert_true(holds(f, 1, 0));
    stage(f, 0, kept);
    assert_int_equal(kvbi_disk_scatter_put(&f->scatter, f->places, 1), 0);
}

static void test_scatter_maps_from_the_beginning_of_a_page_only(void **state)
{
    struct mapped_table *f = *state;
    int error = 0;
    assert_null(kvbi_disk_scatter_map(f->fd, TABLE_AT + ENTRY, 1, &error));
    assert_int_equal(error, EINVAL);
}

static void test_scatter_maps_nothing_that_is_no_file(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int error = 0;
    assert_null(kvbi_disk_scatter_map(ends[1], 0, COUNT, &error));
    assert_int_not_equal(error, 0);
    close(ends[0]);
    close(ends[1]);
    kvbi_disk_scatter_unmap(NULL, COUNT);
}

static int put_one(void *argument)
{
    struct mapped_table *f = argument;
    return (int)kvbi_disk_scatter_put(&f->scatter, f->places, 1);
}

/* Neither the table nor what is staged is within a child's reach. */
static void test_scatter_is_not_inherited(void **state)
{
    struct mapped_table *f = *state;
    stage(f, 0, 5);
    assert_int_equal(child_run(put_one, f), 0);
    assert_true(holds(f, 5, 0));
}

/* Pages that this process has locked, in KiB; -1: the system does not tell. */
static long locked(void)
{
    long kib = -1;
    char line[128];
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmLck: %ld", &kib) == 1)
            break;
    if (file != NULL)
        (void)fclose(file);
    return kib;
}

/* The server locks whatever is mapped: a table of a terabyte's blocks is not among it. */
static int map_while_all_is_locked(void *argument)
{
    const struct mapped_table *f = argument;
    int error = 0;
    if (mlockall(MCL_FUTURE) != 0 || locked() < 0)
        return 0; /* not allowed, or not to be seen, here */
    long before = locked();
    unsigned char *table = kvbi_disk_scatter_map(f->fd, TABLE_AT, COUNT, &error);
    return table != NULL && locked() - before < (long)(COUNT * ENTRY / 1024) ? 0 : 1;
}

static void test_scatter_locks_nothing(void **state)
{
    assert_int_equal(child_run(map_while_all_is_locked, *state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mapped_table, test_scatter_puts_each_entry_where_it_belongs),
        TEST(mapped_table, test_scatter_of_none_puts_none),
        TEST(mapped_table, test_scatter_closed_puts_none),
        TEST(mapped_table, test_scatter_behind_the_end_of_a_cut_file_is_an_answer),
        TEST(mapped_table, test_scatter_maps_from_the_beginning_of_a_page_only),
        TEST(bare, test_scatter_maps_nothing_that_is_no_file),
        TEST(mapped_table, test_scatter_is_not_inherited),
        TEST(mapped_table, test_scatter_locks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
