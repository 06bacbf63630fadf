#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define MANY_NAMES 1000u         /* of a client: what they took goes back to the system */
#define LARGE_SCRATCH (1u << 20) /* bytes; not kept for the next chunk */

void *grown(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (!memory) {
        fprintf(stderr, "trio_pooler: out of memory (%zu bytes)\n", size);
        abort();
    }
    return memory;
}

/* ------------------------------------------------------------------------------------- output */

static void append(struct out *out, const void *bytes, size_t n)
{
    struct shared *shared = out->shared;

    if (!out->length && shared->scratch_room > LARGE_SCRATCH) {
        free(shared->scratch);
        shared->scratch = NULL;
        shared->scratch_room = 0;
    }
    if (shared->scratch_room < out->length + n || !shared->scratch) {
        shared->scratch_room = (out->length + n) * 2 + 1024;
        shared->scratch = grown(shared->scratch, shared->scratch_room);
    }
    if (n)
        memcpy(shared->scratch + out->length, bytes, n);
    out->length += n;
}

static void catch_up(struct out *out)
{
    append(out, out->in + out->copied, out->passed - out->copied);
    out->copied = out->passed;
    out->on = true;
}

void out_put(struct out *out, const void *bytes, size_t n)
{
    catch_up(out);
    append(out, bytes, n);
}

void out_drop(struct out *out, size_t at)
{
    catch_up(out);
    out->copied = out->passed = at;
}

void out_finish(struct out *out, size_t at)
{
    out->passed = at;
    catch_up(out);
}

const uint8_t *out_bytes(const struct out *out)
{
    return out->shared->scratch;
}

void held_add(struct held *held, const uint8_t *bytes, size_t n)
{
    if (held->room - held->length < n) {
        held->room = (uint32_t)((held->length + n) * 2 < 256 ? 256 : (held->length + n) * 2);
        held->bytes = grown(held->bytes, held->room);
    }
    memcpy(held->bytes + held->length, bytes, n);
    held->length += (uint32_t)n;
}

void held_clear(struct held *held)
{
    free(held->bytes);
    *held = (struct held){0};
}

/* --------------------------------------------------------------------------------- statements */

static uint64_t hash_of(const void *bytes, size_t n)
{
    const uint8_t *at = bytes;
    uint64_t hash = 0xcbf29ce484222325ull ^ n;
    uint64_t word;

    for (; n >= 8; at += 8, n -= 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 29;
    }
    for (; n; at++, n--)
        hash = (hash ^ *at) * 0x100000001b3ull;
    return hash ^ hash >> 32;
}

/* Doubles a table of chains, linked by their first member. */
#define GROW(table, type, hash_expression)                                                    \
    do {                                                                                      \
        if ((table)->count >= (table)->room) {                                                \
            uint32_t room = (table)->room ? (table)->room * 2 : 8;                            \
            type **buckets = grown(NULL, room * sizeof(type *));                              \
            memset(buckets, 0, room * sizeof(type *));                                        \
            for (uint32_t i = 0; i < (table)->room; i++) {                                    \
                for (type *node = (table)->buckets[i], *next; node; node = next) {            \
                    next = node->next;                                                        \
                    node->next = buckets[(hash_expression) & (room - 1)];                     \
                    buckets[(hash_expression) & (room - 1)] = node;                           \
                }                                                                             \
            }                                                                                 \
            free((table)->buckets);                                                           \
            (table)->buckets = buckets;                                                       \
            (table)->room = room;                                                             \
        }                                                                                     \
    } while (0)

struct statement *statement_keep(struct statement *statement)
{
    if (statement)
        statement->refs++;
    return statement;
}

void statement_drop(struct statement *statement)
{
    struct shared *shared;
    struct statement **at;

    if (!statement || --statement->refs)
        return;
    shared = statement->shared;
    at = &shared->buckets[statement->hash & (shared->room - 1)];
    while (*at != statement)
        at = &(*at)->next;
    *at = statement->next;
    shared->count--;
    settings_drop(statement->scope);
    free(statement);
}

struct statement *intern(struct shared *shared, const uint8_t *text, uint32_t length,
                         struct settings *scope, bool alone)
{
    uint64_t hash = hash_of(text, length);
    struct statement *found =
        shared->room && !alone ? shared->buckets[hash & (shared->room - 1)] : NULL;

    for (; found; found = found->next)
        if (found->hash == hash && found->length == length && found->scope == scope &&
            !found->alone && !memcmp(found->text, text, length))
            return statement_keep(found);
    GROW(shared, struct statement, node->hash);
    found = grown(NULL, sizeof *found + length);
    *found = (struct statement){
        .next = shared->buckets[hash & (shared->room - 1)],
        .shared = shared,
        .hash = hash,
        .refs = 1,
        .length = length,
        .scope = settings_keep(scope),
        .alone = alone,
    };
    snprintf(found->label, sizeof found->label, LABEL "%llu",
             (unsigned long long)shared->next_id++);
    memcpy(found->text, text, length);
    found->watched = shared->watches && watch_would_mark(shared, text, length);
    shared->buckets[hash & (shared->room - 1)] = found;
    shared->count++;
    return found;
}

