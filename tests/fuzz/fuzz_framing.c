/* Throws conversations at the PostgreSQL framing and checks what must hold whatever is thrown.
 *
 * Ten million frames, from the project's root:
 *
 *   cc -std=gnu11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
 *      -Itrio_backends/engine pooler/wire/{framing,statements,session,memory}.c \
 *      tests/fuzz/fuzz_framing.c -o /tmp/fuzz_framing
 *   /tmp/fuzz_framing 10000000 1       # frames, seed
 *
 * Guided by coverage, until stopped:
 *
 *   clang -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined -DLIBFUZZER \
 *      -Itrio_backends/engine pooler/wire/{framing,statements,session,memory}.c \
 *      tests/fuzz/fuzz_framing.c -o /tmp/fuzz_framing
 *   /tmp/fuzz_framing
 *
 * Two framings hear the same conversation: one in the pieces in which it was written, one cut into
 * small chunks at random. Checked: every chunk stands alone in an allocation of its exact size, so
 * that a read beyond it is seen; consumed <= n, and == n exactly for TB_GO; both framings agree on
 * what they said and where they stand; last words and standing fit the boundaries that we know of.
 */
#include "framing.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct tb_framing *pg_framing(void);

#define CHECK(holds)                                                                    \
    do {                                                                                \
        if (!(holds)) {                                                                 \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);  \
            abort();                                                                    \
        }                                                                               \
    } while (0)

/* ----------------------------------------------------------------------------------- the choices */

/* Either pseudo-random (xorshift64*), or taken from a fuzzer's input until that is used up. */
struct choices {
    uint64_t state;
    const uint8_t *input;
    size_t left;
};

static uint32_t choose(struct choices *choices, uint32_t below)
{
    if (choices->input) {
        uint32_t value = 0;

        for (uint32_t range = below; range > 1 && choices->left; range >>= 8) {
            value = value << 8 | *choices->input++;
            choices->left--;
        }
        return value % below;
    }
    choices->state ^= choices->state >> 12;
    choices->state ^= choices->state << 25;
    choices->state ^= choices->state >> 27;
    return (uint32_t)(choices->state * 0x2545f4914f6cdd1dull >> 32) % below;
}

static bool one_in(struct choices *choices, uint32_t n)
{
    return choose(choices, n) == 0;
}

/* ------------------------------------------------------------------------------- writing frames */

#define LONGEST_BODY 300u
#define FRAME (5u + LONGEST_BODY)

static const char client_types[] = "PBDECQFSHdcfPBDESSSQQQQ";
static const char server_types[] = "123ACDEGHIKNRSTVWZcdnstv";
static const uint8_t server_least[] = {4, 4, 4, 10, 5, 6, 5, 7, 7, 4, 8, 5,
                                       8, 6, 6, 8, 7, 5, 4, 4, 4, 4, 6, 12};

static void put_length(uint8_t *at, uint32_t length)
{
    at[0] = (uint8_t)(length >> 24);
    at[1] = (uint8_t)(length >> 16);
    at[2] = (uint8_t)(length >> 8);
    at[3] = (uint8_t)length;
}

/* A body as it should be; the length of the message. */
static uint32_t put_statement(struct choices *choices, uint8_t *at, char type)
{
    static const char *const names[] = {"a", "b", "", "_tp10", "_tp2"};
    static const char *const texts[] = {
        "select 1", "", "DEALLOCATE a", "discard all", "deallocate",
        "SET a.b = 1", "/* -- */set local c = 'd.e'", "select set_config('a.b', $1, false)",
        "select e'\\'', '--', set_config(\"x\", f(1), true)", "drop table \"t\"", "load $a$x$a$",
    };
    const char *name = names[choose(choices, 5)], *text = texts[choose(choices, 11)];
    char *body = (char *)at + 5;
    size_t n = 0;

    if (type == 'Q') {
        n = strlen(text) + 1;
        memcpy(body, text, n);
    } else {
        if (type == 'B')
            body[n++] = 0; /* the unnamed portal */
        else if (type != 'P')
            body[n++] = one_in(choices, 4) ? 'P' : 'S';
        memcpy(body + n, name, strlen(name) + 1);
        n += strlen(name) + 1;
        if (type == 'P') {
            memcpy(body + n, text, strlen(text) + 1);
            n += strlen(text) + 1;
        }
        if (type == 'P' || type == 'B') {
            memset(body + n, 0, 6);
            n += type == 'P' ? 2 : 6;
        }
    }
    put_length(at + 1, (uint32_t)n + 4);
    return (uint32_t)n + 4;
}

