/* Many clients over few servers.
 *
 * A client that begins a message is joined with an idle server, or waits its turn; when the framing
 * says that nothing is owed and nothing open, the two part and the server goes to whoever has waited
 * longest. No Python runs for any of that. It is told (tb_emit) only what it has to decide, and each
 * time the member concerned has been brought to rest first: a client that is reported is joined with
 * nobody and read no more, a server that is reported is parked.
 *
 * A member is on at most one list, by state; on each list but that of idle servers the first has been
 * there longest, so that a time-out looks at one member. Idle servers are a stack: the one used last
 * has the warmest caches, and the one at the bottom is the first to have been idle for too long.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

enum state {
    CLIENT_IDLE = 1, CLIENT_WAITING, CLIENT_JOINED, CLIENT_GONE,
    SERVER_IDLE, SERVER_JOINED, SERVER_PARKED, SERVER_HELD,
};

struct list {
    struct tb_member *first, *last;
};

struct tb_member {
    struct tb_mux *mux;
    struct tb_stream *stream;
    struct tb_member *peer;
    struct tb_member *prev, *next;
    struct list *list;
    int64_t since;        /* when it came to its list */
    int64_t busy_since;   /* clients: when the request or transaction under way began; 0: none */
    const char *why;
    uint8_t state, standing, words;
    uint32_t holds;
    bool client, retiring, leaving, goodbye;
    bool held_back;       /* clients: the framing keeps the rest until answers have come */
    uint64_t framing[];   /* its state; 64 bits for the sake of alignment */
};

struct tb_mux {
    struct tb_engine *engine;
    struct tb_mux *prev, *next;
    const struct tb_framing *framing;
    struct tb_mux_limits limits;
    struct list clients_idle, clients_open, waiting, servers_idle;
    uint64_t token;
    bool sticky, hungry, starved_told, serving;
    struct tb_mux_stats stats;
};

static const struct tb_owner client_owner, server_owner;

static void serve(struct tb_mux *mux);
static void consider_parting(struct tb_member *client);

/* ---------------------------------------------------------------- lists */

static void list_remove(struct tb_member *member)
{
    struct list *list = member->list;
    if (!list)
        return;
    if (member->prev)
        member->prev->next = member->next;
    else
        list->first = member->next;
    if (member->next)
        member->next->prev = member->prev;
    else
        list->last = member->prev;
    member->list = NULL;
    member->prev = member->next = NULL;
}

static void list_add(struct list *list, struct tb_member *member, int64_t limit)
{
    struct tb_engine *engine = member->mux->engine;
    list_remove(member);
    member->list = list;
    member->since = engine->now;
    member->prev = list->last;
    if (list->last)
        list->last->next = member;
    else
        list->first = member;
    list->last = member;
    if (limit)
        tb_check_before(engine, member->since + limit);
}

static void count_time(uint64_t *histogram, int64_t ns)
{
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    int bucket = us ? 64 - __builtin_clzll(us) : 0;
    histogram[bucket < TB_BUCKETS ? bucket : TB_BUCKETS - 1]++;
}

/* ---------------------------------------------------------------- joining and parting */

static void unjoin(struct tb_member *client, struct tb_member *server)
{
    client->peer = server->peer = NULL;
    client->held_back = false;
    client->mux->stats.joined--;
    list_remove(client);
}

static void park(struct tb_member *server, enum tb_server_news news)
{
    list_remove(server);
    server->state = SERVER_PARKED;
    server->stream->owner = NULL; /* Python's: it may read, write, or close it */
    if (news)
        tb_emit(server->mux->engine, TB_EV_SERVER, server->stream->token, (int)news);
}

/* The server is clean and free. */
static void free_server(struct tb_member *server)
{
    struct tb_mux *mux = server->mux;
    mux->framing->server_fresh(server->framing);
    if (server->holds) {
        server->state = SERVER_HELD;
    } else if (server->retiring) {
        park(server, TB_SERVER_RETIRED);
    } else {
        server->state = SERVER_IDLE;
        list_add(&mux->servers_idle, server, mux->limits.server_idle);
    }
    tb_stream_want(server->stream, true);
}

