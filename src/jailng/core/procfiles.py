"""Files of /proc that count for the whole machine: what a jail reads there instead.

The texts have the kernel's format, so that free(1), top(1), ps(1) and whoever sizes itself by them go on
working. They are made when the jail is, and nothing in them moves.
"""

from __future__ import annotations

import posix
import time

# proc_meminfo(5). Nothing of it is in use: how much is, of all the machine, no jail is told.
_MEMINFO = b"""\
MemTotal:       %8d kB
MemFree:        %8d kB
MemAvailable:   %8d kB
Buffers:               0 kB
Cached:                0 kB
SwapCached:            0 kB
Active:                0 kB
Inactive:              0 kB
Active(anon):          0 kB
Inactive(anon):        0 kB
Active(file):          0 kB
Inactive(file):        0 kB
Unevictable:           0 kB
Mlocked:               0 kB
SwapTotal:             0 kB
SwapFree:              0 kB
Dirty:                 0 kB
Writeback:             0 kB
AnonPages:             0 kB
Mapped:                0 kB
Shmem:                 0 kB
KReclaimable:          0 kB
Slab:                  0 kB
SReclaimable:          0 kB
SUnreclaim:            0 kB
KernelStack:           0 kB
PageTables:            0 kB
SecPageTables:         0 kB
NFS_Unstable:          0 kB
Bounce:                0 kB
WritebackTmp:          0 kB
CommitLimit:    %8d kB
Committed_AS:          0 kB
VmallocTotal:   34359738367 kB
VmallocUsed:           0 kB
VmallocChunk:          0 kB
Percpu:                0 kB
AnonHugePages:         0 kB
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
# An hour of idling, so that what is shown of the time since the start is 100 % idle: top(1).
_IDLE = 360000
_STAT = b"""\
intr 0
ctxt 0
btime %d
processes 1
procs_running 1
procs_blocked 0
softirq 0 0 0 0 0 0 0 0 0 0 0
"""


def texts() -> list[tuple[bytes, bytes]]:
    """Each file, by its path below /proc, and what it reads. A kernel need not have all of them."""
    return [
        (b"loadavg", b"0.00 0.00 0.00 1/1 1\n"),
        (b"meminfo", meminfo(posix.sysconf("SC_PHYS_PAGES") * posix.sysconf("SC_PAGE_SIZE") >> 10)),
        (b"stat", stat(posix.sysconf("SC_NPROCESSORS_ONLN"), int(time.time()))),
        (b"sys/fs/aio-nr", b"0\n"),
        (b"sys/fs/dentry-state", b"0\t0\t45\t0\t0\t0\n"),
        (b"sys/fs/file-nr", b"0\t0\t9223372036854775807\n"),
        (b"sys/fs/inode-nr", b"0\t0\n"),
        (b"sys/fs/inode-state", b"0\t0\t0\t0\t0\t0\t0\n"),
        (b"sys/kernel/core_pattern", b"core\n"),  # the host's names a program of the host's
        (b"sys/kernel/pty/nr", b"0\n"),
        (b"sys/kernel/random/boot_id", _new_boot_id()),
    ]


def meminfo(total: int) -> bytes:
    """/proc/meminfo of a machine with so many kB: no more than those, no less than four fifths, and not which."""
    shift = max(total.bit_length() - 3, 0)
    rough = total >> shift << shift
    return _MEMINFO % (rough, rough, rough, rough // 2)


def stat(processors: int, since: int) -> bytes:
    """/proc/stat of a machine that has idled since then (seconds since the epoch)."""
    idle = b" 0 0 0 %d 0 0 0 0 0 0\n"
    each = b"".join([b"cpu%d" % number + idle % _IDLE for number in range(processors)])
    return b"cpu " + idle % (_IDLE * processors) + each + _STAT % since


def _new_boot_id() -> bytes:
    text = posix.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}\n".encode()
