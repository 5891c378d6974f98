"""How much a jail uses of each resource of rctl(8), by the kernel's own counters; the jails in it count as well.

From its cgroup, from /proc of its members, and from what it has of its own (core/ownlimit.py). Loaded for whoever asks.
"""

from __future__ import annotations

import posix
import time

from jailng.core import attach, halt, registry
from jailng.errors import JailError
from jailng.linux import cgroup, content, controller, mount, mountfd, ns
from jailng.linux.visit import InNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from jailng.core.registry import Record

_WINDOW = 0.05  # seconds over which a rate is measured, where nobody has asked before
_SECTOR = 512
_TICKS = 100  # of /proc/PID/stat in a second: USER_HZ
_STATUS = {
    "VmRSS": "memoryuse", "VmSwap": "swapuse", "VmSize": "vmemoryuse", "VmData": "datasize", "VmStk": "stacksize",
    "VmLck": "memorylocked",
}  # fmt: skip
_RATES = ("pcpu", "readbps", "writebps", "readiops", "writeiops")
_IO = {"read_bytes": "readbps", "write_bytes": "writebps", "syscr": "readiops", "syscw": "writeiops"}
# The columns of /proc/sysvipc: what is counted, which column adds up, and to what.
_SYSV = (("shm", "nshm", 3, "shmsize"), ("sem", "", 3, "nsem"), ("msg", "nmsgq", 3, "msgqsize"))
_QUEUED = 4
_COUNTS = (
    "maxproc nthr openfiles coredumpsize pseudoterminals nshm shmsize nsem nsemop nmsgq msgqsize msgqqueued".split()
)
_OF_PROCESSES = (*_STATUS.values(), "nthr", "openfiles")
# They are read from the jail's own file systems: its root may have mounted one there that keeps who asks waiting.
OWN = ("pseudoterminals", "nshm", "shmsize", "nsem", "nmsgq", "msgqsize", "msgqqueued")

_samples: dict[str, tuple[float, dict[str, int]]] = {}  # by the identity of PID 1: what had been used then


def of(record: Record, names: Collection[str] = ()) -> dict[str, int]:
    """All, in bytes, seconds, percent of one processor, and counts; rates since this was asked last.

    ``disk`` is there where the jail has a quota. ``openfiles`` counts descriptors, ``wallclock`` is since the start.
    With ``names`` only these are right, and what is dear to find out for others is not asked. Raises JailError: the
    jail has ended.
    """

    def wanted(*group: str) -> bool:
        return not names or any(name in names for name in group)

    used = dict.fromkeys([*_STATUS.values(), *_COUNTS], 0)
    try:
        held = memory(record)
        if wanted(*[name for name in _OF_PROCESSES if name not in held]):
            _add_processes(record, used)
        elif wanted("maxproc"):
            used["maxproc"] = len(halt.members(record))
        if wanted("maxproc", "nthr"):
            dead = _dead(record)
            used["maxproc"] += dead
            used["nthr"] += dead
        used.update(held)
        if wanted(*OWN):
            _add_own(record, used)
            for one in _inside(record):
                try:
                    _add_own(one, used)
                except (FileNotFoundError, ProcessLookupError, JailError):
                    pass  # it has just ended
        if wanted("disk") and any(line.startswith(("quota ", "image ")) for line in record.undo):
            from jailng.core import quota

            used["disk"] = quota.used(record)[0]
        used["cputime"] = counters(record, False)["pcpu"] // 1_000_000
        used["wallclock"] = age(record)
        if wanted(*_RATES):
            used.update(_rates(record, wanted(*_IO.values())))
    except FileNotFoundError:
        raise JailError(f'jail "{record.name}" not found') from None
    except OSError as error:
        raise JailError(f"{error.strerror}") from None
    return used


def _inside(record: Record) -> list[Record]:
    return [one for one in registry.below(record.name) if one.alive()]


def _add_processes(record: Record, used: dict[str, int]) -> None:
    for pid in halt.members(record):
        try:
            lines = content.text(f"/proc/{pid}/status").split("\n")
            files = posix.stat(f"/proc/{pid}/fd").st_size  # Linux 6.2
        except OSError:
            continue  # it has ended
        used["maxproc"] += 1
        used["openfiles"] += files
        for line in lines:
            key, _, value = line.partition(":")
            if key == "Threads":
                used["nthr"] += int(value)
            elif key in _STATUS:
                used[_STATUS[key]] += int(value.split()[0]) * 1024


def _dead(record: Record) -> int:
    """How many have ended, and nobody waits for them: they are processes until then, and the kernel counts them."""
    place = controller.existing("pids", record.cgroup) or f"{record.cgroup}/members"
    if not cgroup.exists(f"{place}/pids.current"):
        return 0
    living, places = 0, [place]
    while places:
        one = places.pop()
        try:
            living += len(cgroup.threads(one))
        except FileNotFoundError:
            continue  # a jail in it has just ended
        places += [f"{one}/{name}" for name in cgroup.directories_in(one)]
    return max(int(cgroup.read(f"{place}/pids.current")) - living, 0)  # after that: never more than there are


