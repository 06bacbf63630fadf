/* What a client leaves behind in its session beside prepared statements.
 *
 * Whether a statement changes the session, and to what, only PostgreSQL knows for certain: there are
 * set_config(), DO, multi-statement queries, SET LOCAL, savepoints and rollbacks. So the text is read
 * for words after which it may have: that is cheap, and says too often yes rather than once no. (Its
 * it; where that depends on something we do not know, the text counts as one that may.) Such a text
 * marks its client. When the marked client would part from its server, the multiplexer has
 * Python ask the server itself (rules/session.py), which tells us the outcome: the settings the
 * session has now, and whether it has anything that only this server has. What no word gives away (a
 * function that does it inside) can be named in a setting, see session_words().
 *
 * Settings are kept as a whole, one copy for all that have the same, so that a client and a server
 * that agree are found out by one comparison. Where they do not, one query changes the server, just
 * before the client's own and in the same packet; its answer is swallowed. Delicate settings (who one
 * is, how long a statement may take) are waited for: the client's request must not be run without.
 */
#define _GNU_SOURCE /* memmem() */
#include "session.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MOST_NOTED 8192u         /* bytes of words for Python */
#define NOTE_LOST "!lost"
#define NOTE_LOAD "!load"
#define NOTE_DISCARD "!discard"
#define NOTE_NAMED "!named"
#define NOTE_SEED "!seed"

/* ------------------------------------------------------------------------------------- words */

enum word {
    OTHER = 0, SET, LOCAL, TRANSACTION, CONSTRAINTS, LOAD, DISCARD, STARTS, CREATES, TEMPORARY, WITH,
    HOLD, MARKS, SET_CONFIG, ENDS, TRUE_, ALL, SEED, SETS_SEED,
    UPDATES, PG_SETTINGS,
};

/* Where in a text a byte is; from SKIPPED on, words do not count. */
enum inside {
    PLAIN = 0, IDENTIFIER, STRING, ESCAPES, VALUES, SKIPPED, ESCAPED = SKIPPED, STATEMENT_NAME, LINE,
    BLOCK,
};
enum argument { EMPTY = 0, IS_TRUE, IS_ELSE };

static const struct {
    const char *text;
    enum word word;
} words[] = {
    {"set", SET}, {"local", LOCAL}, {"transaction", TRANSACTION}, {"constraints", CONSTRAINTS},
    {"load", LOAD}, {"discard", DISCARD}, {"all", ALL}, {"true", TRUE_},
    /* at the start of a statement */
    {"reset", STARTS}, {"listen", STARTS}, {"prepare", STARTS}, {"do", STARTS}, {"seed", SEED},
    /* before "temporary" */
    {"create", CREATES}, {"global", CREATES}, {"replace", CREATES}, {"into", CREATES},
    {"temp", TEMPORARY}, {"temporary", TEMPORARY}, {"with", WITH}, {"hold", HOLD},
    /* anywhere */
    {"update", UPDATES}, {"only", UPDATES}, {"pg_settings", PG_SETTINGS},
    {"set_config", SET_CONFIG}, {"setseed", SETS_SEED},
    /* where something is kept, these may end it, or do what was prepared */
    {"drop", ENDS}, {"close", ENDS}, {"unlisten", ENDS}, {"deallocate", ENDS}, {"execute", ENDS},
};

#define WORDS (sizeof words / sizeof *words)
#define LONGEST_KNOWN 15u

/* For each first letter, the lengths of the words that begin with it: most words are none of them. */
static uint16_t lengths[256];

__attribute__((constructor)) static void measure(void)
{
    for (size_t i = 0; i < WORDS; i++)
        lengths[(uint8_t)words[i].text[0]] |= (uint16_t)(1u << strlen(words[i].text));
}

static enum word word_of(const uint8_t *text, size_t n)
{
    if (n <= LONGEST_KNOWN && n && lengths[text[0]] >> n & 1)
        for (size_t i = 0; i < WORDS; i++)
            if (strlen(words[i].text) == n && !memcmp(words[i].text, text, n))
                return words[i].word;
    if (n > 6 && !memcmp(text, "pg_", 3)) {
        if (n >= 7 && !memcmp(text, "pg_temp", 7))
            return MARKS;
        if (memmem(text, n, "advisory", 8) && !memmem(text, n, "_xact_", 6))
            return MARKS;
    }
    return OTHER;
}

