#ifdef __linux__
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "ring.h"

/* Since Linux 5.14 and 6.1; the C library's headers may be older. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGE_SHIFT 21 /* 2 MB: what x86-64 has, and aarch64 with pages of 4 kB */
#define HUGE_PAGE ((size_t)1 << HUGE_PAGE_SHIFT)

static int sys_setup(uint32_t entries, struct io_uring_params *params)
{
    long fd = syscall(__NR_io_uring_setup, entries, params);
    return fd < 0 ? -errno : (int)fd;
}

static int sys_register(int fd, unsigned opcode, const void *argument, unsigned count)
{
    long result = syscall(__NR_io_uring_register, fd, opcode, argument, count);
    return result < 0 ? -errno : (int)result;
}

/* ---------------------------------------------------------------- entries and completions */

static uint32_t unsubmitted(const struct tb_ring *ring)
{
    return ring->sq_local_tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
}

struct io_uring_sqe *tb_ring_entry(struct tb_ring *ring)
{
    if (unsubmitted(ring) >= ring->sq_entries)
        return NULL;
    struct io_uring_sqe *sqe = &ring->sqes[ring->sq_local_tail & ring->sq_mask];
    ring->sq_local_tail++;
    ring->submissions++;
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

static void batch_grow(struct tb_ring *ring, uint32_t more)
{
    uint32_t need = ring->batch_count + more;
    if (need <= ring->batch_room)
        return;
    uint32_t room = ring->batch_room ? ring->batch_room : 1024;
    while (room < need)
        room *= 2;
    struct io_uring_cqe *batch = tb_alloc(room * sizeof *batch);
    if (ring->batch_count)
        memcpy(batch, ring->batch, ring->batch_count * sizeof *batch);
    free(ring->batch);
    ring->batch = batch;
    ring->batch_room = room;
}

static void collect(struct tb_ring *ring)
{
    uint32_t head = *ring->cq_head;
    uint32_t tail = __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
    batch_grow(ring, tail - head);
    ring->completions += tail - head;
    for (; head != tail; head++) {
        const struct io_uring_cqe *cqe = &ring->cqes[head & ring->cq_mask];
        ring->taken += cqe->flags & IORING_CQE_F_BUFFER; /* 1 */
        ring->batch[ring->batch_count++] = *cqe;
    }
    __atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
}

static bool overflowed(const struct tb_ring *ring)
{
    return __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW;
}

static int enter_once(struct tb_ring *ring, uint32_t wait_for, int64_t timeout_ns)
{
    struct __kernel_timespec time;
    struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8};
    if (wait_for && timeout_ns >= 0) {
        time.tv_sec = timeout_ns / 1000000000;
        time.tv_nsec = timeout_ns % 1000000000;
        argument.ts = (uint64_t)(uintptr_t)&time;
    }
    __atomic_store_n(ring->sq_tail, ring->sq_local_tail, __ATOMIC_RELEASE);
    long result = syscall(__NR_io_uring_enter, ring->fd, unsubmitted(ring), wait_for,
                          IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument,
                          sizeof argument);
    /* With something submitted the result is their number even when the time ran out or a signal
     * came: the caller looks at the clock, and a signal's handler has run or will. */
    return result < 0 && errno != ETIME ? -errno : 0;
}

void tb_ring_submit(struct tb_ring *ring)
{
    enter_once(ring, 0, 0);
    if (unsubmitted(ring))
        tb_ring_enter(ring, 0, 0);
}

