"""/proc/cpuinfo of a jail: the host's, of the processors that the jail has."""

from __future__ import annotations

from jailng.linux import content, cpuset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/proc/cpuinfo"
# What the processor does not tell whoever asks it.
_HOSTS_OWN = (b"microcode",)


def text(processors: Sequence[int]) -> bytes:
    """/proc/cpuinfo of these processors, without what a program could not ask the processor for itself."""
    told: list[bytes] = []
    for block in content.read(PATH).split(b"\n\n"):
        lines = block.strip(b"\n").split(b"\n")
        key, _, number = lines[0].partition(b":")
        if key.strip() == b"processor" and int(number) in processors:
            kept = [line for line in lines if line.partition(b":")[0].strip() not in _HOSTS_OWN]
            told.append(b"\n".join(kept) + b"\n\n")
    return b"".join(told)


def keep(path: str) -> None:
    """Make the file with the cpuinfo of all processors; one of the boot before goes. Raises OSError."""
    content.replace(path, text(cpuset.online()), 0o644)
