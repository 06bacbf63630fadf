/* io_uring(7): the kernel is handed what to do and says when it is done.
 *
 * A turn is one io_uring_enter(): it submits everything that the last turn queued (sends, receives
 * armed again, cancellations) and waits for the next completions.
 *
 * Receiving is multishot into a ring of provided buffers: armed once, a stream costs no further
 * submission, and an idle one holds no buffer. Multishot knows no back-pressure: when the owner wants
 * no more, it is cancelled, and what had arrived by then is still delivered.
 *
 * Sending never waits in the kernel. A send carries MSG_DONTWAIT, so its outcome is known when
 * io_uring_enter() has consumed it; MSG_WAITALL, so that a short one counts as a failure; and
 * IOSQE_CQE_SKIP_SUCCESS, so that success posts no completion. Hence: a consumed send without a
 * completion has been sent whole, and the wait in the same system call is not ended by our own
 * sends. (Where somebody waits for the outcome, because the stream is above its high water, there is
 * no wait in that call.)
 *
 * What the socket could not take waits for room in an auxiliary epoll, whose descriptor is polled by
 * the ring. A send left to wait in the kernel is parked on a worker thread when the peer has
 * half-closed, and POLL_ADD for POLLOUT, which always adds POLLRDHUP, would fire at once and for ever;
 * epoll(7) lets one ask for EPOLLOUT alone. For the same reason descriptors watched for writing are
 * watched there.
 *
 * At most one send per stream is under way, gathered from its whole queue: two in one submission
 * could overtake each other when the first finds the socket full and the second does not.
 *
 * Completions that found no room in the ring are kept by the kernel and flagged; they are fetched
 * before any send is taken for done.
 *
 * With IORING_SETUP_DEFER_TASKRUN the kernel does its part only while we wait, in our thread; a
 * guest run, which waits elsewhere, sets up without it and submits at once. Only the thread that owns
 * the ring submits.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "ring.h"
#include "watch.h"

#define SQ_ENTRIES 1024
#define CQ_ENTRIES 8192
#define FLIGHTS SQ_ENTRIES
#define AUX_BATCH 64

enum {
    KIND_NONE = 0, KIND_RECEIVE = 1, KIND_SEND = 2, KIND_ACCEPT = 3,
    KIND_WATCH = 4, KIND_WAKE = 5, KIND_AUX = 6, KIND_STREAM_OUT = 7,
};
enum { BIT_ARMED = 1, BIT_CANCELLING = 2, BIT_FORGOTTEN = 4, BIT_IN_AUX = 8 };

/* A send that has been queued and whose outcome is not known. */
struct flight {
    struct tb_stream *stream;
    size_t gathered;
    int64_t result;
    struct msghdr message;
};

struct uring_state {
    struct tb_ring ring;
    struct tb_watches watches;
    int aux;               /* epoll: streams and watched descriptors that wait for room */
    uint32_t aux_count;
    bool aux_armed;
    bool unsubmitted_cancel;
    uint32_t flight_count;
    bool hurry;            /* something waits for a send's outcome, which posts no completion */
    uint32_t settled_to;   /* completions of this turn whose sends have been looked at */
    struct flight flights[FLIGHTS];
    struct iovec iov[FLIGHTS][TB_MAX_IOV];
};

static uint64_t tag(const void *object, uint64_t kind)
{
    return (uint64_t)(uintptr_t)object | kind;
}

static void settle(struct tb_engine *engine);

/* ---------------------------------------------------------------- submitting */

static struct io_uring_sqe *next_entry(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    struct io_uring_sqe *sqe;
    while (!(sqe = tb_ring_entry(&state->ring)))
        tb_ring_submit(&state->ring);
    return sqe;
}

/* Guest mode waits in another thread, which may not submit for us. */
static void submit_if_guest(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    if (engine->guest)
        tb_ring_submit(&state->ring);
}

