"""allow.mount.*: which kinds root inside may mount, and what judges that. Loaded only for a jail that may mount.

Bind mounts (nullfs) are known by their flags, which the seccomp filter sees. The type of a file system is a string, so
tmpfs and fuse take a program that the kernel's mount hook asks (docs/decisions/0008-mounting.md).
"""

from __future__ import annotations

import posix

from jailng.core.operation import Operation
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_TYPES = {"allow.mount.tmpfs": b"tmpfs", "allow.mount.fusefs": b"fuse"}
_FUSE = "allow.mount.fusefs"
_IDS = 65536


class JudgeMounts(Operation):
    """Have the kernel refuse the processes of the jail's cgroup what is none of these types of file systems.

    To be applied when the tree is built, by a process that may be in that cgroup, and before anybody enters.
    """

    __slots__ = ("base", "cgroup", "names")

    def __init__(self, cgroup: str, names: list[str], base: int) -> None:
        self.base = base
        self.cgroup = cgroup
        self.names = names

    def undo_lines(self) -> list[str]:
        """A process that waits for a FUSE server cannot be killed without this."""
        return [f"fuse {self.cgroup} {self.base}"] if _FUSE in self.names else []

    def apply(self, slots: Slots) -> None:
        """Raises JailError, as ``check``. The program goes with the cgroup."""
        from jailng.linux import bpf, cgroup, lsm

        program = _load(self.names)
        directory = cgroup.open_directory(self.cgroup)
        try:
            bpf.attach(directory, program, lsm.CGROUP)
        except OSError as error:
            raise _refused(self.names, error) from None
        finally:
            posix.close(directory)
            posix.close(program)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "let root mount " + ", ".join([_TYPES[name].decode() for name in self.names])


class NoteFileSystems(Operation):
    """Write down which file systems of a jail's own are where, while nobody is in it who could cover them.

    What is on top there may later be one of the host's, which is not to be limited for this jail (core/ownlimit.py).
    """

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    def apply(self, slots: Slots) -> None:
        """Raises OSError."""
        from jailng.core import ownlimit

        root = posix.open(f"/proc/{slots['init.pid']}/root", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            self.record.append([f"devices {ownlimit.devices(root, self.record)}"])
        finally:
            posix.close(root)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "note which file systems are the jail's own"


def _load(names: list[str]) -> int:
    from jailng.linux import lsm

    try:
        return lsm.load([_TYPES[name] for name in names])
    except OSError as error:
        raise _refused(names, error) from None


def _refused(names: list[str], error: OSError) -> JailError:
    return JailError(
        f"{names[0]}: this kernel judges no types of mounts: {error.filename}: {error.strerror} "
        f'(Linux 6.8, CONFIG_BPF_LSM, "bpf" in lsm=)'
    )


def _named(params: Parameters) -> list[str]:
    return [name for name in _TYPES if params.flag(name)] if params.flag("allow.mount") else []


def check(params: Parameters) -> None:
    """Raises JailError naming a parameter that cannot be honoured, on this kernel or at all."""
    names = _named(params)
    if _FUSE in names and params.text("ng.uids") == "shared":
        raise JailError(f"{_FUSE}: not with ng.uids=shared: whose a FUSE server is its uid says")
    if names:
        posix.close(_load(names))


def operations(params: Parameters, record: Record, base: int) -> list[Operation]:
    """What a jail that may mount needs besides a mount namespace of its own; ``base`` is the first of its uids."""
    names = _named(params)
    judged: list[Operation] = [JudgeMounts(record.cgroup, names, base)] if names else []
    return [*judged, NoteFileSystems(record)]


def _end_servers(words: list[str]) -> None:
    """Kill all that is in the jail's cgroup, and end the FUSE connections that it leaves.

    In this order: who is killed mounts nothing any more.
    """
    from jailng.linux import cgroup, fuse

    path, base = words[0], int(words[1])
    try:
        cgroup.write(f"{path}/cgroup.kill", b"1")
    except FileNotFoundError:
        pass
    fuse.abort(range(base, base + _IDS))


UNDO = {"fuse": _end_servers}
