/* The engine: what waits for the kernel, and moves bytes while it waits.
 *
 *   driver_*.c     one kernel mechanism each: struct tb_driver below is all that they offer
 *   readiness.c    what two of them share
 *   engine.c       the wait: turns of the driver until Python has something to decide; events; time
 *   listener.c     connections accepted and not yet taken, those that have not said anything too
 *   stream.c       a connected socket: bytes received and not yet taken, bytes on their way out
 *   alarm.c        a time at which somebody wants to be woken
 *   relay.c        two streams joined          multiplexer.c   many clients over few servers
 *                                              members.c       the same, as Python handles them
 *
 * Everything runs in one thread, the one that calls tb_wait() (in guest mode: the host's), except
 * tb_engine_wake() and tb_engine_poll(), which any thread may call.
 *
 * The seam is shaped like completion, because readiness can imitate completion and not the reverse.
 * Bytes that a driver received are LENT: they stay valid until the driver has flushed the streams
 * they were queued on, within the same turn. What cannot be sent by then is copied to the heap, so a
 * slow reader holds memory of its own (bounded by its high-water mark) and never a driver's buffer.
 *
 * A stream's memory outlives its close until the driver says that the kernel holds nothing of it
 * (tb_stream_gone): its address in a completion is therefore never that of a later stream. Watched
 * descriptors, which do get reused at once, carry a generation instead.
 */
#ifndef TB_ENGINE_H
#define TB_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "framing.h"

#define TB_BUFFER_SIZE 8192      /* bytes of one lent buffer (io_uring) */
#define TB_BUFFER_COUNT 512      /* how many of them; a power of two */
#define TB_MAX_IOV 64            /* segments of one send */
#define TB_WHY 256               /* bytes of an explanation, with its NUL */
#define TB_BUCKETS 40            /* powers of two of microseconds */

struct tb_engine;
struct tb_stream;
struct tb_listener;
struct tb_mux;
struct tb_member;

/* ---------------------------------------------------------------- events, for Python to read */

enum tb_event_kind {
    TB_EV_READABLE = 1, /* a watched descriptor (handle); value: 0 or a negative errno */
    TB_EV_WRITABLE,
    TB_EV_ACCEPTED,     /* a listener (handle) has streams to take; value: 0 or a negative errno */
    TB_EV_RECEIVED,     /* a stream (handle) has bytes or its end, and someone waits for them */
    TB_EV_SENT,         /* a stream (handle) has room to send again, or failed */
    TB_EV_CLIENT,       /* a multiplexer's client (handle); value: enum tb_client_news */
    TB_EV_SERVER,       /* a multiplexer's server (handle); value: enum tb_server_news */
    TB_EV_STARVED,      /* a multiplexer (handle): clients wait and no server is idle */
    TB_EV_RELAYED,      /* a relay (handle of its older stream) is over; value: 0 or -errno */
    TB_EV_WOKEN,        /* tb_engine_wake() was called */
    TB_EV_ALARM,        /* an alarm's (handle) time has come */
    TB_EV_SIGNAL,       /* a signal (minus its number) was sent so many times (value) */
};

#define TB_EVENTS_AT_FIRST 1024 /* room for them; it grows, and moves, when there are more */

struct tb_event {
    int64_t what; /* the value (signed) times 2^32, plus the kind */
    int64_t handle;
};

/* ---------------------------------------------------------------- bytes */

struct tb_segment {
    struct tb_segment *next;
    uint8_t *bytes;    /* the first byte not yet sent or taken */
    uint32_t length;   /* how many there are */
    uint32_t room;     /* heap only: how many more fit behind them */
    int32_t lent;      /* the driver's number of a lent buffer, or TB_OWN */
};
#define TB_OWN (-1)

struct tb_queue {
    struct tb_segment *first, *last;
    size_t bytes;
};

/* Received bytes on their way through an owner, which may take the buffer (once) or copy. */
struct tb_lent {
    uint8_t *bytes;
    size_t length;
    int32_t number;
    bool taken;
};

/* ---------------------------------------------------------------- streams */

