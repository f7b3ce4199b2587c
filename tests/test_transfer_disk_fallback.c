/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where io_uring is refused, wholly or in part: `auto` chooses threads, or a lesser ring, says so,
 * and works. Each case in a child of its own, under a seccomp filter or limits that it cannot take
 * back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/child.h"
#include "support/disk_rig.h"
#include "support/sandbox.h"
#include "transfer/disk/tier.h"

/* What a child found wrong: a line of this file; 0 nothing. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                          \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static const struct disk_rig_variant automatic = {.name = "auto", .engine = KVBI_DISK_AUTO};
static const struct disk_rig_variant automatic_poll = {.name = "auto",
                                                       .engine = KVBI_DISK_AUTO,
                                                       .poll = true};

static int open_rig(struct disk_rig *rig, const struct disk_rig_variant *variant,
                    uint64_t block_bytes, uint32_t slots, void *base)
{
    rig->variant = variant;
    return rig_open(rig, block_bytes, slots, base);
}

/* 32 blocks down and up again. */
static bool round_trip(struct disk_rig *rig)
{
    uint32_t count = rig->host.block_count < 32 ? rig->host.block_count : 32;
    for (uint32_t i = 0; i < count; i++) {
        struct kvbi_copy copy = rig_down(rig, i, i, i, i);
        rig_fill(rig, i, i);
        if (rig->engine->ops->submit(rig->engine, &copy, 1, false) != 0)
            return false;
    }
    if (!rig_wait(rig, rig->done + count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        rig_fill(rig, i, 1000);
        if (rig->results[i] != 0 || rig_move(rig, rig_up(rig, i, i, i, 0), true) != 0 ||
            !rig_has(rig, i, i))
            return false;
    }
    return true;
}

static bool says(const struct disk_rig *rig, const char *words)
{
    if (strstr(rig->said, words) != NULL)
        return true;
    (void)fprintf(stderr, "\"%s\" does not say \"%s\"\n", rig->said, words);
    return false;
}

/* The engine that `auto` takes: its name, some words of what it says, and a round trip. */
static int expect_engine(struct disk_rig *rig, const struct disk_rig_variant *variant,
                         const char *name, const char *words, const char *more)
{
    CHECK(open_rig(rig, variant, 65536, 64, NULL) == 0);
    CHECK(rig_start(rig) == 0);
    CHECK(strcmp(rig->engine->ops->name, name) == 0);
    CHECK(says(rig, words) && says(rig, more) && says(rig, kvbi_disk_of(&rig->disk)->mode));
    CHECK(round_trip(rig));
    CHECK(rig_close(rig));
    return 0;
}

/* ---- System calls refused -------------------------------------------------------------------- */

static const int all[] = {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register};

static int setup_eperm(struct disk_rig *rig)
{
    CHECK(sandbox_refuse(all, 3, EPERM));
    return expect_engine(rig, &automatic, "posix",
                         "no io_uring: io_uring_setup: Operation not permitted", "8 threads");
}

static int setup_enosys(struct disk_rig *rig)
{
    CHECK(sandbox_refuse(all, 3, ENOSYS));
    return expect_engine(rig, &automatic, "posix",
                         "no io_uring: io_uring_setup: Function not implemented", "8 threads");
}

static int setup_eopnotsupp(struct disk_rig *rig)
{
    CHECK(sandbox_refuse(all, 1, EOPNOTSUPP));
    return expect_engine(rig, &automatic_poll, "posix",
                         "no io_uring: io_uring_setup: Operation not supported", "inside poll");
}

static int enter_eperm(struct disk_rig *rig)
{
    CHECK(sandbox_refuse(all + 1, 1, EPERM));
    return expect_engine(rig, &automatic, "posix",
                         "no io_uring: io_uring_enter: Operation not permitted", "8 threads");
}

static int register_eperm(struct disk_rig *rig)
{
    CHECK(sandbox_refuse(all + 2, 1, EPERM));
    return expect_engine(rig, &automatic, "uring", "file not registered: Operation not permitted",
                         "buffers not registered: Operation not permitted");
}

/* No memory that is a file: entries are written one by one, and that is said. */
static int memfd_eperm(struct disk_rig *rig)
{
    static const int memfd[] = {SYS_memfd_create};
    CHECK(sandbox_refuse(memfd, 1, EPERM));
    return expect_engine(rig, &automatic, "uring", "table not mapped: Operation not permitted",
                         "fixed file");
}

static int explicit_ring_refused(struct disk_rig *rig)
{
    static const struct disk_rig_variant ring = {.name = "uring", .engine = KVBI_DISK_URING};
    CHECK(sandbox_refuse(all, 3, EPERM));
    CHECK(open_rig(rig, &ring, 65536, 4, NULL) == 0);
    CHECK(rig_start(rig) == KVB_EUNSUPPORTED);
    CHECK(rig->engine == NULL && says(rig, "no io_uring: io_uring_setup: Operation not permitted"));
    CHECK(rig_close(rig));
    return 0;
}

/*
 * A sandbox that is put on while the ring is at work: all ends, within seconds, and nothing more is
 * begun.
 */
static int refused_later(struct disk_rig *rig)
{
    CHECK(open_rig(rig, &automatic, 65536, 64, NULL) == 0);
    CHECK(rig_start(rig) == 0);
    if (strcmp(rig->engine->ops->name, "uring") == 0) {
        CHECK(round_trip(rig));
        for (uint32_t i = 0; i < 16; i++) {
            struct kvbi_copy copy = rig_down(rig, i, i, i, i);
            CHECK(rig->engine->ops->submit(rig->engine, &copy, 1, false) == 0);
        }
        CHECK(sandbox_refuse(all, 3, EPERM));
        uint32_t expected = rig->done + 16;
        while (rig->done < expected) {
            bool more;
            CHECK(rig_reap(rig, 64, &more));
        }
        CHECK(rig_move(rig, rig_up(rig, 20, 20, 20, 20), true) == KVB_EIO);
        rig->engine->ops->drain(rig->engine);
    }
    CHECK(rig_close(rig));
    return 0;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static bool limit(__rlimit_resource_t which, rlim_t value)
{
    const struct rlimit limits = {.rlim_cur = value, .rlim_max = value};
    return setrlimit(which, &limits) == 0;
}

/* To a user without CAP_IPC_LOCK, in a directory of its own. */
static bool drop_privileges(void)
{
    if (geteuid() != 0)
        return true;
    char place[] = "/tmp/disk_test.XXXXXX";
    return mkdtemp(place) != NULL && chdir(place) == 0 && chown(".", 65534, 65534) == 0 &&
           setresuid(65534, 65534, 65534) == 0;
}

static void leave(void)
{
    char place[128];
    if (getcwd(place, sizeof place) != NULL && strncmp(place, "/tmp/disk_test.", 15) == 0)
        (void)rmdir(place);
}

/* Kernels differ in what they charge a ring for; either answer is right if it is said. */
static int no_locked_memory(struct disk_rig *rig)
{
    CHECK(drop_privileges() && limit(RLIMIT_MEMLOCK, 0));
    CHECK(open_rig(rig, &automatic, 65536, 64, NULL) == 0);
    CHECK(rig_start(rig) == 0);
    if (strcmp(rig->engine->ops->name, "posix") == 0)
        CHECK(says(rig, "no io_uring: io_uring_setup: Cannot allocate memory"));
    else
        CHECK(says(rig, "buffers not registered: Cannot allocate memory"));
    CHECK(round_trip(rig));
    CHECK(rig_close(rig));
    return 0;
}

static int little_locked_memory(struct disk_rig *rig)
{
    CHECK(drop_privileges() && limit(RLIMIT_MEMLOCK, 8 << 20));
    CHECK(open_rig(rig, &automatic, 1 << 20, 16, NULL) == 0);
    CHECK(rig_start(rig) == 0);
    if (strcmp(rig->engine->ops->name, "uring") == 0)
        CHECK(says(rig, "buffers not registered: Cannot allocate memory"));
    CHECK(round_trip(rig));
    CHECK(rig_close(rig));
    return 0;
}

static int no_descriptor_left(struct disk_rig *rig)
{
    CHECK(open_rig(rig, &automatic_poll, 65536, 64, NULL) == 0);
    int next = dup(0);
    (void)close(next);
    CHECK(limit(RLIMIT_NOFILE, (rlim_t)next));
    CHECK(rig_start(rig) == 0);
    CHECK(says(rig, "no io_uring: io_uring_setup: Too many open files") || next < 3);
    CHECK(strcmp(rig->engine->ops->name, "posix") == 0);
    CHECK(round_trip(rig));
    (void)rig_close(rig); /* it cannot list its directory any more */
    (void)unlink(rig->place.file);
    (void)rmdir(rig->place.directory);
    return 0;
}

/* ---- Memory that a ring does not take -------------------------------------------------------- */

static int foreign_memory(struct disk_rig *rig)
{
    int fd = open("foreign_memory.tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, 64 * 65536) == 0);
    void *base = mmap(NULL, 64 * 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)unlink("foreign_memory.tmp");
    (void)close(fd);
    CHECK(base != MAP_FAILED);
    CHECK(open_rig(rig, &automatic, 65536, 64, base) == 0);
    CHECK(rig_start(rig) == 0);
    if (strcmp(rig->engine->ops->name, "uring") == 0)
        CHECK(says(rig, "buffers not registered: ") || says(rig, "fixed buffers"));
    CHECK(round_trip(rig));
    CHECK(rig_close(rig));
    return 0;
}

/* ---- The tests ------------------------------------------------------------------------------- */

struct attempt {
    int (*body)(struct disk_rig *rig);
    struct disk_rig *rig;
};

static int make_attempt(void *argument)
{
    const struct attempt *attempt = argument;
    int result = attempt->body(attempt->rig);
    if (result != 0)
        (void)rig_close(attempt->rig);
    leave();
    return result;
}

#define CASE(body)                                                                                 \
    static void test_fallback_##body(void **state)                                                 \
    {                                                                                              \
        struct attempt attempt = {body, *state};                                                   \
        assert_int_equal(child_run(make_attempt, &attempt), 0);                                    \
    }
CASE(setup_eperm)
CASE(setup_enosys)
CASE(setup_eopnotsupp)
CASE(enter_eperm)
CASE(register_eperm)
CASE(memfd_eperm)
CASE(explicit_ring_refused)
CASE(refused_later)
CASE(no_locked_memory)
CASE(little_locked_memory)
CASE(no_descriptor_left)
CASE(foreign_memory)

static void test_fallback_is_not_taken_where_a_ring_works(void **state)
{
    struct disk_rig *rig = *state;
    assert_int_equal(open_rig(rig, &automatic, 65536, 4, NULL), 0);
    assert_int_equal(rig_start(rig), 0);
    print_message("auto: %s\n", rig->said);
    assert_int_equal(strncmp(rig->said, "uring (", 7) == 0,
                     strcmp(rig->engine->ops->name, "uring") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_rig, test_fallback_is_not_taken_where_a_ring_works),
        TEST(disk_rig, test_fallback_setup_eperm),
        TEST(disk_rig, test_fallback_setup_enosys),
        TEST(disk_rig, test_fallback_setup_eopnotsupp),
        TEST(disk_rig, test_fallback_enter_eperm),
        TEST(disk_rig, test_fallback_register_eperm),
        TEST(disk_rig, test_fallback_memfd_eperm),
        TEST(disk_rig, test_fallback_explicit_ring_refused),
        TEST(disk_rig, test_fallback_refused_later),
        TEST(disk_rig, test_fallback_no_locked_memory),
        TEST(disk_rig, test_fallback_little_locked_memory),
        TEST(disk_rig, test_fallback_no_descriptor_left),
        TEST(disk_rig, test_fallback_foreign_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