static size_t put_frame(struct choices *choices, uint8_t *at, char type, uint32_t length)
{
    static const char bytes[] = "ITEZS\0\1Q";

    at[0] = (uint8_t)type;
    put_length(at + 1, length);
    for (uint32_t i = 0; i + 4 < length; i++)
        at[5 + i] = (uint8_t)bytes[(i * 7 + length) & 7];
    if (strchr("PBCDQ", type) && !one_in(choices, 4))
        length = put_statement(choices, at, type);
    if (type == 'Z' && length == 5 && !one_in(choices, 8))
        at[5] = 'I';
    return length + 1u;
}

static uint32_t body_length(struct choices *choices)
{
    return one_in(choices, 3) ? choose(choices, one_in(choices, 10) ? LONGEST_BODY : 20) : 0;
}

static size_t client_frame(struct choices *choices, uint8_t *at)
{
    char type = client_types[choose(choices, sizeof client_types - 1)];

    return put_frame(choices, at, type, 4 + body_length(choices));
}

static size_t server_frame(struct choices *choices, uint8_t *at, char type)
{
    uint32_t index = (uint32_t)(strchr(server_types, type) - server_types);
    uint32_t length = server_least[index];

    if (!strchr("123Icns", type) && type != 'Z')
        length += body_length(choices) / 2;
    return put_frame(choices, at, type, length);
}

static void corrupt(struct choices *choices, uint8_t *bytes, size_t n)
{
    if (n && one_in(choices, 200))
        bytes[choose(choices, (uint32_t)n)] ^= (uint8_t)(1u << choose(choices, 8));
    if (n >= 5 && one_in(choices, 400))
        put_length(bytes + 1, one_in(choices, 2) ? 0x40000002u + choose(choices, 3)
                                                 : 0x3ffffffeu + choose(choices, 2));
}

/* What a server would say to a request; the framing does not show us its account, so we guess. */
static const char *answer_to(struct choices *choices, char request)
{
    static const char *const to_query[] = {"TDDC", "C", "I", "E", "G", "HddcC", "TDDDDDDE", "N"};
    static const char *const to_execute[] = {"DDC", "C", "I", "E", "G", "DDs", "HdcC", "A"};

    switch (request) {
    case 'P': return one_in(choices, 10) ? "E" : "1";
    case 'B': return one_in(choices, 10) ? "E" : "2";
    case 'C': return "3";
    case 'D': return one_in(choices, 3) ? "tn" : "tT";
    case 'E': return to_execute[choose(choices, 8)];
    case 'Q': return to_query[choose(choices, 8)];
    case 'F': return one_in(choices, 5) ? "EZ" : "VZ";
    case 'S': return "Z";
    default: return "";
    }
}

/* -------------------------------------------------------------------------------- two listeners */

struct pair {
    void *client;
    void *server;
    void *shared; /* NULL: prepared statements are passed through unseen */
};

static const struct tb_framing *framing;

#define WATCHES (1ull << 32)

static struct pair new_pair(uint64_t option)
{
    struct pair pair = {calloc(1, framing->client_size), calloc(1, framing->server_size),
                        framing->shared_new(option)};

    CHECK(pair.client && pair.server);
    framing->client_new(pair.client, pair.shared);
    framing->server_new(pair.server, pair.shared);
    framing->server_fresh(pair.server);
    return pair;
}

static void free_pair(struct pair *pair)
{
    framing->client_free(pair->client);
    framing->server_free(pair->server);
    framing->shared_free(pair->shared);
    free(pair->client);
    free(pair->server);
}

static size_t scan(struct pair *pair, bool from_client, const uint8_t *bytes, size_t n,
                   struct tb_scan *result)
{
    uint8_t *alone = malloc(n ? n : 1);
    size_t consumed;

    CHECK(alone);
    memcpy(alone, bytes, n);
    if (from_client) {
        struct tb_scan opening;
        int verdict = framing->opening(pair->client, alone, n, &opening);

        CHECK(verdict == opening.verdict && verdict != TB_FULL);
        CHECK((verdict == TB_BAD) == (opening.why != NULL));
        consumed = framing->from_client(pair->client, pair->server, alone, n, result);
    } else {
        consumed = framing->from_server(pair->client, pair->server, alone, n, result);
    }
    free(alone);
    CHECK(consumed <= n);
    CHECK((consumed == n) == (result->verdict == TB_GO) || (n == 0 && result->verdict == TB_GO));
    CHECK(result->verdict != TB_MORE);
    CHECK((result->verdict == TB_BAD || result->verdict == TB_UNFIT) == (result->why != NULL));
    CHECK(from_client || result->verdict != TB_FULL);
    CHECK(result->verdict != TB_UNFIT || (!from_client && pair->shared));
    return consumed;
}