/* Where behind the last dot a name begins; NULL: there is no dot. */
static const uint8_t *behind_dot(const uint8_t *text, size_t n)
{
    for (size_t i = n; i-- > 0;)
        if (text[i] == '.')
            return text + i + 1;
    return NULL;
}

static bool is_named(const struct shared *shared, const uint8_t *text, size_t n)
{
    const uint8_t *at = shared->words.bytes, *end = at + shared->words.length;

    for (size_t length; at < end; at += length + 1) {
        length = strlen((const char *)at);
        if (length == n && !memcmp(at, text, n))
            return true;
    }
    return false;
}

void session_words(struct shared *shared, const uint8_t *bytes, size_t n)
{
    held_clear(&shared->words);
    if (n && !bytes[n - 1])
        held_add(&shared->words, bytes, n);
}

bool is_for_parser(const char *name, size_t n)
{
    static const char *const names[] = {
        "array_nulls", "backslash_quote", "datestyle", "default_text_search_config", "intervalstyle",
        "lc_monetary", "standard_conforming_strings", "timezone", "timezone_abbreviations",
        "transform_null_equals", "xmloption",
        "zone", "option", /* SET TIME ZONE, SET XML OPTION */
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == n && !strncasecmp(names[i], name, n))
            return true;
    return false;
}

/* ---------------------------------------------------------------------------------- a reading */

static bool is_noted(const struct held *noted, const void *text, size_t n)
{
    const uint8_t *at = noted->bytes, *end = at + noted->length;

    for (size_t length; at < end; at += length + 1) {
        length = strlen((const char *)at);
        if (length == n && !memcmp(at, text, n))
            return true;
    }
    return false;
}

static void note(struct watch *w, const void *text, size_t n)
{
    uint8_t end = 0;

    if (w->noted.length + n + 1 > MOST_NOTED) {
        text = NOTE_LOST;
        n = strlen(NOTE_LOST);
    }
    if (w->noted.length && is_noted(&w->noted, text, n))
        return;
    held_add(&w->noted, text, n);
    held_add(&w->noted, &end, 1);
}

static void mark(struct watch *w)
{
    w->marked = w->reading.marks = true;
}

/* The first word of a statement, or the one behind SET. */
static void word_at_start(struct watch *w, enum word word)
{
    struct reading *r = &w->reading;

    if (r->setting) {
        if (word == LOCAL || word == TRANSACTION || word == CONSTRAINTS)
            w->local = true;
        else
            mark(w);
        r->local = word == LOCAL;
        if (word == SEED)
            note(w, NOTE_SEED, strlen(NOTE_SEED));
    } else if (word == LOAD) {
        mark(w);
        note(w, NOTE_LOAD, strlen(NOTE_LOAD));
    } else if (word == STARTS || word == DISCARD) {
        mark(w);
    }
    r->setting = r->start && word == SET;
    r->start = false;
}

static void word_in_call(struct watch *w, enum word word)
{
    struct reading *r = &w->reading;

    r->argument = r->argument == EMPTY && word == TRUE_ && r->inside == PLAIN ? IS_TRUE : IS_ELSE;
}

static void word_anywhere(struct watch *w, enum word word)
{
    struct reading *r = &w->reading;

    if (word == MARKS || (word == TEMPORARY && (r->previous == CREATES || r->previous == LOCAL)) ||
        (word == HOLD && r->previous == WITH) || (word == ENDS && w->kept) ||
        (word == PG_SETTINGS && r->previous == UPDATES)) {
        mark(w);
    } else if (word == SET_CONFIG) {
        if (r->calling || r->inside != PLAIN) /* one within another, or in a string */
            mark(w);
        r->calling = true;
        r->depth = 0;
        r->argument = EMPTY;
    } else if (word == SETS_SEED) {
        mark(w);
        note(w, NOTE_SEED, strlen(NOTE_SEED));
    } else if (word == ALL && r->previous == DISCARD) {
        note(w, NOTE_DISCARD, strlen(NOTE_DISCARD));
    }
}

