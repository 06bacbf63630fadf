/* Streams: bytes received and not yet taken, bytes on their way out.
 *
 * A queue is a list of segments. A lent segment points into a driver's buffer and lives until the
 * stream is flushed, at the end of the turn; a heap segment owns its bytes. While the kernel's buffer
 * is full (blocked) everything that comes is copied, small pieces behind one another.
 *
 * High water: above it, `choked` is set, and whoever feeds the stream stops reading its source; at
 * half of it the owner's drained() is called. The overshoot is what the source's driver had already
 * received.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine.h"
#include "platform.h"

#define HEAP_CHUNK 16384

/* ---------------------------------------------------------------- queues */

static void segment_free(struct tb_engine *engine, struct tb_segment *segment)
{
    if (segment->lent == TB_OWN) {
        const uint8_t *end = segment->bytes + segment->length + segment->room;
        engine->counters.heap -= (uint64_t)(end - (uint8_t *)(segment + 1));
        free(segment);
        return;
    }
    engine->driver->give_back(engine, segment->lent);
    segment->next = engine->spare;
    engine->spare = segment;
}

static void queue_append(struct tb_queue *queue, struct tb_segment *segment)
{
    segment->next = NULL;
    if (queue->last)
        queue->last->next = segment;
    else
        queue->first = segment;
    queue->last = segment;
    queue->bytes += segment->length;
}

static struct tb_segment *heap_segment(struct tb_engine *engine, size_t size)
{
    struct tb_segment *segment = tb_alloc(sizeof *segment + size);
    segment->bytes = (uint8_t *)(segment + 1);
    segment->room = (uint32_t)size;
    segment->lent = TB_OWN;
    engine->counters.heap += size;
    return segment;
}

static void segment_fill(struct tb_segment *segment, const uint8_t *bytes, size_t n)
{
    memcpy(segment->bytes + segment->length, bytes, n);
    segment->length += (uint32_t)n;
    segment->room -= (uint32_t)n;
}

void tb_queue_copy(struct tb_engine *engine, struct tb_queue *queue, const uint8_t *bytes, size_t n)
{
    engine->counters.copied += n;
    while (n) {
        struct tb_segment *last = queue->last;
        if (!last || last->lent != TB_OWN || !last->room) {
            /* A lone piece (a query that waits for a server) gets what it needs; more than one
             * piece is a backlog, which comes in quantity. */
            size_t size = last || n > HEAP_CHUNK ? HEAP_CHUNK : n;
            last = heap_segment(engine, size);
            queue_append(queue, last);
        }
        size_t piece = n < last->room ? n : last->room;
        segment_fill(last, bytes, piece);
        queue->bytes += piece;
        bytes += piece;
        n -= piece;
    }
}

void tb_queue_drop(struct tb_engine *engine, struct tb_queue *queue, size_t n)
{
    queue->bytes -= n;
    while (queue->first && n >= queue->first->length) {
        struct tb_segment *first = queue->first;
        n -= first->length;
        queue->first = first->next;
        segment_free(engine, first);
    }
    if (!queue->first)
        queue->last = NULL;
    else if (n) {
        queue->first->bytes += n;
        queue->first->length -= (uint32_t)n;
    }
}

static void queue_clear(struct tb_engine *engine, struct tb_queue *queue)
{
    while (queue->first) {
        struct tb_segment *first = queue->first;
        queue->first = first->next;
        segment_free(engine, first);
    }
    queue->last = NULL;
    queue->bytes = 0;
}

/* Copies what is lent, so that the driver has its buffers back. */
static void queue_own(struct tb_engine *engine, struct tb_queue *queue)
{
    struct tb_segment *segment = queue->first;
    queue->first = queue->last = NULL;
    queue->bytes = 0;
    while (segment) {
        struct tb_segment *next = segment->next;
        if (segment->lent == TB_OWN) {
            queue_append(queue, segment);
        } else {
            tb_queue_copy(engine, queue, segment->bytes, segment->length);
            segment_free(engine, segment);
        }
        segment = next;
    }
}

/* ---------------------------------------------------------------- life of a stream */