/* ----------------------------------------------------------------------------------- settings */

/* Those of the settings that matter to the parser, their names in lower case; the length of that. */
static uint32_t scope_of(const uint8_t *text, uint32_t length, uint8_t *scope)
{
    uint32_t n = 0;

    for (uint32_t at = 0, value, next; at < length; at = next) {
        value = at + (uint32_t)strlen((const char *)text + at) + 1;
        if (value >= length)
            break;
        next = value + (uint32_t)strlen((const char *)text + value) + 1;
        if (value - at < 4 || !is_for_parser((const char *)text + at + 1, value - at - 3))
            continue; /* a quotation mark at either end, and a NUL */
        for (; at < next; at++)
            scope[n++] = at < value && text[at] >= 'A' && text[at] <= 'Z' ? text[at] | 32 : text[at];
    }
    return n;
}

struct settings *settings_intern(struct shared *shared, const uint8_t *text, uint32_t length,
                                 bool delicate)
{
    uint8_t *part;
    uint32_t n;
    uint64_t hash = hash_of(text, length);
    struct settings *found = NULL;

    if (shared->settings.room)
        found = shared->settings.buckets[hash & (shared->settings.room - 1)];
    for (; found; found = found->next)
        if (found->hash == hash && found->length == length && !memcmp(found->text, text, length)) {
            found->delicate |= delicate;
            return settings_keep(found);
        }
    GROW(&shared->settings, struct settings, node->hash);
    found = grown(NULL, sizeof *found + length);
    *found = (struct settings){
        .next = shared->settings.buckets[hash & (shared->settings.room - 1)],
        .shared = shared,
        .hash = hash,
        .refs = 1,
        .length = length,
        .delicate = delicate,
    };
    memcpy(found->text, text, length);
    shared->settings.buckets[hash & (shared->settings.room - 1)] = found;
    shared->settings.count++;
    part = grown(NULL, length);
    n = scope_of(text, length, part);
    if (n == length && !memcmp(part, text, n))
        found->scope = found;
    else if (n)
        found->scope = settings_intern(shared, part, n, false);
    free(part);
    return found;
}

void settings_drop(struct settings *settings)
{
    struct settings **at;

    if (!settings || --settings->refs)
        return;
    at = &settings->shared->settings.buckets[settings->hash & (settings->shared->settings.room - 1)];
    while (*at != settings)
        at = &(*at)->next;
    *at = settings->next;
    settings->shared->settings.count--;
    if (settings->scope != settings)
        settings_drop(settings->scope);
    free(settings);
}

/* -------------------------------------------------------------------------------------- names */

struct name *name_keep(struct name *name)
{
    if (name)
        name->refs++;
    return name;
}

void name_drop(struct name *name)
{
    if (!name || --name->refs)
        return;
    statement_drop(name->statement);
    free(name);
}

struct name *name_new(const uint8_t *text, size_t length, struct statement *statement)
{
    struct name *name = grown(NULL, sizeof *name + length);

    *name = (struct name){
        .refs = 1,
        .statement = statement,
        .hash = hash_of(text, length),
        .length = (uint32_t)length,
    };
    memcpy(name->text, text, length);
    return name;
}

bool is_called(const struct name *name, const uint8_t *text, size_t length)
{
    return name->length == length && !memcmp(name->text, text, length);
}

static struct name **name_place(const struct known *known, const uint8_t *text, size_t length)
{
    uint64_t hash = hash_of(text, length);
    struct name **at = &known->buckets[hash & (known->room - 1)];

    while (*at && !((*at)->hash == hash && is_called(*at, text, length)))
        at = &(*at)->next;
    return at;
}

struct name *known_find(const struct known *known, const uint8_t *text, size_t length)
{
    return known->count ? *name_place(known, text, length) : NULL;
}

void known_remove(struct known *known, const struct name *like)
{
    struct name **at, *name;

    if (!known->count)
        return;
    at = name_place(known, (const uint8_t *)like->text, like->length);
    if (!(name = *at))
        return;
    *at = name->next;
    known->count--;
    known->bytes -= name->statement->length;
    name_drop(name);
}

void known_add(struct known *known, struct name *name)
{
    known_remove(known, name);
    GROW(known, struct name, node->hash);
    name->next = known->buckets[name->hash & (known->room - 1)];
    known->buckets[name->hash & (known->room - 1)] = name_keep(name);
    known->count++;
    known->bytes += name->statement->length;
}

