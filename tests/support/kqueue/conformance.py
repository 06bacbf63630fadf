"""How kevent() behaves, step by step, with what a real kernel said at each step.

The words beside the steps were printed by a FreeBSD 13.2 kernel. ``Script`` runs the steps over any
kqueue and notes where it says something else; see ``DEVIATIONS`` for the simulator's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from tests.support.kqueue.simulator import Kevent, Kqueue

READ, WRITE, TIMER, USER = -1, -2, -7, -11
ADD, DELETE, ENABLE, DISABLE = 0x1, 0x2, 0x4, 0x8
ONESHOT, CLEAR, RECEIPT, DISPATCH = 0x10, 0x20, 0x40, 0x80
ERROR, EOF = 0x4000, 0x8000
TRIGGER, USECONDS = 0x01000000, 4
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset

FILTERS = {READ: "READ", WRITE: "WRITE", TIMER: "TIMER", USER: "USER"}
FLAGS = {
    ADD: "ADD",
    DELETE: "DELETE",
    ENABLE: "ENABLE",
    DISABLE: "DISABLE",
    ONESHOT: "ONESHOT",
    CLEAR: "CLEAR",
    RECEIPT: "RECEIPT",
    DISPATCH: "DISPATCH",
    EOF: "EOF",
    ERROR: "ERROR",
}

# Where the simulator says something else than the kernel, and why.
DEVIATIONS = {
    "oneshot: drained before the harvest": "epoll looks again; the mutant `stale` does not",
    "oneshot: ready when added, drained": "the same",
    "tcp: 3 bytes, then a reset": "asking Linux for SO_ERROR would take the error away from recv()",
    "tcp: a reset came back": "the same",
    "tcp: refused": "the same",
    "tcp: own SHUT_RD": "Linux reports the socket writable once more",
    "udp: two datagrams": "FIONREAD of Linux is the size of the first, not of all",
}

Step = tuple[str, str, str]  # what, what the kernel said, what was said now


class Script:
    """Runs the steps over the kqueues that ``make`` makes. ``steps``: what came of them."""

    def __init__(self, make: Callable[[], Kqueue]) -> None:
        self._make = make
        self._open: list[Kqueue] = []
        self._section = ""
        self.names: dict[int, str] = {}
        self.steps: list[Step] = []

    def run(self) -> list[Step]:
        """All of it; a few seconds."""
        for section in SECTIONS:
            self._section = section.__name__
            section(self)
            while self._open:
                self._open.pop().close()
            self.names.clear()
        return self.steps

    def kqueue(self) -> Kqueue:
        self._open.append(self._make())
        return self._open[-1]

    def pair(self, a: str = "A", b: str = "B") -> tuple[socket.socket, socket.socket]:
        """Two connected sockets, and what to call them."""
        sockets = socket.socketpair()
        for sock, name in zip(sockets, (a, b), strict=True):
            sock.setblocking(False)
            self.names[sock.fileno()] = name
        return sockets

    def said(self, what: str, kernel: str, now: str) -> None:
        self.steps.append((f"{self._section}: {what}", kernel, now))

    def call(
        self,
        what: str,
        kernel: str,
        kq: Kqueue,
        changes: Iterable[Kevent] = (),
        room: int = 8,
        timeout: float = 0.0,
    ) -> None:
        """One kevent(); ``kernel`` is what it said: events joined by ``; ``, or the error."""
        try:
            events = kq.kevent(list(changes), room, timeout)
        except OSError as error:
            self.said(what, kernel, f"-1 {errno.errorcode[error.errno or 0]}")
            return
        self.said(what, kernel, "; ".join(sorted(map(self._words, events))))

    def _words(self, event: Kevent) -> str:
        descriptor = event.filter in (READ, WRITE)
        name = self.names.get(event.ident) if descriptor else None
        words = [name or str(event.ident), FILTERS.get(event.filter, "?")]
        words += [name for bit, name in FLAGS.items() if event.flags & bit]
        if event.flags & ERROR:
            words.append(errno.errorcode[event.data] if event.data else "ok")
        elif event.filter != WRITE:  # how much room there is, depends
            words.append(f"data={event.data}")
        if event.flags & EOF and event.fflags:
            words.append(f"fflags={errno.errorcode.get(event.fflags, event.fflags)}")
        if event.udata:
            words.append(f"udata={event.udata}")
        return " ".join(words)


def ch(
    what: socket.socket | int,
    filter_: int,
    flags: int,
    udata: int = 0,
    *,
    fflags: int = 0,
    data: int = 0,
) -> Kevent:
    """A change."""
    ident = what if isinstance(what, int) else what.fileno()
    return Kevent(ident, filter_, flags, fflags, data, udata)


def drain(sock: socket.socket) -> None:
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def fill(sock: socket.socket) -> None:
    try:
        while sock.send(b"0" * 4096):
            pass
    except BlockingIOError:
        pass


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Another thread does it a little later."""
    timer = threading.Timer(0.1, action)
    timer.start()
    yield
    timer.join()


