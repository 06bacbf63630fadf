/* kqueue(2) and kevent(2) of FreeBSD, simulated on Linux's epoll(7). For tests only.
 *
 * Each knote has an epoll of its own, edge-triggered, holding the one descriptor that it is about; the
 * kqueue is an epoll that holds all of those. What the user gets as a kqueue is therefore pollable and
 * may be watched by another. After a report, a level-triggered knote is armed again, which makes epoll
 * look anew.
 *
 * epoll identifies what it holds by file and number. So adding a number again tells, without a side
 * effect, whether it is still the file that it was: EEXIST. That is asked when a number is mentioned and
 * before an event is reported; a knote whose file was closed is then removed.
 *
 * conformance.py holds what a FreeBSD kernel printed in the same situations, and how far we are from it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

#define KEPT_FLAGS (EV_ONESHOT | EV_CLEAR | EV_DISPATCH | EV_RECEIPT)

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kq *registry;

int sim_high(int fd)
{
    struct rlimit limit;
    if (fd < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return fd;
    int base = limit.rlim_cur > 65536 ? 32768 : (int)(limit.rlim_cur / 2);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, base);
    if (high < 0)
        return fd;
    close(fd);
    return high;
}

/* ---------------------------------------------------------------- kqueues */

static void drop(struct kq *kq, struct knote *knote);

static void kq_free(struct kq *kq)
{
    for (int i = 0; i < BUCKETS; i++)
        while (kq->buckets[i])
            drop(kq, kq->buckets[i]);
    pthread_mutex_destroy(kq->lock);
    free(kq->lock);
    free(kq);
}

/* Takes it out of the registry, with the registry locked. */
static struct kq *forget(int fd)
{
    for (struct kq **link = &registry; *link; link = &(*link)->next)
        if ((*link)->outer == fd) {
            struct kq *kq = *link;
            *link = kq->next;
            return kq;
        }
    return NULL;
}

static struct kq *find_kq(int fd)
{
    pthread_mutex_lock(&registry_lock);
    struct kq *kq = registry;
    while (kq && kq->outer != fd)
        kq = kq->next;
    pthread_mutex_unlock(&registry_lock);
    return kq && kq->process == getpid() ? kq : NULL; /* a child of fork(2) inherits none */
}

PUBLIC int kqueue(void)
{
    int outer = epoll_create1(0);
    if (outer < 0)
        return -1;
    mutants_read();
    struct kq *kq = calloc(1, sizeof *kq);
    kq->lock = calloc(1, sizeof(pthread_mutex_t));
    pthread_mutex_init(kq->lock, NULL);
    kq->outer = outer;
    kq->process = getpid();
    pthread_mutex_lock(&registry_lock);
    struct kq *former = forget(outer); /* closed without our knowledge */
    kq->next = registry;
    registry = kq;
    pthread_mutex_unlock(&registry_lock);
    if (former && former->process == kq->process)
        kq_free(former);
    return outer;
}


/* ---------------------------------------------------------------- knotes */

static struct knote **bucket(struct kq *kq, uintptr_t ident, short filter)
{
    return &kq->buckets[(ident ^ (uintptr_t)(-filter) << 6) % BUCKETS];
}

static void enable(struct kq *kq, struct knote *knote, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.ptr = knote};
    knote->disabled = !on;
    epoll_ctl(kq->outer, EPOLL_CTL_MOD, knote->inner, &event);
}

static int watched(const struct knote *knote)
{
    return knote->source >= 0 ? knote->source : (int)knote->ident;
}

static uint32_t interest(const struct knote *knote)
{
    uint32_t events = knote->filter == EVFILT_WRITE ? EPOLLOUT : EPOLLIN | EPOLLRDHUP;
    return events | (uint32_t)EPOLLET;
}

/* epoll looks anew, and reports what is there already. */
void sim_rearm(struct knote *knote)
{
    struct epoll_event event = {.events = interest(knote)};
    epoll_ctl(knote->inner, EPOLL_CTL_MOD, watched(knote), &event);
}

static void drop(struct kq *kq, struct knote *knote)
{
    struct knote **link = bucket(kq, knote->ident, knote->filter);
    while (*link != knote)
        link = &(*link)->next;
    *link = knote->next;
    mutant_bury(kq, knote);
    kq->files -= knote->file;
    kq->spurious -= knote->spurious;
    filter_detach(knote);
    /* A child of fork(2) may hold the inner one open: closing ours would not take it out. */
    epoll_ctl(kq->outer, EPOLL_CTL_DEL, knote->inner, NULL);
    close(knote->inner);
    if (knote->source >= 0)
        close(knote->source);
    free(knote);
}

/* Whether the number is still the file that the knote was made for. */
static bool is_same_file(const struct knote *knote)
{
    struct epoll_event event = {.events = 0};
    if (knote->source >= 0 && !knote->file)
        return true;
    if (knote->file)
        return fcntl((int)knote->ident, F_GETFD) >= 0;
    return mutant(MUTANT_CLOSE_KEEPS) ||
           (epoll_ctl(knote->inner, EPOLL_CTL_ADD, (int)knote->ident, &event) < 0 &&
            errno == EEXIST);
}

