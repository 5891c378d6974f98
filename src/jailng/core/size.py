"""What a jail has of the machine: its memory, swap and processors, by its limits and by those of the jails above it.

Asked when a jail with limits is made, and when something of this changes; what is read in between is ``core.fresh``.
"""

from __future__ import annotations

import posix

from jailng.core import procfiles, registry
from jailng.linux import cpuset
from jailng.params.limit import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jailng.core.registry import Record

_CREATE = posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY | posix.O_CLOEXEC
# What the processor does not tell whoever asks it.
_HOSTS_OWN = (b"microcode",)


def of_new(limited: Iterable[str], parent: Record | None) -> procfiles.Size:
    """What a jail will have that is made in ``parent``, with these ng.limits. Raises JailError, OSError."""
    return _size([*limited, *_limits(parent)], cpuset.processors(parent.cgroup) if parent else cpuset.online())


def of(record: Record) -> procfiles.Size:
    """What a jail has now. Raises OSError."""
    return _size(_limits(record), cpuset.processors(record.cgroup))


def _limits(record: Record | None) -> list[str]:
    """The limits of a jail and of those above it."""
    found: list[str] = []
    while record is not None:
        found += [record.params.get("ng.limits", ""), record.rules]
        record = registry.load(record.parent) if record.parent else None
    return found


def _size(texts: Iterable[str], processors: Sequence[int]) -> procfiles.Size:
    """The smallest of each. A limit above what the machine has is told as that, roughly."""
    amounts: dict[str, int] = {}
    for text in texts:
        for limit in read([text]):
            if limit.action == "deny" and limit.per == "jail":
                amounts[limit.resource] = min(limit.amount, amounts.get(limit.resource, limit.amount))
    memory = min(procfiles.rough_memory(), amounts.get("memoryuse", 1 << 62) >> 10)
    swap = min(procfiles.rough(_swap()), amounts["swapuse"] >> 10) if "swapuse" in amounts else 0
    count = -(-amounts["pcpu"] // 100) if "pcpu" in amounts else len(processors)
    return procfiles.Size(memory, swap, processors[: max(count, 1)])


def _swap() -> int:
    """The machine's swap space in kB."""
    for line in _content("/proc/meminfo").split(b"\n"):
        if line.startswith(b"SwapTotal:"):
            return int(line.split()[1])
    return 0


def files(size: procfiles.Size) -> list[tuple[bytes, bytes]]:
    """The file cpuinfo of a new jail, if it differs from that of a jail with all processors."""
    return [] if list(size.processors) == cpuset.online() else [(b"cpuinfo", cpuinfo(size.processors))]


def cpuinfo(processors: Sequence[int]) -> bytes:
    """/proc/cpuinfo of these processors, without what a program could not ask the processor for itself."""
    told: list[bytes] = []
    for block in _content("/proc/cpuinfo").split(b"\n\n"):
        lines = block.strip(b"\n").split(b"\n")
        key, _, number = lines[0].partition(b":")
        if key.strip() == b"processor" and int(number) in processors:
            kept = [line for line in lines if line.partition(b":")[0].strip() not in _HOSTS_OWN]
            told.append(b"\n".join(kept) + b"\n\n")
    return b"".join(told)


def keep_cpuinfo(path: str) -> None:
    """Write the cpuinfo of all processors to a file. Raises OSError."""
    new = f"{path}.{posix.getpid()}"
    file = posix.open(new, _CREATE, 0o644)
    try:
        posix.write(file, cpuinfo(cpuset.online()))
    finally:
        posix.close(file)
    posix.rename(new, path)


def _content(path: str) -> bytes:
    file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    content = b""
    try:
        while part := posix.read(file, 1 << 16):
            content += part
    finally:
        posix.close(file)
    return content
