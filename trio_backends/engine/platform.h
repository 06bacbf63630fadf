/* Where systems differ about sockets. */
#ifndef TB_PLATFORM_H
#define TB_PLATFORM_H

#include <sys/socket.h>

/* macOS knew no MSG_NOSIGNAL for long; there the socket itself is told. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Sending to a peer that is gone must be an error (EPIPE), never SIGPIPE. */
static inline void tb_no_sigpipe(int fd)
{
#ifdef __APPLE__
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#else
    (void)fd;
#endif
}

#endif
