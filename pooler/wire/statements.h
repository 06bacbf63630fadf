/* Prepared statements of clients that share servers; statements.c tells how.
 *
 * A statement is known by its text and the types of its parameters, wherever it came from. A server
 * has it under a label of ours; a client knows it by whatever name it chose.
 */
#ifndef PG_STATEMENTS_H
#define PG_STATEMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account.h"
#include "held.h"
#include "session.h"

struct shared;
struct slot;

/* What goes on in the place of a chunk, in memory that all clients of a multiplexer share. Nothing is
 * copied before the first change. */
struct out {
    struct shared *shared;
    const uint8_t *in;
    size_t passed; /* up to here the chunk goes on as it is, save what was dropped */
    size_t copied; /* up to here it has been copied, if anything was changed at all */
    size_t length; /* bytes that go on instead */
    bool on;       /* something was changed */
};

/* Up to `at` the chunk goes on as it is. */
static inline void out_pass(struct out *out, size_t at)
{
    out->passed = at;
}

/* From where it has been passed up to `at` the chunk goes nowhere: it is kept, or replaced. */
void out_drop(struct out *, size_t at);
void out_put(struct out *, const void *bytes, size_t n);
void out_finish(struct out *, size_t at);
const uint8_t *out_bytes(const struct out *);

/* A client's side. */
struct known {
    struct shared *shared; /* NULL: nothing is looked at */
    struct name **buckets;
    uint32_t count, room;
    size_t bytes;               /* of the texts it has names for */
    struct statement *unnamed;
    struct held held;
    struct watch watch;
};

/* A server's side. */
struct prepared {
    struct shared *shared;
    struct slot **buckets;
    struct slot *newest, *oldest;
    uint32_t count, room;
    struct statement *unnamed;
    bool large_unnamed;     /* its client's unnamed statement is there, too large to be remembered */
    bool stray_unnamed;     /* it may have one that we know nothing of */
    struct name *failing;   /* an error is being collected that may call a label by its name */
    struct held held;
};

/* limit: statements on a server; 0: they are not looked at. watches: what clients do to their sessions
 * is. */
struct shared *shared_new(uint32_t limit, bool watches);
void shared_free(struct shared *);
void known_free(struct known *);
void prepared_free(struct prepared *);
void prepared_fresh(struct prepared *);   /* the next client comes */
void prepared_handled(struct prepared *); /* after somebody else has used the server */

/* Of messages of these types the beginning is looked at. */
static inline bool statements_concern(uint8_t type)
{
    return type == 'P' || type == 'B' || type == 'C' || type == 'D';
}

/* Up to how many bytes of the message should be there to look at it; 0: these are enough. */
size_t statements_need(const uint8_t *message, size_t have, uint32_t length);

enum told { TOLD = 0, TOLD_LATER, TOLD_BAD, TOLD_NOTHING };

/* A request of such a type, as much of it as is needed: puts what goes on instead of it, and enters
 * what will be answered. Room for STATEMENTS_ENTRIES entries must have been reserved. TOLD_LATER: not
 * before answers have come. */
#define STATEMENTS_ENTRIES 5u
enum told statements_request(struct known *, struct prepared *, struct account *,
                             const uint8_t *message, size_t have, uint32_t length, struct out *,
                             const char **why);
/* The same where the account does not hold, or the server skips: nothing is entered. */
void statements_rename(struct known *, struct prepared *, const uint8_t *message, size_t have,
                       uint32_t length, struct out *);

/* A message that goes on as it is, as much of it as is there. */
void statements_keep(const uint8_t *message, size_t have, struct out *);

/* The entry has been answered as it should be; or it was dropped: `failed` if it was this one that the
 * server could not do, not one that it skipped. Either way the entry lets go of what it holds. */
void entry_done(struct known *, struct prepared *, struct entry *);
void entry_failed(struct known *, struct prepared *, struct entry *, bool failed);
/* The same when there is no client any more. */
void entry_release(struct entry *);
/* Whether an error in answer to this entry may name a label. */
bool entry_has_label(const struct entry *);
/* The error that is about to come is not looked at. */
void prepared_let_go(struct prepared *);
/* An ErrorResponse, whole: puts it with the client's name in the place of ours. */
void statements_error(struct prepared *, const uint8_t *message, size_t length, struct out *);

/* A query that may be "DEALLOCATE name", in the place of which it puts another. TOLD_NOTHING: it is
 * none, or the name is not one of ours. synced: no extended-query message came since the last Sync. */
enum told statements_deallocate(struct known *, struct prepared *, struct account *,
                                const uint8_t *message, size_t have, uint32_t length,
                                struct out *, bool has_unnamed, bool synced);
/* Whether a query may be one of those that end all statements. */
bool statements_may_end(const uint8_t *text, size_t n);
/* DISCARD ALL or DEALLOCATE ALL has been done. */
void statements_forget(struct known *, struct prepared *);

#endif
