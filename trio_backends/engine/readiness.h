/* What the drivers share that are told of readiness (epoll, kqueue): the non-blocking system call when
 * the kernel says ready, with one scratch buffer whose bytes are lent and flushed before its next use. */
#ifndef TB_READINESS_H
#define TB_READINESS_H

#include "engine.h"

#define TB_SCRATCH 65536 /* bytes of the scratch buffer */

/* Sends what is dirty. */
void tb_ready_flush(struct tb_engine *);
/* One receive into the scratch buffer, handed up and flushed. */
void tb_ready_receive(struct tb_stream *, uint8_t scratch[TB_SCRATCH]);
/* Accepts what is there, up to a limit that lets others have their turn. */
void tb_ready_accept(struct tb_listener *);
/* driver->give_back: there is one scratch buffer, which is free when it has been flushed. */
void tb_ready_give_back(struct tb_engine *, int32_t number);

#endif