struct tb_stream *tb_stream_new(struct tb_engine *engine, int fd, uint32_t high_water)
{
    struct tb_stream *stream = tb_alloc(sizeof *stream);
    stream->engine = engine;
    stream->fd = fd;
    tb_no_sigpipe(fd);
    stream->high_water = high_water;
    stream->token = engine->next_token++;
    stream->next = engine->streams;
    if (stream->next)
        stream->next->prev = stream;
    engine->streams = stream;
    return stream;
}

uint64_t tb_stream_token(const struct tb_stream *stream)
{
    return stream->token;
}

int tb_stream_fd(const struct tb_stream *stream)
{
    return stream->fd;
}

size_t tb_stream_unsent(const struct tb_stream *stream)
{
    return stream->out.bytes;
}

size_t tb_stream_received_bytes(const struct tb_stream *stream)
{
    return stream->in.bytes;
}

int tb_stream_error(const struct tb_stream *stream)
{
    return stream->error;
}

bool tb_stream_wait_room(struct tb_stream *stream)
{
    struct pollfd socket = {.fd = stream->fd, .events = POLLOUT};
    if (stream->error)
        return false;
    if (!stream->out.first && !stream->blocked) {
        if (poll(&socket, 1, 0) != 0)
            return false;
        stream->blocked = true;
        if (stream->engine->driver->send_later(stream) < 0) {
            stream->blocked = false;
            return false;
        }
    }
    stream->choked = stream->sender_waits = true;
    return true;
}

static void put_on_dirty(struct tb_stream *stream)
{
    if (stream->dirty)
        return;
    stream->dirty = true;
    stream->dirty_next = stream->engine->dirty;
    stream->engine->dirty = stream;
    tb_nudge(stream->engine);
}

static void undirty(struct tb_stream *stream)
{
    struct tb_stream **link = &stream->engine->dirty;
    while (*link && *link != stream)
        link = &(*link)->dirty_next;
    if (*link)
        *link = stream->dirty_next;
    stream->dirty = false;
}

