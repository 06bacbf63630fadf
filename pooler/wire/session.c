/* What a client leaves behind in its session beside prepared statements.
 *
 * Whether a statement changes the session, and to what, only PostgreSQL knows for certain: there are
 * set_config(), DO, multi-statement queries, SET LOCAL, savepoints and rollbacks. So the text is read
 * for words after which it may have: that is cheap, and says too often yes rather than once no. Such a
 * text marks its client. When the marked client would part from its server, the multiplexer has
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

#define LONGEST_READ (64u << 10) /* of a text; a longer one may have anything in it */
#define MOST_NOTED 8192u         /* bytes of words for Python */
#define NOTE_LOST "!lost"
#define NOTE_LOAD "!load"
#define NOTE_DISCARD "!discard"
#define NOTE_NAMED "!named"

/* ------------------------------------------------------------------------------------- words */

enum word {
    OTHER = 0, SET, LOCAL, TRANSACTION, CONSTRAINTS, LOAD, DISCARD, STARTS, CREATES, TEMPORARY, WITH,
    HOLD, MARKS, SET_CONFIG, ENDS, TRUE_, ALL,
};

enum comment { NO_COMMENT = 0, TO_END_OF_LINE, TO_STAR };
enum argument { EMPTY = 0, IS_TRUE, IS_ELSE };

static const struct {
    const char *text;
    enum word word;
} words[] = {
    {"set", SET}, {"local", LOCAL}, {"transaction", TRANSACTION}, {"constraints", CONSTRAINTS},
    {"load", LOAD}, {"discard", DISCARD}, {"all", ALL}, {"true", TRUE_},
    /* at the start of a statement */
    {"reset", STARTS}, {"listen", STARTS}, {"unlisten", STARTS}, {"prepare", STARTS},
    {"execute", STARTS}, {"deallocate", STARTS}, {"do", STARTS},
    /* before "temporary" */
    {"create", CREATES}, {"global", CREATES}, {"replace", CREATES}, {"into", CREATES},
    {"temp", TEMPORARY}, {"temporary", TEMPORARY}, {"with", WITH}, {"hold", HOLD},
    /* anywhere */
    {"set_config", SET_CONFIG}, {"setseed", MARKS},
    /* where something is kept, these may end it */
    {"drop", ENDS}, {"close", ENDS},
};

#define WORDS (sizeof words / sizeof *words)
#define LONGEST_KNOWN 15u

/* For each first letter, the lengths of the words that begin with it: most words are none of them. */
static const uint16_t *lengths(void)
{
    static uint16_t masks[256];

    if (!masks['s'])
        for (size_t i = 0; i < WORDS; i++)
            masks[(uint8_t)words[i].text[0]] |= (uint16_t)(1u << strlen(words[i].text));
    return masks;
}

static enum word word_of(const uint8_t *text, size_t n)
{
    if (n <= LONGEST_KNOWN && n && lengths()[text[0]] >> n & 1)
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

/* ---------------------------------------------------------------------------------- a reading */

static void note(struct watch *w, const void *text, size_t n)
{
    uint8_t end = 0;

    if (w->noted.length + n + 1 > MOST_NOTED) {
        if (w->noted.length + sizeof NOTE_LOST > MOST_NOTED + 16)
            return;
        text = NOTE_LOST;
        n = strlen(NOTE_LOST);
    }
    held_add(&w->noted, text, n);
    held_add(&w->noted, &end, 1);
}

/* The first word of a statement, or the one behind SET. */
static void word_at_start(struct watch *w, enum word word)
{
    struct reading *r = &w->reading;

    if (r->setting) {
        if (word == LOCAL || word == TRANSACTION || word == CONSTRAINTS)
            w->local = true;
        else
            w->marked = true;
    } else if (word == LOAD) {
        w->marked = true;
        note(w, NOTE_LOAD, strlen(NOTE_LOAD));
    } else if (word == STARTS || word == DISCARD) {
        w->marked = true;
    }
    r->setting = r->start && word == SET;
    r->start = false;
}

static void word_in_call(struct watch *w, enum word word, const uint8_t *text, size_t n)
{
    struct reading *r = &w->reading;
    const uint8_t *dollar = memchr(text, '$', n);

    if (dollar && (dollar != text || n < 2 || text[1] == '$'))
        w->marked = true; /* a dollar-quoted string, perhaps: who knows where it ends */
    r->argument = r->argument == EMPTY && word == TRUE_ && !r->quoted ? IS_TRUE : IS_ELSE;
}

static void word_anywhere(struct watch *w, enum word word)
{
    struct reading *r = &w->reading;

    if (word == MARKS || (word == TEMPORARY && (r->previous == CREATES || r->previous == LOCAL)) ||
        (word == HOLD && r->previous == WITH) || (word == ENDS && w->kept)) {
        w->marked = true;
    } else if (word == SET_CONFIG) {
        w->marked |= r->calling; /* one within another */
        r->calling = true;
        r->depth = 0;
        r->quoted = false;
        r->argument = EMPTY;
    } else if (word == ALL && r->previous == DISCARD) {
        note(w, NOTE_DISCARD, strlen(NOTE_DISCARD));
    }
}

/* A qualified name is no keyword. */
static enum word function_only(enum word word)
{
    return word == MARKS || word == SET_CONFIG ? word : OTHER;
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
            w->marked = true;
            note(w, NOTE_NAMED, strlen(NOTE_NAMED));
        }
    }
    if (r->calling)
        word_in_call(w, word, text, n);
    if (r->start || r->setting)
        word_at_start(w, word);
    word_anywhere(w, word);
    if (n < LONGEST_WORD && (w->marked || r->calling) && dot)
        note(w, text, n);
    r->previous = (uint8_t)word;
}