static void queue_cancel(struct tb_engine *engine, uint64_t target)
{
    struct uring_state *state = engine->state;
    struct io_uring_sqe *sqe = next_entry(engine);
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->addr = target;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = KIND_NONE;
    state->unsubmitted_cancel = true;
    submit_if_guest(engine);
}

static void queue_poll(struct tb_engine *engine, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = next_entry(engine);
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->fd = fd;
    sqe->poll32_events = POLLIN;
    sqe->user_data = user_data;
    submit_if_guest(engine);
}

/* ---------------------------------------------------------------- sending */

static void queue_send(struct tb_engine *engine, struct tb_stream *stream)
{
    struct uring_state *state = engine->state;
    struct io_uring_sqe *sqe = next_entry(engine);
    uint32_t index = state->flight_count++;
    struct iovec *iov = state->iov[index];
    struct flight *flight = &state->flights[index];
    int count = tb_stream_gather(stream, iov, &flight->gathered);
    state->hurry |= stream->choked || flight->gathered < stream->out.bytes;
    flight->stream = stream;
    flight->result = (int64_t)flight->gathered;
    sqe->fd = stream->fd;
    sqe->msg_flags = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = (uint64_t)index << 4 | KIND_SEND;
    if (count == 1) {
        sqe->opcode = IORING_OP_SEND;
        sqe->addr = (uint64_t)(uintptr_t)iov[0].iov_base;
        sqe->len = (uint32_t)flight->gathered;
    } else {
        flight->message = (struct msghdr){.msg_iov = iov, .msg_iovlen = (size_t)count};
        sqe->opcode = IORING_OP_SENDMSG;
        sqe->addr = (uint64_t)(uintptr_t)&flight->message;
        sqe->len = 1;
    }
}

static void flush(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    struct tb_stream *stream;
    while ((stream = tb_take_dirty(engine))) {
        if (state->flight_count == FLIGHTS) {
            tb_ring_enter(&state->ring, 0, 0);
            settle(engine);
        }
        if (stream->out.first)
            queue_send(engine, stream);
    }
}

/* Every send that the kernel has consumed is decided now: see the top of this file. */
static void settle(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    const struct tb_ring *ring = &state->ring;
    for (; state->settled_to < ring->batch_count; state->settled_to++) {
        const struct io_uring_cqe *cqe = &ring->batch[state->settled_to];
        if ((cqe->user_data & 15) == KIND_SEND && cqe->user_data >> 4 < state->flight_count)
            state->flights[cqe->user_data >> 4].result = cqe->res;
    }
    uint32_t count = state->flight_count;
    state->flight_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct flight *flight = &state->flights[i];
        tb_stream_settle(flight->stream, flight->gathered, flight->result);
    }
}

static void arm_aux(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    if (state->aux_armed || !state->aux_count)
        return;
    state->aux_armed = true;
    queue_poll(engine, state->aux, KIND_AUX);
}

static int aux_add(struct tb_engine *engine, int fd, uint64_t data)
{
    struct uring_state *state = engine->state;
    struct epoll_event event = {.events = EPOLLOUT | EPOLLONESHOT, .data.u64 = data};
    if (epoll_ctl(state->aux, EPOLL_CTL_ADD, fd, &event) < 0 &&
        (errno != EEXIST || epoll_ctl(state->aux, EPOLL_CTL_MOD, fd, &event) < 0))
        return -errno;
    state->aux_count++;
    arm_aux(engine);
    return 0;
}

static void aux_remove(struct tb_engine *engine, int fd)
{
    struct uring_state *state = engine->state;
    epoll_ctl(state->aux, EPOLL_CTL_DEL, fd, NULL);
    state->aux_count--;
}

static int uring_send_later(struct tb_stream *stream)
{
    int error = aux_add(stream->engine, stream->fd, tag(stream, KIND_STREAM_OUT));
    if (!error)
        stream->driver_bits |= BIT_IN_AUX;
    return error;
}

static void watch_writable(struct tb_engine *engine, uint64_t data)
{
    struct uring_state *state = engine->state;
    int fd = tb_watch_fd(data);
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    if (!watch->writing)
        return;
    watch->writing = false;
    aux_remove(engine, fd);
    tb_emit(engine, TB_EV_WRITABLE, (uint64_t)fd, 0);
}

