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
#include "multiplexer.h"

#define MOST_PICKED 32 /* idle servers that are looked at for one that suits */

static const struct tb_owner client_owner;

static void consider_parting(struct tb_member *client);

/* ---------------------------------------------------------------- lists */

void mux_unlist(struct tb_member *member)
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
    mux_unlist(member);
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
    mux_unlist(client);
}

void mux_park(struct tb_member *server, enum tb_server_news news)
{
    mux_unlist(server);
    server->state = SERVER_PARKED;
    server->stream->owner = NULL;
    if (news)
        tb_emit(server->mux->engine, TB_EV_SERVER, server->stream->token, (int)news);
}

/* The server is clean and free. */
void mux_free_server(struct tb_member *server)
{
    struct tb_mux *mux = server->mux;
    mux->framing->server_fresh(server->framing);
    if (server->holds) {
        server->state = SERVER_HELD;
    } else if (server->retiring) {
        mux_park(server, TB_SERVER_RETIRED);
    } else {
        server->state = SERVER_IDLE;
        list_add(&mux->servers_idle, server, mux->limits.server_idle);
    }
    tb_stream_want(server->stream, true);
}

/* A client has come to rest for ever: Python is told, and what it leaves on its server too. */
void mux_client_gone(struct tb_member *client, enum tb_client_news news)
{
    struct tb_mux *mux = client->mux;
    struct tb_member *server = client->peer;
    mux_unlist(client);
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
        server->goodbye = news == TB_CLIENT_LEFT || server->standing == TB_LEFT;
        if (server->standing == TB_APART && !mux->sticky && !server->stream->out.first &&
            server->state != SERVER_PARKED) {
            mux_free_server(server);
        } else if (server->state != SERVER_PARKED) { /* else Python is with it already */
            tb_stream_want(server->stream, false);
            mux_park(server, TB_SERVER_ORPHANED);
        }
    }
    if (news == TB_CLIENT_LEFT || news == TB_CLIENT_ENDED)
        tb_emit_patiently(mux->engine, TB_EV_CLIENT, client->stream->token, (int)news);
    else if (news)
        tb_emit(mux->engine, TB_EV_CLIENT, client->stream->token, (int)news);
    if (server)
        mux_serve(mux);
}

void mux_server_gone(struct tb_member *server, enum tb_server_news news)
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
    mux_park(server, news);
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
    mux_client_gone(client, scan->verdict == TB_LEAVE ? TB_CLIENT_LEFT : TB_CLIENT_VIOLATION);
    return false;
}

static void begin_busy(struct tb_member *client)
{
    if (!client->busy_since)
        client->busy_since = client->mux->engine->now;
    if (client->list)
        mux_unlist(client); /* of those that are idle with something open */
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
        if (scan.instead) {
            tb_stream_push_copy(server->stream, scan.instead, scan.instead_length);
            tb_queue_drop(mux->engine, &client->stream->in, n);
        } else {
            tb_stream_move(client->stream, server->stream, n);
        }
        if (n < length)
            return client_held_up(client, &scan);
    }
    if (!server->stream->choked)
        tb_stream_want(client->stream, true);
    return true;
}

/* The idle server that was used last; among a few of those the first that suits the client as it is.
 * NULL: there is none at all. */
static struct tb_member *pick(const struct tb_member *client)
{
    const struct tb_mux *mux = client->mux;
    struct tb_member *server = mux->servers_idle.last;
    for (int i = 0; server && i < MOST_PICKED; i++, server = server->prev)
        if (mux->framing->suits(client->framing, server->framing))
            return server;
    return mux->servers_idle.last;
}

static void join(struct tb_member *client, struct tb_member *server)
{
    struct tb_mux *mux = client->mux;
    mux_unlist(client);
    mux_unlist(server);
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
void mux_serve(struct tb_mux *mux)
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
        join(client, pick(client));
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
        mux_client_gone(client, verdict == TB_LEAVE ? TB_CLIENT_LEFT : TB_CLIENT_VIOLATION);
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
        mux_serve(client->mux);
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
    mux_free_server(server);
    if (client->leaving) {
        mux_client_gone(client, TB_CLIENT_APART);
        return;
    }
    rest(client);
    if (client->stream->in.first)
        begin_from_queue(client);
}

/* Python has to look at the server before anything else happens to the two. */
static void ask(struct tb_member *client, struct tb_member *server)
{
    mux_unlist(client);
    client->state = CLIENT_PAUSED;
    mux_park(server, TB_SERVER_ASKED);
}

/* After every piece, either way: how do they stand? */
static void consider_parting(struct tb_member *client)
{
    struct tb_mux *mux = client->mux;
    struct tb_member *server = client->peer;
    int standing = mux->framing->standing(client->framing, server->framing);
    if (standing == TB_OPEN && !client->list)
        list_add(&mux->clients_open, client, mux->limits.open_idle);
    if (standing == TB_ASK) {
        ask(client, server);
        return;
    }
    if (standing != TB_APART && standing != TB_KEPT)
        return;
    if (!client->busy_since) /* a sticky server said something unasked */
        return;
    mux->stats.transactions++;
    int64_t busy = mux->engine->now - client->busy_since;
    mux->stats.busy_ns += (uint64_t)busy;
    count_time(mux->stats.busy_histogram, busy);
    client->busy_since = 0;
    if (!mux->sticky && standing == TB_APART) {
        part(client, server);
        mux_serve(mux);
    } else if (client->leaving) {
        mux_client_gone(client, TB_CLIENT_APART);
    } else {
        list_add(&mux->clients_idle, client, mux->limits.client_idle);
    }
}

