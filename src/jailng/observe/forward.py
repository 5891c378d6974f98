"""Sending a log to a collector: syslog (RFC 5424) over TCP (RFC 6587, octets counted) or TLS (RFC 5425).

A process of its own for each collector reads the log's files, so that nobody waits for a collector. It notes how far
the collector's kernel has acknowledged what was sent, and goes on from there after it was killed, or the collector was
away: nothing is left out that rotation has not removed, and a few entries may come twice (their number tells). What
the guest has said cannot be anything but text there.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import os
import select
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING

from jailng.errors import JailError
from jailng.limits import syslog
from jailng.linux import child, ns
from jailng.linux.libc import syscall
from jailng.observe import entry
from jailng.observe.datagram import FACILITIES, SEVERITIES
from jailng.observe.logreader import Position, Reader
from jailng.observe.seal import FORWARDED
from jailng.params import log
from jailng.params.values import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jailng.params.log import Forward

_ID = "jailng@32473"  # the number that RFC 5612 has for those who have none
_AUDIT, _NOTICE, _WARNING = 13, 5, 4
_WARNINGS = ("dropped", "resumed", "socket")
_LONGEST = 1 << 15  # bytes of what a guest says
_SIOCOUTQ = 0x5411
_SECONDS = 10.0  # to connect in, and to write in
_DEAD = 30000  # milliseconds without an acknowledgement
_SHORT, _LONG = 1.0, 60.0  # seconds between tries
_MANY = 256  # lines between two looks at how far it is
_PATIENCE = 1.0  # seconds until the next of them
_STREAMS = 3
_FINISH = 2.0  # seconds to finish in when the jail has ended


# What is sent


def framed(line: bytes, host: str) -> bytes:
    """An entry as it goes over the wire. ``host`` is this host's name."""
    said = entry.fields(line)
    kind = str(said.get("kind", "-"))
    is_guests = kind == "syslog"
    text = visible(str(said.get("message", ""))) if is_guests else line.decode("ascii", "backslashreplace")
    named = {"host": host, "hash": entry.digest(line)}
    named |= {name: str(said[name]) for name in ("seq", "jid", "uid", "gid", "host_pid", "comm") if name in said}
    data = " ".join([_ID, *[f'{name}="{_escaped(value)}"' for name, value in named.items() if value != "None"]])
    pid = said.get("pid")
    header = " ".join(
        [
            f"<{_priority(said, kind)}>1",
            f"{str(said.get('time'))[:26]}Z",
            _word(str(said.get("jail", "-")), 255),
            "jailng",
            str(pid) if isinstance(pid, int) else "-",
            _word(kind, 32),
            f"[{data}]",
        ]
    )
    content = text.encode("utf-8", "backslashreplace")  # a line as it is in the log is whole, or proves nothing
    message = header.encode() + b" \xef\xbb\xbf" + (content[:_LONGEST] if is_guests else content)
    return b"%d %s" % (len(message), message)


def _priority(said: dict[str, object], kind: str) -> int:
    facility, severity = said.get("facility"), said.get("severity")
    if facility in FACILITIES and severity in SEVERITIES:
        return FACILITIES.index(str(facility)) * 8 + SEVERITIES.index(str(severity))
    return _AUDIT * 8 + (_WARNING if kind in _WARNINGS else _NOTICE)