/* Who gets what a stream receives; NULL: Python, through tb_stream_receive(). */
struct tb_owner {
    void (*received)(struct tb_stream *, struct tb_lent *);
    void (*ended)(struct tb_stream *);   /* end of file (recv_error 0) or an error, either way */
    void (*drained)(struct tb_stream *); /* the output fell below the low-water mark */
};

struct tb_stream {
    struct tb_engine *engine;
    const struct tb_owner *owner;
    struct tb_stream *peer;     /* relay.c */
    uint64_t relayed;           /* bytes of this one that its peer was given */
    struct tb_member *member;   /* multiplexer.c */
    struct tb_listener *listener; /* listener.c, until it is taken */
    struct tb_stream *queue_prev, *queue_next;
    int64_t since;
    struct tb_stream *dirty_next, *prev, *next;
    struct tb_queue in, out;
    uint64_t token;
    uint32_t high_water;
    int fd;
    int error;                  /* negative errno of a failed receive or send; 0 */
    int failing;                /* an error that is told at the next flush, between other things */
    uint32_t driver_bits;       /* driver: what the kernel has been asked for */
    bool wanted;                /* someone wants its bytes */
    bool ended;                 /* nothing more will be received */
    bool dirty;                 /* on the list of streams to flush */
    bool blocked;               /* the kernel took no more; waiting for room */
    bool choked;                /* output above the high-water mark, not yet below the low one */
    bool reader_waits, sender_waits; /* Python does */
    bool closed;
};

struct tb_line { /* of streams that nobody has taken yet, oldest first */
    struct tb_stream *first, *last;
    uint32_t count;
};

struct tb_listener {
    struct tb_engine *engine;
    struct tb_listener *prev, *next;
    struct tb_line silent, ready;
    uint64_t token;
    int64_t patience;      /* ns that a connection may be silent; 0: for ever */
    uint64_t dropped;      /* connections closed because they were silent */
    uint32_t high_water;   /* of its connections */
    uint32_t silent_limit; /* above it the oldest silent connection gives way; 0: no limit */
    int fd;
    uint32_t driver_bits;
    bool until_data;       /* a connection is offered when it has sent something, not before */
    bool wanted, told, closed;
    bool resting;          /* not accepting until those that are ready have been taken */
};

struct tb_alarm {
    struct tb_engine *engine;
    uint64_t token;
    int64_t when;       /* ns of CLOCK_MONOTONIC */
    uint32_t place;     /* in the heap, from 1; 0: not there */
    uint32_t slot;      /* the driver's */
    bool set;
};

/* ---------------------------------------------------------------- the seam */

#if defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__) || \
    defined(__DragonFly__) || defined(__APPLE__) || defined(TB_KQUEUE_SIM)
#define TB_HAVE_KQUEUE 1
#endif

struct tb_driver {
    const char *name;
    /* 0, or a negative errno and the reason in engine->why. */
    int (*open)(struct tb_engine *, bool guest);
    void (*close)(struct tb_engine *);
    /* Flush what is dirty, wait at most so long (negative: for ever), hand up what happened.
     * 0, or a negative errno (-EINTR: a signal came). */
    int (*turn)(struct tb_engine *, int64_t timeout_ns);
    /* Pollable: readable when a turn would find something to do. */
    int (*descriptor)(struct tb_engine *);
    /* One-shot watch of a descriptor that is not ours; 0 or a negative errno. */
    int (*watch)(struct tb_engine *, int fd, bool write);
    void (*unwatch)(struct tb_engine *, int fd, bool write);
    /* The descriptor is about to be closed: unwatch it, and return only when the kernel keeps no
     * reference to it (else its peer would not see the end). */
    void (*release)(struct tb_engine *, int fd);
    int (*accept_start)(struct tb_listener *);
    void (*accept_stop)(struct tb_listener *);
    int (*receive_start)(struct tb_stream *);
    void (*receive_stop)(struct tb_stream *);
    /* The stream is blocked: flush it when the kernel has room. */
    int (*send_later)(struct tb_stream *);
    /* Let go of everything; then tb_stream_gone() / tb_listener_gone(), now or later. */
    void (*forget_stream)(struct tb_stream *);
    void (*forget_listener)(struct tb_listener *);
    /* A lent buffer is free again. */
    void (*give_back)(struct tb_engine *, int32_t number);

