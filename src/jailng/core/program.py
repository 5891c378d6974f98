"""Programs for jailinit: system calls laid down as data, for a process in which there must be no Python.

What enters a jail, or becomes its PID 1, is born from a small static program and not from this one: it holds nothing of
the host's memory, decides nothing, and costs a quarter of a fork of an interpreter. This is where the calls and their
order are written; jailinit/jailinit.c carries them out.
"""

from __future__ import annotations

import posix
import sys
from _struct import pack

from jailng.core import jailinit
from jailng.errors import JailError
from jailng.linux import ns
from jailng.linux.libc import NR, words

_HEADER = 24
_CALL = 64
_MUST, _MAY, _FORK, _EXPECT, _EXEC = range(5)
_SIGNALS = range(1, 65)
_NOTHING = tuple([(0,) * (6 - count) for count in range(7)])
_FORKED = -1
_CLOSE_RANGE_CLOEXEC = 4
_MFD_NOEXEC_SEAL = 8  # Linux 6.3; the kernel grumbles at whoever says nothing of it
_ALL_FDS = 0xFFFFFFFF


class Data:
    """Bytes that a call's argument points to; ``at`` is their place among the program's data."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


class Kept:
    """The result of an earlier call, 1 to 3, as an argument."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Program:
    """Calls in order. ``fds`` are the descriptors that it uses, by their numbers in this process.

    ``labels`` say for each call what has failed when it fails; the kernel's words follow. ``report`` is the end of a
    pipe that the process holds to tell of a failure, ``said`` the other, which only this process has; both are closed
    at the end of a ``with``, unless it was started.
    """

    __slots__ = ("_addresses", "_calls", "_data", "fds", "labels", "report", "said")

    def __init__(self) -> None:
        """Raises OSError."""
        self.said, self.report = posix.pipe2(posix.O_CLOEXEC)
        self._calls: list[tuple[int, int, tuple[int | Data | Kept, ...], int, int]] = []
        self._data = bytearray()
        self._addresses: list[int] = []  # places among the data of words that hold a place among the data
        self.labels: list[str] = []
        self.fds: list[int] = []

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.said, self.report):
            if fd >= 0:
                posix.close(fd)

    def data(self, content: bytes, addresses: tuple[int, ...] = ()) -> Data:
        """Lay down bytes; ``addresses`` are the offsets in them of words that hold the place of other data."""
        at = len(self._data)
        self._data += content + bytes(-len(content) % 8)
        self._addresses += [at + offset for offset in addresses]
        return Data(at)

    def text(self, content: str | bytes) -> Data:
        """Lay down a NUL-terminated string."""
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogateescape")
        return self.data(content + b"\0")

    def _vector(self, strings: list[str]) -> Data:
        places = [self.text(string).at for string in strings]
        return self.data(words(*places, 0), tuple(range(0, 8 * len(places), 8)))

    def _add(
        self, kind: int, name: str, arguments: tuple[int | Data | Kept, ...], label: str, keep: int, value: int
    ) -> None:
        self._calls.append((NR[name], kind, arguments, keep, value))
        self.labels.append(label or name)

    def must(self, name: str, *arguments: int | Data | Kept, label: str = "", keep: int = 0) -> None:
        """A call whose failure ends the program. ``keep`` is where its result goes: 1 to 3."""
        self._add(_MUST, name, arguments, label, keep, 0)

    def may(self, name: str, *arguments: int | Data | Kept) -> None:
        """A call whose failure is passed over."""
        self._add(_MAY, name, arguments, "", 0, 0)

    def expect(self, value: int, name: str, *arguments: int | Data | Kept) -> None:
        """A call that has to return ``value``; if it does not, the process ends without a word."""
        self._add(_EXPECT, name, arguments, "", 0, value)

    def fork(self, flags: int, cgroup: int, label: str = "") -> None:
        """clone3(2) into a cgroup: what follows is done by the child, which is a child of this very process's."""
        self.fds.append(cgroup)
        flags |= ns.CLONE_PARENT | ns.CLONE_INTO_CGROUP
        # struct clone_args: flags, pidfd, the tids, exit_signal, stack and its size, tls, set_tid and its size, cgroup
        arguments = self.data(words(flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup))
        self._add(_FORK, "clone3", (arguments, 88), label, 0, 0)

    def close_all_but(self, *kept: int) -> None:
        """Close every descriptor but 0 to 2, ``kept`` and ``report``."""
        first = 3
        for fd in sorted({*kept, self.report} - {0, 1, 2}):
            if fd > first:
                self.must("close_range", first, fd - 1, 0)
            first = fd + 1
        self.must("close_range", first, _ALL_FDS, 0)

    def unless_alone(self) -> None:
        """End without a word if the process that started this one has died: nobody has the other end of ``report``."""
        watched = self.data(words(self.report))  # struct pollfd, no events: of POLLERR poll(2) tells unasked
        self.expect(0, "ppoll", watched, 1, self.data(bytes(16)), 0, 0)

    def execute(self, argv: list[str], environment: dict[str, str], label: str = "execvp: {}") -> None:
        """execvp(3), with the PATH of ``environment``. No descriptor above 2 outlives it. ``{}`` is the program."""
        self._close_on_exec()
        vector = self._vector(argv)
        variables = self._vector([f"{key}={value}" for key, value in environment.items()])
        label = label.format(argv[0])
        candidates = [argv[0]] if "/" in argv[0] else []
        if not candidates and argv[0]:
            candidates = [f"{directory or '.'}/{argv[0]}" for directory in environment["PATH"].split(":")]
        for candidate in candidates or [""]:
            self._add(_EXEC, "execve", (self.text(candidate), vector, variables), label, 0, 0)

    def execute_fd(self, fd: int, argv: list[str]) -> None:
        """fexecve(3) with an empty environment. No descriptor above 2 outlives it."""
        self._close_on_exec()
        self.fds.append(fd)
        empty, vector = self.text(""), self._vector(argv)
        self._add(_EXEC, "execveat", (fd, empty, vector, self._vector([]), 0x1000), f"execve {argv[0]}", 0, 0)

    def _close_on_exec(self) -> None:
        self.must("close_range", 3, _ALL_FDS, _CLOSE_RANGE_CLOEXEC)

    def _laid_out(self) -> bytes:
        base = _HEADER + _CALL * len(self._calls) + 8 * len(self._addresses)
        out = [words(len(self._calls), len(self._addresses), self.report)]
        for number, kind, arguments, keep, value in self._calls:
            pointers = kept = 0
            plain = []
            for place, argument in enumerate(arguments):
                if isinstance(argument, Data):
                    pointers |= 1 << place
                    plain.append(base + argument.at)
                elif isinstance(argument, Kept):
                    kept |= 1 << place
                    plain.append(argument.number)
                else:
                    plain.append(argument)
            out.append(pack("@IBBBB7q", number, kind, pointers, kept, keep, *plain, *_NOTHING[len(plain)], value))
        out.append(words(*[base + place for place in self._addresses]))
        for place in self._addresses:
            inside = int.from_bytes(self._data[place : place + 8], sys.byteorder)
            self._data[place : place + 8] = words(base + inside)
        out.append(bytes(self._data))
        return b"".join(out)