/* The same bytes in small chunks; how many were consumed. */
static size_t scan_split(struct choices *choices, struct pair *pair, bool from_client,
                       const uint8_t *bytes, size_t n, struct tb_scan *result)
{
    uint32_t answered = 0;
    uint32_t largest = one_in(choices, 2) ? 3 : 64;
    size_t consumed = 0;

    *result = (struct tb_scan){.verdict = TB_GO};
    while (n && result->verdict == TB_GO) {
        size_t step = 1 + choose(choices, largest);

        step = step < n ? step : n;
        consumed += scan(pair, from_client, bytes, step, result);
        answered += result->answered;
        bytes += step;
        n -= step;
    }
    result->answered = answered;
    return consumed;
}

/* What the server was sent last, by the framing that heard it in one piece. */
static uint8_t sent[1u << 16];
static size_t sent_length;

static void note_sent(const struct tb_scan *scan, const uint8_t *bytes, size_t n)
{
    sent_length = scan->instead ? scan->instead_length : n;
    CHECK(sent_length <= sizeof sent);
    memcpy(sent, scan->instead ? scan->instead : bytes, sent_length);
}

static bool same_notes(const struct pair pairs[2])
{
    size_t n[2];
    const uint8_t *noted[2];

    for (int i = 0; i < 2; i++)
        noted[i] = framing->noted(pairs[i].client, &n[i]);
    return n[0] == n[1] && (!n[0] || !memcmp(noted[0], noted[1], n[0]));
}

/* Python has its say, of the client, its server or all; it need not make sense. */
static void tell(struct choices *choices, const struct pair pairs[2])
{
    static const struct {
        const char *bytes;
        size_t n;
    } words[] = {
        {"", 0}, {"\0", 1}, {"\2", 1}, {"\0'a'\0'b'\0", 9}, {"\2'a'\0'c'\0'd'\0''\0", 16},
        {"\1'role'\0'r'\0", 12}, {"\3'a'\0'b'\0'role'\0'r'\0", 20}, {"\0'a'\0", 5}, {"\0'a", 3},
        {"\1\0\0\0", 4}, {"a\0set\0", 6},
    };
    uint32_t which = choose(choices, sizeof words / sizeof *words), about = choose(choices, 8);

    for (int i = 0; i < 2; i++) {
        uint8_t *alone = malloc(words[which].n ? words[which].n : 1);

        CHECK(alone);
        memcpy(alone, words[which].bytes, words[which].n);
        framing->told(pairs[i].shared, about < 4 ? pairs[i].client : NULL,
                      about > 2 && about < 7 ? pairs[i].server : NULL, alone, words[which].n);
        free(alone);
    }
}

/* Both hear it; false if the conversation is over. */
static bool hear(struct choices *choices, struct pair pairs[2], bool from_client,
                 const uint8_t *bytes, size_t n)
{
    struct tb_scan whole, split;
    size_t consumed = scan(&pairs[0], from_client, bytes, n, &whole), consumed_split;

    if (from_client)
        note_sent(&whole, bytes, consumed);
    consumed_split = scan_split(choices, &pairs[1], from_client, bytes, n, &split);
    /* Settings are restored first: what was offered goes nowhere, here. */
    if (whole.verdict == TB_FULL && split.verdict == TB_FULL && !consumed && !consumed_split)
        return true;
    /* A query in pieces may be one that ends all statements: what depends on those has to wait. */
    if (pairs[0].shared && (whole.verdict == TB_FULL || split.verdict == TB_FULL))
        return false;
    CHECK(whole.verdict == split.verdict);
    CHECK(whole.answered == split.answered);
    CHECK(whole.why == split.why);
    if (whole.verdict != TB_GO)
        return whole.verdict == TB_FULL;
    CHECK(framing->standing(pairs[0].client, pairs[0].server) ==
          framing->standing(pairs[1].client, pairs[1].server));
    CHECK(framing->last_words(pairs[0].server) == framing->last_words(pairs[1].server));
    CHECK(same_notes(pairs));
    CHECK(pairs[0].shared || (!whole.instead && !split.instead));
    if (framing->last_words(pairs[0].server) == TB_WORDS_CUT)
        CHECK(framing->standing(pairs[0].client, pairs[0].server) >= TB_BUSY);
    return true;
}

/* -------------------------------------------------------------------------------- conversations */

#define BATCH 24u

/* The types of the messages that the server was sent. */
static uint32_t requests_sent(char asked[BATCH * 8])
{
    uint32_t count = 0;

    for (size_t at = 0; at + 5 <= sent_length && count < BATCH * 8; count++) {
        asked[count] = (char)sent[at];
        at += 1u + ((size_t)sent[at + 1] << 24 | sent[at + 2] << 16 | sent[at + 3] << 8 |
                    sent[at + 4]);
    }
    return count;
}

