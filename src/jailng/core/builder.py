"""The builder: the process that makes a jail's tree, in its namespaces with the host's privileges.

It is a program of jailinit's (``core.program``), so whoever starts a jail never leaves its own namespaces and has the
time that it takes for other things. A procfs and an mqueue belong to the namespaces of the process that makes them.
The builder joins the jail's mount and ipc namespaces only: no process with privileges is ever seen inside. Before
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
    from jailng.core.program import Program, Running


def lay_down(operations: list[Operation], slots: Slots, joined: int) -> Program:
    """The calls of the builder, who enters the namespaces of PID 1 (slot ``init``) that the flags ``joined`` name.

    Only the numbers in the slots ``init``, ``userns`` and ``pidns`` are used: what they stand for may come later.
    """
    way = program.Program()
    way.fds += [slots["root"], slots["init"], slots["userns"]]
    process.not_dumpable(way)
    if mount.takes_pid_namespace():
        way.fds.append(slots["pidns"])
    else:
        way.must("setns", slots["init"], ns.CLONE_NEWPID, label="jail_set: setns")
        way.fork(0, slots["init.home"], label="jail_set: clone3")
    way.must("umask", 0)  # what is made in a jail has the mode that is asked for
    for operation in operations:
        operation.outside(way, slots)
    way.must("setns", slots["init"], joined, label="jail_set: setns")
    for operation in operations:
        operation.inside(way, slots)
    way.end()
    return way


def start(way: Program) -> Running:
    """Begin to build. Raises JailError or OSError."""
    running = program.start(way, jailinit.path())
    if not mount.takes_pid_namespace():
        running.forked()
    return running


def wait(running: Running) -> None:
    """Wait until it is done. Raises JailError with what failed."""
    running.arrived()
    _, status = posix.waitpid(running.pid, 0)
    if status:
        raise JailError("the builder died")
