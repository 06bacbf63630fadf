/* Deviations on purpose: what some kernel may do, and what none may. See sim.h. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static const char *const names[MUTANTS] = {
    [MUTANT_STALE] = "stale",
    [MUTANT_GHOSTS] = "ghosts",
    [MUTANT_KEEP_ADD] = "keep_add",
    [MUTANT_SHORT] = "short",
    [MUTANT_NO_RECEIPTS] = "no_receipts",
    [MUTANT_SHUFFLE] = "shuffle",
    [MUTANT_EINTR] = "eintr",
    [MUTANT_EARLY_TIMER] = "early_timer",
    [MUTANT_FEW_TIMERS] = "few_timers",
    [MUTANT_CLOSE_KEEPS] = "close_keeps",
    [MUTANT_NO_EOF] = "no_eof",
    [MUTANT_ONESHOT_STAYS] = "oneshot_stays",
    [MUTANT_LEVEL_ONCE] = "level_once",
    [MUTANT_DELETE_IGNORED] = "delete_ignored",
    [MUTANT_LAST_CHANGE_LOST] = "last_change_lost",
    [MUTANT_TRIGGER_LOST] = "trigger_lost",
};

static bool on[MUTANTS];
static unsigned occasions[MUTANTS];
static unsigned dice = 1;

void mutants_read(void)
{
    const char *wanted = getenv("TB_KQUEUE_MUTANT");
    for (int i = 0; i < MUTANTS; i++) {
        size_t length = strlen(names[i]);
        const char *at = wanted ? wanted : "";
        on[i] = false;
        for (; *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : "")
            on[i] |= strncmp(at, names[i], length) == 0 && (!at[length] || at[length] == ',');
    }
}

bool mutant(enum mutant which)
{
    return on[which];
}

bool mutant_now(enum mutant which, unsigned once_in)
{
    return on[which] && ++occasions[which] % once_in == 0;
}

void mutant_shuffle(struct kevent *events, int count)
{
    for (int i = count - 1; i > 0; i--) {
        dice = dice * 1103515245 + 12345;
        int j = (int)(dice >> 16) % (i + 1);
        struct kevent event = events[i];
        events[i] = events[j];
        events[j] = event;
    }
}

void mutant_bury(struct kq *kq, const struct knote *knote)
{
    if (!on[MUTANT_GHOSTS])
        return;
    struct kevent *ghost = &kq->ghosts[kq->ghost_count++ % GHOSTS];
    *ghost = (struct kevent){.ident = knote->ident,
                             .filter = knote->filter,
                             .flags = knote->flags,
                             .data = 1,
                             .udata = knote->udata};
}

/* They come in company only: alone they would be a kernel that does not let anyone sleep. */
int mutant_ghosts(struct kq *kq, struct kevent *events, int count, int room)
{
    unsigned ghosts = kq->ghost_count < GHOSTS ? kq->ghost_count : GHOSTS;
    if (!on[MUTANT_GHOSTS] || !count || !ghosts)
        return count;
    for (unsigned i = 0; i < ghosts && count < room; i++)
        events[count++] = kq->ghosts[i];
    return count;
}
