/* What statements.c remembers: the statements of a multiplexer, the names that each client has for
 * them, and which of them each server has. */
#ifndef PG_MEMORY_H
#define PG_MEMORY_H

#include "statements.h"

#define LABEL "_tp" /* and a number */
#define LABEL_SIZE 24u
#define FIRST_ID 10u

struct statement {
    struct statement *next;
    struct shared *shared;
    uint64_t hash;
    uint32_t refs;
    uint32_t length; /* of the text: a Parse message behind the name */
    struct settings *scope; /* with which its text means what it does here; NULL: a new session's */
    bool alone;   /* ... or with others that nobody knows: it is not found by its text */
    bool watched; /* whoever runs it may change the session */
    char label[LABEL_SIZE];
    uint8_t text[];
};

struct settings { /* of a session, as Python writes them: literals, each with a NUL */
    struct settings *next;
    struct shared *shared;
    uint64_t hash;
    uint32_t refs;
    uint32_t length;
    bool delicate;
    struct settings *scope; /* those of them that matter to the parser; NULL: none does */
    uint8_t text[];
};

struct name {
    struct name *next;
    struct statement *statement; /* NULL: an escaped name, or one of nothing */
    uint64_t hash;
    uint32_t refs;
    uint32_t length;
    char text[]; /* without a NUL */
};

struct slot { /* a statement that a server has */
    struct slot *next, *newer, *older;
    struct statement *statement;
};

struct shared {
    struct statement **buckets;
    uint32_t count, room;
    uint32_t limit; /* statements on one server */
    uint64_t next_id;
    struct {
        struct settings **buckets;
        uint32_t count, room;
    } settings;
    bool watches;
    struct held words; /* that mark a client, by the operator's will */
    uint8_t *scratch;
    size_t scratch_room;
};

/* realloc(3), or the end of the process. */
void *grown(void *memory, size_t size);

/* The statement of this text and scope, a reference to which is the caller's. */
struct statement *intern(struct shared *, const uint8_t *text, uint32_t length,
                         struct settings *scope, bool alone);
struct statement *statement_keep(struct statement *);
void statement_drop(struct statement *);
/* For known->unnamed and prepared->unnamed. */
void set_unnamed(struct statement **unnamed, struct statement *);

/* These settings, a reference to which is the caller's. */
struct settings *settings_intern(struct shared *, const uint8_t *text, uint32_t length,
                                 bool delicate);

/* A name that nobody knows yet. Takes over the caller's reference to the statement. */
struct name *name_new(const uint8_t *text, size_t length, struct statement *);
struct name *name_keep(struct name *);
void name_drop(struct name *);
bool is_called(const struct name *, const uint8_t *text, size_t length);
struct name *known_find(const struct known *, const uint8_t *text, size_t length);
void known_add(struct known *, struct name *);
void known_remove(struct known *, const struct name *like);
void known_clear(struct known *);

/* Whether the server has it, which thereby becomes the one used last. */
bool prepared_use(struct prepared *, const struct statement *);
void prepared_add(struct prepared *, struct statement *);
void prepared_remove(struct prepared *, struct statement *);
void prepared_clear(struct prepared *);

#endif
