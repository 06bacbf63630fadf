/* The framing of PostgreSQL's protocol 3.x, as the multiplexer sees it (framing.h): where messages
 * begin and end, and whether the server owes anything, from the first message after login on.
 *
 * A message is a type byte, a length of four bytes (big-endian, itself included) and a body; see
 * "Message Formats" in the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation. Bodies
 * are skipped by a counter: only headers are read, and the status byte of ReadyForQuery. So the bytes
 * of a row are never taken for a message, wherever a chunk happens to end.
 *
 * The account
 * -----------
 * A client may send any number of requests before it reads an answer, so "the server said
 * ReadyForQuery" does not mean that it is idle. The server's state therefore holds one entry for every
 * frontend message that will be answered, first in, first out. "Message Flow" says what answers what:
 *
 *   Parse -> ParseComplete                  Execute -> CommandComplete, EmptyQueryResponse
 *   Bind  -> BindComplete                              or PortalSuspended
 *   Close -> CloseComplete                  Query, FunctionCall, Sync -> ReadyForQuery
 *   Describe -> RowDescription or NoData
 *
 * Three things disturb this order, each as in PostgresMain():
 *
 * - An error while an extended-query message is handled: the server reads and discards all that
 *   follows up to a Sync. So do we with the entries; where no Sync is among them yet, `SKIPPING` drops
 *   what the client sends from now on, up to its Sync. After an error in Query, FunctionCall or Sync
 *   the ReadyForQuery comes as ever.
 *
 * - COPY FROM STDIN: from its CopyInResponse on, the command reads the connection itself, and swallows
 *   any Sync (and Flush) before CopyDone or CopyFail. Drivers send such a Sync, because they do not
 *   know that what they execute is a COPY. Those behind the command in the account are taken out when
 *   CopyInResponse arrives, those that the client sends later are not entered (`COPY_IN`). To know
 *   where the copy ended, CopyDone and CopyFail are entered too (MARKER). Outside a copy the server
 *   ignores them, so a marker that becomes the first entry goes away.
 *
 * - An error in a COPY that has swallowed a Sync (`SWALLOWED`): the command may have failed before it
 *   read that Sync ("cannot copy to view" is said after CopyInResponse), which then gets its own
 *   ReadyForQuery, or after. The bytes do not tell. The account no longer holds: TB_UNSURE.
 *
 * An answer that fits no entry makes the account unsure too, and so do messages of a login and
 * CopyBothResponse (replication). Nothing is entered or struck out after that, only framed.
 *
 * After an extended-query message has been answered (the client sent a Flush) but before a Sync, the
 * server is inside an implicit transaction although its last status was idle: `UNSYNCED`. A Query or
 * FunctionCall sent instead of the Sync ends that transaction and says idle, or (PostgreSQL 18) keeps
 * it and says so; then the Sync says idle, yet leaves the transaction half ended, and the next query
 * fails over it. Who does that keeps the server for good: TB_UNSURE.
 */
#include "framing.h"
#include "framing_messages.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define INLINE_ENTRIES 32u   /* powers of two, both */
#define MOST_ENTRIES 65536u

enum flag {
    UNSURE = 1,
    SKIPPING = 2,
    COPY_IN = 4,
    SWALLOWED = 8,
    UNSYNCED = 16,
    IN_TRANSACTION = 32, /* the last ReadyForQuery did not say idle */
};

/* Where in a message one direction is. */
struct place {
    uint32_t remaining; /* bytes of the body still to come */
    uint8_t have;       /* bytes of the header seen, 0 to 4 */
    uint8_t head[HEADER];
};

struct client {
    struct place place;
};

struct server {
    struct place place;
    uint8_t type; /* of the current or the last message */
    uint8_t flags;
    uint8_t few[INLINE_ENTRIES];
    uint32_t first;
    uint32_t count;
    uint32_t many_size; /* entries that `many` holds */
    uint8_t *many;      /* in use instead of `few` once these did not suffice */
};

