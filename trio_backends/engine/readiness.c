#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include "platform.h"
#include "readiness.h"

#define ACCEPT_BATCH 64

void tb_ready_flush(struct tb_engine *engine)
{
    struct tb_stream *stream;
    while ((stream = tb_take_dirty(engine))) {
        struct iovec iov[TB_MAX_IOV];
        size_t total;
        struct msghdr message = {.msg_iov = iov};
        int count = tb_stream_gather(stream, iov, &total);
        if (!count)
            continue;
        message.msg_iovlen = (__typeof__(message.msg_iovlen))count;
        ssize_t sent = count == 1
                           ? send(stream->fd, iov[0].iov_base, total, MSG_DONTWAIT | MSG_NOSIGNAL)
                           : sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        tb_stream_settle(stream, total, sent < 0 ? -errno : sent);
    }
}

void tb_ready_receive(struct tb_stream *stream, uint8_t scratch[TB_SCRATCH])
{
    struct tb_engine *engine = stream->engine; /* the stream may be gone afterwards */
    ssize_t n = recv(stream->fd, scratch, TB_SCRATCH, MSG_DONTWAIT);
    if (n > 0)
        tb_stream_received(stream, scratch, (size_t)n, 0);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        tb_stream_ended(stream, n == 0 ? 0 : -errno);
    tb_ready_flush(engine);
}

static int accept_one(int listener)
{
#ifdef SOCK_NONBLOCK
    return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
#endif
}

void tb_ready_accept(struct tb_listener *listener)
{
    for (int i = 0; i < ACCEPT_BATCH && listener->wanted; i++) {
        int fd = accept_one(listener->fd);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        tb_accepted(listener, fd < 0 ? -errno : fd);
    }
}

void tb_ready_give_back(struct tb_engine *engine, int32_t number)
{
    (void)engine;
    (void)number;
}
