"""Capabilities and the other things that a process gives up for good: capabilities(7), prctl(2), keyctl(2)."""

from __future__ import annotations

import posix

from jailng.linux.libc import syscall, words

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23


def mask(names: str) -> int:
    """The bit set of capabilities named without CAP_, separated by spaces. Raises ValueError for an unknown name."""
    return sum([1 << NAMES.index(name) for name in set(names.split())]) if names else 0


def capset(granted: int, permitted: int | None = None) -> None:
    """Hold exactly these: effective ``granted``, permitted the same or as given, inheritable none. Raises OSError."""
    allowed = granted if permitted is None else permitted
    halves = [(granted >> shift, allowed >> shift, 0) for shift in (0, 32)]
    data = b"".join([words(*half, size=4) for half in halves])
    syscall("capset", words(_VERSION_3, 0, size=4), data)


_last: list[int] = []


def last() -> int:
    """The number of the last capability that this kernel knows."""
    if _last:
        return _last[0]
    fd = posix.open("/proc/sys/kernel/cap_last_cap", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        _last.append(int(posix.read(fd, 16)))
    finally:
        posix.close(fd)
    return _last[0]


def bounding() -> int:
    """The capability bounding set of this thread."""
    found = 0
    for number in range(64):
        try:
            found |= syscall("prctl", _PR_CAPBSET_READ, number, 0, 0, 0) << number
        except OSError:
            break
    return found


def set_dumpable(on: bool) -> None:
    """Whether another process of the same uid may look into this one. Inherited by fork, set again by exec."""
    syscall("prctl", _PR_SET_DUMPABLE, int(on), 0, 0, 0)


def die_with_parent(signal: int) -> None:
    """Have the kernel send ``signal`` when the parent thread ends. Any later change of credentials forgets it."""
    syscall("prctl", _PR_SET_PDEATHSIG, signal, 0, 0, 0)
