/* A framing that looks at nothing: for clients that keep their server until they leave.
 *
 * Bytes go on as they came. Only a client's goodbye is seen, where it comes alone and as the first
 * thing after its server has spoken: that is how drivers say it. In the midst of what a client sends,
 * the same five bytes may be anything, and go on. So does a goodbye behind a request that was not
 * answered yet: PostgreSQL answers, and ends the connection itself. (Should its client have gone by
 * then, the request is not cancelled: TB_LEFT.)
 *
 * Nobody knows how the two stand to each other, or which message the client has heard last. Behind a
 * goodbye nothing should be left, which Python finds out (links/proof.py) before anybody else gets the
 * server.
 */
#include "framing.h"

#include <stdbool.h>
#include <string.h>

struct unseen_client {
    uint8_t nothing;
};

struct unseen_server {
    bool spoke;   /* since its client did */
    bool goodbye; /* of its client */
    bool ends;    /* the last that its client sent ends like one */
};

#define GOODBYE 5u /* bytes */

static bool is_goodbye(const uint8_t *bytes, size_t n)
{
    return n == GOODBYE && !memcmp(bytes, "X\0\0\0\4", GOODBYE);
}

static bool ends_like_one(const uint8_t *bytes, size_t n)
{
    return n >= GOODBYE && is_goodbye(bytes + n - GOODBYE, GOODBYE);
}

static int unseen_opening(const void *client, const uint8_t *bytes, size_t n, struct tb_scan *scan)
{
    (void)client;
    *scan = (struct tb_scan){.verdict = is_goodbye(bytes, n) ? TB_LEAVE : n ? TB_GO : TB_MORE};
    return scan->verdict;
}

static size_t unseen_from_client(void *client, void *server, const uint8_t *bytes, size_t n,
                                 struct tb_scan *scan)
{
    struct unseen_server *s = server;

    (void)client;
    s->goodbye = s->spoke && is_goodbye(bytes, n);
    s->ends = ends_like_one(bytes, n);
    s->spoke = false;
    *scan = (struct tb_scan){.verdict = s->goodbye ? TB_LEAVE : TB_GO};
    return s->goodbye ? 0 : n;
}

static size_t unseen_from_server(void *client, void *server, const uint8_t *bytes, size_t n,
                                 struct tb_scan *scan)
{
    (void)client;
    (void)bytes;
    ((struct unseen_server *)server)->spoke = true;
    *scan = (struct tb_scan){.verdict = TB_GO};
    return n;
}

static int unseen_standing(const void *client, const void *server)
{
    const struct unseen_server *s = server;

    (void)client;
    return s->goodbye ? TB_APART : s->ends ? TB_LEFT : TB_UNSURE;
}

static int unseen_last_words(const void *server)
{
    (void)server;
    return TB_WORDS_CUT;
}

static void unseen_new(void *member, void *shared)
{
    (void)member;
    (void)shared;
}

static void unseen_free(void *member)
{
    (void)member;
}

static void unseen_server_fresh(void *server)
{
    *(struct unseen_server *)server = (struct unseen_server){0};
}

static void unseen_told(void *shared, void *client, void *server, const uint8_t *bytes, size_t n)
{
    (void)shared;
    (void)client;
    (void)server;
    (void)bytes;
    (void)n;
}

static bool unseen_suits(const void *client, const void *server)
{
    (void)client;
    (void)server;
    return true;
}

static const uint8_t *unseen_noted(const void *client, size_t *n)
{
    (void)client;
    *n = 0;
    return NULL;
}

/* Declared here too: cffi's generated file has the same line, and needs no header for it. */
const struct tb_framing *pg_opaque_framing(void);

const struct tb_framing *pg_opaque_framing(void)
{
    static const struct tb_framing framing = {
        .abi = TB_FRAMING_ABI,
        .client_size = sizeof(struct unseen_client),
        .server_size = sizeof(struct unseen_server),
        .client_new = unseen_new,
        .client_free = unseen_free,
        .server_new = unseen_new,
        .server_free = unseen_free,
        .opening = unseen_opening,
        .from_client = unseen_from_client,
        .from_server = unseen_from_server,
        .standing = unseen_standing,
        .last_words = unseen_last_words,
        .server_fresh = unseen_server_fresh,
        .server_handled = unseen_free,
        .told = unseen_told,
        .suits = unseen_suits,
        .noted = unseen_noted,
    };
    return &framing;
}
