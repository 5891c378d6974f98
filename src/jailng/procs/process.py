"""Processes as /proc shows them: proc(5). A process may end at any moment, and may have written what is read of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from jailng.linux import content

PF_KTHREAD = 0x00200000  # include/linux/sched.h
_TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
_COMM = 15  # characters that the kernel keeps of a program's name (TASK_COMM_LEN)
_MOST = 1 << 14  # bytes of a file: a process may have written as much as it likes over its command line


@dataclass(frozen=True)
class Process:
    """One process. ``uids`` and ``gids`` are real, effective, saved and file system ids, as the host numbers them.

    ``started`` is in seconds since the epoch, ``birth`` in clock ticks since the boot; with the pid the latter tells a
    process from every other. ``user`` and ``system`` are seconds of processor time; ``status`` are the lines of
    /proc/PID/status by their names. Text is as the process has it: print it by ``visible``.
    """

    pid: int
    comm: str
    state: str
    parent: int
    group: int
    session: int
    terminal: int
    terminal_group: int
    flags: int
    minor_faults: int
    major_faults: int
    user: float
    system: float
    priority: int
    nice: int
    threads: int
    birth: int
    started: float
    virtual: int
    resident: int
    processor: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    status: dict[str, str]
    cgroup: str
    line: bytes  # taken apart when it is asked for: of one byte a word, words take thirty times the memory

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its command line's words."""
        # What a process has written over its arguments (setproctitle) may end in many zeros.
        words = self.line.rstrip(b"\0").decode("utf-8", "surrogateescape").split("\0")
        return () if words == [""] else tuple(words)

    @property
    def uid(self) -> int:
        """The effective uid, the one that counts."""
        return self.uids[1]

    @property
    def kernel(self) -> bool:
        """Whether it is a thread of the kernel's."""
        return bool(self.flags & PF_KTHREAD)

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return max(time.time() - self.started, 0.0)

    @property
    def percent_cpu(self) -> float:
        """Its share of one processor, over all its life: Linux keeps no decaying mean as FreeBSD does."""
        return 100.0 * (self.user + self.system) / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def command(self) -> str:
        """Its command line, with its program's name behind it where that differs: fmt_argv of FreeBSD's bin/ps."""
        if self.state == "Z":
            return "<defunct>"
        words = self.arguments
        if not words:
            return f"[{self.comm}]"
        line = " ".join(words)
        # Of a script Linux keeps the script's name, and FreeBSD the interpreter's: that one is no surprise to read.
        called = self.comm in line and any(word.rpartition("/")[2][:_COMM] == self.comm for word in words)
        return line if called else f"{line} ({self.comm})"


def pids() -> list[int]:
    """The pid of every process there is, in ascending order."""
    return sorted([int(name) for name in os.listdir("/proc") if name.isascii() and name.isdigit()])


def processes() -> Iterator[Process]:
    """Every process that lives long enough to be looked at, by ascending pid."""
    for pid in pids():
        found = read(pid)
        if found is not None:
            yield found


def descriptors(pid: int, most: int | None = None) -> list[str]:
    """The descriptors that a process has open, or so many of them; none of one that has ended, or is another user's.

    A process in a jail may have as many as it likes, and others that share them: who looks at them needs a limit.
    """
    try:
        with os.scandir(f"/proc/{pid}/fd") as found:
            return [entry.name for entry in islice(found, most)]
    except OSError:
        return []


def read(pid: int) -> Process | None:
    """One process; None if there is none, or it ended meanwhile, or it is hidden from the caller."""
    place = f"/proc/{pid}"
    try:
        stat = _file(f"{place}/stat")
        status = _status(content.read(f"{place}/status"))
        cgroup = _unified(_file(f"{place}/cgroup"))
        return parse(pid, stat, status, cgroup, _file(f"{place}/cmdline"))
    except (OSError, ValueError, KeyError, IndexError):  # what ends while it is read may be cut short
        return None


def parse(pid: int, stat: bytes, status: dict[str, str], cgroup: str, line: bytes) -> Process:
    """A process from the text of its files. Raises ValueError, IndexError or KeyError where that is cut short."""
    # The name stands in parentheses and may hold some itself, and spaces and newlines: the last one ends it.
    opened, closed = stat.index(b"("), stat.rindex(b")")
    fields = stat[closed + 2 :].split()
    numbers = [int(field) for field in fields[1:]]
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Process(
        pid=pid,
        comm=stat[opened + 1 : closed].decode("utf-8", "surrogateescape"),
        state=fields[0].decode(),
        parent=numbers[0],
        group=numbers[1],
        session=numbers[2],
        terminal=numbers[3],
        terminal_group=numbers[4],
        flags=numbers[5],
        minor_faults=numbers[6],
        major_faults=numbers[8],
        user=numbers[10] / _TICKS,
        system=numbers[11] / _TICKS,
        priority=numbers[14],
        nice=numbers[15],
        threads=numbers[16],
        birth=numbers[18],
        started=boot + numbers[18] / _TICKS,
        virtual=numbers[19],
        resident=numbers[20] * PAGE,
        processor=numbers[35],
        uids=tuple([int(word) for word in status["Uid"].split()]),
        gids=tuple([int(word) for word in status["Gid"].split()]),
        status=status,
        cgroup=cgroup,
        line=line,
    )


def _status(text: bytes) -> dict[str, str]:
    # Groups, of which a process may have 65,536, are of no use here, and of many processes a lot of memory.
    head, _, rest = text.partition(b"\nGroups:")
    text = head + b"\n" + rest.partition(b"\n")[2]
    pairs = [line.partition(":") for line in text.decode("utf-8", "surrogateescape").split("\n")]
    found: dict[str, str] = {}
    for name, _, value in pairs:
        found.setdefault(name, value.strip())
    return found


def _unified(text: bytes) -> str:
    """The path in the cgroup2 hierarchy: cgroups(7)."""
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("0::"):
            return line[3:]
    return ""


def _file(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        left = _MOST
        while left > 0 and (part := os.read(fd, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def terminal_name(number: int) -> str:
    """A controlling terminal by its device number: its name below /dev, as Linux has it, or "" for none.

    A jail has pseudo-terminals of its own, so two jails may each have a ``pts/0``.
    """
    if number == 0:
        return ""
    major, minor = os.major(number), os.minor(number)
    if major == 136:
        return f"pts/{minor}"
    try:
        lines = _file(f"/sys/dev/char/{major}:{minor}/uevent").decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("DEVNAME="):
            return line[8:]
    if (major, minor) == (5, 1):
        return "console"
    return f"{major}/{minor}"
