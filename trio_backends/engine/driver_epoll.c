/* epoll(7): readiness, made to look like completion.
 *
 * A stream that is being read is registered once, level-triggered, for EPOLLIN; no epoll_ctl() is
 * paid per message. Each report is one recv() into the one scratch buffer, whose bytes are lent to
 * the stream's owner and flushed before the next report is looked at: the scratch stays in the
 * cache, and nothing is copied unless a peer's socket is full. Level-triggered, because a stream
 * that still has bytes is then simply reported again, after the others had their turn.
 *
 * EPOLLERR and EPOLLHUP cannot be masked. A stream that nobody wants to read is therefore taken out
 * of the set altogether (unless it waits for room), else a peer that hung up would make every wait
 * return at once.
 *
 * Watches of other people's descriptors are one-shot (EPOLLONESHOT) and carry a generation: a
 * descriptor can be closed and its number used again between the report and its handling. A closed
 * descriptor leaves the set by itself, unless a duplicate of it lives; so the set can both lack what
 * we believe registered and hold what we do not: modify, and when that fails add, and the reverse.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine.h"
#include "readiness.h"
#include "watch.h"

#define BATCH 256

enum { KIND_STREAM = 1, KIND_WATCH = 2, KIND_LISTENER = 3, KIND_WAKE = 4 };
enum { BIT_IN_SET = 1 };

struct epoll_state {
    int fd;
    uint64_t submissions; /* calls of epoll_ctl() */
    struct tb_watches watches;
    struct epoll_event batch[BATCH];
    uint8_t scratch[TB_SCRATCH];
};

static uint64_t tag(void *object, uint64_t kind)
{
    return (uint64_t)(uintptr_t)object | kind;
}

static int epoll_open(struct tb_engine *engine, bool guest)
{
    (void)guest;
    struct epoll_state *state = tb_alloc(sizeof *state);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = KIND_WAKE};
    state->fd = epoll_create1(EPOLL_CLOEXEC);
    if (state->fd < 0 || epoll_ctl(state->fd, EPOLL_CTL_ADD, engine->wake_fd, &event) < 0) {
        int error = -errno;
        snprintf(engine->why, sizeof engine->why, "epoll: %s", strerror(-error));
        if (state->fd >= 0)
            close(state->fd);
        free(state);
        return error;
    }
    engine->state = state;
    return 0;
}

static void epoll_close(struct tb_engine *engine)
{
    struct epoll_state *state = engine->state;
    close(state->fd);
    tb_watches_free(&state->watches);
    free(state);
    engine->state = NULL;
}

static int epoll_descriptor(struct tb_engine *engine)
{
    return ((struct epoll_state *)engine->state)->fd;
}

static int control(struct epoll_state *state, int operation, int fd, struct epoll_event *event)
{
    state->submissions++;
    return epoll_ctl(state->fd, operation, fd, event);
}

/* Registers, whatever the set believes of this descriptor. */
static int set_interest(struct epoll_state *state, int fd, uint32_t events, uint64_t data,
                        bool known)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    int first = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int second = known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (control(state, first, fd, &event) == 0)
        return 0;
    if (errno != ENOENT && errno != EEXIST)
        return -errno;
    return control(state, second, fd, &event) < 0 ? -errno : 0;
}

/* ---------------------------------------------------------------- streams */

static int update_stream(struct tb_stream *stream)
{
    struct epoll_state *state = stream->engine->state;
    uint32_t events = (stream->wanted ? (uint32_t)EPOLLIN : 0u) |
                      (stream->blocked ? (uint32_t)EPOLLOUT : 0u);
    bool known = stream->driver_bits & BIT_IN_SET;
    if (!events) {
        if (known)
            control(state, EPOLL_CTL_DEL, stream->fd, NULL);
        stream->driver_bits = 0;
        return 0;
    }
    int error = set_interest(state, stream->fd, events, tag(stream, KIND_STREAM), known);
    if (!error)
        stream->driver_bits = BIT_IN_SET;
    return error;
}

static int epoll_receive_start(struct tb_stream *stream)
{
    return update_stream(stream);
}

static void epoll_receive_stop(struct tb_stream *stream)
{
    update_stream(stream);
}

static int epoll_send_later(struct tb_stream *stream)
{
    return update_stream(stream);
}

static void epoll_forget_stream(struct tb_stream *stream)
{
    stream->blocked = false;
    update_stream(stream);
    tb_stream_gone(stream);
}