static int64_t send_now(struct tb_stream *stream)
{
    struct iovec iov[TB_MAX_IOV];
    size_t total;
    struct msghdr message = {.msg_iov = iov};
    message.msg_iovlen = (size_t)tb_stream_gather(stream, iov, &total);
    if (!message.msg_iovlen)
        return 0;
    ssize_t sent = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

void tb_stream_close(struct tb_stream *stream)
{
    struct tb_engine *engine = stream->engine;
    if (stream->closed)
        return;
    if (stream->member)
        tb_mux_remove(stream);
    if (stream->peer)
        tb_relay_break(stream);
    if (stream->listener)
        tb_listener_forget(stream);
    if (!stream->error)
        send_now(stream);
    if (stream->dirty)
        undirty(stream);
    stream->closed = true;
    stream->owner = NULL;
    stream->wanted = false;
    queue_clear(engine, &stream->in);
    queue_clear(engine, &stream->out);
    engine->driver->forget_stream(stream);
}

void tb_stream_gone(struct tb_stream *stream)
{
    struct tb_engine *engine = stream->engine;
    if (stream->prev)
        stream->prev->next = stream->next;
    else
        engine->streams = stream->next;
    if (stream->next)
        stream->next->prev = stream->prev;
    queue_clear(engine, &stream->in);
    queue_clear(engine, &stream->out);
    free(stream->member);
    close(stream->fd);
    free(stream);
}

/* ---------------------------------------------------------------- receiving */

void tb_stream_want(struct tb_stream *stream, bool wanted)
{
    if (stream->wanted == wanted || (wanted && stream->ended))
        return;
    stream->wanted = wanted;
    if (!wanted) {
        stream->engine->driver->receive_stop(stream);
        return;
    }
    int error = stream->engine->driver->receive_start(stream);
    if (error < 0) {
        stream->failing = error;
        stream->wanted = false;
        put_on_dirty(stream);
    }
}

void tb_stream_received(struct tb_stream *stream, uint8_t *bytes, size_t n, int32_t number)
{
    struct tb_engine *engine = stream->engine;
    struct tb_lent lent = {.bytes = bytes, .length = n, .number = number};
    engine->counters.receives++;
    engine->counters.bytes_received += n;
    if (stream->owner) {
        stream->owner->received(stream, &lent);
    } else {
        tb_queue_copy(engine, &stream->in, bytes, n);
        if (stream->in.bytes > stream->high_water)
            tb_stream_want(stream, false);
        if (stream->reader_waits) {
            stream->reader_waits = false;
            tb_emit(engine, TB_EV_RECEIVED, stream->token, 0);
        }
    }
    if (!lent.taken)
        engine->driver->give_back(engine, number);
}

void tb_stream_ended(struct tb_stream *stream, int error)
{
    struct tb_engine *engine = stream->engine;
    bool told = stream->ended && (!error || stream->error);
    if (error < 0 && !stream->error) {
        stream->error = error;
        queue_clear(engine, &stream->out);
        if (stream->dirty)
            undirty(stream);
    }
    tb_stream_want(stream, false);
    stream->ended = true;
    if (stream->owner) {
        if (!told)
            stream->owner->ended(stream);
        return;
    }
    if (stream->reader_waits) {
        stream->reader_waits = false;
        tb_emit(engine, TB_EV_RECEIVED, stream->token, 0);
    }
    if (stream->sender_waits && error < 0) {
        stream->sender_waits = false;
        tb_emit(engine, TB_EV_SENT, stream->token, 0);
    }
}

int64_t tb_stream_receive(struct tb_stream *stream, uint8_t *bytes, size_t n)
{
    size_t taken = 0;
    while (taken < n && stream->in.first) {
        struct tb_segment *first = stream->in.first;
        size_t piece = first->length < n - taken ? first->length : n - taken;
        memcpy(bytes + taken, first->bytes, piece);
        taken += piece;
        tb_queue_drop(stream->engine, &stream->in, piece);
    }
    if (taken)
        return (int64_t)taken;
    if (stream->error)
        return stream->error;
    if (stream->ended)
        return 0;
    tb_stream_want(stream, true);
    if (stream->ended) /* receive_start failed */
        return stream->error;
    stream->reader_waits = true;
    return -EAGAIN;
}

void tb_stream_put_back(struct tb_stream *stream, const uint8_t *bytes, size_t n)
{
    if (!n)
        return;
    struct tb_segment *segment = heap_segment(stream->engine, n);
    segment_fill(segment, bytes, n);
    segment->next = stream->in.first;
    stream->in.first = segment;
    if (!stream->in.last)
        stream->in.last = segment;
    stream->in.bytes += n;
}

void tb_stream_stop_waiting(struct tb_stream *stream, bool sender)
{
    if (sender)
        stream->sender_waits = false;
    else
        stream->reader_waits = false; /* what arrives meanwhile is kept in the queue */
}

void tb_stream_disown(struct tb_stream *stream)
{
    stream->owner = NULL;
    stream->peer = NULL;
}

/* ---------------------------------------------------------------- sending */

void tb_stream_mark_dirty(struct tb_stream *stream)
{
    if (!stream->blocked)
        put_on_dirty(stream);
}

struct tb_stream *tb_take_dirty(struct tb_engine *engine)
{
    struct tb_stream *stream;
    while ((stream = engine->dirty)) {
        engine->dirty = stream->dirty_next;
        stream->dirty = false;
        if (stream->failing && !stream->error)
            tb_stream_ended(stream, stream->failing);
        else if (!stream->blocked)
            break;
    }
    return stream;
}

static void note_growth(struct tb_stream *stream)
{
    if (stream->out.bytes > stream->high_water)
        stream->choked = true;
    tb_stream_mark_dirty(stream);
}

void tb_stream_push(struct tb_stream *stream, struct tb_lent *lent, size_t n)
{
    struct tb_engine *engine = stream->engine;
    if (!n || stream->error)
        return;
    if (stream->blocked || lent->taken) {
        tb_queue_copy(engine, &stream->out, lent->bytes, n);
    } else {
        struct tb_segment *segment = engine->spare;
        if (segment)
            engine->spare = segment->next;
        else
            segment = tb_alloc(sizeof *segment);
        *segment = (struct tb_segment){
            .bytes = lent->bytes, .length = (uint32_t)n, .lent = lent->number};
        lent->taken = true;
        queue_append(&stream->out, segment);
    }
    note_growth(stream);
}

void tb_stream_push_copy(struct tb_stream *stream, const uint8_t *bytes, size_t n)
{
    if (!n || stream->error)
        return;
    tb_queue_copy(stream->engine, &stream->out, bytes, n);
    note_growth(stream);
}

void tb_stream_move(struct tb_stream *from, struct tb_stream *to, size_t n)
{
    struct tb_engine *engine = from->engine;
    if (to->error) {
        tb_queue_drop(engine, &from->in, n);
        return;
    }
    while (n) {
        struct tb_segment *first = from->in.first;
        if (first->length > n) {
            tb_queue_copy(engine, &to->out, first->bytes, n);
            tb_queue_drop(engine, &from->in, n);
            break;
        }
        n -= first->length;
        from->in.bytes -= first->length;
        from->in.first = first->next;
        if (!from->in.first)
            from->in.last = NULL;
        queue_append(&to->out, first);
    }
    note_growth(to);
}

int tb_stream_gather(struct tb_stream *stream, struct iovec *iov, size_t *total)
{
    int count = 0;
    *total = 0;
    for (struct tb_segment *s = stream->out.first; s && count < TB_MAX_IOV; s = s->next) {
        iov[count++] = (struct iovec){.iov_base = s->bytes, .iov_len = s->length};
        *total += s->length;
    }
    return count;
}

static void tell_drained(struct tb_stream *stream)
{
    /* Python's send is over when the kernel has taken all of it. */
    size_t low_water = stream->owner ? stream->high_water / 2 : 0;
    if (!stream->choked || stream->out.bytes > low_water)
        return;
    stream->choked = false;
    if (stream->owner) {
        stream->owner->drained(stream);
    } else if (stream->sender_waits) {
        stream->sender_waits = false;
        tb_emit(stream->engine, TB_EV_SENT, stream->token, 0);
    }
}

void tb_stream_unblocked(struct tb_stream *stream)
{
    stream->blocked = false;
    if (stream->out.first)
        tb_stream_mark_dirty(stream);
    else
        tell_drained(stream);
}

void tb_stream_settle(struct tb_stream *stream, size_t gathered, int64_t result)
{
    struct tb_engine *engine = stream->engine;
    engine->counters.sends++;
    if (result == -EAGAIN || result == -EINTR)
        result = 0;
    if (result < 0) {
        stream->blocked = false;
        tb_stream_ended(stream, (int)result);
        return;
    }
    engine->counters.bytes_sent += (uint64_t)result;
    tb_queue_drop(engine, &stream->out, (size_t)result);
    stream->blocked = (size_t)result < gathered;
    if (stream->blocked) {
        engine->counters.blocked++;
        queue_own(engine, &stream->out);
        int error = engine->driver->send_later(stream);
        if (error < 0) {
            stream->blocked = false;
            tb_stream_ended(stream, error);
            return;
        }
    } else if (stream->out.first) {
        tb_stream_mark_dirty(stream);
    }
    tell_drained(stream);
}

int tb_stream_send(struct tb_stream *stream, const uint8_t *bytes, size_t n)
{
    if (stream->error)
        return stream->error;
    if (!stream->out.first) {
        /* A direct attempt: cheaper than a turn, and what is taken now need not be copied. */
        ssize_t sent = send(stream->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            tb_stream_ended(stream, -errno);
            return stream->error;
        }
        if (sent > 0) {
            stream->engine->counters.sends++;
            stream->engine->counters.bytes_sent += (uint64_t)sent;
            bytes += sent;
            n -= (size_t)sent;
        }
    }
    if (n) {
        tb_queue_copy(stream->engine, &stream->out, bytes, n);
        stream->choked = true; /* the kernel is full: Python waits until half of it is gone */
        tb_stream_mark_dirty(stream);
    }
    if (!stream->out.first)
        stream->choked = false; /* left by a wait for room that was cancelled */
    stream->sender_waits = stream->choked;
    return stream->choked;
}

int tb_stream_shutdown_send(struct tb_stream *stream)
{
    return shutdown(stream->fd, SHUT_WR) < 0 ? -errno : 0;
}
