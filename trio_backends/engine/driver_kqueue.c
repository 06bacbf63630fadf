/* kqueue(2): readiness, with changes and events in one system call; made to look like completion.
 *
 * kevent() takes a list of changes and gives a list of events. Interests (knotes.h) are only noted
 * while a turn lasts; what differs from what the kernel has is handed over with the next wait, so an
 * ordinary turn is one system call. In guest mode, where another thread polls the kqueue, it is handed
 * over at once. A stream being read is added once and level-triggered, as in driver_epoll.c, and costs
 * no change per message: each report is one recv() into the scratch buffer, whose bytes are flushed
 * before the next is looked at. Room to send, and what Trio tasks wait for, is EV_ONESHOT: the kernel
 * drops it when it reports it, and there is nothing to take back.
 *
 * What follows is how kevent() behaves, and what is done about it here. (FreeBSD 13.2 was measured;
 * XNU's behaviour is from its source.)
 *
 * A change that is refused is an event, with EV_ERROR and the errno in `data`. If there is one, only
 * such events are returned, at once, and whatever is ready stays where it is: so we ask again. If
 * there is no room left for one, kevent() fails, and the changes behind it are not made: so never more
 * changes are handed over than there is room for events. EV_RECEIPT is not used: without room FreeBSD
 * forgets how many there were. A single change whose outcome is needed at once is made with no room for
 * events: its errno is then that of the call.
 *
 * EV_ADD of what is there replaces udata, but neither sets nor clears EV_ONESHOT (nor, on NetBSD,
 * restarts a timer): what is to be different is deleted first.
 *
 * close() removes the descriptor's knotes, whatever duplicates live, and events that were queued. The
 * number may be in use again at once. Hence a stream that is closed takes nothing back (a deletion
 * would come too late, and hit its successor), and a watch is always added anew. A deletion that finds
 * nothing (ENOENT, or EBADF) has what it wanted. Every udata carries a generation, so that no report
 * is taken for one of a later interest in the same number.
 *
 * What is reported need not be true any more. FreeBSD does not look again at a one-shot knote between
 * its activation and its delivery: another may have emptied the socket. The flags of an event may
 * hold EV_ADD (XNU, NetBSD) or not; single bits are tested.
 *
 * EV_EOF comes with the last bytes and stays. It is recv() that tells of the end, and of an error; the
 * event of a stream that is not wanted would repeat for ever, so its knote is deleted. For writing,
 * EV_EOF means that the peer is wholly gone; the next send finds out.
 *
 * EINTR comes after the changes were made: they are not handed over again. A signal may also be had as
 * an event, beside the handler and after it; it is counted even where it is ignored (save SIGCHLD).
 * The process's disposition stays the caller's business: a signal that kills does so.
 *
 * Timers are one-shot, in nanoseconds where the kernel knows them, and set again if they were early or
 * if the time was longer than we dared to ask for. FreeBSD grants 4,096 of them to the whole system
 * (kern.kq_calloutmax): an alarm that is refused is kept by alarm.c.
 *
 * EVFILT_USER wakes us from other threads; what triggers it replaces udata, so it is given each time.
 *
 * A child of fork(2) has no kqueue, and the number of ours may be another file of its own. So nothing
 * is asked of it, nor is it closed, in any process but the one that made it. There is no CLOEXEC in
 * kqueue(), so it is set at once afterwards.
 */
#define _GNU_SOURCE
#include "engine.h"
#ifdef TB_HAVE_KQUEUE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "knotes.h"
#include "readiness.h"

#define BATCH 256
#define SIGNALS 129 /* more than any system has */
#define LONGEST_WAIT 86400000000000 /* ns */

