"""The builder: whoever makes a jail's tree and the inside of its network, in its namespaces with the host's privileges.

A procfs, an mqueue and an interface belong to the namespaces of the process that makes them. Mount, ipc and network
namespaces this process can enter and leave again, so it builds by itself: no process with privileges is ever seen
inside. Only before Linux 6.18, where a procfs cannot be told whose it is, a child must be born into the jail for it.
"""

from __future__ import annotations

import posix

from jailng.errors import JailError, explain
from jailng.linux import mount, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Operation, Slots

_OPEN = posix.O_RDONLY | posix.O_CLOEXEC


def build(operations: list[Operation], slots: Slots, joined: int) -> None:
    """Apply the operations in the namespaces of PID 1 (slot ``init``): the ones of the CLONE_NEW flags ``joined``.

    The caller is in the jail's mount namespace, and leads the way back from all. Raises JailError or OSError.
    """
    slots["pidns"] = posix.open(f"/proc/{slots['init.pid']}/ns/pid", _OPEN)
    if not mount.takes_pid_namespace(slots["pidns"]):
        posix.close(slots.pop("pidns"))
        _build_in_child(operations, slots, joined)
        return
    _apply(operations, slots, joined)


def _apply(operations: list[Operation], slots: Slots, joined: int) -> None:
    ns.setns(slots["init"], joined)
    for operation in operations:
        operation.apply(slots)


def _build_in_child(operations: list[Operation], slots: Slots, joined: int) -> None:
    said, say = posix.pipe2(posix.O_CLOEXEC)
    ns.setns(slots["init"], ns.CLONE_NEWPID)  # for the child only: it is born in the jail's pid namespace
    pid, pidfd = ns.clone3(0, slots["init.home"])
    if pid == 0:
        try:
            _apply(operations, slots, joined)
        except BaseException as error:
            posix.write(say, explain(error).encode("utf-8", "surrogateescape"))
            posix._exit(1)
        posix._exit(0)
    posix.close(pidfd)
    posix.close(say)
    complaint = posix.read(said, 4096).decode("utf-8", "surrogateescape")
    posix.close(said)
    _, status = posix.waitpid(pid, 0)
    if complaint or status:
        raise JailError(complaint or "the builder died")
