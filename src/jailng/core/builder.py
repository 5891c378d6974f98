"""The builder: the process that makes a jail's tree, in its namespaces with the host's privileges.

It is a program of jailinit's (``core.program``), so whoever starts a jail never leaves its own namespaces and has the
time that it takes for other things. A procfs and an mqueue belong to the namespaces of the process that makes them.
The builder joins the jail's mount and ipc namespaces, and for a sysfs its network: no process with privileges is ever
seen inside. Before
Linux 6.18, where a procfs cannot be told whose it is, it has to be born into the jail's pid namespace as well.
"""

from __future__ import annotations

import posix

from jailng.core import jailinit, process, program
from jailng.errors import JailError
from jailng.linux import mount, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Operation, Slots
    from jailng.core.program import Program

_NAMES = ("mnt", "ipc", "net", "pid", "user")
_LONGEST = 32  # of a path that the builder is told
_KEPT = 1010


class Builder:
    """The builder on its way: born before PID 1 is there, which takes as long on the other processor, and told of it.

    ``noted`` are the calls that failed and did no harm, once it is done.
    """

    __slots__ = ("_begun", "_gate", "_running", "noted")

    def __init__(self, operations: list[Operation], slots: Slots, joined: str, home: int) -> None:
        """Have it carry out ``operations`` in those namespaces of PID 1 that ``joined`` names as /proc/PID/ns does.

        ``home`` is the cgroup for one that has to be born, -1 for that of this process.

        The slots ``userns`` and ``pidns`` are descriptors of the builder's, and nothing here. Raises OSError.
        """
        gate, self._gate = posix.pipe2(posix.O_CLOEXEC)
        self._begun = False
        self.noted: list[int] = []
        try:
            for name in ("userns", "pidns"):
                slots[name] = posix.dup(gate)
            self._running = program.start(_lay_down(operations, slots, joined.split(), gate, home), jailinit.path())
        except BaseException:
            posix.close(self._gate)
            raise
        finally:
            posix.close(gate)

    def begin(self, init: int) -> None:
        """PID 1 is there, a child of this process, and its ids are mapped."""
        paths = [f"/proc/{init}/ns/{name}".encode().ljust(_LONGEST, b"\0") for name in _NAMES]
        posix.write(self._gate, b"".join(paths))
        self._begun = True

    def wait(self) -> None:
        """Wait until it is done. Raises JailError with what failed."""
        if not mount.takes_pid_namespace():
            self._running.forked()
        self._running.arrived()
        _, status = posix.waitpid(self._running.pid, 0)
        self.noted = self._running.noted
        if status:
            raise JailError("the builder died")

    def close(self) -> None:
        """Let go of it; where it has not begun it ends."""
        posix.close(self._gate)
        if not self._begun:
            self._running.complaint()
            posix.waitpid(self._running.pid, 0)


def _lay_down(operations: list[Operation], slots: Slots, joined: list[str], gate: int, home: int) -> Program:
    way = program.Program()
    way.fds += [slots["root"], slots["userns"], slots["pidns"], gate]
    process.not_dumpable(way)
    way.must("umask", 0)  # what is made in a jail has the mode that is asked for
    for operation in operations:
        operation.outside(way, slots)
    size = _LONGEST * len(_NAMES)
    paths = way.data(bytes(size))
    way.expect(size, "read", gate, paths, size)  # nothing, if whoever is to tell has died
    for number, name in enumerate(_NAMES):
        label = f"jail_set: open /proc/PID/ns/{name}"
        path = paths + number * _LONGEST
        way.must("openat", mount.AT_FDCWD, path, posix.O_RDONLY | posix.O_CLOEXEC, 0, keep=_KEPT + number, label=label)
    for slot, name in (("userns", "user"), ("pidns", "pid")):
        way.must("dup3", program.kept(_KEPT + _NAMES.index(name)), slots[slot], posix.O_CLOEXEC)
    born = not mount.takes_pid_namespace()
    # Once it is born there, whoever is in the jail above is told of its mounts and its network by /proc/PID.
    for name in [*joined, "net"] if born and "net" not in joined else joined:
        way.must("setns", program.kept(_KEPT + _NAMES.index(name)), 0, label="jail_set: setns")
    if born:
        way.must("setns", slots["pidns"], ns.CLONE_NEWPID, label="jail_set: setns")
        way.fork(0, home, label="jail_set: clone3")
    for operation in operations:
        operation.inside(way, slots)
    way.end()
    return way