/* --------------------------------------------------------------------------------- the account */

static inline uint8_t *entry_at(struct server *s, uint32_t index)
{
    if (s->many)
        return &s->many[(s->first + index) & (s->many_size - 1u)];
    return &s->few[(s->first + index) & (INLINE_ENTRIES - 1u)];
}

/* The first entry; 0 if there is none, which no mask contains. It is never a MARKER. */
static inline uint8_t head_of(struct server *s)
{
    return s->count ? *entry_at(s, 0) : 0;
}

static inline void drop_first(struct server *s)
{
    s->first++;
    s->count--;
}

static inline void pop(struct server *s)
{
    drop_first(s);
    while (s->count && *entry_at(s, 0) == MARKER)
        drop_first(s);
}

static bool grow(struct server *s)
{
    uint32_t size = s->many ? s->many_size * 2u : INLINE_ENTRIES * 2u;
    uint8_t *many;

    if (s->count >= MOST_ENTRIES || !(many = malloc(size)))
        return false;
    for (uint32_t i = 0; i < s->count; i++)
        many[i] = *entry_at(s, i);
    free(s->many);
    s->many = many;
    s->many_size = size;
    s->first = 0;
    return true;
}

/* Is there room for one more entry? */
static inline bool reserve(struct server *s)
{
    return s->count < (s->many ? s->many_size : INLINE_ENTRIES) || grow(s);
}

static void give_up(struct server *s)
{
    s->flags |= UNSURE;
    s->count = 0;
}

/* Whether a request is to be entered when something has disturbed the order. */
static bool entered_all_the_same(struct server *s, uint8_t entry)
{
    if (s->flags & UNSURE)
        return false;
    if (s->flags & SKIPPING) {
        if (entry == SYNC)
            s->flags &= (uint8_t)~SKIPPING;
        return entry == SYNC;
    }
    /* COPY_IN */
    if (entry == MARKER)
        s->flags &= (uint8_t)~COPY_IN;
    else if (entry == SYNC)
        s->flags |= SWALLOWED;
    else
        return true; /* the server will end the connection over this */
    return false;
}

/* A request whose header is complete. Room was reserved when its type was seen. */
static inline void enter(struct server *s, uint8_t entry)
{
    if ((s->flags & (UNSURE | SKIPPING | COPY_IN)) && !entered_all_the_same(s, entry))
        return;
    if (entry == MARKER && s->count == 0)
        return;
    *entry_at(s, s->count) = entry;
    s->count++;
}

static void fail(struct server *s)
{
    uint8_t head = head_of(s);

    s->flags &= (uint8_t)~COPY_IN;
    if ((s->flags & SWALLOWED) || !head) { /* unasked for: the server is about to close */
        give_up(s);
    } else if (head & EXTENDED) {
        while (s->count && *entry_at(s, 0) != SYNC)
            drop_first(s);
        if (s->count == 0)
            s->flags |= SKIPPING;
    }
}

/* The first entry turns out to be a COPY: what it will swallow leaves the account. */
static void copy_in(struct server *s)
{
    uint8_t head = head_of(s);
    uint8_t next = MARKER;
    uint32_t gone = 0;

    while (gone + 1 < s->count && (next = *entry_at(s, gone + 1)) == SYNC)
        gone++;
    if (gone)
        s->flags |= SWALLOWED;
    if (gone + 1 == s->count)
        s->flags |= COPY_IN;
    else if (next == MARKER)
        gone++;
    s->first += gone;
    s->count -= gone;
    *entry_at(s, 0) = head;
}

/* A header from the server, lengths checked. */
static inline void heed(struct server *s, const struct backend *message)
{
    uint8_t head = head_of(s);

    if (message->kind == ANYTIME || message->kind == READY || (s->flags & UNSURE))
        return;
    if (message->kind == FAILS) {
        fail(s);
    } else if (!(message->heads & head) || (s->flags & COPY_IN)) {
        give_up(s); /* CONFUSES has no heads */
    } else if (message->kind == COPIES_IN) {
        copy_in(s);
    } else {
        if (s->type == 'C')
            s->flags &= (uint8_t)~SWALLOWED;
        if (message->pops & head) {
            pop(s);
            s->flags |= UNSYNCED;
        }
    }
}