    /* May be NULL, both: alarms are then kept by alarm.c, which limits how long a turn waits. Else the
     * kernel's own timer calls tb_alarm_rings(), once, not before alarm->when. */
    int (*alarm_set)(struct tb_alarm *);
    void (*alarm_clear)(struct tb_alarm *);
    /* May be NULL: a pipe is then made, and the driver watches engine->wake_fd for tb_woken(). Else
     * the kernel's own way to end a turn, with tb_woken(), from any thread. 0 or a negative errno. */
    int (*wake)(struct tb_engine *);
    /* May be NULL, both, where the kernel does not tell of signals without taking them away from
     * those who handle them. Else each report calls tb_signalled(). */
    int (*signal_start)(struct tb_engine *, int number);
    void (*signal_stop)(struct tb_engine *, int number);
    /* May be NULL: brings those of engine->counters up to date that the driver keeps to itself. */
    void (*count)(struct tb_engine *);
};

extern const struct tb_driver tb_driver_io_uring, tb_driver_epoll, tb_driver_kqueue;

/* ---------------------------------------------------------------- the engine */

enum tb_huge_pages { /* what is wanted for the buffers; in the counters: what was got */
    TB_HUGE_OFF,        /* ordinary pages */
    TB_HUGE_TRY,        /* the best there is; got: transparent ones, that the kernel may split */
    TB_HUGE_ON,         /* reserved ones (hugetlbfs), or no engine */
};

struct tb_counters {
    uint64_t turns;        /* waits for the kernel */
    uint64_t submissions;  /* io_uring's entries, calls of epoll_ctl(), kevent()'s changes */
    uint64_t completions;  /* what the kernel reported: completions, epoll's events, kevents */
    uint64_t receives, sends;
    uint64_t bytes_received, bytes_sent;
    uint64_t copied;       /* bytes that had to be copied to the heap */
    uint64_t blocked;      /* sends that found the kernel's buffer full */
    uint64_t starved;      /* io_uring: receives that found no buffer */
    uint64_t overflows;    /* io_uring: completions that had to be fetched from the overflow list */
    uint64_t heap;         /* bytes now held on the heap for all streams */
    uint64_t buffers, lent; /* that the kernel receives into, all and those not given back yet */
    uint64_t huge_bytes;   /* of huge pages under the buffers */
    uint64_t huge_pages;   /* enum tb_huge_pages: of which kind they are */
};

struct tb_engine {
    const struct tb_driver *driver;
    void *state;                 /* the driver's */
    struct tb_stream *streams, *dirty;
    struct tb_listener *listeners;
    struct tb_mux *muxes;
    struct tb_alarm **alarms;    /* a heap, the earliest first; alarms[0] is not used */
    uint32_t alarm_count, alarm_room;
    struct tb_segment *spare;    /* headers of lent segments, kept for reuse */
    struct tb_event *events;
    uint32_t event_count, event_room;
    uint32_t patient_count;      /* of these, those that do not end a wait by themselves */
    uint64_t next_token;
    int64_t now;                 /* ns, CLOCK_MONOTONIC, read once a turn */
    int64_t check_at;            /* when something may have to be timed out */
    struct tb_counters counters;
    int wake_fd, wake_write_fd;  /* a pipe, or -1 where the driver can wake */
    bool guest, turning;         /* turning: within tb_wait() */
    enum tb_huge_pages huge_pages; /* wanted */
    char why[TB_WHY];
};

/* Makes an engine on the named driver, or returns NULL and says why in `why`. */
struct tb_engine *tb_engine_new(const char *driver, bool guest, int huge_pages, char *why,
                                size_t why_size);
void tb_engine_free(struct tb_engine *);

/* Turns until there are events or the time is up (negative: never; 0: one look). Returns how many
 * events there are, or -EINTR when a signal came first. The caller reads and then clears them. */
int tb_wait(struct tb_engine *, int64_t timeout_ns);
const struct tb_event *tb_events(const struct tb_engine *);
void tb_events_clear(struct tb_engine *);
/* Any thread: waits until tb_wait(…, 0) would find something. 1, 0 (time is up) or -errno. */
int tb_engine_poll(int descriptor, int64_t timeout_ns);
int tb_engine_descriptor(struct tb_engine *);
int tb_engine_wake(struct tb_engine *);