def memory(record: Record) -> dict[str, int]:
    """What counts against the limits, where there is a controller: files in the cache, too."""
    used: dict[str, int] = {}
    top = controller.usual("memory")
    if top:
        place = controller.below("memory", top, record.cgroup)
        if cgroup.exists(f"{place}/memory.usage_in_bytes"):
            used["memoryuse"] = int(cgroup.read(f"{place}/memory.usage_in_bytes"))
        if cgroup.exists(f"{place}/memory.memsw.usage_in_bytes"):
            both = int(cgroup.read(f"{place}/memory.memsw.usage_in_bytes"))
            used["swapuse"] = max(both - used["memoryuse"], 0)
        if used and cgroup.exists(f"{place}/{controller.BUFFERS}.usage_in_bytes"):
            used["memoryuse"] += int(cgroup.read(f"{place}/{controller.BUFFERS}.usage_in_bytes"))
        return used
    if cgroup.exists(f"{record.cgroup}/memory.current"):
        used["memoryuse"] = int(cgroup.read(f"{record.cgroup}/memory.current"))
    if cgroup.exists(f"{record.cgroup}/memory.swap.current"):
        used["swapuse"] = int(cgroup.read(f"{record.cgroup}/memory.swap.current"))
    return used


def _add_own(record: Record, used: dict[str, int]) -> None:
    tree = attach.open_tree_of(record)
    try:
        used["pseudoterminals"] += _terminals(tree)
        used["shmsize"] += _in_shm(tree)
    finally:
        posix.close(tree)
    if record.params.get("sysvshm") == "inherit":
        return  # it is the host's
    for kind, lines in _sysvipc(record).items():
        count, column, total = next(row[1:] for row in _SYSV if row[0] == kind)
        for line in lines:
            words = line.split()
            if count:
                used[count] += 1
            used[total] += int(words[column])
            if kind == "msg":
                used["msgqqueued"] += int(words[_QUEUED])


def _terminals(tree: int) -> int:
    directory = mountfd.open_mounted(tree, b"dev/pts", posix.O_RDONLY, mount.DEVPTS_SUPER_MAGIC)
    if directory < 0:
        return 0
    try:
        return sum([name.isdigit() for name in posix.listdir(directory)])
    finally:
        posix.close(directory)


def _in_shm(tree: int) -> int:
    directory = mountfd.open_mounted(tree, b"dev/shm", posix.O_RDONLY, mount.TMPFS_MAGIC)
    if directory < 0:
        return 0
    try:
        status = posix.fstatvfs(directory)
        return (status.f_blocks - status.f_bfree) * status.f_frsize
    finally:
        posix.close(directory)


def _sysvipc(record: Record) -> dict[str, list[str]]:
    """The lines of /proc/sysvipc in the jail's namespace, by kind."""
    init = attach.open_init(record)
    try:
        with InNamespace(init, ns.CLONE_NEWIPC):
            try:
                return {row[0]: content.text(f"/proc/sysvipc/{row[0]}").split("\n")[1:-1] for row in _SYSV}
            except FileNotFoundError:
                return {}  # a kernel without System V IPC
    finally:
        posix.close(init)


def age(record: Record) -> int:
    """Seconds since PID 1 was started."""
    fields = content.text(f"/proc/{record.init_pid}/stat").rpartition(") ")[2].split()
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS)


def counters(record: Record, disks: bool) -> dict[str, int]:
    """What rates are made of: microseconds of processors, bytes and operations of disks, since the start."""
    counted = dict.fromkeys(_RATES, 0)
    lines = cgroup.read(f"{record.cgroup}/members/cpu.stat").decode().split("\n")
    counted["pcpu"] = int(next(line.split()[1] for line in lines if line.startswith("usage_usec ")))
    if not disks:
        return counted
    if cgroup.exists(f"{record.cgroup}/io.stat"):
        names = {"rbytes": "readbps", "wbytes": "writebps", "rios": "readiops", "wios": "writeiops"}
        for word in cgroup.read(f"{record.cgroup}/io.stat").decode().split():
            key, _, value = word.partition("=")
            if key in names:
                counted[names[key]] += int(value)
        return counted
    for pid in halt.members(record):
        try:
            lines = content.text(f"/proc/{pid}/io").split("\n")
        except OSError:
            continue
        found = {_IO[key]: int(value) for key, _, value in [line.partition(": ") for line in lines] if key in _IO}
        for what in ("read", "write"):  # calls are of pipes, too, and no disk gives less than a sector
            counted[f"{what}bps"] += found.get(f"{what}bps", 0)
            counted[f"{what}iops"] += min(found.get(f"{what}iops", 0), found.get(f"{what}bps", 0) // _SECTOR)
    return counted


def _rates(record: Record, disks: bool) -> dict[str, int]:
    """In a second, and of the processors percent of one; what has ended meanwhile may take its part with it."""
    if record.init not in _samples:
        _samples[record.init] = time.monotonic(), counters(record, disks)
    then, before = _samples[record.init]
    if time.monotonic() - then < _WINDOW:
        time.sleep(_WINDOW - (time.monotonic() - then))
    now, after = time.monotonic(), counters(record, disks)
    _samples[record.init] = now, after
    found = {name: int(max(after[name] - before[name], 0) / (now - then)) for name in _RATES}
    found["pcpu"] //= 10_000
    return found
