"""Programs for jailinit: system calls laid down as data, for a process in which there must be no Python.

What enters a jail, or becomes its PID 1, is born from a small static program and not from this one: it holds nothing of
the host's memory, decides nothing, and costs a quarter of a fork of an interpreter. This is where the calls and their
order are written; jailinit/jailinit.c carries them out.
"""

from __future__ import annotations

import posix
import sys
from _struct import Struct, pack

from jailng.errors import UNREACHED, JailError
from jailng.linux import ns
from jailng.linux.libc import ENOSPC, NR, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    # What has failed; or for calls that are the same for many values: the first of them, what each says, and the values
    Label = str | tuple[int, list["Label"], Sequence[int | bytes]]

# An argument from there on is a place among the data, or what a call has kept. No call takes numbers like these, which
# are still small ones to the interpreter (below 2^30), and so are counted and packed as fast as any.
_DATA, _KEPT = -(1 << 29), -(1 << 28)
_MUST, _MAY, _FORK, _EXPECT, _EXEC, _NOTE = range(6)
_DONE = 127 << 8  # the wait status of a program that has told what there was to tell
_NOTHING = tuple([(0,) * (6 - count) for count in range(7)])
_PADDING = tuple([bytes(-count % 8) for count in range(8)])
_CALL = Struct("@HHB6qii")  # struct call_ of jailinit.c
RUN = "run2"  # another word with each change of what jailinit reads
_SIZE = _CALL.size
_CLOSE_RANGE_CLOEXEC = 4
_MFD_NOEXEC_SEAL = 8  # Linux 6.3; the kernel grumbles at whoever says nothing of it
_ALL_FDS = 0xFFFFFFFF


def kept(number: int) -> int:
    """The result of an earlier call, 1 to 1023, as an argument."""
    return _KEPT + number


