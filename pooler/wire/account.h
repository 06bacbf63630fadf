/* The account of what a server owes: one entry for each request that will be answered, first in,
 * first out. framing.c says what the entries mean.
 *
 * Beside its kind an entry may hold what is to happen when it has been answered (statements.c): which
 * prepared statement the server has, or lacks, from then on, and which name the client knows it by.
 * Such an entry owns a reference to each.
 */
#ifndef PG_ACCOUNT_H
#define PG_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

struct name;
struct statement;

enum does {
    SWALLOWED_ANSWER = 1, /* the client did not ask for it, and does not see the answer */
    PREPARES = 2,         /* the server has the statement */
    DISMISSES = 4,        /* the server lacks the statement */
    NAMES = 8,            /* the client's name is the statement's */
    UNNAMES = 16,         /* the client's name is nobody's */
    SETS_UNNAMED = 32,    /* the unnamed statement is this one, on both sides; NULL: a large one */
    DROPS_UNNAMED = 64,   /* there is no unnamed statement any more, on both sides */
    RESTORES = 256,       /* the server has the settings that its client wants */
    FORGETS = 128,        /* there may be no statements at all any more, on both sides */
};

struct entry {
    uint8_t kind; /* enum entry_kind, framing_messages.h */
    uint16_t does; /* enum does, a set */
    struct name *name;
    struct statement *statement;
};

#define INLINE_ENTRIES 32u /* powers of two, both */
#define MOST_ENTRIES 65536u

struct account {
    uint32_t first, count;
    uint32_t many_size;  /* entries that `many` holds */
    uint32_t does_count; /* entries that do something */
    uint32_t swallows;   /* of these, those whose answer is swallowed */
    uint32_t prepares, dismisses; /* of these, those after which the server has one more, or less */
    struct entry *many;  /* in use instead of `few` once these did not suffice */
    struct entry few[INLINE_ENTRIES];
};

static inline struct entry *account_at(struct account *account, uint32_t index)
{
    if (account->many)
        return &account->many[(account->first + index) & (account->many_size - 1u)];
    return &account->few[(account->first + index) & (INLINE_ENTRIES - 1u)];
}

/* Is there room for so many more? Makes some. */
bool account_reserve(struct account *, uint32_t more);
/* Room must have been reserved. */
static inline struct entry *account_add(struct account *account, uint8_t kind)
{
    struct entry *entry = account_at(account, account->count++);

    *entry = (struct entry){.kind = kind};
    return entry;
}

#endif
