/* The wait, and what Python hears of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

#define PATIENCE 10000000 /* ns that an event may wait for others */

static const struct tb_driver *const drivers[] = {
#ifdef __linux__
    &tb_driver_io_uring,
    &tb_driver_epoll,
#endif
#ifdef TB_HAVE_KQUEUE
    &tb_driver_kqueue,
#endif
    NULL,
};

void *tb_alloc(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory) {
        /* A pooler that cannot get a few hundred bytes cannot even say so to its clients. */
        fprintf(stderr, "trio_backends: out of memory (%zu bytes)\n", size);
        abort();
    }
    return memory;
}

int64_t tb_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int make_wake_pipe(struct tb_engine *engine)
{
    int ends[2];
    engine->wake_fd = engine->wake_write_fd = -1;
    if (engine->driver->wake)
        return 0;
    if (pipe(ends) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    }
    engine->wake_fd = ends[0];
    engine->wake_write_fd = ends[1];
    return 0;
}

static void close_wake_pipe(struct tb_engine *engine)
{
    if (engine->wake_fd < 0)
        return;
    close(engine->wake_fd);
    close(engine->wake_write_fd);
}

static void explain(char *why, size_t size, const char *what, int error)
{
    snprintf(why, size, "%s: %s", what, strerror(-error));
}

static int open_driver(struct tb_engine *engine)
{
    int error = engine->driver->open(engine, engine->guest);
    if (error < 0 || engine->huge_pages != TB_HUGE_ON || engine->counters.huge_bytes)
        return error;
    engine->driver->close(engine);
    snprintf(engine->why, sizeof engine->why, "it has no buffers that could be on huge pages");
    return -EOPNOTSUPP;
}

struct tb_engine *tb_engine_new(const char *driver, bool guest, int huge_pages, char *why,
                                size_t why_size)
{
    const struct tb_driver *const *candidate = drivers;
    while (*candidate && strcmp((*candidate)->name, driver) != 0)
        candidate++;
    if (!*candidate) {
        snprintf(why, why_size, "not built for this platform");
        return NULL;
    }
    struct tb_engine *engine = tb_alloc(sizeof *engine);
    engine->driver = *candidate;
    engine->guest = guest;
    engine->huge_pages = (enum tb_huge_pages)huge_pages;
    engine->check_at = INT64_MAX;
    engine->now = tb_clock();
    engine->next_token = 1;
    engine->event_room = TB_EVENTS_AT_FIRST;
    engine->events = tb_alloc(engine->event_room * sizeof *engine->events);
    int error = make_wake_pipe(engine);
    if (error < 0) {
        explain(why, why_size, "pipe", error);
        free(engine->events);
        free(engine);
        return NULL;
    }
    error = open_driver(engine);
    if (error < 0) {
        snprintf(why, why_size, "%s", engine->why);
        close_wake_pipe(engine);
        free(engine->events);
        free(engine);
        return NULL;
    }
    return engine;
}

void tb_engine_free(struct tb_engine *engine)
{
    while (engine->listeners)
        if (engine->listeners->closed)
            tb_listener_gone(engine->listeners);
        else
            tb_listener_close(engine->listeners);
    for (struct tb_stream *stream = engine->streams; stream; stream = stream->next)
        tb_mux_remove(stream);
    /* The kernel's side first: nothing may be written to memory that is given back below. */
    engine->dirty = NULL;
    engine->driver->close(engine);
    while (engine->streams)
        tb_stream_gone(engine->streams);
    while (engine->muxes)
        tb_mux_free(engine->muxes);
    while (engine->spare) {
        struct tb_segment *segment = engine->spare;
        engine->spare = segment->next;
        free(segment);
    }
    close_wake_pipe(engine);
    free(engine->alarms); /* the alarms themselves are Python's, and freed before */
    free(engine->events);
    free(engine);
}

void tb_emit(struct tb_engine *engine, uint32_t kind, uint64_t handle, int value)
{
    if (engine->event_count == engine->event_room) {
        uint32_t room = engine->event_room * 2;
        struct tb_event *events = tb_alloc(room * sizeof *events);
        memcpy(events, engine->events, engine->event_count * sizeof *events);
        free(engine->events);
        engine->events = events;
        engine->event_room = room;
    }
    engine->events[engine->event_count++] =
        (struct tb_event){.what = (int64_t)value * ((int64_t)1 << 32) + kind,
                          .handle = (int64_t)handle};
}

void tb_emit_patiently(struct tb_engine *engine, uint32_t kind, uint64_t handle, int value)
{
    tb_emit(engine, kind, handle, value);
    engine->patient_count++;
    tb_check_before(engine, engine->now + PATIENCE);
}

static bool has_news(const struct tb_engine *engine)
{
    return engine->event_count > engine->patient_count;
}