/* A client has come to rest for ever: Python is told, and what it leaves on its server too. */
static void client_gone(struct tb_member *client, enum tb_client_news news)
{
    struct tb_mux *mux = client->mux;
    struct tb_member *server = client->peer;
    list_remove(client);
    if (client->state == CLIENT_WAITING) {
        mux->stats.waiting--;
        if (!mux->waiting.first)
            mux->starved_told = false;
    }
    client->state = CLIENT_GONE;
    client->stream->owner = NULL;
    tb_stream_want(client->stream, false);
    if (server) {
        unjoin(client, server);
        server->standing = (uint8_t)mux->framing->standing(client->framing, server->framing);
        client->words = (uint8_t)mux->framing->last_words(server->framing);
        server->goodbye = news == TB_CLIENT_LEFT;
        if (server->standing == TB_APART && !mux->sticky && !server->stream->out.first) {
            free_server(server);
        } else {
            tb_stream_want(server->stream, false);
            park(server, TB_SERVER_ORPHANED);
        }
    }
    if (news == TB_CLIENT_LEFT || news == TB_CLIENT_ENDED)
        tb_emit_patiently(mux->engine, TB_EV_CLIENT, client->stream->token, (int)news);
    else if (news)
        tb_emit(mux->engine, TB_EV_CLIENT, client->stream->token, (int)news);
    if (server)
        serve(mux);
}

static void server_gone(struct tb_member *server, enum tb_server_news news)
{
    struct tb_mux *mux = server->mux;
    struct tb_member *client = server->peer;
    if (client) {
        unjoin(client, server);
        client->state = CLIENT_GONE;
        client->words = (uint8_t)mux->framing->last_words(server->framing);
        client->stream->owner = NULL;
        tb_stream_want(client->stream, false);
        tb_emit(mux->engine, TB_EV_CLIENT, client->stream->token, TB_CLIENT_SERVER_LOST);
    }
    park(server, news);
}

/* Consumed less than was offered: what the framing said of the rest. True: the client is still here. */
static bool client_held_up(struct tb_member *client, const struct tb_scan *scan)
{
    if (scan->verdict == TB_FULL) {
        client->held_back = true;
        tb_stream_want(client->stream, false);
        return true;
    }
    client->why = scan->why;
    client_gone(client, scan->verdict == TB_LEAVE ? TB_CLIENT_LEFT : TB_CLIENT_VIOLATION);
    return false;
}

static void begin_busy(struct tb_member *client)
{
    if (!client->busy_since)
        client->busy_since = client->mux->engine->now;
    if (client->list)
        list_remove(client); /* of those that are idle with something open */
}

/* What the client has sent while it waited or was held back goes on. */
static bool pump(struct tb_member *client)
{
    struct tb_mux *mux = client->mux;
    struct tb_member *server = client->peer;
    client->held_back = false;
    begin_busy(client);
    while (client->stream->in.first) {
        struct tb_segment *segment = client->stream->in.first;
        struct tb_scan scan = {0};
        size_t length = segment->length;
        size_t n = mux->framing->from_client(client->framing, server->framing, segment->bytes,
                                             length, &scan);
        tb_stream_move(client->stream, server->stream, n);
        if (n < length)
            return client_held_up(client, &scan);
    }
    if (!server->stream->choked)
        tb_stream_want(client->stream, true);
    return true;
}

static void join(struct tb_member *client, struct tb_member *server)
{
    struct tb_mux *mux = client->mux;
    list_remove(client);
    list_remove(server);
    client->peer = server;
    server->peer = client;
    client->state = CLIENT_JOINED;
    server->state = SERVER_JOINED;
    mux->stats.joined++;
    begin_busy(client);
    /* A client that has not read its last answer yet does not make us read the next. */
    tb_stream_want(server->stream, !client->stream->choked);
}

/* Clients that wait and servers that are idle find each other. Not re-entered from what it causes. */
static void serve(struct tb_mux *mux)
{
    if (mux->serving)
        return;
    mux->serving = true;
    while (mux->waiting.first && mux->servers_idle.last) {
        struct tb_member *client = mux->waiting.first;
        int64_t waited = mux->engine->now - client->since;
        mux->stats.waiting--;
        mux->stats.wait_ns += (uint64_t)waited;
        count_time(mux->stats.wait_histogram, waited);
        join(client, mux->servers_idle.last);
        if (pump(client))
            consider_parting(client);
    }
    mux->serving = false;
    if (!mux->waiting.first)
        mux->starved_told = false;
}

static void start_waiting(struct tb_member *client)
{
    struct tb_mux *mux = client->mux;
    client->state = CLIENT_WAITING;
    list_add(&mux->waiting, client, mux->limits.wait);
    mux->stats.waiting++;
    mux->stats.waits++;
    if (client->stream->in.bytes > client->stream->high_water)
        tb_stream_want(client->stream, false);
    if (mux->hungry && !mux->starved_told) {
        mux->starved_told = true;
        tb_emit(mux->engine, TB_EV_STARVED, mux->token, 0);
    }
}