/* Within the arguments of set_config(): is the last of them a plain "true"? */
static void call_byte(struct watch *w, uint8_t byte)
{
    struct reading *r = &w->reading;

    if (byte == '\'')
        r->quoted = !r->quoted;
    else if (byte == '\\')
        w->marked = true; /* whether it escapes a quotation mark depends on a setting */
    if (byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r')
        return;
    if (r->quoted || (byte != '(' && byte != ')' && byte != ',')) {
        r->argument = IS_ELSE;
    } else if (byte == '(') {
        r->argument = r->depth++ ? IS_ELSE : EMPTY;
        w->marked |= r->depth == UINT8_MAX;
    } else if (byte == ',') {
        r->argument = r->depth == 1 ? EMPTY : IS_ELSE;
    } else if (r->depth <= 1) {
        r->calling = false;
        if (r->argument == IS_TRUE)
            w->local = true;
        else
            w->marked = true;
    } else {
        r->depth--;
        r->argument = IS_ELSE;
    }
}

#define IN_A_WORD 255u /* and passed over there: a quotation mark around a name */

/* 0: it ends a word; else what it is in one, in lower case. */
static const uint8_t *folded(void)
{
    static uint8_t table[256];

    if (!table['a']) {
        for (unsigned c = 128; c < 256; c++)
            table[c] = (uint8_t)(c == IN_A_WORD ? 254 : c);
        for (int c = '0'; c <= '9'; c++)
            table[c] = (uint8_t)c;
        table['_'] = '_';
        table['$'] = '$';
        table['.'] = '.';
        table['"'] = IN_A_WORD;
        for (int c = 'a'; c <= 'z'; c++)
            table[c] = table[c - 32] = (uint8_t)c;
    }
    return table;
}

/* A byte that is in no word. */
static void between_words(struct watch *w, uint8_t byte)
{
    struct reading *r = &w->reading;

    if (r->length)
        end_word(w);
    if (r->calling)
        call_byte(w, byte);
    if (byte == ';') {
        r->start = true;
        r->setting = false;
    } else if ((r->start || r->setting) && byte == '-' && r->last == '-') {
        r->comment = TO_END_OF_LINE;
    } else if ((r->start || r->setting) && byte == '*' && r->last == '/') {
        r->comment = TO_STAR;
    }
}

static void end_text(struct watch *w)
{
    if (w->reading.length)
        end_word(w);
    w->marked |= w->reading.calling;
    w->reading.on = w->reading.calling = false;
    if (!w->marked)
        held_clear(&w->noted);
}

void watch_begin(struct watch *w, uint32_t length, bool parse)
{
    struct reading *r = &w->reading;

    r->left = length;
    r->length = r->previous = r->last = r->comment = r->depth = r->argument = 0;
    r->on = r->start = true;
    r->name = parse;
    r->setting = r->calling = r->quoted = false;
    if (length > LONGEST_READ) {
        w->marked = true;
        r->on = false;
    }
}

void watch_bytes(struct watch *w, const uint8_t *bytes, size_t n)
{
    const uint8_t *fold = folded();
    struct reading *r = &w->reading;

    if (!r->on)
        return;
    r->left -= n < r->left ? (uint32_t)n : r->left;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = bytes[i], letter = fold[byte];

        if (letter && !r->name && !r->comment) {
            if (letter != IN_A_WORD && r->length < LONGEST_WORD)
                r->word[r->length++] = letter;
            continue; /* r->last is of interest only between words */
        }
        if (r->name) {
            r->name = byte;
        } else if (!r->comment) {
            between_words(w, byte);
        } else if (r->comment == TO_END_OF_LINE ? byte == '\n' : r->last == '*' && byte == '/') {
            r->comment = NO_COMMENT;
        }
        r->last = byte;
    }
    if (!r->left)
        end_text(w);
}

void watch_values(struct watch *w, const uint8_t *bytes, size_t n)
{
    watch_begin(w, n < LONGEST_READ ? (uint32_t)n : LONGEST_READ, false);
    w->reading.start = false;
    watch_bytes(w, bytes, n < LONGEST_READ ? n : LONGEST_READ);
}

bool watch_would_mark(struct shared *shared, const uint8_t *text, uint32_t length)
{
    struct watch trial = {.shared = shared, .kept = true};

    watch_begin(&trial, length, false);
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
