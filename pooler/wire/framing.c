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
 *
 * Where a multiplexer was made with a limit of prepared statements, messages that concern them are
 * looked at and rewritten: statements.c.
 */
#include "framing.h"
#include "framing_messages.h"
#include "memory.h"
#include "session.h"
#include "statements.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum flag {
    UNSURE = 1,
    SKIPPING = 2,
    COPY_IN = 4,
    SWALLOWED = 8,
    UNSYNCED = 16,
    IN_TRANSACTION = 32, /* the last ReadyForQuery did not say idle */
    DISTURBED = UNSURE | SKIPPING | COPY_IN,
};

/* The tags "DISCARD ALL" and "DEALLOCATE ALL": what they end, no other message tells. */
#define TAG_SIZE 16u

#define LONGEST_ERROR (64u << 10) /* that is looked at for a label */
#define READY_MESSAGE 6u

static const char no_blocks[] = "transaction blocks not allowed in statement pooling mode";

/* Where in a message one direction is. */
struct place {
    uint32_t remaining; /* bytes of the body still to come */
    uint8_t have;       /* bytes of the header seen, 0 to 4 */
    uint8_t head[HEADER];
};

struct client {
    struct place place;
    struct known known;
};

struct server {
    struct place place;
    uint8_t type; /* of the current or the last message */
    uint8_t flags;
    bool collecting;       /* an error, whole */
    bool dropping;         /* a message that only we have asked for */
    bool unfit;            /* it does not take the settings that its client wants */
    bool forward;          /* what its client asked for is already under way behind them */
    bool brief;            /* no transaction may outlast a request */
    bool delicate;         /* nothing goes on before its settings are restored */
    uint8_t tag_length;    /* of a CommandComplete that is looked at; 0: none is */
    uint8_t tag[TAG_SIZE];
    struct account account;
    struct prepared prepared;
    struct settings *settings; /* of its session; NULL: those of a new one */
};

static inline bool midway(const struct place *place)
{
    return place->remaining || place->have;
}

/* --------------------------------------------------------------------------------- the account */

static bool grow(struct account *account)
{
    uint32_t size = account->many ? account->many_size * 2u : INLINE_ENTRIES * 2u;
    struct entry *many;

    if (account->count >= MOST_ENTRIES || !(many = malloc(size * sizeof *many)))
        return false;
    for (uint32_t i = 0; i < account->count; i++)
        many[i] = *account_at(account, i);
    free(account->many);
    account->many = many;
    account->many_size = size;
    account->first = 0;
    return true;
}

bool account_reserve(struct account *account, uint32_t more)
{
    while (account->count + more > (account->many ? account->many_size : INLINE_ENTRIES))
        if (!grow(account))
            return false;
    return true;
}

/* The kind of the first entry; 0 if there is none, which no mask contains. It is never a MARKER. */
static inline uint8_t head_of(struct server *s)
{
    return s->account.count ? account_at(&s->account, 0)->kind : 0;
}

static inline void uncount(struct account *account, const struct entry *entry)
{
    account->does_count -= entry->does != 0;
    account->swallows -= (entry->does & SWALLOWED_ANSWER) != 0;
    account->prepares -= (entry->does & PREPARES) != 0;
    account->dismisses -= (entry->does & DISMISSES) != 0;
}

static inline void drop_first(struct server *s)
{
    struct entry *entry = account_at(&s->account, 0);

    if (entry->does || entry->name) {
        uncount(&s->account, entry);
        entry_release(entry);
    }
    s->account.first++;
    s->account.count--;
}

static void drop_all(struct server *s)
{
    while (s->account.count)
        drop_first(s);
}

static void set_settings(struct settings **at, struct settings *settings)
{
    settings_keep(settings);
    settings_drop(*at);
    *at = settings;
}

/* The first entry has been answered. Whether its answer was ours alone. */
static inline bool pop(struct client *c, struct server *s)
{
    struct entry *entry = account_at(&s->account, 0);
    bool swallow = entry->does & SWALLOWED_ANSWER;

    if (entry->does & RESTORES) {
        set_settings(&s->settings, c->known.watch.wanted);
        s->delicate = false;
    }
    if (entry->does || entry->name) {
        uncount(&s->account, entry);
        entry_done(&c->known, &s->prepared, entry);
    }
    drop_first(s);
    while (head_of(s) == MARKER && s->account.count)
        drop_first(s);
    return swallow;
}

