"""Root inside, who opens ptys itself and moves what passes through them in every way there is.

Each word of the command line is one way; of each the program says, as JSON, what its own master has read and written.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import threading
import tty

_libc = ctypes.CDLL(None, use_errno=True)
_PREADV2 = {"x86_64": 327, "aarch64": 286}[os.uname().machine]


def pair() -> tuple[int, int, int]:
    """A master, a slave in raw mode, and its number."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    number = struct.unpack("i", fcntl.ioctl(master, 0x80045430, bytes(4)))[0]
    fcntl.ioctl(master, 0x40045431, bytes(4))
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(slave)
    return master, slave, number


def all_of(fd: int, size: int) -> bytes:
    """So many bytes of a descriptor."""
    found = b""
    while len(found) < size:
        found += os.read(fd, size - len(found))
    return found


def vectors(master: int, slave: int) -> dict[str, object]:
    """readv(2), writev(2), preadv2(2), with empty pieces and small ones."""
    text = bytes(range(256)) * 8
    os.write(slave, text)
    got = b""
    while len(got) < len(text):
        parts = [bytearray(size) for size in (0, 1, 7, 0, 300, 4096)]
        size = os.readv(master, parts)
        got += b"".join(bytes(part) for part in parts)[:size]
    keyed = [b"a", b"", b"bc" * 500, b"d"]
    os.writev(master, keyed)
    os.read(slave, 65536)
    os.write(slave, b"by preadv2")
    piece = bytearray(64)
    size = _preadv2(master, piece)
    return {"read": (got + bytes(piece[:size])).hex(), "written": b"".join(keyed).hex()}


def _preadv2(fd: int, piece: bytearray) -> int:
    memory = (ctypes.c_char * len(piece)).from_buffer(piece)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(memory), len(piece))
    size = _libc.syscall(_PREADV2, fd, vector, 1, ctypes.c_long(-1), ctypes.c_long(-1), 0)
    if size < 0:
        raise OSError(ctypes.get_errno(), "preadv2")
    return int(size)


def spliced(master: int, slave: int) -> dict[str, object]:
    """splice(2) out of the master and into it, and sendfile(2) into it and, where that is a pipe, out of it."""
    hears, tells = os.pipe()
    os.write(slave, b"x" * 1000)
    moved = os.splice(master, tells, 1000)
    os.write(tells, b"y" * 500)
    os.read(hears, moved)
    typed = os.splice(hears, master, 500)
    file = os.open("/tmp", os.O_RDWR | os.O_TMPFILE)
    os.write(file, b"z" * 700)
    sent = os.sendfile(master, file, 0, 700)
    os.write(slave, b"w" * 300)
    return {"spliced": [moved, typed], "sent": [sent, os.sendfile(tells, master, None, 300)]}


def high(master: int, slave: int) -> dict[str, object]:
    """Duplicates, one of them as high as they go, with the first one closed and its number another file's."""
    top = fcntl.fcntl(master, fcntl.F_DUPFD, 1000)
    os.dup2(os.open("/dev/null", os.O_RDWR), master)
    os.write(slave, b"to a high one")
    return {"read": all_of(top, 13).hex(), "written": os.write(top, b"typed") and b"typed".hex()}


def shared(master: int, slave: int) -> dict[str, object]:
    """Threads that read from one master, each so much that it is known who has had what."""
    found: list[bytes] = []
    lock = threading.Lock()

    def take() -> None:
        with lock:
            found.append(all_of(master, 1000))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for one in threads:
        one.start()
    for number in range(8):
        os.write(slave, bytes([65 + number]) * 1000)
    for one in threads:
        one.join()
    return {"read": b"".join(found).hex(), "written": ""}


def passed(master: int, slave: int) -> dict[str, object]:
    """A master that goes to another process by a socket."""
    ours, theirs = socket.socketpair()
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    os.close(master)
    hears, tells = os.pipe()
    if os.fork() == 0:
        _, messages, _, _ = theirs.recvmsg(1, 64)
        fd = array.array("i", messages[0][2][:4])[0]
        os.write(tells, all_of(fd, 6))
        os.write(fd, b"keys")
        os._exit(0)
    os.write(slave, b"passed")
    got = all_of(hears, 6)
    os.wait()
    return {"read": got.hex(), "written": b"keys".hex()}


def packets(master: int, slave: int) -> dict[str, object]:
    """TIOCPKT: what is read begins with a byte that is none of the content."""
    fcntl.ioctl(master, 0x5420, struct.pack("i", 1))
    os.write(slave, b"in packets")
    got = os.read(master, 100)
    if got[:1] != b"\0" or got[1:] != b"in packets":
        got += os.read(master, 100)
    return {"read": b"in packets".hex(), "written": ""}


def large(master: int, slave: int) -> dict[str, object]:
    """One write(2) of several megabytes, which somebody reads."""
    size = 3_000_000
    taken = threading.Thread(target=lambda: all_of(slave, size))
    taken.start()
    done = os.write(master, b"L" * size)
    rest = size - done
    while rest:
        rest -= os.write(master, b"L" * rest)
    taken.join()
    return {"wrote": size}


def again(master: int, slave: int) -> dict[str, object]:
    """/proc/self/fd of a master, opened: that is another pty."""
    other = os.open(f"/proc/self/fd/{master}", os.O_RDWR | os.O_NOCTTY)
    number = struct.unpack("i", fcntl.ioctl(other, 0x80045430, bytes(4)))[0]
    os.write(other, b"into the other")
    os.close(other)
    return {"other": number, "read": "", "written": ""}


def many(master: int, slave: int) -> dict[str, object]:
    """As many ptys as there are to have, open at once."""
    masters: list[int] = []
    try:
        while len(masters) < 3000:
            masters.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        pass
    for fd in masters:
        os.close(fd)
    return {"opened": len(masters)}


def flood(master: int, slave: int) -> dict[str, object]:
    """A hundred megabytes, as fast as they go."""
    size = 100 << 20
    if os.fork() == 0:
        piece = b"F" * 65536
        for _ in range(size // len(piece)):
            done = 0
            while done < len(piece):
                done += os.write(slave, piece[done:])
        os._exit(0)
    os.close(slave)
    rest = size
    while rest:
        rest -= len(os.read(master, 65536))
    os.wait()
    return {"size": size}


def lent(master: int, slave: int) -> dict[str, object]:
    """A master that goes to another jail, by a socket in a directory that both have."""
    listens = socket.socket(socket.AF_UNIX)
    listens.bind("/mnt/socket")
    listens.listen(1)
    connection, _ = listens.accept()
    connection.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    os.write(slave, b"seen elsewhere")
    typed = all_of(slave, 6)
    return {"read": b"seen elsewhere".hex(), "written": typed.hex()}


def borrow(master: int, slave: int) -> dict[str, object]:
    """The other end of ``lent``."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/mnt/socket")
    _, messages, _, _ = connection.recvmsg(1, 64)
    fd = array.array("i", messages[0][2][:4])[0]
    got = all_of(fd, 14)
    os.write(fd, b"abroad")
    return {"read": got.hex(), "written": ""}


def main() -> None:
    for name in sys.argv[1:]:
        master, slave, number = pair()
        found = globals()[name](master, slave)
        print(json.dumps({"way": name, "number": number, **found}), flush=True)
        for fd in range(3, 1024):
            try:
                os.close(fd)
            except OSError:
                pass


main()
