"""What the kernel says of a jail for its log: which programs it executes, its connections, and who has logged in.

The first half is for the supervisor of a post, ``hold``: rings of the kernel's, and the programs that write into them,
which live as long as the supervisor. The second is the worker's: a ``Witness`` reads them.

The programs about processes (``execprogram``, ``execlineage``) are one set for the whole host: the first post loads
them, others take them over by the numbers that it has left in /run/jailng/witness, for as long as any post holds them.
Those about connections are on the jail's cgroup.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from jailng.core import index, registry
from jailng.linux import bpf, bpfmap, cgroup, ringbuffer, tracing
from jailng.linux.bpfmap import Map
from jailng.observe import connectionprogram, execlineage, execprogram, execrecord
from jailng.observe.connections import Connections
from jailng.observe.executions import Execution
from jailng.observe.logins import Logins
from jailng.observe.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jailng.core.registry import Record
    from jailng.observe.chain import Fields

KINDS = ("exec", "connections", "logins")

_STATE = f"{index.DIRECTORY}/witness"
_FORM = "2"  # of the programs, and of what they write
_JAILS = 8192  # at once, jails of the host that are logged
_PROCESSES = 16384  # of a jail
_FLOWS = 2048
_EXECUTIONS_RING, _CONNECTIONS_RING = 1 << 20, 1 << 19  # bytes
_MOST = 2000  # at once
_PIDS = 4096  # that are remembered
_NUMBER = struct.Struct("=Q")
_TOLD = struct.Struct("=QQQ")
_WORD = struct.Struct("=I")
_POINTS = (
    (b"sched_process_fork", execlineage.fork),
    (b"sched_process_exit", execlineage.leave),
    (b"sched_process_exec", execprogram.execute),
)


class _Opened(ExitStack):
    """Descriptors that are closed unless all goes well."""

    def keep(self, fd: int) -> int:
        """One more."""
        self.callback(os.close, fd)
        return fd

    def map(self, made: Map) -> Map:
        """That of a map."""
        self.keep(made.fd)
        return made


@contextmanager
def _locked() -> Iterator[int]:
    """What posts share is one process's at a time."""
    fd = os.open(_STATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


class Held:
    """What a post's supervisor holds: as long as somebody does, what happens in the jail is told of."""

    def __init__(
        self, maps: execlineage.Maps, links: list[int], executions: Map, flows: connectionprogram.Maps
    ) -> None:
        self.maps = maps
        self.links = links
        self.executions = executions
        self.connections = flows
        self.told = mmap.mmap(-1, _TOLD.size)  # what was counted and is on record: shared with all workers


def hold(record: Record) -> Held:
    """Have the kernel tell of a jail from now on. Raises OSError, of which the text says what this kernel refuses."""
    with _Opened() as opened:
        with _locked() as state:
            maps, links = _taken_over(state, opened) or _load(state, opened)
            held = Held(maps, links, *_own(record, maps, opened))
        made = connectionprogram.programs(held.connections)
        directory = cgroup.open_directory(record.cgroup)
        try:
            for kind, attach_type, code in made:
                program = tracing.load(kind, code, attach_type)
                try:
                    held.links.append(opened.keep(bpf.link(directory, program, attach_type)))
                finally:
                    os.close(program)
        finally:
            os.close(directory)
        opened.pop_all()
    return held


def _taken_over(state: int, opened: _Opened) -> tuple[execlineage.Maps, list[int]] | None:
    """The programs about processes, and what they share, if anybody has them."""
    try:
        form, boot, *numbers = os.pread(state, 4096, 0).decode("ascii").split()
        if form != _FORM or boot != registry.boot_id():
            return None
        jails, rings, lineages, scratch, *links = [int(number) for number in numbers]
    except ValueError:
        return None
    sizes = (jails, 8, execlineage.COUNTERS.size), (rings, 8, 4), (lineages, 8, 4), (scratch, 4, execrecord.SCRATCH)
    found = tracing.taken_over([*sizes], links)
    if found is None:
        return None
    return execlineage.Maps(*map(opened.map, found[0])), [*map(opened.keep, found[1])]


def _load(state: int, opened: _Opened) -> tuple[execlineage.Maps, list[int]]:
    ring, table = ringbuffer.create(_EXECUTIONS_RING), _lineages()
    try:
        of = bpfmap.HASH_OF_MAPS
        maps = execlineage.Maps(
            opened.map(bpfmap.create(bpfmap.HASH, 8, execlineage.COUNTERS.size, _JAILS, 0, bpfmap.NO_PREALLOC)),
            opened.map(bpfmap.create(of, 8, 4, _JAILS, ring.fd, bpfmap.NO_PREALLOC)),
            opened.map(bpfmap.create(of, 8, 4, _JAILS, table.fd, bpfmap.NO_PREALLOC)),
            opened.map(bpfmap.create(bpfmap.PERCPU_ARRAY, 4, execrecord.SCRATCH, 1)),
        )
    finally:
        ring.close()
        table.close()
    at = Offsets()
    links = []
    for point, made in _POINTS:
        program = tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, made(at, maps))
        try:
            links.append(opened.keep(tracing.attach(program, point)))
        finally:
            os.close(program)
    at.keep()
    numbers = [table.number() for table in (maps.jails, maps.rings, maps.lineages, maps.scratch)]
    numbers += [bpf.number(link) for link in links]
    os.ftruncate(state, 0)
    os.pwrite(state, " ".join([_FORM, registry.boot_id(), *map(str, numbers), "\n"]).encode("ascii"), 0)
    return maps, links


