/* Listeners, and the connections that they have accepted and nobody has taken yet.
 *
 * With until_data a connection is offered only when it has something to say. Until then it is a stream
 * on a list, oldest first: there may be thousands that never speak (a flood, load balancers, idle
 * browsers), and none of them costs a task. When there are too many, or one has been silent for too
 * long, it is closed; that happens between turns (tb_listener_check), because a driver that hands up
 * what happened may still have something to say of the very stream.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine.h"

#define READY_LIMIT 1024 /* above it, the kernel's backlog has to hold them */

static void line_add(struct tb_line *line, struct tb_stream *stream)
{
    stream->queue_next = NULL;
    stream->queue_prev = line->last;
    if (line->last)
        line->last->queue_next = stream;
    else
        line->first = stream;
    line->last = stream;
    line->count++;
}

static void line_remove(struct tb_line *line, struct tb_stream *stream)
{
    if (stream->queue_prev)
        stream->queue_prev->queue_next = stream->queue_next;
    else
        line->first = stream->queue_next;
    if (stream->queue_next)
        stream->queue_next->queue_prev = stream->queue_prev;
    else
        line->last = stream->queue_prev;
    stream->queue_prev = stream->queue_next = NULL;
    line->count--;
}

static void offer(struct tb_stream *stream)
{
    struct tb_listener *listener = stream->listener;
    stream->owner = NULL;
    line_add(&listener->ready, stream);
    if (listener->ready.count >= READY_LIMIT && listener->wanted) {
        tb_listener_want(listener, false);
        listener->resting = true;
    }
    if (!listener->told)
        tb_emit(listener->engine, TB_EV_ACCEPTED, listener->token, 0);
    listener->told = true;
}

/* ---------------------------------------------------------------- silent connections */

static void silent_received(struct tb_stream *stream, struct tb_lent *lent)
{
    line_remove(&stream->listener->silent, stream);
    tb_queue_copy(stream->engine, &stream->in, lent->bytes, lent->length);
    offer(stream);
}

static void silent_ended(struct tb_stream *stream)
{
    line_remove(&stream->listener->silent, stream);
    offer(stream);
}

static void silent_drained(struct tb_stream *stream)
{
    (void)stream; /* nothing has been sent yet */
}

static const struct tb_owner silent_owner = {
    .received = silent_received,
    .ended = silent_ended,
    .drained = silent_drained,
};

void tb_listener_check(struct tb_listener *listener)
{
    int64_t now = listener->engine->now;
    struct tb_stream *oldest;
    while ((oldest = listener->silent.first)) {
        bool many = listener->silent_limit && listener->silent.count > listener->silent_limit;
        bool long_silent = listener->patience && now - oldest->since >= listener->patience;
        if (!many && !long_silent)
            break;
        listener->dropped++;
        tb_stream_close(oldest);
    }
    if (oldest && listener->patience)
        tb_check_before(listener->engine, oldest->since + listener->patience);
}

/* ---------------------------------------------------------------- accepting */

/* accept(2): errors of the network that were pending on the new socket count as none. */
static bool concerns_one_connection(int error)
{
    static const int errors[] = {
        ECONNABORTED, EPERM, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN, EHOSTDOWN, EHOSTUNREACH,
        ENETUNREACH, ETIMEDOUT,
    };
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (error == -errors[i])
            return true;
    return false;
}

void tb_accepted(struct tb_listener *listener, int fd_or_error)
{
    struct tb_engine *engine = listener->engine;
    if (fd_or_error < 0) {
        if (concerns_one_connection(fd_or_error))
            return; /* it was gone before we looked */
        /* No descriptors left, say: Python decides when to go on. */
        tb_listener_want(listener, false);
        tb_emit(engine, TB_EV_ACCEPTED, listener->token, fd_or_error);
        return;
    }
    struct tb_stream *stream = tb_stream_new(engine, fd_or_error, listener->high_water);
    stream->listener = listener;
    stream->since = engine->now;
    if (!listener->until_data) {
        offer(stream);
        return;
    }
    stream->owner = &silent_owner;
    line_add(&listener->silent, stream);
    if (listener->silent_limit && listener->silent.count > listener->silent_limit)
        tb_check_before(engine, engine->now);
    else if (listener->patience)
        tb_check_before(engine, engine->now + listener->patience);
    tb_stream_want(stream, true);
}

struct tb_stream *tb_listener_take(struct tb_listener *listener)
{
    struct tb_stream *stream = listener->ready.first;
    if (stream) {
        line_remove(&listener->ready, stream);
        stream->listener = NULL;
        return stream;
    }
    listener->told = false;
    if (listener->resting) {
        listener->resting = false;
        tb_listener_want(listener, true);
    }
    return NULL;
}

void tb_listener_forget(struct tb_stream *stream)
{
    struct tb_listener *listener = stream->listener;
    line_remove(stream->owner == &silent_owner ? &listener->silent : &listener->ready, stream);
    stream->listener = NULL;
}

/* ---------------------------------------------------------------- listeners */

struct tb_listener *tb_listener_new(struct tb_engine *engine, int fd, uint32_t high_water,
                                    bool until_data)
{
    struct tb_listener *listener = tb_alloc(sizeof *listener);
    listener->engine = engine;
    listener->fd = fd;
    listener->high_water = high_water;
    listener->until_data = until_data;
    listener->token = engine->next_token++;
    listener->next = engine->listeners;
    if (listener->next)
        listener->next->prev = listener;
    engine->listeners = listener;
    return listener;
}

void tb_listener_limit_silent(struct tb_listener *listener, uint32_t count, int64_t patience_ns)
{
    listener->silent_limit = count;
    listener->patience = patience_ns;
    tb_check_before(listener->engine, listener->engine->now);
}

uint64_t tb_listener_dropped(const struct tb_listener *listener)
{
    return listener->dropped;
}

uint64_t tb_listener_token(const struct tb_listener *listener)
{
    return listener->token;
}

int tb_listener_want(struct tb_listener *listener, bool wanted)
{
    if (listener->wanted == wanted)
        return 0;
    listener->wanted = wanted;
    if (wanted) {
        int error = listener->engine->driver->accept_start(listener);
        listener->wanted = !error;
        return error;
    }
    listener->engine->driver->accept_stop(listener);
    return 0;
}

void tb_listener_close(struct tb_listener *listener)
{
    if (listener->closed)
        return;
    while (listener->silent.first)
        tb_stream_close(listener->silent.first);
    while (listener->ready.first)
        tb_stream_close(listener->ready.first);
    listener->closed = true;
    listener->wanted = false;
    listener->engine->driver->forget_listener(listener);
}

void tb_listener_gone(struct tb_listener *listener)
{
    if (listener->prev)
        listener->prev->next = listener->next;
    else
        listener->engine->listeners = listener->next;
    if (listener->next)
        listener->next->prev = listener->prev;
    close(listener->fd);
    free(listener);
}