int tb_watch(struct tb_engine *, int fd, bool write);
void tb_unwatch(struct tb_engine *, int fd, bool write);
void tb_release(struct tb_engine *, int fd);
int64_t tb_next_check(const struct tb_engine *); /* ns of CLOCK_MONOTONIC; INT64_MAX: never */
const struct tb_counters *tb_engine_counters(struct tb_engine *);

/* For the drivers and the layers above them. */
void tb_emit(struct tb_engine *, uint32_t kind, uint64_t handle, int value);
/* The same, for what may wait a little for company: Python is woken less often. */
void tb_emit_patiently(struct tb_engine *, uint32_t kind, uint64_t handle, int value);
void tb_check_before(struct tb_engine *, int64_t when);
int64_t tb_clock(void);
/* Something is to be done by the next turn, which in guest mode another thread may be waiting for. */
void tb_nudge(struct tb_engine *);
void tb_woken(struct tb_engine *); /* tb_engine_wake() was called: empties the pipe */
void *tb_alloc(size_t size); /* zeroed; ends the process when there is no memory */

/* ---------------------------------------------------------------- alarms and signals */

struct tb_alarm *tb_alarm_new(struct tb_engine *);
void tb_alarm_free(struct tb_alarm *);
uint64_t tb_alarm_token(const struct tb_alarm *);
/* TB_EV_ALARM, once, when the clock has reached `when`. Set again, the former time counts no more. */
int tb_alarm_set(struct tb_alarm *, int64_t when);
void tb_alarm_clear(struct tb_alarm *);
/* For drivers and engine.c. */
void tb_alarm_rings(struct tb_alarm *);
/* The driver has no timer for an alarm that is set: alarm.c keeps it after all. */
void tb_alarm_keep(struct tb_alarm *);
void tb_alarms_check(struct tb_engine *);

/* 0; -ENOSYS where the driver does not tell of signals; or another negative errno. */
int tb_signal_start(struct tb_engine *, int number);
void tb_signal_stop(struct tb_engine *, int number);
void tb_signalled(struct tb_engine *, int number, int count);

/* ---------------------------------------------------------------- listeners and streams */

/* until_data: a connection is offered when it has sent something (or ended); before, it costs no more
 * than a stream, however many there are. */
struct tb_listener *tb_listener_new(struct tb_engine *, int fd, uint32_t high_water,
                                    bool until_data);
void tb_listener_limit_silent(struct tb_listener *, uint32_t count, int64_t patience_ns);
uint64_t tb_listener_dropped(const struct tb_listener *);
int tb_listener_want(struct tb_listener *, bool);
/* The connection that has been ready longest, or NULL; it is the caller's. */
struct tb_stream *tb_listener_take(struct tb_listener *);
void tb_listener_close(struct tb_listener *);
uint64_t tb_listener_token(const struct tb_listener *);
void tb_listener_gone(struct tb_listener *);
void tb_accepted(struct tb_listener *, int fd_or_error);
void tb_listener_forget(struct tb_stream *); /* the stream is being closed untaken */
void tb_listener_check(struct tb_listener *); /* engine.c: silent connections whose time is up */

/* The descriptor must be non-blocking already. */
struct tb_stream *tb_stream_new(struct tb_engine *, int fd, uint32_t high_water);
uint64_t tb_stream_token(const struct tb_stream *);
int tb_stream_fd(const struct tb_stream *);
/* The most that is there already: bytes, 0 at the end, -EAGAIN, or another negative errno.
 * After -EAGAIN an event TB_EV_RECEIVED tells when to try again. */
