/* EVFILT_SIGNAL: signals are counted before those who handle them see them.
 *
 * A kernel does so when it posts a signal. Here a handler is put before the one that is there, and
 * again when someone replaced it since. Each knote has an eventfd, whose value is the
 * number of signals since it was read. A signal whose default is to end the process is left alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

#define SIGNALS 65
#define LISTENERS 16

static struct {
    atomic_int eventfds[LISTENERS]; /* plus 1; 0: free */
    struct sigaction former;
    unsigned count;
} signals[SIGNALS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t process;

static void count_and_pass_on(int number, siginfo_t *info, void *context)
{
    int error = errno;
    uint64_t one = 1;
    for (int i = 0; i < LISTENERS && getpid() == process; i++) {
        int fd = atomic_load(&signals[number].eventfds[i]) - 1;
        if (fd >= 0 && write(fd, &one, sizeof one) < 0)
            continue; /* more than 2^64: still readable */
    }
    errno = error;
    const struct sigaction *former = &signals[number].former;
    if (former->sa_flags & SA_SIGINFO)
        former->sa_sigaction(number, info, context);
    else if (former->sa_handler != SIG_DFL && former->sa_handler != SIG_IGN)
        former->sa_handler(number);
}

static bool is_ignored_by_default(int number)
{
    return number == SIGCHLD || number == SIGURG || number == SIGWINCH || number == SIGCONT;
}

static void hook(int number)
{
    struct sigaction now, ours;
    if (sigaction(number, NULL, &now) < 0 ||
        (now.sa_flags & SA_SIGINFO && now.sa_sigaction == count_and_pass_on))
        return;
    bool plain = !(now.sa_flags & SA_SIGINFO);
    if (plain && now.sa_handler == SIG_DFL && !is_ignored_by_default(number))
        return;
    if (plain && now.sa_handler == SIG_IGN && number == SIGCHLD)
        return; /* kqueue(2): the one that is not recorded when it is ignored */
    signals[number].former = now;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = count_and_pass_on;
    ours.sa_flags = SA_SIGINFO | (now.sa_flags & (SA_ONSTACK | SA_RESTART));
    ours.sa_mask = now.sa_mask;
    sigaction(number, &ours, NULL);
}

PUBLIC void kqueue_sim_signals_hook(void)
{
    pthread_mutex_lock(&lock);
    for (int number = 1; number < SIGNALS && getpid() == process; number++)
        if (signals[number].count)
            hook(number);
    pthread_mutex_unlock(&lock);
}

int signal_attach(int number, int eventfd)
{
    int i = 0, error = 0;
    if (number <= 0 || number >= SIGNALS)
        return EINVAL;
    pthread_mutex_lock(&lock);
    process = getpid();
    while (i < LISTENERS && atomic_load(&signals[number].eventfds[i]))
        i++;
    if (i < LISTENERS) {
        atomic_store(&signals[number].eventfds[i], eventfd + 1);
        signals[number].count++;
        hook(number);
    } else {
        error = ENOMEM;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

void signal_detach(int number, int eventfd)
{
    struct sigaction now;
    if (number <= 0 || number >= SIGNALS)
        return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < LISTENERS; i++)
        if (eventfd >= 0 && atomic_load(&signals[number].eventfds[i]) == eventfd + 1) {
            atomic_store(&signals[number].eventfds[i], 0);
            signals[number].count--;
        }
    if (!signals[number].count && sigaction(number, NULL, &now) == 0 &&
        now.sa_flags & SA_SIGINFO && now.sa_sigaction == count_and_pass_on)
        sigaction(number, &signals[number].former, NULL);
    pthread_mutex_unlock(&lock);
}