/* The body of ReadyForQuery. */
static inline void ready(struct server *s, uint8_t status, struct tb_scan *scan)
{
    uint8_t head = head_of(s);
    bool kept; /* an implicit transaction, by what was to end it */

    if (s->flags & UNSURE)
        return;
    if (!(head & READIED) || (s->flags & (COPY_IN | SWALLOWED))) {
        give_up(s);
        return;
    }
    kept = head != SYNC && status != 'I' && (s->flags & (UNSYNCED | IN_TRANSACTION)) == UNSYNCED;
    pop(s);
    scan->answered++;
    s->flags = status == 'I' ? 0 : IN_TRANSACTION;
    if (kept)
        give_up(s);
}

/* ------------------------------------------------------------------------------------ scanning */

static inline uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline bool midway(const struct place *place)
{
    return place->remaining || place->have;
}

/* Skips what it can of the current body; returns the bytes skipped. */
static inline size_t skip(struct place *place, size_t n)
{
    uint32_t step = n < place->remaining ? (uint32_t)n : place->remaining;

    place->remaining -= step;
    return step;
}

/* Reads (the rest of) a header; NULL if it ends beyond the chunk. Advances *at. */
static inline const uint8_t *header(struct place *place, const uint8_t *bytes, size_t n, size_t *at)
{
    const uint8_t *head = bytes + *at;

    if (place->have == 0 && n - *at >= HEADER) {
        *at += HEADER;
        return head;
    }
    while (place->have < HEADER && *at < n)
        place->head[place->have++] = bytes[(*at)++];
    if (place->have < HEADER)
        return NULL;
    place->have = 0;
    return place->head;
}

static inline void stop(struct tb_scan *scan, int verdict, const char *why)
{
    scan->verdict = verdict;
    scan->why = why;
}

/* A message of impossible length: as much of it stays seen as earlier chunks have let on. */
static size_t refuse(struct tb_scan *scan, const char *why, struct place *place, size_t start,
                     size_t after)
{
    place->have = (uint8_t)(HEADER - (after - start));
    stop(scan, TB_BAD, why);
    return start;
}

static inline bool frontend_length_ok(const struct frontend *message, uint32_t length)
{
    return length >= 4 && length <= message->longest;
}

static inline bool backend_length_ok(const struct backend *message, uint32_t length)
{
    return length >= message->least &&
           length <= (message->fixed ? message->least : SERVER_MESSAGE);
}

static int pg_opening(const void *client, const uint8_t *bytes, size_t n, struct tb_scan *scan)
{
    const struct frontend *message;

    (void)client; /* at a boundary: what it sends when it has no server is kept until it has one */
    *scan = (struct tb_scan){.verdict = TB_MORE};
    if (n == 0)
        return scan->verdict;
    message = &frontend_messages[bytes[0]];
    if (message->kind == INVALID)
        stop(scan, TB_BAD, invalid_type[bytes[0]]);
    else if (message->kind == LEAVES)
        scan->verdict = TB_LEAVE;
    else if (n >= HEADER && !frontend_length_ok(message, big_endian(bytes + 1)))
        stop(scan, TB_BAD, invalid_length);
    else if (n >= HEADER)
        scan->verdict = TB_GO;
    return scan->verdict;
}

/* May a message of this type begin? Decided at its first byte, before any of it is let on. */
static inline bool may_begin(struct server *s, uint8_t type, struct tb_scan *scan)
{
    uint8_t kind = frontend_messages[type].kind;

    if (kind == PASSES || (kind == ASKS && (reserve(s) || (s->flags & UNSURE))))
        return true;
    if (kind == ASKS)
        stop(scan, TB_FULL, NULL);
    else if (kind == LEAVES)
        stop(scan, TB_LEAVE, NULL);
    else
        stop(scan, TB_BAD, invalid_type[type]);
    return false;
}

