"""Files of /proc that count for the whole machine: what a jail reads there instead.

The texts have the kernel's format, so that free(1), top(1), ps(1) and whoever sizes itself by them go on working. A
jail is told of a machine as large as its limits, up since the jail began, on which nobody else is. Here is how that
looks when the jail is made; ``core.fresh`` brings it up to date.

The files lie on a tmpfs of the jail's, bound read-only to where they are read. It is mounted a second time, to be
written to, on ``PLACE``: a directory that is open to the host's root alone, and owned by nobody that a jail knows.
"""

from __future__ import annotations

import posix
import time

from jailng.core.index import DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jailng.core.registry import Record
    from jailng.params.model import Parameters

PLACE = b"driver"  # below /proc: every kernel has it, and a jail is to see nothing of what is in it
STATE = b"state"

# proc_meminfo(5).
_MEMINFO = b"""\
MemTotal:       %(MemTotal)8d kB
MemFree:        %(MemFree)8d kB
MemAvailable:   %(MemAvailable)8d kB
Buffers:               0 kB
Cached:         %(Cached)8d kB
SwapCached:     %(SwapCached)8d kB
Active:         %(Active)8d kB
Inactive:       %(Inactive)8d kB
Active(anon):   %(Active(anon))8d kB
Inactive(anon): %(Inactive(anon))8d kB
Active(file):   %(Active(file))8d kB
Inactive(file): %(Inactive(file))8d kB
Unevictable:    %(Unevictable)8d kB
Mlocked:        %(Unevictable)8d kB
SwapTotal:      %(SwapTotal)8d kB
SwapFree:       %(SwapFree)8d kB
Dirty:          %(Dirty)8d kB
Writeback:      %(Writeback)8d kB
AnonPages:      %(AnonPages)8d kB
Mapped:         %(Mapped)8d kB
Shmem:          %(Shmem)8d kB
KReclaimable:   %(SReclaimable)8d kB
Slab:           %(Slab)8d kB
SReclaimable:   %(SReclaimable)8d kB
SUnreclaim:     %(SUnreclaim)8d kB
KernelStack:    %(KernelStack)8d kB
PageTables:     %(PageTables)8d kB
SecPageTables:         0 kB
NFS_Unstable:          0 kB
Bounce:                0 kB
WritebackTmp:          0 kB
CommitLimit:    %(CommitLimit)8d kB
Committed_AS:   %(AnonPages)8d kB
VmallocTotal:   34359738367 kB
VmallocUsed:           0 kB
VmallocChunk:          0 kB
Percpu:                0 kB
AnonHugePages:  %(AnonHugePages)8d kB
ShmemHugePages:        0 kB
ShmemPmdMapped:        0 kB
FileHugePages:         0 kB
FilePmdMapped:         0 kB
HugePages_Total:       0
HugePages_Free:        0
HugePages_Rsvd:        0
HugePages_Surp:        0
Hugepagesize:       2048 kB
Hugetlb:               0 kB
"""
# In hundredths of a second, as all of /proc/stat: a second of idling, lest nothing be divided by nothing.
_IDLE = 100
_STAT = b"""\
intr 0%s
ctxt 0
btime %d
processes %d
procs_running %d
procs_blocked 0
softirq 0 0 0 0 0 0 0 0 0 0 0
"""
_BLOCK = 512


class Size:
    """What a jail has of the machine: memory and swap in kB, and its processors, by the host's numbers of them."""

    __slots__ = ("memory", "processors", "swap")

    def __init__(self, memory: int, swap: int, processors: Sequence[int]) -> None:
        self.memory = memory
        self.swap = swap
        self.processors = processors


class State:
    """What the files were last made from. Times are in hundredths of a second, but for ``since``.

    ``since`` is when the jail began, in seconds since the epoch, ``began`` and ``seen`` that and the last look at it by
    the host's CLOCK_BOOTTIME, ``used`` the processor time that it had used by then, ``loads`` the three averages.
    """

    __slots__ = ("began", "loads", "seen", "since", "size", "used")

    def __init__(
        self, since: int, began: int, size: Size, seen: int = 0, used: int = 0, loads: Sequence[float] = (0, 0, 0)
    ) -> None:
        self.since = since
        self.began = began
        self.size = size
        self.seen = seen or began
        self.used = used
        self.loads = loads

    @property
    def text(self) -> bytes:
        """All of it, a line."""
        numbers = b"%d %d %d %d %.4f %.4f %.4f" % (self.since, self.began, self.seen, self.used, *self.loads)
        processors = ",".join(map(str, self.size.processors)).encode()
        return b"%s %d %d %s\n" % (numbers, self.size.memory, self.size.swap, processors)


def parse(text: bytes) -> State:
    """The state that a ``text`` tells of. Raises ValueError."""
    since, began, seen, used, one, five, fifteen, memory, swap, processors = text.partition(b"\n")[0].split()
    size = Size(int(memory), int(swap), [int(number) for number in processors.split(b",")])
    return State(int(since), int(began), size, int(seen), int(used), (float(one), float(five), float(fifteen)))


