"""Capabilities by name and number: capabilities(7)."""

from __future__ import annotations

import posix

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()


def mask(names: str) -> int:
    """The bit set of capabilities named without CAP_, separated by spaces. Raises ValueError for an unknown name."""
    return sum([1 << NAMES.index(name) for name in set(names.split())]) if names else 0


def lacking(names: str) -> list[str]:
    """Those of these capabilities that are not in this process's effective set. Raises OSError."""
    # capget(2) would load ctypes, which takes longer than all of this.
    fd = posix.open("/proc/self/status", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        status = posix.read(fd, 8192)
    finally:
        posix.close(fd)
    held = int(status.partition(b"\nCapEff:")[2].split(None, 1)[0], 16)
    return [f"CAP_{name}" for name in names.split() if not held & mask(name)]


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