class Running:
    """A program on its way: the process that it forks, once ``forked``, and the word that it leaves if it fails.

    ``said`` is a descriptor that becomes readable when ``arrived`` and ``complaint`` would not wait.
    """

    __slots__ = ("_failed", "_helper", "_program", "pid", "said")

    def __init__(self, helper: int, program: Program) -> None:
        """It takes ``said`` over."""
        self.pid = -1
        self._failed = b""
        self._helper = helper
        self.said, program.said = program.said, -1
        self._program = program

    def forked(self) -> int:
        """Wait until it has forked; the pid, which is a child of this process's. Raises JailError with what failed."""
        posix.waitpid(self._helper, 0)
        first = posix.read(self.said, 16)
        what, value = _numbers(first)
        if what != _FORKED:
            # Either there is no child, or it has failed before the helper told of it, which it has by now.
            what, value = _numbers(posix.read(self.said, 16))
            if what != _FORKED:
                posix.close(self.said)
                raise JailError(_sentence(self._program, first))
            self._failed = first
        self.pid = value
        return value

    def arrived(self) -> None:
        """Wait until it has executed its last call. Raises JailError with what failed, having reaped it."""
        complaint = self.complaint()
        if complaint:
            posix.waitpid(self.pid, 0)
            raise JailError(complaint)

    def complaint(self) -> str:
        """Wait until it has executed its last call, or one has failed; what failed, or "". To be asked once."""
        message = self._failed or posix.read(self.said, 16)
        posix.close(self.said)
        return _sentence(self._program, message) if message else ""


def start(program: Program) -> Running:
    """Begin to carry out a program. Raises OSError."""
    file = posix.memfd_create("program", posix.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    code = -1
    inherited: list[int] = []
    try:
        code = jailinit.open_program()
        inherited = [fd for fd in {file, code, program.report, *program.fds} if not posix.get_inheritable(fd)]
        posix.write(file, program._laid_out())
        for fd in inherited:
            posix.set_inheritable(fd, True)
        helper = posix.posix_spawn(
            f"/proc/self/fd/{code}", ["jailinit", "run", str(file)], {}, setsigmask=(), setsigdef=_SIGNALS_THAT_CAN
        )
    finally:
        for fd in inherited:
            posix.set_inheritable(fd, False)
        for fd in (file, code):
            if fd >= 0:
                posix.close(fd)
    posix.close(program.report)
    program.report = -1
    return Running(helper, program)


_SIGNALS_THAT_CAN = [number for number in _SIGNALS if number not in (9, 19, 32, 33)]


def _numbers(message: bytes) -> tuple[int, int]:
    if len(message) != 16:
        return 0, 0
    what, value = (int.from_bytes(message[at : at + 8], sys.byteorder, signed=True) for at in (0, 8))
    return what, value


def _sentence(program: Program, message: bytes) -> str:
    what, value = _numbers(message)
    if not value:
        return "jailinit died"
    return f"{program.labels[what]}: {posix.strerror(value)}"
