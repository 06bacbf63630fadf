/* Descriptors that somebody else owns and a Trio task waits for (trio.lowlevel.wait_readable). */
#ifndef TB_WATCH_H
#define TB_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct tb_watch {
    uint32_t generation; /* tells the reports of this watch from those of an earlier one */
    bool reading, writing;
    bool known;          /* the driver's: the kernel has heard of the descriptor */
};

struct tb_watches {
    struct tb_watch *at;
    int room;
};

/* The watch of a descriptor; the table grows to hold it. The pointer is good until the next call. */
struct tb_watch *tb_watch_at(struct tb_watches *, int fd);
void tb_watches_free(struct tb_watches *);

/* 64 bits to hand to the kernel: kind in 4, descriptor in 32, generation in 28. */
static inline uint64_t tb_watch_tag(int fd, uint32_t generation, uint64_t kind)
{
    return kind | (uint64_t)(uint32_t)fd << 4 | (uint64_t)(generation & 0xfffffff) << 36;
}

static inline int tb_watch_fd(uint64_t tag)
{
    return (int)(uint32_t)(tag >> 4);
}

#endif