/* Does what an idle client has sent so far need a server? Only a message's header is looked at. */
static int opening(struct tb_member *client, const uint8_t *bytes, size_t n)
{
    struct tb_scan scan = {0};
    int verdict = client->mux->framing->opening(client->framing, bytes, n, &scan);
    if (verdict == TB_LEAVE || verdict == TB_BAD) {
        client->why = scan.why;
        client_gone(client, verdict == TB_LEAVE ? TB_CLIENT_LEFT : TB_CLIENT_VIOLATION);
    }
    return verdict;
}

static void begin_from_queue(struct tb_member *client)
{
    uint8_t header[16];
    size_t n = 0;
    for (struct tb_segment *s = client->stream->in.first; s && n < sizeof header; s = s->next)
        for (uint32_t i = 0; i < s->length && n < sizeof header; i++)
            header[n++] = s->bytes[i];
    if (n && opening(client, header, n) == TB_GO) {
        start_waiting(client);
        serve(client->mux);
    }
}

static void rest(struct tb_member *client)
{
    struct tb_mux *mux = client->mux;
    client->state = CLIENT_IDLE;
    list_add(&mux->clients_idle, client, mux->limits.client_idle);
    tb_stream_want(client->stream, !client->stream->choked);
}

static void part(struct tb_member *client, struct tb_member *server)
{
    unjoin(client, server);
    free_server(server);
    if (client->leaving) {
        client_gone(client, TB_CLIENT_APART);
        return;
    }
    rest(client);
    if (client->stream->in.first)
        begin_from_queue(client);
}

/* After every piece, either way: how do they stand? */
static void consider_parting(struct tb_member *client)
{
    struct tb_mux *mux = client->mux;
    struct tb_member *server = client->peer;
    int standing = mux->framing->standing(client->framing, server->framing);
    if (standing == TB_OPEN && !client->list)
        list_add(&mux->clients_open, client, mux->limits.open_idle);
    if (standing != TB_APART || !client->busy_since) /* a sticky server said something unasked */
        return;
    mux->stats.transactions++;
    int64_t busy = mux->engine->now - client->busy_since;
    mux->stats.busy_ns += (uint64_t)busy;
    count_time(mux->stats.busy_histogram, busy);
    client->busy_since = 0;
    if (!mux->sticky) {
        part(client, server);
        serve(mux);
    } else if (client->leaving) {
        client_gone(client, TB_CLIENT_APART);
    } else {
        list_add(&mux->clients_idle, client, mux->limits.client_idle);
    }
}

/* ---------------------------------------------------------------- bytes from clients */

static void forward(struct tb_member *client, struct tb_lent *lent)
{
    struct tb_mux *mux = client->mux;
    struct tb_member *server = client->peer;
    struct tb_stream *stream = client->stream;
    if (stream->in.first) {
        tb_queue_copy(mux->engine, &stream->in, lent->bytes, lent->length);
        if (!client->held_back && !pump(client))
            return;
    } else {
        struct tb_scan scan = {0};
        begin_busy(client);
        size_t n = mux->framing->from_client(client->framing, server->framing, lent->bytes,
                                             lent->length, &scan);
        tb_stream_push(server->stream, lent, n);
        if (n < lent->length) {
            if (scan.verdict == TB_FULL)
                tb_queue_copy(mux->engine, &stream->in, lent->bytes + n, lent->length - n);
            if (!client_held_up(client, &scan))
                return;
        }
    }
    if (server->stream->choked)
        tb_stream_want(stream, false);
    consider_parting(client);
}

static void client_received(struct tb_stream *stream, struct tb_lent *lent)
{
    struct tb_member *client = stream->member;
    struct tb_mux *mux = client->mux;
    mux->stats.bytes_from_clients += lent->length;
    if (client->state == CLIENT_JOINED) {
        forward(client, lent);
        return;
    }
    if (client->state == CLIENT_IDLE && !stream->in.first) {
        int verdict = opening(client, lent->bytes, lent->length);
        if (verdict == TB_GO && mux->servers_idle.last) {
            join(client, mux->servers_idle.last);
            forward(client, lent);
            return;
        }
        if (verdict != TB_GO && verdict != TB_MORE)
            return;
        tb_queue_copy(mux->engine, &stream->in, lent->bytes, lent->length);
        if (verdict == TB_GO)
            start_waiting(client);
        return;
    }
    tb_queue_copy(mux->engine, &stream->in, lent->bytes, lent->length);
    if (client->state == CLIENT_IDLE)
        begin_from_queue(client);
    else if (stream->in.bytes > stream->high_water)
        tb_stream_want(stream, false);
}

