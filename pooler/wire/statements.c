/* Prepared statements of clients that share servers.
 *
 * A client may meet another server in each transaction, and PostgreSQL keeps prepared statements by
 * server. So every named statement that a client prepares is remembered by its text and parameter
 * types (one copy, however many clients prepare it), and each server knows it under a label of ours.
 * Names are rewritten on the way; a statement that a server lacks is prepared on it just before it is
 * needed, by a Parse of ours whose answer is swallowed.
 *
 * What is sent in the place of what (the answers to what is in brackets are swallowed):
 *
 *   Parse name      [Close label] Parse label    a real one, always: it fails when PostgreSQL's would
 *   Parse name,     [Close TWICE] [Parse TWICE] Parse TWICE    fails as PostgreSQL's does: 42P05
 *     in use
 *   Bind, Describe  [Close label] [Parse label] Bind label     in brackets: where the server lacks it
 *   Close name      Close NOBODY      nothing is closed, and CloseComplete comes at its place
 *   Bind ""         [Parse ""] Bind ""    where the unnamed statement there is another's
 *   DEALLOCATE name DEALLOCATE label      or that of another that can be spared
 *
 * The Close before a Parse costs nothing that matters (a statement is prepared once per server), and
 * makes sure that our idea of what a server has, should it be wrong, harms nobody.
 *
 * When things are true
 * --------------------
 * The server answers in order, and skips what follows an error up to the next Sync. So what a request
 * will change (who has what under which name) is noted in its entry of the account, and becomes true
 * when it has been answered. A request that depends on one not yet answered can rely on it when no
 * Sync stands between them: if the first fails, the second is skipped. Beyond a Sync it cannot, and
 * waits (TOLD_LATER) for the answers, which a Sync brings for certain.
 *
 * An error may quote a label: 'prepared statement "_tp7" does not exist'. The client's name is put in
 * its place.
 *
 * The unnamed statement is treated alike, by its text: a client that binds it in a later transaction
 * gets it prepared again. One whose text is too large to be remembered for each client that has gone
 * idle holds as long as the client keeps the server (`large_unnamed`); then there is none.
 */
#include "statements.h"
#include "framing_messages.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TWICE_LABEL LABEL "2"
#define NOBODYS_LABEL LABEL "0"
#define ESCAPE LABEL "?" /* before a client's own name that looks like a label */

#define LONGEST_NAMES 10000u         /* bytes in which the names in a Bind must end */
#define LARGEST_TEXT (16u << 20)     /* of a named statement */
#define LARGEST_UNNAMED (64u << 10)  /* of an unnamed one that is remembered */
#define LONGEST_DEALLOCATE 300u
#define MOST_NAMES 100000u           /* of one client */
#define MOST_BYTES ((size_t)64 << 20) /* of their texts */

/* ------------------------------------------------------------------------- when it is answered */

void entry_release(struct entry *entry)
{
    name_drop(entry->name);
    statement_drop(entry->statement);
    entry->name = NULL;
    entry->statement = NULL;
    entry->does = 0;
}

void entry_done(struct known *known, struct prepared *prepared, struct entry *entry)
{
    if (entry->does & PREPARES)
        prepared_add(prepared, entry->statement);
    if (entry->does & DISMISSES)
        prepared_remove(prepared, entry->statement);
    if (entry->does & NAMES)
        known_add(known, entry->name);
    if (entry->does & UNNAMES)
        known_remove(known, entry->name);
    if (entry->does & (SETS_UNNAMED | DROPS_UNNAMED)) {
        struct statement *unnamed = entry->does & SETS_UNNAMED ? entry->statement : NULL;

        set_unnamed(&prepared->unnamed, unnamed);
        set_unnamed(&known->unnamed, unnamed);
        prepared->large_unnamed = entry->does & SETS_UNNAMED && !entry->statement;
        prepared->stray_unnamed = false;
    }
    entry_release(entry);
}

void entry_failed(struct known *known, struct prepared *prepared, struct entry *entry, bool failed)
{
    if (failed && entry->does & SETS_UNNAMED) { /* the former one is gone all the same */
        set_unnamed(&prepared->unnamed, NULL);
        if (!(entry->does & SWALLOWED_ANSWER))
            set_unnamed(&known->unnamed, NULL);
        prepared->large_unnamed = prepared->stray_unnamed = false;
    }
    entry_release(entry);
}