# -- the sections -----------------------------------------------------------------------


def level(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("nothing", "", kq)
    s.call("ADD", "", kq, [ch(a, READ, ADD, 77)])
    b.send(b"hello")
    s.call("5 bytes", "A READ data=5 udata=77", kq)
    s.call("still", "A READ data=5 udata=77", kq)
    a.recv(2)
    s.call("3 left", "A READ data=3 udata=77", kq)
    drain(a)
    s.call("drained", "", kq)
    s.call("ADD again with CLEAR", "", kq, [ch(a, READ, ADD | CLEAR, 78)])
    b.send(b"0123456789")
    s.call("10 bytes", "A READ data=10 udata=78", kq)
    s.call("did not become CLEAR", "A READ data=10 udata=78", kq)
    drain(a)
    s.call("ADD again with ONESHOT", "", kq, [ch(a, READ, ADD | ONESHOT, 79)])
    b.send(b"x")
    s.call("1 byte", "A READ data=1 udata=79", kq)
    s.call("did not become ONESHOT", "A READ data=1 udata=79", kq)
    drain(a)
    s.call("DELETE, no room", "", kq, [ch(a, READ, DELETE)], room=0)
    s.call("DELETE again, no room", "-1 ENOENT", kq, [ch(a, READ, DELETE)], room=0)
    s.call("DELETE again", "A READ ERROR ENOENT udata=5", kq, [ch(a, READ, DELETE, 5)])
    two = [ch(a, READ, DELETE), ch(a, READ, ADD)]
    s.call("DELETE missing, ADD, no room", "-1 ENOENT", kq, two, room=0)
    b.send(b"x")
    s.call("the ADD was not applied", "", kq)


def clear(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("ADD", "", kq, [ch(a, READ, ADD | CLEAR, 1)])
    b.send(b"abc")
    s.call("3 bytes", "A READ CLEAR data=3 udata=1", kq)
    s.call("not again", "", kq)
    b.send(b"d")
    s.call("one more", "A READ CLEAR data=4 udata=1", kq)
    s.call(
        "ADD again looks again", "A READ CLEAR data=4 udata=2", kq, [ch(a, READ, ADD | CLEAR, 2)]
    )
    a.recv(1)
    s.call("partly read", "", kq)
    drain(a)
    s.call("DELETE", "", kq, [ch(a, READ, DELETE)])


def oneshot(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("ADD", "", kq, [ch(a, READ, ADD | ONESHOT, 9)])
    b.send(b"z")
    s.call("1 byte", "A READ ONESHOT data=1 udata=9", kq)
    s.call("gone", "", kq)
    s.call("DELETE", "A READ ERROR ENOENT", kq, [ch(a, READ, DELETE)])
    s.call("same call", "A READ ONESHOT data=1 udata=9", kq, [ch(a, READ, ADD | ONESHOT, 9)])
    two = [ch(a, READ, ADD | ONESHOT, 1), ch(a, READ, ADD | ONESHOT, 2)]
    s.call("twice", "A READ ONESHOT data=1 udata=2", kq, two)
    s.call("after twice", "", kq)
    s.call("no room", "", kq, [ch(a, READ, ADD | ONESHOT, 1)], room=0)
    s.call("harvest", "A READ ONESHOT data=1 udata=1", kq)
    drain(a)
    s.call("ADD once more", "", kq, [ch(a, READ, ADD | ONESHOT, 1)], room=0)
    b.send(b"z")
    drain(a)
    s.call("drained before the harvest", "A READ ONESHOT data=1 udata=1", kq)
    with suppress(OSError):  # where it was not reported, it is still there
        kq.kevent([ch(a, READ, DELETE)], 0, 0)
    b.send(b"y")
    s.call("new data", "", kq)
    drain(a)
    s.call("clean", "", kq, [ch(a, READ, ADD), ch(a, READ, DELETE)])
    s.call("ADD a third time", "", kq, [ch(a, READ, ADD | ONESHOT, 1)], room=0)
    b.send(b"q")
    s.call("1 byte, left there", "A READ ONESHOT data=1 udata=1", kq)
    b.send(b"r")
    s.call("armed when ready", "", kq, [ch(a, READ, ADD | ONESHOT, 3)], room=0)
    drain(a)
    s.call("ready when added, drained", "A READ ONESHOT data=2 udata=3", kq)


def dispatch(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("ADD", "", kq, [ch(a, READ, ADD | DISPATCH, 3)])
    b.send(b"q")
    s.call("1 byte", "A READ DISPATCH data=1 udata=3", kq)
    s.call("disabled", "", kq)
    on = ch(a, READ, ENABLE | DISPATCH, 4)
    s.call("ENABLE DISPATCH", "A READ DISPATCH data=1 udata=4", kq, [on])
    s.call("disabled again", "", kq)
    s.call("ENABLE", "A READ DISPATCH data=1 udata=5", kq, [ch(a, READ, ENABLE, 5)])
    s.call("disabled once more", "", kq)
    s.call("ADD does not enable", "", kq, [ch(a, READ, ADD, 6)])
    s.call("DELETE", "", kq, [ch(a, READ, DELETE)])
    s.call("ADD DISABLE", "", kq, [ch(a, READ, ADD | DISABLE, 8)])
    s.call("ENABLE the plain", "A READ data=1 udata=8", kq, [ch(a, READ, ENABLE, 8)])
    s.call("DISABLE", "", kq, [ch(a, READ, DISABLE, 8)])
    s.call("DELETE the plain", "", kq, [ch(a, READ, DELETE)])
    s.call("ENABLE missing", "A READ ERROR ENOENT udata=8", kq, [ch(a, READ, ENABLE, 8)])


def errors(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    both = [ch(a, READ, ADD | RECEIPT, 5), ch(999, READ, ADD | RECEIPT, 6)]
    said = "999 READ ERROR EBADF udata=6; A READ ERROR ok udata=5"
    s.call("receipts, one bad", said, kq, both)
    b.send(b"r")
    s.call("1 byte", "A READ RECEIPT data=1 udata=5", kq)
    delete = ch(a, READ, DELETE | RECEIPT, 7)
    s.call("DELETE RECEIPT, room for 1", "A READ ERROR ok udata=7", kq, [delete], room=1)
    drain(a)
    s.call("bad, no room", "-1 EBADF", kq, [ch(999, READ, ADD)], room=0)
    three = [ch(999, READ, ADD), ch(998, READ, ADD), ch(997, READ, ADD)]
    s.call("3 bad, room for 2", "-1 EBADF", kq, three, room=2)
    b.send(b"r")
    mixed = [ch(998, READ, ADD, 2), ch(a, READ, ADD | ONESHOT, 3)]
    s.call("bad and good: the bad only", "998 READ ERROR EBADF udata=2", kq, mixed)
    s.call("the good, next time", "A READ ONESHOT data=1 udata=3", kq)
    drain(a)
    s.call("unknown filter", "1 ? ERROR EINVAL", kq, [Kevent(1, -99, ADD)])
    start = time.monotonic()
    bad = [ch(998, READ, ADD)]
    s.call("bad, with a time-out", "998 READ ERROR EBADF", kq, bad, timeout=0.3)
    s.said("waited", "False", str(time.monotonic() - start > 0.2))


def receipts(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    c, d = s.pair("C", "D")
    b.send(b"1")
    d.send(b"1")
    three = [ch(sock, READ, ADD | RECEIPT, i + 1) for i, sock in enumerate((a, c, b))]
    s.call("3, room for 1", "", kq, three, room=1)
    said = "A READ RECEIPT data=1 udata=1; C READ RECEIPT data=1 udata=2"
    s.call("2 were applied", said, kq)
    kq = s.kqueue()
    s.call("2, no room", "", kq, three[:2], room=0)
    s.call("1 was applied", "A READ RECEIPT data=1 udata=1", kq)


def write(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("ONESHOT", "A WRITE ONESHOT udata=11", kq, [ch(a, WRITE, ADD | ONESHOT, 11)])
    both = [ch(a, READ, ADD | ONESHOT, 12), ch(a, WRITE, ADD | ONESHOT, 13)]
    s.call("both", "A WRITE ONESHOT udata=13", kq, both)
    b.send(b"q")
    s.call("then the other", "A READ ONESHOT data=1 udata=12", kq)
    drain(a)
    fill(a)
    s.call("full", "", kq, [ch(a, WRITE, ADD, 14)])
    drain(b)
    s.call("drained", "A WRITE udata=14", kq)
    s.call("DELETE", "", kq, [ch(a, WRITE, DELETE)])


def eof(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("ADD", "", kq, [ch(a, READ, ADD, 14)])
    b.send(b"abc")
    b.shutdown(socket.SHUT_WR)
    s.call("3 bytes and the end", "A READ EOF data=3 udata=14", kq)
    drain(a)
    s.call("the end", "A READ EOF data=0 udata=14", kq)
    half = "A READ EOF data=0 udata=14; A WRITE udata=15"
    s.call("half closed: writable", half, kq, [ch(a, WRITE, ADD, 15)])
    b.close()
    s.call("the peer closed", "A READ EOF data=0 udata=14; A WRITE EOF udata=15", kq)
    s.call("DELETE", "", kq, [ch(a, READ, DELETE), ch(a, WRITE, DELETE)], room=0)
    both = [ch(a, READ, ADD | CLEAR, 15), ch(a, WRITE, ADD | CLEAR, 15)]
    said = "A READ CLEAR EOF data=0 udata=15; A WRITE CLEAR EOF udata=15"
    s.call("both CLEAR", said, kq, both)
    s.call("not again", "", kq)
    a.close()
    s.call("closed by ourselves", "", kq)


def close(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    number = a.fileno()
    s.call("ADD", "", kq, [ch(a, READ, ADD, 20)], room=0)
    b.send(b"k")
    a.close()
    s.call("before the harvest", "", kq)
    b.close()
    a, b = s.pair()
    s.said("number used again", "True", str(a.fileno() == number))
    b.send(b"k")
    s.call("used again: clean", "", kq)
    s.call("used again: DELETE", "A READ ERROR ENOENT", kq, [ch(a, READ, DELETE)])
    s.call("ADD again", "", kq, [ch(a, READ, ADD, 21)], room=0)
    duplicate = os.dup(a.fileno())
    a.close()
    s.call("a duplicate lives", "", kq)
    os.close(duplicate)
    b.close()
    a, b = s.pair()
    s.call("ADD once more", "", kq, [ch(a, READ, ADD, 22)], room=0)
    number = a.detach()
    with meanwhile(lambda: os.close(number)):
        s.call("by another thread, while waiting", "", kq, timeout=0.3)
    b.close()


def threads(s: Script) -> None:
    kq = s.kqueue()
    a, b = s.pair()
    s.call("ADD", "", kq, [ch(a, READ, ADD, 22)], room=0)
    with meanwhile(lambda: b.send(b"T")):
        s.call("another writes", "A READ data=1 udata=22", kq, timeout=1)
    drain(a)
    c, d = s.pair("C", "D")
    os.dup2(c.fileno(), a.fileno())
    d.send(b"n")
    s.call("dup2 over it", "", kq)
    added = [ch(a, READ, ADD, 23)]
    with meanwhile(lambda: kq.kevent(added, 0, 0)):
        s.call("another adds", "A READ data=1 udata=23", kq, timeout=1)


def tcp(s: Script) -> None:
    kq = s.kqueue()
    listener = socket.create_server(("127.0.0.1", 0), backlog=8)
    s.names[listener.fileno()] = "L"
    s.call("listening", "", kq, [ch(listener, READ, ADD, 30)])
    c, c2 = (socket.create_connection(listener.getsockname()) for _ in range(2))
    time.sleep(0.05)
    s.call("2 pending", "L READ data=2 udata=30", kq)
    s1 = listener.accept()[0]
    s.call("1 pending", "L READ data=1 udata=30", kq)
    s2 = listener.accept()[0]
    s.call("none pending", "", kq)
    s.call("DELETE", "", kq, [ch(listener, READ, DELETE)], room=0)
    s.names[c.fileno()] = "C"
    kq.kevent([ch(c, READ, ADD, 31), ch(c, WRITE, ADD | CLEAR, 32)], 8, 0)
    s1.send(b"abc")
    s1.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    time.sleep(0.03)
    s1.close()
    time.sleep(0.03)
    said = (
        "C READ EOF data=3 fflags=ECONNRESET udata=31; C WRITE CLEAR EOF fflags=ECONNRESET udata=32"
    )
    s.call("3 bytes, then a reset", said, kq)
    c.close()
    s.names[c2.fileno()] = "C"
    s.call("ADD", "", kq, [ch(c2, READ, ADD, 33)], room=0)
    s2.close()
    time.sleep(0.03)
    s.call("FIN", "C READ EOF data=0 udata=33", kq)
    c2.send(b"x")
    time.sleep(0.03)
    said = "C READ EOF data=0 fflags=ECONNRESET udata=33; C WRITE EOF fflags=ECONNRESET udata=34"
    s.call("a reset came back", said, kq, [ch(c2, WRITE, ADD, 34)])
    c2.close()
    c3 = socket.create_connection(listener.getsockname())
    s3 = listener.accept()[0]
    s.names[c3.fileno()] = "C"
    kq.kevent([ch(c3, READ, ADD, 35), ch(c3, WRITE, ADD | CLEAR, 35)], 8, 0)
    c3.shutdown(socket.SHUT_RD)
    s.call("own SHUT_RD", "C READ EOF data=0 udata=35", kq)
    c3.shutdown(socket.SHUT_WR)
    said = "C READ EOF data=0 udata=35; C WRITE CLEAR EOF udata=35"
    s.call("own SHUT_WR", said, kq)
    c3.close()
    s3.close()
    unconnected = socket.socket()
    both = [ch(unconnected, READ, ADD, 38), ch(unconnected, WRITE, ADD, 39)]
    s.call("not connected", "", kq, both)
    unconnected.close()
    refused = socket.socket()
    refused.setblocking(False)
    refused.connect_ex(("127.0.0.1", 1))
    s.names[refused.fileno()] = "C"
    said = "C WRITE ONESHOT EOF fflags=ECONNREFUSED udata=36"
    s.call("refused", said, kq, [ch(refused, WRITE, ADD | ONESHOT, 36)], timeout=0.2)
    error = refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    s.said("SO_ERROR", "ECONNREFUSED", errno.errorcode[error])
    refused.close()
    listener.close()


def udp(s: Script) -> None:
    kq = s.kqueue()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    s.names[sock.fileno()] = "U"
    sock.sendto(b"12345", sock.getsockname())
    sock.sendto(b"678", sock.getsockname())
    time.sleep(0.02)
    s.call("two datagrams", "U READ data=8 udata=40", kq, [ch(sock, READ, ADD, 40)])
    sock.close()


def timer(s: Script) -> None:
    kq = s.kqueue()
    once = ch(1, TIMER, ADD | ONESHOT, 41, data=50)
    s.call("50 ms", "1 TIMER ONESHOT CLEAR data=1 udata=41", kq, [once], timeout=5)
    s.call("DELETE", "1 TIMER ERROR ENOENT", kq, [ch(1, TIMER, DELETE)])
    s.call("each 10 ms", "", kq, [ch(2, TIMER, ADD, 42, data=10)], room=0)
    time.sleep(0.105)
    events = kq.kevent([], 8, 0)
    s.said(
        "several expirations are one event", "True", str(len(events) == 1 and events[0].data > 1)
    )
    s.call("at once", "", kq)
    s.call("ADD again, 500 ms", "", kq, [ch(2, TIMER, ADD, 43, data=500)])
    time.sleep(0.03)
    s.call("was set anew", "", kq)
    s.call("DELETE", "", kq, [ch(2, TIMER, DELETE)])
    zero = ch(3, TIMER, ADD | ONESHOT, 44)
    s.call("0 ms", "3 TIMER ONESHOT CLEAR data=1 udata=44", kq, [zero], timeout=5)
    negative = ch(3, TIMER, ADD | ONESHOT, 44, data=-5)
    s.call("-5 ms", "3 TIMER ERROR EINVAL udata=44", kq, [negative], timeout=0.1)
    us = ch(4, TIMER, ADD | ONESHOT, 45, fflags=USECONDS, data=30000)
    s.call("30000 us", "4 TIMER ONESHOT CLEAR data=1 udata=45", kq, [us], timeout=5)


def user(s: Script) -> None:
    kq = s.kqueue()

    def trigger(udata: int = 0, ident: int = 7) -> Kevent:
        return ch(ident, USER, 0, udata, fflags=TRIGGER)

    s.call("ADD", "", kq, [ch(7, USER, ADD | CLEAR, 47)])
    s.call("triggered", "7 USER CLEAR data=0 udata=48", kq, [trigger(48)])
    s.call("not again", "", kq)
    s.call("twice", "7 USER CLEAR data=0 udata=50", kq, [trigger(49), trigger(50)])
    with meanwhile(lambda: kq.kevent([trigger()], 0, 0)):
        s.call("by another thread", "7 USER CLEAR data=0", kq, timeout=1)
    s.call("missing", "8 USER ERROR ENOENT", kq, [trigger(ident=8)])
    s.call("DELETE", "", kq, [ch(7, USER, DELETE)])


def order(s: Script) -> None:
    kq = s.kqueue()
    pairs = [s.pair(f"q{i}", "") for i in range(10)]
    for _, b in pairs:
        b.send(b"1")

    def said(*numbers: int) -> str:
        words = (f"q{i} READ data=1" + (f" udata={i}" if i else "") for i in numbers)
        return "; ".join(words)

    adds = [ch(a, READ, ADD, i) for i, (a, _) in enumerate(pairs)]
    s.call("10 ready, room for 3", said(0, 1, 2), kq, adds, room=3)
    s.call("the next 3", said(3, 4, 5), kq, room=3)
    s.call("and 3 more", said(6, 7, 8), kq, room=3)
    s.call("then round", said(0, 1, 9), kq, room=3)
    s.call("DELETE", "", kq, [ch(a, READ, DELETE) for a, _ in pairs], room=0)


def pipe(s: Script) -> None:
    kq = s.kqueue()
    r, w = os.pipe()
    s.names.update({r: "r", w: "w"})
    both = [ch(w, WRITE, ADD, 60), ch(r, READ, ADD, 61)]
    s.call("ADD", "w WRITE udata=60", kq, both)
    os.write(w, b"12345")
    s.call("5 bytes", "r READ data=5 udata=61; w WRITE udata=60", kq)
    os.close(r)
    s.call("the reader closed", "w WRITE ONESHOT EOF udata=60", kq)
    s.call("and it is gone", "", kq)
    os.close(w)
    r, w = os.pipe()
    s.names[r] = "r"
    s.call("ADD again", "", kq, [ch(r, READ, ADD, 61)])
    os.write(w, b"123")
    os.close(w)
    s.call("3 bytes and the end", "r READ EOF data=3 udata=61", kq)
    os.read(r, 9)
    s.call("the end", "r READ EOF data=0 udata=61", kq)
    os.close(r)


def file(s: Script) -> None:
    kq = s.kqueue()
    with tempfile.TemporaryFile() as opened:
        f = opened.fileno()
        s.names[f] = "f"
        os.write(f, b"0123456789")
        os.lseek(f, 3, os.SEEK_SET)
        s.call("in the middle", "f READ data=7 udata=62", kq, [ch(f, READ, ADD, 62)])
        os.lseek(f, 0, os.SEEK_END)
        s.call("at the end", "", kq)
    s.call("closed", "", kq)


SECTIONS = (
    level,
    clear,
    oneshot,
    dispatch,
    errors,
    receipts,
    write,
    eof,
    close,
    threads,
    tcp,
    udp,
    timer,
    user,
    order,
    pipe,
    file,
)
