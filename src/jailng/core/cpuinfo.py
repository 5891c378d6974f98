"""/proc/cpuinfo of a jail: the host's, of the processors that the jail has."""

from __future__ import annotations

import posix

from jailng.linux import content, cpuset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/proc/cpuinfo"
_NAMELESS = posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC
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
    """Make the file with the cpuinfo of all processors. Raises OSError."""
    file = posix.open(path.rpartition("/")[0], _NAMELESS, 0o644)
    try:
        posix.write(file, text(cpuset.online()))
        try:
            posix.unlink(path)  # of the boot before
        except FileNotFoundError:
            pass
        posix.link(f"/proc/self/fd/{file}", path, src_dir_fd=file)  # linkat(2), else the link is not followed
    except FileExistsError:
        pass  # another command was as fast
    finally:
        posix.close(file)