def now() -> int:
    """The host's CLOCK_BOOTTIME, in hundredths of a second."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**7


def texts(params: Parameters, parent: Record | None) -> list[tuple[bytes, bytes]]:
    """Each file of a jail that is to be made in ``parent``, by its path below /proc, and what it reads.

    A kernel need not have all of them. The last is ``STATE``, which is none, and is read nowhere in the jail; before
    it comes cpuinfo where the jail has not all processors. Raises JailError.
    """
    limited = params.strings("ng.limits")
    if parent is None and not limited:
        size = Size(rough_memory(), 0, range(posix.sysconf("SC_NPROCESSORS_ONLN")))
        more = []
    else:
        from jailng.core import size as measured

        size = measured.of_new(limited, parent)
        more = measured.files(size)
    state = State(int(time.time()), now(), size)
    return [
        (b"loadavg", loadavg((0, 0, 0), 1, 1)),
        (b"meminfo", meminfo(size, {})),
        (b"stat", stat(state, 0, 0, 0, 1, 1)),
        (b"sys/fs/aio-nr", b"0\n"),
        (b"sys/fs/dentry-state", b"0\t0\t45\t0\t0\t0\n"),
        (b"sys/fs/file-nr", b"0\t0\t9223372036854775807\n"),
        (b"sys/fs/inode-nr", b"0\t0\n"),
        (b"sys/fs/inode-state", b"0\t0\t0\t0\t0\t0\t0\n"),
        (b"sys/kernel/core_pattern", b"core\n"),  # the host's names a program of the host's
        (b"sys/kernel/pty/nr", b"0\n"),
        (b"sys/kernel/random/boot_id", _new_boot_id()),
        *more,
        (STATE, state.text),
    ]


def whole_cpuinfo() -> str:
    """The path of a file with the cpuinfo of all processors, made once a boot: for each the kernel takes 0.02 ms."""
    path = f"{DIRECTORY}/cpuinfo"
    try:
        made = posix.stat(path).st_mtime
    except FileNotFoundError:
        made = 0
    if made < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME):
        from jailng.core import size

        size.keep_cpuinfo(path)
    return path


def name(path: bytes) -> bytes:
    """What the file for a path below /proc is called on the jail's tmpfs."""
    return path.replace(b"/", b".")


def rough_memory() -> int:
    """The machine's memory in kB, roughly: no more than that, no less than four fifths of it, and not which."""
    return rough(posix.sysconf("SC_PHYS_PAGES") * posix.sysconf("SC_PAGE_SIZE") >> 10)


def rough(number: int) -> int:
    """The three highest bits of a number."""
    shift = max(number.bit_length() - 3, 0)
    return number >> shift << shift


class _Values(dict[bytes, int]):
    """Values by name, 0 for what is not there."""

    __slots__ = ()

    def __missing__(self, _: bytes) -> int:
        return 0


def meminfo(size: Size, use: Mapping[bytes, int]) -> bytes:
    """/proc/meminfo of a machine of that size. ``use`` has in kB what is in use, by the names there."""
    values = _Values(use)
    free = values[b"MemFree"] = max(size.memory - values[b"Used"], 0)
    reclaimable = values[b"Active(file)"] + values[b"Inactive(file)"] + values[b"SReclaimable"]
    values[b"MemAvailable"] = min(free + reclaimable, size.memory)
    values[b"MemTotal"] = size.memory
    values[b"SwapTotal"] = size.swap
    values[b"SwapFree"] = max(size.swap - values[b"Swap"], 0)
    values[b"CommitLimit"] = size.memory // 2 + size.swap
    for kind in (b"Active", b"Inactive"):
        values[kind] = values[kind + b"(anon)"] + values[kind + b"(file)"]
    values[b"Slab"] = values[b"SReclaimable"] + values[b"SUnreclaim"]
    return _MEMINFO % values


def stat(state: State, user: int, system: int, up: int, running: int, total: int) -> bytes:
    """/proc/stat. The processor times, and how long the jail is ``up``, are in hundredths of a second.

    How the use is spread over the processors is not known. The text is filled up to a length that does not change with
    every digit, by further counters of interrupts.
    """
    processors = state.size.processors
    count = len(processors)
    idle = max(up * count - user - system, 0) + _IDLE * count
    line = b" %d 0 %d %d 0 0 0 0 0 0\n"
    one = line % (user // count, system // count, idle // count)
    lines = [b"cpu ", line % (user, system, idle), *[b"cpu%d%s" % (number, one) for number in processors]]
    rest = _STAT % (b"%s", state.since, total, running)
    missing = -(sum(map(len, lines)) + len(rest) - 2) % _BLOCK
    return b"".join(lines) + rest % (b" 0" * (missing // 2))


def loadavg(loads: Sequence[float], running: int, total: int) -> bytes:
    """/proc/loadavg."""
    return b"%.2f %.2f %.2f %d/%d %d\n" % (*loads, running, total, total)


def _new_boot_id() -> bytes:
    text = posix.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}\n".encode()