bool entry_has_label(const struct entry *entry)
{
    return entry->name;
}

void statements_forget(struct known *known, struct prepared *prepared)
{
    known_clear(known);
    prepared_clear(prepared);
}

/* ------------------------------------------------------------------------ what is not yet true */

struct outlook {
    const struct entry *entry; /* the last that changes what was asked about; NULL: none does */
    bool beyond;               /* what comes now is handled even if that fails */
};

static struct outlook look(struct account *account, bool (*concerns)(const struct entry *, const void *),
                           const void *what)
{
    bool beyond = false;

    for (uint32_t i = account->does_count ? account->count : 0; i-- > 0;) {
        const struct entry *entry = account_at(account, i);

        beyond |= (entry->kind & READIED) != 0; /* a query that fails stops nothing behind it */
        if (entry->does && concerns(entry, what))
            return (struct outlook){entry, beyond};
    }
    return (struct outlook){0};
}

struct text {
    const uint8_t *bytes;
    size_t length;
};

static bool concerns_name(const struct entry *entry, const void *what)
{
    const struct text *text = what;

    return entry->does & (NAMES | UNNAMES) && is_called(entry->name, text->bytes, text->length);
}

static bool concerns_statement(const struct entry *entry, const void *what)
{
    return entry->does & (PREPARES | DISMISSES) && entry->statement == what;
}

static bool concerns_unnamed(const struct entry *entry, const void *what)
{
    (void)what;
    return entry->does & (SETS_UNNAMED | DROPS_UNNAMED);
}

static bool concerns_everything(const struct entry *entry, const void *what)
{
    (void)what;
    return entry->does & FORGETS;
}

bool statements_may_end(const uint8_t *text, size_t n)
{
    static const char *const words[] = {"discard", "deallocate"};

    for (size_t i = 0; i < n; i++)
        for (int w = 0; (text[i] | 32) == 'd' && w < 2; w++)
            if (n - i >= strlen(words[w]) &&
                !strncasecmp((const char *)text + i, words[w], strlen(words[w])))
                return true;
    return false;
}

/* ---------------------------------------------------------------------------------- requests */

static void put_message(struct out *out, uint8_t type, size_t body)
{
    size_t length = body + 4;
    uint8_t head[HEADER] = {type, (uint8_t)(length >> 24), (uint8_t)(length >> 16),
                            (uint8_t)(length >> 8), (uint8_t)length};

    out_put(out, head, HEADER);
}

struct request {
    struct known *known;
    struct prepared *prepared;
    struct account *account;
    struct out *out;
    const uint8_t *message;
    size_t have;
    uint32_t length;
};

static struct entry *enter_with(const struct request *r, uint8_t kind, uint16_t does,
                                struct statement *statement, struct name *name)
{
    struct entry *entry = account_add(r->account, kind);

    entry->does = does;
    entry->statement = statement_keep(statement);
    entry->name = name_keep(name);
    r->account->does_count += does != 0;
    r->account->swallows += (does & SWALLOWED_ANSWER) != 0;
    r->account->prepares += (does & PREPARES) != 0;
    r->account->dismisses += (does & DISMISSES) != 0;
    return entry;
}

static void put_close(const struct request *r, const char *label, struct statement *statement,
                      uint16_t does)
{
    size_t length = strlen(label) + 1;

    put_message(r->out, 'C', 1 + length);
    out_put(r->out, "S", 1);
    out_put(r->out, label, length);
    enter_with(r, CLOSE, SWALLOWED_ANSWER | does, statement, NULL);
}

static void put_parse(const struct request *r, const char *label, const void *text, size_t n)
{
    size_t length = strlen(label) + 1;

    put_message(r->out, 'P', length + n);
    out_put(r->out, label, length);
    out_put(r->out, text, n);
}

static bool answers_will_come(struct account *account)
{
    for (uint32_t i = account->count; i-- > 0;)
        if (account_at(account, i)->kind & READIED)
            return true;
    return false;
}

/* One more is about to be prepared: the one not used for longest gives way; and another where there are
 * too many, as after a long pipeline without a Sync. */
static enum told make_room(const struct request *r)
{
    struct prepared *prepared = r->prepared;
    struct account *account = r->account;

