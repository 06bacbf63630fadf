/* What is to be in a kqueue, and what is: an entry (the kernel's "knote") for each pair of an ident and
 * a filter. The driver says what it wants; the differences are handed over with the next wait.
 */
#ifndef TB_KNOTES_H
#define TB_KNOTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/event.h>

/* ONCE: EV_ONESHOT, the kernel drops it when it reports it. STAYS: reported for as long as it holds. */
enum tb_knote_mode { TB_KNOTE_NONE = 0, TB_KNOTE_ONCE, TB_KNOTE_STAYS };

enum tb_knote_kind {
    TB_KNOTE_NOBODY = 0, TB_KNOTE_STREAM, TB_KNOTE_LISTENER, TB_KNOTE_WATCH, TB_KNOTE_ALARM,
    TB_KNOTE_SIGNAL, TB_KNOTE_WAKE,
};

struct tb_knote {
    uint32_t generation; /* tells the reports of this interest from those of an earlier one */
    uint8_t want;        /* what is to be in the kernel, enum tb_knote_mode */
    uint8_t have;        /* what is there, as far as we can know */
    bool fresh;          /* to be handed over although something seems to be there */
};

enum { TB_SIDE_READ = 0, TB_SIDE_WRITE = 1, TB_SIDE_TIMER = 0 };

/* The interests in one descriptor, or in one alarm. */
struct tb_place {
    struct tb_knote side[2];
    void *owner;         /* a stream, a listener, an alarm; NULL: a watch, or nobody */
    uint32_t next_free;  /* of alarms: the next place that nobody has */
    uint8_t kind;        /* enum tb_knote_kind */
    bool queued;
};

enum tb_places { TB_DESCRIPTORS = 0, TB_ALARMS = 1 };

struct tb_knotes {
    struct tb_place *places[2]; /* by enum tb_places, then by descriptor or slot */
    uint32_t room[2];
    uint32_t free_alarm;        /* the first free place of an alarm; 0: none is */
    uint32_t *queue;            /* places to look at: the index times 2 plus enum tb_places */
    uint32_t queued, queue_room;
};

/* The place of that index; the table grows to hold it, and moves when it does. */
struct tb_place *tb_knotes_at(struct tb_knotes *, enum tb_places, uint32_t index);
/* The same, NULL when nothing was ever wanted there. */
struct tb_place *tb_knotes_find(struct tb_knotes *, enum tb_places, uint64_t index);
void tb_knotes_want(struct tb_knotes *, enum tb_places, uint32_t index, int side, uint8_t mode);
/* The descriptor is about to be closed, which removes its knotes. */
void tb_knotes_forget(struct tb_place *);
uint32_t tb_knotes_new_alarm(struct tb_knotes *);
void tb_knotes_free_alarm(struct tb_knotes *, uint32_t slot);
void tb_knotes_free(struct tb_knotes *);

/* One interest needs two changes at most. */
#define TB_CHANGES_OF_A_PLACE 4
/* Fills `changes` from the queue, as far as there is room; returns how many. They count as made. */
int tb_knotes_changes(struct tb_knotes *, struct kevent *changes, int room, int64_t now);

/* An event's, or a refused change's: the interest that it is about. NULL: of one that is no more. */
struct tb_knote *tb_knotes_of(struct tb_knotes *, const struct kevent *);
/* Its place; only after tb_knotes_of(). */
struct tb_place *tb_knotes_place(struct tb_knotes *, const struct kevent *);

/* udata: the generation, and the kind in the lowest 3 bits. 32 bits: they fit into any pointer. */
static inline uintptr_t tb_knote_udata(uint32_t generation, uint32_t kind)
{
    return (uint32_t)(generation << 3 | kind);
}

static inline uint32_t tb_knote_kind_of(const struct kevent *event)
{
    return (uint32_t)(uintptr_t)event->udata & 7;
}

/* A change or a request; every system's struct kevent has these members, in an order of its own. */
struct kevent tb_kevent(uint64_t ident, int filter, unsigned flags, unsigned fflags, int64_t data,
                        uintptr_t udata);

#endif