static struct knote *find(struct kq *kq, const struct kevent *change)
{
    struct knote *knote = *bucket(kq, change->ident, change->filter);
    while (knote && (knote->ident != change->ident || knote->filter != change->filter))
        knote = knote->next;
    if (knote && !is_same_file(knote)) {
        drop(kq, knote);
        return NULL;
    }
    return knote;
}

/* Somebody else may have taken what was there: not so with the end of a process, or a kqueue. */
static bool can_go_stale(const struct knote *knote)
{
    struct stat status;
    return knote->source < 0 && knote->flags & EV_ONESHOT &&
           fstat((int)knote->ident, &status) == 0 &&
           (S_ISSOCK(status.st_mode) || S_ISFIFO(status.st_mode));
}

static int add(struct kq *kq, const struct kevent *change)
{
    struct knote *knote = calloc(1, sizeof *knote);
    struct epoll_event event = {.events = change->flags & EV_DISABLE ? 0 : EPOLLIN,
                                .data.ptr = knote};
    struct knote **head = bucket(kq, change->ident, change->filter);
    knote->ident = change->ident;
    knote->filter = change->filter;
    knote->flags = change->flags & KEPT_FLAGS;
    knote->disabled = change->flags & EV_DISABLE;
    knote->fflags = change->fflags;
    knote->data = change->data;
    knote->udata = change->udata;
    knote->source = -1;
    knote->inner = sim_high(epoll_create1(EPOLL_CLOEXEC));
    knote->next = *head;
    *head = knote;
    int error = knote->inner < 0 ? errno : filter_attach(knote);
    struct epoll_event inside = {.events = interest(knote)};
    kq->files += knote->file;
    if (!error && epoll_ctl(knote->inner, EPOLL_CTL_ADD, watched(knote), &inside) < 0)
        error = errno == EPERM ? ENODEV : errno;
    if (!error && epoll_ctl(kq->outer, EPOLL_CTL_ADD, knote->inner, &event) < 0)
        error = errno;
    if (!error && can_go_stale(knote) && mutant_now(MUTANT_STALE, 3)) {
        knote->spurious = true;
        kq->spurious++;
    }
    if (error)
        drop(kq, knote);
    return error;
}

static int change_existing(struct kq *kq, struct knote *knote, const struct kevent *change)
{
    if (change->flags & EV_DELETE) {
        if (!mutant(MUTANT_DELETE_IGNORED))
            drop(kq, knote);
        return 0;
    }
    knote->udata = change->udata;
    int error = filter_touch(knote, change);
    if (error)
        return error;
    if (change->flags & EV_ADD)
        sim_rearm(knote);
    if (change->flags & EV_DISABLE)
        enable(kq, knote, false);
    else if (change->flags & EV_ENABLE)
        enable(kq, knote, true);
    return 0;
}

static int apply(struct kq *kq, const struct kevent *change)
{
    int error = filter_check(change);
    if (error)
        return error;
    struct knote *knote = find(kq, change);
    if (knote)
        return change_existing(kq, knote, change);
    return change->flags & EV_ADD && !(change->flags & EV_DELETE) ? add(kq, change) : ENOENT;
}

/* ---------------------------------------------------------------- close */

static void drop_closed(struct kq *kq, int fd)
{
    static const short filters[] = {EVFILT_READ, EVFILT_WRITE};
    pthread_mutex_lock(kq->lock);
    for (int i = 0; i < 2; i++)
        for (struct knote *knote = *bucket(kq, (uintptr_t)fd, filters[i]), *next; knote; knote = next) {
            next = knote->next;
            if (knote->ident == (uintptr_t)fd && knote->filter == filters[i])
                drop(kq, knote);
        }
    pthread_mutex_unlock(kq->lock);
}

PUBLIC int kqueue_sim_close(int fd)
{
    pid_t process = getpid();
    pthread_mutex_lock(&registry_lock);
    struct kq *ended = forget(fd);
    for (struct kq *kq = registry; kq && !mutant(MUTANT_CLOSE_KEEPS); kq = kq->next)
        if (kq->process == process)
            drop_closed(kq, fd);
    pthread_mutex_unlock(&registry_lock);
    if (ended && ended->process == process)
        kq_free(ended);
    return close(fd);
}

/* ---------------------------------------------------------------- harvest */

static void report(struct kq *kq, struct knote *knote, struct kevent *event)
{
    event->ident = knote->ident;
    event->filter = knote->filter;
    event->udata = knote->udata;
    if (mutant(MUTANT_KEEP_ADD))
        event->flags |= EV_ADD;
    knote->spurious = false;
    if (event->flags & EV_ONESHOT && !mutant(MUTANT_ONESHOT_STAYS)) {
        drop(kq, knote);
        return;
    }
    if (event->flags & EV_DISPATCH)
        enable(kq, knote, false);
    if (!(event->flags & EV_CLEAR) && !mutant(MUTANT_LEVEL_ONCE))
        sim_rearm(knote);
}