static size_t pg_from_client(void *client, void *server, const uint8_t *bytes, size_t n,
                             struct tb_scan *scan)
{
    struct place *place = &((struct client *)client)->place;
    struct server *s = server;
    size_t at = 0;

    *scan = (struct tb_scan){.verdict = TB_GO};
    while ((at += skip(place, n - at)) < n) {
        size_t start = at;
        const struct frontend *message;
        const uint8_t *head;
        uint32_t length;

        if (place->have == 0 && !may_begin(s, bytes[at], scan))
            return start;
        if (!(head = header(place, bytes, n, &at)))
            break;
        message = &frontend_messages[head[0]];
        length = big_endian(head + 1);
        if (!frontend_length_ok(message, length))
            return refuse(scan, invalid_length, place, start, at);
        if (message->kind == ASKS)
            enter(s, message->entry);
        place->remaining = length - 4u;
    }
    return n;
}

static size_t pg_from_server(void *client, void *server, const uint8_t *bytes, size_t n,
                             struct tb_scan *scan)
{
    struct server *s = server;
    struct place *place = &s->place;
    size_t at = 0;

    (void)client;
    *scan = (struct tb_scan){.verdict = TB_GO};
    while (at < n) {
        size_t start = at;
        const struct backend *message;
        const uint8_t *head;
        uint32_t length;

        if (place->remaining) {
            at += skip(place, n - at);
            if (s->type == 'Z' && !place->remaining)
                ready(s, bytes[at - 1], scan);
            continue;
        }
        if (place->have == 0 && backend_messages[bytes[at]].kind == WRONG) {
            give_up(s);
            stop(scan, TB_BAD, invalid_server_type);
            return start;
        }
        if (!(head = header(place, bytes, n, &at)))
            break;
        message = &backend_messages[head[0]];
        length = big_endian(head + 1);
        if (!backend_length_ok(message, length)) {
            give_up(s);
            return refuse(scan, invalid_server_length, place, start, at);
        }
        s->type = head[0];
        heed(s, message);
        place->remaining = length - 4u;
    }
    return n;
}

/* -------------------------------------------------------------------------------- the standing */

static int pg_standing(const void *client, const void *server)
{
    const struct client *c = client;
    const struct server *s = server;

    if (s->flags & UNSURE)
        return TB_UNSURE;
    if (s->count || (s->flags & (SKIPPING | COPY_IN)) || midway(&s->place) || midway(&c->place))
        return TB_BUSY;
    return s->flags & (UNSYNCED | IN_TRANSACTION) ? TB_OPEN : TB_APART;
}

static int pg_last_words(const void *server)
{
    const struct server *s = server;

    if (midway(&s->place))
        return TB_WORDS_CUT;
    return s->type == 'E' ? TB_WORDS_ERROR : TB_WORDS_WHOLE;
}

static void pg_server_free(void *server)
{
    struct server *s = server;

    free(s->many);
    s->many = NULL;
}

static void pg_server_fresh(void *server)
{
    pg_server_free(server);
    memset(server, 0, sizeof(struct server));
}

/* Declared here too: cffi's generated file has the same line, and needs no header for it. */
const struct tb_framing *pg_framing(void);

const struct tb_framing *pg_framing(void)
{
    static const struct tb_framing framing = {
        .abi = TB_FRAMING_ABI,
        .client_size = sizeof(struct client),
        .server_size = sizeof(struct server),
        .opening = pg_opening,
        .from_client = pg_from_client,
        .from_server = pg_from_server,
        .standing = pg_standing,
        .last_words = pg_last_words,
        .server_fresh = pg_server_fresh,
        .server_free = pg_server_free,
    };
    return &framing;
}
