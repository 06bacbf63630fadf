/* Bytes collected from several chunks. */
#ifndef PG_HELD_H
#define PG_HELD_H

#include <stddef.h>
#include <stdint.h>

struct held {
    uint8_t *bytes;
    uint32_t length, room;
};

void held_add(struct held *, const uint8_t *bytes, size_t n);
void held_clear(struct held *);

#endif