static void give_up(struct server *s)
{
    s->flags |= UNSURE;
    drop_all(s);
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

/* A simple query does away with the unnamed statement, if there may be one. */
static inline bool has_unnamed(const struct client *c, const struct server *s)
{
    return c->known.unnamed || s->prepared.unnamed || s->prepared.large_unnamed ||
           s->account.does_count;
}

/* A request whose header is complete. Room was reserved when its type was seen. */
static inline void enter(struct server *s, uint8_t kind)
{
    if ((s->flags & DISTURBED) && !entered_all_the_same(s, kind))
        return;
    if (kind == MARKER && s->account.count == 0)
        return;
    account_add(&s->account, kind);
}

/* A simple query ends the unnamed statement, if there is one, and may end all others; `body` is as
 * much of it as is there. */
static void enter_query(struct client *c, struct server *s, const uint8_t *body, size_t have,
                        uint32_t length)
{
    uint32_t before = s->account.count;
    struct entry *entry;

    enter(s, QUERY);
    if (s->account.count == before)
        return;
    entry = account_at(&s->account, before);
    if (has_unnamed(c, s))
        entry->does = DROPS_UNNAMED;
    if ((c->known.count || s->account.does_count) &&
        (have < length || statements_may_end(body, length)))
        entry->does |= FORGETS;
    s->account.does_count += entry->does != 0;
}

static void fail(struct client *c, struct server *s)
{
    uint8_t head = head_of(s);
    bool failed = true;

    s->flags &= (uint8_t)~COPY_IN;
    if ((s->flags & SWALLOWED) || !head) { /* unasked for: the server is about to close */
        give_up(s);
    } else if (head & EXTENDED) {
        for (; s->account.count && head_of(s) != SYNC; failed = false) {
            struct entry *entry = account_at(&s->account, 0);

            if (failed && entry_has_label(entry))
                s->prepared.failing = name_keep(entry->name);
            uncount(&s->account, entry);
            entry_failed(&c->known, &s->prepared, entry, failed);
            drop_first(s);
        }
        if (s->account.count == 0)
            s->flags |= SKIPPING;
    } else if (account_at(&s->account, 0)->does & RESTORES) {
        s->unfit = true;
        /* Has it been sent anything of its client's already? Or would any other server do no better? */
        s->forward = s->account.count > 1 || midway(&c->place) || c->known.held.length ||
                     !s->settings;
    } else if (account_at(&s->account, 0)->does & UNNAMES) { /* a DEALLOCATE that has failed */
        uncount(&s->account, account_at(&s->account, 0));
        s->prepared.failing = name_keep(account_at(&s->account, 0)->name);
        entry_release(account_at(&s->account, 0));
    }
}

/* The first entry turns out to be a COPY: what it will swallow leaves the account. */
static void copy_in(struct server *s)
{
    struct account *account = &s->account;
    struct entry head = *account_at(account, 0);
    uint8_t next = MARKER;
    uint32_t gone = 0;

    while (gone + 1 < account->count && (next = account_at(account, gone + 1)->kind) == SYNC)
        gone++;
    if (gone)
        s->flags |= SWALLOWED;
    if (gone + 1 == account->count)
        s->flags |= COPY_IN;
    else if (next == MARKER)
        gone++;
    account->first += gone; /* neither does anything */
    account->count -= gone;
    *account_at(account, 0) = head;
}

/* A header from the server, lengths checked. Whether the message is the answer to what only we have
 * asked. */
static inline bool heed(struct client *c, struct server *s, const struct backend *message)
{
    uint8_t head = head_of(s);

    if (message->kind == ANYTIME || message->kind == READY || (s->flags & UNSURE))
        return false;
    if (message->kind == FAILS) {
        fail(c, s);
    } else if (!(message->heads & head) || (s->flags & COPY_IN)) {
        give_up(s); /* CONFUSES has no heads */
    } else if (message->kind == COPIES_IN) {
        copy_in(s);
    } else {
        if (s->type == 'C')
            s->flags &= (uint8_t)~SWALLOWED;
        if (message->pops & head) {
            s->flags |= UNSYNCED;
            return pop(c, s);
        }
    }
    return false;
}

static inline bool is_swallowed(struct server *s)
{
    return s->account.swallows && account_at(&s->account, 0)->does & SWALLOWED_ANSWER;
}

/* Within the answer to a query of ours. */
static inline bool is_ours(struct server *s)
{
    return is_swallowed(s) && head_of(s) == QUERY;
}

/* The body of ReadyForQuery. */
static inline void ready(struct client *c, struct server *s, uint8_t status, struct tb_scan *scan)
{
    uint8_t head = head_of(s);
    bool ours, kept; /* kept: an implicit transaction, by what was to end it */

    if (s->flags & UNSURE)
        return;
    if (!(head & READIED) || (s->flags & (COPY_IN | SWALLOWED))) {
        give_up(s);
        return;
    }
    kept = head != SYNC && status != 'I' && (s->flags & (UNSYNCED | IN_TRANSACTION)) == UNSYNCED;
    ours = pop(c, s);
    scan->answered += !ours;
    s->flags = status == 'I' ? 0 : IN_TRANSACTION;
    if (kept)
        give_up(s);
    if (s->brief && status != 'I' && !ours) {
        scan->verdict = TB_REFUSED;
        scan->why = no_blocks;
    }
}

/* ------------------------------------------------------------------------------------ scanning */

static inline uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
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

static inline bool looks_at_statements(const struct client *c)
{
    return c->known.shared && c->known.shared->limit;
}

/* Whether a ReadyForQuery will come, whatever the client does: it hears that before it has left. */
static bool ready_is_due(struct server *s)
{
    if (s->flags & (UNSURE | COPY_IN))
        return false;
    for (uint32_t i = s->account.count; i-- > 0;)
        if (account_at(&s->account, i)->kind & READIED)
            return true;
    return false;
}

/* May a message of this type begin? Decided at its first byte, before any of it is let on. */
static inline bool may_begin(const struct client *c, struct server *s, uint8_t type,
                             struct tb_scan *scan)
{
    uint8_t kind = frontend_messages[type].kind;
    uint32_t entries = looks_at_statements(c) ? STATEMENTS_ENTRIES : 1;

    if (kind == PASSES ||
        (kind == ASKS && (account_reserve(&s->account, entries) || (s->flags & UNSURE))))
        return true;
    if (kind == ASKS)
        stop(scan, TB_FULL, NULL);
    else if (kind == LEAVES)
        stop(scan, ready_is_due(s) ? TB_FULL : TB_LEAVE, NULL);
    else
        stop(scan, TB_BAD, invalid_type[type]);
    return false;
}

/* Messages whose beginning is looked at; of queries those that may be a DEALLOCATE. */
static inline bool is_of_concern(const struct client *c, const struct server *s,
                                 const uint8_t *message, size_t have)
{
    if (message[0] == 'Q')
        return (c->known.count || s->account.does_count) &&
               (have <= HEADER || (message[HEADER] | 32) == 'd');
    return statements_concern(message[0]);
}

/* Whether no extended-query message came since the last Sync (or query). */
static bool is_synced(struct server *s)
{
    if (s->account.count)
        return account_at(&s->account, s->account.count - 1)->kind & READIED;
    return !(s->flags & UNSYNCED);
}

/* A request that concerns prepared statements, as much of it as is to be looked at. */
static bool look_at(struct client *c, struct server *s, const uint8_t *message, size_t have,
                    struct out *out, struct tb_scan *scan)
{
    uint32_t length = big_endian(message + 1);
    enum told told = TOLD;

    if (message[0] == 'Q' && c->known.watch.shared) {
        watch_begin(&c->known.watch, length - 4u, A_QUERY);
        watch_bytes(&c->known.watch, message + HEADER, have - HEADER);
    }
    if (s->flags & DISTURBED) {
        statements_rename(&c->known, &s->prepared, message, have, length, out);
        enter(s, frontend_messages[message[0]].entry);
    } else if (message[0] == 'Q') {
        told = statements_deallocate(&c->known, &s->prepared, &s->account, message, have, length,
                                     out, has_unnamed(c, s), is_synced(s));
        if (told == TOLD_NOTHING) {
            statements_keep(message, have, out);
            enter_query(c, s, message + HEADER, have - HEADER, length - 4u);
            told = TOLD;
        }
    } else {
        told = statements_request(&c->known, &s->prepared, &s->account, message, have, length,
                                  out, &scan->why);
    }
    if (told == TOLD_LATER)
        scan->verdict = TB_FULL;
    else if (told == TOLD_BAD)
        scan->verdict = TB_BAD;
    else
        c->place.remaining = length + 1u - (uint32_t)have;
    return told == TOLD;
}

/* Such a request that this chunk holds as far as it is looked at, as most do. */
static inline bool is_whole(const uint8_t *message, size_t have)
{
    uint32_t length;

    if (have < HEADER)
        return false;
    length = big_endian(message + 1);
    return frontend_length_ok(&frontend_messages[message[0]], length) &&
           !statements_need(message, have < length + 1u ? have : length + 1u, length);
}

/* Adds to what is held of such a request. False: its length is impossible. */
static bool hold(struct held *held, const uint8_t *bytes, size_t n, size_t *at, bool *enough)
{
    for (;;) {
        size_t need = HEADER, take;

        if (held->length >= HEADER) {
            uint32_t length = big_endian(held->bytes + 1);

            if (!frontend_length_ok(&frontend_messages[held->bytes[0]], length))
                return false;
            need = statements_need(held->bytes, held->length, length);
        }
        *enough = !need;
        if (*enough || *at == n)
            return true;
        take = need - held->length < n - *at ? need - held->length : n - *at;
        held_add(held, bytes + *at, take);
        *at += take;
    }
}

/* Such a request begins at *at, or goes on there. False: it ends the scan, before *at. */
static bool collect(struct client *c, struct server *s, const uint8_t *bytes, size_t n, size_t *at,
                    struct out *out, struct tb_scan *scan)
{
    struct held *held = &c->known.held;
    bool enough = false, fine = true;
    size_t start = *at;

    out_pass(out, *at);
    if (!held->length && is_whole(bytes + *at, n - *at)) {
        size_t whole = big_endian(bytes + *at + 1) + 1u;
        size_t have = whole < n - *at ? whole : n - *at;

        if (!look_at(c, s, bytes + *at, have, out, scan))
            return false;
        *at += have;
        if (out->passed < *at)
            out_drop(out, *at);
        return true;
    }
    if (!hold(held, bytes, n, at, &enough)) {
        stop(scan, TB_BAD, invalid_length);
        fine = false;
    } else if (enough) {
        fine = look_at(c, s, held->bytes, held->length, out, scan);
        if (fine)
            held_clear(held);
    }
    if (!fine && *at > start) { /* the last byte is offered again, with what follows */
        held->length--;
        --*at;
    }
    out_drop(out, *at);
    return fine;
}

static size_t finish(struct out *out, size_t at, struct tb_scan *scan)
{
    if (out->on) {
        out_finish(out, at);
        scan->instead = out_bytes(out);
        scan->instead_length = out->length;
    }
    return at;
}

/* Nothing owed, nothing open, and both at a message's boundary. */
static inline bool at_rest(const struct client *c, const struct server *s)
{
    return !s->account.count && !(s->flags & (DISTURBED | UNSYNCED | IN_TRANSACTION)) &&
           !midway(&c->place) && !midway(&s->place) && !c->known.held.length;
}

/* A client that begins something finds the settings of its session. False: it has to wait. */
static bool restore(struct client *c, struct server *s, struct out *out, struct tb_scan *scan)
{
    struct settings *wanted = c->known.watch.wanted;
    struct entry *entry;

    c->known.watch.local = c->known.watch.rereads = false;
    if (s->settings == wanted)
        return true;
    if (!account_reserve(&s->account, 1 + STATEMENTS_ENTRIES)) {
        scan->verdict = TB_FULL;
        return false;
    }
    settings_put(out, s->settings, wanted);
    set_unnamed(&s->prepared.unnamed, NULL); /* a simple query does away with it */
    s->prepared.stray_unnamed = s->prepared.large_unnamed = false;
    entry = account_add(&s->account, QUERY);
    entry->does = SWALLOWED_ANSWER | RESTORES;
    s->account.does_count++;
    s->account.swallows++;
    s->delicate = settings_are_delicate(s->settings, wanted);
    if (s->delicate)
        scan->verdict = TB_FULL;
    return !s->delicate;
}

/* Bytes of a message's body, from `at` on; returns where they end in this chunk. */
static inline size_t client_body(struct client *c, const uint8_t *bytes, size_t n, size_t at)
{
    size_t step = skip(&c->place, n - at);

    if (c->known.watch.reading.on)
        watch_bytes(&c->known.watch, bytes + at, step);
    return at + step;
}

/* A message that is let on as it is: its text is read, if it has one. */
static inline void watch_message(struct client *c, uint8_t type, uint32_t length)
{
    struct watch *watch = &c->known.watch;

    if (!watch->shared)
        return;
    if (type == 'Q' || (type == 'P' && !looks_at_statements(c)))
        watch_begin(watch, length - 4u, type == 'Q' ? A_QUERY : A_PARSE);
    else if (type == 'B' && watch->suspect)
        watch_values(watch, length - 4u, true);
    else if (type == 'F')
        watch->marked = true; /* a function by its number */
}

static size_t pg_from_client(void *client, void *server, const uint8_t *bytes, size_t n,
                             struct tb_scan *scan)
{
    struct client *c = client;
    struct place *place = &c->place;
    struct server *s = server;
    struct out out = {.shared = c->known.shared, .in = bytes};
    size_t at = 0;

    *scan = (struct tb_scan){.verdict = TB_GO};
    if (s->delicate)
        scan->verdict = TB_FULL;
    if (s->delicate || (c->known.shared && n && frontend_messages[bytes[0]].kind != LEAVES &&
                        at_rest(c, s) && !restore(c, s, &out, scan)))
        return finish(&out, 0, scan);
    while ((at = client_body(c, bytes, n, at)) < n) {
        size_t start = at;
        const struct frontend *message;
        const uint8_t *head;
        uint32_t length;

        if (place->have == 0 && !c->known.held.length && !may_begin(c, s, bytes[at], scan))
            return finish(&out, start, scan);
        if (place->have == 0 && looks_at_statements(c) &&
            (c->known.held.length || is_of_concern(c, s, bytes + at, n - at))) {
            if (!collect(c, s, bytes, n, &at, &out, scan))
                return finish(&out, at, scan);
            continue;
        }
        if (!(head = header(place, bytes, n, &at)))
            break;
        message = &frontend_messages[head[0]];
        length = big_endian(head + 1);
        if (!frontend_length_ok(message, length))
            return finish(&out, refuse(scan, invalid_length, place, start, at), scan);
        watch_message(c, head[0], length);
        if (message->entry == QUERY && looks_at_statements(c))
            enter_query(c, s, bytes + at, n - at, length - 4u);
        else if (message->kind == ASKS)
            enter(s, message->entry);
        place->remaining = length - 4u;
    }
    return finish(&out, n, scan);
}

/* ------------------------------------------------------------------------------ from the server */

/* An error that may call a statement by our label is kept until it is whole. */
static size_t collect_error(struct server *s, const uint8_t *bytes, size_t n, size_t at,
                            struct out *out)
{
    struct held *held = &s->prepared.held;
    size_t take = skip(&s->place, n - at);

    held_add(held, bytes + at, take);
    at += take;
    out_drop(out, at);
    if (!s->place.remaining) {
        statements_error(&s->prepared, held->bytes, held->length, out);
        held_clear(held);
        s->collecting = false;
    }
    return at;
}

static void look_at_tag(struct client *c, struct server *s, const uint8_t *bytes, size_t n)
{
    static const char *const ends[] = {"DISCARD ALL", "DEALLOCATE ALL"};

    memcpy(s->tag + TAG_SIZE - s->tag_length, bytes, n);
    s->tag_length -= (uint8_t)n;
    if (s->tag_length)
        return;
    for (int i = 0; i < 2; i++) {
        size_t length = strlen(ends[i]) + 1;

        if (!memcmp(s->tag + TAG_SIZE - length, ends[i], length))
            statements_forget(&c->known, &s->prepared);
    }
}

/* Bytes of a message's body, from `at` on; returns where they end in this chunk. */
static inline size_t body(struct client *c, struct server *s, const uint8_t *bytes, size_t n,
                          size_t at, struct out *out, struct tb_scan *scan)
{
    size_t start = at;

    if (s->collecting)
        return collect_error(s, bytes, n, at, out);
    at += skip(&s->place, n - at);
    if (s->dropping) {
        out_drop(out, at);
        s->dropping = s->place.remaining;
    }
    if (s->tag_length)
        look_at_tag(c, s, bytes + start, at - start);
    if (s->type == 'Z' && !s->place.remaining)
        ready(c, s, bytes[at - 1], scan);
    return at;
}

/* A header that may be one to drop or to keep: at the end of a chunk it waits for its rest. */
static inline void header_seen(struct server *s, bool swallow, const uint8_t *head, size_t start,
                               size_t at, bool split, struct out *out)
{
    s->collecting = s->prepared.failing;
    if (!s->collecting && !swallow && !split)
        return;
    out_pass(out, start);
    out_drop(out, at);
    if (s->collecting)
        held_add(&s->prepared.held, head, HEADER);
    else if (!swallow)
        out_put(out, head, HEADER);
}

/* It has said what it does not like about the settings. Either its client has heard that, or the next
 * server is to try. */
static size_t unfit(struct server *s, struct out *out, size_t start, bool split,
                    struct tb_scan *scan)
{
    stop(scan, s->forward ? TB_BAD : TB_UNFIT, "a session's settings could not be restored");
    give_up(s);
    s->type = 'E'; /* that is what its client has heard last, if anything */
    return finish(out, split ? 0 : start, scan);
}

/* Behind a ReadyForQuery that the client is told of no more, nor of the CommandComplete before it
 * (which begins at `command`, in this chunk, if it is below `at`): an error takes their place. */
static size_t refused(const uint8_t *bytes, size_t at, size_t command, struct out *out,
                      struct tb_scan *scan)
{
    size_t heard = command < at ? command : at >= READY_MESSAGE ? at - READY_MESSAGE : at;

    finish(out, heard, scan);
    if (!out->on) {
        scan->instead = bytes;
        scan->instead_length = heard;
    }
    return at;
}

static size_t pg_from_server(void *client, void *server, const uint8_t *bytes, size_t n,
                             struct tb_scan *scan)
{
    struct client *c = client;
    struct server *s = server;
    struct place *place = &s->place;
    struct out out = {.shared = c->known.shared, .in = bytes};
    size_t at = 0, command = SIZE_MAX;

    *scan = (struct tb_scan){.verdict = TB_GO};
    while (at < n) {
        size_t start = at;
        const struct backend *message;
        const uint8_t *head;
        uint32_t length;
        bool swallow, split = place->have;

        if (place->remaining) {
            at = body(c, s, bytes, n, at, &out, scan);
            if (scan->verdict == TB_REFUSED)
                return refused(bytes, at, command, &out, scan);
            continue;
        }
        if (!split && backend_messages[bytes[at]].kind == WRONG) {
            give_up(s);
            stop(scan, TB_BAD, invalid_server_type);
            return finish(&out, start, scan);
        }
        if (!(head = header(place, bytes, n, &at))) {
            if (c->known.shared) {
                out_pass(&out, start);
                out_drop(&out, n);
            }
            break;
        }
        message = &backend_messages[head[0]];
        length = big_endian(head + 1);
        if (!backend_length_ok(message, length)) {
            give_up(s);
            return finish(&out, refuse(scan, invalid_server_length, place, start, at), scan);
        }
        s->type = head[0];
        if (s->brief && s->type != 'Z')
            command = s->type == 'C' && !split ? start : SIZE_MAX;
        swallow = is_ours(s) && !s->forward;
        if (s->unfit && message->kind == READY)
            return unfit(s, &out, start, split, scan);
        if (heed(c, s, message) || (message->kind == READY && is_swallowed(s)))
            swallow = true;
        if (s->forward || head[0] == 'A') /* a notification is nobody else's */
            swallow = false;
        if (head[0] == 'S' && c->known.watch.shared && !swallow)
            watch_reported(&c->known.watch);
        place->remaining = length - 4u;
        if (c->known.shared) {
            if (s->prepared.failing && length > LONGEST_ERROR)
                prepared_let_go(&s->prepared);
            s->dropping = swallow && place->remaining;
            header_seen(s, swallow, head, start, at, split, &out);
            if (head[0] == 'C' && (length == 16 || length == 19))
                s->tag_length = (uint8_t)(length - 4u);
        }
    }
    return finish(&out, n, scan);
}

/* -------------------------------------------------------------------------------- the standing */

static int pg_standing(const void *client, const void *server)
{
    const struct client *c = client;
    const struct server *s = server;

    if (s->flags & UNSURE)
        return TB_UNSURE;
    if (s->account.count || (s->flags & (SKIPPING | COPY_IN)) || midway(&s->place) ||
        midway(&c->place) || c->known.held.length)
        return TB_BUSY;
    if (s->flags & (UNSYNCED | IN_TRANSACTION))
        return TB_OPEN;
    if (c->known.watch.marked)
        return TB_ASK;
    return c->known.watch.kept ? TB_KEPT : TB_APART;
}

static int pg_last_words(const void *server)
{
    struct server *s = (struct server *)(uintptr_t)server; /* only read */

    if (is_ours(s) && !s->forward)
        return TB_WORDS_WHOLE;
    if (midway(&s->place))
        return TB_WORDS_CUT;
    return s->type == 'E' ? TB_WORDS_ERROR : TB_WORDS_WHOLE;
}

#define WATCHES (1ull << 32) /* in the option of a multiplexer; below it, a limit of statements */

static void *pg_shared_new(uint64_t option)
{
    return option ? shared_new((uint32_t)option, option & WATCHES) : NULL;
}

static void pg_shared_free(void *shared)
{
    shared_free(shared);
}

static void pg_client_new(void *client, void *shared)
{
    struct known *known = &((struct client *)client)->known;

    known->shared = shared;
    if (known->shared && known->shared->watches)
        known->watch.shared = shared;
}

static void pg_client_free(void *client)
{
    watch_free(&((struct client *)client)->known.watch);
    known_free(&((struct client *)client)->known);
}

static void pg_server_new(void *server, void *shared)
{
    ((struct server *)server)->prepared.shared = shared;
}

static void pg_brief_server_new(void *server, void *shared)
{
    pg_server_new(server, shared);
    ((struct server *)server)->brief = true;
}

static void pg_server_fresh(void *server)
{
    struct server *s = server;

    drop_all(s);
    free(s->account.many);
    prepared_fresh(&s->prepared);
    s->place = (struct place){0};
    s->type = s->flags = s->tag_length = 0;
    s->collecting = s->dropping = s->unfit = s->forward = s->delicate = false;
    s->account.many = NULL;
    s->account.first = 0;
}

static void pg_server_handled(void *server)
{
    prepared_handled(&((struct server *)server)->prepared);
}

static void pg_server_free(void *server)
{
    struct server *s = server;

    pg_server_fresh(s);
    set_settings(&s->settings, NULL);
    prepared_free(&s->prepared);
}

/* About all: the words that mark a client. About a client or a server: its session's settings. */
static void pg_told(void *shared, void *client, void *server, const uint8_t *bytes, size_t n)
{
    struct settings *settings;

    if (!client && !server) {
        if (shared)
            session_words(shared, bytes, n);
        return;
    }
    settings = shared ? settings_told(shared, bytes, n) : NULL;
    if (client) {
        struct watch *watch = &((struct client *)client)->known.watch;

        set_settings(&watch->wanted, settings);
        watch->marked = watch->local = watch->rereads = false;
        watch->kept = settings_keep_told(bytes, n);
        held_clear(&watch->noted);
    }
    if (server)
        set_settings(&((struct server *)server)->settings, settings);
    settings_drop(settings);
}

static bool pg_suits(const void *client, const void *server)
{
    return ((const struct client *)client)->known.watch.wanted ==
           ((const struct server *)server)->settings;
}

static const uint8_t *pg_noted(const void *client, size_t *n)
{
    const struct held *noted = &((const struct client *)client)->known.watch.noted;

    *n = noted->length;
    return noted->bytes;
}

/* Declared here too: cffi's generated file has the same lines, and needs no header for them. */
const struct tb_framing *pg_framing(void);
const struct tb_framing *pg_brief_framing(void);

const struct tb_framing *pg_framing(void)
{
    static const struct tb_framing framing = {
        .abi = TB_FRAMING_ABI,
        .client_size = sizeof(struct client),
        .server_size = sizeof(struct server),
        .shared_new = pg_shared_new,
        .shared_free = pg_shared_free,
        .client_new = pg_client_new,
        .client_free = pg_client_free,
        .server_new = pg_server_new,
        .server_free = pg_server_free,
        .opening = pg_opening,
        .from_client = pg_from_client,
        .from_server = pg_from_server,
        .standing = pg_standing,
        .last_words = pg_last_words,
        .server_fresh = pg_server_fresh,
        .server_handled = pg_server_handled,
        .told = pg_told,
        .suits = pg_suits,
        .noted = pg_noted,
    };
    return &framing;
}

/* The same, but a transaction must end with the request that began it. */
const struct tb_framing *pg_brief_framing(void)
{
    static struct tb_framing framing;

    framing = *pg_framing();
    framing.server_new = pg_brief_server_new;
    return &framing;
}