    for (int i = 0; i < 2; i++) {
        size_t count = (size_t)prepared->count + account->prepares - account->dismisses;
        struct slot *oldest = prepared->oldest;

        if (count < prepared->shared->limit)
            break;
        if (!oldest || look(account, concerns_statement, oldest->statement).entry)
            return i == 0 && answers_will_come(account) ? TOLD_LATER : TOLD;
        put_close(r, oldest->statement->label, oldest->statement, DISMISSES);
        prepared_use(prepared, oldest->statement); /* so that the next to give way is another */
    }
    return TOLD;
}

/* The server has it when what comes now is handled, or TOLD_LATER. */
static enum told provide(const struct request *r, struct statement *statement)
{
    struct outlook outlook = look(r->account, concerns_statement, statement);

    if (outlook.entry && outlook.beyond)
        return TOLD_LATER;
    if (outlook.entry ? outlook.entry->does & PREPARES : prepared_use(r->prepared, statement))
        return TOLD;
    if (make_room(r) == TOLD_LATER)
        return TOLD_LATER;
    put_close(r, statement->label, NULL, 0);
    put_parse(r, statement->label, statement->text, statement->length);
    enter_with(r, PARSE, SWALLOWED_ANSWER | PREPARES, statement, NULL);
    return TOLD;
}

/* The name as the client will know it then; *later if that is not certain. */
static struct name *find(const struct request *r, struct text text, bool *later)
{
    struct outlook outlook = look(r->account, concerns_name, &text);
    struct name *name;

    *later = outlook.entry && outlook.beyond;
    if (outlook.entry)
        return outlook.entry->does & NAMES ? outlook.entry->name : NULL;
    name = known_find(r->known, text.bytes, text.length);
    *later = name && look(r->account, concerns_everything, NULL).entry;
    return name;
}

static bool looks_like_a_label(struct text text)
{
    return text.length >= strlen(LABEL) && !memcmp(text.bytes, LABEL, strlen(LABEL));
}

/* The bytes from `at` on up to a NUL; false if there is none. */
static bool string_at(const struct request *r, size_t at, struct text *text)
{
    const uint8_t *end = at < r->have ? memchr(r->message + at, 0, r->have - at) : NULL;

    if (!end)
        return false;
    *text = (struct text){r->message + at, (size_t)(end - r->message) - at};
    return true;
}

/* The message with another name in the place of that one, as much of it as is there. */
static bool put_renamed(const struct request *r, struct text text, const char *before,
                        const void *name, size_t n)
{
    size_t start = (size_t)(text.bytes - r->message), end = start + text.length;
    size_t extra = strlen(before) + n;
    size_t body = (size_t)r->length - 4 - text.length + extra;

    if (body + 4 > LARGE_MESSAGE)
        return false;
    put_message(r->out, r->message[0], body);
    out_put(r->out, r->message + HEADER, start - HEADER);
    out_put(r->out, before, strlen(before));
    out_put(r->out, name, n);
    out_put(r->out, r->message + end, r->have - end);
    return true;
}

static void put_as_it_is(const struct request *r)
{
    if (r->message == r->out->in + r->out->passed)
        out_pass(r->out, r->out->passed + r->have);
    else
        out_put(r->out, r->message, r->have);
}

/* A name that we know nothing of: PostgreSQL may (PREPARE), and if not, says so in its words. */
static bool put_unknown(const struct request *r, struct text text, uint8_t kind)
{
    struct name *name;

    if (!looks_like_a_label(text)) {
        put_as_it_is(r);
        enter_with(r, kind, 0, NULL, NULL);
        return true;
    }
    if (!put_renamed(r, text, ESCAPE, text.bytes, text.length))
        return false;
    name = name_new(text.bytes, text.length, NULL);
    enter_with(r, kind, 0, NULL, name);
    name_drop(name);
    return true;
}

static const char too_long[] = "invalid message length";
static const char too_many[] = "too many prepared statements";
static const char too_large[] = "a prepared statement is too large";

static enum told bad(const char **why, const char *what)
{
    *why = what;
    return TOLD_BAD;
}

