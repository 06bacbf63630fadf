/* The members of a multiplexer, and the multiplexer itself, as Python handles them. */
#include <stdlib.h>
#include <string.h>

#include "multiplexer.h"

/* ---------------------------------------------------------------- members */

static struct tb_member *member_new(struct tb_mux *mux, struct tb_stream *stream, uint32_t size)
{
    struct tb_member *member = tb_alloc(sizeof *member + size);
    member->mux = mux;
    member->stream = stream;
    stream->member = member;
    stream->reader_waits = stream->sender_waits = false;
    return member;
}

void tb_mux_tell(struct tb_mux *mux, const uint8_t *bytes, size_t n)
{
    mux->framing->told(mux->shared, NULL, NULL, bytes, n);
}

void tb_mux_add_client(struct tb_mux *mux, struct tb_stream *stream, const uint8_t *bytes, size_t n)
{
    struct tb_member *client = member_new(mux, stream, mux->framing->client_size);
    mux->framing->client_new(client->framing, mux->shared);
    if (n)
        mux->framing->told(mux->shared, client->framing, NULL, bytes, n);
    client->client = true;
    mux->stats.clients++;
    mux_admit(client);
}

void tb_mux_add_server(struct tb_mux *mux, struct tb_stream *stream)
{
    struct tb_member *server = member_new(mux, stream, mux->framing->server_size);
    mux->framing->server_new(server->framing, mux->shared);
    mux->stats.servers++;
    tb_server_ready(stream);
}

void tb_server_ready(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    stream->owner = &mux_server_owner;
    stream->reader_waits = stream->sender_waits = false;
    server->goodbye = false;
    if (stream->ended || stream->error) {
        mux_park(server, TB_SERVER_LOST);
    } else if (stream->in.first) {
        mux_park(server, TB_SERVER_SPOKE);
    } else {
        server->mux->framing->server_handled(server->framing);
        mux_free_server(server);
        mux_serve(server->mux);
    }
}

const uint8_t *tb_server_noted(const struct tb_stream *stream, size_t *n)
{
    const struct tb_member *client = stream->member->peer;
    *n = 0;
    return client ? client->mux->framing->noted(client->framing, n) : NULL;
}

uint64_t tb_server_client(const struct tb_stream *stream)
{
    const struct tb_member *client = stream->member->peer;
    return client ? client->stream->token : 0;
}

void tb_server_tell(struct tb_stream *stream, const uint8_t *bytes, size_t n)
{
    struct tb_mux *mux = stream->member->mux;
    mux->framing->told(mux->shared, NULL, stream->member->framing, bytes, n);
}

bool tb_server_answer(struct tb_stream *stream, const uint8_t *bytes, size_t n,
                      const uint8_t *forward, size_t length)
{
    struct tb_member *server = stream->member, *client = server->peer;
    struct tb_mux *mux = server->mux;
    if (!client || client->state != CLIENT_PAUSED)
        return false;
    mux->framing->server_handled(server->framing); /* whoever asked it has used it */
    mux->framing->told(mux->shared, client->framing, NULL, bytes, n);
    if (length)
        tb_stream_push_copy(client->stream, forward, length);
    mux_resume(client);
    mux_serve(mux);
    return true;
}

static void remove_server(struct tb_member *server)
{
    struct tb_mux *mux = server->mux;
    if (server->peer)
        mux_server_gone(server, 0); /* whoever takes it out knows */
    mux_unlist(server);
    mux->framing->server_free(server->framing);
    mux->stats.servers--;
}

static void remove_client(struct tb_member *client)
{
    if (client->state != CLIENT_GONE)
        mux_client_gone(client, 0); /* whoever takes it out knows */
    client->mux->framing->client_free(client->framing);
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
        mux_unlist(server);
        server->state = SERVER_HELD;
    }
}

void tb_server_release(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    if (!server || !server->holds || --server->holds || server->state != SERVER_HELD)
        return;
    mux_free_server(server);
    mux_serve(server->mux);
}

void tb_server_retire(struct tb_stream *stream)
{
    struct tb_member *server = stream->member;
    server->retiring = true;
    if (server->state == SERVER_IDLE)
        mux_park(server, TB_SERVER_RETIRED);
}

void tb_client_leave(struct tb_stream *stream)
{
    struct tb_member *client = stream->member;
    if (!client || client->state == CLIENT_GONE)
        return;
    client->leaving = true;
    if (client->state != CLIENT_JOINED || !client->busy_since)
        mux_client_gone(client, TB_CLIENT_APART);
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

size_t tb_client_peek(const struct tb_stream *stream, uint8_t *bytes, size_t n)
{
    size_t seen = 0;
    for (const struct tb_segment *s = stream->in.first; s && seen < n; s = s->next) {
        size_t piece = s->length < n - seen ? s->length : n - seen;
        memcpy(bytes + seen, s->bytes, piece);
        seen += piece;
    }
    return seen;
}

bool tb_client_withdraw(struct tb_stream *stream, size_t n)
{
    struct tb_member *client = stream->member;
    if (!tb_client_waits(stream) || n > stream->in.bytes)
        return false;
    mux_unlist(client);
    client->mux->stats.waiting--;
    if (!client->mux->waiting.first)
        client->mux->starved_told = false;
    client->state = CLIENT_WITHDRAWN;
    stream->owner = NULL;
    tb_queue_drop(stream->engine, &stream->in, n);
    return true;
}

void tb_client_resume(struct tb_stream *stream)
{
    if (stream->member && stream->member->state == CLIENT_WITHDRAWN)
        mux_admit(stream->member);
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

struct tb_mux *tb_mux_new(struct tb_engine *engine, const struct tb_framing *framing, bool sticky,
                          uint64_t option)
{
    if (framing->abi != TB_FRAMING_ABI)
        return NULL;
    struct tb_mux *mux = tb_alloc(sizeof *mux);
    mux->engine = engine;
    mux->framing = framing;
    mux->sticky = sticky;
    if (framing->shared_new)
        mux->shared = framing->shared_new(option);
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
    if (mux->framing->shared_free)
        mux->framing->shared_free(mux->shared);
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
        mux_client_gone(mux->waiting.first, TB_CLIENT_DISMISSED);
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
            mux_park(member, (enum tb_server_news)news);
        else
            mux_client_gone(member, (enum tb_client_news)news);
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
