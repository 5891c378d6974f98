"""What a jail has of the machine: its memory, swap and processors, by its limits and by those of the jails above it.

Asked when a jail with limits is made, and when something of this changes. In between it stands in the file
``procfiles.STATE``, with what was last seen of the jail.
"""

from __future__ import annotations

import posix

from jailng.core import procfiles, registry
from jailng.linux import content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jailng.core.registry import Record


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
        size = self.size
        times = self.since, self.began, self.seen, self.used
        return procfiles.state(times, self.loads, size.memory, size.swap, size.processors)


def parse(text: bytes) -> State:
    """The state that a ``text`` tells of. Raises ValueError."""
    since, began, seen, used, one, five, fifteen, memory, swap, processors = text.partition(b"\n")[0].split()
    size = Size(int(memory), int(swap), [int(number) for number in processors.split(b",")])
    return State(int(since), int(began), size, int(seen), int(used), (float(one), float(five), float(fifteen)))


def of_new(limited: Iterable[str], parent: Record | None) -> Size:
    """What a jail will have that is made in ``parent``, with these ng.limits. Raises JailError, OSError."""
    if parent is None:
        return _size(limited, _all())
    return _size([*limited, *_limits(parent)], _processors(parent))


def _all() -> Sequence[int]:
    """The machine's processors, which have the first numbers, unless some are offline. Raises OSError."""
    count = posix.sysconf("SC_NPROCESSORS_ONLN")
    if count == posix.sysconf("SC_NPROCESSORS_CONF"):
        return range(count)
    from jailng.linux import cpuset

    return cpuset.online()


def of(record: Record) -> Size:
    """What a jail has now. Raises OSError."""
    return _size(_limits(record), _processors(record))


def cpuinfo(size: Size) -> list[tuple[bytes, bytes]]:
    """The file cpuinfo of a new jail, if it differs from that of a jail with all processors."""
    if len(size.processors) == posix.sysconf("SC_NPROCESSORS_ONLN"):
        return []
    from jailng.core import cpuinfo

    return [(b"cpuinfo", cpuinfo.text(size.processors))]


def _processors(record: Record) -> Sequence[int]:
    from jailng.linux import cpuset

    return cpuset.processors(record.cgroup)


def _limits(record: Record) -> list[str]:
    """The limits of a jail and of those above it."""
    found: list[str] = []
    for one in registry.upwards(record):
        found += [one.params.get("ng.limits", ""), one.rules]
    return found


def _size(texts: Iterable[str], processors: Sequence[int]) -> Size:
    """The smallest of each. A limit above what the machine has is told as that, roughly."""
    amounts: dict[str, int] = {}
    for text in texts:
        if text:
            from jailng.params.limit import read

            for limit in read([text]):
                if limit.action == "deny" and limit.per == "jail":
                    amounts[limit.resource] = min(limit.amount, amounts.get(limit.resource, limit.amount))
    memory = min(procfiles.rough_memory(), amounts.get("memoryuse", 1 << 62) >> 10)
    swap = min(procfiles.rough(_swap()), amounts["swapuse"] >> 10) if "swapuse" in amounts else 0
    count = -(-amounts["pcpu"] // 100) if "pcpu" in amounts else len(processors)
    return Size(memory, swap, processors[: max(count, 1)])


def _swap() -> int:
    """The machine's swap space in kB."""
    for line in content.read("/proc/meminfo").split(b"\n"):
        if line.startswith(b"SwapTotal:"):
            return int(line.split()[1])
    return 0