class Program:
    """Calls in order. ``fds`` are the descriptors that it uses, by their numbers in this process.

    ``labels`` say for each call what has failed when it fails; the kernel's words follow. (What is the same for many
    is composed when it is needed.) ``instead`` has whole sentences for some, by call and errno. ``noted`` are those
    whose failure is told of and does no harm. ``arrival`` is the number of the call with which what was asked for
    begins: what fails before is the way there.
    """

    __slots__ = (
        "_addresses",
        "_calls",
        "_closing",
        "_data",
        "_texts",
        "_watched",
        "arrival",
        "fds",
        "forks",
        "instead",
        "labels",
        "noted",
    )

    def __init__(self) -> None:
        self._calls = bytearray()
        self._data = bytearray()
        self._addresses: list[int] = []  # places among the data of words that hold a place among the data
        self._closing: tuple[int, list[int]] | None = None  # the first of the calls that close, and what they leave
        self._texts: dict[str | bytes, int] = {}
        self._watched: int | None = None
        self.arrival = 0
        self.labels: list[Label] = []
        self.instead: dict[tuple[int, int], str] = {}
        self.noted: set[int] = set()
        self.fds: list[int] = []
        self.forks: list[int] = []  # the numbers of the calls that fork

    def data(self, content: bytes, addresses: tuple[int, ...] = ()) -> int:
        """Lay down bytes; ``addresses`` are the offsets in them of words that hold the place of other data."""
        self._data += _PADDING[len(self._data) & 7]
        at = len(self._data)
        self._data += content
        if addresses:
            self._addresses += [at + offset for offset in addresses]
        return _DATA + at

    def text(self, content: str | bytes) -> int:
        """Lay down a NUL-terminated string."""
        found = self._texts.get(content)
        if found is None:
            found = self._texts[content] = _DATA + len(self._data)
            self._data += content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
            self._data += b"\0"
        return found

    def _vector(self, strings: list[str]) -> int:
        places = [self.text(string) for string in strings]
        return self.data(words(*places, 0), tuple(range(0, 8 * len(places), 8)))

    def _vector_with_room(self, strings: list[str]) -> int:
        """The same with a word before it, which jailinit fills in where the program turns out to be a script."""
        places = [self.text(string) for string in strings]
        return self.data(words(0, *places, 0), tuple(range(8, 8 * len(places) + 8, 8))) + 8

    def _add(self, kind: int, name: str, arguments: tuple[int, ...], label: str, keep: int, value: int) -> None:
        nothing = _NOTHING[len(arguments)]
        self._calls += _CALL.pack(NR[name], keep, kind, *arguments, *nothing, value, 0)
        self.labels.append(label or name)

    def must(self, name: str, *arguments: int, label: str = "", keep: int = 0, unless: int = 0) -> None:
        """A call whose failure ends the program, ``unless`` it fails with that errno.

        ``keep`` is where its result goes: 1 to 1023.
        """
        self._add(_MUST, name, arguments, label, keep, unless)

    def note(self, name: str, *arguments: int, keep: int = 0) -> None:
        """A call whose failure is passed over, but told of (``Running.noted``)."""
        self.noted.add(self.here())
        self._add(_NOTE, name, arguments, "", keep, 0)

    def each(self, place: int, values: list[int] | list[bytes]) -> None:
        """Instead of the last call, the same for each of these numbers or texts as its argument number ``place``."""
        self._repeat(1, (place,), (values,))

    def rows(self, count: int, places: tuple[int, ...], rows: list[tuple[int | bytes, ...]]) -> None:
        """Instead of the last ``count`` calls, the same for each row of numbers and texts as arguments at these places.

        Places are counted through, six a call: 7 is argument number 1 of the second call. What stands at one place is
        of one kind in all rows.
        """
        self._repeat(count, places, tuple(zip(*rows, strict=True)) or ((),) * len(places))

    def _repeat(self, count: int, places: tuple[int, ...], columns: tuple[Sequence[Any], ...]) -> None:
        size, length = _SIZE * count, len(columns[0])
        calls, labels = self._calls[-size:] * length, self.labels[-count:]
        del self._calls[-size:], self.labels[-count:]
        if not length:
            return
        self.labels += [(self.here(), labels, columns[0])] * (count * length)
        fields = memoryview(calls).cast("q")
        for place, column in zip(places, columns, strict=True):
            if isinstance(column[0], bytes):
                column = self._texts_at(column)
            numbers = pack(f"{length}q", *column)
            fields[_SIZE // 8 * (place // 6) + 1 + place % 6 :: size // 8] = memoryview(numbers).cast("q")
        self._calls += calls

    def _texts_at(self, contents: Sequence[bytes]) -> list[int]:
        """Lay down NUL-terminated strings; where each is."""
        found = []
        end = _DATA + len(self._data)
        for content in contents:
            found.append(end)
            end += len(content) + 1
        self._data += b"\0".join([*contents, b""])
        return found

    def here(self) -> int:
        """The number of the next call, for ``skip``, ``instead`` and to know it by."""
        return len(self._calls) // _SIZE

    def skip(self, call: int) -> None:
        """Leave out what has been added after ``call`` where that fails and the failure is passed over."""
        end = _SIZE * (call + 1)
        self._calls[end - 4 : end] = words(self.here() - call - 1, size=4)

    def may(self, name: str, *arguments: int, keep: int = 0) -> None:
        """A call whose failure is passed over; what is kept then is -1."""
        self._add(_MAY, name, arguments, "", keep, 0)

    def expect(self, value: int, name: str, *arguments: int) -> None:
        """A call that has to return ``value``; if it does not, the process ends without a word."""
        self._add(_EXPECT, name, arguments, "", 0, value)

    def fork(self, flags: int, cgroup: int, label: str = "", orphan: bool = False) -> None:
        """clone3(2): what follows is done by the child, which is a child of this very process's; no ``orphan`` is.

        It is born into the ``cgroup``; -1: into that of the process that forks.
        """
        self.forks.append(self.here())
        if not orphan:
            flags |= ns.CLONE_PARENT
        if cgroup >= 0:
            self.fds.append(cgroup)
            flags |= ns.CLONE_INTO_CGROUP
        # struct clone_args: flags, pidfd, the tids, exit_signal, stack and its size, tls, set_tid and its size, cgroup
        arguments = self.data(words(flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, max(cgroup, 0)))
        self._add(_FORK, "clone3", (arguments, 88), label, 0, 0)

    def close_all_but(self, *kept: int) -> None:
        """Close every descriptor but 0 to 2, ``kept``, and the one by which the program would tell what has failed."""
        self._closing = self.here(), list(kept)
        for _ in range(len(kept) + 2):
            self.must("close_range", _ALL_FDS, _ALL_FDS, 0)  # the numbers are known when the program is laid out

    def unless_alone(self) -> None:
        """End without a word if the process that started this one has died: nobody would hear what has failed."""
        self._watched = self.data(bytes(8))  # struct pollfd without events: poll(2) tells unasked of POLLERR
        self.expect(0, "ppoll", self._watched, 1, self.data(bytes(16)), 0, 0)

    def execute(
        self,
        argv: list[str],
        environment: dict[str, str],
        label: str = "execvp: {}",
        last: int = 2,
        path: str = "",
        instead: str = "",
    ) -> None:
        """execvp(3), with the PATH of ``environment`` or another ``path``: a script that names no interpreter is sh's.

        No descriptor above ``last`` outlives it. ``{}`` in the label is the program. The file ``instead`` is it
        where there is one.
        """
        self._close_on_exec(last)
        vector = self._vector_with_room(argv)
        variables = self._vector([f"{key}={value}" for key, value in environment.items()])
        label = label.format(argv[0])
        candidates = [argv[0]] if "/" in argv[0] else []
        if not candidates and argv[0]:
            candidates = [f"{directory or '.'}/{argv[0]}" for directory in (path or environment["PATH"]).split(":")]
        if instead:
            candidates.insert(0, instead)
        for candidate in candidates or [""]:
            self._add(_EXEC, "execve", (self.text(candidate), vector, variables), label, 0, 1)

    def execute_fd(self, fd: int, argv: list[str]) -> None:
        """fexecve(3) with an empty environment. No descriptor above 2 outlives it."""
        self._close_on_exec()
        if fd >= 0:
            self.fds.append(fd)
        empty, vector = self.text(""), self._vector(argv)
        self._add(_EXEC, "execveat", (fd, empty, vector, self._vector([]), 0x1000), f"execve {argv[0]}", 0, 0)

    def end(self) -> None:
        """Exit, as a program may that executes nothing."""
        self.must("exit_group", 0)

    def _close_on_exec(self, last: int = 2) -> None:
        self.must("close_range", last + 1, _ALL_FDS, _CLOSE_RANGE_CLOEXEC)

    def _laid_out(self, report: int) -> bytes:
        if self._closing is not None:
            self._close_around(*self._closing, report)
        if self._watched is not None:
            at = self._watched - _DATA
            self._data[at : at + 4] = words(report, size=4)
        head = words(self.here(), len(self._addresses), report)
        return b"".join([head, self._calls, words(*self._addresses), self._data])

    def _close_around(self, call: int, kept: list[int], report: int) -> None:
        first = 3
        at = _SIZE * call + 8
        for fd in sorted({*kept, report}):
            if fd > first:
                self._calls[at : at + 16] = words(first, fd - 1)
                at += _SIZE
            first = max(first, fd + 1)
        self._calls[at : at + 16] = words(first, _ALL_FDS)


class Running:
    """A program on its way: the process that it forks, once ``forked``, and the word that it leaves if it fails.

    ``said`` is a descriptor that becomes readable when ``arrived`` and ``complaint`` would not wait. ``noted`` are the
    calls whose failure was to be told of, and was. A program that does not fork is the process ``pid`` itself.
    """

    __slots__ = ("_early", "_helper", "_program", "noted", "pid", "said")

    def __init__(self, helper: int, said: int, program: Program) -> None:
        self.pid = helper
        self.noted: list[int] = []
        self._early: list[bytes] = []
        self._helper = helper
        self.said = said
        self._program = program

    def forked(self) -> int:
        """Wait until it has forked, for the last time; the pid, which is a child of this process's.

        Raises JailError with what failed.
        """
        pids: dict[int, int] = {}  # by the call
        pid = self._helper
        for call in self._program.forks:
            # Whoever forks has told of it when it ends; one that was killed then may not have, and what it has forked
            # would keep the pipe open.
            _, status = posix.waitpid(pid, 0)
            if status == _DONE:
                self._hear_of(call, pids)
            pid = pids.get(call, 0)
            if not pid:
                posix.close(self.said)
                raise _failure(self._program, self._early[0] if self._early else b"")
        self.pid = pid
        return pid

    def _hear_of(self, call: int, pids: dict[int, int]) -> None:
        """Read what was said until that call has told what it has forked, or there is nobody left to tell it."""
        while call not in pids and (message := posix.read(self.said, 16)):
            what, value = _numbers(message)
            if what < 0:  # of this call, or of the next one, which may be faster
                pids[~what] = value
            else:
                # There is no child, or it has failed before whoever forked it has told of it.
                self._early.append(message)

    def arrived(self) -> None:
        """Wait until it has executed its last call. Raises JailError with what failed, having reaped it.

        Once that is known, there is nothing more to wait for.
        """
        message = self._last_word()
        if message:
            posix.waitpid(self.pid, 0)
            raise _failure(self._program, message)

    def finished(self) -> None:
        """Wait until a program that does not fork has come to its end. Raises JailError with what failed."""
        self.arrived()
        _, status = posix.waitpid(self.pid, 0)
        if status:
            raise _failure(self._program, b"")

    def complaint(self) -> str:
        """Wait until it has executed its last call, or one has failed; what failed, or "". To be asked once."""
        message = self._last_word()
        return str(_failure(self._program, message)) if message else ""

    def _last_word(self) -> bytes:
        if self.said < 0:
            return b""
        while message := self._early.pop(0) if self._early else posix.read(self.said, 16):
            what, _ = _numbers(message)
            if what not in self._program.noted:
                break
            self.noted.append(what)
        posix.close(self.said)
        self.said = -1
        return message


def lay_out(program: Program, report: int) -> int:
    """A descriptor of a file with the program, which tells by the descriptor ``report`` what has failed.

    Raises OSError.
    """
    file = posix.memfd_create("program", posix.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    content = program._laid_out(report)
    if posix.write(file, content) < len(content):
        posix.close(file)
        raise OSError(ENOSPC, posix.strerror(ENOSPC))
    return file


def start(program: Program, code: str) -> Running:
    """Begin to carry out a program; ``code`` is the path of jailinit (``core.jailinit``). Raises OSError."""
    said, say = posix.pipe2(posix.O_CLOEXEC)
    file = -1
    try:
        file = lay_out(program, say)
        # A descriptor that is made itself stays open over exec, in the child alone (glibc 2.29).
        inherited = [(posix.POSIX_SPAWN_DUP2, fd, fd) for fd in {file, say, *program.fds}]
        helper = posix.posix_spawn(code, ["jailinit", RUN, str(file)], {}, file_actions=inherited, setsigmask=())
    finally:
        for fd in (file, say):
            if fd >= 0:
                posix.close(fd)
    return Running(helper, said, program)


def _numbers(message: bytes) -> tuple[int, int]:
    if len(message) != 16:
        return 0, 0
    what, value = (int.from_bytes(message[at : at + 8], sys.byteorder, signed=True) for at in (0, 8))
    return what, value


def _failure(program: Program, message: bytes) -> JailError:
    what, value = _numbers(message)
    if not value:
        return JailError("jailinit died", kind=UNREACHED)
    label = program.labels[what]
    if isinstance(label, tuple):
        first, labels, names = label
        row, number = divmod(what - first, len(labels))
        name = names[row]
        label = f"{labels[number]} {name.decode('utf-8', 'replace') if isinstance(name, bytes) else name}"
    sentence = program.instead.get((what, value)) or f"{label}: {posix.strerror(value)}"
    return JailError(sentence, errno=value, kind=UNREACHED if what < program.arrival else "")