static void stream_ready(struct tb_engine *engine, struct tb_stream *stream, uint32_t events)
{
    struct epoll_state *state = engine->state;
    if (stream->blocked && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        tb_stream_unblocked(stream);
        update_stream(stream);
        tb_ready_flush(engine);
    }
    if (!stream->wanted || !(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        return;
    tb_ready_receive(stream, state->scratch);
}

/* ---------------------------------------------------------------- listeners */

static int epoll_accept_start(struct tb_listener *listener)
{
    struct epoll_state *state = listener->engine->state;
    int error = set_interest(state, listener->fd, EPOLLIN, tag(listener, KIND_LISTENER), false);
    if (!error)
        listener->driver_bits = BIT_IN_SET;
    return error;
}

static void epoll_accept_stop(struct tb_listener *listener)
{
    struct epoll_state *state = listener->engine->state;
    if (listener->driver_bits & BIT_IN_SET)
        control(state, EPOLL_CTL_DEL, listener->fd, NULL);
    listener->driver_bits = 0;
}

static void epoll_forget_listener(struct tb_listener *listener)
{
    epoll_accept_stop(listener);
    tb_listener_gone(listener);
}

/* ---------------------------------------------------------------- watches */

static int update_watch(struct epoll_state *state, int fd, struct tb_watch *watch)
{
    uint32_t events = (watch->reading ? (uint32_t)EPOLLIN : 0u) |
                      (watch->writing ? (uint32_t)EPOLLOUT : 0u);
    if (!events) {
        if (watch->known)
            control(state, EPOLL_CTL_DEL, fd, NULL);
        watch->known = false;
        return 0;
    }
    watch->generation++;
    int error = set_interest(state, fd, events | EPOLLONESHOT,
                             tb_watch_tag(fd, watch->generation, KIND_WATCH), watch->known);
    watch->known = !error;
    return error;
}

static int epoll_watch(struct tb_engine *engine, int fd, bool write)
{
    struct epoll_state *state = engine->state;
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    bool *side = write ? &watch->writing : &watch->reading;
    *side = true;
    int error = update_watch(state, fd, watch);
    if (error < 0)
        *side = false;
    return error;
}

static void epoll_unwatch(struct tb_engine *engine, int fd, bool write)
{
    struct epoll_state *state = engine->state;
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    bool *side = write ? &watch->writing : &watch->reading;
    if (!*side)
        return;
    *side = false;
    update_watch(state, fd, watch);
}

static void epoll_release(struct tb_engine *engine, int fd)
{
    epoll_unwatch(engine, fd, false);
    epoll_unwatch(engine, fd, true);
}

static void watch_ready(struct tb_engine *engine, uint64_t data, uint32_t events)
{
    struct epoll_state *state = engine->state;
    int fd = tb_watch_fd(data);
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    if (tb_watch_tag(fd, watch->generation, KIND_WATCH) != data)
        return;
    /* As Trio does it: anything but the other direction alone wakes a direction's waiter. */
    bool read = watch->reading && events & ~(uint32_t)EPOLLOUT;
    bool write = watch->writing && events & ~(uint32_t)EPOLLIN;
    if (read)
        watch->reading = false;
    if (write)
        watch->writing = false;
    if (watch->reading || watch->writing)
        update_watch(state, fd, watch); /* one-shot switched both off */
    if (read)
        tb_emit(engine, TB_EV_READABLE, (uint64_t)fd, 0);
    if (write)
        tb_emit(engine, TB_EV_WRITABLE, (uint64_t)fd, 0);
}

/* ---------------------------------------------------------------- the turn */

static void dispatch(struct tb_engine *engine, const struct epoll_event *event)
{
    uint64_t data = event->data.u64;
    void *object = (void *)(uintptr_t)(data & ~(uint64_t)15);
    switch (data & 15) {
    case KIND_STREAM:
        stream_ready(engine, object, event->events);
        break;
    case KIND_WATCH:
        watch_ready(engine, data, event->events);
        break;
    case KIND_LISTENER:
        tb_ready_accept(object);
        break;
    case KIND_WAKE:
        tb_woken(engine);
        break;
    default:
        break;
    }
}

static int epoll_turn(struct tb_engine *engine, int64_t timeout_ns)
{
    struct epoll_state *state = engine->state;
    uint32_t events = engine->event_count;
    tb_ready_flush(engine);
    if (engine->event_count != events)
        timeout_ns = 0;
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    int count = epoll_wait(state->fd, state->batch, BATCH, ms > 86400000 ? 86400000 : (int)ms);
    engine->now = tb_clock();
    engine->counters.turns++;
    if (count < 0)
        return -errno;
    engine->counters.completions += (uint64_t)count;
    for (int i = 0; i < count; i++)
        dispatch(engine, &state->batch[i]);
    return 0;
}

static void epoll_count(struct tb_engine *engine)
{
    engine->counters.submissions = ((struct epoll_state *)engine->state)->submissions;
}

const struct tb_driver tb_driver_epoll = {
    .name = "epoll",
    .open = epoll_open,
    .close = epoll_close,
    .turn = epoll_turn,
    .descriptor = epoll_descriptor,
    .watch = epoll_watch,
    .unwatch = epoll_unwatch,
    .release = epoll_release,
    .accept_start = epoll_accept_start,
    .accept_stop = epoll_accept_stop,
    .receive_start = epoll_receive_start,
    .receive_stop = epoll_receive_stop,
    .send_later = epoll_send_later,
    .forget_stream = epoll_forget_stream,
    .forget_listener = epoll_forget_listener,
    .give_back = tb_ready_give_back,
    .count = epoll_count,
};
#endif