/* Some requests in one piece, then answers to some of them; the rest stays owed. */
static uint64_t turn(struct choices *choices, struct pair pairs[2], bool *goes_on)
{
    uint8_t bytes[BATCH * FRAME];
    char asked[BATCH * 8];
    uint32_t count = 1 + choose(choices, one_in(choices, 4) ? BATCH : 4);
    uint64_t frames = count;
    size_t n = 0;

    for (uint32_t i = 0; i < count; i++)
        n += client_frame(choices, bytes + n);
    corrupt(choices, bytes, n);
    *goes_on = hear(choices, pairs, true, bytes, n);
    count = requests_sent(asked);
    for (uint32_t i = 0; i < count && *goes_on; i++) {
        const char *answer = answer_to(choices, asked[i]);

        n = 0;
        for (const char *type = answer; *type; type++, frames++)
            n += server_frame(choices, bytes + n, *type);
        if (asked[i] == 'Q' && answer[0] != 'G' && answer[0] != 'N') {
            n += server_frame(choices, bytes + n, 'Z');
            frames++;
        }
        if (one_in(choices, 100)) {
            n += server_frame(choices, bytes + n, server_types[choose(choices, 24)]);
            frames++;
        }
        corrupt(choices, bytes, n);
        *goes_on = hear(choices, pairs, false, bytes, n);
        if (*answer == 'E' && asked[i] != 'Q' && asked[i] != 'F')
            while (i + 1 < count && asked[i + 1] != 'S')
                i++;
    }
    return frames;
}

static uint64_t conversation(struct choices *choices)
{
    uint64_t option = choose(choices, 4) | (one_in(choices, 2) ? WATCHES : 0);
    struct pair pairs[2] = {new_pair(option), new_pair(option)};
    uint64_t frames = 0;
    uint32_t turns = 1 + choose(choices, 40);
    bool goes_on = true;

    while (goes_on && turns--) {
        if (one_in(choices, 3) && framing->standing(pairs[0].client, pairs[0].server) != TB_BUSY)
            tell(choices, pairs);
        frames += turn(choices, pairs, &goes_on);
        if (framing->standing(pairs[0].client, pairs[0].server) == TB_APART) {
            framing->server_fresh(pairs[0].server);
            framing->server_fresh(pairs[1].server);
        }
    }
    free_pair(&pairs[0]);
    free_pair(&pairs[1]);
    return frames;
}

/* Bytes that were never meant to be frames. */
static void noise(struct choices *choices)
{
    uint64_t option = choose(choices, 2) | (one_in(choices, 2) ? WATCHES : 0);
    struct pair pairs[2] = {new_pair(option), new_pair(option)};
    uint8_t bytes[64];
    bool from_client = one_in(choices, 2);
    uint32_t n = choose(choices, sizeof bytes);

    for (uint32_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)choose(choices, one_in(choices, 3) ? 256 : 8);
    if (n && one_in(choices, 2))
        bytes[0] = (uint8_t)(from_client ? client_types : server_types)[choose(choices, 20)];
    hear(choices, pairs, from_client, bytes, n);
    free_pair(&pairs[0]);
    free_pair(&pairs[1]);
}

#ifdef LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct choices choices = {.input = data, .left = size};

    framing = pg_framing();
    if (size && one_in(&choices, 4))
        noise(&choices);
    else
        conversation(&choices);
    return 0;
}

#else

/* More requests than the account holds: it must say so, and lose none. */
static void fill(struct choices *choices)
{
    struct pair pair = new_pair(0);
    uint8_t sync[5] = {'S', 0, 0, 0, 4};
    uint8_t ready[6] = {'Z', 0, 0, 0, 5, 'I'};
    uint32_t owed = 0, entered = 0, left = 200000;
    struct tb_scan result;

    while (left || owed) {
        if (left && !one_in(choices, 3)) {
            scan(&pair, true, sync, sizeof sync, &result);
            CHECK(result.verdict == (owed == 65536 ? TB_FULL : TB_GO));
            entered = result.verdict == TB_GO;
            owed += entered;
            left -= entered;
        } else if (owed) {
            scan(&pair, false, ready, sizeof ready, &result);
            CHECK(result.verdict == TB_GO && result.answered == 1);
            owed--;
        }
        CHECK(framing->standing(pair.client, pair.server) == (owed ? TB_BUSY : TB_APART));
    }
    free_pair(&pair);
}

int main(int argc, char **argv)
{
    uint64_t wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    struct choices choices = {.state = seed * 0x9e3779b97f4a7c15ull + 1};
    uint64_t frames = 0, conversations = 0;

    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    framing = pg_framing();
    fill(&choices);
    while (frames < wanted) {
        frames += conversation(&choices);
        noise(&choices);
        conversations++;
    }
    printf("%" PRIu64 " frames in %" PRIu64 " conversations\n", frames, conversations);
    return 0;
}

#endif