int64_t tb_stream_receive(struct tb_stream *, uint8_t *bytes, size_t n);
/* Puts bytes back before those that were received behind them. */
void tb_stream_put_back(struct tb_stream *, const uint8_t *bytes, size_t n);
/* Takes all n bytes. 0; 1: wait for TB_EV_SENT before sending more; or a negative errno. */
int tb_stream_send(struct tb_stream *, const uint8_t *bytes, size_t n);
/* Python no longer waits (cancelled). */
void tb_stream_stop_waiting(struct tb_stream *, bool sender);
int tb_stream_shutdown_send(struct tb_stream *);
/* Closes at once; what the kernel does not take now is lost. The pointer is dead afterwards. */
void tb_stream_close(struct tb_stream *);
size_t tb_stream_unsent(const struct tb_stream *); /* bytes that the kernel has not taken yet */
size_t tb_stream_received_bytes(const struct tb_stream *); /* and not yet taken */
int tb_stream_error(const struct tb_stream *);             /* negative errno, or 0 */
bool tb_stream_wait_room(struct tb_stream *);              /* true: wait for TB_EV_SENT */

/* For drivers. */
void tb_stream_received(struct tb_stream *, uint8_t *bytes, size_t n, int32_t number);
void tb_stream_ended(struct tb_stream *, int error);
/* What to send now: fills iov, returns how many segments; 0: nothing. */
int tb_stream_gather(struct tb_stream *, struct iovec *iov, size_t *total);
/* The kernel took n of them (0: would block), or error < 0. Keeps or copies the rest. */
void tb_stream_settle(struct tb_stream *, size_t gathered, int64_t result);
/* There is room again for a stream that asked for send_later(). */
void tb_stream_unblocked(struct tb_stream *);
struct tb_stream *tb_take_dirty(struct tb_engine *);
void tb_stream_gone(struct tb_stream *);

/* For owners. */
void tb_stream_want(struct tb_stream *, bool);
void tb_stream_push(struct tb_stream *, struct tb_lent *, size_t n); /* the first n go out */
void tb_stream_push_copy(struct tb_stream *, const uint8_t *, size_t n);
/* Moves the first n bytes that `from` received and nobody took to the output of `to`. */
void tb_stream_move(struct tb_stream *from, struct tb_stream *to, size_t n);
void tb_stream_mark_dirty(struct tb_stream *);
void tb_queue_copy(struct tb_engine *, struct tb_queue *, const uint8_t *, size_t);
void tb_queue_drop(struct tb_engine *, struct tb_queue *, size_t);
/* Gives a stream back to Python: nobody owns it, it receives only when asked to. */
void tb_stream_disown(struct tb_stream *);

/* ---------------------------------------------------------------- relay */

/* Joins two streams until both have ended; the bytes each already holds go first. 0, or -EINVAL: they
 * are the same, or -EBUSY: one of them is joined already. */
int tb_relay(struct tb_stream *a, struct tb_stream *b);
/* How many bytes a stream's peer was given of it by the last relay. */
uint64_t tb_relayed(const struct tb_stream *);
/* Parts them; both are Python's again. */
void tb_relay_stop(struct tb_stream *a);
/* The same, because one of them is being closed: TB_EV_RELAYED. */
void tb_relay_break(struct tb_stream *a);

/* ---------------------------------------------------------------- multiplexer */

enum tb_client_news {
    TB_CLIENT_LEFT = 1,        /* said goodbye */
    TB_CLIENT_ENDED,           /* its connection ended or broke without a goodbye */
    TB_CLIENT_VIOLATION,       /* tb_member_why() says how */
    TB_CLIENT_SERVER_LOST,     /* tb_member_words(): what it heard last */
    TB_CLIENT_WAITED,          /* longer than the wait limit */
    TB_CLIENT_IDLE,            /* longer than the idle limit */
    TB_CLIENT_OPEN,            /* idle longer than its limit with something open on its server */
    TB_CLIENT_APART,           /* asked to leave when it may, and it may */
    TB_CLIENT_DISMISSED,       /* no server is to be had for it */
    TB_CLIENT_REFUSED,         /* it did what the framing does not allow; tb_member_why() */
};

enum tb_server_news {
    TB_SERVER_LOST = 1,        /* its connection ended or broke */
    TB_SERVER_VIOLATION,       /* tb_member_why() says how */
    TB_SERVER_SPOKE,           /* it has bytes although nothing was asked */
    TB_SERVER_ORPHANED,        /* its client is gone: tb_member_standing() tells what is left behind */
    TB_SERVER_IDLE,            /* longer than the idle limit */
    TB_SERVER_RETIRED,         /* asked to retire when free, and it is */
    TB_SERVER_ASKED,           /* the framing wants to know of it before it parts from its client */
    TB_SERVER_UNFIT,           /* tb_member_why(): it could not serve its client; others may */
};

