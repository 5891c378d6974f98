"""Files of /proc that count for the whole machine: what a jail reads there instead.

The texts have the kernel's format, so that free(1), top(1), ps(1) and whoever sizes itself by them go on working. A
jail is told of a machine as large as its limits, up since the jail began, on which nobody else is. Here is how that
looks when the jail is made; ``core.fresh`` brings it up to date.

The files lie on a ramfs of the jail's, bound read-only to where they are read. It is mounted a second time, to be
written to, on ``PLACE``: a directory that is open to the host's root alone, and owned by nobody that a jail knows.
"""

from __future__ import annotations

import posix
import time

from jailng.core.index import DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
# What a jail may have in use, by the names there; two more that are not there.
_USE = (
    b"Used Swap Cached SwapCached Active(anon) Inactive(anon) Active(file) Inactive(file) Unevictable Dirty Writeback "
    b"AnonPages Mapped Shmem SReclaimable SUnreclaim KernelStack PageTables AnonHugePages"
).split()
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


def now() -> int:
    """The host's CLOCK_BOOTTIME, in hundredths of a second."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**7


def texts(params: Parameters, parent: Record | None) -> list[tuple[bytes, bytes]]:
    """Each file of a jail that is to be made in ``parent``, by its path below /proc, and what it reads.

    A kernel need not have all of them. The last is ``STATE``, which is none, and is read nowhere in the jail; before
    it comes cpuinfo where the jail has not all processors. Raises JailError.
    """
    limited = params.strings("ng.limits")
    memory, swap, more = rough_memory(), 0, []
    processors: Sequence[int] = range(posix.sysconf("SC_NPROCESSORS_ONLN"))
    if parent is not None or limited:
        from jailng.core import machine

        size = machine.of_new(limited, parent)
        memory, swap, processors, more = size.memory, size.swap, size.processors, machine.cpuinfo(size)
    since, began = int(time.time()), now()
    return [
        (b"loadavg", loadavg((0, 0, 0), 1, 1)),
        (b"meminfo", meminfo(memory, swap, {})),
        (b"stat", stat(processors, since, (0, 0, 0), 1, 1)),
        (b"sys/fs/aio-nr", b"0\n"),
        (b"sys/fs/dentry-state", b"0\t0\t45\t0\t0\t0\n"),
        (b"sys/fs/file-nr", b"0\t0\t9223372036854775807\n"),
        (b"sys/fs/inode-nr", b"0\t0\n"),
        (b"sys/fs/inode-state", b"0\t0\t0\t0\t0\t0\t0\n"),
        (b"sys/kernel/core_pattern", b"core\n"),  # the host's names a program of the host's
        (b"sys/kernel/hung_task_detect_count", b"0\n"),
        (b"sys/kernel/pty/nr", b"0\n"),
        (b"sys/kernel/random/boot_id", _new_boot_id()),
        *more,
        (STATE, state((since, began, began, 0), (0, 0, 0), memory, swap, processors)),
    ]


def whole_cpuinfo() -> str:
    """The path of a file with the cpuinfo of all processors, made once a boot: for each the kernel takes 0.02 ms."""
    path = f"{DIRECTORY}/cpuinfo"
    try:
        made = posix.stat(path).st_mtime
    except FileNotFoundError:
        made = 0
    if made < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME):
        from jailng.core import cpuinfo

        cpuinfo.keep(path)
    return path


def name(path: bytes) -> bytes:
    """What the file for a path below /proc is called on the jail's ramfs."""
    return path.replace(b"/", b".")


def rough_memory() -> int:
    """The machine's memory in kB, roughly: no more than that, no less than four fifths of it, and not which."""
    return rough(posix.sysconf("SC_PHYS_PAGES") * posix.sysconf("SC_PAGE_SIZE") >> 10)


def rough(number: int) -> int:
    """The three highest bits of a number."""
    shift = max(number.bit_length() - 3, 0)
    return number >> shift << shift


def meminfo(memory: int, swap: int, use: dict[bytes, int]) -> bytes:
    """/proc/meminfo of a machine of that size. ``use`` has what is in use, by the names there; all in kB."""
    values = dict.fromkeys(_USE, 0) | use
    values[b"MemTotal"] = memory
    values[b"MemFree"] = max(memory - values[b"Used"], 0)
    reclaimable = values[b"Active(file)"] + values[b"Inactive(file)"] + values[b"SReclaimable"]
    values[b"MemAvailable"] = min(values[b"MemFree"] + reclaimable, memory)
    values[b"SwapTotal"] = swap
    values[b"SwapFree"] = max(swap - values[b"Swap"], 0)
    values[b"CommitLimit"] = memory // 2 + swap
    values[b"Active"] = values[b"Active(anon)"] + values[b"Active(file)"]
    values[b"Inactive"] = values[b"Inactive(anon)"] + values[b"Inactive(file)"]
    values[b"Slab"] = values[b"SReclaimable"] + values[b"SUnreclaim"]
    return _MEMINFO % values


def stat(processors: Sequence[int], since: int, times: tuple[int, int, int], running: int, total: int) -> bytes:
    """/proc/stat of a jail with these processors, which began at ``since`` (seconds since the epoch).

    ``times`` are that used outside and inside the kernel, and that the jail is up, in hundredths of a second.
    How the use is spread over the processors is not known. The text is filled up to a length that does not change with
    every digit, by further counters of interrupts.
    """
    count = len(processors)
    user, system, up = times
    idle = max(up * count - user - system, 0) + _IDLE * count
    line = b" %d 0 %d %d 0 0 0 0 0 0\n"
    one = line % (user // count, system // count, idle // count)
    lines = [b"cpu ", line % (user, system, idle), *[b"cpu%d%s" % (number, one) for number in processors]]
    rest = _STAT % (b"%s", since, total, running)
    missing = -(sum(map(len, lines)) + len(rest) - 2) % _BLOCK
    return b"".join(lines) + rest % (b" 0" * (missing // 2))


def loadavg(loads: Sequence[float], running: int, total: int) -> bytes:
    """/proc/loadavg."""
    return b"%.2f %.2f %.2f %d/%d %d\n" % (*loads, running, total, total)


def state(
    times: tuple[int, int, int, int], loads: Sequence[float], memory: int, swap: int, processors: Sequence[int]
) -> bytes:
    """The content of ``STATE``, a line: ``times`` are since, began, seen and used of a ``machine.State``."""
    numbers = b",".join([b"%d" % number for number in processors])
    return b"%d %d %d %d " % times + b"%.9f %.9f %.9f " % tuple(loads) + b"%d %d %s\n" % (memory, swap, numbers)


def _new_boot_id() -> bytes:
    text = posix.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}\n".encode()