/* A qualified name is no keyword. */
static enum word function_only(enum word word)
{
    bool plain = word == MARKS || word == SET_CONFIG || word == SETS_SEED || word == PG_SETTINGS;

    return plain ? word : OTHER;
}

/* Whether it may begin a dollar-quoted string: who knows where that ends. */
static bool quotes_by_dollar(const uint8_t *text, size_t n)
{
    if (*text != '$' && (*text < '0' || *text > '9'))
        return false;
    for (size_t i = 0; i < n; i++)
        if (text[i] == '$' && (i + 1 == n || text[i + 1] < '0' || text[i + 1] > '9'))
            return true;
    return false;
}

/* Whether it may be the name of a setting that somebody has made up, and is to be noted. */
static bool is_of_interest(const struct reading *r, const uint8_t *text, size_t n)
{
    if (n >= LONGEST_WORD || *text == '.' || *text == '$' || (*text >= '0' && *text <= '9'))
        return false;
    return r->marks || r->calling || r->inside == STRING || r->inside == ESCAPES;
}

static void end_word(struct watch *w)
{
    struct reading *r = &w->reading;
    size_t n = r->length;
    const uint8_t *text = r->word, *dot = behind_dot(text, n), *name = dot ? dot : text;
    enum word word = OTHER;

    r->length = 0;
    if (n < LONGEST_WORD) {
        word = word_of(name, (size_t)(text + n - name));
        if (dot)
            word = n > 7 && !memcmp(text, "pg_temp", 7) ? MARKS : function_only(word);
        if (w->shared->words.length && is_named(w->shared, name, (size_t)(text + n - name))) {
            mark(w);
            note(w, NOTE_NAMED, strlen(NOTE_NAMED));
        }
    }
    if (r->inside == PLAIN && quotes_by_dollar(text, n))
        mark(w);
    if (*text == '.' && (r->previous == LOCAL || r->previous == TRANSACTION ||
                         r->previous == CONSTRAINTS))
        mark(w); /* SET local .name */
    if (r->calling)
        word_in_call(w, word);
    if (r->start || r->setting)
        word_at_start(w, word);
    word_anywhere(w, word);
    if ((r->local || r->calling || r->inside == VALUES) && is_for_parser((const char *)text, n))
        w->rereads = true;
    if (dot && is_of_interest(r, text, n))
        note(w, text, n);
    r->previous = (uint8_t)word;
}