/* Whoever binds it may be about to change the session. */
static void watch_bound(const struct request *r, const struct statement *statement, uint8_t kind)
{
    struct watch *watch = &r->known->watch;
    bool marks = true;

    if (!watch->shared || kind != BIND || !(statement ? statement->watched : watch->suspect))
        return;
    if (statement) {
        watch_begin(watch, statement->length, A_QUERY);
        watch_bytes(watch, statement->text, statement->length);
        marks = watch->reading.marks;
    }
    watch_values(watch, r->length - 4u, marks); /* what is not there yet is read as it goes by */
    watch_bytes(watch, r->message + HEADER, r->have - HEADER);
}

/* What is prepared now means what it means with these settings. */
static struct statement *intern_for(struct known *known, const uint8_t *text, uint32_t length)
{
    const struct watch *watch = &known->watch;

    return intern(known->shared, text, length, watch->wanted ? watch->wanted->scope : NULL,
                  watch->marked || watch->rereads);
}

static bool has(const struct request *r, const struct statement *statement)
{
    struct outlook outlook = look(r->account, concerns_statement, statement);

    return outlook.entry ? outlook.entry->does & PREPARES : prepared_use(r->prepared, statement);
}

/* A statement that will have to be prepared again, with other settings than those it was first: whoever
 * shares it must not find it so. */
static void adapt(const struct request *r, struct statement **at)
{
    const struct watch *watch = &r->known->watch;
    struct statement *statement = *at;

    if (statement->alone || has(r, statement) ||
        (!watch->marked && !watch->rereads &&
         statement->scope == (watch->wanted ? watch->wanted->scope : NULL)))
        return;
    *at = intern_for(r->known, statement->text, statement->length);
    statement_drop(statement);
}

static enum told request_unnamed(const struct request *r, uint8_t kind)
{
    struct statement *wanted = r->known->unnamed, *there = r->prepared->unnamed;
    bool differ = wanted != there || r->prepared->stray_unnamed;
    struct outlook outlook = look(r->account, concerns_unnamed, NULL);

    /* A change under way will make both sides of one mind, unless it is skipped. */
    if (differ && outlook.entry && outlook.beyond)
        return TOLD_LATER;
    if (differ && !outlook.entry) {
        if (wanted) {
            adapt(r, &r->known->unnamed);
            wanted = r->known->unnamed;
            put_parse(r, "", wanted->text, wanted->length);
            enter_with(r, PARSE, SWALLOWED_ANSWER | SETS_UNNAMED, wanted, NULL);
        } else {
            put_close(r, "", NULL, DROPS_UNNAMED);
        }
    }
    if (outlook.entry && outlook.entry->does & SETS_UNNAMED)
        wanted = outlook.entry->statement;
    watch_bound(r, wanted, kind);
    put_as_it_is(r);
    enter_with(r, kind, 0, NULL, NULL);
    return TOLD;
}

/* Bind, or Describe of a statement: the name begins at `text`. */
static enum told request_use(const struct request *r, struct text text, uint8_t kind,
                             const char **why)
{
    struct name *name;
    bool later;

    if (!text.length)
        return request_unnamed(r, kind);
    name = find(r, text, &later);
    if (later)
        return TOLD_LATER;
    if (!name)
        return put_unknown(r, text, kind) ? TOLD : bad(why, too_long);
    adapt(r, &name->statement);
    if (provide(r, name->statement) == TOLD_LATER)
        return TOLD_LATER;
    if (!put_renamed(r, text, "", name->statement->label, strlen(name->statement->label)))
        return bad(why, too_long);
    watch_bound(r, name->statement, kind);
    enter_with(r, kind, 0, NULL, name);
    return TOLD;
}

static enum told request_close(const struct request *r, struct text text, const char **why)
{
    struct name *name;
    bool later;

    if (!text.length) {
        put_as_it_is(r);
        enter_with(r, CLOSE, DROPS_UNNAMED, NULL, NULL);
        return TOLD;
    }
    name = find(r, text, &later);
    if (later)
        return TOLD_LATER;
    if (!name)
        return put_unknown(r, text, CLOSE) ? TOLD : bad(why, too_long);
    if (!put_renamed(r, text, "", NOBODYS_LABEL, strlen(NOBODYS_LABEL)))
        return bad(why, too_long);
    enter_with(r, CLOSE, UNNAMES, NULL, name);
    return TOLD;
}

/* Whether what is behind the name in a Parse is as it has to be: a string, a count, so many types. */
static bool well_formed(const uint8_t *text, size_t n)
{
    const uint8_t *end = memchr(text, 0, n);
    size_t rest = end ? n - (size_t)(end - text) - 1 : 0;

    return rest >= 2 && rest == 2 + 4 * ((size_t)end[1] << 8 | end[2]);
}