def _lineages() -> Map:
    return bpfmap.create(bpfmap.HASH, 4, execlineage.LINEAGE_SIZE, _PROCESSES, 0, bpfmap.NO_PREALLOC)


def _cgroups(record: Record) -> list[bytes]:
    """The numbers of the cgroups that the jail's own processes are in; commands of the host's are beside these."""
    found = []
    for name in ("members", "init"):
        with suppress(FileNotFoundError):
            found.append(_NUMBER.pack(cgroup.number(f"{record.cgroup}/{name}")))
    return found


def _own(record: Record, maps: execlineage.Maps, opened: _Opened) -> tuple[Map, connectionprogram.Maps]:
    """The jail's rings: of a post that was killed, if somebody has kept them. Those of jails of the past go."""
    cgroups = _cgroups(record)
    current = {key for one in registry.records() for key in _cgroups(one)}
    for table in (maps.jails, maps.rings, maps.lineages):
        for key in set(table.keys()) - current:
            table.drop(key)
    before = maps.rings.get(cgroups[0])
    if before is not None:
        ring = opened.map(bpfmap.numbered(_WORD.unpack(before)[0], 0, 0))
    else:
        ring, lineages = opened.map(ringbuffer.create(_EXECUTIONS_RING)), _lineages()
        try:
            for key in cgroups:
                maps.rings.put(key, _WORD.pack(ring.fd))
                maps.lineages.put(key, _WORD.pack(lineages.fd))
                maps.jails.put(key, bytes(execlineage.COUNTERS.size))
        finally:
            lineages.close()
    flows = connectionprogram.Maps(
        opened.map(ringbuffer.create(_CONNECTIONS_RING)),
        opened.map(bpfmap.create(bpfmap.ARRAY, 4, 8, 1)),
        opened.map(bpfmap.create(bpfmap.LRU_HASH, connectionprogram.KEY_SIZE, 8, _FLOWS)),
    )
    return ring, flows