/* What a server said while it was Python's, unasked, goes to its client. */
static bool hear_from_queue(struct tb_member *client, struct tb_member *server)
{
    struct tb_mux *mux = client->mux;
    while (server->stream->in.first) {
        struct tb_segment *segment = server->stream->in.first;
        struct tb_scan scan = {0};
        size_t length = segment->length;
        size_t n = mux->framing->from_server(client->framing, server->framing, segment->bytes,
                                             length, &scan);
        tb_stream_push_copy(client->stream, scan.instead ? scan.instead : segment->bytes,
                            scan.instead ? scan.instead_length : n);
        tb_queue_drop(mux->engine, &server->stream->in, n);
        if (n < length) {
            server->why = scan.why;
            mux_server_gone(server, TB_SERVER_VIOLATION);
            return false;
        }
    }
    if (server->stream->ended || server->stream->error)
        mux_server_gone(server, TB_SERVER_LOST);
    return client->peer == server;
}

void mux_resume(struct tb_member *client)
{
    struct tb_member *server = client->peer;
    client->state = CLIENT_JOINED;
    server->state = SERVER_JOINED;
    server->stream->owner = &mux_server_owner;
    server->stream->reader_waits = server->stream->sender_waits = false;
    if (!hear_from_queue(client, server))
        return;
    tb_stream_want(server->stream, !client->stream->choked);
    begin_busy(client); /* so that what has become of it is looked at */
    consider_parting(client);
    if (client->state != CLIENT_JOINED || client->peer != server)
        return;
    tb_stream_want(client->stream, !server->stream->choked);
    if (client->stream->in.first && pump(client))
        consider_parting(client);
}

/* What was consumed goes out, or what the framing puts in its place. */
static void push(struct tb_stream *stream, struct tb_lent *lent, size_t n,
                 const struct tb_scan *scan)
{
    if (scan->instead)
        tb_stream_push_copy(stream, scan->instead, scan->instead_length);
    else
        tb_stream_push(stream, lent, n);
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
        push(server->stream, lent, n, &scan);
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
            join(client, pick(client));
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
    struct tb_member *client = stream->member;
    const struct tb_segment *first = stream->in.first;
    struct tb_scan scan = {0};
    /* A goodbye that the framing keeps until answers have come has been said all the same. */
    bool said = client->held_back && first &&
                client->mux->framing->opening(client->framing, first->bytes, first->length,
                                              &scan) == TB_LEAVE;
    mux_client_gone(client, said ? TB_CLIENT_LEFT : TB_CLIENT_ENDED);
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

/* The client, of which nothing has gone on, tries another. */
static void unfit(struct tb_member *client, struct tb_member *server)
{
    struct tb_mux *mux = client->mux;
    unjoin(client, server);
    tb_stream_want(server->stream, false);
    mux_park(server, TB_SERVER_UNFIT);
    if (client->leaving) {
        mux_client_gone(client, TB_CLIENT_APART);
        return;
    }
    tb_stream_want(client->stream, true); /* while it waits, it may go */
    start_waiting(client);
    mux_serve(mux);
}

static void server_received(struct tb_stream *stream, struct tb_lent *lent)
{
    struct tb_member *server = stream->member;
    struct tb_member *client = server->peer;
    struct tb_mux *mux = server->mux;
    mux->stats.bytes_from_servers += lent->length;
    if (!client) {
        tb_queue_copy(mux->engine, &stream->in, lent->bytes, lent->length);
        mux_park(server, TB_SERVER_SPOKE);
        return;
    }
    struct tb_scan scan = {0};
    size_t n = mux->framing->from_server(client->framing, server->framing, lent->bytes,
                                         lent->length, &scan);
    push(client->stream, lent, n, &scan);
    mux->stats.requests += scan.answered;
    if (scan.verdict == TB_REFUSED) {
        tb_queue_copy(mux->engine, &stream->in, lent->bytes + n, lent->length - n);
        client->why = scan.why;
        mux_client_gone(client, TB_CLIENT_REFUSED);
        return;
    }
    if (n < lent->length) {
        server->why = scan.why;
        if (scan.verdict == TB_UNFIT)
            unfit(client, server);
        else
            mux_server_gone(server, TB_SERVER_VIOLATION);
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
    mux_server_gone(stream->member, TB_SERVER_LOST);
}

static void server_drained(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    if (server->peer && !server->peer->held_back)
        tb_stream_want(server->peer->stream, true);
}

const struct tb_owner mux_server_owner = {
    .received = server_received,
    .ended = server_ended,
    .drained = server_drained,
};

/* ---------------------------------------------------------------- coming in */

void mux_admit(struct tb_member *client)
{
    struct tb_stream *stream = client->stream;
    stream->owner = &client_owner;
    rest(client);
    if (stream->in.first)
        begin_from_queue(client); /* what it sent behind its log-in */
    if (client->state != CLIENT_GONE && (stream->ended || stream->error))
        client_ended(stream);
}