void known_clear(struct known *known)
{
    for (uint32_t i = 0; i < known->room; i++) {
        for (struct name *name = known->buckets[i], *next; name; name = next) {
            next = name->next;
            name_drop(name);
        }
    }
    free(known->buckets);
    known->buckets = NULL;
    known->count = known->room = 0;
    known->bytes = 0;
}

void known_free(struct known *known)
{
    bool many = known->count >= MANY_NAMES;

    known_clear(known);
    statement_drop(known->unnamed);
    known->unnamed = NULL;
    held_clear(&known->held);
#ifdef __GLIBC__
    if (many) /* small pieces: glibc would keep them for the next */
        malloc_trim(0);
#else
    (void)many;
#endif
}

/* ------------------------------------------------------------------------------------ servers */

static uint64_t slot_hash(const struct statement *statement)
{
    return (uint64_t)(uintptr_t)statement * 0x9e3779b97f4a7c15ull >> 32;
}

static struct slot **slot_place(struct prepared *prepared, const struct statement *statement)
{
    struct slot **at = &prepared->buckets[slot_hash(statement) & (prepared->room - 1)];

    while (*at && (*at)->statement != statement)
        at = &(*at)->next;
    return at;
}

static void slot_unlink(struct prepared *prepared, struct slot *slot)
{
    *(slot->newer ? &slot->newer->older : &prepared->newest) = slot->older;
    *(slot->older ? &slot->older->newer : &prepared->oldest) = slot->newer;
}

static void slot_link(struct prepared *prepared, struct slot *slot)
{
    slot->newer = NULL;
    slot->older = prepared->newest;
    *(prepared->newest ? &prepared->newest->newer : &prepared->oldest) = slot;
    prepared->newest = slot;
}

void prepared_remove(struct prepared *prepared, struct statement *statement)
{
    struct slot **at, *slot;

    if (!prepared->count)
        return;
    at = slot_place(prepared, statement);
    if (!(slot = *at))
        return;
    *at = slot->next;
    slot_unlink(prepared, slot);
    statement_drop(slot->statement);
    free(slot);
    prepared->count--;
}

void prepared_add(struct prepared *prepared, struct statement *statement)
{
    struct slot *slot;

    prepared_remove(prepared, statement);
    GROW(prepared, struct slot, slot_hash(node->statement));
    slot = grown(NULL, sizeof *slot);
    *slot = (struct slot){.statement = statement_keep(statement)};
    slot->next = prepared->buckets[slot_hash(statement) & (prepared->room - 1)];
    prepared->buckets[slot_hash(statement) & (prepared->room - 1)] = slot;
    slot_link(prepared, slot);
    prepared->count++;
}

bool prepared_use(struct prepared *prepared, const struct statement *statement)
{
    struct slot *slot = prepared->count ? *slot_place(prepared, statement) : NULL;

    if (slot && slot != prepared->newest) {
        slot_unlink(prepared, slot);
        slot_link(prepared, slot);
    }
    return slot;
}

void prepared_clear(struct prepared *prepared)
{
    for (struct slot *slot = prepared->newest, *older; slot; slot = older) {
        older = slot->older;
        statement_drop(slot->statement);
        free(slot);
    }
    free(prepared->buckets);
    prepared->buckets = NULL;
    prepared->newest = prepared->oldest = NULL;
    prepared->count = prepared->room = 0;
}

void prepared_free(struct prepared *prepared)
{
    prepared_clear(prepared);
    statement_drop(prepared->unnamed);
    prepared->unnamed = NULL;
    name_drop(prepared->failing);
    prepared->failing = NULL;
    held_clear(&prepared->held);
}

void prepared_let_go(struct prepared *prepared)
{
    name_drop(prepared->failing);
    prepared->failing = NULL;
}

void prepared_fresh(struct prepared *prepared)
{
    prepared->stray_unnamed |= prepared->large_unnamed;
    prepared->large_unnamed = false;
    prepared_let_go(prepared);
    if (prepared->held.bytes)
        held_clear(&prepared->held);
}

void prepared_handled(struct prepared *prepared)
{
    statement_drop(prepared->unnamed); /* a simple query does away with it */
    prepared->unnamed = NULL;
    prepared->stray_unnamed = true;
}

struct shared *shared_new(uint32_t limit, bool watches)
{
    struct shared *shared = grown(NULL, sizeof *shared);

    *shared = (struct shared){.limit = limit, .watches = watches, .next_id = FIRST_ID};
    return shared;
}

void shared_free(struct shared *shared)
{
    if (!shared)
        return;
    free(shared->buckets);
    free(shared->settings.buckets);
    held_clear(&shared->words);
    free(shared->scratch);
    free(shared);
}

void set_unnamed(struct statement **unnamed, struct statement *statement)
{
    statement_keep(statement);
    statement_drop(*unnamed);
    *unnamed = statement;
}