static void aux_ready(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    struct epoll_event events[AUX_BATCH];
    state->aux_armed = false;
    int count = epoll_wait(state->aux, events, AUX_BATCH, 0);
    for (int i = 0; i < count; i++) {
        uint64_t data = events[i].data.u64;
        if ((data & 15) == KIND_WATCH) {
            watch_writable(engine, data);
            continue;
        }
        struct tb_stream *stream = (struct tb_stream *)(uintptr_t)(data & ~(uint64_t)15);
        aux_remove(engine, stream->fd);
        stream->driver_bits &= ~(uint32_t)BIT_IN_AUX;
        tb_stream_unblocked(stream);
    }
    arm_aux(engine);
}

/* ---------------------------------------------------------------- receiving and accepting */

static int uring_receive_start(struct tb_stream *stream)
{
    if (stream->driver_bits & BIT_ARMED) /* being cancelled: armed again when that is over */
        return 0;
    struct io_uring_sqe *sqe = next_entry(stream->engine);
    sqe->opcode = IORING_OP_RECV;
    sqe->fd = stream->fd;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = TB_RING_GROUP;
    sqe->user_data = tag(stream, KIND_RECEIVE);
    stream->driver_bits |= BIT_ARMED;
    submit_if_guest(stream->engine);
    return 0;
}

static void uring_receive_stop(struct tb_stream *stream)
{
    if ((stream->driver_bits & (BIT_ARMED | BIT_CANCELLING)) != BIT_ARMED)
        return;
    stream->driver_bits |= BIT_CANCELLING;
    queue_cancel(stream->engine, tag(stream, KIND_RECEIVE));
}

static void received(struct tb_engine *engine, struct tb_stream *stream, int32_t result,
                     uint32_t flags)
{
    struct uring_state *state = engine->state;
    bool last = !(flags & IORING_CQE_F_MORE);
    int32_t number = flags & IORING_CQE_F_BUFFER ? (int32_t)(flags >> IORING_CQE_BUFFER_SHIFT) : -1;
    if (last)
        stream->driver_bits &= ~(uint32_t)(BIT_ARMED | BIT_CANCELLING);
    if (stream->driver_bits & BIT_FORGOTTEN) {
        if (number >= 0)
            tb_ring_give_back(&state->ring, number);
        if (last)
            tb_stream_gone(stream);
        return;
    }
    if (result > 0 && number >= 0) {
        tb_stream_received(stream, tb_ring_buffer(&state->ring, number), (size_t)result, number);
    } else {
        if (number >= 0)
            tb_ring_give_back(&state->ring, number);
        if (result == -ENOBUFS)
            engine->counters.starved++;
        else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN)
            tb_stream_ended(stream, result);
    }
    if (last && stream->wanted && !stream->ended && !(stream->driver_bits & BIT_ARMED))
        uring_receive_start(stream);
}

static void uring_forget_stream(struct tb_stream *stream)
{
    struct tb_engine *engine = stream->engine;
    if (stream->driver_bits & BIT_IN_AUX)
        aux_remove(engine, stream->fd);
    if (!(stream->driver_bits & BIT_ARMED)) {
        tb_stream_gone(stream);
        return;
    }
    uring_receive_stop(stream);
    stream->driver_bits |= BIT_FORGOTTEN;
}

static int uring_accept_start(struct tb_listener *listener)
{
    if (listener->driver_bits & BIT_ARMED)
        return 0;
    struct io_uring_sqe *sqe = next_entry(listener->engine);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->fd = listener->fd;
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    sqe->user_data = tag(listener, KIND_ACCEPT);
    listener->driver_bits |= BIT_ARMED;
    submit_if_guest(listener->engine);
    return 0;
}

