/* SPDX-License-Identifier: Apache-2.0 */
/* See traffic.h. */
#include "support/traffic.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "support/give_up.h"

/* Both halves of a tag are to come back. */
#define TAG_BASE UINT64_C(0x5eed5eed00000000)
#define REAP_MAX 64u

bool traffic_begin(struct traffic *traffic, struct kvbi_engine *engine, void (*get_on)(void))
{
    int fd = engine->ops->wake_fd(engine);
    struct epoll_event event = {.events = EPOLLIN | (engine->edge_triggered ? EPOLLET : 0)};
    memset(traffic, 0, sizeof *traffic);
    traffic->engine = engine;
    traffic->get_on = get_on;
    traffic->epoll = fd < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
    DEMAND(&traffic->demand,
           fd < 0 ||
               (traffic->epoll >= 0 && epoll_ctl(traffic->epoll, EPOLL_CTL_ADD, fd, &event) == 0),
           "event_fd is %d, and nobody can wait for that: %s", fd, strerror(errno));
    return true;
}

void traffic_end(struct traffic *traffic)
{
    if (traffic->engine != NULL && traffic->epoll >= 0)
        (void)close(traffic->epoll);
    traffic->engine = NULL;
}

uint64_t traffic_tag(struct traffic *traffic)
{
    return TAG_BASE | traffic->numbered++;
}

uint32_t traffic_number(uint64_t cookie)
{
    return (uint32_t)(cookie ^ TAG_BASE);
}

bool traffic_submit(struct traffic *traffic, const struct kvbi_copy *copies, uint32_t count,
                    bool urgent)
{
    DEMAND(&traffic->demand, traffic->numbered <= TRAFFIC_MAX, "the test has too many copies");
    int code = traffic->engine->ops->submit(traffic->engine, copies, count, urgent);
    DEMAND(&traffic->demand, code == 0,
           "submit of %u copies is %d, must be 0: %u are with the engine", count, code,
           traffic->out);
    for (uint32_t i = 0; i < count; i++)
        traffic->copies[traffic_number(copies[i].cookie)].out = true;
    traffic->out += count;
    return true;
}

bool traffic_refused(struct traffic *traffic, const struct kvbi_copy *copies, uint32_t count)
{
    int code = traffic->engine->ops->submit(traffic->engine, copies, count, false);
    DEMAND(&traffic->demand, code == KVB_EAGAIN,
           "submit of %u copies is %d, must be KVB_EAGAIN: %u are with the engine", count, code,
           traffic->out);
    return true;
}

static bool come_out(struct traffic *traffic, const struct kvbi_completion *completion)
{
    uint64_t number = completion->cookie ^ TAG_BASE;
    struct traffic_copy *copy = &traffic->copies[number < TRAFFIC_MAX ? number : 0];
    DEMAND(&traffic->demand, number < traffic->numbered, "tag 0x%llx came out: nobody's",
           (unsigned long long)completion->cookie);
    DEMAND(&traffic->demand, !copy->over, "copy %llu came out twice", (unsigned long long)number);
    DEMAND(&traffic->demand, copy->out, "copy %llu came out and was not taken",
           (unsigned long long)number);
    *copy = (struct traffic_copy){
        .over = true, .result = completion->result, .condemned = completion->condemned};
    traffic->order[traffic->over++] = (uint32_t)number;
    traffic->out--;
    return true;
}

bool traffic_reap(struct traffic *traffic, uint32_t max, uint64_t until_ns, uint32_t *count,
                  bool *more)
{
    struct kvbi_completion completions[REAP_MAX];
    max = max < REAP_MAX ? max : REAP_MAX;
    *more = false;
    *count = traffic->engine->ops->reap(traffic->engine, completions, max, until_ns, more);
    DEMAND(&traffic->demand, *count <= max, "reap of at most %u gave %u", max, *count);
    for (uint32_t i = 0; i < *count; i++)
        if (!come_out(traffic, &completions[i]))
            return false;
    return true;
}

bool traffic_wait(struct traffic *traffic)
{
    struct epoll_event event;
    int ready;
    if (traffic->get_on != NULL)
        traffic->get_on();
    DEMAND(&traffic->demand, traffic->epoll >= 0,
           "reap had nothing and says that there is no more: %u copies are lost", traffic->out);
    if (traffic->half_in_reap && traffic->engine->ops->ready(traffic->engine))
        return true;
    do {
        ready = epoll_wait(traffic->epoll, &event, 1, KV_GIVE_UP_MS);
    } while (ready < 0 && errno == EINTR);
    DEMAND(&traffic->demand, ready > 0, "event_fd has said nothing for %d s: %u copies are out",
           KV_GIVE_UP_S, traffic->out);
    return true;
}

bool traffic_collect_by(struct traffic *traffic, uint32_t count, uint32_t max, uint64_t until_ns)
{
    uint32_t goal = traffic->over + count, came;
    while (traffic->over < goal) {
        bool more;
        uint32_t left = goal - traffic->over;
        if (!traffic_reap(traffic, left < max ? left : max, until_ns, &came, &more))
            return false;
        if (came == 0 && !more && !traffic_wait(traffic))
            return false;
    }
    return true;
}

bool traffic_collect(struct traffic *traffic, uint32_t count)
{
    return traffic_collect_by(traffic, count, TRAFFIC_ALL, KVB_FOREVER);
}

bool traffic_collect_all(struct traffic *traffic)
{
    return traffic_collect(traffic, traffic->out);
}

bool traffic_nothing_comes(struct traffic *traffic)
{
    uint32_t came;
    bool more = true;
    if (traffic->get_on != NULL)
        traffic->get_on();
    while (more) {
        if (!traffic_reap(traffic, TRAFFIC_ALL, KVB_FOREVER, &came, &more))
            return false;
        DEMAND(&traffic->demand, came == 0, "copy %u came out, too early",
               traffic->order[traffic->over - 1]);
    }
    return true;
}
