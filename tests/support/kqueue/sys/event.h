/* <sys/event.h> for Linux, over the simulator in kqueue_sim.c: the layout and the numbers are those of
 * FreeBSD 12 and later on 64-bit machines, see its kqueue(2). Only for tests.
 */
#ifndef KQUEUE_SIM_SYS_EVENT_H
#define KQUEUE_SIM_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    int64_t data;
    void *udata;
    uint64_t ext[4];
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_SIGNAL (-6)
#define EVFILT_TIMER (-7)
#define EVFILT_USER (-11)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000
#define NOTE_SECONDS 0x00000001
#define NOTE_MSECONDS 0x00000002
#define NOTE_USECONDS 0x00000004
#define NOTE_NSECONDS 0x00000008

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout);

/* What a kernel notices by itself, the simulator is told, or finds out late. close(2) (build.py puts it
 * in the place of close() in the engine's sources), which removes knotes and ends kqueues: */
int kqueue_sim_close(int fd);
/* and that handlers of signals were changed. */
void kqueue_sim_signals_hook(void);

#endif