static void uring_accept_stop(struct tb_listener *listener)
{
    if ((listener->driver_bits & (BIT_ARMED | BIT_CANCELLING)) != BIT_ARMED)
        return;
    listener->driver_bits |= BIT_CANCELLING;
    queue_cancel(listener->engine, tag(listener, KIND_ACCEPT));
}

static void uring_forget_listener(struct tb_listener *listener)
{
    if (!(listener->driver_bits & BIT_ARMED)) {
        tb_listener_gone(listener);
        return;
    }
    uring_accept_stop(listener);
    listener->driver_bits |= BIT_FORGOTTEN;
}

static void accepted(struct tb_listener *listener, int32_t result, uint32_t flags)
{
    if (!(flags & IORING_CQE_F_MORE))
        listener->driver_bits &= ~(uint32_t)(BIT_ARMED | BIT_CANCELLING);
    if (listener->driver_bits & BIT_FORGOTTEN) {
        if (result >= 0)
            close(result);
        if (!(listener->driver_bits & BIT_ARMED))
            tb_listener_gone(listener);
        return;
    }
    if (result != -ECANCELED && result != -EINTR && result != -EAGAIN)
        tb_accepted(listener, result);
    if (listener->wanted && !(listener->driver_bits & BIT_ARMED))
        uring_accept_start(listener);
}

/* ---------------------------------------------------------------- watches */

static int uring_watch(struct tb_engine *engine, int fd, bool write)
{
    struct uring_state *state = engine->state;
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    if (write) {
        int error = aux_add(engine, fd, tb_watch_tag(fd, 0, KIND_WATCH));
        watch->writing = !error;
        return error;
    }
    watch->generation++;
    watch->reading = true;
    queue_poll(engine, fd, tb_watch_tag(fd, watch->generation, KIND_WATCH));
    return 0;
}

static void uring_unwatch(struct tb_engine *engine, int fd, bool write)
{
    struct uring_state *state = engine->state;
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    if (write && watch->writing) {
        watch->writing = false;
        aux_remove(engine, fd);
    } else if (!write && watch->reading) {
        watch->reading = false;
        queue_cancel(engine, tb_watch_tag(fd, watch->generation, KIND_WATCH));
    }
}

static void uring_release(struct tb_engine *engine, int fd)
{
    struct uring_state *state = engine->state;
    uring_unwatch(engine, fd, false);
    uring_unwatch(engine, fd, true);
    if (!state->unsubmitted_cancel)
        return;
    /* The ring holds the file itself, not its number, until the cancellation has run. */
    tb_ring_submit(&state->ring);
    state->unsubmitted_cancel = false;
}

static void watch_readable(struct tb_engine *engine, uint64_t data, int32_t result)
{
    struct uring_state *state = engine->state;
    int fd = tb_watch_fd(data);
    struct tb_watch *watch = tb_watch_at(&state->watches, fd);
    if (!watch->reading || tb_watch_tag(fd, watch->generation, KIND_WATCH) != data)
        return;
    watch->reading = false;
    int error = result < 0 ? result : result & POLLNVAL ? -EBADF : 0;
    tb_emit(engine, TB_EV_READABLE, (uint64_t)fd, error);
}

/* ---------------------------------------------------------------- the turn */

static void dispatch(struct tb_engine *engine, const struct io_uring_cqe *cqe)
{
    uint64_t data = cqe->user_data;
    void *object = (void *)(uintptr_t)(data & ~(uint64_t)15);
    switch (data & 15) {
    case KIND_RECEIVE:
        received(engine, object, cqe->res, cqe->flags);
        break;
    case KIND_ACCEPT:
        accepted(object, cqe->res, cqe->flags);
        break;
    case KIND_WATCH:
        watch_readable(engine, data, cqe->res);
        break;
    case KIND_WAKE:
        tb_woken(engine);
        queue_poll(engine, engine->wake_fd, KIND_WAKE);
        break;
    case KIND_AUX:
        aux_ready(engine);
        break;
    default: /* a send, settled already, or a cancellation that found nothing */
        break;
    }
}