/* What we were compiled against is what the kernel will read and write. */
#if defined(__LP64__)
_Static_assert(offsetof(struct kevent, ident) == 0, "kevent.ident");
_Static_assert(sizeof(((struct kevent *)0)->data) == 8, "kevent.data");
#if defined(__FreeBSD__) || defined(TB_KQUEUE_SIM)
_Static_assert(sizeof(struct kevent) == 64, "struct kevent of FreeBSD 12 and later");
_Static_assert(offsetof(struct kevent, data) == 16, "kevent.data");
_Static_assert(offsetof(struct kevent, udata) == 24, "kevent.udata");
_Static_assert(EVFILT_USER == -11, "EVFILT_USER");
_Static_assert(NOTE_NSECONDS == 8, "NOTE_NSECONDS");
#elif defined(__APPLE__)
_Static_assert(sizeof(struct kevent) == 32, "struct kevent of macOS");
_Static_assert(offsetof(struct kevent, data) == 16, "kevent.data");
_Static_assert(offsetof(struct kevent, udata) == 24, "kevent.udata");
_Static_assert(EVFILT_USER == -10, "EVFILT_USER");
_Static_assert(NOTE_NSECONDS == 4, "NOTE_NSECONDS");
#endif
#endif
#if defined(__FreeBSD__) || defined(__APPLE__) || defined(TB_KQUEUE_SIM)
_Static_assert(EVFILT_READ == -1 && EVFILT_WRITE == -2, "EVFILT_READ, EVFILT_WRITE");
_Static_assert(EVFILT_SIGNAL == -6 && EVFILT_TIMER == -7, "EVFILT_SIGNAL, EVFILT_TIMER");
_Static_assert(EV_ADD == 1 && EV_DELETE == 2 && EV_ONESHOT == 0x10 && EV_CLEAR == 0x20, "EV_*");
_Static_assert(EV_ERROR == 0x4000 && EV_EOF == 0x8000, "EV_ERROR, EV_EOF");
_Static_assert(NOTE_TRIGGER == 0x01000000, "NOTE_TRIGGER");
#endif

struct kqueue_state {
    int fd;
    pid_t process; /* that made it */
    struct tb_knotes knotes;
    struct { bool on; uint32_t generation; } signals[SIGNALS];
    struct kevent changes[BATCH], events[BATCH];
    uint8_t scratch[TB_SCRATCH];
};

/* One change, made now. 0 or a negative errno. */
static int change_now(struct kqueue_state *state, struct kevent change)
{
    if (getpid() != state->process)
        return -EBADF;
    /* Not counted among the submissions: other threads come here too. */
    return kevent(state->fd, &change, 1, NULL, 0, NULL) < 0 ? -errno : 0;
}

/* ---------------------------------------------------------------- opening and closing */

#ifdef EVFILT_USER
static int kqueue_wake(struct tb_engine *engine)
{
    uintptr_t udata = tb_knote_udata(0, TB_KNOTE_WAKE);
    return change_now(engine->state, tb_kevent(0, EVFILT_USER, 0, NOTE_TRIGGER, 0, udata));
}
#endif

static int prepare_wake(struct tb_engine *engine, struct kqueue_state *state)
{
    uintptr_t udata = tb_knote_udata(0, TB_KNOTE_WAKE);
#ifdef EVFILT_USER
    (void)engine;
    return change_now(state, tb_kevent(0, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, udata));
#else
    return change_now(state, tb_kevent((uint64_t)engine->wake_fd, EVFILT_READ, EV_ADD, 0, 0, udata));
#endif
}

