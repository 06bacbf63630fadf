/* Inside the simulator of kqueue(2). See kqueue_sim.c. */
#ifndef KQUEUE_SIM_H
#define KQUEUE_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/event.h"
#undef close
int close(int fd); /* the true one: build.py renames it in unistd.h */

#define PUBLIC __attribute__((visibility("default")))

struct knote {
    struct knote *next;     /* in its bucket */
    uintptr_t ident;
    short filter;
    unsigned short flags;   /* EV_ONESHOT, EV_CLEAR, EV_DISPATCH, EV_RECEIPT, as when it was added */
    bool disabled;
    bool file;              /* a regular file, which epoll does not know */
    bool spurious;          /* mutant: will be reported although nothing is there */
    unsigned fflags;
    int64_t data;
    void *udata;
    int inner;              /* an epoll of its own, edge-triggered, in the kqueue's */
    int source;             /* a timerfd or an eventfd of ours; -1: ident is the descriptor */
    uint64_t call;          /* the call that looked at it last */
};

#define BUCKETS 1024
#define GHOSTS 8

struct kq {
    struct kq *next;
    int outer;              /* the epoll that the user takes for a kqueue */
    pid_t process;
    void *lock;
    struct knote *buckets[BUCKETS];
    uint64_t calls;
    unsigned files, spurious;
    struct kevent ghosts[GHOSTS];
    unsigned ghost_count;
};

/* kqueue_sim.c: a number high enough to leave the low ones, which tests compare, alone. */
int sim_high(int fd);
void sim_rearm(struct knote *);

/* filters.c. Attaching: 0 or an errno. */
int filter_check(const struct kevent *change);
int filter_attach(struct knote *);
void filter_detach(struct knote *);
/* A change of an existing one. */
int filter_touch(struct knote *, const struct kevent *change);
/* Whether it is to be reported, and then `event` is complete but for ident, filter and udata. */
bool filter_ready(struct knote *, uint32_t epoll_events, struct kevent *event);

/* signals.c */
int signal_attach(int number, int eventfd);
void signal_detach(int number, int eventfd);
/* kqueue_sim_signals_hook(): whoever set a handler since replaced ours. Puts ours before it again. */

/* mutants.c: which are on, from the environment variable TB_KQUEUE_MUTANT (names, with commas). */
enum mutant {
    /* What a kernel may do: */
    MUTANT_STALE, MUTANT_GHOSTS, MUTANT_KEEP_ADD, MUTANT_SHORT, MUTANT_NO_RECEIPTS, MUTANT_SHUFFLE,
    MUTANT_EINTR, MUTANT_EARLY_TIMER, MUTANT_FEW_TIMERS,
    /* What none may: */
    MUTANT_CLOSE_KEEPS, MUTANT_NO_EOF, MUTANT_ONESHOT_STAYS, MUTANT_LEVEL_ONCE, MUTANT_DELETE_IGNORED,
    MUTANT_LAST_CHANGE_LOST, MUTANT_TRIGGER_LOST,
    MUTANTS,
};
void mutants_read(void);
bool mutant(enum mutant);
/* True once in so many calls, the same calls in every run. */
bool mutant_now(enum mutant, unsigned once_in);
void mutant_shuffle(struct kevent *events, int count);
/* Remembers an interest that ended, to report it once more later. */
void mutant_bury(struct kq *, const struct knote *);
int mutant_ghosts(struct kq *, struct kevent *events, int count, int room);

#endif