static void client_ended(struct tb_stream *stream)
{
    client_gone(stream->member, TB_CLIENT_ENDED);
}

static void client_drained(struct tb_stream *stream)
{
    struct tb_member *client = stream->member;
    if (client->state == CLIENT_JOINED)
        tb_stream_want(client->peer->stream, true);
    else if (client->state == CLIENT_IDLE)
        tb_stream_want(stream, true);
}

static const struct tb_owner client_owner = {
    .received = client_received,
    .ended = client_ended,
    .drained = client_drained,
};

/* ---------------------------------------------------------------- bytes from servers */

static void server_received(struct tb_stream *stream, struct tb_lent *lent)
{
    struct tb_member *server = stream->member;
    struct tb_member *client = server->peer;
    struct tb_mux *mux = server->mux;
    mux->stats.bytes_from_servers += lent->length;
    if (!client) {
        tb_queue_copy(mux->engine, &stream->in, lent->bytes, lent->length);
        park(server, TB_SERVER_SPOKE);
        return;
    }
    struct tb_scan scan = {0};
    size_t n = mux->framing->from_server(client->framing, server->framing, lent->bytes,
                                         lent->length, &scan);
    tb_stream_push(client->stream, lent, n);
    mux->stats.requests += scan.answered;
    if (n < lent->length) {
        server->why = scan.why;
        server_gone(server, TB_SERVER_VIOLATION);
        return;
    }
    if (client->stream->choked)
        tb_stream_want(stream, false);
    if (client->held_back && !pump(client))
        return;
    consider_parting(client);
}

static void server_ended(struct tb_stream *stream)
{
    server_gone(stream->member, TB_SERVER_LOST);
}

static void server_drained(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    if (server->peer && !server->peer->held_back)
        tb_stream_want(server->peer->stream, true);
}

static const struct tb_owner server_owner = {
    .received = server_received,
    .ended = server_ended,
    .drained = server_drained,
};

/* ---------------------------------------------------------------- members, for Python */

static struct tb_member *member_new(struct tb_mux *mux, struct tb_stream *stream, uint32_t size)
{
    struct tb_member *member = tb_alloc(sizeof *member + size);
    member->mux = mux;
    member->stream = stream;
    stream->member = member;
    stream->reader_waits = stream->sender_waits = false;
    return member;
}

void tb_mux_add_client(struct tb_mux *mux, struct tb_stream *stream)
{
    struct tb_member *client = member_new(mux, stream, mux->framing->client_size);
    client->client = true;
    mux->stats.clients++;
    stream->owner = &client_owner;
    rest(client);
    if (stream->in.first)
        begin_from_queue(client); /* what it sent behind its log-in */
    if (client->state != CLIENT_GONE && (stream->ended || stream->error))
        client_ended(stream);
}

void tb_mux_add_server(struct tb_mux *mux, struct tb_stream *stream)
{
    member_new(mux, stream, mux->framing->server_size);
    mux->stats.servers++;
    tb_server_ready(stream);
}

void tb_server_ready(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    stream->owner = &server_owner;
    stream->reader_waits = stream->sender_waits = false;
    server->goodbye = false;
    if (stream->ended || stream->error) {
        park(server, TB_SERVER_LOST);
    } else if (stream->in.first) {
        park(server, TB_SERVER_SPOKE);
    } else {
        free_server(server);
        serve(server->mux);
    }
}

static void remove_server(struct tb_member *server)
{
    struct tb_mux *mux = server->mux;
    if (server->peer)
        server_gone(server, 0); /* whoever takes it out knows */
    list_remove(server);
    mux->framing->server_free(server->framing);
    mux->stats.servers--;
}

static void remove_client(struct tb_member *client)
{
    if (client->state != CLIENT_GONE)
        client_gone(client, 0); /* whoever takes it out knows */
    client->mux->stats.clients--;
}

void tb_mux_remove(struct tb_stream *stream)
{
    struct tb_member *member = stream->member;
    if (!member)
        return;
    if (member->client)
        remove_client(member);
    else
        remove_server(member);
    stream->owner = NULL;
    stream->member = NULL;
    free(member);
}

void tb_server_hold(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    server->holds++;
    if (server->state == SERVER_IDLE) {
        list_remove(server);
        server->state = SERVER_HELD;
    }
}

