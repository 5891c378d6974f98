"""IPC and abstract sockets of the host and of another jail, and what came in with the caller."""

from __future__ import annotations

import ctypes
import os
import socket
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, Facts, Verdict, call, found, probe, tried, why

_NO_SIBLING = "no other jail could be made"
_SHM_INFO, _SHM_STAT_ANY = 14, 15
_SHMGET, _SEMGET, _MSGGET, _SHMCTL, _MQ_OPEN = "shmget", "semget", "msgget", "shmctl", "mq_open"


@probe("ipc: the host's shared memory")
def _shm(facts: Facts) -> Verdict:
    return tried(lambda: call(_SHMGET, int(facts["ipc key"]), 0, 0))


@probe("ipc: the host's semaphores")
def _sem(facts: Facts) -> Verdict:
    return tried(lambda: call(_SEMGET, int(facts["ipc key"]), 0, 0))


@probe("ipc: the host's message queue")
def _msg(facts: Facts) -> Verdict:
    return tried(lambda: call(_MSGGET, int(facts["ipc key"]), 0))


@probe("ipc: any shared memory by index (SHM_STAT_ANY)")
def _any_shm(facts: Facts) -> Verdict:
    memory = ctypes.create_string_buffer(256)
    seen = []
    try:
        highest = call(_SHMCTL, 0, _SHM_INFO, memory)
    except OSError as error:
        return HELD, why(error)
    for index in range(highest + 1):
        try:
            seen.append(call(_SHMCTL, index, _SHM_STAT_ANY, memory))
        except OSError:
            continue
    return found(seen, ESCAPED)


@probe("ipc: the host's POSIX message queue")
def _queue(facts: Facts) -> Verdict:
    return tried(lambda: call(_MQ_OPEN, facts["queue"].encode(), os.O_RDONLY, 0, None))


@probe("ipc: the host's POSIX shared memory")
def _posix(facts: Facts) -> Verdict:
    return tried(lambda: os.open(f"/dev/shm/{facts['queue']}", os.O_RDONLY))


@probe("ipc: what /proc/sysvipc and /dev/mqueue list")
def _listed(facts: Facts) -> Verdict:
    seen = []
    for kind in ("shm", "sem", "msg"):
        try:
            with open(f"/proc/sysvipc/{kind}") as file:
                seen += file.read().splitlines()[1:]
        except OSError:
            continue
    if os.path.isdir("/dev/mqueue"):
        seen += os.listdir("/dev/mqueue")
    return found(seen)


for _name, _number, _arguments in (
    ("shared memory", _SHMGET, (0, 0)),
    ("semaphores", _SEMGET, (0, 0)),
    ("message queue", _MSGGET, (0,)),
):

    def _siblings(number: str, arguments: tuple[int, ...], facts: Facts) -> Verdict:
        if not facts["sibling"]:
            return ABSENT, _NO_SIBLING
        return tried(lambda: call(number, int(facts["sibling key"]), *arguments))

    probe(f"ipc: another jail's {_name}")(partial(_siblings, _number, _arguments))


@probe("ipc: another jail's POSIX message queue and shared memory")
def _sibling_posix(facts: Facts) -> Verdict:
    if not facts["sibling"]:
        return ABSENT, _NO_SIBLING
    verdict = tried(lambda: call(_MQ_OPEN, facts["sibling"].encode(), os.O_RDONLY, 0, None))
    return verdict if verdict[0] != HELD else tried(lambda: os.open(f"/dev/shm/{facts['sibling']}", os.O_RDONLY))


def _abstract(whose: str, kind: int, facts: Facts) -> Verdict:
    if not facts[whose]:
        return ABSENT, _NO_SIBLING
    name = f"\0{facts[whose]}-{kind}"

    def connect() -> str:
        with socket.socket(socket.AF_UNIX, kind) as made:
            made.connect(name)
        return "connected"

    return tried(connect)


for _name, _kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
    probe(f"ipc: the host's abstract {_name} socket")(partial(_abstract, "abstract", _kind))
    probe(f"ipc: another jail's abstract {_name} socket")(partial(_abstract, "sibling", _kind))


@probe("ipc: send to the host's abstract socket without a connection")
def _sendto(facts: Facts) -> Verdict:
    def send() -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            return made.sendto(b"attempt", f"\0{facts['abstract']}-{socket.SOCK_DGRAM}")

    return tried(send)


@probe("ipc: unix sockets of the host in /proc/net/unix")
def _unix(facts: Facts) -> Verdict:
    try:
        with open("/proc/net/unix") as file:
            text = file.read()
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, "the host's are listed") if facts["abstract"] in text else (HELD, "not among them")


@probe("ipc: pipes, sockets and files that came along")
def _inherited(facts: Facts) -> Verdict:
    """A regular file or a directory could be opened anew, with other rights: /proc/self/fd."""
    got = []
    for name in facts["inherited"].split():
        try:
            where = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if not where.startswith(("pipe:", "socket:", "/dev/null", "/dev/pts/")):
            got.append(name)
    return found(got, ESCAPED)


def _reopened(number: int, facts: Facts) -> Verdict:
    """What is behind a standard stream, opened anew both ways."""
    try:
        where = os.readlink(f"/proc/{os.getppid()}/fd/{number}")
    except OSError as error:
        return HELD, why(error)
    if where.startswith(("pipe:", "/dev/null", "socket:")):
        return HELD, where
    return tried(lambda: os.open(f"/proc/{os.getppid()}/fd/{number}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))


for _stream in (0, 1, 2):
    probe(f"ipc: standard stream {_stream} opened anew")(partial(_reopened, _stream))


def _peer(number: int, facts: Facts) -> Verdict:
    """The process at the other end of a socket that came along: SO_PEERPIDFD, since 6.5."""
    import signal

    try:
        fd = os.open(f"/proc/{os.getppid()}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        try:
            made = socket.socket(fileno=os.dup(number))
            pidfd = int.from_bytes(made.getsockopt(socket.SOL_SOCKET, 77, 4), "little")
        except OSError as error:
            return HELD, why(error)
        for action in (
            partial(signal.pidfd_send_signal, pidfd, 0),
            partial(call, "pidfd_getfd", pidfd, 0, 0),
            partial(call, "setns", pidfd, 0x20000),
        ):
            verdict = tried(action)
            if verdict[0] != HELD:
                return verdict
        return HELD, "it can neither be signalled nor opened nor entered"
    os.close(fd)
    return HELD, "no socket"


probe("ipc: the process at the other end of standard input")(partial(_peer, 0))