static int uring_turn(struct tb_engine *engine, int64_t timeout_ns)
{
    struct uring_state *state = engine->state;
    struct tb_ring *ring = &state->ring;
    uint32_t events = engine->event_count;
    flush(engine);
    if (engine->event_count != events || ring->batch_count || state->hurry)
        timeout_ns = 0;
    state->hurry = false;
    int result = tb_ring_enter(ring, timeout_ns == 0 ? 0 : 1, timeout_ns);
    state->unsubmitted_cancel = false;
    engine->now = tb_clock();
    engine->counters.turns++;
    engine->counters.overflows = ring->overflows;
    settle(engine);
    /* What comes meanwhile (entries had to be submitted for want of room) is for the next turn: a
     * receive that found no buffer would find none before those of this turn are published. */
    uint32_t count = ring->batch_count;
    for (uint32_t i = 0; i < count; i++) {
        struct io_uring_cqe cqe = ring->batch[i]; /* the batch may grow and move meanwhile */
        dispatch(engine, &cqe);
    }
    ring->batch_count -= count;
    memmove(ring->batch, ring->batch + count, ring->batch_count * sizeof *ring->batch);
    state->settled_to = 0;
    tb_ring_publish_buffers(ring);
    return result;
}

static int uring_descriptor(struct tb_engine *engine)
{
    return ((struct uring_state *)engine->state)->ring.fd;
}

static void uring_give_back(struct tb_engine *engine, int32_t number)
{
    if (engine->state) /* not while the last streams go, after the ring */
        tb_ring_give_back(&((struct uring_state *)engine->state)->ring, number);
}

static void uring_count(struct tb_engine *engine)
{
    tb_ring_count(&((struct uring_state *)engine->state)->ring, &engine->counters);
}

/* ---------------------------------------------------------------- open and close */

static int uring_open(struct tb_engine *engine, bool guest)
{
    struct uring_state *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (state == MAP_FAILED)
        return -errno;
    int error = tb_ring_open(&state->ring, SQ_ENTRIES, CQ_ENTRIES, guest, engine->huge_pages,
                             engine->why, sizeof engine->why);
    if (error < 0)
        goto failed;
    state->aux = epoll_create1(EPOLL_CLOEXEC);
    if (state->aux < 0) {
        error = -errno;
        snprintf(engine->why, sizeof engine->why, "epoll_create1: %s", strerror(-error));
        tb_ring_close(&state->ring);
        goto failed;
    }
    engine->state = state;
    tb_ring_count(&state->ring, &engine->counters);
    queue_poll(engine, engine->wake_fd, KIND_WAKE);
    return 0;
failed:
    munmap(state, sizeof *state);
    return error;
}

static void uring_close(struct tb_engine *engine)
{
    struct uring_state *state = engine->state;
    /* Nothing may arrive in memory that is given back, and no file stays open behind our back. */
    struct io_uring_sqe *sqe = next_entry(engine);
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
    tb_ring_enter(&state->ring, 1, 100000000);
    tb_ring_enter(&state->ring, 0, 0);
    for (uint32_t i = 0; i < state->ring.batch_count; i++) { /* accepted, and nobody's now */
        const struct io_uring_cqe *cqe = &state->ring.batch[i];
        if ((cqe->user_data & 15) == KIND_ACCEPT && cqe->res >= 0)
            close(cqe->res);
    }
    tb_ring_close(&state->ring);
    close(state->aux);
    tb_watches_free(&state->watches);
    munmap(state, sizeof *state);
    engine->state = NULL;
}

const struct tb_driver tb_driver_io_uring = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .turn = uring_turn,
    .descriptor = uring_descriptor,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .release = uring_release,
    .accept_start = uring_accept_start,
    .accept_stop = uring_accept_stop,
    .receive_start = uring_receive_start,
    .receive_stop = uring_receive_stop,
    .send_later = uring_send_later,
    .forget_stream = uring_forget_stream,
    .forget_listener = uring_forget_listener,
    .give_back = uring_give_back,
    .count = uring_count,
};
#endif
