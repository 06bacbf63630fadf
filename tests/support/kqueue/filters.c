/* The filters: what each is about, when it is to be reported, and with which numbers. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "sim.h"

#define TIMERS_GRANTED 2 /* with MUTANT_FEW_TIMERS, to the whole process */

static int timers;

/* ---------------------------------------------------------------- attaching */

static bool is_descriptor(short filter)
{
    return filter == EVFILT_READ || filter == EVFILT_WRITE;
}

int filter_check(const struct kevent *change)
{
    if (is_descriptor(change->filter))
        return fcntl((int)change->ident, F_GETFD) < 0 ? EBADF : 0;
    bool known = change->filter == EVFILT_SIGNAL || change->filter == EVFILT_TIMER ||
                 change->filter == EVFILT_USER;
    return known ? 0 : EINVAL;
}

static int64_t nanoseconds(const struct knote *knote)
{
    int64_t unit = knote->fflags & NOTE_SECONDS    ? 1000000000
                   : knote->fflags & NOTE_USECONDS ? 1000
                   : knote->fflags & NOTE_NSECONDS ? 1
                                                   : 1000000;
    int64_t ns = knote->data * unit;
    if (mutant(MUTANT_EARLY_TIMER))
        ns /= 2;
    return ns < 1 ? 1 : ns; /* zero would mean never */
}

static int set_timer(struct knote *knote)
{
    if (knote->data < 0)
        return EINVAL;
    int64_t ns = nanoseconds(knote);
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    struct itimerspec timer = {.it_value = time};
    if (!(knote->flags & EV_ONESHOT))
        timer.it_interval = time;
    return timerfd_settime(knote->source, 0, &timer, NULL) < 0 ? errno : 0;
}

static int timer_attach(struct knote *knote)
{
    if (mutant(MUTANT_FEW_TIMERS) && timers >= TIMERS_GRANTED)
        return ENOMEM;
    knote->source = sim_high(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (knote->source < 0)
        return errno;
    timers++;
    knote->flags |= EV_CLEAR;
    return set_timer(knote);
}

/* epoll refuses regular files (and /dev/null). An eventfd that is always readable stands for one. */
static int file_attach(struct knote *knote)
{
    struct stat status;
    if (fstat((int)knote->ident, &status) < 0)
        return errno;
    if (!S_ISREG(status.st_mode))
        return 0;
    knote->file = true;
    knote->source = sim_high(eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
    return knote->source < 0 ? errno : 0;
}

int filter_attach(struct knote *knote)
{
    if (is_descriptor(knote->filter))
        return file_attach(knote);
    if (knote->filter == EVFILT_TIMER)
        return timer_attach(knote);
    knote->source = sim_high(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (knote->source < 0)
        return errno;
    if (knote->filter == EVFILT_USER)
        return 0;
    knote->flags |= EV_CLEAR;
    return signal_attach((int)knote->ident, knote->source);
}

void filter_detach(struct knote *knote)
{
    if (knote->filter == EVFILT_SIGNAL)
        signal_detach((int)knote->ident, knote->source);
    else if (knote->filter == EVFILT_TIMER && knote->source >= 0)
        timers--;
}

int filter_touch(struct knote *knote, const struct kevent *change)
{
    uint64_t one = 1;
    if (knote->filter == EVFILT_USER) {
        bool triggered = change->fflags & NOTE_TRIGGER && !mutant(MUTANT_TRIGGER_LOST);
        return triggered && write(knote->source, &one, sizeof one) < 0 ? errno : 0;
    }
    knote->fflags = change->fflags;
    knote->data = change->data;
    return knote->filter == EVFILT_TIMER && change->flags & EV_ADD ? set_timer(knote) : 0;
}

/* ---------------------------------------------------------------- reporting */

static int socket_option(int fd, int name)
{
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}

static bool tcp_info(int fd, struct tcp_info *info)
{
    socklen_t size = sizeof *info;
    return socket_option(fd, SO_PROTOCOL) == IPPROTO_TCP &&
           getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0;
}

static int64_t readable_bytes(int fd)
{
    struct tcp_info info;
    int bytes = 1;
    if (socket_option(fd, SO_ACCEPTCONN) > 0)
        return tcp_info(fd, &info) ? info.tcpi_unacked : 1;
    return ioctl(fd, FIONREAD, &bytes) < 0 ? 1 : bytes;
}

/* Linux says of a socket that was never connected that it hung up, FreeBSD says nothing. */
static bool never_connected(int fd)
{
    struct pollfd socket = {.fd = fd, .events = POLLRDHUP};
    return poll(&socket, 1, 0) == 1 && socket.revents == POLLHUP &&
           socket_option(fd, SO_TYPE) >= 0;
}

static bool shut_for_writing(int fd)
{
    struct tcp_info info;
    if (tcp_info(fd, &info))
        return info.tcpi_state == TCP_FIN_WAIT1 || info.tcpi_state == TCP_FIN_WAIT2 ||
               info.tcpi_state == TCP_CLOSING || info.tcpi_state == TCP_LAST_ACK;
    return socket_option(fd, SO_DOMAIN) == AF_UNIX && socket_option(fd, SO_TYPE) == SOCK_STREAM &&
           send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

static bool file_ready(const struct knote *knote, struct kevent *event)
{
    struct stat status;
    off_t place = lseek((int)knote->ident, 0, SEEK_CUR);
    if (knote->filter == EVFILT_WRITE)
        return true;
    if (fstat((int)knote->ident, &status) < 0 || place >= status.st_size)
        return false;
    event->data = status.st_size - place;
    return true;
}

static bool read_ready(const struct knote *knote, uint32_t events, struct kevent *event)
{
    int fd = (int)knote->ident;
    bool eof = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (events & EPOLLHUP && never_connected(fd))
        return false;
    event->data = readable_bytes(fd);
    if (mutant(MUTANT_NO_EOF) && eof && !event->data)
        return false;
    if (eof)
        event->flags |= EV_EOF;
    return true;
}

static bool write_ready(const struct knote *knote, uint32_t events, struct kevent *event)
{
    int fd = (int)knote->ident;
    bool socket = socket_option(fd, SO_TYPE) >= 0;
    if (events & EPOLLHUP && never_connected(fd))
        return false;
    if (events & (EPOLLHUP | EPOLLERR) || (socket && shut_for_writing(fd)))
        event->flags |= EV_EOF;
    if (!socket && event->flags & EV_EOF)
        event->flags |= EV_ONESHOT; /* a pipe that nobody reads any more */
    event->data = 1;
    return true;
}

bool filter_ready(struct knote *knote, uint32_t epoll_events, struct kevent *event)
{
    uint64_t count = 1;
    event->fflags = knote->filter == EVFILT_USER ? knote->fflags & ~NOTE_TRIGGER : 0;
    if (knote->file)
        return file_ready(knote, event);
    if (knote->filter == EVFILT_READ)
        return read_ready(knote, epoll_events, event);
    if (knote->filter == EVFILT_WRITE)
        return write_ready(knote, epoll_events, event);
    if (knote->filter == EVFILT_USER && !(knote->flags & EV_CLEAR))
        return true; /* until somebody clears it */
    if (read(knote->source, &count, sizeof count) < 0)
        return false;
    event->data = knote->filter == EVFILT_USER ? 0 : (int64_t)count;
    return true;
}
