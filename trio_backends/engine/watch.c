#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "watch.h"

struct tb_watch *tb_watch_at(struct tb_watches *watches, int fd)
{
    if (fd >= watches->room) {
        int room = watches->room ? watches->room : 64;
        while (room <= fd)
            room *= 2;
        struct tb_watch *at = tb_alloc((size_t)room * sizeof *at);
        if (watches->room)
            memcpy(at, watches->at, (size_t)watches->room * sizeof *at);
        free(watches->at);
        watches->at = at;
        watches->room = room;
    }
    return &watches->at[fd];
}

void tb_watches_free(struct tb_watches *watches)
{
    free(watches->at);
    watches->at = NULL;
    watches->room = 0;
}