void tb_nudge(struct tb_engine *engine)
{
    if (engine->guest && !engine->turning)
        tb_engine_wake(engine);
}

void tb_check_before(struct tb_engine *engine, int64_t when)
{
    if (when >= engine->check_at)
        return;
    engine->check_at = when;
    tb_nudge(engine);
}

static int64_t time_to_wait(const struct tb_engine *engine, int64_t deadline)
{
    if (has_news(engine))
        return 0;
    int64_t until = deadline < engine->check_at ? deadline : engine->check_at;
    if (until == INT64_MAX)
        return -1;
    return until > engine->now ? until - engine->now : 0;
}

/* Whatever may have to be timed out, between turns. */
static void check(struct tb_engine *engine)
{
    engine->check_at = INT64_MAX;
    engine->patient_count = 0; /* their time is up */
    for (struct tb_listener *listener = engine->listeners; listener; listener = listener->next)
        tb_listener_check(listener);
    tb_mux_check(engine);
    tb_alarms_check(engine);
}

static int turn_until(struct tb_engine *engine, int64_t timeout_ns)
{
    if (timeout_ns || engine->check_at != INT64_MAX) /* else the turn reads the clock soon enough */
        engine->now = tb_clock();
    int64_t deadline = timeout_ns < 0 ? INT64_MAX : engine->now + timeout_ns;
    for (;;) {
        if (engine->now >= engine->check_at)
            check(engine);
        int result = engine->driver->turn(engine, time_to_wait(engine, deadline));
        if (has_news(engine))
            break;
        if (result < 0)
            return result;
        if (engine->now >= deadline)
            break;
    }
    /* Python may now be busy for a while: what was relayed in this turn does not wait for it. */
    if (engine->dirty)
        engine->driver->turn(engine, 0);
    return (int)engine->event_count;
}

int tb_wait(struct tb_engine *engine, int64_t timeout_ns)
{
    engine->turning = true;
    int result = turn_until(engine, timeout_ns);
    engine->turning = false;
    return result;
}

const struct tb_event *tb_events(const struct tb_engine *engine)
{
    return engine->events;
}

void tb_events_clear(struct tb_engine *engine)
{
    engine->event_count = engine->patient_count = 0;
}

int tb_engine_descriptor(struct tb_engine *engine)
{
    return engine->driver->descriptor(engine);
}

int64_t tb_next_check(const struct tb_engine *engine)
{
    /* What Python has queued or caused since the last turn does not wait for the kernel's news. */
    return engine->dirty || engine->event_count ? 0 : engine->check_at;
}

const struct tb_counters *tb_engine_counters(struct tb_engine *engine)
{
    if (engine->driver->count)
        engine->driver->count(engine);
    return &engine->counters;
}

int tb_engine_poll(int descriptor, int64_t timeout_ns)
{
    struct pollfd watched = {.fd = descriptor, .events = POLLIN};
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    int result = poll(&watched, 1, ms > 86400000 ? 86400000 : (int)ms);
    return result < 0 ? -errno : result;
}

int tb_engine_wake(struct tb_engine *engine)
{
    if (engine->driver->wake)
        return engine->driver->wake(engine);
    /* A full pipe is as good: it will be read. */
    if (write(engine->wake_write_fd, "", 1) < 0 && errno != EAGAIN)
        return -errno;
    return 0;
}

void tb_woken(struct tb_engine *engine)
{
    char bytes[64];
    while (engine->wake_fd >= 0 && read(engine->wake_fd, bytes, sizeof bytes) > 0)
        ;
    tb_emit(engine, TB_EV_WOKEN, 0, 0);
}

int tb_watch(struct tb_engine *engine, int fd, bool write)
{
    /* A table is kept by descriptor: a number that is none must not make it huge. */
    if (fd < 0 || (fd >= 65536 && fcntl(fd, F_GETFD) < 0))
        return -EBADF;
    return engine->driver->watch(engine, fd, write);
}

static bool may_be_watched(int fd)
{
    return fd >= 0 && (fd < 65536 || fcntl(fd, F_GETFD) >= 0);
}

void tb_unwatch(struct tb_engine *engine, int fd, bool write)
{
    if (may_be_watched(fd))
        engine->driver->unwatch(engine, fd, write);
}

void tb_release(struct tb_engine *engine, int fd)
{
    if (may_be_watched(fd))
        engine->driver->release(engine, fd);
}

int tb_signal_start(struct tb_engine *engine, int number)
{
    return engine->driver->signal_start ? engine->driver->signal_start(engine, number) : -ENOSYS;
}

void tb_signal_stop(struct tb_engine *engine, int number)
{
    if (engine->driver->signal_stop)
        engine->driver->signal_stop(engine, number);
}

void tb_signalled(struct tb_engine *engine, int number, int count)
{
    tb_emit(engine, TB_EV_SIGNAL, (uint64_t)-(int64_t)number, count);
}