/* It is not remembered: read as it goes by. */
static void watch_large(struct watch *watch, const struct request *r)
{
    watch->suspect = false;
    watch_begin(watch, r->length - 4u, A_PARSE);
    watch_bytes(watch, r->message + HEADER, r->have - HEADER);
}

static enum told request_parse_unnamed(const struct request *r)
{
    const uint8_t *text = r->message + HEADER + 1;
    uint32_t n = r->length - 5;
    bool whole = r->have == (size_t)r->length + 1;
    struct statement *statement = NULL;

    if (whole && well_formed(text, n))
        statement = intern_for(r->known, text, n);
    else if (r->known->watch.shared)
        watch_large(&r->known->watch, r);
    put_as_it_is(r);
    enter_with(r, PARSE, SETS_UNNAMED, statement, NULL);
    statement_drop(statement);
    return TOLD;
}

static enum told request_parse(const struct request *r, struct text text, const char **why)
{
    const uint8_t *body = text.bytes + text.length + 1;
    uint32_t n = (uint32_t)(r->message + r->have - body);
    struct statement *statement;
    struct outlook outlook;
    struct name *name;
    bool later, has;

    name = find(r, text, &later);
    if (later)
        return TOLD_LATER;
    if (name) {
        put_close(r, TWICE_LABEL, NULL, 0);
        put_parse(r, TWICE_LABEL, "\0\0", 3);
        enter_with(r, PARSE, SWALLOWED_ANSWER, NULL, NULL);
        put_parse(r, TWICE_LABEL, body, n);
        enter_with(r, PARSE, 0, NULL, name);
        return TOLD;
    }
    if (!well_formed(body, n))
        return put_unknown(r, text, PARSE) ? TOLD : bad(why, too_long);
    if (r->known->count >= MOST_NAMES)
        return bad(why, too_many);
    if (r->known->bytes + n > MOST_BYTES)
        return bad(why, too_large);
    statement = intern_for(r->known, body, n);
    name = name_new(text.bytes, text.length, statement);
    outlook = look(r->account, concerns_statement, statement);
    has = outlook.entry ? outlook.entry->does & PREPARES : prepared_use(r->prepared, statement);
    if (!has && make_room(r) == TOLD_LATER) {
        name_drop(name);
        return TOLD_LATER;
    }
    put_close(r, statement->label, statement, has ? DISMISSES : 0);
    put_parse(r, statement->label, statement->text, statement->length);
    enter_with(r, PARSE, PREPARES | NAMES, statement, name);
    name_drop(name);
    return TOLD;
}

size_t statements_need(const uint8_t *message, size_t have, uint32_t length)
{
    size_t whole = (size_t)length + 1;
    const uint8_t *end;

    if (have >= whole)
        return 0;
    switch (message[0]) {
    case 'C':
    case 'D':
        return whole;
    case 'Q':
        if (have <= HEADER)
            return HEADER + 1;
        return (message[HEADER] | 32) == 'd' && whole <= LONGEST_DEALLOCATE ? whole : 0;
    case 'P':
        if (have <= HEADER)
            return HEADER + 1;
        return whole > (message[HEADER] ? LARGEST_TEXT : LARGEST_UNNAMED) ? 0 : whole;
    default: /* Bind: both of its names */
        end = have > HEADER ? memchr(message + HEADER, 0, have - HEADER) : NULL;
        if (end && memchr(end + 1, 0, have - (size_t)(end + 1 - message)))
            return 0;
        if (whole <= LONGEST_NAMES)
            return whole;
        return have < LONGEST_NAMES ? LONGEST_NAMES : 0;
    }
}

static enum told ask(const struct request *r, const char **why)
{
    struct text text;
    uint8_t what = r->have > HEADER ? r->message[HEADER] : 0;
    size_t end = (size_t)r->length + 1;