def _escaped(value: str) -> str:
    text = visible(value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _word(text: str, most: int) -> str:
    r"""PRINTUSASCII: what is not becomes ``?``."""
    return "".join([char if "!" <= char <= "~" else "?" for char in text])[:most] or "-"


# To whom


def context(target: Forward) -> ssl.SSLContext | None:
    """What TLS to that collector needs: certificates are verified, and the name. Raises JailError."""
    if target.scheme != "tls":
        return None
    name = "ca"
    try:
        made = ssl.create_default_context(cafile=target.options.get("ca"))
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if "cert" in target.options:
            name = "cert"
            made.load_cert_chain(target.options["cert"], target.options.get("key"), lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise JailError(f"{target.target}: {name}={target.options.get(name, '')}: {why}") from None
    return made


def check(value: str) -> None:
    """That what ng.log says of collectors can be. Raises JailError."""
    for target in log.read([value]).forwards:
        try:
            context(target)
        except JailError as error:
            raise JailError(f"ng.log: {error}") from None


def _connected(target: Forward) -> socket.socket:
    tls = context(target)
    made = socket.create_connection((target.host, target.port), _SECONDS)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD)
        if tls is not None:
            return tls.wrap_socket(made, server_hostname=target.options.get("name", target.host))
    except BaseException:
        made.close()
        raise
    return made


class Forwarder:
    """The process that sends the log in ``directory`` to a collector. ``state`` is the file of how far it is."""

    def __init__(self, target: Forward, directory: Path, state: Path, jail: str) -> None:
        self._target = target
        self._state = state
        self._directory = directory
        self._jail = jail
        self._host = os.uname().nodename
        self._reader = Reader(directory, self._stored())
        self._ending = False
        self._told = ""

    def run(self) -> None:
        """Until it is told to finish (SIGTERM), and has sent all that is there."""
        signal.signal(signal.SIGTERM, self._end)
        pause = _SHORT
        while True:
            try:
                with contextlib.closing(_connected(self._target)) as connection:
                    self._tell("")
                    pause = _SHORT
                    self._send(connection)
                    return
            except (OSError, JailError) as error:
                self._tell(str(error))
            select.select([], [], [], pause)
            pause = min(2 * pause, _LONG)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _tell(self, why: str) -> None:
        """The host's syslog hears of it when it begins and when it is over."""
        if why != self._told:
            told = why or "is sent again"
            syslog.tell(f"jail {visible(self._jail)}: log: {self._target.target}: {visible(told)}")
            self._told = why

    def _send(self, connection: socket.socket) -> None:
        stored, last = self._stored(), b""
        self._reader.position = stored
        changes = self._reader.changes()
        looked = time.monotonic()
        while True:
            ended = self._ending
            for number, line in enumerate(self._reader.lines(), 1):
                connection.sendall(framed(line, self._host))
                last = line
                if number % _MANY == 0:
                    self._check(connection)
            acknowledged = self._is_acknowledged(connection)
            self._check(connection)  # what was sent to who had hung up counts for acknowledged, too
            if acknowledged and self._reader.position != stored:
                stored = self._reader.position
                self._store(stored, last)
            if ended and self._reader.position == stored:
                return
            waits = self._reader.position != stored or ended or self._reader.removed
            timeout = _PATIENCE / 20 if waits and time.monotonic() < looked + _SECONDS else _PATIENCE
            select.select([changes, connection.fileno()], [], [], timeout if waits else None)
            looked = looked if waits else time.monotonic()

    @staticmethod
    def _check(connection: socket.socket) -> None:
        """Raises OSError: the collector has hung up. What it says is nothing to us."""
        connection.setblocking(False)
        try:
            while True:
                if not connection.recv(4096):
                    raise ConnectionResetError("the collector has closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            connection.settimeout(_SECONDS)

    @staticmethod
    def _is_acknowledged(connection: socket.socket) -> bool:
        left = array.array("i", [0])
        fcntl.ioctl(connection.fileno(), _SIOCOUTQ, left)
        return left[0] == 0

    def _stored(self) -> Position:
        try:
            epoch, offset, *rest = self._state.read_text("ascii").split()
            found = Position(int(epoch), int(offset))
        except (FileNotFoundError, ValueError):
            return Position(0, 0)
        # What a power cut has lost of the log the collector may have: others are in its place by now.
        return found if self._goes_on(found, rest[0] if rest else "") else Position(found.epoch, 0)

    def _goes_on(self, position: Position, digest: str) -> bool:
        """Whether the line before a position is the one of which that was stored ("": by an older release)."""
        try:
            fd = entry.opened(self._directory / entry.file_name(position.epoch))
        except OSError:  # it is not there any more: the reader goes on with the next
            return True
        try:
            last = entry.line_before(fd, position.offset)
        finally:
            os.close(fd)
        return last is not None and (not digest or entry.digest(last) == digest)

    def _store(self, position: Position, last: bytes) -> None:
        new = self._state.with_suffix(".new")
        new.write_text(f"{position.epoch} {position.offset} {entry.digest(last) if last else ''}\n", "ascii")
        new.rename(self._state)


class Forwarders:
    """The processes that send one log, from the worker's side."""

    def __init__(self, directory: Path, states: Path, jail: str) -> None:
        self._directory = directory
        self._states = states
        self._jail = jail
        self._running: dict[str, tuple[Forward, int, int]] = {}  # by what is said of it: pid, pidfd
        self._due = 0.0

    @property
    def fds(self) -> list[int]:
        """Readable when one has died."""
        return [pidfd for _, _, pidfd in self._running.values()]

    def follow(self, wanted: list[Forward]) -> None:
        """Have these, and no others. Raises JailError: what is said of one cannot be."""
        for target in wanted:
            context(target)
        texts = [target.text for target in wanted]
        for text in [text for text in self._running if text not in texts]:
            self._kill(text)
        for target in wanted:
            if target.text not in self._running:
                self._start(target)

    def revive(self) -> None:
        """Start those again that have died, at most once a second."""
        for text, (target, pid, pidfd) in list(self._running.items()):
            if ns.ends_within(pidfd, 0) and time.monotonic() >= self._due:
                self._due = time.monotonic() + _SHORT
                os.waitpid(pid, 0)
                os.close(pidfd)
                del self._running[text]
                self._start(target)

    def finish(self) -> None:
        """Let them send what is there, for a moment."""
        until = time.monotonic() + _FINISH
        for _, _, pidfd in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        for text, (_, _, pidfd) in list(self._running.items()):
            select.select([pidfd], [], [], max(until - time.monotonic(), 0))
            self._kill(text)

    def _kill(self, text: str) -> None:
        _, pid, pidfd = self._running.pop(text)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)

    def _start(self, target: Forward) -> None:
        name = f"{FORWARDED}{hashlib.sha256(target.target.encode()).hexdigest()[:16]}"
        parent = os.getpid()

        def run() -> None:
            child.die_with_parent(signal.SIGKILL)
            if os.getppid() == parent:
                Forwarder(target, self._directory, self._states / name, self._jail).run()

        pid = _forked(run)
        self._running[target.text] = target, pid, os.pidfd_open(pid)


def _forked(run: Callable[[], None]) -> int:
    """A child that has nothing of this process's open but the standard streams and the kernel's log; its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscall("close_range", syslog.move_kernel(_STREAMS), 0xFFFFFFFF, 0)
        run()
        status = 0
    finally:
        os._exit(status)