static int kqueue_open(struct tb_engine *engine, bool guest)
{
    (void)guest;
    struct kqueue_state *state = tb_alloc(sizeof *state);
    state->fd = kqueue();
    state->process = getpid();
    int error = state->fd < 0 || fcntl(state->fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
    if (!error)
        error = prepare_wake(engine, state);
    if (error < 0) {
        snprintf(engine->why, sizeof engine->why, "kqueue: %s", strerror(-error));
        if (state->fd >= 0)
            close(state->fd);
        free(state);
        return error;
    }
    engine->state = state;
    return 0;
}

static void kqueue_close(struct tb_engine *engine)
{
    struct kqueue_state *state = engine->state;
    if (getpid() == state->process)
        close(state->fd);
    tb_knotes_free(&state->knotes);
    free(state);
    engine->state = NULL;
}

static int kqueue_descriptor(struct tb_engine *engine)
{
    return ((struct kqueue_state *)engine->state)->fd;
}

/* ---------------------------------------------------------------- interests */

/* A change was refused: whoever wanted it hears why. */
static void refused(struct tb_engine *engine, const struct kevent *change, int error)
{
    struct kqueue_state *state = engine->state;
    struct tb_knote *knote = tb_knotes_of(&state->knotes, change);
    if (!knote)
        return; /* a deletion; or nobody wants it any more */
    struct tb_place *place = tb_knotes_place(&state->knotes, change);
    knote->want = knote->have = TB_KNOTE_NONE;
    if (place->kind == TB_KNOTE_STREAM) {
        struct tb_stream *stream = place->owner;
        stream->blocked = false;
        tb_stream_ended(stream, error);
    } else if (place->kind == TB_KNOTE_LISTENER) {
        tb_accepted(place->owner, error);
    } else if (place->kind == TB_KNOTE_ALARM) {
        struct tb_alarm *alarm = place->owner;
        tb_knotes_free_alarm(&state->knotes, alarm->slot);
        tb_alarm_keep(alarm);
    } else {
        int kind = change->filter == EVFILT_WRITE ? TB_EV_WRITABLE : TB_EV_READABLE;
        tb_emit(engine, (uint32_t)kind, change->ident, error);
    }
}

/* Without a wait: nothing is harvested. */
static void hand_over(struct tb_engine *engine)
{
    struct kqueue_state *state = engine->state;
    struct kevent changes[TB_CHANGES_OF_A_PLACE];
    while (state->knotes.queued) {
        int count = tb_knotes_changes(&state->knotes, changes, TB_CHANGES_OF_A_PLACE, tb_clock());
        for (int i = 0; i < count; i++) {
            int error = change_now(state, changes[i]);
            if (error < 0)
                refused(engine, &changes[i], error);
        }
    }
}

static void want(struct tb_engine *engine, enum tb_places which, uint32_t index, int side,
                 uint8_t mode)
{
    struct kqueue_state *state = engine->state;
    tb_knotes_want(&state->knotes, which, index, side, mode);
    if (engine->guest && !engine->turning)
        hand_over(engine);
}

/* The descriptor is now a stream's or a listener's. Who still watches it may look for himself. */
static void claim(struct tb_engine *engine, int fd, void *owner, enum tb_knote_kind kind)
{
    struct kqueue_state *state = engine->state;
    struct tb_place *place = tb_knotes_at(&state->knotes, TB_DESCRIPTORS, (uint32_t)fd);
    if (place->owner == owner)
        return;
    for (int side = 0; side < 2; side++)
        if (place->side[side].want) {
            place->side[side].want = TB_KNOTE_NONE;
            tb_emit(engine, side == TB_SIDE_WRITE ? TB_EV_WRITABLE : TB_EV_READABLE, (uint64_t)fd, 0);
        }
    place->owner = owner;
    place->kind = (uint8_t)kind;
}

static void forget(struct tb_engine *engine, int fd, const void *owner)
{
    struct kqueue_state *state = engine->state;
    struct tb_place *place = tb_knotes_find(&state->knotes, TB_DESCRIPTORS, (uint64_t)fd);
    if (place && place->owner == owner)
        tb_knotes_forget(place);
}

/* ---------------------------------------------------------------- streams */

static int kqueue_receive_start(struct tb_stream *stream)
{
    claim(stream->engine, stream->fd, stream, TB_KNOTE_STREAM);
    want(stream->engine, TB_DESCRIPTORS, (uint32_t)stream->fd, TB_SIDE_READ, TB_KNOTE_STAYS);
    return 0;
}

static void kqueue_receive_stop(struct tb_stream *stream)
{
    want(stream->engine, TB_DESCRIPTORS, (uint32_t)stream->fd, TB_SIDE_READ, TB_KNOTE_NONE);
}

static int kqueue_send_later(struct tb_stream *stream)
{
    claim(stream->engine, stream->fd, stream, TB_KNOTE_STREAM);
    want(stream->engine, TB_DESCRIPTORS, (uint32_t)stream->fd, TB_SIDE_WRITE, TB_KNOTE_ONCE);
    return 0;
}

static void kqueue_forget_stream(struct tb_stream *stream)
{
    forget(stream->engine, stream->fd, stream);
    tb_stream_gone(stream);
}

static void stream_readable(struct tb_engine *engine, struct tb_stream *stream)
{
    struct kqueue_state *state = engine->state;
    if (stream->wanted)
        tb_ready_receive(stream, state->scratch);
}

static void stream_writable(struct tb_engine *engine, struct tb_stream *stream)
{
    struct pollfd room = {.fd = stream->fd, .events = POLLOUT};
    if (!stream->blocked)
        return;
    /* Stale? A send finds out by itself; who only waits for room would be told what is not true. */
    if (!stream->out.first && poll(&room, 1, 0) == 0) {
        kqueue_send_later(stream);
        return;
    }
    tb_stream_unblocked(stream);
    tb_ready_flush(engine);
}

/* ---------------------------------------------------------------- listeners */

static int kqueue_accept_start(struct tb_listener *listener)
{
    claim(listener->engine, listener->fd, listener, TB_KNOTE_LISTENER);
    want(listener->engine, TB_DESCRIPTORS, (uint32_t)listener->fd, TB_SIDE_READ, TB_KNOTE_STAYS);
    return 0;
}

static void kqueue_accept_stop(struct tb_listener *listener)
{
    want(listener->engine, TB_DESCRIPTORS, (uint32_t)listener->fd, TB_SIDE_READ, TB_KNOTE_NONE);
}

static void kqueue_forget_listener(struct tb_listener *listener)
{
    forget(listener->engine, listener->fd, listener);
    tb_listener_gone(listener);
}

/* ---------------------------------------------------------------- watches */

static int kqueue_watch(struct tb_engine *engine, int fd, bool write)
{
    struct kqueue_state *state = engine->state;
    struct tb_place *place = tb_knotes_at(&state->knotes, TB_DESCRIPTORS, (uint32_t)fd);
    if (place->owner) /* a kqueue holds one interest of a kind in a descriptor, and it is taken */
        return -EBUSY;
    place->kind = TB_KNOTE_WATCH;
    want(engine, TB_DESCRIPTORS, (uint32_t)fd, write, TB_KNOTE_ONCE);
    return 0;
}

static void kqueue_unwatch(struct tb_engine *engine, int fd, bool write)
{
    struct kqueue_state *state = engine->state;
    struct tb_place *place = tb_knotes_find(&state->knotes, TB_DESCRIPTORS, (uint64_t)fd);
    if (place && place->kind == TB_KNOTE_WATCH)
        want(engine, TB_DESCRIPTORS, (uint32_t)fd, write, TB_KNOTE_NONE);
}

/* The knotes go now: a later deletion could find the number in other hands. */
static void kqueue_release(struct tb_engine *engine, int fd)
{
    struct kqueue_state *state = engine->state;
    struct tb_place *place = tb_knotes_find(&state->knotes, TB_DESCRIPTORS, (uint64_t)fd);
    if (!place || place->kind != TB_KNOTE_WATCH)
        return;
    for (int side = 0; side < 2; side++)
        if (place->side[side].have)
            change_now(state, tb_kevent((uint64_t)fd, side ? EVFILT_WRITE : EVFILT_READ, EV_DELETE,
                                        0, 0, 0));
    tb_knotes_forget(place);
}

/* ---------------------------------------------------------------- alarms and signals */

static int kqueue_alarm_set(struct tb_alarm *alarm)
{
    struct kqueue_state *state = alarm->engine->state;
    alarm->slot = tb_knotes_new_alarm(&state->knotes);
    struct tb_place *place = tb_knotes_at(&state->knotes, TB_ALARMS, alarm->slot);
    place->owner = alarm;
    place->kind = TB_KNOTE_ALARM;
    want(alarm->engine, TB_ALARMS, alarm->slot, TB_SIDE_TIMER, TB_KNOTE_ONCE);
    return 0;
}

static void kqueue_alarm_clear(struct tb_alarm *alarm)
{
    struct kqueue_state *state = alarm->engine->state;
    want(alarm->engine, TB_ALARMS, alarm->slot, TB_SIDE_TIMER, TB_KNOTE_NONE);
    tb_knotes_free_alarm(&state->knotes, alarm->slot);
}

static void timer_fired(struct tb_engine *engine, struct tb_alarm *alarm)
{
    struct kqueue_state *state = engine->state;
    if (engine->now < alarm->when) {
        want(engine, TB_ALARMS, alarm->slot, TB_SIDE_TIMER, TB_KNOTE_ONCE);
        return;
    }
    tb_knotes_free_alarm(&state->knotes, alarm->slot);
    tb_alarm_rings(alarm);
}

static int kqueue_signal_start(struct tb_engine *engine, int number)
{
    struct kqueue_state *state = engine->state;
    if (number <= 0 || number >= SIGNALS)
        return -EINVAL;
    uintptr_t udata = tb_knote_udata(++state->signals[number].generation, TB_KNOTE_SIGNAL);
    int error = change_now(state, tb_kevent((uint64_t)number, EVFILT_SIGNAL, EV_ADD, 0, 0, udata));
    state->signals[number].on = !error;
    return error;
}

static void kqueue_signal_stop(struct tb_engine *engine, int number)
{
    struct kqueue_state *state = engine->state;
    if (number <= 0 || number >= SIGNALS || !state->signals[number].on)
        return;
    state->signals[number].on = false;
    change_now(state, tb_kevent((uint64_t)number, EVFILT_SIGNAL, EV_DELETE, 0, 0, 0));
}

static void signal_came(struct tb_engine *engine, const struct kevent *event)
{
    const struct kqueue_state *state = engine->state;
    if (event->ident >= SIGNALS || !state->signals[event->ident].on)
        return;
    uint32_t generation = state->signals[event->ident].generation;
    if ((uintptr_t)event->udata != tb_knote_udata(generation, TB_KNOTE_SIGNAL))
        return;
    int count = event->data > INT32_MAX ? INT32_MAX : (int)event->data;
    tb_signalled(engine, (int)event->ident, count);
}

/* ---------------------------------------------------------------- the turn */

static void knote_fired(struct tb_engine *engine, const struct kevent *event)
{
    struct kqueue_state *state = engine->state;
    struct tb_knote *knote = tb_knotes_of(&state->knotes, event);
    if (!knote)
        return;
    const struct tb_place *place = tb_knotes_place(&state->knotes, event);
    bool write = event->filter == EVFILT_WRITE, wanted = knote->want;
    if (knote->have == TB_KNOTE_ONCE)
        knote->want = knote->have = TB_KNOTE_NONE;
    if (!wanted)
        return; /* no longer, since something else in this batch */
    if (place->kind == TB_KNOTE_ALARM)
        timer_fired(engine, place->owner);
    else if (place->kind == TB_KNOTE_LISTENER)
        tb_ready_accept(place->owner);
    else if (place->kind == TB_KNOTE_WATCH)
        tb_emit(engine, write ? TB_EV_WRITABLE : TB_EV_READABLE, event->ident, 0);
    else if (write)
        stream_writable(engine, place->owner);
    else
        stream_readable(engine, place->owner);
}

/* Whether it was a refusal: what is ready has then not been reported. */
static bool dispatch(struct tb_engine *engine, const struct kevent *event)
{
    if (event->flags & EV_ERROR) {
        if (event->data)
            refused(engine, event, -(int)event->data);
        return true;
    }
    uint32_t kind = tb_knote_kind_of(event);
    if (kind == TB_KNOTE_WAKE)
        tb_woken(engine);
    else if (kind == TB_KNOTE_SIGNAL)
        signal_came(engine, event);
    else
        knote_fired(engine, event);
    return false;
}

static int wait_once(struct tb_engine *engine, int64_t timeout_ns, bool *again)
{
    struct kqueue_state *state = engine->state;
    int changes = tb_knotes_changes(&state->knotes, state->changes, BATCH, tb_clock());
    *again = state->knotes.queued;
    if (*again)
        timeout_ns = 0;
    if (timeout_ns > LONGEST_WAIT)
        timeout_ns = LONGEST_WAIT;
    struct timespec limit = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                             .tv_nsec = (long)(timeout_ns % 1000000000)};
    int count = kevent(state->fd, state->changes, changes, state->events, BATCH,
                       timeout_ns < 0 ? NULL : &limit);
    engine->now = tb_clock();
    engine->counters.turns++;
    engine->counters.submissions += (uint64_t)changes;
    if (count < 0)
        return -errno;
    engine->counters.completions += (uint64_t)count;
    for (int i = 0; i < count; i++)
        *again |= dispatch(engine, &state->events[i]);
    return 0;
}