/* Whether a look at the kernel would find anything that shared memory does not show. */
static bool quiet(const struct tb_ring *ring)
{
    return ring->setup_flags & IORING_SETUP_TASKRUN_FLAG && !unsubmitted(ring) &&
           !(__atomic_load_n(ring->sq_flags, __ATOMIC_ACQUIRE) &
             (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

int tb_ring_enter(struct tb_ring *ring, uint32_t wait_for, int64_t timeout_ns)
{
    if (!wait_for && quiet(ring)) { /* Trio's loop looks at every round of its tasks */
        collect(ring);
        return 0;
    }
    int result = enter_once(ring, wait_for, timeout_ns);
    collect(ring);
    while (overflowed(ring)) {
        ring->overflows++;
        if (enter_once(ring, 0, 0) < 0 && errno != EINTR && errno != EBUSY)
            break;
        collect(ring);
    }
    /* The kernel stops short when it lacks memory or its completion ring is full (now emptied). */
    for (int tries = 0; unsubmitted(ring); tries++) {
        if (tries == 100000) { /* sends may not be taken for done that were never begun */
            fprintf(stderr, "trio_backends: the kernel does not take what io_uring is given\n");
            abort();
        }
        enter_once(ring, 0, 0);
        collect(ring);
    }
    return result == -EBUSY || result == -EAGAIN ? 0 : result;
}

/* ---------------------------------------------------------------- buffers */

void tb_ring_give_back(struct tb_ring *ring, int32_t number)
{
    struct io_uring_buf *buffer =
        (struct io_uring_buf *)ring->buffer_ring + (ring->buffer_tail & (TB_BUFFER_COUNT - 1));
    buffer->addr = (uint64_t)(uintptr_t)tb_ring_buffer(ring, number);
    buffer->len = TB_BUFFER_SIZE;
    buffer->bid = (uint16_t)number;
    ring->buffer_tail++;
    ring->given_back++;
}

void tb_ring_publish_buffers(struct tb_ring *ring)
{
    __atomic_store_n(&ring->buffer_ring->tail, ring->buffer_tail, __ATOMIC_RELEASE);
}

void tb_ring_count(const struct tb_ring *ring, struct tb_counters *counters)
{
    counters->submissions = ring->submissions;
    counters->completions = ring->completions;
    counters->buffers = TB_BUFFER_COUNT;
    counters->lent = TB_BUFFER_COUNT + ring->taken - ring->given_back;
    counters->huge_pages = ring->huge_pages;
    counters->huge_bytes = ring->huge_pages == TB_HUGE_OFF ? 0 : ring->buffers_size;
}

/* Touches every page now: what the process uses is seen from the start, not grown into, and a huge
 * page that a cgroup forbids is an error here, where later it would be SIGBUS. */
static int populate(void *memory, size_t size)
{
    return madvise(memory, size, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
}

static int map_reserved(struct tb_ring *ring)
{
    int flags = MAP_ANONYMOUS | MAP_PRIVATE | MAP_HUGETLB | HUGE_PAGE_SHIFT << MAP_HUGE_SHIFT;
    void *memory = mmap(NULL, ring->buffers_size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    int error = populate(memory, ring->buffers_size);
    if (error < 0) {
        munmap(memory, ring->buffers_size);
        return error;
    }
    ring->buffers = memory;
    ring->huge_pages = TB_HUGE_ON;
    return 0;
}

/* Memory that could be huge pages: it begins at a multiple of their size. */
static void *map_aligned(size_t size)
{
    uint8_t *memory = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                           MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
    if (before)
        munmap(memory, before);
    munmap(memory + before + size, HUGE_PAGE - before);
    return memory + before;
}

static int map_ordinary(struct tb_ring *ring, bool transparent)
{
    ring->buffers = map_aligned(ring->buffers_size);
    if (!ring->buffers)
        return -ENOMEM;
    if (transparent)
        madvise(ring->buffers, ring->buffers_size, MADV_HUGEPAGE);
    int error = populate(ring->buffers, ring->buffers_size);
    /* Says whether all of it is on huge pages now (Linux 6.1); by itself MADV_HUGEPAGE promises
     * nothing. */
    if (!error && transparent && !madvise(ring->buffers, ring->buffers_size, MADV_COLLAPSE))
        ring->huge_pages = TB_HUGE_TRY;
    return error;
}

static int map_buffers(struct tb_ring *ring, enum tb_huge_pages wanted, char *why, size_t why_size)
{
    ring->buffers_size = (size_t)TB_BUFFER_COUNT * TB_BUFFER_SIZE;
    if (wanted != TB_HUGE_OFF) {
        ring->buffers_size = (ring->buffers_size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        int error = map_reserved(ring);
        if (!error)
            return 0;
        if (wanted == TB_HUGE_ON) {
            snprintf(why, why_size,
                     "huge pages: %s (%zu of 2 MB are needed, see sysctl vm.nr_hugepages)",
                     strerror(-error), ring->buffers_size / HUGE_PAGE);
            return error;
        }
    }
    int error = map_ordinary(ring, wanted != TB_HUGE_OFF);
    if (error < 0)
        snprintf(why, why_size, "memory for buffers: %s", strerror(-error));
    return error;
}

static int provide_buffers(struct tb_ring *ring)
{
    ring->buffer_ring_size = TB_BUFFER_COUNT * sizeof(struct io_uring_buf);
    void *memory = mmap(NULL, ring->buffer_ring_size, PROT_READ | PROT_WRITE,
                        MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    ring->buffer_ring = memory;
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)ring->buffer_ring,
        .ring_entries = TB_BUFFER_COUNT,
        .bgid = TB_RING_GROUP,
    };
    int error = sys_register(ring->fd, IORING_REGISTER_PBUF_RING, &registration, 1);
    if (error < 0)
        return error;
    for (int i = 0; i < TB_BUFFER_COUNT; i++)
        tb_ring_give_back(ring, i);
    tb_ring_publish_buffers(ring);
    return 0;
}

/* ---------------------------------------------------------------- set-up */

static int map_rings(struct tb_ring *ring, const struct io_uring_params *params)
{
    if (!(params->features & IORING_FEAT_SINGLE_MMAP) || !(params->features & IORING_FEAT_NODROP) ||
        !(params->features & IORING_FEAT_EXT_ARG) || !(params->features & IORING_FEAT_CQE_SKIP))
        return -EOPNOTSUPP;
    size_t sq_size = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
    size_t cq_size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    ring->rings_size = sq_size > cq_size ? sq_size : cq_size;
    ring->rings = mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       ring->fd, IORING_OFF_SQ_RING);
    if (ring->rings == MAP_FAILED) {
        ring->rings = NULL;
        return -errno;
    }
    ring->sqes_size = params->sq_entries * sizeof(struct io_uring_sqe);
    ring->sqes = mmap(NULL, ring->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                      ring->fd, IORING_OFF_SQES);
    if (ring->sqes == MAP_FAILED) {
        ring->sqes = NULL;
        return -errno;
    }
    uint8_t *base = ring->rings;
    ring->sq_head = (uint32_t *)(void *)(base + params->sq_off.head);
    ring->sq_tail = (uint32_t *)(void *)(base + params->sq_off.tail);
    ring->sq_flags = (uint32_t *)(void *)(base + params->sq_off.flags);
    ring->sq_entries = params->sq_entries;
    ring->sq_mask = params->sq_entries - 1;
    ring->cq_head = (uint32_t *)(void *)(base + params->cq_off.head);
    ring->cq_tail = (uint32_t *)(void *)(base + params->cq_off.tail);
    ring->cq_mask = params->cq_entries - 1;
    ring->cqes = (const struct io_uring_cqe *)(const void *)(base + params->cq_off.cqes);
    uint32_t *array = (uint32_t *)(void *)(base + params->sq_off.array);
    for (uint32_t i = 0; i < params->sq_entries; i++)
        array[i] = i;
    return 0;
}

static int set_up(struct tb_ring *ring, uint32_t sq_entries, uint32_t cq_entries, bool guest,
                  struct io_uring_params *params)
{
    static const uint32_t wishes[] = {
        /* Linux 6.1 */
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 5.19 */
        0,
    };
    int fd = -EINVAL;
    /* A guest run waits in another thread: the kernel must not defer its part to our waits. */
    for (size_t i = guest ? 2 : 0; i < sizeof wishes / sizeof *wishes && fd == -EINVAL; i++) {
        *params = (struct io_uring_params){
            .flags = wishes[i] | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
            .cq_entries = cq_entries,
        };
        ring->setup_flags = params->flags;
        fd = sys_setup(sq_entries, params);
    }
    return fd;
}

/* One exchange over a socket pair: multishot receive into a provided buffer, a send that succeeds
 * without a completion, one that does not fit and says so. */
static const char *try_out(struct tb_ring *ring, const int pair[2])
{
    char byte = 'x';
    struct io_uring_sqe *sqe = tb_ring_entry(ring);
    sqe->opcode = IORING_OP_RECV;
    sqe->fd = pair[0];
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = TB_RING_GROUP;
    sqe->user_data = 1 << 4; /* of no kind that the driver knows, should it come late */
    for (uint64_t i = 2; i < 4; i++) {
        sqe = tb_ring_entry(ring);
        sqe->opcode = IORING_OP_SEND;
        sqe->fd = pair[i == 2 ? 1 : 0];
        sqe->addr = (uint64_t)(uintptr_t)&byte;
        sqe->len = 1;
        sqe->msg_flags = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL;
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = i << 4;
    }
    tb_ring_enter(ring, 1, 100000000);
    tb_ring_enter(ring, 0, 0);
    bool heard = false, refused = false, chatty = false;
    for (uint32_t i = 0; i < ring->batch_count; i++) {
        const struct io_uring_cqe *cqe = &ring->batch[i];
        if (cqe->user_data == 1 << 4 && cqe->res == 1 && cqe->flags & IORING_CQE_F_BUFFER) {
            heard = cqe->flags & IORING_CQE_F_MORE;
            int32_t number = (int32_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
            tb_ring_give_back(ring, number);
        }
        chatty |= cqe->user_data == 2 << 4;
        refused |= cqe->user_data == 3 << 4 && cqe->res == -EAGAIN;
    }
    tb_ring_publish_buffers(ring);
    ring->batch_count = 0;
    if (!heard)
        return "no multishot receive into provided buffers (Linux 6.0)";
    return chatty || !refused ? "sends do not report as expected (Linux 5.17)" : NULL;
}

static void fill(int fd)
{
    char block[4096] = {0};
    while (send(fd, block, sizeof block, MSG_DONTWAIT) > 0)
        ;
    while (send(fd, block, 1, MSG_DONTWAIT) > 0)
        ;
}

static int probe(struct tb_ring *ring, char *why, size_t why_size)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    fill(pair[0]);
    const char *missing = try_out(ring, pair);
    /* The end of the pair ends the receive; its last completion must not meet a later owner. */
    shutdown(pair[0], SHUT_RDWR);
    tb_ring_enter(ring, 1, 100000000);
    ring->batch_count = 0;
    close(pair[0]);
    close(pair[1]);
    if (!missing)
        return 0;
    snprintf(why, why_size, "%s", missing);
    return -EOPNOTSUPP;
}

static void say_why(int error, char *why, size_t why_size)
{
    const char *hint = "";
    if (error == -ENOSYS)
        hint = " (the kernel has no io_uring)";
    else if (error == -EPERM || error == -EACCES)
        hint = " (forbidden: seccomp, or sysctl kernel.io_uring_disabled)";
    else if (error == -ENOMEM)
        hint = " (the limit of locked memory, RLIMIT_MEMLOCK, is too low)";
    else if (error == -EINVAL || error == -EOPNOTSUPP)
        hint = " (the kernel is too old: Linux 6.0 or newer is needed)";
    snprintf(why, why_size, "io_uring_setup: %s%s", strerror(-error), hint);
}

static int open_buffers(struct tb_ring *ring, enum tb_huge_pages huge_pages, char *why,
                        size_t why_size)
{
    int error = map_buffers(ring, huge_pages, why, why_size);
    if (error < 0)
        return error;
    error = provide_buffers(ring);
    if (error < 0)
        say_why(error, why, why_size);
    return error;
}

int tb_ring_open(struct tb_ring *ring, uint32_t sq_entries, uint32_t cq_entries, bool guest,
                 enum tb_huge_pages huge_pages, char *why, size_t why_size)
{
    struct io_uring_params params;
    ring->fd = set_up(ring, sq_entries, cq_entries, guest, &params);
    int error = ring->fd < 0 ? ring->fd : map_rings(ring, &params);
    if (error < 0)
        say_why(error, why, why_size);
    else
        error = open_buffers(ring, huge_pages, why, why_size);
    if (!error)
        error = probe(ring, why, why_size);
    if (error < 0)
        tb_ring_close(ring);
    return error;
}

void tb_ring_close(struct tb_ring *ring)
{
    if (ring->fd >= 0)
        close(ring->fd);
    if (ring->rings)
        munmap(ring->rings, ring->rings_size);
    if (ring->sqes)
        munmap(ring->sqes, ring->sqes_size);
    if (ring->buffer_ring)
        munmap(ring->buffer_ring, ring->buffer_ring_size);
    if (ring->buffers)
        munmap(ring->buffers, ring->buffers_size);
    free(ring->batch);
    *ring = (struct tb_ring){.fd = -1};
}
#endif