static bool look(struct kq *kq, struct knote *knote, struct kevent *event)
{
    struct epoll_event found;
    if (!is_same_file(knote)) {
        drop(kq, knote);
        return false;
    }
    memset(event, 0, sizeof *event);
    event->flags = knote->flags;
    if (epoll_wait(knote->inner, &found, 1, 0) != 1 || !filter_ready(knote, found.events, event))
        return false;
    kq->spurious -= knote->spurious;
    report(kq, knote, event);
    return true;
}

static int harvest_spurious(struct kq *kq, struct kevent *events, int room)
{
    int count = 0;
    for (int i = 0; i < BUCKETS && kq->spurious; i++)
        for (struct knote *knote = kq->buckets[i], *next; knote && count < room; knote = next) {
            next = knote->next;
            if (!knote->spurious)
                continue;
            kq->spurious--;
            memset(&events[count], 0, sizeof *events);
            events[count].flags = knote->flags;
            events[count].data = 1;
            report(kq, knote, &events[count++]);
        }
    return count;
}

static void rearm_files(struct kq *kq)
{
    for (int i = 0; i < BUCKETS; i++)
        for (struct knote *knote = kq->buckets[i]; knote; knote = knote->next)
            if (knote->file)
                sim_rearm(knote);
}

static int harvest(struct kq *kq, struct kevent *events, int room)
{
    struct epoll_event found[64];
    uint64_t call = ++kq->calls;
    int count = 0, asked, ready;
    bool again = false;
    if (kq->files)
        rearm_files(kq);
    if (kq->spurious)
        count = harvest_spurious(kq, events, room);
    do {
        asked = room - count < 64 ? room - count : 64;
        ready = asked ? epoll_wait(kq->outer, found, asked, 0) : 0;
        for (int i = 0; i < ready; i++) {
            struct knote *knote = found[i].data.ptr;
            again |= knote->call == call; /* the round is complete */
            if (knote->call == call)
                continue;
            knote->call = call;
            count += look(kq, knote, &events[count]);
        }
    } while (ready == asked && asked && !again);
    if (mutant(MUTANT_SHUFFLE))
        mutant_shuffle(events, count);
    return mutant_ghosts(kq, events, count, room);
}

/* ---------------------------------------------------------------- the call */

/* How many refusals and receipts there are, or -1; `over`: nothing is harvested. */
static int apply_all(struct kq *kq, const struct kevent *changes, int nchanges,
                     struct kevent *events, int room, bool *over)
{
    int told = 0;
    *over = false;
    for (int i = 0; i < nchanges; i++) {
        if (i && i == nchanges - 1 && mutant(MUTANT_LAST_CHANGE_LOST))
            break;
        int error = apply(kq, &changes[i]);
        bool receipt = changes[i].flags & EV_RECEIPT && !mutant(MUTANT_NO_RECEIPTS);
        if (!error && !receipt)
            continue;
        *over = true;
        if (told == room) {
            errno = error;
            return error ? -1 : 0; /* a receipt: all are forgotten, and so is what follows */
        }
        events[told] = changes[i];
        events[told].flags = EV_ERROR | (mutant(MUTANT_KEEP_ADD) ? changes[i].flags : 0);
        events[told++].data = error;
    }
    return told;
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Until something may have happened; false: the time is up, or a signal came (errno). */
static bool sleep_until(const struct kq *kq, int64_t deadline)
{
    struct pollfd outer = {.fd = kq->outer, .events = POLLIN};
    int64_t left = deadline - now();
    struct timespec limit = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    errno = 0;
    if (left <= 0 && deadline >= 0)
        return false;
    return ppoll(&outer, 1, deadline < 0 ? NULL : &limit, NULL) > 0;
}

PUBLIC int kevent(int fd, const struct kevent *changes, int nchanges, struct kevent *events,
                  int nevents, const struct timespec *timeout)
{
    struct kq *kq = find_kq(fd);
    if (!kq || fcntl(fd, F_GETFD) < 0) {
        errno = EBADF;
        return -1;
    }
    if (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999)) {
        errno = EINVAL;
        return -1;
    }
    int64_t deadline = timeout ? now() + timeout->tv_sec * 1000000000 + timeout->tv_nsec : -1;
    int room = nevents && mutant(MUTANT_SHORT) ? 1 : nevents;
    kqueue_sim_signals_hook();
    pthread_mutex_lock(kq->lock);
    bool over, slept = true;
    int count = apply_all(kq, changes, nchanges, events, nevents, &over);
    if (!over && nevents)
        count = harvest(kq, events, room);
    while (!over && nevents && !count && slept) {
        pthread_mutex_unlock(kq->lock);
        if (!timeout && mutant_now(MUTANT_EINTR, 4)) {
            errno = EINTR;
            return -1;
        }
        slept = sleep_until(kq, deadline);
        int error = errno;
        pthread_mutex_lock(kq->lock);
        if (slept || error == EINTR)
            count = harvest(kq, events, room); /* after EINTR: the signal may be an event */
        if (!count && error)
            count = -1;
        errno = error;
    }
    int error = errno;
    pthread_mutex_unlock(kq->lock);
    errno = error;
    return count;
}