struct tb_mux_limits { /* nanoseconds; 0: no limit */
    int64_t wait, client_idle, open_idle, server_idle;
};

struct tb_mux_stats {
    uint32_t clients, waiting, joined;      /* now */
    uint32_t servers, servers_idle, servers_parked;
    int64_t longest_wait;                   /* ns, of those who wait now */
    uint64_t transactions, requests, waits; /* since the start */
    uint64_t wait_ns, busy_ns;
    uint64_t bytes_from_clients, bytes_from_servers;
    uint64_t wait_histogram[TB_BUCKETS], busy_histogram[TB_BUCKETS];
};

/* sticky: a server stays with its client until the client leaves. option: for the framing. */
struct tb_mux *tb_mux_new(struct tb_engine *, const struct tb_framing *, bool sticky,
                          uint64_t option);
void tb_mux_free(struct tb_mux *); /* every member must have been removed */
uint64_t tb_mux_token(const struct tb_mux *);
void tb_mux_limit(struct tb_mux *, const struct tb_mux_limits *);
/* Whether TB_EV_STARVED is wanted: at the limit of servers it is not. */
void tb_mux_hungry(struct tb_mux *, bool);
void tb_mux_stats(const struct tb_mux *, struct tb_mux_stats *);
uint32_t tb_mux_waiting(const struct tb_mux *);
void tb_mux_dismiss(struct tb_mux *); /* all that wait now: TB_CLIENT_DISMISSED */

/* Python's word to the framing, about all members. */
void tb_mux_tell(struct tb_mux *, const uint8_t *bytes, size_t n);
/* With what the framing is to be told of the client; n 0: nothing. */
void tb_mux_add_client(struct tb_mux *, struct tb_stream *, const uint8_t *bytes, size_t n);
void tb_mux_add_server(struct tb_mux *, struct tb_stream *);
/* The server that Python holds is clean again: let it serve. */
void tb_server_ready(struct tb_stream *);
/* What the framing has noted of the client of this server for Python. */
const uint8_t *tb_server_noted(const struct tb_stream *, size_t *n);
uint64_t tb_server_client(const struct tb_stream *); /* the token of its client, or 0 */
/* Python's word to the framing, about a server that it holds. */
void tb_server_tell(struct tb_stream *, const uint8_t *bytes, size_t n);
/* The answer to TB_SERVER_ASKED: about the client, to which `forward` is sent; the two go on. False: the
 * client has gone meanwhile, and the server is still Python's. */
bool tb_server_answer(struct tb_stream *, const uint8_t *bytes, size_t n, const uint8_t *forward,
                      size_t length);
/* Takes a stream out, whatever it is doing; it is Python's then. A client's server becomes an orphan;
 * a server's client hears that it was lost. */
void tb_mux_remove(struct tb_stream *);
/* The server stays away from other clients until released as often as held. */
void tb_server_hold(struct tb_stream *);
void tb_server_release(struct tb_stream *);
void tb_server_retire(struct tb_stream *);
/* Tells TB_CLIENT_APART as soon as nothing is open or owed. */
void tb_client_leave(struct tb_stream *);
uint64_t tb_client_server(const struct tb_stream *); /* the token of its server, or 0 */
bool tb_client_waits(const struct tb_stream *);
/* Copies the first n bytes that a stream has received and nobody took; returns how many those are. */
size_t tb_client_peek(const struct tb_stream *, uint8_t *bytes, size_t n);
/* Drops the first n bytes of a client that waits, which is Python's to answer until it resumes, but a
 * member all the same. False: it does not wait, or has sent less. */
bool tb_client_withdraw(struct tb_stream *, size_t n);
void tb_client_resume(struct tb_stream *);
const char *tb_member_why(const struct tb_stream *);
int tb_member_words(const struct tb_stream *);
int tb_member_standing(const struct tb_stream *);
/* An orphan's client had said goodbye: what it asked for is still to be done. */
bool tb_server_goodbye(const struct tb_stream *);

void tb_mux_check(struct tb_engine *); /* engine.c: time-outs */

#endif
