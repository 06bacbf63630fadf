/* Alarms: a time at which somebody wants to be woken, once.
 *
 * Where the driver has no timers of its own they are kept in a binary heap, and the earliest limits
 * how long the engine waits: an alarm costs no descriptor and no system call.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

static void put(struct tb_engine *engine, uint32_t place, struct tb_alarm *alarm)
{
    engine->alarms[place] = alarm;
    alarm->place = place;
}

static void rise(struct tb_engine *engine, struct tb_alarm *alarm)
{
    uint32_t place = alarm->place;
    for (; place > 1 && engine->alarms[place / 2]->when > alarm->when; place /= 2)
        put(engine, place, engine->alarms[place / 2]);
    put(engine, place, alarm);
}

static void sink(struct tb_engine *engine, struct tb_alarm *alarm)
{
    uint32_t place = alarm->place;
    for (uint32_t child; (child = place * 2) <= engine->alarm_count; place = child) {
        if (child < engine->alarm_count &&
            engine->alarms[child + 1]->when < engine->alarms[child]->when)
            child++;
        if (engine->alarms[child]->when >= alarm->when)
            break;
        put(engine, place, engine->alarms[child]);
    }
    put(engine, place, alarm);
}

static void heap_add(struct tb_engine *engine, struct tb_alarm *alarm)
{
    if (engine->alarm_count + 1 >= engine->alarm_room) {
        uint32_t room = engine->alarm_room ? engine->alarm_room * 2 : 16;
        struct tb_alarm **alarms = tb_alloc(room * sizeof(*alarms));
        if (engine->alarm_room)
            memcpy(alarms, engine->alarms, engine->alarm_room * sizeof(*alarms));
        free(engine->alarms);
        engine->alarms = alarms;
        engine->alarm_room = room;
    }
    put(engine, ++engine->alarm_count, alarm);
    rise(engine, alarm);
}

static void heap_remove(struct tb_engine *engine, struct tb_alarm *alarm)
{
    uint32_t place = alarm->place;
    struct tb_alarm *last = engine->alarms[engine->alarm_count--];
    alarm->place = 0;
    if (last == alarm)
        return;
    put(engine, place, last);
    rise(engine, last);
    sink(engine, last);
}

struct tb_alarm *tb_alarm_new(struct tb_engine *engine)
{
    struct tb_alarm *alarm = tb_alloc(sizeof *alarm);
    alarm->engine = engine;
    alarm->token = engine->next_token++;
    return alarm;
}

void tb_alarm_free(struct tb_alarm *alarm)
{
    tb_alarm_clear(alarm);
    free(alarm);
}

void tb_alarm_keep(struct tb_alarm *alarm)
{
    heap_add(alarm->engine, alarm);
    tb_check_before(alarm->engine, alarm->when);
}

uint64_t tb_alarm_token(const struct tb_alarm *alarm)
{
    return alarm->token;
}

int tb_alarm_set(struct tb_alarm *alarm, int64_t when)
{
    struct tb_engine *engine = alarm->engine;
    tb_alarm_clear(alarm);
    alarm->when = when;
    alarm->set = true;
    if (!engine->driver->alarm_set) {
        tb_alarm_keep(alarm);
        return 0;
    }
    int error = engine->driver->alarm_set(alarm);
    alarm->set = !error;
    return error;
}

void tb_alarm_clear(struct tb_alarm *alarm)
{
    struct tb_engine *engine = alarm->engine;
    if (!alarm->set)
        return;
    alarm->set = false;
    if (alarm->place)
        heap_remove(engine, alarm);
    else
        engine->driver->alarm_clear(alarm);
}

void tb_alarm_rings(struct tb_alarm *alarm)
{
    if (!alarm->set)
        return;
    alarm->set = false;
    if (alarm->place)
        heap_remove(alarm->engine, alarm);
    tb_emit(alarm->engine, TB_EV_ALARM, alarm->token, 0);
}

void tb_alarms_check(struct tb_engine *engine)
{
    while (engine->alarm_count && engine->alarms[1]->when <= engine->now)
        tb_alarm_rings(engine->alarms[1]);
    if (engine->alarm_count)
        tb_check_before(engine, engine->alarms[1]->when);
}