    switch (r->message[0]) {
    case 'P':
        if (r->length >= 5 && what == 0)
            return request_parse_unnamed(r);
        if (end > LARGEST_TEXT)
            return bad(why, too_large);
        if (string_at(r, HEADER, &text))
            return request_parse(r, text, why);
        break;
    case 'B':
        if (string_at(r, HEADER, &text) &&
            string_at(r, HEADER + text.length + 1, &text))
            return request_use(r, text, BIND, why);
        if (r->have < end)
            return bad(why, too_long); /* names longer than any */
        break;
    default: /* Close, Describe: what of, and its name, and nothing behind it */
        if (what != 'S' || !string_at(r, HEADER + 1, &text) ||
            (size_t)(text.bytes - r->message) + text.length + 1 != end)
            break;
        if (r->message[0] == 'C')
            return request_close(r, text, why);
        return request_use(r, text, DESCRIBE, why);
    }
    put_as_it_is(r); /* of a portal, or malformed: PostgreSQL says how */
    enter_with(r, frontend_messages[r->message[0]].entry, 0, NULL, NULL);
    return TOLD;
}

enum told statements_request(struct known *known, struct prepared *prepared,
                             struct account *account, const uint8_t *message, size_t have,
                             uint32_t length, struct out *out, const char **why)
{
    struct request request = {known, prepared, account, out, message, have, length};
    struct out before = *out;
    enum told told = ask(&request, why);

    if (told == TOLD_LATER) /* nothing was entered, and nothing is put */
        *out = before;
    return told;
}

void statements_rename(struct known *known, struct prepared *prepared, const uint8_t *message,
                       size_t have, uint32_t length, struct out *out)
{
    struct request request = {known, prepared, NULL, out, message, have, length};
    struct text text = {0};
    struct name *name = NULL;
    bool found = false;

    if (message[0] == 'B')
        found = string_at(&request, HEADER, &text) &&
                string_at(&request, HEADER + text.length + 1, &text);
    else if ((message[0] == 'C' || message[0] == 'D') && have > HEADER && message[HEADER] == 'S')
        found = string_at(&request, HEADER + 1, &text);
    if (found && text.length)
        name = known_find(known, text.bytes, text.length);
    if (!name || !prepared_use(prepared, name->statement) ||
        !put_renamed(&request, text, "", name->statement->label, strlen(name->statement->label)))
        put_as_it_is(&request);
}

/* ------------------------------------------------------------------------- DEALLOCATE name */

static const uint8_t *skip_word(const uint8_t *at, const char *word)
{
    if (strncasecmp((const char *)at, word, strlen(word)))
        return NULL;
    at += strlen(word);
    return *at == ' ' ? at + strspn((const char *)at, " ") : NULL;
}

static bool is_of_a_name(uint8_t byte)
{
    return byte >= 128 || (byte && strchr("_$0123456789", byte)) ||
           ((byte | 32) >= 'a' && (byte | 32) <= 'z');
}

/* The name as PostgreSQL's scanner takes it, into `name`; its length, or 0. */
static size_t scan_name(const uint8_t **at, uint8_t *name)
{
    bool quoted = **at == '"';
    size_t n = 0;

    *at += quoted;
    for (;; ++*at) {
        uint8_t byte = **at;

        if (quoted && byte == '"' && *++*at != '"')
            return n;
        if (!quoted && !is_of_a_name(byte))
            return n;
        if (!byte)
            return 0;
        name[n++] = !quoted && byte >= 'A' && byte <= 'Z' ? byte | 32 : byte;
    }
}

/* A query "DEALLOCATE name", whole and with its NUL: the length of the name; 0: it is another. */
static size_t deallocates(const uint8_t *query, uint8_t *name)
{
    const uint8_t *at = skip_word(query, "deallocate"), *more;
    bool quoted;
    size_t n;

    if (!at)
        return 0;
    if ((more = skip_word(at, "prepare")))
        at = more;
    quoted = *at == '"';
    n = scan_name(&at, name);
    at += strspn((const char *)at, " ;\n");
    if (*at || (!quoted && n == 3 && !memcmp(name, "all", 3)))
        return 0;
    return n;
}

/* A statement that the server has for certain; NULL: there is none; *later: not yet certain. */
static struct statement *to_spare(const struct request *r, struct statement *wanted, bool *later)
{
    struct outlook outlook = look(r->account, concerns_statement, wanted);
    struct slot *oldest = r->prepared->oldest;

