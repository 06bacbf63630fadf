/* PostgreSQL's messages after login, as framing.c needs to know them: tables by type byte.
 *
 * "Message Formats" in PostgreSQL's documentation says which there are and how long they may be,
 * "Message Flow" which of them answers what.
 */
#ifndef PG_FRAMING_MESSAGES_H
#define PG_FRAMING_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>

#define HEADER 5u /* type and length */

/* What pq_getmessage() accepts; lengths include their own four bytes. PostgreSQL: libpq/libpq.h. */
#define MAX_ALLOC 0x3fffffffu
#define SMALL_MESSAGE 10000u
#define LARGE_MESSAGE (MAX_ALLOC - 1u)
/* The longest a server can build: a body in one StringInfo, which keeps a byte for its NUL. */
#define SERVER_MESSAGE (MAX_ALLOC - 1u + 4u)

/* Entries of the account: a bit each, so that sets of them are masks. */
enum entry_kind {
    MARKER = 0, /* CopyDone or CopyFail */
    PARSE = 1,
    BIND = 2,
    DESCRIBE = 4,
    EXECUTE = 8,
    CLOSE = 16,
    QUERY = 32,
    CALL = 64,
    SYNC = 128,
    EXTENDED = PARSE | BIND | DESCRIBE | EXECUTE | CLOSE,
    READIED = QUERY | CALL | SYNC, /* those that ReadyForQuery answers */
};

enum frontend_kind { INVALID = 0, PASSES, ASKS, LEAVES };

struct frontend {
    uint8_t kind;
    uint8_t entry; /* for ASKS */
    uint32_t longest;
};

/* A Flush is answered by nothing, but one that has a body by an error, behind which PostgreSQL skips
 * what comes until a Sync; by then that may be another client's. */
#define FLUSH_MESSAGE 4u

static const struct frontend frontend_messages[256] = {
    ['B'] = {ASKS, BIND, LARGE_MESSAGE},
    ['C'] = {ASKS, CLOSE, SMALL_MESSAGE},
    ['D'] = {ASKS, DESCRIBE, SMALL_MESSAGE},
    ['E'] = {ASKS, EXECUTE, SMALL_MESSAGE},
    ['F'] = {ASKS, CALL, LARGE_MESSAGE},
    ['H'] = {PASSES, 0, FLUSH_MESSAGE},
    ['P'] = {ASKS, PARSE, LARGE_MESSAGE},
    ['Q'] = {ASKS, QUERY, LARGE_MESSAGE},
    ['S'] = {ASKS, SYNC, SMALL_MESSAGE},
    ['X'] = {LEAVES, 0, SMALL_MESSAGE},
    ['c'] = {ASKS, MARKER, SMALL_MESSAGE},
    ['d'] = {PASSES, 0, LARGE_MESSAGE},
    ['f'] = {ASKS, MARKER, SMALL_MESSAGE},
};

enum backend_kind { WRONG = 0, ANYTIME, ANSWERS, FAILS, COPIES_IN, READY, CONFUSES };

struct backend {
    uint8_t kind;
    uint8_t heads; /* ANSWERS, COPIES_IN: which first entries this may be said to */
    uint8_t pops;  /* ANSWERS: which of them it answers in full */
    uint8_t least; /* length: the smallest possible */
    bool fixed;    /* ... and the only one */
};

#define RUNS (QUERY | EXECUTE)

static const struct backend backend_messages[256] = {
    ['1'] = {ANSWERS, PARSE, PARSE, 4, true},
    ['2'] = {ANSWERS, BIND, BIND, 4, true},
    ['3'] = {ANSWERS, CLOSE, CLOSE, 4, true},
    ['A'] = {ANYTIME, 0, 0, 10, false}, /* NotificationResponse */
    ['C'] = {ANSWERS, RUNS, EXECUTE, 5, false}, /* CommandComplete */
    ['D'] = {ANSWERS, RUNS, 0, 6, false}, /* DataRow */
    ['E'] = {FAILS, 0, 0, 5, false},
    ['G'] = {COPIES_IN, RUNS, 0, 7, false},
    ['H'] = {ANSWERS, RUNS, 0, 7, false}, /* CopyOutResponse */
    ['I'] = {ANSWERS, RUNS, EXECUTE, 4, true}, /* EmptyQueryResponse */
    ['K'] = {CONFUSES, 0, 0, 8, false}, /* BackendKeyData */
    ['N'] = {ANYTIME, 0, 0, 5, false}, /* NoticeResponse */
    ['R'] = {CONFUSES, 0, 0, 8, false}, /* Authentication... */
    ['S'] = {ANYTIME, 0, 0, 6, false}, /* ParameterStatus */
    ['T'] = {ANSWERS, QUERY | DESCRIBE, DESCRIBE, 6, false}, /* RowDescription */
    ['V'] = {ANSWERS, CALL, 0, 8, false}, /* FunctionCallResponse */
    ['W'] = {CONFUSES, 0, 0, 7, false}, /* CopyBothResponse */
    ['Z'] = {READY, 0, 0, 5, true},
    ['c'] = {ANSWERS, RUNS, 0, 4, true}, /* CopyDone */
    ['d'] = {ANSWERS, RUNS, 0, 4, false}, /* CopyData */
    ['n'] = {ANSWERS, DESCRIBE, DESCRIBE, 4, true}, /* NoData */
    ['s'] = {ANSWERS, EXECUTE, EXECUTE, 4, true}, /* PortalSuspended */
    ['t'] = {ANSWERS, DESCRIBE, 0, 6, false}, /* ParameterDescription */
    ['v'] = {CONFUSES, 0, 0, 12, false}, /* NegotiateProtocolVersion */
};

/* PostgreSQL's words, one static string for each type: TYPE(8) ... TEN(25) pastes decimal numbers. */
#define TYPE(n) "invalid frontend message type " #n,
#define TEN(t) TYPE(t##0) TYPE(t##1) TYPE(t##2) TYPE(t##3) TYPE(t##4) \
               TYPE(t##5) TYPE(t##6) TYPE(t##7) TYPE(t##8) TYPE(t##9)
static const char *const invalid_type[256] = {
    TYPE(0) TYPE(1) TYPE(2) TYPE(3) TYPE(4) TYPE(5) TYPE(6) TYPE(7) TYPE(8) TYPE(9)
    TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9) TEN(10) TEN(11) TEN(12)
    TEN(13) TEN(14) TEN(15) TEN(16) TEN(17) TEN(18) TEN(19) TEN(20) TEN(21) TEN(22) TEN(23) TEN(24)
    TYPE(250) TYPE(251) TYPE(252) TYPE(253) TYPE(254) TYPE(255)
};
static const char invalid_length[] = "invalid message length";
static const char invalid_server_type[] = "invalid message type from the server";
static const char invalid_server_length[] = "invalid message length from the server";

#endif
