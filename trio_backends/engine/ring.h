/* The rings that are shared with the kernel, without liburing: set-up, entries, completions, buffers. */
#ifndef TB_RING_H
#define TB_RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

#define TB_RING_GROUP 0 /* the buffer group of the provided buffers */

struct tb_ring {
    int fd;
    uint32_t setup_flags;
    /* submission ring */
    uint32_t *sq_head, *sq_tail, *sq_flags;
    uint32_t sq_mask, sq_entries, sq_local_tail;
    struct io_uring_sqe *sqes;
    /* completion ring */
    uint32_t *cq_head, *cq_tail;
    uint32_t cq_mask;
    const struct io_uring_cqe *cqes;
    /* completions fetched and not yet handled */
    struct io_uring_cqe *batch;
    uint32_t batch_count, batch_room;
    uint64_t overflows, submissions, completions;
    /* provided buffers */
    struct io_uring_buf_ring *buffer_ring;
    uint8_t *buffers;
    uint16_t buffer_tail;
    uint64_t taken, given_back; /* how often the kernel took a buffer, and was given one */
    size_t buffers_size;
    enum tb_huge_pages huge_pages; /* under the buffers */
    /* what was mapped */
    void *rings;
    size_t rings_size, sqes_size, buffer_ring_size;
};

/* 0, or a negative errno with the reason in why. Features are tried out, not guessed. */
int tb_ring_open(struct tb_ring *, uint32_t sq_entries, uint32_t cq_entries, bool guest,
                 enum tb_huge_pages, char *why, size_t why_size);
void tb_ring_close(struct tb_ring *);

/* A zeroed entry to fill, submitted by the next enter; NULL when the ring is full. */
struct io_uring_sqe *tb_ring_entry(struct tb_ring *);

/* Submits everything, waits for so many completions and so long (negative: for ever), and appends
 * all that have come to the batch, those on the kernel's overflow list too. 0, or a negative errno;
 * a time-out is 0. */
int tb_ring_enter(struct tb_ring *, uint32_t wait_for, int64_t timeout_ns);
/* Submits everything, and lets completions lie where a poll of the ring's descriptor sees them. */
void tb_ring_submit(struct tb_ring *);

static inline uint8_t *tb_ring_buffer(const struct tb_ring *ring, int32_t number)
{
    return ring->buffers + (size_t)number * TB_BUFFER_SIZE;
}
/* Provided to the kernel again at the next publication. */
void tb_ring_give_back(struct tb_ring *, int32_t number);
void tb_ring_publish_buffers(struct tb_ring *);
void tb_ring_count(const struct tb_ring *, struct tb_counters *);

#endif
