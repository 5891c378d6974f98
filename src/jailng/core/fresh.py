"""The files of ``core.procfiles`` in a running jail, brought up to date from outside by whatever touches the jail.

They are reached through the jail's own /proc. Root inside can neither open the directory nor put another in its place
that belongs to nobody it knows; and what is written there decides nothing, on the host or elsewhere.
"""

from __future__ import annotations

import fcntl
import posix

from jailng.core import machine, procfiles, registry
from jailng.core.process import NOBODYS
from jailng.linux import cgroup, controller, mount, mountfd, ns, processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.machine import Size, State
    from jailng.core.registry import Record

_OFTEN = 5  # hundredths of a second: who has just used memory may look at once, and who enters all the time pays less
_MINUTES = (1, 5, 15)
_PER_MINUTE = 6000
_DIRECTORY = mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_LARGEST = 1 << 16
# /proc/meminfo's names for those of memory.stat, of cgroup v2 and of v1.
_NAMES = {
    b"file": b"Cached", b"total_cache": b"Cached",
    b"anon": b"AnonPages", b"total_rss": b"AnonPages",
    b"shmem": b"Shmem", b"total_shmem": b"Shmem",
    b"file_mapped": b"Mapped", b"total_mapped_file": b"Mapped",
    b"file_dirty": b"Dirty", b"total_dirty": b"Dirty",
    b"file_writeback": b"Writeback", b"total_writeback": b"Writeback",
    b"swapcached": b"SwapCached", b"total_swap": b"Swap",
    b"anon_thp": b"AnonHugePages", b"total_rss_huge": b"AnonHugePages",
    b"active_anon": b"Active(anon)", b"total_active_anon": b"Active(anon)",
    b"inactive_anon": b"Inactive(anon)", b"total_inactive_anon": b"Inactive(anon)",
    b"active_file": b"Active(file)", b"total_active_file": b"Active(file)",
    b"inactive_file": b"Inactive(file)", b"total_inactive_file": b"Inactive(file)",
    b"unevictable": b"Unevictable", b"total_unevictable": b"Unevictable",
    b"slab_reclaimable": b"SReclaimable", b"slab_unreclaimable": b"SUnreclaim",
    b"kernel_stack": b"KernelStack", b"pagetables": b"PageTables",
}  # fmt: skip


def freshen(record: Record) -> None:
    """Have the files tell what is, unless they have just done so. Nothing is raised."""
    try:
        _renew(record, None)
    except (OSError, ValueError):  # it has no /proc, or has just ended
        pass


def resize(record: Record) -> None:
    """What the jail, or one above it, may use has changed: have its files tell of that, and those of jails in it.

    Nothing is raised.
    """
    for one in (record, *registry.below(record.name)):
        try:
            _renew(one, machine.of(one))
        except (OSError, ValueError):
            pass


def _open(record: Record) -> int:
    """The directory that is open to the host alone. Raises OSError."""
    root = ns.open_root(record.init_pid)
    try:
        place = mountfd.openat2(root, b"proc/" + procfiles.PLACE, _DIRECTORY, mount.BENEATH)
    finally:
        posix.close(root)
    if posix.fstat(place).st_uid != NOBODYS or not processid.is_alive(record.init):
        posix.close(place)
        raise OSError
    return place


def _renew(record: Record, size: Size | None) -> None:
    place = _open(record)
    file = -1
    try:
        file = posix.open(procfiles.STATE, posix.O_RDWR | posix.O_CLOEXEC, dir_fd=place)
        fcntl.flock(file, fcntl.LOCK_EX | (0 if size is not None else fcntl.LOCK_NB))  # one at a time is enough
        state = machine.parse(posix.pread(file, _LARGEST, 0))
        passed = procfiles.now() - state.seen
        if size is None and passed < _OFTEN:
            return
        if size is not None:
            if list(size.processors) != list(state.size.processors):
                from jailng.core import cpuinfo

                _write(place, b"cpuinfo", cpuinfo.text(size.processors))
            state.size = size
        _make(place, record, state, passed)
        _put(file, state.text)
    finally:
        if file >= 0:
            posix.close(file)
        posix.close(place)


def _make(place: int, record: Record, state: State, passed: int) -> None:
    """Write the three files, and bring the state up to the present."""
    times = _numbers(cgroup.read(f"{record.cgroup}/cpu.stat"))  # of v2, whatever controllers there are
    used = times[b"usage_usec"] // 10**4
    busy = max(used - state.used, 0) / passed if passed > 0 else 0.0
    state.seen += passed
    state.used = used
    if passed > 0:
        state.loads = [
            load + (busy - load) * (1 - 2.718281828 ** (-passed / (_PER_MINUTE * minutes)))
            for load, minutes in zip(state.loads, _MINUTES, strict=True)
        ]
    total = _tasks(record)
    running = min(max(round(busy), 1), total)
    user = times[b"user_usec"] // 10**4
    spent = user, max(used - user, 0), state.seen - state.began
    _write(place, b"stat", procfiles.stat(state.size.processors, state.since, spent, running, total))
    _write(place, b"loadavg", procfiles.loadavg(state.loads, running, total))
    _write(place, b"meminfo", procfiles.meminfo(state.size.memory, state.size.swap, _memory(record)))


def _tasks(record: Record) -> int:
    """How many processes and threads there are; where they are not counted, the processes."""
    content = controller.read("pids", record.cgroup, "pids.current", "pids.current")
    return int(content) if content else len(cgroup.members(f"{record.cgroup}/members")) + 1


def _memory(record: Record) -> dict[bytes, int]:
    """What is in use, in kB, by meminfo's names; nothing, if this host does not count it."""
    current = controller.read("memory", record.cgroup, "memory.current", "memory.usage_in_bytes")
    if not current:
        return {}
    found = {b"Used": int(current) >> 10}
    for name, value in _numbers(controller.read("memory", record.cgroup, "memory.stat", "memory.stat")).items():
        if name in _NAMES:
            found[_NAMES[name]] = value >> 10
    if b"Swap" not in found:  # which v1 has among the others
        found[b"Swap"] = int(controller.read("memory", record.cgroup, "memory.swap.current", "none") or 0) >> 10
    return found


def _numbers(content: bytes) -> dict[bytes, int]:
    """The lines of a flat keyed file of a cgroup."""
    return {name: int(value) for name, _, value in [line.partition(b" ") for line in content.split(b"\n")] if value}


def _write(place: int, name: bytes, text: bytes) -> None:
    file = posix.open(name, posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=place)
    try:
        _put(file, text)
    finally:
        posix.close(file)


def _put(file: int, text: bytes) -> None:
    """In one write; whoever reads meanwhile may have the old end of a text that has become shorter."""
    posix.pwrite(file, text, 0)
    if posix.fstat(file).st_size > len(text):
        posix.ftruncate(file, len(text))