    *later = outlook.entry && outlook.beyond;
    if (outlook.entry ? outlook.entry->does & PREPARES : prepared_use(r->prepared, wanted))
        return wanted;
    if (*later || !oldest)
        return NULL;
    outlook = look(r->account, concerns_statement, oldest->statement);
    *later = outlook.entry && outlook.beyond;
    return outlook.entry ? NULL : oldest->statement;
}

/* Tells PostgreSQL to deallocate something, so that its answer is the one that is due: the statement
 * itself; or where the server lacks it, one that can be spared, or one prepared for that. */
static enum told put_deallocate(const struct request *r, struct name *name, uint16_t does,
                                bool synced)
{
    bool later;
    struct statement *statement = to_spare(r, name->statement, &later);
    const char *label = statement ? statement->label : TWICE_LABEL;
    char query[LABEL_SIZE + 16];

    if (later)
        return TOLD_LATER;
    if (!statement && !synced)
        return TOLD_NOTHING;
    if (!statement) { /* with a Sync: PostgreSQL 18 would take the query for a part of the same */
        put_close(r, label, NULL, 0);
        put_parse(r, label, "\0\0", 3);
        enter_with(r, PARSE, SWALLOWED_ANSWER, NULL, NULL);
        put_message(r->out, 'S', 0);
        enter_with(r, SYNC, SWALLOWED_ANSWER, NULL, NULL);
    }
    snprintf(query, sizeof query, "DEALLOCATE \"%s\"", label);
    put_message(r->out, 'Q', strlen(query) + 1);
    out_put(r->out, query, strlen(query) + 1);
    enter_with(r, QUERY, (uint16_t)(UNNAMES | does | (statement ? DISMISSES : 0)), statement, name);
    return TOLD;
}

void statements_keep(const uint8_t *message, size_t have, struct out *out)
{
    put_as_it_is(&(struct request){.out = out, .message = message, .have = have});
}

enum told statements_deallocate(struct known *known, struct prepared *prepared,
                                struct account *account, const uint8_t *message, size_t have,
                                uint32_t length, struct out *out, bool has_unnamed, bool synced)
{
    struct request request = {known, prepared, account, out, message, have, length};
    uint8_t text[LONGEST_DEALLOCATE];
    struct name *name;
    bool later;
    size_t n = 0;

    if (have <= LONGEST_DEALLOCATE && have == (size_t)length + 1 &&
        memchr(message + HEADER, 0, have - HEADER) == message + have - 1)
        n = deallocates(message + HEADER, text);
    if (!n)
        return TOLD_NOTHING;
    name = find(&request, (struct text){text, n}, &later);
    if (later)
        return TOLD_LATER;
    if (!name)
        return TOLD_NOTHING;
    return put_deallocate(&request, name, has_unnamed ? DROPS_UNNAMED : 0, synced);
}

/* ------------------------------------------------------------------------------------ errors */

static const uint8_t *search(const uint8_t *bytes, size_t n, const char *what)
{
    size_t length = strlen(what);

    for (; n >= length; bytes++, n--)
        if (!memcmp(bytes, what, length))
            return bytes;
    return NULL;
}

void statements_error(struct prepared *prepared, const uint8_t *message, size_t length,
                      struct out *out)
{
    struct name *name = prepared->failing;
    char quoted[LABEL_SIZE + 4];
    const uint8_t *at = NULL;
    size_t skip = 0;

    prepared->failing = NULL;
    if (name->statement) {
        snprintf(quoted, sizeof quoted, "\"%s\"", name->statement->label);
        at = search(message, length, quoted);
        if (!at) {
            snprintf(quoted, sizeof quoted, "\"%s\"", TWICE_LABEL);
            at = search(message, length, quoted);
        }
        skip = strlen(quoted) - 2;
    } else if ((at = search(message, length, "\"" ESCAPE))) {
        skip = strlen(ESCAPE) + name->length;
        if ((size_t)(message + length - at) < 1 + skip ||
            memcmp(at + 1 + strlen(ESCAPE), name->text, name->length))
            at = NULL; /* something else that begins like it */
    }
    if (at) {
        at++; /* the quotation mark stays */
        put_message(out, message[0], length - HEADER - skip + name->length);
        out_put(out, message + HEADER, (size_t)(at - message) - HEADER);
        out_put(out, name->text, name->length);
        out_put(out, at + skip, (size_t)(message + length - at) - skip);
    } else {
        out_put(out, message, length);
    }
    name_drop(name);
}