static int kqueue_turn(struct tb_engine *engine, int64_t timeout_ns)
{
    uint32_t before = engine->event_count;
    int error;
    bool again;
    tb_ready_flush(engine);
    do
        error = wait_once(engine, engine->event_count != before ? 0 : timeout_ns, &again);
    while (!error && again);
    if (engine->guest)
        hand_over(engine); /* what this turn wanted: the next wait is somebody else's */
    return error;
}

const struct tb_driver tb_driver_kqueue = {
    .name = "kqueue",
    .open = kqueue_open,
    .close = kqueue_close,
    .turn = kqueue_turn,
    .descriptor = kqueue_descriptor,
    .watch = kqueue_watch,
    .unwatch = kqueue_unwatch,
    .release = kqueue_release,
    .accept_start = kqueue_accept_start,
    .accept_stop = kqueue_accept_stop,
    .receive_start = kqueue_receive_start,
    .receive_stop = kqueue_receive_stop,
    .send_later = kqueue_send_later,
    .forget_stream = kqueue_forget_stream,
    .forget_listener = kqueue_forget_listener,
    .give_back = tb_ready_give_back,
    .alarm_set = kqueue_alarm_set,
    .alarm_clear = kqueue_alarm_clear,
#ifdef EVFILT_USER
    .wake = kqueue_wake,
#endif
    .signal_start = kqueue_signal_start,
    .signal_stop = kqueue_signal_stop,
};
#endif
