/* What a protocol tells the multiplexer about the bytes that pass through it.
 *
 * The engine knows no protocol. A framing is a table of functions, given to a multiplexer when it is
 * made, that scans each byte once, in order, on its way from a client to the server it is joined with
 * and back, and says when the two may part. It may put other bytes in the place of those that came.
 * It never waits, and it allocates only what its own state needs; the state of either side is memory
 * that the engine provides, zeroed when it is new.
 *
 * Chunks end anywhere: a scan must carry a message header split between two of them.
 */
#ifndef TB_FRAMING_H
#define TB_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TB_FRAMING_ABI 3

/* What a scan says of the bytes it was given. */
enum tb_verdict {
    TB_GO = 0, /* from_*: all of them may go on. opening: the client needs a server */
    TB_MORE,   /* opening only: too few bytes to tell */
    TB_LEAVE,  /* the client says goodbye; the bytes from there on go nowhere */
    TB_FULL,   /* what comes next cannot go on before answers have come: keep the rest until then */
    TB_BAD,    /* the protocol is violated at the byte after those consumed; why says how */
    TB_UNFIT,  /* from_server: this server cannot serve the client, of which nothing has gone on */
    TB_REFUSED, /* from_server only: what the client has done is not allowed to it, as why says; what
                 * goes on of the bytes consumed is the last that it hears */
};

struct tb_scan {
    int verdict;        /* enum tb_verdict */
    uint32_t answered;  /* requests that were answered completely within this scan */
    const char *why;    /* TB_BAD, TB_REFUSED: a static string, in the words a client may see */
    /* Not NULL: these bytes go on in the place of those consumed. Good until the next call of any
     * function of the framing. */
    const uint8_t *instead;
    size_t instead_length;
};

/* How a joined client and server stand to each other, between chunks. */
enum tb_standing {
    TB_APART = 0, /* nothing owed, nothing open, both at a message's boundary: they may part */
    TB_OPEN,      /* nothing owed, both at a boundary, but something is open: a transaction, say */
    TB_BUSY,      /* an answer is owed, a message is half through, or a copy is under way */
    TB_UNSURE,    /* the account no longer holds: never part them, close the server in the end */
    TB_KEPT,      /* nothing owed, nothing open, but the client has something that only this server has */
    TB_ASK,       /* the same, perhaps: Python has to find out before they may part */
    TB_LEFT,      /* the client's goodbye has gone on behind a request, and the server will end by it */
};

/* What the client has heard from its server last: may we still tell it something of our own? */
enum tb_last_words {
    TB_WORDS_WHOLE = 0, /* the end of some message: yes */
    TB_WORDS_ERROR,     /* the end of an error message: it need not be told again */
    TB_WORDS_CUT,       /* half a message: anything more would be taken for its rest */
};

struct tb_framing {
    uint32_t abi;         /* TB_FRAMING_ABI */
    uint32_t client_size; /* bytes of state per client and per server */
    uint32_t server_size;

    /* What the members of one multiplexer have in common; may be NULL, both. `option` is a number that
     * the multiplexer was made with, and that the framing understands. */
    void *(*shared_new)(uint64_t option);
    void (*shared_free)(void *shared);

    void (*client_new)(void *client, void *shared);
    void (*client_free)(void *client); /* gives back what the state itself allocated */
    void (*server_new)(void *server, void *shared);
    void (*server_free)(void *server);

    /* The first bytes of a message from a client that is joined with no server. Consumes nothing. */
    int (*opening)(const void *client, const uint8_t *bytes, size_t n, struct tb_scan *scan);

    /* Bytes on their way. Return how many were consumed: n exactly when the verdict is TB_GO. */
    size_t (*from_client)(void *client, void *server, const uint8_t *bytes, size_t n,
                          struct tb_scan *scan);
    size_t (*from_server)(void *client, void *server, const uint8_t *bytes, size_t n,
                          struct tb_scan *scan);

    int (*standing)(const void *client, const void *server);
    int (*last_words)(const void *server);

    /* The server parts from its client (standing() said TB_APART), or Python has made it clean:
     * nothing is owed. */
    void (*server_fresh)(void *server);
    /* Python has had the server to itself, and may have run statements on it. */
    void (*server_handled)(void *server);

    /* Python's word to the framing, in whatever form they have agreed on: about a client, about a server,
     * or (both NULL) about all members. */
    void (*told)(void *shared, void *client, void *server, const uint8_t *bytes, size_t n);
    /* Whether the server is as the client would have it already; else it has to be made so first. */
    bool (*suits)(const void *client, const void *server);
    /* What the framing has noted of a client for Python. Good until the client's next bytes. */
    const uint8_t *(*noted)(const void *client, size_t *n);
};

#endif
