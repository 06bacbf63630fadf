/* What multiplexer.c (bytes) and members.c (what Python asks for) share; nobody else looks in here. */
#ifndef TB_MULTIPLEXER_H
#define TB_MULTIPLEXER_H

#include "engine.h"

enum state {
    CLIENT_IDLE = 1, CLIENT_WAITING, CLIENT_WITHDRAWN, CLIENT_JOINED, CLIENT_PAUSED, CLIENT_GONE,
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
    void *shared; /* the framing's */
    struct tb_mux_limits limits;
    struct list clients_idle, clients_open, waiting, servers_idle;
    uint64_t token;
    bool sticky, hungry, starved_told, serving;
    struct tb_mux_stats stats;
};

extern const struct tb_owner mux_server_owner;

void mux_unlist(struct tb_member *);
/* Both go on from where they were when Python was asked. */
void mux_resume(struct tb_member *client);
/* A client that comes in: it may have sent something already, or have gone. */
void mux_admit(struct tb_member *client);
/* Joins those who wait longest with the servers that are idle. */
void mux_serve(struct tb_mux *);
/* The server is Python's: it may read, write, or close it. */
void mux_park(struct tb_member *server, enum tb_server_news);
/* The server is clean and free. */
void mux_free_server(struct tb_member *server);
/* Each has come to rest for ever; news 0: whoever takes it out knows. */
void mux_client_gone(struct tb_member *client, enum tb_client_news);
void mux_server_gone(struct tb_member *server, enum tb_server_news);

#endif
