"""What the kernel says of a jail for its log: which programs it executes, its connections, and who has logged in.

The first half is for the supervisor of a post, ``hold``: rings of the kernel's, and the programs that write into them,
which live as long as the supervisor. The second is the worker's: a ``Witness`` reads them.

The programs about processes (``execprogram``) are one set for the whole host: the first post loads them, others take
them over by the numbers that it has left in /run/jailng/witness, for as long as any post holds them. Those about
connections are on the jail's cgroup.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jailng.core import index, registry
from jailng.linux import bpf, bpfmap, cgroup, ringbuffer, tracing
from jailng.linux.bpfmap import Map
from jailng.observe import connectionprogram, execprogram
from jailng.observe.connections import Connections
from jailng.observe.execplaces import places
from jailng.observe.executions import Execution
from jailng.observe.logins import Logins

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jailng.core.registry import Record
    from jailng.observe.chain import Fields

KINDS = ("exec", "connections", "logins")

_STATE = f"{index.DIRECTORY}/witness"
_FORM = "1"  # of the programs, and of what they write
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
    (b"sched_process_fork", execprogram.fork),
    (b"sched_process_exit", execprogram.leave),
    (b"sched_process_exec", execprogram.execute),
)


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
        self, maps: execprogram.Maps, links: list[int], executions: Map, flows: connectionprogram.Maps
    ) -> None:
        self.maps = maps
        self.links = links
        self.executions = executions
        self.connections = flows
        self.told = mmap.mmap(-1, _TOLD.size)  # what was counted and is on record: shared with all workers


def hold(record: Record) -> Held:
    """Have the kernel tell of a jail from now on. Raises OSError, of which the text says what this kernel refuses."""
    with _locked() as state:
        maps, links = _shared(state)
        held = Held(maps, links, *_own(record, maps))
    made = connectionprogram.programs(held.connections)
    directory = cgroup.open_directory(record.cgroup)
    try:
        for kind, attach_type, code in made:
            program = tracing.load(kind, code, attach_type)
            try:
                held.links.append(bpf.link(directory, program, attach_type))
            finally:
                os.close(program)
    finally:
        os.close(directory)
    return held


def _shared(state: int) -> tuple[execprogram.Maps, list[int]]:
    """The programs about processes, and what they share."""
    try:
        form, boot, *numbers = os.pread(state, 4096, 0).decode("ascii").partition("\n")[0].split()
        if form != _FORM or boot != registry.boot_id():
            raise FileNotFoundError
        jails, rings, lineages, scratch, *links = [int(number) for number in numbers]
        maps = execprogram.Maps(
            bpfmap.numbered(jails, 8, execprogram.COUNTERS.size),
            bpfmap.numbered(rings, 8, 4),
            bpfmap.numbered(lineages, 8, 4),
            bpfmap.numbered(scratch, 4, execprogram.SCRATCH),
        )
        return maps, [tracing.numbered(link) for link in links]
    except (FileNotFoundError, ValueError):
        return _load(state)


def _load(state: int) -> tuple[execprogram.Maps, list[int]]:
    ring = ringbuffer.create(_EXECUTIONS_RING)
    table = _lineages()
    sparse = bpfmap.NO_PREALLOC
    maps = execprogram.Maps(
        bpfmap.create(bpfmap.HASH, 8, execprogram.COUNTERS.size, _JAILS, 0, sparse),
        bpfmap.create(bpfmap.HASH_OF_MAPS, 8, 4, _JAILS, ring.fd, sparse),
        bpfmap.create(bpfmap.HASH_OF_MAPS, 8, 4, _JAILS, table.fd, sparse),
        bpfmap.create(bpfmap.PERCPU_ARRAY, 4, execprogram.SCRATCH, 1),
    )
    ring.close()
    table.close()
    at = places()
    links = []
    for point, made in _POINTS:
        program = tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, made(at, maps))
        links.append(tracing.attach(program, point))
        os.close(program)
    numbers = [table.number() for table in (maps.jails, maps.rings, maps.lineages, maps.scratch)]
    numbers += [bpf.number(link) for link in links]
    os.ftruncate(state, 0)
    head = " ".join([_FORM, registry.boot_id(), *map(str, numbers)])
    os.pwrite(state, f"{head}\n".encode("ascii"), 0)
    return maps, links


def _lineages() -> Map:
    return bpfmap.create(bpfmap.HASH, 4, execprogram.LINEAGE_SIZE, _PROCESSES, 0, bpfmap.NO_PREALLOC)


def _cgroups(record: Record) -> list[bytes]:
    """The numbers of the cgroups that the jail's own processes are in; commands of the host's are beside these."""
    found = []
    for name in ("members", "init"):
        try:
            directory = cgroup.open_directory(f"{record.cgroup}/{name}")
        except FileNotFoundError:
            continue
        found.append(_NUMBER.pack(os.fstat(directory).st_ino))
        os.close(directory)
    return found


def _own(record: Record, maps: execprogram.Maps) -> tuple[Map, connectionprogram.Maps]:
    """The jail's rings: of a post that was killed, if somebody has kept them. Those of jails of the past go."""
    cgroups = _cgroups(record)
    current = {key for one in registry.records() for key in _cgroups(one)}
    for table in (maps.jails, maps.rings, maps.lineages):
        for key in set(table.keys()) - current:
            table.drop(key)
    before = maps.rings.get(cgroups[0])
    if before is not None:
        ring = bpfmap.numbered(_WORD.unpack(before)[0], 0, 0)
    else:
        ring, lineages = ringbuffer.create(_EXECUTIONS_RING), _lineages()
        for key in cgroups:
            maps.rings.put(key, _WORD.pack(ring.fd))
            maps.lineages.put(key, _WORD.pack(lineages.fd))
            maps.jails.put(key, bytes(execprogram.COUNTERS.size))
        lineages.close()
    flows = connectionprogram.Maps(
        ringbuffer.create(_CONNECTIONS_RING),
        bpfmap.create(bpfmap.ARRAY, 4, 8, 1),
        bpfmap.create(bpfmap.LRU_HASH, connectionprogram.KEY_SIZE, 8, _FLOWS),
    )
    return ring, flows


class Witness:
    """A source of ``observe.happenings`` for one jail. ``kinds`` are those of KINDS that are wanted."""

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

    def drain(self) -> Iterator[tuple[str, Fields]]:
        """What has happened, in the order of each of the two rings; accepted connections before who comes by them."""
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
        if content[execprogram.KIND] == execprogram.EXIT:
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
                records, lineages, _ = execprogram.COUNTERS.unpack(counters)
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
