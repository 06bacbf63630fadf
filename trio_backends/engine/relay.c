/* Two streams joined: what one receives the other sends, until both have ended. */
#include <errno.h>

#include "engine.h"

static void relay_received(struct tb_stream *stream, struct tb_lent *lent)
{
    struct tb_stream *peer = stream->peer;
    stream->relayed += lent->length;
    tb_stream_push(peer, lent, lent->length);
    if (peer->choked)
        tb_stream_want(stream, false);
}

static void relay_over(struct tb_stream *stream, int error)
{
    struct tb_stream *peer = stream->peer;
    tb_stream_want(stream, false);
    tb_stream_want(peer, false);
    tb_stream_disown(stream);
    tb_stream_disown(peer);
    uint64_t older = stream->token < peer->token ? stream->token : peer->token;
    tb_emit(stream->engine, TB_EV_RELAYED, older, error);
}

/* The other's end is passed on when all that came before it has been. */
static void pass_end(struct tb_stream *stream)
{
    struct tb_stream *peer = stream->peer;
    if (peer->out.first) {
        peer->choked = true; /* so that drained() is called */
        return;
    }
    tb_stream_shutdown_send(peer);
    if (peer->ended && !stream->out.first)
        relay_over(stream, 0);
}

static void relay_ended(struct tb_stream *stream)
{
    if (stream->error)
        relay_over(stream, stream->error);
    else
        pass_end(stream);
}

static void relay_drained(struct tb_stream *stream)
{
    struct tb_stream *peer = stream->peer;
    if (peer->ended)
        pass_end(peer);
    else
        tb_stream_want(peer, true);
}

static const struct tb_owner relay_owner = {
    .received = relay_received,
    .ended = relay_ended,
    .drained = relay_drained,
};

static void take_over(struct tb_stream *stream, struct tb_stream *peer)
{
    stream->owner = &relay_owner;
    stream->peer = peer;
    stream->relayed = 0;
    stream->reader_waits = stream->sender_waits = false;
}

static void start(struct tb_stream *stream)
{
    if (stream->peer && stream->in.bytes) {
        stream->relayed = stream->in.bytes;
        tb_stream_move(stream, stream->peer, stream->in.bytes);
    }
    if (stream->peer && (stream->ended || stream->error))
        relay_ended(stream);
    else if (stream->peer && !stream->peer->choked)
        tb_stream_want(stream, true);
}

int tb_relay(struct tb_stream *a, struct tb_stream *b)
{
    if (a == b)
        return -EINVAL;
    if (a->owner || b->owner || a->member || b->member)
        return -EBUSY;
    take_over(a, b);
    take_over(b, a);
    start(a);
    start(b);
    return 0;
}

uint64_t tb_relayed(const struct tb_stream *stream)
{
    return stream->relayed;
}

void tb_relay_break(struct tb_stream *stream)
{
    relay_over(stream, -ECANCELED);
}

void tb_relay_stop(struct tb_stream *stream)
{
    struct tb_stream *peer = stream->peer;
    if (!peer)
        return;
    tb_stream_want(stream, false);
    tb_stream_want(peer, false);
    tb_stream_disown(stream);
    tb_stream_disown(peer);
}