void tb_server_release(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    if (!server || !server->holds || --server->holds || server->state != SERVER_HELD)
        return;
    free_server(server);
    serve(server->mux);
}

void tb_server_retire(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    server->retiring = true;
    if (server->state == SERVER_IDLE)
        park(server, TB_SERVER_RETIRED);
}

void tb_client_leave(struct tb_stream *stream)
{
    struct tb_member *client = stream->member;
    if (!client || client->state == CLIENT_GONE)
        return;
    client->leaving = true;
    if (client->state != CLIENT_JOINED || !client->busy_since)
        client_gone(client, TB_CLIENT_APART);
}

uint64_t tb_client_server(const struct tb_stream *stream)
{
    const struct tb_member *client = stream->member;
    return client && client->peer ? client->peer->stream->token : 0;
}

bool tb_client_waits(const struct tb_stream *stream)
{
    return stream->member && stream->member->state == CLIENT_WAITING;
}

const char *tb_member_why(const struct tb_stream *stream)
{
    return stream->member && stream->member->why ? stream->member->why : "";
}

int tb_member_words(const struct tb_stream *stream)
{
    return stream->member ? stream->member->words : TB_WORDS_WHOLE;
}

int tb_member_standing(const struct tb_stream *stream)
{
    return stream->member ? stream->member->standing : TB_APART;
}

bool tb_server_goodbye(const struct tb_stream *stream)
{
    return stream->member && stream->member->goodbye;
}

/* ---------------------------------------------------------------- the multiplexer itself */

struct tb_mux *tb_mux_new(struct tb_engine *engine, const struct tb_framing *framing, bool sticky)
{
    if (framing->abi != TB_FRAMING_ABI)
        return NULL;
    struct tb_mux *mux = tb_alloc(sizeof *mux);
    mux->engine = engine;
    mux->framing = framing;
    mux->sticky = sticky;
    mux->token = engine->next_token++;
    mux->next = engine->muxes;
    if (mux->next)
        mux->next->prev = mux;
    engine->muxes = mux;
    return mux;
}

void tb_mux_free(struct tb_mux *mux)
{
    if (mux->prev)
        mux->prev->next = mux->next;
    else
        mux->engine->muxes = mux->next;
    if (mux->next)
        mux->next->prev = mux->prev;
    free(mux);
}

uint64_t tb_mux_token(const struct tb_mux *mux)
{
    return mux->token;
}

void tb_mux_hungry(struct tb_mux *mux, bool hungry)
{
    mux->hungry = hungry;
    mux->starved_told = false;
}

void tb_mux_stats(const struct tb_mux *mux, struct tb_mux_stats *stats)
{
    *stats = mux->stats;
    for (const struct tb_member *m = mux->servers_idle.first; m; m = m->next)
        stats->servers_idle++;
    stats->servers_parked = stats->servers - stats->servers_idle - stats->joined;
    if (mux->waiting.first)
        stats->longest_wait = tb_clock() - mux->waiting.first->since;
}

uint32_t tb_mux_waiting(const struct tb_mux *mux)
{
    return mux->stats.waiting;
}

void tb_mux_dismiss(struct tb_mux *mux)
{
    while (mux->waiting.first)
        client_gone(mux->waiting.first, TB_CLIENT_DISMISSED);
    mux->starved_told = false;
}

static void check_list(struct list *list, int64_t limit, bool servers, int news)
{
    while (limit && list->first) {
        struct tb_member *member = list->first;
        struct tb_engine *engine = member->mux->engine;
        if (engine->now - member->since < limit) {
            tb_check_before(engine, member->since + limit);
            return;
        }
        if (servers)
            park(member, (enum tb_server_news)news);
        else
            client_gone(member, (enum tb_client_news)news);
    }
}

void tb_mux_check(struct tb_engine *engine)
{
    for (struct tb_mux *mux = engine->muxes; mux; mux = mux->next) {
        check_list(&mux->waiting, mux->limits.wait, false, TB_CLIENT_WAITED);
        check_list(&mux->clients_idle, mux->limits.client_idle, false, TB_CLIENT_IDLE);
        check_list(&mux->clients_open, mux->limits.open_idle, false, TB_CLIENT_OPEN);
        check_list(&mux->servers_idle, mux->limits.server_idle, true, TB_SERVER_IDLE);
    }
}

void tb_mux_limit(struct tb_mux *mux, const struct tb_mux_limits *limits)
{
    mux->limits = *limits;
    tb_check_before(mux->engine, mux->engine->now); /* the lists are looked at anew */
}