/* Within the arguments of set_config(), in no string: is the last of them a plain "true"? */
static void call_byte(struct watch *w, uint8_t byte)
{
    struct reading *r = &w->reading;

    if (byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r')
        return;
    if (byte == '(') {
        r->argument = r->depth++ ? IS_ELSE : EMPTY;
        if (r->depth == UINT8_MAX)
            mark(w);
    } else if (byte == ',') {
        r->argument = r->depth == 1 ? EMPTY : IS_ELSE;
    } else if (byte != ')') {
        r->argument = IS_ELSE;
    } else if (r->depth <= 1) {
        r->calling = false;
        if (r->argument == IS_TRUE)
            w->local = true;
        else
            mark(w);
    } else {
        r->depth--;
        r->argument = IS_ELSE;
    }
}

#define NO_WORD 0u

/* What a byte is in a word, in lower case; or NO_WORD. */
static uint8_t folded[256];

__attribute__((constructor)) static void fold(void)
{
    for (unsigned c = 128; c < 256; c++)
        folded[c] = (uint8_t)c;
    for (int c = '0'; c <= '9'; c++)
        folded[c] = (uint8_t)c;
    folded['_'] = '_';
    folded['$'] = '$';
    folded['.'] = '.';
    for (int c = 'a'; c <= 'z'; c++)
        folded[c] = folded[c - 32] = (uint8_t)c;
}

/* A quotation mark around a name, which is passed over in a word. */
static void around_name(struct watch *w)
{
    struct reading *r = &w->reading;

    if (r->inside > IDENTIFIER)
        return;
    if (r->calling || r->last == '&') /* U&"..." may spell anything */
        mark(w);
    r->inside = r->inside == PLAIN ? IDENTIFIER : PLAIN;
}

/* A byte in a string, and in no word. high: the byte before was no ASCII. */
static void string_byte(struct watch *w, uint8_t byte, uint8_t last, bool high)
{
    struct reading *r = &w->reading;

    if (byte == '\\' && r->inside == ESCAPES) {
        if (high) /* or the second half of a character (SJIS, say) */
            mark(w);
        r->inside = ESCAPED;
    } else if (byte == '\'') {
        if (last == '\\') /* whether it is escaped depends on a setting */
            mark(w);
        r->inside = PLAIN;
    }
}

/* A byte in no string, comment or word. escapes: a string that begins here is E'...'. */
static void plain_byte(struct watch *w, uint8_t byte, uint8_t last, bool escapes)
{
    struct reading *r = &w->reading;

    if (r->calling)
        call_byte(w, byte);
    if (byte == ';') {
        r->start = true;
        r->setting = r->local = false;
    } else if (byte == '\'') {
        if (last != '\'') /* else the same goes on */
            r->string = escapes ? ESCAPES : STRING;
        r->inside = r->string;
    } else if (byte == '-' && last == '-') {
        r->inside = LINE;
    } else if (byte == '*' && last == '/') {
        r->inside = BLOCK;
        r->nesting = 1;
        r->last = 0;
    }
}

/* A byte of a comment; those in C's manner may be nested. */
static void comment_byte(struct watch *w, uint8_t byte, uint8_t last)
{
    struct reading *r = &w->reading;
    bool opens = byte == '*' && last == '/', closes = byte == '/' && last == '*';

    if (r->inside == LINE) {
        if (byte == '\n' || byte == '\r')
            r->inside = PLAIN;
    } else if (opens || closes) {
        r->last = 0;
        r->nesting = (uint8_t)(r->nesting + opens - closes);
        if (r->nesting == UINT8_MAX)
            mark(w);
        if (!r->nesting)
            r->inside = PLAIN;
    }
}

/* A byte that is in no word. */
static void between_words(struct watch *w, uint8_t byte)
{
    struct reading *r = &w->reading;
    uint8_t last = r->last;
    bool high = r->length && (r->length == LONGEST_WORD || r->word[r->length - 1] >= 128);
    bool escapes = r->length == 1 && *r->word == 'e' && last != '"';

    if (byte == '"' && r->inside < SKIPPED) {
        if (r->inside == PLAIN && r->length && r->length < LONGEST_WORD &&
            r->word[r->length - 1] != '.') /* SET"name" */
            end_word(w);
        around_name(w);
        r->last = byte;
        return;
    }
    if (r->length) {
        end_word(w);
        last = 0;
    }
    r->last = byte;
    if (r->inside == PLAIN)
        plain_byte(w, byte, last, escapes);
    else if (r->inside == STRING || r->inside == ESCAPES)
        string_byte(w, byte, last, high);
    else if (r->inside == ESCAPED)
        r->inside = ESCAPES;
    else if (r->inside >= LINE)
        comment_byte(w, byte, last);
    else if (r->inside == STATEMENT_NAME && !byte)
        r->inside = PLAIN;
}

static void end_text(struct watch *w)
{
    struct reading *r = &w->reading;

    if (r->length)
        end_word(w);
    if (r->calling)
        mark(w);
    if (!r->marks && w->noted.length > r->before) {
        w->noted.length = r->before;
        if (!r->before)
            held_clear(&w->noted);
    }
    if (r->parse && (r->marks || w->local))
        w->suspect = true;
    r->on = r->calling = false;
}

void watch_begin(struct watch *w, uint32_t length, enum what what)
{
    static const uint8_t inside[] = {[A_QUERY] = PLAIN, [A_PARSE] = STATEMENT_NAME, [BOUND] = VALUES};
    struct reading *r = &w->reading;

    r->left = length;
    r->before = w->noted.length;
    r->length = r->previous = r->last = r->depth = r->argument = 0;
    r->inside = inside[what];
    r->string = STRING;
    r->on = true;
    r->parse = what == A_PARSE;
    r->start = what != BOUND;
    r->marks = r->setting = r->local = r->calling = false;
}

void watch_bytes(struct watch *w, const uint8_t *bytes, size_t n)
{
    struct reading *r = &w->reading;

    if (!r->on)
        return;
    r->left -= n < r->left ? (uint32_t)n : r->left;
    for (size_t i = 0; i < n; i++) {
        if (r->inside < SKIPPED) {
            uint8_t length = r->length, letter;

            for (; i < n && (letter = folded[bytes[i]]) != NO_WORD; i++)
                if (length < LONGEST_WORD)
                    r->word[length++] = letter;
            r->length = length;
            if (i == n)
                break;
        }
        between_words(w, bytes[i]);
    }
    if (!r->left)
        end_text(w);
}

void watch_values(struct watch *w, uint32_t length, bool marks)
{
    watch_begin(w, length, BOUND);
    if (marks)
        mark(w);
}

bool watch_would_mark(struct shared *shared, const uint8_t *text, uint32_t length)
{
    struct watch trial = {.shared = shared, .kept = true};

    watch_begin(&trial, length, A_QUERY);
    watch_bytes(&trial, text, length);
    held_clear(&trial.noted);
    return trial.marked || trial.local;
}

void watch_free(struct watch *w)
{
    held_clear(&w->noted);
    settings_drop(w->wanted);
    w->wanted = NULL;
}

/* ---------------------------------------------------------------------------------- settings */

enum told_flag { DELICATE = 1, KEPT = 2 };

struct settings *settings_keep(struct settings *settings)
{
    if (settings)
        settings->refs++;
    return settings;
}

/* One copy of what has been told; the caller owns a reference. NULL: there are none. */
struct settings *settings_told(struct shared *shared, const uint8_t *bytes, size_t n)
{
    bool delicate = n && bytes[0] & DELICATE;

    if (n < 2 || bytes[n - 1])
        return NULL;
    return settings_intern(shared, bytes + 1, (uint32_t)(n - 1), delicate);
}

bool settings_keep_told(const uint8_t *bytes, size_t n)
{
    return n && bytes[0] & KEPT;
}

bool settings_are_delicate(const struct settings *from, const struct settings *to)
{
    return (from && from->delicate) || (to && to->delicate);
}

/* The strings follow one another: a name, a value, the next name. NULL: there is none behind. */
static const char *next_string(const struct settings *settings, const char *at)
{
    at += strlen(at) + 1;
    return at < (const char *)settings->text + settings->length ? at : NULL;
}

/* The value of a setting; NULL: it is not there. */
static const char *value_in(const struct settings *settings, const char *name)
{
    const char *at = settings ? (const char *)settings->text : NULL, *value;

    for (; at && (value = next_string(settings, at)); at = next_string(settings, value))
        if (!strcmp(at, name))
            return value;
    return NULL;
}

static void put_setting(struct out *out, bool *first, const char *name, const char *value)
{
    static const char call[] = "pg_catalog.set_config(";

    out_put(out, *first ? "SELECT " : ",", *first ? 7 : 1);
    *first = false;
    out_put(out, call, strlen(call));
    out_put(out, name, strlen(name));
    out_put(out, ",", 1);
    out_put(out, value, strlen(value));
    out_put(out, ",false)", 7);
}

/* Last of all first: a role before whatever it was taken on for. */
static void put_resets(struct out *out, bool *first, const struct settings *from, const char *at,
                       const struct settings *kept)
{
    const char *value = at ? next_string(from, at) : NULL;

    if (!value)
        return;
    put_resets(out, first, from, next_string(from, value), kept);
    if (!value_in(kept, at))
        put_setting(out, first, at, "NULL");
}

void settings_put(struct out *out, const struct settings *from, const struct settings *to)
{
    /* Where somebody is, or is to be, another role, all is taken off and put on again. */
    const struct settings *kept = settings_are_delicate(from, to) ? NULL : to;
    const struct settings *there = kept ? from : NULL;
    const char *at = to ? (const char *)to->text : NULL, *value, *had;
    uint8_t *length;
    bool first = true;
    size_t start;

    out_put(out, "Q\0\0\0\0", 5);
    start = out->length - 4;
    put_resets(out, &first, from, from ? (const char *)from->text : NULL, kept);
    for (; at && (value = next_string(to, at)); at = next_string(to, value))
        if (!(had = value_in(there, at)) || strcmp(had, value))
            put_setting(out, &first, at, value);
    out_put(out, "", 1);
    length = out->shared->scratch + start;
    for (int i = 0; i < 4; i++)
        length[i] = (uint8_t)((out->length - start) >> (24 - 8 * i));
}
