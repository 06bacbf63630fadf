/* What a client leaves behind in its session beside prepared statements; session.c tells how.
 *
 * Two things are known of a client: the settings that its session has, which are made so on every
 * server that it gets; and whether it may have changed anything since somebody looked.
 */
#ifndef PG_SESSION_H
#define PG_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "held.h"

struct shared;
struct settings;
struct out;

#define LONGEST_WORD 128u

/* Reading a text, byte by byte, for words that may change the session. */
struct reading {
    uint32_t left;     /* bytes of the text still to come */
    uint32_t before;   /* bytes that had been noted when it began */
    uint8_t length;    /* of the word; LONGEST_WORD: it is longer than any of interest */
    uint8_t previous;  /* enum word: the word before */
    uint8_t last;      /* the byte before, if that was in no word */
    uint8_t inside;    /* enum inside */
    uint8_t string;    /* the same, of the last string */
    uint8_t nesting;   /* of comments */
    uint8_t depth;     /* of parentheses within the arguments of set_config() */
    uint8_t argument;  /* enum argument: the last one */
    bool on;           /* a text is being read */
    bool parse;        /* of a Parse message */
    bool marks;        /* it may change the session */
    bool start;        /* no word of this statement has been seen */
    bool setting;      /* the word before was SET, at the start */
    bool local;        /* within SET LOCAL */
    bool calling;      /* within a call of set_config() */
    uint8_t word[LONGEST_WORD];
};

/* A client's side. */
struct watch {
    struct shared *shared;           /* NULL: not watched */
    struct settings *wanted;         /* NULL: those of a new server */
    struct held noted;               /* words for Python, each with a NUL */
    bool marked;                     /* its session may have changed: ask the server */
    bool kept;                       /* it has something that only this server has */
    bool local;                      /* what it set, it set for the transaction */
    bool rereads;                    /* it may have changed how texts are parsed, for a transaction */
    bool suspect;                    /* a statement that was read as it went by, and not remembered,
                                      * marks when it is bound */
    struct reading reading;
};

void watch_free(struct watch *);

enum what { A_QUERY, A_PARSE, BOUND };

/* A text of so many bytes begins: a query, or the body of a Parse or of a Bind message. */
void watch_begin(struct watch *, uint32_t length, enum what);
void watch_bytes(struct watch *, const uint8_t *bytes, size_t n);
/* A setting is reported to have changed. */
static inline void watch_reported(struct watch *watch)
{
    *(watch->local ? &watch->rereads : &watch->marked) = true;
}
/* A Bind of so many bytes begins, to a statement of interest: its values may name settings. */
void watch_values(struct watch *, uint32_t length, bool marks);
/* Whether a setting of this name changes what a text means to PostgreSQL's parser: the literals in it are
 * read there. (Where names are looked for is not among them: PostgreSQL itself parses anew then.) */
bool is_for_parser(const char *name, size_t n);
/* Whether a text would mark its client. */
bool watch_would_mark(struct shared *, const uint8_t *text, uint32_t length);

/* Words that mark a client, beside those that are known: each with a NUL. */
void session_words(struct shared *, const uint8_t *bytes, size_t n);

/* Settings as Python writes them (pooler.wire.session): flags, then literals of names and values. */
struct settings *settings_told(struct shared *, const uint8_t *bytes, size_t n);
bool settings_keep_told(const uint8_t *bytes, size_t n);
struct settings *settings_keep(struct settings *);
void settings_drop(struct settings *);

/* Whether the client's next request has to wait until the server has changed from one to the other. */
bool settings_are_delicate(const struct settings *from, const struct settings *to);
/* A query that changes a server from one to the other. */
void settings_put(struct out *, const struct settings *from, const struct settings *to);

#endif
