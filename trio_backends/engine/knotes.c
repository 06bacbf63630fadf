/* See knotes.h. Built where there is a kqueue. */
#include "engine.h"
#ifdef TB_HAVE_KQUEUE
#include <stdlib.h>
#include <string.h>

#include "knotes.h"

#define LONGEST_TIMER 86400000000000 /* ns: no system's arithmetic overflows; longer ones start again */

struct kevent tb_kevent(uint64_t ident, int filter, unsigned flags, unsigned fflags, int64_t data,
                        uintptr_t udata)
{
    struct kevent event;
    memset(&event, 0, sizeof event); /* FreeBSD has members of which we know nothing */
    event.ident = (uintptr_t)ident;
    event.filter = (__typeof__(event.filter))filter;
    event.flags = (__typeof__(event.flags))flags;
    event.fflags = fflags;
    event.data = (__typeof__(event.data))data;
    event.udata = (__typeof__(event.udata))udata;
    return event;
}

/* ---------------------------------------------------------------- places */

struct tb_place *tb_knotes_at(struct tb_knotes *knotes, enum tb_places which, uint32_t index)
{
    if (index >= knotes->room[which]) {
        uint32_t room = knotes->room[which] ? knotes->room[which] : 64;
        while (room <= index)
            room *= 2;
        struct tb_place *places = tb_alloc(room * sizeof *places);
        if (knotes->room[which])
            memcpy(places, knotes->places[which], knotes->room[which] * sizeof *places);
        free(knotes->places[which]);
        knotes->places[which] = places;
        knotes->room[which] = room;
    }
    return &knotes->places[which][index];
}

struct tb_place *tb_knotes_find(struct tb_knotes *knotes, enum tb_places which, uint64_t index)
{
    return index < knotes->room[which] ? &knotes->places[which][index] : NULL;
}

void tb_knotes_forget(struct tb_place *place)
{
    for (int side = 0; side < 2; side++) {
        place->side[side].want = place->side[side].have = TB_KNOTE_NONE;
        place->side[side].fresh = false;
    }
    place->owner = NULL;
    place->kind = TB_KNOTE_NOBODY;
}

uint32_t tb_knotes_new_alarm(struct tb_knotes *knotes)
{
    uint32_t slot = knotes->free_alarm;
    if (slot) {
        knotes->free_alarm = knotes->places[TB_ALARMS][slot].next_free;
        return slot;
    }
    /* All are taken: as many again. 0 stays free, so that it can mean "none". */
    uint32_t from = knotes->room[TB_ALARMS] ? knotes->room[TB_ALARMS] : 1;
    tb_knotes_at(knotes, TB_ALARMS, from);
    for (slot = knotes->room[TB_ALARMS] - 1; slot > from; slot--)
        tb_knotes_free_alarm(knotes, slot);
    return from;
}

void tb_knotes_free_alarm(struct tb_knotes *knotes, uint32_t slot)
{
    struct tb_place *place = &knotes->places[TB_ALARMS][slot];
    place->owner = NULL;
    place->next_free = knotes->free_alarm;
    knotes->free_alarm = slot;
}

void tb_knotes_free(struct tb_knotes *knotes)
{
    free(knotes->places[TB_DESCRIPTORS]);
    free(knotes->places[TB_ALARMS]);
    free(knotes->queue);
    memset(knotes, 0, sizeof *knotes);
}

/* ---------------------------------------------------------------- changes */

static void enqueue(struct tb_knotes *knotes, uint32_t item)
{
    if (knotes->queued == knotes->queue_room) {
        uint32_t room = knotes->queue_room ? knotes->queue_room * 2 : 64;
        uint32_t *queue = tb_alloc(room * sizeof *queue);
        if (knotes->queued)
            memcpy(queue, knotes->queue, knotes->queued * sizeof *queue);
        free(knotes->queue);
        knotes->queue = queue;
        knotes->queue_room = room;
    }
    knotes->queue[knotes->queued++] = item;
}