class Witness:
    """What the kernel tells of one jail, as entries of its log. ``kinds`` are those of KINDS that are wanted."""

    def __init__(self, record: Record, held: Held, kinds: Collection[str]) -> None:
        self.kinds = kinds
        self._held = held
        self._cgroups = _cgroups(record)
        self._executions = ringbuffer.Ring(held.executions.fd, _EXECUTIONS_RING)
        self._connections = ringbuffer.Ring(held.connections.ring.fd, _CONNECTIONS_RING)
        self._poll = select.epoll()
        for fd in (held.executions.fd, held.connections.ring.fd):
            self._poll.register(fd, select.EPOLLIN)
        self._counted = self._counts()
        self._flows = Connections(record.owner)
        self._base = record.owner
        self._logins = Logins(self._flows)
        self._pids: dict[int, int] = {}

    def inside(self, pid: int) -> int | None:
        """The pid that a process has in the jail, or had, if its last exec is among the last ones drained."""
        return self._pids.get(pid)

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._poll.fileno()

    @property
    def waits(self) -> bool:
        """Whether there is something to drain."""
        return bool(self._executions.waiting or self._connections.waiting)

    def drain(self) -> Iterator[tuple[str, Fields]]:
        """What has happened, in the order of each of the two rings; accepted connections before who comes by them.

        Of each ring it is ``_MOST`` records at once.
        """
        ahead = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        ran = list(self._executions.look(_MOST))
        unclear = 0
        for taken, contents in ((self._connection, self._connections.look(_MOST)), (self._execution, ran)):
            for content in contents:
                try:
                    found = list(taken(ahead, content))
                except Exception:  # of a record that nobody can read the next worker would die, too
                    unclear += 1
                else:
                    yield from found
        if unclear:
            yield "dropped", {"of": "record", "count": unclear, "why": "not understood"}
        yield from self._dropped()

    def _connection(self, ahead: int, content: bytes) -> Iterator[tuple[str, Fields]]:
        yield from self._timed(ahead, self._flows.take(content), "connections")

    def _execution(self, ahead: int, content: bytes) -> Iterator[tuple[str, Fields]]:
        if content[execrecord.KIND] == execrecord.EXIT:
            yield from self._timed(ahead, self._logins.end(content), "logins")
            return
        execution = Execution(content, self._base)
        self._pids.pop(execution.host_pid, None)
        self._pids[execution.host_pid] = execution.pid
        if len(self._pids) > _PIDS:
            del self._pids[next(iter(self._pids))]
        login = self._logins.take(execution)
        if login is not None:
            yield from self._timed(ahead, login, "logins")
        yield from self._timed(ahead, ("exec", execution.time, self._logins.named(execution)), "exec")

    def _timed(self, ahead: int, happened: tuple[str, int, Fields] | None, kind: str) -> Iterator[tuple[str, Fields]]:
        if happened is not None and kind in self.kinds:
            name, when, fields = happened
            yield name, {"time": when + ahead, **fields}

    def _counts(self) -> list[int]:
        """Of what found no room: executions and ends of sessions, lineages, connections."""
        found = [0, 0, 0]
        for key in self._cgroups:
            counters = self._held.maps.jails.get(key)
            if counters is not None:
                records, lineages = execlineage.COUNTERS.unpack(counters)
                found[0] += records
                found[1] += lineages
        lost = self._held.connections.lost.get(bytes(4))
        found[2] = 0 if lost is None else int(_NUMBER.unpack(lost)[0])
        return found

    def _dropped(self) -> Iterator[tuple[str, Fields]]:
        counted = self._counts()
        told = _TOLD.unpack_from(self._held.told)
        for of, before, now in zip(("exec", "lineage", "connection"), told, counted, strict=True):
            if now > before:
                yield "dropped", {"of": of, "count": now - before}
        self._counted = counted

    def settle(self) -> None:
        """All that ``drain`` has yielded is on record."""
        self._executions.settle()
        self._connections.settle()
        _TOLD.pack_into(self._held.told, 0, *self._counted)

    def close(self) -> None:
        """No more is wanted."""
        self._poll.close()
        self._executions.close()
        self._connections.close()
        with _locked():
            for key in self._cgroups:
                for table in (self._held.maps.jails, self._held.maps.rings, self._held.maps.lineages):
                    table.drop(key)