void tb_knotes_want(struct tb_knotes *knotes, enum tb_places which, uint32_t index, int side,
                    uint8_t mode)
{
    struct tb_place *place = tb_knotes_at(knotes, which, index);
    struct tb_knote *knote = &place->side[side];
    if (knote->want == mode && mode != TB_KNOTE_ONCE)
        return;
    knote->want = mode;
    /* The owner of what stays is the only one who closes the descriptor. With a watch it can have
     * been closed behind our back, and its number used again: the kernel is always told anew. */
    knote->fresh = mode == TB_KNOTE_ONCE;
    if (knote->fresh || (mode && knote->have != mode))
        knote->generation++; /* it will be handed over; else what is there keeps its own */
    if (place->queued)
        return;
    place->queued = true;
    enqueue(knotes, index * 2 + which);
}

static struct kevent addition(const struct tb_place *place, uint32_t index, int side, int64_t now)
{
    const struct tb_knote *knote = &place->side[side];
    uintptr_t udata = tb_knote_udata(knote->generation, place->kind);
    unsigned flags = knote->want == TB_KNOTE_ONCE ? EV_ADD | EV_ONESHOT : EV_ADD;
    if (place->kind != TB_KNOTE_ALARM)
        return tb_kevent(index, side == TB_SIDE_READ ? EVFILT_READ : EVFILT_WRITE, flags, 0, 0, udata);
    /* Zero or less would be refused, or never ring, on one system or another. */
    int64_t ns = ((const struct tb_alarm *)place->owner)->when - now;
    ns = ns < 1 ? 1 : ns > LONGEST_TIMER ? LONGEST_TIMER : ns;
#ifdef NOTE_NSECONDS
    return tb_kevent(index, EVFILT_TIMER, flags, NOTE_NSECONDS, ns, udata);
#else
    return tb_kevent(index, EVFILT_TIMER, flags, 0, (ns + 999999) / 1000000, udata);
#endif
}

static int filter_of(enum tb_places which, int side)
{
    if (which == TB_ALARMS)
        return EVFILT_TIMER;
    return side == TB_SIDE_READ ? EVFILT_READ : EVFILT_WRITE;
}

static int changes_of(enum tb_places which, struct tb_place *place, uint32_t index,
                      struct kevent *changes, int64_t now)
{
    int count = 0;
    for (int side = 0; side < 2; side++) {
        struct tb_knote *knote = &place->side[side];
        /* Adding to what is there changes neither EV_ONESHOT nor, on some systems, a timer's time. */
        bool other = knote->have != knote->want || (which == TB_ALARMS && knote->fresh);
        if (knote->have && other) {
            changes[count++] = tb_kevent(index, filter_of(which, side), EV_DELETE, 0, 0,
                                         tb_knote_udata(0, TB_KNOTE_NOBODY));
            knote->have = TB_KNOTE_NONE;
        }
        if (knote->want && (knote->fresh || !knote->have))
            changes[count++] = addition(place, index, side, now);
        knote->have = knote->want;
        knote->fresh = false;
    }
    return count;
}

int tb_knotes_changes(struct tb_knotes *knotes, struct kevent *changes, int room, int64_t now)
{
    int count = 0;
    uint32_t done = 0;
    for (; done < knotes->queued && count + TB_CHANGES_OF_A_PLACE <= room; done++) {
        uint32_t item = knotes->queue[done];
        enum tb_places which = item & 1;
        struct tb_place *place = &knotes->places[which][item / 2];
        place->queued = false;
        count += changes_of(which, place, item / 2, changes + count, now);
    }
    knotes->queued -= done;
    if (knotes->queued)
        memmove(knotes->queue, knotes->queue + done, knotes->queued * sizeof *knotes->queue);
    return count;
}

/* ---------------------------------------------------------------- events */

struct tb_place *tb_knotes_place(struct tb_knotes *knotes, const struct kevent *event)
{
    bool alarm = event->filter == EVFILT_TIMER;
    return tb_knotes_find(knotes, alarm ? TB_ALARMS : TB_DESCRIPTORS, event->ident);
}

struct tb_knote *tb_knotes_of(struct tb_knotes *knotes, const struct kevent *event)
{
    struct tb_place *place = tb_knotes_place(knotes, event);
    if (!place)
        return NULL;
    struct tb_knote *knote = &place->side[event->filter == EVFILT_WRITE];
    if (!knote->have || (uintptr_t)event->udata != tb_knote_udata(knote->generation, place->kind))
        return NULL;
    return knote;
}
#endif
